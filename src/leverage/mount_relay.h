// SPDX-License-Identifier: BSD-2-Clause
// mount_relay: what the host's kernel asks of a FUSE file system goes to a guest, and its replies
// come back. Private to this room; the kind `mount` uses it.
//
// On both sides requests and replies have the kernel's own form (linux/fuse.h) and say themselves
// how long they are, so that the relay moves bytes, counts, and looks at nothing but the headers;
// it refuses ioctls itself. What it takes from the guest it gives to the kernel, which trusts no
// server of a file system; but for notifications, by which a server tells the kernel to do things
// (and can hold up who delivers them): those end here.
#ifndef STRAKE_LEVERAGE_MOUNT_RELAY_H
#define STRAKE_LEVERAGE_MOUNT_RELAY_H

#include "leverage/interceptor.h"

struct mount_relay;

struct mount_relay_events {
    // The guest has agreed with the kernel on how they talk: the mount can be used.
    void (*ready)(void *opaque);
    // It is over, and both descriptors are closed: `err` is NULL when the kernel has no use for the
    // file system any more (it was unmounted), else what the guest did. Nothing is called after
    // this; mount_relay_destroy, not from here.
    void (*ended)(void *opaque, const struct error *err);
};

// Both descriptors become the relay's, also on failure: `fuse_fd` is /dev/fuse (or a socket that
// keeps the bounds of messages), `guest_fd` a stream. A guest from which nothing comes for
// `silence_ms` is given up. 0 or -ENOMEM.
BASE_NODISCARD int mount_relay_create(struct mount_relay **out, struct loop *loop, int fuse_fd,
                                      int guest_fd, unsigned silence_ms,
                                      struct interceptor_counters *counters,
                                      const struct mount_relay_events *events, void *opaque);
// Closes both: whoever waits for the file system gets an error. NULL is ignored.
void mount_relay_destroy(struct mount_relay *relay);

#endif
