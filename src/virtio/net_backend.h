// SPDX-License-Identifier: BSD-2-Clause
// net_backend: what carries the packets of a network device on the host, for net.c. One file a
// kind: tap.c, packet.c (sockets). Loop thread only. virtio.h says what a packet is.
//
// A backend keeps no packet: what it has taken from the host is in the device's inbox, and what the
// device has got rid of is the host's. So a backend has no state to be saved.
#ifndef STRAKE_VIRTIO_NET_BACKEND_H
#define STRAKE_VIRTIO_NET_BACKEND_H

#include "virtio/device.h"

// Section 5.1.3; GUEST_TSO4 and GUEST_TSO6 are in virtio.h.
#define VIRTIO_NET_F_CSUM (1ull << 0)
#define VIRTIO_NET_F_GUEST_CSUM (1ull << 1)
#define VIRTIO_NET_F_MAC (1ull << 5)
#define VIRTIO_NET_F_GUEST_ECN (1ull << 9)
#define VIRTIO_NET_F_HOST_TSO4 (1ull << 11)
#define VIRTIO_NET_F_HOST_TSO6 (1ull << 12)
#define VIRTIO_NET_F_HOST_ECN (1ull << 13)
#define VIRTIO_NET_F_MRG_RXBUF (1ull << 15)
#define VIRTIO_NET_F_STATUS (1ull << 16)
#define VIRTIO_NET_F_CTRL_VQ (1ull << 17)
#define VIRTIO_NET_F_CTRL_RX (1ull << 18)
#define VIRTIO_NET_F_MQ (1ull << 22)
#define VIRTIO_NET_F_CTRL_MAC_ADDR (1ull << 23)
#define VIRTIO_NET_F_GUEST_USO4 (1ull << 54)
#define VIRTIO_NET_F_GUEST_USO6 (1ull << 55)
#define VIRTIO_NET_F_HOST_USO (1ull << 56)

#define NET_BATCH 32u  // packets that go through one call

// Packets from the host, on their way to the guest.
struct net_inbox {
    uint8_t (*packets)[VIRTIO_NET_PACKET_BYTES_MAX];  // NET_BATCH of them
    size_t lengths[NET_BATCH];                        // a header or more
    unsigned first, end;
};

struct net_backend;

struct net_backend_ops {
    // The driver has taken the device, with these features.
    void (*start)(struct net_backend *backend, uint64_t features);
    // Packets from the guest, NET_BATCH at most, each VIRTIO_NET_PACKET_BYTES_MAX or less and at
    // least a header. Contents are the guest's and unchecked. Returns how many have been taken;
    // what cannot be sent ever is taken and dropped. When fewer than `count`, `room` comes later.
    unsigned (*send)(struct net_backend *backend, const struct virtio_chain *packets,
                     unsigned count);
    // Puts packets that wait into the inbox, which is empty, from its start.
    void (*receive)(struct net_backend *backend, struct net_inbox *inbox);
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
    void (*room)(void *opaque);
    void *opaque;
};

// `fd` stays the caller's.
BASE_NODISCARD int net_tap_create(struct net_backend **out, int fd, struct loop *loop,
                                  const struct net_backend_events *events, struct error *err);
BASE_NODISCARD int net_packet_create(struct net_backend **out, int fd, struct loop *loop,
                                     const struct net_backend_events *events, struct error *err);
// Whether the descriptor keeps the bounds of packets without being a tap.
bool net_packet_is_socket(int fd);

#endif
