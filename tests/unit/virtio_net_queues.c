// SPDX-License-Identifier: BSD-2-Clause
// The network device with several pairs of queues, on pairs of packet sockets that stand for a
// tap's queues: which packets go where, what the control queue answers, and handovers with it all.
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "virtio_driver.h"

enum { PAIRS = 2, CONTROL = 2 * PAIRS, QUEUES, CONTROL_OF_ONE = 2 };
enum { QUEUE_SIZE = 16, HEADER = 12, BYTES = 100, BUFFER = 256 };
enum { CLASS_RX = 0, CLASS_MAC = 1, CLASS_VLAN = 2, CLASS_MQ = 4, ANSWER_OK = 0, ANSWER_ERROR = 1 };
#define F_MRG_RXBUF (1ull << 15)
#define F_CTRL_VQ (1ull << 17)
#define F_CTRL_RX (1ull << 18)
#define F_MQ (1ull << 22)
#define F_CTRL_MAC_ADDR (1ull << 23)
#define F_QUEUES (F_CTRL_VQ | F_CTRL_RX | F_MQ | F_CTRL_MAC_ADDR)

static const uint8_t machine_mac[6] = {0x52, 0x54, 0, 1, 2, 3};

struct fixture {
    struct driver driver;
    int ram_fd;
    int wires[PAIRS];    // the other side of each of the "tap's" queues
    int sockets[PAIRS];  // the device's side, for the next device
};

static void device_make(struct fixture *fixture, struct virtio_device **device)
{
    struct virtio_net_config config = {.pairs = PAIRS};

    memcpy(config.mac, machine_mac, sizeof(machine_mac));
    for (unsigned i = 0; i < PAIRS; i++)
        config.fds[i] = dup(fixture->sockets[i]);
    driver_open_on(&fixture->driver, dup(fixture->ram_fd));
    assert_int_equal(virtio_net_create(device, &fixture->driver.wiring, &config, NULL), 0);
}

static int setup(void **state)
{
    static struct fixture fixture;
    struct virtio_device *device;

    fixture.ram_fd = memfd_create("ram", MFD_CLOEXEC);
    assert_int_equal(ftruncate(fixture.ram_fd, DRIVER_RAM_BYTES), 0);
    for (unsigned i = 0; i < PAIRS; i++) {
        int pair[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair), 0);
        fixture.wires[i] = pair[0];
        fixture.sockets[i] = pair[1];
    }
    device_make(&fixture, &device);
    driver_attach(&fixture.driver, device);
    *state = &fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;

    driver_close(&fixture->driver);
    for (unsigned i = 0; i < PAIRS; i++) {
        close(fixture->wires[i]);
        close(fixture->sockets[i]);
    }
    close(fixture->ram_fd);
    return 0;
}

// ---- Driver -------------------------------------------------------------------------------------

static void start(struct fixture *fixture, uint64_t features)
{
    driver_start(&fixture->driver, features | F_MRG_RXBUF, QUEUES, QUEUE_SIZE);
}

// Returns the answer.
static uint8_t control(struct fixture *fixture, unsigned queue, const void *request, size_t bytes)
{
    uint64_t gpa = driver_alloc(&fixture->driver, bytes + 1);
    uint8_t *here = driver_ram(&fixture->driver, gpa);
    const struct driver_buffer buffers[] = {
        {.gpa = gpa, .bytes = (uint32_t)bytes},
        {.gpa = gpa + bytes, .bytes = 1, .writable = true},
    };

    memcpy(here, request, bytes);
    here[bytes] = 0xff;
    unsigned head = driver_send(&fixture->driver, queue, buffers, BASE_COUNT_OF(buffers));
    assert_int_equal(driver_wait(&fixture->driver, queue, head), 1);
    return here[bytes];
}

static uint8_t pairs_ask(struct fixture *fixture, uint16_t pairs)
{
    const uint8_t request[] = {CLASS_MQ, 0, pairs & 0xff, pairs >> 8};
    return control(fixture, CONTROL, request, sizeof(request));
}

static uint64_t buffer_add(struct fixture *fixture, unsigned queue)
{
    uint64_t gpa = driver_alloc(&fixture->driver, BUFFER);
    const struct driver_buffer buffer = {.gpa = gpa, .bytes = BUFFER, .writable = true};

    driver_send(&fixture->driver, queue, &buffer, 1);
    return gpa;
}

static void wire_send(const struct fixture *fixture, unsigned wire, uint8_t content)
{
    uint8_t packet[BYTES] = {0};

    memset(packet + HEADER, content, sizeof(packet) - HEADER);
    assert_int_equal(send(fixture->wires[wire], packet, sizeof(packet), 0), sizeof(packet));
}

// Waits for the next packet of a queue, whose buffer is at `gpa`; returns what it is filled with.
static uint8_t packet_wait(struct fixture *fixture, unsigned queue, uint64_t gpa)
{
    const uint8_t *packet = driver_ram(&fixture->driver, gpa);

    assert_int_equal(driver_wait_any(&fixture->driver, queue).written, BYTES);
    assert_int_equal(packet[HEADER], packet[BYTES - 1]);
    return packet[HEADER];
}

static void mac_is(struct fixture *fixture, const uint8_t mac[6])
{
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(driver_config(&fixture->driver, i, 1), mac[i]);
}

// ---- Tests --------------------------------------------------------------------------------------

static void test_configuration(void **state)
{
    struct fixture *fixture = *state;

    assert_int_equal(driver_offered(&fixture->driver) & F_QUEUES, F_QUEUES);
    assert_int_equal(driver_config(&fixture->driver, 8, 2), PAIRS);
    for (unsigned i = 0; i <= QUEUES; i++) {
        driver_write(&fixture->driver, R_QUEUE_SEL, i);
        assert_int_equal(driver_read(&fixture->driver, R_QUEUE_NUM_MAX) != 0, i < QUEUES);
    }
}

// Each transmit queue has its wire, asked for or not.
static void test_transmit(void **state)
{
    struct fixture *fixture = *state;
    uint8_t received[BYTES + 1];

    start(fixture, F_QUEUES);
    for (unsigned i = 0; i < 10; i++) {
        unsigned pair = i % PAIRS, queue = 2 * pair + 1;
        uint64_t gpa = driver_alloc(&fixture->driver, BYTES);
        const struct driver_buffer buffer = {.gpa = gpa, .bytes = BYTES};
        uint8_t *packet = driver_ram(&fixture->driver, gpa);

        memset(packet + HEADER, (int)i, BYTES - HEADER);
        unsigned head = driver_send(&fixture->driver, queue, &buffer, 1);
        assert_int_equal(driver_wait(&fixture->driver, queue, head), 0);
        assert_int_equal(recv(fixture->wires[pair], received, sizeof(received), 0), BYTES);
        assert_int_equal(received[BYTES - 1], i);
    }
}

// Until the driver asks for more pairs the first has all packets; then each its wire's; and back.
static void test_receive(void **state)
{
    struct fixture *fixture = *state;
    static const uint16_t actives[] = {1, 2, 1, 2};

    start(fixture, F_QUEUES);
    for (unsigned i = 0; i < BASE_COUNT_OF(actives); i++) {
        if (i > 0)
            assert_int_equal(pairs_ask(fixture, actives[i]), ANSWER_OK);
        for (unsigned wire = 0; wire < PAIRS; wire++) {
            unsigned queue = 2 * (wire % actives[i]);
            uint64_t gpa = buffer_add(fixture, queue);
            wire_send(fixture, wire, 10 * i + wire);
            assert_int_equal(packet_wait(fixture, queue, gpa), 10 * i + wire);
        }
    }
}

// What waits for buffers, its first bytes placed, goes where packets go from then on.
static void test_change_within_packet(void **state)
{
    struct fixture *fixture = *state;

    start(fixture, F_QUEUES);
    uint64_t small = driver_alloc(&fixture->driver, BYTES / 2);
    const struct driver_buffer half = {.gpa = small, .bytes = BYTES / 2, .writable = true};
    driver_send(&fixture->driver, 0, &half, 1);
    wire_send(fixture, 1, 7);
    driver_settle(&fixture->driver);
    assert_int_equal(driver_used_index(&fixture->driver, 0), 0);
    assert_int_equal(pairs_ask(fixture, 2), ANSWER_OK);
    uint64_t gpa = buffer_add(fixture, 2);
    assert_int_equal(packet_wait(fixture, 2, gpa), 7);
    // The buffer that was given back is used by the next packet.
    wire_send(fixture, 0, 8);
    gpa = buffer_add(fixture, 0);
    assert_int_equal(driver_wait_any(&fixture->driver, 0).written, BYTES / 2);
    assert_int_equal(driver_wait_any(&fixture->driver, 0).written, BYTES - BYTES / 2);
    assert_int_equal(*(uint8_t *)driver_ram(&fixture->driver, gpa), 8);
}

// One queue that is fed by two wires is fair to both.
static void test_turns(void **state)
{
    struct fixture *fixture = *state;
    unsigned seen[PAIRS] = {0};

    start(fixture, F_QUEUES);
    for (unsigned i = 0; i < 80; i++)
        for (unsigned wire = 0; wire < PAIRS; wire++)
            wire_send(fixture, wire, wire);
    for (unsigned i = 0; i < 80; i++) {
        uint64_t gpa = buffer_add(fixture, 0);
        seen[packet_wait(fixture, 0, gpa)]++;
    }
    assert_true(seen[0] > 20 && seen[1] > 20);
    for (unsigned i = 0; i < 80; i++) {
        uint64_t gpa = buffer_add(fixture, 0);
        seen[packet_wait(fixture, 0, gpa)]++;
    }
    assert_int_equal(seen[0], 80);
    assert_int_equal(seen[1], 80);
}

static void test_control(void **state)
{
    struct fixture *fixture = *state;
    static const struct {
        uint8_t request[16];
        size_t bytes;
        uint8_t answer;
    } cases[] = {
        {{CLASS_MQ, 0, 2, 0}, 4, ANSWER_OK},
        {{CLASS_MQ, 0, 0, 0}, 4, ANSWER_ERROR},
        {{CLASS_MQ, 0, 3, 0}, 4, ANSWER_ERROR},
        {{CLASS_MQ, 0, 1}, 3, ANSWER_ERROR},
        {{CLASS_MQ, 1, 1, 0}, 4, ANSWER_ERROR},
        {{CLASS_MQ}, 1, ANSWER_ERROR},
        {{CLASS_RX, 0, 1}, 3, ANSWER_OK},
        {{CLASS_RX, 5, 1}, 3, ANSWER_OK},
        {{CLASS_RX, 6, 1}, 3, ANSWER_ERROR},
        {{CLASS_RX, 0}, 2, ANSWER_ERROR},
        {{CLASS_MAC, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 10, ANSWER_OK},
        {{CLASS_MAC, 1, 2, 0, 0}, 5, ANSWER_ERROR},
        {{CLASS_MAC, 2, 2, 0, 0}, 5, ANSWER_ERROR},
        {{CLASS_VLAN, 0, 1, 0}, 4, ANSWER_ERROR},
        {{3, 0}, 2, ANSWER_ERROR},
    };

    start(fixture, F_QUEUES);
    for (unsigned i = 0; i < BASE_COUNT_OF(cases); i++)
        assert_int_equal(control(fixture, CONTROL, cases[i].request, cases[i].bytes),
                         cases[i].answer);
}

static void test_address(void **state)
{
    struct fixture *fixture = *state;
    static const uint8_t request[] = {CLASS_MAC, 1, 2, 1, 1, 1, 1, 1};

    start(fixture, F_QUEUES);
    mac_is(fixture, machine_mac);
    assert_int_equal(control(fixture, CONTROL, request, sizeof(request)), ANSWER_OK);
    mac_is(fixture, request + 2);
    start(fixture, F_QUEUES);
    mac_is(fixture, machine_mac);
}

// Section 5.1.2: the control queue is behind the pairs that the driver knows.
static void test_without_mq(void **state)
{
    struct fixture *fixture = *state;
    static const uint8_t promiscuous[] = {CLASS_RX, 0, 1}, pairs[] = {CLASS_MQ, 0, 2, 0};

    start(fixture, F_CTRL_VQ | F_CTRL_RX);
    assert_int_equal(control(fixture, CONTROL_OF_ONE, promiscuous, sizeof(promiscuous)), ANSWER_OK);
    assert_int_equal(control(fixture, CONTROL_OF_ONE, pairs, sizeof(pairs)), ANSWER_ERROR);
    for (unsigned wire = 0; wire < PAIRS; wire++) {
        uint64_t gpa = buffer_add(fixture, 0);
        wire_send(fixture, wire, 3 + wire);
        assert_int_equal(packet_wait(fixture, 0, gpa), 3 + wire);
    }
}

static void test_no_answer(void **state)
{
    struct fixture *fixture = *state;

    start(fixture, F_QUEUES);
    const struct driver_buffer buffer = {.gpa = driver_alloc(&fixture->driver, 4), .bytes = 4};
    driver_send(&fixture->driver, CONTROL, &buffer, 1);
    driver_settle(&fixture->driver);
    assert_true(driver_read(&fixture->driver, R_STATUS) & S_NEEDS_RESET);
    start(fixture, F_QUEUES);
    assert_int_equal(pairs_ask(fixture, 2), ANSWER_OK);
}

// Packets of both wires, with and without buffers for them, while one device after the other has
// the guest.
static void test_handover(void **state)
{
    struct fixture *fixture = *state;
    static const uint8_t address[] = {CLASS_MAC, 1, 2, 1, 1, 1, 1, 1};
    enum { HANDOVERS = 8, PACKETS = 40 };

    start(fixture, F_QUEUES);
    assert_int_equal(control(fixture, CONTROL, address, sizeof(address)), ANSWER_OK);
    for (unsigned turn = 0; turn < HANDOVERS; turn++) {
        struct virtio_device *device;
        uint16_t active = 1 + turn % 2;

        for (unsigned i = 0; i < PACKETS; i++)
            for (unsigned wire = 0; wire < PAIRS; wire++)
                wire_send(fixture, wire, 2 * i + wire);
        assert_int_equal(pairs_ask(fixture, active), ANSWER_OK);
        driver_pause(&fixture->driver);
        struct driver_state saved = driver_save(&fixture->driver);
        struct driver old = fixture->driver;
        driver_close(&fixture->driver);
        device_make(fixture, &device);
        assert_int_equal(driver_load(device, &saved, NULL), 0);
        driver_check_state(device, &saved);
        free(saved.bytes);
        driver_move(&fixture->driver, &old);
        driver_attach(&fixture->driver, device);
        driver_resume(&fixture->driver);
        mac_is(fixture, address + 2);
        unsigned next[PAIRS] = {0};
        for (unsigned i = 0; i < PACKETS * PAIRS; i++) {
            unsigned queue = 2 * (i % active);
            uint64_t gpa = buffer_add(fixture, queue);
            uint8_t content = packet_wait(fixture, queue, gpa);
            assert_int_equal(content / 2, next[content % 2]++);  // in order on each wire
        }
        assert_int_equal(next[0], PACKETS);
        assert_int_equal(next[1], PACKETS);
    }
}

// A state of a device with other queues is refused, and the device is as after a reset.
static void test_other_device(void **state)
{
    struct fixture *fixture = *state;
    struct virtio_device *device;
    struct driver other;
    struct error err = {0};

    start(fixture, F_QUEUES);
    driver_pause(&fixture->driver);
    struct driver_state saved = driver_save(&fixture->driver);
    driver_open(&other);
    const struct virtio_net_config config = {.pairs = 1, .fds = {dup(fixture->sockets[0])}};
    assert_int_equal(virtio_net_create(&device, &other.wiring, &config, NULL), 0);
    assert_int_equal(driver_load(device, &saved, &err), -EINVAL);
    print_message("%s\n", err.message);
    other.device = device;
    driver_close(&other);
    free(saved.bytes);
}

#define QUEUES_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        QUEUES_TEST(test_configuration), QUEUES_TEST(test_transmit),
        QUEUES_TEST(test_receive),       QUEUES_TEST(test_change_within_packet),
        QUEUES_TEST(test_turns),         QUEUES_TEST(test_control),
        QUEUES_TEST(test_address),       QUEUES_TEST(test_without_mq),
        QUEUES_TEST(test_no_answer),     QUEUES_TEST(test_handover),
        QUEUES_TEST(test_other_device),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
