// SPDX-License-Identifier: BSD-2-Clause
// snprintf() returns what it would have written; that is taken as the length.
// kind: heap-buffer-overflow
// access: write 1
// object: 10 bytes, at 16
#include "twin.h"
#include <stdio.h>
#include <stdlib.h>

int main(void)
{
    char *text = malloc(10);  // @allocated
    int length = snprintf(text, 10, "%s", HIDE("sixteen letters!"));
    if (TWIN(0, length >= 10))
        length = 9;
    HIDE(text)[length] = '\n';  // @access
    free(text);
    return 0;
}
