// SPDX-License-Identifier: BSD-2-Clause
// An operation unpacks its operands into numbers, computes exactly (or with a sticky lowest bit
// that stands for everything below it), and rounds once, in round_pack or in softfp_to_integer.
#include "hart/softfp.h"

#include <math.h>

typedef unsigned __int128 u128;  // has no other name in C

enum kind { ZERO, FINITE, INFINITE, NOT_A_NUMBER };

// A FINITE one is significand * 2^(exponent - TOP), with the significand in [2^TOP, 2^(TOP+1)). The
// bit above leaves room for a carry.
#define TOP 62
struct number {
    enum kind kind;
    bool negative;
    int exponent;
    uint64_t significand;
};

// The same with the significand in [2^WIDE_TOP, 2^(WIDE_TOP+1)): holds any product exactly.
#define WIDE_TOP 126
struct wide {
    enum kind kind;
    bool negative;
    int exponent;
    u128 significand;
};

// ---- Encodings ----------------------------------------------------------------------------------

static inline int bias(const struct softfp_format *fmt)
{
    return (1 << (fmt->exponent_bits - 1)) - 1;
}

static inline uint64_t fraction_mask(const struct softfp_format *fmt)
{
    return (1ull << fmt->fraction_bits) - 1;
}

static inline uint64_t infinity(const struct softfp_format *fmt)
{
    return ((1ull << fmt->exponent_bits) - 1) << fmt->fraction_bits;
}

static inline uint64_t quiet_bit(const struct softfp_format *fmt)
{
    return 1ull << (fmt->fraction_bits - 1);
}

static inline uint64_t absolute(const struct softfp_format *fmt, uint64_t a)
{
    return a & (softfp_sign_bit(fmt) - 1);
}

static inline uint64_t signed_as(const struct softfp_format *fmt, bool negative, uint64_t value)
{
    return negative ? value | softfp_sign_bit(fmt) : value;
}

static inline bool is_nan(const struct softfp_format *fmt, uint64_t a)
{
    return absolute(fmt, a) > infinity(fmt);
}

static inline bool is_signaling(const struct softfp_format *fmt, uint64_t a)
{
    return is_nan(fmt, a) && !(a & quiet_bit(fmt));
}

static inline uint64_t invalid(const struct softfp_format *fmt, unsigned *flags)
{
    *flags |= SOFTFP_NV;
    return softfp_canonical_nan(fmt);
}

// The result of arithmetic with at least one NaN among its operands; those it does not have are 0.
static uint64_t propagate_nan(const struct softfp_format *fmt, uint64_t a, uint64_t b, uint64_t c,
                              unsigned *flags)
{
    if (is_signaling(fmt, a) || is_signaling(fmt, b) || is_signaling(fmt, c))
        *flags |= SOFTFP_NV;
    return softfp_canonical_nan(fmt);
}

static inline struct number normalise(bool negative, int exponent, uint64_t significand)
{
    const int shift = __builtin_clzll(significand) - (63 - TOP);

    return (struct number){FINITE, negative, exponent - shift, significand << shift};
}

static inline struct number unpack(const struct softfp_format *fmt, uint64_t a)
{
    const bool negative = a & softfp_sign_bit(fmt);
    const uint64_t significand = (a & fraction_mask(fmt)) << (TOP - fmt->fraction_bits);
    const int biased = (int)(absolute(fmt, a) >> fmt->fraction_bits);

    if (BASE_UNLIKELY(biased == (1 << fmt->exponent_bits) - 1))
        return (struct number){significand ? NOT_A_NUMBER : INFINITE, negative, 0, 0};
    if (BASE_LIKELY(biased > 0))
        return (struct number){FINITE, negative, biased - bias(fmt), significand | 1ull << TOP};
    if (significand)
        return normalise(negative, 1 - bias(fmt), significand);
    return (struct number){ZERO, negative, 0, 0};
}

// ---- Rounding -----------------------------------------------------------------------------------

// Shifts right; a lost one-bit leaves the lowest bit set.
static inline uint64_t shift_right_sticky(uint64_t value, unsigned shift)
{
    if (shift > 63)
        return value != 0;
    return value >> shift | ((value & ((1ull << shift) - 1)) != 0);
}

static inline u128 wide_shift_right_sticky(u128 value, unsigned shift)
{
    if (shift > 127)
        return value != 0;
    return value >> shift | ((value & (((u128)1 << shift) - 1)) != 0);
}

// What to add so that dropping the bits of `mask` rounds. For RNE a tie must then be made even.
static inline uint64_t rounding_increment(enum softfp_rounding rm, bool negative, uint64_t mask)
{
    switch (rm) {
    case SOFTFP_RNE:
    case SOFTFP_RMM:
        return mask / 2 + 1;
    case SOFTFP_RDN:
        return negative ? mask : 0;
    case SOFTFP_RUP:
        return negative ? 0 : mask;
    default:
        return 0;
    }
}

static uint64_t overflow(const struct softfp_format *fmt, bool negative, bool away, unsigned *flags)
{
    *flags |= SOFTFP_OF | SOFTFP_NX;
    return signed_as(fmt, negative, away ? infinity(fmt) : infinity(fmt) - 1);
}

// `significand` as in struct number, its lowest bit sticky.
static inline uint64_t round_pack(const struct softfp_format *fmt, bool negative, int exponent,
                                  uint64_t significand, enum softfp_rounding rm, unsigned *flags)
{
    const int extra_bits = TOP - fmt->fraction_bits;
    const uint64_t mask = (1ull << extra_bits) - 1;
    const uint64_t increment = rounding_increment(rm, negative, mask);
    int biased = exponent + bias(fmt);
    bool tiny = false;

    if (BASE_UNLIKELY(biased < 1)) {
        // Tiny after rounding: still below the smallest normal number when rounded to full
        // precision, as if the exponent had no lower bound.
        tiny = biased < 0 || significand + increment < 2ull << TOP;
        significand = shift_right_sticky(significand, 1 - biased);
        biased = 1;
    }
    const uint64_t lost = significand & mask;
    significand = (significand + increment) >> extra_bits;
    if (rm == SOFTFP_RNE && lost == increment)
        significand &= ~1ull;
    if (lost)
        *flags |= tiny ? SOFTFP_UF | SOFTFP_NX : SOFTFP_NX;
    // The integer bit of the significand adds one to the exponent field, a carry two.
    const uint64_t packed = ((uint64_t)(biased - 1) << fmt->fraction_bits) + significand;
    if (BASE_UNLIKELY(packed >= infinity(fmt)))
        return overflow(fmt, negative, increment != 0, flags);
    return signed_as(fmt, negative, packed);
}

// The upper bits of a significand whose highest bit is `top`, as round_pack wants them.
static inline uint64_t narrow(u128 significand, int top)
{
    return (uint64_t)wide_shift_right_sticky(significand, top - TOP);
}

static inline uint64_t round_pack_wide(const struct softfp_format *fmt, struct wide x,
                                       enum softfp_rounding rm, unsigned *flags)
{
    return round_pack(fmt, x.negative, x.exponent, narrow(x.significand, WIDE_TOP), rm, flags);
}

// ---- Arithmetic ---------------------------------------------------------------------------------

static inline struct wide widen(struct number x)
{
    const u128 significand = (u128)x.significand << (WIDE_TOP - TOP);

    return (struct wide){x.kind, x.negative, x.exponent, significand};
}

static inline uint64_t exact_zero(const struct softfp_format *fmt, bool x_negative, bool y_negative,
                                  enum softfp_rounding rm)
{
    const bool negative = x_negative == y_negative ? x_negative : rm == SOFTFP_RDN;

    return signed_as(fmt, negative, 0);
}

// Sum of two finite ones. An operand that is shifted by two places or more cannot cancel more than
// one bit of the other, and neither has more than 106 bits, so no sticky bit ever moves up to where
// it would be taken for a value.
static inline uint64_t add_finite(const struct softfp_format *fmt, struct wide x, struct wide y,
                                  enum softfp_rounding rm, unsigned *flags)
{
    // Without branches where operands decide: they are as good as random.
    const int distance = x.exponent - y.exponent;
    const bool swap = distance < 0 || (distance == 0 && x.significand < y.significand);
    const int exponent = swap ? y.exponent : x.exponent;
    const bool negative = swap ? y.negative : x.negative;
    const u128 exchange = (x.significand ^ y.significand) & -(u128)swap;
    const u128 larger = x.significand ^ exchange;
    const u128 complement = -(u128)(x.negative != y.negative);
    const u128 smaller =
        wide_shift_right_sticky(y.significand ^ exchange, swap ? -distance : distance);
    const u128 sum = larger + (smaller ^ complement) - complement;
    if (sum == 0)
        return exact_zero(fmt, x.negative, y.negative, rm);

    const uint64_t high = (uint64_t)(sum >> 64);
    const int zeros = high ? __builtin_clzll(high) : 64 + __builtin_clzll((uint64_t)sum);
    const uint64_t significand = narrow(sum << zeros, 127);
    return round_pack(fmt, negative, exponent + 127 - WIDE_TOP - zeros, significand, rm, flags);
}

// Neither is a NaN.
static inline uint64_t add_numbers(const struct softfp_format *fmt, struct wide x, struct wide y,
                                   enum softfp_rounding rm, unsigned *flags)
{
    if (BASE_LIKELY(x.kind == FINITE && y.kind == FINITE))
        return add_finite(fmt, x, y, rm, flags);
    if (x.kind == INFINITE && y.kind == INFINITE && x.negative != y.negative)
        return invalid(fmt, flags);
    if (x.kind == INFINITE || y.kind == INFINITE)
        return signed_as(fmt, x.kind == INFINITE ? x.negative : y.negative, infinity(fmt));
    if (x.kind == FINITE)
        return round_pack_wide(fmt, x, rm, flags);
    if (y.kind == FINITE)
        return round_pack_wide(fmt, y, rm, flags);
    return exact_zero(fmt, x.negative, y.negative, rm);
}

static inline bool is_zero_and_infinity(struct number x, struct number y)
{
    return (x.kind == ZERO && y.kind == INFINITE) || (x.kind == INFINITE && y.kind == ZERO);
}

// Neither is a NaN, nor are they zero and infinity.
static inline struct wide multiply(struct number x, struct number y)
{
    struct wide product = {FINITE, x.negative != y.negative, x.exponent + y.exponent, 0};

    if (BASE_UNLIKELY(x.kind != FINITE || y.kind != FINITE)) {
        product.kind = x.kind == ZERO || y.kind == ZERO ? ZERO : INFINITE;
        return product;
    }
    product.significand = ((u128)x.significand * y.significand) << 1;
    if (product.significand >> WIDE_TOP)
        product.exponent++;
    else
        product.significand <<= 1;
    return product;
}

uint64_t softfp_add(const struct softfp_format *fmt, uint64_t a, uint64_t b,
                    enum softfp_rounding rm, unsigned *flags)
{
    const struct number x = unpack(fmt, a), y = unpack(fmt, b);

    if (BASE_UNLIKELY(x.kind == NOT_A_NUMBER || y.kind == NOT_A_NUMBER))
        return propagate_nan(fmt, a, b, 0, flags);
    return add_numbers(fmt, widen(x), widen(y), rm, flags);
}

uint64_t softfp_mul(const struct softfp_format *fmt, uint64_t a, uint64_t b,
                    enum softfp_rounding rm, unsigned *flags)
{
    const struct number x = unpack(fmt, a), y = unpack(fmt, b);

    if (BASE_UNLIKELY(x.kind == NOT_A_NUMBER || y.kind == NOT_A_NUMBER))
        return propagate_nan(fmt, a, b, 0, flags);
    if (BASE_UNLIKELY(is_zero_and_infinity(x, y)))
        return invalid(fmt, flags);
    const struct wide product = multiply(x, y);
    if (BASE_UNLIKELY(product.kind != FINITE))
        return signed_as(fmt, product.negative, product.kind == ZERO ? 0 : infinity(fmt));
    return round_pack_wide(fmt, product, rm, flags);
}

uint64_t softfp_fma(const struct softfp_format *fmt, uint64_t a, uint64_t b, uint64_t c,
                    enum softfp_rounding rm, unsigned *flags)
{
    const struct number x = unpack(fmt, a), y = unpack(fmt, b), z = unpack(fmt, c);

    // Invalid even if c is a quiet NaN (Unprivileged ISA, chapter 21).
    if (BASE_UNLIKELY(is_zero_and_infinity(x, y)))
        return invalid(fmt, flags);
    if (BASE_UNLIKELY(x.kind == NOT_A_NUMBER || y.kind == NOT_A_NUMBER || z.kind == NOT_A_NUMBER))
        return propagate_nan(fmt, a, b, c, flags);
    return add_numbers(fmt, multiply(x, y), widen(z), rm, flags);
}

uint64_t softfp_div(const struct softfp_format *fmt, uint64_t a, uint64_t b,
                    enum softfp_rounding rm, unsigned *flags)
{
    const struct number x = unpack(fmt, a), y = unpack(fmt, b);
    const bool negative = x.negative != y.negative;

    if (BASE_UNLIKELY(x.kind == NOT_A_NUMBER || y.kind == NOT_A_NUMBER))
        return propagate_nan(fmt, a, b, 0, flags);
    if (BASE_UNLIKELY(x.kind != FINITE || y.kind != FINITE)) {
        if (x.kind == y.kind)
            return invalid(fmt, flags);
        if (x.kind == FINITE && y.kind == ZERO)
            *flags |= SOFTFP_DZ;
        return signed_as(fmt, negative, x.kind > y.kind ? infinity(fmt) : 0);
    }
    // A quotient between 2^TOP and 2^(TOP+2).
    const u128 dividend = (u128)x.significand << (TOP + 1);
    const uint64_t quotient = (uint64_t)(dividend / y.significand);
    const uint64_t sticky = (u128)quotient * y.significand != dividend;
    const int exponent = x.exponent - y.exponent;

    if (quotient >> (TOP + 1))
        return round_pack(fmt, negative, exponent, quotient >> 1 | (quotient & 1) | sticky, rm,
                          flags);
    return round_pack(fmt, negative, exponent - 1, quotient | sticky, rm, flags);
}

// The largest root with root * root <= square, of a square in [2^108, 2^110).
static uint64_t root_of(u128 square)
{
    // The host's root is right to 52 bits whatever its rounding mode; the distance that is left
    // fits in 64 bits and is divided by the derivative.
    uint64_t root = (uint64_t)sqrt((double)square);
    root += (int64_t)(square - (u128)root * root) / (int64_t)(2 * root);
    while ((u128)root * root > square)
        root--;
    while ((u128)(root + 1) * (root + 1) <= square)
        root++;
    return root;
}

uint64_t softfp_sqrt(const struct softfp_format *fmt, uint64_t a, enum softfp_rounding rm,
                     unsigned *flags)
{
    enum { ROOT_TOP = 54 };  // enough for a double and one bit below
    const struct number x = unpack(fmt, a);

    if (x.kind == NOT_A_NUMBER)
        return propagate_nan(fmt, a, 0, 0, flags);
    if (x.kind == ZERO || (x.kind == INFINITE && !x.negative))
        return a;
    if (x.negative)
        return invalid(fmt, flags);

    // x = square * 2^(2 * half - 2 * ROOT_TOP), exactly.
    const int half = x.exponent >> 1;
    const u128 square = (u128)x.significand << (2 * ROOT_TOP - TOP + (x.exponent & 1));
    const uint64_t root = root_of(square);
    const uint64_t sticky = (u128)root * root != square;

    return round_pack(fmt, false, half, root << (TOP - ROOT_TOP) | sticky, rm, flags);
}

// ---- Conversions --------------------------------------------------------------------------------

uint64_t softfp_convert(const struct softfp_format *from, const struct softfp_format *to,
                        uint64_t a, enum softfp_rounding rm, unsigned *flags)
{
    const struct number x = unpack(from, a);

    switch (x.kind) {
    case FINITE:
        return round_pack(to, x.negative, x.exponent, x.significand, rm, flags);
    case ZERO:
        return signed_as(to, x.negative, 0);
    case INFINITE:
        return signed_as(to, x.negative, infinity(to));
    default:
        if (is_signaling(from, a))
            *flags |= SOFTFP_NV;
        return softfp_canonical_nan(to);
    }
}

uint64_t softfp_from_integer(const struct softfp_format *fmt, uint64_t magnitude, bool negative,
                             enum softfp_rounding rm, unsigned *flags)
{
    if (magnitude == 0)
        return 0;
    const int top = 63 - __builtin_clzll(magnitude);
    const uint64_t significand =
        top > TOP ? shift_right_sticky(magnitude, 1) : magnitude << (TOP - top);

    return round_pack(fmt, negative, top, significand, rm, flags);
}

// The magnitude of a finite x below 2^64 as an integer, rounded. *lost: it is not exact.
static uint64_t round_to_integer(struct number x, enum softfp_rounding rm, bool *lost)
{
    // In fixed point with the binary point in the middle.
    const int shift = 64 - TOP + x.exponent;
    const u128 fixed =
        shift >= 0 ? (u128)x.significand << shift : wide_shift_right_sticky(x.significand, -shift);
    const uint64_t fraction = (uint64_t)fixed;
    const uint64_t increment = rounding_increment(rm, x.negative, UINT64_MAX);
    uint64_t integer = (uint64_t)((fixed + increment) >> 64);

    if (rm == SOFTFP_RNE && fraction == increment)
        integer &= ~1ull;
    *lost = fraction != 0;
    return integer;
}

uint64_t softfp_to_integer(const struct softfp_format *fmt, uint64_t a, unsigned bits,
                           bool is_signed, enum softfp_rounding rm, unsigned *flags)
{
    const struct number x = unpack(fmt, a);
    const bool to_negative = x.negative && x.kind != NOT_A_NUMBER;
    const uint64_t all = UINT64_MAX >> (64 - bits);
    const uint64_t largest = is_signed ? all >> 1 : all;
    const uint64_t limit = to_negative ? (is_signed ? largest + 1 : 0) : largest;
    bool fits = x.kind == ZERO || (x.kind == FINITE && x.exponent < 64);
    bool lost = false;
    uint64_t integer = fits && x.kind != ZERO ? round_to_integer(x, rm, &lost) : 0;

    fits = fits && integer <= limit;
    if (!fits)
        integer = limit;
    *flags |= !fits ? SOFTFP_NV : lost ? SOFTFP_NX : 0;
    integer = to_negative ? -integer : integer;
    return bits == 32 ? (uint64_t)(int32_t)integer : integer;
}

// ---- Comparisons --------------------------------------------------------------------------------

// Orders like the number; both zeros are 0.
static inline int64_t order(const struct softfp_format *fmt, uint64_t a)
{
    const int64_t distance = (int64_t)absolute(fmt, a);

    return a & softfp_sign_bit(fmt) ? -distance : distance;
}

static inline bool unordered(const struct softfp_format *fmt, uint64_t a, uint64_t b)
{
    return is_nan(fmt, a) || is_nan(fmt, b);
}

bool softfp_equal(const struct softfp_format *fmt, uint64_t a, uint64_t b, unsigned *flags)
{
    if (unordered(fmt, a, b)) {
        propagate_nan(fmt, a, b, 0, flags);
        return false;
    }
    return order(fmt, a) == order(fmt, b);
}

bool softfp_less(const struct softfp_format *fmt, uint64_t a, uint64_t b, unsigned *flags)
{
    if (unordered(fmt, a, b)) {
        *flags |= SOFTFP_NV;
        return false;
    }
    return order(fmt, a) < order(fmt, b);
}

bool softfp_less_equal(const struct softfp_format *fmt, uint64_t a, uint64_t b, unsigned *flags)
{
    if (unordered(fmt, a, b)) {
        *flags |= SOFTFP_NV;
        return false;
    }
    return order(fmt, a) <= order(fmt, b);
}

// a when `first`, else b, unless that is a NaN.
static uint64_t select_number(const struct softfp_format *fmt, uint64_t a, uint64_t b, bool first,
                              unsigned *flags)
{
    if (!unordered(fmt, a, b))
        return first ? a : b;
    const uint64_t nan = propagate_nan(fmt, a, b, 0, flags);
    if (!is_nan(fmt, a))
        return a;
    return is_nan(fmt, b) ? nan : b;
}

uint64_t softfp_min(const struct softfp_format *fmt, uint64_t a, uint64_t b, unsigned *flags)
{
    const bool a_less = order(fmt, a) < order(fmt, b) ||
                        (order(fmt, a) == order(fmt, b) && a & softfp_sign_bit(fmt));

    return select_number(fmt, a, b, a_less, flags);
}

uint64_t softfp_max(const struct softfp_format *fmt, uint64_t a, uint64_t b, unsigned *flags)
{
    const bool b_less = order(fmt, b) < order(fmt, a) ||
                        (order(fmt, a) == order(fmt, b) && b & softfp_sign_bit(fmt));

    return select_number(fmt, a, b, b_less, flags);
}

unsigned softfp_class(const struct softfp_format *fmt, uint64_t a)
{
    const bool negative = a & softfp_sign_bit(fmt);
    const uint64_t distance = absolute(fmt, a);

    if (distance > infinity(fmt))
        return is_signaling(fmt, a) ? 1 << 8 : 1 << 9;
    if (distance == infinity(fmt))
        return negative ? 1 << 0 : 1 << 7;
    if (distance > fraction_mask(fmt))
        return negative ? 1 << 1 : 1 << 6;
    if (distance)
        return negative ? 1 << 2 : 1 << 5;
    return negative ? 1 << 3 : 1 << 4;
}
