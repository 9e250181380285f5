// SPDX-License-Identifier: BSD-2-Clause
// The registry of partitions: what there is, what becomes of it, and what was asked for. Private to
// this room; the loop's thread.
#ifndef STRAKE_SUPERVISOR_REGISTRY_H
#define STRAKE_SUPERVISOR_REGISTRY_H

#include "supervisor/events.h"
#include "supervisor/store.h"
#include "supervisor/supervisor.h"

enum entry_state {
    ENTRY_STOPPED,
    ENTRY_STARTING,
    ENTRY_RUNNING,
    ENTRY_PAUSED,
    ENTRY_STOPPING,    // its power button was pressed
    ENTRY_RESTARTING,  // it has failed, and waits to be started again
    ENTRY_FAILED,      // the guest reported failure, or it could not be started
    ENTRY_CRASHED,     // its monitor did
    ENTRY_STATES
};

const char *entry_state_name(enum entry_state state);

struct entry;
// What became of an operation: `err` is NULL when it was done. Called once, perhaps before the
// operation's function returns.
typedef void entry_done(void *opaque, struct entry *entry, const struct error *err);

struct registry;
struct transaction;
struct updates;
struct leverage;

// A partition. Others read it; what is written is written by the registry.
struct entry {
    struct list link;  // by name
    struct registry *registry;
    uint64_t handle;
    char id[32];
    char name[STORE_NAME_MAX + 1];
    struct definition definition;
    bool vsock_chosen;  // its definition has none: it was given one, for this run

    enum entry_state state;
    uint64_t since_ns;        // CLOCK_REALTIME: when it came into that state
    bool wanted;              // to run, as far as anybody has said
    struct process *process;  // NULL when it is not in STARTING to STOPPING
    uint64_t started_ns;      // CLOCK_MONOTONIC
    unsigned runs;            // how often it was started: also names the console that it has
    unsigned restarts;        // of these, how often by itself
    unsigned handovers;
    json_t *last_end, *last_handover;  // NULL: none yet

    // The console's ring stays readable after the end, until the next start.
    struct console_ring *console;
    struct list followers;  // of the console: attach.c

    // Where its next run begins, or what its present one shares its RAM by; NULL: nothing.
    struct snapshot *snapshot;
    bool from_snapshot;   // the next run begins there
    bool vsock_restored;  // with a vsock device that had been chosen

    // The registry's own.
    struct list waits;
    struct process *dead;  // to be destroyed in the loop's next turn
    entry_done *started;
    void *started_opaque;
    bool start_paused;  // it is not to run yet when it has started
    bool hello;         // it is being asked what it does
    bool adopted;       // it ran when this supervisor came, and has run since
    bool owed;          // it waited to be started again when the supervisor before ended
    unsigned failures;  // in a row
    struct loop_timer *retry, *reap, *patience;
};

struct registry_config {
    struct loop *loop;
    const char *state_dir, *run_dir;
    unsigned restart_delay_ms;  // the first; it doubles up to 60 times that, and starts anew when a
                                // partition has run that long
    unsigned start_timeout_ms;  // within which a process has to answer; 0: two minutes
    const int *lock_fd;         // of the state folder, as store_open's; NULL: -1
};

BASE_NODISCARD int registry_create(struct registry **out, const struct registry_config *config,
                                   struct error *err);
// Takes in the definitions, finds partitions that run, and starts those that are to. `settled` is
// called once, when all that run have answered or time is up.
BASE_NODISCARD int registry_load(struct registry *registry, void (*settled)(void *opaque),
                                 void *opaque, struct error *err);
// All that ran before this supervisor came has answered, or had ended by itself.
bool registry_found_all(const struct registry *registry);
// One that was asked when this supervisor came, and has not answered yet; or NULL.
const struct entry *registry_silent(struct registry *registry);
// Presses the power button of all, kills those that have not ended in time, then calls `done`.
void registry_stop_all(struct registry *registry, unsigned timeout_ms, void (*done)(void *opaque),
                       void *opaque);
// Lets go of partitions, which run on. Operations under way end with -ECANCELED.
void registry_release(struct registry *registry);
// When it was released, and what follows events has ended. NULL is ignored.
void registry_destroy(struct registry *registry);

struct events *registry_events(struct registry *registry);
// The descriptor that holds the state folder's lock; stays the registry's.
int registry_lock(const struct registry *registry);
struct store *registry_store(const struct registry *registry);
struct loop *registry_loop(struct registry *registry);
struct list *registry_entries(struct registry *registry);  // of struct entry.link
struct entry *registry_find_name(struct registry *registry, const char *name);  // or NULL
// -ESRCH: this is no id; -ESTALE: what it was the id of is gone.
BASE_NODISCARD int registry_find_id(struct registry *registry, const char *id, struct entry **out,
                                    struct error *err);

// Adds a partition by its definition. -EEXIST, -EINVAL, and what writing to the disk says.
BASE_NODISCARD int registry_add(struct registry *registry, const json_t *definition,
                                struct entry **out, struct error *err);
// Forgets one that is stopped and that no interceptor names; -EBUSY when it is not so. The entry is
// gone then.
BASE_NODISCARD int registry_remove(struct entry *entry, struct error *err);

// Of a path in a definition (a definition_path_fn): a supervisor is in no folder that its clients
// could know of. -EINVAL.
BASE_NODISCARD int registry_check_path(const char *key, char **path, struct error *err);

// What the API tells of it: a new object; `more` adds its definition.
json_t *entry_describe(const struct entry *entry, bool more);

// ---- Operations ---------------------------------------------------------------------------------

void entry_start(struct entry *entry, bool paused, entry_done *done, void *opaque);
// Presses the power button, and waits for the end. -ETIMEDOUT: it goes on, for all one knows.
void entry_stop(struct entry *entry, unsigned timeout_ms, entry_done *done, void *opaque);
void entry_kill(struct entry *entry, entry_done *done, void *opaque);
void entry_restart(struct entry *entry, unsigned timeout_ms, entry_done *done, void *opaque);
void entry_pause(struct entry *entry, entry_done *done, void *opaque);
void entry_resume(struct entry *entry, entry_done *done, void *opaque);
// `binary_fd` -1: this program. Stays the caller's.
void entry_handover(struct entry *entry, int binary_fd, entry_done *done, void *opaque);

// Into the new folder `path`, absolute.
void entry_snapshot(struct entry *entry, const char *path, entry_done *done, void *opaque);
// Adds a partition that goes on from the snapshot in the folder `path`, and starts it. `changes`,
// keys of its definition, are laid over that of the snapshot. `done` gets the entry, NULL when
// there is none.
void registry_restore(struct registry *registry, const char *path, const json_t *changes,
                      bool paused, entry_done *done, void *opaque);

// Asks the monitor of a partition that has one; `arguments` (NULL: none) is taken. `answered` is
// called once, with the result, borrowed, or an error.
typedef void entry_answer(void *opaque, struct entry *entry, json_t *result,
                          const struct error *err);
void entry_ask(struct entry *entry, const char *op, json_t *arguments, unsigned timeout_ms,
               entry_answer *answered, void *opaque);

// ---- Between registry.c and life.c --------------------------------------------------------------

// Restarts by policy, what was kept of the entry's former life, and what the end was like.
unsigned registry_restart_delay_ms(const struct registry *registry);
unsigned registry_start_timeout_ms(const struct registry *registry);
const char *registry_run_dir(const struct registry *registry);
// Tells of the entry; `more`, which may be NULL, is taken.
void entry_tell(struct entry *entry, const char *event, json_t *more);
// Reads the definition again, which people may have changed.
BASE_NODISCARD int registry_refresh(struct entry *entry, struct error *err);
// Writes down what a later supervisor has to know; what goes wrong is logged.
void registry_record(struct entry *entry);
// An adoption has come to its end.
void registry_adopted(struct registry *registry);
// What ran before this supervisor came crashed when it was asked, or cannot be talked with.
void registry_lost(struct registry *registry);

BASE_NODISCARD int entry_init(struct entry *entry, struct registry *registry);
void entry_fini(struct entry *entry);  // lets go of its monitor
// Looks for a monitor that runs, or has ended meanwhile. True: registry_adopted will be called.
bool entry_adopt(struct entry *entry);

// update.c: where guests' updates go; NULL: nowhere. Set once, and outlives the partitions.
struct updates *registry_updates(const struct registry *registry);
void registry_set_updates(struct registry *registry, struct updates *updates);

// leverage.c: interceptors, which are told what becomes of partitions; NULL: there are none (yet,
// or any more).
struct leverage *registry_leverage(const struct registry *registry);
void registry_set_leverage(struct registry *registry, struct leverage *leverage);

// transaction.c: all partitions are being handed over; NULL: they are not. It sets it itself.
struct transaction *registry_transaction(const struct registry *registry);
void registry_set_transaction(struct registry *registry, struct transaction *transaction);

// restore.c: the snapshots that are open, and what is being restored from them.
struct restorer;
struct restorer *registry_restorer(struct registry *registry);
BASE_NODISCARD int restorer_create(struct restorer **out, struct loop *loop);
void restorer_cancel(struct restorer *restorer);  // ends what is under way with -ECANCELED
// When it was cancelled, and no entry has a snapshot any more. NULL is ignored.
void restorer_destroy(struct restorer *restorer);

// report.c: the end of a partition for people: {"end", "code", "why", "time", "console", ...}.
json_t *report_end(const struct entry *entry, const struct process_end *end, pid_t pid);

#endif
