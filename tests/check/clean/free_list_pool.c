// SPDX-License-Identifier: BSD-2-Clause
// A pool that keeps its free list within the free elements, in a static array.
// kind: none
#include "twin.h"
#include <stddef.h>

union element {
    union element *next;
    char bytes[24];
};

static union element pool[100], *free_list;

static void *pool_get(void)
{
    union element *element = free_list;
    if (element)
        free_list = element->next;
    return element;
}

static void pool_put(void *block)
{
    union element *element = block;
    element->next = free_list;
    free_list = element;
}

int main(void)
{
    for (int i = 0; i < 100; i++)
        pool_put(&pool[i]);
    void *taken[100];
    for (int round = 0; round < HIDE(10); round++) {
        for (int i = 0; i < 100; i++)
            if (!(taken[i] = pool_get()))
                return 1;
        for (int i = 0; i < 100; i++)
            pool_put(HIDE(taken[i * 37 % 100]));
    }
    return 0;
}
