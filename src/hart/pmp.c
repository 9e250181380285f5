// SPDX-License-Identifier: BSD-2-Clause
// Physical memory protection, Privileged ISA 3.7: 16 entries, granularity 4 bytes.
#include "hart/internal.h"

#define PMPADDR_MASK ((1ull << 54) - 1)

static bool locked(const struct hart *hart, unsigned entry)
{
    return hart->pmpcfg[entry] & HART_PMP_L;
}

// The bytes that entry `i` matches; `first` > `last` when none.
static void decode(struct hart *hart, unsigned i)
{
    uint64_t addr = hart->pmpaddr[i];
    uint64_t first = 1, last = 0;

    switch (hart->pmpcfg[i] & HART_PMP_A) {
    case HART_PMP_TOR: {
        uint64_t bottom = i ? hart->pmpaddr[i - 1] : 0;
        if (bottom < addr) {
            first = bottom << 2;
            last = (addr << 2) - 1;
        }
        break;
    }
    case HART_PMP_NA4:
        first = addr << 2;
        last = first + 3;
        break;
    case HART_PMP_NAPOT: {
        uint64_t low = addr ^ (addr + 1);  // the trailing ones, and the zero that ends them
        first = (addr & ~low) << 2;
        last = (addr | low) << 2 | 3;
        break;
    }
    }
    hart->pmp[i].first = first;
    hart->pmp[i].last = last;
}

// The first entry that matches anything gives all of the address space to everyone: so it is where
// nobody cares for PMP, and then accesses need no look at it.
static bool is_open(const struct hart *hart)
{
    for (unsigned i = 0; i < HART_PMP_ENTRIES; i++)
        if (hart->pmp[i].first <= hart->pmp[i].last)
            return hart->pmp[i].first == 0 && hart->pmp[i].last >> 56 &&
                   (hart->pmpcfg[i] & HART_MAY_RWX) == HART_MAY_RWX;
    return false;
}

void hart_pmp_update(struct hart *hart)
{
    for (unsigned i = 0; i < HART_PMP_ENTRIES; i++)
        decode(hart, i);
    hart->pmp_open = is_open(hart);
    hart_mmu_flush(hart);
}

unsigned hart_pmp_allowed(const struct hart *hart, enum hart_privilege privilege, uint64_t gpa,
                          uint64_t length_bytes)
{
    uint64_t last = gpa + length_bytes - 1;

    if (BASE_LIKELY(hart->pmp_open))
        return HART_MAY_RWX;
    for (unsigned i = 0; i < HART_PMP_ENTRIES; i++) {
        if (last < hart->pmp[i].first || gpa > hart->pmp[i].last)
            continue;
        if (gpa < hart->pmp[i].first || last > hart->pmp[i].last)
            return 0;
        if (privilege == HART_M && !locked(hart, i))
            return HART_MAY_RWX;
        return hart->pmpcfg[i] & HART_MAY_RWX;
    }
    return privilege == HART_M ? HART_MAY_RWX : 0;
}

// R=0 with W=1 is reserved: read back as neither. Bits 5 and 6 are zero.
static uint8_t legal_cfg(uint8_t cfg)
{
    cfg &= HART_PMP_L | HART_PMP_A | HART_MAY_RWX;
    return cfg & HART_MAY_R ? cfg : cfg & ~HART_MAY_W;
}

bool hart_pmp_is_legal(uint8_t cfg, uint64_t addr)
{
    return legal_cfg(cfg) == cfg && !(addr & ~PMPADDR_MASK);
}

void hart_pmp_write_cfg(struct hart *hart, unsigned first_entry, uint64_t value)
{
    for (unsigned i = 0; i < 8; i++)
        if (!locked(hart, first_entry + i))
            hart->pmpcfg[first_entry + i] = legal_cfg(value >> (8 * i));
    hart_pmp_update(hart);
}

void hart_pmp_write_addr(struct hart *hart, unsigned entry, uint64_t value)
{
    bool bounds_locked_tor = entry + 1 < HART_PMP_ENTRIES && locked(hart, entry + 1) &&
                             (hart->pmpcfg[entry + 1] & HART_PMP_A) == HART_PMP_TOR;

    if (locked(hart, entry) || bounds_locked_tor)
        return;
    hart->pmpaddr[entry] = value & PMPADDR_MASK;
    hart_pmp_update(hart);
}
