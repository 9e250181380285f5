// SPDX-License-Identifier: BSD-2-Clause
// memcpy() that reads behind its source.
// kind: heap-buffer-overflow
// access: read
// object: 33 bytes
#include "twin.h"
#include <stdlib.h>
#include <string.h>

int main(void)
{
    char to[256];
    char *source = calloc(33, 1);                          // @allocated
    memcpy(to, HIDE(source), HIDE((size_t)TWIN(40, 33)));  // @access
    USE(to[0]);
    free(source);
    return 0;
}
