// SPDX-License-Identifier: BSD-2-Clause
// What the files of the translator share: its state, blocks, and sites. Private to this room.
//
// A block is the translation of straight-line guest code of one page, up to the first jump, SYSTEM
// instruction, end of the page or length limit; a conditional branch does not end it. It is named
// by the guest-physical address it starts at and knows nothing of virtual addresses: while
// translated code runs, hart->pc holds the virtual address of the *page* that the current block
// starts in, and code adds the offset within the page wherever it needs a pc. So all mappings share
// a block, and two blocks of a page chain without touching hart->pc. Modes have blocks of their
// own, see jit_variant(). In a flat address space a block's address is virtual, too: blocks of
// different pages chain as well.
//
// Coherence is the interpreter's (hart/README.md): a store becomes visible to fetch at the next
// fence.i only, so stores are not watched. All ways from block to block lead to current ones, those
// whose epoch is jit->epoch: fence.i moves the epoch on, undoes all links and forgets all jumps, at
// a cost that is in proportion to how many were made since the last one. So each block is reached
// through the dispatcher again, which compares its copy of the guest's bytes with memory: equal, it
// gets the new epoch; different, it is translated again.
//
// Attention is looked at where a way leads to a block's `entry`: on jumps backward in a page,
// through a register or to another page. Ways forward in a page lead behind that look, to its
// `body`. So code of a page's length is executed at most until attention is seen.
//
// Registers in translated code: rbp is the hart (biased, see HART_BIAS), some guest registers are
// kept in host registers (jit_pins), as is instret, which counts up to the block's start
// or the last CSR instruction in it; rax, rcx and rdx are free within an instruction's translation.
// What hart->x and hart->instret say of these is out of date until a thunk stores them.
#ifndef STRAKE_JIT_INTERNAL_H
#define STRAKE_JIT_INTERNAL_H

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

#include "jit/jit.h"
#include "jit/x64.h"

#define JIT_BLOCK_INSNS 64u  // at most
#define JIT_PARTS 8u         // of code memory, at most
#define JIT_PART_BYTES_MIN (JIT_CODE_BYTES_MIN / 2)
#define JIT_BUCKETS (1u << 16)  // a power of two
#define JIT_FETCH_PAGES 256u    // a power of two
#define JIT_JUMPS (1u << 15)    // a power of two
#define JIT_JUMPS_NOTED 4096u   // entries of a jump table that are forgotten one by one
#define JIT_CODED 4096u         // a power of two
#define JIT_MIXED 65536u        // a power of two
#define JIT_STRADDLES 1u        // bit in block.gpa: one instruction that straddles two pages
#define JIT_PAGE_OFFSET(gva) ((gva) & (MEMORY_PAGE_BYTES - 1))

// rbp is this far into struct hart, so that all of x[] is within an 8-bit displacement.
#define HART_BIAS 128
#define JIT_INSTRET X64_R11
#define HART_FIELD(member) ((int32_t)offsetof(struct hart, member) - HART_BIAS)
#define HART_X(reg) ((int32_t)(offsetof(struct hart, x) + 8 * (reg)) - HART_BIAS)
#define HART_F(reg) ((int32_t)(offsetof(struct hart, f) + 8 * (reg)) - HART_BIAS)

struct jit_site;

// Called from translated code with all of the hart's registers stored. True: goes on behind the
// instruction, all registers loaded again. False: hart->pc is at the next instruction to execute
// (the trap handler's, when it trapped), hart->instret is exact, and the dispatcher goes on.
typedef bool jit_helper(struct hart *hart, const struct jit_site *site);

// An instruction, as helpers get to see it.
struct jit_site {
    jit_helper *helper;
    struct isa_insn insn;
    uint16_t offset;   // of the instruction, from the page's start
    uint16_t retired;  // instructions before it that hart->instret does not count yet
    // Of an access through a window: where it is in code memory and where it goes on when it
    // faults, and how often it did so in vain. `at` 0: it is none, code memory starts with the
    // thunks.
    uint32_t at, slow;
    uint8_t strikes;
    bool leaves;                // of a checked access: what the block knows behind it was not so
    const struct jit_map *map;  // of the block; NULL: the standard one
    struct jit_block *block;
};

static inline bool jit_is_csr(const struct isa_insn *insn)
{
    return insn->op == ISA_CSRRW || insn->op == ISA_CSRRS || insn->op == ISA_CSRRC ||
           insn->op == ISA_CSRRWI || insn->op == ISA_CSRRSI || insn->op == ISA_CSRRCI;
}

#define JIT_PINS 10u

// What the pinned host registers (jit_pins) hold.
struct jit_map {
    uint8_t guest[JIT_PINS];
};

struct jit_block {
    uint64_t epoch;  // jit->epoch when its bytes were last known to be those in memory
    uint64_t gpa;
    unsigned variant;
    struct jit_block *bucket_next, *part_next;
    const uint8_t *hva;   // the guest's memory that it was translated from
    const uint8_t *copy;  // of that
    uint64_t tail_gpa;    // where the second half of a straddling instruction is
    const uint8_t *tail_hva;
    const uint8_t *entry;
    const uint8_t *body;          // what is behind the look at attention
    struct jit_link *links;       // that lead to it
    uint32_t taken_at;            // what of it is taken: 0, or the guest's code's length: nothing
    struct hart_at_once at_once;  // where all is
    uint32_t length_bytes;        // of the guest's code
    uint32_t code_bytes;          // of the host's, from the entry
};

// A jump to another block of the page, or of a flat address space. It leads out of line, where
// translated code leaves with this, until the dispatcher links it.
struct jit_link {
    uint8_t *place;           // of the jump's displacement, to be written
    const uint8_t *unlinked;  // where it leads at first
    const uint8_t *to;        // and now
    // Among all that are made, and among those to the same block.
    struct jit_link *next, **from, *beside, **beside_from;
    bool backward;
};

// A page that code was fetched from: a TLB entry for fetch.
struct jit_fetch_page {
    uint64_t tag;   // gva of the page | privilege, or JIT_FETCH_INVALID
    uint64_t satp;  // of the address space it belongs to, or JIT_GLOBAL
    uint64_t gpa;
    const uint8_t *hva;
    uint64_t leaf_bytes;  // of what maps it
};

#define JIT_FETCH_INVALID UINT64_MAX
#define JIT_GLOBAL UINT64_MAX  // no satp: its mode is reserved

// Where a virtual pc leads.
struct jit_jump {
    uint64_t pc;  // or JIT_JUMP_INVALID
    const uint8_t *entry;
};

#define JIT_JUMP_INVALID 1u  // no pc is odd
#define JIT_JUMP_INDEX(pc) ((pc) / 2 % JIT_JUMPS)

static_assert(sizeof(struct jit_jump) == 16, "control.c's jump cache probe scales by 16");
static_assert(offsetof(struct jit_jump, pc) == 0, "the probe compares at the entry's start");

// The jump cache of a context (hart_mmu_context) and, in U-mode, of an address space.
struct jit_jumps {
    uint64_t satp;         // of the address space whose own pages it leads to, or JIT_GLOBAL
    uint64_t used;         // the greater, the later
    unsigned noted_count;  // beyond JIT_JUMPS_NOTED: not noted
    struct jit_jump *noted[JIT_JUMPS_NOTED];
    struct jit_jump entries[JIT_JUMPS];
};

// One for each of S, S_SUM and M, and those for U-mode.
enum { JIT_USER_TABLES = HART_TLB_CONTEXTS - 1, JIT_TABLES = JIT_USER_TABLES + 8 };
static_assert(HART_TLB_U == 0, "tables of other contexts come first");

struct jit_range {
    uint64_t first, last;
};

// Code of no block, see thunks.c.
struct jit_thunks {
    // Enters translated code. Returns the link that the code left by, which may be linked to the
    // block at hart->pc, or NULL.
    struct jit_link *(*enter)(struct hart *hart, const uint8_t *code);
    const uint8_t *leave;          // rax: what to return
    const uint8_t *leave_nothing;  // returns NULL
    const uint8_t *leave_to;       // rax: pc
    const uint8_t *call;           // rcx: site
    const uint8_t *call_mapped;    // rcx: site, in a block with a map of its own
    // Both, where what xmm registers mirror of f[] is to be stored first.
    const uint8_t *call_late, *call_mapped_late;
    const uint8_t *call_at_once;  // rcx: struct hart_at_once, rdx: pc; eax: whether it was done
};

// How translated code reaches the guest's memory is built into it: through which of the hart's soft
// TLBs, or through a window (windows.c). So code has a variant for each, and whatever makes the
// hart use another leaves the code.
#define JIT_WINDOW 4u  // beside an enum hart_tlb_context
static_assert(HART_TLB_CONTEXTS <= JIT_WINDOW, "a variant is a context and a bit");

// M-mode that accesses memory as another mode (MPRV): its code would have the variant of that
// mode's, but is at other virtual addresses. It is rare and short, and interpreted.
static inline bool jit_is_foreign(const struct hart *hart)
{
    return hart->privilege == HART_M && hart_mmu_context(hart) != HART_TLB_M;
}

// A part of code memory and of what belongs to it. Parts are filled in turn, and emptied as a whole
// when it is their turn again. Offsets and indices are of the whole.
struct jit_part {
    size_t code_first, code_used, code_end;
    size_t arena_first, arena_used, arena_end;
    size_t access_first, access_used, access_end;
    struct jit_block *blocks;
};

// One of these heads the region of memory that translated code reaches relative to rip.
struct jit {
    struct jit_jump *jumps;        // of the current table
    const struct hart_flat *flat;  // or NULL
    // The addresses that a window is for: below this one in U-mode, from this one on in S-mode. Of
    // a checked flat hart, what is not looked up is below the first, less what it may drift; and
    // stacks are below the other.
    uint64_t window_limits[2];
    uint64_t stack_limit;
    uint64_t granules;  // in the table of identifiers
    const _Atomic uint16_t *entries;
    const struct hart_check *check;  // or NULL
    uint64_t held[JIT_PINS];         // the pinned registers during a call out of a block with a map

    uint64_t epoch;  // moved on by fence.i
    struct jit_link *linked;

    // See atomic.c: where inline code tells reservations; at first nowhere.
    const uint8_t *ram_hva;
    uint64_t ram_gpa, ram_bytes;

    // See fp.c. Ready: MXCSR serves the guest and FS is Dirty, so that translated code may compute.
    bool fp_ready, fp_live;
    unsigned fp_host;          // the host's own MXCSR meanwhile
    unsigned fp_control;       // the guest's, without flags
    unsigned fp_mxcsr;         // where translated code stores it to look at
    uint8_t fp_flags[1 << 6];  // fflags for MXCSR's JIT_MXCSR_FLAGS

    uint64_t generation;  // moved on by fence.i and by changes of translation
    void *interp;         // the interpreter's state: breakpoints, steps, what cannot be cached
    bool interp_behind;   // it has not been told of changes of translation
    struct jit_thunks thunks;
    struct jit_stats stats;
    unsigned cpu;  // enum jit_cpu
    bool alone;    // nothing leads from one block to another, or back into the same
    struct jit_perf_map *perf_map;  // or NULL
    bool counting;                  // jit_options.count
    bool warmed;                    // and not settled yet, see warm.c
    bool left_by_call;              // the last call left; only when counting
    struct jit_listing *listing;    // of the block being translated; NULL: nobody reads one

    // Code memory: written through `code`, executed at `code + exec_offset`.
    uint8_t *code;
    size_t code_bytes, thunks_bytes;
    ptrdiff_t exec_offset;
    uint64_t writes;  // see jit_memory_write
    size_t region_bytes;
    uint8_t *arena;  // blocks, links, sites and copies
    size_t arena_bytes;
    struct jit_part parts[JIT_PARTS], *part;  // the one that is being filled
    unsigned part_count;

    // Memory windows, NULL: none. The contexts that have one now, a bit each; the accesses through
    // one in code memory, in order of address.
    struct jit_windows *windows;
    unsigned windowed;
    struct jit_site **accesses;
    size_t access_max;

    struct jit_fetch_page fetch[JIT_FETCH_PAGES];
    struct jit_block *buckets[JIT_BUCKETS];

    // See jumps.c.
    unsigned table_first, table_end;  // of the tables that are used
    struct jit_jumps *table, *user;   // the current one; U-mode's last one, or NULL
    uint64_t table_uses;
    uint16_t coded[JIT_CODED];  // by page: a set of tables
    // Checked accesses, by pc, whose pointers were not of the sort that they were when translated.
    uint8_t mixed[JIT_MIXED / 8];
    struct jit_range
        large[2];  // by half of the address space: where code is in leaves of more than a page
    struct jit_jumps tables[JIT_TABLES];
};

static inline unsigned jit_variant(const struct hart *hart, const struct jit *jit)
{
    enum hart_tlb_context context = hart_mmu_context(hart);

    return context | (jit->windowed >> context & 1 ? JIT_WINDOW : 0);
}

enum jit_cpu {
    JIT_CPU_LZCNT = 1 << 0,
    JIT_CPU_TZCNT = 1 << 1,
    JIT_CPU_POPCNT = 1 << 2,
    JIT_CPU_FMA = 1 << 3,  // and so AVX
    JIT_CPU_BMI2 = 1 << 4,
    JIT_CPU_AES = 1 << 5,
    JIT_CPU_CLMUL = 1 << 6,
};

// Where the bytes of a block come from. `tail` is where the last two of four bytes are when they do
// not just follow the first two, else NULL.
struct jit_source {
    uint64_t pc;  // of a checked hart's
    uint64_t gpa, tail_gpa;
    unsigned variant;  // see jit_variant()
    const uint8_t *hva, *tail_hva;
    unsigned bytes;
};

// ---- memory.c: code memory and the arena

// Returns a state with nothing in it, or 0 and -errno.
// `anonymous`: the code is not to be of a file, see memory.c.
int jit_memory_create(struct jit **jit, size_t code_bytes, bool anonymous);
void jit_memory_destroy(struct jit *jit);
// Replaces code memory, which the process that forked this one has too, by this process' own at
// the same addresses, with the same code if it is *kept; else nothing is in it. 0 or -errno.
int jit_memory_part(struct jit *jit, bool *kept);

// Code memory starts with how often it was written to, as jit->writes says. Written first: who has
// copied code and finds the count as it was when both were one process has copied what was there.
#define JIT_CODE_HEAD 16u

static inline atomic_uint_fast64_t *jit_memory_writes(const struct jit *jit)
{
    return (atomic_uint_fast64_t *)jit->code;
}

// Before code is written.
static inline void jit_memory_write(struct jit *jit)
{
    atomic_store_explicit(jit_memory_writes(jit), ++jit->writes, memory_order_relaxed);
    atomic_signal_fence(memory_order_seq_cst);  // the host keeps stores in order
}

static inline struct x64 jit_memory_emitter(struct jit *jit)
{
    jit_memory_write(jit);
    return (struct x64){.out = jit->code + jit->part->code_used,
                        .end = jit->code + jit->part->code_end,
                        .exec_offset = jit->exec_offset};
}

// Of the guest's code, which may vanish from a flat address space.
static inline void jit_copy_code(const struct jit *jit, void *to, const uint8_t *hva, size_t bytes)
{
    if (jit->flat)
        hart_flat_copy_code(to, hva, bytes);
    else
        memcpy(to, hva, bytes);
}

// A bit for each access that a checked hart makes.
static inline bool jit_is_mixed(const struct jit *jit, uint64_t pc)
{
    return jit->mixed[pc / 2 % JIT_MIXED / 8] >> (pc / 2 % 8) & 1;
}

static inline void jit_set_mixed(struct jit *jit, uint64_t pc)
{
    jit->mixed[pc / 2 % JIT_MIXED / 8] |= (uint8_t)(1u << (pc / 2 % 8));
}

// ---- thunks.c

extern const uint8_t jit_pins[JIT_PINS];       // host registers
extern const struct jit_map jit_map_standard;  // what they hold between blocks
// The xmm register that mirrors f[reg] while jit->fp_ready, or -1.
int jit_pinned_f(unsigned reg);
void jit_thunks_emit(struct jit *jit);

// ---- map.c

jit_helper jit_map_call;  // calls site->helper, from and to jit->held

// ---- translate.c

// Translates the code at `source`. NULL: it did not fit.
struct jit_block *jit_translate(const struct hart *hart, struct jit *jit,
                                const struct jit_source *source);

// ---- count.c: what is counted only when somebody asks

// What translated code left for.
void jit_count_exit(const struct hart *hart, struct jit *jit, const struct jit_link *left);
// Counts a helper's call and makes it.
jit_helper jit_count_call;

// ---- perf.c: what to tell jit->perf_map, where there is one

void jit_perf_map_thunks(const struct jit *jit);
// A block just translated, which is at hart->pc.
void jit_perf_map_block(const struct hart *hart, const struct jit *jit,
                        const struct jit_block *block);
// Code, as it was executed, that is dropped.
void jit_perf_map_forget(struct jit_perf_map *map, const uint8_t *code, size_t bytes);

// ---- listing.c: translations for people to read

// What a piece of a block's code is for.
enum jit_listing_kind {
    JIT_LISTING_ENTRY,
    JIT_LISTING_INSN,
    JIT_LISTING_STUB,  // what an instruction has behind the block's code
    JIT_LISTING_LEAVE,
};

struct jit_listing *jit_listing_create(void);  // NULL: no memory; free it
// A new piece starts at `code` and ends where the next one does; it is for the instruction at
// `offset` from the page's start. An entry starts the listing anew. `insn` is for
// JIT_LISTING_INSN, else NULL. Does nothing when nobody reads.
void jit_listing_mark(struct jit *jit, enum jit_listing_kind kind, const struct isa_insn *insn,
                      int offset, const uint8_t *code);
// Logs the block just translated, which is at hart->pc.
void jit_listing_log(const struct hart *hart, const struct jit *jit, const struct jit_block *block);

// ---- warm.c: what is told to the process that goes on with the hart

enum jit_warm_kind { JIT_WARM_FORMAT = 1, JIT_WARM_BLOCK, JIT_WARM_SPACE, JIT_WARM_PIECE };

#define JIT_WARM_KIND_SHIFT 60
#define JIT_WARM_FLAG (1ull << 59)  // BLOCK: current; SPACE: has a window; PIECE: writable
#define JIT_WARM_VARIANT_SHIFT 56
#define JIT_WARM_VALUE ((1ull << 56) - 1)

struct jit_warm_record {
    uint64_t head;  // kind, flag, variant, and a value: BLOCK: gpa; SPACE: used; PIECE: offset
    uint64_t
        word[3];  // FORMAT: version; BLOCK: tail_gpa; SPACE: satp, ran, need; PIECE: bytes, gpa
};

void jit_warm_tell(struct hart_hot *hot, const struct jit_warm_record *record);
bool jit_warm_hot(struct hart *hart, void *state, struct hart_hot *hot);
void jit_warm_warm(struct hart *hart, void *state, const struct hart_hot *hot,
                   const struct hart_pace *pace);
void jit_warm_settle(struct hart *hart, void *state);

// ---- faults.c

bool jit_has_fsgsbase(void);
// 0 or -errno.
int jit_faults_create(struct jit *jit);
void jit_faults_destroy(struct jit *jit);
// Before and after the calling thread executes code of `jit`.
void jit_faults_enter(struct jit *jit);
void jit_faults_leave(void);
const struct jit *jit_faults_running(void);  // whose code that is, or NULL
// The access of translated code at that place in code memory, or NULL.
struct jit_site *jit_faults_find(const struct jit *jit, uint32_t at);

// ---- flat.c: a hart of a flat address space, jit->flat

// 0 or -errno.
int jit_flat_create(struct jit *jit);
// As jit_windows_enter; and after whatever may have executed another hart on this thread.
void jit_flat_enter(struct jit *jit);
int jit_flat_forked(struct hart *hart, void *state);

// ---- windows.c

#define JIT_ACCESS_BYTES_MIN 5  // of an access through a window: it may become a jump

// Without windows where the host cannot have them.
void jit_windows_create(struct jit *jit, const struct jit_options *options);
void jit_windows_destroy(struct jit *jit);
// Before the calling thread executes code of `jit`; jit_faults_leave afterwards.
void jit_windows_enter(struct hart *hart, struct jit *jit);
// Before code of a variant with JIT_WINDOW is entered.
void jit_windows_select(const struct hart *hart, struct jit *jit);
void jit_windows_flush(struct hart *hart, struct jit *jit, const struct hart_flush *flush);
// A helper has done the access at `site`, of a variant with JIT_WINDOW. False: the hart's variant
// is another one now.
bool jit_windows_missed(struct hart *hart, struct jit *jit, const struct jit_site *site,
                        uint64_t gva, unsigned width_bytes, bool store);

// See warm.c. Tells what is mapped; false: not all yet.
bool jit_windows_tell(const struct hart *hart, const struct jit *jit, struct hart_hot *hot);
// Takes what was told: pieces belong to the space that was taken before. What makes no sense is
// left out. No flush does anything from then on until all is settled, by looking at it.
void jit_windows_warm(const struct hart *hart, struct jit *jit,
                      const struct jit_warm_record *record, const struct hart_pace *pace);
void jit_windows_settle(struct hart *hart, struct jit *jit);

// ---- helpers.c

jit_helper jit_help_load, jit_help_store, jit_help_atomic, jit_help_cache_block, jit_help_csr,
    jit_help_system, jit_help_fp, jit_help_fp_ready, jit_help_fp_loop, jit_help_fp_load,
    jit_help_fp_quiet, jit_help_step, jit_help_illegal, jit_help_integer;
// Of checked harts.
jit_helper jit_help_taken, jit_help_return, jit_help_unwound;

// ---- fp.c: the host's MXCSR while it serves the guest

#define JIT_MXCSR_FLAGS 0x3f

void jit_fp_init(struct jit *jit);
// From now on translated code may compute; `fp_ready` says so. FS becomes Dirty if the instruction
// `dirties` it. False: FS is not Dirty, or the host has no such rounding mode as frm says.
bool jit_fp_enter(struct hart *hart, struct jit *jit, bool dirties);
// hart->fflags and the host's MXCSR are as they should be. Before anything looks at fflags, writes
// frm, or leaves the engine.
void jit_fp_leave(struct hart *hart, struct jit *jit);

// ---- cache.c: finding blocks

void jit_cache_init(struct jit *jit);  // before the thunks are emitted
// Forgets all blocks, and the thunks: to be emitted again.
void jit_cache_empty(struct jit *jit);
// Makes `link` lead to `to`, which is where it goes in its own page: the relation is one of
// physical addresses and holds in every address space.
void jit_cache_link(struct jit *jit, struct jit_link *link, struct jit_block *to);
void jit_cache_unlink(struct jit *jit);  // all of them
// Forgets a block of a flat address space, so that it is translated anew when it is next reached.
void jit_cache_retire(struct jit *jit, struct jit_block *block);
// Translates ahead of need, into empty code memory, what these name in a block; for what is first
// to stay longest. False: there is no more room. Between the other two.
bool jit_cache_warm(const struct hart *hart, struct jit *jit, uint64_t gpa, uint64_t tail_gpa,
                    unsigned variant);
void jit_cache_warm_begin(struct jit *jit);
void jit_cache_warm_end(struct jit *jit);
// The current block for hart->pc in *block; NULL where only the interpreter can go on. False: an
// exception of fetch was recorded.
bool jit_cache_find(struct hart *hart, struct jit *jit, struct jit_block **block);

// ---- jumps.c: where virtual pcs lead

void jit_jumps_init(struct jit *jit);
// Makes the hart's table the current one.
void jit_jumps_choose(const struct hart *hart, struct jit *jit);
// The page that holds `pc`, or NULL: exception recorded. Its tag is invalid when the answer is good
// for two bytes only and must not be kept (see hart_fetch_page).
const struct jit_fetch_page *jit_jumps_fetch(struct hart *hart, struct jit *jit, uint64_t pc);
// `block` was found at `pc`, whose pages were just fetched.
void jit_jumps_note(struct jit *jit, uint64_t pc, const struct jit_block *block);
void jit_jumps_forget(struct jit *jit);  // all of them, in all tables
void jit_jumps_flush(struct jit *jit, const struct hart_flush *flush);

#endif
