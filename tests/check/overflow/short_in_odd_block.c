// SPDX-License-Identifier: BSD-2-Clause
// The last two bytes of a block of an odd size, as a number of two bytes.
// kind: heap-buffer-overflow
// access: write 2
// object: 31 bytes, at 30
#include "twin.h"
#include <stdint.h>
#include <stdlib.h>

static void fill(int16_t *samples, size_t bytes)
{
    for (size_t i = 0; i < (bytes + TWIN(1, 0)) / 2; i++)
        HIDE(samples)[i] = (int16_t)i;  // @access
}

int main(void)
{
    int16_t *samples = malloc(31);  // @allocated
    fill(samples, HIDE((size_t)31));
    free(samples);
    return 0;
}
