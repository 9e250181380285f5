// SPDX-License-Identifier: BSD-2-Clause
// Macros for test programs in assembly. A case is one instruction under test with a check of what
// it did. Registers: a0 is the result, a1..a5 are operands (printed when a case fails), s2 what is
// wanted, s3 the case; s0, s1 hold the place in a table. Anything else but
// the stack pointer is free for programs, s4 and s5 included.
.option arch, +zba, +zbb, +zbc, +zbkb, +zbkx, +zbs, +zknd, +zkne, +zknh, +zicbom, +zicbop, +zicboz, +zawrs, +svinval, +zihintpause

// The whole of a program stands between these two.
.macro program
    .text
    .globl test_main
test_main:
    addi sp, sp, -64
    sd ra, 0(sp)
    sd s0, 8(sp)
    sd s1, 16(sp)
    sd s2, 24(sp)
    sd s3, 32(sp)
    sd s4, 40(sp)
    sd s5, 48(sp)
.endm
.macro end_program
    ld ra, 0(sp)
    ld s0, 8(sp)
    ld s1, 16(sp)
    ld s2, 24(sp)
    ld s3, 32(sp)
    ld s4, 40(sp)
    ld s5, 48(sp)
    addi sp, sp, 64
    ret
.endm

// Names what follows in the output. Changes what a C function may.
.macro about text:vararg
    la a0, .Labout\@
    call group
    .pushsection .rodata
.Labout\@: .asciz "\text"
    .popsection
.endm

// The instruction under test, and its entry in the list of cases.
.macro insn text:vararg
    la s3, .Lcase\@
.Linsn\@:
    \text
    .pushsection .cases, "aw"
    .balign 8
.Lcase\@: .dword .Linsn\@, .Lname\@, 0, 0
    .popsection
    .pushsection .rodata
.Lname\@: .asciz "\text"
    .popsection
.endm

// Ends a case: a0 must be `value`; `wants reg` takes it from a register.
.macro want value
    li s2, \value
    call firmware_case_check
.endm
.macro wants reg
    mv s2, \reg
    call firmware_case_check
.endm

// Loops over `count` rows of dwords at `rows`; s0 is the row.
.macro rows label, count
    la s0, \label
    li s1, \count
.Lrow_\label:
.endm
.macro next_row label, dwords
    addi s0, s0, (\dwords) * 8
    addi s1, s1, -1
    bnez s1, .Lrow_\label
.endm

// Tables of two sources, also with the destination equal to each source and to x0.
// Row: rs1, rs2, wanted.
.macro table_rr op, label, count
    about \op
    rows \label, \count
    ld a1, 0(s0)
    ld a2, 8(s0)
    ld s2, 16(s0)
    insn \op a0, a1, a2
    call firmware_case_check
    mv a0, a1
    insn \op a0, a0, a2
    call firmware_case_check
    mv a0, a2
    insn \op a0, a1, a0
    call firmware_case_check
    mv a0, s2
    bne a1, a2, .Lsame_\label
    mv a0, a1
    \op a0, a0, a0
.Lsame_\label:
    call firmware_case_check
    next_row \label, 3
    insn \op zero, a1, a2
    mv a0, zero
    want 0
.endm

// Tables of one source, `imm` an immediate with its comma or nothing. Row: rs1, wanted.
.macro table_r op, label, count, imm:vararg
    rows \label, \count
    ld a1, 0(s0)
    ld s2, 8(s0)
    insn \op a0, a1 \imm
    call firmware_case_check
    mv a0, a1
    insn \op a0, a0 \imm
    call firmware_case_check
    next_row \label, 2
    insn \op zero, a1 \imm
    mv a0, zero
    want 0
.endm

// Tables of floating-point operations. Row: operands as register contents (a1, a2, a3), rounding
// mode, wanted register contents, wanted fflags. `to` and `from` are `a` or `fa`, the registers;
// `rm` is a static rounding mode with its comma, or nothing for the dynamic one.
.macro table_fp op, label, count, operands, to, from, rm:vararg
    rows \label, \count
    fscsr zero
    ld a1, 0(s0)
    .if \operands > 1
    ld a2, 8(s0)
    .endif
    .if \operands > 2
    ld a3, 16(s0)
    .endif
    ld a4, \operands * 8(s0)
    fsrm a4
    .ifc \from, fa
    fmv.d.x fa1, a1
    fmv.d.x fa2, a2
    fmv.d.x fa3, a3
    .endif
    fp_insn \op, \operands, \to, \from, \rm
    .ifc \to, fa
    fmv.x.d a0, fa0
    .endif
    frflags a5
    ld s2, \operands * 8 + 8(s0)
    call firmware_case_check
    mv a0, a5
    ld s2, \operands * 8 + 16(s0)
    call firmware_case_check
    next_row \label, \operands + 3
.endm
.macro fp_insn op, operands, to, from, rm:vararg
    .if \operands == 1
    insn \op \to\()0, \from\()1 \rm
    .elseif \operands == 2
    insn \op \to\()0, \from\()1, \from\()2 \rm
    .else
    insn \op \to\()0, \from\()1, \from\()2, \from\()3 \rm
    .endif
.endm
