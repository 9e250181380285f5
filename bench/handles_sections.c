// SPDX-License-Identifier: BSD-2-Clause
// What a read section costs in each flavour of liburcu, and as handle_read_lock and
// handle_read_unlock give it to programs; and how long a grace period takes. bench/handles.py runs
// it beside bench/handles.c and reads what it prints: one JSON object a line.
//
// usage: handles_sections RUNS MILLISECONDS
//
// A section is opened and closed with nothing in it. `qsbr` has no sections: in its place a thread
// says that it holds nothing, once for each. A grace period is waited for while another thread
// opens and closes sections on another processor (where there is one). Figures are the best of
// RUNS.
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define _LGPL_SOURCE
#include <urcu/urcu-bp.h>
#include <urcu/urcu-mb.h>
#include <urcu/urcu-memb.h>
#include <urcu/urcu-qsbr.h>

#include "handle/handle.h"

#define CHUNK 1000  // sections between two looks at the clock

static void nothing(void)
{
}

// The loops are made for each flavour, so that what may be inlined into a program is inlined there.
struct flavour {
    const char *name;
    void (*sections)(void);
    void (*synchronize)(void);
    void (*thread_register)(void);
    void (*thread_unregister)(void);
    void (*offline)(void);  // where a thread that waits for a grace period must not be in its way
    void (*online)(void);
};

#define SECTIONS(flavour, lock, unlock)                                                            \
    static void flavour##_sections(void)                                                           \
    {                                                                                              \
        for (unsigned i = 0; i < CHUNK; i++) {                                                     \
            lock();                                                                                \
            __asm__ volatile("" ::: "memory");                                                     \
            unlock();                                                                              \
        }                                                                                          \
    }
SECTIONS(handle, handle_read_lock, handle_read_unlock)
SECTIONS(bp, urcu_bp_read_lock, urcu_bp_read_unlock)
SECTIONS(memb, urcu_memb_read_lock, urcu_memb_read_unlock)
SECTIONS(mb, urcu_mb_read_lock, urcu_mb_read_unlock)
SECTIONS(qsbr, urcu_qsbr_read_lock, urcu_qsbr_quiescent_state)

static const struct flavour flavours[] = {
    {"handle", handle_sections, handle_synchronize, nothing, nothing, nothing, nothing},
    {"bp", bp_sections, urcu_bp_synchronize_rcu, nothing, nothing, nothing, nothing},
    {"memb", memb_sections, urcu_memb_synchronize_rcu, urcu_memb_register_thread,
     urcu_memb_unregister_thread, nothing, nothing},
    {"mb", mb_sections, urcu_mb_synchronize_rcu, urcu_mb_register_thread, urcu_mb_unregister_thread,
     nothing, nothing},
    {"qsbr", qsbr_sections, urcu_qsbr_synchronize_rcu, urcu_qsbr_register_thread,
     urcu_qsbr_unregister_thread, urcu_qsbr_thread_offline, urcu_qsbr_thread_online},
};

static double now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static void pin(unsigned cpu)
{
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(cpu, &cpus);
    sched_setaffinity(0, sizeof(cpus), &cpus);
}

// The shortest time of one call of `function` that takes `milliseconds` of calls to find.
static double best_of(void (*function)(void), double milliseconds)
{
    double begin = now_ns(), best = 1e12;
    while (now_ns() - begin < milliseconds * 1e6) {
        double call = now_ns();
        function();
        call = now_ns() - call;
        best = call < best ? call : best;
    }
    return best;
}

struct company {
    const struct flavour *flavour;
    pthread_barrier_t start;
    bool stop;
};

static void *company_run(void *opaque)
{
    struct company *company = opaque;
    pin(sysconf(_SC_NPROCESSORS_ONLN) > 1);
    company->flavour->thread_register();
    pthread_barrier_wait(&company->start);
    while (!__atomic_load_n(&company->stop, __ATOMIC_RELAXED))
        company->flavour->sections();
    company->flavour->thread_unregister();
    return NULL;
}

static double measure_grace(const struct flavour *flavour, double milliseconds)
{
    struct company company = {.flavour = flavour};
    pthread_t other;
    pthread_barrier_init(&company.start, NULL, 2);
    if (pthread_create(&other, NULL, company_run, &company))
        exit(1);
    pthread_barrier_wait(&company.start);
    double total = 0, begin = now_ns(), end = begin;
    flavour->offline();
    while (end - begin < milliseconds * 1e6) {
        flavour->synchronize();
        end = now_ns();
        total++;
    }
    flavour->online();
    __atomic_store_n(&company.stop, true, __ATOMIC_RELAXED);
    pthread_join(other, NULL);
    pthread_barrier_destroy(&company.start);
    return (end - begin) / total;
}

static void measure(const struct flavour *flavour, unsigned runs, double milliseconds)
{
    double section = 1e12, grace = 1e12;
    flavour->thread_register();
    for (unsigned run = 0; run < runs; run++) {
        double once = best_of(flavour->sections, milliseconds) / CHUNK;
        section = once < section ? once : section;
        once = measure_grace(flavour, milliseconds);
        grace = once < grace ? once : grace;
    }
    flavour->thread_unregister();
    printf("{\"flavour\": \"%s\", \"section_ns\": %.2f, \"grace_us\": %.1f}\n", flavour->name,
           section, grace / 1e3);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: handles_sections RUNS MILLISECONDS\n");
        return 1;
    }
    pin(0);
    for (unsigned i = 0; i < sizeof(flavours) / sizeof(flavours[0]); i++)
        measure(&flavours[i], (unsigned)atoi(argv[1]), atof(argv[2]));
    return 0;
}
