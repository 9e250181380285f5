// SPDX-License-Identifier: BSD-2-Clause
// Physical memory protection: Privileged ISA section 3.7.
#include "paging.h"

#define R 1u
#define W 2u
#define X 4u
#define TOR 0x08u
#define NA4 0x10u
#define NAPOT 0x18u
#define L 0x80u
#define OPEN (NAPOT | R | W | X)

STUB(load1, "lbu a0, 0(a0)");
STUB(load4, "lw a0, 0(a0)");
STUB(load8, "ld a0, 0(a0)");
STUB(store1, "sb a1, 0(a0)");
STUB(store8, "sd a1, 0(a0)");
STUB(jump, "jalr zero, 0(a0)");
STUB(amo, "amoor.w a0, zero, (a0)");
STUB(reserve, "lr.w a0, (a0)");

static uint64_t area[1024] __attribute__((aligned(8192)));
#define AREA ((uint64_t)area)

#define PMPADDR_CASE(n, action)                                                                    \
    case n:                                                                                        \
        action(pmpaddr##n);                                                                        \
        break;
#define EACH_PMPADDR(action)                                                                       \
    PMPADDR_CASE(0, action)                                                                        \
    PMPADDR_CASE(1, action)                                                                        \
    PMPADDR_CASE(2, action)                                                                        \
    PMPADDR_CASE(3, action)                                                                        \
    PMPADDR_CASE(4, action)                                                                        \
    PMPADDR_CASE(5, action)                                                                        \
    PMPADDR_CASE(6, action)                                                                        \
    PMPADDR_CASE(7, action)                                                                        \
    PMPADDR_CASE(14, action)                                                                       \
    PMPADDR_CASE(15, action)

static void set_address(unsigned entry, uint64_t value)
{
#define WRITE(csr) csr_write(csr, value)
    switch (entry) {
        EACH_PMPADDR(WRITE)
    }
#undef WRITE
}

static uint64_t get_address(unsigned entry)
{
    uint64_t value = 0;
#define READ(csr) value = csr_read(csr)
    switch (entry) {
        EACH_PMPADDR(READ)
    }
#undef READ
    return value;
}

static void set_config(unsigned entry, unsigned config)
{
    uint64_t shift = entry % 8 * 8, clear = 0xffull << shift, set = (uint64_t)config << shift;

    if (entry < 8)
        csr_write(pmpcfg0, (csr_read(pmpcfg0) & ~clear) | set);
    else
        csr_write(pmpcfg2, (csr_read(pmpcfg2) & ~clear) | set);
    fence_all();
}

static unsigned get_config(unsigned entry)
{
    return (entry < 8 ? csr_read(pmpcfg0) : csr_read(pmpcfg2)) >> entry % 8 * 8 & 0xff;
}

static void set_entry(unsigned entry, uint64_t address, unsigned config)
{
    set_address(entry, address);
    set_config(entry, config);
}

static uint64_t napot(uint64_t gpa, uint64_t bytes)
{
    return (gpa | (bytes / 2 - 1)) >> 2;
}

// Nothing but an entry of low priority that opens everything.
static void open_all(void)
{
    for (unsigned i = 0; i < 7; i++)
        set_entry(i, 0, 0);
    set_entry(7, -1ull >> 10, OPEN);
}

static void check_load(const char *what, uint64_t gpa, bool allowed)
{
    check_cause(what, run(MODE_S, load1, gpa, 0), allowed ? CAUSE_NONE : CAUSE_LOAD_ACCESS);
}

// What each combination of R, W, X allows; M may do everything all the same.
static void test_permissions(void)
{
    static const unsigned combinations[] = {0, R, R | W, X, R | X, R | W | X};

    group("permissions");
    for (size_t i = 0; i < COUNT_OF(combinations); i++)
        for (enum mode mode = MODE_U; mode <= MODE_M; mode += mode ? 2 : 1) {
            unsigned allowed = mode == MODE_M ? R | W | X : combinations[i];
            struct firmware_outcome outcome;

            area[0] = 0x73;
            __asm__ volatile("fence.i" ::: "memory");
            open_all();
            set_entry(1, napot(AREA, 4096), NAPOT | combinations[i]);
            check_cause("load", run(mode, load8, AREA, 0),
                        allowed & R ? CAUSE_NONE : CAUSE_LOAD_ACCESS);
            check_cause("lr", run(mode, reserve, AREA, 0),
                        allowed & R ? CAUSE_NONE : CAUSE_LOAD_ACCESS);
            outcome = run(mode, jump, AREA, 0);
            check_cause("fetch", outcome, allowed & X ? CAUSE_NONE : CAUSE_FETCH_ACCESS);
            if (!(allowed & X)) {
                check("fetch: tval", outcome.tval, AREA);
                check("fetch: epc", outcome.epc, AREA);
            }
            check_cause("amo", run(mode, amo, AREA, 0),
                        allowed & W ? CAUSE_NONE : CAUSE_STORE_ACCESS);
            outcome = run(mode, store8, AREA + 8, 5);
            check_cause("store", outcome, allowed & W ? CAUSE_NONE : CAUSE_STORE_ACCESS);
            if (!(allowed & W))
                check("store: tval", outcome.tval, AREA + 8);
        }
}

// NAPOT from 8 bytes up, NA4, TOR: the bytes at both ends, inside and outside.
static void test_ranges(void)
{
    group("ranges");
    for (uint64_t bytes = 8; bytes <= 4096; bytes *= 2) {
        open_all();
        set_entry(2, napot(AREA + 4096, bytes), NAPOT);
        check_load("NAPOT: before", AREA + 4095, true);
        check_load("NAPOT: first", AREA + 4096, false);
        check_load("NAPOT: last", AREA + 4095 + bytes, false);
        if (bytes < 4096)
            check_load("NAPOT: after", AREA + 4096 + bytes, true);
    }
    open_all();
    set_entry(3, (AREA + 64) >> 2, NA4);
    check_load("NA4: before", AREA + 63, true);
    check_load("NA4: first", AREA + 64, false);
    check_load("NA4: last", AREA + 67, false);
    check_load("NA4: after", AREA + 68, true);
    open_all();
    set_address(3, (AREA + 100) >> 2);
    set_entry(4, (AREA + 4100) >> 2, TOR);
    check_load("TOR: before", AREA + 99, true);
    check_load("TOR: first", AREA + 100, false);
    check_load("TOR: inside", AREA + 4096, false);
    check_load("TOR: last", AREA + 4099, false);
    check_load("TOR: after", AREA + 4100, true);
    // An empty range matches nothing, and entry 0's range begins at 0.
    set_address(3, (AREA + 4100) >> 2);
    check_load("TOR: empty", AREA + 4096, true);
    set_address(3, (AREA + 5000) >> 2);
    check_load("TOR: reversed", AREA + 4096, true);
    open_all();
    set_address(1, -1ull >> 10);
    set_entry(0, (AREA + 4096) >> 2, TOR | R | X);
    check_cause("TOR 0: store", run(MODE_S, store1, AREA, 0), CAUSE_STORE_ACCESS);
    check_cause("TOR 0: store after", run(MODE_S, store1, AREA + 4096, 0), CAUSE_NONE);
    open_all();
    set_entry(5, napot(AREA, 4096), 0);
    check_load("OFF", AREA, true);
}

// The lowest entry that matches decides; without a match S and U may nothing.
static void test_priority(void)
{
    group("priority, no match");
    open_all();
    set_entry(1, napot(AREA, 64), OPEN);
    set_entry(2, napot(AREA, 4096), NAPOT);
    check_load("lower entry allows", AREA + 63, true);
    check_load("higher entry denies", AREA + 64, false);
    set_config(1, NAPOT);
    set_config(2, OPEN);
    check_load("lower entry denies", AREA + 63, false);
    check_load("higher entry allows", AREA + 64, true);
    // Everything up to the area, then nothing more.
    open_all();
    set_entry(0, AREA >> 2, TOR | R | W | X);
    set_config(7, 0);
    check_load("match", AREA - 1, true);
    check_load("no match", AREA, false);
    check_cause("no match, store", run(MODE_U, store1, AREA, 0), CAUSE_STORE_ACCESS);
    check_cause("no match, fetch", run(MODE_S, jump, AREA, 0), CAUSE_FETCH_ACCESS);
    check_cause("no match in M", run(MODE_M, load8, AREA, 0), CAUSE_NONE);
    open_all();
    set_config(7, 0);
    check_cause("all off", run(MODE_U, load8, AREA, 0), CAUSE_FETCH_ACCESS);
    open_all();
}

// An access of which an entry matches only a part fails, whatever the permissions.
static void test_straddling(void)
{
    group("partial matches");
    open_all();
    set_entry(2, (AREA + 64) >> 2, NA4 | R | W | X);
    check_cause("8 bytes, 4 match", run(MODE_S, load8, AREA + 64, 0), CAUSE_LOAD_ACCESS);
    check_cause("4 bytes, all match", run(MODE_S, load4, AREA + 64, 0), CAUSE_NONE);
    check_cause("8 bytes beside it", run(MODE_S, load8, AREA + 68, 0), CAUSE_NONE);
    check_cause("M is no exception", run(MODE_M, load8, AREA + 64, 0), CAUSE_LOAD_ACCESS);
    // A misaligned access may be made of several, so only what is forbidden must fail.
    set_config(2, NA4);
    check_cause("upper half", run(MODE_S, load8, AREA + 60, 0), CAUSE_LOAD_ACCESS);
    check_cause("lower half", run(MODE_S, load8, AREA + 66, 0), CAUSE_LOAD_ACCESS);
    // Where half is forbidden nothing is written.
    open_all();
    area[8] = area[9] = 0x1111111111111111;
    set_entry(2, napot(AREA + 72, 8), NAPOT | R);
    check_cause("store into it", run(MODE_S, store8, AREA + 68, -1ull), CAUSE_STORE_ACCESS);
    check("first half", area[8], 0x1111111111111111);
    check("second half", area[9], 0x1111111111111111);
    // An instruction of which the second half may not be fetched.
    open_all();
    ((uint16_t *)area)[31] = 0x0513;  // addi a0, a0, 1
    ((uint16_t *)area)[32] = 0x0015;
    ((uint16_t *)area)[33] = 0x0001;  // c.nop
    ((uint32_t *)area)[17] = 0x73;    // ecall
    __asm__ volatile("fence.i" ::: "memory");
    check_cause("fetch", run(MODE_S, jump, AREA + 62, 0), CAUSE_NONE);
    set_entry(2, (AREA + 64) >> 2, NA4 | R);
    struct firmware_outcome outcome = run(MODE_S, jump, AREA + 62, 0);
    check_cause("fetch of the second half", outcome, CAUSE_FETCH_ACCESS);
    check("fetch: epc", outcome.epc, AREA + 62);
    open_all();
}

STUB_AFTER(mprv_load, "csrs mstatus, a1\n", "ld a0, 0(a0)\ncsrc mstatus, a1");

static void test_mprv(void)
{
    struct firmware_outcome outcome;

    group("MPRV");
    open_all();
    set_entry(1, napot(AREA, 4096), NAPOT);
    outcome = run(MODE_M, mprv_load, AREA, MSTATUS_MPRV);
    check_trap("as U", outcome, CAUSE_LOAD_ACCESS, AREA);
    outcome = run(MODE_M, mprv_load, AREA, MSTATUS_MPRV | MSTATUS_MPP_S);
    check_trap("as S", outcome, CAUSE_LOAD_ACCESS, AREA);
    outcome = run(MODE_M, mprv_load, AREA, MSTATUS_MPRV | MSTATUS_MPP);
    check_cause("as M", outcome, CAUSE_NONE);
    open_all();
}

// With translation the physical address counts; so it does for the tables that are walked.
static void test_translated(void)
{
    struct paging paging;
    struct firmware_outcome outcome;

    group("with page tables");
    open_all();
    paging = paging_start(3);
    paging_map(&paging, TEST_GVA, 0, pte_of(AREA, PTE_RWAD));
    paging_map(&paging, TEST_GVA + PAGE_BYTES, 0, pte_of(AREA + PAGE_BYTES, PTE_RWAD));
    fence_all();
    check_cause("open", run(MODE_S, load8, TEST_GVA, 0), CAUSE_NONE);
    set_entry(1, napot(AREA + 256, 256), NAPOT | R);
    check_trap("read-only", run(MODE_S, store8, TEST_GVA + 256, 0), CAUSE_STORE_ACCESS,
               TEST_GVA + 256);
    check_cause("beside it", run(MODE_S, store8, TEST_GVA + 248, 0), CAUSE_NONE);
    check_cause("after it", run(MODE_S, store8, TEST_GVA + 512, 0), CAUSE_NONE);
    // Across two pages, the second of which is closed.
    set_entry(1, napot(AREA + 4096, 4096), NAPOT);
    outcome = run(MODE_S, load8, TEST_GVA + 4092, 0);
    check_trap("second page", outcome, CAUSE_LOAD_ACCESS, TEST_GVA + 4096);
    // The page table.
    set_entry(1, napot((uint64_t)paging_entry(&paging, TEST_GVA, 0), 8), NAPOT);
    check_trap("table: load", run(MODE_S, load8, TEST_GVA, 0), CAUSE_LOAD_ACCESS, TEST_GVA);
    check_trap("table: store", run(MODE_S, store8, TEST_GVA, 0), CAUSE_STORE_ACCESS, TEST_GVA);
    check_trap("table: fetch", run(MODE_S, jump, TEST_GVA, 0), CAUSE_FETCH_ACCESS, TEST_GVA);
    // A table that may be read but not written can give no A bit.
    *paging_entry(&paging, TEST_GVA, 0) = pte_of(AREA, PTE_V | PTE_R | PTE_W);
    csr_write(menvcfg, MENVCFG_ADUE);
    set_config(1, NAPOT | R);
    check_trap("table: A", run(MODE_S, load8, TEST_GVA, 0), CAUSE_LOAD_ACCESS, TEST_GVA);
    csr_write(menvcfg, 0);
    csr_write(satp, 0);
    open_all();
}

static void test_registers(void)
{
    group("registers");
    open_all();
    for (unsigned entry = 0; entry < 7; entry++) {
        set_address(entry, -1ull);
        check("pmpaddr: 54 bits", get_address(entry), -1ull >> 10);
        set_address(entry, 0x123456789abcdul + entry);
        check("pmpaddr", get_address(entry), 0x123456789abcdul + entry);
        set_config(entry, TOR | R);
        check("pmpcfg", get_config(entry), TOR | R);
        // Reserved: bits 5 and 6, and W without R.
        set_config(entry, 0x60);
        check("pmpcfg: reserved bits", get_config(entry) & 0x60, 0);
        set_config(entry, W);
        check("pmpcfg: W without R", (get_config(entry) & (R | W)) == W, false);
    }
    set_address(15, 0x1234);
    check("pmpaddr15", get_address(15), 0x1234);
    open_all();
}

// Last, since only a reset unlocks.
static void test_locked(void)
{
    group("locked entries");
    open_all();
    set_entry(2, napot(AREA, 4096), NAPOT | R | L);
    check_trap("store in M", run(MODE_M, store8, AREA, 0), CAUSE_STORE_ACCESS, AREA);
    check_cause("load in M", run(MODE_M, load8, AREA, 0), CAUSE_NONE);
    check_trap("store in S", run(MODE_S, store8, AREA, 0), CAUSE_STORE_ACCESS, AREA);
    check_trap("fetch in M", run(MODE_M, jump, AREA, 0), CAUSE_FETCH_ACCESS, AREA);
    set_config(2, OPEN);
    check("config stays", get_config(2), NAPOT | R | L);
    set_address(2, 0);
    check("address stays", get_address(2), napot(AREA, 4096));
    set_address(1, 0x55);
    check("address before it does not", get_address(1), 0x55);
    check_trap("still", run(MODE_M, store8, AREA, 0), CAUSE_STORE_ACCESS, AREA);
    // TOR locks the address below it too; the others of its register can still be written.
    set_address(4, (AREA + 4096) >> 2);
    set_entry(5, (AREA + 4160) >> 2, TOR | L);
    set_address(4, 0);
    check("TOR: address below stays", get_address(4), (AREA + 4096) >> 2);
    check_trap("TOR in M", run(MODE_M, load8, AREA + 4152, 0), CAUSE_LOAD_ACCESS, AREA + 4152);
    set_config(3, R | TOR);
    check("neighbour", get_config(3), R | TOR);
    // OFF and locked is locked all the same.
    set_entry(6, 0x77, L);
    set_entry(6, 0x78, OPEN);
    check("OFF: config stays", get_config(6), L);
    check("OFF: address stays", get_address(6), 0x77);
}

void test_main(void)
{
    test_registers();
    test_permissions();
    test_ranges();
    test_priority();
    test_straddling();
    test_mprv();
    test_translated();
    test_locked();
}
