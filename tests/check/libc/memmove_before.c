// SPDX-License-Identifier: BSD-2-Clause
// memmove() to the place before the block.
// kind: heap-buffer-underflow
// access: write
// object: 50 bytes
#include "twin.h"
#include <stdlib.h>
#include <string.h>

int main(void)
{
    char *line = calloc(50, 1);  // @allocated
    char *place = HIDE(line) + HIDE(TWIN(-8, 8));
    memmove(place, line + 20, HIDE((size_t)20));  // @access
    free(line);
    return 0;
}
