// SPDX-License-Identifier: BSD-2-Clause
// A handler runs on a stack of its own, which lies on the heap.
// kind: none
#include "twin.h"
#include <signal.h>
#include <stdlib.h>

static volatile sig_atomic_t handled;

__attribute__((noinline)) static int deep(int depth)
{
    volatile char local[128] = {1};
    return depth ? deep(depth - 1) + local[5] : 1;
}

static void on_signal(int number, siginfo_t *info, void *context)
{
    handled += deep(20) && info->si_signo == number && context;
}

int main(void)
{
    stack_t stack = {.ss_size = 65536};
    stack.ss_sp = malloc(stack.ss_size);
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_ONSTACK | SA_SIGINFO};
    if (sigaltstack(&stack, NULL) || sigaction(SIGUSR1, &action, NULL))
        return 1;
    for (int i = 0; i < 5; i++)
        raise(SIGUSR1);
    stack.ss_flags = SS_DISABLE;
    sigaltstack(&stack, NULL);
    free(HIDE(stack.ss_sp));
    return handled != 5;
}
