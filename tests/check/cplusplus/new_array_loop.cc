// SPDX-License-Identifier: BSD-2-Clause
// new[] of structures, one too many of which is set.
// kind: heap-buffer-overflow
// access: write 2
// object: 60 bytes, at 60
#include "twin.h"

struct pixel {
    short red, green, blue;
};

int main()
{
    pixel *pixels = new pixel[10];  // @allocated
    for (int i = 0; i < HIDE(10 + TWIN(1, 0)); i++)
        HIDE(pixels)[i].red = 255;  // @access
    delete[] pixels;
    return 0;
}
