// SPDX-License-Identifier: BSD-2-Clause
// strcpy() of a string that does not fit.
// kind: heap-buffer-overflow
// access: write
// object: 8 bytes
#include "twin.h"
#include <stdlib.h>
#include <string.h>

int main(void)
{
    char *name = malloc(8);  // @allocated
    const char *source = HIDE("a name that is longer");
    if (TWIN(1, strlen(source) < 8))
        strcpy(name, source);  // @access
    free(name);
    return 0;
}
