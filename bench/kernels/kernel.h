// SPDX-License-Identifier: BSD-2-Clause
// What the kernels of BENCH=native have in common. A kernel is one file that defines kernel_run();
// main.c makes a program of it. The checksum depends on all that was computed, so that no compiler
// can leave a part out, and on nothing else, so that it is the same on all machines.
#ifndef KERNEL_H
#define KERNEL_H

#include <stddef.h>
#include <stdint.h>

// Does its work `rounds` times; each round takes tens of milliseconds on a machine of the 2020s.
// Returns a checksum.
uint64_t kernel_run(unsigned long rounds);

// The next of a sequence of random numbers (xorshift64*); `*state` is not 0.
static inline uint64_t kernel_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1du;
}

// The checksum `sum`, with `value` in it.
static inline uint64_t kernel_mix(uint64_t sum, uint64_t value)
{
    sum = (sum ^ value) * 0x9e3779b97f4a7c15u;
    return sum ^ sum >> 29;
}

#endif
