// SPDX-License-Identifier: BSD-2-Clause
// board: what the thermostat needs of the board that is known as `qemu -M virt`.
#ifndef BOARD_H
#define BOARD_H

#include <stdint.h>

void board_print(const char *text);
// Calls board_tick every so often, by interrupt.
void board_start_ticks(uint32_t period_us);
_Noreturn void board_off(void);

// Given by the program: what is done at a tick. No tick comes while it runs.
void board_tick(void);

#define MSTATUS_MIE 8u

// Keeps interrupts away; to be given what is returned afterwards.
static inline uint64_t board_interrupts_off(void)
{
    uint64_t before;

    __asm__ volatile("csrrci %0, mstatus, %1" : "=r"(before) : "i"(MSTATUS_MIE) : "memory");
    return before & MSTATUS_MIE;
}

static inline void board_interrupts_restore(uint64_t before)
{
    __asm__ volatile("csrs mstatus, %0" ::"r"(before) : "memory");
}

// Sleeps until there is an interrupt, also one that is kept away.
static inline void board_sleep(void)
{
    __asm__ volatile("wfi" ::: "memory");
}

#endif
