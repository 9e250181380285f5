// SPDX-License-Identifier: BSD-2-Clause
// Framing of the messages of a handover: a header, payload and descriptors in one packet of a
// SOCK_SEQPACKET socket, so that there are no partial messages and no order between a message and
// its descriptors to keep.
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "monitor/handover_peer.h"

#define MAGIC 0x314f4853u  // "SHO1"

struct header {
    uint32_t magic;
    uint16_t type;
    uint16_t fd_count;
    uint32_t length_bytes;
};

union control {
    struct cmsghdr align;
    uint8_t bytes[CMSG_SPACE(PEER_FDS * sizeof(int))];
};

// Waits until `events` are there or the other end is gone. 0 or -ETIME.
static int await(int peer, short events, uint64_t deadline_ns)
{
    for (;;) {
        struct pollfd pollfd = {.fd = peer, .events = events};
        uint64_t now_ns = clock_monotonic_ns();
        uint64_t left_ms = now_ns < deadline_ns ? (deadline_ns - now_ns) / 1000000 + 1 : 0;
        int ready = poll(&pollfd, 1, (int)left_ms);
        if (ready > 0)
            return 0;
        if (ready < 0 && errno != EINTR)
            return -errno;
        if (left_ms == 0)
            return -ETIME;
    }
}

static uint64_t deadline(unsigned timeout_ms)
{
    return clock_monotonic_ns() + timeout_ms * 1000000ull;
}

static int try_send(int peer, const struct msghdr *message)
{
    ssize_t sent = sendmsg(peer, message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0)
        return 0;
    return errno == ECONNRESET ? -EPIPE : -errno;
}

int peer_send(int peer, enum peer_type type, const void *payload, size_t length_bytes,
              const int *fds, unsigned fd_count, unsigned timeout_ms)
{
    if (length_bytes > PEER_PAYLOAD_BYTES || fd_count > PEER_FDS)
        return -EMSGSIZE;
    struct header header = {.magic = MAGIC,
                            .type = (uint16_t)type,
                            .fd_count = (uint16_t)fd_count,
                            .length_bytes = (uint32_t)length_bytes};
    struct iovec iov[] = {{&header, sizeof(header)}, {(void *)payload, length_bytes}};
    union control control;
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = 2};
    if (fd_count) {
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        memcpy(CMSG_DATA(rights), fds, fd_count * sizeof(int));
    }
    uint64_t deadline_ns = deadline(timeout_ms);
    for (;;) {
        int rc = try_send(peer, &message);
        if (rc == -EAGAIN)
            rc = await(peer, POLLOUT, deadline_ns);
        else if (rc != -EINTR)
            return rc;
        if (rc < 0 && rc != -EINTR)
            return rc;
    }
}

static void take_fds(struct peer_message *message, struct msghdr *from)
{
    message->fd_count = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(from); c; c = CMSG_NXTHDR(from, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        // The control buffer has room for no more than PEER_FDS.
        unsigned count = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(message->fds, CMSG_DATA(c), count * sizeof(int));
        message->fd_count = count;
    }
}

void peer_message_close_fds(struct peer_message *message)
{
    for (unsigned i = 0; i < message->fd_count; i++)
        close(message->fds[i]);
    message->fd_count = 0;
}

static int try_receive(int peer, struct peer_message *message)
{
    struct header header;
    struct iovec iov[] = {{&header, sizeof(header)}, {message->payload, PEER_PAYLOAD_BYTES}};
    union control control;
    struct msghdr from = {.msg_iov = iov,
                          .msg_iovlen = 2,
                          .msg_control = &control,
                          .msg_controllen = sizeof(control)};
    const int flags = MSG_DONTWAIT | MSG_CMSG_CLOEXEC;
    ssize_t got = recvmsg(peer, &from, flags);
    // That the other end was closed with messages unread is told once, before what it sent last.
    if (got < 0 && errno == ECONNRESET)
        got = recvmsg(peer, &from, flags);
    if (got < 0)
        return errno == ECONNRESET ? -EPIPE : -errno;
    if (got == 0)
        return -EPIPE;
    take_fds(message, &from);
    if ((from.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) || (size_t)got < sizeof(header) ||
        header.magic != MAGIC || header.length_bytes != (size_t)got - sizeof(header) ||
        header.fd_count != message->fd_count) {
        peer_message_close_fds(message);
        return -EPROTO;
    }
    message->type = header.type;
    message->length_bytes = header.length_bytes;
    message->payload[message->length_bytes] = 0;
    return 0;
}

int peer_receive(int peer, struct peer_message *message, unsigned timeout_ms)
{
    uint64_t deadline_ns = deadline(timeout_ms);
    message->fd_count = 0;
    for (;;) {
        int rc = try_receive(peer, message);
        if (rc == -EAGAIN)
            rc = await(peer, POLLIN, deadline_ns);
        else if (rc != -EINTR)
            return rc;
        if (rc < 0 && rc != -EINTR)
            return rc;
    }
}
