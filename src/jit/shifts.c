// SPDX-License-Identifier: BSD-2-Clause
// Shifts that are put off until somebody looks. Where there is no rotation, compiled code makes one
// of two shifts, whose results alone nobody needs: they become one host instruction, and the shifts
// none where their registers are overwritten before anybody read them.
//
// Which registers do not hold their values yet (struct jit_shifts) is known while a block is
// translated, and none at the block's ends: what leaves out of line computes there what is missing
// at that place (a stub has a copy), so that all is exact whenever anything but the block itself
// can see it. It is computed from what stays, so that the code that a stub returns to may go on
// taking it for missing.
#include "jit/translator.h"

#define LOOKAHEAD 16u

// ---- Computing what is missing

static void emit(struct jit_translator *t, const struct jit_shift *shift)
{
    int pin = pinned(t, shift->reg);
    unsigned host = pin >= 0 ? (unsigned)pin : X64_RAX;

    load_x(t, host, shift->from);
    x64_shift_imm(&t->x64, shift->left ? X64_SHL : X64_SHR, shift->width, host, shift->count);
    if (!shift->width)
        x64_rr(&t->x64, X64_MOVSXD, host, host);
    if (pin < 0)
        x64_rm(&t->x64, X64_STORE_64, host, X64_RBP, HART_X(shift->reg));
}

void jit_shifts_emit(struct jit_translator *t, const struct jit_shifts *shifts)
{
    for (unsigned i = 0; i < shifts->count; i++)
        emit(t, &shifts->shift[i]);
}

static void forget(struct jit_shifts *shifts, unsigned i)
{
    shifts->shift[i] = shifts->shift[--shifts->count];
}

void jit_shifts_settle(struct jit_translator *t, uint32_t regs)
{
    for (unsigned i = t->shifts.count; i-- > 0;)
        if (regs >> t->shifts.shift[i].reg & 1) {
            emit(t, &t->shifts.shift[i]);
            forget(&t->shifts, i);
        }
}

// ---- Rotations

static const struct jit_shift *find(const struct jit_translator *t, unsigned reg)
{
    for (unsigned i = 0; i < t->shifts.count; i++)
        if (t->shifts.shift[i].reg == reg)
            return &t->shifts.shift[i];
    return NULL;
}

bool jit_shifts_lack(const struct jit_translator *t, unsigned reg)
{
    return find(t, reg) != NULL;
}

// The bits of the two do not overlap, so all of these do the same with them.
static bool joins(const struct isa_insn *insn)
{
    return insn->op == ISA_OR || insn->op == ISA_XOR || insn->op == ISA_ADD;
}

const struct jit_shift *jit_shifts_rotation(const struct jit_translator *t)
{
    const struct jit_shift *a = find(t, t->insn.rs1), *b = find(t, t->insn.rs2);

    if (!joins(&t->insn) || !a || !b || a->from != b->from || a->left == b->left ||
        a->width != b->width || a->count + b->count != (a->width ? 64 : 32))
        return NULL;
    return a->left ? b : a;
}

static uint32_t sources(const struct isa_insn *insn)
{
    unsigned flags = isa_op_flags(insn->op);

    return (flags & ISA_RS1 ? 1u << insn->rs1 : 0) | (flags & ISA_RS2 ? 1u << insn->rs2 : 0);
}

static bool writes(const struct isa_insn *insn, unsigned reg)
{
    return isa_op_flags(insn->op) & ISA_RD && insn->rd == reg;
}

// Whether the first to read the result of `insn`, close by, joins it with something.
static bool is_joined(const struct jit_translator *t)
{
    for (unsigned i = t->insns; i < t->count && i < t->insns + LOOKAHEAD; i++) {
        if (sources(&t->code[i]) >> t->insn.rd & 1)
            return joins(&t->code[i]);
        if (writes(&t->code[i], t->insn.rd))
            return false;
    }
    return false;
}

bool jit_shifts_defer(struct jit_translator *t, bool left, unsigned width)
{
    const struct isa_insn *insn = &t->insn;

    if (insn->rd == insn->rs1 || insn->rs1 == 0 || insn->imm == 0 || !is_joined(t))
        return false;
    jit_shifts_overwrite(t);
    if (t->shifts.count == JIT_SHIFTS)
        return false;
    t->shifts.shift[t->shifts.count++] = (struct jit_shift){.reg = insn->rd,
                                                            .from = insn->rs1,
                                                            .count = (uint8_t)insn->imm,
                                                            .left = left,
                                                            .width = width};
    t->deferred = true;
    return true;
}

// ---- Around an instruction

void jit_shifts_look(struct jit_translator *t)
{
    const struct isa_insn *insn = &t->insn;
    uint32_t regs = jit_shifts_rotation(t) ? 0 : sources(insn);

    t->deferred = false;
    for (unsigned i = 0; i < t->shifts.count; i++)
        if (writes(insn, t->shifts.shift[i].from))
            regs |= 1u << t->shifts.shift[i].reg;
    if (isa_op_flags(insn->op) & (ISA_JUMP | ISA_SYSTEM) ||
        (isa_op_flags(insn->op) & ISA_BRANCH && t->offset + insn->imm == t->start))
        regs = UINT32_MAX;
    jit_shifts_settle(t, regs);
}

void jit_shifts_overwrite(struct jit_translator *t)
{
    for (unsigned i = t->shifts.count; i-- > 0;)
        if (!t->deferred && writes(&t->insn, t->shifts.shift[i].reg))
            forget(&t->shifts, i);
}
