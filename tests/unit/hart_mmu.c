// SPDX-License-Identifier: BSD-2-Clause
// Translation: page tables of every mode, permissions, A and D, the soft TLB and what drops its
// entries; and the accesses that take the slow path.
#include "hart_fixture.h"

#define V 0x01u
#define R 0x02u
#define W 0x04u
#define X 0x08u
#define U 0x10u
#define G 0x20u
#define A 0x40u
#define D 0x80u
#define RW (V | R | W | A | D)
#define N (1ull << 63)
#define PBMT_SHIFT 61

#define TABLES_GPA (RAM_GPA + 0x100000u)
#define DATA_GPA (RAM_GPA + 0x400000u)  // on a 2 MiB boundary
#define PAGE 0x1000u

// Page tables are built by the test as a guest builds them, with a bump allocator of pages.
struct tables {
    struct fixture *f;
    uint64_t root, next;
    unsigned levels;
};

static uint64_t new_table(struct tables *t)
{
    uint64_t gpa = t->next;

    t->next += PAGE;
    for (unsigned i = 0; i < 512; i++)
        poke64(t->f, gpa + i * 8, 0);
    return gpa;
}

static struct tables tables_create(struct fixture *f, unsigned levels)
{
    struct tables t = {.f = f, .next = TABLES_GPA, .levels = levels};

    t.root = new_table(&t);
    return t;
}

static uint64_t satp_of(const struct tables *t, uint64_t asid)
{
    return (uint64_t)(t->levels + 5) << 60 | asid << 44 | t->root >> 12;
}

static uint64_t pte_of(uint64_t gpa, uint64_t flags)
{
    return gpa >> 12 << 10 | flags;
}

// Where the entry for gva at `level` is (0: 4 KiB pages); makes the tables on the way.
static uint64_t slot_of(struct tables *t, uint64_t gva, unsigned level)
{
    uint64_t table = t->root;

    for (unsigned l = t->levels - 1;; l--) {
        uint64_t slot = table + (gva >> (12 + 9 * l) & 511) * 8;
        if (l == level)
            return slot;
        if (!peek64(t->f, slot))
            poke64(t->f, slot, pte_of(new_table(t), V));
        table = peek64(t->f, slot) >> 10 << 12;
    }
}

static void map(struct tables *t, uint64_t gva, uint64_t gpa, unsigned level, uint64_t flags)
{
    poke64(t->f, slot_of(t, gva, level), pte_of(gpa, flags));
}

// S-mode under `t`, with the PMP open.
static void enter_supervisor(struct fixture *f, const struct tables *t, uint64_t asid)
{
    open_pmp(f->hart);
    become(f->hart, HART_M);
    assert_true(csr_write(f->hart, ISA_CSR_SATP, satp_of(t, asid)));
    become(f->hart, HART_S);
}

static bool loads(struct hart *hart, uint64_t gva)
{
    uint64_t value;

    return hart_load(hart, gva, 8, &value);
}

static bool stores(struct hart *hart, uint64_t gva)
{
    return hart_store(hart, gva, 8, 0x600d);
}

static bool fetches(struct hart *hart, uint64_t gva)
{
    uint64_t gpa;

    return hart_fetch_page(hart, gva, &gpa) != NULL;
}

static void expect_page_faults(struct hart *hart, uint64_t gva)
{
    assert_false(loads(hart, gva));
    expect_trap(hart, HART_CAUSE_LOAD_PAGE, gva);
    assert_false(stores(hart, gva));
    expect_trap(hart, HART_CAUSE_STORE_PAGE, gva);
    assert_false(fetches(hart, gva));
    expect_trap(hart, HART_CAUSE_FETCH_PAGE, gva);
}

static void expect_access_faults(struct hart *hart, uint64_t gva)
{
    assert_false(loads(hart, gva));
    expect_trap(hart, HART_CAUSE_LOAD_ACCESS, gva);
    assert_false(stores(hart, gva));
    expect_trap(hart, HART_CAUSE_STORE_ACCESS, gva);
    assert_false(fetches(hart, gva));
    expect_trap(hart, HART_CAUSE_FETCH_ACCESS, gva);
}

// What an engine does first.
static bool tlb_loads(const struct hart *hart, uint64_t gva)
{
    return hart->tlb[hart_tlb_index(gva)].load == (gva & ~0xfffull);
}

static bool tlb_stores(const struct hart *hart, uint64_t gva)
{
    return hart->tlb[hart_tlb_index(gva)].store == (gva & ~0xfffull);
}

// ---- Without translation

static void test_machine_mode_sees_physical_memory(void **state)
{
    struct fixture *f = *state;
    struct hart *hart = f->hart;
    uint64_t value, gpa;

    for (unsigned width = 1; width <= 8; width *= 2) {
        poke64(f, DATA_GPA, 0);
        assert_true(hart_store(hart, DATA_GPA, width, 0xfedcba9876543210));
        uint64_t expected = 0xfedcba9876543210 & (UINT64_MAX >> (64 - 8 * width));
        assert_int_equal(peek64(f, DATA_GPA), expected);
        assert_true(hart_load(hart, DATA_GPA, width, &value));
        assert_int_equal(value, expected);
    }
    assert_true(tlb_loads(hart, DATA_GPA) && tlb_stores(hart, DATA_GPA));
    const struct hart_tlb_entry *entry = &hart->tlb[hart_tlb_index(DATA_GPA)];
    assert_int_equal(*(uint64_t *)hart_tlb_hva(entry, DATA_GPA), peek64(f, DATA_GPA));

    assert_non_null(hart_fetch_page(hart, DATA_GPA + 6, &gpa));
    assert_int_equal(gpa, DATA_GPA);
    expect_access_faults(hart, 0x1000);
    expect_access_faults(hart, RAM_GPA + RAM_BYTES);
    expect_access_faults(hart, UINT64_MAX - 7);
    expect_access_faults(hart, RAM_GPA + (1ull << 56));
}

static void test_device_accesses(void **state)
{
    struct fixture *f = *state;
    struct hart *hart = f->hart;
    uint64_t value;

    f->device_value = 0x77;
    assert_true(hart_load(hart, DEVICE_GPA + 0x20, 4, &value));
    assert_int_equal(value, 0x77);
    assert_true(hart_store(hart, DEVICE_GPA + 0x24, 4, 0x99));
    assert_int_equal(f->device_offset, 0x24);
    assert_int_equal(f->device_value, 0x99);
    assert_false(tlb_loads(hart, DEVICE_GPA));
    assert_false(tlb_stores(hart, DEVICE_GPA));

    assert_false(hart_load(hart, DEVICE_GPA + 0x21, 4, &value));
    expect_trap(hart, HART_CAUSE_LOAD_ACCESS, DEVICE_GPA + 0x21);
    assert_false(hart_store(hart, DEVICE_GPA + 0x22, 4, 0));
    expect_trap(hart, HART_CAUSE_STORE_ACCESS, DEVICE_GPA + 0x22);
    assert_false(fetches(hart, DEVICE_GPA));
    expect_trap(hart, HART_CAUSE_FETCH_ACCESS, DEVICE_GPA);
    assert_null(hart_atomic_hva(hart, DEVICE_GPA, 4, HART_STORE, NULL));
    expect_trap(hart, HART_CAUSE_STORE_ACCESS, DEVICE_GPA);
    assert_int_equal(f->device_reads, 1);
    assert_int_equal(f->device_writes, 1);
}

// ---- The walk

static void test_every_mode_and_leaf_size(void **state)
{
    struct fixture *f = *state;
    struct hart *hart = f->hart;

    for (unsigned levels = 3; levels <= 5; levels++) {
        unsigned bits = 12 + 9 * levels;
        uint64_t half = 1ull << (bits - 1);
        struct tables t = tables_create(f, levels);
        enter_supervisor(f, &t, 0);
        for (unsigned level = 0; level < levels; level++) {
            uint64_t bytes = 1ull << (12 + 9 * level);
            uint64_t base = DATA_GPA & ~(bytes - 1), offset = DATA_GPA - base + 0xff8, gpa;
            // One in each half of the address space, the upper one at its very end.
            uint64_t low = half - bytes, high = 0 - bytes;
            map(&t, low, base, level, RW | X);
            map(&t, high, base, level, RW | X);
            poke64(f, base + offset, 0x1111 * levels + level);
            for (unsigned i = 0; i < 2; i++) {
                uint64_t gva = (i ? high : low) + offset, value;
                assert_true(hart_load(hart, gva, 8, &value));
                assert_int_equal(value, 0x1111 * levels + level);
                assert_true(stores(hart, gva));
                assert_true(fetches(hart, gva));
                assert_int_equal(hart_debug_translate(hart, gva, &gpa), 0);
                assert_int_equal(gpa, base + offset);
                poke64(f, base + offset, 0x1111 * levels + level);
            }
            map(&t, low, 0, level, 0);
            map(&t, high, 0, level, 0);
            hart_mmu_flush(hart);
            if (level == 0)
                continue;
            map(&t, low, base + bytes / 2, level, RW | X);  // superpages are naturally aligned
            expect_page_faults(hart, low);
            map(&t, low, 0, level, 0);
        }
        expect_page_faults(hart, half);  // just beyond canonical
        expect_page_faults(hart, 0 - half - 8);
        expect_page_faults(hart, half - 8);  // canonical, not mapped
        if (bits < 57)
            expect_page_faults(hart, half << 2);
    }
    printf("Sv39, Sv48, Sv57\n");
}

static void test_reserved_encodings_fault(void **state)
{
    struct fixture *f = *state;
    struct tables t = tables_create(f, 3);
    const uint64_t gva = 0x40000000, pointer = slot_of(&t, gva, 1), leaf = slot_of(&t, gva, 0);
    const uint64_t good_pointer = peek64(f, pointer), good_leaf = pte_of(DATA_GPA, RW | X);

    enter_supervisor(f, &t, 0);
    poke64(f, leaf, good_leaf);
    assert_true(loads(f->hart, gva));
    for (unsigned bit = 54; bit < 64; bit++) {
        if (bit == 62 || bit == 61)
            continue;  // PBMT, tested below
        poke64(f, leaf, good_leaf | 1ull << bit);
        hart_mmu_flush(f->hart);
        expect_page_faults(f->hart, gva);
    }
    const uint64_t bad_leaves[] = {0, good_leaf & ~V, pte_of(DATA_GPA, V | W | A | D),
                                   pte_of(DATA_GPA, V | W | X | A | D),
                                   pte_of(DATA_GPA, V)};  // a pointer at the last level
    for (unsigned i = 0; i < BASE_COUNT_OF(bad_leaves); i++) {
        poke64(f, leaf, bad_leaves[i]);
        expect_page_faults(f->hart, gva);
    }
    poke64(f, leaf, good_leaf);
    const uint64_t reserved[] = {A, D, U, N, 1ull << 61, 1ull << 62, 1ull << 54, 1ull << 60};
    for (unsigned i = 0; i < BASE_COUNT_OF(reserved); i++) {
        poke64(f, pointer, good_pointer | reserved[i]);
        expect_page_faults(f->hart, gva);
    }
    poke64(f, pointer, good_pointer | G);
    assert_true(loads(f->hart, gva));
}

static void test_tables_outside_of_ram(void **state)
{
    struct fixture *f = *state;
    struct tables t = tables_create(f, 3);
    const uint64_t gva = 0x40000000;

    enter_supervisor(f, &t, 0);
    poke64(f, slot_of(&t, gva, 1), pte_of(DEVICE_GPA, V));
    expect_access_faults(f->hart, gva);
    poke64(f, slot_of(&t, gva, 1), pte_of(1ull << 55, V));
    expect_access_faults(f->hart, gva);
    assert_int_equal(f->device_reads, 0);
    map(&t, 0x80000000, 1ull << 55, 2, RW | X);  // a leaf to nowhere
    expect_access_faults(f->hart, 0x80000000);
}

static void test_svnapot(void **state)
{
    struct fixture *f = *state;
    struct tables t = tables_create(f, 3);
    const uint64_t gva = 0x40000000;
    uint64_t gpa;

    enter_supervisor(f, &t, 0);
    for (unsigned i = 0; i < 16; i++)
        map(&t, gva + i * PAGE, DATA_GPA | 0x8000, 0, RW | X | N);
    for (unsigned i = 0; i < 16; i++) {
        poke64(f, DATA_GPA + i * PAGE, i);
        uint64_t value;
        assert_true(hart_load(f->hart, gva + i * PAGE, 8, &value));
        assert_int_equal(value, i);
        assert_int_equal(hart_debug_translate(f->hart, gva + i * PAGE + 5, &gpa), 0);
        assert_int_equal(gpa, DATA_GPA + i * PAGE + 5);
    }
    hart_mmu_flush(f->hart);
    for (unsigned low = 0; low < 16; low++) {  // 64 KiB is the only size
        if (low == 8)
            continue;
        map(&t, gva, DATA_GPA + low * PAGE, 0, RW | X | N);
        expect_page_faults(f->hart, gva);
    }
    map(&t, 0x80000000, RAM_GPA, 2, RW | X | N);
    expect_page_faults(f->hart, 0x80000000);
}

static void test_svpbmt(void **state)
{
    struct fixture *f = *state;
    struct tables t = tables_create(f, 3);
    const uint64_t gva = 0x40000000;

    enter_supervisor(f, &t, 0);
    for (unsigned pbmte = 0; pbmte < 2; pbmte++) {
        become(f->hart, HART_M);
        csr_write(f->hart, ISA_CSR_MENVCFG, pbmte ? HART_ENVCFG_PBMTE : 0);
        become(f->hart, HART_S);
        for (uint64_t type = 0; type < 4; type++) {
            map(&t, gva, DATA_GPA, 0, RW | X | type << PBMT_SHIFT);
            hart_mmu_flush(f->hart);
            if (type == 0 || (pbmte && type != 3))
                assert_true(loads(f->hart, gva) && stores(f->hart, gva) && fetches(f->hart, gva));
            else
                expect_page_faults(f->hart, gva);
        }
    }
}

// ---- Permissions

// What 4.3.2 and 3.1.6.3 say, written down once more without the MMU's shortcuts.
static bool permitted(unsigned flags, enum hart_privilege privilege, bool sum, bool mxr,
                      enum hart_access access)
{
    bool user = flags & U;

    if (privilege == HART_U && !user)
        return false;
    if (privilege == HART_S && user && (access == HART_EXEC || !sum))
        return false;
    switch (access) {
    case HART_LOAD:
        return (flags & R) || (mxr && (flags & X));
    case HART_STORE:
        return flags & W;
    default:
        return flags & X;
    }
}

static void test_permissions(void **state)
{
    struct fixture *f = *state;
    struct hart *hart = f->hart;
    struct tables t = tables_create(f, 3);
    const uint64_t gva = 0x40000000;
    unsigned checked = 0;

    enter_supervisor(f, &t, 0);
    for (unsigned kind = 0; kind < 64; kind++) {
        unsigned flags = (kind & 7) << 1 | (kind & 8 ? U : 0);
        bool sum = kind & 16, mxr = kind & 32;
        if (!(flags & (R | W | X)) || ((flags & W) && !(flags & R)))
            continue;  // no leaf, or reserved
        map(&t, gva, DATA_GPA, 0, V | A | D | flags);
        for (unsigned privilege = HART_U; privilege <= HART_S; privilege++) {
            become(hart, HART_M);
            csr_write(hart, ISA_CSR_MSTATUS,
                      (sum ? HART_MSTATUS_SUM : 0) | (mxr ? HART_MSTATUS_MXR : 0));
            become(hart, privilege);
            hart_mmu_flush(hart);
            bool may_load = permitted(flags, privilege, sum, mxr, HART_LOAD);
            bool may_store = permitted(flags, privilege, sum, mxr, HART_STORE);
            assert_int_equal(loads(hart, gva), may_load);
            assert_int_equal(tlb_loads(hart, gva), may_load);
            assert_int_equal(tlb_stores(hart, gva), may_load && may_store);
            assert_int_equal(stores(hart, gva), may_store);
            assert_int_equal(tlb_stores(hart, gva), may_store);
            assert_int_equal(fetches(hart, gva), permitted(flags, privilege, sum, mxr, HART_EXEC));
            checked += 3;
        }
    }
    printf("%u combinations\n", checked);
}

// Changes of privilege, SUM and MXR must not leave anything usable in the TLB that is no longer
// permitted, without a fence in between.
static void test_contexts_are_separate(void **state)
{
    struct fixture *f = *state;
    struct hart *hart = f->hart;
    struct tables t = tables_create(f, 3);
    const uint64_t user = 0x40000000, kernel = 0x40001000, code = 0x40002000;

    map(&t, user, DATA_GPA, 0, RW | U);
    map(&t, kernel, DATA_GPA + PAGE, 0, RW);
    map(&t, code, DATA_GPA + 2 * PAGE, 0, V | X | A);
    enter_supervisor(f, &t, 0);
    csr_set(hart, ISA_CSR_SSTATUS, HART_MSTATUS_SUM);
    assert_true(loads(hart, user) && stores(hart, user));
    assert_true(tlb_stores(hart, user));
    csr_clear(hart, ISA_CSR_SSTATUS, HART_MSTATUS_SUM);
    assert_false(tlb_loads(hart, user) || tlb_stores(hart, user));
    assert_false(loads(hart, user));
    assert_true(loads(hart, kernel) && tlb_loads(hart, kernel));
    become(hart, HART_U);
    assert_false(tlb_loads(hart, kernel));
    assert_false(loads(hart, kernel));
    assert_true(loads(hart, user));

    become(hart, HART_S);
    csr_set(hart, ISA_CSR_SSTATUS, HART_MSTATUS_MXR);
    assert_true(loads(hart, code) && tlb_loads(hart, code));
    csr_clear(hart, ISA_CSR_SSTATUS, HART_MSTATUS_MXR);
    assert_false(tlb_loads(hart, code));
    assert_false(loads(hart, code));
}

static void test_mprv(void **state)
{
    struct fixture *f = *state;
    struct hart *hart = f->hart;
    struct tables t = tables_create(f, 3);
    const uint64_t gva = 0x40000000;

    map(&t, gva, DATA_GPA, 0, RW | U | X);
    enter_supervisor(f, &t, 0);
    become(hart, HART_M);
    csr_write(hart, ISA_CSR_MSTATUS, HART_MSTATUS_MPRV | (uint64_t)HART_U << 11);
    assert_true(loads(hart, gva) && stores(hart, gva));
    assert_false(fetches(hart, gva));  // MPRV is for loads and stores
    expect_trap(hart, HART_CAUSE_FETCH_ACCESS, gva);
    csr_write(hart, ISA_CSR_MSTATUS, HART_MSTATUS_MPRV | (uint64_t)HART_S << 11);
    assert_false(loads(hart, gva));
    expect_trap(hart, HART_CAUSE_LOAD_PAGE, gva);
    csr_write(hart, ISA_CSR_MSTATUS, HART_MSTATUS_MPRV | (uint64_t)HART_M << 11);
    assert_true(loads(hart, DATA_GPA));
    assert_false(loads(hart, gva));
    expect_trap(hart, HART_CAUSE_LOAD_ACCESS, gva);
    csr_write(hart, ISA_CSR_MSTATUS, HART_MSTATUS_MPRV);
    become(hart, HART_S);  // MPRV acts in M-mode only
    assert_false(loads(hart, gva));
}

// ---- A and D

static void test_accessed_and_dirty(void **state)
{
    struct fixture *f = *state;
    struct hart *hart = f->hart;
    struct tables t = tables_create(f, 3);
    const uint64_t gva = 0x40000000, slot = slot_of(&t, gva, 0);

    enter_supervisor(f, &t, 0);
    poke64(f, slot, pte_of(DATA_GPA, V | R | W | X));
    expect_page_faults(hart, gva);  // ADUE clear: Svade
    poke64(f, slot, pte_of(DATA_GPA, V | R | W | X | A));
    assert_true(loads(hart, gva) && fetches(hart, gva));
    assert_false(tlb_stores(hart, gva));
    assert_false(stores(hart, gva));
    expect_trap(hart, HART_CAUSE_STORE_PAGE, gva);

    become(hart, HART_M);
    csr_write(hart, ISA_CSR_MENVCFG, HART_ENVCFG_ADUE);
    become(hart, HART_S);
    poke64(f, slot, pte_of(DATA_GPA, V | R | W | X));
    uint64_t gpa;
    assert_int_equal(hart_debug_translate(hart, gva, &gpa), 0);
    assert_int_equal(peek64(f, slot), pte_of(DATA_GPA, V | R | W | X));
    assert_true(fetches(hart, gva));
    assert_int_equal(peek64(f, slot), pte_of(DATA_GPA, V | R | W | X | A));
    poke64(f, slot, pte_of(DATA_GPA, V | R | W | X));
    assert_true(loads(hart, gva));
    assert_int_equal(peek64(f, slot), pte_of(DATA_GPA, V | R | W | X | A));
    assert_true(tlb_loads(hart, gva));
    assert_false(tlb_stores(hart, gva));  // or the first store would not set D
    assert_true(stores(hart, gva));
    assert_int_equal(peek64(f, slot), pte_of(DATA_GPA, V | R | W | X | A | D));
    assert_true(tlb_stores(hart, gva));

    // What is not permitted marks nothing.
    poke64(f, slot, pte_of(DATA_GPA, V | R));
    hart_mmu_flush(hart);
    assert_false(stores(hart, gva));
    assert_false(fetches(hart, gva));
    assert_int_equal(peek64(f, slot), pte_of(DATA_GPA, V | R));
}

#define RACE_ROUNDS 20000
#define RSW (1ull << 8)

struct race {
    _Atomic uint64_t *slot;
    atomic_bool over;
    atomic_uint flips;
    unsigned lost;
};

static void *flip_rsw(void *opaque)
{
    struct race *race = opaque;

    while (!atomic_load(&race->over)) {
        bool found = atomic_fetch_xor(race->slot, RSW) & RSW;
        race->lost += found != (atomic_load(&race->flips) + race->lost) % 2;
        atomic_fetch_add(&race->flips, 1);
    }
    return NULL;
}

// Marking must not overwrite what another hart does to the entry: the bit that only the other
// flips is always as it left it.
static void test_marking_loses_no_update(void **state)
{
    struct fixture *f = *state;
    struct tables t = tables_create(f, 3);
    const uint64_t gva = 0x40000000, slot = slot_of(&t, gva, 0);
    struct race race = {.slot = memory_ram_hva(f->memory, slot, 8)};
    pthread_t thread;

    enter_supervisor(f, &t, 0);
    f->hart->menvcfg |= HART_ENVCFG_ADUE;
    poke64(f, slot, pte_of(DATA_GPA, V | R | W));
    assert_int_equal(pthread_create(&thread, NULL, flip_rsw, &race), 0);
    WAIT_UNTIL(atomic_load(&race.flips));
    for (unsigned i = 0; i < RACE_ROUNDS; i++) {
        atomic_fetch_and(race.slot, ~(uint64_t)(A | D));
        hart_mmu_flush_page(f->hart, gva, HART_ANY_ASID);
        assert_true(stores(f->hart, gva));
        assert_true(atomic_load(race.slot) & D);
    }
    atomic_store(&race.over, true);
    pthread_join(thread, NULL);
    assert_int_equal(race.lost, 0);
    assert_int_equal(atomic_load(race.slot) & ~RSW, pte_of(DATA_GPA, RW));
    printf("%u rounds, %u flips\n", RACE_ROUNDS, atomic_load(&race.flips));
}

// ---- Misaligned accesses

static void test_misaligned_accesses(void **state)
{
    struct fixture *f = *state;
    struct hart *hart = f->hart;
    struct tables t = tables_create(f, 3);
    const uint64_t gva = 0x40000000;
    uint8_t bytes[32];
    uint64_t value;

    // Neighbours in virtual memory that are none in physical memory.
    map(&t, gva, DATA_GPA + 4 * PAGE, 0, RW);
    map(&t, gva + PAGE, DATA_GPA, 0, RW);
    enter_supervisor(f, &t, 0);
    for (unsigned width = 2; width <= 8; width *= 2)
        for (unsigned before = 0; before <= width + 1; before++) {
            uint64_t at = gva + PAGE - before, pattern = 0x0123456789abcdef;
            for (unsigned i = 0; i < 32; i++)
                assert_true(hart_store(hart, gva + PAGE - 16 + i, 1, 0xa0 + i));
            assert_true(hart_load(hart, at, width, &value));
            for (unsigned i = 0; i < 8; i++)
                assert_int_equal(value >> (8 * i) & 0xff, i < width ? 0xb0 - before + i : 0);
            assert_true(hart_store(hart, at, width, pattern));
            for (unsigned i = 0; i < 32; i++) {
                assert_true(hart_load(hart, gva + PAGE - 16 + i, 1, &value));
                bytes[i] = (uint8_t)value;
            }
            for (unsigned i = 0; i < 32; i++) {
                unsigned index = i - (16 - before);
                assert_int_equal(bytes[i],
                                 index < width ? pattern >> (8 * index) & 0xff : 0xa0 + i);
            }
        }
}

static void test_crossing_faults_change_nothing(void **state)
{
    struct fixture *f = *state;
    struct hart *hart = f->hart;
    struct tables t = tables_create(f, 3);
    const uint64_t gva = 0x40000000, at = gva + PAGE - 3;
    uint64_t value = 0x5a5a;

    map(&t, gva, DATA_GPA, 0, RW);
    enter_supervisor(f, &t, 0);
    poke64(f, DATA_GPA + PAGE - 8, 0x1122334455667788);
    // The second page is missing, or no RAM: tval is its start.
    for (unsigned device = 0; device < 2; device++) {
        if (device)
            map(&t, gva + PAGE, DEVICE_GPA, 0, RW);
        assert_false(hart_store(hart, at, 8, UINT64_MAX));
        expect_trap(hart, device ? HART_CAUSE_STORE_ACCESS : HART_CAUSE_STORE_PAGE, gva + PAGE);
        assert_false(hart_load(hart, at, 8, &value));
        expect_trap(hart, device ? HART_CAUSE_LOAD_ACCESS : HART_CAUSE_LOAD_PAGE, gva + PAGE);
    }
    // The first page is.
    map(&t, gva + PAGE, DATA_GPA, 0, RW);
    map(&t, gva, 0, 0, 0);
    hart_mmu_flush(hart);
    assert_false(hart_store(hart, at, 8, UINT64_MAX));
    expect_trap(hart, HART_CAUSE_STORE_PAGE, at);
    assert_int_equal(peek64(f, DATA_GPA + PAGE - 8), 0x1122334455667788);
    assert_int_equal(f->device_reads + f->device_writes, 0);
    assert_int_equal(value, 0x5a5a);
    // At the end of the address space the second page is page 0.
    become(hart, HART_M);
    assert_false(hart_load(hart, UINT64_MAX - 2, 8, &value));
    expect_trap(hart, HART_CAUSE_LOAD_ACCESS, UINT64_MAX - 2);
}

static void test_atomics(void **state)
{
    struct fixture *f = *state;
    struct hart *hart = f->hart;
    struct tables t = tables_create(f, 3);
    const uint64_t gva = 0x40000000, read_only = 0x40001000;
    uint64_t gpa;

    map(&t, gva, DATA_GPA, 0, RW);
    map(&t, read_only, DATA_GPA + PAGE, 0, V | R | A);
    enter_supervisor(f, &t, 0);
    assert_ptr_equal(hart_atomic_hva(hart, gva + 16, 8, HART_STORE, &gpa),
                     memory_ram_hva(f->memory, DATA_GPA + 16, 8));
    assert_int_equal(gpa, DATA_GPA + 16);
    assert_non_null(hart_atomic_hva(hart, gva + 12, 4, HART_LOAD, NULL));
    assert_null(hart_atomic_hva(hart, gva + 12, 8, HART_LOAD, NULL));
    expect_trap(hart, HART_CAUSE_LOAD_MISALIGNED, gva + 12);
    assert_null(hart_atomic_hva(hart, gva + 2, 4, HART_STORE, NULL));
    expect_trap(hart, HART_CAUSE_STORE_MISALIGNED, gva + 2);
    assert_non_null(hart_atomic_hva(hart, read_only, 8, HART_LOAD, NULL));
    assert_null(hart_atomic_hva(hart, read_only, 8, HART_STORE, NULL));
    expect_trap(hart, HART_CAUSE_STORE_PAGE, read_only);
}

// ---- Fences

static void sfence(struct hart *hart, bool with_gva, uint64_t gva, bool with_asid, uint64_t asid)
{
    hart->x[5] = gva;
    hart->x[6] = asid;
    assert_true(system_insn(hart, ISA_SFENCE_VMA, with_gva ? 5 : 0, with_asid ? 6 : 0));
}

static void test_fences_drop_what_they_name(void **state)
{
    struct fixture *f = *state;
    struct hart *hart = f->hart;
    struct tables t = tables_create(f, 3);
    const uint64_t one = 0x40000000, two = 0x40001000, global = 0x40002000;
    static const struct {
        uint64_t gva, asid;
        bool with_gva, with_asid;
        bool one, two, global;  // what must be gone
    } fences[] = {
        {0, 0, false, false, true, true, true},
        {0x40000ff8, 0, true, false, true, false, false},
        {0x40002000, 0, true, false, false, false, true},
        {0x40001000, 3, true, true, false, true, false},
        {0x40001000, 3 | 5ull << 16, true, true, false, true, false},  // upper bits are ignored
        {0, 3, false, true, true, true, false},
        {0x40200000, 0, true, false, false, false, false},  // same TLB index as one
    };

    map(&t, one, DATA_GPA, 0, RW);
    map(&t, two, DATA_GPA + PAGE, 0, RW);
    map(&t, global, DATA_GPA + 2 * PAGE, 0, RW | G);
    enter_supervisor(f, &t, 3);
    for (unsigned i = 0; i < BASE_COUNT_OF(fences); i++) {
        unsigned flushes = f->flushes;
        assert_true(loads(hart, one) && loads(hart, two) && loads(hart, global));
        assert_true(stores(hart, one) && stores(hart, two) && stores(hart, global));
        sfence(hart, fences[i].with_gva, fences[i].gva, fences[i].with_asid, fences[i].asid);
        assert_int_equal(f->flushes, flushes + 1);
        if (fences[i].one)
            assert_false(tlb_loads(hart, one) || tlb_stores(hart, one));
        if (fences[i].two)
            assert_false(tlb_loads(hart, two) || tlb_stores(hart, two));
        if (fences[i].global)
            assert_false(tlb_loads(hart, global) || tlb_stores(hart, global));
        // Dropping more is allowed, but is what the TLB is there to avoid.
        assert_int_equal(tlb_loads(hart, one), !fences[i].one);
        assert_int_equal(tlb_loads(hart, two), !fences[i].two);
        assert_int_equal(tlb_loads(hart, global), !fences[i].global);
    }
    // Another address space's: nothing of it is there.
    sfence(hart, false, 0, true, 4);
    assert_true(tlb_loads(hart, one) || !tlb_loads(hart, two));
}

// A leaf larger than a page is many entries of the TLB, and any address in it names them all.
static void test_fence_of_one_address_drops_a_whole_leaf(void **state)
{
    struct fixture *f = *state;
    struct hart *hart = f->hart;

    for (unsigned upper = 0; upper < 2; upper++)
        for (unsigned size = 0; size < 3; size++) {
            struct tables t = tables_create(f, 3);
            uint64_t gva = upper ? 0xffffffff80000000 : 0x40000000;
            uint64_t other = gva ^ 0x8000000;  // mapped by small pages
            uint64_t bytes = size == 0 ? 0x10000 : size == 1 ? 1ull << 21 : 1ull << 30;
            if (size == 0)
                for (unsigned i = 0; i < 16; i++)
                    map(&t, gva + i * PAGE, DATA_GPA | 0x8000, 0, RW | N);
            else
                map(&t, gva, size == 1 ? DATA_GPA : RAM_GPA, size, RW);
            if (size < 2)
                map(&t, other, DATA_GPA, 0, RW);
            enter_supervisor(f, &t, 0);
            hart_mmu_flush(hart);
            uint64_t last = gva + (bytes < RAM_BYTES ? bytes : RAM_BYTES) - PAGE;
            assert_true(loads(hart, gva) && stores(hart, gva + PAGE) && loads(hart, last));
            if (size < 2)
                assert_true(loads(hart, other));
            sfence(hart, true, gva + bytes / 2, false, 0);
            assert_false(tlb_loads(hart, gva));
            assert_false(tlb_stores(hart, gva + PAGE));
            assert_false(tlb_loads(hart, last));
            if (size < 2)
                assert_true(tlb_loads(hart, other));
        }
}

static void test_satp_switches_address_spaces(void **state)
{
    struct fixture *f = *state;
    struct hart *hart = f->hart;
    struct tables a = tables_create(f, 3), b = {.f = f, .next = a.next + 64 * PAGE, .levels = 3};
    const uint64_t gva = 0x40000000, global = 0xffffffff80001000;
    uint64_t value;

    b.root = new_table(&b);
    map(&a, gva, DATA_GPA, 0, RW);
    map(&b, gva, DATA_GPA + PAGE, 0, RW);
    map(&a, global, DATA_GPA + 2 * PAGE, 0, RW | G);
    map(&b, global, DATA_GPA + 2 * PAGE, 0, RW | G);
    poke64(f, DATA_GPA, 0xa);
    poke64(f, DATA_GPA + PAGE, 0xb);
    enter_supervisor(f, &a, 1);
    assert_true(hart_load(hart, gva, 8, &value) && value == 0xa);
    assert_true(loads(hart, global));

    unsigned flushes = f->flushes;
    assert_true(csr_write(hart, ISA_CSR_SATP, satp_of(&a, 1)));  // no change
    assert_int_equal(f->flushes, flushes);
    assert_true(tlb_loads(hart, gva));
    assert_true(csr_write(hart, ISA_CSR_SATP, satp_of(&b, 2)));
    assert_int_equal(f->flushes, flushes + 1);
    assert_false(tlb_loads(hart, gva));
    assert_true(tlb_loads(hart, global));  // global entries stay
    assert_true(hart_load(hart, gva, 8, &value) && value == 0xb);
    assert_true(csr_write(hart, ISA_CSR_SATP, satp_of(&a, 1)));
    assert_true(hart_load(hart, gva, 8, &value) && value == 0xa);

    // Nothing survives a change of mode.
    assert_true(csr_write(hart, ISA_CSR_SATP, 0));
    assert_false(tlb_loads(hart, gva) || tlb_loads(hart, global));
    assert_false(loads(hart, global));
    expect_trap(hart, HART_CAUSE_LOAD_ACCESS, global);
    assert_true(loads(hart, DATA_GPA));
    assert_true(csr_write(hart, ISA_CSR_SATP, satp_of(&a, 1)));
    assert_false(tlb_loads(hart, DATA_GPA));
}

// ---- Cache blocks

static void test_cache_block_gates(void **state)
{
    struct fixture *f = *state;
    struct hart *hart = f->hart;
    static const struct {
        enum isa_op op;
        uint64_t field;
    } ops[] = {{ISA_CBO_ZERO, HART_ENVCFG_CBZE},
               {ISA_CBO_CLEAN, HART_ENVCFG_CBCFE},
               {ISA_CBO_FLUSH, HART_ENVCFG_CBCFE},
               {ISA_CBO_INVAL, 1ull << 4},
               {ISA_CBO_INVAL, 3ull << 4}};

    open_pmp(hart);
    for (unsigned i = 0; i < BASE_COUNT_OF(ops); i++)
        for (unsigned gates = 0; gates < 4; gates++) {
            become(hart, HART_M);
            csr_write(hart, ISA_CSR_MENVCFG, gates & 1 ? ops[i].field : 0);
            csr_write(hart, ISA_CSR_SENVCFG, gates & 2 ? ops[i].field : 0);
            assert_true(hart_cache_block(hart, ops[i].op, 0xcb0, DATA_GPA));
            become(hart, HART_S);
            assert_int_equal(hart_cache_block(hart, ops[i].op, 0xcb0, DATA_GPA), gates & 1);
            become(hart, HART_U);
            bool legal = hart_cache_block(hart, ops[i].op, 0xcb0, DATA_GPA);
            assert_int_equal(legal, gates == 3);
            if (!legal)
                expect_trap(hart, HART_CAUSE_ILLEGAL, 0xcb0);
        }
}

static void test_cache_block_accesses(void **state)
{
    struct fixture *f = *state;
    struct hart *hart = f->hart;
    struct tables t = tables_create(f, 3);
    const uint64_t gva = 0x40000000, read_only = 0x40001000, none = 0x40002000;

    map(&t, gva, DATA_GPA, 0, RW);
    map(&t, read_only, DATA_GPA + PAGE, 0, V | R | A);
    hart->menvcfg = HART_ENVCFG_CBZE | HART_ENVCFG_CBCFE | HART_ENVCFG_CBIE;
    enter_supervisor(f, &t, 0);
    for (unsigned i = 0; i < 24; i++)
        poke64(f, DATA_GPA + i * 8, UINT64_MAX);
    assert_true(hart_cache_block(hart, ISA_CBO_ZERO, 0, gva + 64 + 17));
    for (unsigned i = 0; i < 24; i++)
        assert_int_equal(peek64(f, DATA_GPA + i * 8), i / 8 == 1 ? 0 : UINT64_MAX);
    assert_true(hart_cache_block(hart, ISA_CBO_FLUSH, 0, read_only + 5));
    assert_false(hart_cache_block(hart, ISA_CBO_ZERO, 0, read_only + 5));
    expect_trap(hart, HART_CAUSE_STORE_PAGE, read_only + 5);
    assert_false(hart_cache_block(hart, ISA_CBO_CLEAN, 0, none + 70));
    expect_trap(hart, HART_CAUSE_STORE_PAGE, none + 70);
    become(hart, HART_M);
    assert_false(hart_cache_block(hart, ISA_CBO_ZERO, 0, DEVICE_GPA + 3));
    expect_trap(hart, HART_CAUSE_STORE_ACCESS, DEVICE_GPA + 3);
    assert_int_equal(f->device_writes, 0);
}

static uint64_t run_of(struct fixture *f, uint64_t gva)
{
    struct hart_extent extent;

    assert_true(hart_mmu_run(f->hart, gva, HART_TLB_S, &extent));
    assert_int_equal(extent.gva, gva & ~(uint64_t)(PAGE - 1));
    return extent.bytes / PAGE;
}

// Leaves that go on in RAM, up to one that differs in anything, and to the end of the table.
static void test_runs(void **state)
{
    struct fixture *f = *state;
    struct tables t = tables_create(f, 3);
    const uint64_t gva = 0x40000000, last = gva + 0x1ff000, more = gva + 0x200000;

    for (unsigned page = 0; page < 16; page++)
        map(&t, gva + page * PAGE, DATA_GPA + page * PAGE, 0, RW | G);
    map(&t, last, RAM_GPA, 0, RW);
    map(&t, more, RAM_GPA + RAM_BYTES - PAGE, 0, RW);
    map(&t, more + PAGE, RAM_GPA + RAM_BYTES, 0, RW);
    enter_supervisor(f, &t, 1);
    assert_int_equal(run_of(f, gva), 16);
    assert_int_equal(run_of(f, gva + 10 * PAGE + 8), 6);
    assert_int_equal(run_of(f, last), 1);
    assert_int_equal(run_of(f, more), 1);  // not beyond the end of RAM
    map(&t, gva + 12 * PAGE, DATA_GPA + 13 * PAGE, 0, RW | G);
    assert_int_equal(run_of(f, gva), 12);
    map(&t, gva + 9 * PAGE, DATA_GPA + 9 * PAGE, 0, RW);
    assert_int_equal(run_of(f, gva), 9);
    map(&t, gva + 5 * PAGE, DATA_GPA + 5 * PAGE, 0, (RW | G) & ~D);
    assert_int_equal(run_of(f, gva), 5);
    map(&t, gva + 2 * PAGE, 0, 0, 0);
    assert_int_equal(run_of(f, gva), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HART_TEST(test_machine_mode_sees_physical_memory),
        HART_TEST(test_device_accesses),
        HART_TEST(test_every_mode_and_leaf_size),
        HART_TEST(test_reserved_encodings_fault),
        HART_TEST(test_tables_outside_of_ram),
        HART_TEST(test_svnapot),
        HART_TEST(test_svpbmt),
        HART_TEST(test_permissions),
        HART_TEST(test_contexts_are_separate),
        HART_TEST(test_mprv),
        HART_TEST(test_accessed_and_dirty),
        HART_TEST(test_marking_loses_no_update),
        HART_TEST(test_misaligned_accesses),
        HART_TEST(test_crossing_faults_change_nothing),
        HART_TEST(test_atomics),
        HART_TEST(test_fences_drop_what_they_name),
        HART_TEST(test_fence_of_one_address_drops_a_whole_leaf),
        HART_TEST(test_satp_switches_address_spaces),
        HART_TEST(test_cache_block_gates),
        HART_TEST(test_cache_block_accesses),
        HART_TEST(test_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
