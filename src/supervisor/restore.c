// SPDX-License-Identifier: BSD-2-Clause
// Snapshots and the registry: one of a partition, and a partition from one.
//
// What is restored is a partition like any other, with a definition of its own; the snapshot is
// where its first run begins. Others restored from the same share its RAM as long as that run
// lasts.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "supervisor/registry.h"

// ---- Taking -------------------------------------------------------------------------------------

struct taking {
    struct entry *entry;
    char *path;
    entry_done *done;
    void *opaque;
};

static void on_taken(void *opaque, json_t *result, struct descriptors *fds, const struct error *err)
{
    struct taking taking = *(struct taking *)opaque;

    (void)fds;
    free(opaque);
    if (!err)
        entry_tell(taking.entry, "snapshot",
                   json_pack("{s:s,s:O?}", "path", taking.path, "ram_packed_bytes",
                             json_object_get(result, "ram_packed_bytes")));
    free(taking.path);
    taking.done(taking.opaque, taking.entry, err);
}

void entry_snapshot(struct entry *entry, const char *path, entry_done *done, void *opaque)
{
    struct definition definition = entry->definition;
    struct taking *taking = calloc(1, sizeof(*taking));
    struct error err;
    int rc;

    if (entry->vsock_chosen && definition.updates)
        definition.vsock_cid = 0;  // so that one is chosen for each that is restored
    if (taking)
        *taking =
            (struct taking){.entry = entry, .path = strdup(path), .done = done, .opaque = opaque};
    if (entry->state != ENTRY_RUNNING && entry->state != ENTRY_PAUSED)
        rc = error_set(&err, -EALREADY, "cannot take a snapshot of partition \"%s\": it is %s",
                       entry->name, entry_state_name(entry->state));
    else if (!taking || !taking->path)
        rc = error_set_errno(&err, -ENOMEM, "cannot take a snapshot of partition \"%s\"",
                             entry->name);
    else
        rc = snapshot_take(entry->process, &definition, path, on_taken, taking, &err);
    if (rc == 0)
        return;  // NOLINT(clang-analyzer-unix.Malloc): on_taken has it
    if (taking)
        free(taking->path);
    free(taking);
    done(opaque, entry, &err);
}

// ---- Restoring ----------------------------------------------------------------------------------

// The registry has one.
struct restorer {
    struct snapshots *snapshots;
    struct list restorings;
};

struct restoring {
    struct list link;  // in restorer.restorings
    struct registry *registry;
    struct snapshot *snapshot;
    json_t *changes;
    bool paused;
    char id[32];              // of an entry that could not be started
    struct loop_timer *undo;  // forgets that one again
    struct error failed;      // why
    entry_done *done;
    void *opaque;
};

static void restoring_destroy(struct restoring *restoring)
{
    list_remove(&restoring->link);
    loop_timer_close(restoring->undo);
    snapshot_close(restoring->snapshot);
    json_decref(restoring->changes);
    free(restoring);
}

static void restoring_end(struct restoring *restoring, struct entry *entry, const struct error *err)
{
    struct error copy = err ? *err : (struct error){0};
    entry_done *done = restoring->done;
    void *opaque = restoring->opaque;

    restoring_destroy(restoring);
    done(opaque, entry, err ? &copy : NULL);
}

// A partition that nobody can have wanted like this is not kept.
static void undo(void *opaque)
{
    struct restoring *restoring = opaque;
    struct entry *entry;
    struct error err;

    // In a turn of the loop of its own: the failure is told from inside of the start.
    if (registry_find_id(restoring->registry, restoring->id, &entry, &err) == 0 &&
        registry_remove(entry, &err) == -EBUSY)
        loop_timer_start(restoring->undo, 1);
    else
        restoring_end(restoring, NULL, &restoring->failed);
}

static void on_started(void *opaque, struct entry *entry, const struct error *err)
{
    struct restoring *restoring = opaque;

    if (!err) {
        restoring_end(restoring, entry, NULL);
        return;
    }
    restoring->failed = *err;
    memcpy(restoring->id, entry->id, sizeof(restoring->id));
    loop_timer_start(restoring->undo, 0);
}

// The machine is the snapshot's; what it is connected with may be another.
static json_t *changed_definition(const struct restoring *restoring)
{
    json_t *definition = definition_to_json(snapshot_definition(restoring->snapshot));

    if (definition)
        json_object_update(definition, restoring->changes);
    return definition;
}

// A vsock device that was chosen for an interceptor is a part of the machine, and not of what
// somebody has defined: its path tells. Whether it was one; it is taken out.
static bool take_chosen_vsock(const struct restoring *restoring, json_t *definition)
{
    const char *run_dir = registry_run_dir(restoring->registry);
    const char *vsock = json_string_value(json_object_get(definition, "vsock"));
    const char *path = vsock ? strchr(vsock, ',') : NULL;
    const char *name = path ? strrchr(path, '/') : NULL;
    if (!name || strcmp(name, "/vsock") != 0 || strncmp(path + 1, run_dir, strlen(run_dir)) != 0 ||
        path[1 + strlen(run_dir)] != '/')
        return false;
    json_object_del(definition, "vsock");
    return true;
}

static void on_opened(void *opaque, struct snapshot *snapshot, const struct error *err)
{
    struct restoring *restoring = opaque;
    struct error failed;
    struct entry *entry = NULL;
    json_t *definition = err ? NULL : changed_definition(restoring);
    bool chosen = definition && take_chosen_vsock(restoring, definition);
    int rc = err ? err->code : 0;

    (void)snapshot;
    if (err)
        failed = *err;
    else if (!definition)
        rc = error_set_errno(&failed, -ENOMEM, "cannot restore a partition");
    else
        rc = registry_add(restoring->registry, definition, &entry, &failed);
    json_decref(definition);
    if (rc < 0) {
        restoring_end(restoring, NULL, &failed);
        return;
    }
    entry->snapshot = restoring->snapshot;
    entry->from_snapshot = true;
    entry->vsock_restored = chosen;
    restoring->snapshot = NULL;
    entry_start(entry, restoring->paused, on_started, restoring);
}

void registry_restore(struct registry *registry, const char *path, const json_t *changes,
                      bool paused, entry_done *done, void *opaque)
{
    struct restorer *restorer = registry_restorer(registry);
    struct restoring *restoring = calloc(1, sizeof(*restoring));
    struct error err;
    int rc;

    if (!restoring) {
        error_set_errno(&err, -ENOMEM, "cannot restore \"%s\"", path);
        done(opaque, NULL, &err);
        return;
    }
    *restoring = (struct restoring){.registry = registry,
                                    .changes = json_deep_copy(changes),
                                    .paused = paused,
                                    .done = done,
                                    .opaque = opaque};
    list_append(&restorer->restorings, &restoring->link);
    rc = loop_timer_create(registry_loop(registry), undo, restoring, &restoring->undo);
    if (rc < 0)
        error_set_errno(&err, rc, "cannot restore \"%s\"", path);
    else
        rc = snapshot_open(&restoring->snapshot, restorer->snapshots, path, on_opened, restoring,
                           &err);
    if (rc < 0) {
        restoring->snapshot = NULL;
        restoring_end(restoring, NULL, &err);
    }
}

// ---- All of them --------------------------------------------------------------------------------

int restorer_create(struct restorer **out, struct loop *loop)
{
    struct restorer *restorer = calloc(1, sizeof(*restorer));

    if (!restorer)
        return -ENOMEM;
    list_init(&restorer->restorings);
    int rc = snapshots_create(&restorer->snapshots, loop);
    if (rc < 0)
        free(restorer);
    else
        *out = restorer;
    return rc;
}

void restorer_cancel(struct restorer *restorer)
{
    struct list *restorings = &restorer->restorings;
    struct error err;

    error_set(&err, -ECANCELED, "the supervisor is ending");
    while (!list_empty(restorings))
        // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): what was freed has left the list
        restoring_end(BASE_CONTAINER_OF(restorings->next, struct restoring, link), NULL, &err);
}

void restorer_destroy(struct restorer *restorer)
{
    if (!restorer)
        return;
    snapshots_destroy(restorer->snapshots);
    free(restorer);
}
