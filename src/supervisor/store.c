// SPDX-License-Identifier: BSD-2-Clause
// The state folder.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "supervisor/store.h"

#define FILE_BYTES_MAX (1u << 20)

struct store {
    char *folder;
    int folder_fd, lock_fd;
    int kind_fds[STORE_KINDS];
    unsigned epoch;
};

static const char *const kind_names[STORE_KINDS] = {"partitions", "records", "updates",
                                                    "interceptors"};

bool store_name_is_good(const char *name)
{
    static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                               "-_.";
    size_t length = strspn(name, good);
    return length > 0 && length <= STORE_NAME_MAX && !name[length] && !strchr("-_.", *name);
}

// ---- Files --------------------------------------------------------------------------------------

// What was there is there until the new content is on the disk, and after a crash one of the two.
static int replace_file(int folder_fd, const char *name, const char *text)
{
    char temporary[NAME_MAX + 1];
    snprintf(temporary, sizeof(temporary), ".%s.new", name);
    int fd =
        openat(folder_fd, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    int64_t n = fd_write_full(fd, text, strlen(text));
    int rc = n < 0 ? (int)n : fsync(fd) < 0 ? -errno : 0;
    if (close(fd) < 0 && rc == 0)
        rc = -errno;
    if (rc == 0 && renameat(folder_fd, temporary, folder_fd, name) < 0)
        rc = -errno;
    if (rc < 0)
        unlinkat(folder_fd, temporary, 0);
    else if (fsync(folder_fd) < 0)
        rc = -errno;
    return rc;
}

static char *read_file(int folder_fd, const char *name, int *rc)
{
    int fd = openat(folder_fd, name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    char *text = fd < 0 ? NULL : malloc(FILE_BYTES_MAX + 1);
    int64_t n = fd < 0 ? -errno : !text ? -ENOMEM : fd_read_full(fd, text, FILE_BYTES_MAX + 1);
    if (n > FILE_BYTES_MAX)
        n = -EFBIG;
    if (fd >= 0)
        close(fd);
    if (n < 0 || !text) {
        *rc = (int)n;
        free(text);
        return NULL;
    }
    text[n] = 0;
    return text;
}

static void file_name(char name[NAME_MAX], const char *partition)
{
    snprintf(name, NAME_MAX, "%.*s.json", STORE_NAME_MAX, partition);
}

// ---- Opening ------------------------------------------------------------------------------------

static int make_folders(const char *path)
{
    char part[PATH_MAX];
    if (snprintf(part, sizeof(part), "%s", path) >= (int)sizeof(part))
        return -ENAMETOOLONG;
    for (char *slash = part; (slash = strchr(slash + 1, '/'));) {
        *slash = 0;
        if (mkdir(part, 0755) < 0 && errno != EEXIST)
            return -errno;
        *slash = '/';
    }
    return mkdir(part, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

static int open_folder(int at_fd, const char *name)
{
    int fd = openat(at_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static int open_kind(struct store *store, enum store_kind kind)
{
    if (mkdirat(store->folder_fd, kind_names[kind], 0700) < 0 && errno != EEXIST)
        return -errno;
    store->kind_fds[kind] = open_folder(store->folder_fd, kind_names[kind]);
    return store->kind_fds[kind] < 0 ? store->kind_fds[kind] : 0;
}

static int take_lock(struct store *store)
{
    if (store->lock_fd < 0)
        store->lock_fd = openat(store->folder_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (store->lock_fd < 0 || flock(store->lock_fd, LOCK_EX | LOCK_NB) < 0)
        return errno == EWOULDBLOCK ? -EBUSY : -errno;
    return 0;
}

static int count_epoch(struct store *store)
{
    int rc = 0;
    char text[32];
    char *before = read_file(store->folder_fd, "epoch", &rc);
    if (!before && rc != -ENOENT)
        return rc;
    store->epoch = (before ? (unsigned)strtoul(before, NULL, 10) : 0) + 1;
    free(before);
    snprintf(text, sizeof(text), "%u\n", store->epoch);
    return replace_file(store->folder_fd, "epoch", text);
}

static int open_all(struct store *store)
{
    int rc = make_folders(store->folder);
    if (rc == 0)
        rc = store->folder_fd = open_folder(AT_FDCWD, store->folder);
    if (rc >= 0)
        rc = take_lock(store);
    for (enum store_kind kind = STORE_DEFINITION; kind < STORE_KINDS && rc == 0; kind++)
        rc = open_kind(store, kind);
    return rc == 0 ? count_epoch(store) : rc;
}

int store_open(struct store **out, const char *folder, int lock_fd, struct error *err)
{
    struct store *store = calloc(1, sizeof(*store));
    if (store)
        *store = (struct store){.folder = strdup(folder),
                                .folder_fd = -1,
                                .lock_fd = lock_fd,
                                .kind_fds = {-1, -1, -1}};
    int rc = store && store->folder ? open_all(store) : -ENOMEM;
    if (rc == 0) {
        *out = store;
        return 0;
    }
    store_close(store);
    if (rc == -EBUSY)
        return error_set(err, rc, "cannot use the state folder \"%s\": another supervisor does",
                         folder);
    return error_set_errno(err, rc, "cannot use the state folder \"%s\"", folder);
}

int store_lock(const struct store *store)
{
    return store->lock_fd;
}

static void close_fd(int fd)
{
    if (fd >= 0)
        close(fd);
}

void store_close(struct store *store)
{
    if (!store)
        return;
    for (size_t i = 0; i < BASE_COUNT_OF(store->kind_fds); i++)
        close_fd(store->kind_fds[i]);
    close_fd(store->lock_fd);
    close_fd(store->folder_fd);
    free(store->folder);
    free(store);
}

unsigned store_epoch(const struct store *store)
{
    return store->epoch;
}

// ---- Content ------------------------------------------------------------------------------------

// What a file of the kind's folder is of, when it is a definition.
static bool definition_name(const struct dirent *entry, char name[NAME_MAX + 1])
{
    size_t length = strlen(entry->d_name);
    if (length <= strlen(".json") || strcmp(entry->d_name + length - 5, ".json") != 0)
        return false;
    snprintf(name, NAME_MAX + 1, "%.*s", (int)(length - 5), entry->d_name);
    return store_name_is_good(name);
}

static int is_definition(const struct dirent *entry)
{
    char name[NAME_MAX + 1];
    return definition_name(entry, name);
}

int store_for_each(struct store *store, enum store_kind kind,
                   void (*visit)(void *opaque, const char *name), void *opaque, struct error *err)
{
    struct dirent **entries;
    int count = scandirat(store->folder_fd, kind_names[kind], &entries, is_definition, alphasort);
    if (count < 0)
        return error_set_errno(err, -errno, "cannot read the state folder \"%s\"", store->folder);
    for (int i = 0; i < count; i++) {
        char name[NAME_MAX + 1];
        if (definition_name(entries[i], name))
            visit(opaque, name);
        free(entries[i]);
    }
    free(entries);
    return 0;
}

bool store_has(struct store *store, enum store_kind kind, const char *name)
{
    char file[NAME_MAX];
    file_name(file, name);
    return faccessat(store->kind_fds[kind], file, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

json_t *store_read(struct store *store, enum store_kind kind, const char *name, struct error *err)
{
    char file[NAME_MAX];
    int rc = 0;
    file_name(file, name);
    char *text = read_file(store->kind_fds[kind], file, &rc);
    if (!text) {
        error_set_errno(err, rc, "cannot read \"%s/%s/%s\"", store->folder, kind_names[kind], file);
        return NULL;
    }
    json_error_t wrong;
    json_t *object = json_loads(text, JSON_REJECT_DUPLICATES, &wrong);
    free(text);
    if (json_is_object(object))
        return object;
    error_set(err, -EINVAL, "cannot read \"%s/%s/%s\": %s (line %d)", store->folder,
              kind_names[kind], file, object ? "not a JSON object" : wrong.text,
              object ? 1 : wrong.line);
    json_decref(object);
    return NULL;
}

int store_write(struct store *store, enum store_kind kind, const char *name, const json_t *object,
                struct error *err)
{
    char file[NAME_MAX];
    file_name(file, name);
    char *text = json_dumps(object, JSON_INDENT(2));
    int rc = text ? replace_file(store->kind_fds[kind], file, text) : -ENOMEM;
    free(text);
    return rc < 0 ? error_set_errno(err, rc, "cannot write \"%s/%s/%s\"", store->folder,
                                    kind_names[kind], file)
                  : 0;
}

int store_remove(struct store *store, enum store_kind kind, const char *name, struct error *err)
{
    char file[NAME_MAX];
    file_name(file, name);
    if ((unlinkat(store->kind_fds[kind], file, 0) < 0 && errno != ENOENT) ||
        fsync(store->kind_fds[kind]) < 0)
        return error_set_errno(err, -errno, "cannot remove \"%s/%s/%s\"", store->folder,
                               kind_names[kind], file);
    return 0;
}
