// SPDX-License-Identifier: BSD-2-Clause
// hash: SHA-256 (FIPS 180-4), CRC-32 by a table and FNV-1a of a buffer. Rotations, shifts and
// additions of 32 bits; a byte, a table and an exclusive or; a multiplication that waits for the
// last.
#include <string.h>

#include "kernel.h"

enum { BYTES = 1 << 20, BLOCK = 64 };

static uint32_t rotated(uint32_t x, unsigned by)
{
    return x >> by | x << (32 - by);
}

static uint32_t big_endian(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

// SHA-256's constants: the first bits of the fractional parts of roots of the first primes, FIPS
// 180-4, 4.2.2 and 5.3.3.
static const uint32_t round_constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
static const uint32_t initial_state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                          0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

// 6.2.2, step 1.
static void sha256_schedule(uint32_t w[64], const uint8_t *block)
{
    for (int t = 0; t < 16; t++)
        w[t] = big_endian(block + 4 * t);
    for (int t = 16; t < 64; t++) {
        uint32_t near = w[t - 2], far = w[t - 15];
        w[t] = (rotated(near, 17) ^ rotated(near, 19) ^ near >> 10) + w[t - 7] +
               (rotated(far, 7) ^ rotated(far, 18) ^ far >> 3) + w[t - 16];
    }
}

// 6.2.2, steps 2 to 4.
static void sha256_block(uint32_t state[8], const uint8_t *block)
{
    uint32_t w[64];
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4], f = state[5], g = state[6], h = state[7];

    sha256_schedule(w, block);
    for (int t = 0; t < 64; t++) {
        uint32_t one = h + (rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25)) +
                       ((e & f) ^ (~e & g)) + round_constants[t] + w[t];
        uint32_t two =
            (rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
        h = g, g = f, f = e, e = d + one;
        d = c, c = b, b = a, a = one + two;
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d;
    state[4] += e, state[5] += f, state[6] += g, state[7] += h;
}

// Whole blocks, without the padding at a message's end.
static void sha256(uint32_t state[8], const uint8_t *bytes, size_t length)
{
    memcpy(state, initial_state, sizeof(initial_state));
    for (size_t at = 0; at < length; at += BLOCK)
        sha256_block(state, bytes + at);
}

static void crc32_table(uint32_t table[256])
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t rest = byte;
        for (int bit = 0; bit < 8; bit++)
            rest = rest >> 1 ^ (rest & 1 ? 0xedb88320 : 0);
        table[byte] = rest;
    }
}

static uint32_t crc32(const uint32_t table[256], const uint8_t *bytes, size_t length)
{
    uint32_t rest = UINT32_MAX;

    for (size_t i = 0; i < length; i++)
        rest = rest >> 8 ^ table[(rest ^ bytes[i]) & 0xff];
    return ~rest;
}

static uint64_t fnv1a(const uint8_t *bytes, size_t length)
{
    uint64_t hash = 0xcbf29ce484222325u;

    for (size_t i = 0; i < length; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}

uint64_t kernel_run(unsigned long rounds)
{
    static uint8_t buffer[BYTES];
    uint32_t table[256], digest[8];
    uint64_t random = 1, sum = 0;

    for (size_t i = 0; i < BYTES; i++)
        buffer[i] = (uint8_t)kernel_random(&random);
    crc32_table(table);
    for (unsigned long round = 0; round < rounds; round++) {
        sha256(digest, buffer, BYTES);
        for (int i = 0; i < 8; i++)
            sum = kernel_mix(sum, digest[i]);
        sum = kernel_mix(sum, crc32(table, buffer, BYTES));
        sum = kernel_mix(sum, fnv1a(buffer, BYTES));
        buffer[sum % BYTES]++;
    }
    return sum;
}
