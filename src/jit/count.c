// SPDX-License-Identifier: BSD-2-Clause
// Counting that costs time, for jit_options.count; without it none of this is in translated code or
// is called.
//
// Accesses that hit the TLB never leave translated code, so that must count them itself. It does so
// once a run of instructions that nothing leaves or enters, not once an access.
#include "jit/translator.h"

// ---- Accesses

static void add(struct jit_translator *t, const uint64_t *counter, unsigned count)
{
    if (!count)
        return;
    x64_mov_imm(&t->x64, X64_RAX, count);
    x64_rip(&t->x64, X64_ADD_TO, X64_RAX, counter);
}

void jit_count_flush(struct jit_translator *t)
{
    add(t, &t->jit->stats.loads, t->loads);
    add(t, &t->jit->stats.stores, t->stores);
    t->loads = t->stores = 0;
}

static void note(struct jit_translator *t, const struct isa_insn *insn)
{
    unsigned flags = isa_op_flags(insn->op);

    if (flags & ISA_STORE)
        t->stores++;
    else if (flags & ISA_LOAD)
        t->loads++;
}

static bool ends_run(const struct isa_insn *insn)
{
    return isa_op_flags(insn->op) & (ISA_BRANCH | ISA_JUMP | ISA_SYSTEM);
}

// One that follows and ends the run may become one with this.
void jit_count_access(struct jit_translator *t)
{
    while (t->noted < t->insns)
        note(t, &t->code[t->noted++]);
    if (ends_run(&t->insn) || (t->insns < t->count && ends_run(&t->code[t->insns])))
        jit_count_flush(t);
}

// ---- Calls and exits

static enum jit_call call_of(const struct isa_insn *insn)
{
    unsigned flags = isa_op_flags(insn->op);

    if (jit_is_csr(insn))
        return JIT_CALL_CSR;
    if (flags & ISA_ATOMIC)
        return JIT_CALL_ATOMIC;
    if (flags & ISA_LOAD)
        return JIT_CALL_LOAD;
    if (flags & ISA_STORE)
        return JIT_CALL_STORE;
    if (flags & ISA_FP)
        return JIT_CALL_FP;
    return flags & ISA_SYSTEM ? JIT_CALL_SYSTEM : JIT_CALL_OTHER;
}

bool jit_count_call(struct hart *hart, const struct jit_site *site)
{
    struct jit *jit = hart->engine_state;
    bool goes_on = site->helper(hart, site);

    jit->stats.calls[call_of(&site->insn)]++;
    jit->left_by_call = !goes_on;
    return goes_on;
}

static enum jit_exit exit_of(const struct hart *hart, const struct jit *jit,
                             const struct jit_link *left)
{
    if (left)
        return JIT_EXIT_UNLINKED;
    if (jit->left_by_call)
        return JIT_EXIT_CALL;
    return atomic_load_explicit(&hart->attention, memory_order_relaxed) ? JIT_EXIT_ENTRY
                                                                        : JIT_EXIT_JUMP;
}

void jit_count_exit(const struct hart *hart, struct jit *jit, const struct jit_link *left)
{
    jit->stats.exits[exit_of(hart, jit, left)]++;
    jit->left_by_call = false;
}
