// SPDX-License-Identifier: BSD-2-Clause
// Files: opening, what is known about them, and vectors of buffers.
//
// A file is opened in two steps, so that the program gets no descriptor of one that is not to be
// had (user_proc_open), however links are moved about meanwhile: first one by which nothing can be
// read or written, then, once it is known what it stands for, that same file. No thread puts
// another one into its place in between (descriptors.c).
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "user/calls.h"

// ---- Opening

#define CREATE_TRIES 40  // symbolic links that are followed, MAXSYMLINKS

static int64_t open_host(struct user_thread *thread, int dir, const char *path,
                         const struct open_how *how)
{
    return user_host_call(thread, SYS_openat2, (uint64_t)dir, (uint64_t)(uintptr_t)path,
                          (uint64_t)(uintptr_t)how, sizeof(*how), 0, 0);
}

// Devices that are the machine's memory, or whose drivers take addresses of this process from what
// is written to them (Linux, devices.txt).
static bool is_memory_device(const struct stat *status)
{
    static const struct {
        unsigned major, first, last;
    } devices[] = {
        {1, 1, 2},           // mem, kmem
        {1, 4, 4},           // port
        {10, 239, 239},      // uhid
        {21, 0, UINT_MAX},   // sg: SCSI
        {231, 0, UINT_MAX},  // InfiniBand
    };
    unsigned number = major(status->st_rdev), of = minor(status->st_rdev);

    for (size_t i = 0; S_ISCHR(status->st_mode) && i < BASE_COUNT_OF(devices); i++)
        if (number == devices[i].major && of >= devices[i].first && of <= devices[i].last)
            return true;
    return false;
}

// Opens what `fd` stands for, as `how` says.
static int64_t open_again(struct user_thread *thread, int fd, const struct open_how *how)
{
    const uint64_t done = O_CREAT | O_EXCL | O_NOFOLLOW;
    struct open_how again = {.flags = how->flags & ~done};
    struct stat status;
    char link[USER_LINK_BYTES];
    int rc;

    if (fstat(fd, &status))
        return -errno;
    if (S_ISLNK(status.st_mode))
        return -ELOOP;
    if (is_memory_device(&status))
        return -EPERM;
    if (S_ISDIR(status.st_mode) && (how->flags & O_CREAT))
        return -EISDIR;
    rc = user_proc_open(thread, fd);
    if (rc != -ENODATA)
        return rc;
    user_descriptor_link(fd, link);
    return open_host(thread, AT_FDCWD, link, &again);
}

// Programs rely on the lowest number that is free, which `fd` has.
static int64_t open_in_place(struct user_thread *thread, int fd, const struct open_how *how)
{
    int64_t result = fd = user_descriptor_opening(thread, fd);

    if (fd < 0)
        return fd;
    int64_t opened = open_again(thread, fd, how);
    if (opened < 0 || dup3((int)opened, fd, how->flags & O_CLOEXEC ? O_CLOEXEC : 0) < 0) {
        result = opened < 0 ? opened : -errno;
        close(fd);
    }
    if (opened >= 0)
        close((int)opened);
    user_descriptor_opened(thread);
    return result;
}

// Where the symbolic link `path` leads, as a path from `dir`; `path` itself where it is none, or
// none any more. 0 or a negative errno.
static int64_t follow(struct user_thread *thread, int dir, char path[static PATH_MAX],
                      uint64_t resolve)
{
    const struct open_how how = {.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC, .resolve = resolve};
    int64_t fd = open_host(thread, dir, path, &how);
    char target[PATH_MAX];

    if (fd < 0)
        return fd == -ENOENT ? 0 : fd;
    ssize_t bytes = readlinkat((int)fd, "", target, sizeof(target));
    close((int)fd);
    if (bytes <= 0)
        return 0;
    char *name = strrchr(path, '/');
    size_t kept = target[0] == '/' || !name ? 0 : (size_t)(name + 1 - path);
    if (kept + (size_t)bytes >= PATH_MAX)
        return -ENAMETOOLONG;
    memcpy(path + kept, target, (size_t)bytes);
    path[kept + (size_t)bytes] = 0;
    return 0;
}

// What is not there is created, and nothing else is opened so: where a symbolic link leads to it,
// the link is followed here.
static int64_t open_file(struct user_thread *thread, int dir, const char *path,
                         const struct open_how *how)
{
    struct open_how look = {.flags = O_PATH | O_CLOEXEC | (how->flags & (O_NOFOLLOW | O_DIRECTORY)),
                            .resolve = how->resolve};
    struct open_how create = *how;
    char followed[PATH_MAX];

    if ((how->flags & O_TMPFILE) == O_TMPFILE || (how->flags & O_PATH) ||
        (how->flags & (O_CREAT | O_EXCL)) == (O_CREAT | O_EXCL))
        return open_host(thread, dir, path, how);
    create.flags |= O_EXCL;
    for (unsigned i = 0; i < CREATE_TRIES; i++) {
        int64_t fd = open_host(thread, dir, path, &look);
        if (fd >= 0)
            return open_in_place(thread, (int)fd, how);
        if (fd != -ENOENT || !(how->flags & O_CREAT))
            return fd;
        fd = open_host(thread, dir, path, &create);
        if (fd != -EEXIST)
            return fd;
        if (path != followed)
            path = memcpy(followed, path, strlen(path) + 1);
        fd = follow(thread, dir, followed, how->resolve);
        if (fd < 0)
            return fd;
    }
    return -ELOOP;
}

static int64_t open_path(struct user_thread *thread, const uint64_t arguments[6],
                         const struct open_how *how)
{
    bool writes = (how->flags & O_ACCMODE) != O_RDONLY || (how->flags & (O_CREAT | O_TRUNC));
    enum user_path_use use = writes                    ? USER_PATH_WRITE
                             : how->flags & O_NOFOLLOW ? USER_PATH_READ_NOFOLLOW
                                                       : USER_PATH_READ;
    const char *path;
    int rc = user_call_path(thread, arguments[1], use, &path);

    if (rc == 0 && !path)
        rc = -EFAULT;
    return rc ? rc : open_file(thread, (int)arguments[0], path, how);
}

// openat(2) ignores flags that it does not know, openat2(2) does not.
int64_t user_openat(struct user_thread *thread, const uint64_t arguments[6])
{
    const uint64_t known = O_ACCMODE | O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_APPEND |
                           O_NONBLOCK | O_SYNC | O_ASYNC | O_DIRECT | O_NOFOLLOW | O_NOATIME |
                           O_CLOEXEC | O_PATH | O_TMPFILE /* O_DIRECTORY, too */;
    const uint64_t with_path = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    struct open_how how = {.flags = (uint32_t)arguments[2] & known};

    if (how.flags & O_PATH)
        how.flags &= with_path;
    if (how.flags & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY)))
        how.mode = arguments[3] & (S_ISUID | S_ISGID | S_ISVTX | S_IRWXU | S_IRWXG | S_IRWXO);
    return open_path(thread, arguments, &how);
}

int64_t user_openat2(struct user_thread *thread, const uint64_t arguments[6])
{
    struct open_how how;
    int rc;

    if (arguments[3] < sizeof(how))
        return -EINVAL;
    if (arguments[3] > sizeof(how))
        return -E2BIG;
    rc = user_copy_in(thread, &how, arguments[2], sizeof(how));
    return rc ? rc : open_path(thread, arguments, &how);
}

// ---- What is known about a file

// struct stat of riscv64 (asm-generic/stat.h).
struct guest_stat {
    uint64_t st_dev, st_ino;
    uint32_t st_mode, st_nlink, st_uid, st_gid;
    uint64_t st_rdev, pad1;
    int64_t st_size;
    int32_t st_blksize, pad2;
    int64_t st_blocks;
    int64_t st_atime_s;
    uint64_t st_atime_ns;
    int64_t st_mtime_s;
    uint64_t st_mtime_ns;
    int64_t st_ctime_s;
    uint64_t st_ctime_ns;
    uint32_t unused[2];
};
_Static_assert(sizeof(struct guest_stat) == 128, "struct stat of riscv64");

static int64_t put_stat(struct user_thread *thread, uint64_t gva, const struct stat *from)
{
    const struct guest_stat status = {
        .st_dev = from->st_dev,
        .st_ino = from->st_ino,
        .st_mode = from->st_mode,
        .st_nlink = (uint32_t)from->st_nlink,
        .st_uid = from->st_uid,
        .st_gid = from->st_gid,
        .st_rdev = from->st_rdev,
        .st_size = from->st_size,
        .st_blksize = (int32_t)from->st_blksize,
        .st_blocks = from->st_blocks,
        .st_atime_s = from->st_atim.tv_sec,
        .st_atime_ns = (uint64_t)from->st_atim.tv_nsec,
        .st_mtime_s = from->st_mtim.tv_sec,
        .st_mtime_ns = (uint64_t)from->st_mtim.tv_nsec,
        .st_ctime_s = from->st_ctim.tv_sec,
        .st_ctime_ns = (uint64_t)from->st_ctim.tv_nsec,
    };

    return user_copy_out(thread, gva, &status, sizeof(status));
}

int64_t user_fstat(struct user_thread *thread, const uint64_t arguments[6])
{
    struct stat status;
    int64_t rc =
        user_host_call(thread, SYS_fstat, arguments[0], (uint64_t)(uintptr_t)&status, 0, 0, 0, 0);

    return rc ? rc : put_stat(thread, arguments[1], &status);
}

static enum user_path_use use_by_flags(uint64_t at_flags)
{
    return at_flags & AT_SYMLINK_NOFOLLOW ? USER_PATH_READ_NOFOLLOW : USER_PATH_READ;
}

int64_t user_newfstatat(struct user_thread *thread, const uint64_t arguments[6])
{
    struct stat status;
    const char *path;
    int64_t rc = user_call_path(thread, arguments[1], use_by_flags(arguments[3]), &path);

    if (rc == 0)
        rc = user_host_call(thread, SYS_newfstatat, arguments[0], (uint64_t)(uintptr_t)path,
                            (uint64_t)(uintptr_t)&status, arguments[3], 0, 0);
    return rc ? rc : put_stat(thread, arguments[2], &status);
}

int64_t user_statx(struct user_thread *thread, const uint64_t arguments[6])
{
    const char *path;
    void *status;
    int rc = user_call_path(thread, arguments[1], use_by_flags(arguments[2]), &path);

    if (rc == 0)
        rc = user_call_buffer(thread, arguments[4], sizeof(struct statx), HART_STORE, &status);
    return rc ? rc
              : user_host_call(thread, SYS_statx, arguments[0], (uint64_t)(uintptr_t)path,
                               arguments[2], arguments[3], (uint64_t)(uintptr_t)status, 0);
}

static int64_t put_exe(struct user_thread *thread, const uint64_t arguments[6])
{
    const char *exe = thread->process->exe;
    size_t bytes = strlen(exe);

    if ((int)arguments[3] <= 0)
        return -EINVAL;
    if (bytes > (uint32_t)arguments[3])
        bytes = (uint32_t)arguments[3];
    int rc = user_copy_out(thread, arguments[2], exe, bytes);
    return rc ? rc : (int64_t)bytes;
}

int64_t user_readlinkat(struct user_thread *thread, const uint64_t arguments[6])
{
    const char *path;
    void *to;
    int rc = user_call_path(thread, arguments[1], USER_PATH_READ_NOFOLLOW, &path);

    if (rc == 0 && path && thread->process->exe && user_proc_is_exe(path))
        return put_exe(thread, arguments);
    if (rc == 0)
        rc = user_call_buffer(thread, arguments[2], (uint32_t)arguments[3], HART_STORE, &to);
    return rc ? rc
              : user_host_call(thread, SYS_readlinkat, arguments[0], (uint64_t)(uintptr_t)path,
                               (uint64_t)(uintptr_t)to, arguments[3], 0, 0);
}

// ---- Vectors

static int64_t call_with_vector(struct user_thread *thread, long number, enum hart_access access,
                                const uint64_t a[6])
{
    struct iovec vector[IOV_MAX];
    int rc = user_call_vector(thread, a[1], a[2], access, vector);

    return rc ? rc
              : user_host_call(thread, number, a[0], (uint64_t)(uintptr_t)vector, a[2], a[3], a[4],
                               a[5]);
}

int64_t user_readv(struct user_thread *thread, const uint64_t arguments[6])
{
    return call_with_vector(thread, SYS_readv, HART_STORE, arguments);
}

int64_t user_writev(struct user_thread *thread, const uint64_t arguments[6])
{
    return call_with_vector(thread, SYS_writev, HART_LOAD, arguments);
}

int64_t user_preadv(struct user_thread *thread, const uint64_t arguments[6])
{
    return call_with_vector(thread, SYS_preadv, HART_STORE, arguments);
}

int64_t user_pwritev(struct user_thread *thread, const uint64_t arguments[6])
{
    return call_with_vector(thread, SYS_pwritev, HART_LOAD, arguments);
}

int64_t user_preadv2(struct user_thread *thread, const uint64_t arguments[6])
{
    return call_with_vector(thread, SYS_preadv2, HART_STORE, arguments);
}

int64_t user_pwritev2(struct user_thread *thread, const uint64_t arguments[6])
{
    return call_with_vector(thread, SYS_pwritev2, HART_LOAD, arguments);
}

// Into a pipe, or out of it: which of both, the pipe's end says.
int64_t user_vmsplice(struct user_thread *thread, const uint64_t arguments[6])
{
    bool out = (fcntl((int)arguments[0], F_GETFL) & O_ACCMODE) == O_RDONLY;

    return call_with_vector(thread, SYS_vmsplice, out ? HART_STORE : HART_LOAD, arguments);
}
