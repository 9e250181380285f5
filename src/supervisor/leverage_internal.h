// SPDX-License-Identifier: BSD-2-Clause
// What the files about interceptors share: leverage.c has the table and what becomes of each,
// leverage_process.c its process, leverage_hold.c lifelines on their way to monitors. Private to
// these.
#ifndef STRAKE_SUPERVISOR_LEVERAGE_INTERNAL_H
#define STRAKE_SUPERVISOR_LEVERAGE_INTERNAL_H

#include "supervisor/child.h"
#include "supervisor/leverage.h"

struct leverage {
    struct registry *registry;
    char *run_dir;
    struct list list;
};

enum interception_phase {
    INTERCEPTION_ADDED,     // and nobody waits for it to come about, when `done` is NULL
    INTERCEPTION_REMOVING,  // its process is to undo what it did to the host
    INTERCEPTION_ENDING,    // that is done: process, partition and definition go
};

struct interception {
    struct list link;
    struct leverage *leverage;
    struct interceptor_definition definition;
    json_t *definition_json;
    enum interception_phase phase;
    enum interceptor_state state;  // as its process says, as long as there is one
    char why[ERROR_MESSAGE_BYTES];
    uint64_t since_ns;  // CLOCK_REALTIME

    struct child *child;   // NULL: none
    bool found;            // it ran already
    bool ready;            // it has answered `start` or `hello`
    bool awaited;          // it ran when the supervisor came, and has not answered since
    bool ended;            // it is over by itself
    bool outdated;         // it is of another version, and was killed for that
    struct error refused;  // why it cannot start, once that is known; code 0: nothing is
    uint64_t started_ns;   // CLOCK_MONOTONIC
    unsigned failures;     // in a row
    unsigned restarts;
    struct loop_timer *patience;  // for its answer, or until the next try
    json_t *views;                // what it was told of partitions, by name
    struct descriptors kept;      // for its successor
    struct list holds;
    unsigned undone;     // how often it was lost while it was to undo what it did
    uint64_t let_go_ns;  // CLOCK_MONOTONIC, when monitors were asked to let go; 0: not yet

    interception_done *done;  // of the operation that is under way
    void *opaque;
    struct error failed;  // that operation has; code 0: it has not
};

// ---- leverage_process.c -------------------------------------------------------------------------

// Looks for its process; false: there is none.
bool interception_find(struct interception *interception);
// Finds its process, or starts one. What follows is interception_ready or interception_gone, once
// and then again: never before this returns.
void interception_run(struct interception *interception);
// Tells it of a partition, unless that is nothing new.
void interception_show(struct interception *interception, const struct entry *entry);
// Of the timer `patience`: it has not answered, or is to be tried again, or has no process to wait
// for.
void interception_on_patience(void *opaque);
// Has it end; interception_gone follows.
void interception_dismiss(struct interception *interception);
// Removes what is left of it in the file system, once it has ended.
void interception_discard(const struct interception *interception);
// Lets go of it, which goes on.
void interception_forsake(struct interception *interception);
void interception_emit(const struct interception *interception, const char *event, json_t *more);

// ---- leverage.c ---------------------------------------------------------------------------------

void interception_set_state(struct interception *interception, enum interceptor_state state,
                            const char *why);
// Its process does what it is to, or what it did before.
void interception_ready(struct interception *interception);
// Its process has ended; `refused`: it could not be started.
void interception_gone(struct interception *interception, const char *why, bool refused);

// ---- leverage_hold.c ----------------------------------------------------------------------------

// Answers the process's request `hold`.
void interception_hold(struct interception *interception, uint64_t id, json_t *message,
                       struct descriptors *fds);
// Has monitors let go of what they hold for it: until then there are holds.
void interception_let_go(struct interception *interception);
// Nobody waits for answers any more. What is on its way goes on.
void interception_forget_holds(struct interception *interception);

#endif
