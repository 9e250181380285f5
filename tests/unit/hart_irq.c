// SPDX-License-Identifier: BSD-2-Clause
// The run loop: stopping, parking, sleeping and waking, timers, breakpoints and steps.
#include "hart_fixture.h"

#define PC 0x80003000u
#define STVEC 0x80001000u

// A supervisor-only hart that is started at PC with interrupts off.
static struct hart *started(struct fixture *f)
{
    hart_set_supervisor_only(f->hart);
    assert_int_equal(hart_start(f->hart, PC, 0, 0), 0);
    f->hart->stvec = STVEC;
    return f->hart;
}

static uint64_t real_clock_ns(void *opaque)
{
    (void)opaque;
    return clock_monotonic_ns();
}

static int setup_real_clock(void **state)
{
    const struct hart_host host = {.clock_ns = real_clock_ns};
    struct fixture *f = malloc(sizeof(*f));

    fixture_init(f, 0, &host);
    *state = f;
    return 0;
}

#define REAL_CLOCK_TEST(name) cmocka_unit_test_setup_teardown(name, setup_real_clock, teardown)

static void wait_for_interrupt(struct hart *hart)
{
    assert_true(system_insn(hart, ISA_WFI, 0, 0));
}

static void wait_then_stop(struct hart *hart)
{
    wait_for_interrupt(hart);
    hart_stop(hart);
}

static void next_instruction(struct hart *hart)
{
    hart->pc += 4;
}

// ---- Stopping

static void test_stop_before_and_while_running(void **state)
{
    struct fixture *f = *state;
    struct hart *hart = started(f);

    hart_stop(hart);
    hart_stop(hart);
    assert_int_equal(hart_run(hart), HART_EXIT_STOPPED);
    assert_int_equal(atomic_load(&f->worked), 0);
    pthread_t thread = run_thread(hart);
    WAIT_UNTIL(atomic_load(&f->worked) > 100);
    hart_stop(hart);
    assert_int_equal(join_thread(thread), HART_EXIT_STOPPED);
    assert_int_equal(atomic_load(&hart->attention) & HART_ATTENTION_STOP, 0);
    assert_int_equal(hart->x[0], 0);
}

static void test_stop_ends_sleep(void **state)
{
    struct fixture *f = *state;
    struct hart *hart = f->hart;

    pthread_t thread = run_thread(hart);  // parked
    WAIT_UNTIL(asleep(hart));
    hart_stop(hart);
    assert_int_equal(join_thread(thread), HART_EXIT_STOPPED);
    assert_true(hart_is_parked(hart));
    assert_int_equal(atomic_load(&f->worked), 0);

    started(f);
    f->work = wait_for_interrupt;
    thread = run_thread(hart);
    WAIT_UNTIL(asleep(hart));
    hart_stop(hart);
    assert_int_equal(join_thread(thread), HART_EXIT_STOPPED);
    assert_int_equal(hart->pc, PC + 4);  // wfi is done, not to be done again
}

// ---- Parking

static void park(struct hart *hart)
{
    if (hart->pc == PC)
        hart_park(hart);
    hart->pc += 4;
}

static void test_park_and_start(void **state)
{
    struct fixture *f = *state;
    struct hart *hart = f->hart;

    hart_set_supervisor_only(hart);
    assert_true(hart_is_parked(hart));
    f->work = park;
    pthread_t thread = run_thread(hart);
    for (unsigned round = 1; round <= 200; round++) {
        WAIT_UNTIL(hart_is_parked(hart));
        assert_int_equal(atomic_load(&f->worked), round - 1);
        if (round > 1)
            assert_int_equal(hart->pc, PC + 4);  // the parking instruction was completed
        hart->satp = 5;
        hart->mstatus |= HART_MSTATUS_SIE;
        assert_int_equal(hart_start(hart, PC, round, ~0ull), 0);
        WAIT_UNTIL(atomic_load(&f->worked) == round);
        assert_int_equal(hart->x[10], round);
        assert_int_equal(hart->x[11], ~0ull);
        assert_int_equal(hart->satp, 0);
        assert_int_equal(hart->privilege, HART_S);
        assert_false(hart->mstatus & HART_MSTATUS_SIE);
    }
    hart_stop(hart);
    assert_int_equal(join_thread(thread), HART_EXIT_STOPPED);
    assert_int_equal(hart_start(hart, PC, 0, 0), 0);
    assert_int_equal(hart_start(hart, PC, 0, 0), -EALREADY);
}

static void test_parked_harts_take_no_interrupts(void **state)
{
    struct fixture *f = *state;
    struct hart *hart = f->hart;

    hart_set_supervisor_only(hart);
    hart->mie = HART_IRQ_SSIP;
    hart->mstatus |= HART_MSTATUS_SIE;
    pthread_t thread = run_thread(hart);
    WAIT_UNTIL(asleep(hart));
    hart_raise_software(hart, HART_IRQ_SSIP);
    WAIT_UNTIL(asleep(hart));
    hart_stop(hart);
    join_thread(thread);
    assert_int_equal(hart->scause, 0);
    assert_int_equal(atomic_load(&f->worked), 0);
}

// ---- Waiting for interrupts

static void test_wfi_wakes(void **state)
{
    struct fixture *f = *state;

    for (unsigned source = 0; source < 4; source++) {
        hart_reset(f->hart);
        f->hart->mie = UINT64_MAX;
        assert_int_equal(hart_start(f->hart, PC, 0, 0), 0);  // M-mode, MIE clear: no trap
        f->work = wait_then_stop;
        pthread_t thread = run_thread(f->hart);
        WAIT_UNTIL(asleep(f->hart));
        switch (source) {
        case 0:
            hart_set_lines(f->hart, HART_IRQ_MEIP, true);
            break;
        case 1:
            hart_set_lines(f->hart, HART_IRQ_SEIP, true);
            break;
        case 2:
            hart_raise_software(f->hart, HART_IRQ_SSIP);
            break;
        default:
            hart_set_mtimecmp(f->hart, 0);
        }
        assert_int_equal(join_thread(thread), HART_EXIT_STOPPED);
        assert_int_equal(f->hart->pc, PC + 4);
    }
}

static void test_wfi_sleeps_on_through_what_is_not_enabled(void **state)
{
    struct fixture *f = *state;
    struct hart *hart = started(f);

    hart->mie = HART_IRQ_SSIP;
    f->work = wait_then_stop;
    pthread_t thread = run_thread(hart);
    WAIT_UNTIL(asleep(hart));
    hart_set_lines(hart, HART_IRQ_SEIP, true);
    WAIT_UNTIL(asleep(hart));
    assert_int_equal(atomic_load(&f->worked), 0);
    hart_raise_software(hart, HART_IRQ_SSIP);
    assert_int_equal(join_thread(thread), HART_EXIT_STOPPED);
    assert_int_equal(atomic_load(&f->worked), 1);
}

// Two harts that wake each other in turn, each asleep most of the time: a lost wake-up ends the
// game, as it would end a guest.
#define ROUNDS 20000u

static struct {
    struct fixture harts[2];
    atomic_uint turns;
} game;

static void wake_the_other(struct hart *hart)
{
    wait_for_interrupt(hart);
    if (!(hart_mip(hart) & HART_IRQ_SSIP))
        return;
    csr_clear(hart, ISA_CSR_SIP, HART_IRQ_SSIP);
    if (atomic_fetch_add(&game.turns, 1) < ROUNDS)
        hart_raise_software(game.harts[!hart->id].hart, HART_IRQ_SSIP);
}

static void test_no_wake_up_is_lost(void **state)
{
    pthread_t threads[2];

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        fixture_init(&game.harts[i], i, NULL);
        started(&game.harts[i])->mie = HART_IRQ_SSIP;
        game.harts[i].work = wake_the_other;
        threads[i] = run_thread(game.harts[i].hart);
    }
    hart_raise_software(game.harts[0].hart, HART_IRQ_SSIP);
    WAIT_UNTIL(atomic_load(&game.turns) > ROUNDS);
    for (unsigned i = 0; i < 2; i++) {
        hart_stop(game.harts[i].hart);
        assert_int_equal(join_thread(threads[i]), HART_EXIT_STOPPED);
    }
    for (unsigned i = 0; i < 2; i++)
        fixture_fini(&game.harts[i]);
    printf("%u wake-ups\n", ROUNDS);
}

// ---- Timers

static void stop_in_handler(struct hart *hart)
{
    if (hart->pc == STVEC)
        hart_stop(hart);
}

// A hart that computes and never sleeps is interrupted at its deadline, not before.
static void test_timer_interrupts_a_busy_hart(void **state)
{
    struct fixture *f = *state;
    struct hart *hart = started(f);

    f->work = stop_in_handler;
    csr_write(hart, ISA_CSR_SIE, HART_IRQ_STIP);
    for (unsigned round = 0; round < 5; round++) {
        hart->pc = PC;
        csr_set(hart, ISA_CSR_SSTATUS, HART_MSTATUS_SIE);
        // First an earlier deadline, which a later one replaces: the host's timer fires in vain.
        uint64_t at = hart_time(hart) + 3 * (HART_TIME_HZ / 1000);
        hart_set_stimecmp(hart, hart_time(hart) + HART_TIME_HZ / 1000);
        hart_set_stimecmp(hart, at);
        assert_int_equal(hart_run(hart), HART_EXIT_STOPPED);
        assert_true(hart_time(hart) >= at);
        assert_int_equal(hart->scause, HART_CAUSE_INTERRUPT | 5);
        assert_int_equal(hart->sepc, PC);
    }
}

static void set_later_deadline(struct hart *hart)
{
    if (hart->pc == PC) {
        hart_set_stimecmp(hart, hart_time(hart) + HART_TIME_HZ / 2000);
        hart_set_stimecmp(hart, hart_time(hart) + 2 * (HART_TIME_HZ / 1000));
        hart->x[12] = hart->stimecmp;
        hart->pc += 4;
    }
    stop_in_handler(hart);
}

// The same, set by the guest while it runs: the timer is armed for the first and fires in vain.
static void test_deadline_is_put_off_while_running(void **state)
{
    struct fixture *f = *state;
    struct hart *hart = started(f);

    f->work = set_later_deadline;
    csr_write(hart, ISA_CSR_SIE, HART_IRQ_STIP);
    csr_set(hart, ISA_CSR_SSTATUS, HART_MSTATUS_SIE);
    assert_int_equal(hart_run(hart), HART_EXIT_STOPPED);
    assert_true(hart_time(hart) >= hart->x[12]);
    assert_int_equal(hart->scause, HART_CAUSE_INTERRUPT | 5);
}

static void test_timer_ends_wfi(void **state)
{
    struct fixture *f = *state;
    struct hart *hart = started(f);

    f->work = wait_then_stop;
    csr_write(hart, ISA_CSR_SIE, HART_IRQ_STIP);
    uint64_t at = hart_time(hart) + 2 * (HART_TIME_HZ / 1000);
    hart_set_stimecmp(hart, at);
    assert_int_equal(hart_run(hart), HART_EXIT_STOPPED);
    assert_true(hart_time(hart) >= at);
    assert_int_equal(atomic_load(&f->worked), 1);

    // M-mode's timer, set from another thread while the hart sleeps.
    hart_reset(hart);
    hart->mie = HART_IRQ_MTIP;
    assert_int_equal(hart_start(hart, PC, 0, 0), 0);
    pthread_t thread = run_thread(hart);
    WAIT_UNTIL(asleep(hart));
    at = hart_time(hart) + 2 * (HART_TIME_HZ / 1000);
    hart_set_mtimecmp(hart, at);
    assert_int_equal(join_thread(thread), HART_EXIT_STOPPED);
    assert_true(hart_time(hart) >= at);
}

// With a clock of the test's own, deadlines are compared whenever the hart looks.
static void test_deadlines_on_another_clock(void **state)
{
    struct fixture *f = *state;
    struct hart *hart = started(f);

    f->work = stop_in_handler;
    csr_write(hart, ISA_CSR_SIE, HART_IRQ_STIP);
    csr_set(hart, ISA_CSR_SSTATUS, HART_MSTATUS_SIE);
    hart_set_stimecmp(hart, 1000000);
    pthread_t thread = run_thread(hart);
    WAIT_UNTIL(atomic_load(&f->worked) > 1000);
    assert_int_equal(hart->scause, 0);
    atomic_store(&f->clock_ns, 1000000ull * TICK_NS);
    hart_set_mtimecmp(hart, UINT64_MAX);  // any notice will do
    assert_int_equal(join_thread(thread), HART_EXIT_STOPPED);
    assert_int_equal(hart->scause, HART_CAUSE_INTERRUPT | 5);
}

static void test_compare_values_at_the_ends(void **state)
{
    struct fixture *f = *state;
    struct hart *hart = started(f);

    atomic_store(&f->clock_ns, UINT64_MAX - 1);
    hart_set_stimecmp(hart, UINT64_MAX);
    assert_int_equal(hart_mip(hart) & HART_IRQ_STIP, 0);
    hart_set_stimecmp(hart, 0);
    assert_int_equal(hart_mip(hart) & HART_IRQ_STIP, HART_IRQ_STIP);
    // A deadline that the host's clock cannot express never comes; setting it is harmless.
    csr_write(hart, ISA_CSR_SIE, HART_IRQ_STIP);
    hart_set_stimecmp(hart, UINT64_MAX - 1);
    f->work = hart_stop;
    assert_int_equal(hart_run(hart), HART_EXIT_STOPPED);
}

// ---- Debugging

static void test_breakpoints(void **state)
{
    struct fixture *f = *state;
    struct hart *hart = started(f);

    f->work = next_instruction;
    assert_int_equal(hart_breakpoint_add(hart, PC + 8), 0);
    assert_int_equal(hart_breakpoint_add(hart, PC + 16), 0);
    assert_int_equal(hart_breakpoint_add(hart, PC + 8), -EEXIST);
    assert_int_equal(f->breakpoint_changes, 2);
    assert_int_equal(hart_run(hart), HART_EXIT_BREAKPOINT);
    assert_int_equal(hart->pc, PC + 8);
    assert_int_equal(atomic_load(&f->worked), 2);
    assert_int_equal(hart_run(hart), HART_EXIT_BREAKPOINT);  // over the first, to the second
    assert_int_equal(hart->pc, PC + 16);
    hart->pc = PC + 8;  // moved by the debugger: not where it stopped
    assert_int_equal(hart_run(hart), HART_EXIT_BREAKPOINT);
    assert_int_equal(hart->pc, PC + 8);
    assert_int_equal(hart_breakpoint_remove(hart, PC + 16), 0);
    assert_int_equal(hart_breakpoint_remove(hart, PC + 16), -ENOENT);
    for (unsigned i = 1; i < HART_BREAKPOINTS; i++)
        assert_int_equal(hart_breakpoint_add(hart, 0x1000 + 4 * i), 0);
    assert_int_equal(hart_breakpoint_add(hart, 0x2000), -ENOSPC);
}

static void test_step(void **state)
{
    struct fixture *f = *state;
    struct hart *hart = started(f);

    f->work = next_instruction;
    assert_int_equal(hart_breakpoint_add(hart, PC), 0);
    // A pending interrupt waits, or one would step through handlers only.
    hart->mie = HART_IRQ_SSIP;
    hart->mstatus |= HART_MSTATUS_SIE;
    hart_raise_software(hart, HART_IRQ_SSIP);
    for (unsigned i = 1; i <= 3; i++) {
        hart->debug_step = true;
        assert_int_equal(hart_run(hart), HART_EXIT_STEPPED);
        assert_false(hart->debug_step);
        assert_int_equal(hart->pc, PC + 4 * i);
    }
    f->work = stop_in_handler;
    assert_int_equal(hart_run(hart), HART_EXIT_STOPPED);
    assert_int_equal(hart->sepc, PC + 12);
}

static void test_step_does_not_sleep(void **state)
{
    struct fixture *f = *state;
    struct hart *hart = f->hart;

    hart->debug_step = true;
    assert_int_equal(hart_run(hart), HART_EXIT_STEPPED);  // parked: nothing to step
    assert_int_equal(atomic_load(&f->worked), 0);
    started(f);
    f->work = wait_for_interrupt;
    hart->debug_step = true;
    assert_int_equal(hart_run(hart), HART_EXIT_STEPPED);
    assert_int_equal(hart->pc, PC + 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HART_TEST(test_stop_before_and_while_running),
        HART_TEST(test_stop_ends_sleep),
        HART_TEST(test_park_and_start),
        HART_TEST(test_parked_harts_take_no_interrupts),
        HART_TEST(test_wfi_wakes),
        HART_TEST(test_wfi_sleeps_on_through_what_is_not_enabled),
        cmocka_unit_test(test_no_wake_up_is_lost),
        REAL_CLOCK_TEST(test_timer_interrupts_a_busy_hart),
        REAL_CLOCK_TEST(test_deadline_is_put_off_while_running),
        REAL_CLOCK_TEST(test_timer_ends_wfi),
        HART_TEST(test_deadlines_on_another_clock),
        HART_TEST(test_compare_values_at_the_ends),
        HART_TEST(test_breakpoints),
        HART_TEST(test_step),
        HART_TEST(test_step_does_not_sleep),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
