// SPDX-License-Identifier: BSD-2-Clause
// Who answers when the process of an interceptor has died and no other comes.
//
// The supervisor starts another one at once, unless it is waiting itself: for a file below the path
// that it opens just then. So there is a child of the process that does nothing but wait for its
// parent to die, and for some time more for the successor, which makes itself known in the table
// before it touches anything; then it ends. If none comes it answers: the supervisor's opens are
// allowed, all others get what `fail` says. When the supervisor still has not begun another one
// after half a minute, it ends.
//
// When the supervisor is no more either, nobody else has the group, and with its last descriptor
// the kernel lets all go. That is right for `open`. For `closed` the guard stays: it refuses what
// is opened, and has a socket at which the next supervisor's process gets what it keeps.
//
// It is forked, and has threads' locks in unknown states: only system calls here.
#include <errno.h>
#include <fcntl.h>
#include <linux/fanotify.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "leverage/files.h"

#define SUCCESSOR_WAIT_MS 3000
#define END_MS 30000
#define TURN_MS 500
#define EVENTS_BYTES 4096u

#define HAND_OVER_MS 30000  // at most; the guard looks each TURN_MS
// Its descriptors, after those that it keeps.
enum { GUARD_PARENT = FILES_KEPT, GUARD_LISTEN, GUARD_FDS };

union rights {
    struct cmsghdr header;
    char room[CMSG_SPACE(sizeof(int[FILES_KEPT]))];
};

static int pidfd_of(pid_t pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0);
}

static bool is_over(int pidfd)
{
    struct pollfd end = {.fd = pidfd, .events = POLLIN};
    return pidfd < 0 || poll(&end, 1, 0) > 0;
}

// The supervisor, or who comes after it, which nobody knows yet: a process of our user, by its
// name.
static bool is_supervisor(struct files_table *table, pid_t pid)
{
    static const char wanted[] = "strake\n";
    char path[32], name[sizeof(wanted)] = "";
    struct stat stat;
    if (pid == files_table_supervisor(table))
        return true;
    snprintf(path, sizeof(path), "/proc/%d/comm", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool is = fstat(fd, &stat) == 0 && stat.st_uid == geteuid() &&
              read(fd, name, sizeof(name)) == (ssize_t)strlen(wanted) && strcmp(name, wanted) == 0;
    close(fd);
    return is;
}

// What the dead process had read and not answered; what it had not come to note is among the
// numbers, too.
static void answer_left(int perm, struct files_table *table, bool allow)
{
    for (int number = 0; number < (int)FILES_NUMBERS; number++) {
        int file;
        pid_t pid = files_table_get(table, number, -1, &file);
        if (file >= 0)
            close(file);
        files_answer(perm, number, allow || (pid > 0 && is_supervisor(table, pid)));
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
        files_answer(perm, event->fd, allow || is_supervisor(table, event->pid));
        close(event->fd);
    }
}

// Whoever asks is the successor, and has it all from then on. False: it has not.
static bool hand_over(void)
{
    int kept[FILES_KEPT] = {FILES_PERM, FILES_WATCH, FILES_ROOT, FILES_TABLE};
    struct ucred peer;
    socklen_t bytes = sizeof(peer);
    union rights rights = {.header = {.cmsg_level = SOL_SOCKET,
                                      .cmsg_type = SCM_RIGHTS,
                                      .cmsg_len = CMSG_LEN(sizeof(kept))}};
    struct iovec iov = {.iov_base = "", .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &rights, .msg_controllen = sizeof(rights)};
    int fd = accept4(GUARD_LISTEN, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return false;
    memcpy(CMSG_DATA(&rights.header), kept, sizeof(kept));
    bool sent = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) == 0 &&
                peer.uid == geteuid() && sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) == 1;
    close(fd);
    return sent;
}

// Until there is a successor.
static void stand_in(struct files_table *table, pid_t owner, bool allow, bool stays)
{
    int supervisor = pidfd_of(files_table_supervisor(table));
    uint64_t answer_ns = clock_monotonic_ns() + SUCCESSOR_WAIT_MS * 1000000ull;
    bool answers = false;
    while (files_table_owner(table) == owner) {
        uint64_t now_ns = clock_monotonic_ns();
        struct pollfd fds[] = {{.fd = GUARD_LISTEN, .events = POLLIN},
                               {.fd = answers ? FILES_PERM : -1, .events = POLLIN}};
        if (is_over(supervisor) ? !stays : now_ns > answer_ns + END_MS * 1000000ull)
            return;
        if (!answers && now_ns > answer_ns) {
            answer_left(FILES_PERM, table, allow);
            answers = true;
            continue;
        }
        if (poll(fds, 2, TURN_MS) <= 0 || files_table_owner(table) != owner)
            continue;
        if (fds[0].revents && hand_over())
            return;
        if (fds[1].revents)
            answer_new(FILES_PERM, table, allow);
    }
}

static _Noreturn void guard(struct files_table *table, pid_t owner, bool allow, bool stays)
{
    struct pollfd parent = {.fd = GUARD_PARENT, .events = POLLIN};
    prctl(PR_SET_NAME, "strake-guard");
    while (poll(&parent, 1, -1) < 0 && errno == EINTR)
        ;
    if (files_table_kept(table))
        stand_in(table, owner, allow, stays);
    _exit(0);
}

// Moves them where they are found, and closes all others, whose ends somebody may wait for.
static int arrange(const int kept[FILES_KEPT], int parent, int listener)
{
    int from[GUARD_FDS];
    memcpy(from, kept, sizeof(int[FILES_KEPT]));
    from[GUARD_PARENT] = parent;
    from[GUARD_LISTEN] = listener;
    for (int i = 0; i < GUARD_FDS; i++)
        if ((from[i] = fcntl(from[i], F_DUPFD_CLOEXEC, GUARD_FDS)) < 0)
            return -errno;
    for (int i = 0; i < GUARD_FDS; i++)
        if (dup2(from[i], i) < 0)
            return -errno;
    return (int)syscall(SYS_close_range, GUARD_FDS, ~0u, 0);
}

int files_guard_start(const int kept[FILES_KEPT], const char *path, bool allow)
{
    struct files_table *table;
    int rc = files_table_map(&table, kept[FILES_TABLE]);
    if (rc < 0)
        return rc;
    pid_t owner = getpid();
    int parent = pidfd_of(owner);
    int listener = path ? unix_listen_packets(path, 1) : eventfd(0, EFD_CLOEXEC);
    pid_t pid = parent < 0 || listener < 0 ? -1 : fork();
    if (pid == 0) {
        if (arrange(kept, parent, listener) < 0)
            _exit(1);
        guard(table, owner, allow, path && !allow);
    }
    int fd = pid < 0 ? -1 : pidfd_of(pid);
    rc = fd < 0 ? -errno : fd;
    if (parent >= 0)
        close(parent);
    if (listener >= 0)
        close(listener);
    files_table_unmap(table);
    return rc;
}

bool files_guard_ask(const char *path, int kept[FILES_KEPT])
{
    union rights rights;
    char byte;
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &rights, .msg_controllen = sizeof(rights)};
    int fd = unix_connect(path, SOCK_SEQPACKET);
    struct pollfd said = {.fd = fd, .events = POLLIN};
    if (fd < 0)
        return false;
    bool got = poll(&said, 1, HAND_OVER_MS) > 0 && recvmsg(fd, &message, MSG_CMSG_CLOEXEC) == 1 &&
               message.msg_controllen >= CMSG_LEN(sizeof(int[FILES_KEPT])) &&
               rights.header.cmsg_type == SCM_RIGHTS &&
               rights.header.cmsg_len == CMSG_LEN(sizeof(int[FILES_KEPT]));
    if (got)
        memcpy(kept, CMSG_DATA(&rights.header), sizeof(int[FILES_KEPT]));
    close(fd);
    return got;
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
