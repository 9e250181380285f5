// SPDX-License-Identifier: BSD-2-Clause
// Finding translated blocks, and knowing whether they are still what memory holds.
#include <string.h>

#include "jit/internal.h"

void jit_cache_drop(struct jit *jit)
{
    if (jit->perf_map)
        jit_perf_map_forget(jit->perf_map, jit->code + jit->exec_offset + jit->thunks_bytes,
                            jit->code_bytes - jit->thunks_bytes);
    memset(jit->buckets, 0, sizeof(jit->buckets));
    jit->code_used = jit->thunks_bytes;
    jit->arena_used = 0;
    jit->access_count = 0;
    jit->linked = NULL;
    jit_jumps_forget(jit);
}

void jit_cache_link(struct jit *jit, struct jit_link *link, const struct jit_block *to)
{
    x64_patch(link->place, jit->exec_offset, link->backward ? to->entry : to->body);
    link->next = jit->linked;
    jit->linked = link;
    jit->stats.links++;
}

void jit_cache_unlink(struct jit *jit)
{
    for (const struct jit_link *link = jit->linked; link; link = link->next)
        x64_patch(link->place, jit->exec_offset, link->unlinked);
    jit->linked = NULL;
}

static bool is_long(const uint8_t *code)
{
    return (code[0] & 3) == 3;
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
    *source = (struct jit_source){.gpa = page->gpa + offset,
                                  .variant = jit_variant(hart, jit),
                                  .hva = page->hva + offset,
                                  .bytes = MEMORY_PAGE_BYTES - offset};
    *cacheable = true;
    if (source->bytes > 2 || !is_long(source->hva))
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

static bool same_code(const struct jit_block *block)
{
    unsigned first = block->tail_hva ? 2 : block->length_bytes;

    return memcmp(block->copy, block->hva, first) == 0 &&
           (!block->tail_hva || memcmp(block->copy + first, block->tail_hva, 2) == 0);
}

static struct jit_block **bucket_of(struct jit *jit, uint64_t gpa, unsigned variant)
{
    return &jit->buckets[(gpa >> 1 ^ gpa >> 15 ^ variant << 12) % JIT_BUCKETS];
}

// The block at `source` if its bytes are still those in memory. One that is out of date is taken
// out of the cache; nothing leads to its code, which stays until the next drop.
static struct jit_block *find_current(struct jit *jit, const struct jit_source *source)
{
    struct jit_block **link = bucket_of(jit, source->gpa, source->variant);
    struct jit_block *block;

    while ((block = *link) != NULL &&
           (block->gpa != source->gpa || block->tail_gpa != source->tail_gpa ||
            block->variant != source->variant))
        link = &block->bucket_next;
    if (!block || block->epoch == jit->epoch)
        return block;
    if (!same_code(block)) {
        *link = block->bucket_next;
        return NULL;
    }
    block->epoch = jit->epoch;
    return block;
}

// NULL: it fits not even when all else is dropped.
static struct jit_block *translate(struct jit *jit, const struct jit_source *source)
{
    uint64_t start_ns = jit->counting ? clock_monotonic_ns() : 0;
    struct jit_block *block = jit_translate(jit, source), **bucket;

    if (!block) {
        jit_cache_drop(jit);
        jit->stats.drops++;
        block = jit_translate(jit, source);
    }
    if (!block)
        return NULL;
    bucket = bucket_of(jit, block->gpa, block->variant);
    block->bucket_next = *bucket;
    *bucket = block;
    jit->stats.translations++;
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
    *block = find_current(jit, &source);
    if (*block)
        return true;
    *block = translate(jit, &source);
    if (*block && jit->listing)
        jit_listing_log(hart, jit, *block);
    if (*block && jit->perf_map)
        jit_perf_map_block(hart, jit, *block);
    return true;
}
