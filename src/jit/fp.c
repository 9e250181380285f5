// SPDX-License-Identifier: BSD-2-Clause
// Floating-point arithmetic on the host's, where that gives the same result and the flags are
// known; hart_fpu does the rest: other rounding modes than to nearest even, NaNs, infinities,
// subnormal results and what is near them (tininess is detected differently), improperly boxed
// singles.
//
// A result that is normal, finite and not of the two smallest exponents can have raised the inexact
// flag only: overflow, division by zero and invalid operations give infinities and NaNs. So when
// the guest's inexact flag is set already, as it soon is in most programs, there is nothing to find
// out; otherwise the host's flags tell.
#include <immintrin.h>
#include <string.h>

#include "jit/internal.h"

#define FLAG_NX 1u
#define HOST_CLEAR 0x1f80u  // MXCSR: all exceptions masked, no flags, to nearest even
#define HOST_INEXACT 0x20u
#define HOST_FLAGS 0x3du  // all but "an operand is denormal", which is no RISC-V flag

// The compiler may neither move the operation over a change of MXCSR nor do it beforehand: the
// empty assembler statements are volatile, as the accesses to MXCSR are.
#define COMPUTE(name, type, suffix, fma, sqrt)                                                     \
    __attribute__((noinline, target("fma"))) static type name(enum isa_op op, type a, type b,      \
                                                              type c)                              \
    {                                                                                              \
        type result;                                                                               \
                                                                                                   \
        __asm__ volatile("" : "+x"(a), "+x"(b), "+x"(c));                                          \
        switch (op) {                                                                              \
        case ISA_FADD_##suffix:                                                                    \
            result = a + b;                                                                        \
            break;                                                                                 \
        case ISA_FSUB_##suffix:                                                                    \
            result = a - b;                                                                        \
            break;                                                                                 \
        case ISA_FMUL_##suffix:                                                                    \
            result = a * b;                                                                        \
            break;                                                                                 \
        case ISA_FDIV_##suffix:                                                                    \
            result = a / b;                                                                        \
            break;                                                                                 \
        case ISA_FMADD_##suffix:                                                                   \
            result = fma(a, b, c);                                                                 \
            break;                                                                                 \
        case ISA_FMSUB_##suffix:                                                                   \
            result = fma(a, b, -c);                                                                \
            break;                                                                                 \
        case ISA_FNMSUB_##suffix:                                                                  \
            result = fma(-a, b, c);                                                                \
            break;                                                                                 \
        case ISA_FNMADD_##suffix:                                                                  \
            result = fma(-a, b, -c);                                                               \
            break;                                                                                 \
        default:                                                                                   \
            result = sqrt;                                                                         \
        }                                                                                          \
        __asm__ volatile("" : "+x"(result));                                                       \
        return result;                                                                             \
    }
COMPUTE(compute_double, double, D, __builtin_fma,
        _mm_cvtsd_f64(_mm_sqrt_sd(_mm_set_sd(a), _mm_set_sd(a))))
COMPUTE(compute_single, float, S, __builtin_fmaf, _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(a))))

static double to_double(uint64_t bits)
{
    double value;

    memcpy(&value, &bits, sizeof(value));
    return value;
}

static float to_single(uint64_t bits)
{
    float value;

    memcpy(&value, &bits, sizeof(value));
    return value;
}

static uint64_t compute(enum isa_op op, bool single, const uint64_t operands[3])
{
    uint64_t bits = 0;

    if (single) {
        float result = compute_single(op, to_single(operands[0]), to_single(operands[1]),
                                      to_single(operands[2]));
        memcpy(&bits, &result, sizeof(result));
    } else {
        double result = compute_double(op, to_double(operands[0]), to_double(operands[1]),
                                       to_double(operands[2]));
        memcpy(&bits, &result, sizeof(result));
    }
    return bits;
}

// Normal, finite, and not next to the subnormals.
static bool plain(uint64_t bits, bool single)
{
    unsigned exponent = single ? bits >> 23 & 0xff : bits >> 52 & 0x7ff;

    return exponent - 2 <= (single ? 0xfeu : 0x7feu) - 2;
}

static bool zero(uint64_t bits, bool single)
{
    return single ? (uint32_t)bits << 1 == 0 : bits << 1 == 0;
}

bool jit_fp_try(enum isa_op op, bool single, const uint64_t operands[3], unsigned fflags,
                uint64_t *result, unsigned *raised)
{
    unsigned host;

    if (fflags & FLAG_NX) {
        *result = compute(op, single, operands);
        if (plain(*result, single))
            return true;
    }
    _mm_setcsr(HOST_CLEAR);
    *result = compute(op, single, operands);
    host = _mm_getcsr();
    *raised = host & HOST_INEXACT ? FLAG_NX : 0;
    return plain(*result, single) || (zero(*result, single) && !(host & HOST_FLAGS));
}
