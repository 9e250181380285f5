// SPDX-License-Identifier: BSD-2-Clause
// Inside the usernet room: libslirp as slirp.c wraps it for serve.c, TCP segments made one, and
// what is given up before the first frame.
#ifndef STRAKE_USERNET_INTERNAL_H
#define STRAKE_USERNET_INTERNAL_H

#include "usernet/usernet.h"

struct user_net;  // one network with one guest

struct user_net_events {
    // A frame for the guest. Called inside of libslirp: take it, do nothing else.
    void (*frame)(void *opaque, const void *frame, size_t bytes);
    // After one or more of them, and after everything else that libslirp did.
    void (*settled)(void *opaque);
    void *opaque;
};

BASE_NODISCARD int user_net_create(struct user_net **out, const struct usernet_forward *forwards,
                                   size_t forward_count, struct loop *loop,
                                   const struct user_net_events *events, struct error *err);
void user_net_destroy(struct user_net *net);  // NULL is ignored
// A frame from the guest, unchecked; user_net_settle is to follow one or more of them.
void user_net_input(struct user_net *net, const void *frame, size_t bytes);
void user_net_settle(struct user_net *net);

// Consecutive segments of a TCP connection as one large one (merge.c). Its packet is `packet`,
// `headers_bytes` of the headers after it, and the frames' payloads, which begin there too.
#define MERGE_HEADERS_BYTES_MAX (14u + 40u + 60u)
// Two of them fit into a window of 64 KiB, so that the guest works on one while the other is under
// way (docs/usernet.md).
#define MERGE_BYTES_MAX (32u << 10)

struct merge {
    struct virtio_net_header packet;
    uint8_t headers[MERGE_HEADERS_BYTES_MAX];
    uint8_t blanked[MERGE_HEADERS_BYTES_MAX];  // what all segments have in common
    bool ipv6, ended;                          // with a segment that must be the last
    size_t tcp_at, headers_bytes, segment_bytes, payload_bytes;
    uint32_t sequence_next;
};
_Static_assert(offsetof(struct merge, headers) == sizeof(struct virtio_net_header),
               "the headers of a packet are sent as one piece");

// Whether a frame is a whole segment of TCP.
bool merge_is_tcp(const uint8_t *frame, size_t bytes);
// False when the frame is no segment that another could follow, or the driver, which has accepted
// `offloads` (VIRTIO_NET_F_GUEST_TSO4, _TSO6), does not take large ones.
bool merge_begin(struct merge *merge, const uint8_t *frame, size_t bytes, uint64_t offloads);
// False when the frame does not continue what was begun.
bool merge_add(struct merge *merge, const uint8_t *frame, size_t bytes);
// Completes `packet` and `headers`. One of more than one segment.
void merge_end(struct merge *merge);

// Gives up what user mode needs no more once its ports are bound: root's identity, capabilities,
// and getting any of it back. What the host does not allow to be given up is kept.
void usernet_confine(void);

#endif
