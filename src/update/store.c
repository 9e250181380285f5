// SPDX-License-Identifier: BSD-2-Clause
// The store: which version is current, and how that changes.
//
// state.json decides. It is replaced as a whole by one rename, after all that it refers to is on
// the disk; that rename is the moment at which a version becomes current, is confirmed, or is
// left. The link `current` follows it for people and tools, and is set right when the store is
// opened. Nothing is done twice or by halves then: a state is valid on its own.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "update/internal.h"

#define STATE_BYTES_MAX 4096u
#define LINK_BYTES 64u

// ---- The state as text --------------------------------------------------------------------------

// Takes a version, UPDATE_INSTALLED or, where that is allowed, none.
static bool take_version(char version[UPDATE_VERSION_BYTES], const char *text, bool or_none)
{
    if (strcmp(text, UPDATE_INSTALLED) != 0 && !package_version_valid(text) && !(or_none && !*text))
        return false;
    return snprintf(version, UPDATE_VERSION_BYTES, "%s", text) < (int)UPDATE_VERSION_BYTES;
}

static bool take_pending(struct update_state *state, json_t *object)
{
    const char *version, *session, *before;
    json_int_t deadline;
    if (json_is_null(object))
        return true;
    if (json_unpack(object, "{s:s,s:I,s:s,s:s}", "version", &version, "deadline", &deadline,
                    "session", &session, "before", &before) < 0 ||
        deadline < 0 || (*session && !digest_is_good(session)) ||
        strcmp(version, state->current) != 0)
        return false;
    state->pending.deadline_ns = (uint64_t)deadline;
    snprintf(state->pending.session, sizeof(state->pending.session), "%s", session);
    return take_version(state->pending.version, version, false) &&
           take_version(state->pending.before, before, true);
}

static bool take_state(struct update_state *state, json_t *object)
{
    const char *current, *previous;
    json_int_t epoch;
    json_t *pending;
    return json_unpack(object, "{s:s,s:s,s:I,s:o}", "current", &current, "previous", &previous,
                       "epoch", &epoch, "pending", &pending) == 0 &&
           epoch >= 0 && take_version(state->current, current, false) &&
           take_version(state->previous, previous, true) && take_pending(state, pending) &&
           (state->epoch = (uint64_t)epoch, true);
}

// -ENOENT: there is none; -EINVAL, -EPERM, -EFBIG: it is not to be believed.
static int read_state(struct update_store *store, struct update_state *state)
{
    char *text;
    size_t count;
    *state = (struct update_state){0};
    int rc = files_read(&store->files, "state.json", STATE_BYTES_MAX, &text, &count);
    if (rc < 0)
        return rc;
    json_t *object = json_loadb(text, count, JSON_REJECT_DUPLICATES, NULL);
    rc = take_state(state, object) ? 0 : -EINVAL;
    json_decref(object);
    free(text);
    return rc;
}

static char *state_text(const struct update_state *state)
{
    const struct update_pending *pending = &state->pending;
    json_t *object = json_pack(
        "{s:s,s:s,s:o,s:I}", "current", state->current, "previous", state->previous, "pending",
        *pending->version ? json_pack("{s:s,s:I,s:s,s:s}", "version", pending->version, "deadline",
                                      (json_int_t)pending->deadline_ns, "session", pending->session,
                                      "before", pending->before)
                          : json_null(),
        "epoch", (json_int_t)state->epoch);
    char *text = json_dumps(object, JSON_INDENT(2));
    json_decref(object);
    return text;
}

// ---- The state on the disk ----------------------------------------------------------------------

// The link to the current slot; none where the installed version is current.
static int follow(struct update_store *store)
{
    const struct update_files *files = &store->files;
    char target[LINK_BYTES], there[LINK_BYTES] = "";
    bool linked = strcmp(store->state.current, UPDATE_INSTALLED) != 0;
    snprintf(target, sizeof(target), "slots/%s", store->state.current);
    int64_t n = files->read_link(files->opaque, "current", there, sizeof(there) - 1);
    if (linked ? n >= 0 && strcmp(there, target) == 0 : n == -ENOENT)
        return 0;
    int rc = linked && n != -EINVAL ? 0 : files_remove(files, "current");
    if (rc == 0 && linked)
        rc = files_remove(files, "current.new");
    if (rc == 0 && linked)
        rc = files->link(files->opaque, target, "current.new");
    if (rc == 0 && linked)
        rc = files->rename(files->opaque, "current.new", "current");
    return rc == 0 ? files->sync_folder(files->opaque, "") : rc;
}

static void try_to_follow(struct update_store *store)
{
    int rc = follow(store);
    if (rc < 0)
        log_line(LOG_WARN, "cannot set the link \"%s/current\": %s", store->folder,
                 strerrordesc_np(-rc));
}

// What is on its way gives up its room: it can be sent again, and an update that cannot be taken
// back for want of a block would be worse.
static int replace_state(struct update_store *store, const char *text)
{
    int rc = files_replace(&store->files, "state.json", text, strlen(text));
    if (rc != -ENOSPC && rc != -EDQUOT)
        return rc;
    (void)!stages_discard(store);
    return files_replace(&store->files, "state.json", text, strlen(text));
}

static int set_state(struct update_store *store, const struct update_state *state)
{
    char *text = state_text(state);
    int rc = text ? replace_state(store, text) : -ENOMEM;
    free(text);
    if (rc < 0)
        return rc;
    store->state = *state;
    try_to_follow(store);
    return 0;
}

// ---- Putting in order ---------------------------------------------------------------------------

// Without a state to believe: the version that the link names, and the highest epoch in the store.
static int guess_state(struct update_store *store, struct update_state *state)
{
    static const char folder[] = "slots/";
    char target[LINK_BYTES] = "";
    struct update_slot *slots;
    size_t count;
    *state = (struct update_state){.current = UPDATE_INSTALLED};
    int64_t n = store->files.read_link(store->files.opaque, "current", target, sizeof(target) - 1);
    if (n > 0 && strncmp(target, folder, strlen(folder)) == 0 &&
        take_version(state->current, target + strlen(folder), false))
        snprintf(state->previous, sizeof(state->previous), UPDATE_INSTALLED);
    int rc = update_store_slots(store, &slots, &count, NULL);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < count; i++)
        if (slots[i].epoch > state->epoch)
            state->epoch = slots[i].epoch;
    free(slots);
    return 0;
}

static void back_to(struct update_state *state, const char *previous)
{
    memcpy(state->current, state->previous, sizeof(state->current));
    snprintf(state->previous, sizeof(state->previous), "%s", previous);
    state->pending = (struct update_pending){0};
}

// A version that cannot be started is replaced by the installed one, which always can.
static int mend_version(struct update_store *store, char version[UPDATE_VERSION_BYTES])
{
    int usable = *version ? slot_is_usable(store, version) : 1;
    if (usable == 0)
        snprintf(version, UPDATE_VERSION_BYTES, UPDATE_INSTALLED);
    return usable < 0 ? usable : 0;
}

static void forget_if(char version[UPDATE_VERSION_BYTES], const char *current)
{
    if (strcmp(version, current) == 0)
        *version = 0;
}

static int mend_state(struct update_store *store, struct update_state *state)
{
    int usable = slot_is_usable(store, state->current);
    if (usable == 0 && *state->previous)
        back_to(state, *state->pending.before ? state->pending.before : UPDATE_INSTALLED);
    int rc = usable < 0 ? usable : mend_version(store, state->current);
    if (rc == 0)
        rc = mend_version(store, state->previous);
    if (rc == 0)
        rc = mend_version(store, state->pending.before);
    if (rc == 0) {
        forget_if(state->previous, state->current);
        forget_if(state->pending.before, state->previous);
    }
    return rc;
}

static bool same_state(const struct update_state *one, const struct update_state *other)
{
    const struct update_pending *p = &one->pending, *q = &other->pending;
    return strcmp(one->current, other->current) == 0 &&
           strcmp(one->previous, other->previous) == 0 && one->epoch == other->epoch &&
           strcmp(p->version, q->version) == 0 && p->deadline_ns == q->deadline_ns &&
           strcmp(p->session, q->session) == 0 && strcmp(p->before, q->before) == 0;
}

// A disk that takes nothing keeps nobody from starting what is there: the same is found, and
// mended, next time.
static void try_to_set(struct update_store *store, const struct update_state *state)
{
    int rc = set_state(store, state);
    if (rc < 0)
        log_line(LOG_WARN, "cannot write \"%s/state.json\": %s", store->folder,
                 strerrordesc_np(-rc));
}

static void keep_mended(struct update_store *store, const struct update_state *mended,
                        const char *why)
{
    log_line(LOG_WARN, "the update store \"%s\" was put in order (%s): version \"%s\" is current",
             store->folder, why, mended->current);
    try_to_set(store, mended);
    audit_note(store, json_pack("{s:s,s:s,s:s}", "event", "repaired", "version", mended->current,
                                "why", why));
}

static int load_state(struct update_store *store)
{
    struct update_state found, mended;
    const char *why = "a slot is damaged";
    int rc = read_state(store, &found);
    bool none = rc == -ENOENT;
    bool unbelievable = rc == -EINVAL || rc == -EPERM || rc == -EFBIG;
    if (none || unbelievable) {
        rc = guess_state(store, &found);
        why = none ? "state.json is missing" : "state.json is damaged";
    }
    if (rc < 0)
        return rc;
    mended = found;
    rc = mend_state(store, &mended);
    if (rc < 0)
        return rc;
    store->state = mended;
    bool fresh = none && strcmp(found.current, UPDATE_INSTALLED) == 0 && found.epoch == 0;
    if (fresh)
        try_to_set(store, &mended);
    else if (none || unbelievable || !same_state(&found, &mended))
        keep_mended(store, &mended, why);
    else
        try_to_follow(store);
    return 0;
}

static void tidy(struct update_store *store)
{
    int rc = slots_tidy(store);
    if (rc == 0)
        rc = stages_tidy(store);
    if (rc == 0)
        rc = audit_open(store);
    if (rc < 0)
        log_line(LOG_WARN, "cannot tidy up the update store \"%s\": %s", store->folder,
                 strerrordesc_np(-rc));
}

// ---- Opening ------------------------------------------------------------------------------------

static int open_files(struct update_store *store, const struct update_store_config *config,
                      struct error *err)
{
    if (!store->folder)
        return error_set_errno(err, -ENOMEM, "cannot open the update store");
    if (!config->files)
        return files_host(&store->files, store->folder, err);
    store->files = *config->files;
    return 0;
}

static int open_content(struct update_store *store, struct error *err)
{
    static const char *const folders[] = {"slots", "staging"};
    for (size_t i = 0; i < BASE_COUNT_OF(folders); i++) {
        int rc = files_make_folder(&store->files, folders[i]);
        if (rc == -EPERM)
            return error_set(err, rc,
                             "cannot use the update store \"%s\": others may write to \"%s\"",
                             store->folder, folders[i]);
        if (rc < 0)
            return error_set_errno(err, rc, "cannot use \"%s/%s\" of the update store",
                                   store->folder, folders[i]);
    }
    tidy(store);
    int rc = load_state(store);
    return rc < 0 ? error_set_errno(err, rc, "cannot read the update store \"%s\"", store->folder)
                  : 0;
}

int update_store_open(struct update_store **out, const char *folder,
                      const struct update_store_config *config, struct error *err)
{
    static const struct update_store_config usual;
    struct update_store *store = calloc(1, sizeof(*store));
    if (!config)
        config = &usual;
    if (!store)
        return error_set_errno(err, -ENOMEM, "cannot open the update store \"%s\"", folder);
    *store = (struct update_store){
        .folder = strdup(folder),
        .quota_bytes = config->quota_bytes ? config->quota_bytes : UPDATE_QUOTA_BYTES,
        .audit_bytes = config->audit_bytes ? config->audit_bytes : UPDATE_AUDIT_BYTES,
        .now_ns = config->now_ns ? config->now_ns : clock_realtime_ns,
        .audit_lock = PTHREAD_MUTEX_INITIALIZER};
    int rc = open_files(store, config, err);
    if (rc == 0)
        rc = open_content(store, err);
    if (rc == 0)
        *out = store;
    else
        update_store_close(store);
    return rc;
}

void update_store_close(struct update_store *store)
{
    if (!store)
        return;
    update_stage_close(store->stage);
    if (store->files.end)
        store->files.end(store->files.opaque);
    free(store->folder);
    free(store);
}

const struct update_state *update_store_state(const struct update_store *store)
{
    return &store->state;
}

// ---- What is current ----------------------------------------------------------------------------

// A slot, or the installed version, of which nothing but its name is known.
static int find_version(struct update_store *store, const char *version, struct update_slot *slot,
                        struct error *err)
{
    if (strcmp(version, UPDATE_INSTALLED) != 0)
        return update_store_slot(store, version, slot, err);
    *slot = (struct update_slot){.version = UPDATE_INSTALLED};
    return 0;
}

int update_store_make_pending(struct update_store *store, const char *version, uint64_t deadline_ns,
                              const char *session, struct error *err)
{
    struct update_state state = store->state;
    struct update_slot slot;
    if (*state.pending.version)
        return error_set(err, -EBUSY, "version \"%s\" has not been confirmed yet", state.current);
    if (strcmp(version, state.current) == 0)
        return error_set(err, -EALREADY, "version \"%s\" is current already", version);
    if (*session && !digest_is_good(session))
        return error_set(err, -EINVAL, "\"%s\" is no session", session);
    int rc = find_version(store, version, &slot, err);
    if (rc < 0)
        return rc;
    state.pending.deadline_ns = deadline_ns;
    memcpy(state.pending.version, slot.version, sizeof(slot.version));
    memcpy(state.pending.before, state.previous, sizeof(state.previous));
    snprintf(state.pending.session, sizeof(state.pending.session), "%s", session);
    memcpy(state.previous, state.current, sizeof(state.current));
    memcpy(state.current, slot.version, sizeof(slot.version));
    rc = set_state(store, &state);
    if (rc < 0)
        return error_set_errno(err, rc, "cannot make version \"%s\" current", version);
    audit_note(store, json_pack("{s:s,s:s,s:s,s:s}", "event", "pending", "session", session,
                                "version", state.current, "from", state.previous));
    return 0;
}

int update_store_confirm(struct update_store *store, struct error *err)
{
    struct update_state state = store->state;
    struct update_slot slot;
    if (!*state.pending.version)
        return error_set(err, -EALREADY, "version \"%s\" has been confirmed already",
                         state.current);
    int rc = find_version(store, state.current, &slot, err);
    if (rc < 0)
        return rc;
    if (slot.epoch > state.epoch)
        state.epoch = slot.epoch;
    const struct update_pending pending = state.pending;
    state.pending = (struct update_pending){0};
    rc = set_state(store, &state);
    if (rc < 0)
        return error_set_errno(err, rc, "cannot confirm version \"%s\"", state.current);
    audit_note(store,
               json_pack("{s:s,s:s,s:s,s:I}", "event", "confirmed", "session", pending.session,
                         "version", state.current, "epoch", (json_int_t)state.epoch));
    return 0;
}

int update_store_rollback(struct update_store *store, const char *why, struct error *err)
{
    const struct update_state old = store->state;
    struct update_state state = old;
    int rc = mend_version(store, state.previous);
    forget_if(state.previous, state.current);
    if (rc == 0 && !*state.previous)
        return error_set(err, -ENOENT, "there is no version before \"%s\" to go back to",
                         state.current);
    back_to(&state, *old.pending.version ? old.pending.before : old.current);
    if (rc == 0)
        rc = mend_state(store, &state);
    if (rc == 0)
        rc = set_state(store, &state);
    if (rc < 0)
        return error_set_errno(err, rc, "cannot go back from version \"%s\"", old.current);
    audit_note(store, json_pack("{s:s,s:s,s:s,s:s,s:s}", "event", "rolled-back", "session",
                                old.pending.session, "version", state.current, "from", old.current,
                                "why", why));
    return 0;
}

// ---- What is kept -------------------------------------------------------------------------------

static bool is_needed(const struct update_store *store, const struct update_slot *slot)
{
    return slot->current || slot->previous ||
           strcmp(slot->version, store->state.pending.before) == 0;
}

static int prune(struct update_store *store, const struct update_slot *slots, size_t count,
                 unsigned keep)
{
    size_t spare = 0;
    for (size_t i = 0; i < count; i++)
        spare += !is_needed(store, &slots[i]);
    for (size_t i = 0; i < count && spare > keep; i++) {
        if (is_needed(store, &slots[i]))
            continue;
        int rc = slot_remove(store, slots[i].version);
        if (rc < 0)
            return rc;
        audit_note(store, json_pack("{s:s,s:s}", "event", "pruned", "version", slots[i].version));
        spare--;
    }
    return 0;
}

int update_store_prune(struct update_store *store, unsigned keep, struct error *err)
{
    struct update_slot *slots;
    size_t count;
    int rc = update_store_slots(store, &slots, &count, err);
    if (rc < 0)
        return rc;
    rc = prune(store, slots, count, keep);
    free(slots);
    return rc < 0
               ? error_set_errno(err, rc, "cannot remove old versions from \"%s\"", store->folder)
               : 0;
}
