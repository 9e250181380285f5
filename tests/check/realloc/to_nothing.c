// SPDX-License-Identifier: BSD-2-Clause
// realloc(p, 0) frees; the pointer is used afterwards.
// kind: use-after-realloc or heap-use-after-free
// access: read 1
// object: 30 bytes, at 1
#include "twin.h"
#include <stdlib.h>

int main(void)
{
    char *block = calloc(30, 1);  // @allocated
    char *left = block;
    if (TWIN(1, 0))
        left = realloc(HIDE(block), HIDE((size_t)0));  // @freed
    USE(HIDE(block)[1]);                               // @access
    free(left);
    return 0;
}
