// SPDX-License-Identifier: BSD-2-Clause
// packet: frames through one of a pair of packet sockets (virtio.h says what the other end does).
// Many packets go through one system call. When the socket is full the guest's packets stay where
// they are until there is room again: nothing is lost between the two ends.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "virtio/net_backend.h"

struct packet {
    struct net_backend backend;
    struct net_backend_events events;
    int fd;
    struct loop_watch *watch;
    bool listens;  // for packets
    bool full;
    bool gone;               // nobody holds the other end: a descriptor that is ready for ever
    bool checksums_skipped;  // VIRTIO_NET_F_GUEST_CSUM
    uint64_t offloads;       // what the driver has accepted of LARGE_PACKETS
    bool untold;             // the other end has not heard of them
};

#define LARGE_PACKETS (VIRTIO_NET_F_GUEST_TSO4 | VIRTIO_NET_F_GUEST_TSO6)

static void watch_renew(const struct packet *packet)
{
    unsigned events = 0;

    if (packet->listens)
        events |= LOOP_READABLE;
    if (packet->full)
        events |= LOOP_WRITABLE;
    loop_watch_set(packet->watch, packet->gone ? 0 : events);
}

static void full_set(struct packet *packet, bool full)
{
    packet->full = full;
    watch_renew(packet);
}

// Without room in the socket it is said when there is some.
static void offloads_tell(struct packet *packet)
{
    const struct virtio_net_offloads message = {packet->offloads};
    ssize_t sent = send(packet->fd, &message, sizeof(message), MSG_DONTWAIT | MSG_NOSIGNAL);

    packet->untold = sent < 0 && errno == EAGAIN;
    if (packet->untold)
        full_set(packet, true);
}

// Section 5.1.3.1: the driver cannot take large packets if it does not complete checksums.
static void start(struct net_backend *backend, uint64_t features)
{
    struct packet *packet = BASE_CONTAINER_OF(backend, struct packet, backend);
    uint64_t told = packet->offloads;

    packet->checksums_skipped = features & VIRTIO_NET_F_GUEST_CSUM;
    packet->offloads = packet->checksums_skipped ? features & LARGE_PACKETS : 0;
    if (packet->offloads != told)
        offloads_tell(packet);
}

static void watch(struct net_backend *backend, bool on)
{
    struct packet *packet = BASE_CONTAINER_OF(backend, struct packet, backend);

    if (packet->listens == on)
        return;
    packet->listens = on;
    watch_renew(packet);
}

// Without the other end, or without memory in the host, packets are lost, as on a wire.
static unsigned send_packets(struct net_backend *backend, const struct virtio_chain *packets,
                             unsigned count)
{
    struct packet *packet = BASE_CONTAINER_OF(backend, struct packet, backend);
    struct mmsghdr messages[NET_BATCH] = {0};
    unsigned taken = 0;

    for (unsigned i = 0; i < count; i++)
        messages[i].msg_hdr = (struct msghdr){.msg_iov = packets[i].readable.iov,
                                              .msg_iovlen = packets[i].readable.count};
    while (taken < count) {
        int sent =
            sendmmsg(packet->fd, messages + taken, count - taken, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            full_set(packet, true);
            break;
        }
        if (sent >= 0 || errno != EINTR)
            taken += sent > 0 ? sent : 1;
    }
    return taken;
}

static void end_of_packets(struct packet *packet, const char *why)
{
    packet->gone = true;
    watch_renew(packet);
    log_line(LOG_ERROR, "a network device's other end is gone: %s", why);
}

// A large packet may come that was under way when another driver took the device.
static bool packet_acceptable(const struct packet *packet, const struct virtio_net_header *header)
{
    switch (header->gso_type) {
    case 0:
        return true;
    case VIRTIO_NET_HEADER_GSO_TCPV4:
        return packet->offloads & VIRTIO_NET_F_GUEST_TSO4;
    case VIRTIO_NET_HEADER_GSO_TCPV6:
        return packet->offloads & VIRTIO_NET_F_GUEST_TSO6;
    default:
        return false;
    }
}

// Section 5.1.6.4.1: the flags are 0 unless the driver knows them. What is shorter than a header is
// no packet.
static void packet_take(const struct packet *packet, struct net_inbox *inbox, unsigned from,
                        size_t bytes)
{
    struct virtio_net_header header;

    if (bytes < sizeof(header))
        return;
    memcpy(&header, inbox->packets[from], sizeof(header));
    if (!packet_acceptable(packet, &header))
        return;
    if (from != inbox->end)
        memcpy(inbox->packets[inbox->end], inbox->packets[from], bytes);
    if (!packet->checksums_skipped)
        header.flags = 0;
    memcpy(inbox->packets[inbox->end], &header, sizeof(header));
    inbox->lengths[inbox->end++] = bytes;
}

static void receive(struct net_backend *backend, struct net_inbox *inbox)
{
    struct packet *packet = BASE_CONTAINER_OF(backend, struct packet, backend);
    struct mmsghdr messages[NET_BATCH] = {0};
    struct iovec iov[NET_BATCH];
    int count;

    inbox->first = inbox->end = 0;
    if (packet->gone)
        return;
    for (unsigned i = 0; i < NET_BATCH; i++) {
        iov[i] = (struct iovec){inbox->packets[i], sizeof(inbox->packets[i])};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &iov[i], .msg_iovlen = 1};
    }
    do
        count = recvmmsg(packet->fd, messages, NET_BATCH, MSG_DONTWAIT, NULL);
    while (count < 0 && errno == EINTR);
    if (count < 0 && errno != EAGAIN)
        end_of_packets(packet, strerror(errno));
    for (int i = 0; i < count && !packet->gone; i++) {
        if (messages[i].msg_len == 0)
            end_of_packets(packet, "closed");
        packet_take(packet, inbox, i, messages[i].msg_len);
    }
}

static void socket_event(void *opaque, unsigned events)
{
    struct packet *packet = opaque;

    if (packet->full && (events & LOOP_WRITABLE)) {
        full_set(packet, false);
        if (packet->untold)
            offloads_tell(packet);
        packet->events.room(packet->events.opaque);
    }
    if (packet->listens && (events & LOOP_READABLE))
        packet->events.ready(packet->events.opaque);
}

static void destroy(struct net_backend *backend)
{
    struct packet *packet = BASE_CONTAINER_OF(backend, struct packet, backend);
    loop_watch_close(packet->watch);
    free(packet);
}

static const struct net_backend_ops packet_ops = {
    .start = start,
    .send = send_packets,
    .receive = receive,
    .watch = watch,
    .destroy = destroy,
};

static int socket_type(int fd)
{
    int type;
    socklen_t length = sizeof(type);
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) == 0 ? type : -1;
}

bool net_packet_is_socket(int fd)
{
    int type = socket_type(fd);
    return type == SOCK_SEQPACKET || type == SOCK_DGRAM;
}

int net_packet_create(struct net_backend **out, int fd, struct loop *loop,
                      const struct net_backend_events *events, struct error *err)
{
    struct packet *packet = calloc(1, sizeof(*packet));
    if (!packet)
        return error_set_errno(err, -ENOMEM, "cannot use the network socket");
    *packet = (struct packet){.backend.ops = &packet_ops, .fd = fd, .events = *events};
    if (socket_type(fd) == SOCK_SEQPACKET)
        packet->backend.features = VIRTIO_NET_F_CSUM | VIRTIO_NET_F_GUEST_CSUM |
                                   VIRTIO_NET_F_HOST_TSO4 | VIRTIO_NET_F_HOST_TSO6 | LARGE_PACKETS;
    int failure = loop_watch_create(loop, fd, 0, socket_event, packet, &packet->watch);
    if (failure) {
        free(packet);
        return error_set_errno(err, failure, "cannot watch the network socket");
    }
    *out = &packet->backend;
    return 0;
}
