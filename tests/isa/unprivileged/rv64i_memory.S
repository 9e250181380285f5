// SPDX-License-Identifier: BSD-2-Clause
// Loads and stores of RV64I: sign extension, offsets, every misalignment, page crossing.
#include "cases.h"

// One load at byte 0..15 of `pattern` copied to the end of a page, so that most cross it.
.macro load op, offset, value
    la a1, edge
    insn \op a0, \offset(a1)
    want \value
.endm

// Stores `value`, then wants the 16 bytes around it.
.macro store op, offset, value, first, second
    la a1, edge
    li a2, 0x1111111111111111
    sd a2, 0(a1)
    sd a2, 8(a1)
    li a2, \value
    insn \op a2, \offset(a1)
    ld a0, 0(a1)
    want \first
    ld a0, 8(a1)
    want \second
.endm

// The extremes of the offset, and the destination that is also the base.
.macro offsets op, value
    la a1, bytes + 2048
    insn \op a0, -2048(a1)
    want \value
    la a1, bytes - 2047
    insn \op a0, 2047(a1)
    want \value
    la a0, bytes
    insn \op a0, 0(a0)
    want \value
    la a0, bytes
    \op zero, 0(a0)
    mv a0, zero
    want 0
.endm
.macro store_offsets op, value
    la a1, bytes + 8 + 2048
    li a2, -1
    sd zero, -2048(a1)
    insn \op a2, -2048(a1)
    ld a0, -2048(a1)
    want \value
    la a1, bytes + 8 - 2047
    la a3, bytes + 8
    sd zero, 0(a3)
    insn \op a2, 2047(a1)
    ld a0, 0(a3)
    want \value
    insn \op zero, 2047(a1)
    ld a0, 0(a3)
    want 0
.endm

    program
    // edge lies 8 bytes before a page boundary.
    la a1, edge
    li a2, 0x8f7f6f5f4f3f2f1f
    sd a2, 0(a1)
    li a2, 0xff0180fe7f02fd03
    sd a2, 8(a1)

    about lb
    load lb, 0, 0x1f
    load lb, 6, 0x7f
    load lb, 7, -0x71
    load lb, 9, -3
    load lb, 15, -1
    offsets lb, -16
    about lbu
    load lbu, 0, 0x1f
    load lbu, 7, 0x8f
    load lbu, 15, 0xff
    offsets lbu, 0xf0
    about lh
    load lh, 0, 0x2f1f
    load lh, 1, 0x3f2f
    load lh, 6, -0x7081
    load lh, 7, 0x038f
    load lh, 12, -0x7f02
    load lh, 14, -255
    offsets lh, -0x0e10
    about lhu
    load lhu, 0, 0x2f1f
    load lhu, 6, 0x8f7f
    load lhu, 7, 0x038f
    load lhu, 13, 0x0180
    load lhu, 14, 0xff01
    offsets lhu, 0xf1f0
    about lw
    load lw, 0, 0x4f3f2f1f
    load lw, 1, 0x5f4f3f2f
    load lw, 4, -0x708090a1
    load lw, 5, 0x038f7f6f
    load lw, 6, -0x02fc7081
    load lw, 7, 0x02fd038f
    load lw, 12, -0x00fe7f02
    offsets lw, -0x0c0d0e10
    about lwu
    load lwu, 0, 0x4f3f2f1f
    load lwu, 4, 0x8f7f6f5f
    load lwu, 5, 0x038f7f6f
    load lwu, 6, 0xfd038f7f
    load lwu, 7, 0x02fd038f
    load lwu, 12, 0xff0180fe
    offsets lwu, 0xf3f2f1f0
    about ld
    load ld, 0, 0x8f7f6f5f4f3f2f1f
    load ld, 1, 0x038f7f6f5f4f3f2f
    load ld, 2, 0xfd038f7f6f5f4f3f
    load ld, 3, 0x02fd038f7f6f5f4f
    load ld, 4, 0x7f02fd038f7f6f5f
    load ld, 5, 0xfe7f02fd038f7f6f
    load ld, 6, 0x80fe7f02fd038f7f
    load ld, 7, 0x0180fe7f02fd038f
    load ld, 8, 0xff0180fe7f02fd03
    offsets ld, 0xf7f6f5f4f3f2f1f0

    about sb
    store sb, 0, 0x1234567890abcdef, 0x11111111111111ef, 0x1111111111111111
    store sb, 7, 0x1234567890abcdef, 0xef11111111111111, 0x1111111111111111
    store sb, 8, 0x1234567890abcdef, 0x1111111111111111, 0x11111111111111ef
    store_offsets sb, 0xff
    about sh
    store sh, 0, 0x1234567890abcdef, 0x111111111111cdef, 0x1111111111111111
    store sh, 5, 0x1234567890abcdef, 0x11cdef1111111111, 0x1111111111111111
    store sh, 7, 0x1234567890abcdef, 0xef11111111111111, 0x11111111111111cd
    store_offsets sh, 0xffff
    about sw
    store sw, 0, 0x1234567890abcdef, 0x1111111190abcdef, 0x1111111111111111
    store sw, 3, 0x1234567890abcdef, 0x1190abcdef111111, 0x1111111111111111
    store sw, 5, 0x1234567890abcdef, 0xabcdef1111111111, 0x1111111111111190
    store sw, 6, 0x1234567890abcdef, 0xcdef111111111111, 0x11111111111190ab
    store sw, 7, 0x1234567890abcdef, 0xef11111111111111, 0x111111111190abcd
    store_offsets sw, 0xffffffff
    about sd
    store sd, 0, 0x1234567890abcdef, 0x1234567890abcdef, 0x1111111111111111
    store sd, 1, 0x1234567890abcdef, 0x34567890abcdef11, 0x1111111111111112
    store sd, 2, 0x1234567890abcdef, 0x567890abcdef1111, 0x1111111111111234
    store sd, 3, 0x1234567890abcdef, 0x7890abcdef111111, 0x1111111111123456
    store sd, 4, 0x1234567890abcdef, 0x90abcdef11111111, 0x1111111112345678
    store sd, 5, 0x1234567890abcdef, 0xabcdef1111111111, 0x1111111234567890
    store sd, 6, 0x1234567890abcdef, 0xcdef111111111111, 0x11111234567890ab
    store sd, 7, 0x1234567890abcdef, 0xef11111111111111, 0x111234567890abcd
    store_offsets sd, -1

    end_program

    .data
    .balign 4096
    .skip 2048
bytes:
    .dword 0xf7f6f5f4f3f2f1f0, 0
    .balign 4096
    .skip 4088
edge:
    .skip 16
    .balign 4096
