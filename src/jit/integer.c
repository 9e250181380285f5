// SPDX-License-Identifier: BSD-2-Clause
// Translation of integer instructions: I, M, Zba, Zbb, Zbs.
#include "jit/translator.h"

// ---- Integer operations

static void add_immediate(struct jit_translator *t)
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
static void finish_word(struct jit_translator *t, unsigned host)
{
    x64_rr(&t->x64, X64_MOVSXD, host, host);
    finish(t, host);
}

static void finish_width(struct jit_translator *t, unsigned width, unsigned host)
{
    if (width)
        finish(t, host);
    else
        finish_word(t, host);
}

static void alu_immediate(struct jit_translator *t, enum x64_group1 op, unsigned width)
{
    unsigned host = target(t);

    load_x(t, host, t->insn.rs1);
    x64_alu_imm(&t->x64, op, width, host, t->insn.imm);
    finish_width(t, width, host);
}

// Where to compute a result when rs2 is read after rs1 was put there.
static unsigned target_beside_rs2(const struct jit_translator *t)
{
    return t->insn.rd == t->insn.rs2 ? X64_RAX : target(t);
}

static void alu(struct jit_translator *t, unsigned opcode, unsigned width)
{
    unsigned host = target_beside_rs2(t);

    load_x(t, host, t->insn.rs1);
    op_x(t, opcode | width, host, t->insn.rs2);
    finish_width(t, width, host);
}

// rs1 op ~rs2
static void alu_not(struct jit_translator *t, unsigned opcode)
{
    unsigned host = target(t);

    load_x(t, X64_RCX, t->insn.rs2);
    x64_unary(&t->x64, X64_NOT, W, X64_RCX);
    load_x(t, host, t->insn.rs1);
    x64_rr(&t->x64, opcode | W, host, X64_RCX);
    finish(t, host);
}

static void shift_immediate(struct jit_translator *t, enum x64_group2 op, unsigned width)
{
    unsigned host = target(t);

    load_x(t, host, t->insn.rs1);
    if (t->insn.imm)
        x64_shift_imm(&t->x64, op, width, host, (unsigned)t->insn.imm);
    finish_width(t, width, host);
}

// The host masks the count in cl as the guest does.
static void shift(struct jit_translator *t, enum x64_group2 op, unsigned width)
{
    unsigned host = target(t);

    load_x(t, X64_RCX, t->insn.rs2);
    load_x(t, host, t->insn.rs1);
    x64_shift_cl(&t->x64, op, width, host);
    finish_width(t, width, host);
}

static void set_from_flags(struct jit_translator *t, enum x64_condition condition)
{
    unsigned host = target(t);

    x64_setcc(&t->x64, condition, X64_RAX);
    x64_rr(&t->x64, X64_MOVZX_8, host, X64_RAX);
    finish(t, host);
}

static void set_if_less(struct jit_translator *t, enum x64_condition condition)
{
    unsigned left = source(t, t->insn.rs1, X64_RAX);

    op_x(t, X64_CMP | W, left, t->insn.rs2);
    set_from_flags(t, condition);
}

static void set_if_less_immediate(struct jit_translator *t, enum x64_condition condition)
{
    unsigned left = source(t, t->insn.rs1, X64_RAX);

    x64_alu_imm(&t->x64, X64_I_CMP, W, left, t->insn.imm);
    set_from_flags(t, condition);
}

static void upper_immediate(struct jit_translator *t)
{
    unsigned host = target(t);

    if (t->insn.op == ISA_LUI)
        x64_mov_imm(&t->x64, host, (uint64_t)(int64_t)t->insn.imm);
    else
        load_pc(t, host, t->offset + t->insn.imm);
    finish(t, host);
}

// rs2 + (rs1 << shift), of rs1 the low word only where `word`.
static void shift_add(struct jit_translator *t, unsigned shift, bool word)
{
    unsigned host = target(t);

    load_x(t, X64_RCX, t->insn.rs1);
    if (word)
        x64_rr(&t->x64, X64_MOV, X64_RCX, X64_RCX);
    x64_lea_scaled(&t->x64, host, source(t, t->insn.rs2, X64_RDX), X64_RCX, 1u << shift);
    finish(t, host);
}

static void shift_word_unsigned(struct jit_translator *t)
{
    unsigned host = target(t);

    load_x(t, host, t->insn.rs1);
    x64_rr(&t->x64, X64_MOV, host, host);
    if (t->insn.imm)
        x64_shift_imm(&t->x64, X64_SHL, W, host, (unsigned)t->insn.imm);
    finish(t, host);
}

static void extend(struct jit_translator *t, unsigned opcode)
{
    unsigned host = target(t);

    x64_rr(&t->x64, opcode, host, source(t, t->insn.rs1, X64_RAX));
    finish(t, host);
}

// rd = rs1 when `condition` holds for rs1 against rs2, else rs2.
static void select_x(struct jit_translator *t, enum x64_condition condition)
{
    unsigned left = source(t, t->insn.rs1, X64_RCX);

    load_x(t, X64_RAX, t->insn.rs2);
    x64_rr(&t->x64, X64_CMP | W, left, X64_RAX);
    x64_rr(&t->x64, X64_CMOV(condition) | W, X64_RAX, left);
    finish(t, X64_RAX);
}

static void byte_swap(struct jit_translator *t)
{
    unsigned host = target(t);

    load_x(t, host, t->insn.rs1);
    x64_bswap(&t->x64, host);
    finish(t, host);
}

// Counts of bits, where the processor has the instruction; it yields the operand's width for 0.
static void count_bits(struct jit_translator *t, unsigned opcode, enum jit_cpu feature)
{
    if (t->jit->cpu & feature)
        extend(t, opcode);
    else
        jit_call_helper(t, jit_help_integer);
}

// Bit instructions with a register operand take the count modulo 64, as the guest's do.
static void bit(struct jit_translator *t, unsigned opcode)
{
    unsigned host = target(t);

    load_x(t, X64_RCX, t->insn.rs2);
    load_x(t, host, t->insn.rs1);
    x64_rr(&t->x64, opcode | W, X64_RCX, host);
    finish(t, host);
}

static void bit_immediate(struct jit_translator *t, enum x64_group8 op)
{
    unsigned host = target(t);

    load_x(t, host, t->insn.rs1);
    x64_bit_imm(&t->x64, op, host, (unsigned)t->insn.imm);
    finish(t, host);
}

static void bit_extract(struct jit_translator *t)
{
    unsigned host = target(t);

    load_x(t, X64_RCX, t->insn.rs2);
    load_x(t, host, t->insn.rs1);
    x64_shift_cl(&t->x64, X64_SHR, W, host);
    x64_alu_imm(&t->x64, X64_I_AND, 0, host, 1);
    finish(t, host);
}

static void bit_extract_immediate(struct jit_translator *t)
{
    unsigned host = target(t);

    load_x(t, host, t->insn.rs1);
    if (t->insn.imm)
        x64_shift_imm(&t->x64, X64_SHR, W, host, (unsigned)t->insn.imm);
    x64_alu_imm(&t->x64, X64_I_AND, 0, host, 1);
    finish(t, host);
}

// ---- M

static void multiply_high(struct jit_translator *t, enum x64_group3 op)
{
    unsigned right;

    load_x(t, X64_RAX, t->insn.rs1);
    right = source(t, t->insn.rs2, X64_RCX);
    x64_unary(&t->x64, op, W, right);
    finish(t, X64_RDX);
}

// Division by zero and overflow do not trap (Unprivileged ISA 7.2): x/0 is all ones and x%0 is x,
// and x/-1 is -x, which covers the overflow.
static void divide(struct jit_translator *t, bool is_signed, bool remainder, unsigned width)
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

// clang-format off
bool jit_translate_integer(struct jit_translator *t)
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
    case ISA_MUL: alu(t, X64_IMUL, W); break;
    case ISA_MULW: alu(t, X64_IMUL, 0); break;
    case ISA_MULH: multiply_high(t, X64_IMUL1); break;
    case ISA_MULHU: multiply_high(t, X64_MUL); break;
    case ISA_MULHSU: case ISA_ORC_B: jit_call_helper(t, jit_help_integer); break;
    case ISA_DIV: divide(t, true, false, W); break;
    case ISA_DIVU: divide(t, false, false, W); break;
    case ISA_REM: divide(t, true, true, W); break;
    case ISA_REMU: divide(t, false, true, W); break;
    case ISA_DIVW: divide(t, true, false, 0); break;
    case ISA_DIVUW: divide(t, false, false, 0); break;
    case ISA_REMW: divide(t, true, true, 0); break;
    case ISA_REMUW: divide(t, false, true, 0); break;
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
    default: return false;
    }
    return true;
}
// clang-format on
