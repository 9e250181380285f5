// SPDX-License-Identifier: BSD-2-Clause
// What the heap says of accesses and frees that are not allowed: of which kind they are, and which
// object they are about.
#include "heap_fixture.h"

#define SPACE_BYTES (16ull << 30)

static void overflow_is_told_at_any_distance(void **state)
{
    (void)state;
    struct fixture fixture;
    struct heap_finding finding;
    static uint64_t pointers[400];

    printf("from each of 400 objects into each other one: overflow or underflow of the first\n");
    fixture_init(&fixture, SPACE_BYTES);
    for (unsigned i = 0; i < BASE_COUNT_OF(pointers); i++)
        pointers[i] = fixture_allocate(&fixture, 40 + i % 5 * 100);
    for (unsigned i = 0; i < BASE_COUNT_OF(pointers); i++) {
        for (unsigned j = 0; j < BASE_COUNT_OF(pointers); j++) {
            uint64_t distance =
                memory_pointer_gva(pointers[j]) - memory_pointer_gva(pointers[i]) + 8;
            uint64_t pointer = pointers[i] + distance;
            if (i == j ||
                memory_pointer_identifier(pointer) != memory_pointer_identifier(pointers[i]))
                continue;
            assert_false(fixture_access(&fixture, pointer, 4));
            assert_int_equal(fixture_fault(&fixture, pointer, 4, &finding),
                             (int64_t)distance < 0 ? HEAP_UNDERFLOW : HEAP_OVERFLOW);
            assert_int_equal(finding.object.gva, memory_pointer_gva(pointers[i]));
            assert_int_equal(finding.offset, (int64_t)distance);
            assert_int_equal(finding.memory.gva, memory_pointer_gva(pointers[j]));
            assert_int_equal(finding.memory_identifier, memory_pointer_identifier(pointers[j]));
        }
    }
    fixture_fini(&fixture);
}

static void ends_are_told(void **state)
{
    (void)state;
    struct fixture fixture;
    struct heap_finding finding;
    static const uint64_t sizes[] = {0, 1, 15, 16, 17, 40, 4096, 100000, 1 << 20};

    printf("one byte before and behind, across the end, and into what is no object\n");
    fixture_init(&fixture, SPACE_BYTES);
    for (unsigned i = 0; i < BASE_COUNT_OF(sizes); i++) {
        uint64_t bytes = sizes[i], pointer = fixture_allocate(&fixture, bytes);
        assert_int_equal(fixture_fault(&fixture, pointer + bytes, 1, &finding), HEAP_OVERFLOW);
        assert_int_equal(finding.offset, (int64_t)bytes);
        assert_int_equal(finding.object.bytes, bytes);
        assert_int_equal(finding.object.allocated_by, 1);
        assert_true(finding.object.live);
        assert_int_equal(fixture_fault(&fixture, pointer - 1, 1, &finding), HEAP_UNDERFLOW);
        assert_int_equal(finding.offset, -1);
        assert_int_equal(fixture_fault(&fixture, pointer, bytes + 1, &finding), HEAP_OVERFLOW);
        assert_int_equal(finding.offset, 0);
        assert_int_equal(fixture_fault(&fixture, pointer + (8ull << 30), 1, &finding),
                         HEAP_OVERFLOW);
        assert_int_equal(finding.object.gva, memory_pointer_gva(pointer));
        assert_int_equal(fixture_fault(&fixture, pointer, bytes, &finding), HEAP_FINE);
    }
    fixture_fini(&fixture);
}

static void use_after_free_is_told(void **state)
{
    (void)state;
    struct fixture fixture;
    struct heap_finding finding;

    printf("after free; and after 1 to 900 more generations of the same place\n");
    fixture_init(&fixture, SPACE_BYTES);
    for (uint64_t bytes = 24; bytes < 1u << 22; bytes *= 5) {
        (void)fixture_allocate(&fixture, bytes);
        uint64_t pointer = fixture_allocate(&fixture, bytes);
        (void)fixture_allocate(&fixture, bytes);
        fixture_free(&fixture, pointer);
        for (unsigned again = 0; again < 900; again++) {
            assert_false(fixture_access(&fixture, pointer + bytes - 1, 1));
            assert_int_equal(fixture_fault(&fixture, pointer + bytes - 1, 1, &finding),
                             HEAP_USE_AFTER_FREE);
            assert_true(finding.has_object);
            assert_false(finding.object.live);
            assert_int_equal(finding.object.gva, memory_pointer_gva(pointer));
            assert_int_equal(finding.object.bytes, bytes);
            assert_int_equal(finding.object.allocated_by, 1);
            assert_int_equal(finding.object.freed_by, 2);
            uint64_t other = fixture_allocate(&fixture, bytes - again % 3);
            assert_int_equal(memory_pointer_gva(other), memory_pointer_gva(pointer));
            assert_int_equal(fixture_fault(&fixture, pointer + 8, 8, &finding),
                             HEAP_USE_AFTER_FREE);
            assert_int_equal(finding.memory_identifier, memory_pointer_identifier(other));
            fixture_free(&fixture, other);
        }
    }
    fixture_fini(&fixture);
}

static void lost_history_is_admitted(void **state)
{
    (void)state;
    struct fixture fixture;
    struct heap_finding finding;

    printf("after more generations than are remembered: the kind is known, the object is not\n");
    fixture_init(&fixture, SPACE_BYTES);
    uint64_t pointer = fixture_allocate(&fixture, 64);
    for (unsigned i = 0; i < 3000; i++) {
        uint64_t other = fixture_allocate(&fixture, 32);
        fixture_free(&fixture, other);
    }
    fixture_free(&fixture, pointer);
    for (unsigned i = 0; i < 3000; i++)
        fixture_free(&fixture, fixture_allocate(&fixture, 64 - i % 2));
    uint64_t other = fixture_allocate(&fixture, 64);
    assert_int_equal(memory_pointer_gva(other), memory_pointer_gva(pointer));
    assert_int_equal(fixture_fault(&fixture, pointer, 8, &finding), HEAP_USE_AFTER_FREE);
    assert_false(finding.has_object);
    assert_int_equal(finding.memory.gva, memory_pointer_gva(other));
    assert_int_equal(heap_free(fixture.thread, pointer, HEAP_MALLOC, 0, &finding), -EINVAL);
    assert_int_equal(finding.fault, HEAP_DOUBLE_FREE);
    fixture_fini(&fixture);
}

static void loops_do_not_wear_history_out(void **state)
{
    (void)state;
    struct fixture fixture;
    struct heap_finding finding;

    printf("after 20000 generations that are alike: what was before them, and one of them\n");
    fixture_init(&fixture, SPACE_BYTES);
    uint64_t first = fixture_allocate(&fixture, 60), middle = 0;
    fixture_free(&fixture, first);
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t other = fixture_allocate(&fixture, 64);
        middle = i == 7000 ? other : middle;
        fixture_free(&fixture, other);
    }
    assert_int_equal(fixture_fault(&fixture, first, 8, &finding), HEAP_USE_AFTER_FREE);
    assert_true(finding.has_object);
    assert_int_equal(finding.object.bytes, 60);
    assert_int_equal(fixture_fault(&fixture, middle, 8, &finding), HEAP_USE_AFTER_FREE);
    assert_true(finding.has_object);
    assert_int_equal(finding.object.bytes, 64);
    assert_int_equal(finding.object.identifier, memory_pointer_identifier(middle));
    fixture_fini(&fixture);
}

static void use_after_realloc_is_told(void **state)
{
    (void)state;
    struct fixture fixture;
    struct heap_finding finding;

    printf("after realloc, whether the object moved or not, and whether it was freed since\n");
    fixture_init(&fixture, SPACE_BYTES);
    for (uint64_t bytes = 20; bytes < 10000000; bytes *= 4) {
        static const unsigned factors[] = {1, 2};
        for (unsigned i = 0; i < BASE_COUNT_OF(factors); i++) {
            struct heap_request request = {.bytes = bytes * factors[i] - 1, .who = 5};
            uint64_t pointer = fixture_allocate(&fixture, bytes), next;
            assert_int_equal(heap_reallocate(fixture.thread, pointer, &request, &next, &finding),
                             0);
            assert_int_equal(memory_pointer_gva(next) == memory_pointer_gva(pointer),
                             factors[i] == 1);
            for (unsigned freed = 0; freed < 2; freed++) {
                assert_int_equal(fixture_fault(&fixture, pointer + 5, 1, &finding),
                                 HEAP_USE_AFTER_REALLOC);
                assert_int_equal(finding.object.bytes, bytes);
                assert_int_equal(finding.object.freed_by, 5);
                if (!freed)
                    fixture_free(&fixture, next);
            }
            assert_int_equal(heap_free(fixture.thread, pointer, HEAP_MALLOC, 0, &finding), -EINVAL);
            assert_int_equal(finding.fault, HEAP_DOUBLE_FREE);
            assert_true(finding.object.reallocated);
        }
    }
    fixture_fini(&fixture);
}

static enum heap_fault free_fault(struct fixture *fixture, uint64_t pointer,
                                  enum heap_family family, struct heap_finding *finding)
{
    struct heap_stats before, after;
    heap_get_stats(fixture->heap, &before);
    assert_int_equal(heap_free(fixture->thread, pointer, family, 9, NULL), -EINVAL);
    assert_int_equal(heap_free(fixture->thread, pointer, family, 9, finding), -EINVAL);
    heap_get_stats(fixture->heap, &after);
    assert_memory_equal(&before, &after, sizeof(before));
    return finding->fault;
}

static void wrong_frees_are_told(void **state)
{
    (void)state;
    struct fixture fixture;
    struct heap_finding finding;
    static const uint64_t sizes[] = {0, 5, 16, 100, 5000, 70000, 1 << 20};

    printf("double, interior, mismatched, invalid frees; and after each all is as before\n");
    fixture_init(&fixture, SPACE_BYTES);
    for (unsigned i = 0; i < BASE_COUNT_OF(sizes); i++) {
        struct heap_request request = {.bytes = sizes[i], .family = HEAP_NEW, .who = 4};
        uint64_t pointer;
        assert_int_equal(heap_allocate(fixture.thread, &request, &pointer), 0);
        assert_int_equal(free_fault(&fixture, pointer, HEAP_MALLOC, &finding),
                         HEAP_MISMATCHED_FREE);
        assert_int_equal(finding.object.family, HEAP_NEW);
        assert_int_equal(free_fault(&fixture, pointer, HEAP_NEW_ARRAY, &finding),
                         HEAP_MISMATCHED_FREE);
        assert_int_equal(free_fault(&fixture, pointer + 4, HEAP_NEW, &finding), HEAP_INTERIOR_FREE);
        assert_int_equal(finding.offset, 4);
        assert_int_equal(free_fault(&fixture, pointer + sizes[i] + 3, HEAP_NEW, &finding),
                         HEAP_INTERIOR_FREE);
        assert_int_equal(free_fault(&fixture, pointer - 16, HEAP_NEW, &finding),
                         HEAP_INTERIOR_FREE);
        assert_int_equal(free_fault(&fixture, memory_pointer_gva(pointer), HEAP_NEW, &finding),
                         HEAP_INVALID_FREE);
        assert_int_equal(free_fault(&fixture, 0x7fff0000, HEAP_NEW, &finding), HEAP_INVALID_FREE);
        assert_false(finding.has_object);
        assert_int_equal(heap_free(fixture.thread, pointer, HEAP_NEW, 6, &finding), 0);
        assert_int_equal(free_fault(&fixture, pointer, HEAP_NEW, &finding), HEAP_DOUBLE_FREE);
        assert_int_equal(finding.object.freed_by, 6);
        assert_int_equal(free_fault(&fixture, pointer, HEAP_MALLOC, &finding), HEAP_DOUBLE_FREE);
        assert_int_equal(free_fault(&fixture, pointer + 4, HEAP_NEW, &finding), HEAP_INVALID_FREE);
        assert_int_equal(heap_allocate(fixture.thread, &request, &request.alignment), 0);
        assert_int_equal(free_fault(&fixture, pointer, HEAP_NEW, &finding), HEAP_DOUBLE_FREE);
    }
    assert_int_equal(heap_free(fixture.thread, 0, HEAP_MALLOC, 0, &finding), 0);
    fixture_fini(&fixture);
}

static void named_pairs_are_told_apart(void **state)
{
    (void)state;
    struct fixture fixture;
    struct heap_finding finding;

    printf("objects of each pair that the command line may name, freed by each other one\n");
    fixture_init(&fixture, SPACE_BYTES);
    for (unsigned i = HEAP_MALLOC; i <= HEAP_NAMED_LAST; i++) {
        struct heap_request request = {
            .bytes = 32768, .family = (enum heap_family)i, .who = HEAP_WHO_MAX};
        uint64_t pointer;
        assert_int_equal(heap_allocate(fixture.thread, &request, &pointer), 0);
        for (unsigned j = HEAP_MALLOC; j <= HEAP_NAMED_LAST; j++) {
            if (j == i)
                continue;
            assert_int_equal(free_fault(&fixture, pointer, (enum heap_family)j, &finding),
                             HEAP_MISMATCHED_FREE);
            assert_int_equal(finding.object.family, i);
            assert_int_equal(finding.object.bytes, 32768);
            assert_int_equal(finding.object.allocated_by, HEAP_WHO_MAX);
        }
        for (unsigned more = 0; more < 2; more++) {  // in its place, then elsewhere
            struct heap_request any = {.bytes = 32767 + 2 * more, .family = HEAP_ANY, .who = 1};
            assert_int_equal(heap_reallocate(fixture.thread, pointer, &any, &pointer, NULL), 0);
            assert_true(heap_find(fixture.heap, memory_pointer_gva(pointer), &finding.object));
            assert_int_equal(finding.object.family, i);
            assert_int_equal(finding.object.allocated_by, 1);
        }
        assert_int_equal(heap_free(fixture.thread, pointer, request.family, 1, NULL), 0);
    }
    fixture_fini(&fixture);
}

static void other_memory_is_let_alone(void **state)
{
    (void)state;
    struct fixture fixture;
    struct heap_finding finding;

    printf("memory that is no object: for pointers without identifier only\n");
    fixture_init(&fixture, SPACE_BYTES);
    uint64_t pointer = fixture_allocate(&fixture, 32);
    assert_true(fixture_access(&fixture, 0x10000, 8));
    assert_true(heap_allows(fixture.heap, 0x10008, 1 << 20));
    assert_true(heap_allows(fixture.heap, SPACE_GVA - 8, 8));
    assert_false(heap_allows(fixture.heap, SPACE_GVA - 8, 9));
    assert_true(heap_allows(fixture.heap, SPACE_GVA + SPACE_BYTES, 8));
    assert_true(heap_allows(fixture.heap, FLAT_BYTES - 8, 8));
    assert_false(heap_allows(fixture.heap, FLAT_BYTES - 8, 9));
    assert_false(fixture_access(&fixture, memory_pointer_gva(pointer), 8));
    assert_int_equal(fixture_fault(&fixture, memory_pointer_gva(pointer), 8, &finding), HEAP_WILD);
    assert_true(finding.has_memory);
    assert_false(finding.has_object);
    uint64_t astray = memory_pointer_make(0x10000, memory_pointer_identifier(pointer));
    assert_false(fixture_access(&fixture, astray, 8));
    assert_int_equal(fixture_fault(&fixture, astray, 8, &finding), HEAP_UNDERFLOW);
    assert_int_equal(finding.object.gva, memory_pointer_gva(pointer));
    assert_int_equal(fixture_fault(&fixture, memory_pointer_make(0x10000, 0x4242), 8, &finding),
                     HEAP_WILD);
    fixture_fini(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(overflow_is_told_at_any_distance),
        cmocka_unit_test(ends_are_told),
        cmocka_unit_test(use_after_free_is_told),
        cmocka_unit_test(lost_history_is_admitted),
        cmocka_unit_test(loops_do_not_wear_history_out),
        cmocka_unit_test(use_after_realloc_is_told),
        cmocka_unit_test(wrong_frees_are_told),
        cmocka_unit_test(named_pairs_are_told_apart),
        cmocka_unit_test(other_memory_is_let_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
