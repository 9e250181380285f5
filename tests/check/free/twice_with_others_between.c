// SPDX-License-Identifier: BSD-2-Clause
// free() twice, with another free between them, as glibc itself does not see it.
// kind: double-free
// object: 32 bytes, at 0
#include "twin.h"
#include <stdlib.h>

int main(void)
{
    char *first = malloc(32);  // @allocated
    char *second = malloc(32);
    free(HIDE(first));  // @freed
    free(HIDE(second));
    if (TWIN(1, 0))
        free(HIDE(first));  // @access
    return 0;
}
