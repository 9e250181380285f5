// SPDX-License-Identifier: BSD-2-Clause
// Fuzz target for the loader of states. The input's first byte says what the rest is: a state as it
// is, a state whose check sums are made right here, or a list of changes to a good state, which are
// made before the check sums, so that they are met by whoever is to refuse them. What a machine
// takes it saves again: that must be a state which it takes, too, and the machine must still work.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "machine/board.h"
#include "replay.h"
#include "state/state.h"

#define RAM_BYTES (16u << 20)
#define DISK_BYTES (1u << 20)
#define HEAD_BYTES 32u
#define SECTION_BYTES 40u

struct bench {
    struct loop *loop;
    struct loop_timer *stop;
    struct machine *machine;
    FILE *nowhere;
    uint8_t *good;  // a state of the machine
    size_t good_count;
};

enum mode { MODE_RAW, MODE_SEALED, MODE_CHANGES };

// A change to a state. What makes a section longer or shorter changes the length that it says.
struct change {
    uint8_t at[2];
    uint8_t kind;  // enum change_kind
    uint8_t value;
};

enum change_kind { CHANGE_SET, CHANGE_FLIP, CHANGE_ONES, CHANGE_DELETE, CHANGE_REPEAT, CHANGE_CUT };

static uint64_t bench_clock(void *opaque)
{
    (void)opaque;
    return 1000000000;
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

static void turn_loop(struct bench *bench)
{
    loop_timer_start(bench->stop, 0);
    loop_run(bench->loop);
}

static void die(const struct error *err)
{
    log_line(LOG_ERROR, "%s", err->message);
    abort();
}

// What every change starts from.
static void save_good(struct bench *bench)
{
    struct state_writer *writer;
    const void *bytes;
    const int *fds;
    size_t fd_count;

    machine_reset_devices(bench->machine);
    machine_reset_harts(bench->machine);
    machine_console_input(bench->machine, "input", 5);
    if (state_writer_create(&writer, false) < 0)
        abort();
    machine_pause_devices(bench->machine);
    machine_save(bench->machine, writer);
    if (state_writer_finish(writer, &bytes, &bench->good_count, &fds, &fd_count) < 0)
        abort();
    bench->good = malloc(bench->good_count);
    if (!bench->good)
        abort();
    memcpy(bench->good, bytes, bench->good_count);
    state_writer_destroy(writer);
}

static struct bench *bench_create(void)
{
    const struct sockaddr_un nameless = {.sun_family = AF_UNIX};
    struct bench *bench = calloc(1, sizeof(*bench));
    struct error err = {0};
    int disk = memfd_create("disk", MFD_CLOEXEC), network[2];
    int vsock_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (!bench || disk < 0 || ftruncate(disk, DISK_BYTES) < 0 ||
        socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, network) < 0 ||
        bind(vsock_fd, (const struct sockaddr *)&nameless, sizeof(sa_family_t)) < 0 ||
        listen(vsock_fd, 1) < 0)
        abort();
    const struct machine_disk disks[] = {{.fd = disk, .aio = VIRTIO_BLK_AIO_SYNC}};
    const struct virtio_net_config nets[] = {{.mac = {2}, .pairs = 1, .fds = {network[0]}}};
    const struct virtio_vsock_config vsock = {
        .guest_cid = 3, .listen_fd = vsock_fd, .path = "/nonexistent"};
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
    log_set_level(LOG_ERROR);
    if (loop_create(&bench->loop, &err) < 0 ||
        machine_create(&bench->machine, &config, bench->loop, &host, &err) < 0)
        die(&err);
    close(disk);
    close(network[0]);
    close(vsock_fd);
    bench->nowhere = fopen("/dev/null", "w");
    if (!bench->nowhere || loop_timer_create(bench->loop, loop_turned, bench, &bench->stop) < 0)
        abort();
    save_good(bench);
    return bench;
}

// ---- Making check sums right --------------------------------------------------------------------

static uint32_t check_sum(const uint8_t *bytes, size_t count)
{
    uint32_t sum = ~0u;

    while (count-- > 0) {
        sum ^= *bytes++;
        for (int bit = 0; bit < 8; bit++)
            sum = sum >> 1 ^ (sum & 1 ? 0xedb88320u : 0);
    }
    return ~sum;
}

static void seal(uint8_t *bytes, size_t count)
{
    uint64_t whole = count;
    uint32_t sum, length, sections = 0;

    for (size_t at = HEAD_BYTES; count - at >= SECTION_BYTES; at += SECTION_BYTES + length) {
        memcpy(&length, bytes + at + 36, 4);
        if (length > count - at - SECTION_BYTES) {
            length = (uint32_t)(count - at - SECTION_BYTES);
            memcpy(bytes + at + 36, &length, 4);
        }
        sum = check_sum(bytes + at + 4, SECTION_BYTES - 4 + length);
        memcpy(bytes + at, &sum, 4);
        sections++;
    }
    memcpy(bytes, "\x89STRAKE\n\1\0\0\0", 12);
    memcpy(bytes + 12, &sections, 4);
    memcpy(bytes + 16, &whole, 8);
    memset(bytes + 24, 0, 4);
    sum = check_sum(bytes, 28);
    memcpy(bytes + 28, &sum, 4);
}

// ---- Loading ------------------------------------------------------------------------------------

static int load(struct bench *bench, const void *bytes, size_t count, struct error *err)
{
    struct state_reader *reader;
    int rc = state_reader_create(&reader, bytes, count, NULL, 0, err);

    if (rc < 0)
        return rc;
    rc = machine_load(bench->machine, reader, err);
    if (rc == 0)
        rc = state_reader_finish(reader, err);
    state_reader_destroy(reader);
    return rc;
}

// What was taken is a state that can be taken; and the machine that took it can be used.
static void look_at_loaded(struct bench *bench)
{
    struct state_writer *writer;
    struct error err = {0};
    const void *bytes;
    const int *fds;
    size_t count, fd_count;

    if (state_writer_create(&writer, false) < 0)
        abort();
    machine_save(bench->machine, writer);
    if (state_writer_finish(writer, &bytes, &count, &fds, &fd_count) < 0)
        abort();
    if (load(bench, bytes, count, &err) < 0)
        die(&err);
    state_writer_destroy(writer);
    machine_resume_devices(bench->machine);
    turn_loop(bench);
    for (unsigned i = 0; i < machine_cpus(bench->machine); i++) {
        struct hart *hart = machine_hart(bench->machine, i);
        hart->debug_step = true;
        hart_run(hart);
    }
    turn_loop(bench);
}

// ---- Changing a state ---------------------------------------------------------------------------

// Adds to the length of the section that `at` is in, so that those after it are found again.
static void section_grow(uint8_t *bytes, size_t count, size_t at, int64_t by)
{
    uint32_t length;

    for (size_t section = HEAD_BYTES; section < at && count - section >= SECTION_BYTES;
         section += SECTION_BYTES + length) {
        memcpy(&length, bytes + section + 36, 4);
        if (length > count - section - SECTION_BYTES)
            return;
        if (at < section + SECTION_BYTES || at >= section + SECTION_BYTES + length)
            continue;
        uint32_t grown = (uint32_t)(length + by);
        memcpy(bytes + section + 36, &grown, 4);
        return;
    }
}

// Returns how many bytes the state now has, of at most 256 more.
static size_t apply(uint8_t *bytes, size_t count, const struct change *change)
{
    size_t at = (size_t)(change->at[1] << 8 | change->at[0]) % count, run = change->value;

    run = run < count - at ? run : count - at;
    switch (change->kind % (CHANGE_CUT + 1)) {
    case CHANGE_SET:
        bytes[at] = change->value;
        return count;
    case CHANGE_FLIP:
        bytes[at] ^= (uint8_t)(1 << change->value % 8);
        return count;
    case CHANGE_ONES:
        memset(bytes + at, 0xff, run < 8 ? run : 8);
        return count;
    case CHANGE_DELETE:
        section_grow(bytes, count, at, -(int64_t)run);
        memmove(bytes + at, bytes + at + run, count - at - run);
        return count - run;
    case CHANGE_REPEAT:
        section_grow(bytes, count, at, (int64_t)run);
        memmove(bytes + at + run, bytes + at, count - at);
        return count + run;
    default:
        return change->value == 0 ? at : count;
    }
}

#define CHANGES_MAX 64u

// A state from the input, of its exact size so that ASan sees what is read beyond.
static uint8_t *make_state(const struct bench *bench, const uint8_t *input, size_t *count)
{
    enum mode mode = *input % 8 < MODE_CHANGES ? *input % 8 : MODE_CHANGES;
    size_t left = *count - 1, made = mode == MODE_CHANGES ? bench->good_count : left;
    uint8_t *bytes = malloc(made + 256 * CHANGES_MAX + 1);

    input++;
    if (!bytes)
        abort();
    memcpy(bytes, mode == MODE_CHANGES ? bench->good : input, made);
    for (unsigned i = 0;
         mode == MODE_CHANGES && left >= sizeof(struct change) && made && i < CHANGES_MAX;
         i++, input += sizeof(struct change), left -= sizeof(struct change))
        made = apply(bytes, made, (const struct change *)input);
    if (mode != MODE_RAW && made >= HEAD_BYTES)
        seal(bytes, made);
    *count = made;
    uint8_t *exact = malloc(made + !made);
    if (!exact)
        abort();
    memcpy(exact, bytes, made);
    free(bytes);
    return exact;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t count)
{
    static struct bench *bench;
    struct error err = {0};

    if (!bench)
        bench = bench_create();
    if (count == 0)
        return 0;
    uint8_t *bytes = make_state(bench, input, &count);
    int rc = state_dump(bytes, count, false, bench->nowhere, &err);
    if (rc < 0 && !err.message[0])
        abort();
    err.message[0] = 0;
    rc = load(bench, bytes, count, &err);
    if (rc < 0 && !err.message[0])
        abort();
    if (rc == 0)
        look_at_loaded(bench);
    free(bytes);
    return 0;
}
