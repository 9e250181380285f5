// SPDX-License-Identifier: BSD-2-Clause
// Breakpoints and single steps.
#include "interp_guest.h"

// Runs to the next breakpoint, which must be at `pc`.
static void expect_break(struct guest *guest, uint64_t from, uint64_t pc)
{
    assert_int_equal(guest_run_hart(guest->hart, from), HART_ATTENTION_DEBUG);
    assert_int_equal(guest->hart->pc, pc);
}

static void test_breakpoint_in_a_block(void **state)
{
    struct guest *guest = *state;
    struct hart *hart = guest->hart;

    for (unsigned i = 0; i < 5; i++)
        put(guest, addi(5, 5, 1));
    put_stop(guest);
    guest_run(guest, CODE);
    assert_int_equal(hart->x[5], 5);

    // Set after the block was decoded; and again after it was executed with one.
    assert_int_equal(hart_breakpoint_add(hart, CODE + 8), 0);
    hart->x[5] = hart->instret = 0;
    expect_break(guest, CODE, CODE + 8);
    assert_int_equal(hart->x[5], 2);
    assert_int_equal(hart->instret, 2);
    expect_break(guest, CODE + 8, CODE + 8);
    assert_int_equal(hart->x[5], 2);
    assert_int_equal(hart_breakpoint_add(hart, CODE + 16), 0);
    guest_step(guest);
    assert_int_equal(hart->pc, CODE + 12);
    expect_break(guest, CODE + 12, CODE + 16);
    assert_int_equal(hart->x[5], 4);
    assert_int_equal(hart->instret, 4);

    assert_int_equal(hart_breakpoint_remove(hart, CODE + 8), 0);
    assert_int_equal(hart_breakpoint_remove(hart, CODE + 16), 0);
    hart->x[5] = 0;
    guest_run(guest, CODE);
    assert_int_equal(hart->x[5], 5);
}

// In a loop, at its head, which is reached by a chained jump; and at an indirect jump's target.
static void test_breakpoints_at_targets(void **state)
{
    struct guest *guest = *state;
    struct hart *hart = guest->hart;

    put(guest, addi(7, 0, 3));
    put(guest, addi(5, 5, 1));
    put(guest, addi(7, 7, -1));
    put(guest, bne(7, 0, -8));
    put(guest, jalr(0, 9, 0));
    assert_int_equal(hart_breakpoint_add(hart, CODE + 4), 0);
    assert_int_equal(hart_breakpoint_add(hart, STOP_CODE), 0);
    expect_break(guest, CODE, CODE + 4);
    for (unsigned round = 1; round <= 3; round++) {
        guest_step(guest);
        assert_int_equal(hart->x[5], round);
        expect_break(guest, hart->pc, round < 3 ? CODE + 4 : STOP_CODE);
    }
}

// Only the page offset equal: goes past it.
static void test_breakpoint_of_another_page(void **state)
{
    struct guest *guest = *state;

    put(guest, addi(5, 5, 1));
    put_stop(guest);
    assert_int_equal(hart_breakpoint_add(guest->hart, CODE + 5 * MEMORY_PAGE_BYTES), 0);
    guest_run(guest, CODE);
    assert_int_equal(guest->hart->x[5], 1);
}

static void test_breakpoint_on_a_straddling_instruction(void **state)
{
    struct guest *guest = *state;
    const uint64_t end = CODE + MEMORY_PAGE_BYTES;

    put_at(guest, end - 4, C_ADDI_X5_1);
    put_at(guest, end - 2, addi(5, 5, 16));
    put_stop(guest);
    assert_int_equal(hart_breakpoint_add(guest->hart, end - 2), 0);
    expect_break(guest, end - 4, end - 2);
    assert_int_equal(guest->hart->x[5], 1);
    guest_step(guest);
    assert_int_equal(guest->hart->x[5], 17);
    assert_int_equal(guest->hart->pc, end + 2);
}

static void step_to(struct guest *guest, uint64_t pc, unsigned retired)
{
    uint64_t before = guest->hart->instret;

    guest_step(guest);
    assert_int_equal(guest->hart->pc, pc);
    assert_int_equal(guest->hart->instret, before + retired);
}

static void test_steps(void **state)
{
    struct guest *guest = *state;
    struct hart *hart = guest->hart;

    put16(guest, C_ADDI_X5_1);                  // +0
    put(guest, addi(5, 5, 1));                  // +2
    put(guest, bne(0, 0, 100));                 // +6
    put(guest, beq(0, 0, 8));                   // +10
    put(guest, 0xffffffff);                     // +14, left out
    put(guest, jal(1, 8));                      // +18
    put(guest, 0xffffffff);                     // +22, left out
    put(guest, csrrs(6, ISA_CSR_MINSTRET, 0));  // +26
    put(guest, FENCE_I);                        // +30
    put(guest, sd(5, 11, 0));                   // +34
    put(guest, jalr(0, 10, 0x80));              // +38
    put_at(guest, CODE + 0x80, 0xffffffff);
    hart->pc = CODE;
    step_to(guest, CODE + 2, 1);
    step_to(guest, CODE + 6, 1);
    assert_int_equal(hart->x[5], 2);
    step_to(guest, CODE + 10, 1);
    step_to(guest, CODE + 18, 1);
    step_to(guest, CODE + 26, 1);
    assert_int_equal(hart->x[1], CODE + 22);
    step_to(guest, CODE + 30, 1);
    assert_int_equal(hart->x[6], hart->instret - 1);
    step_to(guest, CODE + 34, 1);
    step_to(guest, CODE + 38, 1);
    assert_int_equal(read_u64(guest, DATA), 2);
    step_to(guest, CODE + 0x80, 1);
    step_to(guest, STOP_CODE, 0);
    assert_int_equal(hart->mepc, CODE + 0x80);
    assert_int_equal(hart->mcause, HART_CAUSE_ILLEGAL);
    hart->pc = 0x2000;
    step_to(guest, STOP_CODE, 0);
    assert_int_equal(hart->mcause, HART_CAUSE_FETCH_ACCESS);
}

// A step sees what memory holds now, and attention that is there already does not keep it from
// being made.
static void test_step_is_made_at_any_rate(void **state)
{
    struct guest *guest = *state;
    struct hart *hart = guest->hart;

    put(guest, addi(5, 5, 1));
    put(guest, jal(0, -4));
    hart->pc = CODE;
    atomic_store(&hart->attention, HART_ATTENTION_STOP);
    hart->engine->step(hart, guest->interp);
    assert_int_equal(hart->pc, CODE + 4);
    hart->engine->step(hart, guest->interp);
    assert_int_equal(hart->pc, CODE);
    assert_int_equal(hart->x[5], 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        guest_test(test_breakpoint_in_a_block),
        guest_test(test_breakpoints_at_targets),
        guest_test(test_breakpoint_of_another_page),
        guest_test(test_breakpoint_on_a_straddling_instruction),
        guest_test(test_steps),
        guest_test(test_step_is_made_at_any_rate),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
