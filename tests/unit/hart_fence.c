// SPDX-License-Identifier: BSD-2-Clause
// Remote fences: that they are done when the call returns, or before the target executes again; and
// that nobody waits for ever.
#include "hart_fixture.h"

#define PC 0x80003000u
#define BOTH (HART_FENCE_I | HART_FENCE_VMA)

static struct hart *started(struct fixture *f)
{
    hart_set_supervisor_only(f->hart);
    assert_int_equal(hart_start(f->hart, PC, 0, 0), 0);
    hart_stop(f->hart);  // performs the fences that starting asks for
    assert_int_equal(hart_run(f->hart), HART_EXIT_STOPPED);
    return f->hart;
}

static void wait_for_interrupt(struct hart *hart)
{
    assert_true(system_insn(hart, ISA_WFI, 0, 0));
}

static void test_of_a_busy_hart(void **state)
{
    struct fixture *f = *state;
    struct hart *hart = started(f);

    pthread_t thread = run_thread(hart);
    WAIT_UNTIL(atomic_load(&f->worked));
    for (unsigned i = 0; i < 200; i++) {
        unsigned flushes = f->flushes, instruction_fences = f->instruction_fences;
        hart_fence_remote(NULL, &hart, 1, BOTH);
        // Both counters are the target's; it has written them before the call returned.
        assert_int_equal(f->flushes, flushes + 1);
        assert_int_equal(f->instruction_fences, instruction_fences + 1);
        hart_fence_remote(NULL, &hart, 1, HART_FENCE_I);
        assert_int_equal(f->flushes, flushes + 1);
        assert_int_equal(f->instruction_fences, instruction_fences + 2);
    }
    hart_stop(hart);
    join_thread(thread);
}

static void attract_attention(struct hart *hart)
{
    atomic_fetch_or(&hart->attention, HART_ATTENTION_IRQ);
}

// A target that looks for requests all the time sees them half made too.
static void test_of_an_attentive_hart(void **state)
{
    struct fixture *f = *state;
    struct hart *hart = started(f);

    f->work = attract_attention;
    pthread_t thread = run_thread(hart);
    WAIT_UNTIL(atomic_load(&f->worked));
    for (unsigned i = 0; i < 20000; i++) {
        unsigned flushes = f->flushes;
        hart_fence_remote(NULL, &hart, 1, HART_FENCE_VMA);
        assert_int_equal(f->flushes, flushes + 1);
    }
    hart_stop(hart);
    join_thread(thread);
}

// Asleep, parked or stopped: not waited for, not woken, and fenced before it goes on.
static void test_of_harts_that_do_not_execute(void **state)
{
    struct fixture *f = *state;
    struct hart *hart = f->hart;

    hart_set_supervisor_only(hart);
    for (unsigned parked = 0; parked < 2; parked++) {
        if (!parked)
            started(f);
        else
            hart_reset(hart);
        f->work = wait_for_interrupt;
        pthread_t thread = run_thread(hart);
        WAIT_UNTIL(asleep(hart));
        unsigned flushes = f->flushes;
        for (unsigned i = 0; i < 3; i++)
            hart_fence_remote(NULL, &hart, 1, HART_FENCE_VMA);
        assert_int_equal(f->flushes, flushes);
        assert_int_equal(atomic_load(&hart->attention), 0);
        hart_stop(hart);
        join_thread(thread);
        assert_int_equal(f->flushes, flushes + 1);
    }
    unsigned flushes = f->flushes;
    hart_fence_remote(NULL, &hart, 1, HART_FENCE_VMA);
    assert_int_equal(f->flushes, flushes);
    hart->debug_step = true;
    assert_int_equal(hart_run(hart), HART_EXIT_STEPPED);
    assert_int_equal(f->flushes, flushes + 1);
}

static void test_of_oneself(void **state)
{
    struct fixture *f = *state;
    struct hart *hart = started(f);
    unsigned flushes = f->flushes, instruction_fences = f->instruction_fences;

    hart_fence_remote(hart, &hart, 1, BOTH);
    assert_int_equal(f->flushes, flushes + 1);
    assert_int_equal(f->instruction_fences, instruction_fences + 1);
    assert_false(atomic_load(&hart->executing));
    hart_fence_remote(hart, NULL, 0, BOTH);
    assert_int_equal(f->flushes, flushes + 1);
}

// All harts fence all harts, themselves included, as fast as they can, while one more thread does
// too and stops and restarts one of them.
#define HARTS 4
#define ROUNDS 500u

static struct {
    struct fixture fixtures[HARTS];
    struct hart *harts[HARTS];
    atomic_uint unfinished;
} crowd;

static void fence_all(struct hart *hart)
{
    unsigned worked = atomic_load(&fixture_of(hart)->worked);

    assert_true(atomic_load(&hart->executing));
    if (worked < ROUNDS)
        hart_fence_remote(hart, crowd.harts, HARTS, worked % 2 ? BOTH : HART_FENCE_VMA);
    else if (worked == ROUNDS)
        atomic_fetch_sub(&crowd.unfinished, 1);
    else
        wait_for_interrupt(hart);
}

static void test_of_each_other(void **state)
{
    pthread_t threads[HARTS];

    (void)state;
    atomic_store(&crowd.unfinished, HARTS);
    for (unsigned i = 0; i < HARTS; i++) {
        fixture_init(&crowd.fixtures[i], i, NULL);
        crowd.harts[i] = started(&crowd.fixtures[i]);
        crowd.fixtures[i].work = fence_all;
    }
    for (unsigned i = 0; i < HARTS; i++)
        threads[i] = run_thread(crowd.harts[i]);
    for (unsigned i = 0; i < 50; i++) {
        hart_fence_remote(NULL, crowd.harts, HARTS, BOTH);
        hart_stop(crowd.harts[0]);
        assert_int_equal(join_thread(threads[0]), HART_EXIT_STOPPED);
        hart_fence_remote(NULL, crowd.harts, HARTS, HART_FENCE_I);
        threads[0] = run_thread(crowd.harts[0]);
    }
    WAIT_UNTIL(atomic_load(&crowd.unfinished) == 0);
    for (unsigned i = 0; i < HARTS; i++) {
        hart_stop(crowd.harts[i]);
        assert_int_equal(join_thread(threads[i]), HART_EXIT_STOPPED);
        assert_true(crowd.fixtures[i].flushes >= ROUNDS);
        assert_int_equal(atomic_load(&crowd.harts[i]->fence_waiters), 0);
    }
    for (unsigned i = 0; i < HARTS; i++)
        fixture_fini(&crowd.fixtures[i]);
    printf("%u harts, %u rounds each\n", HARTS, ROUNDS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HART_TEST(test_of_a_busy_hart),
        HART_TEST(test_of_an_attentive_hart),
        HART_TEST(test_of_harts_that_do_not_execute),
        HART_TEST(test_of_oneself),
        cmocka_unit_test(test_of_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
