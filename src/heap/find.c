// SPDX-License-Identifier: BSD-2-Clause
// From an address to what is known of it: the exact answer where the inline comparison found a
// difference, and what is wrong when it is a real one.
#include "heap/internal.h"

struct heap_object heap_object_of(const struct slot *slot)
{
    bool live = word_state(slot->word) == SLOT_LIVE;

    return (struct heap_object){
        .gva = slot->gva,
        .bytes = slot->bytes,
        .identifier = word_identifier(slot->word),
        .family = word_family(slot->word),
        .live = live,
        .reallocated = word_state(slot->word) == SLOT_REALLOCATED,
        .allocated_by = (uint32_t)(slot->word >> WORD_WHO_SHIFT),
        .freed_by = live ? 0 : heap_freed_by(slot),
    };
}

bool heap_find(const struct heap *heap, uint64_t gva, struct heap_object *object)
{
    struct slot slot;

    if (!heap_slot_at(heap, gva, &slot) || word_state(slot.word) == SLOT_NEVER)
        return false;
    *object = heap_object_of(&slot);
    return true;
}

void heap_expect_free(const struct heap *heap, uint64_t pointer)
{
    uint64_t gva = memory_pointer_gva(pointer), offset, index = 0;
    const struct span *span = heap_span_at(heap, gva);

    if (!span)
        return;
    __builtin_prefetch(&heap->identifiers->entries[gva / MEMORY_GRANULE_BYTES], 1);
    offset = gva - atomic_load_explicit(&span->gva, memory_order_relaxed);
    if (!span_is_lone(span))
        index = offset / MEMORY_GRANULE_BYTES * span->class->reciprocal >> 32;
    if (index < span->class->slots) {
        __builtin_prefetch(&span->words[index], 1);
        __builtin_prefetch(&span->freed_by[index], 1);
    }
}

uint64_t heap_usable_bytes(const struct heap *heap, uint64_t pointer)
{
    uint64_t gva = memory_pointer_gva(pointer);
    struct slot slot;

    return heap_slot_at(heap, gva, &slot) && slot.gva == gva &&
                   word_state(slot.word) == SLOT_LIVE &&
                   word_identifier(slot.word) == memory_pointer_identifier(pointer)
               ? slot.bytes
               : 0;
}

void heap_each_slot(const struct heap *heap, void (*visit)(void *opaque, const struct slot *slot),
                    void *opaque)
{
    uint64_t high = atomic_load_explicit(&heap->high_chunk, memory_order_relaxed), next;

    for (uint64_t chunk = 0; chunk < high; chunk = next) {
        struct span *span = atomic_load_explicit(&heap->chunks[chunk], memory_order_acquire);
        next = chunk + (span ? span->class->chunks : 1);
        uint32_t fresh = span ? atomic_load_explicit(&span->fresh, memory_order_relaxed) : 0;
        for (uint32_t i = 0; i < fresh; i++) {
            struct slot slot;
            heap_slot_read(span, i, &slot);
            if (word_state(slot.word) != SLOT_NEVER)
                visit(opaque, &slot);
        }
    }
}

// ---- Is an access allowed? ----------------------------------------------------------------------

static bool slot_allows(const struct slot *slot, uint64_t gva, uint64_t bytes, uint16_t identifier)
{
    uint64_t offset = gva - slot->gva;

    return word_state(slot->word) == SLOT_LIVE && word_identifier(slot->word) == identifier &&
           offset <= slot->bytes && bytes <= slot->bytes - offset;
}

// Fills in the entries of the part of a large object that the address lies in, unless the object
// has ended meanwhile: then they would let pointers of old pass.
static void lazy_fill(struct heap *heap, const struct slot *slot, uint64_t gva)
{
    uint64_t start = gva / LAZY_PART_BYTES * LAZY_PART_BYTES, offset = start - slot->gva;
    uint64_t bytes =
        slot->bytes - offset < LAZY_PART_BYTES ? slot->bytes - offset : LAZY_PART_BYTES;

    pthread_mutex_lock(&heap->fill_lock);
    if (atomic_load_explicit(&slot->span->words[0], memory_order_acquire) == slot->word)
        heap_entries_set(heap, slot->span, start, bytes, word_identifier(slot->word));
    pthread_mutex_unlock(&heap->fill_lock);
}

// Without an identifier there is access to all that has none, but not to what will be the heap's.
static bool plain_allows(const struct heap *heap, uint64_t gva, uint64_t bytes, uint16_t identifier)
{
    const struct heap_space *space = &heap->space;
    uint64_t end = heap->identifiers->bytes;

    if (identifier != MEMORY_IDENTIFIER_NONE || gva >= end || bytes > end - gva)
        return false;
    return gva >= space->gva + space->bytes || (gva < space->gva && bytes <= space->gva - gva);
}

bool heap_allows(struct heap *heap, uint64_t pointer, uint64_t bytes)
{
    uint64_t gva = memory_pointer_gva(pointer);
    uint16_t identifier = memory_pointer_identifier(pointer);
    struct slot slot;

    if (bytes == 0)
        return true;
    if (!heap_slot_at(heap, gva, &slot))
        return plain_allows(heap, gva, bytes, identifier);
    if (!slot_allows(&slot, gva, bytes, identifier))
        return false;
    if (span_is_lazy(slot.span) &&
        memory_identifiers_get(heap->identifiers, gva) == MEMORY_IDENTIFIER_NONE)
        lazy_fill(heap, &slot, gva);
    return true;
}

// ---- What is wrong? -----------------------------------------------------------------------------
//
// The pointer's identifier tells whose it is: of the object that it points into; of an earlier
// generation there, so it is used after free; or of an object elsewhere, so it has left that.
// Identifiers are shared by far apart places, so of the two latter the likelier is said: by chance
// an earlier generation has it with a probability of (generations back) / MEMORY_GENERATIONS, and
// an object elsewhere with (objects nearer than that) / MEMORY_GENERATIONS.

struct search {
    uint64_t gva;
    uint16_t identifier;
    bool found;
    struct slot nearest;  // of those with the identifier
    uint64_t distance;
    uint64_t nearer;  // objects
};

static uint64_t distance_of(uint64_t gva, uint64_t start, uint64_t bytes)
{
    if (gva < start)
        return start - gva;
    return gva - start < bytes ? 0 : gva - start - bytes + 1;
}

static void visit_nearest(void *opaque, const struct slot *slot)
{
    struct search *search = opaque;
    uint64_t distance = distance_of(search->gva, slot->gva, slot->bytes);

    if (word_identifier(slot->word) != search->identifier ||
        (search->found && distance >= search->distance))
        return;
    search->found = true;
    search->nearest = *slot;
    search->distance = distance;
}

static void visit_nearer(void *opaque, const struct slot *slot)
{
    struct search *search = opaque;
    search->nearer += distance_of(search->gva, slot->gva, slot->bytes) < search->distance;
}

// The object of an entry that has this identifier. False: there is none, or it changed meanwhile.
static bool entry_read(const struct history_entry *entry, uint16_t identifier, uint64_t *gva,
                       struct heap_object *object)
{
    *gva = atomic_load_explicit(&entry->gva, memory_order_acquire);
    uint64_t word = atomic_load_explicit(&entry->word, memory_order_acquire);
    *object = (struct heap_object){
        .gva = *gva,
        .bytes = atomic_load_explicit(&entry->bytes, memory_order_acquire),
        .identifier = identifier,
        .family = word_family(word),
        .reallocated = word_state(word) == SLOT_REALLOCATED,
        .allocated_by = (uint32_t)(word >> WORD_WHO_SHIFT),
        .freed_by = atomic_load_explicit(&entry->freed_by, memory_order_acquire),
    };
    uint16_t first = atomic_load_explicit(&entry->first, memory_order_acquire);
    uint32_t steps = memory_identifier_steps(first, identifier);
    return *gva != 0 && atomic_load_explicit(&entry->gva, memory_order_relaxed) == *gva &&
           steps != UINT32_MAX && steps <= memory_identifier_steps(first, word_identifier(word));
}

// The object that had the address, or the slot there, in the generation of this identifier.
// `slot_gva`: of the slot that the address lies in now, or 0.
static bool history_find(struct heap *heap, uint64_t gva, uint64_t slot_gva, uint16_t identifier,
                         struct heap_object *found)
{
    bool any = false;

    pthread_mutex_lock(&heap->threads_lock);
    LIST_FOR_EACH(&heap->threads, node)
    {
        struct heap_thread *thread = BASE_CONTAINER_OF(node, struct heap_thread, link);
        for (unsigned i = 0; i < HISTORY_ENTRIES && !any; i++) {
            struct heap_object object;
            uint64_t start;
            if (entry_read(&thread->history[i], identifier, &start, &object) &&
                (start == slot_gva || distance_of(gva, start, object.bytes) == 0)) {
                *found = object;
                any = true;
            }
        }
    }
    pthread_mutex_unlock(&heap->threads_lock);
    return any;
}

static void finding_set_object(struct heap_finding *finding, uint64_t gva,
                               const struct heap_object *object)
{
    finding->has_object = true;
    finding->object = *object;
    finding->offset = (int64_t)(gva - object->gva);
}

static enum heap_fault fault_of(const struct heap_finding *finding)
{
    if (!finding->object.live)
        return finding->object.reallocated ? HEAP_USE_AFTER_REALLOC : HEAP_USE_AFTER_FREE;
    return finding->offset < 0 ? HEAP_UNDERFLOW : HEAP_OVERFLOW;
}

// How many generations ago had the slot this identifier? UINT32_MAX: never.
static uint32_t generations_back(const struct slot *slot, uint16_t identifier)
{
    uint16_t now = word_identifier(slot->word);
    uint32_t back = memory_identifier_steps(identifier, now);
    uint32_t all = memory_identifier_steps(span_first_identifier(slot->span, slot->index), now);

    return back <= all ? back : UINT32_MAX;
}

static void diagnose_elsewhere(struct heap *heap, const struct slot *here, uint64_t gva,
                               struct heap_finding *finding)
{
    struct search search = {.gva = gva, .identifier = finding->pointer_identifier};
    uint32_t back = here ? generations_back(here, search.identifier) : UINT32_MAX;
    struct heap_object object;

    heap_each_slot(heap, visit_nearest, &search);
    if (search.found && back != UINT32_MAX)
        heap_each_slot(heap, visit_nearer, &search);
    if (search.found && (back == UINT32_MAX || search.nearer < back)) {
        object = heap_object_of(&search.nearest);
        finding_set_object(finding, gva, &object);
        finding->fault = fault_of(finding);
        return;
    }
    if (history_find(heap, gva, here ? here->gva : 0, search.identifier, &object)) {
        finding_set_object(finding, gva, &object);
        finding->fault = fault_of(finding);
    } else if (back != UINT32_MAX) {
        finding->fault = HEAP_USE_AFTER_FREE;
    }
}

void heap_diagnose(struct heap *heap, uint64_t pointer, uint64_t bytes,
                   struct heap_finding *finding)
{
    uint64_t gva = memory_pointer_gva(pointer);
    struct slot slot;

    *finding = (struct heap_finding){.pointer_identifier = memory_pointer_identifier(pointer)};
    if (heap_allows(heap, pointer, bytes))
        return;
    finding->fault = HEAP_WILD;
    bool here = heap_slot_at(heap, gva, &slot) && word_state(slot.word) != SLOT_NEVER;
    if (here) {
        finding->has_memory = true;
        finding->memory = heap_object_of(&slot);
        if (finding->memory.live && gva - slot.gva < slot.bytes)
            finding->memory_identifier = finding->memory.identifier;
    }
    if (finding->pointer_identifier == MEMORY_IDENTIFIER_NONE)
        return;
    if (here && word_identifier(slot.word) == finding->pointer_identifier) {
        finding_set_object(finding, gva, &finding->memory);
        finding->fault = fault_of(finding);
        return;
    }
    diagnose_elsewhere(heap, here ? &slot : NULL, gva, finding);
}

// Of a pointer that heap_free has refused, so it is not the start of a live object that the family
// may free.
void heap_diagnose_free(struct heap *heap, uint64_t pointer, struct heap_finding *finding)
{
    uint64_t gva = memory_pointer_gva(pointer);

    heap_diagnose(heap, pointer, 1, finding);
    if (finding->fault == HEAP_FINE && heap_find(heap, gva, &finding->object))
        finding_set_object(finding, gva, &finding->object);
    bool live = finding->has_object && finding->object.live;
    bool start = finding->has_object ? finding->offset == 0
                                     : finding->has_memory && finding->memory.gva == gva;
    bool stale = finding->fault == HEAP_USE_AFTER_FREE || finding->fault == HEAP_USE_AFTER_REALLOC;
    if (live)
        finding->fault = start ? HEAP_MISMATCHED_FREE : HEAP_INTERIOR_FREE;
    else
        finding->fault = start && stale ? HEAP_DOUBLE_FREE : HEAP_INVALID_FREE;
}
