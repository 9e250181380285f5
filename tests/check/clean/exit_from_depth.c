// SPDX-License-Identifier: BSD-2-Clause
// exit() deep down: what locals of main() point to is no leak.
// kind: none
// only: O0
#include "twin.h"
#include <stdlib.h>

__attribute__((noinline)) static void deep(int depth, char *block)
{
    char *own = malloc(50);
    HIDE(own)[49] = HIDE(block)[9];
    if (depth == 0)
        exit(0);
    deep(depth - 1, own);
    free(own);
}

int main(void)
{
    char *block = calloc(1, 10);
    deep(HIDE(5), block);
    free(block);
    return 1;
}
