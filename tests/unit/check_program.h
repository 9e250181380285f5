// SPDX-License-Identifier: BSD-2-Clause
// riscv64 programs for the tests of the check room: built by the cross compiler from a source
// within the test, and mapped as a loader would.
#ifndef STRAKE_TESTS_CHECK_PROGRAM_H
#define STRAKE_TESTS_CHECK_PROGRAM_H

#include <dirent.h>
#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check/check.h"
#include "unit.h"

#define CROSS "riscv64-linux-gnu-"

static inline void run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static inline void run(const char *fmt, ...)
{
    char command[2048];
    va_list arguments;

    va_start(arguments, fmt);
    vsnprintf(command, sizeof(command), fmt, arguments);
    va_end(arguments);
    if (system(command) != 0)
        fail_msg("failed: %s", command);
}

// Where programs are built.
static struct {
    char path[64];
} folder;

static inline void folder_make(void)
{
    strcpy(folder.path, "/tmp/strake-check-XXXXXX");
    assert_non_null(mkdtemp(folder.path));
}

static inline void folder_remove(void)
{
    run("rm -r '%s'", folder.path);
}

// For a group of tests.

static inline int make_folder(void **state)
{
    (void)state;
    folder_make();
    return 0;
}

static inline int remove_folder(void **state)
{
    (void)state;
    folder_remove();
    return 0;
}

static inline const char *in_folder(const char *name)
{
    static char paths[8][128];
    static unsigned next;
    char *path = paths[next++ % 8];

    snprintf(path, sizeof(paths[0]), "%s/%s", folder.path, name);
    return path;
}

static inline void write_file(const char *path, const void *bytes, size_t count)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    assert_true(fd >= 0);
    assert_int_equal(fd_write_full(fd, bytes, count), count);
    close(fd);
}

static inline uint8_t *read_file(const char *path, size_t *count)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat file;

    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &file), 0);
    uint8_t *bytes = malloc((size_t)file.st_size + 1);
    assert_non_null(bytes);
    *count = (size_t)fd_read_full(fd, bytes, (size_t)file.st_size);
    bytes[*count] = 0;
    close(fd);
    return bytes;
}

// `name` is the source's, too, with .c or .cc: the compiler is called as for its language.
static inline const char *build(const char *name, const char *source, const char *flags)
{
    const char *suffix = strstr(flags, "-std=c++") ? "cc" : "c";
    char file[64];

    snprintf(file, sizeof(file), "%s.%s", name, suffix);
    write_file(in_folder(file), source, strlen(source));
    run("cd '%s' && " CROSS "%s -w -Wl,--build-id %s -o '%s' '%s'", folder.path,
        suffix[1] ? "g++" : "gcc", flags, name, in_folder(file));
    return in_folder(name);
}

// The address that a symbol has in the file, as nm says, not as we would.
static inline uint64_t symbol_of(const char *path, const char *name)
{
    char command[256], line[512], found[256], type;
    unsigned long long address = 0, value;

    snprintf(command, sizeof(command), CROSS "nm '%s'", path);
    FILE *in = popen(command, "r");
    assert_non_null(in);
    while (fgets(line, sizeof(line), in))
        if (sscanf(line, "%llx %c %255s", &value, &type, found) == 3 && strcmp(found, name) == 0)
            address = value;
    assert_int_equal(pclose(in), 0);
    if (address == 0)
        fail_msg("\"%s\" has no symbol \"%s\"", path, name);
    return address;
}

// The number of the line that has this text in it, the first.
static inline unsigned line_of(const char *source, const char *text)
{
    const char *found = strstr(source, text);
    unsigned line = 1;

    if (!found)
        fail_msg("no \"%s\" in the source", text);
    for (; source < found; source++)
        line += *source == '\n';
    return line;
}

// Calls `map` for each segment of a program that is to be at `base`.
static inline void each_segment(const char *path, uint64_t base,
                                void (*map)(void *opaque, uint64_t gva, const Elf64_Phdr *segment),
                                void *opaque)
{
    size_t count;
    uint8_t *bytes = read_file(path, &count);
    const Elf64_Ehdr *header = (const Elf64_Ehdr *)bytes;

    assert_true(count > sizeof(*header) && header->e_machine == EM_RISCV);
    const Elf64_Phdr *segments = (const Elf64_Phdr *)(bytes + header->e_phoff);
    for (unsigned i = 0; i < header->e_phnum; i++)
        if (segments[i].p_type == PT_LOAD)
            map(opaque, base + segments[i].p_vaddr, &segments[i]);
    free(bytes);
}

struct mapped {
    struct check_symbols *symbols;
    const char *name, *path;
};

static inline void tell_segment(void *opaque, uint64_t gva, const Elf64_Phdr *segment)
{
    const struct mapped *mapped = opaque;
    uint64_t before = gva % 4096;
    uint64_t bytes = (before + segment->p_filesz + 4095) & ~4095ull;

    if (segment->p_filesz)
        assert_int_equal(check_symbols_map(mapped->symbols, gva - before, bytes, mapped->name,
                                           mapped->path, segment->p_offset - before),
                         0);
}

// Tells the symbols what a loader would have mapped.
static inline void tell_mapped(struct check_symbols *symbols, const char *name, const char *path,
                               uint64_t base)
{
    struct mapped mapped = {symbols, name, path};

    each_segment(path, base, tell_segment, &mapped);
}

#endif
