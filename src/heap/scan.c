// SPDX-License-Identifier: BSD-2-Clause
// Leaks: what the roots reach, and by what kind of pointer. Identifiers make it nearly exact: a
// word that merely looks like an address is no pointer.
#include <stdlib.h>

#include "heap/internal.h"

#define PIECE_BYTES 4096u
// Of a pointer to an object's start these may be something of the program's: trees have colours in
// them.
#define LOW_BITS 7ull

// How an object is reached; the first three in the order of strength.
enum mark {
    MARK_NONE,
    MARK_INTERIOR,  // by a pointer into it, or without an identifier, at least once on the way
    MARK_START,
    MARK_LEADER,    // lost, and not reached by what is lost
    MARK_INDIRECT,  // lost, and reached by what is lost
};

struct scan_item {
    struct span *span;
    uint32_t index;
};

struct heap_scan {
    struct heap *heap;
    int (*read)(void *opaque, uint64_t gva, void *to, uint64_t bytes);
    void *opaque;
    struct scan_item *items;  // whose contents are to be looked at
    size_t item_count, item_capacity;
    struct scan_item leader;  // whose contents are followed; span NULL: the roots'
    uint64_t words[PIECE_BYTES / sizeof(uint64_t)];
};

static struct span *next_span(const struct heap *heap, uint64_t *chunk)
{
    uint64_t high = atomic_load_explicit(&heap->high_chunk, memory_order_relaxed);

    for (; *chunk < high; ++*chunk) {
        struct span *span = atomic_load_explicit(&heap->chunks[*chunk], memory_order_acquire);
        if (!span)
            continue;
        *chunk += span->class->chunks;
        return span;
    }
    return NULL;
}

int heap_scan_create(struct heap *heap,
                     int (*read)(void *opaque, uint64_t gva, void *to, uint64_t bytes),
                     void *opaque, struct heap_scan **out)
{
    struct heap_scan *scan = calloc(1, sizeof(*scan));
    struct span *span;

    if (!scan)
        return -ENOMEM;
    *scan = (struct heap_scan){.heap = heap, .read = read, .opaque = opaque};
    for (uint64_t chunk = 0; (span = next_span(heap, &chunk));) {
        span->marks = calloc(span->class->slots, sizeof(*span->marks));
        if (!span->marks) {
            heap_scan_destroy(scan);
            return -ENOMEM;
        }
    }
    *out = scan;
    return 0;
}

void heap_scan_destroy(struct heap_scan *scan)
{
    struct span *span;

    if (!scan)
        return;
    for (uint64_t chunk = 0; (span = next_span(scan->heap, &chunk));) {
        free(span->marks);
        span->marks = NULL;
    }
    free(scan->items);
    free(scan);
}

static int push(struct heap_scan *scan, const struct slot *slot)
{
    if (scan->item_count == scan->item_capacity) {
        size_t capacity = scan->item_capacity ? 2 * scan->item_capacity : 256;
        struct scan_item *items = realloc(scan->items, capacity * sizeof(*items));
        if (!items)
            return -ENOMEM;
        scan->items = items;
        scan->item_capacity = capacity;
    }
    scan->items[scan->item_count++] = (struct scan_item){slot->span, slot->index};
    return 0;
}

// The live object that a word points to; *start: to its first byte, with its identifier.
static bool target_of(const struct heap_scan *scan, uint64_t word, struct slot *slot, bool *start)
{
    uint16_t identifier = memory_pointer_identifier(word);
    uint64_t gva = memory_pointer_gva(word);

    if (!heap_slot_at(scan->heap, gva, slot) || word_state(slot->word) != SLOT_LIVE)
        return false;
    bool own = identifier == word_identifier(slot->word);
    *start = own && (gva & ~LOW_BITS) == slot->gva;
    return *start ||
           ((own || identifier == MEMORY_IDENTIFIER_NONE) && gva - slot->gva < slot->bytes);
}

// Reached from the roots, or from what is reached by `from`.
static int reach(struct heap_scan *scan, const struct slot *slot, enum mark from, bool start)
{
    uint8_t *mark = &slot->span->marks[slot->index];
    enum mark by = start ? from : MARK_INTERIOR;

    if (*mark >= by)
        return 0;
    *mark = (uint8_t)by;
    return push(scan, slot);
}

// Reached from what is lost. A leader that another reaches is none.
static int reach_lost(struct heap_scan *scan, const struct slot *slot)
{
    uint8_t *mark = &slot->span->marks[slot->index];
    bool self = slot->span == scan->leader.span && slot->index == scan->leader.index;

    if (*mark == MARK_LEADER && !self)
        *mark = MARK_INDIRECT;
    if (*mark != MARK_NONE)
        return 0;
    *mark = MARK_INDIRECT;
    return push(scan, slot);
}

static int follow(struct heap_scan *scan, uint64_t word, enum mark from)
{
    struct slot slot;
    bool start;

    if (!target_of(scan, word, &slot, &start))
        return 0;
    return scan->leader.span ? reach_lost(scan, &slot) : reach(scan, &slot, from, start);
}

static int follow_memory(struct heap_scan *scan, uint64_t gva, uint64_t bytes, enum mark from)
{
    uint64_t skipped = -gva & (sizeof(uint64_t) - 1);

    if (bytes < skipped)
        return 0;
    for (gva += skipped, bytes -= skipped; bytes >= sizeof(uint64_t);) {
        // Pieces end where pages do, so that one that cannot be read hides no other.
        uint64_t piece = PIECE_BYTES - gva % PIECE_BYTES;
        if (piece > bytes)
            piece = bytes & -(uint64_t)sizeof(uint64_t);
        bool readable = scan->read(scan->opaque, gva, scan->words, piece) == 0;
        for (uint64_t i = 0; readable && i < piece / sizeof(uint64_t); i++) {
            int rc = follow(scan, scan->words[i], from);
            if (rc < 0)
                return rc;
        }
        gva += piece;
        bytes -= piece;
    }
    return 0;
}

static int follow_items(struct heap_scan *scan)
{
    while (scan->item_count > 0) {
        struct scan_item item = scan->items[--scan->item_count];
        struct slot slot;
        heap_slot_read(item.span, item.index, &slot);
        int rc = follow_memory(scan, slot.gva, slot.bytes, item.span->marks[item.index]);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int heap_scan_memory(struct heap_scan *scan, uint64_t gva, uint64_t bytes)
{
    int rc = follow_memory(scan, gva, bytes, MARK_START);
    return rc < 0 ? rc : follow_items(scan);
}

int heap_scan_word(struct heap_scan *scan, uint64_t word)
{
    int rc = follow(scan, word, MARK_START);
    return rc < 0 ? rc : follow_items(scan);
}

// Makes an unreached object a leader, and what it reaches indirectly lost.
static int lead(struct heap_scan *scan, const struct slot *slot)
{
    if (slot->span->marks[slot->index] != MARK_NONE)
        return 0;
    slot->span->marks[slot->index] = MARK_LEADER;
    scan->leader = (struct scan_item){slot->span, slot->index};
    int rc = push(scan, slot);
    return rc < 0 ? rc : follow_items(scan);
}

struct leaks {
    struct heap_scan *scan;
    int rc;
    void (*found)(void *opaque, const struct heap_object *object, enum heap_leak leak);
    void *opaque;
};

static void visit_lost(void *opaque, const struct slot *slot)
{
    struct leaks *leaks = opaque;
    if (leaks->rc == 0 && word_state(slot->word) == SLOT_LIVE)
        leaks->rc = lead(leaks->scan, slot);
}

static void visit_found(void *opaque, const struct slot *slot)
{
    static const enum heap_leak leak_of[] = {
        [MARK_INTERIOR] = HEAP_LEAK_POSSIBLE,
        [MARK_LEADER] = HEAP_LEAK_DEFINITE,
        [MARK_INDIRECT] = HEAP_LEAK_INDIRECT,
    };
    struct leaks *leaks = opaque;
    enum mark mark = slot->span->marks[slot->index];
    struct heap_object object = heap_object_of(slot);

    if (object.live && mark != MARK_START)
        leaks->found(leaks->opaque, &object, leak_of[mark]);
}

int heap_scan_leaks(struct heap_scan *scan,
                    void (*found)(void *opaque, const struct heap_object *object,
                                  enum heap_leak leak),
                    void *opaque)
{
    struct leaks leaks = {.scan = scan, .found = found, .opaque = opaque};

    heap_each_slot(scan->heap, visit_lost, &leaks);
    if (leaks.rc == 0)
        heap_each_slot(scan->heap, visit_found, &leaks);
    return leaks.rc;
}
