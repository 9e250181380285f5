// SPDX-License-Identifier: BSD-2-Clause
// Translation of Zbc and the scalar Cryptography Extensions, where the host has instructions that
// do the same: AES-NI computes on a whole state what the guest's instructions do on half of one.
#include "jit/translator.h"

enum { STATE, OTHER };  // xmm registers

// The state: rs1 below rs2.
static void load_state(struct jit_translator *t)
{
    x64_rr(&t->x64, X64_MOVQ_TO_XMM, STATE, source(t, t->insn.rs1, X64_RAX));
    x64_rr(&t->x64, X64_MOVQ_TO_XMM, OTHER, source(t, t->insn.rs2, X64_RAX));
    x64_rr(&t->x64, X64_PUNPCKLQDQ, STATE, OTHER);
}

static void finish_state(struct jit_translator *t)
{
    unsigned host = target(t);

    x64_rr(&t->x64, X64_MOVQ_FROM_XMM, STATE, host);
    finish(t, host);
}

static bool lacks(struct jit_translator *t, enum jit_cpu feature)
{
    if (t->jit->cpu & feature)
        return false;
    jit_call_helper(t, jit_help_integer);
    return true;
}

// A round with a key of zero.
static void aes_round(struct jit_translator *t, unsigned opcode)
{
    if (lacks(t, JIT_CPU_AES))
        return;
    load_state(t);
    x64_rr(&t->x64, X64_PXOR, OTHER, OTHER);
    x64_rr(&t->x64, opcode, STATE, OTHER);
    finish_state(t);
}

static void aes_unmix(struct jit_translator *t)
{
    if (lacks(t, JIT_CPU_AES))
        return;
    x64_rr(&t->x64, X64_MOVQ_TO_XMM, STATE, source(t, t->insn.rs1, X64_RAX));
    x64_rr(&t->x64, X64_AESIMC, STATE, STATE);
    finish_state(t);
}

// The host's instruction makes two words of the key's second one: the first substituted, the next
// rotated too and with the round's constant. Round 10 here is the one without rotation.
static void aes_key_word(struct jit_translator *t)
{
    static const uint8_t constants[11] = {1, 2, 4, 8, 16, 32, 64, 128, 0x1b, 0x36, 0};
    unsigned round = (unsigned)t->insn.imm;

    if (lacks(t, JIT_CPU_AES))
        return;
    x64_rr(&t->x64, X64_MOVQ_TO_XMM, STATE, source(t, t->insn.rs1, X64_RAX));
    x64_rr_imm(&t->x64, X64_AESKEYGENASSIST, STATE, STATE, constants[round]);
    x64_rr_imm(&t->x64, X64_PSHUFD, STATE, STATE, round < 10 ? 0x55 : 0);
    finish_state(t);
}

static void aes_key_words(struct jit_translator *t)
{
    load_x(t, X64_RAX, t->insn.rs1);
    x64_shift_imm(&t->x64, X64_SHR, W, X64_RAX, 32);
    op_x(t, X64_XOR | W, X64_RAX, t->insn.rs2);
    x64_rr(&t->x64, X64_MOV | W, X64_RCX, X64_RAX);
    x64_shift_imm(&t->x64, X64_SHL, W, X64_RCX, 32);
    x64_rr(&t->x64, X64_XOR | W, X64_RAX, X64_RCX);
    finish(t, X64_RAX);
}

static void multiply_carryless(struct jit_translator *t)
{
    x64_rr(&t->x64, X64_MOVQ_TO_XMM, STATE, source(t, t->insn.rs1, X64_RAX));
    x64_rr(&t->x64, X64_MOVQ_TO_XMM, OTHER, source(t, t->insn.rs2, X64_RAX));
    x64_rr_imm(&t->x64, X64_PCLMULQDQ, STATE, OTHER, 0);
}

static void multiply_carryless_low(struct jit_translator *t)
{
    if (lacks(t, JIT_CPU_CLMUL))
        return;
    multiply_carryless(t);
    finish_state(t);
}

static void multiply_carryless_high(struct jit_translator *t)
{
    if (lacks(t, JIT_CPU_CLMUL))
        return;
    multiply_carryless(t);
    x64_rr(&t->x64, X64_PUNPCKHQDQ, STATE, STATE);
    finish_state(t);
}

// Bits 63 to 126 of the product.
static void multiply_carryless_reversed(struct jit_translator *t)
{
    if (lacks(t, JIT_CPU_CLMUL))
        return;
    multiply_carryless(t);
    x64_rr(&t->x64, X64_MOVQ_FROM_XMM, STATE, X64_RCX);
    x64_rr(&t->x64, X64_PUNPCKHQDQ, STATE, STATE);
    x64_rr(&t->x64, X64_MOVQ_FROM_XMM, STATE, X64_RAX);
    x64_shift_imm(&t->x64, X64_SHR, W, X64_RCX, 63);
    x64_lea_scaled(&t->x64, X64_RAX, X64_RCX, X64_RAX, 2);
    finish(t, X64_RAX);
}

// rs1 rotated by `a` xor rotated by `b` xor rotated (ROR) or shifted (SHR) by `c`.
static void sha(struct jit_translator *t, unsigned width, unsigned a, unsigned b,
                enum x64_group2 last, unsigned c)
{
    struct x64 *x64 = &t->x64;

    load_x(t, X64_RAX, t->insn.rs1);
    x64_rr(x64, X64_MOV | width, X64_RCX, X64_RAX);
    x64_rr(x64, X64_MOV | width, X64_RDX, X64_RAX);
    x64_shift_imm(x64, X64_ROR, width, X64_RAX, a);
    x64_shift_imm(x64, X64_ROR, width, X64_RCX, b);
    x64_shift_imm(x64, last, width, X64_RDX, c);
    x64_rr(x64, X64_XOR | width, X64_RAX, X64_RCX);
    x64_rr(x64, X64_XOR | width, X64_RAX, X64_RDX);
    if (!width)
        x64_rr(x64, X64_MOVSXD, X64_RAX, X64_RAX);
    finish(t, X64_RAX);
}

// The low parts of rs1 and rs2, which `opcode` loads, beside each other.
static void pack(struct jit_translator *t, unsigned opcode, unsigned bits)
{
    op_x(t, opcode, X64_RAX, t->insn.rs1);
    op_x(t, opcode, X64_RCX, t->insn.rs2);
    x64_shift_imm(&t->x64, X64_SHL, W, X64_RCX, bits);
    x64_rr(&t->x64, X64_OR | W, X64_RAX, X64_RCX);
    if (t->insn.op == ISA_PACKW)
        x64_rr(&t->x64, X64_MOVSXD, X64_RAX, X64_RAX);
    finish(t, X64_RAX);
}

// clang-format off
bool jit_translate_crypto(struct jit_translator *t)
{
    switch (t->insn.op) {
    case ISA_CLMUL: multiply_carryless_low(t); break;
    case ISA_CLMULH: multiply_carryless_high(t); break;
    case ISA_CLMULR: multiply_carryless_reversed(t); break;
    case ISA_PACK: pack(t, X64_MOV, 32); break;
    case ISA_PACKH: pack(t, X64_MOVZX_8, 8); break;
    case ISA_PACKW: pack(t, X64_MOVZX_16, 16); break;
    case ISA_BREV8: case ISA_XPERM4: case ISA_XPERM8: jit_call_helper(t, jit_help_integer); break;
    case ISA_AES64ES: aes_round(t, X64_AESENCLAST); break;
    case ISA_AES64ESM: aes_round(t, X64_AESENC); break;
    case ISA_AES64DS: aes_round(t, X64_AESDECLAST); break;
    case ISA_AES64DSM: aes_round(t, X64_AESDEC); break;
    case ISA_AES64IM: aes_unmix(t); break;
    case ISA_AES64KS1I: aes_key_word(t); break;
    case ISA_AES64KS2: aes_key_words(t); break;
    case ISA_SHA256SUM0: sha(t, 0, 2, 13, X64_ROR, 22); break;
    case ISA_SHA256SUM1: sha(t, 0, 6, 11, X64_ROR, 25); break;
    case ISA_SHA256SIG0: sha(t, 0, 7, 18, X64_SHR, 3); break;
    case ISA_SHA256SIG1: sha(t, 0, 17, 19, X64_SHR, 10); break;
    case ISA_SHA512SUM0: sha(t, W, 28, 34, X64_ROR, 39); break;
    case ISA_SHA512SUM1: sha(t, W, 14, 18, X64_ROR, 41); break;
    case ISA_SHA512SIG0: sha(t, W, 1, 8, X64_SHR, 7); break;
    case ISA_SHA512SIG1: sha(t, W, 19, 61, X64_SHR, 6); break;
    default: return false;
    }
    return true;
}
// clang-format on
