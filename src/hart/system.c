// SPDX-License-Identifier: BSD-2-Clause
// The SYSTEM instructions that are no CSR accesses, and fence.i.
#include <sched.h>

#include "hart/internal.h"

static bool illegal(struct hart *hart, const struct isa_insn *insn)
{
    return hart_raise(hart, HART_CAUSE_ILLEGAL, insn->raw);
}

static bool done(struct hart *hart, const struct isa_insn *insn)
{
    hart->pc += insn->length;
    return true;
}

static bool ecall(struct hart *hart, const struct isa_insn *insn)
{
    if (hart->privilege != HART_U && hart->host.call && hart->host.call(hart->host.opaque, hart))
        return done(hart, insn);
    if (hart->privilege != HART_S || !hart->host.sbi)
        return hart_raise(hart, HART_CAUSE_ECALL_U + hart->privilege, 0);
    done(hart, insn);
    hart->stats.sbi_calls++;
    hart->host.sbi(hart->host.opaque, hart);
    return true;
}

static bool trap_return(struct hart *hart, const struct isa_insn *insn, enum hart_privilege from)
{
    if (hart->privilege < from ||
        (from == HART_S && hart->privilege == HART_S && (hart->mstatus & HART_MSTATUS_TSR)))
        return illegal(hart, insn);
    hart_trap_return(hart, from);
    return true;
}

// TW and U-mode trap at once: the time limit of Privileged ISA 3.1.6.5 and 3.3.3 may be zero.
static bool wfi(struct hart *hart, const struct isa_insn *insn)
{
    if (hart->privilege == HART_U ||
        (hart->privilege == HART_S && (hart->mstatus & HART_MSTATUS_TW)))
        return illegal(hart, insn);
    done(hart, insn);
    hart_wait(hart);
    return true;
}

// Zawrs allows the stall to end for any reason: giving the processor away once is enough, and makes
// the stall bounded, so that mstatus.TW does not apply. Whoever is to store to the reserved word
// may be waiting for this very processor.
static bool wait_on_reservation(struct hart *hart, const struct isa_insn *insn)
{
    if (hart->reservation_gpa != HART_NO_RESERVATION && !hart_interrupt_pending(hart))
        sched_yield();
    return done(hart, insn);
}

// sfence.vma and sinval.vma, Privileged ISA 4.2.1.
static bool fence_translation(struct hart *hart, const struct isa_insn *insn)
{
    uint64_t asid = insn->rs2 ? hart->x[insn->rs2] & HART_SATP_ASID_MASK : HART_ANY_ASID;

    if (hart->privilege == HART_U ||
        (hart->privilege == HART_S && (hart->mstatus & HART_MSTATUS_TVM)))
        return illegal(hart, insn);
    if (insn->rs1)
        hart_mmu_flush_page(hart, hart->x[insn->rs1], asid);
    else if (insn->rs2)
        hart_mmu_flush_asid(hart, asid);
    else
        hart_mmu_flush(hart);
    return done(hart, insn);
}

bool hart_system(struct hart *hart, const struct isa_insn *insn)
{
    if (hart->tap && hart->tap->system)
        return hart->tap->system(hart, insn);
    switch (insn->op) {
    case ISA_ECALL:
        return ecall(hart, insn);
    case ISA_EBREAK:
        return hart_raise(hart, HART_CAUSE_BREAKPOINT, hart->pc);
    case ISA_MRET:
        return trap_return(hart, insn, HART_M);
    case ISA_SRET:
        return trap_return(hart, insn, HART_S);
    case ISA_WFI:
        return wfi(hart, insn);
    case ISA_WRS_NTO:
    case ISA_WRS_STO:
        return wait_on_reservation(hart, insn);
    case ISA_SFENCE_VMA:
    case ISA_SINVAL_VMA:
        return fence_translation(hart, insn);
    case ISA_SFENCE_W_INVAL:
    case ISA_SFENCE_INVAL_IR:
        // sinval.vma did the work already; TVM does not apply to these two.
        return hart->privilege == HART_U ? illegal(hart, insn) : done(hart, insn);
    case ISA_FENCE_I:
        hart->engine->fence_i(hart, hart->engine_state);
        return done(hart, insn);
    default:
        return illegal(hart, insn);
    }
}
