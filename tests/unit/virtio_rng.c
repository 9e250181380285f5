// SPDX-License-Identifier: BSD-2-Clause
// The entropy device: fills what it is given, differently each time, up to its bound.
#include "virtio_driver.h"

static void test_rng(void **state)
{
    static struct driver driver;
    struct virtio_device *device;

    (void)state;
    driver_open(&driver);
    assert_int_equal(virtio_rng_create(&device, &driver.wiring, NULL), 0);
    driver_attach(&driver, device);
    driver_start(&driver, F_EVENT_IDX | F_INDIRECT, 1, 8);

    uint64_t gpa = driver_alloc(&driver, 32768);
    uint8_t *ram = driver_ram(&driver, gpa);
    uint8_t first[32];
    struct driver_buffer buffers[] = {{gpa, 5, true}, {gpa + 5, 27, true}};
    static const uint8_t nothing[32];
    assert_int_equal(driver_wait(&driver, 0, driver_send(&driver, 0, buffers, 2)), 32);
    memcpy(first, ram, 32);
    assert_memory_not_equal(first, nothing, 32);
    assert_memory_equal(ram + 32, nothing, 32);
    assert_int_equal(driver_wait(&driver, 0, driver_send(&driver, 0, buffers, 2)), 32);
    assert_memory_not_equal(ram, first, 32);

    struct driver_buffer large = {gpa, 32768, true};
    assert_int_equal(driver_wait(&driver, 0, driver_send(&driver, 0, &large, 1)), 4096);
    assert_memory_not_equal(ram + 4064, nothing, 32);
    assert_memory_equal(ram + 4096, nothing, 32);

    struct driver_buffer readable = {gpa, 16, false};
    assert_int_equal(driver_wait(&driver, 0, driver_send(&driver, 0, &readable, 1)), 0);
    driver_close(&driver);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rng)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
