// SPDX-License-Identifier: BSD-2-Clause
// reexec: the supervisor goes on as another program, in the same process, with the same arguments.
// What it must not let go of meanwhile is kept open over the exec; the rest is as after a restart.
// Private to this room; the loop's thread.
#ifndef STRAKE_SUPERVISOR_REEXEC_H
#define STRAKE_SUPERVISOR_REEXEC_H

#include "base/base.h"

#define REEXEC_CHILDREN_MAX 1024u

struct reexec_kept {
    int listen_fd;
    bool own_socket;  // to be removed at the end
    int lock_fd;      // of the state folder
    // pidfds of processes that the supervisor has started and has to wait for.
    int children[REEXEC_CHILDREN_MAX];
    size_t child_count;
};

// Executes the program, which is sealed. Returns when that fails: a negative errno with *err set,
// and all is as before.
int reexec_run(int program_fd, const struct reexec_kept *kept, struct error *err);

// In the program that was executed so: what was kept, close-on-exec again. False: it was started in
// the ordinary way. Once, first of all: the environment is changed.
bool reexec_take(struct reexec_kept *kept);
// Where the program is that the process began as, the installed one; NULL: that is not known.
const char *reexec_installed(void);

// Waits for those processes, in so far as nobody else does.
struct orphans;
BASE_NODISCARD int orphans_create(struct orphans **out, struct loop *loop,
                                  const struct reexec_kept *kept);
// Keeps those that are still to be waited for once more.
void orphans_keep(const struct orphans *orphans, struct reexec_kept *kept);
void orphans_destroy(struct orphans *orphans);  // NULL is ignored

#endif
