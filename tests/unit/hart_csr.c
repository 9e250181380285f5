// SPDX-License-Identifier: BSD-2-Clause
// CSRs: who may access them, what they keep of what is written, and what writes cause.
#include "hart_fixture.h"

static const struct {
    unsigned number;
    const char *name;
} all_csrs[] = {
#define X(id, number, name, ...) {number, name},
    ISA_CSR_LIST(X)
#undef X
};

static void enable_everything(struct hart *hart)
{
    hart->mstatus |= HART_MSTATUS_FS;
    hart->mcounteren = hart->scounteren = UINT64_MAX;
    hart->menvcfg = HART_ENVCFG_STCE;
}

static void test_number_decides_who_may_access(void **state)
{
    struct hart *hart = ((struct fixture *)*state)->hart;
    static const enum hart_privilege privileges[] = {HART_U, HART_S, HART_M};

    enable_everything(hart);
    for (size_t i = 0; i < BASE_COUNT_OF(all_csrs); i++) {
        unsigned number = all_csrs[i].number, lowest = number >> 8 & 3;
        for (size_t p = 0; p < BASE_COUNT_OF(privileges); p++) {
            become(hart, privileges[p]);
            hart->trap_cause = 99;
            bool allowed = csr_readable(hart, number);
            if (allowed != (privileges[p] >= lowest))
                fail_msg("%s read at privilege %d: %s", all_csrs[i].name, privileges[p],
                         allowed ? "allowed" : "refused");
            if (!allowed)
                expect_trap(hart, HART_CAUSE_ILLEGAL, 0xabcd);
        }
        become(hart, HART_M);
        if (number >> 10 == 3) {
            assert_false(csr_write(hart, number, 0));
            assert_false(csr_set(hart, number, 0));
            assert_int_equal(hart_csr_poke(hart, number, 0), -EACCES);
        }
    }
    printf("%zu CSRs at 3 privileges\n", BASE_COUNT_OF(all_csrs));
}

static void test_absent_csrs_are_illegal(void **state)
{
    struct hart *hart = ((struct fixture *)*state)->hart;
    bool present[4096] = {false};
    unsigned absent = 0;
    uint64_t value;

    enable_everything(hart);
    for (size_t i = 0; i < BASE_COUNT_OF(all_csrs); i++)
        present[all_csrs[i].number] = true;
    for (unsigned number = 0; number < 4096; number++) {
        if (present[number])
            continue;
        absent++;
        assert_false(csr_readable(hart, number));
        assert_int_equal(hart_csr_peek(hart, number, &value), -ENOENT);
        assert_int_equal(hart_csr_poke(hart, number, 0), -ENOENT);
    }
    assert_int_equal(hart_csr_peek(hart, 4096, &value), -ENOENT);
    printf("%u absent numbers\n", absent);
}

// What is read back after all ones and after all zeros were written, in M-mode.
static const struct {
    unsigned number;
    uint64_t ones, zeros;
} kept[] = {
    {ISA_CSR_MSTATUS, 0x8000000a007e79aa, 0x0000000a00000000},
    {ISA_CSR_SSTATUS, 0x80000002000c6122, 0x0000000200000000},
    {ISA_CSR_MISA, 0x800000000014112d, 0x800000000014112d},
    {ISA_CSR_MEDELEG, 0xb3ff, 0},
    {ISA_CSR_MIDELEG, 0x222, 0},
    {ISA_CSR_MIE, 0xaaa, 0},
    {ISA_CSR_MTVEC, UINT64_MAX - 2, 0},
    {ISA_CSR_STVEC, UINT64_MAX - 2, 0},
    {ISA_CSR_MCOUNTEREN, 7, 0},
    {ISA_CSR_SCOUNTEREN, 7, 0},
    {ISA_CSR_MCOUNTINHIBIT, 5, 0},
    {ISA_CSR_MENVCFG, 0xe0000000000000f1, 0},
    {ISA_CSR_SENVCFG, 0xf1, 0},
    {ISA_CSR_MSCRATCH, UINT64_MAX, 0},
    {ISA_CSR_SSCRATCH, UINT64_MAX, 0},
    {ISA_CSR_MEPC, UINT64_MAX - 1, 0},
    {ISA_CSR_SEPC, UINT64_MAX - 1, 0},
    {ISA_CSR_MCAUSE, UINT64_MAX, 0},
    {ISA_CSR_SCAUSE, UINT64_MAX, 0},
    {ISA_CSR_MTVAL, UINT64_MAX, 0},
    {ISA_CSR_STVAL, UINT64_MAX, 0},
    {ISA_CSR_STIMECMP, UINT64_MAX, 0},
    {ISA_CSR_FFLAGS, 0x1f, 0},
    {ISA_CSR_FRM, 7, 0},
    {ISA_CSR_FCSR, 0xff, 0},
    {ISA_CSR_PMPADDR15, (1ull << 54) - 1, 0},
    {ISA_CSR_MHPMCOUNTER3, 0, 0},
    {ISA_CSR_MHPMEVENT31, 0, 0},
};

static void test_writes_keep_what_is_legal(void **state)
{
    struct hart *hart = ((struct fixture *)*state)->hart;

    for (size_t i = 0; i < BASE_COUNT_OF(kept); i++) {
        hart_reset(hart);
        hart->mstatus |= HART_MSTATUS_FS_INITIAL;
        assert_true(csr_write(hart, kept[i].number, UINT64_MAX));
        uint64_t ones = csr(hart, kept[i].number);
        assert_true(csr_write(hart, kept[i].number, 0));
        uint64_t zeros = csr(hart, kept[i].number);
        if (ones != kept[i].ones || zeros != kept[i].zeros)
            fail_msg("%s: ones read %#lx, zeros %#lx", isa_csr_name(kept[i].number), ones, zeros);
    }
    printf("%zu CSRs\n", BASE_COUNT_OF(kept));
}

static void test_reserved_field_values_leave_the_field(void **state)
{
    struct hart *hart = ((struct fixture *)*state)->hart;

    csr_write(hart, ISA_CSR_MSTATUS, (uint64_t)HART_S << 11);
    csr_write(hart, ISA_CSR_MSTATUS, 2ull << 11 | HART_MSTATUS_SUM);
    assert_int_equal(hart->mstatus & HART_MSTATUS_MPP, (uint64_t)HART_S << 11);
    assert_true(hart->mstatus & HART_MSTATUS_SUM);
    csr_write(hart, ISA_CSR_MSTATUS, (uint64_t)HART_M << 11);
    assert_int_equal(hart->mstatus & HART_MSTATUS_MPP, (uint64_t)HART_M << 11);

    csr_write(hart, ISA_CSR_MENVCFG, 1ull << 4);
    csr_write(hart, ISA_CSR_MENVCFG, 2ull << 4 | HART_ENVCFG_CBZE);
    assert_int_equal(csr(hart, ISA_CSR_MENVCFG), 1ull << 4 | HART_ENVCFG_CBZE);
    csr_write(hart, ISA_CSR_SENVCFG, 2ull << 4);
    assert_int_equal(csr(hart, ISA_CSR_SENVCFG), 0);
}

static void test_satp_takes_supported_modes_only(void **state)
{
    struct hart *hart = ((struct fixture *)*state)->hart;
    const uint64_t rest = 0x0abcd00000080123;

    csr_write(hart, ISA_CSR_SATP, 8ull << 60 | rest);
    for (uint64_t mode = 0; mode < 16; mode++) {
        uint64_t before = csr(hart, ISA_CSR_SATP), value = mode << 60 | (rest + mode);
        bool supported = mode == 0 || (mode >= 8 && mode <= 10);
        csr_write(hart, ISA_CSR_SATP, value);
        assert_int_equal(csr(hart, ISA_CSR_SATP), supported ? value : before);
    }
}

static void test_limited_mmu(void **state)
{
    struct hart *hart = ((struct fixture *)*state)->hart;

    for (unsigned levels = 3; levels <= 5; levels++) {
        hart_limit_mmu(hart, levels);
        for (uint64_t mode = 8; mode <= 11; mode++) {
            csr_write(hart, ISA_CSR_SATP, 0);
            csr_write(hart, ISA_CSR_SATP, mode << 60 | 1);
            assert_int_equal(csr(hart, ISA_CSR_SATP), mode <= levels + 5 ? mode << 60 | 1 : 0);
        }
    }
}

static void test_set_and_clear(void **state)
{
    struct hart *hart = ((struct fixture *)*state)->hart;
    uint64_t old;

    assert_true(hart_csr(hart, ISA_CSRRW, ISA_CSR_MSCRATCH, true, true, 0xf0, 0, &old));
    assert_int_equal(old, 0);
    assert_true(hart_csr(hart, ISA_CSRRS, ISA_CSR_MSCRATCH, true, true, 0x0f, 0, &old));
    assert_int_equal(old, 0xf0);
    assert_true(hart_csr(hart, ISA_CSRRC, ISA_CSR_MSCRATCH, true, true, 0x3c, 0, &old));
    assert_int_equal(old, 0xff);
    assert_true(hart_csr(hart, ISA_CSRRC, ISA_CSR_MSCRATCH, true, false, 0xff, 0, &old));
    assert_int_equal(old, 0xc3);
    assert_int_equal(csr(hart, ISA_CSR_MSCRATCH), 0xc3);
}

static void test_fp_csrs_need_fs_and_dirty_it(void **state)
{
    struct hart *hart = ((struct fixture *)*state)->hart;
    static const unsigned numbers[] = {ISA_CSR_FFLAGS, ISA_CSR_FRM, ISA_CSR_FCSR};

    for (size_t i = 0; i < BASE_COUNT_OF(numbers); i++) {
        hart->mstatus &= ~HART_MSTATUS_FS;
        assert_false(csr_readable(hart, numbers[i]));
        expect_trap(hart, HART_CAUSE_ILLEGAL, 0xabcd);
        hart->mstatus |= HART_MSTATUS_FS_INITIAL;
        assert_true(csr_readable(hart, numbers[i]));
        assert_int_equal(hart->mstatus & HART_MSTATUS_FS, HART_MSTATUS_FS_INITIAL);
        assert_true(csr_write(hart, numbers[i], 0));
        assert_int_equal(hart->mstatus & HART_MSTATUS_FS, HART_MSTATUS_FS);
        assert_true(csr(hart, ISA_CSR_SSTATUS) & HART_MSTATUS_SD);
    }
    csr_write(hart, ISA_CSR_FCSR, 0x74);
    assert_int_equal(csr(hart, ISA_CSR_FRM), 3);
    assert_int_equal(csr(hart, ISA_CSR_FFLAGS), 0x14);
}

static void test_counter_gates(void **state)
{
    struct hart *hart = ((struct fixture *)*state)->hart;
    static const unsigned numbers[] = {ISA_CSR_CYCLE, ISA_CSR_TIME, ISA_CSR_INSTRET,
                                       ISA_CSR_HPMCOUNTER3};

    for (size_t i = 0; i < BASE_COUNT_OF(numbers); i++)
        for (unsigned gates = 0; gates < 4; gates++) {
            bool exists = numbers[i] != ISA_CSR_HPMCOUNTER3;
            uint64_t bit = 1ull << (numbers[i] & 31);
            become(hart, HART_M);
            csr_write(hart, ISA_CSR_MCOUNTEREN, gates & 1 ? bit : 0);
            csr_write(hart, ISA_CSR_SCOUNTEREN, gates & 2 ? bit : 0);
            assert_true(csr_readable(hart, numbers[i]));
            become(hart, HART_S);
            assert_int_equal(csr_readable(hart, numbers[i]), exists && (gates & 1));
            become(hart, HART_U);
            assert_int_equal(csr_readable(hart, numbers[i]), exists && gates == 3);
        }
}

static void test_stimecmp_gates(void **state)
{
    struct hart *hart = ((struct fixture *)*state)->hart;

    for (unsigned gates = 0; gates < 4; gates++) {
        become(hart, HART_M);
        csr_write(hart, ISA_CSR_MENVCFG, gates & 1 ? HART_ENVCFG_STCE : 0);
        csr_write(hart, ISA_CSR_MCOUNTEREN, gates & 2 ? 2 : 0);
        assert_true(csr_readable(hart, ISA_CSR_STIMECMP));
        become(hart, HART_S);
        assert_int_equal(csr_readable(hart, ISA_CSR_STIMECMP), gates == 3);
    }
}

static void test_counters_count_instructions(void **state)
{
    struct hart *hart = ((struct fixture *)*state)->hart;
    static const struct {
        unsigned machine, user;
        uint64_t inhibit;
    } counters[] = {{ISA_CSR_MCYCLE, ISA_CSR_CYCLE, 1}, {ISA_CSR_MINSTRET, ISA_CSR_INSTRET, 4}};

    for (size_t i = 0; i < BASE_COUNT_OF(counters); i++) {
        hart_reset(hart);
        hart->instret = 100;
        assert_int_equal(csr(hart, counters[i].user), 100);
        assert_true(csr_write(hart, counters[i].machine, 5000));
        hart->instret++;  // the write itself retires: the next instruction reads what was written
        assert_int_equal(csr(hart, counters[i].user), 5000);
        hart->instret += 7;
        assert_int_equal(csr(hart, counters[i].machine), 5007);

        assert_true(csr_write(hart, ISA_CSR_MCOUNTINHIBIT, counters[i].inhibit));
        hart->instret++;
        uint64_t frozen = csr(hart, counters[i].machine);
        hart->instret += 50;
        assert_int_equal(csr(hart, counters[i].machine), frozen);
        assert_true(csr_write(hart, counters[i].machine, 9));
        hart->instret++;
        assert_int_equal(csr(hart, counters[i].machine), 9);
        assert_true(csr_write(hart, ISA_CSR_MCOUNTINHIBIT, 0));
        hart->instret += 4;  // that write, and three more
        assert_int_equal(csr(hart, counters[i].machine), 12);

        assert_int_equal(hart_csr_poke(hart, counters[i].machine, 77), 0);
        assert_int_equal(csr(hart, counters[i].machine), 77);
    }
}

static void test_time_follows_the_clock(void **state)
{
    struct fixture *f = *state;

    atomic_store(&f->clock_ns, 12345 * (uint64_t)TICK_NS + 99);
    assert_int_equal(csr(f->hart, ISA_CSR_TIME), 12345);
    f->hart->time_offset = 345;
    assert_int_equal(hart_time(f->hart), 12000);
}

static void test_tvm_guards_satp(void **state)
{
    struct hart *hart = ((struct fixture *)*state)->hart;

    hart->mstatus |= HART_MSTATUS_TVM;
    assert_true(csr_readable(hart, ISA_CSR_SATP));
    become(hart, HART_S);
    assert_false(csr_readable(hart, ISA_CSR_SATP));
    hart->mstatus &= ~HART_MSTATUS_TVM;
    assert_true(csr_readable(hart, ISA_CSR_SATP));
}

static void test_supervisor_views_show_delegated_bits(void **state)
{
    struct hart *hart = ((struct fixture *)*state)->hart;

    csr_write(hart, ISA_CSR_MIE, UINT64_MAX);
    csr_write(hart, ISA_CSR_MIP, UINT64_MAX);
    assert_int_equal(csr(hart, ISA_CSR_MIP), 0x222);
    assert_int_equal(csr(hart, ISA_CSR_SIE), 0);
    assert_int_equal(csr(hart, ISA_CSR_SIP), 0);
    csr_write(hart, ISA_CSR_SIP, 0);
    assert_int_equal(csr(hart, ISA_CSR_MIP), 0x222);

    csr_write(hart, ISA_CSR_MIDELEG, HART_IRQ_SSIP | HART_IRQ_SEIP);
    assert_int_equal(csr(hart, ISA_CSR_SIE), HART_IRQ_SSIP | HART_IRQ_SEIP);
    assert_int_equal(csr(hart, ISA_CSR_SIP), HART_IRQ_SSIP | HART_IRQ_SEIP);
    csr_write(hart, ISA_CSR_SIE, 0);
    assert_int_equal(csr(hart, ISA_CSR_MIE), 0xaaa & ~(HART_IRQ_SSIP | HART_IRQ_SEIP));
    csr_write(hart, ISA_CSR_SIP, 0);
    assert_int_equal(csr(hart, ISA_CSR_MIP), 0x222 & ~HART_IRQ_SSIP);  // SSIP alone is writable
}

static void test_seip_line_and_bit(void **state)
{
    struct hart *hart = ((struct fixture *)*state)->hart;

    hart_set_lines(hart, HART_IRQ_SEIP, true);
    assert_int_equal(csr(hart, ISA_CSR_MIP), HART_IRQ_SEIP);
    assert_true(csr_set(hart, ISA_CSR_MIP, HART_IRQ_SSIP));  // must not make the line stick
    hart_set_lines(hart, HART_IRQ_SEIP, false);
    assert_int_equal(csr(hart, ISA_CSR_MIP), HART_IRQ_SSIP);
    assert_true(csr_set(hart, ISA_CSR_MIP, HART_IRQ_SEIP));
    assert_int_equal(csr(hart, ISA_CSR_MIP), HART_IRQ_SSIP | HART_IRQ_SEIP);
    hart_set_lines(hart, HART_IRQ_SEIP, true);
    assert_true(csr_clear(hart, ISA_CSR_MIP, HART_IRQ_SEIP));
    assert_true(csr(hart, ISA_CSR_MIP) & HART_IRQ_SEIP);
    hart_set_lines(hart, HART_IRQ_SEIP, false);
    assert_int_equal(csr(hart, ISA_CSR_MIP), HART_IRQ_SSIP);
    // Setting the bit while the line is up is not lost when the line goes down.
    hart_set_lines(hart, HART_IRQ_SEIP, true);
    assert_true(csr_set(hart, ISA_CSR_MIP, HART_IRQ_SEIP));
    hart_set_lines(hart, HART_IRQ_SEIP, false);
    assert_int_equal(csr(hart, ISA_CSR_MIP), HART_IRQ_SSIP | HART_IRQ_SEIP);
}

static void test_machine_interrupt_bits_are_wired(void **state)
{
    struct hart *hart = ((struct fixture *)*state)->hart;

    hart_set_lines(hart, HART_IRQ_MSIP | HART_IRQ_MEIP, true);
    csr_write(hart, ISA_CSR_MIP, 0);
    assert_int_equal(csr(hart, ISA_CSR_MIP), HART_IRQ_MSIP | HART_IRQ_MEIP);
    hart_set_lines(hart, HART_IRQ_MSIP, false);
    csr_write(hart, ISA_CSR_MIP, HART_IRQ_MSIP | HART_IRQ_MTIP);
    assert_int_equal(csr(hart, ISA_CSR_MIP), HART_IRQ_MEIP);
}

static void test_stip_is_the_timers_with_sstc(void **state)
{
    struct fixture *f = *state;
    struct hart *hart = f->hart;

    atomic_store(&f->clock_ns, 1000 * TICK_NS);
    csr_write(hart, ISA_CSR_STIMECMP, 500);
    assert_int_equal(csr(hart, ISA_CSR_MIP), 0);
    csr_set(hart, ISA_CSR_MIP, HART_IRQ_STIP);
    assert_int_equal(csr(hart, ISA_CSR_MIP), HART_IRQ_STIP);
    csr_write(hart, ISA_CSR_STIMECMP, 1001);
    csr_write(hart, ISA_CSR_MENVCFG, HART_ENVCFG_STCE);
    assert_int_equal(csr(hart, ISA_CSR_MIP), 0);
    csr_set(hart, ISA_CSR_MIP, HART_IRQ_STIP);
    assert_int_equal(csr(hart, ISA_CSR_MIP), 0);
    atomic_store(&f->clock_ns, 1001 * TICK_NS);
    assert_int_equal(csr(hart, ISA_CSR_MIP), HART_IRQ_STIP);
}

// A write that makes a pending interrupt takeable has the engine leave; one that does not, does
// not.
static void test_writes_notice_interrupts(void **state)
{
    struct hart *hart = ((struct fixture *)*state)->hart;

    hart_set_supervisor_only(hart);
    become(hart, HART_S);
    hart_raise_software(hart, HART_IRQ_SSIP);
    atomic_store(&hart->attention, 0);
    csr_write(hart, ISA_CSR_SIE, HART_IRQ_SSIP);
    assert_int_equal(atomic_load(&hart->attention), 0);
    csr_set(hart, ISA_CSR_SSTATUS, HART_MSTATUS_SUM);
    assert_int_equal(atomic_load(&hart->attention), 0);
    csr_set(hart, ISA_CSR_SSTATUS, HART_MSTATUS_SIE);
    assert_int_equal(atomic_load(&hart->attention), HART_ATTENTION_IRQ);

    csr_clear(hart, ISA_CSR_SIP, HART_IRQ_SSIP);
    atomic_store(&hart->attention, 0);
    csr_write(hart, ISA_CSR_SIE, HART_IRQ_SSIP);
    assert_int_equal(atomic_load(&hart->attention), 0);
    csr_set(hart, ISA_CSR_SIP, HART_IRQ_SSIP);
    assert_int_equal(atomic_load(&hart->attention), HART_ATTENTION_IRQ);
}

static void test_identity(void **state)
{
    struct fixture other;

    (void)state;
    fixture_init(&other, 7, NULL);
    assert_int_equal(csr(other.hart, ISA_CSR_MHARTID), 7);
    fixture_fini(&other);

    struct hart *hart = NULL;
    struct error err;
    const struct hart_host host = {.clock_ns = fake_clock_ns};
    assert_int_equal(hart_create(&hart, HART_MAX, NULL, &host, &fake_engine, &err), -EINVAL);
    assert_null(hart);
    printf("refused: %s\n", err.message);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HART_TEST(test_number_decides_who_may_access),
        HART_TEST(test_absent_csrs_are_illegal),
        HART_TEST(test_writes_keep_what_is_legal),
        HART_TEST(test_reserved_field_values_leave_the_field),
        HART_TEST(test_satp_takes_supported_modes_only),
        HART_TEST(test_limited_mmu),
        HART_TEST(test_set_and_clear),
        HART_TEST(test_fp_csrs_need_fs_and_dirty_it),
        HART_TEST(test_counter_gates),
        HART_TEST(test_stimecmp_gates),
        HART_TEST(test_counters_count_instructions),
        HART_TEST(test_time_follows_the_clock),
        HART_TEST(test_tvm_guards_satp),
        HART_TEST(test_supervisor_views_show_delegated_bits),
        HART_TEST(test_seip_line_and_bit),
        HART_TEST(test_machine_interrupt_bits_are_wired),
        HART_TEST(test_stip_is_the_timers_with_sstc),
        HART_TEST(test_writes_notice_interrupts),
        HART_TEST(test_identity),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
