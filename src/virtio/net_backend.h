// SPDX-License-Identifier: BSD-2-Clause
// net_backend: what carries the frames of a network device on the host, for net.c. One file a kind:
// tap.c, slirp.c. Loop thread only.
//
// A packet is a struct net_header and an Ethernet frame behind it, in both directions.
#ifndef STRAKE_VIRTIO_NET_BACKEND_H
#define STRAKE_VIRTIO_NET_BACKEND_H

#include "virtio/device.h"

// Section 5.1.3
#define VIRTIO_NET_F_CSUM (1ull << 0)
#define VIRTIO_NET_F_GUEST_CSUM (1ull << 1)
#define VIRTIO_NET_F_MAC (1ull << 5)
#define VIRTIO_NET_F_GUEST_TSO4 (1ull << 7)
#define VIRTIO_NET_F_GUEST_TSO6 (1ull << 8)
#define VIRTIO_NET_F_HOST_TSO4 (1ull << 11)
#define VIRTIO_NET_F_HOST_TSO6 (1ull << 12)
#define VIRTIO_NET_F_MRG_RXBUF (1ull << 15)
#define VIRTIO_NET_F_STATUS (1ull << 16)

// Section 5.1.6; with VIRTIO_F_VERSION_1 num_buffers is always there.
enum { NET_HEADER_F_NEEDS_CSUM = 1, NET_HEADER_F_DATA_VALID = 2 };
struct net_header {
    uint8_t flags, gso_type;
    uint16_t header_bytes, gso_bytes;
    uint16_t csum_start, csum_offset;
    uint16_t num_buffers;
};
_Static_assert(sizeof(struct net_header) == 12, "section 5.1.6");

// The largest segment that an IP header can describe, behind an Ethernet header with a VLAN tag.
#define NET_FRAME_BYTES_MAX (65535u + 18u)
#define NET_PACKET_BYTES_MAX (sizeof(struct net_header) + NET_FRAME_BYTES_MAX)

struct net_backend;

struct net_backend_ops {
    // The driver has taken the device, with these features. A stop follows before the next start.
    void (*start)(struct net_backend *backend, uint64_t features);
    // It has let go of it; packets that wait are dropped. Also without a start before.
    void (*stop)(struct net_backend *backend);
    // A packet from the guest, NET_PACKET_BYTES_MAX or less and at least a header. Contents are the
    // guest's and unchecked. What cannot be sent is dropped.
    void (*send)(struct net_backend *backend, const struct virtio_span *packet);
    // After one or more calls of send.
    void (*flush)(struct net_backend *backend);
    // The next packet for the guest; `capacity` is NET_PACKET_BYTES_MAX. Returns its length, or 0
    // when none waits.
    size_t (*receive)(struct net_backend *backend, uint8_t *packet, size_t capacity);
    // Whether to call `ready` when packets wait. Off at first.
    void (*watch)(struct net_backend *backend, bool on);
    void (*destroy)(struct net_backend *backend);
};

struct net_backend {
    const struct net_backend_ops *ops;
    uint64_t features;  // that the device may offer because of this backend
};

struct net_backend_events {
    void (*ready)(void *opaque);
    void *opaque;
};

// `fd` stays the caller's. A descriptor that is no tap but keeps the bounds of packets, one of a
// pair of SOCK_SEQPACKET or SOCK_DGRAM sockets, carries packets the same way, without offloads.
BASE_NODISCARD int net_tap_create(struct net_backend **out, int fd, struct loop *loop,
                                  const struct net_backend_events *events, struct error *err);
BASE_NODISCARD int net_slirp_create(struct net_backend **out,
                                    const struct virtio_net_forward *forwards, size_t forward_count,
                                    struct loop *loop, const struct net_backend_events *events,
                                    struct error *err);

#endif
