// SPDX-License-Identifier: BSD-2-Clause
// The process of one interceptor: what its supervisor asks of it, and what its kind gets.
//
// It starts empty, with a control connection. `start` brings the definition, views of partitions
// and descriptors; from then on the kind works. Supervisors come and go: with the socket at which
// the next one asks for it (control-listen) it goes on without one, and tells the next what that
// has to know: states, lifelines that no monitor has yet, descriptors to keep. Without it, it ends.
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "leverage/internal.h"

#define EVENTS_A_SECOND 32u  // the supervisor may be slow: a link ends at LINK_QUEUE_MAX
#define EVENTS_MISSED_MAX 64u
#define REMOVED_WAIT_MS 5000u  // for the supervisor to let go of a process that has nothing to do

// What this program has. Each kind has its own file.
static const struct interceptor_ops *const all_kinds[INTERCEPTOR_KINDS] = {
    [INTERCEPTOR_NET] = &net_ops,
    [INTERCEPTOR_FILES] = &files_ops,
    [INTERCEPTOR_MOUNT] = &mount_ops,
};

// One of the partitions that modules are in.
struct place {
    struct worker *worker;
    struct partition_view view;
    json_t *view_json;  // has its strings
    // The lifeline that its monitor is to hold.
    int lifeline;  // -1: none
    bool to_send;  // it is not known to the supervisor
    bool asked;    // the answer is to come
    interceptor_held *held;
    void *held_opaque;
};

// A request that is answered later; it may have come by a link that is no more.
struct call {
    unsigned connection;
    uint64_t id;
};

struct worker {
    struct interceptor it;  // what the kind sees
    struct link *link;
    unsigned connection;  // which one it is
    const struct worker_settings *settings;

    struct interceptor_definition definition;
    json_t *definition_json;  // NULL: not started
    int control_listen;
    struct loop_watch *control_watch;
    struct place places[INTERCEPTOR_MODULES_MAX];
    size_t place_count;

    const struct interceptor_ops *ops;
    void *kind;
    enum interceptor_state state;
    char why[ERROR_MESSAGE_BYTES];
    bool over;  // interceptor_ended

    struct descriptors kept;  // by the supervisor
    bool keep_to_send, keep_asked;
    interceptor_held *keep_done;
    void *keep_opaque;

    json_t *missed;  // events, while there is no supervisor
    uint64_t second_start_ns;
    unsigned second_events, dropped_events;

    enum { NOT_REMOVED, BEING_REMOVED, REMOVED } removal;
    struct call remove_call;
    struct loop_timer *remove_timer;
};

static struct worker *worker_of(const struct interceptor *it)
{
    return BASE_CONTAINER_OF(it, struct worker, it);
}

// ---- Answers ------------------------------------------------------------------------------------

static void fail_with(struct worker *worker, struct call call, const struct error *err)
{
    if (worker->link && call.connection == worker->connection)
        link_fail(worker->link, call.id, err);
}

static void fail_text(struct worker *worker, struct call call, int code, const char *text)
{
    struct error err;
    error_set(&err, code, "%s", text);
    fail_with(worker, call, &err);
}

// `result` (NULL: empty) is taken over.
static void reply(struct worker *worker, struct call call, json_t *result)
{
    if (worker->link && call.connection == worker->connection)
        link_reply(worker->link, call.id, result, NULL);
    else
        json_decref(result);
}

// Of the kind's text, which may quote what a guest or a file had.
static json_t *text_to_json(const char *text)
{
    json_t *string = json_string(text);
    return string ? string : json_string("(a text that cannot be shown)");
}

// ---- States and events --------------------------------------------------------------------------

static json_t *state_to_json(const struct worker *worker)
{
    json_t *object = json_pack("{s:s}", "state", interceptor_state_name(worker->state));
    if (*worker->why)
        json_object_set_new(object, "why", text_to_json(worker->why));
    return object;
}

void interceptor_set_state(struct interceptor *it, enum interceptor_state state, const char *why,
                           ...)
{
    struct worker *worker = worker_of(it);
    char text[ERROR_MESSAGE_BYTES] = "";
    if (why) {
        va_list arguments;
        va_start(arguments, why);
        vsnprintf(text, sizeof(text), why, arguments);
        va_end(arguments);
    }
    if (worker->state == state && strcmp(worker->why, text) == 0)
        return;
    worker->state = state;
    memcpy(worker->why, text, sizeof(text));
    log_line(LOG_INFO, "\"%s\" is %s%s%s", worker->definition.name, interceptor_state_name(state),
             *text ? ": " : "", text);
    if (worker->link)
        link_event(worker->link, "state", state_to_json(worker), NULL);
}

enum interceptor_state interceptor_get_state(const struct interceptor *it)
{
    return worker_of(it)->state;
}

static bool event_is_too_much(struct worker *worker)
{
    uint64_t now_ns = clock_monotonic_ns();
    if (now_ns - worker->second_start_ns >= 1000000000u) {
        if (worker->dropped_events > 0)
            log_line(LOG_WARN, "%u events were dropped", worker->dropped_events);
        worker->second_start_ns = now_ns;
        worker->second_events = worker->dropped_events = 0;
    }
    if (worker->second_events++ < EVENTS_A_SECOND)
        return false;
    worker->dropped_events++;
    return true;
}

void interceptor_event(struct interceptor *it, const char *name, json_t *details)
{
    struct worker *worker = worker_of(it);
    json_t *message = details ? details : json_object();
    json_object_set_new(message, "name", json_string(name));
    if (event_is_too_much(worker) ||
        (!worker->link && json_array_size(worker->missed) >= EVENTS_MISSED_MAX))
        json_decref(message);
    else if (worker->link)
        link_event(worker->link, "event", message, NULL);
    else
        json_array_append_new(worker->missed, message);
}

static void send_missed(struct worker *worker)
{
    size_t i;
    json_t *message;
    json_array_foreach(worker->missed, i, message)
        link_event(worker->link, "event", json_incref(message), NULL);
    json_array_clear(worker->missed);
}

void interceptor_ended(struct interceptor *it, const char *why)
{
    struct worker *worker = worker_of(it);
    worker->over = true;
    snprintf(worker->why, sizeof(worker->why), "%s", why);
    if (worker->link)
        link_event(worker->link, "ended", json_pack("{s:o}", "why", text_to_json(why)), NULL);
}

// ---- Partitions ---------------------------------------------------------------------------------

static struct place *find_place(const struct worker *worker, const char *name)
{
    for (size_t i = 0; i < worker->place_count; i++)
        if (strcmp(worker->places[i].view.name, name) == 0)
            return (struct place *)&worker->places[i];
    return NULL;
}

const struct partition_view *interceptor_partition(const struct interceptor *it, const char *name)
{
    const struct place *place = find_place(worker_of(it), name);
    return place ? &place->view : NULL;
}

// All are down until something else is said.
static void make_places(struct worker *worker)
{
    for (size_t i = 0; i < worker->definition.module_count; i++) {
        const char *name = worker->definition.modules[i].partition;
        if (find_place(worker, name))
            continue;
        worker->places[worker->place_count++] =
            (struct place){.worker = worker, .view = {.name = name}, .lifeline = -1};
    }
}

// Those of other partitions are passed over.
static int take_view(struct worker *worker, json_t *object, struct error *err)
{
    struct partition_view view;
    if (partition_view_from_json(&view, object) < 0)
        return error_set(err, -EINVAL, "a partition is not described as it should be");
    struct place *place = find_place(worker, view.name);
    if (!place)
        return 0;
    bool came = place->view.state == PARTITION_DOWN && view.state == PARTITION_UP;
    json_t *former = place->view_json;
    place->view = view;
    place->view_json = json_incref(object);
    place->to_send |= came && place->lifeline >= 0;
    if (worker->kind && worker->removal != REMOVED)
        worker->ops->partition(worker->kind, &place->view);
    json_decref(former);
    return 0;
}

// The first supervisor has started this process, and need not have said anything yet.
pid_t interceptor_supervisor(const struct interceptor *it)
{
    const struct worker *worker = worker_of(it);
    pid_t pid = worker->link ? link_peer_pid(worker->link) : 0;
    return pid == 0 && worker->link && worker->connection == 1 ? getppid() : pid;
}

int interceptor_socket(const struct interceptor *it, char *path, size_t capacity)
{
    struct sockaddr_un address = {0};
    socklen_t bytes = sizeof(address);
    int fd = worker_of(it)->control_listen;
    if (fd < 0 || getsockname(fd, (struct sockaddr *)&address, &bytes) < 0 ||
        address.sun_path[0] == 0)
        return -ENOENT;
    int n = snprintf(path, capacity, "%.*s", (int)sizeof(address.sun_path), address.sun_path);
    return n < (int)capacity ? 0 : -ENOENT;
}

// ---- Lifelines ----------------------------------------------------------------------------------

static void place_held(struct place *place, const struct error *err)
{
    interceptor_held *held = place->held;
    place->held = NULL;
    if (held)
        held(place->held_opaque, err);
}

static void send_lifelines(struct worker *worker);

// What went out and was followed by another, or was lost with its link, is of no interest.
static void hold_answered(void *opaque, json_t *result, struct descriptors *fds,
                          const struct error *err)
{
    struct place *place = opaque;
    (void)result, (void)fds;
    place->asked = false;
    if (err && err->code == -ECONNRESET)
        place->to_send = true;
    else if (place->to_send)
        send_lifelines(place->worker);
    else
        place_held(place, err);
}

static void send_lifelines(struct worker *worker)
{
    for (size_t i = 0; i < worker->place_count && worker->link; i++) {
        struct place *place = &worker->places[i];
        if (!place->to_send || place->asked)
            continue;
        struct descriptors fds = {.count = place->lifeline >= 0,
                                  .list = {{.name = "lifeline", .fd = place->lifeline}}};
        place->to_send = false;
        place->asked = true;
        link_request(worker->link, "hold", json_pack("{s:s}", "partition", place->view.name), &fds,
                     hold_answered, place);
    }
}

int interceptor_hold(struct interceptor *it, const char *partition, int fd, interceptor_held *done,
                     void *opaque)
{
    static const struct error canceled = {-ECANCELED, "another lifeline took its place"};
    struct worker *worker = worker_of(it);
    struct place *place = find_place(worker, partition);
    int copy = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 3) : -1;
    if (!place || (fd >= 0 && copy < 0))
        return place ? -errno : -ENOENT;
    if (place->lifeline >= 0)
        close(place->lifeline);
    place->lifeline = copy;
    place_held(place, &canceled);
    place->held = done;
    place->held_opaque = opaque;
    place->to_send = true;
    send_lifelines(worker);
    return 0;
}

// ---- Descriptors that the supervisor keeps ------------------------------------------------------

static void send_kept(struct worker *worker);

static void keep_ended(struct worker *worker, const struct error *err)
{
    interceptor_held *done = worker->keep_done;
    worker->keep_done = NULL;
    if (done)
        done(worker->keep_opaque, err);
}

static void keep_answered(void *opaque, json_t *result, struct descriptors *fds,
                          const struct error *err)
{
    struct worker *worker = opaque;
    (void)result, (void)fds;
    worker->keep_asked = false;
    if (err && err->code == -ECONNRESET)
        worker->keep_to_send = true;
    else if (worker->keep_to_send)
        send_kept(worker);
    else
        keep_ended(worker, err);
}

static void send_kept(struct worker *worker)
{
    if (!worker->link || !worker->keep_to_send || worker->keep_asked)
        return;
    worker->keep_to_send = false;
    worker->keep_asked = true;
    link_request(worker->link, "keep", NULL, &worker->kept, keep_answered, worker);
}

static int copy_descriptors(struct descriptors *copy, const struct descriptors *fds)
{
    int rc = 0;
    for (size_t i = 0; i < fds->count && rc == 0; i++) {
        int fd = fcntl(fds->list[i].fd, F_DUPFD_CLOEXEC, 3);
        rc = descriptors_add(copy, fds->list[i].name, fd < 0 ? -errno : fd);
    }
    if (rc < 0)
        descriptors_close(copy);
    return rc;
}

int interceptor_keep(struct interceptor *it, const struct descriptors *fds, interceptor_held *done,
                     void *opaque)
{
    static const struct error canceled = {-ECANCELED, "other descriptors took their place"};
    struct worker *worker = worker_of(it);
    struct descriptors copy = {0};
    int rc = fds ? copy_descriptors(&copy, fds) : 0;
    if (rc < 0)
        return rc;
    descriptors_close(&worker->kept);
    worker->kept = copy;
    keep_ended(worker, &canceled);
    worker->keep_done = done;
    worker->keep_opaque = opaque;
    worker->keep_to_send = true;
    send_kept(worker);
    return 0;
}

// ---- Start --------------------------------------------------------------------------------------

// The process, and what it starts, can do no more than its kind needs from here on.
static int give_up_rights(const struct interceptor_ops *ops, struct error *err)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = {0};

    for (int i = 0; prctl(PR_CAPBSET_READ, i) >= 0 && !ops->gains_rights; i++)
        if (!(ops->capabilities >> i & 1))
            prctl(PR_CAPBSET_DROP, i);  // EPERM where there are none to begin with
    if (syscall(SYS_capget, &header, sets) < 0)
        return error_set_errno(err, -errno, "cannot give up capabilities");
    for (unsigned i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
        uint32_t needed = (uint32_t)(ops->capabilities >> (32 * i));
        sets[i].permitted &= needed;
        sets[i].effective &= needed;
        sets[i].inheritable &= needed;
    }
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (syscall(SYS_capset, &header, sets) < 0)
        return error_set_errno(err, -errno, "cannot give up capabilities");
    if (!ops->gains_rights && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return error_set_errno(err, -errno, "cannot give up new privileges");
    return 0;
}

static void supervisor_came(void *opaque, unsigned events);

// The socket listens already, by the supervisor's doing. Who does it once more is who the kernel
// tells the next supervisor to kill, should this process never answer it.
static int listen_for_supervisors(struct worker *worker, struct descriptors *fds, struct error *err)
{
    worker->control_listen = descriptors_take(fds, "control-listen");
    listen(worker->control_listen, 4);
    int rc = worker->control_listen < 0
                 ? 0
                 : loop_watch_create(worker->it.loop, worker->control_listen, LOOP_READABLE,
                                     supervisor_came, worker, &worker->control_watch);
    return rc < 0 ? error_set_errno(err, rc, "cannot listen for supervisors") : 0;
}

static int take_definition(struct worker *worker, const json_t *message, struct error *err)
{
    int rc = interceptor_definition_from_json(&worker->definition,
                                              json_object_get(message, "definition"), err);
    if (rc < 0)
        return rc;
    worker->ops = worker->settings->kinds[worker->definition.kind];
    if (!worker->ops)
        return error_set(err, -EOPNOTSUPP,
                         "there are no interceptors of kind \"%s\" in this strake",
                         interceptor_kind_name(worker->definition.kind));
    worker->definition_json = interceptor_definition_to_json(&worker->definition);
    return worker->definition_json ? 0 : error_set_errno(err, -ENOMEM, "cannot start");
}

static int take_views(struct worker *worker, const json_t *message, struct error *err)
{
    size_t i;
    json_t *view;
    int rc = 0;
    make_places(worker);
    json_array_foreach(json_object_get(message, "partitions"), i, view) rc =
        rc < 0 ? rc : take_view(worker, view, err);
    return rc;
}

static int start(struct worker *worker, json_t *message, struct descriptors *fds, struct error *err)
{
    int rc = take_definition(worker, message, err);
    if (rc == 0)
        rc = give_up_rights(worker->ops, err);
    if (rc == 0)
        rc = listen_for_supervisors(worker, fds, err);
    if (rc == 0)
        rc = take_views(worker, message, err);
    if (rc < 0)
        return rc;
    worker->it.kept = *fds;
    fds->count = 0;
    log_set_name(worker->definition.name);
    log_set_level(worker->definition.log_level);
    rc = worker->ops->create(&worker->kind, &worker->it, err);
    for (size_t i = 0; i < worker->place_count && rc == 0; i++)
        worker->ops->partition(worker->kind, &worker->places[i].view);
    return rc;
}

// ---- Operations ---------------------------------------------------------------------------------

// After a failure the process is of no use, and ends when the supervisor lets go of it.
static void op_start(struct worker *worker, struct call call, json_t *message,
                     struct descriptors *fds)
{
    struct error err;
    if (worker->ops)
        fail_text(worker, call, -EBUSY, "this process has an interceptor already");
    else if (start(worker, message, fds, &err) < 0)
        fail_with(worker, call, &err);
    else
        reply(worker, call, state_to_json(worker));
}

static void op_hello(struct worker *worker, struct call call, json_t *message,
                     struct descriptors *fds)
{
    (void)message, (void)fds;
    json_t *answer = state_to_json(worker);
    json_object_set(answer, "definition", worker->definition_json);
    json_object_set_new(answer, "pid", json_integer(getpid()));
    const char *version = worker->settings->version;
    json_object_set_new(answer, "version", json_string(version ? version : STRAKE_VERSION));
    if (worker->over)
        json_object_set_new(answer, "ended", text_to_json(worker->why));
    reply(worker, call, answer);
}

static void op_partition(struct worker *worker, struct call call, json_t *message,
                         struct descriptors *fds)
{
    struct error err;
    (void)fds;
    if (take_view(worker, json_object_get(message, "view"), &err) < 0)
        fail_with(worker, call, &err);
    else
        reply(worker, call, NULL);
    send_lifelines(worker);
}

static void op_reload(struct worker *worker, struct call call, json_t *message,
                      struct descriptors *fds)
{
    (void)message, (void)fds;
    if (worker->ops->reload && worker->removal == NOT_REMOVED)
        worker->ops->reload(worker->kind);
    reply(worker, call, NULL);
}

static void op_stats(struct worker *worker, struct call call, json_t *message,
                     struct descriptors *fds)
{
    (void)message, (void)fds;
    json_t *stats = counters_to_json(&worker->it.counters);
    json_t *own = worker->ops->stats ? worker->ops->stats(worker->kind) : NULL;
    if (own)
        json_object_update(stats, own);
    json_decref(own);
    if (stats)
        reply(worker, call, stats);
    else
        fail_text(worker, call, -ENOMEM, "there is no memory for an answer");
}

static void removed(void *opaque, const struct error *err)
{
    struct worker *worker = opaque;
    if (worker->removal != BEING_REMOVED)
        return;
    if (err) {
        worker->removal = NOT_REMOVED;
        loop_timer_stop(worker->remove_timer);
        interceptor_set_state(&worker->it, INTERCEPTOR_FAILED, "%s", err->message);
        fail_with(worker, worker->remove_call, err);
        return;
    }
    worker->removal = REMOVED;
    descriptors_close(&worker->kept);
    reply(worker, worker->remove_call, NULL);
    loop_timer_start(worker->remove_timer, worker->link ? REMOVED_WAIT_MS : 0);
}

// Whoever waits is told; what the kernel undoes when a process dies is undone when it is killed.
static void remove_is_late(void *opaque)
{
    struct worker *worker = opaque;
    if (worker->removal == REMOVED)
        loop_stop(worker->it.loop);
    else
        fail_text(worker, worker->remove_call, -ETIMEDOUT,
                  "the interceptor does not get done with undoing what it did");
}

// A supervisor that comes while another's is under way waits for that.
static void op_remove(struct worker *worker, struct call call, json_t *message,
                      struct descriptors *fds)
{
    (void)message, (void)fds;
    if (worker->removal == REMOVED) {
        reply(worker, call, NULL);
        return;
    }
    if (worker->removal == BEING_REMOVED)
        fail_text(worker, worker->remove_call, -ECANCELED, "it is asked for once more");
    worker->remove_call = call;
    loop_timer_start(worker->remove_timer, worker->settings->remove_ms);
    if (worker->removal == BEING_REMOVED)
        return;
    worker->removal = BEING_REMOVED;
    interceptor_set_state(&worker->it, INTERCEPTOR_REMOVING, NULL);
    worker->ops->remove(worker->kind, removed, worker);
}

static const struct {
    const char *name;
    void (*perform)(struct worker *worker, struct call call, json_t *message,
                    struct descriptors *fds);
    bool needs_kind;
} operations[] = {
    {"start", op_start, false},  {"hello", op_hello, true}, {"partition", op_partition, true},
    {"reload", op_reload, true}, {"stats", op_stats, true}, {"remove", op_remove, true},
};

// ---- Control connections ------------------------------------------------------------------------

static void on_request(void *opaque, uint64_t id, const char *op, json_t *message,
                       struct descriptors *fds)
{
    struct worker *worker = opaque;
    const struct call call = {.connection = worker->connection, .id = id};
    for (size_t i = 0; i < BASE_COUNT_OF(operations); i++) {
        if (strcmp(operations[i].name, op) != 0)
            continue;
        if (operations[i].needs_kind && !worker->kind)
            fail_text(worker, call, -ESRCH, "this process has no interceptor yet");
        else
            operations[i].perform(worker, call, message, fds);
        return;
    }
    fail_text(worker, call, -EOPNOTSUPP, "this interceptor does not know that operation");
}

static void on_closed(void *opaque, const struct error *why)
{
    struct worker *worker = opaque;
    struct link *link = worker->link;
    log_line(LOG_DEBUG, "the supervisor is gone: %s", why->message);
    worker->link = NULL;  // what is asked from here on waits for the next one
    link_destroy(link);
    if (!worker->control_watch || !worker->kind || worker->removal == REMOVED)
        loop_stop(worker->it.loop);
}

static int connect_link(struct worker *worker, int fd, struct error *err)
{
    const struct link_events events = {
        .request = on_request, .closed = on_closed, .opaque = worker};
    struct link *link, *former = worker->link;
    int rc = link_create(&link, worker->it.loop, fd, &events, err);
    if (rc < 0)
        return rc;
    worker->link = NULL;
    link_destroy(former);
    worker->link = link;
    worker->connection++;
    return 0;
}

// The newest supervisor is the supervisor. It has nothing of what its predecessor had.
static void supervisor_came(void *opaque, unsigned events)
{
    (void)events;
    struct worker *worker = opaque;
    struct error err;
    int fd = accept4(worker->control_listen, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    if (connect_link(worker, fd, &err) < 0) {
        log_line(LOG_ERROR, "cannot talk with a supervisor: %s", err.message);
        close(fd);
        return;
    }
    worker->keep_to_send |= worker->kept.count > 0;
    send_missed(worker);
    send_lifelines(worker);
    send_kept(worker);
}

// ---- The role -----------------------------------------------------------------------------------

// A process that ends leaves nothing half done where it can be avoided.
static void finish(struct worker *worker)
{
    struct link *link = worker->link;
    worker->link = NULL;
    link_destroy(link);
    if (worker->kind)
        worker->ops->destroy(worker->kind);
    for (size_t i = 0; i < worker->place_count; i++) {
        if (worker->places[i].lifeline >= 0)
            close(worker->places[i].lifeline);
        json_decref(worker->places[i].view_json);
    }
    loop_watch_close(worker->control_watch);
    if (worker->control_listen >= 0)
        close(worker->control_listen);
    loop_timer_close(worker->remove_timer);
    descriptors_close(&worker->kept);
    descriptors_close(&worker->it.kept);
    json_decref(worker->missed);
    json_decref(worker->definition_json);
    interceptor_definition_fini(&worker->definition);
    loop_destroy(worker->it.loop);
}

static int serve(struct worker *worker, int control_fd, struct error *err)
{
    int rc = loop_create(&worker->it.loop, err);
    if (rc < 0)
        return rc;
    worker->missed = json_array();
    rc = loop_timer_create(worker->it.loop, remove_is_late, worker, &worker->remove_timer);
    if (rc < 0 || !worker->missed)
        return error_set_errno(err, -ENOMEM, "cannot run an interceptor");
    rc = connect_link(worker, control_fd, err);
    if (rc == 0)
        loop_run(worker->it.loop);
    return rc;
}

int worker_run(int control_fd, const struct worker_settings *settings, struct error *err)
{
    struct worker *worker = calloc(1, sizeof(*worker));
    if (!worker)
        return error_set_errno(err, -ENOMEM, "cannot run an interceptor");
    worker->settings = settings;
    worker->control_listen = -1;
    worker->it.definition = &worker->definition;
    interceptor_definition_init(&worker->definition);
    int rc = serve(worker, control_fd, err);
    finish(worker);
    free(worker);
    return rc;
}

int interceptor_main(void)
{
    static const struct worker_settings settings = {.kinds = all_kinds,
                                                    .remove_ms = INTERCEPTOR_REMOVE_MS};
    static const int ignored[] = {SIGINT, SIGTERM, SIGHUP};  // meant for the supervisor
    struct error err;
    for (size_t i = 0; i < BASE_COUNT_OF(ignored); i++)
        signal(ignored[i], SIG_IGN);
    prctl(PR_SET_NAME, "strake-leverage");  // it was started as /proc/self/exe
    int rc = worker_run(INTERCEPTOR_CONTROL_FD, &settings, &err);
    if (rc < 0)
        log_line(LOG_ERROR, "%s", err.message);
    return rc < 0;
}
