// SPDX-License-Identifier: BSD-2-Clause
// Names of guest code. The files are the user's, but may be damaged: nothing in them is believed
// before it was compared with the file's length.
#include "jit/symbols.h"

#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define FILE_BYTES_MAX (4ull << 30)
#define UNSIZED_BYTES_MAX (64u << 10)  // of a function whose size is not known

// ---- The table

static int add(struct jit_symbols *symbols, uint64_t gva, uint64_t bytes, const char *name)
{
    if (symbols->count == symbols->room) {
        size_t room = symbols->room ? 2 * symbols->room : 1024;
        struct jit_symbol *table = realloc(symbols->table, room * sizeof(*table));

        if (!table)
            return -ENOMEM;
        symbols->table = table;
        symbols->room = room;
    }
    symbols->table[symbols->count++] = (struct jit_symbol){
        .gva = gva, .end = gva + bytes < gva ? UINT64_MAX : gva + bytes, .name = name};
    return 0;
}

// By address; of several at one, the largest last.
static int compare(const void *a, const void *b)
{
    const struct jit_symbol *left = a, *right = b;

    if (left->gva != right->gva)
        return left->gva < right->gva ? -1 : 1;
    return left->end < right->end ? -1 : left->end > right->end;
}

// One whose size is not known ends where the next one starts.
static void sort(struct jit_symbols *symbols)
{
    uint64_t here = UINT64_MAX, next = UINT64_MAX;

    qsort(symbols->table, symbols->count, sizeof(*symbols->table), compare);
    for (size_t i = symbols->count; i-- > 0;) {
        struct jit_symbol *symbol = &symbols->table[i];

        if (symbol->gva != here)
            next = here;
        here = symbol->gva;
        if (symbol->end == here)
            symbol->end = next - here < UNSIZED_BYTES_MAX ? next : here + UNSIZED_BYTES_MAX;
    }
}

const char *jit_symbols_find(const struct jit_symbols *symbols, uint64_t gva)
{
    size_t low = 0, high = symbols->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (symbols->table[middle].gva <= gva)
            low = middle + 1;
        else
            high = middle;
    }
    return low && gva < symbols->table[low - 1].end ? symbols->table[low - 1].name : NULL;
}

void jit_symbols_fini(struct jit_symbols *symbols)
{
    for (size_t i = 0; i < symbols->file_count; i++)
        free(symbols->files[i]);
    free(symbols->files);
    free(symbols->table);
    *symbols = (struct jit_symbols){0};
}

// A name is a word in the listings that are made of it.
static bool is_word(const char *name)
{
    if (!*name)
        return false;
    for (; *name; name++)
        if ((unsigned char)*name <= ' ' || *name == 0x7f)
            return false;
    return true;
}

// ---- ELF

struct file {
    char *text;  // followed by a 0
    size_t bytes;
};

// NULL: it is not in the file as a whole.
static const void *part(const struct file *file, uint64_t offset, uint64_t bytes)
{
    return offset <= file->bytes && bytes <= file->bytes - offset ? file->text + offset : NULL;
}

static const Elf64_Shdr *section(const struct file *file, const Elf64_Ehdr *header, unsigned index)
{
    uint64_t offset = header->e_shoff + (uint64_t)index * sizeof(Elf64_Shdr);

    if (index >= header->e_shnum || offset % 8 || offset < header->e_shoff)
        return NULL;
    return part(file, offset, sizeof(Elf64_Shdr));
}

static bool is_code(const struct file *file, const Elf64_Ehdr *header, const Elf64_Sym *symbol)
{
    unsigned type = ELF64_ST_TYPE(symbol->st_info);
    const Elf64_Shdr *home;

    if (type != STT_FUNC && type != STT_NOTYPE && type != STT_GNU_IFUNC)
        return false;
    home = section(file, header, symbol->st_shndx);
    return home && home->sh_flags & SHF_EXECINSTR;
}

// Compilers' local labels and mapping symbols name no function.
static bool is_function(const char *name)
{
    return is_word(name) && *name != '$' && strncmp(name, ".L", 2) != 0;
}

static int add_table(struct jit_symbols *symbols, const struct file *file, const Elf64_Ehdr *header,
                     const Elf64_Shdr *table)
{
    const Elf64_Shdr *names = section(file, header, table->sh_link);
    const Elf64_Sym *symbol = part(file, table->sh_offset, table->sh_size);
    const char *text = names ? part(file, names->sh_offset, names->sh_size) : NULL;
    int status = 0;

    if (!symbol || !text || !names->sh_size || text[names->sh_size - 1] || table->sh_offset % 8)
        return -ENOEXEC;
    for (uint64_t i = 0; !status && i < table->sh_size / sizeof(*symbol); i++, symbol++)
        if (symbol->st_name < names->sh_size && is_function(text + symbol->st_name) &&
            is_code(file, header, symbol))
            status = add(symbols, symbol->st_value, symbol->st_size, text + symbol->st_name);
    return status;
}

// -ENOEXEC: no ELF program of 64 bits and this byte order, or damaged.
static int add_elf(struct jit_symbols *symbols, const struct file *file)
{
    const Elf64_Ehdr *header = part(file, 0, sizeof(*header));
    int status = 0;

    if (!header || memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 ||
        header->e_ident[EI_CLASS] != ELFCLASS64 || header->e_ident[EI_DATA] != ELFDATA2LSB ||
        header->e_shentsize != sizeof(Elf64_Shdr))
        return -ENOEXEC;
    for (unsigned i = 0; !status && i < header->e_shnum; i++) {
        const Elf64_Shdr *table = section(file, header, i);

        if (!table)
            return -ENOEXEC;
        if (table->sh_type == SHT_SYMTAB)
            status = add_table(symbols, file, header, table);
    }
    return status;
}

// ---- Lists

// Takes one line apart; what follows the name (a module) is left out.
static int add_line(struct jit_symbols *symbols, char *line)
{
    char *end, type, *name;
    uint64_t gva = strtoull(line, &end, 16);

    // An address that nm does not know is blank.
    if (end == line && *line == ' ')
        return 0;
    if (end == line || end[0] != ' ' || !end[1] || end[2] != ' ')
        return -ENOEXEC;
    type = end[1];
    name = end + 3;
    name[strcspn(name, " \t\r")] = 0;
    if (!strchr("tTwW", type) || !is_function(name))
        return 0;
    return add(symbols, gva, 0, name);
}

static int add_list(struct jit_symbols *symbols, const struct file *file)
{
    char *rest = file->text, *line;
    int status = 0;

    if (strlen(file->text) != file->bytes)
        return -ENOEXEC;
    while (!status && (line = strsep(&rest, "\n")))
        if (*line)
            status = add_line(symbols, line);
    return status;
}

// ---- Files

static int read_file(int fd, struct file *file)
{
    struct stat st;
    int64_t got;

    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size > FILE_BYTES_MAX)
        return -ENOEXEC;
    file->text = malloc((size_t)st.st_size + 1);
    if (!file->text)
        return -ENOMEM;
    got = fd_pread_full(fd, file->text, (size_t)st.st_size, 0);
    file->bytes = got < 0 ? 0 : (size_t)got;
    file->text[file->bytes] = 0;
    return got < 0 ? (int)got : 0;
}

static int keep_file(struct jit_symbols *symbols, char *text)
{
    char **files = realloc(symbols->files, (symbols->file_count + 1) * sizeof(*files));

    if (!files)
        return -ENOMEM;
    files[symbols->file_count++] = text;
    symbols->files = files;
    return 0;
}

int jit_symbols_add(struct jit_symbols *symbols, int fd)
{
    struct file file = {0};
    size_t before = symbols->count;
    int status = read_file(fd, &file);

    if (!file.text)
        return status;
    if (!status)
        status = file.bytes >= SELFMAG && memcmp(file.text, ELFMAG, SELFMAG) == 0
                     ? add_elf(symbols, &file)
                     : add_list(symbols, &file);
    if (!status && symbols->count == before)
        status = -ENOEXEC;
    if (!status)
        status = keep_file(symbols, file.text);
    if (status) {
        symbols->count = before;
        free(file.text);
        return status;
    }
    sort(symbols);
    return 0;
}
