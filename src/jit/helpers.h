// SPDX-License-Identifier: BSD-2-Clause
// What the files with helpers share. Private to helpers.c, fp.c and their like.
#ifndef STRAKE_JIT_HELPERS_H
#define STRAKE_JIT_HELPERS_H

#include "jit/internal.h"

static inline struct jit *jit_of(struct hart *hart)
{
    return hart->engine_state;
}

// Takes the exception that was recorded; hart->pc is the page's start.
static inline bool take_trap(struct hart *hart, const struct jit_site *site)
{
    hart->pc += site->offset;
    hart->instret += site->retired;
    hart_trap_pending(hart);
    return false;
}

static inline bool take_illegal(struct hart *hart, const struct jit_site *site)
{
    hart_raise(hart, HART_CAUSE_ILLEGAL, site->insn.raw);
    return take_trap(hart, site);
}

static inline void write_x(struct hart *hart, const struct jit_site *site, uint64_t value)
{
    if (site->insn.rd != 0)
        hart->x[site->insn.rd] = value;
}

static inline void write_f(struct hart *hart, const struct jit_site *site, uint64_t value)
{
    hart->f[site->insn.rd] = value;
    hart->mstatus |= HART_MSTATUS_FS;
}

#endif
