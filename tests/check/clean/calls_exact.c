// SPDX-License-Identifier: BSD-2-Clause
// System calls with buffers of exactly the bytes that they are told.
// kind: none
#include "twin.h"
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

int main(void)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends))
        return 1;
    for (size_t bytes = 1; bytes < 70; bytes++) {
        char *sent = malloc(bytes), *got = malloc(bytes);
        memset(sent, (int)bytes, bytes);
        struct iovec out[] = {{sent, bytes / 2}, {sent + bytes / 2, bytes - bytes / 2}};
        if (writev(ends[0], out, 2) != (ssize_t)bytes ||
            recv(ends[1], HIDE(got), bytes, MSG_WAITALL) != (ssize_t)bytes ||
            memcmp(sent, got, bytes))
            return 2;
        free(sent);
        free(got);
    }
    struct pollfd *waiting = malloc(sizeof(*waiting));
    *waiting = (struct pollfd){ends[0], POLLOUT, 0};
    struct timespec *pause = malloc(sizeof(*pause));
    *pause = (struct timespec){0, 1000};
    struct stat *about = malloc(sizeof(*about));
    struct utsname *names = malloc(sizeof(*names));
    fd_set *readable = calloc(1, sizeof(*readable));
    FD_SET(ends[0], readable);
    struct timeval *none = calloc(1, sizeof(*none));
    int wrong = poll(waiting, 1, 100) != 1 || nanosleep(pause, NULL) || fstat(ends[0], about) ||
                uname(names) || select(ends[0] + 1, readable, NULL, NULL, none) != 0;
    free(waiting);
    free(pause);
    free(about);
    free(names);
    free(readable);
    free(none);
    return wrong;
}
