// SPDX-License-Identifier: BSD-2-Clause
// A block aligned by hand: the aligned address is freed.
// kind: interior-free
// object: 1088 bytes
#include "twin.h"
#include <stdint.h>
#include <stdlib.h>

int main(void)
{
    char *block = malloc(1024 + 64);  // @allocated
    char *aligned = (char *)(((uintptr_t)block + 64) & ~(uintptr_t)63);
    if (aligned == block)
        aligned += 64;
    HIDE(aligned)[1023] = 1;
    free(HIDE(TWIN(aligned, block)));  // @access
    return 0;
}
