// SPDX-License-Identifier: BSD-2-Clause
// What became of the last update that got to COMMIT, for guests that ask again: STATEDIR/updates.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "supervisor/update_internal.h"

#define LAST "last"

static struct store *store_of(const struct updates *updates)
{
    return registry_store(updates->config.registry);
}

void last_load(struct updates *updates)
{
    struct error err;
    if (!store_has(store_of(updates), STORE_UPDATE, LAST))
        return;
    updates->last = store_read(store_of(updates), STORE_UPDATE, LAST, &err);
    if (!updates->last)
        log_line(LOG_ERROR, "%s", err.message);
    updates->going_back = json_is_true(json_object_get(updates->last, "back"));
}

int last_set(struct updates *updates, enum update_phase phase, json_t *result, const char *why)
{
    struct error err;
    if (!updates->last) {
        json_decref(result);
        return 0;
    }
    json_object_set_new(updates->last, "phase", json_string(update_phase_name(phase)));
    json_object_set_new(updates->last, "result", result ? result : json_null());
    json_object_set_new(updates->last, "why", why ? json_string(why) : json_null());
    json_object_set_new(updates->last, "back", json_boolean(updates->going_back));
    int rc = store_write(store_of(updates), STORE_UPDATE, LAST, updates->last, &err);
    if (rc < 0)
        log_line(LOG_ERROR, "%s", err.message);
    return rc;
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static enum update_phase phase_of(const json_t *last)
{
    const char *name = text_of(last, "phase");
    return strcmp(name, update_phase_name(UPDATE_PHASE_COMMITTED)) == 0 ? UPDATE_PHASE_COMMITTED
           : strcmp(name, update_phase_name(UPDATE_PHASE_ROLLED_BACK)) == 0
               ? UPDATE_PHASE_ROLLED_BACK
               : UPDATE_PHASE_COMMITTING;
}

bool last_recall(void *opaque, const char *partition, const char *digest,
                 struct update_outcome *outcome)
{
    const struct updates *updates = opaque;
    const json_t *last = updates->last;
    if (!last || (digest && strcmp(digest, text_of(last, "digest")) != 0))
        return false;
    enum update_phase phase = phase_of(last);
    if (phase == UPDATE_PHASE_ROLLED_BACK && strcmp(partition, text_of(last, "partition")) != 0)
        return false;
    *outcome = (struct update_outcome){.phase = phase};
    snprintf(outcome->version, sizeof(outcome->version), "%s", text_of(last, "version"));
    snprintf(outcome->manifest, sizeof(outcome->manifest), "%s", text_of(last, "digest"));
    snprintf(outcome->why, sizeof(outcome->why), "%s", text_of(last, "why"));
    if (phase == UPDATE_PHASE_COMMITTED)
        outcome->result = json_deep_copy(json_object_get(last, "result"));
    return true;
}

void last_forget(void *opaque, const char *partition, const char *digest)
{
    struct updates *updates = opaque;
    struct update_outcome outcome;
    if (!last_recall(updates, partition, digest, &outcome))
        return;
    json_decref(outcome.result);
    if (outcome.phase != UPDATE_PHASE_ROLLED_BACK)
        return;
    json_object_set_new(updates->last, "partition", json_string(""));
    (void)!last_set(updates, UPDATE_PHASE_ROLLED_BACK, NULL, outcome.why);
}
