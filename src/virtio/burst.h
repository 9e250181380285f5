// SPDX-License-Identifier: BSD-2-Clause
// burst: several reads or writes of a descriptor that does not block, one after the other, in one
// system call where the host has io_uring, and in one each where not. All are done when burst_run
// returns: nothing is ever under way. Loop thread only.
#ifndef STRAKE_VIRTIO_BURST_H
#define STRAKE_VIRTIO_BURST_H

#include <sys/uio.h>

#include "base/base.h"

struct burst;

enum burst_kind { BURST_READ, BURST_WRITE };

struct burst_op {
    const struct iovec *iov;
    unsigned count;
    ssize_t result;  // of readv or writev; a negative errno where it failed
};

// For up to `ops_max` at a time. NULL: no memory.
struct burst *burst_create(unsigned ops_max);
void burst_destroy(struct burst *burst);  // NULL is ignored
// Fills in the results.
void burst_run(struct burst *burst, int fd, enum burst_kind kind, struct burst_op *ops,
               unsigned count);

#endif
