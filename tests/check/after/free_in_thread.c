// SPDX-License-Identifier: BSD-2-Clause
// A thread frees, the main thread uses.
// kind: heap-use-after-free
// access: read 1
// object: 5 bytes, at 0
// build: -pthread
// only: O0
#include "twin.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static void *consumer(void *argument)
{
    free(argument);  // @freed
    return NULL;
}

int main(void)
{
    char *word = strdup("word");  // @allocated
    char first = *HIDE(word);
    pthread_t thread;
    if (pthread_create(&thread, NULL, consumer, HIDE(word)) || pthread_join(thread, NULL))
        return 1;
    if (TWIN(1, 0))
        first = *HIDE(word);  // @access
    return first != 'w' && TWIN(0, 1);
}
