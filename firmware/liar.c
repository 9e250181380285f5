// SPDX-License-Identifier: BSD-2-Clause
// liar: a guest in M-mode that makes every call of include/strake/guest.h with rubbish, with
// pointers of old and with what is near them, on all harts, reads wherever such lead, and goes on
// whatever it is told. Hart 0 says "alive" and switches off.
#include "strake/guest.h"

#define UART ((volatile uint8_t *)0x10000000ul)
#define POWER ((volatile uint32_t *)0x00100000ul)
#define POWER_OFF 0x5555u
#define RAM 0x80000000ul
#define ROUNDS 4000u
#define KEPT 32u

__asm__(".section .text.start, \"ax\"\n"
        ".globl _start\n"
        "_start:\n"
        "csrr a0, mhartid\n"
        "slli t0, a0, 12\n"
        "la sp, stack_end\n"
        "sub sp, sp, t0\n"
        "la t0, skip\n"
        "csrw mtvec, t0\n"
        "call start\n"
        ".balign 4\n"
        "skip: csrr t0, mepc\n"
        "addi t0, t0, 4\n"
        "csrw mepc, t0\n"
        "mret\n"
        ".bss\n"
        ".balign 16\n"
        ".skip 16 * 4096\n"
        "stack_end:\n"
        ".text\n");

void start(unsigned long hart);

static unsigned long kept[KEPT], state = 88172645463325252;

static unsigned long any(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static unsigned long below(unsigned long limit)
{
    return (any() >> 20) % limit;
}

// A number that has a chance to mean something.
static unsigned long rubbish(void)
{
    switch (below(6)) {
    case 0:
        return any();
    case 1:
        return any() >> below(64);
    case 2:
        return RAM + (1ul << 20) + below(1ul << 20);
    case 3:
        return kept[below(KEPT)] + below(64) - 32;
    case 4:
        return kept[below(KEPT)] ^ 1ul << below(64);
    default:
        return kept[below(KEPT)];
    }
}

void start(unsigned long hart)
{
    unsigned long value;

    for (unsigned i = 0; i < ROUNDS; i++) {
        unsigned long function = below(16) ? below(5) : rubbish();
        unsigned long second = below(2) ? 1ul << below(17) : rubbish();

        if (strake_guest_ecall(STRAKE_GUEST_EXTENSION, function,
                               function == STRAKE_GUEST_ALLOCATE && below(4) ? below(100000)
                                                                             : rubbish(),
                               second, &value) == 0 &&
            value)
            kept[below(KEPT)] = value;
        __asm__ volatile("lb t0, 0(%0)" ::"r"(rubbish()) : "t0", "memory");
    }
    // Nothing is at this address; there would be if the identifier were no part of it.
    __asm__ volatile("sb %0, 0(%1)" ::"r"('X'), "r"((uintptr_t)UART | 0x1234ul << 48) : "t0");
    for (const char *text = hart == 0 ? "alive\n" : ""; *text; text++)
        *UART = (uint8_t)*text;
    if (hart == 0)
        *POWER = POWER_OFF;
    for (;;)
        __asm__ volatile("wfi");
}
