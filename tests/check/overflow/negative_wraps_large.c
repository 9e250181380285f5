// SPDX-License-Identifier: BSD-2-Clause
// A negative length becomes the bound of a loop as a huge number without sign.
// kind: heap-buffer-overflow
// access: read 1
// object: 16 bytes, at 16
#include "twin.h"
#include <stdlib.h>

static unsigned sum(const unsigned char *bytes, int length)
{
    unsigned total = 0;
    for (TWIN(unsigned, int) i = 0; i < length; i++)
        total += HIDE(bytes)[i];  // @access
    return total;
}

int main(void)
{
    unsigned char *bytes = calloc(1, 16);  // @allocated
    unsigned total = sum(bytes, HIDE(-1));
    free(bytes);
    return (int)total;
}
