// SPDX-License-Identifier: BSD-2-Clause
// Page tables for test programs: Sv39, Sv48 and Sv57, which differ in the number of levels only.
#ifndef STRAKE_ISA_PAGING_H
#define STRAKE_ISA_PAGING_H

#include "firmware.h"

#define PAGE_BYTES 4096ul
#define PTE_V (1ull << 0)
#define PTE_R (1ull << 1)
#define PTE_W (1ull << 2)
#define PTE_X (1ull << 3)
#define PTE_U (1ull << 4)
#define PTE_G (1ull << 5)
#define PTE_A (1ull << 6)
#define PTE_D (1ull << 7)
#define PTE_PBMT(n) ((uint64_t)(n) << 61)
#define PTE_N (1ull << 63)
#define PTE_RWXAD (PTE_V | PTE_R | PTE_W | PTE_X | PTE_A | PTE_D)
#define PTE_RWAD (PTE_V | PTE_R | PTE_W | PTE_A | PTE_D)

#define MENVCFG_ADUE (1ull << 61)
#define MENVCFG_PBMTE (1ull << 62)
#define MENVCFG_STCE (1ull << 63)

// The program's own gigabyte is mapped for S where it is, and for U at this distance.
#define USER_ALIAS 0x40000000ul
// Free for tests: the gigabyte below the program.
#define TEST_GVA 0x40000000ul

#define PAGING_TABLES 40
struct paging {
    unsigned levels;  // 3, 4, 5
    uint64_t *root;
};

static uint64_t paging_pool[PAGING_TABLES][512] __attribute__((aligned(4096)));
static unsigned paging_used;

static inline uint64_t *paging_table(void)
{
    uint64_t *table = paging_pool[paging_used++ % PAGING_TABLES];

    for (unsigned i = 0; i < 512; i++)
        table[i] = 0;
    return table;
}

static inline uint64_t pte_of(uint64_t gpa, uint64_t flags)
{
    return gpa >> 12 << 10 | flags;
}

// The entry for `gva` at `level` (0: a page's); tables on the way are made when missing.
static inline uint64_t *paging_entry(const struct paging *paging, uint64_t gva, unsigned level)
{
    uint64_t *table = paging->root;

    for (unsigned i = paging->levels - 1;; i--) {
        uint64_t *entry = &table[gva >> (12 + 9 * i) & 511];

        if (i == level)
            return entry;
        if (!(*entry & PTE_V))
            *entry = pte_of((uint64_t)paging_table(), PTE_V);
        table = (uint64_t *)(*entry >> 10 << 12);
    }
}

static inline void paging_map(const struct paging *paging, uint64_t gva, unsigned level,
                              uint64_t pte)
{
    *paging_entry(paging, gva, level) = pte;
}

static inline uint64_t paging_satp(const struct paging *paging, uint64_t asid)
{
    return (uint64_t)(paging->levels + 5) << 60 | asid << 44 | (uint64_t)paging->root >> 12;
}

// A new address space with the program in it, in use (ASID 0).
static inline struct paging paging_start(unsigned levels)
{
    struct paging paging = {levels, NULL};

    paging_used = 0;
    paging.root = paging_table();
    paging_map(&paging, 0x80000000, 2, pte_of(0x80000000, PTE_RWXAD));
    paging_map(&paging, 0x80000000 + USER_ALIAS, 2, pte_of(0x80000000, PTE_RWXAD | PTE_U));
    csr_write(satp, paging_satp(&paging, 0));
    __asm__ volatile("sfence.vma" ::: "memory");
    return paging;
}

static inline void fence_all(void)
{
    __asm__ volatile("sfence.vma" ::: "memory");
}

// Runs `stub` in S or U, where it is mapped for that mode.
static inline struct firmware_outcome run_mapped(enum mode mode, const char *stub, uint64_t a0,
                                                 uint64_t a1)
{
    return run_at(mode, stub, mode == MODE_U ? USER_ALIAS : 0, a0, a1, 0);
}

#endif
