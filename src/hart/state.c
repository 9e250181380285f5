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
