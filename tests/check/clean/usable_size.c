// SPDX-License-Identifier: BSD-2-Clause
// What malloc_usable_size() says may be used.
// kind: none
// missed-by: asan
#include "twin.h"
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

int main(void)
{
    for (size_t bytes = 1; bytes < 5000; bytes = bytes * 3 / 2 + 1) {
        char *block = malloc(bytes);
        size_t usable = malloc_usable_size(HIDE(block));
        if (usable < bytes)
            return 1;
        memset(HIDE(block), 1, HIDE(usable));
        block = realloc(block, usable + 100);
        HIDE(block)[usable + 99] = 1;
        free(block);
    }
    return malloc_usable_size(NULL) != 0;
}
