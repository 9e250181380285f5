// SPDX-License-Identifier: BSD-2-Clause
// A page and more before a large block.
// kind: heap-buffer-underflow
// access: write 1
// object: 300000 bytes, at -5000
// missed-by: memcheck asan
#include "twin.h"
#include <stdlib.h>

int main(void)
{
    char *before = calloc(1, 300000);
    char *block = malloc(300000);  // @allocated
    long at = HIDE(TWIN(-5000L, 5000L));
    HIDE(block)[at] = 1;  // @access
    free(block);
    free(before);
    return 0;
}
