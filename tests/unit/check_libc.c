// SPDX-License-Identifier: BSD-2-Clause
// Functions of libc that the host does: the same results as the host's own, at any alignment, up to
// the last byte of objects and pages; what is read and written beyond is found, where it begins;
// overlapping copies; memory that is not there. All once as an interpreter asks for them, and once
// as translated code does, for which most is done at once.
#include <stdio.h>
#include <wchar.h>

#include "takeover_fixture.h"

#define UNITS 96u  // of each of the two buffers

static struct checker_thread program;

static int make_program(void **state)
{
    (void)state;
    folder_make();
    program_init(&program, NULL, 0);
    make_library(in_folder("libc.so"), "libc.so.6", "");
    program_load(&program, in_folder("libc.so"));
    return 0;
}

static int remove_program(void **state)
{
    (void)state;
    program_fini(&program);
    folder_remove();
    return 0;
}

static bool call(const char *name, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    uint64_t pc = program_find(&program, name);

    if (!pc)
        fail_msg("%s is not taken over", name);
    return program_call_at(&program, pc, a, b, c, d);
}

static uint64_t result(void)
{
    return program.hart->x[10];
}

static uint64_t object(uint64_t bytes, const char *contents)
{
    const struct heap_request request = {.bytes = bytes};
    uint64_t pointer;

    assert_int_equal(heap_allocate(program.heap, &request, &pointer), 0);
    memset(program_hva(&program, pointer), 'x', bytes);
    if (contents)
        memcpy(program_hva(&program, pointer), contents,
               strlen(contents) + (strlen(contents) < bytes));
    return pointer;
}

// ---- The same as the host's own -----------------------------------------------------------------

// What the host gives for a function: of two buffers, a unit and a number of units.
enum { OF_A, OF_B, NUMBER, SIGN, NOTHING };

struct sample {
    const char *name;
    const char *arguments;  // a, b: buffers; u: the unit, n: the number
    int result;
    unsigned unit_bytes;
    uint64_t (*host)(void *a, void *b, uint32_t u, size_t n);
};

#define HOST(name, expression)                                                                     \
    static uint64_t host_##name(void *a, void *b, uint32_t u, size_t n)                            \
    {                                                                                              \
        (void)a, (void)b, (void)u, (void)n;                                                        \
        return (uint64_t)(expression);                                                             \
    }
HOST(memcpy, memcpy(a, b, n))
HOST(mempcpy, mempcpy(a, b, n))
HOST(memmove, memmove(a, b, n))
HOST(bcopy, (bcopy(b, a, n), 0))
HOST(memccpy, memccpy(a, b, (int)u, n))
HOST(memset, memset(a, (int)u, n))
HOST(bzero, (bzero(a, n), 0))
HOST(memchr, memchr(a, (int)u, n))
HOST(rawmemchr, rawmemchr(a, 0))
HOST(memrchr, memrchr(a, (int)u, n))
HOST(memcmp, memcmp(a, b, n))
HOST(strlen, strlen(a))
HOST(strnlen, strnlen(a, n))
HOST(strchr, strchr(a, (int)u))
HOST(strchrnul, strchrnul(a, (int)u))
HOST(strrchr, strrchr(a, (int)u))
HOST(strspn, strspn(a, b))
HOST(strcspn, strcspn(a, b))
HOST(strpbrk, strpbrk(a, b))
HOST(strcmp, strcmp(a, b))
HOST(strncmp, strncmp(a, b, n))
HOST(strcpy, strcpy(a, b))
HOST(stpcpy, stpcpy(a, b))
HOST(strncpy, strncpy(a, b, n))
HOST(stpncpy, stpncpy(a, b, n))
HOST(strcat, strcat(a, b))
HOST(strncat, strncat(a, b, n))
HOST(wmemcpy, wmemcpy(a, b, n))
HOST(wmempcpy, wmempcpy(a, b, n))
HOST(wmemmove, wmemmove(a, b, n))
HOST(wmemset, wmemset(a, (wchar_t)u, n))
HOST(wmemchr, wmemchr(a, (wchar_t)u, n))
HOST(wmemcmp, wmemcmp(a, b, n))
HOST(wcslen, wcslen(a))
HOST(wcsnlen, wcsnlen(a, n))
HOST(wcschr, wcschr(a, (wchar_t)u))
HOST(wcschrnul, wcschrnul(a, (wchar_t)u))
HOST(wcsrchr, wcsrchr(a, (wchar_t)u))
HOST(wcscmp, wcscmp(a, b))
HOST(wcsncmp, wcsncmp(a, b, n))
HOST(wcscpy, wcscpy(a, b))
HOST(wcpcpy, wcpcpy(a, b))
HOST(wcsncpy, wcsncpy(a, b, n))
HOST(wcpncpy, wcpncpy(a, b, n))
HOST(wcscat, wcscat(a, b))
HOST(wcsncat, wcsncat(a, b, n))

// OpenBSD's, which the host's libc may not have.
static uint64_t host_strlcpy(void *a, void *b, uint32_t u, size_t n)
{
    (void)u;
    if (n > 0) {
        size_t fitting = strnlen(b, n - 1);
        memcpy(a, b, fitting);
        ((char *)a)[fitting] = 0;
    }
    return strlen(b);
}

static uint64_t host_strlcat(void *a, void *b, uint32_t u, size_t n)
{
    size_t before = strnlen(a, n);
    return before == n ? n + strlen(b)
                       : before + host_strlcpy((char *)a + before, b, u, n - before);
}

static uint64_t host_wcslcpy(void *a, void *b, uint32_t u, size_t n)
{
    (void)u;
    if (n > 0) {
        size_t fitting = wcsnlen(b, n - 1);
        wmemcpy(a, b, fitting);
        ((wchar_t *)a)[fitting] = 0;
    }
    return wcslen(b);
}

static uint64_t host_wcslcat(void *a, void *b, uint32_t u, size_t n)
{
    size_t before = wcsnlen(a, n);
    return before == n ? n + wcslen(b)
                       : before + host_wcslcpy((wchar_t *)a + before, b, u, n - before);
}

#define S(name, arguments, result, unit)                                                           \
    {                                                                                              \
#name, arguments, result, unit, host_##name                                                \
    }
static const struct sample samples[] = {
    S(memcpy, "abn", OF_A, 1),    S(mempcpy, "abn", OF_A, 1),   S(memmove, "abn", OF_A, 1),
    S(bcopy, "ban", NOTHING, 1),  S(memccpy, "abun", OF_A, 1),  S(memset, "aun", OF_A, 1),
    S(bzero, "an", NOTHING, 1),   S(memchr, "aun", OF_A, 1),    S(rawmemchr, "a0", OF_A, 1),
    S(memrchr, "aun", OF_A, 1),   S(memcmp, "abn", SIGN, 1),    S(strlen, "a", NUMBER, 1),
    S(strnlen, "an", NUMBER, 1),  S(strchr, "au", OF_A, 1),     S(strchrnul, "au", OF_A, 1),
    S(strrchr, "au", OF_A, 1),    S(strcmp, "ab", SIGN, 1),     S(strncmp, "abn", SIGN, 1),
    S(strcpy, "ab", OF_A, 1),     S(stpcpy, "ab", OF_A, 1),     S(strncpy, "abn", OF_A, 1),
    S(stpncpy, "abn", OF_A, 1),   S(strcat, "ab", OF_A, 1),     S(strncat, "abn", OF_A, 1),
    S(strlcpy, "abn", NUMBER, 1), S(strlcat, "abn", NUMBER, 1), S(wmemcpy, "abn", OF_A, 4),
    S(wmempcpy, "abn", OF_A, 4),  S(wmemmove, "abn", OF_A, 4),  S(wmemset, "aun", OF_A, 4),
    S(wmemchr, "aun", OF_A, 4),   S(wmemcmp, "abn", SIGN, 4),   S(wcslen, "a", NUMBER, 4),
    S(wcsnlen, "an", NUMBER, 4),  S(wcschr, "au", OF_A, 4),     S(wcschrnul, "au", OF_A, 4),
    S(wcsrchr, "au", OF_A, 4),    S(wcscmp, "ab", SIGN, 4),     S(wcsncmp, "abn", SIGN, 4),
    S(wcscpy, "ab", OF_A, 4),     S(wcpcpy, "ab", OF_A, 4),     S(wcsncpy, "abn", OF_A, 4),
    S(wcpncpy, "abn", OF_A, 4),   S(wcscat, "ab", OF_A, 4),     S(wcsncat, "abn", OF_A, 4),
    S(wcslcpy, "abn", NUMBER, 4), S(wcslcat, "abn", NUMBER, 4), S(strspn, "ab", NUMBER, 1),
    S(strcspn, "ab", NUMBER, 1),  S(strpbrk, "ab", OF_A, 1),
};

static uint64_t random_state = 1;

static uint64_t any(uint64_t below)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (random_state >> 33) % below;
}

static uint32_t any_unit(unsigned unit_bytes)
{
    static const uint32_t wide[] = {'a', 'b', 0xffffff9c, 0x10000};
    static const uint8_t narrow[] = {'a', 'b', 0x80, 0xff};
    uint64_t which = any(4);

    return unit_bytes == 1 ? narrow[which] : wide[which];
}

static void set(void *buffer, uint64_t index, uint32_t unit, unsigned unit_bytes)
{
    memcpy((uint8_t *)buffer + index * unit_bytes, &unit, unit_bytes);
}

// A text of `length`, and what comes after it, which no function should care for.
static void any_text(uint8_t *buffer, uint64_t length, unsigned unit_bytes)
{
    bool same = any(2);

    for (uint64_t i = 0; i < UNITS; i++)
        set(buffer, i, i == length ? 0 : same ? 'a' : any_unit(unit_bytes), unit_bytes);
}

// Where the program has a buffer: an object, or memory that ends with its page.
static uint64_t any_place(const uint8_t *contents, uint64_t bytes, uint64_t page)
{
    uint64_t place = any(2) ? object(bytes, NULL) : page + MEMORY_PAGE_BYTES - bytes;

    memcpy(program_hva(&program, place), contents, bytes);
    return place;
}

static uint64_t sign(uint64_t value)
{
    int32_t order = (int32_t)value;
    return order < 0 ? UINT64_MAX : order > 0;
}

static void try_sample(const struct sample *sample)
{
    uint8_t a[UNITS * 4], b[UNITS * 4];
    unsigned unit_bytes = sample->unit_bytes;
    bool appends = strstr(sample->name, "cat");
    // At the start of the buffers nothing is used, so that texts have any alignment.
    uint64_t before_a = any(17), before_b = any(17);
    uint64_t room = UNITS - 17, length_a = any(appends ? room / 2 : room);
    uint64_t length_b = any(appends ? room / 2 : room), n = any(room + 1);
    uint32_t unit = any(4) ? any_unit(unit_bytes) : 0;

    any_text(a, before_a + length_a, unit_bytes);
    any_text(b, before_b + length_b, unit_bytes);
    if (strstr(sample->name, "cmp") && any(2)) {
        memcpy(a + before_a * unit_bytes, b + before_b * unit_bytes,
               (UNITS - 17) * (size_t)unit_bytes);
        set(a, before_a + any(room), any(2) ? any_unit(unit_bytes) : 0, unit_bytes);
        set(a, UNITS - 1, 0, unit_bytes);
        set(b, UNITS - 1, 0, unit_bytes);
    }
    uint64_t bytes = UNITS * (uint64_t)unit_bytes;
    uint64_t at_a = any_place(a, bytes, PLAIN) + before_a * unit_bytes;
    uint64_t at_b = any_place(b, bytes, PLAIN + 2 * MEMORY_PAGE_BYTES) + before_b * unit_bytes;

    uint64_t arguments[4] = {0};
    for (unsigned i = 0; sample->arguments[i]; i++) {
        char kind = sample->arguments[i];
        arguments[i] = kind == 'a'   ? at_a
                       : kind == 'b' ? at_b
                       : kind == 'u' ? unit | 0xabcd00ull << 32
                       : kind == 'n' ? n
                                     : 0;
    }
    assert_true(call(sample->name, arguments[0], arguments[1], arguments[2], arguments[3]));
    if (program.checker.found || program.checker.faults)
        fail_msg("%s: something was found", sample->name);
    uint8_t *host_a = a + before_a * unit_bytes, *host_b = b + before_b * unit_bytes;
    uint64_t expected = sample->host(host_a, host_b, unit, n), got = result();
    switch (sample->result) {
    case OF_A:
        expected = expected ? at_a + (expected - (uint64_t)(uintptr_t)host_a) : 0;
        break;
    case SIGN:
        expected = sign(expected);
        got = sign(got);
        break;
    case NOTHING:
        got = expected;
        break;
    default:
        break;
    }
    if (got != expected)
        fail_msg("%s: %#lx instead of %#lx", sample->name, (long)got, (long)expected);
    if (memcmp(program_hva(&program, at_a - before_a * unit_bytes), a, bytes) != 0)
        fail_msg("%s: wrote something else", sample->name);
    const uint64_t places[] = {at_a - before_a * unit_bytes, at_b - before_b * unit_bytes};
    for (size_t i = 0; i < BASE_COUNT_OF(places); i++)
        if (memory_pointer_identifier(places[i]))
            assert_int_equal(heap_free(program.heap, places[i], HEAP_ANY, 0, NULL), 0);
}

static bool has_sample(const char *name)
{
    static const char *const seconds[] = {"bcmp", "exit", "explicit_bzero", "index", "rindex"};

    for (size_t i = 0; i < BASE_COUNT_OF(samples); i++)
        if (strcmp(samples[i].name, name) == 0)
            return true;
    for (size_t i = 0; i < BASE_COUNT_OF(seconds); i++)
        if (strcmp(seconds[i], name) == 0)
            return true;
    return strncmp(name, "__", 2) == 0;
}

static void test_same_as_hosts(void **state)
{
    (void)state;
    program_protect(&program.checker, PLAIN, MEMORY_PAGE_BYTES, PROT_READ | PROT_WRITE);
    program_protect(&program.checker, PLAIN + 2 * MEMORY_PAGE_BYTES, MEMORY_PAGE_BYTES,
                    PROT_READ | PROT_WRITE);
    for (size_t i = 0; i < BASE_COUNT_OF(samples); i++)
        for (int times = 0; times < 300; times++)
            try_sample(&samples[i]);
    // All that there are, but for second names.
    for (size_t i = 0; i < takeover_texts_count; i++)
        assert_true(has_sample(takeover_texts[i].name));
}

static void test_moves_overlap(void **state)
{
    (void)state;
    uint8_t bytes[UNITS * 8];
    for (int times = 0; times < 3000; times++) {
        uint64_t place = object(sizeof(bytes), NULL);
        for (size_t i = 0; i < sizeof(bytes); i++)
            program_hva(&program, place)[i] = bytes[i] = (uint8_t)any(256);
        uint64_t to = any(sizeof(bytes)), from = any(sizeof(bytes));
        uint64_t count = any(sizeof(bytes) - (to > from ? to : from) + 1);
        assert_true(call("memmove", place + to, place + from, count, 0));
        assert_int_equal(result(), place + to);
        memmove(bytes + to, bytes + from, count);
        assert_memory_equal(program_hva(&program, place), bytes, sizeof(bytes));
        assert_int_equal(heap_free(program.heap, place, HEAP_ANY, 0, NULL), 0);
    }
}

// ---- What is wrong ------------------------------------------------------------------------------

// The function was not done, because of an access at `offset` of the object.
static void check_found(const char *what, uint64_t place, int64_t offset, uint64_t bytes,
                        enum hart_access access)
{
    struct checker *checker = &program.checker;

    if (checker->found != 1 || checker->pointer != place + (uint64_t)offset ||
        checker->bytes != bytes || checker->access != access)
        fail_msg("%s: %u found, at %ld, %lu bytes, access %d", what, checker->found,
                 (long)(checker->pointer - place), (unsigned long)checker->bytes, checker->access);
    printf("%s: found\n", what);
}

static void test_reads_beyond(void **state)
{
    (void)state;
    uint64_t four = object(4, "abcd"), wide = object(8, NULL), text = object(20, "abcd");
    const uint32_t two[] = {'a', 'b'};

    memcpy(program_hva(&program, wide), two, sizeof(two));
    static const struct {
        const char *name;
        char of;  // which argument
        uint64_t number, offset, bytes;
    } cases[] = {
        {"strlen", 'a', 0, 4, 1},    {"strchr", 'a', 'z', 4, 1},  {"strnlen", 'a', 5, 4, 1},
        {"strrchr", 'a', 'a', 4, 1}, {"strcpy", 'b', 0, 4, 1},    {"strcat", 'b', 0, 4, 1},
        {"strcat", 'a', 0, 4, 1},    {"strcmp", 'b', 0, 4, 1},    {"strcmp", 'a', 0, 4, 1},
        {"memchr", 'a', 'z', 4, 1},  {"rawmemchr", 'a', 0, 4, 1}, {"wcslen", 'w', 0, 8, 4},
    };
    for (size_t i = 0; i < BASE_COUNT_OF(cases); i++) {
        bool second = cases[i].of == 'b', is_wide = cases[i].of == 'w';
        uint64_t place = is_wide ? wide : four;
        uint64_t other = second ? place
                         : strstr(cases[i].name, "str") == cases[i].name && !cases[i].number
                             ? text
                             : cases[i].number;
        assert_false(call(cases[i].name, second ? text : place, other, 100, 0));
        check_found(cases[i].name, place, (int64_t)cases[i].offset, cases[i].bytes, HART_LOAD);
    }
    assert_false(call("memcmp", four, text, 5, 0));
    check_found("memcmp", four, 0, 5, HART_LOAD);
    assert_false(call("memcpy", text, four, 5, 0));
    check_found("memcpy", four, 0, 5, HART_LOAD);
    assert_false(call("memrchr", four, 'd', 5, 0));
    check_found("memrchr", four, 0, 5, HART_LOAD);
    // What is found before the end needs none.
    assert_true(call("memchr", four, 'd', 100, 0));
    assert_int_equal(result(), four + 3);
    assert_true(call("strchr", four, 'c', 0, 0));
    assert_int_equal(result(), four + 2);
    assert_true(call("strnlen", four, 4, 0, 0));
    uint64_t of_c = object(2, "c");
    assert_true(call("strcspn", four, of_c, 0, 0));
    assert_int_equal(result(), 2);
    assert_true(call("strpbrk", four, of_c, 0, 0));
    assert_int_equal(result(), four + 2);
    assert_false(call("strspn", four, text, 0, 0));
    check_found("strspn", four, 4, 1, HART_LOAD);
    assert_false(call("strcspn", of_c, four, 0, 0));
    check_found("strcspn", four, 4, 1, HART_LOAD);
    assert_true(call("strncmp", four, text, 4, 0));
    assert_int_equal(result(), 0);
    assert_true(call("strncpy", text, four, 4, 0));
}

static void test_writes_beyond(void **state)
{
    (void)state;
    uint64_t eight = object(8, "abc"), text = object(20, "0123456789");

    assert_false(call("memcpy", eight, text, 9, 0));
    check_found("memcpy", eight, 0, 9, HART_STORE);
    assert_false(call("memcpy", eight, text, UINT64_MAX, 0));
    assert_int_equal(program.checker.found, 1);
    assert_false(call("memset", eight + 4, 0, 5, 0));
    check_found("memset", eight, 4, 5, HART_STORE);
    assert_false(call("memmove", eight - 1, text, 2, 0));
    check_found("memmove before", eight, -1, 2, HART_STORE);
    assert_false(call("strcpy", eight, text, 0, 0));
    check_found("strcpy", eight, 0, 11, HART_STORE);
    assert_false(call("strcat", eight, text, 0, 0));
    check_found("strcat", eight, 3, 11, HART_STORE);
    assert_false(call("strncat", eight, text, 5, 0));
    check_found("strncat", eight, 3, 6, HART_STORE);
    assert_false(call("strncpy", eight, text, 9, 0));
    check_found("strncpy", eight, 0, 9, HART_STORE);
    assert_false(call("strlcpy", eight, text, 9, 0));
    check_found("strlcpy", eight, 0, 9, HART_STORE);
    assert_false(call("wmemset", eight, 'a', 3, 0));
    check_found("wmemset", eight, 0, 12, HART_STORE);
    assert_false(call("wmemset", eight, 'a', UINT64_MAX / 2, 0));
    assert_int_equal(program.checker.found, 1);
    // Nothing was written.
    assert_memory_equal(program_hva(&program, eight), "abc\0", 4);
    assert_true(call("strncat", eight, text, 4, 0));
    assert_string_equal(program_hva(&program, eight), "abc0123");
}

// Fortified functions end the program themselves where there is less room than they write, by their
// own code: here, behind the branch at its beginning.
static void test_fortified(void **state)
{
    (void)state;
    uint64_t eight = object(8, "abc"), text = object(20, "0123456789");
    uint64_t local = STACK + STACK_BYTES - 64;
    uint64_t pc = program_find(&program, "__memcpy_chk");
    const uint32_t branch = 0x00c6e463;  // bltu a3, a2, 8

    assert_true(call("__memcpy_chk", eight, text, 8, 8));
    assert_true(call("__strcpy_chk", eight, text + 5, UINT64_MAX, 0));
    assert_string_equal(program_hva(&program, eight), "56789");
    assert_false(call("__memcpy_chk", eight, text, 9, 8));
    check_found("__memcpy_chk", eight, 0, 9, HART_STORE);
    assert_false(call("__strcat_chk", eight, text, 8, 0));
    check_found("__strcat_chk", eight, 5, 11, HART_STORE);
    memcpy(program_hva(&program, pc), &branch, sizeof(branch));
    assert_true(call("__memcpy_chk", local, text, 8, 8));
    assert_false(call("__memcpy_chk", local, text, 9, 8));
    assert_int_equal(program.checker.found, 0);
    assert_int_equal(program.hart->pc, pc + 8);
}

// exit is only looked at: it goes on behind its first instruction, of whichever kind.
static void try_exit(const char *first, uint64_t moved, uint64_t where)
{
    const char *path = in_folder("exit.so");
    char text[128];

    snprintf(text, sizeof(text), ".globl exit\n.type exit, @function\nexit: %s\nret\n", first);
    assemble_library(path, "libc.so.6", text);
    program_load_at(&program, path, where);
    uint64_t pc = program_find_at(&program, "exit", where);
    assert_false(program_call_at(&program, pc, 3, 48, 0, 0));
    assert_int_equal(program.exits_with, STACK + STACK_BYTES / 2);
    assert_int_equal(program.hart->x[2], STACK + STACK_BYTES / 2 - moved);
    assert_in_range(program.hart->pc, pc + 2, pc + 4);
}

static void test_exit(void **state)
{
    (void)state;
    uint64_t code_bytes = program.code_bytes;

    try_exit("addi sp, sp, -48", 48, CODE + (1ull << 24));
    try_exit("sub sp, sp, a1", 48, CODE + (2ull << 24));
    try_exit("lui a5, 5", 0, CODE + (3ull << 24));
    program.code_bytes = code_bytes;
    // One that begins with something else is not: it is a `ret` in the first library.
    assert_int_equal(program_find(&program, "exit"), 0);
}

static void test_goes_on(void **state)
{
    (void)state;
    uint64_t text = object(5, "abcde");
    program_hva(&program, text)[5] = 0;

    program.checker.go_on = true;
    assert_true(call("strlen", text, 0, 0, 0));
    assert_int_equal(program.checker.found, 1);
    assert_int_equal(result(), 5);
    assert_true(call("memset", text, 0, 6, 0));
    assert_int_equal(program.checker.found, 1);
    program.checker.go_on = false;
}

static void test_freed(void **state)
{
    (void)state;
    uint64_t text = object(20, "abc"), to = object(20, NULL);

    assert_int_equal(heap_free(program.heap, text, HEAP_ANY, 0, NULL), 0);
    assert_false(call("strlen", text, 0, 0, 0));
    assert_int_equal(program.checker.finding.fault, HEAP_USE_AFTER_FREE);
    assert_false(call("strcpy", to, text, 0, 0));
    assert_int_equal(program.checker.finding.fault, HEAP_USE_AFTER_FREE);
    // Of nothing, no function cares where it is.
    assert_true(call("memcpy", to, text, 0, 0));
    assert_true(call("memcmp", to, text, 0, 0));
    assert_true(call("strncmp", to, text, 0, 0));
}

static void test_overlaps(void **state)
{
    (void)state;
    uint64_t text = object(64, "abcdefghijklmnop");
    static const struct {
        const char *name;
        uint64_t to, from, count;
        bool wrong;
    } cases[] = {
        {"memcpy", 4, 0, 17, true},   {"memcpy", 0, 4, 5, true},    {"memcpy", 0, 16, 17, true},
        {"memcpy", 0, 16, 16, false}, {"memcpy", 16, 0, 16, false}, {"memcpy", 8, 8, 16, false},
        {"memmove", 4, 0, 17, false}, {"bcopy", 4, 0, 17, false},   {"strcpy", 0, 3, 0, true},
        {"strcpy", 3, 0, 0, true},    {"strcpy", 32, 0, 0, false},  {"strcat", 0, 8, 0, true},
        {"strncpy", 2, 0, 5, true},   {"strncpy", 20, 0, 5, false}, {"mempcpy", 1, 0, 2, true},
        {"wmemcpy", 4, 0, 2, true},   {"wmemcpy", 8, 0, 2, false},  {"memccpy", 0, 1, 9, true},
    };
    for (size_t i = 0; i < BASE_COUNT_OF(cases); i++) {
        strcpy((char *)program_hva(&program, text), "abcdefghijklmnop");
        bool third = strcmp(cases[i].name, "memccpy") == 0;
        bool done = call(cases[i].name, text + cases[i].to, text + cases[i].from,
                         third ? 'z' : cases[i].count, cases[i].count);
        if (done == cases[i].wrong ||
            (cases[i].wrong && program.checker.kind != CHECK_OVERLAPPING_COPY))
            fail_msg("%s from %lu to %lu", cases[i].name, cases[i].from, cases[i].to);
    }
}

// ---- Memory that is not there -------------------------------------------------------------------

static void check_fault(const char *what, uint64_t pointer, enum hart_access access)
{
    struct checker *checker = &program.checker;

    if (checker->faults != 1 || checker->fault_pointer != pointer ||
        checker->fault_access != access)
        fail_msg("%s: %u faults, at %#lx, access %d", what, checker->faults,
                 (long)checker->fault_pointer, checker->fault_access);
}

static void test_faults(void **state)
{
    (void)state;
    uint64_t last = PLAIN + MEMORY_PAGE_BYTES - 8, end = PLAIN + MEMORY_PAGE_BYTES;
    uint64_t text = object(20, "abcdefghi");

    memset(program_hva(&program, last), 'x', 8);
    assert_false(call("strlen", 0, 0, 0, 0));
    check_fault("strlen", 0, HART_LOAD);
    assert_false(call("strlen", last, 0, 0, 0));
    check_fault("strlen at the end", end, HART_LOAD);
    assert_false(call("strcpy", 8, text, 0, 0));
    check_fault("strcpy", 8, HART_STORE);
    assert_false(call("strcpy", last, text, 0, 0));
    check_fault("strcpy at the end", end, HART_STORE);
    assert_false(call("memcpy", text, last, 9, 0));
    check_fault("memcpy from the end", end, HART_LOAD);
    assert_false(call("memcmp", last, text, 9, 0));
    assert_int_equal(program.checker.faults, 1);
    assert_false(call("memset", PLAIN, 0, 1ull << 36, 0));
    check_fault("memset", end, HART_STORE);
    assert_false(call("strrchr", 16, 'a', 0, 0));
    check_fault("strrchr", 16, HART_LOAD);
    program_protect(&program.checker, PLAIN, MEMORY_PAGE_BYTES, PROT_READ);
    assert_false(call("memset", last, 0, 4, 0));
    check_fault("memset of what is only read", last, HART_STORE);
    assert_true(call("memchr", last, 'x', 4, 0));
    program_protect(&program.checker, PLAIN, MEMORY_PAGE_BYTES, PROT_READ | PROT_WRITE);
    // Beyond all that addresses are for.
    assert_false(call("strlen", HART_FLAT_BYTES + 5, 0, 0, 0));
    assert_false(call("strlen", UINT64_MAX - 5, 0, 0, 0));
    assert_false(call("memset", HART_FLAT_BYTES - 5, 0, 10, 0));
}

static void test_stack(void **state)
{
    (void)state;
    uint64_t top = STACK + STACK_BYTES - 32;

    strcpy((char *)program_hva(&program, top), "on the stack");
    assert_true(call("strlen", top, 0, 0, 0));
    assert_int_equal(result(), 12);
    assert_int_equal(program.checker.asked_count, 0);
    assert_int_equal(program.few_done > 0, program.tries_few);
    // Below the stack pointer it is asked for.
    strcpy((char *)program_hva(&program, STACK), "below");
    assert_true(call("strlen", STACK, 0, 0, 0));
    assert_int_equal(result(), 5);
    assert_int_equal(program.checker.asked_count, 1);
    assert_int_equal(program.checker.asked[0].pointer, STACK);
}

// ---- What is done at once -----------------------------------------------------------------------

#define SMALL 48u

// An object of few bytes, some of which have ended.
static uint64_t small_object(bool *ended)
{
    uint64_t bytes = 1 + any(SMALL), place = object(bytes, NULL);
    uint8_t *hva = program_hva(&program, place);

    for (uint64_t i = 0; i < bytes; i++)
        hva[i] = any(12) ? (uint8_t)('a' + any(2)) : 0;
    *ended = any(8) == 0;
    if (*ended)
        assert_int_equal(heap_free(program.heap, place, HEAP_ANY, 0, NULL), 0);
    return place;
}

// Mostly in the first half of it.
static uint64_t any_pointer(uint64_t object)
{
    return object + any(any(4) ? SMALL / 2 : SMALL + 8) - (any(16) == 0);
}

struct memory {
    uint8_t bytes[2][SMALL];
};

static void read_memory(struct memory *memory, const uint64_t objects[2])
{
    for (unsigned i = 0; i < 2; i++)
        memcpy(memory->bytes[i], program_hva(&program, objects[i]), SMALL);
}

static void write_memory(const struct memory *memory, const uint64_t objects[2])
{
    for (unsigned i = 0; i < 2; i++)
        memcpy(program_hva(&program, objects[i]), memory->bytes[i], SMALL);
}

// Whatever it is called for: what was done at once is what is done otherwise, and nothing is wrong
// with it.
static bool try_few(const struct takeover_function *function)
{
    uint64_t pc = program_find(&program, function->name);
    const void *few = takeover_few_at(program.takeover, pc);
    bool ended[2];
    const uint64_t objects[2] = {small_object(&ended[0]), small_object(&ended[1])};
    struct memory before, after, other;
    uint64_t a[4] = {any_pointer(objects[0]), any_pointer(objects[any(4) > 0]), any(SMALL / 2),
                     any(SMALL)};

    assert_non_null(few);
    if (any(4) == 0)
        a[1] = any(SMALL);
    memcpy(&program.hart->x[10], a, sizeof(a));
    program.hart->x[2] = STACK + STACK_BYTES / 2;
    read_memory(&before, objects);
    bool done = takeover_few(program.takeover, &program, program.hart, few, pc);
    uint64_t got = result();
    read_memory(&after, objects);
    if (done) {
        write_memory(&before, objects);
        bool same = program_call_at(&program, pc, a[0], a[1], a[2], a[3]) &&
                    program.checker.found == 0 && program.checker.faults == 0 && result() == got;
        read_memory(&other, objects);
        if (!same || memcmp(&after, &other, sizeof(after)) != 0)
            fail_msg("%s(%#lx, %#lx, %lu, %lu): done at once, and wrong", function->name,
                     (long)a[0], (long)a[1], (long)a[2], (long)a[3]);
    } else {
        assert_int_equal(got, a[0]);
        assert_memory_equal(&before, &after, sizeof(before));
    }
    for (unsigned i = 0; i < 2; i++)
        if (!ended[i])
            assert_int_equal(heap_free(program.heap, objects[i], HEAP_ANY, 0, NULL), 0);
    return done;
}

static void test_few(void **state)
{
    bool tries = program.tries_few;
    (void)state;
    program.tries_few = false;
    for (size_t i = 0; i < takeover_texts_count; i++) {
        unsigned done = 0, all = 2000;
        if (!takeover_texts[i].few)
            continue;
        for (unsigned times = 0; times < all; times++)
            done += try_few(&takeover_texts[i]);
        printf("%s: %u of %u done at once\n", takeover_texts[i].name, done, all);
        assert_true(done > all / 50 && done < all);
    }
    program.tries_few = tries;
}

// Near the ends of all addresses, and where there is nothing, no byte outside is looked at.
static void test_few_nowhere(void **state)
{
    static const uint64_t places[] = {0,
                                      HART_FLAT_BYTES - 300,
                                      HART_FLAT_BYTES - 5,
                                      HART_FLAT_BYTES,
                                      HART_FLAT_BYTES + 5,
                                      MEMORY_POINTER_BYTES / 2,
                                      MEMORY_POINTER_BYTES - 5};
    static const uint64_t identifiers[] = {0, 1, 0x7fff, 0x8001, 0xffff};
    unsigned tried = 0;

    (void)state;
    for (size_t i = 0; i < takeover_texts_count; i++) {
        uint64_t pc = program_find(&program, takeover_texts[i].name);
        const void *few = takeover_few_at(program.takeover, pc);
        if (!few)
            continue;
        for (size_t j = 0; j < BASE_COUNT_OF(places) * BASE_COUNT_OF(identifiers); j++) {
            uint64_t identifier = identifiers[j % BASE_COUNT_OF(identifiers)];
            uint64_t place = places[j / BASE_COUNT_OF(identifiers)];
            uint64_t pointer = identifier << MEMORY_POINTER_BITS | place;
            uint64_t arguments[4] = {pointer, pointer + 2, 3, 3};
            memcpy(&program.hart->x[10], arguments, sizeof(arguments));
            tried++;
            if (takeover_few(program.takeover, &program, program.hart, few, pc))
                fail_msg("%s(%#lx) was done", takeover_texts[i].name, (long)pointer);
        }
    }
    printf("%u calls with pointers to nowhere: none was done, or left the space\n", tried);
}

static int try_few_first(void **state)
{
    program = (struct checker_thread){0};
    make_program(state);
    program.tries_few = true;
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_as_hosts), cmocka_unit_test(test_moves_overlap),
        cmocka_unit_test(test_reads_beyond),  cmocka_unit_test(test_writes_beyond),
        cmocka_unit_test(test_fortified),     cmocka_unit_test(test_exit),
        cmocka_unit_test(test_goes_on),       cmocka_unit_test(test_freed),
        cmocka_unit_test(test_overlaps),      cmocka_unit_test(test_faults),
        cmocka_unit_test(test_stack),         cmocka_unit_test(test_few),
        cmocka_unit_test(test_few_nowhere),
    };
    int failed = cmocka_run_group_tests_name("each asked for", tests, make_program, remove_program);

    return failed +
           cmocka_run_group_tests_name("some done at once", tests, try_few_first, remove_program);
}
