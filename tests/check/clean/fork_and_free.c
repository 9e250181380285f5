// SPDX-License-Identifier: BSD-2-Clause
// Parent and child each free what was allocated before the fork; handlers run around it.
// kind: none
// build: -pthread
#include "twin.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int before, in_parent, in_child;

static void on_before(void)
{
    before++;
    free(malloc(10));
}

static void on_parent(void)
{
    in_parent++;
}

static void on_child(void)
{
    in_child++;
    free(malloc(10));
}

int main(void)
{
    char *block = malloc(100);
    memset(block, 1, 100);
    pthread_atfork(on_before, on_parent, on_child);
    for (int i = 0; i < 3; i++) {
        pid_t child = fork();
        if (child == 0) {
            HIDE(block)[99] = 2;
            free(block);
            char *own = malloc(5000);
            memset(HIDE(own), 3, 5000);
            free(own);
            exit(in_child != 1);
        }
        int status;
        if (waitpid(child, &status, 0) != child || status)
            return 1;
    }
    int wrong = HIDE(block)[99] != 1 || before != 3 || in_parent != 3 || in_child;
    free(block);
    return wrong;
}
