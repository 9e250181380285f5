// SPDX-License-Identifier: BSD-2-Clause
// A partition, seen from its supervisor: its monitor, and what both share.
//
// What is shared (status page, console ring, the socket for supervisors to come) is in a folder if
// there is one, so that it outlives us, else nameless and sealed. How the partition ended is told
// by the monitor's event, or else by the status page, or else by how the process ended.
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "supervisor/process.h"
#include "update/update.h"

#define CONSOLE_BYTES (4u << 20)  // in a folder: what there is to scroll back to
#define NAMELESS_CONSOLE_BYTES (256u << 10)
#define END_WAIT_MS 2000u  // for a monitor that is to end by itself

// ---- What is shared -----------------------------------------------------------------------------

static const char *const run_files[] = {"status", "console", "monitor.sock"};

static int run_path(char path[PATH_MAX], const struct process *process, const char *file)
{
    int n = snprintf(path, PATH_MAX, "%s/%s", process->run_dir, file);
    return n < PATH_MAX ? 0 : -ENAMETOOLONG;
}

// A new file in the folder, or a memfd.
static int make_shared(const struct process *process, const char *file, struct error *err)
{
    char path[PATH_MAX];
    if (!process->run_dir) {
        int fd = memfd_create(file, MFD_CLOEXEC | MFD_ALLOW_SEALING);
        return fd >= 0 ? fd : error_set_errno(err, -errno, "cannot make the partition's %s", file);
    }
    int rc = run_path(path, process, file);
    if (rc == 0 && unlink(path) < 0 && errno != ENOENT)
        rc = -errno;
    int fd = rc < 0 ? rc : open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return error_set_errno(err, rc < 0 ? rc : -errno, "cannot make \"%s/%s\"", process->run_dir,
                               file);
    return fd;
}

static int seal(const struct process *process, int fd, struct error *err)
{
    if (!process->run_dir && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        return error_set_errno(err, -errno, "cannot seal what is shared with a monitor");
    return 0;
}

static int make_status(struct process *process, struct error *err)
{
    process->status_fd = make_shared(process, "status", err);
    if (process->status_fd < 0)
        return process->status_fd;
    int rc = status_page_create(process->status_fd, err);
    return rc < 0 ? rc : seal(process, process->status_fd, err);
}

static int make_console(struct process *process, uint64_t bytes, bool throttle, struct error *err)
{
    if (bytes == 0)
        bytes = process->run_dir ? CONSOLE_BYTES : NAMELESS_CONSOLE_BYTES;
    process->console_fd = make_shared(process, "console", err);
    if (process->console_fd < 0)
        return process->console_fd;
    int rc = console_ring_create(process->console_fd, bytes, err);
    if (rc == 0)
        rc = seal(process, process->console_fd, err);
    if (rc == 0)
        rc = console_ring_open(&process->console, process->console_fd, false, err);
    if (rc == 0)
        console_ring_throttle(process->console, throttle);
    return rc;
}

// The ends of console input and of the event; those of the monitor go into `fds`.
static int make_console_ends(struct process *process, struct descriptors *fds, struct error *err)
{
    int ends[2];
    int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (event < 0)
        return error_set_errno(err, -errno, "cannot connect the console");
    process->event_fd = event;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0)
        return error_set_errno(err, -errno, "cannot connect the console");
    process->input_fd = ends[0];
    int rc = descriptors_add(fds, "console-input", ends[1]);
    if (rc == 0)
        rc = descriptors_add(fds, "console-event", fcntl(event, F_DUPFD_CLOEXEC, 0));
    return rc < 0 ? error_set_errno(err, rc, "cannot connect the console") : 0;
}

static int make_control_socket(struct process *process, struct descriptors *fds, struct error *err)
{
    char path[PATH_MAX];
    if (!process->run_dir)
        return 0;
    if (run_path(path, process, "monitor.sock") < 0)
        return error_set_errno(err, -ENAMETOOLONG, "cannot listen at \"%s/monitor.sock\"",
                               process->run_dir);
    int fd = child_listen(path, err);
    if (fd < 0)
        return fd;
    int rc = descriptors_add(fds, "control-listen", fd);
    return rc < 0 ? error_set_errno(err, rc, "cannot listen at \"%s\"", path) : 0;
}

static void remove_shared(const struct process *process)
{
    char path[PATH_MAX];
    for (size_t i = 0; process->run_dir && i < BASE_COUNT_OF(run_files); i++)
        if (run_path(path, process, run_files[i]) == 0)
            unlink(path);
}

// ---- The end ------------------------------------------------------------------------------------

static void process_put(struct process *process)
{
    if (--process->busy == 0 && process->destroyed)
        free(process);
}

static void tell_end(struct process *process, const struct process_end *end)
{
    if (process->ended || process->destroyed)
        return;
    process->ended = true;
    process->busy++;
    if (process->started) {
        // It came to its end before it had begun.
        struct error err;
        error_set(&err, -ECHILD, "%s", *end->why ? end->why : "the partition ended at its start");
        process_finish_start(process, NULL, &err);
    } else if (process->events.ended) {
        process->events.ended(process->events.opaque, end);
    }
    process_put(process);
}

static void end_of_status(struct process_end *end, const struct status_page *page)
{
    end->end = atomic_load(&page->end);
    end->code = atomic_load(&page->code);
    snprintf(end->why, sizeof(end->why), "%s", page->why);
}

static void describe_crash(struct process_end *end, uint64_t address)
{
    const char *name = end->code < NSIG ? sigabbrev_np((int)end->code) : NULL;
    if (!end->code)
        snprintf(end->why, sizeof(end->why), "its monitor is gone");
    else if (address)
        snprintf(end->why, sizeof(end->why), "its monitor crashed: SIG%s at address 0x%llx",
                 name ? name : "?", (unsigned long long)address);
    else
        snprintf(end->why, sizeof(end->why), "its monitor crashed: SIG%s", name ? name : "?");
}

void process_tell_gone(struct process *process, int status, const struct error *why)
{
    struct process_end end = {.end = MONITOR_CRASHED};
    struct status_page page;
    uint64_t address = 0;
    bool signalled = status >= 0 && WIFSIGNALED(status);
    if (status_page_read(&page, process->status_fd) == 0 && page.end > MONITOR_RUNNING &&
        page.end < MONITOR_ENDS)
        end_of_status(&end, &page);
    if (end.end == MONITOR_CRASHED) {
        if (end.code)
            address = atomic_load(&page.address);
        if (signalled)
            end.code = (unsigned)WTERMSIG(status);
        end.core_dumped = signalled && WCOREDUMP(status);
        describe_crash(&end, address);
        if (why && why->code == -EPROTO)
            snprintf(end.why, sizeof(end.why), "its monitor was killed: %.400s", why->message);
        else if (!end.code && status >= 0)
            snprintf(end.why, sizeof(end.why), "its monitor ended with status %d",
                     WEXITSTATUS(status));
    }
    tell_end(process, &end);
}

static void on_ended_event(struct process *process, json_t *message)
{
    struct process_end end = {.end = MONITOR_ERROR, .details = message};
    const char *name = json_string_value(json_object_get(message, "end"));
    const char *why = json_string_value(json_object_get(message, "why"));
    for (unsigned i = MONITOR_RUNNING + 1; name && i < MONITOR_ENDS; i++)
        if (strcmp(name, monitor_end_name(i)) == 0)
            end.end = i;
    end.code = (unsigned)json_integer_value(json_object_get(message, "code"));
    snprintf(end.why, sizeof(end.why), "%s", why ? why : "");
    tell_end(process, &end);
}

// ---- What monitors say --------------------------------------------------------------------------

static void connect_vsock(struct process *process, struct child *child, uint64_t id,
                          json_t *message)
{
    struct descriptors fds = {0};
    struct error err;
    json_int_t port = json_integer_value(json_object_get(message, "port"));
    // Where nobody serves updates, as in `strake run`, the port is one like others.
    bool update = port == UPDATE_PORT && process->events.update;
    int fd = update                ? process->events.update(process->events.opaque)
             : process->vsock_path ? supervisor_connect_vsock(process->vsock_path, (uint32_t)port)
                                   : -ECONNREFUSED;
    fd = descriptors_add(&fds, "socket", fd);
    if (fd < 0) {
        error_set_errno(&err, fd, "cannot connect vsock port %u", (unsigned)port);
        link_fail(child_link(child), id, &err);
    } else {
        link_reply(child_link(child), id, NULL, &fds);
    }
    descriptors_close(&fds);
}

static void on_request(void *opaque, struct child *child, uint64_t id, const char *op,
                       json_t *message, struct descriptors *fds)
{
    struct process *process = opaque;
    struct error err;
    (void)fds;
    if (strcmp(op, "vsock-connect") == 0) {
        connect_vsock(process, child, id, message);
        return;
    }
    error_set(&err, -EOPNOTSUPP, "the supervisor does not know that operation");
    link_fail(child_link(child), id, &err);
}

static void on_event(void *opaque, struct child *child, const char *event, json_t *message)
{
    struct process *process = opaque;
    if (child != process->child)
        return;
    if (strcmp(event, "ended") == 0)
        on_ended_event(process, message);
    else if (process->events.event)
        process->events.event(process->events.opaque, event, message);
}

static void on_gone(void *opaque, struct child *child, int status, const struct error *why)
{
    struct process *process = opaque;
    if (child != process->child) {
        process_other_gone(process, child);
        return;
    }
    if (process_handover_lost_old(process, status))
        return;
    process->child = NULL;
    process->busy++;
    process_tell_gone(process, status, why);
    process_put(process);
    child_destroy(child);
}

struct child_events process_child_events(struct process *process)
{
    return (struct child_events){
        .request = on_request, .event = on_event, .gone = on_gone, .opaque = process};
}

// ---- The console --------------------------------------------------------------------------------

static void on_console(void *opaque, unsigned events)
{
    struct process *process = opaque;
    uint64_t count;
    (void)events;
    (void)!read(process->event_fd, &count, sizeof(count));
    process->busy++;
    // Asked for again before it is read, so that what comes meanwhile is told.
    (void)!console_ring_await(process->console, 0);
    if (!process->destroyed && process->events.console)
        process->events.console(process->events.opaque);
    process_put(process);
}

static int watch_console(struct process *process, struct error *err)
{
    int rc = loop_watch_create(process->loop, process->event_fd, LOOP_READABLE, on_console, process,
                               &process->event_watch);
    if (rc < 0)
        return error_set_errno(err, rc, "cannot watch the console");
    // Whatever there is already is told at once.
    uint64_t one = 1;
    (void)!write(process->event_fd, &one, sizeof(one));
    return 0;
}

// ---- Starting -----------------------------------------------------------------------------------

void process_finish_start(struct process *process, json_t *result, const struct error *err)
{
    link_done *started = process->started;
    process->started = NULL;
    if (err)
        process->ended = true;
    if (err && process->perf_pid > 0)
        supervisor_discard_perf_map(process->perf_pid);
    if (started)
        started(process->started_opaque, result, NULL, err);
}

static void on_started(void *opaque, json_t *result, struct descriptors *fds,
                       const struct error *err)
{
    struct process *process = opaque;
    (void)fds;
    // Why a monitor is gone is told when it is.
    if (err && err->code == -ECONNRESET && process->child)
        return;
    process->busy++;
    process_finish_start(process, result, err);
    process_put(process);
}

static struct process *process_new(const struct process_config *config)
{
    struct process *process = calloc(1, sizeof(*process));
    if (!process)
        return NULL;
    *process = (struct process){.loop = config->loop,
                                .events = config->events,
                                .status_fd = -1,
                                .console_fd = -1,
                                .event_fd = -1,
                                .input_fd = -1};
    list_init(&process->retired);
    process->run_dir = config->run_dir ? strdup(config->run_dir) : NULL;
    if (config->run_dir && !process->run_dir) {
        free(process);
        return NULL;
    }
    return process;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void process_free(struct process *process)
{
    loop_watch_close(process->event_watch);
    console_ring_close(process->console);
    close_fd(&process->status_fd);
    close_fd(&process->console_fd);
    close_fd(&process->event_fd);
    close_fd(&process->input_fd);
    descriptors_close(&process->helpers);
    json_decref(process->definition);
    free(process->name);
    free(process->vsock_path);
    free(process->run_dir);
    process->event_watch = NULL;
    process_put(process);
}

void process_destroy(struct process *process, bool kill)
{
    if (!process || process->destroyed)
        return;
    process->destroyed = true;
    process->busy++;
    process_handover_drop(process, kill);
    struct child *child = process->child;
    process->child = NULL;
    if (!kill)
        child_destroy(child);
    else  // one that runs on without a supervisor does not end by itself
        child_end(child, process->run_dir && !process->ended ? 0 : END_WAIT_MS);
    if (kill) {
        supervisor_reap_helpers(&process->helpers);
        remove_shared(process);
    }
    process_free(process);
}

static int add_shared(struct process *process, struct descriptors *fds, struct error *err)
{
    int rc = descriptors_add(fds, "status", fcntl(process->status_fd, F_DUPFD_CLOEXEC, 0));
    if (rc == 0)
        rc = descriptors_add(fds, "console", fcntl(process->console_fd, F_DUPFD_CLOEXEC, 0));
    return rc < 0 ? error_set_errno(err, rc, "cannot start a monitor") : 0;
}

static int add_perf_map(struct process *process, const struct definition *definition,
                        struct descriptors *fds, struct error *err)
{
    if (!definition->perf_map)
        return 0;
    int fd = supervisor_open_perf_map(child_pid(process->child), err);
    if (fd < 0)
        return fd;
    process->perf_pid = child_pid(process->child);
    int rc = descriptors_add(fds, "perf-map", fd);
    return rc < 0 ? error_set_errno(err, rc, "cannot write a map for perf") : 0;
}

static int remember(struct process *process, const struct definition *definition, struct error *err)
{
    process->definition = definition_to_json(definition);
    process->name = strdup(definition->name);
    process->vsock_path = definition->vsock_path ? strdup(definition->vsock_path) : NULL;
    if (!process->definition || !process->name || (definition->vsock_path && !process->vsock_path))
        return error_set_errno(err, -ENOMEM, "cannot start a monitor");
    return 0;
}

int process_launch(struct process **out, const struct process_config *config,
                   const struct definition *definition, struct descriptors *fds, bool paused,
                   link_done *started, void *opaque, struct error *err)
{
    struct process *process = process_new(config);
    if (!process) {
        supervisor_close_resources(fds);
        return error_set_errno(err, -ENOMEM, "cannot start a monitor");
    }
    const struct child_events events = process_child_events(process);
    supervisor_take_helpers(fds, &process->helpers);
    int rc = remember(process, definition, err);
    if (rc == 0)
        rc = make_status(process, err);
    if (rc == 0)
        rc = make_console(process, config->console_bytes, config->throttle, err);
    if (rc == 0)
        rc = add_shared(process, fds, err);
    if (rc == 0)
        rc = make_console_ends(process, fds, err);
    if (rc == 0)
        rc = make_control_socket(process, fds, err);
    if (rc == 0)
        rc = watch_console(process, err);
    if (rc == 0)
        rc = child_spawn(&process->child, process->loop, &child_monitor, config->binary_fd,
                         process->name, process->run_dir, &events, err);
    if (rc == 0)
        rc = add_perf_map(process, definition, fds, err);
    if (rc == 0) {
        process->started = started;
        process->started_opaque = opaque;
        process_request(process, "start",
                        json_pack("{s:O,s:b}", "partition", process->definition, "paused", paused),
                        fds, on_started, process);
        *out = process;
    }
    descriptors_close(fds);
    if (rc < 0)
        process_destroy(process, true);
    return rc;
}

// ---- Finding what runs --------------------------------------------------------------------------

static int open_shared(const struct process *process, const char *file, struct error *err)
{
    char path[PATH_MAX];
    int rc = run_path(path, process, file);
    int fd = rc < 0 ? rc : open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    return fd >= 0 ? fd
                   : error_set_errno(err, rc < 0 ? rc : -errno, "cannot use \"%s/%s\"",
                                     process->run_dir, file);
}

static int connect_control(const struct process *process, struct error *err)
{
    char path[PATH_MAX];
    int rc = run_path(path, process, "monitor.sock");
    return rc < 0
               ? error_set_errno(err, rc, "cannot connect to \"%s/monitor.sock\"", process->run_dir)
               : child_reach(path, err);
}

static int open_all_shared(struct process *process, struct error *err)
{
    process->status_fd = open_shared(process, "status", err);
    if (process->status_fd < 0)
        return process->status_fd;
    process->console_fd = open_shared(process, "console", err);
    if (process->console_fd < 0)
        return process->console_fd;
    return console_ring_open(&process->console, process->console_fd, false, err);
}

static void on_hello(void *opaque, json_t *result, struct descriptors *fds, const struct error *err)
{
    struct process *process = opaque;
    const char *vsock =
        json_string_value(json_object_get(json_object_get(result, "partition"), "vsock"));
    const char *name =
        json_string_value(json_object_get(json_object_get(result, "partition"), "name"));
    link_done *hello = process->hello;
    (void)fds;
    process->hello = NULL;
    if (result) {
        process->definition = json_incref(json_object_get(result, "partition"));
        process->vsock_path = vsock && strchr(vsock, ',') ? strdup(strchr(vsock, ',') + 1) : NULL;
        process->name = name ? strdup(name) : NULL;
    }
    process->busy++;
    if (hello)
        hello(process->hello_opaque, result, NULL, err);
    process_put(process);
}

// The monitor that there was: it has ended, or its supervisor's folder is all there is of it.
static void tell_lost(void *opaque)
{
    struct process *process = opaque;
    struct error err;
    error_set(&err, -ECONNRESET, "the partition's monitor is gone");
    process->busy++;
    if (process->hello)
        process->hello(process->hello_opaque, NULL, NULL, &err);
    process->hello = NULL;
    loop_timer_close(process->lost);
    process->lost = NULL;
    if (!process->destroyed && process->events.console)
        process->events.console(process->events.opaque);
    if (!process->destroyed)
        process_tell_gone(process, -1, NULL);
    process_put(process);
}

static int greet(struct process *process, int fd, struct error *err)
{
    struct descriptors fds = {0};
    const struct child_events events = process_child_events(process);
    int rc = child_connect(&process->child, process->loop, fd, &events, err);
    if (rc < 0) {
        close(fd);
        return rc;
    }
    process_request(process, "hello", NULL, NULL, on_hello, process);
    // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): it is freed when it is not busy
    rc = make_console_ends(process, &fds, err);
    if (rc == 0)
        rc = watch_console(process, err);
    if (rc == 0)
        process_request(process, "console-attach", NULL, &fds, NULL, NULL);
    descriptors_close(&fds);
    return rc;
}

int process_adopt(struct process **out, const struct process_config *config, link_done *hello,
                  void *opaque, struct error *err)
{
    struct process *process = process_new(config);
    if (!process)
        return error_set_errno(err, -ENOMEM, "cannot find a monitor");
    process->hello = hello;
    process->hello_opaque = opaque;
    int rc = open_all_shared(process, err);
    if (rc == 0) {
        int fd = connect_control(process, NULL);
        if (fd >= 0)
            rc = greet(process, fd, err);
        else if ((rc = loop_timer_create(process->loop, tell_lost, process, &process->lost)) == 0)
            loop_timer_start(process->lost, 0);
    }
    if (rc < 0) {
        process->hello = NULL;
        process_destroy(process, false);
        return rc;
    }
    *out = process;
    return 0;
}

// ---- Looking ------------------------------------------------------------------------------------

void process_request(struct process *process, const char *op, json_t *arguments,
                     const struct descriptors *fds, link_done *done, void *opaque)
{
    struct error err;
    if (process->child) {
        link_request(child_link(process->child), op, arguments, fds, done, opaque);
        return;
    }
    json_decref(arguments);
    error_set(&err, -ECONNRESET, "the partition's monitor is gone");
    if (done)
        done(opaque, NULL, NULL, &err);
}

pid_t process_pid(const struct process *process)
{
    return process->child ? child_pid(process->child) : -1;
}

size_t process_children(const struct process *process, int *pidfds, size_t most)
{
    size_t count = 0, good = 0;
    if (process->child && count < most)
        pidfds[count++] = child_pidfd(process->child);
    count += process_handover_children(process, pidfds + count, most - count);
    for (size_t i = 0; i < process->helpers.count && count < most; i++)
        pidfds[count++] = process->helpers.list[i].fd;
    for (size_t i = 0; i < count; i++)
        if (pidfds[i] >= 0)
            pidfds[good++] = pidfds[i];
    return good;
}

struct console_ring *process_console(struct process *process)
{
    return process->console;
}

void process_status(const struct process *process, struct status_page *copy)
{
    if (status_page_read(copy, process->status_fd) < 0)
        *copy = (struct status_page){.end = MONITOR_CRASHED};
}

int process_console_input(const struct process *process)
{
    return process->child ? process->input_fd : -1;
}

void process_console_resize(struct process *process, unsigned columns, unsigned rows)
{
    process_request(process, "console-size",
                    json_pack("{s:i,s:i}", "columns", (int)columns, "rows", (int)rows), NULL, NULL,
                    NULL);
}
