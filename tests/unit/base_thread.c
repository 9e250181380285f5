// SPDX-License-Identifier: BSD-2-Clause
// Turns and niceness of a thread: its own, and of those that it starts.
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/base.h"
#include "unit.h"

#define TURN_NS 300000u

// 0 where the kernel knows of no turns. What it fills is struct sched_attr, with sched_runtime as
// its fourth word; its header and pthread.h cannot both be included.
static uint64_t turn_ns(void)
{
    uint64_t attr[7] = {0};

    assert_int_equal(syscall(SYS_sched_getattr, 0, attr, sizeof(attr), 0), 0);
    return attr[3];
}

static int nice_of_thread(void)
{
    return getpriority(PRIO_PROCESS, 0);
}

static void on_a_thread(void *(*fn)(void *opaque))
{
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, fn, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

static void *look(void *opaque)
{
    (void)opaque;
    assert_int_equal(turn_ns(), TURN_NS);
    return NULL;
}

static void *change_turn(void *opaque)
{
    uint64_t usual_ns = turn_ns();
    int nice = nice_of_thread();

    (void)opaque;
    thread_set_turn(TURN_NS);
    printf("a turn: %llu ns, then %llu ns\n", (unsigned long long)usual_ns,
           (unsigned long long)turn_ns());
    if (usual_ns) {
        assert_int_equal(turn_ns(), TURN_NS);
        on_a_thread(look);
    }
    assert_int_equal(nice_of_thread(), nice);
    thread_set_turn(0);
    assert_int_equal(turn_ns(), usual_ns);
    return NULL;
}

static void test_turn(void **state)
{
    uint64_t usual_ns = turn_ns();

    (void)state;
    on_a_thread(change_turn);
    assert_int_equal(turn_ns(), usual_ns);
}

static void *become_nicer(void *opaque)
{
    int nice = nice_of_thread(), most = 19;

    (void)opaque;
    for (int by = 0; by < 50; by += 7) {
        thread_be_nicer((unsigned)by);
        nice = nice + by < most ? nice + by : most;
        assert_int_equal(nice_of_thread(), nice);
    }
    return NULL;
}

static void test_nicer(void **state)
{
    int nice = nice_of_thread();

    (void)state;
    on_a_thread(become_nicer);
    assert_int_equal(nice_of_thread(), nice);
}

static void test_group(void **state)
{
    pid_t pid = fork();
    int status, nice = nice_of_thread(), most = 19;

    (void)state;
    if (pid == 0) {
        setpgid(0, 0);
        thread_group_be_nicer(3);
        _exit(getpriority(PRIO_PGRP, 0) != (nice + 3 < most ? nice + 3 : most));
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(nice_of_thread(), nice);
}

static void test_polling_adapts(void **state)
{
    const uint64_t at_most_ns = 50000;
    uint64_t ns = 0, steps = 0;

    (void)state;
    for (uint64_t before = 1; ns != before; steps++) {
        before = ns;
        ns = thread_adapt_polling(ns, 10000, at_most_ns);
        assert_in_range(ns, before ? before : 1, at_most_ns);
    }
    printf("after %llu short waits it polls for %llu ns\n", (unsigned long long)steps,
           (unsigned long long)ns);
    assert_int_equal(ns, at_most_ns);
    assert_int_equal(thread_adapt_polling(ns, at_most_ns, at_most_ns), at_most_ns);
    for (steps = 0; ns; steps++) {
        uint64_t less = thread_adapt_polling(ns, at_most_ns + 1, at_most_ns);
        assert_true(less < ns);
        ns = less;
    }
    printf("after %llu long ones it does not\n", (unsigned long long)steps);
    assert_in_range(steps, 2, 10);
    assert_int_equal(thread_adapt_polling(0, at_most_ns + 1, at_most_ns), 0);
    assert_int_equal(thread_adapt_polling(0, 0, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_turn),
        cmocka_unit_test(test_nicer),
        cmocka_unit_test(test_group),
        cmocka_unit_test(test_polling_adapts),
    };

    // Neither turns nor nice mean anything to SCHED_IDLE, which the tests may have been started
    // with.
    sched_setscheduler(0, SCHED_OTHER, &(struct sched_param){0});
    return cmocka_run_group_tests(tests, NULL, NULL);
}
