// SPDX-License-Identifier: BSD-2-Clause
// An array that is meant to begin with one, whose element zero is used.
// kind: heap-buffer-underflow
// access: write 8
// object: 80 bytes, at -8
#include "twin.h"
#include <stdlib.h>

int main(void)
{
    long *array = malloc(10 * sizeof(*array));  // @allocated
    long *from_one = HIDE(array) - 1;
    for (int i = TWIN(0, 1); i <= 10; i++)
        HIDE(from_one)[i] = i;  // @access
    free(array);
    return 0;
}
