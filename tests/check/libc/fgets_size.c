// SPDX-License-Identifier: BSD-2-Clause
// fgets() is told that the buffer is larger than it is.
// kind: heap-buffer-overflow
// access: write
// object: 8 bytes
// stdin: a line of some length\n
#include "twin.h"
#include <stdio.h>
#include <stdlib.h>

int main(void)
{
    char *line = malloc(8);                                   // @allocated
    char *got = fgets(HIDE(line), HIDE(TWIN(80, 8)), stdin);  // @access
    USE(got);
    free(line);
    return 0;
}
