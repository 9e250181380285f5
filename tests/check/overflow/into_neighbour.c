// SPDX-License-Identifier: BSD-2-Clause
// Far enough to land in another object, which is alive.
// kind: heap-buffer-overflow
// access: write 1
// object: 64 bytes
// missed-by: memcheck asan
#include "twin.h"
#include <stdlib.h>

int main(void)
{
    char *blocks[8];
    for (int i = 0; i < 8; i++)
        blocks[i] = malloc(64);  // @allocated
    size_t at = TWIN(259, 3);    // with or without 16 bytes between two of them
    HIDE(blocks[1])[at] = 1;     // @access
    for (int i = 0; i < 8; i++)
        free(blocks[i]);
    return 0;
}
