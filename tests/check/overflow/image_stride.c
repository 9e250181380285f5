// SPDX-License-Identifier: BSD-2-Clause
// An image's rows are longer than its width; the last row has no rest.
// kind: heap-buffer-overflow
// access: write 1
// object: 74 bytes, at 74
#include "twin.h"
#include <stdlib.h>

int main(void)
{
    size_t width = 10, height = HIDE((size_t)5), stride = 16;
    unsigned char *image = malloc((height - 1) * stride + width);  // @allocated
    for (size_t y = 0; y < height; y++)
        for (size_t x = 0; x < TWIN(stride, width); x++)
            HIDE(image)[y * stride + x] = (unsigned char)x;  // @access
    free(image);
    return 0;
}
