// SPDX-License-Identifier: BSD-2-Clause
// What must be an illegal instruction, and the traps that instructions are there to raise.
#include "firmware.h"

#define NOWHERE 0x18000000ul  // no RAM, no device

struct encoding {
    uint32_t raw;
    const char *name;
};

static const struct encoding reserved[] = {
    {0x00000000, "all zeros"},
    {0xffffffff, "all ones"},
    // Compressed, chapter 27.
    {0x0004, "c.addi4spn, imm 0"},
    {0x8000, "quadrant 0, funct3 100"},
    {0x2001, "c.addiw x0"},
    {0x207d, "c.addiw x0, -1"},
    {0x6081, "c.lui ra, 0"},
    {0x6001, "c.lui x0, 0"},
    {0x6101, "c.addi16sp, imm 0"},
    {0x9c41, "c.subw row, funct2 10"},
    {0x9c61, "c.subw row, funct2 11"},
    {0x4002, "c.lwsp x0"},
    {0x6002, "c.ldsp x0"},
    {0x8002, "c.jr x0"},
    // Major opcodes that are not ours, and long instructions.
    {0x0000000b, "custom-0"},
    {0x0000002b, "custom-1"},
    {0x0000005b, "custom-2"},
    {0x0000007b, "custom-3"},
    {0x00000057, "OP-V"},
    {0x00000077, "OP-VE"},
    {0x0000006b, "reserved opcode 0x6b"},
    {0x0000001f, "48-bit prefix"},
    {0x0000003f, "64-bit prefix"},
    {0x0000007f, "reserved length prefix"},
    // Minor opcodes.
    {0x00007003, "load, funct3 7"},
    {0x00004023, "store, funct3 4"},
    {0x00007023, "store, funct3 7"},
    {0x00002063, "branch, funct3 2"},
    {0x00003063, "branch, funct3 3"},
    {0x00001067, "jalr, funct3 1"},
    {0x00007067, "jalr, funct3 7"},
    {0x04000033, "OP, funct7 2"},
    {0x40001033, "sll with bit 30"},
    {0x40002033, "slt with bit 30"},
    {0x80000033, "add with bit 31"},
    {0x0000203b, "OP-32, funct3 2"},
    {0x0200103b, "OP-32, funct7 1, funct3 1"},
    {0x4000103b, "sllw with bit 30"},
    {0x04001013, "slli, imm bit 6"},
    {0x44005013, "srai, imm bit 6"},
    {0x0200101b, "slliw, imm bit 5"},
    {0x4200501b, "sraiw, imm bit 5"},
    {0x0000201b, "OP-IMM-32, funct3 2"},
    {0x0000300f, "MISC-MEM, funct3 3"},
    {0x0000700f, "MISC-MEM, funct3 7"},
    {0x0030200f, "cbo, operation 3"},
    {0x0050200f, "cbo, operation 5"},
    {0xfff0200f, "cbo, operation -1"},
    {0x0000208f, "cbo.inval, rd not 0"},
    // A.
    {0x0000002f, "AMO, funct3 0"},
    {0x0000402f, "AMO, funct3 4"},
    {0x1010202f, "lr.w, rs2 not 0"},
    {0x11f0302f, "lr.d, rs2 not 0"},
    {0x2800202f, "AMO, funct5 5"},
    {0xf800302f, "AMO, funct5 31"},
    // F and D.
    {0x00001007, "FP load, funct3 1"},
    {0x00004007, "FP load, funct3 4"},
    {0x00000027, "FP store, funct3 0"},
    {0x04000053, "fadd, fmt half"},
    {0x06000053, "fadd, fmt quad"},
    {0x04000043, "fmadd, fmt half"},
    {0x06000043, "fmadd, fmt quad"},
    {0x00005053, "fadd.s, rm 5"},
    {0x00006053, "fadd.s, rm 6"},
    {0x02005053, "fadd.d, rm 5"},
    {0x12006053, "fmul.d, rm 6"},
    {0x5a005053, "fsqrt.d, rm 5"},
    {0x00005043, "fmadd.s, rm 5"},
    {0x0200604f, "fnmadd.d, rm 6"},
    {0xc0005053, "fcvt.w.s, rm 5"},
    {0xd2206053, "fcvt.d.l, rm 6"},
    {0x40105053, "fcvt.s.d, rm 5"},
    {0x58100053, "fsqrt.s, rs2 not 0"},
    {0xc0400053, "fcvt.w.s row, rs2 4"},
    {0xd0400053, "fcvt.s.w row, rs2 4"},
    {0x40000053, "fcvt.s.s"},
    {0x42100053, "fcvt.d.d"},
    {0x40200053, "fcvt.s.h"},
    {0x20003053, "fsgnj row, rm 3"},
    {0x28002053, "fmin row, rm 2"},
    {0xa0003053, "feq row, rm 3"},
    {0xe0002053, "fclass row, rm 2"},
    {0xe0100053, "fmv.x.w, rs2 not 0"},
    {0xe0101053, "fclass.s, rs2 not 0"},
    {0xf0001053, "fmv.w.x, rm 1"},
    {0x18004053 | 0x60000000, "OP-FP, funct7 0x3c"},
    // B neighbours: RV32 encodings and extensions that are not there.
    {0x08f01013, "zip of RV32"},
    {0x69805013, "rev8 of RV32"},
    {0x8810403b, "packw with bit 31"},
    {0x60301013, "clz row, rs2 3"},
    {0x60601013, "clz row, rs2 6"},
    {0x6030101b, "clzw row, rs2 3"},
    {0x28605013, "orc row, 6"},
    {0x31b01013, "aes64ks1i, round 11"},
    {0x0e005033, "czero.eqz"},
    {0x0e005033, "czero.eqz"},
    {0x6200501b, "roriw, imm bit 5"},
    // SYSTEM.
    {0x00004073, "SYSTEM, funct3 4"},
    {0x000000f3, "ecall, rd not 0"},
    {0x00008073, "ecall, rs1 not 0"},
    {0x001000f3, "ebreak, rd not 0"},
    {0x00200073, "uret"},
    {0x302000f3, "mret, rd not 0"},
    {0x10200f73, "sret, rd not 0"},
    {0x10508073, "wfi, rs1 not 0"},
    {0x120000f3, "sfence.vma, rd not 0"},
    {0x160000f3, "sinval.vma, rd not 0"},
    {0x18008073, "sfence.w.inval, rs1 not 0"},
    {0x18200073, "sfence.w.inval row, rs2 2"},
    {0x22000073, "hfence.vvma"},
    {0x62000073, "hfence.gvma"},
    {0x70200073, "mnret"},
    {0x7b200073, "dret"},
    {0x00e00073, "wrs row, 14"},
    {0x00d08073, "wrs.nto, rs1 not 0"},
    {0x01d000f3, "wrs.sto, rd not 0"},
    // CSRs that do not exist.
    {0x00002573, "csrr ustatus"},
    {0x00802573, "csrr vstart"},
    {0x01502573, "csrr seed"},
    {0x10202573, "csrr sedeleg"},
    {0x5c002573, "csrr 0x5c0"},
    {0x5a802573, "csrr scontext"},
    {0x60002573, "csrr hstatus"},
    {0x7c002573, "csrr 0x7c0"},
    {0x74002573, "csrr mnscratch"},
    {0x30c02573, "csrr mstateen0"},
    {0x32202573, "csrr 0x322"},
    {0x3a102573, "csrr pmpcfg1"},
    {0x3a302573, "csrr pmpcfg3"},
    {0xb0102573, "csrr 0xb01"},
    {0xb8002573, "csrr mcycleh"},
    {0xc8002573, "csrr cycleh"},
    {0xfff02573, "csrr 0xfff"},
    {0x7c001073, "csrw 0x7c0, x0"},
    {0xfff01073, "csrw 0xfff, x0"},
    // Writes to read-only CSRs.
    {0xc0001073, "csrw cycle, x0"},
    {0xc0051573, "csrrw a0, cycle, a0"},
    {0xc0152573, "csrrs a0, time, a0"},
    {0xc0253573, "csrrc a0, instret, a0"},
    {0xf1405573, "csrrwi a0, mhartid, 0"},
    {0xf140e573, "csrrsi a0, mhartid, 1"},
    {0xf11ff573, "csrrci a0, mvendorid, 31"},
};

// The same bits at a page's last halfword: the second half lies in the next page.
static void check_across_pages(uint32_t raw, const char *name)
{
    static uint8_t pages[2 * 4096] __attribute__((aligned(4096)));
    uint16_t *code = (uint16_t *)&pages[4094];
    struct firmware_outcome outcome;

    if ((raw & 3) != 3)
        return;
    code[0] = (uint16_t)raw;
    code[1] = (uint16_t)(raw >> 16);
    __asm__ volatile("fence.i" ::: "memory");
    outcome = run(MODE_M, (const char *)code, 0, 0);
    check_trap(name, outcome, CAUSE_ILLEGAL, raw);
    check(name, outcome.epc, (uint64_t)code);
}

static void test_reserved(void)
{
    group("reserved encodings");
    for (size_t i = 0; i < COUNT_OF(reserved); i++)
        for (int mode = MODE_U; mode <= MODE_M; mode += mode ? 2 : 1)
            check_trap(reserved[i].name, run_raw((enum mode)mode, reserved[i].raw), CAUSE_ILLEGAL,
                       reserved[i].raw);
    group("reserved encodings across pages");
    for (size_t i = 0; i < COUNT_OF(reserved); i++)
        check_across_pages(reserved[i].raw, reserved[i].name);
}

STUB(fadd_s_dynamic, "fadd.s fa0, fa0, fa0, dyn");
STUB(fmadd_d_dynamic, "fmadd.d fa0, fa0, fa0, fa0, dyn");
STUB(fcvt_w_s_dynamic, "fcvt.w.s a0, fa0, dyn");
STUB(fsgnj_s_any, "fsgnj.s fa0, fa0, fa0");
STUB(feq_d_any, "feq.d a0, fa0, fa0");
STUB(fclass_d_any, "fclass.d a0, fa0");
STUB(fld_any, "fld fa0, 0(sp)");
STUB(fsw_any, "fsw fa0, -4(sp)");
STUB(c_fld_any, "c.fldsp fa0, 0(sp)");
STUB(fmv_x_d_any, "fmv.x.d a0, fa0");
STUB(fmv_w_x_any, "fmv.w.x fa0, zero");
STUB(csrr_fcsr, "csrr a0, fcsr");
STUB(csrr_frm, "csrr a0, frm");
STUB(csrw_fflags, "csrwi fflags, 0");

static const struct {
    const char *stub, *name;
    bool rounds;
} fp[] = {
    {fadd_s_dynamic, "fadd.s", true},
    {fmadd_d_dynamic, "fmadd.d", true},
    {fcvt_w_s_dynamic, "fcvt.w.s", true},
    {fsgnj_s_any, "fsgnj.s", false},
    {feq_d_any, "feq.d", false},
    {fclass_d_any, "fclass.d", false},
    {fld_any, "fld", false},
    {fsw_any, "fsw", false},
    {c_fld_any, "c.fldsp", false},
    {fmv_x_d_any, "fmv.x.d", false},
    {fmv_w_x_any, "fmv.w.x", false},
    {csrr_fcsr, "csrr fcsr", false},
    {csrr_frm, "csrr frm", false},
    {csrw_fflags, "csrw fflags", false},
};

// Section 21.2: a dynamic rounding mode that is reserved; section 3.1.6.6: FS Off.
static void test_fp(void)
{
    group("reserved frm");
    for (unsigned frm = 4; frm <= 7; frm++) {
        csr_write(frm, frm);
        for (size_t i = 0; i < COUNT_OF(fp); i++)
            check_cause(fp[i].name, run(MODE_U, fp[i].stub, 0, 0),
                        frm > 4 && fp[i].rounds ? CAUSE_ILLEGAL : CAUSE_NONE);
    }
    csr_write(fcsr, 0);
    group("mstatus.FS Off");
    csr_clear(mstatus, MSTATUS_FS);
    for (size_t i = 0; i < COUNT_OF(fp); i++) {
        check_cause(fp[i].name, run(MODE_U, fp[i].stub, 0, 0), CAUSE_ILLEGAL);
        check_cause(fp[i].name, run(MODE_S, fp[i].stub, 0, 0), CAUSE_ILLEGAL);
        check_cause(fp[i].name, run(MODE_M, fp[i].stub, 0, 0), CAUSE_ILLEGAL);
    }
    csr_set(mstatus, MSTATUS_FS);
}

STUB(do_ecall, "ecall");
STUB(do_ebreak, ".option norvc\nebreak");
STUB(do_c_ebreak, "c.ebreak");

static void test_environment(void)
{
    static const enum mode modes[] = {MODE_U, MODE_S, MODE_M};
    struct firmware_outcome outcome;

    group("ecall, ebreak");
    for (size_t i = 0; i < COUNT_OF(modes); i++) {
        outcome = run(modes[i], do_ecall, 0, 0);
        check("ecall: cause", outcome.cause, CAUSE_ECALL_U + modes[i]);
        check("ecall: epc", outcome.epc, (uint64_t)do_ecall);
        check("ecall: tval", outcome.tval, 0);
        // xtval of a breakpoint is its address or zero (section 3.1.16).
        outcome = run(modes[i], do_ebreak, 0, 0);
        check("ebreak: cause", outcome.cause, CAUSE_BREAKPOINT);
        check("ebreak: epc", outcome.epc, (uint64_t)do_ebreak);
        check("ebreak: tval", outcome.tval & ~(uint64_t)do_ebreak, 0);
        outcome = run(modes[i], do_c_ebreak, 0, 0);
        check("c.ebreak: cause", outcome.cause, CAUSE_BREAKPOINT);
        check("c.ebreak: epc", outcome.epc, (uint64_t)do_c_ebreak);
    }
}

STUB(amo_w, "amoadd.w a0, a1, (a0)");
STUB(amo_d, "amoswap.d a0, a1, (a0)");
STUB(lr_w, "lr.w a0, (a0)");
STUB(lr_d, "lr.d a0, (a0)");
STUB(sc_w, "sc.w a0, a1, (a0)");
STUB(sc_d, "sc.d a0, a1, (a0)");

// Atomics must be aligned: LR raises the load's exception, SC and AMO the store's.
static void test_misaligned_atomics(void)
{
    static uint64_t cells[2];
    static const struct {
        const char *stub, *name;
        unsigned width;
        uint64_t cause;
    } atomics[] = {
        {amo_w, "amoadd.w", 4, CAUSE_STORE_MISALIGNED},
        {amo_d, "amoswap.d", 8, CAUSE_STORE_MISALIGNED},
        {lr_w, "lr.w", 4, CAUSE_LOAD_MISALIGNED},
        {lr_d, "lr.d", 8, CAUSE_LOAD_MISALIGNED},
        {sc_w, "sc.w", 4, CAUSE_STORE_MISALIGNED},
        {sc_d, "sc.d", 8, CAUSE_STORE_MISALIGNED},
    };

    group("misaligned atomics");
    for (size_t i = 0; i < COUNT_OF(atomics); i++)
        for (unsigned offset = 1; offset < 8; offset++) {
            uint64_t gva = (uint64_t)cells + offset;

            if (offset % atomics[i].width == 0)
                continue;
            cells[0] = cells[1] = 0x1122334455667788;
            check_trap(atomics[i].name, run(MODE_M, atomics[i].stub, gva, 1), atomics[i].cause,
                       gva);
            check(atomics[i].name, cells[0] ^ cells[1], 0);
        }
}

STUB(lb_x0, "lb zero, 3(a0)");
STUB(lw_x0, "lw zero, 4(a0)");
STUB(ld_x0, "ld zero, 8(a0)");
STUB(lhu_x0, "lhu zero, 2(a0)");
STUB(amo_x0, "amoadd.w zero, zero, (a0)");
STUB(lr_x0, "lr.d zero, (a0)");
STUB(fld_nowhere, "fld fa0, 0(a0)");
STUB(fsw_nowhere, "fsw fa0, 0(a0)");

// What is loaded may be thrown away; the fault may not.
static void test_faults(void)
{
    static const struct {
        const char *stub, *name;
        uint64_t offset, cause;
    } cases[] = {
        {lb_x0, "lb", 3, CAUSE_LOAD_ACCESS},         {lw_x0, "lw", 4, CAUSE_LOAD_ACCESS},
        {ld_x0, "ld", 8, CAUSE_LOAD_ACCESS},         {lhu_x0, "lhu", 2, CAUSE_LOAD_ACCESS},
        {amo_x0, "amoadd.w", 0, CAUSE_STORE_ACCESS}, {lr_x0, "lr.d", 0, CAUSE_LOAD_ACCESS},
        {fld_nowhere, "fld", 0, CAUSE_LOAD_ACCESS},  {fsw_nowhere, "fsw", 0, CAUSE_STORE_ACCESS},
    };

    group("access faults, x0 as destination");
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        check_trap(cases[i].name, run(MODE_M, cases[i].stub, NOWHERE, 0), cases[i].cause,
                   NOWHERE + cases[i].offset);
}

void test_main(void)
{
    test_reserved();
    test_fp();
    test_environment();
    test_misaligned_atomics();
    test_faults();
}
