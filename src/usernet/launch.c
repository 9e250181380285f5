// SPDX-License-Identifier: BSD-2-Clause
// launch: starting `strake usernet`, from the side of whoever wants one.
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "usernet/internal.h"

#define START_MS 10000
#define END_MS 2000
// For some large frames, or as many small ones as a guest takes in a turn. The host may grant less.
#define SOCKET_BYTES (1 << 20)

// ---- Forwards as text ---------------------------------------------------------------------------

int usernet_forward_parse(struct usernet_forward *forward, const char *text, struct error *err)
{
    char host[USERNET_FORWARD_BYTES];
    const char *guest = strchr(text, '-');
    bool udp = strncmp(text, "udp:", 4) == 0;
    size_t host_bytes = guest ? (size_t)(guest - text) : 0;

    if ((!udp && strncmp(text, "tcp:", 4) != 0) || host_bytes < 4 || host_bytes >= sizeof(host))
        return error_set(err, -EINVAL, "\"%s\" is not tcp:ADDR:PORT-:PORT", text);
    memcpy(host, text, host_bytes);
    host[host_bytes] = 0;
    *forward = (struct usernet_forward){.udp = udp, .host_addr = {127, 0, 0, 1}};
    int rc = inet_parse_endpoint(host + 4, forward->host_addr, &forward->host_port, err);
    if (rc == 0)
        rc = inet_parse_endpoint(guest + 1, forward->guest_addr, &forward->guest_port, err);
    if (rc == 0 && (forward->host_port == 0 || forward->guest_port == 0))
        rc = error_set(err, -EINVAL, "there is no port 0");
    return rc;
}

void usernet_forward_print(const struct usernet_forward *forward, char text[USERNET_FORWARD_BYTES])
{
    const uint8_t *host = forward->host_addr, *guest = forward->guest_addr;

    snprintf(text, USERNET_FORWARD_BYTES, "%s:%u.%u.%u.%u:%u-%u.%u.%u.%u:%u",
             forward->udp ? "udp" : "tcp", host[0], host[1], host[2], host[3], forward->host_port,
             guest[0], guest[1], guest[2], guest[3], forward->guest_port);
}

// ---- The process --------------------------------------------------------------------------------

// Out of reach of a terminal; of the launcher's descriptors it has stderr, for messages.
static int process_start(int fd, const struct usernet_forward *forwards, size_t count)
{
    char **arguments = calloc(count + 3, sizeof(*arguments));
    char(*texts)[USERNET_FORWARD_BYTES] = calloc(count + 1, sizeof(*texts));
    int rc = -ENOMEM;

    if (arguments && texts) {
        arguments[0] = "strake";
        arguments[1] = "usernet";
        for (size_t i = 0; i < count; i++) {
            usernet_forward_print(&forwards[i], texts[i]);
            arguments[2 + i] = texts[i];
        }
        const int fds[] = {SPAWN_NULL, SPAWN_NULL, SPAWN_SAME, [USERNET_FD] = fd};
        const struct spawn process = {.arguments = arguments,
                                      .program_fd = -1,
                                      .apart = true,
                                      .fds = fds,
                                      .fd_count = BASE_COUNT_OF(fds)};
        rc = spawn_program(&process);
    }
    free(texts);
    free(arguments);
    return rc;
}

// What the process says of its start.
static int answer_wait(int fd, struct error *err)
{
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    struct error answer;
    int rc;

    do
        rc = poll(&wait, 1, START_MS);
    while (rc < 0 && errno == EINTR);
    if (rc <= 0)
        return error_set(err, -ETIMEDOUT, "cannot set up the user network: its process is silent");
    if (recv(fd, &answer, sizeof(answer), 0) != sizeof(answer))
        return error_set(err, -ECHILD, "cannot set up the user network: its process has ended");
    if (answer.code)
        return error_set(err, answer.code, "%s", answer.message);
    return 0;
}

void usernet_reap(struct usernet_process *process)
{
    int status;

    for (int waited_ms = 0; waited_ms < END_MS; waited_ms += 2) {
        if (waitpid(process->pid, &status, WNOHANG) != 0)
            return;
        usleep(2000);
    }
    kill(process->pid, SIGKILL);
    waitpid(process->pid, &status, 0);
}

int usernet_launch(struct usernet_process *out, const struct usernet_forward *forwards,
                   size_t count, struct error *err)
{
    const int bytes = SOCKET_BYTES;
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0)
        return error_set_errno(err, -errno, "cannot set up the user network");
    for (size_t i = 0; i < BASE_COUNT_OF(ends); i++)
        if (setsockopt(ends[i], SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0)
            setsockopt(ends[i], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    int rc = process_start(ends[1], forwards, count);
    struct usernet_process process = {.fd = ends[0], .pid = rc};
    close(ends[1]);
    if (rc < 0) {
        close(ends[0]);
        return error_set_errno(err, rc, "cannot start the user network's process");
    }
    rc = answer_wait(process.fd, err);
    if (rc < 0) {
        close(process.fd);
        usernet_reap(&process);
        return rc;
    }
    *out = process;
    return 0;
}
