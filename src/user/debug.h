// SPDX-License-Identifier: BSD-2-Clause
// What debug.c, the threads' side, and debugger.c, the debugger's, share.
#ifndef STRAKE_USER_DEBUG_H
#define STRAKE_USER_DEBUG_H

#include <semaphore.h>

#include "gdb/gdb.h"
#include "user/internal.h"

enum user_debug_end { USER_DEBUG_LIVES, USER_DEBUG_ENDS, USER_DEBUG_TOLD };

struct user_debug {
    struct user_process *process;
    pthread_cond_t changed;  // whatever is below, or of a thread

    bool connected;       // somebody debugs
    bool running;         // and waits for something to happen
    bool stopped;         // no thread is to go on
    uint64_t passed;      // signals that are none of a debugger's business: bit n - 1
    unsigned generation;  // of the breakpoints
    unsigned breakpoint_count;
    uint64_t breakpoints[HART_BREAKPOINTS];
    enum user_debug_end end;
    bool by_signal;
    int status;

    // The server's own, see debugger.c.
    pthread_mutex_t session_lock;
    struct gdb_session *session;
    int listen_fd, memory_fd;
    sem_t ready;
    int failure;
    siginfo_t info;
};

// Under the process' lock: has all threads stop that do not wait; whether all do.
void user_debug_stop_all(struct user_process *process);
bool user_debug_all_wait(const struct user_process *process);

#endif
