// SPDX-License-Identifier: BSD-2-Clause
// How large a freed block is.
// kind: heap-use-after-free
// access: read
// object: 24 bytes, at 0
// missed-by: asan memcheck
#include "twin.h"
#include <malloc.h>
#include <stdlib.h>

int main(void)
{
    void *block = malloc(24);  // @allocated
    void *empty = malloc(0);
    size_t bytes = malloc_usable_size(HIDE(empty));
    free(empty);
    TWIN(free(block), (void)0);                // @freed
    bytes += malloc_usable_size(HIDE(block));  // @access
    TWIN((void)0, free(block));
    return bytes < 24;
}
