// SPDX-License-Identifier: BSD-2-Clause
// Traps: where exceptions and interrupts go, what they leave in the CSRs, and the way back; and the
// SYSTEM instructions' own exceptions.
#include "hart_fixture.h"

#define STVEC 0x80001000u
#define MTVEC 0x80002000u
#define PC 0x80003004u

static void set_vectors(struct hart *hart, uint64_t mode)
{
    hart->stvec = STVEC | mode;
    hart->mtvec = MTVEC | mode;
    hart->pc = PC;
}

static void take(struct hart *hart, uint64_t cause, uint64_t tval)
{
    hart_raise(hart, cause, tval);
    hart_trap_pending(hart);
}

static void test_exceptions_are_delegated(void **state)
{
    struct hart *hart = ((struct fixture *)*state)->hart;
    static const enum hart_privilege privileges[] = {HART_U, HART_S, HART_M};

    for (unsigned cause = 0; cause < 16; cause++)
        for (unsigned p = 0; p < 3; p++)
            for (unsigned delegated = 0; delegated < 2; delegated++) {
                hart_reset(hart);
                set_vectors(hart, 1);
                csr_write(hart, ISA_CSR_MEDELEG, delegated ? UINT64_MAX : 0);
                become(hart, privileges[p]);
                take(hart, cause, 0x1234);
                bool can = cause != 10 && cause != HART_CAUSE_ECALL_M && cause != 14;
                bool to_s = delegated && can && privileges[p] != HART_M;
                assert_int_equal(hart->privilege, to_s ? HART_S : HART_M);
                assert_int_equal(hart->pc, to_s ? STVEC : MTVEC);  // never vectored
                assert_int_equal(to_s ? hart->sepc : hart->mepc, PC);
                assert_int_equal(to_s ? hart->scause : hart->mcause, cause);
                assert_int_equal(to_s ? hart->stval : hart->mtval, 0x1234);
                assert_int_equal(to_s ? hart->mcause : hart->scause, 0);
            }
    printf("16 causes, 3 privileges, delegated or not\n");
}

static void test_supervisor_entry_and_return(void **state)
{
    struct hart *hart = ((struct fixture *)*state)->hart;

    for (unsigned sie = 0; sie < 2; sie++)
        for (unsigned spp = 0; spp < 2; spp++) {
            hart_reset(hart);
            set_vectors(hart, 0);
            hart->medeleg = UINT64_MAX;
            become(hart, spp ? HART_S : HART_U);
            hart->mstatus |= (sie ? HART_MSTATUS_SIE : 0) | HART_MSTATUS_MPRV;
            take(hart, HART_CAUSE_BREAKPOINT, PC);
            assert_false(hart->mstatus & HART_MSTATUS_SIE);
            assert_int_equal(!!(hart->mstatus & HART_MSTATUS_SPIE), sie);
            assert_int_equal(!!(hart->mstatus & HART_MSTATUS_SPP), spp);
            hart->sepc = 0x80005552;
            assert_true(system_insn(hart, ISA_SRET, 0, 0));
            assert_int_equal(hart->pc, 0x80005552);
            assert_int_equal(hart->privilege, spp ? HART_S : HART_U);
            assert_int_equal(!!(hart->mstatus & HART_MSTATUS_SIE), sie);
            assert_true(hart->mstatus & HART_MSTATUS_SPIE);
            assert_false(hart->mstatus & HART_MSTATUS_SPP);
            assert_false(hart->mstatus & HART_MSTATUS_MPRV);
        }
}

static void test_machine_entry_and_return(void **state)
{
    struct hart *hart = ((struct fixture *)*state)->hart;
    static const enum hart_privilege privileges[] = {HART_U, HART_S, HART_M};

    for (unsigned mie = 0; mie < 2; mie++)
        for (unsigned p = 0; p < 3; p++) {
            hart_reset(hart);
            set_vectors(hart, 0);
            become(hart, privileges[p]);
            hart->mstatus |= mie ? HART_MSTATUS_MIE : 0;
            take(hart, HART_CAUSE_ILLEGAL, 0);
            assert_false(hart->mstatus & HART_MSTATUS_MIE);
            assert_int_equal(!!(hart->mstatus & HART_MSTATUS_MPIE), mie);
            assert_int_equal(hart->mstatus >> 11 & 3, privileges[p]);
            hart->mstatus |= HART_MSTATUS_MPRV;
            assert_true(system_insn(hart, ISA_MRET, 0, 0));
            assert_int_equal(hart->pc, PC);
            assert_int_equal(hart->privilege, privileges[p]);
            assert_int_equal(!!(hart->mstatus & HART_MSTATUS_MIE), mie);
            assert_true(hart->mstatus & HART_MSTATUS_MPIE);
            assert_int_equal(hart->mstatus & HART_MSTATUS_MPP, 0);
            assert_int_equal(!!(hart->mstatus & HART_MSTATUS_MPRV), privileges[p] == HART_M);
        }
}

// Runs the hart until it did one piece of work, as an engine does that finds attention set.
static void work_once(struct hart *hart)
{
    hart_stop(hart);
}

static void run_once(struct fixture *f)
{
    f->work = work_once;
    atomic_fetch_or(&f->hart->attention, HART_ATTENTION_IRQ);
    assert_int_equal(hart_run(f->hart), HART_EXIT_STOPPED);
}

// Makes all six interrupts pending at once.
static void raise_all(struct fixture *f)
{
    struct hart *hart = f->hart;

    hart_set_lines(hart, HART_IRQ_MSIP | HART_IRQ_MEIP | HART_IRQ_SEIP, true);
    hart_raise_software(hart, HART_IRQ_SSIP | HART_IRQ_STIP);
    hart_set_mtimecmp(hart, 0);
}

static void test_interrupt_priority(void **state)
{
    struct fixture *f = *state;
    struct hart *hart = f->hart;
    static const unsigned order[] = {11, 3, 7, 9, 1, 5};

    for (unsigned delegated = 0; delegated < 2; delegated++) {
        uint64_t mie = UINT64_MAX;
        for (unsigned i = 0; i < BASE_COUNT_OF(order); i++) {
            bool to_s = delegated && order[i] != 11 && order[i] != 3 && order[i] != 7;
            hart_reset(hart);
            assert_int_equal(hart_start(hart, PC, 0, 0), 0);
            set_vectors(hart, 1);
            csr_write(hart, ISA_CSR_MIDELEG, delegated ? UINT64_MAX : 0);
            csr_write(hart, ISA_CSR_MIE, mie);
            raise_all(f);
            become(hart, HART_U);
            run_once(f);
            assert_int_equal(hart->privilege, to_s ? HART_S : HART_M);
            assert_int_equal(to_s ? hart->scause : hart->mcause, HART_CAUSE_INTERRUPT | order[i]);
            assert_int_equal(hart->pc, (to_s ? STVEC : MTVEC) + 4 * order[i]);
            assert_int_equal(to_s ? hart->sepc : hart->mepc, PC);
            assert_int_equal(to_s ? hart->stval : hart->mtval, 0);
            mie &= ~(1ull << order[i]);
        }
    }
    printf("MEI, MSI, MTI, SEI, SSI, STI\n");
}

static void test_interrupt_enables(void **state)
{
    struct fixture *f = *state;
    struct hart *hart = f->hart;
    static const enum hart_privilege privileges[] = {HART_U, HART_S, HART_M};

    for (unsigned p = 0; p < 3; p++)
        for (unsigned enables = 0; enables < 4; enables++)
            for (unsigned delegated = 0; delegated < 2; delegated++) {
                enum hart_privilege from = privileges[p];
                bool mie = enables & 1, sie = enables & 2;
                hart_reset(hart);
                assert_int_equal(hart_start(hart, PC, 0, 0), 0);
                set_vectors(hart, 0);
                csr_write(hart, ISA_CSR_MIE, HART_IRQ_SSIP);
                csr_write(hart, ISA_CSR_MIDELEG, delegated ? HART_IRQ_SSIP : 0);
                hart->mstatus |= (mie ? HART_MSTATUS_MIE : 0) | (sie ? HART_MSTATUS_SIE : 0);
                become(hart, from);
                hart_raise_software(hart, HART_IRQ_SSIP);
                run_once(f);
                bool taken =
                    delegated ? from == HART_U || (from == HART_S && sie) : from != HART_M || mie;
                uint64_t where = delegated ? STVEC : MTVEC;
                assert_int_equal(hart->pc, taken ? where : PC);
                assert_int_equal(hart->privilege, !taken ? from : delegated ? HART_S : HART_M);
            }
}

static void test_machine_interrupts_come_before_delegated_ones(void **state)
{
    struct fixture *f = *state;
    struct hart *hart = f->hart;

    // STI, the lowest, goes to M-mode and so before the delegated SEI.
    assert_int_equal(hart_start(hart, PC, 0, 0), 0);
    set_vectors(hart, 0);
    csr_write(hart, ISA_CSR_MIDELEG, HART_IRQ_SEIP);
    csr_write(hart, ISA_CSR_MIE, HART_IRQ_SEIP | HART_IRQ_STIP);
    raise_all(f);
    become(hart, HART_U);
    run_once(f);
    assert_int_equal(hart->mcause, HART_CAUSE_INTERRUPT | 5);
}

static void test_ecall_and_ebreak(void **state)
{
    struct hart *hart = ((struct fixture *)*state)->hart;
    static const enum hart_privilege privileges[] = {HART_U, HART_S, HART_M};
    static const unsigned causes[] = {8, 9, 11};

    for (unsigned p = 0; p < 3; p++) {
        hart->pc = PC;
        become(hart, privileges[p]);
        assert_false(system_insn(hart, ISA_ECALL, 0, 0));
        expect_trap(hart, causes[p], 0);
        assert_false(system_insn(hart, ISA_EBREAK, 0, 0));
        expect_trap(hart, HART_CAUSE_BREAKPOINT, PC);
        assert_int_equal(hart->pc, PC);
    }
}

static void count_sbi(void *opaque, struct hart *hart)
{
    assert_int_equal(hart->pc, PC + 4);
    ((struct fixture *)opaque)->sbi_calls++;
    hart->x[10] = 42;
}

static void test_built_in_sbi(void **state)
{
    const struct hart_host host = {.clock_ns = fake_clock_ns, .sbi = count_sbi};
    struct fixture f;

    (void)state;
    fixture_init(&f, 0, &host);
    hart_set_supervisor_only(f.hart);
    assert_int_equal(hart_start(f.hart, PC, 1, 2), 0);
    assert_int_equal(f.hart->privilege, HART_S);
    assert_int_equal(f.hart->x[10], 1);
    assert_int_equal(f.hart->x[11], 2);
    assert_true(system_insn(f.hart, ISA_ECALL, 0, 0));
    assert_int_equal(f.sbi_calls, 1);
    assert_int_equal(f.hart->x[10], 42);
    assert_int_equal(f.hart->pc, PC + 4);

    // U-mode's ecall and every other exception stay in S-mode.
    set_vectors(f.hart, 0);
    become(f.hart, HART_U);
    assert_false(system_insn(f.hart, ISA_ECALL, 0, 0));
    hart_trap_pending(f.hart);
    assert_int_equal(f.hart->privilege, HART_S);
    assert_int_equal(f.hart->scause, HART_CAUSE_ECALL_U);
    assert_false(system_insn(f.hart, ISA_MRET, 0, 0));
    hart_trap_pending(f.hart);
    assert_int_equal(f.hart->privilege, HART_S);
    assert_int_equal(f.hart->pc, STVEC);
    fixture_fini(&f);
}

// Which privileges may execute what, under which bit of mstatus S-mode may not.
static void test_privileged_instructions(void **state)
{
    struct hart *hart = ((struct fixture *)*state)->hart;
    static const struct {
        enum isa_op op;
        enum hart_privilege lowest;
        uint64_t trap_s;
    } rules[] = {
        {ISA_MRET, HART_M, 0},
        {ISA_SRET, HART_S, HART_MSTATUS_TSR},
        {ISA_WFI, HART_S, HART_MSTATUS_TW},
        {ISA_SFENCE_VMA, HART_S, HART_MSTATUS_TVM},
        {ISA_SINVAL_VMA, HART_S, HART_MSTATUS_TVM},
        {ISA_SFENCE_W_INVAL, HART_S, 0},
        {ISA_SFENCE_INVAL_IR, HART_S, 0},
        {ISA_WRS_NTO, HART_U, 0},
        {ISA_WRS_STO, HART_U, 0},
        {ISA_FENCE_I, HART_U, 0},
    };
    static const enum hart_privilege privileges[] = {HART_U, HART_S, HART_M};

    hart->mie = HART_IRQ_SSIP;  // so that wfi does not sleep
    hart_raise_software(hart, HART_IRQ_SSIP);
    assert_int_equal(hart_start(hart, PC, 0, 0), 0);
    for (unsigned i = 0; i < BASE_COUNT_OF(rules); i++)
        for (unsigned p = 0; p < 3; p++)
            for (unsigned trapping = 0; trapping < 2; trapping++) {
                hart->mstatus &= ~(HART_MSTATUS_TSR | HART_MSTATUS_TW | HART_MSTATUS_TVM);
                hart->mstatus |= trapping ? rules[i].trap_s : 0;
                become(hart, privileges[p]);
                hart->pc = PC;
                bool trapped = trapping && rules[i].trap_s && privileges[p] == HART_S;
                bool legal = privileges[p] >= rules[i].lowest && !trapped;
                if (system_insn(hart, rules[i].op, 0, 0) != legal)
                    fail_msg("%s at privilege %d", isa_op_name(rules[i].op), privileges[p]);
                if (!legal)
                    expect_trap(hart, HART_CAUSE_ILLEGAL, 0x5eed);
            }
    assert_false(system_insn(hart, ISA_ADD, 0, 0));
    expect_trap(hart, HART_CAUSE_ILLEGAL, 0x5eed);
}

static void test_fence_i_reaches_the_engine(void **state)
{
    struct fixture *f = *state;
    unsigned before = f->instruction_fences;

    f->hart->pc = PC;
    assert_true(system_insn(f->hart, ISA_FENCE_I, 0, 0));
    assert_int_equal(f->instruction_fences, before + 1);
    assert_int_equal(f->hart->pc, PC + 4);
}

// A return may uncover an interrupt: the engine has to look.
static void test_return_notices_interrupts(void **state)
{
    struct hart *hart = ((struct fixture *)*state)->hart;

    hart_set_supervisor_only(hart);
    become(hart, HART_S);
    hart->mie = HART_IRQ_SSIP;
    hart_raise_software(hart, HART_IRQ_SSIP);
    for (unsigned spie = 0; spie < 2; spie++) {
        become(hart, HART_S);
        hart->mstatus &= ~(HART_MSTATUS_SIE | HART_MSTATUS_SPIE);
        hart->mstatus |= HART_MSTATUS_SPP | (spie ? HART_MSTATUS_SPIE : 0);
        atomic_store(&hart->attention, 0);
        assert_true(system_insn(hart, ISA_SRET, 0, 0));
        assert_int_equal(atomic_load(&hart->attention), spie ? HART_ATTENTION_IRQ : 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HART_TEST(test_exceptions_are_delegated),
        HART_TEST(test_supervisor_entry_and_return),
        HART_TEST(test_machine_entry_and_return),
        HART_TEST(test_interrupt_priority),
        HART_TEST(test_interrupt_enables),
        HART_TEST(test_machine_interrupts_come_before_delegated_ones),
        HART_TEST(test_ecall_and_ebreak),
        cmocka_unit_test(test_built_in_sbi),
        HART_TEST(test_privileged_instructions),
        HART_TEST(test_fence_i_reaches_the_engine),
        HART_TEST(test_return_notices_interrupts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
