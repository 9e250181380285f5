// SPDX-License-Identifier: BSD-2-Clause
// An old monitor is killed while the host works on its disk requests, and the new one does them
// again. What that rests on is looked at as well: once the process is no more, nothing of it
// changes guest memory or the disk, so that what the guest writes afterwards stays.
//
// The old monitor is this program again, in a process of its own ("old", then its descriptors).
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "virtio_driver.h"

enum { IN = 0, OUT = 1 };
#define SLOTS 24u
#define DATA_BYTES (256u << 10)
#define KILLS 12u

// What the guest knows, and the state that O has saved; in memory that both monitors map.
struct common {
    struct driver guest;
    uint64_t data_gpa, small_gpa;
    size_t state_bytes;
    uint8_t state[8192];
};

static struct driver driver;
static struct common *common;
static int common_fd, ram_fd, disk_fd;

static void open_driver(void)
{
    struct virtio_blk_config config = {.fd = dup(disk_fd)};

    driver_open_on(&driver, dup(ram_fd));
    assert_int_equal(virtio_blk_create(&driver.device, &driver.wiring, &config, NULL), 0);
}

// Even slots are written, odd ones read.
static bool is_write(unsigned slot)
{
    return slot % 2 == 0;
}

static uint8_t *data_of(unsigned slot)
{
    return driver_ram(&driver, common->data_gpa + (uint64_t)DATA_BYTES * slot);
}

static void send_request(unsigned slot)
{
    uint64_t header_gpa = common->small_gpa + 64 * slot;
    struct {
        uint32_t type, reserved;
        uint64_t sector;
    } header = {is_write(slot) ? OUT : IN, 0, slot * (DATA_BYTES / 512)};
    struct driver_buffer buffers[] = {
        {header_gpa, 16, false},
        {common->data_gpa + (uint64_t)DATA_BYTES * slot, DATA_BYTES, !is_write(slot)},
        {header_gpa + 16, 1, true}};

    memcpy(driver_ram(&driver, header_gpa), &header, sizeof(header));
    driver.queues[0].next_desc = 3 * slot;
    driver_make_available(&driver, 0, driver_chain(&driver, 0, buffers, 3));
}

// ---- The old monitor ---------------------------------------------------------------------------

static void ignore(void *opaque, unsigned slot, uint16_t head, uint32_t written)
{
    (void)opaque, (void)slot, (void)head, (void)written;
}

static void freeze_and_save(void *opaque)
{
    virtio_device_freeze(driver.device, DRIVER_SLOT, ignore, NULL);
    struct driver_state state = driver_save_here(driver.device);
    assert_true(state.length_bytes <= sizeof(common->state));
    memcpy(common->state, state.bytes, state.length_bytes);
    common->state_bytes = state.length_bytes;
    (void)opaque;
}

static int run_old(char **fds)
{
    const int signal_fd = atoi(fds[3]);

    common_fd = atoi(fds[0]);
    ram_fd = atoi(fds[1]);
    disk_fd = atoi(fds[2]);
    common = mmap(NULL, sizeof(*common), PROT_READ | PROT_WRITE, MAP_SHARED, common_fd, 0);
    assert_ptr_not_equal(common, MAP_FAILED);
    open_driver();
    driver_attach(&driver, driver.device);
    driver_start(&driver, 0, 1, 128);  // no FLUSH feature: every write is to be durable
    common->data_gpa = driver_alloc(&driver, (size_t)DATA_BYTES * SLOTS);
    common->small_gpa = driver_alloc(&driver, 4096);
    for (unsigned slot = 0; slot < SLOTS; slot++) {
        memset(data_of(slot), is_write(slot) ? 0x40 + (int)slot : 0, DATA_BYTES);
        send_request(slot);
    }
    driver_kick(&driver, 0);
    driver_settle(&driver);
    loop_call(driver.loop, freeze_and_save, NULL);
    common->guest = driver;
    if (write(signal_fd, "", 1) != 1)
        return 1;
    for (;;)
        pause();
}

static pid_t start_old(int *ready_fd)
{
    char fds[4][12];
    int ends[2];

    assert_int_equal(pipe(ends), 0);
    snprintf(fds[0], sizeof(fds[0]), "%d", common_fd);
    snprintf(fds[1], sizeof(fds[1]), "%d", ram_fd);
    snprintf(fds[2], sizeof(fds[2]), "%d", disk_fd);
    snprintf(fds[3], sizeof(fds[3]), "%d", ends[1]);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execl("/proc/self/exe", "old", "old", fds[0], fds[1], fds[2], fds[3], NULL);
        _exit(1);
    }
    close(ends[1]);
    *ready_fd = ends[0];
    return pid;
}

// ---- The new monitor ---------------------------------------------------------------------------

static uint64_t sum_of(int fd)
{
    static uint8_t chunk[1 << 16];
    uint64_t sum = 0;
    ssize_t count;

    for (off_t at = 0; (count = pread(fd, chunk, sizeof(chunk), at)) > 0; at += count)
        for (ssize_t i = 0; i < count; i++)
            sum = (sum ^ chunk[i]) * 0x100000001b3;
    return sum;
}

static void check_quiet(void)
{
    uint64_t ram = sum_of(ram_fd), disk = sum_of(disk_fd);
    usleep(20000);
    assert_true(ram == sum_of(ram_fd));
    assert_true(disk == sum_of(disk_fd));
}

static void check_content(void)
{
    static uint8_t content[DATA_BYTES], expected[DATA_BYTES];

    for (unsigned slot = 0; slot < SLOTS; slot++) {
        memset(expected, is_write(slot) ? 0x40 + (int)slot : 0x80, DATA_BYTES);
        assert_int_equal(fd_pread_full(disk_fd, content, DATA_BYTES, (uint64_t)DATA_BYTES * slot),
                         DATA_BYTES);
        assert_memory_equal(content, expected, DATA_BYTES);
        assert_memory_equal(data_of(slot), expected, DATA_BYTES);
    }
}

static void take_over(void)
{
    struct driver_state state = {common->state, common->state_bytes};
    struct error err = {0};

    open_driver();
    if (driver_load(driver.device, &state, &err))
        fail_msg("%s", err.message);
    driver_move(&driver, &common->guest);
    driver_attach(&driver, driver.device);
}

static unsigned old_killed(void)
{
    int ready_fd;
    char byte;

    assert_int_equal(posix_fadvise(disk_fd, 0, 0, POSIX_FADV_DONTNEED), 0);
    pid_t pid = start_old(&ready_fd);
    assert_int_equal(read(ready_fd, &byte, 1), 1);
    close(ready_fd);
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    check_quiet();
    take_over();
    unsigned outstanding = virtio_device_outstanding(driver.device);
    driver_resume(&driver);
    for (unsigned i = 0; i < SLOTS; i++)
        driver_wait_any(&driver, 0);
    check_content();
    driver_close(&driver);
    return outstanding;
}

static void test_killed(void **state)
{
    char path[] = "/tmp/strake-killed-XXXXXX";
    static uint8_t content[DATA_BYTES];
    unsigned outstanding = 0;

    (void)state;
    disk_fd = mkstemp(path);
    assert_true(disk_fd >= 0);
    unlink(path);
    common_fd = memfd_create("common", 0);
    ram_fd = memfd_create("ram", 0);
    assert_int_equal(ftruncate(common_fd, sizeof(*common)), 0);
    assert_int_equal(ftruncate(ram_fd, DRIVER_RAM_BYTES), 0);
    common = mmap(NULL, sizeof(*common), PROT_READ | PROT_WRITE, MAP_SHARED, common_fd, 0);
    assert_ptr_not_equal(common, MAP_FAILED);
    memset(content, 0x80, sizeof(content));
    for (unsigned i = 0; i < KILLS; i++) {
        for (unsigned slot = 0; slot < SLOTS; slot++)
            assert_int_equal(pwrite(disk_fd, content, DATA_BYTES, (off_t)DATA_BYTES * slot),
                             DATA_BYTES);
        fdatasync(disk_fd);
        outstanding += old_killed();
    }
    print_message("%u requests were under way in %u monitors killed\n", outstanding, KILLS);
    munmap(common, sizeof(*common));
    close(common_fd);
    close(ram_fd);
    close(disk_fd);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_killed)};

    if (argc == 6 && strcmp(argv[1], "old") == 0)
        return run_old(argv + 2);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
