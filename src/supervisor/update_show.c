// SPDX-License-Identifier: BSD-2-Clause
// What the host is told of updates: versions, the session, keys, counts, the audit log, events.
#include <stdlib.h>
#include <string.h>

#include "supervisor/update_internal.h"

// ---- Events -------------------------------------------------------------------------------------

// Those of the audit log that are for the stream, too; ends are told by updates_tell.
void updates_tell_record(struct updates *updates, const json_t *record)
{
    static const struct {
        const char *record, *event;
    } told[] = {{"offered", "update-offered"},
                {"validated", "update-validated"},
                {"refused", "update-refused"},
                {"withdrawn", "update-withdrawn"},
                {"abandoned", "update-abandoned"}};
    const char *event = json_string_value(json_object_get(record, "event"));
    for (size_t i = 0; event && i < BASE_COUNT_OF(told); i++) {
        json_t *details = strcmp(told[i].record, event) == 0 ? json_copy((json_t *)record) : NULL;
        if (details)
            events_emit(registry_events(updates->config.registry), told[i].event, details);
    }
}

void updates_tell(struct updates *updates, const char *event, const char *from, const char *why)
{
    const struct update_state *state = update_store_state(updates->store);
    json_t *details =
        json_pack("{s:s,s:s,s:s*}", "version", state->current, "from", from, "why", why);
    if (details)
        events_emit(registry_events(updates->config.registry), event, details);
}

// ---- Counts -------------------------------------------------------------------------------------

static json_t *count_outcomes(const struct updates *updates)
{
    static const enum update_phase phases[] = {UPDATE_PHASE_COMMITTED, UPDATE_PHASE_ROLLED_BACK};
    const json_t *counts = json_object_get(updates->last, "counts");
    json_t *object = json_object();
    for (size_t i = 0; i < BASE_COUNT_OF(phases); i++) {
        const char *name = update_phase_name(phases[i]);
        json_int_t count = json_integer_value(json_object_get(counts, name));
        json_object_set_new(object, name, json_integer(count));
    }
    return object;
}

static json_t *count_refusals(const struct updates *updates)
{
    json_t *object = json_object();
    for (enum update_refusal code = UPDATE_REFUSAL_NONE + 1; code <= UPDATE_REFUSAL_HOST; code++)
        json_object_set_new(
            object, update_refusal_name(code),
            json_integer((json_int_t)update_service_refused(updates->service, code)));
    return object;
}

json_t *updates_count(const struct updates *updates)
{
    return json_pack("{s:b,s:o,s:o}", "pending",
                     *update_store_state(updates->store)->pending.version, "outcomes",
                     count_outcomes(updates), "refusals", count_refusals(updates));
}

// ---- All of it ----------------------------------------------------------------------------------

static json_t *text_or_null(const char *text)
{
    return *text ? json_string(text) : json_null();
}

static json_t *describe_pending(const struct update_pending *pending)
{
    if (!*pending->version)
        return json_null();
    return json_pack("{s:s,s:o,s:o}", "version", pending->version, "deadline",
                     events_time(pending->deadline_ns), "manifest", text_or_null(pending->session));
}

static json_t *describe_slots(const struct updates *updates)
{
    struct update_slot *slots = NULL;
    struct error err;
    size_t count = 0;
    json_t *list = json_array();
    if (update_store_slots(updates->store, &slots, &count, &err) < 0)
        log_line(LOG_ERROR, "%s", err.message);
    for (size_t i = 0; i < count; i++)
        json_array_append_new(
            list, json_pack("{s:s,s:I,s:s,s:I,s:b,s:b,s:b}", "version", slots[i].version, "bytes",
                            (json_int_t)slots[i].program_bytes, "sha256", slots[i].program_sha256,
                            "epoch", (json_int_t)slots[i].epoch, "current", slots[i].current,
                            "previous", slots[i].previous, "pending", slots[i].pending));
    free(slots);
    return list;
}

// A set that cannot be taken trusts nobody, and says why.
static json_t *describe_trust(const struct updates *updates)
{
    const char *folder = updates->config.trusted_dir;
    struct package_trust *trust;
    struct error err;
    json_t *list = json_array();
    if (package_trust_load(&trust, folder, &err) < 0)
        return json_pack("{s:s,s:o,s:s}", "folder", folder, "keys", list, "error", err.message);
    for (size_t i = 0; i < package_trust_count(trust); i++) {
        const struct package_trust_key key = package_trust_key(trust, i);
        json_array_append_new(list, json_pack("{s:s,s:s,s:b}", "id", key.id, "file", key.file,
                                              "revoked", key.revoked));
    }
    package_trust_destroy(trust);
    return json_pack("{s:s,s:o,s:n}", "folder", folder, "keys", list, "error");
}

static json_t *describe_last(const struct updates *updates)
{
    static const char *const keys[] = {"version", "digest", "partition", "phase", "result", "why"};
    if (!updates->last)
        return json_null();
    json_t *object = json_object();
    for (size_t i = 0; i < BASE_COUNT_OF(keys); i++) {
        json_t *value = json_object_get(updates->last, keys[i]);
        const char *key = strcmp(keys[i], "digest") == 0 ? "manifest" : keys[i];
        json_object_set_new(object, key, value ? json_deep_copy(value) : json_null());
    }
    return object;
}

json_t *updates_describe(struct updates *updates)
{
    const struct update_state *state = update_store_state(updates->store);
    json_t *counts = updates_count(updates);
    json_t *object = json_pack(
        "{s:s,s:s,s:s,s:o,s:I,s:b,s:o,s:o?,s:o,s:o}", "version", STRAKE_VERSION, "sha256",
        updates->own_sha256, "current", state->current, "previous", text_or_null(state->previous),
        "epoch", (json_int_t)(state->epoch > STRAKE_EPOCH ? state->epoch : STRAKE_EPOCH),
        "allow_downgrade", updates->config.allow_downgrade, "slots", describe_slots(updates),
        "session", update_service_describe(updates->service), "last", describe_last(updates),
        "trusted", describe_trust(updates));
    if (object)
        json_object_update(object, counts);
    json_decref(counts);
    if (object)
        json_object_set_new(object, "pending", describe_pending(&state->pending));
    return object;
}

json_t *updates_history(struct updates *updates, size_t count, struct error *err)
{
    return update_store_history(updates->store, count, err);
}
