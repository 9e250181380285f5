// SPDX-License-Identifier: BSD-2-Clause
// Translation of integer instructions: I, M, Zba, Zbb, Zbs.
#include "jit/translator.h"

// ---- Integer operations

static void add_immediate(struct jit_translator *t)
{
    unsigned host = target(t);
    int from = pinned(t, t->insn.rs1);

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

static void extend(struct jit_translator *t, unsigned opcode)
{
    unsigned host = target(t);

    op_x(t, opcode, host, t->insn.rs1);
    finish(t, host);
}

static void alu_immediate(struct jit_translator *t, enum x64_group1 op, unsigned width)
{
    unsigned host = target(t);

    load_x(t, host, t->insn.rs1);
    x64_alu_imm(&t->x64, op, width, host, t->insn.imm);
    finish_width(t, width, host);
}

static void and_immediate(struct jit_translator *t)
{
    if (t->insn.imm == UINT8_MAX)
        extend(t, X64_MOVZX_8);
    else
        alu_immediate(t, X64_I_AND, W);
}

static void alu(struct jit_translator *t, unsigned opcode, unsigned width)
{
    unsigned host = target(t), left = t->insn.rs1, right = t->insn.rs2;

    // Where rd is rs2, rs1 must not be put there first; all but the subtraction commute.
    if (t->insn.rd == right && opcode != X64_SUB) {
        right = left;
        left = t->insn.rd;
    } else if (t->insn.rd == right) {
        host = X64_RAX;
    }
    load_x(t, host, left);
    op_x(t, opcode | width, host, right);
    finish_width(t, width, host);
}

// rd = x[reg], or its low word where `width` is 0. c.mv is add rd, x0, rs2.
static void move(struct jit_translator *t, unsigned reg, unsigned width)
{
    unsigned host = target(t);

    if (width)
        load_x(t, host, reg);
    else
        op_x(t, X64_MOVSXD, host, reg);
    finish(t, host);
}

static void add_immediate_word(struct jit_translator *t)
{
    if (t->insn.imm)
        alu_immediate(t, X64_I_ADD, 0);
    else
        move(t, t->insn.rs1, 0);
}

// False: `insn` does not make a rotation of two shifts.
static bool rotate(struct jit_translator *t)
{
    const struct jit_shift *shift = jit_shifts_rotation(t);
    unsigned host = target(t);

    if (!shift)
        return false;
    load_x(t, host, shift->from);
    x64_shift_imm(&t->x64, X64_ROR, shift->width, host, shift->count);
    finish_width(t, shift->width, host);
    return true;
}

// or, xor
static void join(struct jit_translator *t, unsigned opcode)
{
    if (!rotate(t))
        alu(t, opcode, W);
}

static void add(struct jit_translator *t, unsigned width)
{
    int host = pinned(t, t->insn.rd), left = pinned(t, t->insn.rs1), right = pinned(t, t->insn.rs2);

    if (rotate(t))
        return;
    if (t->insn.rs1 == 0) {
        move(t, t->insn.rs2, width);
    } else if (t->insn.rs2 == 0) {
        move(t, t->insn.rs1, width);
    } else if (host < 0 || left < 0 || right < 0 || host == left || host == right) {
        alu(t, X64_ADD, width);
    } else {
        x64_lea_scaled(&t->x64, (unsigned)host, (unsigned)left, (unsigned)right, 1);
        finish_width(t, width, (unsigned)host);
    }
}

static void subtract(struct jit_translator *t, unsigned width)
{
    unsigned host = target(t);

    if (t->insn.rs1) {
        alu(t, X64_SUB, width);
        return;
    }
    load_x(t, host, t->insn.rs2);
    x64_unary(&t->x64, X64_NEG, width, host);
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

    if ((op == X64_SHL || op == X64_SHR) && jit_shifts_defer(t, op == X64_SHL, width))
        return;
    load_x(t, host, t->insn.rs1);
    if (t->insn.imm)
        x64_shift_imm(&t->x64, op, width, host, (unsigned)t->insn.imm);
    finish_width(t, width, host);
}

// rd = the low word of rs1, shifted left.
static void shift_word_unsigned(struct jit_translator *t, int left)
{
    unsigned host = target(t);

    op_x(t, X64_MOV, host, t->insn.rs1);
    if (left)
        x64_shift_imm(&t->x64, X64_SHL, W, host, (unsigned)left);
    finish(t, host);
}

// rs2 + (rs1 << shift), of rs1 the low word only where `word`.
static void shift_add(struct jit_translator *t, unsigned rs2, unsigned shift, bool word)
{
    unsigned host = target(t), index;

    if (word)
        op_x(t, X64_MOV, index = X64_RCX, t->insn.rs1);
    else
        index = source(t, t->insn.rs1, X64_RCX);
    x64_lea_scaled(&t->x64, host, source(t, rs2, X64_RDX), index, 1u << shift);
    finish(t, host);
}

// slli and srli: the usual way to extend with zeros where there is no Zba. False: not such a pair.
static bool extend_unsigned(struct jit_translator *t, int left, int right)
{
    if (left == 32 && right <= 32)
        shift_word_unsigned(t, 32 - right);
    else if (left == right && left == 48)
        extend(t, X64_MOVZX_16);
    else if (left == right && left == 56)
        extend(t, X64_MOVZX_8);
    else
        return false;
    return true;
}

// slli and srai.
static bool extend_signed(struct jit_translator *t, int left, int right)
{
    if (left != right || (left != 32 && left != 48 && left != 56))
        return false;
    extend(t, left == 32 ? X64_MOVSXD : left == 48 ? X64_MOVSX_16 : X64_MOVSX_8);
    return true;
}

// slli and add, Zba's sh1add to sh3add.
static bool scale(struct jit_translator *t, const struct isa_insn *add, int left)
{
    if (left < 1 || left > 3 || add->rs2 == t->insn.rd || jit_shifts_lack(t, add->rs2))
        return false;
    shift_add(t, add->rs2, (unsigned)left, false);
    return true;
}

static void shift_left(struct jit_translator *t)
{
    const struct isa_insn *zeros = follower(t, ISA_SRLI), *signs = follower(t, ISA_SRAI),
                          *add = follower(t, ISA_ADD);
    int left = t->insn.imm;

    if ((zeros && extend_unsigned(t, left, zeros->imm)) ||
        (signs && extend_signed(t, left, signs->imm)) || (add && scale(t, add, left)))
        fuse(t);
    else
        shift_immediate(t, X64_SHL, W);
}

static void shift_bmi2(struct jit_translator *t, unsigned opcode, unsigned width)
{
    unsigned host = target(t), count = source(t, t->insn.rs2, X64_RCX),
             from = source(t, t->insn.rs1, X64_RAX);

    x64_vex(&t->x64, opcode | width, host, count, from);
    finish_width(t, width, host);
}

// The host masks the count as the guest does.
static void shift(struct jit_translator *t, enum x64_group2 op, unsigned width)
{
    unsigned host = target(t);

    load_x(t, X64_RCX, t->insn.rs2);
    load_x(t, host, t->insn.rs1);
    x64_shift_cl(&t->x64, op, width, host);
    finish_width(t, width, host);
}

static void shift_plain(struct jit_translator *t, enum x64_group2 op, unsigned width)
{
    if (!(t->jit->cpu & JIT_CPU_BMI2))
        shift(t, op, width);
    else
        shift_bmi2(t, op == X64_SHL ? X64_SHLX : op == X64_SHR ? X64_SHRX : X64_SARX, width);
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

static void not_zero(struct jit_translator *t)
{
    unsigned host = source(t, t->insn.rs2, X64_RAX);

    x64_rr(&t->x64, X64_TEST | W, host, host);
    set_from_flags(t, X64_C_NE);
}

// lui, with the addi or addiw that completes a constant.
static void load_upper(struct jit_translator *t)
{
    const struct isa_insn *add = follower(t, ISA_ADDI), *add_word = follower(t, ISA_ADDIW);
    int64_t value = t->insn.imm;
    unsigned host = target(t);

    if (add)
        value += add->imm;
    else if (add_word)
        value = (int32_t)(value + add_word->imm);
    if (add || add_word)
        fuse(t);
    x64_mov_imm(&t->x64, host, (uint64_t)value);
    finish(t, host);
}

// auipc, with the addi that completes an address.
static void add_upper_to_pc(struct jit_translator *t)
{
    const struct isa_insn *add = follower(t, ISA_ADDI);
    int64_t from_page = (int64_t)t->offset + t->insn.imm;
    unsigned host = target(t);

    if (add && from_page + add->imm == (int32_t)(from_page + add->imm)) {
        from_page += add->imm;
        fuse(t);
    }
    load_pc(t, host, (int)from_page);
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

// Each byte of the result is all ones where the operand's is not zero.
static void or_combine(struct jit_translator *t)
{
    struct x64 *x64 = &t->x64;
    unsigned host = target(t);

    x64_rr(x64, X64_MOVQ_TO_XMM, 0, source(t, t->insn.rs1, X64_RAX));
    x64_rr(x64, X64_PXOR, 1, 1);
    x64_rr(x64, X64_PCMPEQB, 0, 1);
    x64_rr(x64, X64_MOVQ_FROM_XMM, 0, host);
    x64_unary(x64, X64_NOT, W, host);
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

// A negative signed operand was taken for 2^64 more than it is.
static void multiply_high_mixed(struct jit_translator *t)
{
    unsigned right;

    load_x(t, X64_RAX, t->insn.rs1);
    right = source(t, t->insn.rs2, X64_RCX);
    x64_unary(&t->x64, X64_MUL, W, right);
    load_x(t, X64_RAX, t->insn.rs1);
    x64_shift_imm(&t->x64, X64_SAR, W, X64_RAX, 63);
    x64_rr(&t->x64, X64_AND | W, X64_RAX, right);
    x64_rr(&t->x64, X64_SUB | W, X64_RDX, X64_RAX);
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
    case ISA_LUI: load_upper(t); break;
    case ISA_AUIPC: add_upper_to_pc(t); break;
    case ISA_ADDI: add_immediate(t); break;
    case ISA_SLTI: set_if_less_immediate(t, X64_C_L); break;
    case ISA_SLTIU: set_if_less_immediate(t, X64_C_B); break;
    case ISA_XORI: alu_immediate(t, X64_I_XOR, W); break;
    case ISA_ORI: alu_immediate(t, X64_I_OR, W); break;
    case ISA_ANDI: and_immediate(t); break;
    case ISA_ADDIW: add_immediate_word(t); break;
    case ISA_SLLI: shift_left(t); break;
    case ISA_SRLI: shift_immediate(t, X64_SHR, W); break;
    case ISA_SRAI: shift_immediate(t, X64_SAR, W); break;
    case ISA_SLLIW: shift_immediate(t, X64_SHL, 0); break;
    case ISA_SRLIW: shift_immediate(t, X64_SHR, 0); break;
    case ISA_SRAIW: shift_immediate(t, X64_SAR, 0); break;
    case ISA_ADD: add(t, W); break;
    case ISA_SUB: subtract(t, W); break;
    case ISA_XOR: join(t, X64_XOR); break;
    case ISA_OR: join(t, X64_OR); break;
    case ISA_AND: alu(t, X64_AND, W); break;
    case ISA_ADDW: add(t, 0); break;
    case ISA_SUBW: subtract(t, 0); break;
    case ISA_SLT: set_if_less(t, X64_C_L); break;
    case ISA_SLTU:
        if (t->insn.rs1 == 0)
            not_zero(t);
        else
            set_if_less(t, X64_C_B);
        break;
    case ISA_SLL: shift_plain(t, X64_SHL, W); break;
    case ISA_SRL: shift_plain(t, X64_SHR, W); break;
    case ISA_SRA: shift_plain(t, X64_SAR, W); break;
    case ISA_SLLW: shift_plain(t, X64_SHL, 0); break;
    case ISA_SRLW: shift_plain(t, X64_SHR, 0); break;
    case ISA_SRAW: shift_plain(t, X64_SAR, 0); break;
    case ISA_MUL: alu(t, X64_IMUL, W); break;
    case ISA_MULW: alu(t, X64_IMUL, 0); break;
    case ISA_MULH: multiply_high(t, X64_IMUL1); break;
    case ISA_MULHU: multiply_high(t, X64_MUL); break;
    case ISA_MULHSU: multiply_high_mixed(t); break;
    case ISA_DIV: divide(t, true, false, W); break;
    case ISA_DIVU: divide(t, false, false, W); break;
    case ISA_REM: divide(t, true, true, W); break;
    case ISA_REMU: divide(t, false, true, W); break;
    case ISA_DIVW: divide(t, true, false, 0); break;
    case ISA_DIVUW: divide(t, false, false, 0); break;
    case ISA_REMW: divide(t, true, true, 0); break;
    case ISA_REMUW: divide(t, false, true, 0); break;
    case ISA_ADD_UW: shift_add(t, t->insn.rs2, 0, true); break;
    case ISA_SH1ADD: shift_add(t, t->insn.rs2, 1, false); break;
    case ISA_SH2ADD: shift_add(t, t->insn.rs2, 2, false); break;
    case ISA_SH3ADD: shift_add(t, t->insn.rs2, 3, false); break;
    case ISA_SH1ADD_UW: shift_add(t, t->insn.rs2, 1, true); break;
    case ISA_SH2ADD_UW: shift_add(t, t->insn.rs2, 2, true); break;
    case ISA_SH3ADD_UW: shift_add(t, t->insn.rs2, 3, true); break;
    case ISA_SLLI_UW: shift_word_unsigned(t, t->insn.imm); break;
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
    case ISA_ORC_B: or_combine(t); break;
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
