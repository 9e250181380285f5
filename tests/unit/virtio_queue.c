// SPDX-License-Identifier: BSD-2-Clause
// Split virtqueues: what a chain becomes, every rule that a guest can break, and who tells whom.
#include "virtio/device.h"

#include "virtio_driver.h"

// ---- A device that shows what it was given -----------------------------------------------------

#define PROBE_QUEUE_SIZE 16u
#define PROBE_BYTES 8192u

struct probe {
    struct virtio_device device;
    atomic_uint chains;
    bool hold;     // keep chains instead of giving them back
    bool unpop;    // look at each chain twice
    size_t count;  // of the last chain's readable bytes
    size_t space;  // of its writable ones
    uint8_t bytes[PROBE_BYTES];
};

static void probe_notify(struct virtio_device *device, unsigned index)
{
    struct probe *probe = BASE_CONTAINER_OF(device, struct probe, device);
    struct virtqueue *queue = &device->queues[index];
    struct virtio_chain chain;

    unsigned left = virtqueue_begin(queue);
    while (left-- > 0 && virtqueue_pop(queue, &chain)) {
        if (probe->unpop) {
            virtqueue_unpop(queue, 1);
            assert_true(virtqueue_pop(queue, &chain));
        }
        probe->count = virtio_span_read(&chain.readable, 0, probe->bytes, PROBE_BYTES);
        probe->space = chain.writable.bytes;
        atomic_fetch_add(&probe->chains, 1);
        if (!probe->hold)
            virtqueue_push(queue, chain.head,
                           virtio_span_write(&chain.writable, 0, probe->bytes, probe->count));
    }
    virtqueue_publish(queue);
    virtqueue_end(queue);
}

static void probe_destroy(struct virtio_device *device)
{
    free(BASE_CONTAINER_OF(device, struct probe, device));
}

static const struct virtio_device_ops probe_ops = {
    .name = "probe",
    .device_id = 42,
    .queue_count = 1,
    .queue_size = VIRTQUEUE_SIZE_MAX,
    .notify = probe_notify,
    .destroy = probe_destroy,
};

static struct driver driver;
static struct probe *probe;

// Buffers of this region are as large as it takes to exceed 2^32 bytes in a chain; never touched.
#define LARGE_GPA 0x100000000u
#define LARGE_BYTES (32u << 20)

static int setup(void **state)
{
    (void)state;
    driver_open(&driver);
    assert_int_equal(memory_add_ram(driver.memory, LARGE_GPA, LARGE_BYTES, -1, NULL), 0);
    probe = calloc(1, sizeof(*probe));
    assert_non_null(probe);
    assert_int_equal(virtio_device_init(&probe->device, &probe_ops, &driver.wiring, NULL, NULL), 0);
    driver_attach(&driver, &probe->device);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    driver_close(&driver);
    return 0;
}

// Sends text through the device and back.
static void check_echo(const char *text)
{
    size_t length = strlen(text);
    struct driver_buffer buffers[] = {
        {driver_alloc(&driver, length), length, false},
        {driver_alloc(&driver, length), length, true},
    };

    memcpy(driver_ram(&driver, buffers[0].gpa), text, length);
    unsigned head = driver_send(&driver, 0, buffers, 2);
    assert_int_equal(driver_wait(&driver, 0, head), length);
    assert_memory_equal(driver_ram(&driver, buffers[1].gpa), text, length);
}

// ---- Attacks -----------------------------------------------------------------------------------

static struct driver_desc *desc(unsigned index)
{
    return &driver.queues[0].desc[index];
}

static void set_desc(unsigned index, uint64_t gpa, uint32_t bytes, uint16_t flags, uint16_t next)
{
    *desc(index) = (struct driver_desc){.gpa = gpa, .bytes = bytes, .flags = flags, .next = next};
}

// An indirect table of `count` one-byte buffers in a row, and descriptor 0 that leads to it.
static struct driver_desc *set_indirect(unsigned count, uint16_t flags)
{
    uint64_t gpa = driver_alloc(&driver, 16 * (count + 1));
    struct driver_desc *table = driver_ram(&driver, gpa);

    for (unsigned i = 0; i < count; i++)
        table[i] = (struct driver_desc){
            .gpa = DRIVER_RAM_GPA, .bytes = 1, .flags = i + 1 < count ? D_NEXT : 0, .next = i + 1};
    set_desc(0, gpa, 16 * count, D_INDIRECT | flags, 1);
    return table;
}

static void head_beyond(void)
{
    driver_make_available(&driver, 0, PROBE_QUEUE_SIZE);
}

static void head_far_beyond(void)
{
    driver_make_available(&driver, 0, UINT16_MAX);
}

static void next_beyond(void)
{
    set_desc(0, DRIVER_RAM_GPA, 1, D_NEXT, PROBE_QUEUE_SIZE);
    driver_make_available(&driver, 0, 0);
}

static void loop_of_one(void)
{
    set_desc(0, DRIVER_RAM_GPA, 1, D_NEXT, 0);
    driver_make_available(&driver, 0, 0);
}

static void loop_of_two(void)
{
    set_desc(0, DRIVER_RAM_GPA, 1, D_NEXT, 1);
    set_desc(1, DRIVER_RAM_GPA, 1, D_NEXT | D_WRITE, 2);
    set_desc(2, DRIVER_RAM_GPA, 1, D_NEXT | D_WRITE, 1);
    driver_make_available(&driver, 0, 0);
}

static void readable_after_writable(void)
{
    set_desc(0, DRIVER_RAM_GPA, 1, D_NEXT | D_WRITE, 1);
    set_desc(1, DRIVER_RAM_GPA, 1, 0, 0);
    driver_make_available(&driver, 0, 0);
}

static void buffer_below_ram(void)
{
    set_desc(0, DRIVER_RAM_GPA - 1, 2, 0, 0);
    driver_make_available(&driver, 0, 0);
}

static void buffer_over_the_end(void)
{
    set_desc(0, DRIVER_RAM_GPA + DRIVER_RAM_BYTES - 1, 2, D_WRITE, 0);
    driver_make_available(&driver, 0, 0);
}

static void buffer_wraps(void)
{
    set_desc(0, UINT64_MAX - 3, 16, D_WRITE, 0);
    driver_make_available(&driver, 0, 0);
}

static void buffer_huge(void)
{
    set_desc(0, DRIVER_RAM_GPA, UINT32_MAX, D_WRITE, 0);
    driver_make_available(&driver, 0, 0);
}

static void buffer_empty(void)
{
    set_desc(0, DRIVER_RAM_GPA, 0, 0, 0);
    driver_make_available(&driver, 0, 0);
}

// The second of three is bad: the first must not have been acted on.
static void bad_in_the_middle(void)
{
    set_desc(0, DRIVER_RAM_GPA, 8, D_NEXT, 1);
    set_desc(1, 0, 8, D_NEXT, 2);
    set_desc(2, DRIVER_RAM_GPA, 8, D_WRITE, 0);
    driver_make_available(&driver, 0, 0);
}

static void chain_of_4_gib(void)
{
    struct driver_desc *table = set_indirect(200, 0);
    for (unsigned i = 0; i < 200; i++) {
        table[i].gpa = LARGE_GPA;
        table[i].bytes = LARGE_BYTES;
    }
    driver_make_available(&driver, 0, 0);
}

static void indirect_plain(void)
{
    set_indirect(1, 0);
    driver_make_available(&driver, 0, 0);
}

static void indirect_nested(void)
{
    struct driver_desc *table = set_indirect(2, 0);
    table[1] = *desc(0);
    driver_make_available(&driver, 0, 0);
}

static void indirect_nested_at_once(void)
{
    struct driver_desc *table = set_indirect(1, 0);
    table[0] = *desc(0);
    driver_make_available(&driver, 0, 0);
}

static void indirect_and_next(void)
{
    set_indirect(1, D_NEXT);
    driver_make_available(&driver, 0, 0);
}

static void indirect_odd_size(void)
{
    set_indirect(1, 0);
    desc(0)->bytes = 17;
    driver_make_available(&driver, 0, 0);
}

static void indirect_empty(void)
{
    set_indirect(1, 0);
    desc(0)->bytes = 0;
    driver_make_available(&driver, 0, 0);
}

static void indirect_too_large(void)
{
    set_indirect(VIRTIO_CHAIN_MAX + 1, 0);
    driver_make_available(&driver, 0, 0);
}

static void indirect_outside_ram(void)
{
    set_desc(0, 0x1000, 16, D_INDIRECT, 0);
    driver_make_available(&driver, 0, 0);
}

static void indirect_loop(void)
{
    struct driver_desc *table = set_indirect(4, 0);
    table[3].flags = D_NEXT;
    table[3].next = 0;
    driver_make_available(&driver, 0, 0);
}

static void indirect_next_beyond(void)
{
    struct driver_desc *table = set_indirect(4, 0);
    table[1].next = 4;
    driver_make_available(&driver, 0, 0);
}

static void chain_too_long(void)
{
    set_indirect(VIRTIO_CHAIN_MAX, 0);
    *desc(1) = *desc(0);
    set_desc(0, DRIVER_RAM_GPA, 1, D_NEXT, 1);
    driver_make_available(&driver, 0, 0);
}

static void index_jumps(void)
{
    driver.queues[0].avail_index += PROBE_QUEUE_SIZE;
    set_desc(0, DRIVER_RAM_GPA, 1, 0, 0);
    driver_make_available(&driver, 0, 0);
}

static void index_goes_back(void)
{
    driver.queues[0].avail_index -= 2;
    driver_make_available(&driver, 0, 0);
}

// As many chains as there are entries are with the device: there can be no more.
static void index_beyond_outstanding(void)
{
    probe->hold = true;
    set_desc(0, DRIVER_RAM_GPA, 1, 0, 0);
    for (unsigned i = 0; i < PROBE_QUEUE_SIZE; i++)
        driver_make_available(&driver, 0, 0);
    driver_kick(&driver, 0);
    driver_settle(&driver);
    assert_int_equal(probe->chains, PROBE_QUEUE_SIZE + 1);  // and the one of check_echo
    assert_int_equal(driver_read(&driver, R_STATUS) & S_NEEDS_RESET, 0);
    driver_make_available(&driver, 0, 0);
}

static const struct attack {
    const char *name;
    void (*mount)(void);
    uint64_t features;
    const char *rule;  // a part of what the device says
} attacks[] = {
#define ATTACK(mount, features, rule)                                                              \
    {                                                                                              \
#mount, mount, features, rule                                                              \
    }
    ATTACK(head_beyond, 0, "index is beyond"),
    ATTACK(head_far_beyond, 0, "index is beyond"),
    ATTACK(next_beyond, 0, "index is beyond"),
    ATTACK(loop_of_one, 0, "it loops"),
    ATTACK(loop_of_two, 0, "it loops"),
    ATTACK(readable_after_writable, 0, "readable descriptor follows"),
    ATTACK(buffer_below_ram, 0, "not in RAM"),
    ATTACK(buffer_over_the_end, 0, "not in RAM"),
    ATTACK(buffer_wraps, 0, "not in RAM"),
    ATTACK(buffer_huge, 0, "not in RAM"),
    ATTACK(buffer_empty, 0, "empty"),
    ATTACK(bad_in_the_middle, 0, "not in RAM"),
    ATTACK(chain_of_4_gib, F_INDIRECT, "2^32"),
    ATTACK(indirect_plain, 0, "without VIRTIO_F_INDIRECT_DESC"),
    ATTACK(indirect_nested, F_INDIRECT, "inside an indirect table"),
    ATTACK(indirect_nested_at_once, F_INDIRECT, "inside an indirect table"),
    ATTACK(indirect_and_next, F_INDIRECT, "with a next one"),
    ATTACK(indirect_odd_size, F_INDIRECT, "bad size"),
    ATTACK(indirect_empty, F_INDIRECT, "empty"),
    ATTACK(indirect_too_large, F_INDIRECT, "bad size"),
    ATTACK(indirect_outside_ram, F_INDIRECT, "not in RAM"),
    ATTACK(indirect_loop, F_INDIRECT, "it loops"),
    ATTACK(indirect_next_beyond, F_INDIRECT, "index is beyond"),
    ATTACK(chain_too_long, F_INDIRECT, "longer than a queue"),
    ATTACK(index_jumps, 0, "available index"),
    ATTACK(index_goes_back, 0, "available index"),
    ATTACK(index_beyond_outstanding, 0, "available index"),
#undef ATTACK
};

static void check_attack(const struct attack *attack, uint64_t features)
{
    print_message("  %s\n", attack->name);
    probe->hold = false;
    probe->chains = 0;
    driver_start(&driver, features, 1, PROBE_QUEUE_SIZE);
    check_echo("before");
    driver_settle(&driver);
    driver_write(&driver, R_INTERRUPT_ACK, 3);

    attack->mount();
    driver_kick(&driver, 0);
    driver_settle(&driver);
    unsigned chains = probe->chains;
    assert_true(driver_read(&driver, R_STATUS) & S_NEEDS_RESET);
    assert_true(driver_read(&driver, R_INTERRUPT_STATUS) & 2);
    assert_true(driver.irq);
    assert_non_null(strstr(probe->device.broken, attack->rule));
    assert_int_equal(driver_used_index(&driver, 0), 1);

    // Nothing moves until the reset, which makes all good.
    set_desc(0, DRIVER_RAM_GPA, 1, 0, 0);
    driver.queues[0].avail_index = 1;
    driver_make_available(&driver, 0, 0);
    driver_kick(&driver, 0);
    driver_settle(&driver);
    assert_int_equal(probe->chains, chains);
    probe->hold = false;
    driver_start(&driver, features, 1, PROBE_QUEUE_SIZE);
    check_echo("after");
}

static void test_attacks(void **state)
{
    (void)state;
    for (size_t i = 0; i < BASE_COUNT_OF(attacks); i++) {
        check_attack(&attacks[i], attacks[i].features);
        check_attack(&attacks[i], attacks[i].features | F_EVENT_IDX);
    }
}

// ---- Chains ------------------------------------------------------------------------------------

static void test_chain(void **state)
{
    (void)state;
    driver_start(&driver, 0, 1, PROBE_QUEUE_SIZE);
    uint64_t gpa = driver_alloc(&driver, 64);
    memcpy(driver_ram(&driver, gpa), "one, two, three", 15);
    const struct driver_buffer buffers[] = {
        {gpa, 5, false},     {gpa + 5, 5, false},  {gpa + 10, 5, false},
        {gpa + 20, 1, true}, {gpa + 30, 13, true}, {gpa + 50, 10, true},
    };
    unsigned head = driver_send(&driver, 0, buffers, BASE_COUNT_OF(buffers));
    assert_int_equal(driver_wait(&driver, 0, head), 15);
    assert_int_equal(probe->count, 15);
    assert_int_equal(probe->space, 24);
    assert_memory_equal(driver_ram(&driver, gpa + 20), "o\0", 2);
    assert_memory_equal(driver_ram(&driver, gpa + 30), "ne, two, thre\0", 14);
    assert_memory_equal(driver_ram(&driver, gpa + 50), "e\0", 2);

    // Only readable, only writable.
    head = driver_send(&driver, 0, buffers, 1);
    assert_int_equal(driver_wait(&driver, 0, head), 0);
    head = driver_send(&driver, 0, buffers + 3, 1);
    assert_int_equal(driver_wait(&driver, 0, head), 0);
    assert_int_equal(probe->count, 0);
    assert_int_equal(probe->space, 1);
}

// Out of order, direct then indirect, unaligned, as long as it may be.
static void test_indirect(void **state)
{
    (void)state;
    driver_start(&driver, F_INDIRECT, 1, PROBE_QUEUE_SIZE);
    uint64_t gpa = driver_alloc(&driver, 64);
    uint8_t *ram = driver_ram(&driver, gpa);
    memcpy(ram, "abcdef", 6);

    const struct driver_desc table[] = {
        {.gpa = gpa + 2, .bytes = 2, .flags = D_NEXT, .next = 3},
        {.gpa = gpa + 40, .bytes = 8, .flags = D_WRITE, .next = 99},
        {.gpa = 0, .bytes = 0, .flags = D_INDIRECT},  // not reached
        {.gpa = gpa + 4, .bytes = 2, .flags = D_NEXT, .next = 1},
    };
    uint64_t table_gpa = driver_alloc(&driver, 128) + 3;
    memcpy(driver_ram(&driver, table_gpa), table, sizeof(table));
    set_desc(5, gpa, 2, D_NEXT, 2);
    set_desc(2, table_gpa, sizeof(table), D_INDIRECT, 0);
    driver_make_available(&driver, 0, 5);
    driver_kick(&driver, 0);
    assert_int_equal(driver_wait(&driver, 0, 5), 6);
    assert_memory_equal(ram + 40, "abcdef\0", 7);

    set_indirect(VIRTIO_CHAIN_MAX, 0);
    driver_make_available(&driver, 0, 0);
    driver_kick(&driver, 0);
    driver_wait(&driver, 0, 0);
    assert_int_equal(probe->count, VIRTIO_CHAIN_MAX);
}

static void test_unpop(void **state)
{
    (void)state;
    driver_start(&driver, F_EVENT_IDX, 1, PROBE_QUEUE_SIZE);
    probe->unpop = true;
    for (int i = 0; i < 40; i++)
        check_echo("twice");
}

static void test_spans(void **state)
{
    uint8_t memory[] = "0123456789abcdef", copy[32] = {0};
    struct iovec iov[] = {{memory, 4}, {memory + 8, 1}, {memory + 12, 3}};
    struct virtio_span span = {.iov = iov, .count = 3, .bytes = 8};

    (void)state;
    assert_int_equal(virtio_span_read(&span, 0, copy, 32), 8);
    assert_memory_equal(copy, "01238cde", 8);
    assert_int_equal(virtio_span_read(&span, 3, copy, 3), 3);
    assert_memory_equal(copy, "38c", 3);
    assert_int_equal(virtio_span_read(&span, 8, copy, 1), 0);
    assert_int_equal(virtio_span_read(&span, SIZE_MAX, copy, SIZE_MAX), 0);
    assert_int_equal(virtio_span_write(&span, 4, "XYZ!", 4), 4);
    assert_string_equal((char *)memory, "01234567X9abYZ!f");
    assert_int_equal(virtio_span_write(&span, 7, "??", 2), 1);

    virtio_span_drop_front(&span, 2);
    virtio_span_drop_back(&span, 3);
    assert_int_equal(span.bytes, 3);
    assert_int_equal(span.count, 2);
    assert_int_equal(virtio_span_read(&span, 0, copy, 32), 3);
    assert_memory_equal(copy, "23X", 3);
    virtio_span_drop_back(&span, 100);
    assert_int_equal(span.bytes, 0);
    assert_int_equal(span.count, 0);
    virtio_span_drop_front(&span, 1);
    assert_int_equal(span.bytes, 0);
}

// ---- Who tells whom ----------------------------------------------------------------------------

static void test_interrupt_flag(void **state)
{
    (void)state;
    driver_start(&driver, 0, 1, PROBE_QUEUE_SIZE);
    driver.queues[0].avail[0] = 1;
    check_echo("quiet");
    driver_settle(&driver);
    assert_int_equal(driver_read(&driver, R_INTERRUPT_STATUS), 0);
    driver.queues[0].avail[0] = 0;
    check_echo("loud");
    driver_settle(&driver);
    assert_int_equal(driver_read(&driver, R_INTERRUPT_STATUS), 1);
}

// The interrupt comes exactly when the used index passes used_event.
static void test_interrupt_event(void **state)
{
    (void)state;
    driver_start(&driver, F_EVENT_IDX, 1, PROBE_QUEUE_SIZE);
    uint16_t *used_event = &driver.queues[0].avail[2 + PROBE_QUEUE_SIZE];
    struct driver_buffer buffer = {driver_alloc(&driver, 8), 8, false};

    for (unsigned done = 0, quiet = 0; quiet < 6; quiet++) {
        __atomic_store_n(used_event, done + quiet, __ATOMIC_SEQ_CST);
        for (unsigned i = 0; i <= quiet; i++, done++) {
            driver_wait(&driver, 0, driver_send(&driver, 0, &buffer, 1));
            driver_settle(&driver);
            assert_int_equal(driver_read(&driver, R_INTERRUPT_STATUS), i == quiet);
        }
        driver_write(&driver, R_INTERRUPT_ACK, 1);
    }
}

// A driver that notifies only when asked to and then sleeps until the interrupt: with either way of
// suppression no wake-up may get lost. Enough rounds for the indices to wrap.
static void check_no_lost_wakeup(uint64_t features)
{
    unsigned sent = 0, seen = 0, random = 12345;
    struct driver_used used;

    driver_start(&driver, features, 1, PROBE_QUEUE_SIZE);
    struct driver_queue *queue = &driver.queues[0];
    struct driver_buffer buffer = {driver_alloc(&driver, 8), 8, true};
    while (seen < 70000) {
        random = random * 1103515245 + 12345;
        for (unsigned batch = random >> 16 & 15; batch > 0 && sent - seen < queue->size; batch--) {
            driver_make_available(&driver, 0, driver_chain(&driver, 0, &buffer, 1));
            sent++;
            if (driver_kick_wanted(&driver, 0))
                driver_kick(&driver, 0);
        }
        driver_write(&driver, R_INTERRUPT_ACK, 1);
        __atomic_store_n(&queue->avail[2 + queue->size], queue->used_seen, __ATOMIC_SEQ_CST);
        if (driver_used_index(&driver, 0) == queue->used_seen && sent > seen) {
            uint64_t deadline_ns = clock_monotonic_ns() + DRIVER_WAIT_NS;
            while (!driver.irq) {
                assert_true(clock_monotonic_ns() < deadline_ns);
                sched_yield();
            }
        }
        while (driver_poll(&driver, 0, &used))
            seen++;
    }
}

static void test_no_lost_wakeup(void **state)
{
    (void)state;
    check_no_lost_wakeup(0);
    check_no_lost_wakeup(F_EVENT_IDX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_attacks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_chain, setup, teardown),
        cmocka_unit_test_setup_teardown(test_indirect, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unpop, setup, teardown),
        cmocka_unit_test(test_spans),
        cmocka_unit_test_setup_teardown(test_interrupt_flag, setup, teardown),
        cmocka_unit_test_setup_teardown(test_interrupt_event, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_lost_wakeup, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
