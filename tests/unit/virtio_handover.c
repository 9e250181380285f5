// SPDX-License-Identifier: BSD-2-Clause
// A block device is handed from one monitor to another with requests under way: two devices on the
// same RAM, each with its own loop, over a host side that answers when the test says so. The
// functions of disk.h are defined here, so that the linker leaves the real ones in their archive.
#include <sys/mman.h>
#include <unistd.h>

#include "virtio/disk.h"
#include "virtio_driver.h"

enum { IN = 0, OUT = 1, FLUSH = 4, DISCARD = 11, WRITE_ZEROES = 13 };
enum { OK = 0, IOERR = 1, UNTOUCHED = 0x77 };
#define FEATURES (1ull << 9 | 1ull << 13 | 1ull << 14)
#define SLOTS 8u

// ---- The host side -----------------------------------------------------------------------------

#define OPS_MAX 64

// Operations stay under way until the test ends them, or somebody waits for them.
struct disk {
    struct disk_events events;
    struct disk_op ops[OPS_MAX];  // all that were ever submitted
    bool done[OPS_MAX];
    unsigned op_count;
};

static struct disk *opened;  // the last one

int disk_open(struct disk **out, int fd, enum virtio_blk_aio aio, unsigned ops_max,
              struct loop *loop, const struct disk_events *events, struct error *err)
{
    (void)fd, (void)aio, (void)ops_max, (void)loop, (void)err;
    *out = opened = calloc(1, sizeof(**out));
    assert_non_null(opened);
    opened->events = *events;
    return 0;
}

void disk_close(struct disk *disk)
{
    free(disk);
}

void disk_submit(struct disk *disk, const struct disk_op *op)
{
    assert_true(disk->op_count < OPS_MAX);
    disk->ops[disk->op_count++] = *op;
}

void disk_kick(struct disk *disk)
{
    (void)disk;
}

static void op_answer(struct disk *disk, unsigned op, int result)
{
    assert_false(disk->done[op]);
    disk->done[op] = true;
    disk->events.done(disk->events.opaque, disk->ops[op].handle, result);
    disk->events.settled(disk->events.opaque);
}

// In full.
static int op_result(const struct disk_op *op)
{
    int bytes = 0;
    for (unsigned i = 0; op->kind <= DISK_WRITE_DURABLE && i < op->iov_count; i++)
        bytes += (int)op->iov[i].iov_len;
    return bytes;
}

void disk_drain(struct disk *disk)
{
    for (unsigned op = 0; op < disk->op_count; op++)
        if (!disk->done[op])
            op_answer(disk, op, op_result(&disk->ops[op]));
}

static unsigned disk_under_way(const struct disk *disk)
{
    unsigned count = 0;
    for (unsigned op = 0; op < disk->op_count; op++)
        count += !disk->done[op];
    return count;
}

// ---- Two monitors ------------------------------------------------------------------------------

struct monitor {
    struct driver driver;
    struct disk *disk;
    // What it told the other: heads and bytes written.
    struct driver_used told[OPS_MAX];
    unsigned told_count;
};

static struct monitor *old, *new;
static int ram_fd;
static struct driver_state saved;
static uint64_t data_gpa, small_gpa;
static bool settle_answers, settle_tells;
static unsigned settles;

static struct monitor *monitor_open(void)
{
    struct monitor *monitor = calloc(1, sizeof(*monitor));
    struct virtio_blk_config config = {.fd = memfd_create("disk", MFD_CLOEXEC)};

    assert_non_null(monitor);
    driver_open_on(&monitor->driver, dup(ram_fd));
    assert_int_equal(ftruncate(config.fd, 64 << 20), 0);
    assert_int_equal(
        virtio_blk_create(&monitor->driver.device, &monitor->driver.wiring, &config, NULL), 0);
    monitor->disk = opened;
    return monitor;
}

static void monitor_close(struct monitor *monitor)
{
    driver_close(&monitor->driver);
    free(monitor);
}

// Returns the head.
static unsigned send_request(struct driver *driver, unsigned slot, uint32_t type, uint64_t sector,
                             uint32_t bytes)
{
    uint64_t header_gpa = small_gpa + 32 * slot;
    struct {
        uint32_t type, reserved;
        uint64_t sector;
    } header = {type, 0, sector};
    struct driver_buffer buffers[] = {{header_gpa, 16, false},
                                      {data_gpa + 4096 * slot, bytes, type == IN},
                                      {header_gpa + 32 - 1, 1, true}};

    memcpy(driver_ram(driver, header_gpa), &header, sizeof(header));
    *(uint8_t *)driver_ram(driver, header_gpa + 31) = UNTOUCHED;
    unsigned head = driver_send(driver, 0, buffers, 3);
    driver_settle(driver);
    return head;
}

static void ended(void *opaque, unsigned slot, uint16_t head, uint32_t written)
{
    struct monitor *monitor = opaque;
    assert_int_equal(slot, DRIVER_SLOT);
    monitor->told[monitor->told_count++] = (struct driver_used){head, written};
}

static void run_on(struct monitor *monitor, void (*fn)(void *opaque), void *opaque)
{
    loop_call(monitor->driver.loop, fn, opaque);
}

static void freeze_on_loop(void *opaque)
{
    struct monitor *monitor = opaque;
    struct virtio_device *device = monitor->driver.device;
    unsigned outstanding = virtio_device_freeze(device, DRIVER_SLOT, ended, monitor);
    assert_int_equal(outstanding, virtio_device_outstanding(device));
    assert_int_equal(outstanding, disk_under_way(monitor->disk));
}

static void thaw_on_loop(void *opaque)
{
    struct monitor *monitor = opaque;
    virtio_device_thaw(monitor->driver.device);
}

static void pause_on_loop(void *opaque)
{
    struct monitor *monitor = opaque;
    virtio_device_pause(monitor->driver.device);
}

struct answer {
    struct disk *disk;
    unsigned op;
    int result;
};

static void answer_on_loop(void *opaque)
{
    struct answer *answer = opaque;
    op_answer(answer->disk, answer->op, answer->result);
}

static void answer(struct monitor *monitor, unsigned op, int result)
{
    struct answer it = {monitor->disk, op, result};
    run_on(monitor, answer_on_loop, &it);
}

struct report {
    struct virtio_device *device;
    struct driver_used used;
};

static void report_on_loop(void *opaque)
{
    struct report *report = opaque;
    virtio_device_ended(report->device, report->used.head, report->used.written);
}

static void report(struct driver_used used)
{
    struct report it = {new->driver.device, used};
    run_on(new, report_on_loop, &it);
}

// Everything that O has told so far; once each, as messages are.
static void report_all(void)
{
    for (unsigned i = 0; i < old->told_count; i++)
        report(old->told[i]);
    old->told_count = 0;
}

static void forsaken_on_loop(void *opaque)
{
    virtio_device_forsaken(((struct monitor *)opaque)->driver.device);
}

// On N's loop thread, as a handover would do it.
static bool settle(void *opaque)
{
    struct monitor *monitor = opaque;

    settles++;
    if (!settle_answers)
        return false;
    run_on(old, pause_on_loop, old);
    for (unsigned i = 0; settle_tells && i < old->told_count; i++)
        virtio_device_ended(monitor->driver.device, old->told[i].head, old->told[i].written);
    return true;
}

// O stops and its state is with N, which is not attached yet: its loop does not run.
static void hand_over(void)
{
    struct error err = {0};

    saved = driver_save(&old->driver);
    new = monitor_open();
    if (driver_load(new->driver.device, &saved, &err))
        fail_msg("%s", err.message);
    driver_check_state(new->driver.device, &saved);
    virtio_device_set_former(new->driver.device, settle, new);
    driver_move(&new->driver, &old->driver);
}

static void freeze(void)
{
    run_on(old, freeze_on_loop, old);
}

static void attach_new(void)
{
    driver_attach(&new->driver, new->driver.device);
}

static void take_over(void)
{
    attach_new();
    driver_resume(&new->driver);
}

static int setup(void **state)
{
    (void)state;
    settle_answers = settle_tells = true;
    settles = 0;
    ram_fd = memfd_create("ram", MFD_CLOEXEC);
    assert_int_equal(ftruncate(ram_fd, DRIVER_RAM_BYTES), 0);
    old = monitor_open();
    driver_attach(&old->driver, old->driver.device);
    driver_start(&old->driver, FEATURES, 1, 64);
    data_gpa = driver_alloc(&old->driver, 4096 * SLOTS);
    small_gpa = driver_alloc(&old->driver, 4096);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (old)
        monitor_close(old);
    if (new)
        monitor_close(new);
    old = new = NULL;
    free(saved.bytes);
    saved.bytes = NULL;
    close(ram_fd);
    return 0;
}

static uint16_t used_index(void)
{
    return driver_used_index(&new->driver, 0);
}

static void check_returned(struct monitor *monitor, unsigned slot, unsigned head, unsigned written)
{
    uint8_t *status = driver_ram(&monitor->driver, small_gpa + 32 * slot + 31);
    assert_int_equal(driver_wait(&monitor->driver, 0, head), written);
    assert_int_equal(*status, OK);
}

// N works: a request of its own goes through.
static void check_works(struct monitor *monitor)
{
    unsigned op = monitor->disk->op_count;
    unsigned head = send_request(&monitor->driver, 7, IN, 3, 512);
    assert_int_equal(monitor->disk->op_count, op + 1);
    answer(monitor, op, 512);
    check_returned(monitor, 7, head, 513);
}

// ---- When requests end -------------------------------------------------------------------------

static void test_nothing_under_way(void **state)
{
    (void)state;
    unsigned head = send_request(&old->driver, 0, IN, 0, 512);
    answer(old, 0, 512);
    check_returned(old, 0, head, 513);
    freeze();
    hand_over();
    take_over();
    assert_int_equal(virtio_device_outstanding(new->driver.device), 0);
    check_works(new);
    assert_int_equal(old->told_count, 0);
}

// Between freeze and save: the ring gets it, and the state knows nothing of it.
static void test_ends_before_save(void **state)
{
    (void)state;
    unsigned head = send_request(&old->driver, 0, IN, 0, 512);
    freeze();
    answer(old, 0, 512);
    check_returned(old, 0, head, 513);
    hand_over();
    assert_int_equal(virtio_device_outstanding(new->driver.device), 0);
    take_over();
    check_works(new);
    assert_int_equal(old->told_count, 0);
}

// After save, and N hears of it before it owns the guest: it may not touch the ring until then.
static void test_ends_before_run(void **state)
{
    (void)state;
    unsigned head = send_request(&old->driver, 0, IN, 0, 512);
    freeze();
    hand_over();
    assert_int_equal(virtio_device_outstanding(new->driver.device), 1);
    attach_new();
    answer(old, 0, 512);
    assert_int_equal(virtio_device_outstanding(old->driver.device), 0);
    assert_int_equal(old->told_count, 1);
    assert_int_equal(old->told[0].head, head);
    assert_int_equal(old->told[0].written, 513);
    report_all();
    assert_int_equal(virtio_device_outstanding(new->driver.device), 0);
    assert_int_equal(used_index(), 0);
    driver_resume(&new->driver);
    check_returned(new, 0, head, 513);
    assert_int_equal(new->disk->op_count, 0);
    check_works(new);
}

// After N has taken over, mixed with N's own, out of order; the guest is interrupted.
static void test_ends_after_run(void **state)
{
    unsigned heads[4];

    (void)state;
    for (unsigned slot = 0; slot < 3; slot++)
        heads[slot] = send_request(&old->driver, slot, slot == 1 ? OUT : IN, slot, 512);
    freeze();
    hand_over();
    take_over();
    assert_int_equal(virtio_device_outstanding(new->driver.device), 3);
    heads[3] = send_request(&new->driver, 3, OUT, 9, 512);
    answer(old, 2, 512);
    report_all();
    check_returned(new, 2, heads[2], 513);
    assert_true(new->driver.irq);
    answer(new, 0, 512);
    check_returned(new, 3, heads[3], 1);
    answer(old, 0, 512);
    answer(old, 1, -EIO);
    report_all();
    check_returned(new, 0, heads[0], 513);
    assert_int_equal(driver_wait(&new->driver, 0, heads[1]), 1);
    assert_int_equal(*(uint8_t *)driver_ram(&new->driver, small_gpa + 32 + 31), IOERR);
    assert_int_equal(virtio_device_outstanding(old->driver.device), 0);
    assert_int_equal(virtio_device_outstanding(new->driver.device), 0);
    check_works(new);
    assert_int_equal(settles, 0);
}

// What O does after the first answer to a request is O's as well: the rest of a short read, zeros
// that are to be written after all.
static void test_goes_on_in_old(void **state)
{
    struct {
        uint64_t sector;
        uint32_t sectors, flags;
    } range = {16, 200, 0};

    (void)state;
    unsigned read = send_request(&old->driver, 0, IN, 2, 4096);
    memcpy(driver_ram(&old->driver, data_gpa + 4096), &range, sizeof(range));
    unsigned zeroes = send_request(&old->driver, 1, WRITE_ZEROES, 0, sizeof(range));
    unsigned flush = send_request(&old->driver, 2, FLUSH, 0, 16);
    freeze();
    hand_over();
    take_over();
    answer(old, 0, 1024);
    answer(old, 1, -EOPNOTSUPP);
    assert_int_equal(old->told_count, 0);
    assert_int_equal(old->disk->op_count, 5);
    assert_int_equal(old->disk->ops[3].offset_bytes, 2 * 512 + 1024);
    assert_int_equal(old->disk->ops[4].kind, DISK_WRITE);
    assert_int_equal(virtio_device_outstanding(old->driver.device), 3);
    answer(old, 4, 200 * 512);
    answer(old, 3, 4096 - 1024);
    answer(old, 2, 0);
    report_all();
    check_returned(new, 1, zeroes, 1);
    check_returned(new, 0, read, 4097);
    check_returned(new, 2, flush, 1);
    assert_int_equal(new->disk->op_count, 0);
}

// ---- When O or N is lost -----------------------------------------------------------------------

// What N has not heard of is done again, what it has heard of is not.
static void test_old_dies(void **state)
{
    unsigned heads[3];

    (void)state;
    for (unsigned slot = 0; slot < 3; slot++)
        heads[slot] = send_request(&old->driver, slot, slot == 1 ? OUT : IN, 10 + slot, 512);
    freeze();
    hand_over();
    take_over();
    answer(old, 0, 512);
    report_all();
    answer(old, 2, 512);  // it cannot tell any more
    check_returned(new, 0, heads[0], 513);
    struct driver_used late = old->told[0];
    monitor_close(old);
    old = NULL;
    run_on(new, forsaken_on_loop, new);
    assert_int_equal(virtio_device_outstanding(new->driver.device), 0);
    assert_int_equal(new->disk->op_count, 2);
    for (unsigned op = 0; op < 2; op++) {
        bool is_out = new->disk->ops[op].kind == DISK_WRITE;
        unsigned slot = is_out ? 1 : 2;
        assert_int_equal(new->disk->ops[op].offset_bytes, (10 + slot) * 512);
        report(late);  // which was on its way when O died: it is N's request now
        assert_int_equal(used_index(), 1 + op);
        answer(new, op, 512);
        check_returned(new, slot, heads[slot], is_out ? 1 : 513);
    }
    check_works(new);
}

// O dies before N has taken over: then N does everything as soon as it may.
static void test_old_dies_early(void **state)
{
    (void)state;
    unsigned head = send_request(&old->driver, 0, IN, 5, 512);
    freeze();
    hand_over();
    attach_new();
    run_on(new, forsaken_on_loop, new);
    assert_int_equal(new->disk->op_count, 0);
    driver_resume(&new->driver);
    assert_int_equal(new->disk->op_count, 1);
    answer(new, 0, 512);
    check_returned(new, 0, head, 513);
}

// A chain that is wrong when it is read again, since the guest has changed it: the device breaks.
static void test_changed_chain(void **state)
{
    (void)state;
    for (unsigned slot = 0; slot < 2; slot++)
        send_request(&old->driver, slot, IN, 5, 512);
    freeze();
    hand_over();
    take_over();
    new->driver.queues[0].desc[0].gpa = 0;
    run_on(new, forsaken_on_loop, new);
    assert_int_equal(virtio_device_outstanding(new->driver.device), 0);
    assert_int_equal(used_index(), 0);
    assert_true(driver_read(&new->driver, R_STATUS) & S_NEEDS_RESET);
    driver_start(&new->driver, FEATURES, 1, 64);
    check_works(new);
}

// N fails: O returns what has ended meanwhile, and goes on; N never touched the ring.
static void test_thaw(void **state)
{
    unsigned heads[3];

    (void)state;
    for (unsigned slot = 0; slot < 3; slot++)
        heads[slot] = send_request(&old->driver, slot, IN, slot, 512);
    freeze();
    hand_over();
    attach_new();
    answer(old, 1, 512);
    report_all();
    driver_close(&new->driver);
    free(new);
    new = NULL;
    assert_int_equal(driver_used_index(&old->driver, 0), 0);
    run_on(old, thaw_on_loop, old);
    check_returned(old, 1, heads[1], 513);
    answer(old, 0, 512);
    check_returned(old, 0, heads[0], 513);
    answer(old, 2, 512);
    check_returned(old, 2, heads[2], 513);
    assert_int_equal(old->told_count, 0);
    check_works(old);
    // And a second attempt, from a request that the first had in its state.
    heads[0] = send_request(&old->driver, 0, IN, 0, 512);
    unsigned op = old->disk->op_count - 1;
    free(saved.bytes);
    freeze();
    hand_over();
    take_over();
    answer(old, op, 512);
    report_all();
    check_returned(new, 0, heads[0], 513);
}

// Requests that come while O is frozen wait in the ring for whoever goes on.
static void test_request_while_frozen(void **state)
{
    (void)state;
    freeze();
    unsigned head = send_request(&old->driver, 0, IN, 0, 512);
    assert_int_equal(old->disk->op_count, 0);
    hand_over();
    take_over();
    assert_int_equal(new->disk->op_count, 1);
    answer(new, 0, 512);
    check_returned(new, 0, head, 513);
}

// ---- Where N has to wait for O -----------------------------------------------------------------

// The guest resets its device: when that returns, O is done with guest memory.
static void reset_in_new(bool tells)
{
    settle_tells = tells;
    for (unsigned slot = 0; slot < 3; slot++)
        send_request(&old->driver, slot, IN, slot, 512);
    freeze();
    hand_over();
    take_over();
    driver_write(&new->driver, R_STATUS, 0);
    assert_int_equal(settles, 1);
    assert_int_equal(disk_under_way(old->disk), 0);
    assert_int_equal(used_index(), 0);
    assert_int_equal(driver_read(&new->driver, R_STATUS), 0);
    driver_start(&new->driver, FEATURES, 1, 64);
    check_works(new);
    // Reports that come late name nothing, whatever has their heads now.
    unsigned head = send_request(&new->driver, 0, IN, 0, 512);
    uint16_t used = used_index();
    report_all();
    assert_int_equal(used_index(), used);
    answer(new, 1, 512);
    check_returned(new, 0, head, 513);
    driver_write(&new->driver, R_STATUS, 0);
    assert_int_equal(settles, 1);
}

static void test_reset(void **state)
{
    (void)state;
    reset_in_new(true);
}

static void test_reset_untold(void **state)
{
    (void)state;
    reset_in_new(false);
}

// O does not answer: the device stays broken, through resets, until it does.
static void test_reset_unanswered(void **state)
{
    (void)state;
    settle_answers = false;
    send_request(&old->driver, 0, IN, 0, 512);
    freeze();
    hand_over();
    take_over();
    for (unsigned i = 1; i < 3; i++) {
        driver_write(&new->driver, R_STATUS, 0);
        assert_int_equal(settles, i);
        assert_int_equal(driver_read(&new->driver, R_STATUS), S_NEEDS_RESET);
        assert_int_equal(virtio_device_outstanding(new->driver.device), 1);
    }
    settle_answers = true;
    driver_start(&new->driver, FEATURES, 1, 64);
    assert_int_equal(disk_under_way(old->disk), 0);
    check_works(new);
}

// A pause (for a snapshot) ends with nothing under way anywhere, and everything returned: what O
// did not report is done again.
static void pause_in_new(bool tells)
{
    unsigned head;

    settle_tells = tells;
    head = send_request(&old->driver, 0, IN, 0, 512);
    freeze();
    hand_over();
    take_over();
    driver_pause(&new->driver);
    assert_int_equal(settles, 1);
    assert_int_equal(virtio_device_outstanding(new->driver.device), 0);
    assert_int_equal(new->disk->op_count, tells ? 0 : 1);
    check_returned(new, 0, head, 513);
    report_all();
    assert_int_equal(used_index(), 1);
    driver_resume(&new->driver);
    check_works(new);
}

static void test_pause(void **state)
{
    (void)state;
    pause_in_new(true);
}

static void test_pause_untold(void **state)
{
    (void)state;
    pause_in_new(false);
}

static void test_queue_end(void **state)
{
    (void)state;
    unsigned head = send_request(&old->driver, 0, IN, 0, 512);
    freeze();
    hand_over();
    take_over();
    driver_write(&new->driver, R_QUEUE_READY, 0);
    assert_int_equal(settles, 1);
    check_returned(new, 0, head, 513);
    assert_int_equal(disk_under_way(old->disk), 0);
}

// N is handed on while O still has a request: O's is waited for first.
static void test_handed_on(void **state)
{
    (void)state;
    unsigned first = send_request(&old->driver, 0, IN, 0, 512);
    freeze();
    hand_over();
    take_over();
    unsigned second = send_request(&new->driver, 1, IN, 1, 512);
    run_on(new, freeze_on_loop, new);
    assert_int_equal(settles, 1);
    check_returned(new, 0, first, 513);
    monitor_close(old);
    old = new;
    free(saved.bytes);
    hand_over();
    take_over();
    answer(old, 0, 512);
    report_all();
    check_returned(new, 1, second, 513);
    check_works(new);
}

// The state of a device that is paused, not frozen, may have nothing outstanding; if one does, from
// wherever, nobody has it under way and it is done by whoever loads it.
static void test_nobody_has_them(void **state)
{
    (void)state;
    unsigned head = send_request(&old->driver, 0, IN, 0, 512);
    freeze();
    hand_over();
    virtio_device_set_former(new->driver.device, NULL, NULL);
    take_over();
    answer(new, 0, 512);
    check_returned(new, 0, head, 513);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_nothing_under_way),
        TEST(test_ends_before_save),
        TEST(test_ends_before_run),
        TEST(test_ends_after_run),
        TEST(test_goes_on_in_old),
        TEST(test_old_dies),
        TEST(test_old_dies_early),
        TEST(test_changed_chain),
        TEST(test_thaw),
        TEST(test_request_while_frozen),
        TEST(test_reset),
        TEST(test_reset_untold),
        TEST(test_reset_unanswered),
        TEST(test_pause),
        TEST(test_pause_untold),
        TEST(test_queue_end),
        TEST(test_handed_on),
        TEST(test_nobody_has_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
