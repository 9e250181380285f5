// SPDX-License-Identifier: BSD-2-Clause
// Files and folders, in the folder that it is started in.
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "check.h"

static void put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    check(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text), path);
    close(fd);
}

static bool holds(const char *path, const char *text)
{
    char bytes[256] = "";
    int fd = open(path, O_RDONLY);
    ssize_t count = fd < 0 ? -1 : read(fd, bytes, sizeof(bytes) - 1);
    close(fd);
    return count == (ssize_t)strlen(text) && memcmp(bytes, text, strlen(text)) == 0;
}

static void opening(void)
{
    int low = dup(0), fd;

    put("a", "text of a");
    check(holds("a", "text of a"), "what was written is read");
    close(low);
    fd = open("a", O_RDONLY | O_CLOEXEC);
    check(fd == low, "the lowest number that is free is taken");
    check(fcntl(fd, F_GETFD) == FD_CLOEXEC && (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY,
          "flags of the descriptor and of the file");
    close(fd);
    check(open("a", O_RDWR | O_CREAT | O_EXCL, 0600) == -1 && errno == EEXIST, "O_EXCL refuses");
    check(open("none", O_RDWR) == -1 && errno == ENOENT, "a file that is not there");
    check(open("a/b", O_RDONLY) == -1 && errno == ENOTDIR, "a file is no folder");
    check(open(".", O_RDWR) == -1 && errno == EISDIR, "a folder is not written");
    check(open(".", O_RDONLY | O_CREAT, 0600) == -1 && errno == EISDIR, "nor created");
    check(open("a", O_RDONLY | O_DIRECTORY) == -1 && errno == ENOTDIR, "O_DIRECTORY");
    check(open("a", -1) == -1, "flags that make no sense");
    fd = open(".", O_TMPFILE | O_RDWR, 0600);
    check(fd >= 0 && write(fd, "x", 1) == 1, "a file without a name");
    close(fd);
    umask(027);
    fd = open("masked", O_CREAT | O_WRONLY, 0777);
    struct stat status;
    check(fstat(fd, &status) == 0 && (status.st_mode & 07777) == 0750, "umask is heeded");
    close(fd);
    fd = open("masked", O_PATH);
    check(fd >= 0 && write(fd, "x", 1) == -1 && errno == EBADF, "O_PATH");
    check(dup2(fd, -1) == -1 && errno == EBADF, "-1 is no descriptor to have a copy");
    check(close(-1) == -1 && errno == EBADF, "nor to be closed");
    check(close_range(UINT_MAX, UINT_MAX, 0) == 0, "but the end of all");
    close(fd);
}

// Its descriptors are its own, and those of /proc/self are not.
static void *open_alone(void *unused)
{
    check(unshare(CLONE_FILES) == 0 && holds("a", "text of a"),
          "a thread with descriptors of its own opens a file");
    return unused;
}

static void alone(void)
{
    pthread_t thread;

    check(pthread_create(&thread, NULL, open_alone, NULL) == 0 && pthread_join(thread, NULL) == 0,
          "a thread");
}

static void created_through(const char *link, const char *file)
{
    int fd = open(link, O_WRONLY | O_CREAT, 0600);

    check(fd >= 0 && write(fd, "made", 4) == 4 && holds(file, "made"), "is created through");
    close(fd);
}

static void links_to_nothing(void)
{
    char elsewhere[64];

    check(symlink("made", "to-made") == 0, "a link to nothing");
    check(open("to-made", O_RDONLY) == -1 && errno == ENOENT, "is not read");
    check(open("to-made", O_WRONLY | O_CREAT | O_EXCL, 0600) == -1 && errno == EEXIST,
          "is not created as new");
    check(open("to-made", O_WRONLY | O_CREAT | O_NOFOLLOW, 0600) == -1 && errno == ELOOP,
          "nor with O_NOFOLLOW");
    created_through("to-made", "made");
    check(mkdir("links", 0755) == 0 && symlink("links/second", "first") == 0 &&
              symlink("../last", "links/second") == 0,
          "a link to a link to nothing, in another folder");
    created_through("first", "last");
    snprintf(elsewhere, sizeof(elsewhere), "/dev/shm/strake-test-%d", getpid());
    check(symlink(elsewhere, "elsewhere") == 0, "a link to nothing of another file system");
    created_through("elsewhere", elsewhere);
    check(unlink(elsewhere) == 0, "where it was made");
    check(symlink("none/file", "to-none") == 0 && open("to-none", O_WRONLY | O_CREAT, 0600) == -1 &&
              errno == ENOENT,
          "a link to no folder");
    struct open_how how = {.flags = O_WRONLY | O_CREAT, .mode = 0600, .resolve = RESOLVE_BENEATH};
    int in = open("links", O_PATH);
    check(symlink("../outside", "links/out") == 0 &&
              syscall(SYS_openat2, in, "out", &how, sizeof(how)) == -1 && errno == EXDEV,
          "a link out of what openat2 stays beneath");
    how.resolve = RESOLVE_IN_ROOT;
    int fd = (int)syscall(SYS_openat2, in, "out", &how, sizeof(how));
    check(fd >= 0 && access("links/outside", F_OK) == 0, "and within what is its root");
    close(fd);
    close(in);
    check(symlink("loop", "loop") == 0 && open("loop", O_RDONLY) == -1 && errno == ELOOP &&
              open("loop", O_WRONLY | O_CREAT, 0600) == -1 && errno == ELOOP,
          "a loop");
}

static void links(void)
{
    char text[64];

    check(symlink("a", "to-a") == 0 && readlink("to-a", text, sizeof(text)) == 1 && text[0] == 'a',
          "a symbolic link");
    check(holds("to-a", "text of a"), "it is followed");
    check(open("to-a", O_RDONLY | O_NOFOLLOW) == -1 && errno == ELOOP, "but not with O_NOFOLLOW");
    check(link("a", "a2") == 0 && holds("a2", "text of a"), "a hard link");
    struct stat one, two;
    check(stat("a", &one) == 0 && stat("a2", &two) == 0 && one.st_ino == two.st_ino &&
              one.st_nlink == 2,
          "is the same file");
    check(rename("a2", "a3") == 0 && holds("a3", "text of a") && access("a2", F_OK) == -1,
          "rename");
    check(syscall(SYS_renameat2, AT_FDCWD, "a3", AT_FDCWD, "a", RENAME_NOREPLACE) == -1 &&
              errno == EEXIST,
          "renameat2 does not replace");
    check(unlink("a3") == 0 && unlink("a3") == -1 && errno == ENOENT, "unlink");
}

static void metadata(void)
{
    struct stat status, other;
    struct statx more;
    struct statfs fs;
    const struct timespec times[2] = {{1000000000, 5}, {1234567890, 123456789}};

    check(chmod("a", 0640) == 0 && utimensat(AT_FDCWD, "a", times, 0) == 0, "chmod, utimensat");
    check(stat("a", &status) == 0 && S_ISREG(status.st_mode) && (status.st_mode & 0777) == 0640 &&
              status.st_size == 9 && status.st_nlink == 1 && status.st_uid == getuid() &&
              status.st_gid == getegid(),
          "stat: mode, size, links, owner");
    check(status.st_mtim.tv_sec == 1234567890 && status.st_mtim.tv_nsec == 123456789 &&
              status.st_atim.tv_sec == 1000000000 && status.st_atim.tv_nsec == 5,
          "stat: times");
    check(status.st_blksize >= 512 && status.st_blocks <= 64, "stat: blocks");
    check(statx(AT_FDCWD, "a", 0, STATX_ALL, &more) == 0 && more.stx_size == 9 &&
              more.stx_ino == status.st_ino &&
              makedev(more.stx_dev_major, more.stx_dev_minor) == status.st_dev &&
              more.stx_mtime.tv_nsec == 123456789,
          "statx says the same");
    int fd = open("a", O_RDONLY);
    check(fstat(fd, &other) == 0 && other.st_ino == status.st_ino && other.st_size == 9 &&
              other.st_ctim.tv_nsec == status.st_ctim.tv_nsec,
          "fstat says the same");
    check(fstatat(fd, "", &other, AT_EMPTY_PATH) == 0 && other.st_ino == status.st_ino,
          "and fstatat of a descriptor");
    check(futimens(fd, NULL) == 0 && fstat(fd, &other) == 0 && other.st_mtim.tv_sec > 1700000000,
          "times become now");
    close(fd);
    check(lstat("to-a", &other) == 0 && S_ISLNK(other.st_mode) && other.st_size == 1, "lstat");
    check(stat("/dev/null", &other) == 0 && S_ISCHR(other.st_mode) &&
              other.st_rdev == makedev(1, 3),
          "stat: devices");
    check(statfs(".", &fs) == 0 && fs.f_bsize >= 512 && fs.f_namelen >= 255, "statfs");
    check(access("a", R_OK | W_OK) == 0 &&
              faccessat(AT_FDCWD, "to-a", F_OK, AT_SYMLINK_NOFOLLOW) == 0,
          "access");
    check(chown("a", getuid(), getgid()) == 0 && lchown("to-a", -1, -1) == 0, "chown");
    check(truncate("a", 4) == 0 && holds("a", "text"), "truncate");
}

static void folders(void)
{
    unsigned count = 0, found = 0;
    char here[4096], there[4096];

    check(mkdir("folder", 0755) == 0 && mkdir("folder", 0755) == -1 && errno == EEXIST, "mkdir");
    for (int i = 0; i < 300; i++) {
        char name[64];
        snprintf(name, sizeof(name), "folder/file-with-a-longer-name-%d", i);
        close(open(name, O_CREAT | O_WRONLY, 0600));
    }
    DIR *folder = opendir("folder");
    struct dirent *entry;
    while (folder && (entry = readdir(folder))) {
        count++;
        found +=
            entry->d_type == DT_REG && strncmp(entry->d_name, "file-with-a-longer-name-", 24) == 0;
    }
    check(count == 302 && found == 300, "readdir finds all of 300 files");
    rewinddir(folder);
    check(readdir(folder) != NULL, "and starts again");
    closedir(folder);
    check(getcwd(here, sizeof(here)) && chdir("folder") == 0 && getcwd(there, sizeof(there)) &&
              strncmp(there, here, strlen(here)) == 0 &&
              strcmp(there + strlen(here), "/folder") == 0,
          "chdir and getcwd");
    check(getcwd(there, 3) == NULL && errno == ERANGE, "getcwd with too little room");
    int up = open("..", O_RDONLY | O_DIRECTORY);
    check(fchdir(up) == 0 && faccessat(up, "folder/file-with-a-longer-name-7", R_OK, 0) == 0,
          "fchdir, and paths relative to a folder");
    struct open_how how = {.flags = O_RDONLY, .resolve = RESOLVE_BENEATH};
    int in = open("folder", O_PATH);
    check(syscall(SYS_openat2, in, "../a", &how, sizeof(how)) == -1 && errno == EXDEV,
          "openat2 stays beneath");
    int fd = (int)syscall(SYS_openat2, in, "file-with-a-longer-name-7", &how, sizeof(how));
    check(fd >= 0, "openat2 opens");
    check(syscall(SYS_openat2, in, "x", &how, sizeof(how) - 1) == -1 && errno == EINVAL,
          "openat2 wants its structure");
    close(fd);
    close(in);
    check(rmdir("folder") == -1 && errno == ENOTEMPTY, "rmdir of a folder that is not empty");
    for (int i = 0; i < 300; i++) {
        char name[64];
        snprintf(name, sizeof(name), "folder/file-with-a-longer-name-%d", i);
        unlink(name);
    }
    check(unlinkat(up, "folder", AT_REMOVEDIR) == 0, "rmdir");
    close(up);
    check(mkfifo("fifo", 0600) == 0, "mkfifo");
}

static void attributes(void)
{
    char value[64] = "", list[256];

    if (setxattr("a", "user.one", "value", 5, 0) && errno == EOPNOTSUPP) {
        check(true, "attributes (the file system has none)");
        return;
    }
    check(getxattr("a", "user.one", value, sizeof(value)) == 5 && strcmp(value, "value") == 0,
          "an attribute");
    check(getxattr("a", "user.one", NULL, 0) == 5, "its length");
    check(listxattr("a", list, sizeof(list)) >= 9, "their list");
    check(removexattr("a", "user.one") == 0 && getxattr("a", "user.one", value, 1) == -1 &&
              errno == ENODATA,
          "removed");
}

static void vectors(void)
{
    char one[3] = "", two[5] = "", three[8] = "";
    struct iovec out[] = {{"ab", 2}, {NULL, 0}, {"cdefgh", 6}};
    struct iovec in[] = {{one, 2}, {two, 4}, {three, 7}};
    int fd = open("vectors", O_RDWR | O_CREAT, 0600);

    check(writev(fd, out, 3) == 8 && lseek(fd, 0, SEEK_SET) == 0, "writev");
    check(readv(fd, in, 3) == 8 && strcmp(one, "ab") == 0 && strcmp(two, "cdef") == 0 &&
              strcmp(three, "gh") == 0,
          "readv");
    check(pwritev(fd, out, 3, 100) == 8 && preadv(fd, in, 3, 102) == 6 && strcmp(one, "cd") == 0,
          "pwritev, preadv at a place");
    check(preadv2(fd, in, 3, 0, 0) == 13 && pwritev2(fd, out, 1, 0, RWF_DSYNC) == 2,
          "preadv2, pwritev2");
    check(pread(fd, three, 4, 100) == 4 && memcmp(three, "abcd", 4) == 0 &&
              pwrite(fd, "XY", 2, 101) == 2 && lseek(fd, 0, SEEK_CUR) == 8,
          "pread, pwrite leave the position");
    check(syscall(SYS_readv, fd, in, -1) == -1 && errno == EINVAL, "a vector's length is checked");
    in[1].iov_len = (size_t)-1;
    check(readv(fd, in, 3) == -1 && errno == EINVAL, "and its buffers'");
    check(posix_fallocate(fd, 0, 8192) == 0 && lseek(fd, 0, SEEK_END) == 8192, "fallocate");
    check(ftruncate(fd, 200) == 0 && lseek(fd, 0, SEEK_END) == 200, "ftruncate");
    check(fsync(fd) == 0 && fdatasync(fd) == 0 && posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM) == 0,
          "fsync, fdatasync, fadvise");
    close(fd);
}

static void moving(void)
{
    int ends[2], in = open("vectors", O_RDONLY), out = open("copy", O_RDWR | O_CREAT, 0600);
    char bytes[64] = "";
    off_t from = 100;
    loff_t place = 101;

    check(pipe2(ends, O_CLOEXEC) == 0 && fcntl(ends[0], F_GETPIPE_SZ) >= 4096, "a pipe");
    check(sendfile(out, in, &from, 4) == 4 && from == 104, "sendfile");
    check(copy_file_range(in, &place, out, NULL, 3, 0) == 3 && place == 104, "copy_file_range");
    check(pread(out, bytes, sizeof(bytes), 0) == 7 && memcmp(bytes, "aXYdXYd", 7) == 0,
          "have moved the bytes");
    place = 100;
    check(splice(in, &place, ends[1], NULL, 4, 0) == 4 && read(ends[0], bytes, 9) == 4 &&
              memcmp(bytes, "aXYd", 4) == 0,
          "splice");
    struct iovec vector[] = {{"vm", 2}, {"splice", 6}};
    check(vmsplice(ends[1], vector, 2, 0) == 8 && read(ends[0], bytes, 64) == 8 &&
              memcmp(bytes, "vmsplice", 8) == 0,
          "vmsplice");
    close(ends[0]);
    close(ends[1]);
    close(in);
    close(out);
    int memory = memfd_create("memory", MFD_ALLOW_SEALING);
    check(memory >= 0 && write(memory, "x", 1) == 1 &&
              fcntl(memory, F_ADD_SEALS, F_SEAL_WRITE) == 0 && write(memory, "x", 1) == -1 &&
              errno == EPERM,
          "a sealed memfd");
    close(memory);
}

static void locks(void)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 5, .l_len = 10};
    int fd = open("a", O_RDWR), status = 0;

    check(fcntl(fd, F_SETLK, &lock) == 0, "a lock");
    pid_t child = fork();
    if (child == 0) {
        struct flock other = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 20};
        _exit(fcntl(fd, F_GETLK, &other) == 0 && other.l_type == F_WRLCK && other.l_start == 5 &&
                      other.l_len == 10 && other.l_pid == getppid() &&
                      fcntl(fd, F_SETLK, &other) == -1
                  ? 7
                  : 8);
    }
    check(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7,
          "another process sees it");
    lock.l_type = F_UNLCK;
    check(fcntl(fd, F_SETLKW, &lock) == 0, "unlocked");
    lock.l_type = F_RDLCK;
    lock.l_pid = 0;
    check(fcntl(fd, F_OFD_SETLK, &lock) == 0, "a lock of an open file");
    check(flock(fd, LOCK_EX | LOCK_NB) == 0 && flock(fd, LOCK_UN) == 0, "flock");
    check(fcntl(fd, 9999, 0) == -1 && errno == EINVAL, "a command that fcntl does not know");
    close(fd);
}

static void watching(void)
{
    char bytes[4096];
    int fd = inotify_init1(IN_NONBLOCK), watch = inotify_add_watch(fd, ".", IN_CREATE | IN_DELETE);

    check(fd >= 0 && watch > 0 && read(fd, bytes, sizeof(bytes)) == -1 && errno == EAGAIN,
          "inotify");
    put("watched", "x");
    ssize_t count = read(fd, bytes, sizeof(bytes));
    const struct inotify_event *event = (const struct inotify_event *)bytes;
    check(count > 0 && event->mask == IN_CREATE && strcmp(event->name, "watched") == 0,
          "tells of a new file");
    check(inotify_rm_watch(fd, watch) == 0, "until it is told not to");
    close(fd);
}

int main(void)
{
    opening();
    alone();
    links();
    links_to_nothing();
    metadata();
    folders();
    attributes();
    vectors();
    moving();
    locks();
    watching();
    return check_done();
}
