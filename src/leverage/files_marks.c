// SPDX-License-Identifier: BSD-2-Clause
// What the kernel holds for us: opens of files below a path, and nothing else.
//
// Where the path is the root of a file system, that is marked. Elsewhere each folder is, for the
// files in it (FAN_EVENT_ON_CHILD): what happens outside of the path costs nothing and can wait for
// nobody; a file that is renamed or linked into the path is held from then on, since it is the
// folder that counts; and it is the same from other mounts of the file system, and in containers.
// A mark of the mount would not see those; one of the file system would hold the host's every open.
//
// Folders that come are marked when the second group tells of them. What is opened in a folder in
// the moment between (some ten microseconds) is not held; who must not have even that gives the
// path a file system of its own. Folders that go lose their marks likewise.
//
// FAN_OPEN_PERM holds programs that are executed, too: the kernel asks for those with
// FAN_OPEN_EXEC_PERM and then again with FAN_OPEN_PERM, so once is enough.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fanotify.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "leverage/files.h"

#define HELD FAN_OPEN_PERM
#define WATCHED (FAN_CREATE | FAN_MOVED_TO | FAN_MOVED_FROM | FAN_ONDIR)
// Not blocking: the kernel opens the file for us as we read the event, and could have to wait for
// somebody who has a lease of it, or for the other end of a pipe.
#define EVENT_FLAGS (O_RDONLY | O_LARGEFILE | O_CLOEXEC | O_NOATIME | O_NONBLOCK)
#define FOLDER_FLAGS (O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOATIME)
#define EVENTS_BYTES 16384u
#define DEPTH_MAX 1000000u  // of folders

// ---- Groups -------------------------------------------------------------------------------------

static int open_groups(struct files_marks *marks, struct error *err)
{
    // A perm event that no queue has room for would be allowed: the processes that wait are the
    // bound. The other group's overflow is seen, and made up for.
    marks->perm = fanotify_init(FAN_CLASS_CONTENT | FAN_CLOEXEC | FAN_NONBLOCK |
                                    FAN_UNLIMITED_QUEUE | FAN_UNLIMITED_MARKS,
                                EVENT_FLAGS);
    if (marks->perm < 0 && errno == EPERM)
        return error_set(err, -EPERM,
                         "cannot hold opens of files: that needs root (CAP_SYS_ADMIN)");
    if (marks->perm < 0)
        return error_set_errno(err, -errno, "cannot hold opens of files");
    marks->watch = fanotify_init(FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_NONBLOCK |
                                     FAN_UNLIMITED_MARKS | FAN_REPORT_DFID_NAME_TARGET,
                                 O_RDONLY);
    return marks->watch < 0 ? error_set_errno(err, -errno, "cannot watch folders (Linux 5.17 can)")
                            : 0;
}

// Where in its file system the mount at `path` begins: "/" for a whole one.
static bool is_whole(const char *path)
{
    char *line = NULL, root[PATH_MAX], at[PATH_MAX];
    size_t capacity = 0;
    bool whole = false;
    FILE *mounts = fopen("/proc/self/mountinfo", "re");
    // A later mount hides those before it. Names with spaces are escaped, and so never found.
    while (mounts && getline(&line, &capacity, mounts) > 0)
        if (sscanf(line, "%*d %*d %*s %4095s %4095s", root, at) == 2 && strcmp(at, path) == 0)
            whole = strcmp(root, "/") == 0;
    free(line);
    if (mounts)
        fclose(mounts);
    return whole;
}

static bool is_below(const char *path, const char *folder)
{
    size_t length = strcmp(folder, "/") == 0 ? 0 : strlen(folder);
    return strncmp(path, folder, length) == 0 && (path[length] == '/' || path[length] == 0);
}

// Whether a file lies below the root by another name: through a mount of a folder elsewhere.
static bool is_inside(const struct files_marks *marks, const char *name)
{
    union files_handle handle;
    struct stat root, folder;
    char *parent = strdup(name);
    int mount, fd = -1;
    if (!parent)
        return true;  // nobody knows
    *strrchr(parent, '/') = 0;
    if (*parent && stat(parent, &folder) == 0 && fstat(marks->root, &root) == 0 &&
        folder.st_dev == root.st_dev && files_handle_take(&handle, AT_FDCWD, parent, &mount) == 0)
        fd = open_by_handle_at(marks->root, &handle.head, FOLDER_FLAGS);
    free(parent);
    bool inside = fd >= 0 && files_marks_contain(marks, fd);
    if (fd >= 0)
        close(fd);
    return inside;
}

// Those of proc the kernel refuses to hold; of others it would hold what has no content to scan.
static int check_has_files(const struct files_marks *marks, struct error *err)
{
    static const unsigned long pseudo[] = {
        AAFS_MAGIC,           BINDERFS_SUPER_MAGIC, BINFMTFS_MAGIC,   BPF_FS_MAGIC,
        CGROUP2_SUPER_MAGIC,  CGROUP_SUPER_MAGIC,   DEBUGFS_MAGIC,    DEVPTS_SUPER_MAGIC,
        EFIVARFS_MAGIC,       NSFS_MAGIC,           PROC_SUPER_MAGIC, PSTOREFS_MAGIC,
        RDTGROUP_SUPER_MAGIC, SECURITYFS_MAGIC,     SELINUX_MAGIC,    SMACK_MAGIC,
        SYSFS_MAGIC,          TRACEFS_MAGIC};
    struct statfs fs;
    if (fstatfs(marks->root, &fs) < 0)
        return error_set_errno(err, -errno, "cannot hold opens below \"%s\"", marks->path);
    for (size_t i = 0; i < BASE_COUNT_OF(pseudo); i++)
        if ((unsigned long)fs.f_type == pseudo[i])
            return error_set(err, -EINVAL,
                             "cannot hold opens below \"%s\": what is there is the kernel's own, "
                             "and no files",
                             marks->path);
    return 0;
}

// A successor that had to wait for itself to be scanned would wait for ever.
static int check_not_ours(const struct files_marks *marks, struct error *err)
{
    static const char needs[] = "cannot hold opens below \"%s\": strake itself needs \"%s\"";
    static const char cache[] = "/etc/ld.so.cache";
    char *line = NULL;
    size_t capacity = 0;
    int rc = 0;
    FILE *maps = fopen("/proc/self/maps", "re");
    if (!maps)
        return error_set_errno(err, -errno, "cannot see what strake itself needs");
    while (rc == 0 && getline(&line, &capacity, maps) > 0) {
        char *name = strchr(line, '/');
        line[strcspn(line, "\n")] = 0;
        if (name && strncmp(name, "/memfd:", 7) != 0 &&
            (is_below(name, marks->path) || is_inside(marks, name)))
            rc = error_set(err, -EINVAL, needs, marks->path, name);
    }
    if (rc == 0 && is_below(cache, marks->path))
        rc = error_set(err, -EINVAL, needs, marks->path, cache);
    free(line);
    fclose(maps);
    return rc;
}

// Folders have to be found again, by what the kernel tells of them.
static int check_handles(const struct files_marks *marks, struct error *err)
{
    union files_handle handle;
    int mount;
    int fd = files_handle_take(&handle, marks->root, "", &mount) < 0
                 ? -1
                 : open_by_handle_at(marks->root, &handle.head, FOLDER_FLAGS);
    if (fd < 0)
        return error_set(err, -errno,
                         "cannot hold opens below \"%s\": its file system has no file handles "
                         "(%s), and can only be held as a whole",
                         marks->path, strerror(errno));
    close(fd);
    return 0;
}

// Where the root is.
static void find_mount(struct files_marks *marks)
{
    union files_handle handle;
    marks->whole = is_whole(marks->path);
    if (files_handle_take(&handle, marks->root, "", &marks->mount) < 0)
        marks->mount = -1;
}

int files_marks_open(struct files_marks *marks, const char *path, struct error *err)
{
    *marks = (struct files_marks){.root = -1, .perm = -1, .watch = -1};
    marks->path = realpath(path, NULL);
    if (!marks->path)
        return error_set_errno(err, -errno, "cannot hold opens below \"%s\"", path);
    marks->root = open(marks->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = marks->root < 0 ? error_set_errno(err, -errno, "cannot hold opens below \"%s\"", path)
                             : check_has_files(marks, err);
    if (rc == 0)
        rc = check_not_ours(marks, err);
    if (rc == 0)
        find_mount(marks);
    if (rc == 0)
        rc = open_groups(marks, err);
    if (rc == 0 && !marks->whole)
        rc = check_handles(marks, err);
    if (rc < 0)
        files_marks_close(marks);
    return rc;
}

int files_marks_adopt(struct files_marks *marks, struct error *err)
{
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", marks->root);
    ssize_t n = readlink(link, path, sizeof(path) - 1);
    path[n > 0 ? n : 0] = 0;
    marks->path = n > 0 ? strdup(path) : NULL;
    if (!marks->path) {
        int rc = error_set_errno(err, n < 0 ? -errno : -ENOMEM, "cannot go on holding opens");
        files_marks_close(marks);
        return rc;
    }
    find_mount(marks);
    return 0;
}

void files_marks_close(struct files_marks *marks)
{
    int *fds[] = {&marks->root, &marks->perm, &marks->watch};
    for (size_t i = 0; i < BASE_COUNT_OF(fds); i++) {
        if (*fds[i] >= 0)
            close(*fds[i]);
        *fds[i] = -1;
    }
    free(marks->path);
    marks->path = NULL;
}

// ---- Folders ------------------------------------------------------------------------------------

// Folders that are yet to be looked into, by handles: as deep as they may be one in another, one
// descriptor is enough.
struct walk {
    const struct files_marks *marks;
    bool add;
    bool untold;  // there are folders that cannot be watched
    union files_handle *list;
    size_t count, capacity;
};

// The watch comes first: what comes into the folder from then on is told, the rest is read. A
// subvolume of btrfs in another cannot be watched (EXDEV); what is there already can be held.
static int mark_folder(struct walk *walk, int folder)
{
    const struct files_marks *marks = walk->marks;
    unsigned how = (walk->add ? FAN_MARK_ADD : FAN_MARK_REMOVE) | FAN_MARK_ONLYDIR;
    if (fanotify_mark(marks->watch, how, WATCHED, folder, NULL) < 0) {
        walk->untold |= walk->add && errno == EXDEV;
        if (walk->add && errno != EXDEV)
            return -errno;
    }
    if (fanotify_mark(marks->perm, how, HELD | FAN_EVENT_ON_CHILD, folder, NULL) < 0 &&
        (walk->add || errno != ENOENT))
        return -errno;
    return 0;
}

static int walk_later(struct walk *walk, const union files_handle *handle)
{
    if (walk->count == walk->capacity) {
        size_t capacity = walk->capacity ? 2 * walk->capacity : 16;
        union files_handle *list = reallocarray(walk->list, capacity, sizeof(*list));
        if (!list)
            return -ENOMEM;
        walk->list = list;
        walk->capacity = capacity;
    }
    walk->list[walk->count++] = *handle;
    return 0;
}

// What is mounted there is not ours (and need not have handles); what has vanished is of no
// interest.
static int walk_entry(struct walk *walk, int folder, const struct dirent *entry)
{
    union files_handle handle;
    int mount;
    if ((entry->d_type != DT_DIR && entry->d_type != DT_UNKNOWN) ||
        strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
        return 0;
    if (files_handle_take(&handle, folder, entry->d_name, &mount) < 0)
        return errno == ENOENT || errno == EOPNOTSUPP ? 0 : -errno;
    return mount == walk->marks->mount ? walk_later(walk, &handle) : 0;
}

static int walk_folder(struct walk *walk, union files_handle *handle)
{
    int fd = open_by_handle_at(walk->marks->root, &handle->head, FOLDER_FLAGS);
    if (fd < 0)
        return errno == ESTALE || errno == ENOTDIR ? 0 : -errno;
    int rc = mark_folder(walk, fd);
    DIR *dir = rc < 0 ? NULL : fdopendir(fd);
    if (!dir) {
        close(fd);
        return rc < 0 ? rc : -ENOMEM;
    }
    const struct dirent *entry;
    while (rc == 0 && (entry = readdir(dir)))
        rc = walk_entry(walk, fd, entry);
    closedir(dir);
    return rc;
}

static int mark_tree(const struct files_marks *marks, const union files_handle *top, bool add)
{
    struct walk walk = {.marks = marks, .add = add};
    int rc = walk_later(&walk, top);
    while (rc == 0 && walk.count > 0 && !atomic_load(&marks->ending)) {
        union files_handle next = walk.list[--walk.count];
        rc = walk_folder(&walk, &next);
    }
    if (rc == 0 && walk.count > 0)
        rc = -ECANCELED;
    if (walk.untold)
        log_line(LOG_WARN, "folders that come into subvolumes below \"%s\" are not held",
                 marks->path);
    free(walk.list);
    return rc;
}

static int mark_all(const struct files_marks *marks)
{
    union files_handle root;
    int mount;
    return files_handle_take(&root, marks->root, "", &mount) < 0 ? -errno
                                                                 : mark_tree(marks, &root, true);
}

int files_marks_set(struct files_marks *marks, struct error *err)
{
    int rc = !marks->whole ? mark_all(marks)
             : fanotify_mark(marks->perm, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, HELD, marks->root,
                             NULL) < 0
                 ? -errno
                 : 0;
    return rc < 0 ? error_set_errno(err, rc, "cannot hold opens below \"%s\"", marks->path) : 0;
}

void files_marks_clear(struct files_marks *marks)
{
    unsigned kind = marks->whole ? FAN_MARK_FILESYSTEM : FAN_MARK_INODE;
    fanotify_mark(marks->perm, FAN_MARK_FLUSH | kind, 0, AT_FDCWD, "/");
    fanotify_mark(marks->watch, FAN_MARK_FLUSH | FAN_MARK_INODE, 0, AT_FDCWD, "/");
}

// ".." tells; a folder has only one. One that is too deep to know is contained.
bool files_marks_contain(const struct files_marks *marks, int folder)
{
    struct stat root, here, above;
    int fd = fcntl(folder, F_DUPFD_CLOEXEC, 0);
    bool found = false;
    if (fd < 0 || fstat(marks->root, &root) < 0 || fstat(fd, &here) < 0)
        goto out;
    for (unsigned i = 0; !found; i++) {
        found = i == DEPTH_MAX || (here.st_ino == root.st_ino && here.st_dev == root.st_dev);
        int next = found ? -1 : openat(fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (next < 0)
            break;
        close(fd);
        fd = next;
        if (fstat(fd, &above) < 0 || (above.st_ino == here.st_ino && above.st_dev == here.st_dev))
            break;
        here = above;
    }
out:
    if (fd >= 0)
        close(fd);
    return found;
}

// ---- What happens to folders --------------------------------------------------------------------

// The folder that came or went: where it is now says what is to be done, whatever happened before.
static void follow_folder(const struct files_marks *marks, const struct file_handle *from)
{
    union files_handle handle;
    if (from->handle_bytes > FILES_HANDLE_BYTES)
        return;
    memcpy(&handle, from, sizeof(*from) + from->handle_bytes);
    int folder = open_by_handle_at(marks->root, &handle.head, FOLDER_FLAGS);
    if (folder < 0)
        return;  // it is gone
    int rc = mark_tree(marks, &handle, files_marks_contain(marks, folder));
    close(folder);
    if (rc < 0 && rc != -ECANCELED)
        log_line(LOG_ERROR, "cannot mark a folder that came below \"%s\": %s", marks->path,
                 strerror(-rc));
}

static void follow_event(const struct files_marks *marks, const uint8_t *next, const uint8_t *end)
{
    while (next + sizeof(struct fanotify_event_info_header) <= end) {
        const struct fanotify_event_info_fid *info = (const void *)next;
        if (info->hdr.len == 0)
            return;
        if (info->hdr.info_type == FAN_EVENT_INFO_TYPE_FID)
            follow_folder(marks, (const struct file_handle *)info->handle);
        next += info->hdr.len;
    }
}

// Events are as long as their handles, so they do not lie where a structure may.
void files_marks_follow(struct files_marks *marks)
{
    uint8_t events[EVENTS_BYTES] __attribute__((aligned(8)));
    struct fanotify_event_metadata event;
    ssize_t n = read(marks->watch, events, sizeof(events));
    bool missed = false;
    for (const uint8_t *next = events; n >= (ssize_t)sizeof(event); n -= event.event_len) {
        memcpy(&event, next, sizeof(event));
        if (event.event_len < sizeof(event) || event.event_len > n)
            break;
        if (event.mask & FAN_Q_OVERFLOW)
            missed = true;
        else if (event.mask & FAN_ONDIR)
            follow_event(marks, next + event.metadata_len, next + event.event_len);
        next += event.event_len;
    }
    int rc = missed ? mark_all(marks) : 0;
    if (rc < 0 && rc != -ECANCELED)
        log_line(LOG_ERROR, "cannot mark all folders below \"%s\": %s", marks->path, strerror(-rc));
}
