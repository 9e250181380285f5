// SPDX-License-Identifier: BSD-2-Clause
// The differential test: random programs run by an engine of ours and by Debian's qemu-riscv64,
// and what both write compared. README.md says how it works and what it leaves out.
#ifndef DIFFERENTIAL_H
#define DIFFERENTIAL_H

#include "hart/hart.h"
#include "isa/tables.h"

// ---- A program and its memory -------------------------------------------------------------------

#define CODE_GVA 0x80000000u
#define CODE_BYTES 0x20000u
#define DATA_GVA 0x80101000u
#define WINDOW_BYTES 4112u

// The state of a program between two chunks of it: what a checkpoint writes and both sides must
// agree on. Lies in the program's memory.
struct snapshot {
    uint64_t x[32], f[32];  // x[0] is 0; x of the anchor is the window's address
    uint64_t fcsr;
    uint64_t unused[63];
    uint8_t window[WINDOW_BYTES];  // where random loads and stores go
};

// The data segment. The anchor register points at state.window, which a page boundary divides, and
// reaches everything else with a 12-bit offset.
struct data {
    uint64_t doubles[64];  // operands worth having; never stored to
    uint32_t singles[128];
    struct snapshot state;
};

#define ANCHOR_GVA (DATA_GVA + offsetof(struct data, state.window))
_Static_assert(ANCHOR_GVA % 4096 == 2048, "the window does not cross a page boundary");

#define CHUNKS_MAX 64

// Code begins with loading the initial state and a jump to the first chunk. Chunks follow each
// other; each ends with a call of the checkpoint routine; the last is followed by the exit.
struct program {
    uint64_t seed;
    unsigned chunk_count;
    uint32_t chunk_at[CHUNKS_MAX + 1];  // offsets in code; the last is where the exit is
    uint32_t entry_jump_at, exit_at, trap_at;
    uint32_t entry_instructions, checkpoint_instructions, exit_instructions;
    uint32_t code_bytes;
    uint8_t code[CODE_BYTES];
    struct data data;
};

// How often each form was put into a program.
struct coverage {
    uint64_t forms[ISA_FORM_COUNT];
};

// What a program asks the system for: Linux's numbers for qemu-riscv64, and one of ours.
enum { CALL_WRITE = 64, CALL_EXIT = 93, CALL_TRAPPED = 1000 };

// Why the test cannot have this form, or NULL.
const char *program_exclusion(enum isa_form form);
// Whether the generator knows how to use this form.
bool program_can_use(enum isa_form form);

// Makes the program that belongs to `seed`; loops turn at most `turns_max` times.
void program_generate(struct program *program, uint64_t seed, unsigned turns_max,
                      struct coverage *coverage);
// Leaves only one chunk to be executed, from the given state. The code stays where it is.
void program_narrow(struct program *program, unsigned chunk, const struct snapshot *state);
// Replaces instructions by as many bytes of nops.
void program_erase(struct program *program, uint32_t offset, uint32_t length_bytes);
// Writes it as a static ELF into a new memfd, which is returned; -1 with errno on failure.
int program_image(const struct program *program);

// ---- Running ------------------------------------------------------------------------------------

// What the process of our side tells besides its output.
struct verdict {
    uint64_t instructions;  // executed
    bool trapped;           // with what follows
    uint64_t cause, pc, tval;
};

// What came out of one side: its checkpoints, and how it ended.
struct outcome {
    struct snapshot *snapshots;
    size_t count;
    size_t bytes;            // written; not a multiple of a snapshot when it was cut short
    int status;              // as from wait(2)
    struct verdict verdict;  // ours only
};

// Runs the program on both sides at once, for at most `seconds` each. Returns 0, or -errno when
// that could not be done at all; a side that crashed is an outcome.
int run_both(const struct program *program, const struct hart_engine *engine, unsigned seconds,
             struct outcome *ours, struct outcome *qemu);
void outcome_free(struct outcome *outcome);
// Exited with 0.
bool outcome_well(const struct outcome *outcome);
// Both ended well and wrote the same.
bool outcome_same(const struct outcome *a, const struct outcome *b);

// ---- Reporting ----------------------------------------------------------------------------------

// Finds the first chunk in which the sides part, takes out of it what is not needed for that, and
// prints what is left with the state before and after.
void report_difference(const struct program *program, const struct hart_engine *engine,
                       const struct outcome *ours, const struct outcome *qemu);

#endif
