// SPDX-License-Identifier: BSD-2-Clause
// Several harts (4): atomics under contention, reservations, interrupts between harts, order, code
// written by another hart, fences that must be seen. Unprivileged ISA
// chapters 14 and 17.
#include "barrier.h"

#define ROUNDS 6432u  // an even multiple of 16: amoxor ends at 0

static struct {
    uint64_t amoadd_d, lr_sc_d, locked, maximum, bits;
    uint32_t amoadd_w[2], lr_sc_w[2];
    uint32_t lock;
    uint8_t separate[HARTS];
} shared __attribute__((aligned(64)));

static struct barrier all = {HARTS, 0, 0}, pair = {2, 0, 0};
static volatile uint32_t interrupts[HARTS];
static volatile uint64_t mailbox[2], wrong_order;
static volatile uint32_t code[2] __attribute__((aligned(64)));

static void add_reserved_d(uint64_t *cell, uint64_t value)
{
    uint64_t old;
    uint32_t failed;

    __asm__ volatile("1: lr.d %0, (%2)\nadd %0, %0, %3\nsc.d %1, %0, (%2)\nbnez %1, 1b"
                     : "=&r"(old), "=&r"(failed)
                     : "r"(cell), "r"(value)
                     : "memory");
}

static void add_reserved_w(uint32_t *cell, uint32_t value)
{
    uint32_t old, failed;

    __asm__ volatile("1: lr.w.aq %0, (%2)\nadd %0, %0, %3\nsc.w.rl %1, %0, (%2)\nbnez %1, 1b"
                     : "=&r"(old), "=&r"(failed)
                     : "r"(cell), "r"(value)
                     : "memory");
}

static void lock(void)
{
    uint32_t taken;

    do
        __asm__ volatile("amoswap.w.aq %0, %1, (%2)"
                         : "=&r"(taken)
                         : "r"(1), "r"(&shared.lock)
                         : "memory");
    while (taken);
}

static void unlock(void)
{
    __asm__ volatile("amoswap.w.rl zero, zero, (%0)" ::"r"(&shared.lock) : "memory");
}

// Every kind of counter at once; neighbours in one dword are touched by W forms.
static void contend(unsigned hart)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        __asm__ volatile("amoadd.d zero, %0, (%1)" ::"r"(1), "r"(&shared.amoadd_d) : "memory");
        __asm__ volatile("amoadd.w zero, %0, (%1)" ::"r"(1), "r"(&shared.amoadd_w[hart & 1])
                         : "memory");
        add_reserved_d(&shared.lr_sc_d, 3);
        add_reserved_w(&shared.lr_sc_w[hart & 1], 5);
        __asm__ volatile("amomaxu.d zero, %0, (%1)" ::"r"((uint64_t)i * HARTS + hart),
                         "r"(&shared.maximum)
                         : "memory");
        __asm__ volatile("amoxor.d zero, %0, (%1)" ::"r"(1ull << (i & 15) << 16 * hart),
                         "r"(&shared.bits)
                         : "memory");
        lock();
        shared.locked++;
        unlock();
        // Plain stores of neighbouring bytes do not disturb each other.
        ((volatile uint8_t *)shared.separate)[hart]++;
    }
}

static void check_contention(void)
{
    group("contention");
    check("amoadd.d", shared.amoadd_d, HARTS * ROUNDS);
    check("amoadd.w, even harts", shared.amoadd_w[0], HARTS / 2 * ROUNDS);
    check("amoadd.w, odd harts", shared.amoadd_w[1], HARTS / 2 * ROUNDS);
    check("lr.d, sc.d", shared.lr_sc_d, 3 * HARTS * ROUNDS);
    check("lr.w, sc.w, even harts", shared.lr_sc_w[0], 5 * HARTS / 2 * ROUNDS);
    check("lr.w, sc.w, odd harts", shared.lr_sc_w[1], 5 * HARTS / 2 * ROUNDS);
    check("amoswap lock", shared.locked, HARTS * ROUNDS);
    check("amomaxu.d", shared.maximum, (ROUNDS - 1) * HARTS + HARTS - 1);
    check("amoxor.d", shared.bits, 0);
    for (unsigned hart = 0; hart < HARTS; hart++)
        check("bytes", shared.separate[hart], (uint8_t)ROUNDS);
}

// An SC fails when another hart has changed what was reserved. (That it must also fail when the
// same value was written again cannot be observed by programs that follow the rules for LR/SC
// loops, and is not tested.)
static void break_reservation(unsigned hart)
{
    static uint64_t cell;
    uint64_t old, failed = 0;

    for (unsigned i = 0; i < 100; i++) {
        meet(&pair);
        if (hart == 0)
            __asm__ volatile("lr.d %0, (%1)" : "=r"(old) : "r"(&cell) : "memory");
        meet(&pair);
        if (hart == 1)
            *(volatile uint64_t *)&cell = i + 1;
        meet(&pair);
        if (hart == 0) {
            __asm__ volatile("sc.d %0, %1, (%2)"
                             : "=&r"(failed)
                             : "r"(-1ul), "r"(&cell)
                             : "memory");
            check("sc after another hart's store", failed, 1);
            check("memory", cell, i + 1);
        }
    }
}

// Message passing: the flag is seen after the data.
static void pass_messages(unsigned hart)
{
    for (uint64_t i = 1; i <= ROUNDS; i++)
        if (hart == 0) {
            mailbox[0] = i;
            __asm__ volatile("fence w, w" ::: "memory");
            mailbox[1] = i;
        } else {
            uint64_t flag = mailbox[1], data;

            __asm__ volatile("fence r, r" ::: "memory");
            data = mailbox[0];
            if (data < flag)
                wrong_order++;
        }
}

static void wait_for_interrupt(unsigned hart)
{
    csr_write(mie, BIT(IRQ_MSI));
    while (!(csr_read(mip) & BIT(IRQ_MSI)))
        __asm__ volatile("wfi");
    *ACLINT_MSIP(hart) = 0;
    while (csr_read(mip) & BIT(IRQ_MSI))
        ;
    csr_write(mie, 0);
    interrupts[hart]++;
}

// A ring: each hart wakes the next from its wfi.
static void ring(unsigned hart)
{
    for (unsigned i = 0; i < 100; i++) {
        if (hart != 0)
            wait_for_interrupt(hart);
        *ACLINT_MSIP((hart + 1) % HARTS) = 1;
        if (hart == 0)
            wait_for_interrupt(hart);
    }
}

// An interrupt reaches a hart that runs in U with interrupts off.
static void interrupt_user(unsigned hart)
{
    static const uint32_t endless = 0x0000006f;  // j .
    struct firmware_outcome outcome;

    if (hart == 1) {
        csr_write(mie, BIT(IRQ_MSI));
        outcome = run(MODE_U, (const char *)&endless, 0, 0);
        *ACLINT_MSIP(1) = 0;
        csr_write(mie, 0);
        mailbox[0] = outcome.cause;
        mailbox[1] = outcome.epc == (uint64_t)&endless;
    } else if (hart == 0) {
        for (volatile unsigned i = 0; i < 10000; i++)
            ;
        *ACLINT_MSIP(1) = 1;
    }
}

// Code that another hart wrote runs after a fence.i here.
static void run_new_code(unsigned hart)
{
    for (unsigned i = 0; i < 50; i++) {
        if (hart == 0) {
            code[0] = i << 20 | 0x00000513;  // li a0, i
            code[1] = 0x73;                  // ecall
        }
        meet(&pair);
        if (hart == 1) {
            __asm__ volatile("fence.i" ::: "memory");
            mailbox[0] = run(MODE_M, (const char *)code, 0, 0).a[0];
        }
        meet(&pair);
        if (hart == 0)
            check("code", mailbox[0], i);
    }
}

static void every_hart(unsigned hart)
{
    meet(&all);
    contend(hart);
    meet(&all);
    if (hart == 0)
        check_contention();
    meet(&all);
    if (hart == 0)
        group("reservations");
    if (hart < 2)
        break_reservation(hart);
    meet(&all);
    pass_messages(hart);
    meet(&all);
    if (hart == 0) {
        group("message passing");
        check("out of order", wrong_order, 0);
    }
    meet(&all);
    ring(hart);
    meet(&all);
    if (hart == 0) {
        group("interrupts between harts");
        for (unsigned i = 0; i < HARTS; i++)
            check("interrupts", interrupts[i], 100);
    }
    meet(&all);
    interrupt_user(hart);
    meet(&all);
    if (hart == 0) {
        check("cause in U", mailbox[0], CAUSE_IRQ(IRQ_MSI));
        check("epc in U", mailbox[1], true);
        group("code from another hart");
    }
    meet(&all);
    if (hart < 2)
        run_new_code(hart);
    meet(&all);
}

void hart_main(unsigned hart)
{
    every_hart(hart);
}

void test_main(void)
{
    every_hart(0);
}
