// SPDX-License-Identifier: BSD-2-Clause
// Branches, jumps, upper immediates and fences of RV64I.
#include "cases.h"

// Both directions: a0 counts what was executed. 1 when not taken, 2 when taken.
.macro branch op, first, second, taken
    li a1, \first
    li a2, \second
    li a0, 0
    insn \op a1, a2, .Lforward\@
    addi a0, a0, -1
.Lforward\@:
    addi a0, a0, 2
    want 1 + \taken
    li a0, 0
    j .Ltry\@
.Lback\@:
    addi a0, a0, 1
    j .Ldone\@
.Ltry\@:
    addi a0, a0, 1
    insn \op a1, a2, .Lback\@
.Ldone\@:
    want 1 + \taken
.endm

// The extremes of the offset: first -4096, then +4094. The 8 bytes are what `insn` puts before it.
.macro branch_reach op, first, second
    li a1, \first
    li a2, \second
    li a0, 0
    j .Ltry\@
    .balign 4
.Lback\@:
    addi a0, a0, 1
    want 1
    j .Lforward\@
    .skip 4096 - 20 - 8
.Ltry\@:
    insn \op a1, a2, .Lback\@
.Lforward\@:
    insn \op a1, a2, .Lfar\@
    li a0, 0
    .skip 4094 - 8
.Lfar\@:
    addi a0, a0, 1
    want 2
.endm

.macro branches op, equal, less, greater, below, above
    about \op
    branch \op, 5, 5, \equal
    branch \op, -1, -1, \equal
    branch \op, 0, 0, \equal
    branch \op, 4, 5, \less
    branch \op, 5, 4, \greater
    branch \op, -1, 1, \below
    branch \op, 1, -1, \above
    branch \op, 0x8000000000000000, 0x7fffffffffffffff, \below
    branch \op, 0x7fffffffffffffff, 0x8000000000000000, \above
    branch \op, 0x100000000, 0, \greater
    branch \op, 0, 0x100000000, \less
    branch \op, 0x80000000, 0xffffffff80000000, \above
.endm

    .option norvc
    program

    // below and above: pairs whose signs differ; signed below is unsigned above.
    branches beq, 1, 0, 0, 0, 0
    branches bne, 0, 1, 1, 1, 1
    branches blt, 0, 1, 0, 1, 0
    branches bge, 1, 0, 1, 0, 1
    branches bltu, 0, 1, 0, 0, 1
    branches bgeu, 1, 0, 1, 1, 0
    about reach of branches
    branch_reach beq, 1, 1
    branch_reach bne, 1, 2
    branch_reach blt, -1, 2
    branch_reach bge, 2, -1
    branch_reach bltu, 1, -1
    branch_reach bgeu, -1, 1

    about lui
    insn lui a0, 0
    want 0
    insn lui a0, 1
    want 0x1000
    insn lui a0, 0x7ffff
    want 0x7ffff000
    insn lui a0, 0x80000
    want -0x80000000
    insn lui a0, 0xfffff
    want -0x1000
    insn lui zero, 0xfffff
    mv a0, zero
    want 0

    about auipc
    .macro pc_relative imm, distance
    insn auipc a0, \imm
.Lnext\@:
    la a1, .Lnext\@ - 4
    sub a0, a0, a1
    want \distance
    .endm
    pc_relative 0, 0
    pc_relative 1, 0x1000
    pc_relative 0x7ffff, 0x7ffff000
    pc_relative 0x80000, -0x80000000
    pc_relative 0xfffff, -0x1000

    about jal
    insn jal a0, 1f
2:  j 3f
1:  la a1, 2b
    wants a1
    li a0, 7
    insn jal zero, 1f
3:  li a0, 0
1:  want 7

    about jalr
    la a1, 1f
    insn jalr a0, 0(a1)
2:  li a0, 0
1:  la a1, 2b
    wants a1
    // Bit 0 of the target is dropped, after the offset is added.
    la a1, 1f + 2048
    insn jalr a0, -2047(a1)
2:  li a0, 0
1:  la a1, 2b
    wants a1
    la a1, 1f - 2047
    insn jalr a0, 2047(a1)
2:  li a0, 0
1:  la a1, 2b
    wants a1
    la a1, 1f - 2
    insn jalr a0, 3(a1)
2:  li a0, 0
1:  la a1, 2b
    wants a1
    // The base is read before the link is written.
    la a0, 1f
    insn jalr a0, 0(a0)
2:  li a0, 0
1:  la a1, 2b
    wants a1
    li a0, 9
    la a1, 1f
    insn jalr zero, 0(a1)
    li a0, 0
1:  want 9

    about fence
    .macro harmless text:vararg
    li a0, 0x1234
    insn \text
    want 0x1234
    .endm
    harmless fence
    harmless fence rw, rw
    harmless fence r, w
    harmless fence iorw, iorw
    harmless fence.tso
    // Reserved fm, and rd and rs1 not zero, are to be taken as ordinary fences (section 2.7).
    harmless .4byte 0x40f0000f
    harmless .4byte 0x0ff5850f
    // Hints.
    harmless lui zero, 5
    harmless addi zero, zero, 5
    harmless slti zero, a0, 0
    harmless srai zero, a0, 63
    harmless add zero, a0, a0
    // zero stays zero.
    addi zero, zero, 5
    mv a0, zero
    want 0

    end_program
