// SPDX-License-Identifier: BSD-2-Clause
// The program's process: its start, what its instructions raise, its forks.
#include <errno.h>
#include <linux/sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "user/internal.h"

#define BORROWS_MAX 16u
#define PAUSE_STEP_US 50u
#define PAUSE_US_MAX 1000000u

// A signal's handler has to find it, and nothing but the thread leads there.
static _Thread_local struct user_thread *current;

struct user_thread *user_thread_current(void)
{
    return current;
}

void user_thread_set_current(struct user_thread *thread)
{
    current = thread;
}

// ---- For who watches ----------------------------------------------------------------------------

void *user_thread_watched(const struct user_thread *thread)
{
    return thread->watched;
}

struct hart *user_thread_hart(const struct user_thread *thread)
{
    return thread->hart;
}

const char *user_thread_call(const struct user_thread *thread)
{
    return thread->call;
}

bool user_thread_borrows(const struct user_thread *thread)
{
    return thread->borrows;
}

void user_process_each_thread(struct user_process *process,
                              void (*fn)(void *opaque, struct user_thread *thread), void *opaque)
{
    pthread_mutex_lock(&process->lock);
    LIST_FOR_EACH(&process->threads, node)
    {
        struct user_thread *thread = BASE_CONTAINER_OF(node, struct user_thread, node);
        if (thread != current)
            fn(opaque, thread);
    }
    pthread_mutex_unlock(&process->lock);
}

// A thread says that it is outside, does what may take long, says that it is not, and looks whether
// another one has the rest pause; who pauses says so, and looks whether they are outside. Both in
// the one order of all: one of them sees the other.
void user_thread_wait_begin(struct user_thread *thread)
{
    atomic_store(&thread->outside, true);
}

void user_thread_wait_end(struct user_thread *thread)
{
    struct user_process *process = thread->process;

    atomic_store(&thread->outside, false);
    struct user_thread *pauser = atomic_load(&process->pauser);
    if (!pauser || pauser == thread)
        return;
    atomic_store(&thread->outside, true);
    pthread_mutex_lock(&process->pause_lock);
    while (atomic_load(&process->pauser))
        pthread_cond_wait(&process->pause_ended, &process->pause_lock);
    // A next one looks for this thread behind the lock.
    atomic_store(&thread->outside, false);
    pthread_mutex_unlock(&process->pause_lock);
}

static void wait_until_outside(void *opaque, struct user_thread *thread)
{
    unsigned *patience = opaque;
    for (; !atomic_load(&thread->outside) && *patience; --*patience) {
        hart_poke(thread->hart);
        usleep(PAUSE_STEP_US);
    }
}

void user_process_pause(struct user_process *process)
{
    unsigned patience = PAUSE_US_MAX / PAUSE_STEP_US;

    pthread_mutex_lock(&process->pause_lock);
    atomic_store(&process->pauser, current);
    pthread_mutex_unlock(&process->pause_lock);
    user_process_each_thread(process, wait_until_outside, &patience);
}

void user_process_resume(struct user_process *process)
{
    pthread_mutex_lock(&process->pause_lock);
    atomic_store(&process->pauser, NULL);
    pthread_cond_broadcast(&process->pause_ended);
    pthread_mutex_unlock(&process->pause_lock);
}

void user_process_exit(struct user_thread *thread, int status)
{
    const struct user_watch *watch = thread->process->watch;
    if (watch)
        status = watch->ends(watch->opaque, thread, status);
    user_thread_exit(thread, status);
}

void user_thread_exit(struct user_thread *thread, int status)
{
    user_process_give_up(thread);
    user_debug_end(thread, false, status);
    _exit(status);
}

// ---- Hooks --------------------------------------------------------------------------------------

// Behind a call: one that is to be made again finds everything as it was.
static void finish_call(struct user_thread *thread, int64_t result)
{
    if (result != -USER_RESTART) {
        thread->hart->x[10] = (uint64_t)result;
        thread->hart->pc += USER_ECALL_BYTES;
    }
    user_signal_deliver(thread);
}

static void make_call(struct user_thread *thread)
{
    const uint64_t *x = thread->hart->x;
    const uint64_t arguments[6] = {x[10], x[11], x[12], x[13], x[14], x[15]};

    if (thread->caught) {  // what came before the call is handled before it
        user_signal_deliver(thread);
        return;
    }
    int64_t result = user_call_make(thread, x[17], arguments);
    if (thread->leave == USER_STAY)
        finish_call(thread, result);
}

void user_thread_fault(struct user_thread *thread, uint64_t gva, enum hart_access access)
{
    thread->fault = access;
    user_signal_force(thread, SIGSEGV,
                      user_space_has(&thread->process->space, gva) ? SEGV_ACCERR : SEGV_MAPERR,
                      gva);
}

static enum hart_access access_of(uint64_t cause)
{
    switch (cause) {
    case HART_CAUSE_STORE_MISALIGNED:
    case HART_CAUSE_STORE_ACCESS:
    case HART_CAUSE_STORE_PAGE:
        return HART_STORE;
    case HART_CAUSE_FETCH_MISALIGNED:
    case HART_CAUSE_FETCH_ACCESS:
    case HART_CAUSE_FETCH_PAGE:
        return HART_EXEC;
    default:
        return HART_LOAD;
    }
}

static void handle_trap(struct user_thread *thread, uint64_t cause, uint64_t tval)
{
    const struct hart *hart = thread->hart;

    thread->fault = access_of(cause);
    switch (cause) {
    case HART_CAUSE_ECALL_U:
        make_call(thread);
        break;
    case HART_CAUSE_BREAKPOINT:
        user_signal_force(thread, SIGTRAP, TRAP_BRKPT, hart->pc);
        break;
    case HART_CAUSE_FETCH_MISALIGNED:
    case HART_CAUSE_LOAD_MISALIGNED:
    case HART_CAUSE_STORE_MISALIGNED:
        user_signal_force(thread, SIGBUS, BUS_ADRALN, tval);
        break;
    case HART_CAUSE_FETCH_ACCESS:
    case HART_CAUSE_LOAD_ACCESS:
    case HART_CAUSE_STORE_ACCESS:
        user_signal_force(thread, SIGBUS, BUS_ADRERR, tval);
        break;
    case HART_CAUSE_FETCH_PAGE:
        if (user_debug_breaks(thread))
            break;
        // fallthrough
    case HART_CAUSE_LOAD_PAGE:
    case HART_CAUSE_STORE_PAGE:
        user_thread_fault(thread, tval, thread->fault);
        break;
    default:
        user_signal_force(thread, SIGILL, ILL_ILLOPC, hart->pc);
    }
}

static void on_trap(void *opaque, struct hart *hart, uint64_t cause, uint64_t tval)
{
    const struct user_process *process = opaque;

    (void)hart;
    if (process->watch)
        user_thread_wait_begin(current);
    handle_trap(current, cause, tval);
    if (process->watch)
        user_thread_wait_end(current);
}

static void on_poked(void *opaque, struct hart *hart)
{
    const struct user_process *process = opaque;

    (void)hart;
    if (process->watch)
        user_thread_wait_begin(current);
    user_signal_deliver(current);
    if (process->watch)
        user_thread_wait_end(current);
}

// ---- Threads ------------------------------------------------------------------------------------

static void thread_free(struct user_thread *thread)
{
    const struct user_watch *watch = thread->process->watch;
    if (watch)
        watch->thread_ends(watch->opaque, thread->watched);
    free(thread);
}

struct user_thread *user_thread_create(struct user_process *process, struct error *err)
{
    struct user_thread *thread = calloc(1, sizeof(*thread));
    if (!thread) {
        error_set_errno(err, -ENOMEM, "cannot make a thread");
        return NULL;
    }
    thread->process = process;
    thread->altstack.ss_flags = SS_DISABLE;
    atomic_init(&thread->outside, true);
    if (process->watch &&
        process->watch->thread_begins(process->watch->opaque, &thread->watched) < 0) {
        error_set_errno(err, -ENOMEM, "cannot make a thread");
        free(thread);
        return NULL;
    }
    pthread_mutex_lock(&process->lock);
    if (hart_create_flat(&thread->hart, process->harts_created++, &process->flat, process->engine,
                         err) == 0) {
        list_append(&process->threads, &thread->node);
        process->thread_count++;
        pthread_mutex_unlock(&process->lock);
        return thread;
    }
    pthread_mutex_unlock(&process->lock);
    thread_free(thread);
    return NULL;
}

bool user_thread_destroy(struct user_thread *thread)
{
    struct user_process *process = thread->process;

    pthread_mutex_lock(&process->fence_lock);
    pthread_mutex_lock(&process->lock);
    bool last = process->thread_count == 1;
    if (!last) {
        list_remove(&thread->node);
        process->thread_count--;
        user_debug_thread_ended(process, thread);
    }
    pthread_mutex_unlock(&process->lock);
    pthread_mutex_unlock(&process->fence_lock);
    if (last)
        return false;
    hart_destroy(thread->hart);
    thread_free(thread);
    return true;
}

void user_process_fence(struct user_process *process, unsigned fences)
{
    pthread_mutex_lock(&process->fence_lock);
    pthread_mutex_lock(&process->lock);
    struct hart **harts = calloc(process->thread_count, sizeof(struct hart *));
    size_t count = 0;
    LIST_FOR_EACH(&process->threads, node)
    {
        struct hart *hart = BASE_CONTAINER_OF(node, struct user_thread, node)->hart;
        if (harts)
            harts[count++] = hart;
        else  // one by one
            hart_fence_remote(current ? current->hart : NULL, &hart, 1, fences);
    }
    pthread_mutex_unlock(&process->lock);
    if (count)
        hart_fence_remote(current ? current->hart : NULL, harts, count, fences);
    free(harts);
    pthread_mutex_unlock(&process->fence_lock);
}

int64_t user_thread_leave(struct user_thread *thread, enum user_leave leave)
{
    thread->leave = leave;
    hart_stop(thread->hart);
    return -USER_RESTART;
}

void user_thread_run(struct user_thread *thread)  // NOLINT(misc-no-recursion): BORROWS_MAX deep
{
    bool watched = thread->process->watch;
    for (;;) {
        user_debug_pause(thread);
        if (watched)
            user_thread_wait_end(thread);
        enum hart_exit why = hart_run(thread->hart);
        if (why == HART_EXIT_FAILED)
            user_signal_die(SIGKILL);
        if (watched)
            user_thread_wait_begin(thread);
        enum user_leave leave = thread->leave;
        thread->leave = USER_STAY;
        if (leave == USER_LEAVE_EXIT)
            user_thread_end(thread);
        if (leave == USER_LEAVE_FORK)
            finish_call(thread, user_fork(thread));
        user_debug_left(thread, why, leave == USER_LEAVE_STOP);
    }
}

// ---- fork ---------------------------------------------------------------------------------------

static void lock_all(struct user_process *process)
{
    pthread_mutex_lock(&process->fence_lock);
    pthread_mutex_lock(&process->space.lock);
    pthread_mutex_lock(&process->lock);
}

static void unlock_all(struct user_process *process)
{
    pthread_mutex_unlock(&process->lock);
    pthread_mutex_unlock(&process->space.lock);
    pthread_mutex_unlock(&process->fence_lock);
}

// Nobody pauses others while there is a fork; but who has just been let go on may have the lock, or
// be counted by the condition, and in a child nobody would give that back.
static void init_pause(struct user_process *process)
{
    pthread_mutex_init(&process->pause_lock, NULL);
    pthread_cond_init(&process->pause_ended, NULL);
}

// The other threads are the parent's.
static void drop_other_threads(struct user_thread *thread)
{
    LIST_FOR_EACH(&thread->process->threads, node)
    {
        struct user_thread *other = BASE_CONTAINER_OF(node, struct user_thread, node);
        if (other != thread)
            (void)user_thread_destroy(other);
    }
}

// Whichever kind of child: what is its own from the start.
static void begin_child(struct user_thread *thread)
{
    const struct user_clone *clone = &thread->clone;

    thread->tid = gettid();
    thread->robust_list = 0;
    thread->clear_tid = clone->flags & CLONE_CHILD_CLEARTID ? clone->child_tid : 0;
    if (clone->flags & CLONE_CHILD_SETTID)
        (void)!user_copy_out(thread, clone->child_tid, &thread->tid, sizeof(thread->tid));
    user_clone_set_registers(clone, thread->hart);
    if (clone->flags & CLONE_CLEAR_SIGHAND)
        user_signal_reset(thread);
}

static int64_t fork_copying(struct user_thread *thread)
{
    const struct user_watch *watch = thread->process->watch;
    if (watch)  // its locks are taken before ours, as where it asks for memory
        watch->fork_begins(watch->opaque);
    lock_all(thread->process);
    pid_t pid = fork();
    int rc = pid < 0 ? -errno : pid;
    unlock_all(thread->process);
    if (watch)
        watch->fork_ends(watch->opaque, thread, pid == 0);
    if (pid == 0) {
        init_pause(thread->process);
        thread->borrows = 0;
        user_debug_forked(thread);
        drop_other_threads(thread);
        rc = hart_forked(thread->hart);
        if (rc < 0) {
            log_line(LOG_ERROR, "cannot go on in a forked process: %s", strerror(-rc));
            user_signal_die(SIGKILL);
        }
        begin_child(thread);
    }
    return rc;
}

// What a child that borrows the memory changes of its parent's thread.
struct lent {
    struct hart *hart;
    int tid;
    unsigned borrows;
    uint64_t clear_tid, robust_list, blocked;
    stack_t altstack;
    struct user_action actions[USER_SIGNALS + 1];
};

static void lend(const struct user_thread *thread, struct lent *lent)
{
    *lent = (struct lent){.hart = thread->hart,
                          .tid = thread->tid,
                          .borrows = thread->borrows,
                          .clear_tid = thread->clear_tid,
                          .robust_list = thread->robust_list,
                          .blocked = thread->blocked,
                          .altstack = thread->altstack};
    memcpy(lent->actions, thread->process->actions, sizeof(lent->actions));
}

static void take_back(struct user_thread *thread, const struct lent *lent)
{
    thread->hart = lent->hart;
    thread->tid = lent->tid;
    thread->clear_tid = lent->clear_tid;
    thread->robust_list = lent->robust_list;
    thread->blocked = lent->blocked;
    thread->altstack = lent->altstack;
    thread->borrows = lent->borrows;
    thread->leave = USER_STAY;
    thread->caught = 0;
    memcpy(thread->process->actions, lent->actions, sizeof(lent->actions));
}

// vfork: the child executes in the parent's memory, this struct and the stack of this thread
// included, until it ends or executes another program; so long this thread waits. It has a hart of
// its own, so that nothing of this one's is half done when it ends. The hart is in no list: who
// fences need not wait for what may have been killed meanwhile.
static int64_t fork_borrowing(struct user_thread *thread)  // NOLINT(misc-no-recursion)
{
    struct user_process *process = thread->process;
    // Each goes on in frames on top of its parent's.
    struct lent *lent = thread->borrows < BORROWS_MAX ? malloc(sizeof(*lent)) : NULL;
    struct hart *hart = NULL;

    if (!lent || hart_create_flat(&hart, 0, &process->flat, process->engine, NULL) < 0) {
        free(lent);
        return -EAGAIN;
    }
    lend(thread, lent);
    user_registers_copy(hart, thread->hart);

    bool debugged = user_debug_call_begin(thread);
    pid_t pid = vfork();  // NOLINT(clang-analyzer-security.insecureAPI.vfork): it is the program's
    if (pid == 0) {
        // What is changed here is taken back. NOLINTNEXTLINE(clang-analyzer-unix.Vfork)
        thread->borrows++;
        thread->hart = hart;
        begin_child(thread);
        user_signal_release(thread);
        finish_call(thread, 0);
        user_thread_run(thread);
    }
    int rc = pid < 0 ? -errno : pid;
    if (debugged)
        user_debug_call_end(thread);
    take_back(thread, lent);
    atomic_store(&thread->outside, true);
    user_execution_drop(thread);
    free(lent);
    hart_destroy(hart);
    return rc;
}

static void tell_parent(struct user_thread *thread, const struct user_clone *clone, int pid)
{
    if (clone->flags & CLONE_PARENT_SETTID)
        (void)!user_copy_out(thread, clone->parent_tid, &pid, sizeof(pid));
    if (clone->flags & CLONE_PIDFD) {
        int fd = (int)syscall(SYS_pidfd_open, pid, 0);
        (void)!user_copy_out(thread, clone->pidfd, &fd, sizeof(fd));
    }
}

int64_t user_fork(struct user_thread *thread)  // NOLINT(misc-no-recursion)
{
    const uint64_t vfork_flags = CLONE_VM | CLONE_VFORK;
    const struct user_clone clone = thread->clone;  // the child may have one of its own

    if (!user_signal_hold(thread))
        return -USER_RESTART;
    int64_t rc =
        (clone.flags & vfork_flags) == vfork_flags ? fork_borrowing(thread) : fork_copying(thread);
    if (rc > 0)
        tell_parent(thread, &clone, (int)rc);
    user_signal_release(thread);
    return rc;
}

// ---- Start --------------------------------------------------------------------------------------

// What is a crash of the program's is no business of a debugger of this one's.
static void forbid_core(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_CORE, &limit) == 0) {
        limit.rlim_cur = 0;
        (void)!setrlimit(RLIMIT_CORE, &limit);
    }
}

// As execve(2) names it.
static void set_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    prctl(PR_SET_NAME, slash ? slash + 1 : path);
}

static int begin_watch(struct user_process *process, struct error *err)
{
    const struct user_watch *watch = process->watch;

    watch->begins(watch->opaque, process);
    int64_t rc =
        user_space_map(&process->space, watch->landing, USER_PAGE_BYTES, PROT_READ | PROT_EXEC,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    return rc < 0 ? error_set_errno(err, (int)rc, "cannot map a page to watch a program") : 0;
}

static int start(struct user_process *process, const struct user_options *options,
                 struct user_program *program, struct error *err)
{
    int rc = user_space_init(&process->space, process, err);
    if (rc < 0)
        return rc;
    if (process->watch)
        rc = begin_watch(process, err);
    if (rc < 0)
        return rc;
    process->flat = (struct hart_flat){.hva = process->space.hva,
                                       .check = process->watch ? process->watch->check : NULL,
                                       .pages = process->space.pages,
                                       .trap = on_trap,
                                       .poked = on_poked,
                                       .opaque = process};
    struct user_thread *thread = user_thread_create(process, err);
    if (!thread)
        return err ? err->code : -ENOMEM;
    thread->tid = gettid();
    current = thread;
    rc = user_signal_init(thread);
    if (rc == 0)
        rc = user_memory_init();
    if (rc < 0)
        return error_set_errno(err, rc, "cannot handle signals for \"%s\"", program->path);
    rc = user_load(thread, program, options->program, options->envp, err);
    if (rc < 0)
        return rc;
    process->argv = program->argv;
    close(program->fd);
    forbid_core();
    set_name(options->program);
    if (options->gdb) {
        rc = user_debug_start(thread, options->gdb, err);
        if (rc < 0)
            return rc;
    }
    user_thread_run(thread);
}

void user_process_init(struct user_process *process)
{
    pthread_mutex_init(&process->lock, NULL);
    pthread_mutex_init(&process->fence_lock, NULL);
    init_pause(process);
    list_init(&process->threads);
}

// What is known before the program's file is looked at.
static int take_options(struct user_process *process, const struct user_options *options,
                        struct error *err)
{
    user_process_init(process);
    if (options->sysroot) {
        process->sysroot = realpath(options->sysroot, NULL);
        if (!process->sysroot)
            return error_set_errno(err, -errno, "cannot look for files in \"%s\"",
                                   options->sysroot);
    }
    process->engine = options->engine;
    process->envp = options->envp;
    process->watch = options->watch;
    return 0;
}

int user_run(const struct user_options *options, struct error *err)
{
    struct user_program program = {.fd = -1};
    struct user_process *process = calloc(1, sizeof(*process));
    if (!process)
        return error_set_errno(err, -ENOMEM, "cannot execute \"%s\"", options->program);
    int rc = take_options(process, options, err);
    if (rc == 0)
        rc = user_program_find(&program, process->sysroot, options->program, options->program_fd,
                               options->argv, err);
    if (rc == 0 && program.hosts) {
        user_program_fini(&program);
        rc = error_set(err, -ENOEXEC, "\"%s\" is no program for riscv64 Linux", options->program);
    }
    if (rc < 0) {
        free(process->sysroot);
        free(process);
        return rc;
    }
    // What fails from here on leaves this process as good as ended: nothing is freed.
    if (options->program_fd >= 0)
        close(options->program_fd);
    process->exe = realpath(program.path, NULL);
    return start(process, options, &program, err);
}
