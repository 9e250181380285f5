// SPDX-License-Identifier: BSD-2-Clause
// What became of the last update that got to COMMIT, for guests that ask again: STATEDIR/updates.
#include <errno.h>
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

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

int last_keep(struct updates *updates)
{
    struct error err;
    if (!updates->last)
        return 0;
    json_object_set_new(updates->last, "back", json_boolean(updates->going_back));
    int rc = store_write(store_of(updates), STORE_UPDATE, LAST, updates->last, &err);
    if (rc < 0)
        log_line(LOG_ERROR, "%s", err.message);
    return rc;
}

void last_unstage(struct updates *updates)
{
    struct error err;
    if (updates->last &&
        update_store_stage_discard(updates->store, text_of(updates->last, "digest"), &err) < 0)
        log_line(LOG_ERROR, "%s", err.message);
}

// How often updates came to each phase that is an end, for as long as there is anything remembered.
static void count(json_t *last, const char *phase)
{
    json_t *counts = json_object_get(last, "counts");
    if (strcmp(text_of(last, "phase"), phase) == 0)
        return;
    if (!counts)
        json_object_set_new(last, "counts", counts = json_object());
    json_object_set_new(counts, phase,
                        json_integer(json_integer_value(json_object_get(counts, phase)) + 1));
}

int last_set(struct updates *updates, enum update_phase phase, json_t *result, const char *why)
{
    json_t *last = updates->last;
    if (!last) {
        json_decref(result);
        return 0;
    }
    if (phase != UPDATE_PHASE_COMMITTING)
        count(last, update_phase_name(phase));
    json_object_set_new(last, "phase", json_string(update_phase_name(phase)));
    json_object_set_new(last, "result", result ? result : json_null());
    json_object_set_new(last, "why", why ? json_string(why) : json_null());
    return last_keep(updates);
}

int last_begin(struct updates *updates, const char *digest, const char *version,
               const char *partition)
{
    json_t *last =
        json_pack("{s:s,s:s,s:s,s:O*}", "digest", digest, "version", version, "partition",
                  partition, "counts", json_object_get(updates->last, "counts"));
    if (!last)
        return -ENOMEM;
    json_decref(updates->last);
    updates->last = last;
    return last_set(updates, UPDATE_PHASE_COMMITTING, NULL, NULL);
}

static enum update_phase phase_of(const json_t *last)
{
    const char *name = text_of(last, "phase");
    return strcmp(name, update_phase_name(UPDATE_PHASE_COMMITTED)) == 0 ? UPDATE_PHASE_COMMITTED
           : strcmp(name, update_phase_name(UPDATE_PHASE_ROLLED_BACK)) == 0
               ? UPDATE_PHASE_ROLLED_BACK
               : UPDATE_PHASE_COMMITTING;
}

void last_follow(struct updates *updates, const char *why)
{
    json_t *last = updates->last, *result = json_object_get(last, "result");
    bool current =
        strcmp(text_of(last, "version"), update_store_state(updates->store)->current) == 0;
    enum update_phase phase = phase_of(last);
    if (current && phase != UPDATE_PHASE_COMMITTED)
        (void)!last_set(updates, UPDATE_PHASE_COMMITTED,
                        json_is_object(result) ? json_incref(result) : json_object(), NULL);
    else if (!current && phase != UPDATE_PHASE_ROLLED_BACK)
        (void)!last_set(updates, UPDATE_PHASE_ROLLED_BACK, NULL, why);
}

const char *last_committing(const struct updates *updates)
{
    return updates->last && phase_of(updates->last) == UPDATE_PHASE_COMMITTING
               ? text_of(updates->last, "version")
               : NULL;
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
    (void)!last_keep(updates);
}
