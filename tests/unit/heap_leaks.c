// SPDX-License-Identifier: BSD-2-Clause
// Leaks: objects that nothing points to, only what is lost points to, or nothing points to the
// start of.
#include "heap_fixture.h"

#define SPACE_BYTES (1ull << 30)
#define LOST_MAX 64u

struct lost {
    unsigned count;
    uint64_t gva[LOST_MAX];
    enum heap_leak leak[LOST_MAX];
};

static int read_memory(void *opaque, uint64_t gva, void *to, uint64_t bytes)
{
    struct fixture *fixture = opaque;
    if (gva >> 28 == 0xf)
        return -EFAULT;  // memory that is gone
    memcpy(to, fixture->hva + gva, bytes);
    return 0;
}

static void note(void *opaque, const struct heap_object *object, enum heap_leak leak)
{
    struct lost *lost = opaque;
    assert_true(lost->count < LOST_MAX);
    lost->gva[lost->count] = object->gva;
    lost->leak[lost->count++] = leak;
}

// -1: it is not lost.
static int leak_of(const struct lost *lost, uint64_t pointer)
{
    for (unsigned i = 0; i < lost->count; i++)
        if (lost->gva[i] == memory_pointer_gva(pointer))
            return (int)lost->leak[i];
    return -1;
}

static void store(struct fixture *fixture, uint64_t object, unsigned index, uint64_t word)
{
    memcpy(fixture_at(fixture, object) + index * sizeof(word), &word, sizeof(word));
}

static void scan(struct fixture *fixture, const uint64_t *roots, unsigned count, struct lost *lost)
{
    struct heap_scan *scan;

    *lost = (struct lost){0};
    assert_int_equal(heap_scan_create(fixture->heap, read_memory, fixture, &scan), 0);
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(heap_scan_word(scan, roots[i]), 0);
    assert_int_equal(heap_scan_memory(scan, 0xf0000000, 1 << 20), 0);
    assert_int_equal(heap_scan_leaks(scan, note, lost), 0);
    heap_scan_destroy(scan);
}

static void kinds_are_told(void **state)
{
    (void)state;
    struct fixture fixture;
    struct lost lost;
    uint64_t object[12];

    printf("chains, cycles, interior pointers, pointers of old, bare addresses\n");
    fixture_init(&fixture, SPACE_BYTES);
    for (unsigned i = 0; i < BASE_COUNT_OF(object); i++) {
        struct heap_request request = {.bytes = i == 5 ? 400000 : 64, .zero = true};
        assert_int_equal(heap_allocate(fixture.thread, &request, &object[i]), 0);
    }
    // Roots: 0 → 1 → 5 (far inside it) → 2. 3 → 4, nobody → 3. 6 → 7 → 6. 8 by its middle, → 9.
    store(&fixture, object[0], 3, object[1]);
    store(&fixture, object[1], 0, object[5]);
    store(&fixture, object[5], 49999, object[2]);
    store(&fixture, object[3], 7, object[4]);
    store(&fixture, object[6], 0, object[7]);
    store(&fixture, object[7], 0, object[6]);
    store(&fixture, object[8], 1, object[9]);
    store(&fixture, object[0], 4, object[8] + 24);
    store(&fixture, object[0], 5, memory_pointer_gva(object[10]));
    store(&fixture, object[0], 6, memory_pointer_make(memory_pointer_gva(object[11]), 0x7777));
    scan(&fixture, &object[0], 1, &lost);
    static const int expected[] = {-1,
                                   -1,
                                   -1,
                                   HEAP_LEAK_DEFINITE,
                                   HEAP_LEAK_INDIRECT,
                                   -1,
                                   HEAP_LEAK_DEFINITE,
                                   HEAP_LEAK_INDIRECT,
                                   HEAP_LEAK_POSSIBLE,
                                   HEAP_LEAK_POSSIBLE,
                                   HEAP_LEAK_POSSIBLE,
                                   HEAP_LEAK_DEFINITE};
    for (unsigned i = 0; i < BASE_COUNT_OF(object); i++)
        assert_int_equal(leak_of(&lost, object[i]), expected[i]);
    // A start seen after the middle, and what lost objects are lost of.
    uint64_t roots[] = {object[8] + 8, object[8], object[0]};
    scan(&fixture, roots, 3, &lost);
    assert_int_equal(leak_of(&lost, object[8]), -1);
    assert_int_equal(leak_of(&lost, object[9]), -1);
    store(&fixture, object[11], 0, object[3]);
    scan(&fixture, NULL, 0, &lost);
    assert_int_equal(leak_of(&lost, object[3]), HEAP_LEAK_INDIRECT);
    assert_int_equal(lost.count, BASE_COUNT_OF(object));
    fixture_fini(&fixture);
}

static void memory_is_a_root(void **state)
{
    (void)state;
    struct fixture fixture;
    struct heap_scan *scan;
    struct lost lost = {0};

    printf("a root's memory, at odd addresses: whole words in it count\n");
    fixture_init(&fixture, SPACE_BYTES);
    uint64_t globals = 0x100000, object = fixture_allocate(&fixture, 3);
    assert_int_equal(mprotect(fixture.hva + globals, 8192, PROT_READ | PROT_WRITE), 0);
    memcpy(fixture.hva + globals + 4096, &object, sizeof(object));
    static const struct {
        uint64_t start, end;
        bool found;
    } cases[] = {{0, 8192, true},     {4096, 4104, true}, {4097, 8192, false},
                 {4089, 4104, true},  {1, 4103, false},   {4099, 4101, false},
                 {4096, 4096, false}, {1, 8191, true},    {4095, 4096, false}};
    for (unsigned i = 0; i < BASE_COUNT_OF(cases); i++) {
        lost.count = 0;
        assert_int_equal(heap_scan_create(fixture.heap, read_memory, &fixture, &scan), 0);
        assert_int_equal(
            heap_scan_memory(scan, globals + cases[i].start, cases[i].end - cases[i].start), 0);
        assert_int_equal(heap_scan_leaks(scan, note, &lost), 0);
        heap_scan_destroy(scan);
        assert_int_equal(lost.count, !cases[i].found);
    }
    fixture_fini(&fixture);
}

static void long_chains_are_followed(void **state)
{
    (void)state;
    struct fixture fixture;
    struct lost lost;
    uint64_t first, object, next;

    printf("a list of 300,000 objects, held by its first\n");
    fixture_init(&fixture, SPACE_BYTES);
    first = object = fixture_allocate(&fixture, 24);
    for (unsigned i = 0; i < 300000; i++, object = next) {
        next = fixture_allocate(&fixture, 24);
        store(&fixture, object, 0, next);
    }
    scan(&fixture, &first, 1, &lost);
    assert_int_equal(lost.count, 0);
    fixture_fini(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kinds_are_told),
        cmocka_unit_test(memory_is_a_root),
        cmocka_unit_test(long_chains_are_followed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
