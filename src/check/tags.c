// SPDX-License-Identifier: BSD-2-Clause
// Tagged memory: an array of blocks in the order of addresses. A block that has ended stays until
// its memory is tagged anew, and then in a ring of those that have ended, so that old pointers are
// told from wild ones.
#include "check/tags.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define TAGS_MAX (1u << 20)
#define HISTORY_BLOCKS 1024u
#define FIRST_CAPACITY 64u
// Between the first identifiers of two places: 0.618 of all, as they are few.
#define FRESH_STEPS (MEMORY_GENERATIONS * 618ull / 1000)

struct block {
    uint64_t gva, bytes;
    uint16_t identifier;
    bool live;
    uint32_t allocated_by, freed_by;
};

struct tags {
    const struct memory_identifiers *identifiers;
    pthread_rwlock_t lock;  // of all below
    struct block *blocks;   // none overlaps another
    size_t count, capacity;
    struct block history[HISTORY_BLOCKS];
    uint64_t history_count;  // of all that came into it
    uint32_t fresh;          // places that had a first identifier
};

int tags_create(struct tags **out, const struct memory_identifiers *identifiers)
{
    struct tags *tags = calloc(1, sizeof(*tags));

    if (!tags)
        return -ENOMEM;
    tags->identifiers = identifiers;
    pthread_rwlock_init(&tags->lock, NULL);
    *out = tags;
    return 0;
}

void tags_destroy(struct tags *tags)
{
    if (!tags)
        return;
    pthread_rwlock_destroy(&tags->lock);
    free(tags->blocks);
    free(tags);
}

// ---- Places -------------------------------------------------------------------------------------

static uint64_t end_of(const struct block *block)
{
    return block->gva + block->bytes;
}

// The first block that ends behind the address.
static size_t first_behind(const struct tags *tags, uint64_t gva)
{
    size_t first = 0, end = tags->count;

    while (first < end) {
        size_t middle = first + (end - first) / 2;
        if (end_of(&tags->blocks[middle]) > gva)
            end = middle;
        else
            first = middle + 1;
    }
    return first;
}

// The first live block that has memory of [gva, end), or NULL.
static const struct block *live_in(const struct tags *tags, uint64_t gva, uint64_t end)
{
    for (size_t i = first_behind(tags, gva); i < tags->count && tags->blocks[i].gva < end; i++)
        if (tags->blocks[i].live)
            return &tags->blocks[i];
    return NULL;
}

// The block that has, or had last, the address, or NULL.
static struct block *block_at(const struct tags *tags, uint64_t gva)
{
    size_t i = first_behind(tags, gva);

    return i < tags->count && tags->blocks[i].gva <= gva ? &tags->blocks[i] : NULL;
}

// What the table has for the granules of a block, which is of the array. Granules that are not all
// of one block's are looked up here.
static void write_entries(const struct tags *tags, const struct block *block)
{
    uint64_t mask = MEMORY_GRANULE_BYTES - 1, end = end_of(block);

    for (uint64_t at = block->gva & ~mask; at < end; at += MEMORY_GRANULE_BYTES) {
        bool whole = at >= block->gva && end - at >= MEMORY_GRANULE_BYTES;
        uint16_t entry = MEMORY_IDENTIFIER_NONE;
        if (block->live && whole)
            entry = block->identifier;
        else if (!whole && live_in(tags, at, at + MEMORY_GRANULE_BYTES))
            entry = MEMORY_IDENTIFIER_LOOK;
        memory_identifiers_put(tags->identifiers, at, entry);
    }
}

// ---- Begin and end ------------------------------------------------------------------------------

static bool taken(const struct tags *tags, size_t first, size_t end, uint16_t identifier)
{
    size_t from = first > 0 ? first - 1 : 0, to = end < tags->count ? end + 1 : end;

    for (size_t i = from; i < to; i++)
        if (tags->blocks[i].identifier == identifier)
            return true;
    return false;
}

// For a block from gva on, instead of those in [first, end): the next generation of what began
// there before, and other than all of these and its neighbours have.
static uint16_t choose_identifier(struct tags *tags, uint64_t gva, size_t first, size_t end)
{
    bool again = first < end && tags->blocks[first].gva == gva;
    uint16_t identifier;

    if (again) {
        identifier = memory_identifier_next(tags->blocks[first].identifier);
    } else {
        tags->fresh++;
        identifier = memory_identifier_at(
            tags->fresh & 1, (uint32_t)(tags->fresh * FRESH_STEPS % MEMORY_GENERATIONS));
    }
    for (unsigned tries = 0; tries < MEMORY_GENERATIONS && taken(tags, first, end, identifier);
         tries++)
        identifier = memory_identifier_next(identifier);
    return identifier;
}

static void retire(struct tags *tags, struct block *block, uint32_t who)
{
    if (block->live) {
        block->live = false;
        block->freed_by = who;
        write_entries(tags, block);
    }
    tags->history[tags->history_count++ % HISTORY_BLOCKS] = *block;
}

// Room for one block more.
static int reserve(struct tags *tags)
{
    if (tags->count < tags->capacity)
        return 0;
    size_t capacity = tags->capacity ? 2 * tags->capacity : FIRST_CAPACITY;
    struct block *blocks =
        capacity <= TAGS_MAX ? reallocarray(tags->blocks, capacity, sizeof(*blocks)) : NULL;
    if (!blocks)
        return -ENOMEM;
    tags->blocks = blocks;
    tags->capacity = capacity;
    return 0;
}

static void replace(struct tags *tags, size_t first, size_t end, const struct block *block)
{
    memmove(&tags->blocks[first + 1], &tags->blocks[end],
            (tags->count - end) * sizeof(*tags->blocks));
    tags->blocks[first] = *block;
    tags->count = tags->count + 1 - (end - first);
}

static int add(struct tags *tags, uint64_t gva, uint64_t bytes, uint32_t who, uint64_t *pointer)
{
    size_t first = first_behind(tags, gva), end = first;
    int rc = reserve(tags);

    if (rc < 0)
        return rc;
    while (end < tags->count && tags->blocks[end].gva < gva + bytes)
        end++;
    const struct block block = {.gva = gva,
                                .bytes = bytes,
                                .identifier = choose_identifier(tags, gva, first, end),
                                .live = true,
                                .allocated_by = who};
    for (size_t i = first; i < end; i++)
        retire(tags, &tags->blocks[i], who);
    replace(tags, first, end, &block);
    write_entries(tags, &tags->blocks[first]);
    *pointer = memory_pointer_make(gva, block.identifier);
    return 0;
}

int tags_add(struct tags *tags, uint64_t gva, uint64_t bytes, uint32_t who, uint64_t *pointer)
{
    pthread_rwlock_wrlock(&tags->lock);
    int rc = add(tags, gva, bytes ? bytes : 1, who, pointer);
    pthread_rwlock_unlock(&tags->lock);
    return rc;
}

// ---- Looking ------------------------------------------------------------------------------------

static uint64_t access_end(uint64_t gva, uint64_t bytes)
{
    return bytes < MEMORY_POINTER_BYTES - gva ? gva + bytes : MEMORY_POINTER_BYTES;
}

static bool allow(const struct tags *tags, uint64_t pointer, uint64_t bytes)
{
    uint64_t gva = memory_pointer_gva(pointer);
    uint16_t identifier = memory_pointer_identifier(pointer);

    if (identifier == MEMORY_IDENTIFIER_NONE)
        return !live_in(tags, gva, access_end(gva, bytes));
    const struct block *block = block_at(tags, gva);
    return block && block->live && block->identifier == identifier && bytes <= end_of(block) - gva;
}

bool tags_allow(struct tags *tags, uint64_t pointer, uint64_t bytes)
{
    pthread_rwlock_rdlock(&tags->lock);
    bool allowed = allow(tags, pointer, bytes);
    pthread_rwlock_unlock(&tags->lock);
    return allowed;
}

static struct heap_object object_of(const struct block *block)
{
    return (struct heap_object){.gva = block->gva,
                                .bytes = block->bytes,
                                .identifier = block->identifier,
                                .family = HEAP_NAMED,
                                .live = block->live,
                                .allocated_by = block->allocated_by,
                                .freed_by = block->freed_by};
}

static uint64_t distance_of(const struct block *block, uint64_t gva)
{
    if (gva < block->gva)
        return block->gva - gva;
    return gva < end_of(block) ? 0 : gva - end_of(block) + 1;
}

// The nearer of the two to the address, `block` only if it has the identifier.
static const struct block *nearer(const struct block *found, const struct block *block,
                                  uint64_t gva, uint16_t identifier)
{
    bool better = block->identifier == identifier &&
                  (!found || distance_of(block, gva) < distance_of(found, gva));

    return better ? block : found;
}

// The block that a pointer belongs, or belonged, to: with its identifier, and nearest.
static const struct block *owner_of(const struct tags *tags, uint64_t gva, uint16_t identifier)
{
    size_t kept = tags->history_count < HISTORY_BLOCKS ? tags->history_count : HISTORY_BLOCKS;
    const struct block *found = NULL;

    for (size_t i = 0; i < tags->count; i++)
        found = nearer(found, &tags->blocks[i], gva, identifier);
    for (size_t i = 1; i <= kept; i++)  // the latest first
        found = nearer(found, &tags->history[(tags->history_count - i) % HISTORY_BLOCKS], gva,
                       identifier);
    return found;
}

static void look(const struct tags *tags, uint64_t pointer, uint64_t bytes,
                 struct heap_finding *finding)
{
    uint64_t gva = memory_pointer_gva(pointer);
    uint16_t identifier = memory_pointer_identifier(pointer);
    const struct block *memory = live_in(tags, gva, access_end(gva, bytes)), *owner = NULL;

    *finding = (struct heap_finding){.fault = HEAP_WILD, .pointer_identifier = identifier};
    if (!memory)
        memory = block_at(tags, gva);
    if (memory) {
        finding->has_memory = true;
        finding->memory = object_of(memory);
        finding->memory_identifier = memory->live ? memory->identifier : MEMORY_IDENTIFIER_NONE;
    }
    if (identifier != MEMORY_IDENTIFIER_NONE)
        owner = owner_of(tags, gva, identifier);
    if (!owner)
        return;
    finding->has_object = true;
    finding->object = object_of(owner);
    finding->offset = (int64_t)(gva - owner->gva);
    if (!owner->live)
        finding->fault = HEAP_USE_AFTER_FREE;
    else
        finding->fault = finding->offset < 0 ? HEAP_UNDERFLOW : HEAP_OVERFLOW;
}

bool tags_diagnose(struct tags *tags, uint64_t pointer, uint64_t bytes,
                   struct heap_finding *finding)
{
    pthread_rwlock_rdlock(&tags->lock);
    look(tags, pointer, bytes, finding);
    pthread_rwlock_unlock(&tags->lock);
    return finding->has_object || finding->has_memory;
}

// ---- Ending -------------------------------------------------------------------------------------

static enum heap_fault end_fault(const struct heap_finding *finding)
{
    uint64_t offset = (uint64_t)finding->offset;

    if (!finding->has_object || offset >= finding->object.bytes)
        return HEAP_INVALID_FREE;
    if (!finding->object.live)
        return offset == 0 ? HEAP_DOUBLE_FREE : HEAP_INVALID_FREE;
    return HEAP_INTERIOR_FREE;
}

static int end(struct tags *tags, uint64_t pointer, uint32_t who, struct heap_finding *finding)
{
    uint64_t gva = memory_pointer_gva(pointer);
    struct block *block = block_at(tags, gva);

    if (!block || !block->live || block->gva != gva ||
        block->identifier != memory_pointer_identifier(pointer)) {
        look(tags, pointer, 1, finding);
        finding->fault = end_fault(finding);
        return -EINVAL;
    }
    block->live = false;
    block->freed_by = who;
    write_entries(tags, block);
    return 0;
}

int tags_end(struct tags *tags, uint64_t pointer, uint32_t who, struct heap_finding *finding)
{
    pthread_rwlock_wrlock(&tags->lock);
    int rc = end(tags, pointer, who, finding);
    pthread_rwlock_unlock(&tags->lock);
    return rc;
}
