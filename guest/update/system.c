// SPDX-License-Identifier: BSD-2-Clause
// Files and programs. What is to outlive a crash is written beside its place, synced, and renamed.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <libgen.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "update.h"

int join(char path[PATH_BYTES], const char *folder, const char *name, struct fault *fault)
{
    const char *slash = *folder && folder[strlen(folder) - 1] == '/' ? "" : "/";

    if (snprintf(path, PATH_BYTES, "%s%s%s", folder, slash, name) >= (int)PATH_BYTES)
        return fault_set(fault, OUTCOME_FAILED, "cannot use '%.200s': the path is too long", name);
    return 0;
}

int make_folder(const char *path, struct fault *fault)
{
    if (mkdir(path, 0755) && errno != EEXIST)
        return fault_system(fault, OUTCOME_FAILED, "cannot make folder '%s'", path);
    return 0;
}

int make_folders(const char *path, struct fault *fault)
{
    char part[PATH_BYTES];

    for (const char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        snprintf(part, sizeof(part), "%.*s", (int)(slash - path), path);
        if (make_folder(part, fault))
            return -1;
    }
    return 0;
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *ftw)
{
    (void)status;
    (void)kind;
    (void)ftw;
    return remove(path) && errno != ENOENT;
}

int remove_tree(const char *path, struct fault *fault)
{
    struct stat status;

    if (lstat(path, &status) && errno == ENOENT)
        return 0;
    if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS))
        return fault_system(fault, OUTCOME_FAILED, "cannot remove '%s'", path);
    return 0;
}

int sync_folder(const char *path, struct fault *fault)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int failed = fd < 0 || fsync(fd);

    if (failed)
        fault_system(fault, OUTCOME_FAILED, "cannot write folder '%s' to the disk", path);
    if (fd >= 0)
        close(fd);
    return failed ? -1 : 0;
}

int sync_folder_of(const char *path, struct fault *fault)
{
    char copy[PATH_BYTES];

    snprintf(copy, sizeof(copy), "%s", path);
    return sync_folder(dirname(copy), fault);
}

int write_all(int fd, const void *bytes, size_t count)
{
    const char *from = bytes;

    while (count > 0) {
        ssize_t written = write(fd, from, count);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return -1;
        from += written;
        count -= (size_t)written;
    }
    return 0;
}

int file_begin(const char *path, unsigned mode, char beside[PATH_BYTES], struct fault *fault)
{
    if (snprintf(beside, PATH_BYTES, "%s.strake-new", path) >= (int)PATH_BYTES)
        return fault_set(fault, OUTCOME_FAILED, "cannot write '%.200s': the path is too long",
                         path);
    unlink(beside);
    int fd = open(beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 || fchmod(fd, mode)) {
        fault_system(fault, OUTCOME_FAILED, "cannot write '%s'", beside);
        if (fd >= 0)
            close(fd);
        return -1;
    }
    return fd;
}

int file_finish(int fd, bool written, const char *beside, const char *path, struct fault *fault)
{
    bool whole = written && fsync(fd) == 0;

    close(fd);
    if (whole && rename(beside, path) == 0)
        return sync_folder_of(path, fault);
    fault_system(fault, OUTCOME_FAILED, "cannot write '%s'", path);
    unlink(beside);
    return -1;
}

int write_file(const char *path, const void *bytes, size_t count, unsigned mode,
               struct fault *fault)
{
    char beside[PATH_BYTES];
    int fd = file_begin(path, mode, beside, fault);

    return fd < 0 ? -1 : file_finish(fd, write_all(fd, bytes, count) == 0, beside, path, fault);
}

static bool copy_bytes(int from, int to)
{
    char bytes[65536];
    ssize_t count;

    while ((count = read(from, bytes, sizeof(bytes))) > 0)
        if (write_all(to, bytes, (size_t)count))
            return false;
    return count == 0;
}

int copy_file(const char *from, const char *to, unsigned mode, struct fault *fault)
{
    char beside[PATH_BYTES];
    int source = open(from, O_RDONLY | O_CLOEXEC);

    if (source < 0)
        return fault_system(fault, OUTCOME_FAILED, "cannot read '%s'", from);
    int fd = file_begin(to, mode, beside, fault);
    int result = fd < 0 ? -1 : file_finish(fd, copy_bytes(source, fd), beside, to, fault);
    close(source);
    return result;
}

int read_file(const char *path, size_t max_bytes, struct buffer *buffer, struct fault *fault)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    char *bytes = malloc(max_bytes + 1);
    ssize_t got = -1;
    size_t used = 0;

    if (fd >= 0 && bytes)
        while ((got = read(fd, bytes + used, max_bytes + 1 - used)) > 0)
            used += (size_t)got;
    int error = errno;
    if (fd >= 0)
        close(fd);
    errno = error;
    if (got == 0 && used <= max_bytes) {
        *buffer = (struct buffer){bytes, used};
        return 0;
    }
    free(bytes);
    if (got > 0 || used > max_bytes)
        return fault_set(fault, OUTCOME_BAD_PACKAGE, "'%s' has more than %zu bytes", path,
                         max_bytes);
    return fault_system(fault, OUTCOME_FAILED, "cannot read '%s'", path);
}

// ---- Signals -----------------------------------------------------------------------------------

void hold_signals(bool held)
{
    sigset_t signals;

    sigemptyset(&signals);
    sigaddset(&signals, SIGHUP);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigprocmask(held ? SIG_BLOCK : SIG_UNBLOCK, &signals, NULL);
}

// A signal that is held takes effect now.
static void let_signals_in(void)
{
    sigset_t before, none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, &before);
    sigprocmask(SIG_SETMASK, &before, NULL);
}

// ---- Programs ----------------------------------------------------------------------------------

// A terminal's signals are for us, who hold them, and not for a dpkg at work. It gets none of our
// ways with signals.
static void become(const char *const *argv, int input, int output)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    setpgid(0, 0);
    signal(SIGPIPE, SIG_DFL);
    hold_signals(false);
    dup2(input < 0 ? null : input, 0);
    dup2(output < 0 ? null : output, 1);
    dup2(1, 2);
    execvp(argv[0], (char *const *)argv);
    _exit(127);
}

static pid_t start(const char *const *argv, int input, int output)
{
    pid_t child = fork();

    if (child == 0)
        become(argv, input, output);
    return child;
}

int wait_program(pid_t child)
{
    int status;

    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return -1;
    // Who ended it may mean us, too, as at a shutdown: then it has not failed, and is gone on with.
    if (WIFSIGNALED(status))
        let_signals_in();
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int run_program(const char *const *argv, int input, int output)
{
    pid_t child = start(argv, input, output);

    return child < 0 ? -1 : wait_program(child);
}

int start_program(const char *const *argv, int input, int *output, pid_t *child)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC))
        return -1;
    *child = start(argv, input, ends[1]);
    close(ends[1]);
    *output = ends[0];
    if (*child < 0)
        close(ends[0]);
    return *child < 0 ? -1 : 0;
}

bool have_program(const char *name)
{
    const char *folders = getenv("PATH");
    char path[PATH_BYTES];

    for (const char *at = folders ? folders : ""; *at;) {
        size_t length = strcspn(at, ":");
        snprintf(path, sizeof(path), "%.*s/%s", (int)length, at, name);
        if (length > 0 && access(path, X_OK) == 0)
            return true;
        at += length + (at[length] == ':');
    }
    return false;
}
