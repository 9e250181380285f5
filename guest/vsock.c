// SPDX-License-Identifier: BSD-2-Clause
// vsock: a guest's end of a vsock stream, for tests and demos.
//
//   vsock connect PORT   to the host: standard input goes there, what it answers to standard output
//   vsock echo PORT      takes one connection and sends back what arrives, until its end
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/vm_sockets.h>  // needs <sys/socket.h> before it

#include "stream.h"

// Moves what is readable; false at the end of the stream or on failure.
static bool pump(int from, int to)
{
    char bytes[65536];
    ssize_t count = read(from, bytes, sizeof(bytes));

    return count > 0 && write_all(to, bytes, (size_t)count);
}

// Both directions until the peer ends; the end of standard input is passed on.
static void relay(int fd)
{
    struct pollfd ends[] = {{.fd = fd, .events = POLLIN}, {.fd = 0, .events = POLLIN}};

    while (poll(ends, 2, -1) > 0) {
        if (ends[0].revents && !pump(fd, 1))
            return;
        if (ends[1].revents && !pump(0, fd)) {
            shutdown(fd, SHUT_WR);
            ends[1].fd = -1;
        }
    }
}

static int fail(const char *what)
{
    perror(what);
    return 1;
}

int main(int argc, char **argv)
{
    struct sockaddr_vm address = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST};
    bool echo = argc == 3 && strcmp(argv[1], "echo") == 0;

    if (!echo && !(argc == 3 && strcmp(argv[1], "connect") == 0)) {
        fprintf(stderr, "usage: vsock connect|echo PORT\n");
        return 2;
    }
    address.svm_port = (unsigned)strtoul(argv[2], NULL, 10);
    int fd = socket(AF_VSOCK, SOCK_STREAM, 0);
    if (fd < 0)
        return fail("vsock: socket");
    if (!echo) {
        if (connect(fd, (struct sockaddr *)&address, sizeof(address)))
            return fail("vsock: connect");
        relay(fd);
        return 0;
    }
    address.svm_cid = VMADDR_CID_ANY;
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, 1))
        return fail("vsock: listen");
    printf("vsock: listening on port %s\n", argv[2]);
    fflush(stdout);
    int peer = accept(fd, NULL, NULL);
    if (peer < 0)
        return fail("vsock: accept");
    while (pump(peer, peer))
        ;
    return 0;
}
