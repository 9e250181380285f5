// SPDX-License-Identifier: BSD-2-Clause
// Names of places in riscv64 programs: functions, inlined ones, lines; at any base, mapped and
// mapped over; with debug information of their own, beside them, below a sysroot, or with none; and
// files that are broken.
#include "check_program.h"

#define BASE 0x2a00000000ull

static const char plain[] = "__attribute__((always_inline)) static inline int get(int *at, int i)\n"
                            "{\n"
                            "    __asm__ volatile(\".globl in_get\\nin_get: nop\"); // in get\n"
                            "    return at[i];\n"
                            "}\n"
                            "__attribute__((always_inline)) static inline int twice(int *at)\n"
                            "{\n"
                            "    return 2 * get(at, 3); // in twice\n"
                            "}\n"
                            "__attribute__((noinline)) int outer(int *at)\n"
                            "{\n"
                            "    int sum = twice(at); // in outer\n"
                            "    return sum + 1;\n"
                            "}\n"
                            "int table[8];\n"
                            "int main(void)\n"
                            "{\n"
                            "    return outer(table) // in main\n"
                            "        + 1;\n"
                            "}\n";

static struct check_symbols *symbols_of(const char *path, const char *sysroot)
{
    struct check_symbols *symbols;

    assert_int_equal(check_symbols_create(&symbols, sysroot), 0);
    tell_mapped(symbols, path, path, BASE);
    return symbols;
}

static void check_frame(const struct check_frame *frame, const char *function, const char *file,
                        unsigned line)
{
    assert_string_equal(frame->function, function);
    assert_string_equal(frame->file, file);
    assert_int_equal(frame->line, line);
}

static void check_inlined(struct check_symbols *symbols, uint64_t at, const char *file)
{
    struct check_frame frames[8];

    assert_int_equal(check_symbols_resolve(symbols, BASE + at, frames, 8), 3);
    check_frame(&frames[0], "get", file, line_of(plain, "// in get"));
    check_frame(&frames[1], "twice", file, line_of(plain, "// in twice"));
    check_frame(&frames[2], "outer", file, line_of(plain, "// in outer"));
    assert_true(frames[0].inlined && frames[1].inlined && !frames[2].inlined);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(frames[i].pc, BASE + at);
        assert_int_equal(frames[i].module_offset, at);
    }
    assert_int_equal(check_symbols_resolve(symbols, BASE + at, frames, 2), 2);
    assert_string_equal(frames[1].function, "twice");
    assert_int_equal(check_symbols_resolve(symbols, BASE + at, frames, 1), 1);
}

static void inlined_functions(void **state)
{
    (void)state;
    const char *path = build("inlined", plain, "-O2 -g");
    struct check_symbols *symbols = symbols_of(path, NULL);

    check_inlined(symbols, symbol_of(path, "in_get"), in_folder("inlined.c"));
    check_symbols_destroy(symbols);
}

// Wrappers of a function or an instruction, as string.h of glibc and guest.h of strake have them.
static void artificial_functions(void **state)
{
    static const char source[] =
        "#define WRAPPER __attribute__((always_inline, artificial)) static inline\n"
        "WRAPPER void inner(void) { __asm__ volatile(\".globl at_inner\\nat_inner: nop\"); }\n"
        "WRAPPER void wrapper(void) { inner(); }\n"
        "__attribute__((always_inline)) static inline void user(void)\n"
        "{\n"
        "    wrapper(); // in user\n"
        "}\n"
        "int main(void)\n"
        "{\n"
        "    user(); // in main\n"
        "}\n";
    struct check_frame frames[4];
    (void)state;
    const char *path = build("artificial", source, "-O2 -g");
    struct check_symbols *symbols = symbols_of(path, NULL);
    const char *file = in_folder("artificial.c");
    uint64_t at = BASE + symbol_of(path, "at_inner");

    assert_int_equal(check_symbols_resolve(symbols, at, frames, 4), 2);
    check_frame(&frames[0], "user", file, line_of(source, "// in user"));
    check_frame(&frames[1], "main", file, line_of(source, "// in main"));
    assert_true(frames[0].inlined && !frames[1].inlined);
    assert_int_equal(check_symbols_resolve(symbols, at, frames, 1), 1);
    check_symbols_destroy(symbols);
}

// A lambda's operator () is said to be artificial as well.
static void inlined_lambda(void **state)
{
    static const char source[] =
        "static void each(int *at, int count, auto &&what)\n"
        "{\n"
        "    for (int i = 0; i < count; i++)\n"
        "        what(at + i); // in each\n"
        "}\n"
        "int main(int count, char **)\n"
        "{\n"
        "    int many[9];\n"
        "    each(many, count, [](int *at) {\n"
        "        __asm__ volatile(\".globl in_lambda\\nin_lambda: nop\" : : \"r\"(at)); // in it\n"
        "    }); // in main\n"
        "}\n";
    struct check_frame frames[4];
    (void)state;
    const char *path = build("lambda", source, "-std=c++20 -O2 -g");
    struct check_symbols *symbols = symbols_of(path, NULL);
    uint64_t at = BASE + symbol_of(path, "in_lambda");

    assert_int_equal(check_symbols_resolve(symbols, at, frames, 4), 3);
    assert_int_equal(frames[0].line, line_of(source, "// in it"));
    assert_int_equal(frames[1].line, line_of(source, "// in each"));
    assert_string_equal(frames[2].function, "main");
    check_symbols_destroy(symbols);
}

// clang writes no .debug_aranges.
static void units_without_an_index(void **state)
{
    (void)state;
    const char *path = build("unindexed", plain, "-O2 -g");

    run(CROSS "objcopy -R .debug_aranges '%s'", path);
    struct check_symbols *symbols = symbols_of(path, NULL);
    check_inlined(symbols, symbol_of(path, "in_get"), in_folder("unindexed.c"));
    check_symbols_destroy(symbols);
}

// The call is the last instruction of its line: what it returns to is of another.
static void calls_and_what_they_return_to(void **state)
{
    static const char source[] = "__attribute__((noreturn, noinline)) void stop(void)\n"
                                 "{\n"
                                 "    for (;;)\n"
                                 "        __asm__ volatile(\"\");\n"
                                 "}\n"
                                 "__attribute__((noinline)) void first(void)\n"
                                 "{\n"
                                 "    stop(); // called\n"
                                 "}\n"
                                 "__asm__(\".globl behind\\nbehind:\");\n"
                                 "int main(void)\n"
                                 "{\n"
                                 "    first();\n"
                                 "}\n";
    const char *path = build("calls", source, "-Og -g -fno-toplevel-reorder -no-pie");
    struct check_symbols *symbols;
    struct check_frame frame;
    uint64_t behind = symbol_of(path, "behind");

    (void)state;
    assert_int_equal(check_symbols_create(&symbols, NULL), 0);
    tell_mapped(symbols, "/bin/calls", path, 0);
    assert_int_equal(check_symbols_resolve(symbols, check_place_of_return(behind), &frame, 1), 1);
    check_frame(&frame, "first", in_folder("calls.c"), line_of(source, "// called"));
    assert_int_equal(frame.pc, behind);
    assert_int_equal(frame.module_offset, behind);
    assert_string_equal(frame.module, "/bin/calls");
    check_symbols_destroy(symbols);
}

static void names_of_cxx(void **state)
{
    static const char source[] = "namespace shop {\n"
                                 "template <class T> struct box {\n"
                                 "    T value;\n"
                                 "    __attribute__((noinline)) T put(T by) {\n"
                                 "        __asm__ volatile(\".globl in_put\\nin_put:\");\n"
                                 "        return value = by; // put\n"
                                 "    }\n"
                                 "};\n"
                                 "}\n"
                                 "shop::box<int> one;\n"
                                 "int main() { return one.put(1); }\n";
    const char *path = build("boxes", source, "-std=c++17 -O1 -g");
    struct check_symbols *symbols = symbols_of(path, NULL);
    uint64_t at = BASE + symbol_of(path, "in_put");
    struct check_frame frame;

    (void)state;
    assert_int_equal(check_symbols_resolve(symbols, at, &frame, 1), 1);
    check_frame(&frame, "shop::box<int>::put(int)", in_folder("boxes.cc"),
                line_of(source, "// put"));
    check_symbols_destroy(symbols);

    run(CROSS "strip -g '%s'", path);
    symbols = symbols_of(path, NULL);
    assert_int_equal(check_symbols_resolve(symbols, at, &frame, 1), 1);
    assert_true(!frame.file && frame.line == 0);
    check_symbols_destroy(symbols);
}

static void nothing_but_symbols(void **state)
{
    const char *path = build("library", plain, "-O2 -g -shared -fPIC");
    uint64_t at = BASE + symbol_of(path, "in_get");
    struct check_symbols *symbols;
    struct check_frame frame;

    (void)state;
    run(CROSS "strip '%s'", path);  // leaves what is exported
    symbols = symbols_of(path, NULL);
    assert_int_equal(check_symbols_resolve(symbols, at, &frame, 1), 1);
    assert_non_null(frame.function);
    assert_null(frame.file);
    check_symbols_destroy(symbols);

    path = build("stripped", plain, "-O2 -g");
    at = symbol_of(path, "in_get");
    run(CROSS "strip '%s'", path);
    symbols = symbols_of(path, NULL);
    assert_int_equal(check_symbols_resolve(symbols, BASE + at, &frame, 1), 1);
    assert_true(!frame.file && frame.line == 0);
    assert_string_equal(frame.module, path);
    assert_int_equal(frame.module_offset, at);
    check_symbols_destroy(symbols);
}

// ---- Separate debug information -----------------------------------------------------------------

static void id_of(const char *path, char id[64])
{
    char command[256], line[256];

    snprintf(command, sizeof(command), CROSS "readelf -n '%s'", path);
    FILE *in = popen(command, "r");
    assert_non_null(in);
    id[0] = '\0';
    while (fgets(line, sizeof(line), in))
        sscanf(line, " Build ID: %63s", id);
    pclose(in);
    assert_int_equal(strlen(id), 40);
}

static void found_by_build_id(void **state)
{
    const char *path = build("split", plain, "-O2 -g");
    uint64_t at = symbol_of(path, "in_get");
    char id[64];

    (void)state;
    id_of(path, id);
    const char *root = in_folder("root");
    run("d=%s/usr/lib/debug/.build-id/%.2s; mkdir -p $d && " CROSS
        "objcopy --only-keep-debug '%s' $d/%s.debug",
        root, id, path, id + 2);
    run(CROSS "strip '%s'", path);
    struct check_symbols *symbols = symbols_of(path, root);
    check_inlined(symbols, at, in_folder("split.c"));
    check_symbols_destroy(symbols);

    struct check_frame frame;
    symbols = symbols_of(path, NULL);
    check_symbols_resolve(symbols, BASE + at, &frame, 1);
    assert_null(frame.file);
    check_symbols_destroy(symbols);
}

static void found_by_link(void **state)
{
    static const char *const places[] = {"linked.debug", ".debug/linked.debug",
                                         "root/usr/lib/debug/opt/linked.debug"};
    const char *path = build("linked", plain, "-O2 -g -Wl,--build-id=none");
    uint64_t at = symbol_of(path, "in_get");

    (void)state;
    run("cd %s && mkdir -p .debug root/usr/lib/debug/opt && " CROSS
        "objcopy --only-keep-debug linked linked.debug && " CROSS "strip linked && " CROSS
        "objcopy --add-gnu-debuglink=linked.debug linked",
        folder.path);
    for (size_t i = 0; i < BASE_COUNT_OF(places); i++) {
        struct check_symbols *symbols;
        if (i > 0)
            run("cd %s && mv %s %s", folder.path, places[i - 1], places[i]);
        assert_int_equal(check_symbols_create(&symbols, in_folder("root")), 0);
        tell_mapped(symbols, "/opt/linked", path, BASE);
        check_inlined(symbols, at, in_folder("linked.c"));
        check_symbols_destroy(symbols);
    }
    // Of another build: it would name the wrong lines.
    run("cd %s && printf x >> %s", folder.path, places[2]);
    struct check_symbols *symbols;
    struct check_frame frame;
    assert_int_equal(check_symbols_create(&symbols, in_folder("root")), 0);
    tell_mapped(symbols, "/opt/linked", path, BASE);
    check_symbols_resolve(symbols, BASE + at, &frame, 1);
    assert_null(frame.file);
    check_symbols_destroy(symbols);
}

// ---- Mappings -----------------------------------------------------------------------------------

static void check_name(struct check_symbols *symbols, uint64_t gva, const char *module,
                       uint64_t offset)
{
    struct check_frame frame;

    assert_int_equal(check_symbols_resolve(symbols, gva, &frame, 1), 1);
    assert_int_equal(frame.pc, gva);
    if (!module) {
        assert_null(frame.module);
        return;
    }
    assert_string_equal(frame.module, module);
    assert_int_equal(frame.module_offset, offset);
}

// Files that are no programs, so that offsets are told as they are.
static void mapped_over(void **state)
{
    struct check_symbols *symbols;
    const char *a = in_folder("data-a"), *b = in_folder("data-b");

    (void)state;
    write_file(a, "a", 1);
    write_file(b, "b", 1);
    assert_int_equal(check_symbols_create(&symbols, NULL), 0);
    check_name(symbols, 0x1000, NULL, 0);
    assert_int_equal(check_symbols_map(symbols, 0x10000, 0x8000, "/a", a, 0x40000), 0);
    check_name(symbols, 0xfffe, NULL, 0);
    check_name(symbols, 0x10000, "/a", 0x40000);
    check_name(symbols, 0x17ffe, "/a", 0x47ffe);
    check_name(symbols, 0x18000, NULL, 0);
    // In the middle; then what is left of it at both ends.
    assert_int_equal(check_symbols_map(symbols, 0x12000, 0x2000, "/b", b, 0), 0);
    check_name(symbols, 0x11ffe, "/a", 0x41ffe);
    check_name(symbols, 0x12000, "/b", 0);
    check_name(symbols, 0x13ffe, "/b", 0x1ffe);
    check_name(symbols, 0x14000, "/a", 0x44000);
    assert_int_equal(check_symbols_map(symbols, 0x11000, 0x2000, NULL, NULL, 0), 0);
    check_name(symbols, 0x10ffe, "/a", 0x40ffe);
    check_name(symbols, 0x11000, NULL, 0);
    check_name(symbols, 0x12ffe, NULL, 0);
    check_name(symbols, 0x13000, "/b", 0x1000);
    // Over all of it.
    assert_int_equal(check_symbols_map(symbols, 0x8000, 0x20000, "/b", b, 0x1000), 0);
    check_name(symbols, 0x10000, "/b", 0x9000);
    check_name(symbols, 0x17ffe, "/b", 0x10ffe);
    assert_int_equal(check_symbols_map(symbols, 0x8000, 0, "/a", a, 0), 0);
    check_name(symbols, 0x8000, "/b", 0x1000);
    assert_int_equal(check_symbols_map(symbols, UINT64_MAX - 4095, 8192, "/a", a, 0), -EINVAL);
    check_symbols_destroy(symbols);
}

// Against an array with an entry a page.
static void mapped_at_random(void **state)
{
    enum { PAGES = 64, TURNS = 2000 };
    struct page {
        const char *name;
        uint64_t offset;
    } model[PAGES] = {{NULL, 0}};
    const char *path = in_folder("data-a");
    struct check_symbols *symbols;
    unsigned seed = 8;

    (void)state;
    write_file(path, "a", 1);
    assert_int_equal(check_symbols_create(&symbols, NULL), 0);
    for (int turn = 0; turn < TURNS; turn++) {
        unsigned first = (unsigned)rand_r(&seed) % PAGES;
        unsigned count = (unsigned)rand_r(&seed) % (PAGES - first) / 2;
        uint64_t offset = (uint64_t)(rand_r(&seed) % 100) << 12;
        const char *name = (const char *[]){"/a", "/b", NULL}[rand_r(&seed) % 3];
        assert_int_equal(
            check_symbols_map(symbols, first * 4096ull, count * 4096ull, name, path, offset), 0);
        for (unsigned i = 0; i < count; i++)
            model[first + i] = (struct page){name, offset + i * 4096ull};
        for (unsigned i = 0; i < PAGES; i += 7)
            check_name(symbols, i * 4096ull + 2, model[i].name, model[i].offset + 2);
    }
    check_symbols_destroy(symbols);
}

static void two_files_at_once(void **state)
{
    const char *a = build("one", plain, "-O2 -g");
    const char *b = build("two", plain, "-O0 -g");
    struct check_symbols *symbols = symbols_of(a, NULL);
    struct check_frame frame;

    (void)state;
    tell_mapped(symbols, b, b, BASE + 0x100000);
    check_inlined(symbols, symbol_of(a, "in_get"), in_folder("one.c"));
    uint64_t at = symbol_of(b, "main");
    assert_int_equal(check_symbols_resolve(symbols, BASE + 0x100000 + at, &frame, 1), 1);
    assert_string_equal(frame.function, "main");
    assert_string_equal(frame.file, in_folder("two.c"));
    check_symbols_destroy(symbols);
}

// ---- Broken, changed and hostile files ----------------------------------------------------------

static unsigned open_descriptors(void)
{
    DIR *folder_of_all = opendir("/proc/self/fd");
    unsigned count = 0;

    assert_non_null(folder_of_all);
    while (readdir(folder_of_all))
        count++;
    closedir(folder_of_all);
    return count;
}

static void nothing_stays_open(void **state)
{
    const char *path = build("closed", plain, "-O2 -g");
    unsigned before = open_descriptors();
    struct check_symbols *symbols = symbols_of(path, NULL);

    (void)state;
    assert_int_equal(open_descriptors(), before);
    check_inlined(symbols, symbol_of(path, "in_get"), in_folder("closed.c"));
    assert_int_equal(open_descriptors(), before);
    check_symbols_destroy(symbols);
}

static void another_file_by_now(void **state)
{
    const char *path = build("changed", plain, "-O2 -g");
    struct check_symbols *symbols = symbols_of(path, NULL);
    uint64_t at = symbol_of(path, "in_get");
    struct check_frame frame;

    (void)state;
    run("cp '%s' '%s.new' && mv '%s.new' '%s'", path, path, path, path);
    assert_int_equal(check_symbols_resolve(symbols, BASE + at, &frame, 1), 1);
    assert_null(frame.function);
    assert_string_equal(frame.module, path);
    check_symbols_destroy(symbols);

    symbols = symbols_of(path, NULL);
    run("rm '%s'", path);
    assert_int_equal(check_symbols_resolve(symbols, BASE + at, &frame, 1), 1);
    assert_null(frame.function);
    check_symbols_destroy(symbols);
}

// Whatever the file is: a frame, and the end of it.
static void survives(const char *path, const uint8_t *bytes, size_t count, uint64_t at)
{
    struct check_symbols *symbols;
    struct check_frame frames[4];

    write_file(path, bytes, count);
    assert_int_equal(check_symbols_create(&symbols, NULL), 0);
    assert_int_equal(check_symbols_map(symbols, BASE, 1 << 20, path, path, 0), 0);
    for (uint64_t place = at - 16; place < at + 16; place += 9)
        assert_in_range(check_symbols_resolve(symbols, BASE + place, frames, 4), 1, 4);
    check_symbols_destroy(symbols);
}

static void broken_files(void **state)
{
    const char *path = build("whole", plain, "-O2 -g -nostdlib -nostartfiles");
    const char *broken = in_folder("broken");
    uint64_t at = symbol_of(path, "in_get");
    unsigned seed = 1;
    size_t count;
    uint8_t *bytes = read_file(path, &count);

    (void)state;
    for (size_t length = 0; length < count; length += 307)
        survives(broken, bytes, length, at);
    for (int turn = 0; turn < 60; turn++) {
        uint8_t saved[8];
        size_t place[8];
        for (int i = 0; i < 8; i++) {
            place[i] = (size_t)rand_r(&seed) % count;
            saved[i] = bytes[place[i]];
            bytes[place[i]] = (uint8_t)rand_r(&seed);
        }
        survives(broken, bytes, count, at);
        for (int i = 7; i >= 0; i--)
            bytes[place[i]] = saved[i];
    }
    free(bytes);
    run("rm '%s' && mkfifo '%s'", broken, broken);
    struct check_symbols *symbols;
    struct check_frame frame;
    assert_int_equal(check_symbols_create(&symbols, NULL), 0);
    assert_int_equal(check_symbols_map(symbols, BASE, 4096, broken, broken, 0), 0);
    assert_int_equal(check_symbols_resolve(symbols, BASE, &frame, 1), 1);
    check_symbols_destroy(symbols);
}

static void names_that_are_no_text(void **state)
{
    static const char source[] = "__asm__(\".text\\n.globl \\\"a\\x1b[2J\\xff\\\"\\n\"\n"
                                 "        \".type \\\"a\\x1b[2J\\xff\\\", @function\\n\"\n"
                                 "        \"\\\"a\\x1b[2J\\xff\\\": nop\\n.globl in_it\\n\"\n"
                                 "        \"in_it: nop\\n.size \\\"a\\x1b[2J\\xff\\\", 8\\n\");\n"
                                 "int main(void) { return 0; }\n";
    const char *path = build("rude", source, "-O2");
    struct check_symbols *symbols = symbols_of(path, NULL);
    struct check_frame frame;

    (void)state;
    assert_int_equal(check_symbols_resolve(symbols, BASE + symbol_of(path, "in_it"), &frame, 1), 1);
    assert_string_equal(frame.function, "a?[2J?");
    check_symbols_destroy(symbols);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(inlined_functions),
        cmocka_unit_test(artificial_functions),
        cmocka_unit_test(inlined_lambda),
        cmocka_unit_test(units_without_an_index),
        cmocka_unit_test(calls_and_what_they_return_to),
        cmocka_unit_test(names_of_cxx),
        cmocka_unit_test(nothing_but_symbols),
        cmocka_unit_test(found_by_build_id),
        cmocka_unit_test(found_by_link),
        cmocka_unit_test(mapped_over),
        cmocka_unit_test(mapped_at_random),
        cmocka_unit_test(two_files_at_once),
        cmocka_unit_test(nothing_stays_open),
        cmocka_unit_test(another_file_by_now),
        cmocka_unit_test(broken_files),
        cmocka_unit_test(names_that_are_no_text),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
