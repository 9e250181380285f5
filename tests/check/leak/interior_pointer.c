// SPDX-License-Identifier: BSD-2-Clause
// What is left points into the block, not to its beginning.
// kind: leak-possible
// object: 200 bytes
// missed-by: asan
#include "twin.h"
#include <stdlib.h>

static char *volatile position;

__attribute__((noinline)) static void start(void)
{
    char *block = calloc(1, 200);  // @allocated
    position = HIDE(block) + 100;
}

__attribute__((noinline)) static int deep(int depth)
{
    volatile long zeros[64] = {0};
    return depth ? deep(depth - 1) + (int)zeros[3] : 0;
}

int main(void)
{
    start();
    int wrong = deep(HIDE(30));
    if (TWIN(0, 1))
        free(position - 100);
    return wrong;
}
