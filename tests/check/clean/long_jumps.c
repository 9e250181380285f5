// SPDX-License-Identifier: BSD-2-Clause
// setjmp() and longjmp() out of deep calls, again and again.
// kind: none
#include "twin.h"
#include <setjmp.h>
#include <stdlib.h>

static jmp_buf back;

__attribute__((noinline)) static int descend(int depth)
{
    char local[64];
    local[depth % 64] = 1;
    if (depth == 0)
        longjmp(back, HIDE(&local[0])[0] + 2);
    return descend(depth - 1) + local[3];
}

int main(void)
{
    volatile int rounds = 0;
    char *block = malloc(10);
    int value = setjmp(back);
    if (value == 0 || rounds < 100) {
        rounds = rounds + 1;
        descend(HIDE(30));
    }
    HIDE(block)[9] = 1;
    free(block);
    return rounds != 100;
}
