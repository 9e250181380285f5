// SPDX-License-Identifier: BSD-2-Clause
// The API: one table of routes, and what each does. docs/api.yaml describes the same.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "supervisor/api.h"
#include "supervisor/attach.h"
#include "supervisor/leverage.h"
#include "supervisor/program.h"
#include "supervisor/transaction.h"
#include "supervisor/update.h"

#define STOP_TIMEOUT_MS 60000u
#define STOP_TIMEOUT_MS_MAX 86400000u
#define STATS_TIMEOUT_MS 5000u
#define RELOAD_TIMEOUT_MS 10000u
#define SCREEN_MAX 65535
#define SELF_TEST_MS 60000u
#define HISTORY_RECORDS 100u

struct api {
    struct api_config config;
    struct registry *registry;
    struct http_server *server;
    uint64_t started_ns;
    struct all *all;             // under way, or NULL
    struct error reexec_failed;  // the last time; code 0: it has not
};

// ---- What handlers share ------------------------------------------------------------------------

// The partition that the path names; NULL when there is none, which was replied.
static struct entry *entry_of(const struct api *api, struct http_request *request)
{
    struct entry *entry;
    struct error err;
    if (registry_find_id(api->registry, http_request_id(request), &entry, &err) == 0)
        return entry;
    http_reply_error(request, &err);
    return NULL;
}

// The body's object with no other keys; NULL when it is wrong, which was replied.
static json_t *object_of(struct http_request *request, const char *keys)
{
    struct error err;
    json_t *object = http_request_object(request, keys, &err);
    if (!object)
        http_reply_error(request, &err);
    return object;
}

// A number in the body; `*value` stays as it is when it is left out. False: it is wrong, which was
// replied.
static bool take_number(struct http_request *request, const json_t *object, const char *key,
                        json_int_t least, json_int_t most, unsigned *value)
{
    struct error err;
    const json_t *given = json_object_get(object, key);
    if (!given)
        return true;
    json_int_t number = json_integer_value(given);
    if (json_is_integer(given) && number >= least && number <= most) {
        *value = (unsigned)number;
        return true;
    }
    error_set(&err, -EINVAL, "\"%s\" is not a whole number from %lld to %lld", key,
              (long long)least, (long long)most);
    http_reply_error(request, &err);
    return false;
}

static bool take_flag(struct http_request *request, const json_t *object, const char *key,
                      bool *value)
{
    struct error err;
    const json_t *given = json_object_get(object, key);
    if (!given || json_is_boolean(given)) {
        *value = given ? json_is_true(given) : *value;
        return true;
    }
    error_set(&err, -EINVAL, "\"%s\" is neither true nor false", key);
    http_reply_error(request, &err);
    return false;
}

// A number in the query, as take_number.
static bool query_number(struct http_request *request, const char *name, uint64_t *value)
{
    struct error err;
    const char *text = http_request_query(request, name);
    char *end;
    if (!text)
        return true;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (*text >= '0' && *text <= '9' && !*end && errno == 0) {
        *value = number;
        return true;
    }
    error_set(&err, -EINVAL, "query \"%s\" is not a number", name);
    http_reply_error(request, &err);
    return false;
}

// For operations: what the partition is then.
static void on_done(void *opaque, struct entry *entry, const struct error *err)
{
    if (err)
        http_reply_error(opaque, err);
    else
        http_reply_json(opaque, 200, entry_describe(entry, false));
}

// ---- Partitions ---------------------------------------------------------------------------------

static void on_list(void *opaque, struct http_request *request)
{
    const struct api *api = opaque;
    const char *name = http_request_query(request, "name");
    json_t *list = json_array();
    LIST_FOR_EACH(registry_entries(api->registry), node)
    {
        const struct entry *entry = BASE_CONTAINER_OF(node, struct entry, link);
        if (!name || strcmp(name, entry->name) == 0)
            json_array_append_new(list, entry_describe(entry, false));
    }
    http_reply_json(request, 200, list);
}

static void on_create(void *opaque, struct http_request *request)
{
    const struct api *api = opaque;
    struct entry *entry;
    struct error err;
    json_t *definition = object_of(request, NULL);
    if (!definition)
        return;
    if (registry_add(api->registry, definition, &entry, &err) < 0)
        http_reply_error(request, &err);
    else
        http_reply_json(request, 201, entry_describe(entry, true));
    json_decref(definition);
}

static void on_show(void *opaque, struct http_request *request)
{
    const struct entry *entry = entry_of(opaque, request);
    if (entry)
        http_reply_json(request, 200, entry_describe(entry, true));
}

static void on_remove(void *opaque, struct http_request *request)
{
    struct entry *entry = entry_of(opaque, request);
    struct error err;
    if (entry && registry_remove(entry, &err) < 0)
        http_reply_error(request, &err);
    else if (entry)
        http_reply_empty(request);
}

// ---- Operations ---------------------------------------------------------------------------------

static void on_start(void *opaque, struct http_request *request)
{
    struct entry *entry = entry_of(opaque, request);
    json_t *body = entry ? object_of(request, "paused") : NULL;
    bool paused = false;
    if (body && take_flag(request, body, "paused", &paused))
        entry_start(entry, paused, on_done, request);
    json_decref(body);
}

static void stop_or_restart(void *opaque, struct http_request *request,
                            void (*act)(struct entry *entry, unsigned timeout_ms, entry_done *done,
                                        void *opaque))
{
    struct entry *entry = entry_of(opaque, request);
    json_t *body = entry ? object_of(request, "timeout_ms") : NULL;
    unsigned timeout_ms = STOP_TIMEOUT_MS;
    if (body && take_number(request, body, "timeout_ms", 0, STOP_TIMEOUT_MS_MAX, &timeout_ms))
        act(entry, timeout_ms, on_done, request);
    json_decref(body);
}

static void on_stop(void *opaque, struct http_request *request)
{
    stop_or_restart(opaque, request, entry_stop);
}

static void on_restart(void *opaque, struct http_request *request)
{
    stop_or_restart(opaque, request, entry_restart);
}

static void plainly(void *opaque, struct http_request *request,
                    void (*act)(struct entry *entry, entry_done *done, void *opaque))
{
    struct entry *entry = entry_of(opaque, request);
    json_t *body = entry ? object_of(request, "") : NULL;
    if (body)
        act(entry, on_done, request);
    json_decref(body);
}

static void on_kill(void *opaque, struct http_request *request)
{
    plainly(opaque, request, entry_kill);
}

static void on_pause(void *opaque, struct http_request *request)
{
    plainly(opaque, request, entry_pause);
}

static void on_resume(void *opaque, struct http_request *request)
{
    plainly(opaque, request, entry_resume);
}

// The program that is to be the next monitor: -1 is this one.
static int open_binary(const json_t *body, int *fd, struct error *err)
{
    const json_t *path = json_object_get(body, "binary");
    *fd = -1;
    if (!path)
        return 0;
    if (!json_is_string(path) || *json_string_value(path) != '/')
        return error_set(err, -EINVAL, "\"binary\" is not an absolute path");
    *fd = supervisor_open_image(json_string_value(path), "program", err);
    return *fd < 0 ? *fd : 0;
}

static void on_handover(void *opaque, struct http_request *request)
{
    struct entry *entry = entry_of(opaque, request);
    json_t *body = entry ? object_of(request, "binary") : NULL;
    struct error err;
    int fd = -1;
    if (body && open_binary(body, &fd, &err) < 0)
        http_reply_error(request, &err);
    else if (body)
        entry_handover(entry, fd, on_done, request);
    if (fd >= 0)
        close(fd);
    json_decref(body);
}

// All partitions are being handed over, and perhaps the supervisor with them.
struct all {
    struct api *api;
    struct http_request *request;
    int program_fd;
    bool supervisor;
    struct program_test *test;
};

static void all_free(struct all *all)
{
    all->api->all = NULL;
    program_test_cancel(all->test);
    if (all->program_fd >= 0)
        close(all->program_fd);
    free(all);
}

static void on_all_handed_over(void *opaque, enum transaction_outcome outcome, json_t *result)
{
    struct all *all = opaque;
    const struct api_config *config = &all->api->config;
    http_reply_json(all->request, 200, json_incref(result));
    if (all->supervisor && outcome == TRANSACTION_DONE) {
        all->api->reexec_failed.code = 0;
        config->reexec(config->opaque, all->program_fd);
    }
    all_free(all);
}

static void hand_all_over(struct all *all)
{
    struct error err;
    if (transaction_begin(all->api->registry, all->program_fd, on_all_handed_over, all, &err) == 0)
        return;
    http_reply_error(all->request, &err);
    all_free(all);
}

static void on_tested(void *opaque, const struct program_facts *facts, const struct error *err)
{
    struct all *all = opaque;
    (void)facts;
    all->test = NULL;
    if (!err) {
        hand_all_over(all);
        return;
    }
    struct error refused = *err;
    refused.code = -EINVAL;
    error_prefix(&refused, "the supervisor cannot go on in that program");
    http_reply_error(all->request, &refused);
    all_free(all);
}

// The program, which has to run guests before the supervisor goes on in it.
static int begin_all(struct all *all, const json_t *body, struct error *err)
{
    int fd, rc = open_binary(body, &fd, err);
    if (rc == 0 && fd < 0 && all->supervisor)
        rc = fd = program_of(getpid(), err);
    if (rc >= 0 && fd >= 0) {
        rc = all->program_fd = program_seal(fd, err);
        close(fd);
    }
    if (rc < 0)
        return rc;
    if (all->supervisor)
        return program_test_begin(&all->test, registry_loop(all->api->registry), all->program_fd,
                                  SELF_TEST_MS, on_tested, all, err);
    hand_all_over(all);
    return 0;
}

static void on_handover_all(void *opaque, struct http_request *request)
{
    struct api *api = opaque;
    json_t *body = object_of(request, "binary supervisor");
    struct error err = {0};
    bool supervisor = false;
    if (!body || !take_flag(request, body, "supervisor", &supervisor)) {
        json_decref(body);
        return;
    }
    struct all *all = api->all ? NULL : calloc(1, sizeof(*all));
    if (all) {
        *all = (struct all){
            .api = api, .request = request, .program_fd = -1, .supervisor = supervisor};
        api->all = all;
        if (begin_all(all, body, &err) < 0)
            all_free(all);
    } else if (api->all) {
        error_set(&err, -EBUSY, "all partitions are being handed over already");
    } else {
        error_set_errno(&err, -ENOMEM, "cannot hand all partitions over");
    }
    if (err.code)
        http_reply_error(request, &err);
    json_decref(body);
}

// A path that the supervisor, which is in another folder than its clients, can use; NULL: it is
// wrong, which was replied.
static const char *take_path(struct http_request *request, const json_t *body)
{
    struct error err;
    const char *path = json_string_value(json_object_get(body, "path"));
    if (path && *path == '/')
        return path;
    error_set(&err, -EINVAL, "\"path\" is not an absolute path");
    http_reply_error(request, &err);
    return NULL;
}

static void on_snapshot(void *opaque, struct http_request *request)
{
    struct entry *entry = entry_of(opaque, request);
    json_t *body = entry ? object_of(request, "path") : NULL;
    const char *path = body ? take_path(request, body) : NULL;
    if (path)
        entry_snapshot(entry, path, on_done, request);
    json_decref(body);
}

static void on_restored(void *opaque, struct entry *entry, const struct error *err)
{
    if (err)
        http_reply_error(opaque, err);
    else
        http_reply_json(opaque, 201, entry_describe(entry, true));
}

// What of a definition may differ from the snapshot's: names, where devices lead, and where this
// host has what the guest is started with.
static bool take_changes(struct http_request *request, const json_t *body, json_t **changes)
{
    static const char *const allowed[] = {"name",      "disk",   "net",    "vsock",   "restart",
                                          "autostart", "kernel", "initrd", "firmware"};
    struct error err;
    const char *key;
    json_t *value;
    *changes = json_object_get(body, "changes");
    if (*changes && !json_is_object(*changes)) {
        error_set(&err, -EINVAL, "\"changes\" is not an object");
        http_reply_error(request, &err);
        return false;
    }
    json_object_foreach(*changes, key, value)
    {
        size_t i = 0;
        while (i < BASE_COUNT_OF(allowed) && strcmp(allowed[i], key) != 0)
            i++;
        if (i < BASE_COUNT_OF(allowed))
            continue;
        error_set(&err, -EINVAL, "\"%.40s\" of a snapshot's partition cannot be changed", key);
        http_reply_error(request, &err);
        return false;
    }
    return true;
}

static void on_restore(void *opaque, struct http_request *request)
{
    const struct api *api = opaque;
    json_t *body = object_of(request, "path paused changes"), *changes;
    const char *path = body ? take_path(request, body) : NULL;
    bool paused = false;
    if (path && take_flag(request, body, "paused", &paused) &&
        take_changes(request, body, &changes))
        registry_restore(api->registry, path, changes, paused, on_restored, request);
    json_decref(body);
}

static void on_stats_answer(void *opaque, struct entry *entry, json_t *result,
                            const struct error *err)
{
    (void)entry;
    if (err)
        http_reply_error(opaque, err);
    else
        http_reply_json(opaque, 200, json_deep_copy(result));
}

static void on_stats(void *opaque, struct http_request *request)
{
    struct entry *entry = entry_of(opaque, request);
    struct error err;
    if (entry && entry->process) {
        entry_ask(entry, "stats", NULL, STATS_TIMEOUT_MS, on_stats_answer, request);
    } else if (entry) {
        error_set(&err, -EALREADY, "partition \"%s\" counts nothing: it is %s", entry->name,
                  entry_state_name(entry->state));
        http_reply_error(request, &err);
    }
}

// ---- Console ------------------------------------------------------------------------------------

static void on_console(void *opaque, struct http_request *request)
{
    struct entry *entry = entry_of(opaque, request);
    uint64_t run = 0, follow = 0;
    struct attach_from from = {.lines = UINT64_MAX};
    if (!entry || !query_number(request, "run", &run) ||
        !query_number(request, "position", &from.position) ||
        !query_number(request, "lines", &from.lines) || !query_number(request, "follow", &follow))
        return;
    from.run = (unsigned)run;
    from.follow = follow != 0;
    attach_output(entry, request, &from);
}

static void on_input(void *opaque, struct http_request *request)
{
    struct entry *entry = entry_of(opaque, request);
    struct error err;
    size_t count;
    if (!entry)
        return;
    const void *bytes = http_request_body(request, &count);
    int64_t taken = attach_input(entry, bytes, count, &err);
    if (taken < 0)
        http_reply_error(request, &err);
    else
        http_reply_json(request, 200, json_pack("{s:I}", "taken", (json_int_t)taken));
}

static void on_screen(void *opaque, struct http_request *request)
{
    struct entry *entry = entry_of(opaque, request);
    json_t *body = entry ? object_of(request, "columns rows") : NULL;
    unsigned columns = 0, rows = 0;
    if (body && take_number(request, body, "columns", 0, SCREEN_MAX, &columns) &&
        take_number(request, body, "rows", 0, SCREEN_MAX, &rows)) {
        if (entry->process && columns && rows)
            process_console_resize(entry->process, columns, rows);
        http_reply_empty(request);
    }
    json_decref(body);
}

// ---- Updates ------------------------------------------------------------------------------------

static struct updates *updates_of(const struct api *api)
{
    return registry_updates(api->registry);
}

static void on_update(void *opaque, struct http_request *request)
{
    http_reply_json(request, 200, updates_describe(updates_of(opaque)));
}

static void on_update_history(void *opaque, struct http_request *request)
{
    uint64_t limit = HISTORY_RECORDS;
    struct error err;
    if (!query_number(request, "limit", &limit))
        return;
    json_t *records = updates_history(updates_of(opaque), limit, &err);
    if (records)
        http_reply_json(request, 200, records);
    else
        http_reply_error(request, &err);
}

static void on_rolled_back(void *opaque, json_t *result, const struct error *err)
{
    if (err)
        http_reply_error(opaque, err);
    else
        http_reply_json(opaque, 200, json_incref(result));
}

static void on_update_rollback(void *opaque, struct http_request *request)
{
    json_t *body = object_of(request, "version");
    const json_t *version = json_object_get(body, "version");
    struct error err;
    if (version && !json_is_string(version)) {
        error_set(&err, -EINVAL, "\"version\" is not a text");
        http_reply_error(request, &err);
    } else if (body) {
        updates_rollback(updates_of(opaque), json_string_value(version), on_rolled_back, request);
    }
    json_decref(body);
}

static void on_update_confirm(void *opaque, struct http_request *request)
{
    struct updates *updates = updates_of(opaque);
    json_t *body = object_of(request, "");
    struct error err;
    if (body && updates_confirm(updates, &err) < 0)
        http_reply_error(request, &err);
    else if (body)
        http_reply_json(request, 200, updates_describe(updates));
    json_decref(body);
}

// ---- Interceptors -------------------------------------------------------------------------------

static struct leverage *leverage_of(const struct api *api)
{
    return registry_leverage(api->registry);
}

// The interceptor that the path names; NULL when there is none, which was replied.
static struct interception *interception_of(const struct api *api, struct http_request *request)
{
    struct error err;
    struct interception *interception =
        leverage_find(leverage_of(api), http_request_id(request), &err);
    if (!interception)
        http_reply_error(request, &err);
    return interception;
}

static void on_interceptors(void *opaque, struct http_request *request)
{
    json_t *list = json_array();
    LIST_FOR_EACH(leverage_list(leverage_of(opaque)), node)
    json_array_append_new(list, interception_describe(interception_of_link(node)));
    http_reply_json(request, 200, list);
}

static void on_added(void *opaque, struct interception *interception, const struct error *err)
{
    if (err)
        http_reply_error(opaque, err);
    else
        http_reply_json(opaque, 201, interception_describe(interception));
}

static void on_interceptor_add(void *opaque, struct http_request *request)
{
    json_t *definition = object_of(request, NULL);
    if (definition)
        leverage_add(leverage_of(opaque), definition, on_added, request);
    json_decref(definition);
}

static void on_interceptor(void *opaque, struct http_request *request)
{
    const struct interception *interception = interception_of(opaque, request);
    if (interception)
        http_reply_json(request, 200, interception_describe(interception));
}

static void on_removed(void *opaque, struct interception *interception, const struct error *err)
{
    (void)interception;
    if (err)
        http_reply_error(opaque, err);
    else
        http_reply_empty(opaque);
}

static void on_interceptor_remove(void *opaque, struct http_request *request)
{
    struct interception *interception = interception_of(opaque, request);
    if (interception)
        interception_remove(interception, on_removed, request);
}

static void on_interceptor_stats_answer(void *opaque, struct interception *interception,
                                        json_t *result, const struct error *err)
{
    (void)interception;
    if (err) {
        http_reply_error(opaque, err);
        return;
    }
    json_object_del(result, "id");
    http_reply_json(opaque, 200, json_incref(result));
}

static void on_interceptor_stats(void *opaque, struct http_request *request)
{
    struct interception *interception = interception_of(opaque, request);
    if (interception)
        interception_ask(interception, "stats", STATS_TIMEOUT_MS, on_interceptor_stats_answer,
                         request);
}

static void on_reloaded(void *opaque, struct interception *interception, json_t *result,
                        const struct error *err)
{
    (void)result;
    if (err)
        http_reply_error(opaque, err);
    else
        http_reply_json(opaque, 200, interception_describe(interception));
}

static void on_interceptor_reload(void *opaque, struct http_request *request)
{
    struct interception *interception = interception_of(opaque, request);
    json_t *body = interception ? object_of(request, "") : NULL;
    if (body)
        interception_ask(interception, "reload", RELOAD_TIMEOUT_MS, on_reloaded, request);
    json_decref(body);
}

// ---- The supervisor -----------------------------------------------------------------------------

static void on_events(void *opaque, struct http_request *request)
{
    const struct api *api = opaque;
    uint64_t after = 0;
    if (query_number(request, "after", &after))
        events_follow(registry_events(api->registry), request, after);
}

static void on_about(void *opaque, struct http_request *request);
static void on_metrics(void *opaque, struct http_request *request);

#define PARTITION "/v1/partitions/{id}"
#define INTERCEPTOR "/v1/interceptors/{name}"

static const struct http_route routes[] = {
    {"GET", "/v1", NULL, NULL, on_about},
    {"GET", "/v1/events", "after", NULL, on_events},
    {"GET", "/v1/partitions", "name", NULL, on_list},
    {"POST", "/v1/partitions", NULL, HTTP_JSON, on_create},
    {"GET", PARTITION, NULL, NULL, on_show},
    {"DELETE", PARTITION, NULL, NULL, on_remove},
    {"POST", PARTITION "/start", NULL, HTTP_JSON, on_start},
    {"POST", PARTITION "/stop", NULL, HTTP_JSON, on_stop},
    {"POST", PARTITION "/kill", NULL, HTTP_JSON, on_kill},
    {"POST", PARTITION "/restart", NULL, HTTP_JSON, on_restart},
    {"POST", PARTITION "/pause", NULL, HTTP_JSON, on_pause},
    {"POST", PARTITION "/resume", NULL, HTTP_JSON, on_resume},
    {"POST", PARTITION "/handover", NULL, HTTP_JSON, on_handover},
    {"POST", "/v1/handover", NULL, HTTP_JSON, on_handover_all},
    {"POST", PARTITION "/snapshot", NULL, HTTP_JSON, on_snapshot},
    {"POST", "/v1/restore", NULL, HTTP_JSON, on_restore},
    {"GET", PARTITION "/stats", NULL, NULL, on_stats},
    {"GET", PARTITION "/console", "run position lines follow", NULL, on_console},
    {"POST", PARTITION "/console", NULL, HTTP_BYTES, on_input},
    {"PUT", PARTITION "/console/size", NULL, HTTP_JSON, on_screen},
    {"GET", "/v1/update", NULL, NULL, on_update},
    {"GET", "/v1/update/history", "limit", NULL, on_update_history},
    {"POST", "/v1/update/rollback", NULL, HTTP_JSON, on_update_rollback},
    {"POST", "/v1/update/confirm", NULL, HTTP_JSON, on_update_confirm},
    {"GET", "/v1/interceptors", NULL, NULL, on_interceptors},
    {"POST", "/v1/interceptors", NULL, HTTP_JSON, on_interceptor_add},
    {"GET", INTERCEPTOR, NULL, NULL, on_interceptor},
    {"DELETE", INTERCEPTOR, NULL, NULL, on_interceptor_remove},
    {"GET", INTERCEPTOR "/stats", NULL, NULL, on_interceptor_stats},
    {"POST", INTERCEPTOR "/reload", NULL, HTTP_JSON, on_interceptor_reload},
    {"GET", "/metrics", NULL, NULL, on_metrics},
};

static void on_about(void *opaque, struct http_request *request)
{
    const struct api *api = opaque;
    json_t *list = json_array();
    for (size_t i = 0; i < BASE_COUNT_OF(routes); i++)
        json_array_append_new(list, json_pack("{s:s,s:s,s:s?,s:s?}", "method", routes[i].method,
                                              "path", routes[i].path, "query", routes[i].query,
                                              "body", routes[i].body));
    http_reply_json(
        request, 200,
        json_pack("{s:s,s:i,s:o,s:s?,s:o}", "version", STRAKE_VERSION, "pid", (int)getpid(),
                  "started", events_time(api->started_ns), "reexec_failed",
                  api->reexec_failed.code ? api->reexec_failed.message : NULL, "routes", list));
}

static void on_metrics(void *opaque, struct http_request *request)
{
    const struct api *api = opaque;
    metrics_reply(api->registry, api->server, routes, BASE_COUNT_OF(routes), request);
}

int api_create(struct api **out, const struct api_config *config, struct error *err)
{
    struct api *api = calloc(1, sizeof(*api));
    if (!api) {
        close(config->listen_fd);
        return error_set_errno(err, -ENOMEM, "cannot serve the API");
    }
    *api = (struct api){
        .config = *config, .registry = config->registry, .started_ns = clock_realtime_ns()};
    const struct http_config http = {.loop = registry_loop(config->registry),
                                     .listen_fd = config->listen_fd,
                                     .routes = routes,
                                     .route_count = BASE_COUNT_OF(routes),
                                     .opaque = api};
    int rc = http_server_create(&api->server, &http, err);
    if (rc < 0) {
        free(api);
        return rc;
    }
    *out = api;
    return 0;
}

bool api_is_quiet(const struct api *api)
{
    return http_server_is_quiet(api->server);
}

void api_reexec_failed(struct api *api, const struct error *err)
{
    api->reexec_failed = *err;
}

void api_destroy(struct api *api)
{
    if (!api)
        return;
    if (api->all)
        all_free(api->all);
    http_server_destroy(api->server);
    free(api);
}
