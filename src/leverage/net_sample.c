// SPDX-License-Identifier: BSD-2-Clause
// net_sample: how long packets take through the guests. Two packet sockets, beside the data's path,
// one at the first module's outer tap and one at the last module's inner tap, see some of the
// packets with the kernel's time of each: a filter chooses them by what is in them, so both choose
// the same ones. A packet that came out is known again by its addresses, ports and numbers; whether
// its data came out as it went in is seen as well. Too many at a time are passed over.
#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "leverage/net.h"

#define SEEN_BYTES 256u  // of each packet
#define SLOTS 4096u      // packets under way that are remembered
#define BURST 64u        // packets read at a time, and then
#define PAUSE_MS 20u
#define LATENCY_MAX_NS (UINT64_C(60) * 1000000000)

struct slot {
    uint64_t key, digest, at_ns;  // key 0: empty
};

struct side {
    struct net_sampler *sampler;
    int fd;
    struct loop_watch *watch;
};

struct net_sampler {
    struct interceptor *it;
    struct side sides[2];
    struct loop_timer *pause;
    uint64_t entered, matched;
    struct slot slots[SLOTS];
};

// ---- Which packet it is -------------------------------------------------------------------------

static uint64_t mix(uint64_t hash, const uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)  // FNV-1a
        hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
    return hash;
}

struct identity {
    uint64_t key, digest;
};

// Behind the IP header: what stays the same though check sums are finished on the way.
static void identify_transport(struct identity *id, int protocol, const uint8_t *at, size_t bytes)
{
    size_t header = protocol == IPPROTO_TCP && bytes >= 20 ? (size_t)(at[12] >> 4) * 4 : 8;

    if (protocol == IPPROTO_TCP && bytes >= 12)
        id->key = mix(id->key, at, 12);  // ports, both numbers
    else if (protocol == IPPROTO_UDP && bytes >= 6)
        id->key = mix(id->key, at, 6);  // ports, length
    else if (bytes >= 8) {
        id->key = mix(id->key, at, 2);  // of ICMP: type, code, and what is behind the check sum
        id->key = mix(id->key, at + 4, 4);
    }
    if (bytes > header)
        id->digest = mix(id->digest, at + header, bytes - header);
}

// False: not one that is sampled.
static bool identify(const uint8_t *frame, size_t bytes, struct identity *id)
{
    const uint8_t *ip = frame + ETH_HLEN;

    *id = (struct identity){UINT64_C(0xcbf29ce484222325), UINT64_C(0xcbf29ce484222325)};
    if (bytes < ETH_HLEN + 20)
        return false;
    bytes -= ETH_HLEN;
    size_t header = (size_t)(ip[0] & 15) * 4;
    if (ip[0] >> 4 == 4 && header >= 20 && header <= bytes) {
        id->key = mix(id->key, ip + 2, 6);  // length, identification, fragment
        id->key = mix(id->key, ip + 9, 1);
        id->key = mix(id->key, ip + 12, 8);
        size_t whole = (size_t)ip[2] << 8 | ip[3];
        if (whole >= header && whole < bytes)  // padding is none of it
            bytes = whole;
        identify_transport(id, ip[9], ip + header, bytes - header);
    } else if (ip[0] >> 4 == 6 && bytes >= 40) {
        id->key = mix(id->key, ip + 4, 3);  // length, next header
        id->key = mix(id->key, ip + 8, 32);
        identify_transport(id, ip[6], ip + 40, bytes - 40);
    } else
        return false;
    id->key |= 1;
    return true;
}

// ---- In and out ---------------------------------------------------------------------------------

static void observe(struct net_sampler *sampler, const struct identity *id, bool enters,
                    uint64_t at_ns)
{
    struct slot *slot = &sampler->slots[(id->key >> 1) % SLOTS];

    if (enters) {
        *slot = (struct slot){id->key, id->digest, at_ns};
        sampler->entered++;
        return;
    }
    if (slot->key != id->key || at_ns < slot->at_ns || at_ns - slot->at_ns > LATENCY_MAX_NS)
        return;
    sampler->matched++;
    counters_latency(&sampler->it->counters, at_ns - slot->at_ns);
    if (slot->digest != id->digest)
        counter_add(&sampler->it->counters.changed, 1);
    slot->key = 0;
}

// One packet; false: there is none.
static bool take(struct side *side)
{
    uint8_t frame[SEEN_BYTES];
    char control[CMSG_SPACE(sizeof(struct timespec))];
    struct sockaddr_ll from = {0};
    struct iovec iov = {frame, sizeof(frame)};
    struct msghdr message = {.msg_name = &from,
                             .msg_namelen = sizeof(from),
                             .msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof(control)};
    ssize_t bytes = recvmsg(side->fd, &message, MSG_DONTWAIT);
    struct identity id;
    struct timespec at;

    if (bytes < 0)
        return errno == EINTR;
    const struct cmsghdr *stamp = CMSG_FIRSTHDR(&message);
    if (!stamp || stamp->cmsg_type != SCM_TIMESTAMPNS || !identify(frame, (size_t)bytes, &id))
        return true;
    memcpy(&at, CMSG_DATA(stamp), sizeof(at));
    // What the host puts into a tap is what goes into a guest.
    observe(side->sampler, &id, from.sll_pkttype == PACKET_OUTGOING,
            (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec);
    return true;
}

static void readable(void *opaque, unsigned events)
{
    struct side *side = opaque;
    struct net_sampler *sampler = side->sampler;
    unsigned count = 0;

    (void)events;
    while (count < BURST && take(side))
        count++;
    if (count < BURST)
        return;
    for (size_t i = 0; i < 2; i++)
        loop_watch_set(sampler->sides[i].watch, 0);
    loop_timer_start(sampler->pause, PAUSE_MS);
}

static void go_on(void *opaque)
{
    struct net_sampler *sampler = opaque;

    for (size_t i = 0; i < 2; i++)
        loop_watch_set(sampler->sides[i].watch, LOOP_READABLE);
}

// ---- Its life -----------------------------------------------------------------------------------

// One of 16 numbers of IPv4 packets, and of IPv6 packets one of 16 values of a byte that TCP's
// sequence numbers and echo requests change often. Offsets are of Ethernet frames; tags of VLANs
// are beside the frame here.
static int attach_filter(int fd)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 12),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETHERTYPE_IP, 0, 2),
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, ETH_HLEN + 5),
        BPF_JUMP(BPF_JMP | BPF_JA, 2, 0, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETHERTYPE_IPV6, 0, 3),
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, ETH_HLEN + 40 + 6),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 15, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SEEN_BYTES),
        BPF_STMT(BPF_RET | BPF_K, 0),
    };
    const struct sock_fprog program = {BASE_COUNT_OF(code), code};

    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program));
}

static int side_open(struct side *side, const char *device)
{
    int on = 1, buffer_bytes = 1 << 17;
    struct sockaddr_ll address = {.sll_family = AF_PACKET,
                                  .sll_protocol = htons(ETH_P_ALL),
                                  .sll_ifindex = (int)if_nametoindex(device)};

    side->fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (side->fd < 0 || attach_filter(side->fd) ||
        setsockopt(side->fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof(on)) ||
        setsockopt(side->fd, SOL_SOCKET, SO_RCVBUF, &buffer_bytes, sizeof(buffer_bytes)) ||
        bind(side->fd, (struct sockaddr *)&address, sizeof(address)))
        return -errno;
    return loop_watch_create(side->sampler->it->loop, side->fd, LOOP_READABLE, readable, side,
                             &side->watch);
}

struct net_sampler *net_sampler_create(struct interceptor *it, const char *outer, const char *inner)
{
    struct net_sampler *sampler = calloc(1, sizeof(*sampler));
    if (!sampler)
        return NULL;
    sampler->it = it;
    for (size_t i = 0; i < 2; i++)
        sampler->sides[i] = (struct side){.sampler = sampler, .fd = -1};
    int failure = loop_timer_create(it->loop, go_on, sampler, &sampler->pause);
    for (size_t i = 0; i < 2 && !failure; i++)
        failure = side_open(&sampler->sides[i], i ? inner : outer);
    if (!failure)
        return sampler;
    log_line(LOG_WARN, "latency is not measured: %s", strerror(-failure));
    net_sampler_destroy(sampler);
    return NULL;
}

void net_sampler_destroy(struct net_sampler *sampler)
{
    if (!sampler)
        return;
    for (size_t i = 0; i < 2; i++) {
        loop_watch_close(sampler->sides[i].watch);
        if (sampler->sides[i].fd >= 0)
            close(sampler->sides[i].fd);
    }
    loop_timer_close(sampler->pause);
    free(sampler);
}

json_t *net_sampler_stats(const struct net_sampler *sampler)
{
    return json_pack("{s:I, s:I}", "entered", (json_int_t)(sampler ? sampler->entered : 0),
                     "matched", (json_int_t)(sampler ? sampler->matched : 0));
}
