// SPDX-License-Identifier: BSD-2-Clause
// A local variable of a thread that has ended; the C library keeps its stack for the next.
// kind: leak-definite
// object: 77 bytes
// build: -pthread
#include "twin.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static void *work(void *name)
{
    char *copy = malloc(77);  // @allocated
    strcpy(copy, name);
    int length = (int)strlen(HIDE(copy));
    if (TWIN(0, 1))
        free(copy);
    return length == 4 ? NULL : name;
}

int main(void)
{
    pthread_t thread;
    void *said;
    return pthread_create(&thread, NULL, work, "left") || pthread_join(thread, &said) || said;
}
