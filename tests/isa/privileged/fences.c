// SPDX-License-Identifier: BSD-2-Clause
// sfence.vma and Svinval: after a fence that names it, a changed entry counts; address spaces told
// apart by ASID. Privileged ISA section 10.2.1. What an unfenced change does is not tested: both
// answers are right.
#include "paging.h"

#define OTHER_ASID 2
#define ASID 1

STUB(load, "ld a0, 0(a0)");
STUB(store, "sd a1, 0(a0)");
STUB(store_word, "sw a1, 0(a0)");
STUB(jump, "jalr zero, 0(a0)");
STUB(fence_0_0, "sfence.vma zero, zero");
STUB(fence_va_0, "sfence.vma a0, zero");
STUB(fence_0_asid, "sfence.vma zero, a1");
STUB(fence_va_asid, "sfence.vma a0, a1");
STUB(inval_0_0, "sfence.w.inval\nsinval.vma zero, zero\nsfence.inval.ir");
STUB_AFTER(inval_va_0, "sfence.w.inval\n", "sinval.vma a0, zero\nsfence.inval.ir");
STUB_AFTER(inval_0_asid, "sfence.w.inval\n", "sinval.vma zero, a1\nsfence.inval.ir");
STUB_AFTER(inval_va_asid, "sfence.w.inval\nsinval.vma a0, a1\n", "sfence.inval.ir");

static const struct {
    const char *name, *stub;
} fences[] = {
    {"sfence.vma", fence_0_0},         {"sfence.vma gva", fence_va_0},
    {"sfence.vma asid", fence_0_asid}, {"sfence.vma gva, asid", fence_va_asid},
    {"sinval.vma", inval_0_0},         {"sinval.vma gva", inval_va_0},
    {"sinval.vma asid", inval_0_asid}, {"sinval.vma gva, asid", inval_va_asid},
};

// 4 MiB: two superpages' worth of values, each page with its own number in its first dword.
#define PAGES 1024u
#define AREA 0x81000000ul
// Three pages of code: li a0, PAGE; ecall.
#define CODE_AREA (AREA + PAGES * PAGE_BYTES)
#define INSN_LI_A0 0x00000513u
#define INSN_ECALL 0x73u
#define INSN_C_NOP 0x0001u
#define INSN_J_4094 0x7ff0006fu  // j .+4094

static uint64_t value_at(uint64_t gva)
{
    return run(MODE_S, load, gva, 0).a[0];
}

static void use(const struct paging *paging, uint64_t asid)
{
    csr_write(satp, paging_satp(paging, asid));
}

// From one page to another, from readable to not, from read-only to writable.
static void test_page(const struct paging *paging, const char *name, const char *fence)
{
    uint64_t *leaf = paging_entry(paging, TEST_GVA, 0);

    for (unsigned i = 0; i < 8; i++) {
        *leaf = pte_of(AREA + i * PAGE_BYTES, PTE_RWAD);
        run(MODE_S, fence, TEST_GVA + 123, ASID);
        check(name, value_at(TEST_GVA), i);
    }
    *leaf = pte_of(AREA, PTE_V | PTE_R | PTE_A);
    run(MODE_S, fence, TEST_GVA, ASID);
    check_cause(name, run(MODE_S, load, TEST_GVA, 0), CAUSE_NONE);
    check_cause(name, run(MODE_S, store, TEST_GVA, 0), CAUSE_STORE_PAGE);
    *leaf = pte_of(AREA, PTE_RWAD);
    run(MODE_S, fence, TEST_GVA, ASID);
    check_cause(name, run(MODE_S, store, TEST_GVA, 0), CAUSE_NONE);
    *leaf = 0;
    run(MODE_S, fence, TEST_GVA, ASID);
    check_cause(name, run(MODE_S, load, TEST_GVA, 0), CAUSE_LOAD_PAGE);
}

// Any address of a superpage names all of it.
static void test_superpage(const struct paging *paging, const char *name, const char *fence)
{
    uint64_t gva = TEST_GVA + (1ul << 21), step = 511;

    for (unsigned i = 0; i < 4; i++) {
        paging_map(paging, gva, 1, pte_of(AREA + (i % 2) * (1ul << 21), PTE_RWAD));
        run(MODE_S, fence, gva + 77 * PAGE_BYTES, ASID);
        for (unsigned page = 0; page < 512; page += step)
            check(name, value_at(gva + page * PAGE_BYTES), (i % 2) * 512 + page);
    }
    paging_map(paging, gva, 1, 0);
    run(MODE_S, fence, gva, ASID);
    for (unsigned page = 0; page < 512; page += step)
        check_cause(name, run(MODE_S, load, gva + page * PAGE_BYTES, 0), CAUSE_LOAD_PAGE);
}

// A changed pointer to a table.
static void test_pointer(const struct paging *paging, const char *name, const char *fence)
{
    uint64_t *pointer = paging_entry(paging, TEST_GVA, 1), before = *pointer;

    for (unsigned i = 0; i < 2; i++) {
        uint64_t *table = paging_table();

        table[0] = pte_of(AREA + (20 + i) * PAGE_BYTES, PTE_RWAD);
        *pointer = pte_of((uint64_t)table, PTE_V);
        run(MODE_S, fence, TEST_GVA, ASID);
        check(name, value_at(TEST_GVA), 20 + i);
    }
    *pointer = before;
    run(MODE_S, fence, TEST_GVA, ASID);
}

// A global entry is every address space's; a fence with an ASID need not reach it, others do.
static void test_global(const struct paging *paging, const char *name, const char *fence)
{
    uint64_t *leaf = paging_entry(paging, TEST_GVA, 0);

    for (unsigned i = 0; i < 2; i++) {
        *leaf = pte_of(AREA + (30 + i) * PAGE_BYTES, PTE_RWAD | PTE_G);
        run(MODE_S, fence, TEST_GVA, 0);
        check(name, value_at(TEST_GVA), 30 + i);
    }
    *leaf = 0;
    fence_all();
}

// Code that is mapped elsewhere: what runs at an address follows its translation.
static void test_code(const struct paging *paging, const char *name, const char *fence)
{
    uint64_t *leaf = paging_entry(paging, TEST_GVA, 0);

    for (unsigned i = 0; i < 6; i++) {
        *leaf = pte_of(CODE_AREA + (i % 3) * PAGE_BYTES, PTE_V | PTE_R | PTE_X | PTE_A);
        run(MODE_S, fence, TEST_GVA, ASID);
        check(name, run(MODE_S, jump, TEST_GVA, 0).a[0], i % 3);
    }
    *leaf = pte_of(CODE_AREA, PTE_V | PTE_R | PTE_A);
    run(MODE_S, fence, TEST_GVA, ASID);
    check_cause(name, run(MODE_S, jump, TEST_GVA, 0), CAUSE_FETCH_PAGE);
    *leaf = 0;
    run(MODE_S, fence, TEST_GVA, ASID);
    check_cause(name, run(MODE_S, jump, TEST_GVA, 0), CAUSE_FETCH_PAGE);
}

// An instruction whose second half is in another page, which is mapped elsewhere: it is reached by
// a jump in the first page, and by falling into it.
static void test_straddling(const struct paging *paging)
{
    volatile uint16_t *code = (uint16_t *)CODE_AREA;

    group("instruction in two pages");
    paging_map(paging, TEST_GVA, 0, pte_of(CODE_AREA, PTE_RWXAD));
    ((volatile uint32_t *)code)[0] = INSN_J_4094;
    code[2046] = INSN_C_NOP;
    code[2047] = (uint16_t)INSN_LI_A0;
    for (unsigned page = 1; page < 3; page++) {
        code[2048 * page] = (uint16_t)(page << 4);
        code[2048 * page + 1] = INSN_ECALL;
        code[2048 * page + 2] = 0;
    }
    __asm__ volatile("fence.i" ::: "memory");
    for (unsigned i = 0; i < 8; i++) {
        unsigned page = 1 + i % 2;

        paging_map(paging, TEST_GVA + PAGE_BYTES, 0,
                   pte_of(CODE_AREA + page * PAGE_BYTES, PTE_RWXAD));
        run(MODE_S, fence_va_0, TEST_GVA + PAGE_BYTES, 0);
        check("jump", run(MODE_S, jump, TEST_GVA, 0).a[0], page);
        check("fall", run(MODE_S, jump, TEST_GVA + 4092, 0).a[0], page);
    }
}

// Code that runs through one mapping and is written through another: fence.i alone is needed.
static void test_alias(const struct paging *paging)
{
    volatile uint32_t *code = (uint32_t *)CODE_AREA;

    group("fence.i and aliases");
    for (unsigned i = 0; i < 4; i++)
        paging_map(paging, TEST_GVA + i * PAGE_BYTES, 0, pte_of(CODE_AREA, PTE_RWXAD));
    fence_all();
    for (unsigned i = 0; i < 20; i++) {
        // Through S's mapping or through the physical address.
        if (i % 2)
            run(MODE_S, store_word, TEST_GVA + (i + 1) % 4 * PAGE_BYTES, INSN_LI_A0 | i << 20);
        else
            code[0] = INSN_LI_A0 | i << 20;
        __asm__ volatile("fence.i" ::: "memory");
        check("alias", run(MODE_S, jump, TEST_GVA + i % 4 * PAGE_BYTES, 0).a[0], i);
        check("original", run(MODE_S, jump, CODE_AREA, 0).a[0], i);
    }
    code[0] = INSN_LI_A0;
}

// The same address runs other code in another address space, without a fence.
static void test_code_asids(const struct paging *first, const struct paging *second)
{
    paging_map(first, TEST_GVA, 0, pte_of(CODE_AREA + PAGE_BYTES, PTE_RWXAD));
    paging_map(second, TEST_GVA, 0, pte_of(CODE_AREA + 2 * PAGE_BYTES, PTE_RWXAD));
    fence_all();
    for (unsigned i = 0; i < 10; i++) {
        use(first, ASID);
        check("code of the first", run(MODE_S, jump, TEST_GVA, 0).a[0], 1);
        use(second, OTHER_ASID);
        check("code of the second", run(MODE_S, jump, TEST_GVA, 0).a[0], 2);
    }
}

// Two address spaces, no fence in between: each sees its own. Many pages, so that entries of a
// small translation cache are thrown out and come back.
static void test_asids(const struct paging *first)
{
    struct paging second = {first->levels, paging_table()};

    group("ASIDs");
    for (unsigned i = 0; i < 512; i++)
        second.root[i] = first->root[i];
    second.root[0] = second.root[1] = 0;
    for (unsigned page = 0; page < 64; page++) {
        paging_map(first, TEST_GVA + page * PAGE_BYTES, 0,
                   pte_of(AREA + page * PAGE_BYTES, PTE_RWAD));
        paging_map(&second, TEST_GVA + page * PAGE_BYTES, 0,
                   pte_of(AREA + (100 + page) * PAGE_BYTES, PTE_RWAD));
    }
    fence_all();
    for (unsigned round = 0; round < 4; round++)
        for (unsigned page = 0; page < 64; page += round + 1) {
            uint64_t gva = TEST_GVA + page * PAGE_BYTES;

            use(first, ASID);
            check("first", value_at(gva), page);
            use(&second, OTHER_ASID);
            check("second", value_at(gva), 100 + page);
        }
    // A fence for the one that is not in use.
    paging_map(first, TEST_GVA, 0, pte_of(AREA + 7 * PAGE_BYTES, PTE_RWAD));
    run(MODE_S, fence_va_asid, TEST_GVA, ASID);
    check("second, still", value_at(TEST_GVA), 100);
    use(first, ASID);
    check("first, changed", value_at(TEST_GVA), 7);
    // Back to Bare and on: nothing of the address space shows through in between.
    csr_write(satp, 0);
    check("Bare", value_at(AREA + 3 * PAGE_BYTES), 3);
    use(first, ASID);
    check("first, again", value_at(TEST_GVA), 7);
    test_code_asids(first, &second);
    use(first, ASID);
}

void test_main(void)
{
    struct paging paging = paging_start(3);

    for (unsigned page = 0; page < PAGES; page++)
        *(uint64_t *)(AREA + page * PAGE_BYTES) = page;
    for (unsigned page = 0; page < 3; page++) {
        ((uint32_t *)(CODE_AREA + page * PAGE_BYTES))[0] = INSN_LI_A0 | page << 20;
        ((uint32_t *)(CODE_AREA + page * PAGE_BYTES))[1] = INSN_ECALL;
    }
    __asm__ volatile("fence.i" ::: "memory");
    paging_map(&paging, TEST_GVA, 0, 0);
    use(&paging, ASID);
    fence_all();
    for (size_t i = 0; i < COUNT_OF(fences); i++) {
        group(fences[i].name);
        // test_page stores 0 to the first page's number, which is 0.
        test_page(&paging, "page", fences[i].stub);
        test_superpage(&paging, "superpage", fences[i].stub);
        test_pointer(&paging, "pointer", fences[i].stub);
        test_code(&paging, "code", fences[i].stub);
        if (fences[i].stub == fence_0_0 || fences[i].stub == fence_va_0 ||
            fences[i].stub == inval_0_0 || fences[i].stub == inval_va_0)
            test_global(&paging, "global", fences[i].stub);
    }
    test_alias(&paging);
    test_asids(&paging);
    test_straddling(&paging);
    csr_write(satp, 0);
    fence_all();
}
