// SPDX-License-Identifier: BSD-2-Clause
// An index out of the input is only compared with the upper bound of another array.
// kind: heap-buffer-overflow
// access: write 4
// object: 40 bytes, at 44
// stdin: 11\n
#include "twin.h"
#include <stdio.h>
#include <stdlib.h>

int main(void)
{
    int index;
    int *buffer = calloc(10, sizeof(*buffer));  // @allocated
    if (scanf("%d", &index) == 1 && index >= 0 TWIN(, &&index < 10))
        HIDE(buffer)[index] = 1;  // @access
    free(buffer);
    return 0;
}
