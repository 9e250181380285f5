// SPDX-License-Identifier: BSD-2-Clause
// Translation of CSR instructions. Inline are accesses that kernels and C libraries make all the
// time, as far as hart_csr would change nothing but the register: jit_help_csr does all others, and
// is called out of line where an inline one finds that there is more to do.
#include "jit/translator.h"

static_assert(HART_MSTATUS_SIE == 2 && HART_MSTATUS_SUM <= INT32_MAX &&
                  HART_MSTATUS_MXR <= INT32_MAX,
              "these are tested as immediates");
static_assert(sizeof(((struct hart *)0)->mip_lines) == 8 &&
                  sizeof(((struct hart *)0)->mip_software) == 8,
              "read as 64 bits");

enum access { READ, WRITE, SET, CLEAR };

// What the instruction does: reads alone, or changes and reads (into x0: does not).
static enum access kind_of(const struct isa_insn *insn)
{
    switch (insn->op) {
    case ISA_CSRRW:
    case ISA_CSRRWI:
        return WRITE;
    case ISA_CSRRS:
    case ISA_CSRRSI:
        return insn->rs1 ? SET : READ;
    default:
        return insn->rs1 ? CLEAR : READ;
    }
}

static bool has_immediate(const struct isa_insn *insn)
{
    return insn->op == ISA_CSRRWI || insn->op == ISA_CSRRSI || insn->op == ISA_CSRRCI;
}

// host = rs1, or the immediate.
static void load_operand(struct jit_translator *t, unsigned host)
{
    if (has_immediate(&t->insn))
        x64_mov_imm(&t->x64, host, t->insn.rs1);
    else
        load_x(t, host, t->insn.rs1);
}

// The helper counts all instructions up to this one, and goes on here only if nothing changed that
// matters to fetch or to how memory is reached. FS may have changed.
static void call_csr(struct jit_translator *t)
{
    jit_call_helper(t, jit_help_csr);
    t->counted = t->insns;
    t->fp_checked = t->fp_ready = false;
}

// Ends an instruction whose jumps at `places` (NULL: none) lead to the helper.
static void finish_inline(struct jit_translator *t, uint8_t *const *places, size_t count)
{
    const struct jit_site *site = jit_site_add(t, jit_help_csr);

    jit_count_insns(t);
    for (size_t i = 0; i < count; i++)
        if (places[i])
            jit_stub_call(t, site, places[i]);
}

static uint8_t *jump_if(struct jit_translator *t, enum x64_condition condition)
{
    return x64_jcc_forward(&t->x64, condition);
}

// ---- Registers that are nothing but a field

static int plain_field(unsigned number)
{
    switch (number) {
    case ISA_CSR_SSCRATCH:
        return HART_FIELD(sscratch);
    case ISA_CSR_SEPC:
        return HART_FIELD(sepc);
    case ISA_CSR_SCAUSE:
        return HART_FIELD(scause);
    default:
        return HART_FIELD(stval);
    }
}

static bool access_plain(struct jit_translator *t)
{
    const int field = plain_field((unsigned)t->insn.imm);
    const enum access kind = kind_of(&t->insn);

    if (t->block->variant == HART_TLB_U || kind == SET || kind == CLEAR)
        return false;
    if (kind == WRITE)
        load_operand(t, X64_RCX);
    if (kind == WRITE && t->insn.imm == ISA_CSR_SEPC)
        x64_alu_imm(&t->x64, X64_I_AND, W, X64_RCX, -2);
    if (t->insn.rd) {
        x64_rm(&t->x64, X64_MOV | W, X64_RAX, X64_RBP, field);
        finish(t, X64_RAX);
    }
    if (kind == WRITE)
        x64_rm(&t->x64, X64_STORE_64, X64_RCX, X64_RBP, field);
    return true;
}

// ---- sstatus

// host = sstatus, of mstatus in rax. SD is FS being Dirty: a carry out of FS when its lower bit is
// added. Spoils rcx.
static void load_sstatus(struct jit_translator *t, unsigned host)
{
    struct x64 *x64 = &t->x64;
    const int fs_lower = (int)HART_MSTATUS_FS_INITIAL, fs_carry = 1 << 15;

    static_assert(HART_MSTATUS_FS == 3 * HART_MSTATUS_FS_INITIAL &&
                      HART_MSTATUS_FS + (1 << 13) == 1 << 15,
                  "FS carries into bit 15, which is 0 in mstatus");
    x64_mov_imm(x64, X64_RCX, HART_SSTATUS_MASK | HART_MSTATUS_UXL);
    x64_rr(x64, X64_AND | W, X64_RCX, X64_RAX);
    x64_alu_imm(x64, X64_I_ADD, 0, X64_RAX, fs_lower);
    x64_alu_imm(x64, X64_I_AND, 0, X64_RAX, fs_carry);
    x64_shift_imm(x64, X64_SHL, W, X64_RAX, 63 - 15);
    x64_rr(x64, X64_OR | W, X64_RAX, X64_RCX);
    if (host != X64_RAX)
        x64_rr(x64, X64_MOV | W, host, X64_RAX);
}

// Jumps where an enabled interrupt may be pending, to be taken once SIE is set. What is pending for
// a device or a timer that is not in these words yet has its notice in `attention`.
static uint8_t *jump_if_pending(struct jit_translator *t)
{
    struct x64 *x64 = &t->x64;

    x64_rm(x64, X64_MOV | W, X64_RDX, X64_RBP, HART_FIELD(mip_lines));
    x64_rm(x64, X64_OR | W, X64_RDX, X64_RBP, HART_FIELD(mip_software));
    x64_rm(x64, X64_OR | W, X64_RDX, X64_RBP, HART_FIELD(timer_pending));
    x64_rm(x64, X64_TEST | W, X64_RDX, X64_RBP, HART_FIELD(mie));
    return jump_if(t, X64_C_NE);
}

static void read_sstatus(struct jit_translator *t)
{
    if (t->insn.rd == 0)
        return;
    x64_rm(&t->x64, X64_MOV | W, X64_RAX, X64_RBP, HART_FIELD(mstatus));
    load_sstatus(t, X64_RAX);
    finish(t, X64_RAX);
}

// csrrsi and csrrci of SIE: interrupts on and off.
static void switch_interrupts(struct jit_translator *t, bool on)
{
    uint8_t *pending = on ? jump_if_pending(t) : NULL;
    const int sie = (int)HART_MSTATUS_SIE;

    read_sstatus(t);
    x64_alu_mem_imm(&t->x64, on ? X64_I_OR : X64_I_AND, 0, X64_RBP, HART_FIELD(mstatus),
                    on ? sie : ~sie);
    finish_inline(t, &pending, 1);
}

// rcx = mstatus as it is to be, rdx = which bits change; rax is spoilt.
static void change_sstatus(struct jit_translator *t, enum access kind)
{
    struct x64 *x64 = &t->x64;

    load_operand(t, X64_RCX);
    x64_rm(x64, X64_MOV | W, X64_RAX, X64_RBP, HART_FIELD(mstatus));
    if (kind == WRITE) {
        x64_rr(x64, X64_XOR | W, X64_RCX, X64_RAX);
    } else if (kind == SET) {
        x64_rr(x64, X64_MOV | W, X64_RDX, X64_RAX);
        x64_unary(x64, X64_NOT, W, X64_RDX);
        x64_rr(x64, X64_AND | W, X64_RCX, X64_RDX);
    } else {
        x64_rr(x64, X64_AND | W, X64_RCX, X64_RAX);
    }
    x64_mov_imm(x64, X64_RDX, HART_SSTATUS_MASK);
    x64_rr(x64, X64_AND | W, X64_RDX, X64_RCX);
    x64_rr(x64, X64_MOV | W, X64_RCX, X64_RDX);
    x64_rr(x64, X64_XOR | W, X64_RCX, X64_RAX);
}

// SUM and MXR change how memory is reached: the helper's. FS may become another: fp_ready is no
// longer sure.
static void write_sstatus(struct jit_translator *t, enum access kind)
{
    const int reach = (int)(HART_MSTATUS_SUM | HART_MSTATUS_MXR);
    struct x64 *x64 = &t->x64;
    uint8_t *places[2], *off;

    change_sstatus(t, kind);
    x64_test_imm(x64, X64_RDX, reach);
    places[0] = jump_if(t, X64_C_NE);
    x64_test_imm(x64, X64_RCX, (int)HART_MSTATUS_SIE);
    off = jump_if(t, X64_C_E);
    places[1] = jump_if_pending(t);
    x64_bind(x64, off);
    x64_rm(x64, X64_STORE_64, X64_RCX, X64_RBP, HART_FIELD(mstatus));
    x64_rip_mov8_imm(x64, &t->jit->fp_ready, false);
    if (t->insn.rd) {
        load_sstatus(t, X64_RAX);
        finish(t, X64_RAX);
    }
    t->fp_checked = t->fp_ready = false;
    finish_inline(t, places, BASE_COUNT_OF(places));
}

static bool access_sstatus(struct jit_translator *t)
{
    const enum access kind = kind_of(&t->insn);

    if (t->block->variant == HART_TLB_U)
        return false;
    if (kind == READ)
        read_sstatus(t);
    else if ((kind == SET || kind == CLEAR) && has_immediate(&t->insn) &&
             t->insn.rs1 == HART_MSTATUS_SIE)
        switch_interrupts(t, kind == SET);
    else
        write_sstatus(t, kind);
    return true;
}

// ---- Floating point

// rax = the flags that were raised. fp_ready is set.
static void load_flags(struct jit_translator *t)
{
    struct x64 *x64 = &t->x64;
    const int flags = JIT_MXCSR_FLAGS;

    x64_rip(x64, X64_MXCSR, X64_STMXCSR, &t->jit->fp_mxcsr);
    x64_rip(x64, X64_MOV, X64_RAX, &t->jit->fp_mxcsr);
    x64_rip(x64, X64_LEA | W, X64_RCX, t->jit->fp_flags);
    x64_alu_imm(x64, X64_I_AND, 0, X64_RAX, flags);
    x64_rm_index(x64, X64_MOVZX_8, X64_RAX, X64_RCX, X64_RAX, 0);
    x64_rm(x64, X64_MOVZX_8, X64_RCX, X64_RBP, HART_FIELD(fflags));
    x64_rr(x64, X64_OR, X64_RAX, X64_RCX);
}

// frflags and frcsr.
static void read_flags(struct jit_translator *t)
{
    load_flags(t);
    if (t->insn.imm == ISA_CSR_FCSR) {
        x64_rm(&t->x64, X64_MOVZX_8, X64_RCX, X64_RBP, HART_FIELD(frm));
        x64_shift_imm(&t->x64, X64_SHL, 0, X64_RCX, 5);
        x64_rr(&t->x64, X64_OR, X64_RAX, X64_RCX);
    }
    finish(t, X64_RAX);
}

// fsflags.
static void write_flags(struct jit_translator *t)
{
    load_operand(t, X64_RDX);
    if (t->insn.rd)
        read_flags(t);
    x64_alu_imm(&t->x64, X64_I_AND, 0, X64_RDX, 0x1f);
    x64_rm(&t->x64, X64_STORE_8, X64_RDX, X64_RBP, HART_FIELD(fflags));
    x64_rip(&t->x64, X64_MXCSR, X64_LDMXCSR, &t->jit->fp_control);
}

// A comparison between frflags and fsflags of the same register is C's isless and its kin: flags
// are to stay, and do unless an operand is a NaN.
static bool compares_quietly(const struct jit_translator *t)
{
    const struct isa_insn *next = &t->code[t->insns];
    const unsigned saved = t->insn.rd;

    return saved && t->insns + 1 < t->count &&
           (next[0].op == ISA_FLT_S || next[0].op == ISA_FLE_S || next[0].op == ISA_FLT_D ||
            next[0].op == ISA_FLE_D) &&
           next[0].rd != saved && next[1].op == ISA_CSRRW && next[1].imm == ISA_CSR_FFLAGS &&
           next[1].rs1 == saved && next[1].rd == 0;
}

static bool access_flags(struct jit_translator *t)
{
    const enum access kind = kind_of(&t->insn);
    unsigned saved = t->insn.rd;

    if (!(t->jit->cpu & JIT_CPU_FMA) || kind == SET || kind == CLEAR ||
        (kind == WRITE && t->insn.imm == ISA_CSR_FCSR))
        return false;
    jit_need_fp_ready(t);
    if (kind == WRITE) {
        write_flags(t);
    } else if (t->insn.imm == ISA_CSR_FFLAGS && compares_quietly(t)) {
        read_flags(t);
        fuse(t);
        jit_compare_quietly(t, saved);
        fuse(t);
    } else {
        read_flags(t);
    }
    return true;
}

static bool access_frm(struct jit_translator *t)
{
    if (!(t->jit->cpu & JIT_CPU_FMA) || kind_of(&t->insn) != READ)
        return false;
    jit_need_fp_ready(t);
    x64_rm(&t->x64, X64_MOVZX_8, X64_RAX, X64_RBP, HART_FIELD(frm));
    finish(t, X64_RAX);
    return true;
}

// ---- Counters

// cycle and instret, which count the same, where they run and the mode may read them.
static bool access_counter(struct jit_translator *t, int offset_field)
{
    const int bit = 1 << (t->insn.imm & 31);
    const unsigned before = t->insns - 1 - t->counted, variant = t->block->variant;
    struct x64 *x64 = &t->x64;
    uint8_t *places[3] = {NULL};

    if (kind_of(&t->insn) != READ)
        return false;
    x64_test_mem_imm(x64, X64_RBP, HART_FIELD(mcountinhibit), bit);
    places[0] = jump_if(t, X64_C_NE);
    if (variant != HART_TLB_M) {
        x64_test_mem_imm(x64, X64_RBP, HART_FIELD(mcounteren), bit);
        places[1] = jump_if(t, X64_C_E);
    }
    if (variant == HART_TLB_U) {
        x64_test_mem_imm(x64, X64_RBP, HART_FIELD(scounteren), bit);
        places[2] = jump_if(t, X64_C_E);
    }
    x64_rm(x64, X64_LEA | W, X64_RAX, JIT_INSTRET, (int32_t)before);
    x64_rm(x64, X64_ADD | W, X64_RAX, X64_RBP, offset_field);
    finish(t, X64_RAX);
    finish_inline(t, places, BASE_COUNT_OF(places));
    return true;
}

static bool access_inline(struct jit_translator *t)
{
    switch (t->insn.imm) {
    case ISA_CSR_SSCRATCH:
    case ISA_CSR_SEPC:
    case ISA_CSR_SCAUSE:
    case ISA_CSR_STVAL:
        return access_plain(t);
    case ISA_CSR_SSTATUS:
        return access_sstatus(t);
    case ISA_CSR_FFLAGS:
    case ISA_CSR_FCSR:
        return access_flags(t);
    case ISA_CSR_FRM:
        return access_frm(t);
    case ISA_CSR_CYCLE:
        return access_counter(t, HART_FIELD(mcycle_offset));
    case ISA_CSR_INSTRET:
        return access_counter(t, HART_FIELD(minstret_offset));
    default:
        return false;
    }
}

bool jit_translate_csr(struct jit_translator *t)
{
    if (!jit_is_csr(&t->insn))
        return false;
    // Others may change FS, behind which xmm registers mirror nothing.
    if (t->insn.imm != ISA_CSR_FFLAGS && t->insn.imm != ISA_CSR_FRM && t->insn.imm != ISA_CSR_FCSR)
        jit_late_settle(t);
    if (!access_inline(t))
        call_csr(t);
    return true;
}
