// SPDX-License-Identifier: BSD-2-Clause
// merge: TCP segments that libslirp sends one after the other, as the one large segment that they
// were cut from: what a network card that coalesces receives does. For a guest under emulation the
// cost of a packet is that of its way through the network stack, whatever its size.
//
// Segments belong together when each begins where the one before ends, and their headers are the
// same but for what follows from length and position. Nothing is copied but the headers; payloads
// stay where they are until the socket gathers them.
#include <string.h>

#include "usernet/internal.h"

enum {
    ETHERNET_TYPE = 12,
    ETHERNET_BYTES = 14,
    IPV4_BYTES = 20,
    IPV6_BYTES = 40,
    TCP_BYTES_MIN = 20
};
enum { TYPE_IPV4 = 0x0800, TYPE_IPV6 = 0x86dd, PROTOCOL_TCP = 6 };
enum { TCP_PUSH = 0x08, TCP_ACK = 0x10 };

// Offsets in headers (RFC 791, RFC 8200, RFC 9293).
enum { IPV4_LENGTH = 2, IPV4_ID = 4, IPV4_FRAGMENT = 6, IPV4_PROTOCOL = 9, IPV4_CHECKSUM = 10 };
enum { IPV4_ADDRESSES = 12, IPV6_LENGTH = 4, IPV6_NEXT = 6, IPV6_ADDRESSES = 8 };
enum { TCP_SEQUENCE = 4, TCP_OFFSET = 12, TCP_FLAGS = 13, TCP_CHECKSUM = 16 };

static uint16_t get16(const uint8_t *bytes)
{
    return (uint16_t)(bytes[0] << 8 | bytes[1]);
}

static uint32_t get32(const uint8_t *bytes)
{
    return (uint32_t)get16(bytes) << 16 | get16(bytes + 2);
}

static void put16(uint8_t *bytes, uint16_t value)
{
    bytes[0] = value >> 8;
    bytes[1] = value & 0xff;
}

static uint16_t sum16(uint32_t sum, const uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i += 2)
        sum += get16(bytes + i);
    while (sum > UINT16_MAX)
        sum = (sum & UINT16_MAX) + (sum >> 16);
    return sum;
}

// ---- One segment --------------------------------------------------------------------------------

struct segment {
    bool ipv6;
    size_t tcp_at, headers_bytes, payload_bytes;
};

static bool ipv4_look(const uint8_t *ip, size_t bytes)
{
    return bytes >= IPV4_BYTES + TCP_BYTES_MIN && ip[0] == 0x45 &&
           get16(ip + IPV4_LENGTH) == bytes && (get16(ip + IPV4_FRAGMENT) & 0x3fff) == 0 &&
           ip[IPV4_PROTOCOL] == PROTOCOL_TCP;
}

static bool ipv6_look(const uint8_t *ip, size_t bytes)
{
    return bytes >= IPV6_BYTES + TCP_BYTES_MIN && ip[0] >> 4 == 6 &&
           get16(ip + IPV6_LENGTH) == bytes - IPV6_BYTES && ip[IPV6_NEXT] == PROTOCOL_TCP;
}

static bool tcp_find(struct segment *segment, const uint8_t *frame, size_t bytes)
{
    const uint8_t *ip = frame + ETHERNET_BYTES;

    if (bytes < ETHERNET_BYTES)
        return false;
    segment->ipv6 = get16(frame + ETHERNET_TYPE) == TYPE_IPV6;
    segment->tcp_at = ETHERNET_BYTES + (segment->ipv6 ? IPV6_BYTES : IPV4_BYTES);
    if (segment->ipv6)
        return ipv6_look(ip, bytes - ETHERNET_BYTES);
    return get16(frame + ETHERNET_TYPE) == TYPE_IPV4 && ipv4_look(ip, bytes - ETHERNET_BYTES);
}

bool merge_is_tcp(const uint8_t *frame, size_t bytes)
{
    struct segment segment;
    return tcp_find(&segment, frame, bytes);
}

// Whether a frame is a segment that has data and nothing special about it.
static bool segment_look(struct segment *segment, const uint8_t *frame, size_t bytes)
{
    if (!tcp_find(segment, frame, bytes))
        return false;
    const uint8_t *tcp = frame + segment->tcp_at;
    size_t tcp_bytes = (tcp[TCP_OFFSET] >> 4) * 4u;
    segment->headers_bytes = segment->tcp_at + tcp_bytes;
    segment->payload_bytes = bytes - segment->headers_bytes;
    return tcp_bytes >= TCP_BYTES_MIN && segment->headers_bytes < bytes &&
           (tcp[TCP_FLAGS] & ~TCP_PUSH) == TCP_ACK;
}

// The headers without the fields in which segments of one large one differ.
static void headers_blank(uint8_t *blanked, const uint8_t *frame, const struct segment *segment)
{
    uint8_t *ip = blanked + ETHERNET_BYTES, *tcp = blanked + segment->tcp_at;

    memcpy(blanked, frame, segment->headers_bytes);
    if (segment->ipv6) {
        put16(ip + IPV6_LENGTH, 0);
    } else {
        put16(ip + IPV4_LENGTH, 0);
        put16(ip + IPV4_ID, 0);
        put16(ip + IPV4_CHECKSUM, 0);
    }
    memset(tcp + TCP_SEQUENCE, 0, sizeof(uint32_t));
    tcp[TCP_FLAGS] &= ~TCP_PUSH;
    put16(tcp + TCP_CHECKSUM, 0);
}

// ---- Many ---------------------------------------------------------------------------------------

// A segment that is pushed, or shorter than the first, is the last.
static void segment_count(struct merge *merge, const uint8_t *tcp, size_t payload_bytes)
{
    merge->payload_bytes += payload_bytes;
    merge->sequence_next = get32(tcp + TCP_SEQUENCE) + payload_bytes;
    merge->ended = (tcp[TCP_FLAGS] & TCP_PUSH) || payload_bytes < merge->segment_bytes;
    merge->headers[merge->tcp_at + TCP_FLAGS] |= tcp[TCP_FLAGS];
}

bool merge_begin(struct merge *merge, const uint8_t *frame, size_t bytes, uint64_t offloads)
{
    struct segment segment;

    if (!segment_look(&segment, frame, bytes) ||
        !(offloads & (segment.ipv6 ? VIRTIO_NET_F_GUEST_TSO6 : VIRTIO_NET_F_GUEST_TSO4)))
        return false;
    *merge = (struct merge){
        .ipv6 = segment.ipv6,
        .tcp_at = segment.tcp_at,
        .headers_bytes = segment.headers_bytes,
        .segment_bytes = segment.payload_bytes,
    };
    memcpy(merge->headers, frame, segment.headers_bytes);
    headers_blank(merge->blanked, frame, &segment);
    segment_count(merge, frame + segment.tcp_at, segment.payload_bytes);
    return true;
}

bool merge_add(struct merge *merge, const uint8_t *frame, size_t bytes)
{
    uint8_t blanked[MERGE_HEADERS_BYTES_MAX];
    struct segment segment;

    if (merge->ended || !segment_look(&segment, frame, bytes) || segment.ipv6 != merge->ipv6 ||
        segment.headers_bytes != merge->headers_bytes ||
        segment.payload_bytes > merge->segment_bytes ||
        get32(frame + segment.tcp_at + TCP_SEQUENCE) != merge->sequence_next ||
        merge->headers_bytes + merge->payload_bytes + segment.payload_bytes > MERGE_BYTES_MAX)
        return false;
    headers_blank(blanked, frame, &segment);
    if (memcmp(blanked, merge->blanked, segment.headers_bytes) != 0)
        return false;
    segment_count(merge, frame + segment.tcp_at, segment.payload_bytes);
    return true;
}

// Section 5.1.6.4.1: a packet with a gso_type has its checksum left to the driver, begun with the
// pseudo header's sum.
void merge_end(struct merge *merge)
{
    uint8_t *ip = merge->headers + ETHERNET_BYTES, *tcp = merge->headers + merge->tcp_at;
    size_t ip_bytes = merge->tcp_at - ETHERNET_BYTES;
    size_t tcp_bytes = merge->headers_bytes - merge->tcp_at + merge->payload_bytes;

    if (merge->ipv6) {
        put16(ip + IPV6_LENGTH, tcp_bytes);
        put16(tcp + TCP_CHECKSUM, sum16(PROTOCOL_TCP + tcp_bytes, ip + IPV6_ADDRESSES, 32));
    } else {
        put16(ip + IPV4_LENGTH, ip_bytes + tcp_bytes);
        put16(ip + IPV4_CHECKSUM, 0);
        put16(ip + IPV4_CHECKSUM, ~sum16(0, ip, IPV4_BYTES));
        put16(tcp + TCP_CHECKSUM, sum16(PROTOCOL_TCP + tcp_bytes, ip + IPV4_ADDRESSES, 8));
    }
    merge->packet = (struct virtio_net_header){
        .flags = VIRTIO_NET_HEADER_F_NEEDS_CSUM,
        .gso_type = merge->ipv6 ? VIRTIO_NET_HEADER_GSO_TCPV6 : VIRTIO_NET_HEADER_GSO_TCPV4,
        .header_bytes = merge->headers_bytes,
        .gso_bytes = merge->segment_bytes,
        .csum_start = merge->tcp_at,
        .csum_offset = TCP_CHECKSUM,
    };
}
