// SPDX-License-Identifier: BSD-2-Clause
// Behind what asprintf() made.
// kind: heap-buffer-overflow
// access: read 1
// object: 9 bytes, at 10
#include "twin.h"
#include <stdio.h>
#include <stdlib.h>

int main(void)
{
    char *text;
    int length = asprintf(&text, "%s-%d", HIDE("tempo"), 42);  // @allocated
    if (length != 8)
        return 1;
    char end = HIDE(text)[length + TWIN(2, 0)];  // @access
    USE(end);                                    // @access
    free(text);
    return 0;
}
