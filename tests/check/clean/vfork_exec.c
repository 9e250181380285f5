// SPDX-License-Identifier: BSD-2-Clause
// vfork() and posix_spawn(): the child runs on its parent's stack.
// kind: none
#include "twin.h"
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void)
{
    int status;
    pid_t child = vfork();
    if (child == 0)
        _exit(3);
    if (waitpid(child, &status, 0) != child || WEXITSTATUS(status) != 3)
        return 1;
    char *arguments[] = {"/bin/true", NULL}, *environment[] = {NULL};
    if (posix_spawn(&child, arguments[0], NULL, NULL, arguments, environment) == 0)
        waitpid(child, &status, 0);
    char *after = malloc(10);
    HIDE(after)[9] = 1;
    free(after);
    return 0;
}
