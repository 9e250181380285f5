// SPDX-License-Identifier: BSD-2-Clause
// A block device is handed from monitor to monitor, over and over, while a driver keeps it busy on
// a file of the host: reads, writes that are durable at once, flushes. Every block is compared when
// it is read. Some handovers fail and the old monitor goes on, some old monitors are lost with what
// they had not told, some guests reset their device before the old monitor has ended what it had.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "virtio_driver.h"

enum { IN = 0, OUT = 1, FLUSH = 4 };
#define SLOTS 24u  // requests at once; each has blocks and buffers of its own
#define BLOCKS 8u  // a slot
#define BLOCK_BYTES 4096u
#define DISK_BYTES (SLOTS * BLOCKS * BLOCK_BYTES)
#define HANDOVERS 60u

struct request {
    bool with_device;
    uint32_t type;
    unsigned head, block;
    uint8_t version[BLOCKS];  // of what the block holds; 0: zeros
    bool unknown[BLOCKS];     // a reset came while it was written
    uint8_t writing;
};

struct monitor {
    struct driver driver;
    struct virtio_device *device;
};

static struct monitor *old, *now;
static struct request requests[SLOTS];
static uint64_t data_gpa, small_gpa;
static int disk_fd, ram_fd;
static enum virtio_blk_aio aio;
static unsigned returned, carried;
static uint32_t random_state;

// What O has told and N has not been given yet.
static pthread_mutex_t told_lock = PTHREAD_MUTEX_INITIALIZER;
static struct driver_used told[2 * SLOTS];
static unsigned told_count;

static uint32_t random_below(uint32_t limit)
{
    random_state = random_state * 1664525 + 1013904223;
    return (random_state >> 8) % limit;
}

// ---- The guest ---------------------------------------------------------------------------------

static uint8_t *data_of(unsigned slot)
{
    return driver_ram(&now->driver, data_gpa + BLOCK_BYTES * slot);
}

static uint8_t *status_of(unsigned slot)
{
    return driver_ram(&now->driver, small_gpa + 64 * slot + 16);
}

static void send_request(unsigned slot)
{
    struct request *request = &requests[slot];
    static const uint32_t types[] = {IN, IN, OUT, OUT, OUT, FLUSH};
    uint64_t header_gpa = small_gpa + 64 * slot;
    struct {
        uint32_t type, reserved;
        uint64_t sector;
    } header = {0};

    request->type = types[random_below(BASE_COUNT_OF(types))];
    request->block = random_below(BLOCKS);
    header.type = request->type;
    if (request->type != FLUSH)
        header.sector = (slot * BLOCKS + request->block) * (BLOCK_BYTES / 512);
    request->writing = request->version[request->block] + 1;
    memset(data_of(slot), request->type == OUT ? request->writing : 0xee, BLOCK_BYTES);
    memcpy(driver_ram(&now->driver, header_gpa), &header, sizeof(header));
    *status_of(slot) = 0x77;

    struct driver_buffer buffers[] = {
        {header_gpa, 16, false},
        {data_gpa + BLOCK_BYTES * slot, BLOCK_BYTES, request->type == IN},
        {header_gpa + 16, 1, true}};
    // Descriptors stay a slot's, since requests end in any order.
    now->driver.queues[0].next_desc = 3 * slot;
    request->head = driver_chain(&now->driver, 0, buffers, 3);
    request->with_device = true;
    driver_make_available(&now->driver, 0, request->head);
}

static void check_data(const struct request *request, unsigned slot)
{
    uint8_t expected[BLOCK_BYTES];
    memset(expected, request->version[request->block], sizeof(expected));
    assert_memory_equal(data_of(slot), expected, sizeof(expected));
}

static void take_request(struct driver_used used)
{
    unsigned slot = used.head / 3;
    assert_true(slot < SLOTS);
    struct request *request = &requests[slot];

    assert_true(request->with_device && request->head == used.head);
    assert_int_equal(*status_of(slot), 0);
    assert_int_equal(used.written, request->type == IN ? BLOCK_BYTES + 1 : 1);
    request->with_device = false;
    if (request->type == OUT) {
        request->version[request->block] = request->writing;
        request->unknown[request->block] = false;
    } else if (request->type == IN && !request->unknown[request->block]) {
        check_data(request, slot);
    }
    returned++;
}

static void send_all(void)
{
    for (unsigned slot = 0; slot < SLOTS; slot++)
        if (!requests[slot].with_device)
            send_request(slot);
    driver_kick(&now->driver, 0);
}

static void tell_new(void);

static void take_some(unsigned count)
{
    uint64_t deadline_ns = clock_monotonic_ns() + DRIVER_WAIT_NS;
    struct driver_used used;

    while (count > 0) {
        if (driver_poll(&now->driver, 0, &used)) {
            take_request(used);
            count--;
            continue;
        }
        assert_true(clock_monotonic_ns() < deadline_ns);
        tell_new();
        sched_yield();
    }
}

static unsigned with_device(void)
{
    unsigned count = 0;
    for (unsigned slot = 0; slot < SLOTS; slot++)
        count += requests[slot].with_device;
    return count;
}

static void start_driver(void)
{
    driver_start(&now->driver, 0, 1, 128);  // no FLUSH feature: every write is to be durable
    data_gpa = driver_alloc(&now->driver, BLOCK_BYTES * SLOTS);
    small_gpa = driver_alloc(&now->driver, 64 * SLOTS);
}

// ---- The monitors ------------------------------------------------------------------------------

static struct monitor *monitor_open(void)
{
    struct monitor *monitor = calloc(1, sizeof(*monitor));
    struct virtio_blk_config config = {.fd = dup(disk_fd), .aio = aio};

    assert_non_null(monitor);
    driver_open_on(&monitor->driver, dup(ram_fd));
    assert_int_equal(virtio_blk_create(&monitor->device, &monitor->driver.wiring, &config, NULL),
                     0);
    monitor->driver.device = monitor->device;
    return monitor;
}

static void monitor_close(struct monitor *monitor)
{
    driver_close(&monitor->driver);
    free(monitor);
}

static void ended(void *opaque, unsigned slot, uint16_t head, uint32_t written)
{
    (void)opaque, (void)slot;
    pthread_mutex_lock(&told_lock);
    assert_true(told_count < BASE_COUNT_OF(told));
    told[told_count++] = (struct driver_used){head, written};
    pthread_mutex_unlock(&told_lock);
}

static void freeze_on_loop(void *opaque)
{
    struct monitor *monitor = opaque;
    virtio_device_freeze(monitor->device, DRIVER_SLOT, ended, NULL);
}

static void thaw_on_loop(void *opaque)
{
    virtio_device_thaw(((struct monitor *)opaque)->device);
}

static void pause_on_loop(void *opaque)
{
    virtio_device_pause(((struct monitor *)opaque)->device);
}

static void outstanding_on_loop(void *opaque)
{
    carried += virtio_device_outstanding(((struct monitor *)opaque)->device);
}

// On N's loop thread.
static void tell_on_loop(void *opaque)
{
    struct monitor *monitor = opaque;
    pthread_mutex_lock(&told_lock);
    for (unsigned i = 0; i < told_count; i++)
        virtio_device_ended(monitor->device, told[i].head, told[i].written);
    told_count = 0;
    pthread_mutex_unlock(&told_lock);
}

static bool settle(void *opaque)
{
    loop_call(old->driver.loop, pause_on_loop, old);
    tell_on_loop(opaque);
    return true;
}

static void tell_new(void)
{
    if (old)
        loop_call(now->driver.loop, tell_on_loop, now);
}

static void forsaken_on_loop(void *opaque)
{
    virtio_device_forsaken(((struct monitor *)opaque)->device);
}

// O goes away, with or without having told everything.
static void old_ends(bool tells)
{
    if (!old)
        return;
    loop_call(old->driver.loop, pause_on_loop, old);  // as a process does when it ends
    if (tells)
        tell_new();
    told_count = 0;
    monitor_close(old);
    old = NULL;
    loop_call(now->driver.loop, forsaken_on_loop, now);
}

static void hand_over(bool fails)
{
    struct error err = {0};

    old_ends(random_below(2));
    loop_call(now->driver.loop, freeze_on_loop, now);
    struct driver_state state = driver_save(&now->driver);
    loop_call(now->driver.loop, outstanding_on_loop, now);
    struct monitor *new = monitor_open();
    if (driver_load(new->device, &state, &err))
        fail_msg("%s", err.message);
    driver_check_state(new->device, &state);
    free(state.bytes);
    if (fails) {
        monitor_close(new);
        loop_call(now->driver.loop, thaw_on_loop, now);
        told_count = 0;
        return;
    }
    virtio_device_set_former(new->device, settle, new);
    driver_move(&new->driver, &now->driver);
    driver_attach(&new->driver, new->device);
    driver_resume(&new->driver);
    old = now;
    now = new;
}

// All requests are forgotten: what they were to write may be there or not. Guest memory is the
// guest's alone when the reset returns, whoever had requests under way.
static void reset(void)
{
    uint8_t mine[BLOCK_BYTES];

    memset(mine, 0xcc, sizeof(mine));
    driver_write(&now->driver, R_STATUS, 0);
    for (unsigned slot = 0; slot < SLOTS; slot++) {
        struct request *request = &requests[slot];
        if (request->with_device && request->type == OUT)
            request->unknown[request->block] = true;
        request->with_device = false;
        memset(data_of(slot), 0xcc, BLOCK_BYTES);
        *status_of(slot) = 0xcc;
    }
    usleep(1000);
    for (unsigned slot = 0; slot < SLOTS; slot++) {
        assert_memory_equal(data_of(slot), mine, BLOCK_BYTES);
        assert_int_equal(*status_of(slot), 0xcc);
    }
    start_driver();
}

static void busy(enum virtio_blk_aio how)
{
    char path[] = "/tmp/strake-handover-XXXXXX";

    aio = how;
    random_state = 7;
    returned = carried = 0;
    memset(requests, 0, sizeof(requests));
    disk_fd = mkstemp(path);
    assert_true(disk_fd >= 0);
    unlink(path);
    assert_int_equal(ftruncate(disk_fd, DISK_BYTES), 0);
    ram_fd = memfd_create("ram", MFD_CLOEXEC);
    assert_int_equal(ftruncate(ram_fd, DRIVER_RAM_BYTES), 0);
    now = monitor_open();
    driver_attach(&now->driver, now->device);
    start_driver();
    for (unsigned i = 0; i < HANDOVERS; i++) {
        send_all();
        take_some(random_below(SLOTS / 2));
        hand_over(i % 5 == 3);
        if (i % 6 == 4)
            reset();
        // What the page cache holds is read at once; so it is to hold nothing.
        posix_fadvise(disk_fd, 0, 0, POSIX_FADV_DONTNEED);
    }
    take_some(with_device());
    old_ends(true);
    print_message("%u requests returned, %u carried over in %u handovers\n", returned, carried,
                  HANDOVERS);
    assert_true(returned > HANDOVERS * 2);
    monitor_close(now);
    close(disk_fd);
    close(ram_fd);
}

static void test_uring(void **state)
{
    (void)state;
    busy(VIRTIO_BLK_AIO_AUTO);
}

static void test_sync(void **state)
{
    (void)state;
    busy(VIRTIO_BLK_AIO_SYNC);
    assert_int_equal(carried, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_uring), cmocka_unit_test(test_sync)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
