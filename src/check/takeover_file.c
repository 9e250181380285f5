// SPDX-License-Identifier: BSD-2-Clause
// What a file's symbols say: which functions of those known are in it, and whether they are what
// their names say. The file may be anything: libelf reads it, within its size, and nothing of it is
// mapped, as it may be cut off meanwhile.
#include <errno.h>
#include <gelf.h>
#include <stdlib.h>
#include <string.h>

#include "check/takeover_internal.h"

#define SECTION_BYTES_MAX (256ull << 20)
#define SYMBOLS_MAX 65536u  // of interest
#define FUNCTION_BYTES_MAX 512u

// A symbol whose name is that of a function.
struct found {
    const struct takeover_function *function;
    uint64_t address;  // as linked; 0: it is defined elsewhere
    uint64_t bytes;
    bool resolver, exported, local, weak;
};

struct reader {
    const struct takeover *takeover;
    Elf *elf;
    int fd;
    bool position_independent_program, has_interpreter, fixed, has_symbols;
    char soname[64];
    // The executable part that is mapped, as linked: [first, first + bytes), from `offset` of the
    // file on.
    uint64_t first, bytes, offset;
    struct found *found;
    size_t count, room;
    bool no_memory;
};

// ---- Reading ------------------------------------------------------------------------------------

// What is executable at the offset.
static bool find_segment(struct reader *reader)
{
    uint64_t offset = reader->offset;
    size_t count;
    bool found = false;
    GElf_Phdr header;

    if (elf_getphdrnum(reader->elf, &count) < 0)
        return false;
    for (size_t i = 0; i < count && gelf_getphdr(reader->elf, (int)i, &header); i++) {
        uint64_t before = header.p_offset % MEMORY_PAGE_BYTES;
        uint64_t start = header.p_offset - before;
        if (header.p_type == PT_INTERP)
            reader->has_interpreter = true;
        if (header.p_type != PT_LOAD || !(header.p_flags & PF_X) || found || offset < start ||
            offset - start >= header.p_filesz + before)
            continue;
        reader->first = header.p_vaddr - before + (offset - start);
        found = true;
    }
    return found;
}

static void read_dynamic(struct reader *reader, Elf_Scn *section, const GElf_Shdr *header)
{
    Elf_Data *data = elf_getdata(section, NULL);
    GElf_Dyn entry;

    for (int i = 0; data && gelf_getdyn(data, i, &entry) && entry.d_tag != DT_NULL; i++) {
        const char *text = entry.d_tag == DT_SONAME
                               ? elf_strptr(reader->elf, header->sh_link, entry.d_un.d_val)
                               : NULL;
        if (text)
            strncpy(reader->soname, text, sizeof(reader->soname) - 1);
        if (entry.d_tag == DT_FLAGS_1 && (entry.d_un.d_val & DF_1_PIE))
            reader->position_independent_program = true;
    }
}

// The function of a name, which may have a version behind it (.symtab's of libraries).
static const struct takeover_function *function_of(const struct takeover *takeover,
                                                   const char *name)
{
    const char *version = strchr(name, '@');
    char plain[64];

    if (!version)
        return takeover_function_find(takeover, name);
    size_t length = (size_t)(version - name);
    if (length >= sizeof(plain))
        return NULL;
    memcpy(plain, name, length);
    plain[length] = 0;
    return takeover_function_find(takeover, plain);
}

static void add(struct reader *reader, const struct found *found)
{
    if (reader->count == reader->room && reader->room < SYMBOLS_MAX) {
        size_t room = 2 * reader->room + 64;
        struct found *larger = reallocarray(reader->found, room, sizeof(*larger));
        if (!larger) {
            reader->no_memory = true;
            return;
        }
        reader->found = larger;
        reader->room = room;
    }
    if (reader->count < reader->room)
        reader->found[reader->count++] = *found;
}

static void read_symbol(struct reader *reader, const char *name, const GElf_Sym *symbol,
                        bool exported)
{
    unsigned type = GELF_ST_TYPE(symbol->st_info), binding = GELF_ST_BIND(symbol->st_info);
    bool elsewhere = symbol->st_shndx == SHN_UNDEF;

    if (type != STT_FUNC && type != STT_GNU_IFUNC && type != STT_NOTYPE)
        return;
    const struct takeover_function *function = function_of(reader->takeover, name);
    if (!function || (!elsewhere && symbol->st_value == 0))
        return;
    // A function that only its own source file knows is what the command line means, if anything;
    // but linkers make local, too, what is hidden in a static program, and malloc.
    bool local = binding == STB_LOCAL, untyped = type == STT_NOTYPE && !elsewhere;
    bool own = local && GELF_ST_VISIBILITY(symbol->st_other) == STV_DEFAULT &&
               function->kind != TAKEOVER_ALLOCATOR;
    if (function->kind != TAKEOVER_NAMED && (untyped || own))
        return;
    add(reader, &(struct found){
                    .function = function,
                    .address = elsewhere ? 0 : symbol->st_value,
                    .bytes = symbol->st_size,
                    .resolver = type == STT_GNU_IFUNC,
                    .exported = exported,
                    .local = local,
                    .weak = binding == STB_WEAK,
                });
}

static void read_symbols(struct reader *reader, Elf_Scn *section, const GElf_Shdr *header)
{
    Elf_Data *data = elf_getdata(section, NULL);
    GElf_Sym symbol;

    for (int i = 1; data && gelf_getsym(data, i, &symbol); i++) {
        const char *name = elf_strptr(reader->elf, header->sh_link, symbol.st_name);
        if (name && name[0])
            read_symbol(reader, name, &symbol, header->sh_type == SHT_DYNSYM);
    }
}

static void read_sections(struct reader *reader)
{
    GElf_Shdr header;

    for (Elf_Scn *section = NULL; (section = elf_nextscn(reader->elf, section));) {
        if (!gelf_getshdr(section, &header) || header.sh_size > SECTION_BYTES_MAX)
            continue;
        reader->has_symbols = reader->has_symbols || header.sh_type == SHT_SYMTAB;
        if (header.sh_type == SHT_DYNAMIC)
            read_dynamic(reader, section, &header);
        else if (header.sh_type == SHT_DYNSYM || header.sh_type == SHT_SYMTAB)
            read_symbols(reader, section, &header);
    }
}

// ---- Judging ------------------------------------------------------------------------------------

static bool begins(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

static const struct found *find(const struct reader *reader, const char *name)
{
    for (size_t i = 0; i < reader->count; i++)
        if (reader->found[i].address && strcmp(reader->found[i].function->name, name) == 0)
            return &reader->found[i];
    return NULL;
}

static bool exports(const struct reader *reader, const char *name)
{
    for (size_t i = 0; i < reader->count; i++)
        if (reader->found[i].address && reader->found[i].exported &&
            strcmp(reader->found[i].function->name, name) == 0)
            return true;
    return false;
}

static bool imports(const struct reader *reader, enum takeover_kind kind, const char *prefix)
{
    for (size_t i = 0; i < reader->count; i++)
        if (!reader->found[i].address && reader->found[i].function->kind == kind &&
            begins(reader->found[i].function->name, prefix))
            return true;
    return false;
}

enum file_class { FILE_OTHER, FILE_LIBC, FILE_RUNTIME, FILE_STATIC };

static bool is_static_program(const struct reader *reader)
{
    return (reader->fixed || reader->position_independent_program) && !reader->has_interpreter;
}

static enum file_class class_of(const struct reader *reader)
{
    const char *soname = reader->soname;

    if (begins(soname, "libc.so") || begins(soname, "libc.musl-"))
        return FILE_LIBC;
    if (begins(soname, "libstdc++.so") || begins(soname, "libc++.so") ||
        begins(soname, "libc++abi.so"))
        return FILE_RUNTIME;
    return is_static_program(reader) && find(reader, "__libc_start_main") ? FILE_STATIC
                                                                          : FILE_OTHER;
}

struct judgement {
    const struct reader *reader;
    enum file_class class;
    bool allocator;      // its malloc is to be taken over; of a static one: what is_libcs says
    bool own_operators;  // its new and delete are its own
};

// A static program's malloc that is not __libc_malloc, though there is one, makes use of that. If
// it is weak it is musl's own, with free and all else.
static bool is_libcs(const struct judgement *judgement, const struct found *found)
{
    const struct found *first = find(judgement->reader, "malloc");
    char name[64] = "__libc_";

    if (begins(found->function->name, "__") || (first && first->weak))
        return true;
    strncat(name, found->function->name, sizeof(name) - strlen(name) - 1);
    const struct found *libcs = find(judgement->reader, name);
    return !libcs || libcs->address == found->address;
}

static bool has_operators(const struct reader *reader)
{
    for (size_t i = 0; i < reader->count; i++)
        if (reader->found[i].function->kind == TAKEOVER_OPERATOR && reader->found[i].address)
            return true;
    return false;
}

// Whether a function calls, or jumps to, another one.
static bool calls(const struct reader *reader, const struct found *from, const struct found *to)
{
    uint8_t code[FUNCTION_BYTES_MAX + 4] = {0};
    uint64_t offset = from->address - reader->first, upper = 0, pc = from->address;
    uint64_t bytes = from->bytes < FUNCTION_BYTES_MAX ? from->bytes : FUNCTION_BYTES_MAX;
    struct isa_insn insn;

    if (!to || offset >= reader->bytes ||
        fd_pread_full(reader->fd, code, bytes, reader->offset + offset) < 0)
        return false;
    for (uint64_t at = 0; at < bytes; at += insn.length) {
        uint32_t raw;
        memcpy(&raw, code + at, sizeof(raw));
        isa_decode(raw, &insn);
        uint64_t immediate = (uint64_t)(int64_t)insn.imm;
        if ((insn.op == ISA_JAL && pc + at + immediate == to->address) ||
            (insn.op == ISA_JALR && upper + immediate == to->address))
            return true;
        upper = insn.op == ISA_AUIPC ? pc + at + immediate : 0;
    }
    return false;
}

// A static program's operators are those of the runtime library when they do what these do. (Their
// symbols do not tell; nor does their place, as libraries are linked in any order.)
static bool has_runtime_operators(const struct reader *reader)
{
    const struct found *make = find(reader, "_Znwm"), *end = find(reader, "_ZdlPv");

    return (!make || calls(reader, make, find(reader, "_ZSt15get_new_handlerv"))) &&
           (!end || calls(reader, end, find(reader, "free")));
}

// Linkers that keep one of functions that are the same may have made one of two operators.
static bool shares_operators(const struct reader *reader)
{
    for (size_t i = 0; i < reader->count; i++)
        for (size_t j = 0; j < i; j++) {
            const struct found *a = &reader->found[i], *b = &reader->found[j];
            if (a->function->kind == TAKEOVER_OPERATOR && b->function->kind == TAKEOVER_OPERATOR &&
                a->address == b->address && a->address &&
                a->function->family != b->function->family)
                return true;
        }
    return false;
}

static struct judgement judge(const struct reader *reader)
{
    struct judgement judgement = {.reader = reader, .class = class_of(reader)};
    bool defines = exports(reader, "malloc") && exports(reader, "free");
    bool hands_on =
        (imports(reader, TAKEOVER_NEXT, "") || imports(reader, TAKEOVER_ALLOCATOR, "__libc_")) &&
        !imports(reader, TAKEOVER_PAGES, "");

    judgement.allocator =
        judgement.class == FILE_LIBC || (judgement.class == FILE_OTHER && defines && !hands_on);
    judgement.own_operators = (judgement.class == FILE_STATIC && !has_runtime_operators(reader)) ||
                              (judgement.class == FILE_OTHER && has_operators(reader)) ||
                              shares_operators(reader);
    return judgement;
}

static bool wanted(const struct judgement *judgement, const struct found *found)
{
    bool libcs = judgement->class == FILE_LIBC || judgement->class == FILE_STATIC;

    switch (found->function->kind) {
    case TAKEOVER_LIBC:
    case TAKEOVER_ERRNO:
        return libcs;
    case TAKEOVER_ALLOCATOR:
        return judgement->class == FILE_STATIC ? is_libcs(judgement, found)
                                               : judgement->allocator && !found->local;
    case TAKEOVER_OPERATOR:
        return (judgement->class == FILE_RUNTIME || judgement->class == FILE_STATIC) &&
               !judgement->own_operators;
    case TAKEOVER_NAMED:
    case TAKEOVER_VARIABLES:
        return true;
    default:
        return false;
    }
}

static bool can_resume(const struct reader *reader, uint64_t offset)
{
    uint32_t raw = 0;
    return fd_pread_full(reader->fd, &raw, sizeof(raw), reader->offset + offset) >= 0 &&
           takeover_can_resume(raw);
}

static int collect(const struct judgement *judgement, struct takeover_file *file, uint64_t gva)
{
    const struct reader *reader = judgement->reader;

    file->own_operators = judgement->own_operators;
    file->symbols = calloc(reader->count + 1, sizeof(*file->symbols));
    if (!file->symbols)
        return -ENOMEM;
    for (size_t i = 0; i < reader->count; i++) {
        const struct found *found = &reader->found[i];
        uint64_t offset = found->address - reader->first;
        if (found->address && offset < reader->bytes && found->address % 2 == 0 &&
            wanted(judgement, found) && (!found->function->resumes || can_resume(reader, offset)))
            file->symbols[file->count++] = (struct takeover_symbol){
                .function = found->function,
                .pc = gva + offset,
                .resolver = found->resolver,
            };
    }
    return 0;
}

static bool is_ours(Elf *elf, struct reader *reader)
{
    GElf_Ehdr header;

    if (elf_kind(elf) != ELF_K_ELF || !gelf_getehdr(elf, &header) ||
        header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_machine != EM_RISCV)
        return false;
    reader->fixed = header.e_type == ET_EXEC;
    return header.e_type == ET_EXEC || header.e_type == ET_DYN;
}

int takeover_file_read(const struct takeover *takeover, struct takeover_file *file, uint64_t gva,
                       uint64_t bytes, int fd, uint64_t offset)
{
    struct reader reader = {.takeover = takeover, .fd = fd, .bytes = bytes, .offset = offset};
    int rc = 0;

    elf_version(EV_CURRENT);
    reader.elf = elf_begin(fd, ELF_C_READ, NULL);
    if (reader.elf && is_ours(reader.elf, &reader) && find_segment(&reader)) {
        read_sections(&reader);
        struct judgement judgement = judge(&reader);
        file->nameless = is_static_program(&reader) && !reader.has_symbols;
        rc = reader.no_memory ? -ENOMEM : collect(&judgement, file, gva);
    }
    elf_end(reader.elf);
    free(reader.found);
    return rc;
}

void takeover_file_fini(struct takeover_file *file)
{
    free(file->symbols);
}
