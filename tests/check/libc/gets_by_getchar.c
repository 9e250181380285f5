// SPDX-License-Identifier: BSD-2-Clause
// A line is read byte by byte without a bound.
// kind: heap-buffer-overflow
// access: write 1
// object: 12 bytes, at 12
// stdin: more than twelve letters\n
#include "twin.h"
#include <stdio.h>
#include <stdlib.h>

int main(void)
{
    char *line = malloc(12);  // @allocated
    int at = 0, letter;
    while ((letter = getchar()) != '\n' && letter != EOF)
        if (TWIN(1, at < 11))
            HIDE(line)[at++] = (char)letter;  // @access
    HIDE(line)[at] = 0;
    free(line);
    return 0;
}
