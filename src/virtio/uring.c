// SPDX-License-Identifier: BSD-2-Clause
// Rings that can do only what they are for.
#include "virtio/uring.h"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#define OPERATIONS_MAX 8u

static bool has_operations(struct io_uring *uring, const uint8_t *operations, size_t count)
{
    struct io_uring_probe *probe = io_uring_get_probe_ring(uring);
    bool all = probe;

    for (size_t i = 0; all && i < count; i++)
        all = io_uring_opcode_supported(probe, operations[i]);
    io_uring_free_probe(probe);
    return all;
}

// Debian 12's liburing declares functions for what is registered here, and does not export them.
static int restrict_to(struct io_uring *uring, const uint8_t *operations, size_t count)
{
    struct io_uring_restriction restrictions[OPERATIONS_MAX + 1] = {
        {.opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED, .sqe_flags = 0}};

    if (count > OPERATIONS_MAX || !has_operations(uring, operations, count))
        return -ENOSYS;
    for (size_t i = 0; i < count; i++)
        restrictions[i + 1] = (struct io_uring_restriction){.opcode = IORING_RESTRICTION_SQE_OP,
                                                            .sqe_op = operations[i]};
    return syscall(SYS_io_uring_register, uring->ring_fd, IORING_REGISTER_RESTRICTIONS,
                   restrictions, count + 1) < 0
               ? -errno
               : 0;
}

int uring_open(struct io_uring *uring, unsigned entries, const uint8_t *operations, size_t count)
{
    int failure = io_uring_queue_init(entries, uring, IORING_SETUP_R_DISABLED);
    if (failure)
        return failure;
    failure = restrict_to(uring, operations, count);
    if (failure)
        io_uring_queue_exit(uring);
    return failure;
}

int uring_enable(struct io_uring *uring)
{
    int rc =
        (int)syscall(SYS_io_uring_register, uring->ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
    return rc < 0 ? -errno : 0;
}
