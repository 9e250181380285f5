// SPDX-License-Identifier: BSD-2-Clause
// read() of more than the buffer has.
// kind: syscall-buffer-overflow
// access: write
// object: 16 bytes
#include "twin.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(void)
{
    int ends[2];
    char sent[64] = "sixty-four bytes";
    char *buffer = malloc(16);  // @allocated
    if (pipe(ends) || write(ends[1], sent, sizeof(sent)) != sizeof(sent))
        return 1;
    ssize_t got = read(ends[0], HIDE(buffer), HIDE((size_t)TWIN(64, 16)));  // @access
    free(buffer);
    return got < 16;
}
