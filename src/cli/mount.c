// SPDX-License-Identifier: BSD-2-Clause
// strake mount, strake umount: a disk image, mounted by a guest's kernel, in a folder of the host.
// To the supervisor each is an interceptor of kind mount, mostly with a partition of its own.
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli/client.h"
#include "leverage/leverage.h"

#define LOOK_AGAIN_MS 20
#define PATH_BYTES (INTERCEPTOR_NAME_MAX + 32)

struct mount_options {
    struct client_options client;
    const char *partition, *type, *passphrase_file, *appliance, *memory;
    unsigned part, cpus;
    bool read_only, force;
};

#define OPTION(name_, value_, help_, parse_, member_)                                              \
    {                                                                                              \
        .name = name_, .value = value_, .help = help_, .parse = parse_,                            \
        .offset = offsetof(struct mount_options, member_)                                          \
    }

// Looked at here: the supervisor would speak of the definition of a partition.
static int parse_memory(void *target, const char *value, struct error *err)
{
    uint64_t unused;
    int rc = cli_parse_bytes(&unused, value, err);
    return rc < 0 ? rc : cli_parse_string(target, value, err);
}

static const struct cli_option mount_options[] = {
    OPTION("type", "FS", "its file system, unless the guest finds out", cli_parse_string, type),
    OPTION("part", "N", "the partition of the image, when there are several", cli_parse_unsigned,
           part),
    OPTION("read-only", NULL, "nothing is written to it", cli_parse_flag, read_only),
    OPTION("passphrase-file", "FILE", "opens an encrypted image (LUKS)", cli_parse_string,
           passphrase_file),
    OPTION("partition", "PARTITION",
           "whose guest is to mount it: one that has the image as a disk, and "
           "runs the appliance; or how the mount's own is to be called",
           cli_parse_string, partition),
    OPTION("appliance", "DIR", "what the mount's own partition runs (make appliance-mount)",
           cli_parse_string, appliance),
    OPTION("memory", "SIZE", "of the mount's own partition (default 1G, encrypted 2G)",
           parse_memory, memory),
    OPTION("cpus", "N", "of the mount's own partition (default 1)", cli_parse_unsigned, cpus),
    CLIENT_OPTION_SOCKET,
    {0},
};

static const struct cli_option umount_options[] = {
    OPTION("force", NULL, "also when it is in use: who uses it gets errors", cli_parse_flag, force),
    CLIENT_OPTION_SOCKET,
    {0},
};

static json_t *find_in(const json_t *interceptors, const char *key, const char *value)
{
    json_t *one;
    size_t i;
    json_array_foreach(interceptors, i, one)
    {
        if (strcmp(client_text(json_object_get(one, "definition"), key), value) == 0)
            return one;
    }
    return NULL;
}

// ---- The appliance ------------------------------------------------------------------------------

static bool has_appliance(const char *folder)
{
    char path[2 * PATH_MAX + 8];
    snprintf(path, sizeof(path), "%s/Image", folder);
    return access(path, R_OK) == 0;
}

// Where it is installed, or built, as seen from this program.
static bool find_beside_program(char *folder, size_t bytes)
{
    static const char *const places[] = {"appliance/mount", "../share/strake/appliances/mount"};
    char program[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", program, sizeof(program) - 1);
    if (length < 0)
        return false;
    program[length] = 0;
    *strrchr(program, '/') = 0;
    for (size_t i = 0; i < BASE_COUNT_OF(places); i++) {
        snprintf(folder, bytes, "%s/%s", program, places[i]);
        if (has_appliance(folder))
            return true;
    }
    return false;
}

static int find_appliance(char **out, const struct mount_options *options, struct error *err)
{
    char folder[2 * PATH_MAX];
    const char *all = getenv("STRAKE_APPLIANCES");
    if (options->appliance)
        snprintf(folder, sizeof(folder), "%s", options->appliance);
    else if (all && *all)
        snprintf(folder, sizeof(folder), "%s/mount", all);
    else if (!find_beside_program(folder, sizeof(folder)))
        return error_set(err, -ENOENT,
                         "there is no appliance that mounts images: \"make appliance-mount\" "
                         "builds one, --appliance or STRAKE_APPLIANCES says where it is");
    if (!has_appliance(folder))
        return error_set(err, -ENOENT, "there is no appliance in \"%s\"", folder);
    return client_absolute_path(out, folder, err);
}

// ---- What is asked for --------------------------------------------------------------------------

// What the mount at a folder is called: by the folder's name, and by a number of its path.
static void name_of_mount(char name[static INTERCEPTOR_NAME_MAX + 1], const char *folder)
{
    uint32_t hash = 2166136261u;  // FNV-1a
    for (const char *byte = folder; *byte; byte++)
        hash = (hash ^ (uint8_t)*byte) * 16777619u;
    int length = snprintf(name, INTERCEPTOR_NAME_MAX - 8, "mount-%s", strrchr(folder, '/') + 1);
    if (length > (int)INTERCEPTOR_NAME_MAX - 9)
        length = INTERCEPTOR_NAME_MAX - 9;
    for (char *byte = name; *byte; byte++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.", *byte))
            *byte = '_';
    snprintf(name + length, 10, "-%08x", hash);
}

static json_t *own_partition(const struct mount_options *options, const char *name,
                             const char *image, const char *appliance)
{
    const char *memory = options->memory ? options->memory : options->passphrase_file ? "2G" : "1G";
    return json_pack("{s:s, s:o, s:o, s:s, s:s, s:i, s:o, s:b}", "name", name, "kernel",
                     json_sprintf("%s/Image", appliance), "initrd",
                     json_sprintf("%s/initrd", appliance), "append", "quiet", "memory", memory,
                     "cpus", (int)(options->cpus ? options->cpus : 1), "disk",
                     json_sprintf("%s%s", image, options->read_only ? ",ro" : ""), "no-reboot", 1);
}

static void set_text(json_t *definition, const char *key, const char *value)
{
    if (value)
        json_object_set_new(definition, key, json_string(value));
}

// The number of the image among the disks of a partition.
static int find_disk(const json_t *partition, const char *image, struct error *err)
{
    const json_t *disks = json_object_get(json_object_get(partition, "definition"), "disk");
    size_t length = strlen(image);
    for (size_t i = 0; i < json_array_size(disks); i++) {
        const char *disk = json_string_value(json_array_get(disks, i));
        if (strncmp(disk, image, length) == 0 && (disk[length] == ',' || !disk[length]))
            return (int)i;
    }
    return error_set(err, -ENOENT, "partition \"%s\" does not have \"%s\" as a disk",
                     client_text(partition, "name"), image);
}

// The guest: one that is there, or one of the mount's own.
static int choose_partition(json_t *definition, struct client *client,
                            const struct mount_options *options, const char *image,
                            struct error *err)
{
    const char *name = options->partition ? options->partition : client_text(definition, "name");
    char path[128], *appliance = NULL;
    json_t *partition;
    json_object_set_new(definition, "module", json_sprintf("%s,run=mount", name));
    if (options->partition && client_find(client, name, path, sizeof(path), NULL) == 0) {
        int rc = client_call(client, "GET", path, NULL, &partition, err);
        if (rc < 0)
            return rc;
        rc = find_disk(partition, image, err);
        json_decref(partition);
        if (rc >= 0)
            json_object_set_new(definition, "disk", json_integer(rc));
        return rc < 0 ? rc : 0;
    }
    int rc = find_appliance(&appliance, options, err);
    if (rc == 0) {
        json_object_set_new(definition, "partition",
                            own_partition(options, name, image, appliance));
        free(appliance);
    }
    return rc;
}

static int make_definition(json_t **out, struct client *client, const struct mount_options *options,
                           const char *name, const char *image, const char *folder,
                           struct error *err)
{
    char *passphrase_file = NULL;
    int rc = options->passphrase_file
                 ? client_absolute_path(&passphrase_file, options->passphrase_file, err)
                 : 0;
    if (rc < 0)
        return rc;
    json_t *definition =
        json_pack("{s:s, s:s, s:s, s:s, s:b}", "name", name, "kind", "mount", "image", image,
                  "directory", folder, "read-only", (int)options->read_only);
    set_text(definition, "type", options->type);
    set_text(definition, "passphrase-file", passphrase_file);
    free(passphrase_file);
    if (options->part)
        json_object_set_new(definition, "part", json_integer(options->part));
    rc = choose_partition(definition, client, options, image, err);
    if (rc < 0)
        json_decref(definition);
    else
        *out = definition;
    return rc;
}

// What can be said before a guest is started for it.
static int check_places(const struct mount_options *options, const char *image, const char *folder,
                        struct error *err)
{
    struct stat st;
    if (strchr(image, ','))
        return error_set(err, -EINVAL, "the image's path has a comma");
    if (!options->read_only && access(image, W_OK) < 0 && errno == EROFS)
        return error_set(err, -EROFS, "the image cannot be written to (see: --read-only)");
    if (stat(folder, &st) == 0 && !S_ISDIR(st.st_mode))
        return error_set_errno(err, -ENOTDIR, "it is mounted at folders only");
    if (geteuid() != 0 && access(folder, W_OK | X_OK) < 0)  // as fusermount3 has it
        return error_set_errno(err, -errno, "the folder has to be one that you may write to");
    return 0;
}

// Nothing else of ours is in the folder, nor does another guest write to the image.
static int check_mounts(struct client *client, const struct mount_options *options,
                        const char *image, const char *folder, struct error *err)
{
    json_t *list;
    int rc = client_call(client, "GET", "/v1/interceptors", NULL, &list, err);
    if (rc < 0)
        return rc;
    const json_t *there = json_object_get(find_in(list, "directory", folder), "definition");
    const json_t *other = json_object_get(find_in(list, "image", image), "definition");
    if (there)
        rc = error_set(err, -EBUSY, "\"%s\" is mounted there", client_text(there, "image"));
    else if (other && !(options->read_only && json_is_true(json_object_get(other, "read-only"))))
        rc = error_set(err, -EBUSY, "it is mounted at \"%s\"", client_text(other, "directory"));
    json_decref(list);
    return rc;
}

// ---- Waiting ------------------------------------------------------------------------------------

// Those by which somebody loses patience; what was begun is undone then.
static void block_signals(sigset_t *signals)
{
    sigemptyset(signals);
    sigaddset(signals, SIGINT);
    sigaddset(signals, SIGTERM);
    sigprocmask(SIG_BLOCK, signals, NULL);
}

// Until the interceptor is no longer in `state` or `other`. *out: as it is then, NULL when it is no
// more. -EINTR: somebody has no patience.
static int wait_while(struct client *client, const char *path, const char *state, const char *other,
                      json_t **out, struct error *err)
{
    struct timespec pause = {0};  // what came meanwhile is noticed first
    sigset_t signals;
    block_signals(&signals);
    for (;;) {
        if (sigtimedwait(&signals, NULL, &pause) > 0)
            return error_set(err, -EINTR, "interrupted");
        pause.tv_nsec = LOOK_AGAIN_MS * 1000000;
        int rc = client_call(client, "GET", path, NULL, out, err);
        if (rc == -EREMOTEIO) {  // there is none
            *out = NULL;
            return 0;
        }
        if (rc < 0)
            return rc;
        const char *now = client_text(*out, "state");
        if (strcmp(now, state) != 0 && strcmp(now, other) != 0)
            return 0;
        json_decref(*out);
    }
}

static void give_up(struct client *client, const char *path)
{
    (void)!client_call(client, "DELETE", path, NULL, NULL, NULL);
}

static int wait_until_mounted(struct client *client, const char *path, struct error *err)
{
    json_t *interceptor = NULL;
    int rc = wait_while(client, path, "starting", "", &interceptor, err);
    if (rc == 0 && strcmp(client_text(interceptor, "state"), "active") != 0)
        rc = error_set(err, -EIO, "%s",
                       interceptor ? client_text(interceptor, "why") : "the guest is gone");
    if (rc < 0) {
        give_up(client, path);
    } else if (*client_text(interceptor, "why")) {
        fprintf(stderr, "strake: note: %s\n", client_text(interceptor, "why"));
    }
    json_decref(interceptor);
    return rc;
}

// ---- strake mount -------------------------------------------------------------------------------

// To the supervisor it is an interceptor, whose name says nothing to who mounts.
static void leave_name_out(struct error *err, const char *name)
{
    char begin[INTERCEPTOR_NAME_MAX + 64];
    size_t bytes = (size_t)snprintf(begin, sizeof(begin), "cannot add interceptor \"%s\": ", name);
    if (strncmp(err->message, begin, bytes) == 0)
        memmove(err->message, err->message + bytes, strlen(err->message + bytes) + 1);
}

static int mount_at(struct client *client, const struct mount_options *options, const char *image,
                    const char *folder, struct error *err)
{
    char name[INTERCEPTOR_NAME_MAX + 1], path[PATH_BYTES];
    json_t *definition = NULL;
    sigset_t signals;
    int rc = check_places(options, image, folder, err);
    if (rc == 0)
        rc = check_mounts(client, options, image, folder, err);
    if (rc < 0)
        return rc;
    name_of_mount(name, folder);
    rc = make_definition(&definition, client, options, name, image, folder, err);
    if (rc < 0)
        return rc;
    snprintf(path, sizeof(path), "/v1/interceptors/%s", name);
    block_signals(&signals);
    rc = client_call(client, "POST", "/v1/interceptors", definition, NULL, err);
    if (rc < 0)
        leave_name_out(err, name);
    return rc < 0 ? rc : wait_until_mounted(client, path, err);
}

static int mount_image(struct client *client, void *opaque, char **arguments, struct error *err)
{
    char image[PATH_MAX], folder[PATH_MAX];
    if (!realpath(arguments[0], image))
        return error_set_errno(err, -errno, "cannot open \"%s\"", arguments[0]);
    if (!realpath(arguments[1], folder))
        return error_set_errno(err, -errno, "cannot mount at \"%s\"", arguments[1]);
    int rc = mount_at(client, opaque, image, folder, err);
    if (rc < 0)
        error_prefix(err, "cannot mount \"%s\" at \"%s\"", arguments[0], arguments[1]);
    return rc;
}

static int run_mount(const struct cli_command *command, int argc, char **argv)
{
    struct mount_options options = {0};
    return client_run(command, argc, argv, &options.client, 2, 2, mount_image);
}

const struct cli_command cli_mount = {
    .name = "mount",
    .usage = "[OPTIONS] IMAGE DIR",
    .summary = "Mount a disk image by a guest's kernel",
    .details = "The image is attached to a guest that has the driver, whose files then appear in "
               "DIR. Nothing in the image is looked at by the host. A supervisor has to run "
               "(strake daemon); the mount stays until strake umount.",
    .options = mount_options,
    .run = run_mount,
};

// ---- strake umount ------------------------------------------------------------------------------

// The path of the interceptor that has mounted at the folder, or the image.
static int find_mount(struct client *client, const char *place, char path[static PATH_BYTES],
                      char folder[static PATH_MAX], bool *mounted, struct error *err)
{
    json_t *list;
    int rc = client_call(client, "GET", "/v1/interceptors", NULL, &list, err);
    if (rc < 0)
        return rc;
    const json_t *found = find_in(list, "directory", place);
    if (!found)
        found = find_in(list, "image", place);
    if (found) {
        snprintf(path, PATH_BYTES, "/v1/interceptors/%s", client_text(found, "name"));
        snprintf(folder, PATH_MAX, "%s",
                 client_text(json_object_get(found, "definition"), "directory"));
        *mounted = strcmp(client_text(found, "state"), "active") == 0;
    } else {
        rc = error_set(err, -EINVAL, "nothing is mounted at \"%s\" by strake", place);
    }
    json_decref(list);
    return rc;
}

static int unmount_as_user(const char *folder)
{
    char *arguments[] = {"fusermount3", "-u", "-q", "--", (char *)folder, NULL};
    extern char **environ;
    int status = -1;
    pid_t pid;
    int rc = posix_spawnp(&pid, arguments[0], NULL, NULL, arguments, environ);
    while (rc == 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return rc ? -rc : status == 0 ? 0 : -EBUSY;
}

// What is cached is written by it; the interceptor notices.
static int unmount(const char *folder, struct error *err)
{
    int rc = geteuid() != 0                         ? unmount_as_user(folder)
             : umount2(folder, UMOUNT_NOFOLLOW) < 0 ? -errno
                                                    : 0;
    if (rc == -EBUSY)
        return error_set(
            err, rc, "cannot unmount \"%s\": it is in use (see: strake umount --force)", folder);
    return rc < 0 ? error_set_errno(err, rc, "cannot unmount \"%s\"", folder) : 0;
}

static int wait_until_gone(struct client *client, const char *path, const char *folder,
                           struct error *err)
{
    json_t *interceptor = NULL;
    int rc = wait_while(client, path, "active", "removing", &interceptor, err);
    if (rc == 0 && interceptor) {
        rc = error_set(err, -EIO, "\"%s\" is unmounted, but %s", folder,
                       client_text(interceptor, "why"));
        give_up(client, path);
    }
    json_decref(interceptor);
    return rc;
}

static int unmount_image(struct client *client, void *opaque, char **arguments, struct error *err)
{
    const struct mount_options *options = opaque;
    char place[PATH_MAX], folder[PATH_MAX], path[PATH_BYTES];
    bool mounted = false;
    if (!realpath(arguments[0], place))
        return error_set_errno(err, -errno, "cannot unmount \"%s\"", arguments[0]);
    int rc = find_mount(client, place, path, folder, &mounted, err);
    if (rc < 0)
        return rc;
    if (!mounted || options->force)
        return client_call(client, "DELETE", path, NULL, NULL, err);
    rc = unmount(folder, err);
    return rc < 0 ? rc : wait_until_gone(client, path, folder, err);
}

static int run_umount(const struct cli_command *command, int argc, char **argv)
{
    struct mount_options options = {0};
    return client_run(command, argc, argv, &options.client, 1, 1, unmount_image);
}

const struct cli_command cli_umount = {
    .name = "umount",
    .usage = "[OPTIONS] DIR|IMAGE",
    .summary = "Unmount what strake mount has mounted",
    .details = "It is done when all that was written is in the image, and the guest is gone.",
    .options = umount_options,
    .run = run_umount,
};
