// SPDX-License-Identifier: BSD-2-Clause
// With a ring, operations are done in their order, within the call that submits them: RWF_NOWAIT
// has those fail that would wait. (O_NONBLOCK does not: the ring itself would wait then.) A ring
// that fails once is given up, and what it has not done is done without.
#include "virtio/burst.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "virtio/uring.h"

#define NOT_DONE (-EINPROGRESS)
#define RING_MIN 4u  // operations from which on a ring costs less than calls

struct burst {
    bool has_ring;
    struct io_uring ring;
};

struct burst *burst_create(unsigned ops_max)
{
    static const uint8_t operations[] = {IORING_OP_READV, IORING_OP_WRITEV};
    struct burst *burst = calloc(1, sizeof(*burst));

    if (!burst || uring_open(&burst->ring, ops_max, operations, BASE_COUNT_OF(operations)))
        return burst;
    burst->has_ring = uring_enable(&burst->ring) == 0;
    if (!burst->has_ring)
        io_uring_queue_exit(&burst->ring);
    return burst;
}

void burst_destroy(struct burst *burst)
{
    if (burst && burst->has_ring)
        io_uring_queue_exit(&burst->ring);
    free(burst);
}

static unsigned reap(struct burst *burst, struct burst_op *ops)
{
    struct io_uring_cqe *cqe;
    unsigned head, count = 0;

    io_uring_for_each_cqe(&burst->ring, head, cqe)
    {
        ops[io_uring_cqe_get_data64(cqe)].result = cqe->res;
        count++;
    }
    io_uring_cq_advance(&burst->ring, count);
    return count;
}

static void ring_run(struct burst *burst, int fd, enum burst_kind kind, struct burst_op *ops,
                     unsigned count)
{
    int rc = 0;

    for (unsigned i = 0; i < count; i++) {
        struct io_uring_sqe *sqe = io_uring_get_sqe(&burst->ring);
        if (kind == BURST_READ)
            io_uring_prep_readv2(sqe, fd, ops[i].iov, ops[i].count, 0, RWF_NOWAIT);
        else
            io_uring_prep_writev2(sqe, fd, ops[i].iov, ops[i].count, 0, RWF_NOWAIT);
        io_uring_sqe_set_data64(sqe, i);
    }
    for (unsigned done = 0; done < count && (rc >= 0 || rc == -EINTR); done += reap(burst, ops))
        rc = io_uring_submit_and_wait(&burst->ring, count - done);
    if ((rc >= 0 || rc == -EINTR) && ops[0].result != -EOPNOTSUPP)
        return;
    burst->has_ring = false;
    io_uring_queue_exit(&burst->ring);
}

static ssize_t call(int fd, enum burst_kind kind, const struct burst_op *op)
{
    ssize_t count;

    do
        count = kind == BURST_READ ? readv(fd, op->iov, (int)op->count)
                                   : writev(fd, op->iov, (int)op->count);
    while (count < 0 && errno == EINTR);
    return count < 0 ? -errno : count;
}

void burst_run(struct burst *burst, int fd, enum burst_kind kind, struct burst_op *ops,
               unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        ops[i].result = NOT_DONE;
    if (burst->has_ring && count >= RING_MIN)
        ring_run(burst, fd, kind, ops, count);
    for (unsigned i = 0; i < count; i++)
        if (ops[i].result == NOT_DONE || ops[i].result == -EOPNOTSUPP)
            ops[i].result = call(fd, kind, &ops[i]);
}
