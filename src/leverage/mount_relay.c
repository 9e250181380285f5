// SPDX-License-Identifier: BSD-2-Clause
// Between /dev/fuse and a guest: two buffers, and when to wait for which side.
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "leverage/mount_relay.h"

// The most that a request or a reply carries (the server's DATA_MAX), with headers and names.
#define MESSAGE_MAX ((1u << 20) + (64u << 10))
#define BUFFER_BYTES (4u * MESSAGE_MAX)
#define ASKED_MAX 4096u  // requests under way whose time is taken
#define TICK_MS 1000u

static const char no_agreement[] = "the guest does not agree with the kernel on how they talk";

// Bytes in the order they came, moved to the front when there is no room behind them.
struct buffer {
    uint8_t *bytes;
    size_t start, end;
};

struct mount_relay {
    struct loop *loop;
    int fuse_fd, guest_fd;
    struct loop_watch *fuse_watch, *guest_watch;
    struct buffer requests;  // to the guest
    struct buffer replies;   // from it
    bool ready, over;
    unsigned silence_ms;
    struct loop_timer *timer;
    uint64_t heard_ns;  // of the guest, last
    struct {
        uint64_t unique, since_ns;
    } asked[ASKED_MAX];  // by their numbers, which the kernel counts up
    struct interceptor_counters *counters;
    const struct mount_relay_events *events;
    void *opaque;
};

// Closing /dev/fuse is what gives an error to all who wait for the file system.
static void let_go(struct mount_relay *relay)
{
    loop_watch_close(relay->fuse_watch);
    loop_watch_close(relay->guest_watch);
    loop_timer_close(relay->timer);
    relay->fuse_watch = relay->guest_watch = NULL;
    relay->timer = NULL;
    close(relay->fuse_fd);
    close(relay->guest_fd);
}

static void end(struct mount_relay *relay, const struct error *err)
{
    if (relay->over)
        return;
    relay->over = true;
    let_go(relay);
    relay->events->ended(relay->opaque, err);
}

static void end_with(struct mount_relay *relay, int code, const char *text)
{
    struct error err;
    error_set(&err, code, "%s", text);
    end(relay, &err);
}

// ---- Counting -----------------------------------------------------------------------------------

static bool is_answered(uint32_t opcode)
{
    return opcode != FUSE_FORGET && opcode != FUSE_BATCH_FORGET && opcode != FUSE_INTERRUPT;
}

static void count_request(struct mount_relay *relay, const struct fuse_in_header *header)
{
    if (!is_answered(header->opcode))
        return;
    size_t slot = header->unique / 2 % ASKED_MAX;
    relay->asked[slot].unique = header->unique;
    relay->asked[slot].since_ns = clock_monotonic_ns();
    counter_add(&relay->counters->seen, 1);
}

static void count_reply(struct mount_relay *relay, uint64_t unique)
{
    size_t slot = unique / 2 % ASKED_MAX;
    counter_add(&relay->counters->returned, 1);
    if (relay->asked[slot].unique != unique)
        return;
    relay->asked[slot].unique = 0;
    counters_latency(relay->counters, clock_monotonic_ns() - relay->asked[slot].since_ns);
}

// ---- To the guest -------------------------------------------------------------------------------

static size_t room(struct buffer *buffer)
{
    if (buffer->start == buffer->end)
        buffer->start = buffer->end = 0;
    if (BUFFER_BYTES - buffer->end < MESSAGE_MAX && buffer->start > 0) {
        memmove(buffer->bytes, buffer->bytes + buffer->start, buffer->end - buffer->start);
        buffer->end -= buffer->start;
        buffer->start = 0;
    }
    return BUFFER_BYTES - buffer->end;
}

// Programs ask of each file whether it is a terminal: not worth a guest's time, which knows no
// ioctl.
static void refuse(struct mount_relay *relay, uint64_t unique)
{
    const struct fuse_out_header no = {.len = sizeof(no), .error = -ENOTTY, .unique = unique};
    // What is wrong with the file system shows when it is read from again.
    (void)!write(relay->fuse_fd, &no, sizeof(no));
}

// One request a read. False: there is no more now, or it is over.
static bool take_request(struct mount_relay *relay)
{
    struct buffer *requests = &relay->requests;
    ssize_t bytes =
        read(relay->fuse_fd, requests->bytes + requests->end, BUFFER_BYTES - requests->end);
    // ENOENT: it was interrupted before it was read. ENODEV: there is no file system any more.
    // EINVAL: the guest has told the kernel to ask for more at a time than there is room for.
    if (bytes < 0 && (errno == EINTR || errno == ENOENT))
        return true;
    if (bytes < 0 && errno == EAGAIN)
        return false;
    if (bytes < 0 && errno != ENODEV) {
        end_with(relay, -EPROTO, no_agreement);
        return false;
    }
    if (bytes < (ssize_t)sizeof(struct fuse_in_header)) {
        end(relay, NULL);
        return false;
    }
    struct fuse_in_header header;
    memcpy(&header, requests->bytes + requests->end, sizeof(header));
    if (header.opcode == FUSE_IOCTL) {
        refuse(relay, header.unique);
        return true;
    }
    requests->end += (size_t)bytes;
    count_request(relay, &header);
    return true;
}

static void send_requests(struct mount_relay *relay)
{
    struct buffer *requests = &relay->requests;
    while (requests->end > requests->start) {
        ssize_t bytes = send(relay->guest_fd, requests->bytes + requests->start,
                             requests->end - requests->start, MSG_NOSIGNAL);
        if (bytes < 0 && errno == EINTR)
            continue;
        if (bytes < 0 && errno != EAGAIN)
            return end_with(relay, -ECONNRESET, "the guest is gone");
        if (bytes < 0)
            break;
        requests->start += (size_t)bytes;
    }
}

// Each side is waited for as long as there is something to be done when it is ready.
static void choose_watches(struct mount_relay *relay)
{
    if (relay->over)
        return;
    bool waiting = relay->requests.end > relay->requests.start;
    loop_watch_set(relay->fuse_watch, room(&relay->requests) >= MESSAGE_MAX ? LOOP_READABLE : 0);
    loop_watch_set(relay->guest_watch, LOOP_READABLE | (waiting ? LOOP_WRITABLE : 0));
}

static void on_fuse(void *opaque, unsigned events)
{
    struct mount_relay *relay = opaque;
    (void)events;
    while (room(&relay->requests) >= MESSAGE_MAX && take_request(relay))
        ;
    if (!relay->over)
        send_requests(relay);
    choose_watches(relay);
}

// ---- From the guest -----------------------------------------------------------------------------

// The first reply: of FUSE_INIT.
static void take_agreement(struct mount_relay *relay, const struct fuse_out_header *header)
{
    if (header->error != 0)
        return end_with(relay, -EPROTO, no_agreement);
    relay->ready = true;
    relay->heard_ns = clock_monotonic_ns();
    relay->events->ready(relay->opaque);
}

static void give_reply(struct mount_relay *relay, const uint8_t *bytes,
                       const struct fuse_out_header *header)
{
    if (header->unique == 0)
        return;  // a sign of life; or a notification
    ssize_t written;
    do
        written = write(relay->fuse_fd, bytes, header->len);
    while (written < 0 && errno == EINTR);
    if (written == (ssize_t)header->len) {
        count_reply(relay, header->unique);
        if (!relay->ready)
            take_agreement(relay, header);
    } else if (errno == ENODEV || errno == EPERM) {
        end(relay, NULL);
    } else if (errno != ENOENT) {  // which is: nobody waits for it any more
        end_with(relay, -EPROTO, "the guest's replies are not what was asked for");
    }
}

static void give_replies(struct mount_relay *relay)
{
    struct buffer *replies = &relay->replies;
    struct fuse_out_header header;
    while (!relay->over && replies->end - replies->start >= sizeof(header)) {
        const uint8_t *bytes = replies->bytes + replies->start;
        memcpy(&header, bytes, sizeof(header));
        if (header.len < sizeof(header) || header.len > MESSAGE_MAX)
            return end_with(relay, -EPROTO, "the guest sends what is no reply");
        if (replies->end - replies->start < header.len)
            return;
        replies->start += header.len;
        give_reply(relay, bytes, &header);
    }
}

static void take_replies(struct mount_relay *relay)
{
    struct buffer *replies = &relay->replies;
    size_t space = room(replies);
    ssize_t bytes = recv(relay->guest_fd, replies->bytes + replies->end, space, 0);
    if (bytes < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (bytes <= 0)
        return end_with(relay, -ECONNRESET, "the guest is gone");
    replies->end += (size_t)bytes;
    if (relay->ready)  // until then signs of life are not enough
        relay->heard_ns = clock_monotonic_ns();
    give_replies(relay);
}

static void on_guest(void *opaque, unsigned events)
{
    struct mount_relay *relay = opaque;
    if (events & LOOP_WRITABLE)
        send_requests(relay);
    if (!relay->over && events & LOOP_READABLE)
        take_replies(relay);
    choose_watches(relay);
}

static void on_tick(void *opaque)
{
    struct mount_relay *relay = opaque;
    if (clock_monotonic_ns() - relay->heard_ns >= relay->silence_ms * 1000000ull)
        end_with(relay, -ETIMEDOUT, "the guest gives no sign of life");
    else
        loop_timer_start(relay->timer, TICK_MS);
}

// ---- Life ---------------------------------------------------------------------------------------

static int set_up(struct mount_relay *relay)
{
    relay->requests.bytes = malloc(BUFFER_BYTES);
    relay->replies.bytes = malloc(BUFFER_BYTES);
    if (!relay->requests.bytes || !relay->replies.bytes)
        return -ENOMEM;
    if (fcntl(relay->fuse_fd, F_SETFL, O_NONBLOCK) < 0 ||
        fcntl(relay->guest_fd, F_SETFL, O_NONBLOCK) < 0)
        return -errno;
    int rc = loop_watch_create(relay->loop, relay->fuse_fd, LOOP_READABLE, on_fuse, relay,
                               &relay->fuse_watch);
    if (rc == 0)
        rc = loop_watch_create(relay->loop, relay->guest_fd, LOOP_READABLE, on_guest, relay,
                               &relay->guest_watch);
    if (rc == 0)
        rc = loop_timer_create(relay->loop, on_tick, relay, &relay->timer);
    if (rc == 0)
        loop_timer_start(relay->timer, TICK_MS);
    return rc;
}

int mount_relay_create(struct mount_relay **out, struct loop *loop, int fuse_fd, int guest_fd,
                       unsigned silence_ms, struct interceptor_counters *counters,
                       const struct mount_relay_events *events, void *opaque)
{
    struct mount_relay *relay = calloc(1, sizeof(*relay));
    if (!relay) {
        close(fuse_fd);
        close(guest_fd);
        return -ENOMEM;
    }
    *relay = (struct mount_relay){.loop = loop,
                                  .fuse_fd = fuse_fd,
                                  .guest_fd = guest_fd,
                                  .silence_ms = silence_ms,
                                  .heard_ns = clock_monotonic_ns(),
                                  .counters = counters,
                                  .events = events,
                                  .opaque = opaque};
    int rc = set_up(relay);
    if (rc < 0)
        mount_relay_destroy(relay);
    else
        *out = relay;
    return rc;
}

void mount_relay_destroy(struct mount_relay *relay)
{
    if (!relay)
        return;
    if (!relay->over)
        let_go(relay);
    free(relay->requests.bytes);
    free(relay->replies.bytes);
    free(relay);
}
