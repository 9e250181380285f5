// SPDX-License-Identifier: BSD-2-Clause
// hart_fpu where RISC-V says more than, or something else than, the host does: NaN-boxing, moves,
// sign injection, minimum and maximum, classes, conversions that saturate, invalid products, and
// the edge of underflow.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <inttypes.h>
#include <stdio.h>

#include "hart/hart.h"

enum { RNE, RTZ, RDN, RUP, RMM };
enum { NX = 1, UF = 2, OF = 4, DZ = 8, NV = 16 };

#define BOX(single) (0xffffffff00000000 | (single))
#define S_NAN BOX(0x7fc00000)
#define S_ONE BOX(0x3f800000)
#define S_QUIET BOX(0xffc12345)
#define S_SIGNALING BOX(0x7f800001)
#define S_INF BOX(0x7f800000)
#define D_NAN 0x7ff8000000000000
#define D_ONE 0x3ff0000000000000
#define D_QUIET 0xfff8123456789abc
#define D_SIGNALING 0x7ff0000000000001
#define D_INF 0x7ff0000000000000
#define SIGN (1ull << 63)

// One operation, and what must come out of it.
struct example {
    enum isa_op op;
    unsigned rm;
    uint64_t a, b, c;
    uint64_t result;
    unsigned flags;
};

static void check(const struct example *examples, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct example *e = &examples[i];
        unsigned flags = 0;
        const uint64_t result = hart_fpu(e->op, e->rm, e->a, e->b, e->c, &flags);

        printf("%s rm %u %016" PRIx64 " %016" PRIx64 " %016" PRIx64 " -> %016" PRIx64 " %02x\n",
               isa_op_name(e->op), e->rm, e->a, e->b, e->c, result, flags);
        if (result != e->result || flags != e->flags)
            fail_msg("want %016" PRIx64 " %02x", e->result, e->flags);
    }
}

#define CHECK(examples) check(examples, BASE_COUNT_OF(examples))

static void test_boxing(void **unused)
{
    static const struct example examples[] = {
        // Not boxed: counts as the canonical, quiet NaN, in each operand.
        {ISA_FADD_S, RNE, 0x3f800000, S_ONE, 0, S_NAN, 0},
        {ISA_FADD_S, RNE, S_ONE, 0xfffffffe3f800000, 0, S_NAN, 0},
        {ISA_FMADD_S, RNE, S_ONE, S_ONE, 0x7fffffff3f800000, S_NAN, 0},
        {ISA_FSQRT_S, RNE, D_ONE, 0, 0, S_NAN, 0},
        {ISA_FCVT_W_S, RNE, 0x3f800000, 0, 0, 0x7fffffff, NV},
        {ISA_FCVT_D_S, RNE, 0x3f800000, 0, 0, D_NAN, 0},
        {ISA_FEQ_S, 0, 0x3f800000, 0x3f800000, 0, 0, 0},
        {ISA_FLE_S, 0, 0x3f800000, S_ONE, 0, 0, NV},
        {ISA_FCLASS_S, 0, 0x3f800000, 0, 0, 1 << 9, 0},
        {ISA_FMIN_S, 0, 0x00000000, S_ONE, 0, S_ONE, 0},
        {ISA_FSGNJ_S, 0, 0x3f800000, BOX(0x80000000), 0, BOX(0xffc00000), 0},
        {ISA_FSGNJ_S, 0, S_ONE, 0xbf800000, 0, S_ONE, 0},
        // Results are boxed, and a double is taken as it is.
        {ISA_FADD_S, RNE, S_ONE, S_ONE, 0, BOX(0x40000000), 0},
        {ISA_FCVT_S_W, RNE, 1, 0, 0, S_ONE, 0},
        {ISA_FCVT_S_D, RNE, D_ONE, 0, 0, S_ONE, 0},
        {ISA_FSGNJ_D, 0, S_ONE, 0, 0, S_ONE & ~SIGN, 0},
        // Moves look at no box.
        {ISA_FMV_X_W, 0, 0x12345678bf800000, 0, 0, 0xffffffffbf800000, 0},
        {ISA_FMV_X_W, 0, S_SIGNALING, 0, 0, 0x7f800001, 0},
        {ISA_FMV_W_X, 0, 0x12345678bf800000, 0, 0, BOX(0xbf800000), 0},
        {ISA_FMV_X_D, 0, D_SIGNALING, 0, 0, D_SIGNALING, 0},
        {ISA_FMV_D_X, 0, 0x3f800000, 0, 0, 0x3f800000, 0},
    };

    (void)unused;
    CHECK(examples);
}

static void test_nan_results(void **unused)
{
    static const struct example examples[] = {
        {ISA_FADD_D, RNE, D_QUIET, D_ONE, 0, D_NAN, 0},
        {ISA_FADD_D, RNE, D_ONE, D_SIGNALING, 0, D_NAN, NV},
        {ISA_FSUB_D, RNE, D_INF, D_INF, 0, D_NAN, NV},
        {ISA_FMUL_D, RNE, 0, D_INF | SIGN, 0, D_NAN, NV},
        {ISA_FDIV_D, RNE, 0, SIGN, 0, D_NAN, NV},
        {ISA_FDIV_D, RNE, D_INF, D_INF, 0, D_NAN, NV},
        {ISA_FDIV_D, RNE, D_ONE, SIGN, 0, D_INF | SIGN, DZ},
        {ISA_FDIV_D, RNE, D_INF, SIGN, 0, D_INF | SIGN, 0},
        {ISA_FSQRT_D, RNE, D_ONE | SIGN, 0, 0, D_NAN, NV},
        {ISA_FSQRT_D, RNE, SIGN, 0, 0, SIGN, 0},
        {ISA_FCVT_S_D, RNE, D_QUIET, 0, 0, S_NAN, 0},
        {ISA_FCVT_S_D, RNE, D_SIGNALING, 0, 0, S_NAN, NV},
        {ISA_FCVT_D_S, RNE, S_SIGNALING, 0, 0, D_NAN, NV},
        // Zero times infinity is invalid whatever is added to it.
        {ISA_FMADD_D, RNE, 0, D_INF, D_QUIET, D_NAN, NV},
        {ISA_FNMSUB_S, RNE, S_INF, BOX(0), S_QUIET, S_NAN, NV},
        {ISA_FMADD_D, RNE, D_INF, D_ONE, D_INF | SIGN, D_NAN, NV},
        {ISA_FMSUB_D, RNE, D_INF, D_ONE, D_INF | SIGN, D_INF, 0},
        {ISA_FMADD_D, RNE, D_QUIET, D_INF, 0, D_NAN, 0},
        {ISA_FMADD_D, RNE, D_ONE, D_ONE, D_SIGNALING, D_NAN, NV},
        // Sign injection copies NaNs as they are.
        {ISA_FSGNJ_D, 0, D_SIGNALING, SIGN, 0, D_SIGNALING | SIGN, 0},
        {ISA_FSGNJN_D, 0, D_SIGNALING, SIGN, 0, D_SIGNALING, 0},
        {ISA_FSGNJX_S, 0, S_QUIET, S_QUIET, 0, BOX(0x7fc12345), 0},
    };

    (void)unused;
    CHECK(examples);
}

static void test_min_max(void **unused)
{
    static const struct example examples[] = {
        {ISA_FMIN_D, 0, SIGN, 0, 0, SIGN, 0},
        {ISA_FMIN_D, 0, 0, SIGN, 0, SIGN, 0},
        {ISA_FMAX_D, 0, SIGN, 0, 0, 0, 0},
        {ISA_FMAX_D, 0, 0, SIGN, 0, 0, 0},
        {ISA_FMIN_D, 0, D_ONE, D_ONE | SIGN, 0, D_ONE | SIGN, 0},
        {ISA_FMAX_D, 0, D_ONE, D_INF, 0, D_INF, 0},
        {ISA_FMAX_D, 0, D_INF | SIGN, D_ONE | SIGN, 0, D_ONE | SIGN, 0},
        {ISA_FMIN_D, 0, D_QUIET, D_ONE, 0, D_ONE, 0},
        {ISA_FMIN_D, 0, D_ONE, D_QUIET, 0, D_ONE, 0},
        {ISA_FMAX_D, 0, D_ONE, D_SIGNALING, 0, D_ONE, NV},
        {ISA_FMAX_D, 0, D_SIGNALING, D_INF | SIGN, 0, D_INF | SIGN, NV},
        {ISA_FMAX_D, 0, D_QUIET, D_QUIET, 0, D_NAN, 0},
        {ISA_FMIN_D, 0, D_QUIET, D_SIGNALING, 0, D_NAN, NV},
        {ISA_FMIN_S, 0, BOX(0x80000000), BOX(0), 0, BOX(0x80000000), 0},
        {ISA_FMAX_S, 0, S_SIGNALING, S_QUIET, 0, S_NAN, NV},
        {ISA_FMAX_S, 0, S_ONE, S_INF, 0, S_INF, 0},
    };

    (void)unused;
    CHECK(examples);
}

static void test_compare(void **unused)
{
    static const struct example examples[] = {
        {ISA_FEQ_D, 0, 0, SIGN, 0, 1, 0},
        {ISA_FLT_D, 0, SIGN, 0, 0, 0, 0},
        {ISA_FLE_D, 0, 0, SIGN, 0, 1, 0},
        {ISA_FEQ_S, 0, S_QUIET, S_QUIET, 0, 0, 0},
        {ISA_FEQ_S, 0, S_SIGNALING, S_ONE, 0, 0, NV},
        {ISA_FLT_S, 0, S_QUIET, S_ONE, 0, 0, NV},
        {ISA_FLE_S, 0, S_ONE, S_SIGNALING, 0, 0, NV},
        {ISA_FLT_S, 0, BOX(0xff800000), BOX(0xff7fffff), 0, 1, 0},
        {ISA_FLE_S, 0, BOX(1), BOX(0x80000001), 0, 0, 0},
    };

    (void)unused;
    CHECK(examples);
}

static void test_class(void **unused)
{
    static const uint64_t doubles[10] = {
        D_INF | SIGN,       D_ONE | SIGN, 1 | SIGN,    SIGN,   0, 1,
        0x0010000000000000, D_INF,        D_SIGNALING, D_QUIET};
    static const uint64_t singles[10] = {
        BOX(0xff800000), BOX(0x80800000), BOX(0x807fffff), BOX(0x80000000), BOX(0),
        BOX(0x007fffff), BOX(0x7f7fffff), S_INF,           S_SIGNALING,     S_QUIET};

    (void)unused;
    for (unsigned i = 0; i < 10; i++) {
        const struct example examples[] = {
            {ISA_FCLASS_D, 0, doubles[i], 0, 0, 1u << i, 0},
            {ISA_FCLASS_S, 0, singles[i], 0, 0, 1u << i, 0},
        };
        CHECK(examples);
    }
}

static void test_saturation(void **unused)
{
    static const uint64_t huge = 0x7e37e43c8800759c;  // 1e300
    static const uint64_t minus_half = 0xbfe0000000000000, minus_one = D_ONE | SIGN;
    static const struct example examples[] = {
        {ISA_FCVT_W_D, RTZ, huge, 0, 0, INT32_MAX, NV},
        {ISA_FCVT_W_D, RTZ, huge | SIGN, 0, 0, (uint64_t)INT32_MIN, NV},
        {ISA_FCVT_W_D, RTZ, D_QUIET, 0, 0, INT32_MAX, NV},
        {ISA_FCVT_W_D, RTZ, D_INF | SIGN, 0, 0, (uint64_t)INT32_MIN, NV},
        {ISA_FCVT_WU_D, RTZ, huge, 0, 0, UINT64_MAX, NV},
        {ISA_FCVT_WU_D, RTZ, D_QUIET, 0, 0, UINT64_MAX, NV},
        {ISA_FCVT_WU_D, RTZ, minus_one, 0, 0, 0, NV},
        {ISA_FCVT_WU_D, RTZ, minus_half, 0, 0, 0, NX},
        {ISA_FCVT_WU_D, RMM, minus_half, 0, 0, 0, NV},
        {ISA_FCVT_LU_D, RDN, minus_half, 0, 0, 0, NV},
        {ISA_FCVT_LU_D, RNE, minus_half, 0, 0, 0, NX},
        {ISA_FCVT_LU_D, RTZ, D_SIGNALING, 0, 0, UINT64_MAX, NV},
        {ISA_FCVT_L_D, RTZ, D_QUIET, 0, 0, INT64_MAX, NV},
        {ISA_FCVT_L_S, RTZ, BOX(0xff800000), 0, 0, (uint64_t)INT64_MIN, NV},
        // The very edges: -2^63 fits, 2^63 does not; 2^32 - 1/2 depends on rounding.
        {ISA_FCVT_L_D, RNE, 0xc3e0000000000000, 0, 0, (uint64_t)INT64_MIN, 0},
        {ISA_FCVT_L_D, RNE, 0x43e0000000000000, 0, 0, INT64_MAX, NV},
        {ISA_FCVT_LU_D, RNE, 0x43e0000000000000, 0, 0, 1ull << 63, 0},
        {ISA_FCVT_LU_D, RNE, 0x43f0000000000000, 0, 0, UINT64_MAX, NV},
        {ISA_FCVT_WU_D, RTZ, 0x41effffffff00000, 0, 0, UINT64_MAX, NX},
        {ISA_FCVT_WU_D, RUP, 0x41effffffff00000, 0, 0, UINT64_MAX, NV},
        {ISA_FCVT_W_D, RNE, 0x41dfffffffe00000, 0, 0, INT32_MAX, NV},
        {ISA_FCVT_W_D, RDN, 0x41dfffffffe00000, 0, 0, INT32_MAX, NX},
        // From integers, of which the 32-bit ones look at the low half only.
        {ISA_FCVT_D_W, RNE, 0x1234567880000000, 0, 0, 0xc1e0000000000000, 0},
        {ISA_FCVT_D_WU, RNE, 0x1234567880000000, 0, 0, 0x41e0000000000000, 0},
        {ISA_FCVT_S_LU, RMM, UINT64_MAX, 0, 0, BOX(0x5f800000), NX},
        {ISA_FCVT_S_L, RDN, 0, 0, 0, BOX(0), 0},
    };

    (void)unused;
    CHECK(examples);
}

static void test_rounding_and_underflow(void **unused)
{
    static const uint64_t max = 0x7fefffffffffffff, min_normal = 0x0010000000000000;
    static const uint64_t half = 0x3fe0000000000000, half_ulp = 0x7c90000000000000;
    static const uint64_t below_one = 0x3fefffffffffffff, near_one = 0x3feffffffffffffe;
    static const struct example examples[] = {
        // Overflow goes to infinity or to the largest number.
        {ISA_FADD_D, RNE, max, max, 0, D_INF, OF | NX},
        {ISA_FADD_D, RTZ, max, max, 0, max, OF | NX},
        {ISA_FADD_D, RDN, max, max, 0, max, OF | NX},
        {ISA_FADD_D, RUP, max | SIGN, max | SIGN, 0, max | SIGN, OF | NX},
        {ISA_FADD_D, RMM, max, max, 0, D_INF, OF | NX},
        // Half a unit above the largest number: overflow to nearest, not towards zero.
        {ISA_FADD_D, RNE, max, half_ulp - 1, 0, max, NX},
        {ISA_FADD_D, RNE, max, half_ulp, 0, D_INF, OF | NX},
        {ISA_FADD_D, RTZ, max, half_ulp, 0, max, NX},
        // Ties.
        {ISA_FMUL_D, RNE, 1, half, 0, 0, UF | NX},
        {ISA_FMUL_D, RMM, 1, half, 0, 1, UF | NX},
        {ISA_FMUL_D, RUP, 1, half, 0, 1, UF | NX},
        {ISA_FMUL_D, RDN, 1, half | SIGN, 0, 1 | SIGN, UF | NX},
        // An exact subnormal result underflows nothing.
        {ISA_FMUL_D, RNE, min_normal, half, 0, min_normal >> 1, 0},
        // Becomes the smallest normal number: at full precision it rounds up to it as well (not
        // tiny), or would not (tiny all the same).
        {ISA_FMUL_D, RUP, min_normal, below_one, 0, min_normal, UF | NX},
        {ISA_FMUL_D, RNE, min_normal, below_one, 0, min_normal, UF | NX},
        {ISA_FMADD_D, RUP, min_normal, below_one, 1, min_normal + 1, NX},
        {ISA_FMADD_D, RNE, 0x1, 0x3c90000000000000, min_normal, min_normal, NX},
        {ISA_FMADD_D, RNE, 1 | SIGN, 0x3c90000000000000, min_normal, min_normal, NX},
        {ISA_FMADD_D, RNE, 1 | SIGN, 0x3fd0000000000000, min_normal, min_normal, NX},
        {ISA_FMADD_D, RNE, 1 | SIGN, 0x3fd8000000000000, min_normal, min_normal, UF | NX},
        {ISA_FMUL_D, RTZ, min_normal, near_one, 0, min_normal - 1, 0},
        // Exact zero sums.
        {ISA_FSUB_D, RNE, D_ONE, D_ONE, 0, 0, 0},
        {ISA_FSUB_D, RDN, D_ONE, D_ONE, 0, SIGN, 0},
        {ISA_FADD_D, RNE, SIGN, SIGN, 0, SIGN, 0},
        {ISA_FNMADD_D, RDN, D_ONE, D_ONE, D_ONE | SIGN, SIGN, 0},
    };

    (void)unused;
    CHECK(examples);
}

// Every floating-point operation of the instruction table but loads and stores does something.
static void test_every_operation(void **unused)
{
    unsigned count = 0;

    (void)unused;
    for (unsigned op = ISA_ILLEGAL + 1; op < ISA_OP_COUNT; op++) {
        const unsigned kind = isa_op_flags(op);
        unsigned flags = 0;

        if (!(kind & ISA_FP) || kind & (ISA_LOAD | ISA_STORE | ISA_SYSTEM))
            continue;
        count++;
        if (!hart_fpu(op, RNE, D_ONE, D_ONE, D_ONE, &flags) &&
            !hart_fpu(op, RNE, D_ONE, D_INF, D_ONE, &flags) &&
            !hart_fpu(op, RNE, S_ONE, S_ONE, S_ONE, &flags) &&
            !hart_fpu(op, RNE, S_ONE, S_INF, S_ONE, &flags))
            fail_msg("%s is not implemented", isa_op_name(op));
    }
    printf("%u operations are implemented\n", count);
    assert_true(count >= 58);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_boxing),
        cmocka_unit_test(test_nan_results),
        cmocka_unit_test(test_min_max),
        cmocka_unit_test(test_compare),
        cmocka_unit_test(test_class),
        cmocka_unit_test(test_saturation),
        cmocka_unit_test(test_rounding_and_underflow),
        cmocka_unit_test(test_every_operation),
    };

    return cmocka_run_group_tests_name("fpu, special operands", tests, NULL, NULL);
}
