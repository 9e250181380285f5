// SPDX-License-Identifier: BSD-2-Clause
// Who answers when the process of an interceptor has died and no other comes.
//
// The supervisor starts another one at once, unless it is waiting itself: for a file below the path
// that it opens just then. So there is a child of the process that does nothing but wait for its
// parent to die, and for some time more for the successor, which makes itself known in the table
// before it touches anything; then it ends. If none comes it answers: the supervisor's opens are
// allowed, all others get what `fail` says. When the supervisor is no more either, or still has not
// begun another one after half a minute, it ends; with the last descriptor of the group the kernel
// lets all go.
//
// It is forked, and has threads' locks in unknown states: only system calls here.
#include <errno.h>
#include <fcntl.h>
#include <linux/fanotify.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "leverage/files.h"

#define SUCCESSOR_WAIT_MS 3000
#define END_MS 30000
#define TURN_MS 500
#define EVENTS_BYTES 4096u

enum { GUARD_PERM, GUARD_TABLE, GUARD_PARENT, GUARD_FDS };  // its descriptors

static int pidfd_of(pid_t pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0);
}

static bool is_needed(struct files_table *table, pid_t owner)
{
    pid_t pid = files_table_supervisor(table);
    return files_table_owner(table) == owner && pid > 0 && (kill(pid, 0) == 0 || errno == EPERM);
}

// What the dead process had read and not answered; what it had not come to note is among the
// numbers, too.
static void answer_left(int perm, struct files_table *table, bool allow)
{
    pid_t supervisor = files_table_supervisor(table);
    for (int number = 0; number < (int)FILES_NUMBERS; number++) {
        int file;
        pid_t pid = files_table_get(table, number, -1, &file);
        if (file >= 0)
            close(file);
        files_answer(perm, number, allow || (pid > 0 && pid == supervisor));
        files_table_drop(table, number);
    }
}

static void answer_new(int perm, struct files_table *table, bool allow)
{
    uint8_t events[EVENTS_BYTES] __attribute__((aligned(8)));
    ssize_t n = read(perm, events, sizeof(events));
    const struct fanotify_event_metadata *event = (void *)events;
    for (; n > 0 && FAN_EVENT_OK(event, n); event = FAN_EVENT_NEXT(event, n)) {
        if (event->fd < 0)
            continue;
        files_answer(perm, event->fd, allow || event->pid == files_table_supervisor(table));
        close(event->fd);
    }
}

static _Noreturn void guard(struct files_table *table, pid_t owner, bool allow)
{
    struct pollfd parent = {.fd = GUARD_PARENT, .events = POLLIN};
    struct pollfd perm = {.fd = GUARD_PERM, .events = POLLIN};
    prctl(PR_SET_NAME, "strake-guard");
    while (poll(&parent, 1, -1) < 0 && errno == EINTR)
        ;
    if (!files_table_kept(table))
        _exit(0);
    poll(NULL, 0, SUCCESSOR_WAIT_MS);
    if (is_needed(table, owner))
        answer_left(GUARD_PERM, table, allow);
    uint64_t end_ns = clock_monotonic_ns() + END_MS * 1000000ull;
    while (is_needed(table, owner) && clock_monotonic_ns() < end_ns)
        if (poll(&perm, 1, TURN_MS) > 0 && is_needed(table, owner))
            answer_new(GUARD_PERM, table, allow);
    _exit(0);
}

// Moves them where they are found, and closes all others, whose ends somebody may wait for.
static int arrange(int perm, int table, int parent)
{
    int from[GUARD_FDS] = {perm, table, parent};
    for (int i = 0; i < GUARD_FDS; i++)
        if ((from[i] = fcntl(from[i], F_DUPFD_CLOEXEC, GUARD_FDS)) < 0)
            return -errno;
    for (int i = 0; i < GUARD_FDS; i++)
        if (dup2(from[i], i) < 0)
            return -errno;
    return (int)syscall(SYS_close_range, GUARD_FDS, ~0u, 0);
}

int files_guard_start(int perm, int table_fd, bool allow)
{
    struct files_table *table;
    int rc = files_table_map(&table, table_fd);
    if (rc < 0)
        return rc;
    pid_t owner = getpid();
    int parent = pidfd_of(owner);
    pid_t pid = parent < 0 ? -1 : fork();
    if (pid == 0) {
        if (arrange(perm, table_fd, parent) < 0)
            _exit(1);
        guard(table, owner, allow);
    }
    int fd = pid < 0 ? -1 : pidfd_of(pid);
    rc = fd < 0 ? -errno : fd;
    if (parent >= 0)
        close(parent);
    files_table_unmap(table);
    return rc;
}

void files_guard_end(int pidfd)
{
    siginfo_t info;
    if (pidfd < 0)
        return;
    syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
    waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED);
    close(pidfd);
}
