// SPDX-License-Identifier: BSD-2-Clause
// Where debuggers connect to.
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gdb/gdb.h"

int gdb_listen(const char *address, struct error *err)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    uint16_t port;

    if (strchr(address, '/')) {
        int listening = unix_listen(address, err);
        if (listening < 0)
            error_prefix(err, "cannot wait for a debugger");
        return listening;
    }
    if (inet_parse_endpoint(address, (uint8_t *)&at.sin_addr, &port, err) < 0)
        return error_prefix(err, "cannot wait for a debugger");
    at.sin_port = htons(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    if (fd >= 0)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(fd, 1) < 0) {
        int rc = error_set_errno(err, -errno, "cannot wait for a debugger at \"%s\"", address);
        if (fd >= 0)
            close(fd);
        return rc;
    }
    socklen_t length = sizeof(at);
    if (getsockname(fd, (struct sockaddr *)&at, &length) == 0)
        log_line(LOG_INFO, "waiting for a debugger at port %u", ntohs(at.sin_port));
    return fd;
}
