// SPDX-License-Identifier: BSD-2-Clause
// clamd: a scanner's side of files: clamd's own protocol (clamd(8)), and the one request to the
// guest's agent that carries too much for a message. Private to this room.
//
// Threads: calls block, so they are for threads of their own; one connection belongs to one thread.
// All end at their deadline, or as soon as `cancel_fd` (-1: none) becomes readable: -ECANCELED.
#ifndef STRAKE_LEVERAGE_CLAMD_H
#define STRAKE_LEVERAGE_CLAMD_H

#include "base/base.h"

#define CLAMD_PORT 3310u
#define CLAMD_SIGNATURE_BYTES 128u

// Where something listens: at a port of the guest whose host's end of vsock is `path`; port 0: at
// the Unix socket `path` itself.
struct clamd_address {
    const char *path;
    uint32_t port;
};

// A connection. Zero-initialised but for fd, which is -1.
struct clamd {
    int fd;
    int cancel_fd;
    unsigned scans;  // since it was made
};

enum clamd_verdict { CLAMD_CLEAN, CLAMD_FOUND, CLAMD_TOO_LARGE };

// Connects and begins a session. 0, -ECONNREFUSED (nobody listens), -ETIMEDOUT, or what connect(2)
// says.
BASE_NODISCARD int clamd_open(struct clamd *clamd, const struct clamd_address *address,
                              uint64_t deadline_ns);
void clamd_close(struct clamd *clamd);

// Has the content of `file` scanned; `signature` is what was found, printable. Returns a verdict,
// or: -EIO, the file cannot be read; -EPROTO, -ECONNRESET, -EPIPE, -ETIMEDOUT: the connection is
// of no use any more; -EREMOTEIO: the scanner could not (`signature` says why), and the connection
// is of no use either.
BASE_NODISCARD int clamd_scan(struct clamd *clamd, int file, uint64_t deadline_ns,
                              char signature[CLAMD_SIGNATURE_BYTES]);

// Whether somebody answers there, on a connection of its own. 0 or as clamd_open.
BASE_NODISCARD int clamd_ping(const struct clamd_address *address, int cancel_fd,
                              uint64_t deadline_ns);

// Asks the agent at `address`: the request's line (with its newline), and after its answer sends
// what is in `payload` (-1: nothing) from its start, which is answered, too. 0, -EREMOTEIO when the
// agent says that it cannot (*err says why), or another error.
BASE_NODISCARD int clamd_ask_agent(const struct clamd_address *address, const char *line,
                                   int payload, int cancel_fd, uint64_t deadline_ns,
                                   struct error *err);

#endif
