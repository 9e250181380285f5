// SPDX-License-Identifier: BSD-2-Clause
// Programs that are to be monitors.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "supervisor/program.h"

#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

static int copy(int to_fd, int from_fd)
{
    struct stat stat;
    off_t at = 0;
    if (fstat(from_fd, &stat) < 0)
        return -errno;
    while (at < stat.st_size) {
        ssize_t n = sendfile(to_fd, from_fd, &at, (size_t)(stat.st_size - at));
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
    }
    return fcntl(to_fd, F_ADD_SEALS, SEALS) < 0 ? -errno : 0;
}

int program_seal(int fd, struct error *err)
{
    int seals = fcntl(fd, F_GET_SEALS);
    bool sealed = seals >= 0 && (seals & SEALS) == SEALS;
    int copy_fd = sealed ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : fd_program_create();
    int rc = copy_fd < 0 ? -errno : sealed ? 0 : copy(copy_fd, fd);
    if (rc == 0)
        return copy_fd;
    if (copy_fd >= 0)
        close(copy_fd);
    return error_set_errno(err, rc, "cannot copy the program to hand over to");
}

int program_of(pid_t pid, struct error *err)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/exe", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? error_set_errno(err, -errno, "cannot open the program that process %d runs",
                                    (int)pid)
                  : fd;
}
