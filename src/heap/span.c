// SPDX-License-Identifier: BSD-2-Clause
// Spans: where in the space they are, and which of their slots are free.
//
// A span belongs to its class as long as it has an object. One without, when there are too many of
// them or when generations of its slots are used up, is retired: its addresses are not used again
// before all others of the space have been. So a pointer to memory of old equals no identifier
// there, for as long as can be.
#include <string.h>
#include <sys/mman.h>

#include "heap/internal.h"

#define IDLE_BYTES_MIN (8u << 20)  // of spans without an object, kept in any case
#define IDLE_SHARE 8u              // kept: this part of all
#define RECORD_ALIGNMENT 64u
#define RECORDS_FEW_BYTES (1u << 20)  // from there on they may be in huge pages

// ---- The space ----------------------------------------------------------------------------------

static void *reserve(uint64_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static uint64_t records_bytes(const struct heap *heap)
{
    return heap->space.bytes + HEAP_CHUNK_BYTES;
}

int heap_space_init(struct heap *heap, struct error *err)
{
    heap->chunk_count = heap->space.bytes / HEAP_CHUNK_BYTES;
    heap->chunks = reserve(heap->chunk_count * sizeof(*heap->chunks));
    heap->records = reserve(records_bytes(heap));
    if (!heap->chunks || !heap->records) {
        heap_space_fini(heap);
        return error_set(err, -ENOMEM, "no address space for the records of a heap of %llu MiB",
                         (unsigned long long)heap->space.bytes >> 20);
    }
    if (records_bytes(heap) > RECORDS_FEW_BYTES)
        (void)madvise(heap->records + RECORDS_FEW_BYTES, records_bytes(heap) - RECORDS_FEW_BYTES,
                      MADV_HUGEPAGE);
    return 0;
}

void heap_space_fini(struct heap *heap)
{
    if (heap->chunks)
        munmap((void *)heap->chunks, heap->chunk_count * sizeof(*heap->chunks));
    if (heap->records)
        munmap(heap->records, records_bytes(heap));
}

static struct span *chunk_get(const struct heap *heap, uint64_t chunk)
{
    return atomic_load_explicit(&heap->chunks[chunk], memory_order_acquire);
}

static void chunks_set(struct heap *heap, uint64_t first, uint64_t count, struct span *span)
{
    for (uint64_t i = 0; i < count; i++)
        atomic_store_explicit(&heap->chunks[first + i], span, memory_order_release);
}

// The first chunk from `chunk` on whose address is a multiple of `alignment`.
static uint64_t chunk_align(const struct heap *heap, uint64_t chunk, uint64_t alignment)
{
    uint64_t gva = heap->space.gva + chunk * HEAP_CHUNK_BYTES;
    return ((gva + alignment - 1) / alignment * alignment - heap->space.gva) / HEAP_CHUNK_BYTES;
}

// Of [first, first + count), the chunk behind the last span that is in the way; 0: none is.
static uint64_t chunks_obstacle(const struct heap *heap, uint64_t first, uint64_t count)
{
    for (uint64_t i = first + count; i > first; i--)
        if (chunk_get(heap, i - 1))
            return i;
    return 0;
}

// Round and round, so that addresses stay unused for as long as can be. False: there is no room.
static bool chunks_find(struct heap *heap, uint64_t count, uint64_t alignment, uint64_t *first)
{
    bool wrapped = false;
    uint64_t begin = heap->next_chunk;

    for (uint64_t at = chunk_align(heap, begin, alignment);;) {
        if (at > heap->chunk_count || count > heap->chunk_count - at) {
            if (wrapped)
                return false;
            wrapped = true;
            at = chunk_align(heap, 0, alignment);
            continue;
        }
        if (wrapped && at >= begin)
            return false;
        uint64_t obstacle = chunks_obstacle(heap, at, count);
        if (obstacle == 0) {
            heap->rounds += wrapped;
            *first = at;
            return true;
        }
        at = chunk_align(heap, obstacle, alignment);
    }
}

// Records come from one piece of memory that is never given back, so that who looks without a lock
// never meets memory of another kind. It reaches: the record of a chunk is smaller than the chunk.
static void *record_take(struct heap *heap, uint64_t bytes)
{
    bytes = (bytes + RECORD_ALIGNMENT - 1) / RECORD_ALIGNMENT * RECORD_ALIGNMENT;
    if (bytes > records_bytes(heap) - heap->records_used)
        return NULL;
    void *record = heap->records + heap->records_used;
    heap->records_used += bytes;
    return record;
}

// ---- A span's life ------------------------------------------------------------------------------

static struct span *span_new(struct heap *heap, const struct size_class *class)
{
    uint64_t slots = class->slots, words = (slots + 63) / 64;
    struct span *span = record_take(heap, sizeof(*span) + (slots + words) * sizeof(uint64_t) +
                                              slots * sizeof(uint32_t));
    if (!span)
        return NULL;
    span->class = class;
    span->free_bits = (uint64_t *)(span->words + slots);
    span->freed_by = (_Atomic uint32_t *)(span->free_bits + words);
    list_init(&span->link);
    return span;
}

// Where a place's identifiers begin differs from span to span, and from round to round.
static uint32_t seed_of(uint64_t chunk, uint64_t round)
{
    uint64_t mixed = (chunk + round * 0x9e3779b9u + 1) * 0x9e3779b97f4a7c15ull;
    return (uint32_t)((mixed >> 32) % MEMORY_GENERATIONS);
}

// How many chunks to map where so many are needed.
static uint64_t chunks_wanted(const struct heap *heap, uint64_t first, uint64_t count)
{
    uint64_t step = heap->space.step_bytes / HEAP_CHUNK_BYTES;
    uint64_t held = atomic_load_explicit(&heap->held_bytes, memory_order_relaxed);

    if (count >= step || held < heap->space.step_bytes || step > heap->chunk_count - first ||
        chunks_obstacle(heap, first, step))
        return count;
    return step;
}

// Memory for a span that comes to lie there. A lazy one has entries NONE, the others LOOK.
static int chunks_map(struct heap *heap, const struct span *span, uint64_t first)
{
    const struct heap_space *space = &heap->space;
    uint64_t count = span->class->chunks, wanted = count;
    uint64_t gva = space->gva + first * HEAP_CHUNK_BYTES;
    bool lazy = span_is_lazy(span);

    bool ahead = first >= heap->ahead && first + count <= heap->ahead_end;

    heap->ahead = ahead ? first + count : heap->ahead_end;
    if (ahead && !lazy)
        return 0;
    if (!lazy)
        wanted = chunks_wanted(heap, first, count);
    if (space->map(space->opaque, gva, wanted * HEAP_CHUNK_BYTES) < 0) {
        if (wanted == count || space->map(space->opaque, gva, count * HEAP_CHUNK_BYTES) < 0)
            return -ENOMEM;
        wanted = count;
    }
    if (lazy) {
        memory_identifiers_drop(heap->identifiers, gva, span_bytes(span));
        return 0;
    }
    memory_identifiers_set(heap->identifiers, gva, wanted * HEAP_CHUNK_BYTES,
                           MEMORY_IDENTIFIER_LOOK);
    if (wanted > count) {
        heap->ahead = first + count;
        heap->ahead_end = first + wanted;
    }
    return 0;
}

static int span_place(struct heap *heap, struct span *span, uint64_t alignment)
{
    uint64_t count = span->class->chunks, first;

    if (!chunks_find(heap, count, alignment, &first))
        return -ENOMEM;
    uint64_t gva = heap->space.gva + first * HEAP_CHUNK_BYTES;
    heap->next_chunk = first + count;
    if (chunks_map(heap, span, first) < 0)
        return -ENOMEM;
    if (heap->space.hva)
        atomic_store_explicit(&span->hva,
                              heap->space.hva(heap->space.opaque, gva, span_bytes(span)),
                              memory_order_relaxed);
    span->seed = seed_of(first, heap->rounds);
    atomic_store_explicit(&span->gva, gva, memory_order_relaxed);
    if (first + count > atomic_load_explicit(&heap->high_chunk, memory_order_relaxed))
        atomic_store_explicit(&heap->high_chunk, first + count, memory_order_relaxed);
    chunks_set(heap, first, count, span);
    return 0;
}

// A span without an object. Under the class's lock; NULL: no memory.
static struct span *span_create(struct heap *heap, unsigned class, uint64_t alignment)
{
    struct class_spans *spans = &heap->spans[class];
    struct span *span;

    pthread_mutex_lock(&heap->space_lock);
    if (list_empty(&spans->unused))
        span = span_new(heap, &heap->classes[class]);
    else
        span = BASE_CONTAINER_OF(spans->unused.next, struct span, link);
    if (span) {
        list_remove(&span->link);
        if (span_place(heap, span, alignment) < 0) {
            list_append(&spans->unused, &span->link);
            span = NULL;
        }
    }
    pthread_mutex_unlock(&heap->space_lock);
    if (span)
        atomic_fetch_add_explicit(&heap->held_bytes, span_bytes(span), memory_order_relaxed);
    return span;
}

static void span_clear(struct span *span)
{
    for (uint32_t i = 0; i < span->class->slots; i++) {
        atomic_store_explicit(&span->words[i], 0, memory_order_relaxed);
        atomic_store_explicit(&span->freed_by[i], 0, memory_order_relaxed);
    }
    memset(span->free_bits, 0, (span->class->slots + 63) / 64 * sizeof(*span->free_bits));
    atomic_store_explicit(&span->fresh, 0, memory_order_relaxed);
    atomic_store_explicit(&span->lone_bytes, 0, memory_order_relaxed);
    span->free = span->retired = 0;
}

// Of a span without an object. Under the class's lock.
static void span_retire(struct heap *heap, struct span *span)
{
    uint64_t bytes = span_bytes(span);
    uint64_t gva = atomic_load_explicit(&span->gva, memory_order_relaxed);

    list_remove(&span->link);
    pthread_mutex_lock(&heap->space_lock);
    heap->space.unmap(heap->space.opaque, gva, bytes);
    memory_identifiers_drop(heap->identifiers, gva, bytes);
    chunks_set(heap, (gva - heap->space.gva) / HEAP_CHUNK_BYTES, span->class->chunks, NULL);
    pthread_mutex_unlock(&heap->space_lock);
    atomic_fetch_sub_explicit(&heap->held_bytes, bytes, memory_order_relaxed);
    atomic_fetch_sub_explicit(&heap->retired_slots, span->retired, memory_order_relaxed);
    span_clear(span);
    list_append(&heap->spans[heap_class_of(heap, span)].unused, &span->link);
}

static bool span_is_idle(const struct span *span)
{
    return span->free + span->retired == atomic_load_explicit(&span->fresh, memory_order_relaxed);
}

// Under the class's lock, after the last object of a span has ended.
static void span_idle(struct heap *heap, struct span *span)
{
    uint64_t bytes = span_bytes(span);
    uint64_t idle = atomic_load_explicit(&heap->idle_bytes, memory_order_relaxed) + bytes;
    uint64_t held = atomic_load_explicit(&heap->held_bytes, memory_order_relaxed);

    if (span->retired > 0 || idle > IDLE_BYTES_MIN + held / IDLE_SHARE) {
        span_retire(heap, span);
        return;
    }
    atomic_fetch_add_explicit(&heap->idle_bytes, bytes, memory_order_relaxed);
    list_remove(&span->link);
    list_append(&heap->spans[heap_class_of(heap, span)].room, &span->link);
}

// ---- Classes with many slots a span -------------------------------------------------------------

static uint64_t slot_gva(const struct span *span, uint32_t index)
{
    return atomic_load_explicit(&span->gva, memory_order_relaxed) +
           (uint64_t)index * span->class->slot_granules * MEMORY_GRANULE_BYTES;
}

static uint32_t free_bit_take(struct span *span)
{
    for (uint64_t *bits = span->free_bits;; bits++) {
        if (*bits == 0)
            continue;
        uint32_t bit = (uint32_t)__builtin_ctzll(*bits);
        *bits &= *bits - 1;
        span->free--;
        return (uint32_t)(bits - span->free_bits) * 64 + bit;
    }
}

static bool span_has_room(const struct span *span)
{
    return span->free > 0 ||
           atomic_load_explicit(&span->fresh, memory_order_relaxed) < span->class->slots;
}

static uint64_t span_take(struct span *span)
{
    if (span->free > 0)
        return slot_gva(span, free_bit_take(span));
    uint32_t index = atomic_fetch_add_explicit(&span->fresh, 1, memory_order_relaxed);
    return slot_gva(span, index);
}

static struct span *span_with_room(struct heap *heap, unsigned class)
{
    struct class_spans *spans = &heap->spans[class];

    if (!list_empty(&spans->room)) {
        struct span *span = BASE_CONTAINER_OF(spans->room.next, struct span, link);
        if (span_is_idle(span))
            atomic_fetch_sub_explicit(&heap->idle_bytes, span_bytes(span), memory_order_relaxed);
        return span;
    }
    struct span *span = span_create(heap, class, HEAP_CHUNK_BYTES);
    if (span)
        list_append(&spans->room, &span->link);
    return span;
}

unsigned heap_slots_take(struct heap *heap, unsigned class, uint64_t *slots, unsigned count)
{
    struct class_spans *spans = &heap->spans[class];
    unsigned taken = 0;

    heap_class_lock(heap, class);
    while (taken < count) {
        // A new span only when there is nothing to give.
        struct span *span =
            taken > 0 && list_empty(&spans->room) ? NULL : span_with_room(heap, class);
        if (!span)
            break;
        while (taken < count && span_has_room(span))
            slots[taken++] = span_take(span);
        if (!span_has_room(span))
            list_remove(&span->link);
    }
    heap_class_unlock(heap, class);
    return taken;
}

static void slot_give(struct heap *heap, struct class_spans *spans, uint64_t gva)
{
    struct slot slot;

    if (!heap_slot_at(heap, gva, &slot))
        return;  // cannot be: a span with a slot that is not free is not retired
    struct span *span = slot.span;
    // Those with objects come before those without: to the front.
    if (!span_has_room(span))
        list_append(spans->room.next, &span->link);
    span->free_bits[slot.index / 64] |= 1ull << slot.index % 64;
    span->free++;
    if (span_is_idle(span))
        span_idle(heap, span);
}

void heap_slots_give(struct heap *heap, unsigned class, const uint64_t *slots, unsigned count)
{
    struct class_spans *spans = &heap->spans[class];

    heap_class_lock(heap, class);
    for (unsigned i = 0; i < count; i++)
        slot_give(heap, spans, slots[i]);
    heap_class_unlock(heap, class);
}

void heap_slot_retire(struct heap *heap, struct span *span)
{
    unsigned class = heap_class_of(heap, span);

    heap_class_lock(heap, class);
    span->retired++;
    atomic_fetch_add_explicit(&heap->retired_slots, 1, memory_order_relaxed);
    if (span_is_idle(span))
        span_idle(heap, span);
    heap_class_unlock(heap, class);
}

// ---- Classes with one slot a span ---------------------------------------------------------------

static struct span *lone_idle(struct class_spans *spans, uint64_t alignment)
{
    LIST_FOR_EACH(&spans->room, node)
    {
        struct span *span = BASE_CONTAINER_OF(node, struct span, link);
        if (atomic_load_explicit(&span->gva, memory_order_relaxed) % alignment == 0)
            return span;
    }
    return NULL;
}

int heap_lone_take(struct heap *heap, unsigned class, uint64_t alignment, uint64_t *gva)
{
    struct class_spans *spans = &heap->spans[class];

    if (alignment < HEAP_CHUNK_BYTES)
        alignment = HEAP_CHUNK_BYTES;
    heap_class_lock(heap, class);
    struct span *span = lone_idle(spans, alignment);
    if (span) {
        list_remove(&span->link);
        atomic_fetch_sub_explicit(&heap->idle_bytes, span_bytes(span), memory_order_relaxed);
    } else {
        span = span_create(heap, class, alignment);
    }
    if (span) {
        span->free = 0;
        atomic_store_explicit(&span->fresh, 1, memory_order_relaxed);
        *gva = atomic_load_explicit(&span->gva, memory_order_relaxed);
    }
    heap_class_unlock(heap, class);
    return span ? 0 : -ENOMEM;
}

void heap_lone_give(struct heap *heap, struct span *span)
{
    unsigned class = heap_class_of(heap, span);

    heap_class_lock(heap, class);
    span->free = 1;
    span_idle(heap, span);
    heap_class_unlock(heap, class);
}
