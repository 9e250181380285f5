// SPDX-License-Identifier: BSD-2-Clause
// A block that became smaller may not have moved; its old pointer is stale all the same.
// kind: use-after-realloc
// access: read 1
// object: 64 bytes, at 2
#include "twin.h"
#include <stdlib.h>

int main(void)
{
    char *text = calloc(64, 1);  // @allocated
    char *old = HIDE(text);
    text = realloc(HIDE(text), 48);               // @freed
    char third = TWIN(HIDE(old), HIDE(text))[2];  // @access
    USE(third);                                   // @access
    free(text);
    return 0;
}
