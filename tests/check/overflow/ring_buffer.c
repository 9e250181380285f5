// SPDX-License-Identifier: BSD-2-Clause
// A ring whose index wraps one too late.
// kind: heap-buffer-overflow
// access: write 2
// object: 32 bytes, at 32
#include "twin.h"
#include <stdlib.h>

struct ring {
    unsigned short *slots;
    unsigned capacity, head;
};

static void ring_put(struct ring *ring, unsigned short value)
{
    HIDE(ring)->slots[ring->head] = value;  // @access
    if (++ring->head TWIN(>, >=) ring->capacity)
        ring->head = 0;
}

int main(void)
{
    struct ring ring = {.capacity = 16};
    ring.slots = malloc(ring.capacity * sizeof(*ring.slots));  // @allocated
    for (unsigned short i = 0; i < 100; i++)
        ring_put(&ring, i);
    free(ring.slots);
    return 0;
}
