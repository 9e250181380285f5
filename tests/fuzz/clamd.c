// SPDX-License-Identifier: BSD-2-Clause
// Fuzz target for what a scanner in a guest answers: the input is its bytes, after two that say how
// long the file is that it is given, and whether it goes on listening. Only an answer that says so
// is one that says that the file is clean; what was found is printable.
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "leverage/clamd.h"
#include "replay.h"

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

#define PATIENCE_NS 10000000000u

// Whether "OK" is where the verdict of the first answer is.
static bool says_ok(const uint8_t *bytes, size_t count)
{
    const uint8_t *end = count ? memchr(bytes, 0, count) : NULL;
    return end && end - bytes >= 2 && memcmp(end - 2, "OK", 2) == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    struct clamd clamd = {.cancel_fd = -1};
    char signature[CLAMD_SIGNATURE_BYTES] = "";
    int ends[2], file = memfd_create("file", MFD_CLOEXEC);
    if (count < 2)
        return close(file);
    MUST(file >= 0 && ftruncate(file, 256 * bytes[0]) == 0);
    MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
    clamd.fd = ends[0];
    if (count > 2)
        MUST(send(ends[1], bytes + 2, count - 2, MSG_NOSIGNAL) == (ssize_t)(count - 2));
    shutdown(ends[1], bytes[1] & 1 ? SHUT_RDWR : SHUT_WR);
    int rc = clamd_scan(&clamd, file, clock_monotonic_ns() + PATIENCE_NS, signature);
    MUST(rc != CLAMD_CLEAN || says_ok(bytes + 2, count - 2));
    MUST(rc <= CLAMD_TOO_LARGE && rc != -ETIMEDOUT && rc != -EIO);
    MUST(memchr(signature, 0, sizeof(signature)));
    for (const char *c = signature; *c; c++)
        MUST(*c >= 0x20 && *c <= 0x7e);
    clamd_close(&clamd);
    close(ends[1]);
    return close(file);
}
