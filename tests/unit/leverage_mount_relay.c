// SPDX-License-Identifier: BSD-2-Clause
// The relay between a kernel's FUSE and a guest: both are sockets here, which the tests write to
// and read from. What is asked arrives, what is answered comes back; what a guest should not do
// ends it.
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "leverage/mount_relay.h"
#include "unit.h"

#define SILENCE_MS 300u
#define PATIENCE_MS 60000u

struct fixture {
    struct loop *loop;
    struct mount_relay *relay;
    struct interceptor_counters counters;
    int kernel, guest;  // our ends
    struct loop_timer *timer;
    bool ready, ended;
    struct error err;  // code 0: it was unmounted
};

static void on_ready(void *opaque)
{
    struct fixture *fixture = opaque;
    fixture->ready = true;
}

static void on_ended(void *opaque, const struct error *err)
{
    struct fixture *fixture = opaque;
    assert_false(fixture->ended);
    fixture->ended = true;
    fixture->err = err ? *err : (struct error){0};
}

static void stop(void *opaque)
{
    loop_stop(((struct fixture *)opaque)->loop);
}

static void set_up_for(struct fixture *fixture, unsigned silence_ms)
{
    static const struct mount_relay_events events = {.ready = on_ready, .ended = on_ended};
    int kernel[2], guest[2];
    *fixture = (struct fixture){0};
    assert_int_equal(loop_create(&fixture->loop, &fixture->err), 0);
    assert_int_equal(loop_timer_create(fixture->loop, stop, fixture, &fixture->timer), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, kernel), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, guest), 0);
    fixture->kernel = kernel[0];
    fixture->guest = guest[0];
    fcntl(fixture->kernel, F_SETFL, O_NONBLOCK);
    fcntl(fixture->guest, F_SETFL, O_NONBLOCK);
    assert_int_equal(mount_relay_create(&fixture->relay, fixture->loop, kernel[1], guest[1],
                                        silence_ms, &fixture->counters, &events, fixture),
                     0);
}

static void set_up(struct fixture *fixture)
{
    set_up_for(fixture, PATIENCE_MS);
}

static void tear_down(struct fixture *fixture)
{
    mount_relay_destroy(fixture->relay);
    loop_timer_close(fixture->timer);
    loop_destroy(fixture->loop);
    close(fixture->kernel);
    if (fixture->guest >= 0)
        close(fixture->guest);
}

static void run(struct fixture *fixture, unsigned ms)
{
    loop_timer_start(fixture->timer, ms);
    loop_run(fixture->loop);
}

// Runs until there is something to be read at `fd`; how many bytes it was.
static size_t await(struct fixture *fixture, int fd, void *bytes, size_t count)
{
    ssize_t got = -1;
    for (int i = 0; i < 2000 && got < 0; i++) {
        run(fixture, 5);
        got = recv(fd, bytes, count, 0);
    }
    assert_true(got >= 0);
    return (size_t)got;
}

static void ask(const struct fixture *fixture, uint64_t unique, uint32_t opcode)
{
    const struct fuse_in_header header = {
        .len = sizeof(header), .opcode = opcode, .unique = unique};
    assert_int_equal(send(fixture->kernel, &header, sizeof(header), 0), sizeof(header));
}

static void answer(const struct fixture *fixture, uint64_t unique, uint32_t length)
{
    const struct fuse_out_header header = {.len = length, .unique = unique};
    assert_int_equal(send(fixture->guest, &header, sizeof(header), MSG_NOSIGNAL), sizeof(header));
}

static void await_end(struct fixture *fixture)
{
    for (int i = 0; i < 2000 && !fixture->ended; i++)
        run(fixture, 5);
    assert_true(fixture->ended);
}

// ---- What goes through --------------------------------------------------------------------------

static void requests_and_replies_go_through(void **unused)
{
    struct fixture fixture;
    struct fuse_in_header asked[4];
    struct fuse_out_header replied;
    (void)unused;
    set_up(&fixture);
    ask(&fixture, 2, FUSE_INIT);
    ask(&fixture, 4, FUSE_LOOKUP);
    ask(&fixture, 6, FUSE_FORGET);
    assert_int_equal(await(&fixture, fixture.guest, asked, sizeof(asked)), 3 * sizeof(*asked));
    assert_int_equal(asked[1].unique, 4);
    assert_false(fixture.ready);
    answer(&fixture, 2, sizeof(replied));
    assert_int_equal(await(&fixture, fixture.kernel, &replied, sizeof(replied)), sizeof(replied));
    assert_int_equal(replied.unique, 2);
    assert_true(fixture.ready);
    assert_int_equal(fixture.counters.seen, 2);  // a FORGET has no answer
    assert_int_equal(fixture.counters.returned, 1);
    tear_down(&fixture);
    assert_false(fixture.ended);
}

static void ioctls_are_refused_without_the_guest(void **unused)
{
    struct fixture fixture;
    struct fuse_in_header asked[2];
    struct fuse_out_header replied;
    (void)unused;
    set_up(&fixture);
    ask(&fixture, 2, FUSE_IOCTL);
    ask(&fixture, 4, FUSE_LOOKUP);
    assert_int_equal(await(&fixture, fixture.kernel, &replied, sizeof(replied)), sizeof(replied));
    assert_int_equal(replied.unique, 2);
    assert_int_equal(replied.error, -ENOTTY);
    assert_int_equal(await(&fixture, fixture.guest, asked, sizeof(asked)), sizeof(*asked));
    assert_int_equal(asked[0].unique, 4);
    assert_int_equal(fixture.counters.seen, 1);
    tear_down(&fixture);
}

static void a_reply_may_come_in_pieces(void **unused)
{
    static uint8_t reply[100000], got[sizeof(reply)];
    const struct fuse_out_header header = {.len = sizeof(reply), .unique = 8};
    struct fixture fixture;
    (void)unused;
    set_up(&fixture);
    for (size_t i = 0; i < sizeof(reply); i++)
        reply[i] = (uint8_t)i;
    memcpy(reply, &header, sizeof(header));
    for (size_t at = 0, part; at < sizeof(reply); at += part) {
        part = at < 20 ? 1 : 9998;
        assert_int_equal(send(fixture.guest, reply + at, part, 0), part);
        run(&fixture, 2);
    }
    assert_int_equal(await(&fixture, fixture.kernel, got, sizeof(got)), sizeof(reply));
    assert_memory_equal(got, reply, sizeof(reply));
    tear_down(&fixture);
}

static void what_is_for_nobody_is_dropped(void **unused)
{
    struct fixture fixture;
    char byte;
    (void)unused;
    set_up(&fixture);
    answer(&fixture, 0, sizeof(struct fuse_out_header));
    for (int i = 0; i < 10; i++)
        run(&fixture, 5);
    assert_int_equal(recv(fixture.kernel, &byte, 1, 0), -1);
    assert_int_equal(errno, EAGAIN);
    assert_false(fixture.ended);
    tear_down(&fixture);
}

// ---- The end ------------------------------------------------------------------------------------

static void a_reply_of_no_length_ends_it(void **unused)
{
    static const uint32_t lengths[] = {0, 15, 2u << 20, UINT32_MAX};
    (void)unused;
    for (size_t i = 0; i < BASE_COUNT_OF(lengths); i++) {
        struct fixture fixture;
        set_up(&fixture);
        answer(&fixture, 2, lengths[i]);
        await_end(&fixture);
        assert_int_equal(fixture.err.code, -EPROTO);
        tear_down(&fixture);
    }
}

static void a_guest_that_goes_ends_it(void **unused)
{
    struct fixture fixture;
    char byte;
    (void)unused;
    set_up(&fixture);
    close(fixture.guest);
    fixture.guest = -1;
    await_end(&fixture);
    assert_int_equal(fixture.err.code, -ECONNRESET);
    assert_int_equal(recv(fixture.kernel, &byte, 1, 0), 0);  // it let go of the kernel's end
    tear_down(&fixture);
}

static void silence_ends_it(void **unused)
{
    struct fixture fixture;
    (void)unused;
    set_up_for(&fixture, SILENCE_MS);
    await_end(&fixture);
    assert_int_equal(fixture.err.code, -ETIMEDOUT);
    tear_down(&fixture);
}

static void signs_of_life_are_no_agreement(void **unused)
{
    struct fixture fixture;
    (void)unused;
    set_up_for(&fixture, SILENCE_MS);
    ask(&fixture, 2, FUSE_INIT);
    for (int i = 0; i < 2000 && !fixture.ended; i++) {
        answer(&fixture, 0, sizeof(struct fuse_out_header));
        run(&fixture, 5);
    }
    assert_int_equal(fixture.err.code, -ETIMEDOUT);
    assert_false(fixture.ready);
    tear_down(&fixture);
}

static void an_error_is_no_agreement(void **unused)
{
    const struct fuse_out_header no = {.len = sizeof(no), .error = -EIO, .unique = 2};
    struct fixture fixture;
    (void)unused;
    set_up(&fixture);
    ask(&fixture, 2, FUSE_INIT);
    assert_int_equal(send(fixture.guest, &no, sizeof(no), MSG_NOSIGNAL), sizeof(no));
    await_end(&fixture);
    assert_int_equal(fixture.err.code, -EPROTO);
    assert_false(fixture.ready);
    tear_down(&fixture);
}

static void unmounting_ends_it(void **unused)
{
    struct fixture fixture;
    (void)unused;
    set_up(&fixture);
    shutdown(fixture.kernel, SHUT_WR);
    await_end(&fixture);
    assert_int_equal(fixture.err.code, 0);
    tear_down(&fixture);
}

// Neither buffer grows, and nothing is lost.
static void a_slow_guest_holds_up_the_kernel(void **unused)
{
    static uint8_t message[100000];
    struct fuse_in_header header = {.len = sizeof(message), .opcode = FUSE_WRITE};
    struct fixture fixture;
    uint64_t sent = 0, got = 0;
    (void)unused;
    set_up(&fixture);
    for (int idle = 0; idle < 20; idle++) {
        header.unique = sent + 1;
        memcpy(message, &header, sizeof(header));
        if (send(fixture.kernel, message, sizeof(message), 0) == sizeof(message)) {
            sent += sizeof(message);
            idle = 0;
        }
        run(&fixture, 1);
        assert_true(sent < 64u << 20);
    }
    for (int i = 0; i < 20000 && got < sent; i++) {
        ssize_t bytes = recv(fixture.guest, message, sizeof(message), 0);
        got += bytes > 0 ? (uint64_t)bytes : 0;
        if (bytes <= 0)
            run(&fixture, 1);
    }
    assert_int_equal(got, sent);
    assert_false(fixture.ended);
    tear_down(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_and_replies_go_through),
        cmocka_unit_test(ioctls_are_refused_without_the_guest),
        cmocka_unit_test(a_reply_may_come_in_pieces),
        cmocka_unit_test(what_is_for_nobody_is_dropped),
        cmocka_unit_test(a_reply_of_no_length_ends_it),
        cmocka_unit_test(a_guest_that_goes_ends_it),
        cmocka_unit_test(silence_ends_it),
        cmocka_unit_test(signs_of_life_are_no_agreement),
        cmocka_unit_test(an_error_is_no_agreement),
        cmocka_unit_test(unmounting_ends_it),
        cmocka_unit_test(a_slow_guest_holds_up_the_kernel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
