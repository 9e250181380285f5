// SPDX-License-Identifier: BSD-2-Clause
// What a path that is to be executed stands for: a riscv64 program, a script whose interpreter is
// one, or something that is left to the host's kernel.
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "user/internal.h"

#define SCRIPTS_DEEP 5  // as in Linux
#define HEAD_BYTES 256u

static int failed(const char *path, int rc, struct error *err)
{
    return error_set_errno(err, rc, "cannot execute \"%s\"", path);
}

int user_program_open(const char *path, int fd, struct error *err)
{
    struct stat st;
    char link[USER_LINK_BYTES];

    if (fd < 0)  // a pipe is not waited for
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return failed(path, -errno, err);
    user_descriptor_link(fd, link);
    int rc = fstat(fd, &st) < 0                                ? -errno
             : !S_ISREG(st.st_mode)                            ? -EACCES
             : faccessat(AT_FDCWD, link, X_OK, AT_EACCESS) < 0 ? -errno
                                                               : fd;
    if (rc < 0) {
        close(fd);
        return failed(path, rc, err);
    }
    return fd;
}

size_t user_texts_count(char *const *texts)
{
    size_t count = 0;
    while (texts[count])
        count++;
    return count;
}

static void free_all(char **argv)
{
    for (size_t i = 0; argv && argv[i]; i++)
        free(argv[i]);
    free(argv);
}

// Copies: `before` of them, then those of argv but its first `skipped`.
static char **join(const char *const *before, size_t count, char *const *argv, size_t skipped)
{
    size_t rest = user_texts_count(argv) - skipped;
    char **out = calloc(count + rest + 1, sizeof(*out));
    bool whole = out;
    for (size_t i = 0; whole && i < count + rest; i++) {
        // NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): NULL is behind what is counted
        out[i] = strdup(i < count ? before[i] : argv[skipped + i - count]);
        whole = out[i];
    }
    if (!whole) {
        free_all(out);
        return NULL;
    }
    return out;
}

// Splits a script's first line, "#!" left out: the interpreter, and all else as one argument.
static char *split_line(char *line, char **argument)
{
    static const char blank[] = " \t";
    line[strcspn(line, "\n")] = 0;
    char *name = line + strspn(line, blank);
    char *end = name + strcspn(name, blank);
    *argument = NULL;
    if (!*end)
        return *name ? name : NULL;
    *end++ = 0;
    end += strspn(end, blank);
    for (char *last = end + strlen(end); last > end && strchr(blank, last[-1]);)
        *--last = 0;
    if (*end)
        *argument = end;
    return *name ? name : NULL;
}

// `program`, given as `given`, is a script: goes on with its interpreter.
static int to_interpreter(struct user_program *program, const char *sysroot, const char *given,
                          char *line, struct error *err)
{
    char below[PATH_MAX], *argument;
    char *name = split_line(line, &argument);
    if (!name)
        return failed(program->path, -ENOEXEC, err);
    const char *before[3] = {name};
    size_t count = 1;
    if (argument)
        before[count++] = argument;
    before[count++] = given;
    char **argv = join(before, count, program->argv, program->argv[0] ? 1 : 0);
    char *path = strdup(user_path_below(sysroot, name, true, below) ? below : name);
    if (!argv || !path) {
        free_all(argv);
        free(path);
        return failed(program->path, -ENOMEM, err);
    }
    close(program->fd);
    program->fd = -1;
    free_all(program->argv);
    free(program->path);
    program->argv = argv;
    program->path = path;
    return user_program_open(path, -1, err);
}

static bool is_for_us(const uint8_t *head, size_t bytes)
{
    const Elf64_Ehdr *header = (const Elf64_Ehdr *)(const void *)head;
    return bytes >= sizeof(*header) && memcmp(head, ELFMAG, SELFMAG) == 0 &&
           header->e_ident[EI_CLASS] == ELFCLASS64 && header->e_machine == EM_RISCV;
}

static int follow(struct user_program *program, const char *sysroot, const char *given,
                  struct error *err)
{
    for (unsigned deep = 0; deep <= SCRIPTS_DEEP; deep++) {
        _Alignas(Elf64_Ehdr) char head[HEAD_BYTES + 1] = {0};
        int64_t got = fd_pread_full(program->fd, head, HEAD_BYTES, 0);
        if (got < 0)
            return failed(program->path, (int)got, err);
        if (is_for_us((const uint8_t *)head, (size_t)got))
            return 0;
        if (head[0] != '#' || head[1] != '!') {
            program->hosts = true;
            return 0;
        }
        int fd = to_interpreter(program, sysroot, deep ? program->argv[0] : given, head + 2, err);
        if (fd < 0)
            return fd;
        program->fd = fd;
    }
    return failed(program->path, -ELOOP, err);
}

int user_program_find(struct user_program *out, const char *sysroot, const char *path, int fd,
                      char *const *argv, struct error *err)
{
    char below[PATH_MAX];
    const char *there = fd < 0 && user_path_below(sysroot, path, true, below) ? below : path;
    int own = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (fd >= 0 && own < 0)
        return failed(path, -errno, err);
    own = user_program_open(there, own, err);
    if (own < 0)
        return own;
    *out = (struct user_program){.fd = own, .path = strdup(there), .argv = join(NULL, 0, argv, 0)};
    int rc = out->path && out->argv ? follow(out, sysroot, path, err) : failed(path, -ENOMEM, err);
    if (rc < 0)
        user_program_fini(out);
    return rc;
}

void user_program_fini(struct user_program *program)
{
    if (program->fd >= 0)
        close(program->fd);
    free(program->path);
    free_all(program->argv);
    *program = (struct user_program){.fd = -1};
}
