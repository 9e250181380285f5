// SPDX-License-Identifier: BSD-2-Clause
// A graph is freed from each node on, though two lead to the same.
// kind: double-free
// object: 24 bytes, at 0
#include "twin.h"
#include <stdlib.h>

struct vertex {
    struct vertex *edges[2];
    int marked;
};

static void vertex_free(struct vertex *vertex)
{
    free(HIDE(vertex));  // @freed @access
}

int main(void)
{
    struct vertex *bottom = calloc(1, sizeof(*bottom));  // @allocated
    struct vertex *left = calloc(1, sizeof(*left));
    struct vertex *right = calloc(1, sizeof(*right));
    left->edges[0] = bottom;
    right->edges[0] = TWIN(bottom, NULL);
    struct vertex *tops[] = {left, right};
    for (int i = 0; i < HIDE(2); i++) {
        if (tops[i]->edges[0])
            vertex_free(tops[i]->edges[0]);
        vertex_free(tops[i]);
    }
    return 0;
}
