// SPDX-License-Identifier: BSD-2-Clause
// A structure that ends in an array, allocated for one element less.
// kind: heap-buffer-overflow
// access: write 4
// object: 40 bytes, at 40
#include "twin.h"
#include <stdint.h>
#include <stdlib.h>

struct polygon {
    uint64_t count;
    uint32_t points[];
};

static struct polygon *polygon_make(unsigned count)
{
    struct polygon *polygon =
        malloc(sizeof(*polygon) + (count - TWIN(1, 0)) * sizeof(uint32_t));  // @allocated
    polygon->count = count;
    for (unsigned i = 0; i < count; i++)
        HIDE(polygon)->points[i] = i;  // @access
    return polygon;
}

int main(void)
{
    struct polygon *polygon = polygon_make(HIDE(9u));
    free(polygon);
    return 0;
}
