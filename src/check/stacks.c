// SPDX-License-Identifier: BSD-2-Clause
// Stacks that are kept. A stack's number is where it lies: in words, in blocks that are got as
// needed. Stacks of one hash are a list that only ever grows at its head, so that readers need no
// lock and a writer one compare and exchange: two threads that add the same stack at once may both
// succeed, which costs its room once more and nothing else.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "check/check.h"

#define BUCKETS (1u << 16)
#define BLOCK_WORDS (1u << 17)  // a MiB
#define BLOCKS ((CHECK_STACK_NUMBER_MAX + 1) / BLOCK_WORDS)

// Head and places, one after the other.
struct kept {
    uint32_t next;  // number of another of this bucket, 0: none
    uint32_t count;
    uint64_t places[];
};

struct check_stacks {
    _Atomic uint32_t buckets[BUCKETS];
    _Atomic uint64_t used_words;
    _Atomic(uint64_t *) blocks[BLOCKS];
};

int check_stacks_create(struct check_stacks **out)
{
    *out = calloc(1, sizeof(**out));
    if (!*out)
        return -ENOMEM;
    atomic_init(&(*out)->used_words, 1);  // so that no stack is number 0
    return 0;
}

void check_stacks_destroy(struct check_stacks *stacks)
{
    if (!stacks)
        return;
    for (size_t i = 0; i < BLOCKS; i++)
        free(atomic_load_explicit(&stacks->blocks[i], memory_order_relaxed));
    free(stacks);
}

static struct kept *kept_at(struct check_stacks *stacks, uint32_t number)
{
    // Acquire, with block_at: the block is zero before anybody finds it.
    uint64_t *block =
        atomic_load_explicit(&stacks->blocks[number / BLOCK_WORDS], memory_order_acquire);

    return (struct kept *)(block + number % BLOCK_WORDS);
}

static bool block_make(struct check_stacks *stacks, uint64_t index)
{
    uint64_t *expected = NULL;

    if (atomic_load_explicit(&stacks->blocks[index], memory_order_acquire))
        return true;
    uint64_t *block = calloc(BLOCK_WORDS, sizeof(*block));
    if (!block)
        return false;
    if (!atomic_compare_exchange_strong_explicit(&stacks->blocks[index], &expected, block,
                                                 memory_order_acq_rel, memory_order_acquire))
        free(block);
    return true;
}

// Room for a stack, in one block; 0: there is none.
static uint32_t room_take(struct check_stacks *stacks, uint64_t words)
{
    uint64_t at = atomic_load_explicit(&stacks->used_words, memory_order_relaxed), start;

    do {
        start = at % BLOCK_WORDS + words > BLOCK_WORDS ? at - at % BLOCK_WORDS + BLOCK_WORDS : at;
        if (start / BLOCK_WORDS >= BLOCKS)
            return 0;
    } while (!atomic_compare_exchange_weak_explicit(&stacks->used_words, &at, start + words,
                                                    memory_order_relaxed, memory_order_relaxed));
    return block_make(stacks, start / BLOCK_WORDS) ? (uint32_t)start : 0;
}

static uint64_t hash_of(const uint64_t *places, size_t count)
{
    uint64_t hash = count;

    for (size_t i = 0; i < count; i++) {
        hash = (hash ^ places[i]) * 0x9e3779b97f4a7c15u;
        hash ^= hash >> 29;
    }
    return hash;
}

static uint32_t find(struct check_stacks *stacks, uint32_t number, const uint64_t *places,
                     size_t count)
{
    while (number) {
        const struct kept *kept = kept_at(stacks, number);
        if (kept->count == count && memcmp(kept->places, places, count * sizeof(*places)) == 0)
            return number;
        number = kept->next;
    }
    return 0;
}

uint32_t check_stacks_put(struct check_stacks *stacks, const uint64_t *places, size_t count)
{
    count = count < CHECK_STACK_MAX ? count : CHECK_STACK_MAX;
    if (count == 0)
        return 0;
    _Atomic uint32_t *bucket = &stacks->buckets[hash_of(places, count) % BUCKETS];
    // Acquire, with the exchange below: what is found in the list is whole.
    uint32_t head = atomic_load_explicit(bucket, memory_order_acquire);
    uint32_t number = find(stacks, head, places, count);
    if (number)
        return number;
    number = room_take(stacks, 1 + count);
    if (!number)
        return 0;
    struct kept *kept = kept_at(stacks, number);
    kept->count = (uint32_t)count;
    memcpy(kept->places, places, count * sizeof(*places));
    do {
        kept->next = head;
    } while (!atomic_compare_exchange_weak_explicit(bucket, &head, number, memory_order_release,
                                                    memory_order_relaxed));
    return number;
}

const uint64_t *check_stacks_get(const struct check_stacks *stacks, uint32_t number, size_t *count)
{
    *count = 0;
    if (number == 0)
        return NULL;
    const struct kept *kept = kept_at((struct check_stacks *)stacks, number);
    *count = kept->count;
    return kept->places;
}
