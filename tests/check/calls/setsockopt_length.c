// SPDX-License-Identifier: BSD-2-Clause
// An option of a socket, longer than the block that holds it.
// kind: syscall-buffer-overflow or heap-buffer-overflow
// access: read
// object: 2 bytes
// missed-by: asan
#include "twin.h"
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int main(void)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends))
        return 1;
    int *on = malloc(TWIN(sizeof(short), sizeof(int)));  // @allocated
    *(short *)HIDE(on) = 1;
    int failed = setsockopt(ends[0], SOL_SOCKET, SO_KEEPALIVE, HIDE(on), sizeof(int));  // @access
    USE(failed);
    free(on);
    return 0;
}
