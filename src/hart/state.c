// SPDX-License-Identifier: BSD-2-Clause
// Saving a hart's registers and CSRs, and putting them back.
#include <assert.h>
#include <string.h>

#include "hart/internal.h"

#define FIRST_BYTES offsetof(struct hart, attention)
#define SECOND offsetof(struct hart, privilege)
#define SECOND_BYTES (offsetof(struct hart, mip_lines) - SECOND)

static_assert(SECOND >= FIRST_BYTES + sizeof(atomic_uint), "attention is between the two parts");

void hart_state_save(const struct hart *hart, struct hart_state *state)
{
    memcpy(state->bytes, hart, FIRST_BYTES);
    memcpy(state->bytes + SECOND, (const uint8_t *)hart + SECOND, SECOND_BYTES);
}

// All but what only says where the hart is in its work: the TLB's context, which follows from the
// rest, a step asked for, the last fetch, the exception being raised.
bool hart_state_same(const struct hart *a, const struct hart *b)
{
    const size_t registers = offsetof(struct hart, tlb), counters = offsetof(struct hart, instret),
                 trap = offsetof(struct hart, trap_cause), csrs = offsetof(struct hart, mstatus),
                 end = offsetof(struct hart, mip_lines);

    return a->privilege == b->privilege && a->frm == b->frm && a->fflags == b->fflags &&
           !memcmp(a, b, registers) && !memcmp(&a->instret, &b->instret, trap - counters) &&
           !memcmp(&a->mstatus, &b->mstatus, end - csrs);
}

// Whether `a` and `b` find the same behind an address, privilege and mstatus.SUM aside, which need
// nothing forgotten.
static bool same_translation(const struct hart *a, const struct hart *b)
{
    return a->satp == b->satp && a->menvcfg == b->menvcfg &&
           !((a->mstatus ^ b->mstatus) & HART_MSTATUS_MXR);
}

static bool same_protection(const struct hart *a, const struct hart *b)
{
    return !memcmp(a->pmpcfg, b->pmpcfg, sizeof(a->pmpcfg)) &&
           !memcmp(a->pmpaddr, b->pmpaddr, sizeof(a->pmpaddr));
}

void hart_state_restore(struct hart *hart, const struct hart_state *state)
{
    const struct hart *view = hart_state_view(state);
    bool flush = !same_translation(hart, view), protection = !same_protection(hart, view);

    memcpy((void *)hart, state->bytes, FIRST_BYTES);
    memcpy((uint8_t *)hart + SECOND, state->bytes + SECOND, SECOND_BYTES);
    hart_mmu_update(hart);
    if (protection)
        hart_pmp_update(hart);
    else if (flush)
        hart_mmu_flush(hart);
}
