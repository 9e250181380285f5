// SPDX-License-Identifier: BSD-2-Clause
// A base structure was allocated and is used as the derived one.
// kind: heap-buffer-overflow
// access: write 4
// object: 16 bytes, at 16
#include "twin.h"
#include <stdlib.h>

struct shape {
    long kind;
    long color;
};

struct circle {
    struct shape shape;
    float radius;
};

static void set_radius(struct shape *shape, float radius)
{
    struct circle *circle = (struct circle *)shape;
    if (shape->kind == 1)
        circle->radius = radius;  // @access
}

int main(void)
{
    struct shape *shape = malloc(sizeof(TWIN(struct shape, struct circle)));  // @allocated
    shape->kind = 1;
    set_radius(HIDE(shape), 2.5f);
    free(shape);
    return 0;
}
