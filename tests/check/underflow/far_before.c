// SPDX-License-Identifier: BSD-2-Clause
// Sixty-four bytes before a block, as the header of another allocator.
// kind: heap-buffer-underflow
// access: read 8
// object: 256 bytes, at -64
// missed-by: memcheck asan
#include "twin.h"
#include <stddef.h>
#include <stdlib.h>

struct header {
    size_t bytes;
    char reserved[56];
};

static void *give(size_t bytes)
{
    struct header *header = malloc(sizeof(*header) + bytes);
    header->bytes = bytes;
    return header + 1;
}

static size_t size_of(void *block)
{
    return HIDE((struct header *)block - 1)->bytes;  // @access
}

int main(void)
{
    void *given = give(192);
    void *plain = TWIN(malloc(256), give(256));  // @allocated
    size_t bytes = size_of(HIDE(plain));
    USE(bytes);  // @access
    free((struct header *)given - 1);
    free(TWIN(plain, (struct header *)plain - 1));
    return 0;
}
