// SPDX-License-Identifier: BSD-2-Clause
// What a block of a flat hart knows of its registers: what its code has compared, so that it need
// not be compared again until the register changes; and, as a guess, what they hold, from what they
// held when the block was translated. Nothing is believed that was guessed.
//
// Code that finds a register to be other than the rest of the block relies on leaves the block, or
// is of no consequence: the hart's own faults, see access.c.
#include "jit/translator.h"

// How far a register may move from what was compared, so that with an immediate added it stays
// within the guards.
#define DRIFT_MAX ((int32_t)HART_FLAT_GUARD_BYTES / 2)

static bool is_below(const struct jit_translator *t, uint64_t value)
{
    return value < t->jit->window_limits[HART_TLB_U];
}

// ---- Guesses

static uint64_t guess_loaded(const struct jit_translator *t, const struct isa_insn *insn,
                             uint64_t address, bool *known)
{
    uint64_t value = 0;
    unsigned bytes = insn->op == ISA_LD ? 8 : 4;

    *known = hart_flat_peek(t->hart, memory_pointer_gva(address), &value, bytes);
    return insn->op == ISA_LW ? (uint64_t)(int32_t)value : value;
}

static uint64_t guess(const struct jit_translator *t, const struct isa_insn *insn, bool *known)
{
    const struct jit_fact *a = &t->facts[insn->rs1], *b = &t->facts[insn->rs2];
    uint64_t imm = (uint64_t)(int64_t)insn->imm;
    uint64_t pc = jit_page_of(t) + (uint64_t)t->offset;

    *known = a->guessed;
    switch (insn->op) {
    case ISA_ADDI:
        return a->guess + imm;
    case ISA_ADDIW:
        return (uint64_t)(int32_t)(a->guess + imm);
    case ISA_ANDI:
        return a->guess & imm;
    case ISA_SLLI:
        return a->guess << (imm & 63);
    case ISA_SRLI:
        return a->guess >> (imm & 63);
    case ISA_LUI:
        *known = true;
        return imm;
    case ISA_AUIPC:
        *known = true;
        return pc + imm;
    case ISA_LD:
    case ISA_LW:
    case ISA_LWU:
        return a->guessed ? guess_loaded(t, insn, a->guess + imm, known) : 0;
    default:
        break;
    }
    *known = a->guessed && b->guessed;
    switch (insn->op) {
    case ISA_ADD:
        return a->guess + b->guess;
    case ISA_SUB:
        return a->guess - b->guess;
    case ISA_SH1ADD:
        return (a->guess << 1) + b->guess;
    case ISA_SH2ADD:
        return (a->guess << 2) + b->guess;
    case ISA_SH3ADD:
        return (a->guess << 3) + b->guess;
    default:
        *known = false;
        return 0;
    }
}

// ---- Facts

void jit_facts_begin(struct jit_translator *t)
{
    for (unsigned reg = 0; reg < 32; reg++)
        t->facts[reg] = (struct jit_fact){.guessed = true, .guess = t->hart->x[reg], .aligned = 1};
}

static bool moves(int64_t drift)
{
    return drift <= DRIFT_MAX && drift >= -DRIFT_MAX;
}

// What is known of a sum with an immediate.
static struct jit_fact moved(const struct jit_fact *from, int32_t imm)
{
    struct jit_fact fact = *from;
    int32_t drift = from->drift + (imm < 0 ? -imm : imm);

    if (!moves(drift))
        return (struct jit_fact){.aligned = 1};
    fact.drift = drift;
    fact.lowest -= imm;
    fact.rest -= imm;
    return fact;
}

static void forget_checked(struct jit_translator *t, unsigned reg, const struct isa_insn *moved_by)
{
    for (unsigned i = 0; i < JIT_CHECKED; i++) {
        struct jit_checked *checked = &t->checked[i];
        if (checked->reg != reg)
            continue;
        if (moved_by && moves((int64_t)checked->imm - moved_by->imm))
            checked->imm -= moved_by->imm;
        else
            checked->reg = 0;
    }
}

// Also what was looked up may have been of a frame that is dead now.
static void forget_stacks(struct jit_translator *t)
{
    for (unsigned reg = 0; reg < 32; reg++)
        t->facts[reg].on_stack = false;
    for (unsigned i = 0; i < JIT_CHECKED; i++)
        t->checked[i].reg = 0;
}

void jit_facts_step(struct jit_translator *t, const struct isa_insn *insn)
{
    unsigned flags = isa_op_flags(insn->op);
    struct jit_fact fact = {.aligned = 1};
    bool known;
    uint64_t value;

    if (!(flags & ISA_RD) || insn->rd == 0)
        return;
    value = guess(t, insn, &known);
    if (insn->op == ISA_ADDI)
        fact = moved(&t->facts[insn->rs1], insn->imm);
    else if ((insn->op == ISA_LUI || insn->op == ISA_AUIPC) && is_below(t, value))
        fact.below = true;
    fact.guessed = known;
    fact.guess = value;
    forget_checked(t, insn->rd, insn->op == ISA_ADDI && insn->rs1 == insn->rd ? insn : NULL);
    if (insn->rd == HART_SP) {
        forget_stacks(t);
        fact.lowest = 0;
    }
    t->facts[insn->rd] = fact;
}

void jit_facts_below(struct jit_translator *t, unsigned reg)
{
    t->facts[reg].below = true;
    t->facts[reg].on_stack = false;
    t->facts[reg].drift = 0;
}

void jit_facts_on_stack(struct jit_translator *t, unsigned reg, int imm)
{
    t->facts[reg].below = false;
    t->facts[reg].on_stack = true;
    t->facts[reg].drift = 0;
    t->facts[reg].lowest = imm;
}

void jit_facts_aligned(struct jit_translator *t, unsigned reg, int imm, unsigned width_bytes)
{
    t->facts[reg].aligned = (uint8_t)width_bytes;
    t->facts[reg].rest = imm;
}

bool jit_facts_is_aligned(const struct jit_translator *t, unsigned reg, int imm,
                          unsigned width_bytes)
{
    const struct jit_fact *fact = &t->facts[reg];

    return fact->aligned >= width_bytes && (uint32_t)(imm - fact->rest) % width_bytes == 0;
}

void jit_facts_checked(struct jit_translator *t, unsigned reg, int imm, unsigned width_bytes)
{
    t->checked[t->checked_next++ % JIT_CHECKED] =
        (struct jit_checked){.reg = (uint8_t)reg, .width_bytes = (uint8_t)width_bytes, .imm = imm};
}

bool jit_facts_is_checked(const struct jit_translator *t, unsigned reg, int imm,
                          unsigned width_bytes)
{
    for (unsigned i = 0; i < JIT_CHECKED; i++) {
        const struct jit_checked *checked = &t->checked[i];
        if (checked->reg == reg && reg && imm >= checked->imm &&
            imm + (int)width_bytes <= checked->imm + checked->width_bytes)
            return true;
    }
    return false;
}

enum jit_sort jit_facts_sort(const struct jit_translator *t, unsigned reg, int imm)
{
    const struct jit_fact *fact = &t->facts[reg];

    if (reg == 0 || fact->below)
        return reg == 0 && imm < 0 ? JIT_TAGGED : JIT_KNOWN;
    if (!t->jit->check)
        return JIT_PLAIN;
    if (fact->on_stack && imm >= fact->lowest)
        return JIT_KNOWN;
    if (jit_is_mixed(t->jit, jit_page_of(t) + (uint64_t)t->offset))
        return JIT_TAGGED;
    if (reg == HART_SP)
        return imm < 0 ? JIT_TAGGED : JIT_STACK;
    if (!fact->guessed || fact->guess >= t->jit->stack_limit)
        return JIT_TAGGED;
    return is_below(t, fact->guess) ? JIT_PLAIN : JIT_STACK;
}
