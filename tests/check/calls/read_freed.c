// SPDX-License-Identifier: BSD-2-Clause
// read() into what was freed.
// kind: heap-use-after-free or syscall-buffer-overflow
// access: write
// object: 32 bytes
// stdin: some input of more than a few bytes\n
#include "twin.h"
#include <stdlib.h>
#include <unistd.h>

int main(void)
{
    char *buffer = malloc(32);  // @allocated
    if (TWIN(1, 0))
        free(HIDE(buffer));                   // @freed
    ssize_t got = read(0, HIDE(buffer), 32);  // @access
    if (TWIN(0, 1))
        free(buffer);
    return got <= 0;
}
