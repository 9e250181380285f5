// SPDX-License-Identifier: BSD-2-Clause
// The checker's life: what it is made of, its threads, the program's code, forks, the end.
#include "check/checker_internal.h"
#include "check/variables.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SUPPRESSIONS_BYTES_MAX (1u << 20)
#define STACK_LOOKED_BYTES (2u << 20)

static_assert(CHECK_STACK_NUMBER_MAX <= HEAP_WHO_MAX, "the heap keeps the numbers of stacks");

// ---- The program's memory -----------------------------------------------------------------------

void *checker_hva(struct checker *checker, uint64_t pointer, uint64_t bytes)
{
    const struct checker_target *target = &checker->target;
    return target->hva(target->opaque, memory_pointer_gva(pointer), bytes);
}

int checker_attempt(struct checker *checker, void (*work)(void *argument), void *argument)
{
    return checker->target.attempt(checker->target.opaque, work, argument);
}

struct copy {
    void *to;
    const void *from;
    uint64_t bytes;
};

static void copy_work(void *argument)
{
    const struct copy *copy = argument;
    memmove(copy->to, copy->from, copy->bytes);
}

static void zero_work(void *argument)
{
    const struct copy *copy = argument;
    memset(copy->to, 0, copy->bytes);
}

static int attempt_copy(struct checker *checker, void (*work)(void *argument), void *to,
                        const void *from, uint64_t bytes)
{
    struct copy copy = {.to = to, .from = from, .bytes = bytes};
    if (!bytes)
        return 0;
    return to && from ? checker_attempt(checker, work, &copy) : -EFAULT;
}

int checker_copy_in(struct checker *checker, void *to, uint64_t pointer, uint64_t bytes)
{
    return attempt_copy(checker, copy_work, to, checker_hva(checker, pointer, bytes), bytes);
}

int checker_copy_out(struct checker *checker, uint64_t pointer, const void *from, uint64_t bytes)
{
    return attempt_copy(checker, copy_work, checker_hva(checker, pointer, bytes), from, bytes);
}

static int heap_zero(void *opaque, uint64_t gva, uint64_t bytes)
{
    return attempt_copy(opaque, zero_work, checker_hva(opaque, gva, bytes), "", bytes);
}

static int heap_copy(void *opaque, uint64_t to, uint64_t from, uint64_t bytes)
{
    return attempt_copy(opaque, copy_work, checker_hva(opaque, to, bytes),
                        checker_hva(opaque, from, bytes), bytes);
}

static void *heap_hva(void *opaque, uint64_t gva, uint64_t bytes)
{
    return checker_hva(opaque, gva, bytes);
}

static int heap_map(void *opaque, uint64_t gva, uint64_t bytes)
{
    const struct checker *checker = opaque;
    return checker->target.map(checker->target.opaque, gva, bytes);
}

static void heap_unmap(void *opaque, uint64_t gva, uint64_t bytes)
{
    const struct checker *checker = opaque;
    checker->target.unmap(checker->target.opaque, gva, bytes);
}

// ---- Hooks of harts -----------------------------------------------------------------------------

static bool hook_takes(void *opaque, uint64_t pc)
{
    const struct checker *checker = opaque;
    return takeover_has(checker->takeover, pc);
}

static void hook_taken(void *opaque, struct hart *hart)
{
    struct checker *checker = opaque;
    const struct checker_target *target = &checker->target;
    uint64_t pc = hart->pc, x[BASE_COUNT_OF(hart->x)];

    if (target->stop)
        memcpy(x, hart->x, sizeof(x));
    takeover_call(checker->takeover, target->thread(target->opaque, hart), hart);
    if (target->stop && target->stop(target->opaque, hart, NULL)) {  // it is not called yet
        memcpy(hart->x, x, sizeof(x));
        hart->pc = pc;
    }
}

// Of programs, whose harts have the checker's own hooks.
static bool perform_at_once(struct hart *hart, const void *what, uint64_t pc)
{
    const struct checker *checker = hart->check->opaque;
    const struct checker_target *target = &checker->target;

    return takeover_few(checker->takeover, target->thread(target->opaque, hart), hart, what, pc);
}

static struct hart_at_once hook_at_once(void *opaque, uint64_t pc)
{
    const struct checker *checker = opaque;
    const void *what = takeover_few_at(checker->takeover, pc);

    return (struct hart_at_once){.perform = what ? perform_at_once : NULL, .what = what};
}

const struct hart_check *checker_hart_check(struct checker *checker)
{
    return &checker->hart_check;
}

// ---- Creation -----------------------------------------------------------------------------------

static int read_file(const char *path, char *text, size_t capacity)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    int64_t length = fstat(fd, &st) < 0    ? -errno
                     : S_ISREG(st.st_mode) ? fd_read_full(fd, text, capacity)
                                           : -EINVAL;
    close(fd);
    if (length < 0 || (size_t)length == capacity)
        return length < 0 ? (int)length : -EFBIG;
    text[length] = 0;
    return 0;
}

static int add_suppressions(struct checker *checker, struct error *err)
{
    const struct checker_options *options = &checker->options;
    char *text = malloc(SUPPRESSIONS_BYTES_MAX);
    int rc = text ? check_suppressions_create(&checker->suppressions) : -ENOMEM;

    if (rc < 0)
        error_set_errno(err, rc, "cannot read suppressions");
    for (size_t i = 0; rc == 0 && i < options->suppressions_count; i++) {
        const char *path = options->suppressions[i];
        rc = read_file(path, text, SUPPRESSIONS_BYTES_MAX);
        if (rc < 0)
            error_set_errno(err, rc, "cannot read suppressions from \"%s\"", path);
        else
            rc = check_suppressions_add(checker->suppressions, path, text, err);
    }
    free(text);
    return rc;
}

static int make_heap(struct checker *checker, struct error *err)
{
    const struct checker_target *target = &checker->target;
    const struct heap_space space = {.gva = target->objects,
                                     .bytes = target->objects_bytes,
                                     .map = heap_map,
                                     .unmap = heap_unmap,
                                     .zero = heap_zero,
                                     .copy = heap_copy,
                                     .hva = heap_hva,
                                     .step_bytes = target->step_bytes,
                                     .opaque = checker};
    uint64_t bytes = target->objects + target->objects_bytes;
    int rc = memory_identifiers_init(&checker->identifiers, bytes, err);
    return rc < 0 ? rc : heap_create(&checker->heap, &space, &checker->identifiers, err);
}

static int make_report(struct checker *checker, struct error *err)
{
    const struct checker_options *options = &checker->options;
    const struct check_report_options to = {.format = options->format,
                                            .fd = options->file ? -1 : options->fd,
                                            .program = options->program,
                                            .suppressions = checker->suppressions,
                                            .suggest = options->suggest};
    int rc = check_symbols_create(&checker->symbols, options->sysroot);
    if (rc == 0)
        rc = check_stacks_create(&checker->stacks);
    if (rc == 0)
        rc = check_report_create(&checker->report, checker->symbols, &to);
    return rc < 0 ? error_set_errno(err, rc, "cannot make reports") : 0;
}

static int checker_init(struct checker *checker, struct error *err)
{
    const struct checker_options *options = &checker->options;
    const struct takeover_options taken = {.allocators = options->allocators,
                                           .allocators_count = options->allocators_count,
                                           .landing = checker->target.landing};
    int rc = add_suppressions(checker, err);
    if (rc == 0)
        rc = make_report(checker, err);
    if (rc == 0)
        rc = takeover_create(&checker->takeover, &taken, err);
    if (rc == 0 && (rc = variables_create(&checker->variables)) < 0)
        error_set_errno(err, rc, "cannot check a program");
    if (rc == 0)
        rc = make_heap(checker, err);
    checker->hart_check = (struct hart_check){.identifiers = &checker->identifiers,
                                              .stacks = checker->target.stacks,
                                              .heap = checker->target.heap,
                                              .access = checker_hook_access,
                                              .takes = hook_takes,
                                              .taken = hook_taken,
                                              .at_once = hook_at_once,
                                              .returns = checker_hook_returns,
                                              .opaque = checker};
    return rc;
}

int checker_create(struct checker **out, const struct checker_options *options,
                   const struct checker_target *target, struct error *err)
{
    struct checker *checker = calloc(1, sizeof(*checker));
    if (!checker)
        return error_set_errno(err, -ENOMEM, "cannot check a program");
    checker->options = *options;
    checker->target = *target;
    checker->alone = !options->executed;
    pthread_mutex_init(&checker->lock, NULL);
    pthread_mutex_init(&checker->libraries_lock, NULL);
    int rc = checker_init(checker, err);
    if (rc < 0) {
        checker_destroy(checker);
        return rc;
    }
    *out = checker;
    return 0;
}

void checker_destroy(struct checker *checker)
{
    if (!checker)
        return;
    checker->alone = false;  // it may have executed nothing
    checker_report_close(checker);
    heap_destroy(checker->heap);
    memory_identifiers_fini(&checker->identifiers);
    takeover_destroy(checker->takeover);
    variables_destroy(checker->variables);
    check_stacks_destroy(checker->stacks);
    check_symbols_destroy(checker->symbols);
    check_suppressions_destroy(checker->suppressions);
    pthread_mutex_destroy(&checker->libraries_lock);
    pthread_mutex_destroy(&checker->lock);
    free(checker);
}

// ---- Threads ------------------------------------------------------------------------------------

int checker_thread_create(struct checker_thread **out, struct checker *checker, unsigned number)
{
    struct checker_thread *thread = calloc(1, sizeof(*thread));
    if (!thread)
        return -ENOMEM;
    thread->checker = checker;
    thread->number = number;
    thread->outermost = check_stacks_begin(checker->stacks, number);
    int rc = heap_thread_create(checker->heap, &thread->heap);
    if (rc == 0)
        rc = check_unwinder_create(&thread->unwinder, checker->symbols);
    if (rc < 0) {
        checker_thread_destroy(thread);
        return rc;
    }
    *out = thread;
    return 0;
}

void checker_thread_destroy(struct checker_thread *thread)
{
    if (!thread)
        return;
    heap_thread_destroy(thread->heap);
    check_unwinder_destroy(thread->unwinder);
    free(thread);
}

struct checker *checker_of(struct checker_thread *thread)
{
    return thread->checker;
}

struct heap_thread *checker_heap_thread(struct checker_thread *thread)
{
    return thread->heap;
}

struct heap *checker_heap(struct checker *checker)
{
    return checker->heap;
}

void checker_exits(struct checker_thread *thread, const struct hart *hart)
{
    thread->exit_sp = hart->x[HART_SP];
    for (unsigned i = 0; i < CHECKER_SAVED; i++)
        thread->exit_saved[i] = hart->x[i < 2 ? 8 + i : 16 + i];
}

static int read_memory(void *opaque, uint64_t gva, void *bytes, size_t count)
{
    return checker_copy_in(opaque, bytes, gva, count);
}

struct check_memory checker_memory(struct checker *checker)
{
    return (struct check_memory){.read = read_memory, .opaque = checker};
}

static uint32_t within(void *opaque, uint32_t outer, uint64_t back)
{
    struct checker *checker = opaque;
    const struct check_memory memory = checker_memory(checker);
    uint64_t place = check_place_of_return(back);
    uint32_t number = check_stacks_find(checker->stacks, outer, place);

    return number ? number
                  : check_stacks_add(checker->stacks, outer, place, check_callee(&memory, back));
}

uint32_t checker_who(struct checker_thread *thread, struct hart *hart, uint64_t pc)
{
    struct check_stacks *stacks = thread->checker->stacks;
    uint32_t outer = hart_context(hart, thread->outermost, within, thread->checker);
    uint32_t number = check_stacks_find(stacks, outer, pc);

    return number ? number : check_stacks_add(stacks, outer, pc, 0);
}

// ---- Code ---------------------------------------------------------------------------------------

static bool has_code(const struct checker_range_of_code *range, uint64_t gva, uint64_t bytes)
{
    return gva >= range->gva && gva < range->end && bytes <= range->end - gva;
}

// The C library and the dynamic loader, by the names that their files always have.
static void add_library(struct checker *checker, const char *name, uint64_t gva, uint64_t bytes)
{
    static const struct {
        const char *prefix;
        bool loader;
    } known[] = {{"ld-linux-", true},
                 {"ld-musl-", true},
                 {"libc.so.", false},
                 {"libc-2.", false},
                 {"libatomic.so.", false}};
    const char *slash = strrchr(name, '/'), *file = slash ? slash + 1 : name;
    size_t i = 0;

    while (i < BASE_COUNT_OF(known) && strncmp(file, known[i].prefix, strlen(known[i].prefix)) != 0)
        i++;
    if (i == BASE_COUNT_OF(known))
        return;
    pthread_mutex_lock(&checker->libraries_lock);
    unsigned count = atomic_load_explicit(&checker->library_count, memory_order_relaxed), same = 0;
    while (same < count && !has_code(&checker->libraries[same], gva, bytes))
        same++;
    if (same == count && count < CHECKER_LIBRARIES_MAX) {
        checker->libraries[count] =
            (struct checker_range_of_code){gva, gva + bytes, known[i].loader};
        // Who sees the count sees the range.
        atomic_store_explicit(&checker->library_count, count + 1, memory_order_release);
    }
    pthread_mutex_unlock(&checker->libraries_lock);
}

bool checker_is_library(struct checker *checker, uint64_t pc, bool loader)
{
    unsigned count = atomic_load_explicit(&checker->library_count, memory_order_acquire);
    for (unsigned i = 0; i < count; i++) {
        const struct checker_range_of_code *range = &checker->libraries[i];
        if (has_code(range, pc, 1) && (range->loader || !loader))
            return true;
    }
    return false;
}

void checker_map(struct checker *checker, uint64_t gva, uint64_t bytes, bool executable, int fd,
                 const char *name, const char *path, uint64_t offset)
{
    // Where memory is short names or functions are missing, and nothing else.
    (void)!check_symbols_map(checker->symbols, gva, bytes, name, path, offset);
    if (!executable)
        return;
    takeover_unmap(checker->takeover, gva, bytes);
    if (name && fd >= 0)
        (void)!takeover_map(checker->takeover, gva, bytes, fd, offset);
    if (name)
        add_library(checker, name, gva, bytes);
}

// Pointers to a stack equal no entry, so that code that looks them up compares them with sp as
// well. Of a large stack only what is used first: each 16 bytes of it have 2 of the table, which
// are memory as they are written.
void checker_map_stack(struct checker *checker, uint64_t gva, uint64_t bytes)
{
    uint64_t looked = bytes < STACK_LOOKED_BYTES ? bytes : STACK_LOOKED_BYTES;

    memory_identifiers_set(&checker->identifiers, gva + bytes - looked, looked,
                           MEMORY_IDENTIFIER_LOOK);
}

// ---- Forks, and the end -------------------------------------------------------------------------

void checker_fork_begin(struct checker *checker)
{
    pthread_mutex_lock(&checker->lock);
    pthread_mutex_lock(&checker->libraries_lock);
    variables_lock(checker->variables);
    takeover_lock(checker->takeover);
    check_symbols_lock(checker->symbols);
    heap_fork_begin(checker->heap);
}

void checker_fork_end(struct checker_thread *thread, bool child)
{
    struct checker *checker = thread->checker;

    checker->alone = false;
    heap_fork_end(thread->heap, child);
    check_symbols_unlock(checker->symbols);
    takeover_unlock(checker->takeover);
    variables_unlock(checker->variables);
    pthread_mutex_unlock(&checker->libraries_lock);
    if (child && checker->report)
        check_report_forked(checker->report);
    if (child)
        checker->reported = false;
    pthread_mutex_unlock(&checker->lock);
}

int checker_end(struct checker_thread *thread, int status, bool leaks)
{
    struct checker *checker = thread->checker;
    const struct checker_target *target = &checker->target;

    if (target->pause)
        target->pause(target->opaque);
    pthread_mutex_lock(&checker->lock);
    if (checker->report && leaks && checker->options.leaks != CHECKER_LEAKS_NO && target->roots)
        checker_leaks(thread);
    checker_report_close(checker);
    bool reported = checker->reported;
    pthread_mutex_unlock(&checker->lock);
    return reported ? CHECKER_STATUS : status;
}
