// SPDX-License-Identifier: BSD-2-Clause
// A wrapper that keeps sizes and checks before and behind its blocks.
// kind: none
#include "twin.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { GUARD = 16 };

static void *guarded_alloc(size_t bytes)
{
    char *block = malloc(bytes + 2 * GUARD);
    memcpy(block, &bytes, sizeof(bytes));
    memset(block + GUARD + bytes, 0xaa, GUARD);
    return block + GUARD;
}

static int guarded_free(void *place)
{
    char *block = (char *)HIDE(place) - GUARD;
    size_t bytes;
    memcpy(&bytes, block, sizeof(bytes));
    for (int i = 0; i < GUARD; i++)
        if ((unsigned char)block[GUARD + bytes + i] != 0xaa)
            return 1;
    free(block);
    return 0;
}

int main(void)
{
    int wrong = 0;
    for (size_t bytes = 0; bytes < 100; bytes++) {
        char *place = guarded_alloc(bytes);
        memset(HIDE(place), 1, bytes);
        wrong |= guarded_free(place);
    }
    return wrong;
}
