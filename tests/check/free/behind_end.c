// SPDX-License-Identifier: BSD-2-Clause
// The end is freed instead of the beginning.
// kind: interior-free or invalid-free
// object: 48 bytes, at 48
// missed-by: asan
#include "twin.h"
#include <stdlib.h>

int main(void)
{
    int *begin = malloc(12 * sizeof(int));  // @allocated
    int *end = begin;
    while (end != begin + 12)
        *end++ = 0;
    free(HIDE(TWIN(end, begin)));  // @access
    return 0;
}
