// SPDX-License-Identifier: BSD-2-Clause
// Which functions of which files are taken over: libraries by their names, static programs, own
// allocators and operators, indirect functions, what the command line names; what is mapped over
// and unmapped; files that are broken; threads.
#include <pthread.h>
#include <stdio.h>

#include "takeover_fixture.h"

static struct checker_thread program;

static int make_program(void **state)
{
    (void)state;
    program_init(&program, NULL, 0);
    return 0;
}

static int remove_program(void **state)
{
    (void)state;
    program_fini(&program);
    return 0;
}

static const char *library(const char *soname, const char *more)
{
    const char *path = in_folder("library.so");
    make_library(path, soname, more);
    return path;
}

static void check_taken(const char *what, const char *name, bool expected)
{
    if (!program_find(&program, name) == expected)
        fail_msg("%s: %s is %staken over", what, name, expected ? "not " : "");
}

static void test_libraries(void **state)
{
    (void)state;
    static const struct {
        const char *soname;
        bool texts, allocators, operators;
    } cases[] = {
        {"libc.so.6", true, true, false},
        {"libc.musl-riscv64.so.1", true, true, false},
        {"libc.so", true, true, false},
        {"libstdc++.so.6", false, false, true},
        {"libc++.so.1", false, false, true},
        {"libc++abi.so.1", false, false, true},
        {"ld-linux-riscv64-lp64d.so.1", false, true, false},
        {"libcurl.so.4", false, true, false},
    };
    for (size_t i = 0; i < BASE_COUNT_OF(cases); i++) {
        make_program(state);
        program_load(&program, library(cases[i].soname, ""));
        check_taken(cases[i].soname, "strlen", cases[i].texts);
        check_taken(cases[i].soname, "wcscpy", cases[i].texts);
        check_taken(cases[i].soname, "malloc", cases[i].allocators);
        check_taken(cases[i].soname, "_Znwm", cases[i].operators);
        check_taken(cases[i].soname, "_ZdaPvm", cases[i].operators);
        printf("%s: as it has to be\n", cases[i].soname);
        remove_program(state);
    }
}

static void test_real_libc(void **state)
{
    (void)state;
    static const char *const names[] = {"malloc",   "free",           "realloc", "calloc",
                                        "memalign", "posix_memalign", "memcpy",  "strlen",
                                        "wcslen",   "strcmp",         "memset"};
    program_load(&program, "/usr/riscv64-linux-gnu/lib/libc.so.6");
    for (size_t i = 0; i < BASE_COUNT_OF(names); i++) {
        uint64_t pc = takeover_function_pc(program.takeover, names[i]);
        assert_true(pc >= CODE && takeover_has(program.takeover, pc));
        assert_false(takeover_has(program.takeover, pc + 2));
    }
    assert_int_not_equal(takeover_function_pc(program.takeover, "__errno_location"), 0);
}

// ---- Programs -----------------------------------------------------------------------------------

static void load(const char *source, const char *flags)
{
    program_load(&program, build("program", source, flags));
}

static bool taken(const char *name)
{
    uint64_t pc = takeover_function_pc(program.takeover, name);
    return pc && takeover_has(program.takeover, pc);
}

static void test_static_program(void **state)
{
    (void)state;
    load("#include <stdlib.h>\n#include <string.h>\n"
         "#include <errno.h>\n"
         "int main(int c, char **v) { char *p = malloc(c); strcpy(p, v[0]); free(p); return errno; "
         "}",
         "-static -O0");
    assert_true(taken("malloc") && taken("free") && taken("strcpy") && taken("strlen"));
    assert_false(taken("_Znwm"));
    assert_int_not_equal(takeover_function_pc(program.takeover, "__errno_location"), 0);
}

static const char with_new[] = "#include <new>\n#include <vector>\nint main(int c, char **v)\n"
                               "{ std::vector<int> a(c); a[0] = 1; delete new int; }";

static void test_static_operators(void **state)
{
    (void)state;
    load(with_new, "-std=c++17 -static -O0");
    assert_true(taken("malloc") && taken("_Znwm") && taken("_ZdlPv"));
    assert_true(takeover_families(program.takeover));
}

static void test_own_operators(void **state)
{
    (void)state;
    static const char own[] = "#include <cstdlib>\nvoid *operator new(std::size_t n)\n"
                              "{ return std::malloc(n); }\nvoid operator delete(void *p) noexcept\n"
                              "{ std::free(p); }\nint main() { delete[] new int[9]; }";

    load(own, "-std=c++17 -static -O0");
    assert_true(taken("malloc") && !taken("_Znwm") && !taken("_Znam") && !taken("_ZdlPv"));
    remove_program(state);
    make_program(state);
    program_load_at(&program, library("libstdc++.so.6", ""), CODE + (1ull << 24));
    assert_true(taken("_Znwm"));
    load(own, "-std=c++17 -O0");
    assert_false(taken("_Znwm"));
    assert_false(takeover_families(program.takeover));
    program_load_at(&program, library("libc++.so.1", ""), CODE + (2ull << 24));
    assert_false(taken("_Znam"));
}

static const char bump[] = "#include <stddef.h>\nstatic char pool[1 << 20]; static size_t used;\n"
                           "void *malloc(size_t n) { void *p = pool + used;\n"
                           "used += (n + 15) / 16 * 16; return p; }\nvoid free(void *p) { }\n"
                           "void *calloc(size_t a, size_t b) { return malloc(a * b); }\n"
                           "void *realloc(void *p, size_t n) { return malloc(n); }\n"
                           "int main(void) { free(malloc(5)); return 0; }";
static const char hands_on[] = "#include <stddef.h>\nvoid *__libc_malloc(size_t); int count;\n"
                               "void __libc_free(void *);\nvoid *malloc(size_t n)\n"
                               "{ count++; return __libc_malloc(n); }\n"
                               "void free(void *p) { __libc_free(p); }\n"
                               "int main(void) { free(malloc(5)); return 0; }";

static void test_own_allocator(void **state)
{
    static const char *const flags[] = {"-O0", "-static -O0"};
    for (size_t i = 0; i < BASE_COUNT_OF(flags); i++) {
        make_program(state);
        load(bump, flags[i]);
        assert_true(taken("malloc") && taken("free") && taken("calloc"));
        remove_program(state);
    }
    make_program(state);
    load(hands_on, "-O0");
    assert_false(taken("malloc"));
    assert_false(taken("free"));
    remove_program(state);
}

// As musl 1.2 is made, static, with an allocator of the program's own or without.
static const char musl[] =
    "#include <stddef.h>\nstatic char pool[999];\nint __libc_start_main(void) { return 0; }\n"
    "__attribute__((visibility(\"hidden\"))) void *__libc_malloc(size_t n) { return pool + n; }\n"
    "__attribute__((visibility(\"hidden\"))) void __libc_free(void *p) { (void)p; }\n"
    "void free(void *p) { __libc_free(p); }\n"
    "#ifdef OWN\nvoid *malloc(size_t n) { return __libc_malloc(n + 1); }\n#else\n"
    "static void *default_malloc(size_t n) { return __libc_malloc(n); }\n"
    "void *malloc(size_t) __attribute__((weak, alias(\"default_malloc\")));\n#endif\n"
    "void _start(void) { free(malloc(__libc_start_main())); }\n";

static void test_musl(void **state)
{
    (void)state;
    load(musl, "-static -nostdlib -fno-builtin -O0");
    assert_true(taken("malloc") && taken("free"));
    remove_program(state);
    make_program(state);
    load(musl, "-static -nostdlib -fno-builtin -O0 -DOWN");
    assert_false(taken("malloc"));
    assert_false(taken("free"));
}

// A linker that keeps one of two functions that are the same.
static void test_shared_operators(void **state)
{
    (void)state;
    const char *path = in_folder("folded.so");
    static const char text[] = ".globl _ZdlPv, _ZdaPv, _Znwm\n.type _ZdlPv, @function\n"
                               ".type _ZdaPv, @function\n.type _Znwm, @function\n"
                               "_Znwm: nop\n_ZdlPv:\n_ZdaPv: ret\n";

    assemble_library(path, "libc++.so.1", text);
    program_load(&program, path);
    assert_false(taken("_Znwm"));
    assert_false(taken("_ZdlPv"));
}

// ---- Indirect functions -------------------------------------------------------------------------

static void test_indirect(void **state)
{
    (void)state;
    const char *path = in_folder("indirect.so");
    static const char text[] = ".globl memset, strlen\n.type memset, %gnu_indirect_function\n"
                               "memset: ret\n.type strlen, @function\nstrlen: nop\nret\n";

    assemble_library(path, "libc.so.6", text);
    program_load(&program, path);
    assert_true(program_call_at(&program, program_find(&program, "memset"), 0, 0, 0, 0));
    uint64_t landed = program.hart->x[10];
    assert_in_range(landed, LANDING, LANDING + TAKEOVER_LANDING_BYTES - 1);
    assert_true(takeover_has(program.takeover, landed));
    assert_string_equal(takeover_name(program.takeover, landed), "memset");
    assert_true(program_call_at(&program, landed, STACK + STACK_BYTES - 64, 'u', 5, 0));
    assert_memory_equal(program_hva(&program, STACK + STACK_BYTES - 64), "uuuuu\0", 6);
    assert_false(takeover_has(program.takeover, LANDING + 1));
    assert_false(takeover_has(program.takeover, LANDING + TAKEOVER_LANDING_BYTES));

    // Without a place to land, it is left as it is.
    const struct takeover_options options = {0};
    struct takeover *takeover;
    struct error err;
    assert_int_equal(takeover_create(&takeover, &options, &err), 0);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    for (uint64_t offset = 0; offset < 0x2000; offset += 0x1000)
        assert_int_equal(takeover_map(takeover, CODE + offset, 0x1000, fd, offset), 0);
    close(fd);
    assert_int_equal(takeover_function_pc(takeover, "memset"), 0);
    assert_int_not_equal(takeover_function_pc(takeover, "strlen"), 0);
    assert_false(takeover_has(takeover, LANDING));
    takeover_destroy(takeover);
}

// ---- Options ------------------------------------------------------------------------------------

static void test_options(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "",
        "alloc",
        "alloc=",
        "free=f",
        "allocate=f,free=g",
        "alloc=f@0,free=g",
        "alloc=f@8,free=g",
        "alloc=f@1x,free=g",
        "alloc=@1,free=g",
        "alloc=f,free=g,",
        "alloc=a,alloc=b,alloc=c,alloc=d,alloc=e",
    };
    for (size_t i = 0; i < BASE_COUNT_OF(wrong); i++) {
        const struct takeover_options options = {.allocators = &wrong[i], .allocators_count = 1};
        struct takeover *takeover;
        struct error err;
        assert_int_equal(takeover_create(&takeover, &options, &err), -EINVAL);
        printf("%s\n", err.message);
    }
}

static void test_named_anywhere(void **state)
{
    (void)state;
    // Also a function that only its file knows, and one that has another meaning otherwise.
    static const char *const named[] = {"alloc=get,free=put", "alloc=strdup@2"};
    program_init(&program, named, BASE_COUNT_OF(named));
    load("static char pool[99];\n"
         "__attribute__((noinline)) static void *get(int n) { return pool + n; }\n"
         "__attribute__((noinline)) static void put(void *p) { pool[0] = *(char *)p; }\n"
         "void *strdup(const char *p) { return (void *)p; }\n"
         "int main(int c, char **v) { put(get(c)); return strdup(v[0]) != v[0]; }",
         "-O1");
    assert_true(taken("get") && taken("put") && taken("strdup"));
    assert_false(taken("main"));
    program_fini(&program);
}

// ---- Mapping ------------------------------------------------------------------------------------

static void test_unmapped(void **state)
{
    (void)state;
    const char *path = library("libc.so.6", "");

    program_load(&program, path);
    uint64_t pc = program_find(&program, "malloc");
    takeover_unmap(program.takeover, pc - pc % 4096, 4096);
    assert_false(takeover_has(program.takeover, pc));
    assert_int_equal(takeover_function_pc(program.takeover, "malloc"), 0);
    program_load(&program, path);
    assert_true(takeover_has(program.takeover, pc));
    // The range ends before it, or begins behind.
    takeover_unmap(program.takeover, 0, pc);
    takeover_unmap(program.takeover, pc + 1, UINT64_MAX - pc - 1);
    assert_true(takeover_has(program.takeover, pc));
    takeover_unmap(program.takeover, 0, UINT64_MAX);
    assert_false(takeover_has(program.takeover, pc));
}

static void test_mapped_everywhere(void **state)
{
    (void)state;
    const char *path = library("libc.so.6", "");

    program_load(&program, path);
    uint64_t offset = program_find(&program, "malloc") - CODE;
    for (uint64_t i = 1; i < 200; i++) {
        uint64_t gva = CODE + (i << 20);
        program_load_at(&program, path, gva);
        assert_true(takeover_has(program.takeover, gva + offset));
        takeover_unmap(program.takeover, gva - (1 << 20), program.code_bytes);
        assert_false(takeover_has(program.takeover, gva - (1 << 20) + offset));
    }
}

// ---- Broken files -------------------------------------------------------------------------------

static uint64_t random_state = 5;

static uint64_t any(uint64_t below)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (random_state >> 33) % below;
}

static void try_file(const uint8_t *bytes, size_t count)
{
    const char *path = in_folder("broken");

    write_file(path, bytes, count);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    for (uint64_t offset = 0; offset < 3 * MEMORY_PAGE_BYTES; offset += MEMORY_PAGE_BYTES)
        assert_int_equal(takeover_map(program.takeover, CODE + offset, 4096, fd, offset), 0);
    close(fd);
}

static void test_broken_files(void **state)
{
    (void)state;
    size_t count;
    uint8_t *good = read_file(library("libc.so.6", ""), &count);
    uint8_t *bytes = malloc(count);

    assert_non_null(bytes);
    for (int times = 0; times < 600; times++) {
        memcpy(bytes, good, count);
        const Elf64_Ehdr *header = (const void *)good;
        // Headers, tables and all else, alike often.
        for (uint64_t changes = 1 + any(6); changes > 0; changes--) {
            uint64_t start = any(3) == 0 ? 0 : any(2) ? header->e_shoff : any(count);
            uint64_t at = start + any(start ? 64 * header->e_shnum : 256);
            if (at < count)
                bytes[at] = (uint8_t)(any(2) ? any(256) : any(2) ? 0xff : 0);
        }
        try_file(bytes, any(4) ? count : any(count));
    }
    try_file(bytes, 0);
    free(bytes);
    free(good);
    // What is no file at all.
    assert_int_equal(takeover_map(program.takeover, CODE, 4096, -1, 0), 0);
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_int_equal(takeover_map(program.takeover, CODE, 4096, fd, 0), 0);
    close(fd);
    fd = open("/", O_RDONLY | O_CLOEXEC);
    assert_int_equal(takeover_map(program.takeover, CODE, 4096, fd, 0), 0);
    close(fd);
    assert_int_equal(takeover_map(program.takeover, UINT64_MAX - 5, 4096, 0, 0), 0);
    assert_int_equal(takeover_map(program.takeover, CODE, UINT64_MAX, 0, 0), 0);
}

// ---- Threads ------------------------------------------------------------------------------------

static atomic_bool done;

static void *look(void *argument)
{
    const uint64_t *pc = argument;
    uintptr_t wrong = 0;

    while (!done) {
        wrong += !takeover_has(program.takeover, *pc);
        wrong += takeover_has(program.takeover, *pc + 2);
    }
    return (void *)wrong;  // NOLINT(performance-no-int-to-ptr)
}

static void test_threads(void **state)
{
    (void)state;
    const char *path = library("libc.so.6", "");
    pthread_t threads[2];
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    program_load(&program, path);
    uint64_t pc = program_find(&program, "strlen");
    for (size_t i = 0; i < BASE_COUNT_OF(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, look, &pc), 0);
    for (uint64_t i = 1; i < 100; i++)
        for (uint64_t offset = 0; offset < 0x3000; offset += 0x1000)
            assert_int_equal(
                takeover_map(program.takeover, CODE + (i << 20) + offset, 4096, fd, offset), 0);
    takeover_unmap(program.takeover, CODE + (1 << 20), 1ull << 30);
    done = true;
    for (size_t i = 0; i < BASE_COUNT_OF(threads); i++) {
        void *wrong;
        pthread_join(threads[i], &wrong);
        assert_null(wrong);
    }
    close(fd);
}

int main(void)
{
#define WITH_PROGRAM(test) cmocka_unit_test_setup_teardown(test, make_program, remove_program)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_libraries),
        WITH_PROGRAM(test_real_libc),
        WITH_PROGRAM(test_static_program),
        WITH_PROGRAM(test_static_operators),
        WITH_PROGRAM(test_musl),
        WITH_PROGRAM(test_own_operators),
        cmocka_unit_test(test_own_allocator),
        WITH_PROGRAM(test_shared_operators),
        WITH_PROGRAM(test_indirect),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_named_anywhere),
        WITH_PROGRAM(test_unmapped),
        WITH_PROGRAM(test_mapped_everywhere),
        WITH_PROGRAM(test_broken_files),
        WITH_PROGRAM(test_threads),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
