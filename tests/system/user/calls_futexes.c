// SPDX-License-Identifier: BSD-2-Clause
// Futexes by the newer calls, and kcmp. Where the kernel does not have a call, that is what is
// shown.
#define _GNU_SOURCE
#include <linux/futex.h>
#include <linux/kcmp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

#define PRIVATE 128u
#define U32 2u           // the size of the word (FUTEX2_SIZE_U32)
#define ANY 0xffffffffl  // a mask

// The same everywhere, and not in all headers.
enum { WAITV = 449, WAKE = 454, WAIT = 455, REQUEUE = 456 };

static _Atomic uint32_t words[130];

static struct futex_waitv waiter(unsigned i, uint32_t expected)
{
    return (struct futex_waitv){
        .val = expected, .uaddr = (uintptr_t)&words[i], .flags = U32 | PRIVATE};
}

static struct timespec soon(long ms)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    time.tv_nsec += ms * 1000000;
    time.tv_sec += time.tv_nsec / 1000000000;
    time.tv_nsec %= 1000000000;
    return time;
}

// The call is there, or fails as one that is not.
static bool is_there(int call)
{
    bool there = syscall(call, NULL, 0, 0, 0, 0, 0) != -1 || errno != ENOSYS;

    if (!there)
        check(true, "a call that this kernel does not have");
    return there;
}

// Wakes whoever waits for word 1, as soon as somebody does.
static void *wake(void *unused)
{
    while (syscall(SYS_futex, &words[1], FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, NULL, NULL, 0) == 0)
        usleep(1000);
    return unused;
}

static void waiting_for_several(void)
{
    struct futex_waitv waiters[129] = {waiter(0, 0), waiter(1, 0), waiter(2, 0)};
    struct timespec time = soon(20);
    pthread_t thread;

    check(syscall(WAITV, waiters, 3, 0, &time, CLOCK_MONOTONIC) == -1 && errno == ETIMEDOUT,
          "nobody wakes who waits for several");
    waiters[2].val = 9;
    check(syscall(WAITV, waiters, 3, 0, NULL, CLOCK_MONOTONIC) == -1 && errno == EAGAIN,
          "one is another value");
    waiters[2].val = 0;
    pthread_create(&thread, NULL, wake, NULL);
    time = soon(60000);
    check(syscall(WAITV, waiters, 3, 0, &time, CLOCK_MONOTONIC) == 1, "which one was woken");
    pthread_join(thread, NULL);
    for (unsigned i = 0; i < 129; i++)
        waiters[i] = waiter(i, i == 127);
    check(syscall(WAITV, waiters, 128, 0, NULL, CLOCK_MONOTONIC) == -1 && errno == EAGAIN &&
              syscall(WAITV, waiters, 129, 0, NULL, CLOCK_MONOTONIC) == -1 && errno == EINVAL &&
              syscall(WAITV, waiters, 0, 0, NULL, CLOCK_MONOTONIC) == -1 && errno == EINVAL,
          "as many as 128, at least one");
    waiters[1].uaddr = (uintptr_t)-8;
    check(syscall(WAITV, waiters, 3, 0, NULL, CLOCK_MONOTONIC) == -1 && errno == EFAULT &&
              syscall(WAITV, (void *)-8, 3, 0, NULL, CLOCK_MONOTONIC) == -1 && errno == EFAULT,
          "a word that is nowhere");
    waiters[1] = waiter(1, 0);
    waiters[1].flags = 77;
    check(syscall(WAITV, waiters, 3, 0, NULL, CLOCK_MONOTONIC) == -1 && errno == EINVAL,
          "flags that there are not");
}

static void *wait_for_word(void *mask)
{
    struct timespec time = soon(60000);

    return (void *)(intptr_t)syscall(WAIT, &words[3], 0, (intptr_t)mask, U32 | PRIVATE, &time,
                                     CLOCK_MONOTONIC);
}

static void one(void)
{
    struct timespec time = soon(20);
    pthread_t thread;
    void *result;
    long woken = 0;

    check(syscall(WAIT, &words[3], 0, ANY, U32 | PRIVATE, &time, CLOCK_MONOTONIC) == -1 &&
              errno == ETIMEDOUT &&
              syscall(WAIT, &words[3], 1, ANY, U32 | PRIVATE, NULL, 0) == -1 && errno == EAGAIN,
          "one word");
    pthread_create(&thread, NULL, wait_for_word, (void *)2);
    for (int i = 0; i < 20; i++) {
        usleep(1000);
        woken += syscall(WAKE, &words[3], 1, 1, U32 | PRIVATE);
    }
    check(woken == 0, "who waits for something else sleeps on");
    while ((woken = syscall(WAKE, &words[3], 2, 1, U32 | PRIVATE)) == 0)
        usleep(1000);
    pthread_join(thread, &result);
    check(woken == 1 && !result, "and is woken by that");
    check(syscall(WAKE, (void *)-8, ANY, 1, U32) == -1 && errno == EFAULT &&
              syscall(WAIT, (void *)-8, 0, ANY, U32, NULL, 0) == -1 && errno == EFAULT,
          "one that is nowhere");
}

static void another(void)
{
    struct futex_waitv both[2] = {waiter(3, 0), waiter(4, 0)};
    pthread_t thread;
    void *result;
    long moved;

    pthread_create(&thread, NULL, wait_for_word, (void *)ANY);
    while ((moved = syscall(REQUEUE, both, 0, 0, 1)) == 0)
        usleep(1000);
    check(moved == 1 && syscall(WAKE, &words[3], ANY, 1, U32 | PRIVATE) == 0 &&
              syscall(WAKE, &words[4], ANY, 1, U32 | PRIVATE) == 1,
          "who waits for one is made to wait for another");
    pthread_join(thread, &result);
    check(!result, "and woken there");
    both[0].val = 1;
    check(syscall(REQUEUE, both, 0, 0, 1) == -1 && errno == EAGAIN &&
              syscall(REQUEUE, (void *)-8, 0, 0, 1) == -1 && errno == EFAULT,
          "unless its value is another");
}

static long compare(int type, uint64_t first, uint64_t second)
{
    return syscall(SYS_kcmp, getpid(), getpid(), type, first, second);
}

static void comparing(void)
{
    int fd = dup(1), other = epoll_create1(0), ends[2];
    struct epoll_event event = {.events = EPOLLIN};
    struct kcmp_epoll_slot slot = {.efd = (uint32_t)other};

    if (compare(KCMP_VM, 0, 0) == -1 && (errno == ENOSYS || errno == EPERM)) {
        check(true, "kcmp (there is none)");
        return;
    }
    check(compare(KCMP_VM, 0, 0) == 0 && compare(KCMP_FILE, 1, (uint64_t)fd) == 0 &&
              compare(KCMP_FILE, 1, (uint64_t)other) > 0,
          "what is the same to the kernel");
    check(compare(KCMP_FILE, 1, 999) == -1 && errno == EBADF && compare(99, 0, 0) == -1 &&
              errno == EINVAL,
          "what cannot be compared");
    pipe(ends);
    slot.tfd = (uint32_t)ends[0];
    epoll_ctl(other, EPOLL_CTL_ADD, ends[0], &event);
    check(compare(KCMP_EPOLL_TFD, (uint64_t)ends[0], (uintptr_t)&slot) == 0, "in a set of epoll");
    check(compare(KCMP_EPOLL_TFD, (uint64_t)ends[0], (uint64_t)-8) == -1 && errno == EFAULT,
          "which is to be told");
}

int main(void)
{
    if (is_there(WAITV))
        waiting_for_several();
    if (is_there(WAKE) && is_there(REQUEUE)) {
        one();
        another();
    }
    comparing();
    return check_done();
}
