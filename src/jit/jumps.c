// SPDX-License-Identifier: BSD-2-Clause
// Where virtual pcs lead: the pages that code is fetched from and the jump tables, and what a
// change of translations takes from them.
//
// The guest flushes a page after most page faults, so only what a flush names is forgotten, and
// that is found without a search: `coded` tells, by a hash of the page, which tables have jumps
// into it.
#include <string.h>

#include "jit/internal.h"

#define SATP_ASID(satp) ((satp) >> 44 & 0xffff)  // Privileged ISA 4.1.11

static_assert(JIT_TABLES <= 8 * sizeof(((struct jit *)0)->coded[0]), "a bit for each table");

// ---- Pages

static struct jit_fetch_page *slot_of(struct jit *jit, uint64_t gva)
{
    return &jit->fetch[gva / MEMORY_PAGE_BYTES % JIT_FETCH_PAGES];
}

static uint64_t page_of(uint64_t gva)
{
    return gva - JIT_PAGE_OFFSET(gva);
}

static bool is_current(const struct hart *hart, uint64_t satp)
{
    return satp == JIT_GLOBAL || satp == hart->satp;
}

const struct jit_fetch_page *jit_jumps_fetch(struct hart *hart, struct jit *jit, uint64_t pc)
{
    struct jit_fetch_page *page = slot_of(jit, pc);
    uint64_t tag = page_of(pc) | hart->privilege;

    jit->stats.fetches++;
    if (BASE_LIKELY(page->tag == tag && is_current(hart, page->satp)))
        return page;
    page->tag = JIT_FETCH_INVALID;
    page->hva = hart_fetch_page(hart, pc, &page->gpa);
    if (!page->hva)
        return NULL;
    page->satp = hart->privilege == HART_M || hart->fetch_global ? JIT_GLOBAL : hart->satp;
    page->leaf_bytes = hart->fetch_leaf_bytes;
    if (!hart->fetch_halfword)
        page->tag = tag;
    return page;
}

// ---- Tables

static void forget_table(struct jit_jumps *table)
{
    if (table->noted_count <= JIT_JUMPS_NOTED)
        for (unsigned i = 0; i < table->noted_count; i++)
            table->noted[i]->pc = JIT_JUMP_INVALID;
    else
        for (size_t i = 0; i < JIT_JUMPS; i++)
            table->entries[i].pc = JIT_JUMP_INVALID;
    table->noted_count = 0;
    table->satp = JIT_GLOBAL;
}

void jit_jumps_forget(struct jit *jit)
{
    for (size_t i = jit->table_first; i < jit->table_end; i++)
        forget_table(&jit->tables[i]);
}

// The table of the current address space, or the one that was left longest ago, emptied.
static struct jit_jumps *user_table(const struct hart *hart, struct jit *jit)
{
    struct jit_jumps *oldest = &jit->tables[JIT_USER_TABLES];

    for (size_t i = JIT_USER_TABLES; i < jit->table_end; i++) {
        if (jit->tables[i].satp == hart->satp)
            return &jit->tables[i];
        if (jit->tables[i].used < oldest->used)
            oldest = &jit->tables[i];
    }
    forget_table(oldest);
    oldest->satp = hart->satp;
    return oldest;
}

void jit_jumps_choose(const struct hart *hart, struct jit *jit)
{
    enum hart_tlb_context context = hart_mmu_context(hart);

    if (context != HART_TLB_U)
        jit->table = &jit->tables[context - 1];
    else if (!jit->user || jit->user->satp != hart->satp)
        jit->table = jit->user = user_table(hart, jit);
    else
        jit->table = jit->user;
    jit->table->used = ++jit->table_uses;
    jit->jumps = jit->table->entries;
}

// Jumps into `page` depend on its translation, and are in the current table.
static void mark(struct jit *jit, const struct jit_fetch_page *page)
{
    uint64_t gva = page_of(page->tag), first = gva & ~(page->leaf_bytes - 1);
    struct jit_range *large = &jit->large[gva >> 63];

    jit->coded[gva / MEMORY_PAGE_BYTES % JIT_CODED] |= (uint16_t)(1u << (jit->table - jit->tables));
    if (page->satp != JIT_GLOBAL)
        jit->table->satp = page->satp;
    if (page->leaf_bytes == MEMORY_PAGE_BYTES)
        return;
    if (first < large->first)
        large->first = first;
    if (first + page->leaf_bytes - 1 > large->last)
        large->last = first + page->leaf_bytes - 1;
}

void jit_jumps_note(struct jit *jit, uint64_t pc, const struct jit_block *block)
{
    struct jit_jumps *table = jit->table;
    struct jit_jump *jump = &table->entries[JIT_JUMP_INDEX(pc)];

    if (jump->pc <= JIT_JUMP_INVALID && table->noted_count <= JIT_JUMPS_NOTED &&
        table->noted_count++ < JIT_JUMPS_NOTED)
        table->noted[table->noted_count - 1] = jump;
    *jump = (struct jit_jump){.pc = pc, .entry = block->entry};
    mark(jit, slot_of(jit, pc));
    if (block->gpa & JIT_STRADDLES)
        mark(jit, slot_of(jit, pc + 2));
}

// ---- Flushes

// Forgets `jump` if it leads into the page at gva or begins in the last two bytes before it.
// Returns whether it leads into another page that `coded` takes for the same.
static bool forget_if_in(struct jit_jump *jump, uint64_t gva)
{
    if (page_of(jump->pc) == gva || jump->pc == gva - 2)
        jump->pc = JIT_JUMP_INVALID;
    else if (jump->pc != JIT_JUMP_INVALID)
        return ((jump->pc ^ gva) / MEMORY_PAGE_BYTES % JIT_CODED) == 0;
    return false;
}

static bool forget_noted(struct jit_jumps *table, uint64_t gva)
{
    bool others = false;

    for (unsigned i = 0; i < table->noted_count; i++) {
        others |= forget_if_in(table->noted[i], gva);
        if (table->noted[i]->pc == JIT_JUMP_INVALID)
            table->noted[i--] = table->noted[--table->noted_count];
    }
    return others;
}

static bool forget_slots(struct jit_jumps *table, uint64_t gva)
{
    bool others = false;

    for (uint64_t pc = gva - 2; pc != gva + MEMORY_PAGE_BYTES; pc += 2)
        others |= forget_if_in(&table->entries[JIT_JUMP_INDEX(pc)], gva);
    return others;
}

// The shorter way to look at all jumps that there may be.
static bool forget_page_of_table(struct jit_jumps *table, uint64_t gva)
{
    return table->noted_count < MEMORY_PAGE_BYTES / 4 ? forget_noted(table, gva)
                                                      : forget_slots(table, gva);
}

static void forget_page(struct jit *jit, uint64_t gva)
{
    uint16_t *coded = &jit->coded[gva / MEMORY_PAGE_BYTES % JIT_CODED];
    struct jit_fetch_page *page = slot_of(jit, gva);

    if (page->tag != JIT_FETCH_INVALID && page_of(page->tag) == gva)
        page->tag = JIT_FETCH_INVALID;
    for (unsigned i = 0, set = *coded; set; i++, set >>= 1)
        if (set & 1 && !forget_page_of_table(&jit->tables[i], gva))
            *coded &= (uint16_t) ~(1u << i);
}

static void forget_asid(struct jit *jit, uint64_t asid)
{
    for (size_t i = 0; i < JIT_FETCH_PAGES; i++)
        if (jit->fetch[i].satp != JIT_GLOBAL &&
            (asid == HART_ANY_ASID || SATP_ASID(jit->fetch[i].satp) == asid))
            jit->fetch[i].tag = JIT_FETCH_INVALID;
    for (size_t i = jit->table_first; i < jit->table_end; i++)
        if (jit->tables[i].satp != JIT_GLOBAL &&
            (asid == HART_ANY_ASID || SATP_ASID(jit->tables[i].satp) == asid))
            forget_table(&jit->tables[i]);
}

// Tables that all address spaces share keep only what is global.
static void leave_space(struct jit *jit)
{
    for (size_t i = jit->table_first; i < JIT_USER_TABLES; i++)
        if (jit->tables[i].satp != JIT_GLOBAL)
            forget_table(&jit->tables[i]);
}

static void forget_all(struct jit *jit)
{
    memset(jit->fetch, 0xff, sizeof(jit->fetch));
    memset(jit->coded, 0, sizeof(jit->coded));
    for (size_t half = 0; half < BASE_COUNT_OF(jit->large); half++)
        jit->large[half] = (struct jit_range){.first = UINT64_MAX};
    jit_jumps_forget(jit);
}

// A flat address space is one, in U-mode alone. Tables are zeros, which name no pc but 0.
void jit_jumps_init(struct jit *jit)
{
    jit->table_first = jit->flat ? JIT_USER_TABLES : 0;
    jit->table_end = jit->flat ? JIT_USER_TABLES + 1 : JIT_TABLES;
    for (size_t i = jit->table_first; i < jit->table_end; i++)
        jit->tables[i].entries[JIT_JUMP_INDEX(0)].pc = JIT_JUMP_INVALID;
    forget_all(jit);
}

static bool in_large_leaf(const struct jit *jit, uint64_t gva)
{
    const struct jit_range *large = &jit->large[gva >> 63];

    return gva >= large->first && gva <= large->last;
}

void jit_jumps_flush(struct jit *jit, const struct hart_flush *flush)
{
    if (flush->scope == HART_FLUSH_SATP)
        leave_space(jit);
    else if (flush->scope == HART_FLUSH_ASID)
        forget_asid(jit, flush->asid);
    else if (flush->scope == HART_FLUSH_PAGE && !in_large_leaf(jit, flush->gva))
        forget_page(jit, page_of(flush->gva));
    else
        forget_all(jit);
}
