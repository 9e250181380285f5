// SPDX-License-Identifier: BSD-2-Clause
// The parent of a binary heap's root, with the comparison missing.
// kind: heap-buffer-underflow
// access: read 4
// object: 64 bytes, at -4
#include "twin.h"
#include <stdlib.h>

static void sift_up(int *heap, int at)
{
    while (at TWIN(>=, >) 0) {
        int parent = (at - 1) >> 1;
        if (HIDE(heap)[parent] <= heap[at])  // @access
            break;
        int lower = heap[at];
        heap[at] = heap[parent];
        heap[parent] = lower;
        at = parent;
    }
}

int main(void)
{
    int *heap = calloc(16, sizeof(*heap));  // @allocated
    for (int i = 0; i < 4; i++) {
        heap[i] = 100 - i;
        sift_up(heap, HIDE(i));
    }
    free(heap);
    return 0;
}
