// SPDX-License-Identifier: BSD-2-Clause
// A block so large that an allocator gives it back to the kernel at once.
// kind: heap-use-after-free
// access: write 8
// object: 4194304 bytes, at 2097152
#include "twin.h"
#include <stdlib.h>

int main(void)
{
    long *block = malloc(4 << 20);  // @allocated
    block[0] = 1;
    if (TWIN(1, 0))
        free(HIDE(block));                      // @freed
    HIDE(block)[(2 << 20) / sizeof(long)] = 2;  // @access
    if (TWIN(0, 1))
        free(block);
    return 0;
}
