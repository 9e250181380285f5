// SPDX-License-Identifier: BSD-2-Clause
// probe: how long the guest did not run, as its own programs see it.
//
// A thread pinned on each hart goes round a loop: it reads the clock (rdtime: the same count that
// clock_gettime is made of, without a call) and does a step of work. When the time between two
// readings is long, then the hart was elsewhere: in the kernel, with other threads, or stood still.
// The steps are many small functions, taken in no order, so that a hart whose code has become cold
// is seen to be slow, too.
//
//   probe   takes commands from standard input, a line each:
//     begin   starts a stretch: all is recorded anew
//     end     ends it; a line of JSON a hart follows, then "probe: done"
//     time    answers with the clock's reading, at once
//     sleep   answers after a millisecond: by this and no other command a timer is needed, of which
//             a guest may have been bereft
//     quit    ends the program
//
// What is recorded of a stretch: steps and the longest gap in each 10 ms, how many gaps were longer
// than each of BOUNDS_US, and by how much the clock went back, which it never may.
#define _GNU_SOURCE  // CPU_SET
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <termios.h>
#include <unistd.h>

#define HARTS_MAX 16
#define INTERVALS 12000u  // of 10 ms: two minutes
#define INTERVAL_US 10000
#define DATA_WORDS (1u << 17)  // 1 MiB a hart
#define BOUNDS 10

static const unsigned BOUNDS_US[BOUNDS] = {50,   100,  200,   500,   1000,
                                           2000, 5000, 10000, 20000, 50000};

struct interval {
    uint32_t steps, longest;
};

struct hart {
    struct probe *probe;
    pthread_t thread;
    unsigned number;
    uint64_t *data;
    // Of the stretch that is recorded or was recorded last; in ticks.
    uint64_t stretch, start, at, longest, back, over[BOUNDS];
    unsigned last;  // interval
    struct interval intervals[INTERVALS];
};

struct probe {
    unsigned hart_count;
    uint64_t ticks_per_us, bounds[BOUNDS];
    _Atomic uint64_t stretch;  // odd while one is recorded
    sem_t seen;                // posted by each hart that has seen it change
    atomic_bool quit;
    struct hart harts[HARTS_MAX];
};

static inline uint64_t read_clock(void)
{
    uint64_t ticks;

    __asm__ volatile("rdtime %0" : "=r"(ticks)::"memory");
    return ticks;
}

// ---- Work ---------------------------------------------------------------------------------------

// 256 functions, alike in kind but not in code. Each mixes a number, touches data at places that
// follow from it, and has branches that go either way.
#define STEP(n)                                                                                    \
    static uint64_t step_##n(uint64_t x, uint64_t *data)                                           \
    {                                                                                              \
        for (unsigned i = 0; i < 4 + (0x##n & 3); i++) {                                           \
            uint64_t *word = &data[(x >> (7 + (0x##n & 15))) % DATA_WORDS];                        \
            x = (x ^ (x >> (13 + (0x##n & 7)))) * (0x9e3779b97f4a7c15u + 2 * 0x##n##u);            \
            if (x & (1u << (0x##n % 31)))                                                          \
                *word += x ^ 0x##n##u;                                                             \
            else                                                                                   \
                x += *word + (x << (1 + (0x##n & 3)));                                             \
        }                                                                                          \
        return x;                                                                                  \
    }
// It moves these lines each time that it runs:
// clang-format off
#define ROW(DO, n) \
    DO(n##0) DO(n##1) DO(n##2) DO(n##3) DO(n##4) DO(n##5) DO(n##6) DO(n##7) \
    DO(n##8) DO(n##9) DO(n##a) DO(n##b) DO(n##c) DO(n##d) DO(n##e) DO(n##f)
#define ALL(DO) \
    ROW(DO, 0) ROW(DO, 1) ROW(DO, 2) ROW(DO, 3) ROW(DO, 4) ROW(DO, 5) ROW(DO, 6) ROW(DO, 7) \
    ROW(DO, 8) ROW(DO, 9) ROW(DO, a) ROW(DO, b) ROW(DO, c) ROW(DO, d) ROW(DO, e) ROW(DO, f)
// clang-format on
#define NAME(n) step_##n,

ALL(STEP)
static uint64_t (*const steps[256])(uint64_t, uint64_t *) = {ALL(NAME)};

// ---- Recording ----------------------------------------------------------------------------------

// Follows what was commanded: a stretch begins or ends.
static void follow(struct hart *hart, uint64_t stretch)
{
    if (stretch & 1) {
        memset(hart->intervals, 0, sizeof(hart->intervals));
        memset(hart->over, 0, sizeof(hart->over));
        hart->longest = 0;
        hart->back = 0;
        hart->last = 0;
        hart->start = hart->at = read_clock();
    }
    hart->stretch = stretch;
    sem_post(&hart->probe->seen);
}

static void record(struct hart *hart, uint64_t now)
{
    const struct probe *probe = hart->probe;

    if (now < hart->at) {  // until the clock has been there again
        if (hart->at - now > hart->back)
            hart->back = hart->at - now;
        return;
    }
    uint64_t gap = now - hart->at;
    hart->at = now;
    while (now - hart->start >= (hart->last + 1) * probe->ticks_per_us * INTERVAL_US &&
           hart->last < INTERVALS - 1)
        hart->last++;
    struct interval *interval = &hart->intervals[hart->last];
    interval->steps++;
    if (gap > interval->longest)
        interval->longest = (uint32_t)gap;
    if (gap > hart->longest)
        hart->longest = gap;
    for (unsigned i = 0; i < BOUNDS && gap > probe->bounds[i]; i++)
        hart->over[i]++;
}

static void pin(unsigned hart)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(hart, &set);
    if (sched_setaffinity(0, sizeof(set), &set))
        perror("probe: pin");
}

static void *watch(void *opaque)
{
    struct hart *hart = opaque;
    struct probe *probe = hart->probe;
    uint64_t x = hart->number;

    pin(hart->number);
    while (!atomic_load_explicit(&probe->quit, memory_order_relaxed)) {
        uint64_t stretch = atomic_load_explicit(&probe->stretch, memory_order_relaxed);
        if (stretch != hart->stretch)
            follow(hart, stretch);
        if (stretch & 1)
            record(hart, read_clock());
        x = steps[x >> 56](x, hart->data);
    }
    return NULL;
}

// ---- Commands -----------------------------------------------------------------------------------

// Starts or ends a stretch, and waits until all harts know.
static void next_stretch(struct probe *probe)
{
    atomic_fetch_add(&probe->stretch, 1);
    for (unsigned i = 0; i < probe->hart_count; i++)
        while (sem_wait(&probe->seen))
            ;
}

static void print_hart(const struct probe *probe, const struct hart *hart)
{
    double us = (double)probe->ticks_per_us;

    printf("probe: {\"hart\":%u,\"start\":%lu,\"ticks_per_us\":%lu,\"interval_us\":%u,"
           "\"longest_us\":%.1f,\"back_us\":%.1f,\"longest\":[",
           hart->number, hart->start, probe->ticks_per_us, INTERVAL_US, (double)hart->longest / us,
           (double)hart->back / us);
    for (unsigned i = 0; i <= hart->last; i++)
        printf("%s%.0f", i ? "," : "", (double)hart->intervals[i].longest / us);
    printf("],\"steps\":[");
    for (unsigned i = 0; i <= hart->last; i++)
        printf("%s%u", i ? "," : "", hart->intervals[i].steps);
    printf("],\"over\":{");
    for (unsigned i = 0; i < BOUNDS; i++)
        printf("%s\"%u\":%lu", i ? "," : "", BOUNDS_US[i], hart->over[i]);
    printf("}}\n");
}

static void end_stretch(struct probe *probe)
{
    if (!(atomic_load(&probe->stretch) & 1)) {
        printf("probe: no stretch has begun\n");
        return;
    }
    next_stretch(probe);
    for (unsigned i = 0; i < probe->hart_count; i++)
        print_hart(probe, &probe->harts[i]);
    printf("probe: done\n");
}

// Does one command; false when it was the last.
static bool command(struct probe *probe, const char *line)
{
    if (strcmp(line, "quit\n") == 0)
        return false;
    if (strcmp(line, "time\n") == 0) {
        printf("probe: time %lu\n", read_clock());
    } else if (strcmp(line, "sleep\n") == 0) {
        usleep(1000);
        printf("probe: slept\n");
    } else if (strcmp(line, "begin\n") == 0) {
        next_stretch(probe);
        printf("probe: begun\n");
    } else if (strcmp(line, "end\n") == 0) {
        end_stretch(probe);
    } else {
        printf("probe: begin, end, time, sleep or quit\n");
    }
    return true;
}

// The timer's frequency, of which the device tree tells.
static uint64_t ticks_per_us(void)
{
    unsigned char bytes[4];
    FILE *file = fopen("/proc/device-tree/cpus/timebase-frequency", "rb");
    bool good = file && fread(bytes, sizeof(bytes), 1, file) == 1;

    if (file)
        fclose(file);
    return good ? (bytes[0] << 24 | bytes[1] << 16 | bytes[2] << 8 | bytes[3]) / 1000000u : 10;
}

static int start(struct probe *probe)
{
    sem_init(&probe->seen, 0, 0);
    probe->ticks_per_us = ticks_per_us();
    probe->hart_count = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
    if (probe->hart_count > HARTS_MAX)
        probe->hart_count = HARTS_MAX;
    for (unsigned i = 0; i < BOUNDS; i++)
        probe->bounds[i] = BOUNDS_US[i] * probe->ticks_per_us;
    for (unsigned i = 0; i < probe->hart_count; i++) {
        struct hart *hart = &probe->harts[i];
        hart->probe = probe;
        hart->number = i;
        hart->data = malloc(DATA_WORDS * sizeof(*hart->data));
        if (!hart->data)
            return -ENOMEM;
        memset(hart->data, 0x5a, DATA_WORDS * sizeof(*hart->data));
    }
    // No gap is to be the first touch of a page.
    if (mlockall(MCL_CURRENT | MCL_FUTURE))
        return -errno;
    for (unsigned i = 0; i < probe->hart_count; i++)
        if (pthread_create(&probe->harts[i].thread, NULL, watch, &probe->harts[i]))
            return -EAGAIN;
    // Commands are answered at once, whatever else runs.
    return sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){.sched_priority = 1}) ? -errno
                                                                                         : 0;
}

static void set_echo(bool on)
{
    struct termios terminal;

    if (tcgetattr(0, &terminal))
        return;
    terminal.c_lflag = on ? terminal.c_lflag | ECHO : terminal.c_lflag & ~(tcflag_t)ECHO;
    tcsetattr(0, TCSADRAIN, &terminal);
}

int main(void)
{
    static struct probe probe;
    char line[64];
    int rc = start(&probe);

    if (rc) {
        fprintf(stderr, "probe: cannot start: %s\n", strerror(-rc));
        return 1;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    set_echo(false);
    printf("probe: ready with %u harts\n", probe.hart_count);
    while (fgets(line, sizeof(line), stdin) && command(&probe, line))
        ;
    set_echo(true);
    atomic_store(&probe.quit, true);
    for (unsigned i = 0; i < probe.hart_count; i++)
        pthread_join(probe.harts[i].thread, NULL);
    return 0;
}
