// SPDX-License-Identifier: BSD-2-Clause
// Something freed is made larger.
// kind: double-free or heap-use-after-free or use-after-realloc
// object: 20 bytes, at 0
#include "twin.h"
#include <stdlib.h>

int main(void)
{
    char *block = malloc(20);  // @allocated
    if (TWIN(1, 0))
        free(HIDE(block));                   // @freed
    char *other = realloc(HIDE(block), 40);  // @access
    free(other);
    return 0;
}
