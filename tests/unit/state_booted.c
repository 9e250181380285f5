// SPDX-License-Identifier: BSD-2-Clause
// States of guests that had booted, in tests/fixtures/state/booted/, load for ever. Each is the
// file `state` of a snapshot of a partition with all kinds of devices, whose guest used all of
// them, so it has what a machine that was put together for a test has not: queues in the middle of
// their rings, interrupts that are pending, a vsock connection. Its RAM is not needed for that.
//
// To add one: strake create with --cpus 2 --memory 128M, a disk of 8 MiB, --net user and --vsock 3;
// have Debian's kernel read and write the disk, ping 10.0.2.2, read /dev/hwrng, and take a vsock
// connection; strake snapshot; add what it was to `fixtures`.
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "machine/board.h"
#include "partition/partition.h"
#include "unit.h"
#include "virtio/device.h"

#define FOLDER STRAKE_SOURCE_DIR "/tests/fixtures/state/booted/"
#define STATE_MAX_BYTES (1u << 20)
#define DISK_BYTES (8u << 20)

// What is known of them, from `strake inspect`. Slots: blk, net, vsock, rng, console, input.
static const struct booted {
    const char *name;
    uint64_t pc, satp;
    uint32_t pending;        // of the PLIC, sources 0 to 31
    unsigned blk_next;       // index in the ring of the disk's queue
    uint64_t net_desc_gpa;   // of the network device's transmit queue
    uint64_t net_features;   // that its driver has accepted
    const char *generation;  // the first bytes of the VM generation id
} fixtures[] = {
    {.name = "0.1.0-linux-6.12.state",
     .pc = 0xffffffff8004017a,
     .satp = 0x8003a00000087a7f,
     .pending = 0x12,
     .blk_next = 0x7cf,
     .net_desc_gpa = 0x87608000,
     .net_features = 0x1300199a3,
     .generation = "\xf2\x68\xdd\xab"},
};

struct machine_of_fixtures {
    struct partition *partition;
    int kernel_fd, peer_fd;
};

static int memory_file(size_t bytes)
{
    int fd = memfd_create("file", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
    return fd;
}

static int listening_socket(void)
{
    const struct sockaddr_un any = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&any, sizeof(any.sun_family)), 0);
    assert_int_equal(listen(fd, 1), 0);
    return fd;
}

// Fixtures are of this machine; it never changes.
static void create(struct machine_of_fixtures *of)
{
    int pair[2];
    struct error err = {0};
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair),
                     0);
    of->peer_fd = pair[1];
    of->kernel_fd = memory_file(4096);
    const struct machine_disk disk = {.fd = memory_file(DISK_BYTES)};
    const struct virtio_net_config net = {.pairs = 1, .fds = {pair[0]}, .mac = {2, 0, 0, 0, 0, 1}};
    const struct virtio_vsock_config vsock = {
        .guest_cid = 3, .listen_fd = listening_socket(), .path = "vsock"};
    const struct partition_config config = {
        .name = "booted",
        .machine = {.memory_bytes = 128u << 20,
                    .cpus = 2,
                    .engine = &hart_engine_interp,
                    .version = "1.2.3",
                    .kernel_fd = of->kernel_fd,
                    .initrd_fd = -1,
                    .firmware_fd = -1,
                    .ram_fd = -1,
                    .kernel_name = "kernel",
                    .disks = &disk,
                    .disk_count = 1,
                    .nets = &net,
                    .net_count = 1,
                    .vsock = &vsock,
                    .rng = true,
                    .virtio_console = true,
                    .power_button = true},
    };
    if (partition_create(&of->partition, &config, &err) < 0)
        fail_msg("%s", err.message);
}

static void destroy(struct machine_of_fixtures *of)
{
    partition_destroy(of->partition);
    close(of->kernel_fd);
    close(of->peer_fd);
}

static size_t read_file(const char *path, uint8_t *bytes)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    int64_t count = fd_read_full(fd, bytes, STATE_MAX_BYTES);
    close(fd);
    assert_true(count > 0 && count < STATE_MAX_BYTES);
    return (size_t)count;
}

// Returns what it saves again, in `writer`.
static void load(struct machine_of_fixtures *of, const void *bytes, size_t count,
                 struct state_writer **writer, const void **again, size_t *again_count)
{
    struct state_reader *reader = NULL;
    struct error err = {0};
    const int *fds;
    size_t fd_count;
    assert_int_equal(state_writer_create(writer, false), 0);
    if (state_reader_create(&reader, bytes, count, NULL, 0, &err) < 0 ||
        partition_load(of->partition, reader, *writer, &err) < 0 ||
        state_reader_finish(reader, &err) < 0)
        fail_msg("%s", err.message);
    assert_int_equal(state_writer_finish(*writer, again, again_count, &fds, &fd_count), 0);
    state_reader_destroy(reader);
}

static void check_booted(struct machine *machine, const struct booted *booted)
{
    assert_int_equal(machine->harts[0]->pc, booted->pc);
    assert_int_equal(machine->harts[0]->satp, booted->satp);
    assert_int_equal(machine->plic.pending[0], booted->pending);
    assert_memory_equal(machine->generation.id, booted->generation, 4);
    assert_int_equal(machine->virtio_count, 6);
    for (unsigned i = 0; i < machine->virtio_count; i++) {
        assert_int_equal(machine->virtio[i]->status, 0xf);
        assert_true(machine->virtio[i]->driven);
        assert_null(machine->virtio[i]->broken);
    }
    assert_int_equal(machine->virtio[0]->interrupt_status, 1);
    assert_int_equal(machine->virtio[0]->queues[0].avail_next, booted->blk_next);
    assert_int_equal(machine->virtio[1]->queues[1].desc_gpa, booted->net_desc_gpa);
    assert_int_equal(machine->virtio[1]->driver_features, booted->net_features);
}

// In another machine what was saved anew is the same again: nothing of it gets lost.
static void check_round_trip(const void *bytes, size_t count)
{
    struct machine_of_fixtures another;
    struct state_writer *writer;
    struct error err = {0};
    const void *again;
    size_t again_count;
    create(&another);
    load(&another, bytes, count, &writer, &again, &again_count);
    if (state_compare(bytes, count, again, again_count, &err) < 0)
        fail_msg("%s", err.message);
    state_writer_destroy(writer);
    destroy(&another);
}

static void test_booted(void **state)
{
    uint8_t *bytes = malloc(STATE_MAX_BYTES);
    (void)state;
    for (size_t i = 0; i < BASE_COUNT_OF(fixtures); i++) {
        struct machine_of_fixtures of;
        struct state_writer *writer;
        char path[512];
        const void *again;
        size_t again_count;
        snprintf(path, sizeof(path), FOLDER "%s", fixtures[i].name);
        size_t count = read_file(path, bytes);
        create(&of);
        load(&of, bytes, count, &writer, &again, &again_count);
        check_booted(partition_machine(of.partition), &fixtures[i]);
        check_round_trip(again, again_count);
        print_message("loaded %s, %zu bytes, and what it saves, %zu bytes\n", fixtures[i].name,
                      count, again_count);
        state_writer_destroy(writer);
        destroy(&of);
    }
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_booted)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
