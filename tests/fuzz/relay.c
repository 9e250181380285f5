// SPDX-License-Identifier: BSD-2-Clause
// Fuzz target for the relay between the host's kernel and a guest that serves a file system: the
// guest sends replies, parts of them, and bytes that are none, while the kernel asks, and either
// goes away. The input is a list of such steps. What arrives at the kernel is whole replies only,
// none of them a notification; it is told once that it is over, and nothing comes afterwards.
#include <errno.h>
#include <linux/fuse.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "leverage/mount_relay.h"
#include "replay.h"

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

enum step_kind {
    STEP_ASK,     // the kernel: opcode, bytes that go with it
    STEP_REPLY,   // the guest: to which request, error or not, bytes that go with it
    STEP_HEADER,  // the guest: length and number as they are in the input
    STEP_BYTES,   // the guest: how many of the input's
    STEP_TURN,
    STEP_KERNEL_ENDS,
    STEP_GUEST_ENDS,
    STEP_KINDS
};

struct fixture {
    const uint8_t *bytes;
    size_t count;
    struct loop *loop;
    struct loop_wake *wake;
    struct mount_relay *relay;
    struct interceptor_counters counters;
    int kernel, guest;  // our ends; -1: closed
    uint64_t last;      // number of a request
    unsigned ready, ended;
};

static uint8_t take(struct fixture *f)
{
    if (f->count == 0)
        return 0;
    f->count--;
    return *f->bytes++;
}

static void take_bytes(struct fixture *f, void *to, size_t count)
{
    for (size_t i = 0; i < count; i++)
        ((uint8_t *)to)[i] = take(f);
}

static void on_ready(void *opaque)
{
    struct fixture *f = opaque;
    MUST(!f->ended && f->ready++ == 0);
}

static void on_ended(void *opaque, const struct error *err)
{
    struct fixture *f = opaque;
    MUST(!err || *err->message);
    MUST(f->ended++ == 0);
}

static void stop(void *opaque)
{
    loop_stop(opaque);
}

// What arrives at the kernel, and at the guest, which is not interested.
static void look(struct fixture *f)
{
    static uint8_t message[1u << 17];
    struct fuse_out_header header;
    ssize_t n;
    while (f->kernel >= 0 && (n = recv(f->kernel, message, sizeof(message), MSG_DONTWAIT)) > 0) {
        MUST((size_t)n >= sizeof(header));
        memcpy(&header, message, sizeof(header));
        MUST(header.len == (size_t)n && header.unique != 0);
    }
    while (f->guest >= 0 && recv(f->guest, message, sizeof(message), MSG_DONTWAIT) > 0)
        ;
}

// One or two rounds of the loop are enough for all that is there.
static void turn(struct fixture *f)
{
    for (int i = 0; i < 2; i++) {
        loop_wake_signal(f->wake);
        loop_run(f->loop);
    }
    look(f);
}

static void send_to(int fd, const void *bytes, size_t count)
{
    if (fd >= 0)
        (void)!send(fd, bytes, count, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void ask(struct fixture *f)
{
    uint8_t message[sizeof(struct fuse_in_header) + UINT8_MAX] = {0};
    struct fuse_in_header header = {.opcode = take(f), .unique = f->last += 2};
    header.len = (uint32_t)sizeof(header) + take(f);
    memcpy(message, &header, sizeof(header));
    send_to(f->kernel, message, header.len);
}

static void reply(struct fixture *f)
{
    uint8_t message[sizeof(struct fuse_out_header) + UINT8_MAX] = {0};
    uint64_t back = take(f) & 7;
    struct fuse_out_header header = {.unique = f->last > 2 * back ? f->last - 2 * back : 0};
    header.error = take(f) & 1 ? -EIO : 0;
    header.len = (uint32_t)sizeof(header) + take(f);
    memcpy(message, &header, sizeof(header));
    send_to(f->guest, message, header.len);
}

static void step(struct fixture *f)
{
    uint8_t bytes[UINT8_MAX];
    size_t count;
    switch (take(f) % STEP_KINDS) {
    case STEP_ASK:
        ask(f);
        break;
    case STEP_REPLY:
        reply(f);
        break;
    case STEP_HEADER:
        take_bytes(f, bytes, sizeof(struct fuse_out_header));
        send_to(f->guest, bytes, sizeof(struct fuse_out_header));
        break;
    case STEP_BYTES:
        count = take(f);
        take_bytes(f, bytes, count);
        send_to(f->guest, bytes, count);
        break;
    case STEP_TURN:
        turn(f);
        break;
    case STEP_KERNEL_ENDS:
        shutdown(f->kernel, SHUT_WR);
        break;
    default:
        shutdown(f->guest, SHUT_WR);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    static const struct mount_relay_events events = {.ready = on_ready, .ended = on_ended};
    struct fixture f = {.bytes = bytes, .count = count};
    int kernel[2], guest[2];
    MUST(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, kernel) == 0);
    MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, guest) == 0);
    MUST(loop_create(&f.loop, NULL) == 0);
    MUST(loop_wake_create(f.loop, stop, f.loop, &f.wake) == 0);
    MUST(mount_relay_create(&f.relay, f.loop, kernel[0], guest[0], 60000, &f.counters, &events,
                            &f) == 0);
    f.kernel = kernel[1];
    f.guest = guest[1];
    while (f.count > 0)
        step(&f);
    turn(&f);
    MUST(atomic_load(&f.counters.returned) <= atomic_load(&f.counters.seen) + count);
    mount_relay_destroy(f.relay);
    look(&f);
    close(f.kernel);
    close(f.guest);
    loop_destroy(f.loop);
    return 0;
}
