// SPDX-License-Identifier: BSD-2-Clause
// Atomic bytes at the ends of objects of odd sizes: done by the whole word that holds them.
// kind: none
// build: -latomic
#include "twin.h"
#include <stdatomic.h>
#include <stdlib.h>

int main(void)
{
    for (size_t bytes = 1; bytes < 40; bytes++) {
        unsigned char *block = calloc(1, bytes);
        _Atomic unsigned char *last = (_Atomic unsigned char *)(HIDE(block) + bytes - 1);
        unsigned char expected = 3;
        atomic_fetch_add(last, 3);
        if (!atomic_compare_exchange_strong(last, &expected, 250) ||
            atomic_exchange(last, 1) != 250)
            return 1;
        if (bytes > 1)
            HIDE(block)[0] = 9;
        free(block);
    }
    return 0;
}
