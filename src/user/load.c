// SPDX-License-Identifier: BSD-2-Clause
// Maps a program and its interpreter as Linux does, and makes the stack that it starts with.
//
// Sources: System V ABI, chapters 3 and 5; RISC-V ELF psABI 1.0, section 8; getauxval(3).
#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

#include "user/internal.h"

#define STACK_BYTES_MIN (1u << 20)
#define STACK_BYTES_MAX (1u << 30)
#define GAP_BYTES (1u << 20)        // below the stack, kept free of anything else at first
#define HEAP_GAP_BYTES (32u << 20)  // of such a one, for its heap to begin behind its end
#define SIGNAL_FRAME_BYTES 1088u
#ifndef AT_MINSIGSTKSZ
#define AT_MINSIGSTKSZ 51
#endif

static const uint32_t trampoline[] = {
    0x08b00893,  // li a7, 139 (rt_sigreturn)
    0x00000073,  // ecall
};

// Where a program goes that may be anywhere: two thirds up.
static uint64_t program_gva(const struct user_space *space)
{
    return user_page_down(space->limit / 3 * 2);
}

// ---- Segments -----------------------------------------------------------------------------------

// Memory behind what the file has of a segment: zeros, the rest of the file's last page included.
static int map_rest(struct user_thread *thread, const struct user_elf_segment *segment,
                    uint64_t start)
{
    struct user_space *space = &thread->process->space;
    uint64_t file_end = start + segment->file_bytes, end = user_page_up(start + segment->bytes);
    uint64_t whole = segment->file_bytes ? user_page_up(file_end) : user_page_down(start);
    static const uint8_t zeros[USER_PAGE_BYTES];

    // As in Linux, one that cannot be written to keeps what the file's page has there.
    if (segment->file_bytes && segment->bytes > segment->file_bytes &&
        segment->protection & PROT_WRITE) {
        int rc = user_copy_out(thread, file_end, zeros, whole - file_end);
        if (rc < 0)
            return rc;
    }
    int64_t rc = whole < end ? user_space_map(space, whole, end - whole, segment->protection,
                                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0)
                             : 0;
    return rc < 0 ? (int)rc : 0;
}

static int map_segment(struct user_thread *thread, const struct user_elf_segment *segment, int fd,
                       uint64_t bias)
{
    uint64_t start = segment->gva + bias, in_page = start % USER_PAGE_BYTES;

    if (segment->file_bytes) {
        int64_t rc = user_space_map(&thread->process->space, start - in_page,
                                    segment->file_bytes + in_page, segment->protection,
                                    MAP_PRIVATE | MAP_FIXED, fd, segment->offset - in_page);
        if (rc < 0)
            return (int)rc;
    }
    return map_rest(thread, segment, start);
}

// -EFAULT: what is to follow the file's part of a segment has no page of the file to be in.
static int map_failed(const char *path, int rc, struct error *err)
{
    return rc == -EFAULT
               ? error_set(err, -ENOEXEC, "\"%s\" is cut off: it is shorter than it says", path)
               : error_set_errno(err, rc, "cannot map \"%s\"", path);
}

// Maps all of it; *bias is what is added to its addresses. `hint`: where it goes if it may be
// anywhere, 0: below what there is.
static int map_elf(struct user_thread *thread, const struct user_elf *elf, int fd, uint64_t hint,
                   uint64_t *bias)
{
    struct user_space *space = &thread->process->space;
    // All of it at first, so that nothing else comes to lie in between.
    int64_t low = user_space_map(
        space, elf->moves ? hint : elf->low, elf->high - elf->low, PROT_NONE,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (elf->moves ? 0 : MAP_FIXED_NOREPLACE), -1,
        0);
    if (low < 0)
        return (int)low;
    *bias = (uint64_t)low - elf->low;
    for (unsigned i = 0; i < elf->segment_count; i++) {
        int rc = map_segment(thread, &elf->segments[i], fd, *bias);
        if (rc < 0)
            return rc;
        // Between segments there is nothing.
        uint64_t end = user_page_up(elf->segments[i].gva + elf->segments[i].bytes);
        uint64_t next = i + 1 < elf->segment_count ? user_page_down(elf->segments[i + 1].gva) : end;
        if (next > end)
            rc = user_space_unmap(space, end + *bias, next - end);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int map_interpreter(struct user_thread *thread, const struct user_elf *program,
                           const char *path, uint64_t *base, uint64_t *entry, struct error *err)
{
    const char *sysroot = thread->process->sysroot;
    char below[PATH_MAX];
    const char *name = program->interpreter;
    if (user_path_below(sysroot, name, true, below))
        name = below;
    int fd = user_program_open(name, -1, NULL);
    if (fd < 0)
        return error_set(err, fd, "cannot execute \"%s\": its loader \"%s\": %s (see: -L)", path,
                         name, strerror(-fd));
    struct user_elf *elf = malloc(sizeof(*elf));
    if (!elf) {
        close(fd);
        return error_set_errno(err, -ENOMEM, "cannot execute \"%s\"", path);
    }
    int rc = user_elf_read(elf, fd, name, err);
    if (rc == 0) {
        rc = map_elf(thread, elf, fd, 0, base);
        if (rc < 0)
            rc = map_failed(name, rc, err);
        else
            *entry = elf->entry + *base;
    }
    free(elf);
    close(fd);
    return rc;
}

// ---- The stack ----------------------------------------------------------------------------------

// The stack's lowest part while it is made, from its end downwards, in a buffer.
struct stack {
    uint8_t *bytes;
    size_t capacity, used;
    uint64_t end;  // gva
};

static uint64_t push(struct stack *stack, const void *bytes, size_t count)
{
    if (count > stack->capacity - stack->used)
        return 0;
    stack->used += count;
    memcpy(stack->bytes + stack->capacity - stack->used, bytes, count);
    return stack->end - stack->used;
}

static uint64_t push_text(struct stack *stack, const char *text)
{
    return push(stack, text, strlen(text) + 1);
}

static bool push_texts(struct stack *stack, char *const *texts, size_t count, uint64_t *gvas)
{
    bool fits = true;
    for (size_t i = count; fits && i-- > 0;) {
        gvas[i] = push_text(stack, texts[i]);
        fits = gvas[i] != 0;
    }
    return fits;
}

static uint64_t stack_bytes(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_STACK, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY)
        return STACK_BYTES_MAX / 4;
    if (limit.rlim_cur > STACK_BYTES_MAX)
        return STACK_BYTES_MAX;
    return limit.rlim_cur < STACK_BYTES_MIN ? STACK_BYTES_MIN : user_page_up(limit.rlim_cur);
}

static void add_auxv(struct user_process *process, uint64_t type, uint64_t value)
{
    process->auxv[process->auxv_words++] = type;
    process->auxv[process->auxv_words++] = value;
}

static void make_auxv(struct user_process *process, const struct user_elf *elf, uint64_t bias,
                      uint64_t base, uint64_t random, uint64_t name)
{
    // Bit n: the extension of the letter n of the alphabet. V is not there.
    const uint64_t extensions = 1u << 0 | 1u << ('I' - 'A') | 1u << ('M' - 'A') |
                                1u << ('F' - 'A') | 1u << ('D' - 'A') | 1u << ('C' - 'A');
    process->auxv_words = 0;
    add_auxv(process, AT_HWCAP, extensions);
    add_auxv(process, AT_PAGESZ, USER_PAGE_BYTES);
    add_auxv(process, AT_CLKTCK, (uint64_t)sysconf(_SC_CLK_TCK));
    add_auxv(process, AT_PHDR, elf->headers ? elf->headers + bias : 0);
    add_auxv(process, AT_PHENT, sizeof(Elf64_Phdr));
    add_auxv(process, AT_PHNUM, elf->header_count);
    add_auxv(process, AT_BASE, base);
    add_auxv(process, AT_FLAGS, 0);
    add_auxv(process, AT_ENTRY, elf->entry + bias);
    add_auxv(process, AT_UID, getuid());
    add_auxv(process, AT_EUID, geteuid());
    add_auxv(process, AT_GID, getgid());
    add_auxv(process, AT_EGID, getegid());
    add_auxv(process, AT_SECURE, 0);
    add_auxv(process, AT_RANDOM, random);
    add_auxv(process, AT_EXECFN, name);
    add_auxv(process, AT_MINSIGSTKSZ, SIGNAL_FRAME_BYTES);
    add_auxv(process, AT_NULL, 0);
}

struct start {
    const struct user_elf *elf;
    uint64_t bias, base;
    const char *name;
    char *const *argv, *const *envp;
    size_t argc, envc;
};

// Strings, then what points to them: argc, argv[], envp[], auxv[], the first at a multiple of 16.
static bool fill_stack(struct user_process *process, struct stack *stack, const struct start *start,
                       uint64_t *words)
{
    uint8_t random[16];
    uint64_t *gvas = words + 1, none = 0;

    if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
        return false;
    uint64_t name = push_text(stack, start->name);
    words[0] = start->argc;
    if (!push_texts(stack, start->envp, start->envc, gvas + start->argc + 1) ||
        !push_texts(stack, start->argv, start->argc, gvas))
        return false;
    gvas[start->argc] = gvas[start->argc + 1 + start->envc] = 0;
    stack->used = (stack->used + 15) & ~(size_t)15;
    uint64_t random_gva = push(stack, random, sizeof(random));
    make_auxv(process, start->elf, start->bias, start->base, random_gva, name);
    size_t words_count = start->argc + start->envc + 3;
    if ((words_count + process->auxv_words) % 2)
        push(stack, &none, sizeof(none));
    return name && random_gva &&
           push(stack, process->auxv, process->auxv_words * sizeof(uint64_t)) &&
           push(stack, words, words_count * sizeof(uint64_t));
}

static int make_stack(struct user_thread *thread, const struct start *start, uint64_t bytes)
{
    struct user_process *process = thread->process;
    uint64_t *words = calloc(start->argc + start->envc + 3, sizeof(*words));
    struct stack stack = {.capacity = bytes / 4, .end = process->stack_top};
    stack.bytes = malloc(stack.capacity);
    int rc = words && stack.bytes ? 0 : -ENOMEM;
    if (rc == 0 && !fill_stack(process, &stack, start, words))
        rc = -E2BIG;
    if (rc == 0)
        rc = user_copy_out(thread, stack.end - stack.used,
                           stack.bytes + stack.capacity - stack.used, stack.used);
    if (rc == 0)
        thread->hart->x[2] = stack.end - stack.used;
    free(stack.bytes);
    free(words);
    return rc;
}

// The page that handlers of signals return to, and the stack below it.
static int map_stack(struct user_thread *thread, uint64_t bytes, int protection)
{
    struct user_process *process = thread->process;
    struct user_space *space = &process->space;
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;

    process->trampoline = space->top - USER_PAGE_BYTES;
    process->stack_top = space->stacks ? space->stacks_top : process->trampoline - USER_PAGE_BYTES;
    int64_t rc = user_space_map(space, process->trampoline, USER_PAGE_BYTES, PROT_READ | PROT_WRITE,
                                flags, -1, 0);
    if (rc >= 0)
        rc = user_copy_out(thread, process->trampoline, trampoline, sizeof(trampoline));
    if (rc >= 0)
        rc = user_space_protect(space, process->trampoline, USER_PAGE_BYTES, PROT_READ | PROT_EXEC);
    if (rc >= 0)  // in a zone of stacks it is the first
        rc = user_space_map(space, process->stack_top - bytes, bytes, protection,
                            space->stacks ? (flags & ~MAP_FIXED) | MAP_STACK : flags, -1, 0);
    if (rc < 0)
        return (int)rc;
    user_space_name(space, process->trampoline, "[vdso]");
    user_space_name(space, process->stack_top - bytes, user_space_stack);
    space->top = (space->stacks ? process->trampoline : process->stack_top - bytes) - GAP_BYTES;
    return 0;
}

// ---- All of it ----------------------------------------------------------------------------------

static int load(struct user_thread *thread, const struct user_program *program,
                struct user_elf *elf, struct start *start, struct error *err)
{
    struct user_space *space = &thread->process->space;
    uint64_t bytes = stack_bytes(), entry;
    int rc = map_stack(thread, bytes, elf->stack);
    if (rc == 0)
        rc = map_elf(thread, elf, program->fd, elf->interpreter[0] ? program_gva(space) : 0,
                     &start->bias);
    if (rc < 0)
        return map_failed(program->path, rc, err);
    entry = elf->entry + start->bias;
    space->brk = space->brk_start = elf->high + start->bias;
    if (elf->moves && !elf->interpreter[0])
        space->brk = space->brk_start = program_gva(space) + HEAP_GAP_BYTES;
    if (elf->interpreter[0]) {
        rc = map_interpreter(thread, elf, program->path, &start->base, &entry, err);
        if (rc < 0)
            return rc;
    }
    rc = make_stack(thread, start, bytes);
    if (rc < 0)
        return error_set_errno(err, rc, "cannot hand \"%s\" its arguments and environment",
                               program->path);
    thread->hart->pc = entry;
    return 0;
}

int user_load(struct user_thread *thread, const struct user_program *program, const char *name,
              char *const *envp, struct error *err)
{
    struct user_elf *elf = malloc(sizeof(*elf));
    if (!elf)
        return error_set_errno(err, -ENOMEM, "cannot execute \"%s\"", program->path);
    struct start start = {.elf = elf,
                          .name = name,
                          .argv = program->argv,
                          .envp = envp,
                          .argc = user_texts_count(program->argv),
                          .envc = user_texts_count(envp)};
    int rc = user_elf_read(elf, program->fd, program->path, err);
    if (rc == 0)
        rc = load(thread, program, elf, &start, err);
    free(elf);
    return rc;
}
