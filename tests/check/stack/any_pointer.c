// SPDX-License-Identifier: BSD-2-Clause
// A frame that is gone, read where pointers to the heap were read before.
// kind: dead-stack-use
// access: read 4
// missed-by: memcheck
#include <stdlib.h>

#include "twin.h"

__attribute__((noinline)) static int get(const int *from)
{
    return *from;  // @access
}

__attribute__((noinline)) static int *make(int *outer)
{
    int here[64];
    here[0] = 1;
    return TWIN(HIDE(&here[0]), outer);
}

int main(void)
{
    int outer[64] = {0}, *kept = HIDE(calloc(1, sizeof(int)));

    for (int i = 0; kept && i < 100; i++)
        USE(get(kept));
    free(kept);
    USE(get(make(outer)));  // @access
    return 0;
}
