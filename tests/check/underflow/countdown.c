// SPDX-License-Identifier: BSD-2-Clause
// A loop that counts down to and including minus one.
// kind: heap-buffer-underflow
// access: write 4
// object: 32 bytes, at -4
#include "twin.h"
#include <stdlib.h>

int main(void)
{
    int *values = malloc(8 * sizeof(*values));  // @allocated
    for (int i = 7; i >= HIDE(TWIN(-1, 0)); i--)
        HIDE(values)[i] = i;  // @access
    free(values);
    return 0;
}
