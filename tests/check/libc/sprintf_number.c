// SPDX-License-Identifier: BSD-2-Clause
// A number with all its digits in a buffer made for small ones.
// kind: heap-buffer-overflow
// access: write
// object: 6 bytes
#include "twin.h"
#include <stdio.h>
#include <stdlib.h>

int main(void)
{
    char *digits = malloc(TWIN(6, 12));          // @allocated
    sprintf(HIDE(digits), "%d", HIDE(1234567));  // @access
    free(digits);
    return 0;
}
