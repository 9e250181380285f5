// SPDX-License-Identifier: BSD-2-Clause
// harts: one thread on each hart, and what they must agree on.
//
//   harts rewrite COUNT   code is written while the program runs, and must run as last written
//   harts wake COUNT      sleeps, wake-ups from hart to hart, and calls that interrupt every hart
//
// It prints one line, always the same unless something is wrong.
#define _GNU_SOURCE  // CPU_SET
#include <errno.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/cachectl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define HARTS_MAX 64
#define PAGE_WORDS 1024
#define FLUSH_LOCAL 1UL     // SYS_RISCV_FLUSH_ICACHE_LOCAL of <asm/unistd.h>: this thread alone
#define IMMEDIATE_MAX 2047  // of addi
#define LATE_SECONDS 20.0   // far more than a loaded host takes from its guest at a time

struct thread;

struct harts {
    void (*work)(struct thread *thread);
    long threads, count;
    pthread_barrier_t barrier;
    uint32_t *pages[HARTS_MAX];   // code: one page a thread
    int pipes[HARTS_MAX][2];      // one to each thread
    atomic_int written, flushed;  // in race(): the value being written, the one all must see
    atomic_bool raced;            // the writer is done
    atomic_long wrong;
};

struct thread {
    struct harts *harts;
    long index;
    uint32_t random;
    pthread_t id;
};

static void fail(const char *what)
{
    printf("harts: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void expect(struct harts *harts, int condition, const char *what)
{
    if (!condition && atomic_fetch_add(&harts->wrong, 1) == 0)
        printf("harts: wrong: %s\n", what);
}

static void wait_for_all(struct harts *harts)
{
    pthread_barrier_wait(&harts->barrier);
}

static int call(const uint32_t *code)
{
    return ((int (*)(void))(uintptr_t)code)();
}

static uint32_t next_random(struct thread *thread)
{
    thread->random = thread->random * 1664525 + 1013904223;
    return thread->random >> 4;
}

// lui a0, %hi(value); addiw a0, a0, %lo(value); ret
static void write_function(uint32_t *code, uint32_t value)
{
    code[0] = ((value + 0x800) & 0xfffff000) | 0x537;
    code[1] = value << 20 | 0x5051b;
    code[2] = 0x8067;
}

// Code for this hart alone, somewhere in its page.
static void rewrite_own(struct thread *thread)
{
    struct harts *harts = thread->harts;

    for (long i = 0; i < harts->count; i++) {
        uint32_t *code = harts->pages[thread->index] + next_random(thread) % (PAGE_WORDS - 3);
        uint32_t value = next_random(thread);
        write_function(code, value);
        __riscv_flush_icache(code, code + 3, FLUSH_LOCAL);
        expect(harts, call(code) == (int)value, "a thread's own code");
    }
}

// Each thread writes what the next one runs.
static void hand_over(struct thread *thread)
{
    struct harts *harts = thread->harts;
    uint32_t *mine = harts->pages[thread->index];
    uint32_t *next = harts->pages[(thread->index + 1) % harts->threads];

    for (long i = 0; i < harts->count; i++) {
        uint32_t value = (uint32_t)i * 2654435761U >> 4;
        write_function(next, value);
        __builtin___clear_cache((char *)next, (char *)(next + 3));
        wait_for_all(harts);
        expect(harts, call(mine) == (int)value, "code of another thread's");
        wait_for_all(harts);
    }
}

static void write_under_way(struct harts *harts, uint32_t *code, int value)
{
    atomic_store(&harts->written, value);
    // addi a0, zero, value: one aligned word, which a hart finds whole, old or new.
    __atomic_store_n(code, (uint32_t)value << 20 | 0x513, __ATOMIC_RELEASE);
    __builtin___clear_cache((char *)code, (char *)(code + 1));
    atomic_store(&harts->flushed, value);
}

// One thread changes a function that all others are running, which may see a new value early, but
// none that was replaced before the flush of all harts' instruction caches was done.
static void race(struct thread *thread, long writer)
{
    struct harts *harts = thread->harts;
    uint32_t *code = harts->pages[writer];

    if (thread->index == writer) {
        code[1] = 0x8067;
        write_under_way(harts, code, 0);
        atomic_store(&harts->raced, 0);
    }
    wait_for_all(harts);
    if (thread->index == writer) {
        for (long i = 1; i <= harts->count; i++)
            write_under_way(harts, code, (int)i);
        atomic_store(&harts->raced, 1);
    }
    while (!atomic_load(&harts->raced)) {
        int oldest = atomic_load(&harts->flushed);
        int value = call(code);
        expect(harts, oldest <= value && value <= atomic_load(&harts->written),
               "code that was changed while it ran");
    }
    wait_for_all(harts);
}

static void rewrite(struct thread *thread)
{
    rewrite_own(thread);
    wait_for_all(thread->harts);
    hand_over(thread);
    for (long writer = 0; writer < thread->harts->threads; writer++)
        race(thread, writer);
}

static double seconds_since(const struct timespec *then)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - then->tv_sec) + (double)(now.tv_nsec - then->tv_nsec) / 1e9;
}

static void sleep_and_wake(struct thread *thread)
{
    struct timespec start, duration = {.tv_nsec = 1000000 * (1 + thread->index)};

    for (long i = 0; i < thread->harts->count; i++) {
        clock_gettime(CLOCK_MONOTONIC, &start);
        if (clock_nanosleep(CLOCK_MONOTONIC, 0, &duration, NULL))
            fail("clock_nanosleep");
        double slept = seconds_since(&start);
        expect(thread->harts, slept >= (double)duration.tv_nsec / 1e9, "a sleep was too short");
        expect(thread->harts, slept < LATE_SECONDS, "a timer's interrupt was late");
    }
}

// A byte goes round; each thread sleeps until it comes.
static void pass_round(struct thread *thread)
{
    struct harts *harts = thread->harts;
    int from = harts->pipes[thread->index][0];
    int to = harts->pipes[(thread->index + 1) % harts->threads][1];
    struct timespec start;
    char byte = 0;

    for (long i = 0; i < harts->count; i++) {
        clock_gettime(CLOCK_MONOTONIC, &start);
        if (thread->index == 0 && write(to, &byte, 1) != 1)
            fail("write");
        if (read(from, &byte, 1) != 1 || (thread->index != 0 && write(to, &byte, 1) != 1))
            fail("pipe");
        expect(harts, seconds_since(&start) < LATE_SECONDS, "a wake-up by another hart was late");
    }
}

// The kernel interrupts every hart that runs one of our threads, and waits for its answer.
static void interrupt_all(struct thread *thread)
{
    struct timespec start;

    for (long i = 0; i < thread->harts->count; i++) {
        clock_gettime(CLOCK_MONOTONIC, &start);
        if (syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0))
            fail("membarrier");
        expect(thread->harts, seconds_since(&start) < LATE_SECONDS,
               "the answer to an interrupt from another hart was late");
    }
}

static void wake(struct thread *thread)
{
    sleep_and_wake(thread);
    wait_for_all(thread->harts);
    pass_round(thread);
    wait_for_all(thread->harts);
    interrupt_all(thread);
}

static void pin(long hart)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(hart, &set);
    if (sched_setaffinity(0, sizeof(set), &set))
        fail("sched_setaffinity");
}

static void *run(void *argument)
{
    struct thread *thread = argument;

    pin(thread->index);
    thread->harts->work(thread);
    return NULL;
}

static void prepare(struct harts *harts)
{
    harts->threads = sysconf(_SC_NPROCESSORS_ONLN);
    if (harts->threads > HARTS_MAX)
        harts->threads = HARTS_MAX;
    if (pthread_barrier_init(&harts->barrier, NULL, (unsigned int)harts->threads))
        fail("pthread_barrier_init");
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0))
        fail("membarrier");
    for (long i = 0; i < harts->threads; i++) {
        harts->pages[i] =
            mmap(NULL, PAGE_WORDS * sizeof(uint32_t), PROT_READ | PROT_WRITE | PROT_EXEC,
                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (harts->pages[i] == MAP_FAILED || pipe(harts->pipes[i]))
            fail("mmap or pipe");
    }
}

int main(int argc, char **argv)
{
    struct harts harts = {.work = rewrite};
    struct thread threads[HARTS_MAX] = {0};

    harts.count = argc == 3 ? strtol(argv[2], NULL, 10) : 0;
    if (harts.count < 1 || harts.count > IMMEDIATE_MAX) {
        fprintf(stderr, "usage: harts rewrite|wake COUNT (at most %d)\n", IMMEDIATE_MAX);
        return 2;
    }
    if (strcmp(argv[1], "wake") == 0)
        harts.work = wake;
    prepare(&harts);
    for (long i = 0; i < harts.threads; i++) {
        threads[i] = (struct thread){.harts = &harts, .index = i, .random = (uint32_t)i};
        if (pthread_create(&threads[i].id, NULL, run, &threads[i]))
            fail("pthread_create");
    }
    for (long i = 0; i < harts.threads; i++)
        pthread_join(threads[i].id, NULL);
    printf("%s %ld on %ld harts: %ld wrong\n", argv[1], harts.count, harts.threads, harts.wrong);
    return harts.wrong != 0;
}
