// SPDX-License-Identifier: BSD-2-Clause
// A thread's stack is a block of the heap.
// kind: none
// build: -pthread
#include "twin.h"
#include <pthread.h>
#include <stdlib.h>

static void *work(void *argument)
{
    volatile int local[500] = {0};
    local[HIDE(499)] = *(int *)argument;
    return local[499] == 5 ? argument : NULL;
}

int main(void)
{
    void *stack = NULL, *result = NULL;
    int value = 5;
    pthread_t thread;
    pthread_attr_t attributes;
    if (posix_memalign(&stack, 4096, 131072))
        return 1;
    pthread_attr_init(&attributes);
    pthread_attr_setstack(&attributes, stack, 131072);
    if (pthread_create(&thread, &attributes, work, &value))
        return 1;
    pthread_join(thread, &result);
    pthread_attr_destroy(&attributes);
    free(stack);
    return result != &value;
}
