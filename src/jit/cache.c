// SPDX-License-Identifier: BSD-2-Clause
// Finding translated blocks, and knowing whether they are still what memory holds.
#include <string.h>

#include "jit/internal.h"

// ---- Parts of code memory

void jit_cache_init(struct jit *jit)
{
    size_t count = jit->code_bytes / JIT_PART_BYTES_MIN;

    jit->part_count = count < JIT_PARTS ? (unsigned)count : JIT_PARTS;
    for (unsigned i = 0; i < jit->part_count; i++) {
        struct jit_part *part = &jit->parts[i];
        part->code_first = part->code_used = i * (jit->code_bytes / jit->part_count);
        part->code_end = part->code_first + jit->code_bytes / jit->part_count;
        part->arena_first = part->arena_used = i * (jit->arena_bytes / jit->part_count);
        part->arena_end = part->arena_first + jit->arena_bytes / jit->part_count;
        part->access_first = part->access_used = i * (jit->access_max / jit->part_count);
        part->access_end = part->access_first + jit->access_max / jit->part_count;
    }
    jit->part = jit->parts;
    jit->part->code_first = jit->part->code_used = JIT_CODE_HEAD;
}

static struct jit_block **bucket_of(struct jit *jit, uint64_t gpa, unsigned variant)
{
    return &jit->buckets[(gpa >> 1 ^ gpa >> 15 ^ variant << 12) % JIT_BUCKETS];
}

static void take_out(struct jit *jit, const struct jit_block *block)
{
    struct jit_block **link = bucket_of(jit, block->gpa, block->variant);

    while (*link && *link != block)
        link = &(*link)->bucket_next;
    if (*link)
        *link = block->bucket_next;
}

static bool is_in(const struct jit *jit, const struct jit_part *part, const uint8_t *executed)
{
    size_t offset = (size_t)(executed - (jit->code + jit->exec_offset));

    return offset >= part->code_first && offset < part->code_end;
}

static void forget(const struct jit_link *link)
{
    *link->from = link->next;
    if (link->next)
        link->next->from = link->from;
    *link->beside_from = link->beside;
    if (link->beside)
        link->beside->beside_from = link->beside_from;
}

// Forgets the links that are in the part, and undoes those that lead into it.
static void unlink_part(struct jit *jit, const struct jit_part *part)
{
    jit_memory_write(jit);
    for (struct jit_link *link = jit->linked, *next; link; link = next) {
        bool out = is_in(jit, part, link->place + jit->exec_offset),
             in = is_in(jit, part, link->to);

        next = link->next;
        if (in && !out)
            x64_patch(link->place, jit->exec_offset, link->unlinked);
        if (in || out)
            forget(link);
    }
}

static void empty_part(struct jit *jit, struct jit_part *part)
{
    if (jit->perf_map)
        jit_perf_map_forget(jit->perf_map, jit->code + jit->exec_offset + part->code_first,
                            part->code_end - part->code_first);
    for (const struct jit_block *block = part->blocks; block; block = block->part_next)
        take_out(jit, block);
    unlink_part(jit, part);
    jit_jumps_forget(jit);
    part->blocks = NULL;
    part->code_used = part->code_first;
    part->arena_used = part->arena_first;
    part->access_used = part->access_first;
    jit->stats.drops++;
}

void jit_cache_empty(struct jit *jit)
{
    jit->linked = NULL;  // nothing is left to be undone
    for (unsigned i = 0; i < jit->part_count; i++)
        empty_part(jit, &jit->parts[i]);
    jit->part = jit->parts;
    jit->part->code_first = jit->part->code_used = JIT_CODE_HEAD;
}

// The part that was filled longest ago makes room.
static void next_part(struct jit *jit)
{
    unsigned next = (unsigned)(jit->part - jit->parts + 1) % jit->part_count;

    jit->part = &jit->parts[next];
    if (jit->part->blocks)
        empty_part(jit, jit->part);
}

// ---- Links

void jit_cache_link(struct jit *jit, struct jit_link *link, struct jit_block *to)
{
    link->to = link->backward ? to->entry : to->body;
    jit_memory_write(jit);
    x64_patch(link->place, jit->exec_offset, link->to);
    link->from = &jit->linked;
    if ((link->next = jit->linked) != NULL)
        link->next->from = &link->next;
    jit->linked = link;
    link->beside_from = &to->links;
    if ((link->beside = to->links) != NULL)
        link->beside->beside_from = &link->beside;
    to->links = link;
    jit->stats.links++;
}

static void undo(struct jit *jit, const struct jit_link *link)
{
    x64_patch(link->place, jit->exec_offset, link->unlinked);
    forget(link);
}

void jit_cache_unlink(struct jit *jit)
{
    jit_memory_write(jit);
    while (jit->linked)
        undo(jit, jit->linked);
}

void jit_cache_retire(struct jit *jit, struct jit_block *block)
{
    struct jit_jump *jump = &jit->jumps[JIT_JUMP_INDEX(block->gpa)];

    take_out(jit, block);
    jit_memory_write(jit);
    while (block->links)
        undo(jit, block->links);
    if (jump->entry == block->entry)
        jump->pc = JIT_JUMP_INVALID;
}

// ---- Finding blocks

static bool is_long(const struct jit *jit, const uint8_t *hva)
{
    uint8_t first;

    jit_copy_code(jit, &first, hva, 1);
    return (first & 3) == 3;
}

// Finds out where the code at `pc` lies; *cacheable false: it cannot be kept, and source is not
// filled. False: an exception was recorded.
static bool find_source(struct hart *hart, struct jit *jit, uint64_t pc, struct jit_source *source,
                        bool *cacheable)
{
    unsigned offset = JIT_PAGE_OFFSET(pc);
    const struct jit_fetch_page *page;

    *cacheable = false;
    // Instructions are aligned to two bytes; only a debugger or an SBI call can bring another pc.
    if (pc & 1)
        return hart_raise(hart, HART_CAUSE_FETCH_MISALIGNED, pc);
    page = jit_jumps_fetch(hart, jit, pc);
    if (!page)
        return false;
    if (page->tag == JIT_FETCH_INVALID)
        return true;
    *source = (struct jit_source){.pc = pc,
                                  .gpa = page->gpa + offset,
                                  .variant = jit_variant(hart, jit),
                                  .hva = page->hva + offset,
                                  .bytes = MEMORY_PAGE_BYTES - offset};
    *cacheable = true;
    if (source->bytes > 2 || !is_long(jit, source->hva))
        return true;

    page = jit_jumps_fetch(hart, jit, pc + 2);
    if (!page)
        return false;
    source->gpa |= JIT_STRADDLES;
    source->bytes = 4;
    source->tail_gpa = page->gpa;
    source->tail_hva = page->hva;
    *cacheable = page->tag != JIT_FETCH_INVALID;
    return true;
}

static bool same_bytes(const struct jit *jit, const uint8_t *copy, const uint8_t *hva, size_t bytes)
{
    return jit->flat ? hart_flat_same_code(copy, hva, bytes) : memcmp(copy, hva, bytes) == 0;
}

static bool same_code(const struct hart *hart, const struct jit *jit,
                      const struct jit_source *source, const struct jit_block *block)
{
    unsigned first = block->tail_hva ? 2 : block->length_bytes;

    return same_bytes(jit, block->copy, block->hva, first) &&
           (!block->tail_hva || same_bytes(jit, block->copy + first, block->tail_hva, 2)) &&
           hart_check_first_taken(hart, source->pc, block->copy, block->length_bytes) ==
               block->taken_at &&
           (block->taken_at > 0 ||
            hart_check_at_once(hart, source->pc).what == block->at_once.what);
}

// The block at `source` if its bytes are still those in memory. One that is out of date is taken
// out of the cache; nothing leads to its code, which stays until its part is emptied.
static struct jit_block *find_current(const struct hart *hart, struct jit *jit,
                                      const struct jit_source *source)
{
    struct jit_block **link = bucket_of(jit, source->gpa, source->variant);
    struct jit_block *block;

    while ((block = *link) != NULL &&
           (block->gpa != source->gpa || block->tail_gpa != source->tail_gpa ||
            block->variant != source->variant))
        link = &block->bucket_next;
    if (!block || block->epoch == jit->epoch)
        return block;
    if (!same_code(hart, jit, source, block)) {
        *link = block->bucket_next;
        return NULL;
    }
    block->epoch = jit->epoch;
    return block;
}

static void keep(struct jit *jit, struct jit_block *block)
{
    struct jit_block **bucket = bucket_of(jit, block->gpa, block->variant);

    block->bucket_next = *bucket;
    *bucket = block;
    block->part_next = jit->part->blocks;
    jit->part->blocks = block;
    jit->stats.translations++;
}

// NULL: it does not fit even an empty part.
static struct jit_block *translate(const struct hart *hart, struct jit *jit,
                                   const struct jit_source *source)
{
    uint64_t start_ns = jit->counting ? clock_monotonic_ns() : 0;
    struct jit_block *block = jit_translate(hart, jit, source);

    if (!block) {
        next_part(jit);
        block = jit_translate(hart, jit, source);
    }
    if (!block)
        return NULL;
    keep(jit, block);
    if (jit->counting)
        jit->stats.translation_ns += clock_monotonic_ns() - start_ns;
    return block;
}

bool jit_cache_find(struct hart *hart, struct jit *jit, struct jit_block **block)
{
    struct jit_source source;
    bool cacheable;

    *block = NULL;
    if (jit_is_foreign(hart))
        return true;
    if (!find_source(hart, jit, hart->pc, &source, &cacheable))
        return false;
    if (!cacheable)
        return true;
    *block = find_current(hart, jit, &source);
    if (*block)
        return true;
    *block = translate(hart, jit, &source);
    if (*block && jit->listing)
        jit_listing_log(hart, jit, *block);
    if (*block && jit->perf_map)
        jit_perf_map_block(hart, jit, *block);
    return true;
}

// ---- Warming

// Completes what names a block. False: there can be no such block.
static bool complete(const struct hart *hart, const struct jit *jit, struct jit_source *source)
{
    uint64_t gpa = source->gpa & ~(uint64_t)JIT_STRADDLES;
    bool at_end = JIT_PAGE_OFFSET(gpa) == MEMORY_PAGE_BYTES - 2;

    if (source->variant & JIT_WINDOW &&
        (!jit->windows || (source->variant & ~JIT_WINDOW) > HART_TLB_S))
        return false;
    source->bytes = MEMORY_PAGE_BYTES - JIT_PAGE_OFFSET(gpa);
    source->hva = memory_ram_hva(hart->memory, gpa, 2);
    if (!source->hva || !(source->gpa & JIT_STRADDLES))
        return source->hva && !(at_end && is_long(jit, source->hva));
    source->bytes = 4;
    source->tail_hva = memory_ram_hva(hart->memory, source->tail_gpa, 2);
    return at_end && source->tail_hva && JIT_PAGE_OFFSET(source->tail_gpa) == 0;
}

void jit_cache_warm_begin(struct jit *jit)
{
    jit->part = &jit->parts[jit->part_count - 1];
}

void jit_cache_warm_end(struct jit *jit)
{
    jit->part = jit->parts;
}

bool jit_cache_warm(const struct hart *hart, struct jit *jit, uint64_t gpa, uint64_t tail_gpa,
                    unsigned variant)
{
    const struct jit_part *last = &jit->parts[jit->part_count > 1];
    struct jit_source source = {.gpa = gpa, .tail_gpa = tail_gpa, .variant = variant};
    struct jit_block *block;

    if (!complete(hart, jit, &source) || find_current(hart, jit, &source))
        return true;
    while (!(block = jit_translate(hart, jit, &source)))
        if (jit->part-- == last)
            return false;
    keep(jit, block);
    return true;
}
