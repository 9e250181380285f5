// SPDX-License-Identifier: BSD-2-Clause
// User-mode networking, seen from a guest that speaks just enough of each protocol: ARP, DHCP,
// ping, UDP to a server on the host's loopback (with the checksum done and left to the device), a
// connection through a port forward as far as its first segment, also when descriptors run out, and
// frames that nobody takes.
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "usernet/usernet.h"
#include "virtio_driver.h"

enum { RECEIVE, TRANSMIT, QUEUES };
enum { QUEUE_SIZE = 64, HEADER = 12, BUFFER_BYTES = 12 + 65535 + 18, SEND_BYTES = 65536 };
#define F_CSUM (1ull << 0)
#define F_GUEST_CSUM (1ull << 1)
#define F_MAC (1ull << 5)
#define F_GUEST_TSO4 (1ull << 7)
#define F_GUEST_TSO6 (1ull << 8)
#define F_HOST_TSO4 (1ull << 11)
#define F_HOST_TSO6 (1ull << 12)
#define F_MRG_RXBUF (1ull << 15)
#define F_STATUS (1ull << 16)

enum { NEEDS_CSUM = 1, DATA_VALID = 2 };
enum { ETHERNET = 14, IP = 20, UDP = 8, PAYLOAD = ETHERNET + IP + UDP };
enum { TYPE_IP = 0x0800, TYPE_ARP = 0x0806 };
enum { PROTOCOL_ICMP = 1, PROTOCOL_TCP = 6, PROTOCOL_UDP = 17 };

#define GUEST_IP 0x0a00020fu
#define HOST_IP 0x0a000202u
static const uint8_t guest_mac[6] = {0x52, 0x54, 0, 1, 2, 3};
static const uint8_t broadcast_mac[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

struct fixture {
    struct driver driver;
    struct usernet_process process;
    uint64_t receive_gpa[QUEUE_SIZE], send_gpa;
    uint8_t header[HEADER];  // of the frame received last
    uint8_t frame[BUFFER_BYTES];
    size_t frame_bytes;
    uint8_t host_mac[6];  // of 10.0.2.2
    uint32_t random;
};

// ---- The device ---------------------------------------------------------------------------------

static void process_open(struct fixture *fixture, const struct usernet_forward *forwards,
                         size_t count)
{
    struct error err = {0};

    if (usernet_launch(&fixture->process, forwards, count, &err))
        fail_msg("%s", err.message);
}

static void device_attach(struct fixture *fixture)
{
    struct virtio_device *device;
    struct virtio_net_config config = {.pairs = 1, .fds = {fixture->process.fd}};
    struct error err = {0};

    memcpy(config.mac, guest_mac, sizeof(guest_mac));
    if (virtio_net_create(&device, &fixture->driver.wiring, &config, &err))
        fail_msg("%s", err.message);
    driver_attach(&fixture->driver, device);
}

static void device_open(struct fixture *fixture, const struct usernet_forward *forwards,
                        size_t count)
{
    driver_open(&fixture->driver);
    process_open(fixture, forwards, count);
    device_attach(fixture);
}

static void device_close(struct fixture *fixture)
{
    driver_close(&fixture->driver);
    usernet_reap(&fixture->process);
}

static void buffer_offer(struct fixture *fixture, unsigned index)
{
    struct driver_buffer buffer = {fixture->receive_gpa[index], BUFFER_BYTES, true};
    fixture->driver.queues[RECEIVE].next_desc = index;
    driver_send(&fixture->driver, RECEIVE, &buffer, 1);
}

static void start(struct fixture *fixture, uint64_t features, unsigned buffers)
{
    driver_start(&fixture->driver, features, QUEUES, QUEUE_SIZE);
    fixture->send_gpa = driver_alloc(&fixture->driver, SEND_BYTES);
    for (unsigned i = 0; i < QUEUE_SIZE; i++)
        fixture->receive_gpa[i] = driver_alloc(&fixture->driver, BUFFER_BYTES);
    for (unsigned i = 0; i < buffers; i++)
        buffer_offer(fixture, i);
}

static int setup(void **state)
{
    static struct fixture fixture;
    device_open(&fixture, NULL, 0);
    start(&fixture, F_MRG_RXBUF, QUEUE_SIZE);
    *state = &fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    device_close(fixture);
    return 0;
}

static uint32_t random_next(struct fixture *fixture)
{
    fixture->random = fixture->random * 1664525 + 1013904223;
    return fixture->random >> 8;
}

static void frame_send(struct fixture *fixture, const uint8_t header[HEADER], const void *frame,
                       size_t bytes)
{
    struct driver_buffer buffer = {fixture->send_gpa, HEADER + bytes, false};
    static const uint8_t no_header[HEADER];
    uint8_t *ram = driver_ram(&fixture->driver, fixture->send_gpa);

    memcpy(ram, header ? header : no_header, HEADER);
    memcpy(ram + HEADER, frame, bytes);
    driver_wait(&fixture->driver, TRANSMIT, driver_send(&fixture->driver, TRANSMIT, &buffer, 1));
}

static void frame_receive(struct fixture *fixture)
{
    struct driver_used used = driver_wait_any(&fixture->driver, RECEIVE);
    const uint8_t *ram = driver_ram(&fixture->driver, fixture->receive_gpa[used.head]);

    memcpy(fixture->header, ram, HEADER);
    fixture->frame_bytes = used.written - HEADER;
    memcpy(fixture->frame, ram + HEADER, fixture->frame_bytes);
    buffer_offer(fixture, used.head);
}

// ---- Protocols ----------------------------------------------------------------------------------

static void put16(uint8_t *bytes, uint16_t value)
{
    bytes[0] = value >> 8;
    bytes[1] = value & 0xff;
}

static void put32(uint8_t *bytes, uint32_t value)
{
    put16(bytes, value >> 16);
    put16(bytes + 2, value);
}

static uint16_t get16(const uint8_t *bytes)
{
    return bytes[0] << 8 | bytes[1];
}

static uint32_t get32(const uint8_t *bytes)
{
    return (uint32_t)get16(bytes) << 16 | get16(bytes + 2);
}

static uint32_t sum16(uint32_t sum, const uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        sum += bytes[i] << (i % 2 ? 0 : 8);
    return sum;
}

static uint16_t fold(uint32_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}

static void ethernet_put(uint8_t *frame, const uint8_t *to, uint16_t type)
{
    memcpy(frame, to, 6);
    memcpy(frame + 6, guest_mac, 6);
    put16(frame + 12, type);
}

static void ip_put(uint8_t *frame, const uint8_t *to_mac, uint32_t from, uint32_t to,
                   uint8_t protocol, size_t payload_bytes)
{
    uint8_t *ip = frame + ETHERNET;

    ethernet_put(frame, to_mac, TYPE_IP);
    memset(ip, 0, IP);
    ip[0] = 0x45;
    put16(ip + 2, IP + payload_bytes);
    ip[8] = 64;
    ip[9] = protocol;
    put32(ip + 12, from);
    put32(ip + 16, to);
    put16(ip + 10, ~fold(sum16(0, ip, IP)));
}

static uint32_t pseudo_sum(const uint8_t *frame)
{
    const uint8_t *ip = frame + ETHERNET;
    return sum16(ip[9] + get16(ip + 2) - IP, ip + 12, 8);
}

// A UDP datagram whose payload is in place; the checksum field is left to the caller. Returns the
// length of the frame.
static size_t udp_put(uint8_t *frame, const uint8_t *to_mac, uint32_t from, uint16_t from_port,
                      uint32_t to, uint16_t to_port, size_t bytes)
{
    uint8_t *udp = frame + ETHERNET + IP;

    ip_put(frame, to_mac, from, to, PROTOCOL_UDP, UDP + bytes);
    put16(udp, from_port);
    put16(udp + 2, to_port);
    put16(udp + 4, UDP + bytes);
    put16(udp + 6, 0);
    return PAYLOAD + bytes;
}

static size_t arp_put(uint8_t *frame, uint16_t operation, const uint8_t *to_mac, uint32_t to)
{
    uint8_t *arp = frame + ETHERNET;

    ethernet_put(frame, to_mac, TYPE_ARP);
    put16(arp, 1);
    put16(arp + 2, TYPE_IP);
    arp[4] = 6;
    arp[5] = 4;
    put16(arp + 6, operation);
    memcpy(arp + 8, guest_mac, 6);
    put32(arp + 14, GUEST_IP);
    memcpy(arp + 18, to_mac, 6);
    put32(arp + 24, to);
    return ETHERNET + 28;
}

// Is the frame an IPv4 packet of this protocol with checksums that are right? Where the rest is
// left to the guest there is the sum of the pseudo header.
static bool is_ip(const struct fixture *fixture, uint8_t protocol)
{
    const uint8_t *ip = fixture->frame + ETHERNET;

    if (get16(fixture->frame + 12) != TYPE_IP || ip[9] != protocol)
        return false;
    assert_int_equal(fold(sum16(0, ip, IP)), 0xffff);
    if (fixture->header[0] == NEEDS_CSUM)
        assert_int_equal(get16(ip + IP + 16), fold(pseudo_sum(fixture->frame)));
    else if (protocol != PROTOCOL_ICMP)
        assert_int_equal(fold(sum16(pseudo_sum(fixture->frame), ip + IP, get16(ip + 2) - IP)),
                         0xffff);
    return true;
}

// Answers ARP requests for the guest's address and drops all else (router advertisements) until a
// packet of the protocol is there.
static void ip_receive(struct fixture *fixture, uint8_t protocol)
{
    uint8_t reply[ETHERNET + 28];

    for (frame_receive(fixture); !is_ip(fixture, protocol); frame_receive(fixture)) {
        const uint8_t *arp = fixture->frame + ETHERNET;
        if (get16(fixture->frame + 12) == TYPE_ARP && get16(arp + 6) == 1 &&
            get32(arp + 24) == GUEST_IP)
            frame_send(fixture, NULL, reply, arp_put(reply, 2, arp + 8, get32(arp + 14)));
    }
}

// Learns the host's MAC address, and makes the guest's known.
static void arp_host(struct fixture *fixture)
{
    uint8_t request[ETHERNET + 28];

    frame_send(fixture, NULL, request, arp_put(request, 1, broadcast_mac, HOST_IP));
    do
        frame_receive(fixture);
    while (get16(fixture->frame + 12) != TYPE_ARP || get16(fixture->frame + ETHERNET + 6) != 2);
    assert_int_equal(get32(fixture->frame + ETHERNET + 14), HOST_IP);
    assert_memory_equal(fixture->frame, guest_mac, 6);
    memcpy(fixture->host_mac, fixture->frame + ETHERNET + 8, 6);
}

// A server on the host's loopback that sends back what it gets, if asked to: returns its socket.
static int udp_server(uint16_t *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&address, length), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    *port = ntohs(address.sin_port);
    return fd;
}

static void udp_echo_once(int fd)
{
    static uint8_t bytes[65536];
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    struct sockaddr_in from = {0};
    socklen_t length = sizeof(from);

    assert_int_equal(poll(&wait, 1, 20000), 1);
    ssize_t count = recvfrom(fd, bytes, sizeof(bytes), 0, (struct sockaddr *)&from, &length);
    assert_true(count >= 0);
    assert_int_equal(from.sin_addr.s_addr, htonl(INADDR_LOOPBACK));
    assert_int_equal(sendto(fd, bytes, count, 0, (struct sockaddr *)&from, length), count);
}

// ---- Tests --------------------------------------------------------------------------------------

static void test_features(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(driver_offered(&fixture->driver),
                     F_VERSION_1 | F_EVENT_IDX | F_INDIRECT | F_MAC | F_MRG_RXBUF | F_STATUS |
                         F_CSUM | F_GUEST_CSUM | F_HOST_TSO4 | F_HOST_TSO6 | F_GUEST_TSO4 |
                         F_GUEST_TSO6);
}

static void test_dhcp(void **state)
{
    struct fixture *fixture = *state;
    uint8_t frame[PAYLOAD + 300] = {0}, *bootp = frame + PAYLOAD;
    static const uint8_t options[] = {0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255};  // DISCOVER

    bootp[0] = bootp[1] = 1;
    bootp[2] = 6;
    put32(bootp + 4, 0x12345678);
    memcpy(bootp + 28, guest_mac, 6);
    memcpy(bootp + 236, options, sizeof(options));
    frame_send(fixture, NULL, frame, udp_put(frame, broadcast_mac, 0, 68, UINT32_MAX, 67, 300));
    ip_receive(fixture, PROTOCOL_UDP);
    const uint8_t *offer = fixture->frame + PAYLOAD;
    assert_int_equal(offer[0], 2);
    assert_int_equal(get32(offer + 4), 0x12345678);
    assert_int_equal(get32(offer + 16), GUEST_IP);
    assert_int_equal(get32(fixture->frame + ETHERNET + 12), HOST_IP);
}

static void test_ping(void **state)
{
    struct fixture *fixture = *state;
    uint8_t frame[ETHERNET + IP + 64], *icmp = frame + ETHERNET + IP;

    arp_host(fixture);
    memset(icmp, 0x5a, 64);
    put32(icmp, 8 << 24);
    put16(icmp + 2, ~fold(sum16(0, icmp, 64)));
    ip_put(frame, fixture->host_mac, GUEST_IP, HOST_IP, PROTOCOL_ICMP, 64);
    frame_send(fixture, NULL, frame, sizeof(frame));
    ip_receive(fixture, PROTOCOL_ICMP);
    const uint8_t *reply = fixture->frame + ETHERNET + IP;
    assert_int_equal(reply[0], 0);
    assert_memory_equal(reply + 4, icmp + 4, 60);
    assert_int_equal(fixture->header[0], 0);  // DATA_VALID is for drivers that know it
}

// Datagrams of several lengths to 10.0.2.2, which is the host's loopback, and back.
static void test_udp(void **state)
{
    struct fixture *fixture = *state;
    static const size_t lengths[] = {0, 1, 2, 77, 1000, 1472};
    uint8_t frame[PAYLOAD + 1472], *payload = frame + PAYLOAD;
    uint16_t port;
    int server = udp_server(&port);

    arp_host(fixture);
    for (size_t i = 0; i < BASE_COUNT_OF(lengths); i++) {
        for (size_t j = 0; j < lengths[i]; j++)
            payload[j] = i * 31 + j;
        size_t bytes = udp_put(frame, fixture->host_mac, GUEST_IP, 4000, HOST_IP, port, lengths[i]);
        put16(frame + PAYLOAD - 2,
              ~fold(sum16(pseudo_sum(frame), frame + ETHERNET + IP, UDP + lengths[i])));
        frame_send(fixture, NULL, frame, bytes);
        udp_echo_once(server);
        ip_receive(fixture, PROTOCOL_UDP);
        assert_int_equal(get16(fixture->frame + ETHERNET + IP), port);
        assert_int_equal(get16(fixture->frame + ETHERNET + IP + 2), 4000);
        assert_int_equal(get16(fixture->frame + ETHERNET + IP + 4), UDP + lengths[i]);
        assert_memory_equal(fixture->frame + PAYLOAD, payload, lengths[i]);
    }
    close(server);
}

// The guest leaves the sum of the pseudo header, and the device does the rest.
static void test_checksum_left(void **state)
{
    struct fixture *fixture = *state;
    static const size_t lengths[] = {0, 1, 2, 77, 1472, 40000};
    static uint8_t frame[PAYLOAD + 40000];
    uint8_t *payload = frame + PAYLOAD;
    uint8_t header[HEADER] = {NEEDS_CSUM, [6] = ETHERNET + IP, [8] = 6};
    uint8_t received[40000];
    uint16_t port;
    int server = udp_server(&port);

    start(fixture, F_MRG_RXBUF | F_CSUM | F_GUEST_CSUM | F_HOST_TSO4, QUEUE_SIZE);
    arp_host(fixture);
    for (size_t i = 0; i < BASE_COUNT_OF(lengths); i++) {
        struct pollfd wait = {.fd = server, .events = POLLIN};
        memset(payload, 0xa0 + i, lengths[i]);
        size_t bytes = udp_put(frame, fixture->host_mac, GUEST_IP, 4000, HOST_IP, port, lengths[i]);
        put16(frame + PAYLOAD - 2, fold(pseudo_sum(frame)));
        frame_send(fixture, header, frame, bytes);
        assert_int_equal(poll(&wait, 1, 20000), 1);
        assert_int_equal(recv(server, received, sizeof(received), 0), lengths[i]);
        assert_memory_equal(received, payload, lengths[i]);
    }
    // What comes back says that it needs no checking.
    size_t bytes = udp_put(frame, fixture->host_mac, GUEST_IP, 4000, HOST_IP, port, 5);
    put16(frame + PAYLOAD - 2, fold(pseudo_sum(frame)));
    frame_send(fixture, header, frame, bytes);
    udp_echo_once(server);
    ip_receive(fixture, PROTOCOL_UDP);
    assert_int_equal(fixture->header[0], DATA_VALID);
    close(server);
}

// Headers that point outside of their frames, and frames that are none: dropped.
static void test_garbage(void **state)
{
    struct fixture *fixture = *state;
    static const struct {
        uint16_t start, offset;
        size_t bytes;
    } bad[] = {
        {60, 0, 60},        {59, 0, 60},    {34, 25, 60}, {61, 0, 60},
        {65535, 65535, 60}, {0, 65535, 60}, {0, 0, 1},    {0, 0, 0},
    };
    uint8_t frame[60] = {0};

    start(fixture, F_MRG_RXBUF | F_CSUM, QUEUE_SIZE);
    for (size_t i = 0; i < BASE_COUNT_OF(bad); i++) {
        uint8_t header[HEADER] = {NEEDS_CSUM};
        memcpy(header + 6, &bad[i].start, 2);
        memcpy(header + 8, &bad[i].offset, 2);
        frame_send(fixture, header, frame, bad[i].bytes);
    }
    for (unsigned i = 0; i < 2000; i++) {
        for (size_t j = 0; j < sizeof(frame); j++)
            frame[j] = random_next(fixture);
        memcpy(frame, broadcast_mac, 6);
        put16(frame + 12, (const uint16_t[]){TYPE_IP, TYPE_ARP, 0x86dd}[i % 3]);
        if (i % 3 == 0)
            ip_put(frame, broadcast_mac, get32(frame + 26), HOST_IP, frame[30] % 20, 26);
        frame_send(fixture, NULL, frame, sizeof(frame));
    }
    arp_host(fixture);  // still at work
}

static void test_forward_refused(void **state)
{
    struct usernet_process process;
    struct error err = {0};
    char expected[128];
    uint16_t port;
    int server = udp_server(&port);
    struct usernet_forward forward = {
        .udp = true, .host_addr = {127, 0, 0, 1}, .host_port = port, .guest_port = 22};

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(usernet_launch(&process, &forward, 1, &err), -EADDRINUSE);
        snprintf(expected, sizeof(expected),
                 "cannot forward 127.0.0.1:%u to guest port 22: Address already in use", port);
        assert_string_equal(err.message, expected);
        // And the same for TCP.
        close(server);
        struct sockaddr_in address = {.sin_family = AF_INET,
                                      .sin_port = htons(port),
                                      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        server = socket(AF_INET, SOCK_STREAM, 0);
        assert_int_equal(bind(server, (struct sockaddr *)&address, sizeof(address)), 0);
        assert_int_equal(listen(server, 1), 0);
        forward.udp = false;
    }
    close(server);
}

// Finds a port that is free now. Another program may take it before we do; then the test says so.
static uint16_t free_port(void)
{
    uint16_t port;
    close(udp_server(&port));
    return port;
}

static double processor_seconds(pid_t pid)
{
    struct timespec used;
    clockid_t clock;

    assert_int_equal(clock_getcpuclockid(pid, &clock), 0);
    assert_int_equal(clock_gettime(clock, &used), 0);
    return (double)used.tv_sec + (double)used.tv_nsec * 1e-9;
}

// Without waiting: libslirp's queue of clients is short.
static int client_connect(uint16_t port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int client = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

    if (connect(client, (const struct sockaddr *)&address, sizeof(address)))
        assert_int_equal(errno, EINPROGRESS);
    return client;
}

static struct usernet_forward forward_to_22(void)
{
    return (struct usernet_forward){
        .host_addr = {127, 0, 0, 1}, .host_port = free_port(), .guest_port = 22};
}

// Takes the next request for a connection to the guest's port 22; returns the port it came from. An
// earlier connection may still have its end to tell, once or more often.
static uint16_t syn_receive(struct fixture *fixture)
{
    const uint8_t *tcp = fixture->frame + ETHERNET + IP;

    do {
        ip_receive(fixture, PROTOCOL_TCP);
    } while (tcp[13] & 1);  // FIN
    assert_int_equal(get32(fixture->frame + ETHERNET + 16), GUEST_IP);
    assert_int_equal(get16(tcp + 2), 22);
    assert_int_equal(tcp[13], 2);  // SYN
    return get16(tcp);
}

// Refuses the connection that was asked for last.
static void rst_send(struct fixture *fixture)
{
    const uint8_t *asked = fixture->frame + ETHERNET + IP;
    uint8_t frame[ETHERNET + IP + 20] = {0}, *tcp = frame + ETHERNET + IP;

    ip_put(frame, fixture->frame + 6, GUEST_IP, get32(fixture->frame + ETHERNET + 12), PROTOCOL_TCP,
           20);
    put16(tcp, 22);
    put16(tcp + 2, get16(asked));
    put32(tcp + 8, get32(asked + 4) + 1);
    tcp[12] = 5 << 4;
    tcp[13] = 0x14;  // RST, ACK
    put16(tcp + 16, ~fold(sum16(pseudo_sum(frame), tcp, 20)));
    frame_send(fixture, NULL, frame, sizeof(frame));
}

static void test_forward(void **state)
{
    static struct fixture fixture;
    struct usernet_forward forward = forward_to_22();

    (void)state;
    device_open(&fixture, &forward, 1);
    start(&fixture, F_MRG_RXBUF, QUEUE_SIZE);
    int client = client_connect(forward.host_port);
    syn_receive(&fixture);
    close(client);
    device_close(&fixture);
}

enum { MSS = 1460, SYN = 2, ACK = 0x10, FIRST_SEQUENCE = 1000 };

// Answers the segment received last: all up to `acknowledged` is there. A SYN offers MSS.
static void tcp_answer(struct fixture *fixture, uint8_t flags, uint32_t acknowledged)
{
    const uint8_t *asked = fixture->frame + ETHERNET + IP;
    uint8_t frame[ETHERNET + IP + 24] = {0}, *tcp = frame + ETHERNET + IP;
    size_t bytes = flags & SYN ? 24 : 20;

    ip_put(frame, fixture->frame + 6, GUEST_IP, get32(fixture->frame + ETHERNET + 12), PROTOCOL_TCP,
           bytes);
    put16(tcp, 22);
    put16(tcp + 2, get16(asked));
    put32(tcp + 4, flags & SYN ? FIRST_SEQUENCE : FIRST_SEQUENCE + 1);
    put32(tcp + 8, acknowledged);
    tcp[12] = bytes / 4 << 4;
    tcp[13] = flags;
    put16(tcp + 14, 65535);
    put32(tcp + 20, 2 << 24 | 4 << 16 | MSS);
    put16(tcp + 16, ~fold(sum16(pseudo_sum(frame), tcp, bytes)));
    frame_send(fixture, NULL, frame, ETHERNET + IP + bytes);
}

// What the host sends next to the guest's port; returns the payload's length, with `sequence` its
// place. Anything that comes again because the machine is busy is passed over.
static size_t tcp_receive(struct fixture *fixture, uint32_t sequence, const uint8_t **payload)
{
    const uint8_t *ip = fixture->frame + ETHERNET, *tcp = ip + IP;
    size_t bytes;

    do {
        ip_receive(fixture, PROTOCOL_TCP);
        bytes = get16(ip + 2) - IP - (tcp[12] >> 4) * 4u;
    } while (bytes == 0 || get32(tcp + 4) != sequence);
    *payload = tcp + (tcp[12] >> 4) * 4u;
    return bytes;
}

static void large_packet_check(const struct fixture *fixture)
{
    static const uint8_t expected[10] = {NEEDS_CSUM, 1, 54, 0, MSS & 0xff, MSS >> 8, 34, 0, 16, 0};
    assert_memory_equal(fixture->header, expected, sizeof(expected));
}

// The guest receives what the host sends through a forward; returns in how many packets.
static unsigned stream_receive(struct fixture *fixture, int client, bool large)
{
    enum { BYTES = 300007 };
    static uint8_t sent[BYTES];
    const uint8_t *payload;
    uint32_t base = get32(fixture->frame + ETHERNET + IP + 4) + 1;
    size_t written = 0, done = 0;
    unsigned packets = 0;

    for (size_t i = 0; i < BYTES; i++)
        sent[i] = i * 7 + i / 251;
    while (done < BYTES) {
        ssize_t count = send(client, sent + written, BYTES - written, MSG_DONTWAIT | MSG_NOSIGNAL);
        written += count > 0 ? count : 0;
        if (done == written)
            continue;
        size_t bytes = tcp_receive(fixture, base + done, &payload);
        assert_true(bytes <= BYTES - done);
        assert_memory_equal(payload, sent + done, bytes);
        if (bytes > MSS)
            large_packet_check(fixture);
        assert_true(large || bytes <= MSS);
        done += bytes;
        packets++;
        tcp_answer(fixture, ACK, base + done);
    }
    return packets;
}

// Segments come as large ones to the driver that takes them. Then another driver takes the device,
// which does not, and connections go on in small ones.
static void test_large(void **state)
{
    static struct fixture fixture;
    struct usernet_forward forward = forward_to_22();

    (void)state;
    device_open(&fixture, &forward, 1);
    for (unsigned turn = 0; turn < 4; turn++) {
        bool large = turn % 2 == 0;
        start(&fixture, F_MRG_RXBUF | F_GUEST_CSUM | (large ? F_GUEST_TSO4 : 0), QUEUE_SIZE);
        int client = client_connect(forward.host_port);
        syn_receive(&fixture);
        tcp_answer(&fixture, SYN | ACK, get32(fixture.frame + ETHERNET + IP + 4) + 1);
        unsigned packets = stream_receive(&fixture, client, large);
        print_message("%u packets\n", packets);
        assert_true(large ? packets < 100 : packets >= 206);
        close(client);
    }
    device_close(&fixture);
}

// Sets the limit of descriptors, which is inherited, to one more than the process needs to start.
static void descriptors_limit(struct rlimit *before)
{
    struct usernet_process process;
    struct rlimit few;

    assert_int_equal(getrlimit(RLIMIT_NOFILE, before), 0);
    few = (struct rlimit){.rlim_cur = 6, .rlim_max = before->rlim_max};
    do {
        few.rlim_cur++;
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    } while (usernet_launch(&process, NULL, 0, NULL));
    close(process.fd);
    usernet_reap(&process);
    few.rlim_cur += 2;  // with that of the forward
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
}

// Clients that there is no descriptor for wait, and cost nothing: the process would use all of the
// two seconds. As others go, they get their turn.
static void test_forward_without_descriptors(void **state)
{
    enum { CLIENTS = 3 };  // one with a descriptor, two that the host makes wait
    static struct fixture fixture;
    struct usernet_forward forward = forward_to_22();
    struct rlimit limit;
    bool seen[65536] = {false};
    int clients[CLIENTS];

    (void)state;
    driver_open(&fixture.driver);
    descriptors_limit(&limit);
    process_open(&fixture, &forward, 1);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    device_attach(&fixture);
    start(&fixture, F_MRG_RXBUF, QUEUE_SIZE);
    for (unsigned i = 0; i < CLIENTS; i++)
        clients[i] = client_connect(forward.host_port);
    sleep(1);
    double before = processor_seconds(fixture.process.pid);
    sleep(2);
    assert_true(processor_seconds(fixture.process.pid) - before < 0.2);
    for (unsigned count = 0; count < CLIENTS;) {
        uint16_t port = syn_receive(&fixture);
        count += !seen[port];
        seen[port] = true;
        rst_send(&fixture);
    }
    for (unsigned i = 0; i < CLIENTS; i++)
        close(clients[i]);
    device_close(&fixture);
}

// Pings whose answers nobody takes.
static void pings_send(struct fixture *fixture, unsigned count)
{
    uint8_t frame[1514], *icmp = frame + ETHERNET + IP;
    size_t bytes = sizeof(frame) - ETHERNET - IP;

    ip_put(frame, fixture->host_mac, GUEST_IP, HOST_IP, PROTOCOL_ICMP, bytes);
    memset(icmp, 0, bytes);
    for (unsigned i = 0; i < count; i++) {
        put32(icmp, 8 << 24);
        put16(icmp + 6, i);
        put16(icmp + 2, ~fold(sum16(0, icmp, bytes)));
        frame_send(fixture, NULL, frame, sizeof(frame));
    }
}

enum { PINGS = 1500, KEPT_MIN = 600, TOO_MANY_PINGS = 4000 };

// The process keeps some of the answers, drops the others, and goes on.
static void test_backlog(void **state)
{
    struct fixture *fixture = *state;
    unsigned taken = 0;

    arp_host(fixture);
    start(fixture, F_MRG_RXBUF, 0);
    pings_send(fixture, PINGS);
    for (unsigned i = 0; i < QUEUE_SIZE; i++)
        buffer_offer(fixture, i);
    for (unsigned i = 0; i < KEPT_MIN; i++) {
        ip_receive(fixture, PROTOCOL_ICMP);
        assert_int_equal(get16(fixture->frame + ETHERNET + IP + 6), taken++);
    }
    arp_host(fixture);
}

// They leave room for connections: a SYN that comes after too many of them waits behind those that
// are kept. One that was dropped would be sent again after some seconds, when what is asked here
// now and then has long been answered.
static void test_backlog_shared(void **state)
{
    static struct fixture fixture;
    struct usernet_forward forward = forward_to_22();
    const uint8_t *arp = fixture.frame + ETHERNET;
    uint8_t request[ETHERNET + 28];
    unsigned taken = 0;

    (void)state;
    device_open(&fixture, &forward, 1);
    start(&fixture, F_MRG_RXBUF, QUEUE_SIZE);
    arp_host(&fixture);
    start(&fixture, F_MRG_RXBUF, 0);
    pings_send(&fixture, TOO_MANY_PINGS);
    int client = client_connect(forward.host_port);
    sleep(1);
    for (unsigned i = 0; i < QUEUE_SIZE; i++)
        buffer_offer(&fixture, i);
    for (frame_receive(&fixture); !is_ip(&fixture, PROTOCOL_TCP); frame_receive(&fixture)) {
        assert_false(get16(fixture.frame + 12) == TYPE_ARP && get16(arp + 6) == 2);
        if (++taken % QUEUE_SIZE == 0)
            frame_send(&fixture, NULL, request, arp_put(request, 1, broadcast_mac, HOST_IP));
    }
    print_message("a SYN after %u other frames\n", taken);
    assert_true(taken < TOO_MANY_PINGS);
    close(client);
    device_close(&fixture);
}

#define NET_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

// The process that usernet_launch starts is this program.
int main(int argc, char **argv)
{
    if (argc > 1)
        return cli_usernet.run(&cli_usernet, argc - 1, argv + 1);
    static const struct CMUnitTest tests[] = {
        NET_TEST(test_features),
        NET_TEST(test_dhcp),
        NET_TEST(test_ping),
        NET_TEST(test_udp),
        NET_TEST(test_checksum_left),
        NET_TEST(test_garbage),
        NET_TEST(test_backlog),
        cmocka_unit_test(test_forward_refused),
        cmocka_unit_test(test_forward),
        cmocka_unit_test(test_large),
        cmocka_unit_test(test_backlog_shared),
        cmocka_unit_test(test_forward_without_descriptors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
