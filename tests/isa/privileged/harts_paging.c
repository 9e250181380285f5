// SPDX-License-Identifier: BSD-2-Clause
// Page tables that several harts (4) use and change: A and D are set atomically (Privileged ISA
// section 10.3.1), and a change is seen on every hart after its own fence.
#include "barrier.h"
#include "paging.h"

#define ROUNDS 100u
#define RSW(bit) (1ull << (8 + (bit)))

STUB(load, "ld a0, 0(a0)");
STUB(store, "sd a1, 0(a0)");
STUB(load_fenced, "ld a2, 0(a0)\nsfence.vma a0, zero\nld a0, 0(a0)");

static struct barrier all = {HARTS, 0, 0};
static struct paging shared;
static uint64_t page[2][512] __attribute__((aligned(4096)));
static volatile uint64_t seen[HARTS];

static void set_bits(uint64_t *entry, uint64_t bits)
{
    __asm__ volatile("amoor.d zero, %0, (%1)" ::"r"(bits), "r"(entry) : "memory");
}

// One loads, one stores, two set bits of software's in the same entry: nothing gets lost.
static void test_accessed_dirty(unsigned hart)
{
    uint64_t *leaf = paging_entry(&shared, TEST_GVA, 0);
    uint64_t clean = pte_of((uint64_t)page[0], PTE_V | PTE_R | PTE_W);

    for (unsigned i = 0; i < ROUNDS; i++) {
        if (hart == 0)
            *leaf = clean;
        meet(&all);
        fence_all();
        meet(&all);
        if (hart == 1)
            run(MODE_S, load, TEST_GVA, 0);
        else if (hart == 2)
            run(MODE_S, store, TEST_GVA, i);
        else
            set_bits(leaf, RSW(hart & 1));
        meet(&all);
        if (hart == 0)
            check("entry", *leaf, clean | PTE_A | PTE_D | RSW(0) | RSW(1));
    }
}

STUB(store_fenced, "sfence.vma a0, zero\nsd a1, 0(a0)");

// The same without waiting for each other: hart 1 has D set again and again; meanwhile hart 2 flips
// a bit of software's, and finds it each time as it was left.
static void test_updates(unsigned hart)
{
    static volatile bool done;
    uint64_t *leaf = paging_entry(&shared, TEST_GVA, 0), lost = 0, left = *leaf & RSW(0);

    meet(&all);
    if (hart == 1) {
        for (unsigned i = 0; i < 50 * ROUNDS; i++) {
            __asm__ volatile("amoand.d zero, %0, (%1)" ::"r"(~(PTE_A | PTE_D)), "r"(leaf)
                             : "memory");
            run(MODE_S, store_fenced, TEST_GVA, i);
        }
        done = true;
    }
    while (hart == 2 && !done) {
        uint64_t found;

        __asm__ volatile("amoxor.d %0, %1, (%2)" : "=r"(found) : "r"(RSW(0)), "r"(leaf) : "memory");
        lost += (found & RSW(0)) != left;
        left = ~found & RSW(0);
    }
    seen[hart] = lost;
    meet(&all);
    if (hart == 0)
        check("lost updates", seen[2], 0);
}

// The entry changes under harts that have it cached; each fences for itself, in S.
static void test_change(unsigned hart)
{
    uint64_t *leaf = paging_entry(&shared, TEST_GVA, 0);

    for (unsigned i = 0; i < ROUNDS; i++) {
        if (hart == 0)
            *leaf = pte_of((uint64_t)page[i % 2], PTE_RWAD);
        meet(&all);
        seen[hart] = run(MODE_S, load_fenced, TEST_GVA, 0).a[0];
        meet(&all);
        for (unsigned other = 0; hart == 0 && other < HARTS; other++)
            check("value", seen[other], 100 + i % 2);
    }
}

static void every_hart(unsigned hart)
{
    meet(&all);
    csr_write(menvcfg, MENVCFG_ADUE);
    csr_write(satp, paging_satp(&shared, 0));
    fence_all();
    test_accessed_dirty(hart);
    test_updates(hart);
    meet(&all);
    if (hart == 0) {
        group("changed entries");
        page[0][0] = 100;
        page[1][0] = 101;
    }
    meet(&all);
    test_change(hart);
    csr_write(satp, 0);
}

void hart_main(unsigned hart)
{
    every_hart(hart);
}

void test_main(void)
{
    group("A and D under contention");
    shared = paging_start(3);
    paging_map(&shared, TEST_GVA, 0, pte_of((uint64_t)page[0], PTE_RWAD));
    fence_all();
    every_hart(0);
}
