// SPDX-License-Identifier: BSD-2-Clause
// The old pointer is freed, besides the new one.
// kind: double-free or use-after-realloc
// object: 24 bytes, at 0
#include "twin.h"
#include <stdlib.h>

int main(void)
{
    void *old = malloc(24);                   // @allocated
    void *new = realloc(HIDE(old), 1 << 14);  // @freed
    if (TWIN(1, 0))
        free(HIDE(old));  // @access
    free(new);
    return 0;
}
