// SPDX-License-Identifier: BSD-2-Clause
// The memory was given again a hundred times before the old pointer is used.
// kind: heap-use-after-free
// access: read 8
// object: 32 bytes, at 8
#include "twin.h"
#include <stdlib.h>

int main(void)
{
    long *old = malloc(32);  // @allocated
    old[1] = 5;
    long *kept = HIDE(old);
    if (TWIN(1, 0))
        free(old);  // @freed
    for (int i = 0; i < 100; i++) {
        long *other = calloc(4, 8);
        HIDE(other)[0] = i;
        free(HIDE(other));
    }
    long value = HIDE(kept)[1];  // @access
    USE(value);                  // @access
    if (TWIN(0, 1))
        free(old);
    return 0;
}
