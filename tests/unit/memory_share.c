// SPDX-License-Identifier: BSD-2-Clause
// RAM that partitions share until they write: what each sees, what it costs, system calls, threads
// that meet in a chunk, and a second process's view that takes over.
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "memory/memory.h"
#include "unit.h"

#define RAM_GPA 0x80000000ull
#define RAM_BYTES (8ull << 20)
#define CHUNK_BYTES (64u << 10)

struct shared {
    int base_fd;
    struct memory *memory;
    int fd, map_fd;  // the test's own copies
};

static int memfd(uint64_t bytes)
{
    int fd = memfd_create("test", MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
    return fd;
}

static int copy_of(int fd)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);

    assert_true(copy >= 0);
    return copy;
}

// Every 8 bytes tell their offset.
static int make_base(void)
{
    int fd = memfd(RAM_BYTES);
    uint64_t *words = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    assert_true(words != MAP_FAILED);
    for (uint64_t i = 0; i < RAM_BYTES / 8; i++)
        words[i] = i * 8;
    munmap(words, RAM_BYTES);
    return fd;
}

static struct memory *open_view(int fd, int base_fd, int map_fd)
{
    const struct memory_base base = {.fd = copy_of(base_fd), .map_fd = copy_of(map_fd)};
    struct memory *memory;

    assert_int_equal(memory_create(&memory, NULL), 0);
    assert_int_equal(memory_add_ram_shared(memory, RAM_GPA, RAM_BYTES, copy_of(fd), &base, NULL),
                     0);
    return memory;
}

static struct shared open_shared(int base_fd)
{
    struct shared shared = {.base_fd = base_fd,
                            .fd = memfd(RAM_BYTES),
                            .map_fd = memfd(memory_base_map_bytes(RAM_BYTES))};

    shared.memory = open_view(shared.fd, base_fd, shared.map_fd);
    return shared;
}

static void close_shared(struct shared *shared)
{
    memory_destroy(shared->memory);
    close(shared->fd);
    close(shared->map_fd);
}

static uint64_t *word(struct memory *memory, uint64_t offset)
{
    uint64_t *at = memory_ram_hva(memory, RAM_GPA + offset, 8);

    assert_non_null(at);
    return at;
}

static uint64_t own_bytes(const struct shared *shared)
{
    struct stat status;

    assert_int_equal(fstat(shared->fd, &status), 0);
    return (uint64_t)status.st_blocks * 512;
}

static void test_writes_are_private(void **state)
{
    int base_fd = make_base();
    struct shared a = open_shared(base_fd), b = open_shared(base_fd);

    (void)state;
    for (uint64_t offset = 0; offset < RAM_BYTES; offset += 4096)
        assert_int_equal(*word(a.memory, offset), offset);
    assert_int_equal(own_bytes(&a), 0);
    *word(a.memory, 0x12340) = 1;
    *word(b.memory, 0x12340) = 2;
    *word(b.memory, RAM_BYTES - 8) = 3;
    assert_int_equal(*word(a.memory, 0x12340), 1);
    assert_int_equal(*word(a.memory, 0x12348), 0x12348);
    assert_int_equal(*word(a.memory, RAM_BYTES - 8), RAM_BYTES - 8);
    assert_int_equal(*word(b.memory, 0x12340), 2);
    assert_int_equal(own_bytes(&a), CHUNK_BYTES);
    assert_int_equal(own_bytes(&b), 2 * CHUNK_BYTES);
    printf("of %llu KiB that two partitions read, one holds %lu KiB, the other %lu, after 1 and 2 "
           "stores\n",
           RAM_BYTES >> 10, own_bytes(&a) >> 10, own_bytes(&b) >> 10);
    close_shared(&a);
    close_shared(&b);
    close(base_fd);
}

static void test_system_calls(void **state)
{
    int base_fd = make_base(), pipe_fds[2];
    struct shared a = open_shared(base_fd);

    (void)state;
    assert_int_equal(pipe(pipe_fds), 0);
    assert_int_equal(write(pipe_fds[1], "abcdefgh", 8), 8);
    assert_int_equal(read(pipe_fds[0], word(a.memory, 0x20000 - 8), 8), -1);
    assert_int_equal(errno, EFAULT);
    memory_own(a.memory, RAM_GPA + 0x20000 - 8, 16);
    assert_int_equal(own_bytes(&a), 2 * CHUNK_BYTES);
    assert_int_equal(read(pipe_fds[0], word(a.memory, 0x20000 - 8), 8), 8);
    assert_memory_equal(word(a.memory, 0x20000 - 8), "abcdefgh", 8);
    assert_int_equal(*word(a.memory, 0x20000), 0x20000);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    close_shared(&a);
    close(base_fd);
}

static void test_runs(void **state)
{
    int base_fd = make_base();
    struct shared a = open_shared(base_fd);
    uint64_t start = RAM_GPA, end = RAM_GPA + RAM_BYTES;

    (void)state;
    *word(a.memory, 2 * CHUNK_BYTES) = 1;
    *word(a.memory, 4 * CHUNK_BYTES) = 1;
    memory_own_run(a.memory, RAM_GPA + 3 * CHUNK_BYTES + 8, &start, &end);
    assert_int_equal(start, RAM_GPA + 2 * CHUNK_BYTES);
    assert_int_equal(end, RAM_GPA + 5 * CHUNK_BYTES);
    start = RAM_GPA + 3 * CHUNK_BYTES + 4096;
    end = start + 4096;
    memory_own_run(a.memory, start, &start, &end);
    assert_int_equal(start, RAM_GPA + 3 * CHUNK_BYTES + 4096);
    assert_int_equal(end - start, 4096);
    close_shared(&a);
    close(base_fd);
}

#define THREADS 4u

struct adder {
    struct memory *memory;
    unsigned index;
};

static void *add_everywhere(void *opaque)
{
    const struct adder *adder = opaque;

    for (uint64_t offset = 0; offset < RAM_BYTES; offset += CHUNK_BYTES / 4)
        *word(adder->memory, offset + 8 * adder->index) += 1;
    return NULL;
}

static void test_threads_meet(void **state)
{
    int base_fd = make_base();
    struct shared a = open_shared(base_fd);
    struct adder adders[THREADS];
    pthread_t threads[THREADS];

    (void)state;
    for (unsigned i = 0; i < THREADS; i++) {
        adders[i] = (struct adder){a.memory, i};
        assert_int_equal(pthread_create(&threads[i], NULL, add_everywhere, &adders[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (uint64_t offset = 0; offset < RAM_BYTES; offset += 8) {
        uint64_t added = offset % (CHUNK_BYTES / 4) < 8 * THREADS;
        assert_int_equal(*word(a.memory, offset), offset + added);
    }
    printf("%u threads stored into %llu chunks at once: nothing is lost\n", THREADS,
           RAM_BYTES / CHUNK_BYTES);
    close_shared(&a);
    close(base_fd);
}

static void test_taking_over(void **state)
{
    int base_fd = make_base();
    struct shared a = open_shared(base_fd);

    (void)state;
    *word(a.memory, 0) = 1;
    struct memory *next = open_view(a.fd, base_fd, a.map_fd);
    assert_int_equal(*word(next, 0), 1);
    *word(a.memory, 0x100000) = 2;  // while the other is being prepared
    memory_settle(next);
    assert_int_equal(*word(next, 0), 1);
    assert_int_equal(*word(next, 0x100000), 2);
    *word(next, 0x200000) = 3;
    assert_int_equal(*word(next, 0x200000), 3);
    assert_int_equal(*word(next, 0x200008), 0x200008);
    memory_destroy(next);
    close_shared(&a);
    close(base_fd);
}

static void test_power_on_ends_sharing(void **state)
{
    int base_fd = make_base();
    struct shared a = open_shared(base_fd);

    (void)state;
    *word(a.memory, 0) = 1;
    memory_clear_ram(a.memory);
    for (uint64_t offset = 0; offset < RAM_BYTES; offset += 4096)
        assert_int_equal(*word(a.memory, offset), 0);
    *word(a.memory, 0x300000) = 7;
    assert_int_equal(*word(a.memory, 0x300000), 7);
    close_shared(&a);
    close(base_fd);
}

static void test_wrong_files_are_refused(void **state)
{
    int base_fd = make_base(), small = memfd(4096);
    struct memory *memory;
    struct error err;

    (void)state;
    assert_int_equal(memory_create(&memory, NULL), 0);
    assert_int_equal(memory_add_ram_shared(memory, RAM_GPA, RAM_BYTES, -1,
                                           &(struct memory_base){base_fd, small}, &err),
                     -EINVAL);
    printf("%s\n", err.message);
    assert_int_equal(memory_add_ram_shared(memory, RAM_GPA, RAM_BYTES, -1,
                                           &(struct memory_base){small, base_fd}, &err),
                     -EINVAL);
    assert_null(memory_find_ram(memory, RAM_GPA));
    memory_destroy(memory);
    assert_int_equal(close(base_fd), 0);
    assert_int_equal(close(small), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_writes_are_private),
        cmocka_unit_test(test_system_calls),
        cmocka_unit_test(test_runs),
        cmocka_unit_test(test_threads_meet),
        cmocka_unit_test(test_taking_over),
        cmocka_unit_test(test_power_on_ends_sharing),
        cmocka_unit_test(test_wrong_files_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
