// SPDX-License-Identifier: BSD-2-Clause
// What moves floating-point registers: loads, stores, fmv; NaN boxing; fcsr and its parts;
// mstatus.FS. What computes is in the generated isa_rv64f and isa_rv64d.
#include "cases.h"
#define MSTATUS_FS 0x6000
#define FS_INITIAL 0x2000

    program

    about flw, fsw
    .macro load op, offset, value
    la a1, edge
    insn \op fa0, \offset(a1)
    fmv.x.d a0, fa0
    want \value
    .endm
    // Loaded singles are NaN-boxed; any alignment works, the edge is 8 bytes before a page's end.
    load flw, 0, 0xffffffff3f800000
    load flw, 4, 0xffffffff7fc00001
    load flw, 5, 0xffffffff117fc000
    load flw, 7, 0xffffffff3322117f
    load flw, 8, 0xffffffff44332211
    la a1, edge + 2048
    insn flw ft11, -2048(a1)
    fmv.x.w a0, ft11
    want 0x3f800000
    la a1, edge - 2047
    insn flw ft0, 2047(a1)
    fmv.x.w a0, ft0
    want 0x3f800000
    about fld
    load fld, 0, 0x7fc000013f800000
    load fld, 1, 0x117fc000013f8000
    load fld, 4, 0x443322117fc00001
    load fld, 8, 0x8877665544332211
    la a1, edge + 2048
    insn fld ft11, -2048(a1)
    fmv.x.d a0, ft11
    want 0x7fc000013f800000
    la a1, edge - 2047
    insn fld ft0, 2047(a1)
    fmv.x.d a0, ft0
    want 0x7fc000013f800000

    about fsw, fsd
    .macro store op, offset, first, second
    la a1, target_edge
    sd zero, 0(a1)
    sd zero, 8(a1)
    li a2, 0x8877665544332211
    fmv.d.x fa1, a2
    insn \op fa1, \offset(a1)
    ld a0, 0(a1)
    want \first
    ld a0, 8(a1)
    want \second
    .endm
    // fsw stores the low bits whatever the box.
    store fsw, 0, 0x44332211, 0
    store fsw, 4, 0x4433221100000000, 0
    store fsw, 6, 0x2211000000000000, 0x4433
    store fsd, 0, 0x8877665544332211, 0
    store fsd, 5, 0x3322110000000000, 0x8877665544
    store fsd, 8, 0, 0x8877665544332211
    la a1, target_edge + 2048
    insn fsd fa1, -2048(a1)
    ld a0, -2048(a1)
    want 0x8877665544332211
    la a1, target_edge - 2047
    la a3, target_edge
    sd zero, 0(a3)
    insn fsw fa1, 2047(a1)
    ld a0, 0(a3)
    want 0x44332211

    about fmv
    la a3, target_edge
    li a1, 0x123456789abcdef0
    insn fmv.d.x fa1, a1
    fsd fa1, 0(a3)
    ld a0, 0(a3)
    wants a1
    insn fmv.x.d a0, fa1
    wants a1
    // fmv.x.w sign-extends the low half, boxed or not.
    insn fmv.x.w a0, fa1
    want 0xffffffff9abcdef0
    li a1, 0x0000000012345678
    fmv.d.x fa1, a1
    insn fmv.x.w a0, fa1
    want 0x12345678
    // fmv.w.x boxes, and drops the upper half.
    li a1, 0x123456789abcdef0
    insn fmv.w.x fa1, a1
    fmv.x.d a0, fa1
    want 0xffffffff9abcdef0
    insn fmv.x.w zero, fa1
    mv a0, zero
    want 0
    // Moves raise nothing, signaling NaNs included.
    fscsr zero
    li a1, 0x7f800001
    fmv.w.x fa1, a1
    fmv.x.w a0, fa1
    frflags a0
    want 0

    about fcsr, frm, fflags
    li a1, 0x7f800001
    fmv.w.x fa1, a1
    li a1, -1
    csrw fcsr, a1
    insn csrr a0, fcsr
    want 0xff
    insn csrr a0, frm
    want 7
    insn csrr a0, fflags
    want 0x1f
    insn csrrwi a0, frm, 2
    want 7
    insn csrr a0, fcsr
    want 0x5f
    insn csrrci a0, fflags, 5
    want 0x1f
    insn csrr a0, fcsr
    want 0x5a
    insn csrrw a0, frm, a1
    want 2
    insn csrr a0, frm
    want 7
    // Flags accumulate.
    fscsr zero
    fcvt.w.s a0, fa1, rtz
    li a2, 3
    fcvt.s.w fa2, a2
    fdiv.s fa3, fa2, fa2
    fmv.w.x fa4, zero
    insn fdiv.s fa3, fa2, fa4
    frflags a0
    want 0x18

    // Flags are raised where the result goes to x0.
    .macro raises_to_x0 text:vararg
    fscsr zero
    li a1, 0x7f800001
    fmv.w.x fa5, a1
    insn \text
    frflags a0
    want 0x10
    mv a0, zero
    want 0
    .endm
    raises_to_x0 feq.s zero, fa5, fa5
    raises_to_x0 fcvt.w.s zero, fa5, rne
    raises_to_x0 fcvt.lu.s zero, fa5, rne

    about mstatus.FS
    // Writing an FP register or fcsr makes FS Dirty and sets SD; reading does not have to.
    .macro dirties text:vararg
    li a1, MSTATUS_FS
    csrc mstatus, a1
    li a1, FS_INITIAL
    csrs mstatus, a1
    li a2, 1
    la a3, edge
    insn \text
    csrr a0, mstatus
    li a1, MSTATUS_FS
    and a2, a0, a1
    slt a0, a0, zero
    slli a0, a0, 32
    or a0, a0, a2
    want 0x100006000
    .endm
    dirties flw fa0, 0(a3)
    dirties fld fa0, 0(a3)
    dirties fmv.w.x fa0, a2
    dirties fmv.d.x fa0, a2
    dirties fadd.s fa0, fa1, fa1
    dirties fmadd.d fa0, fa1, fa1, fa1
    dirties fsgnj.d fa0, fa1, fa1
    dirties fcvt.s.w fa0, a2
    dirties csrw fcsr, a2
    dirties csrw frm, zero
    dirties csrwi fflags, 0
    // So does an operation to an integer register that raises a flag.
    fscsr zero
    li a1, 0x7f800001
    fmv.w.x fa5, a1
    dirties feq.s a0, fa5, fa5
    // SD is clear when FS is Initial.
    li a1, MSTATUS_FS
    csrc mstatus, a1
    li a1, FS_INITIAL
    csrs mstatus, a1
    insn csrr a0, mstatus
    srli a0, a0, 63
    want 0

    end_program

    .data
    .balign 4096
    .skip 4088
edge:
    .dword 0x7fc000013f800000, 0x8877665544332211
    .balign 4096
    .skip 4088
target_edge:
    .skip 16
    .balign 4096
