// SPDX-License-Identifier: BSD-2-Clause
// Errors, byte rings and the log limit.
#include "base/base.h"
#include "unit.h"

static void test_message(void **state)
{
    (void)state;
    struct error err = {0};
    assert_int_equal(error_set_errno(&err, -ENOENT, "cannot open \"%s\"", "x"), -ENOENT);
    assert_string_equal(err.message, "cannot open \"x\": No such file or directory");
    assert_int_equal(error_prefix(&err, "partition %d", 7), -ENOENT);
    assert_string_equal(err.message, "partition 7: cannot open \"x\": No such file or directory");
    assert_int_equal(error_set(NULL, -EIO, "dropped"), -EIO);
    assert_int_equal(error_prefix(NULL, "dropped"), 0);
}

static void test_long_messages_are_cut(void **state)
{
    (void)state;
    char text[2000];
    memset(text, 'a', sizeof(text) - 1);
    text[sizeof(text) - 1] = 0;
    struct error err = {0};
    error_set_errno(&err, -EIO, "%s", text);
    assert_int_equal(strlen(err.message), ERROR_MESSAGE_BYTES - 1);
    error_prefix(&err, "%s", text);
    assert_int_equal(strlen(err.message), ERROR_MESSAGE_BYTES - 1);
    error_prefix(&err, "short");
    assert_memory_equal(err.message, "short: aaa", 10);
    assert_int_equal(strlen(err.message), ERROR_MESSAGE_BYTES - 1);
}

// Random puts and takes against a plain counter of bytes: byte n of the stream is n modulo 251.
static void test_ring_keeps_order(void **state)
{
    (void)state;
    struct ring ring;
    assert_int_equal(ring_init(&ring, 100), 0);
    assert_int_equal(ring_space(&ring), 128);
    size_t in = 0, out = 0;
    unsigned seed = 1;
    for (int round = 0; round < 20000; round++) {
        seed = seed * 1103515245u + 12345u;
        size_t want = (seed >> 16) % 160;
        uint8_t bytes[160];
        if (seed & 0x1000) {
            for (size_t i = 0; i < want; i++)
                bytes[i] = (uint8_t)((in + i) % 251);
            size_t space = 128 - (in - out);
            size_t put = ring_put(&ring, bytes, want);
            assert_int_equal(put, want < space ? want : space);
            in += put;
        } else {
            size_t took = ring_take(&ring, bytes, want);
            assert_int_equal(took, want < in - out ? want : in - out);
            for (size_t i = 0; i < took; i++)
                assert_int_equal(bytes[i], (out + i) % 251);
            out += took;
        }
        assert_int_equal(ring_used(&ring), in - out);
    }
    ring_clear(&ring);
    assert_int_equal(ring_used(&ring), 0);
    ring_fini(&ring);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_message),
        cmocka_unit_test(test_long_messages_are_cut),
        cmocka_unit_test(test_ring_keeps_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
