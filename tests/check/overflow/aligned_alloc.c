// SPDX-License-Identifier: BSD-2-Clause
// Behind a block of an alignment that was asked for.
// kind: heap-buffer-overflow
// access: write 1
// object: 128 bytes, at 128
#include "twin.h"
#include <stdint.h>
#include <stdlib.h>

int main(void)
{
    uint8_t *line = aligned_alloc(64, 128);  // @allocated
    if ((uintptr_t)line % 64)
        return 1;
    for (uint8_t *at = line; HIDE(at) TWIN(<=, <) line + 128; at++)
        *at = 0xff;  // @access
    free(line);
    return 0;
}
