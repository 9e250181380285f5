// SPDX-License-Identifier: BSD-2-Clause
// A heap over ordinary memory of this process, for the tests of the heap room.
#ifndef STRAKE_TESTS_HEAP_FIXTURE_H
#define STRAKE_TESTS_HEAP_FIXTURE_H

#include "heap_memory.h"
#include "unit.h"

#define FLAT_BYTES (1ull << 38)
#define SPACE_GVA (1ull << 32)

struct fixture {
    uint8_t *hva;
    struct memory_identifiers identifiers;
    struct heap *heap;
    struct heap_thread *thread;
    atomic_int maps, unmaps;
    bool map_fails, zero_fails, copy_fails;
};

static int fixture_map(void *opaque, uint64_t gva, uint64_t bytes)
{
    struct fixture *fixture = opaque;
    if (fixture->map_fails || heap_memory_map(&fixture->hva, gva, bytes))
        return -ENOMEM;
    fixture->maps++;
    return 0;
}

static void fixture_unmap(void *opaque, uint64_t gva, uint64_t bytes)
{
    struct fixture *fixture = opaque;
    fixture->unmaps++;
    heap_memory_unmap(&fixture->hva, gva, bytes);
}

static int fixture_zero(void *opaque, uint64_t gva, uint64_t bytes)
{
    struct fixture *fixture = opaque;
    return fixture->zero_fails ? -EFAULT : heap_memory_zero(&fixture->hva, gva, bytes);
}

static int fixture_copy(void *opaque, uint64_t to, uint64_t from, uint64_t bytes)
{
    struct fixture *fixture = opaque;
    return fixture->copy_fails ? -EFAULT : heap_memory_copy(&fixture->hva, to, from, bytes);
}

static void *fixture_hva(void *opaque, uint64_t gva, uint64_t bytes)
{
    struct fixture *fixture = opaque;
    return heap_memory_hva(&fixture->hva, gva, bytes);
}

static inline void fixture_init(struct fixture *fixture, uint64_t space_bytes)
{
    *fixture = (struct fixture){0};
    struct heap_space space = heap_memory_space(&fixture->hva, FLAT_BYTES, SPACE_GVA, space_bytes);
    space.map = fixture_map;
    space.unmap = fixture_unmap;
    space.zero = fixture_zero;
    space.copy = fixture_copy;
    space.hva = fixture_hva;
    space.opaque = fixture;
    struct error err;
    assert_int_equal(memory_identifiers_init(&fixture->identifiers, FLAT_BYTES, &err), 0);
    assert_int_equal(heap_create(&fixture->heap, &space, &fixture->identifiers, &err), 0);
    assert_int_equal(heap_thread_create(fixture->heap, &fixture->thread), 0);
}

static inline void fixture_fini(struct fixture *fixture)
{
    heap_thread_destroy(fixture->thread);
    heap_destroy(fixture->heap);
    memory_identifiers_fini(&fixture->identifiers);
    munmap(fixture->hva, FLAT_BYTES);
}

static inline uint8_t *fixture_at(const struct fixture *fixture, uint64_t pointer)
{
    return fixture->hva + memory_pointer_gva(pointer);
}

static inline uint64_t fixture_allocate(struct fixture *fixture, uint64_t bytes)
{
    struct heap_request request = {.bytes = bytes, .who = 1};
    uint64_t pointer = 0;
    assert_int_equal(heap_allocate(fixture->thread, &request, &pointer), 0);
    return pointer;
}

static inline void fixture_free(struct fixture *fixture, uint64_t pointer)
{
    assert_int_equal(heap_free(fixture->thread, pointer, HEAP_MALLOC, 2, NULL), 0);
}

// What translated code does before each access: the comparison, and that with an object's end.
static inline bool fixture_compares(struct fixture *fixture, uint64_t pointer, uint64_t bytes)
{
    uint64_t gva = memory_pointer_gva(pointer), in_granule = gva % MEMORY_GRANULE_BYTES;
    if (gva >= FLAT_BYTES || bytes > MEMORY_GRANULE_BYTES - in_granule)
        return false;
    uint16_t entry = memory_identifiers_get(&fixture->identifiers, gva);
    uint16_t identifier = memory_pointer_identifier(pointer);
    return entry == identifier ||
           ((entry ^ MEMORY_IDENTIFIER_PARTIAL) == identifier &&
            in_granule + bytes <= *fixture_at(fixture, pointer | (MEMORY_GRANULE_BYTES - 1)));
}

// The heap's word only when that finds a difference or the access crosses a granule.
static inline bool fixture_access(struct fixture *fixture, uint64_t pointer, uint64_t bytes)
{
    return fixture_compares(fixture, pointer, bytes) || heap_allows(fixture->heap, pointer, bytes);
}

static inline enum heap_fault fixture_fault(struct fixture *fixture, uint64_t pointer,
                                            uint64_t bytes, struct heap_finding *finding)
{
    heap_diagnose(fixture->heap, pointer, bytes, finding);
    return finding->fault;
}

#endif
