// SPDX-License-Identifier: BSD-2-Clause
// The result of realloc() is kept in a variable of an inner block only.
// kind: use-after-realloc
// access: write 1
// object: 8 bytes, at 0
#include "twin.h"
#include <stdlib.h>

int main(void)
{
    char *buffer = malloc(8);                   // @allocated
    char *grown = realloc(HIDE(buffer), 4096);  // @freed
    if (grown) {
        if (TWIN(0, 1))
            buffer = grown;
        HIDE(buffer)[0] = 'a';  // @access
    }
    free(grown);
    return 0;
}
