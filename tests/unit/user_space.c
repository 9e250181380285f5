// SPDX-License-Identifier: BSD-2-Clause
// A program's address space: what is mapped, as the list, the engine's bytes and the host have it.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "unit.h"
#include "user/internal.h"

#define PAGE USER_PAGE_BYTES
#define BASE_GVA 0x100000000ull
#define MODEL_PAGES 64u

struct fixture {
    struct user_process process;
    struct user_thread thread;
};

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    assert_non_null(fixture);
    struct user_process *process = &fixture->process;
    user_process_init(process);
    fixture->thread.process = process;
    assert_int_equal(user_space_init(&process->space, process, NULL), 0);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    user_space_fini(&fixture->process.space);
    free(fixture);
    return 0;
}

// cmocka handles faults by now.
static struct fixture *expect_faults(void **state)
{
    assert_int_equal(user_memory_init(), 0);
    return *state;
}

static int64_t map(struct user_space *space, uint64_t gva, uint64_t pages, int protection,
                   int flags)
{
    return user_space_map(space, gva, pages * PAGE, protection, MAP_PRIVATE | MAP_ANONYMOUS | flags,
                          -1, 0);
}

// No two overlap, none is empty or could be one with the next.
static void check_list(const struct user_space *space)
{
    for (size_t i = 0; i < space->mapping_count; i++) {
        const struct user_mapping *mapping = &space->mappings[i];
        assert_true(mapping->start < mapping->end && mapping->end <= HART_FLAT_BYTES);
        assert_true(
            i == 0 || mapping[-1].end < mapping->start ||
            (mapping[-1].end == mapping->start && mapping[-1].protection != mapping->protection));
    }
}

// What the host lets be done with a page: bits of PROT_*.
static int host_allows(const struct user_space *space, uint64_t gva)
{
    uint8_t byte;
    uint8_t *hva = space->hva + gva;
    int allows = user_copy(&byte, hva, 1) == 0 ? PROT_READ : 0;
    return allows && user_copy(hva, &byte, 1) == 0 ? allows | PROT_WRITE : allows;
}

static void check_page(const struct user_space *space, uint64_t gva, int protection)
{
    unsigned page = space->pages[gva / PAGE];
    int readable = protection > 0 ? PROT_READ : 0;
    if (protection < 0)
        protection = 0;
    assert_int_equal(page, (readable ? HART_PAGE_READ : 0) |
                               (protection & PROT_WRITE ? HART_PAGE_WRITE : 0) |
                               (protection & PROT_EXEC ? HART_PAGE_EXEC : 0));
    assert_int_equal(host_allows(space, gva), readable | (protection & PROT_WRITE));
}

// Random changes, compared with an array of pages.
static void test_model(void **state)
{
    struct fixture *fixture = expect_faults(state);
    struct user_space *space = &fixture->process.space;
    int model[MODEL_PAGES];
    memset(model, -1, sizeof(model));
    srand(1);
    print_message("3000 changes of %u pages\n", MODEL_PAGES);
    for (unsigned round = 0; round < 3000; round++) {
        unsigned first = (unsigned)rand() % MODEL_PAGES;
        unsigned count = 1 + (unsigned)rand() % (MODEL_PAGES - first);
        uint64_t gva = BASE_GVA + first * PAGE;
        int protection = rand() % 8;
        bool whole = true;
        for (unsigned i = first; i < first + count; i++)
            whole = whole && model[i] >= 0;
        switch (rand() % 3) {
        case 0:
            assert_int_equal(map(space, gva, count, protection, MAP_FIXED), gva);
            break;
        case 1:
            assert_int_equal(user_space_unmap(space, gva, count * PAGE), 0);
            protection = -1;
            break;
        default:
            assert_int_equal(user_space_protect(space, gva, count * PAGE, protection),
                             whole ? 0 : -ENOMEM);
            if (!whole)
                continue;
        }
        for (unsigned i = first; i < first + count; i++)
            model[i] = protection;
        check_list(space);
        for (unsigned i = 0; i < MODEL_PAGES; i++)
            check_page(space, BASE_GVA + i * PAGE, model[i]);
    }
}

static void test_places(void **state)
{
    struct fixture *fixture = *state;
    struct user_space *space = &fixture->process.space;
    int64_t one = map(space, 0, 3, PROT_READ, 0), other = map(space, 0, 2, PROT_READ, 0);
    assert_true(one > 0 && other == one - 2 * (int64_t)PAGE);
    print_message("places are next to each other, from the top\n");
    assert_int_equal(map(space, BASE_GVA + 5, 1, PROT_READ, 0), BASE_GVA);
    assert_true(map(space, BASE_GVA, 1, PROT_READ, 0) == other - PAGE);
    print_message("a hint is taken where nothing is\n");
    assert_int_equal(map(space, BASE_GVA, 1, PROT_READ, MAP_FIXED_NOREPLACE), -EEXIST);
    assert_int_equal(map(space, BASE_GVA + 1, 1, PROT_READ, MAP_FIXED), -EINVAL);
    assert_int_equal(map(space, PAGE, 1, PROT_READ, MAP_FIXED), -EPERM);
    assert_int_equal(map(space, HART_FLAT_BYTES, 1, PROT_READ, MAP_FIXED), -ENOMEM);
    assert_int_equal(map(space, 0, HART_FLAT_BYTES / PAGE, PROT_READ, 0), -ENOMEM);
    assert_int_equal(map(space, 0, UINT64_MAX / PAGE, PROT_READ, 0), -ENOMEM);
    assert_int_equal(map(space, 0, 0, PROT_READ, 0), -EINVAL);
    assert_int_equal(user_space_unmap(space, HART_FLAT_BYTES, PAGE), -EINVAL);
    assert_int_equal(user_space_unmap(space, BASE_GVA, UINT64_MAX), -EINVAL);
    assert_int_equal(user_space_protect(space, UINT64_MAX - PAGE + 1, PAGE, PROT_READ), -ENOMEM);
    print_message("what lies outside is refused\n");
    // Over the top, below which places are looked for.
    space->top = (uint64_t)one + PAGE;
    assert_true(map(space, 0, 1, PROT_READ, 0) < other - PAGE);
    print_message("what reaches over the top is seen\n");
}

static void test_buffers(void **state)
{
    struct fixture *fixture = expect_faults(state);
    struct user_thread *thread = &fixture->thread;
    struct user_space *space = &fixture->process.space;
    const struct {
        uint64_t gva, bytes;
        bool inside;
    } cases[] = {
        {0, 0, true},
        {0, HART_FLAT_BYTES, true},
        {1, HART_FLAT_BYTES, false},
        {HART_FLAT_BYTES, 0, true},
        {HART_FLAT_BYTES, 1, false},
        {HART_FLAT_BYTES - 8, 8, true},
        {HART_FLAT_BYTES - 8, 9, false},
        {UINT64_MAX, 1, false},
        {UINT64_MAX, UINT64_MAX, false},
        {8, UINT64_MAX - 4, false},
        {1ull << 63, 16, false},
    };
    for (size_t i = 0; i < BASE_COUNT_OF(cases); i++) {
        void *hva = NULL;
        int rc = user_buffer(thread, cases[i].gva, cases[i].bytes, HART_STORE, &hva);
        assert_int_equal(rc, cases[i].inside ? 0 : -EFAULT);
        assert_true(!cases[i].inside || (uint8_t *)hva == space->hva + cases[i].gva);
    }
    print_message("buffers lie within the space\n");

    const char *text;
    char bytes[16];
    assert_int_equal(map(space, BASE_GVA, 2, PROT_READ | PROT_WRITE, MAP_FIXED), BASE_GVA);
    assert_int_equal(user_space_unmap(space, BASE_GVA + PAGE, PAGE), 0);
    assert_int_equal(user_copy_out(thread, BASE_GVA + PAGE - 4, "abc", 4), 0);
    assert_int_equal(user_copy_out(thread, BASE_GVA + PAGE - 4, "abcd", 5), -EFAULT);
    assert_int_equal(user_string(thread, BASE_GVA + PAGE - 4, &text), -EFAULT);
    print_message("a string that runs into what is not mapped is none\n");
    assert_int_equal(user_copy_out(thread, BASE_GVA + PAGE - 4, "abc", 4), 0);
    assert_int_equal(user_string(thread, BASE_GVA + PAGE - 4, &text), 0);
    assert_string_equal(text, "abc");
    assert_int_equal(user_copy_in(thread, bytes, BASE_GVA + PAGE - 4, 4), 0);
    assert_int_equal(user_copy_in(thread, bytes, BASE_GVA + PAGE - 4, 8), -EFAULT);
    assert_int_equal(user_copy_in(thread, bytes, 0x10, 8), -EFAULT);
    memset(space->hva + BASE_GVA, 'x', PAGE);
    assert_int_equal(user_string(thread, BASE_GVA, &text), -ENAMETOOLONG);
    print_message("copies stop where memory does\n");
    uint32_t expected = 0;
    assert_int_equal(user_swap(thread, BASE_GVA, &expected, 5), -EAGAIN);
    assert_int_equal(expected, 0x78787878);
    assert_int_equal(user_swap(thread, BASE_GVA, &expected, 5), 0);
    assert_int_equal(user_swap(thread, BASE_GVA + PAGE, &expected, 5), -EFAULT);
    assert_int_equal(user_swap(thread, BASE_GVA + 2, &expected, 5), -EFAULT);
    print_message("and so do swaps\n");
}

// A file that was cut off behind a mapping: an access of the monitor's survives.
static void test_file_end(void **state)
{
    struct fixture *fixture = expect_faults(state);
    struct user_space *space = &fixture->process.space;
    char byte;
    int fd = memfd_create("file", MFD_CLOEXEC);
    assert_true(fd >= 0 && ftruncate(fd, 2 * PAGE) == 0);
    int64_t gva = user_space_map(space, 0, 2 * PAGE, PROT_READ, MAP_SHARED, fd, 0);
    assert_true(gva > 0);
    assert_int_equal(user_copy_in(&fixture->thread, &byte, (uint64_t)gva + PAGE, 1), 0);
    assert_int_equal(ftruncate(fd, PAGE), 0);
    assert_int_equal(user_copy_in(&fixture->thread, &byte, (uint64_t)gva + PAGE, 1), -EFAULT);
    close(fd);
    print_message("behind a file's end there is nothing to copy\n");
}

// Whether the host was advised to use huge pages there: "hg" among the VmFlags, proc_pid_smaps(5).
static bool is_advised(const void *hva)
{
    FILE *smaps = fopen("/proc/self/smaps", "re");
    char line[4096];
    bool here = false, advised = false;
    unsigned long start, end;

    assert_non_null(smaps);
    while (fgets(line, sizeof(line), smaps))
        if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
            here = (uintptr_t)hva >= start && (uintptr_t)hva < end;
        else if (here && strncmp(line, "VmFlags:", 8) == 0)
            advised = strstr(line, " hg");
    fclose(smaps);
    return advised;
}

static void test_large(void **state)
{
    struct fixture *fixture = *state;
    struct user_space *space = &fixture->process.space;
    static const struct {
        uint64_t mib;
        int protection, flags;
        bool huge;
    } cases[] = {
        {16, PROT_READ | PROT_WRITE, 0, true},
        {8, PROT_READ | PROT_WRITE, 0, true},
        {7, PROT_READ | PROT_WRITE, 0, false},
        {16, PROT_READ, 0, false},
        {16, PROT_READ | PROT_WRITE, MAP_NORESERVE, false},
        {16, PROT_READ | PROT_WRITE, MAP_STACK, false},
    };

    if (access("/sys/kernel/mm/transparent_hugepage", F_OK) < 0)
        skip();
    for (size_t i = 0; i < BASE_COUNT_OF(cases); i++) {
        uint64_t gva = BASE_GVA + (i << 26);
        int64_t at =
            map(space, gva, cases[i].mib << 8, cases[i].protection, cases[i].flags | MAP_FIXED);
        assert_int_equal(at, gva);
        bool huge = is_advised(space->hva + gva + PAGE);
        printf("%llu MiB, flags %#x: %s\n", (unsigned long long)cases[i].mib, cases[i].flags,
               huge ? "huge pages" : "none");
        assert_int_equal(huge, cases[i].huge);
    }
}

static void test_print(void **state)
{
    struct fixture *fixture = *state;
    struct user_space *space = &fixture->process.space;
    char *text = NULL;
    size_t bytes;
    assert_int_equal(map(space, BASE_GVA, 2, PROT_READ | PROT_EXEC, MAP_FIXED), BASE_GVA);
    user_space_name(space, BASE_GVA, "[name]");
    assert_int_equal(map(space, BASE_GVA + 4 * PAGE, 1, PROT_READ, MAP_FIXED), BASE_GVA + 4 * PAGE);
    space->brk_start = BASE_GVA + 4 * PAGE;
    space->brk = space->brk_start + 8;
    FILE *out = open_memstream(&text, &bytes);
    assert_non_null(out);
    user_space_print(space, out);
    fclose(out);
    assert_string_equal(text, "100000000-100002000 r-xp 00000000 00:00 0"
                              "                                [name]\n"
                              "100004000-100005000 r--p 00000000 00:00 0"
                              "                                [heap]\n");
    free(text);
    print_message("mappings are shown as Linux shows them\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_model, setup, teardown),
        cmocka_unit_test_setup_teardown(test_places, setup, teardown),
        cmocka_unit_test_setup_teardown(test_buffers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_file_end, setup, teardown),
        cmocka_unit_test_setup_teardown(test_large, setup, teardown),
        cmocka_unit_test_setup_teardown(test_print, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
