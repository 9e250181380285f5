// SPDX-License-Identifier: BSD-2-Clause
// Entry to and return from traps, Privileged ISA 3.1.6 to 3.1.9, 3.3.2, 4.1.
#include "hart/internal.h"

bool hart_raise(struct hart *hart, uint64_t cause, uint64_t tval)
{
    hart->trap_cause = cause;
    hart->trap_tval = tval;
    return false;
}

static uint64_t bits(uint64_t value, uint64_t mask)
{
    return (value & mask) / (mask & -mask);
}

static uint64_t with_bits(uint64_t value, uint64_t mask, uint64_t field)
{
    return (value & ~mask) | field * (mask & -mask);
}

static uint64_t vector(uint64_t tvec, uint64_t cause)
{
    uint64_t base = tvec & ~3ull;

    if ((tvec & HART_MTVEC_VECTORED) && (cause & HART_CAUSE_INTERRUPT))
        return base + 4 * (cause & ~HART_CAUSE_INTERRUPT);
    return base;
}

static void enter_supervisor(struct hart *hart, uint64_t cause, uint64_t tval)
{
    uint64_t status = hart->mstatus;

    status = with_bits(status, HART_MSTATUS_SPIE, bits(status, HART_MSTATUS_SIE));
    status = with_bits(status, HART_MSTATUS_SPP, hart->privilege == HART_S);
    hart->mstatus = status & ~HART_MSTATUS_SIE;
    hart->sepc = hart->pc;
    hart->scause = cause;
    hart->stval = tval;
    hart->privilege = HART_S;
    hart->pc = vector(hart->stvec, cause);
}

static void enter_machine(struct hart *hart, uint64_t cause, uint64_t tval)
{
    uint64_t status = hart->mstatus;

    status = with_bits(status, HART_MSTATUS_MPIE, bits(status, HART_MSTATUS_MIE));
    status = with_bits(status, HART_MSTATUS_MPP, hart->privilege);
    hart->mstatus = status & ~HART_MSTATUS_MIE;
    hart->mepc = hart->pc;
    hart->mcause = cause;
    hart->mtval = tval;
    hart->privilege = HART_M;
    hart->pc = vector(hart->mtvec, cause);
}

static void enter(struct hart *hart, bool delegated, uint64_t cause, uint64_t tval)
{
    if (delegated && hart->privilege != HART_M)
        enter_supervisor(hart, cause, tval);
    else
        enter_machine(hart, cause, tval);
    hart_mmu_update(hart);
}

void hart_trap_pending(struct hart *hart)
{
    if (hart->trap_cause == HART_CAUSE_LEAVE)
        return;
    hart->traps++;
    hart->stats.exceptions[hart->trap_cause % HART_CAUSES]++;
    if (hart->flat)
        hart_flat_trap(hart);
    else
        enter(hart, hart->medeleg >> hart->trap_cause & 1, hart->trap_cause, hart->trap_tval);
}

void hart_trap_return(struct hart *hart, enum hart_privilege from)
{
    uint64_t status = hart->mstatus;

    if (from == HART_M) {
        hart->pc = hart->mepc;
        hart->privilege = bits(status, HART_MSTATUS_MPP);
        status = with_bits(status, HART_MSTATUS_MIE, bits(status, HART_MSTATUS_MPIE));
        status = with_bits(status, HART_MSTATUS_MPP, HART_U) | HART_MSTATUS_MPIE;
    } else {
        hart->pc = hart->sepc;
        hart->privilege = bits(status, HART_MSTATUS_SPP);
        status = with_bits(status, HART_MSTATUS_SIE, bits(status, HART_MSTATUS_SPIE));
        status = with_bits(status, HART_MSTATUS_SPP, HART_U) | HART_MSTATUS_SPIE;
    }
    if (hart->privilege != HART_M)
        status &= ~HART_MSTATUS_MPRV;
    hart->mstatus = status;
    hart_mmu_update(hart);
    hart_interrupt_recheck(hart);
}

// mip as software sees it, given which timers are due. With Sstc, STIP is the timer's alone.
static uint64_t mip(const struct hart *hart, uint64_t timers)
{
    uint64_t software = atomic_load(&hart->mip_software);

    if (hart->menvcfg & HART_ENVCFG_STCE)
        software &= ~(uint64_t)HART_IRQ_STIP;
    return atomic_load(&hart->mip_lines) | software | timers;
}

uint64_t hart_mip(const struct hart *hart)
{
    uint64_t now = hart_time(hart), timers = 0;

    if (now >= atomic_load(&hart->mtimecmp))
        timers |= HART_IRQ_MTIP;
    if ((hart->menvcfg & HART_ENVCFG_STCE) && now >= hart->stimecmp)
        timers |= HART_IRQ_STIP;
    return mip(hart, timers);
}

uint64_t hart_interrupt_pending(const struct hart *hart)
{
    return mip(hart, hart->timer_pending) & hart->mie;
}

// Of the pending interrupts, those that can be taken now: all that go to M-mode before any that
// goes to S-mode.
static uint64_t takeable(const struct hart *hart)
{
    uint64_t pending = hart_interrupt_pending(hart);
    uint64_t machine = pending & ~hart->mideleg, supervisor = pending & hart->mideleg;

    if (machine && (hart->privilege < HART_M || (hart->mstatus & HART_MSTATUS_MIE)))
        return machine;
    if (hart->privilege < HART_S ||
        (hart->privilege == HART_S && (hart->mstatus & HART_MSTATUS_SIE)))
        return supervisor;
    return 0;
}

void hart_interrupt_recheck(struct hart *hart)
{
    if (takeable(hart))
        hart_notice(hart, HART_ATTENTION_IRQ);
}

void hart_interrupt_take(struct hart *hart)
{
    // MEI, MSI, MTI, SEI, SSI, STI: Privileged ISA 3.1.9.
    static const uint8_t by_priority[] = {11, 3, 7, 9, 1, 5};
    uint64_t now = takeable(hart);

    for (unsigned i = 0; now && i < BASE_COUNT_OF(by_priority); i++) {
        uint64_t code = by_priority[i];
        if (now >> code & 1) {
            hart->stats.interrupts[code % HART_CAUSES]++;
            enter(hart, hart->mideleg >> code & 1, HART_CAUSE_INTERRUPT | code, 0);
            return;
        }
    }
}
