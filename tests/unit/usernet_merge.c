// SPDX-License-Identifier: BSD-2-Clause
// Segments made one: what belongs together and what does not, field by field, over IPv4 and IPv6,
// and what the large one's headers say.
#include "unit.h"

#include "usernet/internal.h"

enum { ETHERNET = 14, IPV4 = 20, IPV6 = 40, TCP = 32, MSS = 1448, FRAME_MAX = 1514 };
enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16, URG = 32, ECE = 64 };
#define BOTH (VIRTIO_NET_F_GUEST_TSO4 | VIRTIO_NET_F_GUEST_TSO6)

struct frame {
    bool ipv6;
    size_t bytes;
    uint8_t data[FRAME_MAX + 100];
};

static void put16(uint8_t *bytes, uint16_t value)
{
    bytes[0] = value >> 8;
    bytes[1] = value & 0xff;
}

static uint16_t get16(const uint8_t *bytes)
{
    return bytes[0] << 8 | bytes[1];
}

static size_t tcp_at(const struct frame *frame)
{
    return ETHERNET + (frame->ipv6 ? IPV6 : IPV4);
}

static uint16_t sum(uint32_t start, const uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        start += bytes[i] << (i % 2 ? 0 : 8);
    while (start >> 16)
        start = (start & 0xffff) + (start >> 16);
    return start;
}

static void lengths_put(struct frame *frame, size_t payload_bytes)
{
    uint8_t *ip = frame->data + ETHERNET;

    frame->bytes = tcp_at(frame) + TCP + payload_bytes;
    if (frame->ipv6)
        put16(ip + 4, TCP + payload_bytes);
    else
        put16(ip + 2, IPV4 + TCP + payload_bytes);
}

static void sequence_put(struct frame *frame, uint32_t sequence)
{
    put16(frame->data + tcp_at(frame) + 4, sequence >> 16);
    put16(frame->data + tcp_at(frame) + 6, sequence & 0xffff);
}

// A segment with a time stamp option, as Linux sends them.
static struct frame segment(bool ipv6, uint32_t sequence, size_t payload_bytes, uint8_t flags)
{
    struct frame frame = {.ipv6 = ipv6};
    uint8_t *ip = frame.data + ETHERNET, *tcp = frame.data + tcp_at(&frame);

    for (size_t i = 0; i < sizeof(frame.data); i++)
        frame.data[i] = i;
    put16(frame.data + 12, ipv6 ? 0x86dd : 0x0800);
    ip[0] = ipv6 ? 0x60 : 0x45;
    ip[ipv6 ? 6 : 9] = 6;
    if (!ipv6)
        put16(ip + 6, 0x4000);  // do not fragment
    tcp[12] = TCP / 4 << 4;
    tcp[13] = flags;
    sequence_put(&frame, sequence);
    lengths_put(&frame, payload_bytes);
    return frame;
}

static bool begin(struct merge *merge, const struct frame *frame, uint64_t offloads)
{
    return merge_begin(merge, frame->data, frame->bytes, offloads);
}

static bool add(struct merge *merge, const struct frame *frame)
{
    return merge_add(merge, frame->data, frame->bytes);
}

// As many segments as fit, with sequence numbers that pass zero.
static void test_large(void **state)
{
    (void)state;
    for (unsigned ipv6 = 0; ipv6 < 2; ipv6++) {
        struct frame frame = segment(ipv6, 0xfffffff0u, MSS, ACK);
        const size_t headers = tcp_at(&frame) + TCP;
        struct merge merge;
        unsigned count = 1;

        assert_true(begin(&merge, &frame, BOTH));
        for (;; count++) {
            frame = segment(ipv6, 0xfffffff0u + count * MSS, MSS, ACK);
            put16(frame.data + tcp_at(&frame) + 16, count);  // checksums differ
            if (!ipv6) {
                put16(frame.data + ETHERNET + 4, count);  // and so do identifications
                put16(frame.data + ETHERNET + 10, count);
            }
            if (!add(&merge, &frame))
                break;
        }
        print_message("%u segments of %u bytes over IPv%u\n", count, MSS, ipv6 ? 6 : 4);
        assert_int_equal(count, (MERGE_BYTES_MAX - headers) / MSS);
        merge_end(&merge);
        assert_int_equal(merge.packet.flags, VIRTIO_NET_HEADER_F_NEEDS_CSUM);
        assert_int_equal(merge.packet.gso_type, ipv6 ? 4 : 1);
        assert_int_equal(merge.packet.header_bytes, headers);
        assert_int_equal(merge.packet.gso_bytes, MSS);
        assert_int_equal(merge.packet.csum_start, tcp_at(&frame));
        assert_int_equal(merge.packet.csum_offset, 16);
        const uint8_t *ip = merge.headers + ETHERNET;
        const uint8_t *tcp = merge.headers + tcp_at(&frame);
        size_t tcp_bytes = TCP + count * MSS;
        assert_int_equal(get16(ip + (ipv6 ? 4 : 2)), ipv6 ? tcp_bytes : IPV4 + tcp_bytes);
        if (!ipv6)
            assert_int_equal(sum(0, ip, IPV4), 0xffff);
        assert_int_equal(get16(tcp + 16),
                         ipv6 ? sum(6 + tcp_bytes, ip + 8, 32) : sum(6 + tcp_bytes, ip + 12, 8));
        assert_int_equal(get16(tcp + 4), 0xffff);  // the first one's number
        assert_int_equal(get16(tcp + 6), 0xfff0);
    }
}

// The end of what a program has sent: shorter, pushed, or both. Nothing comes after it.
static void test_last(void **state)
{
    static const struct {
        size_t bytes;
        uint8_t flags;
    } last[] = {{MSS, ACK | PSH}, {1, ACK}, {MSS - 1, ACK | PSH}};

    (void)state;
    for (size_t i = 0; i < BASE_COUNT_OF(last); i++) {
        struct merge merge;
        struct frame frame = segment(false, 1, MSS, ACK);
        assert_true(begin(&merge, &frame, BOTH));
        frame = segment(false, 1 + MSS, last[i].bytes, last[i].flags);
        assert_true(add(&merge, &frame));
        frame = segment(false, 1 + MSS + last[i].bytes, 1, ACK);
        assert_false(add(&merge, &frame));
        merge_end(&merge);
        assert_int_equal(merge.headers[ETHERNET + IPV4 + 13], ACK | (last[i].flags & PSH));
        assert_int_equal(merge.payload_bytes, MSS + last[i].bytes);
    }
}

// One bit of the second segment's headers turned over: only where segments may differ is it still
// one that follows.
static void test_every_bit(void **state)
{
    (void)state;
    for (unsigned ipv6 = 0; ipv6 < 2; ipv6++) {
        const struct frame first = segment(ipv6, 5, MSS, ACK),
                           next = segment(ipv6, 5 + MSS, MSS, ACK);
        const size_t tcp = tcp_at(&first);
        unsigned followed = 0;

        for (size_t bit = 0; bit < (tcp + TCP) * 8; bit++) {
            struct frame changed = next;
            struct merge merge;
            size_t at = bit / 8;
            changed.data[at] ^= 0x80 >> bit % 8;
            bool checksum = at == tcp + 16 || at == tcp + 17;
            bool ip_own = !ipv6 && (at == 18 || at == 19 || at == 24 || at == 25);
            bool pushed = at == tcp + 13 && changed.data[at] == (ACK | PSH);
            assert_true(begin(&merge, &first, BOTH));
            assert_int_equal(add(&merge, &changed), checksum || ip_own || pushed);
            followed += checksum || ip_own || pushed;
        }
        assert_int_equal(followed, ipv6 ? 17 : 49);
    }
}

// What is never the first of many.
static void test_alone(void **state)
{
    static const uint8_t flags[] = {0,         SYN,       SYN | ACK, FIN | ACK,
                                    RST | ACK, URG | ACK, ECE | ACK, PSH};
    struct frame frame = segment(false, 1, MSS, ACK);
    struct merge merge;

    (void)state;
    assert_false(begin(&merge, &frame, 0));
    assert_false(begin(&merge, &frame, VIRTIO_NET_F_GUEST_TSO6));
    assert_true(begin(&merge, &frame, VIRTIO_NET_F_GUEST_TSO4));
    for (size_t i = 0; i < BASE_COUNT_OF(flags); i++) {
        frame = segment(false, 1, MSS, flags[i]);
        assert_false(begin(&merge, &frame, BOTH));
    }
    frame = segment(false, 1, 0, ACK);
    assert_false(begin(&merge, &frame, BOTH));
    frame = segment(true, 1, MSS, ACK);
    assert_false(begin(&merge, &frame, VIRTIO_NET_F_GUEST_TSO4));
    assert_true(begin(&merge, &frame, VIRTIO_NET_F_GUEST_TSO6));
    // Padded, cut off, or a fragment.
    for (unsigned ipv6 = 0; ipv6 < 2; ipv6++) {
        frame = segment(ipv6, 1, 1, ACK);
        for (size_t bytes = 0; bytes < frame.bytes + 8; bytes++)
            assert_int_equal(merge_begin(&merge, frame.data, bytes, BOTH), bytes == frame.bytes);
    }
    frame = segment(false, 1, MSS, ACK);
    put16(frame.data + ETHERNET + 6, 0x2000);
    assert_false(begin(&merge, &frame, BOTH));
    put16(frame.data + ETHERNET + 6, 1);
    assert_false(begin(&merge, &frame, BOTH));
}

// What does not continue the one before: a hole, what was sent already, more than before, another
// connection's.
static void test_not_next(void **state)
{
    struct merge merge;
    struct frame frame = segment(false, 1000, 500, ACK);

    (void)state;
    assert_true(begin(&merge, &frame, BOTH));
    static const struct {
        uint32_t sequence;
        size_t bytes;
    } others[] = {{1000, 500}, {1499, 500}, {1501, 500}, {2000, 500}, {1500, 501}};
    for (size_t i = 0; i < BASE_COUNT_OF(others); i++) {
        frame = segment(false, others[i].sequence, others[i].bytes, ACK);
        assert_false(add(&merge, &frame));
    }
    frame = segment(true, 1500, 500, ACK);
    assert_false(add(&merge, &frame));
    frame = segment(false, 1500, 500, ACK);
    assert_true(add(&merge, &frame));  // none of them has left a trace
    assert_int_equal(merge.payload_bytes, 1000);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_large),     cmocka_unit_test(test_last),
        cmocka_unit_test(test_every_bit), cmocka_unit_test(test_alone),
        cmocka_unit_test(test_not_next),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
