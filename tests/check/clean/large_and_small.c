// SPDX-License-Identifier: BSD-2-Clause
// Blocks of all sizes from one byte to many megabytes, used at both ends.
// kind: none
#include "twin.h"
#include <stdlib.h>

int main(void)
{
    for (size_t bytes = 1; bytes < 64u << 20; bytes = bytes * 5 / 3 + 1) {
        char *block = malloc(bytes), *zeros = calloc(bytes, 1);
        HIDE(block)[0] = HIDE(block)[bytes - 1] = 1;
        if (HIDE(zeros)[0] || HIDE(zeros)[bytes - 1] || HIDE(zeros)[bytes / 2])
            return 1;
        free(block);
        free(zeros);
    }
    return 0;
}
