// SPDX-License-Identifier: BSD-2-Clause
// Boot images: what they are, whether they can run here, and where they go. Sources: the Linux
// kernel's "Boot image header in RISC-V Linux"; System V ABI (ELF-64); Microsoft PE/COFF for the
// sections of a kernel's EFI stub; OpenSBI's "Firmware with dynamic information".
//
// RAM, from its base: firmware (if any); at 2 MiB the kernel; free; initrd; device tree. The tree
// is near the end, 2 MiB-aligned and below 3 GiB, where kernels map it early; the initrd right
// below it. This is what `qemu -M virt` does, but for the initrd, which that puts at a guess in the
// middle.
#include <assert.h>
#include <elf.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "machine/board.h"

#define MIB (1ull << 20)
#define KERNEL_OFFSET (2 * MIB)
#define DEVICE_TREE_ALIGN (2 * MIB)
#define DEVICE_TREE_LIMIT_GPA (3072 * MIB)
// Firmware adds to the tree where it is.
#define DEVICE_TREE_ROOM_BYTES (DEVICE_TREE_MAX_BYTES * 2ull)

struct image {
    const char *kind, *name;  // "kernel", as the user gave it
    int fd;
    uint64_t length_bytes;
    uint8_t head[1024];  // zeroes behind the end of a shorter file
};

// Where an image went.
struct placed {
    struct boot_range range;
    uint64_t entry_gpa;
};

struct loader {
    const struct machine *machine;
    struct boot_layout *layout;
    struct error *err;
};

// ---- Places -------------------------------------------------------------------------------------

static uint64_t ram_end(const struct loader *loader)
{
    return MACHINE_RAM_GPA + loader->machine->config.memory_bytes;
}

static bool overlaps(const struct boot_range *range, uint64_t start_gpa, uint64_t end_gpa)
{
    return range->start_gpa < end_gpa && start_gpa < range->end_gpa;
}

static int does_not_fit(const struct loader *loader, const struct image *image,
                        uint64_t length_bytes)
{
    return error_set(loader->err, -ENOSPC,
                     "%s \"%s\" (%llu MiB) does not fit into %llu MiB of memory", image->kind,
                     image->name,
                     (unsigned long long)(length_bytes / MIB + (length_bytes % MIB != 0)),
                     (unsigned long long)(loader->machine->config.memory_bytes / MIB));
}

// Checks that [gpa, gpa+length) is RAM and nobody else's yet.
static int place(const struct loader *loader, const struct image *image, uint64_t gpa,
                 uint64_t length_bytes, struct boot_range *range)
{
    const struct boot_layout *layout = loader->layout;

    if (gpa < MACHINE_RAM_GPA || gpa >= ram_end(loader))
        return error_set(loader->err, -ENOEXEC,
                         "%s \"%s\" is linked for address 0x%llx, where there is no memory",
                         image->kind, image->name, (unsigned long long)gpa);
    if (length_bytes > ram_end(loader) - gpa ||
        overlaps(&layout->device_tree, gpa, gpa + length_bytes))
        return does_not_fit(loader, image, length_bytes);
    if (overlaps(&layout->firmware, gpa, gpa + length_bytes))
        return error_set(loader->err, -ENOSPC, "%s \"%s\" would lie over firmware \"%s\"",
                         image->kind, image->name, loader->machine->config.firmware_name);
    *range = (struct boot_range){gpa, gpa + length_bytes};
    return 0;
}

// ---- Files --------------------------------------------------------------------------------------

static int truncated(const struct loader *loader, const struct image *image)
{
    return error_set(loader->err, -ENOEXEC, "%s \"%s\" is truncated", image->kind, image->name);
}

static int file_read(const struct loader *loader, const struct image *image, void *bytes,
                     uint64_t length_bytes, uint64_t offset)
{
    int64_t count = fd_pread_full(image->fd, bytes, length_bytes, offset);

    if (count < 0)
        return error_set_errno(loader->err, (int)count, "cannot read %s \"%s\"", image->kind,
                               image->name);
    return (uint64_t)count == length_bytes ? 0 : truncated(loader, image);
}

static int file_load(const struct loader *loader, const struct image *image, uint64_t offset,
                     uint64_t length_bytes, uint64_t gpa)
{
    if (length_bytes == 0)
        return 0;
    return file_read(loader, image, memory_ram_hva(loader->machine->memory, gpa, length_bytes),
                     length_bytes, offset);
}

static int image_open(const struct loader *loader, struct image *image)
{
    off_t end = lseek(image->fd, 0, SEEK_END);

    if (end < 0)
        return error_set_errno(loader->err, -errno, "cannot read %s \"%s\"", image->kind,
                               image->name);
    if (end == 0)
        return error_set(loader->err, -ENOEXEC, "%s \"%s\" is empty", image->kind, image->name);
    image->length_bytes = (uint64_t)end;
    uint64_t head_bytes =
        image->length_bytes < sizeof(image->head) ? image->length_bytes : sizeof(image->head);
    return file_read(loader, image, image->head, head_bytes, 0);
}

static uint64_t head_u64(const struct image *image, size_t offset)
{
    uint64_t value;

    memcpy(&value, image->head + offset, sizeof(value));
    return value;
}

static uint32_t head_u32(const struct image *image, size_t offset)
{
    return (uint32_t)head_u64(image, offset);
}

// ---- What cannot be booted ----------------------------------------------------------------------

static const struct foreign {
    uint16_t offset;
    uint8_t count;
    char magic[6];
    const char *what;
} foreign_formats[] = {
    {0, 2, "\x1f\x8b", "is compressed with gzip: unpack it first"},
    {0, 6,
     "\xfd"
     "7zXZ",
     "is compressed with xz: unpack it first"},
    {0, 4, "\x28\xb5\x2f\xfd", "is compressed with zstd: unpack it first"},
    {0, 4, "\x02\x21\x4c\x18", "is compressed with lz4: unpack it first"},
    {0, 4, "\x04\x22\x4d\x18", "is compressed with lz4: unpack it first"},
    {0, 3, "BZh", "is compressed with bzip2: unpack it first"},
    {4, 4, "zimg", "is a compressed EFI (zboot) image: unpack it first"},
    {0, 4, "\x27\x05\x19\x56", "is a U-Boot image: unpack it first"},
    {0, 4, "\xd0\x0d\xfe\xed", "is a device tree"},
    {0x202, 4, "HdrS", "is a Linux kernel for x86, not for RISC-V"},
    {0x38, 4, "ARM\x64", "is a Linux kernel for aarch64, not for RISC-V"},
    {0x24, 4, "\x18\x28\x6f\x01", "is a Linux kernel for 32-bit Arm, not for RISC-V"},
    {0x38, 4, "\xcd\x23\x82\x81", "is a Linux kernel for LoongArch, not for RISC-V"},
};

static int refuse_foreign(const struct loader *loader, const struct image *image)
{
    for (size_t i = 0; i < BASE_COUNT_OF(foreign_formats); i++) {
        const struct foreign *format = &foreign_formats[i];
        if (memcmp(image->head + format->offset, format->magic, format->count) == 0)
            return error_set(loader->err, -ENOEXEC, "%s \"%s\" %s", image->kind, image->name,
                             format->what);
    }
    return 0;
}

// ---- ELF ----------------------------------------------------------------------------------------

static const char *elf_machine_name(unsigned machine)
{
    switch (machine) {
    case EM_386:
        return "32-bit x86";
    case EM_X86_64:
        return "x86-64";
    case EM_ARM:
        return "32-bit Arm";
    case EM_AARCH64:
        return "aarch64";
    case EM_MIPS:
        return "MIPS";
    case EM_PPC:
    case EM_PPC64:
        return "PowerPC";
    case EM_S390:
        return "s390";
    case EM_SPARC:
    case EM_SPARCV9:
        return "SPARC";
    default:
        return "another architecture";
    }
}

static bool image_is_elf(const struct image *image)
{
    return memcmp(image->head, ELFMAG, SELFMAG) == 0;
}

static int elf_check(const struct loader *loader, const struct image *image,
                     const Elf64_Ehdr *header)
{
    if (image->length_bytes < sizeof(*header))
        return truncated(loader, image);
    if (header->e_ident[EI_DATA] != ELFDATA2LSB || header->e_machine != EM_RISCV)
        return error_set(loader->err, -ENOEXEC, "%s \"%s\" is an ELF file for %s, not for RISC-V",
                         image->kind, image->name,
                         header->e_ident[EI_DATA] == ELFDATA2LSB
                             ? elf_machine_name(header->e_machine)
                             : "a big-endian machine");
    if (header->e_ident[EI_CLASS] != ELFCLASS64)
        return error_set(loader->err, -ENOEXEC,
                         "%s \"%s\" is a 32-bit ELF file, but the harts are 64-bit", image->kind,
                         image->name);
    if ((header->e_type != ET_EXEC && header->e_type != ET_DYN) || header->e_phnum == 0 ||
        header->e_phentsize != sizeof(Elf64_Phdr))
        return error_set(loader->err, -ENOEXEC, "%s \"%s\" is an ELF file, but not an executable",
                         image->kind, image->name);
    return 0;
}

// Reads program header `index`; *load tells whether there is something to load.
static int elf_segment(const struct loader *loader, const struct image *image,
                       const Elf64_Ehdr *header, unsigned index, Elf64_Phdr *segment, bool *load)
{
    uint64_t offset = (uint64_t)index * sizeof(*segment);

    *load = false;
    if (header->e_phoff > image->length_bytes)
        return truncated(loader, image);
    int rc = file_read(loader, image, segment, sizeof(*segment), header->e_phoff + offset);
    if (rc < 0)
        return rc;
    *load = segment->p_type == PT_LOAD && segment->p_memsz > 0;
    if (*load && (segment->p_filesz > segment->p_memsz || segment->p_offset > image->length_bytes ||
                  segment->p_filesz > image->length_bytes - segment->p_offset))
        return truncated(loader, image);
    return 0;
}

// How far to move the image: position-independent ones linked below RAM go to `base_gpa`.
static int elf_bias(const struct loader *loader, const struct image *image,
                    const Elf64_Ehdr *header, uint64_t base_gpa, uint64_t *bias)
{
    uint64_t lowest = UINT64_MAX;

    for (unsigned i = 0; i < header->e_phnum; i++) {
        Elf64_Phdr segment;
        bool load;
        int rc = elf_segment(loader, image, header, i, &segment, &load);
        if (rc < 0)
            return rc;
        if (load && segment.p_paddr < lowest)
            lowest = segment.p_paddr;
    }
    *bias = header->e_type == ET_DYN && lowest < MACHINE_RAM_GPA ? base_gpa - lowest : 0;
    return 0;
}

static int elf_load_segment(const struct loader *loader, const struct image *image,
                            const Elf64_Ehdr *header, const Elf64_Phdr *segment, uint64_t bias,
                            struct placed *placed)
{
    uint64_t gpa = segment->p_paddr + bias;
    struct boot_range range = {0};
    int rc = place(loader, image, gpa, segment->p_memsz, &range);

    if (rc == 0)
        rc = file_load(loader, image, segment->p_offset, segment->p_filesz, gpa);
    if (rc < 0)
        return rc;
    if (!placed->range.end_gpa || range.start_gpa < placed->range.start_gpa)
        placed->range.start_gpa = range.start_gpa;
    if (range.end_gpa > placed->range.end_gpa)
        placed->range.end_gpa = range.end_gpa;
    if (header->e_entry - segment->p_vaddr < segment->p_memsz)
        placed->entry_gpa = header->e_entry - segment->p_vaddr + gpa;
    return 0;
}

static int elf_load(const struct loader *loader, const struct image *image, uint64_t base_gpa,
                    struct placed *placed)
{
    Elf64_Ehdr header;
    uint64_t bias = 0;

    memcpy(&header, image->head, sizeof(header));
    int rc = elf_check(loader, image, &header);
    if (rc == 0)
        rc = elf_bias(loader, image, &header, base_gpa, &bias);
    for (unsigned i = 0; i < header.e_phnum && rc == 0; i++) {
        Elf64_Phdr segment;
        bool load;
        rc = elf_segment(loader, image, &header, i, &segment, &load);
        if (rc == 0 && load)
            rc = elf_load_segment(loader, image, &header, &segment, bias, placed);
    }
    if (rc == 0 && !placed->entry_gpa)
        return error_set(loader->err, -ENOEXEC, "%s \"%s\" has its entry point outside itself",
                         image->kind, image->name);
    return rc;
}

// ---- Linux Image --------------------------------------------------------------------------------

enum {
    LINUX_IMAGE_SIZE = 0x10,
    LINUX_FLAGS = 0x18,  // bit 0: big-endian
    LINUX_MAGIC2 = 0x38,
    LINUX_PE_OFFSET = 0x3c,
    LINUX_HEADER_BYTES = 0x40,
};

static bool image_is_linux(const struct image *image)
{
    return memcmp(image->head + LINUX_MAGIC2, "RSC\x05", 4) == 0;
}

// The header has no file size (image_size counts .bss), but the EFI stub's section table has: the
// file must reach to the end of the last section.
static uint64_t linux_file_bytes(const struct image *image)
{
    enum { PE_SECTIONS = 6, PE_OPTIONAL_BYTES = 20, PE_HEADER_BYTES = 24 };
    enum { SECTION_RAW_BYTES = 16, SECTION_RAW_OFFSET = 20, SECTION_BYTES = 40 };
    uint64_t pe = head_u32(image, LINUX_PE_OFFSET), end = LINUX_HEADER_BYTES;

    if (memcmp(image->head, "MZ", 2) != 0 || pe > sizeof(image->head) - PE_HEADER_BYTES - 8)
        return end;
    unsigned sections = head_u32(image, pe + PE_SECTIONS) & 0xffff;
    uint64_t section = pe + PE_HEADER_BYTES + (head_u32(image, pe + PE_OPTIONAL_BYTES) & 0xffff);
    for (; sections && section <= sizeof(image->head) - SECTION_BYTES; sections--) {
        uint64_t section_end = (uint64_t)head_u32(image, section + SECTION_RAW_OFFSET) +
                               head_u32(image, section + SECTION_RAW_BYTES);
        end = section_end > end ? section_end : end;
        section += SECTION_BYTES;
    }
    return end;
}

static int linux_load(const struct loader *loader, const struct image *image, uint64_t gpa,
                      struct placed *placed)
{
    uint64_t memory_bytes = head_u64(image, LINUX_IMAGE_SIZE);

    if (head_u64(image, LINUX_FLAGS) & 1)
        return error_set(loader->err, -ENOEXEC, "%s \"%s\" is big-endian", image->kind,
                         image->name);
    if (image->length_bytes < linux_file_bytes(image))
        return truncated(loader, image);
    if (memory_bytes < image->length_bytes)
        memory_bytes = image->length_bytes;
    int rc = place(loader, image, gpa, memory_bytes, &placed->range);
    if (rc < 0)
        return rc;
    placed->entry_gpa = gpa;
    return file_load(loader, image, 0, image->length_bytes, gpa);
}

// ---- The images of a machine --------------------------------------------------------------------

static int firmware_load(const struct loader *loader, struct placed *placed)
{
    const struct machine_config *config = &loader->machine->config;
    struct image image = {
        .kind = "firmware", .name = config->firmware_name, .fd = config->firmware_fd};
    int rc = image_open(loader, &image);

    if (rc < 0)
        return rc;
    if (image_is_elf(&image))
        return elf_load(loader, &image, MACHINE_RAM_GPA, placed);
    rc = refuse_foreign(loader, &image);
    if (rc == 0)
        rc = place(loader, &image, MACHINE_RAM_GPA, image.length_bytes, &placed->range);
    if (rc < 0)
        return rc;
    placed->entry_gpa = MACHINE_RAM_GPA;
    return file_load(loader, &image, 0, image.length_bytes, MACHINE_RAM_GPA);
}

static int kernel_load(const struct loader *loader, struct placed *placed)
{
    const struct machine_config *config = &loader->machine->config;
    const uint64_t gpa = MACHINE_RAM_GPA + KERNEL_OFFSET;
    struct image image = {.kind = "kernel", .name = config->kernel_name, .fd = config->kernel_fd};
    int rc = image_open(loader, &image);

    if (rc < 0)
        return rc;
    if (image_is_linux(&image))
        return linux_load(loader, &image, gpa, placed);
    if (image_is_elf(&image))
        return elf_load(loader, &image, gpa, placed);
    rc = refuse_foreign(loader, &image);
    return rc < 0 ? rc
                  : error_set(loader->err, -ENOEXEC,
                              "kernel \"%s\" is neither a RISC-V Linux Image nor an ELF file",
                              image.name);
}

static int initrd_load(const struct loader *loader, struct boot_range *range)
{
    const struct machine_config *config = &loader->machine->config;
    const struct boot_layout *layout = loader->layout;
    struct image image = {.kind = "initrd", .name = config->initrd_name, .fd = config->initrd_fd};
    int rc = image_open(loader, &image);

    if (rc < 0)
        return rc;
    uint64_t floor = layout->kernel.end_gpa > layout->firmware.end_gpa ? layout->kernel.end_gpa
                                                                       : layout->firmware.end_gpa;
    uint64_t top = layout->device_tree.start_gpa;
    if (floor >= top || image.length_bytes > top - floor ||
        ((top - image.length_bytes) & -(uint64_t)MEMORY_PAGE_BYTES) < floor)
        return does_not_fit(loader, &image, image.length_bytes);
    range->start_gpa = (top - image.length_bytes) & -(uint64_t)MEMORY_PAGE_BYTES;
    range->end_gpa = range->start_gpa + image.length_bytes;
    return file_load(loader, &image, 0, image.length_bytes, range->start_gpa);
}

static void device_tree_place(const struct loader *loader, struct boot_range *range)
{
    uint64_t end = ram_end(loader);

    if (end > DEVICE_TREE_LIMIT_GPA)
        end = DEVICE_TREE_LIMIT_GPA;
    range->start_gpa = (end - DEVICE_TREE_ROOM_BYTES) & -DEVICE_TREE_ALIGN;
    range->end_gpa = range->start_gpa + DEVICE_TREE_ROOM_BYTES;
}

int boot_load(const struct machine *machine, struct boot_layout *layout, struct error *err)
{
    const struct machine_config *config = &machine->config;
    struct loader loader = {.machine = machine, .layout = layout, .err = err};
    struct placed firmware = {0}, kernel = {0};
    int rc = 0;

    *layout = (struct boot_layout){0};
    device_tree_place(&loader, &layout->device_tree);
    if (config->kernel_fd < 0 && config->firmware_fd < 0)
        return error_set(err, -EINVAL, "there is nothing to boot: neither a kernel nor firmware");
    if (config->firmware_fd >= 0)
        rc = firmware_load(&loader, &firmware);
    layout->firmware = firmware.range;
    layout->firmware_entry_gpa = firmware.entry_gpa;
    if (rc == 0 && config->kernel_fd >= 0)
        rc = kernel_load(&loader, &kernel);
    layout->kernel = kernel.range;
    layout->kernel_entry_gpa = kernel.entry_gpa;
    if (rc == 0 && config->initrd_fd >= 0)
        rc = initrd_load(&loader, &layout->initrd);
    return rc;
}

// ---- The way into firmware ----------------------------------------------------------------------

// What a hart executes first, and what it hands over: a0 = hart id, a1 = device tree, a2 = where
// OpenSBI's fw_dynamic reads what to start next.
struct boot_rom {
    uint32_t code[6];
    uint64_t entry_gpa;
    uint64_t device_tree_gpa;
    struct {
        uint64_t magic, version, next_gpa, next_mode, options, boot_hart;
    } dynamic;
};

int boot_write_rom(struct machine *machine, struct error *err)
{
    const struct boot_layout *layout = &machine->layout;
    const struct boot_rom rom = {
        .code =
            {
                0x00000297,  // auipc t0, 0
                0xf1402573,  // csrr  a0, mhartid
                0x0202b583,  // ld    a1, device_tree_gpa
                0x02828613,  // addi  a2, t0, dynamic
                0x0182b283,  // ld    t0, entry_gpa
                0x00028067,  // jr    t0
            },
        .entry_gpa = layout->firmware_entry_gpa,
        .device_tree_gpa = layout->device_tree.start_gpa,
        .dynamic = {.magic = 0x4942534f,
                    .version = 2,
                    .next_gpa = layout->kernel_entry_gpa,
                    .next_mode = HART_S},
    };
    static_assert(offsetof(struct boot_rom, entry_gpa) == 0x18, "as the code has it");
    static_assert(offsetof(struct boot_rom, device_tree_gpa) == 0x20, "as the code has it");
    static_assert(offsetof(struct boot_rom, dynamic) == 0x28, "as the code has it");

    int rc = memory_write(machine->memory, BOOT_ROM_GPA, &rom, sizeof(rom));
    return rc < 0 ? error_set_errno(err, rc, "cannot write the boot ROM") : 0;
}
