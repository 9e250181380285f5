// SPDX-License-Identifier: BSD-2-Clause
// One thread frees what another still reads.
// kind: heap-use-after-free
// access: read 4
// object: 64 bytes, at 20
// build: -pthread
#include "twin.h"
#include <pthread.h>
#include <stdlib.h>

static pthread_barrier_t barrier;

static void *reader(void *argument)
{
    int *numbers = argument;
    pthread_barrier_wait(&barrier);
    USE(HIDE(numbers)[5]);  // @access
    return NULL;
}

int main(void)
{
    int *numbers = calloc(16, sizeof(int));  // @allocated
    pthread_t thread;
    pthread_barrier_init(&barrier, NULL, 2);
    if (pthread_create(&thread, NULL, reader, numbers))
        return 1;
    if (TWIN(1, 0))
        free(numbers);  // @freed
    pthread_barrier_wait(&barrier);
    pthread_join(thread, NULL);
    if (TWIN(0, 1))
        free(numbers);
    return 0;
}
