// SPDX-License-Identifier: BSD-2-Clause
// recvmsg() whose second element is longer than its block.
// kind: syscall-buffer-overflow
// access: write
// object: 100 bytes
#include "twin.h"
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>

int main(void)
{
    int ends[2];
    char sent[200] = {0};
    char *header = malloc(8);
    char *body = malloc(100);  // @allocated
    struct iovec parts[] = {{header, 8}, {body, HIDE((size_t)TWIN(200, 100))}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) || send(ends[1], sent, sizeof(sent), 0) != 200)
        return 1;
    ssize_t got = recvmsg(ends[0], &message, 0);  // @access
    free(header);
    free(body);
    return got < 108;
}
