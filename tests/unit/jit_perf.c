// SPDX-License-Identifier: BSD-2-Clause
// Names of guest code, and the map of translated code that is made with them.
#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "jit/jit.h"
#include "jit/symbols.h"

static struct hart_engine engine;
static struct jit_options options = {.code_bytes = JIT_CODE_BYTES_MIN};
#define GUEST_ENGINE engine
#include "interp_guest.h"

static int file_of(const void *bytes, size_t count)
{
    int fd = memfd_create("test", MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, count), count);
    return fd;
}

static int add_bytes(struct jit_symbols *symbols, const void *bytes, size_t count)
{
    int fd = file_of(bytes, count), status = jit_symbols_add(symbols, fd);

    close(fd);
    return status;
}

static int add_text(struct jit_symbols *symbols, const char *text)
{
    return add_bytes(symbols, text, strlen(text));
}

static void check_name(const struct jit_symbols *symbols, uint64_t gva, const char *expected)
{
    const char *name = jit_symbols_find(symbols, gva);

    printf("%" PRIx64 ": %s\n", gva, name ? name : "(none)");
    if (expected)
        assert_string_equal(name ? name : "(none)", expected);
    else
        assert_null(name);
}

// ---- Symbols

static void test_lists(void **state)
{
    struct jit_symbols symbols = {0};

    (void)state;
    assert_int_equal(add_text(&symbols, "ffffffff80000040 T second\n"
                                        "ffffffff80000000 t first\n"
                                        "                 U unknown\n"
                                        "ffffffff80000020 d data\n"
                                        "ffffffff80000050 t .Llocal\n"
                                        "ffffffff01200000 t of_module\t[virtio_blk]\n"),
                     0);
    assert_int_equal(add_text(&symbols, "0000000000010000 T main\n0000000000010080 T exit"), 0);
    check_name(&symbols, 0xffffffff80000000, "first");
    check_name(&symbols, 0xffffffff8000003f, "first");
    check_name(&symbols, 0xffffffff80000060, "second");
    check_name(&symbols, 0xffffffff01200004, "of_module");
    check_name(&symbols, 0x1007e, "main");
    check_name(&symbols, 0x10080, "exit");
    check_name(&symbols, 0xffff, NULL);
    check_name(&symbols, 0x10080 + (64 << 10), NULL);
    check_name(&symbols, UINT64_MAX, NULL);
    jit_symbols_fini(&symbols);
}

static void test_what_is_no_list(void **state)
{
    static const char *const texts[] = {
        "", "\n", "no kernel\n", "10000 T\n", "10000\n", "10000 T main\nelse\n", "10000 d data\n",
    };
    struct jit_symbols symbols = {0};

    (void)state;
    for (size_t i = 0; i < BASE_COUNT_OF(texts); i++)
        assert_int_equal(add_text(&symbols, texts[i]), -ENOEXEC);
    assert_int_equal(add_bytes(&symbols, "10000 T main\n\0", 14), -ENOEXEC);
    assert_int_equal(symbols.count, 0);
    check_name(&symbols, 0x10000, NULL);
    jit_symbols_fini(&symbols);
}

struct program {
    Elf64_Ehdr header;
    Elf64_Shdr sections[4];  // nothing, code, symbols, their names
    Elf64_Sym symbols[5];
    char names[32];
};

static struct program make_program(void)
{
    struct program program = {
        .header = {.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB},
                   .e_shoff = offsetof(struct program, sections),
                   .e_shentsize = sizeof(Elf64_Shdr),
                   .e_shnum = 4},
        .sections = {[1] = {.sh_type = SHT_PROGBITS, .sh_flags = SHF_EXECINSTR},
                     [2] = {.sh_type = SHT_SYMTAB,
                            .sh_offset = offsetof(struct program, symbols),
                            .sh_size = sizeof(program.symbols),
                            .sh_link = 3},
                     [3] = {.sh_type = SHT_STRTAB,
                            .sh_offset = offsetof(struct program, names),
                            .sh_size = sizeof(program.names)}},
        .symbols = {[1] = {.st_name = 1,
                           .st_info = ELF64_ST_INFO(STB_GLOBAL, STT_FUNC),
                           .st_shndx = 1,
                           .st_value = 0x1000,
                           .st_size = 16},
                    [2] = {.st_name = 6, .st_shndx = 1, .st_value = 0x1020},
                    [3] = {.st_name = 11,
                           .st_info = ELF64_ST_INFO(STB_GLOBAL, STT_OBJECT),
                           .st_shndx = 1,
                           .st_value = 0x1030,
                           .st_size = 64},
                    [4] = {.st_name = 6, .st_shndx = SHN_ABS, .st_value = 0x50000}},
        .names = "\0main\0loop\0data\0",
    };

    return program;
}

static void test_program(void **state)
{
    struct program program = make_program();
    struct jit_symbols symbols = {0};

    (void)state;
    assert_int_equal(add_bytes(&symbols, &program, sizeof(program)), 0);
    check_name(&symbols, 0x1000, "main");
    check_name(&symbols, 0x100f, "main");
    check_name(&symbols, 0x1010, NULL);
    check_name(&symbols, 0x1020, "loop");
    check_name(&symbols, 0x1034, "loop");  // which has no size; "data" is no code
    check_name(&symbols, 0x50000, NULL);
    jit_symbols_fini(&symbols);
}

// Cut at any place, and with each byte of the headers and symbols changed: names or none, but
// nothing outside of the file is read.
static void test_damaged_programs(void **state)
{
    const struct program whole = make_program();
    unsigned refused = 0, taken = 0;

    (void)state;
    for (size_t bytes = 0; bytes < sizeof(whole); bytes++) {
        struct jit_symbols symbols = {0};

        assert_int_equal(add_bytes(&symbols, &whole, bytes), -ENOEXEC);
        jit_symbols_fini(&symbols);
    }
    for (size_t at = SELFMAG; at < sizeof(whole); at++) {
        for (unsigned flip = 1; flip < 256; flip <<= 1) {
            struct program program = whole;
            struct jit_symbols symbols = {0};

            ((uint8_t *)&program)[at] ^= (uint8_t)flip;
            if (add_bytes(&symbols, &program, sizeof(program)) == 0)
                taken++;
            else
                refused++;
            jit_symbols_find(&symbols, 0x1000);
            jit_symbols_fini(&symbols);
        }
    }
    printf("damaged programs: %u taken, %u refused\n", taken, refused);
    assert_true(taken > 0 && refused > 0);
}

// ---- The map

struct line {
    uint64_t start, bytes;
    char name[64];
};

static unsigned read_map(int fd, struct line *lines, unsigned room)
{
    FILE *file = fdopen(dup(fd), "r");
    unsigned count = 0;

    rewind(file);
    while (count < room && fscanf(file, "%" SCNx64 " %" SCNx64 " %63s\n", &lines[count].start,
                                  &lines[count].bytes, lines[count].name) == 3)
        count++;
    assert_true(feof(file));
    fclose(file);
    return count;
}

// Blocks that jump to one another around a page, more than the smallest code memory holds.
static void put_blocks(struct guest *guest, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        put_at(guest, CODE + 64u * i, addi(5, 5, 1));
        put(guest, i + 1 < count ? jal(0, 60) : jalr(0, 9, 0));
    }
}

static void test_map(void **state)
{
    static const char names[] = "80001000 T begin\n80001040 T rest\n";
    const unsigned rest = 20;
    struct line lines[64];
    unsigned count, begins = 0, rests = 0;
    int fd = memfd_create("map", MFD_CLOEXEC), reader = dup(fd);
    int symbols = file_of(names, strlen(names));

    assert_int_equal(jit_perf_map_create(&options.perf_map, fd), 0);
    assert_int_equal(jit_perf_map_add_symbols(options.perf_map, symbols), 0);
    close(symbols);
    assert_int_equal(guest_setup(state), 0);
    struct guest *guest = *state;
    put_blocks(guest, rest + 1);
    guest_run(guest, CODE);
    guest_run(guest, CODE);
    guest_teardown(state);
    jit_perf_map_destroy(options.perf_map);
    options.perf_map = NULL;

    count = read_map(reader, lines, BASE_COUNT_OF(lines));
    for (unsigned i = 0; i < count; i++) {
        printf("%" PRIx64 " %" PRIx64 " %s\n", lines[i].start, lines[i].bytes, lines[i].name);
        begins += strcmp(lines[i].name, "begin") == 0;
        rests += strcmp(lines[i].name, "rest") == 0;
        assert_true(lines[i].bytes > 0);
        // Two harts have the thunks at a start; within each, code does not overlap.
        if (i && strcmp(lines[i].name, "strake:thunks") != 0 && lines[i].start > lines[i - 1].start)
            assert_true(lines[i - 1].start + lines[i - 1].bytes <= lines[i].start);
    }
    assert_int_equal(begins, 1);
    assert_int_equal(rests, rest);
    assert_string_equal(lines[count - 1].name, "M:80000000");
    close(reader);
}

// What is dropped is taken out: no two lines are of the same code.
static void test_drops(void **state)
{
    static struct line lines[4096];
    const unsigned blocks = 1500;
    struct jit_stats stats;
    int fd = memfd_create("map", MFD_CLOEXEC), reader = dup(fd);
    unsigned count;

    assert_int_equal(jit_perf_map_create(&options.perf_map, fd), 0);
    assert_int_equal(guest_setup(state), 0);
    struct guest *guest = *state;
    put_blocks(guest, blocks);
    for (unsigned i = 0; i < 3; i++)
        guest_run(guest, CODE);
    jit_stats(guest->hart->engine_state, &stats);
    guest_teardown(state);
    jit_perf_map_destroy(options.perf_map);
    options.perf_map = NULL;

    count = read_map(reader, lines, BASE_COUNT_OF(lines));
    printf("%" PRIu64 " translations, %u lines\n", stats.translations, count);
    assert_true(stats.translations > blocks && count > 2 && count < blocks);
    for (unsigned i = 0; i < count; i++)
        for (unsigned j = 0; j < i; j++)
            assert_true(lines[i].start + lines[i].bytes <= lines[j].start ||
                        lines[j].start + lines[j].bytes <= lines[i].start);
    close(reader);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lists),   cmocka_unit_test(test_what_is_no_list),
        cmocka_unit_test(test_program), cmocka_unit_test(test_damaged_programs),
        cmocka_unit_test(test_map),     cmocka_unit_test(test_drops),
    };

    engine = hart_engine_jit;
    engine.options = &options;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
