// SPDX-License-Identifier: BSD-2-Clause
// One process, started or found, and the connection to it.
//
// A process is named by a pidfd, which also tells its end; so nothing is ever sent to another
// process that got its number, and children of ours need no SIGCHLD. Two things have to have come
// about before it is `gone`: the process has ended, and so has the connection, as what it sent last
// is to be handled first.
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "supervisor/child.h"

#define CLOSED_WAIT_MS 5000u  // for the process to end after it has closed its connection
#define DRAIN_WAIT_MS 1000u   // for a connection that somebody else keeps open

#define CONTROL_FD MONITOR_CONTROL_FD  // of all roles

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77  // since Linux 6.5
#endif

const struct child_role child_monitor = {"monitor", "a monitor"};
const struct child_role child_interceptor = {"interceptor", "an interceptor"};

struct child {
    struct loop *loop;
    struct child_events events;
    struct link *link;
    struct error why;  // the connection ended
    pid_t pid;         // -1: not known, or ended
    int pidfd;
    int listener;  // pidfd of one that was found, before it has said anything; -1: not known
    struct loop_watch *exit_watch;
    struct loop_timer *timer;
    bool ours, exited, told;
    int status;
    unsigned busy;
    bool destroyed;
};

static void on_exit_seen(void *opaque, unsigned events);

// The process of a connection that we made to one which was there.
static void find_process(struct child *child)
{
    if (child->pidfd >= 0 || child->exited || !child->link || link_peer_pid(child->link) <= 0)
        return;
    child->pid = link_peer_pid(child->link);
    child->pidfd = pidfd_open(child->pid, 0);
    // It is ours to wait for when an earlier program of this process started it.
    siginfo_t info;
    child->ours = child->pidfd >= 0 &&
                  waitid(P_PIDFD, (id_t)child->pidfd, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
    if (child->pidfd < 0 || loop_watch_create(child->loop, child->pidfd, LOOP_READABLE,
                                              on_exit_seen, child, &child->exit_watch) < 0)
        child->pid = -1;
}

// A pidfd of whoever called listen(2) last for a connection that we made, or -1. A role that leaves
// that to its supervisor has an earlier one there, which has ended, or which this process was.
static int find_listener(int fd)
{
    struct ucred peer;
    int pidfd;
    socklen_t peer_bytes = sizeof(peer), pidfd_bytes = sizeof(pidfd);
    bool known = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &peer_bytes) == 0 &&
                 peer.pid != getpid() &&
                 getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &pidfd_bytes) == 0;
    return known ? pidfd : -1;
}

// ---- The end ------------------------------------------------------------------------------------

static void child_put(struct child *child)
{
    if (--child->busy == 0 && child->destroyed)
        free(child);
}

static void tell_gone(struct child *child)
{
    if (child->told || child->destroyed)
        return;
    child->told = true;
    loop_timer_stop(child->timer);
    child->busy++;
    if (child->events.gone)
        child->events.gone(child->events.opaque, child, child->status, &child->why);
    child_put(child);
}

static void reap(struct child *child)
{
    if (child->ours && waitpid(child->pid, &child->status, 0) != child->pid)
        child->status = -1;
    child->exited = true;
    child->pid = -1;
    loop_watch_close(child->exit_watch);
    child->exit_watch = NULL;
}

static void on_exit_seen(void *opaque, unsigned events)
{
    struct child *child = opaque;
    (void)events;
    reap(child);
    if (!child->link || !link_is_open(child->link))
        tell_gone(child);
    else
        loop_timer_start(child->timer, DRAIN_WAIT_MS);
}

bool child_kill(struct child *child)
{
    find_process(child);
    if (child->exited)
        return true;
    if (child->pidfd < 0 && child->ours)
        return kill(child->pid, SIGKILL) == 0;
    int pidfd = child->pidfd >= 0 ? child->pidfd : child->listener;
    return pidfd >= 0 && pidfd_send_signal(pidfd, SIGKILL, NULL, 0) == 0;
}

static void on_timer(void *opaque)
{
    struct child *child = opaque;
    if (child->exited || (!child->link && child->pidfd < 0))
        tell_gone(child);
    else
        child_kill(child);
}

static void on_closed(void *opaque, const struct error *why)
{
    struct child *child = opaque;
    child->why = *why;
    find_process(child);
    if (child->exited || child->pidfd < 0) {
        tell_gone(child);
        return;
    }
    // Whoever breaks the rules of the connection is not to go on.
    if (why->code == -EPROTO)
        child_kill(child);
    loop_timer_start(child->timer, CLOSED_WAIT_MS);
}

// ---- Messages -----------------------------------------------------------------------------------

static void on_request(void *opaque, uint64_t id, const char *op, json_t *message,
                       struct descriptors *fds)
{
    struct child *child = opaque;
    find_process(child);
    if (child->events.request)
        child->events.request(child->events.opaque, child, id, op, message, fds);
}

static void on_event(void *opaque, const char *event, json_t *message, struct descriptors *fds)
{
    struct child *child = opaque;
    (void)fds;
    find_process(child);
    if (child->events.event)
        child->events.event(child->events.opaque, child, event, message);
}

struct link *child_link(struct child *child)
{
    return child->link;
}

int child_pidfd(const struct child *child)
{
    find_process((struct child *)child);
    return child->pidfd;
}

pid_t child_pid(const struct child *child)
{
    find_process((struct child *)child);
    return child->pid;
}

// ---- Starting -----------------------------------------------------------------------------------

static int spawn(int fd, const struct child_role *role, int binary_fd, const char *name, bool apart)
{
    char *const arguments[] = {"strake", (char *)role->command, (char *)name, NULL};
    const int fds[] = {SPAWN_NULL, SPAWN_NULL, SPAWN_SAME, [CONTROL_FD] = fd};
    const struct spawn program = {.arguments = arguments,
                                  .program_fd = binary_fd,
                                  .apart = apart,
                                  .fds = fds,
                                  .fd_count = BASE_COUNT_OF(fds)};
    return spawn_program(&program);
}

static struct child *child_create(struct loop *loop, const struct child_events *events)
{
    struct child *child = calloc(1, sizeof(*child));
    if (!child)
        return NULL;
    *child = (struct child){
        .loop = loop, .events = *events, .pid = -1, .pidfd = -1, .listener = -1, .status = -1};
    if (loop_timer_create(loop, on_timer, child, &child->timer) == 0)
        return child;
    free(child);
    return NULL;
}

static int connect_link(struct child *child, int fd, struct error *err)
{
    const struct link_events events = {
        .request = on_request, .event = on_event, .closed = on_closed, .opaque = child};
    return link_create(&child->link, child->loop, fd, &events, err);
}

static int start(struct child *child, const struct child_role *role, int binary_fd,
                 const char *name, bool apart, struct error *err)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        return error_set_errno(err, -errno, "cannot start %s", role->what);
    int rc = spawn(ends[1], role, binary_fd, name, apart);
    close(ends[1]);
    if (rc < 0) {
        close(ends[0]);
        return error_set_errno(err, rc, "cannot start %s", role->what);
    }
    child->ours = true;
    child->pid = rc;
    child->pidfd = pidfd_open(child->pid, 0);
    rc = child->pidfd < 0 ? -errno
                          : loop_watch_create(child->loop, child->pidfd, LOOP_READABLE,
                                              on_exit_seen, child, &child->exit_watch);
    if (rc < 0)
        error_set_errno(err, rc, "cannot start %s", role->what);
    else
        rc = connect_link(child, ends[0], err);
    if (rc < 0)
        close(ends[0]);
    return rc;
}

int child_spawn(struct child **out, struct loop *loop, const struct child_role *role, int binary_fd,
                const char *name, bool apart, const struct child_events *events, struct error *err)
{
    struct child *child = child_create(loop, events);
    if (!child)
        return error_set_errno(err, -ENOMEM, "cannot start %s", role->what);
    int rc = start(child, role, binary_fd, name, apart, err);
    if (rc < 0)
        child_end(child, 0);
    else
        *out = child;
    return rc;
}

int child_connect(struct child **out, struct loop *loop, int fd, const struct child_events *events,
                  struct error *err)
{
    struct child *child = child_create(loop, events);
    if (!child)
        return error_set_errno(err, -ENOMEM, "cannot talk with what runs already");
    child->listener = find_listener(fd);
    int rc = connect_link(child, fd, err);
    if (rc < 0)
        child_destroy(child);
    else
        *out = child;
    return rc;
}

void child_destroy(struct child *child)
{
    if (!child || child->destroyed)
        return;
    child->destroyed = true;
    child->busy++;
    link_destroy(child->link);
    loop_watch_close(child->exit_watch);
    loop_timer_close(child->timer);
    if (child->pidfd >= 0)
        close(child->pidfd);
    if (child->listener >= 0)
        close(child->listener);
    child_put(child);
}

void child_dismiss(struct child *child, unsigned patience_ms)
{
    struct link *link = child->link;
    find_process(child);
    child->link = NULL;
    link_destroy(link);
    if (!child->told)
        loop_timer_start(child->timer, child->exited || child->pidfd < 0 ? 0 : patience_ms);
}

void child_end(struct child *child, unsigned patience_ms)
{
    if (!child)
        return;
    struct pollfd exit = {.fd = child->pidfd, .events = POLLIN};
    child->events = (struct child_events){0};
    link_destroy(child->link);
    child->link = NULL;
    if (poll(&exit, child->pidfd >= 0 && !child->exited, (int)patience_ms) == 0)
        child_kill(child);
    if (child->ours && child->pid > 0)
        waitpid(child->pid, &child->status, 0);
    child_destroy(child);
}

// ---- Being found --------------------------------------------------------------------------------

int child_listen(const char *path, struct error *err)
{
    int fd = unix_listen_packets(path, 4);
    return fd < 0 ? error_set_errno(err, fd, "cannot listen at \"%s\"", path) : fd;
}

int child_reach(const char *path, struct error *err)
{
    int fd = unix_connect(path, SOCK_SEQPACKET);
    return fd < 0 ? error_set_errno(err, fd, "cannot connect to \"%s\"", path) : fd;
}
