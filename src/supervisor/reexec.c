// SPDX-License-Identifier: BSD-2-Clause
// Going on as another program.
//
// What is kept is told in one variable of the environment, with the process's number, as the
// service manager's LISTEN_PID: who inherits it by mistake does not heed it.
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "supervisor/reexec.h"

#define VARIABLE "STRAKE_REEXEC"
#define INSTALLED "STRAKE_INSTALLED"  // the path of the program that the process began as
#define OWNER_PATIENCE_MS                                                                          \
    1000u  // for who adopts a process to learn how it ended, before it is reaped

// ---- Executing ----------------------------------------------------------------------------------

static void set_inherited(const struct reexec_kept *kept, bool inherited)
{
    int flags = inherited ? 0 : FD_CLOEXEC;
    (void)!fcntl(kept->listen_fd, F_SETFD, flags);
    (void)!fcntl(kept->lock_fd, F_SETFD, flags);
    for (size_t i = 0; i < kept->child_count; i++)
        (void)!fcntl(kept->children[i], F_SETFD, flags);
}

static int tell(const struct reexec_kept *kept)
{
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    if (!out)
        return -ENOMEM;
    fprintf(out, "%d %d %d %d", (int)getpid(), kept->listen_fd, kept->own_socket, kept->lock_fd);
    for (size_t i = 0; i < kept->child_count; i++)
        fprintf(out, " %d", kept->children[i]);
    int rc = fclose(out) != 0 ? -ENOMEM : setenv(VARIABLE, text, 1) < 0 ? -errno : 0;
    free(text);
    return rc;
}

// The arguments as they were given: each ends with a NUL, and so does the text.
static char **read_arguments(char **text)
{
    size_t bytes = 0, count = 0;
    FILE *file = fopen("/proc/self/cmdline", "re");
    *text = NULL;
    char **arguments = NULL;
    ssize_t n = file ? getdelim(text, &bytes, EOF, file) : -1;
    for (ssize_t i = 0; i < n; i++)
        count += !(*text)[i];
    if (count > 0)
        arguments = calloc(count + 1, sizeof(*arguments));
    char *at = *text;
    for (size_t i = 0; arguments && i < count; i++, at += strlen(at) + 1)
        arguments[i] = at;
    if (file)
        fclose(file);
    return arguments;
}

int reexec_run(int program_fd, const struct reexec_kept *kept, struct error *err)
{
    char *text;
    char **arguments = read_arguments(&text);
    int rc = arguments ? tell(kept) : -ENOMEM;
    if (rc == 0) {
        set_inherited(kept, true);
        fexecve(program_fd, arguments, environ);
        rc = -errno;
        set_inherited(kept, false);
    }
    unsetenv(VARIABLE);
    free(arguments);
    free(text);
    return error_set_errno(err, rc, "cannot execute the supervisor's new program");
}

// ---- In the new program -------------------------------------------------------------------------

// The next number of a list, after which `text` goes on.
static bool take_number(const char **text, int *number)
{
    char *end;
    errno = 0;
    long value = strtol(*text, &end, 10);
    if (end == *text || errno || value < -1 || value > INT_MAX)
        return false;
    *number = (int)value;
    *text = end;
    return true;
}

static bool parse(const char *text, struct reexec_kept *kept)
{
    int pid, own;
    if (!take_number(&text, &pid) || !take_number(&text, &kept->listen_fd) ||
        !take_number(&text, &own) || !take_number(&text, &kept->lock_fd) || pid != (int)getpid())
        return false;
    kept->own_socket = own;
    kept->child_count = 0;
    while (kept->child_count < REEXEC_CHILDREN_MAX &&
           take_number(&text, &kept->children[kept->child_count]))
        kept->child_count++;
    return true;
}

static void remember_installed(void)
{
    char path[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 1);
    path[length > 0 ? length : 0] = 0;
    setenv(INSTALLED, path, 1);
}

const char *reexec_installed(void)
{
    const char *path = getenv(INSTALLED);
    return path && *path ? path : NULL;
}

bool reexec_take(struct reexec_kept *kept)
{
    static const struct reexec_kept nothing = {.listen_fd = -1, .lock_fd = -1};
    const char *text = getenv(VARIABLE);
    bool taken = text && parse(text, kept);
    unsetenv(VARIABLE);
    if (!taken) {
        *kept = nothing;
        remember_installed();
        return false;
    }
    set_inherited(kept, false);
    prctl(PR_SET_NAME, "strake");  // else it is the descriptor's number
    return true;
}

// ---- Its children -------------------------------------------------------------------------------

struct orphan {
    struct orphans *orphans;
    int pidfd;
    bool ended;
    struct loop_watch *watch;
};

struct orphans {
    struct loop_timer *timer;
    size_t count;
    struct orphan list[];
};

static void forget(struct orphan *orphan)
{
    loop_watch_close(orphan->watch);
    orphan->watch = NULL;
    if (orphan->pidfd >= 0)
        close(orphan->pidfd);
    orphan->pidfd = -1;
}

static void on_ended(void *opaque, unsigned events)
{
    struct orphan *orphan = opaque;
    (void)events;
    orphan->ended = true;
    loop_watch_close(orphan->watch);
    orphan->watch = NULL;
    loop_timer_start(orphan->orphans->timer, OWNER_PATIENCE_MS);
}

static void reap(void *opaque)
{
    struct orphans *orphans = opaque;
    for (size_t i = 0; i < orphans->count; i++) {
        struct orphan *orphan = &orphans->list[i];
        siginfo_t info;
        if (!orphan->ended || orphan->pidfd < 0)
            continue;
        waitid(P_PIDFD, (id_t)orphan->pidfd, &info, WEXITED | WNOHANG);
        forget(orphan);
    }
}

int orphans_create(struct orphans **out, struct loop *loop, const struct reexec_kept *kept)
{
    struct orphans *orphans =
        calloc(1, sizeof(*orphans) + kept->child_count * sizeof(orphans->list[0]));
    if (!orphans)
        return -ENOMEM;
    int rc = loop_timer_create(loop, reap, orphans, &orphans->timer);
    for (; rc == 0 && orphans->count < kept->child_count; orphans->count++) {
        struct orphan *orphan = &orphans->list[orphans->count];
        *orphan = (struct orphan){.orphans = orphans, .pidfd = kept->children[orphans->count]};
        rc =
            loop_watch_create(loop, orphan->pidfd, LOOP_READABLE, on_ended, orphan, &orphan->watch);
    }
    if (rc < 0) {
        orphans_destroy(orphans);
        return rc;
    }
    *out = orphans;
    return 0;
}

void orphans_keep(const struct orphans *orphans, struct reexec_kept *kept)
{
    for (size_t i = 0; i < orphans->count && kept->child_count < REEXEC_CHILDREN_MAX; i++)
        if (orphans->list[i].pidfd >= 0)
            kept->children[kept->child_count++] = orphans->list[i].pidfd;
}

void orphans_destroy(struct orphans *orphans)
{
    if (!orphans)
        return;
    for (size_t i = 0; i < orphans->count; i++)
        forget(&orphans->list[i]);
    loop_timer_close(orphans->timer);
    free(orphans);
}
