// SPDX-License-Identifier: BSD-2-Clause
// handle, inside: the table and what its files need of each other.
#ifndef STRAKE_HANDLE_INTERNAL_H
#define STRAKE_HANDLE_INTERNAL_H

#include <errno.h>

#include "handle/handle.h"

// A place where a thread may be suspended with the table half changed. tests/unit/handle_suspend.c
// defines it and suspends a thread at each.
#ifndef HANDLE_STEP
#define HANDLE_STEP(name) ((void)0)
#endif

#define HANDLE_LINE_BYTES 64
#define HANDLE_LINE __attribute__((aligned(HANDLE_LINE_BYTES)))

#define HANDLE_WORD_SLOTS 64  // slots that share a word of `unused`
#define HANDLE_LEAF_WORDS (HANDLE_FANOUT / HANDLE_WORD_SLOTS)
#define HANDLE_WORDS_MAX (HANDLE_LIVE_MAX / HANDLE_WORD_SLOTS)
#define HANDLE_GENERATION_LAST ((UINT64_C(1) << HANDLE_GENERATION_BITS) - 2)

// Where the threads of one processor look for an unused slot first. Each is on a line of its own.
struct handle_shard {
    uint32_t last;  // index taken last; only a hint, so threads may overwrite each other's
} HANDLE_LINE;

struct handle_table {
    // Written when the hierarchy grows, else only read.
    struct handle_root root;  // first: handle_table_resolve knows the table as this
    struct handle_options options;
    struct handle_allocator allocator;
    uint32_t shard_count;

    // Written once in 64 allocs while there is plenty unused, and once an alloc when there is not.
    uint32_t fresh HANDLE_LINE;  // words of `unused` that were ever allocated from
    uint32_t hand;               // goes round these in search of a set bit
    uint32_t seen;               // unused slots that the hand has met in this round
    uint32_t seen_before;        // and in the round before
    uint32_t retired;            // slots whose generations are used up

    // Written by each alloc and release, when there is a limit.
    uint32_t live HANDLE_LINE;

    struct handle_shard shards[];
};

static inline struct handle_slot *handle_slot_of(struct handle_leaf *leaf, uint32_t index)
{
    return &leaf->slots[index % HANDLE_FANOUT];
}

// ---- hierarchy.c --------------------------------------------------------------------------------

// The leaf that holds `index`, linked into the hierarchy if it is not there. `index` is at most one
// leaf beyond what there is. NULL: out of memory, and nothing is changed.
struct handle_leaf *handle_hierarchy_grow(struct handle_table *table, uint32_t index);

// The table of `level` (1: a leaf) that holds `index`, or NULL.
void *handle_hierarchy_find(const struct handle_table *table, unsigned level, uint32_t index);

unsigned handle_hierarchy_levels(const struct handle_table *table);

void handle_hierarchy_free(struct handle_table *table);

// ---- unused.c -----------------------------------------------------------------------------------

// Takes an unused slot. Returns 0, -ENOSPC or -ENOMEM.
int handle_unused_take(struct handle_table *table, uint32_t *index, struct handle_leaf **leaf);

void handle_unused_give(struct handle_leaf *leaf, uint32_t index);

// ---- reclaim.c ----------------------------------------------------------------------------------

void handle_reclaim_start(void);   // a table with `reclaim` will need liburcu's thread
void handle_reclaim_finish(void);  // waits until all that was given to handle_table_reclaim is done

#endif
