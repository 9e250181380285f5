// SPDX-License-Identifier: BSD-2-Clause
// Start-up of a bare-metal program, and firmware_enter, which runs a piece of code in any privilege
// mode until its next trap to M-mode.
#define MSTATUS_FS_DIRTY 0x6000
#define MSTATUS_MPRV 0x20000
#define MSTATUS_MPP_MPIE 0x1880

    .section .text.start, "ax"
    .globl _start
_start:
    csrr tp, mhartid
    li t0, FIRMWARE_HARTS
1:  bgeu tp, t0, 1b
    slli t0, tp, FIRMWARE_STACK_SHIFT
    la sp, stacks_end
    sub sp, sp, t0
    la t0, trap_entry
    csrw mtvec, t0
    csrw mscratch, zero
    csrw mie, zero
    csrw mideleg, zero
    csrw medeleg, zero
    li t0, MSTATUS_FS_DIRTY
    csrs mstatus, t0
    // One PMP entry that opens everything: without it S and U may touch nothing.
    li t0, -1
    csrw pmpaddr0, t0
    li t0, 0x1f
    csrw pmpcfg0, t0
    mv a0, tp
    bnez tp, secondary
    tail firmware_main
secondary:
    call hart_main
1:  wfi
    j 1b

// void firmware_enter(const struct firmware_entry *entry, struct firmware_outcome *outcome)
// mscratch is 0 while no entered code runs, else the address of the frame below.
    .text
    .globl firmware_enter
firmware_enter:
    addi sp, sp, -144
    sd ra, 0(sp)
    sd s0, 8(sp)
    sd s1, 16(sp)
    sd s2, 24(sp)
    sd s3, 32(sp)
    sd s4, 40(sp)
    sd s5, 48(sp)
    sd s6, 56(sp)
    sd s7, 64(sp)
    sd s8, 72(sp)
    sd s9, 80(sp)
    sd s10, 88(sp)
    sd s11, 96(sp)
    sd gp, 104(sp)
    sd tp, 112(sp)
    sd a1, 120(sp)
    csrw mscratch, sp
    ld t0, 0(a0)
    csrw mepc, t0
    li t0, MSTATUS_MPP_MPIE
    csrc mstatus, t0
    ld t0, 8(a0)
    csrs mstatus, t0
    ld a1, 24(a0)
    ld a2, 32(a0)
    ld a3, 40(a0)
    ld a0, 16(a0)
    mret

    .globl trap_entry
    .balign 256
trap_entry:
    .rept 64        // a vectored mtvec of the tests may lead to any of these
    j trap_taken
    .balign 4
    .endr
trap_taken:
    csrrw sp, mscratch, sp
    beqz sp, trap_unexpected
    sd t0, 128(sp)
    sd t1, 136(sp)
    ld t0, 120(sp)
    csrr t1, mstatus
    sd t1, 24(t0)
    li t1, MSTATUS_MPRV
    csrc mstatus, t1
    csrr t1, mcause
    sd t1, 0(t0)
    csrr t1, mepc
    sd t1, 8(t0)
    csrr t1, mtval
    sd t1, 16(t0)
    sd a0, 32(t0)
    sd a1, 40(t0)
    sd a2, 48(t0)
    sd a3, 56(t0)
    csrw mscratch, zero
    ld ra, 0(sp)
    ld s0, 8(sp)
    ld s1, 16(sp)
    ld s2, 24(sp)
    ld s3, 32(sp)
    ld s4, 40(sp)
    ld s5, 48(sp)
    ld s6, 56(sp)
    ld s7, 64(sp)
    ld s8, 72(sp)
    ld s9, 80(sp)
    ld s10, 88(sp)
    ld s11, 96(sp)
    ld gp, 104(sp)
    ld tp, 112(sp)
    addi sp, sp, 144
    ret
trap_unexpected:
    csrrw sp, mscratch, zero
    csrr a0, mcause
    csrr a1, mepc
    csrr a2, mtval
    tail firmware_unexpected_trap

// The check at the end of a case of assembly code (see tests/isa/cases.h): s3 is the case, s2 what
// is wanted in a0. Changes t0 and t1 only.
    .globl firmware_case_check
firmware_case_check:
    li t0, 1
    sd t0, 16(s3)
    la t0, firmware_checks
    ld t1, 0(t0)
    addi t1, t1, 1
    sd t1, 0(t0)
    bne a0, s2, 1f
    jr ra
1:  addi sp, sp, -96
    sd ra, 0(sp)
    sd a0, 8(sp)
    sd a1, 16(sp)
    sd a2, 24(sp)
    sd a3, 32(sp)
    sd a4, 40(sp)
    sd a5, 48(sp)
    mv a4, a3
    mv a3, a2
    mv a2, a1
    mv a1, a0
    mv a0, s3
    mv a5, s2
    call firmware_case_failed
    ld ra, 0(sp)
    ld a0, 8(sp)
    ld a1, 16(sp)
    ld a2, 24(sp)
    ld a3, 32(sp)
    ld a4, 40(sp)
    ld a5, 48(sp)
    addi sp, sp, 96
    ret

    .bss
    .balign 16
    .skip FIRMWARE_HARTS << FIRMWARE_STACK_SHIFT
stacks_end:
