// SPDX-License-Identifier: BSD-2-Clause
// Bursts of reads and writes: in order, whole, never waiting, whether a ring or calls do them.
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "unit.h"

#include "virtio/burst.h"

enum { OPS_MAX = 32, BYTES = 100 };

struct fixture {
    struct burst *burst;
    int ends[2];
    uint8_t bytes[OPS_MAX][2 * BYTES];
    struct iovec iov[OPS_MAX][2];
    struct burst_op ops[OPS_MAX];
};

static int setup(void **state)
{
    static struct fixture fixture;

    fixture.burst = burst_create(OPS_MAX);
    assert_non_null(fixture.burst);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, fixture.ends), 0);
    *state = &fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;

    burst_destroy(fixture->burst);
    close(fixture->ends[0]);
    close(fixture->ends[1]);
    return 0;
}

// Each operation is of two parts, of which the second has `bytes`.
static void prepare(struct fixture *fixture, unsigned count, size_t bytes)
{
    for (unsigned i = 0; i < count; i++) {
        fixture->iov[i][0] = (struct iovec){fixture->bytes[i], BYTES / 2};
        fixture->iov[i][1] = (struct iovec){fixture->bytes[i] + BYTES / 2, bytes};
        fixture->ops[i] = (struct burst_op){.iov = fixture->iov[i], .count = 2};
    }
}

static void write_all(struct fixture *fixture, unsigned count, uint8_t from)
{
    prepare(fixture, count, BYTES / 2);
    for (unsigned i = 0; i < count; i++)
        memset(fixture->bytes[i], from + (int)i, BYTES);
    burst_run(fixture->burst, fixture->ends[0], BURST_WRITE, fixture->ops, count);
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(fixture->ops[i].result, BYTES);
}

static void test_order(void **state)
{
    struct fixture *fixture = *state;

    print_message(
        "what is written is read in its order, and what is not there is not waited for\n");
    for (unsigned count = 1; count <= 24; count++) {
        write_all(fixture, count, count);
        prepare(fixture, OPS_MAX, BYTES);
        memset(fixture->bytes, 0, sizeof(fixture->bytes));
        burst_run(fixture->burst, fixture->ends[1], BURST_READ, fixture->ops, OPS_MAX);
        for (unsigned i = 0; i < OPS_MAX; i++) {
            assert_int_equal(fixture->ops[i].result, i < count ? BYTES : -EAGAIN);
            assert_int_equal(fixture->bytes[i][0], i < count ? count + i : 0);
            assert_int_equal(fixture->bytes[i][BYTES - 1], i < count ? count + i : 0);
        }
    }
}

static void test_full(void **state)
{
    struct fixture *fixture = *state;
    unsigned written = 0, read = 0;

    print_message("a full socket refuses, and what it took is all there\n");
    do {
        prepare(fixture, OPS_MAX, BYTES / 2);
        burst_run(fixture->burst, fixture->ends[0], BURST_WRITE, fixture->ops, OPS_MAX);
        for (unsigned i = 0; i < OPS_MAX; i++)
            written += fixture->ops[i].result == BYTES;
    } while (fixture->ops[OPS_MAX - 1].result == BYTES);
    assert_int_equal(fixture->ops[OPS_MAX - 1].result, -EAGAIN);
    do {
        prepare(fixture, OPS_MAX, BYTES);
        burst_run(fixture->burst, fixture->ends[1], BURST_READ, fixture->ops, OPS_MAX);
        for (unsigned i = 0; i < OPS_MAX; i++)
            read += fixture->ops[i].result == BYTES;
    } while (fixture->ops[OPS_MAX - 1].result == BYTES);
    assert_int_equal(read, written);
}

static void test_errors(void **state)
{
    struct fixture *fixture = *state;
    static const unsigned counts[] = {1, OPS_MAX};

    print_message("each operation has its own error, and the next burst is as good as any\n");
    int read_only = open("/dev/null", O_RDONLY | O_CLOEXEC);
    for (unsigned i = 0; i < BASE_COUNT_OF(counts); i++) {
        prepare(fixture, counts[i], BYTES / 2);
        burst_run(fixture->burst, read_only, BURST_WRITE, fixture->ops, counts[i]);
        for (unsigned j = 0; j < counts[i]; j++)
            assert_int_equal(fixture->ops[j].result, -EBADF);
    }
    close(read_only);
    test_order(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full, setup, teardown),
        cmocka_unit_test_setup_teardown(test_errors, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
