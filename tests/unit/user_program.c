// SPDX-License-Identifier: BSD-2-Clause
// What a path stands for that is to be executed, and what an ELF file says of itself.
#include <elf.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "unit.h"
#include "user/internal.h"

#define HEADERS 3

struct image {
    Elf64_Ehdr header;
    Elf64_Phdr headers[HEADERS];
    char interpreter[32];
};

static struct image good_image(void)
{
    return (struct image){
        .header = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                   .e_type = ET_EXEC,
                   .e_machine = EM_RISCV,
                   .e_entry = 0x10100,
                   .e_phoff = offsetof(struct image, headers),
                   .e_phentsize = sizeof(Elf64_Phdr),
                   .e_phnum = HEADERS},
        .headers = {{.p_type = PT_INTERP,
                     .p_offset = offsetof(struct image, interpreter),
                     .p_filesz = 8},
                    {.p_type = PT_LOAD,
                     .p_flags = PF_R | PF_X,
                     .p_vaddr = 0x10000,
                     .p_filesz = 0x800,
                     .p_memsz = 0x800},
                    {.p_type = PT_LOAD,
                     .p_flags = PF_R | PF_W,
                     .p_offset = 0x1000,
                     .p_vaddr = 0x12000,
                     .p_filesz = 0x10,
                     .p_memsz = 0x3000}},
        .interpreter = "/lib/ld"};
}

static int file_of(const void *bytes, size_t count)
{
    int fd = memfd_create("file", 0);
    assert_true(fd >= 0 && write(fd, bytes, count) == (ssize_t)count);
    assert_int_equal(fchmod(fd, 0755), 0);
    return fd;
}

static int read_image(struct user_elf *elf, const struct image *image, struct error *err)
{
    int fd = file_of(image, sizeof(*image));
    int rc = user_elf_read(elf, fd, "program", err);
    close(fd);
    return rc;
}

static void test_good(void **state)
{
    static struct user_elf elf;
    struct image image = good_image();
    (void)state;
    assert_int_equal(read_image(&elf, &image, NULL), 0);
    assert_int_equal(elf.segment_count, 2);
    assert_int_equal(elf.low, 0x10000);
    assert_int_equal(elf.high, 0x15000);
    assert_int_equal(elf.headers, 0x10000 + offsetof(struct image, headers));
    assert_int_equal(elf.segments[0].protection, PROT_READ | PROT_EXEC);
    assert_int_equal(elf.segments[1].bytes, 0x3000);
    assert_false(elf.moves);
    assert_string_equal(elf.interpreter, "/lib/ld");
    assert_int_equal(elf.stack, PROT_READ | PROT_WRITE);
    image.headers[0] = (Elf64_Phdr){.p_type = PT_GNU_STACK, .p_flags = PF_R | PF_W | PF_X};
    assert_int_equal(read_image(&elf, &image, NULL), 0);
    assert_int_equal(elf.stack, PROT_READ | PROT_WRITE | PROT_EXEC);
    print_message("a program is as it says\n");
}

// One thing wrong with an image, and what is said of it.
struct wrong {
    void (*change)(struct image *image);
    const char *said;
};

static void other_magic(struct image *image)
{
    image->header.e_ident[1] = 'X';
}
static void other_machine(struct image *image)
{
    image->header.e_machine = EM_X86_64;
}
static void small_class(struct image *image)
{
    image->header.e_ident[EI_CLASS] = ELFCLASS32;
}
static void object_file(struct image *image)
{
    image->header.e_type = ET_REL;
}
static void few_registers(struct image *image)
{
    image->header.e_flags = EF_RISCV_RVE;
}
static void many_headers(struct image *image)
{
    image->header.e_phnum = 0xffff;
}
static void far_headers(struct image *image)
{
    image->header.e_phoff = UINT64_MAX - 8;
}
static void cut_headers(struct image *image)
{
    image->header.e_phoff = sizeof(*image) - 8;
}
static void nothing_loaded(struct image *image)
{
    image->headers[1].p_type = image->headers[2].p_type = PT_NOTE;
}
static void more_in_file(struct image *image)
{
    image->headers[1].p_filesz = 0x801;
}
static void huge_segment(struct image *image)
{
    image->headers[2].p_memsz = UINT64_MAX;
}
static void far_segment(struct image *image)
{
    image->headers[2].p_vaddr = HART_FLAT_BYTES - 0x1000;
}
static void wrapping_segment(struct image *image)
{
    image->headers[2].p_vaddr = UINT64_MAX - 0xfff;
}
static void far_offset(struct image *image)
{
    image->headers[2].p_offset = UINT64_MAX - 0xfff;
}
static void other_place_in_page(struct image *image)
{
    image->headers[2].p_offset = 0x1010;
}
static void wrong_order(struct image *image)
{
    image->headers[2].p_vaddr = 0x2000;
}
static void overlapping(struct image *image)
{
    image->headers[2].p_vaddr = 0x10000;
}
static void endless_interpreter(struct image *image)
{
    image->headers[0].p_filesz = 7;
}
static void long_interpreter(struct image *image)
{
    image->headers[0].p_filesz = PATH_MAX + 1;
}

static void test_wrong(void **state)
{
    static const struct wrong wrongs[] = {
        {other_magic, "no ELF file"},
        {other_machine, "another processor"},
        {small_class, "another processor"},
        {object_file, "object file"},
        {few_registers, "16 registers"},
        {many_headers, "program headers"},
        {far_headers, "program headers"},
        {cut_headers, "cut off"},
        {nothing_loaded, "nothing of it"},
        {more_in_file, "larger than"},
        {huge_segment, "larger than"},
        {far_segment, "larger than"},
        {wrapping_segment, "larger than"},
        {far_offset, "larger than"},
        {other_place_in_page, "in its page"},
        {wrong_order, "order"},
        {overlapping, "order"},
        {endless_interpreter, "no end"},
        {long_interpreter, "impossible length"},
    };
    static struct user_elf elf;
    (void)state;
    for (size_t i = 0; i < BASE_COUNT_OF(wrongs); i++) {
        struct error err = {0};
        struct image image = good_image();
        wrongs[i].change(&image);
        assert_int_equal(read_image(&elf, &image, &err), -ENOEXEC);
        print_message("%s\n", err.message);
        assert_non_null(strstr(err.message, wrongs[i].said));
    }
}

// ---- What is executed ---------------------------------------------------------------------------

static int find(struct user_program *program, const char *name, const void *bytes, size_t count)
{
    char *const argv[] = {(char[]){"own name"}, (char[]){"x"}, NULL};
    int fd = file_of(bytes, count);
    int rc = user_program_find(program, NULL, name, fd, argv, NULL);
    close(fd);
    return rc;
}

static void test_kinds(void **state)
{
    struct user_program program;
    struct image image = good_image();
    (void)state;
    assert_int_equal(find(&program, "guest", &image, sizeof(image)), 0);
    assert_false(program.hosts);
    assert_string_equal(program.argv[0], "own name");
    assert_string_equal(program.argv[1], "x");
    assert_null(program.argv[2]);
    user_program_fini(&program);
    other_machine(&image);
    assert_int_equal(find(&program, "hosts", &image, sizeof(image)), 0);
    assert_true(program.hosts);
    user_program_fini(&program);
    assert_int_equal(find(&program, "empty", "", 0), 0);
    assert_true(program.hosts);
    user_program_fini(&program);
    print_message("programs, those of the host, and what is for it to refuse\n");
}

static void test_scripts(void **state)
{
    struct user_program program;
    static const char script[] = "#! \t/proc/self/exe  one  argument \t\nmore\n";
    (void)state;
    assert_int_equal(find(&program, "script", script, sizeof(script) - 1), 0);
    assert_true(program.hosts);
    static const char *const argv[] = {"/proc/self/exe", "one  argument", "script", "x"};
    for (size_t i = 0; i < BASE_COUNT_OF(argv); i++)
        assert_string_equal(program.argv[i], argv[i]);
    assert_null(program.argv[BASE_COUNT_OF(argv)]);
    user_program_fini(&program);
    print_message("a script's interpreter gets one argument and the script\n");
    assert_int_equal(find(&program, "script", "#!", 2), -ENOEXEC);
    assert_int_equal(find(&program, "script", "#! \t\n", 5), -ENOEXEC);
    assert_int_equal(find(&program, "script", "#!/nonexistent", 14), -ENOENT);
    assert_int_equal(find(&program, "script", "#!/", 3), -EACCES);
    print_message("or there is none\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_wrong),
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_scripts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
