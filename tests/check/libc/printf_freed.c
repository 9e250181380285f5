// SPDX-License-Identifier: BSD-2-Clause
// printf() of a string that was freed.
// kind: heap-use-after-free
// access: read
// object: 20 bytes
#include "twin.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void)
{
    char *text = malloc(20);  // @allocated
    strcpy(text, "message");
    if (TWIN(1, 0))
        free(HIDE(text));                     // @freed
    printf(HIDE("%s: %d\n"), HIDE(text), 5);  // @access
    if (TWIN(0, 1))
        free(text);
    return 0;
}
