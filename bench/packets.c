// SPDX-License-Identifier: BSD-2-Clause
// packets: sends Ethernet frames with UDP in them out of one interface and takes them from another,
// to measure what lies between.
//
//     packets flood [OPTION...] FROM TO    packets a second that arrive
//     packets ping  [OPTION...] FROM TO    ns of round trips: FROM to TO, answered from TO to FROM
//
// FROM and TO are interfaces, NETNS/NAME for one in a network namespace that `ip netns` knows. What
// it measured is written as one line of JSON.
//
// A flood has at most a window of packets on the way, and sends when they arrive: so it measures
// what gets through, and takes no processor time for what would be lost before it is looked at. It
// looks every 200 us while it waits.
// Packets that have not arrived once none did for LOST_MS are lost.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    BATCH = 64,
    LOOK_NS = 200000,
    LOST_MS = 20,
    PING_LOST_MS = 1000,
    FCS_BYTES = 4,
    FRAME_BYTES_MAX = 1518
};
enum { SOCKET_BYTES = 4 << 20, SAMPLES_MAX = 1 << 20, WARM_PINGS = 100 };
#define MAGIC 0x5354524bu

static const char usage[] =
    "usage: packets flood|ping [OPTION...] FROM TO\n"
    "  FROM, TO           interfaces: [NETNS/]NAME\n"
    "  --seconds N        how long (2)\n"
    "  --bytes N          of a frame, with its check sequence (64)\n"
    "  --flows N          that packets are of in turn: ports of the sender (1)\n"
    "  --window N         flood: packets on the way (512)\n"
    "  --interval N       ping: microseconds from one answer to the next request (0)\n"
    "  --from-mac MAC, --to-mac MAC, --from-ip ADDR, --to-ip ADDR\n"
    "                     of the two ends (02:00:5e:00:00:01, ..:02, 198.18.0.1, 198.18.0.2)\n";

struct end {
    int fd;
    struct ether_addr_bytes {
        uint8_t bytes[ETH_ALEN];
    } mac;
    struct in_addr ip;
};

struct options {
    double seconds;
    unsigned bytes, flows, window, interval_us;
    struct end from, to;
};

struct frame {
    struct ethhdr ethernet;
    struct iphdr ip;
    struct udphdr udp;
    uint32_t magic, sequence;
} __attribute__((packed));

_Static_assert(sizeof(struct frame) <= 64 - FCS_BYTES, "the smallest frame has room for it");

static void fail(const char *what, const char *which)
{
    fprintf(stderr, "packets: cannot %s \"%s\": %s\n", what, which, strerror(errno));
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

// ---- Interfaces ---------------------------------------------------------------------------------

static int open_interface(const char *name)
{
    struct sockaddr_ll address = {.sll_family = AF_PACKET,
                                  .sll_protocol = htons(ETH_P_IP),
                                  .sll_ifindex = (int)if_nametoindex(name)};
    int one = 1, bytes = SOCKET_BYTES;
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (address.sll_ifindex == 0 || fd < 0 ||
        setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof(one)) < 0 ||
        setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof(one)) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) < 0 ||
        bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        fail("use interface", name);
    return fd;
}

// A socket stays in the namespace that it was made in.
static int open_end(char *where)
{
    char path[256];
    char *slash = strchr(where, '/');
    int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);

    if (slash) {
        *slash = 0;
        snprintf(path, sizeof(path), "/run/netns/%s", where);
        int there = open(path, O_RDONLY | O_CLOEXEC);
        if (there < 0 || setns(there, CLONE_NEWNET) < 0)
            fail("enter network namespace", where);
        close(there);
    }
    int fd = open_interface(slash ? slash + 1 : where);
    if (slash && setns(home, CLONE_NEWNET) < 0)
        fail("come back from network namespace", where);
    close(home);
    return fd;
}

// ---- Frames -------------------------------------------------------------------------------------

static uint16_t ip_checksum(const struct iphdr *ip)
{
    uint16_t words[sizeof(*ip) / 2];
    uint32_t sum = 0;

    memcpy(words, ip, sizeof(words));
    for (unsigned i = 0; i < sizeof(*ip) / 2; i++)
        sum += words[i];
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t) ~(sum + (sum >> 16));
}

// UDP's check sum is 0: there is none.
static void frame_fill(uint8_t *bytes, const struct options *options, const struct end *from,
                       const struct end *to, uint32_t sequence)
{
    unsigned length = options->bytes - FCS_BYTES;
    uint16_t ip_bytes = (uint16_t)(length - sizeof(struct ethhdr));
    uint16_t udp_bytes = (uint16_t)(ip_bytes - sizeof(struct iphdr));
    struct frame frame = {
        .ethernet.h_proto = htons(ETH_P_IP),
        .ip = {.version = 4,
               .ihl = 5,
               .tot_len = htons(ip_bytes),
               .ttl = 64,
               .protocol = IPPROTO_UDP,
               .saddr = from->ip.s_addr,
               .daddr = to->ip.s_addr},
        .udp = {.uh_sport = htons(1024 + sequence % options->flows),
                .uh_dport = htons(9),
                .uh_ulen = htons(udp_bytes)},
        .magic = MAGIC,
        .sequence = sequence,
    };

    memcpy(frame.ethernet.h_source, from->mac.bytes, ETH_ALEN);
    memcpy(frame.ethernet.h_dest, to->mac.bytes, ETH_ALEN);
    struct iphdr ip = frame.ip;
    frame.ip.check = ip_checksum(&ip);
    memcpy(bytes, &frame, sizeof(frame));
}

static bool frame_ours(const uint8_t *bytes, size_t length, uint32_t *sequence)
{
    struct frame frame;

    if (length < sizeof(frame))
        return false;
    memcpy(&frame, bytes, sizeof(frame));
    *sequence = frame.sequence;
    return frame.ip.protocol == IPPROTO_UDP && frame.magic == MAGIC;
}

// ---- Flood --------------------------------------------------------------------------------------

struct flood {
    const struct options *options;
    uint64_t sent, arrived, lost;
    uint64_t arrived_ns;  // when the last did
    uint8_t frames[BATCH][FRAME_BYTES_MAX];
    struct iovec iov[BATCH];
    struct mmsghdr messages[BATCH];
};

static unsigned on_the_way(const struct flood *flood)
{
    return (unsigned)(flood->sent - flood->arrived - flood->lost);
}

static void messages_set(struct flood *flood, size_t bytes)
{
    for (unsigned i = 0; i < BATCH; i++) {
        flood->iov[i] = (struct iovec){flood->frames[i], bytes};
        flood->messages[i].msg_hdr = (struct msghdr){.msg_iov = &flood->iov[i], .msg_iovlen = 1};
    }
}

static void flood_send(struct flood *flood)
{
    const struct options *options = flood->options;

    while (on_the_way(flood) < options->window) {
        unsigned count = options->window - on_the_way(flood);
        if (count > BATCH)
            count = BATCH;
        messages_set(flood, options->bytes - FCS_BYTES);
        for (unsigned i = 0; i < count; i++)
            frame_fill(flood->frames[i], options, &options->from, &options->to,
                       (uint32_t)(flood->sent + i));
        int sent = sendmmsg(options->from.fd, flood->messages, count, 0);
        if (sent < 0 && errno != EAGAIN && errno != ENOBUFS && errno != EINTR)
            fail("send to", "FROM");
        if (sent <= 0)
            return;
        flood->sent += (unsigned)sent;
    }
}

static void flood_receive(struct flood *flood)
{
    int count;
    uint32_t sequence;

    do {
        messages_set(flood, sizeof(flood->frames[0]));
        count = recvmmsg(flood->options->to.fd, flood->messages, BATCH, MSG_DONTWAIT, NULL);
        for (int i = 0; i < count; i++)
            flood->arrived += frame_ours(flood->frames[i], flood->messages[i].msg_len, &sequence);
        if (count > 0)
            flood->arrived_ns = now_ns();
    } while (count == BATCH);
}

// Not woken by each packet: what it costs to look would be missed by what is measured, where the
// two share processors. What was thought lost may arrive late.
static void flood_wait(struct flood *flood)
{
    flood_receive(flood);
    if (on_the_way(flood) > flood->options->window / 2) {
        nanosleep(&(struct timespec){.tv_nsec = LOOK_NS}, NULL);
        flood_receive(flood);
    }
    if (flood->arrived + flood->lost > flood->sent ||
        now_ns() - flood->arrived_ns > LOST_MS * 1000000ull)
        flood->lost = flood->sent - flood->arrived;
}

static void flood(const struct options *options)
{
    uint64_t start = now_ns(), end = start + (uint64_t)(options->seconds * 1e9);
    struct flood flood = {.options = options, .arrived_ns = start};

    while (now_ns() < end) {
        if (on_the_way(&flood) <= options->window / 2)
            flood_send(&flood);
        flood_wait(&flood);
    }
    double seconds = (double)(now_ns() - start) / 1e9;
    printf("{\"pps\": %.0f, \"sent\": %llu, \"arrived\": %llu, \"lost\": %llu}\n",
           (double)flood.arrived / seconds, (unsigned long long)flood.sent,
           (unsigned long long)flood.arrived, (unsigned long long)flood.lost);
}

// ---- Ping ---------------------------------------------------------------------------------------

// Sends one frame and waits for it; false when it is lost.
static bool cross(const struct options *options, const struct end *from, const struct end *to,
                  uint32_t sequence)
{
    uint8_t bytes[FRAME_BYTES_MAX] = {0};
    struct pollfd readable = {.fd = to->fd, .events = POLLIN};
    uint64_t deadline = now_ns() + PING_LOST_MS * 1000000ull;
    uint32_t seen;

    frame_fill(bytes, options, from, to, sequence);
    if (send(from->fd, bytes, options->bytes - FCS_BYTES, 0) < 0)
        return false;
    while (now_ns() < deadline) {
        poll(&readable, 1, PING_LOST_MS);
        ssize_t count = recv(to->fd, bytes, sizeof(bytes), 0);
        if (count > 0 && frame_ours(bytes, (size_t)count, &seen) && seen == sequence)
            return true;
    }
    return false;
}

static int compare_samples(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

static void ping(const struct options *options)
{
    static uint64_t samples[SAMPLES_MAX];
    uint64_t end = now_ns() + (uint64_t)(options->seconds * 1e9);
    unsigned count = 0, lost = 0;

    for (uint32_t i = 0; now_ns() < end && count < SAMPLES_MAX; i++) {
        uint64_t start = now_ns();
        bool back = cross(options, &options->from, &options->to, 2 * i) &&
                    cross(options, &options->to, &options->from, 2 * i + 1);
        if (i < WARM_PINGS)
            continue;
        if (back)
            samples[count++] = now_ns() - start;
        else
            lost++;
        if (options->interval_us)
            usleep(options->interval_us);
    }
    qsort(samples, count, sizeof(samples[0]), compare_samples);
    printf("{\"count\": %u, \"lost\": %u", count, lost);
    if (count > 0)
        printf(", \"p50_ns\": %llu, \"p90_ns\": %llu, \"p99_ns\": %llu, \"max_ns\": %llu",
               (unsigned long long)samples[count / 2], (unsigned long long)samples[count * 9 / 10],
               (unsigned long long)samples[count * 99 / 100],
               (unsigned long long)samples[count - 1]);
    printf("}\n");
}

// ---- Command line -------------------------------------------------------------------------------

static void refuse(void)
{
    fputs(usage, stderr);
    exit(2);
}

static unsigned number(const char *text, unsigned min, unsigned max)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    if (!*text || *end || value < min || value > max)
        refuse();
    return (unsigned)value;
}

static struct ether_addr_bytes mac(const char *text)
{
    struct ether_addr_bytes mac;
    char *end;

    for (unsigned i = 0; i < ETH_ALEN; i++, text = end + 1) {
        mac.bytes[i] = (uint8_t)strtoul(text, &end, 16);
        if (end == text || *end != (i < ETH_ALEN - 1 ? ':' : 0))
            refuse();
    }
    return mac;
}

static struct in_addr ip(const char *text)
{
    struct in_addr ip;
    if (inet_pton(AF_INET, text, &ip) != 1)
        refuse();
    return ip;
}

static void take_options(struct options *options, int argc, char **argv)
{
    static const struct option names[] = {
        {"seconds", 1, NULL, 's'}, {"bytes", 1, NULL, 'b'},    {"flows", 1, NULL, 'f'},
        {"window", 1, NULL, 'w'},  {"interval", 1, NULL, 'i'}, {"from-mac", 1, NULL, 'm'},
        {"to-mac", 1, NULL, 'M'},  {"from-ip", 1, NULL, 'a'},  {"to-ip", 1, NULL, 'A'},
        {NULL, 0, NULL, 0},
    };
    int letter;

    while ((letter = getopt_long(argc, argv, "", names, NULL)) >= 0)
        switch (letter) {
        case 's':
            options->seconds = number(optarg, 1, 3600);
            break;
        case 'b':
            options->bytes = number(optarg, sizeof(struct frame) + FCS_BYTES, FRAME_BYTES_MAX);
            break;
        case 'f':
            options->flows = number(optarg, 1, 60000);
            break;
        case 'w':
            options->window = number(optarg, 1, 1 << 20);
            break;
        case 'i':
            options->interval_us = number(optarg, 0, 1000000);
            break;
        case 'm':
            options->from.mac = mac(optarg);
            break;
        case 'M':
            options->to.mac = mac(optarg);
            break;
        case 'a':
            options->from.ip = ip(optarg);
            break;
        case 'A':
            options->to.ip = ip(optarg);
            break;
        default:
            refuse();
        }
}

int main(int argc, char **argv)
{
    struct options options = {
        .seconds = 2,
        .bytes = 64,
        .flows = 1,
        .window = 512,
        .from = {.mac = mac("02:00:5e:00:00:01"), .ip = ip("198.18.0.1")},
        .to = {.mac = mac("02:00:5e:00:00:02"), .ip = ip("198.18.0.2")},
    };

    if (argc < 4)
        refuse();
    take_options(&options, argc - 1, argv + 1);
    if (optind + 3 != argc)
        refuse();
    options.from.fd = open_end(argv[argc - 2]);
    options.to.fd = open_end(argv[argc - 1]);
    if (strcmp(argv[1], "flood") == 0)
        flood(&options);
    else if (strcmp(argv[1], "ping") == 0)
        ping(&options);
    else
        refuse();
    return 0;
}
