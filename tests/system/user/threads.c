// SPDX-License-Identifier: BSD-2-Clause
// Threads: their start and end, what they share, how they wait for each other.
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

#define THREADS 8
#define ROUNDS 2000

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn = PTHREAD_COND_INITIALIZER;
static long counter;
static atomic_long atomic_counter;
static _Thread_local int own = 5;

static void *count(void *argument)
{
    for (int i = 0; i < ROUNDS; i++) {
        pthread_mutex_lock(&lock);
        counter++;
        pthread_mutex_unlock(&lock);
        atomic_counter++;
        own++;
    }
    return (void *)((intptr_t)argument + own);
}

static void counting(void)
{
    pthread_t threads[THREADS];
    bool right = true;
    for (intptr_t i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, count, (void *)i);
    for (intptr_t i = 0; i < THREADS; i++) {
        void *result;
        pthread_join(threads[i], &result);
        right = right && (intptr_t)result == i + 5 + ROUNDS;
    }
    check(right && own == 5, "threads have variables of their own, and end with a value");
    check(counter == THREADS * ROUNDS && atomic_counter == THREADS * ROUNDS,
          "what they share under a lock, or by atomics, is right");
}

static int whose;

static void *take_turns(void *argument)
{
    int me = *(int *)argument;
    for (int i = 0; i < 200; i++) {
        pthread_mutex_lock(&lock);
        while (whose % 2 != me)
            pthread_cond_wait(&turn, &lock);
        whose++;
        pthread_cond_broadcast(&turn);
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}

static void waiting(void)
{
    pthread_t one, other;
    int numbers[] = {0, 1};
    pthread_create(&one, NULL, take_turns, &numbers[0]);
    pthread_create(&other, NULL, take_turns, &numbers[1]);
    pthread_join(one, NULL);
    pthread_join(other, NULL);
    check(whose == 400, "threads wait for each other");

    struct timespec soon;
    clock_gettime(CLOCK_REALTIME, &soon);
    soon.tv_nsec = (soon.tv_nsec + 20000000) % 1000000000;
    soon.tv_sec += soon.tv_nsec < 20000000;
    sem_t none;
    sem_init(&none, 0, 0);
    check(sem_timedwait(&none, &soon) < 0 && errno == ETIMEDOUT, "but not for ever");
}

static void *end_with_lock(void *argument)
{
    pthread_mutex_lock(argument);
    return NULL;
}

static void robust(void)
{
    pthread_mutexattr_t attributes;
    pthread_mutex_t mutex;
    pthread_t thread;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&mutex, &attributes);
    pthread_create(&thread, NULL, end_with_lock, &mutex);
    pthread_join(thread, NULL);
    check(pthread_mutex_lock(&mutex) == EOWNERDEAD && pthread_mutex_consistent(&mutex) == 0 &&
              pthread_mutex_unlock(&mutex) == 0,
          "who takes a robust lock is told that its owner has ended");
}

static pthread_barrier_t locked;

static void *lock_and_wait(void *argument)
{
    pthread_mutex_lock(argument);
    pthread_barrier_wait(&locked);
    for (;;)
        pause();
    return NULL;
}

enum { BY_EXIT, BY_ANOTHER, BY_SIGNAL, BY_FAULT, ENDS };

static void end_by(int way, pthread_mutex_t *mutex)
{
    pthread_t thread;
    if (way != BY_ANOTHER) {
        pthread_mutex_lock(mutex);
    } else {
        pthread_barrier_init(&locked, NULL, 2);
        pthread_create(&thread, NULL, lock_and_wait, mutex);
        pthread_barrier_wait(&locked);
    }
    if (way == BY_SIGNAL)
        raise(SIGTERM);
    if (way == BY_FAULT)
        *(volatile int *)8 = 1;
    _exit(0);
}

static void robust_processes(void)
{
    static const char *const ends[] = {[BY_EXIT] = "and by a process that ends",
                                       [BY_ANOTHER] = "also by its other thread",
                                       [BY_SIGNAL] = "or a signal",
                                       [BY_FAULT] = "or a fault"};
    pthread_mutexattr_t attributes;
    pthread_mutex_t *mutex =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    for (int way = 0; way < ENDS; way++) {
        pthread_mutex_init(mutex, &attributes);
        pid_t child = fork();
        if (child == 0)
            end_by(way, mutex);
        waitpid(child, NULL, 0);
        check(pthread_mutex_trylock(mutex) == EOWNERDEAD, ends[way]);
    }
}

static void *inherit_priority(void *argument)
{
    pthread_mutex_lock(argument);
    counter++;
    pthread_mutex_unlock(argument);
    return NULL;
}

static void priority(void)
{
    pthread_mutexattr_t attributes;
    pthread_mutex_t mutex;
    pthread_t thread;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT);
    pthread_mutex_init(&mutex, &attributes);
    counter = 0;
    pthread_mutex_lock(&mutex);
    pthread_create(&thread, NULL, inherit_priority, &mutex);
    usleep(20000);
    counter++;
    pthread_mutex_unlock(&mutex);
    pthread_join(thread, NULL);
    check(counter == 2, "a lock that inherits priority is a lock");
}

static void *nothing(void *argument)
{
    return argument;
}

static void many(void)
{
    bool right = true;
    for (int i = 0; i < 300; i++) {
        pthread_t thread;
        right = right && pthread_create(&thread, NULL, nothing, NULL) == 0 &&
                pthread_join(thread, NULL) == 0;
    }
    check(right, "many threads come and go");
    pthread_t threads[64];
    int created = 0;
    pthread_mutex_lock(&lock);
    while (created < 64 && pthread_create(&threads[created], NULL, count, NULL) == 0)
        created++;
    pthread_mutex_unlock(&lock);
    for (int i = 0; i < created; i++)
        pthread_join(threads[i], NULL);
    check(created == 64, "many are there at once");
}

static void *cancelled(void *argument)
{
    while (!argument)
        pause();
    return NULL;
}

static void cancelling(void)
{
    pthread_t thread;
    void *result;
    pthread_create(&thread, NULL, cancelled, NULL);
    usleep(20000);
    check(pthread_cancel(thread) == 0 && pthread_join(thread, &result) == 0 &&
              result == PTHREAD_CANCELED,
          "a thread that sleeps is cancelled");
}

static pid_t own_id;

static void *tell_id(void *argument)
{
    own_id = (pid_t)syscall(SYS_gettid);
    return argument;
}

static void *fork_in_thread(void *argument)
{
    pid_t child = fork();
    if (child == 0)
        _exit(syscall(SYS_gettid) == getpid() && own == 5 ? 9 : 1);
    int status = 0;
    waitpid(child, &status, 0);
    *(int *)argument = WEXITSTATUS(status);
    return NULL;
}

static atomic_bool stop;

static void *call_code(void *argument)
{
    int (*function)(void) = (int (*)(void))argument;
    long strange = 0;
    while (!stop) {
        int result = function();
        strange += result != 1 && result != 2;
    }
    return (void *)strange;
}

// Code that one thread changes and the others execute is the old or the new.
static void changing_code(void)
{
    uint32_t *code =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pthread_t threads[3];
    code[0] = 0x00100513;  // li a0, 1
    code[1] = 0x8067;
    __builtin___clear_cache((char *)code, (char *)(code + 2));
    for (int i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, call_code, code);
    int (*function)(void) = (int (*)(void))code;
    bool right = true;
    for (unsigned i = 0; i < 100; i++) {
        __atomic_store_n(code, i % 2 ? 0x00200513u : 0x00100513u, __ATOMIC_RELEASE);
        __builtin___clear_cache((char *)code, (char *)(code + 2));
        right = right && function() == (i % 2 ? 2 : 1);
        char *other = mmap(NULL, 65536, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        munmap(other, 65536);
    }
    stop = true;
    void *strange, *all = NULL;
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], &strange);
        all = strange ? strange : all;
    }
    check(right && !all, "code that changes is seen by all threads");
}

static atomic_int met;

static void end_together(void)
{
    met++;
    while (met < 2)
        sched_yield();
    syscall(SYS_exit, 7);
}

static void *end_in_thread(void *argument)
{
    end_together();
    return argument;
}

static void ending(void)
{
    bool right = true;
    for (int i = 0; right && i < 100; i++) {
        pid_t child = fork();
        if (child == 0) {
            pthread_t thread;
            pthread_create(&thread, NULL, end_in_thread, NULL);
            end_together();
        }
        int status;
        waitpid(child, &status, 0);
        right = WIFEXITED(status) && WEXITSTATUS(status) == 7;
    }
    check(right, "of two threads that end at the same time the last ends the process");
}

static void *leave_last(void *argument)
{
    (void)argument;
    usleep(50000);
    check(check_failures == 0, "a thread lives on when the first has ended");
    exit(check_done());
    return NULL;
}

int main(void)
{
    pthread_t thread;
    int status = 0;

    counting();
    waiting();
    robust();
    robust_processes();
    priority();
    many();
    cancelling();
    pthread_create(&thread, NULL, tell_id, NULL);
    pthread_join(thread, NULL);
    check(own_id != getpid() && own_id > 0, "a thread has an id of its own");
    pthread_create(&thread, NULL, fork_in_thread, &status);
    pthread_join(thread, NULL);
    check(status == 9, "a thread's child is a process with one thread");
    changing_code();
    ending();
    pthread_create(&thread, NULL, leave_last, NULL);
    pthread_exit(NULL);
}
