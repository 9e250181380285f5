// SPDX-License-Identifier: BSD-2-Clause
// stream: copies, sums and multiples of arrays that are too large for caches. What counts is how
// fast memory is reached in order.
#include "kernel.h"

enum { WORDS = 4 << 20 };

static uint64_t a[WORDS], b[WORDS], c[WORDS];

static void copy(uint64_t *restrict to, const uint64_t *restrict from)
{
    for (size_t i = 0; i < WORDS; i++)
        to[i] = from[i];
}

static void add(uint64_t *restrict to, const uint64_t *restrict one, const uint64_t *restrict two)
{
    for (size_t i = 0; i < WORDS; i++)
        to[i] = one[i] + two[i];
}

static void triad(uint64_t *restrict to, const uint64_t *restrict one, const uint64_t *restrict two)
{
    for (size_t i = 0; i < WORDS; i++)
        to[i] = one[i] + 3 * two[i];
}

static uint64_t reduce(const uint64_t *words)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < WORDS; i++)
        sum += words[i];
    return sum;
}

uint64_t kernel_run(unsigned long rounds)
{
    uint64_t random = 6, sum = 0;

    for (size_t i = 0; i < WORDS; i++)
        a[i] = kernel_random(&random);
    for (unsigned long round = 0; round < rounds; round++) {
        copy(b, a);
        add(c, a, b);
        triad(a, b, c);
        sum = kernel_mix(sum, reduce(c));
    }
    return sum;
}
