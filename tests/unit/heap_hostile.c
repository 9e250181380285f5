// SPDX-License-Identifier: BSD-2-Clause
// Arguments that a program makes up: sizes near 2^64, alignments that are none, pointers to
// anything.
#include "heap_fixture.h"

#define SPACE_BYTES (1ull << 30)

static const uint64_t odd_numbers[] = {
    0,
    1,
    15,
    16,
    17,
    4095,
    32768,
    32769,
    65536,
    SPACE_GVA - 1,
    SPACE_GVA,
    SPACE_GVA + 16,
    SPACE_GVA + SPACE_BYTES - 1,
    SPACE_GVA + SPACE_BYTES,
    SPACE_BYTES,
    FLAT_BYTES - 1,
    FLAT_BYTES,
    HEAP_BYTES_MAX - HEAP_CHUNK_BYTES,
    HEAP_BYTES_MAX - 1,
    HEAP_BYTES_MAX,
    MEMORY_POINTER_MASK,
    MEMORY_POINTER_BYTES,
    1ull << 62,
    INT64_MAX,
    1ull << 63,
    UINT64_MAX - 65536,
    UINT64_MAX - 32,
    UINT64_MAX - 15,
    UINT64_MAX - 1,
    UINT64_MAX,
};

static void impossible_sizes_are_refused(void **state)
{
    (void)state;
    struct fixture fixture;

    printf("all pairs of odd sizes and alignments: an object as asked for, or an error\n");
    fixture_init(&fixture, SPACE_BYTES);
    for (unsigned i = 0; i < BASE_COUNT_OF(odd_numbers); i++) {
        for (unsigned j = 0; j < BASE_COUNT_OF(odd_numbers); j++) {
            struct heap_request request = {.bytes = odd_numbers[i], .alignment = odd_numbers[j]};
            bool aligned = !(request.alignment & (request.alignment - 1));
            uint64_t pointer;
            int rc = heap_allocate(fixture.thread, &request, &pointer);
            if (!aligned) {
                assert_int_equal(rc, -EINVAL);
            } else if (request.bytes >= SPACE_BYTES || request.alignment > 1ull << 32) {
                assert_int_equal(rc, -ENOMEM);
            } else if (rc != 0) {
                // Not at each such address there is room.
                assert_int_equal(rc, -ENOMEM);
                assert_true(request.alignment > 1u << 20);
            } else {
                assert_true(heap_allows(fixture.heap, pointer, request.bytes));
                assert_false(heap_allows(fixture.heap, pointer, request.bytes + 1));
                fixture_free(&fixture, pointer);
            }
        }
    }
    fixture_fini(&fixture);
}

static void any_access_has_an_answer(void **state)
{
    (void)state;
    struct fixture fixture;
    struct heap_finding finding;
    struct heap_object object;

    printf("accesses of odd lengths to odd places with all kinds of identifiers\n");
    fixture_init(&fixture, SPACE_BYTES);
    uint64_t pointer = fixture_allocate(&fixture, 40);
    uint64_t large = fixture_allocate(&fixture, 1 << 20);
    uint16_t identifiers[] = {
        0, 1, 2, 32766, 32767, 32768, 65534, 65535, memory_pointer_identifier(pointer)};
    for (unsigned i = 0; i < BASE_COUNT_OF(odd_numbers); i++) {
        for (unsigned j = 0; j < BASE_COUNT_OF(odd_numbers); j++) {
            for (unsigned k = 0; k < BASE_COUNT_OF(identifiers); k++) {
                uint64_t odd =
                    memory_pointer_make(memory_pointer_gva(odd_numbers[i]), identifiers[k]);
                uint64_t bytes = odd_numbers[j];
                bool allowed = heap_allows(fixture.heap, odd, bytes);
                heap_diagnose(fixture.heap, odd, bytes, &finding);
                assert_int_equal(allowed, finding.fault == HEAP_FINE);
                if (allowed && bytes > 0 && identifiers[k] != 0)
                    assert_true(odd - pointer <= 40 && bytes <= 40 - (odd - pointer));
                (void)heap_usable_bytes(fixture.heap, odd);
                (void)heap_find(fixture.heap, odd_numbers[i], &object);
            }
            assert_false(heap_allows(fixture.heap, large, odd_numbers[j] | 1 << 21));
            assert_false(heap_allows(fixture.heap, large + (1 << 20) - 1, odd_numbers[j] | 2));
        }
    }
    fixture_fini(&fixture);
}

static void anything_may_be_freed(void **state)
{
    (void)state;
    struct fixture fixture;
    struct heap_finding finding;
    struct heap_stats before, after;
    uint64_t out, seed = 88172645463325252u;

    printf("frees and reallocations of 200,000 made-up pointers: all refused\n");
    fixture_init(&fixture, SPACE_BYTES);
    uint64_t pointer = fixture_allocate(&fixture, 40);
    fixture_free(&fixture, fixture_allocate(&fixture, 100));
    fixture_free(&fixture, fixture_allocate(&fixture, 100000));
    heap_get_stats(fixture.heap, &before);
    for (unsigned i = 0; i < 200000; i++) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        uint64_t odd = seed;
        if (i % 4 == 1)
            odd = memory_pointer_make(SPACE_GVA + seed % (1 << 20), (uint16_t)(seed >> 32));
        else if (i % 4 == 2)
            odd = pointer ^ 1ull << i / 4 % 64;
        else if (i % 4 == 3)
            odd = odd_numbers[i / 4 % BASE_COUNT_OF(odd_numbers)] ^ seed << 48;
        struct heap_request request = {.bytes = odd_numbers[i % BASE_COUNT_OF(odd_numbers)]};
        if (odd == 0)
            continue;
        assert_int_equal(heap_free(fixture.thread, odd, HEAP_ANY, 0, &finding), -EINVAL);
        assert_true(finding.fault >= HEAP_DOUBLE_FREE && finding.fault <= HEAP_MISMATCHED_FREE);
        assert_int_equal(heap_reallocate(fixture.thread, odd, &request, &out, &finding), -EINVAL);
    }
    heap_get_stats(fixture.heap, &after);
    assert_memory_equal(&before, &after, sizeof(before));
    assert_int_equal(heap_usable_bytes(fixture.heap, pointer), 40);
    fixture_fini(&fixture);
}

static void odd_spaces_are_refused(void **state)
{
    (void)state;
    struct memory_identifiers identifiers;
    static const struct {
        uint64_t gva, bytes;
    } spaces[] = {{0, 65536},
                  {65536, 0},
                  {65537, 65536},
                  {65536, 65535},
                  {1 << 30, 65536},
                  {(1 << 30) - 65536, 131072},
                  {65536, HEAP_BYTES_MAX + 65536},
                  {UINT64_MAX - 65535, 65536},
                  {65536, UINT64_MAX - 65535}};

    printf("spaces that are none\n");
    assert_int_equal(memory_identifiers_init(&identifiers, 1 << 30, NULL), 0);
    for (unsigned i = 0; i < BASE_COUNT_OF(spaces); i++) {
        struct heap_space space = {.gva = spaces[i].gva, .bytes = spaces[i].bytes};
        struct heap *heap = NULL;
        struct error err = {0};
        assert_int_equal(heap_create(&heap, &space, &identifiers, &err), -EINVAL);
        assert_null(heap);
    }
    memory_identifiers_fini(&identifiers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(impossible_sizes_are_refused),
        cmocka_unit_test(any_access_has_an_answer),
        cmocka_unit_test(anything_may_be_freed),
        cmocka_unit_test(odd_spaces_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
