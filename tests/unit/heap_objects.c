// SPDX-License-Identifier: BSD-2-Clause
// Objects of the heap: sizes, alignments, exact ends, generations, reallocation, retirement, fork.
#include <sys/wait.h>
#include <unistd.h>

#include "heap_fixture.h"

#define SPACE_BYTES (4ull << 30)

static void assert_exact(struct fixture *fixture, uint64_t pointer, uint64_t bytes)
{
    // All widths at the start, around the end, and of the whole.
    assert_true(heap_allows(fixture->heap, pointer, bytes));
    assert_false(heap_allows(fixture->heap, pointer, bytes + 1));
    assert_false(fixture_access(fixture, pointer - 1, 1));
    for (uint64_t width = 1; width <= 8; width *= 2) {
        uint64_t first = bytes > 32 ? bytes - 32 : 0;
        for (uint64_t at = first; at < bytes + 32; at++)
            assert_int_equal(fixture_access(fixture, pointer + at, width), at + width <= bytes);
    }
    assert_int_equal(heap_usable_bytes(fixture->heap, pointer), bytes);
}

static void ends_are_exact(void **state)
{
    (void)state;
    struct fixture fixture;

    printf("objects of 0 to 2048 bytes, and about each doubling up to 1 GiB: exact to the byte\n");
    fixture_init(&fixture, SPACE_BYTES);
    for (uint64_t bytes = 0; bytes <= 2048; bytes++)
        assert_exact(&fixture, fixture_allocate(&fixture, bytes), bytes);
    for (uint64_t bytes = 4096; bytes <= 1u << 30; bytes *= 2) {
        for (uint64_t odd = bytes - 17; odd <= bytes + 17; odd += 17) {
            uint64_t pointer = fixture_allocate(&fixture, odd);
            assert_exact(&fixture, pointer, odd);
            assert_true(fixture_access(&fixture, pointer + odd / 2, 8));
            fixture_free(&fixture, pointer);
            assert_false(fixture_access(&fixture, pointer + odd / 2, 8));
        }
    }
    fixture_fini(&fixture);
}

static void ends_in_a_granule_are_compared_inline(void **state)
{
    (void)state;
    struct fixture fixture;

    printf("all accesses of up to 8 bytes within an object, at its end also, pass without a call; "
           "whatever stands behind the object, the heap's answer is exact\n");
    fixture_init(&fixture, SPACE_BYTES);
    for (uint64_t bytes = 1; bytes < 70000; bytes += bytes < 100 ? 1 : 997) {
        uint64_t pointer = fixture_allocate(&fixture, bytes);
        for (uint64_t width = 1; width <= 8; width *= 2)
            for (uint64_t at = 0; at + width <= bytes; at += width)
                assert_true(fixture_compares(&fixture, pointer + at, width));
        assert_false(fixture_compares(&fixture, pointer + bytes, 1));
        if (bytes % MEMORY_GRANULE_BYTES)
            *fixture_at(&fixture, (pointer + bytes) | 15) = (uint8_t)(bytes % 5 ? 0xff : 0);
        assert_true(heap_allows(fixture.heap, pointer + bytes - 1, 1));
        assert_false(heap_allows(fixture.heap, pointer + bytes, 1));
        fixture_free(&fixture, pointer);
        assert_false(fixture_compares(&fixture, pointer + bytes - 1, 1));
    }
    fixture_fini(&fixture);
}

static void pages_that_cannot_be_written_are_survived(void **state)
{
    (void)state;
    struct fixture fixture;

    printf("objects in a page that the program has made read-only: their ends are asked about\n");
    fixture_init(&fixture, SPACE_BYTES);
    uint64_t first = fixture_allocate(&fixture, 40);
    assert_int_equal(mprotect(fixture_at(&fixture, first), HEAP_CHUNK_BYTES, PROT_READ), 0);
    for (unsigned i = 0; i < 1000; i++) {
        uint64_t pointer = fixture_allocate(&fixture, 40);
        assert_true(fixture_compares(&fixture, pointer + 24, 8));
        assert_false(fixture_compares(&fixture, pointer + 32, 8));
        assert_exact(&fixture, pointer, 40);
    }
    fixture_fini(&fixture);
}

static void alignments_hold(void **state)
{
    (void)state;
    struct fixture fixture;

    printf("alignments up to 512 MiB, of small and large objects\n");
    fixture_init(&fixture, SPACE_BYTES);
    for (uint64_t alignment = 1; alignment <= 512u << 20; alignment *= 2) {
        for (uint64_t bytes = 1; bytes <= 100000; bytes = bytes * 3 + 1) {
            struct heap_request request = {.bytes = bytes, .alignment = alignment};
            uint64_t pointer;
            assert_int_equal(heap_allocate(fixture.thread, &request, &pointer), 0);
            assert_int_equal(memory_pointer_gva(pointer) % alignment, 0);
            assert_int_equal(memory_pointer_gva(pointer) % 16, 0);
            assert_exact(&fixture, pointer, bytes);
            memset(fixture_at(&fixture, pointer), 1, bytes);
            fixture_free(&fixture, pointer);
        }
    }
    fixture_fini(&fixture);
}

static void neighbours_differ(void **state)
{
    (void)state;
    struct fixture fixture;
    static uint64_t pointers[5000];

    printf("objects side by side, of changing generations: no neighbours share an identifier\n");
    fixture_init(&fixture, SPACE_BYTES);
    for (unsigned i = 0; i < BASE_COUNT_OF(pointers); i++) {
        pointers[i] = fixture_allocate(&fixture, 16);
        for (unsigned again = i % 7; again > 0; again--) {
            fixture_free(&fixture, pointers[i]);
            uint64_t next = fixture_allocate(&fixture, 16);
            assert_int_equal(memory_pointer_gva(next), memory_pointer_gva(pointers[i]));
            assert_int_equal(memory_pointer_identifier(next),
                             memory_identifier_next(memory_pointer_identifier(pointers[i])));
            assert_false(fixture_access(&fixture, pointers[i], 1));
            pointers[i] = next;
        }
    }
    for (unsigned i = 1; i < BASE_COUNT_OF(pointers); i++)
        assert_int_not_equal(memory_pointer_identifier(pointers[i - 1]),
                             memory_pointer_identifier(pointers[i]));
    // Young as they are, not even those that are not neighbours do, within a span.
    for (unsigned i = 0; i < 1000; i++)
        for (unsigned j = i + 1; j < 1000; j++)
            assert_int_not_equal(memory_pointer_identifier(pointers[i]),
                                 memory_pointer_identifier(pointers[j]));
    fixture_fini(&fixture);
}

static void places_near_each_other_take_long_to_meet(void **state)
{
    (void)state;
    struct fixture fixture;
    static uint16_t first[HEAP_CHUNK_BYTES / 16];

    printf("the first identifiers of a span's places: what those k apart need to meet is at least "
           "%u/(2k) generations\n",
           MEMORY_GENERATIONS);
    fixture_init(&fixture, SPACE_BYTES);
    for (unsigned i = 0; i < BASE_COUNT_OF(first); i++)
        first[i] = memory_pointer_identifier(fixture_allocate(&fixture, 16));
    for (unsigned k = 2; k < BASE_COUNT_OF(first); k += 2) {
        for (unsigned i = 0; i + k < BASE_COUNT_OF(first); i += 101) {
            uint32_t there = memory_identifier_steps(first[i], first[i + k]);
            uint32_t back = memory_identifier_steps(first[i + k], first[i]);
            assert_true((there < back ? there : back) >= MEMORY_GENERATIONS / (2 * k));
            assert_int_not_equal(there, 0);
        }
    }
    fixture_fini(&fixture);
}

static void cleared_memory_is_zero(void **state)
{
    (void)state;
    struct fixture fixture;

    printf("calloc after use, small and large; and when it cannot be zeroed\n");
    fixture_init(&fixture, SPACE_BYTES);
    for (uint64_t bytes = 1; bytes < 1u << 21; bytes = bytes * 2 + 1) {
        struct heap_request request = {.bytes = bytes, .zero = true};
        uint64_t pointer = fixture_allocate(&fixture, bytes), again;
        memset(fixture_at(&fixture, pointer), 0xa5, bytes);
        fixture_free(&fixture, pointer);
        assert_int_equal(heap_allocate(fixture.thread, &request, &again), 0);
        for (uint64_t i = 0; i < bytes; i++)
            assert_int_equal(fixture_at(&fixture, again)[i], 0);
        fixture_free(&fixture, again);
        fixture.zero_fails = true;
        assert_int_equal(heap_allocate(fixture.thread, &request, &again), -EFAULT);
        fixture.zero_fails = false;
    }
    struct heap_stats stats;
    heap_get_stats(fixture.heap, &stats);
    assert_int_equal(stats.live_objects, 0);
    assert_int_equal(stats.live_bytes, 0);
    fixture_fini(&fixture);
}

static uint64_t reallocate(struct fixture *fixture, uint64_t pointer, uint64_t bytes)
{
    struct heap_request request = {.bytes = bytes, .who = 3};
    uint64_t out = 0;
    assert_int_equal(heap_reallocate(fixture->thread, pointer, &request, &out, NULL), 0);
    return out;
}

static void reallocation_keeps_contents(void **state)
{
    (void)state;
    struct fixture fixture;

    printf("a string grows byte by byte, then leaps, then shrinks; each time it is a new object\n");
    fixture_init(&fixture, SPACE_BYTES);
    uint64_t pointer = reallocate(&fixture, 0, 0), bytes = 0;
    while (bytes < 3u << 20) {
        uint64_t more = bytes < 3000 ? bytes + 1 : bytes + bytes / 50;
        uint64_t next = reallocate(&fixture, pointer, more);
        assert_int_not_equal(next, pointer);
        assert_false(fixture_access(&fixture, pointer, 1));
        assert_exact(&fixture, next, more);
        for (uint64_t i = 0; i < bytes; i += bytes < 3000 ? 1 : 997)
            assert_int_equal(fixture_at(&fixture, next)[i], (uint8_t)(i * 7));
        for (uint64_t i = bytes; i < more; i++)
            fixture_at(&fixture, next)[i] = (uint8_t)(i * 7);
        pointer = next;
        bytes = more;
    }
    for (; bytes > 0; bytes /= 3) {
        uint64_t next = reallocate(&fixture, pointer, bytes);
        assert_exact(&fixture, next, bytes);
        for (uint64_t i = 0; i < bytes; i++)
            assert_int_equal(fixture_at(&fixture, next)[i], (uint8_t)(i * 7));
        pointer = next;
    }
    fixture_fini(&fixture);
}

static void failed_reallocation_changes_nothing(void **state)
{
    (void)state;
    struct fixture fixture;
    struct heap_request request = {.bytes = 5000};
    struct heap_finding finding;
    uint64_t out = 77;

    printf("reallocation without memory, without access, of another family\n");
    fixture_init(&fixture, SPACE_BYTES);
    uint64_t pointer = fixture_allocate(&fixture, 100);
    fixture.map_fails = true;
    assert_int_equal(heap_reallocate(fixture.thread, pointer, &request, &out, &finding), -ENOMEM);
    fixture.map_fails = false;
    fixture.copy_fails = true;
    assert_int_equal(heap_reallocate(fixture.thread, pointer, &request, &out, &finding), -EFAULT);
    fixture.copy_fails = false;
    request.family = HEAP_NEW;
    assert_int_equal(heap_reallocate(fixture.thread, pointer, &request, &out, &finding), -EINVAL);
    assert_int_equal(finding.fault, HEAP_MISMATCHED_FREE);
    assert_exact(&fixture, pointer, 100);
    struct heap_stats stats;
    heap_get_stats(fixture.heap, &stats);
    assert_int_equal(stats.live_objects, 1);
    assert_int_equal(stats.live_bytes, 100);
    fixture_fini(&fixture);
}

// One long-lived object beside a loop of malloc and free.
// Refused: to plain pointers, and to those with whatever identifier.
static void check_nobodys(struct fixture *fixture, uint64_t gva)
{
    for (unsigned identifier = 0; identifier < 3; identifier++)
        assert_false(fixture_access(fixture, memory_pointer_make(gva, (uint16_t)identifier), 8));
}

static void a_heap_is_mapped_by_steps(void **state)
{
    enum { STEP_OBJECTS = HEAP_MEMORY_STEP_BYTES / 1024, LARGE_BYTES = 1 << 19 };
    struct fixture fixture;
    uint64_t last = 0;

    (void)state;
    fixture_init(&fixture, 1ull << 30);
    for (unsigned i = 0; i < STEP_OBJECTS; i++)
        last = fixture_allocate(&fixture, 1024);
    int before = fixture.maps;
    for (unsigned step = 1; step <= 4; step++) {
        for (unsigned i = 0; i < STEP_OBJECTS; i++) {
            last = fixture_allocate(&fixture, 1024);
            assert_true(fixture_access(&fixture, last, 1024));
        }
        assert_in_range(fixture.maps - before, 1, step + 1);
    }
    for (before = fixture.maps; fixture.maps == before;)
        last = fixture_allocate(&fixture, 1024);
    check_nobodys(&fixture, memory_pointer_gva(last) + HEAP_MEMORY_STEP_BYTES / 2);
    // Large objects have their entries later, wherever they come to lie.
    uint64_t large = fixture_allocate(&fixture, LARGE_BYTES);
    for (uint64_t at = 0; at < LARGE_BYTES; at += 4096) {
        assert_true(fixture_access(&fixture, large + at, 8));
        assert_true(fixture_compares(&fixture, large + at, 8));
    }
    assert_false(fixture_access(&fixture, large + LARGE_BYTES, 1));
    for (unsigned i = 0; i < STEP_OBJECTS; i++) {
        last = fixture_allocate(&fixture, 1024);
        memset(fixture_at(&fixture, last), 1, 1024);
        assert_true(fixture_access(&fixture, last, 1024));
    }
    printf("a heap of 7 MiB is mapped by %d calls, what is not used yet is nobody's\n",
           fixture.maps);
    fixture_fini(&fixture);
}

static void used_up_slots_are_retired(void **state)
{
    (void)state;
    struct fixture fixture;
    struct heap_stats stats;

    printf("malloc and free, 10 million times: no identifier comes twice to a place while its span "
           "lives, and memory stays bounded\n");
    fixture_init(&fixture, SPACE_BYTES);
    uint64_t lasting = fixture_allocate(&fixture, 1024);
    uint64_t first = fixture_allocate(&fixture, 1024), pointer = first;
    for (unsigned i = 1; i < MEMORY_GENERATIONS; i++) {
        fixture_free(&fixture, pointer);
        pointer = fixture_allocate(&fixture, 1024);
        assert_int_equal(memory_pointer_gva(pointer), memory_pointer_gva(first));
        assert_int_not_equal(pointer, first);
    }
    fixture_free(&fixture, pointer);
    heap_get_stats(fixture.heap, &stats);
    assert_int_equal(stats.retired_slots, 1);
    unsigned loops = sanitized() ? 1000000 : 10000000;
    for (unsigned i = 0; i < loops; i++) {
        pointer = fixture_allocate(&fixture, 1024);
        assert_int_not_equal(memory_pointer_gva(pointer), memory_pointer_gva(first));
        fixture_free(&fixture, pointer);
    }
    assert_false(fixture_access(&fixture, first, 1));
    assert_true(fixture_access(&fixture, lasting, 8));
    heap_get_stats(fixture.heap, &stats);
    printf("%d spans given back, %llu retired slots, %llu KiB held\n", fixture.unmaps,
           (unsigned long long)stats.retired_slots, (unsigned long long)stats.held_bytes >> 10);
    assert_true(stats.held_bytes <= 4 * HEAP_CHUNK_BYTES);
    assert_true(sanitized() || fixture.unmaps > 0);
    fixture_fini(&fixture);
}

static void addresses_go_round(void **state)
{
    (void)state;
    struct fixture fixture;
    struct heap_stats stats;

    printf("a small space, churned with large objects: addresses come again only after all others, "
           "and then with other identifiers\n");
    fixture_init(&fixture, 256ull << 20);
    uint64_t lasting = fixture_allocate(&fixture, 200000);
    uint64_t first = fixture_allocate(&fixture, 30u << 20);
    fixture_free(&fixture, first);
    unsigned same = 0;
    for (unsigned i = 0; i < 200; i++) {
        uint64_t pointer = fixture_allocate(&fixture, (30u << 20) + (i % 4 << 23));
        heap_get_stats(fixture.heap, &stats);
        assert_false(fixture_access(&fixture, first, 1));
        same += memory_pointer_gva(pointer) == memory_pointer_gva(first);
        fixture_free(&fixture, pointer);
    }
    assert_true(stats.rounds > 5);
    assert_true(fixture_access(&fixture, lasting + 100000, 8));
    printf("%llu rounds, %u times at the first one's address\n", (unsigned long long)stats.rounds,
           same);
    fixture_fini(&fixture);
}

static void a_full_space_says_so(void **state)
{
    (void)state;
    struct fixture fixture;
    struct heap_request request = {.bytes = 1000};
    uint64_t pointer;
    unsigned count = 0;

    printf("a space of 1 MiB is filled, emptied and filled again\n");
    fixture_init(&fixture, 1u << 20);
    for (unsigned round = 0; round < 3; round++) {
        static uint64_t pointers[2000];
        unsigned filled = 0;
        while (heap_allocate(fixture.thread, &request, &pointer) == 0)
            pointers[filled++] = pointer;
        assert_true(round == 0 || filled == count);
        assert_true(filled > 900 && filled <= 1048);
        count = filled;
        for (unsigned i = 0; i < filled; i++)
            fixture_free(&fixture, pointers[i]);
    }
    fixture_fini(&fixture);
}

static void threads_come_and_go(void **state)
{
    (void)state;
    struct fixture fixture;
    struct heap_request request = {.bytes = 48};

    printf("what an ended thread had cached serves the next, and its history is known\n");
    fixture_init(&fixture, SPACE_BYTES);
    for (unsigned i = 0; i < 1000; i++) {
        struct heap_thread *thread;
        uint64_t pointer;
        assert_int_equal(heap_thread_create(fixture.heap, &thread), 0);
        assert_int_equal(heap_allocate(thread, &request, &pointer), 0);
        assert_int_equal(heap_free(thread, pointer, HEAP_MALLOC, 0, NULL), 0);
        heap_thread_destroy(thread);
    }
    struct heap_stats stats;
    heap_get_stats(fixture.heap, &stats);
    assert_int_equal(stats.held_bytes, HEAP_CHUNK_BYTES);
    assert_int_equal(stats.live_objects, 0);
    fixture_fini(&fixture);
}

static void child_of_fork(struct fixture *fixture, uint64_t pointer)
{
    heap_fork_end(fixture->thread, true);
    bool fine = fixture_access(fixture, pointer, 8);
    fixture_free(fixture, pointer);
    fine = fine && !fixture_access(fixture, pointer, 8);
    for (unsigned i = 0; i < 10000; i++)
        fine = fine && fixture_access(fixture, fixture_allocate(fixture, i), i ? 1 : 0);
    _exit(fine ? 0 : 1);
}

static void a_forked_child_has_its_own(void **state)
{
    (void)state;
    struct fixture fixture;
    struct heap_thread *other;
    int status;

    printf("a child frees and allocates; the parent's objects stay\n");
    fixture_init(&fixture, SPACE_BYTES);
    assert_int_equal(heap_thread_create(fixture.heap, &other), 0);
    uint64_t pointer = fixture_allocate(&fixture, 64);
    fflush(stdout);
    heap_fork_begin(fixture.heap);
    pid_t child = fork();
    if (child == 0)
        child_of_fork(&fixture, pointer);
    heap_fork_end(fixture.thread, false);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_exact(&fixture, pointer, 64);
    fixture_fini(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ends_are_exact),
        cmocka_unit_test(ends_in_a_granule_are_compared_inline),
        cmocka_unit_test(pages_that_cannot_be_written_are_survived),
        cmocka_unit_test(alignments_hold),
        cmocka_unit_test(neighbours_differ),
        cmocka_unit_test(places_near_each_other_take_long_to_meet),
        cmocka_unit_test(cleared_memory_is_zero),
        cmocka_unit_test(reallocation_keeps_contents),
        cmocka_unit_test(failed_reallocation_changes_nothing),
        cmocka_unit_test(a_heap_is_mapped_by_steps),
        cmocka_unit_test(used_up_slots_are_retired),
        cmocka_unit_test(addresses_go_round),
        cmocka_unit_test(a_full_space_says_so),
        cmocka_unit_test(threads_come_and_go),
        cmocka_unit_test(a_forked_child_has_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
