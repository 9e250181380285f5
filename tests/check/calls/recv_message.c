// SPDX-License-Identifier: BSD-2-Clause
// recv() of a message with the size of another buffer.
// kind: syscall-buffer-overflow
// access: write
// object: 24 bytes
#include "twin.h"
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int main(void)
{
    int ends[2];
    char large[512] = {1};
    char *small = malloc(24);  // @allocated
    if (socketpair(AF_UNIX, SOCK_DGRAM, 0, ends) || send(ends[1], large, sizeof(large), 0) < 0)
        return 1;
    ssize_t got = recv(ends[0], HIDE(small), HIDE(TWIN(sizeof(large), (size_t)24)), 0);  // @access
    free(small);
    return got < 24;
}
