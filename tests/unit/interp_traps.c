// SPDX-License-Identifier: BSD-2-Clause
// Precise traps in the middle of blocks, exact counts of retired instructions, x0, and when
// floating point is illegal.
#include "interp_guest.h"

#define NOWHERE 0x40000000u  // neither RAM nor device
#define CSR_FCSR 0x003
#define CSR_MINSTRET 0xb02
#define CSR_MHARTID 0xf14

// Puts three additions around `insn`, runs, and checks that `insn` trapped and nothing after it was
// done.
static void expect_trap(struct guest *guest, uint32_t insn, uint64_t cause, uint64_t tval)
{
    struct hart *hart = guest->hart;
    uint64_t at;

    guest->here = CODE;
    put(guest, addi(5, 0, 1));
    put16(guest, C_ADDI_X5_1);
    at = guest->here;
    (insn & 3) == 3 ? put(guest, insn) : put16(guest, (uint16_t)insn);
    put(guest, addi(5, 5, 16));
    put_stop(guest);
    hart->engine->fence_i(hart, guest->interp);
    hart->instret = 0;
    hart->mcause = hart->mtval = UINT64_MAX;
    guest_run(guest, CODE);
    assert_int_equal(hart->mcause, cause);
    assert_int_equal(hart->mepc, at);
    assert_int_equal(hart->mtval, tval);
    assert_int_equal(hart->x[5], 2);
    assert_int_equal(hart->instret, 2 + STOP_INSNS);
}

static void expect_no_trap(struct guest *guest, uint32_t insn)
{
    struct hart *hart = guest->hart;

    put_at(guest, CODE, addi(5, 0, 1));
    put(guest, insn);
    put(guest, addi(5, 5, 16));
    put_stop(guest);
    hart->engine->fence_i(hart, guest->interp);
    hart->instret = 0;
    hart->mcause = UINT64_MAX;
    guest_run(guest, CODE);
    assert_int_equal(hart->mcause, UINT64_MAX);
    assert_int_equal(hart->x[5], 17);
    assert_int_equal(hart->instret, 4 + STOP_INSNS);
}

static void test_memory_faults(void **state)
{
    struct guest *guest = *state;

    guest->hart->x[7] = NOWHERE;
    guest->hart->x[6] = 99;
    expect_trap(guest, ld(6, 7, 8), HART_CAUSE_LOAD_ACCESS, NOWHERE + 8);
    expect_trap(guest, lw(0, 7, 8), HART_CAUSE_LOAD_ACCESS, NOWHERE + 8);
    expect_trap(guest, sd(6, 7, -8), HART_CAUSE_STORE_ACCESS, NOWHERE - 8);
    expect_trap(guest, amo(0u, 3, 6, 7, 6), HART_CAUSE_STORE_ACCESS, NOWHERE);
    expect_trap(guest, lr_w(6, 7), HART_CAUSE_LOAD_ACCESS, NOWHERE);
    expect_trap(guest, sc_w(6, 6, 7), HART_CAUSE_STORE_ACCESS, NOWHERE);
    assert_int_equal(guest->hart->x[6], 99);
}

// Atomics are not done misaligned; plain accesses are, and over a page's end too.
static void test_misaligned(void **state)
{
    struct guest *guest = *state;
    const uint64_t gpa = DATA + MEMORY_PAGE_BYTES - 3;

    guest->hart->x[7] = DATA + 4;
    expect_trap(guest, amo(0u, 3, 6, 7, 6), HART_CAUSE_STORE_MISALIGNED, DATA + 4);
    expect_trap(guest, lr_d(6, 7), HART_CAUSE_LOAD_MISALIGNED, DATA + 4);
    expect_trap(guest, sc_d(6, 6, 7), HART_CAUSE_STORE_MISALIGNED, DATA + 4);
    expect_no_trap(guest, amo(0u, 2, 6, 7, 6));

    write_u64(guest, gpa - 5, UINT64_MAX);
    write_u64(guest, gpa + 3, UINT64_MAX);
    guest->hart->x[6] = 0x1122334455667788;
    guest->hart->x[7] = gpa;
    for (unsigned twice = 0; twice < 2; twice++) {
        expect_no_trap(guest, sd(6, 7, 0));
        expect_no_trap(guest, ld(8, 7, 0));
        assert_int_equal(guest->hart->x[8], 0x1122334455667788);
        assert_int_equal(read_u64(guest, gpa - 5), 0x667788ffffffffff);
        assert_int_equal(read_u64(guest, gpa + 3), 0xffffff1122334455);
    }
}

// A store over the end of RAM writes nothing at all.
static void test_no_partial_store(void **state)
{
    struct guest *guest = *state;
    const uint64_t end = RAM_GPA + RAM_BYTES;

    write_u64(guest, end - 8, 0x0123456789abcdef);
    guest->hart->x[6] = UINT64_MAX;
    guest->hart->x[7] = end - 4;
    for (unsigned twice = 0; twice < 2; twice++) {
        guest->here = CODE;
        put(guest, sd(6, 7, 0));
        put_stop(guest);
        guest_run(guest, CODE);
        assert_int_equal(guest->hart->mcause, HART_CAUSE_STORE_ACCESS);
        assert_int_equal(read_u64(guest, end - 8), 0x0123456789abcdef);
    }
}

static void test_illegal_instructions(void **state)
{
    struct guest *guest = *state;

    expect_trap(guest, 0xffffffff, HART_CAUSE_ILLEGAL, 0xffffffff);
    expect_trap(guest, 0x0000, HART_CAUSE_ILLEGAL, 0x0000);
    expect_trap(guest, 0x6281, HART_CAUSE_ILLEGAL, 0x6281);
    expect_trap(guest, csrrw(6, 0x7ff, 6), HART_CAUSE_ILLEGAL, csrrw(6, 0x7ff, 6));
    expect_trap(guest, csrrw(6, CSR_MHARTID, 6), HART_CAUSE_ILLEGAL, csrrw(6, CSR_MHARTID, 6));
    expect_no_trap(guest, csrrs(6, CSR_MHARTID, 0));
    expect_trap(guest, ECALL, HART_CAUSE_ECALL_M, 0);
    expect_trap(guest, 0x9002, HART_CAUSE_BREAKPOINT, CODE + 6);
}

// ---- Floating point

static uint32_t fadd_d(unsigned rm, unsigned rd, unsigned rs1, unsigned rs2)
{
    return r_type(0x53, rm, 0x01, rd, rs1, rs2);
}

#define fld(rd, rs1, imm) i_type(0x07, 3, rd, rs1, imm)
#define fsd(rs2, rs1, imm) s_type(0x27, 3, rs1, rs2, imm)
#define flw(rd, rs1, imm) i_type(0x07, 2, rd, rs1, imm)
#define fmv_x_d(rd, rs1) r_type(0x53, 0, 0x71, rd, rs1, 0)
#define fmv_d_x(rd, rs1) r_type(0x53, 0, 0x79, rd, rs1, 0)

static uint64_t fs_after(struct guest *guest, uint64_t before, uint32_t insn)
{
    guest->hart->mstatus = (guest->hart->mstatus & ~HART_MSTATUS_FS) | before;
    guest->hart->x[7] = DATA;
    expect_no_trap(guest, insn);
    return guest->hart->mstatus & HART_MSTATUS_FS;
}

static void test_fp_needs_fs(void **state)
{
    const uint32_t insns[] = {
        fld(1, 11, 0),
        fsd(1, 11, 0),
        flw(1, 11, 0),
        fmv_x_d(6, 1),
        fmv_d_x(1, 6),
        0x02107053,             // fadd.d f0, f0, f1
        0x2310c153 & ~0x7000u,  // fsgnj.d f2, f1, f17
    };
    struct guest *guest = *state;

    guest->hart->mstatus &= ~HART_MSTATUS_FS;
    for (unsigned i = 0; i < BASE_COUNT_OF(insns); i++)
        expect_trap(guest, insns[i], HART_CAUSE_ILLEGAL, insns[i]);
    guest->hart->mstatus |= HART_MSTATUS_FS_INITIAL;
    for (unsigned i = 0; i < BASE_COUNT_OF(insns); i++)
        expect_no_trap(guest, insns[i]);
}

static void test_fp_makes_fs_dirty(void **state)
{
    struct guest *guest = *state;
    const uint64_t clean = 2 * HART_MSTATUS_FS_INITIAL;

    assert_int_equal(fs_after(guest, clean, fsd(1, 11, 0)), clean);
    assert_int_equal(fs_after(guest, clean, fmv_x_d(6, 1)), clean);
    assert_int_equal(fs_after(guest, clean, fld(1, 11, 0)), HART_MSTATUS_FS);
    assert_int_equal(fs_after(guest, clean, fmv_d_x(1, 6)), HART_MSTATUS_FS);
    assert_int_equal(fs_after(guest, clean, fadd_d(7, 1, 1, 1)), HART_MSTATUS_FS);
}

static void test_rounding_modes(void **state)
{
    struct guest *guest = *state;

    guest->hart->mstatus |= HART_MSTATUS_FS;
    expect_trap(guest, fadd_d(5, 1, 1, 1), HART_CAUSE_ILLEGAL, fadd_d(5, 1, 1, 1));
    expect_trap(guest, fadd_d(6, 1, 1, 1), HART_CAUSE_ILLEGAL, fadd_d(6, 1, 1, 1));
    for (unsigned frm = 0; frm < 8; frm++) {
        guest->hart->frm = (uint8_t)frm;
        if (frm <= 4)
            expect_no_trap(guest, fadd_d(7, 1, 1, 1));
        else
            expect_trap(guest, fadd_d(7, 1, 1, 1), HART_CAUSE_ILLEGAL, fadd_d(7, 1, 1, 1));
        expect_no_trap(guest, fadd_d(0, 1, 1, 1));
    }

    // 1 + 2^-60: inexact, and rounded up only when asked to. The flag stays until it is read.
    guest->hart->f[1] = 0x3ff0000000000000;
    guest->hart->f[2] = 0x3c30000000000000;
    guest->hart->frm = 3;
    expect_no_trap(guest, fadd_d(7, 3, 1, 2));
    assert_int_equal(guest->hart->f[3], 0x3ff0000000000001);
    expect_no_trap(guest, fadd_d(1, 3, 1, 2));
    assert_int_equal(guest->hart->f[3], 0x3ff0000000000000);
    expect_no_trap(guest, csrrs(6, CSR_FCSR, 0));
    assert_int_equal(guest->hart->x[6], 3 << 5 | 1);
}

// ---- x0 and counts

static void test_x0_stays_zero(void **state)
{
    const uint32_t insns[] = {
        addi(0, 11, 5),
        add(0, 11, 11),
        lui(0, 0x12345000),
        auipc(0, 0x1000),
        ld(0, 11, 0),
        lb(0, 11, 0),
        csrrs(0, CSR_MINSTRET, 0),
        amo(1u, 3, 0, 11, 11),
        lr_d(0, 11),
        sc_d(0, 11, 11),
        sc_d(0, 11, 11),
        r_type(0x33, 4, 1, 0, 11, 11),  // div
        fmv_x_d(0, 1),
        jal(0, 4),
        0x00000013,
    };
    struct guest *guest = *state;

    guest->hart->mstatus |= HART_MSTATUS_FS;
    guest->hart->f[1] = 1;
    write_u64(guest, DATA, UINT64_MAX);
    for (unsigned i = 0; i < BASE_COUNT_OF(insns); i++) {
        expect_no_trap(guest, insns[i]);
        assert_int_equal(guest->hart->x[0], 0);
    }
}

// minstret reads as the number of instructions before the one that reads it, wherever that stands.
static void test_instret_reads_exactly(void **state)
{
    struct guest *guest = *state;
    struct hart *hart = guest->hart;

    put(guest, csrrs(12, CSR_MINSTRET, 0));
    put(guest, csrrs(13, CSR_MINSTRET, 0));
    put(guest, addi(0, 0, 0));
    put16(guest, C_NOP);
    put(guest, beq(0, 0, 8));
    put(guest, 0);
    put(guest, bne(0, 0, 8));
    put(guest, csrrs(14, CSR_MINSTRET, 0));
    put(guest, ld(15, 11, 1));
    put(guest, jal(1, 4));
    put(guest, csrrs(16, CSR_MINSTRET, 0));
    put_stop(guest);
    for (unsigned twice = 0; twice < 2; twice++) {
        hart->instret = 0;
        guest_run(guest, CODE);
        assert_int_equal(hart->x[12], 0);
        assert_int_equal(hart->x[13], 1);
        assert_int_equal(hart->x[14], 6);
        assert_int_equal(hart->x[16], 9);
        assert_int_equal(hart->instret, 11 + STOP_INSNS);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        guest_test(test_memory_faults),         guest_test(test_misaligned),
        guest_test(test_no_partial_store),      guest_test(test_illegal_instructions),
        guest_test(test_fp_needs_fs),           guest_test(test_fp_makes_fs_dirty),
        guest_test(test_rounding_modes),        guest_test(test_x0_stays_zero),
        guest_test(test_instret_reads_exactly),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
