// SPDX-License-Identifier: BSD-2-Clause
// Two digits a byte, and the end.
// kind: heap-buffer-overflow
// access: write
// object: 16 bytes
#include "twin.h"
#include <stdio.h>
#include <stdlib.h>

int main(void)
{
    static const unsigned char bytes[] = {1, 2, 3, 4, 250, 251, 252, 253};
    char *text = malloc(2 * sizeof(bytes) + TWIN(0, 1));  // @allocated
    for (size_t i = 0; i < sizeof(bytes); i++)
        sprintf(HIDE(text) + 2 * i, "%02x", bytes[i]);  // @access
    free(text);
    return 0;
}
