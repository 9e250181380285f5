// SPDX-License-Identifier: BSD-2-Clause
// Zicbom, Zicboz, Zicbop: what the operations do to memory, and what xenvcfg allows of them.
#include "firmware.h"

#define BLOCK_BYTES 64
#define ENVCFG_CBIE (3ull << 4)
#define ENVCFG_CBIE_FLUSH (1ull << 4)
#define ENVCFG_CBCFE (1ull << 6)
#define ENVCFG_CBZE (1ull << 7)
#define NOWHERE 0x18000000ul  // no RAM, no device

STUB(do_inval, "cbo.inval (a0)");
STUB(do_clean, "cbo.clean (a0)");
STUB(do_flush, "cbo.flush (a0)");
STUB(do_zero, "cbo.zero (a0)");
STUB(do_prefetch_i, "prefetch.i 0(a0)");
STUB(do_prefetch_r, "prefetch.r 2016(a0)");
STUB(do_prefetch_w, "prefetch.w -2048(a0)");

static const struct {
    const char *stub, *name;
    uint64_t enable;  // in menvcfg and senvcfg
} operations[] = {
    {do_inval, "cbo.inval", ENVCFG_CBIE},
    {do_clean, "cbo.clean", ENVCFG_CBCFE},
    {do_flush, "cbo.flush", ENVCFG_CBCFE},
    {do_zero, "cbo.zero", ENVCFG_CBZE},
};

static uint64_t blocks[3 * BLOCK_BYTES / 8] __attribute__((aligned(BLOCK_BYTES)));

// Memory is coherent here: only cbo.zero changes it. Any address of the block will do.
static void test_memory(void)
{
    group("cbo: memory");
    for (size_t i = 0; i < COUNT_OF(operations); i++)
        for (unsigned offset = 0; offset < BLOCK_BYTES; offset += 7) {
            bool zero = operations[i].stub == do_zero;

            for (size_t j = 0; j < COUNT_OF(blocks); j++)
                blocks[j] = ~j;
            check_cause(operations[i].name,
                        run(MODE_M, operations[i].stub, (uint64_t)&blocks[8] + offset, 0),
                        CAUSE_NONE);
            for (size_t j = 0; j < COUNT_OF(blocks); j++)
                check(operations[i].name, blocks[j], zero && j / 8 == 1 ? 0 : ~j);
        }
}

// A fault is a store's, whatever the operation, and tells an address in the block.
static void test_faults(void)
{
    struct firmware_outcome outcome;

    group("cbo: access faults");
    for (size_t i = 0; i < COUNT_OF(operations); i++) {
        outcome = run(MODE_M, operations[i].stub, NOWHERE + 8, 0);
        check_cause(operations[i].name, outcome, CAUSE_STORE_ACCESS);
        check(operations[i].name, outcome.tval, NOWHERE + 8);
    }
}

// CMO specification, section on xenvcfg: in S menvcfg decides, in U both.
static void test_envcfg(void)
{
    group("cbo: menvcfg, senvcfg");
    for (size_t i = 0; i < COUNT_OF(operations); i++)
        for (unsigned combination = 0; combination < 4; combination++) {
            bool in_m = combination & 1, in_s = combination & 2;
            uint64_t gva = (uint64_t)blocks;

            csr_write(menvcfg, in_m ? operations[i].enable : 0);
            csr_write(senvcfg, in_s ? operations[i].enable : 0);
            check_cause(operations[i].name, run(MODE_M, operations[i].stub, gva, 0), CAUSE_NONE);
            check_cause(operations[i].name, run(MODE_S, operations[i].stub, gva, 0),
                        in_m ? CAUSE_NONE : CAUSE_ILLEGAL);
            check_cause(operations[i].name, run(MODE_U, operations[i].stub, gva, 0),
                        in_m && in_s ? CAUSE_NONE : CAUSE_ILLEGAL);
        }
    // CBIE 01: cbo.inval is a flush; it is allowed all the same.
    csr_write(menvcfg, ENVCFG_CBIE_FLUSH);
    csr_write(senvcfg, ENVCFG_CBIE_FLUSH);
    check_cause("cbo.inval as flush", run(MODE_U, do_inval, (uint64_t)blocks, 0), CAUSE_NONE);
    // CBIE 10 is reserved and does not read back.
    csr_write(menvcfg, 2ull << 4);
    check("CBIE 10", (csr_read(menvcfg) & ENVCFG_CBIE) == 2ull << 4, false);
    csr_write(menvcfg, 0);
    csr_write(senvcfg, 0);
}

// Prefetches are hints: no address makes them trap.
static void test_prefetch(void)
{
    const uint64_t anywhere[] = {0, 1, (uint64_t)blocks, NOWHERE, -1ull, 1ull << 63};
    static const char *const prefetches[] = {do_prefetch_i, do_prefetch_r, do_prefetch_w};

    group("prefetch");
    for (size_t i = 0; i < COUNT_OF(prefetches); i++)
        for (size_t j = 0; j < COUNT_OF(anywhere); j++) {
            struct firmware_outcome outcome = run(MODE_U, prefetches[i], anywhere[j], 0);

            check_cause("prefetch", outcome, CAUSE_NONE);
            check("prefetch: registers", outcome.a[0], anywhere[j]);
        }
}

void test_main(void)
{
    test_memory();
    test_faults();
    test_envcfg();
    test_prefetch();
}
