// SPDX-License-Identifier: BSD-2-Clause
// Stacks that are kept: each once, found again, folded and cut as said, by many threads at a time.
#include <pthread.h>
#include <stdio.h>

#include "check/check.h"
#include "unit.h"

#define MANY 40000u
#define THREADS 4u

static struct check_stacks *create(void)
{
    struct check_stacks *stacks;

    assert_int_equal(check_stacks_create(&stacks), 0);
    return stacks;
}

// Outermost first, up to 20, not all of them known to be calls. No function is in one twice.
static size_t stack_make(uint64_t *places, uint64_t *callees, unsigned seed)
{
    size_t count = 1 + seed % 20;

    for (size_t i = 0; i < count; i++) {
        places[i] = 2 * (uint64_t)(seed >> (20 - i) % 24) + (i << 32) + 1;
        callees[i] = (seed + i) % 3 ? 1000 * (i + 1) : 0;
    }
    return count;
}

static uint32_t put(struct check_stacks *stacks, uint32_t number, const uint64_t *places,
                    const uint64_t *callees, size_t count)
{
    for (size_t i = 0; i < count; i++)
        number = check_stacks_add(stacks, number, places[i], callees ? callees[i] : 0);
    return number;
}

// Innermost first.
static bool is_kept(const struct check_stacks *stacks, uint32_t number, const uint64_t *places,
                    size_t count, uint64_t thread)
{
    uint64_t kept[CHECK_STACK_MAX], whose = 0;
    size_t got = check_stacks_get(stacks, number, kept, &whose);

    if (got != count || whose != thread)
        return false;
    for (size_t i = 0; i < count; i++)
        if (kept[i] != places[count - 1 - i])
            return false;
    return true;
}

static void kept_once(void **state)
{
    uint32_t *numbers = test_calloc(MANY, sizeof(*numbers));
    struct check_stacks *stacks = create();
    uint64_t places[20], callees[20];
    uint32_t begin = check_stacks_begin(stacks, 3);

    (void)state;
    for (unsigned i = 0; i < MANY; i++) {
        size_t count = stack_make(places, callees, i);
        numbers[i] = put(stacks, begin, places, callees, count);
        assert_int_not_equal(numbers[i], 0);
    }
    for (unsigned i = 0; i < MANY; i++) {
        size_t count = stack_make(places, callees, i);
        assert_int_equal(put(stacks, begin, places, callees, count), numbers[i]);
        assert_true(is_kept(stacks, numbers[i], places, count, 3));
        uint32_t found = begin;
        for (size_t at = 0; at < count; at++)
            found = check_stacks_find(stacks, found, places[at]);
        assert_int_equal(found, numbers[i]);
    }
    printf("%u stacks are kept once each, and found\n", MANY);
    check_stacks_destroy(stacks);
    test_free(numbers);
}

static void none(void **state)
{
    struct check_stacks *stacks = create();
    uint64_t places[CHECK_STACK_MAX], thread = 5;

    (void)state;
    printf("no stack has no calls, and no call is within it\n");
    assert_int_equal(check_stacks_get(stacks, 0, places, &thread), 0);
    assert_int_equal(thread, 5);
    assert_int_equal(check_stacks_add(stacks, 0, 2, 4), 0);
    uint32_t one = check_stacks_begin(stacks, 1), two = check_stacks_begin(stacks, 2);
    assert_int_equal(check_stacks_begin(stacks, 1), one);
    assert_int_equal(check_stacks_find(stacks, one, 10), 0);
    assert_true(is_kept(stacks, one, NULL, 0, 1));
    uint32_t ten = check_stacks_add(stacks, one, 10, 0);
    assert_int_not_equal(check_stacks_add(stacks, two, 10, 0), ten);
    check_stacks_destroy(stacks);
}

// main (10) calls f (20); f calls g at 21 and 22, itself at 23; g calls f at 31.
static void folded(void **state)
{
    static const struct {
        size_t count, kept_count;
        uint64_t places[8], callees[8], kept[8];
    } cases[] = {
        {3, 2, {10, 23, 23}, {20, 20, 20}, {10, 23}},
        {3, 2, {10, 23, 21}, {20, 20, 30}, {10, 21}},
        {4, 3, {10, 21, 31, 22}, {20, 30, 20, 30}, {10, 31, 22}},
        {6, 3, {10, 21, 31, 23, 22, 31}, {20, 30, 20, 20, 30, 20}, {10, 22, 31}},
        // Without what is called only a place is known to come again.
        {4, 4, {10, 21, 31, 22}, {0}, {10, 21, 31, 22}},
        {5, 4, {10, 21, 31, 22, 31}, {0}, {10, 21, 22, 31}},
        {5, 3, {10, 21, 31, 21, 31}, {0}, {10, 21, 31}},
    };

    (void)state;
    for (size_t i = 0; i < BASE_COUNT_OF(cases); i++) {
        struct check_stacks *stacks = create();
        uint32_t begin = check_stacks_begin(stacks, 9);
        uint32_t number = put(stacks, begin, cases[i].places, cases[i].callees, cases[i].count);
        assert_true(is_kept(stacks, number, cases[i].kept, cases[i].kept_count, 9));
        assert_int_equal(put(stacks, begin, cases[i].kept, NULL, cases[i].kept_count), number);
        check_stacks_destroy(stacks);
    }
    printf("of two calls by one function the inner one is kept\n");
}

static void cut(void **state)
{
    struct check_stacks *stacks = create();
    uint64_t places[200], kept[CHECK_STACK_MAX], thread = 0;
    uint32_t number = check_stacks_begin(stacks, 8);

    (void)state;
    for (size_t i = 0; i < BASE_COUNT_OF(places); i++) {
        places[i] = 100 + 2 * i;
        number = check_stacks_add(stacks, number, places[i], 0);
        size_t count = check_stacks_get(stacks, number, kept, &thread);
        assert_int_equal(thread, 8);
        if (i < CHECK_STACK_MAX - 1)
            assert_int_equal(count, i + 1);
        assert_true(count >= CHECK_STACK_MAX / 2 || count == i + 1);
        assert_true(is_kept(stacks, number, places + i + 1 - count, count, 8));
    }
    printf("of %zu calls the inner ones are kept\n", BASE_COUNT_OF(places));
    check_stacks_destroy(stacks);
}

static void *put_all(void *opaque)
{
    struct check_stacks *stacks = opaque;
    uint64_t places[20], callees[20];
    uint32_t begin = check_stacks_begin(stacks, 3);

    for (unsigned i = 0; i < MANY / 4; i++) {
        size_t count = stack_make(places, callees, i);
        uint32_t number = put(stacks, begin, places, callees, count);
        if (!is_kept(stacks, number, places, count, 3))
            return opaque;
    }
    return NULL;
}

static void many_threads(void **state)
{
    struct check_stacks *stacks = create();
    pthread_t threads[THREADS];
    void *failed;

    (void)state;
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, put_all, stacks), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
    printf("%u threads add the same stacks at the same time\n", THREADS);
    check_stacks_destroy(stacks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kept_once), cmocka_unit_test(none),         cmocka_unit_test(folded),
        cmocka_unit_test(cut),       cmocka_unit_test(many_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
