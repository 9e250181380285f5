// SPDX-License-Identifier: BSD-2-Clause
// Another thread than the one that allocated goes too far.
// kind: heap-buffer-overflow
// access: write 4
// object: 400 bytes, at 400
// build: -pthread
#include "twin.h"
#include <pthread.h>
#include <stdlib.h>

static void *work(void *argument)
{
    int *shared = argument;
    for (int i = 0; i < 100 + TWIN(1, 0); i++)
        HIDE(shared)[i] = i;  // @access
    return NULL;
}

int main(void)
{
    int *shared = malloc(100 * sizeof(int));  // @allocated
    pthread_t thread;
    if (pthread_create(&thread, NULL, work, shared) || pthread_join(thread, NULL))
        return 1;
    free(shared);
    return 0;
}
