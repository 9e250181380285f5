// SPDX-License-Identifier: BSD-2-Clause
// memcpy() of one byte too many.
// kind: heap-buffer-overflow
// access: write
// object: 100 bytes
#include "twin.h"
#include <stdlib.h>
#include <string.h>

int main(void)
{
    char source[256] = {0};
    char *to = malloc(100);                                  // @allocated
    memcpy(HIDE(to), source, HIDE((size_t)TWIN(101, 100)));  // @access
    free(to);
    return 0;
}
