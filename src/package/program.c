// SPDX-License-Identifier: BSD-2-Clause
// Whether a file is a program of the host's kind: ELF-64 Object File Format 1.5, and the x86-64
// psABI. This finds mistakes (a text, a library, another architecture's program) before the program
// is run; that it is one of ours is for its digest to say, that it works for its self-test.
#include <elf.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "package/package.h"

#define SEGMENTS_MAX 64u

struct program {
    uint64_t bytes;  // of the file
    Elf64_Ehdr header;
    Elf64_Phdr segments[SEGMENTS_MAX];
};

static const char *header_fault(const struct program *program)
{
    const Elf64_Ehdr *header = &program->header;

    if (memcmp(header->e_ident, ELFMAG, SELFMAG) != 0)
        return "is no ELF file";
    if (header->e_ident[EI_CLASS] != ELFCLASS64 || header->e_ident[EI_DATA] != ELFDATA2LSB ||
        header->e_machine != EM_X86_64)
        return "is for another kind of host";
    if (header->e_ident[EI_VERSION] != EV_CURRENT || header->e_version != EV_CURRENT ||
        (header->e_ident[EI_OSABI] != ELFOSABI_SYSV && header->e_ident[EI_OSABI] != ELFOSABI_LINUX))
        return "is for another system";
    if (header->e_type != ET_EXEC && header->e_type != ET_DYN)
        return "is no program";
    if (header->e_phentsize != sizeof(Elf64_Phdr) || header->e_phnum < 1 ||
        header->e_phnum > SEGMENTS_MAX)
        return "has no table of segments";
    return NULL;
}

static const char *segment_fault(const struct program *program, const Elf64_Phdr *segment)
{
    if (segment->p_offset > program->bytes ||
        segment->p_filesz > program->bytes - segment->p_offset)
        return "is cut off";
    if (segment->p_type == PT_LOAD &&
        (segment->p_memsz < segment->p_filesz || segment->p_memsz > UINT64_MAX - segment->p_vaddr))
        return "has a segment that cannot be loaded";
    return NULL;
}

static bool holds_entry(const Elf64_Phdr *segment, uint64_t entry)
{
    return segment->p_type == PT_LOAD && (segment->p_flags & PF_X) && entry >= segment->p_vaddr &&
           entry - segment->p_vaddr < segment->p_filesz;
}

static const char *segments_fault(const struct program *program)
{
    bool entry = false, interpreter = false;

    for (unsigned i = 0; i < program->header.e_phnum; i++) {
        const Elf64_Phdr *segment = &program->segments[i];
        const char *fault = segment_fault(program, segment);
        if (fault)
            return fault;
        entry |= holds_entry(segment, program->header.e_entry);
        interpreter |= segment->p_type == PT_INTERP;
    }
    if (!entry)
        return "has no code where it starts";
    // Without an interpreter, what may be placed anywhere is a library.
    return program->header.e_type == ET_DYN && !interpreter ? "is no program" : NULL;
}

int package_program_check(int fd, struct error *err)
{
    struct program program;
    struct stat status;
    const char *fault = "is no ELF file";

    if (fstat(fd, &status) == 0 &&
        fd_pread_full(fd, &program.header, sizeof(program.header), 0) == sizeof(program.header)) {
        program.bytes = (uint64_t)status.st_size;
        fault = header_fault(&program);
        if (!fault) {
            size_t bytes = program.header.e_phnum * sizeof(Elf64_Phdr);
            int64_t got = program.header.e_phoff > program.bytes
                              ? 0
                              : fd_pread_full(fd, program.segments, bytes, program.header.e_phoff);
            fault = got == (int64_t)bytes ? segments_fault(&program) : "is cut off";
        }
    }
    return fault ? error_set(err, -ENOEXEC, "the program %s", fault) : 0;
}
