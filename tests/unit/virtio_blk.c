// SPDX-License-Identifier: BSD-2-Clause
// The block device, with io_uring and without: each request type, what is refused, many at once,
// reset and pause in the middle.
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "virtio_driver.h"

#define DISK_BYTES (4u << 20)
#define SECTORS (DISK_BYTES / 512)

enum { IN = 0, OUT = 1, FLUSH = 4, GET_ID = 8, DISCARD = 11, WRITE_ZEROES = 13 };
enum { OK = 0, IOERR = 1, UNSUPP = 2, UNTOUCHED = 0x77 };
#define F_RO (1ull << 5)
#define F_FLUSH (1ull << 9)
#define F_DISCARD (1ull << 13)
#define F_WRITE_ZEROES (1ull << 14)

static struct driver driver;
static int disk;
static uint64_t data_gpa;   // 1 MiB for data
static uint64_t small_gpa;  // headers and statuses, 32 bytes each
static atomic_uint flushes, durable_writes;

// These stand before libc's: how the synchronous path makes data durable.
int fdatasync(int fd)
{
    atomic_fetch_add(&flushes, 1);
    return (int)syscall(SYS_fdatasync, fd);
}

ssize_t pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
    atomic_fetch_add(&durable_writes, flags == RWF_DSYNC);
    return syscall(SYS_pwritev2, fd, iov, count, offset, 0, flags);
}

// ---- Set-up ------------------------------------------------------------------------------------

static uint8_t pattern(size_t i)
{
    return (uint8_t)(i / 512 * 31 + i);
}

static int make_disk(size_t bytes)
{
    int fd = memfd_create("disk", MFD_CLOEXEC);
    uint8_t *content = malloc(bytes);

    assert_true(fd >= 0 && content);
    for (size_t i = 0; i < bytes; i++)
        content[i] = pattern(i);
    assert_int_equal(fd_write_full(fd, content, bytes), bytes);
    free(content);
    return fd;
}

static void start(uint64_t features)
{
    driver_start(&driver, features, 1, 256);
    data_gpa = driver_alloc(&driver, 1 << 20);
    small_gpa = driver_alloc(&driver, 256 * 32);
}

static int attach_disk(enum virtio_blk_aio aio, bool read_only)
{
    struct virtio_device *device;
    struct error err = {0};

    disk = make_disk(DISK_BYTES + 100);  // not whole sectors: the rest is not there for the guest
    struct virtio_blk_config config = {
        .fd = disk, .read_only = read_only, .aio = aio, .serial = "strake-0123456789xy"};
    int failure = virtio_blk_create(&device, &driver.wiring, &config, &err);
    if (failure)
        print_message("%s\n", err.message);
    assert_int_equal(failure, 0);
    driver_attach(&driver, device);
    start(F_FLUSH | F_EVENT_IDX | F_INDIRECT);
    return 0;
}

static int open_disk(enum virtio_blk_aio aio, bool read_only)
{
    driver_open(&driver);
    return attach_disk(aio, read_only);
}

static int setup_uring(void **state)
{
    (void)state;
    return open_disk(VIRTIO_BLK_AIO_URING, false);
}

static int setup_sync(void **state)
{
    (void)state;
    return open_disk(VIRTIO_BLK_AIO_SYNC, false);
}

static int setup_read_only(void **state)
{
    (void)state;
    return open_disk(VIRTIO_BLK_AIO_AUTO, true);
}

static int memfd(size_t bytes)
{
    int fd = memfd_create("ram", MFD_CLOEXEC);
    assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
    return fd;
}

// On RAM that is shared with other partitions until somebody writes there.
static int open_shared(enum virtio_blk_aio aio)
{
    const struct memory_base base = {memfd(DRIVER_RAM_BYTES),
                                     memfd(memory_base_map_bytes(DRIVER_RAM_BYTES))};
    struct memory *memory;

    assert_int_equal(memory_create(&memory, NULL), 0);
    assert_int_equal(memory_add_ram_shared(memory, DRIVER_RAM_GPA, DRIVER_RAM_BYTES,
                                           memfd(DRIVER_RAM_BYTES), &base, NULL),
                     0);
    driver_open_memory(&driver, memory);
    return attach_disk(aio, false);
}

static int setup_shared_uring(void **state)
{
    (void)state;
    return open_shared(VIRTIO_BLK_AIO_URING);
}

static int setup_shared_sync(void **state)
{
    (void)state;
    return open_shared(VIRTIO_BLK_AIO_SYNC);
}

static int teardown(void **state)
{
    (void)state;
    driver_close(&driver);
    return 0;
}

// ---- Requests ----------------------------------------------------------------------------------

static uint8_t *status_of(unsigned slot)
{
    return driver_ram(&driver, small_gpa + 32 * slot + 16);
}

// Sends a request whose header is cut in two and whose status is a descriptor of its own; `slot`
// names its place in small_gpa. Returns the head.
static unsigned send(unsigned slot, uint32_t type, uint64_t sector, uint64_t gpa, uint32_t bytes,
                     bool device_writes)
{
    uint64_t header_gpa = small_gpa + 32 * slot;
    struct {
        uint32_t type, reserved;
        uint64_t sector;
    } header = {type, 0, sector};
    struct driver_buffer buffers[4] = {{header_gpa, 3, false}, {header_gpa + 3, 13, false}};
    unsigned count = 2;

    memcpy(driver_ram(&driver, header_gpa), &header, sizeof(header));
    *status_of(slot) = UNTOUCHED;
    if (bytes > 0)
        buffers[count++] = (struct driver_buffer){gpa, bytes, device_writes};
    buffers[count++] = (struct driver_buffer){header_gpa + 16, 1, true};
    return driver_send(&driver, 0, buffers, count);
}

static uint32_t request(uint32_t type, uint64_t sector, uint32_t bytes, unsigned status)
{
    unsigned head = send(0, type, sector, data_gpa, bytes, type == IN || type == GET_ID);
    uint32_t written = driver_wait(&driver, 0, head);
    assert_int_equal(*status_of(0), status);
    return written;
}

static void range_request(uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags,
                          unsigned status)
{
    struct {
        uint64_t sector;
        uint32_t sectors, flags;
    } range = {sector, sectors, flags};
    memcpy(driver_ram(&driver, data_gpa), &range, sizeof(range));
    request(type, 0, sizeof(range), status);
}

static void check_disk(size_t offset, size_t bytes, bool zero)
{
    uint8_t *content = malloc(bytes);
    assert_non_null(content);
    assert_int_equal(fd_pread_full(disk, content, bytes, offset), bytes);
    for (size_t i = 0; i < bytes; i++)
        if (content[i] != (zero ? 0 : pattern(offset + i)))
            fail_msg("byte %zu of the disk is 0x%02x", offset + i, content[i]);
    free(content);
}

static void test_config(void **state)
{
    (void)state;
    uint64_t all = driver_offered(&driver);
    assert_true(all & F_FLUSH && all & F_DISCARD && all & F_WRITE_ZEROES && !(all & F_RO));
    assert_int_equal(driver_config(&driver, 0, 4), SECTORS);
    assert_int_equal(driver_config(&driver, 4, 4), 0);
    assert_int_equal(driver_config(&driver, 12, 4), 254);  // seg_max
    assert_int_equal(driver_config(&driver, 20, 4), 512);  // blk_size
    assert_int_equal(driver_config(&driver, 40, 4), 1);    // max_discard_seg
    assert_int_equal(driver_config(&driver, 56, 1), 1);    // write_zeroes_may_unmap
    assert_int_equal(driver_config(&driver, 60, 4), 0);
}

static void test_read_write(void **state)
{
    uint8_t *data = driver_ram(&driver, data_gpa);

    (void)state;
    assert_int_equal(request(IN, 3, 8192, OK), 8193);
    for (size_t i = 0; i < 8192; i++)
        assert_int_equal(data[i], pattern(3 * 512 + i));
    assert_int_equal(data[8192], 0);
    assert_int_equal(request(IN, SECTORS - 2, 1024, OK), 1025);
    assert_int_equal(request(IN, SECTORS, 0, OK), 1);
    assert_int_equal(request(IN, 0, 1 << 20, OK), (1 << 20) + 1);

    for (size_t i = 0; i < 4096; i++)
        data[i] = pattern(512 * 16 + i) ^ 0xff;
    assert_int_equal(request(OUT, 16, 4096, OK), 1);
    memset(data, 0, 4096);
    assert_int_equal(request(IN, 16, 4096, OK), 4097);
    for (size_t i = 0; i < 4096; i++)
        assert_int_equal(data[i], pattern(512 * 16 + i) ^ 0xff);
    check_disk(0, 16 * 512, false);
    check_disk(24 * 512, 16 * 512, false);
}

// The host's system calls store where nobody has stored before.
static void test_shared_ram(void **state)
{
    (void)state;
    data_gpa = DRIVER_RAM_GPA + (5u << 20);
    const uint8_t *data = driver_ram(&driver, data_gpa);
    assert_int_equal(request(IN, 3, 1 << 17, OK), (1 << 17) + 1);
    for (size_t i = 0; i < 1 << 17; i++)
        assert_int_equal(data[i], pattern(3 * 512 + i));
}

static void test_get_id(void **state)
{
    (void)state;
    assert_int_equal(request(GET_ID, 0, 20, OK), 21);
    assert_memory_equal(driver_ram(&driver, data_gpa), "strake-0123456789xy\0", 20);
    assert_int_equal(request(GET_ID, 0, 6, OK), 7);
}

static void test_refused(void **state)
{
    static const struct {
        uint32_t type;
        uint64_t sector;
        uint32_t bytes;
        unsigned status;
    } refused[] = {
        {IN, SECTORS, 512, IOERR},
        {IN, SECTORS - 1, 1024, IOERR},
        {IN, UINT64_MAX, 512, IOERR},
        {IN, UINT64_MAX / 512 + 1, 512, IOERR},
        {IN, SECTORS + 1, 0, IOERR},
        {IN, 0, 511, IOERR},
        {IN, 0, 1, IOERR},
        {OUT, SECTORS, 512, IOERR},
        {OUT, 0, 513, IOERR},
        {OUT, UINT64_MAX, 512, IOERR},
        {2, 0, 512, UNSUPP},
        {UINT32_MAX, 0, 512, UNSUPP},
        {DISCARD, 0, 15, IOERR},
        {DISCARD, 0, 32, IOERR},
        {WRITE_ZEROES, 0, 0, IOERR},
    };

    (void)state;
    for (size_t i = 0; i < BASE_COUNT_OF(refused); i++)
        assert_int_equal(
            request(refused[i].type, refused[i].sector, refused[i].bytes, refused[i].status), 1);
    range_request(DISCARD, SECTORS, 1, 0, IOERR);
    range_request(DISCARD, UINT64_MAX, 1, 0, IOERR);
    range_request(DISCARD, 0, UINT32_MAX, 0, IOERR);
    range_request(DISCARD, 0, 8, 1, UNSUPP);
    range_request(WRITE_ZEROES, 0, 8, 2, UNSUPP);
    range_request(WRITE_ZEROES, SECTORS - 1, 2, 1, IOERR);
    range_request(WRITE_ZEROES, 0, 0, 1, OK);
    check_disk(0, DISK_BYTES + 100, false);
    request(IN, 0, 512, OK);
}

static void test_discard(void **state)
{
    struct stat before, after;

    (void)state;
    fstat(disk, &before);
    range_request(DISCARD, 800, 800, 0, OK);
    check_disk(0, 800 * 512, false);
    check_disk(800 * 512, 800 * 512, true);
    check_disk(1600 * 512, 512, false);
    fstat(disk, &after);
    assert_int_equal(before.st_blocks - after.st_blocks, 800);
    assert_int_equal(before.st_size, after.st_size);
}

// tmpfs has no FALLOC_FL_ZERO_RANGE, so without the unmap flag zeros are written.
static void test_write_zeroes(void **state)
{
    struct stat before, after;

    (void)state;
    fstat(disk, &before);
    range_request(WRITE_ZEROES, 5, 3001, 0, OK);
    check_disk(0, 5 * 512, false);
    check_disk(5 * 512, 3001 * 512, true);
    check_disk(3006 * 512, 10 * 512, false);
    fstat(disk, &after);
    assert_int_equal(before.st_blocks, after.st_blocks);
    range_request(WRITE_ZEROES, 4000, 1600, 1, OK);
    check_disk(4000 * 512, 1600 * 512, true);
    check_disk(5600 * 512, 512, false);
    fstat(disk, &after);
    assert_int_equal(before.st_blocks - after.st_blocks, 1600);
}

static void test_flush(void **state)
{
    (void)state;
    flushes = durable_writes = 0;
    request(OUT, 0, 512, OK);
    request(FLUSH, 0, 0, OK);
}

// The same, looked at from below; and a driver that does not flush has durable writes.
static void test_durable(void **state)
{
    test_flush(state);
    assert_int_equal(flushes, 1);
    assert_int_equal(durable_writes, 0);
    start(0);
    request(OUT, 0, 512, OK);
    assert_int_equal(durable_writes, 1);
    request(IN, 0, 512, OK);
}

static void test_read_only(void **state)
{
    (void)state;
    uint64_t all = driver_offered(&driver);
    assert_true(all & F_RO);
    assert_false(all & (F_DISCARD | F_WRITE_ZEROES));
    request(IN, 0, 512, OK);
    request(FLUSH, 0, 0, OK);
    request(OUT, 0, 512, IOERR);
    range_request(DISCARD, 0, 8, 0, IOERR);
    range_request(WRITE_ZEROES, 0, 8, 0, IOERR);
    check_disk(0, DISK_BYTES, false);
}

// The file has become shorter behind our back: what is still there comes, then an error.
static void test_shrunk(void **state)
{
    (void)state;
    assert_int_equal(ftruncate(disk, 1000), 0);
    assert_int_equal(request(IN, 0, 2048, IOERR), 1001);
    assert_int_equal(request(IN, 100, 512, IOERR), 1);
    assert_int_equal(request(IN, 0, 512, OK), 513);
}

static void test_no_header(void **state)
{
    const struct driver_buffer bad[][2] = {
        {{data_gpa, 15, false}, {data_gpa + 64, 1, true}},
        {{data_gpa, 16, false}, {data_gpa + 16, 512, false}},
        {{data_gpa, 16, true}, {data_gpa + 64, 1, true}},
    };

    (void)state;
    for (size_t i = 0; i < BASE_COUNT_OF(bad); i++) {
        driver_send(&driver, 0, bad[i], 2);
        driver_settle(&driver);
        assert_true(driver_read(&driver, R_STATUS) & S_NEEDS_RESET);
        start(F_FLUSH);
        request(IN, 0, 512, OK);
    }
}

// ---- Many in flight ----------------------------------------------------------------------------

static void test_many(void **state)
{
    enum { SLOTS = 60, ROUNDS = 20 };
    unsigned slot_of_head[256];

    (void)state;
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned slot = 0; slot < SLOTS; slot++) {
            uint64_t sector = (slot * 97 + round * 13) % (SECTORS - 32);
            unsigned head = slot % 4 == 3
                                ? send(slot, FLUSH, 0, 0, 0, false)
                                : send(slot, IN, sector, data_gpa + slot * 16384, 16384, true);
            slot_of_head[head] = slot;
        }
        for (unsigned i = 0; i < SLOTS; i++) {
            unsigned slot = slot_of_head[driver_wait_any(&driver, 0).head];
            const uint8_t *data = driver_ram(&driver, data_gpa + slot * 16384);
            size_t offset = (slot * 97 + round * 13) % (SECTORS - 32) * 512;
            assert_int_equal(*status_of(slot), OK);
            *status_of(slot) = UNTOUCHED;  // so that none is answered twice
            for (size_t at = 0; slot % 4 != 3 && at < 16384; at += 511)
                assert_int_equal(data[at], pattern(offset + at));
        }
    }
}

// A reset ends what is in flight: no status, no used entry, no data appears afterwards.
static void test_reset_in_flight(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 30; round++) {
        for (unsigned slot = 0; slot < 60; slot++)
            send(slot, slot % 2 ? FLUSH : IN, slot, data_gpa + 4096 * slot, slot % 2 ? 0 : 4096,
                 true);
        if (round % 2)
            driver_settle(&driver);
        driver_write(&driver, R_STATUS, 0);
        uint8_t *ram = driver_ram(&driver, DRIVER_RAM_GPA);
        memset(ram, 0xa5, driver.next_gpa - DRIVER_RAM_GPA);
        driver_settle(&driver);
        for (size_t i = 0; i < driver.next_gpa - DRIVER_RAM_GPA; i++)
            if (ram[i] != 0xa5)
                fail_msg("byte %zu of RAM changed after the reset", i);
        start(F_FLUSH);
        assert_int_equal(request(IN, 1, 512, OK), 513);
        assert_int_equal(driver_used_index(&driver, 0), 1);
    }
}

// A pause lets what is in flight end and begins nothing; the rest comes after the resume.
static void test_pause_in_flight(void **state)
{
    (void)state;
    for (unsigned slot = 0; slot < 60; slot++)
        send(slot, slot % 2 ? FLUSH : IN, slot, data_gpa + 4096 * slot, slot % 2 ? 0 : 4096, true);
    driver_pause(&driver);
    uint16_t index = driver_used_index(&driver, 0);
    send(60, IN, 0, data_gpa, 512, true);
    driver_settle(&driver);
    assert_int_equal(driver_used_index(&driver, 0), index);
    assert_int_equal(*status_of(60), UNTOUCHED);
    driver_resume(&driver);
    for (unsigned i = 0; i < 61; i++)
        driver_wait_any(&driver, 0);
    for (unsigned slot = 0; slot < 61; slot++)
        assert_int_equal(*status_of(slot), OK);
}

// ---- Constructor -------------------------------------------------------------------------------

static void check_refused(int fd, const char *why)
{
    struct virtio_device *device;
    struct error err = {0};
    struct virtio_blk_config config = {.fd = fd};

    assert_true(virtio_blk_create(&device, &driver.wiring, &config, &err) < 0);
    assert_non_null(strstr(err.message, why));
    assert_int_equal(close(fd), 0);  // still ours
}

static void test_bad_disks(void **state)
{
    int pipes[2];

    (void)state;
    driver_open(&driver);
    assert_int_equal(pipe(pipes), 0);
    close(pipes[1]);
    check_refused(pipes[0], "neither a regular file nor a block device");
    check_refused(make_disk(511), "smaller than a sector");
    check_refused(memfd_create("empty", 0), "smaller than a sector");
    driver_close(&driver);
}

#define WITH(setup, test)                                                                          \
    {                                                                                              \
#test " (" #setup ")", test, setup, teardown, NULL                                         \
    }
#define WITH_BOTH(test) WITH(setup_uring, test), WITH(setup_sync, test)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_BOTH(test_config),
        WITH_BOTH(test_read_write),
        WITH(setup_shared_uring, test_shared_ram),
        WITH(setup_shared_sync, test_shared_ram),
        WITH_BOTH(test_get_id),
        WITH_BOTH(test_refused),
        WITH_BOTH(test_discard),
        WITH_BOTH(test_write_zeroes),
        WITH_BOTH(test_flush),
        WITH(setup_sync, test_durable),
        WITH(setup_read_only, test_read_only),
        WITH_BOTH(test_shrunk),
        WITH_BOTH(test_no_header),
        WITH_BOTH(test_many),
        WITH_BOTH(test_reset_in_flight),
        WITH_BOTH(test_pause_in_flight),
        cmocka_unit_test(test_bad_disks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
