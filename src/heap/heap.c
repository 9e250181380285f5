// SPDX-License-Identifier: BSD-2-Clause
// Objects: how they begin and end.
//
// A table entry is an identifier only where an object has the whole granule while it lives;
// otherwise LOOK. So an access through a pointer of old differs from the entry whether its memory
// is free, or another object's by now.
#include <stdlib.h>
#include <string.h>

#include "heap/internal.h"

// ---- The heap and its threads -------------------------------------------------------------------

static bool space_is_valid(const struct heap_space *space,
                           const struct memory_identifiers *identifiers)
{
    return space->gva % HEAP_CHUNK_BYTES == 0 && space->bytes % HEAP_CHUNK_BYTES == 0 &&
           space->gva > 0 && space->bytes > 0 && space->bytes <= HEAP_BYTES_MAX &&
           space->gva <= identifiers->bytes && space->bytes <= identifiers->bytes - space->gva;
}

static void lists_init(struct heap *heap)
{
    for (unsigned i = 0; i < CLASSES; i++) {
        list_init(&heap->spans[i].room);
        list_init(&heap->spans[i].unused);
    }
    for (unsigned i = 0; i < CLASS_LOCKS; i++)
        pthread_mutex_init(&heap->class_locks[i], NULL);
    pthread_mutex_init(&heap->space_lock, NULL);
    pthread_mutex_init(&heap->fill_lock, NULL);
    pthread_mutex_init(&heap->threads_lock, NULL);
    list_init(&heap->threads);
}

int heap_create(struct heap **out, const struct heap_space *space,
                const struct memory_identifiers *identifiers, struct error *err)
{
    if (!space_is_valid(space, identifiers))
        return error_set(err, -EINVAL,
                         "a heap of %#llx bytes at %#llx: not chunks of the program's addresses",
                         (unsigned long long)space->bytes, (unsigned long long)space->gva);
    struct heap *heap = calloc(1, sizeof(*heap));
    if (!heap)
        return error_set(err, -ENOMEM, "no memory for a heap");
    heap->space = *space;
    heap->identifiers = identifiers;
    heap_classes_init(heap->classes);
    lists_init(heap);
    int rc = heap_entries_init(heap);
    rc =
        rc < 0 ? error_set_errno(err, rc, "faults of a heap's memory") : heap_space_init(heap, err);
    if (rc < 0)
        free(heap);
    else
        *out = heap;
    return rc;
}

void heap_destroy(struct heap *heap)
{
    if (!heap)
        return;
    LIST_FOR_EACH(&heap->threads, node)
    free(BASE_CONTAINER_OF(node, struct heap_thread, link));
    heap_space_fini(heap);
    free(heap);
}

// One whose thread has ended, with the history of that.
static struct heap_thread *thread_unused(struct heap *heap)
{
    LIST_FOR_EACH(&heap->threads, node)
    {
        struct heap_thread *thread = BASE_CONTAINER_OF(node, struct heap_thread, link);
        if (!thread->in_use)
            return thread;
    }
    return NULL;
}

int heap_thread_create(struct heap *heap, struct heap_thread **out)
{
    pthread_mutex_lock(&heap->threads_lock);
    struct heap_thread *thread = thread_unused(heap);
    if (!thread) {
        thread = calloc(1, sizeof(*thread));
        if (thread) {
            thread->heap = heap;
            list_append(&heap->threads, &thread->link);
        }
    }
    if (thread)
        thread->in_use = true;
    pthread_mutex_unlock(&heap->threads_lock);
    *out = thread;
    return thread ? 0 : -ENOMEM;
}

void heap_thread_destroy(struct heap_thread *thread)
{
    if (!thread)
        return;
    struct heap *heap = thread->heap;
    for (unsigned class = 0; class < SHARED_CLASSES; class ++) {
        heap_slots_give(heap, class, thread->slots[class], thread->cached[class]);
        thread->cached[class] = 0;
    }
    pthread_mutex_lock(&heap->threads_lock);
    thread->in_use = false;
    pthread_mutex_unlock(&heap->threads_lock);
}

void heap_fork_begin(struct heap *heap)
{
    pthread_mutex_lock(&heap->threads_lock);
    pthread_mutex_lock(&heap->fill_lock);
    for (unsigned i = 0; i < CLASS_LOCKS; i++)
        pthread_mutex_lock(&heap->class_locks[i]);
    pthread_mutex_lock(&heap->space_lock);
}

void heap_fork_end(struct heap_thread *thread, bool child)
{
    struct heap *heap = thread->heap;

    LIST_FOR_EACH(&heap->threads, node)
    {
        struct heap_thread *other = BASE_CONTAINER_OF(node, struct heap_thread, link);
        if (!child || other == thread)
            continue;
        // It may have been in the middle of a change: what it had cached cannot be trusted.
        memset(other->cached, 0, sizeof(other->cached));
        other->in_use = false;
    }
    pthread_mutex_unlock(&heap->space_lock);
    for (unsigned i = 0; i < CLASS_LOCKS; i++)
        pthread_mutex_unlock(&heap->class_locks[i]);
    pthread_mutex_unlock(&heap->fill_lock);
    pthread_mutex_unlock(&heap->threads_lock);
}

static void count(struct heap_thread *thread, int64_t objects, int64_t bytes)
{
    int64_t old_objects = atomic_load_explicit(&thread->live_objects, memory_order_relaxed);
    int64_t old_bytes = atomic_load_explicit(&thread->live_bytes, memory_order_relaxed);
    atomic_store_explicit(&thread->live_objects, old_objects + objects, memory_order_relaxed);
    atomic_store_explicit(&thread->live_bytes, old_bytes + bytes, memory_order_relaxed);
}

void heap_get_stats(struct heap *heap, struct heap_stats *stats)
{
    *stats = (struct heap_stats){
        .held_bytes = atomic_load_explicit(&heap->held_bytes, memory_order_relaxed),
        .idle_bytes = atomic_load_explicit(&heap->idle_bytes, memory_order_relaxed),
        .retired_slots = atomic_load_explicit(&heap->retired_slots, memory_order_relaxed),
    };
    pthread_mutex_lock(&heap->threads_lock);
    LIST_FOR_EACH(&heap->threads, node)
    {
        struct heap_thread *thread = BASE_CONTAINER_OF(node, struct heap_thread, link);
        stats->live_objects +=
            (uint64_t)atomic_load_explicit(&thread->live_objects, memory_order_relaxed);
        stats->live_bytes +=
            (uint64_t)atomic_load_explicit(&thread->live_bytes, memory_order_relaxed);
    }
    pthread_mutex_unlock(&heap->threads_lock);
    pthread_mutex_lock(&heap->space_lock);
    stats->rounds = heap->rounds;
    pthread_mutex_unlock(&heap->space_lock);
}

// ---- Caches -------------------------------------------------------------------------------------

static int slot_take(struct heap_thread *thread, unsigned class, uint64_t alignment, uint64_t *gva)
{
    if (class >= SHARED_CLASSES)
        return heap_lone_take(thread->heap, class, alignment, gva);
    uint64_t *slots = thread->slots[class];
    if (thread->cached[class] == 0) {
        unsigned half = thread->heap->classes[class].cached / 2;
        unsigned taken = heap_slots_take(thread->heap, class, slots, half);
        if (taken == 0)
            return -ENOMEM;
        // The lowest address first.
        for (unsigned i = 0; i < taken / 2; i++) {
            uint64_t other = slots[i];
            slots[i] = slots[taken - 1 - i];
            slots[taken - 1 - i] = other;
        }
        thread->cached[class] = (uint8_t)taken;
    }
    *gva = slots[--thread->cached[class]];
    return 0;
}

// The slot used last is used first again: it is in the processor's caches.
static void slot_give(struct heap_thread *thread, const struct slot *slot)
{
    struct heap *heap = thread->heap;

    if (span_is_lone(slot->span)) {
        heap_lone_give(heap, slot->span);
        return;
    }
    unsigned class = heap_class_of(heap, slot->span), limit = slot->span->class->cached;
    uint64_t *slots = thread->slots[class];
    if (thread->cached[class] == limit) {
        unsigned half = limit / 2;
        heap_slots_give(heap, class, slots, half);
        memmove(slots, slots + half, (limit - half) * sizeof(*slots));
        thread->cached[class] = (uint8_t)(limit - half);
    }
    slots[thread->cached[class]++] = slot->gva;
}

// ---- Beginning ----------------------------------------------------------------------------------

// Whether it is the next generation of what an entry has the last of, and alike.
static bool continues_entry(const struct history_entry *entry, const struct slot *slot,
                            uint64_t word, uint32_t freed_by)
{
    uint64_t last = atomic_load_explicit(&entry->word, memory_order_relaxed);
    return atomic_load_explicit(&entry->gva, memory_order_relaxed) == slot->gva &&
           atomic_load_explicit(&entry->bytes, memory_order_relaxed) == slot->bytes &&
           atomic_load_explicit(&entry->freed_by, memory_order_relaxed) == freed_by &&
           (last ^ word) >> WORD_BYTES_SHIFT == 0 &&
           word_identifier(word) == memory_identifier_next(word_identifier(last));
}

// Notes what was in a slot before that is forgotten: something else will be there, or nothing. A
// loop that allocates and frees makes one entry.
static void remember(struct heap_thread *thread, const struct slot *slot, uint64_t word,
                     uint32_t freed_by)
{
    struct history_entry *entry = &thread->history[(thread->history_next - 1) % HISTORY_ENTRIES];
    if (continues_entry(entry, slot, word, freed_by)) {
        atomic_store_explicit(&entry->word, word, memory_order_release);
        return;
    }
    entry = &thread->history[thread->history_next++ % HISTORY_ENTRIES];

    // Release: who sees the new gva sees the rest; and who has seen some of the rest before it
    // finds the gva changed.
    atomic_store_explicit(&entry->gva, 0, memory_order_relaxed);
    atomic_store_explicit(&entry->bytes, slot->bytes, memory_order_release);
    atomic_store_explicit(&entry->word, word, memory_order_release);
    atomic_store_explicit(&entry->freed_by, freed_by, memory_order_release);
    atomic_store_explicit(&entry->first, word_identifier(word), memory_order_release);
    atomic_store_explicit(&entry->gva, slot->gva, memory_order_release);
}

static uint16_t next_identifier(const struct slot *slot)
{
    return word_state(slot->word) == SLOT_NEVER
               ? span_first_identifier(slot->span, slot->index)
               : memory_identifier_next(word_identifier(slot->word));
}

static bool generations_used_up(const struct slot *slot)
{
    return memory_identifier_next(word_identifier(slot->word)) ==
           span_first_identifier(slot->span, slot->index);
}

// The entries of a slot whose object now has `bytes` and had `old_bytes`, 0 if there was none.
static void entries_set(struct heap *heap, const struct slot *slot, uint64_t bytes,
                        uint64_t old_bytes, uint16_t identifier)
{
    if (span_is_lazy(slot->span))
        return;
    uint64_t granules = granules_of(bytes), old_granules = granules_of(old_bytes);
    heap_entries_set(heap, slot->span, slot->gva, bytes, identifier);
    if (old_granules > granules)
        heap_entries_fill(heap, slot->gva + granules * MEMORY_GRANULE_BYTES,
                          old_granules - granules, MEMORY_IDENTIFIER_LOOK);
}

// As large objects' entries come with use, they go when the object ends.
static void lazy_entries_clear(struct heap *heap, const struct slot *slot)
{
    if (!span_is_lazy(slot->span))
        return;
    pthread_mutex_lock(&heap->fill_lock);
    memory_identifiers_drop(heap->identifiers, slot->gva, span_bytes(slot->span));
    pthread_mutex_unlock(&heap->fill_lock);
}

static uint64_t object_begin(struct heap_thread *thread, const struct slot *slot,
                             const struct heap_request *request)
{
    uint16_t identifier = next_identifier(slot);

    if (word_state(slot->word) != SLOT_NEVER && !span_is_lone(slot->span))
        remember(thread, slot, slot->word, heap_freed_by(slot));
    if (span_is_lone(slot->span))
        atomic_store_explicit(&slot->span->lone_bytes, request->bytes, memory_order_relaxed);
    atomic_store_explicit(&slot->span->words[slot->index], word_make(identifier, request),
                          memory_order_release);
    entries_set(thread->heap, slot, request->bytes, 0, identifier);
    count(thread, 1, (int64_t)request->bytes);
    return memory_pointer_make(slot->gva, identifier);
}

int heap_allocate(struct heap_thread *thread, const struct heap_request *request, uint64_t *pointer)
{
    struct heap *heap = thread->heap;
    uint64_t alignment = request->alignment, gva;
    struct slot slot;

    if (alignment & (alignment - 1))
        return -EINVAL;
    if (alignment < MEMORY_GRANULE_BYTES)
        alignment = MEMORY_GRANULE_BYTES;
    unsigned class = heap_class_for(heap->classes, request->bytes, alignment);
    if (class == CLASSES || slot_take(thread, class, alignment, &gva) < 0)
        return -ENOMEM;
    if (!heap_slot_at(heap, gva, &slot))
        return -ENOMEM;  // cannot be: what is taken is in a span, and nobody else's
    if (request->zero && word_state(slot.word) != SLOT_NEVER &&
        heap->space.zero(heap->space.opaque, gva, request->bytes) < 0) {
        slot_give(thread, &slot);
        return -EFAULT;
    }
    *pointer = object_begin(thread, &slot, request);
    return 0;
}

// ---- Ending -------------------------------------------------------------------------------------

// The live object that starts at `pointer` and may be ended by `family`.
static bool object_at(struct heap *heap, uint64_t pointer, enum heap_family family,
                      struct slot *slot)
{
    uint64_t gva = memory_pointer_gva(pointer);

    return heap_slot_at(heap, gva, slot) && slot->gva == gva &&
           word_state(slot->word) == SLOT_LIVE &&
           word_identifier(slot->word) == memory_pointer_identifier(pointer) &&
           (family == HEAP_ANY || word_family(slot->word) == family);
}

static int refuse(struct heap *heap, uint64_t pointer, struct heap_finding *finding)
{
    if (finding)
        heap_diagnose_free(heap, pointer, finding);
    return -EINVAL;
}

// False: another thread was first.
static bool object_end(struct heap_thread *thread, struct slot *slot, bool reallocated,
                       uint32_t who)
{
    struct heap *heap = thread->heap;
    uint64_t freed = word_freed(slot->word, reallocated);

    if (!atomic_compare_exchange_strong_explicit(&slot->span->words[slot->index], &slot->word,
                                                 freed, memory_order_acq_rel, memory_order_acquire))
        return false;
    slot->word = freed;
    atomic_store_explicit(&slot->span->freed_by[slot->index], who, memory_order_relaxed);
    entries_set(heap, slot, 0, slot->bytes, MEMORY_IDENTIFIER_LOOK);
    lazy_entries_clear(heap, slot);
    count(thread, -1, -(int64_t)slot->bytes);
    // The span may go, and with it what it says.
    bool used_up = generations_used_up(slot);
    if (used_up || span_is_lone(slot->span))
        remember(thread, slot, freed, who);
    if (used_up)
        heap_slot_retire(heap, slot->span);
    else
        slot_give(thread, slot);
    return true;
}

int heap_free(struct heap_thread *thread, uint64_t pointer, enum heap_family family, uint32_t who,
              struct heap_finding *finding)
{
    struct slot slot;

    if (pointer == 0)
        return 0;
    if (!object_at(thread->heap, pointer, family, &slot) || !object_end(thread, &slot, false, who))
        return refuse(thread->heap, pointer, finding);
    return 0;
}

// A new object in the old one's place: the next generation of it. False: another thread was first.
static bool object_renew(struct heap_thread *thread, struct slot *slot,
                         const struct heap_request *request, uint64_t *out)
{
    uint16_t identifier = next_identifier(slot);
    uint64_t old = slot->word, word = word_make(identifier, request);

    if (!atomic_compare_exchange_strong_explicit(&slot->span->words[slot->index], &slot->word, word,
                                                 memory_order_acq_rel, memory_order_acquire))
        return false;
    if (span_is_lone(slot->span))
        atomic_store_explicit(&slot->span->lone_bytes, request->bytes, memory_order_relaxed);
    remember(thread, slot, word_freed(old, true), request->who);
    lazy_entries_clear(thread->heap, slot);
    entries_set(thread->heap, slot, request->bytes, slot->bytes, identifier);
    count(thread, 0, (int64_t)(request->bytes - slot->bytes));
    *out = memory_pointer_make(slot->gva, identifier);
    return true;
}

static int object_move(struct heap_thread *thread, struct slot *slot, uint64_t pointer,
                       const struct heap_request *request, uint64_t *out,
                       struct heap_finding *finding)
{
    struct heap *heap = thread->heap;
    uint64_t bytes = slot->bytes < request->bytes ? slot->bytes : request->bytes;

    int rc = heap_allocate(thread, request, out);
    if (rc < 0)
        return rc;
    if (heap->space.copy(heap->space.opaque, memory_pointer_gva(*out), slot->gva, bytes) < 0)
        rc = -EFAULT;
    else if (!object_end(thread, slot, true, request->who))
        rc = refuse(heap, pointer, finding);
    if (rc < 0)
        (void)!heap_free(thread, *out, HEAP_ANY, request->who, NULL);
    return rc;
}

int heap_reallocate(struct heap_thread *thread, uint64_t pointer,
                    const struct heap_request *request, uint64_t *out, struct heap_finding *finding)
{
    struct heap *heap = thread->heap;
    struct heap_request plain = *request;
    struct slot slot;

    plain.alignment = 0;
    plain.zero = false;
    if (request->family == HEAP_ANY)
        plain.family = HEAP_MALLOC;
    if (pointer == 0)
        return heap_allocate(thread, &plain, out);
    if (!object_at(heap, pointer, request->family, &slot))
        return refuse(heap, pointer, finding);
    if (request->family == HEAP_ANY)
        plain.family = word_family(slot.word);
    unsigned class = heap_class_for(heap->classes, request->bytes, MEMORY_GRANULE_BYTES);
    if (class != heap_class_of(heap, slot.span) || generations_used_up(&slot))
        return object_move(thread, &slot, pointer, &plain, out, finding);
    return object_renew(thread, &slot, &plain, out) ? 0 : refuse(heap, pointer, finding);
}
