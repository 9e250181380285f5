// SPDX-License-Identifier: BSD-2-Clause
// Boot images: where they go, and what is said of those that cannot run.
#include <elf.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "machine/board.h"
#include "unit.h"

#define MIB (1ull << 20)
#define KERNEL_GPA 0x80200000ull

struct bench {
    struct machine machine;
    struct boot_layout layout;
    struct error err;
};

static int memfd_with(const void *bytes, size_t count, uint64_t length_bytes)
{
    int fd = memfd_create("image", MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, count), count);
    assert_int_equal(ftruncate(fd, (off_t)length_bytes), 0);
    return fd;
}

static struct bench *bench_create(uint64_t memory_bytes)
{
    struct bench *bench = calloc(1, sizeof(*bench));

    assert_non_null(bench);
    bench->machine.config = (struct machine_config){
        .memory_bytes = memory_bytes,
        .kernel_fd = -1,
        .initrd_fd = -1,
        .firmware_fd = -1,
        .ram_fd = -1,
        .kernel_name = "K",
        .initrd_name = "I",
        .firmware_name = "F",
    };
    assert_int_equal(memory_create(&bench->machine.memory, NULL), 0);
    assert_int_equal(memory_add_ram(bench->machine.memory, MACHINE_RAM_GPA, memory_bytes, -1, NULL),
                     0);
    return bench;
}

static int bench_load(struct bench *bench)
{
    bench->err = (struct error){0};
    return boot_load(&bench->machine, &bench->layout, &bench->err);
}

static void bench_destroy(struct bench *bench)
{
    const int fds[] = {bench->machine.config.kernel_fd, bench->machine.config.initrd_fd,
                       bench->machine.config.firmware_fd};

    for (size_t i = 0; i < BASE_COUNT_OF(fds); i++) {
        if (fds[i] >= 0)
            close(fds[i]);
    }
    memory_destroy(bench->machine.memory);
    free(bench);
}

// A kernel's header: memory it takes with its .bss, and one section of the EFI stub's table.
static int linux_image(uint64_t file_bytes, uint64_t image_bytes)
{
    uint8_t head[0x200] = "MZ";
    const uint32_t pe = 0x40, raw_bytes = 0x1000, raw_offset = 0x1000;
    const uint16_t sections = 1, optional_bytes = 0xa0;

    memcpy(head + 0x10, &image_bytes, 8);
    memcpy(head + 0x30, "RISCV\0\0\0RSC\x05", 12);
    memcpy(head + 0x3c, &pe, 4);
    memcpy(head + pe, "PE\0\0", 4);
    memcpy(head + pe + 6, &sections, 2);
    memcpy(head + pe + 20, &optional_bytes, 2);
    memcpy(head + pe + 24 + optional_bytes + 16, &raw_bytes, 4);
    memcpy(head + pe + 24 + optional_bytes + 20, &raw_offset, 4);
    return memfd_with(head, file_bytes < sizeof(head) ? file_bytes : sizeof(head), file_bytes);
}

struct elf {
    Elf64_Ehdr header;
    Elf64_Phdr segment;
    uint8_t code[64];
};

static struct elf elf_file(uint64_t gpa)
{
    struct elf elf = {
        .header = {.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, 1},
                   .e_type = ET_EXEC,
                   .e_machine = EM_RISCV,
                   .e_entry = gpa + 4,
                   .e_phoff = offsetof(struct elf, segment),
                   .e_phentsize = sizeof(Elf64_Phdr),
                   .e_phnum = 1},
        .segment = {.p_type = PT_LOAD,
                    .p_offset = offsetof(struct elf, code),
                    .p_vaddr = gpa,
                    .p_paddr = gpa,
                    .p_filesz = 64,
                    .p_memsz = 0x1000},
    };

    memset(elf.code, 0x5a, sizeof(elf.code));
    return elf;
}

static int elf_fd(const struct elf *elf)
{
    return memfd_with(elf, sizeof(*elf), sizeof(*elf));
}

static void test_linux_image_and_initrd(void **state)
{
    (void)state;
    struct bench *bench = bench_create(64 * MIB);
    char text[8] = "";

    bench->machine.config.kernel_fd = linux_image(2 * MIB, 8 * MIB);
    bench->machine.config.initrd_fd = memfd_with("initrd", 6, 3 * MIB + 5);
    assert_int_equal(bench_load(bench), 0);
    assert_int_equal(bench->layout.kernel_entry_gpa, KERNEL_GPA);
    assert_int_equal(bench->layout.kernel.start_gpa, KERNEL_GPA);
    assert_int_equal(bench->layout.kernel.end_gpa, KERNEL_GPA + 8 * MIB);
    assert_int_equal(bench->layout.device_tree.start_gpa, MACHINE_RAM_GPA + 62 * MIB);
    assert_int_equal(bench->layout.initrd.start_gpa % MEMORY_PAGE_BYTES, 0);
    assert_int_equal(bench->layout.initrd.end_gpa - bench->layout.initrd.start_gpa, 3 * MIB + 5);
    assert_true(bench->layout.initrd.end_gpa <= bench->layout.device_tree.start_gpa);
    assert_int_equal(memory_read(bench->machine.memory, bench->layout.initrd.start_gpa, text, 6),
                     0);
    assert_string_equal(text, "initrd");
    assert_int_equal(memory_read(bench->machine.memory, KERNEL_GPA, text, 2), 0);
    assert_memory_equal(text, "MZ", 2);
    bench_destroy(bench);
}

static void test_device_tree_is_below_3_gib(void **state)
{
    (void)state;
    struct bench *bench = bench_create(4096 * MIB);

    bench->machine.config.kernel_fd = linux_image(2 * MIB, 8 * MIB);
    assert_int_equal(bench_load(bench), 0);
    assert_int_equal(bench->layout.device_tree.start_gpa, 0xbfe00000);
    bench_destroy(bench);
}

static void test_elf_kernel(void **state)
{
    (void)state;
    struct bench *bench = bench_create(16 * MIB);
    struct elf elf = elf_file(MACHINE_RAM_GPA);
    uint8_t bytes[65];

    bench->machine.config.kernel_fd = elf_fd(&elf);
    assert_int_equal(bench_load(bench), 0);
    assert_int_equal(bench->layout.kernel_entry_gpa, MACHINE_RAM_GPA + 4);
    assert_int_equal(bench->layout.kernel.end_gpa, MACHINE_RAM_GPA + 0x1000);
    assert_int_equal(memory_read(bench->machine.memory, MACHINE_RAM_GPA, bytes, 65), 0);
    assert_memory_equal(bytes, elf.code, 64);
    assert_int_equal(bytes[64], 0);
    bench_destroy(bench);
}

static void test_position_independent_elf_goes_where_there_is_memory(void **state)
{
    (void)state;
    struct bench *bench = bench_create(16 * MIB);
    struct elf elf = elf_file(0);

    elf.header.e_type = ET_DYN;
    bench->machine.config.firmware_fd = elf_fd(&elf);
    bench->machine.config.kernel_fd = elf_fd(&elf);
    assert_int_equal(bench_load(bench), 0);
    assert_int_equal(bench->layout.firmware_entry_gpa, MACHINE_RAM_GPA + 4);
    assert_int_equal(bench->layout.kernel_entry_gpa, KERNEL_GPA + 4);
    bench_destroy(bench);
}

static void test_raw_firmware(void **state)
{
    (void)state;
    struct bench *bench = bench_create(32 * MIB);

    bench->machine.config.firmware_fd = memfd_with("\x13\0\0", 4, 0x10000);
    bench->machine.config.kernel_fd = linux_image(2 * MIB, 8 * MIB);
    assert_int_equal(bench_load(bench), 0);
    assert_int_equal(bench->layout.firmware_entry_gpa, MACHINE_RAM_GPA);
    assert_int_equal(bench->layout.firmware.end_gpa, MACHINE_RAM_GPA + 0x10000);
    assert_int_equal(bench->layout.kernel_entry_gpa, KERNEL_GPA);
    bench_destroy(bench);
}

static void expect_refusal(struct bench *bench, const char *message)
{
    assert_true(bench_load(bench) < 0);
    print_message("%s\n", bench->err.message);
    assert_string_equal(bench->err.message, message);
    bench_destroy(bench);
}

static void refuse_kernel(int fd, const char *message)
{
    struct bench *bench = bench_create(16 * MIB);

    bench->machine.config.kernel_fd = fd;
    expect_refusal(bench, message);
}

static void test_foreign_kernels(void **state)
{
    (void)state;
    const struct {
        size_t offset;
        const char *magic;
        const char *message;
    } cases[] = {
        {0, "\x1f\x8b\x08", "kernel \"K\" is compressed with gzip: unpack it first"},
        {0,
         "\xfd"
         "7zXZ",
         "kernel \"K\" is compressed with xz: unpack it first"},
        {0, "\x28\xb5\x2f\xfd", "kernel \"K\" is compressed with zstd: unpack it first"},
        {4, "zimg", "kernel \"K\" is a compressed EFI (zboot) image: unpack it first"},
        {0x202, "HdrS", "kernel \"K\" is a Linux kernel for x86, not for RISC-V"},
        {0x38, "ARM\x64", "kernel \"K\" is a Linux kernel for aarch64, not for RISC-V"},
        {0, "#!/bin/sh", "kernel \"K\" is neither a RISC-V Linux Image nor an ELF file"},
    };

    for (size_t i = 0; i < BASE_COUNT_OF(cases); i++) {
        char head[0x400] = "";
        memcpy(head + cases[i].offset, cases[i].magic, strlen(cases[i].magic));
        refuse_kernel(memfd_with(head, sizeof(head), sizeof(head)), cases[i].message);
    }
    refuse_kernel(memfd_with("x", 1, 1),
                  "kernel \"K\" is neither a RISC-V Linux Image nor an ELF file");
    refuse_kernel(memfd_with("", 0, 0), "kernel \"K\" is empty");
}

static void test_foreign_elf(void **state)
{
    (void)state;
    struct elf elf = elf_file(MACHINE_RAM_GPA);

    elf.header.e_machine = EM_X86_64;
    refuse_kernel(elf_fd(&elf), "kernel \"K\" is an ELF file for x86-64, not for RISC-V");
    elf.header.e_machine = EM_AARCH64;
    refuse_kernel(elf_fd(&elf), "kernel \"K\" is an ELF file for aarch64, not for RISC-V");
    elf.header.e_machine = 0xfeed;
    refuse_kernel(elf_fd(&elf),
                  "kernel \"K\" is an ELF file for another architecture, not for RISC-V");
    elf.header.e_machine = EM_RISCV;
    elf.header.e_ident[EI_CLASS] = ELFCLASS32;
    refuse_kernel(elf_fd(&elf), "kernel \"K\" is a 32-bit ELF file, but the harts are 64-bit");
    elf.header.e_ident[EI_CLASS] = ELFCLASS64;
    elf.header.e_type = ET_REL;
    refuse_kernel(elf_fd(&elf), "kernel \"K\" is an ELF file, but not an executable");
}

static void test_broken_elf(void **state)
{
    (void)state;
    struct elf elf = elf_file(MACHINE_RAM_GPA);

    refuse_kernel(memfd_with(&elf, sizeof(elf) - 1, sizeof(elf) - 1), "kernel \"K\" is truncated");
    refuse_kernel(memfd_with(&elf, 20, 20), "kernel \"K\" is truncated");
    elf.header.e_phoff = UINT64_MAX;
    refuse_kernel(elf_fd(&elf), "kernel \"K\" is truncated");
    elf = elf_file(MACHINE_RAM_GPA);
    elf.segment.p_offset = UINT64_MAX - 10;
    refuse_kernel(elf_fd(&elf), "kernel \"K\" is truncated");
    elf = elf_file(MACHINE_RAM_GPA);
    elf.segment.p_memsz = UINT64_MAX;
    refuse_kernel(elf_fd(&elf),
                  "kernel \"K\" (17592186044416 MiB) does not fit into 16 MiB of memory");
    elf = elf_file(0x1000);
    refuse_kernel(elf_fd(&elf),
                  "kernel \"K\" is linked for address 0x1000, where there is no memory");
    elf = elf_file(MACHINE_RAM_GPA);
    elf.header.e_entry = 0;
    refuse_kernel(elf_fd(&elf), "kernel \"K\" has its entry point outside itself");
    elf = elf_file(MACHINE_RAM_GPA);
    elf.segment.p_type = PT_NOTE;
    refuse_kernel(elf_fd(&elf), "kernel \"K\" has its entry point outside itself");
}

static void test_broken_linux_images(void **state)
{
    (void)state;

    refuse_kernel(linux_image(0x1fff, MIB), "kernel \"K\" is truncated");
    refuse_kernel(linux_image(0x3c, MIB), "kernel \"K\" is truncated");
    refuse_kernel(linux_image(MIB, 13 * MIB),
                  "kernel \"K\" (13 MiB) does not fit into 16 MiB of memory");
    refuse_kernel(linux_image(MIB, UINT64_MAX),
                  "kernel \"K\" (17592186044416 MiB) does not fit into 16 MiB of memory");
    refuse_kernel(linux_image(40 * MIB, MIB),
                  "kernel \"K\" (40 MiB) does not fit into 16 MiB of memory");
}

static void test_initrd_too_large(void **state)
{
    (void)state;
    struct bench *bench = bench_create(64 * MIB);

    bench->machine.config.kernel_fd = linux_image(2 * MIB, 8 * MIB);
    bench->machine.config.initrd_fd = memfd_with("", 0, 52 * MIB + 1);
    expect_refusal(bench, "initrd \"I\" (53 MiB) does not fit into 64 MiB of memory");

    bench = bench_create(64 * MIB);  // exactly what is left
    bench->machine.config.kernel_fd = linux_image(2 * MIB, 8 * MIB);
    bench->machine.config.initrd_fd = memfd_with("", 0, 52 * MIB);
    assert_int_equal(bench_load(bench), 0);
    assert_int_equal(bench->layout.initrd.start_gpa, bench->layout.kernel.end_gpa);
    bench_destroy(bench);
}

static void test_kernel_over_firmware(void **state)
{
    (void)state;
    struct bench *bench = bench_create(64 * MIB);

    bench->machine.config.firmware_fd = memfd_with("fw", 2, 3 * MIB);
    bench->machine.config.kernel_fd = linux_image(2 * MIB, 8 * MIB);
    expect_refusal(bench, "kernel \"K\" would lie over firmware \"F\"");
}

static void test_what_cannot_be_read(void **state)
{
    (void)state;
    int pipe_fds[2];

    assert_int_equal(pipe(pipe_fds), 0);
    close(pipe_fds[1]);
    refuse_kernel(pipe_fds[0], "cannot read kernel \"K\": Illegal seek");
    struct bench *bench = bench_create(16 * MIB);
    expect_refusal(bench, "there is nothing to boot: neither a kernel nor firmware");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linux_image_and_initrd),
        cmocka_unit_test(test_device_tree_is_below_3_gib),
        cmocka_unit_test(test_elf_kernel),
        cmocka_unit_test(test_position_independent_elf_goes_where_there_is_memory),
        cmocka_unit_test(test_raw_firmware),
        cmocka_unit_test(test_foreign_kernels),
        cmocka_unit_test(test_foreign_elf),
        cmocka_unit_test(test_broken_elf),
        cmocka_unit_test(test_broken_linux_images),
        cmocka_unit_test(test_initrd_too_large),
        cmocka_unit_test(test_kernel_over_firmware),
        cmocka_unit_test(test_what_cannot_be_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
