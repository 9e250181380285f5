// SPDX-License-Identifier: BSD-2-Clause
// chase: lists whose nodes lie anywhere in memory that fits the first, the second or the third
// level of caches; walked and reversed. Each load's address is what the last one brought.
#include "kernel.h"

enum { SMALL = 256, MIDDLE = 8 << 10, LARGE = 256 << 10 };
enum { STEPS = 1 << 18 };

// As large as a line of the cache.
struct node {
    struct node *next;
    uint64_t value, unused[6];
};

// Links nodes in one random ring (Sattolo's shuffle), in `order`.
static void link_ring(struct node *nodes, uint32_t *order, size_t count, uint64_t *random)
{
    for (size_t i = 0; i < count; i++)
        order[i] = (uint32_t)i;
    for (size_t i = count - 1; i > 0; i--) {
        size_t other = kernel_random(random) % i;
        uint32_t was = order[i];
        order[i] = order[other];
        order[other] = was;
    }
    for (size_t i = 0; i < count; i++) {
        nodes[order[i]].next = &nodes[order[(i + 1) % count]];
        nodes[order[i]].value = kernel_random(random);
    }
}

static uint64_t walk(const struct node *node, size_t steps)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < steps; i++) {
        sum += node->value ^ i;
        node = node->next;
    }
    return sum;
}

// Turns a ring round.
static void reverse(struct node *first)
{
    struct node *before = first, *node = first->next;

    while (node != first) {
        struct node *next = node->next;
        node->next = before;
        before = node;
        node = next;
    }
    first->next = before;
}

uint64_t kernel_run(unsigned long rounds)
{
    static struct node small[SMALL], middle[MIDDLE], large[LARGE];
    static uint32_t order[LARGE];
    uint64_t random = 7, sum = 0;

    link_ring(small, order, SMALL, &random);
    link_ring(middle, order, MIDDLE, &random);
    link_ring(large, order, LARGE, &random);
    for (unsigned long round = 0; round < rounds; round++) {
        sum = kernel_mix(sum, walk(small, 16 * STEPS));
        sum = kernel_mix(sum, walk(middle, 4 * STEPS));
        sum = kernel_mix(sum, walk(large, STEPS));
        for (size_t i = 0; i < 64; i++)
            reverse(&small[i]);
        reverse(middle);
    }
    return sum;
}
