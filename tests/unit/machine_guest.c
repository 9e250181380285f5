// SPDX-License-Identifier: BSD-2-Clause
// What a checked program calls the monitor for (include/strake/guest.h), as its harts do on an
// ecall.
#include <strake/guest.h>

#include "machine_fixture.h"

#define PC (MACHINE_RAM_GPA + 0x1000)
#define BASE 0x10
#define UNTOUCHED 0x1234567812345678

struct called {
    unsigned calls;
    uint64_t function, arguments[2], pc;
    int64_t error;
};

static int64_t record(void *opaque, struct hart *hart, uint64_t function,
                      const uint64_t arguments[2], uint64_t *value)
{
    struct called *called = opaque;

    called->calls++;
    called->function = function;
    memcpy(called->arguments, arguments, sizeof(called->arguments));
    called->pc = hart->pc;
    *value = 0xabc;
    return called->error;
}

static struct fixture *create(struct called *called)
{
    struct machine_config config = fixture_config(1);

    if (called)
        config.guest = (struct machine_guest){.call = record, .opaque = called};
    return fixture_create(&config);
}

// An ecall in this mode with these a7, a6, a0 and a1. False: it trapped.
static bool ecall(struct hart *hart, enum hart_privilege privilege, uint64_t extension,
                  uint64_t function, uint64_t first, uint64_t second)
{
    const struct isa_insn insn = {.op = ISA_ECALL, .length = 4, .raw = 0x73};

    hart->privilege = (uint8_t)privilege;
    hart->pc = PC;
    hart->x[17] = extension;
    hart->x[16] = function;
    hart->x[10] = first;
    hart->x[11] = second;
    return hart_system(hart, &insn);
}

static uint64_t marchid(struct hart *hart)
{
    uint64_t value = UNTOUCHED;

    assert_int_equal(hart_csr_peek(hart, ISA_CSR_MARCHID, &value), 0);
    return value;
}

static void test_calls_from_either_mode(void **state)
{
    static const enum hart_privilege modes[] = {HART_M, HART_S};
    struct called called = {0};
    struct fixture *fixture = create(&called);
    struct hart *hart = machine_hart(fixture->machine, 0);
    (void)state;

    assert_true(marchid(hart) == STRAKE_GUEST_MARCHID);
    for (unsigned i = 0; i < BASE_COUNT_OF(modes); i++) {
        assert_true(ecall(hart, modes[i], STRAKE_GUEST_EXTENSION, STRAKE_GUEST_TAG, 11, 12));
        assert_int_equal(called.calls, i + 1);
        assert_int_equal(called.function, STRAKE_GUEST_TAG);
        assert_int_equal(called.arguments[0], 11);
        assert_int_equal(called.arguments[1], 12);
        assert_int_equal(called.pc, PC);
        assert_int_equal(hart->pc, PC + 4);
        assert_int_equal(hart->x[10], 0);
        assert_int_equal(hart->x[11], 0xabc);
    }
    fixture_destroy(fixture);
}

static void test_errors_have_no_value(void **state)
{
    struct called called = {.error = -3};
    struct fixture *fixture = create(&called);
    struct hart *hart = machine_hart(fixture->machine, 0);
    (void)state;

    assert_true(ecall(hart, HART_M, STRAKE_GUEST_EXTENSION, 77, 0, 0));
    assert_int_equal(called.function, 77);
    assert_int_equal((int64_t)hart->x[10], -3);
    assert_int_equal(hart->x[11], 0);
    fixture_destroy(fixture);
}

// Whatever SBI there is, and from machine mode, too.
static void test_it_is_found(void **state)
{
    struct called called = {0};
    struct fixture *fixture = create(&called);
    struct hart *hart = machine_hart(fixture->machine, 0);
    (void)state;

    assert_true(ecall(hart, HART_S, BASE, 3, STRAKE_GUEST_EXTENSION, 0));
    assert_int_equal(hart->x[10], 0);
    assert_int_equal(hart->x[11], 1);
    assert_true(ecall(hart, HART_M, BASE, 3, STRAKE_GUEST_EXTENSION, 0));
    assert_int_equal(hart->x[11], 1);
    assert_true(ecall(hart, HART_S, BASE, 3, STRAKE_GUEST_EXTENSION + 1, 0));
    assert_int_equal(hart->x[11], 0);
    assert_int_equal(called.calls, 0);
    fixture_destroy(fixture);
}

static void test_other_calls_trap_as_ever(void **state)
{
    struct called called = {0};
    struct fixture *fixture = create(&called);
    struct hart *hart = machine_hart(fixture->machine, 0);
    (void)state;

    assert_false(ecall(hart, HART_M, BASE, 0, 0, 0));
    assert_int_equal(hart->trap_cause, HART_CAUSE_ECALL_M);
    assert_int_equal(hart->pc, PC);
    assert_false(ecall(hart, HART_U, STRAKE_GUEST_EXTENSION, STRAKE_GUEST_TAG, 0, 0));
    assert_int_equal(hart->trap_cause, HART_CAUSE_ECALL_U);
    assert_int_equal(called.calls, 0);
    fixture_destroy(fixture);
}

static void test_nothing_of_it_where_nothing_is_checked(void **state)
{
    struct fixture *fixture = create(NULL);
    struct hart *hart = machine_hart(fixture->machine, 0);
    (void)state;

    assert_int_equal(marchid(hart), 0);
    assert_false(ecall(hart, HART_M, STRAKE_GUEST_EXTENSION, STRAKE_GUEST_TAG, 0, 0));
    assert_int_equal(hart->trap_cause, HART_CAUSE_ECALL_M);
    assert_true(ecall(hart, HART_S, BASE, 3, STRAKE_GUEST_EXTENSION, 0));
    assert_int_equal(hart->x[11], 0);
    assert_true(ecall(hart, HART_S, STRAKE_GUEST_EXTENSION, STRAKE_GUEST_TAG, 0, 0));
    assert_int_equal((int64_t)hart->x[10], -2);
    fixture_destroy(fixture);
}

// The header itself, compiled for another machine: nothing happens.
static void test_the_header_elsewhere(void **state)
{
    char memory[16];
    (void)state;

    assert_false(strake_checked());
    assert_ptr_equal(strake_tag(memory, sizeof(memory)), memory);
    assert_ptr_equal(strake_untag(memory), memory);
    assert_ptr_equal(strake_plain(memory), memory);
    assert_null(strake_allocate(16, 0));
    assert_null(strake_resize(memory, 16));
    strake_free(memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_calls_from_either_mode),
        cmocka_unit_test(test_errors_have_no_value),
        cmocka_unit_test(test_it_is_found),
        cmocka_unit_test(test_other_calls_trap_as_ever),
        cmocka_unit_test(test_nothing_of_it_where_nothing_is_checked),
        cmocka_unit_test(test_the_header_elsewhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
