// SPDX-License-Identifier: BSD-2-Clause
// Console input: from a stream socket to the guest.
//
// Bytes are looked at in the socket (MSG_PEEK), offered to the guest, and only those that it takes
// are taken out. So none is ever held here, and whoever reads the socket next misses none.
//
// Threading invariant: everything belongs to the partition's loop thread, but for `room`, which any
// thread signals.
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "monitor/internal.h"

struct console_input {
    struct partition *partition;
    struct loop *loop;
    int fd;                    // -1: none
    struct loop_watch *watch;  // NULL: none, or it has ended
    struct loop_wake *room;
    bool held;
};

static void end_of_input(struct console_input *input)
{
    loop_watch_close(input->watch);
    input->watch = NULL;
}

// False when there are no more bytes now, or no room for them.
static bool move_some(struct console_input *input)
{
    uint8_t bytes[512];
    ssize_t n = recv(input->fd, bytes, sizeof(bytes), MSG_PEEK | MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        loop_watch_set(input->watch, LOOP_READABLE);
        return false;
    }
    if (n <= 0) {
        end_of_input(input);
        return false;
    }
    size_t taken = partition_console_input(input->partition, bytes, (size_t)n);
    if (taken > 0)
        (void)!recv(input->fd, bytes, taken, MSG_DONTWAIT);
    if (taken < (size_t)n)
        loop_watch_set(input->watch, 0);  // until console_input_room
    return taken == (size_t)n;
}

static void pump(void *opaque)
{
    struct console_input *input = opaque;
    while (input->watch && !input->held && move_some(input))
        ;
}

static void ready(void *opaque, unsigned events)
{
    (void)events;
    pump(opaque);
}

struct input_call {
    struct console_input *input;
    int fd;
    bool hold;
    int rc;
};

static void create_on_loop(void *opaque)
{
    struct input_call *call = opaque;
    call->rc = loop_wake_create(call->input->loop, pump, call->input, &call->input->room);
}

int console_input_create(struct console_input **out, struct partition *partition, struct error *err)
{
    struct console_input *input = calloc(1, sizeof(*input));
    if (!input)
        return error_set_errno(err, -ENOMEM, "cannot take console input");
    *input =
        (struct console_input){.partition = partition, .loop = partition_loop(partition), .fd = -1};
    struct input_call call = {.input = input};
    loop_call(input->loop, create_on_loop, &call);
    if (call.rc < 0) {
        free(input);
        return error_set_errno(err, call.rc, "cannot take console input");
    }
    *out = input;
    return 0;
}

static void attach_on_loop(void *opaque)
{
    struct input_call *call = opaque;
    struct console_input *input = call->input;
    end_of_input(input);
    input->fd = call->fd;
    if (input->fd >= 0)
        call->rc = loop_watch_create(input->loop, input->fd, input->held ? 0 : LOOP_READABLE, ready,
                                     input, &input->watch);
}

int console_input_attach(struct console_input *input, int fd)
{
    struct input_call call = {.input = input, .fd = fd};
    loop_call(input->loop, attach_on_loop, &call);
    return call.rc;
}

static void hold_on_loop(void *opaque)
{
    struct input_call *call = opaque;
    struct console_input *input = call->input;
    input->held = call->hold;
    if (input->watch)
        loop_watch_set(input->watch, input->held ? 0 : LOOP_READABLE);
}

void console_input_hold(struct console_input *input, bool hold)
{
    struct input_call call = {.input = input, .hold = hold};
    loop_call(input->loop, hold_on_loop, &call);
}

void console_input_room(struct console_input *input)
{
    loop_wake_signal(input->room);
}

static void destroy_on_loop(void *opaque)
{
    struct console_input *input = opaque;
    end_of_input(input);
    loop_wake_close(input->room);
}

void console_input_destroy(struct console_input *input)
{
    if (!input)
        return;
    loop_call(input->loop, destroy_on_loop, input);
    free(input);
}
