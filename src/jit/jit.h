// SPDX-License-Identifier: BSD-2-Clause
// jit: the translator, an engine that turns guest code into x86-64 code.
#ifndef STRAKE_JIT_H
#define STRAKE_JIT_H

#include <stdio.h>

#include "hart/hart.h"

#define JIT_CODE_BYTES (32u << 20)  // of translated code that a hart keeps, unless told otherwise
#define JIT_CODE_BYTES_MIN (128u << 10)
#define JIT_CODE_BYTES_MAX (256u << 20)

extern const struct hart_engine hart_engine_jit;

// What hart_engine.options of a copy of hart_engine_jit may point to; zeros are the usual. Read by
// hart_engine.create, which returns 0, -EINVAL (code_bytes out of range), -ENOMEM or what the host
// said to mapping memory for code.
struct jit_options {
    size_t code_bytes;  // bound on a hart's code, JIT_CODE_BYTES_MIN to _MAX; 0: JIT_CODE_BYTES
    bool log;           // log each translation, guest and host code side by side
    bool alone;         // for jit_run_block: each block leaves at its end
};

// What an engine's state has counted since it was created.
struct jit_stats {
    uint64_t translations;  // blocks translated
    uint64_t links;         // jumps between blocks made direct, and old entries led to new blocks
    uint64_t drops;         // how often everything was dropped, the code memory being full
    uint64_t dispatches;    // how often translated code was entered from the dispatcher
    uint64_t code_bytes;    // of code memory used now
};

// On the hart's thread, or while it is stopped. `state` is of this engine.
void jit_stats(const void *state, struct jit_stats *stats);

// ---- For an engine that checks this one

// With jit_options.alone: executes one block from hart->pc, or takes the exception that its fetch
// raises. Attention that is asked for at its entry keeps it from being executed. Afterwards the
// hart's state is exact, as after hart_engine.run.
void jit_run_block(struct hart *hart, void *state);
// Writes the host code of the block at hart->pc, if it has one, for people to read.
void jit_print_block(struct hart *hart, void *state, FILE *out);

#endif
