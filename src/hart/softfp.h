// SPDX-License-Identifier: BSD-2-Clause
// softfp: IEEE 754-2019 binary arithmetic in integers, for binary32 and binary64, as the RISC-V F
// and D extensions want it: every NaN result is the canonical one, tininess is detected after
// rounding, and flags have the layout of fflags. Internal to the hart room.
//
// Why in integers: reading and setting the host's MXCSR around an SSE instruction costs as much as
// the whole operation here (measured: 12 ns for an addsd between stmxcsr and ldmxcsr, 22 ns when
// the rounding mode varies; 14 ns for softfp_add, 11 ns for softfp_mul), and the host has neither
// RMM nor, everywhere, a fused multiply-add. The unit tests compare it with the host.
#ifndef STRAKE_SOFTFP_H
#define STRAKE_SOFTFP_H

#include "base/base.h"

// The fields of a binary interchange format. Encodings are kept in the low bits of a uint64_t,
// whose upper bits are zero.
struct softfp_format {
    int fraction_bits;
    int exponent_bits;
};

static const struct softfp_format softfp_single = {.fraction_bits = 23, .exponent_bits = 8};
static const struct softfp_format softfp_double = {.fraction_bits = 52, .exponent_bits = 11};

// Encoded as in frm.
enum softfp_rounding { SOFTFP_RNE, SOFTFP_RTZ, SOFTFP_RDN, SOFTFP_RUP, SOFTFP_RMM };

enum softfp_flags {
    SOFTFP_NX = 1 << 0,
    SOFTFP_UF = 1 << 1,
    SOFTFP_OF = 1 << 2,
    SOFTFP_DZ = 1 << 3,
    SOFTFP_NV = 1 << 4,
};

static inline uint64_t softfp_sign_bit(const struct softfp_format *fmt)
{
    return 1ull << (fmt->fraction_bits + fmt->exponent_bits);
}

static inline uint64_t softfp_canonical_nan(const struct softfp_format *fmt)
{
    return ((2ull << fmt->exponent_bits) - 1) << (fmt->fraction_bits - 1);
}

// Arithmetic. Flags are or-ed into *flags. softfp_fma is a * b + c with one rounding.
uint64_t softfp_add(const struct softfp_format *fmt, uint64_t a, uint64_t b,
                    enum softfp_rounding rm, unsigned *flags);
uint64_t softfp_mul(const struct softfp_format *fmt, uint64_t a, uint64_t b,
                    enum softfp_rounding rm, unsigned *flags);
uint64_t softfp_div(const struct softfp_format *fmt, uint64_t a, uint64_t b,
                    enum softfp_rounding rm, unsigned *flags);
uint64_t softfp_sqrt(const struct softfp_format *fmt, uint64_t a, enum softfp_rounding rm,
                     unsigned *flags);
uint64_t softfp_fma(const struct softfp_format *fmt, uint64_t a, uint64_t b, uint64_t c,
                    enum softfp_rounding rm, unsigned *flags);

// Conversions. Integers of `bits` 32 or 64; what does not fit becomes the nearest that does, a NaN
// the largest, with NV alone. A 32-bit result is sign-extended, also an unsigned one.
uint64_t softfp_convert(const struct softfp_format *from, const struct softfp_format *to,
                        uint64_t a, enum softfp_rounding rm, unsigned *flags);
uint64_t softfp_to_integer(const struct softfp_format *fmt, uint64_t a, unsigned bits,
                           bool is_signed, enum softfp_rounding rm, unsigned *flags);
uint64_t softfp_from_integer(const struct softfp_format *fmt, uint64_t magnitude, bool negative,
                             enum softfp_rounding rm, unsigned *flags);

// Comparisons: equal is quiet, the others signal on any NaN.
bool softfp_equal(const struct softfp_format *fmt, uint64_t a, uint64_t b, unsigned *flags);
bool softfp_less(const struct softfp_format *fmt, uint64_t a, uint64_t b, unsigned *flags);
bool softfp_less_equal(const struct softfp_format *fmt, uint64_t a, uint64_t b, unsigned *flags);

// minimumNumber and maximumNumber: a NaN loses against a number, -0 is less than +0.
uint64_t softfp_min(const struct softfp_format *fmt, uint64_t a, uint64_t b, unsigned *flags);
uint64_t softfp_max(const struct softfp_format *fmt, uint64_t a, uint64_t b, unsigned *flags);

// The ten classes of fclass, one bit set.
unsigned softfp_class(const struct softfp_format *fmt, uint64_t a);

#endif
