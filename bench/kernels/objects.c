// SPDX-License-Identifier: BSD-2-Clause
// objects: a million small objects of all sizes, most of them short-lived, in queues of which each
// is taken from one end and added to at the other; what a program does that is made of messages,
// events and list nodes.
#include <stdlib.h>
#include <string.h>

#include "kernel.h"

enum { QUEUES = 1 << 14, OBJECTS = 1 << 20 };

struct object {
    struct object *next;
    uint32_t bytes, tag;
    uint8_t payload[];
};

struct queue {
    struct object *first, **end;
};

// Few are large: half of them have less than 16 bytes beside their head, a 64th more than 512.
static size_t some_bytes(uint64_t *random)
{
    uint64_t bits = kernel_random(random) >> 32;
    unsigned zeros = (unsigned)__builtin_ctzll(bits | 64);
    return (bits >> 8) % (16u << zeros);
}

static struct object *object_new(uint64_t *random)
{
    size_t bytes = some_bytes(random);
    struct object *object = malloc(sizeof(*object) + bytes);

    if (!object)
        abort();
    *object = (struct object){.bytes = (uint32_t)bytes, .tag = (uint32_t)kernel_random(random)};
    memset(object->payload, (int)object->tag, bytes);
    return object;
}

static void queue_add(struct queue *queue, uint64_t *random)
{
    *queue->end = object_new(random);
    queue->end = &(*queue->end)->next;
}

static uint64_t queue_take(struct queue *queue)
{
    struct object *object = queue->first;
    uint64_t sum = object->tag;

    queue->first = object->next;
    if (!queue->first)
        queue->end = &queue->first;
    if (object->bytes > 0)
        sum = kernel_mix(sum, object->payload[object->bytes - 1] + object->bytes);
    free(object);
    return sum;
}

uint64_t kernel_run(unsigned long rounds)
{
    static struct queue queues[QUEUES];
    uint64_t random = 9, sum = 0;

    for (size_t i = 0; i < QUEUES; i++)
        queues[i].end = &queues[i].first;
    for (size_t i = 0; i < OBJECTS; i++)
        queue_add(&queues[i % QUEUES], &random);
    for (unsigned long round = 0; round < rounds; round++) {
        for (size_t i = 0; i < OBJECTS / 2; i++) {
            struct queue *from = &queues[kernel_random(&random) % QUEUES];
            if (from->first)
                sum = kernel_mix(sum, queue_take(from));
            queue_add(&queues[sum % QUEUES], &random);
        }
    }
    for (size_t i = 0; i < QUEUES; i++)
        while (queues[i].first)
            sum = kernel_mix(sum, queue_take(&queues[i]));
    return sum;
}
