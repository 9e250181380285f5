// SPDX-License-Identifier: BSD-2-Clause
// Interrupts: who takes them, in which order, vectors, WFI, Sstc, and the PLIC's way in.
// Privileged ISA sections 3.1.9, 3.3.3, 10.1.3; Sstc.
#include "firmware.h"

#define MENVCFG_STCE (1ull << 63)
#define MCOUNTEREN_TM 2
#define ALL_M (BIT(IRQ_MSI) | BIT(IRQ_MTI) | BIT(IRQ_MEI))
#define ALL_S (BIT(IRQ_SSI) | BIT(IRQ_STI) | BIT(IRQ_SEI))
#define NEVER (-1ull)
#define TICKS_PER_MS 10000ul

CODE(stay, "c.nop\nc.nop\nc.nop\nc.nop");
CODE(handle, "csrr a0, scause\ncsrr a1, sepc\ncsrr a2, sstatus\ncsrr a3, stval");

// Lowest priority first.
static const unsigned by_priority[] = {IRQ_STI, IRQ_SSI, IRQ_SEI, IRQ_MTI, IRQ_MSI, IRQ_MEI};

// ---- Sources ------------------------------------------------------------------------------------

#define PLIC_PRIORITY(source) ((volatile uint32_t *)(0x0c000000ul + 4 * (source)))
#define PLIC_ENABLE(context) ((volatile uint32_t *)(0x0c002000ul + 0x80 * (context)))
#define PLIC_THRESHOLD(context) ((volatile uint32_t *)(0x0c200000ul + 0x1000 * (context)))
#define PLIC_CLAIM(context) ((volatile uint32_t *)(0x0c200004ul + 0x1000 * (context)))
#define PLIC_UART 10
#define UART_IER ((volatile uint8_t *)0x10000001ul)
#define UART_IIR ((volatile uint8_t *)0x10000002ul)
#define UART_IER_THRE 2

// The UART, idle, interrupts when its transmitter may; context 0 leads to MEI, 1 to SEI.
static void raise_external(unsigned context)
{
    *PLIC_PRIORITY(PLIC_UART) = 1;
    *PLIC_THRESHOLD(context) = 0;
    *PLIC_ENABLE(context) = 1u << PLIC_UART;
    *UART_IER = UART_IER_THRE;
}

// Complete what was claimed; reading IIR ends a transmitter's interrupt.
static void drop_external(unsigned context)
{
    uint32_t source;

    *UART_IER = 0;
    (void)*UART_IIR;
    source = *PLIC_CLAIM(context);
    if (source)
        *PLIC_CLAIM(context) = source;
    *PLIC_ENABLE(context) = 0;
}

static void set_pending(unsigned irq, bool on)
{
    switch (irq) {
    case IRQ_MSI:
        *ACLINT_MSIP(0) = on;
        break;
    case IRQ_MTI:
        *ACLINT_MTIMECMP(0) = on ? 0 : NEVER;
        break;
    case IRQ_MEI:
        on ? raise_external(0) : drop_external(0);
        break;
    default:
        if (on)
            csr_set(mip, BIT(irq));
        else
            csr_clear(mip, BIT(irq));
    }
}

static void quiet(void)
{
    csr_write(mie, 0);
    csr_write(mideleg, 0);
    csr_write(medeleg, 0);
    csr_write(menvcfg, 0);
    csr_clear(mstatus, MSTATUS_SIE | MSTATUS_MIE | MSTATUS_SPIE | MSTATUS_SPP);
    for (size_t i = 0; i < COUNT_OF(by_priority); i++)
        set_pending(by_priority[i], false);
    csr_write(stvec, (uint64_t)handle);
}

static struct firmware_outcome stay_in(enum mode mode, bool enabled)
{
    struct firmware_entry entry = {(uint64_t)stay, (uint64_t)mode << 11, {0}};
    struct firmware_outcome outcome;

    csr_clear(mstatus, MSTATUS_SIE | MSTATUS_SPIE | MSTATUS_SPP);
    if (mode == MODE_M)
        entry.mstatus_bits |= enabled ? MSTATUS_MPIE : 0;
    else
        csr_set(mstatus, enabled ? MSTATUS_SIE : 0);
    firmware_enter(&entry, &outcome);
    return outcome;
}

// ---- Tests --------------------------------------------------------------------------------------

// For each source alone: pending without mie nothing happens; with it, it goes to M unless
// delegated (S sources only), to S when delegated and S may be interrupted.
static void test_delivery(void)
{
    group("delivery and delegation");
    for (size_t i = 0; i < COUNT_OF(by_priority); i++)
        for (unsigned bits = 0; bits < 24; bits++) {
            enum mode mode = bits % 3 == 2 ? MODE_M : (enum mode)(bits % 3);
            unsigned irq = by_priority[i];
            bool enabled = bits / 3 & 1, in_mie = bits / 6 & 1, delegated = bits / 12 & 1;
            bool to_s = delegated && (BIT(irq) & ALL_S);
            bool taken = in_mie && (to_s ? mode == MODE_U || (mode == MODE_S && enabled)
                                         : mode != MODE_M || enabled);
            struct firmware_outcome outcome;

            quiet();
            csr_write(mideleg, delegated ? NEVER : 0);
            csr_write(mie, in_mie ? BIT(irq) : 0);
            set_pending(irq, true);
            check("mip", csr_read(mip) & BIT(irq), BIT(irq));
            outcome = stay_in(mode, enabled);
            if (!taken) {
                check_cause("not taken", outcome, CAUSE_NONE);
            } else if (to_s) {
                check("taken in S", outcome.cause, CAUSE_ECALL_S);
                check("scause", outcome.a[0], CAUSE_IRQ(irq));
                check("sepc", outcome.a[1], (uint64_t)stay);
                check("SPP, SPIE, SIE", outcome.a[2] & (MSTATUS_SPP | MSTATUS_SPIE | MSTATUS_SIE),
                      (mode == MODE_S ? MSTATUS_SPP : 0) | (enabled ? MSTATUS_SPIE : 0));
                check("stval", outcome.a[3], 0);
            } else {
                check_trap("taken in M", outcome, CAUSE_IRQ(irq), 0);
                check("epc", outcome.epc, (uint64_t)stay);
            }
        }
    quiet();
}

// MEI, MSI, MTI, SEI, SSI, STI; one that goes to M comes before any that goes to S.
static void test_priority(void)
{
    struct firmware_outcome outcome;
    uint64_t left = ALL_M | ALL_S;

    group("priorities");
    quiet();
    for (size_t i = 0; i < COUNT_OF(by_priority); i++)
        set_pending(by_priority[i], true);
    for (size_t i = COUNT_OF(by_priority); i-- > 0; left &= ~BIT(by_priority[i])) {
        csr_write(mie, left);
        check("in M", stay_in(MODE_M, true).cause, CAUSE_IRQ(by_priority[i]));
        check("in S", stay_in(MODE_S, true).cause, CAUSE_IRQ(by_priority[i]));
    }
    csr_write(mideleg, BIT(IRQ_SEI) | BIT(IRQ_SSI));
    csr_write(mie, ALL_S);
    check("STI to M before SEI to S", stay_in(MODE_S, true).cause, CAUSE_IRQ(IRQ_STI));
    csr_write(mideleg, ALL_S);
    for (left = ALL_S; left; left &= ~BIT(outcome.a[0] & 63)) {
        csr_write(mie, left);
        outcome = stay_in(MODE_S, true);
        check("to S", outcome.a[0],
              CAUSE_IRQ(left & BIT(IRQ_SEI)   ? IRQ_SEI
                        : left & BIT(IRQ_SSI) ? IRQ_SSI
                                              : IRQ_STI));
    }
    quiet();
}

// jal tells by its link which entry was the target.
CODE(vectors, ".balign 64\n.option norvc\n.rept 16\njal a0, 1f\n.endr\n1: csrr a1, scause");

static void test_vectored(void)
{
    static const unsigned irqs[] = {IRQ_SSI, IRQ_STI, IRQ_SEI};
    uint64_t base = ((uint64_t)vectors + 63) & -64ul;
    struct firmware_outcome outcome;

    group("vectored stvec, mtvec");
    quiet();
    csr_write(mideleg, ALL_S);
    csr_write(stvec, base | 1);
    check("stvec", csr_read(stvec), base | 1);
    for (size_t i = 0; i < COUNT_OF(irqs); i++) {
        csr_write(mie, BIT(irqs[i]));
        set_pending(irqs[i], true);
        outcome = stay_in(MODE_U, false);
        check("vector", outcome.a[0], base + 4 * irqs[i] + 4);
        check("scause", outcome.a[1], CAUSE_IRQ(irqs[i]));
        set_pending(irqs[i], false);
    }
    // Exceptions go to the base.
    csr_write(medeleg, BIT(CAUSE_ILLEGAL));
    outcome = run_raw(MODE_U, 0);
    check("exception", outcome.a[0], base + 4);
    // firmware's own handler has as many entries.
    uint64_t direct = csr_swap(mtvec, csr_read(mtvec) | 1);
    check("mtvec", csr_read(mtvec), direct | 1);
    csr_write(mie, BIT(IRQ_MTI));
    set_pending(IRQ_MTI, true);
    check("MTI", stay_in(MODE_M, true).cause, CAUSE_IRQ(IRQ_MTI));
    csr_write(mtvec, direct);
    quiet();
}

// Section 3.1.9: what a write to a CSR makes deliverable is taken before the next instruction.
CODE(s_status, ".option norvc\ncsrs sstatus, a0\nnop\nnop");
CODE(s_enable, ".option norvc\ncsrs sie, a0\nnop\nnop");
CODE(s_pending, ".option norvc\ncsrs sip, a0\nnop\nnop");
CODE(m_status, ".option norvc\ncsrs mstatus, a0\nnop\nnop");
CODE(m_enable, ".option norvc\ncsrs mie, a0\nnop\nnop");
CODE(m_pending, ".option norvc\ncsrs mip, a0\nnop\nnop");
CODE(m_delegated, ".option norvc\ncsrc mideleg, a0\nnop\nnop");

static void test_immediate(void)
{
    static const struct {
        const char *name, *code;
        enum mode mode;
        bool status, enable, pending, delegated;  // what is set before
        uint64_t argument;
    } cases[] = {
        {"sstatus.SIE", s_status, MODE_S, false, true, true, true, MSTATUS_SIE},
        {"sie", s_enable, MODE_S, true, false, true, true, BIT(IRQ_SSI)},
        {"sip", s_pending, MODE_S, true, true, false, true, BIT(IRQ_SSI)},
        {"mstatus.MIE", m_status, MODE_M, false, true, true, false, MSTATUS_MIE},
        {"mie", m_enable, MODE_M, true, false, true, false, BIT(IRQ_SSI)},
        {"mip", m_pending, MODE_M, true, true, false, false, BIT(IRQ_SSI)},
        {"mideleg", m_delegated, MODE_M, true, true, true, true, BIT(IRQ_SSI)},
    };

    group("taken before the next instruction");
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        bool in_m = cases[i].mode == MODE_M;
        struct firmware_entry entry = {(uint64_t)cases[i].code,
                                       (uint64_t)cases[i].mode << 11 |
                                           (in_m && cases[i].status ? MSTATUS_MPIE : 0),
                                       {cases[i].argument}};
        struct firmware_outcome outcome;

        quiet();
        csr_write(mideleg, cases[i].delegated ? BIT(IRQ_SSI) : 0);
        csr_write(mie, cases[i].enable ? BIT(IRQ_SSI) : 0);
        set_pending(IRQ_SSI, cases[i].pending);
        csr_set(mstatus, !in_m && cases[i].status ? MSTATUS_SIE : 0);
        firmware_enter(&entry, &outcome);
        check(cases[i].name, in_m ? outcome.cause : outcome.a[0], CAUSE_IRQ(IRQ_SSI));
        check(cases[i].name, in_m ? outcome.epc : outcome.a[1], entry.pc + 4);
    }
    quiet();
}

// One that comes while a loop runs: nothing in the loop asks for it.
CODE(spin, "1: j 1b");
CODE(spin_loading, "1: ld a0, 0(a1)\nbeq a0, a0, 1b");

static void test_asynchronous(void)
{
    static const char *const loops[] = {spin, spin_loading};
    static uint64_t cell;
    struct firmware_outcome outcome;

    group("into a loop");
    quiet();
    csr_write(mcounteren, NEVER);
    for (size_t i = 0; i < COUNT_OF(loops); i++) {
        csr_write(mie, BIT(IRQ_MTI));
        for (enum mode mode = MODE_U; mode <= MODE_S; mode++) {
            *ACLINT_MTIMECMP(0) = *ACLINT_MTIME + TICKS_PER_MS;
            outcome = run(mode, loops[i], 0, (uint64_t)&cell);
            check("mtimecmp", outcome.cause, CAUSE_IRQ(IRQ_MTI));
        }
        *ACLINT_MTIMECMP(0) = NEVER;
        csr_write(mie, BIT(IRQ_STI));
        csr_write(mideleg, BIT(IRQ_STI));
        csr_write(menvcfg, MENVCFG_STCE);
        csr_write(stimecmp, csr_read(time) + TICKS_PER_MS);
        outcome = run(MODE_U, loops[i], 0, (uint64_t)&cell);
        check("stimecmp", outcome.a[0], CAUSE_IRQ(IRQ_STI));
        csr_write(stimecmp, NEVER);
        csr_write(mideleg, 0);
        csr_write(menvcfg, 0);
    }
    quiet();
}

STUB(read_sip, "csrr a0, sip");
STUB(read_sie, "csrr a0, sie");
STUB(write_sie, "csrw sie, a0");
STUB(set_sip, "csrs sip, a0");
STUB(clear_sip, "csrc sip, a0");

// sip and sie show what is delegated; only SSIP can be written there.
static void test_views(void)
{
    group("sip, sie, mip");
    quiet();
    csr_write(mie, NEVER);
    check("mie", csr_read(mie) & (ALL_M | ALL_S), ALL_M | ALL_S);
    csr_set(mip, ALL_S);
    check("sip, nothing delegated", run(MODE_S, read_sip, 0, 0).a[0], 0);
    csr_write(mie, 0);
    csr_write(mideleg, NEVER);
    check("mideleg", csr_read(mideleg) & (ALL_M | ALL_S), ALL_S);
    check("sip", run(MODE_S, read_sip, 0, 0).a[0], ALL_S);
    run(MODE_S, write_sie, ALL_M | ALL_S, 0);
    check("mie from sie", csr_read(mie), ALL_S);
    csr_set(mie, ALL_M);
    run(MODE_S, write_sie, 0, 0);
    check("sie leaves the rest", csr_read(mie), ALL_M);
    csr_clear(mip, ALL_S);
    csr_write(mideleg, BIT(IRQ_STI));
    csr_write(mie, ALL_S | ALL_M);
    check("sie", run(MODE_S, read_sie, 0, 0).a[0], BIT(IRQ_STI));
    csr_write(mie, 0);
    csr_write(mideleg, ALL_S);
    csr_set(mip, ALL_S);
    run(MODE_S, clear_sip, ALL_S, 0);
    check("sip: SSIP alone can be cleared", csr_read(mip) & ALL_S, BIT(IRQ_STI) | BIT(IRQ_SEI));
    csr_clear(mip, ALL_S);
    run(MODE_S, set_sip, NEVER, 0);
    check("sip: SSIP alone can be set", csr_read(mip) & ALL_S, BIT(IRQ_SSI));
    csr_clear(mip, ALL_S);
    csr_set(mip, ALL_M);
    check("mip: M bits are wires", csr_read(mip) & ALL_M, 0);
    *ACLINT_MSIP(0) = 1;
    csr_clear(mip, NEVER);
    check("mip: MSIP stays", csr_read(mip) & ALL_M, BIT(IRQ_MSI));
    *ACLINT_MSIP(0) = 0;
    check("mip: MSIP goes", csr_read(mip) & ALL_M, 0);
    *ACLINT_MSIP(0) = 0xfffffffe;
    check("MSIP has one bit", *ACLINT_MSIP(0), 0);
    quiet();
}

STUB(wait, ".option norvc\nwfi");

static void arm(uint64_t ticks)
{
    *ACLINT_MTIMECMP(0) = *ACLINT_MTIME + ticks;
}

// Enters a wfi that the timer ends with its interrupt. Where the host was so slow that the timer
// was first, tries again with more time.
static struct firmware_outcome wait_for_timer(uint64_t mstatus_bits)
{
    struct firmware_entry entry = {(uint64_t)wait, mstatus_bits, {0}};
    struct firmware_outcome outcome;

    for (uint64_t ticks = 2 * TICKS_PER_MS; ticks < 2000 * TICKS_PER_MS; ticks *= 2) {
        arm(ticks);
        firmware_enter(&entry, &outcome);
        if (outcome.epc != (uint64_t)wait)
            break;
    }
    return outcome;
}

// WFI ends when an interrupt that mie enables is pending, whether it may be taken or not.
static void test_wfi(void)
{
    struct firmware_outcome outcome;

    group("wfi");
    quiet();
    csr_write(mie, BIT(IRQ_MTI));
    arm(2 * TICKS_PER_MS);
    outcome = run(MODE_M, wait, 0, 0);
    check("masked in M", outcome.cause, CAUSE_ECALL_M);
    check("masked in M: epc", outcome.epc, (uint64_t)wait + 4);
    check("masked in M: pending", csr_read(mip) & BIT(IRQ_MTI), BIT(IRQ_MTI));
    outcome = wait_for_timer(MSTATUS_MPP | MSTATUS_MPIE);
    check_trap("taken in M", outcome, CAUSE_IRQ(IRQ_MTI), 0);
    check("taken in M: epc", outcome.epc, (uint64_t)wait + 4);
    outcome = wait_for_timer(MSTATUS_MPP_S);
    check_trap("in S", outcome, CAUSE_IRQ(IRQ_MTI), 0);
    check("in S: epc", outcome.epc, (uint64_t)wait + 4);
    // Pending before: it does not stall.
    quiet();
    csr_write(mie, BIT(IRQ_SSI));
    csr_write(mideleg, BIT(IRQ_SSI));
    csr_set(mip, BIT(IRQ_SSI));
    check("pending before, in M", run(MODE_M, wait, 0, 0).cause, CAUSE_ECALL_M);
    // Delegated, SIE clear: wakes and goes on.
    check("pending before, in S", run(MODE_S, wait, 0, 0).cause, CAUSE_ECALL_S);
    quiet();
}

STUB(write_stimecmp, "csrw stimecmp, a0");
STUB(read_stimecmp, "csrr a0, stimecmp");

static void test_sstc(void)
{
    struct firmware_outcome outcome;
    uint64_t now;

    group("Sstc");
    quiet();
    csr_write(mcounteren, NEVER);
    csr_write(mideleg, ALL_S);
    csr_write(menvcfg, MENVCFG_STCE);
    // stimecmp drives STIP, which cannot be written then.
    csr_write(stimecmp, NEVER);
    check("in the future", csr_read(mip) & BIT(IRQ_STI), 0);
    csr_set(mip, BIT(IRQ_STI));
    check("STIP cannot be set", csr_read(mip) & BIT(IRQ_STI), 0);
    csr_write(stimecmp, 0);
    check("in the past", csr_read(mip) & BIT(IRQ_STI), BIT(IRQ_STI));
    csr_clear(mip, BIT(IRQ_STI));
    check("STIP cannot be cleared", csr_read(mip) & BIT(IRQ_STI), BIT(IRQ_STI));
    csr_write(mie, BIT(IRQ_STI));
    outcome = stay_in(MODE_S, true);
    check("taken in S", outcome.a[0], CAUSE_IRQ(IRQ_STI));
    check("not in M", stay_in(MODE_M, true).cause, CAUSE_ECALL_M);
    // It comes by itself, and wakes a wfi.
    now = csr_read(time);
    csr_write(stimecmp, now + 2 * TICKS_PER_MS);
    check("not yet", run(MODE_S, wait, 0, 0).cause, CAUSE_ECALL_S);
    check("not early", csr_read(time) - now >= 2 * TICKS_PER_MS, true);
    check("comes", csr_read(mip) & BIT(IRQ_STI), BIT(IRQ_STI));
    csr_write(stimecmp, NEVER);
    check("goes", csr_read(mip) & BIT(IRQ_STI), 0);
    // From S: only with STCE and TM.
    for (unsigned bits = 0; bits < 4; bits++) {
        uint64_t cause = bits == 3 ? CAUSE_NONE : CAUSE_ILLEGAL;

        csr_write(menvcfg, bits & 1 ? MENVCFG_STCE : 0);
        csr_write(mcounteren, bits & 2 ? NEVER : ~(uint64_t)MCOUNTEREN_TM);
        check_cause("csrw stimecmp in S", run(MODE_S, write_stimecmp, NEVER, 0), cause);
        check_cause("csrr stimecmp in S", run(MODE_S, read_stimecmp, 0, 0), cause);
        check_cause("csrr stimecmp in U", run(MODE_U, read_stimecmp, 0, 0), CAUSE_ILLEGAL);
        check_cause("csrr stimecmp in M", run(MODE_M, read_stimecmp, 0, 0), CAUSE_NONE);
    }
    // STCE itself makes a compare of long ago count.
    csr_write(menvcfg, 0);
    csr_write(stimecmp, 0);
    csr_write(mie, BIT(IRQ_STI));
    check_cause("before STCE", stay_in(MODE_S, true), CAUSE_NONE);
    csr_write(menvcfg, MENVCFG_STCE);
    check("after STCE", stay_in(MODE_S, true).a[0], CAUSE_IRQ(IRQ_STI));
    // Without STCE the compare does nothing, and STIP is software's again.
    csr_write(stimecmp, 0);
    csr_write(menvcfg, 0);
    csr_clear(mip, BIT(IRQ_STI));
    check("STCE clear", csr_read(mip) & BIT(IRQ_STI), 0);
    csr_set(mip, BIT(IRQ_STI));
    check("STCE clear, STIP written", csr_read(mip) & BIT(IRQ_STI), BIT(IRQ_STI));
    csr_write(stimecmp, NEVER);
    quiet();
}

// SEIP is what software wrote or the PLIC drives; clearing the one leaves the other.
static void test_plic(void)
{
    struct firmware_outcome outcome;

    group("PLIC");
    quiet();
    csr_write(mideleg, ALL_S);
    csr_write(mie, BIT(IRQ_SEI));
    raise_external(1);
    check("SEIP", csr_read(mip) & BIT(IRQ_SEI), BIT(IRQ_SEI));
    csr_clear(mip, BIT(IRQ_SEI));
    check("SEIP is wired", csr_read(mip) & BIT(IRQ_SEI), BIT(IRQ_SEI));
    outcome = stay_in(MODE_S, true);
    check("taken", outcome.a[0], CAUSE_IRQ(IRQ_SEI));
    // Section 3.1.9: set and clear of other bits do not copy the line into software's bit, and
    // software's bit can be set under the line.
    csr_set(mip, BIT(IRQ_SSI));
    csr_clear(mip, BIT(IRQ_SSI));
    drop_external(1);
    check("the line is not copied", csr_read(mip) & BIT(IRQ_SEI), 0);
    raise_external(1);
    csr_set(mip, BIT(IRQ_SEI));
    drop_external(1);
    check("set under the line", csr_read(mip) & BIT(IRQ_SEI), BIT(IRQ_SEI));
    csr_clear(mip, BIT(IRQ_SEI));
    raise_external(1);
    *PLIC_THRESHOLD(1) = 1;
    check("threshold", csr_read(mip) & BIT(IRQ_SEI), 0);
    *PLIC_THRESHOLD(1) = 0;
    check("claim", *PLIC_CLAIM(1), PLIC_UART);
    check("claimed", csr_read(mip) & BIT(IRQ_SEI), 0);
    check("claim again", *PLIC_CLAIM(1), 0);
    *UART_IER = 0;
    *PLIC_CLAIM(1) = PLIC_UART;
    drop_external(1);
    check("completed", csr_read(mip) & BIT(IRQ_SEI), 0);
    quiet();
}

void test_main(void)
{
    *ACLINT_MTIMECMP(0) = NEVER;
    csr_write(stimecmp, NEVER);
    test_delivery();
    test_priority();
    test_immediate();
    test_asynchronous();
    test_vectored();
    test_views();
    test_wfi();
    test_sstc();
    test_plic();
}
