// SPDX-License-Identifier: BSD-2-Clause
// strncpy() to eight bytes before a name.
// kind: heap-buffer-underflow
// access: write
// object: 40 bytes
#include "twin.h"
#include <stdlib.h>
#include <string.h>

int main(void)
{
    char *name = malloc(40);  // @allocated
    char *start = HIDE(name) - TWIN(8, 0);
    strncpy(start, HIDE("a string of twenty-six"), HIDE((size_t)30));  // @access
    free(name);
    return 0;
}
