// SPDX-License-Identifier: BSD-2-Clause
#include "resolve.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "update.h"

#define TYPE_A 1u
#define CLASS_IN 1u
#define HEADER 12u
#define SERVERS_MAX 3u
#define TRIES 2u
#define ANSWER_MS 3000

static unsigned take16(const uint8_t *bytes)
{
    return (unsigned)bytes[0] << 8 | bytes[1];
}

size_t resolve_question(const char *name, uint16_t id, uint8_t message[RESOLVE_MESSAGE_MAX])
{
    static const uint8_t end[] = {0, 0, TYPE_A, 0, CLASS_IN};
    size_t at = HEADER;

    if (strlen(name) > 253 || !*name)
        return 0;
    memset(message, 0, HEADER);
    message[0] = (uint8_t)(id >> 8);
    message[1] = (uint8_t)id;
    message[2] = 1;  // recursion desired
    message[5] = 1;  // one question
    while (*name) {
        size_t label = strcspn(name, ".");
        if (label == 0 || label > 63)
            return 0;
        message[at++] = (uint8_t)label;
        memcpy(message + at, name, label);
        at += label;
        name += label + (name[label] == '.');
    }
    memcpy(message + at, end, sizeof(end));
    return at + sizeof(end);
}

// Where the name ends: labels, then an empty one or a pointer (section 4.1.4), which need not be
// followed. 0: outside of the message.
static size_t skip_name(const uint8_t *message, size_t count, size_t at)
{
    while (at < count) {
        if (message[at] >= 0xc0)
            return at + 2;
        if (message[at] == 0)
            return at + 1;
        at += (size_t)message[at] + 1;
    }
    return 0;
}

bool resolve_answer(const uint8_t *message, size_t count, uint16_t id, struct in_addr *address)
{
    if (count < HEADER || take16(message) != id || !(message[2] & 0x80) || (message[3] & 15) != 0 ||
        take16(message + 4) != 1)
        return false;
    size_t at = skip_name(message, count, HEADER);
    if (at == 0 || count < at + 4)
        return false;
    at += 4;
    for (unsigned left = take16(message + 6); left > 0; left--) {
        at = skip_name(message, count, at);
        if (at == 0 || count < at + 10)
            return false;
        unsigned length = take16(message + at + 8);
        if (count - at - 10 < length)
            return false;
        if (take16(message + at) == TYPE_A && take16(message + at + 2) == CLASS_IN && length == 4) {
            memcpy(address, message + at + 10, 4);
            return true;
        }
        at += 10 + (size_t)length;
    }
    return false;
}

static bool ask_server(const char *name, struct in_addr server, struct in_addr *address)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(53), .sin_addr = server};
    uint8_t message[RESOLVE_MESSAGE_MAX];
    uint16_t id = 0;
    bool found = false;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || getrandom(&id, sizeof(id), 0) != sizeof(id)) {
        if (fd >= 0)
            close(fd);
        return false;
    }
    size_t count = resolve_question(name, id, message);
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    // Connected, so that only the server's own answers are received.
    if (count > 0 && connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0 &&
        send(fd, message, count, 0) == (ssize_t)count && poll(&ready, 1, ANSWER_MS) > 0) {
        ssize_t got = recv(fd, message, sizeof(message), 0);
        found = got > 0 && resolve_answer(message, (size_t)got, id, address);
    }
    close(fd);
    return found;
}

static bool find_by_server(const char *name, struct in_addr *address)
{
    char line[512], server[64];
    struct in_addr servers[SERVERS_MAX];
    unsigned count = 0;
    FILE *file = fopen("/etc/resolv.conf", "re");

    while (file && count < SERVERS_MAX && fgets(line, sizeof(line), file))
        if (sscanf(line, "nameserver %63s", server) == 1 &&
            inet_pton(AF_INET, server, &servers[count]) == 1)
            count++;
    if (file)
        fclose(file);
    for (unsigned i = 0; i < count * TRIES; i++)
        if (ask_server(name, servers[i % count], address))
            return true;
    return false;
}

static bool find_in_hosts(const char *name, struct in_addr *address)
{
    char line[1024];
    bool found = false;
    FILE *file = fopen("/etc/hosts", "re");

    while (file && !found && fgets(line, sizeof(line), file)) {
        char *rest = line;
        line[strcspn(line, "#")] = 0;
        char *number = strtok_r(line, " \t\n", &rest);
        if (!number || inet_pton(AF_INET, number, address) != 1)
            continue;
        for (char *word; !found && (word = strtok_r(NULL, " \t\n", &rest));)
            found = !strcasecmp(word, name);
    }
    if (file)
        fclose(file);
    return found;
}

static int connect_to(const void *address, socklen_t bytes, int family)
{
    struct timeval silence = {.tv_sec = 30};
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &silence, sizeof(silence));
    if (connect(fd, address, bytes)) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

int resolve_connect(const char *host, const char *port, struct fault *fault)
{
    uint16_t number = htons((uint16_t)strtoul(port, NULL, 10));
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = number};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = number};
    int fd;

    if (inet_pton(AF_INET6, host, &six.sin6_addr) == 1)
        fd = connect_to(&six, sizeof(six), AF_INET6);
    else if (inet_pton(AF_INET, host, &four.sin_addr) == 1 || find_in_hosts(host, &four.sin_addr) ||
             find_by_server(host, &four.sin_addr))
        fd = connect_to(&four, sizeof(four), AF_INET);
    else
        return fault_set(fault, OUTCOME_FAILED, "cannot connect to '%s': no such host is known",
                         host);
    if (fd < 0)
        fault_system(fault, OUTCOME_FAILED, "cannot connect to '%s' port %s", host, port);
    return fd;
}
