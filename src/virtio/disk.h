// SPDX-License-Identifier: BSD-2-Clause
// disk: asynchronous I/O of one host file or block device, for blk.c: through io_uring, or done at
// once where there is none. Either way operations are collected by disk_submit, started by
// disk_kick, and answered by callbacks. Loop thread only.
#ifndef STRAKE_VIRTIO_DISK_H
#define STRAKE_VIRTIO_DISK_H

#include <sys/uio.h>

#include "virtio/virtio.h"

enum disk_kind {
    DISK_READ,
    DISK_WRITE,
    DISK_WRITE_DURABLE,  // completes when the data is on the disk
    DISK_FLUSH,          // fdatasync
    DISK_PUNCH,          // makes a hole that reads as zeros
    DISK_ZERO,           // zeros, space stays allocated
};

struct disk_op {
    enum disk_kind kind;
    unsigned iov_count;  // READ, WRITE
    struct iovec *iov;   // READ, WRITE; the caller's until the operation is done
    uint64_t offset_bytes;
    uint64_t length_bytes;  // PUNCH, ZERO
    uint64_t handle;        // handed to `done`: names the request, never a pointer to it
};

struct disk_events {
    // An operation ended: bytes moved (READ, WRITE; may be fewer than asked for), 0, or a negative
    // errno. May call disk_submit.
    void (*done)(void *opaque, uint64_t handle, int result);
    // After one or more calls of `done`.
    void (*settled)(void *opaque);
    void *opaque;
};

struct disk;

// `fd` stays the caller's. At most `ops_max` operations will be under way at once. -ENOSYS or what
// io_uring says when VIRTIO_BLK_AIO_URING was asked for and there is none; -ENOMEM.
BASE_NODISCARD int disk_open(struct disk **out, int fd, enum virtio_blk_aio aio, unsigned ops_max,
                             struct loop *loop, const struct disk_events *events,
                             struct error *err);
// While nothing is under way.
void disk_close(struct disk *disk);  // NULL is ignored
// Takes a copy.
void disk_submit(struct disk *disk, const struct disk_op *op);
void disk_kick(struct disk *disk);
// Starts and waits for everything, what `done` submits in the meantime included.
void disk_drain(struct disk *disk);

#endif
