// SPDX-License-Identifier: BSD-2-Clause
// Handle tables: the life of a slot. docs/handles.md has the layout and the argument for each
// memory order; tests/model/ has a model of this file that is checked exhaustively.
//
//     tag                            meaning                    leaves it
//     generation, type,  held 0      live                       acquire, release
//     generation, type,  held n      live, acquired n times     acquire, put, release
//     generation, none,  held n      released, still held       put
//     generation, none,  held 0      unused, or being given     alloc (the next generation)
//                                    back or allocated
//
// The last two never match a handle, whose type is never 0. In the last only one thread knows the
// slot, from when it brings it there until it sets the slot's bit, and again from when one clears
// the bit until it stores the new tag.
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

static uint64_t held(uint64_t tag)
{
    return tag & HANDLE_HELD_MASK;
}

static bool matches(uint64_t tag, uint64_t handle)
{
    return (tag ^ handle) >> HANDLE_INDEX_BITS == 0;
}

// ---- Creation -----------------------------------------------------------------------------------

static void *c_allocate(void *opaque, size_t alignment, size_t bytes)
{
    (void)opaque;
    return aligned_alloc(alignment, bytes);
}

static void c_deallocate(void *opaque, void *memory)
{
    (void)opaque;
    free(memory);
}

static uint32_t shards_wanted(void)
{
    long processors = sysconf(_SC_NPROCESSORS_CONF);
    return processors < 1 ? 1 : processors > 64 ? 64 : (uint32_t)processors;
}

int handle_table_create(struct handle_table **out, const struct handle_options *options)
{
    static const struct handle_allocator c_library = {c_allocate, c_deallocate, NULL};
    struct handle_options chosen = options ? *options : (struct handle_options){0};
    if (chosen.live_max > HANDLE_LIVE_MAX)
        return -EINVAL;
    if (chosen.live_max == 0)
        chosen.live_max = HANDLE_LIVE_MAX;

    const struct handle_allocator *allocator = chosen.allocator ? chosen.allocator : &c_library;
    uint32_t shard_count = shards_wanted();
    struct handle_table *table =
        allocator->allocate(allocator->opaque, HANDLE_LINE_BYTES,
                            sizeof(*table) + shard_count * sizeof(table->shards[0]));
    if (!table)
        return -ENOMEM;
    *table = (struct handle_table){
        .options = chosen, .allocator = *allocator, .shard_count = shard_count};
    for (uint32_t shard = 0; shard < shard_count; shard++)
        table->shards[shard] = (struct handle_shard){.last = HANDLE_WORD_SLOTS - 1};
    if (chosen.reclaim)
        handle_reclaim_start();
    *out = table;
    return 0;
}

// ---- The limit ----------------------------------------------------------------------------------

static bool limited(const struct handle_table *table)
{
    return table->options.live_max < HANDLE_LIVE_MAX;
}

// Adds only below the limit, so that no passing excess makes another thread fail.
static bool live_add(struct handle_table *table)
{
    if (!limited(table))
        return true;
    uint32_t live = __atomic_load_n(&table->live, __ATOMIC_RELAXED);
    do {
        if (live == table->options.live_max)
            return false;
    } while (!__atomic_compare_exchange_n(&table->live, &live, live + 1, true, __ATOMIC_ACQUIRE,
                                          __ATOMIC_RELAXED));
    return true;
}

static void live_subtract(struct handle_table *table)
{
    if (limited(table))
        __atomic_fetch_sub(&table->live, 1, __ATOMIC_RELEASE);
}

// ---- The life of a slot -------------------------------------------------------------------------

int handle_table_alloc(struct handle_table *table, void *object, unsigned type, uint64_t *handle)
{
    if (!object || type == 0 || type > HANDLE_TYPE_MAX)
        return -EINVAL;
    if (!live_add(table))
        return -ENOSPC;
    HANDLE_STEP("a handle is counted");

    uint32_t index;
    struct handle_leaf *leaf;
    int status = handle_unused_take(table, &index, &leaf);
    if (status) {
        live_subtract(table);
        return status;
    }
    HANDLE_STEP("a slot is taken");

    // Object before tag, both with release: see handle_table_resolve.
    struct handle_slot *slot = handle_slot_of(leaf, index);
    uint64_t generation = handle_generation(__atomic_load_n(&slot->tag, __ATOMIC_RELAXED)) + 1;
    uint64_t tag = (generation << HANDLE_TYPE_BITS | type) << HANDLE_INDEX_BITS;
    __atomic_store_n(&slot->object, object, __ATOMIC_RELEASE);
    HANDLE_STEP("the object is stored");
    __atomic_store_n(&slot->tag, tag, __ATOMIC_RELEASE);
    HANDLE_STEP("the handle is live");
    *handle = tag | index;
    return 0;
}

// What follows the last use of a slot's generation. The bit is set before the handle is no longer
// counted: who counts below the limit finds a set bit.
static void slot_free(struct handle_table *table, struct handle_leaf *leaf, uint64_t handle)
{
    uint32_t index = handle_index(handle);
    void *object = __atomic_load_n(&handle_slot_of(leaf, index)->object, __ATOMIC_ACQUIRE);
    HANDLE_STEP("a slot is left");
    if (handle_generation(handle) < HANDLE_GENERATION_LAST)
        handle_unused_give(leaf, index);
    else
        __atomic_fetch_add(&table->retired, 1, __ATOMIC_RELAXED);
    HANDLE_STEP("a slot is given back");
    live_subtract(table);
    if (table->options.reclaim)
        handle_table_reclaim(table, object);
}

int handle_table_release(struct handle_table *table, uint64_t handle, unsigned type, void **object)
{
    struct handle_leaf *leaf = handle_leaf_find(&table->root, handle_index(handle));
    if (!leaf || handle_type(handle) != type || type == 0)
        return -ENOENT;

    // A slot that others hold is held by us too, so that it stays while we look at the object.
    struct handle_slot *slot = handle_slot_of(leaf, handle_index(handle));
    uint64_t tag = __atomic_load_n(&slot->tag, __ATOMIC_RELAXED);
    uint64_t released;
    do {
        if (!matches(tag, handle))
            return -ENOENT;
        released = (tag & ~HANDLE_TYPE_MASK) + (held(tag) > 0);
    } while (!__atomic_compare_exchange_n(&slot->tag, &tag, released, true, __ATOMIC_ACQ_REL,
                                          __ATOMIC_RELAXED));
    HANDLE_STEP("a handle is released");

    if (object)
        *object = __atomic_load_n(&slot->object, __ATOMIC_ACQUIRE);
    if (held(released) > 0)
        return handle_table_put(table, handle);
    slot_free(table, leaf, handle);
    return 0;
}

void *handle_table_acquire(struct handle_table *table, uint64_t handle, unsigned type)
{
    struct handle_leaf *leaf = handle_leaf_find(&table->root, handle_index(handle));
    if (!leaf || handle_type(handle) != type || type == 0)
        return NULL;

    struct handle_slot *slot = handle_slot_of(leaf, handle_index(handle));
    uint64_t tag = __atomic_load_n(&slot->tag, __ATOMIC_RELAXED);
    do {
        if (!matches(tag, handle) || held(tag) == HANDLE_HELD_MAX)
            return NULL;
    } while (!__atomic_compare_exchange_n(&slot->tag, &tag, tag + 1, true, __ATOMIC_ACQUIRE,
                                          __ATOMIC_RELAXED));
    HANDLE_STEP("a handle is acquired");
    return __atomic_load_n(&slot->object, __ATOMIC_ACQUIRE);
}

int handle_table_put(struct handle_table *table, uint64_t handle)
{
    struct handle_leaf *leaf = handle_leaf_find(&table->root, handle_index(handle));
    if (!leaf)
        return -ENOENT;

    struct handle_slot *slot = handle_slot_of(leaf, handle_index(handle));
    uint64_t tag = __atomic_load_n(&slot->tag, __ATOMIC_RELAXED);
    do {
        if (handle_generation(tag) != handle_generation(handle) || held(tag) == 0)
            return -ENOENT;
    } while (!__atomic_compare_exchange_n(&slot->tag, &tag, tag - 1, true, __ATOMIC_ACQ_REL,
                                          __ATOMIC_RELAXED));
    HANDLE_STEP("a handle is put");
    if (handle_type(tag) == 0 && held(tag) == 1)
        slot_free(table, leaf, handle);
    return 0;
}

// ThreadSanitizer takes 16 bytes that are exchanged for one place, which is the tag's; whoever
// resolves acquires the object's.
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#define PUBLISH(place) __tsan_release(place)
#else
#define PUBLISH(place) ((void)(place))
#endif

// Exchanges a slot's object while its tag is what it was, by one compare-and-swap of 16 bytes,
// which orders all. Was the object exchanged alone, a release between the look at the tag and the
// exchange would have given the former object away already.
static bool object_exchange(struct handle_slot *slot, struct handle_slot was, void *object)
{
    struct handle_slot is = {.tag = was.tag, .object = object};
    unsigned __int128 before, after;
    static_assert(sizeof(*slot) == sizeof(before), "a slot is exchanged as one number");
    memcpy(&before, &was, sizeof(before));
    memcpy(&after, &is, sizeof(after));
    PUBLISH(&slot->object);
    return __sync_bool_compare_and_swap((unsigned __int128 *)slot, before, after);
}

int handle_table_replace(struct handle_table *table, uint64_t handle, unsigned type, void *object,
                         void **old)
{
    struct handle_leaf *leaf = handle_leaf_find(&table->root, handle_index(handle));
    if (!object)
        return -EINVAL;
    if (!leaf || handle_type(handle) != type || type == 0)
        return -ENOENT;

    struct handle_slot *slot = handle_slot_of(leaf, handle_index(handle)), was;
    do {
        was.tag = __atomic_load_n(&slot->tag, __ATOMIC_RELAXED);
        was.object = __atomic_load_n(&slot->object, __ATOMIC_RELAXED);
        if (!matches(was.tag, handle))
            return -ENOENT;
        HANDLE_STEP("an object is to be replaced");
    } while (!object_exchange(slot, was, object));
    HANDLE_STEP("an object is replaced");
    *old = was.object;
    return 0;
}

// ---- The whole table ----------------------------------------------------------------------------

static struct handle_leaf *leaf_number(const struct handle_table *table, uint32_t number)
{
    return handle_hierarchy_find(table, 1, number * HANDLE_FANOUT);
}

int handle_table_for_each(struct handle_table *table,
                          int (*visit)(void *opaque, uint64_t handle, void *object), void *opaque)
{
    int result = 0;
    struct handle_leaf *leaf;
    handle_read_lock();
    for (uint32_t number = 0; !result && (leaf = leaf_number(table, number)); number++) {
        for (uint32_t at = 0; !result && at < HANDLE_FANOUT; at++) {
            uint64_t tag = __atomic_load_n(&leaf->slots[at].tag, __ATOMIC_RELAXED);
            uint64_t handle = (tag & ~HANDLE_HELD_MASK) | (number * HANDLE_FANOUT + at);
            void *object = handle_table_resolve(table, handle, handle_type(tag));
            if (object)
                result = visit(opaque, handle, object);
        }
    }
    handle_read_unlock();
    return result;
}

void handle_table_stats(struct handle_table *table, struct handle_stats *stats)
{
    *stats = (struct handle_stats){
        .live_max = table->options.live_max,
        .levels = handle_hierarchy_levels(table),
        .bytes = sizeof(*table) + table->shard_count * sizeof(table->shards[0]),
    };
    struct handle_leaf *leaf;
    for (; (leaf = leaf_number(table, stats->tables)); stats->tables++) {
        for (unsigned word = 0; word < HANDLE_LEAF_WORDS; word++)
            stats->live += (uint32_t)__builtin_popcountll(
                ~__atomic_load_n(&leaf->unused[word], __ATOMIC_RELAXED));
    }
    stats->live -= __atomic_load_n(&table->retired, __ATOMIC_RELAXED);
    stats->capacity = stats->tables * HANDLE_FANOUT;
    stats->bytes += stats->tables * sizeof(struct handle_leaf);
    uint32_t tables = stats->tables;
    for (unsigned level = 2; level <= stats->levels; level++) {
        tables = (tables + HANDLE_FANOUT - 1) / HANDLE_FANOUT;
        stats->tables += tables;
        stats->bytes += tables * HANDLE_FANOUT * sizeof(void *);
    }
}

static uint32_t leave_over(struct handle_table *table,
                           void (*leftover)(void *opaque, uint64_t handle, void *object),
                           void *opaque)
{
    uint32_t count = 0;
    struct handle_leaf *leaf;
    for (uint32_t number = 0; (leaf = leaf_number(table, number)); number++) {
        for (uint32_t at = 0; at < HANDLE_FANOUT; at++) {
            uint64_t tag = leaf->slots[at].tag;
            if (handle_type(tag) == 0 && held(tag) == 0)
                continue;
            count++;
            if (leftover)
                leftover(opaque, (tag & ~HANDLE_HELD_MASK) | (number * HANDLE_FANOUT + at),
                         leaf->slots[at].object);
        }
    }
    return count;
}

uint32_t handle_table_destroy(struct handle_table *table,
                              void (*leftover)(void *opaque, uint64_t handle, void *object),
                              void *opaque)
{
    if (!table)
        return 0;
    uint32_t count = leave_over(table, leftover, opaque);
    if (table->options.reclaim)
        handle_reclaim_finish();
    handle_hierarchy_free(table);
    table->allocator.deallocate(table->allocator.opaque, table);
    return count;
}
