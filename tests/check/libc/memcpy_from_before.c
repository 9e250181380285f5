// SPDX-License-Identifier: BSD-2-Clause
// memcpy() whose source begins before its block.
// kind: heap-buffer-underflow
// access: read
// object: 60 bytes
#include "twin.h"
#include <stdlib.h>
#include <string.h>

int main(void)
{
    char to[60];
    char *from = calloc(60, 1);                                       // @allocated
    memcpy(HIDE(&to[0]), HIDE(from) - TWIN(4, 0), HIDE((size_t)40));  // @access
    USE(to[3]);
    free(from);
    return 0;
}
