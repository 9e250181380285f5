// SPDX-License-Identifier: BSD-2-Clause
// Address translation in Sv39, Sv48 and Sv57: Privileged ISA sections 10.3 to 10.6; Svnapot,
// Svpbmt, Svadu.
#include "paging.h"

#define VALUE 0x1122334455667788ul
#define NOWHERE 0x18000000ul  // a gpa that is neither RAM nor a device

STUB(load, "ld a0, 0(a0)");
STUB(store, "sd a1, 0(a0)");
STUB(jump, "jalr zero, 0(a0)");
STUB(amo, "amoor.d a0, zero, (a0)");
STUB(reserve, "lr.d a0, (a0)");
STUB(conditional, "sc.d a0, zero, (a0)");

enum access { LOAD, STORE, EXEC };
static const struct {
    const char *name;
    const char *stub;
    uint64_t page_fault, access_fault;
    uint64_t needs;
} accesses[] = {
    [LOAD] = {"load", load, CAUSE_LOAD_PAGE, CAUSE_LOAD_ACCESS, PTE_R},
    [STORE] = {"store", store, CAUSE_STORE_PAGE, CAUSE_STORE_ACCESS, PTE_W},
    [EXEC] = {"fetch", jump, CAUSE_FETCH_PAGE, CAUSE_FETCH_ACCESS, PTE_X},
};

// What the tests map: `code` starts with an ecall, so that a jump to it completes.
static uint64_t page[2][512] __attribute__((aligned(4096)));

static void fill(void)
{
    for (unsigned i = 0; i < 2; i++)
        for (unsigned j = 0; j < 512; j++)
            page[i][j] = j ? VALUE : 0x73;
    __asm__ volatile("fence.i" ::: "memory");
}

static uint64_t pte_of_page(unsigned i, uint64_t flags)
{
    return pte_of((uint64_t)page[i], flags);
}

static struct firmware_outcome try(enum mode mode, enum access access, uint64_t gva)
{
    page[0][0] = page[1][0] = 0x73;
    return run_mapped(mode, accesses[access].stub, gva, 0x73);
}

// CAUSE_NONE or a page fault, with everything a page fault tells.
static void check_access(const char *what, enum mode mode, enum access access, uint64_t gva,
                         bool allowed)
{
    struct firmware_outcome outcome = try(mode, access, gva);

    if (allowed) {
        check_cause(what, outcome, CAUSE_NONE);
        return;
    }
    check_trap(what, outcome, accesses[access].page_fault, gva);
    if (access == EXEC)
        check(what, outcome.epc, gva);
}

static void check_all(const char *what, uint64_t gva, bool allowed)
{
    for (enum access access = LOAD; access <= EXEC; access++)
        check_access(what, MODE_S, access, gva, allowed);
}

// Every combination of R, W, X, U, V against every access, mode, SUM and MXR.
static void test_permissions(const struct paging *paging)
{
    for (uint64_t flags = 0; flags < 32; flags++)
        for (unsigned combination = 0; combination < 8; combination++) {
            bool sum = combination & 1, mxr = combination & 2;
            enum mode mode = combination & 4 ? MODE_U : MODE_S;
            bool valid = (flags & PTE_V) && (flags & (PTE_R | PTE_X)) &&
                         !((flags & PTE_W) && !(flags & PTE_R));
            bool user = flags & PTE_U;

            paging_map(paging, TEST_GVA, 0, pte_of_page(0, flags | PTE_A | PTE_D));
            fence_all();
            csr_clear(mstatus, MSTATUS_SUM | MSTATUS_MXR);
            csr_set(mstatus, (sum ? MSTATUS_SUM : 0) | (mxr ? MSTATUS_MXR : 0));
            for (enum access access = LOAD; access <= EXEC; access++) {
                bool may = flags & (accesses[access].needs | (access == LOAD && mxr ? PTE_X : 0));

                if (mode == MODE_S && user)
                    may = may && sum && access != EXEC;
                if (mode == MODE_U && !user)
                    may = false;
                check_access("permissions", mode, access, TEST_GVA, valid && may);
            }
        }
    csr_clear(mstatus, MSTATUS_SUM | MSTATUS_MXR);
}

// A leaf at each level; the bits below it come from the address. RAM is in the second gigabyte, so
// larger leaves map it at that offset.
static void test_superpages(const struct paging *paging)
{
    for (unsigned level = 1; level < paging->levels; level++) {
        uint64_t bytes = PAGE_BYTES << 9 * level, base = level == 1 ? TEST_GVA : bytes;
        uint64_t gpa = (uint64_t)page & -bytes, offset = (uint64_t)page & (bytes - 1);
        struct firmware_outcome outcome;

        if (level == 2)
            base = 5ul << 30;
        paging_map(paging, base, level, pte_of(gpa, PTE_RWXAD));
        fence_all();
        check_all("superpage", base + offset, true);
        page[1][511] = VALUE + level;
        outcome = run_mapped(MODE_S, load, base + offset + 2 * PAGE_BYTES - 8, 0);
        check("superpage: value", outcome.a[0], VALUE + level);
        outcome = run_mapped(MODE_S, store, base + offset + PAGE_BYTES + 16, level);
        check("superpage: stored", page[1][2], level);
        // Any PPN bit below the level makes it misaligned.
        for (unsigned bit = 0; bit < 9 * level; bit++) {
            paging_map(paging, base, level, pte_of(gpa | PAGE_BYTES << bit, PTE_RWXAD));
            fence_all();
            check_all("misaligned superpage", base + offset, false);
        }
        paging_map(paging, base, level, 0);
        fence_all();
        check_all("no entry", base + offset, false);
    }
}

// Reserved bits fault, in leaves and in pointers to tables.
static void test_reserved(const struct paging *paging)
{
    uint64_t *leaf = paging_entry(paging, TEST_GVA, 0),
             *pointer = paging_entry(paging, TEST_GVA, 1);
    uint64_t good = pte_of_page(0, PTE_RWXAD), to_table = *pointer;

    *leaf = good;
    fence_all();
    check_all("valid leaf", TEST_GVA, true);
    for (unsigned bit = 54; bit <= 63; bit++) {
        *leaf = good | 1ull << bit;
        fence_all();
        check_all("reserved bit in leaf", TEST_GVA, false);
        *leaf = good;
        *pointer = to_table | 1ull << bit;
        fence_all();
        check_all("reserved bit in pointer", TEST_GVA, false);
        *pointer = to_table;
    }
    // RSW is software's.
    *leaf = good | 3ull << 8 | PTE_G;
    *pointer = to_table | 3ull << 8 | PTE_G;
    fence_all();
    check_all("RSW, G", TEST_GVA, true);
    // In a pointer A, D and U are reserved.
    *leaf = good;
    static const uint64_t reserved[] = {PTE_A, PTE_D, PTE_U};
    for (unsigned i = 0; i < COUNT_OF(reserved); i++) {
        *pointer = to_table | reserved[i];
        fence_all();
        check_all("A, D, U in pointer", TEST_GVA, false);
    }
    // A pointer at the last level.
    *pointer = to_table;
    *leaf = pte_of_page(0, PTE_V);
    fence_all();
    check_all("pointer at level 0", TEST_GVA, false);
    // W without R is reserved in a pointer too.
    *leaf = good;
    *pointer = to_table | PTE_W;
    fence_all();
    check_all("W in pointer", TEST_GVA, false);
    // A walk that leaves RAM is an access fault of the access's kind.
    *pointer = pte_of(NOWHERE, PTE_V);
    fence_all();
    for (enum access access = LOAD; access <= EXEC; access++)
        check_trap("table outside RAM", try(MODE_S, access, TEST_GVA),
                   accesses[access].access_fault, TEST_GVA);
    *pointer = to_table;
    // And so is a page that is not there.
    *leaf = pte_of(NOWHERE, PTE_RWXAD);
    fence_all();
    for (enum access access = LOAD; access <= EXEC; access++)
        check_trap("page outside RAM", try(MODE_S, access, TEST_GVA), accesses[access].access_fault,
                   TEST_GVA);
    *leaf = good;
    fence_all();
}

static void test_pbmt(const struct paging *paging)
{
    uint64_t *leaf = paging_entry(paging, TEST_GVA, 0),
             *pointer = paging_entry(paging, TEST_GVA, 1);

    for (unsigned enabled = 0; enabled <= 1; enabled++)
        for (unsigned type = 1; type <= 3; type++) {
            csr_write(menvcfg, enabled ? MENVCFG_PBMTE : 0);
            *leaf = pte_of_page(0, PTE_RWXAD | PTE_PBMT(type));
            fence_all();
            check_all("PBMT in leaf", TEST_GVA, enabled && type != 3);
            *leaf = pte_of_page(0, PTE_RWXAD);
            *pointer |= PTE_PBMT(type);
            fence_all();
            check_all("PBMT in pointer", TEST_GVA, false);
            *pointer &= ~PTE_PBMT(3);
        }
    csr_write(menvcfg, 0);
}

// Svnapot: PPN 0b...1000 with N is 64 KiB; other patterns are reserved, and so is N above level 0.
static void test_napot(const struct paging *paging)
{
    static uint8_t area[1 << 17];
    uint64_t base = ((uint64_t)area + 0xffff) & -0x10000ul;

    for (unsigned low = 0; low < 16; low++) {
        for (unsigned i = 0; i < 16; i++)
            paging_map(paging, TEST_GVA + i * PAGE_BYTES, 0,
                       pte_of(base + low * PAGE_BYTES, PTE_RWAD | PTE_N));
        fence_all();
        for (unsigned i = 0; i < 16; i++) {
            uint64_t gva = TEST_GVA + i * PAGE_BYTES + 8 * i;
            struct firmware_outcome outcome = run_mapped(MODE_S, store, gva, VALUE + i);

            if (low == 8) {
                check_cause("64 KiB", outcome, CAUSE_NONE);
                check("64 KiB: stored", *(uint64_t *)(base + i * PAGE_BYTES + 8 * i), VALUE + i);
            } else {
                check_trap("reserved NAPOT", outcome, CAUSE_STORE_PAGE, gva);
            }
        }
    }
    for (unsigned i = 0; i < 16; i++)
        paging_map(paging, TEST_GVA + i * PAGE_BYTES, 0, 0);
    uint64_t *pointer = paging_entry(paging, TEST_GVA, 1), to_table = *pointer;
    *pointer = pte_of(((uint64_t)page & -0x200000ul) | 8 * PAGE_BYTES, PTE_RWXAD | PTE_N);
    fence_all();
    check_all("N at level 1", TEST_GVA, false);
    *pointer = to_table;
    fence_all();
}

// A and D, written by the hart or not (menvcfg.ADUE).
static void test_accessed_dirty(const struct paging *paging)
{
    uint64_t *leaf = paging_entry(paging, TEST_GVA, 0);

    for (unsigned update = 0; update <= 1; update++)
        for (unsigned state = 0; state < 4; state++)
            for (enum access access = LOAD; access <= EXEC; access++) {
                bool a = state & 1, d = state & 2;
                bool enough = a && (d || access != STORE);
                uint64_t before = pte_of_page(0, PTE_V | PTE_R | PTE_W | PTE_X | (a ? PTE_A : 0) |
                                                     (d ? PTE_D : 0));
                uint64_t after = before | (access == STORE ? PTE_A | PTE_D : PTE_A);

                csr_write(menvcfg, update ? MENVCFG_ADUE : 0);
                *leaf = before;
                fence_all();
                check_access("A, D", MODE_S, access, TEST_GVA, update || enough);
                check("A, D: entry", *leaf, update ? after : before);
            }
    // A load first, a store later: D comes with the store although the translation is cached.
    csr_write(menvcfg, MENVCFG_ADUE);
    *leaf = pte_of_page(0, PTE_V | PTE_R | PTE_W);
    fence_all();
    check_access("load first", MODE_S, LOAD, TEST_GVA, true);
    check("A alone", *leaf, pte_of_page(0, PTE_V | PTE_R | PTE_W | PTE_A));
    check_access("store later", MODE_S, STORE, TEST_GVA, true);
    check("A and D", *leaf, pte_of_page(0, PTE_V | PTE_R | PTE_W | PTE_A | PTE_D));
    // An access that may not happen leaves D alone.
    *leaf = pte_of_page(0, PTE_V | PTE_R);
    fence_all();
    check_access("store to a read-only page", MODE_S, STORE, TEST_GVA, false);
    check("D stays", *leaf & PTE_D, 0);
    // Superpages have their own.
    uint64_t *large = paging_entry(paging, 5ul << 30, 2);
    *large = pte_of(0x80000000, PTE_V | PTE_R | PTE_W);
    fence_all();
    check_access("superpage", MODE_S, STORE, (5ul << 30) + ((uint64_t)page & 0x3fffffff), true);
    check("superpage: A and D", *large, pte_of(0x80000000, PTE_V | PTE_R | PTE_W | PTE_A | PTE_D));
    *large = 0;
    csr_write(menvcfg, 0);
}

// Section 10.4.1: bits above the top one must equal it.
static void test_canonical(const struct paging *paging)
{
    unsigned top = 12 + 9 * paging->levels - 1;
    uint64_t high = -PAGE_BYTES;

    paging_map(paging, TEST_GVA, 0, pte_of_page(0, PTE_RWXAD));
    paging_map(paging, high, 0, pte_of_page(0, PTE_RWXAD));
    fence_all();
    check_all("upper half", high, true);
    for (unsigned bit = top; bit < 64; bit++) {
        check_all("lower half, one bit more", TEST_GVA | 1ull << bit, false);
        check_all("upper half, one bit less", high & ~(1ull << bit), false);
    }
}

// Accesses that lie in two pages of which one faults: the address told is the part that faulted,
// and a store changes neither.
static void test_straddling(const struct paging *paging)
{
    uint64_t edge = TEST_GVA + PAGE_BYTES;

    for (unsigned state = 0; state < 4; state++)
        for (unsigned bytes = 1; bytes < 8; bytes++) {
            bool first = state & 1, second = state & 2;
            uint64_t gva = edge - bytes, tval = first ? edge : gva;
            struct firmware_outcome outcome;

            paging_map(paging, TEST_GVA, 0, first ? pte_of_page(0, PTE_RWXAD) : 0);
            paging_map(paging, edge, 0, second ? pte_of_page(1, PTE_RWXAD) : 0);
            fence_all();
            page[0][511] = page[1][0] = VALUE;
            outcome = run_mapped(MODE_S, load, gva, 0);
            if (first && second) {
                check("two pages: load", outcome.a[0],
                      VALUE >> 8 * (8 - bytes) | VALUE << 8 * bytes);
            } else {
                check_trap("two pages: load", outcome, CAUSE_LOAD_PAGE, tval);
            }
            outcome = run_mapped(MODE_S, store, gva, -1ull);
            if (first && second) {
                check("two pages: stored", page[0][511], VALUE | -1ull << 8 * (8 - bytes));
                check("two pages: stored", page[1][0], VALUE | ~(-1ull << 8 * (8 - bytes)));
            } else {
                check_trap("two pages: store", outcome, CAUSE_STORE_PAGE, tval);
                check("two pages: first unchanged", page[0][511], VALUE);
                check("two pages: second unchanged", page[1][0], VALUE);
            }
        }
    // An instruction in two pages: epc is its start, tval the page that is missing.
    for (unsigned present = 0; present <= 1; present++) {
        struct firmware_outcome outcome;

        paging_map(paging, edge, 0, present ? pte_of_page(1, PTE_RWXAD) : 0);
        ((uint16_t *)page[0])[2047] = 0x0513;  // addi a0, a0, 1 and its upper half
        ((uint16_t *)page[1])[0] = 0x0015;
        ((uint16_t *)page[1])[1] = 0x73;
        ((uint16_t *)page[1])[2] = 0;
        __asm__ volatile("fence.i\nsfence.vma" ::: "memory");
        outcome = run_mapped(MODE_S, jump, edge - 2, 0);
        if (present) {
            check_cause("two pages: fetch", outcome, CAUSE_NONE);
            check("two pages: result", outcome.a[0], edge - 1);
        } else {
            check_trap("two pages: fetch", outcome, CAUSE_FETCH_PAGE, edge);
            check("two pages: epc", outcome.epc, edge - 2);
        }
    }
    fill();
}

// Atomics: LR loads, the others store, and need both permissions.
static void test_atomics(const struct paging *paging)
{
    static const struct {
        uint64_t flags;
        bool load, store;
    } cases[] = {
        {PTE_RWAD, true, true},
        {PTE_V | PTE_R | PTE_A | PTE_D, true, false},
        {PTE_V | PTE_R | PTE_W | PTE_A, true, false},
        {PTE_V | PTE_R | PTE_W | PTE_D, false, false},
        {PTE_V | PTE_X | PTE_A | PTE_D, false, false},
        {0, false, false},
    };

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        uint64_t store_cause = cases[i].store ? CAUSE_NONE : CAUSE_STORE_PAGE;

        paging_map(paging, TEST_GVA, 0, pte_of_page(0, cases[i].flags));
        fence_all();
        check_cause("lr", run_mapped(MODE_S, reserve, TEST_GVA, 0),
                    cases[i].load ? CAUSE_NONE : CAUSE_LOAD_PAGE);
        check_cause("amo", run_mapped(MODE_S, amo, TEST_GVA, 0), store_cause);
        // Only an SC with a reservation must look.
        if (cases[i].store)
            check_cause("sc", run_mapped(MODE_S, conditional, TEST_GVA, 0), store_cause);
    }
}

STUB_AFTER(mprv_load, "csrs mstatus, a1\n", "ld a0, 0(a0)\ncsrc mstatus, a1");
STUB_AFTER(mprv_store, "csrs mstatus, a1\n", "sd a2, 0(a0)\ncsrc mstatus, a1");

STUB_AFTER(mprv_jump, "csrs mstatus, a1\n", "jalr zero, 0(a0)");

// Section 3.1.6.3: loads and stores of M-mode as of MPP; fetches are not.
static void test_mprv(const struct paging *paging)
{
    static const struct {
        uint64_t pte_flags, mstatus;
        bool load, store;
    } cases[] = {
        {PTE_RWAD, MSTATUS_MPP_S, true, true},
        {PTE_RWAD, 0, false, false},
        {PTE_RWAD | PTE_U, 0, true, true},
        {PTE_RWAD | PTE_U, MSTATUS_MPP_S, false, false},
        {PTE_RWAD | PTE_U, MSTATUS_MPP_S | MSTATUS_SUM, true, true},
        {PTE_V | PTE_X | PTE_A | PTE_D, MSTATUS_MPP_S, false, false},
        {PTE_V | PTE_X | PTE_A | PTE_D, MSTATUS_MPP_S | MSTATUS_MXR, true, false},
        {0, MSTATUS_MPP_S, false, false},
    };
    struct firmware_outcome outcome;

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        paging_map(paging, TEST_GVA, 0, pte_of_page(0, cases[i].pte_flags));
        fence_all();
        page[0][0] = VALUE;
        csr_clear(mstatus, MSTATUS_SUM | MSTATUS_MXR);
        outcome = run(MODE_M, mprv_load, TEST_GVA, cases[i].mstatus | MSTATUS_MPRV);
        if (cases[i].load)
            check("MPRV: loaded", outcome.a[0], VALUE);
        else
            check_trap("MPRV: load", outcome, CAUSE_LOAD_PAGE, TEST_GVA);
        csr_clear(mstatus, MSTATUS_SUM | MSTATUS_MXR);
        outcome = run_at(MODE_M, mprv_store, 0, TEST_GVA, cases[i].mstatus | MSTATUS_MPRV, i);
        if (cases[i].store)
            check("MPRV: stored", page[0][0], i);
        else
            check_trap("MPRV: store", outcome, CAUSE_STORE_PAGE, TEST_GVA);
    }
    csr_clear(mstatus, MSTATUS_SUM | MSTATUS_MXR);
    // Fetches are M's: a page that U may not use, and nobody has used yet.
    page[1][0] = 0x73;
    __asm__ volatile("fence.i" ::: "memory");
    outcome = run(MODE_M, mprv_jump, (uint64_t)page[1], MSTATUS_MPRV);
    check("MPRV: fetch", outcome.cause, CAUSE_ECALL_M);
    check("MPRV: fetch, epc", outcome.epc, (uint64_t)page[1]);
    // MPP = M: no translation.
    outcome = run(MODE_M, mprv_load, (uint64_t)&page[0][1], MSTATUS_MPP | MSTATUS_MPRV);
    check("MPRV, MPP M", outcome.a[0], VALUE);
    outcome = run(MODE_M, mprv_load, NOWHERE, MSTATUS_MPP | MSTATUS_MPRV);
    check_trap("MPRV, MPP M", outcome, CAUSE_LOAD_ACCESS, NOWHERE);
}

// SUM and MXR count from the next instruction on, and satp from the fence on.
STUB_AFTER(sum_on_off, "csrs sstatus, a1\nld a2, 0(a0)\ncsrc sstatus, a1\n", "ld a3, 0(a0)");
STUB_AFTER(switch_satp, "csrw satp, a1\nsfence.vma\n", "ld a0, 0(a0)");
STUB_AFTER(switch_to_bare, "csrw satp, zero\nsfence.vma\n", "ld a0, 0(a0)");

static void test_switches(const struct paging *paging)
{
    static const struct {
        uint64_t pte_flags, bit;
    } cases[] = {{PTE_RWAD | PTE_U, MSTATUS_SUM}, {PTE_V | PTE_X | PTE_A, MSTATUS_MXR}};
    struct firmware_outcome outcome;

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        page[0][0] = VALUE + i;
        paging_map(paging, TEST_GVA, 0, pte_of_page(0, cases[i].pte_flags));
        fence_all();
        outcome = run(MODE_S, sum_on_off, TEST_GVA, cases[i].bit);
        check_trap("cleared in S", outcome, CAUSE_LOAD_PAGE, TEST_GVA);
        check("set in S", outcome.a[2], VALUE + i);
        check("epc", outcome.epc, (uint64_t)sum_on_off_insn);
    }
    page[0][0] = VALUE;
    paging_map(paging, TEST_GVA, 0, pte_of_page(0, PTE_RWAD));
    csr_write(satp, 0);
    outcome = run(MODE_S, switch_satp, TEST_GVA, paging_satp(paging, 0));
    check("satp written in S", outcome.a[0], VALUE);
    outcome = run(MODE_S, switch_to_bare, (uint64_t)page, 0);
    check("Bare again", outcome.a[0], VALUE);
    check_cause("Bare: no translation", run(MODE_S, load, NOWHERE, 0), CAUSE_LOAD_ACCESS);
}

// Zicbom and Zicboz: a store's exceptions; cbo.zero needs W, the others R or W.
STUB(cbo_zero, "cbo.zero (a0)");
STUB(cbo_clean, "cbo.clean (a0)");
STUB(cbo_flush, "cbo.flush (a0)");
STUB(cbo_inval, "cbo.inval (a0)");

static void test_cache_blocks(const struct paging *paging)
{
    static const char *const others[] = {cbo_clean, cbo_flush, cbo_inval};
    uint64_t gva = TEST_GVA + 72;

    csr_write(menvcfg, 3 << 4 | 1 << 6 | 1 << 7);
    for (uint64_t flags = PTE_R; flags < 16; flags += 2) {
        bool valid = !((flags & PTE_W) && !(flags & PTE_R)), writable = valid && (flags & PTE_W);
        bool readable = valid && (flags & PTE_R);

        paging_map(paging, TEST_GVA, 0, pte_of_page(0, flags | PTE_V | PTE_A | PTE_D));
        fence_all();
        check_cause("cbo.zero", run(MODE_S, cbo_zero, gva, 0),
                    writable ? CAUSE_NONE : CAUSE_STORE_PAGE);
        for (size_t i = 0; i < COUNT_OF(others); i++)
            check_cause("cbo", run(MODE_S, others[i], gva, 0),
                        readable ? CAUSE_NONE : CAUSE_STORE_PAGE);
    }
    paging_map(paging, TEST_GVA, 0, 0);
    fence_all();
    check_trap("cbo.zero: tval", run(MODE_S, cbo_zero, gva, 0), CAUSE_STORE_PAGE, gva);
    check_trap("cbo.clean: tval", run(MODE_S, cbo_clean, gva, 0), CAUSE_STORE_PAGE, gva);
    csr_write(menvcfg, 0);
    fill();
}

static void test_mode(unsigned levels, const char *const *names)
{
    static void (*const tests[])(const struct paging *) = {
        test_permissions, test_superpages, test_reserved,       test_pbmt,
        test_napot,       test_canonical,  test_accessed_dirty, test_straddling,
        test_atomics,     test_mprv,       test_switches,       test_cache_blocks,
    };

    for (size_t i = 0; i < COUNT_OF(tests); i++) {
        struct paging paging = paging_start(levels);

        group(names[i]);
        fill();
        paging_map(&paging, TEST_GVA, 0, 0);  // so that its tables exist
        tests[i](&paging);
    }
}

#define NAMES(mode)                                                                                \
    {                                                                                              \
        mode ": permissions", mode ": superpages", mode ": reserved bits", mode ": Svpbmt",        \
            mode ": Svnapot", mode ": canonical addresses", mode ": A and D", mode ": two pages",  \
            mode ": atomics", mode ": MPRV", mode ": switches", mode ": cache blocks"              \
    }

void test_main(void)
{
    static const char *const sv39[] = NAMES("Sv39"), *const sv48[] = NAMES("Sv48"),
                             *const sv57[] = NAMES("Sv57");

    test_mode(3, sv39);
    test_mode(4, sv48);
    test_mode(5, sv57);
    csr_write(satp, 0);
    fence_all();
}
