// SPDX-License-Identifier: BSD-2-Clause
// An interceptor of files: opens below a path wait until scanners in guests have seen the content.
//
// The parts are in files.h; here is what holds them together. Threads, beside those of the gate:
//   - one for the marks: sets them, then follows what happens to folders;
//   - one a module, which looks after its scanner: gives it its signatures, asks it each second
//     whether it is there, and says so to the gate. It may wait for a guest for minutes (clamd
//     loads millions of signatures), and holds up nobody.
// The loop's thread talks with the supervisor and waits for nothing.
//
// A crash: the supervisor keeps both groups, so no open goes on that nobody has answered, and the
// table, by which the successor knows those that this process had read. Nothing is marked before
// the supervisor has them. When that dies in the same moment, the guard has them still.
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "leverage/files.h"

#define SCAN_THREADS 8u
#define FINDINGS_MAX 64u    // that wait to be told
#define SUPERVISOR_MS 250u  // how soon a new supervisor is known
#define PING_MS 2000u
#define PING_EVERY_MS 1000u
#define RETRY_MS 200u
#define AGENT_MS 10000u
#define SIGNATURES_MS 1800000u  // millions of them, on an emulated processor

// What the supervisor keeps, and the guard.
static const char *const kept_names[FILES_KEPT] = {"files-perm", "files-watch", "files-root",
                                                   "files-table"};

struct files;

// A scanner. What is not said to be the thread's is under files->lock.
struct module {
    struct files *files;
    const struct interceptor_module *definition;
    pthread_t thread;
    bool has_thread;
    int kick;  // an eventfd: something has changed
    char path[108];
    bool up, to_configure;
    bool reloading, to_tell;  // signatures were to be reloaded; that came to nothing
    bool known, ready;
    unsigned generation;  // of what it scans with
    char why[ERROR_MESSAGE_BYTES];
    char refused[ERROR_MESSAGE_BYTES];  // why it has not got the signatures that it was given last
    unsigned misses;                    // the thread's: pings in a row without an answer
    struct connection {                 // one a scanning thread, which it belongs to
        struct clamd clamd;
        unsigned generation;
    } connections[SCAN_THREADS];
};

struct files {
    struct interceptor *it;
    struct files_marks marks;
    struct files_table *table;
    int table_fd, guard, quarantine;
    char guard_path[108];  // the guard's socket, beside this process's; empty: none
    struct files_gate *gate;
    int stop;  // an eventfd, readable from the end on

    pthread_mutex_t lock;
    pthread_cond_t settled;  // it became known whether a module scans, or the end has come
    bool ending;
    struct module modules[INTERCEPTOR_MODULES_MAX];
    size_t module_count;
    bool marked;  // all folders are
    struct error failure;
    struct files_finding *findings[FINDINGS_MAX];
    unsigned finding_count, findings_lost;

    pthread_t marker;
    bool asked, has_marker, removed;
    struct loop_wake *wake;
    struct loop_timer *timer;
    _Atomic uint64_t quarantined;
};

// ---- Where it stands ----------------------------------------------------------------------------

static bool fails_open(const struct files *files)
{
    return files->it->definition->fail == INTERCEPTOR_FAIL_OPEN;
}

// Locked. The first module that does not scan, or NULL; *known: it is certain that it does not.
static const struct module *missing_module(const struct files *files, bool *known)
{
    const struct module *missing = NULL;
    *known = false;
    for (size_t i = 0; i < files->module_count; i++) {
        const struct module *module = &files->modules[i];
        if (module->ready)
            continue;
        if (!missing || (module->known && !*known))
            missing = module;
        *known |= module->known;
    }
    return missing;
}

// Locked, any thread. The gate hears at once, the supervisor from the loop.
static void settle(struct files *files)
{
    bool known;
    missing_module(files, &known);
    files_gate_set_down(files->gate, known);
    pthread_cond_broadcast(&files->settled);
    loop_wake_signal(files->wake);
}

// Locked. What a scanner that works did not take at a reload.
static void tell_refused(const struct files *files, char why[static ERROR_MESSAGE_BYTES])
{
    for (size_t i = 0; i < files->module_count && !*why; i++)
        if (*files->modules[i].refused)
            snprintf(why, ERROR_MESSAGE_BYTES, "the scanner in \"%s\" keeps its signatures: %s",
                     files->modules[i].definition->partition, files->modules[i].refused);
}

static void tell_state(struct files *files)
{
    char why[ERROR_MESSAGE_BYTES] = "";
    bool known;
    pthread_mutex_lock(&files->lock);
    const struct module *missing = missing_module(files, &known);
    enum interceptor_state state = files->failure.code ? INTERCEPTOR_FAILED
                                   : known
                                       ? fails_open(files) ? INTERCEPTOR_BYPASSED : INTERCEPTOR_SHUT
                                   : missing       ? INTERCEPTOR_STARTING
                                   : files->marked ? INTERCEPTOR_ACTIVE
                                                   : INTERCEPTOR_STARTING;
    if (files->failure.code)
        snprintf(why, sizeof(why), "%s", files->failure.message);
    else if (missing && known)
        snprintf(why, sizeof(why), "%s", missing->why);
    else if (state == INTERCEPTOR_ACTIVE)
        tell_refused(files, why);
    pthread_mutex_unlock(&files->lock);
    interceptor_set_state(files->it, state, *why ? "%s" : NULL, why);
}

static void tell_findings(struct files *files)
{
    struct files_finding *findings[FINDINGS_MAX];
    pthread_mutex_lock(&files->lock);
    unsigned count = files->finding_count, lost = files->findings_lost;
    memcpy(findings, files->findings, sizeof(findings));
    files->finding_count = files->findings_lost = 0;
    pthread_mutex_unlock(&files->lock);
    for (unsigned i = 0; i < count; i++) {
        log_line(LOG_WARN, "\"%s\" is infected: %s", findings[i]->path, findings[i]->signature);
        json_t *details = files_finding_to_json(findings[i]);
        if (details)
            interceptor_event(files->it, "infected", details);
        free(findings[i]);
    }
    if (lost > 0)
        log_line(LOG_WARN, "%u more infected files were opened", lost);
}

static void tell_not_reloaded(struct module *module)
{
    const char *partition = module->definition->partition;
    char why[ERROR_MESSAGE_BYTES];
    pthread_mutex_lock(&module->files->lock);
    bool tell = module->to_tell;
    module->to_tell = false;
    memcpy(why, module->refused, sizeof(why));
    pthread_mutex_unlock(&module->files->lock);
    if (tell && *why)
        interceptor_event(module->files->it, "not-reloaded",
                          json_pack("{s:s, s:s}", "partition", partition, "why", why));
}

static void woken(void *opaque)
{
    struct files *files = opaque;
    tell_findings(files);
    for (size_t i = 0; i < files->module_count; i++)
        tell_not_reloaded(&files->modules[i]);
    if (!files->removed)
        tell_state(files);
}

// ---- Scans (the gate's threads) -----------------------------------------------------------------

// At first nobody knows yet.
static void wait_settled(struct module *module, uint64_t deadline_ns)
{
    struct files *files = module->files;
    struct timespec until = {.tv_sec = (time_t)(deadline_ns / 1000000000u),
                             .tv_nsec = (long)(deadline_ns % 1000000000u)};
    int rc = 0;
    pthread_mutex_lock(&files->lock);
    while (!module->known && !files->ending && rc == 0)
        rc = pthread_cond_clockwait(&files->settled, &files->lock, CLOCK_MONOTONIC, &until);
    pthread_mutex_unlock(&files->lock);
}

// How the module can be reached now; false: not at all.
static bool module_address(struct module *module, char path[sizeof(module->path)],
                           unsigned *generation)
{
    pthread_mutex_lock(&module->files->lock);
    bool there = module->up;
    memcpy(path, module->path, sizeof(module->path));
    *generation = module->generation;
    pthread_mutex_unlock(&module->files->lock);
    return there;
}

static uint32_t module_port(const struct module *module)
{
    return module->definition->port ? module->definition->port : CLAMD_PORT;
}

static int module_connect(struct module *module, struct connection *connection,
                          uint64_t deadline_ns)
{
    struct clamd_address address = {.port = module_port(module)};
    char path[sizeof(module->path)];
    unsigned generation;
    if (!module_address(module, path, &generation))
        return -ENOTCONN;
    if (connection->clamd.fd >= 0 && connection->generation == generation)
        return 0;
    clamd_close(&connection->clamd);
    address.path = path;
    connection->generation = generation;
    return clamd_open(&connection->clamd, &address, deadline_ns);
}

static enum files_verdict to_verdict(int rc, const char *signature)
{
    switch (rc) {
    case CLAMD_CLEAN:
        return FILES_CLEAN;
    case CLAMD_FOUND:  // clamd gives up, and says so, in the shape of a signature
        return strncmp(signature, "Heuristics.Limits.Exceeded", 26) == 0 ? FILES_TOO_LARGE
                                                                         : FILES_INFECTED;
    case CLAMD_TOO_LARGE:
        return FILES_TOO_LARGE;
    case -ETIMEDOUT:
        return FILES_LATE;
    default:
        return FILES_UNKNOWN;
    }
}

static void kick(struct module *module)
{
    uint64_t one = 1;
    (void)!write(module->kick, &one, sizeof(one));
}

// A connection that was there before may be to a scanner that is no more: once more with a new one.
static enum files_verdict scan_with(struct module *module, unsigned thread, int file,
                                    uint64_t deadline_ns, char signature[CLAMD_SIGNATURE_BYTES])
{
    struct connection *connection = &module->connections[thread];
    int rc;
    bool again;
    wait_settled(module, deadline_ns);
    do {
        rc = module_connect(module, connection, deadline_ns);
        bool used = rc == 0 && connection->clamd.scans > 0;
        if (rc == 0)
            rc = clamd_scan(&connection->clamd, file, deadline_ns, signature);
        if (rc < 0)
            clamd_close(&connection->clamd);
        again = used && (rc == -ECONNRESET || rc == -EPIPE);
    } while (again);
    if (rc < 0)
        kick(module);  // it may be down
    return to_verdict(rc, signature);
}

static enum files_verdict scan(void *opaque, unsigned thread, int file, uint64_t deadline_ns,
                               char signature[CLAMD_SIGNATURE_BYTES])
{
    struct files *files = opaque;
    enum files_verdict verdict = FILES_CLEAN;
    for (size_t i = 0; i < files->module_count && verdict == FILES_CLEAN; i++)
        verdict = scan_with(&files->modules[i], thread, file, deadline_ns, signature);
    return verdict;
}

static void infected(void *opaque, int file, pid_t pid, const char *signature)
{
    struct files *files = opaque;
    struct files_finding *finding = malloc(sizeof(*finding));
    if (finding) {
        files_finding_init(finding, file, pid, signature);
        if (files->quarantine >= 0) {
            files_quarantine_move(files->quarantine, &files->marks, file, finding);
            counter_add(&files->quarantined, *finding->kept_as != 0);
        }
    }
    pthread_mutex_lock(&files->lock);
    if (finding && files->finding_count < FINDINGS_MAX) {
        files->findings[files->finding_count++] = finding;
    } else {
        files->findings_lost++;
        free(finding);
    }
    pthread_mutex_unlock(&files->lock);
    loop_wake_signal(files->wake);
}

// ---- A scanner's keeper -------------------------------------------------------------------------

static uint64_t deadline_in(unsigned ms)
{
    return clock_monotonic_ns() + ms * 1000000ull;
}

static void module_set(struct module *module, bool ready, const char *why)
{
    pthread_mutex_lock(&module->files->lock);
    module->known = true;
    module->ready = ready;
    snprintf(module->why, sizeof(module->why), "%s", why);
    settle(module->files);
    pthread_mutex_unlock(&module->files->lock);
}

// False: it is time to end.
static bool module_wait(struct module *module, int ms)
{
    struct pollfd fds[] = {{.fd = module->files->stop, .events = POLLIN},
                           {.fd = module->kick, .events = POLLIN}};
    uint64_t count;
    poll(fds, 2, ms);
    if (fds[1].revents)
        (void)!read(module->kick, &count, sizeof(count));
    return !fds[0].revents;
}

static int send_signatures(struct module *module, const char *path, struct error *err)
{
    struct clamd_address agent = {.path = path, .port = AGENT_PORT};
    const char *name = module->definition->config;
    struct stat stat;
    char line[64];
    int file = open(name, O_RDONLY | O_CLOEXEC);
    if (file < 0 || fstat(file, &stat) < 0) {
        int rc = -errno;
        if (file >= 0)
            close(file);
        return error_set_errno(err, rc, "cannot read the signatures in \"%s\"", name);
    }
    snprintf(line, sizeof(line), "signatures bytes=%lld\n", (long long)stat.st_size);
    int rc =
        clamd_ask_agent(&agent, line, file, module->files->stop, deadline_in(SIGNATURES_MS), err);
    close(file);
    return rc;
}

// What was found clean before is not, for other signatures.
static void module_renewed(struct module *module)
{
    pthread_mutex_lock(&module->files->lock);
    module->generation++;
    *module->refused = 0;
    pthread_mutex_unlock(&module->files->lock);
    files_gate_forget(module->files->gate);
}

// Gives it its signatures, if it is to have others. While it loads them it scans with those that
// it had. False: it cannot be had now.
static bool module_configure(struct module *module, const char *path)
{
    struct error err;
    pthread_mutex_lock(&module->files->lock);
    bool wanted = module->to_configure && module->definition->config;
    module->to_configure = false;
    bool ready = module->ready, reloading = module->reloading;
    module->reloading = false;
    pthread_mutex_unlock(&module->files->lock);
    if (!wanted)
        return true;
    int rc = send_signatures(module, path, &err);
    if (rc == 0) {
        module_renewed(module);
        return true;
    }
    pthread_mutex_lock(&module->files->lock);
    bool told = strcmp(module->refused, err.message) == 0;
    snprintf(module->refused, sizeof(module->refused), "%s", err.message);
    module->to_configure |= !ready || rc != -EREMOTEIO;
    module->to_tell |= reloading && ready;
    pthread_mutex_unlock(&module->files->lock);
    if (!told)
        log_line(LOG_WARN, "the scanner in \"%s\" has not got its signatures: %s",
                 module->definition->partition, err.message);
    if (!ready)
        module_set(module, false, err.message);
    return ready;
}

// A guest that has started anew has none.
static void ask_whether_configured(struct module *module, const char *path)
{
    struct clamd_address agent = {.path = path, .port = AGENT_PORT};
    struct error err;
    if (!module->definition->config ||
        clamd_ask_agent(&agent, "health run=clamav\n", -1, module->files->stop,
                        deadline_in(AGENT_MS), &err) != -EREMOTEIO)
        return;
    pthread_mutex_lock(&module->files->lock);
    module->to_configure = true;
    pthread_mutex_unlock(&module->files->lock);
}

// Returns how long until it is to be looked at again. A scanner that was there may be late once.
static int module_look(struct module *module)
{
    char path[sizeof(module->path)], why[ERROR_MESSAGE_BYTES];
    struct clamd_address address = {.path = path, .port = module_port(module)};
    unsigned generation;
    if (!module_address(module, path, &generation)) {
        snprintf(why, sizeof(why), "the partition \"%s\" does not run, or has no vsock",
                 module->definition->partition);
        module_set(module, false, why);
        return -1;
    }
    if (!module_configure(module, path))
        return RETRY_MS;
    int rc = clamd_ping(&address, module->files->stop, deadline_in(PING_MS));
    if (rc == 0) {
        module->misses = 0;
        module_set(module, true, "");
        return PING_EVERY_MS;
    }
    if (rc != -ETIMEDOUT || ++module->misses > 1) {
        snprintf(why, sizeof(why), "the scanner in \"%s\" does not answer: %s",
                 module->definition->partition, strerror(-rc));
        module_set(module, false, why);
        ask_whether_configured(module, path);
    }
    return RETRY_MS;
}

static void *module_run(void *opaque)
{
    struct module *module = opaque;
    while (module_wait(module, module_look(module)))
        ;
    return NULL;
}

// ---- Marks --------------------------------------------------------------------------------------

static void *marker_run(void *opaque)
{
    struct files *files = opaque;
    struct error err = {0};
    bool marked = files_marks_set(&files->marks, &err) == 0;
    pthread_mutex_lock(&files->lock);
    if (!marked)
        files->failure = err;
    files->marked = marked;
    pthread_mutex_unlock(&files->lock);
    loop_wake_signal(files->wake);
    struct pollfd fds[] = {{.fd = files->stop, .events = POLLIN},
                           {.fd = files->marks.watch, .events = POLLIN}};
    while (poll(fds, 2, -1) >= 0 || errno == EINTR) {
        if (fds[0].revents)
            break;
        if (fds[1].revents)
            files_marks_follow(&files->marks);
    }
    return NULL;
}

static void fail(struct files *files, const struct error *err)
{
    pthread_mutex_lock(&files->lock);
    files->failure = *err;
    pthread_mutex_unlock(&files->lock);
    tell_state(files);
}

static void kept(void *opaque, const struct error *err)
{
    struct files *files = opaque;
    struct error none;
    if (files->removed || files->has_marker || (err && err->code == -ECANCELED))
        return;
    if (err) {
        fail(files, err);
        return;
    }
    files_table_set_kept(files->table);
    int rc = -pthread_create(&files->marker, NULL, marker_run, files);
    files->has_marker = rc == 0;
    if (rc < 0) {
        error_set_errno(&none, rc, "cannot hold opens of files");
        fail(files, &none);
    }
}

static void get_kept(const struct files *files, int kept[FILES_KEPT])
{
    kept[FILES_PERM] = files->marks.perm;
    kept[FILES_WATCH] = files->marks.watch;
    kept[FILES_ROOT] = files->marks.root;
    kept[FILES_TABLE] = files->table_fd;
}

static int keep(struct files *files)
{
    int fds[FILES_KEPT];
    struct descriptors set = {.count = FILES_KEPT};
    get_kept(files, fds);
    for (size_t i = 0; i < FILES_KEPT; i++) {
        snprintf(set.list[i].name, sizeof(set.list[i].name), "%s", kept_names[i]);
        set.list[i].fd = fds[i];
    }
    return interceptor_keep(files->it, &set, kept, files);
}

// ---- Creation -----------------------------------------------------------------------------------

static void watch_supervisor(void *opaque)
{
    struct files *files = opaque;
    pid_t pid = interceptor_supervisor(files->it);
    if (pid > 0)
        files_table_set_owner(files->table, getpid(), pid);
    loop_timer_start(files->timer, SUPERVISOR_MS);
}

// One of another version's, with another layout, is of no use: then what that one had read and not
// answered is answered like what it had not come to note.
static int map_table(struct files *files, int left)
{
    files->table_fd = left;
    if (left >= 0 && files_table_map(&files->table, left) == 0)
        return 0;
    if (left >= 0)
        close(left);
    files->table_fd = memfd_create("files", MFD_CLOEXEC);
    return files->table_fd < 0 ? -errno : files_table_map(&files->table, files->table_fd);
}

static int open_table(struct files *files, int left, struct error *err)
{
    bool allow = fails_open(files) || files->it->definition->verdict == INTERCEPTOR_OBSERVE;
    int fds[FILES_KEPT], rc = map_table(files, left);
    if (rc == 0) {
        files_table_set_owner(files->table, getpid(), interceptor_supervisor(files->it));
        get_kept(files, fds);
        files->guard = files_guard_start(fds, *files->guard_path ? files->guard_path : NULL, allow);
        rc = files->guard < 0 ? files->guard : 0;
    }
    return rc < 0 ? error_set_errno(err, rc, "cannot hold opens of files") : 0;
}

static bool is_folder(const char *path, int folder)
{
    struct stat a, b;
    return stat(path, &a) == 0 && fstat(folder, &b) == 0 && a.st_ino == b.st_ino &&
           a.st_dev == b.st_dev;
}

// What a former process has left: with the supervisor, or when both have died with its guard; if
// that is of another path, by an interceptor that had this one's name, it goes. False: nothing.
static bool take_left(struct files *files, int left[FILES_KEPT])
{
    for (size_t i = 0; i < FILES_KEPT; i++)
        left[i] = descriptors_take(&files->it->kept, kept_names[i]);
    if (left[FILES_PERM] >= 0)
        return true;
    if (!*files->guard_path || !files_guard_ask(files->guard_path, left))
        return false;
    if (is_folder(files->it->definition->path, left[FILES_ROOT]))
        return true;
    for (size_t i = 0; i < FILES_KEPT; i++)
        close(left[i]);
    return false;
}

// What a former process has left, or anew. With opens that wait there is no way back: those are
// held and answered, even if nothing can be moved away.
static int open_parts(struct files *files, struct error *err)
{
    const struct interceptor_definition *definition = files->it->definition;
    int left[FILES_KEPT];
    bool anew = !take_left(files, left);
    if (!anew)
        files->marks = (struct files_marks){
            .perm = left[FILES_PERM], .watch = left[FILES_WATCH], .root = left[FILES_ROOT]};
    int rc = anew ? files_marks_open(&files->marks, definition->path, err)
                  : files_marks_adopt(&files->marks, err);
    int table = anew ? -1 : left[FILES_TABLE];
    if (rc < 0) {
        if (table >= 0)
            close(table);
        return rc;
    }
    rc = open_table(files, table, err);
    if (rc < 0 || !definition->infected_quarantine)
        return rc;
    files->quarantine =
        files_quarantine_open(definition->quarantine, &files->marks, anew ? err : &files->failure);
    return files->quarantine < 0 && anew ? files->quarantine : 0;
}

static int start_gate(struct files *files, struct error *err)
{
    const struct interceptor_definition *definition = files->it->definition;
    struct files_gate_options options = {
        .marks = &files->marks,
        .table = files->table,
        .counters = &files->it->counters,
        .time_limit_ms = definition->time_limit_ms,
        .threads = SCAN_THREADS,
        .size_limit_bytes = definition->size_limit_bytes,
        .fail_open = fails_open(files),
        .observe = definition->verdict == INTERCEPTOR_OBSERVE,
        .scan = scan,
        .infected = infected,
        .opaque = files,
    };
    return files_gate_create(&files->gate, &options, err);
}

static void choose_guard_path(struct files *files)
{
    char own[sizeof(files->guard_path)];
    if (interceptor_socket(files->it, own, sizeof(own)) < 0 ||
        snprintf(files->guard_path, sizeof(files->guard_path), "%s-guard", own) >=
            (int)sizeof(files->guard_path))
        *files->guard_path = 0;
}

static int start_module(struct files *files, const struct interceptor_module *definition,
                        bool to_configure)
{
    struct module *module = &files->modules[files->module_count];
    module->files = files;
    module->definition = definition;
    module->to_configure = to_configure;
    for (size_t i = 0; i < SCAN_THREADS; i++)
        module->connections[i].clamd = (struct clamd){.fd = -1, .cancel_fd = files->stop};
    module->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (module->kick < 0)
        return -errno;
    files->module_count++;
    return 0;
}

static void files_destroy(void *kind);

static int files_create(void **out, struct interceptor *it, struct error *err)
{
    const struct interceptor_definition *definition = it->definition;
    struct files *files = calloc(1, sizeof(*files));
    if (!files)
        return error_set_errno(err, -ENOMEM, "cannot hold opens of files");
    *files = (struct files){.it = it,
                            .marks = {.root = -1, .perm = -1, .watch = -1},
                            .table_fd = -1,
                            .guard = -1,
                            .quarantine = -1};
    bool anew = descriptors_find(&it->kept, kept_names[FILES_PERM]) < 0;
    choose_guard_path(files);
    pthread_mutex_init(&files->lock, NULL);
    pthread_cond_init(&files->settled, NULL);
    files->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int rc = files->stop < 0 ? -errno : loop_wake_create(it->loop, woken, files, &files->wake);
    if (rc == 0)
        rc = loop_timer_create(it->loop, watch_supervisor, files, &files->timer);
    for (size_t i = 0; i < definition->module_count && rc == 0; i++)
        rc = start_module(files, &definition->modules[i], anew);
    if (rc < 0)
        error_set_errno(err, rc, "cannot hold opens of files");
    if (rc == 0)
        rc = open_parts(files, err);
    if (rc == 0)
        rc = start_gate(files, err);
    if (rc < 0) {
        files_marks_clear(&files->marks);
        files_destroy(files);
        return rc;
    }
    watch_supervisor(files);
    *out = files;
    return 0;
}

// ---- Operations ---------------------------------------------------------------------------------

// A guest that was replaced is another, whose scanner has to get everything.
static void module_view(struct module *module, const struct partition_view *view)
{
    struct files *files = module->files;
    pthread_mutex_lock(&files->lock);
    bool up = view->state == PARTITION_UP && view->vsock_path &&
              strlen(view->vsock_path) < sizeof(module->path);
    if (up)
        snprintf(module->path, sizeof(module->path), "%s", view->vsock_path);
    if (module->up && !up) {
        module->ready = false;
        module->known = true;
        module->to_configure = true;
        module->generation++;
        snprintf(module->why, sizeof(module->why), "the partition \"%s\" does not run",
                 module->definition->partition);
        settle(files);
    }
    module->up = up;
    if (!module->has_thread)
        module->has_thread = pthread_create(&module->thread, NULL, module_run, module) == 0;
    pthread_mutex_unlock(&files->lock);
    kick(module);
}

static void files_partition(void *kind, const struct partition_view *view)
{
    struct files *files = kind;
    struct error err;
    if (files->removed)
        return;
    for (size_t i = 0; i < files->module_count; i++)
        if (strcmp(files->modules[i].definition->partition, view->name) == 0)
            module_view(&files->modules[i], view);
    watch_supervisor(files);
    if (files->asked)
        return;
    files->asked = true;
    int rc = keep(files);
    if (rc < 0) {
        error_set_errno(&err, rc, "cannot hand over what holds opens of files");
        fail(files, &err);
    }
}

static void files_reload(void *kind)
{
    struct files *files = kind;
    for (size_t i = 0; i < files->module_count; i++) {
        pthread_mutex_lock(&files->lock);
        files->modules[i].to_configure = true;
        files->modules[i].reloading = files->modules[i].definition->config != NULL;
        pthread_mutex_unlock(&files->lock);
        kick(&files->modules[i]);
    }
}

static void end_threads(struct files *files)
{
    uint64_t one = 1;
    if (files->stop >= 0)
        (void)!write(files->stop, &one, sizeof(one));
    atomic_store(&files->marks.ending, true);
    pthread_mutex_lock(&files->lock);
    files->ending = true;
    pthread_cond_broadcast(&files->settled);
    pthread_mutex_unlock(&files->lock);
    if (files->has_marker)
        pthread_join(files->marker, NULL);
    for (size_t i = 0; i < files->module_count; i++)
        if (files->modules[i].has_thread)
            pthread_join(files->modules[i].thread, NULL);
    files->has_marker = false;
    for (size_t i = 0; i < files->module_count; i++)
        files->modules[i].has_thread = false;
}

// The marks first, so that nothing new comes; then whoever waits is answered.
static void files_remove(void *kind, interceptor_done *done, void *opaque)
{
    struct files *files = kind;
    files->removed = true;
    end_threads(files);
    files_marks_clear(&files->marks);
    files_gate_destroy(files->gate);
    files->gate = NULL;
    files_guard_end(files->guard);
    files->guard = -1;
    unlink(files->guard_path);
    tell_findings(files);
    (void)!interceptor_keep(files->it, NULL, NULL, NULL);
    done(opaque, NULL);
}

static json_t *files_stats(void *kind)
{
    struct files *files = kind;
    if (!files->gate)
        return NULL;
    const struct files_gate_counts *counts = files_gate_counts(files->gate);
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:i}", "scanned",
                     (json_int_t)counts->scanned, "cached", (json_int_t)counts->cached, "infected",
                     (json_int_t)counts->infected, "quarantined", (json_int_t)files->quarantined,
                     "too_large", (json_int_t)counts->too_large, "own", (json_int_t)counts->own,
                     "scanned_again", (json_int_t)counts->again, "waiting",
                     (int)files_gate_waiting(files->gate));
}

static void module_fini(struct module *module)
{
    for (size_t i = 0; i < SCAN_THREADS; i++)
        clamd_close(&module->connections[i].clamd);
    if (module->kick >= 0)
        close(module->kick);
}

static void files_destroy(void *kind)
{
    struct files *files = kind;
    int *fds[] = {&files->table_fd, &files->quarantine, &files->stop, &files->guard};
    end_threads(files);
    files_gate_destroy(files->gate);
    for (size_t i = 0; i < files->module_count; i++)
        module_fini(&files->modules[i]);
    for (unsigned i = 0; i < files->finding_count; i++)
        free(files->findings[i]);
    loop_timer_close(files->timer);
    loop_wake_close(files->wake);
    files_table_unmap(files->table);
    files_marks_close(&files->marks);
    for (size_t i = 0; i < BASE_COUNT_OF(fds); i++)
        if (*fds[i] >= 0)
            close(*fds[i]);
    pthread_cond_destroy(&files->settled);
    pthread_mutex_destroy(&files->lock);
    free(files);
}

#define CAP(name) (UINT64_C(1) << (name))

const struct interceptor_ops files_ops = {
    .kind = "files",
    // fanotify without limits; opening by handle, and what only its owner may read; leases;
    // descriptors; and to move what belongs to others, and take its rights.
    .capabilities = CAP(CAP_SYS_ADMIN) | CAP(CAP_DAC_READ_SEARCH) | CAP(CAP_DAC_OVERRIDE) |
                    CAP(CAP_LEASE) | CAP(CAP_SYS_RESOURCE) | CAP(CAP_FOWNER) | CAP(CAP_CHOWN),
    .create = files_create,
    .partition = files_partition,
    .reload = files_reload,
    .remove = files_remove,
    .stats = files_stats,
    .destroy = files_destroy,
};
