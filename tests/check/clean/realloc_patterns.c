// SPDX-License-Identifier: BSD-2-Clause
// Blocks grow and shrink at random; what they hold stays.
// kind: none
#include "twin.h"
#include <stdlib.h>
#include <string.h>

int main(void)
{
    unsigned char *blocks[50] = {0};
    size_t bytes[50] = {0};
    unsigned random = 1;
    for (int step = 0; step < 5000; step++) {
        random = random * 1103515245 + 12345;
        unsigned at = (random >> 16) % 50, wanted = (random >> 8) % 700 + 1;
        if (random >> 30 == 0) {
            free(blocks[at]);
            blocks[at] = NULL;
            bytes[at] = 0;
            continue;
        }
        blocks[at] = realloc(blocks[at], wanted);
        for (size_t i = 0; i < bytes[at] && i < wanted; i++)
            if (HIDE(blocks[at])[i] != at)
                return 1;
        memset(blocks[at], (int)at, wanted);
        bytes[at] = wanted;
    }
    for (int i = 0; i < 50; i++)
        free(blocks[i]);
    return 0;
}
