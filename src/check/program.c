// SPDX-License-Identifier: BSD-2-Clause
// What a checker needs of a program of Linux, and what it does for one.
#include "check/program.h"
#include "check/checker_internal.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STACK_END_BYTES 65536u  // below a stack: where one that is used up goes on

struct program {
    struct checker *checker;
    struct user_process *process;
    struct user_watch watch;
    _Atomic unsigned threads;  // that there have been
    bool named, installed;     // what is executed is known; and is of the system's folders
    enum checker_leaks leaks;
    pthread_mutex_t pausing;  // who pauses the others
};

static struct checker_thread *thread_current(void)
{
    return user_thread_watched(user_thread_current());
}

// ---- What the checker needs ---------------------------------------------------------------------

static int target_map(void *opaque, uint64_t gva, uint64_t bytes)
{
    const struct program *program = opaque;
    return user_heap_map(program->process, gva, bytes);
}

static void target_unmap(void *opaque, uint64_t gva, uint64_t bytes)
{
    const struct program *program = opaque;
    user_heap_unmap(program->process, gva, bytes);
}

static void *target_hva(void *opaque, uint64_t gva, uint64_t bytes)
{
    const struct program *program = opaque;
    return user_process_hva(program->process, gva, bytes);
}

static int target_attempt(void *opaque, void (*work)(void *argument), void *argument)
{
    (void)opaque;
    return user_attempt(work, argument);
}

static struct checker_thread *target_thread(void *opaque, struct hart *hart)
{
    (void)opaque;
    (void)hart;
    return thread_current();
}

static bool target_same_stack(void *opaque, uint64_t a, uint64_t b)
{
    const struct program *program = opaque;
    return user_process_same_mapping(program->process, a, b);
}

static void target_pause(void *opaque)
{
    struct program *program = opaque;
    user_thread_wait_begin(user_thread_current());
    pthread_mutex_lock(&program->pausing);
    user_process_pause(program->process);
}

static void target_resume(void *opaque)
{
    struct program *program = opaque;
    user_process_resume(program->process);
    pthread_mutex_unlock(&program->pausing);
    user_thread_wait_end(user_thread_current());
}

static void target_fault(void *opaque, struct hart *hart, uint64_t gva, enum hart_access access)
{
    (void)opaque;
    (void)hart;
    user_thread_fault(user_thread_current(), gva, access);
}

static void target_halt(void *opaque, struct hart *hart)
{
    (void)opaque;
    (void)hart;
    user_thread_exit(user_thread_current(), CHECKER_STATUS);
}

static bool target_stop(void *opaque, struct hart *hart, const char *said)
{
    struct user_thread *thread = user_thread_current();
    (void)opaque;
    (void)hart;
    return said ? user_thread_stop(thread, said) : user_thread_stops(thread);
}

// ---- Roots of leaks -----------------------------------------------------------------------------

// The thread that ends the program, if it does so by exit: of its stack and registers those count
// that exit was called with.
static const struct checker_thread *exiting(struct user_thread *thread)
{
    const struct checker_thread *watched = user_thread_watched(thread);
    bool exits = thread == user_thread_current() && watched && watched->exit_sp;

    return exits && watched->exit_sp >= user_thread_hart(thread)->x[HART_SP] ? watched : NULL;
}

// The lowest sp of a thread in a mapping: below it there is nothing but dead frames. The C library
// keeps stacks of threads that have ended, for others: there it is that of the last.
struct lowest {
    uint64_t gva, end, sp;
};

static void lower(void *opaque, struct user_thread *thread)
{
    struct lowest *lowest = opaque;
    const struct checker_thread *exits = exiting(thread);
    uint64_t sp = exits ? exits->exit_sp : user_thread_hart(thread)->x[HART_SP];
    if (sp >= lowest->gva && sp < lowest->end && (!lowest->sp || sp < lowest->sp))
        lowest->sp = sp;
}

static void add_mapping(void *opaque, uint64_t gva, uint64_t bytes, uint64_t ended_sp)
{
    struct program *program = opaque;
    struct lowest lowest = {.gva = gva, .end = gva + bytes};

    if (gva >= CHECKER_HEAP)
        return;
    if (gva >= CHECKER_STACKS) {
        lower(&lowest, user_thread_current());
        user_process_each_thread(program->process, lower, &lowest);
    }
    uint64_t sp = lowest.sp ? lowest.sp : ended_sp;
    uint64_t start = sp ? sp & ~7ull : gva;
    checker_root(program->checker, start, gva + bytes - start);
}

// Where thread-local variables are is told by a vector (dtv) whose second element, of 16 bytes, the
// C library keeps a pointer to, before tp.
static void add_vector(struct checker *checker, uint64_t tp)
{
    uint64_t vector;
    if (checker_copy_in(checker, &vector, tp - 2 * sizeof(vector), sizeof(vector)) == 0)
        checker_root_word(checker, vector - 2 * sizeof(vector));
}

static void add_registers(void *opaque, struct user_thread *thread)
{
    const struct hart *hart = user_thread_hart(thread);
    const struct checker_thread *exits = exiting(thread);
    for (unsigned i = 1; !exits && i < BASE_COUNT_OF(hart->x); i++)
        checker_root_word(opaque, hart->x[i]);
    for (unsigned i = 0; exits && i < BASE_COUNT_OF(exits->exit_saved); i++)
        checker_root_word(opaque, exits->exit_saved[i]);
    add_vector(opaque, hart->x[4]);
}

static void target_roots(void *opaque, struct checker *checker)
{
    struct program *program = opaque;

    add_registers(checker, user_thread_current());
    user_process_each_thread(program->process, add_registers, checker);
    user_process_each_mapping(program->process, add_mapping, program);
}

// ---- What it does -------------------------------------------------------------------------------

static void watch_begins(void *opaque, struct user_process *process)
{
    struct program *program = opaque;
    program->process = process;
}

static int watch_thread_begins(void *opaque, void **watched)
{
    struct program *program = opaque;
    return checker_thread_create((struct checker_thread **)watched, program->checker,
                                 atomic_fetch_add(&program->threads, 1));
}

static void watch_thread_ends(void *opaque, void *watched)
{
    (void)opaque;
    checker_thread_destroy(watched);
}

// Most installed programs leave to their end what they have, and to who runs them that is no error.
static bool is_installed(const char *name)
{
    static const char *const folders[] = {"/usr/bin/", "/usr/sbin/", "/usr/lib/", "/usr/libexec/",
                                          "/bin/",     "/sbin/",     "/lib/"};
    size_t i = 0;

    while (i < BASE_COUNT_OF(folders) && strncmp(name, folders[i], strlen(folders[i])) != 0)
        i++;
    return i < BASE_COUNT_OF(folders);
}

// The first file is the program, or who interprets it.
static void watch_mapped(void *opaque, uint64_t gva, uint64_t bytes, int fd, uint64_t offset,
                         const char *name, const char *path)
{
    struct program *program = opaque;

    if (name && !program->named) {
        program->installed = is_installed(name);
        program->named = true;
    }
    checker_map(program->checker, gva, bytes, true, fd, name, path, offset);
}

static void watch_stack_mapped(void *opaque, uint64_t gva, uint64_t bytes)
{
    const struct program *program = opaque;
    checker_map_stack(program->checker, gva, bytes);
}

static bool watch_buffer(void *opaque, struct user_thread *thread, uint64_t pointer, uint64_t bytes,
                         enum hart_access access)
{
    (void)opaque;
    return checker_call_range(user_thread_watched(thread), user_thread_hart(thread),
                              user_thread_call(thread), pointer, bytes, access);
}

static void watch_fork_begins(void *opaque)
{
    struct program *program = opaque;
    pthread_mutex_lock(&program->pausing);
    checker_fork_begin(program->checker);
}

static void watch_fork_ends(void *opaque, struct user_thread *thread, bool child)
{
    struct program *program = opaque;
    checker_fork_end(user_thread_watched(thread), child);
    pthread_mutex_unlock(&program->pausing);
}

static int watch_ends(void *opaque, struct user_thread *thread, int status)
{
    const struct program *program = opaque;
    bool leaks = program->leaks != CHECKER_LEAKS_OWN || !program->installed;

    // What is in memory that was borrowed is its owner's to tell.
    return user_thread_borrows(thread) ? status
                                       : checker_end(user_thread_watched(thread), status, leaks);
}

// ---- Faults that end it -------------------------------------------------------------------------

static const char *fault_detail(const struct checker *checker, const struct hart *hart,
                                uint64_t gva)
{
    uint64_t sp = hart->x[HART_SP];
    bool near = gva - (sp - STACK_END_BYTES) < 2ull * STACK_END_BYTES;
    return near && checker_is_stack(checker, gva) ? "The stack is used up" : NULL;
}

// Firmware is an ELF file as programs of Linux are, and most of it starts with what those may not.
static void tell_bare_metal(const struct program *program, const struct hart *hart)
{
    struct isa_insn insn;
    uint32_t raw;

    if (checker_copy_in(program->checker, &raw, hart->pc, sizeof(raw)) < 0)
        return;
    isa_decode(raw, &insn);
    if (isa_op_flags(insn.op) & ISA_SYSTEM)
        log_line(LOG_WARN,
                 "\"%s\" executes what is not for programs of Linux; if it is bare-metal, it wants "
                 "--machine",
                 program->checker->options.program);
}

static int watch_dies(void *opaque, struct user_thread *thread, int signal, uint64_t gva,
                      enum hart_access access)
{
    const struct program *program = opaque;
    struct hart *hart = user_thread_hart(thread);

    if (signal == SIGSEGV || signal == SIGBUS)
        (void)!checker_found(user_thread_watched(thread), hart,
                             gva < CHECKER_NULL_BYTES ? CHECK_NULL_DEREFERENCE : CHECK_WILD_POINTER,
                             checker_access_of(access), gva,
                             access == HART_EXEC ? 1
                                                 : checker_access_bytes(program->checker, hart->pc),
                             fault_detail(program->checker, hart, gva));
    if (signal == SIGILL)
        tell_bare_metal(program, hart);
    if (user_thread_borrows(thread) || user_thread_stops(thread))
        return -1;
    return checker_end(user_thread_watched(thread), -1, false);
}

// ---- Start --------------------------------------------------------------------------------------

static int run(struct program *program, const struct check_program_options *options,
               struct error *err)
{
    const struct checker_target target = {.opaque = program,
                                          .objects = CHECKER_OBJECTS,
                                          .objects_bytes = CHECKER_OBJECTS_BYTES,
                                          .stacks = CHECKER_STACKS,
                                          .heap = CHECKER_HEAP,
                                          .landing = CHECKER_LANDING,
                                          .map = target_map,
                                          .step_bytes = USER_HEAP_STEP_BYTES,
                                          .unmap = target_unmap,
                                          .hva = target_hva,
                                          .attempt = target_attempt,
                                          .thread = target_thread,
                                          .same_stack = target_same_stack,
                                          .pause = target_pause,
                                          .resume = target_resume,
                                          .fault = target_fault,
                                          .halt = target_halt,
                                          .stop = options->user.gdb ? target_stop : NULL,
                                          .roots = target_roots};
    int rc = checker_create(&program->checker, &options->checker, &target, err);
    if (rc < 0)
        return rc;
    program->leaks = options->checker.leaks;
    program->watch = (struct user_watch){.opaque = program,
                                         .check = checker_hart_check(program->checker),
                                         .stacks = CHECKER_STACKS,
                                         .heap = CHECKER_HEAP,
                                         .landing = CHECKER_LANDING,
                                         .command = options->command,
                                         .command_count = options->command_count,
                                         .begins = watch_begins,
                                         .thread_begins = watch_thread_begins,
                                         .thread_ends = watch_thread_ends,
                                         .mapped = watch_mapped,
                                         .stack_mapped = watch_stack_mapped,
                                         .buffer = watch_buffer,
                                         .fork_begins = watch_fork_begins,
                                         .fork_ends = watch_fork_ends,
                                         .ends = watch_ends,
                                         .dies = watch_dies};
    struct user_options user = options->user;
    user.watch = &program->watch;
    return user_run(&user, err);
}

int check_program_run(const struct check_program_options *options, struct error *err)
{
    // The process' for its life, which is the program's.
    struct program *program = calloc(1, sizeof(*program));
    if (!program)
        return error_set_errno(err, -ENOMEM, "cannot check \"%s\"", options->user.program);
    pthread_mutex_init(&program->pausing, NULL);
    return run(program, options, err);
}
