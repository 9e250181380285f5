// SPDX-License-Identifier: BSD-2-Clause
// Stacks that are kept, as a tree of calls: a stack is the number of its innermost one. Calls of
// one hash are a list that only ever grows at its head, so that readers need no lock and a writer
// one compare and exchange: two threads that add the same call at once may both succeed, which
// costs its room once more, that of what is within it, and nothing else.
#include <errno.h>
#include <stdlib.h>

#include "check/check.h"

#define BUCKETS (1u << 16)
#define BLOCK_CALLS (1u << 15)  // a MiB
#define BLOCKS ((CHECK_STACK_NUMBER_MAX + 1) / BLOCK_CALLS)

// Functions are known by the low half of where they start.
struct call {
    uint64_t place;
    uint32_t function, callee;  // that it is in, and that it calls; 0: not known
};

struct kept {
    struct call call;
    uint32_t outer;  // the stack that it was made within, 0: none
    uint32_t whole;  // the stack with both: its own number, unless something is left out
    uint32_t next;   // another of this bucket, 0: none
    uint32_t count;  // of the stack's calls
};

struct check_stacks {
    _Atomic uint32_t buckets[BUCKETS];
    _Atomic uint64_t used;
    _Atomic(struct kept *) blocks[BLOCKS];
};

int check_stacks_create(struct check_stacks **out)
{
    *out = calloc(1, sizeof(**out));
    if (!*out)
        return -ENOMEM;
    atomic_init(&(*out)->used, 1);  // so that no stack is number 0
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

static struct kept *kept_at(const struct check_stacks *stacks, uint32_t number)
{
    // Acquire, with block_make: the block is zero before anybody finds it.
    struct kept *block =
        atomic_load_explicit(&stacks->blocks[number / BLOCK_CALLS], memory_order_acquire);

    return &block[number % BLOCK_CALLS];
}

static bool block_make(struct check_stacks *stacks, uint64_t index)
{
    struct kept *expected = NULL;

    if (atomic_load_explicit(&stacks->blocks[index], memory_order_acquire))
        return true;
    struct kept *block = calloc(BLOCK_CALLS, sizeof(*block));
    if (!block)
        return false;
    if (!atomic_compare_exchange_strong_explicit(&stacks->blocks[index], &expected, block,
                                                 memory_order_acq_rel, memory_order_acquire))
        free(block);
    return true;
}

// 0: there is no room.
static uint32_t number_take(struct check_stacks *stacks)
{
    uint64_t number = atomic_load_explicit(&stacks->used, memory_order_relaxed);

    do {
        if (number > CHECK_STACK_NUMBER_MAX)
            return 0;
    } while (!atomic_compare_exchange_weak_explicit(&stacks->used, &number, number + 1,
                                                    memory_order_relaxed, memory_order_relaxed));
    return block_make(stacks, number / BLOCK_CALLS) ? (uint32_t)number : 0;
}

static uint32_t hash_of(uint32_t outer, uint64_t place)
{
    uint64_t hash = (place ^ (uint64_t)outer << 40) * 0x9e3779b97f4a7c15u;
    return (uint32_t)(hash >> 48) % BUCKETS;
}

static uint32_t find_from(const struct check_stacks *stacks, uint32_t number, uint32_t outer,
                          uint64_t place)
{
    while (number) {
        const struct kept *kept = kept_at(stacks, number);
        if (kept->call.place == place && kept->outer == outer)
            return kept->whole;
        number = kept->next;
    }
    return 0;
}

uint32_t check_stacks_find(const struct check_stacks *stacks, uint32_t outer, uint64_t place)
{
    // Acquire, with put: what is found in the list is whole.
    return find_from(
        stacks, atomic_load_explicit(&stacks->buckets[hash_of(outer, place)], memory_order_acquire),
        outer, place);
}

// `whole` 0: its own number. Returns that of the stack, which may have been there; 0: no room.
static uint32_t put(struct check_stacks *stacks, uint32_t outer, const struct call *call,
                    uint32_t whole)
{
    _Atomic uint32_t *bucket = &stacks->buckets[hash_of(outer, call->place)];
    uint32_t head = atomic_load_explicit(bucket, memory_order_acquire);
    uint32_t number = find_from(stacks, head, outer, call->place);

    if (number)
        return number;
    number = number_take(stacks);
    if (!number)
        return 0;
    struct kept *kept = kept_at(stacks, number);
    *kept = (struct kept){.call = *call,
                          .outer = outer,
                          .whole = whole ? whole : number,
                          .count = outer ? kept_at(stacks, outer)->count + 1 : 1};
    do {
        kept->next = head;
    } while (!atomic_compare_exchange_weak_explicit(bucket, &head, number, memory_order_release,
                                                    memory_order_relaxed));
    return kept->whole;
}

static bool is_same_function(const struct call *a, const struct call *b)
{
    return a->place == b->place || (a->function && a->function == b->function);
}

// The stack without a call of the function that this one is of, and without the outer half where it
// is full. 0: no room.
static uint32_t make_room_for(struct check_stacks *stacks, uint32_t outer, const struct call *call)
{
    uint32_t calls[CHECK_STACK_MAX], base = outer;
    unsigned count = 0;

    for (;; base = kept_at(stacks, base)->outer) {
        const struct kept *kept = kept_at(stacks, base);
        if (!kept->outer && count + 1 < CHECK_STACK_MAX)
            return outer;
        if (!kept->outer)
            break;
        if (is_same_function(&kept->call, call)) {
            base = kept->outer;
            break;
        }
        calls[count++] = base;
    }
    if (count + 1 == CHECK_STACK_MAX)
        count /= 2;
    while (count > 0 && base)
        base = put(stacks, base, &kept_at(stacks, calls[--count])->call, 0);
    return base;
}

uint32_t check_stacks_begin(struct check_stacks *stacks, uint64_t thread)
{
    const struct call call = {.place = thread};
    return put(stacks, 0, &call, 0);
}

uint32_t check_stacks_add(struct check_stacks *stacks, uint32_t outer, uint64_t place,
                          uint64_t callee)
{
    if (!outer)
        return 0;
    const struct call call = {.place = place,
                              .function = kept_at(stacks, outer)->call.callee,
                              .callee = (uint32_t)callee};
    uint32_t rest = make_room_for(stacks, outer, &call);
    if (!rest || rest == outer)
        return rest ? put(stacks, outer, &call, 0) : 0;
    uint32_t whole = put(stacks, rest, &call, 0);
    return whole ? put(stacks, outer, &call, whole) : 0;
}

size_t check_stacks_get(const struct check_stacks *stacks, uint32_t number,
                        uint64_t places[static CHECK_STACK_MAX], uint64_t *thread)
{
    size_t count = 0;

    while (number) {
        const struct kept *kept = kept_at(stacks, number);
        if (kept->outer)
            places[count++] = kept->call.place;
        else
            *thread = kept->call.place;
        number = kept->outer;
    }
    return count;
}
