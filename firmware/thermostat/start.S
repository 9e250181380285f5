// SPDX-License-Identifier: BSD-2-Clause
// Where the hart begins: a stack, memory that is zero, interrupts that lead to board_interrupt.
    .section .text.start, "ax"
    .globl _start
_start:
    csrr t0, mhartid
    bnez t0, halt          // one hart is enough for a thermostat
    la sp, stack_end
    la t0, bss_start
    la t1, bss_end
1:  bgeu t0, t1, 2f
    sd zero, 0(t0)
    addi t0, t0, 8
    j 1b
2:  la t0, board_interrupt
    csrw mtvec, t0
    call main
    tail board_off
halt:
    wfi
    j halt
