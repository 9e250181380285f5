// SPDX-License-Identifier: BSD-2-Clause
// One address is given again more often than an identifier can count.
// kind: none
#include "twin.h"
#include <stdlib.h>

int main(void)
{
    char *neighbour = malloc(32);
    for (int i = 0; i < 200000; i++) {
        char *block = malloc(32);
        HIDE(block)[31] = (char)i;
        HIDE(neighbour)[31] = (char)i;
        free(HIDE(block));
    }
    free(neighbour);
    return 0;
}
