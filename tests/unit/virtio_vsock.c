// SPDX-License-Identifier: BSD-2-Clause
// The vsock device: connections from both sides, data in random pieces under flow control, half
// closes, and all that a guest may say out of turn.
#include <poll.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "supervisor/supervisor.h"
#include "virtio_driver.h"

enum { RECEIVE, TRANSMIT, EVENT, QUEUES };
enum { QUEUE_SIZE = 64, BUFFER_BYTES = 4096, SEND_BYTES = 65536 + 64 };
enum { STREAM = 1 };
enum op { REQUEST = 1, RESPONSE, RST, SHUTDOWN, RW, CREDIT_UPDATE, CREDIT_REQUEST };
enum { SHUT_RECEIVE = 1, SHUT_SEND = 2 };
#define GUEST_CID 7u
#define HOST_CID 2u
#define DEVICE_BUFFER (256u << 10)  // what the device says that it holds for a connection

struct header {
    uint64_t src_cid, dst_cid;
    uint32_t src_port, dst_port, len;
    uint16_t type, op;
    uint32_t flags, buf_alloc, fwd_cnt;
} __attribute__((packed));
_Static_assert(sizeof(struct header) == 44, "as the device has it");

struct fixture {
    struct driver driver;
    char folder[32], path[64];
    uint64_t receive_gpa[QUEUE_SIZE], send_gpa;
    struct header header;  // of the packet received last
    uint8_t payload[BUFFER_BYTES];
    uint32_t random;

    int ram_fd, listen_fd;  // for further monitors of the same guest
    uint64_t cid;

    // The last request for a socket, answered at once or not.
    bool connects_later;
    uint32_t asked_port;
    uint64_t asked_token;
    unsigned asked_count;
};

// A stream as the guest sees it.
struct stream {
    uint32_t guest_port, host_port;
    uint32_t buf_alloc, fwd_cnt;            // what the guest tells the device
    uint32_t sent, received;                // bytes of data
    uint32_t peer_buf_alloc, peer_fwd_cnt;  // what the device told last
};

// ---- The device ---------------------------------------------------------------------------------

static int listen_at(const char *path)
{
    struct error err = {0};
    int fd = unix_listen(path, &err);
    if (fd < 0)
        fail_msg("%s", err.message);
    return fd;
}

static void buffer_offer(struct fixture *fixture, unsigned index)
{
    struct driver_buffer buffer = {fixture->receive_gpa[index], BUFFER_BYTES, true};
    fixture->driver.queues[RECEIVE].next_desc = index;
    driver_send(&fixture->driver, RECEIVE, &buffer, 1);
}

static void start(struct fixture *fixture, unsigned buffers)
{
    driver_start(&fixture->driver, F_EVENT_IDX, QUEUES, QUEUE_SIZE);
    fixture->send_gpa = driver_alloc(&fixture->driver, SEND_BYTES);
    for (unsigned i = 0; i < QUEUE_SIZE; i++)
        fixture->receive_gpa[i] = driver_alloc(&fixture->driver, BUFFER_BYTES);
    for (unsigned i = 0; i < buffers; i++)
        buffer_offer(fixture, i);
}

// What the supervisor does for the device.
static void socket_wanted(void *opaque, uint32_t port, uint64_t token)
{
    struct fixture *fixture = opaque;
    struct virtio_device *device = fixture->driver.device;

    fixture->asked_port = port;
    fixture->asked_token = token;
    fixture->asked_count++;
    if (!fixture->connects_later)
        virtio_vsock_connected(device, token, supervisor_connect_vsock(fixture->path, port));
}

// A device on the guest's RAM, not attached yet.
static struct virtio_device *device_open(struct fixture *fixture)
{
    struct virtio_device *device;
    const struct virtio_vsock_config config = {.guest_cid = fixture->cid,
                                               .listen_fd = dup(fixture->listen_fd),
                                               .path = fixture->path,
                                               .connect = socket_wanted,
                                               .opaque = fixture};

    driver_open_on(&fixture->driver, dup(fixture->ram_fd));
    assert_int_equal(virtio_vsock_create(&device, &fixture->driver.wiring, &config, NULL), 0);
    return device;
}

static int setup(void **state)
{
    static struct fixture fixture;

    fixture = (struct fixture){.random = 1, .cid = GUEST_CID};
    strcpy(fixture.folder, "/tmp/virtio_vsock.XXXXXX");
    assert_non_null(mkdtemp(fixture.folder));
    snprintf(fixture.path, sizeof(fixture.path), "%s/v", fixture.folder);
    fixture.listen_fd = listen_at(fixture.path);
    fixture.ram_fd = memfd_create("ram", MFD_CLOEXEC);
    assert_int_equal(ftruncate(fixture.ram_fd, DRIVER_RAM_BYTES), 0);
    driver_attach(&fixture.driver, device_open(&fixture));
    start(&fixture, QUEUE_SIZE);
    *state = &fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    driver_close(&fixture->driver);
    close(fixture->listen_fd);
    close(fixture->ram_fd);
    unlink(fixture->path);
    rmdir(fixture->folder);
    return 0;
}

// ---- Another monitor ----------------------------------------------------------------------------

struct saving {
    struct virtio_device *device;
    struct state_writer *writer;
};

static void save_on_loop(void *opaque)
{
    const struct saving *saving = opaque;
    virtio_device_save(saving->device, saving->writer, DRIVER_SLOT);
}

static void load(struct virtio_device *device, const void *bytes, size_t length_bytes,
                 const int *fds, size_t fd_count)
{
    struct state_reader *reader;
    struct error err = {0};

    if (state_reader_create(&reader, bytes, length_bytes, fds, fd_count, &err) ||
        virtio_device_load(device, reader, DRIVER_SLOT, &err) || state_reader_finish(reader, &err))
        fail_msg("%s", err.message);
    state_reader_destroy(reader);
}

static void assert_saves_same(struct virtio_device *device, const void *bytes, size_t length_bytes)
{
    struct state_writer *again;
    const void *own_bytes;
    size_t own_length_bytes, own_fd_count;
    const int *own_fds;
    struct error err = {0};

    assert_int_equal(state_writer_create(&again, true), 0);
    virtio_device_save(device, again, DRIVER_SLOT);
    assert_int_equal(
        state_writer_finish(again, &own_bytes, &own_length_bytes, &own_fds, &own_fd_count), 0);
    if (state_compare(bytes, length_bytes, own_bytes, own_length_bytes, &err))
        fail_msg("%s", err.message);
    state_writer_destroy(again);
}

// Another device goes on with the guest, with the sockets or without.
static void hand_over(struct fixture *fixture, bool with_fds)
{
    struct saving saving = {.device = fixture->driver.device};
    struct driver old;
    const void *bytes;
    const int *fds;
    size_t length_bytes, fd_count;
    int copies[16];

    assert_int_equal(state_writer_create(&saving.writer, with_fds), 0);
    driver_pause(&fixture->driver);
    loop_call(fixture->driver.loop, save_on_loop, &saving);
    assert_int_equal(state_writer_finish(saving.writer, &bytes, &length_bytes, &fds, &fd_count), 0);
    assert_true(fd_count <= BASE_COUNT_OF(copies));
    for (size_t i = 0; i < fd_count; i++)
        copies[i] = dup(fds[i]);
    old = fixture->driver;
    driver_close(&fixture->driver);
    struct virtio_device *device = device_open(fixture);
    load(device, bytes, length_bytes, copies, fd_count);
    if (with_fds)
        assert_saves_same(device, bytes, length_bytes);
    for (size_t i = 0; i < fd_count; i++)
        close(copies[i]);
    state_writer_destroy(saving.writer);
    driver_move(&fixture->driver, &old);
    driver_attach(&fixture->driver, device);
    driver_resume(&fixture->driver);
}

// ---- The guest's side ---------------------------------------------------------------------------

static uint32_t random_below(struct fixture *fixture, uint32_t below)
{
    fixture->random = fixture->random * 1664525 + 1013904223;
    return (fixture->random >> 8) % below;
}

// The bytes of a stream, each from its place in it; none is 0.
static uint8_t byte_at(uint32_t place)
{
    return (place * 2654435761u >> 24) | 1;
}

static void packet_send(struct fixture *fixture, const struct header *header, const void *payload)
{
    struct driver_buffer buffers[] = {
        {fixture->send_gpa, sizeof(*header), false},
        {fixture->send_gpa + sizeof(*header), header->len, false},
    };
    uint8_t *ram = driver_ram(&fixture->driver, fixture->send_gpa);

    memcpy(ram, header, sizeof(*header));
    if (payload)
        memcpy(ram + sizeof(*header), payload, header->len);
    driver_wait(&fixture->driver, TRANSMIT,
                driver_send(&fixture->driver, TRANSMIT, buffers, payload ? 2 : 1));
}

static struct header stream_header(const struct stream *stream, enum op op, uint32_t len)
{
    return (struct header){
        .src_cid = GUEST_CID,
        .dst_cid = HOST_CID,
        .src_port = stream->guest_port,
        .dst_port = stream->host_port,
        .len = len,
        .type = STREAM,
        .op = op,
        .buf_alloc = stream->buf_alloc,
        .fwd_cnt = stream->fwd_cnt,
    };
}

static void stream_send(struct fixture *fixture, const struct stream *stream, enum op op,
                        uint32_t flags)
{
    struct header header = stream_header(stream, op, 0);
    header.flags = flags;
    packet_send(fixture, &header, NULL);
}

// The next bytes of the stream.
static void stream_write(struct fixture *fixture, struct stream *stream, uint32_t count)
{
    static uint8_t bytes[65536];
    struct header header = stream_header(stream, RW, count);

    for (uint32_t i = 0; i < count; i++)
        bytes[i] = byte_at(stream->sent + i);
    packet_send(fixture, &header, bytes);
    stream->sent += count;
}

static void stream_say(struct fixture *fixture, struct stream *stream, const char *text)
{
    struct header header = stream_header(stream, RW, strlen(text));
    packet_send(fixture, &header, text);
    stream->sent += header.len;
}

static bool packet_poll(struct fixture *fixture)
{
    struct driver_used used;

    if (!driver_poll(&fixture->driver, RECEIVE, &used))
        return false;
    const uint8_t *ram = driver_ram(&fixture->driver, fixture->receive_gpa[used.head]);
    memcpy(&fixture->header, ram, sizeof(fixture->header));
    assert_int_equal(used.written, sizeof(fixture->header) + fixture->header.len);
    memcpy(fixture->payload, ram + sizeof(fixture->header), fixture->header.len);
    buffer_offer(fixture, used.head);
    return true;
}

static void packet_wait(struct fixture *fixture)
{
    uint64_t deadline_ns = clock_monotonic_ns() + DRIVER_WAIT_NS;

    while (!packet_poll(fixture)) {
        assert_true(clock_monotonic_ns() < deadline_ns);
        sched_yield();
    }
    assert_int_equal(fixture->header.dst_cid, GUEST_CID);
}

static void assert_quiet(struct fixture *fixture)
{
    driver_settle(&fixture->driver);
    if (packet_poll(fixture))
        fail_msg("a packet with op %u where none is due", fixture->header.op);
}

// Accounts for a packet of the stream; its data has to be the stream's next bytes.
static void stream_take(struct fixture *fixture, struct stream *stream)
{
    const struct header *header = &fixture->header;

    assert_int_equal(header->src_cid, HOST_CID);
    assert_int_equal(header->src_port, stream->host_port);
    assert_int_equal(header->dst_port, stream->guest_port);
    assert_int_equal(header->type, STREAM);
    if (header->op == RST)
        return;
    stream->peer_buf_alloc = header->buf_alloc;
    stream->peer_fwd_cnt = header->fwd_cnt;
    assert_true(stream->sent - header->fwd_cnt <= stream->sent);  // not more than was sent
    for (uint32_t i = 0; i < header->len; i++)
        assert_int_equal(fixture->payload[i], byte_at(stream->received + i));
    stream->received += header->len;
    assert_true(stream->received - stream->fwd_cnt <= stream->buf_alloc);
}

// The stream's next packet is this one; credit updates may come before it.
static void stream_expect(struct fixture *fixture, struct stream *stream, enum op op)
{
    do {
        packet_wait(fixture);
        stream_take(fixture, stream);
    } while (fixture->header.op == CREDIT_UPDATE && op != CREDIT_UPDATE);
    assert_int_equal(fixture->header.op, op);
}

// ---- Connecting ---------------------------------------------------------------------------------

static int client_open(const struct fixture *fixture)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    memcpy(address.sun_path, fixture->path, strlen(fixture->path) + 1);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static void client_say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static int readable(int fd, int wait_ms)
{
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    return poll(&wait, 1, wait_ms);
}

// Reads exactly this.
static void client_hear(int fd, const char *text)
{
    char bytes[64];
    size_t done = 0, count = strlen(text);

    while (done < count) {
        assert_int_equal(readable(fd, 20000), 1);
        ssize_t got = recv(fd, bytes + done, count - done, 0);
        assert_true(got > 0);
        done += got;
    }
    assert_memory_equal(bytes, text, count);
}

static void assert_ended(int fd)
{
    char byte;
    assert_int_equal(readable(fd, 20000), 1);
    assert_int_equal(recv(fd, &byte, 1, 0), 0);
}

// Descriptors for as many connections as there may be.
static void descriptors_allow(void)
{
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max < 2048 ? limit.rlim_max : 2048;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

static int port_listen(const struct fixture *fixture, uint32_t port)
{
    char path[128];
    snprintf(path, sizeof(path), "%s_%u", fixture->path, port);
    return listen_at(path);
}

static void port_unlisten(const struct fixture *fixture, int fd, uint32_t port)
{
    char path[128];
    snprintf(path, sizeof(path), "%s_%u", fixture->path, port);
    close(fd);
    unlink(path);
}

// The guest connects to the host's port; returns the host program's socket.
static int guest_connect(struct fixture *fixture, struct stream *stream, int listener)
{
    stream_send(fixture, stream, REQUEST, 0);
    stream_expect(fixture, stream, RESPONSE);
    assert_int_equal(stream->peer_buf_alloc, DEVICE_BUFFER);
    assert_int_equal(readable(listener, 20000), 1);
    int fd = accept(listener, NULL, NULL);
    assert_true(fd >= 0);
    return fd;
}

// The host connects to the guest's port.
static int host_connect(struct fixture *fixture, struct stream *stream)
{
    char line[64];
    int fd = client_open(fixture);

    snprintf(line, sizeof(line), "CONNECT %u\n", stream->guest_port);
    client_say(fd, line);
    packet_wait(fixture);
    stream->host_port = fixture->header.src_port;
    stream_take(fixture, stream);
    assert_int_equal(fixture->header.op, REQUEST);
    stream_send(fixture, stream, RESPONSE, 0);
    snprintf(line, sizeof(line), "OK %u\n", stream->host_port);
    client_hear(fd, line);
    return fd;
}

// ---- Tests --------------------------------------------------------------------------------------

static void test_configuration(void **state)
{
    struct fixture *fixture = *state;

    assert_int_equal(driver_read(&fixture->driver, R_DEVICE_ID), 19);
    assert_int_equal(driver_config(&fixture->driver, 0, 4), GUEST_CID);
    assert_int_equal(driver_config(&fixture->driver, 4, 4), 0);
    assert_int_equal(driver_offered(&fixture->driver), F_VERSION_1 | F_EVENT_IDX | F_INDIRECT | 1);
}

static void test_guest_connects(void **state)
{
    struct fixture *fixture = *state;
    struct stream stream = {.guest_port = 1111, .host_port = 5000, .buf_alloc = 65536};
    int listener = port_listen(fixture, 5000);
    int fd = guest_connect(fixture, &stream, listener);

    stream_say(fixture, &stream, "hello");
    client_hear(fd, "hello");
    client_say(fd, (char[]){byte_at(0), byte_at(1), byte_at(2), 0});
    stream_expect(fixture, &stream, RW);
    assert_int_equal(stream.received, 3);

    // Both halves from the guest: confirmed by a reset, and the host sees the end.
    stream_send(fixture, &stream, SHUTDOWN, SHUT_RECEIVE | SHUT_SEND);
    stream_expect(fixture, &stream, RST);
    assert_ended(fd);
    close(fd);
    // The name is free again.
    stream.sent = 0;
    fd = guest_connect(fixture, &stream, listener);
    stream_send(fixture, &stream, RST, 0);
    assert_ended(fd);
    close(fd);
    assert_quiet(fixture);
    port_unlisten(fixture, listener, 5000);
}

static void test_guest_refused(void **state)
{
    struct fixture *fixture = *state;
    struct stream stream = {.guest_port = 1111, .host_port = 5001, .buf_alloc = 65536};

    stream_send(fixture, &stream, REQUEST, 0);  // no socket
    stream_expect(fixture, &stream, RST);
    int listener = port_listen(fixture, 5001);
    close(listener);  // a socket, and nobody there
    stream_send(fixture, &stream, REQUEST, 0);
    stream_expect(fixture, &stream, RST);
    stream.host_port = UINT32_MAX;
    stream_send(fixture, &stream, REQUEST, 0);
    stream_expect(fixture, &stream, RST);
    port_unlisten(fixture, -1, 5001);
}

static void test_host_connects(void **state)
{
    struct fixture *fixture = *state;
    struct stream one = {.guest_port = 22, .buf_alloc = 65536};
    struct stream two = one;
    int first = host_connect(fixture, &one), second = host_connect(fixture, &two);

    assert_int_not_equal(one.host_port, two.host_port);
    stream_say(fixture, &two, "two");
    stream_say(fixture, &one, "one");
    client_hear(first, "one");
    client_hear(second, "two");
    close(first);
    stream_expect(fixture, &one, SHUTDOWN);
    assert_int_equal(fixture->header.flags, SHUT_SEND);
    stream_send(fixture, &one, SHUTDOWN, SHUT_RECEIVE | SHUT_SEND);
    stream_expect(fixture, &one, RST);
    stream_send(fixture, &two, RST, 0);
    assert_ended(second);
    close(second);
}

// What follows the line at once belongs to the stream.
static void test_host_greets_in_pieces(void **state)
{
    struct fixture *fixture = *state;
    struct stream stream = {.guest_port = 1234, .buf_alloc = 65536};
    char text[] = {byte_at(0), byte_at(1), 0};
    int fd = client_open(fixture);

    client_say(fd, "CONN");
    driver_settle(&fixture->driver);
    client_say(fd, "ECT 12");
    driver_settle(&fixture->driver);
    client_say(fd, "34\n");
    client_say(fd, text);
    packet_wait(fixture);
    assert_int_equal(fixture->header.op, REQUEST);
    assert_int_equal(fixture->header.dst_port, 1234);
    stream.host_port = fixture->header.src_port;
    assert_quiet(fixture);
    stream_send(fixture, &stream, RESPONSE, 0);
    stream_expect(fixture, &stream, RW);
    assert_int_equal(stream.received, 2);
    close(fd);
}

static void test_host_refused(void **state)
{
    struct fixture *fixture = *state;
    static const char *const greetings[] = {
        "\n",
        "CONNECT\n",
        "CONNECT \n",
        "CONNECT x\n",
        "CONNECT 12 \n",
        "CONNECT -1\n",
        "CONNECT 4294967295\n",
        "CONNECT 4294967296\n",
        "CONNECT 18446744073709551617\n",
        "connect 12\n",
        " CONNECT 12\n",
        "CONNECT 12\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\n",
        "CONNECT 0000000000000000000000000000000000000000000000000000000000000000000000000",
    };

    for (size_t i = 0; i < BASE_COUNT_OF(greetings); i++) {
        int fd = client_open(fixture);
        client_say(fd, greetings[i]);
        assert_int_equal(readable(fd, 20000), 1);
        char byte;
        assert_true(recv(fd, &byte, 1, 0) <= 0);  // unread bytes make it a reset
        close(fd);
        assert_quiet(fixture);
    }
    // The guest refuses.
    struct stream stream = {.guest_port = 99};
    int fd = client_open(fixture);
    client_say(fd, "CONNECT 99\n");
    packet_wait(fixture);
    stream.host_port = fixture->header.src_port;
    stream_send(fixture, &stream, RST, 0);
    assert_ended(fd);
    close(fd);
    // Nobody drives the device.
    driver_write(&fixture->driver, R_STATUS, 0);
    fd = client_open(fixture);
    assert_ended(fd);
    close(fd);
}

static void test_client_leaves(void **state)
{
    struct fixture *fixture = *state;
    struct stream stream = {.guest_port = 99};

    close(client_open(fixture));
    assert_quiet(fixture);
    int fd = client_open(fixture);
    client_say(fd, "CONNECT 99\n");
    packet_wait(fixture);
    stream.host_port = fixture->header.src_port;
    close(fd);
    stream_send(fixture, &stream, RESPONSE, 0);
    stream_expect(fixture, &stream, RST);
    assert_quiet(fixture);
}

// ---- Data ---------------------------------------------------------------------------------------

// Several MiB to the host, which reads at its own pace: never more than the credit allows, nothing
// lost, nothing added.
static void test_data_to_host(void **state)
{
    struct fixture *fixture = *state;
    struct stream stream = {.guest_port = 1111, .host_port = 5000, .buf_alloc = 65536};
    int listener = port_listen(fixture, 5000);
    int fd = guest_connect(fixture, &stream, listener);
    enum { TOTAL = 8 << 20 };
    static uint8_t bytes[100000];
    uint32_t read_bytes = 0, stalls = 0, updates = 0;

    while (read_bytes < TOTAL) {
        while (packet_poll(fixture)) {
            stream_take(fixture, &stream);
            assert_int_equal(fixture->header.op, CREDIT_UPDATE);
            updates++;
        }
        uint32_t credit = stream.peer_buf_alloc - (stream.sent - stream.peer_fwd_cnt);
        uint32_t count = 1 + random_below(fixture, 65536);
        count = count < credit ? count : credit;
        count = count < TOTAL - stream.sent ? count : TOTAL - stream.sent;
        if (count > 0)
            stream_write(fixture, &stream, count);
        stalls += credit == 0;
        // The host is the slower one, but for when the guest cannot go on.
        if (count > 0 && random_below(fixture, 4) != 0)
            continue;
        ssize_t got = recv(fd, bytes, 1 + random_below(fixture, sizeof(bytes)), MSG_DONTWAIT);
        for (ssize_t i = 0; i < got; i++)
            assert_int_equal(bytes[i], byte_at(read_bytes++));
        if (got < 0)
            sched_yield();
    }
    print_message("%u MiB, the guest had no credit %u times, and got it by %u packets\n",
                  TOTAL >> 20, stalls, updates);
    assert_true(stalls > 0);
    assert_true(updates <= TOTAL / (DEVICE_BUFFER / 4));
    assert_int_equal(recv(fd, bytes, 1, MSG_DONTWAIT), -1);
    close(fd);
    stream_expect(fixture, &stream, SHUTDOWN);
    port_unlisten(fixture, listener, 5000);
}

// And to the guest, which gives credit in pieces of its own.
static void test_data_to_guest(void **state)
{
    struct fixture *fixture = *state;
    struct stream stream = {.guest_port = 1111, .buf_alloc = 10000};
    int fd = host_connect(fixture, &stream);
    enum { TOTAL = 8 << 20 };
    static uint8_t bytes[100000];
    uint32_t written = 0, requests = 0;

    while (stream.received < TOTAL) {
        uint32_t count = 1 + random_below(fixture, sizeof(bytes));
        count = count < TOTAL - written ? count : TOTAL - written;
        for (uint32_t i = 0; i < count; i++)
            bytes[i] = byte_at(written + i);
        ssize_t sent = send(fd, bytes, count, MSG_DONTWAIT | MSG_NOSIGNAL);
        written += sent > 0 ? sent : 0;
        while (packet_poll(fixture)) {
            stream_take(fixture, &stream);
            requests += fixture->header.op == CREDIT_REQUEST;
            assert_true(fixture->header.op == RW || fixture->header.op == CREDIT_REQUEST);
        }
        // Frees some of its buffer, and says so now and then.
        uint32_t held = stream.received - stream.fwd_cnt;
        stream.fwd_cnt += held > 0 ? 1 + random_below(fixture, held) : 0;
        if (random_below(fixture, 2))
            stream_send(fixture, &stream, CREDIT_UPDATE, 0);
    }
    print_message("%u MiB, the device asked for credit %u times\n", TOTAL >> 20, requests);
    assert_true(requests > 0);
    assert_int_equal(stream.received, written);
    stream_send(fixture, &stream, CREDIT_UPDATE, 0);
    close(fd);
    stream_expect(fixture, &stream, SHUTDOWN);
}

// No credit: the device asks for it once and waits; credit, and it goes on where it was.
static void test_credit_stall(void **state)
{
    struct fixture *fixture = *state;
    struct stream stream = {.guest_port = 1111, .buf_alloc = 3};
    int fd = host_connect(fixture, &stream);
    uint8_t bytes[] = {byte_at(0), byte_at(1), byte_at(2), byte_at(3), byte_at(4)};

    assert_int_equal(send(fd, bytes, sizeof(bytes), 0), sizeof(bytes));
    stream_expect(fixture, &stream, RW);
    assert_int_equal(fixture->header.len, 3);
    stream_expect(fixture, &stream, CREDIT_REQUEST);
    for (unsigned i = 0; i < 3; i++) {
        stream_send(fixture, &stream, CREDIT_UPDATE, 0);  // still none
        assert_quiet(fixture);
    }
    stream.buf_alloc = 0;  // less than what is on its way
    stream_send(fixture, &stream, CREDIT_UPDATE, 0);
    assert_quiet(fixture);
    stream.buf_alloc = 3;
    stream.fwd_cnt = UINT32_MAX;  // more than was sent
    stream_send(fixture, &stream, CREDIT_UPDATE, 0);
    stream.fwd_cnt = 3;
    driver_settle(&fixture->driver);
    stream_send(fixture, &stream, CREDIT_UPDATE, 0);
    stream_expect(fixture, &stream, RW);
    assert_int_equal(stream.received, 5);
    close(fd);
}

static void test_credit_request(void **state)
{
    struct fixture *fixture = *state;
    struct stream stream = {.guest_port = 1111, .host_port = 5000, .buf_alloc = 65536};
    int listener = port_listen(fixture, 5000);
    int fd = guest_connect(fixture, &stream, listener);

    stream_write(fixture, &stream, 1000);
    stream_send(fixture, &stream, CREDIT_REQUEST, 0);
    stream_expect(fixture, &stream, CREDIT_UPDATE);
    assert_int_equal(stream.peer_fwd_cnt, 1000);
    close(fd);
    port_unlisten(fixture, listener, 5000);
}

// More than the credit: the stream is over, the device goes on.
static void test_credit_overrun(void **state)
{
    struct fixture *fixture = *state;
    struct stream stream = {.guest_port = 1111, .host_port = 5000, .buf_alloc = 65536};
    int listener = port_listen(fixture, 5000);
    int fd = guest_connect(fixture, &stream, listener);
    unsigned packets = 0;

    do
        stream_write(fixture, &stream, 65536);
    while (++packets < 100 && (!packet_poll(fixture) || fixture->header.op == CREDIT_UPDATE));
    print_message("refused after %u packets of 64 KiB\n", packets);
    assert_true(packets < 100);
    assert_int_equal(fixture->header.op, RST);
    while (recv(fd, fixture->payload, sizeof(fixture->payload), 0) > 0)
        continue;
    close(fd);
    while (packet_poll(fixture))
        assert_int_equal(fixture->header.op, RST);  // to what was sent after it
    fd = guest_connect(fixture, &stream, listener);
    close(fd);
    port_unlisten(fixture, listener, 5000);
}

// ---- Closing ------------------------------------------------------------------------------------

static void test_half_close_by_guest(void **state)
{
    struct fixture *fixture = *state;
    struct stream stream = {.guest_port = 1111, .host_port = 5000, .buf_alloc = 65536};
    int listener = port_listen(fixture, 5000);
    int fd = guest_connect(fixture, &stream, listener);
    uint8_t byte = byte_at(0);

    stream_write(fixture, &stream, 1);
    stream_send(fixture, &stream, SHUTDOWN, SHUT_SEND);
    assert_int_equal(readable(fd, 20000), 1);
    assert_int_equal(recv(fd, &byte, 1, 0), 1);
    assert_ended(fd);
    assert_int_equal(send(fd, &byte, 1, MSG_NOSIGNAL), 1);  // the other half works
    stream_expect(fixture, &stream, RW);
    stream_send(fixture, &stream, SHUTDOWN, SHUT_RECEIVE);
    stream_expect(fixture, &stream, RST);
    close(fd);

    fd = guest_connect(fixture, &stream, listener);
    stream.sent = 0;
    stream_send(fixture, &stream, SHUTDOWN, SHUT_RECEIVE);
    driver_settle(&fixture->driver);
    assert_int_equal(send(fd, &byte, 1, MSG_NOSIGNAL), -1);
    assert_int_equal(errno, EPIPE);
    stream_write(fixture, &stream, 1);
    assert_int_equal(readable(fd, 20000), 1);
    assert_int_equal(recv(fd, &byte, 1, 0), 1);
    stream_send(fixture, &stream, RST, 0);
    assert_ended(fd);
    close(fd);
    port_unlisten(fixture, listener, 5000);
}

static void test_half_close_by_host(void **state)
{
    struct fixture *fixture = *state;
    struct stream stream = {.guest_port = 1111, .buf_alloc = 65536};
    int fd = host_connect(fixture, &stream);

    client_say(fd, (char[]){byte_at(0), 0});
    shutdown(fd, SHUT_WR);
    stream_expect(fixture, &stream, RW);
    stream_expect(fixture, &stream, SHUTDOWN);
    assert_int_equal(fixture->header.flags, SHUT_SEND);
    assert_quiet(fixture);  // the end is told once
    stream_say(fixture, &stream, "bye");
    client_hear(fd, "bye");
    close(fd);
    stream_say(fixture, &stream, "bye");  // to nobody
    stream_expect(fixture, &stream, RST);
    assert_quiet(fixture);
}

// Writes until the device has to keep some of it, since the host does not read.
static void stream_fill(struct fixture *fixture, struct stream *stream)
{
    while (stream->peer_buf_alloc - (stream->sent - stream->peer_fwd_cnt) >= 65536) {
        stream_write(fixture, stream, 65536);
        driver_settle(&fixture->driver);
        while (packet_poll(fixture))
            stream_take(fixture, stream);
    }
}

// Reads the whole stream up to its end.
static void host_drain(int fd, uint32_t expected)
{
    static uint8_t bytes[65536];
    uint32_t total = 0;

    for (ssize_t got = 1; got > 0; total += got) {
        assert_int_equal(readable(fd, 20000), 1);
        got = recv(fd, bytes, sizeof(bytes), 0);
        assert_true(got >= 0);
        for (ssize_t i = 0; i < got; i++)
            assert_int_equal(bytes[i], byte_at(total + i));
    }
    print_message("%u bytes after the end\n", total);
    assert_int_equal(total, expected);
}

// The end of one half comes after what is still on its way; the other half works on.
static void test_half_close_with_data_waiting(void **state)
{
    struct fixture *fixture = *state;
    struct stream stream = {.guest_port = 1111, .buf_alloc = 65536};
    int fd = host_connect(fixture, &stream);

    stream_fill(fixture, &stream);
    stream_send(fixture, &stream, SHUTDOWN, SHUT_SEND);
    host_drain(fd, stream.sent);
    client_say(fd, (char[]){byte_at(0), 0});
    stream_expect(fixture, &stream, RW);
    close(fd);
}

// The guest writes, closes and forgets; a slow host still gets every byte.
static void test_close_with_data_waiting(void **state)
{
    struct fixture *fixture = *state;
    int listener = port_listen(fixture, 5000);

    for (unsigned by_reset = 0; by_reset < 2; by_reset++) {
        struct stream stream = {.guest_port = 1111, .host_port = 5000, .buf_alloc = 65536};
        int fd = guest_connect(fixture, &stream, listener);

        stream_fill(fixture, &stream);
        stream_send(fixture, &stream, by_reset ? RST : SHUTDOWN, SHUT_RECEIVE | SHUT_SEND);
        if (!by_reset)
            stream_expect(fixture, &stream, RST);
        // The guest's port is free for another stream at once.
        int other = guest_connect(fixture, &stream, listener);
        host_drain(fd, stream.sent);
        close(fd);
        stream_send(fixture, &stream, RST, 0);
        close(other);
    }
    assert_quiet(fixture);
    port_unlisten(fixture, listener, 5000);
}

static void test_reset_of_device(void **state)
{
    struct fixture *fixture = *state;
    struct stream stream = {.guest_port = 1111, .host_port = 5000, .buf_alloc = 65536};
    struct stream other = {.guest_port = 22, .buf_alloc = 65536};
    int listener = port_listen(fixture, 5000);
    int fd = guest_connect(fixture, &stream, listener);
    int client = host_connect(fixture, &other), greeting = client_open(fixture);

    client_say(greeting, "CONN");
    driver_settle(&fixture->driver);
    start(fixture, QUEUE_SIZE);
    assert_ended(fd);
    assert_ended(client);
    assert_ended(greeting);
    close(fd), close(client), close(greeting);
    stream_send(fixture, &stream, CREDIT_UPDATE, 0);  // nothing is known of it
    stream_expect(fixture, &stream, RST);
    fd = guest_connect(fixture, &stream, listener);
    close(fd);
    port_unlisten(fixture, listener, 5000);
}

// What comes late for a connection that the host began finds neither it nor a successor, though the
// guest's port is the same and the entry in the table of handles is used again.
static void test_late_packets(void **state)
{
    enum { ROUNDS = 600 };
    struct fixture *fixture = *state;
    struct stream before = {0};
    uint32_t ports[ROUNDS];

    for (unsigned round = 0; round < ROUNDS; round++) {
        struct stream stream = {.guest_port = 22, .buf_alloc = 65536};
        int fd = host_connect(fixture, &stream);
        ports[round] = stream.host_port;
        for (unsigned i = 0; i < round; i++)
            assert_int_not_equal(ports[i], stream.host_port);
        if (round > 0) {
            stream_send(fixture, &before, SHUTDOWN, SHUT_RECEIVE | SHUT_SEND);
            stream_expect(fixture, &before, RST);
            client_say(fd, (char[]){byte_at(0), 0});
            stream_expect(fixture, &stream, RW);
        }
        if (round % 50 == 49)
            start(fixture, QUEUE_SIZE);
        else
            stream_send(fixture, &stream, RST, 0);
        assert_ended(fd);
        close(fd);
        before = stream;
    }
}

// ---- What a guest should not say ----------------------------------------------------------------

static void test_headers(void **state)
{
    struct fixture *fixture = *state;
    enum { NONE, REQUESTED, CONNECTED };
    static const struct header good = {
        .src_cid = GUEST_CID, .dst_cid = HOST_CID, .src_port = 1, .dst_port = 2, .type = STREAM};
    static const struct {
        const char *what;
        uint64_t src_cid, dst_cid;
        uint16_t type, op;
    } headers[] = {
        {"data, no connection", GUEST_CID, HOST_CID, STREAM, RW},
        {"response, no connection", GUEST_CID, HOST_CID, STREAM, RESPONSE},
        {"shutdown, no connection", GUEST_CID, HOST_CID, STREAM, SHUTDOWN},
        {"credit, no connection", GUEST_CID, HOST_CID, STREAM, CREDIT_UPDATE},
        {"credit request, no connection", GUEST_CID, HOST_CID, STREAM, CREDIT_REQUEST},
        {"op 0", GUEST_CID, HOST_CID, STREAM, 0},
        {"op 8", GUEST_CID, HOST_CID, STREAM, 8},
        {"op 65535", GUEST_CID, HOST_CID, STREAM, 65535},
        {"type 0", GUEST_CID, HOST_CID, 0, REQUEST},
        {"seqpacket", GUEST_CID, HOST_CID, 2, REQUEST},
        {"to a CID above 32 bits", GUEST_CID, HOST_CID | 1ull << 32, STREAM, REQUEST},
        {"to another guest", GUEST_CID, 8, STREAM, REQUEST},
        {"from another guest", 8, HOST_CID, STREAM, REQUEST},
    };

    for (size_t i = 0; i < BASE_COUNT_OF(headers); i++) {
        struct header header = good;
        print_message("%s\n", headers[i].what);
        header.src_cid = headers[i].src_cid;
        header.dst_cid = headers[i].dst_cid;
        header.type = headers[i].type;
        header.op = headers[i].op;
        packet_send(fixture, &header, NULL);
        uint64_t deadline_ns = clock_monotonic_ns() + DRIVER_WAIT_NS;
        while (!packet_poll(fixture))
            assert_true(clock_monotonic_ns() < deadline_ns);
        assert_int_equal(fixture->header.op, RST);
        assert_int_equal(fixture->header.src_cid, header.dst_cid);
        assert_int_equal(fixture->header.dst_cid, header.src_cid);
        assert_int_equal(fixture->header.src_port, header.dst_port);
        assert_int_equal(fixture->header.dst_port, header.src_port);
        // A reset is not answered.
        header.op = RST;
        packet_send(fixture, &header, NULL);
        assert_quiet(fixture);
    }
}

// Operations that a connection's state does not allow end it.
static void test_operations_out_of_turn(void **state)
{
    struct fixture *fixture = *state;
    static const uint16_t connected[] = {REQUEST, RESPONSE, 0, 8};
    static const uint16_t requested[] = {REQUEST, SHUTDOWN, RW, CREDIT_UPDATE, CREDIT_REQUEST, 0};

    for (size_t i = 0; i < BASE_COUNT_OF(connected); i++) {
        struct stream stream = {.guest_port = 1111, .buf_alloc = 65536};
        int fd = host_connect(fixture, &stream);
        stream_send(fixture, &stream, connected[i], 0);
        stream_expect(fixture, &stream, RST);
        assert_ended(fd);
        close(fd);
    }
    for (size_t i = 0; i < BASE_COUNT_OF(requested); i++) {
        struct stream stream = {.guest_port = 1111, .buf_alloc = 65536};
        int fd = client_open(fixture);
        client_say(fd, "CONNECT 1111\n");
        packet_wait(fixture);
        stream.host_port = fixture->header.src_port;
        stream_send(fixture, &stream, requested[i], 0);
        stream_expect(fixture, &stream, RST);
        assert_ended(fd);
        close(fd);
    }
    struct stream stream = {.guest_port = 1111, .buf_alloc = 65536};
    int fd = host_connect(fixture, &stream);
    stream_send(fixture, &stream, SHUTDOWN, SHUT_SEND);
    assert_ended(fd);
    stream_write(fixture, &stream, 1);  // after its own end
    stream_expect(fixture, &stream, RST);
    close(fd);
    assert_quiet(fixture);
}

static void test_bad_chains(void **state)
{
    struct fixture *fixture = *state;
    static const struct {
        const char *what;
        unsigned queue, count;
        uint32_t len;
        struct {
            uint32_t bytes;
            bool writable;
        } buffers[2];
    } chains[] = {
        {"no header", TRANSMIT, 1, 0, {{43, false}}},
        {"payload missing", TRANSMIT, 1, 1, {{44, false}}},
        {"payload cut short", TRANSMIT, 2, 101, {{44, false}, {100, false}}},
        {"length of 2^32-1", TRANSMIT, 2, UINT32_MAX, {{44, false}, {100, false}}},
        {"writable", TRANSMIT, 1, 0, {{44, true}}},
        {"partly writable", TRANSMIT, 2, 0, {{44, false}, {44, true}}},
        {"room for a header alone", RECEIVE, 1, 0, {{44, true}}},
        {"readable", RECEIVE, 1, 0, {{4096, false}}},
        {"partly readable", RECEIVE, 2, 0, {{44, false}, {4096, true}}},
    };

    for (size_t i = 0; i < BASE_COUNT_OF(chains); i++) {
        struct stream stream = {.guest_port = 1111, .host_port = 5000, .buf_alloc = 65536};
        struct header header = stream_header(&stream, RW, chains[i].len);
        struct driver_buffer buffers[2];
        uint64_t gpa;

        print_message("%s\n", chains[i].what);
        start(fixture, 0);
        gpa = fixture->send_gpa;
        memcpy(driver_ram(&fixture->driver, gpa), &header, sizeof(header));
        for (unsigned j = 0; j < chains[i].count; gpa += buffers[j++].bytes)
            buffers[j] = (struct driver_buffer){gpa, chains[i].buffers[j].bytes,
                                                chains[i].buffers[j].writable};
        driver_send(&fixture->driver, chains[i].queue, buffers, chains[i].count);
        if (chains[i].queue == RECEIVE) {  // something to receive
            header.len = 0;
            memcpy(driver_ram(&fixture->driver, fixture->send_gpa), &header, sizeof(header));
            buffers[0] = (struct driver_buffer){fixture->send_gpa, 44, false};
            driver_send(&fixture->driver, TRANSMIT, buffers, 1);
        }
        driver_settle(&fixture->driver);
        assert_true(driver_read(&fixture->driver, R_STATUS) & S_NEEDS_RESET);
    }
    start(fixture, QUEUE_SIZE);
    struct stream stream = {.guest_port = 1, .host_port = 2};
    stream_send(fixture, &stream, RW, 0);
    stream_expect(fixture, &stream, RST);
}

// Packets that all want an answer, and no buffers to answer in: the device stops taking them, and
// goes on when there are some. Every one is answered.
static void test_resets_without_buffers(void **state)
{
    struct fixture *fixture = *state;
    struct stream stream = {.guest_port = 1, .host_port = 2};
    struct header header = stream_header(&stream, RW, 0);
    struct driver_buffer buffer;
    struct driver_used used;
    enum { PACKETS = 1000 };
    unsigned offered = 0, taken = 0, resets = 0;

    start(fixture, 0);
    buffer = (struct driver_buffer){fixture->send_gpa, sizeof(header), false};
    memcpy(driver_ram(&fixture->driver, fixture->send_gpa), &header, sizeof(header));
    for (unsigned round = 0; round < 50; round++) {
        while (offered < PACKETS && offered - taken < QUEUE_SIZE) {
            driver_send(&fixture->driver, TRANSMIT, &buffer, 1);
            offered++;
        }
        driver_settle(&fixture->driver);
        while (driver_poll(&fixture->driver, TRANSMIT, &used))
            taken++;
    }
    print_message("%u packets taken with no buffer to answer in\n", taken);
    assert_true(taken >= 200 && taken < PACKETS - QUEUE_SIZE);
    for (unsigned i = 0; i < QUEUE_SIZE; i++)
        buffer_offer(fixture, i);
    while (resets < PACKETS) {
        while (offered < PACKETS && offered - taken < QUEUE_SIZE) {
            driver_send(&fixture->driver, TRANSMIT, &buffer, 1);
            offered++;
        }
        packet_wait(fixture);
        assert_int_equal(fixture->header.op, RST);
        resets++;
        while (driver_poll(&fixture->driver, TRANSMIT, &used))
            taken++;
    }
    assert_quiet(fixture);
}

// ---- Limits -------------------------------------------------------------------------------------

// Clients that never say what they want are bounded; those beyond wait for one to go.
static void test_client_limit(void **state)
{
    struct fixture *fixture = *state;
    enum { CLIENTS = 64 };
    int clients[CLIENTS];
    struct stream stream = {.guest_port = 5, .buf_alloc = 65536};

    for (unsigned i = 0; i < CLIENTS; i++)
        clients[i] = client_open(fixture);
    int late = client_open(fixture);  // in the listener's queue
    client_say(late, "CONNECT 5\n");
    driver_settle(&fixture->driver);
    driver_settle(&fixture->driver);
    struct timespec pause = {.tv_nsec = 100000000};
    nanosleep(&pause, NULL);
    assert_quiet(fixture);
    close(clients[0]);
    packet_wait(fixture);
    assert_int_equal(fixture->header.op, REQUEST);
    stream.host_port = fixture->header.src_port;
    stream_send(fixture, &stream, RESPONSE, 0);
    client_hear(late, "OK ");
    for (unsigned i = 1; i < CLIENTS; i++)
        close(clients[i]);
    close(late);
}

static void test_connection_limit(void **state)
{
    struct fixture *fixture = *state;
    struct stream stream = {.host_port = 5000, .buf_alloc = 65536};
    int listener = port_listen(fixture, 5000);
    enum { LIMIT = 1024 };
    unsigned refused = 0;

    descriptors_allow();
    for (unsigned i = 0; i < LIMIT + 10; i++) {
        stream.guest_port = i;
        stream_send(fixture, &stream, REQUEST, 0);
        packet_wait(fixture);
        refused += fixture->header.op == RST;
        if (fixture->header.op == RESPONSE)
            close(accept(listener, NULL, NULL));
        // The host's end, as it comes.
        while (fixture->header.op == RESPONSE)
            packet_wait(fixture);
        assert_true(fixture->header.op == (i < LIMIT ? SHUTDOWN : RST));
    }
    assert_int_equal(refused, 10);
    stream.guest_port = 17;
    stream_send(fixture, &stream, SHUTDOWN, SHUT_RECEIVE | SHUT_SEND);
    stream_expect(fixture, &stream, RST);
    stream_send(fixture, &stream, REQUEST, 0);
    stream_expect(fixture, &stream, RESPONSE);
    port_unlisten(fixture, listener, 5000);
}

// A host that does not read, a guest without credit, a guest without buffers: nobody spins.
static void test_no_spinning(void **state)
{
    struct fixture *fixture = *state;
    struct stream stream = {.guest_port = 1111, .host_port = 5000, .buf_alloc = 10};
    struct timespec before, after, pause = {.tv_nsec = 300000000};
    int listener = port_listen(fixture, 5000);
    int fd = guest_connect(fixture, &stream, listener);
    clockid_t clock;

    for (unsigned i = 0; i < 4; i++)
        stream_write(fixture, &stream, 65536);
    assert_int_equal(send(fd, fixture->payload, 100, 0), 100);
    int client = client_open(fixture);
    client_say(client, "CONNECT 3");
    int gone = client_open(fixture);
    client_say(gone, "CONNECT 4\n");
    close(gone);
    driver_settle(&fixture->driver);
    assert_int_equal(pthread_getcpuclockid(fixture->driver.thread, &clock), 0);
    clock_gettime(clock, &before);
    nanosleep(&pause, NULL);
    clock_gettime(clock, &after);
    int64_t used_ns = (after.tv_sec - before.tv_sec) * 1000000000 + after.tv_nsec - before.tv_nsec;
    print_message("the loop used %lld us in 300 ms\n", (long long)used_ns / 1000);
    assert_true(used_ns < 100000000);
    close(fd);
    close(client);
    port_unlisten(fixture, listener, 5000);
}

// Two streams, with data on its way in both directions, of which neither end sees that the device
// is another every now and then.
static void test_handover(void **state)
{
    struct fixture *fixture = *state;
    struct stream guest = {.guest_port = 1111, .host_port = 1024, .buf_alloc = 1 << 20};
    struct stream host = {.guest_port = 2222, .buf_alloc = 1 << 20};
    int listener = port_listen(fixture, 1024);
    int guest_fd = guest_connect(fixture, &guest, listener), host_fd = host_connect(fixture, &host);
    enum { HANDOVERS = 20, CHUNK = 20000 };
    static uint8_t bytes[1 << 20];
    uint32_t written = 0, heard = 0;

    for (unsigned turn = 0; turn < HANDOVERS; turn++) {
        for (unsigned i = 0; i < 4; i++)  // more than a socket takes, at times
            if (guest.sent - heard + CHUNK < 200000)
                stream_write(fixture, &guest, CHUNK);
        for (uint32_t i = 0; i < CHUNK; i++)
            bytes[i] = byte_at(written + i);
        assert_int_equal(send(host_fd, bytes, CHUNK, MSG_NOSIGNAL), CHUNK);
        written += CHUNK;
        hand_over(fixture, true);
        ssize_t count = recv(guest_fd, bytes, turn % 3 ? CHUNK * 3 : 1, MSG_DONTWAIT);
        for (ssize_t i = 0; i < count; i++)
            assert_int_equal(bytes[i], byte_at(heard + i));
        heard += count > 0 ? count : 0;
        while (packet_poll(fixture))
            stream_take(fixture, fixture->header.dst_port == 2222 ? &host : &guest);
    }
    while (host.received < written) {
        packet_wait(fixture);
        stream_take(fixture, fixture->header.dst_port == 2222 ? &host : &guest);
    }
    while (heard < guest.sent) {
        assert_int_equal(readable(guest_fd, 20000), 1);
        ssize_t count = recv(guest_fd, bytes, sizeof(bytes), MSG_DONTWAIT);
        assert_true(count > 0);
        for (ssize_t i = 0; i < count; i++)
            assert_int_equal(bytes[i], byte_at(heard + i));
        heard += count;
    }
    print_message("%u bytes to the host, %u to the guest\n", heard, written);
    close(guest_fd);
    close(host_fd);
    port_unlisten(fixture, listener, 1024);
}

// A client is half way through its greeting, then waits for the guest's answer.
static void test_handover_of_client(void **state)
{
    struct fixture *fixture = *state;
    struct stream stream = {.guest_port = 6000, .buf_alloc = 10000};
    int fd = client_open(fixture);

    client_say(fd, "CONNECT");
    driver_settle(&fixture->driver);
    hand_over(fixture, true);
    client_say(fd, " 6000\n");
    packet_wait(fixture);
    stream.host_port = fixture->header.src_port;
    stream_take(fixture, &stream);
    assert_int_equal(fixture->header.op, REQUEST);
    hand_over(fixture, true);
    stream_send(fixture, &stream, RESPONSE, 0);
    assert_int_equal(readable(fd, 20000), 1);
    // Ports of connections that end are not used again soon.
    struct stream other = {.guest_port = 6000, .buf_alloc = 10000};
    int other_fd = host_connect(fixture, &other);
    assert_int_not_equal(other.host_port, stream.host_port);
    close(fd);
    close(other_fd);
}

struct answer {
    struct virtio_device *device;
    uint64_t token;
    int fd;
};

static void answer_on_loop(void *opaque)
{
    const struct answer *answer = opaque;
    virtio_vsock_connected(answer->device, answer->token, answer->fd);
}

// What was asked for and not answered is asked for again; an answer that nobody waits for is
// closed.
static void test_handover_of_request(void **state)
{
    struct fixture *fixture = *state;
    struct stream stream = {.guest_port = 1111, .host_port = 1024, .buf_alloc = 10000};
    int pair[2];

    fixture->connects_later = true;
    stream_send(fixture, &stream, REQUEST, 0);
    driver_settle(&fixture->driver);
    assert_int_equal(fixture->asked_count, 1);
    hand_over(fixture, true);
    driver_settle(&fixture->driver);
    assert_int_equal(fixture->asked_count, 2);
    assert_int_equal(fixture->asked_port, 1024);
    assert_quiet(fixture);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    struct answer answer = {fixture->driver.device, fixture->asked_token, pair[0]};
    loop_call(fixture->driver.loop, answer_on_loop, &answer);
    stream_expect(fixture, &stream, RESPONSE);
    stream_say(fixture, &stream, "hello");
    client_hear(pair[1], "hello");
    close(pair[1]);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    answer.fd = pair[0];
    loop_call(fixture->driver.loop, answer_on_loop, &answer);
    assert_ended(pair[1]);
    close(pair[1]);
}

// Without its sockets a stream ends on both sides; the guest is told, and of its new CID.
static void test_snapshot(void **state)
{
    struct fixture *fixture = *state;
    struct stream stream = {.guest_port = 1111, .host_port = 1024, .buf_alloc = 10000};
    int listener = port_listen(fixture, 1024);
    int fd = guest_connect(fixture, &stream, listener);
    uint64_t gpa = driver_alloc(&fixture->driver, 16);
    struct driver_buffer buffer = {gpa, 8, true};

    memset(driver_ram(&fixture->driver, gpa), 0xff, 8);
    unsigned head = driver_send(&fixture->driver, EVENT, &buffer, 1);
    hand_over(fixture, false);
    assert_ended(fd);
    assert_int_equal(driver_wait(&fixture->driver, EVENT, head), 4);
    assert_memory_equal(driver_ram(&fixture->driver, gpa), "\0\0\0\0\xff", 5);
    uint32_t generation = driver_read(&fixture->driver, R_CONFIG_GENERATION);
    head = driver_send(&fixture->driver, EVENT, &buffer, 1);
    fixture->cid = GUEST_CID + 1;
    hand_over(fixture, false);
    assert_int_equal(driver_wait(&fixture->driver, EVENT, head), 4);
    assert_int_equal(driver_config(&fixture->driver, 0, 4), GUEST_CID + 1);
    assert_int_not_equal(driver_read(&fixture->driver, R_CONFIG_GENERATION), generation);
    close(fd);
    port_unlisten(fixture, listener, 1024);
}

static void test_path_too_long(void **state)
{
    struct virtio_device *device;
    struct driver driver;
    struct error err = {0};
    char path[200];
    struct virtio_vsock_config config = {.guest_cid = 3, .listen_fd = -1, .path = path};

    (void)state;
    memset(path, 'x', sizeof(path) - 1);
    path[sizeof(path) - 1] = 0;
    driver_open(&driver);
    assert_int_equal(virtio_vsock_create(&device, &driver.wiring, &config, &err), -ENAMETOOLONG);
    assert_non_null(strstr(err.message, "longer than 96 bytes"));
    driver_close(&driver);
}

#define VSOCK_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        VSOCK_TEST(test_configuration),
        VSOCK_TEST(test_guest_connects),
        VSOCK_TEST(test_guest_refused),
        VSOCK_TEST(test_host_connects),
        VSOCK_TEST(test_host_greets_in_pieces),
        VSOCK_TEST(test_host_refused),
        VSOCK_TEST(test_client_leaves),
        VSOCK_TEST(test_data_to_host),
        VSOCK_TEST(test_data_to_guest),
        VSOCK_TEST(test_credit_stall),
        VSOCK_TEST(test_credit_request),
        VSOCK_TEST(test_credit_overrun),
        VSOCK_TEST(test_half_close_by_guest),
        VSOCK_TEST(test_half_close_by_host),
        VSOCK_TEST(test_half_close_with_data_waiting),
        VSOCK_TEST(test_close_with_data_waiting),
        VSOCK_TEST(test_reset_of_device),
        VSOCK_TEST(test_late_packets),
        VSOCK_TEST(test_headers),
        VSOCK_TEST(test_operations_out_of_turn),
        VSOCK_TEST(test_bad_chains),
        VSOCK_TEST(test_resets_without_buffers),
        VSOCK_TEST(test_client_limit),
        VSOCK_TEST(test_connection_limit),
        VSOCK_TEST(test_no_spinning),
        VSOCK_TEST(test_handover),
        VSOCK_TEST(test_handover_of_client),
        VSOCK_TEST(test_handover_of_request),
        VSOCK_TEST(test_snapshot),
        cmocka_unit_test(test_path_too_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
