// SPDX-License-Identifier: BSD-2-Clause
// Guest extensions: by dpkg where it rules, by unpack.c elsewhere. What is installed is recorded in
// the state before anything changes.
//
// To go back, dpkg needs the packages that were installed before: FOLDER/kept has those that we
// installed; one that came by other ways is taken from apt's cache, or packed anew from the guest's
// files. When a maintainer script runs us (apt upgrades strake-monitor-update), then dpkg's
// database is locked. So the files are unpacked beneath dpkg, which gets to know when it has ended.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "update.h"

#if defined(__riscv)
#define ARCHITECTURE "riscv64"
#elif defined(__x86_64__)
#define ARCHITECTURE "amd64"
#elif defined(__aarch64__)
#define ARCHITECTURE "arm64"
#else
#error "which name does Debian have for this architecture?"
#endif

#define ARGUMENTS_MAX (GUEST_MAX + 16u)
#define DPKG_BUSY_S 600u

// Packs an installed package anew: $1 root, $2 package, $3 folder to work in; written to $3.deb.
static const char repack[] =
    "set -e; rm -rf \"$3\"; mkdir -p \"$3/DEBIAN\"\n"
    "dpkg-query --admindir=\"$1/var/lib/dpkg\" -L \"$2\" | while read -r f; do\n"
    "  [ -L \"$1$f\" ] || [ ! -d \"$1$f\" ] || { mkdir -p \"$3$f\"; continue; }\n"
    "  mkdir -p \"$3$(dirname \"$f\")\"; cp -a \"$1$f\" \"$3$f\"; done\n"
    "dpkg-query --admindir=\"$1/var/lib/dpkg\" -s \"$2\" | sed '/^Status:/d' "
    ">\"$3/DEBIAN/control\"\n"
    "for f in preinst postinst prerm postrm conffiles; do\n"
    "  i=\"$1/var/lib/dpkg/info/$2.$f\"; [ ! -e \"$i\" ] || cp -a \"$i\" \"$3/DEBIAN/$f\"; done\n"
    "dpkg-deb --root-owner-group -b \"$3\" \"$3.deb\"; rm -rf \"$3\"\n";

// ---- dpkg --------------------------------------------------------------------------------------

static bool have_dpkg(const struct context *context)
{
    char path[PATH_BYTES];
    struct fault ignored;

    // Busybox has a dpkg, too, but no database that it would know the guest by.
    return join(path, context->root, "var/lib/dpkg/status", &ignored) == 0 &&
           access(path, F_OK) == 0 && have_program("dpkg");
}

// Runs dpkg or a relative of it; what it says goes to dpkg.log.
static int run_logged(const struct context *context, const char *const *argv)
{
    char path[PATH_BYTES];
    struct fault ignored;
    int log = -1;

    if (join(path, context->folder, "dpkg.log", &ignored) == 0)
        log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    int result = run_program(argv, -1, log);
    if (log >= 0)
        close(log);
    return result;
}

static int run_dpkg(const struct context *context, const char *const *more, struct fault *fault)
{
    char root[PATH_BYTES + 8];
    const char *argv[ARGUMENTS_MAX] = {"dpkg", root, "--force-confdef", "--force-confold"};

    snprintf(root, sizeof(root), "--root=%s", context->root);
    for (unsigned i = 0; more[i] && i + 5 < ARGUMENTS_MAX; i++)
        argv[4 + i] = more[i];
    if (run_logged(context, argv) == 0)
        return 0;
    return fault_set(fault, OUTCOME_NOT_INSTALLED, "`dpkg %s` failed, see '%s/dpkg.log'", more[0],
                     context->folder);
}

// First line of what a program prints, "" when it fails.
static void ask(const char *const *argv, char *line, size_t line_bytes)
{
    int output;
    pid_t child;
    size_t used = 0;
    ssize_t got;

    *line = 0;
    if (start_program(argv, -1, &output, &child))
        return;
    while (used < line_bytes - 1 && (got = read(output, line + used, line_bytes - 1 - used)) > 0)
        used += (size_t)got;
    close(output);
    line[wait_program(child) == 0 ? used : 0] = 0;
    line[strcspn(line, "\n")] = 0;
}

static int kept_path(const struct context *context, const char *package, const char *version,
                     char path[PATH_BYTES], struct fault *fault)
{
    char kept[PATH_BYTES], name[NAME_MAX_BYTES + VERSION_MAX_BYTES + 8];

    snprintf(name, sizeof(name), "%s_%s.deb", package, version);
    return join(kept, context->folder, "kept", fault) || make_folder(kept, fault) ||
                   join(path, kept, name, fault)
               ? -1
               : 0;
}

// The version of a package in the guest, "" when there is none. Without dpkg it is the one that we
// have unpacked last.
static void find_version(const struct context *context, const char *package,
                         char version[VERSION_MAX_BYTES])
{
    char line[256], state[32] = "", database[PATH_BYTES + 32], path[PATH_BYTES];
    const char *const query[] = {"dpkg-query", database, "-W", "-f=${Status} ${Version}",
                                 package,      NULL};
    struct buffer text;
    struct fault ignored;

    *version = 0;
    snprintf(database, sizeof(database), "--admindir=%s/var/lib/dpkg", context->root);
    if (have_dpkg(context)) {
        ask(query, line, sizeof(line));
        // "install ok installed 1.0"; of what was removed the configuration may be left.
        if (sscanf(line, "%*s %*s %31s %128s", state, version) != 2 ||
            !strcmp(state, "config-files") || !strcmp(state, "not-installed"))
            *version = 0;
        return;
    }
    if (kept_path(context, package, "version", path, &ignored) ||
        read_file(path, VERSION_MAX_BYTES - 1, &text, &ignored))
        return;
    snprintf(version, VERSION_MAX_BYTES, "%.*s", (int)text.count, text.bytes);
    free(text.bytes);
}

// Is the one that is there as new?
static bool is_there(const struct context *context, const char *had, const char *version)
{
    const char *const compare[] = {"dpkg", "--compare-versions", had, "ge", version, NULL};

    if (!*had)
        return false;
    return !strcmp(had, version) || (have_dpkg(context) && run_program(compare, -1, -1) == 0);
}

// ---- Going back with dpkg ----------------------------------------------------------------------

static bool take_from_cache(const struct context *context, const struct install_record *record,
                            const char *path)
{
    static const char *const architectures[] = {ARCHITECTURE, "all"};
    char version[2 * VERSION_MAX_BYTES], cached[PATH_BYTES];
    struct fault ignored;
    const char *colon = strchr(record->had, ':');

    snprintf(version, sizeof(version), "%.*s%s%s", colon ? (int)(colon - record->had) : 0,
             record->had, colon ? "%3a" : "", colon ? colon + 1 : record->had);
    for (unsigned i = 0; i < 2; i++) {
        snprintf(cached, sizeof(cached), "%s/var/cache/apt/archives/%s_%s_%s.deb", context->root,
                 record->package, version, architectures[i]);
        if (access(cached, R_OK) == 0 && copy_file(cached, path, 0644, &ignored) == 0)
            return true;
    }
    return false;
}

// Packs it anew, and keeps that when it is whole and on the disk.
static bool repack_present(const struct context *context, const struct install_record *record,
                           const char *path)
{
    char work[PATH_BYTES], made[PATH_BYTES];
    const char *const pack[] = {"sh", "-c", repack, "repack", context->root, record->package,
                                work, NULL};
    struct fault ignored;

    if (join(work, context->folder, "repack", &ignored) ||
        join(made, context->folder, "repack.deb", &ignored))
        return false;
    bool kept = run_logged(context, pack) == 0 && copy_file(made, path, 0644, &ignored) == 0;
    unlink(made);
    return kept;
}

// Sees to it that the package that is there now is kept.
static int keep_present(const struct context *context, const struct install_record *record,
                        struct fault *fault)
{
    char path[PATH_BYTES];

    if (!*record->had)
        return 0;
    if (kept_path(context, record->package, record->had, path, fault))
        return -1;
    if (access(path, R_OK) == 0 || take_from_cache(context, record, path) ||
        repack_present(context, record, path))
        return 0;
    return fault_set(fault, OUTCOME_NOT_INSTALLED,
                     "cannot install '%s': the version that is there could "
                     "not be kept to go back to, see '%s/dpkg.log'",
                     record->package, context->folder);
}

static int restore_by_dpkg(const struct context *context, const struct install_record *record,
                           struct fault *fault)
{
    char now[VERSION_MAX_BYTES], path[PATH_BYTES];
    const char *const remove[] = {"--force-remove-reinstreq", "--remove", record->package, NULL};
    const char *const install[] = {"-i", path, NULL};

    find_version(context, record->package, now);
    if (!*record->had)
        return *now ? run_dpkg(context, remove, fault) : 0;
    if (kept_path(context, record->package, record->had, path, fault))
        return -1;
    // Also when the version is the right one already: it may have been left half-way.
    return run_dpkg(context, install, fault);
}

// ---- Installing --------------------------------------------------------------------------------

static int deb_path(const struct context *context, const struct install_record *record,
                    char path[PATH_BYTES], struct fault *fault)
{
    const struct manifest *manifest = &context->manifest;

    for (unsigned i = 0; i < manifest->guest_count; i++)
        if (!strcmp(manifest->guest[i].package, record->package) &&
            !strcmp(manifest->guest[i].version, record->version))
            return package_path(context, manifest->guest[i].payload.file, path, fault);
    return fault_set(fault, OUTCOME_FAILED, "'%s' is not in the package any more", record->package);
}

// What is to be installed, and what was there.
static int plan(struct context *context, struct fault *fault)
{
    struct state *state = &context->state;

    for (unsigned i = 0; i < context->manifest.guest_count; i++) {
        const struct manifest_guest *guest = &context->manifest.guest[i];
        struct install_record *record = &state->records[state->record_count];
        if (strcmp(guest->architecture, ARCHITECTURE) != 0 &&
            strcmp(guest->architecture, "all") != 0)
            continue;
        *record = (struct install_record){
            .method = have_dpkg(context) && !context->nested ? INSTALL_DPKG : INSTALL_UNPACK};
        snprintf(record->package, sizeof(record->package), "%s", guest->package);
        snprintf(record->version, sizeof(record->version), "%s", guest->version);
        find_version(context, guest->package, record->had);
        if (!is_there(context, record->had, guest->version))
            state->record_count++;
    }
    return state_save(state, context->folder, fault);
}

// All at once: they may depend on each other.
static int install_by_dpkg(const struct context *context, struct fault *fault)
{
    static char paths[GUEST_MAX][PATH_BYTES];
    const char *argv[GUEST_MAX + 2] = {"-i"};
    unsigned count = 0;

    for (unsigned i = 0; i < context->state.record_count; i++) {
        const struct install_record *record = &context->state.records[i];
        if (record->method != INSTALL_DPKG)
            continue;
        if (keep_present(context, record, fault) || deb_path(context, record, paths[count], fault))
            return -1;
        argv[1 + count] = paths[count];
        count++;
    }
    return count > 0 ? run_dpkg(context, argv, fault) : 0;
}

// Files that only the version before has are for dpkg to remove, where it will be told.
static int install_by_unpacking(const struct context *context, const struct install_record *record,
                                struct fault *fault)
{
    char path[PATH_BYTES], before[PATH_BYTES];

    if (deb_path(context, record, path, fault) ||
        kept_path(context, record->package, record->had, before, fault))
        return -1;
    bool replaces = *record->had && !have_dpkg(context) && access(before, R_OK) == 0;
    return unpack_install(context, record->package, path, replaces ? before : NULL, fault);
}

static int install_planned(struct context *context, struct fault *fault)
{
    const struct state *state = &context->state;

    for (unsigned i = 0; i < state->record_count; i++) {
        const struct install_record *record = &state->records[i];
        report_line(&context->report, "installing %s %s%s%s", record->package, record->version,
                    *record->had ? " over " : "", record->had);
        if (record->method == INSTALL_UNPACK && install_by_unpacking(context, record, fault))
            return -1;
    }
    return install_by_dpkg(context, fault);
}

int install_all(struct context *context, struct fault *fault)
{
    setenv("DEBIAN_FRONTEND", "noninteractive", 1);
    if (context->state.record_count == 0 && plan(context, fault))
        return -1;
    hold_signals(true);
    int result = install_planned(context, fault);
    hold_signals(false);
    return result;
}

static int restore_planned(struct context *context, struct fault *fault)
{
    struct state *state = &context->state;

    for (unsigned i = state->record_count; i-- > 0;) {
        const struct install_record *record = &state->records[i];
        report_line(&context->report, "putting back %s %s", record->package,
                    *record->had ? record->had : "(not installed)");
        if (record->method == INSTALL_UNPACK ? unpack_restore(context, record->package, fault)
                                             : restore_by_dpkg(context, record, fault))
            return -1;
    }
    state->record_count = 0;
    return 0;
}

int install_restore(struct context *context, struct fault *fault)
{
    hold_signals(true);
    int result = restore_planned(context, fault);
    hold_signals(false);
    return result;
}

static int keep_record(const struct context *context, const struct install_record *record,
                       struct fault *fault)
{
    char deb[PATH_BYTES], path[PATH_BYTES];

    if (deb_path(context, record, deb, fault) ||
        kept_path(context, record->package, record->version, path, fault) ||
        copy_file(deb, path, 0644, fault))
        return -1;
    if (*record->had && strcmp(record->had, record->version) != 0 &&
        kept_path(context, record->package, record->had, path, fault) == 0)
        unlink(path);
    return kept_path(context, record->package, "version", path, fault) ||
                   write_file(path, record->version, strlen(record->version), 0644, fault) ||
                   unpack_forget(context, record->package, fault)
               ? -1
               : 0;
}

int install_keep(struct context *context, struct fault *fault)
{
    for (unsigned i = 0; i < context->state.record_count; i++)
        if (keep_record(context, &context->state.records[i], fault))
            return -1;
    return 0;
}

// ---- Telling dpkg ------------------------------------------------------------------------------

bool install_registers(const struct context *context)
{
    for (unsigned i = 0; i < context->state.record_count; i++)
        if (context->state.records[i].method == INSTALL_UNPACK && have_dpkg(context))
            return true;
    return false;
}

// Of the dpkg that ran us, which would take us for a part of it.
static void forget_parent(void)
{
    static const char *const names[] = {"DPKG_MAINTSCRIPT_PACKAGE",
                                        "DPKG_MAINTSCRIPT_NAME",
                                        "DPKG_MAINTSCRIPT_ARCH",
                                        "DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT",
                                        "DPKG_MAINTSCRIPT_DEBUG",
                                        "DPKG_RUNNING_VERSION",
                                        "DPKG_ADMINDIR",
                                        "DPKG_FRONTEND_LOCKED",
                                        "DPKG_ROOT"};

    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        unsetenv(names[i]);
}

static int register_record(const struct context *context, const struct install_record *record,
                           struct fault *fault)
{
    char path[PATH_BYTES], now[VERSION_MAX_BYTES];
    const char *const install[] = {"-i", path, NULL};

    if (kept_path(context, record->package, record->version, path, fault))
        return -1;
    for (unsigned waited = 0;; waited++) {
        find_version(context, record->package, now);
        // Somebody else may have installed another one meanwhile: that one stays.
        if (strcmp(now, record->had) != 0 || run_dpkg(context, install, fault) == 0)
            return 0;
        if (waited == DPKG_BUSY_S)
            return -1;
        nanosleep(&(struct timespec){.tv_sec = 1}, NULL);
    }
}

int install_register(struct context *context, struct fault *fault)
{
    forget_parent();
    setenv("DEBIAN_FRONTEND", "noninteractive", 1);
    for (unsigned i = 0; i < context->state.record_count; i++)
        if (context->state.records[i].method == INSTALL_UNPACK && have_dpkg(context) &&
            register_record(context, &context->state.records[i], fault))
            return -1;
    return 0;
}
