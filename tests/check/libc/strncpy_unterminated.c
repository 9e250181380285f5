// SPDX-License-Identifier: BSD-2-Clause
// strncpy() left no end, and strlen() looks for it.
// kind: heap-buffer-overflow
// access: read
// object: 10 bytes
#include "twin.h"
#include <stdlib.h>
#include <string.h>

int main(void)
{
    char *field = malloc(10);  // @allocated
    strncpy(field, HIDE("0123456789abc"), 10);
    if (TWIN(0, 1))
        field[9] = 0;
    size_t length = strlen(HIDE(field));  // @access
    USE(length);
    free(field);
    return 0;
}
