// SPDX-License-Identifier: BSD-2-Clause
// Each alignment is kept, also by realloc() for what it promises.
// kind: none
#include "twin.h"
#include <malloc.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int main(void)
{
    for (size_t align = 8; align <= 1 << 16; align *= 2) {
        void *blocks[4];
        for (size_t i = 0; i < 4; i++) {
            if (posix_memalign(&blocks[i], align, align + i))
                return 1;
            memset(HIDE(blocks[i]), 1, align + i);
            if ((uintptr_t)blocks[i] & (align - 1))
                return 2;
        }
        for (size_t i = 0; i < 4; i++) {
            blocks[i] = realloc(blocks[i], 3 * align);
            if (((char *)blocks[i])[align - 1] != 1)
                return 3;
            free(blocks[i]);
        }
    }
    for (size_t bytes = 1; bytes < 300; bytes++) {
        void *block = malloc(bytes);
        if (bytes >= sizeof(max_align_t) && (uintptr_t)HIDE(block) % _Alignof(max_align_t))
            return 4;
        free(block);
    }
    return 0;
}
