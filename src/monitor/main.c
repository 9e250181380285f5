// SPDX-License-Identifier: BSD-2-Clause
// The monitor's process, and what its supervisor asks of it.
//
// It starts empty, with a control connection and nothing else. `start` (or `adopt`) brings all that
// it will ever have of the host. Without a supervisor it ends, unless it holds a socket at which
// the next one will ask for it (control-listen).
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "monitor/internal.h"

// ---- Crashes ------------------------------------------------------------------------------------

// For signal handlers, which get no argument.
static struct status_page *crash_page;

static void on_crash(int signal, siginfo_t *info, void *context)
{
    (void)context;
    if (crash_page) {
        if (info->si_code > 0)  // not sent by a process
            atomic_store(&crash_page->address, (uint64_t)(uintptr_t)info->si_addr);
        status_page_end(crash_page, MONITOR_CRASHED, (unsigned)signal, NULL);
    }
    raise(signal);  // SA_RESETHAND: with its default action now
}

// What is meant for the terminal's foreground reaches us too when a shell started our supervisor;
// it is the supervisor who answers it.
static void install_signals(void)
{
    static const int ignored[] = {SIGINT, SIGTERM, SIGHUP};
    static const int crashes[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGSYS};
    const struct sigaction crash = {.sa_sigaction = on_crash,
                                    .sa_flags = SA_SIGINFO | SA_RESETHAND | SA_NODEFER};
    for (size_t i = 0; i < BASE_COUNT_OF(ignored); i++)
        signal(ignored[i], SIG_IGN);
    for (size_t i = 0; i < BASE_COUNT_OF(crashes); i++)
        sigaction(crashes[i], &crash, NULL);
}

void monitor_disown(void)
{
    crash_page = NULL;
}

// ---- Answers ------------------------------------------------------------------------------------

void monitor_reply(struct monitor *monitor, struct monitor_call call, json_t *result,
                   const struct descriptors *fds)
{
    if (monitor->link && call.connection == monitor->connection)
        link_reply(monitor->link, call.id, result, fds);
    else
        json_decref(result);
}

void monitor_fail(struct monitor *monitor, struct monitor_call call, const struct error *err)
{
    if (monitor->link && call.connection == monitor->connection)
        link_fail(monitor->link, call.id, err);
}

static void reply_empty(struct monitor *monitor, struct monitor_call call)
{
    monitor_reply(monitor, call, NULL, NULL);
}

static void fail_with(struct monitor *monitor, struct monitor_call call, int code, const char *why)
{
    struct error err;
    error_set(&err, code, "%s", why);
    monitor_fail(monitor, call, &err);
}

// ---- Operations ---------------------------------------------------------------------------------

// After a failure the process stays as empty as it can be until the supervisor lets go of it.
static void op_start(struct monitor *monitor, struct monitor_call call, json_t *message,
                     struct descriptors *fds)
{
    struct error err;
    if (monitor->definition_json) {
        fail_with(monitor, call, -EBUSY, "this monitor has a partition already");
        return;
    }
    int rc = monitor_build(monitor, json_object_get(message, "partition"), fds, &err);
    crash_page = monitor->status;
    if (rc == 0)
        rc = descriptors_find(&monitor->fds, "state") < 0
                 ? partition_start(monitor->partition, true, &err)
                 : monitor_restore(monitor, &err);
    if (rc == 0)
        rc = monitor_run(monitor, json_is_true(json_object_get(message, "paused")), &err);
    if (rc == 0) {
        reply_empty(monitor, call);
        return;
    }
    if (monitor->status)
        status_page_end(monitor->status, MONITOR_ERROR, 0, err.message);
    monitor_fail(monitor, call, &err);
}

static void op_adopt(struct monitor *monitor, struct monitor_call call, json_t *message,
                     struct descriptors *fds)
{
    monitor_adopt(monitor, call, message, fds);
    if (monitor->waiting)
        crash_page = monitor->status;
}

static void op_hello(struct monitor *monitor, struct monitor_call call, json_t *message,
                     struct descriptors *fds)
{
    (void)message, (void)fds;
    const char *state = monitor->ended_ns ? "ended" : monitor->paused ? "paused" : "running";
    monitor_reply(monitor, call,
                  json_pack("{s:O,s:s,s:i,s:s}", "partition", monitor->definition_json, "state",
                            state, "pid", (int)getpid(), "version", STRAKE_VERSION),
                  NULL);
}

static void op_pause(struct monitor *monitor, struct monitor_call call, json_t *message,
                     struct descriptors *fds)
{
    (void)message, (void)fds;
    if (!monitor->paused)
        partition_pause(monitor->partition);
    monitor->paused = true;
    reply_empty(monitor, call);
}

static void op_resume(struct monitor *monitor, struct monitor_call call, json_t *message,
                      struct descriptors *fds)
{
    (void)message, (void)fds;
    if (monitor->paused)
        partition_resume(monitor->partition);
    monitor->paused = false;
    reply_empty(monitor, call);
}

static void op_stop(struct monitor *monitor, struct monitor_call call, json_t *message,
                    struct descriptors *fds)
{
    struct error err;
    (void)message, (void)fds;
    int rc = machine_press_power(partition_machine(monitor->partition));
    if (rc == 0) {
        reply_empty(monitor, call);
        return;
    }
    error_set(&err, rc,
              "the guest cannot be asked to shut down: its kernel has no driver for the power "
              "button");
    monitor_fail(monitor, call, &err);
}

static void op_kill(struct monitor *monitor, struct monitor_call call, json_t *message,
                    struct descriptors *fds)
{
    (void)message, (void)fds;
    partition_stop(monitor->partition);
    reply_empty(monitor, call);
}

static void op_stats(struct monitor *monitor, struct monitor_call call, json_t *message,
                     struct descriptors *fds)
{
    (void)message, (void)fds;
    json_t *stats = monitor_stats(monitor);
    if (stats)
        monitor_reply(monitor, call, stats, NULL);
    else
        fail_with(monitor, call, -ENOMEM, "there is no memory for an answer");
}

static void op_console_attach(struct monitor *monitor, struct monitor_call call, json_t *message,
                              struct descriptors *fds)
{
    (void)message;
    int input = descriptors_take(fds, "console-input");
    int event = descriptors_take(fds, "console-event");
    // First away from the old ones, which are closed here.
    console_ring_set_event(monitor->console, event);
    int rc = console_input_attach(monitor->input, input);
    descriptors_replace(&monitor->fds, "console-input", input);
    descriptors_replace(&monitor->fds, "console-event", event);
    if (rc < 0)
        fail_with(monitor, call, rc, "cannot take console input");
    else
        reply_empty(monitor, call);
}

struct size_call {
    struct machine *machine;
    unsigned columns, rows;
};

static void resize_on_loop(void *opaque)
{
    const struct size_call *size = opaque;
    machine_console_resize(size->machine, size->columns, size->rows);
}

static void op_console_size(struct monitor *monitor, struct monitor_call call, json_t *message,
                            struct descriptors *fds)
{
    (void)fds;
    struct size_call size = {
        .machine = partition_machine(monitor->partition),
        .columns = (unsigned)json_integer_value(json_object_get(message, "columns")),
        .rows = (unsigned)json_integer_value(json_object_get(message, "rows")),
    };
    loop_call(partition_loop(monitor->partition), resize_on_loop, &size);
    reply_empty(monitor, call);
}

static void op_device_tree(struct monitor *monitor, struct monitor_call call, json_t *message,
                           struct descriptors *fds)
{
    (void)message;
    size_t bytes;
    const void *tree = machine_device_tree(partition_machine(monitor->partition), &bytes);
    int64_t n = fd_write_full(descriptors_find(fds, "device-tree"), tree, bytes);
    struct error err;
    if (n < 0) {
        error_set_errno(&err, (int)n, "cannot write the device tree");
        monitor_fail(monitor, call, &err);
    } else {
        reply_empty(monitor, call);
    }
}

static void op_log_level(struct monitor *monitor, struct monitor_call call, json_t *message,
                         struct descriptors *fds)
{
    (void)fds;
    const char *name = json_string_value(json_object_get(message, "level"));
    enum log_level level;
    struct error err;
    if (log_parse_level(&level, name ? name : "", &err) < 0) {
        monitor_fail(monitor, call, &err);
        return;
    }
    log_set_level(level);
    reply_empty(monitor, call);
}

// A descriptor that is only held, "lifeline-NAME": what it keeps alive ends when nobody holds it
// any more, so not before this partition does, in whichever monitor. The former of the name is let
// go of once the new one is held; without one, it is let go of only.
static void op_hold(struct monitor *monitor, struct monitor_call call, json_t *message,
                    struct descriptors *fds)
{
    const char *of = json_string_value(json_object_get(message, "name"));
    int fd = descriptors_take(fds, "lifeline"), rc = 0;
    char name[DESCRIPTOR_NAME_BYTES];
    if (!of || !*of || snprintf(name, sizeof(name), "lifeline-%s", of) >= (int)sizeof(name)) {
        if (fd >= 0)
            close(fd);
        rc = -EINVAL;
    } else if (fd >= 0) {
        rc = descriptors_replace(&monitor->fds, name, fd);
    } else if ((fd = descriptors_take(&monitor->fds, name)) >= 0) {
        close(fd);
    }
    if (rc < 0)
        fail_with(monitor, call, rc, "this monitor cannot hold that");
    else
        reply_empty(monitor, call);
}

static const struct {
    const char *name;
    monitor_operation *perform;
    bool needs_partition;
} operations[] = {
    {"start", op_start, false},
    {"adopt", op_adopt, false},
    {"hello", op_hello, true},
    {"pause", op_pause, true},
    {"resume", op_resume, true},
    {"stop", op_stop, true},
    {"kill", op_kill, true},
    {"stats", op_stats, true},
    {"console-attach", op_console_attach, true},
    {"console-size", op_console_size, true},
    {"device-tree", op_device_tree, true},
    {"handover", monitor_handover, true},
    {"hold", op_hold, true},
    {"log-level", op_log_level, false},
    {"snapshot", monitor_snapshot, true},
};

// ---- Control connections ------------------------------------------------------------------------

static void on_request(void *opaque, uint64_t id, const char *op, json_t *message,
                       struct descriptors *fds)
{
    struct monitor *monitor = opaque;
    const struct monitor_call call = {.connection = monitor->connection, .id = id};
    for (size_t i = 0; i < BASE_COUNT_OF(operations); i++) {
        if (strcmp(operations[i].name, op) != 0)
            continue;
        if (operations[i].needs_partition && !monitor->waiting && !monitor->ended_ns)
            fail_with(monitor, call, -ESRCH, "this monitor has no partition yet");
        else
            operations[i].perform(monitor, call, message, fds);
        return;
    }
    fail_with(monitor, call, -EOPNOTSUPP, "this monitor does not know that operation");
}

static void on_closed(void *opaque, const struct error *why)
{
    struct monitor *monitor = opaque;
    log_line(LOG_DEBUG, "the supervisor is gone: %s", why->message);
    link_destroy(monitor->link);
    monitor->link = NULL;
    if (monitor->ended_ns || descriptors_find(&monitor->fds, "control-listen") < 0)
        loop_stop(monitor->loop);
}

static int connect_link(struct monitor *monitor, int fd, struct error *err)
{
    const struct link_events events = {
        .request = on_request, .closed = on_closed, .opaque = monitor};
    struct link *link;
    int rc = link_create(&link, monitor->loop, fd, &events, err);
    if (rc < 0)
        return rc;
    link_destroy(monitor->link);
    monitor->link = link;
    monitor->connection++;
    return 0;
}

// The newest supervisor is the supervisor.
static void supervisor_came(void *opaque, unsigned events)
{
    (void)events;
    struct monitor *monitor = opaque;
    int fd = accept4(descriptors_find(&monitor->fds, "control-listen"), NULL, NULL,
                     SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    struct error err;
    if (connect_link(monitor, fd, &err) < 0) {
        log_line(LOG_ERROR, "cannot talk with a supervisor: %s", err.message);
        close(fd);
    }
}

int monitor_listen(struct monitor *monitor)
{
    int fd = descriptors_find(&monitor->fds, "control-listen");
    if (fd < 0)
        return 0;
    return loop_watch_create(monitor->loop, fd, LOOP_READABLE, supervisor_came, monitor,
                             &monitor->control_watch);
}

// ---- The role -----------------------------------------------------------------------------------

static int serve(struct monitor *monitor, struct error *err)
{
    int rc = loop_create(&monitor->loop, err);
    if (rc == 0)
        rc = connect_link(monitor, MONITOR_CONTROL_FD, err);
    if (rc == 0)
        loop_run(monitor->loop);
    return rc;
}

static void finish(struct monitor *monitor)
{
    if (monitor->waiting) {
        monitor->retired = true;
        partition_stop(monitor->partition);
        pthread_join(monitor->waiter, NULL);
    }
    link_destroy(monitor->link);
    handover_fini(&monitor->successor);
    monitor_demolish(monitor);
    loop_destroy(monitor->loop);
}

int monitor_main(void)
{
    struct monitor monitor = {.successor = {.peer = -1, .former = -1}};
    struct error err;
    install_signals();
    setpgid(0, 0);                         // for thread_group_be_nicer, once it has handed over
    prctl(PR_SET_NAME, "strake-monitor");  // it was started as /proc/self/exe
    thread_set_turn(THREAD_SHORT_TURN_NS);
    int rc = serve(&monitor, &err);
    if (rc < 0)
        log_line(LOG_ERROR, "cannot run a monitor: %s", err.message);
    finish(&monitor);
    return rc < 0;
}
