// SPDX-License-Identifier: BSD-2-Clause
// Pre-decoded blocks of the interpreter: what they look like, and the cache that holds them.
// Private to interp.c (which executes them) and interp_block.c (which makes and finds them).
//
// A block is straight-line guest code of one page, from where something jumped to up to the first
// jump, SYSTEM instruction, end of the page or length limit; a conditional branch does not end it,
// since the fall-through path just goes on. A block is named by the guest-physical address it
// starts at and knows nothing of virtual addresses, so all mappings and privileges share it.
//
// Coherence. RISC-V makes a store visible to instruction fetch only at the fetching hart's next
// fence.i (Unprivileged ISA chapter 6), so stores are not watched. A fence.i only moves the hart's
// epoch on. A block of an older epoch is not executed before its copy of the guest's bytes was
// compared with memory: equal, it is stamped with the new epoch; different, it is decoded again.
// That covers stores of this hart, of other harts and of devices alike.
//
// Everything here belongs to one hart and its thread: no locks.
#ifndef STRAKE_HART_INTERP_BLOCK_H
#define STRAKE_HART_INTERP_BLOCK_H

#include <assert.h>

#include "hart/hart.h"

// Handlers beyond those of the instruction table: operations specialised when decoding.
#define INTERP_HANDLER_LIST(X)                                                                     \
    X(MV)   /* rd = rs1 */                                                                         \
    X(BEQZ) /* branches on rs1 against x0 */                                                       \
    X(BNEZ)                                                                                        \
    X(J) /* jal and jalr that link nothing */                                                      \
    X(JR)                                                                                          \
    X(FLAT_ATOMIC) /* LR, SC and AMOs of a flat hart */                                            \
    X(LOAD_X0)     /* a load into x0: only its exceptions and side effects */                      \
    X(CHECK)       /* of a checked hart: whether the following access is made: no instruction */   \
    X(CALL)        /* the following jump is a call: no instruction */                              \
    X(RETURN)      /* whether the following return is made: no instruction */                      \
    X(UNWOUND)     /* the instruction before has loaded sp: no instruction */                      \
    X(TAKEN)       /* what is here is taken, and nothing follows: no instruction */                \
    X(NEXT)        /* goes on with the following block: no instruction */                          \
    X(BREAK)       /* looks whether the following instruction has a breakpoint: no instruction */

enum interp_handler {
    INTERP_HANDLER_FIRST = ISA_OP_COUNT - 1,
#define INTERP_X(id) INTERP_##id,
    INTERP_HANDLER_LIST(INTERP_X)
#undef INTERP_X
        INTERP_HANDLER_COUNT
};

// One operation, executed by jumping to its handler.
struct interp_op {
    const void *handler;  // a label in interp.c
    int32_t imm;          // immediate; of a branch or jal: its target, from the block's start
    uint8_t rd, rs1, rs2;
    uint8_t pc;  // of the instruction, in halfwords from the block's start
};
// What the fields mean where the operation leaves them free:
//   branches                  rd    instructions from the block's start to this one, included
//   jumps, SYSTEM, NEXT       rs2   the same
//   floating point            imm   FP_OPERANDS below
//   LR                        imm   bit 1 aq, bit 0 rl
//   LOAD_X0                   rd    width in bytes
//   CHECK                     rd    width in bytes
//                             rs2   enum hart_access
//   RETURN, TAKEN             rs2   instructions from the block's start to before this place

#define FP_OPERANDS(rm, rs3) ((int32_t)((rm) | (rs3) << 8))
#define FP_RM(op) ((op)->imm & 0xff)
#define FP_RS3(op) ((op)->imm >> 8)

// Where a branch, jump, CSR instruction or NEXT leads; follows its operation in the block.
//
// `near` is for a target in the block's own page: the relation between the two is then one of
// physical addresses and holds in every address space, as long as the target's epoch is current.
// `far` remembers any other target, and is good for one pc while the stamp is unchanged.
struct interp_exit {
    struct interp_block *near;  // never NULL: interp->nowhere when not known
    struct interp_block *far;
    uint64_t far_pc;
    uint64_t far_stamp;
};

static_assert(sizeof(struct interp_op) == 16, "operations are 16 bytes");
static_assert(sizeof(struct interp_exit) == 2 * sizeof(struct interp_op),
              "an exit takes two operations' place");

struct interp_block {
    uint64_t epoch;  // interp->epoch when its bytes were last known to be those in memory, or NEVER
    uint64_t gpa;    // bit 0 set: one instruction that straddles two pages
    struct interp_block *bucket_next;
    const uint8_t *hva;   // the guest's memory that it was decoded from
    const uint8_t *code;  // copy of that
    uint64_t tail_gpa;    // where the second half of a straddling instruction is
    const uint8_t *tail_hva;
    uint32_t length_bytes;
    uint32_t taken_at;  // what of it is taken: its last instruction's offset, or its length
    struct interp_op ops[];
};

#define INTERP_NEVER 0u            // an epoch: not in the cache, to be executed once
#define INTERP_STRADDLES 1u        // bit in block.gpa
#define INTERP_BLOCK_INSNS 32u     // at most, so that counts and offsets fit their fields
#define INTERP_BUCKETS (1u << 16)  // a power of two
#define INTERP_FETCH_PAGES 64u     // a power of two
#define INTERP_ARENA_BYTES (16u << 20)

// A page that code was fetched from: a TLB entry for fetch.
struct fetch_page {
    uint64_t tag;  // gva of the page | privilege, or INTERP_FETCH_INVALID
    uint64_t gpa;
    const uint8_t *hva;
};

#define INTERP_FETCH_INVALID UINT64_MAX

struct interp {
    uint64_t epoch;       // moved on by fence.i; never INTERP_NEVER
    uint64_t generation;  // moved on by fence.i and by changes of translation; never 0
    uint64_t stamp;       // generation and privilege: what exit.far is good for
    uint64_t drops;       // how often the arena was emptied

    // Blocks are allocated upwards and only all together given up: when the arena is full,
    // everything is dropped, which is simple and, with warm code decoded in milliseconds, cheap.
    uint8_t *arena;
    size_t arena_used;
    struct interp_block *nowhere;  // a block that is never current

    const void *const *handlers;  // by enum isa_op and enum interp_handler
    struct fetch_page fetch[INTERP_FETCH_PAGES];
    struct interp_block *buckets[INTERP_BUCKETS];
};

// Returns 0 or -ENOMEM.
int interp_cache_init(struct interp *interp, const void *const *handlers);
void interp_cache_fini(struct interp *interp);

// Drops all blocks. Those in the caller's hands stay readable until the next one is made.
void interp_cache_drop(struct interp *interp);
void interp_cache_fence_i(struct hart *hart, struct interp *interp);
void interp_cache_flush_translations(struct hart *hart, struct interp *interp);

// To be called when the hart's privilege may have changed.
static inline void interp_cache_restamp(struct hart *hart, struct interp *interp)
{
    interp->stamp = interp->generation << 2 | hart->privilege;
}

// The current block for `pc`. NULL: an exception of fetch was recorded.
struct interp_block *interp_block_find(struct hart *hart, struct interp *interp, uint64_t pc);
// A block of the one instruction at `pc`, without breakpoints, valid until the next block is made.
struct interp_block *interp_block_single(struct hart *hart, struct interp *interp, uint64_t pc);
// The block for `target`, to which `exit` of `from` leads; links the exit to it. `pc` is where
// `from` started. NULL: an exception of fetch was recorded.
struct interp_block *interp_block_follow(struct hart *hart, struct interp *interp,
                                         const struct interp_block *from, struct interp_exit *exit,
                                         uint64_t pc, uint64_t target);

// How many instructions of the block come before the one of `op`, and that one's encoding.
unsigned interp_block_retired(const struct interp_block *block, const struct interp_op *op);
uint32_t interp_block_raw(const struct interp_block *block, const struct interp_op *op);

#endif
