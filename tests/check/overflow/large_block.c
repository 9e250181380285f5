// SPDX-License-Identifier: BSD-2-Clause
// A block so large that an allocator maps it on its own; a byte behind it.
// kind: heap-buffer-overflow
// access: write 1
// object: 1000001 bytes, at 1000001
#include "twin.h"
#include <stdlib.h>

int main(void)
{
    size_t bytes = HIDE((size_t)1000001);
    char *block = malloc(bytes);          // @allocated
    HIDE(block)[bytes - TWIN(0, 1)] = 1;  // @access
    free(block);
    return 0;
}
