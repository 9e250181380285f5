// SPDX-License-Identifier: BSD-2-Clause
// What the files of this room share: the state, the journal, the copies. Private to this room.
#ifndef STRAKE_VERIFY_INTERNAL_H
#define STRAKE_VERIFY_INTERNAL_H

#include "jit/jit.h"
#include "verify/verify.h"

#define VERIFY_PAGES 16      // of copies; a block that touches more is cut
#define VERIFY_ACCESSES 512  // in the journal; the same
#define VERIFY_BATCH 256
#define VERIFY_WARM_ONE_IN 8

// ---- The journal: what a block did outside of the registers

enum verify_kind {
    VERIFY_LOAD,
    VERIFY_STORE,
    VERIFY_ATOMIC,
    VERIFY_CACHE_BLOCK,
    VERIFY_CSR,     // one that reads what changes by itself
    VERIFY_SYSTEM,  // one that has effects outside of the hart
};

struct verify_access {
    enum verify_kind kind;
    enum hart_access access;  // of an atomic
    unsigned width_bytes;
    bool ok;          // else it raised cause and tval
    bool zero;        // a cache block operation that stores
    uint64_t gva;     // a CSR's number; pc for SYSTEM
    uint64_t value;   // loaded, stored, before the atomic, read from the CSR
    uint64_t before;  // the store
    uint64_t after;   // the atomic; the operand for the CSR
    uint64_t gpa;     // of an atomic
    uint8_t *hva[2];  // in RAM, else NULL; the second is of an access over a page's end
    uint64_t cause, tval;
};

// A page of RAM that a block touched, and what stands in for it.
struct verify_page {
    uint8_t *real, *copy;
    uint8_t *before, *after;  // only when the journal was followed, see verify_copies_rewind
};

// A translation that the interpreter's accesses found: its TLB, which engines do not see. Good for
// one generation.
struct verify_known {
    uint64_t generation, page_gva;
    const struct hart_tlb_entry *context;
    uint8_t *page_hva;
};
#define VERIFY_KNOWN 512

struct verify {
    void *interp, *jit;
    struct hart_engine jit_engine;  // the translator as hart->engine, while it runs
    struct jit_options jit_options;
    void (*run_block)(struct hart *hart, void *jit);  // jit_run_block, but in tests
    struct verify_stats stats;
    char *report;
    unsigned batch;        // instructions before the two are compared, at the end of a block
    unsigned warm_one_in;  // how many runs on copies are repeated

    // Where the block started, how far the interpreter came, and the translator.
    struct hart_state start, reference, translated;
    struct hart_state step;  // where an instruction started

    struct verify_access journal[VERIFY_ACCESSES + 1];  // one more for what finds it full
    unsigned recorded, replayed;
    struct hart_state before_system, after_system;  // of the one VERIFY_SYSTEM there can be
    bool cut;       // on copies: go on only when the interpreter has followed
    bool outside;   // something was recorded that copies cannot have shown
    bool stepping;  // the interpreter executes a single instruction
    // A replayed access that is not the one recorded, in `wrong`; or fewer were made.
    bool differs;
    struct verify_access wrong;
    bool on_copies;  // the difference shows on copies only

    // An atomic works on this, and its result is then stored by compare and swap.
    struct {
        bool used;
        uint64_t word;  // aligned as the largest
    } cell;

    uint64_t generation;                         // moved on when translations change; never 0
    struct verify_known known[2][VERIFY_KNOWN];  // for loads, for stores

    struct verify_page pages[VERIFY_PAGES];
    unsigned page_count;
    struct hart_tlb_entry *entries[4 * VERIFY_PAGES];
    unsigned entry_count;
    uint8_t *copies;  // the memory for all of them
    bool rewound;     // `before` and `after` are set
};

static inline struct verify *verify_of(const struct hart *hart)
{
    return (struct verify *)hart->tap_state;
}

// Instructions and exceptions so far: where in its execution a hart is.
static inline uint64_t verify_position(const struct hart *hart)
{
    return hart->instret + hart->traps;
}

// ---- taps.c

// Accesses go to copies of the pages, which are made on the way.
extern const struct hart_tap verify_tap_copies;
// Accesses are made and recorded. Atomics, and what copies cannot show, only while `stepping`.
extern const struct hart_tap verify_tap_record;
// Accesses are compared with the journal, and loads get their values from there.
extern const struct hart_tap verify_tap_replay;
// Nothing is changed; the TLB stays empty.
extern const struct hart_tap verify_tap_none;

void verify_journal_reset(struct verify *verify);
// Whether the interpreter must execute a single instruction: there is no room for a block's.
bool verify_journal_full(const struct verify *verify);
// After an instruction that may have been an atomic. False: another hart was in between, nothing
// was stored, the instruction is to be executed again.
bool verify_cell_store(struct verify *verify);
// After a replay, or before its next access: notes whether the last atomic did what it should.
void verify_cell_check(struct verify *verify);

void verify_copies_reset(struct verify *verify);
// Empties the TLB.
void verify_copies_hide(struct verify *verify);
// Makes the copies again what memory was when they were made.
void verify_copies_again(struct verify *verify);
// Makes the copies what memory was at `start`, where the hart is, as far as the journal tells.
// False: it does not, since something else changed memory or translations meanwhile, or there are
// too many pages.
bool verify_copies_rewind(struct hart *hart, struct verify *verify);
// Whether the copies are what memory is now; after verify_copies_rewind, what the journal makes of
// memory as it was.
bool verify_copies_match(const struct verify *verify);

// ---- verify.c

// One instruction of the interpreter, from the journal. False: it was none of the journal's.
bool verify_interp_replay_step(struct hart *hart, struct verify *verify);

// ---- report.c

// Writes down how translated code came to something else than `reference`. The hart's state is
// lost.
void verify_report_write(struct hart *hart, struct verify *verify);

#endif
