// SPDX-License-Identifier: BSD-2-Clause
// stream: what programs that pass bytes on share.
#ifndef STRAKE_GUEST_STREAM_H
#define STRAKE_GUEST_STREAM_H

#include <stdbool.h>
#include <unistd.h>

// False: nobody takes them any more.
static inline bool write_all(int fd, const char *bytes, size_t count)
{
    while (count > 0) {
        ssize_t written = write(fd, bytes, count);
        if (written <= 0)
            return false;
        bytes += written;
        count -= (size_t)written;
    }
    return true;
}

#endif
