// SPDX-License-Identifier: BSD-2-Clause
// Threads have ended and left what others are still to have: a result that nobody has joined for,
// and a pointer in the mapping that one of the program's own stacks was in.
// kind: none
// build: -pthread
// missed-by: asan memcheck
#include "twin.h"
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define STACK_BYTES 262144

static void *make(void *unused)
{
    (void)unused;
    return malloc(50);
}

int main(void)
{
    pthread_t joined, left;
    pthread_attr_t attributes;
    void *result;
    char *stack = mmap(NULL, 2 * STACK_BYTES, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);

    if (stack == MAP_FAILED || pthread_attr_init(&attributes) ||
        pthread_attr_setstack(&attributes, stack, STACK_BYTES) ||
        pthread_create(&joined, &attributes, make, NULL) || pthread_join(joined, &result))
        return 1;
    free(result);
    ((char **)(stack + 2 * STACK_BYTES))[-1] = malloc(60);
    if (pthread_create(&left, NULL, make, NULL))
        return 1;
    usleep(100000);
    return 0;
}
