// SPDX-License-Identifier: BSD-2-Clause
// The guest channel (docs/guest-channel.md), from the guest's side.
#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <linux/vm_sockets.h>  // needs <sys/socket.h> before it

#include "resolve.h"
#include "update.h"

#define MAGIC 0x5354u

struct header {
    uint16_t magic, type;
    uint32_t length;
    uint64_t handle;
};

_Static_assert(sizeof(struct header) == 16, "the header as it is sent has no padding");

static int connect_socket(int family, const void *address, socklen_t bytes)
{
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd >= 0 && connect(fd, address, bytes)) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

static int connect_unix(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    return connect_socket(AF_UNIX, &address, sizeof(address));
}

static int connect_tcp(const char *host, struct fault *fault)
{
    const char *colon = strrchr(host, ':');
    char name[256];

    if (!colon)
        return fault_set(fault, OUTCOME_USAGE, "'%s' is no HOST:PORT", host);
    snprintf(name, sizeof(name), "%.*s", (int)(colon - host), host);
    return resolve_connect(name, colon + 1, fault);
}

int channel_open(struct channel *channel, const char *host, unsigned wait_s, struct fault *fault)
{
    struct sockaddr_vm address = {
        .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = CHANNEL_PORT};
    struct timeval silence = {.tv_sec = wait_s};

    *channel = (struct channel){.fd = -1, .wait_s = wait_s};
    if (!host)
        channel->fd = connect_socket(AF_VSOCK, &address, sizeof(address));
    else if (!strncmp(host, "unix:", 5))
        channel->fd = connect_unix(host + 5);
    else if (!strncmp(host, "tcp:", 4)) {
        if ((channel->fd = connect_tcp(host + 4, fault)) < 0) {
            fault->outcome = fault->outcome == OUTCOME_USAGE ? OUTCOME_USAGE : OUTCOME_NO_HOST;
            return -1;
        }
    } else
        return fault_set(fault, OUTCOME_USAGE, "'%s' is neither unix:PATH nor tcp:HOST:PORT", host);
    if (channel->fd < 0)
        return fault_system(fault, OUTCOME_NO_HOST,
                            "cannot reach Strake beneath this guest (a partition with --updates)");
    setsockopt(channel->fd, SOL_SOCKET, SO_RCVTIMEO, &silence, sizeof(silence));
    setsockopt(channel->fd, SOL_SOCKET, SO_SNDTIMEO, &silence, sizeof(silence));
    return 0;
}

void channel_close(struct channel *channel)
{
    if (channel->fd >= 0)
        close(channel->fd);
    channel->fd = -1;
}

static bool send_bytes(int fd, const void *bytes, size_t count)
{
    const char *from = bytes;

    while (count > 0) {
        ssize_t sent = send(fd, from, count, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            return false;
        from += sent;
        count -= (size_t)sent;
    }
    return true;
}

static bool receive_bytes(int fd, void *bytes, size_t count)
{
    char *to = bytes;

    while (count > 0) {
        ssize_t got = recv(fd, to, count, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        to += got;
        count -= (size_t)got;
    }
    return true;
}

static int lost(struct fault *fault, const char *why)
{
    return fault_set(fault, OUTCOME_NO_HOST, "the connection to Strake is lost: %s", why);
}

static int receive(struct channel *channel, struct fault *fault)
{
    struct channel_frame *frame = &channel->frame;
    struct header header;

    if (!receive_bytes(channel->fd, &header, sizeof(header)))
        return lost(fault, "it ended, or was silent for too long");
    frame->type = le16toh(header.type);
    frame->length = le32toh(header.length);
    frame->handle = le64toh(header.handle);
    if (le16toh(header.magic) != MAGIC || frame->length > CHANNEL_PAYLOAD_MAX)
        return lost(fault, "what answers does not keep to the protocol");
    if (!receive_bytes(channel->fd, frame->payload, frame->length))
        return lost(fault, "it ended in the middle of an answer");
    frame->payload[frame->length] = 0;
    return 0;
}

// The host's sentence, without what a terminal would take for a command.
static int refused(const struct channel_frame *frame, struct fault *fault)
{
    char text[400];

    if (frame->length < 4)
        return lost(fault, "what answers does not keep to the protocol");
    unsigned code = (unsigned char)frame->payload[0] | (unsigned)(unsigned char)frame->payload[1]
                                                           << 8;
    snprintf(text, sizeof(text), "%s", frame->payload + 4);
    for (char *at = text; *at; at++)
        if ((unsigned char)*at < 0x20 || *at == 0x7f)
            *at = ' ';
    fault_set(fault, OUTCOME_REFUSED, "Strake %s: %s (error %u)",
              code == REFUSAL_ROLLED_BACK ? "rolled the update back" : "refused", text, code);
    fault->refusal = code;
    return -1;
}

int channel_send(struct channel *channel, unsigned type, const void *payload, size_t count,
                 struct fault *fault)
{
    struct header header = {htole16(MAGIC), htole16((uint16_t)type), htole32((uint32_t)count),
                            htole64(channel->session)};

    if (send_bytes(channel->fd, &header, sizeof(header)) && send_bytes(channel->fd, payload, count))
        return 0;
    // A host that ends the connection says why, before.
    while (channel_ready(channel) && receive(channel, fault) == 0)
        if (channel->frame.type == CHANNEL_ERROR)
            return refused(&channel->frame, fault);
    return lost(fault, "it ended");
}

bool channel_ready(const struct channel *channel)
{
    struct pollfd ready = {.fd = channel->fd, .events = POLLIN};

    return poll(&ready, 1, 0) > 0;
}

static void show_progress(struct channel *channel, struct report *report)
{
    char doing[200];

    if (json_parse(&channel->json, channel->frame.payload, channel->frame.length) &&
        json_string(&channel->json, 0, "doing", doing, sizeof(doing)))
        report_line(report, "Strake: %s", doing);
}

int channel_answer(struct channel *channel, unsigned type, struct report *report,
                   struct fault *fault)
{
    const struct channel_frame *frame = &channel->frame;

    for (;;) {
        if (receive(channel, fault))
            return -1;
        if (frame->type == CHANNEL_ERROR)
            return refused(frame, fault);
        if (frame->type == type)
            break;
        if (frame->type == CHANNEL_PROGRESS)
            show_progress(channel, report);
        else if (frame->type != CHANNEL_WRITTEN)
            return lost(fault, "what answers does not keep to the protocol");
    }
    if (type == CHANNEL_WRITTEN
            ? frame->length != 8
            : frame->length > 0 && !json_parse(&channel->json, frame->payload, frame->length))
        return lost(fault, "what answers does not keep to the protocol");
    if (frame->length == 0)
        channel->json.count = 0;
    return 0;
}
