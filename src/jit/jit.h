// SPDX-License-Identifier: BSD-2-Clause
// jit: the translator, an engine that turns guest code into x86-64 code.
#ifndef STRAKE_JIT_H
#define STRAKE_JIT_H

#include <stdio.h>

#include "hart/hart.h"

#define JIT_CODE_BYTES (32u << 20)  // of translated code that a hart keeps, unless told otherwise
#define JIT_CODE_BYTES_MIN (128u << 10)
#define JIT_CODE_BYTES_MAX (256u << 20)

// Pieces that the memory windows of all harts together may have. Each may take two of the host's
// mappings, of which a process has 65530 unless the host was told otherwise (vm.max_map_count).
#define JIT_WINDOW_MAPS 16000u

extern const struct hart_engine hart_engine_jit;

// What hart_engine.options of a copy of hart_engine_jit may point to; zeros are the usual. Read by
// hart_engine.create, which returns 0, -EINVAL (code_bytes out of range), -ENOMEM or what the host
// said to mapping memory for code.
struct jit_options {
    size_t code_bytes;      // bound on a hart's code, JIT_CODE_BYTES_MIN to _MAX; 0: JIT_CODE_BYTES
    bool log;               // log each translation, guest and host code side by side
    bool no_windows;        // reach memory through the soft TLB only
    size_t window_maps;     // that a hart's memory windows may consist of; 0: usual
    uint64_t window_after;  // instructions that an address space runs before it gets one; 0: usual
    bool alone;             // for jit_run_block: each block leaves at its end
    bool count;             // count what costs time to count, see struct jit_stats
    struct jit_perf_map *perf_map;  // to be told of code, or NULL; outlives all engines
};

// The map that names translated code for Linux' perf; one serves all harts of a process. `fd` is
// the file, empty, to be written and read; taken over on success. 0, -ENOMEM or what the host said.
struct jit_perf_map;
BASE_NODISCARD int jit_perf_map_create(struct jit_perf_map **out, int fd);
void jit_perf_map_destroy(struct jit_perf_map *map);  // NULL is ignored
// Takes names of functions from a file, an ELF program or what nm or /proc/kallsyms prints; before
// any hart runs. 0, -ENOEXEC (there are none in it), -ENOMEM or what reading failed with.
BASE_NODISCARD int jit_perf_map_add_symbols(struct jit_perf_map *map, int fd);

// Calls of C from translated code, by the kind of instruction that they are for.
enum jit_call {
    JIT_CALL_LOAD,
    JIT_CALL_STORE,
    JIT_CALL_ATOMIC,
    JIT_CALL_FP,
    JIT_CALL_CSR,
    JIT_CALL_SYSTEM,
    JIT_CALL_OTHER,
    JIT_CALLS
};

// Why translated code was left for the dispatcher.
enum jit_exit {
    JIT_EXIT_UNLINKED,  // by a direct jump that was not linked yet
    JIT_EXIT_ENTRY,     // at a block's entry: the hart's attention is wanted
    JIT_EXIT_CALL,      // by a call of C: a trap, or an instruction that ends its block
    JIT_EXIT_JUMP,      // by a jump that the jump cache did not have
    JIT_EXITS
};

// What an engine's state has counted since it was created.
struct jit_stats {
    uint64_t translations;      // blocks translated
    uint64_t faults;            // accesses that a memory window did not have
    uint64_t links;             // jumps between blocks made direct
    uint64_t drops;             // how often a part of code memory was emptied to make room
    uint64_t dispatches;        // how often translated code was entered from the dispatcher
    uint64_t code_bytes;        // of code memory used now
    uint64_t code_bytes_bound;  // of what there is
    uint64_t fetches;           // how often the dispatcher looked up the page of a pc

    // Only with jit_options.count; a run of instructions that traps in its midst may be missing.
    uint64_t loads, stores;  // executed; atomics are stores, except lr
    uint64_t exits[JIT_EXITS];
    uint64_t calls[JIT_CALLS];
    uint64_t translation_ns;
};

// On the hart's thread, or while it is stopped. `state` is of this engine.
void jit_stats(const void *state, struct jit_stats *stats);

// ---- For an engine that checks this one

// With jit_options.alone: executes one block from hart->pc, or takes the exception that its fetch
// raises, whatever `attention` says. Afterwards the hart's state is exact, as after
// hart_engine.run.
void jit_run_block(struct hart *hart, void *state);
// Writes the host code of the block at hart->pc, if it has one, for people to read.
void jit_print_block(struct hart *hart, void *state, FILE *out);

#endif
