// SPDX-License-Identifier: BSD-2-Clause
// memcmp() of two blocks by the length of the longer one.
// kind: heap-buffer-overflow
// access: read
// object: 5 bytes
#include "twin.h"
#include <stdlib.h>
#include <string.h>

int main(void)
{
    char *shorter = calloc(5, 1);  // @allocated
    char *longer = calloc(50, 1);
    size_t bytes = HIDE((size_t)TWIN(50, 5));
    int order = memcmp(HIDE(shorter), HIDE(longer), bytes);  // @access
    free(shorter);
    free(longer);
    return order;
}
