// SPDX-License-Identifier: BSD-2-Clause
// strncpy() with the size of the source.
// kind: heap-buffer-overflow
// access: write
// object: 16 bytes
// only: O0
#include "twin.h"
#include <stdlib.h>
#include <string.h>

int main(void)
{
    char source[64] = "short";
    char *to = malloc(16);                                      // @allocated
    strncpy(to, HIDE(source + 0), HIDE((size_t)TWIN(64, 16)));  // @access
    free(to);
    return 0;
}
