// SPDX-License-Identifier: BSD-2-Clause
// Questions to a hart: that they are answered once, whatever the hart does, and between two of its
// instructions.
#include "hart_fixture.h"

#define NS_PER_SECOND 1000000000ull
#define PATIENCE_NS (120 * NS_PER_SECOND)
#define QUESTIONS 2000u
#define RUNS 500u

struct question {
    atomic_bool executing;  // an instruction is
    unsigned answers, amiss;
    pthread_t answered_by;
};

static struct question question;

static void count(struct hart *hart, void *opaque)
{
    (void)hart;
    (void)opaque;
    question.answers++;
    question.amiss += atomic_load(&question.executing);
    question.answered_by = pthread_self();
}

static bool ask(struct hart *hart, uint64_t timeout_ns)
{
    return hart_ask(hart, count, NULL, timeout_ns);
}

static void execute(struct hart *hart)
{
    (void)hart;
    atomic_store(&question.executing, true);
    for (volatile unsigned i = 0; i < 100; i++)
        ;
    atomic_store(&question.executing, false);
}

static struct fixture *start(void **state)
{
    struct fixture *f = *state;

    memset((void *)&question, 0, sizeof(question));
    hart_set_supervisor_only(f->hart);
    assert_int_equal(hart_start(f->hart, RAM_GPA, 0, 0), 0);
    return f;
}

static void test_running(void **state)
{
    struct fixture *f = start(state);

    f->work = execute;
    pthread_t thread = run_thread(f->hart);
    WAIT_UNTIL(atomic_load(&f->worked));
    for (unsigned i = 1; i <= QUESTIONS; i++) {
        assert_true(ask(f->hart, PATIENCE_NS));
        assert_int_equal(question.answers, i);
        assert_true(pthread_equal(question.answered_by, thread));
    }
    assert_int_equal(question.amiss, 0);
    hart_stop(f->hart);
    assert_int_equal(join_thread(thread), HART_EXIT_STOPPED);
}

static void test_stopped(void **state)
{
    struct fixture *f = start(state);

    assert_true(ask(f->hart, 0));
    assert_int_equal(question.answers, 1);
    assert_true(pthread_equal(question.answered_by, pthread_self()));
}

static void test_parked(void **state)
{
    struct fixture *f = *state;

    memset((void *)&question, 0, sizeof(question));
    pthread_t thread = run_thread(f->hart);
    WAIT_UNTIL(asleep(f->hart));
    assert_true(ask(f->hart, PATIENCE_NS));
    assert_int_equal(question.answers, 1);
    hart_stop(f->hart);
    join_thread(thread);
    assert_int_equal(atomic_load(&f->worked), 0);
}

static void sleep_in_wfi(struct hart *hart)
{
    assert_true(system_insn(hart, ISA_WFI, 0, 0));
}

// It goes on sleeping.
static void test_asleep(void **state)
{
    struct fixture *f = start(state);

    f->work = sleep_in_wfi;
    pthread_t thread = run_thread(f->hart);
    WAIT_UNTIL(asleep(f->hart));
    unsigned worked = atomic_load(&f->worked);
    for (unsigned i = 1; i <= 100; i++) {
        assert_true(ask(f->hart, PATIENCE_NS));
        assert_int_equal(question.answers, i);
    }
    assert_int_equal(atomic_load(&f->worked), worked);
    hart_stop(f->hart);
    join_thread(thread);
}

static atomic_bool busy, hanging;

static void hang(struct hart *hart)
{
    (void)hart;
    atomic_store(&hanging, true);
    while (atomic_load(&busy))
        sched_yield();
}

// In a device that does not return: the question is withdrawn, and not answered later.
static void test_too_busy(void **state)
{
    struct fixture *f = start(state);

    atomic_store(&busy, true);
    f->work = hang;
    pthread_t thread = run_thread(f->hart);
    WAIT_UNTIL(atomic_load(&hanging));
    assert_false(ask(f->hart, NS_PER_SECOND / 20));
    atomic_store(&busy, false);
    hart_stop(f->hart);
    join_thread(thread);
    assert_int_equal(question.answers, 0);
    assert_true(ask(f->hart, PATIENCE_NS));
}

static atomic_bool enough;

static void *ask_much(void *opaque)
{
    static unsigned asked;

    for (asked = 0; !atomic_load(&enough); asked++)
        assert_true(ask(opaque, PATIENCE_NS));
    return &asked;
}

// While the hart is stopped and started again all the time.
static void test_coming_and_going(void **state)
{
    struct fixture *f = start(state);
    pthread_t asker;
    void *asked;

    f->work = execute;
    atomic_store(&enough, false);
    assert_int_equal(pthread_create(&asker, NULL, ask_much, f->hart), 0);
    for (unsigned i = 0; i < RUNS; i++) {
        pthread_t thread = run_thread(f->hart);
        hart_stop(f->hart);
        join_thread(thread);
    }
    atomic_store(&enough, true);
    assert_int_equal(pthread_join(asker, &asked), 0);
    assert_int_equal(question.answers, *(unsigned *)asked);
    assert_int_equal(question.amiss, 0);
    printf("%u questions in %u runs\n", question.answers, RUNS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HART_TEST(test_running), HART_TEST(test_stopped),  HART_TEST(test_parked),
        HART_TEST(test_asleep),  HART_TEST(test_too_busy), HART_TEST(test_coming_and_going),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
