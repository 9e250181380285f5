// SPDX-License-Identifier: BSD-2-Clause
// A slash is appended to what realpath() made.
// kind: heap-buffer-overflow
// access: write 1
// object: 4096 bytes, at 4096
#include "twin.h"
#include <stdlib.h>

int main(void)
{
    char *path = malloc(4096);  // @allocated
    if (realpath(HIDE("/"), path) != path)
        return 1;
    HIDE(path)[TWIN(4096, 1)] = 0;  // @access
    free(path);
    return 0;
}
