// SPDX-License-Identifier: BSD-2-Clause
// Going back by hand: to the previous version, or to any other that is kept.
//
// It is done as an update is. The program, which has to pass its self-test, is pending; all
// partitions are handed over to it, or none; the supervisor goes on as it, and it confirms itself
// when it has found them (update_proof.c). Who dies meanwhile leaves a pending version, which the
// next start takes back. A version that is itself pending is gone back from in the same way, but
// for that nothing has to prove itself: what was there before it did so long ago.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "supervisor/reexec.h"
#include "supervisor/update_internal.h"

#define SELF_TEST_MS 60000u

struct rollback {
    struct updates *updates;
    char version[UPDATE_VERSION_BYTES], from[UPDATE_VERSION_BYTES];
    bool of_pending;
    int program_fd;  // sealed
    struct program_test *test;
    updates_rolled_back *done;
    void *opaque;
};

static void rollback_free(struct rollback *rollback)
{
    rollback->updates->rollback = NULL;
    program_test_cancel(rollback->test);
    if (rollback->program_fd >= 0)
        close(rollback->program_fd);
    free(rollback);
}

void rollback_cancel(struct updates *updates)
{
    if (updates->rollback)
        rollback_free(updates->rollback);
}

static void give_up(struct rollback *rollback, const struct error *err)
{
    rollback->done(rollback->opaque, NULL, err);
    rollback_free(rollback);
}

// ---- Where to -----------------------------------------------------------------------------------

// Looks whether it can be gone to now. `version` NULL: the previous one.
static int choose(struct rollback *rollback, const char *version, struct error *err)
{
    const struct updates *updates = rollback->updates;
    const struct update_state *state = update_store_state(updates->store);
    const struct entry *silent = registry_silent(updates->config.registry);
    const char *to = version ? version : state->previous;
    rollback->of_pending = updates->proving;
    if (work_is_under_way(updates))
        return error_set(err, -EBUSY, "a guest's update is being validated or committed");
    if (*state->pending.version && !updates->proving)
        return error_set(err, -EBUSY, "the supervisor is about to go on as version \"%s\"",
                         state->current);
    if (!version && !*to)
        return error_set(err, -EALREADY, "there is no version before \"%s\" to go back to",
                         state->current);
    if (strcmp(to, state->current) == 0)
        return error_set(err, -EALREADY, "version \"%s\" is current already", to);
    if (updates->proving && strcmp(to, state->previous) != 0)
        return error_set(err, -EBUSY,
                         "version \"%s\" is not confirmed: from it there is only going back to "
                         "version \"%s\"",
                         state->current, state->previous);
    if (silent)
        return error_set(err, -EBUSY, "partition \"%s\" does not answer", silent->name);
    if (strlen(to) >= sizeof(rollback->version))
        return error_set(err, -ESRCH, "there is no version \"%.40s...\" in the store", to);
    memmove(rollback->version, to, strlen(to) + 1);
    memcpy(rollback->from, state->current, sizeof(rollback->from));
    return 0;
}

static int open_installed(struct error *err)
{
    const char *path = reexec_installed();
    int fd = path ? supervisor_open_image(path, "program", err)
                  : error_set(err, -ENOENT, "it is not known where the installed program is");
    int sealed_fd = fd < 0 ? fd : program_seal(fd, err);
    if (fd >= 0)
        close(fd);
    return sealed_fd;
}

static int open_program(struct rollback *rollback, struct error *err)
{
    if (strcmp(rollback->version, UPDATE_INSTALLED) == 0)
        return rollback->program_fd = open_installed(err);
    int rc = update_store_open_program(rollback->updates->store, rollback->version,
                                       &rollback->program_fd, err);
    return rc == -ENOENT ? err->code = -ESRCH : rc;
}

// ---- Going there --------------------------------------------------------------------------------

static json_t *describe(const struct rollback *rollback, json_t *result)
{
    json_t *told = json_pack("{s:s,s:s}", "from", rollback->from, "to", rollback->version);
    if (told)
        json_object_update(told, result);
    return told;
}

static void on_handed_over(void *opaque, enum transaction_outcome outcome, json_t *result)
{
    struct rollback *rollback = opaque;
    struct updates *updates = rollback->updates;
    const char *why = json_string_value(json_object_get(result, "why"));
    json_t *told = describe(rollback, result);
    if (outcome == TRANSACTION_DONE && rollback->of_pending)
        updates_revert(updates, BY_HAND);
    else if (outcome != TRANSACTION_DONE && outcome != TRANSACTION_CANCELLED &&
             !rollback->of_pending)
        updates_revert(updates, why ? why : "");
    rollback->done(rollback->opaque, told, NULL);
    json_decref(told);
    if (outcome == TRANSACTION_DONE) {
        // As for an update: whatever it hangs in, the next start knows where to go on.
        alarm(updates->config.confirm_within_s);
        updates->config.reexec(updates->config.opaque, rollback->program_fd);
    }
    rollback_free(rollback);
}

static int begin(struct rollback *rollback, struct error *err)
{
    struct updates *updates = rollback->updates;
    uint64_t deadline_ns =
        clock_realtime_ns() + updates->config.confirm_within_s * UINT64_C(1000000000);
    int rc = choose(rollback, rollback->version, err);  // time has passed
    if (rc == 0 && registry_transaction(updates->config.registry))
        rc = error_set(err, -EBUSY, "all partitions are being handed over already");
    if (rc < 0)
        return rc;
    json_t *record = json_pack("{s:s,s:s,s:s,s:s}", "event", "rollback", "version",
                               rollback->version, "from", rollback->from, "why", BY_HAND);
    updates_audit(updates, record);
    json_decref(record);
    if (!rollback->of_pending)
        rc = update_store_make_pending(updates->store, rollback->version, deadline_ns, "", err);
    if (rc < 0)
        return rc;
    rc = transaction_begin(updates->config.registry, rollback->program_fd, on_handed_over, rollback,
                           err);
    if (rc < 0 && !rollback->of_pending)
        updates_revert(updates, err->message);
    return rc;
}

static void on_tested(void *opaque, const struct program_facts *facts, const struct error *err)
{
    struct rollback *rollback = opaque;
    struct error why;
    (void)facts;
    rollback->test = NULL;
    if (err) {
        why = *err;
        why.code = -ENOEXEC;
        error_prefix(&why, "version \"%s\" does not work", rollback->version);
    }
    if (err || begin(rollback, &why) < 0)
        give_up(rollback, &why);
}

void updates_rollback(struct updates *updates, const char *version, updates_rolled_back *done,
                      void *opaque)
{
    struct error err;
    if (updates->rollback) {
        error_set(&err, -EBUSY, "the supervisor is going to version \"%s\" already",
                  updates->rollback->version);
        done(opaque, NULL, &err);
        return;
    }
    struct rollback *rollback = calloc(1, sizeof(*rollback));
    if (!rollback) {
        error_set_errno(&err, -ENOMEM, "cannot go back");
        done(opaque, NULL, &err);
        return;
    }
    *rollback =
        (struct rollback){.updates = updates, .program_fd = -1, .done = done, .opaque = opaque};
    updates->rollback = rollback;
    int rc = choose(rollback, version, &err);
    if (rc == 0)
        rc = open_program(rollback, &err);
    if (rc >= 0)
        rc = program_test_begin(&rollback->test, updates->config.loop, rollback->program_fd,
                                SELF_TEST_MS, on_tested, rollback, &err);
    if (rc < 0)
        give_up(rollback, &err);
}
