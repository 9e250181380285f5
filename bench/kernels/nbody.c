// SPDX-License-Identifier: BSD-2-Clause
// nbody: bodies that attract each other, by leapfrog steps. Doubles all the way: additions,
// multiplications, a square root and a division for each pair, each waiting for the last.
#include <math.h>
#include <string.h>

#include "kernel.h"

enum { BODIES = 8, STEPS = 10000 };

struct body {
    double position[3], velocity[3], mass;
};

static void place(struct body *bodies)
{
    uint64_t random = 5;

    for (int i = 0; i < BODIES; i++) {
        for (int axis = 0; axis < 3; axis++) {
            bodies[i].position[axis] = (double)(kernel_random(&random) >> 40) / (1 << 20) + 20 * i;
            bodies[i].velocity[axis] = (double)(kernel_random(&random) >> 40) / (1 << 26) - 0.125;
        }
        bodies[i].mass = 1 + (double)(kernel_random(&random) >> 40) / (1 << 22);
    }
}

// What the pull between two changes of their velocities. Close by it is softened: none escapes.
static void attract(struct body *a, struct body *b, double seconds)
{
    double between[3], square = 0.01;

    for (int axis = 0; axis < 3; axis++) {
        between[axis] = a->position[axis] - b->position[axis];
        square += between[axis] * between[axis];
    }
    double pull = seconds / (square * sqrt(square));
    for (int axis = 0; axis < 3; axis++) {
        a->velocity[axis] -= between[axis] * b->mass * pull;
        b->velocity[axis] += between[axis] * a->mass * pull;
    }
}

static void step(struct body *bodies, double seconds)
{
    for (int i = 0; i < BODIES; i++) {
        for (int j = i + 1; j < BODIES; j++)
            attract(&bodies[i], &bodies[j], seconds);
    }
    for (int i = 0; i < BODIES; i++) {
        for (int axis = 0; axis < 3; axis++)
            bodies[i].position[axis] += seconds * bodies[i].velocity[axis];
    }
}

static double energy(const struct body *bodies)
{
    double sum = 0;

    for (int i = 0; i < BODIES; i++) {
        for (int axis = 0; axis < 3; axis++)
            sum += bodies[i].mass * bodies[i].velocity[axis] * bodies[i].velocity[axis] / 2;
    }
    return sum;
}

uint64_t kernel_run(unsigned long rounds)
{
    struct body bodies[BODIES];
    uint64_t sum = 0;

    place(bodies);
    for (unsigned long round = 0; round < rounds; round++) {
        for (int i = 0; i < STEPS; i++)
            step(bodies, 0.001);
        double value = energy(bodies);
        uint64_t bits;
        memcpy(&bits, &value, sizeof(bits));
        sum = kernel_mix(sum, bits);
    }
    return sum;
}
