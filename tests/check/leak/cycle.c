// SPDX-License-Identifier: BSD-2-Clause
// Two objects that point to each other, and nobody else to them.
// kind: leak-definite
// object: 32 bytes
// missed-by: asan
#include "twin.h"
#include <stdlib.h>

struct peer {
    struct peer *other;
    long data[3];
};

__attribute__((noinline)) static void make(void)
{
    struct peer *first = calloc(1, sizeof(*first));    // @allocated
    struct peer *second = calloc(1, sizeof(*second));  // @allocated
    first->other = HIDE(second);
    second->other = HIDE(first);
    if (TWIN(0, 1)) {
        free(first);
        free(second);
    }
}

__attribute__((noinline)) static int deep(int depth)
{
    volatile long zeros[64] = {0};
    return depth ? deep(depth - 1) + (int)zeros[3] : 0;
}

int main(void)
{
    make();
    return deep(HIDE(30));
}
