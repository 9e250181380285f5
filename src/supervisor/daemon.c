// SPDX-License-Identifier: BSD-2-Clause
// The supervisor as a process: where it listens, what it tells systemd, how it ends.
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "supervisor/api.h"
#include "supervisor/leverage.h"
#include "supervisor/reexec.h"
#include "supervisor/update.h"

#define END_TIMEOUT_MS 60000u
#define QUIET_NS 10000000000u  // for what is under way, before it goes on as another program
#define QUIET_POLL_MS 20u

struct daemon {
    const struct supervisor_config *config;
    struct loop *loop;
    struct registry *registry;
    struct api *api;
    int listen_fd, signal_fd;
    bool own_socket, ending;
    struct loop_watch *signals;

    // Going on as another program: what is kept of the earlier one, or is to be of this one.
    struct reexec_kept kept;
    bool reexecuted;
    struct orphans *orphans;
    struct updates *updates;
    struct leverage *leverage;
    int program_fd;  // -1: none
    uint64_t reexec_by_ns;
    struct loop_timer *reexec;
    int rc;
    struct error *err;
};

// ---- Listening ----------------------------------------------------------------------------------

static int take_systemd_socket(int *fd, struct error *err)
{
    int count = sd_listen_fds(1);
    *fd = SD_LISTEN_FDS_START;
    if (count < 0)
        return error_set_errno(err, count, "cannot take the socket of the service manager");
    if (count == 0)
        return 0;
    if (count > 1 || sd_is_socket_unix(*fd, SOCK_STREAM, 1, NULL, 0) <= 0)
        return error_set(
            err, -EINVAL,
            "cannot take the sockets of the service manager: it is to be one listening "
            "Unix stream socket");
    return 1;
}

// The folder that the socket is in, when it is the usual one, may have to be made.
static void make_parent(const char *path)
{
    char folder[PATH_MAX];
    size_t length = strlen(path);
    while (length > 0 && path[length - 1] != '/')
        length--;
    if (length > 1 && length < sizeof(folder)) {
        memcpy(folder, path, length - 1);
        folder[length - 1] = 0;
        mkdir(folder, 0700);
    }
}

static int start_listening(struct daemon *daemon, struct error *err)
{
    if (daemon->kept.listen_fd >= 0) {
        daemon->listen_fd = daemon->kept.listen_fd;
        daemon->own_socket = daemon->kept.own_socket;
        return 0;
    }
    int rc = take_systemd_socket(&daemon->listen_fd, err);
    if (rc != 0) {
        daemon->listen_fd = rc < 0 ? -1 : daemon->listen_fd;
        return rc < 0 ? rc : 0;
    }
    make_parent(daemon->config->socket);
    daemon->listen_fd = unix_listen(daemon->config->socket, err);
    daemon->own_socket = daemon->listen_fd >= 0;
    return daemon->listen_fd < 0 ? daemon->listen_fd : 0;
}

// ---- Life ---------------------------------------------------------------------------------------

static void end(struct daemon *daemon, int rc)
{
    daemon->rc = rc;
    loop_stop(daemon->loop);
}

// ---- Going on as another program ----------------------------------------------------------------

static bool is_quiet(struct daemon *daemon)
{
    bool quiet = api_is_quiet(daemon->api) && !registry_transaction(daemon->registry);
    LIST_FOR_EACH(registry_entries(daemon->registry), node)
    {
        const struct entry *entry = BASE_CONTAINER_OF(node, struct entry, link);
        quiet &= entry->state != ENTRY_STARTING || entry->hello;  // it can be asked again
    }
    return quiet;
}

static int execute(struct daemon *daemon, struct error *err)
{
    struct reexec_kept kept = {.listen_fd = daemon->listen_fd,
                               .own_socket = daemon->own_socket,
                               .lock_fd = registry_lock(daemon->registry)};
    LIST_FOR_EACH(registry_entries(daemon->registry), node)
    {
        const struct entry *entry = BASE_CONTAINER_OF(node, struct entry, link);
        if (entry->process)
            kept.child_count += process_children(entry->process, kept.children + kept.child_count,
                                                 BASE_COUNT_OF(kept.children) - kept.child_count);
    }
    kept.child_count += leverage_children(daemon->leverage, kept.children + kept.child_count,
                                          BASE_COUNT_OF(kept.children) - kept.child_count);
    orphans_keep(daemon->orphans, &kept);
    sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%llu",
               (unsigned long long)(clock_monotonic_ns() / 1000));
    return reexec_run(daemon->program_fd, &kept, err);
}

static void on_reexec(void *opaque)
{
    struct daemon *daemon = opaque;
    struct error err;
    bool quiet = is_quiet(daemon);
    if (daemon->ending)
        return;
    if (!quiet && clock_monotonic_ns() < daemon->reexec_by_ns) {
        loop_timer_start(daemon->reexec, QUIET_POLL_MS);
        return;
    }
    if (quiet)
        execute(daemon, &err);
    else
        error_set(&err, -EBUSY, "the supervisor has requests under way");
    // It is still here.
    log_line(LOG_ERROR, "%s", err.message);
    api_reexec_failed(daemon->api, &err);
    updates_reexec_failed(daemon->updates, &err);
    close(daemon->program_fd);
    daemon->program_fd = -1;
    sd_notify(0, "READY=1");
}

static void reexec(void *opaque, int program_fd)
{
    struct daemon *daemon = opaque;
    if (daemon->program_fd >= 0)
        close(daemon->program_fd);
    daemon->program_fd = fcntl(program_fd, F_DUPFD_CLOEXEC, 0);
    daemon->reexec_by_ns = clock_monotonic_ns() + QUIET_NS;
    loop_timer_start(daemon->reexec, 0);
}

// ---- Life, continued ----------------------------------------------------------------------------

// Partitions that run are known: from now on, questions can be answered.
static void on_settled(void *opaque)
{
    struct daemon *daemon = opaque;
    const struct api_config config = {.registry = daemon->registry,
                                      .listen_fd = fcntl(daemon->listen_fd, F_DUPFD_CLOEXEC, 0),
                                      .reexec = reexec,
                                      .opaque = daemon};
    int rc = api_create(&daemon->api, &config, daemon->err);
    if (rc < 0) {
        end(daemon, rc);
        return;
    }
    leverage_begin(daemon->leverage);
    updates_settled(daemon->updates);
    sd_notify(0, "READY=1");
    log_line(LOG_INFO, "the supervisor is ready");
}

static void on_all_stopped(void *opaque)
{
    end(opaque, 0);
}

static void on_signal(void *opaque, unsigned events)
{
    struct daemon *daemon = opaque;
    struct signalfd_siginfo info;
    (void)events;
    if (read(daemon->signal_fd, &info, sizeof(info)) != sizeof(info))
        return;
    sd_notify(0, "STOPPING=1");
    if (daemon->config->stop_partitions && !daemon->ending)
        registry_stop_all(daemon->registry, END_TIMEOUT_MS, on_all_stopped, daemon);
    else
        end(daemon, 0);  // a second signal does not wait
    daemon->ending = true;
}

static int take_signals(struct daemon *daemon, struct error *err)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    daemon->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    int rc = daemon->signal_fd < 0
                 ? -errno
                 : loop_watch_create(daemon->loop, daemon->signal_fd, LOOP_READABLE, on_signal,
                                     daemon, &daemon->signals);
    return rc < 0 ? error_set_errno(err, rc, "cannot wait for signals") : 0;
}

static int open_updates(struct daemon *daemon, struct error *err)
{
    const struct supervisor_config *config = daemon->config;
    const struct updates_config updates = {.loop = daemon->loop,
                                           .registry = daemon->registry,
                                           .state_dir = config->state_dir,
                                           .trusted_dir = config->trusted_dir,
                                           .keep = config->keep,
                                           .confirm_within_s = config->confirm_within_s,
                                           .allow_downgrade = config->allow_downgrade,
                                           .reexecuted = daemon->reexecuted,
                                           .reexec = reexec,
                                           .opaque = daemon};
    int rc = updates_create(&daemon->updates, &updates, err);
    if (rc < 0)
        return rc;
    registry_set_updates(daemon->registry, daemon->updates);
    int program_fd = daemon->reexecuted ? -1 : updates_program(daemon->updates);
    if (program_fd < 0)
        return 0;
    // The installed program only starts the current one.
    const struct reexec_kept kept = {.listen_fd = daemon->listen_fd,
                                     .own_socket = daemon->own_socket,
                                     .lock_fd = registry_lock(daemon->registry)};
    if (reexec_run(program_fd, &kept, err) < 0)
        log_line(LOG_ERROR, "%s", err->message);
    close(program_fd);
    return 0;
}

static int open_leverage(struct daemon *daemon, struct error *err)
{
    const struct leverage_config config = {.registry = daemon->registry,
                                           .run_dir = daemon->config->run_dir};
    int rc = leverage_create(&daemon->leverage, &config, err);
    if (rc == 0)
        registry_set_leverage(daemon->registry, daemon->leverage);
    return rc;
}

static int open_all(struct daemon *daemon, struct error *err)
{
    const struct supervisor_config *config = daemon->config;
    int rc = loop_create(&daemon->loop, err);
    if (rc < 0)
        return rc;
    rc = loop_timer_create(daemon->loop, on_reexec, daemon, &daemon->reexec);
    if (rc == 0)
        rc = orphans_create(&daemon->orphans, daemon->loop, &daemon->kept);
    if (rc < 0)
        return error_set_errno(err, rc, "cannot start the supervisor");
    const struct registry_config registry = {.loop = daemon->loop,
                                             .lock_fd = &daemon->kept.lock_fd,
                                             .state_dir = config->state_dir,
                                             .run_dir = config->run_dir,
                                             .restart_delay_ms = config->restart_delay_ms};
    rc = registry_create(&daemon->registry, &registry, err);
    if (rc == 0)
        rc = take_signals(daemon, err);
    if (rc == 0)
        rc = start_listening(daemon, err);
    if (rc == 0)
        rc = open_updates(daemon, err);
    if (rc == 0)
        rc = open_leverage(daemon, err);
    return rc < 0 ? rc : registry_load(daemon->registry, on_settled, daemon, err);
}

static void close_all(struct daemon *daemon)
{
    if (daemon->registry) {
        registry_set_leverage(daemon->registry, NULL);
        leverage_destroy(daemon->leverage);
        registry_release(daemon->registry);
    }
    api_destroy(daemon->api);
    updates_destroy(daemon->updates);
    registry_destroy(daemon->registry);
    orphans_destroy(daemon->orphans);
    loop_timer_close(daemon->reexec);
    if (daemon->program_fd >= 0)
        close(daemon->program_fd);
    loop_watch_close(daemon->signals);
    if (daemon->signal_fd >= 0)
        close(daemon->signal_fd);
    if (daemon->listen_fd >= 0)
        close(daemon->listen_fd);
    if (daemon->own_socket)
        unlink(daemon->config->socket);
    if (daemon->loop)
        loop_destroy(daemon->loop);
}

int supervisor_run(const struct supervisor_config *config, struct error *err)
{
    struct daemon daemon = {
        .config = config, .listen_fd = -1, .signal_fd = -1, .program_fd = -1, .err = err};
    umask(077);  // what it makes is nobody else's
    daemon.reexecuted = reexec_take(&daemon.kept);
    if (daemon.reexecuted)
        log_line(LOG_INFO, "the supervisor goes on as version %s", STRAKE_VERSION);
    daemon.rc = open_all(&daemon, err);
    if (daemon.rc == 0)
        loop_run(daemon.loop);
    close_all(&daemon);
    return daemon.rc;
}
