// SPDX-License-Identifier: BSD-2-Clause
// swapcontext() between stacks on the heap.
// kind: none
#include "twin.h"
#include <stdlib.h>
#include <ucontext.h>

enum { STACK = 65536 };

static ucontext_t caller, inner;
static int produced;

static void produce(int first, int count)
{
    char local[256];
    for (int i = 0; i < count; i++) {
        HIDE(&local[0])[i % 256] = (char)i;
        produced = first + i;
        swapcontext(&inner, &caller);
    }
}

int main(void)
{
    char *stack = malloc(STACK);
    int sum = 0;
    getcontext(&inner);
    inner.uc_stack.ss_sp = stack;
    inner.uc_stack.ss_size = STACK;
    inner.uc_link = &caller;
    makecontext(&inner, (void (*)(void))produce, 2, 10, 5);
    for (int i = 0; i < 6; i++) {
        swapcontext(&caller, &inner);
        sum += i < 5 ? produced : 0;
    }
    free(stack);
    return sum != 60;
}
