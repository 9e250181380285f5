// SPDX-License-Identifier: BSD-2-Clause
// The event loop: watches, wakes, timers, calls from other threads, stopping and closing.
#include <pthread.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "base/base.h"
#include "unit.h"

#define SHORT_WAITS 40
#define TRIES 50

struct fixture {
    struct loop *loop;
    pthread_t thread;
    int count;
    int pipe[2];
    struct loop_watch *watch;
    struct loop_wake *wake;
    struct loop_timer *timer;
};

static void *run(void *opaque)
{
    loop_run(opaque);
    return NULL;
}

static int setup(void **state)
{
    struct fixture *f = test_calloc(1, sizeof(*f));
    assert_int_equal(loop_create(&f->loop, NULL), 0);
    assert_int_equal(pipe(f->pipe), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    loop_destroy(f->loop);
    close(f->pipe[0]);
    close(f->pipe[1]);
    test_free(f);
    return 0;
}

static void count_and_stop(void *opaque)
{
    struct fixture *f = opaque;
    f->count++;
    loop_stop(f->loop);
}

static void readable(void *opaque, unsigned events)
{
    struct fixture *f = opaque;
    char byte;
    assert_true(events & LOOP_READABLE);
    assert_int_equal(read(f->pipe[0], &byte, 1), 1);
    loop_watch_close(f->watch);  // from its own callback
    f->watch = NULL;
    count_and_stop(f);
}

static void test_watch(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(loop_watch_create(f->loop, f->pipe[0], LOOP_READABLE, readable, f, &f->watch),
                     0);
    assert_int_equal(write(f->pipe[1], "ab", 2), 2);
    loop_run(f->loop);
    assert_int_equal(f->count, 1);
    // Closed although there is one more byte: a later run sees the timer only.
    assert_int_equal(loop_timer_create(f->loop, count_and_stop, f, &f->timer), 0);
    loop_timer_start(f->timer, 20);
    loop_run(f->loop);
    assert_int_equal(f->count, 2);
    loop_watch_close(NULL);
}

static void test_watch_refuses_a_regular_file(void **state)
{
    struct fixture *f = *state;
    char path[] = "/tmp/strake-loop-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    unlink(path);
    assert_int_equal(loop_watch_create(f->loop, fd, LOOP_READABLE, readable, f, &f->watch), -EPERM);
    close(fd);
}

static void test_timer_stops_and_restarts(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(loop_timer_create(f->loop, count_and_stop, f, &f->timer), 0);
    loop_timer_start(f->timer, 1);
    loop_timer_stop(f->timer);
    uint64_t start_ns = clock_monotonic_ns();
    loop_timer_start(f->timer, 30);
    loop_run(f->loop);
    assert_int_equal(f->count, 1);
    assert_true(clock_monotonic_ns() - start_ns >= 29000000u);
}

static void test_stop_before_run_is_not_lost(void **state)
{
    struct fixture *f = *state;
    loop_stop(f->loop);
    loop_run(f->loop);
}

static void increment(void *opaque)
{
    ((struct fixture *)opaque)->count++;
}

static void nested(void *opaque)
{
    struct fixture *f = opaque;
    loop_call(f->loop, increment, f);
}

static void *call_often(void *opaque)
{
    struct fixture *f = opaque;
    for (int i = 0; i < 2000; i++)
        loop_call(f->loop, nested, f);
    return NULL;
}

// Calls run one at a time on the loop's thread: a plain counter comes out right.
static void test_calls_from_many_threads(void **state)
{
    struct fixture *f = *state;
    pthread_t callers[4];
    loop_call(f->loop, nested, f);  // nobody runs the loop: inline
    assert_int_equal(f->count, 1);
    assert_int_equal(pthread_create(&f->thread, NULL, run, f->loop), 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&callers[i], NULL, call_often, f), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(callers[i], NULL);
    loop_stop(f->loop);
    pthread_join(f->thread, NULL);
    assert_int_equal(f->count, 8001);
}

static void test_wake_from_another_thread(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(loop_wake_create(f->loop, count_and_stop, f, &f->wake), 0);
    assert_int_equal(pthread_create(&f->thread, NULL, run, f->loop), 0);
    loop_wake_signal(f->wake);
    pthread_join(f->thread, NULL);
    assert_int_equal(f->count, 1);
}

static void count_wake(void *opaque)
{
    struct fixture *f = opaque;
    f->count++;
    if (f->count < SHORT_WAITS)
        loop_wake_signal(f->wake);
    else
        loop_timer_start(f->timer, 20);
}

static uint64_t thread_cpu_ns(void)
{
    struct timespec spent;
    assert_int_equal(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &spent), 0);
    return (uint64_t)spent.tv_sec * 1000000000u + (uint64_t)spent.tv_nsec;
}

// What the loop's thread spends on SHORT_WAITS waits of next to nothing, and one of 20 ms.
static uint64_t spent_ns(struct fixture *f, uint64_t poll_at_most_ns)
{
    uint64_t before_ns = thread_cpu_ns();
    f->count = 0;
    loop_set_polling(f->loop, poll_at_most_ns);
    loop_wake_signal(f->wake);
    loop_run(f->loop);
    assert_int_equal(f->count, SHORT_WAITS + 1);
    return thread_cpu_ns() - before_ns;
}

static bool polls(struct fixture *f)
{
    uint64_t sleeps_ns = spent_ns(f, 0), polls_ns = spent_ns(f, 1000000000),
             little_ns = spent_ns(f, 10000), again_ns = spent_ns(f, 0);
    printf("processor time: %llu us, polling %llu us, polling for at most 10 us %llu us, "
           "not any more %llu us\n",
           (unsigned long long)sleeps_ns / 1000, (unsigned long long)polls_ns / 1000,
           (unsigned long long)little_ns / 1000, (unsigned long long)again_ns / 1000);
    return polls_ns > 4 * sleeps_ns && polls_ns > 4 * little_ns && polls_ns > 4 * again_ns;
}

// Short waits have it poll, for as long as it may: processor time tells, where others leave it
// some.
static void test_polling(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(loop_wake_create(f->loop, count_wake, f, &f->wake), 0);
    assert_int_equal(loop_timer_create(f->loop, count_and_stop, f, &f->timer), 0);
    bool seen = false;
    for (unsigned i = 0; i < TRIES && !seen; i++)
        seen = polls(f);
    assert_true(seen);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_watch, setup, teardown),
        cmocka_unit_test_setup_teardown(test_watch_refuses_a_regular_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_timer_stops_and_restarts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stop_before_run_is_not_lost, setup, teardown),
        cmocka_unit_test_setup_teardown(test_calls_from_many_threads, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wake_from_another_thread, setup, teardown),
        cmocka_unit_test_setup_teardown(test_polling, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
