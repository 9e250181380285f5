// SPDX-License-Identifier: BSD-2-Clause
// f[] is stored late, and results are made canonical late: most are overwritten before anything but
// the block itself can see them.
//
// What is late (struct jit_late) is known while a block is translated, and nothing is at its ends:
// what leaves out of line does there what is to be done at that place (a stub has a copy). A
// register whose xmm register is the newer one may be stored at any time, so the code that a stub
// returns to may go on taking it for late.
//
// A NaN that the host computed is quiet: instructions that compute with it raise what they would
// with the canonical one, and give a NaN again. So it is looked at where its bits matter: where
// it is stored, moved, or given another sign, and not if it is overwritten before. What a helper
// is called for looks out of line.
//
// A block that loops back to its start stores nothing on the way: there, all that it writes is late
// (t->carried), and the entry sees to it that the xmm registers hold f[] by then.
#include "jit/translator.h"

#define CHECKS_MAX 4  // at a time; each makes stubs longer

#define ALL_DOUBLE 0x7ff8000000000000
#define ALL_SINGLE 0xffffffff7fc00000

static unsigned host_of(unsigned reg)
{
    return (unsigned)jit_pinned_f(reg);
}

static void compare_with_itself(struct jit_translator *t, bool single, unsigned host)
{
    x64_vex(&t->x64, single ? X64_VUCOMISS : X64_VUCOMISD, host, 0, host);
}

void jit_late_canonical(struct jit_translator *t, bool single, unsigned host)
{
    struct jit_stub *stub;

    compare_with_itself(t, single, host);
    stub = jit_stub_add(t, JIT_STUB_XMM, x64_jcc_forward(&t->x64, X64_C_P));
    stub->xmm = host;
    stub->value = single ? ALL_SINGLE : ALL_DOUBLE;
    stub->resume = x64_here(&t->x64);
}

void jit_late_written(struct jit_translator *t, unsigned reg)
{
    const uint32_t bit = 1u << reg;

    t->late.stores |= bit;
    t->late.checks &= ~bit;
    t->late.singles &= ~bit;
}

bool jit_late_may_defer(const struct jit_translator *t, unsigned reg)
{
    return jit_pinned_f(reg) >= 0 && __builtin_popcount(t->late.checks & ~(1u << reg)) < CHECKS_MAX;
}

void jit_late_unchecked(struct jit_translator *t, unsigned reg, bool single)
{
    t->late.checks |= 1u << reg;
    t->late.singles |= (uint32_t)single << reg;
}

void jit_late_check(struct jit_translator *t, uint32_t regs)
{
    for (regs &= t->late.checks; regs; regs &= regs - 1) {
        unsigned reg = (unsigned)__builtin_ctz(regs);

        jit_late_canonical(t, t->late.singles >> reg & 1, host_of(reg));
        t->late.checks &= ~(1u << reg);
    }
}

static void store(struct jit_translator *t, uint32_t regs)
{
    for (; regs; regs &= regs - 1) {
        unsigned reg = (unsigned)__builtin_ctz(regs);

        x64_vex_rm(&t->x64, X64_VMOV_STORE | X64_SD, host_of(reg), 0, X64_RBP, HART_F(reg));
    }
}

void jit_late_settle(struct jit_translator *t)
{
    jit_late_check(t, UINT32_MAX);
    store(t, t->late.stores);
    t->late.stores = 0;
}

// ---- Out of line

void jit_late_emit_checks(struct jit_translator *t, const struct jit_late *late)
{
    for (uint32_t regs = late->checks; regs; regs &= regs - 1) {
        unsigned reg = (unsigned)__builtin_ctz(regs);
        bool single = late->singles >> reg & 1;
        uint8_t *fine;

        compare_with_itself(t, single, host_of(reg));
        fine = x64_jcc_forward(&t->x64, X64_C_NP);
        x64_mov_imm(&t->x64, X64_RAX, single ? ALL_SINGLE : ALL_DOUBLE);
        x64_rr(&t->x64, X64_MOVQ_TO_XMM, host_of(reg), X64_RAX);
        x64_bind(&t->x64, fine);
    }
}

void jit_late_emit(struct jit_translator *t, const struct jit_late *late)
{
    jit_late_emit_checks(t, late);
    store(t, late->stores);
}

// ---- Loops

// Where control goes if `insn`, so far from the block's start, is taken.
static bool leads_to_start(const struct jit_translator *t, const struct isa_insn *insn,
                           int from_start)
{
    bool jumps = isa_op_flags(insn->op) & ISA_BRANCH || insn->op == ISA_JAL;

    return jumps && jit_goes_again(t, t->start + from_start + insn->imm);
}

// Of instructions that a turn surely executes the first that writes f[] comes before any branch:
// where FS is not Dirty the interpreter does one instruction of a turn, and the loop is not entered
// before that one is done.
static bool surely_writes_f(const struct jit_translator *t, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        unsigned flags = isa_op_flags(t->code[i].op);

        if (flags & (ISA_BRANCH | ISA_JUMP))
            return false;
        if (flags & ISA_FRD)
            return true;
    }
    return false;
}

void jit_late_choose(struct jit_translator *t)
{
    uint32_t written = 0, carried = 0;
    unsigned turn = 0;
    int from_start = 0;

    if (!(t->jit->cpu & JIT_CPU_FMA))
        return;
    for (unsigned i = 0; i < t->count; i++) {
        const struct isa_insn *insn = &t->code[i];

        if (jit_is_csr(insn))
            break;
        if (isa_op_flags(insn->op) & ISA_FRD && jit_pinned_f(insn->rd) >= 0)
            written |= 1u << insn->rd;
        if (leads_to_start(t, insn, from_start)) {
            carried = written;
            turn = i + 1;
        }
        from_start += insn->length;
    }
    if (surely_writes_f(t, turn))
        t->carried = carried;
}

void jit_late_enter(struct jit_translator *t)
{
    if (!t->carried)
        return;
    t->insn = t->code[0];
    t->offset = t->start;
    t->insns = 1;
    jit_enter_fp_ready(t);
    t->insns = 0;
    t->late.stores = t->carried;
}

void jit_late_again(struct jit_translator *t)
{
    jit_late_check(t, UINT32_MAX);
    store(t, t->late.stores & ~t->carried);
    t->late.stores &= t->carried;
}

void jit_late_leave(struct jit_translator *t)
{
    store(t, t->carried);
}
