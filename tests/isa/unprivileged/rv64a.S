// SPDX-License-Identifier: BSD-2-Clause
// LR/SC and AMOs in one hart: results, W forms, aq and rl, when SC must fail. Misalignment is in
// traps.c, contention between harts in ../privileged/harts.c.
#include "cases.h"

// One AMO in all four orderings: the old value, then the new one in memory. The word forms run on
// both words of a dword whose other half must stay; rd may be a source, or x0.
.macro amo_w_once insn:vararg
    sd a4, 0(a1)
    mv a0, a2
    insn \insn
    sext.w a5, a4
    wants a5
    ld a0, 0(a1)
    wants a3
.endm
.macro amo_w op, old, operand, new
    li a4, 0x5aa5f00f00000000 | \old
    li a2, 0x1234567800000000 | \operand
    li a3, 0x5aa5f00f00000000 | \new
    la a1, cell
    amo_w_once \op a0, a2, (a1)
    amo_w_once \op\().aq a0, a0, (a1)
    amo_w_once \op\().rl a0, a2, (a1)
    amo_w_once \op\().aqrl a0, a2, (a1)
    li a4, 0x5aa5f00f | \old << 32
    li a3, 0x5aa5f00f | \new << 32
    sd a4, 0(a1)
    addi a1, a1, 4
    insn \op zero, a2, (a1)
    ld a0, -4(a1)
    wants a3
    sd a4, -4(a1)
    insn \op a1, a2, (a1)
    mv a0, a1
    srai a4, a4, 32
    wants a4
.endm
.macro amo_d_once insn:vararg
    sd a4, 0(a1)
    mv a0, a2
    insn \insn
    wants a4
    ld a0, 0(a1)
    wants a3
.endm
.macro amo_d op, old, operand, new
    li a4, \old
    li a2, \operand
    li a3, \new
    la a1, cell
    amo_d_once \op a0, a2, (a1)
    amo_d_once \op\().aq a0, a0, (a1)
    amo_d_once \op\().rl a0, a2, (a1)
    amo_d_once \op\().aqrl a0, a2, (a1)
    sd a4, 0(a1)
    insn \op zero, a2, (a1)
    ld a0, 0(a1)
    wants a3
    sd a4, 0(a1)
    insn \op a1, a2, (a1)
    mv a0, a1
    wants a4
.endm

.macro lr_sc width, load, ordering
    // Success: the loaded value is sign-extended, 0 is returned, memory changes.
    la a1, cell
    li a2, 0x8877665544332211
    li a4, 0xfedcba98fedcba98
    sd a4, 0(a1)
    \load a3, 0(a1)
    insn lr.\width\ordering a0, (a1)
    wants a3
    insn sc.\width\ordering a0, a2, (a1)
    want 0
    \load a0, 0(a1)
    .ifc \width, w
    sext.w a3, a2
    .else
    mv a3, a2
    .endif
    wants a3
    // The reservation is gone after any SC: this one fails, returns 1, and memory stays.
    insn sc.\width\ordering a0, zero, (a1)
    want 1
    \load a0, 0(a1)
    wants a3
    // rd of SC may be either source.
    lr.\width\ordering zero, (a1)
    mv a0, a2
    insn sc.\width\ordering a0, a0, (a1)
    want 0
    la a0, cell
    lr.\width\ordering zero, (a0)
    insn sc.\width\ordering a0, zero, (a0)
    want 0
    la a0, cell
    \load a4, 0(a0)
    insn lr.\width\ordering a0, (a0)
    wants a4
    // An SC elsewhere fails, and takes the reservation with it.
    la a4, elsewhere
    sd zero, 0(a4)
    lr.\width zero, (a1)
    insn sc.\width\ordering a0, a2, (a4)
    want 1
    \load a0, 0(a4)
    want 0
    insn sc.\width\ordering a0, a2, (a1)
    want 1
    // The last LR counts.
    lr.\width zero, (a1)
    lr.\width zero, (a4)
    insn sc.\width\ordering a0, a2, (a4)
    want 0
    // Plain loads, stores elsewhere and AMOs elsewhere do not break it in a lone hart; a constrained
    // loop has none of them, so only progress is required: try until it succeeds, a few times.
    li a5, 100
1:  lr.\width a3, (a1)
    insn sc.\width\ordering a0, a3, (a1)
    beqz a0, 2f
    addi a5, a5, -1
    bnez a5, 1b
2:  want 0
.endm

    program

    about amoswap.w
    amo_w amoswap.w, 0x80000000, 0x12345678, 0x12345678
    amo_w amoswap.w, 0x7fffffff, 0xffffffff, 0xffffffff
    about amoadd.w
    amo_w amoadd.w, 0x7fffffff, 0x00000001, 0x80000000
    amo_w amoadd.w, 0xffffffff, 0x00000001, 0x00000000
    amo_w amoadd.w, 0x80000000, 0x80000000, 0x00000000
    about amoxor.w
    amo_w amoxor.w, 0xff00ff00, 0x0ff00ff0, 0xf0f0f0f0
    about amoand.w
    amo_w amoand.w, 0xff00ff00, 0x8ff00ff0, 0x8f000f00
    about amoor.w
    amo_w amoor.w, 0xff00ff00, 0x0ff00ff0, 0xfff0fff0
    about amomin.w
    amo_w amomin.w, 0x80000000, 0x7fffffff, 0x80000000
    amo_w amomin.w, 0x7fffffff, 0x80000000, 0x80000000
    amo_w amomin.w, 0xffffffff, 0x00000000, 0xffffffff
    amo_w amomin.w, 0x00000005, 0x00000004, 0x00000004
    about amomax.w
    amo_w amomax.w, 0x80000000, 0x7fffffff, 0x7fffffff
    amo_w amomax.w, 0x7fffffff, 0x80000000, 0x7fffffff
    amo_w amomax.w, 0xffffffff, 0x00000000, 0x00000000
    amo_w amomax.w, 0x00000005, 0x00000006, 0x00000006
    about amominu.w
    amo_w amominu.w, 0x80000000, 0x7fffffff, 0x7fffffff
    amo_w amominu.w, 0x7fffffff, 0x80000000, 0x7fffffff
    amo_w amominu.w, 0xffffffff, 0x00000000, 0x00000000
    about amomaxu.w
    amo_w amomaxu.w, 0x80000000, 0x7fffffff, 0x80000000
    amo_w amomaxu.w, 0x7fffffff, 0x80000000, 0x80000000
    amo_w amomaxu.w, 0xffffffff, 0x00000000, 0xffffffff

    about amoswap.d
    amo_d amoswap.d, 0x8000000000000000, 0x123456789abcdef0, 0x123456789abcdef0
    about amoadd.d
    amo_d amoadd.d, 0x7fffffffffffffff, 1, 0x8000000000000000
    amo_d amoadd.d, -1, 1, 0
    amo_d amoadd.d, 0x00000000ffffffff, 1, 0x100000000
    about amoxor.d
    amo_d amoxor.d, 0xff00ff00ff00ff00, 0x0ff00ff00ff00ff0, 0xf0f0f0f0f0f0f0f0
    about amoand.d
    amo_d amoand.d, 0xff00ff00ff00ff00, 0x8ff00ff00ff00ff0, 0x8f000f000f000f00
    about amoor.d
    amo_d amoor.d, 0xff00ff00ff00ff00, 0x0ff00ff00ff00ff0, 0xfff0fff0fff0fff0
    about amomin.d
    amo_d amomin.d, 0x8000000000000000, 0x7fffffffffffffff, 0x8000000000000000
    amo_d amomin.d, 0x7fffffffffffffff, 0x8000000000000000, 0x8000000000000000
    amo_d amomin.d, -1, 0, -1
    amo_d amomin.d, 0x00000000ffffffff, 0, 0
    about amomax.d
    amo_d amomax.d, 0x8000000000000000, 0x7fffffffffffffff, 0x7fffffffffffffff
    amo_d amomax.d, 0x7fffffffffffffff, 0x8000000000000000, 0x7fffffffffffffff
    amo_d amomax.d, -1, 0, 0
    amo_d amomax.d, 0x00000000ffffffff, 0, 0x00000000ffffffff
    about amominu.d
    amo_d amominu.d, 0x8000000000000000, 0x7fffffffffffffff, 0x7fffffffffffffff
    amo_d amominu.d, -1, 0, 0
    amo_d amominu.d, 3, 4, 3
    about amomaxu.d
    amo_d amomaxu.d, 0x8000000000000000, 0x7fffffffffffffff, 0x8000000000000000
    amo_d amomaxu.d, -1, 0, -1
    amo_d amomaxu.d, 3, 4, 4

    about lr.w, sc.w
    lr_sc w, lw
    lr_sc w, lw, .aq
    lr_sc w, lw, .rl
    lr_sc w, lw, .aqrl
    about lr.d, sc.d
    lr_sc d, ld
    lr_sc d, ld, .aq
    lr_sc d, ld, .rl
    lr_sc d, ld, .aqrl
    // Without any LR before it.
    la a1, cell
    sd zero, 0(a1)
    sc.w a0, zero, (a1)
    li a2, 7
    insn sc.d a0, a2, (a1)
    want 1
    ld a0, 0(a1)
    want 0

    end_program

    .data
    .balign 4096
cell:
    .dword 0
    .balign 4096
elsewhere:
    .dword 0
