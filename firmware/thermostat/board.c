// SPDX-License-Identifier: BSD-2-Clause
// Registers: UART ns16550a, timer of the ACLINT, power by SiFive's test device.
#include "board.h"

#define UART ((volatile uint8_t *)0x10000000ul)
#define UART_LSR 5
#define UART_LSR_THRE 0x20
#define MTIMECMP ((volatile uint64_t *)0x02004000ul)
#define MTIME ((volatile uint64_t *)0x0200bff8ul)
#define MTIME_PER_US 10u
#define MIE_MTIE (1u << 7)
#define MCAUSE_TIMER (1ull << 63 | 7)
#define POWER ((volatile uint32_t *)0x00100000ul)
#define POWER_OFF 0x5555u
#define POWER_FAILED 0x13333u

static uint32_t tick_period;

void board_print(const char *text)
{
    for (; *text; text++) {
        while (!(UART[UART_LSR] & UART_LSR_THRE))
            ;
        *UART = (uint8_t)*text;
    }
}

static _Noreturn void power(uint32_t how)
{
    *POWER = how;
    for (;;)
        board_sleep();
}

_Noreturn void board_off(void)
{
    power(POWER_OFF);
}

void board_start_ticks(uint32_t period_us)
{
    tick_period = period_us * MTIME_PER_US;
    *MTIMECMP = *MTIME + tick_period;
    __asm__ volatile("csrw mie, %0\ncsrsi mstatus, %1" ::"r"(MIE_MTIE), "i"(MSTATUS_MIE)
                     : "memory");
}

__attribute__((interrupt("machine"), aligned(4))) void board_interrupt(void)
{
    uint64_t cause;

    __asm__ volatile("csrr %0, mcause" : "=r"(cause));
    if (cause != MCAUSE_TIMER) {
        board_print("thermostat: unexpected trap\n");
        power(POWER_FAILED);
    }
    *MTIMECMP = *MTIME + tick_period;
    board_tick();
}
