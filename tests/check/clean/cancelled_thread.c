// SPDX-License-Identifier: BSD-2-Clause
// A thread is cancelled while it waits; its cleanup frees.
// kind: none
// build: -pthread
#include "twin.h"
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

static void *work(void *unused)
{
    char *block = malloc(1000);
    pthread_cleanup_push(free, block);
    for (;;) {
        HIDE(block)[999] = 1;
        usleep(1000);
    }
    pthread_cleanup_pop(1);
    return NULL;
}

int main(void)
{
    pthread_t thread;
    void *result;
    if (pthread_create(&thread, NULL, work, NULL))
        return 1;
    usleep(10000);
    pthread_cancel(thread);
    pthread_join(thread, &result);
    return result != PTHREAD_CANCELED;
}
