// SPDX-License-Identifier: BSD-2-Clause
// Two bytes of which one is before the block and one in it.
// kind: heap-buffer-underflow
// access: write 2
// object: 10 bytes, at -1
#include "twin.h"
#include <stdint.h>
#include <stdlib.h>

int main(void)
{
    uint8_t *message = malloc(10);  // @allocated
    uint16_t *length = (uint16_t *)(HIDE(message) - TWIN(1, 0));
    *length = 10;  // @access
    free(message);
    return 0;
}
