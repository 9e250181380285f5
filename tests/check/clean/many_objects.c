// SPDX-License-Identifier: BSD-2-Clause
// A hundred thousand objects at once, freed in another order.
// kind: none
#include "twin.h"
#include <stdlib.h>

struct object {
    struct object *next;
    int number;
};

int main(void)
{
    enum { MANY = 100000 };
    struct object **all = malloc(MANY * sizeof(*all)), *list = NULL;
    for (int i = 0; i < MANY; i++) {
        all[i] = malloc(sizeof(struct object) + (size_t)i % 20);
        *all[i] = (struct object){list, i};
        list = all[i];
    }
    long sum = 0;
    for (struct object *object = list; object; object = HIDE(object)->next)
        sum += object->number;
    for (int i = 0; i < MANY; i++)
        free(all[(int)((long)i * 7919 % MANY)]);
    free(all);
    return sum != (long)MANY * (MANY - 1) / 2;
}
