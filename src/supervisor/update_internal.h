// SPDX-License-Identifier: BSD-2-Clause
// What the files about updates share.
#ifndef STRAKE_SUPERVISOR_UPDATE_INTERNAL_H
#define STRAKE_SUPERVISOR_UPDATE_INTERNAL_H

#include "package/package.h"
#include "supervisor/program.h"
#include "supervisor/transaction.h"
#include "supervisor/update.h"

#define BY_HAND "the host's administrator went back"

// A session's work, until the session has ended.
struct work;
struct rollback;

struct updates {
    struct updates_config config;
    struct update_store *store;
    struct update_service *service;
    struct list connections;
    struct list guests;  // of struct guest: what each has used of its limits
    struct loop_timer *turn, *tick;
    struct work *work;          // or NULL
    struct rollback *rollback;  // by hand, until partitions were handed over; or NULL
    char own_sha256[UPDATE_DIGEST_BYTES];

    struct update_host host;
    struct update_program *programs;
    bool listed;  // `programs` are those of the store's slots

    // What became of the last update that got to COMMIT, as it is kept on the disk: {"digest",
    // "version", "partition", "phase", "result", "why", "counts"}; NULL: none has.
    json_t *last;
    bool going_back;  // partitions are to be handed back to this program; kept as "back" in `last`

    bool settled;  // partitions were found, and the API answers
    bool proving;  // the pending version is this one
    bool stale;    // it was taken back, but not in the store yet
    struct log_limit complaints;
};

// update_work.c: as in update_service_ops.
int work_validate(void *opaque, const struct update_work *work, struct error *err);
int work_commit(void *opaque, const struct update_work *work, struct error *err);
void work_ended(void *opaque, uint64_t session);
bool work_is_under_way(const struct updates *updates);  // in its thread, or committing
void work_cancel(struct updates *updates);              // the supervisor is ending

// update_rollback.c
void rollback_cancel(struct updates *updates);  // the supervisor is ending

// update_show.c: the stream of events is told of a record of the audit log; and that the current
// version, which was `from` before, has come to be that. `why` may be NULL.
void updates_tell_record(struct updates *updates, const json_t *record);
void updates_tell(struct updates *updates, const char *event, const char *from, const char *why);

// update_proof.c
void proof_begin(struct updates *updates);  // what an earlier supervisor has left
void proof_step(struct updates *updates);   // each second: what could not be decided yet
// The pending version is taken back in the store, and so it is remembered.
void updates_revert(struct updates *updates, const char *why);

// update_last.c: what is remembered of updates.
void last_load(struct updates *updates);
// What was sent for it has served, and the session that would remove it was the supervisor's
// before.
void last_unstage(struct updates *updates);
// One gets to COMMIT.
int last_begin(struct updates *updates, const char *digest, const char *version,
               const char *partition);
// The current version has been confirmed, whoever brought it: what that makes of the last update.
// `why`: if it is no longer current.
void last_follow(struct updates *updates, const char *why);
int last_keep(struct updates *updates);  // on the disk
// The version of one that is being committed, as far as is remembered; or NULL.
const char *last_committing(const struct updates *updates);
// Sets and keeps it; `result` is taken, and may be NULL as `why` may.
int last_set(struct updates *updates, enum update_phase phase, json_t *result, const char *why);
bool last_recall(void *opaque, const char *partition, const char *digest,
                 struct update_outcome *outcome);
void last_forget(void *opaque, const char *partition, const char *digest);

void updates_audit(struct updates *updates, const json_t *record);

#endif
