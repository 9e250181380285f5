// SPDX-License-Identifier: BSD-2-Clause
// Threads allocate what others free, and end in all the ways there are.
// kind: none
// build: -pthread
#include "twin.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 8, BLOCKS = 200 };

static void *shelf[THREADS][BLOCKS];

static void *work(void *argument)
{
    size_t self = (size_t)argument;
    for (size_t i = 0; i < BLOCKS; i++) {
        size_t bytes = 1 + (self * 31 + i * 7) % 500;
        shelf[self][i] = malloc(bytes);
        memset(HIDE(shelf[self][i]), (int)self, bytes);
    }
    if (self % 2)
        pthread_exit(shelf[self]);
    return shelf[self];
}

static void *sweep(void *argument)
{
    void **blocks = argument;
    for (size_t i = 0; i < BLOCKS; i++)
        free(HIDE(blocks[i]));
    return NULL;
}

int main(void)
{
    pthread_t makers[THREADS], sweepers[THREADS];
    for (size_t i = 0; i < THREADS; i++)
        if (pthread_create(&makers[i], NULL, work, (void *)i))
            return 1;
    for (size_t i = 0; i < THREADS; i++) {
        void *blocks;
        pthread_join(makers[i], &blocks);
        if (pthread_create(&sweepers[i], NULL, sweep, blocks))
            return 1;
    }
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(sweepers[i], NULL);
    return 0;
}
