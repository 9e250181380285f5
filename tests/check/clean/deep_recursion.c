// SPDX-License-Identifier: BSD-2-Clause
// A stack that grows by megabytes, and again from another depth.
// kind: none
#include "twin.h"

__attribute__((noinline)) static long descend(long depth)
{
    volatile char frame[1000];
    frame[depth % 1000] = 1;
    return depth ? descend(depth - 1) + frame[depth % 1000] : 0;
}

int main(void)
{
    return descend(HIDE(5000L)) != 5000 || descend(HIDE(10L)) != 10 || descend(HIDE(6000L)) != 6000;
}
