// SPDX-License-Identifier: BSD-2-Clause
// Translation of one block: guest instructions in, x86-64 code out. What translated code may rely
// on, and must keep, is told in internal.h.
//
// Each instruction is translated by itself, with rax, rcx and rdx to work in. What is rare is put
// out of line behind the block's code (struct stub), so that the usual way falls through.
#include <string.h>

#include "jit/internal.h"

#define W X64_W
#define STUBS_MAX (3 * JIT_BLOCK_INSNS + 1)  // three an instruction, and FS looked at
#define INSN_CODE_MAX 512u                   // of one instruction with its stubs, generously
#define BLOCK_CODE_MAX (INSN_CODE_MAX * (JIT_BLOCK_INSNS + 1))
#define COPY_BYTES_MAX (4 * JIT_BLOCK_INSNS)
#define BLOCK_ARENA_MAX                                                                            \
    (sizeof(struct jit_block) + 2 * JIT_BLOCK_INSNS * sizeof(struct jit_site) + COPY_BYTES_MAX + 16)

static_assert(2 * BLOCK_CODE_MAX <= JIT_CODE_BYTES_MIN && BLOCK_ARENA_MAX <= JIT_CODE_BYTES_MIN,
              "the smallest code memory holds a block and the thunks");
static_assert(sizeof(struct hart_tlb_entry) == 32 && HART_TLB_BITS == 9 &&
                  offsetof(struct hart_tlb_entry, addend) <= INT8_MAX,
              "probe() computes the address of an entry");
static_assert(sizeof(((struct hart *)0)->attention) == 4, "compared as 32 bits at a block's entry");
static_assert(HART_MSTATUS_FS <= INT32_MAX, "FS is tested in the low word of mstatus");

enum stub_kind {
    STUB_EXIT,  // a taken branch
    STUB_CALL,  // a helper does the instruction; goes on at `resume`
};

struct stub {
    enum stub_kind kind;
    uint8_t *place;  // of the jump to the stub
    const struct jit_site *site;
    const uint8_t *resume;
    int target;        // from the page's start
    unsigned retired;  // up to the branch, included
};

struct translator {
    struct x64 x64;
    struct jit *jit;
    struct jit_block *block;
    struct jit_site *sites_end;
    struct isa_insn insn;
    int offset;                // of `insn`, from the page's start
    int start;                 // of the block
    unsigned insns;            // so far, `insn` included
    unsigned counted;          // of these, how many JIT_INSTRET has
    bool fp_checked;           // FS is known not to be Off
    bool fp_dirty;             // FS is known to be Dirty
    uint8_t *leave_places[2];  // jumps at the entry that leave
    const uint8_t *again;      // the entry for the block itself: its epoch was current and still is
    struct stub stubs[STUBS_MAX];
    unsigned stub_count;
};

// ---- Guest registers

// host = x[reg]. Spoils flags.
static void load_x(struct translator *t, unsigned host, unsigned reg)
{
    int pin = jit_pinned(reg);

    if (reg == 0)
        x64_mov_imm(&t->x64, host, 0);
    else if (pin < 0)
        x64_rm(&t->x64, X64_MOV | W, host, X64_RBP, HART_X(reg));
    else if ((unsigned)pin != host)
        x64_rr(&t->x64, X64_MOV | W, host, (unsigned)pin);
}

// A host register that holds x[reg] and must not be changed: `scratch` where it is not pinned.
static unsigned source(struct translator *t, unsigned reg, unsigned scratch)
{
    int pin = jit_pinned(reg);

    if (pin >= 0)
        return (unsigned)pin;
    load_x(t, scratch, reg);
    return scratch;
}

// Where to compute x[rd]; finish() then stores it.
static unsigned target(const struct translator *t)
{
    int pin = jit_pinned(t->insn.rd);

    return pin >= 0 ? (unsigned)pin : X64_RAX;
}

// x[rd] = host.
static void finish(struct translator *t, unsigned host)
{
    int pin = jit_pinned(t->insn.rd);

    if (t->insn.rd == 0)
        return;
    if (pin < 0)
        x64_rm(&t->x64, X64_STORE_64, host, X64_RBP, HART_X(t->insn.rd));
    else if ((unsigned)pin != host)
        x64_rr(&t->x64, X64_MOV | W, (unsigned)pin, host);
}

// opcode host, x[reg]
static void op_x(struct translator *t, unsigned opcode, unsigned host, unsigned reg)
{
    int pin = jit_pinned(reg);

    if (pin >= 0)
        x64_rr(&t->x64, opcode, host, (unsigned)pin);
    else
        x64_rm(&t->x64, opcode, host, X64_RBP, HART_X(reg));
}

// host = the address `from_page` bytes from the start of the block's page.
static void load_pc(struct translator *t, unsigned host, int from_page)
{
    x64_rm(&t->x64, X64_MOV | W, host, X64_RBP, HART_FIELD(pc));
    if (from_page)
        x64_alu_imm(&t->x64, X64_I_ADD, W, host, from_page);
}

// ---- Helpers and stubs

static struct jit_site *add_site(struct translator *t, jit_helper *helper)
{
    struct jit_site *site = t->sites_end++;

    *site = (struct jit_site){.helper = helper,
                              .insn = t->insn,
                              .offset = (uint16_t)t->offset,
                              .retired = (uint16_t)(t->insns - 1 - t->counted)};
    return site;
}

static void call_site(struct translator *t, const struct jit_site *site)
{
    x64_rip(&t->x64, X64_LEA | W, X64_RCX, site);
    x64_call(&t->x64, t->jit->thunks.call);
}

static void call_helper(struct translator *t, jit_helper *helper)
{
    call_site(t, add_site(t, helper));
}

static struct stub *add_stub(struct translator *t, enum stub_kind kind, uint8_t *place)
{
    struct stub *stub = &t->stubs[t->stub_count++];

    *stub = (struct stub){.kind = kind, .place = place};
    return stub;
}

// ---- Leaving a block

static void count_insns(struct translator *t, unsigned insns)
{
    if (insns)
        x64_alu_imm(&t->x64, X64_I_ADD, W, JIT_INSTRET, (int32_t)insns);
}

// Goes on at the virtual address in rax.
static void jump_to_rax(struct translator *t)
{
    struct x64 *x64 = &t->x64;

    x64_rr(x64, X64_MOV, X64_RCX, X64_RAX);
    x64_alu_imm(x64, X64_I_AND, 0, X64_RCX, 2 * (JIT_JUMPS - 1));
    x64_rip(x64, X64_MOV | W, X64_RDX, &t->jit->jumps);
    x64_lea_scaled(x64, X64_RCX, X64_RDX, X64_RCX, sizeof(struct jit_jump) / 2);
    x64_rm(x64, X64_CMP | W, X64_RAX, X64_RCX, offsetof(struct jit_jump, pc));
    x64_jcc(x64, X64_C_NE, t->jit->thunks.leave_to);
    x64_alu_imm(x64, X64_I_AND, W, X64_RAX, -(int)MEMORY_PAGE_BYTES);
    x64_rm(x64, X64_STORE_64, X64_RAX, X64_RBP, HART_FIELD(pc));
    x64_jmp_mem(x64, X64_RCX, offsetof(struct jit_jump, entry));
}

static void leave_at(struct translator *t, int from_page)
{
    if (from_page)
        x64_alu_mem_imm(&t->x64, X64_I_ADD, W, X64_RBP, HART_FIELD(pc), from_page);
    x64_jmp(&t->x64, t->jit->thunks.leave);
}

// A jump that leads to the code behind it until the dispatcher links it.
static void linked_jump(struct translator *t, int from_page)
{
    x64_jmp_forward(&t->x64);
    x64_rip(&t->x64, X64_LEA | W, X64_RAX, x64_here(&t->x64) - 4);
    leave_at(t, from_page);
}

// Goes on `from_page` bytes from the page's start, perhaps in another page. The last two bytes of a
// page may be half an instruction, whose block depends on the next page too: no link leads there,
// and none is made in such a block, since hart->pc tells its first page.
static void exit_to(struct translator *t, int from_page)
{
    const int page_bytes = MEMORY_PAGE_BYTES;

    if (from_page < 0 || from_page >= page_bytes - 2 || t->block->gpa & JIT_STRADDLES) {
        load_pc(t, X64_RAX, from_page);
        jump_to_rax(t);
    } else if (from_page == t->start) {
        x64_jmp(&t->x64, t->again);
    } else {
        linked_jump(t, from_page);
    }
}

static void emit_stub(struct translator *t, const struct stub *stub)
{
    if (stub->place)
        x64_bind(&t->x64, stub->place);
    if (stub->kind == STUB_EXIT) {
        count_insns(t, stub->retired);
        exit_to(t, stub->target);
    } else {
        call_site(t, stub->site);
        x64_jmp(&t->x64, stub->resume);
    }
}

// ---- Integer operations

static void add_immediate(struct translator *t)
{
    unsigned host = target(t);
    int from = jit_pinned(t->insn.rs1);

    if (t->insn.rs1 == 0) {
        x64_mov_imm(&t->x64, host, (uint64_t)(int64_t)t->insn.imm);
    } else if (from >= 0 && (unsigned)from != host && t->insn.imm) {
        x64_rm(&t->x64, X64_LEA | W, host, (unsigned)from, t->insn.imm);
    } else {
        load_x(t, host, t->insn.rs1);
        if (t->insn.imm)
            x64_alu_imm(&t->x64, X64_I_ADD, W, host, t->insn.imm);
    }
    finish(t, host);
}

// Sign-extends a 32-bit result.
static void finish_word(struct translator *t, unsigned host)
{
    x64_rr(&t->x64, X64_MOVSXD, host, host);
    finish(t, host);
}

static void finish_width(struct translator *t, unsigned width, unsigned host)
{
    if (width)
        finish(t, host);
    else
        finish_word(t, host);
}

static void alu_immediate(struct translator *t, enum x64_group1 op, unsigned width)
{
    unsigned host = target(t);

    load_x(t, host, t->insn.rs1);
    x64_alu_imm(&t->x64, op, width, host, t->insn.imm);
    finish_width(t, width, host);
}

// Where to compute a result when rs2 is read after rs1 was put there.
static unsigned target_beside_rs2(const struct translator *t)
{
    return t->insn.rd == t->insn.rs2 ? X64_RAX : target(t);
}

static void alu(struct translator *t, unsigned opcode, unsigned width)
{
    unsigned host = target_beside_rs2(t);

    load_x(t, host, t->insn.rs1);
    op_x(t, opcode | width, host, t->insn.rs2);
    finish_width(t, width, host);
}

// rs1 op ~rs2
static void alu_not(struct translator *t, unsigned opcode)
{
    unsigned host = target(t);

    load_x(t, X64_RCX, t->insn.rs2);
    x64_unary(&t->x64, X64_NOT, W, X64_RCX);
    load_x(t, host, t->insn.rs1);
    x64_rr(&t->x64, opcode | W, host, X64_RCX);
    finish(t, host);
}

static void shift_immediate(struct translator *t, enum x64_group2 op, unsigned width)
{
    unsigned host = target(t);

    load_x(t, host, t->insn.rs1);
    if (t->insn.imm)
        x64_shift_imm(&t->x64, op, width, host, (unsigned)t->insn.imm);
    finish_width(t, width, host);
}

// The host masks the count in cl as the guest does.
static void shift(struct translator *t, enum x64_group2 op, unsigned width)
{
    unsigned host = target(t);

    load_x(t, X64_RCX, t->insn.rs2);
    load_x(t, host, t->insn.rs1);
    x64_shift_cl(&t->x64, op, width, host);
    finish_width(t, width, host);
}

static void set_from_flags(struct translator *t, enum x64_condition condition)
{
    unsigned host = target(t);

    x64_setcc(&t->x64, condition, X64_RAX);
    x64_rr(&t->x64, X64_MOVZX_8, host, X64_RAX);
    finish(t, host);
}

static void set_if_less(struct translator *t, enum x64_condition condition)
{
    unsigned left = source(t, t->insn.rs1, X64_RAX);

    op_x(t, X64_CMP | W, left, t->insn.rs2);
    set_from_flags(t, condition);
}

static void set_if_less_immediate(struct translator *t, enum x64_condition condition)
{
    unsigned left = source(t, t->insn.rs1, X64_RAX);

    x64_alu_imm(&t->x64, X64_I_CMP, W, left, t->insn.imm);
    set_from_flags(t, condition);
}

static void upper_immediate(struct translator *t)
{
    unsigned host = target(t);

    if (t->insn.op == ISA_LUI)
        x64_mov_imm(&t->x64, host, (uint64_t)(int64_t)t->insn.imm);
    else
        load_pc(t, host, t->offset + t->insn.imm);
    finish(t, host);
}

// rs2 + (rs1 << shift), of rs1 the low word only where `word`.
static void shift_add(struct translator *t, unsigned shift, bool word)
{
    unsigned host = target(t);

    load_x(t, X64_RCX, t->insn.rs1);
    if (word)
        x64_rr(&t->x64, X64_MOV, X64_RCX, X64_RCX);
    x64_lea_scaled(&t->x64, host, source(t, t->insn.rs2, X64_RDX), X64_RCX, 1u << shift);
    finish(t, host);
}

static void shift_word_unsigned(struct translator *t)
{
    unsigned host = target(t);

    load_x(t, host, t->insn.rs1);
    x64_rr(&t->x64, X64_MOV, host, host);
    if (t->insn.imm)
        x64_shift_imm(&t->x64, X64_SHL, W, host, (unsigned)t->insn.imm);
    finish(t, host);
}

static void extend(struct translator *t, unsigned opcode)
{
    unsigned host = target(t);

    x64_rr(&t->x64, opcode, host, source(t, t->insn.rs1, X64_RAX));
    finish(t, host);
}

// rd = rs1 when `condition` holds for rs1 against rs2, else rs2.
static void select_x(struct translator *t, enum x64_condition condition)
{
    unsigned left = source(t, t->insn.rs1, X64_RCX);

    load_x(t, X64_RAX, t->insn.rs2);
    x64_rr(&t->x64, X64_CMP | W, left, X64_RAX);
    x64_rr(&t->x64, X64_CMOV(condition) | W, X64_RAX, left);
    finish(t, X64_RAX);
}

static void byte_swap(struct translator *t)
{
    unsigned host = target(t);

    load_x(t, host, t->insn.rs1);
    x64_bswap(&t->x64, host);
    finish(t, host);
}

// Counts of bits, where the processor has the instruction; it yields the operand's width for 0.
static void count_bits(struct translator *t, unsigned opcode, enum jit_cpu feature)
{
    if (t->jit->cpu & feature)
        extend(t, opcode);
    else
        call_helper(t, jit_help_integer);
}

// Bit instructions with a register operand take the count modulo 64, as the guest's do.
static void bit(struct translator *t, unsigned opcode)
{
    unsigned host = target(t);

    load_x(t, X64_RCX, t->insn.rs2);
    load_x(t, host, t->insn.rs1);
    x64_rr(&t->x64, opcode | W, X64_RCX, host);
    finish(t, host);
}

static void bit_immediate(struct translator *t, enum x64_group8 op)
{
    unsigned host = target(t);

    load_x(t, host, t->insn.rs1);
    x64_bit_imm(&t->x64, op, host, (unsigned)t->insn.imm);
    finish(t, host);
}

static void bit_extract(struct translator *t)
{
    unsigned host = target(t);

    load_x(t, X64_RCX, t->insn.rs2);
    load_x(t, host, t->insn.rs1);
    x64_shift_cl(&t->x64, X64_SHR, W, host);
    x64_alu_imm(&t->x64, X64_I_AND, 0, host, 1);
    finish(t, host);
}

static void bit_extract_immediate(struct translator *t)
{
    unsigned host = target(t);

    load_x(t, host, t->insn.rs1);
    if (t->insn.imm)
        x64_shift_imm(&t->x64, X64_SHR, W, host, (unsigned)t->insn.imm);
    x64_alu_imm(&t->x64, X64_I_AND, 0, host, 1);
    finish(t, host);
}

// ---- M

static void multiply_high(struct translator *t, enum x64_group3 op)
{
    unsigned right;

    load_x(t, X64_RAX, t->insn.rs1);
    right = source(t, t->insn.rs2, X64_RCX);
    x64_unary(&t->x64, op, W, right);
    finish(t, X64_RDX);
}

// Division by zero and overflow do not trap (Unprivileged ISA 7.2): x/0 is all ones and x%0 is x,
// and x/-1 is -x, which covers the overflow.
static void divide(struct translator *t, bool is_signed, bool remainder, unsigned width)
{
    struct x64 *x64 = &t->x64;
    uint8_t *zero, *minus_one = NULL, *done, *also_done = NULL;

    load_x(t, X64_RCX, t->insn.rs2);
    load_x(t, X64_RAX, t->insn.rs1);
    x64_rr(x64, X64_TEST | width, X64_RCX, X64_RCX);
    zero = x64_jcc_forward(x64, X64_C_E);
    if (is_signed) {
        x64_alu_imm(x64, X64_I_CMP, width, X64_RCX, -1);
        minus_one = x64_jcc_forward(x64, X64_C_E);
        x64_sign_rdx(x64, width);
    } else {
        x64_mov_imm(x64, X64_RDX, 0);
    }
    x64_unary(x64, is_signed ? X64_IDIV : X64_DIV, width, X64_RCX);
    if (remainder)
        x64_rr(x64, X64_MOV | W, X64_RAX, X64_RDX);
    done = x64_jmp_forward(x64);

    x64_bind(x64, zero);
    if (!remainder)
        x64_mov_imm(x64, X64_RAX, UINT64_MAX);
    if (is_signed) {
        also_done = x64_jmp_forward(x64);
        x64_bind(x64, minus_one);
        if (remainder)
            x64_mov_imm(x64, X64_RAX, 0);
        else
            x64_unary(x64, X64_NEG, width, X64_RAX);
    }
    x64_bind(x64, done);
    x64_bind(x64, also_done);
    finish_width(t, width, X64_RAX);
}

// ---- Memory

// rax = x[rs1] + imm, then as the host's address if the soft TLB has it; else jumps to the place
// that is returned. An access that crosses the page's end never hits: its last byte's page has
// another tag than the entry that its first byte chooses.
static uint8_t *probe(struct translator *t, unsigned width_bytes, size_t tag)
{
    struct x64 *x64 = &t->x64;
    const int entry_bytes = sizeof(struct hart_tlb_entry);
    uint8_t *miss;

    x64_rm(x64, X64_LEA | W, X64_RAX, source(t, t->insn.rs1, X64_RAX), t->insn.imm);
    x64_rr(x64, X64_MOV, X64_RCX, X64_RAX);
    x64_shift_imm(x64, X64_SHR, 0, X64_RCX, 12 - 5);
    x64_alu_imm(x64, X64_I_AND, 0, X64_RCX, (int)(HART_TLB_ENTRIES - 1) * entry_bytes);
    x64_rm(x64, X64_ADD | W, X64_RCX, X64_RBP, HART_FIELD(tlb));
    x64_rm(x64, X64_LEA | W, X64_RDX, X64_RAX, (int)width_bytes - 1);
    x64_alu_imm(x64, X64_I_AND, W, X64_RDX, -(int)MEMORY_PAGE_BYTES);
    x64_rm(x64, X64_CMP | W, X64_RDX, X64_RCX, (int)tag);
    miss = x64_jcc_forward(x64, X64_C_NE);
    x64_rm(x64, X64_ADD | W, X64_RAX, X64_RCX, offsetof(struct hart_tlb_entry, addend));
    return miss;
}

// A helper does the access when the probe missed.
static void add_miss(struct translator *t, uint8_t *miss, jit_helper *helper)
{
    struct stub *stub = add_stub(t, STUB_CALL, miss);

    stub->site = add_site(t, helper);
    stub->resume = x64_here(&t->x64);
}

static void load(struct translator *t, unsigned width_bytes, unsigned opcode)
{
    uint8_t *miss = probe(t, width_bytes, offsetof(struct hart_tlb_entry, load));
    unsigned host = target(t);

    x64_rm(&t->x64, opcode, host, X64_RAX, 0);
    finish(t, host);
    add_miss(t, miss, jit_help_load);
}

static void store(struct translator *t, unsigned width_bytes, unsigned opcode)
{
    uint8_t *miss = probe(t, width_bytes, offsetof(struct hart_tlb_entry, store));

    x64_rm(&t->x64, opcode, source(t, t->insn.rs2, X64_RDX), X64_RAX, 0);
    add_miss(t, miss, jit_help_store);
}

// ---- Floating point. Loads, stores and moves are here, arithmetic is called.

// Illegal where FS is Off. FS changes by CSR instructions and traps only, so looking once is
// enough.
static void check_fp(struct translator *t)
{
    struct stub *stub;

    if (t->fp_checked)
        return;
    t->fp_checked = true;
    x64_test_mem_imm(&t->x64, X64_RBP, HART_FIELD(mstatus), (int32_t)HART_MSTATUS_FS);
    stub = add_stub(t, STUB_CALL, x64_jcc_forward(&t->x64, X64_C_E));
    stub->site = add_site(t, jit_help_illegal);
    stub->resume = x64_here(&t->x64);
}

static void set_fp_dirty(struct translator *t)
{
    if (!t->fp_dirty)
        x64_alu_mem_imm(&t->x64, X64_I_OR, 0, X64_RBP, HART_FIELD(mstatus),
                        (int32_t)HART_MSTATUS_FS);
    t->fp_dirty = true;
}

static void load_f(struct translator *t, unsigned host, unsigned reg)
{
    x64_rm(&t->x64, X64_MOV | W, host, X64_RBP, HART_F(reg));
}

static void finish_f(struct translator *t, unsigned host)
{
    x64_rm(&t->x64, X64_STORE_64, host, X64_RBP, HART_F(t->insn.rd));
    set_fp_dirty(t);
}

// NaN-boxes the single in eax: Unprivileged ISA 22.2. Spoils rcx.
static void finish_single(struct translator *t)
{
    x64_mov_imm(&t->x64, X64_RCX, 0xffffffff00000000);
    x64_rr(&t->x64, X64_OR | W, X64_RAX, X64_RCX);
    finish_f(t, X64_RAX);
}

static void load_fp(struct translator *t, bool single)
{
    uint8_t *miss;

    check_fp(t);
    miss = probe(t, single ? 4 : 8, offsetof(struct hart_tlb_entry, load));
    x64_rm(&t->x64, X64_MOV | (single ? 0 : W), X64_RAX, X64_RAX, 0);
    if (single)
        finish_single(t);
    else
        finish_f(t, X64_RAX);
    add_miss(t, miss, jit_help_load);
}

static void store_fp(struct translator *t, bool single)
{
    uint8_t *miss;

    check_fp(t);
    miss = probe(t, single ? 4 : 8, offsetof(struct hart_tlb_entry, store));
    load_f(t, X64_RDX, t->insn.rs2);
    x64_rm(&t->x64, single ? X64_STORE_32 : X64_STORE_64, X64_RDX, X64_RAX, 0);
    add_miss(t, miss, jit_help_store);
}

static void move_to_x(struct translator *t, bool single)
{
    unsigned host = target(t);

    check_fp(t);
    x64_rm(&t->x64, single ? X64_MOVSXD : X64_MOV | W, host, X64_RBP, HART_F(t->insn.rs1));
    finish(t, host);
}

static void move_from_x(struct translator *t, bool single)
{
    check_fp(t);
    load_x(t, X64_RAX, t->insn.rs1);
    if (single) {
        x64_rr(&t->x64, X64_MOV, X64_RAX, X64_RAX);
        finish_single(t);
    } else {
        finish_f(t, X64_RAX);
    }
}

// fmv.d
static void move_double(struct translator *t)
{
    check_fp(t);
    load_f(t, X64_RAX, t->insn.rs1);
    finish_f(t, X64_RAX);
}

static void compute_fp(struct translator *t)
{
    check_fp(t);
    call_helper(t, jit_help_fp);
}

static void compute_on_host(struct translator *t, jit_helper *helper)
{
    check_fp(t);
    call_helper(t, t->jit->cpu & JIT_CPU_FMA ? helper : jit_help_fp);
}

// fp.c's argument, inline for doubles: where the guest's inexact flag is set and the result is
// plain, there are no flags to raise. A static rounding mode other than to nearest even is not for
// here.
static bool rounds_to_even(struct translator *t)
{
    const unsigned dynamic = 7;

    return t->jit->cpu & JIT_CPU_FMA && (t->insn.rm == 0 || t->insn.rm == dynamic);
}

static struct stub *stub_for_fp(struct translator *t, const struct jit_site *site, uint8_t *place)
{
    struct stub *stub = add_stub(t, STUB_CALL, place);

    stub->site = site;
    return stub;
}

// `emit` puts the result into xmm0.
static void compute_double(struct translator *t,
                           void (*emit)(struct translator *t, unsigned opcode), unsigned opcode)
{
    struct x64 *x64 = &t->x64;
    const struct jit_site *site;
    struct stub *stubs[3] = {NULL};

    if (!rounds_to_even(t)) {
        compute_fp(t);
        return;
    }
    check_fp(t);
    site = add_site(t, jit_help_fp_double);
    if (t->insn.rm) {
        x64_cmp_mem8_imm(x64, X64_RBP, HART_FIELD(frm), 0);
        stubs[0] = stub_for_fp(t, site, x64_jcc_forward(x64, X64_C_NE));
    }
    x64_test_mem8_imm(x64, X64_RBP, HART_FIELD(fflags), 1);
    stubs[1] = stub_for_fp(t, site, x64_jcc_forward(x64, X64_C_E));
    emit(t, opcode);
    x64_rr(x64, X64_MOVQ_FROM_XMM, 0, X64_RAX);
    x64_rr(x64, X64_MOV | W, X64_RCX, X64_RAX);
    x64_shift_imm(x64, X64_SHR, W, X64_RCX, 52);
    x64_alu_imm(x64, X64_I_AND, 0, X64_RCX, 0x7ff);
    x64_alu_imm(x64, X64_I_SUB, 0, X64_RCX, 2);
    x64_alu_imm(x64, X64_I_CMP, 0, X64_RCX, 0x7fe - 2);
    stubs[2] = stub_for_fp(t, site, x64_jcc_forward(x64, X64_C_A));
    finish_f(t, X64_RAX);
    for (size_t i = 0; i < BASE_COUNT_OF(stubs); i++)
        if (stubs[i])
            stubs[i]->resume = x64_here(x64);
}

static void emit_double(struct translator *t, unsigned opcode)
{
    x64_rm(&t->x64, X64_MOVSD_LOAD, 0, X64_RBP, HART_F(t->insn.rs1));
    x64_rm(&t->x64, opcode, 0, X64_RBP, HART_F(t->insn.rs2));
}

static void emit_fused(struct translator *t, unsigned opcode)
{
    x64_rm(&t->x64, X64_MOVSD_LOAD, 0, X64_RBP, HART_F(t->insn.rs3));
    x64_rm(&t->x64, X64_MOVSD_LOAD, 1, X64_RBP, HART_F(t->insn.rs1));
    x64_fma_mem(&t->x64, opcode, X64_RBP, HART_F(t->insn.rs2));
}

// ---- Control

// A comparison with the operands' order kept; x0 on the right needs no operand.
static void compare(struct translator *t)
{
    unsigned left = source(t, t->insn.rs1, X64_RAX);

    if (t->insn.rs2 == 0)
        x64_rr(&t->x64, X64_TEST | W, left, left);
    else
        op_x(t, X64_CMP | W, left, t->insn.rs2);
}

static void branch(struct translator *t, enum x64_condition condition)
{
    struct stub *stub;

    compare(t);
    stub = add_stub(t, STUB_EXIT, x64_jcc_forward(&t->x64, condition));
    stub->target = t->offset + t->insn.imm;
    stub->retired = t->insns - t->counted;
}

static void link_register(struct translator *t)
{
    if (t->insn.rd == 0)
        return;
    load_pc(t, X64_RCX, t->offset + t->insn.length);
    finish(t, X64_RCX);
}

static void jump(struct translator *t)
{
    link_register(t);
    count_insns(t, t->insns - t->counted);
    exit_to(t, t->offset + t->insn.imm);
}

static void jump_register(struct translator *t)
{
    x64_rm(&t->x64, X64_LEA | W, X64_RAX, source(t, t->insn.rs1, X64_RAX), t->insn.imm);
    x64_alu_imm(&t->x64, X64_I_AND, W, X64_RAX, -2);
    link_register(t);
    count_insns(t, t->insns - t->counted);
    jump_to_rax(t);
}

// The helper counts all instructions up to this one, and goes on here only if nothing changed that
// matters to fetch. FS may have changed.
static void access_csr(struct translator *t)
{
    call_helper(t, jit_help_csr);
    t->counted = t->insns;
    t->fp_checked = t->fp_dirty = false;
}

// Of the store-before-load orderings that a fence may ask for, x86 gives none and gives all others
// for free (Unprivileged ISA 2.7 and appendix A.5). fence.tso does not ask for it.
static void fence(struct translator *t)
{
    const unsigned input = 8, output = 4, read = 2, write = 1, tso = 8;
    unsigned before = (unsigned)t->insn.imm >> 4, after = (unsigned)t->insn.imm & 15;

    if (t->insn.rm != tso && (before & (output | write)) && (after & (input | read)))
        x64_full_fence(&t->x64);
}

// ---- One instruction

static bool only_writes_x0(const struct isa_insn *insn)
{
    const unsigned effects =
        ISA_BRANCH | ISA_JUMP | ISA_LOAD | ISA_STORE | ISA_SYSTEM | ISA_FP | ISA_FRD;

    return (isa_op_flags(insn->op) & (effects | ISA_RD)) == ISA_RD && insn->rd == 0;
}

// What the switch of translate_insn does not name.
static void translate_other(struct translator *t)
{
    unsigned flags = isa_op_flags(t->insn.op);

    if (t->insn.op == ISA_ILLEGAL)
        call_helper(t, jit_help_illegal);
    else if (flags & ISA_FP)
        compute_fp(t);
    else if (flags & ISA_SYSTEM)
        call_helper(t, jit_help_system);
    else
        call_helper(t, jit_help_atomic);
}

// clang-format off
static void translate_insn(struct translator *t)
{
    switch (t->insn.op) {
    case ISA_LUI: case ISA_AUIPC: upper_immediate(t); break;
    case ISA_ADDI: add_immediate(t); break;
    case ISA_SLTI: set_if_less_immediate(t, X64_C_L); break;
    case ISA_SLTIU: set_if_less_immediate(t, X64_C_B); break;
    case ISA_XORI: alu_immediate(t, X64_I_XOR, W); break;
    case ISA_ORI: alu_immediate(t, X64_I_OR, W); break;
    case ISA_ANDI: alu_immediate(t, X64_I_AND, W); break;
    case ISA_ADDIW: alu_immediate(t, X64_I_ADD, 0); break;
    case ISA_SLLI: shift_immediate(t, X64_SHL, W); break;
    case ISA_SRLI: shift_immediate(t, X64_SHR, W); break;
    case ISA_SRAI: shift_immediate(t, X64_SAR, W); break;
    case ISA_SLLIW: shift_immediate(t, X64_SHL, 0); break;
    case ISA_SRLIW: shift_immediate(t, X64_SHR, 0); break;
    case ISA_SRAIW: shift_immediate(t, X64_SAR, 0); break;
    case ISA_ADD: alu(t, X64_ADD, W); break;
    case ISA_SUB: alu(t, X64_SUB, W); break;
    case ISA_XOR: alu(t, X64_XOR, W); break;
    case ISA_OR: alu(t, X64_OR, W); break;
    case ISA_AND: alu(t, X64_AND, W); break;
    case ISA_ADDW: alu(t, X64_ADD, 0); break;
    case ISA_SUBW: alu(t, X64_SUB, 0); break;
    case ISA_SLT: set_if_less(t, X64_C_L); break;
    case ISA_SLTU: set_if_less(t, X64_C_B); break;
    case ISA_SLL: shift(t, X64_SHL, W); break;
    case ISA_SRL: shift(t, X64_SHR, W); break;
    case ISA_SRA: shift(t, X64_SAR, W); break;
    case ISA_SLLW: shift(t, X64_SHL, 0); break;
    case ISA_SRLW: shift(t, X64_SHR, 0); break;
    case ISA_SRAW: shift(t, X64_SAR, 0); break;

    case ISA_BEQ: branch(t, X64_C_E); break;
    case ISA_BNE: branch(t, X64_C_NE); break;
    case ISA_BLT: branch(t, X64_C_L); break;
    case ISA_BGE: branch(t, X64_C_GE); break;
    case ISA_BLTU: branch(t, X64_C_B); break;
    case ISA_BGEU: branch(t, X64_C_AE); break;
    case ISA_JAL: jump(t); break;
    case ISA_JALR: jump_register(t); break;

    case ISA_LB: load(t, 1, X64_MOVSX_8); break;
    case ISA_LH: load(t, 2, X64_MOVSX_16); break;
    case ISA_LW: load(t, 4, X64_MOVSXD); break;
    case ISA_LD: load(t, 8, X64_MOV | W); break;
    case ISA_LBU: load(t, 1, X64_MOVZX_8); break;
    case ISA_LHU: load(t, 2, X64_MOVZX_16); break;
    case ISA_LWU: load(t, 4, X64_MOV); break;
    case ISA_SB: store(t, 1, X64_STORE_8); break;
    case ISA_SH: store(t, 2, X64_STORE_16); break;
    case ISA_SW: store(t, 4, X64_STORE_32); break;
    case ISA_SD: store(t, 8, X64_STORE_64); break;
    case ISA_FENCE: fence(t); break;
    case ISA_PAUSE: case ISA_PREFETCH_I: case ISA_PREFETCH_R: case ISA_PREFETCH_W: break;

    case ISA_CSRRW: case ISA_CSRRS: case ISA_CSRRC:
    case ISA_CSRRWI: case ISA_CSRRSI: case ISA_CSRRCI: access_csr(t); break;
    case ISA_CBO_INVAL: case ISA_CBO_CLEAN: case ISA_CBO_FLUSH: case ISA_CBO_ZERO:
        call_helper(t, jit_help_cache_block); break;

    case ISA_MUL: alu(t, X64_IMUL, W); break;
    case ISA_MULW: alu(t, X64_IMUL, 0); break;
    case ISA_MULH: multiply_high(t, X64_IMUL1); break;
    case ISA_MULHU: multiply_high(t, X64_MUL); break;
    case ISA_MULHSU: case ISA_ORC_B: call_helper(t, jit_help_integer); break;
    case ISA_DIV: divide(t, true, false, W); break;
    case ISA_DIVU: divide(t, false, false, W); break;
    case ISA_REM: divide(t, true, true, W); break;
    case ISA_REMU: divide(t, false, true, W); break;
    case ISA_DIVW: divide(t, true, false, 0); break;
    case ISA_DIVUW: divide(t, false, false, 0); break;
    case ISA_REMW: divide(t, true, true, 0); break;
    case ISA_REMUW: divide(t, false, true, 0); break;

    case ISA_FLW: load_fp(t, true); break;
    case ISA_FLD: load_fp(t, false); break;
    case ISA_FSW: store_fp(t, true); break;
    case ISA_FSD: store_fp(t, false); break;
    case ISA_FMV_X_W: move_to_x(t, true); break;
    case ISA_FMV_X_D: move_to_x(t, false); break;
    case ISA_FMV_W_X: move_from_x(t, true); break;
    case ISA_FMV_D_X: move_from_x(t, false); break;
    case ISA_FSGNJ_D:
        if (t->insn.rs1 == t->insn.rs2)
            move_double(t);
        else
            compute_fp(t);
        break;

    case ISA_FADD_S: case ISA_FSUB_S: case ISA_FMUL_S: case ISA_FDIV_S: case ISA_FSQRT_S:
    case ISA_FMADD_S: case ISA_FMSUB_S: case ISA_FNMSUB_S: case ISA_FNMADD_S:
        compute_on_host(t, jit_help_fp_single); break;
    case ISA_FSQRT_D: compute_on_host(t, jit_help_fp_double); break;
    case ISA_FADD_D: compute_double(t, emit_double, X64_ADDSD); break;
    case ISA_FSUB_D: compute_double(t, emit_double, X64_SUBSD); break;
    case ISA_FMUL_D: compute_double(t, emit_double, X64_MULSD); break;
    case ISA_FDIV_D: compute_double(t, emit_double, X64_DIVSD); break;
    case ISA_FMADD_D: compute_double(t, emit_fused, X64_FMADD); break;
    case ISA_FMSUB_D: compute_double(t, emit_fused, X64_FMSUB); break;
    case ISA_FNMSUB_D: compute_double(t, emit_fused, X64_FNMADD); break;
    case ISA_FNMADD_D: compute_double(t, emit_fused, X64_FNMSUB); break;

    case ISA_ADD_UW: shift_add(t, 0, true); break;
    case ISA_SH1ADD: shift_add(t, 1, false); break;
    case ISA_SH2ADD: shift_add(t, 2, false); break;
    case ISA_SH3ADD: shift_add(t, 3, false); break;
    case ISA_SH1ADD_UW: shift_add(t, 1, true); break;
    case ISA_SH2ADD_UW: shift_add(t, 2, true); break;
    case ISA_SH3ADD_UW: shift_add(t, 3, true); break;
    case ISA_SLLI_UW: shift_word_unsigned(t); break;
    case ISA_ANDN: alu_not(t, X64_AND); break;
    case ISA_ORN: alu_not(t, X64_OR); break;
    case ISA_XNOR: alu_not(t, X64_XOR); break;
    case ISA_CLZ: count_bits(t, X64_LZCNT | W, JIT_CPU_LZCNT); break;
    case ISA_CLZW: count_bits(t, X64_LZCNT, JIT_CPU_LZCNT); break;
    case ISA_CTZ: count_bits(t, X64_TZCNT | W, JIT_CPU_TZCNT); break;
    case ISA_CTZW: count_bits(t, X64_TZCNT, JIT_CPU_TZCNT); break;
    case ISA_CPOP: count_bits(t, X64_POPCNT | W, JIT_CPU_POPCNT); break;
    case ISA_CPOPW: count_bits(t, X64_POPCNT, JIT_CPU_POPCNT); break;
    case ISA_SEXT_B: extend(t, X64_MOVSX_8); break;
    case ISA_SEXT_H: extend(t, X64_MOVSX_16); break;
    case ISA_ZEXT_H: extend(t, X64_MOVZX_16); break;
    case ISA_MIN: select_x(t, X64_C_L); break;
    case ISA_MINU: select_x(t, X64_C_B); break;
    case ISA_MAX: select_x(t, X64_C_G); break;
    case ISA_MAXU: select_x(t, X64_C_A); break;
    case ISA_ROL: shift(t, X64_ROL, W); break;
    case ISA_ROLW: shift(t, X64_ROL, 0); break;
    case ISA_ROR: shift(t, X64_ROR, W); break;
    case ISA_RORW: shift(t, X64_ROR, 0); break;
    case ISA_RORI: shift_immediate(t, X64_ROR, W); break;
    case ISA_RORIW: shift_immediate(t, X64_ROR, 0); break;
    case ISA_REV8: byte_swap(t); break;
    case ISA_BCLR: bit(t, X64_BTR); break;
    case ISA_BINV: bit(t, X64_BTC); break;
    case ISA_BSET: bit(t, X64_BTS); break;
    case ISA_BEXT: bit_extract(t); break;
    case ISA_BCLRI: bit_immediate(t, X64_BIT_RESET); break;
    case ISA_BINVI: bit_immediate(t, X64_BIT_INVERT); break;
    case ISA_BSETI: bit_immediate(t, X64_BIT_SET); break;
    case ISA_BEXTI: bit_extract_immediate(t); break;
    default: translate_other(t);
    }
}
// clang-format on

// ---- A block

static unsigned insn_bytes(const uint8_t *code)
{
    return (code[0] & 3) == 3 ? 4 : 2;
}

static uint32_t read_insn(const uint8_t *code)
{
    uint32_t raw = code[0] | (uint32_t)code[1] << 8;

    return insn_bytes(code) == 2 ? raw : raw | (uint32_t)code[2] << 16 | (uint32_t)code[3] << 24;
}

// Copies once, then translates the copy: other harts may be writing.
static unsigned copy_code(const struct jit_source *source, uint8_t *copy)
{
    unsigned bytes = source->bytes < COPY_BYTES_MAX ? source->bytes : COPY_BYTES_MAX;
    unsigned first = source->tail_hva ? 2 : bytes;

    memcpy(copy, source->hva, first);
    if (source->tail_hva)
        memcpy(copy + first, source->tail_hva, bytes - first);
    return bytes;
}

// At the entry: leaves when the block may be out of date, or something wants the hart's attention.
static void translate_entry(struct translator *t)
{
    struct x64 *x64 = &t->x64;

    x64_rip(x64, X64_MOV | W, X64_RAX, &t->jit->epoch);
    x64_rip(x64, X64_CMP | W, X64_RAX, &t->block->epoch);
    t->leave_places[0] = x64_jcc_forward(x64, X64_C_NE);
    t->again = x64_here(x64);
    x64_alu_mem_imm(x64, X64_I_CMP, 0, X64_RBP, HART_FIELD(attention), 0);
    t->leave_places[1] = x64_jcc_forward(x64, X64_C_NE);
}

static void translate_leave(struct translator *t)
{
    x64_bind(&t->x64, t->leave_places[0]);
    x64_bind(&t->x64, t->leave_places[1]);
    x64_rip(&t->x64, X64_LEA | W, X64_RAX, t->block);
    leave_at(t, t->start);
}

// CSR instructions are SYSTEM too, but mostly go on: their helper leaves when it must.
static bool ends_block(const struct isa_insn *insn)
{
    switch (insn->op) {
    case ISA_ILLEGAL:
        return true;
    case ISA_CSRRW:
    case ISA_CSRRS:
    case ISA_CSRRC:
    case ISA_CSRRWI:
    case ISA_CSRRSI:
    case ISA_CSRRCI:
        return false;
    default:
        return isa_op_flags(insn->op) & (ISA_JUMP | ISA_SYSTEM);
    }
}

// Translates instructions of `code`, at least one.
static void translate_insns(struct translator *t, const uint8_t *code, unsigned code_bytes)
{
    unsigned at = 0;
    bool ended = false;

    while (!ended && t->insns < JIT_BLOCK_INSNS && at + 2 <= code_bytes &&
           at + insn_bytes(code + at) <= code_bytes) {
        isa_decode(read_insn(code + at), &t->insn);
        t->insns++;
        t->offset = t->start + (int)at;
        if (!only_writes_x0(&t->insn))
            translate_insn(t);
        ended = ends_block(&t->insn);
        at += t->insn.length;
    }
    t->block->length_bytes = at;
    if (!ended) {
        count_insns(t, t->insns - t->counted);
        exit_to(t, t->start + (int)at);
    }
}

struct jit_block *jit_translate(struct jit *jit, const struct jit_source *source)
{
    struct translator t = {.jit = jit, .x64 = jit_memory_emitter(jit)};
    struct jit_block *block = (struct jit_block *)(jit->arena + jit->arena_used);
    uint8_t code[COPY_BYTES_MAX], *copy;
    unsigned code_bytes = copy_code(source, code);

    if (jit->arena_bytes - jit->arena_used < BLOCK_ARENA_MAX)
        return NULL;
    *block = (struct jit_block){.epoch = jit->epoch,
                                .gpa = source->gpa,
                                .hva = source->hva,
                                .tail_gpa = source->tail_gpa,
                                .tail_hva = source->tail_hva,
                                .entry = x64_here(&t.x64)};
    t.block = block;
    t.sites_end = (struct jit_site *)(block + 1);
    t.start = JIT_PAGE_OFFSET(source->gpa & ~(uint64_t)JIT_STRADDLES);
    translate_entry(&t);
    translate_insns(&t, code, code_bytes);
    for (unsigned i = 0; i < t.stub_count; i++)
        emit_stub(&t, &t.stubs[i]);
    translate_leave(&t);
    if (t.x64.full)
        return NULL;

    copy = (uint8_t *)t.sites_end;
    block->copy = memcpy(copy, code, block->length_bytes);
    jit->arena_used = ((size_t)(copy + block->length_bytes - jit->arena) + 15) & ~(size_t)15;
    jit->code_used = (((size_t)(t.x64.out - jit->code)) + 15) & ~(size_t)15;
    return block;
}
