// SPDX-License-Identifier: BSD-2-Clause
// The block moved; its old address is read.
// kind: use-after-realloc
// access: read 4
// object: 16 bytes, at 4
#include "twin.h"
#include <stdlib.h>

int main(void)
{
    int *numbers = malloc(16);  // @allocated
    numbers[1] = 7;
    int *old = HIDE(numbers);
    numbers = realloc(HIDE(numbers), 1 << 16);      // @freed
    int value = TWIN(HIDE(old), HIDE(numbers))[1];  // @access
    USE(value);                                     // @access
    free(numbers);
    return 0;
}
