// SPDX-License-Identifier: BSD-2-Clause
// Size classes. Up to 256 bytes one for each number of granules; from there eight to each doubling,
// so that at most an eighth of a slot is unused; beyond SLOT_BYTES_MAX an object has a span of its
// own, of four sizes to each doubling: what an object does not use of that is never touched.
#include "heap/internal.h"

#define EXACT_CLASSES 16u     // one for each number of granules
#define SMALL_SPAN_SLOT 4096  // slots of up to so many bytes are in spans of one chunk
#define CACHED_BYTES 16384u   // that a thread keeps of a class

static unsigned log2_of(uint64_t value)
{
    return 63 - (unsigned)__builtin_clzll(value);
}

// Of numbers from 2^from on, 2^(steps_log2) classes to each doubling: the class of `count`, and the
// count that a class is for.
static unsigned geometric_class(uint64_t count, unsigned from, unsigned steps_log2)
{
    unsigned power = log2_of(count - 1), shift = power - steps_log2;
    return ((power - from) << steps_log2) + (unsigned)((count - 1) >> shift) - (1u << steps_log2);
}

static uint64_t geometric_count(unsigned class, unsigned from, unsigned steps_log2)
{
    unsigned steps = 1u << steps_log2;
    unsigned shift = class / steps + from - steps_log2;
    return (uint64_t)(class % steps + steps + 1) << shift;
}

static unsigned shared_class(uint64_t bytes)
{
    uint64_t granules = granules_of(bytes);
    if (granules <= EXACT_CLASSES)
        return granules > 0 ? (unsigned)granules - 1 : 0;
    return EXACT_CLASSES + geometric_class(granules, 4, 3);
}

static unsigned lone_class(uint64_t bytes)
{
    uint64_t chunks = (bytes + MEMORY_GRANULE_BYTES + HEAP_CHUNK_BYTES - 1) / HEAP_CHUNK_BYTES;
    return SHARED_CLASSES +
           (chunks <= 8 ? (unsigned)chunks - 1 : 8 + geometric_class(chunks, 3, 2));
}

static void shared_init(struct size_class *class, unsigned number)
{
    uint64_t granules =
        number < EXACT_CLASSES ? number + 1 : geometric_count(number - EXACT_CLASSES, 4, 3);
    uint64_t bytes = granules * MEMORY_GRANULE_BYTES;

    class->chunks = bytes <= SMALL_SPAN_SLOT ? 1 : 4;
    class->slots = (uint32_t)(class->chunks * HEAP_CHUNK_BYTES / bytes) & ~1u;
    class->slot_granules = (uint32_t)granules;
    // Exact for offsets in a span: at most 2^14 granules, divided by at most 2^11.
    class->reciprocal = ((1ull << 32) + granules - 1) / granules;
    class->cached = (uint32_t)(CACHED_BYTES / bytes);
    if (class->cached > CACHED_MAX)
        class->cached = CACHED_MAX;
    if (class->cached < 2)
        class->cached = 2;
}

void heap_classes_init(struct size_class classes[CLASSES])
{
    for (unsigned i = 0; i < SHARED_CLASSES; i++)
        shared_init(&classes[i], i);
    for (unsigned i = 0; i < LONE_CLASSES; i++)
        classes[SHARED_CLASSES + i] = (struct size_class){
            .slots = 1, .chunks = (uint32_t)(i < 8 ? i + 1 : geometric_count(i - 8, 3, 2))};
}

unsigned heap_class_for(const struct size_class *classes, uint64_t bytes, uint64_t alignment)
{
    if (bytes > SLOT_BYTES_MAX || alignment > SLOT_BYTES_MAX)
        return bytes <= HEAP_BYTES_MAX - HEAP_CHUNK_BYTES ? lone_class(bytes) : CLASSES;
    unsigned class = shared_class(bytes);
    // The last class suits all alignments.
    while (classes[class].slot_granules * MEMORY_GRANULE_BYTES & (alignment - 1))
        class ++;
    return class;
}
