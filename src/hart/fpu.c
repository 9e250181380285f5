// SPDX-License-Identifier: BSD-2-Clause
// hart_fpu: the F and D instructions in terms of softfp: which format, which operation, and what
// NaN-boxing does to operands and results (Unprivileged ISA 22.2).
#include "hart/hart.h"
#include "hart/softfp.h"

static const struct softfp_format *const S = &softfp_single;
static const struct softfp_format *const D = &softfp_double;

static inline uint64_t box(uint64_t single)
{
    return single | 0xffffffff00000000;
}

// The single in a register; one that is not properly boxed counts as the canonical NaN.
static inline uint64_t unbox(uint64_t reg)
{
    return BASE_LIKELY(reg >> 32 == 0xffffffff) ? (uint32_t)reg : softfp_canonical_nan(S);
}

static inline uint64_t negate(const struct softfp_format *fmt, uint64_t a)
{
    return a ^ softfp_sign_bit(fmt);
}

static inline uint64_t inject_sign(const struct softfp_format *fmt, uint64_t a, uint64_t sign_of)
{
    return (a & ~softfp_sign_bit(fmt)) | (sign_of & softfp_sign_bit(fmt));
}

static inline uint64_t from_signed(const struct softfp_format *fmt, int64_t value, unsigned rm,
                                   unsigned *flags)
{
    const uint64_t magnitude = value < 0 ? -(uint64_t)value : (uint64_t)value;

    return softfp_from_integer(fmt, magnitude, value < 0, rm, flags);
}

static inline uint64_t from_unsigned(const struct softfp_format *fmt, uint64_t value, unsigned rm,
                                     unsigned *flags)
{
    return softfp_from_integer(fmt, value, false, rm, flags);
}

uint64_t hart_fpu(enum isa_op op, unsigned rm, uint64_t a, uint64_t b, uint64_t c, unsigned *flags)
{
    const uint64_t as = unbox(a), bs = unbox(b), cs = unbox(c);

    switch (op) {
    case ISA_FADD_S:
        return box(softfp_add(S, as, bs, rm, flags));
    case ISA_FSUB_S:
        return box(softfp_add(S, as, negate(S, bs), rm, flags));
    case ISA_FMUL_S:
        return box(softfp_mul(S, as, bs, rm, flags));
    case ISA_FDIV_S:
        return box(softfp_div(S, as, bs, rm, flags));
    case ISA_FSQRT_S:
        return box(softfp_sqrt(S, as, rm, flags));
    case ISA_FMADD_S:
        return box(softfp_fma(S, as, bs, cs, rm, flags));
    case ISA_FMSUB_S:
        return box(softfp_fma(S, as, bs, negate(S, cs), rm, flags));
    case ISA_FNMSUB_S:
        return box(softfp_fma(S, negate(S, as), bs, cs, rm, flags));
    case ISA_FNMADD_S:
        return box(softfp_fma(S, negate(S, as), bs, negate(S, cs), rm, flags));
    case ISA_FSGNJ_S:
        return box(inject_sign(S, as, bs));
    case ISA_FSGNJN_S:
        return box(inject_sign(S, as, ~bs));
    case ISA_FSGNJX_S:
        return box(inject_sign(S, as, as ^ bs));
    case ISA_FMIN_S:
        return box(softfp_min(S, as, bs, flags));
    case ISA_FMAX_S:
        return box(softfp_max(S, as, bs, flags));
    case ISA_FEQ_S:
        return softfp_equal(S, as, bs, flags);
    case ISA_FLT_S:
        return softfp_less(S, as, bs, flags);
    case ISA_FLE_S:
        return softfp_less_equal(S, as, bs, flags);
    case ISA_FCLASS_S:
        return softfp_class(S, as);
    case ISA_FCVT_W_S:
        return softfp_to_integer(S, as, 32, true, rm, flags);
    case ISA_FCVT_WU_S:
        return softfp_to_integer(S, as, 32, false, rm, flags);
    case ISA_FCVT_L_S:
        return softfp_to_integer(S, as, 64, true, rm, flags);
    case ISA_FCVT_LU_S:
        return softfp_to_integer(S, as, 64, false, rm, flags);
    case ISA_FCVT_S_W:
        return box(from_signed(S, (int32_t)a, rm, flags));
    case ISA_FCVT_S_WU:
        return box(from_unsigned(S, (uint32_t)a, rm, flags));
    case ISA_FCVT_S_L:
        return box(from_signed(S, (int64_t)a, rm, flags));
    case ISA_FCVT_S_LU:
        return box(from_unsigned(S, a, rm, flags));
    case ISA_FCVT_S_D:
        return box(softfp_convert(D, S, a, rm, flags));
    case ISA_FMV_X_W:
        return (uint64_t)(int32_t)a;
    case ISA_FMV_W_X:
        return box((uint32_t)a);
    case ISA_FADD_D:
        return softfp_add(D, a, b, rm, flags);
    case ISA_FSUB_D:
        return softfp_add(D, a, negate(D, b), rm, flags);
    case ISA_FMUL_D:
        return softfp_mul(D, a, b, rm, flags);
    case ISA_FDIV_D:
        return softfp_div(D, a, b, rm, flags);
    case ISA_FSQRT_D:
        return softfp_sqrt(D, a, rm, flags);
    case ISA_FMADD_D:
        return softfp_fma(D, a, b, c, rm, flags);
    case ISA_FMSUB_D:
        return softfp_fma(D, a, b, negate(D, c), rm, flags);
    case ISA_FNMSUB_D:
        return softfp_fma(D, negate(D, a), b, c, rm, flags);
    case ISA_FNMADD_D:
        return softfp_fma(D, negate(D, a), b, negate(D, c), rm, flags);
    case ISA_FSGNJ_D:
        return inject_sign(D, a, b);
    case ISA_FSGNJN_D:
        return inject_sign(D, a, ~b);
    case ISA_FSGNJX_D:
        return inject_sign(D, a, a ^ b);
    case ISA_FMIN_D:
        return softfp_min(D, a, b, flags);
    case ISA_FMAX_D:
        return softfp_max(D, a, b, flags);
    case ISA_FEQ_D:
        return softfp_equal(D, a, b, flags);
    case ISA_FLT_D:
        return softfp_less(D, a, b, flags);
    case ISA_FLE_D:
        return softfp_less_equal(D, a, b, flags);
    case ISA_FCLASS_D:
        return softfp_class(D, a);
    case ISA_FCVT_W_D:
        return softfp_to_integer(D, a, 32, true, rm, flags);
    case ISA_FCVT_WU_D:
        return softfp_to_integer(D, a, 32, false, rm, flags);
    case ISA_FCVT_L_D:
        return softfp_to_integer(D, a, 64, true, rm, flags);
    case ISA_FCVT_LU_D:
        return softfp_to_integer(D, a, 64, false, rm, flags);
    case ISA_FCVT_D_W:
        return from_signed(D, (int32_t)a, rm, flags);
    case ISA_FCVT_D_WU:
        return from_unsigned(D, (uint32_t)a, rm, flags);
    case ISA_FCVT_D_L:
        return from_signed(D, (int64_t)a, rm, flags);
    case ISA_FCVT_D_LU:
        return from_unsigned(D, a, rm, flags);
    case ISA_FCVT_D_S:
        return softfp_convert(S, D, as, rm, flags);
    case ISA_FMV_X_D:
    case ISA_FMV_D_X:
        return a;
    default:
        return 0;
    }
}
