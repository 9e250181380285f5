#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Writes the test program of one extension's integer instructions: integer_tables.py EXTENSION.

Every instruction is one line of a model written from the Unprivileged ISA manual, on Python's
unbounded integers; it is run over all pairs of the operands below.
"""
import sys

XLEN = 1 << 64
OPERANDS = [
    0, 1, 2, 31, 32, 63, 64, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0x7FFFFFFF, 0x80000000, 0x80000001,
    0xFFFFFFFF, 0x100000000, 0x7FFFFFFFFFFFFFFF, 0x8000000000000000, 0x8000000000000001,
    0xFFFFFFFF80000000, 0xFFFFFFFF7FFFFFFF, 0xFFFFFFFFFFFFFFFE, 0xFFFFFFFFFFFFFFFF,
    0x0123456789ABCDEF, 0xFEDCBA9876543210, 0x00FF00FF00FF00FF, 0xA5A5A5A55A5A5A5A,
]
IMMEDIATES = [0, 1, -1, 2047, -2048, 0x555, -0x556]
SHIFTS64 = [0, 1, 7, 31, 32, 33, 62, 63]
SHIFTS32 = [0, 1, 7, 15, 30, 31]


def signed(value, bits=64):
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def word(value):
    return signed(value, 32)


def low(value):
    return value & 0xFFFFFFFF


def quotient(a, b):
    """Rounds towards zero; division by zero gives all ones."""
    return -1 if b == 0 else abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def remainder(a, b):
    return a if b == 0 else a - b * quotient(a, b)


def rotate_right(value, count, bits=64):
    value &= (1 << bits) - 1
    count %= bits
    return value >> count | value << (bits - count)


def leading_zeros(value, bits=64):
    return bits - (value & ((1 << bits) - 1)).bit_length()


def trailing_zeros(value, bits=64):
    value &= (1 << bits) - 1
    return (value & -value).bit_length() - 1 if value else bits


def or_combine(value):
    return sum(0xFF << i for i in range(0, 64, 8) if value >> i & 0xFF)


def swap_bytes(value):
    return int.from_bytes(value.to_bytes(8, "little"), "big")


def reverse_bits(value, bits):
    return int(f"{value:0{bits}b}"[::-1], 2)


def by_bytes(model, value):
    return int.from_bytes(bytes(model(byte) for byte in value.to_bytes(8, "little")), "little")


def carryless(a, b):
    product = 0
    for place in range(b.bit_length()):
        product ^= (b >> place & 1) * a << place
    return product


def permute(table, indices, bits):
    mask = (1 << bits) - 1
    return sum((table >> (indices >> at & mask) * bits & mask) << at for at in range(0, 64, bits))


# AES: FIPS 197, from its definitions.
def field_multiply(a, b):
    product = carryless(a, b)
    for place in range(15, 7, -1):
        product ^= (product >> place & 1) * 0x11B << place - 8
    return product


def field_inverse(value):
    result = 1
    for _ in range(254):
        result = field_multiply(result, value)
    return result


def affine(value):
    return value ^ 0x63 ^ sum(
        (sum(value >> (bit + step) % 8 for step in (4, 5, 6, 7)) & 1) << bit for bit in range(8))


SUBSTITUTE = [affine(field_inverse(value)) for value in range(256)]
SUBSTITUTE_INVERSE = [SUBSTITUTE.index(value) for value in range(256)]
ROUND_CONSTANTS = [1, 2, 4, 8, 16, 32, 64, 128, 0x1B, 0x36]


def shift_rows(low_half, high_half, step):
    state = (low_half | high_half << 64).to_bytes(16, "little")
    return bytes(state[(i + 4 * step * (i % 4)) % 16] for i in range(8))


def mix(columns, row):
    result = bytearray(8)
    for column in (0, 4):
        for i in range(4):
            for j in range(4):
                result[column + i] ^= field_multiply(columns[column + (i + j) % 4], row[j])
    return int.from_bytes(result, "little")


def encrypt(a, b):
    return bytes(SUBSTITUTE[byte] for byte in shift_rows(a, b, 1))


def decrypt(a, b):
    return bytes(SUBSTITUTE_INVERSE[byte] for byte in shift_rows(a, b, -1))


def key_word(a, number):
    source = list((a >> 32).to_bytes(4, "little"))
    if number < 10:
        source = source[1:] + source[:1]
    source = [SUBSTITUTE[byte] for byte in source]
    if number < 10:
        source[0] ^= ROUND_CONSTANTS[number]
    return int.from_bytes(bytes(source * 2), "little")


def key_words(a, b):
    first = a >> 32 ^ low(b)
    return first | (first ^ b >> 32) << 32


def rotations(a, counts, shift, bits):
    value = a & (1 << bits) - 1
    result = value >> shift if shift else 0
    for count in counts:
        result ^= rotate_right(value, count, bits)
    return signed(result, bits)


s = signed

# Two sources. Operands come in as unsigned 64-bit numbers; the result is cut to 64 bits.
REGISTER = {
    "rv64i": {
        "add": lambda a, b: a + b,
        "sub": lambda a, b: a - b,
        "sll": lambda a, b: a << (b & 63),
        "slt": lambda a, b: s(a) < s(b),
        "sltu": lambda a, b: a < b,
        "xor": lambda a, b: a ^ b,
        "srl": lambda a, b: a >> (b & 63),
        "sra": lambda a, b: s(a) >> (b & 63),
        "or": lambda a, b: a | b,
        "and": lambda a, b: a & b,
        "addw": lambda a, b: word(a + b),
        "subw": lambda a, b: word(a - b),
        "sllw": lambda a, b: word(a << (b & 31)),
        "srlw": lambda a, b: word(low(a) >> (b & 31)),
        "sraw": lambda a, b: word(a) >> (b & 31),
    },
    "rv64m": {
        "mul": lambda a, b: a * b,
        "mulh": lambda a, b: s(a) * s(b) >> 64,
        "mulhsu": lambda a, b: s(a) * b >> 64,
        "mulhu": lambda a, b: a * b >> 64,
        "div": lambda a, b: quotient(s(a), s(b)),
        "divu": quotient,
        "rem": lambda a, b: remainder(s(a), s(b)),
        "remu": remainder,
        "mulw": lambda a, b: word(a * b),
        "divw": lambda a, b: word(quotient(word(a), word(b))),
        "divuw": lambda a, b: word(quotient(low(a), low(b))),
        "remw": lambda a, b: word(remainder(word(a), word(b))),
        "remuw": lambda a, b: word(remainder(low(a), low(b))),
    },
    "zba": {
        "add.uw": lambda a, b: low(a) + b,
        "sh1add": lambda a, b: (a << 1) + b,
        "sh2add": lambda a, b: (a << 2) + b,
        "sh3add": lambda a, b: (a << 3) + b,
        "sh1add.uw": lambda a, b: (low(a) << 1) + b,
        "sh2add.uw": lambda a, b: (low(a) << 2) + b,
        "sh3add.uw": lambda a, b: (low(a) << 3) + b,
    },
    "zbb": {
        "andn": lambda a, b: a & ~b,
        "orn": lambda a, b: a | ~b,
        "xnor": lambda a, b: ~(a ^ b),
        "max": lambda a, b: max(s(a), s(b)),
        "maxu": max,
        "min": lambda a, b: min(s(a), s(b)),
        "minu": min,
        "rol": lambda a, b: rotate_right(a, -b & 63),
        "ror": lambda a, b: rotate_right(a, b & 63),
        "rolw": lambda a, b: word(rotate_right(a, -b & 31, 32)),
        "rorw": lambda a, b: word(rotate_right(a, b & 31, 32)),
    },
    "zbs": {
        "bclr": lambda a, b: a & ~(1 << (b & 63)),
        "bext": lambda a, b: a >> (b & 63) & 1,
        "binv": lambda a, b: a ^ 1 << (b & 63),
        "bset": lambda a, b: a | 1 << (b & 63),
    },
    "zbc": {
        "clmul": carryless,
        "clmulh": lambda a, b: carryless(a, b) >> 64,
        "clmulr": lambda a, b: carryless(a, b) >> 63,
    },
    "zbk": {
        "pack": lambda a, b: low(a) | b << 32,
        "packh": lambda a, b: a & 0xFF | (b & 0xFF) << 8,
        "packw": lambda a, b: word(a & 0xFFFF | b << 16),
        "xperm4": lambda a, b: permute(a, b, 4),
        "xperm8": lambda a, b: permute(a, b, 8),
    },
    "zkn": {
        "aes64es": lambda a, b: int.from_bytes(encrypt(a, b), "little"),
        "aes64esm": lambda a, b: mix(encrypt(a, b), (2, 3, 1, 1)),
        "aes64ds": lambda a, b: int.from_bytes(decrypt(a, b), "little"),
        "aes64dsm": lambda a, b: mix(decrypt(a, b), (14, 11, 13, 9)),
        "aes64ks2": key_words,
    },
}

# One source and an immediate out of a list.
IMMEDIATE = {
    "rv64i": {
        "addi": (IMMEDIATES, lambda a, i: a + i),
        "slti": (IMMEDIATES, lambda a, i: s(a) < i),
        "sltiu": (IMMEDIATES, lambda a, i: a < i % XLEN),
        "xori": (IMMEDIATES, lambda a, i: a ^ i % XLEN),
        "ori": (IMMEDIATES, lambda a, i: a | i % XLEN),
        "andi": (IMMEDIATES, lambda a, i: a & i % XLEN),
        "addiw": (IMMEDIATES, lambda a, i: word(a + i)),
        "slli": (SHIFTS64, lambda a, i: a << i),
        "srli": (SHIFTS64, lambda a, i: a >> i),
        "srai": (SHIFTS64, lambda a, i: s(a) >> i),
        "slliw": (SHIFTS32, lambda a, i: word(a << i)),
        "srliw": (SHIFTS32, lambda a, i: word(low(a) >> i)),
        "sraiw": (SHIFTS32, lambda a, i: word(a) >> i),
    },
    "zba": {"slli.uw": (SHIFTS64, lambda a, i: low(a) << i)},
    "zbb": {
        "rori": (SHIFTS64, rotate_right),
        "roriw": (SHIFTS32, lambda a, i: word(rotate_right(a, i, 32))),
    },
    "zbs": {
        "bclri": (SHIFTS64, lambda a, i: a & ~(1 << i)),
        "bexti": (SHIFTS64, lambda a, i: a >> i & 1),
        "binvi": (SHIFTS64, lambda a, i: a ^ 1 << i),
        "bseti": (SHIFTS64, lambda a, i: a | 1 << i),
    },
    "zkn": {"aes64ks1i": (range(11), key_word)},
}

# One source.
UNARY = {
    "zbb": {
        "clz": leading_zeros,
        "clzw": lambda a: leading_zeros(a, 32),
        "ctz": trailing_zeros,
        "ctzw": lambda a: trailing_zeros(a, 32),
        "cpop": lambda a: bin(a).count("1"),
        "cpopw": lambda a: bin(low(a)).count("1"),
        "sext.b": lambda a: signed(a, 8),
        "sext.h": lambda a: signed(a, 16),
        "zext.h": lambda a: a & 0xFFFF,
        "orc.b": or_combine,
        "rev8": swap_bytes,
    },
    "zbk": {"brev8": lambda a: by_bytes(lambda byte: reverse_bits(byte, 8), a)},
    "zkn": {
        "aes64im": lambda a: mix(a.to_bytes(8, "little"), (14, 11, 13, 9)),
        "sha256sum0": lambda a: rotations(a, (2, 13, 22), 0, 32),
        "sha256sum1": lambda a: rotations(a, (6, 11, 25), 0, 32),
        "sha256sig0": lambda a: rotations(a, (7, 18), 3, 32),
        "sha256sig1": lambda a: rotations(a, (17, 19), 10, 32),
        "sha512sum0": lambda a: rotations(a, (28, 34, 39), 0, 64),
        "sha512sum1": lambda a: rotations(a, (14, 18, 41), 0, 64),
        "sha512sig0": lambda a: rotations(a, (1, 8), 7, 64),
        "sha512sig1": lambda a: rotations(a, (19, 61), 6, 64),
    },
}


def rows(label, table):
    print(f"    .section .rodata\n    .balign 8\n{label}:")
    for row in table:
        print("    .dword " + ", ".join(f"{int(value) % XLEN:#x}" for value in row))
    print("    .text")


def main():
    extension = sys.argv[1]
    label = 0
    print('#include "cases.h"\n    program')
    for op, model in REGISTER.get(extension, {}).items():
        table = [(a, b, model(a, b)) for a in OPERANDS for b in OPERANDS]
        rows(f"rows_{label}", table)
        print(f"    table_rr {op}, rows_{label}, {len(table)}")
        label += 1
    immediate = IMMEDIATE.get(extension, {}).items()
    unary = [(op, ([None], lambda a, _, f=f: f(a))) for op, f in UNARY.get(extension, {}).items()]
    for op, (values, model) in [*immediate, *unary]:
        print(f"    about {op}")
        for value in values:
            table = [(a, model(a, value)) for a in OPERANDS]
            rows(f"rows_{label}", table)
            tail = "" if value is None else f",, {value}"
            print(f"    table_r {op}, rows_{label}, {len(table)}{tail}")
            label += 1
    print("    end_program")


main()
