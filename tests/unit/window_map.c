// SPDX-License-Identifier: BSD-2-Clause
// Windows: what is mapped reads as the memfd does, the rest faults; pieces that overlap, filter,
// bounds.
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "unit.h"
#include "window/window.h"

#define PAGE 4096ull
#define BLOCK (2ull << 20)
#define FILE_BYTES (8 * BLOCK)
#define MAPS_MAX 600

struct fixture {
    struct window *window;
    uint8_t *file;  // all of it, to look at
    int fd;
};

static sigjmp_buf escape;

static void on_fault(int signal)
{
    (void)signal;
    siglongjmp(escape, 1);
}

static int setup(void **state)
{
    struct fixture *f = test_calloc(1, sizeof(*f));

    f->fd = memfd_create("window", MFD_CLOEXEC);
    assert_int_equal(ftruncate(f->fd, FILE_BYTES), 0);
    f->file = mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, f->fd, 0);
    assert_true(f->file != MAP_FAILED);
    for (uint64_t at = 0; at < FILE_BYTES; at += PAGE)
        *(uint64_t *)(f->file + at) = at + 1;
    assert_int_equal(window_create(&f->window, MAPS_MAX), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    window_destroy(f->window);
    munmap(f->file, FILE_BYTES);
    close(f->fd);
    test_free(f);
    return 0;
}

// The test framework has a handler of its own in place for each test.
static void expect_faults(void)
{
    struct sigaction action = {.sa_handler = on_fault, .sa_flags = SA_NODEFER};

    sigaction(SIGSEGV, &action, NULL);
}

// What a load at `offset` gives; 0: it faults.
static uint64_t load(struct fixture *f, uint64_t offset)
{
    const volatile uint64_t *place = (const volatile uint64_t *)(window_base(f->window) + offset);

    expect_faults();
    return sigsetjmp(escape, 1) ? 0 : *place;
}

static bool stores(struct fixture *f, uint64_t offset)
{
    volatile uint64_t *place = (volatile uint64_t *)(window_base(f->window) + offset);

    expect_faults();
    if (sigsetjmp(escape, 1))
        return false;
    *place = *place;
    return true;
}

static int add(struct fixture *f, uint64_t offset, uint64_t bytes, uint64_t from, bool writable)
{
    return window_add(f->window, &(struct window_map){.offset = offset,
                                                      .bytes = bytes,
                                                      .fd = f->fd,
                                                      .fd_offset = from,
                                                      .writable = writable});
}

static void test_shows_what_was_added(void **state)
{
    struct fixture *f = *state;
    const uint64_t end = WINDOW_BYTES;

    assert_int_equal(load(f, 0), 0);
    assert_int_equal(add(f, 0, PAGE, 3 * PAGE, false), 0);
    assert_int_equal(add(f, end - PAGE, PAGE, 5 * PAGE, true), 0);
    assert_int_equal(load(f, 0), 3 * PAGE + 1);
    assert_int_equal(load(f, end - PAGE), 5 * PAGE + 1);
    assert_false(stores(f, 0));
    assert_true(stores(f, end - PAGE));
    assert_int_equal(load(f, PAGE), 0);
    assert_int_equal(load(f, -PAGE), 0);
    assert_int_equal(load(f, end), 0);
    assert_int_equal(load(f, end + WINDOW_GUARD_BYTES - PAGE), 0);
    assert_int_equal(window_count(f->window), 2);
    assert_null(window_find(f->window, PAGE));
    assert_int_equal(window_find(f->window, 8)->fd_offset, 3 * PAGE);
    window_drop(f->window, 0);
    window_drop(f->window, PAGE);
    assert_int_equal(load(f, 0), 0);
    assert_int_equal(window_count(f->window), 1);
    window_clear(f->window);
    assert_int_equal(load(f, end - PAGE), 0);
    assert_null(window_find(f->window, end - PAGE));
}

// A page in a block, the block over the page, and pages into the block again.
static void test_pieces_that_overlap(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(add(f, BLOCK + PAGE, 4 * PAGE, 0, true), 0);
    assert_int_equal(add(f, BLOCK + 2 * PAGE, PAGE, 7 * PAGE, false), 0);
    assert_int_equal(load(f, BLOCK + 2 * PAGE), 7 * PAGE + 1);
    assert_int_equal(load(f, BLOCK + PAGE), 0);
    assert_int_equal(window_count(f->window), 1);
    assert_int_equal(add(f, 0, 4 * BLOCK, 2 * BLOCK, true), 0);
    assert_int_equal(window_count(f->window), 1);
    assert_int_equal(load(f, BLOCK + 2 * PAGE), 3 * BLOCK + 2 * PAGE + 1);
    assert_int_equal(add(f, 2 * BLOCK - PAGE, 2 * PAGE, 0, true), 0);
    assert_int_equal(load(f, 2 * BLOCK), PAGE + 1);
    assert_int_equal(load(f, 0), 0);
    assert_int_equal(window_count(f->window), 1);
}

static bool is_odd(void *opaque, const struct window_map *map)
{
    ++*(unsigned *)opaque;
    return map->offset / PAGE % 2;
}

static void test_filter_and_bound(void **state)
{
    struct fixture *f = *state;
    unsigned asked = 0;

    for (uint64_t i = 0; i < MAPS_MAX; i++)
        assert_int_equal(add(f, i * PAGE, PAGE, (MAPS_MAX - i) * PAGE, false), 0);
    assert_int_equal(add(f, MAPS_MAX * PAGE, PAGE, 0, false), -ENOSPC);
    assert_int_equal(load(f, MAPS_MAX * PAGE), 0);
    assert_int_equal(add(f, 0, PAGE, 9 * PAGE, false), 0);
    window_filter(f->window, is_odd, &asked);
    assert_int_equal(asked, MAPS_MAX);
    assert_int_equal(window_count(f->window), MAPS_MAX / 2);
    for (uint64_t i = 0; i < MAPS_MAX; i++)
        assert_int_equal(load(f, i * PAGE), i % 2 ? (MAPS_MAX - i) * PAGE + 1 : 0);
}

// Against a table of what each page should show.
static void test_random_pieces(void **state)
{
    enum { PAGES = 4096 };
    struct fixture *f = *state;
    static uint64_t expected[PAGES];

    srand(1);
    for (unsigned round = 0; round < 2000; round++) {
        uint64_t count = rand() % 8 ? 1 + (uint64_t)rand() % 20 : 512, page;
        page = count == 512 ? (uint64_t)rand() % 8 * 512 : (uint64_t)rand() % (PAGES - 20);
        if (round % 3 == 2) {
            const struct window_map *map = window_find(f->window, page * PAGE);
            for (uint64_t i = 0; map && i < map->bytes / PAGE; i++)
                expected[map->offset / PAGE + i] = 0;
            window_drop(f->window, page * PAGE);
            continue;
        }
        for (uint64_t i = 0; i < count; i++) {
            const struct window_map *map = window_find(f->window, (page + i) * PAGE);
            for (uint64_t j = 0; map && j < map->bytes / PAGE; j++)
                expected[map->offset / PAGE + j] = 0;
        }
        uint64_t from = (uint64_t)rand() % 3000;
        assert_int_equal(add(f, page * PAGE, count * PAGE, from * PAGE, false), 0);
        for (uint64_t i = 0; i < count; i++)
            expected[page + i] = (from + i) * PAGE + 1;
    }
    for (uint64_t i = 0; i < PAGES; i++)
        assert_int_equal(load(f, i * PAGE), expected[i]);
    printf("%zu pieces at the end\n", window_count(f->window));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_shows_what_was_added, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pieces_that_overlap, setup, teardown),
        cmocka_unit_test_setup_teardown(test_filter_and_bound, setup, teardown),
        cmocka_unit_test_setup_teardown(test_random_pieces, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
