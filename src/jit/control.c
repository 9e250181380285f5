// SPDX-License-Identifier: BSD-2-Clause
// Translation of what decides where execution goes on: leaving a block, branches, jumps; fences.
#include "jit/translator.h"

// ---- Leaving a block

void jit_count_insns(struct jit_translator *t)
{
    if (t->insns != t->counted)
        x64_alu_imm(&t->x64, X64_I_ADD, W, JIT_INSTRET, (int32_t)(t->insns - t->counted));
    t->counted = t->insns;
}

static_assert(JIT_JUMPS == 0x8000, "the low 16 bits of a pc are twice its index");

// Bit 0 is to be ignored: no entry is found for an odd one, also not where the probe then reads,
// astride an entry's halves, since code is aligned.
void jit_jump_to_rax(struct jit_translator *t)
{
    struct x64 *x64 = &t->x64;

    jit_map_leave(t);
    x64_rr(x64, X64_MOVZX_16, X64_RCX, X64_RAX);
    x64_rip(x64, X64_MOV | W, X64_RDX, &t->jit->jumps);
    x64_lea_scaled(x64, X64_RCX, X64_RDX, X64_RCX, sizeof(struct jit_jump) / 2);
    x64_rm(x64, X64_CMP | W, X64_RAX, X64_RCX, offsetof(struct jit_jump, pc));
    x64_jcc(x64, X64_C_NE, t->jit->thunks.leave_to);
    x64_alu_imm(x64, X64_I_AND, W, X64_RAX, -(int)MEMORY_PAGE_BYTES);
    x64_rm(x64, X64_STORE_64, X64_RAX, X64_RBP, HART_FIELD(pc));
    x64_jmp_mem(x64, X64_RCX, offsetof(struct jit_jump, entry));
}

void jit_leave_at(struct jit_translator *t, int from_page)
{
    if (from_page)
        x64_alu_mem_imm(&t->x64, X64_I_ADD, W, X64_RBP, HART_FIELD(pc), from_page);
    x64_jmp(&t->x64, t->jit->thunks.leave);
}

static bool is_far(int from_page)
{
    return from_page < 0 || from_page >= (int)MEMORY_PAGE_BYTES;
}

// The last two bytes of a page may be half an instruction, whose block depends on the next page
// too: no link leads there, and none is made in such a block, since hart->pc tells its first page.
// Only in a flat address space is it known what another page is.
static bool linkable(const struct jit_translator *t, int from_page)
{
    const unsigned page_bytes = MEMORY_PAGE_BYTES;

    return (!is_far(from_page) || t->jit->flat) &&
           JIT_PAGE_OFFSET((unsigned)from_page) < page_bytes - 2 &&
           !(t->block->gpa & JIT_STRADDLES);
}

// hart->pc = the page that is `from_page` bytes from the start of the block's.
static void store_page(struct jit_translator *t, int from_page)
{
    uint64_t gva = jit_page_of(t) + (uint64_t)(int64_t)from_page;

    x64_mov_imm(&t->x64, X64_RAX, gva - JIT_PAGE_OFFSET(gva));
    x64_rm(&t->x64, X64_STORE_64, X64_RAX, X64_RBP, HART_FIELD(pc));
}

bool jit_goes_again(const struct jit_translator *t, int from_page)
{
    return from_page == t->start && linkable(t, from_page) && !t->jit->alone;
}

// Makes the jump whose displacement is at `place` go on `from_page` bytes from the page's start.
static void lead_to(struct jit_translator *t, uint8_t *place, int from_page)
{
    if (place && jit_goes_again(t, from_page))
        x64_patch(place, t->x64.exec_offset, t->again);
    else
        jit_stub_add(t, JIT_STUB_EXIT, place)->target = from_page;
}

static void exit_far(struct jit_translator *t, int from_page)
{
    load_pc(t, X64_RAX, from_page);
    jit_jump_to_rax(t);
}

void jit_exit_stub(struct jit_translator *t, const struct jit_stub *stub)
{
    uint8_t *place = stub->place;
    bool far = is_far(stub->target);
    struct jit_link *link;

    jit_shifts_emit(t, &stub->shifts);
    jit_late_emit(t, &stub->late);
    if (!linkable(t, stub->target)) {
        exit_far(t, stub->target);
        return;
    }
    // Where something is to be computed or exchanged first, that stays on the way.
    jit_map_leave(t);
    if (far)
        store_page(t, stub->target);
    if (t->map || stub->shifts.count || stub->late.stores || far)
        place = x64_jmp_forward(&t->x64);
    link = jit_arena_take(t, sizeof(*link));
    *link = (struct jit_link){.place = place,
                              .unlinked = x64_here(&t->x64),
                              .backward = far || stub->target <= stub->offset};
    x64_rip(&t->x64, X64_LEA | W, X64_RAX, link);
    jit_leave_at(t, (int)JIT_PAGE_OFFSET((unsigned)stub->target));
}

void jit_exit_to(struct jit_translator *t, int from_page)
{
    if (jit_goes_again(t, from_page))
        jit_late_again(t);
    else
        jit_late_settle(t);
    if (linkable(t, from_page))
        lead_to(t, x64_jmp_forward(&t->x64), from_page);
    else
        exit_far(t, from_page);
}

// ---- Control

// A comparison with the operands' order kept; x0 on the right needs no operand.
static void compare(struct jit_translator *t)
{
    unsigned left = source(t, t->insn.rs1, X64_RAX);

    if (t->insn.rs2 == 0)
        x64_rr(&t->x64, X64_TEST | W, left, left);
    else
        op_x(t, X64_CMP | W, left, t->insn.rs2);
}

static void branch(struct jit_translator *t, enum x64_condition condition)
{
    int target = t->offset + t->insn.imm;

    if (jit_repeats(t)) {
        target = t->offset + t->insn.length;
        condition ^= 1;  // the opposite
    }
    jit_count_insns(t);
    if (jit_goes_again(t, target))
        jit_late_again(t);
    compare(t);
    lead_to(t, x64_jcc_forward(&t->x64, condition), target);
}

static void link_register(struct jit_translator *t)
{
    if (t->insn.rd == 0)
        return;
    load_pc(t, X64_RCX, t->offset + t->insn.length);
    finish(t, X64_RCX);
    if (t->jit->check && hart_check_is_call(&t->insn))
        jit_check_call(t);
}

static void jump(struct jit_translator *t)
{
    if (t->jit->check)
        jit_shifts_settle(t, 1u << HART_SP);
    link_register(t);
    jit_count_insns(t);
    jit_exit_to(t, t->offset + t->insn.imm);
}

static void jump_register(struct jit_translator *t)
{
    jit_late_settle(t);
    if (t->jit->check)
        jit_shifts_settle(t, 1u << HART_SP);
    if (t->jit->check && hart_check_is_return(&t->insn))
        jit_check_return(t);
    x64_rm(&t->x64, X64_LEA | W, X64_RAX, source(t, t->insn.rs1, X64_RAX), t->insn.imm);
    link_register(t);
    jit_count_insns(t);
    jit_jump_to_rax(t);
}

// Of the store-before-load orderings that a fence may ask for, x86 gives none and gives all others
// for free (Unprivileged ISA 2.7 and appendix A.5). fence.tso does not ask for it.
static void fence(struct jit_translator *t)
{
    const unsigned input = 8, output = 4, read = 2, write = 1, tso = 8;
    unsigned before = (unsigned)t->insn.imm >> 4, after = (unsigned)t->insn.imm & 15;

    if (t->insn.rm != tso && (before & (output | write)) && (after & (input | read)))
        x64_full_fence(&t->x64);
}

// clang-format off
bool jit_translate_control(struct jit_translator *t)
{
    switch (t->insn.op) {
    case ISA_BEQ: branch(t, X64_C_E); break;
    case ISA_BNE: branch(t, X64_C_NE); break;
    case ISA_BLT: branch(t, X64_C_L); break;
    case ISA_BGE: branch(t, X64_C_GE); break;
    case ISA_BLTU: branch(t, X64_C_B); break;
    case ISA_BGEU: branch(t, X64_C_AE); break;
    case ISA_JAL: jump(t); break;
    case ISA_JALR: jump_register(t); break;
    case ISA_FENCE: fence(t); break;
    case ISA_PAUSE: case ISA_PREFETCH_I: case ISA_PREFETCH_R: case ISA_PREFETCH_W: break;
    default: return false;
    }
    return true;
}
// clang-format on
