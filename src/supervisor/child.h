// SPDX-License-Identifier: BSD-2-Clause
// child: one process of a monitor's kind (a role that goes on without its supervisor and is found
// by the next), and the connection to it. Private to this room.
//
// Threads: the loop's.
#ifndef STRAKE_SUPERVISOR_CHILD_H
#define STRAKE_SUPERVISOR_CHILD_H

#include "supervisor/supervisor.h"

struct child;

struct child_events {
    void (*request)(void *opaque, struct child *child, uint64_t id, const char *op, json_t *message,
                    struct descriptors *fds);
    void (*event)(void *opaque, struct child *child, const char *event, json_t *message);
    // The process has ended, and everything that it sent has been handled. `status` is as of
    // waitpid, or -1 where that is not known: it was not started by this process. Once, as the
    // last call; the child is still to be destroyed.
    void (*gone)(void *opaque, struct child *child, int status, const struct error *why);
    void *opaque;
};

// What it is: the subcommand, which has its connection as descriptor 3, and what people call it.
struct child_role {
    const char *command, *what;
};
extern const struct child_role child_monitor, child_interceptor;

// Starts one; `name` is for lists of processes. `apart`: away from our terminal's signals.
BASE_NODISCARD int child_spawn(struct child **out, struct loop *loop, const struct child_role *role,
                               int binary_fd, const char *name, bool apart,
                               const struct child_events *events, struct error *err);
// One that runs already, by its socket (taken over on success). Its process is known after the
// first message.
BASE_NODISCARD int child_connect(struct child **out, struct loop *loop, int fd,
                                 const struct child_events *events, struct error *err);
// Closes the connection, and leaves the process to itself.
void child_destroy(struct child *child);  // NULL is ignored; also from its callbacks
// Closes the connection and waits for the process, which is killed after `patience_ms`. Then
// destroys.
void child_end(struct child *child, unsigned patience_ms);
// `gone` follows; false: nobody knows which process it is.
bool child_kill(struct child *child);
// Closes the connection, which tells the process to end; it is killed after `patience_ms`. `gone`
// follows, never at once.
void child_dismiss(struct child *child, unsigned patience_ms);

struct link *child_link(struct child *child);
pid_t child_pid(const struct child *child);  // -1: not known, or ended
int child_pidfd(const struct child *child);  // likewise; stays the child's

// Where a later supervisor finds one: a socket at `path` that listens, in place of what is there;
// and a connection to it. A descriptor, or a negative errno with *err set.
BASE_NODISCARD int child_listen(const char *path, struct error *err);
BASE_NODISCARD int child_reach(const char *path, struct error *err);

#endif
