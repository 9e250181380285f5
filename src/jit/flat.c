// SPDX-License-Identifier: BSD-2-Clause
// Flat address spaces: all of the guest's memory is one window that is never moved, and that others
// map. Code is named by its guest virtual address. What faults is done by hart/, which knows what
// the guest may do.
#include <asm/prctl.h>
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "jit/internal.h"

// Of a zone that ends there: what is above is not mapped.
static uint64_t limit_of(uint64_t end)
{
    return end < HART_FLAT_GUARD_BYTES ? 0 : end - HART_FLAT_GUARD_BYTES;
}

int jit_flat_create(struct jit *jit)
{
    int status = jit_faults_create(jit);

    if (status != 0)
        return status;
    jit->window_limits[HART_TLB_U] = HART_FLAT_BYTES;
    if (jit->check) {
        jit->window_limits[HART_TLB_U] = limit_of(jit->check->stacks);
        jit->stack_limit = limit_of(jit->check->heap);
    }
    jit->windowed = 1u << HART_TLB_U;
    return 0;
}

void jit_flat_enter(struct jit *jit)
{
    uintptr_t gs = (uintptr_t)jit->flat->hva;

    if (jit_faults_running() == jit)
        return;
    jit_faults_enter(jit);
    if (jit_has_fsgsbase())
        __asm__ volatile("wrgsbase %0" : : "r"(gs) : "memory");
    else
        syscall(SYS_arch_prctl, ARCH_SET_GS, gs);
}

// Where the parent's code cannot be kept, all starts anew. Thunks are again where they were in any
// case: a hook that forks returns through one.
int jit_flat_forked(struct hart *hart, void *state)
{
    struct jit *jit = state;
    bool kept = false;
    int status = jit_memory_part(jit, &kept);

    (void)hart;
    jit->perf_map = NULL;  // the parent's
    if (status != 0 || kept)
        return status;
    jit_cache_empty(jit);
    jit_thunks_emit(jit);
    return 0;
}
