// SPDX-License-Identifier: BSD-2-Clause
// Stacks that are kept: each once, found again, by many threads at a time.
#include <pthread.h>

#include "check/check.h"
#include "unit.h"

#define MANY 40000u
#define THREADS 4u

static size_t stack_make(uint64_t *places, unsigned seed)
{
    size_t count = 1 + seed % CHECK_STACK_MAX;

    for (size_t i = 0; i < count; i++)
        places[i] = seed * 2654435761ull + i;
    return count;
}

static void check_kept(const struct check_stacks *stacks, uint32_t number, unsigned seed)
{
    uint64_t expected[CHECK_STACK_MAX];
    size_t wanted = stack_make(expected, seed), count;
    const uint64_t *places = check_stacks_get(stacks, number, &count);

    assert_int_equal(count, wanted);
    assert_memory_equal(places, expected, count * sizeof(*places));
}

static void kept_once(void **state)
{
    uint32_t *numbers = test_calloc(MANY, sizeof(*numbers));
    struct check_stacks *stacks;
    uint64_t places[CHECK_STACK_MAX];

    (void)state;
    assert_int_equal(check_stacks_create(&stacks), 0);
    for (unsigned i = 0; i < MANY; i++) {
        numbers[i] = check_stacks_put(stacks, places, stack_make(places, i));
        assert_int_not_equal(numbers[i], 0);
    }
    for (unsigned i = 0; i < MANY; i++) {
        assert_int_equal(check_stacks_put(stacks, places, stack_make(places, i)), numbers[i]);
        check_kept(stacks, numbers[i], i);
    }
    check_stacks_destroy(stacks);
    test_free(numbers);
}

static void none_and_too_many(void **state)
{
    uint64_t places[CHECK_STACK_MAX + 8] = {2, 4, 6};
    struct check_stacks *stacks;
    size_t count;

    (void)state;
    assert_int_equal(check_stacks_create(&stacks), 0);
    assert_int_equal(check_stacks_put(stacks, places, 0), 0);
    assert_null(check_stacks_get(stacks, 0, &count));
    assert_int_equal(count, 0);
    uint32_t number = check_stacks_put(stacks, places, CHECK_STACK_MAX + 8);
    assert_non_null(check_stacks_get(stacks, number, &count));
    assert_int_equal(count, CHECK_STACK_MAX);
    // One that another begins with.
    uint32_t shorter = check_stacks_put(stacks, places, 3);
    assert_int_not_equal(shorter, number);
    check_stacks_destroy(stacks);
}

static void *put_all(void *opaque)
{
    struct check_stacks *stacks = opaque;
    uint64_t places[CHECK_STACK_MAX];

    for (unsigned i = 0; i < MANY / 4; i++) {
        size_t count = stack_make(places, i), got;
        uint32_t number = check_stacks_put(stacks, places, count);
        const uint64_t *kept = check_stacks_get(stacks, number, &got);
        if (number == 0 || got != count || memcmp(kept, places, count * sizeof(*kept)) != 0)
            return opaque;
    }
    return NULL;
}

static void many_threads(void **state)
{
    struct check_stacks *stacks;
    pthread_t threads[THREADS];
    void *failed;

    (void)state;
    assert_int_equal(check_stacks_create(&stacks), 0);
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, put_all, stacks), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
    check_stacks_destroy(stacks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kept_once),
        cmocka_unit_test(none_and_too_many),
        cmocka_unit_test(many_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
