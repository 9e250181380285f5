// SPDX-License-Identifier: BSD-2-Clause
// A handler looks at a buffer that the program has freed since.
// kind: heap-use-after-free
// access: write 1
// object: 80 bytes, at 0
#include "twin.h"
#include <signal.h>
#include <stdlib.h>

static char *volatile log_buffer;

static void on_signal(int number)
{
    char *buffer = log_buffer;
    if (buffer)
        HIDE(buffer)[0] = (char)number;  // @access
}

int main(void)
{
    log_buffer = malloc(80);  // @allocated
    signal(SIGUSR1, on_signal);
    raise(SIGUSR1 + TWIN(0, 0));
    free(log_buffer);  // @freed
    if (TWIN(0, 1))
        log_buffer = NULL;
    raise(SIGUSR1);
    return 0;
}
