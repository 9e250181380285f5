// SPDX-License-Identifier: BSD-2-Clause
// reallocarray() for as many elements as there are, not for one more.
// kind: heap-buffer-overflow
// access: write 8
// object: 32 bytes, at 32
#include "twin.h"
#include <stdlib.h>

struct list {
    void **items;
    size_t count;
};

static void list_add(struct list *list, void *item)
{
    if (list->count % 4 == 0)
        list->items =
            reallocarray(list->items, list->count + TWIN(!list->count * 4, 4),  // @allocated
                         sizeof(void *));
    list->items[list->count++] = item;  // @access
}

int main(void)
{
    struct list list = {0};
    for (int i = 0; i < 6; i++)
        list_add(HIDE(&list), &list);
    free(list.items);
    return 0;
}
