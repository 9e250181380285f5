// SPDX-License-Identifier: BSD-2-Clause
// Messages between monitors: what is sent arrives, and what is none of ours is refused, with every
// descriptor that came along closed.
#include <dirent.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "monitor/handover_peer.h"
#include "unit.h"

struct fixture {
    int ends[2];
    struct peer_message message;
};

static unsigned open_fds(void)
{
    unsigned count = 0;
    DIR *folder = opendir("/proc/self/fd");
    while (readdir(folder))
        count++;
    closedir(folder);
    return count;
}

// A packet of any bytes, with copies of a descriptor.
static void send_raw(struct fixture *f, const void *bytes, size_t count, unsigned fd_count)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(253 * sizeof(int))];
    } control;
    struct iovec iov = {(void *)bytes, count};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fd_count) {
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        for (unsigned i = 0; i < fd_count; i++)
            memcpy(CMSG_DATA(rights) + i * sizeof(int), &f->ends[0], sizeof(int));
    }
    assert_int_equal(sendmsg(f->ends[0], &message, 0), count);
}

static void test_arrives(void **state)
{
    struct fixture *f = *state;
    static char large[PEER_PAYLOAD_BYTES];
    int fds[PEER_FDS];
    unsigned before = open_fds();
    memset(large, 'x', sizeof(large));
    for (unsigned i = 0; i < PEER_FDS; i++)
        fds[i] = f->ends[0];
    assert_int_equal(peer_send(f->ends[0], PEER_HELLO, "hello", 5, NULL, 0, 1000), 0);
    assert_int_equal(peer_send(f->ends[0], PEER_STATE, large, sizeof(large), fds, PEER_FDS, 1000),
                     0);
    assert_int_equal(peer_send(f->ends[0], PEER_RETIRED, NULL, 0, NULL, 0, 1000), 0);
    assert_int_equal(peer_receive(f->ends[1], &f->message, 1000), 0);
    assert_int_equal(f->message.type, PEER_HELLO);
    assert_string_equal((char *)f->message.payload, "hello");
    assert_int_equal(f->message.fd_count, 0);
    assert_int_equal(peer_receive(f->ends[1], &f->message, 1000), 0);
    assert_int_equal(f->message.length_bytes, sizeof(large));
    assert_memory_equal(f->message.payload, large, sizeof(large));
    assert_int_equal(f->message.payload[sizeof(large)], 0);
    assert_int_equal(f->message.fd_count, PEER_FDS);
    assert_int_equal(open_fds(), before + PEER_FDS);
    assert_true(fcntl(f->message.fds[PEER_FDS - 1], F_GETFD) & FD_CLOEXEC);
    peer_message_close_fds(&f->message);
    assert_int_equal(open_fds(), before);
    assert_int_equal(peer_receive(f->ends[1], &f->message, 1000), 0);
    assert_int_equal(f->message.type, PEER_RETIRED);
    assert_int_equal(f->message.length_bytes, 0);
}

static void test_too_large_is_not_sent(void **state)
{
    struct fixture *f = *state;
    static char large[PEER_PAYLOAD_BYTES + 1];
    int fds[PEER_FDS + 1] = {0};
    assert_int_equal(peer_send(f->ends[0], PEER_HELLO, large, sizeof(large), NULL, 0, 0),
                     -EMSGSIZE);
    assert_int_equal(peer_send(f->ends[0], PEER_HELLO, NULL, 0, fds, PEER_FDS + 1, 0), -EMSGSIZE);
}

// Header: magic, type and number of descriptors, length.
#define MAGIC 0x314f4853u
static const struct refused {
    const char *what;
    uint32_t header[3];
    size_t bytes;  // of the packet
    unsigned fds;
} refused[] = {
    {"another magic", {0x314f4854, PEER_HELLO, 0}, 12, 0},
    {"a length beyond the packet", {MAGIC, PEER_HELLO, 1}, 12, 0},
    {"a packet beyond the length", {MAGIC, PEER_HELLO, 3}, 16, 0},
    {"a length of 4 GiB", {MAGIC, PEER_HELLO, UINT32_MAX}, 12, 0},
    {"half a header", {MAGIC, PEER_HELLO, 0}, 6, 0},
    {"one byte", {MAGIC, PEER_HELLO, 0}, 1, 0},
    {"fewer descriptors than it says", {MAGIC, PEER_HELLO | 2 << 16, 0}, 12, 1},
    {"more descriptors than it says", {MAGIC, PEER_HELLO, 0}, 12, 3},
    {"more descriptors than there may be", {MAGIC, PEER_HELLO | 253 << 16, 0}, 12, 253},
    {"a packet too large", {MAGIC, PEER_HELLO, 65537}, 65537 + 12, 5},
};

static void test_refused(void **state)
{
    struct fixture *f = *state;
    static char packet[70000];
    unsigned before = open_fds();
    for (size_t i = 0; i < BASE_COUNT_OF(refused); i++) {
        print_message("%s\n", refused[i].what);
        memcpy(packet, refused[i].header, sizeof(refused[i].header));
        send_raw(f, packet, refused[i].bytes, refused[i].fds);
        assert_int_equal(peer_receive(f->ends[1], &f->message, 1000), -EPROTO);
        assert_int_equal(open_fds(), before);
    }
    assert_int_equal(peer_send(f->ends[0], PEER_RUN, NULL, 0, NULL, 0, 1000), 0);
    assert_int_equal(peer_receive(f->ends[1], &f->message, 1000), 0);
    assert_int_equal(f->message.type, PEER_RUN);
}

static void test_waits_are_bounded(void **state)
{
    struct fixture *f = *state;
    static char large[PEER_PAYLOAD_BYTES];
    uint64_t start_ns = clock_monotonic_ns();
    assert_int_equal(peer_receive(f->ends[1], &f->message, 20), -ETIME);
    int rc;
    while ((rc = peer_send(f->ends[0], PEER_HELLO, large, sizeof(large), NULL, 0, 20)) == 0)
        ;
    assert_int_equal(rc, -ETIME);
    assert_true(clock_monotonic_ns() - start_ns >= 40000000u);
}

static void test_other_end_is_gone(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(peer_send(f->ends[0], PEER_REFUSED, "why", 3, NULL, 0, 1000), 0);
    close(f->ends[0]);
    f->ends[0] = -1;
    assert_int_equal(peer_send(f->ends[1], PEER_RUN, NULL, 0, NULL, 0, 1000), -EPIPE);
    assert_int_equal(peer_receive(f->ends[1], &f->message, 1000), 0);
    assert_string_equal((char *)f->message.payload, "why");  // what it said last
    assert_int_equal(peer_receive(f->ends[1], &f->message, 1000), -EPIPE);
}

static void test_last_word_is_heard(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(peer_send(f->ends[1], PEER_HELLO, NULL, 0, NULL, 0, 1000), 0);
    assert_int_equal(peer_send(f->ends[0], PEER_REFUSED, "why", 3, NULL, 0, 1000), 0);
    close(f->ends[0]);
    f->ends[0] = -1;
    assert_int_equal(peer_receive(f->ends[1], &f->message, 1000), 0);
    assert_int_equal(f->message.type, PEER_REFUSED);
    assert_string_equal((char *)f->message.payload, "why");
    assert_int_equal(peer_receive(f->ends[1], &f->message, 1000), -EPIPE);
    print_message("an end that closes with a message unread is heard to the end\n");
}

static int setup(void **state)
{
    struct fixture *f = test_calloc(1, sizeof(*f));
    *state = f;
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, f->ends);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    close(f->ends[0]);
    close(f->ends[1]);
    test_free(f);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_arrives, setup, teardown),
        cmocka_unit_test_setup_teardown(test_too_large_is_not_sent, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_waits_are_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_end_is_gone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_last_word_is_heard, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
