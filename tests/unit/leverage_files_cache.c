// SPDX-License-Identifier: BSD-2-Clause
// Which files are kept as clean, and who is seen to write to one.
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "leverage/files.h"
#include "unit/unit.h"

static struct files_stamp stamp_of(uint64_t inode)
{
    return (struct files_stamp){.device = 7, .inode = inode, .bytes = 10, .changed = {100, 5}};
}

static void check_table(void **state)
{
    (void)state;
    struct files_cache *cache = files_cache_create();
    struct files_stamp stamp = stamp_of(1);
    assert_non_null(cache);
    assert_false(files_cache_has(cache, &stamp));
    files_cache_put(cache, &stamp);
    assert_true(files_cache_has(cache, &stamp));

    struct files_stamp others[] = {stamp, stamp, stamp, stamp, stamp};
    others[0].device++;
    others[1].inode++;
    others[2].bytes++;
    others[3].changed.tv_nsec++;
    others[4].modified.tv_sec++;
    for (size_t i = 0; i < BASE_COUNT_OF(others); i++)
        assert_false(files_cache_has(cache, &others[i]));
    files_cache_put(cache, &others[3]);
    assert_false(files_cache_has(cache, &stamp));  // the same file, changed
    files_cache_drop(cache, &stamp);
    assert_false(files_cache_has(cache, &others[3]));

    unsigned found = 0;
    for (uint64_t inode = 1; inode <= 1000000; inode++) {
        stamp = stamp_of(inode);
        files_cache_put(cache, &stamp);
        assert_true(files_cache_has(cache, &stamp));
    }
    for (uint64_t inode = 1; inode <= 1000000; inode++) {
        stamp = stamp_of(inode);
        found += files_cache_has(cache, &stamp);
    }
    print_message("of a million files, %u are kept\n", found);
    assert_in_range(found, 50000, 65536);
    files_cache_clear(cache);
    assert_false(files_cache_has(cache, &stamp));
    files_cache_destroy(cache);
}

static void check_steady(void **state)
{
    static const struct {
        struct timespec changed;
        bool steady;
    } cases[] = {
        {{1000, 0}, true},         {{1999, 999999999}, false},
        {{1999, 960000000}, true}, {{1999, 980000000}, false},
        {{2000, 0}, false},        {{2001, 0}, false},
        {{9000000000, 0}, false},  {{0, 0}, true},
        {{-9000000000, 0}, true},
    };
    const struct timespec now = {2000, 0};
    (void)state;
    for (size_t i = 0; i < BASE_COUNT_OF(cases); i++) {
        struct stat stat = {.st_ctim = cases[i].changed};
        struct files_stamp stamp;
        files_stamp_take(&stamp, &stat, &now);
        assert_int_equal(stamp.steady, cases[i].steady);
    }
}

static void check_writers(void **state)
{
    char name[] = "/tmp/strake-unit-XXXXXX";
    (void)state;
    int writer = mkstemp(name), reader = open(name, O_RDONLY | O_CLOEXEC);
    assert_true(writer >= 0 && reader >= 0 && ftruncate(writer, 4096) == 0);
    assert_true(files_has_writer(reader));
    void *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, writer, 0);
    assert_ptr_not_equal(memory, MAP_FAILED);
    close(writer);
    assert_true(files_has_writer(reader));
    munmap(memory, 4096);
    assert_false(files_has_writer(reader));
    memory = mmap(NULL, 4096, PROT_READ, MAP_SHARED, reader, 0);
    assert_false(files_has_writer(reader));
    munmap(memory, 4096);
    writer = open(name, O_WRONLY | O_CLOEXEC);  // and nothing of ours is in the way
    assert_true(writer >= 0 && files_has_writer(reader));
    close(writer);
    close(reader);
    unlink(name);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(check_table),
        cmocka_unit_test(check_steady),
        cmocka_unit_test(check_writers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
