// SPDX-License-Identifier: BSD-2-Clause
// A machine with every device, and a guest that touches anything: the input is a list of accesses
// to device registers, with writes to memory, console input and time passing in between. Nothing
// may crash, hang or grow without bound, whatever it is.
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "machine/board.h"
#include "replay.h"

#define RAM_BYTES (16u << 20)
#define DISK_BYTES (1u << 20)

// One step of the input. `target` picks a device of the board, a virtio slot, or one of the others.
struct step {
    uint8_t target;
    uint8_t how;  // enum how
    uint8_t offset[3];
    uint8_t value[4];
};

enum how {
    HOW_WRITE = 1 << 0,
    HOW_WIDTH = 3 << 1,       // log2 of the width
    HOW_NEAR = 1 << 3,        // an offset among the first registers of a page
    HOW_POINTER = 1 << 4,     // a value that is an address in RAM
    HOW_WIDE_VALUE = 1 << 5,  // a value of more than 32 bits
    HOW_SMALL = 1 << 6,       // a value below 16
};

enum { OTHER_MEMORY, OTHER_INPUT, OTHER_TIME, OTHER_LOOP, OTHERS };

struct bench {
    struct loop *loop;
    struct loop_timer *stop;
    struct machine *machine;
    uint64_t now_ns;
};

static uint64_t bench_clock(void *opaque)
{
    const struct bench *bench = opaque;
    return bench->now_ns;
}

static void bench_event(void *opaque, enum machine_event event, unsigned code)
{
    (void)opaque, (void)event, (void)code;
}

static void bench_output(void *opaque, const void *bytes, size_t count)
{
    (void)opaque, (void)bytes, (void)count;
}

static void bench_room(void *opaque)
{
    (void)opaque;
}

static void loop_turned(void *opaque)
{
    struct bench *bench = opaque;
    loop_stop(bench->loop);
}

// What has been signalled so far is served.
static void bench_turn_loop(struct bench *bench)
{
    loop_timer_start(bench->stop, 0);
    loop_run(bench->loop);
}

static void die(const struct error *err)
{
    log_line(LOG_ERROR, "%s", err->message);
    abort();
}

// The host's ends: a disk in memory, a network that swallows what it gets, a socket nobody knows.
static void open_host(int *disk, int *network, int *socket_fd)
{
    const struct sockaddr_un nameless = {.sun_family = AF_UNIX};
    int pair[2];

    *disk = memfd_create("disk", MFD_CLOEXEC);
    *socket_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (*disk < 0 || ftruncate(*disk, DISK_BYTES) < 0 ||
        socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0 ||
        bind(*socket_fd, (const struct sockaddr *)&nameless, sizeof(sa_family_t)) < 0 ||
        listen(*socket_fd, 1) < 0)
        abort();
    *network = pair[0];
}

static struct bench *bench_create(void)
{
    struct bench *bench = calloc(1, sizeof(*bench));
    struct error err = {0};
    int disk, network, socket_fd;

    open_host(&disk, &network, &socket_fd);
    const struct machine_disk disks[] = {{.fd = disk, .aio = VIRTIO_BLK_AIO_SYNC}};
    const struct virtio_net_config nets[] = {{.mac = {2}, .pairs = 1, .fds = {network}}};
    const struct virtio_vsock_config vsock = {
        .guest_cid = 3, .listen_fd = socket_fd, .path = "/nonexistent"};
    const struct machine_config config = {
        .memory_bytes = RAM_BYTES,
        .cpus = 2,
        .engine = &hart_engine_interp,
        .version = "0",
        .kernel_fd = -1,
        .initrd_fd = -1,
        .firmware_fd = -1,
        .ram_fd = -1,
        .disks = disks,
        .disk_count = BASE_COUNT_OF(disks),
        .nets = nets,
        .net_count = BASE_COUNT_OF(nets),
        .vsock = &vsock,
        .rng = true,
        .virtio_console = true,
        .power_button = true,
    };
    const struct machine_host host = {
        .clock_ns = bench_clock,
        .wall_clock_ns = bench_clock,
        .event = bench_event,
        .console_output = bench_output,
        .console_room = bench_room,
        .opaque = bench,
    };

    if (!bench)
        abort();
    log_set_level(LOG_ERROR);
    if (loop_create(&bench->loop, &err) < 0 ||
        machine_create(&bench->machine, &config, bench->loop, &host, &err) < 0)
        die(&err);
    close(disk);
    close(network);
    close(socket_fd);
    if (loop_timer_create(bench->loop, loop_turned, bench, &bench->stop) < 0)
        abort();
    return bench;
}

static void touch_registers(struct bench *bench, const struct step *step, uint64_t gpa,
                            uint64_t length_bytes, uint64_t offset, uint64_t value)
{
    unsigned width_bytes = 1u << ((step->how & HOW_WIDTH) >> 1);

    if (step->how & HOW_NEAR)
        offset &= ~0xf00ull;
    gpa += offset % length_bytes & -(uint64_t)width_bytes;
    int rc = step->how & HOW_WRITE
                 ? memory_device_write(bench->machine->memory, gpa, width_bytes, value)
                 : memory_device_read(bench->machine->memory, gpa, width_bytes, &value);
    (void)rc;  // a width that the device does not take
}

static void do_other(struct bench *bench, unsigned other, uint64_t offset, uint64_t value)
{
    int rc = 0;

    switch (other) {
    case OTHER_MEMORY:
        rc = memory_write(bench->machine->memory, MACHINE_RAM_GPA + offset % RAM_BYTES, &value, 8);
        break;
    case OTHER_INPUT:
        machine_console_input(bench->machine, &value, offset % sizeof(value));
        break;
    case OTHER_TIME:
        bench->now_ns += value << offset % 32;
        break;
    default:
        bench_turn_loop(bench);
        break;
    }
    (void)rc;  // over the end of RAM
}

static void do_step(struct bench *bench, const struct step *step)
{
    unsigned target = step->target % (board_entry_count + MACHINE_VIRTIO_SLOTS + OTHERS);
    uint64_t offset =
        (uint64_t)step->offset[2] << 16 | (uint64_t)step->offset[1] << 8 | step->offset[0];
    uint32_t low;
    memcpy(&low, step->value, sizeof(low));
    uint64_t value = step->how & HOW_SMALL ? low & 15 : low;

    if (step->how & HOW_WIDE_VALUE)
        value *= 0x100000001ull;
    if (step->how & HOW_POINTER)
        value = MACHINE_RAM_GPA + low % RAM_BYTES;
    if (target < board_entry_count) {
        const struct board_entry *entry = &board_entries[target];
        touch_registers(bench, step, entry->gpa, entry->length_bytes, offset, value);
        return;
    }
    target -= (unsigned)board_entry_count;
    if (target < MACHINE_VIRTIO_SLOTS)
        touch_registers(bench, step, MACHINE_VIRTIO_GPA + (uint64_t)target * VIRTIO_MMIO_BYTES,
                        VIRTIO_MMIO_BYTES, offset, value);
    else
        do_other(bench, target - MACHINE_VIRTIO_SLOTS, offset, value);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    static struct bench *bench;
    struct step step;

    if (!bench)
        bench = bench_create();
    bench->now_ns = 1000000000;
    memory_clear_ram(bench->machine->memory);
    machine_reset_devices(bench->machine);
    for (; count >= sizeof(step); bytes += sizeof(step), count -= sizeof(step)) {
        memcpy(&step, bytes, sizeof(step));
        do_step(bench, &step);
    }
    bench_turn_loop(bench);
    return 0;
}
