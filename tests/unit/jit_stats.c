// SPDX-License-Identifier: BSD-2-Clause
// What harts and the translator count: a program whose accesses, traps and jumps are known.
#include <stdio.h>

#include "jit/jit.h"

static const struct jit_options counting = {.count = true}, silent;
static struct hart_engine engine;
#define GUEST_ENGINE engine
#include "interp_guest.h"

#define ROUNDS 1000

// Each round: two loads, one store, an AMO and an LR; from one page. Ends with an ecall, which
// traps.
static void put_program(struct guest *guest)
{
    put(guest, addi(5, 0, ROUNDS));
    put(guest, ld(6, 11, 0));
    put(guest, sd(6, 11, 8));
    put(guest, lw(7, 11, 4));
    put(guest, amo(0, 3, 6, 11, 7));
    put(guest, lr_d(6, 11));
    put(guest, addi(5, 5, -1));
    put(guest, bne(5, 0, -24));
    put(guest, ECALL);
}

static void get(struct guest *guest, struct hart_stats *hart, struct jit_stats *jit)
{
    hart_stats(guest->hart, hart);
    jit_stats(guest->hart->engine_state, jit);
}

static void test_counts(void **state)
{
    struct guest *guest = *state;
    struct hart_stats hart;
    struct jit_stats jit;
    uint64_t exits = 0;

    put_program(guest);
    guest_run(guest, CODE);
    get(guest, &hart, &jit);
    for (unsigned i = 0; i < JIT_EXITS; i++)
        exits += jit.exits[i];
    printf("%u rounds: %lu loads, %lu stores, %lu exits of %lu\n", ROUNDS, jit.loads, jit.stores,
           exits, jit.dispatches);
    assert_int_equal(jit.loads, 3 * ROUNDS);
    assert_int_equal(jit.stores, 2 * ROUNDS + 1);  // one stops the hart
    assert_int_equal(hart.retired, 1 + 7 * ROUNDS + STOP_INSNS);
    assert_in_range(hart.misses[HART_LOAD], 1, ROUNDS + 10);  // lr may look the page up each time
    assert_in_range(hart.misses[HART_STORE], 1, 10);
    assert_in_range(hart.misses[HART_EXEC], 2, 10);
    assert_int_equal(hart.device_writes, 1);
    assert_int_equal(hart.device_reads, 0);
    assert_int_equal(hart.exceptions[HART_CAUSE_ECALL_M], 1);
    assert_int_equal(jit.calls[JIT_CALL_SYSTEM], 1);
    assert_int_equal(exits, jit.dispatches);
    assert_true(jit.fetches >= jit.dispatches);
    assert_true(jit.exits[JIT_EXIT_CALL] >= 1);
    assert_true(jit.translation_ns > 0);
    assert_int_equal(jit.code_bytes_bound, JIT_CODE_BYTES);
}

// A reset starts instret anew, but not what was counted.
static void test_reset_keeps_counts(void **state)
{
    struct guest *guest = *state;
    struct hart_stats before, after;
    struct jit_stats jit;

    put_program(guest);
    guest_run(guest, CODE);
    get(guest, &before, &jit);
    guest_reset_hart(guest->hart);
    get(guest, &after, &jit);
    assert_int_equal(guest->hart->instret, 0);
    assert_int_equal(after.retired, before.retired);
    guest_run(guest, CODE);
    get(guest, &after, &jit);
    assert_int_equal(after.retired, 2 * before.retired);
    assert_int_equal(after.exceptions[HART_CAUSE_ECALL_M], 2);
}

// An interrupt, which only the hart's run loop takes.
static void test_interrupts(void **state)
{
    struct guest *guest = *state;
    struct hart_stats stats;

    put(guest, jal(0, 0));
    guest->hart->mie = HART_IRQ_MSIP;
    guest->hart->mstatus |= HART_MSTATUS_MIE;
    hart_set_lines(guest->hart, HART_IRQ_MSIP, true);
    assert_int_equal(hart_start(guest->hart, CODE, 0, 0), 0);
    guest->hart->mstatus |= HART_MSTATUS_MIE;
    assert_int_equal(hart_run(guest->hart), HART_EXIT_STOPPED);
    hart_stats(guest->hart, &stats);
    assert_int_equal(stats.interrupts[3], 1);
}

// What is counted in translated code is not there unless it is asked for.
static void test_silent(void **state)
{
    struct guest *guest = *state;
    struct hart_stats hart;
    struct jit_stats jit;

    put_program(guest);
    guest_run(guest, CODE);
    get(guest, &hart, &jit);
    assert_int_equal(jit.loads, 0);
    assert_int_equal(jit.stores, 0);
    assert_int_equal(jit.exits[JIT_EXIT_CALL], 0);
    assert_int_equal(jit.calls[JIT_CALL_SYSTEM], 0);
    assert_true(hart.misses[HART_STORE] >= 1);
    assert_true(jit.translations >= 2);
}

int main(void)
{
    const struct CMUnitTest counted[] = {
        guest_test(test_counts),
        guest_test(test_reset_keeps_counts),
        guest_test(test_interrupts),
    };
    const struct CMUnitTest uncounted[] = {guest_test(test_silent)};

    engine = hart_engine_jit;
    engine.options = &counting;
    int failed = cmocka_run_group_tests(counted, NULL, NULL);
    engine.options = &silent;
    return failed + cmocka_run_group_tests(uncounted, NULL, NULL);
}
