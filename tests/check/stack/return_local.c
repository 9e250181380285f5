// SPDX-License-Identifier: BSD-2-Clause
// The address of a local variable outlives its function.
// kind: dead-stack-use
// access: read 4
#include "twin.h"
#include <stdlib.h>

static int kept;

__attribute__((noinline)) static int *counter(int start)
{
    int local[4] = {start, start + 1, start + 2, start + 3};
    if (TWIN(0, 1)) {
        kept = start;
        return &kept;
    }
    return HIDE(&local[0]);
}

int main(void)
{
    int *number = counter(HIDE(5));
    USE(*HIDE(number));  // @access
    return 0;
}
