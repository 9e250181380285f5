// SPDX-License-Identifier: BSD-2-Clause
// Signals. What the program ignores or leaves alone the host ignores or does. What it handles the
// host's handler below catches: it notes the one signal, blocks all others and pokes the hart, and
// between two blocks, or behind a call, the program's handler is entered with a frame as riscv64
// Linux makes it. So there is never a second signal to be kept while one is on its way.
//
// The host's mask is the program's, but for SIGSEGV and SIGBUS, by which the monitor's own accesses
// to the program's memory fault. Where the program blocks these, and one is sent, it is delivered
// nevertheless.
//
// A call that blocks is made by user_call_host: its instruction is not executed once something was
// caught, and where the host would execute it again behind its handler (SA_RESTART) it is left
// instead, and the program makes its call again behind its own.
#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "user/internal.h"

#define MASK_BYTES 8u
#define BIT(signal) (1ull << ((signal)-1))
#define UNBLOCKED (BIT(SIGSEGV) | BIT(SIGBUS))
#define UNBLOCKABLE (BIT(SIGKILL) | BIT(SIGSTOP))
#define SA_RESTORER_OF_HOST 0x04000000ul
#define ALTSTACK_BYTES_MIN 2048u  // MINSIGSTKSZ
#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1u << 31)  // <linux/signal.h>, which the C library's excludes
#endif

// ---- Calls that block ---------------------------------------------------------------------------

int64_t user_call_host(volatile sig_atomic_t *caught, long number, uint64_t a, uint64_t b,
                       uint64_t c, uint64_t d, uint64_t e, uint64_t f);
void user_signal_return(void);
extern const char user_call_begin[], user_call_end[], user_call_left[];

__asm__(".text\n"
        ".type user_call_host, @function\n"
        "user_call_host:\n"
        "    mov %rdi, %r11\n"
        "    mov %rsi, %rax\n"
        "    mov %rdx, %rdi\n"
        "    mov %rcx, %rsi\n"
        "    mov %r8, %rdx\n"
        "    mov %r9, %r10\n"
        "    mov 8(%rsp), %r8\n"
        "    mov 16(%rsp), %r9\n"
        "user_call_begin:\n"
        "    cmpl $0, (%r11)\n"
        "    jne user_call_left\n"
        "    syscall\n"
        "user_call_end:\n"
        "    ret\n"
        "user_call_left:\n"
        "    mov $-512, %rax\n"  // -USER_RESTART
        "    ret\n"
        ".size user_call_host, . - user_call_host\n"
        ".type user_signal_return, @function\n"
        "    nop\n"  // unwinders look at the instruction before where they return to
        "user_signal_return:\n"
        "    mov $15, %eax\n"  // rt_sigreturn
        "    syscall\n"
        ".size user_signal_return, . - user_signal_return\n");

int64_t user_host_call(struct user_thread *thread, long number, uint64_t a, uint64_t b, uint64_t c,
                       uint64_t d, uint64_t e, uint64_t f)
{
    bool debugged = user_debug_call_begin(thread);
    int64_t result = user_call_host(&thread->caught, number, a, b, c, d, e, f);
    if (debugged)
        user_debug_call_end(thread);
    return result;
}

// ---- The host's side ----------------------------------------------------------------------------

// The kernel's own structure: the C library would not let signals 32 and 33 be handled, which the
// program's library uses.
struct host_action {
    void (*handler)(int signal, siginfo_t *info, void *context);
    unsigned long flags;
    void (*restorer)(void);
    uint64_t mask;
};

static void host_set_mask(uint64_t mask)
{
    mask &= ~UNBLOCKED;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, MASK_BYTES);
}

static void on_signal(int signal, siginfo_t *info, void *context)
{
    struct user_thread *thread = user_thread_current();
    ucontext_t *uc = context;
    greg_t *pc = &uc->uc_mcontext.gregs[REG_RIP];
    const uint64_t all = ~UNBLOCKED;

    // Sent while another one is on its way, which only what is never blocked can be: one of them
    // is enough.
    if (!thread || thread->caught)
        return;
    thread->caught_info = *info;
    thread->caught_info.si_signo = signal;
    thread->caught = 1;
    memcpy(&uc->uc_sigmask, &all, sizeof(all));
    if ((uintptr_t)*pc >= (uintptr_t)user_call_begin && (uintptr_t)*pc < (uintptr_t)user_call_end)
        *pc = (greg_t)(uintptr_t)user_call_left;
    hart_poke(thread->hart);
}

// Behind base's handler of faults: what was sent is the program's, all else a crash of ours. A
// program may send itself what says that it is a fault, by a call that it then returns from.
static void on_fault_signal(int signal, siginfo_t *info, void *context)
{
    struct user_thread *thread = user_thread_current();
    const ucontext_t *uc = context;
    bool in_call = (uintptr_t)uc->uc_mcontext.gregs[REG_RIP] == (uintptr_t)user_call_end;
    const struct host_action none = {0};

    if (info->si_code > 0 && !in_call)
        syscall(SYS_rt_sigaction, signal, &none, NULL, MASK_BYTES);
    else if (thread && thread->process->actions[signal].handler != (uintptr_t)SIG_IGN)
        on_signal(signal, info, context);
}

static int host_set_action(const struct user_process *process, int signal,
                           const struct user_action *action)
{
    const uint64_t passed = SA_NOCLDSTOP | SA_NOCLDWAIT | SA_RESTART;
    struct host_action host = {.flags = SA_SIGINFO | SA_ONSTACK | SA_RESTORER_OF_HOST |
                                        (action->flags & passed),
                               .restorer = user_signal_return,
                               .mask = ~UNBLOCKED,
                               .handler = on_signal};

    if (signal == SIGSEGV || signal == SIGBUS)
        return 0;
    if (action->handler == (uintptr_t)SIG_DFL && user_debug_catches(process, signal))
        host.flags |= SA_RESTART;  // it may come to nothing
    else if (action->handler == (uintptr_t)SIG_DFL || action->handler == (uintptr_t)SIG_IGN)
        memcpy(&host.handler, &action->handler, sizeof(host.handler));
    return syscall(SYS_rt_sigaction, signal, &host, NULL, MASK_BYTES) < 0 ? -errno : 0;
}

int user_signal_init(struct user_thread *thread)
{
    struct user_process *process = thread->process;
    const struct sigaction fault = {.sa_sigaction = on_fault_signal,
                                    .sa_flags = SA_SIGINFO | SA_ONSTACK};
    struct host_action host;

    for (int signal = 1; signal <= USER_SIGNALS; signal++) {
        process->actions[signal] = (struct user_action){0};
        if (syscall(SYS_rt_sigaction, signal, NULL, &host, MASK_BYTES) == 0 &&
            memcmp(&host.handler, &(void *){(void *)SIG_IGN}, sizeof(host.handler)) == 0)
            process->actions[signal].handler = (uintptr_t)SIG_IGN;
    }
    if (sigaction(SIGSEGV, &fault, NULL) < 0 || sigaction(SIGBUS, &fault, NULL) < 0)
        return -errno;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, NULL, &thread->blocked, MASK_BYTES);
    thread->altstack.ss_flags = SS_DISABLE;
    return 0;
}

bool user_signal_hold(struct user_thread *thread)
{
    host_set_mask(UINT64_MAX);
    return !thread->caught;
}

void user_signal_release(struct user_thread *thread)
{
    if (user_signal_hold(thread))
        host_set_mask(thread->blocked);
}

void user_signal_reset(struct user_thread *thread)
{
    struct user_process *process = thread->process;
    for (int signal = 1; signal <= USER_SIGNALS; signal++)
        if (process->actions[signal].handler != (uintptr_t)SIG_IGN) {
            process->actions[signal] = (struct user_action){0};
            host_set_action(process, signal, &process->actions[signal]);
        }
}

void user_signal_set_actions(struct user_process *process)
{
    for (int signal = 1; signal <= USER_SIGNALS; signal++)
        (void)!host_set_action(process, signal, &process->actions[signal]);
}

bool user_signal_kills(int signal)
{
    const uint64_t others = BIT(SIGCHLD) | BIT(SIGCONT) | BIT(SIGSTOP) | BIT(SIGTSTP) |
                            BIT(SIGTTIN) | BIT(SIGTTOU) | BIT(SIGURG) | BIT(SIGWINCH);
    return !(others & BIT(signal));
}

void user_signal_die(int signal)
{
    const struct host_action none = {0};

    user_process_give_up(user_thread_current());
    user_debug_end(user_thread_current(), true, signal);
    syscall(SYS_rt_sigaction, signal, &none, NULL, MASK_BYTES);
    syscall(SYS_tgkill, getpid(), gettid(), signal);
    host_set_mask(~BIT(signal));
    _exit(128 + signal);  // one that does nothing by default
}

// ---- The program's side -------------------------------------------------------------------------

// As riscv64 Linux' struct rt_sigframe has them, without the vector extension.
struct guest_altstack {
    uint64_t sp;
    int32_t flags;
    uint32_t padding;  // a member, so that nothing of ours is in it
    uint64_t bytes;
};

struct guest_context {
    uint64_t flags, link;
    struct guest_altstack altstack;
    uint64_t mask;
    uint8_t unused[120];
    _Alignas(16) uint64_t pc;
    uint64_t x[31];  // x1 and on
    uint64_t f[32];
    uint32_t fcsr;
    uint8_t extensions[268];  // none: zeros
};

struct guest_frame {
    siginfo_t info;
    struct guest_context context;
};
static_assert(sizeof(siginfo_t) == 128, "the same on both");
static_assert(offsetof(struct guest_context, pc) == 176, "struct ucontext of riscv64");
static_assert(sizeof(struct guest_frame) == 1088, "struct rt_sigframe of riscv64");

static bool is_on_altstack(const struct user_thread *thread, uint64_t sp)
{
    uint64_t start = (uintptr_t)thread->altstack.ss_sp;
    return !(thread->altstack.ss_flags & SS_DISABLE) && sp > start &&
           sp - start <= thread->altstack.ss_size;
}

static struct guest_altstack altstack_of(const struct user_thread *thread)
{
    struct guest_altstack altstack = {.sp = (uintptr_t)thread->altstack.ss_sp,
                                      .flags = thread->altstack.ss_flags,
                                      .bytes = thread->altstack.ss_size};
    if (is_on_altstack(thread, thread->hart->x[2]))
        altstack.flags |= SS_ONSTACK;
    return altstack;
}

static void altstack_disable(struct user_thread *thread)
{
    thread->altstack = (stack_t){.ss_flags = SS_DISABLE};
}

static int altstack_set(struct user_thread *thread, const struct guest_altstack *altstack)
{
    unsigned mode = (unsigned)altstack->flags & ~(unsigned)SS_AUTODISARM;
    if (mode != 0 && mode != SS_DISABLE && mode != SS_ONSTACK)
        return -EINVAL;
    if (mode == SS_DISABLE) {
        altstack_disable(thread);
        return 0;
    }
    if (altstack->bytes < ALTSTACK_BYTES_MIN)
        return -ENOMEM;
    thread->altstack.ss_sp = (void *)(uintptr_t)altstack->sp;  // NOLINT(performance-no-int-to-ptr)
    thread->altstack.ss_size = altstack->bytes;
    thread->altstack.ss_flags = (int)((unsigned)altstack->flags & SS_AUTODISARM);
    return 0;
}

static void save_context(const struct user_thread *thread, struct guest_context *context)
{
    const struct hart *hart = thread->hart;
    context->altstack = altstack_of(thread);
    context->altstack.flags &= ~SS_ONSTACK;
    context->mask = thread->waited ? thread->blocked_before : thread->blocked;
    context->pc = hart->pc;
    memcpy(context->x, hart->x + 1, sizeof(context->x));
    memcpy(context->f, hart->f, sizeof(context->f));
    context->fcsr = (uint32_t)hart->frm << 5 | hart->fflags;
}

static void restore_context(struct user_thread *thread, const struct guest_context *context)
{
    struct hart *hart = thread->hart;
    hart->pc = context->pc & ~1ull;
    memcpy(hart->x + 1, context->x, sizeof(context->x));
    memcpy(hart->f, context->f, sizeof(context->f));
    hart->frm = context->fcsr >> 5 & 7;
    hart->fflags = context->fcsr & 31;
    thread->blocked = context->mask & ~UNBLOCKABLE;
}

static int enter_handler(struct user_thread *thread, const struct user_action *action,
                         const siginfo_t *info)
{
    struct hart *hart = thread->hart;
    struct guest_frame frame = {.info = *info};
    uint64_t sp = hart->x[2];

    if (action->flags & SA_ONSTACK && !(thread->altstack.ss_flags & SS_DISABLE) &&
        !is_on_altstack(thread, sp))
        sp = (uintptr_t)thread->altstack.ss_sp + thread->altstack.ss_size;
    sp = (sp - sizeof(frame)) & ~15ull;
    save_context(thread, &frame.context);
    if (user_copy_out(thread, sp, &frame, sizeof(frame)) < 0)
        return -EFAULT;
    if (thread->altstack.ss_flags & SS_AUTODISARM)
        altstack_disable(thread);
    thread->waited = false;
    hart->x[1] = thread->process->trampoline;
    hart->x[2] = sp;
    hart->x[10] = (uint64_t)info->si_signo;
    hart->x[11] = sp + offsetof(struct guest_frame, info);
    hart->x[12] = sp + offsetof(struct guest_frame, context);
    hart->pc = action->handler & ~1ull;
    thread->blocked |= action->mask;
    if (!(action->flags & SA_NODEFER))
        thread->blocked |= BIT(info->si_signo);
    return 0;
}

// What is to be done with the signal, which may change with its being delivered.
static struct user_action take_action(struct user_process *process, int signal)
{
    pthread_mutex_lock(&process->lock);
    struct user_action action = process->actions[signal];
    if (action.flags & SA_RESETHAND && action.handler > (uintptr_t)SIG_IGN) {
        process->actions[signal].handler = (uintptr_t)SIG_DFL;
        host_set_action(process, signal, &process->actions[signal]);
    }
    pthread_mutex_unlock(&process->lock);
    return action;
}

// By a signal that an instruction has raised; unless a debugger is shown first what is wrong.
static void die_of(struct user_thread *thread, const siginfo_t *info)
{
    const struct user_watch *watch = thread->process->watch;
    int status = watch ? watch->dies(watch->opaque, thread, info->si_signo,
                                     (uintptr_t)info->si_addr, thread->fault)
                       : -1;
    if (user_thread_stops(thread))
        return;
    if (status >= 0)
        user_thread_exit(thread, status);
    user_signal_die(info->si_signo);
}

// There is no room for a handler's frame.
static void die_without_stack(struct user_thread *thread)
{
    siginfo_t info;

    memset(&info, 0, sizeof(info));
    info.si_signo = SIGSEGV;
    // NOLINTNEXTLINE(performance-no-int-to-ptr)
    info.si_addr = (void *)(uintptr_t)user_gva(thread->process, thread->hart->x[2] - 1);
    thread->fault = HART_STORE;
    die_of(thread, &info);
}

static void handle(struct user_thread *thread, const siginfo_t *info)
{
    struct user_action action = take_action(thread->process, info->si_signo);

    if (action.handler == (uintptr_t)SIG_IGN)
        return;
    if (action.handler == (uintptr_t)SIG_DFL) {
        // It is no longer handled; or one that the host's mask does not keep away, or that is
        // caught for a debugger.
        if (user_signal_kills(info->si_signo))
            user_signal_die(info->si_signo);
        syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), info->si_signo, info);
        return;
    }
    if (enter_handler(thread, &action, info) < 0)
        die_without_stack(thread);
}

void user_signal_deliver(struct user_thread *thread)
{
    if (!thread->caught)
        return;
    const siginfo_t info = thread->caught_info;
    int signal = user_debug_signal(thread, &info);
    thread->caught = 0;
    if (signal == info.si_signo)
        handle(thread, &info);
    else if (signal)
        user_signal_take(thread, signal);
    if (thread->waited) {  // and nothing of the program's handles it
        thread->waited = false;
        thread->blocked = thread->blocked_before;
    }
    user_signal_release(thread);
}

void user_signal_take(struct user_thread *thread, int signal)
{
    siginfo_t info;

    memset(&info, 0, sizeof(info));
    info.si_signo = signal;
    handle(thread, &info);
}

void user_signal_force(struct user_thread *thread, int signal, int code, uint64_t address)
{
    struct user_process *process = thread->process;
    siginfo_t info;

    memset(&info, 0, sizeof(info));
    info.si_signo = signal;
    info.si_code = code;
    info.si_addr = (void *)(uintptr_t)address;  // NOLINT(performance-no-int-to-ptr)
    bool dies =
        thread->blocked & BIT(signal) || process->actions[signal].handler <= (uintptr_t)SIG_IGN;
    // Who watches has more to say of what is deadly than a debugger sees in it.
    int wanted = dies && process->watch ? signal : user_debug_signal(thread, &info);
    if (wanted != signal) {
        if (wanted)
            user_signal_take(thread, wanted);
        return;
    }
    if (dies) {
        die_of(thread, &info);
        return;
    }
    handle(thread, &info);
    user_signal_release(thread);
    if (thread->caught)
        hart_poke(thread->hart);
}

int64_t user_signal_waited(struct user_thread *thread, uint64_t mask, int64_t result)
{
    if (result == -EINTR && thread->caught) {
        thread->waited = true;
        thread->blocked_before = thread->blocked;
        thread->blocked = mask & ~UNBLOCKABLE;
    }
    return result;
}

// ---- Calls --------------------------------------------------------------------------------------

int64_t user_rt_sigaction(struct user_thread *thread, const uint64_t arguments[6])
{
    struct user_process *process = thread->process;
    struct user_action new = {0}, old;
    uint64_t signal = arguments[0];

    if (arguments[3] != MASK_BYTES || signal < 1 || signal > USER_SIGNALS ||
        (arguments[1] && UNBLOCKABLE & BIT(signal)))
        return -EINVAL;
    if (arguments[1] && user_copy_in(thread, &new, arguments[1], sizeof(new)) < 0)
        return -EFAULT;
    new.mask &= ~UNBLOCKABLE;
    pthread_mutex_lock(&process->lock);
    old = process->actions[signal];
    int rc = 0;
    if (arguments[1]) {
        process->actions[signal] = new;
        rc = host_set_action(process, (int)signal, &new);
    }
    pthread_mutex_unlock(&process->lock);
    if (rc == 0 && arguments[2])
        rc = user_copy_out(thread, arguments[2], &old, sizeof(old));
    return rc;
}

int64_t user_rt_sigprocmask(struct user_thread *thread, const uint64_t arguments[6])
{
    uint64_t set, old = thread->blocked;

    if (arguments[3] != MASK_BYTES)
        return -EINVAL;
    if (arguments[1]) {
        if (user_copy_in(thread, &set, arguments[1], sizeof(set)) < 0)
            return -EFAULT;
        if (arguments[0] > SIG_SETMASK)
            return -EINVAL;
        if (arguments[0] == SIG_BLOCK)
            set |= old;
        else if (arguments[0] == SIG_UNBLOCK)
            set = old & ~set;
        // What was caught before is handled before.
        if (!user_signal_hold(thread))
            return -USER_RESTART;
        thread->blocked = set & ~UNBLOCKABLE;
        host_set_mask(thread->blocked);
    }
    return arguments[2] ? user_copy_out(thread, arguments[2], &old, sizeof(old)) : 0;
}

int64_t user_rt_sigreturn(struct user_thread *thread, const uint64_t arguments[6])
{
    struct guest_frame frame;

    (void)arguments;
    if (user_copy_in(thread, &frame, thread->hart->x[2], sizeof(frame)) < 0)
        user_signal_die(SIGSEGV);
    restore_context(thread, &frame.context);
    altstack_set(thread, &frame.context.altstack);
    user_signal_release(thread);
    return -USER_RESTART;  // everything stays as it is in the frame
}

// Whether the process dies of a signal that a thread of it sends itself, as far as that is certain.
static bool is_deadly(struct user_thread *thread, uint64_t signal)
{
    return signal >= 1 && signal <= USER_SIGNALS && user_signal_kills((int)signal) &&
           !(thread->blocked & BIT(signal)) &&
           thread->process->actions[signal].handler == (uintptr_t)SIG_DFL;
}

// Who watches is told of such a death before.
static int64_t send_signal(struct user_thread *thread, long number, const uint64_t arguments[6],
                           bool self, uint64_t signal)
{
    const struct user_watch *watch = thread->process->watch;
    if (self && is_deadly(thread, signal)) {
        int status = watch ? watch->dies(watch->opaque, thread, 0, 0, HART_LOAD) : -1;
        if (status >= 0)
            user_thread_exit(thread, status);
        user_process_give_up(thread);
    }
    return user_host_call(thread, number, arguments[0], arguments[1], arguments[2], 0, 0, 0);
}

int64_t user_kill(struct user_thread *thread, const uint64_t arguments[6])
{
    return send_signal(thread, SYS_kill, arguments, (pid_t)arguments[0] == getpid(), arguments[1]);
}

int64_t user_tkill(struct user_thread *thread, const uint64_t arguments[6])
{
    return send_signal(thread, SYS_tkill, arguments, (pid_t)arguments[0] == thread->tid,
                       arguments[1]);
}

int64_t user_tgkill(struct user_thread *thread, const uint64_t arguments[6])
{
    return send_signal(thread, SYS_tgkill, arguments, (pid_t)arguments[1] == thread->tid,
                       arguments[2]);
}

int64_t user_sigaltstack(struct user_thread *thread, const uint64_t arguments[6])
{
    struct guest_altstack old = altstack_of(thread), new;
    int rc = 0;

    if (arguments[0]) {
        if (user_copy_in(thread, &new, arguments[0], sizeof(new)) < 0)
            return -EFAULT;
        rc = old.flags & SS_ONSTACK ? -EPERM : altstack_set(thread, &new);
    }
    if (rc == 0 && arguments[1])
        rc = user_copy_out(thread, arguments[1], &old, sizeof(old));
    return rc;
}

int64_t user_rt_sigsuspend(struct user_thread *thread, const uint64_t arguments[6])
{
    uint64_t mask;

    if (arguments[1] != MASK_BYTES)
        return -EINVAL;
    if (user_copy_in(thread, &mask, arguments[0], sizeof(mask)) < 0)
        return -EFAULT;
    const uint64_t hosts = mask & ~UNBLOCKED;
    return user_signal_waited(
        thread, mask,
        user_host_call(thread, SYS_rt_sigsuspend, (uintptr_t)&hosts, MASK_BYTES, 0, 0, 0, 0));
}
