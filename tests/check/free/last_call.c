// SPDX-License-Identifier: BSD-2-Clause
// Allocated and freed by functions whose last act it is: the compiler makes it a jump.
// kind: double-free
// object: 36 bytes
#include "twin.h"
#include <stdlib.h>

__attribute__((noinline)) static void *take(size_t elements)
{
    return malloc(3 * elements);  // @allocated
}

__attribute__((noinline)) static void give(char *block)
{
    block[0] = 0;
    free(block);  // @freed
}

__attribute__((noinline)) static void give_filled(char *block, int last)
{
    block[last] = 1;
    give(block);
}

__attribute__((noinline)) static void give_unused(void *block, int really)
{
    if (really)
        free(block);  // @access
}

int main(void)
{
    char *block = take(HIDE(12));
    give_filled(block, 7);
    give_unused(HIDE(block), HIDE(TWIN(1, 0)));
    return 0;
}
