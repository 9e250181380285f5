// SPDX-License-Identifier: BSD-2-Clause
// Encoding of x86-64 instructions: see x64.h.
#include "jit/x64.h"

#include <string.h>

static void put8(struct x64 *x64, unsigned byte)
{
    if (x64->out >= x64->end) {
        x64->full = true;
        return;
    }
    *x64->out++ = (uint8_t)byte;
}

static void put32(struct x64 *x64, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++)
        put8(x64, value >> (8 * i) & 0xff);
}

static bool fits8(int64_t value)
{
    return value >= INT8_MIN && value <= INT8_MAX;
}

// Prefixes and opcode. spl, bpl, sil and dil need a REX prefix; without one they would be ah to bh.
static void put_opcode(struct x64 *x64, unsigned opcode, unsigned reg, unsigned index, unsigned rm,
                       bool byte_register)
{
    unsigned rex = (opcode & X64_W ? 8 : 0) | reg >> 3 << 2 | index >> 3 << 1 | rm >> 3;

    if (opcode & X64_16)
        put8(x64, 0x66);
    if (opcode & X64_F3)
        put8(x64, 0xf3);
    if (opcode & X64_F2)
        put8(x64, 0xf2);
    if (rex || byte_register)
        put8(x64, 0x40 | rex);
    if (opcode & (X64_0F | X64_0F38 | X64_0F3A))
        put8(x64, 0x0f);
    if (opcode & (X64_0F38 | X64_0F3A))
        put8(x64, opcode & X64_0F38 ? 0x38 : 0x3a);
    put8(x64, opcode & 0xff);
}

static void put_modrm(struct x64 *x64, unsigned mod, unsigned reg, unsigned rm)
{
    put8(x64, mod << 6 | (reg & 7) << 3 | (rm & 7));
}

void x64_rr(struct x64 *x64, unsigned opcode, unsigned reg, unsigned rm)
{
    bool byte = (opcode & X64_BYTE && reg >= X64_RSP) || (opcode & X64_RM_BYTE && rm >= X64_RSP);

    put_opcode(x64, opcode, reg, 0, rm, byte);
    put_modrm(x64, 3, reg, rm);
}

void x64_rr_imm(struct x64 *x64, unsigned opcode, unsigned reg, unsigned rm, uint8_t value)
{
    x64_rr(x64, opcode, reg, rm);
    put8(x64, value);
}

static void put_memory(struct x64 *x64, unsigned reg, unsigned base, int32_t displacement)
{
    // rbp and r13 have no form without a displacement; rsp and r12 need a SIB byte.
    unsigned mod = displacement == 0 && (base & 7) != X64_RBP ? 0 : fits8(displacement) ? 1 : 2;

    put_modrm(x64, mod, reg, base);
    if ((base & 7) == X64_RSP)
        put8(x64, 0x24);
    if (mod == 1)
        put8(x64, (uint8_t)displacement);
    else if (mod == 2)
        put32(x64, (uint32_t)displacement);
}

void x64_rm(struct x64 *x64, unsigned opcode, unsigned reg, unsigned base, int32_t displacement)
{
    put_opcode(x64, opcode, reg, 0, base, opcode & X64_BYTE && reg >= X64_RSP);
    put_memory(x64, reg, base, displacement);
}

void x64_rorx(struct x64 *x64, unsigned width, unsigned reg, unsigned rm, unsigned count)
{
    const unsigned map_0f3a = 3, x = 0x40, no_vvvv = 0xf << 3, prefix_f2 = 3;

    put8(x64, 0xc4);
    put8(x64, (reg >> 3 ? 0 : 0x80) | x | (rm >> 3 ? 0 : 0x20) | map_0f3a);
    put8(x64, (width ? 0x80 : 0) | no_vvvv | prefix_f2);
    put8(x64, 0xf0);
    put_modrm(x64, 3, reg, rm);
    put8(x64, count);
}

void x64_rm_twice(struct x64 *x64, unsigned opcode, unsigned reg, unsigned index,
                  int32_t displacement)
{
    const unsigned twice = 1, no_base = 5;

    put_opcode(x64, opcode, reg, index, 0, opcode & X64_BYTE && reg >= X64_RSP);
    put_modrm(x64, 0, reg, 4);
    put8(x64, twice << 6 | (index & 7) << 3 | no_base);
    put32(x64, (uint32_t)displacement);
}

void x64_gs_rm(struct x64 *x64, unsigned opcode, unsigned reg, unsigned base, int32_t displacement,
               unsigned bytes_min)
{
    const uint8_t *end = x64->out + bytes_min;

    put8(x64, 0x65);
    x64_rm(x64, opcode, reg, base, displacement);
    while (x64->out < end && !x64->full)
        put8(x64, 0x90);
}

void x64_rm_index(struct x64 *x64, unsigned opcode, unsigned reg, unsigned base, unsigned index,
                  int32_t displacement)
{
    unsigned mod = displacement == 0 && (base & 7) != X64_RBP ? 0 : fits8(displacement) ? 1 : 2;

    put_opcode(x64, opcode, reg, index, base, opcode & X64_BYTE && reg >= X64_RSP);
    put_modrm(x64, mod, reg, 4);
    put8(x64, (index & 7) << 3 | (base & 7));
    if (mod == 1)
        put8(x64, (uint8_t)displacement);
    else if (mod == 2)
        put32(x64, (uint32_t)displacement);
}

// A displacement relative to the end of the instruction, which it is the last part of.
static void put_relative(struct x64 *x64, const void *address)
{
    ptrdiff_t distance = (const uint8_t *)address - (x64_here(x64) + 4);

    if (distance != (int32_t)distance)
        x64->full = true;
    put32(x64, (uint32_t)distance);
}

void x64_rip(struct x64 *x64, unsigned opcode, unsigned reg, const void *address)
{
    put_opcode(x64, opcode, reg, 0, 0, opcode & X64_BYTE && reg >= X64_RSP);
    put_modrm(x64, 0, reg, 5);
    put_relative(x64, address);
}

void x64_lea_scaled(struct x64 *x64, unsigned reg, unsigned base, unsigned index, unsigned scale)
{
    unsigned shift = scale == 8 ? 3 : scale == 4 ? 2 : scale == 2 ? 1 : 0;
    bool displacement = (base & 7) == X64_RBP;

    put_opcode(x64, X64_LEA | X64_W, reg, index, base, false);
    put_modrm(x64, displacement ? 1 : 0, reg, 4);
    put8(x64, shift << 6 | (index & 7) << 3 | (base & 7));
    if (displacement)
        put8(x64, 0);
}

static void put_vex(struct x64 *x64, unsigned opcode, unsigned reg, unsigned extra, unsigned rm)
{
    unsigned map = opcode & X64_0F3A ? 3 : opcode & X64_0F38 ? 2 : 1;
    unsigned prefix = opcode & X64_16 ? 1 : opcode & X64_F3 ? 2 : opcode & X64_F2 ? 3 : 0;
    unsigned low = (~extra & 15) << 3 | prefix, not_r = reg >> 3 ? 0 : 0x80;

    if (map == 1 && !(opcode & X64_W) && rm < X64_R8) {
        put8(x64, 0xc5);
        put8(x64, not_r | low);
    } else {
        put8(x64, 0xc4);
        put8(x64, not_r | 0x40 | (rm >> 3 ? 0 : 0x20) | map);
        put8(x64, (opcode & X64_W ? 0x80 : 0) | low);
    }
    put8(x64, opcode & 0xff);
}

void x64_vex(struct x64 *x64, unsigned opcode, unsigned reg, unsigned extra, unsigned rm)
{
    put_vex(x64, opcode, reg, extra, rm);
    put_modrm(x64, 3, reg, rm);
}

void x64_vex_rm(struct x64 *x64, unsigned opcode, unsigned reg, unsigned extra, unsigned base,
                int32_t displacement)
{
    put_vex(x64, opcode, reg, extra, base);
    put_memory(x64, reg, base, displacement);
}

void x64_vex_imm(struct x64 *x64, unsigned opcode, unsigned reg, unsigned extra, unsigned rm,
                 uint8_t value)
{
    x64_vex(x64, opcode, reg, extra, rm);
    put8(x64, value);
}

void x64_mov_imm(struct x64 *x64, unsigned reg, uint64_t value)
{
    if (value == 0) {
        x64_rr(x64, X64_XOR, reg, reg);
    } else if (value <= UINT32_MAX) {
        put_opcode(x64, 0xb8 | (reg & 7), 0, 0, reg, false);
        put32(x64, (uint32_t)value);
    } else if ((int64_t)value == (int32_t)value) {
        put_opcode(x64, 0xc7 | X64_W, 0, 0, reg, false);
        put_modrm(x64, 3, 0, reg);
        put32(x64, (uint32_t)value);
    } else {
        put_opcode(x64, 0xb8 | (reg & 7) | X64_W, 0, 0, reg, false);
        put32(x64, (uint32_t)value);
        put32(x64, (uint32_t)(value >> 32));
    }
}

void x64_alu_imm(struct x64 *x64, enum x64_group1 op, unsigned width, unsigned reg, int32_t value)
{
    x64_rr(x64, (fits8(value) ? 0x83 : 0x81) | width, op, reg);
    if (fits8(value))
        put8(x64, (uint8_t)value);
    else
        put32(x64, (uint32_t)value);
}

void x64_alu_mem_imm(struct x64 *x64, enum x64_group1 op, unsigned width, unsigned base,
                     int32_t displacement, int32_t value)
{
    x64_rm(x64, (fits8(value) ? 0x83 : 0x81) | width, op, base, displacement);
    if (fits8(value))
        put8(x64, (uint8_t)value);
    else
        put32(x64, (uint32_t)value);
}

void x64_store_imm(struct x64 *x64, unsigned base, int32_t displacement, int32_t value)
{
    x64_rm(x64, 0xc7 | X64_W, 0, base, displacement);
    put32(x64, (uint32_t)value);
}

void x64_lock(struct x64 *x64)
{
    put8(x64, 0xf0);
}

void x64_test_imm(struct x64 *x64, unsigned reg, int32_t value)
{
    x64_rr(x64, 0xf7, 0, reg);
    put32(x64, (uint32_t)value);
}

void x64_test_mem_imm(struct x64 *x64, unsigned base, int32_t displacement, int32_t value)
{
    x64_rm(x64, 0xf7, 0, base, displacement);
    put32(x64, (uint32_t)value);
}

void x64_shift_imm(struct x64 *x64, enum x64_group2 op, unsigned width, unsigned reg,
                   unsigned count)
{
    x64_rr(x64, 0xc1 | width, op, reg);
    put8(x64, count);
}

void x64_shift_cl(struct x64 *x64, enum x64_group2 op, unsigned width, unsigned reg)
{
    x64_rr(x64, 0xd3 | width, op, reg);
}

void x64_unary(struct x64 *x64, enum x64_group3 op, unsigned width, unsigned reg)
{
    x64_rr(x64, 0xf7 | width, op, reg);
}

void x64_sign_rdx(struct x64 *x64, unsigned width)
{
    put_opcode(x64, 0x99 | width, 0, 0, 0, false);
}

void x64_bswap(struct x64 *x64, unsigned reg)
{
    put_opcode(x64, 0xc8 | (reg & 7) | X64_0F | X64_W, 0, 0, reg, false);
}

void x64_setcc(struct x64 *x64, enum x64_condition condition, unsigned reg)
{
    x64_rr(x64, 0x90 | condition | X64_0F | X64_RM_BYTE, 0, reg);
}

void x64_bit_imm(struct x64 *x64, enum x64_group8 op, unsigned reg, unsigned bit)
{
    x64_rr(x64, 0xba | X64_0F | X64_W, op, reg);
    put8(x64, bit);
}

void x64_cmp_mem8_imm(struct x64 *x64, unsigned base, int32_t displacement, uint8_t value)
{
    x64_rm(x64, 0x80, X64_I_CMP, base, displacement);
    put8(x64, value);
}

// The displacement counts from the instruction's end, which the immediate byte is before.
static void put_rip8_imm(struct x64 *x64, unsigned opcode, unsigned digit, const void *address,
                         uint8_t value)
{
    put_opcode(x64, opcode, 0, 0, 0, false);
    put_modrm(x64, 0, digit, 5);
    put_relative(x64, (const uint8_t *)address - 1);
    put8(x64, value);
}

void x64_rip_mov8_imm(struct x64 *x64, const void *address, uint8_t value)
{
    put_rip8_imm(x64, 0xc6, 0, address, value);
}

void x64_rip_cmp8_imm(struct x64 *x64, const void *address, uint8_t value)
{
    put_rip8_imm(x64, 0x80, X64_I_CMP, address, value);
}

void x64_push(struct x64 *x64, unsigned reg)
{
    put_opcode(x64, 0x50 | (reg & 7), 0, 0, reg, false);
}

void x64_pop(struct x64 *x64, unsigned reg)
{
    put_opcode(x64, 0x58 | (reg & 7), 0, 0, reg, false);
}

void x64_ret(struct x64 *x64)
{
    put8(x64, 0xc3);
}

// Cheaper than mfence, and for the cacheable memory that guests have as strong (volume 3, 8.2.5).
void x64_full_fence(struct x64 *x64)
{
    x64_lock(x64);
    x64_alu_mem_imm(x64, X64_I_OR, 0, X64_RSP, 0, 0);
}

void x64_jmp(struct x64 *x64, const void *target)
{
    put8(x64, 0xe9);
    put_relative(x64, target);
}

void x64_jcc(struct x64 *x64, enum x64_condition condition, const void *target)
{
    put8(x64, 0x0f);
    put8(x64, 0x80 | condition);
    put_relative(x64, target);
}

void x64_call(struct x64 *x64, const void *target)
{
    put8(x64, 0xe8);
    put_relative(x64, target);
}

void x64_jmp_reg(struct x64 *x64, unsigned reg)
{
    x64_rr(x64, 0xff, 4, reg);
}

void x64_jmp_mem(struct x64 *x64, unsigned base, int32_t displacement)
{
    x64_rm(x64, 0xff, 4, base, displacement);
}

void x64_call_mem(struct x64 *x64, unsigned base, int32_t displacement)
{
    x64_rm(x64, 0xff, 2, base, displacement);
}

void x64_call_far(struct x64 *x64, const void *target)
{
    x64_mov_imm(x64, X64_RAX, (uintptr_t)target);
    x64_rr(x64, 0xff, 2, X64_RAX);
}

// A displacement to be bound later; until then it leads to the next instruction. NULL when full.
static uint8_t *put_place(struct x64 *x64)
{
    put32(x64, 0);
    return x64->full ? NULL : x64->out - 4;
}

uint8_t *x64_jmp_forward(struct x64 *x64)
{
    put8(x64, 0xe9);
    return put_place(x64);
}

uint8_t *x64_jcc_forward(struct x64 *x64, enum x64_condition condition)
{
    put8(x64, 0x0f);
    put8(x64, 0x80 | condition);
    return put_place(x64);
}

void x64_bind(struct x64 *x64, uint8_t *place)
{
    if (place)
        x64_patch(place, x64->exec_offset, x64_here(x64));
}

void x64_patch(uint8_t *place, ptrdiff_t exec_offset, const void *target)
{
    int32_t distance = (int32_t)((const uint8_t *)target - (place + exec_offset + 4));

    memcpy(place, &distance, sizeof(distance));
}
