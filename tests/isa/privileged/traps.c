// SPDX-License-Identifier: BSD-2-Clause
// Traps and returns: delegation, what a trap leaves in the CSRs, mret and sret, TSR, TVM, TW.
// Privileged ISA sections 3.1.6 to 3.1.8, 3.3.2, 10.1.
#include "firmware.h"

#define NOWHERE 0x18000000ul
#define STATUS_S (MSTATUS_SIE | MSTATUS_SPIE | MSTATUS_SPP)

STUB(do_illegal, ".4byte 0xffffffff");
STUB(do_break, "c.ebreak");
STUB(do_call, "ecall");
STUB(do_load, "ld a0, 0(a0)");
STUB(do_store, "sd a0, 0(a0)");
STUB(do_jump, "jalr zero, 0(a0)");
STUB(do_lr, "lr.w a1, (a0)");
STUB(do_amo, "amoadd.w a1, a1, (a0)");

// S-mode trap handlers: what the trap left in a0..a3, then up to M with what is not delegated.
CODE(handle_call, "csrr a0, scause\ncsrr a1, sepc\ncsrr a2, stval\ncsrr a3, sstatus");
CODE(handle_break, "csrr a0, scause\ncsrr a1, sepc\ncsrr a2, stval\ncsrr a3, sstatus\nebreak");

static const struct {
    const char *name, *stub;
    uint64_t argument, cause, tval;
} exceptions[] = {
    {"illegal", do_illegal, 0, CAUSE_ILLEGAL, 0xffffffff},
    {"load access", do_load, NOWHERE, CAUSE_LOAD_ACCESS, NOWHERE},
    {"store access", do_store, NOWHERE + 8, CAUSE_STORE_ACCESS, NOWHERE + 8},
    {"fetch access", do_jump, NOWHERE + 16, CAUSE_FETCH_ACCESS, NOWHERE + 16},
    {"load misaligned", do_lr, 0x80000001, CAUSE_LOAD_MISALIGNED, 0x80000001},
    {"store misaligned", do_amo, 0x80000002, CAUSE_STORE_MISALIGNED, 0x80000002},
};

// To M: MPP is the mode, MPIE what MIE was, MIE clear.
static void test_to_m(void)
{
    static const enum mode modes[] = {MODE_U, MODE_S, MODE_M};

    group("traps to M");
    csr_write(medeleg, 0);
    for (size_t i = 0; i < COUNT_OF(exceptions); i++)
        for (size_t j = 0; j < 2 * COUNT_OF(modes); j++) {
            enum mode mode = modes[j / 2];
            uint64_t mie = j % 2 ? MSTATUS_MPIE : 0;
            struct firmware_entry entry = {
                (uint64_t)exceptions[i].stub, (uint64_t)mode << 11 | mie, {exceptions[i].argument}};
            struct firmware_outcome outcome;
            bool jumped = exceptions[i].stub == do_jump;

            firmware_enter(&entry, &outcome);
            check_trap(exceptions[i].name, outcome, exceptions[i].cause, exceptions[i].tval);
            check("epc", outcome.epc, jumped ? exceptions[i].argument : entry.pc);
            check("MPP, MPIE, MIE", outcome.mstatus & (MSTATUS_MPP | MSTATUS_MPIE | MSTATUS_MIE),
                  (uint64_t)mode << 11 | mie);
        }
}

// To S when delegated: SPP is the mode, SPIE what SIE was, SIE clear. From M a trap stays in M.
static void test_to_s(void)
{
    struct firmware_outcome outcome;

    group("traps to S");
    csr_write(stvec, (uint64_t)handle_call);
    for (size_t i = 0; i < COUNT_OF(exceptions); i++) {
        bool jumped = exceptions[i].stub == do_jump;
        uint64_t epc = jumped ? exceptions[i].argument : (uint64_t)exceptions[i].stub;

        csr_write(medeleg, BIT(exceptions[i].cause));
        for (int bits = 0; bits < 4; bits++) {
            enum mode mode = bits & 1 ? MODE_S : MODE_U;
            uint64_t sie = bits & 2 ? MSTATUS_SIE : 0;

            csr_clear(mstatus, STATUS_S);
            csr_set(mstatus, sie);
            outcome = run(mode, exceptions[i].stub, exceptions[i].argument, 0);
            check(exceptions[i].name, outcome.cause, CAUSE_ECALL_S);
            check("scause", outcome.a[0], exceptions[i].cause);
            check("sepc", outcome.a[1], epc);
            check("stval", outcome.a[2], exceptions[i].tval);
            check("SPP, SPIE, SIE", outcome.a[3] & STATUS_S,
                  (mode == MODE_S ? MSTATUS_SPP : 0) | (sie ? MSTATUS_SPIE : 0));
        }
        csr_clear(mstatus, STATUS_S);
        check_trap("from M", run(MODE_M, exceptions[i].stub, exceptions[i].argument, 0),
                   exceptions[i].cause, exceptions[i].tval);
        // Only what is delegated.
        csr_write(medeleg, ~BIT(exceptions[i].cause) & ~BIT(CAUSE_ECALL_S));
        check_trap("not delegated", run(MODE_U, exceptions[i].stub, exceptions[i].argument, 0),
                   exceptions[i].cause, exceptions[i].tval);
    }
    csr_write(medeleg, 0);
}

static void test_calls(void)
{
    struct firmware_outcome outcome;

    group("delegated ecall, ebreak");
    csr_write(stvec, (uint64_t)handle_break);
    csr_write(medeleg, BIT(CAUSE_ECALL_U) | BIT(CAUSE_ECALL_S));
    for (enum mode mode = MODE_U; mode <= MODE_S; mode++) {
        outcome = run(mode, do_call, 0, 0);
        check("ecall: cause in M", outcome.cause, CAUSE_BREAKPOINT);
        check("ecall: scause", outcome.a[0], CAUSE_ECALL_U + mode);
        check("ecall: sepc", outcome.a[1], (uint64_t)do_call);
        check("ecall: stval", outcome.a[2], 0);
    }
    check("ecall from M", run(MODE_M, do_call, 0, 0).cause, CAUSE_ECALL_M);
    csr_write(stvec, (uint64_t)handle_call);
    csr_write(medeleg, BIT(CAUSE_BREAKPOINT));
    outcome = run(MODE_U, do_break, 0, 0);
    check("ebreak: scause", outcome.a[0], CAUSE_BREAKPOINT);
    check("ebreak: sepc", outcome.a[1], (uint64_t)do_break);
    check("ebreak from M", run(MODE_M, do_break, 0, 0).cause, CAUSE_BREAKPOINT);
    csr_write(medeleg, 0);
}

STUB_AFTER(do_mret, "csrw mepc, a0\ncsrc mstatus, a1\ncsrs mstatus, a2\n", "mret");
STUB_AFTER(do_sret, "csrw sepc, a0\ncsrc mstatus, a1\ncsrs mstatus, a2\n", "sret");
STUB_AFTER(do_sret_in_s, "csrw sepc, a0\ncsrc sstatus, a1\ncsrs sstatus, a2\n", "sret");
CODE(landing, "c.nop");

// mret: privilege from MPP, which becomes U; MIE from MPIE, which becomes 1; MPRV clear unless to
// M.
static void test_mret(void)
{
    static const enum mode modes[] = {MODE_U, MODE_S, MODE_M};

    group("mret");
    for (size_t i = 0; i < 4 * COUNT_OF(modes); i++) {
        enum mode mode = modes[i / 4];
        uint64_t mpie = i & 1 ? MSTATUS_MPIE : 0, mprv = i & 2 ? MSTATUS_MPRV : 0;
        struct firmware_outcome outcome =
            run_at(MODE_M, do_mret, 0, (uint64_t)landing, MSTATUS_MPP | MSTATUS_MPIE,
                   (uint64_t)mode << 11 | mpie | mprv);

        check("mret: mode", outcome.cause, CAUSE_ECALL_U + mode);
        check("mret: target", outcome.epc, (uint64_t)landing + 2);
        check("mret: MIE", outcome.mstatus & MSTATUS_MPIE, mpie);
        check("mret: MPRV", outcome.mstatus & MSTATUS_MPRV, mode == MODE_M ? mprv : 0);
    }
}

// What mret leaves shows when M is returned to and looks; MPIE was set by the mret before it.
STUB_AFTER(mret_look, "csrw mepc, a0\ncsrs mstatus, a1\n", "mret");
CODE(look, "csrr a0, mstatus");

static void test_mret_status(void)
{
    struct firmware_outcome outcome = run(MODE_M, mret_look, (uint64_t)look, MSTATUS_MPP);

    group("mret: what it leaves");
    check("MPP", outcome.a[0] & MSTATUS_MPP, 0);
    check("MPIE", outcome.a[0] & MSTATUS_MPIE, MSTATUS_MPIE);
    check("MIE", outcome.a[0] & MSTATUS_MIE, MSTATUS_MIE);
}

STUB_AFTER(sret_look, "csrw sepc, a0\ncsrs sstatus, a1\n", "sret");
CODE(look_in_s, "csrr a0, sstatus");

static void test_sret(void)
{
    struct firmware_outcome outcome;

    group("sret");
    for (unsigned i = 0; i < 16; i++) {
        enum mode from = i & 1 ? MODE_M : MODE_S, to = i & 2 ? MODE_S : MODE_U;
        uint64_t bits = (to == MODE_S ? MSTATUS_SPP : 0) | (i & 4 ? MSTATUS_SPIE : 0);
        uint64_t mprv = from == MODE_M && (i & 8) ? MSTATUS_MPRV : 0;

        outcome = run_at(from, from == MODE_M ? do_sret : do_sret_in_s, 0, (uint64_t)landing,
                         STATUS_S, bits | mprv);
        check("sret: mode", outcome.cause, CAUSE_ECALL_U + to);
        check("sret: SPP, SPIE, SIE", outcome.mstatus & STATUS_S,
              MSTATUS_SPIE | (i & 4 ? MSTATUS_SIE : 0));
        check("sret: MPRV", outcome.mstatus & MSTATUS_MPRV, 0);
    }
    outcome = run(MODE_S, sret_look, (uint64_t)look_in_s, MSTATUS_SPP);
    check("sret to S: SPP", outcome.a[0] & MSTATUS_SPP, 0);
    csr_clear(mstatus, STATUS_S);
}

STUB(plain_mret, "mret");
STUB(plain_sret, "sret");
STUB(plain_wfi, "wfi");
STUB(read_satp, "csrr a0, satp");
STUB(write_satp, "csrw satp, zero");
STUB(fence_vma, "sfence.vma");
STUB(fence_vma_both, "sfence.vma a0, a1");
STUB(inval_vma, "sinval.vma a0, a1");
STUB(w_inval, "sfence.w.inval");
STUB(inval_ir, "sfence.inval.ir");
STUB(read_mstatus, "csrr a0, mstatus");
STUB(read_sstatus, "csrr a0, sstatus");
STUB(read_mhartid, "csrr a0, mhartid");
STUB(write_sscratch, "csrw sscratch, a0");

static void check_illegal(const char *name, enum mode mode, const char *stub)
{
    struct firmware_outcome outcome = run(mode, stub, 0, 0);

    check_cause(name, outcome, CAUSE_ILLEGAL);
    check(name, outcome.epc, (uint64_t)stub);
}

// Who may do what; `trapped` is the mstatus bit that takes it from S.
static void test_privilege(void)
{
    static const struct {
        const char *name, *stub;
        enum mode least;
        uint64_t trapped;
    } cases[] = {
        {"mret", plain_mret, MODE_M, 0},
        {"sret", plain_sret, MODE_S, MSTATUS_TSR},
        {"csrr satp", read_satp, MODE_S, MSTATUS_TVM},
        {"csrw satp", write_satp, MODE_S, MSTATUS_TVM},
        {"sfence.vma", fence_vma, MODE_S, MSTATUS_TVM},
        {"sfence.vma a0, a1", fence_vma_both, MODE_S, MSTATUS_TVM},
        {"sinval.vma", inval_vma, MODE_S, MSTATUS_TVM},
        {"sfence.w.inval", w_inval, MODE_S, 0},
        {"sfence.inval.ir", inval_ir, MODE_S, 0},
        {"csrr mstatus", read_mstatus, MODE_M, 0},
        {"csrr mhartid", read_mhartid, MODE_M, 0},
        {"csrr sstatus", read_sstatus, MODE_S, 0},
        {"csrw sscratch", write_sscratch, MODE_S, 0},
    };
    static const uint64_t bits[] = {0, MSTATUS_TSR, MSTATUS_TVM, MSTATUS_TW};

    group("privilege, TSR, TVM");
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        for (size_t j = 0; j < COUNT_OF(bits); j++) {
            csr_clear(mstatus, MSTATUS_TSR | MSTATUS_TVM | MSTATUS_TW);
            csr_set(mstatus, bits[j]);
            check_illegal(cases[i].name, MODE_U, cases[i].stub);
            // The returns are executed by test_mret and test_sret.
            if (cases[i].least == MODE_M || (bits[j] && bits[j] == cases[i].trapped))
                check_illegal(cases[i].name, MODE_S, cases[i].stub);
            else if (cases[i].stub != plain_sret)
                check_cause(cases[i].name, run(MODE_S, cases[i].stub, 0, 0), CAUSE_NONE);
            if (cases[i].stub != plain_sret && cases[i].stub != plain_mret)
                check_cause(cases[i].name, run(MODE_M, cases[i].stub, 0, 0), CAUSE_NONE);
        }
    csr_clear(mstatus, MSTATUS_TSR | MSTATUS_TVM | MSTATUS_TW);
}

// With TW a wfi below M is illegal unless it ends at once; nothing is pending here.
static void test_tw(void)
{
    group("TW");
    csr_write(mie, 0);
    csr_set(mstatus, MSTATUS_TW);
    check_illegal("wfi in U", MODE_U, plain_wfi);
    check_illegal("wfi in S", MODE_S, plain_wfi);
    csr_clear(mstatus, MSTATUS_TW);
}

void test_main(void)
{
    test_to_m();
    test_to_s();
    test_calls();
    test_mret();
    test_mret_status();
    test_sret();
    test_privilege();
    test_tw();
}
