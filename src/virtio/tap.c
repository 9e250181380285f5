// SPDX-License-Identifier: BSD-2-Clause
// tap: frames through a tap descriptor with IFF_VNET_HDR (Linux, Documentation/networking/tuntap).
// The kernel reads and writes the same header as the device does, checks what the guest says in it,
// and does the offloads, so a packet is handed on as it is.
#include <errno.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "virtio/net_backend.h"

#ifndef TUN_F_USO4  // headers before Linux 6.2
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

struct tap {
    struct net_backend backend;
    int fd;
    bool gone;  // the interface has been deleted: a descriptor that is ready for ever
    struct loop_watch *watch;
    struct net_backend_events events;
};

// What the kernel may leave to the guest when it hands over a packet, and the feature that says so.
static const struct {
    uint64_t feature;
    unsigned offload;
} guest_offloads[] = {
    {VIRTIO_NET_F_GUEST_CSUM, TUN_F_CSUM}, {VIRTIO_NET_F_GUEST_TSO4, TUN_F_TSO4},
    {VIRTIO_NET_F_GUEST_TSO6, TUN_F_TSO6}, {VIRTIO_NET_F_GUEST_ECN, TUN_F_TSO_ECN},
    {VIRTIO_NET_F_GUEST_USO4, TUN_F_USO4}, {VIRTIO_NET_F_GUEST_USO6, TUN_F_USO6},
};

#define TAP_FEATURES                                                                               \
    (VIRTIO_NET_F_CSUM | VIRTIO_NET_F_HOST_TSO4 | VIRTIO_NET_F_HOST_TSO6 | VIRTIO_NET_F_HOST_ECN | \
     VIRTIO_NET_F_GUEST_CSUM | VIRTIO_NET_F_GUEST_TSO4 | VIRTIO_NET_F_GUEST_TSO6 |                 \
     VIRTIO_NET_F_GUEST_ECN)
#define USO_FEATURES (VIRTIO_NET_F_GUEST_USO4 | VIRTIO_NET_F_GUEST_USO6 | VIRTIO_NET_F_HOST_USO)

#define USO (TUN_F_USO4 | TUN_F_USO6)  // the kernel knows them only together

static void start(struct net_backend *backend, uint64_t features)
{
    const struct tap *tap = BASE_CONTAINER_OF(backend, struct tap, backend);
    unsigned long offloads = 0;

    for (size_t i = 0; i < BASE_COUNT_OF(guest_offloads); i++)
        if (features & guest_offloads[i].feature)
            offloads |= guest_offloads[i].offload;
    // The kernel refuses all of what makes no sense (section 5.1.3.1).
    if (!(offloads & (TUN_F_TSO4 | TUN_F_TSO6)))
        offloads &= ~(unsigned long)TUN_F_TSO_ECN;
    if ((offloads & USO) != USO)
        offloads &= ~(unsigned long)USO;
    if (!(offloads & TUN_F_CSUM))
        offloads = 0;
    ioctl(tap->fd, TUNSETOFFLOAD, offloads);  // fails only where the interface is gone
}

static void watch(struct net_backend *backend, bool on)
{
    struct tap *tap = BASE_CONTAINER_OF(backend, struct tap, backend);
    loop_watch_set(tap->watch, on && !tap->gone ? LOOP_READABLE : 0);
}

// What the kernel refuses (a header that makes no sense, an interface that is down, a full queue)
// is lost, as on a wire.
static unsigned send_packets(struct net_backend *backend, const struct virtio_chain *packets,
                             unsigned count)
{
    const struct tap *tap = BASE_CONTAINER_OF(backend, struct tap, backend);

    for (unsigned i = 0; i < count; i++) {
        const struct virtio_span *packet = &packets[i].readable;
        ssize_t sent;
        do
            sent = writev(tap->fd, packet->iov, (int)packet->count);
        while (sent < 0 && errno == EINTR);
    }
    return count;
}

// One at a time: what the guest has no buffers for is kept in the tap's queue, and dropped there.
static void receive(struct net_backend *backend, struct net_inbox *inbox)
{
    struct tap *tap = BASE_CONTAINER_OF(backend, struct tap, backend);
    ssize_t count;

    inbox->first = inbox->end = 0;
    if (tap->gone)
        return;
    do
        count = read(tap->fd, inbox->packets[0], sizeof(inbox->packets[0]));
    while (count < 0 && errno == EINTR);
    if (count == 0 || (count < 0 && errno != EAGAIN)) {
        tap->gone = true;
        log_line(LOG_ERROR, "cannot read from the tap: %s", count ? strerror(errno) : "closed");
    }
    if (count >= (ssize_t)sizeof(struct virtio_net_header))
        inbox->lengths[inbox->end++] = count;
}

static void readable(void *opaque, unsigned events)
{
    const struct tap *tap = opaque;

    (void)events;
    tap->events.ready(tap->events.opaque);
}

static void destroy(struct net_backend *backend)
{
    struct tap *tap = BASE_CONTAINER_OF(backend, struct tap, backend);
    loop_watch_close(tap->watch);
    free(tap);
}

static const struct net_backend_ops tap_ops = {
    .start = start,
    .send = send_packets,
    .receive = receive,
    .watch = watch,
    .destroy = destroy,
};

// Segmentation of UDP came with Linux 6.2. Trying would change what a former monitor has set.
static bool kernel_segments_udp(void)
{
    struct utsname host;
    unsigned major, minor;

    return uname(&host) == 0 && sscanf(host.release, "%u.%u", &major, &minor) == 2 &&
           (major > 6 || (major == 6 && minor >= 2));
}

// Makes headers as long as the device's. Nothing else is done to the tap: at a handover a former
// monitor uses it still, and may go on. Who opened it has switched offloads off; whatever has vnet
// headers has them.
static int tap_prepare(struct tap *tap, struct error *err)
{
    int header_bytes = sizeof(struct virtio_net_header);

    if (ioctl(tap->fd, TUNSETVNETHDRSZ, &header_bytes) < 0)
        return error_set_errno(err, -errno, "cannot use the tap");
    tap->backend.features = TAP_FEATURES;
    if (kernel_segments_udp())
        tap->backend.features |= USO_FEATURES;
    return 0;
}

int net_tap_create(struct net_backend **out, int fd, struct loop *loop,
                   const struct net_backend_events *events, struct error *err)
{
    struct tap *tap = calloc(1, sizeof(*tap));
    if (!tap)
        return error_set_errno(err, -ENOMEM, "cannot use the tap");
    *tap = (struct tap){.backend.ops = &tap_ops, .fd = fd, .events = *events};
    int failure = tap_prepare(tap, err);
    if (failure) {
        free(tap);
        return failure;
    }
    failure = loop_watch_create(loop, fd, 0, readable, tap, &tap->watch);
    if (failure) {
        free(tap);
        return error_set_errno(err, failure, "cannot watch the tap");
    }
    *out = &tap->backend;
    return 0;
}
