// SPDX-License-Identifier: BSD-2-Clause
// Clocks; reads and writes that do not stop halfway; files of memory.
#include <errno.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/base.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010u  // Linux 6.3
#endif

static uint64_t clock_read_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t clock_monotonic_ns(void)
{
    return clock_read_ns(CLOCK_MONOTONIC);
}

uint64_t clock_realtime_ns(void)
{
    return clock_read_ns(CLOCK_REALTIME);
}

enum transfer { TRANSFER_READ, TRANSFER_PREAD, TRANSFER_WRITE };

static int64_t fd_transfer(enum transfer kind, int fd, uint8_t *bytes, size_t count,
                           uint64_t offset)
{
    size_t done = 0;
    while (done < count) {
        ssize_t n = kind == TRANSFER_READ ? read(fd, bytes + done, count - done)
                    : kind == TRANSFER_PREAD
                        ? pread(fd, bytes + done, count - done, (off_t)(offset + done))
                        : write(fd, bytes + done, count - done);
        if (n == 0)
            break;
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n > 0)
            done += (size_t)n;
    }
    return (int64_t)done;
}

int64_t fd_read_full(int fd, void *bytes, size_t count)
{
    return fd_transfer(TRANSFER_READ, fd, bytes, count, 0);
}

int64_t fd_pread_full(int fd, void *bytes, size_t count, uint64_t offset)
{
    return fd_transfer(TRANSFER_PREAD, fd, bytes, count, offset);
}

int64_t fd_write_full(int fd, const void *bytes, size_t count)
{
    return fd_transfer(TRANSFER_WRITE, fd, (uint8_t *)bytes, count, 0);
}

int fd_program_create(void)
{
    int fd = memfd_create("strake", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);
    if (fd < 0 && errno == EINVAL)
        fd = memfd_create("strake", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    return fd < 0 ? -errno : fd;
}
