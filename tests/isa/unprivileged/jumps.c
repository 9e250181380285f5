// SPDX-License-Identifier: BSD-2-Clause
// jal at the ends of its reach, 1 MiB away in both directions, and calls to every alignment.
#include "firmware.h"

#define AREA 0x81000000ul

static void put(uint64_t gva, uint32_t insn)
{
    ((volatile uint16_t *)gva)[0] = (uint16_t)insn;
    ((volatile uint16_t *)gva)[1] = (uint16_t)(insn >> 16);
}

static uint32_t jal(unsigned rd, int32_t offset)
{
    uint32_t imm = (uint32_t)offset;

    return (imm >> 20 & 1) << 31 | (imm >> 1 & 0x3ff) << 21 | (imm >> 11 & 1) << 20 |
           (imm >> 12 & 0xff) << 12 | rd << 7 | 0x6f;
}

static uint32_t auipc(unsigned rd, int32_t pages)
{
    return (uint32_t)pages << 12 | rd << 7 | 0x17;
}

// jal a0 there; auipc a1, 0 tells where we are; ecall.
static void check_jal(int32_t offset)
{
    struct firmware_outcome outcome;
    uint64_t from = AREA, to = AREA + (uint64_t)(int64_t)offset;

    put(from, jal(10, offset));
    put(to, auipc(11, 0));
    put(to + 4, 0x73);
    __asm__ volatile("fence.i" ::: "memory");
    outcome = run(MODE_M, (const char *)from, 0, 0);
    check("jal: link", outcome.a[0], from + 4);
    check("jal: target", outcome.a[1], to);
    check("jal: epc", outcome.epc, to + 4);
}

void test_main(void)
{
    static const int32_t offsets[] = {4,      8,       0x7fe,   0x800,    0x802,    0xffe,
                                      0x1000, 0x7fffe, 0x80000, 0xffffe,  -8,       -0x800,
                                      -0x7fe, -0x1000, -0x1002, -0x80000, -0xffffe, -0x100000};

    group("reach of jal");
    for (size_t i = 0; i < COUNT_OF(offsets); i++)
        check_jal(offsets[i]);
}
