// SPDX-License-Identifier: BSD-2-Clause
// What the store does to a disk: the host's table of operations, and what is made of any table.
//
// Somebody may have put things into the folder. The host's operations refuse symbolic links on the
// way to a file and as the file (openat2(2), RESOLVE_NO_SYMLINKS), never wait for a FIFO, and tell
// what others than the owner can write to.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "update/internal.h"

#define DEPTH_MAX 8u  // of folders that are removed with all in them

// ---- The host's operations ----------------------------------------------------------------------

struct host {
    int folder_fd, lock_fd;
};

static int open_beneath(const struct host *host, const char *path, int flags, unsigned mode)
{
    const struct open_how how = {.flags = (unsigned)flags | O_CLOEXEC,
                                 .mode = flags & O_CREAT ? mode : 0,
                                 .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
    long fd = syscall(SYS_openat2, host->folder_fd, path, &how, sizeof(how));
    return fd < 0 ? -errno : (int)fd;
}

// The folder that `path` is in, open, and its name there.
static int open_parent(const struct host *host, const char *path, const char **name)
{
    char parent[PATH_BYTES];
    const char *slash = strrchr(path, '/');
    *name = slash ? slash + 1 : path;
    if (!slash)
        return open_beneath(host, ".", O_PATH | O_DIRECTORY, 0);
    if (snprintf(parent, sizeof(parent), "%.*s", (int)(slash - path), path) >= (int)sizeof(parent))
        return -ENAMETOOLONG;
    return open_beneath(host, parent, O_PATH | O_DIRECTORY, 0);
}

// What a call of libc's that is done in a folder gives; the folder is closed.
static int finish(int folder_fd, int result)
{
    int rc = result < 0 ? -errno : result;
    close(folder_fd);
    return rc;
}

static int host_open(void *opaque, const char *path, int flags, unsigned mode)
{
    struct stat stat;
    int fd = open_beneath(opaque, path, flags | O_NONBLOCK | O_NOCTTY, mode);
    if (fd < 0 || (fstat(fd, &stat) == 0 && S_ISREG(stat.st_mode)))
        return fd;
    close(fd);
    return -EINVAL;
}

static int64_t host_read(void *opaque, int fd, void *bytes, size_t count, uint64_t offset)
{
    (void)opaque;
    return fd_pread_full(fd, bytes, count, offset);
}

static int64_t host_write(void *opaque, int fd, const void *bytes, size_t count, uint64_t offset)
{
    size_t done = 0;
    (void)opaque;
    while (done < count) {
        ssize_t n = pwrite(fd, (const char *)bytes + done, count - done, (off_t)(offset + done));
        if (n < 0 && errno != EINTR)
            return done ? (int64_t)done : -errno;
        if (n > 0)
            done += (size_t)n;
    }
    return (int64_t)done;
}

static int host_truncate(void *opaque, int fd, uint64_t bytes)
{
    (void)opaque;
    return ftruncate(fd, (off_t)bytes) < 0 ? -errno : 0;
}

static int host_sync(void *opaque, int fd)
{
    (void)opaque;
    return fsync(fd) < 0 ? -errno : 0;
}

static void host_close(void *opaque, int fd)
{
    (void)opaque;
    close(fd);
}

static int host_make_folder(void *opaque, const char *path)
{
    const char *name;
    int fd = open_parent(opaque, path, &name);
    return fd < 0 ? fd : finish(fd, mkdirat(fd, name, 0700));
}

static int host_sync_folder(void *opaque, const char *path)
{
    int fd = open_beneath(opaque, *path ? path : ".", O_RDONLY | O_DIRECTORY, 0);
    return fd < 0 ? fd : finish(fd, fsync(fd));
}

static int host_rename(void *opaque, const char *from, const char *to)
{
    const char *from_name, *to_name;
    int from_fd = open_parent(opaque, from, &from_name);
    int to_fd = from_fd < 0 ? from_fd : open_parent(opaque, to, &to_name);
    int rc = to_fd < 0 ? to_fd : finish(to_fd, renameat(from_fd, from_name, to_fd, to_name));
    if (from_fd >= 0)
        close(from_fd);
    return rc;
}

static int host_remove(void *opaque, const char *path)
{
    const char *name;
    int fd = open_parent(opaque, path, &name);
    if (fd < 0)
        return fd;
    int rc = unlinkat(fd, name, 0);
    return finish(fd, rc < 0 && errno == EISDIR ? unlinkat(fd, name, AT_REMOVEDIR) : rc);
}

static int host_link(void *opaque, const char *target, const char *path)
{
    const char *name;
    int fd = open_parent(opaque, path, &name);
    return fd < 0 ? fd : finish(fd, symlinkat(target, fd, name));
}

static int64_t host_read_link(void *opaque, const char *path, char *target, size_t capacity)
{
    const char *name;
    int fd = open_parent(opaque, path, &name);
    return fd < 0 ? fd : finish(fd, (int)readlinkat(fd, name, target, capacity));
}

static bool others_write(const struct stat *stat)
{
    return (stat->st_uid != geteuid() && stat->st_uid != 0) ||
           (!S_ISLNK(stat->st_mode) && stat->st_mode & (S_IWGRP | S_IWOTH));
}

static int host_look(void *opaque, const char *path, struct update_file_look *look)
{
    const char *name;
    struct stat stat = {0};
    int fd = open_parent(opaque, path, &name);
    int rc = fd < 0 ? fd : finish(fd, fstatat(fd, name, &stat, AT_SYMLINK_NOFOLLOW));
    *look = (struct update_file_look){.kind = S_ISREG(stat.st_mode)   ? UPDATE_FILE
                                              : S_ISDIR(stat.st_mode) ? UPDATE_FOLDER
                                              : S_ISLNK(stat.st_mode) ? UPDATE_LINK
                                                                      : UPDATE_OTHER,
                                      .bytes = (uint64_t)stat.st_size,
                                      .changed_ns = (int64_t)stat.st_mtim.tv_sec * 1000000000 +
                                                    stat.st_mtim.tv_nsec,
                                      .others_write = others_write(&stat)};
    return rc;
}

static int host_list(void *opaque, const char *path, int (*visit)(void *visitor, const char *name),
                     void *visitor)
{
    int fd = open_beneath(opaque, path, O_RDONLY | O_DIRECTORY, 0);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    if (!folder)
        return fd < 0 ? fd : finish(fd, -1);
    int rc = 0;
    const struct dirent *entry;
    errno = 0;
    while (rc == 0 && (entry = readdir(folder))) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            rc = visit(visitor, entry->d_name);
        errno = 0;
    }
    if (rc == 0)
        rc = -errno;
    closedir(folder);
    return rc;
}

static int64_t host_room_bytes(void *opaque)
{
    struct statvfs disk;
    const struct host *host = opaque;
    if (fstatvfs(host->folder_fd, &disk) < 0)
        return -errno;
    return (int64_t)(disk.f_bavail * disk.f_frsize);
}

static void host_end(void *opaque)
{
    struct host *host = opaque;
    if (host->lock_fd >= 0)
        close(host->lock_fd);
    if (host->folder_fd >= 0)
        close(host->folder_fd);
    free(host);
}

const struct update_files files_plain = {.read = host_read, .write = host_write};

static const struct update_files host_files = {.open = host_open,
                                               .read = host_read,
                                               .write = host_write,
                                               .truncate = host_truncate,
                                               .sync = host_sync,
                                               .close = host_close,
                                               .make_folder = host_make_folder,
                                               .sync_folder = host_sync_folder,
                                               .rename = host_rename,
                                               .remove = host_remove,
                                               .link = host_link,
                                               .read_link = host_read_link,
                                               .look = host_look,
                                               .list = host_list,
                                               .room_bytes = host_room_bytes,
                                               .end = host_end};

// The folder's own name is on the disk, too.
static int sync_above(const struct host *host)
{
    int fd = openat(host->folder_fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : finish(fd, fsync(fd));
}

static int open_root(struct host *host, const char *folder)
{
    struct stat stat;
    bool made = mkdir(folder, 0700) == 0;
    if (!made && errno != EEXIST)
        return -errno;
    host->folder_fd = open(folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (host->folder_fd < 0 || fstat(host->folder_fd, &stat) < 0)
        return -errno;
    if (others_write(&stat))
        return -EPERM;
    int rc = made ? sync_above(host) : 0;
    if (rc < 0)
        return rc;
    host->lock_fd = open_beneath(host, "lock", O_RDWR | O_CREAT, 0600);
    if (host->lock_fd < 0)
        return host->lock_fd;
    return flock(host->lock_fd, LOCK_EX | LOCK_NB) < 0 ? -errno : 0;
}

int files_host(struct update_files *files, const char *folder, struct error *err)
{
    struct host *host = malloc(sizeof(*host));
    int rc = -ENOMEM;
    if (host) {
        *host = (struct host){.folder_fd = -1, .lock_fd = -1};
        rc = open_root(host, folder);
    }
    if (rc == 0) {
        *files = host_files;
        files->opaque = host;
        return 0;
    }
    if (host)
        host_end(host);
    if (rc == -EWOULDBLOCK)
        return error_set(err, -EBUSY, "cannot use the update store \"%s\": another supervisor does",
                         folder);
    if (rc == -EPERM)
        return error_set(err, rc, "cannot use the update store \"%s\": others may write to it",
                         folder);
    return error_set_errno(err, rc, "cannot use the update store \"%s\"", folder);
}

// ---- Of any table -------------------------------------------------------------------------------

int files_write(const struct update_files *files, const char *path, const void *bytes, size_t count,
                unsigned mode)
{
    int rc = files_remove(files, path);
    int fd = rc < 0 ? rc : files->open(files->opaque, path, O_WRONLY | O_CREAT | O_EXCL, mode);
    if (fd < 0)
        return fd;
    int64_t n = files->write(files->opaque, fd, bytes, count, 0);
    rc = n < 0 ? (int)n : (size_t)n < count ? -ENOSPC : files->sync(files->opaque, fd);
    files->close(files->opaque, fd);
    if (rc < 0)
        files->remove(files->opaque, path);
    return rc;
}

int files_replace(const struct update_files *files, const char *path, const void *bytes,
                  size_t count)
{
    char temporary[PATH_BYTES];
    if (snprintf(temporary, sizeof(temporary), "%s.new", path) >= (int)sizeof(temporary))
        return -ENAMETOOLONG;
    int rc = files_write(files, temporary, bytes, count, 0600);
    if (rc == 0)
        rc = files->rename(files->opaque, temporary, path);
    if (rc == -EISDIR && (rc = files_remove(files, path)) == 0)  // no file of ours, then
        rc = files->rename(files->opaque, temporary, path);
    return rc == 0 ? files_sync_parent(files, path) : rc;
}

int files_read(const struct update_files *files, const char *path, size_t max, char **bytes,
               size_t *count)
{
    struct update_file_look look;
    int rc = files->look(files->opaque, path, &look);
    if (rc < 0)
        return rc;
    if (look.kind != UPDATE_FILE || look.others_write || look.bytes > max)
        return look.kind != UPDATE_FILE ? -EINVAL : look.others_write ? -EPERM : -EFBIG;
    int fd = files->open(files->opaque, path, O_RDONLY, 0);
    if (fd < 0)
        return fd;
    char *text = malloc((size_t)look.bytes + 1);
    int64_t n = text ? files->read(files->opaque, fd, text, (size_t)look.bytes, 0) : -ENOMEM;
    files->close(files->opaque, fd);
    if (n < 0) {
        free(text);
        return (int)n;
    }
    text[n] = 0;
    *bytes = text;
    *count = (size_t)n;
    return 0;
}

int files_make_folder(const struct update_files *files, const char *path)
{
    int rc = files->make_folder(files->opaque, path);
    if (rc != -EEXIST)
        return rc < 0 ? rc : files_sync_parent(files, path);
    return files_look_at_folder(files, path);
}

int files_look_at_folder(const struct update_files *files, const char *path)
{
    struct update_file_look look;
    int rc = files->look(files->opaque, path, &look);
    if (rc < 0)
        return rc;
    return look.kind != UPDATE_FOLDER ? -ENOTDIR : look.others_write ? -EPERM : 0;
}

struct removal {
    const struct update_files *files;
    const char *path;
    unsigned depth;
};

static int remove_tree(const struct update_files *files, const char *path, unsigned depth);

static int remove_entry(void *opaque, const char *name)
{
    const struct removal *removal = opaque;
    char path[PATH_MAX];
    if (snprintf(path, sizeof(path), "%s/%s", removal->path, name) >= (int)sizeof(path))
        return -ENAMETOOLONG;
    return remove_tree(removal->files, path, removal->depth + 1);
}

static int remove_tree(const struct update_files *files, const char *path, unsigned depth)
{
    struct removal removal = {files, path, depth};
    int rc = files->remove(files->opaque, path);
    if (rc != -ENOTEMPTY || depth > DEPTH_MAX)
        return rc == -ENOENT ? 0 : rc;
    rc = files->list(files->opaque, path, remove_entry, &removal);
    return rc < 0 ? rc : files->remove(files->opaque, path);
}

int files_remove(const struct update_files *files, const char *path)
{
    return remove_tree(files, path, 0);
}

int files_sync_parent(const struct update_files *files, const char *path)
{
    char parent[PATH_BYTES] = "";
    const char *slash = strrchr(path, '/');
    if (slash)
        snprintf(parent, sizeof(parent), "%.*s", (int)(slash - path), path);
    return files->sync_folder(files->opaque, parent);
}
