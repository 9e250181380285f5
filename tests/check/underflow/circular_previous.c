// SPDX-License-Identifier: BSD-2-Clause
// The element before the first of a circular array.
// kind: heap-buffer-underflow
// access: read 2
// object: 20 bytes, at -2
#include "twin.h"
#include <stdlib.h>

static short previous(const short *values, int count, int at)
{
    return HIDE(values)[TWIN((at - 1) % count, (at + count - 1) % count)];  // @access
}

int main(void)
{
    short *values = calloc(10, sizeof(*values));                                  // @allocated
    short found = previous(values, HIDE(10), 3) + previous(values, HIDE(10), 0);  // @access
    free(values);
    return found;
}
