// SPDX-License-Identifier: BSD-2-Clause
// The memory was given again twenty thousand times.
// kind: heap-use-after-free
// access: read 8
// object: 64 bytes, at 0
#include "twin.h"
#include <stdlib.h>

int main(void)
{
    long *old = calloc(1, 64);  // @allocated
    long *kept = HIDE(old);
    if (TWIN(1, 0))
        free(old);  // @freed
    for (int i = 0; i < 20000; i++) {
        long *other = malloc(64);
        HIDE(other)[0] = i;
        free(HIDE(other));
    }
    USE(HIDE(kept)[0]);  // @access
    if (TWIN(0, 1))
        free(old);
    return 0;
}
