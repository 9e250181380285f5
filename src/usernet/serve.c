// SPDX-License-Identifier: BSD-2-Clause
// serve: what the process does from its start to its end: packets between the socket and libslirp.
//
// Offloads: a frame does not leave this process as a frame, so one of 64 KiB is as good as one of
// 1500 bytes. The guest may leave segmentation (VIRTIO_NET_F_HOST_TSO) undone and checksums to us,
// where they are cheap. libslirp has computed the checksums of what it sends.
//
// To the guest: libslirp sends what its peers' windows allow, without asking. What the socket has
// no room for waits in the backlog, and what that has no room for is dropped.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "usernet/internal.h"

#define BATCH 32u          // packets a system call
#define BACKLOG_MAX 1024u  // frames; a power of two
// libslirp keeps to the usual MTU of 1500 bytes.
#define SLOT_BYTES (sizeof(struct virtio_net_header) + 14u + 1500u)

struct server {
    int fd;
    struct loop *loop;
    struct loop_watch *watch;
    struct user_net *net;
    bool full;  // the socket
    uint64_t dropped_frames;
    unsigned first, count;  // of the backlog
    uint16_t lengths[BACKLOG_MAX];
    uint8_t backlog[BACKLOG_MAX][SLOT_BYTES];
    uint8_t inbox[BATCH][VIRTIO_NET_PACKET_BYTES_MAX];
};

// ---- To the guest -------------------------------------------------------------------------------

// The driver that does not know the flag does not get to see it (virtio/packet.c).
static void frame_to_guest(void *opaque, const void *frame, size_t bytes)
{
    static const struct virtio_net_header header = {.flags = VIRTIO_NET_HEADER_F_DATA_VALID};
    struct server *server = opaque;
    unsigned slot = (server->first + server->count) % BACKLOG_MAX;

    if (bytes > SLOT_BYTES - sizeof(header) || server->count == BACKLOG_MAX) {
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

// Sends up to BATCH frames of the backlog; returns how many, or a negative errno.
static int backlog_send(struct server *server)
{
    struct mmsghdr messages[BATCH] = {0};
    struct iovec iov[BATCH];
    unsigned count = server->count < BATCH ? server->count : BATCH;

    for (unsigned i = 0; i < count; i++) {
        unsigned slot = (server->first + i) % BACKLOG_MAX;
        iov[i] = (struct iovec){server->backlog[slot], server->lengths[slot]};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &iov[i], .msg_iovlen = 1};
    }
    int sent = sendmmsg(server->fd, messages, count, MSG_DONTWAIT | MSG_NOSIGNAL);
    return sent < 0 ? -errno : sent;
}

// A failure other than a full socket is that of the other end, whose closing we are about to see,
// or want of memory: the frame is lost then.
static void backlog_flush(void *opaque)
{
    struct server *server = opaque;
    int sent = 0;

    while (server->count > 0 && sent != -EAGAIN) {
        sent = backlog_send(server);
        unsigned done = sent > 0 ? sent : sent == -EAGAIN || sent == -EINTR ? 0 : 1;
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
