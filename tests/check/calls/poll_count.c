// SPDX-License-Identifier: BSD-2-Clause
// poll() with one descriptor too many.
// kind: syscall-buffer-overflow or heap-buffer-overflow
// object: 16 bytes
#include "twin.h"
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

int main(void)
{
    int ends[2];
    if (pipe(ends))
        return 1;
    struct pollfd *waiting = calloc(2, sizeof(*waiting));  // @allocated
    waiting[0] = (struct pollfd){ends[0], POLLIN, 0};
    waiting[1] = (struct pollfd){ends[1], POLLOUT, 0};
    int ready = poll(HIDE(waiting), HIDE((nfds_t)TWIN(3, 2)), 100);  // @access
    free(waiting);
    return ready < 1;
}
