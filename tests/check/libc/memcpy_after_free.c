// SPDX-License-Identifier: BSD-2-Clause
// memcpy() into what was freed.
// kind: heap-use-after-free
// access: write
// object: 64 bytes
#include "twin.h"
#include <stdlib.h>
#include <string.h>

int main(void)
{
    char from[64] = "x";
    char *to = malloc(64);  // @allocated
    if (TWIN(1, 0))
        free(HIDE(to));                        // @freed
    memcpy(HIDE(to), from, HIDE((size_t)64));  // @access
    if (TWIN(0, 1))
        free(to);
    return 0;
}
