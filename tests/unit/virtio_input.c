// SPDX-License-Identifier: BSD-2-Clause
// The power button: what the driver is told it is, and the events of a press, also across a save.
#include "virtio_driver.h"

struct event {
    uint16_t type, code;
    uint32_t value;
};

static const struct event press[] = {{1, 116, 1}, {0, 0, 0}, {1, 116, 0}, {0, 0, 0}};

static unsigned ask(struct driver *driver, unsigned select, unsigned subsel)
{
    driver->registers.ops->write(driver->registers.device, R_CONFIG, 1, select);
    driver->registers.ops->write(driver->registers.device, R_CONFIG + 1, 1, subsel);
    return (unsigned)driver_config(driver, 2, 1);
}

static void test_configuration(void **state)
{
    static struct driver driver;
    struct virtio_device *device;
    (void)state;

    driver_open(&driver);
    assert_int_equal(virtio_input_create(&device, &driver.wiring, NULL), 0);
    driver_attach(&driver, device);
    assert_int_equal(driver_read(&driver, R_DEVICE_ID), 18);
    assert_int_equal(ask(&driver, 1, 0), strlen("Strake power button"));
    assert_int_equal(driver_config(&driver, 8, 1), 'S');
    assert_int_equal(ask(&driver, 3, 0), 8);
    assert_int_equal(driver_config(&driver, 8, 2), 6);
    assert_int_equal(ask(&driver, 0x11, 1), 15);
    for (unsigned i = 0; i < 15; i++)
        assert_int_equal(driver_config(&driver, 8 + i, 1), i == 14 ? 0x10 : 0);
    const unsigned none[][2] = {{0, 0}, {1, 1}, {2, 0}, {0x10, 0}, {0x11, 0}, {0x11, 2}, {0x12, 0}};
    for (size_t i = 0; i < BASE_COUNT_OF(none); i++)
        assert_int_equal(ask(&driver, none[i][0], none[i][1]), 0);
    // What is not the driver's stays.
    driver.registers.ops->write(driver.registers.device, R_CONFIG + 2, 1, 99);
    assert_int_equal(driver_config(&driver, 2, 1), 0);
    driver_close(&driver);
}

static void assert_event(struct driver *driver, uint64_t gpa, unsigned head, unsigned index)
{
    assert_int_equal(driver_wait(driver, 0, head), sizeof(struct event));
    assert_memory_equal(driver_ram(driver, gpa), &press[index], sizeof(struct event));
}

static void test_press(void **state)
{
    static struct driver driver;
    struct virtio_device *device;
    unsigned heads[6];
    (void)state;

    driver_open(&driver);
    assert_int_equal(virtio_input_create(&device, &driver.wiring, NULL), 0);
    driver_attach(&driver, device);
    driver_start(&driver, F_EVENT_IDX, 2, 16);
    uint64_t gpa = driver_alloc(&driver, 4096);
    for (unsigned i = 0; i < 6; i++) {
        struct driver_buffer buffer = {gpa + 8 * i, 8, true};
        heads[i] = driver_send(&driver, 0, &buffer, 1);
    }
    virtio_input_press(device);
    for (unsigned i = 0; i < 4; i++)
        assert_event(&driver, gpa + 8 * i, heads[i], i);
    // The next press finds two buffers: the rest comes with the next two.
    virtio_input_press(device);
    assert_event(&driver, gpa + 32, heads[4], 0);
    assert_event(&driver, gpa + 40, heads[5], 1);
    virtio_input_press(device);  // is the same press
    for (unsigned i = 2; i < 4; i++) {
        struct driver_buffer buffer = {gpa, 8, true};
        assert_event(&driver, gpa, driver_send(&driver, 0, &buffer, 1), i);
    }
    // Lights are taken note of.
    struct driver_buffer lights = {gpa, 8, false};
    assert_int_equal(driver_wait(&driver, 1, driver_send(&driver, 1, &lights, 1)), 0);
    driver_close(&driver);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_configuration),
        cmocka_unit_test(test_press),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
