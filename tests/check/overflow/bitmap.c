// SPDX-License-Identifier: BSD-2-Clause
// A bitmap of 100 bits in 12 bytes.
// kind: heap-buffer-overflow
// access: read 1
// object: 12 bytes, at 12
#include "twin.h"
#include <stdint.h>
#include <stdlib.h>

static void set(uint8_t *bitmap, unsigned bit)
{
    HIDE(bitmap)[bit / 8] |= (uint8_t)(1u << bit % 8);  // @access
}

int main(void)
{
    unsigned bits = HIDE(100u);
    uint8_t *bitmap = calloc(TWIN(bits / 8, (bits + 7) / 8), 1);  // @allocated
    for (unsigned bit = 0; bit < bits; bit += 3)
        set(bitmap, bit);
    free(bitmap);
    return 0;
}
