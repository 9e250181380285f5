// SPDX-License-Identifier: BSD-2-Clause
// A field of a line of configuration is read into what is too small for it.
// kind: heap-buffer-overflow
// access: write
// object: 4 bytes
#include "twin.h"
#include <stdio.h>
#include <stdlib.h>

int main(void)
{
    char *unit = malloc(TWIN(4, 16));  // @allocated
    int value;
    int fields = sscanf(HIDE("12 seconds"), HIDE("%d %s"), &value, HIDE(unit));  // @access
    free(unit);
    return fields != 2;
}
