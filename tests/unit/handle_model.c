// SPDX-License-Identifier: BSD-2-Clause
// Millions of random operations on a handle table, each compared with a reference: a plain array of
// what every handle ever seen should do.
#include <stdio.h>

#include "handle/handle.h"
#include "unit.h"

#define OPERATIONS 10000000u
#define LIMIT 3000u   // handles that may be live
#define KNOWN 20000u  // handles remembered, most of them stale

struct known {
    uint64_t handle;
    void *object;
    unsigned type;  // 0: released
    unsigned held;
};

struct reference {
    struct known known[KNOWN];
    unsigned live;     // as the table counts: also those released and still held
    unsigned refused;  // allocs at the limit
};

static uint64_t random_next(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

static unsigned below(uint64_t *seed, unsigned count)
{
    return (random_next(seed) >> 32) * count >> 32;
}

static void *object_of(uint64_t *seed)
{
    static char objects[4096];
    return &objects[below(seed, sizeof(objects))];
}

static bool in_use(const struct known *known)
{
    return known->type || known->held;
}

// A new handle takes the place of a known one that is no longer in use.
static void try_alloc(struct handle_table *table, struct reference *reference, struct known *known,
                      uint64_t *seed)
{
    unsigned type = below(seed, HANDLE_TYPE_MAX) + 1;
    void *object = object_of(seed);
    uint64_t handle;
    int status = handle_table_alloc(table, object, type, &handle);
    assert_int_equal(status, reference->live < LIMIT ? 0 : -ENOSPC);
    reference->refused += status != 0;
    if (status)
        return;
    assert_int_equal(handle_type(handle), type);
    reference->live++;
    if (in_use(known)) {
        // No room to remember it: let it go again.
        assert_int_equal(handle_table_release(table, handle, type, NULL), 0);
        reference->live--;
        return;
    }
    assert_int_not_equal(handle, known->handle);
    *known = (struct known){.handle = handle, .object = object, .type = type};
}

static void try_release(struct handle_table *table, struct reference *reference,
                        struct known *known, unsigned type)
{
    void *object = NULL;
    bool right = known->type && known->type == type;
    assert_int_equal(handle_table_release(table, known->handle, type, &object),
                     right ? 0 : -ENOENT);
    assert_ptr_equal(object, right ? known->object : NULL);
    if (!right)
        return;
    known->type = 0;
    reference->live -= !known->held;
}

static void try_acquire(struct handle_table *table, struct known *known, unsigned type)
{
    bool right = known->type && known->type == type;
    assert_ptr_equal(handle_table_acquire(table, known->handle, type),
                     right ? known->object : NULL);
    known->held += right;
}

static void try_put(struct handle_table *table, struct reference *reference, struct known *known)
{
    assert_int_equal(handle_table_put(table, known->handle), known->held ? 0 : -ENOENT);
    if (!known->held)
        return;
    known->held--;
    reference->live -= !in_use(known);
}

static void try_replace(struct handle_table *table, struct known *known, unsigned type,
                        uint64_t *seed)
{
    void *object = object_of(seed), *old = NULL;
    bool right = known->type && known->type == type;
    assert_int_equal(handle_table_replace(table, known->handle, type, object, &old),
                     right ? 0 : -ENOENT);
    assert_ptr_equal(old, right ? known->object : NULL);
    if (right)
        known->object = object;
}

static void try_resolve(struct handle_table *table, const struct known *known, unsigned type)
{
    bool right = known->type && known->type == type;
    assert_ptr_equal(handle_table_resolve(table, known->handle, type),
                     right ? known->object : NULL);
}

static int count_one(void *opaque, uint64_t handle, void *object)
{
    (void)handle, (void)object;
    ++*(unsigned *)opaque;
    return 0;
}

static void compare_all(struct handle_table *table, const struct reference *reference)
{
    unsigned resolving = 0, visited = 0;
    for (unsigned i = 0; i < KNOWN; i++) {
        const struct known *known = &reference->known[i];
        try_resolve(table, known, known->type ? known->type : handle_type(known->handle));
        resolving += known->type != 0;
    }
    assert_int_equal(handle_table_for_each(table, count_one, &visited), 0);
    assert_int_equal(visited, resolving);
    struct handle_stats stats;
    handle_table_stats(table, &stats);
    assert_int_equal(stats.live, reference->live);
}

static void behaves_as_the_reference(void **state)
{
    (void)state;
    uint64_t seed = 0x9e3779b97f4a7c15;
    struct reference *reference = calloc(1, sizeof(*reference));
    struct handle_table *table = NULL;
    assert_int_equal(handle_table_create(&table, &(struct handle_options){.live_max = LIMIT}), 0);

    for (unsigned i = 0; i < OPERATIONS; i++) {
        struct known *known = &reference->known[below(&seed, KNOWN)];
        unsigned type = below(&seed, 8) ? known->type : below(&seed, HANDLE_TYPE_MAX + 1);
        // Phases in which the table fills, and in which it empties.
        bool filling = i / 100000 % 2 == 0;
        switch (below(&seed, 8)) {
        case 0:
            try_alloc(table, reference, known, &seed);
            break;
        case 1:
            if (filling)
                try_alloc(table, reference, known, &seed);
            else
                try_release(table, reference, known, type);
            break;
        case 2:
            try_release(table, reference, known, type);
            break;
        case 3:
            try_acquire(table, known, type);
            break;
        case 4:
        case 5:
            try_put(table, reference, known);
            break;
        case 6:
            try_replace(table, known, type, &seed);
            break;
        default:
            try_resolve(table, known, type);
            break;
        }
        if (i % 200000 == 0)
            compare_all(table, reference);
    }
    compare_all(table, reference);
    assert_int_equal(handle_table_destroy(table, NULL, NULL), reference->live);
    assert_true(reference->refused > 1000);
    printf("%u random operations, up to %u of %u known handles live, %u allocs refused: as the "
           "reference says\n",
           OPERATIONS, LIMIT, KNOWN, reference->refused);
    free(reference);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(behaves_as_the_reference)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
