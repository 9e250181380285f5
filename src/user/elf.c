// SPDX-License-Identifier: BSD-2-Clause
// Reads what an ELF program says of itself. Nothing of it is believed: after this every number is
// in its bounds, whatever the file.
//
// Sources: System V ABI, chapters 4 and 5; RISC-V ELF psABI 1.0, section 8.
#include <elf.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "user/internal.h"

#define HEADERS_MAX 512u

static int bad(const char *path, const char *why, struct error *err)
{
    return error_set(err, -ENOEXEC, "\"%s\" is no program for riscv64 Linux: %s", path, why);
}

static int check_header(const Elf64_Ehdr *header, const char *path, struct error *err)
{
    if (memcmp(header->e_ident, ELFMAG, SELFMAG) != 0)
        return bad(path, "it is no ELF file", err);
    if (header->e_ident[EI_CLASS] != ELFCLASS64 || header->e_ident[EI_DATA] != ELFDATA2LSB ||
        header->e_machine != EM_RISCV)
        return bad(path, "it is for another processor", err);
    if (header->e_type != ET_EXEC && header->e_type != ET_DYN)
        return bad(path, "it is an object file or a core dump", err);
    if (header->e_phentsize != sizeof(Elf64_Phdr) || header->e_phnum == 0 ||
        header->e_phnum > HEADERS_MAX || header->e_phoff > INT64_MAX - HEADERS_MAX * 64)
        return bad(path, "its program headers are not where they can be", err);
    if (header->e_flags & EF_RISCV_RVE)
        return bad(path, "it is for a processor with 16 registers", err);
    return 0;
}

static int read_interpreter(struct user_elf *elf, int fd, const Elf64_Phdr *header,
                            const char *path, struct error *err)
{
    if (header->p_filesz < 2 || header->p_filesz > sizeof(elf->interpreter) ||
        header->p_offset > INT64_MAX - PATH_MAX)
        return bad(path, "its interpreter's name has an impossible length", err);
    int64_t got = fd_pread_full(fd, elf->interpreter, header->p_filesz, header->p_offset);
    if (got < 0)
        return error_set_errno(err, (int)got, "cannot read \"%s\"", path);
    if ((uint64_t)got != header->p_filesz || elf->interpreter[header->p_filesz - 1] != 0)
        return bad(path, "its interpreter's name has no end", err);
    return 0;
}

static int add_segment(struct user_elf *elf, const Elf64_Phdr *header, const char *path,
                       struct error *err)
{
    const uint64_t in_page = USER_PAGE_BYTES - 1;
    if (!header->p_memsz)
        return 0;
    if (elf->segment_count == USER_ELF_SEGMENTS_MAX)
        return bad(path, "it has too many segments", err);
    if (header->p_filesz > header->p_memsz || header->p_memsz > HART_FLAT_BYTES ||
        header->p_vaddr > HART_FLAT_BYTES - header->p_memsz ||
        header->p_offset > INT64_MAX - HART_FLAT_BYTES)
        return bad(path, "a segment is larger than an address space", err);
    if ((header->p_vaddr & in_page) != (header->p_offset & in_page))
        return bad(path, "a segment lies otherwise in its page than in the file's", err);
    uint64_t end = (header->p_vaddr + header->p_memsz + in_page) & ~in_page;
    if (elf->segment_count && header->p_vaddr < elf->high)
        return bad(path, "its segments are not in the order of their addresses, or overlap", err);
    if (!elf->segment_count)
        elf->low = header->p_vaddr & ~in_page;
    elf->high = end;
    elf->segments[elf->segment_count++] = (struct user_elf_segment){
        .gva = header->p_vaddr,
        .bytes = header->p_memsz,
        .offset = header->p_offset,
        .file_bytes = header->p_filesz,
        .protection = (header->p_flags & PF_R ? PROT_READ : 0) |
                      (header->p_flags & PF_W ? PROT_WRITE : 0) |
                      (header->p_flags & PF_X ? PROT_EXEC : 0),
    };
    return 0;
}

// The program finds its own headers in memory, by a segment that has them.
static void find_headers(struct user_elf *elf, uint64_t offset)
{
    for (unsigned i = 0; i < elf->segment_count; i++) {
        const struct user_elf_segment *segment = &elf->segments[i];
        if (offset >= segment->offset && offset - segment->offset < segment->file_bytes)
            elf->headers = segment->gva + (offset - segment->offset);
    }
}

int user_elf_read(struct user_elf *elf, int fd, const char *path, struct error *err)
{
    Elf64_Ehdr header = {0};
    Elf64_Phdr headers[HEADERS_MAX];
    int64_t got = fd_pread_full(fd, &header, sizeof(header), 0);
    int rc = got < 0 ? error_set_errno(err, (int)got, "cannot read \"%s\"", path)
                     : check_header(&header, path, err);
    if (rc < 0)
        return rc;
    size_t bytes = header.e_phnum * sizeof(headers[0]);
    got = fd_pread_full(fd, headers, bytes, header.e_phoff);
    if (got < 0)
        return error_set_errno(err, (int)got, "cannot read \"%s\"", path);
    if ((size_t)got != bytes)
        return bad(path, "its program headers are cut off", err);

    *elf = (struct user_elf){.moves = header.e_type == ET_DYN,
                             .entry = header.e_entry,
                             .stack = PROT_READ | PROT_WRITE,
                             .header_count = header.e_phnum};
    for (unsigned i = 0; rc == 0 && i < header.e_phnum; i++) {
        if (headers[i].p_type == PT_LOAD)
            rc = add_segment(elf, &headers[i], path, err);
        else if (headers[i].p_type == PT_INTERP && !elf->interpreter[0])
            rc = read_interpreter(elf, fd, &headers[i], path, err);
        else if (headers[i].p_type == PT_GNU_STACK && headers[i].p_flags & PF_X)
            elf->stack |= PROT_EXEC;
    }
    if (rc < 0)
        return rc;
    if (!elf->segment_count)
        return bad(path, "nothing of it is to be loaded", err);
    find_headers(elf, header.e_phoff);
    return 0;
}
