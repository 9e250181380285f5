// SPDX-License-Identifier: BSD-2-Clause
// Integer instructions that take more than a line of C: of Zbb, Zbc and the scalar Cryptography
// Extensions 1.0.1 (Zbkb, Zbkx, Zkne, Zknd, Zknh), as those documents define them. Pure functions.
#include "hart/hart.h"

// ---- Bits and bytes

// Each byte that is not zero becomes 0xff.
static uint64_t or_combine_bytes(uint64_t value)
{
    const uint64_t low = 0x0101010101010101, high = low << 7;
    uint64_t set = (((value & ~high) + ~high) | value) & high;  // bit 7 of each byte that is not 0

    return (set >> 7) * 0xff;
}

static uint64_t reverse_bits_of_bytes(uint64_t value)
{
    const uint64_t ones = 0x5555555555555555, pairs = 0x3333333333333333,
                   nibbles = 0x0f0f0f0f0f0f0f0f;

    value = (value >> 1 & ones) | (value & ones) << 1;
    value = (value >> 2 & pairs) | (value & pairs) << 2;
    return (value >> 4 & nibbles) | (value & nibbles) << 4;
}

// Elements of `width` bits of `table`, chosen by those of `indices`; beyond its end they are 0.
static uint64_t permute(uint64_t table, uint64_t indices, unsigned width)
{
    const uint64_t mask = (1u << width) - 1;
    uint64_t result = 0;

    for (unsigned at = 0; at < 64; at += width) {
        uint64_t index = indices >> at & mask;

        if (index * width < 64)
            result |= (table >> index * width & mask) << at;
    }
    return result;
}

static unsigned __int128 multiply_carryless(uint64_t a, uint64_t b)
{
    unsigned __int128 product = 0;

    for (unsigned i = 0; i < 64; i++)
        if (b >> i & 1)
            product ^= (unsigned __int128)a << i;
    return product;
}

// ---- AES, FIPS 197. A state is two columns in each of two registers, first bytes lowest.

static const uint8_t aes_substitution[256] = {
    0x63, 0x7c, 0x77, 0x7b, 0xf2, 0x6b, 0x6f, 0xc5, 0x30, 0x01, 0x67, 0x2b, 0xfe, 0xd7, 0xab, 0x76,
    0xca, 0x82, 0xc9, 0x7d, 0xfa, 0x59, 0x47, 0xf0, 0xad, 0xd4, 0xa2, 0xaf, 0x9c, 0xa4, 0x72, 0xc0,
    0xb7, 0xfd, 0x93, 0x26, 0x36, 0x3f, 0xf7, 0xcc, 0x34, 0xa5, 0xe5, 0xf1, 0x71, 0xd8, 0x31, 0x15,
    0x04, 0xc7, 0x23, 0xc3, 0x18, 0x96, 0x05, 0x9a, 0x07, 0x12, 0x80, 0xe2, 0xeb, 0x27, 0xb2, 0x75,
    0x09, 0x83, 0x2c, 0x1a, 0x1b, 0x6e, 0x5a, 0xa0, 0x52, 0x3b, 0xd6, 0xb3, 0x29, 0xe3, 0x2f, 0x84,
    0x53, 0xd1, 0x00, 0xed, 0x20, 0xfc, 0xb1, 0x5b, 0x6a, 0xcb, 0xbe, 0x39, 0x4a, 0x4c, 0x58, 0xcf,
    0xd0, 0xef, 0xaa, 0xfb, 0x43, 0x4d, 0x33, 0x85, 0x45, 0xf9, 0x02, 0x7f, 0x50, 0x3c, 0x9f, 0xa8,
    0x51, 0xa3, 0x40, 0x8f, 0x92, 0x9d, 0x38, 0xf5, 0xbc, 0xb6, 0xda, 0x21, 0x10, 0xff, 0xf3, 0xd2,
    0xcd, 0x0c, 0x13, 0xec, 0x5f, 0x97, 0x44, 0x17, 0xc4, 0xa7, 0x7e, 0x3d, 0x64, 0x5d, 0x19, 0x73,
    0x60, 0x81, 0x4f, 0xdc, 0x22, 0x2a, 0x90, 0x88, 0x46, 0xee, 0xb8, 0x14, 0xde, 0x5e, 0x0b, 0xdb,
    0xe0, 0x32, 0x3a, 0x0a, 0x49, 0x06, 0x24, 0x5c, 0xc2, 0xd3, 0xac, 0x62, 0x91, 0x95, 0xe4, 0x79,
    0xe7, 0xc8, 0x37, 0x6d, 0x8d, 0xd5, 0x4e, 0xa9, 0x6c, 0x56, 0xf4, 0xea, 0x65, 0x7a, 0xae, 0x08,
    0xba, 0x78, 0x25, 0x2e, 0x1c, 0xa6, 0xb4, 0xc6, 0xe8, 0xdd, 0x74, 0x1f, 0x4b, 0xbd, 0x8b, 0x8a,
    0x70, 0x3e, 0xb5, 0x66, 0x48, 0x03, 0xf6, 0x0e, 0x61, 0x35, 0x57, 0xb9, 0x86, 0xc1, 0x1d, 0x9e,
    0xe1, 0xf8, 0x98, 0x11, 0x69, 0xd9, 0x8e, 0x94, 0x9b, 0x1e, 0x87, 0xe9, 0xce, 0x55, 0x28, 0xdf,
    0x8c, 0xa1, 0x89, 0x0d, 0xbf, 0xe6, 0x42, 0x68, 0x41, 0x99, 0x2d, 0x0f, 0xb0, 0x54, 0xbb, 0x16,
};

static const uint8_t aes_inverse_substitution[256] = {
    0x52, 0x09, 0x6a, 0xd5, 0x30, 0x36, 0xa5, 0x38, 0xbf, 0x40, 0xa3, 0x9e, 0x81, 0xf3, 0xd7, 0xfb,
    0x7c, 0xe3, 0x39, 0x82, 0x9b, 0x2f, 0xff, 0x87, 0x34, 0x8e, 0x43, 0x44, 0xc4, 0xde, 0xe9, 0xcb,
    0x54, 0x7b, 0x94, 0x32, 0xa6, 0xc2, 0x23, 0x3d, 0xee, 0x4c, 0x95, 0x0b, 0x42, 0xfa, 0xc3, 0x4e,
    0x08, 0x2e, 0xa1, 0x66, 0x28, 0xd9, 0x24, 0xb2, 0x76, 0x5b, 0xa2, 0x49, 0x6d, 0x8b, 0xd1, 0x25,
    0x72, 0xf8, 0xf6, 0x64, 0x86, 0x68, 0x98, 0x16, 0xd4, 0xa4, 0x5c, 0xcc, 0x5d, 0x65, 0xb6, 0x92,
    0x6c, 0x70, 0x48, 0x50, 0xfd, 0xed, 0xb9, 0xda, 0x5e, 0x15, 0x46, 0x57, 0xa7, 0x8d, 0x9d, 0x84,
    0x90, 0xd8, 0xab, 0x00, 0x8c, 0xbc, 0xd3, 0x0a, 0xf7, 0xe4, 0x58, 0x05, 0xb8, 0xb3, 0x45, 0x06,
    0xd0, 0x2c, 0x1e, 0x8f, 0xca, 0x3f, 0x0f, 0x02, 0xc1, 0xaf, 0xbd, 0x03, 0x01, 0x13, 0x8a, 0x6b,
    0x3a, 0x91, 0x11, 0x41, 0x4f, 0x67, 0xdc, 0xea, 0x97, 0xf2, 0xcf, 0xce, 0xf0, 0xb4, 0xe6, 0x73,
    0x96, 0xac, 0x74, 0x22, 0xe7, 0xad, 0x35, 0x85, 0xe2, 0xf9, 0x37, 0xe8, 0x1c, 0x75, 0xdf, 0x6e,
    0x47, 0xf1, 0x1a, 0x71, 0x1d, 0x29, 0xc5, 0x89, 0x6f, 0xb7, 0x62, 0x0e, 0xaa, 0x18, 0xbe, 0x1b,
    0xfc, 0x56, 0x3e, 0x4b, 0xc6, 0xd2, 0x79, 0x20, 0x9a, 0xdb, 0xc0, 0xfe, 0x78, 0xcd, 0x5a, 0xf4,
    0x1f, 0xdd, 0xa8, 0x33, 0x88, 0x07, 0xc7, 0x31, 0xb1, 0x12, 0x10, 0x59, 0x27, 0x80, 0xec, 0x5f,
    0x60, 0x51, 0x7f, 0xa9, 0x19, 0xb5, 0x4a, 0x0d, 0x2d, 0xe5, 0x7a, 0x9f, 0x93, 0xc9, 0x9c, 0xef,
    0xa0, 0xe0, 0x3b, 0x4d, 0xae, 0x2a, 0xf5, 0xb0, 0xc8, 0xeb, 0xbb, 0x3c, 0x83, 0x53, 0x99, 0x61,
    0x17, 0x2b, 0x04, 0x7e, 0xba, 0x77, 0xd6, 0x26, 0xe1, 0x69, 0x14, 0x63, 0x55, 0x21, 0x0c, 0x7d,
};

static const uint8_t aes_round_constants[10] = {1, 2, 4, 8, 16, 32, 64, 128, 0x1b, 0x36};

// The first two columns of the state `low`, `high` after its rows were shifted and its bytes
// substituted.
static uint64_t aes_shift_substitute(uint64_t low, uint64_t high, bool inverse)
{
    const uint8_t *table = inverse ? aes_inverse_substitution : aes_substitution;
    uint64_t result = 0;

    for (unsigned i = 0; i < 8; i++) {
        unsigned row = i & 3, column = i >> 2;
        unsigned from = ((inverse ? column - row : column + row) & 3) * 4 + row;
        uint8_t byte = (uint8_t)((from < 8 ? low : high) >> 8 * (from & 7));

        result |= (uint64_t)table[byte] << 8 * i;
    }
    return result;
}

// The product in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1.
static uint8_t aes_multiply(unsigned a, unsigned b)
{
    unsigned product = 0;

    for (; b; b >>= 1, a = a << 1 ^ (a & 0x80 ? 0x11b : 0))
        if (b & 1)
            product ^= a;
    return (uint8_t)product;
}

// Each column of `columns` times the matrix whose first row is `row`.
static uint64_t aes_mix_columns(uint64_t columns, const uint8_t row[4])
{
    uint64_t result = 0;

    for (unsigned i = 0; i < 8; i++)
        for (unsigned j = 0; j < 4; j++) {
            unsigned from = (i & 4) | ((i + j) & 3);
            uint64_t product = aes_multiply((uint8_t)(columns >> 8 * from), row[j]);

            result ^= product << 8 * i;
        }
    return result;
}

static uint64_t aes_mix(uint64_t columns)
{
    return aes_mix_columns(columns, (const uint8_t[]){2, 3, 1, 1});
}

static uint64_t aes_unmix(uint64_t columns)
{
    return aes_mix_columns(columns, (const uint8_t[]){14, 11, 13, 9});
}

static uint64_t aes_key_word(uint64_t key, unsigned round)
{
    uint32_t word = (uint32_t)(key >> 32), result = 0;

    if (round < BASE_COUNT_OF(aes_round_constants))
        word = word >> 8 | word << 24;
    for (unsigned i = 0; i < 4; i++)
        result |= (uint32_t)aes_substitution[word >> 8 * i & 0xff] << 8 * i;
    if (round < BASE_COUNT_OF(aes_round_constants))
        result ^= aes_round_constants[round];
    return (uint64_t)result << 32 | result;
}

static uint64_t aes_key_words(uint64_t word, uint64_t key)
{
    key ^= word >> 32;
    return key ^ key << 32;
}

// ---- SHA-2, FIPS 180-4, sections 4.1.2 and 4.1.3

static uint64_t rotate_right(uint64_t value, unsigned count)
{
    return value >> count | value << (64 - count);
}

static uint32_t rotate_right_word(uint32_t value, unsigned count)
{
    return value >> count | value << (32 - count);
}

static uint64_t sign_extend(uint32_t word)
{
    return (uint64_t)(int32_t)word;
}

static uint64_t sha256_sum(uint32_t x, unsigned a, unsigned b, unsigned c)
{
    return sign_extend(rotate_right_word(x, a) ^ rotate_right_word(x, b) ^ rotate_right_word(x, c));
}

static uint64_t sha256_sigma(uint32_t x, unsigned a, unsigned b, unsigned shift)
{
    return sign_extend(rotate_right_word(x, a) ^ rotate_right_word(x, b) ^ x >> shift);
}

static uint64_t sha512_sum(uint64_t x, unsigned a, unsigned b, unsigned c)
{
    return rotate_right(x, a) ^ rotate_right(x, b) ^ rotate_right(x, c);
}

static uint64_t sha512_sigma(uint64_t x, unsigned a, unsigned b, unsigned shift)
{
    return rotate_right(x, a) ^ rotate_right(x, b) ^ x >> shift;
}

// clang-format off
uint64_t hart_bits(enum isa_op op, uint64_t a, uint64_t b, unsigned immediate)
{
    switch (op) {
    case ISA_CLZ: return a ? (unsigned)__builtin_clzll(a) : 64;
    case ISA_CTZ: return a ? (unsigned)__builtin_ctzll(a) : 64;
    case ISA_CPOP: return (unsigned)__builtin_popcountll(a);
    case ISA_CLZW: return (uint32_t)a ? (unsigned)__builtin_clz((uint32_t)a) : 32;
    case ISA_CTZW: return (uint32_t)a ? (unsigned)__builtin_ctz((uint32_t)a) : 32;
    case ISA_CPOPW: return (unsigned)__builtin_popcount((uint32_t)a);
    case ISA_ORC_B: return or_combine_bytes(a);
    case ISA_CLMUL: return (uint64_t)multiply_carryless(a, b);
    case ISA_CLMULH: return (uint64_t)(multiply_carryless(a, b) >> 64);
    case ISA_CLMULR: return (uint64_t)(multiply_carryless(a, b) >> 63);
    case ISA_PACK: return (uint32_t)a | b << 32;
    case ISA_PACKH: return (uint8_t)a | (b & 0xff) << 8;
    case ISA_PACKW: return sign_extend((uint16_t)a | (uint32_t)b << 16);
    case ISA_BREV8: return reverse_bits_of_bytes(a);
    case ISA_XPERM4: return permute(a, b, 4);
    case ISA_XPERM8: return permute(a, b, 8);
    case ISA_AES64ES: return aes_shift_substitute(a, b, false);
    case ISA_AES64ESM: return aes_mix(aes_shift_substitute(a, b, false));
    case ISA_AES64DS: return aes_shift_substitute(a, b, true);
    case ISA_AES64DSM: return aes_unmix(aes_shift_substitute(a, b, true));
    case ISA_AES64IM: return aes_unmix(a);
    case ISA_AES64KS1I: return aes_key_word(a, immediate);
    case ISA_AES64KS2: return aes_key_words(a, b);
    case ISA_SHA256SUM0: return sha256_sum((uint32_t)a, 2, 13, 22);
    case ISA_SHA256SUM1: return sha256_sum((uint32_t)a, 6, 11, 25);
    case ISA_SHA256SIG0: return sha256_sigma((uint32_t)a, 7, 18, 3);
    case ISA_SHA256SIG1: return sha256_sigma((uint32_t)a, 17, 19, 10);
    case ISA_SHA512SUM0: return sha512_sum(a, 28, 34, 39);
    case ISA_SHA512SUM1: return sha512_sum(a, 14, 18, 41);
    case ISA_SHA512SIG0: return sha512_sigma(a, 1, 8, 7);
    case ISA_SHA512SIG1: return sha512_sigma(a, 19, 61, 6);
    default: return 0;  // no other operation is passed
    }
}
// clang-format on
