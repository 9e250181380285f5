// SPDX-License-Identifier: BSD-2-Clause
// Translation for checked harts: looking up pointers, calls and returns, what is taken.
//
// A pointer is taken for what it, or what it is made from, was when the block was translated. Of
// one without identifier nothing is looked up: it is compared with where plain memory ends, or with
// sp, and known from then on. One that is looked up may be of any sort: plain memory has entries as
// pointers without identifier, and what is not equal at first sight is looked at closer out of
// line. A pointer that is not what it was taken for has its access made by a helper, behind which
// the block is left, as the rest of it may rely on the same register; when that has happened a few
// times, the block is made anew, and looks it up.
#include "jit/translator.h"

#define RING_BYTES ((int32_t)sizeof(((struct hart_calls *)0)->ring))
#define CALL_BYTES ((int32_t)sizeof(struct hart_call))
#define CALLS(field) HART_FIELD(calls.ring[0].field)

static_assert((RING_BYTES & (RING_BYTES - 1)) == 0, "distances in the ring are masked");

// ---- Accesses

static bool is_low(const struct jit_translator *t)
{
    return (uintptr_t)t->jit->entries <= INT32_MAX;
}

// rcx = the pointer's address above its identifier.
static void rotate(struct jit_translator *t, unsigned pointer)
{
    if (t->jit->cpu & JIT_CPU_BMI2) {
        x64_rorx(&t->x64, W, X64_RCX, pointer, MEMORY_POINTER_BITS);
    } else {
        x64_rr(&t->x64, X64_MOV | W, X64_RCX, pointer);
        x64_shift_imm(&t->x64, X64_ROR, W, X64_RCX, MEMORY_POINTER_BITS);
    }
}

void jit_check_lookup(struct jit_translator *t, struct jit_access *access, unsigned pointer,
                      unsigned align_bytes)
{
    struct x64 *x64 = &t->x64;

    if (align_bytes > 1) {
        x64_test_imm(x64, pointer, (int32_t)align_bytes - 1);
        access->also = x64_jcc_forward(x64, X64_C_NE);
    }
    rotate(t, pointer);
    x64_rr(x64, X64_MOV | W, X64_RDX, X64_RCX);
    x64_shift_imm(x64, X64_SHR, W, X64_RDX, 20);
    if (!t->jit->check->identifiers->reserved || !t->jit->flat) {
        x64_rip(x64, X64_CMP | W, X64_RDX, &t->jit->granules);
        access->outside = x64_jcc_forward(x64, X64_C_AE);
    }
    if (!is_low(t)) {
        x64_lea_scaled(x64, X64_RDX, X64_RDX, X64_RDX, 1);
        x64_rip(x64, X64_ADD | W, X64_RDX, &t->jit->entries);
    }
    access->lookup = x64->out;
    if (is_low(t))
        x64_rm_twice(x64, X64_CMP_16, X64_RCX, X64_RDX, (int32_t)(uintptr_t)t->jit->entries);
    else
        x64_rm(x64, X64_CMP_16, X64_RCX, X64_RDX, 0);
    access->miss = x64_jcc_forward(x64, X64_C_NE);
    x64_shift_imm(x64, X64_SHR, W, X64_RCX, 16);
}

static void plain(struct jit_translator *t, struct jit_access *access)
{
    x64_rip(&t->x64, X64_CMP | W, access->base, &t->jit->window_limits[HART_TLB_U]);
    access->miss = x64_jcc_forward(&t->x64, X64_C_AE);
    jit_facts_below(t, t->insn.rs1);
}

// What sp points to, or what is above, is in use or in another zone.
static void by_sp(struct jit_translator *t, struct jit_access *access)
{
    x64_rip(&t->x64, X64_CMP | W, access->base, &t->jit->stack_limit);
    access->miss = x64_jcc_forward(&t->x64, X64_C_AE);
    jit_facts_on_stack(t, HART_SP, 0);
}

static void on_stack(struct jit_translator *t, struct jit_access *access)
{
    access->base = jit_access_address(t);
    access->displacement = 0;
    op_x(t, X64_CMP | W, access->base, HART_SP);
    access->also = x64_jcc_forward(&t->x64, X64_C_B);
    x64_rip(&t->x64, X64_CMP | W, access->base, &t->jit->stack_limit);
    access->miss = x64_jcc_forward(&t->x64, X64_C_AE);
    jit_facts_on_stack(t, t->insn.rs1, t->insn.imm);
}

static void tagged(struct jit_translator *t, struct jit_access *access)
{
    unsigned reg = t->insn.rs1, width_bytes = access->width_bytes;
    unsigned pointer = jit_access_address(t);
    int imm = t->insn.imm;

    access->base = X64_RCX;
    access->displacement = 0;
    if (jit_facts_is_checked(t, reg, imm, width_bytes)) {
        rotate(t, pointer);
        x64_shift_imm(&t->x64, X64_SHR, W, X64_RCX, 64 - MEMORY_POINTER_BITS);
        return;
    }
    if (jit_facts_is_aligned(t, reg, imm, width_bytes)) {
        jit_check_lookup(t, access, pointer, 1);
    } else {
        jit_check_lookup(t, access, pointer, width_bytes);
        jit_facts_aligned(t, reg, imm, width_bytes);
    }
    access->inside = x64_here(&t->x64);
    jit_facts_checked(t, reg, imm, width_bytes);
}

void jit_check_begin(struct jit_translator *t, struct jit_access *access)
{
    jit_shifts_settle(t, 1u << HART_SP);
    access->sort = jit_facts_sort(t, t->insn.rs1, t->insn.imm);
    if (access->sort == JIT_TAGGED) {
        tagged(t, access);
        return;
    }
    if (access->sort == JIT_STACK && t->insn.rs1 != HART_SP) {
        on_stack(t, access);
        return;
    }
    access->base = source(t, t->insn.rs1, X64_RAX);
    access->displacement = t->insn.imm;
    if (access->sort == JIT_PLAIN)
        plain(t, access);
    else if (access->sort == JIT_STACK)
        by_sp(t, access);
}

void jit_check_end(struct jit_translator *t, const struct jit_access *access)
{
    jit_helper *helper = access->kind == HART_LOAD ? jit_help_load : jit_help_store;
    struct jit_site *site = jit_site_add(t, helper);
    struct jit_stub *stub =
        jit_stub_add(t, access->lookup ? JIT_STUB_CHECK : JIT_STUB_CALL, access->miss);

    stub->also = access->also;
    stub->outside = access->outside;
    stub->site = site;
    stub->inside = access->inside;
    stub->width_bytes = access->width_bytes;
    stub->resume = x64_here(&t->x64);
    site->leaves = !access->lookup && access->miss;
    if (access->lookup)
        stub->lookup = jit_access_note(t, access->lookup, jit_site_add(t, helper));
    stub->access = jit_access_note(t, access->at, site);
}

// Behind jit_check_lookup: whether the object ends in the granule, and behind the access. Then goes
// on inside. Returns the site of the look at where it ends.
static struct jit_site *look_at_end(struct jit_translator *t, const struct jit_stub *stub)
{
    const int32_t last = MEMORY_GRANULE_BYTES - 1;
    struct jit_site *site = jit_arena_take(t, sizeof(*site));
    struct x64 *x64 = &t->x64;
    uint8_t *differs, *none;

    *site = *stub->lookup;
    if (is_low(t))
        x64_rm_twice(x64, X64_MOVZX_16, X64_RDX, X64_RDX, (int32_t)(uintptr_t)t->jit->entries);
    else
        x64_rm(x64, X64_MOVZX_16, X64_RDX, X64_RDX, 0);
    x64_alu_imm(x64, X64_I_XOR, 0, X64_RDX, (int32_t)MEMORY_IDENTIFIER_PARTIAL);
    x64_rr(x64, X64_CMP_16, X64_RDX, X64_RCX);
    differs = x64_jcc_forward(x64, X64_C_NE);
    x64_alu_imm(x64, X64_I_CMP, 0, X64_RDX, (int32_t)MEMORY_IDENTIFIER_MAX);
    none = x64_jcc_forward(x64, X64_C_A);
    x64_shift_imm(x64, X64_SHR, W, X64_RCX, 64 - MEMORY_POINTER_BITS);
    x64_rr(x64, X64_MOV, X64_RDX, X64_RCX);
    x64_alu_imm(x64, X64_I_AND, 0, X64_RDX, last);
    x64_alu_imm(x64, X64_I_ADD, 0, X64_RDX, (int32_t)stub->width_bytes);
    x64_rr(x64, X64_MOV | W, X64_RAX, X64_RCX);
    x64_alu_imm(x64, X64_I_OR, W, X64_RAX, last);
    jit_access_note(t, x64->out, site);
    x64_gs_rm(x64, X64_MOVZX_8, X64_RAX, X64_RAX, 0, 0);
    x64_rr(x64, X64_CMP, X64_RDX, X64_RAX);
    x64_jcc(x64, X64_C_BE, stub->inside);
    x64_bind(x64, differs);
    x64_bind(x64, none);
    return site;
}

void jit_check_stub(struct jit_translator *t, const struct jit_stub *stub)
{
    const struct isa_insn *insn = &stub->site->insn;
    struct x64 *x64 = &t->x64;
    struct jit_site *end;
    uint8_t *below;

    x64_bind(x64, stub->place);
    end = look_at_end(t, stub);
    load_x(t, X64_RAX, insn->rs1);
    x64_alu_imm(x64, X64_I_ADD, W, X64_RAX, insn->imm);
    op_x(t, X64_CMP | W, X64_RAX, HART_SP);
    below = x64_jcc_forward(x64, X64_C_B);
    x64_rip(x64, X64_CMP | W, X64_RAX, &t->jit->stack_limit);
    x64_rr(x64, X64_MOV | W, X64_RCX, X64_RAX);
    x64_jcc(x64, X64_C_B, stub->inside);
    x64_bind(x64, below);
    x64_bind(x64, stub->also);
    x64_bind(x64, stub->outside);
    stub->access->slow = stub->lookup->slow = end->slow = (uint32_t)(x64->out - t->jit->code);
    jit_shifts_emit(t, &stub->shifts);
    jit_call_site(t, stub->site, &stub->late);
    x64_jmp(x64, stub->resume);
}

// ---- Calls

// rdx = the newest call, less what CALLS() adds; its distance is in `host`.
static void find_call(struct jit_translator *t, unsigned host)
{
    x64_lea_scaled(&t->x64, X64_RDX, X64_RBP, host, 1);
}

static void move_newest(struct jit_translator *t, unsigned host, int32_t bytes)
{
    x64_alu_imm(&t->x64, X64_I_ADD, 0, host, bytes);
    x64_alu_imm(&t->x64, X64_I_AND, 0, host, RING_BYTES - 1);
    x64_rm(&t->x64, X64_STORE_64, host, X64_RBP, HART_FIELD(calls.newest));
}

void jit_check_call(struct jit_translator *t)
{
    struct x64 *x64 = &t->x64;

    x64_rm(x64, X64_MOV | W, X64_RDX, X64_RBP, HART_FIELD(calls.newest));
    move_newest(t, X64_RDX, CALL_BYTES);
    find_call(t, X64_RDX);
    x64_rm(x64, X64_STORE_64, X64_RCX, X64_RDX, CALLS(place));
    x64_rm(x64, X64_STORE_64, source(t, HART_SP, X64_RCX), X64_RDX, CALLS(sp));
}

// The newest call is that of a return to x1, as most are. Two jumps that are taken where it is not.
// Of sp the low half is compared, which HART_CALL_KNOWN is not in.
struct not_newest {
    uint8_t *elsewhere, *other;
};

static struct not_newest leave_newest(struct jit_translator *t)
{
    struct x64 *x64 = &t->x64;
    struct not_newest not ;

    x64_rm(x64, X64_MOV | W, X64_RCX, X64_RBP, HART_FIELD(calls.newest));
    find_call(t, X64_RCX);
    x64_rm(x64, X64_CMP | W, source(t, HART_LINK, X64_RAX), X64_RDX, CALLS(place));
    not .elsewhere = x64_jcc_forward(x64, X64_C_NE);
    x64_rm(x64, X64_CMP, source(t, HART_SP, X64_RAX), X64_RDX, CALLS(sp));
    not .other = x64_jcc_forward(x64, X64_C_NE);
    x64_store_imm(x64, X64_RDX, CALLS(sp), (int32_t)HART_NO_CALL);
    move_newest(t, X64_RCX, -CALL_BYTES);
    return not ;
}

void jit_check_return(struct jit_translator *t)
{
    struct not_newest not = leave_newest(t);

    jit_stub_call(t, jit_site_add(t, jit_help_return), not .elsewhere);
    t->stubs[t->stub_count - 1].also = not .other;
}

// As hart_check_taken: a call that is not the newest is let be.
static void try_at_once(struct jit_translator *t, const struct hart_at_once *at_once, uint64_t pc)
{
    struct x64 *x64 = &t->x64;
    struct not_newest not ;
    uint8_t *undone;

    x64_rip(x64, X64_LEA | W, X64_RCX, at_once);
    x64_mov_imm(x64, X64_RDX, pc);
    x64_call(x64, t->jit->thunks.call_at_once);
    x64_rr(x64, X64_TEST, X64_RAX, X64_RAX);
    undone = x64_jcc_forward(x64, X64_C_E);
    not = leave_newest(t);
    x64_bind(x64, not .elsewhere);
    x64_bind(x64, not .other);
    x64_rr(x64, X64_MOV | W, X64_RAX, source(t, HART_LINK, X64_RAX));
    jit_jump_to_rax(t);
    x64_bind(x64, undone);
}

void jit_check_taken(struct jit_translator *t, uint64_t pc)
{
    t->offset = t->start;
    t->insns = 1;
    if (t->block->at_once.perform)
        try_at_once(t, &t->block->at_once, pc);
    jit_call_site(t, jit_site_add(t, jit_help_taken), &t->late);
    x64_rm(&t->x64, X64_MOV | W, X64_RAX, X64_RBP, HART_FIELD(pc));
    jit_jump_to_rax(t);
}
