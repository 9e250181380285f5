// SPDX-License-Identifier: BSD-2-Clause
// A register is saved before there is room for it, as gcc 12 does with those of floating point.
// kind: none
#include "twin.h"

#ifdef __riscv
__asm__(".text\n"
        ".globl add_up\n"
        ".type add_up, @function\n"
        "add_up:\n"
        "    addi sp, sp, -16\n"
        "    sd   ra, 8(sp)\n"
        "    fsd  fs2, -8(sp)\n"
        "    sd   s2, -16(sp)\n"
        "    addi sp, sp, -1008\n"
        "    fcvt.d.l fs2, a0\n"
        "    fadd.d fs2, fs2, fs2\n"
        "    fcvt.l.d a0, fs2, rtz\n"
        "    addi sp, sp, 1008\n"
        "    ld   s2, -16(sp)\n"
        "    fld  fs2, -8(sp)\n"
        "    ld   ra, 8(sp)\n"
        "    addi sp, sp, 16\n"
        "    ret\n"
        ".size add_up, .-add_up\n");
long add_up(long value);
#else
static long add_up(long value)
{
    return 2 * value;
}
#endif

int main(void)
{
    return add_up(HIDE(21L)) != 42;
}
