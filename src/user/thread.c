// SPDX-License-Identifier: BSD-2-Clause
// Threads of the program, each one of the host; clone, which makes them and processes; futexes,
// which are the host's.
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <sched.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "user/calls.h"

#define HOST_STACK_BYTES (512u << 10)
#define ROBUST_ENTRIES_MAX 2048u
#define THREAD_FLAGS (CLONE_VM | CLONE_SIGHAND | CLONE_THREAD)
// What shares is shared among threads, and among a process and its vfork's child, as it comes.
#define THREAD_FLAGS_KNOWN                                                                         \
    (THREAD_FLAGS | CLONE_FS | CLONE_FILES | CLONE_SYSVSEM | CLONE_SETTLS | CLONE_PARENT_SETTID |  \
     CLONE_CHILD_CLEARTID | CLONE_CHILD_SETTID | CLONE_DETACHED | CLONE_UNTRACED | CLONE_IO)
#define PROCESS_FLAGS_KNOWN                                                                        \
    (CLONE_VM | CLONE_VFORK | CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID |          \
     CLONE_CHILD_SETTID | CLONE_PIDFD | CLONE_UNTRACED | CLONE_DETACHED | CLONE_CLEAR_SIGHAND)

// ---- A thread's start ---------------------------------------------------------------------------

struct beginning {
    struct user_thread *thread;
    const struct user_clone *clone;
    sem_t begun;
    int tid;
};

static void *begin(void *opaque)
{
    struct beginning *beginning = opaque;
    struct user_thread *thread = beginning->thread;
    const struct user_clone *clone = beginning->clone;

    user_thread_set_current(thread);
    thread->tid = gettid();
    if (clone->flags & CLONE_PARENT_SETTID)
        (void)!user_copy_out(thread, clone->parent_tid, &thread->tid, sizeof(thread->tid));
    if (clone->flags & CLONE_CHILD_SETTID)
        (void)!user_copy_out(thread, clone->child_tid, &thread->tid, sizeof(thread->tid));
    beginning->tid = thread->tid;
    sem_post(&beginning->begun);  // *beginning may be gone
    user_signal_release(thread);
    user_thread_run(thread);
}

void user_registers_copy(struct hart *to, const struct hart *from)
{
    memcpy(to->x, from->x, sizeof(to->x));
    memcpy(to->f, from->f, sizeof(to->f));
    to->frm = from->frm;
    to->fflags = from->fflags;
    to->pc = from->pc;
}

void user_clone_set_registers(const struct user_clone *clone, struct hart *hart)
{
    if (clone->sp)
        hart->x[2] = clone->sp;
    if (clone->flags & CLONE_SETTLS)
        hart->x[4] = clone->tls;
}

static void inherit(struct user_thread *child, const struct user_thread *parent,
                    const struct user_clone *clone)
{
    user_registers_copy(child->hart, parent->hart);
    user_clone_set_registers(clone, child->hart);
    child->hart->pc += USER_ECALL_BYTES;
    child->hart->x[10] = 0;
    child->blocked = parent->blocked;
    child->clear_tid = clone->flags & CLONE_CHILD_CLEARTID ? clone->child_tid : 0;
}

int user_host_thread_start(void *(*run)(void *opaque), void *opaque)
{
    pthread_attr_t attributes;
    pthread_t unused;

    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, HOST_STACK_BYTES);
    int rc = -pthread_create(&unused, &attributes, run, opaque);
    pthread_attr_destroy(&attributes);
    return rc;
}

static int64_t start_thread(struct user_thread *parent, const struct user_clone *clone)
{
    struct beginning beginning = {.clone = clone};

    // Until it runs, the thread blocks all signals, as this one does now.
    if (!user_signal_hold(parent))
        return -USER_RESTART;
    beginning.thread = user_thread_create(parent->process, NULL);
    int64_t result = beginning.thread ? 0 : -EAGAIN;
    if (result == 0) {
        inherit(beginning.thread, parent, clone);
        sem_init(&beginning.begun, 0, 0);
        result = user_host_thread_start(begin, &beginning);
        if (result < 0)
            (void)user_thread_destroy(beginning.thread);
    }
    if (result == 0) {
        while (sem_wait(&beginning.begun) < 0)
            ;  // nothing but a debugger interrupts it
        result = beginning.tid;
    }
    user_signal_release(parent);
    return result;
}

// ---- clone --------------------------------------------------------------------------------------

static int64_t clone_as(struct user_thread *thread, const struct user_clone *clone)
{
    if (clone->flags & CLONE_THREAD)
        return (clone->flags & THREAD_FLAGS) != THREAD_FLAGS || clone->flags & ~THREAD_FLAGS_KNOWN
                   ? -EINVAL
                   : start_thread(thread, clone);
    // Processes of the host have memory of their own, and tell of their end by SIGCHLD.
    if (clone->flags & ~(uint64_t)PROCESS_FLAGS_KNOWN || clone->exit_signal != SIGCHLD ||
        (clone->flags & CLONE_VM && !(clone->flags & CLONE_VFORK)))
        return -EINVAL;
    thread->clone = *clone;
    return user_thread_leave(thread, USER_LEAVE_FORK);
}

int64_t user_clone(struct user_thread *thread, const uint64_t arguments[6])
{
    const struct user_clone clone = {.flags = arguments[0] & UINT32_MAX & ~(uint64_t)CSIGNAL,
                                     .exit_signal = arguments[0] & CSIGNAL,
                                     .sp = arguments[1],
                                     .parent_tid = arguments[2],
                                     .pidfd = arguments[2],
                                     .tls = arguments[3],
                                     .child_tid = arguments[4]};
    return clone_as(thread, &clone);
}

int64_t user_clone3(struct user_thread *thread, const uint64_t arguments[6])
{
    struct clone_args given = {0};

    if (arguments[1] < CLONE_ARGS_SIZE_VER0)
        return -EINVAL;
    if (arguments[1] > sizeof(given))
        return -E2BIG;
    if (user_copy_in(thread, &given, arguments[0], arguments[1]) < 0)
        return -EFAULT;
    if (given.set_tid_size || given.flags & CSIGNAL || !given.stack != !given.stack_size)
        return -EINVAL;
    const struct user_clone clone = {.flags = given.flags,
                                     .exit_signal = given.exit_signal,
                                     .sp = given.stack + given.stack_size,
                                     .parent_tid = given.parent_tid,
                                     .pidfd = given.pidfd,
                                     .tls = given.tls,
                                     .child_tid = given.child_tid};
    return clone_as(thread, &clone);
}

// ---- A thread's end -----------------------------------------------------------------------------

static void wake(struct user_thread *thread, uint64_t gva)
{
    void *hva;
    if (user_buffer(thread, gva, sizeof(uint32_t), HART_STORE, &hva) == 0)
        syscall(SYS_futex, hva, FUTEX_WAKE, 1, NULL, NULL, 0);
}

// A robust futex that the owner holds: whoever waits gets it, and is told.
static void give_up_futex(struct user_thread *thread, const struct user_thread *owner, uint64_t gva)
{
    uint32_t value;
    int rc = user_copy_in(thread, &value, gva, sizeof(value));
    while (rc == 0 && (value & FUTEX_TID_MASK) == (uint32_t)owner->tid) {
        uint32_t waiters = value & FUTEX_WAITERS;
        rc = user_swap(thread, gva, &value, waiters | FUTEX_OWNER_DIED);
        if (rc == 0) {
            if (waiters)
                wake(thread, gva);
            return;
        }
        rc = rc == -EAGAIN ? 0 : rc;
    }
}

struct robust_head {
    uint64_t next;
    int64_t offset;  // of the futex in an entry
    uint64_t pending;
};

static void walk_robust_list(struct user_thread *thread, const struct user_thread *owner)
{
    struct robust_head head;
    if (!owner->robust_list || user_copy_in(thread, &head, owner->robust_list, sizeof(head)) < 0)
        return;
    uint64_t entry = head.next;
    for (unsigned i = 0; i < ROBUST_ENTRIES_MAX && (entry & ~1ull) != owner->robust_list; i++) {
        uint64_t next;
        int rc = user_copy_in(thread, &next, entry & ~1ull, sizeof(next));
        if (entry != head.pending)
            give_up_futex(thread, owner, (entry & ~1ull) + (uint64_t)head.offset);
        if (rc < 0)
            return;
        entry = next;
    }
    if (head.pending)
        give_up_futex(thread, owner, (head.pending & ~1ull) + (uint64_t)head.offset);
}

void user_process_give_up(struct user_thread *thread)
{
    struct user_process *process = thread->process;

    thread->call = NULL;  // whose business all this is not
    walk_robust_list(thread, thread);
    if (thread->borrows)  // the others are its parent's
        return;
    pthread_mutex_lock(&process->lock);
    LIST_FOR_EACH(&process->threads, node)
    walk_robust_list(thread, BASE_CONTAINER_OF(node, struct user_thread, node));
    pthread_mutex_unlock(&process->lock);
}

void user_thread_end(struct user_thread *thread)
{
    const uint32_t none = 0;
    int status = thread->status;
    bool first = thread->tid == getpid();

    user_signal_hold(thread);
    walk_robust_list(thread, thread);
    // Once its number is cleared, its stack is somebody else's.
    if (!thread->borrows)
        user_space_thread_ends(&thread->process->space,
                               user_gva(thread->process, thread->hart->x[HART_SP]));
    if (thread->clear_tid && user_copy_out(thread, thread->clear_tid, &none, sizeof(none)) == 0)
        wake(thread, thread->clear_tid);
    if (thread->borrows || !user_thread_destroy(thread))
        user_process_exit(thread, status);
    user_thread_set_current(NULL);
    if (first)  // its end by pthread_exit would be the library's, which waits for the others
        syscall(SYS_exit, status);
    pthread_exit(NULL);
}

int64_t user_exit(struct user_thread *thread, const uint64_t arguments[6])
{
    thread->status = (int)arguments[0];
    return user_thread_leave(thread, USER_LEAVE_EXIT);
}

int64_t user_exit_group(struct user_thread *thread, const uint64_t arguments[6])
{
    user_process_exit(thread, (int)arguments[0]);
}

int64_t user_set_tid_address(struct user_thread *thread, const uint64_t arguments[6])
{
    thread->clear_tid = arguments[0];
    return thread->tid;
}

int64_t user_set_robust_list(struct user_thread *thread, const uint64_t arguments[6])
{
    if (arguments[1] != sizeof(struct robust_head))
        return -EINVAL;
    thread->robust_list = arguments[0];
    return 0;
}

int64_t user_get_robust_list(struct user_thread *thread, const uint64_t arguments[6])
{
    const uint64_t bytes = sizeof(struct robust_head);
    if (arguments[0] && arguments[0] != (uint64_t)thread->tid)
        return -EPERM;
    int rc = user_copy_out(thread, arguments[1], &thread->robust_list, sizeof(uint64_t));
    return rc < 0 ? rc : user_copy_out(thread, arguments[2], &bytes, sizeof(bytes));
}

// ---- Waiting ------------------------------------------------------------------------------------

// What a command of futex is about.
enum {
    FUTEX_READS = 1,    // the value of the word at its address;
    FUTEX_SECOND = 2,   // another word's address,
    FUTEX_CHANGES = 4,  // and its value;
    FUTEX_TIMEOUT = 8,
};

static int futex_uses(uint64_t command)
{
    switch (command) {
    case FUTEX_WAIT:
    case FUTEX_WAIT_BITSET:
    case FUTEX_LOCK_PI:
    case FUTEX_LOCK_PI2:
        return FUTEX_READS | FUTEX_TIMEOUT;
    case FUTEX_UNLOCK_PI:
    case FUTEX_TRYLOCK_PI:
        return FUTEX_READS;
    case FUTEX_WAIT_REQUEUE_PI:
        return FUTEX_READS | FUTEX_SECOND | FUTEX_CHANGES | FUTEX_TIMEOUT;
    case FUTEX_CMP_REQUEUE_PI:
        return FUTEX_READS | FUTEX_SECOND | FUTEX_CHANGES;
    case FUTEX_CMP_REQUEUE:
        return FUTEX_READS | FUTEX_SECOND;
    case FUTEX_REQUEUE:
        return FUTEX_SECOND;
    case FUTEX_WAKE_OP:
        return FUTEX_SECOND | FUTEX_CHANGES;
    case FUTEX_WAKE:
    case FUTEX_WAKE_BITSET:
        return 0;
    default:
        return -ENOSYS;
    }
}

// The word of a futex. Who wakes others means an address, at which there may be something else by
// now: who has let go of a lock may find that its memory was freed before it wakes the next.
static int futex_word(struct user_thread *thread, uint64_t gva, bool used, void **hva)
{
    if (used)
        return user_call_buffer(thread, gva, sizeof(uint32_t), HART_STORE, hva);
    *hva = user_process_hva(thread->process, user_gva(thread->process, gva), sizeof(uint32_t));
    return *hva ? 0 : -EFAULT;
}

int64_t user_futex(struct user_thread *thread, const uint64_t arguments[6])
{
    int uses = futex_uses(arguments[1] & (uint64_t)FUTEX_CMD_MASK);
    uint64_t fourth = arguments[3];
    void *word, *second = NULL, *timeout;

    if (uses < 0)
        return uses;
    int rc = futex_word(thread, arguments[0], uses & FUTEX_READS, &word);
    if (rc == 0 && uses & FUTEX_SECOND)
        rc = futex_word(thread, arguments[4], uses & FUTEX_CHANGES, &second);
    if (rc == 0 && uses & FUTEX_TIMEOUT) {
        rc = user_call_buffer(thread, fourth, sizeof(struct timespec), HART_LOAD, &timeout);
        fourth = (uintptr_t)timeout;
    }
    return rc < 0 ? rc
                  : user_host_call(thread, SYS_futex, (uintptr_t)word, arguments[1], arguments[2],
                                   fourth, (uintptr_t)second, arguments[5]);
}

// The calls of Linux 5.16 and 6.7: their numbers are the same everywhere, and unknown to older
// headers.
#define SYS_FUTEX_WAITV 449
#define SYS_FUTEX_WAKE 454
#define SYS_FUTEX_REQUEUE 456

static int take_waiters(struct user_thread *thread, uint64_t gva, size_t count,
                        struct futex_waitv *waiters)
{
    void *word;
    int rc = user_copy_in(thread, waiters, gva, count * sizeof(*waiters));
    for (size_t i = 0; rc == 0 && i < count; i++) {
        rc = futex_word(thread, waiters[i].uaddr, true, &word);
        waiters[i].uaddr = (uintptr_t)word;
    }
    return rc;
}

int64_t user_futex_waitv(struct user_thread *thread, const uint64_t arguments[6])
{
    struct futex_waitv waiters[FUTEX_WAITV_MAX];
    uint64_t count = (uint32_t)arguments[1];
    void *timeout = NULL;

    if (count == 0 || count > FUTEX_WAITV_MAX)
        return -EINVAL;
    int rc = take_waiters(thread, arguments[0], count, waiters);
    if (rc == 0)
        rc = user_call_buffer(thread, arguments[3], sizeof(struct timespec), HART_LOAD, &timeout);
    return rc < 0 ? rc
                  : user_host_call(thread, SYS_FUTEX_WAITV, (uintptr_t)waiters, count, arguments[2],
                                   (uintptr_t)timeout, arguments[4], 0);
}

int64_t user_futex_wake(struct user_thread *thread, const uint64_t arguments[6])
{
    void *word;
    int rc = futex_word(thread, arguments[0], false, &word);
    return rc < 0 ? rc
                  : user_host_call(thread, SYS_FUTEX_WAKE, (uintptr_t)word, arguments[1],
                                   arguments[2], arguments[3], 0, 0);
}

int64_t user_futex_requeue(struct user_thread *thread, const uint64_t arguments[6])
{
    struct futex_waitv waiters[2];  // from, to
    int rc = take_waiters(thread, arguments[0], BASE_COUNT_OF(waiters), waiters);
    return rc < 0 ? rc
                  : user_host_call(thread, SYS_FUTEX_REQUEUE, (uintptr_t)waiters, arguments[1],
                                   arguments[2], arguments[3], 0, 0);
}
