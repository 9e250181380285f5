// SPDX-License-Identifier: BSD-2-Clause
// isa-coverage PROGRAM...: fails when a form of the instruction table (compressed ones included) is
// the instruction under test of no case in any test program.
//
// What that guarantees: each case names the address of one instruction (section .cases, see
// firmware.h and cases.h); its bytes, as they are in the program, are decoded here, so a case
// counts for what is really encoded and not for what its text says. The program itself fails when
// one of its cases never ran, and its run is a test of its own. In assembly programs "ran" means
// that the check that ends the case was reached. In C programs it means that the code was entered;
// that its outcome is looked at is up to whoever writes it. How good the checked values are, this
// cannot say.
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "isa/isa.h"

struct program {
    const char *path;
    uint8_t *bytes;
    size_t size_bytes;
};

// As struct test_case of the guest side.
struct program_case {
    uint64_t insn, name, ran, entry;
};

static void *checked(const struct program *program, uint64_t offset, uint64_t length)
{
    if (length > program->size_bytes || offset > program->size_bytes - length) {
        fprintf(stderr, "isa-coverage: '%s' is no complete ELF file\n", program->path);
        exit(1);
    }
    return program->bytes + offset;
}

static void read_program(struct program *program, const char *path)
{
    FILE *file = fopen(path, "rb");
    long size = file && !fseek(file, 0, SEEK_END) ? ftell(file) : -1;

    *program = (struct program){path, size > 0 ? malloc((size_t)size) : NULL, (size_t)size};
    if (!program->bytes || fseek(file, 0, SEEK_SET) ||
        fread(program->bytes, 1, program->size_bytes, file) != program->size_bytes) {
        fprintf(stderr, "isa-coverage: cannot read '%s'\n", path);
        exit(1);
    }
    fclose(file);
}

// NULL when there is none: a program need not have cases.
static const Elf64_Shdr *find_section(const struct program *program, const char *name)
{
    const Elf64_Ehdr *header = checked(program, 0, sizeof(*header));
    const Elf64_Shdr *sections =
        checked(program, header->e_shoff, sizeof(*sections) * header->e_shnum);
    const Elf64_Shdr *names = &sections[header->e_shstrndx];

    for (unsigned i = 0; i < header->e_shnum; i++) {
        const char *found =
            checked(program, names->sh_offset + sections[i].sh_name, strlen(name) + 1);
        if (!strcmp(found, name))
            return &sections[i];
    }
    return NULL;
}

// The instruction at `gva`; a compressed one may be the last of its section.
static uint32_t fetch(const struct program *program, const Elf64_Shdr *text, uint64_t gva)
{
    uint32_t raw = 0;
    uint64_t offset = gva - text->sh_addr;

    memcpy(&raw, checked(program, text->sh_offset + offset, 2), 2);
    if ((raw & 3) == 3)
        memcpy(&raw, checked(program, text->sh_offset + offset, 4), 4);
    return raw;
}

// Counts the program's cases a form.
static void count_cases(const struct program *program, unsigned *counts)
{
    const Elf64_Shdr *text = find_section(program, ".text");
    const Elf64_Shdr *cases = find_section(program, ".cases");

    for (uint64_t at = 0; text && cases && at + sizeof(struct program_case) <= cases->sh_size;
         at += sizeof(struct program_case)) {
        const struct program_case *entry = checked(program, cases->sh_offset + at, sizeof(*entry));
        struct isa_insn insn;

        isa_decode(fetch(program, text, entry->insn), &insn);
        counts[insn.form]++;
    }
}

int main(int argc, char **argv)
{
    unsigned counts[ISA_FORM_COUNT] = {0}, missing = 0;

    for (int i = 1; i < argc; i++) {
        struct program program;

        read_program(&program, argv[i]);
        count_cases(&program, counts);
        free(program.bytes);
    }
    for (unsigned form = ISA_FORM_ILLEGAL + 1; form < ISA_FORM_COUNT; form++) {
        if (counts[form])
            continue;
        printf("no case: %s (%s)\n", isa_form_mnemonic(form), isa_form_extension(form));
        missing++;
    }
    printf("%u of %u instruction forms have cases\n", ISA_FORM_COUNT - 1 - missing,
           ISA_FORM_COUNT - 1);
    return missing ? 1 : 0;
}
