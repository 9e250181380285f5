# SPDX-License-Identifier: BSD-2-Clause
# echo: a bare-metal guest that sends back what its serial line receives. For tests of what is
# around a guest, which need no Linux in it. Hart 0 says "ready"; then
#   q  switches the machine off, r resets it, f reports failure 7;
#   w  writes without end; anything else is echoed.
# The other harts count, for a debugger to look at.

#define UART 0x10000000       // ns16550a
#define UART_LSR 5
#define LSR_DATA_READY 0x01
#define LSR_TRANSMITTER_EMPTY 0x20
#define TEST 0x00100000       // the power device
#define TEST_FAIL 0x3333
#define TEST_POWEROFF 0x5555
#define TEST_RESET 0x7777

.globl _start, getc, putc, handle, count, counted, counter, greeting

_start:
    csrr t0, mhartid
    bnez t0, count
    li s0, UART
    la s1, greeting
greet:
    lbu a0, 0(s1)
    beqz a0, listen
    call putc
    addi s1, s1, 1
    j greet

listen:
    call getc
    call handle
    j listen

# a0: the byte received
getc:
    lbu t0, UART_LSR(s0)
    andi t0, t0, LSR_DATA_READY
    beqz t0, getc
    lbu a0, 0(s0)
    ret

putc:
    lbu t0, UART_LSR(s0)
    andi t0, t0, LSR_TRANSMITTER_EMPTY
    beqz t0, putc
    sb a0, 0(s0)
    ret

handle:
    li t1, TEST
    li t2, TEST_POWEROFF
    li t0, 'q'
    beq a0, t0, end
    li t2, TEST_RESET
    li t0, 'r'
    beq a0, t0, end
    li t2, TEST_FAIL | (7 << 16)
    li t0, 'f'
    beq a0, t0, end
    li t0, 'w'
    bne a0, t0, putc
write:
    call putc
    j write
end:
    sw t2, 0(t1)
    j end

count:
    la s0, counter
    li t0, 1
1:  amoadd.d zero, t0, (s0)
counted:
    j 1b

.balign 8
counter:
    .dword 0
greeting:
    .asciz "ready\r\n"
