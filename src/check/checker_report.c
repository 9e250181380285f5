// SPDX-License-Identifier: BSD-2-Clause
// From what is wrong to a report of it, and what becomes of the program then.
#include "check/checker_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// ---- Where reports go ---------------------------------------------------------------------------

// "%p" is the process' id.
static void file_name(const char *pattern, char *name, size_t capacity)
{
    size_t used = 0;
    for (const char *at = pattern; *at && used + 1 < capacity; at++) {
        bool id = at[0] == '%' && at[1] == 'p';
        if (id)
            used += (size_t)snprintf(name + used, capacity - used, "%d", (int)getpid());
        else
            name[used++] = *at;
        at += id;
    }
    name[used < capacity ? used : capacity - 1] = 0;
}

// Descriptors are the program's, so that the file is open as long as it is written to. No report is
// lost where it cannot be opened.
static void open_file(struct checker *checker)
{
    char name[4096];

    if (!checker->options.file)
        return;
    file_name(checker->options.file, name, sizeof(name));
    checker->options.fd = open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (checker->options.fd < 0) {
        log_line(LOG_ERROR, "cannot write reports to \"%s\", so they are on standard error: %s",
                 name, strerror(errno));
        checker->options.file = NULL;
        checker->options.fd = STDERR_FILENO;
    }
    check_report_set_fd(checker->report, checker->options.fd);
}

// Between the two reports are written. That nobody reads them any more is not what a program dies
// of.
static void writing_begin(struct checker *checker)
{
    sigset_t broken;

    sigemptyset(&broken);
    sigaddset(&broken, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &broken, &checker->signals);
    open_file(checker);
}

static void writing_end(struct checker *checker)
{
    const struct timespec now = {0};
    sigset_t broken;

    if (checker->options.file && checker->options.fd >= 0)
        close(checker->options.fd);
    sigemptyset(&broken);
    sigaddset(&broken, SIGPIPE);
    if (!sigismember(&checker->signals, SIGPIPE))
        (void)!sigtimedwait(&broken, NULL, &now);
    pthread_sigmask(SIG_SETMASK, &checker->signals, NULL);
}

static void tell_missing(const char *name)
{
    log_line(LOG_WARN, "no function \"%s\" was found to be taken over (--allocator)", name);
}

// What looks well checked, and is not. Firmware has no allocator of libc's, and may speak for
// itself.
static void tell_unknown(struct checker *checker)
{
    if (!checker->alone)
        return;
    takeover_each_missing(checker->takeover, tell_missing);
    if (takeover_is_nameless(checker->takeover) && checker->target.stacks)
        log_line(LOG_WARN,
                 "\"%s\" is static and has no symbols, so that what it allocates is not checked",
                 checker->options.program);
}

void checker_report_close(struct checker *checker)
{
    if (!checker->report)
        return;
    writing_begin(checker);
    int rc = check_report_close(checker->report);
    if (rc < 0)
        log_line(LOG_ERROR, "cannot write the report: %s", strerror(-rc));
    checker->report = NULL;
    tell_unknown(checker);
    writing_end(checker);
}

// ---- Stacks and objects -------------------------------------------------------------------------

static struct check_stack kept_stack(const struct checker *checker, uint32_t who,
                                     uint64_t places[static CHECK_STACK_MAX])
{
    uint64_t thread = 0;
    size_t count = check_stacks_get(checker->stacks, who, places, &thread);

    return (struct check_stack){.places = places, .count = count, .thread = (unsigned)thread};
}

void checker_show(const struct checker *checker, const struct heap_object *from,
                  struct checker_shown *to)
{
    to->object =
        (struct check_object){.gva = from->gva, .bytes = from->bytes, .freed = !from->live};
    to->object.allocated = kept_stack(checker, from->allocated_by, to->allocated);
    if (to->object.freed)
        to->object.freed_by = kept_stack(checker, from->freed_by, to->freed_by);
}

// The calls that the hart has kept need no information in the program, which libraries for riscv64
// are without, and nothing of the program's changes them.
static size_t stack_of(struct checker_thread *thread, const struct hart *hart,
                       uint64_t places[static CHECK_STACK_MAX])
{
    const struct check_memory memory = checker_memory(thread->checker);
    struct check_registers registers = {.pc = hart->pc};

    places[0] = hart->pc;
    size_t count = 1 + hart_callers(hart, places + 1, CHECK_STACK_MAX - 1);
    for (size_t i = 1; i < count; i++)
        places[i] = check_place_of_return(places[i]);
    if (count > 1)
        return count;
    memcpy(registers.x, hart->x, sizeof(registers.x));
    return check_unwind(thread->unwinder, &registers, &memory, places, CHECK_STACK_MAX);
}

// ---- Findings -----------------------------------------------------------------------------------

// What a finding is when its stacks have the functions as well that were left by jumps.
struct complete {
    struct check_finding finding;
    struct check_object object;
    uint64_t places[3][CHECK_STACK_MAX];
};

static void stack_complete(struct checker *checker, struct check_stack *stack,
                           uint64_t places[static CHECK_STACK_MAX])
{
    const struct check_memory memory = checker_memory(checker);

    stack->count = check_tails(checker->symbols, &memory, stack, places);
    stack->places = places;
}

static void complete_init(struct complete *complete, struct checker *checker,
                          const struct check_finding *finding)
{
    complete->finding = *finding;
    stack_complete(checker, &complete->finding.stack, complete->places[0]);
    if (!finding->object)
        return;
    complete->object = *finding->object;
    complete->finding.object = &complete->object;
    stack_complete(checker, &complete->object.allocated, complete->places[1]);
    stack_complete(checker, &complete->object.freed_by, complete->places[2]);
}

// Under the lock. Whether it is a new one.
bool checker_report_add(struct checker_thread *thread, const struct check_finding *finding)
{
    struct checker *checker = thread->checker;
    struct complete complete;

    writing_begin(checker);
    complete_init(&complete, checker, finding);
    bool reported = check_report_add(checker->report, &complete.finding) == CHECK_REPORTED;
    writing_end(checker);
    checker->reported = checker->reported || reported;
    return reported;
}

// What is found for the first time a debugger shows.
static bool stop(struct checker *checker, struct hart *hart, const struct check_finding *finding)
{
    const struct checker_target *target = &checker->target;
    struct complete complete;
    char *said = NULL;

    if (target->stop) {
        complete_init(&complete, checker, finding);
        said = check_report_text(checker->report, &complete.finding);
    }
    bool stops = said && target->stop(target->opaque, hart, said);
    free(said);
    return stops;
}

// The other threads are paused meanwhile: descriptors are open that they are not to see, and who
// ends the process does not end it in the middle of a report.
bool checker_tell(struct checker_thread *thread, struct hart *hart, struct check_finding *finding)
{
    struct checker *checker = thread->checker;
    const struct checker_target *target = &checker->target;
    uint64_t places[CHECK_STACK_MAX];

    if (target->stop && target->stop(target->opaque, hart, NULL))
        return false;
    if (target->pause)
        target->pause(target->opaque);
    pthread_mutex_lock(&checker->lock);
    finding->stack = (struct check_stack){
        .places = places, .count = stack_of(thread, hart, places), .thread = thread->number};
    bool ended = !checker->report;
    bool reported = !ended && checker_report_add(thread, finding);
    bool stops = reported && stop(checker, hart, finding);
    // What was shown to a debugger is found once more when the program goes on.
    bool halts = !ended && !stops && !checker->options.go_on &&
                 (reported || (thread->shown_pc && thread->shown_pc == hart->pc));
    thread->shown_pc = stops ? hart->pc : 0;
    if (halts)
        checker_report_close(checker);
    pthread_mutex_unlock(&checker->lock);
    if (halts)
        target->halt(target->opaque, hart);
    if (target->resume)
        target->resume(target->opaque);
    return !halts && !ended && !stops;
}

void checker_call_detail(const char *call, char *text, size_t capacity)
{
    snprintf(text, capacity, "The memory was handed to the system call '%s'", call);
}

bool checker_found(struct checker_thread *thread, struct hart *hart, enum check_kind kind,
                   enum check_access access, uint64_t pointer, uint64_t bytes, const char *detail)
{
    struct check_finding finding = {.kind = kind,
                                    .access = access,
                                    .gva = memory_pointer_gva(pointer),
                                    .bytes = bytes,
                                    .pointer_id = memory_pointer_identifier(pointer),
                                    .detail = detail};
    struct heap_object object;
    struct checker_shown shown;

    if (heap_find(thread->checker->heap, finding.gva, &object)) {
        checker_show(thread->checker, &object, &shown);
        finding.object = &shown.object;
    }
    return checker_tell(thread, hart, &finding);
}

static enum check_kind kind_of(const struct heap_finding *finding, uint64_t gva, bool call)
{
    static const enum check_kind kinds[] = {
        [HEAP_OVERFLOW] = CHECK_HEAP_BUFFER_OVERFLOW,
        [HEAP_UNDERFLOW] = CHECK_HEAP_BUFFER_UNDERFLOW,
        [HEAP_USE_AFTER_FREE] = CHECK_HEAP_USE_AFTER_FREE,
        [HEAP_USE_AFTER_REALLOC] = CHECK_USE_AFTER_REALLOC,
        [HEAP_DOUBLE_FREE] = CHECK_DOUBLE_FREE,
        [HEAP_INTERIOR_FREE] = CHECK_INTERIOR_FREE,
        [HEAP_INVALID_FREE] = CHECK_INVALID_FREE,
        [HEAP_MISMATCHED_FREE] = CHECK_MISMATCHED_FREE,
    };
    bool beyond = finding->fault == HEAP_OVERFLOW || finding->fault == HEAP_UNDERFLOW;

    if (finding->fault == HEAP_WILD || finding->fault == HEAP_FINE)
        return gva < CHECKER_NULL_BYTES ? CHECK_NULL_DEREFERENCE : CHECK_WILD_POINTER;
    return call && beyond ? CHECK_SYSCALL_BUFFER_OVERFLOW : kinds[finding->fault];
}

// Where the pointer has left its object, what else is there.
static void memory_detail(const struct heap_finding *finding, char *text, size_t capacity)
{
    const struct heap_object *memory = &finding->memory;

    if (finding->has_object && finding->has_memory && memory->gva != finding->object.gva)
        snprintf(text, capacity, "The memory there is in %s object of %llu bytes at 0x%llx",
                 memory->live ? "another" : "a freed", (unsigned long long)memory->bytes,
                 (unsigned long long)memory->gva);
}

bool checker_found_by_call(struct checker_thread *thread, struct hart *hart, const char *call,
                           const struct heap_finding *heap, enum check_access access,
                           uint64_t pointer, uint64_t bytes)
{
    char detail[160] = "";
    struct checker_shown shown;
    struct check_finding finding = {.access = access,
                                    .gva = memory_pointer_gva(pointer),
                                    .bytes = bytes,
                                    .pointer_id = heap->pointer_identifier,
                                    .memory_id = heap->memory_identifier};

    finding.kind = kind_of(heap, finding.gva, call);
    if (call)
        checker_call_detail(call, detail, sizeof(detail));
    else
        memory_detail(heap, detail, sizeof(detail));
    if (*detail)
        finding.detail = detail;
    if (heap->has_object || heap->has_memory) {
        checker_show(thread->checker, heap->has_object ? &heap->object : &heap->memory, &shown);
        finding.object = &shown.object;
    }
    return checker_tell(thread, hart, &finding);
}

bool checker_found_heap(struct checker_thread *thread, struct hart *hart,
                        const struct heap_finding *finding, enum check_access access,
                        uint64_t pointer, uint64_t bytes)
{
    return checker_found_by_call(thread, hart, NULL, finding, access, pointer, bytes);
}
