// SPDX-License-Identifier: BSD-2-Clause
// Fuzz target for the virtio devices: the input is a sequence of what a guest and a host can do.
// Its first byte chooses the device; each further step is a byte and what that step takes.
//
// Beside not crashing, the promises are: the interrupt line follows InterruptStatus; a device's
// state is taken by another device, which has the same state then; one that was changed is taken or
// refused with the reason; and whatever has happened, a reset makes a device that works.
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "replay.h"
#include "state/format.h"
#include "supervisor/supervisor.h"
#include "virtio/virtio.h"

#define RAM_GPA 0x80000000u
#define RAM_BYTES 0x20000u
#define DISK_BYTES 0x10000u

// Where set_up puts the rings of a queue; small enough that buffers and rings often overlap.
#define QUEUE_GPA(queue) (RAM_GPA + 0x1000u * (queue))
#define AVAIL_OFFSET 0x800u
#define USED_OFFSET 0xa00u
#define QUEUE_SIZE 32u
#define VIRTIO_QUEUES 5u  // that a device here has at most

enum {
    QUEUE_SEL = 0x30,
    QUEUE_NUM = 0x38,
    QUEUE_READY = 0x44,
    NOTIFY = 0x50,
    INTERRUPT = 0x60,
    STATUS = 0x70,
    DESC = 0x80,
    AVAIL = 0x90,
    USED = 0xa0
};

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "\n%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);              \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

struct input {
    const uint8_t *bytes;
    size_t left;
};

struct bench {
    struct memory *memory;
    struct loop *loop;
    struct loop_wake *stop;
    uint8_t *ram;
    int disk;
    uint64_t vsock_token;          // of the last request
    int vsock_listen, vsock_port;  // for host programs; the host's own port 1024
    struct virtio_wiring wiring;
    // For one input
    const struct kind *kind;
    unsigned queues;
    struct virtio_device *device;
    struct memory_device registers;
    bool irq, paused;
    uint8_t sum;  // of the console's output, so that all of it is read
    uint16_t avail_index[VIRTIO_QUEUES];
    unsigned next_desc;
    int wires[2];  // the host's ends of the network's queues
    int peers[8];  // the host's ends of vsock connections, -1 where there is none
};

// Where the vsock sockets are.
static char folder[] = "/tmp/fuzz-virtio-XXXXXX";

// The same "random" bytes each time.
ssize_t getrandom(void *bytes, size_t count, unsigned flags)
{
    (void)flags;
    memset(bytes, 0x5a, count);
    return (ssize_t)count;
}

static uint64_t take(struct input *input, unsigned bytes)
{
    uint64_t value = 0;
    for (; bytes > 0 && input->left > 0; bytes--, input->bytes++, input->left--)
        value = value << 8 | *input->bytes;
    return value;
}

// ---- Devices -----------------------------------------------------------------------------------

static void console_output(void *opaque, const void *bytes, size_t count)
{
    struct bench *bench = opaque;
    for (size_t i = 0; i < count; i++)
        bench->sum ^= ((const uint8_t *)bytes)[i];
}

static void console_room(void *opaque)
{
    struct bench *bench = opaque;
    virtio_console_input(bench->device, "more", 4);
}

static int create_console(struct bench *bench)
{
    struct virtio_console_config config = {console_output, console_room, bench};
    return virtio_console_create(&bench->device, &bench->wiring, &config, NULL);
}

static int create_rng(struct bench *bench)
{
    return virtio_rng_create(&bench->device, &bench->wiring, NULL);
}

static int create_disk(struct bench *bench, bool read_only)
{
    struct virtio_blk_config config = {
        .fd = dup(bench->disk), .read_only = read_only, .aio = VIRTIO_BLK_AIO_SYNC};
    CHECK(ftruncate(bench->disk, 0) == 0 && ftruncate(bench->disk, DISK_BYTES) == 0);
    return virtio_blk_create(&bench->device, &bench->wiring, &config, NULL);
}

static int create_blk(struct bench *bench)
{
    return create_disk(bench, false);
}

static int create_blk_read_only(struct bench *bench)
{
    return create_disk(bench, true);
}

static int create_net_pairs(struct bench *bench, unsigned pairs)
{
    struct virtio_net_config config = {.mac = {2, 0, 0, 0, 0, 1}, .pairs = pairs};

    for (unsigned i = 0; i < pairs; i++) {
        int ends[2];
        CHECK(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, ends) == 0);
        bench->wires[i] = ends[1];
        config.fds[i] = ends[0];
    }
    return virtio_net_create(&bench->device, &bench->wiring, &config, NULL);
}

static int create_net(struct bench *bench)
{
    return create_net_pairs(bench, 1);
}

static int create_net_queues(struct bench *bench)
{
    return create_net_pairs(bench, 2);
}

static struct sockaddr_un vsock_address(const char *suffix)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/v%s", folder, suffix);
    return address;
}

static void vsock_answer(struct bench *bench, uint32_t port, uint64_t token)
{
    virtio_vsock_connected(bench->device, token,
                           supervisor_connect_vsock(vsock_address("").sun_path, port));
}

// Some requests are answered at once, some later (host_vsock), some never.
static void vsock_connect(void *opaque, uint32_t port, uint64_t token)
{
    struct bench *bench = opaque;

    bench->vsock_token = token;
    if (token % 2 == 0)
        vsock_answer(bench, port, token);
}

static int create_vsock(struct bench *bench)
{
    struct sockaddr_un address = vsock_address("");
    struct virtio_vsock_config config = {.guest_cid = 3,
                                         .listen_fd = dup(bench->vsock_listen),
                                         .path = address.sun_path,
                                         .connect = vsock_connect,
                                         .opaque = bench};
    return virtio_vsock_create(&bench->device, &bench->wiring, &config, NULL);
}

static void host_console(struct bench *bench, struct input *input)
{
    size_t count = input->left < 16 ? input->left : 16;
    virtio_console_input(bench->device, input->bytes, count);
    virtio_console_resize(bench->device, count * 9, count);
}

static void wire_drain(struct bench *bench)
{
    uint8_t packet[16];
    for (size_t i = 0; i < BASE_COUNT_OF(bench->wires); i++)
        while (recv(bench->wires[i], packet, sizeof(packet), 0) > 0)
            continue;
}

// A packet arrives, and what the guest has sent is taken off the wire.
static void host_net(struct bench *bench, struct input *input)
{
    uint8_t packet[2048] = {0};
    size_t bytes = input->left < sizeof(packet) ? input->left : sizeof(packet);

    memcpy(packet, input->bytes, bytes < 64 ? bytes : 64);
    int wire = bench->wires[packet[0] & 1] >= 0 ? bench->wires[packet[0] & 1] : bench->wires[0];
    send(wire, packet, bytes > 0 ? bytes : 1, 0);  // nothing would be an end
    wire_drain(bench);
}

static int *free_peer(struct bench *bench)
{
    for (size_t i = 0; i < BASE_COUNT_OF(bench->peers); i++)
        if (bench->peers[i] < 0)
            return &bench->peers[i];
    return NULL;
}

// A host program connects, accepts, says something, listens or goes.
static void host_vsock(struct bench *bench, struct input *input)
{
    unsigned what = take(input, 1);
    int *peer = &bench->peers[what >> 4 & 7], *empty = free_peer(bench);
    struct sockaddr_un address = vsock_address("");
    uint8_t bytes[512] = "CONNECT 7\n";

    vsock_answer(bench, 1024, bench->vsock_token);
    switch (what % 6) {
    case 0:
        if (empty) {
            *empty = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
            CHECK(*empty >= 0);
            if (connect(*empty, (struct sockaddr *)&address, sizeof(address)) == 0)
                send(*empty, bytes, 10, MSG_NOSIGNAL);
        }
        break;
    case 1:
        if (empty)
            *empty = accept4(bench->vsock_port, NULL, NULL, SOCK_NONBLOCK);
        break;
    case 2:
        send(*peer, input->bytes, input->left < 32 ? input->left : 32, MSG_NOSIGNAL);
        break;
    case 3:
        send(*peer, bytes, sizeof(bytes), MSG_NOSIGNAL);
        break;
    case 4:
        while (recv(*peer, bytes, sizeof(bytes), 0) > 0)
            continue;
        break;
    default:
        if (what & 8) {
            shutdown(*peer, SHUT_WR);
            break;
        }
        if (*peer >= 0)
            close(*peer);
        *peer = -1;
    }
}

// What is left of an input on the host's side, the device being gone.
static void host_clear(struct bench *bench)
{
    int fd;

    for (size_t i = 0; i < BASE_COUNT_OF(bench->wires); i++) {
        if (bench->wires[i] >= 0)
            close(bench->wires[i]);
        bench->wires[i] = -1;
    }
    for (size_t i = 0; i < BASE_COUNT_OF(bench->peers); i++) {
        if (bench->peers[i] >= 0)
            close(bench->peers[i]);
        bench->peers[i] = -1;
    }
    while ((fd = accept(bench->vsock_listen, NULL, NULL)) >= 0 ||
           (fd = accept(bench->vsock_port, NULL, NULL)) >= 0)
        close(fd);
}

// ---- Registers, rings, the loop ----------------------------------------------------------------

static void set_irq(void *controller, unsigned source, bool level)
{
    struct bench *bench = controller;
    (void)source;
    bench->irq = level;
}

static uint32_t reg_read(struct bench *bench, uint64_t offset)
{
    return bench->registers.ops->read(bench->device, offset, 4);
}

static void reg_write(struct bench *bench, uint64_t offset, uint32_t value)
{
    bench->registers.ops->write(bench->device, offset, 4, value);
}

static void stop(void *opaque)
{
    loop_stop(opaque);
}

// A turn of the loop on this thread: everything that was signalled is handled.
static void turn(struct bench *bench)
{
    loop_wake_signal(bench->stop);
    loop_run(bench->loop);
    CHECK(bench->irq == (reg_read(bench, INTERRUPT) != 0));
}

static void set_up(struct bench *bench, uint32_t features)
{
    reg_write(bench, STATUS, 0);
    CHECK(reg_read(bench, STATUS) == 0 && reg_read(bench, INTERRUPT) == 0 && !bench->irq);
    memset(bench->avail_index, 0, sizeof(bench->avail_index));
    for (unsigned half = 0; half < 2; half++) {
        reg_write(bench, 0x14, half);
        reg_write(bench, 0x24, half);
        reg_write(bench, 0x20, reg_read(bench, 0x10) & (half ? ~0u : features));
    }
    reg_write(bench, STATUS, 1 | 2 | 8);
    for (unsigned i = 0; i < bench->queues; i++) {
        memset(bench->ram + 0x1000 * i + AVAIL_OFFSET, 0, 0x800);
        reg_write(bench, QUEUE_SEL, i);
        reg_write(bench, QUEUE_NUM, QUEUE_SIZE);
        reg_write(bench, DESC, QUEUE_GPA(i));
        reg_write(bench, AVAIL, QUEUE_GPA(i) + AVAIL_OFFSET);
        reg_write(bench, USED, QUEUE_GPA(i) + USED_OFFSET);
        reg_write(bench, DESC + 4, 0);
        reg_write(bench, AVAIL + 4, 0);
        reg_write(bench, USED + 4, 0);
        reg_write(bench, QUEUE_READY, 1);
    }
    reg_write(bench, STATUS, 1 | 2 | 8 | 4);
}

static void write_desc(struct bench *bench, unsigned queue, unsigned index, uint64_t gpa,
                       uint32_t bytes, uint16_t flags)
{
    uint8_t *desc = bench->ram + 0x1000 * queue + 16 * (index % QUEUE_SIZE);
    uint16_t next = (index + 1) % QUEUE_SIZE;

    memcpy(desc, &gpa, 8);
    memcpy(desc + 8, &bytes, 4);
    memcpy(desc + 12, &flags, 2);
    memcpy(desc + 14, &next, 2);
}

static void make_available(struct bench *bench, unsigned queue, uint16_t head)
{
    uint8_t *avail = bench->ram + 0x1000 * queue + AVAIL_OFFSET;
    uint16_t *index = &bench->avail_index[queue];

    memcpy(avail + 4 + 2 * (*index % QUEUE_SIZE), &head, 2);
    ++*index;
    memcpy(avail + 2, index, 2);
}

// ---- Steps -------------------------------------------------------------------------------------

// Mostly in RAM and short.
static uint64_t take_gpa(struct input *input)
{
    uint64_t kind = take(input, 1);
    if (kind == 0xff)
        return take(input, 8);
    return RAM_GPA + (kind << 8 & 0x1f00) * 16 + take(input, 1);
}

static void step_chain(struct bench *bench, struct input *input)
{
    unsigned queue = take(input, 1) % bench->queues, count = 1 + take(input, 1) % 6;
    unsigned head = bench->next_desc;

    for (unsigned i = 0; i < count; i++) {
        uint64_t gpa = take_gpa(input);
        uint32_t bytes = take(input, 2);
        uint16_t flags = take(input, 1) & 7;
        // Most chains should be well-formed: continue to the last, writable only at the end.
        if (flags != 7)
            flags = (i + 1 < count) | (flags & 2) | (flags == 4 ? 4 : 0);
        write_desc(bench, queue, bench->next_desc++, gpa, bytes, flags);
    }
    make_available(bench, queue, head % QUEUE_SIZE);
}

// A request to the disk with a header that makes sense, and data or a range.
static void request_blk(struct bench *bench, struct input *input)
{
    static const uint32_t types[] = {0, 1, 4, 8, 11, 13, 2};
    uint64_t header[2] = {types[take(input, 1) % 7], take(input, 1)};
    unsigned head = bench->next_desc, bytes = take(input, 1) % 16 * 256;
    uint16_t writable = header[0] == 0 || header[0] == 8 ? 2 : 0;

    if (header[0] >= 11) {
        uint64_t range[2] = {take(input, 1), take(input, 1) | take(input, 1) % 4 << 32};
        memcpy(bench->ram + 0x8010, range, sizeof(range));
        bytes = sizeof(range);
    }
    memcpy(bench->ram + 0x8000, header, sizeof(header));
    write_desc(bench, 0, bench->next_desc++, RAM_GPA + 0x8000, 16, 1);
    if (bytes > 0)
        write_desc(bench, 0, bench->next_desc++, RAM_GPA + 0x8010, bytes, 1 | writable);
    write_desc(bench, 0, bench->next_desc++, RAM_GPA + 0xffff, 1, 2);
    make_available(bench, 0, head % QUEUE_SIZE);
}

// A buffer for the device to write.
static void offer_buffer(struct bench *bench, unsigned bytes)
{
    unsigned head = bench->next_desc++ % QUEUE_SIZE;
    write_desc(bench, 0, head, RAM_GPA + 0xa000 + head * 0x400, bytes, 2);
    make_available(bench, 0, head);
}

static void request_net(struct bench *bench, struct input *input)
{
    unsigned head = bench->next_desc, bytes = 12 + take(input, 1);

    offer_buffer(bench, 12 + take(input, 1) * 8);
    write_desc(bench, 1, head, RAM_GPA + 0x8000, bytes, 0);
    make_available(bench, 1, head % QUEUE_SIZE);
}

// A packet, or a control request: class, command, and what it is of.
static void request_net_queues(struct bench *bench, struct input *input)
{
    unsigned head = bench->next_desc, what = take(input, 1);
    uint64_t data = take(input, 2);
    uint8_t header[2] = {what >> 1 & 7, what >> 4 & 7};

    if (what & 1) {
        request_net(bench, input);
        return;
    }
    memcpy(bench->ram + 0x8000, header, sizeof(header));
    memcpy(bench->ram + 0x8002, &data, sizeof(data));
    write_desc(bench, 4, head, RAM_GPA + 0x8000, 3 + (what >> 7) * 5, 1);
    write_desc(bench, 4, head + 1, RAM_GPA + 0x9000, 1, 2);
    bench->next_desc = head + 2;
    make_available(bench, 4, head % QUEUE_SIZE);
}

// A packet between ports that may have something to do with a connection.
static void request_vsock(struct bench *bench, struct input *input)
{
    static const uint32_t host_ports[] = {1024, 1024, 0x40000001, 0x40000002, 1025};
    uint32_t header[11] = {3, 0, 2, 0};  // the CIDs
    unsigned head = bench->next_desc, more = take(input, 1);
    uint16_t type_op[2] = {1, take(input, 1) % 9};

    header[4] = more & 1 ? 7 : 1024 + (more >> 1 & 1);
    header[5] = host_ports[(more >> 2) % 5];
    header[6] = (more >> 4) * 4096;
    memcpy(&header[7], type_op, sizeof(type_op));
    header[8] = take(input, 1);        // flags
    header[9] = take(input, 1) * 256;  // buf_alloc
    header[10] = take(input, 1);       // fwd_cnt
    memcpy(bench->ram + 0x8000 + head % QUEUE_SIZE * 64, header, sizeof(header));
    offer_buffer(bench, 44 + take(input, 1));
    write_desc(bench, 1, head, RAM_GPA + 0x8000 + head % QUEUE_SIZE * 64, sizeof(header),
               header[6] > 0);
    if (header[6] > 0)
        write_desc(bench, 1, head + 1, RAM_GPA + 0xc000, header[6], 0);
    bench->next_desc = head + 2;
    make_available(bench, 1, head % QUEUE_SIZE);
}

static void step_register(struct bench *bench, struct input *input)
{
    uint64_t offset = take(input, 1) * 4 % 0x140;
    unsigned width = 1u << take(input, 1) % 3;

    bench->registers.ops->write(bench->device, offset, width, take(input, 4));
    bench->registers.ops->read(bench->device, offset, width);
}

static void step_ram(struct bench *bench, struct input *input)
{
    size_t offset = take(input, 2), count = take(input, 1);
    for (size_t i = 0; i < count; i++)
        bench->ram[offset + i] = take(input, 1);
}

static void step_pause(struct bench *bench)
{
    if (bench->paused)
        virtio_device_resume(bench->device);
    else
        virtio_device_pause(bench->device);
    bench->paused = !bench->paused;
}

// ---- Kinds -------------------------------------------------------------------------------------

// `queue`, and for a working request: readable bytes, then writable ones, and what is written.
static const struct kind {
    int (*create)(struct bench *bench);
    void (*host)(struct bench *bench, struct input *input);
    void (*request)(struct bench *bench, struct input *input);
    unsigned queues, queue;
    uint8_t readable[16];
    unsigned readable_bytes, writable_bytes, written_bytes;
    bool moves;  // its state needs no descriptors
} kinds[] = {
    {create_rng, NULL, NULL, 1, 0, {0}, 0, 32, 32, true},
    {create_console, host_console, NULL, 2, 1, "good", 4, 0, 0, true},
    {create_blk, NULL, request_blk, 1, 0, {8}, 16, 21, 21, true},
    {create_blk_read_only, NULL, request_blk, 1, 0, {8}, 16, 21, 21, true},
    {create_net, host_net, request_net, 2, 1, {0}, 72, 0, 0, false},
    {create_vsock, host_vsock, request_vsock, 3, 1, {0}, 44, 0, 0, false},
    {create_net_queues, host_net, request_net_queues, VIRTIO_QUEUES, 1, {0}, 72, 0, 0, false},
};

// Which kind an input's first byte chooses. The last one came when there were inputs already.
static const struct kind *kind_chosen(unsigned byte)
{
    const unsigned last = BASE_COUNT_OF(kinds) - 1;
    return &kinds[(byte & 0xf8) == 0xf0 ? last : byte % last];
}

// ---- Saved state -------------------------------------------------------------------------------

struct saved {
    uint8_t *bytes;
    size_t count;
};

static struct saved save(struct bench *bench)
{
    struct state_writer *writer;
    struct saved saved;
    const void *bytes;
    const int *fds;
    size_t fd_count;

    CHECK(state_writer_create(&writer, false) == 0);
    virtio_device_save(bench->device, writer, 0);
    CHECK(state_writer_finish(writer, &bytes, &saved.count, &fds, &fd_count) == 0);
    saved.bytes = malloc(saved.count);
    CHECK(saved.bytes);
    memcpy(saved.bytes, bytes, saved.count);
    state_writer_destroy(writer);
    return saved;
}

// Makes check sums right, so that changes are met by whoever is to refuse them.
static void seal(const struct saved *saved)
{
    uint64_t length;

    for (size_t at = STATE_HEAD_BYTES; saved->count - at >= STATE_SECTION_BYTES; at += length) {
        length = STATE_SECTION_BYTES + state_get(saved->bytes + at + STATE_SECTION_BYTES - 4, 4);
        if (length > saved->count - at)
            return;
        state_put(saved->bytes + at, state_check_sum(saved->bytes + at + 4, length - 4), 4);
    }
}

static int load(struct bench *bench, const struct saved *saved, struct error *err)
{
    struct state_reader *reader;

    int rc = state_reader_create(&reader, saved->bytes, saved->count, NULL, 0, err);
    if (rc)
        return rc;
    rc = virtio_device_load(bench->device, reader, 0, err);
    state_reader_destroy(reader);
    return rc;
}

// Another device goes on from here, perhaps from a state that somebody has changed.
static void step_state(struct bench *bench, struct input *input)
{
    unsigned changes = take(input, 1) % 4;
    struct error err = {0};

    virtio_device_pause(bench->device);
    struct saved saved = save(bench);
    virtio_device_destroy(bench->device);
    CHECK(bench->kind->create(bench) == 0);
    for (unsigned i = 0; i < changes; i++)
        saved.bytes[take(input, 2) % saved.count] = take(input, 1);
    seal(&saved);
    int rc = load(bench, &saved, &err);
    CHECK(rc == 0 || (changes > 0 && err.message[0]));
    if (rc == 0) {
        struct saved again = save(bench);
        rc = state_compare(saved.bytes, saved.count, again.bytes, again.count, &err);
        if (rc)
            fprintf(stderr, "%s\n", err.message);
        CHECK(rc == 0);
        free(again.bytes);
    }
    free(saved.bytes);
    if (!bench->paused)
        virtio_device_resume(bench->device);
}

// ---- Any step ----------------------------------------------------------------------------------

static void step(struct bench *bench, struct input *input)
{
    unsigned what = take(input, 1);

    switch (what % 16) {
    case 0:
        set_up(bench, take(input, 4));
        break;
    case 1:
        step_register(bench, input);
        break;
    case 2:
        step_ram(bench, input);
        break;
    case 3:
        make_available(bench, take(input, 1) % bench->queues, take(input, 2));
        break;
    case 4:
        if (what & 0x80 && bench->kind->moves)
            step_state(bench, input);
        else
            step_pause(bench);
        break;
    case 5:
        if (bench->kind->host)
            bench->kind->host(bench, input);
        break;
    case 6:
        virtio_device_reset(bench->device);
        break;
    case 7:
        bench->avail_index[take(input, 1) % 4] = take(input, 2);
        break;
    case 8:
    case 9:
        if (bench->kind->request)
            bench->kind->request(bench, input);
        break;
    case 10:
    case 11:
        turn(bench);
        break;
    case 12:
        reg_write(bench, NOTIFY, take(input, 1) % bench->queues);
        turn(bench);
        break;
    default:
        step_chain(bench, input);
    }
}

// Whatever has happened: after a reset a request is answered.
static void check_works(struct bench *bench)
{
    const struct kind *kind = bench->kind;
    unsigned parts = (kind->readable_bytes > 0) + (kind->writable_bytes > 0), index = 0;
    uint16_t used_index;
    uint32_t used[2];

    if (bench->paused)
        step_pause(bench);
    wire_drain(bench);  // a full one makes the guest wait
    set_up(bench, ~0u);
    memset(bench->ram + 0x8000, 0, 0x100);
    memcpy(bench->ram + 0x8000, kind->readable, sizeof(kind->readable));
    if (kind->readable_bytes > 0)
        write_desc(bench, kind->queue, index++, RAM_GPA + 0x8000, kind->readable_bytes, parts > 1);
    if (kind->writable_bytes > 0)
        write_desc(bench, kind->queue, index++, RAM_GPA + 0x9000, kind->writable_bytes, 2);
    make_available(bench, kind->queue, 0);
    reg_write(bench, NOTIFY, kind->queue);
    turn(bench);
    memcpy(&used_index, bench->ram + 0x1000 * kind->queue + USED_OFFSET + 2, 2);
    memcpy(used, bench->ram + 0x1000 * kind->queue + USED_OFFSET + 4, 8);
    CHECK(reg_read(bench, STATUS) == 15);
    CHECK(used_index == 1 && used[0] == 0 && used[1] == kind->written_bytes);
}

static int listen_at(const char *suffix)
{
    struct sockaddr_un address = vsock_address(suffix);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
    CHECK(listen(fd, 64) == 0);
    return fd;
}

static void folder_remove(void)
{
    unlink(vsock_address("").sun_path);
    unlink(vsock_address("_1024").sun_path);
    rmdir(folder);
}

static struct bench *bench_create(void)
{
    static struct bench bench;

    log_set_level(LOG_ERROR);
    CHECK(memory_create(&bench.memory, NULL) == 0);
    CHECK(memory_add_ram(bench.memory, RAM_GPA, RAM_BYTES, -1, NULL) == 0);
    CHECK(loop_create(&bench.loop, NULL) == 0);
    CHECK(loop_wake_create(bench.loop, stop, bench.loop, &bench.stop) == 0);
    bench.ram = memory_ram_hva(bench.memory, RAM_GPA, RAM_BYTES);
    bench.disk = memfd_create("disk", MFD_CLOEXEC);
    bench.wiring = (struct virtio_wiring){
        .memory = bench.memory, .loop = bench.loop, .irq = {.set = set_irq, .controller = &bench}};
    CHECK(bench.ram && bench.disk >= 0);
    CHECK(mkdtemp(folder) && atexit(folder_remove) == 0);
    bench.vsock_listen = listen_at("");
    bench.vsock_port = listen_at("_1024");
    memset(bench.peers, 0xff, sizeof(bench.peers));
    memset(bench.wires, 0xff, sizeof(bench.wires));
    return &bench;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    static struct bench *bench;
    struct input input = {bytes, count};

    if (!bench)
        bench = bench_create();
    memset(bench->ram, 0, RAM_BYTES);
    bench->irq = bench->paused = false;
    bench->next_desc = 0;
    bench->kind = kind_chosen(take(&input, 1));
    bench->queues = bench->kind->queues;
    CHECK(bench->kind->create(bench) == 0);
    virtio_device_registers(bench->device, &bench->registers);
    set_up(bench, take(&input, 4));
    while (input.left > 0)
        step(bench, &input);
    turn(bench);
    check_works(bench);
    virtio_device_destroy(bench->device);
    host_clear(bench);
    return 0;
}
