// SPDX-License-Identifier: BSD-2-Clause
// Reads the byte behind a block whose size is no multiple of anything.
// kind: heap-buffer-overflow
// access: read 1
// object: 13 bytes, at 13
#include "twin.h"
#include <stdlib.h>

int main(void)
{
    unsigned char *block = calloc(13, 1);  // @allocated
    size_t at = HIDE((size_t)TWIN(13, 12));
    int value = HIDE(block)[at];  // @access
    USE(value);
    free(block);
    return 0;
}
