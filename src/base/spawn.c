// SPDX-License-Identifier: BSD-2-Clause
// Starting programs.
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <unistd.h>

#include "base/base.h"

static int prepare(posix_spawn_file_actions_t *actions, posix_spawnattr_t *attributes,
                   const struct spawn *spawn)
{
    sigset_t none, all;
    int rc = 0;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(attributes, &none);
    posix_spawnattr_setsigdefault(attributes, &all);
    posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                             (spawn->apart ? POSIX_SPAWN_SETSID : 0));
    // From the last one: ours may have the number of one before it.
    for (int to = (int)spawn->fd_count; rc == 0 && to-- > 0;)
        rc = spawn->fds[to] == SPAWN_NULL
                 ? posix_spawn_file_actions_addopen(actions, to, "/dev/null", O_RDWR, 0)
             : spawn->fds[to] == SPAWN_SAME
                 ? 0
                 : posix_spawn_file_actions_adddup2(actions, spawn->fds[to], to);
    return rc ? rc : posix_spawn_file_actions_addclosefrom_np(actions, (int)spawn->fd_count);
}

int spawn_program(const struct spawn *spawn)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    pid_t pid;
    // By our name for it: the child has closed its own before it gets there.
    char path[64] = "/proc/self/exe";
    if (spawn->program_fd >= 0)
        snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)getpid(), spawn->program_fd);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    int rc = prepare(&actions, &attributes, spawn);
    if (rc == 0)
        rc = posix_spawn(&pid, path, &actions, &attributes, spawn->arguments, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return rc ? -rc : pid;
}
