// SPDX-License-Identifier: BSD-2-Clause
// The host's floating-point control word, MXCSR, as the guest's fcsr.
//
// While jit->fp_live, MXCSR rounds as frm says and its sticky flags are guest's that hart->fflags
// does not have yet: both kinds mean the same, tininess is detected after rounding by both. So
// translated code computes, and nobody looks at flags until the guest does or the engine is left.
// C code that is called meanwhile must not compute with the host's floating point.
#include <immintrin.h>

#include "jit/helpers.h"

#define MXCSR_MASKED 0x1f80u  // no exception traps
#define MXCSR_ROUNDING_SHIFT 13

// Flags in fflags' order for those in MXCSR's. RISC-V has no flag for subnormal operands.
static unsigned guest_flags(unsigned mxcsr)
{
    const unsigned invalid = 1, by_zero = 4, overflow = 8, underflow = 16, inexact = 32;

    return (mxcsr & invalid ? 1u << 4 : 0) | (mxcsr & by_zero ? 1u << 3 : 0) |
           (mxcsr & overflow ? 1u << 2 : 0) | (mxcsr & underflow ? 1u << 1 : 0) |
           (mxcsr & inexact ? 1u : 0);
}

// Nearest even, to zero, down, up.
static unsigned control(unsigned frm)
{
    static const uint8_t rounding[] = {0, 3, 1, 2};

    return MXCSR_MASKED | (unsigned)rounding[frm] << MXCSR_ROUNDING_SHIFT;
}

void jit_fp_init(struct jit *jit)
{
    for (unsigned i = 0; i < BASE_COUNT_OF(jit->fp_flags); i++)
        jit->fp_flags[i] = (uint8_t)guest_flags(i);
}

bool jit_fp_enter(struct hart *hart, struct jit *jit, bool dirties)
{
    const unsigned up = 3;
    uint64_t fs = hart->mstatus & HART_MSTATUS_FS;

    if (hart->frm > up || !fs || (fs != HART_MSTATUS_FS && !dirties))
        return false;
    hart->mstatus |= HART_MSTATUS_FS;
    if (!jit->fp_live) {
        jit->fp_host = _mm_getcsr();
        jit->fp_control = control(hart->frm);
        _mm_setcsr(jit->fp_control);
    }
    jit->fp_live = jit->fp_ready = true;
    return true;
}

void jit_fp_leave(struct hart *hart, struct jit *jit)
{
    if (!jit->fp_live)
        return;
    hart->fflags |= (uint8_t)guest_flags(_mm_getcsr());
    _mm_setcsr(jit->fp_host);
    jit->fp_live = jit->fp_ready = false;
}

// ---- Helpers

static bool finish_fp(struct hart *hart, const struct jit_site *site, uint64_t result,
                      unsigned raised)
{
    if (raised) {
        hart->fflags |= (uint8_t)raised;
        hart->mstatus |= HART_MSTATUS_FS;
    }
    if (isa_op_flags(site->insn.op) & ISA_FRD)
        write_f(hart, site, result);
    else
        write_x(hart, site, result);
    return true;
}

// hart_fpu may spoil the host's flags (its square root starts from the host's).
static uint64_t compute(enum isa_op op, unsigned rm, uint64_t a, uint64_t b, uint64_t c,
                        unsigned *raised)
{
    unsigned mxcsr = _mm_getcsr();
    uint64_t result = hart_fpu(op, rm, a, b, c, raised);

    _mm_setcsr(mxcsr);
    return result;
}

// FS is known not to be Off.
bool jit_help_fp(struct hart *hart, const struct jit_site *site)
{
    const unsigned dynamic = 7, max_magnitude = 4;
    const struct isa_insn *insn = &site->insn;
    unsigned raised = 0, rm = insn->rm == dynamic ? hart->frm : insn->rm;
    bool from_x = isa_op_flags(insn->op) & ISA_RS1;
    uint64_t a = from_x ? hart->x[insn->rs1] : hart->f[insn->rs1], result;

    if (rm > max_magnitude)
        return take_illegal(hart, site);
    result = compute(insn->op, rm, a, hart->f[insn->rs2], hart->f[insn->rs3], &raised);
    return finish_fp(hart, site, result, raised);
}

// Where fp_ready cannot be had, the interpreter does the instruction, which may be illegal, and the
// next one starts another block.
bool jit_help_fp_ready(struct hart *hart, const struct jit_site *site)
{
    bool dirties = isa_op_flags(site->insn.op) & ISA_FRD;

    return jit_fp_enter(hart, jit_of(hart), dirties) || jit_help_step(hart, site);
}

// Before a loop: nothing is Dirty by it yet.
bool jit_help_fp_loop(struct hart *hart, const struct jit_site *site)
{
    return jit_fp_enter(hart, jit_of(hart), false) || jit_help_step(hart, site);
}

// FS is Dirty only once the load is done.
bool jit_help_fp_load(struct hart *hart, const struct jit_site *site)
{
    if (!(hart->mstatus & HART_MSTATUS_FS))
        return take_illegal(hart, site);
    if (!jit_help_load(hart, site))
        return false;
    if (jit_fp_enter(hart, jit_of(hart), true))
        return true;
    hart->pc += site->offset + site->insn.length;
    hart->instret += site->retired + 1u;
    return false;
}

// flt or fle of a NaN, with flags as they are in x[rs3] before and after. fp_ready is set.
bool jit_help_fp_quiet(struct hart *hart, const struct jit_site *site)
{
    const unsigned flags = 0x1f;

    hart->fflags = hart->x[site->insn.rs3] & flags;
    _mm_setcsr(jit_of(hart)->fp_control);
    write_x(hart, site, 0);
    return true;
}
