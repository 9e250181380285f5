// SPDX-License-Identifier: BSD-2-Clause
// The block device over a host side that answers when the test says so: late, in parts, out of
// order, and with what was never asked. The functions of disk.h are defined here, so that the
// linker leaves the real ones in their archive.
#include <sys/mman.h>
#include <unistd.h>

#include "virtio/disk.h"
#include "virtio_driver.h"

enum { IN = 0, OUT = 1, WRITE_ZEROES = 13 };
enum { OK = 0, IOERR = 1, UNTOUCHED = 0x77 };

// ---- The host side -----------------------------------------------------------------------------

#define OPS_MAX 64

static struct disk_events events;
static struct disk_op ops[OPS_MAX];  // all that were ever submitted
static unsigned op_count, drains;

int disk_open(struct disk **out, int fd, enum virtio_blk_aio aio, unsigned ops_max,
              struct loop *loop, const struct disk_events *wanted, struct error *err)
{
    (void)fd, (void)aio, (void)ops_max, (void)loop, (void)err;
    events = *wanted;
    op_count = drains = 0;
    *out = NULL;
    return 0;
}

void disk_close(struct disk *disk)
{
    (void)disk;
}

void disk_submit(struct disk *disk, const struct disk_op *op)
{
    (void)disk;
    assert_true(op_count < OPS_MAX);
    ops[op_count++] = *op;
}

void disk_kick(struct disk *disk)
{
    (void)disk;
}

void disk_drain(struct disk *disk)
{
    (void)disk;
    drains++;
}

struct answer {
    uint64_t handle;
    int result;
};

static void answer_on_loop(void *opaque)
{
    struct answer *answer = opaque;
    events.done(events.opaque, answer->handle, answer->result);
    events.settled(events.opaque);
}

// ---- The guest's side --------------------------------------------------------------------------

static struct driver driver;
static uint64_t data_gpa, small_gpa;

static void answer(uint64_t handle, int result)
{
    struct answer it = {handle, result};
    loop_call(driver.loop, answer_on_loop, &it);
}

static void start(void)
{
    driver_start(&driver, 1 << 9, 1, 64);
    data_gpa = driver_alloc(&driver, 1 << 16);
    small_gpa = driver_alloc(&driver, 4096);
}

static uint8_t *status_of(unsigned slot)
{
    return driver_ram(&driver, small_gpa + 32 * slot + 16);
}

// Returns the head; the operation that it leads to is the last of `ops` then.
static unsigned send(unsigned slot, uint32_t type, uint64_t sector, uint32_t bytes)
{
    uint64_t header_gpa = small_gpa + 32 * slot;
    struct {
        uint32_t type, reserved;
        uint64_t sector;
    } header = {type, 0, sector};
    struct driver_buffer buffers[] = {
        {header_gpa, 16, false}, {data_gpa, bytes, type == IN}, {header_gpa + 16, 1, true}};

    memcpy(driver_ram(&driver, header_gpa), &header, sizeof(header));
    *status_of(slot) = UNTOUCHED;
    unsigned before = op_count, head = driver_send(&driver, 0, buffers, 3);
    driver_settle(&driver);
    assert_int_equal(op_count, before + 1);
    return head;
}

static int setup(void **state)
{
    struct virtio_device *device;
    struct virtio_blk_config config = {.fd = memfd_create("disk", MFD_CLOEXEC)};

    (void)state;
    driver_open(&driver);
    assert_int_equal(ftruncate(config.fd, 64 << 20), 0);
    assert_int_equal(virtio_blk_create(&device, &driver.wiring, &config, NULL), 0);
    driver_attach(&driver, device);
    start();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unsigned before = drains;
    driver_close(&driver);
    assert_true(drains > before);  // the device is not freed under its requests
    return 0;
}

// What was asked before a reset is answered when the table's entry serves another request.
static void test_late_answers(void **state)
{
    uint64_t stale[8];

    (void)state;
    for (unsigned slot = 0; slot < 8; slot++) {
        send(slot, IN, slot, 512);
        stale[slot] = ops[op_count - 1].handle;
    }
    unsigned before = drains;
    driver_write(&driver, R_STATUS, 0);
    assert_int_equal(drains, before + 1);
    answer(stale[7], 512);
    start();
    unsigned heads[8];
    for (unsigned slot = 0; slot < 8; slot++)
        heads[slot] = send(slot, IN, slot, 512);
    for (unsigned slot = 0; slot < 8; slot++) {
        answer(stale[slot], 512);
        answer(stale[slot], -EIO);
    }
    assert_int_equal(driver_used_index(&driver, 0), 0);
    for (unsigned slot = 0; slot < 8; slot++)
        assert_int_equal(*status_of(slot), UNTOUCHED);
    for (unsigned slot = 0; slot < 8; slot++) {
        answer(ops[8 + slot].handle, 512);
        assert_int_equal(driver_wait(&driver, 0, heads[slot]), 513);
        assert_int_equal(*status_of(slot), OK);
        answer(ops[8 + slot].handle, 512);  // once more
    }
    assert_int_equal(driver_used_index(&driver, 0), 8);
}

static void test_unknown_handles(void **state)
{
    (void)state;
    unsigned head = send(0, IN, 0, 512);
    uint64_t handle = ops[0].handle;
    answer(0x1234567800000000, 512);
    answer(UINT64_MAX, 512);
    answer(handle + 1, 512);
    answer(handle + (1ull << 32), 512);
    assert_int_equal(driver_used_index(&driver, 0), 0);
    answer(handle, 512);
    assert_int_equal(driver_wait(&driver, 0, head), 513);
}

static void test_out_of_order(void **state)
{
    unsigned heads[4];

    (void)state;
    for (unsigned slot = 0; slot < 4; slot++)
        heads[slot] = send(slot, OUT, slot, 512);
    for (unsigned slot = 4; slot-- > 0;) {
        answer(ops[slot].handle, slot % 2 ? 512 : -ENOSPC);
        assert_int_equal(driver_wait(&driver, 0, heads[slot]), 1);
        assert_int_equal(*status_of(slot), slot % 2 ? OK : IOERR);
    }
}

// Parts and interruptions: what is left is asked for, from where it stopped.
static void test_in_parts(void **state)
{
    uint8_t *data = driver_ram(&driver, data_gpa);

    (void)state;
    unsigned head = send(0, IN, 2, 4096);
    assert_int_equal(ops[0].kind, DISK_READ);
    assert_int_equal(ops[0].offset_bytes, 1024);
    answer(ops[0].handle, 1000);
    answer(ops[1].handle, -EINTR);
    answer(ops[2].handle, 3000);
    assert_int_equal(op_count, 4);
    assert_int_equal(ops[3].offset_bytes, 1024 + 4000);
    assert_int_equal(ops[3].iov_count, 1);
    assert_ptr_equal(ops[3].iov[0].iov_base, data + 4000);
    assert_int_equal(ops[3].iov[0].iov_len, 96);
    answer(ops[3].handle, 96);
    assert_int_equal(driver_wait(&driver, 0, head), 4097);
    assert_int_equal(*status_of(0), OK);

    head = send(0, IN, 2, 4096);
    answer(ops[4].handle, 512);
    answer(ops[5].handle, 0);  // the end of the file
    assert_int_equal(driver_wait(&driver, 0, head), 513);
    assert_int_equal(*status_of(0), IOERR);
}

// Where the host cannot make zeros they are written, however the host takes them.
static void test_zeros_written(void **state)
{
    const struct {
        uint64_t sector;
        uint32_t sectors, flags;
    } range = {100, 32768, 0};
    uint64_t total = 32768 * 512, done = 0;

    (void)state;
    memcpy(driver_ram(&driver, data_gpa), &range, sizeof(range));
    unsigned head = send(0, WRITE_ZEROES, 0, sizeof(range));
    assert_int_equal(ops[0].kind, DISK_ZERO);
    assert_int_equal(ops[0].length_bytes, total);
    answer(ops[0].handle, -EOPNOTSUPP);
    while (done < total) {
        const struct disk_op *op = &ops[op_count - 1];
        uint64_t bytes = 0;
        assert_int_equal(op->kind, DISK_WRITE);
        assert_int_equal(op->offset_bytes, 100 * 512 + done);
        for (unsigned i = 0; i < op->iov_count; i++) {
            static const uint8_t zeros[64 << 10];
            assert_true(op->iov[i].iov_len <= sizeof(zeros));
            assert_memory_equal(op->iov[i].iov_base, zeros, op->iov[i].iov_len);
            bytes += op->iov[i].iov_len;
        }
        assert_int_equal(bytes, total - done);
        int part = bytes < 5000000 ? (int)bytes : 5000000;
        answer(op->handle, part);
        done += part;
    }
    assert_int_equal(driver_wait(&driver, 0, head), 1);
    assert_int_equal(*status_of(0), OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_late_answers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unknown_handles, setup, teardown),
        cmocka_unit_test_setup_teardown(test_out_of_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_in_parts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_zeros_written, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
