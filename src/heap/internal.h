// SPDX-License-Identifier: BSD-2-Clause
// Inside the heap room: size classes, spans, and the words that say what a slot holds.
//
// Order of locks: a class's, the space's. The others (threads, filling) are held alone.
#ifndef STRAKE_HEAP_INTERNAL_H
#define STRAKE_HEAP_INTERNAL_H

#include <assert.h>
#include <errno.h>
#include <pthread.h>

#include "heap/heap.h"

// ---- Size classes (class.c) ---------------------------------------------------------------------

#define SLOT_BYTES_MAX 32768u  // of classes with many slots a span
#define SHARED_CLASSES 72u     // those
#define LONE_CLASSES 80u       // of one slot a span, the last as large as any space
#define CLASSES (SHARED_CLASSES + LONE_CLASSES)
#define CACHED_MAX 64u  // slots of a class that a thread keeps

// A span of this class is `chunks` chunks cut into `slots` slots. The number of slots is even, so
// that the last of a span and the first of the next are neighbours of different kind; a slot that
// has its span alone has room for a granule behind its object, so that it has no neighbour.
struct size_class {
    uint32_t slots, chunks;
    // Of classes with many slots:
    uint32_t slot_granules;
    uint32_t cached;      // slots that a thread keeps
    uint64_t reciprocal;  // 2^32 / slot_granules, rounded up
};

void heap_classes_init(struct size_class classes[CLASSES]);
// The class for an object; CLASSES: there is none as large. `alignment` is a power of two.
unsigned heap_class_for(const struct size_class *classes, uint64_t bytes, uint64_t alignment);

static inline uint64_t granules_of(uint64_t bytes)
{
    return (bytes + MEMORY_GRANULE_BYTES - 1) / MEMORY_GRANULE_BYTES;
}

// ---- Slots --------------------------------------------------------------------------------------
//
// What a slot holds is one atomic word: that an object ends is one compare-and-swap, whoever tries
// it at the same time. 0: nothing has ever been there, and its memory is zero.

enum slot_state { SLOT_NEVER, SLOT_LIVE, SLOT_FREED, SLOT_REALLOCATED };

// From the lowest bit on: the identifier; the object's bytes, in classes with many slots; the
// state; the family; who allocated it.
#define WORD_BYTES_SHIFT 15u
#define WORD_STATE_SHIFT 31u
#define WORD_FAMILY_SHIFT 33u
#define WORD_WHO_SHIFT 38u
static_assert(MEMORY_IDENTIFIER_MAX < 1u << WORD_BYTES_SHIFT, "an identifier fits");
static_assert(SLOT_BYTES_MAX < 1u << (WORD_STATE_SHIFT - WORD_BYTES_SHIFT), "sizes fit");
static_assert(HEAP_NAMED_LAST < 1u << (WORD_WHO_SHIFT - WORD_FAMILY_SHIFT), "a family fits");
static_assert(HEAP_WHO_MAX < 1ull << (64 - WORD_WHO_SHIFT), "a caller fits");

static inline uint64_t word_make(uint16_t identifier, const struct heap_request *request)
{
    uint64_t bytes = request->bytes <= SLOT_BYTES_MAX ? request->bytes : 0;
    return identifier | bytes << WORD_BYTES_SHIFT | (uint64_t)SLOT_LIVE << WORD_STATE_SHIFT |
           (uint64_t)request->family << WORD_FAMILY_SHIFT |
           (uint64_t)(request->who & HEAP_WHO_MAX) << WORD_WHO_SHIFT;
}

static inline uint16_t word_identifier(uint64_t word)
{
    return word & ((1u << WORD_BYTES_SHIFT) - 1);
}

static inline uint64_t word_bytes(uint64_t word)
{
    return word >> WORD_BYTES_SHIFT & 0xffff;
}

static inline enum slot_state word_state(uint64_t word)
{
    return word >> WORD_STATE_SHIFT & 3;
}

static inline enum heap_family word_family(uint64_t word)
{
    return word >> WORD_FAMILY_SHIFT & 31;
}

// Of a live object's word: as it ends.
static inline uint64_t word_freed(uint64_t word, bool reallocated)
{
    enum slot_state state = reallocated ? SLOT_REALLOCATED : SLOT_FREED;
    return word ^ (uint64_t)(SLOT_LIVE ^ state) << WORD_STATE_SHIFT;
}

// Memory of a span is only ever used for spans of its class again, so that whoever looks without a
// lock reads what was or is true of some span.
struct span {
    const struct size_class *class;
    _Atomic uint64_t gva;
    _Atomic(uint8_t *) hva;       // of its start, or NULL
    _Atomic uint64_t lone_bytes;  // of the object, where there is one slot
    _Atomic uint32_t fresh;       // slots from this one on have never been used
    uint32_t seed;                // where its identifiers begin
    // Under the class's lock:
    struct list link;  // in the class's list of spans with room, or of those unused
    uint32_t free, retired;
    uint64_t *free_bits;
    uint8_t *marks;  // of a scan, while there is one
    _Atomic uint32_t *freed_by;
    _Atomic uint64_t words[];
};

static inline uint64_t span_bytes(const struct span *span)
{
    return (uint64_t)span->class->chunks * HEAP_CHUNK_BYTES;
}

static inline bool span_is_lone(const struct span *span)
{
    return span->class->slots == 1;
}

// Large objects' entries are filled in as they are used: LAZY_PART_BYTES at a time, which is a page
// of the table.
#define LAZY_BYTES_MIN 262144u
#define LAZY_PART_BYTES 32768u

static inline bool span_is_lazy(const struct span *span)
{
    return span_bytes(span) > LAZY_BYTES_MIN;
}

static inline uint16_t span_first_identifier(const struct span *span, uint32_t index)
{
    // Those near each other in a span are far from each other in generations: n steps of this kind
    // are at least 0.31 * MEMORY_GENERATIONS / n from where they began, for all n in a span.
    return memory_identifier_at(index, span->seed + index / 2 * 6884);
}

// One look at a slot.
struct slot {
    struct span *span;
    uint32_t index;
    uint64_t gva;  // of its start
    uint64_t word;
    uint64_t bytes;  // of its object
};

static inline uint32_t heap_freed_by(const struct slot *slot)
{
    return atomic_load_explicit(&slot->span->freed_by[slot->index], memory_order_relaxed);
}

// ---- Threads ------------------------------------------------------------------------------------

// The last objects that a thread has put others in the place of: generations of a slot, one after
// the other and alike but for that, of which `word` has the last. One thread writes; an entry's gva
// is 0 while it changes, but for `word`, which goes on to the next generation.
#define HISTORY_ENTRIES 1024u

struct history_entry {
    _Atomic uint64_t gva, bytes, word;
    _Atomic uint32_t freed_by;
    _Atomic uint16_t first;  // identifier
};

struct heap_thread {
    struct heap *heap;
    struct list link;  // of all; under the lock of threads
    bool in_use;       // likewise
    _Atomic int64_t live_objects, live_bytes;
    uint32_t history_next;
    struct history_entry history[HISTORY_ENTRIES];
    uint8_t cached[SHARED_CLASSES];
    uint64_t slots[SHARED_CLASSES][CACHED_MAX];
};

// ---- The heap -----------------------------------------------------------------------------------

struct class_spans {
    struct list room;    // spans with a free slot, those without an object last
    struct list unused;  // memory of spans
};

#define CLASS_LOCKS 16u  // so many that fork can take them all, and threads seldom meet

struct heap {
    struct heap_space space;
    const struct memory_identifiers *identifiers;
    struct size_class classes[CLASSES];
    struct class_spans spans[CLASSES];
    pthread_mutex_t class_locks[CLASS_LOCKS];  // class % CLASS_LOCKS is whose
    _Atomic(struct span *) *chunks;            // whose each chunk of the space is
    uint64_t chunk_count;
    pthread_mutex_t space_lock;  // of the next seven
    uint64_t next_chunk;
    uint64_t ahead, ahead_end;  // chunks that are mapped, with LOOK entries, for spans to come
    uint64_t rounds;
    uint8_t *records;  // memory that spans are made of
    uint64_t records_used;
    _Atomic uint64_t high_chunk;  // no chunk from this one on has been used
    _Atomic uint64_t held_bytes, idle_bytes, retired_slots;
    pthread_mutex_t fill_lock;
    pthread_mutex_t threads_lock;
    struct list threads;
};

static inline unsigned heap_class_of(const struct heap *heap, const struct span *span)
{
    return (unsigned)(span->class - heap->classes);
}

static inline void heap_class_lock(struct heap *heap, unsigned class)
{
    pthread_mutex_lock(&heap->class_locks[class % CLASS_LOCKS]);
}

static inline void heap_class_unlock(struct heap *heap, unsigned class)
{
    pthread_mutex_unlock(&heap->class_locks[class % CLASS_LOCKS]);
}

// entries.c
int heap_entries_init(const struct heap *heap);
// That of the granule that an object ends in, of which `bytes` are its.
void heap_entries_end(const struct heap *heap, const struct span *span, uint64_t gva,
                      uint64_t bytes, uint16_t identifier);

static inline void heap_entries_fill(const struct heap *heap, uint64_t gva, uint64_t granules,
                                     uint16_t entry)
{
    if (granules > 8)
        memory_identifiers_set(heap->identifiers, gva, granules * MEMORY_GRANULE_BYTES, entry);
    else
        for (; granules > 0; granules--, gva += MEMORY_GRANULE_BYTES)
            memory_identifiers_put(heap->identifiers, gva, entry);
}

// Those of an object that begins.
static inline void heap_entries_set(const struct heap *heap, const struct span *span, uint64_t gva,
                                    uint64_t bytes, uint16_t identifier)
{
    heap_entries_fill(heap, gva, bytes / MEMORY_GRANULE_BYTES, identifier);
    if (bytes % MEMORY_GRANULE_BYTES)
        heap_entries_end(heap, span, gva + bytes - bytes % MEMORY_GRANULE_BYTES,
                         bytes % MEMORY_GRANULE_BYTES, identifier);
}

// span.c
int heap_space_init(struct heap *heap, struct error *err);
void heap_space_fini(struct heap *heap);
// Takes up to `count` free slots of a class with many slots a span. 0: no memory.
unsigned heap_slots_take(struct heap *heap, unsigned class, uint64_t *slots, unsigned count);
void heap_slots_give(struct heap *heap, unsigned class, const uint64_t *slots, unsigned count);
// A slot that will not be used again as long as its span has objects.
void heap_slot_retire(struct heap *heap, struct span *span);
int heap_lone_take(struct heap *heap, unsigned class, uint64_t alignment, uint64_t *gva);
void heap_lone_give(struct heap *heap, struct span *span);

// find.c
static inline struct span *heap_span_at(const struct heap *heap, uint64_t gva)
{
    uint64_t offset = gva - heap->space.gva;
    if (offset >= heap->space.bytes)
        return NULL;
    return atomic_load_explicit(&heap->chunks[offset / HEAP_CHUNK_BYTES], memory_order_acquire);
}

static inline void heap_slot_read(struct span *span, uint32_t index, struct slot *slot)
{
    uint64_t granules = (uint64_t)index * span->class->slot_granules;

    slot->span = span;
    slot->index = index;
    slot->gva =
        atomic_load_explicit(&span->gva, memory_order_relaxed) + granules * MEMORY_GRANULE_BYTES;
    slot->word = atomic_load_explicit(&span->words[index], memory_order_acquire);
    slot->bytes = span_is_lone(span) ? atomic_load_explicit(&span->lone_bytes, memory_order_relaxed)
                                     : word_bytes(slot->word);
}

// The slot that the address lies in; false: none.
static inline bool heap_slot_at(const struct heap *heap, uint64_t gva, struct slot *slot)
{
    struct span *span = heap_span_at(heap, gva);
    uint64_t index = 0;

    if (!span)
        return false;
    uint64_t offset = gva - atomic_load_explicit(&span->gva, memory_order_relaxed);
    if (offset >= span_bytes(span))
        return false;  // it has just become another
    if (!span_is_lone(span))
        index = offset / MEMORY_GRANULE_BYTES * span->class->reciprocal >> 32;
    if (index >= span->class->slots)
        return false;
    heap_slot_read(span, (uint32_t)index, slot);
    return true;
}

struct heap_object heap_object_of(const struct slot *slot);
// All slots that have or had an object, by address.
void heap_each_slot(const struct heap *heap, void (*visit)(void *opaque, const struct slot *slot),
                    void *opaque);
void heap_diagnose_free(struct heap *heap, uint64_t pointer, struct heap_finding *finding);

#endif
