// SPDX-License-Identifier: BSD-2-Clause
// An interceptor's process: started, or found after a supervisor's restart; what it is told, what
// it asks for, and its end.
//
// It is found by the socket RUN_DIR/NAME.sock, which it holds. What it keeps here for the case that
// it dies (`keep`) is given to its successor.
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "supervisor/leverage_internal.h"

_Static_assert(INTERCEPTOR_CONTROL_FD == MONITOR_CONTROL_FD, "as child.c has it");

#define END_MS 10000u  // for it to end by itself

// ---- Telling ------------------------------------------------------------------------------------

void interception_emit(const struct interception *interception, const char *event, json_t *more)
{
    const struct interceptor_definition *definition = &interception->definition;
    json_t *details = more ? more : json_object();
    json_object_set_new(details, "name", json_string(definition->name));
    json_object_set_new(details, "kind", json_string(interceptor_kind_name(definition->kind)));
    events_emit(registry_events(interception->leverage->registry), event, details);
}

// Strings are the entry's.
static struct partition_view view_of(const struct entry *entry)
{
    const struct definition *definition = &entry->definition;
    struct partition_view view = {.name = entry->name};
    bool up = entry->state == ENTRY_RUNNING || entry->state == ENTRY_PAUSED ||
              entry->state == ENTRY_STOPPING;
    if (!up)
        return view;
    view.state = PARTITION_UP;
    view.vsock_path = definition->vsock_path;
    view.net_count = definition->net_count;
    for (size_t i = 0; i < definition->net_count; i++) {
        const char *tap = definition->nets[i].tap;
        snprintf(view.nets[i].tap, sizeof(view.nets[i].tap), "%s", tap ? tap : "");
        definition_mac(definition, i, view.nets[i].mac);
    }
    return view;
}

// NULL: it has no process, or none that is to go on.
static struct link *link_of(const struct interception *interception)
{
    return interception->child ? child_link(interception->child) : NULL;
}

static void show_view(struct interception *interception, const struct entry *entry,
                      const struct partition_view *view)
{
    struct link *link = link_of(interception);
    // What has not answered since the supervisor came may run: nobody knows.
    if (!link || entry->hello)
        return;
    json_t *object = partition_view_to_json(view);
    if (object && !json_equal(object, json_object_get(interception->views, entry->name))) {
        json_object_set(interception->views, entry->name, object);
        link_request(link, "partition", json_pack("{s:O}", "view", object), NULL, NULL, NULL);
    }
    json_decref(object);
}

void interception_show(struct interception *interception, const struct entry *entry)
{
    const struct partition_view view = view_of(entry);
    show_view(interception, entry, &view);
}

// To a process that was found; what ran then, and runs now, may have ended in between.
static void show_all(struct interception *interception)
{
    LIST_FOR_EACH(registry_entries(interception->leverage->registry), node)
    {
        const struct entry *entry = BASE_CONTAINER_OF(node, struct entry, link);
        const struct partition_view down = {.name = entry->name};
        if (!interceptor_definition_names(&interception->definition, entry->name))
            continue;
        if (!entry->adopted)
            show_view(interception, entry, &down);
        interception_show(interception, entry);
    }
}

// ---- What it says -------------------------------------------------------------------------------

static void take_state(struct interception *interception, const json_t *message)
{
    const char *why = json_string_value(json_object_get(message, "why"));
    enum interceptor_state state =
        interceptor_state_from_name(json_string_value(json_object_get(message, "state")));
    if (state < INTERCEPTOR_STATES)
        interception_set_state(interception, state, why);
}

// Names go into a stream of lines.
static void take_event(struct interception *interception, const json_t *message)
{
    static const char good[] = "abcdefghijklmnopqrstuvwxyz0123456789-";
    const char *name = json_string_value(json_object_get(message, "name"));
    char event[64];
    if (!name || !*name || name[strspn(name, good)] ||
        snprintf(event, sizeof(event), "interceptor-%s", name) >= (int)sizeof(event))
        return;
    interception_emit(interception, event, json_copy((json_t *)message));
}

static void on_event(void *opaque, struct child *child, const char *event, json_t *message)
{
    struct interception *interception = opaque;
    (void)child;
    if (strcmp(event, "state") == 0) {
        take_state(interception, message);
    } else if (strcmp(event, "event") == 0) {
        take_event(interception, message);
    } else if (strcmp(event, "ended") == 0) {
        const char *why = json_string_value(json_object_get(message, "why"));
        interception_emit(interception, "interceptor-ended", json_pack("{s:s*}", "why", why));
        interception->ended = true;
        if (interception->ready)
            interception_ready(interception);
    }
}

static void take_kept(struct interception *interception, uint64_t id, struct descriptors *fds)
{
    descriptors_close(&interception->kept);
    interception->kept = *fds;
    fds->count = 0;
    link_reply(child_link(interception->child), id, NULL, NULL);
}

static void on_request(void *opaque, struct child *child, uint64_t id, const char *op,
                       json_t *message, struct descriptors *fds)
{
    struct interception *interception = opaque;
    struct error err;
    if (strcmp(op, "hold") == 0) {
        interception_hold(interception, id, message, fds);
    } else if (strcmp(op, "keep") == 0) {
        take_kept(interception, id, fds);
    } else {
        error_set(&err, -EOPNOTSUPP, "the supervisor does not know that operation");
        link_fail(child_link(child), id, &err);
    }
}

// ---- Its end ------------------------------------------------------------------------------------

static void describe_end(char *why, size_t bytes, int status, const struct error *closed)
{
    const char *name = status >= 0 && WIFSIGNALED(status) ? sigabbrev_np(WTERMSIG(status)) : NULL;
    if (closed && closed->code == -EPROTO)
        snprintf(why, bytes, "its process was killed: %.400s", closed->message);
    else if (name)
        snprintf(why, bytes, "its process was ended by SIG%s", name);
    else if (status > 0)
        snprintf(why, bytes, "its process ended with status %d", WEXITSTATUS(status));
    else
        snprintf(why, bytes, "its process is gone");
}

static void tell_gone(struct interception *interception, const char *why)
{
    struct error refused = interception->refused;
    interception->refused.code = 0;
    // One that was found may have done much to the host, which is its successor's to undo.
    interception_gone(interception, refused.code ? refused.message : why,
                      refused.code && !interception->found);
}

static void on_gone(void *opaque, struct child *child, int status, const struct error *closed)
{
    struct interception *interception = opaque;
    char why[ERROR_MESSAGE_BYTES];
    bool outdated = interception->outdated;
    (void)child;
    describe_end(why, sizeof(why), status, closed);
    interception_forsake(interception);
    interception->outdated = false;
    if (outdated && interception->phase == INTERCEPTION_ADDED)
        interception_run(interception);
    else
        tell_gone(interception, why);
}

void interception_forsake(struct interception *interception)
{
    struct child *child = interception->child;
    interception->child = NULL;
    interception->ready = false;
    loop_timer_stop(interception->patience);
    interception_forget_holds(interception);
    json_object_clear(interception->views);
    child_destroy(child);
}

void interception_dismiss(struct interception *interception)
{
    loop_timer_stop(interception->patience);
    if (interception->child) {
        interception->ready = false;
        interception_forget_holds(interception);
        child_dismiss(interception->child, END_MS);
    } else {
        loop_timer_start(interception->patience, 0);
    }
}

// ---- Starting and finding -----------------------------------------------------------------------

// To `start`, and to `hello`.
static unsigned answer_ms(const struct interception *interception)
{
    return registry_start_timeout_ms(interception->leverage->registry);
}

static int socket_path(const struct interception *interception, char path[PATH_MAX])
{
    int n = snprintf(path, PATH_MAX, "%s/%s.sock", interception->leverage->run_dir,
                     interception->definition.name);
    return n < PATH_MAX ? 0 : -ENAMETOOLONG;
}

void interception_discard(const struct interception *interception)
{
    char path[PATH_MAX];
    if (socket_path(interception, path) == 0)
        unlink(path);
}

static void come_to_life(struct interception *interception, const json_t *result)
{
    loop_timer_stop(interception->patience);
    interception->ready = true;
    interception->started_ns = clock_monotonic_ns();
    interception->ended |= json_object_get(result, "ended") != NULL;
    take_state(interception, result);
    interception_ready(interception);
}

// One that cannot begin, or cannot say what it does, is of no use.
static void refuse(struct interception *interception, const struct error *err)
{
    if (err->code == -ECONNRESET)
        return;  // its end is told, or it was forsaken
    interception->refused = *err;
    interception_dismiss(interception);
}

static void on_started(void *opaque, json_t *result, struct descriptors *fds,
                       const struct error *err)
{
    (void)fds;
    if (err)
        refuse(opaque, err);
    else
        come_to_life(opaque, result);
}

// A process of another version, whose successor can take over what it does: a supervisor that is
// itself a successor has one of its own version go on. It is killed as there is nothing that it
// would have to do: whatever it was in the midst of is what its successor finds also after a crash.
// What it keeps here has come before its answer. With a mount's process the mount would go.
static bool is_outdated(const struct interception *interception, const json_t *result)
{
    const char *version = json_string_value(json_object_get(result, "version"));
    const char *state = json_string_value(json_object_get(result, "state"));
    return interception->phase == INTERCEPTION_ADDED &&
           interception->definition.kind != INTERCEPTOR_MOUNT &&
           !json_object_get(result, "ended") &&
           interceptor_state_from_name(state) != INTERCEPTOR_REMOVING && version &&
           strcmp(version, STRAKE_VERSION) != 0;
}

static void on_found(void *opaque, json_t *result, struct descriptors *fds, const struct error *err)
{
    struct interception *interception = opaque;
    (void)fds;
    if (err) {
        refuse(interception, err);
        return;
    }
    if (is_outdated(interception, result)) {
        interception->outdated = true;
        interception_emit(interception, "interceptor-updated",
                          json_pack("{s:s}", "version", STRAKE_VERSION));
        child_kill(interception->child);
        return;
    }
    interception_emit(interception, "interceptor-adopted",
                      json_pack("{s:i}", "pid", (int)child_pid(interception->child)));
    show_all(interception);
    come_to_life(interception, result);
}

static json_t *views_of_all(struct interception *interception)
{
    json_t *views = json_array();
    LIST_FOR_EACH(registry_entries(interception->leverage->registry), node)
    {
        const struct entry *entry = BASE_CONTAINER_OF(node, struct entry, link);
        if (!interceptor_definition_names(&interception->definition, entry->name) || entry->hello)
            continue;
        const struct partition_view view = view_of(entry);
        json_t *object = partition_view_to_json(&view);
        json_object_set(interception->views, entry->name, object);
        json_array_append_new(views, object);
    }
    return views;
}

// What a process starts with: the socket at which it is found, and what its predecessor had kept.
static int start_descriptors(const struct interception *interception, struct descriptors *fds,
                             struct error *err)
{
    char path[PATH_MAX];
    if (socket_path(interception, path) < 0)
        return error_set_errno(err, -ENAMETOOLONG, "cannot listen for the next supervisor");
    int fd = child_listen(path, err);
    if (fd < 0)
        return fd;
    int rc = descriptors_add(fds, "control-listen", fd);
    for (size_t i = 0; i < interception->kept.count && rc == 0; i++) {
        const struct descriptor *kept = &interception->kept.list[i];
        int copy = fcntl(kept->fd, F_DUPFD_CLOEXEC, 0);
        rc = descriptors_add(fds, kept->name, copy < 0 ? -errno : copy);
    }
    return rc < 0 ? error_set_errno(err, rc, "cannot start an interceptor") : 0;
}

static struct child_events child_events_of(struct interception *interception)
{
    return (struct child_events){
        .request = on_request, .event = on_event, .gone = on_gone, .opaque = interception};
}

static int start(struct interception *interception, struct error *err)
{
    struct loop *loop = registry_loop(interception->leverage->registry);
    const struct child_events events = child_events_of(interception);
    struct descriptors fds = {0};
    int rc = start_descriptors(interception, &fds, err);
    if (rc == 0)
        rc = child_spawn(&interception->child, loop, &child_interceptor, -1,
                         interception->definition.name, true, &events, err);
    if (rc == 0) {
        interception->found = false;
        loop_timer_start(interception->patience, answer_ms(interception));
        link_request(child_link(interception->child), "start",
                     json_pack("{s:O,s:o}", "definition", interception->definition_json,
                               "partitions", views_of_all(interception)),
                     &fds, on_started, interception);
    }
    descriptors_close(&fds);
    return rc;
}

bool interception_find(struct interception *interception)
{
    struct loop *loop = registry_loop(interception->leverage->registry);
    const struct child_events events = child_events_of(interception);
    char path[PATH_MAX];
    int fd = socket_path(interception, path) < 0 ? -1 : child_reach(path, NULL);
    if (fd < 0)
        return false;
    if (child_connect(&interception->child, loop, fd, &events, NULL) < 0) {
        close(fd);
        return false;
    }
    interception->found = true;
    loop_timer_start(interception->patience, answer_ms(interception));
    link_request(child_link(interception->child), "hello", NULL, NULL, on_found, interception);
    return true;
}

void interception_run(struct interception *interception)
{
    struct error err;
    if (interception_find(interception) || start(interception, &err) == 0)
        return;
    interception->refused = err;
    interception_dismiss(interception);
}

void interception_on_patience(void *opaque)
{
    struct interception *interception = opaque;
    if (interception->child) {
        error_set(&interception->refused, -ETIMEDOUT, "its process does not answer");
        if (child_kill(interception->child))
            return;
        // Nobody knows which it is: perhaps it answers another time.
        interception_forsake(interception);
        tell_gone(interception, "");
    } else if (interception->refused.code || interception->phase == INTERCEPTION_ENDING) {
        tell_gone(interception, "");
    } else {
        interception_run(interception);
    }
}
