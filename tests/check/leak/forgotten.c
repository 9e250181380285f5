// SPDX-License-Identifier: BSD-2-Clause
// The only pointer is a local variable of a function that has returned.
// kind: leak-definite
// object: 123 bytes
#include "twin.h"
#include <stdlib.h>

__attribute__((noinline)) static void work(void)
{
    char *block = malloc(123);  // @allocated
    HIDE(block)[0] = 1;
    if (TWIN(0, 1))
        free(HIDE(block));
}

__attribute__((noinline)) static void clear_stack(void)
{
    volatile char used[4096];
    for (int i = 0; i < 4096; i++)
        used[i] = 0;
}

int main(void)
{
    work();
    clear_stack();
    return 0;
}
