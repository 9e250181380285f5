// SPDX-License-Identifier: BSD-2-Clause
// The network device on a pair of packet sockets that stand for a tap and its other side: packets
// both ways byte by byte, receive buffers of all shapes, back-pressure, and chains that break
// rules.
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "virtio_driver.h"

enum { RECEIVE, TRANSMIT, QUEUES };
enum { QUEUE_SIZE = 16, HEADER = 12, PACKET_MAX = HEADER + 65535 + 18 };
#define F_CSUM (1ull << 0)
#define F_GUEST_CSUM (1ull << 1)
#define F_MAC (1ull << 5)
#define F_GUEST_TSO4 (1ull << 7)
#define F_GUEST_TSO6 (1ull << 8)
#define F_HOST_TSO4 (1ull << 11)
#define F_HOST_TSO6 (1ull << 12)
#define F_MRG_RXBUF (1ull << 15)
#define F_STATUS (1ull << 16)
#define F_OFFLOADS (F_CSUM | F_GUEST_CSUM | F_HOST_TSO4 | F_HOST_TSO6 | F_GUEST_TSO4 | F_GUEST_TSO6)
#define FEATURES (F_VERSION_1 | F_EVENT_IDX | F_INDIRECT | F_MAC | F_MRG_RXBUF | F_STATUS)

struct fixture {
    struct driver driver;
    int wire;       // the other side of the "tap"
    int socket_fd;  // the device's
    uint32_t random;
    uint8_t sent[PACKET_MAX], received[PACKET_MAX];
};

static int setup(void **state)
{
    static struct fixture fixture;
    struct virtio_device *device;
    struct virtio_net_config config = {.mac = {0x52, 0x54, 0, 1, 2, 3}, .pairs = 1};
    int pair[2], buffer_bytes = 1 << 20;

    fixture.random = 1;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair), 0);
    for (unsigned i = 0; i < 2; i++)
        setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &buffer_bytes, sizeof(buffer_bytes));
    fixture.wire = pair[0];
    config.fds[0] = fixture.socket_fd = pair[1];
    driver_open(&fixture.driver);
    assert_int_equal(virtio_net_create(&device, &fixture.driver.wiring, &config, NULL), 0);
    driver_attach(&fixture.driver, device);
    *state = &fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    driver_close(&fixture->driver);
    close(fixture->wire);
    return 0;
}

// ---- Packets ------------------------------------------------------------------------------------

static uint32_t random_next(struct fixture *fixture)
{
    fixture->random = fixture->random * 1664525 + 1013904223;
    return fixture->random >> 8;
}

// Puts a packet on the wire: an empty header and `bytes - HEADER` random bytes.
static void wire_send(struct fixture *fixture, size_t bytes)
{
    memset(fixture->sent, 0, HEADER);
    for (size_t i = HEADER; i < bytes; i++)
        fixture->sent[i] = random_next(fixture);
    assert_int_equal(send(fixture->wire, fixture->sent, bytes, 0), bytes);
}

// Takes the next packet from the wire, which the device has been asked to send.
static size_t wire_receive(struct fixture *fixture)
{
    driver_settle(&fixture->driver);
    ssize_t count = recv(fixture->wire, fixture->received, sizeof(fixture->received), 0);
    assert_true(count > 0);
    return count;
}

// A buffer of its own, cut into descriptors of these sizes.
static struct driver_buffer scattered[QUEUE_SIZE];
static unsigned scatter(struct fixture *fixture, size_t bytes, uint32_t piece, bool writable)
{
    unsigned count = 0;
    uint64_t gpa = driver_alloc(&fixture->driver, bytes);

    for (size_t done = 0; done < bytes; done += scattered[count++].bytes)
        scattered[count] = (struct driver_buffer){
            .gpa = gpa + done,
            .bytes = bytes - done < piece ? bytes - done : piece,
            .writable = writable,
        };
    return count;
}

// Makes a receive buffer available without a notification; returns its place.
static uint64_t buffer_add(struct fixture *fixture, size_t bytes, uint32_t piece)
{
    unsigned count = scatter(fixture, bytes, piece, true);
    driver_make_available(&fixture->driver, RECEIVE,
                          driver_chain(&fixture->driver, RECEIVE, scattered, count));
    return scattered[0].gpa;
}

static uint16_t num_buffers_at(struct fixture *fixture, uint64_t gpa)
{
    uint16_t num_buffers;
    memcpy(&num_buffers, (uint8_t *)driver_ram(&fixture->driver, gpa) + 10, sizeof(num_buffers));
    return num_buffers;
}

// Waits for a packet that fills the buffers at `gpas` in this order; returns how many it took.
static unsigned packet_expect(struct fixture *fixture, const uint64_t *gpas, size_t bytes)
{
    unsigned count = 0, num_buffers = 0;
    size_t done = 0;

    while (done < bytes) {
        struct driver_used used = driver_wait_any(&fixture->driver, RECEIVE);
        if (count == 0)
            num_buffers = num_buffers_at(fixture, gpas[0]);
        assert_true(used.written > 0 && used.written <= bytes - done);
        memcpy(fixture->received + done, driver_ram(&fixture->driver, gpas[count++]), used.written);
        done += used.written;
    }
    assert_int_equal(num_buffers, count);
    assert_memory_equal(fixture->received + HEADER, fixture->sent + HEADER, bytes - HEADER);
    return count;
}

static void start(struct fixture *fixture, uint64_t features)
{
    driver_start(&fixture->driver, features, QUEUES, QUEUE_SIZE);
}

static void assert_needs_reset(struct fixture *fixture)
{
    driver_settle(&fixture->driver);
    assert_true(driver_read(&fixture->driver, R_STATUS) & S_NEEDS_RESET);
}

// ---- Tests --------------------------------------------------------------------------------------

static void test_configuration(void **state)
{
    struct fixture *fixture = *state;
    static const uint8_t mac[] = {0x52, 0x54, 0, 1, 2, 3};

    assert_int_equal(driver_read(&fixture->driver, R_DEVICE_ID), 1);
    assert_string_equal(virtio_device_kind(fixture->driver.device), "net");
    for (unsigned i = 0; i < sizeof(mac); i++)
        assert_int_equal(driver_config(&fixture->driver, i, 1), mac[i]);
    assert_int_equal(driver_config(&fixture->driver, 6, 2), 1);  // the link is up
    assert_int_equal(driver_offered(&fixture->driver), FEATURES | F_OFFLOADS);
}

struct saving {
    struct virtio_device *device;
    struct driver_state state;
};

static void save_on_loop(void *opaque)
{
    struct saving *saving = opaque;
    saving->state = driver_save_here(saving->device);
}

// Packets come while one device after the other has the guest: none is lost, doubled or out of
// order, whether the guest has buffers or not.
static void test_handover(void **state)
{
    struct fixture *fixture = *state;
    enum { HANDOVERS = 10, PACKETS = 50, BYTES = 300 };
    int ram_fd = memfd_create("ram", MFD_CLOEXEC);
    int socket_fd = dup(fixture->socket_fd);
    struct virtio_device *device;

    assert_int_equal(ftruncate(ram_fd, DRIVER_RAM_BYTES), 0);
    driver_close(&fixture->driver);
    driver_open_on(&fixture->driver, dup(ram_fd));
    struct virtio_net_config config = {.pairs = 1, .fds = {dup(socket_fd)}};
    assert_int_equal(virtio_net_create(&device, &fixture->driver.wiring, &config, NULL), 0);
    driver_attach(&fixture->driver, device);
    start(fixture, F_MRG_RXBUF);
    for (unsigned turn = 0; turn < HANDOVERS; turn++) {
        for (unsigned i = 0; i < PACKETS; i++) {
            memset(fixture->sent, i, BYTES);
            memset(fixture->sent, 0, HEADER);
            assert_int_equal(send(fixture->wire, fixture->sent, BYTES, 0), BYTES);
        }
        driver_settle(&fixture->driver);
        driver_pause(&fixture->driver);
        struct saving saving = {.device = fixture->driver.device};
        loop_call(fixture->driver.loop, save_on_loop, &saving);
        struct driver old = fixture->driver;
        driver_close(&fixture->driver);
        driver_open_on(&fixture->driver, dup(ram_fd));
        config.fds[0] = dup(socket_fd);
        assert_int_equal(virtio_net_create(&device, &fixture->driver.wiring, &config, NULL), 0);
        assert_int_equal(driver_load(device, &saving.state, NULL), 0);
        driver_check_state(device, &saving.state);
        free(saving.state.bytes);
        driver_move(&fixture->driver, &old);
        driver_attach(&fixture->driver, device);
        driver_resume(&fixture->driver);
        for (unsigned i = 0; i < PACKETS; i++) {
            uint64_t gpa = buffer_add(fixture, 512, 512);
            driver_kick(&fixture->driver, RECEIVE);
            assert_int_equal(driver_wait_any(&fixture->driver, RECEIVE).written, BYTES);
            const uint8_t *packet = driver_ram(&fixture->driver, gpa);
            assert_int_equal(packet[HEADER], i);
            assert_int_equal(packet[BYTES - 1], i);
        }
    }
    close(socket_fd);
    close(ram_fd);
}

// Which offloads there are is told by the type of the socket.
static void test_no_offloads(void **state)
{
    struct driver driver;
    struct virtio_device *device;
    int pair[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair), 0);
    driver_open(&driver);
    const struct virtio_net_config config = {.pairs = 1, .fds = {pair[0]}};
    assert_int_equal(virtio_net_create(&device, &driver.wiring, &config, NULL), 0);
    driver_attach(&driver, device);
    assert_int_equal(driver_offered(&driver), FEATURES);
    driver_close(&driver);
    close(pair[1]);
}

static void test_transmit(void **state)
{
    struct fixture *fixture = *state;
    static const struct {
        size_t bytes;
        uint32_t piece;
    } packets[] = {
        {HEADER, HEADER},         {HEADER + 14, 12},     {HEADER + 60, 5},
        {HEADER + 1514, 1 << 16}, {PACKET_MAX, 1 << 14},
    };

    for (size_t i = 0; i < BASE_COUNT_OF(packets); i++) {
        start(fixture, i % 2 ? F_EVENT_IDX : 0);
        unsigned count = scatter(fixture, packets[i].bytes, packets[i].piece, false);
        uint8_t *bytes = driver_ram(&fixture->driver, scattered[0].gpa);
        for (size_t j = 0; j < packets[i].bytes; j++)
            bytes[j] = random_next(fixture);
        unsigned head = driver_send(&fixture->driver, TRANSMIT, scattered, count);
        assert_int_equal(driver_wait(&fixture->driver, TRANSMIT, head), 0);
        assert_int_equal(wire_receive(fixture), packets[i].bytes);
        assert_memory_equal(fixture->received, bytes, packets[i].bytes);
    }
}

static void test_receive_one_buffer(void **state)
{
    struct fixture *fixture = *state;

    for (unsigned pass = 0; pass < 4; pass++) {
        start(fixture, pass % 2 ? F_MRG_RXBUF : 0);
        // A first descriptor that ends inside num_buffers, too.
        uint64_t gpa = buffer_add(fixture, 2048, pass / 2 ? 11 + 200 : 2048);
        driver_kick(&fixture->driver, RECEIVE);
        wire_send(fixture, HEADER + 1514);
        assert_int_equal(packet_expect(fixture, &gpa, HEADER + 1514), 1);
    }
}

static void test_receive_header_scattered(void **state)
{
    struct fixture *fixture = *state;

    start(fixture, F_MRG_RXBUF);
    uint64_t gpa = buffer_add(fixture, 44, 11);
    driver_kick(&fixture->driver, RECEIVE);
    wire_send(fixture, 40);
    assert_int_equal(packet_expect(fixture, &gpa, 40), 1);
}

// Buffers of random sizes, packets of random sizes, several times around the ring.
static void test_receive_many_buffers(void **state)
{
    struct fixture *fixture = *state;
    uint64_t gpas[QUEUE_SIZE];
    unsigned packets_split = 0;

    for (unsigned round = 0; round < 100; round++) {
        start(fixture, F_MRG_RXBUF | (round % 2 ? F_EVENT_IDX : 0));
        size_t room = 0;
        for (unsigned i = 0; i < QUEUE_SIZE; i++) {
            size_t bytes = HEADER + random_next(fixture) % 5000;
            gpas[i] = buffer_add(fixture, bytes, bytes);
            room += bytes;
        }
        room = room < PACKET_MAX ? room : PACKET_MAX;
        size_t packet = HEADER + 1 + random_next(fixture) % (room - HEADER);
        wire_send(fixture, packet);
        driver_kick(&fixture->driver, RECEIVE);
        packets_split += packet_expect(fixture, gpas, packet) > 1;
    }
    print_message("%u of 100 packets over more than one buffer\n", packets_split);
    assert_true(packets_split > 50);
}

// Without mergeable buffers a packet that is too long is dropped, and the buffer holds the next.
static void test_receive_too_long(void **state)
{
    struct fixture *fixture = *state;

    start(fixture, 0);
    uint64_t gpa = buffer_add(fixture, 100, 100);
    driver_kick(&fixture->driver, RECEIVE);
    wire_send(fixture, 101);
    wire_send(fixture, 100);
    assert_int_equal(packet_expect(fixture, &gpa, 100), 1);
}

// A ring full of buffers, and still too small for the packet: dropped, nothing hangs.
static void test_receive_longer_than_ring(void **state)
{
    struct fixture *fixture = *state;
    uint64_t gpas[QUEUE_SIZE];

    start(fixture, F_MRG_RXBUF);
    for (unsigned i = 0; i < QUEUE_SIZE; i++)
        gpas[i] = buffer_add(fixture, 20, 20);
    driver_kick(&fixture->driver, RECEIVE);
    wire_send(fixture, 20 * QUEUE_SIZE + 1);
    wire_send(fixture, 20 * QUEUE_SIZE);
    assert_int_equal(packet_expect(fixture, gpas, 20 * QUEUE_SIZE), QUEUE_SIZE);
}

// No buffers: packets stay on the wire, none is lost, and they come in order when there are some.
static void test_back_pressure(void **state)
{
    struct fixture *fixture = *state;
    enum { PACKETS = 50 };

    for (unsigned event_idx = 0; event_idx < 2; event_idx++) {
        start(fixture, F_MRG_RXBUF | (event_idx ? F_EVENT_IDX : 0));
        for (unsigned i = 0; i < PACKETS; i++) {
            memset(fixture->sent, i, 100);
            memset(fixture->sent, 0, HEADER);
            assert_int_equal(send(fixture->wire, fixture->sent, 100, 0), 100);
        }
        driver_settle(&fixture->driver);
        assert_int_equal(driver_used_index(&fixture->driver, RECEIVE), 0);
        for (unsigned i = 0; i < PACKETS; i++) {
            uint64_t gpa = buffer_add(fixture, 256, 256);
            if (driver_kick_wanted(&fixture->driver, RECEIVE))
                driver_kick(&fixture->driver, RECEIVE);
            memset(fixture->sent, i, 100);
            assert_int_equal(packet_expect(fixture, &gpa, 100), 1);
        }
    }
}

// A packet that has begun waits for buffers, through a pause too.
static void test_pause_within_packet(void **state)
{
    struct fixture *fixture = *state;
    uint64_t gpas[3];

    start(fixture, F_MRG_RXBUF);
    gpas[0] = buffer_add(fixture, 100, 100);
    gpas[1] = buffer_add(fixture, 100, 100);
    driver_kick(&fixture->driver, RECEIVE);
    wire_send(fixture, 250);
    driver_settle(&fixture->driver);
    driver_pause(&fixture->driver);
    gpas[2] = buffer_add(fixture, 100, 100);
    driver_kick(&fixture->driver, RECEIVE);
    driver_settle(&fixture->driver);
    assert_int_equal(driver_used_index(&fixture->driver, RECEIVE), 0);
    driver_resume(&fixture->driver);
    assert_int_equal(packet_expect(fixture, gpas, 250), 3);
}

static void test_reset_within_packet(void **state)
{
    struct fixture *fixture = *state;

    start(fixture, F_MRG_RXBUF);
    buffer_add(fixture, 100, 100);
    driver_kick(&fixture->driver, RECEIVE);
    wire_send(fixture, 250);
    driver_settle(&fixture->driver);
    start(fixture, F_MRG_RXBUF);
    uint64_t gpa = buffer_add(fixture, 1000, 1000);
    driver_kick(&fixture->driver, RECEIVE);
    wire_send(fixture, 300);
    assert_int_equal(packet_expect(fixture, &gpa, 300), 1);
}

static void test_bad_chains(void **state)
{
    struct fixture *fixture = *state;
    static const struct {
        const char *what;
        unsigned queue, count;
        struct driver_buffer buffers[2];
    } chains[] = {
        {"no header", TRANSMIT, 1, {{DRIVER_RAM_GPA, HEADER - 1, false}}},
        {"too long", TRANSMIT, 1, {{DRIVER_RAM_GPA, PACKET_MAX + 1, false}}},
        {"endless", TRANSMIT, 1, {{DRIVER_RAM_GPA, DRIVER_RAM_BYTES, false}}},
        {"writable", TRANSMIT, 1, {{DRIVER_RAM_GPA, 100, true}}},
        {"partly writable",
         TRANSMIT,
         2,
         {{DRIVER_RAM_GPA, 100, false}, {DRIVER_RAM_GPA, 100, true}}},
        {"not in RAM", TRANSMIT, 1, {{0, 100, false}}},
        {"no room for a header", RECEIVE, 1, {{DRIVER_RAM_GPA, HEADER - 1, true}}},
        {"readable", RECEIVE, 1, {{DRIVER_RAM_GPA, 100, false}}},
        {"partly readable",
         RECEIVE,
         2,
         {{DRIVER_RAM_GPA, 100, false}, {DRIVER_RAM_GPA, 100, true}}},
        {"beyond RAM", RECEIVE, 1, {{DRIVER_RAM_GPA + DRIVER_RAM_BYTES - 99, 100, true}}},
    };

    for (size_t i = 0; i < BASE_COUNT_OF(chains); i++) {
        print_message("%s\n", chains[i].what);
        start(fixture, F_MRG_RXBUF);
        driver_send(&fixture->driver, chains[i].queue, chains[i].buffers, chains[i].count);
        if (chains[i].queue == RECEIVE)
            wire_send(fixture, 100);
        assert_needs_reset(fixture);
        assert_true(recv(fixture->wire, fixture->received, 1, 0) < 0);
        // Nothing of it is left after a reset.
        start(fixture, F_MRG_RXBUF);
        uint64_t gpa = buffer_add(fixture, 200, 200);
        driver_kick(&fixture->driver, RECEIVE);
        driver_settle(&fixture->driver);
        wire_send(fixture, 150);
        assert_int_equal(packet_expect(fixture, &gpa, 150), 1);
    }
}

// The other end hears which large packets the driver takes, once for each change.
static void told_expect(struct fixture *fixture, uint64_t features)
{
    uint64_t told;

    assert_int_equal(wire_receive(fixture), sizeof(told));
    memcpy(&told, fixture->received, sizeof(told));
    assert_int_equal(told, features);
}

static void told_nothing(struct fixture *fixture)
{
    driver_settle(&fixture->driver);
    assert_true(recv(fixture->wire, fixture->received, sizeof(fixture->received), 0) < 0);
}

static void test_offloads_told(void **state)
{
    struct fixture *fixture = *state;

    start(fixture, F_MRG_RXBUF | F_GUEST_CSUM);
    told_nothing(fixture);
    start(fixture, F_MRG_RXBUF | F_GUEST_CSUM | F_GUEST_TSO4 | F_GUEST_TSO6);
    told_expect(fixture, F_GUEST_TSO4 | F_GUEST_TSO6);
    start(fixture, F_GUEST_CSUM | F_GUEST_TSO4 | F_GUEST_TSO6);
    told_nothing(fixture);
    start(fixture, F_GUEST_CSUM | F_GUEST_TSO6);
    told_expect(fixture, F_GUEST_TSO6);
    start(fixture, F_GUEST_TSO4);  // not without GUEST_CSUM (section 5.1.3.1)
    told_expect(fixture, 0);
}

// The socket is full when a driver takes the device: the other end hears of it later.
static void test_offloads_told_late(void **state)
{
    struct fixture *fixture = *state;
    const int few_bytes = 1;  // the host's least
    unsigned sent = 0;
    ssize_t bytes;

    assert_int_equal(
        setsockopt(fixture->socket_fd, SOL_SOCKET, SO_SNDBUF, &few_bytes, sizeof(few_bytes)), 0);
    start(fixture, 0);
    while (send(fixture->socket_fd, fixture->sent, 100, MSG_DONTWAIT) == 100)
        sent++;
    print_message("full after %u packets\n", sent);
    start(fixture, F_GUEST_CSUM | F_GUEST_TSO4);
    for (unsigned i = 0; i < sent; i++)
        assert_int_equal(recv(fixture->wire, fixture->received, 100, 0), 100);
    for (unsigned i = 0; i < 2000; i++) {
        bytes = recv(fixture->wire, fixture->received, sizeof(fixture->received), 0);
        if (bytes > 0)
            break;
        usleep(10000);
    }
    assert_int_equal(bytes, sizeof(uint64_t));
    assert_int_equal(fixture->received[0], F_GUEST_TSO4);
}

// Large packets reach the driver that takes them as they are, and no other.
static void test_large_packets(void **state)
{
    struct fixture *fixture = *state;
    enum { GSO_TCPV4 = 1, GSO_UDP = 3, GSO_TCPV6 = 4, BYTES = HEADER + 500 };
    static const struct {
        uint64_t features;
        uint8_t gso_type;
        bool taken;
    } cases[] = {
        {F_GUEST_CSUM, GSO_TCPV4, false},
        {F_GUEST_CSUM | F_GUEST_TSO4, GSO_TCPV4, true},
        {F_GUEST_CSUM | F_GUEST_TSO4, GSO_TCPV6, false},
        {F_GUEST_CSUM | F_GUEST_TSO6, GSO_TCPV6, true},
        {F_GUEST_CSUM | F_GUEST_TSO6, GSO_TCPV4, false},
        {F_GUEST_CSUM | F_GUEST_TSO4 | F_GUEST_TSO6, GSO_UDP, false},
        {F_GUEST_TSO4, GSO_TCPV4, false},
    };

    for (size_t i = 0; i < BASE_COUNT_OF(cases); i++) {
        const uint8_t header[HEADER] = {1, cases[i].gso_type, 54, 0, 100, 0, 34, 0, 16};
        start(fixture, F_MRG_RXBUF | cases[i].features);
        uint64_t gpa = buffer_add(fixture, 2048, 2048);
        driver_kick(&fixture->driver, RECEIVE);
        memset(fixture->sent, (int)i, BYTES);
        memcpy(fixture->sent, header, HEADER);
        assert_int_equal(send(fixture->wire, fixture->sent, BYTES, 0), BYTES);
        if (!cases[i].taken)
            wire_send(fixture, BYTES);  // takes its place
        assert_int_equal(packet_expect(fixture, &gpa, BYTES), 1);
        const uint8_t *ram = driver_ram(&fixture->driver, gpa);
        assert_int_equal(ram[1], cases[i].taken ? cases[i].gso_type : 0);
        if (cases[i].taken)
            assert_memory_equal(ram, header, 10);
    }
}

// The other side is gone for good: packets get lost, and the loop does not spin.
static void test_wire_gone(void **state)
{
    struct fixture *fixture = *state;
    struct timespec before, after, pause = {.tv_nsec = 300000000};
    clockid_t clock;

    start(fixture, 0);
    buffer_add(fixture, 100, 100);
    driver_kick(&fixture->driver, RECEIVE);
    close(fixture->wire);
    fixture->wire = -1;
    unsigned count = scatter(fixture, 100, 100, false);
    unsigned head = driver_send(&fixture->driver, TRANSMIT, scattered, count);
    driver_wait(&fixture->driver, TRANSMIT, head);

    driver_settle(&fixture->driver);
    assert_int_equal(pthread_getcpuclockid(fixture->driver.thread, &clock), 0);
    clock_gettime(clock, &before);
    nanosleep(&pause, NULL);
    clock_gettime(clock, &after);
    int64_t used_ns = (after.tv_sec - before.tv_sec) * 1000000000 + after.tv_nsec - before.tv_nsec;
    print_message("the loop used %lld us in 300 ms\n", (long long)used_ns / 1000);
    assert_true(used_ns < 100000000);
}

static void test_not_a_tap(void **state)
{
    struct virtio_device *device;
    struct driver driver;
    struct virtio_net_config config = {.pairs = 1};
    struct error err = {0};
    int pipe_fds[2];

    (void)state;
    driver_open(&driver);
    assert_int_equal(pipe(pipe_fds), 0);
    config.fds[0] = pipe_fds[0];
    assert_int_equal(virtio_net_create(&device, &driver.wiring, &config, &err), -ENOTTY);
    assert_string_equal(err.message, "cannot use the tap: Inappropriate ioctl for device");
    assert_int_equal(close(pipe_fds[0]), 0);  // still the caller's
    close(pipe_fds[1]);
    driver_close(&driver);
}

#define NET_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        NET_TEST(test_configuration),
        NET_TEST(test_transmit),
        NET_TEST(test_receive_one_buffer),
        NET_TEST(test_receive_header_scattered),
        NET_TEST(test_receive_many_buffers),
        NET_TEST(test_receive_too_long),
        NET_TEST(test_receive_longer_than_ring),
        NET_TEST(test_back_pressure),
        NET_TEST(test_pause_within_packet),
        NET_TEST(test_reset_within_packet),
        NET_TEST(test_bad_chains),
        NET_TEST(test_offloads_told),
        NET_TEST(test_offloads_told_late),
        NET_TEST(test_large_packets),
        NET_TEST(test_wire_gone),
        NET_TEST(test_handover),
        cmocka_unit_test(test_no_offloads),
        cmocka_unit_test(test_not_a_tap),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
