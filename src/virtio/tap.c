// SPDX-License-Identifier: BSD-2-Clause
// tap: frames through a tap descriptor with IFF_VNET_HDR (Linux, Documentation/networking/tuntap).
// The kernel reads and writes the same header as the device does, checks what the guest says in it,
// and does the offloads, so a packet is handed on as it is.
#include <errno.h>
#include <linux/if_tun.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "virtio/burst.h"
#include "virtio/net_backend.h"

#ifndef TUN_F_USO4  // headers before Linux 6.2
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

struct tap {
    struct net_backend backend;
    int fd;
    bool listens;         // for packets
    bool gone;            // the interface has been deleted: a descriptor that is ready for ever
    bool drained;         // all that was in the tap has been taken
    unsigned asked, run;  // packets at a time; and since it was drained
    struct burst *burst;
    struct loop_watch *watch;
    struct net_backend_events events;
};

#define RUN_MIN 4u              // packets that make a run
#define LARGE_BYTES (8u << 10)  // of a packet

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
    struct tap *tap = BASE_CONTAINER_OF(backend, struct tap, backend);
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
    tap->drained = false;
}

static void watch(struct net_backend *backend, bool on)
{
    struct tap *tap = BASE_CONTAINER_OF(backend, struct tap, backend);

    on = on && !tap->gone;
    if (tap->listens == on)  // asked for after each batch; to the loop it is system calls
        return;
    tap->listens = on;
    loop_watch_set(tap->watch, on ? LOOP_READABLE : 0);
}

// What the kernel refuses (a header that makes no sense, an interface that is down, a full queue)
// is lost, as on a wire.
static unsigned send_packets(struct net_backend *backend, const struct virtio_chain *packets,
                             unsigned count)
{
    const struct tap *tap = BASE_CONTAINER_OF(backend, struct tap, backend);
    struct burst_op ops[NET_BATCH];

    for (unsigned i = 0; i < count; i++)
        ops[i] =
            (struct burst_op){.iov = packets[i].readable.iov, .count = packets[i].readable.count};
    burst_run(tap->burst, tap->fd, BURST_WRITE, ops, count);
    return count;
}

static void tap_gone(struct tap *tap, const char *why)
{
    tap->gone = true;
    log_line(LOG_ERROR, "cannot read from the tap: %s", why);
}

static void packet_take(struct net_inbox *inbox, unsigned from, size_t bytes)
{
    if (from != inbox->end)
        memcpy(inbox->packets[inbox->end], inbox->packets[from], bytes);
    inbox->lengths[inbox->end++] = bytes;
}

// How many packets to ask for at a time: one at first, more and more while there are as many, and
// after many as many the next time. Large ones are taken one at a time: a batch of them is out of
// the host's caches when it is copied to the guest, which costs more than the calls.
static void asked_adapt(struct tap *tap, unsigned taken, size_t bytes)
{
    bool all = taken < tap->asked;

    tap->drained = all && taken > 0;
    tap->run += taken;
    if (tap->run < RUN_MIN || bytes > LARGE_BYTES * taken)
        tap->asked = 1;
    else
        tap->asked = all ? tap->run : 2 * tap->asked;
    if (tap->asked > NET_BATCH)
        tap->asked = NET_BATCH;
    if (all)
        tap->run = 0;
}

// What the guest has no buffers for is, but for a batch, kept in the tap's queue, and dropped
// there.
static void receive(struct net_backend *backend, struct net_inbox *inbox)
{
    struct tap *tap = BASE_CONTAINER_OF(backend, struct tap, backend);
    struct iovec iov[NET_BATCH];
    struct burst_op ops[NET_BATCH];
    bool drained = tap->drained;
    size_t bytes = 0;

    inbox->first = inbox->end = 0;
    tap->drained = false;
    if (tap->gone || drained)  // what has come since is seen by the loop
        return;
    for (unsigned i = 0; i < tap->asked; i++) {
        iov[i] = (struct iovec){inbox->packets[i], sizeof(inbox->packets[i])};
        ops[i] = (struct burst_op){.iov = &iov[i], .count = 1};
    }
    burst_run(tap->burst, tap->fd, BURST_READ, ops, tap->asked);
    for (unsigned i = 0; i < tap->asked && !tap->gone; i++) {
        if (ops[i].result >= (ssize_t)sizeof(struct virtio_net_header))
            packet_take(inbox, i, (size_t)ops[i].result);
        else if (ops[i].result == 0 || (ops[i].result < 0 && ops[i].result != -EAGAIN))
            tap_gone(tap, ops[i].result ? strerror((int)-ops[i].result) : "closed");
        bytes += ops[i].result > 0 ? (size_t)ops[i].result : 0;
    }
    asked_adapt(tap, inbox->end, bytes);
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
    burst_destroy(tap->burst);
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
    char *end;

    if (uname(&host) < 0)
        return false;
    unsigned long major = strtoul(host.release, &end, 10);
    unsigned long minor = *end == '.' ? strtoul(end + 1, NULL, 10) : 0;
    return major > 6 || (major == 6 && minor >= 2);
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
    struct burst *burst = burst_create(NET_BATCH);
    if (!tap || !burst) {
        free(tap);
        burst_destroy(burst);
        return error_set_errno(err, -ENOMEM, "cannot use the tap");
    }
    *tap = (struct tap){
        .backend.ops = &tap_ops, .fd = fd, .events = *events, .asked = 1, .burst = burst};
    int failure = tap_prepare(tap, err);
    if (!failure) {
        failure = loop_watch_create(loop, fd, 0, readable, tap, &tap->watch);
        if (failure)
            error_set_errno(err, failure, "cannot watch the tap");
    }
    if (failure) {
        burst_destroy(burst);
        free(tap);
        return failure;
    }
    *out = &tap->backend;
    return 0;
}
