// SPDX-License-Identifier: BSD-2-Clause
// Clocks, and reads and writes that do not stop halfway.
#include <errno.h>
#include <time.h>
#include <unistd.h>

#include "base/base.h"

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
