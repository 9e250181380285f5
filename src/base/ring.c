// SPDX-License-Identifier: BSD-2-Clause
// Byte ring. head and tail count bytes for ever; unsigned wrap-around keeps their difference right.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

int ring_init(struct ring *ring, size_t capacity)
{
    size_t rounded = 16;
    while (rounded < capacity) {
        if (rounded > SIZE_MAX / 2)
            return -ENOMEM;
        rounded *= 2;
    }
    *ring = (struct ring){.bytes = malloc(rounded), .capacity = rounded};
    return ring->bytes ? 0 : -ENOMEM;
}

void ring_fini(struct ring *ring)
{
    free(ring->bytes);
    *ring = (struct ring){0};
}

size_t ring_used(const struct ring *ring)
{
    return ring->head - ring->tail;
}

size_t ring_space(const struct ring *ring)
{
    return ring->capacity - ring_used(ring);
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

size_t ring_put(struct ring *ring, const void *bytes, size_t count)
{
    count = smaller(count, ring_space(ring));
    size_t at = ring->head & (ring->capacity - 1);
    size_t first = smaller(count, ring->capacity - at);
    if (count > 0) {
        memcpy(ring->bytes + at, bytes, first);
        memcpy(ring->bytes, (const uint8_t *)bytes + first, count - first);
    }
    ring->head += count;
    return count;
}

size_t ring_take(struct ring *ring, void *bytes, size_t count)
{
    size_t taken = 0;
    while (taken < count && ring_used(ring) > 0) {
        const uint8_t *run;
        size_t part = smaller(ring_peek(ring, &run), count - taken);
        memcpy((uint8_t *)bytes + taken, run, part);
        ring_drop(ring, part);
        taken += part;
    }
    return taken;
}

size_t ring_peek(const struct ring *ring, const uint8_t **bytes)
{
    size_t at = ring->tail & (ring->capacity - 1);
    *bytes = ring->bytes + at;
    return smaller(ring_used(ring), ring->capacity - at);
}

void ring_drop(struct ring *ring, size_t count)
{
    ring->tail += smaller(count, ring_used(ring));
}

void ring_clear(struct ring *ring)
{
    ring->tail = ring->head;
}
