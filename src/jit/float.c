// SPDX-License-Identifier: BSD-2-Clause
// Translation of floating point to scalar AVX and FMA. How flags and rounding come out right is
// told in fp.c; what the host does otherwise is put right here:
// - A NaN that the host computed is replaced by the canonical one, out of line.
// - A fused inf * 0 + NaN is invalid here, not there: a helper does what gives a NaN.
// - The host's minimum and maximum know neither NaNs nor the order of zeros.
// - A conversion to integer that is out of range saturates: a helper does it, as it does all
//   operands of unsigned conversions that the host's signed ones cannot have.
// - A single that is not NaN-boxed (Unprivileged ISA 21.2) ends the block: the interpreter does it.
//   A single's upper half comes from one of its operands in most of the host's operations, and so
//   results are boxed for free.
//
// While jit->fp_ready, some of f[] is in xmm registers, and may be stored late (late.c).
#include "jit/translator.h"

static_assert(HART_MSTATUS_FS <= INT32_MAX, "FS is tested in the low word of mstatus");

enum { RNE, RTZ, RDN, RUP, DYNAMIC = 7 };

// xmm0 to xmm2 are free within an instruction's translation.
#define SCRATCH 0u
#define LEFT 1u
#define RIGHT 2u

static unsigned scalar(bool single)
{
    return single ? X64_SS : X64_SD;
}

// ---- Whether it may be done

// For what only reads: illegal where FS is Off. FS changes by CSR instructions and traps only, so
// looking once is enough.
static void need_fp(struct jit_translator *t)
{
    if (t->fp_checked)
        return;
    t->fp_checked = true;
    x64_test_mem_imm(&t->x64, X64_RBP, HART_FIELD(mstatus), (int32_t)HART_MSTATUS_FS);
    jit_stub_call(t, jit_site_add(t, jit_help_illegal), x64_jcc_forward(&t->x64, X64_C_E));
}

static uint8_t *jump_unless_ready(struct jit_translator *t)
{
    x64_rip_cmp8_imm(&t->x64, &t->jit->fp_ready, true);
    t->fp_checked = t->fp_ready = true;
    return x64_jcc_forward(&t->x64, X64_C_NE);
}

// For what computes or writes f[].
void jit_need_fp_ready(struct jit_translator *t)
{
    if (!t->fp_ready)
        jit_stub_call(t, jit_site_add(t, jit_help_fp_ready), jump_unless_ready(t));
}

void jit_enter_fp_ready(struct jit_translator *t)
{
    jit_stub_call(t, jit_site_add(t, jit_help_fp_loop), jump_unless_ready(t));
}

static unsigned register_bit(unsigned reg)
{
    return 1u << reg;
}

// eax = what is set in the upper halves of all of these.
static void and_upper_halves(struct jit_translator *t, unsigned regs)
{
    bool first = true;

    for (; regs; regs &= regs - 1, first = false) {
        unsigned reg = (unsigned)__builtin_ctz(regs);

        if (!(t->late.stores & register_bit(reg))) {
            x64_rm(&t->x64, first ? X64_MOV : X64_AND, X64_RAX, X64_RBP, HART_F(reg) + 4);
            continue;
        }
        x64_rr(&t->x64, X64_MOVQ_FROM_XMM, (unsigned)jit_pinned_f(reg), X64_RCX);
        x64_shift_imm(&t->x64, X64_SHR, W, X64_RCX, 32);
        x64_rr(&t->x64, first ? X64_MOV : X64_AND, X64_RAX, X64_RCX);
    }
}

// Singles among the operands must be boxed.
static void need_boxed(struct jit_translator *t)
{
    const unsigned flags = isa_op_flags(t->insn.op);
    const unsigned regs = (flags & ISA_FRS1 ? register_bit(t->insn.rs1) : 0) |
                          (flags & ISA_FRS2 ? register_bit(t->insn.rs2) : 0) |
                          (flags & ISA_FRS3 ? register_bit(t->insn.rs3) : 0);
    unsigned unknown = regs & ~t->boxed;

    if (!unknown)
        return;
    jit_late_check(t, unknown);
    t->boxed |= unknown;
    and_upper_halves(t, unknown);
    x64_alu_imm(&t->x64, X64_I_CMP, 0, X64_RAX, -1);
    jit_stub_call(t, jit_site_add(t, jit_help_step), x64_jcc_forward(&t->x64, X64_C_NE));
}

// ---- f[]

// f[reg] as a register that must not be changed: `scratch` where it is in memory only.
static unsigned source_f(struct jit_translator *t, unsigned reg, unsigned scratch)
{
    int pin = jit_pinned_f(reg);

    if (pin >= 0)
        return (unsigned)pin;
    x64_vex_rm(&t->x64, X64_VMOV_LOAD | X64_SD, scratch, 0, X64_RBP, HART_F(reg));
    return scratch;
}

static void copy(struct jit_translator *t, unsigned to, unsigned from)
{
    if (to != from)
        x64_vex(&t->x64, X64_VMOVAPS, to, 0, from);
}

// opcode host, left, f[reg]
static void op_f(struct jit_translator *t, unsigned opcode, unsigned host, unsigned left,
                 unsigned reg)
{
    int pin = jit_pinned_f(reg);

    if (pin >= 0)
        x64_vex(&t->x64, opcode, host, left, (unsigned)pin);
    else
        x64_vex_rm(&t->x64, opcode, host, left, X64_RBP, HART_F(reg));
}

// Where to compute f[rd]; `scratch` where it is in memory only.
static unsigned target_f(const struct jit_translator *t, unsigned scratch)
{
    int pin = jit_pinned_f(t->insn.rd);

    return pin >= 0 ? (unsigned)pin : scratch;
}

static void finish_f(struct jit_translator *t, bool single, unsigned host)
{
    int pin = jit_pinned_f(t->insn.rd);

    if (pin >= 0) {
        copy(t, (unsigned)pin, host);
        jit_late_written(t, t->insn.rd);
    } else {
        x64_vex_rm(&t->x64, X64_VMOV_STORE | X64_SD, host, 0, X64_RBP, HART_F(t->insn.rd));
    }
    if (single)
        t->boxed |= register_bit(t->insn.rd);
    else
        t->boxed &= ~register_bit(t->insn.rd);
}

static void set_all_ones(struct jit_translator *t, unsigned host)
{
    x64_vex(&t->x64, X64_VPCMPEQD, host, host, host);
}

// ---- Loads, stores and moves

static void load_fp(struct jit_translator *t, bool single)
{
    uint8_t *not_ready = t->fp_ready ? NULL : jump_unless_ready(t);
    struct jit_access access = jit_access_begin(t, single ? 4 : 8, HART_LOAD);
    unsigned host = target_f(t, SCRATCH);

    if (single) {
        set_all_ones(t, RIGHT);
        jit_access_do(t, &access, X64_VMOV_LOAD | X64_SS, LEFT);
        x64_vex(&t->x64, X64_VMOV_LOAD | X64_SS, host, RIGHT, LEFT);
    } else {
        jit_access_do(t, &access, X64_VMOV_LOAD | X64_SD, host);
    }
    // Where the access is not made, what was late before it still is.
    if (jit_pinned_f(t->insn.rd) < 0)
        finish_f(t, single, host);
    jit_access_end(t, &access);
    if (jit_pinned_f(t->insn.rd) >= 0)
        finish_f(t, single, host);
    if (not_ready) {
        struct jit_site *site = jit_site_add(t, jit_help_fp_load);

        // What the check inline has found is not known there.
        site->leaves = t->jit->check;
        jit_stub_call(t, site, not_ready);
    }
}

static void store_fp(struct jit_translator *t, bool single)
{
    struct jit_access access;
    unsigned host = SCRATCH;

    need_fp(t);
    jit_late_check(t, register_bit(t->insn.rs2));
    access = jit_access_begin(t, single ? 4 : 8, HART_STORE);
    if (t->fp_ready)
        host = source_f(t, t->insn.rs2, SCRATCH);
    else
        x64_vex_rm(&t->x64, X64_VMOV_LOAD | X64_SD, host, 0, X64_RBP, HART_F(t->insn.rs2));
    jit_access_do(t, &access, X64_VMOV_STORE | scalar(single), host);
    jit_access_end(t, &access);
}

static void move_to_x(struct jit_translator *t, bool single)
{
    int pin = jit_pinned_f(t->insn.rs1);
    unsigned host = target(t);

    need_fp(t);
    jit_late_check(t, register_bit(t->insn.rs1));
    if (t->fp_ready && pin >= 0) {
        x64_rr(&t->x64, X64_MOVQ_FROM_XMM, (unsigned)pin, host);
        if (single)
            x64_rr(&t->x64, X64_MOVSXD, host, host);
    } else {
        x64_rm(&t->x64, single ? X64_MOVSXD : X64_MOV | W, host, X64_RBP, HART_F(t->insn.rs1));
    }
    finish(t, host);
}

static void move_from_x(struct jit_translator *t, bool single)
{
    unsigned host = target_f(t, SCRATCH);

    jit_need_fp_ready(t);
    x64_rr(&t->x64, X64_MOVQ_TO_XMM, single ? LEFT : host, source(t, t->insn.rs1, X64_RAX));
    if (single) {
        set_all_ones(t, RIGHT);
        x64_vex(&t->x64, X64_VMOV_LOAD | X64_SS, host, RIGHT, LEFT);
    }
    finish_f(t, single, host);
}

enum sign { SIGN_COPY, SIGN_NEGATE, SIGN_XOR };

// The sign's bit alone; of a single, with nothing in the upper half.
static void set_sign_mask(struct jit_translator *t, bool single, unsigned host)
{
    set_all_ones(t, host);
    x64_vex_imm(&t->x64, X64_VPSHIFTQ, X64_PSLLQ, host, host, 63);
    if (single)
        x64_vex_imm(&t->x64, X64_VPSHIFTQ, X64_PSRLQ, host, host, 32);
}

static void inject_sign(struct jit_translator *t, bool single, enum sign sign)
{
    struct x64 *x64 = &t->x64;
    bool same = t->insn.rs1 == t->insn.rs2;
    unsigned host = target_f(t, SCRATCH), left, right;

    jit_need_fp_ready(t);
    if (single)
        need_boxed(t);
    jit_late_check(t, register_bit(t->insn.rs1) | register_bit(t->insn.rs2));
    left = source_f(t, t->insn.rs1, LEFT);
    if (same && sign == SIGN_COPY) {
        finish_f(t, single, left);
        return;
    }
    set_sign_mask(t, single, RIGHT);
    if (same) {
        x64_vex(x64, sign == SIGN_NEGATE ? X64_VXORPS : X64_VANDNPS, host, RIGHT, left);
    } else {
        right = source_f(t, t->insn.rs2, SCRATCH);
        x64_vex(x64, sign == SIGN_NEGATE ? X64_VANDNPS : X64_VANDPS, SCRATCH, right, RIGHT);
        if (sign != SIGN_XOR)
            x64_vex(x64, X64_VANDNPS, LEFT, RIGHT, left);
        x64_vex(x64, X64_VXORPS, host, sign == SIGN_XOR ? left : LEFT, SCRATCH);
    }
    finish_f(t, single, host);
}

// ---- Called

static void call_fp(struct jit_translator *t)
{
    need_fp(t);
    jit_call_helper(t, jit_help_fp);
    if (isa_op_flags(t->insn.op) & ISA_FRD)
        t->boxed &= ~register_bit(t->insn.rd);
}

// All of it where the host cannot.
static void call_any(struct jit_translator *t)
{
    need_fp(t);
    if (isa_op_flags(t->insn.op) & ISA_LOAD)
        jit_call_helper(t, jit_help_load);
    else if (isa_op_flags(t->insn.op) & ISA_STORE)
        jit_call_helper(t, jit_help_store);
    else
        jit_call_helper(t, jit_help_fp);
}

// ---- Arithmetic

// The host's rounding mode is the dynamic one. Of the static ones only to nearest even is worth
// more than a helper: where it is the dynamic one too. `site` is what does it where not.
static bool rounds_elsewhere(const struct jit_translator *t)
{
    return t->insn.rm != DYNAMIC && t->insn.rm != RNE;
}

static void need_rounding(struct jit_translator *t, const struct jit_site *site,
                          struct jit_stub **stub)
{
    *stub = NULL;
    if (t->insn.rm == DYNAMIC)
        return;
    x64_cmp_mem8_imm(&t->x64, X64_RBP, HART_FIELD(frm), RNE);
    *stub = jit_stub_add(t, JIT_STUB_CALL, x64_jcc_forward(&t->x64, X64_C_NE));
    (*stub)->site = site;
}

static bool is_operand(const struct jit_translator *t, unsigned reg)
{
    return reg == t->insn.rs1 || reg == t->insn.rs2 || reg == t->insn.rs3;
}

// `emit` computes into `host`.
static void arithmetic(struct jit_translator *t, bool single, unsigned opcode,
                       void (*emit)(struct jit_translator *t, bool single, unsigned opcode,
                                    unsigned host))
{
    bool fused = isa_op_flags(t->insn.op) & ISA_FRS3;
    bool deferred = !fused && jit_late_may_defer(t, t->insn.rd);
    unsigned host = fused && is_operand(t, t->insn.rd) ? SCRATCH : target_f(t, SCRATCH);
    const struct jit_site *site = NULL;
    struct jit_stub *rounding, *nan = NULL;

    if (rounds_elsewhere(t)) {
        call_fp(t);
        return;
    }
    jit_need_fp_ready(t);
    if (single != (opcode == X64_VCVT))
        need_boxed(t);
    if (fused || t->insn.rm != DYNAMIC)
        site = jit_site_add(t, jit_help_fp);
    need_rounding(t, site, &rounding);
    emit(t, single, opcode, host);
    // In its place what was to be looked at is gone.
    if (host != SCRATCH)
        jit_late_written(t, t->insn.rd);
    if (fused) {
        x64_vex(&t->x64, single ? X64_VUCOMISS : X64_VUCOMISD, host, 0, host);
        nan = jit_stub_add(t, JIT_STUB_CALL, x64_jcc_forward(&t->x64, X64_C_P));
        nan->site = site;
    } else if (!deferred) {
        jit_late_canonical(t, single, host);
    }
    finish_f(t, single, host);
    if (deferred)
        jit_late_unchecked(t, t->insn.rd, single);
    if (rounding)
        rounding->resume = x64_here(&t->x64);
    if (nan)
        nan->resume = x64_here(&t->x64);
}

static void emit_two(struct jit_translator *t, bool single, unsigned opcode, unsigned host)
{
    op_f(t, opcode | scalar(single), host, source_f(t, t->insn.rs1, LEFT), t->insn.rs2);
}

static void emit_sqrt(struct jit_translator *t, bool single, unsigned opcode, unsigned host)
{
    unsigned operand = source_f(t, t->insn.rs1, LEFT);

    x64_vex(&t->x64, opcode | scalar(single), host, operand, operand);
}

static void emit_narrow(struct jit_translator *t, bool single, unsigned opcode, unsigned host)
{
    (void)single;
    set_all_ones(t, RIGHT);
    op_f(t, opcode | X64_SD, host, RIGHT, t->insn.rs1);
}

static void emit_widen(struct jit_translator *t, bool single, unsigned opcode, unsigned host)
{
    unsigned operand = source_f(t, t->insn.rs1, LEFT);

    (void)single;
    x64_vex(&t->x64, opcode | X64_SS, host, operand, operand);
}

// The host has the result in one of the operands' registers; what the helper may need stays.
static void emit_fused(struct jit_translator *t, bool single, unsigned opcode, unsigned host)
{
    const struct isa_insn *insn = &t->insn;

    opcode |= single ? 0 : W;
    copy(t, host, source_f(t, insn->rs1, host));
    op_f(t, opcode, host, source_f(t, insn->rs2, RIGHT), insn->rs3);
}

// Unprivileged ISA 21.6: a number is preferred to a NaN, and -0 is less than +0. The host's
// operation gives its second operand if both are equal: both orders are computed, and what differs
// then is the sign.
static void select(struct jit_translator *t, bool single, unsigned opcode, unsigned merge)
{
    struct x64 *x64 = &t->x64;
    unsigned host = target_f(t, LEFT), left, right;
    struct jit_stub *nan;

    jit_need_fp_ready(t);
    if (single)
        need_boxed(t);
    left = source_f(t, t->insn.rs1, LEFT);
    right = source_f(t, t->insn.rs2, RIGHT);
    x64_vex(x64, single ? X64_VUCOMISS : X64_VUCOMISD, left, 0, right);
    nan = jit_stub_add(t, JIT_STUB_CALL, x64_jcc_forward(x64, X64_C_P));
    nan->site = jit_site_add(t, jit_help_fp);
    x64_vex(x64, opcode | scalar(single), SCRATCH, left, right);
    x64_vex(x64, opcode | scalar(single), host, right, left);
    x64_vex(x64, merge, host, host, SCRATCH);
    finish_f(t, single, host);
    nan->resume = x64_here(x64);
}

// ---- To integer registers

// f[rs1] is compared with f[rs2], or with `swapped` the other way round. `site` is for NaNs.
static void compare_f(struct jit_translator *t, bool single, enum x64_condition condition,
                      bool swapped, const struct jit_site *site)
{
    unsigned left = swapped ? t->insn.rs2 : t->insn.rs1;
    unsigned right = swapped ? t->insn.rs1 : t->insn.rs2, host = target(t);
    uint8_t *nan;

    jit_need_fp_ready(t);
    if (single)
        need_boxed(t);
    op_f(t, single ? X64_VUCOMISS : X64_VUCOMISD, source_f(t, left, LEFT), 0, right);
    nan = x64_jcc_forward(&t->x64, X64_C_P);
    x64_setcc(&t->x64, condition, X64_RAX);
    x64_rr(&t->x64, X64_MOVZX_8, host, X64_RAX);
    finish(t, host);
    jit_stub_call(t, site, nan);
}

static void compare(struct jit_translator *t, jit_helper *helper, unsigned saved)
{
    struct jit_site *site = jit_site_add(t, helper);

    site->insn.rs3 = (uint8_t)saved;
    switch (t->insn.op) {
    case ISA_FEQ_S:
    case ISA_FEQ_D:
        compare_f(t, t->insn.op == ISA_FEQ_S, X64_C_E, false, site);
        break;
    case ISA_FLT_S:
    case ISA_FLT_D:
        compare_f(t, t->insn.op == ISA_FLT_S, X64_C_A, true, site);
        break;
    default:
        compare_f(t, t->insn.op == ISA_FLE_S, X64_C_AE, true, site);
    }
}

void jit_compare_quietly(struct jit_translator *t, unsigned saved)
{
    compare(t, jit_help_fp_quiet, saved);
}

static bool rounds_first(const struct jit_translator *t)
{
    return t->insn.rm != DYNAMIC && t->insn.rm != RTZ;
}

// The operand, rounded to an integer where the conversion itself cannot. Inexact only where `raise`
// says so.
static unsigned round_f(struct jit_translator *t, bool single, bool raise)
{
    static const uint8_t modes[] = {[RNE] = 0, [RDN] = 1, [RUP] = 2};
    const uint8_t quiet = 8;
    unsigned operand = source_f(t, t->insn.rs1, LEFT);

    if (!rounds_first(t))
        return operand;
    x64_vex_imm(&t->x64, single ? X64_VROUNDSS : X64_VROUNDSD, RIGHT, operand, operand,
                modes[t->insn.rm] | (raise ? 0 : quiet));
    return RIGHT;
}

static unsigned to_integer_opcode(const struct jit_translator *t, bool single)
{
    return (t->insn.rm == DYNAMIC ? X64_VCVT_TO_INT : X64_VCVT_TRUNCATE) | scalar(single);
}

// The host gives the least integer for what is out of range, and raises invalid alone, as the guest
// does: inexact is raised only once that is known not to be so.
static void to_signed(struct jit_translator *t, bool single, unsigned width)
{
    struct x64 *x64 = &t->x64;
    struct jit_stub *stub;
    unsigned host = target(t);

    if (t->insn.rm > RUP && t->insn.rm != DYNAMIC) {
        call_fp(t);
        return;
    }
    jit_need_fp_ready(t);
    if (single)
        need_boxed(t);
    x64_vex(x64, to_integer_opcode(t, single) | width, X64_RAX, 0, round_f(t, single, false));
    x64_alu_imm(x64, X64_I_CMP, width, X64_RAX, 1);
    stub = jit_stub_add(t, JIT_STUB_CALL, x64_jcc_forward(x64, X64_C_O));
    stub->site = jit_site_add(t, jit_help_fp);
    if (rounds_first(t))
        round_f(t, single, true);
    if (!width)
        x64_rr(x64, X64_MOVSXD, host, X64_RAX);
    finish(t, width ? X64_RAX : host);
    stub->resume = x64_here(x64);
}

// Positive numbers that convert to less than 2^32, or 2^63, whatever the rounding mode; and then
// the host's conversion to signed doublewords does it.
static void to_unsigned(struct jit_translator *t, bool single, unsigned width)
{
    const uint64_t max_double = width ? 0x43dfffffffffffff : 0x41efffffffe00000;
    const uint64_t max_single = width ? 0x5effffff : 0x4f7fffff;
    struct x64 *x64 = &t->x64;
    struct jit_stub *stub;
    unsigned host = target(t);

    if (t->insn.rm > RUP && t->insn.rm != DYNAMIC) {
        call_fp(t);
        return;
    }
    jit_need_fp_ready(t);
    if (single)
        need_boxed(t);
    if (jit_pinned_f(t->insn.rs1) >= 0)
        x64_rr(x64, X64_MOVQ_FROM_XMM, (unsigned)jit_pinned_f(t->insn.rs1), X64_RAX);
    else
        x64_rm(x64, X64_MOV | W, X64_RAX, X64_RBP, HART_F(t->insn.rs1));
    if (single)
        x64_rr(x64, X64_MOV, X64_RAX, X64_RAX);
    x64_mov_imm(x64, X64_RCX, single ? max_single : max_double);
    x64_rr(x64, X64_CMP | W, X64_RAX, X64_RCX);
    stub = jit_stub_add(t, JIT_STUB_CALL, x64_jcc_forward(x64, X64_C_A));
    stub->site = jit_site_add(t, jit_help_fp);
    x64_vex(x64, to_integer_opcode(t, single) | W, X64_RAX, 0, round_f(t, single, true));
    if (!width)
        x64_rr(x64, X64_MOVSXD, host, X64_RAX);
    finish(t, width ? X64_RAX : host);
    stub->resume = x64_here(x64);
}

// ---- From integer registers

// rax = the operand as a signed doubleword. Returns a jump for unsigned ones that are none.
static uint8_t *load_integer(struct jit_translator *t, unsigned width, bool is_signed)
{
    load_x(t, X64_RAX, t->insn.rs1);
    if (!width && is_signed)
        x64_rr(&t->x64, X64_MOVSXD, X64_RAX, X64_RAX);
    if (!width && !is_signed)
        x64_rr(&t->x64, X64_MOV, X64_RAX, X64_RAX);
    if (!width || is_signed)
        return NULL;
    x64_rr(&t->x64, X64_TEST | W, X64_RAX, X64_RAX);
    return x64_jcc_forward(&t->x64, X64_C_S);
}

// A static rounding mode does not matter to what is exact: |rax| is not more than 2^bits. Returns a
// jump for others.
static uint8_t *need_exact(struct jit_translator *t, unsigned bits)
{
    struct x64 *x64 = &t->x64;

    x64_rr(x64, X64_MOV | W, X64_RCX, X64_RAX);
    x64_shift_imm(x64, X64_SAR, W, X64_RCX, bits);
    x64_alu_imm(x64, X64_I_ADD, W, X64_RCX, 1);
    x64_alu_imm(x64, X64_I_CMP, W, X64_RCX, 1);
    return x64_jcc_forward(x64, X64_C_A);
}

static void from_integer(struct jit_translator *t, bool single, unsigned width, bool is_signed)
{
    const unsigned max_magnitude = 4, double_bits = 53, single_bits = 24;
    bool always_exact = !single && !width;
    unsigned host = target_f(t, SCRATCH);
    const struct jit_site *site;
    uint8_t *places[2] = {NULL};

    if (t->insn.rm > max_magnitude && t->insn.rm != DYNAMIC) {
        call_fp(t);
        return;
    }
    jit_need_fp_ready(t);
    site = jit_site_add(t, jit_help_fp);
    places[0] = load_integer(t, width, is_signed);
    if (t->insn.rm != DYNAMIC && !always_exact)
        places[1] = need_exact(t, single ? single_bits : double_bits);
    set_all_ones(t, RIGHT);
    x64_vex(&t->x64, X64_VCVT_FROM_INT | scalar(single) | W, host, RIGHT, X64_RAX);
    finish_f(t, single, host);
    for (size_t i = 0; i < BASE_COUNT_OF(places); i++)
        if (places[i])
            jit_stub_call(t, site, places[i]);
}

// ---- The table

// clang-format off
static void translate_single(struct jit_translator *t)
{
    switch (t->insn.op) {
    case ISA_FLW: load_fp(t, true); break;
    case ISA_FSW: store_fp(t, true); break;
    case ISA_FMV_X_W: move_to_x(t, true); break;
    case ISA_FMV_W_X: move_from_x(t, true); break;
    case ISA_FSGNJ_S: inject_sign(t, true, SIGN_COPY); break;
    case ISA_FSGNJN_S: inject_sign(t, true, SIGN_NEGATE); break;
    case ISA_FSGNJX_S: inject_sign(t, true, SIGN_XOR); break;
    case ISA_FADD_S: arithmetic(t, true, X64_VADD, emit_two); break;
    case ISA_FSUB_S: arithmetic(t, true, X64_VSUB, emit_two); break;
    case ISA_FMUL_S: arithmetic(t, true, X64_VMUL, emit_two); break;
    case ISA_FDIV_S: arithmetic(t, true, X64_VDIV, emit_two); break;
    case ISA_FSQRT_S: arithmetic(t, true, X64_VSQRT, emit_sqrt); break;
    case ISA_FMADD_S: arithmetic(t, true, X64_VFMADD, emit_fused); break;
    case ISA_FMSUB_S: arithmetic(t, true, X64_VFMSUB, emit_fused); break;
    case ISA_FNMSUB_S: arithmetic(t, true, X64_VFNMADD, emit_fused); break;
    case ISA_FNMADD_S: arithmetic(t, true, X64_VFNMSUB, emit_fused); break;
    case ISA_FCVT_S_D: arithmetic(t, true, X64_VCVT, emit_narrow); break;
    case ISA_FMIN_S: select(t, true, X64_VMIN, X64_VORPS); break;
    case ISA_FMAX_S: select(t, true, X64_VMAX, X64_VANDPS); break;
    case ISA_FEQ_S: case ISA_FLT_S: case ISA_FLE_S: compare(t, jit_help_fp, 0); break;
    case ISA_FCVT_W_S: to_signed(t, true, 0); break;
    case ISA_FCVT_L_S: to_signed(t, true, W); break;
    case ISA_FCVT_WU_S: to_unsigned(t, true, 0); break;
    case ISA_FCVT_LU_S: to_unsigned(t, true, W); break;
    case ISA_FCVT_S_W: from_integer(t, true, 0, true); break;
    case ISA_FCVT_S_WU: from_integer(t, true, 0, false); break;
    case ISA_FCVT_S_L: from_integer(t, true, W, true); break;
    case ISA_FCVT_S_LU: from_integer(t, true, W, false); break;
    default: call_fp(t);
    }
}

static void translate_double(struct jit_translator *t)
{
    switch (t->insn.op) {
    case ISA_FLD: load_fp(t, false); break;
    case ISA_FSD: store_fp(t, false); break;
    case ISA_FMV_X_D: move_to_x(t, false); break;
    case ISA_FMV_D_X: move_from_x(t, false); break;
    case ISA_FSGNJ_D: inject_sign(t, false, SIGN_COPY); break;
    case ISA_FSGNJN_D: inject_sign(t, false, SIGN_NEGATE); break;
    case ISA_FSGNJX_D: inject_sign(t, false, SIGN_XOR); break;
    case ISA_FADD_D: arithmetic(t, false, X64_VADD, emit_two); break;
    case ISA_FSUB_D: arithmetic(t, false, X64_VSUB, emit_two); break;
    case ISA_FMUL_D: arithmetic(t, false, X64_VMUL, emit_two); break;
    case ISA_FDIV_D: arithmetic(t, false, X64_VDIV, emit_two); break;
    case ISA_FSQRT_D: arithmetic(t, false, X64_VSQRT, emit_sqrt); break;
    case ISA_FMADD_D: arithmetic(t, false, X64_VFMADD, emit_fused); break;
    case ISA_FMSUB_D: arithmetic(t, false, X64_VFMSUB, emit_fused); break;
    case ISA_FNMSUB_D: arithmetic(t, false, X64_VFNMADD, emit_fused); break;
    case ISA_FNMADD_D: arithmetic(t, false, X64_VFNMSUB, emit_fused); break;
    case ISA_FCVT_D_S: arithmetic(t, false, X64_VCVT, emit_widen); break;
    case ISA_FMIN_D: select(t, false, X64_VMIN, X64_VORPS); break;
    case ISA_FMAX_D: select(t, false, X64_VMAX, X64_VANDPS); break;
    case ISA_FEQ_D: case ISA_FLT_D: case ISA_FLE_D: compare(t, jit_help_fp, 0); break;
    case ISA_FCVT_W_D: to_signed(t, false, 0); break;
    case ISA_FCVT_L_D: to_signed(t, false, W); break;
    case ISA_FCVT_WU_D: to_unsigned(t, false, 0); break;
    case ISA_FCVT_LU_D: to_unsigned(t, false, W); break;
    case ISA_FCVT_D_W: from_integer(t, false, 0, true); break;
    case ISA_FCVT_D_WU: from_integer(t, false, 0, false); break;
    case ISA_FCVT_D_L: from_integer(t, false, W, true); break;
    case ISA_FCVT_D_LU: from_integer(t, false, W, false); break;
    default: translate_single(t);
    }
}
// clang-format on

bool jit_translate_float(struct jit_translator *t)
{
    if (!(isa_op_flags(t->insn.op) & ISA_FP))
        return false;
    if (t->jit->cpu & JIT_CPU_FMA)
        translate_double(t);
    else
        call_any(t);
    return true;
}
