// SPDX-License-Identifier: BSD-2-Clause
// A message that is longer than the buffer on the stack, through a system call.
// kind: return-address-overwritten or stack-buffer-overflow or syscall-buffer-overflow
// only: O0
// missed-by: memcheck
#include "twin.h"
#include <string.h>
#include <sys/socket.h>

__attribute__((noinline)) static void receive(int from)
{
    char buffer[24];
    ssize_t got = recv(from, HIDE(&buffer[0]), HIDE((size_t)TWIN(128, 24)), 0);  // @access
    USE(got);
}  // @access

int main(void)
{
    int ends[2];
    char sent[128];
    memset(sent, 'B', sizeof(sent));
    if (socketpair(AF_UNIX, SOCK_DGRAM, 0, ends) || send(ends[1], sent, sizeof(sent), 0) < 0)
        return 1;
    receive(ends[0]);
    return 0;
}
