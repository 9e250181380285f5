// SPDX-License-Identifier: BSD-2-Clause
// Callees write to arrays of their callers, all the way up.
// kind: none
#include "twin.h"

__attribute__((noinline)) static void fill(int *up, int depth, int *top)
{
    int own[16];
    if (depth) {
        fill(own, depth - 1, top);
        HIDE(up)[depth % 16] = HIDE(&own[0])[(depth - 1) % 16] + 1;
    } else {
        HIDE(up)[0] = 0;
    }
    HIDE(top)[depth % 64]++;
}

int main(void)
{
    int first[16], top[64] = {0};
    fill(first, HIDE(50), top);
    return first[50 % 16] != 50 || top[50] != 1;
}
