// SPDX-License-Identifier: BSD-2-Clause
// memset() of as many bytes as a larger type would need.
// kind: heap-buffer-overflow
// access: write
// object: 20 bytes
#include "twin.h"
#include <stdlib.h>
#include <string.h>

int main(void)
{
    size_t count = HIDE((size_t)10);
    short *values = malloc(count * sizeof(short));              // @allocated
    memset(HIDE(values), 0, count * sizeof(TWIN(int, short)));  // @access
    free(values);
    return 0;
}
