// SPDX-License-Identifier: BSD-2-Clause
// What the files that translate a block share: the translator's state while it makes one block, and
// access to guest registers. Private to the files that translate.
//
// Each instruction is translated by itself, with rax, rcx and rdx to work in. What is rare is put
// out of line behind the block's code (struct jit_stub), so that the usual way falls through.
#ifndef STRAKE_JIT_TRANSLATOR_H
#define STRAKE_JIT_TRANSLATOR_H

#include "jit/internal.h"

#define W X64_W
#define JIT_STUBS_MAX (5 * JIT_BLOCK_INSNS + 8)  // five an instruction, FS, the end, one spare

#define JIT_SHIFTS 8u

// reg = from shifted, still to be computed. `width` is 0 for the word instructions, or W.
struct jit_shift {
    uint8_t reg, from, count;
    bool left;
    uint16_t width;
};

// See shifts.c.
struct jit_shifts {
    struct jit_shift shift[JIT_SHIFTS];
    unsigned count;
};

// What of f[] is late, a bit each, see late.c.
struct jit_late {
    uint32_t stores;   // in xmm registers only
    uint32_t checks;   // of these: may be NaNs that are not canonical
    uint32_t singles;  // of these: singles
};

enum jit_stub_kind {
    JIT_STUB_EXIT,   // a taken branch
    JIT_STUB_CALL,   // a helper does the instruction; goes on at `resume`
    JIT_STUB_XMM,    // register `xmm` gets `value`; goes on at `resume`
    JIT_STUB_CHECK,  // a pointer that is not fine at first sight, see checks.c
};

struct jit_stub {
    enum jit_stub_kind kind;
    // Of jumps to the stub, see struct jit_access; NULL: none.
    uint8_t *place, *also, *absent, *outside;
    const struct jit_site *site;
    struct jit_site *access;  // the site too, of an access through a window; else NULL
    struct jit_site *lookup;  // CHECK: that of the look into the table
    const uint8_t *inside;    // CHECK: where what is fine goes on
    unsigned width_bytes;     // CHECK
    const uint8_t *resume;
    uint64_t value;
    unsigned xmm;
    int offset;  // of its instruction, from the page's start
    int target;  // from the page's start
    struct jit_shifts shifts;
    struct jit_late late;
};

// What a block of a flat hart knows of a guest register, see facts.c.
struct jit_fact {
    bool below;     // the bound, but for `drift`
    bool on_stack;  // its value + lowest was found to be a place in use, but for `drift` at the top
    bool guessed;   // `guess` is the value, or near it, if things are as they were
    uint8_t aligned;  // value + rest is a multiple of this
    int32_t drift;    // how far it may have moved since it was compared
    int32_t lowest, rest;
    uint64_t guess;
};

// An access that has been checked: of [x[reg] + imm, x[reg] + imm + width_bytes).
struct jit_checked {
    uint8_t reg;  // 0: none
    uint8_t width_bytes;
    int32_t imm;
};
#define JIT_CHECKED 8u

struct jit_translator {
    const struct hart *hart;
    struct x64 x64;
    struct jit *jit;
    struct jit_block *block;
    uint8_t *arena_end;  // of what the block has taken
    struct isa_insn code[JIT_BLOCK_INSNS];
    unsigned count;             // of `code`
    unsigned turn;              // instructions of a loop that `code` begins with several times
    unsigned repeated;          // and of all of these; 0: there is none
    const struct jit_map *map;  // NULL: the standard one
    int8_t pin_of[32];          // the host register that holds a guest register, or -1
    struct isa_insn insn;       // the one that is translated, or a pair's second
    int offset;                 // of `insn`, from the page's start
    int start;                  // of the block
    unsigned insns;             // so far, `insn` included
    unsigned counted;           // of these, how many JIT_INSTRET has
    unsigned noted;             // of these, how many are in loads and stores
    unsigned loads, stores;     // not counted yet, for jit_options.count
    bool fp_checked;            // FS is known not to be Off
    bool fp_ready;              // jit->fp_ready is known to be set
    uint32_t boxed;             // these of f[] are known to hold NaN-boxed singles
    struct jit_late late;
    uint32_t carried;                // of f[], late where the block jumps back to its start
    struct jit_shifts shifts;        // that are put off
    bool deferred;                   // `insn` is one that was put off
    uint8_t *attention_place;        // of the jump at the entry
    uint8_t *attention_place_again;  // of the jump at `again`, where there is a map
    const uint8_t *again;            // where a jump back to the start goes
    struct jit_fact facts[32];
    struct jit_checked checked[JIT_CHECKED];
    unsigned checked_next;
    struct jit_stub stubs[JIT_STUBS_MAX];
    unsigned stub_count;
};

// The instruction behind `insn` if it is `op` on the result of `insn` alone, which it overwrites;
// else NULL. The two may be translated as one, see fuse().
static inline const struct isa_insn *follower(const struct jit_translator *t, enum isa_op op)
{
    const struct isa_insn *next = &t->code[t->insns];

    return t->insns < t->count && next->op == op && next->rd == t->insn.rd &&
                   next->rs1 == t->insn.rd
               ? next
               : NULL;
}

// `insn` becomes the pair's second: what has been translated does the work of both.
static inline void fuse(struct jit_translator *t)
{
    t->offset += t->insn.length;
    t->insn = t->code[t->insns++];
    jit_listing_mark(t->jit, JIT_LISTING_INSN, &t->insn, t->offset, x64_here(&t->x64));
}

// `insn` ends a turn of a repeated loop behind which the next one follows.
static inline bool jit_repeats(const struct jit_translator *t)
{
    return t->insns < t->repeated && t->insns % t->turn == 0;
}

// ---- Guest registers

// The host register of guest register `reg`, or -1.
static inline int pinned(const struct jit_translator *t, unsigned reg)
{
    return t->pin_of[reg];
}

// host = x[reg]. Spoils flags.
static inline void load_x(struct jit_translator *t, unsigned host, unsigned reg)
{
    int pin = pinned(t, reg);

    if (reg == 0)
        x64_mov_imm(&t->x64, host, 0);
    else if (pin < 0)
        x64_rm(&t->x64, X64_MOV | W, host, X64_RBP, HART_X(reg));
    else if ((unsigned)pin != host)
        x64_rr(&t->x64, X64_MOV | W, host, (unsigned)pin);
}

// A host register that holds x[reg] and must not be changed: `scratch` where it is not pinned.
static inline unsigned source(struct jit_translator *t, unsigned reg, unsigned scratch)
{
    int pin = pinned(t, reg);

    if (pin >= 0)
        return (unsigned)pin;
    load_x(t, scratch, reg);
    return scratch;
}

// Where to compute x[rd]; finish() then stores it.
static inline unsigned target(const struct jit_translator *t)
{
    int pin = pinned(t, t->insn.rd);

    return pin >= 0 ? (unsigned)pin : X64_RAX;
}

// x[rd] = host.
static inline void finish(struct jit_translator *t, unsigned host)
{
    int pin = pinned(t, t->insn.rd);

    if (t->insn.rd == 0)
        return;
    if (pin < 0)
        x64_rm(&t->x64, X64_STORE_64, host, X64_RBP, HART_X(t->insn.rd));
    else if ((unsigned)pin != host)
        x64_rr(&t->x64, X64_MOV | W, (unsigned)pin, host);
}

// opcode host, x[reg]
static inline void op_x(struct jit_translator *t, unsigned opcode, unsigned host, unsigned reg)
{
    int pin = pinned(t, reg);

    if (pin >= 0)
        x64_rr(&t->x64, opcode, host, (unsigned)pin);
    else
        x64_rm(&t->x64, opcode, host, X64_RBP, HART_X(reg));
}

// The start of the block's page, in a flat hart's address space.
static inline uint64_t jit_page_of(const struct jit_translator *t)
{
    return t->block->gpa & ~(uint64_t)(MEMORY_PAGE_BYTES - 1);
}

// host = the address `from_page` bytes from the start of the block's page.
static inline void load_pc(struct jit_translator *t, unsigned host, int from_page)
{
    if (t->jit->flat) {
        x64_mov_imm(&t->x64, host, jit_page_of(t) + (uint64_t)(int64_t)from_page);
        return;
    }
    x64_rm(&t->x64, X64_MOV | W, host, X64_RBP, HART_FIELD(pc));
    if (from_page)
        x64_alu_imm(&t->x64, X64_I_ADD, W, host, from_page);
}

// ---- shifts.c

// Before each instruction: computes what it reads, and what is made of what it overwrites.
void jit_shifts_look(struct jit_translator *t);
// Behind it: forgets what it has overwritten.
void jit_shifts_overwrite(struct jit_translator *t);
// Computes these registers. Where no scratch register is in use.
void jit_shifts_settle(struct jit_translator *t, uint32_t regs);
// Computes all, out of line: leaves t->shifts alone.
void jit_shifts_emit(struct jit_translator *t, const struct jit_shifts *shifts);
bool jit_shifts_lack(const struct jit_translator *t, unsigned reg);
// Puts off a shift by an immediate, if that may be of use.
bool jit_shifts_defer(struct jit_translator *t, bool left, unsigned width);
// The right shift of two that `insn` makes a rotation of, or NULL.
const struct jit_shift *jit_shifts_rotation(const struct jit_translator *t);

// ---- late.c

// Before the entry: chooses t->carried.
void jit_late_choose(struct jit_translator *t);
// At the entry; then the xmm registers have what they mirror.
void jit_late_enter(struct jit_translator *t);
// Before a jump back to the start. Spoils rax and flags, as all that looks for NaNs.
void jit_late_again(struct jit_translator *t);
// Stores what may be late at the start, once entered.
void jit_late_leave(struct jit_translator *t);
// f[reg] has been written, in its xmm register alone.
void jit_late_written(struct jit_translator *t, unsigned reg);
// Whether a result for f[reg] need not be made canonical before it is written; and that it was not.
bool jit_late_may_defer(const struct jit_translator *t, unsigned reg);
void jit_late_unchecked(struct jit_translator *t, unsigned reg, bool single);
// The canonical NaN takes the place of any other in `host`.
void jit_late_canonical(struct jit_translator *t, bool single, unsigned host);
// Looks at these registers now, before somebody reads their bits.
void jit_late_check(struct jit_translator *t, uint32_t regs);
// Nothing is late any more. Where no scratch register is in use.
void jit_late_settle(struct jit_translator *t);
// Out of line: leave t->late alone.
void jit_late_emit_checks(struct jit_translator *t, const struct jit_late *late);
void jit_late_emit(struct jit_translator *t, const struct jit_late *late);

// ---- map.c

// Chooses t->map for t->code.
void jit_map_choose(struct jit_translator *t);
void jit_map_enter(struct jit_translator *t);
void jit_map_leave(struct jit_translator *t);

// ---- translate.c: helpers and stubs

// Memory that lives as long as the block.
void *jit_arena_take(struct jit_translator *t, size_t bytes);

struct jit_site *jit_site_add(struct jit_translator *t, jit_helper *helper);
// `late`: what is late in f[] there.
void jit_call_site(struct jit_translator *t, const struct jit_site *site,
                   const struct jit_late *late);
void jit_call_helper(struct jit_translator *t, jit_helper *helper);
// `place` is of the jump to the stub.
struct jit_stub *jit_stub_add(struct jit_translator *t, enum jit_stub_kind kind, uint8_t *place);

// The same, and a call that goes on at the next instruction to be emitted.
void jit_stub_call(struct jit_translator *t, const struct jit_site *site, uint8_t *place);

// ---- control.c

// Makes JIT_INSTRET count all instructions up to `insn`.
void jit_count_insns(struct jit_translator *t);
// Leaves with what is in rax, `from_page` bytes from the page's start.
void jit_leave_at(struct jit_translator *t, int from_page);
// Whether a jump there leads back to the block's start without leaving the block.
bool jit_goes_again(const struct jit_translator *t, int from_page);
// Goes on there, perhaps in another page.
void jit_exit_to(struct jit_translator *t, int from_page);
void jit_exit_stub(struct jit_translator *t, const struct jit_stub *stub);
// Goes on at the virtual address in rax.
void jit_jump_to_rax(struct jit_translator *t);

// Translate t->insn. False: it is not one of theirs.
bool jit_translate_control(struct jit_translator *t);
bool jit_translate_integer(struct jit_translator *t);
bool jit_translate_crypto(struct jit_translator *t);
bool jit_translate_access(struct jit_translator *t);
bool jit_translate_float(struct jit_translator *t);
bool jit_translate_csr(struct jit_translator *t);
bool jit_translate_atomic(struct jit_translator *t);

// ---- float.c

// What follows runs with jit->fp_ready.
void jit_need_fp_ready(struct jit_translator *t);
// The same ahead of t->insn, where it is not executed yet.
void jit_enter_fp_ready(struct jit_translator *t);
// flt or fle without effect on flags, whose value is in x[saved].
void jit_compare_quietly(struct jit_translator *t, unsigned saved);

// ---- count.c

// Before t->insn is translated, with jit_options.count.
void jit_count_access(struct jit_translator *t);
// Has translated code count the accesses of the instructions before.
void jit_count_flush(struct jit_translator *t);

// ---- facts.c: what a block of a flat hart knows of its registers

// What a pointer is taken for when it is checked.
enum jit_sort {
    JIT_KNOWN,   // fine without a look
    JIT_PLAIN,   // below the bound
    JIT_STACK,   // in use on a stack
    JIT_TAGGED,  // to be looked up, as all others may be too
};

void jit_facts_begin(struct jit_translator *t);
void jit_facts_step(struct jit_translator *t, const struct isa_insn *insn);  // it was translated
enum jit_sort jit_facts_sort(const struct jit_translator *t, unsigned reg, int imm);
// Code that was just emitted has found this of a register.
void jit_facts_below(struct jit_translator *t, unsigned reg);
void jit_facts_on_stack(struct jit_translator *t, unsigned reg, int imm);
void jit_facts_aligned(struct jit_translator *t, unsigned reg, int imm, unsigned width_bytes);
bool jit_facts_is_aligned(const struct jit_translator *t, unsigned reg, int imm,
                          unsigned width_bytes);
void jit_facts_checked(struct jit_translator *t, unsigned reg, int imm, unsigned width_bytes);
bool jit_facts_is_checked(const struct jit_translator *t, unsigned reg, int imm,
                          unsigned width_bytes);

// ---- checks.c: of checked harts

struct jit_access;
// What is to be done before an access of a flat hart. rcx is the address then, or what
// access->base says.
void jit_check_begin(struct jit_translator *t, struct jit_access *access);
void jit_check_end(struct jit_translator *t, const struct jit_access *access);
void jit_check_stub(struct jit_translator *t, const struct jit_stub *stub);
// rcx = the address that `pointer` is fine for, else jumps by access->miss, `also` or `outside`.
// `pointer` is rax, or a pinned register.
void jit_check_lookup(struct jit_translator *t, struct jit_access *access, unsigned pointer,
                      unsigned align_bytes);
void jit_check_call(struct jit_translator *t);                // rcx: where the call returns to
void jit_check_return(struct jit_translator *t);              // spoils rcx, rdx
void jit_check_taken(struct jit_translator *t, uint64_t pc);  // the whole block

// ---- access.c

// An access to the guest's memory at x[rs1] + imm, from jit_access_begin to jit_access_end.
struct jit_access {
    enum hart_access kind;
    unsigned width_bytes;
    // Of jumps where it is not to be done inline, or NULL: the pointer is not fine or not in the
    // window; it is misaligned, or on a stack below sp; the soft TLB does not have it; it leads
    // behind the table of identifiers.
    uint8_t *miss, *also, *absent, *outside;
    unsigned base;          // host register: the guest's address
    int displacement;       // what of a window's access is to be added to it
    const uint8_t *at;      // the access through a window, as written
    enum jit_sort sort;     // of a checked flat hart's
    const uint8_t *lookup;  // the look into the table, as written, or NULL
    const uint8_t *inside;  // behind it
};

// Finds the place in the host's memory. Until jit_access_do, rax and rcx must be kept.
struct jit_access jit_access_begin(struct jit_translator *t, unsigned width_bytes,
                                   enum hart_access kind);
// The access itself: one instruction of the host, `opcode` with a memory operand.
void jit_access_do(struct jit_translator *t, struct jit_access *access, unsigned opcode,
                   unsigned reg);
// Behind all that the instruction does: where a helper goes on that did the access instead.
void jit_access_end(struct jit_translator *t, const struct jit_access *access);

// rax = the host's address of x[rs1] + imm if the soft TLB has it; else jumps to the place that is
// returned, for jit_access_miss.
uint8_t *jit_access_probe(struct jit_translator *t, unsigned width_bytes, enum hart_access kind);
// A helper does the access when the probe missed, and execution goes on here; also where the
// access `at`, in order of address, faults. NULL: none may.
void jit_access_miss(struct jit_translator *t, uint8_t *miss, jit_helper *helper,
                     const uint8_t *at);
// A host register that holds x[rs1] + imm: rax, or the pinned one where nothing is to be added.
unsigned jit_access_address(struct jit_translator *t);
// Makes the access at that place known to who looks for it when it faults: by its own `site`.
struct jit_site *jit_access_note(struct jit_translator *t, const uint8_t *at,
                                 struct jit_site *site);

#endif
