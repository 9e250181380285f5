// SPDX-License-Identifier: BSD-2-Clause
// transaction: all partitions that run are handed over to another program, or none stays there.
// Private to this room; the loop's thread.
#ifndef STRAKE_SUPERVISOR_TRANSACTION_H
#define STRAKE_SUPERVISOR_TRANSACTION_H

#include "supervisor/registry.h"

enum transaction_outcome {
    TRANSACTION_DONE,         // all that run do so in the new program
    TRANSACTION_ROLLED_BACK,  // one could not be handed over: all run in what they ran in before
    TRANSACTION_INCOMPLETE,   // so it was, but some could not be handed back, and stay; or of
                              // those that were gathered some could not be handed over
    TRANSACTION_CANCELLED,    // the supervisor is ending; each is in one of the two
};

struct transaction;

// `result`, borrowed, is as docs/api.yaml has it (HandoverAll). Once.
typedef void transaction_done(void *opaque, enum transaction_outcome outcome, json_t *result);

// Hands them over one after the other, by name; those that come to run meanwhile, too. What they go
// back to is what their monitors execute now. `program_fd`, -1: this program, stays the caller's.
// The registry has the transaction until `done` is called, and then no more. -EBUSY: there is one.
BASE_NODISCARD int transaction_begin(struct registry *registry, int program_fd,
                                     transaction_done *done, void *opaque, struct error *err);
// Hands those over to this program that run in another one, each by itself: a failure changes
// nothing for the others. Otherwise as above.
BASE_NODISCARD int transaction_gather(struct registry *registry, transaction_done *done,
                                      void *opaque, struct error *err);
// Calls `done`: TRANSACTION_CANCELLED. NULL is ignored.
void transaction_cancel(struct transaction *transaction);

#endif
