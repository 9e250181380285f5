// SPDX-License-Identifier: BSD-2-Clause
// Threads one after the other: their stacks are used again.
// kind: none
// build: -pthread
#include "twin.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static pthread_key_t key;
static int destroyed;

static void destroy(void *block)
{
    free(block);
    destroyed++;
}

static void *work(void *argument)
{
    char local[8192];
    memset(HIDE(&local[0]), 1, sizeof(local));
    pthread_setspecific(key, malloc(64));
    return HIDE(argument);
}

int main(void)
{
    pthread_key_create(&key, destroy);
    for (int i = 0; i < 100; i++) {
        pthread_t thread;
        pthread_attr_t attributes;
        pthread_attr_init(&attributes);
        pthread_attr_setstacksize(&attributes, 65536u << i % 3);
        if (pthread_create(&thread, &attributes, work, NULL) || pthread_join(thread, NULL))
            return 1;
        pthread_attr_destroy(&attributes);
    }
    pthread_key_delete(key);
    return destroyed != 100;
}
