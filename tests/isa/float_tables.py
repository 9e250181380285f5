#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Writes the test program of the F or D instructions that compute: float_tables.py rv64f|rv64d.

The model is exact: operands become fractions, the result is rounded once by IEEE 754-2019 section
4.3, with tininess detected after rounding (Unprivileged ISA, section 21.2). It shares nothing with
an emulator's way of doing it.
"""
import itertools
import random
import sys
from fractions import Fraction
from math import isqrt

NV, DZ, OF, UF, NX = 16, 8, 4, 2, 1
RNE, RTZ, RDN, RUP, RMM = range(5)
RM_NAMES = ["rne", "rtz", "rdn", "rup", "rmm"]


class Format:
    def __init__(self, width, exponent_bits):
        self.width, self.fraction_bits = width, width - exponent_bits - 1
        self.bias = (1 << exponent_bits - 1) - 1
        self.e_min = 1 - self.bias
        self.inf = ((1 << exponent_bits) - 1) << self.fraction_bits
        self.sign = 1 << width - 1
        self.quiet = 1 << self.fraction_bits - 1
        self.nan = self.inf | self.quiet
        self.box = (1 << 64) - (1 << width) if width < 64 else 0

    def unbox(self, register):
        """What the register holds: a single that is not NaN-boxed is the canonical NaN."""
        return register - self.box if register & self.box == self.box else self.nan

    def is_nan(self, x):
        return x & ~self.sign > self.inf

    def is_signaling(self, x):
        return self.is_nan(x) and not x & self.quiet

    def is_inf(self, x):
        return x & ~self.sign == self.inf

    def value(self, x):
        exponent = (x & self.inf) >> self.fraction_bits
        fraction = x & (1 << self.fraction_bits) - 1
        if exponent:
            fraction |= 1 << self.fraction_bits
        scale = max(exponent, 1) - self.bias - self.fraction_bits
        return (-1 if x & self.sign else 1) * Fraction(fraction) * Fraction(2) ** scale

    def round(self, value, rm, zero_sign=0):
        """The nearest representable of `value`, and flags."""
        if value == 0:
            return zero_sign, 0
        sign, value = (self.sign, -value) if value < 0 else (0, value)
        exponent = floor_log2(value)
        kept, inexact = round_integer(value, max(exponent, self.e_min) - self.fraction_bits, rm, sign)
        bits = self.assemble(kept, max(exponent, self.e_min))
        if bits >= self.inf:
            away = rm in (RNE, RMM) or rm == (RDN if sign else RUP)
            return sign | (self.inf if away else self.inf - 1), OF | NX
        flags = NX if inexact else 0
        if inexact and exponent < self.e_min:
            # Tiny after rounding: still below the smallest normal with an unbounded exponent.
            unbounded, _ = round_integer(value, exponent - self.fraction_bits, rm, sign)
            if Fraction(unbounded) * Fraction(2) ** (exponent - self.fraction_bits) < \
                    Fraction(2) ** self.e_min:
                flags |= UF
        return sign | bits, flags

    def assemble(self, kept, exponent):
        """`kept` counts units of the last place at `exponent`; a carry moves up by itself."""
        if kept < 1 << self.fraction_bits:
            return kept
        return ((exponent + self.bias - 1) << self.fraction_bits) + kept


S, D = Format(32, 8), Format(64, 11)


def floor_log2(value):
    e = value.numerator.bit_length() - value.denominator.bit_length()
    return e if Fraction(2) ** e <= value else e - 1


def round_integer(value, scale, rm, sign):
    """value / 2**scale (positive) to an integer; and whether that lost anything."""
    scaled = value / Fraction(2) ** scale
    down = scaled.numerator // scaled.denominator
    rest = scaled - down
    half = Fraction(1, 2)
    up = {
        RNE: rest > half or (rest == half and down & 1),
        RTZ: False,
        RDN: bool(sign) and rest > 0,
        RUP: not sign and rest > 0,
        RMM: rest >= half,
    }[rm]
    return down + (1 if up else 0), rest != 0


def nan_flags(f, *operands):
    return NV if any(f.is_signaling(x) for x in operands) else 0


def add(f, rm, a, b):
    if f.is_nan(a) or f.is_nan(b):
        return f.nan, nan_flags(f, a, b)
    if f.is_inf(a) or f.is_inf(b):
        if f.is_inf(a) and f.is_inf(b) and a != b:
            return f.nan, NV
        return (a if f.is_inf(a) else b), 0
    return f.round(f.value(a) + f.value(b), rm, zero_of_sum(f, rm, a, b))


def zero_of_sum(f, rm, a, b):
    """Sign of an exact zero sum of operands with these signs."""
    if a & f.sign == b & f.sign:
        return a & f.sign
    return f.sign if rm == RDN else 0


def sub(f, rm, a, b):
    return add(f, rm, a, b if f.is_nan(b) else b ^ f.sign)


def mul(f, rm, a, b):
    sign = (a ^ b) & f.sign
    if f.is_nan(a) or f.is_nan(b):
        return f.nan, nan_flags(f, a, b)
    if f.is_inf(a) or f.is_inf(b):
        other = b if f.is_inf(a) else a
        return (sign | f.inf, 0) if other & ~f.sign else (f.nan, NV)
    return f.round(f.value(a) * f.value(b), rm, sign)


def div(f, rm, a, b):
    sign = (a ^ b) & f.sign
    if f.is_nan(a) or f.is_nan(b):
        return f.nan, nan_flags(f, a, b)
    if f.is_inf(a):
        return (f.nan, NV) if f.is_inf(b) else (sign | f.inf, 0)
    if f.is_inf(b):
        return sign, 0
    if not b & ~f.sign:
        return (sign | f.inf, DZ) if a & ~f.sign else (f.nan, NV)
    return f.round(f.value(a) / f.value(b), rm, sign)


def sqrt(f, rm, a):
    if f.is_nan(a):
        return f.nan, nan_flags(f, a)
    if not a & ~f.sign:
        return a, 0
    if a & f.sign:
        return f.nan, NV
    if f.is_inf(a):
        return a, 0
    # Enough digits that what is cut off only decides "exact or not"; then a half digit stands for it.
    value, shift = f.value(a), 2 * (f.width + 1200)
    scaled = value * 2 ** shift
    root = isqrt(scaled.numerator // scaled.denominator)
    exact = Fraction(root) ** 2 == scaled
    return f.round(Fraction(2 * root + (0 if exact else 1), 2) / 2 ** (shift // 2), rm)


def fused(f, rm, a, b, c):
    """a * b + c, rounded once."""
    sign = (a ^ b) & f.sign
    infinite, zero = f.is_inf(a) or f.is_inf(b), not a & ~f.sign or not b & ~f.sign
    invalid = not (f.is_nan(a) or f.is_nan(b)) and infinite and zero
    if invalid or any(f.is_nan(x) for x in (a, b, c)):
        return f.nan, NV if invalid else nan_flags(f, a, b, c)
    if infinite:
        return (f.nan, NV) if f.is_inf(c) and c & f.sign != sign else (sign | f.inf, 0)
    if f.is_inf(c):
        return c, 0
    return f.round(f.value(a) * f.value(b) + f.value(c), rm, zero_of_sum(f, rm, sign, c))


def negated(f, x):
    return x if f.is_nan(x) else x ^ f.sign


def order_key(f, x):
    """Total order of numbers in which -0 is below +0 (minimumNumber, maximumNumber)."""
    return -(x & ~f.sign) - 1 if x & f.sign else x


def choose(f, pick, a, b):
    flags = nan_flags(f, a, b)
    if f.is_nan(a) or f.is_nan(b):
        return (f.nan if f.is_nan(a) and f.is_nan(b) else b if f.is_nan(a) else a), flags
    return pick(a, b, key=lambda x: order_key(f, x)), flags


def compare(f, relation, quiet, a, b):
    if f.is_nan(a) or f.is_nan(b):
        return 0, nan_flags(f, a, b) if quiet else NV
    if f.is_inf(a) or f.is_inf(b):  # fractions have no infinity: compare encodings
        key = [0 if not x & ~f.sign else order_key(f, x) for x in (a, b)]
    else:
        key = [f.value(a), f.value(b)]
    return int(relation(*key)), 0


def classify(f, a):
    negative, magnitude = bool(a & f.sign), a & ~f.sign
    if f.is_nan(a):
        return 1 << (8 if f.is_signaling(a) else 9)
    kind = 0 if magnitude == f.inf else 1 if magnitude >= 1 << f.fraction_bits else 2 if magnitude else 3
    return 1 << (kind if negative else 7 - kind)


def to_integer(f, rm, a, bits, signed):
    low, high = (-1 << bits - 1, (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    if f.is_nan(a) or (f.is_inf(a) and not a & f.sign):
        return high, NV
    if f.is_inf(a):
        return low, NV
    value = f.value(a)
    magnitude, inexact = round_integer(abs(value), 0, rm, value < 0)
    result = -magnitude if value < 0 else magnitude
    if not low <= result <= high:
        return (low if result < low else high), NV
    return result, NX if inexact else 0


def sign_extend(value, bits):
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> bits - 1 else value


def convert(source, target, rm, a):
    if source.is_nan(a):
        return target.nan, nan_flags(source, a)
    sign = target.sign if a & source.sign else 0
    if source.is_inf(a):
        return sign | target.inf, 0
    return target.round(source.value(a), rm, sign)


def specials(f):
    one = f.bias << f.fraction_bits
    two, ulp = one + (1 << f.fraction_bits), 1
    positive = [
        0, 1, (1 << f.fraction_bits) - 1, 1 << f.fraction_bits, one, one + ulp, one - ulp,
        one + (one >> 1 & 0x55555555) % (1 << f.fraction_bits), two, f.inf - 1, f.inf,
    ]
    return positive + [x | f.sign for x in positive] + [f.nan, f.inf | 1, f.sign | f.nan | 5]


def integer_neighbours(f):
    """Numbers at the edges of the integer types, and around halves."""
    numbers = [Fraction(n, 4) for n in (1, 2, 3, 5, 6, 10, 14)]
    numbers += [Fraction(2) ** n + d for n in (31, 32, 52, 53, 62, 63, 64) for d in
                (-1, Fraction(-1, 2), 0, Fraction(1, 2), 1)]
    return sorted({f.round(sign * n, RTZ)[0] for n in numbers for sign in (1, -1)})


def ordinary(f, count, operands):
    """Tuples of numbers of similar size, so that they cancel and carry; the same in each run."""
    source = random.Random(f.width * operands)

    def number(centre):
        fraction = source.getrandbits(f.fraction_bits)
        if source.random() < 0.5:  # long runs of zeros or ones
            fraction = -(fraction & 7) << source.randrange(f.fraction_bits)
        exponent = centre + source.randrange(-f.fraction_bits - 2, f.fraction_bits + 3)
        return source.getrandbits(1) * f.sign | exponent << f.fraction_bits | \
            fraction & (1 << f.fraction_bits) - 1

    rows = [tuple(number(f.bias) for _ in range(operands)) for _ in range(count)]
    if operands == 3:  # c close to -a * b: what one rounding leaves is what two would lose
        rows += [(a, b, f.round(-f.value(a) * f.value(b), RNE)[0]) for a, b, _ in rows]
    return rows


INTEGERS = [
    0, 1, 2**64 - 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x100000000, 2**63 - 1, 2**63, 2**24 + 1,
    2**25 + 3, 2**53 + 1, 2**54 + 3, 2**63 + 2**10, 2**63 + 3 * 2**10 + 1, 2**63 + 2**39,
    0xFFFFFFFF7FFFFFFF, 0xFFFFFFFF80000001, 0x0123456789ABCDEF,
]


def arithmetic(f, suffix):
    """name, operand tuples, model(rm, *operands), rounds, target registers"""
    lt, le, eq = (lambda x, y: x < y), (lambda x, y: x <= y), (lambda x, y: x == y)
    every = specials(f)
    pairs = list(itertools.product(every, every)) + ordinary(f, 200, 2)
    one, half_ulp = f.bias << f.fraction_bits, (f.bias - f.fraction_bits - 1) << f.fraction_bits
    # Single rounding: the product's low half decides (a*a has 2p bits), and cancellation reveals it.
    fine = [one + 1, one + 3, (one + 1) | f.sign, half_ulp, half_ulp | f.sign, half_ulp + 1,
            f.inf - 1, 1 << f.fraction_bits, (1 << f.fraction_bits) + 1 | f.sign,
            one - (f.fraction_bits + 2 << f.fraction_bits)]
    few = [0, f.sign, one, one | f.sign, f.inf, f.inf | f.sign, f.nan, f.inf | 1]
    triples = list(itertools.product(few, few, few)) + list(itertools.product(fine, fine, fine)) \
        + ordinary(f, 200, 3)
    single = [(x,) for x in every + [one + (1 << f.fraction_bits) // 8 * k for k in range(8)]
              + [one + (2 << f.fraction_bits), f.round(Fraction(144), RNE)[0]]] + ordinary(f, 200, 1)
    ops = [
        ("fadd", pairs, lambda rm, a, b: add(f, rm, a, b)),
        ("fsub", pairs, lambda rm, a, b: sub(f, rm, a, b)),
        ("fmul", pairs, lambda rm, a, b: mul(f, rm, a, b)),
        ("fdiv", pairs, lambda rm, a, b: div(f, rm, a, b)),
        ("fsqrt", single, lambda rm, a: sqrt(f, rm, a)),
        ("fmadd", triples, lambda rm, a, b, c: fused(f, rm, a, b, c)),
        ("fmsub", triples, lambda rm, a, b, c: fused(f, rm, a, b, negated(f, c))),
        ("fnmsub", triples, lambda rm, a, b, c: fused(f, rm, negated(f, a), b, c)),
        ("fnmadd", triples, lambda rm, a, b, c: fused(f, rm, negated(f, a), b, negated(f, c))),
    ]
    for name, operands, model in ops:
        yield f"{name}.{suffix}", operands, model, True, "fa"
    sign = f.sign
    plain = [
        ("fsgnj", lambda _, a, b: (a & ~sign | b & sign, 0), "fa"),
        ("fsgnjn", lambda _, a, b: (a & ~sign | ~b & sign, 0), "fa"),
        ("fsgnjx", lambda _, a, b: (a ^ b & sign, 0), "fa"),
        ("fmin", lambda _, a, b: choose(f, min, a, b), "fa"),
        ("fmax", lambda _, a, b: choose(f, max, a, b), "fa"),
        ("feq", lambda _, a, b: compare(f, eq, True, a, b), "a"),
        ("flt", lambda _, a, b: compare(f, lt, False, a, b), "a"),
        ("fle", lambda _, a, b: compare(f, le, False, a, b), "a"),
    ]
    for name, model, target in plain:
        yield f"{name}.{suffix}", pairs, model, False, target
    yield f"fclass.{suffix}", single, lambda _, a: (classify(f, a), 0), False, "a"
    edges = [(x,) for x in every + integer_neighbours(f)] + ordinary(f, 100, 1)
    for kind, bits, signed in (("w", 32, True), ("wu", 32, False), ("l", 64, True), ("lu", 64, False)):
        def model(rm, a, bits=bits, signed=signed):
            result, flags = to_integer(f, rm, a, bits, signed)
            return sign_extend(result, bits), flags
        yield f"fcvt.{kind}.{suffix}", edges, model, True, "a"


def from_integers(f, suffix):
    for kind, bits, signed in (("w", 32, True), ("wu", 32, False), ("l", 64, True), ("lu", 64, False)):
        def model(rm, a, bits=bits, signed=signed):
            value = sign_extend(a, bits) if signed else a & (1 << bits) - 1
            return f.round(Fraction(value), rm)
        # From 32 bits to a double nothing is ever rounded, but the field is there all the same.
        yield f"fcvt.{suffix}.{kind}", INTEGERS, model


class Program:
    def __init__(self):
        self.labels = 0
        print('#include "cases.h"\n    program')

    def finish(self):
        print("    end_program")

    def table(self, op, rows, operands, to, source, rm=""):
        label = f"rows_{self.labels}"
        self.labels += 1
        print(f"    .section .rodata\n    .balign 8\n{label}:")
        for row in rows:
            print("    .dword " + ", ".join(f"{value % (1 << 64):#x}" for value in row))
        print(f"    .text\n    table_fp {op}, {label}, {len(rows)}, {operands}, {to}, {source}, {rm}")

    def operation(self, op, operand_rows, model, rounds, to, source, unbox, box):
        """Every operand row in each dynamic rounding mode; some in each static one, where frm says
        something else."""
        count = len(operand_rows[0])
        print(f"    about {op}")

        def row(operands, rm, frm):
            result, flags = model(rm, *[unbox(x) for x in operands])
            return (*operands, frm, box(result), flags)

        modes = range(5) if rounds else [RNE]
        self.table(op, [row(o, rm, rm) for o in operand_rows for rm in modes], count, to, source)
        if rounds:
            for rm in modes:
                some = operand_rows[::max(1, len(operand_rows) // 40)]
                self.table(op, [row(o, rm, (rm + 2) % 5) for o in some], count, to, source,
                           f", {RM_NAMES[rm]}")


def main():
    f, suffix = {"rv64f": (S, "s"), "rv64d": (D, "d")}[sys.argv[1]]
    program = Program()
    # Singles that are not properly boxed count as NaN.
    broken_box = [(0x3F800000, 0xFFFFFFFF3F800000), (0xFFFFFFFF3F800000, 0xFFFFFFFE3F800000)]
    for op, operands, model, rounds, to in arithmetic(f, suffix):
        rows = [tuple(x | f.box for x in row) for row in operands]
        if f is S:
            count = len(operands[0])
            rows += [(*row, row[0])[:count] for row in broken_box]
        program.operation(op, rows, model, rounds, to, "fa", f.unbox,
                          (lambda x: x | f.box) if to == "fa" else (lambda x: x))
    for op, integers, model in from_integers(f, suffix):
        program.operation(op, [(x,) for x in integers], model, rounds_to(op), "fa", "a",
                          lambda x: x, lambda x: x | f.box)
    if f is D:
        halfway = [D.round(S.value(x) + d * Fraction(2) ** e, RNE)[0]
                   for x in (0x3F800000, 0x3F800001, 0x00000001, 0x00000000, 0x7F7FFFFF)
                   for e in (-24, -150, 103) for d in (Fraction(1), Fraction(3, 4), Fraction(5, 4))]
        doubles = [(x,) for x in specials(D) + halfway + [x | D.sign for x in halfway]]
        doubles += ordinary(D, 200, 1)
        program.operation("fcvt.s.d", doubles, lambda rm, a: convert(D, S, rm, a), True, "fa", "fa",
                          D.unbox, lambda x: x | S.box)
        singles = [(x | S.box,) for x in specials(S)] + [(0x3F800000,)]
        program.operation("fcvt.d.s", singles, lambda rm, a: convert(S, D, rm, a), False, "fa", "fa",
                          S.unbox, lambda x: x)
    program.finish()


def rounds_to(op):
    """binutils takes no rounding mode where the conversion is always exact."""
    return op not in ("fcvt.d.w", "fcvt.d.wu")


main()
