// SPDX-License-Identifier: BSD-2-Clause
// free() twice in a row.
// kind: double-free
// object: 10 bytes, at 0
#include "twin.h"
#include <stdlib.h>

int main(void)
{
    char *block = malloc(10);  // @allocated
    free(HIDE(block));         // @freed
    if (TWIN(1, 0))
        free(HIDE(block));  // @access
    return 0;
}
