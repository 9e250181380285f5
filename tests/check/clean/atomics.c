// SPDX-License-Identifier: BSD-2-Clause
// Atomic operations of all widths at the ends of objects.
// kind: none
// build: -latomic
#include "twin.h"
#include <stdatomic.h>
#include <stdlib.h>

int main(void)
{
    for (size_t bytes = 8; bytes < 80; bytes += 4) {
        char *block = calloc(1, bytes);
        _Atomic unsigned char *one = (_Atomic unsigned char *)(HIDE(block) + bytes - 1);
        _Atomic unsigned short *two = (_Atomic unsigned short *)(HIDE(block) + bytes - 2);
        _Atomic int *four = (_Atomic int *)(HIDE(block) + bytes - 4);
        atomic_fetch_add(one, 3);  // by a word that holds the byte
        atomic_fetch_or(two, 1);
        atomic_fetch_add(four, 1);
        int expected = *four;
        if (!atomic_compare_exchange_strong(four, &expected, 0))
            return 1;
        free(block);
    }
    return 0;
}
