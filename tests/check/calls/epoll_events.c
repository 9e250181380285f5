// SPDX-License-Identifier: BSD-2-Clause
// epoll_wait() with more events than the array has.
// kind: syscall-buffer-overflow or heap-buffer-overflow
// access: write
// missed-by: asan memcheck
#include "twin.h"
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

int main(void)
{
    int poll = epoll_create1(0);
    struct epoll_event wanted = {.events = EPOLLOUT};
    for (int i = 0; i < 4; i++) {
        int ends[2];
        if (pipe(ends) || epoll_ctl(poll, EPOLL_CTL_ADD, ends[1], &wanted))
            return 1;
    }
    struct epoll_event *events = calloc(2, sizeof(*events));             // @allocated
    int ready = epoll_wait(poll, HIDE(events), HIDE(TWIN(8, 2)), 1000);  // @access
    free(events);
    return ready < 2;
}
