// SPDX-License-Identifier: BSD-2-Clause
// Translation of floating point: loads, stores, moves and plain doubles are here, other arithmetic
// is called.
#include "jit/translator.h"

static_assert(HART_MSTATUS_FS <= INT32_MAX, "FS is tested in the low word of mstatus");

// Illegal where FS is Off. FS changes by CSR instructions and traps only, so looking once is
// enough.
static void check_fp(struct jit_translator *t)
{
    struct jit_stub *stub;

    if (t->fp_checked)
        return;
    t->fp_checked = true;
    x64_test_mem_imm(&t->x64, X64_RBP, HART_FIELD(mstatus), (int32_t)HART_MSTATUS_FS);
    stub = jit_stub_add(t, JIT_STUB_CALL, x64_jcc_forward(&t->x64, X64_C_E));
    stub->site = jit_site_add(t, jit_help_illegal);
    stub->resume = x64_here(&t->x64);
}

static void set_fp_dirty(struct jit_translator *t)
{
    if (!t->fp_dirty)
        x64_alu_mem_imm(&t->x64, X64_I_OR, 0, X64_RBP, HART_FIELD(mstatus),
                        (int32_t)HART_MSTATUS_FS);
    t->fp_dirty = true;
}

static void load_f(struct jit_translator *t, unsigned host, unsigned reg)
{
    x64_rm(&t->x64, X64_MOV | W, host, X64_RBP, HART_F(reg));
}

static void finish_f(struct jit_translator *t, unsigned host)
{
    x64_rm(&t->x64, X64_STORE_64, host, X64_RBP, HART_F(t->insn.rd));
    set_fp_dirty(t);
}

// NaN-boxes the single in eax: Unprivileged ISA 22.2. Spoils rcx.
static void finish_single(struct jit_translator *t)
{
    x64_mov_imm(&t->x64, X64_RCX, 0xffffffff00000000);
    x64_rr(&t->x64, X64_OR | W, X64_RAX, X64_RCX);
    finish_f(t, X64_RAX);
}

static void load_fp(struct jit_translator *t, bool single)
{
    struct jit_access access;

    check_fp(t);
    access = jit_access_begin(t, single ? 4 : 8, HART_LOAD);
    jit_access_do(t, &access, X64_MOV | (single ? 0 : W), X64_RAX);
    if (single)
        finish_single(t);
    else
        finish_f(t, X64_RAX);
    jit_access_end(t, &access);
}

static void store_fp(struct jit_translator *t, bool single)
{
    struct jit_access access;

    check_fp(t);
    access = jit_access_begin(t, single ? 4 : 8, HART_STORE);
    load_f(t, X64_RDX, t->insn.rs2);
    jit_access_do(t, &access, single ? X64_STORE_32 : X64_STORE_64, X64_RDX);
    jit_access_end(t, &access);
}

static void move_to_x(struct jit_translator *t, bool single)
{
    unsigned host = target(t);

    check_fp(t);
    x64_rm(&t->x64, single ? X64_MOVSXD : X64_MOV | W, host, X64_RBP, HART_F(t->insn.rs1));
    finish(t, host);
}

static void move_from_x(struct jit_translator *t, bool single)
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
static void move_double(struct jit_translator *t)
{
    check_fp(t);
    load_f(t, X64_RAX, t->insn.rs1);
    finish_f(t, X64_RAX);
}

static void compute_fp(struct jit_translator *t)
{
    check_fp(t);
    jit_call_helper(t, jit_help_fp);
}

static void compute_on_host(struct jit_translator *t, jit_helper *helper)
{
    check_fp(t);
    jit_call_helper(t, t->jit->cpu & JIT_CPU_FMA ? helper : jit_help_fp);
}

// fp.c's argument, inline for doubles: where the guest's inexact flag is set and the result is
// plain, there are no flags to raise. A static rounding mode other than to nearest even is not for
// here.
static bool rounds_to_even(struct jit_translator *t)
{
    const unsigned dynamic = 7;

    return t->jit->cpu & JIT_CPU_FMA && (t->insn.rm == 0 || t->insn.rm == dynamic);
}

static struct jit_stub *stub_for_fp(struct jit_translator *t, const struct jit_site *site,
                                    uint8_t *place)
{
    struct jit_stub *stub = jit_stub_add(t, JIT_STUB_CALL, place);

    stub->site = site;
    return stub;
}

// `emit` puts the result into xmm0.
static void compute_double(struct jit_translator *t,
                           void (*emit)(struct jit_translator *t, unsigned opcode), unsigned opcode)
{
    struct x64 *x64 = &t->x64;
    const struct jit_site *site;
    struct jit_stub *stubs[3] = {NULL};

    if (!rounds_to_even(t)) {
        compute_fp(t);
        return;
    }
    check_fp(t);
    site = jit_site_add(t, jit_help_fp_double);
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

static void emit_double(struct jit_translator *t, unsigned opcode)
{
    x64_rm(&t->x64, X64_MOVSD_LOAD, 0, X64_RBP, HART_F(t->insn.rs1));
    x64_rm(&t->x64, opcode, 0, X64_RBP, HART_F(t->insn.rs2));
}

static void emit_fused(struct jit_translator *t, unsigned opcode)
{
    x64_rm(&t->x64, X64_MOVSD_LOAD, 0, X64_RBP, HART_F(t->insn.rs3));
    x64_rm(&t->x64, X64_MOVSD_LOAD, 1, X64_RBP, HART_F(t->insn.rs1));
    x64_fma_mem(&t->x64, opcode, X64_RBP, HART_F(t->insn.rs2));
}

// clang-format off
bool jit_translate_float(struct jit_translator *t)
{
    switch (t->insn.op) {
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
    default: 
        if (!(isa_op_flags(t->insn.op) & ISA_FP))
            return false;
        compute_fp(t);
    }
    return true;
}
// clang-format on
