// SPDX-License-Identifier: BSD-2-Clause
// uring: what users of io_uring in this room have in common.
#ifndef STRAKE_VIRTIO_URING_H
#define STRAKE_VIRTIO_URING_H

#include <liburing.h>

#include "base/base.h"

// Sets up a ring of `entries` that does these operations (IORING_OP_...) and nothing else, whoever
// gets hold of it: what a ring can do goes past the filter on system calls. Nothing is submitted
// before uring_enable. 0, or a negative errno (-ENOSYS: the host has not all of them).
BASE_NODISCARD int uring_open(struct io_uring *uring, unsigned entries, const uint8_t *operations,
                              size_t count);
BASE_NODISCARD int uring_enable(struct io_uring *uring);

#endif
