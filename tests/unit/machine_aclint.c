// SPDX-License-Identifier: BSD-2-Clause
// Timers and software interrupts, through the memory map and into the harts.
#include "machine_fixture.h"

#define MSIP(hart) (MACHINE_ACLINT_GPA + 4u * (hart))
#define MTIMECMP(hart) (MACHINE_ACLINT_GPA + 0x4000u + 8u * (hart))
#define MTIME (MACHINE_ACLINT_GPA + 0xbff8u)
#define HARTS 2u

static int setup(void **state)
{
    const struct machine_config config = fixture_config(HARTS);
    *state = fixture_create(&config);
    return 0;
}

static int teardown(void **state)
{
    fixture_destroy(*state);
    return 0;
}

static uint64_t pending(struct fixture *fixture, unsigned id)
{
    return hart_mip(machine_hart(fixture->machine, id));
}

static void test_software_interrupts(void **state)
{
    struct fixture *fixture = *state;

    fixture_put(fixture, MSIP(1), 4, 0xffffffff);
    assert_int_equal(fixture_get(fixture, MSIP(0), 4), 0);
    assert_int_equal(fixture_get(fixture, MSIP(1), 4), 1);
    assert_int_equal(pending(fixture, 0) & HART_IRQ_MSIP, 0);
    assert_int_equal(pending(fixture, 1) & HART_IRQ_MSIP, HART_IRQ_MSIP);
    fixture_put(fixture, MSIP(1), 4, 2);
    assert_int_equal(fixture_get(fixture, MSIP(1), 4), 0);
    assert_int_equal(pending(fixture, 1) & HART_IRQ_MSIP, 0);
}

static void test_time(void **state)
{
    struct fixture *fixture = *state;

    assert_int_equal(fixture_get(fixture, MTIME, 8), 0);
    fixture->clock_ns += 0x123456789abull * 100;
    assert_int_equal(fixture_get(fixture, MTIME, 8), 0x123456789abull);
    assert_int_equal(fixture_get(fixture, MTIME, 4), 0x456789ab);
    assert_int_equal(fixture_get(fixture, MTIME + 4, 4), 0x123);
    fixture_put(fixture, MTIME, 8, 5);
    assert_int_equal(fixture_get(fixture, MTIME, 8), 0x123456789abull);
}

static void test_timer_compare(void **state)
{
    struct fixture *fixture = *state;
    struct hart *hart = machine_hart(fixture->machine, 1);

    assert_int_equal(fixture_get(fixture, MTIMECMP(0), 8), UINT64_MAX);
    fixture_put(fixture, MTIMECMP(1), 8, 0x1122334455667788ull);
    assert_int_equal(atomic_load(&hart->mtimecmp), 0x1122334455667788ull);
    assert_int_equal(fixture_get(fixture, MTIMECMP(1) + 4, 4), 0x11223344);
    fixture_put(fixture, MTIMECMP(1), 4, 7);
    assert_int_equal(fixture_get(fixture, MTIMECMP(1), 8), 0x1122334400000007ull);
    fixture_put(fixture, MTIMECMP(1) + 4, 4, 0);
    assert_int_equal(fixture_get(fixture, MTIMECMP(1), 8), 7);
    fixture_put(fixture, MTIMECMP(1), 4, 0xffffffff80000000u);  // a register with its sign extended
    assert_int_equal(fixture_get(fixture, MTIMECMP(1), 8), 0x80000000u);
    assert_int_equal(fixture_get(fixture, MTIMECMP(0), 8), UINT64_MAX);
}

static void test_what_is_not_there(void **state)
{
    struct fixture *fixture = *state;
    const uint64_t gpas[] = {MSIP(HARTS),     MSIP(4095),
                             MTIMECMP(HARTS), MTIMECMP(4094),
                             MTIME + 8,       MACHINE_ACLINT_GPA + ACLINT_LENGTH_BYTES - 8};

    for (size_t i = 0; i < BASE_COUNT_OF(gpas); i++) {
        fixture_put(fixture, gpas[i], 4, UINT32_MAX);
        assert_int_equal(fixture_get(fixture, gpas[i], 4), 0);
    }
}

static void test_reset(void **state)
{
    struct fixture *fixture = *state;

    fixture_put(fixture, MSIP(1), 4, 1);
    fixture_put(fixture, MTIMECMP(1), 8, 1);
    fixture->clock_ns += 1000;
    assert_int_equal(machine_reset(fixture->machine, NULL), 0);
    assert_int_equal(fixture_get(fixture, MSIP(1), 4), 0);
    assert_int_equal(fixture_get(fixture, MTIMECMP(1), 8), UINT64_MAX);
    assert_int_equal(fixture_get(fixture, MTIME, 8), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
        TEST(test_software_interrupts), TEST(test_time),  TEST(test_timer_compare),
        TEST(test_what_is_not_there),   TEST(test_reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
