// SPDX-License-Identifier: BSD-2-Clause
// Unused slots: one bit a slot, in words of 64, in the leaf of the slot. Whoever clears a set bit
// owns the slot, and sets the bit to give it back.
//
// Threads of one processor (a shard) go through one word upwards, then take another: the next fresh
// one of the newest leaf, or one that the table's hand finds. The hand goes round all words, so a
// slot is used again only when everything after it has had its turn, and two processors seldom meet
// in a word. Between two operations nothing is held anywhere but in the bits themselves: a
// suspended thread keeps at most the one slot that it has taken.
#include <sched.h>

#include "internal.h"

// The hand counts what it meets. While its last round met fewer unused slots than one in
// SCARCE_SLOTS, it gives up after HAND_WORDS words and the table grows; else it goes on. So filling
// a table does not look at all of it again and again, and one that is busy but not full does not
// grow; either way an alloc looks at few words on average.
#define SCARCE_SLOTS 8
#define HAND_WORDS 64

static uint64_t *word_at(struct handle_leaf *leaf, uint32_t word)
{
    return &leaf->unused[word % HANDLE_LEAF_WORDS];
}

static struct handle_leaf *leaf_of_word(const struct handle_table *table, uint32_t word)
{
    return handle_leaf_find(&table->root, word * HANDLE_WORD_SLOTS);
}

// Moves the hand to the next of `fresh` words.
static uint32_t hand_move(struct handle_table *table, uint32_t fresh)
{
    uint32_t next, at = __atomic_load_n(&table->hand, __ATOMIC_RELAXED);
    do
        next = at + 1 < fresh ? at + 1 : 0;
    while (!__atomic_compare_exchange_n(&table->hand, &at, next, true, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED));
    if (next == 0)
        __atomic_store_n(&table->seen_before,
                         __atomic_exchange_n(&table->seen, 0, __ATOMIC_RELAXED), __ATOMIC_RELAXED);
    return at;
}

static bool unused_scarce(const struct handle_table *table, uint32_t fresh)
{
    return __atomic_load_n(&table->seen_before, __ATOMIC_RELAXED) <
           fresh * (HANDLE_WORD_SLOTS / SCARCE_SLOTS);
}

// Lets the hand find a word with unused slots; `thorough`: it looks at all of the table, else
// it may give up as said above. The load of `fresh` acquires, so that the leaves of the words below
// are there.
static bool word_find(struct handle_table *table, bool thorough, uint32_t *word)
{
    uint32_t fresh = __atomic_load_n(&table->fresh, __ATOMIC_ACQUIRE);
    for (uint32_t looked = 0; looked < fresh; looked++) {
        if (!thorough && looked >= HAND_WORDS && unused_scarce(table, fresh))
            return false;
        uint32_t at = hand_move(table, fresh);
        uint64_t bits = __atomic_load_n(word_at(leaf_of_word(table, at), at), __ATOMIC_RELAXED);
        if (bits) {
            __atomic_fetch_add(&table->seen, __builtin_popcountll(bits), __ATOMIC_RELAXED);
            *word = at;
            return true;
        }
    }
    return false;
}

// Takes the next word that was never used, growing the table when its leaf is missing. `fresh`
// moves only when the leaf is there, so lack of memory loses no word.
static int word_take_fresh(struct handle_table *table, uint32_t *word)
{
    uint32_t fresh = __atomic_load_n(&table->fresh, __ATOMIC_ACQUIRE);
    do {
        if (fresh == HANDLE_WORDS_MAX)
            return -ENOSPC;
        if (!handle_hierarchy_grow(table, fresh * HANDLE_WORD_SLOTS))
            return -ENOMEM;
        HANDLE_STEP("a word's leaf is there");
    } while (!__atomic_compare_exchange_n(&table->fresh, &fresh, fresh + 1, true, __ATOMIC_ACQ_REL,
                                          __ATOMIC_ACQUIRE));
    *word = fresh;
    return 0;
}

static int word_next(struct handle_table *table, uint32_t *word)
{
    bool leaf_full = __atomic_load_n(&table->fresh, __ATOMIC_RELAXED) % HANDLE_LEAF_WORDS == 0;
    if (leaf_full && word_find(table, false, word))
        return 0;
    int status = word_take_fresh(table, word);
    return status && word_find(table, true, word) ? 0 : status;
}

static struct handle_shard *shard_here(struct handle_table *table)
{
    return &table->shards[(unsigned)sched_getcpu() % table->shard_count];
}

int handle_unused_take(struct handle_table *table, uint32_t *index, struct handle_leaf **leaf)
{
    struct handle_shard *shard = shard_here(table);
    uint32_t last = __atomic_load_n(&shard->last, __ATOMIC_RELAXED);
    uint32_t word = last / HANDLE_WORD_SLOTS;
    uint64_t ahead = ~UINT64_C(1) << last % HANDLE_WORD_SLOTS;  // bits after the last one taken

    for (;;) {
        *leaf = leaf_of_word(table, word);
        uint64_t bits = *leaf ? __atomic_load_n(word_at(*leaf, word), __ATOMIC_RELAXED) & ahead : 0;
        if (!bits) {
            int status = word_next(table, &word);
            if (status)
                return status;
            HANDLE_STEP("a word is chosen");
            ahead = ~UINT64_C(0);
            continue;
        }
        // Acquires what the last owner did to the slot. Another thread may have been faster.
        uint64_t bit = bits & -bits;
        if (__atomic_fetch_and(word_at(*leaf, word), ~bit, __ATOMIC_ACQUIRE) & bit) {
            *index = word * HANDLE_WORD_SLOTS + (uint32_t)__builtin_ctzll(bit);
            __atomic_store_n(&shard->last, *index, __ATOMIC_RELAXED);
            return 0;
        }
    }
}

void handle_unused_give(struct handle_leaf *leaf, uint32_t index)
{
    __atomic_fetch_or(word_at(leaf, index / HANDLE_WORD_SLOTS),
                      UINT64_C(1) << index % HANDLE_WORD_SLOTS, __ATOMIC_RELEASE);
}
