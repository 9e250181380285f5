// SPDX-License-Identifier: BSD-2-Clause
// Two back ends behind one table: io_uring, and plain system calls made by disk_kick.
#include "virtio/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "virtio/uring.h"

struct backend {
    void (*submit)(struct disk *disk, const struct disk_op *op);
    void (*kick)(struct disk *disk);
    void (*drain)(struct disk *disk);
};

struct disk {
    const struct backend *backend;
    int fd;
    struct disk_events events;
    unsigned under_way;  // submitted and not done

    // uring
    struct io_uring uring;
    int event_fd;  // io_uring says here that completions have come
    struct loop_watch *watch;

    // sync: operations that wait for the kick, first in, first out
    struct disk_op *waiting;
    unsigned capacity, first;
};

static const int fallocate_modes[] = {
    [DISK_PUNCH] = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
    [DISK_ZERO] = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
};

static void op_done(struct disk *disk, uint64_t handle, int result)
{
    disk->under_way--;
    disk->events.done(disk->events.opaque, handle, result);
}

// ---- Plain system calls ------------------------------------------------------------------------

static ssize_t op_call(int fd, const struct disk_op *op)
{
    switch (op->kind) {
    case DISK_READ:
        return preadv(fd, op->iov, (int)op->iov_count, (off_t)op->offset_bytes);
    case DISK_WRITE:
        return pwritev(fd, op->iov, (int)op->iov_count, (off_t)op->offset_bytes);
    case DISK_WRITE_DURABLE:
        return pwritev2(fd, op->iov, (int)op->iov_count, (off_t)op->offset_bytes, RWF_DSYNC);
    case DISK_FLUSH:
        return fdatasync(fd);
    default:
        return fallocate(fd, fallocate_modes[op->kind], (off_t)op->offset_bytes,
                         (off_t)op->length_bytes);
    }
}

static void sync_submit(struct disk *disk, const struct disk_op *op)
{
    disk->waiting[(disk->first + disk->under_way++) % disk->capacity] = *op;
}

static void sync_kick(struct disk *disk)
{
    if (disk->under_way == 0)
        return;
    while (disk->under_way > 0) {
        struct disk_op op = disk->waiting[disk->first];
        disk->first = (disk->first + 1) % disk->capacity;
        ssize_t result = op_call(disk->fd, &op);
        op_done(disk, op.handle, result < 0 ? -errno : (int)result);
    }
    disk->events.settled(disk->events.opaque);
}

static const struct backend sync_backend = {
    .submit = sync_submit,
    .kick = sync_kick,
    .drain = sync_kick,
};

// ---- io_uring ----------------------------------------------------------------------------------

static void uring_prepare(struct io_uring_sqe *sqe, int fd, const struct disk_op *op)
{
    switch (op->kind) {
    case DISK_READ:
        io_uring_prep_readv(sqe, fd, op->iov, op->iov_count, op->offset_bytes);
        break;
    case DISK_WRITE:
        io_uring_prep_writev(sqe, fd, op->iov, op->iov_count, op->offset_bytes);
        break;
    case DISK_WRITE_DURABLE:
        io_uring_prep_writev2(sqe, fd, op->iov, op->iov_count, op->offset_bytes, RWF_DSYNC);
        break;
    case DISK_FLUSH:
        io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
        break;
    default:
        io_uring_prep_fallocate(sqe, fd, fallocate_modes[op->kind], (off_t)op->offset_bytes,
                                (off_t)op->length_bytes);
    }
}

// The submission queue has an entry for each operation that may be under way, so there is one.
static void uring_submit(struct disk *disk, const struct disk_op *op)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&disk->uring);
    uring_prepare(sqe, disk->fd, op);
    io_uring_sqe_set_data64(sqe, op->handle);
    disk->under_way++;
}

static bool uring_reap(struct disk *disk)
{
    struct io_uring_cqe *cqe;
    bool any = false;

    while (io_uring_peek_cqe(&disk->uring, &cqe) == 0) {
        uint64_t handle = io_uring_cqe_get_data64(cqe);
        int result = cqe->res;
        io_uring_cqe_seen(&disk->uring, cqe);
        op_done(disk, handle, result);
        any = true;
    }
    if (any)
        disk->events.settled(disk->events.opaque);
    return any;
}

// What the page cache holds is complete when submit returns, hence the reaping here. Where the
// kernel did not take everything (it is short of memory), the watch is made to try again.
static void uring_kick(struct disk *disk)
{
    do {
        if (io_uring_sq_ready(&disk->uring) > 0)
            io_uring_submit(&disk->uring);
    } while (uring_reap(disk));
    if (io_uring_sq_ready(&disk->uring) > 0)
        eventfd_write(disk->event_fd, 1);
}

static void uring_drain(struct disk *disk)
{
    while (disk->under_way > 0) {
        io_uring_submit_and_wait(&disk->uring, 1);
        uring_reap(disk);
    }
}

static void uring_event(void *opaque, unsigned events)
{
    struct disk *disk = opaque;
    eventfd_t count;

    (void)events;
    eventfd_read(disk->event_fd, &count);
    uring_kick(disk);
}

static const struct backend uring_backend = {
    .submit = uring_submit,
    .kick = uring_kick,
    .drain = uring_drain,
};

static int uring_wire(struct disk *disk, struct loop *loop)
{
    disk->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (disk->event_fd < 0)
        return -errno;
    int failure = io_uring_register_eventfd(&disk->uring, disk->event_fd);
    if (!failure)
        failure =
            loop_watch_create(loop, disk->event_fd, LOOP_READABLE, uring_event, disk, &disk->watch);
    if (failure)
        close(disk->event_fd);
    return failure;
}

static int ring_open(struct disk *disk, unsigned ops_max, struct loop *loop)
{
    static const uint8_t operations[] = {IORING_OP_READV, IORING_OP_WRITEV, IORING_OP_FSYNC,
                                         IORING_OP_FALLOCATE};
    int failure = uring_open(&disk->uring, ops_max, operations, BASE_COUNT_OF(operations));
    if (failure)
        return failure;
    failure = uring_wire(disk, loop);
    if (!failure && (failure = uring_enable(&disk->uring))) {
        loop_watch_close(disk->watch);
        close(disk->event_fd);
    }
    if (failure) {
        io_uring_queue_exit(&disk->uring);
        return failure;
    }
    disk->backend = &uring_backend;
    return 0;
}

static void uring_close(struct disk *disk)
{
    loop_watch_close(disk->watch);
    io_uring_queue_exit(&disk->uring);
    close(disk->event_fd);
}

// ---- Either ------------------------------------------------------------------------------------

static int sync_open(struct disk *disk, unsigned ops_max)
{
    disk->waiting = calloc(ops_max, sizeof(*disk->waiting));
    if (!disk->waiting)
        return -ENOMEM;
    disk->capacity = ops_max;
    disk->backend = &sync_backend;
    return 0;
}

int disk_open(struct disk **out, int fd, enum virtio_blk_aio aio, unsigned ops_max,
              struct loop *loop, const struct disk_events *events, struct error *err)
{
    struct disk *disk = calloc(1, sizeof(*disk));
    if (!disk)
        return error_set_errno(err, -ENOMEM, "setting up disk I/O");
    disk->fd = fd;
    disk->events = *events;
    // io_uring would answer what is not in the page cache with EAGAIN, for ever. And what passes
    // the page cache by could reach guest memory and disk after the process has ended, when another
    // monitor does the requests again: see tests/unit/virtio_handover_killed.c.
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~(O_NONBLOCK | O_DIRECT));

    int failure = aio == VIRTIO_BLK_AIO_SYNC ? -ENOSYS : ring_open(disk, ops_max, loop);
    if (failure && aio != VIRTIO_BLK_AIO_URING)
        failure = sync_open(disk, ops_max);
    if (failure) {
        free(disk);
        return error_set_errno(err, failure, "setting up disk I/O");
    }
    *out = disk;
    return 0;
}

void disk_close(struct disk *disk)
{
    if (!disk)
        return;
    if (disk->backend == &uring_backend)
        uring_close(disk);
    free(disk->waiting);
    free(disk);
}

void disk_submit(struct disk *disk, const struct disk_op *op)
{
    disk->backend->submit(disk, op);
}

void disk_kick(struct disk *disk)
{
    disk->backend->kick(disk);
}

void disk_drain(struct disk *disk)
{
    disk->backend->drain(disk);
}
