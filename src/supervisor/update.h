// SPDX-License-Identifier: BSD-2-Clause
// update: the supervisor's part in updates that guests bring: it serves their connections, keeps
// the store, tests what they send, and replaces all monitors and itself. Private to this room; the
// loop's thread.
#ifndef STRAKE_SUPERVISOR_UPDATE_H
#define STRAKE_SUPERVISOR_UPDATE_H

#include "supervisor/registry.h"
#include "update/update.h"

struct updates_config {
    struct loop *loop;
    struct registry *registry;
    const char *state_dir;
    const char *trusted_dir;
    unsigned keep, confirm_within_s;
    bool allow_downgrade;
    bool reexecuted;  // by an update, or by somebody's wish: else this is a first start
    // Has the supervisor go on as this program: api_config.reexec.
    void (*reexec)(void *opaque, int program_fd);
    void *opaque;
};

struct updates;

// Opens the store, and takes a version back that was not confirmed before the last supervisor was
// gone.
BASE_NODISCARD int updates_create(struct updates **out, const struct updates_config *config,
                                  struct error *err);
void updates_destroy(struct updates *updates);  // after partitions were released; NULL is ignored

// What a supervisor that has just been started is to go on as: the current version's program, a
// descriptor of the caller's; -1: as what it is.
int updates_program(struct updates *updates);

// A guest connects: the socket for its monitor, or a negative errno. -EAGAIN: it has so many that
// this one is not even told so.
int updates_connect(struct updates *updates, const char *partition, bool permitted);

// The API answers, and partitions have been asked: a version that was to prove itself has when all
// of them answered.
void updates_settled(struct updates *updates);
// The supervisor could not go on as the new program.
void updates_reexec_failed(struct updates *updates, const struct error *err);

// ---- By hand ------------------------------------------------------------------------------------

// The version that has to prove itself has. -EALREADY: there is none; -EBUSY: it does not run yet.
BASE_NODISCARD int updates_confirm(struct updates *updates, struct error *err);

// What became of going back: `result`, borrowed, as docs/api.yaml has it (Rollback); or why nothing
// was tried.
typedef void updates_rolled_back(void *opaque, json_t *result, const struct error *err);
// Goes to another version that is kept, or UPDATE_INSTALLED; NULL: the previous one. All partitions
// are handed over to it or none, and `done` is called, once; then the supervisor goes on as it,
// which has to prove itself like an update. -EALREADY: there is none, or it is current; -ESRCH: no
// such version; -EBUSY: something else is under way.
void updates_rollback(struct updates *updates, const char *version, updates_rolled_back *done,
                      void *opaque);

// As docs/api.yaml has it (Updates), a new object.
json_t *updates_describe(struct updates *updates);
// Of that what is counted: "pending", "outcomes", "refusals".
json_t *updates_count(const struct updates *updates);
// The newest `count` records of the audit log, oldest first; NULL with *err set.
json_t *updates_history(struct updates *updates, size_t count, struct error *err);

#endif
