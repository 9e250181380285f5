// SPDX-License-Identifier: BSD-2-Clause
// sandbox: what a monitor gives up before it looks at anything that a guest can have written.
//
// In two steps: sandbox_leave_host while the process has one thread and holds no secrets yet;
// sandbox_lock once all threads, rings and descriptors are there. A monitor that both have
// confined can work on the descriptors that it holds and on its memory, and nothing else.
#ifndef STRAKE_MONITOR_SANDBOX_H
#define STRAKE_MONITOR_SANDBOX_H

#include "base/base.h"

// What of it the host allowed; the rest of sandbox_leave_host works everywhere.
enum sandbox_part {
    SANDBOX_USER = 1,  // a user and group of its own
    SANDBOX_NAMESPACES =
        2,  // no network, no mounts but an empty root, no System V IPC, by namespaces
};

struct sandbox_limits {
    uint64_t heap_bytes;  // of private memory that can be written (RLIMIT_DATA); 0: as it is
    unsigned files;       // descriptors
};

// Gives up privileges for good (PR_SET_NO_NEW_PRIVS), the host's users, namespaces and
// capabilities as far as the caller may, and sets limits. Only while the process has one thread.
// Returns a set of enum sandbox_part, or a negative errno with *err set: then the process is half
// confined and fit only to end. In a build with sanitizers, which need the host, it does nothing
// and returns 0.
BASE_NODISCARD int sandbox_leave_host(const struct sandbox_limits *limits, struct error *err);

// Limits private memory that can be written (RLIMIT_DATA), once it is known how much it may be. 0,
// or a negative errno with *err set. Nothing in a build with sanitizers, which take more.
BASE_NODISCARD int sandbox_limit_heap(uint64_t bytes, struct error *err);

// From here on system calls other than those of a running monitor fail with EPERM, in all threads.
// 0, or a negative errno with *err set.
BASE_NODISCARD int sandbox_lock(struct error *err);

#endif
