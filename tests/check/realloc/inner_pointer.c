// SPDX-License-Identifier: BSD-2-Clause
// A pointer into a growing array of structures is kept while the array grows.
// kind: use-after-realloc
// access: write 4
#include "twin.h"
#include <stdlib.h>

struct item {
    int value;
    int links[7];
};

struct items {
    struct item *all;
    size_t count;
};

static size_t add(struct items *items)
{
    items->all =
        realloc(items->all, (items->count + 1) * sizeof(*items->all));  // @allocated @freed
    items->all[items->count] = (struct item){0};
    return items->count++;
}

int main(void)
{
    struct items items = {0};
    struct item *first = &items.all[add(&items) * 0];
    first = items.all;
    for (int i = 0; i < 40; i++)
        add(&items);
    if (TWIN(0, 1))
        first = items.all;
    HIDE(first)->value = 1;  // @access
    free(items.all);
    return 0;
}
