// SPDX-License-Identifier: BSD-2-Clause
// fread() with count and size confused with another record's.
// kind: heap-buffer-overflow or syscall-buffer-overflow
// access: write
// object: 24 bytes
// stdin: 0123456789012345678901234567890123456789
#include "twin.h"
#include <stdio.h>
#include <stdlib.h>

int main(void)
{
    char *records = malloc(3 * 8);                                             // @allocated
    size_t count = fread(HIDE(records), HIDE((size_t)TWIN(12, 8)), 3, stdin);  // @access
    free(records);
    return count != 3;
}
