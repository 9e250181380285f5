// SPDX-License-Identifier: BSD-2-Clause
// The table of interceptors, and what becomes of each.
//
//          add                 its process ends
//   -----> ADDED -----+      (it is started again)
//            |        +--- could not be added ---+
//            | remove, or it is over by itself   |
//            v                                   v
//         REMOVING ---- the host is as before --> ENDING -----> gone: process, partition,
//         definition
//
// A definition is written before its process is started and removed when everything else is: so
// what is found after a crash at any moment is whole, or is undone by the next supervisor.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "supervisor/leverage_internal.h"
#include "supervisor/question.h"

#define FIRST_DELAY_MS 100u  // before the second try; the first is made at once
#define MOST_DELAY_MS 10000u
#define GOOD_NS 60000000000u  // so long a run is a good one
#define REMOVE_MS 20000u      // its process takes half of that at most
#define UNDO_TRIES 3u
#define BUSY_MS 10u
#define LET_GO_NS 5000000000u

// Somebody who waits for the process's answer.
struct asked {
    struct question question;
    struct interception *interception;
    interception_answer *answer;
    void *opaque;
};

// ---- Looking ------------------------------------------------------------------------------------

struct interception *interception_of_link(struct list *link)
{
    return BASE_CONTAINER_OF(link, struct interception, link);
}

struct list *leverage_list(struct leverage *leverage)
{
    return &leverage->list;
}

const char *interception_name(const struct interception *interception)
{
    return interception->definition.name;
}

const struct interceptor_definition *
interception_definition(const struct interception *interception)
{
    return &interception->definition;
}

enum interceptor_state interception_state(const struct interception *interception)
{
    return interception->state;
}

unsigned interception_restarts(const struct interception *interception)
{
    return interception->restarts;
}

struct interception *leverage_find(struct leverage *leverage, const char *name, struct error *err)
{
    LIST_FOR_EACH(&leverage->list, node)
    if (strcmp(interception_name(interception_of_link(node)), name) == 0)
        return interception_of_link(node);
    error_set(err, -ESRCH, "there is no interceptor \"%.60s\"", name);
    return NULL;
}

// The name of the partition that is its own, or NULL.
static const char *own_partition(const struct interception *interception)
{
    return json_string_value(json_object_get(interception->definition.partition, "name"));
}

const char *leverage_names(const struct leverage *leverage, const char *partition)
{
    LIST_FOR_EACH(&leverage->list, node)
    {
        const struct interception *interception = interception_of_link(node);
        if (interception->phase != INTERCEPTION_ENDING &&
            interceptor_definition_names(&interception->definition, partition))
            return interception_name(interception);
    }
    return NULL;
}

bool leverage_owns(const struct leverage *leverage, const char *partition)
{
    LIST_FOR_EACH(&leverage->list, node)
    {
        const char *own = own_partition(interception_of_link(node));
        if (own && strcmp(own, partition) == 0)
            return true;
    }
    return false;
}

// A partition that was started before an interceptor named it has no vsock device, which all
// modules are spoken to by. NULL: all have one.
static json_t *warning_of(const struct interception *interception)
{
    const char *name;
    json_t *view;
    json_object_foreach(interception->views, name, view)
    {
        const char *state = json_string_value(json_object_get(view, "state"));
        if (state && strcmp(state, "up") == 0 && !json_object_get(view, "vsock"))
            return json_sprintf("partition \"%s\" has no vsock device to speak with its guest by, "
                                "which it gets when it is started again",
                                name);
    }
    return NULL;
}

json_t *interception_describe(const struct interception *interception)
{
    pid_t pid = interception->child ? child_pid(interception->child) : -1;
    return json_pack(
        "{s:s,s:s,s:s,s:s*,s:o*,s:o,s:o,s:i,s:O}", "name", interception_name(interception), "kind",
        interceptor_kind_name(interception->definition.kind), "state",
        interceptor_state_name(interception->state), "why",
        *interception->why ? interception->why : NULL, "warning", warning_of(interception), "since",
        events_time(interception->since_ns), "pid", pid > 0 ? json_integer(pid) : json_null(),
        "restarts", (int)interception->restarts, "definition", interception->definition_json);
}

size_t leverage_children(const struct leverage *leverage, int *pidfds, size_t most)
{
    size_t count = 0;
    LIST_FOR_EACH(&leverage->list, node)
    {
        const struct child *child = interception_of_link(node)->child;
        int pidfd = child ? child_pidfd(child) : -1;
        if (pidfd >= 0 && count < most)
            pidfds[count++] = pidfd;
    }
    return count;
}

// ---- One ----------------------------------------------------------------------------------------

void interception_set_state(struct interception *interception, enum interceptor_state state,
                            const char *why)
{
    char text[ERROR_MESSAGE_BYTES];
    snprintf(text, sizeof(text), "%s", why ? why : "");
    if (interception->state == state && strcmp(interception->why, text) == 0)
        return;
    interception->state = state;
    interception->since_ns = clock_realtime_ns();
    memcpy(interception->why, text, sizeof(text));
    interception_emit(interception, "interceptor-state",
                      json_pack("{s:s,s:s*}", "state", interceptor_state_name(state), "why",
                                *text ? text : NULL));
}

static void interception_free(struct interception *interception)
{
    list_remove(&interception->link);
    interception_forsake(interception);
    loop_timer_close(interception->patience);
    descriptors_close(&interception->kept);
    interceptor_definition_fini(&interception->definition);
    json_decref(interception->definition_json);
    json_decref(interception->views);
    free(interception);
}

static void insert_by_name(struct leverage *leverage, struct interception *interception)
{
    struct list *before = &leverage->list;
    LIST_FOR_EACH(&leverage->list, node)
    {
        if (strcmp(interception_name(interception_of_link(node)), interception_name(interception)) >
            0) {
            before = node;
            break;
        }
    }
    list_append(before, &interception->link);
}

// With a definition that is taken, also on failure.
static int interception_create(struct interception **out, struct leverage *leverage,
                               struct interceptor_definition *definition, struct error *err)
{
    struct interception *interception = calloc(1, sizeof(*interception));
    if (!interception) {
        interceptor_definition_fini(definition);
        return error_set_errno(err, -ENOMEM, "cannot keep an interceptor");
    }
    interception->leverage = leverage;
    interception->definition = *definition;
    interception->definition_json = interceptor_definition_to_json(definition);
    interception->views = json_object();
    interception->since_ns = clock_realtime_ns();
    list_init(&interception->link);
    list_init(&interception->holds);
    int rc = loop_timer_create(registry_loop(leverage->registry), interception_on_patience,
                               interception, &interception->patience);
    if (rc == 0 && (!interception->definition_json || !interception->views))
        rc = -ENOMEM;
    if (rc < 0) {
        interception_free(interception);
        return error_set_errno(err, rc, "cannot keep an interceptor");
    }
    insert_by_name(leverage, interception);
    *out = interception;
    return 0;
}

// The operation that is under way has come to its end; there may be none.
static void done(struct interception *interception, struct interception *still,
                 const struct error *err)
{
    interception_done *waiting = interception->done;
    void *opaque = interception->opaque;
    interception->done = NULL;
    if (waiting)
        waiting(opaque, still, err);
}

// ---- Asking its process -------------------------------------------------------------------------

static void on_answer(struct question *question, json_t *result, const struct error *err)
{
    const struct asked *asked = BASE_CONTAINER_OF(question, struct asked, question);
    asked->answer(asked->opaque, asked->interception, result, err);
}

void interception_ask(struct interception *interception, const char *op, unsigned timeout_ms,
                      interception_answer *answered, void *opaque)
{
    struct error err;
    if (!interception->ready) {
        error_set(&err, -EALREADY, "interceptor \"%s\" has no process at the moment: it is %s",
                  interception_name(interception), interceptor_state_name(interception->state));
        answered(opaque, interception, NULL, &err);
        return;
    }
    struct asked *asked = malloc(sizeof(*asked));
    if (asked)
        *asked = (struct asked){
            .question = {.over = on_answer, .silence = "its process does not answer"},
            .interception = interception,
            .answer = answered,
            .opaque = opaque};
    if (!asked || question_begin(&asked->question, registry_loop(interception->leverage->registry),
                                 timeout_ms) < 0) {
        free(asked);
        error_set_errno(&err, -ENOMEM, "cannot ask interceptor \"%s\"",
                        interception_name(interception));
        answered(opaque, interception, NULL, &err);
        return;
    }
    link_request(child_link(interception->child), op, NULL, NULL, question_answered,
                 &asked->question);
}

// ---- The end ------------------------------------------------------------------------------------

// On the host there is nothing of it any more, or never was.
static void begin_to_end(struct interception *interception)
{
    interception->phase = INTERCEPTION_ENDING;
    interception_dismiss(interception);
}

// -EBUSY: not yet.
static int remove_own_partition(struct interception *interception, struct error *err)
{
    const char *name = own_partition(interception);
    struct entry *entry = name ? registry_find_name(interception->leverage->registry, name) : NULL;
    if (!entry)
        return 0;
    if (entry->process || entry->state == ENTRY_RESTARTING)
        entry_kill(entry, NULL, NULL);
    return registry_remove(entry, err);
}

// Whether no monitor holds anything for it any more; one that does not say so is not waited for
// long.
static bool is_let_go(struct interception *interception)
{
    if (interception->let_go_ns == 0) {
        interception->let_go_ns = clock_monotonic_ns();
        interception_let_go(interception);
    }
    return list_empty(&interception->holds) ||
           clock_monotonic_ns() - interception->let_go_ns > LET_GO_NS;
}

static void finish(struct interception *interception)
{
    struct store *store = registry_store(interception->leverage->registry);
    const char *name = interception_name(interception);
    struct error err = interception->failed;
    int rc = is_let_go(interception) ? remove_own_partition(interception, &err) : -EBUSY;
    if (rc == -EBUSY) {
        loop_timer_start(interception->patience, BUSY_MS);
        return;
    }
    if (rc == 0)
        rc = store_remove(store, STORE_INTERCEPTOR, name, &err);
    if (rc < 0)
        log_line(LOG_ERROR, "interceptor \"%s\": %s", name, err.message);
    interception_discard(interception);
    if (!interception->failed.code)
        interception_emit(interception, "interceptor-removed", NULL);
    list_remove(&interception->link);
    done(interception, NULL, err.code ? &err : NULL);
    interception_free(interception);
}

static void on_undone(void *opaque, struct interception *interception, json_t *result,
                      const struct error *err)
{
    struct error failed;
    (void)opaque, (void)result;
    if (interception->phase != INTERCEPTION_REMOVING || (err && err->code == -ECONNRESET))
        return;  // what becomes of it shows when its process is gone
    if (err && err->code == -ETIMEDOUT) {
        child_kill(interception->child);
        return;
    }
    if (!err) {
        begin_to_end(interception);
        return;
    }
    failed = *err;
    interception->phase = INTERCEPTION_ADDED;
    error_prefix(&failed, "cannot remove interceptor \"%s\"", interception_name(interception));
    log_line(LOG_ERROR, "%s", failed.message);
    done(interception, interception, &failed);
}

void interception_remove(struct interception *interception, interception_done *waiting,
                         void *opaque)
{
    struct error err;
    bool starting = interception->child && !interception->ready;
    if (interception->phase != INTERCEPTION_ADDED || interception->done || starting) {
        error_set(&err, -EBUSY, "interceptor \"%s\" is being %s", interception_name(interception),
                  interception->phase == INTERCEPTION_ADDED ? "started" : "removed");
        if (waiting)
            waiting(opaque, interception, &err);
        return;
    }
    interception->phase = INTERCEPTION_REMOVING;
    interception->done = waiting;
    interception->opaque = opaque;
    interception->undone = 0;
    interception_set_state(interception, INTERCEPTOR_REMOVING, NULL);
    if (interception->ready)
        interception_ask(interception, "remove", REMOVE_MS, on_undone, NULL);
    else
        loop_timer_start(interception->patience, 0);  // somebody has to undo it
}

// ---- Its process comes and goes -----------------------------------------------------------------

// Whoever added it is told when all of it is there: its process, and its partition.
static void finish_adding(struct interception *interception)
{
    const char *own = own_partition(interception);
    const struct entry *entry =
        own ? registry_find_name(interception->leverage->registry, own) : NULL;
    if (!interception->done || !interception->ready || (entry && entry->state == ENTRY_STARTING))
        return;
    interception_emit(interception, "interceptor-added", NULL);
    done(interception, interception, NULL);
}

static void fail_to_add(struct interception *interception, const char *why)
{
    error_set(&interception->failed, -EINVAL, "cannot add interceptor \"%s\": %s",
              interception_name(interception), why);
    begin_to_end(interception);
}

void interception_ready(struct interception *interception)
{
    interception->awaited = false;
    if (interception->phase == INTERCEPTION_REMOVING) {
        interception_ask(interception, "remove", REMOVE_MS, on_undone, NULL);
        return;
    }
    finish_adding(interception);
    // It says so, or a supervisor has gone that was removing it.
    if (interception->ended || interception->state == INTERCEPTOR_REMOVING)
        interception_remove(interception, NULL, NULL);
}

static void start_again(struct interception *interception)
{
    unsigned delay_ms = 0;
    if (interception->started_ns && clock_monotonic_ns() - interception->started_ns >= GOOD_NS)
        interception->failures = 0;
    for (unsigned i = 0; i < interception->failures && delay_ms < MOST_DELAY_MS; i++)
        delay_ms = delay_ms ? 2 * delay_ms : FIRST_DELAY_MS;
    interception->started_ns = 0;
    interception->failures++;
    interception->restarts++;
    loop_timer_start(interception->patience, delay_ms < MOST_DELAY_MS ? delay_ms : MOST_DELAY_MS);
}

static void lost_while_removing(struct interception *interception, const char *why, bool refused)
{
    struct error err;
    if (refused) {
        // It does nothing to the host before it can be started; what an earlier one did that does
        // not end with its process may be left.
        log_line(LOG_ERROR, "interceptor \"%s\" is removed without undoing what it did: %s",
                 interception_name(interception), why);
        begin_to_end(interception);
        return;
    }
    if (++interception->undone < UNDO_TRIES) {
        start_again(interception);
        return;
    }
    interception->phase = INTERCEPTION_ADDED;
    error_set(&err, -EIO, "cannot remove interceptor \"%s\": %s", interception_name(interception),
              why);
    interception_set_state(interception, INTERCEPTOR_STARTING, why);
    done(interception, interception, &err);
    start_again(interception);
}

void interception_gone(struct interception *interception, const char *why, bool refused)
{
    if (interception->phase == INTERCEPTION_ENDING) {
        finish(interception);
    } else if (interception->phase == INTERCEPTION_REMOVING) {
        lost_while_removing(interception, why, refused);
    } else if (interception->done) {
        fail_to_add(interception, why);
    } else {
        log_line(LOG_ERROR, "interceptor \"%s\": %s", interception_name(interception), why);
        interception_set_state(interception, refused ? INTERCEPTOR_FAILED : INTERCEPTOR_STARTING,
                               why);
        interception_emit(interception, "interceptor-restarting", json_pack("{s:s}", "why", why));
        start_again(interception);
    }
}

void leverage_tell(struct leverage *leverage, const struct entry *entry)
{
    LIST_FOR_EACH(&leverage->list, node)
    {
        struct interception *interception = interception_of_link(node);
        const char *own = own_partition(interception);
        if (!interceptor_definition_names(&interception->definition, entry->name))
            continue;
        interception_show(interception, entry);
        if (!own || strcmp(own, entry->name) != 0 || interception->phase != INTERCEPTION_ADDED ||
            !interception->done || entry->state == ENTRY_STARTING)
            continue;
        const char *why = json_string_value(json_object_get(entry->last_end, "why"));
        if (entry->process)
            finish_adding(interception);
        else
            fail_to_add(interception, why ? why : "its partition ended");
    }
}

// ---- Adding -------------------------------------------------------------------------------------

// Network devices of a module that another interceptor has are not there for this one.
static int check_pair(struct leverage *leverage, const struct interceptor_module *module,
                      struct error *err)
{
    LIST_FOR_EACH(&leverage->list, node)
    {
        const struct interceptor_definition *other = &interception_of_link(node)->definition;
        for (size_t i = 0; other->kind == INTERCEPTOR_NET && i < other->module_count; i++)
            if (other->modules[i].pair == module->pair &&
                strcmp(other->modules[i].partition, module->partition) == 0)
                return error_set(err, -EBUSY,
                                 "interceptor \"%s\" has pair %u of the network devices of "
                                 "partition \"%s\"",
                                 other->name, module->pair, module->partition);
    }
    return 0;
}

// Several may lead away some of a device's packets each. With one that takes all, each would have
// but one direction.
static int check_device(struct leverage *leverage, const struct interceptor_definition *definition,
                        struct error *err)
{
    LIST_FOR_EACH(&leverage->list, node)
    {
        const struct interceptor_definition *other = &interception_of_link(node)->definition;
        if (other->kind == INTERCEPTOR_NET && strcmp(other->device, definition->device) == 0 &&
            !(other->match && definition->match))
            return error_set(err, -EBUSY,
                             "interceptor \"%s\" has device \"%s\"; several can only share one if "
                             "each has --match",
                             other->name, other->device);
    }
    return 0;
}

static int check_modules(struct leverage *leverage, const struct interceptor_definition *definition,
                         struct error *err)
{
    const char *own = json_string_value(json_object_get(definition->partition, "name"));
    int rc = 0;
    for (size_t i = 0; i < definition->module_count && rc == 0; i++) {
        const struct interceptor_module *module = &definition->modules[i];
        bool is_own = own && strcmp(own, module->partition) == 0;
        if (!is_own && !registry_find_name(leverage->registry, module->partition))
            rc = error_set(err, -EINVAL, "there is no partition \"%s\"", module->partition);
        else if (!is_own && leverage_owns(leverage, module->partition))
            rc = error_set(err, -EBUSY, "partition \"%s\" is another interceptor's own",
                           module->partition);
        else if (definition->kind == INTERCEPTOR_NET)
            rc = check_pair(leverage, module, err);
    }
    return rc;
}

static int parse(struct leverage *leverage, struct interceptor_definition *definition,
                 const json_t *object, struct error *err)
{
    int rc = interceptor_definition_from_json(definition, object, err);
    if (rc < 0)
        return rc;
    rc = interceptor_definition_each_path(definition, registry_check_path, err);
    if (rc == 0 && leverage_find(leverage, definition->name, NULL))
        rc = error_set(err, -EEXIST, "there is an interceptor \"%s\" already", definition->name);
    if (rc == 0 &&
        store_has(registry_store(leverage->registry), STORE_INTERCEPTOR, definition->name))
        rc = error_set(err, -EEXIST,
                       "there is a definition of an interceptor \"%s\", which cannot be read",
                       definition->name);
    if (rc == 0 && definition->kind == INTERCEPTOR_NET)
        rc = check_device(leverage, definition, err);
    if (rc == 0)
        rc = check_modules(leverage, definition, err);
    if (rc < 0)
        interceptor_definition_fini(definition);
    return rc;
}

// From here on a failure is undone as an interceptor's end.
static void begin(struct interception *interception)
{
    struct registry *registry = interception->leverage->registry;
    const json_t *own = interception->definition.partition;
    struct entry *entry = NULL;
    struct error err;
    int rc = store_write(registry_store(registry), STORE_INTERCEPTOR,
                         interception_name(interception), interception->definition_json, &err);
    if (rc == 0 && own)
        rc = registry_add(registry, own, &entry, &err);
    if (rc < 0) {
        // What is there under its name is not its own.
        json_decref(interception->definition.partition);
        interception->definition.partition = NULL;
        fail_to_add(interception, err.message);
        return;
    }
    interception_run(interception);
    if (entry)
        entry_start(entry, false, NULL, NULL);
}

void leverage_add(struct leverage *leverage, const json_t *object, interception_done *waiting,
                  void *opaque)
{
    struct interceptor_definition definition;
    struct interception *interception = NULL;
    struct error err;
    int rc = parse(leverage, &definition, object, &err);
    if (rc == 0)
        rc = interception_create(&interception, leverage, &definition, &err);
    if (rc < 0 || !interception) {
        waiting(opaque, NULL, &err);
        return;
    }
    interception->done = waiting;
    interception->opaque = opaque;
    begin(interception);
}

// ---- Life ---------------------------------------------------------------------------------------

static void load(void *opaque, const char *name)
{
    struct leverage *leverage = opaque;
    struct store *store = registry_store(leverage->registry);
    struct interceptor_definition definition;
    struct interception *interception;
    struct error err;
    json_t *object = store_read(store, STORE_INTERCEPTOR, name, &err);
    int rc = object ? interceptor_definition_from_json(&definition, object, &err) : err.code;
    json_decref(object);
    if (rc == 0 && strcmp(definition.name, name) != 0) {
        rc = error_set(&err, -EINVAL, "the name is \"%s\"", definition.name);
        interceptor_definition_fini(&definition);
    }
    if (rc == 0)
        rc = interception_create(&interception, leverage, &definition, &err);
    if (rc < 0)
        log_line(LOG_ERROR, "definition of interceptor \"%s\": %s", name, err.message);
}

int leverage_create(struct leverage **out, const struct leverage_config *config, struct error *err)
{
    struct leverage *leverage = calloc(1, sizeof(*leverage));
    if (!leverage)
        return error_set_errno(err, -ENOMEM, "cannot start the supervisor");
    leverage->registry = config->registry;
    list_init(&leverage->list);
    // No partition's folder: their names begin with letters and digits.
    int rc = asprintf(&leverage->run_dir, "%s/.interceptors", config->run_dir) < 0
                 ? error_set_errno(err, -ENOMEM, "cannot start the supervisor")
                 : store_for_each(registry_store(config->registry), STORE_INTERCEPTOR, load,
                                  leverage, err);
    if (rc < 0) {
        leverage_destroy(leverage);
        return rc;
    }
    *out = leverage;
    return 0;
}

static bool is_mounted(const char *directory)
{
    struct statx st;
    return statx(AT_FDCWD, directory, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_TYPE, &st) == 0 &&
           st.stx_attributes & STATX_ATTR_MOUNT_ROOT;
}

// A mount with a partition of its own is over when neither its process nor the mount is there any
// more: the host was started anew, or all was killed.
static void find_again(struct interception *interception)
{
    const struct interceptor_definition *definition = &interception->definition;
    interception->awaited = interception_find(interception);
    if (interception->awaited)
        return;
    if (definition->partition && !is_mounted(definition->directory)) {
        log_line(LOG_INFO, "interceptor \"%s\" is removed: its mount is gone", definition->name);
        begin_to_end(interception);
    } else {
        interception_run(interception);
    }
}

void leverage_begin(struct leverage *leverage)
{
    if (mkdir(leverage->run_dir, 0700) < 0 && errno != EEXIST)
        log_line(LOG_ERROR, "cannot create \"%s\": %s", leverage->run_dir, strerror(errno));
    LIST_FOR_EACH(&leverage->list, node)
    find_again(interception_of_link(node));
}

bool leverage_found_all(const struct leverage *leverage)
{
    bool all = true;
    if (!leverage)
        return true;
    LIST_FOR_EACH(&leverage->list, node)
    {
        const struct interception *interception = interception_of_link(node);
        all &= !interception->awaited || interception->phase != INTERCEPTION_ADDED;
    }
    return all;
}

void leverage_destroy(struct leverage *leverage)
{
    struct error err;
    if (!leverage)
        return;
    error_set(&err, -ECANCELED, "the supervisor is ending");
    LIST_FOR_EACH(&leverage->list, node)
    {
        struct interception *interception = interception_of_link(node);
        done(interception, NULL, &err);
        interception_free(interception);
    }
    free(leverage->run_dir);
    free(leverage);
}
