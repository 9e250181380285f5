// SPDX-License-Identifier: BSD-2-Clause
// An allocator that keeps a size before each block: its blocks go to free() as they are.
// kind: interior-free
// object: 116 bytes, at 16
#include "twin.h"
#include <stdlib.h>

static void *counted_alloc(size_t bytes)
{
    size_t *header = malloc(bytes + 16);  // @allocated
    header[0] = bytes;
    return header + 2;
}

static void counted_free(void *block)
{
    free(HIDE((size_t *)block - 2));
}

int main(void)
{
    char *block = counted_alloc(100);
    block[99] = 1;
    if (TWIN(1, 0))
        free(HIDE(block));  // @access
    else
        counted_free(block);
    return 0;
}
