// SPDX-License-Identifier: BSD-2-Clause
// The plainest of all.
// kind: heap-use-after-free
// access: read 4
// object: 4 bytes, at 0
#include "twin.h"
#include <stdlib.h>

int main(void)
{
    int *number = malloc(sizeof(*number));  // @allocated
    *number = 42;
    if (TWIN(1, 0))
        free(HIDE(number));     // @freed
    int value = *HIDE(number);  // @access
    USE(value);                 // @access
    if (TWIN(0, 1))
        free(number);
    return 0;
}
