// SPDX-License-Identifier: BSD-2-Clause
// Versions that have to prove themselves.
//
// The store says which version is pending. What becomes of it is decided
//   - by the supervisor that has made it pending, until that executes it;
//   - by the version's own supervisor, executed by that one (`proving`): it confirms itself when it
//     has found all partitions and interceptors and answers the API. Until then an alarm is set,
//     which ends it whatever it hangs in;
//   - by any other one, which has come because those ended: it takes the version back.
// Only who is `proving` confirms, so what was taken back stays so, even while the disk does not
// take that (`stale`). What the disk does not take is tried again each second.
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "supervisor/leverage.h"
#include "supervisor/update_internal.h"

#define COMPLAINT_NS UINT64_C(60000000000)

static const char ended[] = "the supervisor ended before the new version had proved itself";

static bool is_pending(const struct updates *updates)
{
    return *update_store_state(updates->store)->pending.version;
}

// Whether this program is that version. The installed one is not known but by its name.
static bool is_own(struct updates *updates, const char *version)
{
    struct update_slot slot;
    return strcmp(version, UPDATE_INSTALLED) == 0 ||
           (update_store_slot(updates->store, version, &slot, NULL) == 0 &&
            strcmp(slot.program_sha256, updates->own_sha256) == 0);
}

static bool has_found_all(const struct updates *updates)
{
    const struct registry *registry = updates->config.registry;
    return registry_found_all(registry) && leverage_found_all(registry_leverage(registry));
}

static void complain(struct updates *updates, const struct error *err)
{
    log_limited(&updates->complaints, LOG_ERROR, "%s", err->message);
}

// ---- Gathering ----------------------------------------------------------------------------------

static void on_gathered(void *opaque, enum transaction_outcome outcome, json_t *result)
{
    struct updates *updates = opaque;
    const char *why = json_string_value(json_object_get(result, "why"));
    if (outcome == TRANSACTION_CANCELLED)
        return;  // the next supervisor sees to it
    if (outcome != TRANSACTION_DONE)
        log_line(LOG_ERROR, "not all partitions could be handed over to version %s: %s",
                 STRAKE_VERSION, why ? why : "");
    updates->going_back = false;
    (void)!last_keep(updates);
}

// Partitions that run in another version come to this one.
static void gather(struct updates *updates)
{
    struct registry *registry = updates->config.registry;
    struct error err;
    if (!registry_transaction(registry) &&
        transaction_gather(registry, on_gathered, updates, &err) < 0)
        complain(updates, &err);
}

// ---- Decisions ----------------------------------------------------------------------------------

void updates_revert(struct updates *updates, const char *why)
{
    const struct update_state before = *update_store_state(updates->store);
    struct error err;
    alarm(0);
    updates->proving = false;
    if (*before.pending.session)
        (void)!last_set(updates, UPDATE_PHASE_ROLLED_BACK, NULL, why);
    else
        (void)!last_keep(updates);
    updates->stale = update_store_rollback(updates->store, why, &err) < 0;
    if (updates->stale)
        complain(updates, &err);
    updates_tell(updates, "update-rolled-back", before.current, why);
}

static void take_back(struct updates *updates, const char *why)
{
    updates->going_back = true;
    updates_revert(updates, why);
}

static void revert_again(struct updates *updates)
{
    const char *why = json_string_value(json_object_get(updates->last, "why"));
    struct error err;
    updates->stale = update_store_rollback(updates->store, why ? why : "", &err) < 0;
    if (updates->stale)
        complain(updates, &err);
}

static int confirm(struct updates *updates, struct error *err)
{
    const struct update_state *state = update_store_state(updates->store);
    bool brought = *state->pending.session;
    struct error why;
    int rc = update_store_confirm(updates->store, err);
    if (rc < 0)
        return rc;
    alarm(0);
    updates->proving = false;
    last_follow(updates, BY_HAND);
    updates_tell(updates, brought ? "update-committed" : "update-rolled-back", state->previous,
                 brought ? NULL : BY_HAND);
    if (update_store_prune(updates->store, updates->config.keep, &why) < 0)
        log_line(LOG_ERROR, "%s", why.message);
    updates->listed = false;
    update_service_settled(updates->service);
    gather(updates);  // what came to run in the version before at the last moment
    return 0;
}

int updates_confirm(struct updates *updates, struct error *err)
{
    const struct update_state *state = update_store_state(updates->store);
    if (!*state->pending.version)
        return error_set(err, -EALREADY, "nothing is to be confirmed: version \"%s\" is",
                         state->current);
    if (!updates->proving)
        return error_set(err, -EBUSY, "version \"%s\" does not run yet", state->current);
    return confirm(updates, err);
}

void proof_step(struct updates *updates)
{
    struct error err;
    if (!updates->settled)
        return;
    if (updates->stale)
        revert_again(updates);
    else if (updates->proving && has_found_all(updates) && confirm(updates, &err) < 0)
        complain(updates, &err);
    if (updates->going_back)
        gather(updates);
}

void proof_begin(struct updates *updates)
{
    const struct update_state *state = update_store_state(updates->store);
    updates->complaints = (struct log_limit){.burst = 1, .window_ns = COMPLAINT_NS};
    last_load(updates);
    last_unstage(updates);
    if (!is_pending(updates)) {
        // The supervisor before may have got no further than the store.
        const char *committing = last_committing(updates);
        updates->going_back |= committing && strcmp(committing, state->current) != 0;
        last_follow(updates, ended);
    } else if (updates->config.reexecuted && is_own(updates, state->pending.version)) {
        updates->proving = true;
    } else {
        take_back(updates, ended);
    }
    if (!updates->proving)
        alarm(0);
}

// ---- What the supervisor says and asks ----------------------------------------------------------

void updates_settled(struct updates *updates)
{
    updates->settled = true;
    proof_step(updates);
}

void updates_reexec_failed(struct updates *updates, const struct error *err)
{
    if (!updates->proving)
        alarm(0);
    // It may have been somebody else's wish: an update that is not so far goes on.
    if (!is_pending(updates) || updates->proving || updates->stale ||
        registry_transaction(updates->config.registry))
        return;
    take_back(updates, err->message);
    update_service_settled(updates->service);
    proof_step(updates);
}

int updates_program(struct updates *updates)
{
    const struct update_state *state = update_store_state(updates->store);
    // What could not be taken back on the disk is not started for that.
    const char *version = is_pending(updates) ? state->previous : state->current;
    struct error err;
    int fd;
    if (is_own(updates, version))
        return -1;
    if (update_store_open_program(updates->store, version, &fd, &err) == 0)
        return fd;
    log_line(LOG_ERROR, "the current version cannot be started: %s", err.message);
    return -1;
}
