// SPDX-License-Identifier: BSD-2-Clause
// A child that was forked uses what was freed before.
// kind: heap-use-after-free
// access: read 4
// object: 12 bytes, at 8
// missed-by: asan
#include "twin.h"
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void)
{
    int *numbers = calloc(3, sizeof(int));  // @allocated
    if (TWIN(1, 0))
        free(HIDE(numbers));  // @freed
    pid_t child = fork();
    if (child == 0) {
        USE(HIDE(numbers)[2]);  // @access
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    if (TWIN(0, 1))
        free(numbers);
    return status ? 99 : 0;
}
