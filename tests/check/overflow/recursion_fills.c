// SPDX-License-Identifier: BSD-2-Clause
// Numbers written by recursion, with the bound at the wrong level.
// kind: heap-buffer-overflow
// access: write 4
// object: 28 bytes, at 28
#include "twin.h"
#include <stdlib.h>

static int walk(int *out, int at, int depth)
{
    if (depth == 0)
        return at;
    at = walk(out, at, depth - 1);
    HIDE(out)[at++] = depth;  // @access
    return walk(out, at, depth - 1);
}

int main(void)
{
    int *out = malloc(7 * sizeof(int));  // @allocated
    int count = walk(out, 0, HIDE(TWIN(4, 3)));
    free(out);
    return count != 7;
}
