// SPDX-License-Identifier: BSD-2-Clause
// Handle tables, one thread: what resolves and what does not, limits, lack of memory, growth.
#include <pthread.h>
#include <stdio.h>

#include "handle/internal.h"
#include "handle_pin.h"
#include "unit.h"

enum { REQUEST = 1, CONNECTION = 2 };

static struct handle_table *table_new(uint32_t live_max)
{
    struct handle_table *table = NULL;
    assert_int_equal(handle_table_create(&table, &(struct handle_options){.live_max = live_max}),
                     0);
    return table;
}

static uint64_t alloc(struct handle_table *table, void *object, unsigned type)
{
    uint64_t handle = 0;
    assert_int_equal(handle_table_alloc(table, object, type, &handle), 0);
    return handle;
}

static struct handle_stats stats_of(struct handle_table *table)
{
    struct handle_stats stats;
    handle_table_stats(table, &stats);
    return stats;
}

static void resolves_only_what_was_issued(void **state)
{
    (void)state;
    struct handle_table *table = table_new(0);
    int object = 0;
    assert_null(handle_table_resolve(table, 0, REQUEST));
    uint64_t handle = alloc(table, &object, REQUEST);
    assert_ptr_equal(handle_table_resolve(table, handle, REQUEST), &object);

    assert_null(handle_table_resolve(table, handle, CONNECTION));
    assert_null(handle_table_resolve(table, handle, 0));
    assert_null(handle_table_resolve(table, 0, REQUEST));
    assert_null(handle_table_resolve(table, 0, 0));
    assert_null(handle_table_resolve(table, UINT64_MAX, REQUEST));
    assert_null(handle_table_resolve(table, UINT64_MAX, HANDLE_TYPE_MAX));
    for (unsigned bit = 0; bit < 64; bit++) {
        for (unsigned type = 0; type <= HANDLE_TYPE_MAX; type++) {
            uint64_t forged = handle ^ UINT64_C(1) << bit;
            assert_null(handle_table_resolve(table, forged, type));
            assert_null(handle_table_acquire(table, forged, type));
            assert_int_equal(handle_table_release(table, forged, type, NULL), -ENOENT);
        }
    }
    assert_ptr_equal(handle_table_resolve(table, handle, REQUEST), &object);
    assert_int_equal(handle_table_destroy(table, NULL, NULL), 1);
    printf("a handle resolves with its type; with any bit flipped, zero and all ones do not\n");
}

static void a_released_handle_is_stale(void **state)
{
    (void)state;
    struct handle_table *table = table_new(0);
    int objects[1000];
    uint64_t first = alloc(table, &objects[0], REQUEST);
    void *released = NULL;
    assert_int_equal(handle_table_release(table, first, REQUEST, &released), 0);
    assert_ptr_equal(released, &objects[0]);
    assert_null(handle_table_resolve(table, first, REQUEST));
    assert_int_equal(handle_table_release(table, first, REQUEST, NULL), -ENOENT);
    assert_int_equal(handle_table_put(table, first), -ENOENT);

    // A guess at the next generation of a slot that is unused resolves to nothing either.
    uint64_t next = first + (UINT64_C(1) << (HANDLE_INDEX_BITS + HANDLE_TYPE_BITS));
    assert_null(handle_table_resolve(table, next, REQUEST));

    unsigned reused_after = 0;
    for (unsigned round = 0; round < 1000; round++) {
        uint64_t handle = alloc(table, &objects[round], REQUEST);
        if (handle_index(handle) == handle_index(first) && !reused_after)
            reused_after = round + 1;
        assert_int_not_equal(handle, first);
        assert_null(handle_table_resolve(table, first, REQUEST));
        assert_int_equal(handle_table_release(table, handle, REQUEST, NULL), 0);
    }
    assert_in_range(reused_after, HANDLE_FANOUT, 1000);
    assert_int_equal(stats_of(table).capacity, HANDLE_FANOUT);
    assert_int_equal(handle_table_destroy(table, NULL, NULL), 0);
    printf("a slot was used again after %u allocs, and its old handle stayed stale\n",
           reused_after);
}

static void held_objects_outlive_their_release(void **state)
{
    (void)state;
    struct handle_table *table = table_new(2);
    int a, b;
    uint64_t handle = alloc(table, &a, REQUEST);
    assert_ptr_equal(handle_table_acquire(table, handle, REQUEST), &a);
    assert_ptr_equal(handle_table_acquire(table, handle, REQUEST), &a);
    assert_int_equal(handle_table_release(table, handle, REQUEST, NULL), 0);
    assert_null(handle_table_resolve(table, handle, REQUEST));
    assert_null(handle_table_acquire(table, handle, REQUEST));
    assert_int_equal(handle_table_release(table, handle, REQUEST, NULL), -ENOENT);

    uint64_t other = alloc(table, &b, REQUEST), beyond = 7;
    assert_int_equal(handle_table_alloc(table, &b, REQUEST, &beyond), -ENOSPC);
    assert_int_equal(handle_table_put(table, handle), 0);
    assert_int_equal(handle_table_alloc(table, &b, REQUEST, &beyond), -ENOSPC);
    assert_int_equal(beyond, 7);
    assert_int_equal(handle_table_put(table, handle), 0);
    assert_int_equal(handle_table_put(table, handle), -ENOENT);
    assert_int_equal(handle_table_alloc(table, &b, REQUEST, &beyond), 0);
    assert_int_equal(handle_table_put(table, other), -ENOENT);
    assert_int_equal(handle_table_destroy(table, NULL, NULL), 2);
    printf("a released handle keeps its slot until the last put\n");
}

static void a_handle_can_be_held_only_so_often(void **state)
{
    (void)state;
    struct handle_table *table = table_new(0);
    int object;
    uint64_t handle = alloc(table, &object, REQUEST);
    struct handle_slot *slot = handle_slot_of(handle_leaf_find(&table->root, 0), 0);
    slot->tag += HANDLE_HELD_MAX - 1;
    assert_ptr_equal(handle_table_acquire(table, handle, REQUEST), &object);
    assert_null(handle_table_acquire(table, handle, REQUEST));
    assert_ptr_equal(handle_table_resolve(table, handle, REQUEST), &object);
    assert_int_equal(handle_table_release(table, handle, REQUEST, NULL), 0);
    assert_int_equal(slot->tag & HANDLE_HELD_MASK, HANDLE_HELD_MAX);
    handle_table_destroy(table, NULL, NULL);
    printf("acquire fails rather than overflow\n");
}

static void replace_keeps_the_handle(void **state)
{
    (void)state;
    struct handle_table *table = table_new(0);
    int a, b;
    uint64_t handle = alloc(table, &a, REQUEST);
    void *old = NULL;
    assert_int_equal(handle_table_replace(table, handle, REQUEST, &b, &old), 0);
    assert_ptr_equal(old, &a);
    assert_ptr_equal(handle_table_resolve(table, handle, REQUEST), &b);
    assert_int_equal(handle_table_replace(table, handle, REQUEST, NULL, &old), -EINVAL);
    assert_int_equal(handle_table_replace(table, handle, CONNECTION, &a, &old), -ENOENT);
    assert_int_equal(handle_table_release(table, handle, REQUEST, &old), 0);
    assert_ptr_equal(old, &b);
    assert_int_equal(handle_table_replace(table, handle, REQUEST, &a, &old), -ENOENT);
    assert_int_equal(handle_table_destroy(table, NULL, NULL), 0);
    printf("replace changes the object, not the handle\n");
}

static void bad_arguments_are_refused(void **state)
{
    (void)state;
    struct handle_table *table = NULL;
    assert_int_equal(
        handle_table_create(&table, &(struct handle_options){.live_max = HANDLE_LIVE_MAX + 1}),
        -EINVAL);
    assert_null(table);
    table = table_new(0);
    uint64_t handle = 7;
    int object;
    assert_int_equal(handle_table_alloc(table, NULL, REQUEST, &handle), -EINVAL);
    assert_int_equal(handle_table_alloc(table, &object, 0, &handle), -EINVAL);
    assert_int_equal(handle_table_alloc(table, &object, HANDLE_TYPE_MAX + 1, &handle), -EINVAL);
    assert_int_equal(handle, 7);
    assert_int_equal(stats_of(table).tables, 0);
    handle_table_destroy(table, NULL, NULL);
    handle_table_destroy(NULL, NULL, NULL);
    printf("no object, no type and a type too large are refused\n");
}

static void the_limit_is_exact(void **state)
{
    (void)state;
    static int object;
    enum { LIMIT = 5000 };
    struct handle_table *table = table_new(LIMIT);
    static uint64_t handles[LIMIT];
    for (unsigned round = 0; round < 20; round++) {
        for (unsigned i = 0; i < LIMIT; i++)
            handles[i] = alloc(table, &object, REQUEST);
        uint64_t beyond;
        assert_int_equal(handle_table_alloc(table, &object, REQUEST, &beyond), -ENOSPC);
        assert_int_equal(stats_of(table).live, LIMIT);
        for (unsigned i = 0; i < LIMIT; i++)
            assert_int_equal(handle_table_release(table, handles[i], REQUEST, NULL), 0);
        assert_int_equal(stats_of(table).live, 0);
    }
    struct handle_stats stats = stats_of(table);
    assert_in_range(stats.capacity, LIMIT, 2 * LIMIT);
    handle_table_destroy(table, NULL, NULL);
    printf("%u handles and no more, 20 times over, in %u slots\n", LIMIT, stats.capacity);
}

static void a_full_index_space_is_an_error(void **state)
{
    (void)state;
    struct handle_table *table = table_new(0);
    static int object;
    uint64_t handle = 0, some = 0;
    for (uint32_t i = 0; i < HANDLE_LIVE_MAX; i++) {
        if (handle_table_alloc(table, &object, REQUEST, &handle))
            fail_msg("alloc %u of %u failed", i, HANDLE_LIVE_MAX);
        if (i == 12345678)
            some = handle;
    }
    assert_int_equal(handle_table_alloc(table, &object, REQUEST, &handle), -ENOSPC);
    assert_int_equal(handle_table_release(table, some, REQUEST, NULL), 0);
    assert_int_equal(handle_table_alloc(table, &object, REQUEST, &handle), 0);
    assert_int_equal(handle_index(handle), handle_index(some));
    assert_int_equal(handle_table_alloc(table, &object, REQUEST, &handle), -ENOSPC);
    struct handle_stats stats = stats_of(table);
    assert_int_equal(stats.live, HANDLE_LIVE_MAX);
    assert_int_equal(stats.tables, 65536 + 256 + 1);
    handle_table_destroy(table, NULL, NULL);
    printf("all %u indices were issued, and the only free one found\n", HANDLE_LIVE_MAX);
}

static void growth_disturbs_no_handle(void **state)
{
    (void)state;
    struct handle_table *table = table_new(0);
    static int objects[70000];
    static uint64_t handles[70000];
    struct handle_stats stats = stats_of(table);
    assert_int_equal(stats.levels, 0);
    unsigned levels = 0;
    for (unsigned i = 0; i < 70000; i++) {
        handles[i] = alloc(table, &objects[i], REQUEST);
        assert_int_equal(handle_index(handles[i]), i);
        if (handle_hierarchy_levels(table) == levels)
            continue;
        levels = handle_hierarchy_levels(table);
        for (unsigned j = 0; j <= i; j++)
            assert_ptr_equal(handle_table_resolve(table, handles[j], REQUEST), &objects[j]);
        printf("%u levels from handle %u on; all before it resolve\n", levels, i + 1);
    }
    assert_int_equal(levels, 3);
    stats = stats_of(table);
    assert_int_equal(stats.live, 70000);
    assert_int_equal(stats.tables, 274 + 2 + 1);
    handle_table_destroy(table, NULL, NULL);
}

static void a_spent_slot_is_never_used_again(void **state)
{
    (void)state;
    struct handle_table *table = table_new(0);
    int object;
    uint64_t handle = alloc(table, &object, REQUEST);
    struct handle_slot *slot = handle_slot_of(handle_leaf_find(&table->root, 0), 0);
    handle_table_release(table, handle, REQUEST, NULL);
    slot->tag = (HANDLE_GENERATION_LAST - 1) << (HANDLE_INDEX_BITS + HANDLE_TYPE_BITS);

    unsigned uses = 0;
    for (unsigned round = 0; round < 2000; round++) {
        handle = alloc(table, &object, HANDLE_TYPE_MAX);
        assert_int_not_equal(handle, UINT64_MAX);
        uses += handle_index(handle) == 0;
        assert_ptr_equal(handle_table_resolve(table, handle, HANDLE_TYPE_MAX), &object);
        assert_int_equal(handle_table_release(table, handle, HANDLE_TYPE_MAX, NULL), 0);
    }
    assert_int_equal(uses, 1);
    assert_int_equal(stats_of(table).live, 0);
    assert_null(handle_table_resolve(table, UINT64_MAX, HANDLE_TYPE_MAX));
    assert_true(HANDLE_GENERATION_LAST > UINT64_C(1) << 32);
    handle_table_destroy(table, NULL, NULL);
    printf("a slot is used %llu times, then no more\n", (unsigned long long)HANDLE_GENERATION_LAST);
}

// ---- Lack of memory -----------------------------------------------------------------------------

struct heap {
    unsigned left;  // allocations that still succeed
    unsigned blocks;
};

static void *heap_allocate(void *opaque, size_t alignment, size_t bytes)
{
    struct heap *heap = opaque;
    if (heap->left == 0)
        return NULL;
    heap->left--;
    heap->blocks++;
    return aligned_alloc(alignment, bytes);
}

static void heap_deallocate(void *opaque, void *memory)
{
    ((struct heap *)opaque)->blocks--;
    free(memory);
}

// At each growth memory runs out after 0, 1 and 2 blocks, until there is enough.
static void lack_of_memory_changes_nothing(void **state)
{
    (void)state;
    struct heap heap = {.left = 0};
    struct handle_allocator allocator = {heap_allocate, heap_deallocate, &heap};
    struct handle_options options = {.allocator = &allocator};
    struct handle_table *table = NULL;
    assert_int_equal(handle_table_create(&table, &options), -ENOMEM);
    assert_null(table);
    heap.left = 1;
    assert_int_equal(handle_table_create(&table, &options), 0);

    static int object;
    unsigned failures = 0;
    uint64_t first = 0;
    for (unsigned i = 0; i < 66000; i++) {
        uint64_t handle = 7;
        for (unsigned blocks = 0;; blocks++) {
            heap.left = blocks;
            struct handle_stats before = stats_of(table), after;
            unsigned blocks_before = heap.blocks;
            int status = handle_table_alloc(table, &object, REQUEST, &handle);
            if (status == 0)
                break;
            assert_int_equal(status, -ENOMEM);
            assert_int_equal(handle, 7);
            after = stats_of(table);
            assert_int_equal(after.live, before.live);
            assert_int_equal(after.capacity, before.capacity);
            assert_int_equal(after.levels, before.levels);
            assert_int_equal(after.tables, before.tables);
            assert_int_equal(after.bytes, before.bytes);
            assert_int_equal(heap.blocks, blocks_before);
            failures++;
        }
        if (i == 0)
            first = handle;
        assert_int_equal(handle_index(handle), i);
    }
    assert_ptr_equal(handle_table_resolve(table, first, REQUEST), &object);

    // Full and without memory, a table still has what is given back to it.
    heap.left = 0;
    uint64_t handle;
    while (handle_table_alloc(table, &object, REQUEST, &handle) == 0)
        ;
    assert_int_equal(handle_table_release(table, first, REQUEST, NULL), 0);
    assert_int_equal(handle_table_alloc(table, &object, REQUEST, &handle), 0);
    assert_int_equal(handle_index(handle), handle_index(first));
    handle_table_destroy(table, NULL, NULL);
    assert_int_equal(heap.blocks, 0);
    printf("%u failed allocs left 66000 handles and their table as they were\n", failures);
}

// ---- The whole table ----------------------------------------------------------------------------

struct thing {
    struct handle_deferred deferred;
    unsigned visited, reclaimed, left_over;
};

static int visit(void *opaque, uint64_t handle, void *object)
{
    assert_ptr_equal(handle_table_resolve(opaque, handle, CONNECTION), object);
    ((struct thing *)object)->visited++;
    return 0;
}

static int visit_one(void *opaque, uint64_t handle, void *object)
{
    (void)handle, (void)object;
    ++*(unsigned *)opaque;
    return -EINTR;
}

static void count_reclaimed(void *opaque, void *object)
{
    __atomic_fetch_add((unsigned *)opaque, 1, __ATOMIC_RELAXED);
    ((struct thing *)object)->reclaimed++;
}

static void count_left_over(void *opaque, uint64_t handle, void *object)
{
    (void)opaque, (void)handle;
    ((struct thing *)object)->left_over++;
}

static void objects_are_visited_reclaimed_or_left_over(void **state)
{
    (void)state;
    enum { COUNT = 1000 };
    static struct thing things[COUNT];
    static uint64_t handles[COUNT];
    unsigned reclaimed = 0;
    struct handle_table *table = NULL;
    struct handle_options options = {.reclaim = count_reclaimed, .opaque = &reclaimed};
    assert_int_equal(handle_table_create(&table, &options), 0);
    for (unsigned i = 0; i < COUNT; i++)
        handles[i] = alloc(table, &things[i], CONNECTION);

    for (unsigned i = 0; i < COUNT; i += 2)
        assert_int_equal(handle_table_release(table, handles[i], CONNECTION, NULL), 0);
    assert_int_equal(handle_table_for_each(table, visit, table), 0);
    unsigned visits = 0;
    assert_int_equal(handle_table_for_each(table, visit_one, &visits), -EINTR);
    assert_int_equal(visits, 1);

    // Three more ways an object may end: held when released, held to the end, replaced.
    assert_non_null(handle_table_acquire(table, handles[1], CONNECTION));
    assert_int_equal(handle_table_release(table, handles[1], CONNECTION, NULL), 0);
    assert_non_null(handle_table_acquire(table, handles[3], CONNECTION));
    assert_int_equal(handle_table_release(table, handles[3], CONNECTION, NULL), 0);
    assert_int_equal(handle_table_put(table, handles[3]), 0);
    static struct thing other;
    void *old;
    assert_int_equal(handle_table_replace(table, handles[5], CONNECTION, &other, &old), 0);
    handle_table_reclaim(table, old);

    assert_int_equal(handle_table_destroy(table, count_left_over, NULL), COUNT / 2 - 1);
    for (unsigned i = 0; i < COUNT; i++) {
        bool gone = i % 2 == 0 || i == 3 || i == 5;
        assert_int_equal(things[i].visited, i % 2);
        assert_int_equal(things[i].reclaimed, gone);
        assert_int_equal(things[i].left_over, !gone);
    }
    assert_int_equal(other.left_over, 1);
    assert_int_equal(reclaimed, COUNT / 2 + 2);
    printf("each of %u objects was visited, and reclaimed or left over, once\n", COUNT);
}

static void *release_slowly(void *opaque)
{
    struct thing *thing = opaque;
    handle_read_lock();
    __atomic_store_n(&thing->visited, 1, __ATOMIC_RELEASE);
    for (unsigned i = 0; i < 100; i++) {
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        if (__atomic_load_n(&thing->reclaimed, __ATOMIC_RELAXED))
            break;
    }
    thing->left_over = __atomic_load_n(&thing->reclaimed, __ATOMIC_RELAXED);
    handle_read_unlock();
    return NULL;
}

static void mark_reclaimed(void *opaque, void *object)
{
    (void)opaque;
    __atomic_store_n(&((struct thing *)object)->reclaimed, 1, __ATOMIC_RELAXED);
}

static void reclamation_waits_for_read_sections(void **state)
{
    (void)state;
    struct handle_table *table = NULL;
    static struct thing thing;
    assert_int_equal(
        handle_table_create(&table, &(struct handle_options){.reclaim = mark_reclaimed}), 0);
    uint64_t handle = alloc(table, &thing, REQUEST);
    pthread_t reader;
    assert_int_equal(pthread_create(&reader, NULL, release_slowly, &thing), 0);
    while (!__atomic_load_n(&thing.visited, __ATOMIC_ACQUIRE))
        ;
    assert_int_equal(handle_table_release(table, handle, REQUEST, NULL), 0);
    pthread_join(reader, NULL);
    assert_int_equal(thing.left_over, 0);
    handle_table_destroy(table, NULL, NULL);
    assert_int_equal(thing.reclaimed, 1);
    printf("an object was not reclaimed while a read section of 100 ms was open\n");
}

static void memory_for_a_handle(void **state)
{
    (void)state;
    static int object;
    struct handle_table *table = table_new(0);
    alloc(table, &object, REQUEST);
    struct handle_stats first = stats_of(table);
    assert_in_range(first.bytes, 1, 8192);
    for (unsigned i = 1; i < 1000000; i++)
        alloc(table, &object, REQUEST);
    struct handle_stats stats = stats_of(table);
    assert_true(stats.bytes <= UINT64_C(24) * 1000000);

    // Coming and going beside a million handles that stay fills what is there.
    for (unsigned i = 0; i < 5000000; i++)
        handle_table_release(table, alloc(table, &object, REQUEST), REQUEST, NULL);
    struct handle_stats later = stats_of(table);
    assert_true(later.bytes <= UINT64_C(24) * 1000000);
    handle_table_destroy(table, NULL, NULL);
    printf("%llu bytes for the first handle, %.1f a handle at 1000000, %.1f after 5000000 came "
           "and went\n",
           (unsigned long long)first.bytes, (double)stats.bytes / 1e6, (double)later.bytes / 1e6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resolves_only_what_was_issued),
        cmocka_unit_test(a_released_handle_is_stale),
        cmocka_unit_test(held_objects_outlive_their_release),
        cmocka_unit_test(a_handle_can_be_held_only_so_often),
        cmocka_unit_test(replace_keeps_the_handle),
        cmocka_unit_test(bad_arguments_are_refused),
        cmocka_unit_test(the_limit_is_exact),
        cmocka_unit_test(a_full_index_space_is_an_error),
        cmocka_unit_test(growth_disturbs_no_handle),
        cmocka_unit_test(a_spent_slot_is_never_used_again),
        cmocka_unit_test(lack_of_memory_changes_nothing),
        cmocka_unit_test(objects_are_visited_reclaimed_or_left_over),
        cmocka_unit_test(reclamation_waits_for_read_sections),
        cmocka_unit_test(memory_for_a_handle),
    };
    return cmocka_run_group_tests(tests, handle_pin, NULL);
}
