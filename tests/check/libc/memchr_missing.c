// SPDX-License-Identifier: BSD-2-Clause
// memchr() over more than the block, for a byte that is not there.
// kind: heap-buffer-overflow
// access: read
// object: 30 bytes
#include "twin.h"
#include <stdlib.h>
#include <string.h>

int main(void)
{
    char *block = calloc(1, 30);                                         // @allocated
    char *found = memchr(HIDE(block), 'x', HIDE((size_t)TWIN(31, 30)));  // @access
    USE(found);
    free(block);
    return 0;
}
