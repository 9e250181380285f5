// SPDX-License-Identifier: BSD-2-Clause
// strcat() to a buffer with room for the first part alone.
// kind: heap-buffer-overflow
// access: write
// object: 12 bytes
#include "twin.h"
#include <stdlib.h>
#include <string.h>

int main(void)
{
    char *path = malloc(TWIN(12, 24));  // @allocated
    strcpy(path, "/var/lib");
    strcat(HIDE(path), HIDE("/strake"));  // @access
    free(path);
    return 0;
}
