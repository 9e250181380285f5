// SPDX-License-Identifier: BSD-2-Clause
// hart_fpu against the host's own floating point: millions of random and special operands, in every
// rounding mode, results and flags. The host is run with its MXCSR set for each operation; RMM,
// which it does not have, is derived from the neighbours that RDN and RUP give and an exact middle.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <xmmintrin.h>

#include "hart/hart.h"

enum { RNE, RTZ, RDN, RUP, RMM, MODES };
enum { NX = 1, UF = 2, OF = 4, DZ = 8, NV = 16 };

#define ROUNDS 1000000

// ---- The host -----------------------------------------------------------------------------------

#define MXCSR_MASKED 0x1f80u  // no traps, no DAZ, no FTZ, round to nearest

static void host_begin(unsigned rm)
{
    static const unsigned control[] = {
        [RNE] = 0u << 13, [RDN] = 1u << 13, [RUP] = 2u << 13, [RTZ] = 3u << 13};

    _mm_setcsr(MXCSR_MASKED | control[rm]);
}

static unsigned host_end(void)
{
    const unsigned got = _mm_getcsr();

    _mm_setcsr(MXCSR_MASKED);
    return (got & 1 ? NV : 0) | (got & 4 ? DZ : 0) | (got & 8 ? OF : 0) | (got & 16 ? UF : 0) |
           (got & 32 ? NX : 0);
}

union value {
    uint64_t bits;
    double d;
    float s;
};

// What is compared: an operation on up to three operands of one format.
struct operation {
    enum isa_op op;
    char kind;
    bool is_double;
    int operands;
};

// Instructions in asm, so that the compiler neither folds them nor moves them past the MXCSR.
#define BINARY(insn, x, y) __asm__ volatile(insn " %1, %0" : "+x"(x) : "x"(y))

static double host_double(char kind, double x, double y, double z)
{
    switch (kind) {
    case '+':
        BINARY("addsd", x, y);
        return x;
    case '-':
        BINARY("subsd", x, y);
        return x;
    case '*':
        BINARY("mulsd", x, y);
        return x;
    case '/':
        BINARY("divsd", x, y);
        return x;
    case 'r':
        BINARY("sqrtsd", y, x);
        return y;
    default: {
        volatile double a = x, b = y, c = z;  // no folding of the call
        return fma(a, b, c);
    }
    }
}

static float host_single(char kind, float x, float y, float z)
{
    switch (kind) {
    case '+':
        BINARY("addss", x, y);
        return x;
    case '-':
        BINARY("subss", x, y);
        return x;
    case '*':
        BINARY("mulss", x, y);
        return x;
    case '/':
        BINARY("divss", x, y);
        return x;
    case 'r':
        BINARY("sqrtss", y, x);
        return y;
    default: {
        volatile float a = x, b = y, c = z;
        return fmaf(a, b, c);
    }
    }
}

static uint64_t canonical(uint64_t bits, bool is_double)
{
    if (is_double)
        return (bits << 1) > 0xffe0000000000000 ? 0x7ff8000000000000 : bits;
    return (uint32_t)(bits << 1) > 0xff000000 ? 0xffffffff7fc00000 : bits | 0xffffffff00000000;
}

static uint64_t host_run(const struct operation *o, unsigned rm, const uint64_t v[3],
                         unsigned *flags)
{
    const union value x = {v[0]}, y = {v[1]}, z = {v[2]};
    union value result = {0};

    host_begin(rm);
    if (o->is_double)
        result.d = host_double(o->kind, x.d, y.d, z.d);
    else
        result.s = host_single(o->kind, x.s, y.s, z.s);
    __asm__ volatile("" : "+m"(result));
    *flags |= host_end();
    return canonical(result.bits, o->is_double);
}

// ---- Round to nearest, ties to maximum magnitude ------------------------------------------------

static __float128 quad(uint64_t bits, bool is_double)
{
    const union value v = {bits};

    return is_double ? (__float128)v.d : (__float128)v.s;
}

// Whether the exact result lies in the middle between `low` and `high`. Quadruple precision holds
// each result that does; a sum that it had to round is not in the middle of anything shorter.
static bool in_the_middle(const struct operation *o, const uint64_t v[3], uint64_t low,
                          uint64_t high)
{
    const __float128 x = quad(v[0], o->is_double), y = quad(v[1], o->is_double);
    const __float128 z = quad(v[2], o->is_double);
    const __float128 middle = (quad(low, o->is_double) + quad(high, o->is_double)) / 2;
    const __float128 product = x * y;

    switch (o->kind) {
    case '+':
        return x + y == middle;
    case '-':
        return x - y == middle;
    case '*':
        return product == middle;
    case '/':
        return x / y == middle;
    case 'm':
        return product + z == middle && middle - product == z && middle - z == product;
    default:
        return false;  // no square root is
    }
}

static uint64_t host_run_rmm(const struct operation *o, const uint64_t v[3], unsigned *flags)
{
    unsigned ignored = 0;
    const uint64_t low = host_run(o, RDN, v, &ignored), high = host_run(o, RUP, v, &ignored);
    const uint64_t nearest = host_run(o, RNE, v, flags);
    const uint64_t sign = o->is_double ? 1ull << 63 : 1ull << 31;

    if (low == high || !(*flags & NX) || *flags & OF || !in_the_middle(o, v, low, high))
        return nearest;
    return (low & ~sign) > (high & ~sign) ? low : high;
}

// ---- Operands -----------------------------------------------------------------------------------

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15;  // splitmix64

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

// Every exponent is as likely as at the edges of the range; fractions are random, or a few bits at
// the top or the bottom (ties, carries), or all ones.
static uint64_t random_operand(uint64_t *state, bool is_double, unsigned near_exponent)
{
    const int fraction_bits = is_double ? 52 : 23;
    const uint64_t fraction_mask = (1ull << fraction_bits) - 1;
    const unsigned exponent_max = is_double ? 2047 : 255;
    const uint64_t choice = next_random(state);
    uint64_t fraction = next_random(state) & fraction_mask;
    unsigned exponent = (unsigned)(choice >> 32) & exponent_max;

    switch (choice & 7) {
    case 0:
        exponent = choice >> 32 & 1 ? exponent_max - (choice >> 33 & 1) : choice >> 33 & 1;
        break;
    case 1:
    case 2:
    case 3:
        exponent = (near_exponent + (choice >> 32 & 63) - 32) & exponent_max;
        break;
    }
    switch (choice >> 3 & 7) {
    case 0:
        fraction = 0;
        break;
    case 1:
        fraction &= 3ull << (fraction_bits - 2) | 3;
        break;
    case 2:
        fraction |= fraction_mask & ~(uint64_t)7;
        break;
    case 3:
        fraction &= ~0ull << (fraction_bits / 2);
        break;
    }
    const uint64_t sign = choice >> 6 & 1;
    const uint64_t bits =
        sign << (is_double ? 63 : 31) | (uint64_t)exponent << fraction_bits | fraction;
    return is_double ? bits : bits | 0xffffffff00000000;
}

// ---- Arithmetic ---------------------------------------------------------------------------------

static void expect(const char *name, unsigned rm, const uint64_t v[3], uint64_t got, unsigned flags,
                   uint64_t want, unsigned want_flags)
{
    if (got == want && flags == want_flags)
        return;
    fail_msg("%s rm %u of %016" PRIx64 " %016" PRIx64 " %016" PRIx64 ": %016" PRIx64
             " flags %02x, the host says %016" PRIx64 " flags %02x",
             name, rm, v[0], v[1], v[2], got, flags, want, want_flags);
}

// The host does not count infinity times zero plus a quiet NaN as invalid; RISC-V does.
static bool invalid_product(const struct operation *o, const uint64_t v[3])
{
    const __float128 x = quad(v[0], o->is_double), y = quad(v[1], o->is_double);

    return o->kind == 'm' && x == x && y == y && x * y != x * y;
}

static void test_arithmetic(void **unused)
{
    static const struct operation operations[] = {
        {ISA_FADD_D, '+', true, 2},  {ISA_FSUB_D, '-', true, 2},   {ISA_FMUL_D, '*', true, 2},
        {ISA_FDIV_D, '/', true, 2},  {ISA_FSQRT_D, 'r', true, 1},  {ISA_FMADD_D, 'm', true, 3},
        {ISA_FADD_S, '+', false, 2}, {ISA_FSUB_S, '-', false, 2},  {ISA_FMUL_S, '*', false, 2},
        {ISA_FDIV_S, '/', false, 2}, {ISA_FSQRT_S, 'r', false, 1}, {ISA_FMADD_S, 'm', false, 3},
    };
    uint64_t state = 1;

    (void)unused;
    for (size_t i = 0; i < BASE_COUNT_OF(operations); i++) {
        const struct operation *o = &operations[i];
        unsigned seen = 0, ties = 0;

        for (unsigned n = 0; n < ROUNDS; n++) {
            const unsigned near_exponent = (unsigned)next_random(&state), rm = n % MODES;
            uint64_t v[3] = {0};
            for (int k = 0; k < o->operands; k++)
                v[k] = random_operand(&state, o->is_double, near_exponent);

            unsigned flags = 0, want_flags = 0;
            const uint64_t got = hart_fpu(o->op, rm, v[0], v[1], v[2], &flags);
            const uint64_t want =
                rm == RMM ? host_run_rmm(o, v, &want_flags) : host_run(o, rm, v, &want_flags);
            if (invalid_product(o, v))
                want_flags |= NV;
            expect(isa_op_name(o->op), rm, v, got, flags, want, want_flags);
            seen |= flags;
            if (rm == RMM) {
                unsigned ignored = 0;
                ties += host_run(o, RNE, v, &ignored) != want;
            }
        }
        printf("%s: %u operations agree; flags seen %02x, ties away from even %u\n",
               isa_op_name(o->op), ROUNDS, seen, ties);
        assert_int_equal(seen, o->kind == 'r'                     ? NV | NX
                               : o->kind == '/'                   ? NV | DZ | OF | UF | NX
                               : o->kind == '+' || o->kind == '-' ? NV | OF | NX
                                                                  : NV | OF | UF | NX);
        assert_true(ties > 0 || o->kind == 'r');
    }
}

// fmsub, fnmsub and fnmadd are fmadd with signs turned: before the one rounding.
static void test_negated_fma(void **unused)
{
    uint64_t state = 2;

    (void)unused;
    for (unsigned n = 0; n < ROUNDS; n++) {
        const bool is_double = n & 1;
        const uint64_t sign = is_double ? 1ull << 63 : 1ull << 31;
        const unsigned near_exponent = (unsigned)next_random(&state), rm = n / 2 % MODES;
        const uint64_t a = random_operand(&state, is_double, near_exponent);
        const uint64_t b = random_operand(&state, is_double, near_exponent);
        const uint64_t c = random_operand(&state, is_double, near_exponent);
        const enum isa_op madd = is_double ? ISA_FMADD_D : ISA_FMADD_S;
        const struct {
            enum isa_op op;
            uint64_t a, c;
        } forms[] = {
            {is_double ? ISA_FMSUB_D : ISA_FMSUB_S, a, c ^ sign},
            {is_double ? ISA_FNMSUB_D : ISA_FNMSUB_S, a ^ sign, c},
            {is_double ? ISA_FNMADD_D : ISA_FNMADD_S, a ^ sign, c ^ sign},
        };

        for (size_t i = 0; i < BASE_COUNT_OF(forms); i++) {
            unsigned flags = 0, want_flags = 0;
            const uint64_t want = hart_fpu(madd, rm, forms[i].a, b, forms[i].c, &want_flags);
            const uint64_t got = hart_fpu(forms[i].op, rm, a, b, c, &flags);
            expect(isa_op_name(forms[i].op), rm, (uint64_t[]){a, b, c}, got, flags, want,
                   want_flags);
        }
    }
    printf("fmsub, fnmsub, fnmadd: %u operands agree with fmadd\n", ROUNDS);
}

// ---- Conversions --------------------------------------------------------------------------------

// The host's conversion to int64_t; a result that does not fit has NV.
static int64_t host_to_int64(double x, unsigned rm, unsigned *flags)
{
    int64_t result;

    if (rm == RMM) {
        x = round(x);
        host_begin(RTZ);
    } else {
        host_begin(rm);
    }
    __asm__ volatile("cvtsd2si %1, %0" : "=r"(result) : "x"(x));
    *flags |= host_end();
    return result;
}

// By way of int64_t, which holds every result of the narrower ones.
static uint64_t host_to_integer(double x, char type, unsigned rm, unsigned *flags)
{
    static const struct {
        char type;
        int64_t min;
        uint64_t max;
    } ranges[] = {{'i', INT32_MIN, INT32_MAX},
                  {'u', 0, UINT32_MAX},
                  {'l', INT64_MIN, INT64_MAX},
                  {'U', 0, UINT64_MAX}};
    size_t i = 0;
    while (ranges[i].type != type)
        i++;
    const bool top = type == 'U' && x >= 0x1p63;
    unsigned got_flags = 0;
    const uint64_t got = (uint64_t)host_to_int64(top ? x - 0x1p63 : x, rm, &got_flags);
    uint64_t value = top ? got + (1ull << 63) : got;
    bool overflow = got_flags & NV;

    if (x != x)
        value = ranges[i].max;
    else if (overflow)
        value = x < 0 ? (uint64_t)ranges[i].min : ranges[i].max;
    else if (!top && (int64_t)got < ranges[i].min)
        overflow = true, value = (uint64_t)ranges[i].min;
    else if (value > ranges[i].max && (top || (int64_t)got > 0))
        overflow = true, value = ranges[i].max;
    if (overflow)
        *flags |= NV;
    else if (rm == RMM ? round(x) != x : got_flags & NX)
        *flags |= NX;
    return type == 'i' || type == 'u' ? (uint64_t)(int32_t)value : value;
}

static void test_to_integer(void **unused)
{
    static const struct {
        enum isa_op op;
        char type;
        bool is_double;
    } conversions[] = {
        {ISA_FCVT_W_D, 'i', true},  {ISA_FCVT_WU_D, 'u', true},  {ISA_FCVT_L_D, 'l', true},
        {ISA_FCVT_LU_D, 'U', true}, {ISA_FCVT_W_S, 'i', false},  {ISA_FCVT_WU_S, 'u', false},
        {ISA_FCVT_L_S, 'l', false}, {ISA_FCVT_LU_S, 'U', false},
    };
    uint64_t state = 3;

    (void)unused;
    for (size_t i = 0; i < BASE_COUNT_OF(conversions); i++) {
        const bool is_double = conversions[i].is_double;
        unsigned seen = 0;

        for (unsigned n = 0; n < ROUNDS; n++) {
            const unsigned rm = n % MODES;
            const unsigned near_exponent = (is_double ? 1023 : 127) + (n & 32);
            union value v = {random_operand(&state, is_double, near_exponent)};
            unsigned flags = 0, want_flags = 0;
            const uint64_t got = hart_fpu(conversions[i].op, rm, v.bits, 0, 0, &flags);
            const double x = is_double ? v.d : (double)v.s;
            const uint64_t want = host_to_integer(x, conversions[i].type, rm, &want_flags);
            expect(isa_op_name(conversions[i].op), rm, (uint64_t[]){v.bits, 0, 0}, got, flags, want,
                   want_flags);
            seen |= flags;
        }
        printf("%s: %u operations agree; flags seen %02x\n", isa_op_name(conversions[i].op), ROUNDS,
               seen);
        assert_int_equal(seen, NV | NX);
    }
}

// Halves a large unsigned number with a sticky bit, so that the host's signed conversion does.
static uint64_t host_from_integer(uint64_t value, bool is_signed, bool is_double, unsigned rm,
                                  unsigned *flags)
{
    const bool halve = !is_signed && value >> 63;
    const int64_t operand = (int64_t)(halve ? value >> 1 | (value & 1) : value);
    union value result = {0};

    host_begin(rm);
    if (is_double)
        __asm__ volatile("cvtsi2sdq %1, %0" : "+x"(result.d) : "r"(operand));
    else
        __asm__ volatile("cvtsi2ssq %1, %0" : "+x"(result.s) : "r"(operand));
    *flags |= host_end();
    if (halve && is_double)
        result.d *= 2;
    else if (halve)
        result.s *= 2;
    return canonical(result.bits, is_double);
}

static uint64_t host_from_integer_rmm(uint64_t value, bool is_signed, bool is_double,
                                      unsigned *flags)
{
    unsigned ignored = 0;
    const uint64_t low = host_from_integer(value, is_signed, is_double, RDN, &ignored);
    const uint64_t high = host_from_integer(value, is_signed, is_double, RUP, &ignored);
    const __float128 exact = is_signed ? (__float128)(int64_t)value : (__float128)value;
    const __float128 middle = (quad(low, is_double) + quad(high, is_double)) / 2;

    if (low != high && exact == middle) {
        *flags |= NX;
        return exact < 0 ? low : high;
    }
    return host_from_integer(value, is_signed, is_double, RNE, flags);
}

static void test_from_integer(void **unused)
{
    static const struct {
        enum isa_op op;
        char type;
        bool is_double;
    } conversions[] = {
        {ISA_FCVT_D_W, 'i', true},  {ISA_FCVT_D_WU, 'u', true},  {ISA_FCVT_D_L, 'l', true},
        {ISA_FCVT_D_LU, 'U', true}, {ISA_FCVT_S_W, 'i', false},  {ISA_FCVT_S_WU, 'u', false},
        {ISA_FCVT_S_L, 'l', false}, {ISA_FCVT_S_LU, 'U', false},
    };
    uint64_t state = 4;

    (void)unused;
    for (size_t i = 0; i < BASE_COUNT_OF(conversions); i++) {
        const char type = conversions[i].type;

        for (unsigned n = 0; n < ROUNDS; n++) {
            const unsigned rm = n % MODES;
            const uint64_t random = next_random(&state), mask = next_random(&state);
            const uint64_t value = (n & 8 ? random & mask : random) >> (mask & (n & 16 ? 63 : 0));
            const uint64_t operand = type == 'i'   ? (uint64_t)(int32_t)value
                                     : type == 'u' ? (uint32_t)value
                                                   : value;
            unsigned flags = 0, want_flags = 0;
            const uint64_t got = hart_fpu(conversions[i].op, rm, value, 0, 0, &flags);
            const bool is_signed = type == 'i' || type == 'l';
            const uint64_t want =
                rm == RMM ? host_from_integer_rmm(operand, is_signed, conversions[i].is_double,
                                                  &want_flags)
                          : host_from_integer(operand, is_signed, conversions[i].is_double, rm,
                                              &want_flags);
            expect(isa_op_name(conversions[i].op), rm, (uint64_t[]){value, 0, 0}, got, flags, want,
                   want_flags);
        }
        printf("%s: %u operations agree\n", isa_op_name(conversions[i].op), ROUNDS);
    }
}

static void test_between_formats(void **unused)
{
    uint64_t state = 5;
    unsigned seen = 0;

    (void)unused;
    for (unsigned n = 0; n < ROUNDS; n++) {
        const unsigned rm = n % (MODES - 1);
        const union value x = {random_operand(&state, true, n & 64 ? 1023 - 140 : 1023 + 110)};
        union value y = {random_operand(&state, false, 127)};
        union value narrow = {0}, wide = {0};
        unsigned flags = 0, want_flags = 0;

        host_begin(rm);
        __asm__ volatile("cvtsd2ss %1, %0" : "+x"(narrow.s) : "x"(x.d));
        want_flags = host_end();
        uint64_t got = hart_fpu(ISA_FCVT_S_D, rm, x.bits, 0, 0, &flags);
        expect("fcvt.s.d", rm, (uint64_t[]){x.bits, 0, 0}, got, flags,
               canonical(narrow.bits, false), want_flags);
        seen |= flags;

        flags = 0;
        host_begin(rm);
        __asm__ volatile("cvtss2sd %1, %0" : "+x"(wide.d) : "x"(y.s));
        want_flags = host_end();
        got = hart_fpu(ISA_FCVT_D_S, rm, y.bits, 0, 0, &flags);
        expect("fcvt.d.s", rm, (uint64_t[]){y.bits, 0, 0}, got, flags, canonical(wide.bits, true),
               want_flags);
    }
    printf("fcvt.s.d, fcvt.d.s: %u operations agree; flags seen %02x\n", ROUNDS, seen);
    assert_int_equal(seen, NV | OF | UF | NX);
}

// ---- Comparisons --------------------------------------------------------------------------------

static void test_comparisons(void **unused)
{
    uint64_t state = 6;

    (void)unused;
    for (unsigned n = 0; n < ROUNDS; n++) {
        const union value x = {random_operand(&state, true, 1023)};
        const union value y = {n & 8 ? x.bits ^ (n & 1) : random_operand(&state, true, 1023)};
        const bool nan = x.d != x.d || y.d != y.d;
        const uint64_t quiet = 1ull << 51;
        const bool signals = (x.d != x.d && !(x.bits & quiet)) || (y.d != y.d && !(y.bits & quiet));
        const struct {
            enum isa_op op;
            bool want;
            bool quiet;
        } relations[] = {
            {ISA_FEQ_D, x.d == y.d, true},
            {ISA_FLT_D, x.d < y.d, false},
            {ISA_FLE_D, x.d <= y.d, false},
        };

        for (size_t i = 0; i < BASE_COUNT_OF(relations); i++) {
            unsigned flags = 0;
            const uint64_t got = hart_fpu(relations[i].op, 0, x.bits, y.bits, 0, &flags);
            expect(isa_op_name(relations[i].op), 0, (uint64_t[]){x.bits, y.bits, 0}, got, flags,
                   relations[i].want, (relations[i].quiet ? signals : nan) ? NV : 0);
        }
    }
    printf("feq, flt, fle: %u operands agree\n", ROUNDS);
}

// ---- The process's own settings -----------------------------------------------------------------

static void test_host_settings_do_not_matter(void **unused)
{
    static const enum isa_op operations[] = {ISA_FADD_D,  ISA_FMUL_D, ISA_FDIV_D, ISA_FSQRT_D,
                                             ISA_FMADD_S, ISA_FADD_S, ISA_FSQRT_S};
    const unsigned strange = 0x8040 | MXCSR_MASKED;  // FTZ and DAZ
    uint64_t state = 7;

    (void)unused;
    for (unsigned n = 0; n < ROUNDS / 10; n++) {
        const enum isa_op op = operations[n % BASE_COUNT_OF(operations)];
        const bool is_double = n % BASE_COUNT_OF(operations) < 4;
        const uint64_t v[3] = {random_operand(&state, is_double, 1),
                               random_operand(&state, is_double, 1),
                               random_operand(&state, is_double, 1)};
        unsigned flags = 0, want_flags = 0;
        const uint64_t want = hart_fpu(op, n % MODES, v[0], v[1], v[2], &want_flags);

        _mm_setcsr(strange | (n & 3) << 13);
        const uint64_t got = hart_fpu(op, n % MODES, v[0], v[1], v[2], &flags);
        const unsigned after = _mm_getcsr();
        _mm_setcsr(MXCSR_MASKED);
        assert_int_equal(after & ~0x3fu, strange | (n & 3) << 13);
        expect(isa_op_name(op), n % MODES, v, got, flags, want, want_flags);
    }
    printf("the same with FTZ, DAZ and any host rounding mode: %u operations\n", ROUNDS / 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arithmetic),
        cmocka_unit_test(test_negated_fma),
        cmocka_unit_test(test_to_integer),
        cmocka_unit_test(test_from_integer),
        cmocka_unit_test(test_between_formats),
        cmocka_unit_test(test_comparisons),
        cmocka_unit_test(test_host_settings_do_not_matter),
    };

    return cmocka_run_group_tests_name("fpu against the host", tests, NULL, NULL);
}
