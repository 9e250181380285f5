// SPDX-License-Identifier: BSD-2-Clause
// The virtio-mmio registers, as a driver that keeps the rules and as one that does not.
#include "virtio/device.h"

#include "virtio_driver.h"

static int setup(void **state)
{
    static struct driver driver;
    struct virtio_device *device;

    driver_open(&driver);
    assert_int_equal(virtio_rng_create(&device, &driver.wiring, NULL), 0);
    driver_attach(&driver, device);
    *state = &driver;
    return 0;
}

static int teardown(void **state)
{
    driver_close(*state);
    return 0;
}

static void test_identity(void **state)
{
    struct driver *driver = *state;

    assert_int_equal(driver_read(driver, R_MAGIC), 0x74726976);
    assert_int_equal(driver_read(driver, R_VERSION), 2);
    assert_int_equal(driver_read(driver, R_DEVICE_ID), 4);
    assert_string_equal(virtio_device_kind(driver->device), "rng");
    assert_int_equal(driver->registers.length_bytes, VIRTIO_MMIO_BYTES);
    driver_write(driver, R_QUEUE_SEL, 0);
    assert_int_equal(driver_read(driver, R_QUEUE_NUM_MAX), 64);
    driver_write(driver, R_QUEUE_SEL, 1);
    assert_int_equal(driver_read(driver, R_QUEUE_NUM_MAX), 0);
    assert_int_equal(driver_read(driver, 0x0b0), UINT32_MAX);  // no shared memory
    assert_int_equal(driver_read(driver, 0x0bc), UINT32_MAX);
}

static void test_features(void **state)
{
    struct driver *driver = *state;
    uint32_t before = S_ACKNOWLEDGE | S_DRIVER;

    assert_int_equal(driver_offered(driver), F_VERSION_1 | F_EVENT_IDX | F_INDIRECT);
    driver_write(driver, R_DEVICE_FEATURES_SEL, 2);
    assert_int_equal(driver_read(driver, R_DEVICE_FEATURES), 0);

    // FEATURES_OK is refused without VERSION_1, and with a feature that was not offered.
    assert_int_equal(driver_negotiate(driver, 0), before);
    assert_int_equal(driver_negotiate(driver, F_VERSION_1 | 1), before);
    assert_int_equal(driver_negotiate(driver, F_VERSION_1 | 1ull << 63), before);
    // So is DRIVER_OK before FEATURES_OK.
    driver_write(driver, R_STATUS, before | S_DRIVER_OK);
    assert_int_equal(driver_read(driver, R_STATUS), before);
    assert_false(virtio_device_driver_ok(driver->device));

    assert_int_equal(driver_negotiate(driver, F_VERSION_1 | F_EVENT_IDX), before | S_FEATURES_OK);
    // Features are settled now, and bits of the status stay set.
    driver_write(driver, R_DRIVER_FEATURES_SEL, 0);
    driver_write(driver, R_DRIVER_FEATURES, 0);
    driver_write(driver, R_STATUS, S_ACKNOWLEDGE | S_DRIVER_OK | S_NEEDS_RESET);
    assert_int_equal(driver_read(driver, R_STATUS), before | S_FEATURES_OK | S_DRIVER_OK);
    assert_true(virtio_device_has(driver->device, F_EVENT_IDX));
    assert_true(virtio_device_driver_ok(driver->device));

    driver_write(driver, R_STATUS, 0);
    assert_int_equal(driver_read(driver, R_STATUS), 0);
    assert_false(virtio_device_driver_ok(driver->device));
}

// Each of these setups is refused: the queue does not become ready and the device says so.
static void test_bad_queues(void **state)
{
    struct driver *driver = *state;
    static const struct {
        unsigned size;
        uint64_t desc, avail, used;
    } bad[] = {
        {0, 0, 0, 0},
        {3, 0, 0, 0},
        {128, 0, 0, 0},
        {0x80000000, 0, 0, 0},
        {16, 8, 0, 0},
        {16, 0, 1, 0},
        {16, 0, 0, 2},
        {16, DRIVER_RAM_BYTES - 16 * 16 + 16, 0, 0},
        {16, 0, DRIVER_RAM_BYTES - 36, 0},
        {16, 0, 0, DRIVER_RAM_BYTES - 132},
        {16, UINT64_MAX - DRIVER_RAM_GPA - 15, 0, 0},
        {16, 0, (uint64_t)-DRIVER_RAM_GPA, 0},
    };

    for (size_t i = 0; i < BASE_COUNT_OF(bad); i++) {
        driver_negotiate(driver, F_VERSION_1);
        driver_write(driver, R_QUEUE_SEL, 0);
        driver_write(driver, R_QUEUE_NUM, bad[i].size);
        driver_write_gpa(driver, R_QUEUE_DESC, DRIVER_RAM_GPA + bad[i].desc);
        driver_write_gpa(driver, R_QUEUE_DRIVER, DRIVER_RAM_GPA + bad[i].avail);
        driver_write_gpa(driver, R_QUEUE_DEVICE, DRIVER_RAM_GPA + bad[i].used);
        driver_write(driver, R_QUEUE_READY, 1);
        assert_int_equal(driver_read(driver, R_QUEUE_READY), 0);
        assert_true(driver_read(driver, R_STATUS) & S_NEEDS_RESET);
        assert_false(driver->irq);  // DRIVER_OK was not set
    }
    // The smallest and a queue at the very end of RAM are fine.
    driver_negotiate(driver, F_VERSION_1);
    driver_write(driver, R_QUEUE_NUM, 1);
    driver_write_gpa(driver, R_QUEUE_DESC, DRIVER_RAM_GPA + DRIVER_RAM_BYTES - 16);
    driver_write_gpa(driver, R_QUEUE_DRIVER, DRIVER_RAM_GPA + DRIVER_RAM_BYTES - 8);
    driver_write_gpa(driver, R_QUEUE_DEVICE, DRIVER_RAM_GPA + DRIVER_RAM_BYTES - 16);
    driver_write(driver, R_QUEUE_READY, 1);
    assert_int_equal(driver_read(driver, R_QUEUE_READY), 1);

    // Too early: before FEATURES_OK.
    driver_write(driver, R_STATUS, 0);
    driver_queue_place(driver, 0, 16);
    driver_write(driver, R_QUEUE_READY, 1);
    assert_int_equal(driver_read(driver, R_QUEUE_READY), 0);
    assert_true(driver_read(driver, R_STATUS) & S_NEEDS_RESET);
}

static void test_interrupt(void **state)
{
    struct driver *driver = *state;

    driver_start(driver, 0, 1, 16);
    struct driver_buffer buffer = {driver_alloc(driver, 64), 64, true};
    driver_wait(driver, 0, driver_send(driver, 0, &buffer, 1));
    driver_settle(driver);
    assert_int_equal(driver_read(driver, R_INTERRUPT_STATUS), 1);
    assert_true(driver->irq);
    driver_write(driver, R_INTERRUPT_ACK, 2);
    assert_true(driver->irq);
    driver_write(driver, R_INTERRUPT_ACK, 1);
    assert_int_equal(driver_read(driver, R_INTERRUPT_STATUS), 0);
    assert_false(driver->irq);

    // A reset takes the line down.
    driver_wait(driver, 0, driver_send(driver, 0, &buffer, 1));
    driver_settle(driver);
    assert_true(driver->irq);
    driver_write(driver, R_STATUS, 0);
    assert_false(driver->irq);
    assert_int_equal(driver_read(driver, R_INTERRUPT_STATUS), 0);
}

// A queue is worked on only when it is ready and the driver is; what waited is found then.
static void test_notify_early(void **state)
{
    struct driver *driver = *state;
    uint32_t status = driver_negotiate(driver, F_VERSION_1);

    driver_queue_place(driver, 0, 16);
    struct driver_buffer buffer = {driver_alloc(driver, 64), 64, true};
    unsigned head = driver_send(driver, 0, &buffer, 1);
    driver_settle(driver);
    driver_write(driver, R_QUEUE_READY, 1);
    driver_kick(driver, 0);
    driver_write(driver, R_QUEUE_NOTIFY, 1);
    driver_write(driver, R_QUEUE_NOTIFY, 32);
    driver_write(driver, R_QUEUE_NOTIFY, UINT32_MAX);
    driver_settle(driver);
    assert_int_equal(driver_used_index(driver, 0), 0);
    driver_write(driver, R_STATUS, status | S_DRIVER_OK);
    assert_int_equal(driver_wait(driver, 0, head), 64);
}

static void test_queue_unready(void **state)
{
    struct driver *driver = *state;

    driver_start(driver, 0, 1, 16);
    struct driver_buffer buffer = {driver_alloc(driver, 64), 64, true};
    driver_wait(driver, 0, driver_send(driver, 0, &buffer, 1));
    // A ready queue keeps its place ...
    driver_write_gpa(driver, R_QUEUE_DEVICE, 0);
    driver_wait(driver, 0, driver_send(driver, 0, &buffer, 1));
    // ... and one that is not is left alone.
    driver_write(driver, R_QUEUE_READY, 0);
    assert_int_equal(driver_read(driver, R_QUEUE_READY), 0);
    driver_send(driver, 0, &buffer, 1);
    driver_settle(driver);
    assert_int_equal(driver_used_index(driver, 0), 2);
    // It can be set up again without a reset.
    driver_queue_place(driver, 0, 8);
    driver_write(driver, R_QUEUE_READY, 1);
    driver_wait(driver, 0, driver_send(driver, 0, &buffer, 1));
    assert_int_equal(driver_read(driver, R_STATUS) & S_NEEDS_RESET, 0);
}

static void test_pause(void **state)
{
    struct driver *driver = *state;

    driver_start(driver, 0, 1, 16);
    struct driver_buffer buffer = {driver_alloc(driver, 64), 64, true};
    driver_pause(driver);
    unsigned head = driver_send(driver, 0, &buffer, 1);
    driver_settle(driver);
    assert_int_equal(driver_used_index(driver, 0), 0);
    driver_resume(driver);
    assert_int_equal(driver_wait(driver, 0, head), 64);
}

// Every register with every width and telling values, several rounds: nothing to see, but it must
// come through and work afterwards.
static void test_garbage(void **state)
{
    struct driver *driver = *state;
    static const uint32_t values[] = {0, 1, 0x80000000, UINT32_MAX, 0x0f, 0xff, 0x55aa55aa};

    for (size_t v = 0; v < BASE_COUNT_OF(values); v++) {
        for (uint64_t offset = 0; offset < VIRTIO_MMIO_BYTES; offset += 2) {
            for (unsigned width = 1; width <= 4; width *= 2) {
                if (offset % width != 0)
                    continue;
                driver->registers.ops->write(driver->registers.device, offset, width, values[v]);
                driver->registers.ops->read(driver->registers.device, offset, width);
            }
        }
    }
    driver_settle(driver);
    driver_start(driver, F_EVENT_IDX, 1, 16);
    struct driver_buffer buffer = {driver_alloc(driver, 64), 64, true};
    assert_int_equal(driver_wait(driver, 0, driver_send(driver, 0, &buffer, 1)), 64);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_identity, setup, teardown),
        cmocka_unit_test_setup_teardown(test_features, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_queues, setup, teardown),
        cmocka_unit_test_setup_teardown(test_interrupt, setup, teardown),
        cmocka_unit_test_setup_teardown(test_notify_early, setup, teardown),
        cmocka_unit_test_setup_teardown(test_queue_unready, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pause, setup, teardown),
        cmocka_unit_test_setup_teardown(test_garbage, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
