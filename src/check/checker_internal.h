// SPDX-License-Identifier: BSD-2-Clause
// What the files of the checker share.
#ifndef STRAKE_CHECK_CHECKER_INTERNAL_H
#define STRAKE_CHECK_CHECKER_INTERNAL_H

#include <pthread.h>
#include <signal.h>

#include "check/checker.h"
#include "check/takeover.h"

#define CHECKER_LIBRARIES_MAX 32
#define CHECKER_NULL_BYTES 65536u  // from 0 on: what a null pointer reaches, where nothing ever is

struct checker {
    struct checker_options options;
    struct checker_target target;
    struct hart_check hart_check;
    struct memory_identifiers identifiers;
    struct heap *heap;
    struct check_symbols *symbols;
    struct check_stacks *stacks;
    struct takeover *takeover;
    struct variables *variables;
    struct check_suppressions *suppressions;

    pthread_mutex_t lock;         // of the reports
    struct check_report *report;  // NULL: they have ended
    bool reported;
    sigset_t signals;  // the thread's mask, while reports are written
    bool alone;        // no other process has to do with it: what it lacks, nobody has

    // Code of libraries that are trusted with whole words, see checker_find.c. Only ever added to.
    struct checker_range_of_code {
        uint64_t gva, end;
        bool loader;
    } libraries[CHECKER_LIBRARIES_MAX];
    _Atomic unsigned library_count;
    pthread_mutex_t libraries_lock;

    struct heap_scan *scan;  // while roots are looked for
};

#define CHECKER_SAVED 12u  // registers that functions keep for their callers: s0 to s11

struct checker_thread {
    struct checker *checker;
    struct heap_thread *heap;
    struct check_unwinder *unwinder;
    unsigned number;
    uint32_t outermost;  // its stack within no call
    // What the caller of exit had, since it was called; exit_sp 0: it was not.
    uint64_t exit_sp, exit_saved[CHECKER_SAVED];
    uint64_t shown_pc;  // where a debugger was shown what was found; 0: the last time it was not
};

// Whether the address is in the zone of stacks, if there is one.
static inline bool checker_is_stack(const struct checker *checker, uint64_t gva)
{
    const struct checker_target *target = &checker->target;
    return gva - target->stacks < target->heap - target->stacks;
}

// The program's memory, for who follows its stacks.
struct check_memory checker_memory(struct checker *checker);

// ---- checker_find.c -----------------------------------------------------------------------------

bool checker_hook_access(void *opaque, struct hart *hart, uint64_t pointer, uint64_t bytes,
                         enum hart_access kind);
bool checker_hook_returns(void *opaque, struct hart *hart, uint64_t expected);
enum check_access checker_access_of(enum hart_access access);
// How many the instruction at pc accesses; 1: it is none that does.
uint64_t checker_access_bytes(struct checker *checker, uint64_t pc);
// Code of one of these, or only of the loader.
bool checker_is_library(struct checker *checker, uint64_t pc, bool loader);

// ---- checker_report.c ---------------------------------------------------------------------------

// The last of them. Under the lock.
void checker_report_close(struct checker *checker);
// Reports the finding, whose stack is made here. True: go on.
bool checker_tell(struct checker_thread *thread, struct hart *hart, struct check_finding *finding);
// What is said of memory that was wrong for this system call.
void checker_call_detail(const char *call, char *text, size_t capacity);
// As checker_found_heap; `call` is the system call that the memory was for, or NULL.
bool checker_found_by_call(struct checker_thread *thread, struct hart *hart, const char *call,
                           const struct heap_finding *heap, enum check_access access,
                           uint64_t pointer, uint64_t bytes);
// Under the lock: whether it is a new one, which was reported.
bool checker_report_add(struct checker_thread *thread, const struct check_finding *finding);
// An object as reports have it. `to->object` points into the rest.
struct checker_shown {
    struct check_object object;
    uint64_t allocated[CHECK_STACK_MAX], freed_by[CHECK_STACK_MAX];
};
void checker_show(const struct checker *checker, const struct heap_object *from,
                  struct checker_shown *to);

// ---- checker_leak.c -----------------------------------------------------------------------------

// Reports what is lost. Others are paused, and the lock is held.
void checker_leaks(struct checker_thread *thread);

#endif
