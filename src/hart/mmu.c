// SPDX-License-Identifier: BSD-2-Clause
// Address translation, Privileged ISA 4.3 to 4.6 (Sv39, Sv48, Sv57), Svnapot, Svpbmt, Svadu; the
// soft TLB; and the accesses that did not hit it.
//
// What the TLB holds. Contexts U, S and S_SUM hold translations of the current satp only: a write
// to satp that changes it drops the private ones (tlb_private) and keeps the global ones, unless
// the mode changed. So an entry needs no ASID, and fences for another ASID have nothing to do.
// Context M holds physical addresses. A page enters a context with exactly the permissions that
// page tables and PMP agree on for the whole page.
//
// A leaf larger than a page enters in pages, yet sfence.vma with any address in it names all of it.
// `tlb_large` bounds, for each half of the address space, where such leaves are: a flush of one
// page outside of it looks at one entry a context, inside at all of them.
#include <errno.h>
#include <string.h>

#include "hart/internal.h"

#define PAGE_BYTES ((uint64_t)MEMORY_PAGE_BYTES)
#define PAGE_SHIFT 12

#define PTE_V (1ull << 0)
#define PTE_R (1ull << 1)
#define PTE_W (1ull << 2)
#define PTE_X (1ull << 3)
#define PTE_U (1ull << 4)
#define PTE_G (1ull << 5)
#define PTE_A (1ull << 6)
#define PTE_D (1ull << 7)
#define PTE_PPN_SHIFT 10
#define PTE_PPN ((1ull << 44) - 1)
#define PTE_RESERVED (0x7full << 54)
#define PTE_PBMT (3ull << 61)
#define PTE_N (1ull << 63)

#define PTES 512u  // in a table

#define NAPOT_PPN_BITS 4  // the one size that Svnapot has: 64 KiB
#define NAPOT_PPN 8

// ---- Faults

enum outcome { OK, PAGE_FAULT, ACCESS_FAULT };

static bool raise_fault(struct hart *hart, enum outcome why, enum hart_access access, uint64_t gva)
{
    static const uint8_t causes[][3] = {
        [PAGE_FAULT] = {[HART_LOAD] = HART_CAUSE_LOAD_PAGE,
                        [HART_STORE] = HART_CAUSE_STORE_PAGE,
                        [HART_EXEC] = HART_CAUSE_FETCH_PAGE},
        [ACCESS_FAULT] = {[HART_LOAD] = HART_CAUSE_LOAD_ACCESS,
                          [HART_STORE] = HART_CAUSE_STORE_ACCESS,
                          [HART_EXEC] = HART_CAUSE_FETCH_ACCESS},
    };
    hart_raise(hart, causes[why][access], gva);
    return false;
}

static unsigned permission_for(enum hart_access access)
{
    static const uint8_t permissions[] = {
        [HART_LOAD] = HART_MAY_R, [HART_STORE] = HART_MAY_W, [HART_EXEC] = HART_MAY_X};
    return permissions[access];
}

// ---- Contexts

enum hart_privilege hart_mmu_privilege(const struct hart *hart)
{
    if (hart->privilege == HART_M && (hart->mstatus & HART_MSTATUS_MPRV))
        return hart->mstatus / (HART_MSTATUS_MPP & -HART_MSTATUS_MPP) & 3;
    return hart->privilege;
}

static enum hart_tlb_context context(const struct hart *hart)
{
    switch (hart_mmu_privilege(hart)) {
    case HART_U:
        return HART_TLB_U;
    case HART_S:
        return hart->mstatus & HART_MSTATUS_SUM ? HART_TLB_S_SUM : HART_TLB_S;
    default:
        return HART_TLB_M;
    }
}

void hart_mmu_update(struct hart *hart)
{
    hart->tlb = hart->tlbs[context(hart)];
}

// ---- Page walk

// A leaf page-table entry.
struct leaf {
    uint64_t slot_gpa;  // where it is
    _Atomic uint64_t *slot;
    uint64_t pte;
    uint64_t bytes;  // how much it maps
};

static unsigned satp_mode(const struct hart *hart)
{
    return hart->satp >> HART_SATP_MODE_SHIFT;
}

static bool canonical(uint64_t gva, unsigned bits)
{
    return (uint64_t)((int64_t)(gva << (64 - bits)) >> (64 - bits)) == gva;
}

// Whether `pte` may be a pointer to the next table: D, A, U, PBMT and N are reserved in one.
static bool valid_pointer(uint64_t pte)
{
    return !(pte & (PTE_D | PTE_A | PTE_U | PTE_PBMT | PTE_N));
}

static bool valid_leaf(const struct hart *hart, uint64_t pte, unsigned level)
{
    uint64_t ppn = pte >> PTE_PPN_SHIFT & PTE_PPN;
    uint64_t pbmt = pte & PTE_PBMT;

    if ((pte & PTE_W) && !(pte & PTE_R))
        return false;
    if (pbmt && (pbmt == PTE_PBMT || !(hart->menvcfg & HART_ENVCFG_PBMTE)))
        return false;
    if (pte & PTE_N)
        return level == 0 && (ppn & ((1u << NAPOT_PPN_BITS) - 1)) == NAPOT_PPN;
    return (ppn & ((1ull << 9 * level) - 1)) == 0;
}

static bool table_allows(const struct hart *hart, uint64_t slot_gpa, enum hart_permission what)
{
    return hart_pmp_allowed(hart, HART_S, slot_gpa, sizeof(uint64_t)) & what;
}

// The walk of 4.3.2 up to the leaf, without looking at what the leaf permits.
static enum outcome find_leaf(const struct hart *hart, uint64_t gva, struct leaf *leaf)
{
    unsigned levels = satp_mode(hart) - HART_SV39 + 3;
    uint64_t table = (hart->satp & HART_SATP_PPN_MASK) << PAGE_SHIFT;

    if (!canonical(gva, PAGE_SHIFT + 9 * levels))
        return PAGE_FAULT;
    for (unsigned level = levels; level-- > 0;) {
        unsigned shift = PAGE_SHIFT + 9 * level;
        leaf->slot_gpa = table + (gva >> shift & (PTES - 1)) * sizeof(uint64_t);
        leaf->slot = memory_ram_hva(hart->memory, leaf->slot_gpa, sizeof(uint64_t));
        if (!leaf->slot || !table_allows(hart, leaf->slot_gpa, HART_MAY_R))
            return ACCESS_FAULT;
        if (hart->tap && hart->tap->table)
            leaf->slot = hart->tap->table(hart, leaf->slot);
        uint64_t pte = leaf->pte = atomic_load_explicit(leaf->slot, memory_order_relaxed);
        if (!(pte & PTE_V) || (pte & PTE_RESERVED))
            return PAGE_FAULT;
        if (pte & (PTE_R | PTE_W | PTE_X)) {
            leaf->bytes = 1ull << (shift + (pte & PTE_N ? NAPOT_PPN_BITS : 0));
            return valid_leaf(hart, pte, level) ? OK : PAGE_FAULT;
        }
        if (!valid_pointer(pte))
            return PAGE_FAULT;
        table = (pte >> PTE_PPN_SHIFT & PTE_PPN) << PAGE_SHIFT;
    }
    return PAGE_FAULT;
}

static uint64_t leaf_gpa(const struct leaf *leaf, uint64_t gva)
{
    uint64_t base = (leaf->pte >> PTE_PPN_SHIFT & PTE_PPN) << PAGE_SHIFT;

    return (base & ~(leaf->bytes - 1)) | (gva & (leaf->bytes - 1));
}

static unsigned leaf_permissions(const struct hart *hart, uint64_t pte,
                                 enum hart_privilege privilege)
{
    unsigned may = pte >> 1 & HART_MAY_RWX;

    if ((hart->mstatus & HART_MSTATUS_MXR) && (pte & PTE_X))
        may |= HART_MAY_R;
    if (privilege == HART_U)
        return pte & PTE_U ? may : 0;
    if (pte & PTE_U)
        return hart->mstatus & HART_MSTATUS_SUM ? may & ~HART_MAY_X : 0;
    return may;
}

// What a translation says.
struct mapping {
    uint64_t gpa;         // of the address asked for
    uint64_t leaf_bytes;  // how much its leaf maps
    unsigned may;         // what may be done without another walk
    bool global;
};

// Sets A, and D for a store, in the leaf as Svadu does. False when the entry is no longer what was
// read, because another hart or the guest changed it: the walk starts again then.
static bool mark(const struct hart *hart, struct leaf *leaf, uint64_t marks)
{
    uint64_t expected = leaf->pte;

    leaf->pte |= marks;
    return (hart->tap && hart->tap->table) ||
           atomic_compare_exchange_strong(leaf->slot, &expected, leaf->pte);
}

static enum outcome walk(const struct hart *hart, uint64_t gva, enum hart_access access,
                         enum hart_privilege privilege, struct mapping *mapping)
{
    uint64_t marks = PTE_A | (access == HART_STORE ? PTE_D : 0);
    struct leaf leaf;

    do {
        enum outcome why = find_leaf(hart, gva, &leaf);
        if (why != OK)
            return why;
        mapping->may = leaf_permissions(hart, leaf.pte, privilege);
        if (!(mapping->may & permission_for(access)))
            return PAGE_FAULT;
        if ((leaf.pte & marks) == marks)
            break;
        if (!(hart->menvcfg & HART_ENVCFG_ADUE))
            return PAGE_FAULT;
        if (!table_allows(hart, leaf.slot_gpa, HART_MAY_W))
            return ACCESS_FAULT;
    } while (!mark(hart, &leaf, marks));
    if (!(leaf.pte & PTE_D))
        mapping->may &= ~HART_MAY_W;
    mapping->gpa = leaf_gpa(&leaf, gva);
    mapping->leaf_bytes = leaf.bytes;
    mapping->global = leaf.pte & PTE_G;
    return OK;
}

static enum outcome translate(const struct hart *hart, uint64_t gva, enum hart_access access,
                              enum hart_privilege privilege, struct mapping *mapping)
{
    if (privilege != HART_M && satp_mode(hart) != HART_BARE)
        return walk(hart, gva, access, privilege, mapping);
    *mapping = (struct mapping){gva, PAGE_BYTES, HART_MAY_RWX, false};
    return OK;
}

// Cuts `extent` down to the page of gva.
static void take_page(struct hart_extent *extent, uint64_t gva)
{
    uint64_t page = gva & ~(PAGE_BYTES - 1);

    extent->gpa += page - extent->gva;
    extent->gva = page;
    extent->bytes = PAGE_BYTES;
}

static bool find_extent(const struct hart *hart, uint64_t gva, enum hart_tlb_context context,
                        struct hart_extent *extent, struct leaf *leaf)
{
    enum hart_privilege privilege = context == HART_TLB_U ? HART_U : HART_S;
    unsigned may;

    if (satp_mode(hart) == HART_BARE || find_leaf(hart, gva, leaf) != OK || !(leaf->pte & PTE_A) ||
        (context == HART_TLB_S && leaf->pte & PTE_U))
        return false;
    extent->gva = gva & ~(leaf->bytes - 1);
    extent->gpa = leaf_gpa(leaf, extent->gva);
    extent->bytes = leaf->bytes;
    may = leaf_permissions(hart, leaf->pte, privilege);
    if (!(hart_pmp_allowed(hart, privilege, extent->gpa, extent->bytes) & HART_MAY_R) ||
        !memory_ram_hva(hart->memory, extent->gpa, extent->bytes))
        take_page(extent, gva);
    may &= hart_pmp_allowed(hart, privilege, extent->gpa, extent->bytes);
    extent->writable = (may & HART_MAY_W) && (leaf->pte & PTE_D);
    extent->global = leaf->pte & PTE_G;
    return (may & HART_MAY_R) && memory_ram_hva(hart->memory, extent->gpa, extent->bytes);
}

bool hart_mmu_extent(const struct hart *hart, uint64_t gva, enum hart_tlb_context context,
                     struct hart_extent *extent)
{
    struct leaf leaf;

    return find_extent(hart, gva, context, extent, &leaf);
}

// How much the leaf maps, with those behind it in its table that differ in the page only, as if all
// were one.
static uint64_t run_bytes(const struct hart *hart, const struct leaf *leaf)
{
    uint64_t step = leaf->bytes >> PAGE_SHIFT << PTE_PPN_SHIFT, count = 1;
    uint64_t left = PTES - leaf->slot_gpa / sizeof(uint64_t) % PTES;

    if (hart->tap || !hart->pmp_open || leaf->pte & PTE_N)
        return leaf->bytes;
    while (count < left && atomic_load_explicit(&leaf->slot[count], memory_order_relaxed) ==
                               leaf->pte + count * step)
        count++;
    return count * leaf->bytes;
}

bool hart_mmu_run(const struct hart *hart, uint64_t gva, enum hart_tlb_context context,
                  struct hart_extent *extent)
{
    struct leaf leaf;
    uint64_t bytes;

    if (!find_extent(hart, gva, context, extent, &leaf))
        return false;
    bytes = run_bytes(hart, &leaf);
    if (extent->bytes == leaf.bytes && memory_ram_hva(hart->memory, extent->gpa, bytes))
        extent->bytes = bytes;
    return true;
}

int hart_debug_translate(struct hart *hart, uint64_t gva, uint64_t *gpa)
{
    struct leaf leaf;

    *gpa = gva;
    if (hart_mmu_privilege(hart) == HART_M || satp_mode(hart) == HART_BARE)
        return 0;
    if (find_leaf(hart, gva, &leaf) != OK)
        return -EFAULT;
    *gpa = leaf_gpa(&leaf, gva);
    return 0;
}

// ---- The soft TLB

static void drop(struct hart_tlb_entry *entry)
{
    entry->load = entry->store = HART_TLB_INVALID;
}

static void note_large_leaf(struct hart *hart, uint64_t gva, uint64_t leaf_bytes)
{
    uint64_t first = gva & ~(leaf_bytes - 1), last = first + leaf_bytes - 1;

    if (first < hart->tlb_large[gva >> 63].first)
        hart->tlb_large[gva >> 63].first = first;
    if (last > hart->tlb_large[gva >> 63].last)
        hart->tlb_large[gva >> 63].last = last;
}

static void fill(struct hart *hart, uint64_t gva, const struct mapping *mapping, unsigned may,
                 uint8_t *page_hva)
{
    if (hart->tap && !hart->tap->fills_tlb)
        return;
    enum hart_tlb_context ctx = context(hart);
    unsigned index = hart_tlb_index(gva);
    struct hart_tlb_entry *entry = &hart->tlbs[ctx][index];
    uint64_t page = gva & ~(PAGE_BYTES - 1), private = 1ull << index % 64;

    entry->load = may & HART_MAY_R ? page : HART_TLB_INVALID;
    entry->store = may & HART_MAY_W ? page : HART_TLB_INVALID;
    entry->addend = (uintptr_t)page_hva - page;
    entry->leaf = mapping->leaf_bytes;
    if (mapping->global)
        hart->tlb_private[ctx][index / 64] &= ~private;
    else
        hart->tlb_private[ctx][index / 64] |= private;
    if (mapping->leaf_bytes > PAGE_BYTES)
        note_large_leaf(hart, gva, mapping->leaf_bytes);
}

static void tell_engine(struct hart *hart, const struct hart_flush *flush)
{
    hart->stats.flushes++;
    hart->engine->flush_translations(hart, hart->engine_state, flush);
}

void hart_mmu_init(struct hart *hart)
{
    unsigned contexts = hart->flat ? HART_TLB_U + 1 : HART_TLB_CONTEXTS;

    for (unsigned ctx = 0; ctx < contexts; ctx++)
        for (unsigned i = 0; i < HART_TLB_ENTRIES; i++)
            drop(&hart->tlbs[ctx][i]);
    memset(hart->tlb_private, 0, sizeof(hart->tlb_private));
    for (unsigned half = 0; half < BASE_COUNT_OF(hart->tlb_large); half++) {
        hart->tlb_large[half].first = UINT64_MAX;
        hart->tlb_large[half].last = 0;
    }
}

// Nothing enters the TLB of a flat hart.
void hart_mmu_flush(struct hart *hart)
{
    if (!hart->flat)
        hart_mmu_init(hart);
    tell_engine(hart, &(struct hart_flush){.scope = HART_FLUSH_ALL});
}

static void drop_private(struct hart *hart)
{
    for (unsigned ctx = 0; ctx < HART_TLB_M; ctx++)
        for (unsigned word = 0; word < HART_TLB_ENTRIES / 64; word++) {
            uint64_t *set = &hart->tlb_private[ctx][word];
            for (; *set; *set &= *set - 1)
                drop(&hart->tlbs[ctx][word * 64 + __builtin_ctzll(*set)]);
        }
}

uint64_t hart_mmu_asid(const struct hart *hart)
{
    return hart->satp >> HART_SATP_ASID_SHIFT & HART_SATP_ASID_MASK;
}

// Whether what `asid` names is in the TLB, which holds one address space.
static bool is_current(const struct hart *hart, uint64_t asid)
{
    return asid == HART_ANY_ASID || asid == hart_mmu_asid(hart);
}

void hart_mmu_flush_asid(struct hart *hart, uint64_t asid)
{
    if (is_current(hart, asid))
        drop_private(hart);
    tell_engine(hart, &(struct hart_flush){.scope = HART_FLUSH_ASID, .asid = asid});
}

void hart_mmu_satp_changed(struct hart *hart, uint64_t old)
{
    if (hart->satp == old)
        return;
    if ((hart->satp ^ old) >> HART_SATP_MODE_SHIFT) {
        hart_mmu_flush(hart);
        return;
    }
    drop_private(hart);
    tell_engine(hart, &(struct hart_flush){.scope = HART_FLUSH_SATP});
}

// Whether `entry` belongs to the leaf that maps gva.
static bool names(const struct hart_tlb_entry *entry, uint64_t gva)
{
    uint64_t page = entry->load != HART_TLB_INVALID ? entry->load : entry->store;

    return ((page ^ gva) & ~(entry->leaf - 1)) == 0;
}

static void drop_page(struct hart *hart, uint64_t gva)
{
    bool large = gva >= hart->tlb_large[gva >> 63].first && gva <= hart->tlb_large[gva >> 63].last;
    unsigned first = large ? 0 : hart_tlb_index(gva);
    unsigned end = large ? HART_TLB_ENTRIES : first + 1;

    for (unsigned ctx = 0; ctx < HART_TLB_M; ctx++)
        for (unsigned i = first; i < end; i++)
            if (names(&hart->tlbs[ctx][i], gva))
                drop(&hart->tlbs[ctx][i]);
}

void hart_mmu_flush_page(struct hart *hart, uint64_t gva, uint64_t asid)
{
    if (is_current(hart, asid))
        drop_page(hart, gva);
    tell_engine(hart, &(struct hart_flush){.scope = HART_FLUSH_PAGE, .asid = asid, .gva = gva});
}

// ---- Accesses

// What an access found behind a guest virtual address.
struct target {
    uint64_t gpa;
    uint8_t *hva;       // NULL: no RAM there
    unsigned page_may;  // what PMP allows on the whole page
    uint64_t leaf_bytes;
    bool global;
};

// Finds what [gva, gva+length_bytes), which lies in one page, is for `access`, and enters the page
// in the TLB. False: exception recorded.
static bool locate(struct hart *hart, uint64_t gva, unsigned length_bytes, enum hart_access access,
                   struct target *target)
{
    enum hart_privilege privilege =
        access == HART_EXEC ? hart->privilege : hart_mmu_privilege(hart);
    unsigned permission = permission_for(access);
    struct mapping mapping;

    hart->stats.misses[access]++;
    enum outcome why = translate(hart, gva, access, privilege, &mapping);
    if (why != OK)
        return raise_fault(hart, why, access, gva);
    uint64_t page_gpa = mapping.gpa & ~(PAGE_BYTES - 1);
    uint8_t *page_hva = memory_ram_hva(hart->memory, page_gpa, PAGE_BYTES);

    if (hart->tap && hart->tap->page && access != HART_EXEC &&
        !hart->tap->page(hart, gva, access, &page_hva))
        return false;
    target->gpa = mapping.gpa;
    target->leaf_bytes = mapping.leaf_bytes;
    target->global = mapping.global;
    target->hva = page_hva ? page_hva + (mapping.gpa - page_gpa) : NULL;
    target->page_may = hart_pmp_allowed(hart, privilege, page_gpa, PAGE_BYTES);
    if (!(target->page_may & permission) &&
        !(hart_pmp_allowed(hart, privilege, mapping.gpa, length_bytes) & permission))
        return raise_fault(hart, ACCESS_FAULT, access, gva);
    if (page_hva && access != HART_EXEC)
        fill(hart, gva, &mapping, mapping.may & target->page_may, page_hva);
    return true;
}

// As locate, for what only RAM can do.
static bool locate_ram(struct hart *hart, uint64_t gva, unsigned length_bytes,
                       enum hart_access access, struct target *target)
{
    if (!locate(hart, gva, length_bytes, access, target))
        return false;
    return target->hva || raise_fault(hart, ACCESS_FAULT, access, gva);
}

// The fixed sizes make each of these one access of the host, so an aligned one is seen whole.
static uint64_t ram_load(const uint8_t *hva, unsigned width_bytes)
{
    uint64_t value = 0;

    switch (width_bytes) {
    case 1:
        memcpy(&value, hva, 1);
        break;
    case 2:
        memcpy(&value, hva, 2);
        break;
    case 4:
        memcpy(&value, hva, 4);
        break;
    default:
        memcpy(&value, hva, 8);
    }
    return value;
}

static void ram_store(uint8_t *hva, unsigned width_bytes, uint64_t value)
{
    switch (width_bytes) {
    case 1:
        memcpy(hva, &value, 1);
        break;
    case 2:
        memcpy(hva, &value, 2);
        break;
    case 4:
        memcpy(hva, &value, 4);
        break;
    default:
        memcpy(hva, &value, 8);
    }
}

static unsigned bytes_to_page_end(uint64_t gva)
{
    return PAGE_BYTES - (gva & (PAGE_BYTES - 1));
}

// An access over a page's end: both parts are found, and may be done, before either is. Only RAM
// takes such accesses (the misaligned-access attribute, 3.6.3); tval is the faulting part's
// address.
static bool locate_parts(struct hart *hart, uint64_t gva, unsigned width_bytes,
                         enum hart_access access, struct target parts[2])
{
    unsigned first = bytes_to_page_end(gva);

    return locate_ram(hart, gva, first, access, &parts[0]) &&
           locate_ram(hart, gva + first, width_bytes - first, access, &parts[1]);
}

// What the TLB has for an access that an engine handed over for its alignment alone.
static const struct hart_tlb_entry *cached(const struct hart *hart, uint64_t gva)
{
    return &hart->tlb[hart_tlb_index(gva)];
}

bool hart_load(struct hart *hart, uint64_t gva, unsigned width_bytes, uint64_t *value)
{
    const struct hart_tlb_entry *entry;
    unsigned first;
    struct target parts[2];

    if (hart->tap && hart->tap->load)
        return hart->tap->load(hart, gva, width_bytes, value);
    gva = hart_check_gva(hart, gva);
    entry = cached(hart, gva);
    first = bytes_to_page_end(gva);
    if (hart->flat)
        return hart_flat_load(hart, gva, width_bytes, value);
    if (width_bytes > first) {
        if (!locate_parts(hart, gva, width_bytes, HART_LOAD, parts))
            return false;
        *value = 0;
        memcpy(value, parts[0].hva, first);
        memcpy((uint8_t *)value + first, parts[1].hva, width_bytes - first);
        return true;
    }
    if (entry->load == (gva & ~(PAGE_BYTES - 1))) {
        *value = ram_load(hart_tlb_hva(entry, gva), width_bytes);
        return true;
    }
    if (!locate(hart, gva, width_bytes, HART_LOAD, parts))
        return false;
    if (parts[0].hva) {
        *value = ram_load(parts[0].hva, width_bytes);
        return true;
    }
    hart->stats.device_reads++;
    if (memory_device_read(hart->memory, parts[0].gpa, width_bytes, value) != 0)
        return raise_fault(hart, ACCESS_FAULT, HART_LOAD, gva);
    return true;
}

bool hart_store(struct hart *hart, uint64_t gva, unsigned width_bytes, uint64_t value)
{
    const struct hart_tlb_entry *entry;
    unsigned first;
    struct target parts[2];

    if (hart->tap && hart->tap->store)
        return hart->tap->store(hart, gva, width_bytes, value);
    gva = hart_check_gva(hart, gva);
    entry = cached(hart, gva);
    first = bytes_to_page_end(gva);
    if (hart->flat)
        return hart_flat_store(hart, gva, width_bytes, value);
    if (width_bytes > first) {
        if (!locate_parts(hart, gva, width_bytes, HART_STORE, parts))
            return false;
        memcpy(parts[0].hva, &value, first);
        memcpy(parts[1].hva, (uint8_t *)&value + first, width_bytes - first);
        return true;
    }
    if (entry->store == (gva & ~(PAGE_BYTES - 1))) {
        ram_store(hart_tlb_hva(entry, gva), width_bytes, value);
        return true;
    }
    if (!locate(hart, gva, width_bytes, HART_STORE, parts))
        return false;
    if (parts[0].hva) {
        ram_store(parts[0].hva, width_bytes, value);
        return true;
    }
    hart->stats.device_writes++;
    if (memory_device_write(hart->memory, parts[0].gpa, width_bytes, value) != 0)
        return raise_fault(hart, ACCESS_FAULT, HART_STORE, gva);
    return true;
}

void *hart_atomic_hva(struct hart *hart, uint64_t gva, unsigned width_bytes,
                      enum hart_access access, uint64_t *gpa)
{
    struct target target;

    if (hart->tap && hart->tap->atomic_hva)
        return hart->tap->atomic_hva(hart, gva, width_bytes, access, gpa);
    gva = hart_check_gva(hart, gva);
    if (gva & (width_bytes - 1)) {
        hart_raise(hart,
                   access == HART_LOAD ? HART_CAUSE_LOAD_MISALIGNED : HART_CAUSE_STORE_MISALIGNED,
                   gva);
        return NULL;
    }
    if (!locate_ram(hart, gva, width_bytes, access, &target))
        return NULL;
    if (gpa)
        *gpa = target.gpa;
    return target.hva;
}

const uint8_t *hart_fetch_page(struct hart *hart, uint64_t gva, uint64_t *page_gpa)
{
    uint64_t offset = gva & (PAGE_BYTES - 1);
    struct target target;

    if (hart->flat)
        return hart_flat_fetch_page(hart, gva, page_gpa);
    if (!locate_ram(hart, gva, 2, HART_EXEC, &target))
        return NULL;
    hart->fetch_halfword = !(target.page_may & HART_MAY_X);
    hart->fetch_global = target.global;
    hart->fetch_leaf_bytes = target.leaf_bytes;
    *page_gpa = target.gpa - offset;
    return target.hva - offset;
}

// ---- Cache blocks, CMO 1.0.1. There are no caches to manage: what is left is who may ask.

// Whether menvcfg, and for U-mode senvcfg, have a bit of `field` set.
static bool enabled(const struct hart *hart, uint64_t field)
{
    if (hart->privilege == HART_M)
        return true;
    return (hart->menvcfg & field) && (hart->privilege == HART_S || (hart->senvcfg & field));
}

static bool block_zero(struct hart *hart, uint64_t block_gva)
{
    const struct hart_tlb_entry *entry = cached(hart, block_gva);
    struct target target;

    if (hart->flat)
        return hart_flat_zero_block(hart, block_gva);
    // Linux zeroes page after page with this: all blocks but a page's first are found here.
    if (entry->store == (block_gva & ~(PAGE_BYTES - 1))) {
        memset(hart_tlb_hva(entry, block_gva), 0, HART_CACHE_BLOCK_BYTES);
        return true;
    }
    if (!locate_ram(hart, block_gva, HART_CACHE_BLOCK_BYTES, HART_STORE, &target))
        return false;
    memset(target.hva, 0, HART_CACHE_BLOCK_BYTES);
    return true;
}

// Allowed where a load or a store is; a refusal is a store's.
static bool block_manage(struct hart *hart, uint64_t block_gva)
{
    struct target target;

    return locate_ram(hart, block_gva, HART_CACHE_BLOCK_BYTES, HART_LOAD, &target) ||
           locate_ram(hart, block_gva, HART_CACHE_BLOCK_BYTES, HART_STORE, &target);
}

bool hart_cache_block(struct hart *hart, enum isa_op op, uint32_t raw, uint64_t gva)
{
    uint64_t block_gva = hart_check_gva(hart, gva) & ~(uint64_t)(HART_CACHE_BLOCK_BYTES - 1);
    uint64_t field = op == ISA_CBO_ZERO    ? HART_ENVCFG_CBZE
                     : op == ISA_CBO_INVAL ? HART_ENVCFG_CBIE
                                           : HART_ENVCFG_CBCFE;

    if (hart->tap && hart->tap->cache_block)
        return hart->tap->cache_block(hart, op, raw, gva);
    if (!enabled(hart, field))
        return hart_raise(hart, HART_CAUSE_ILLEGAL, raw);
    if (op == ISA_CBO_ZERO ? block_zero(hart, block_gva) : block_manage(hart, block_gva))
        return true;
    hart->trap_tval = hart_check_gva(hart, gva);
    return false;
}
