// SPDX-License-Identifier: BSD-2-Clause
// A thread ends without freeing what its variables held.
// kind: leak-definite
// object: 333 bytes
// build: -pthread
#include "twin.h"
#include <pthread.h>
#include <stdlib.h>

static _Thread_local char *own;

static void *work(void *unused)
{
    own = malloc(333);  // @allocated
    HIDE(own)[0] = 1;
    if (TWIN(0, 1))
        free(HIDE(own));
    own = NULL;
    return NULL;
}

int main(void)
{
    pthread_t thread;
    return pthread_create(&thread, NULL, work, NULL) || pthread_join(thread, NULL);
}
