// SPDX-License-Identifier: BSD-2-Clause
// The memory belongs to another object by now, of the same size.
// kind: heap-use-after-free
// access: write 1
// object: 48 bytes, at 3
#include "twin.h"
#include <stdlib.h>

int main(void)
{
    char *old = malloc(48);  // @allocated
    char *kept = HIDE(old);
    free(old);  // @freed
    char *new = malloc(48);
    if (TWIN(0, 1))
        kept = new;
    HIDE(kept)[3] = 'x';  // @access
    free(new);
    return 0;
}
