// SPDX-License-Identifier: BSD-2-Clause
// What this translator tells the one of another process that goes on with the hart: which code it
// has translated, and what its windows map. Nothing of it is believed: code is translated from the
// guest's memory and, as after fence.i, compared with it when it is first used; what windows map is
// compared with the guest's page tables, as at a fence that names everything. So what is wrong,
// or out of date, is of no use, and of no harm.
#include <string.h>
#include <sys/mman.h>

#include "jit/internal.h"

#define FORMAT 0x4a495401u  // "JIT", and a version
#define TOLD_AT_ONCE 1000u  // blocks; some 50 ns each, since their memory is cold
#define TRANSLATED_AT_ONCE 16u
#define ROOM_BYTES (256u << 10)  // for what is translated after

// ---- Telling

void jit_warm_tell(struct hart_hot *hot, const struct jit_warm_record *record)
{
    if (hot->bytes_max - hot->length_bytes < sizeof(*record))
        return;
    memcpy(hot->bytes + hot->length_bytes, record, sizeof(*record));
    hot->length_bytes += sizeof(*record);
}

static void tell_block(const struct jit *jit, const struct jit_block *block, struct hart_hot *hot)
{
    bool current = block->epoch == jit->epoch;

    jit_warm_tell(hot, &(struct jit_warm_record){
                           .head = (uint64_t)JIT_WARM_BLOCK << JIT_WARM_KIND_SHIFT |
                                   (current ? JIT_WARM_FLAG : 0) |
                                   (uint64_t)block->variant << JIT_WARM_VARIANT_SHIFT | block->gpa,
                           .word = {block->tail_gpa}});
}

enum stage { START, WINDOWS, BLOCKS };

static void start_telling(struct hart_hot *hot)
{
    jit_warm_tell(
        hot, &(struct jit_warm_record){.head = (uint64_t)JIT_WARM_FORMAT << JIT_WARM_KIND_SHIFT,
                                       .word = {FORMAT}});
    hot->cursor.stage = WINDOWS;
}

static void start_blocks(const struct jit *jit, struct hart_hot *hot)
{
    hot->cursor.stage = BLOCKS;
    hot->cursor.block = jit->part->blocks;
    hot->cursor.drops = jit->stats.drops;
}

// The newest part first. When one was emptied meanwhile, the rest of the part is left out.
static bool tell_blocks(const struct jit *jit, struct hart_hot *hot)
{
    const struct jit_block *block =
        hot->cursor.drops == jit->stats.drops ? hot->cursor.block : NULL;
    unsigned newest = (unsigned)(jit->part - jit->parts);

    hot->cursor.drops = jit->stats.drops;
    for (unsigned told = 0; told < TOLD_AT_ONCE;) {
        if (block) {
            tell_block(jit, block, hot);
            block = block->part_next;
            told++;
            continue;
        }
        if (++hot->cursor.part >= jit->part_count)
            return true;
        block = jit->parts[(newest + jit->part_count - hot->cursor.part) % jit->part_count].blocks;
    }
    hot->cursor.block = block;
    return false;
}

// Windows first: there is less of them, should time be short.
bool jit_warm_hot(struct hart *hart, void *state, struct hart_hot *hot)
{
    const struct jit *jit = state;

    if (hot->cursor.stage == START)
        start_telling(hot);
    if (hot->cursor.stage == BLOCKS)
        return tell_blocks(jit, hot);
    if (jit_windows_tell(hart, jit, hot))
        start_blocks(jit, hot);
    return false;
}

// ---- Warming

static bool goes_on(const struct hart_pace *pace)
{
    return pace->go_on(pace->opaque);
}

static enum jit_warm_kind kind_of(const struct jit_warm_record *record)
{
    return record->head >> JIT_WARM_KIND_SHIFT;
}

static bool next_record(const struct hart_hot *hot, size_t *at, struct jit_warm_record *record)
{
    if (hot->length_bytes - *at < sizeof(*record))
        return false;
    memcpy(record, hot->bytes + *at, sizeof(*record));
    *at += sizeof(*record);
    return true;
}

// Translates the blocks that were current, or those that were not. False: time or room is over.
static bool warm_blocks(const struct hart *hart, struct jit *jit, const struct hart_hot *hot,
                        uint64_t current, const struct hart_pace *pace)
{
    struct jit_warm_record record;
    unsigned done = 0;

    // Who reads of each translation wants to know where it is executed, too: nobody knows yet.
    if (jit->perf_map || jit->listing)
        return true;
    for (size_t at = 0; next_record(hot, &at, &record);) {
        if (kind_of(&record) != JIT_WARM_BLOCK || (record.head & JIT_WARM_FLAG) != current)
            continue;
        if (!jit_cache_warm(hart, jit, record.head & JIT_WARM_VALUE, record.word[0],
                            record.head >> JIT_WARM_VARIANT_SHIFT & 7))
            return false;
        if (++done % TRANSLATED_AT_ONCE == 0 && !goes_on(pace))
            return false;
    }
    return true;
}

static bool warm_windows(const struct hart *hart, struct jit *jit, const struct hart_hot *hot,
                         const struct hart_pace *pace)
{
    struct jit_warm_record record;

    for (size_t at = 0; next_record(hot, &at, &record);) {
        if (kind_of(&record) != JIT_WARM_SPACE && kind_of(&record) != JIT_WARM_PIECE)
            continue;
        jit_windows_warm(hart, jit, &record, pace);
        if (!goes_on(pace))
            return false;
    }
    return true;
}

// Fills the host's page tables for [at, at+bytes), and what the pages have beside it.
static void map_in(const uint8_t *at, size_t bytes, int advice)
{
    size_t before = JIT_PAGE_OFFSET((uintptr_t)at);

    if (bytes)
        madvise((void *)(at - before), bytes + before, advice);
}

// What is in use was written, but not executed yet; what is translated next is neither.
static void populate(const struct jit *jit)
{
    const uint8_t *exec = jit->code + jit->exec_offset;
    const struct jit_part *next = jit->part;
    size_t room = next->code_end - next->code_used < ROOM_BYTES ? 0 : ROOM_BYTES;

    map_in(jit->code + next->code_used, room, MADV_POPULATE_WRITE);
    map_in(jit->arena + next->arena_used, room, MADV_POPULATE_WRITE);
    map_in(exec, next->code_used + room, MADV_POPULATE_READ);
    for (unsigned i = 0; i < jit->part_count; i++)
        map_in(exec + jit->parts[i].code_first, jit->parts[i].code_used - jit->parts[i].code_first,
               MADV_POPULATE_READ);
}

void jit_warm_warm(struct hart *hart, void *state, const struct hart_hot *hot,
                   const struct hart_pace *pace)
{
    struct jit *jit = state;
    struct jit_warm_record first;
    size_t at = 0;

    if (!next_record(hot, &at, &first) || kind_of(&first) != JIT_WARM_FORMAT ||
        first.word[0] != FORMAT || jit->stats.translations)
        return;
    jit->warmed = true;
    jit_cache_warm_begin(jit);
    if (warm_blocks(hart, jit, hot, JIT_WARM_FLAG, pace) && warm_windows(hart, jit, hot, pace))
        warm_blocks(hart, jit, hot, 0, pace);
    jit_cache_warm_end(jit);
    populate(jit);
}

void jit_warm_settle(struct hart *hart, void *state)
{
    struct jit *jit = state;

    if (!jit->warmed)
        return;
    jit->warmed = false;
    jit->epoch++;
    jit_windows_settle(hart, jit);
}
