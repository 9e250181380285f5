// SPDX-License-Identifier: BSD-2-Clause
// serve: what the process does from its start to its end: packets between the socket and libslirp.
//
// Offloads: a frame does not leave this process as a frame, so one of 64 KiB is as good as one of
// 1500 bytes. The guest may leave segmentation (VIRTIO_NET_F_HOST_TSO) undone and checksums to us,
// where they are cheap. libslirp has computed the checksums of what it sends. Its TCP segments are
// merged for a driver that takes large ones (VIRTIO_NET_F_GUEST_TSO), of which the device tells us.
//
// To the guest: libslirp sends what its peers' windows allow, without asking. What the socket has
// no room for waits in the backlog, and what that has no room for is dropped. Connections wait for
// their peer and have little on the way, all else does not: that may not fill the backlog, so that
// a flood of datagrams does not stop connections.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "usernet/internal.h"

#define BATCH 32u          // packets a system call
#define BATCH_FRAMES 256u  // that they are made of at most
#define BACKLOG_MAX 1024u  // frames; a power of two
#define BACKLOG_OTHER_MAX (BACKLOG_MAX / 4 * 3)
// libslirp keeps to the usual MTU of 1500 bytes.
#define SLOT_BYTES (sizeof(struct virtio_net_header) + 14u + 1500u)

// Packets on their way into the socket, made of frames of the backlog.
struct batch {
    unsigned count, frames, iov_count;
    struct mmsghdr messages[BATCH];
    unsigned frames_of[BATCH];
    struct merge merges[BATCH];
    struct iovec iov[BATCH_FRAMES + BATCH];
};

struct server {
    int fd;
    struct loop *loop;
    struct loop_watch *watch;
    struct user_net *net;
    bool full;          // the socket
    uint64_t offloads;  // that the guest's driver has accepted (struct virtio_net_offloads)
    uint64_t dropped_frames;
    unsigned first, count;  // of the backlog
    uint16_t lengths[BACKLOG_MAX];
    uint8_t backlog[BACKLOG_MAX][SLOT_BYTES];
    struct batch batch;
    uint8_t inbox[BATCH][VIRTIO_NET_PACKET_BYTES_MAX];
};

// ---- To the guest -------------------------------------------------------------------------------

// The driver that does not know the flag does not get to see it (virtio/packet.c).
static void frame_to_guest(void *opaque, const void *frame, size_t bytes)
{
    static const struct virtio_net_header header = {.flags = VIRTIO_NET_HEADER_F_DATA_VALID};
    struct server *server = opaque;
    unsigned slot = (server->first + server->count) % BACKLOG_MAX;
    unsigned room = merge_is_tcp(frame, bytes) ? BACKLOG_MAX : BACKLOG_OTHER_MAX;

    if (bytes > SLOT_BYTES - sizeof(header) || server->count >= room) {
        server->dropped_frames++;
        return;
    }
    memcpy(server->backlog[slot], &header, sizeof(header));
    memcpy(server->backlog[slot] + sizeof(header), frame, bytes);
    server->lengths[slot] = sizeof(header) + bytes;
    server->count++;
}

static void full_set(struct server *server, bool full)
{
    if (server->full != full)
        loop_watch_set(server->watch, LOOP_READABLE | (full ? LOOP_WRITABLE : 0));
    server->full = full;
}

static const uint8_t *backlog_frame(const struct server *server, unsigned index, size_t *bytes)
{
    unsigned slot = (server->first + index) % BACKLOG_MAX;

    *bytes = server->lengths[slot] - sizeof(struct virtio_net_header);
    return server->backlog[slot] + sizeof(struct virtio_net_header);
}

// How many frames, from `index` on, are sent as one packet.
static unsigned frames_merge(const struct server *server, unsigned index, struct merge *merge)
{
    unsigned end = index + 1;
    size_t bytes;
    const uint8_t *frame = backlog_frame(server, index, &bytes);

    if (!merge_begin(merge, frame, bytes, server->offloads))
        return 1;
    for (; end < server->count && end < BATCH_FRAMES; end++) {
        frame = backlog_frame(server, end, &bytes);
        if (!merge_add(merge, frame, bytes))
            break;
    }
    return end - index;
}

static void iov_append(struct batch *batch, const void *base, size_t bytes)
{
    batch->iov[batch->iov_count++] = (struct iovec){(void *)base, bytes};
}

// Describes the frames from `batch->frames` on as a packet.
static void batch_append(struct batch *batch, const struct server *server)
{
    struct merge *merge = &batch->merges[batch->count];
    unsigned frames = frames_merge(server, batch->frames, merge);
    struct iovec *iov = &batch->iov[batch->iov_count];
    size_t bytes;

    if (frames == 1) {
        const uint8_t *frame = backlog_frame(server, batch->frames, &bytes);
        iov_append(batch, frame - sizeof(merge->packet), sizeof(merge->packet) + bytes);
    } else {
        merge_end(merge);
        iov_append(batch, merge, sizeof(merge->packet) + merge->headers_bytes);
        for (unsigned i = 0; i < frames; i++) {
            const uint8_t *frame = backlog_frame(server, batch->frames + i, &bytes);
            iov_append(batch, frame + merge->headers_bytes, bytes - merge->headers_bytes);
        }
    }
    batch->messages[batch->count].msg_hdr = (struct msghdr){
        .msg_iov = iov, .msg_iovlen = (size_t)(&batch->iov[batch->iov_count] - iov)};
    batch->frames_of[batch->count++] = frames;
    batch->frames += frames;
}

// Sends up to BATCH packets; returns how many frames of the backlog those were, or a negative
// errno.
static int backlog_send(struct server *server)
{
    struct batch *batch = &server->batch;
    int frames = 0;

    batch->count = batch->frames = batch->iov_count = 0;
    while (batch->count < BATCH && batch->frames < BATCH_FRAMES && batch->frames < server->count)
        batch_append(batch, server);
    int sent = sendmmsg(server->fd, batch->messages, batch->count, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0)
        return -errno;
    for (int i = 0; i < sent; i++)
        frames += (int)batch->frames_of[i];
    return frames;
}

// A failure other than a full socket is that of the other end, whose closing we are about to see,
// or want of memory: what was to be sent first is lost then.
static void backlog_flush(void *opaque)
{
    struct server *server = opaque;
    int sent = 0;

    while (server->count > 0 && sent != -EAGAIN) {
        sent = backlog_send(server);
        unsigned done = sent > 0                            ? (unsigned)sent
                        : sent == -EAGAIN || sent == -EINTR ? 0
                                                            : server->batch.frames_of[0];
        server->first = (server->first + done) % BACKLOG_MAX;
        server->count -= done;
    }
    full_set(server, server->count > 0);
}

// ---- From the guest -----------------------------------------------------------------------------

// Section 5.1.6.2: the field holds the sum of the pseudo header; add what follows `start` and put
// the complement there. False when header and frame do not fit together.
static bool checksum_complete(uint8_t *frame, size_t bytes, size_t start, size_t offset)
{
    uint64_t sum = 0;

    if (start > bytes || offset + 2 > bytes - start)
        return false;
    for (size_t i = start; i + 1 < bytes; i += 2)
        sum += (uint64_t)frame[i] << 8 | frame[i + 1];
    if ((bytes - start) % 2 != 0)
        sum += (uint64_t)frame[bytes - 1] << 8;
    while (sum > UINT16_MAX)
        sum = (sum & UINT16_MAX) + (sum >> 16);
    uint16_t checksum = ~sum;
    if (checksum == 0)
        checksum = UINT16_MAX;  // the same number; 0 in UDP says that there is none
    frame[start + offset] = checksum >> 8;
    frame[start + offset + 1] = checksum & 0xff;
    return true;
}

static void packet_from_guest(struct server *server, uint8_t *packet, size_t bytes)
{
    struct virtio_net_header header;
    uint8_t *frame = packet + sizeof(header);

    if (bytes == sizeof(struct virtio_net_offloads))
        memcpy(&server->offloads, packet, sizeof(server->offloads));
    if (bytes < sizeof(header))
        return;
    memcpy(&header, packet, sizeof(header));
    bytes -= sizeof(header);
    if (!(header.flags & VIRTIO_NET_HEADER_F_NEEDS_CSUM) ||
        checksum_complete(frame, bytes, header.csum_start, header.csum_offset))
        user_net_input(server->net, frame, bytes);
}

// One batch a turn; the loop comes back for more. An empty message is the end: the other end is
// closed.
static void packets_receive(struct server *server)
{
    struct mmsghdr messages[BATCH] = {0};
    struct iovec iov[BATCH];

    for (unsigned i = 0; i < BATCH; i++) {
        iov[i] = (struct iovec){server->inbox[i], sizeof(server->inbox[i])};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &iov[i], .msg_iovlen = 1};
    }
    int count = recvmmsg(server->fd, messages, BATCH, MSG_DONTWAIT, NULL);
    if (count < 0 && errno != EAGAIN && errno != EINTR)
        loop_stop(server->loop);
    for (int i = 0; i < count; i++) {
        if (messages[i].msg_len == 0) {
            loop_stop(server->loop);
            return;
        }
        packet_from_guest(server, server->inbox[i], messages[i].msg_len);
    }
    user_net_settle(server->net);
}

static void socket_event(void *opaque, unsigned events)
{
    struct server *server = opaque;

    if (server->full && (events & LOOP_WRITABLE))
        backlog_flush(server);
    if (events & LOOP_READABLE)
        packets_receive(server);
}

// ---- Start and end ------------------------------------------------------------------------------

static int server_start(struct server *server, const struct usernet_forward *forwards, size_t count,
                        struct error *err)
{
    const struct user_net_events events = {
        .frame = frame_to_guest, .settled = backlog_flush, .opaque = server};
    int failure = loop_create(&server->loop, err);

    if (failure)
        return failure;
    failure = loop_watch_create(server->loop, server->fd, LOOP_READABLE, socket_event, server,
                                &server->watch);
    if (failure)
        return error_set_errno(err, failure, "cannot watch the user network's socket");
    return user_net_create(&server->net, forwards, count, server->loop, &events, err);
}

static void server_end(struct server *server)
{
    if (server->dropped_frames > 0)
        log_line(LOG_INFO, "user network: %llu frames dropped, the guest did not take them in time",
                 (unsigned long long)server->dropped_frames);
    user_net_destroy(server->net);
    loop_watch_close(server->watch);
    if (server->loop)
        loop_destroy(server->loop);
    free(server);
}

// The first message through the socket is how the start went; packets follow.
static int answer_send(int fd, const struct error *err)
{
    return send(fd, err, sizeof(*err), MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int usernet_serve(int fd, const struct usernet_forward *forwards, size_t count)
{
    struct error err = {0};
    struct server *server = calloc(1, sizeof(*server));

    if (!server) {
        error_set_errno(&err, -ENOMEM, "cannot set up the user network");
        (void)answer_send(fd, &err);
        return err.code;
    }
    server->fd = fd;
    prctl(PR_SET_NAME, "strake-usernet");  // it was started as /proc/self/exe
    int failure = server_start(server, forwards, count, &err);
    if (!failure)
        usernet_confine();
    int unheard = answer_send(fd, &err);
    if (!failure && !unheard)
        loop_run(server->loop);
    server_end(server);
    return failure ? failure : unheard;
}
