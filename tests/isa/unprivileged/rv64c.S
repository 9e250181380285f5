// SPDX-License-Identifier: BSD-2-Clause
// Compressed instructions: each with the extremes of its immediate and of its register field.
#include "cases.h"

// Register-immediate on rd, of the 32 registers: x31 and x1 are the ends.
.macro ci op, imm, value, wanted
    li t6, \value
    insn \op t6, \imm
    mv a0, t6
    want \wanted
    li ra, \value
    insn \op ra, \imm
    mv a0, ra
    want \wanted
.endm
// Of x8 to x15.
.macro cb op, imm, value, wanted
    li s0, \value
    insn \op s0, \imm
    mv a0, s0
    want \wanted
    li a5, \value
    insn \op a5, \imm
    mv a0, a5
    want \wanted
.endm
// Register-register of x8 to x15, also with both the same.
.macro ca op, first, second, wanted, doubled
    li s0, \first
    li a5, \second
    insn \op s0, a5
    mv a0, s0
    want \wanted
    li a5, \first
    li s0, \second
    insn \op a5, s0
    mv a0, a5
    want \wanted
    li s1, \first
    insn \op s1, s1
    mv a0, s1
    want \doubled
.endm
// Loads and stores at `base` + imm; `move` takes what was loaded to a0, or a dword in a2 to the
// register to store.
.macro cload op, reg, base, imm, wanted, move:vararg
    la a1, pattern - \imm
    mv s4, sp
    mv \base, a1
    insn \op \reg, \imm(\base)
    mv sp, s4
    \move
    want \wanted
.endm
.macro cstore op, reg, base, imm, wanted, move:vararg
    la a1, target
    sd zero, 0(a1)
    la a1, target - \imm
    li a2, 0x8877665544332211
    mv s4, sp
    \move
    mv \base, a1
    insn \op \reg, \imm(\base)
    mv sp, s4
    la a1, target
    ld a0, 0(a1)
    want \wanted
.endm

// Taken (a0 becomes 7) or not (5), with the extremes of the offset.
.macro cbranch op, value, result
    li a0, 5
    li s0, \value
    insn \op s0, .Lto\@
    j .Lend\@
.Lto\@:
    li a0, 7
.Lend\@:
    want \result
.endm
.macro cbranch_reach op, value
    li a0, 0
    li a5, \value
    j .Ltry\@
    .balign 4
.Lback\@:
    addi a0, a0, 1
    .option norvc
    want 1
    j .Lforward\@
    .option rvc
    .skip 256 - 2 - 16 - 8
.Ltry\@:
    insn \op a5, .Lback\@
.Lforward\@:
    insn \op a5, .Lfar\@
    li a0, 0
    .skip 254 - 4
.Lfar\@:
    addi a0, a0, 1
    want 2
.endm

#define ONES 0xffffffffffffffff
#define PATTERN 0xf1e2d3c4b5a69788

    .option rvc
    program
    mv s5, sp

    about c.nop
    li a0, 77
    insn c.nop
    want 77
    insn c.nop 31       // a hint
    want 77
    about c.addi
    ci c.addi, 31, 1, 32
    ci c.addi, -32, 1, -31
    ci c.addi, 1, 0x7fffffffffffffff, 0x8000000000000000
    insn .2byte 0x0501  // c.addi a0, 0: a hint
    want 0x8000000000000000
    about c.addiw
    ci c.addiw, 31, 0x7fffffff, -0x7fffffe2
    ci c.addiw, -32, -0x80000000, 0x7fffffe0
    ci c.addiw, 0, 0x1234567880000000, -0x80000000
    about c.li
    ci c.li, 31, 0, 31
    ci c.li, -32, 0, -32
    insn c.li zero, 5
    mv a0, zero
    want 0
    about c.lui
    ci c.lui, 1, 0, 0x1000
    ci c.lui, 31, 0, 0x1f000
    ci c.lui, 0xfffe0, 0, -0x20000
    ci c.lui, 0xfffff, 0, -0x1000
    about c.addi16sp
    .macro addi16sp imm
    insn c.addi16sp sp, \imm
    sub a0, sp, s5
    mv sp, s5
    want \imm
    .endm
    addi16sp 16
    addi16sp 32
    addi16sp 64
    addi16sp 128
    addi16sp 256
    addi16sp 496
    addi16sp -16
    addi16sp -512
    about c.addi4spn
    .macro addi4spn reg, imm
    insn c.addi4spn \reg, sp, \imm
    sub a0, \reg, sp
    want \imm
    .endm
    addi4spn s0, 4
    addi4spn s0, 8
    addi4spn a5, 16
    addi4spn a5, 64
    addi4spn a5, 512
    addi4spn a5, 1020
    about c.slli
    ci c.slli, 1, ONES, -2
    ci c.slli, 31, 3, 0x180000000
    ci c.slli, 32, 3, 0x300000000
    ci c.slli, 63, 3, 0x8000000000000000
    insn .2byte 0x0502  // c.slli a0, 0: a hint
    want 0x8000000000000000
    about c.srli
    cb c.srli, 1, ONES, 0x7fffffffffffffff
    cb c.srli, 32, ONES, 0xffffffff
    cb c.srli, 63, ONES, 1
    about c.srai
    cb c.srai, 1, 0x8000000000000000, 0xc000000000000000
    cb c.srai, 32, 0x8000000000000000, -0x80000000
    cb c.srai, 63, 0x8000000000000000, -1
    cb c.srai, 63, 0x7fffffffffffffff, 0
    about c.andi
    cb c.andi, 31, PATTERN, 8
    cb c.andi, -32, PATTERN, 0xf1e2d3c4b5a69780
    cb c.andi, 0, PATTERN, 0
    cb c.andi, -1, PATTERN, PATTERN

    about c.sub
    ca c.sub, 5, 7, -2, 0
    ca c.sub, 0x8000000000000000, 1, 0x7fffffffffffffff, 0
    about c.xor
    ca c.xor, 0xff00ff00ff00ff00, 0x0ff00ff00ff00ff0, 0xf0f0f0f0f0f0f0f0, 0
    about c.or
    ca c.or, 0xff00ff00ff00ff00, 0x0ff00ff00ff00ff0, 0xfff0fff0fff0fff0, 0xff00ff00ff00ff00
    about c.and
    ca c.and, 0xff00ff00ff00ff00, 0x8ff00ff00ff00ff0, 0x8f000f000f000f00, 0xff00ff00ff00ff00
    about c.subw
    ca c.subw, 0x80000000, 1, 0x7fffffff, 0
    ca c.subw, 0x100000000, 1, -1, 0
    about c.addw
    ca c.addw, 0x7fffffff, 1, -0x80000000, -2
    ca c.addw, 0x1ffffffff, 1, 0, -2

    about c.mv
    li t6, PATTERN
    insn c.mv a0, t6
    want PATTERN
    li a1, 12
    insn c.mv t6, a1
    mv a0, t6
    want 12
    insn c.mv zero, a1
    mv a0, zero
    want 0
    about c.add
    li a0, 0x7fffffffffffffff
    li t6, 1
    insn c.add a0, t6
    want 0x8000000000000000
    insn c.add a0, a0
    want 0
    li a1, 12
    insn c.add t6, a1
    mv a0, t6
    want 13
    insn c.add zero, a1
    mv a0, zero
    want 0

    about loads
    cload c.lw, s0, a5, 0, -0x4a596878, mv a0, s0
    cload c.lw, a5, s0, 124, -0x4a596878, mv a0, a5
    cload c.lw, a5, a5, 64, -0x4a596878, mv a0, a5
    cload c.lw, a0, a0, 4, -0x4a596878
    cload c.ld, s0, a5, 0, PATTERN, mv a0, s0
    cload c.ld, a5, s0, 248, PATTERN, mv a0, a5
    cload c.ld, a5, a5, 64, PATTERN, mv a0, a5
    cload c.ld, a0, a0, 8, PATTERN
    cload c.fld, fs0, a5, 0, PATTERN, fmv.x.d a0, fs0
    cload c.fld, fa5, s0, 248, PATTERN, fmv.x.d a0, fa5
    cload c.fld, fa5, s0, 64, PATTERN, fmv.x.d a0, fa5
    about loads from the stack
    cload c.lwsp, t6, sp, 0, -0x4a596878, mv a0, t6
    cload c.lwsp, t6, sp, 252, -0x4a596878, mv a0, t6
    cload c.lwsp, a0, sp, 64, -0x4a596878
    cload c.lwsp, a0, sp, 32, -0x4a596878
    cload c.ldsp, t6, sp, 0, PATTERN, mv a0, t6
    cload c.ldsp, t6, sp, 504, PATTERN, mv a0, t6
    cload c.ldsp, a0, sp, 256, PATTERN
    cload c.ldsp, a0, sp, 32, PATTERN
    cload c.fldsp, ft11, sp, 0, PATTERN, fmv.x.d a0, ft11
    cload c.fldsp, ft0, sp, 504, PATTERN, fmv.x.d a0, ft0
    cload c.fldsp, ft0, sp, 64, PATTERN, fmv.x.d a0, ft0
    // Loads into the stack pointer itself.
    la a1, pattern
    mv sp, a1
    insn c.ldsp sp, 0(sp)
    mv a0, sp
    mv sp, s5
    want PATTERN
    about stores
    cstore c.sw, s0, a5, 0, 0x44332211, mv s0, a2
    cstore c.sw, a5, s0, 124, 0x44332211, mv a5, a2
    cstore c.sw, a5, s0, 4, 0x44332211, mv a5, a2
    cstore c.sd, s0, a5, 0, 0x8877665544332211, mv s0, a2
    cstore c.sd, a5, s0, 248, 0x8877665544332211, mv a5, a2
    cstore c.sd, a5, s0, 64, 0x8877665544332211, mv a5, a2
    cstore c.fsd, fs0, a5, 0, 0x8877665544332211, fmv.d.x fs0, a2
    cstore c.fsd, fa5, s0, 248, 0x8877665544332211, fmv.d.x fa5, a2
    cstore c.fsd, fa5, s0, 64, 0x8877665544332211, fmv.d.x fa5, a2
    about stores to the stack
    cstore c.swsp, t6, sp, 0, 0x44332211, mv t6, a2
    cstore c.swsp, t6, sp, 252, 0x44332211, mv t6, a2
    cstore c.swsp, a2, sp, 64, 0x44332211
    cstore c.swsp, zero, sp, 64, 0
    cstore c.sdsp, t6, sp, 0, 0x8877665544332211, mv t6, a2
    cstore c.sdsp, t6, sp, 504, 0x8877665544332211, mv t6, a2
    cstore c.sdsp, a2, sp, 64, 0x8877665544332211
    cstore c.sdsp, zero, sp, 256, 0
    cstore c.fsdsp, ft11, sp, 0, 0x8877665544332211, fmv.d.x ft11, a2
    cstore c.fsdsp, ft0, sp, 504, 0x8877665544332211, fmv.d.x ft0, a2
    cstore c.fsdsp, ft0, sp, 256, 0x8877665544332211, fmv.d.x ft0, a2

    about c.beqz
    cbranch c.beqz, 0, 7
    cbranch c.beqz, 1, 5
    cbranch c.beqz, 0x100000000, 5
    cbranch_reach c.beqz, 0
    about c.bnez
    cbranch c.bnez, 0, 5
    cbranch c.bnez, -1, 7
    cbranch c.bnez, 0x100000000, 7
    cbranch_reach c.bnez, 0x8000000000000000
    about c.j
    li a0, 0
    j 1f
    .balign 4
2:  addi a0, a0, 1
    .option norvc
    want 1
    j 3f
    .option rvc
    .skip 2048 - 2 - 16 - 8
1:  insn c.j 2b
3:  insn c.j 1f
    li a0, 0
    .skip 2046 - 4
1:  addi a0, a0, 1
    want 2
    about c.jr
    la t6, 1f
    li a0, 3
    insn c.jr t6
    li a0, 0
1:  want 3
    la a1, 1f + 1       // bit 0 is dropped
    insn c.jr a1
    li a0, 0
1:  want 3
    about c.jalr
    la t6, 1f
    insn c.jalr t6
2:  li ra, 0
1:  mv a0, ra
    la a1, 2b
    wants a1
    la ra, 1f
    insn c.jalr ra
2:  li ra, 0
1:  mv a0, ra
    la a1, 2b
    wants a1
    // auipc's pc and jal's link at an address that is 2 more than a multiple of 4.
    .balign 4
    c.nop
    jal a0, 1f
2:  li a0, 0
1:  la a1, 2b
    wants a1

    mv sp, s5
    end_program

    .data
    .balign 8
    .skip 512
pattern:
    .dword PATTERN
    .skip 512
target:
    .dword 0
