// SPDX-License-Identifier: BSD-2-Clause
// realloc() of a pointer into a block.
// kind: interior-free
// object: 64 bytes, at 8
#include "twin.h"
#include <stdlib.h>

int main(void)
{
    char *block = malloc(64);               // @allocated
    char *rest = HIDE(block) + TWIN(8, 0);  // what is left after a header
    char *longer = realloc(rest, 256);      // @access
    free(longer);
    return 0;
}
