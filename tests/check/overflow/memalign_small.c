// SPDX-License-Identifier: BSD-2-Clause
// memalign() with an alignment larger than the block.
// kind: heap-buffer-overflow
// access: write 4
// object: 20 bytes, at 20
#include "twin.h"
#include <malloc.h>
#include <stdlib.h>

int main(void)
{
    int *five = memalign(256, 5 * sizeof(int));  // @allocated
    for (int i = 4; i < TWIN(6, 5); i++)
        HIDE(five)[i] = i;  // @access
    free(five);
    return 0;
}
