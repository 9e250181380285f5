// SPDX-License-Identifier: BSD-2-Clause
// Room is made in the middle of an array; memmove() moves its last element out.
// kind: heap-buffer-overflow
// access: write
// object: 64 bytes
// only: O0
#include "twin.h"
#include <stdlib.h>
#include <string.h>

static void insert(long *array, size_t count, size_t at, long value)
{
    memmove(array + at + 1, array + at, (count - at - TWIN(0, 1)) * sizeof(*array));  // @access
    array[at] = value;
}

int main(void)
{
    long *array = calloc(8, sizeof(*array));  // @allocated
    insert(array, HIDE((size_t)8), HIDE((size_t)2), 5);
    free(array);
    return 0;
}
