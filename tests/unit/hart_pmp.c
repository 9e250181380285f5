// SPDX-License-Identifier: BSD-2-Clause
// Physical memory protection: how entries match, which wins, what locks, and that the TLB and
// fetches never grant more than an entry does.
#include "hart_fixture.h"

#define R 1u
#define W 2u
#define X 4u
#define TOR (1u << 3)
#define NA4 (2u << 3)
#define NAPOT (3u << 3)
#define L (1u << 7)

#define PAGE 0x1000u
#define DATA_GPA (RAM_GPA + 0x400000u)
#define TABLES_GPA (RAM_GPA + 0x100000u)

static void set_entry(struct hart *hart, unsigned entry, unsigned cfg, uint64_t pmpaddr)
{
    unsigned number = entry < 8 ? ISA_CSR_PMPCFG0 : ISA_CSR_PMPCFG2, shift = entry % 8 * 8;
    enum hart_privilege privilege = hart->privilege;

    become(hart, HART_M);
    assert_true(csr_write(hart, ISA_CSR_PMPADDR0 + entry, pmpaddr));
    uint64_t all = csr(hart, number);
    assert_true(csr_write(hart, number, (all & ~(0xffull << shift)) | (uint64_t)cfg << shift));
    become(hart, privilege);
}

static uint64_t napot(uint64_t gpa, uint64_t bytes)
{
    return gpa >> 2 | (bytes / 8 - 1);
}

static bool may(struct hart *hart, uint64_t gpa, unsigned width, unsigned what)
{
    uint64_t value = 0, page;

    if (what == R)
        return hart_load(hart, gpa, width, &value);
    if (what == W)
        return hart_store(hart, gpa, width, 0);
    return hart_fetch_page(hart, gpa, &page) != NULL;
}

static void test_nothing_set(void **state)
{
    struct hart *hart = ((struct fixture *)*state)->hart;
    static const unsigned causes[] = {
        [R] = HART_CAUSE_LOAD_ACCESS, [W] = HART_CAUSE_STORE_ACCESS, [X] = HART_CAUSE_FETCH_ACCESS};

    for (unsigned what = R; what <= X; what *= 2) {
        become(hart, HART_M);
        assert_true(may(hart, DATA_GPA, 4, what));
        for (unsigned privilege = HART_U; privilege <= HART_S; privilege++) {
            become(hart, privilege);
            assert_false(may(hart, DATA_GPA, 4, what));
            expect_trap(hart, causes[what], DATA_GPA);
        }
    }
}

static void test_permission_bits(void **state)
{
    struct hart *hart = ((struct fixture *)*state)->hart;

    for (unsigned cfg = 0; cfg < 8; cfg++) {
        hart_reset(hart);
        set_entry(hart, 5, NAPOT | cfg, napot(DATA_GPA, 2 * PAGE));
        unsigned legal = cfg & R ? cfg : cfg & ~W;  // W without R is reserved
        assert_int_equal(csr(hart, ISA_CSR_PMPCFG0) >> 40 & 0xff, NAPOT | legal);
        become(hart, HART_S);
        for (unsigned what = R; what <= X; what *= 2)
            assert_int_equal(may(hart, DATA_GPA + 8, 8, what), !!(legal & what));
        become(hart, HART_M);  // not locked: not for M-mode
        for (unsigned what = R; what <= X; what *= 2)
            assert_true(may(hart, DATA_GPA + 8, 8, what));
    }
}

// Entry 9 allows reading from `first` to `last`, and nothing else.
static void expect_readable(struct hart *hart, uint64_t first, uint64_t last)
{
    become(hart, HART_S);
    assert_true(may(hart, first, 1, R));
    assert_true(may(hart, last, 1, R));
    assert_false(may(hart, first - 1, 1, R));
    assert_false(may(hart, last + 1, 1, R));
    assert_false(may(hart, first - 2, 4, R));  // partly outside
    assert_false(may(hart, last - 1, 4, R));
    assert_false(may(hart, first, 1, W));
}

static void test_address_modes(void **state)
{
    struct hart *hart = ((struct fixture *)*state)->hart;

    set_entry(hart, 9, NA4 | R, (DATA_GPA + 20) >> 2);
    expect_readable(hart, DATA_GPA + 20, DATA_GPA + 23);
    for (uint64_t bytes = 8; bytes <= 1u << 22; bytes *= 2) {
        set_entry(hart, 9, NAPOT | R, napot(DATA_GPA, bytes));
        expect_readable(hart, DATA_GPA, DATA_GPA + bytes - 1);
    }
    set_entry(hart, 8, 0, (DATA_GPA + 12) >> 2);  // TOR's lower bound, although off
    set_entry(hart, 9, TOR | R, (DATA_GPA + 3 * PAGE + 4) >> 2);
    expect_readable(hart, DATA_GPA + 12, DATA_GPA + 3 * PAGE + 3);
    set_entry(hart, 8, 0, (DATA_GPA + 4 * PAGE) >> 2);  // bounds the wrong way round: no match
    assert_false(may(hart, DATA_GPA + PAGE, 1, R));
    assert_false(may(hart, DATA_GPA + 4 * PAGE, 1, R));
    set_entry(hart, 9, 0, 0);
    set_entry(hart, 0, TOR | R, (DATA_GPA + 8) >> 2);  // entry 0: from address 0
    assert_true(may(hart, RAM_GPA, 8, R));
    assert_true(may(hart, DATA_GPA, 8, R));
    assert_false(may(hart, DATA_GPA + 8, 1, R));
    set_entry(hart, 0, NAPOT | R, UINT64_MAX);  // everything
    assert_true(may(hart, RAM_GPA + RAM_BYTES - 8, 8, R));
    assert_false(may(hart, RAM_GPA, 8, W));
}

static void test_lowest_entry_wins(void **state)
{
    struct hart *hart = ((struct fixture *)*state)->hart;

    set_entry(hart, 3, NAPOT | R, napot(DATA_GPA, 64));
    set_entry(hart, 15, NAPOT | R | W | X, UINT64_MAX);
    become(hart, HART_U);
    assert_true(may(hart, DATA_GPA, 8, R));
    assert_false(may(hart, DATA_GPA + 56, 8, W));
    assert_true(may(hart, DATA_GPA + 64, 8, W));
    // An access that entry 3 matches in part fails, though entry 15 allows all of it.
    assert_false(may(hart, DATA_GPA + 60, 8, R));
    assert_true(may(hart, DATA_GPA - 8, 8, R));
}

// A page in which entries begin or end is checked at each access; a uniform one is not.
static void test_tlb_holds_uniform_pages(void **state)
{
    struct hart *hart = ((struct fixture *)*state)->hart;
    const uint64_t split = DATA_GPA, whole = DATA_GPA + PAGE;

    set_entry(hart, 0, NA4, (split + 0x800) >> 2);
    set_entry(hart, 1, NAPOT | R, napot(DATA_GPA, 2 * PAGE));
    become(hart, HART_S);
    assert_true(may(hart, split, 8, R) && may(hart, whole, 8, R));
    assert_int_equal(hart->tlb[hart_tlb_index(split)].load, HART_TLB_INVALID);
    assert_int_equal(hart->tlb[hart_tlb_index(whole)].load, whole);
    assert_int_equal(hart->tlb[hart_tlb_index(whole)].store, HART_TLB_INVALID);
    assert_false(may(hart, split + 0x800, 4, R));
    // M-mode: neither entry is locked, so they do not concern it.
    become(hart, HART_M);
    assert_true(may(hart, split + 0x800, 4, W));
}

static void test_changes_reach_the_tlb(void **state)
{
    struct fixture *f = *state;
    struct hart *hart = f->hart;

    set_entry(hart, 0, NAPOT | R | W, UINT64_MAX);
    become(hart, HART_S);
    assert_true(may(hart, DATA_GPA, 8, W));
    unsigned flushes = f->flushes;
    set_entry(hart, 0, NAPOT | R, UINT64_MAX);
    assert_true(f->flushes > flushes);
    assert_int_equal(hart->tlb[hart_tlb_index(DATA_GPA)].store, HART_TLB_INVALID);
    assert_false(may(hart, DATA_GPA, 8, W));
}

static void test_locked_entries(void **state)
{
    struct hart *hart = ((struct fixture *)*state)->hart;
    const uint64_t bottom = DATA_GPA >> 2, top = (DATA_GPA + PAGE) >> 2;

    set_entry(hart, 2, 0, bottom);
    set_entry(hart, 3, TOR | R | L, top);
    become(hart, HART_M);  // locked: for M-mode too
    assert_true(may(hart, DATA_GPA, 8, R));
    assert_false(may(hart, DATA_GPA, 8, W));
    assert_false(may(hart, DATA_GPA, 8, X));
    assert_true(may(hart, DATA_GPA + PAGE, 8, W));

    uint64_t cfg = csr(hart, ISA_CSR_PMPCFG0);
    csr_write(hart, ISA_CSR_PMPCFG0, 0);
    assert_int_equal(csr(hart, ISA_CSR_PMPCFG0), cfg);
    csr_write(hart, ISA_CSR_PMPADDR0 + 3, 0);
    assert_int_equal(csr(hart, ISA_CSR_PMPADDR3), top);
    csr_write(hart, ISA_CSR_PMPADDR2, 0);  // the bottom of a locked TOR entry
    assert_int_equal(csr(hart, ISA_CSR_PMPADDR2), bottom);
    csr_write(hart, ISA_CSR_PMPADDR0 + 1, 7);
    assert_int_equal(csr(hart, ISA_CSR_PMPADDR1), 7);

    // A locked entry that is off protects its own address register only.
    set_entry(hart, 8, L, 5);
    csr_write(hart, ISA_CSR_PMPADDR8, 6);
    assert_int_equal(csr(hart, ISA_CSR_PMPADDR8), 5);
    csr_write(hart, ISA_CSR_PMPADDR7, 9);
    assert_int_equal(csr(hart, ISA_CSR_PMPADDR7), 9);
    hart_reset(hart);
    assert_int_equal(csr(hart, ISA_CSR_PMPCFG0), 0);
}

static void test_mprv_uses_mpp(void **state)
{
    struct hart *hart = ((struct fixture *)*state)->hart;

    set_entry(hart, 0, NAPOT | R, UINT64_MAX);
    become(hart, HART_M);
    csr_write(hart, ISA_CSR_MSTATUS, HART_MSTATUS_MPRV | (uint64_t)HART_S << 11);
    assert_true(may(hart, DATA_GPA, 8, R));
    assert_false(may(hart, DATA_GPA, 8, W));
    assert_true(may(hart, DATA_GPA, 8, X));
    csr_write(hart, ISA_CSR_MSTATUS, 0);
    assert_true(may(hart, DATA_GPA, 8, W));
}

static void test_fetch_from_a_split_page(void **state)
{
    struct hart *hart = ((struct fixture *)*state)->hart;
    uint64_t gpa;

    set_entry(hart, 0, NAPOT | X, napot(DATA_GPA + 0x100, 0x100));
    set_entry(hart, 1, NAPOT | X, napot(DATA_GPA + PAGE, PAGE));
    become(hart, HART_S);
    assert_non_null(hart_fetch_page(hart, DATA_GPA + PAGE, &gpa));
    assert_false(hart->fetch_halfword);
    assert_non_null(hart_fetch_page(hart, DATA_GPA + 0x1fe, &gpa));
    assert_int_equal(gpa, DATA_GPA);
    assert_true(hart->fetch_halfword);
    assert_null(hart_fetch_page(hart, DATA_GPA + 0x200, &gpa));
    expect_trap(hart, HART_CAUSE_FETCH_ACCESS, DATA_GPA + 0x200);
    assert_null(hart_fetch_page(hart, DATA_GPA + 0xfe, &gpa));
}

// Page tables are read, and marked, with S-mode's permissions (3.7.2).
static void test_page_walks_are_checked(void **state)
{
    struct fixture *f = *state;
    struct hart *hart = f->hart;
    const uint64_t slot = TABLES_GPA + 8;  // a 1 GiB leaf for gva 0x40000000
    const uint64_t gva = 0x40000000 + (DATA_GPA - RAM_GPA);

    hart->menvcfg = HART_ENVCFG_ADUE;
    csr_write(hart, ISA_CSR_SATP, 8ull << 60 | TABLES_GPA >> 12);
    set_entry(hart, 15, NAPOT | R | W | X, UINT64_MAX);
    become(hart, HART_S);
    for (unsigned cfg = 0; cfg < 4; cfg += R) {
        if (cfg == W)
            continue;
        poke64(f, slot, RAM_GPA >> 2 | 0x0f);  // V R W X, neither A nor D
        set_entry(hart, 0, NAPOT | cfg, napot(TABLES_GPA, PAGE));
        assert_int_equal(may(hart, gva, 8, R), cfg == (R | W));
        if (cfg != (R | W))
            expect_trap(hart, HART_CAUSE_LOAD_ACCESS, gva);
        assert_int_equal(peek64(f, slot), RAM_GPA >> 2 | (cfg == (R | W) ? 0x4f : 0x0f));
        // With A and D set there is nothing to write.
        poke64(f, slot, RAM_GPA >> 2 | 0xcf);
        hart_mmu_flush(hart);
        assert_int_equal(may(hart, gva, 8, R), !!(cfg & R));
    }
}

static void test_open_after_supervisor_only(void **state)
{
    struct hart *hart = ((struct fixture *)*state)->hart;

    hart_set_supervisor_only(hart);
    become(hart, HART_S);
    for (unsigned what = R; what <= X; what *= 2)
        assert_true(may(hart, RAM_GPA + RAM_BYTES - 8, 8, what));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HART_TEST(test_nothing_set),
        HART_TEST(test_permission_bits),
        HART_TEST(test_address_modes),
        HART_TEST(test_lowest_entry_wins),
        HART_TEST(test_tlb_holds_uniform_pages),
        HART_TEST(test_changes_reach_the_tlb),
        HART_TEST(test_locked_entries),
        HART_TEST(test_mprv_uses_mpp),
        HART_TEST(test_fetch_from_a_split_page),
        HART_TEST(test_page_walks_are_checked),
        HART_TEST(test_open_after_supervisor_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
