// SPDX-License-Identifier: BSD-2-Clause
// realloc(p, 0) frees, in glibc.
// kind: none
// missed-by: memcheck
#include "twin.h"
#include <stdlib.h>

int main(void)
{
    for (int i = 0; i < 10; i++) {
        void *block = malloc(100);
        void *after = realloc(HIDE(block), HIDE((size_t)0));
        if (after)
            free(after);
    }
    return 0;
}
