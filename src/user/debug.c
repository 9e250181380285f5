// SPDX-License-Identifier: BSD-2-Clause
// A debugged program's threads: how they stop, all of them, and go on. A thread waits for the
// debugger at one of three places: before its hart runs, in the hook in which a signal is to be
// delivered, and behind a call of the host's, during which it is as good as stopped; so nobody
// waits for a call to return, and none is interrupted. Breakpoints each thread sets for itself,
// before its hart runs.
//
// All of struct user_debug and struct user_traced but what is the server's (debugger.c) is under
// the process' lock. A vfork's child, which has both before its eyes, leaves them alone.
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "user/debug.h"

static struct user_debug *debug_of(const struct user_thread *thread)
{
    return thread->borrows ? NULL : thread->process->debug;
}

static void lock(struct user_thread *thread)
{
    pthread_mutex_lock(&thread->process->lock);
}

static void unlock(struct user_thread *thread)
{
    pthread_mutex_unlock(&thread->process->lock);
}

// ---- Stopping and waiting -----------------------------------------------------------------------

void user_debug_stop_all(struct user_process *process)
{
    process->debug->stopped = true;
    LIST_FOR_EACH(&process->threads, node)
    {
        struct user_thread *thread = BASE_CONTAINER_OF(node, struct user_thread, node);
        if (thread != user_thread_current() && thread->traced.hart && !thread->traced.waits)
            hart_stop(thread->traced.hart);
    }
    pthread_cond_broadcast(&process->debug->changed);
}

bool user_debug_all_wait(const struct user_process *process)
{
    LIST_FOR_EACH(&process->threads, node)
    if (!BASE_CONTAINER_OF(node, struct user_thread, node)->traced.waits)
        return false;
    return true;
}

// Until the debugger lets the thread go on.
static void wait_here(struct user_thread *thread)
{
    struct user_debug *debug = thread->process->debug;

    thread->traced.waits = true;
    pthread_cond_broadcast(&debug->changed);
    while (debug->stopped || thread->traced.held)
        pthread_cond_wait(&debug->changed, &thread->process->lock);
    thread->traced.waits = false;
}

// The thread has stopped by itself, and all others are to.
static void hit(struct user_thread *thread, const siginfo_t *info, bool again)
{
    thread->traced.hit = true;
    thread->traced.again = again;
    thread->traced.info = *info;
    user_debug_stop_all(thread->process);
}

static void hit_trap(struct user_thread *thread, int code, bool again)
{
    siginfo_t info;

    memset(&info, 0, sizeof(info));
    info.si_signo = SIGTRAP;
    info.si_code = code;
    hit(thread, &info, again);
}

// ---- Around the hart's running ------------------------------------------------------------------

static void set_breakpoints(struct hart *hart, const struct user_debug *debug)
{
    while (hart->breakpoint_count > 0 && hart_breakpoint_remove(hart, hart->breakpoints[0]) == 0)
        continue;
    for (unsigned i = 0; i < debug->breakpoint_count; i++)
        (void)!hart_breakpoint_add(hart, debug->breakpoints[i]);  // there is room for as many
}

void user_debug_pause(struct user_thread *thread)
{
    struct user_debug *debug = debug_of(thread);
    struct user_traced *traced = &thread->traced;

    if (!debug)
        return;
    lock(thread);
    traced->id = thread->tid;
    traced->hart = thread->hart;
    if (traced->stepped) {
        traced->stepped = traced->step = false;
        hit_trap(thread, TRAP_TRACE, true);
    }
    wait_here(thread);
    if (traced->generation != debug->generation)
        set_breakpoints(thread->hart, debug);
    traced->generation = debug->generation;
    thread->hart->debug_step = traced->step;
    unsigned signal = traced->deliver;
    traced->deliver = 0;
    unlock(thread);
    if (signal)
        user_signal_take(thread, (int)signal);
    if (thread->hart->debug_step && thread->caught)  // a step does not look for signals
        user_signal_deliver(thread);
}

void user_debug_left(struct user_thread *thread, enum hart_exit why, bool stopped)
{
    struct user_traced *traced = &thread->traced;

    if (!debug_of(thread))
        return;
    lock(thread);
    if (stopped) {
        hit_trap(thread, TRAP_BRKPT, false);
    } else if (why == HART_EXIT_BREAKPOINT) {
        hit_trap(thread, TRAP_BRKPT, true);
    } else if (why == HART_EXIT_STEPPED && traced->step) {
        traced->step = false;
        hit_trap(thread, TRAP_TRACE, true);
    }
    unlock(thread);
}

bool user_thread_stop(struct user_thread *thread, const char *said)
{
    struct user_debug *debug = debug_of(thread);

    if (!debug)
        return false;
    lock(thread);
    bool there = debug->connected;
    if (there) {
        free(thread->traced.said);
        thread->traced.said = strdup(said);
    }
    unlock(thread);
    if (there)
        user_thread_leave(thread, USER_LEAVE_STOP);
    return there;
}

bool user_debug_breaks(struct user_thread *thread)
{
    const struct user_debug *debug = debug_of(thread);
    bool there = false;

    if (!debug)
        return false;
    lock(thread);
    for (unsigned i = 0; i < debug->breakpoint_count; i++)
        there = there || debug->breakpoints[i] == thread->hart->pc;
    unlock(thread);
    if (there)
        user_thread_leave(thread, USER_LEAVE_STOP);
    return there;
}

bool user_thread_stops(const struct user_thread *thread)
{
    return thread->leave == USER_LEAVE_STOP;
}

int user_debug_signal(struct user_thread *thread, const siginfo_t *info)
{
    struct user_debug *debug = debug_of(thread);
    struct user_traced *traced = &thread->traced;
    int signal = info->si_signo;

    if (!debug)
        return signal;
    lock(thread);
    if (debug->connected && !(debug->passed >> (signal - 1) & 1)) {
        hit(thread, info, false);
        wait_here(thread);
        signal = (int)traced->deliver;
        traced->deliver = 0;
        // What is to be done before the next instruction is done before the hart runs.
        if (traced->generation != debug->generation || traced->step)
            hart_stop(thread->hart);
    }
    unlock(thread);
    return signal;
}

// ---- Calls --------------------------------------------------------------------------------------

bool user_debug_call_begin(struct user_thread *thread)
{
    struct user_debug *debug = debug_of(thread);

    if (!debug)
        return false;
    lock(thread);
    thread->traced.waits = thread->traced.calls = true;
    pthread_cond_broadcast(&debug->changed);
    unlock(thread);
    return true;
}

void user_debug_call_end(struct user_thread *thread)
{
    struct user_debug *debug = thread->process->debug;
    struct user_traced *traced = &thread->traced;

    lock(thread);
    wait_here(thread);
    traced->calls = false;
    traced->stepped = traced->step && !traced->hart->debug_step;
    if (traced->stepped || traced->generation != debug->generation)
        hart_stop(traced->hart);
    unlock(thread);
}

// ---- Signals, the end, and children -------------------------------------------------------------

bool user_debug_catches(const struct user_process *process, int signal)
{
    const struct user_thread *thread = user_thread_current();
    return process->debug && !(thread && thread->borrows) && user_signal_kills(signal);
}

void user_debug_end(struct user_thread *thread, bool by_signal, int status)
{
    struct user_debug *debug = debug_of(thread);

    if (!debug)
        return;
    lock(thread);
    if (debug->end == USER_DEBUG_LIVES) {
        debug->end = USER_DEBUG_ENDS;
        debug->by_signal = by_signal;
        debug->status = status;
    }
    thread->traced.waits = thread->traced.calls = true;
    pthread_cond_broadcast(&debug->changed);
    while (debug->connected && debug->end != USER_DEBUG_TOLD)
        pthread_cond_wait(&debug->changed, &thread->process->lock);
    unlock(thread);
}

void user_debug_thread_ended(struct user_process *process, const struct user_thread *thread)
{
    struct user_debug *debug = process->debug;

    if (!debug)
        return;
    // Whom it kept from going on, for a step that nobody makes now.
    LIST_FOR_EACH(&process->threads, node)
    if (thread->traced.step)
        BASE_CONTAINER_OF(node, struct user_thread, node)->traced.held = false;
    pthread_cond_broadcast(&debug->changed);
}

void user_debug_forked(struct user_thread *thread)
{
    struct user_process *process = thread->process;

    if (!process->debug)
        return;
    process->debug = NULL;  // its server's descriptors are not ours, nor its threads
    free(thread->traced.said);
    thread->traced = (struct user_traced){0};
    thread->hart->debug_step = false;
    set_breakpoints(thread->hart, &(struct user_debug){0});
    user_signal_set_actions(process);
}
