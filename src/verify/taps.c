// SPDX-License-Identifier: BSD-2-Clause
// The taps: accesses on copies, recorded, replayed. README.md says when each is set.
#include <string.h>

#include "verify/internal.h"

#define PAGE_MASK ((uint64_t)MEMORY_PAGE_BYTES - 1)

static bool leave(struct hart *hart)
{
    return hart_raise(hart, HART_CAUSE_LEAVE, 0);
}

// What changes by itself, so that reading it twice may differ.
static bool changes_by_itself(unsigned csr)
{
    return csr == ISA_CSR_TIME || csr == ISA_CSR_MIP || csr == ISA_CSR_SIP;
}

// What must be done once: calls to the SBI, and sleep.
static bool has_effects(const struct hart *hart, const struct isa_insn *insn)
{
    return insn->op == ISA_WFI ||
           (insn->op == ISA_ECALL && hart->privilege == HART_S && hart->host.sbi);
}

const struct hart_tap verify_tap_none = {.fills_tlb = false};

// ---- Copies

static struct verify_page *find_page(struct verify *verify, const uint8_t *real)
{
    for (unsigned i = 0; i < verify->page_count; i++)
        if (verify->pages[i].real == real)
            return &verify->pages[i];
    return NULL;
}

static struct verify_page *add_page(struct verify *verify, uint8_t *real)
{
    struct verify_page *page = &verify->pages[verify->page_count];

    if (verify->page_count == VERIFY_PAGES)
        return NULL;
    verify->page_count++;
    page->real = real;
    memcpy(page->copy, real, MEMORY_PAGE_BYTES);
    if (verify->rewound) {
        memcpy(page->before, page->copy, MEMORY_PAGE_BYTES);
        memcpy(page->after, page->copy, MEMORY_PAGE_BYTES);
    }
    return page;
}

static bool copies_page(struct hart *hart, uint64_t gva, enum hart_access access,
                        uint8_t **page_hva)
{
    struct verify *verify = verify_of(hart);
    struct verify_page *page = *page_hva ? find_page(verify, *page_hva) : NULL;

    (void)access;
    if (!page && *page_hva)
        page = add_page(verify, *page_hva);
    if (!page || verify->entry_count == BASE_COUNT_OF(verify->entries))
        return leave(hart);
    *page_hva = page->copy;
    verify->entries[verify->entry_count++] =
        (struct hart_tlb_entry *)&hart->tlb[hart_tlb_index(gva)];
    return true;
}

static _Atomic uint64_t *copies_table(const struct hart *hart, _Atomic uint64_t *slot)
{
    uintptr_t offset = (uintptr_t)slot & PAGE_MASK;
    const struct verify_page *page = find_page(verify_of(hart), (uint8_t *)slot - offset);

    return page ? (_Atomic uint64_t *)(page->copy + offset) : slot;
}

static const struct hart_tap copies_within = {
    .page = copies_page, .table = copies_table, .fills_tlb = true};

static bool copies_csr(struct hart *hart, enum isa_op kind, unsigned number, bool read, bool write,
                       uint64_t operand, uint32_t raw, uint64_t *old)
{
    bool ok;

    if (changes_by_itself(number))
        return leave(hart);
    verify_of(hart)->cut |= write;
    hart->tap = &copies_within;
    ok = hart_csr(hart, kind, number, read, write, operand, raw, old);
    hart->tap = &verify_tap_copies;
    return ok;
}

static bool copies_system(struct hart *hart, const struct isa_insn *insn)
{
    bool ok;

    if (has_effects(hart, insn))
        return leave(hart);
    verify_of(hart)->cut = true;
    hart->tap = &copies_within;
    ok = hart_system(hart, insn);
    hart->tap = &verify_tap_copies;
    return ok;
}

const struct hart_tap verify_tap_copies = {.csr = copies_csr,
                                           .system = copies_system,
                                           .page = copies_page,
                                           .table = copies_table,
                                           .fills_tlb = true};

void verify_copies_reset(struct verify *verify)
{
    verify->page_count = 0;
    verify->rewound = false;
}

void verify_copies_hide(struct verify *verify)
{
    for (unsigned i = 0; i < verify->entry_count; i++)
        verify->entries[i]->load = verify->entries[i]->store = HART_TLB_INVALID;
    verify->entry_count = 0;
}

void verify_copies_again(struct verify *verify)
{
    for (unsigned i = 0; i < verify->page_count; i++) {
        const struct verify_page *page = &verify->pages[i];
        memcpy(page->copy, verify->rewound ? page->before : page->real, MEMORY_PAGE_BYTES);
    }
}

// ---- Recording

static const struct hart_tap record_within;

static struct verify_access *record(struct verify *verify, enum verify_kind kind, uint64_t gva)
{
    struct verify_access *access = &verify->journal[verify->recorded];

    *access = (struct verify_access){.kind = kind, .gva = gva};
    return access;
}

// The access at the journal's end has been made.
static bool recorded(struct hart *hart, struct verify_access *access, bool ok)
{
    access->ok = ok;
    access->cause = hart->trap_cause;
    access->tval = hart->trap_tval;
    hart->tap = &verify_tap_record;
    if (ok || access->cause != HART_CAUSE_LEAVE)
        verify_of(hart)->recorded++;
    return ok;
}

static unsigned bytes_to_page_end(const uint8_t *hva)
{
    return MEMORY_PAGE_BYTES - (unsigned)((uintptr_t)hva & PAGE_MASK);
}

// Notes where in RAM an access is, or its second part, and what a store finds there.
static void note_place(struct verify_access *access, uint8_t *hva)
{
    bool second = access->hva[0] != NULL;
    unsigned from = second ? bytes_to_page_end(access->hva[0]) : 0;
    unsigned end = second ? access->width_bytes : bytes_to_page_end(hva);

    access->hva[second] = hva;
    if (access->kind == VERIFY_STORE)
        for (unsigned i = from; i < end && i < access->width_bytes; i++)
            access->before |= (uint64_t)hva[i - from] << 8 * i;
}

static void note_store_page(struct verify *verify, uint8_t *hva)
{
    if (!find_page(verify, hva - ((uintptr_t)hva & PAGE_MASK)))
        verify->outside = true;
}

// Notes where in RAM the access at the journal's end is, and whether it is one that copies have
// not seen.
static bool record_page(struct hart *hart, uint64_t gva, enum hart_access access,
                        uint8_t **page_hva)
{
    struct verify *verify = verify_of(hart);
    struct verify_access *entry = &verify->journal[verify->recorded];

    if (!*page_hva && !verify->stepping)
        return leave(hart);
    if (!*page_hva) {
        verify->outside = true;
        return true;
    }
    if (access == HART_STORE)
        note_store_page(verify, *page_hva);
    note_place(entry, *page_hva + (gva & PAGE_MASK));
    return true;
}

static struct verify_known *known_entry(struct verify *verify, uint64_t gva,
                                        enum hart_access access)
{
    return &verify->known[access == HART_STORE][gva / MEMORY_PAGE_BYTES % VERIFY_KNOWN];
}

// Where in RAM an access within one page is, if that is known; else NULL.
static uint8_t *find_known(const struct hart *hart, uint64_t gva, unsigned width_bytes,
                           enum hart_access access)
{
    struct verify *verify = verify_of(hart);
    const struct verify_known *known = known_entry(verify, gva, access);

    if (known->generation != verify->generation || known->page_gva != (gva & ~PAGE_MASK) ||
        known->context != hart->tlb || ((gva + width_bytes - 1) & ~PAGE_MASK) != known->page_gva)
        return NULL;
    return known->page_hva + (gva & PAGE_MASK);
}

// After an access to all of whose page PMP is the same.
static void make_known(const struct hart *hart, const struct verify_access *access,
                       enum hart_access kind)
{
    struct verify *verify = verify_of(hart);

    if (hart->pmp_open && access->hva[0] && !access->hva[1])
        *known_entry(verify, access->gva, kind) =
            (struct verify_known){.generation = verify->generation,
                                  .page_gva = access->gva & ~PAGE_MASK,
                                  .context = hart->tlb,
                                  .page_hva = access->hva[0] - (access->gva & PAGE_MASK)};
}

// One access of the host each, however it is aligned, as engines make them.
typedef volatile uint16_t guest_u16 __attribute__((aligned(1)));
typedef volatile uint32_t guest_u32 __attribute__((aligned(1)));
typedef volatile uint64_t guest_u64 __attribute__((aligned(1)));

static uint64_t load_ram(const uint8_t *hva, unsigned width_bytes)
{
    switch (width_bytes) {
    case 1:
        return *(const volatile uint8_t *)hva;
    case 2:
        return *(const guest_u16 *)hva;
    case 4:
        return *(const guest_u32 *)hva;
    default:
        return *(const guest_u64 *)hva;
    }
}

static void store_ram(uint8_t *hva, unsigned width_bytes, uint64_t value)
{
    switch (width_bytes) {
    case 1:
        *(volatile uint8_t *)hva = (uint8_t)value;
        break;
    case 2:
        *(guest_u16 *)hva = (uint16_t)value;
        break;
    case 4:
        *(guest_u32 *)hva = (uint32_t)value;
        break;
    default:
        *(guest_u64 *)hva = value;
    }
}

static bool record_load(struct hart *hart, uint64_t gva, unsigned width_bytes, uint64_t *value)
{
    struct verify *verify = verify_of(hart);
    struct verify_access *access = record(verify, VERIFY_LOAD, gva);
    uint8_t *hva = find_known(hart, gva, width_bytes, HART_LOAD);
    bool ok = true;

    if (verify_journal_full(verify))
        return leave(hart);
    hart->tap = &record_within;
    access->width_bytes = width_bytes;
    if (hva) {
        note_place(access, hva);
        *value = load_ram(hva, width_bytes);
    } else {
        ok = hart_load(hart, gva, width_bytes, value);
        if (ok)
            make_known(hart, access, HART_LOAD);
    }
    access->value = ok ? *value : 0;
    return recorded(hart, access, ok);
}

static uint64_t low_bytes(uint64_t value, unsigned bytes)
{
    return bytes < 8 ? value & ((1ull << 8 * bytes) - 1) : value;
}

static bool record_store(struct hart *hart, uint64_t gva, unsigned width_bytes, uint64_t value)
{
    struct verify *verify = verify_of(hart);
    struct verify_access *access = record(verify, VERIFY_STORE, gva);
    uint8_t *hva = find_known(hart, gva, width_bytes, HART_STORE);
    bool ok = true;

    if (verify_journal_full(verify))
        return leave(hart);
    hart->tap = &record_within;
    access->width_bytes = width_bytes;
    access->value = low_bytes(value, width_bytes);
    if (hva) {
        note_store_page(verify, hva);
        note_place(access, hva);
        store_ram(hva, width_bytes, value);
    } else {
        ok = hart_store(hart, gva, width_bytes, value);
        if (ok)
            make_known(hart, access, HART_STORE);
    }
    return recorded(hart, access, ok);
}

// Where in the cell an atomic of this width works.
static void *cell_place(struct verify *verify, uint64_t value)
{
    verify->cell.used = true;
    verify->cell.word = value;
    return &verify->cell.word;
}

static void *record_atomic_hva(struct hart *hart, uint64_t gva, unsigned width_bytes,
                               enum hart_access kind, uint64_t *gpa)
{
    struct verify *verify = verify_of(hart);
    struct verify_access *access = record(verify, VERIFY_ATOMIC, gva);
    uint64_t place_gpa = 0;
    void *place;

    if (!verify->stepping || verify_journal_full(verify)) {
        leave(hart);
        return NULL;
    }
    hart->tap = &record_within;
    place = hart_atomic_hva(hart, gva, width_bytes, kind, &place_gpa);
    access->width_bytes = width_bytes;
    access->gpa = place_gpa;
    access->access = kind;
    recorded(hart, access, place != NULL);
    if (!place)
        return NULL;
    access->value = width_bytes == 4 ? __atomic_load_n((uint32_t *)place, __ATOMIC_ACQUIRE)
                                     : __atomic_load_n((uint64_t *)place, __ATOMIC_ACQUIRE);
    if (gpa)
        *gpa = place_gpa;
    return cell_place(verify, access->value);
}

// Also where the atomic left the value as it is: it is a barrier, and must have seen the newest.
bool verify_cell_store(struct verify *verify)
{
    struct verify_access *access;
    uint32_t expected_word;
    uint64_t expected;

    if (!verify->cell.used)
        return true;
    verify->cell.used = false;
    access = &verify->journal[verify->recorded - 1];
    access->after = verify->cell.word;
    expected = access->value;
    expected_word = (uint32_t)expected;
    if (access->access == HART_LOAD)
        return true;
    if (access->width_bytes == 4)
        return __atomic_compare_exchange_n((uint32_t *)access->hva[0], &expected_word,
                                           (uint32_t)access->after, false, __ATOMIC_SEQ_CST,
                                           __ATOMIC_RELAXED);
    return __atomic_compare_exchange_n((uint64_t *)access->hva[0], &expected, access->after, false,
                                       __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}

static bool record_cache_block(struct hart *hart, enum isa_op op, uint32_t raw, uint64_t gva)
{
    struct verify *verify = verify_of(hart);
    struct verify_access *access = record(verify, VERIFY_CACHE_BLOCK, gva);
    bool ok;

    if (verify_journal_full(verify))
        return leave(hart);
    hart->tap = &record_within;
    ok = hart_cache_block(hart, op, raw, gva);
    access->zero = op == ISA_CBO_ZERO;
    return recorded(hart, access, ok);
}

static bool record_csr(struct hart *hart, enum isa_op kind, unsigned number, bool read, bool write,
                       uint64_t operand, uint32_t raw, uint64_t *old)
{
    struct verify *verify = verify_of(hart);
    struct verify_access *access = record(verify, VERIFY_CSR, number);
    bool ok;

    if (verify_journal_full(verify) || (changes_by_itself(number) && !verify->stepping))
        return leave(hart);
    hart->tap = &record_within;
    ok = hart_csr(hart, kind, number, read, write, operand, raw, old);
    if (!changes_by_itself(number)) {
        hart->tap = &verify_tap_record;
        return ok;
    }
    access->value = ok && read ? *old : 0;
    access->after = operand;
    verify->outside = true;
    return recorded(hart, access, ok);
}

static bool record_system(struct hart *hart, const struct isa_insn *insn)
{
    struct verify *verify = verify_of(hart);
    struct verify_access *access = record(verify, VERIFY_SYSTEM, hart->pc);
    bool effects = has_effects(hart, insn), ok;

    if (verify_journal_full(verify) || (effects && !verify->stepping))
        return leave(hart);
    if (effects)
        hart_state_save(hart, &verify->before_system);
    hart->tap = &record_within;
    ok = hart_system(hart, insn);
    if (!effects) {
        hart->tap = &verify_tap_record;
        return ok;
    }
    hart_state_save(hart, &verify->after_system);
    verify->outside = true;
    return recorded(hart, access, ok);
}

static const struct hart_tap record_within = {.page = record_page};

const struct hart_tap verify_tap_record = {.load = record_load,
                                           .store = record_store,
                                           .atomic_hva = record_atomic_hva,
                                           .cache_block = record_cache_block,
                                           .csr = record_csr,
                                           .system = record_system,
                                           .page = record_page};

void verify_journal_reset(struct verify *verify)
{
    verify->recorded = verify->replayed = 0;
    verify->outside = verify->differs = false;
    verify->cell.used = false;
}

bool verify_journal_full(const struct verify *verify)
{
    return verify->recorded == VERIFY_ACCESSES;
}

// ---- Replaying

// At the journal's end the engine leaves, to come back when there is more.
static const struct verify_access *expect(struct hart *hart, const struct verify_access *made)
{
    struct verify *verify = verify_of(hart);
    const struct verify_access *next = &verify->journal[verify->replayed];

    verify_cell_check(verify);
    if (verify->differs || verify->replayed == verify->recorded) {
        leave(hart);
        return NULL;
    }
    if (next->kind != made->kind || next->gva != made->gva || next->access != made->access ||
        next->width_bytes != made->width_bytes || next->zero != made->zero ||
        (made->kind == VERIFY_STORE && next->value != made->value) ||
        (made->kind == VERIFY_CSR && next->after != made->after)) {
        verify->differs = true;
        verify->wrong = *made;
        verify->wrong.ok = true;
        leave(hart);
        return NULL;
    }
    verify->replayed++;
    return next;
}

static bool replayed(struct hart *hart, const struct verify_access *access)
{
    return access && (access->ok || hart_raise(hart, access->cause, access->tval));
}

static bool replay_load(struct hart *hart, uint64_t gva, unsigned width_bytes, uint64_t *value)
{
    const struct verify_access made = {.kind = VERIFY_LOAD, .gva = gva, .width_bytes = width_bytes};
    const struct verify_access *access = expect(hart, &made);

    if (access)
        *value = access->value;
    return replayed(hart, access);
}

static bool replay_store(struct hart *hart, uint64_t gva, unsigned width_bytes, uint64_t value)
{
    const struct verify_access made = {.kind = VERIFY_STORE,
                                       .gva = gva,
                                       .width_bytes = width_bytes,
                                       .value = low_bytes(value, width_bytes)};

    return replayed(hart, expect(hart, &made));
}

static void *replay_atomic_hva(struct hart *hart, uint64_t gva, unsigned width_bytes,
                               enum hart_access kind, uint64_t *gpa)
{
    const struct verify_access made = {
        .kind = VERIFY_ATOMIC, .gva = gva, .width_bytes = width_bytes, .access = kind};
    const struct verify_access *access = expect(hart, &made);

    if (!replayed(hart, access))
        return NULL;
    if (gpa)
        *gpa = access->gpa;
    return cell_place(verify_of(hart), access->value);
}

void verify_cell_check(struct verify *verify)
{
    if (!verify->cell.used)
        return;
    verify->cell.used = false;
    if (verify->cell.word == verify->journal[verify->replayed - 1].after)
        return;
    verify->differs = true;
    verify->wrong = verify->journal[verify->replayed - 1];
    verify->wrong.after = verify->cell.word;
}

static bool replay_cache_block(struct hart *hart, enum isa_op op, uint32_t raw, uint64_t gva)
{
    const struct verify_access made = {
        .kind = VERIFY_CACHE_BLOCK, .gva = gva, .zero = op == ISA_CBO_ZERO};

    (void)raw;
    return replayed(hart, expect(hart, &made));
}

static bool replay_csr(struct hart *hart, enum isa_op kind, unsigned number, bool read, bool write,
                       uint64_t operand, uint32_t raw, uint64_t *old)
{
    const struct verify_access made = {.kind = VERIFY_CSR, .gva = number, .after = operand};
    const struct verify_access *access;
    bool ok;

    if (changes_by_itself(number)) {
        access = expect(hart, &made);
        if (access && read)
            *old = access->value;
        if (write)  // may have made an interrupt pending: no instruction more
            atomic_fetch_or(&hart->attention, HART_ATTENTION_IRQ);
        return replayed(hart, access);
    }
    hart->tap = &verify_tap_none;
    ok = hart_csr(hart, kind, number, read, write, operand, raw, old);
    hart->tap = &verify_tap_replay;
    return ok;
}

// The call was made; what it did to the hart comes from the journal, if it was called with the
// same.
static bool replay_call(struct hart *hart)
{
    struct verify *verify = verify_of(hart);
    const struct verify_access made = {.kind = VERIFY_SYSTEM, .gva = hart->pc};
    const struct verify_access *access = expect(hart, &made);

    if (!access)
        return false;
    if (!hart_state_same(hart, hart_state_view(&verify->before_system))) {
        verify->differs = true;
        verify->wrong = made;
        return leave(hart);
    }
    hart_state_restore(hart, &verify->after_system);
    return replayed(hart, access);
}

static bool replay_system(struct hart *hart, const struct isa_insn *insn)
{
    bool ok;

    if (has_effects(hart, insn))
        return replay_call(hart);
    hart->tap = &verify_tap_none;
    ok = hart_system(hart, insn);
    hart->tap = &verify_tap_replay;
    return ok;
}

const struct hart_tap verify_tap_replay = {.load = replay_load,
                                           .store = replay_store,
                                           .atomic_hva = replay_atomic_hva,
                                           .cache_block = replay_cache_block,
                                           .csr = replay_csr,
                                           .system = replay_system};

// ---- Copies as the journal has them

static bool in_memory(const struct verify_access *access)
{
    return access->ok && access->hva[0] && access->kind != VERIFY_CACHE_BLOCK;
}

// The byte of `page`'s stand-in `bytes` that byte `i` of the access is; NULL: of another page.
static uint8_t *byte_of(const struct verify_access *access, unsigned i,
                        const struct verify_page *page, uint8_t *bytes)
{
    unsigned first = bytes_to_page_end(access->hva[0]);
    const uint8_t *hva = i < first ? access->hva[0] + i : access->hva[1] + (i - first);
    uintptr_t offset = (uintptr_t)hva - (uintptr_t)page->real;

    return offset < MEMORY_PAGE_BYTES ? bytes + offset : NULL;
}

static void put_bytes(const struct verify_access *access, const struct verify_page *page,
                      uint8_t *bytes, uint64_t value)
{
    for (unsigned i = 0; i < access->width_bytes; i++) {
        uint8_t *byte = byte_of(access, i, page, bytes);
        if (byte)
            *byte = (uint8_t)(value >> 8 * i);
    }
}

static bool has_bytes(const struct verify_access *access, const struct verify_page *page,
                      uint8_t *bytes, uint64_t value)
{
    for (unsigned i = 0; i < access->width_bytes; i++) {
        const uint8_t *byte = byte_of(access, i, page, bytes);
        if (byte && *byte != (uint8_t)(value >> 8 * i))
            return false;
    }
    return true;
}

static void put_zeros(const struct verify_access *access, const struct verify_page *page,
                      uint8_t *bytes)
{
    uintptr_t block = (uintptr_t)access->hva[0] & ~(uintptr_t)(HART_CACHE_BLOCK_BYTES - 1);

    if (block - (uintptr_t)page->real < MEMORY_PAGE_BYTES)
        memset(bytes + (block - (uintptr_t)page->real), 0, HART_CACHE_BLOCK_BYTES);
}

// What was there before each access, latest first, so that the first remains.
static void make_before(const struct verify *verify, const struct verify_page *page)
{
    for (unsigned i = verify->recorded; i-- > 0;) {
        const struct verify_access *access = &verify->journal[i];
        if (in_memory(access))
            put_bytes(access, page, page->before,
                      access->kind == VERIFY_STORE ? access->before : access->value);
    }
}

// False: what was read is not what was there.
static bool make_after(const struct verify *verify, const struct verify_page *page)
{
    bool consistent = true;

    memcpy(page->after, page->before, MEMORY_PAGE_BYTES);
    for (unsigned i = 0; i < verify->recorded; i++) {
        const struct verify_access *access = &verify->journal[i];

        if (access->kind == VERIFY_CACHE_BLOCK && access->ok && access->zero)
            put_zeros(access, page, page->after);
        if (!in_memory(access))
            continue;
        if (access->kind != VERIFY_STORE)
            consistent &= has_bytes(access, page, page->after, access->value);
        if (access->kind != VERIFY_LOAD)
            put_bytes(access, page, page->after,
                      access->kind == VERIFY_STORE ? access->value : access->after);
    }
    return consistent;
}

static bool add_pages_of_journal(struct verify *verify)
{
    for (unsigned i = 0; i < verify->recorded; i++)
        for (unsigned part = 0; part < 2; part++) {
            uint8_t *hva = verify->journal[i].hva[part];
            uint8_t *real = hva ? hva - ((uintptr_t)hva & PAGE_MASK) : NULL;

            if (verify->journal[i].ok && real && !find_page(verify, real) &&
                !add_page(verify, real))
                return false;
        }
    return true;
}

// Whether a walk finds now what it found when the access was made. Where the access was refused, a
// walk that comes to an end leaves that open.
static bool translated_alike(struct hart *hart, const struct verify_access *access)
{
    uint64_t page_gva = access->gva & ~PAGE_MASK;

    for (unsigned part = 0; part < 2; part++, page_gva += MEMORY_PAGE_BYTES) {
        const uint8_t *hva = access->hva[part];
        uint64_t gpa;
        bool mapped = hart_debug_translate(hart, page_gva, &gpa) == 0;

        if (hva ? !mapped ||
                      memory_ram_hva(hart->memory, gpa, 1) != hva - ((uintptr_t)hva & PAGE_MASK)
                : !access->ok && mapped)
            return false;
    }
    return true;
}

static bool translations_alike(struct hart *hart, const struct verify *verify)
{
    for (unsigned i = 0; i < verify->recorded; i++)
        if (verify->journal[i].kind < VERIFY_CSR && !translated_alike(hart, &verify->journal[i]))
            return false;
    return true;
}

bool verify_copies_rewind(struct hart *hart, struct verify *verify)
{
    bool consistent;

    verify->page_count = 0;
    verify->rewound = true;
    consistent = translations_alike(hart, verify) && add_pages_of_journal(verify);
    for (unsigned i = 0; i < verify->page_count; i++) {
        make_before(verify, &verify->pages[i]);
        consistent &= make_after(verify, &verify->pages[i]);
    }
    verify_copies_again(verify);
    return consistent;
}

bool verify_copies_match(const struct verify *verify)
{
    for (unsigned i = 0; i < verify->page_count; i++) {
        const struct verify_page *page = &verify->pages[i];
        if (memcmp(page->copy, verify->rewound ? page->after : page->real, MEMORY_PAGE_BYTES) != 0)
            return false;
    }
    return true;
}
