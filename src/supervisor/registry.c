// SPDX-License-Identifier: BSD-2-Clause
// The table of partitions.
//
// An id is a handle, after the number of the supervisor's life in which it was issued: handles are
// issued anew in each life, and the id of one is to be nothing in the next. An entry keeps its id
// over lives, so ids of earlier lives are looked for by comparing; those of this one are resolved.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "handle/handle.h"
#include "supervisor/leverage.h"
#include "supervisor/transaction.h"

#define HANDLE_DIGITS 16
#define EPOCH_DIGITS_MAX 8
#define ENTRY_TYPE 1
#define SETTLE_MS 5000
#define START_TIMEOUT_MS 120000u

struct registry {
    struct registry_config config;
    char *run_dir;
    struct store *store;
    struct events *events;
    struct handle_table *handles;
    struct list entries;
    struct restorer *restorer;
    struct transaction *transaction;
    struct updates *updates;
    struct leverage *leverage;

    // Loading
    void (*settled)(void *opaque);
    void *settled_opaque;
    struct loop_timer *settle;
    unsigned adopting, lost;

    // Stopping all
    void (*stopped)(void *opaque);
    void *stopped_opaque;
    unsigned stopping;
};

const char *entry_state_name(enum entry_state state)
{
    static const char *const names[ENTRY_STATES] = {"stopped",  "starting",   "running", "paused",
                                                    "stopping", "restarting", "failed",  "crashed"};
    return names[state];
}

struct events *registry_events(struct registry *registry)
{
    return registry->events;
}

struct store *registry_store(const struct registry *registry)
{
    return registry->store;
}

int registry_lock(const struct registry *registry)
{
    return store_lock(registry->store);
}

struct loop *registry_loop(struct registry *registry)
{
    return registry->config.loop;
}

struct list *registry_entries(struct registry *registry)
{
    return &registry->entries;
}

unsigned registry_restart_delay_ms(const struct registry *registry)
{
    return registry->config.restart_delay_ms;
}

unsigned registry_start_timeout_ms(const struct registry *registry)
{
    unsigned ms = registry->config.start_timeout_ms;
    return ms ? ms : START_TIMEOUT_MS;
}

const char *registry_run_dir(const struct registry *registry)
{
    return registry->run_dir;
}

// ---- Finding ------------------------------------------------------------------------------------

struct entry *registry_find_name(struct registry *registry, const char *name)
{
    LIST_FOR_EACH(&registry->entries, node)
    {
        struct entry *entry = BASE_CONTAINER_OF(node, struct entry, link);
        if (strcmp(entry->name, name) == 0)
            return entry;
    }
    return NULL;
}

static struct entry *find_kept(struct registry *registry, const char *id)
{
    LIST_FOR_EACH(&registry->entries, node)
    {
        struct entry *entry = BASE_CONTAINER_OF(node, struct entry, link);
        if (strcmp(entry->id, id) == 0)
            return entry;
    }
    return NULL;
}

static struct entry *resolve(struct registry *registry, const char *digits)
{
    uint64_t handle = strtoull(digits, NULL, 16);
    handle_read_lock();
    struct entry *entry = handle_table_resolve(registry->handles, handle, ENTRY_TYPE);
    handle_read_unlock();
    return entry;
}

int registry_find_id(struct registry *registry, const char *id, struct entry **out,
                     struct error *err)
{
    size_t length = strlen(id);
    char epoch_text[EPOCH_DIGITS_MAX + 1] = "";
    if (strspn(id, "0123456789abcdef") != length || length <= HANDLE_DIGITS ||
        length > HANDLE_DIGITS + EPOCH_DIGITS_MAX)
        return error_set(err, -ESRCH, "\"%.40s\" is not the id of a partition", id);
    memcpy(epoch_text, id, length - HANDLE_DIGITS);
    unsigned epoch = (unsigned)strtoul(epoch_text, NULL, 16);
    if (epoch > store_epoch(registry->store))
        return error_set(err, -ESRCH, "\"%s\" is not the id of a partition", id);
    struct entry *entry = epoch == store_epoch(registry->store)
                              ? resolve(registry, id + length - HANDLE_DIGITS)
                              : find_kept(registry, id);
    // What it resolves to may be a partition of an earlier life, which has another id.
    if (!entry || strcmp(entry->id, id) != 0)
        return error_set(err, -ESTALE, "the partition with id \"%s\" is gone", id);
    *out = entry;
    return 0;
}

// ---- Entries ------------------------------------------------------------------------------------

static void insert_by_name(struct registry *registry, struct entry *entry)
{
    struct list *before = &registry->entries;
    LIST_FOR_EACH(&registry->entries, node)
    {
        if (strcmp(BASE_CONTAINER_OF(node, struct entry, link)->name, entry->name) > 0) {
            before = node;
            break;
        }
    }
    list_append(before, &entry->link);
}

static void entry_free(struct entry *entry)
{
    if (!entry)
        return;
    list_remove(&entry->link);
    entry_fini(entry);
    if (entry->handle)
        handle_table_release(entry->registry->handles, entry->handle, ENTRY_TYPE, NULL);
    definition_fini(&entry->definition);
    json_decref(entry->last_end);
    json_decref(entry->last_handover);
    free(entry);
}

// With a definition that is taken, also on failure.
static int entry_create(struct entry **out, struct registry *registry, const char *name,
                        struct definition *definition, struct error *err)
{
    struct entry *entry = calloc(1, sizeof(*entry));
    if (!entry) {
        definition_fini(definition);
        return error_set_errno(err, -ENOMEM, "cannot create partition \"%s\"", name);
    }
    entry->registry = registry;
    entry->definition = *definition;
    entry->since_ns = clock_realtime_ns();
    snprintf(entry->name, sizeof(entry->name), "%s", name);
    list_init(&entry->link);
    int rc = entry_init(entry, registry);
    if (rc == 0)
        rc = handle_table_alloc(registry->handles, entry, ENTRY_TYPE, &entry->handle);
    if (rc < 0) {
        entry_free(entry);
        return error_set_errno(err, rc, "cannot create partition \"%s\"", name);
    }
    snprintf(entry->id, sizeof(entry->id), "%x%0*" PRIx64, store_epoch(registry->store),
             HANDLE_DIGITS, entry->handle);
    insert_by_name(registry, entry);
    *out = entry;
    return 0;
}

// ---- Definitions --------------------------------------------------------------------------------

int registry_check_path(const char *key, char **path, struct error *err)
{
    if (**path == '/')
        return 0;
    return error_set(err, -EINVAL, "%s \"%s\" is not an absolute path", key, *path);
}

// From an object that says its name or leaves it out; `name` is what it has to be.
static int parse_definition(struct definition *definition, const char *name, const json_t *object,
                            struct error *err)
{
    json_t *named = json_copy((json_t *)object);
    if (named && !json_object_get(named, "name"))
        json_object_set_new(named, "name", json_string(name));
    int rc = named ? definition_from_json(definition, named, err)
                   : error_set_errno(err, -ENOMEM, "cannot read the definition");
    json_decref(named);
    if (rc < 0)
        return rc;
    if (strcmp(definition->name, name) != 0)
        rc = error_set(err, -EINVAL, "the name is \"%s\", not \"%s\"", definition->name, name);
    else
        rc = definition_each_path(definition, registry_check_path, err);
    if (rc < 0)
        definition_fini(definition);
    return rc;
}

static int read_definition(struct registry *registry, const char *name,
                           struct definition *definition, struct error *err)
{
    json_t *object = store_read(registry->store, STORE_DEFINITION, name, err);
    if (!object)
        return err->code;
    int rc = parse_definition(definition, name, object, err);
    json_decref(object);
    if (rc < 0)
        error_prefix(err, "definition of partition \"%s\"", name);
    return rc;
}

int registry_refresh(struct entry *entry, struct error *err)
{
    struct definition definition;
    int rc = read_definition(entry->registry, entry->name, &definition, err);
    if (rc < 0)
        return rc;
    definition_fini(&entry->definition);
    entry->definition = definition;
    entry->vsock_chosen = false;
    return 0;
}

int registry_add(struct registry *registry, const json_t *object, struct entry **out,
                 struct error *err)
{
    const char *name = json_string_value(json_object_get(object, "name"));
    struct definition definition;
    if (!name)
        return error_set(err, -EINVAL, "the definition has no name");
    if (!store_name_is_good(name))
        return error_set(err, -EINVAL,
                         "name \"%.60s\" is not 1 to %d letters, digits, '-', '_' and '.' that "
                         "start with a letter or digit",
                         name, STORE_NAME_MAX);
    if (registry_find_name(registry, name) || store_has(registry->store, STORE_DEFINITION, name))
        return error_set(err, -EEXIST, "there is a partition \"%s\" already", name);
    int rc = parse_definition(&definition, name, object, err);
    if (rc == 0)
        rc = entry_create(out, registry, name, &definition, err);
    if (rc < 0)
        return rc;
    rc = store_write(registry->store, STORE_DEFINITION, name, object, err);
    if (rc < 0) {
        entry_free(*out);
        return rc;
    }
    registry_record(*out);
    events_emit(registry->events, "created",
                json_pack("{s:s,s:s}", "id", (*out)->id, "name", name));
    return 0;
}

int registry_remove(struct entry *entry, struct error *err)
{
    struct registry *registry = entry->registry;
    if (entry->process || entry->state == ENTRY_RESTARTING)
        return error_set(err, -EBUSY, "cannot remove partition \"%s\": it is %s (stop it first)",
                         entry->name, entry_state_name(entry->state));
    const char *interceptor =
        registry->leverage ? leverage_names(registry->leverage, entry->name) : NULL;
    if (interceptor)
        return error_set(err, -EBUSY,
                         "cannot remove partition \"%s\": interceptor \"%s\" has a module in it "
                         "(remove that first)",
                         entry->name, interceptor);
    // The definition last: what is left after a crash in between is a partition again.
    int rc = store_remove(registry->store, STORE_RECORD, entry->name, err);
    if (rc == 0)
        rc = store_remove(registry->store, STORE_DEFINITION, entry->name, err);
    if (rc < 0)
        return rc;
    events_emit(registry->events, "removed",
                json_pack("{s:s,s:s}", "id", entry->id, "name", entry->name));
    entry_free(entry);
    return 0;
}

// ---- Records ------------------------------------------------------------------------------------

void registry_record(struct entry *entry)
{
    struct error err;
    json_t *record =
        json_pack("{s:s,s:b,s:b,s:i,s:i,s:i,s:O?}", "id", entry->id, "wanted", entry->wanted,
                  "restarting", entry->state == ENTRY_RESTARTING, "runs", entry->runs, "restarts",
                  entry->restarts, "handovers", entry->handovers, "last_end", entry->last_end);
    if (!record)
        log_line(LOG_ERROR, "cannot keep what became of partition \"%s\"", entry->name);
    else if (store_write(entry->registry->store, STORE_RECORD, entry->name, record, &err) < 0)
        log_line(LOG_ERROR, "%s", err.message);
    json_decref(record);
}

static unsigned count_of(const json_t *record, const char *key)
{
    json_int_t value = json_integer_value(json_object_get(record, key));
    return value > 0 && value < INT32_MAX ? (unsigned)value : 0;
}

static void take_record(struct entry *entry)
{
    struct error err;
    json_t *record = store_has(entry->registry->store, STORE_RECORD, entry->name)
                         ? store_read(entry->registry->store, STORE_RECORD, entry->name, &err)
                         : NULL;
    const char *id = json_string_value(json_object_get(record, "id"));
    if (id && strlen(id) < sizeof(entry->id))
        snprintf(entry->id, sizeof(entry->id), "%s", id);
    entry->wanted = json_is_true(json_object_get(record, "wanted"));
    entry->owed = json_is_true(json_object_get(record, "restarting"));
    entry->runs = count_of(record, "runs");
    entry->restarts = count_of(record, "restarts");
    entry->handovers = count_of(record, "handovers");
    json_t *last_end = json_object_get(record, "last_end");
    if (json_is_object(last_end))
        entry->last_end = json_incref(last_end);
    json_decref(record);
}

// ---- Life ---------------------------------------------------------------------------------------

int registry_create(struct registry **out, const struct registry_config *config, struct error *err)
{
    struct registry *registry = calloc(1, sizeof(*registry));
    if (!registry)
        return error_set_errno(err, -ENOMEM, "cannot start the supervisor");
    registry->config = *config;
    list_init(&registry->entries);
    registry->run_dir = strdup(config->run_dir);
    int rc = registry->run_dir ? store_open(&registry->store, config->state_dir,
                                            config->lock_fd ? *config->lock_fd : -1, err)
                               : error_set_errno(err, -ENOMEM, "cannot start the supervisor");
    if (rc == 0) {
        rc = events_create(&registry->events, store_epoch(registry->store));
        if (rc == 0)
            rc = handle_table_create(&registry->handles, NULL);
        if (rc == 0)
            rc = restorer_create(&registry->restorer, config->loop);
        if (rc < 0)
            error_set_errno(err, rc, "cannot start the supervisor");
    }
    if (rc < 0) {
        registry_destroy(registry);
        return rc;
    }
    *out = registry;
    return 0;
}

struct restorer *registry_restorer(struct registry *registry)
{
    return registry->restorer;
}

struct transaction *registry_transaction(const struct registry *registry)
{
    return registry->transaction;
}

void registry_set_transaction(struct registry *registry, struct transaction *transaction)
{
    registry->transaction = transaction;
}

struct updates *registry_updates(const struct registry *registry)
{
    return registry->updates;
}

void registry_set_updates(struct registry *registry, struct updates *updates)
{
    registry->updates = updates;
}

struct leverage *registry_leverage(const struct registry *registry)
{
    return registry->leverage;
}

void registry_set_leverage(struct registry *registry, struct leverage *leverage)
{
    registry->leverage = leverage;
}

void registry_release(struct registry *registry)
{
    transaction_cancel(registry->transaction);
    if (registry->restorer)
        restorer_cancel(registry->restorer);
    LIST_FOR_EACH(&registry->entries, node)
    entry_free(BASE_CONTAINER_OF(node, struct entry, link));
}

void registry_destroy(struct registry *registry)
{
    if (!registry)
        return;
    registry_release(registry);
    loop_timer_close(registry->settle);
    handle_table_destroy(registry->handles, NULL, NULL);
    restorer_destroy(registry->restorer);
    events_destroy(registry->events);
    store_close(registry->store);
    free(registry->run_dir);
    free(registry);
}

static void load_entry(void *opaque, const char *name)
{
    struct registry *registry = opaque;
    struct definition definition;
    struct entry *entry;
    struct error err;
    if (read_definition(registry, name, &definition, &err) < 0 ||
        entry_create(&entry, registry, name, &definition, &err) < 0) {
        log_line(LOG_ERROR, "%s", err.message);
        return;
    }
    // NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage): errors are negative
    take_record(entry);
    if (entry_adopt(entry))
        registry->adopting++;
}

// All that run have answered: those that are to run and do not are started now.
static void settle(void *opaque)
{
    struct registry *registry = opaque;
    if (!registry->settled)
        return;
    void (*settled)(void *settled_opaque) = registry->settled;
    registry->settled = NULL;
    loop_timer_stop(registry->settle);
    LIST_FOR_EACH(&registry->entries, node)
    {
        struct entry *entry = BASE_CONTAINER_OF(node, struct entry, link);
        bool again = entry->wanted && entry->definition.restart == DEFINITION_ALWAYS;
        again |= entry->owed && entry->definition.restart != DEFINITION_NEVER;
        again |= entry->definition.autostart;
        // An interceptor's own comes and goes with that.
        again &= !registry->leverage || !leverage_owns(registry->leverage, entry->name);
        if (entry->state == ENTRY_STOPPED && !entry->process && again)
            entry_start(entry, false, NULL, NULL);
    }
    settled(registry->settled_opaque);
}

void registry_adopted(struct registry *registry)
{
    if (--registry->adopting == 0)
        loop_timer_start(registry->settle, 0);
}

void registry_lost(struct registry *registry)
{
    registry->lost++;
}

bool registry_found_all(const struct registry *registry)
{
    return !registry->settled && registry->adopting == 0 && registry->lost == 0;
}

const struct entry *registry_silent(struct registry *registry)
{
    LIST_FOR_EACH(&registry->entries, node)
    {
        const struct entry *entry = BASE_CONTAINER_OF(node, struct entry, link);
        if (entry->hello)
            return entry;
    }
    return NULL;
}

int registry_load(struct registry *registry, void (*settled)(void *opaque), void *opaque,
                  struct error *err)
{
    int rc = loop_timer_create(registry->config.loop, settle, registry, &registry->settle);
    if (rc < 0)
        return error_set_errno(err, rc, "cannot start the supervisor");
    if (mkdir(registry->run_dir, 0755) < 0 && errno != EEXIST)
        return error_set_errno(err, -errno, "cannot create \"%s\"", registry->run_dir);
    registry->settled = settled;
    registry->settled_opaque = opaque;
    rc = store_for_each(registry->store, STORE_DEFINITION, load_entry, registry, err);
    if (rc == 0)
        loop_timer_start(registry->settle, registry->adopting ? SETTLE_MS : 0);
    return rc;
}

// ---- Stopping all -------------------------------------------------------------------------------

static void one_stopped(struct registry *registry)
{
    if (--registry->stopping == 0)
        registry->stopped(registry->stopped_opaque);
}

static void one_killed(void *opaque, struct entry *entry, const struct error *err)
{
    (void)entry;
    (void)err;
    one_stopped(opaque);
}

static void one_ended(void *opaque, struct entry *entry, const struct error *err)
{
    if (err && entry->process)
        entry_kill(entry, one_killed, opaque);
    else
        one_stopped(opaque);
}

void registry_stop_all(struct registry *registry, unsigned timeout_ms, void (*done)(void *opaque),
                       void *opaque)
{
    registry->stopped = done;
    registry->stopped_opaque = opaque;
    registry->stopping = 1;
    LIST_FOR_EACH(&registry->entries, node)
    {
        registry->stopping++;
        entry_stop(BASE_CONTAINER_OF(node, struct entry, link), timeout_ms, one_ended, registry);
    }
    one_stopped(registry);
}
