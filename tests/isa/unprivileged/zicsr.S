// SPDX-License-Identifier: BSD-2-Clause
// The six CSR instructions, on mscratch, whose every bit can be written; and fence.i, pause.
#include "cases.h"

// Old value in a0, then what the CSR holds.
.macro csr_case old, operand, new, text:vararg
    li a1, \old
    csrw mscratch, a1
    li a2, \operand
    li a0, 99
    insn \text
    want \old
    csrr a0, mscratch
    want \new
.endm
// The same without a destination.
.macro csr_write_case old, operand, new, text:vararg
    li a1, \old
    csrw mscratch, a1
    li a2, \operand
    insn \text
    csrr a0, mscratch
    want \new
.endm

#define PATTERN 0xa5a5a5a55a5a5a5a

    program
    about csrrw
    csr_case 0, -1, -1, csrrw a0, mscratch, a2
    csr_case PATTERN, 0x123456789abcdef0, 0x123456789abcdef0, csrrw a0, mscratch, a2
    csr_case PATTERN, 0, 0, csrrw a0, mscratch, zero
    csr_write_case PATTERN, 7, 7, csrrw zero, mscratch, a2
    // One register as source and destination.
    li a1, 5
    csrw mscratch, a1
    li a0, 6
    insn csrrw a0, mscratch, a0
    want 5
    csrr a0, mscratch
    want 6
    about csrrs
    csr_case PATTERN, 0xff, 0xa5a5a5a55a5a5aff, csrrs a0, mscratch, a2
    csr_case PATTERN, -1, -1, csrrs a0, mscratch, a2
    csr_case PATTERN, 0, PATTERN, csrrs a0, mscratch, a2
    csr_case PATTERN, 0, PATTERN, csrrs a0, mscratch, zero
    csr_write_case 1, 2, 3, csrrs zero, mscratch, a2
    li a0, 8
    insn csrrs a0, mscratch, a0
    want 3
    csrr a0, mscratch
    want 11
    about csrrc
    csr_case PATTERN, 0xff, 0xa5a5a5a55a5a5a00, csrrc a0, mscratch, a2
    csr_case PATTERN, -1, 0, csrrc a0, mscratch, a2
    csr_case PATTERN, 0, PATTERN, csrrc a0, mscratch, zero
    csr_write_case 3, 2, 1, csrrc zero, mscratch, a2
    about csrrwi
    csr_case PATTERN, 0, 31, csrrwi a0, mscratch, 31
    csr_case PATTERN, 0, 0, csrrwi a0, mscratch, 0
    csr_write_case PATTERN, 0, 16, csrrwi zero, mscratch, 16
    about csrrsi
    csr_case PATTERN, 0, 0xa5a5a5a55a5a5a5f, csrrsi a0, mscratch, 31
    csr_case PATTERN, 0, PATTERN, csrrsi a0, mscratch, 0
    csr_write_case 0, 0, 1, csrrsi zero, mscratch, 1
    about csrrci
    csr_case PATTERN, 0, 0xa5a5a5a55a5a5a40, csrrci a0, mscratch, 31
    csr_case PATTERN, 0, PATTERN, csrrci a0, mscratch, 0
    csr_write_case -1, 0, -2, csrrci zero, mscratch, 1
    csrw mscratch, zero

    about read-only CSRs read without a write
    csrr a1, mhartid
    insn csrrs a0, mhartid, zero
    want 0
    insn csrrsi a0, mhartid, 0
    want 0
    insn csrrci a0, mhartid, 0
    want 0
    insn csrrc a0, mhartid, zero
    want 0

    about time, cycle
    // Neither goes back, and time goes on.
    csrr a1, cycle
    insn csrr a2, cycle
    sltu a0, a2, a1
    want 0
    csrr a1, time
    li a3, 1000000000
1:  insn csrr a2, time
    addi a3, a3, -1
    beqz a3, 2f
    beq a2, a1, 1b
2:  sltu a0, a1, a2
    want 1

    about pause
    li a0, 4
    insn pause
    want 4

    about fence.i
    // Code is changed behind the hart's back: an addi's immediate, twice the same block.
    la a1, patched
    li a3, 3
1:  lw a2, 0(a1)
    li a4, 1 << 20
    add a2, a2, a4
    sw a2, 0(a1)
    insn fence.i
    call patched
    addi a3, a3, -1
    bnez a3, 1b
    want 13
    // Reserved fields are ignored.
    insn .4byte 0xfff5958f
    call patched
    want 13
    // The very next instruction is changed.
    la a1, 1f
    la a4, to_copy
    lw a2, 0(a4)
    sw a2, 0(a1)
    insn fence.i
    .option norvc
1:  addi a0, zero, 1
    want 2
    // Two halves of one instruction on two pages.
    la a1, straddling
    lhu a2, 2(a1)
    addi a2, a2, 16
    sh a2, 2(a1)
    insn fence.i
    call straddling
    want 6
    end_program

    // Never reached: the encoding that is copied.
to_copy:
    addi a0, zero, 2

    // In a section of their own, which can be written.
    .section .patched, "awx"
patched:
    addi a0, zero, 10
    ret
    .balign 4096
    .skip 4094
    .option rvc
straddling:
    .option norvc
    addi a0, zero, 5
    ret
