// SPDX-License-Identifier: BSD-2-Clause
// Zawrs: the stall ends at once without a reservation, by itself (sto), by an interrupt (nto), and
// changes no register.
#include "firmware.h"

#define TICKS_PER_MS 10000

STUB(sto, "wrs.sto");
STUB(nto, "wrs.nto");
STUB_AFTER(reserve_sto, "lr.w a2, (a0)\n", "wrs.sto");
STUB_AFTER(reserve_nto, "lr.d a2, (a0)\n", "wrs.nto");
STUB_AFTER(dropped_nto, "lr.w a2, (a0)\nsc.w a2, a2, (a0)\n", "wrs.nto");

static uint64_t cell;

static void arm_timer(uint64_t ticks)
{
    *ACLINT_MTIMECMP(0) = *ACLINT_MTIME + ticks;
}

static void check_returns(const char *name, const char *stub)
{
    static const enum mode modes[] = {MODE_U, MODE_S, MODE_M};

    for (size_t i = 0; i < COUNT_OF(modes); i++) {
        struct firmware_outcome outcome = run(modes[i], stub, (uint64_t)&cell, 42);

        check_cause(name, outcome, CAUSE_NONE);
        check(name, outcome.a[1], 42);
    }
}

void test_main(void)
{
    struct firmware_outcome outcome;

    group("without a reservation");
    check_returns("wrs.sto", sto);
    check_returns("wrs.nto", nto);
    check_returns("wrs.nto after sc", dropped_nto);

    group("with a reservation");
    check_returns("wrs.sto", reserve_sto);

    // A pending interrupt that is enabled in mie ends the stall although MIE is clear.
    group("wrs.nto and interrupts");
    csr_write(mie, BIT(IRQ_MTI));
    arm_timer(2 * TICKS_PER_MS);
    check_cause("masked in M", run(MODE_M, reserve_nto, (uint64_t)&cell, 0), CAUSE_NONE);
    // In S an M-level interrupt is taken.
    arm_timer(2 * TICKS_PER_MS);
    outcome = run(MODE_S, reserve_nto, (uint64_t)&cell, 0);
    if (!completed(&outcome))
        check("taken in S", outcome.cause, CAUSE_IRQ(IRQ_MTI));
    *ACLINT_MTIMECMP(0) = -1ull;
    csr_write(mie, 0);
}
