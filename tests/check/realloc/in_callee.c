// SPDX-License-Identifier: BSD-2-Clause
// A callee makes the caller's buffer larger, of which the caller is not told.
// kind: use-after-realloc
// access: write 8
// object: 80 bytes, at 0
#include "twin.h"
#include <stdlib.h>

static long *append(long *array, size_t count, long value)
{
    long *longer = realloc(array, (count + 100) * sizeof(*array));  // @freed
    longer[count] = value;
    return longer;
}

int main(void)
{
    long *array = calloc(10, sizeof(*array));  // @allocated
    long *result = append(HIDE(array), 10, 3);
    TWIN(HIDE(array), HIDE(result))[0] = 1;  // @access
    free(result);
    return 0;
}
