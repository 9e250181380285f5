// SPDX-License-Identifier: BSD-2-Clause
// Unix sockets, and how addresses are written.
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/base.h"

static int set_address(struct sockaddr_un *address, const char *path)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address->sun_path))
        return -ENAMETOOLONG;
    memcpy(address->sun_path, path, strlen(path) + 1);
    return 0;
}

int unix_connect(const char *path, int type)
{
    struct sockaddr_un address;
    int rc = set_address(&address, path);
    if (rc < 0)
        return rc;
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
        return fd;
    rc = -errno;
    close(fd);
    return rc;
}

int unix_listen_packets(const char *path, int backlog)
{
    struct sockaddr_un address;
    int rc = set_address(&address, path);
    if (rc < 0)
        return rc;
    unlink(path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) == 0 &&
        listen(fd, backlog) == 0)
        return fd;
    rc = -errno;
    close(fd);
    return rc;
}

// Whether `address` is a socket file that refuses connections: its owner died.
static bool socket_is_stale(const struct sockaddr_un *address)
{
    struct stat st;
    if (lstat(address->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode))
        return false;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return false;
    bool stale = connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 &&
                 errno == ECONNREFUSED;
    close(fd);
    return stale;
}

int unix_listen(const char *path, struct error *err)
{
    struct sockaddr_un address;
    if (set_address(&address, path) < 0)
        return error_set_errno(err, -ENAMETOOLONG, "cannot listen at \"%s\"", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return error_set_errno(err, -errno, "cannot listen at \"%s\"", path);
    int rc = bind(fd, (struct sockaddr *)&address, sizeof(address));
    if (rc < 0 && errno == EADDRINUSE && socket_is_stale(&address)) {
        unlink(path);
        rc = bind(fd, (struct sockaddr *)&address, sizeof(address));
    }
    if (rc < 0 || listen(fd, 16) < 0) {
        rc = error_set_errno(err, -errno, "cannot listen at \"%s\"", path);
        close(fd);
        return rc;
    }
    return fd;
}

int inet_parse_endpoint(const char *text, uint8_t addr[4], uint16_t *port, struct error *err)
{
    char host[INET_ADDRSTRLEN] = "";
    const char *colon = strrchr(text, ':');
    if (!colon || (size_t)(colon - text) >= sizeof(host) || colon[1] < '0' || colon[1] > '9')
        return error_set(err, -EINVAL, "\"%s\" is not ADDR:PORT", text);
    memcpy(host, text, (size_t)(colon - text));
    if (*host && inet_pton(AF_INET, host, addr) != 1)
        return error_set(err, -EINVAL, "\"%s\" is not an IPv4 address", host);
    char *end;
    unsigned long number = strtoul(colon + 1, &end, 10);
    if (*end || number > UINT16_MAX)
        return error_set(err, -EINVAL, "\"%s\" is not a port", colon + 1);
    *port = (uint16_t)number;
    return 0;
}
