// SPDX-License-Identifier: BSD-2-Clause
// Counters: who may read them, minstret to the instruction, mcountinhibit, time.
// Privileged ISA sections 3.1.10 to 3.1.12, 10.1.5.
#include "firmware.h"

#define CY 1u
#define TM 2u
#define IR 4u

STUB(read_cycle, "csrr a0, cycle");
STUB(read_time, "csrr a0, time");
STUB(read_instret, "csrr a0, instret");
STUB(read_hpm3, "csrr a0, hpmcounter3");
STUB(read_hpm31, "csrr a0, hpmcounter31");

// S needs mcounteren, U both.
static void test_gating(void)
{
    static const struct {
        const char *name, *stub;
        uint64_t bit;
    } counters[] = {
        {"cycle", read_cycle, CY},
        {"time", read_time, TM},
        {"instret", read_instret, IR},
        {"hpmcounter3", read_hpm3, BIT(3)},
        {"hpmcounter31", read_hpm31, BIT(31)},
    };

    group("mcounteren, scounteren");
    for (size_t i = 0; i < COUNT_OF(counters); i++)
        for (unsigned bits = 0; bits < 4; bits++) {
            uint64_t bit = counters[i].bit;
            bool m, s;

            // All but this one are the other way round.
            csr_write(mcounteren, bits & 1 ? bit : ~bit);
            csr_write(scounteren, bits & 2 ? bit : ~bit);
            // The bits of counters that count nothing may be wired to 0.
            m = csr_read(mcounteren) & bit;
            s = csr_read(scounteren) & bit;
            if (bit <= IR) {
                check("mcounteren", m, bits & 1);
                check("scounteren", s, bits >> 1);
            }
            check_cause(counters[i].name, run(MODE_M, counters[i].stub, 0, 0), CAUSE_NONE);
            check_cause(counters[i].name, run(MODE_S, counters[i].stub, 0, 0),
                        m ? CAUSE_NONE : CAUSE_ILLEGAL);
            check_cause(counters[i].name, run(MODE_U, counters[i].stub, 0, 0),
                        m && s ? CAUSE_NONE : CAUSE_ILLEGAL);
        }
    csr_write(mcounteren, -1ull);
    csr_write(scounteren, -1ull);
}

// a3 - a2: what was counted from the one read to the other, the first read included.
#define COUNTED(name, text) STUB(name, "csrr a2, instret\n" text "csrr a3, instret")

COUNTED(count_nothing, "");
COUNTED(count_nops, "nop\nnop\n.option norvc\nnop\n.option rvc\nnop\n");
COUNTED(count_loop, "li a1, 1000\n1: addi a1, a1, -1\nbnez a1, 1b\n");
COUNTED(count_calls, "j 1f\n2: ret\n1: mv a1, ra\njal 2b\njal 2b\nmv ra, a1\n");
COUNTED(count_memory, "sd a0, -8(sp)\nld a0, -8(sp)\nlw a0, -7(sp)\namoadd.w zero, zero, (sp)\n");
COUNTED(count_fences, "fence\nfence.i\npause\nfence.tso\n");
COUNTED(count_csr, "csrr a1, fcsr\ncsrw fcsr, a1\ncsrwi fcsr, 0\n");
COUNTED(count_fp, "fmv.d.x fa0, zero\nfadd.d fa0, fa0, fa0\nfdiv.d fa0, fa0, fa0\n");

static void test_exact(void)
{
    static const struct {
        const char *name, *stub;
        uint64_t count;
    } cases[] = {
        {"nothing", count_nothing, 0}, {"nops", count_nops, 4},     {"loop", count_loop, 2001},
        {"calls", count_calls, 7},     {"memory", count_memory, 4}, {"fences", count_fences, 4},
        {"CSRs", count_csr, 3},        {"FP", count_fp, 3},
    };
    static const enum mode modes[] = {MODE_U, MODE_S, MODE_M};

    group("instret counts each instruction once");
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        for (size_t j = 0; j < COUNT_OF(modes); j++) {
            static uint64_t stack[4];
            struct firmware_outcome outcome = run(modes[j], cases[i].stub, (uint64_t)stack, 0);

            check_cause(cases[i].name, outcome, CAUSE_NONE);
            check(cases[i].name, outcome.a[3] - outcome.a[2], cases[i].count + 1);
        }
}

STUB(one_nop, "nop");
STUB(two_nops, "nop\nnop");
STUB(trapped, ".4byte 0xffffffff");
STUB(trapped_load, "ld a0, 0(zero)");
STUB(trapped_later, "nop\nli a0, 1\nmv a1, a0\nld a0, 0(zero)");

// The same way there and back: only what lies between counts.
static uint64_t cost_of(const char *stub)
{
    struct firmware_entry entry = {(uint64_t)stub, 0, {0}};
    struct firmware_outcome outcome;
    uint64_t before;

    run(MODE_U, stub, 0, 0);
    before = csr_read(minstret);
    firmware_enter(&entry, &outcome);
    return csr_read(minstret) - before;
}

// An instruction that traps does not retire: neither the illegal one nor the ecall.
static void test_traps(void)
{
    uint64_t base = cost_of(one_nop);

    group("instret and traps");
    check("two nops", cost_of(two_nops), base + 1);
    check("illegal", cost_of(trapped), base - 1);
    check("load fault", cost_of(trapped_load), base - 1);
    check("load fault after others", cost_of(trapped_later), base + 2);
}

STUB_AFTER(write_minstret, "csrw minstret, a0\n", "csrr a1, minstret\ncsrr a2, minstret");
STUB_AFTER(write_mcycle, "csrw mcycle, a0\n", "csrr a1, mcycle");

// A write takes the place of the increment of the instruction that writes.
static void test_writing(void)
{
    static const uint64_t values[] = {0, 1000, 0xffffffff, -1ull, 1ull << 63};
    struct firmware_outcome outcome;

    group("minstret and mcycle are written");
    for (size_t i = 0; i < COUNT_OF(values); i++) {
        outcome = run(MODE_M, write_minstret, values[i], 0);
        check("minstret", outcome.a[1], values[i]);
        check("minstret goes on", outcome.a[2], values[i] + 1);
        outcome = run(MODE_M, write_mcycle, values[i], 0);
        check("mcycle is near", outcome.a[1] - values[i] < 1000000, true);
    }
}

static void test_inhibit(void)
{
    uint64_t before;

    group("mcountinhibit");
    csr_write(mcountinhibit, -1ull);
    check("TM is no counter of ours", csr_read(mcountinhibit) & TM, 0);
    csr_write(mcountinhibit, IR);
    before = csr_read(minstret);
    check("minstret stands", csr_read(minstret), before);
    csr_write(minstret, 77);
    check("written while it stands", csr_read(minstret), 77);
    csr_write(mcountinhibit, CY);
    before = csr_read(mcycle);
    check("mcycle stands", csr_read(mcycle), before);
    check("minstret goes on from there", csr_read(minstret) - 77 < 100, true);
    csr_write(mcountinhibit, 0);
    (void)csr_read(mcycle);
    check("mcycle goes on", csr_read(mcycle) > before, true);
    check("time does not care", csr_read(time) != 0, true);
}

// time is ACLINT's mtime, 10 MHz.
static void test_time(void)
{
    group("time");
    for (unsigned i = 0; i < 100; i++) {
        uint64_t before = csr_read(time), there = *ACLINT_MTIME, after = csr_read(time);

        check("time <= mtime <= time", before <= there && there <= after, true);
    }
}

void test_main(void)
{
    csr_write(mcountinhibit, 0);
    test_gating();
    test_exact();
    test_traps();
    test_writing();
    test_inhibit();
    test_time();
}
