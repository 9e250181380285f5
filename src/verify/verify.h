// SPDX-License-Identifier: BSD-2-Clause
// verify: an engine that runs interpreter and translator in lockstep, a block at a time, and stops
// with a report at the first difference. The guest is executed once, by the interpreter.
#ifndef STRAKE_VERIFY_H
#define STRAKE_VERIFY_H

#include "hart/hart.h"

// hart_engine.options are struct jit_options, for the translator. At a difference the engine logs
// the report and hart_run returns HART_EXIT_FAILED.
extern const struct hart_engine hart_engine_verify;

struct verify_stats {
    uint64_t blocks;        // of translated code that was run
    uint64_t instructions;  // of the guest, retired or trapped
    uint64_t runs;          // comparisons
    uint64_t replays;       // blocks of accesses that cannot be made twice
    uint64_t races;         // blocks during which another hart or a device wrote what they read
    uint64_t unstable;      // blocks whose code changed unfenced; not compared
};

// On the hart's thread, or while it is stopped. `state` is of this engine.
void verify_stats(const void *state, struct verify_stats *stats);
// The report, or NULL while there was no difference. Valid as long as the state is.
const char *verify_report(const void *state);

#endif
