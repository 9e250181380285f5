// SPDX-License-Identifier: BSD-2-Clause
// write() that begins before the block.
// kind: syscall-buffer-overflow or heap-buffer-underflow
// access: read
// object: 64 bytes
#include "twin.h"
#include <stdlib.h>
#include <unistd.h>

int main(void)
{
    int ends[2];
    char *frame = calloc(1, 64);  // @allocated
    if (pipe(ends))
        return 1;
    char *start = HIDE(frame) + HIDE(TWIN(-2, 2));
    ssize_t sent = write(ends[1], start, 16);  // @access
    free(frame);
    return sent != 16;
}
