// SPDX-License-Identifier: BSD-2-Clause
// The x86-64 emitter: one function a form of instruction. Private to this room and its tests.
//
// Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2.
//
// Code is written through one mapping and executed through another: `out` is where a byte is
// written, `out + exec_offset` the address it will be executed at; all addresses that are passed or
// returned are of execution. Whatever does not fit the buffer is left out and `full` is set, which
// the caller looks at once a block.
#ifndef STRAKE_JIT_X64_H
#define STRAKE_JIT_X64_H

#include "base/base.h"

enum x64_register {
    X64_RAX,
    X64_RCX,
    X64_RDX,
    X64_RBX,
    X64_RSP,
    X64_RBP,
    X64_RSI,
    X64_RDI,
    X64_R8,
    X64_R9,
    X64_R10,
    X64_R11,
    X64_R12,
    X64_R13,
    X64_R14,
    X64_R15,
};

// An opcode with what comes before it.
#define X64_0F 0x100u        // in the two-byte map
#define X64_F3 0x200u        // mandatory prefix
#define X64_16 0x400u        // operand-size prefix
#define X64_W 0x800u         // 64-bit operands; 32 without
#define X64_BYTE 0x1000u     // the `reg` operand is a byte register
#define X64_RM_BYTE 0x2000u  // the `rm` operand is one, if it is a register

#define X64_F2 0x4000u    // mandatory prefix
#define X64_0F38 0x8000u  // in this three-byte map
#define X64_0F3A 0x10000u

// Opcodes of the form `op reg, reg/memory`, to be or-ed with X64_W.
#define X64_ADD 0x03u
#define X64_OR 0x0bu
#define X64_AND 0x23u
#define X64_SUB 0x2bu
#define X64_XOR 0x33u
#define X64_CMP 0x3bu
#define X64_CMP_16 (0x3bu | X64_16)
#define X64_MOV 0x8bu
#define X64_TEST 0x85u
#define X64_LEA 0x8du
#define X64_MOVSXD (0x63u | X64_W)
#define X64_IMUL (0xafu | X64_0F)
#define X64_MOVZX_8 (0xb6u | X64_0F | X64_RM_BYTE)
#define X64_MOVZX_16 (0xb7u | X64_0F)
#define X64_MOVSX_8 (0xbeu | X64_0F | X64_RM_BYTE | X64_W)
#define X64_MOVSX_16 (0xbfu | X64_0F | X64_W)
#define X64_POPCNT (0xb8u | X64_0F | X64_F3)
#define X64_TZCNT (0xbcu | X64_0F | X64_F3)
#define X64_LZCNT (0xbdu | X64_0F | X64_F3)
#define X64_CMOV(condition) (0x40u | (condition) | X64_0F)
#define X64_MOVQ_FROM_XMM (0x7eu | X64_0F | X64_16 | X64_W)  // op integer rm, xmm reg
// `op memory, reg`.
#define X64_ADD_TO (0x01u | X64_W)
#define X64_STORE_8 (0x88u | X64_BYTE)
#define X64_STORE_16 (0x89u | X64_16)
#define X64_STORE_32 0x89u
#define X64_STORE_64 (0x89u | X64_W)
// BMI2, see x64_vex: reg = rm shifted by `extra`.
#define X64_SHLX (0xf7u | X64_0F38 | X64_16)
#define X64_SARX (0xf7u | X64_0F38 | X64_F3)
#define X64_SHRX (0xf7u | X64_0F38 | X64_F2)
// Packed integers; `reg` and `rm` are xmm registers, but of X64_MOVQ_TO_XMM `rm` is an integer one.
#define X64_MOVQ_TO_XMM (0x6eu | X64_0F | X64_16 | X64_W)
#define X64_PCMPEQB (0x74u | X64_0F | X64_16)
#define X64_PXOR (0xefu | X64_0F | X64_16)
#define X64_PUNPCKLQDQ (0x6cu | X64_0F | X64_16)
#define X64_PUNPCKHQDQ (0x6du | X64_0F | X64_16)
#define X64_PSHUFD (0x70u | X64_0F | X64_16)  // these three with x64_rr_imm
#define X64_PCLMULQDQ (0x44u | X64_0F3A | X64_16)
#define X64_AESKEYGENASSIST (0xdfu | X64_0F3A | X64_16)
#define X64_AESIMC (0xdbu | X64_0F38 | X64_16)
#define X64_AESENC (0xdcu | X64_0F38 | X64_16)
#define X64_AESENCLAST (0xddu | X64_0F38 | X64_16)
#define X64_AESDEC (0xdeu | X64_0F38 | X64_16)
#define X64_AESDECLAST (0xdfu | X64_0F38 | X64_16)
// AVX, see x64_vex: `reg` = `extra` op `rm`. Of scalars, to be or-ed with X64_SS or X64_SD; a
// single's result has bits 32 and up from `extra`.
#define X64_SS X64_F3
#define X64_SD X64_F2
#define X64_VADD (0x58u | X64_0F)
#define X64_VMUL (0x59u | X64_0F)
#define X64_VSUB (0x5cu | X64_0F)
#define X64_VMIN (0x5du | X64_0F)
#define X64_VDIV (0x5eu | X64_0F)
#define X64_VMAX (0x5fu | X64_0F)
#define X64_VSQRT (0x51u | X64_0F)
#define X64_VCVT (0x5au | X64_0F)           // to the other format
#define X64_VCVT_FROM_INT (0x2au | X64_0F)  // `rm` is an integer register
#define X64_VCVT_TO_INT (0x2du | X64_0F)    // `reg` is one, `extra` 0
#define X64_VCVT_TRUNCATE (0x2cu | X64_0F)  // to an integer register
#define X64_VMOV_LOAD (0x10u | X64_0F)      // between registers, only the low part is of `rm`
#define X64_VMOV_STORE (0x11u | X64_0F)
// Of all bits, or of packed ones.
#define X64_VMOVAPS (0x28u | X64_0F)
#define X64_VANDPS (0x54u | X64_0F)
#define X64_VANDNPS (0x55u | X64_0F)  // ~extra & rm
#define X64_VORPS (0x56u | X64_0F)
#define X64_VXORPS (0x57u | X64_0F)
#define X64_VPCMPEQD (0x76u | X64_0F | X64_16)
#define X64_VPSHIFTQ (0x73u | X64_0F | X64_16)  // with x64_vex_imm: extra = rm shifted
#define X64_VUCOMISS (0x2eu | X64_0F)           // sets flags as an unsigned comparison, and P
#define X64_VUCOMISD (X64_VUCOMISS | X64_16)
#define X64_VROUNDSS (0x0au | X64_0F3A | X64_16)  // with x64_vex_imm
#define X64_VROUNDSD (0x0bu | X64_0F3A | X64_16)
// reg = +-(extra * reg) +- rm, of singles, of doubles with X64_W.
#define X64_VFMADD (0xa9u | X64_0F38 | X64_16)
#define X64_VFMSUB (0xabu | X64_0F38 | X64_16)
#define X64_VFNMADD (0xadu | X64_0F38 | X64_16)
#define X64_VFNMSUB (0xafu | X64_0F38 | X64_16)
// Digits of X64_VPSHIFTQ, X64_MXCSR.
#define X64_PSRLQ 2
#define X64_PSLLQ 6
#define X64_MXCSR (0xaeu | X64_0F)
#define X64_LDMXCSR 2
#define X64_STMXCSR 3
// Read-modify-write `op memory, reg`, behind x64_lock; the register gets the old value of the first
// two, X64_CMPXCHG compares with rax and sets it.
#define X64_XCHG 0x87u
#define X64_XADD (0xc1u | X64_0F)
#define X64_CMPXCHG (0xb1u | X64_0F)
#define X64_OR_TO 0x09u
#define X64_AND_TO 0x21u
#define X64_XOR_TO 0x31u
// Bit operations `op reg/memory, reg`.
#define X64_BTS (0xabu | X64_0F)
#define X64_BTR (0xb3u | X64_0F)
#define X64_BTC (0xbbu | X64_0F)

// The operation of an immediate form (the digit of opcodes 0x81 and 0x83).
enum x64_group1 {
    X64_I_ADD = 0,
    X64_I_OR = 1,
    X64_I_AND = 4,
    X64_I_SUB = 5,
    X64_I_XOR = 6,
    X64_I_CMP = 7
};
// The digit of shifts (0xc1, 0xd3).
enum x64_group2 { X64_ROL = 0, X64_ROR = 1, X64_SHL = 4, X64_SHR = 5, X64_SAR = 7 };
// The digit of opcode 0xf7.
enum x64_group3 { X64_NOT = 2, X64_NEG = 3, X64_MUL = 4, X64_IMUL1 = 5, X64_DIV = 6, X64_IDIV = 7 };

// The digit of bit operations with an immediate (0x0f 0xba).
enum x64_group8 { X64_BIT_SET = 5, X64_BIT_RESET = 6, X64_BIT_INVERT = 7 };

enum x64_condition {
    X64_C_O = 0,  // signed overflow
    X64_C_B = 2,  // unsigned less
    X64_C_AE = 3,
    X64_C_E = 4,
    X64_C_NE = 5,
    X64_C_BE = 6,
    X64_C_A = 7,
    X64_C_S = 8,   // negative
    X64_C_P = 10,  // of X64_VUCOMISS: unordered
    X64_C_NP = 11,
    X64_C_L = 12,  // signed less
    X64_C_GE = 13,
    X64_C_LE = 14,
    X64_C_G = 15,
};

struct x64 {
    uint8_t *out, *end;
    ptrdiff_t exec_offset;
    bool full;
};

// The address at which the next instruction will be executed.
static inline const uint8_t *x64_here(const struct x64 *x64)
{
    return x64->out + x64->exec_offset;
}

// `op reg, rm` and the forms of a memory operand: base + displacement, or an absolute address
// within 2 GiB of the code. An opcode whose destination is its rm operand has the order reversed.
void x64_rr(struct x64 *x64, unsigned opcode, unsigned reg, unsigned rm);
void x64_rr_imm(struct x64 *x64, unsigned opcode, unsigned reg, unsigned rm, uint8_t value);
void x64_rm(struct x64 *x64, unsigned opcode, unsigned reg, unsigned base, int32_t displacement);
void x64_rip(struct x64 *x64, unsigned opcode, unsigned reg, const void *address);
// BMI2; `width` is 0 or X64_W.
void x64_rorx(struct x64 *x64, unsigned width, unsigned reg, unsigned rm, unsigned count);
// op reg, [2 * index + displacement], an absolute address; index is not rsp.
void x64_rm_twice(struct x64 *x64, unsigned opcode, unsigned reg, unsigned index,
                  int32_t displacement);
// op reg, [base + index + displacement]; index is not rsp.
void x64_rm_index(struct x64 *x64, unsigned opcode, unsigned reg, unsigned base, unsigned index,
                  int32_t displacement);
// op reg, gs:[base + displacement], with nops behind up to `bytes_min`.
void x64_gs_rm(struct x64 *x64, unsigned opcode, unsigned reg, unsigned base, int32_t displacement,
               unsigned bytes_min);
// lea reg, [base + index * scale], scale 1, 2, 4 or 8; index is not rsp.
void x64_lea_scaled(struct x64 *x64, unsigned reg, unsigned base, unsigned index, unsigned scale);

// Instructions with a third register, encoded with a VEX prefix.
void x64_vex(struct x64 *x64, unsigned opcode, unsigned reg, unsigned extra, unsigned rm);
void x64_vex_rm(struct x64 *x64, unsigned opcode, unsigned reg, unsigned extra, unsigned base,
                int32_t displacement);
void x64_vex_imm(struct x64 *x64, unsigned opcode, unsigned reg, unsigned extra, unsigned rm,
                 uint8_t value);

void x64_mov_imm(struct x64 *x64, unsigned reg, uint64_t value);
// `width` is 0 or X64_W.
void x64_alu_imm(struct x64 *x64, enum x64_group1 op, unsigned width, unsigned reg, int32_t value);
void x64_alu_mem_imm(struct x64 *x64, enum x64_group1 op, unsigned width, unsigned base,
                     int32_t displacement, int32_t value);
void x64_store_imm(struct x64 *x64, unsigned base, int32_t displacement, int32_t value);  // 64 bits
void x64_lock(struct x64 *x64);                                   // prefixes the next instruction
void x64_test_imm(struct x64 *x64, unsigned reg, int32_t value);  // 32 bits
void x64_test_mem_imm(struct x64 *x64, unsigned base, int32_t displacement, int32_t value);
void x64_shift_imm(struct x64 *x64, enum x64_group2 op, unsigned width, unsigned reg,
                   unsigned count);
void x64_shift_cl(struct x64 *x64, enum x64_group2 op, unsigned width, unsigned reg);
void x64_unary(struct x64 *x64, enum x64_group3 op, unsigned width, unsigned reg);
void x64_sign_rdx(struct x64 *x64, unsigned width);  // cqo, cdq
void x64_bswap(struct x64 *x64, unsigned reg);
// The low byte of `reg` becomes 0 or 1.
void x64_setcc(struct x64 *x64, enum x64_condition condition, unsigned reg);
void x64_bit_imm(struct x64 *x64, enum x64_group8 op, unsigned reg, unsigned bit);
void x64_cmp_mem8_imm(struct x64 *x64, unsigned base, int32_t displacement, uint8_t value);
void x64_rip_mov8_imm(struct x64 *x64, const void *address, uint8_t value);
void x64_rip_cmp8_imm(struct x64 *x64, const void *address, uint8_t value);
void x64_push(struct x64 *x64, unsigned reg);
void x64_pop(struct x64 *x64, unsigned reg);
void x64_ret(struct x64 *x64);
void x64_full_fence(struct x64 *x64);  // lock or dword [rsp], 0

void x64_jmp(struct x64 *x64, const void *target);
void x64_jcc(struct x64 *x64, enum x64_condition condition, const void *target);
void x64_call(struct x64 *x64, const void *target);
void x64_jmp_reg(struct x64 *x64, unsigned reg);
void x64_jmp_mem(struct x64 *x64, unsigned base, int32_t displacement);
void x64_call_mem(struct x64 *x64, unsigned base, int32_t displacement);
void x64_call_far(struct x64 *x64, const void *target);  // spoils rax

// Jumps forward: these return the place of a displacement, to be given to x64_bind (which makes it
// lead to the next instruction) or x64_patch (anywhere). Patching one aligned-or-not displacement
// is only done while no thread executes the code.
uint8_t *x64_jmp_forward(struct x64 *x64);
uint8_t *x64_jcc_forward(struct x64 *x64, enum x64_condition condition);
void x64_bind(struct x64 *x64, uint8_t *place);
void x64_patch(uint8_t *place, ptrdiff_t exec_offset, const void *target);

#endif
