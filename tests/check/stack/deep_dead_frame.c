// SPDX-License-Identifier: BSD-2-Clause
// A frame deep down the calls that have all returned.
// kind: dead-stack-use
// access: read 8
#include "twin.h"

static long *deepest;

__attribute__((noinline)) static long descend(int depth, long *outer)
{
    long here[32];
    here[depth] = depth;
    if (depth == 0) {
        deepest = TWIN(HIDE(&here[0]), outer);
        return 1;
    }
    return HIDE(&here[0])[depth] + descend(depth - 1, outer);
}

int main(void)
{
    long outer = 0;
    USE(descend(HIDE(20), &outer));
    long value = *HIDE(deepest);  // @access
    USE(value);                   // @access
    return 0;
}
