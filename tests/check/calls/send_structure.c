// SPDX-License-Identifier: BSD-2-Clause
// A packet is sent with the size of the structure that it is a part of.
// kind: syscall-buffer-overflow
// access: read
// object: 20 bytes
#include "twin.h"
#include <stdlib.h>
#include <sys/socket.h>

int main(void)
{
    int ends[2];
    char *packet = calloc(1, 20);  // @allocated
    if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends))
        return 1;
    ssize_t sent = send(ends[0], HIDE(packet), HIDE((size_t)TWIN(60, 20)), 0);  // @access
    free(packet);
    return sent < 20;
}
