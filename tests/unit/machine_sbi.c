// SPDX-License-Identifier: BSD-2-Clause
// The built-in SBI, called as a hart does on an ecall.
#include "machine_fixture.h"

#define BASE 0x10
#define TIME 0x54494d45
#define IPI 0x735049
#define RFENCE 0x52464e43
#define HSM 0x48534d
#define SRST 0x53525354
#define DBCN 0x4442434e

#define NOT_SUPPORTED (-2)
#define INVALID_PARAM (-3)
#define INVALID_ADDRESS (-5)
#define ALREADY_AVAILABLE (-6)

#define HARTS 3u
#define RAM MACHINE_RAM_GPA
#define RAM_END (RAM + (16ull << 20))
#define ALL UINT64_MAX

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

struct answer {
    int64_t error;
    uint64_t value;
};

static struct answer call_on(struct fixture *fixture, unsigned id, uint64_t extension,
                             uint64_t function, uint64_t a0, uint64_t a1, uint64_t a2)
{
    struct hart *hart = machine_hart(fixture->machine, id);

    hart->x[10] = a0;
    hart->x[11] = a1;
    hart->x[12] = a2;
    hart->x[16] = function;
    hart->x[17] = extension;
    hart->host.sbi(hart->host.opaque, hart);
    return (struct answer){.error = (int64_t)hart->x[10], .value = hart->x[11]};
}

static struct answer call(struct fixture *fixture, uint64_t extension, uint64_t function,
                          uint64_t a0, uint64_t a1, uint64_t a2)
{
    return call_on(fixture, 0, extension, function, a0, a1, a2);
}

#define assert_answer(actual, wanted_error, wanted_value)                                          \
    do {                                                                                           \
        struct answer answer_ = (actual);                                                          \
        assert_int_equal(answer_.error, wanted_error);                                             \
        assert_int_equal(answer_.value, wanted_value);                                             \
    } while (0)

static void test_base(void **state)
{
    struct fixture *fixture = *state;
    static const uint64_t present[] = {BASE, TIME, IPI, RFENCE, HSM, SRST, DBCN};

    assert_answer(call(fixture, BASE, 0, 0, 0, 0), 0, 0x02000000);
    assert_answer(call(fixture, BASE, 1, 0, 0, 0), 0, 0x5354524b);
    assert_answer(call(fixture, BASE, 2, 0, 0, 0), 0, 0x010203);
    for (size_t i = 0; i < BASE_COUNT_OF(present); i++)
        assert_answer(call(fixture, BASE, 3, present[i], 0, 0), 0, 1);
    assert_answer(call(fixture, BASE, 3, 0x504d55, 0, 0), 0, 0);  // PMU
    assert_answer(call(fixture, BASE, 3, 0, 0, 0), 0, 0);         // legacy set_timer
    for (uint64_t function = 4; function <= 6; function++)
        assert_int_equal(call(fixture, BASE, function, 0, 0, 0).error, 0);
    assert_answer(call(fixture, BASE, 7, 0, 0, 0), NOT_SUPPORTED, 0);
    assert_answer(call(fixture, 0x12345678, 0, 0, 0, 0), NOT_SUPPORTED, 0);
}

static void test_version(void **state)
{
    (void)state;
    assert_int_equal(sbi_version_pack("0.1.0"), 0x000100);
    assert_int_equal(sbi_version_pack("12.34.56"), 0x0c2238);
    assert_int_equal(sbi_version_pack("2"), 0x020000);
    assert_int_equal(sbi_version_pack("1.2-rc3"), 0x010200);
    assert_int_equal(sbi_version_pack(""), 0);
}

static void test_registers_are_preserved(void **state)
{
    struct fixture *fixture = *state;
    struct hart *hart = machine_hart(fixture->machine, 0);
    uint64_t before[32];

    for (unsigned i = 1; i < 32; i++)
        hart->x[i] = 0x1111111111111111ull * (i % 15);
    hart->x[17] = BASE;
    hart->x[16] = 0;
    memcpy(before, hart->x, sizeof(before));
    hart->host.sbi(hart->host.opaque, hart);
    before[10] = hart->x[10];
    before[11] = hart->x[11];
    assert_memory_equal(before, hart->x, sizeof(before));
}

static void test_timer(void **state)
{
    struct fixture *fixture = *state;
    struct hart *hart = machine_hart(fixture->machine, 0);

    assert_int_equal(hart_time(hart), 0);  // since the reset
    assert_answer(call(fixture, TIME, 0, 500, 0, 0), 0, 0);
    assert_int_equal(hart_mip(hart) & HART_IRQ_STIP, 0);
    fixture->clock_ns += 500 * 100;
    assert_int_equal(hart_time(hart), 500);
    hart_set_stimecmp(hart, 500);
    assert_int_equal(hart_mip(hart) & HART_IRQ_STIP, HART_IRQ_STIP);
    call(fixture, TIME, 0, UINT64_MAX, 0, 0);
    assert_int_equal(hart_mip(hart) & HART_IRQ_STIP, 0);
    assert_answer(call(fixture, TIME, 1, 0, 0, 0), NOT_SUPPORTED, 0);
}

// Sends to the harts named and returns, as a mask, who was interrupted.
static unsigned ipi_reaches(struct fixture *fixture, uint64_t mask, uint64_t base, int64_t *error)
{
    unsigned reached = 0;

    *error = call(fixture, IPI, 0, mask, base, 0).error;
    for (unsigned i = 0; i < HARTS; i++) {
        struct hart *hart = machine_hart(fixture->machine, i);
        if (hart_mip(hart) & HART_IRQ_SSIP)
            reached |= 1u << i;
        atomic_store(&hart->mip_software, 0);
    }
    return reached;
}

static void test_hart_masks(void **state)
{
    struct fixture *fixture = *state;
    const struct {
        uint64_t mask, base;
        unsigned reached;
        int64_t error;
    } cases[] = {
        {1, 0, 1, 0},
        {5, 0, 5, 0},
        {3, 1, 6, 0},
        {0, ALL, 7, 0},
        {4, ALL, 7, 0},
        {0, 0, 0, 0},
        {8, 0, 0, INVALID_PARAM},
        {9, 0, 0, INVALID_PARAM},  // nothing is done for the ones that exist
        {2, 2, 0, INVALID_PARAM},
        {1, 3, 0, INVALID_PARAM},
        {0, 3, 0, INVALID_PARAM},
        {1, ALL - 1, 0, INVALID_PARAM},
        {ALL, 0, 0, INVALID_PARAM},
        {1ull << 63, 2, 0, INVALID_PARAM},
    };

    for (size_t i = 0; i < BASE_COUNT_OF(cases); i++) {
        int64_t error;
        assert_int_equal(ipi_reaches(fixture, cases[i].mask, cases[i].base, &error),
                         cases[i].reached);
        assert_int_equal(error, cases[i].error);
    }
}

static void test_fences(void **state)
{
    struct fixture *fixture = *state;

    for (uint64_t function = 0; function <= 2; function++) {
        assert_answer(call(fixture, RFENCE, function, 0, ALL, 0), 0, 0);
        assert_answer(call(fixture, RFENCE, function, 2, 0, 0x1000), 0, 0);
        assert_answer(call(fixture, RFENCE, function, 8, 0, 0), INVALID_PARAM, 0);
    }
    for (uint64_t function = 3; function <= 7; function++)
        assert_answer(call(fixture, RFENCE, function, 0, ALL, 0), NOT_SUPPORTED, 0);
    struct hart *hart = machine_hart(fixture->machine, 1);
    assert_int_equal(atomic_load(&hart->fence_bits), HART_FENCE_I | HART_FENCE_VMA);
}

static void test_hart_start(void **state)
{
    struct fixture *fixture = *state;
    struct hart *hart = machine_hart(fixture->machine, 1);

    assert_answer(call(fixture, HSM, 2, 0, 0, 0), 0, 0);
    assert_answer(call(fixture, HSM, 2, 1, 0, 0), 0, 1);
    assert_answer(call(fixture, HSM, 2, HARTS, 0, 0), INVALID_PARAM, 0);
    assert_answer(call(fixture, HSM, 0, HARTS, RAM, 0), INVALID_PARAM, 0);
    assert_answer(call(fixture, HSM, 0, ALL, RAM, 0), INVALID_PARAM, 0);
    assert_answer(call(fixture, HSM, 0, 1, 0x1000, 0), INVALID_ADDRESS, 0);
    assert_answer(call(fixture, HSM, 0, 1, RAM + 1, 0), INVALID_ADDRESS, 0);
    assert_answer(call(fixture, HSM, 0, 1, RAM_END, 0), INVALID_ADDRESS, 0);
    assert_true(hart_is_parked(hart));

    hart->satp = 8ull << 60;
    assert_answer(call(fixture, HSM, 0, 1, RAM + 0x100, 0x77), 0, 0);
    assert_int_equal(hart->pc, RAM + 0x100);
    assert_int_equal(hart->privilege, HART_S);
    assert_int_equal(hart->satp, 0);
    assert_int_equal(hart->x[10], 1);
    assert_int_equal(hart->x[11], 0x77);
    assert_answer(call(fixture, HSM, 2, 1, 0, 0), 0, 0);
    assert_answer(call(fixture, HSM, 0, 1, RAM, 0), ALREADY_AVAILABLE, 0);
    assert_answer(call(fixture, HSM, 0, 0, RAM, 0), ALREADY_AVAILABLE, 0);
}

static void test_hart_stop(void **state)
{
    struct fixture *fixture = *state;
    struct hart *hart = machine_hart(fixture->machine, 0);

    call(fixture, HSM, 1, 0, 0, 0);
    hart_stop(hart);
    assert_int_equal(hart_run(hart), HART_EXIT_STOPPED);  // leaves without executing anything
    assert_true(hart_is_parked(hart));
    assert_answer(call_on(fixture, 1, HSM, 2, 0, 0, 0), 0, 1);
    assert_answer(call_on(fixture, 1, HSM, 0, 0, RAM, 5), 0, 0);
    assert_int_equal(hart->x[11], 5);
}

static void test_hart_suspend(void **state)
{
    struct fixture *fixture = *state;
    struct hart *hart = machine_hart(fixture->machine, 0);

    // An interrupt that is pending already ends it at once.
    hart->mie = HART_IRQ_SSIP;
    hart_raise_software(hart, HART_IRQ_SSIP);
    hart->pc = RAM + 8;
    assert_answer(call(fixture, HSM, 3, 0, 0, 0), 0, 0);
    assert_int_equal(hart->pc, RAM + 8);
    assert_answer(call(fixture, HSM, 2, 0, 0, 0), 0, 0);

    hart->mstatus |= HART_MSTATUS_SIE;
    assert_answer(call(fixture, HSM, 3, 0x80000000, RAM + 0x40, 0x99), 0, 0x99);
    assert_int_equal(hart->pc, RAM + 0x40);
    assert_int_equal(hart->mstatus & HART_MSTATUS_SIE, 0);
    assert_int_equal(hart->satp, 0);

    assert_answer(call(fixture, HSM, 3, 0x80000000, 0, 0), INVALID_ADDRESS, 0);
    assert_answer(call(fixture, HSM, 3, 1, 0, 0), INVALID_PARAM, 0);
    assert_answer(call(fixture, HSM, 3, 0x0fffffff, 0, 0), INVALID_PARAM, 0);
    assert_answer(call(fixture, HSM, 3, 0x10000000, 0, 0), NOT_SUPPORTED, 0);
    assert_answer(call(fixture, HSM, 3, 0x80000001, RAM, 0), INVALID_PARAM, 0);
    assert_answer(call(fixture, HSM, 3, 0x90000000, RAM, 0), NOT_SUPPORTED, 0);
    assert_answer(call(fixture, HSM, 4, 0, 0, 0), NOT_SUPPORTED, 0);
}

static void test_system_reset(void **state)
{
    struct fixture *fixture = *state;

    assert_answer(call(fixture, SRST, 0, 3, 0, 0), INVALID_PARAM, 0);
    assert_answer(call(fixture, SRST, 0, 0, 2, 0), INVALID_PARAM, 0);
    assert_answer(call(fixture, SRST, 0, 0xf0000000, 0, 0), NOT_SUPPORTED, 0);
    assert_int_equal(fixture->event, -1);
    call(fixture, SRST, 0, 0, 0, 0);
    assert_int_equal(fixture->event, MACHINE_POWEROFF);
    call(fixture, SRST, 0, 1, 1, 0);
    assert_int_equal(fixture->event, MACHINE_REBOOT);
    fixture->event = -1;
    call(fixture, SRST, 0, 2, 0xe0000000, 0);
    assert_int_equal(fixture->event, MACHINE_REBOOT);
}

static void test_console_write(void **state)
{
    struct fixture *fixture = *state;

    assert_int_equal(memory_write(fixture->machine->memory, RAM_END - 5, "hello", 5), 0);
    assert_answer(call(fixture, DBCN, 0, 5, RAM_END - 5, 0), 0, 5);
    assert_int_equal(fixture->output_count, 5);
    assert_memory_equal(fixture->output, "hello", 5);
    assert_answer(call(fixture, DBCN, 2, 0xff00 | '!', 0, 0), 0, 0);
    assert_memory_equal(fixture->output, "hello!", 6);

    assert_answer(call(fixture, DBCN, 0, 6, RAM_END - 5, 0), INVALID_PARAM, 0);
    assert_answer(call(fixture, DBCN, 0, 5, RAM, 1), INVALID_PARAM, 0);
    assert_answer(call(fixture, DBCN, 0, ALL, RAM, 0), INVALID_PARAM, 0);
    assert_answer(call(fixture, DBCN, 0, 1, ALL, 0), INVALID_PARAM, 0);
    assert_answer(call(fixture, DBCN, 0, 4, MACHINE_UART_GPA, 0), INVALID_PARAM, 0);
    assert_answer(call(fixture, DBCN, 0, 0, 0, 0), 0, 0);
    assert_int_equal(fixture->output_count, 6);

    // A long one is written in part, and the caller goes on.
    uint64_t part = call(fixture, DBCN, 0, 1u << 20, RAM, 0).value;
    assert_in_range(part, 1, 4096);
    assert_int_equal(fixture->output_count, 6 + part);
}

static void test_console_read(void **state)
{
    struct fixture *fixture = *state;
    char text[8] = "";

    call(fixture, DBCN, 2, '>', 0, 0);
    assert_int_equal(machine_console_input(fixture->machine, "abcdef", 6), 6);
    assert_answer(call(fixture, DBCN, 1, 4, RAM, 1), INVALID_PARAM, 0);
    assert_answer(call(fixture, DBCN, 1, 4, RAM_END - 3, 0), INVALID_PARAM, 0);
    assert_answer(call(fixture, DBCN, 1, 4, RAM, 0), 0, 4);
    assert_answer(call(fixture, DBCN, 1, 100, RAM + 4, 0), 0, 2);
    assert_answer(call(fixture, DBCN, 1, 100, RAM, 0), 0, 0);
    assert_int_equal(memory_read(fixture->machine->memory, RAM, text, 7), 0);
    assert_string_equal(text, "abcdef");
}

// Whatever is asked, the answer is one of the specification's, and only a0 and a1 change.
static void test_garbage(void **state)
{
    struct fixture *fixture = *state;
    static const uint64_t extensions[] = {BASE, TIME, IPI, RFENCE, HSM, SRST, DBCN, 0, ALL};
    static const uint64_t values[] = {
        0, 1, 2, 3, ALL, RAM, RAM_END, RAM + 1, 0x80000000, ALL - 1, 4096, 1ull << 63, 0x1000};
    uint64_t seed = 1;

    for (unsigned i = 0; i < 20000; i++) {
        uint64_t pick[5];
        for (unsigned j = 0; j < 5; j++) {
            seed = seed * 6364136223846793005ull + 1442695040888963407ull;
            pick[j] = seed >> 33;
        }
        uint64_t extension = extensions[pick[0] % BASE_COUNT_OF(extensions)];
        uint64_t function = pick[1] % 8;
        if (extension == HSM && (function == 3 || function == 1))
            continue;  // these wait for somebody
        struct answer answer = call_on(
            fixture, i % HARTS, extension, function, values[pick[2] % BASE_COUNT_OF(values)],
            values[pick[3] % BASE_COUNT_OF(values)], values[pick[4] % BASE_COUNT_OF(values)]);
        if (extension != SRST)
            assert_true(answer.error <= 0 && answer.error >= -9);
        fixture->output_count = 0;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
        TEST(test_base),         TEST(test_version),       TEST(test_registers_are_preserved),
        TEST(test_timer),        TEST(test_hart_masks),    TEST(test_fences),
        TEST(test_hart_start),   TEST(test_hart_stop),     TEST(test_hart_suspend),
        TEST(test_system_reset), TEST(test_console_write), TEST(test_console_read),
        TEST(test_garbage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
