// SPDX-License-Identifier: BSD-2-Clause
// Two threads each free the same buffer, one after the other.
// kind: double-free
// object: 128 bytes, at 0
// build: -pthread
#include "twin.h"
#include <pthread.h>
#include <stdlib.h>

static void *work(void *argument)
{
    free(HIDE(argument));  // @freed @access
    return NULL;
}

int main(void)
{
    void *buffer = malloc(128);  // @allocated
    for (int i = 0; i < TWIN(2, 1); i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, work, buffer) || pthread_join(thread, NULL))
            return 1;
    }
    return 0;
}
