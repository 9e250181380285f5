# SPDX-License-Identifier: BSD-2-Clause
# wild: a bare-metal guest that misbehaves. It reads and writes every offset of every device, at
# every width and misaligned too, touches addresses where nothing is, jumps to some of them and
# executes rubbish; its trap handler goes on with whatever is next. It then says "alive" on the
# serial line, and switches off.

#define UART 0x10000000
#define UART_IER 1
#define UART_FCR 2
#define UART_LCR 3
#define UART_MCR 4
#define UART_LSR 5
#define LSR_TRANSMITTER_EMPTY 0x20
#define TEST 0x00100000
#define TEST_POWEROFF 0x5555

.globl _start
_start:
    csrr t0, mhartid
    bnez t0, park
    la t0, trap
    csrw mtvec, t0

    // Devices; the power device is left out, it would do as it is told.
    la s0, devices
next_device:
    ld s1, 0(s0)              // first address
    ld s2, 8(s0)              // bytes
    beqz s2, nowhere
    add s2, s1, s2
    li s3, 0x5a5a5a5aa5a5a5a5 // an xorshift generator's state
poke:
    slli t0, s3, 13
    xor s3, s3, t0
    srli t0, s3, 7
    xor s3, s3, t0
    slli t0, s3, 17
    xor s3, s3, t0
    lb t0, 0(s1)
    lh t0, 0(s1)
    lw t0, 0(s1)
    ld t0, 0(s1)
    amoswap.w t0, s3, (s1)
    lr.w t0, (s1)
    sc.w t0, s3, (s1)
    sb s3, 0(s1)
    sh s3, 0(s1)
    sw s3, 0(s1)
    sd s3, 0(s1)
    addi s1, s1, 3
    bltu s1, s2, poke
    addi s0, s0, 16
    j next_device

nowhere:
    la s0, holes
next_hole:
    ld s1, 0(s0)
    li t0, 1
    beq s1, t0, rubbish
    ld t0, 0(s1)
    sd t0, 0(s1)
    amoadd.d t0, t0, (s1)
    la s4, back               // an instruction fetch there ends in the trap handler
    jr s1
back:
    li s4, 0
    addi s0, s0, 8
    j next_hole

rubbish:
    la s0, words
    la s5, words_end
next_word:
    la s4, executed
    jr s0
executed:
    li s4, 0
    addi s0, s0, 4
    bltu s0, s5, next_word

    // The UART has seen rubbish too.
    li s0, UART
    sb zero, UART_LCR(s0)
    sb zero, UART_IER(s0)
    sb zero, UART_MCR(s0)
    li t0, 1
    sb t0, UART_FCR(s0)
    la s1, message
say:
    lbu t0, 0(s1)
    beqz t0, end
1:  lbu t1, UART_LSR(s0)
    andi t1, t1, LSR_TRANSMITTER_EMPTY
    beqz t1, 1b
    sb t0, 0(s0)
    addi s1, s1, 1
    j say
end:
    li t0, TEST
    li t1, TEST_POWEROFF
    sw t1, 0(t0)
park:
    wfi
    j park

// Goes on after the instruction that trapped (all of ours have four bytes), or at s4 if that is set:
// there is nothing to go on with where a jump led.
.balign 4
trap:
    csrw mscratch, t0
    csrw mie, zero
    csrr t0, mepc
    addi t0, t0, 4
    beqz s4, 1f
    mv t0, s4
1:  csrw mepc, t0
    csrr t0, mscratch
    mret

.balign 8
devices:
    .dword 0x00101000, 0x1000  // RTC
    .dword 0x02000000, 0x10000 // ACLINT
    .dword 0x0c000000, 0x4000  // PLIC: priorities, pending, enables,
    .dword 0x0c200000, 0x4000  // contexts
    .dword 0x10000000, 0x100   // UART
    .dword 0x10001000, 0x8000  // virtio slots
    .dword 0, 0
holes:
    .dword 0, 0x00200000, 0x10010000, 0x20000000, 0x7ffffff8, 0x7fffffff
    .dword 0x80000000 + 0x100000000 * 63, 0x00ffffffffffffff, 0x7fffffffffffffff
    .dword 0x8000000000000000, 0xfffffffffffffff8, 0xffffffffffffffff, 0x10000000, 0x10001000
    .dword 0x0c000000, 0x02000000
    .dword 1
words:
    .word 0x00000000, 0xffffffff, 0x0000000b, 0x0000002b, 0x0000005b, 0x0000007f, 0xfe00707f
    .word 0xdeadbeef, 0x30200073 ^ 0x80000000, 0xc0001073, 0xfff01073, 0x7ff02073
words_end:
message:
    .asciz "alive\r\n"
