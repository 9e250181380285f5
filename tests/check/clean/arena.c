// SPDX-License-Identifier: BSD-2-Clause
// An allocator of one's own in a single block.
// kind: none
#include "twin.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct arena {
    char *base;
    size_t used, bytes;
};

static void *arena_alloc(struct arena *arena, size_t bytes, size_t align)
{
    uintptr_t at = (uintptr_t)arena->base + arena->used;
    size_t skip = -at & (align - 1);
    if (skip + bytes > arena->bytes - arena->used)
        return NULL;
    arena->used += skip + bytes;
    return (void *)(at + skip);
}

int main(void)
{
    struct arena arena = {malloc(5000), 0, 5000};
    size_t count = 0;
    char *block, *previous = NULL;
    while ((block = arena_alloc(&arena, 1 + count % 50, 1u << count % 5))) {
        memset(HIDE(block), (int)count, 1 + count % 50);
        if (previous && HIDE(block)[-1] == 99)  // another object of the arena: its own business
            count++;
        previous = block;
        count++;
    }
    free(arena.base);
    return count < 100;
}
