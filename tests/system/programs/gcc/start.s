# SPDX-License-Identifier: BSD-2-Clause
# A program without any library.
    .globl _start
_start:
    li a0, 1
    la a1, text
    li a2, 9
    li a7, 64           # write
    ecall
    li a0, 6
    li a7, 94           # exit_group
    ecall
    .data
text:
    .ascii "no libc!\n"
