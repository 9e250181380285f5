// SPDX-License-Identifier: BSD-2-Clause
// Ten coroutines that run in turn, each deep in its own calls.
// kind: none
#include "twin.h"
#include <stdlib.h>
#include <ucontext.h>

enum { STACK = 32768, MANY = 10 };

static ucontext_t scheduler, contexts[MANY];
static int done;

static int deep(int self, int depth)
{
    volatile int local[8] = {depth};
    if (depth == 0) {
        swapcontext(&contexts[self], &scheduler);
        return 0;
    }
    return deep(self, depth - 1) + (local[0] == depth);
}

static void run(int self)
{
    for (int i = 1; i < 10; i++)
        done += deep(self, i * 3) == i * 3;
}

int main(void)
{
    void *stacks[MANY];
    for (int i = 0; i < MANY; i++) {
        stacks[i] = malloc(STACK);
        getcontext(&contexts[i]);
        contexts[i].uc_stack.ss_sp = stacks[i];
        contexts[i].uc_stack.ss_size = STACK;
        contexts[i].uc_link = &scheduler;
        makecontext(&contexts[i], (void (*)(void))run, 1, i);
    }
    for (int round = 0; round < 10; round++)
        for (int i = 0; i < MANY; i++)
            swapcontext(&scheduler, &contexts[i]);
    for (int i = 0; i < MANY; i++)
        free(stacks[i]);
    return done != 9 * MANY;
}
