// SPDX-License-Identifier: BSD-2-Clause
// The product of count and size does not fit in 32 bits.
// kind: heap-buffer-overflow
// access: write 4
// object: 16 bytes, at 16
#include "twin.h"
#include <stdint.h>
#include <stdlib.h>

int main(void)
{
    uint32_t count = HIDE(0x40000004u);
    TWIN(uint32_t, uint64_t) bytes = (TWIN(uint32_t, uint64_t))count * 4;
    uint32_t *table = bytes > 1 << 20 ? NULL : malloc(bytes);  // @allocated
    for (uint32_t i = 0; table && i < 8; i++)
        HIDE(table)[i] = i;  // @access
    free(table);
    return 0;
}
