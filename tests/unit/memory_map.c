// SPDX-License-Identifier: BSD-2-Clause
// The guest-physical map: overlap, bounds, access widths, clearing.
#include "memory/memory.h"
#include "unit.h"

#define RAM_GPA 0x80000000ull
#define RAM_BYTES 0x100000ull

static uint64_t last_offset, last_value;

static uint64_t device_read(void *device, uint64_t offset, unsigned width_bytes)
{
    last_offset = offset;
    return (uint64_t)(uintptr_t)device + width_bytes;
}

static void device_write(void *device, uint64_t offset, unsigned width_bytes, uint64_t value)
{
    (void)device;
    (void)width_bytes;
    last_offset = offset;
    last_value = value;
}

static const struct memory_device_ops ops = {.read = device_read, .write = device_write};

static struct memory_device device_at(uint64_t gpa, uint64_t length_bytes)
{
    return (struct memory_device){.name = "toy",
                                  .gpa = gpa,
                                  .length_bytes = length_bytes,
                                  .width_min = 1,
                                  .width_max = 4,
                                  .ops = &ops,
                                  .device = (void *)0x1000};
}

static int setup(void **state)
{
    struct memory *memory;
    assert_int_equal(memory_create(&memory, NULL), 0);
    assert_int_equal(memory_add_ram(memory, RAM_GPA, RAM_BYTES, -1, NULL), 0);
    struct memory_device device = device_at(0x1000, 0x10);
    assert_int_equal(memory_add_device(memory, &device, NULL), 0);
    *state = memory;
    return 0;
}

static int teardown(void **state)
{
    memory_destroy(*state);
    return 0;
}

static void test_overlap_is_refused(void **state)
{
    const struct {
        uint64_t gpa, length_bytes;
        int rc;
    } cases[] = {
        {0xff0, 0x11, -EEXIST},
        {0x100f, 1, -EEXIST},
        {0x1010, 0x10, 0},
        {0xff0, 0x10, 0},
        {0, UINT64_MAX, -EEXIST},
        {RAM_GPA + RAM_BYTES - 1, 1, -EEXIST},
        {RAM_GPA - 1, 2, -EEXIST},
        {RAM_GPA + RAM_BYTES, 0x1000, 0},
        {UINT64_MAX - 3, 5, -EINVAL},
        {UINT64_MAX - 3, 4, 0},
        {0x5000, 0, -EINVAL},
    };
    for (size_t i = 0; i < BASE_COUNT_OF(cases); i++) {
        struct memory_device device = device_at(cases[i].gpa, cases[i].length_bytes);
        struct error err = {0};
        assert_int_equal(memory_add_device(*state, &device, &err), cases[i].rc);
        assert_int_equal(err.code, cases[i].rc);
    }
}

static void test_ram_accessor_checks_the_whole_range(void **state)
{
    const struct {
        uint64_t gpa, length_bytes;
        bool good;
    } cases[] = {
        {RAM_GPA, RAM_BYTES, true},
        {RAM_GPA, RAM_BYTES + 1, false},
        {RAM_GPA + RAM_BYTES - 1, 1, true},
        {RAM_GPA + RAM_BYTES - 1, 2, false},
        {RAM_GPA - 1, 1, false},
        {RAM_GPA, 0, false},
        {RAM_GPA + 8, UINT64_MAX, false},
        {0x1000, 1, false},
        {0, 1, false},
        {UINT64_MAX, 1, false},
    };
    for (size_t i = 0; i < BASE_COUNT_OF(cases); i++) {
        void *hva = memory_ram_hva(*state, cases[i].gpa, cases[i].length_bytes);
        assert_int_equal(hva != NULL, cases[i].good);
    }
    uint32_t word = 0x12345678, back = 0;
    assert_int_equal(memory_write(*state, RAM_GPA + RAM_BYTES - 4, &word, 4), 0);
    assert_int_equal(memory_read(*state, RAM_GPA + RAM_BYTES - 4, &back, 4), 0);
    assert_int_equal(back, word);
    assert_int_equal(memory_write(*state, RAM_GPA + RAM_BYTES - 3, &word, 4), -EFAULT);
    memory_clear_ram(*state);
    assert_int_equal(memory_read(*state, RAM_GPA + RAM_BYTES - 4, &back, 4), 0);
    assert_int_equal(back, 0);
}

static void test_device_sees_only_what_it_declared(void **state)
{
    const struct {
        uint64_t gpa;
        unsigned width_bytes;
        int rc;
    } cases[] = {
        {0x1000, 1, 0},       {0x100f, 1, 0},       {0x1004, 4, 0},      {0x1002, 4, -EFAULT},
        {0x1008, 8, -EFAULT}, {0x1010, 1, -EFAULT}, {0xfff, 1, -EFAULT}, {RAM_GPA, 4, -EFAULT},
    };
    for (size_t i = 0; i < BASE_COUNT_OF(cases); i++) {
        uint64_t value = 0;
        assert_int_equal(memory_device_read(*state, cases[i].gpa, cases[i].width_bytes, &value),
                         cases[i].rc);
        assert_int_equal(memory_device_write(*state, cases[i].gpa, cases[i].width_bytes, i + 1),
                         cases[i].rc);
        if (cases[i].rc == 0) {
            // The device answers with more than a byte.
            assert_int_equal(value,
                             cases[i].width_bytes == 1 ? 0x01 : 0x1000 + cases[i].width_bytes);
            assert_int_equal(last_offset, cases[i].gpa - 0x1000);
            assert_int_equal(last_value, i + 1);
        }
    }
    memory_remove_device(*state, 0x1000);
    uint64_t value;
    assert_int_equal(memory_device_read(*state, 0x1000, 4, &value), -EFAULT);
}

static void test_large_ram_is_not_touched(void **state)
{
    assert_int_equal(memory_add_ram(*state, 1ull << 40, 64ull << 30, -1, NULL), 0);
    assert_non_null(memory_ram_hva(*state, (1ull << 40) + (64ull << 30) - 8, 8));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_overlap_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ram_accessor_checks_the_whole_range, setup, teardown),
        cmocka_unit_test_setup_teardown(test_device_sees_only_what_it_declared, setup, teardown),
        cmocka_unit_test_setup_teardown(test_large_ram_is_not_touched, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
