// SPDX-License-Identifier: BSD-2-Clause
// The bad access is chosen by a table of functions.
// kind: heap-buffer-overflow
// access: read 4
// object: 20 bytes, at 20
#include "twin.h"
#include <stdlib.h>

static int first(const int *numbers, size_t count)
{
    return count ? HIDE(numbers)[0] : 0;
}

static int last(const int *numbers, size_t count)
{
    return HIDE(numbers)[count - TWIN(0, 1)];  // @access
}  // @access

int main(void)
{
    int (*const ends[])(const int *, size_t) = {first, last};
    int *numbers = calloc(5, sizeof(int));  // @allocated
    int sum = 0;
    for (int i = 0; i < 2; i++)
        sum += HIDE(ends[i])(numbers, 5);
    USE(sum);
    free(numbers);
    return 0;
}
