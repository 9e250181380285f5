// SPDX-License-Identifier: BSD-2-Clause
// Interceptors, seen from the supervisor: what there are, their processes, what those are told of
// partitions, and what they ask for. Private to this room; the loop's thread.
//
// docs/supervisor.md has what people see of it, docs/leverage-protocols.md the messages.
#ifndef STRAKE_SUPERVISOR_LEVERAGE_H
#define STRAKE_SUPERVISOR_LEVERAGE_H

#include "leverage/leverage.h"
#include "supervisor/registry.h"

struct leverage;
struct interception;  // one interceptor

struct leverage_config {
    struct registry *registry;  // its store, events and loop are used
    const char *run_dir;        // where processes are found again
};

// Takes in the definitions. Nothing is started or looked for before leverage_begin, when it is
// known which partitions run.
BASE_NODISCARD int leverage_create(struct leverage **out, const struct leverage_config *config,
                                   struct error *err);
void leverage_begin(struct leverage *leverage);
// Whether all whose processes ran when it came do what they did, in those or in others. NULL: yes.
bool leverage_found_all(const struct leverage *leverage);
// Lets go of the processes, which go on. Operations under way end with -ECANCELED. Before
// partitions are let go of. NULL is ignored.
void leverage_destroy(struct leverage *leverage);

// ---- What partitions have to do with it ---------------------------------------------------------

// The name of an interceptor that has a module in the partition, or NULL.
const char *leverage_names(const struct leverage *leverage, const char *partition);
// Whether the partition is one's own: added, started and removed with it.
bool leverage_owns(const struct leverage *leverage, const char *partition);
// Something has become of a partition; not of one that is being handed over.
void leverage_tell(struct leverage *leverage, const struct entry *entry);

// ---- Operations ---------------------------------------------------------------------------------

// What became of one; `err` is NULL when it was done. Called once, perhaps at once. `interception`
// is NULL when it is not there (any more).
typedef void interception_done(void *opaque, struct interception *interception,
                               const struct error *err);

// Adds one by its definition, a JSON object, and starts its process; -EEXIST, -EINVAL, what its
// process says, and what writing to the disk says. What could not be started is not kept.
void leverage_add(struct leverage *leverage, const json_t *definition, interception_done *done,
                  void *opaque);
// NULL with *err set (-ESRCH).
struct interception *leverage_find(struct leverage *leverage, const char *name, struct error *err);
struct list *leverage_list(struct leverage *leverage);  // by name: interception_of_link
struct interception *interception_of_link(struct list *link);
// Has its process undo what it did to the host, then forgets it. When that fails it stays.
void interception_remove(struct interception *interception, interception_done *done, void *opaque);
// Asks its process: "stats", "reload". `answered` is called once, perhaps at once, with the result,
// borrowed, or an error; -EALREADY when there is no process at the moment.
typedef void interception_answer(void *opaque, struct interception *interception, json_t *result,
                                 const struct error *err);
void interception_ask(struct interception *interception, const char *op, unsigned timeout_ms,
                      interception_answer *answered, void *opaque);

// What the API tells of it: a new object.
json_t *interception_describe(const struct interception *interception);
const char *interception_name(const struct interception *interception);
const struct interceptor_definition *
interception_definition(const struct interception *interception);
enum interceptor_state interception_state(const struct interception *interception);
unsigned interception_restarts(const struct interception *interception);

// pidfds of the processes, up to `most`, which stay its own. Returns how many.
size_t leverage_children(const struct leverage *leverage, int *pidfds, size_t most);

#endif
