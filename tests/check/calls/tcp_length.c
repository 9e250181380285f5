// SPDX-License-Identifier: BSD-2-Clause
// A length in a message over TCP is trusted.
// kind: syscall-buffer-overflow
// access: write
// object: 64 bytes
#include "twin.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int connection(int *other)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    *other = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (void *)&address, bytes) || listen(listener, 1) ||
        getsockname(listener, (void *)&address, &bytes) || connect(*other, (void *)&address, bytes))
        return -1;
    return accept(listener, NULL, NULL);
}

int main(void)
{
    int sender, receiver = connection(&sender);
    char message[204] = {0};
    uint32_t length = htonl(200);
    char *body = malloc(64);  // @allocated
    memcpy(message, &length, sizeof(length));
    if (receiver < 0 || send(sender, message, sizeof(message), 0) != sizeof(message) ||
        recv(receiver, &length, sizeof(length), MSG_WAITALL) != sizeof(length))
        return 1;
    length = ntohl(HIDE(length));
    if (TWIN(0, length > 64))
        length = 64;
    ssize_t got = recv(receiver, HIDE(body), length, MSG_WAITALL);  // @access
    free(body);
    return got != 64;
}
