// SPDX-License-Identifier: BSD-2-Clause
// Signals: handlers and their frames, masks, stacks, interrupted calls, waiting for them.
#define _GNU_SOURCE
#include <fenv.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "check.h"

static volatile sig_atomic_t count, last, depth, deepest;
static siginfo_t told;

static void on_signal(int signal)
{
    count++;
    last = signal;
}

static void on_told(int signal, siginfo_t *info, void *context)
{
    (void)context;
    on_signal(signal);
    told = *info;
}

static void handle(int signal, void (*handler)(int), int flags)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    sigaction(signal, &action, NULL);
}

static void handle_told(int signal, void (*handler)(int, siginfo_t *, void *), int flags)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = flags | SA_SIGINFO};
    sigaction(signal, &action, NULL);
}

static void mask(int how, int signal)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signal);
    sigprocmask(how, &set, NULL);
}

static void sending(void)
{
    handle_told(SIGUSR1, on_told, 0);
    count = 0;
    raise(SIGUSR1);
    check(count == 1 && last == SIGUSR1, "a signal is handled");
    check(told.si_code == SI_TKILL && told.si_pid == getpid() && told.si_uid == getuid(),
          "the handler is told who sent it");
    handle_told(SIGRTMIN + 3, on_told, 0);
    union sigval value = {.sival_int = 4711};
    sigqueue(getpid(), SIGRTMIN + 3, value);
    check(last == SIGRTMIN + 3 && told.si_value.sival_int == 4711 && told.si_code == SI_QUEUE,
          "and what was sent with it");
    mask(SIG_BLOCK, SIGRTMIN + 3);
    count = 0;
    for (value.sival_int = 1; value.sival_int <= 3; value.sival_int++)
        sigqueue(getpid(), SIGRTMIN + 3, value);
    sigset_t pending;
    sigpending(&pending);
    check(count == 0 && sigismember(&pending, SIGRTMIN + 3), "a blocked signal waits");
    mask(SIG_UNBLOCK, SIGRTMIN + 3);
    check(count == 3 && told.si_value.sival_int == 3, "all of them come when it no longer is");
    handle(SIGUSR1, SIG_IGN, 0);
    count = 0;
    raise(SIGUSR1);
    check(count == 0, "an ignored one is ignored");
    handle(SIGUSR1, on_signal, SA_RESETHAND);
    raise(SIGUSR1);
    struct sigaction action;
    sigaction(SIGUSR1, NULL, &action);
    check(count == 1 && action.sa_handler == SIG_DFL, "a handler may be for once");
    check(sigaction(SIGKILL, &action, NULL) < 0 && errno == EINVAL, "SIGKILL has none");
    action.sa_handler = on_signal;
    sigfillset(&action.sa_mask);
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGUSR1, NULL, &action);
    check(sigismember(&action.sa_mask, SIGHUP) && !sigismember(&action.sa_mask, SIGKILL) &&
              !sigismember(&action.sa_mask, SIGSTOP),
          "and no handler keeps it away");
}

static void on_nested(int signal)
{
    depth++;
    deepest = depth > deepest ? depth : deepest;
    if (count++ < 3)
        raise(signal);
    depth--;
}

static void nesting(void)
{
    count = deepest = 0;
    handle(SIGUSR2, on_nested, 0);
    raise(SIGUSR2);
    check(count == 4 && deepest == 1, "a handler is not interrupted by its own signal");
    count = deepest = 0;
    handle(SIGUSR2, on_nested, SA_NODEFER);
    raise(SIGUSR2);
    check(count == 4 && deepest == 4, "unless it wants to be");
}

static sigjmp_buf back;
static volatile int code;
static void *volatile where;

static void on_fault(int signal, siginfo_t *info, void *context)
{
    const ucontext_t *uc = context;
    code = signal << 8 | info->si_code;
    where = info->si_addr;
    if (signal == SIGILL || signal == SIGTRAP)
        code |= info->si_addr == (void *)uc->uc_mcontext.__gregs[0] ? 0 : 1 << 20;
    siglongjmp(back, 1);
}

static void faulting(void)
{
    const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP};
    for (int i = 0; i < 4; i++)
        handle_told(signals[i], on_fault, 0);
    if (sigsetjmp(back, 1) == 0)
        *(volatile char *)0x1234 = 1;
    check(code == (SIGSEGV << 8 | SEGV_MAPERR) && where == (void *)0x1234, "a wild pointer");
    if (sigsetjmp(back, 1) == 0)
        __asm__ volatile(".word 0");
    check(code == (SIGILL << 8 | ILL_ILLOPC), "an illegal instruction");
    if (sigsetjmp(back, 1) == 0)
        __asm__ volatile("ebreak");
    check(code == (SIGTRAP << 8 | TRAP_BRKPT), "a breakpoint");
    if (sigsetjmp(back, 1) == 0)
        __asm__ volatile("jr %0" : : "r"(0x5554));
    check(code == (SIGSEGV << 8 | SEGV_MAPERR) && where == (void *)0x5554, "a wild jump");
    if (sigsetjmp(back, 1) == 0)
        __asm__ volatile("csrr t0, mstatus" : : : "t0");
    check(code == (SIGILL << 8 | ILL_ILLOPC), "a forbidden register");
    code = 0;
    if (sigsetjmp(back, 1) == 0)
        kill(getpid(), SIGSEGV);
    check(code == (SIGSEGV << 8 | SI_USER), "a SIGSEGV that was sent is one");
    siginfo_t forged = {.si_signo = SIGSEGV, .si_code = SEGV_MAPERR};
    forged.si_addr = (void *)0x6666;
    code = 0;
    if (sigsetjmp(back, 1) == 0)
        syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), SIGSEGV, &forged);
    check(code == (SIGSEGV << 8 | SEGV_MAPERR) && where == (void *)0x6666,
          "and so is one that is sent as if it were a fault");
    code = 0;
    if (sigsetjmp(back, 1) == 0)
        *(volatile char *)0x1234 = 1;
    check(code == (SIGSEGV << 8 | SEGV_MAPERR) && where == (void *)0x1234, "with faults behind it");
}

static void on_context(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)info;
    ucontext_t *uc = context;
    volatile double spoil = 1.0;
    fesetround(FE_UPWARD);
    for (int i = 0; i < 20; i++)
        spoil /= 3.0;
    // Behind the ebreak, with another value in s2.
    uc->uc_mcontext.__gregs[0] += 4;
    uc->uc_mcontext.__gregs[18] += 5;
}

static void contexts(void)
{
    handle_told(SIGTRAP, on_context, 0);
    double a = 1.5, b;
    uint64_t s2 = 10, t0, rounding;
    feclearexcept(FE_ALL_EXCEPT);
    __asm__ volatile(
        "mv s2, %3\n fmv.d fa7, %4\n li t0, 77\n .option push\n .option norvc\n ebreak\n"
        ".option pop\n mv %0, s2\n mv %1, t0\n fmv.d %2, fa7\n"
        : "=&r"(s2), "=&r"(t0), "=&f"(b)
        : "r"(s2), "f"(a)
        : "s2", "t0", "fa7");
    __asm__ volatile("frcsr %0" : "=r"(rounding));
    check(s2 == 15 && t0 == 77 && b == 1.5, "registers are kept, but what the handler changes");
    check(rounding == 0, "also of floating point");
    // What Linux says inside of itself of a call that is to be made again.
    register long a0 __asm__("a0") = -512;
    __asm__ volatile(".option push\n .option norvc\n ebreak\n .option pop\n" : "+r"(a0) : : "s2");
    long kept = a0;
    check(kept == -512, "and with all values");
}

static double *page;
static uint64_t sum_bits, nan_bits;

static void on_page(int signal, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    const unsigned long long *f = uc->uc_mcontext.__fpregs.__d.__f;
    (void)signal;
    (void)info;
    sum_bits = f[15];
    nan_bits = f[14];
    mprotect(page, 4096, PROT_READ);
}

// A loop faults while what it has computed so far is nowhere but in registers.
static void contexts_of_loops(void)
{
    const int before = 20;
    double *start = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    double sum = 0, twenty = before, zero = 0;
    uint64_t bits;
    page = start + 512;
    for (int i = 0; i < 1024; i++)
        start[i] = 1;
    mprotect(page, 4096, PROT_NONE);
    handle_told(SIGSEGV, on_page, 0);
    const double *from = page - before;
    __asm__ volatile("fmv.d fa5, %2\n"
                     "1: fld fa3, 0(%1)\n fadd.d fa5, fa5, fa3\n fdiv.d fa4, %2, %2\n"
                     "addi %1, %1, 8\n bne %1, %3, 1b\n fmv.d %0, fa5\n"
                     : "=&f"(sum), "+&r"(from)
                     : "f"(zero), "r"(page + before)
                     : "fa3", "fa4", "fa5", "memory");
    memcpy(&bits, &twenty, sizeof(bits));
    check(sum_bits == bits, "a handler sees what a loop has computed until it faulted");
    check(nan_bits == 0x7ff8000000000000, "and not a number as it is here");
    check(sum == 2 * before, "and the loop goes on");
    signal(SIGSEGV, SIG_DFL);
    munmap(start, 8192);
}

static char *altstack;

static void on_altstack(int signal)
{
    char here;
    stack_t now;
    sigaltstack(NULL, &now);
    count += &here >= altstack && &here < altstack + 65536 && (now.ss_flags & SS_ONSTACK);
    last = signal;
}

static int recurse(volatile char *above)
{
    volatile char space[4096];
    space[0] = *above;
    return space[0] < 2 ? recurse(space) + space[0] : 0;
}

static void on_overflow(int signal)
{
    (void)signal;
    siglongjmp(back, 1);
}

static void altstacks(void)
{
    altstack = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    stack_t stack = {.ss_sp = altstack, .ss_size = 65536}, old;
    check(sigaltstack(&stack, NULL) == 0, "there may be another stack for handlers");
    handle(SIGUSR1, on_altstack, SA_ONSTACK);
    count = 0;
    raise(SIGUSR1);
    sigaltstack(NULL, &old);
    check(count == 1 && old.ss_flags == 0, "on which they run");
    handle(SIGSEGV, on_overflow, SA_ONSTACK);
    char start = 0;
    int overflowed = sigsetjmp(back, 1);
    if (!overflowed)
        recurse(&start);
    check(overflowed == 1, "also when the first is full");
    stack.ss_flags = SS_DISABLE;
    sigaltstack(&stack, NULL);
    stack = (stack_t){.ss_sp = altstack, .ss_size = 100};
    check(sigaltstack(&stack, NULL) < 0 && errno == ENOMEM, "it may not be too small");
}

static void set_timer(int milliseconds)
{
    struct itimerval timer = {.it_value = {.tv_usec = milliseconds * 1000}};
    setitimer(ITIMER_REAL, &timer, NULL);
}

// Again and again, since the first may come before the call that it is to interrupt. 0: no more.
static void set_timer_each(int milliseconds)
{
    struct timeval each = {.tv_usec = milliseconds * 1000};
    struct itimerval timer = {.it_value = each, .it_interval = each};
    setitimer(ITIMER_REAL, &timer, NULL);
}

static void interrupting(void)
{
    int pipe_fds[2];
    char byte;
    (void)!pipe(pipe_fds);
    handle(SIGALRM, on_signal, 0);
    count = 0;
    set_timer_each(30);
    check(read(pipe_fds[0], &byte, 1) < 0 && errno == EINTR && count > 0,
          "a signal interrupts a call");
    handle(SIGALRM, on_signal, SA_RESTART);
    count = 0;
    pid_t child = fork();
    if (child == 0) {
        usleep(200000);
        (void)!write(pipe_fds[1], "y", 1);
        _exit(0);
    }
    check(read(pipe_fds[0], &byte, 1) == 1 && byte == 'y' && count > 0,
          "which goes on behind its handler where that is wanted");
    waitpid(child, NULL, 0);
    struct timespec second = {.tv_sec = 20}, left;
    count = 0;
    check(nanosleep(&second, &left) < 0 && errno == EINTR && left.tv_sec >= 10 && count > 0,
          "but for a sleep, which tells what is left");
    set_timer_each(0);
    count = 0;
    for (int i = 0; i < 50; i++) {
        set_timer(1);
        while (count == i)
            ;
    }
    check(count == 50, "signals come while the program only computes");
}

static void waiting(void)
{
    sigset_t set, old, none;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigemptyset(&none);
    sigprocmask(SIG_BLOCK, &set, &old);
    handle(SIGUSR1, on_signal, 0);
    count = 0;
    raise(SIGUSR1);
    check(count == 0 && sigsuspend(&none) < 0 && errno == EINTR && count == 1,
          "sigsuspend waits for what is blocked");
    raise(SIGUSR1);
    siginfo_t info;
    struct timespec zero = {0}, soon = {.tv_nsec = 10000000};
    check(sigtimedwait(&set, &info, &zero) == SIGUSR1 && info.si_pid == getpid() && count == 1,
          "sigtimedwait takes it without a handler");
    check(sigtimedwait(&set, &info, &soon) < 0 && errno == EAGAIN, "or none");
    sigprocmask(SIG_SETMASK, &old, NULL);
}

static volatile sig_atomic_t blocked;

static void on_two(int signal)
{
    sigset_t now;
    (void)signal;
    sigprocmask(SIG_BLOCK, NULL, &now);
    count++;
    blocked += sigismember(&now, SIGUSR1) + sigismember(&now, SIGUSR2);
}

enum { SUSPEND, PPOLL, PSELECT, EPOLL, WAYS };

static int wait_by(int way, int epoll_fd, const sigset_t *set)
{
    struct epoll_event event;
    switch (way) {
    case SUSPEND:
        return sigsuspend(set);
    case PPOLL:
        return ppoll(NULL, 0, NULL, set);
    case PSELECT:
        return pselect(0, NULL, NULL, NULL, NULL, set);
    default:
        return epoll_pwait(epoll_fd, &event, 1, -1, set);
    }
}

// Two are let through by one wait: what begins second interrupts what began first.
static void waiting_for_two(void)
{
    sigset_t both, none, now;
    int epoll_fd = epoll_create1(0);
    bool two = true, masks = true;
    sigemptyset(&none);
    sigemptyset(&both);
    sigaddset(&both, SIGUSR1);
    sigaddset(&both, SIGUSR2);
    handle(SIGUSR1, on_two, 0);
    handle(SIGUSR2, on_two, 0);
    sigprocmask(SIG_BLOCK, &both, NULL);
    for (int way = 0; way < WAYS; way++) {
        count = blocked = 0;
        raise(SIGUSR1);
        raise(SIGUSR2);
        two = two && wait_by(way, epoll_fd, &none) < 0 && errno == EINTR && count == 2;
        sigprocmask(SIG_BLOCK, NULL, &now);
        // The second's mask has both, as it came in front of the first; the first's its own.
        masks = masks && blocked == 3 && sigismember(&now, SIGUSR1) && sigismember(&now, SIGUSR2);
    }
    sigprocmask(SIG_UNBLOCK, &both, NULL);
    close(epoll_fd);
    check(two, "all that a wait lets through are handled");
    check(masks, "with the mask of the wait, and blocked behind it as before");
}

static void *send(void *argument)
{
    for (int i = 0; i < 200; i++) {
        pthread_kill(*(pthread_t *)argument, SIGUSR1);
        usleep(100);
    }
    return NULL;
}

// A signal that comes at any time neither stops a call for ever nor spoils what is computed.
static void storming(void)
{
    pthread_t thread, self = pthread_self();
    handle(SIGUSR1, on_signal, SA_RESTART);
    count = 0;
    uint64_t sum = 0;
    double real = 0;
    pthread_create(&thread, NULL, send, &self);
    for (uint64_t i = 1; i <= 20000; i++) {
        sum += i * (uint64_t)getppid() / (uint64_t)getppid();
        real += (double)i / 2;
    }
    pthread_join(thread, NULL);
    check(sum == 200010000 && real == 100005000, "a storm of signals spoils nothing");
    check(count > 0, "and some of it arrived");
}

int main(void)
{
    sending();
    nesting();
    faulting();
    contexts();
    contexts_of_loops();
    altstacks();
    interrupting();
    waiting();
    waiting_for_two();
    storming();
    return check_done();
}
