// SPDX-License-Identifier: BSD-2-Clause
// Within the allocator's rounding, but not within the object: 17 of 24 or 32 bytes.
// kind: heap-buffer-overflow
// access: write 1
// object: 17 bytes, at 23
#include "twin.h"
#include <stdlib.h>

static void put(char *text, size_t at)
{
    HIDE(text)[at] = 'x';  // @access
}

int main(void)
{
    char *text = malloc(17);  // @allocated
    put(text, HIDE((size_t)TWIN(23, 16)));
    free(text);
    return 0;
}
