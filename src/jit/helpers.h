// SPDX-License-Identifier: BSD-2-Clause
// What the files with helpers share. Private to helpers.c, fp.c and their like.
#ifndef STRAKE_JIT_HELPERS_H
#define STRAKE_JIT_HELPERS_H

#include "jit/internal.h"

static inline struct jit *jit_of(struct hart *hart)
{
    return hart->engine_state;
}

// Takes the exception that was recorded. A flat hart's hook looks at flags, computes, and may have
// this thread run another hart (the child of a vfork does, and never comes back from it).
static inline void take_pending(struct hart *hart)
{
    struct jit *jit = jit_of(hart);

    if (!jit->flat) {
        hart_trap_pending(hart);
        return;
    }
    jit_fp_leave(hart, jit);
    hart_trap_pending(hart);
    jit_flat_enter(jit);
}

// The same in translated code; hart->pc is the page's start.
static inline bool take_trap(struct hart *hart, const struct jit_site *site)
{
    hart->pc += site->offset;
    hart->instret += site->retired;
    take_pending(hart);
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

// Of a checked hart's access at x[rs1]: false when it is not made; hart->pc is where to go on.
bool jit_help_allowed(struct hart *hart, const struct jit_site *site, uint64_t bytes,
                      enum hart_access kind);

#endif
