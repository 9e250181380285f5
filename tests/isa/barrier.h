// SPDX-License-Identifier: BSD-2-Clause
// Where harts of a test program wait for each other.
#ifndef STRAKE_ISA_BARRIER_H
#define STRAKE_ISA_BARRIER_H

#include "firmware.h"

#define HARTS 4u

struct barrier {
    unsigned harts;  // that meet here
    uint32_t phase, arrived;
};

// Sleeps a little: the host may have fewer cores than there are harts, and whoever spins keeps
// the one that is waited for from running.
static inline void doze(void)
{
    uint64_t hart = csr_read(mhartid);

    *ACLINT_MTIMECMP(hart) = *ACLINT_MTIME + 300;
    csr_set(mie, BIT(IRQ_MTI));
    __asm__ volatile("wfi");
    csr_clear(mie, BIT(IRQ_MTI));
    *ACLINT_MTIMECMP(hart) = -1ull;
}

// M-mode, interrupts off.
static inline void meet(struct barrier *barrier)
{
    uint32_t phase = __atomic_load_n(&barrier->phase, __ATOMIC_SEQ_CST);

    __asm__ volatile("fence" ::: "memory");
    if (__atomic_add_fetch(&barrier->arrived, 1, __ATOMIC_SEQ_CST) == barrier->harts) {
        barrier->arrived = 0;
        __atomic_store_n(&barrier->phase, phase + 1, __ATOMIC_SEQ_CST);
    }
    for (unsigned tries = 0; __atomic_load_n(&barrier->phase, __ATOMIC_SEQ_CST) == phase; tries++)
        if (tries > 1000)
            doze();
}

#endif
