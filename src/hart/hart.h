// SPDX-License-Identifier: BSD-2-Clause
// hart: one RISC-V hardware thread: architectural state, CSRs, traps, address translation, floating
// point, and the engine interface with the interpreter behind it.
//
// Sources: RISC-V Unprivileged ISA 20240411; RISC-V Privileged ISA 20240411 (Machine ISA 1.13,
// Supervisor ISA 1.13); Sstc 1.0; Svadu 1.0. Section numbers in comments are of these.
//
// Threading invariant: everything in struct hart belongs to the thread that is inside hart_run, or,
// while none is, to whoever stopped it, except the atomics in the part "from any thread", which are
// reached through the functions that say so.
#ifndef STRAKE_HART_H
#define STRAKE_HART_H

#include <stdalign.h>
#include <stddef.h>
#include <time.h>

#include "base/base.h"
#include "isa/isa.h"
#include "memory/memory.h"
#include "state/state.h"

#define HART_MAX 16             // harts a partition
#define HART_TIME_HZ 10000000u  // frequency of the time CSR
#define HART_PMP_ENTRIES 16
#define HART_BREAKPOINTS 64
#define HART_CACHE_BLOCK_BYTES 64  // Zicbom, Zicboz

// The signal that a hart's timer sends to the hart's own thread. hart_run installs its handler and
// unblocks it; nothing else in the process may use it.
#define HART_TIMER_SIGNAL (SIGRTMIN + 5)

enum hart_privilege { HART_U = 0, HART_S = 1, HART_M = 3 };
enum hart_access { HART_LOAD, HART_STORE, HART_EXEC };

// Exception codes, Privileged ISA table 14 (mcause).
enum hart_cause {
    HART_CAUSE_FETCH_MISALIGNED = 0,
    HART_CAUSE_FETCH_ACCESS = 1,
    HART_CAUSE_ILLEGAL = 2,
    HART_CAUSE_BREAKPOINT = 3,
    HART_CAUSE_LOAD_MISALIGNED = 4,
    HART_CAUSE_LOAD_ACCESS = 5,
    HART_CAUSE_STORE_MISALIGNED = 6,
    HART_CAUSE_STORE_ACCESS = 7,
    HART_CAUSE_ECALL_U = 8,
    HART_CAUSE_ECALL_S = 9,
    HART_CAUSE_ECALL_M = 11,
    HART_CAUSE_FETCH_PAGE = 12,
    HART_CAUSE_LOAD_PAGE = 13,
    HART_CAUSE_STORE_PAGE = 15,
};
#define HART_CAUSE_INTERRUPT (1ull << 63)
// No exception: nothing is taken, and the engine leaves its code before the instruction. Recorded
// by a tap only.
#define HART_CAUSE_LEAVE (~HART_CAUSE_INTERRUPT)

// Bits of mip/mie/mideleg.
enum hart_irq {
    HART_IRQ_SSIP = 1 << 1,
    HART_IRQ_MSIP = 1 << 3,
    HART_IRQ_STIP = 1 << 5,
    HART_IRQ_MTIP = 1 << 7,
    HART_IRQ_SEIP = 1 << 9,
    HART_IRQ_MEIP = 1 << 11,
};

#define HART_MSTATUS_SIE (1ull << 1)
#define HART_MSTATUS_MIE (1ull << 3)
#define HART_MSTATUS_SPIE (1ull << 5)
#define HART_MSTATUS_UBE (1ull << 6)
#define HART_MSTATUS_MPIE (1ull << 7)
#define HART_MSTATUS_SPP (1ull << 8)
#define HART_MSTATUS_VS (3ull << 9)
#define HART_MSTATUS_MPP (3ull << 11)
#define HART_MSTATUS_FS (3ull << 13)
#define HART_MSTATUS_FS_INITIAL (1ull << 13)
#define HART_MSTATUS_XS (3ull << 15)
#define HART_MSTATUS_MPRV (1ull << 17)
#define HART_MSTATUS_SUM (1ull << 18)
#define HART_MSTATUS_MXR (1ull << 19)
#define HART_MSTATUS_TVM (1ull << 20)
#define HART_MSTATUS_TW (1ull << 21)
#define HART_MSTATUS_TSR (1ull << 22)
#define HART_MSTATUS_UXL (3ull << 32)
#define HART_MSTATUS_SXL (3ull << 34)
#define HART_MSTATUS_SD (1ull << 63)
// What sstatus writes of mstatus.
#define HART_SSTATUS_MASK                                                                          \
    (HART_MSTATUS_SIE | HART_MSTATUS_SPIE | HART_MSTATUS_SPP | HART_MSTATUS_FS |                   \
     HART_MSTATUS_SUM | HART_MSTATUS_MXR)

#define HART_ENVCFG_FIOM (1ull << 0)
#define HART_ENVCFG_CBIE (3ull << 4)
#define HART_ENVCFG_CBCFE (1ull << 6)
#define HART_ENVCFG_CBZE (1ull << 7)
#define HART_ENVCFG_ADUE (1ull << 61)
#define HART_ENVCFG_PBMTE (1ull << 62)
#define HART_ENVCFG_STCE (1ull << 63)

// ---- Soft TLB -----------------------------------------------------------------------------------
//
// One direct-mapped table for each kind of data access the hart can be in, so that a trap or a
// change of SUM flushes nothing. Only RAM is entered, only what PMP allows for the whole page, and
// the store tag only once the page's D bit is set: so a hit needs no further check.

enum hart_tlb_context {
    HART_TLB_U,      // U-mode
    HART_TLB_S,      // S-mode, SUM clear
    HART_TLB_S_SUM,  // S-mode, SUM set
    HART_TLB_M,      // M-mode (no translation)
    HART_TLB_CONTEXTS,
};

#define HART_TLB_BITS 9
#define HART_TLB_ENTRIES (1u << HART_TLB_BITS)
#define HART_TLB_INVALID 1ull  // a tag no page address equals

// Tags are page-aligned guest virtual addresses, or HART_TLB_INVALID. A hit for an access of
// `width` at gva that does not cross the page: tag == (gva & ~0xfff); then host = gva + addend.
struct hart_tlb_entry {
    uint64_t load, store;
    uint64_t addend;
    uint64_t leaf;  // what the entry was filled from; mmu.c's own
};

static inline unsigned hart_tlb_index(uint64_t gva)
{
    return (gva >> 12) & (HART_TLB_ENTRIES - 1);
}

// The host address of gva, on a hit.
static inline void *hart_tlb_hva(const struct hart_tlb_entry *entry, uint64_t gva)
{
    // One addition in a probe; the page's host pointer beside its tag would need more.
    return (void *)(uintptr_t)(gva + entry->addend);  // NOLINT(performance-no-int-to-ptr)
}

// ---- Attention: what makes an engine leave the guest's code -------------------------------------

enum hart_attention {
    HART_ATTENTION_IRQ = 1 << 0,    // interrupts may have become deliverable: look
    HART_ATTENTION_TIMER = 1 << 1,  // the armed deadline has passed
    HART_ATTENTION_FENCE = 1 << 2,  // another hart waits for fences
    HART_ATTENTION_STOP = 1 << 3,   // hart_run is to return
    HART_ATTENTION_DEBUG = 1 << 4,  // a breakpoint was hit or a step is done (set by the hart)
    HART_ATTENTION_FAIL = 1 << 5,   // the engine cannot go on and has said why
    HART_ATTENTION_BLOCK = 1 << 6,  // a block was all that was wanted; an engine's own
    HART_ATTENTION_ASK = 1 << 7,    // somebody waits for an answer, see hart_ask
    HART_ATTENTION_POKE = 1 << 8,   // hart_poke was called
};

enum hart_exit {
    HART_EXIT_STOPPED,     // hart_stop was called
    HART_EXIT_BREAKPOINT,  // pc is at a breakpoint; not executed yet
    HART_EXIT_STEPPED,     // one instruction was executed, or its exception taken; interrupts wait
    HART_EXIT_FAILED,      // the engine cannot go on; running again is of no use
};

struct hart;

// What the hart needs from the machine around it. All called on the hart's thread.
struct hart_host {
    // Host monotonic clock in ns; `time` is this divided by 100, minus the hart's time_offset.
    uint64_t (*clock_ns)(void *opaque);
    // An ecall from S-mode in a partition with the built-in SBI. Arguments in a0..a7 of `hart`;
    // results are written to a0 and a1. pc already points after the ecall. NULL where M-mode
    // firmware runs: then the ecall traps to M-mode.
    void (*sbi)(void *opaque, struct hart *hart);
    // An ecall from M-mode or S-mode, before it is anything else, with pc at it. True: it was a
    // call to the monitor itself, which has been answered in a0 and a1. NULL: there are none such.
    bool (*call)(void *opaque, struct hart *hart);
    uint64_t marchid;  // what that CSR is
    void *opaque;
};

// What cached translations are not to be used any more.
enum hart_flush_scope {
    HART_FLUSH_ALL,
    HART_FLUSH_ASID,  // those of an address space that are not global
    HART_FLUSH_PAGE,  // those of the leaf that maps gva
    HART_FLUSH_SATP,  // satp now names another address space, of the same mode: those of the old
                      // one that are not global are not current, but good should it come back
};
#define HART_ANY_ASID UINT64_MAX

struct hart_flush {
    enum hart_flush_scope scope;
    uint64_t asid;  // for HART_FLUSH_ASID and HART_FLUSH_PAGE: of which; HART_ANY_ASID: of any
    uint64_t gva;   // for HART_FLUSH_PAGE
};

// What one process' engine tells another's, which is to go on with the hart, so that the other has
// ready what it will need. It is in the engine's own format, with a version of it; only hints are
// in it, so that one that is hostile, out of date or unknown costs time and changes nothing.
struct hart_hot {
    uint8_t *bytes;
    size_t length_bytes, bytes_max;
    struct {
        unsigned stage, part;
        size_t space, piece;
        const void *block;
        uint64_t drops;
    } cursor;  // where the engine goes on, its own; zeros at first
};

// Called after about every 100 us of work that takes longer; may sleep, to leave the processor to
// others. False: leave it at what is done. Engines may ask more often.
struct hart_pace {
    bool (*go_on)(void *opaque);
    void *opaque;
};

// Executes guest instructions of one hart. Constant after creation; `state` is the engine's.
struct hart_engine {
    const char *name;     // as in --engine
    const void *options;  // for `create`, of a type of the engine's own; NULL: as usual
    int (*create)(struct hart *hart, void **state);  // 0, -ENOMEM or -EINVAL (the options)
    void (*destroy)(struct hart *hart, void *state);
    // Executes until hart->attention is not 0 (looked at least once a block, and after a trap was
    // taken, which may trap again for ever). On return the architectural state in `hart` is
    // complete and pc is at the next instruction to execute. When pc reaches a breakpoint: sets
    // HART_ATTENTION_DEBUG and returns before executing it.
    void (*run)(struct hart *hart, void *state);
    // Executes exactly one instruction, or takes the trap that it raises. Does not look at
    // breakpoints.
    void (*step)(struct hart *hart, void *state);
    // The guest executed fence.i on this hart: later fetches see all earlier stores.
    void (*fence_i)(struct hart *hart, void *state);
    // Translations may have changed for this hart (satp, sfence.vma, PMP, ...): forget what was
    // derived from guest virtual addresses that `flush` names.
    void (*flush_translations)(struct hart *hart, void *state, const struct hart_flush *flush);
    // The set of breakpoints changed; the hart is stopped.
    void (*breakpoints_changed)(struct hart *hart, void *state);

    // All three, or NULL where there is nothing to warm. On the hart's thread between two
    // instructions, or while it is stopped: adds to `hot`, for about 100 us at most. False: there
    // is more, call again.
    bool (*hot)(struct hart *hart, void *state, struct hart_hot *hot);
    // Makes ready what `hot`, of another process that has the same RAM, names. Before the hart has
    // state or runs, on any thread.
    void (*warm)(struct hart *hart, void *state, const struct hart_hot *hot,
                 const struct hart_pace *pace);
    // The hart has the state that it starts with. What was warmed is from now on as if made now:
    // with the code that RAM holds, and the translations that its page tables have.
    void (*settle)(struct hart *hart, void *state);

    // NULL where the engine can have no flat hart. In the child of a fork(), on the thread that
    // forked, perhaps within a hook of the hart: what is shared with the parent is so no more. 0 or
    // what the host said: the hart cannot run.
    int (*forked)(struct hart *hart, void *state);
};

extern const struct hart_engine hart_engine_interp;
// On the state of an interpreter: executes from hart->pc to the end of one block at most, or takes
// the exception that its fetch raises, whatever `attention` says.
void hart_interp_block(struct hart *hart, void *state);

// ---- Taps ---------------------------------------------------------------------------------------
//
// A tap stands between an engine and all that its instructions do outside of the registers, for an
// engine that runs others to compare them (verify/). With one set, nothing of the guest's memory is
// within reach of inline code but what the tap lets into the TLB.
struct hart_tap {
    // Where not NULL, called instead of the function of that name, with its contract.
    bool (*load)(struct hart *hart, uint64_t gva, unsigned width_bytes, uint64_t *value);
    bool (*store)(struct hart *hart, uint64_t gva, unsigned width_bytes, uint64_t value);
    void *(*atomic_hva)(struct hart *hart, uint64_t gva, unsigned width_bytes,
                        enum hart_access access, uint64_t *gpa);
    bool (*cache_block)(struct hart *hart, enum isa_op op, uint32_t raw, uint64_t gva);
    bool (*csr)(struct hart *hart, enum isa_op kind, unsigned number, bool read, bool write,
                uint64_t operand, uint32_t raw, uint64_t *old);
    bool (*system)(struct hart *hart, const struct isa_insn *insn);
    // What those functions found at gva, in *page_hva: the page in RAM, which the tap may replace,
    // or NULL (a device, or nothing). Not for fetches. False: exception recorded.
    bool (*page)(struct hart *hart, uint64_t gva, enum hart_access access, uint8_t **page_hva);
    bool fills_tlb;  // what page() gave may be entered
    // Where a page-table entry is read from instead. No entry is marked (A, D) then.
    _Atomic uint64_t *(*table)(const struct hart *hart, _Atomic uint64_t *slot);
};

// ---- Flat address spaces ------------------------------------------------------------------------
//
// A flat hart executes a program of an operating system that the host stands in for: U-mode alone,
// whose address space is one range of the host's: guest address g is host address hva + g. What is
// mapped there, by whom, and what for is the owner's affair; the engine relies on this alone:
// - [hva - HART_FLAT_GUARD_BYTES, hva + HART_FLAT_BYTES + HART_FLAT_GUARD_BYTES) belongs to the
//   address space, nothing in the guards is ever accessible, and nothing is executable for the
//   host.
// - What the guest may read, write or execute the host may read, and write if the guest may.
// - `pages` says what the guest may do, and changes after the host's mapping where something is
//   given, before it where something is taken away.
// The host's MMU refuses what is not mapped; then `pages` tells a page fault from an access fault:
// what the guest may do and the host refuses (behind the end of a file, SIGBUS) is an access fault.
// As on the host, what may be written or executed may be read.
//
// Data need no fence. Code does: after a page that was executable is taken away, replaced or made
// not executable, and before code in one that became executable is executed, all harts of the
// address space have to do hart_fence_remote(HART_FENCE_I | HART_FENCE_VMA).
//
// Harts may come, run and go while others of the address space run. A fault in the range that is
// not the guest's access is whoever's who handled SIGSEGV or SIGBUS before the first flat hart was
// created (fault_handler_add).

enum { HART_PAGE_READ = 1, HART_PAGE_WRITE = 2, HART_PAGE_EXEC = 4 };

#define HART_FLAT_BYTES (1ull << 38)  // the user's half of Sv39
#define HART_FLAT_GUARD_BYTES (64ull << 10)

struct hart_flat {
    uint8_t *hva;                    // of address 0
    _Atomic uint8_t *pages;          // HART_FLAT_BYTES / MEMORY_PAGE_BYTES entries: HART_PAGE_*
    const struct hart_check *check;  // what accesses are checked by; NULL: nothing
    // The two are called on the hart's thread within hart_run, all of the hart's registers are
    // exact, and may be changed; other harts' fences do not wait for the hart meanwhile, so that it
    // may block. hart_stop has hart_run return behind it.
    //
    // The instruction at hart->pc raised an exception (enum hart_cause), as an ecall does, which
    // has not moved pc. Execution goes on at hart->pc.
    void (*trap)(void *opaque, struct hart *hart, uint64_t cause, uint64_t tval);
    // hart_poke was called since the last time. Before the instruction at hart->pc.
    void (*poked)(void *opaque, struct hart *hart);
    void *opaque;
};

// ---- Checked accesses ---------------------------------------------------------------------------
//
// A checked hart compares the identifier in a pointer with the table's entry before each load,
// store, LR, SC, AMO and cbo.zero (memory.h, docs/checked-memory.md), and uses the address without
// it. Of a flat hart, pointers without identifier go by the zone that they lead to:
// - [0, stacks): plain memory, never looked up;
// - [stacks, heap): stacks. What is at sp or above it is fine, and anything where sp is in another
//   zone: below sp are dead frames, or other threads' stacks, which the owner tells apart;
// - from `heap` on: looked up, as pointers with an identifier are everywhere.
// At least HART_FLAT_GUARD_BYTES at the end of each zone are unmapped. A machine's harts have no
// zones: both are 0, and every access is looked up, by its virtual address.

// Something that is mostly done at once, without a look at more than a few registers.
struct hart_at_once {
    // In the middle of translated code at `pc`: of the hart only x[2], x[10] to x[13] and its calls
    // are exact, and x[10] may be changed. Fences wait for it, so it may block for a lock whose
    // owner waits for none, but not for long. False: it is not done, and nothing has changed.
    bool (*perform)(struct hart *hart, const void *what, uint64_t pc);
    const void *what;
};

struct hart_check {
    const struct memory_identifiers *identifiers;
    uint64_t stacks, heap;
    // All hooks are called on the hart's thread within hart_run, with all of the hart's registers
    // exact and pc at the instruction; hart_stop has hart_run return behind them.
    //
    // An access that is not fine by itself, before anything changes: identifier and entry differ,
    // it crosses a granule of memory that is looked up, or it is below sp (see above). `bytes` at
    // most 8, or HART_CACHE_BLOCK_BYTES of cbo.zero, whose `pointer` is the block's start; `kind`
    // is HART_STORE for what may store. True: it is made, and may then fault as any access. False:
    // it is not, and the hook has changed pc, or called hart_stop. It is not told of accesses that
    // translated code knows to be fine since the same block made them before.
    bool (*access)(void *opaque, struct hart *hart, uint64_t pointer, uint64_t bytes,
                   enum hart_access kind);
    // Whether the code at pc is not to be executed, but `taken` to be called. Asked when code is
    // read; what it says of a pc may change only if all harts do HART_FENCE_I behind it. Any
    // thread; NULL: nothing is taken.
    bool (*takes)(void *opaque, uint64_t pc);
    // pc is at what is taken. The hook does its work and sets pc, to x[1] for instance. Where it
    // may block it says so by hart_stop_executing.
    void (*taken)(void *opaque, struct hart *hart);
    // What engines may do instead, and return to x[1] where it is done; `perform` may be NULL. To
    // be asked as `takes`; NULL: there is nothing like it.
    struct hart_at_once (*at_once)(void *opaque, uint64_t pc);
    // Before a return (jalr x0, 0(x1)) that leads elsewhere than behind the call that it belongs
    // to, which would be `expected`. True: it is made. False: as above. NULL: returns are not
    // compared, but calls are kept.
    bool (*returns)(void *opaque, struct hart *hart, uint64_t expected);
    void *opaque;
};

// The calls (jal and jalr with rd x1) that a checked hart is within, as far as they are known: a
// ring, so that the outermost may be lost. An entry whose sp is below the present one belongs to a
// function that has been left, by a return or otherwise; a jump out of several (longjmp,
// exceptions, switches between stacks) leaves such entries behind, and returns throw them away.
#define HART_CALLS 1024u  // a power of two

struct hart_call {
    uint64_t place;  // that it returns to
    uint64_t sp;     // when it was made, with HART_CALL_KNOWN or not; or HART_NO_CALL
};
#define HART_NO_CALL UINT64_MAX
// The call's context is known, see hart_context. Where it is made again the bit is gone.
#define HART_CALL_KNOWN (1ull << 47)

struct hart_calls {
    uint64_t newest;  // its distance from the ring's start, in bytes
    struct hart_call ring[HART_CALLS];
    uint32_t contexts[HART_CALLS];
};

enum { HART_LINK = 1, HART_SP = 2 };  // the integer registers of return addresses and stacks

static inline bool hart_check_is_call(const struct isa_insn *insn)
{
    return isa_op_flags(insn->op) & ISA_JUMP && insn->rd == HART_LINK;
}

static inline bool hart_check_is_return(const struct isa_insn *insn)
{
    return insn->op == ISA_JALR && insn->rd == 0 && insn->rs1 == HART_LINK && insn->imm == 0;
}

static inline bool hart_check_is_unwinding(const struct isa_insn *insn)
{
    const unsigned loads = ISA_LOAD | ISA_RD;

    return (isa_op_flags(insn->op) & loads) == loads && insn->rd == HART_SP;
}

// ---- Statistics ---------------------------------------------------------------------------------
//
// What a hart has counted since it was created, resets included. All of it is counted where the
// hart is slow anyway, so it is always on. What hits the TLB is not here: an engine may count the
// accesses it makes, as the translator does when asked to.

#define HART_CAUSES 16  // of exceptions, and of interrupts

struct hart_stats {
    uint64_t retired;                  // instructions
    uint64_t misses[3];                // by enum hart_access: accesses that the soft TLB missed
    uint64_t device_reads;             // of these, by loads of device registers
    uint64_t device_writes;            // and by stores to them
    uint64_t flushes;                  // of the soft TLB, in whole or in part
    uint64_t exceptions[HART_CAUSES];  // taken, by enum hart_cause
    uint64_t interrupts[HART_CAUSES];  // taken, by number (bit of mip)
    uint64_t sbi_calls;                // to the built-in SBI
    uint64_t sleeps, slept_ns;         // wfi, or parked; on the host's clock
};

struct hart;

// While the hart is stopped.
void hart_stats(const struct hart *hart, struct hart_stats *stats);

// ---- The hart -----------------------------------------------------------------------------------

struct hart {
    // Integer and FP registers. x[0] is 0 whenever guest code runs. An FP register that holds a
    // single is NaN-boxed.
    uint64_t x[32];
    uint64_t f[32];
    uint64_t pc;
    const struct hart_tlb_entry *tlb;  // of the current context, never NULL: see hart_mmu_update
    // Looked at by engines between blocks; see enum hart_attention. From any thread.
    atomic_uint attention;
    uint8_t privilege;  // enum hart_privilege
    uint8_t frm;
    uint8_t fflags;
    bool debug_step;  // hart_run is to leave after one instruction; cleared when it does
    // hart_fetch_page's last page is not to be executed as a whole: see there.
    bool fetch_halfword;
    // Instructions retired: exact outside hart_engine.run, and during hart_csr, where the
    // instruction itself is not yet counted. The cycle counter counts the same.
    uint64_t instret;
    uint64_t traps;  // exceptions taken, as exact as instret

    // LR/SC: the reservation is on the 8-byte (lr.d) or 4-byte word at reservation_gpa, which held
    // reservation_value; sc compares and swaps. HART_NO_RESERVATION when there is none.
    uint64_t reservation_gpa;
    uint64_t reservation_value;

    // The exception being raised: set by whatever returned false, consumed by hart_trap_pending.
    uint64_t trap_cause;
    uint64_t trap_tval;

    // CSRs, named as in the specification. mstatus holds sstatus too.
    uint64_t mstatus, mtvec, mscratch, mepc, mcause, mtval, medeleg, mideleg, mie;
    uint64_t stvec, sscratch, sepc, scause, stval, satp;
    uint64_t menvcfg, senvcfg;
    uint64_t mcounteren, scounteren, mcountinhibit;
    // mcycle and minstret less instret; while mcountinhibit stops one, its value.
    uint64_t mcycle_offset, minstret_offset;
    uint8_t pmpcfg[HART_PMP_ENTRIES];
    uint64_t pmpaddr[HART_PMP_ENTRIES];
    uint64_t stimecmp;

    // From any thread, through the functions below.
    atomic_uint_fast64_t mip_lines;     // wired: MSIP, MEIP, SEIP as driven by ACLINT and PLIC
    atomic_uint_fast64_t mip_software;  // written by software: SSIP, STIP, SEIP
    atomic_uint_fast64_t mtimecmp;      // ACLINT's; UINT64_MAX when never
    atomic_int parked;                  // see hart.c; sleeps in hart_run while parked
    atomic_uint sleeping;               // the thread sleeps, or is about to, on `attention`
    uint64_t poll_ns;                   // how long it looks for notices before it does
    atomic_uint executing;              // the thread may use TLB and translations: fences must wait
    atomic_uint fence_bits;             // requested by other harts: enum hart_fence
    atomic_uint fences_asked, fences_done, fence_waiters;
    void (*ask_fn)(struct hart *hart, void *opaque);
    void *ask_opaque;
    atomic_uint inside;  // a thread is in hart_run
    atomic_uint ask;     // enum ask, see hart_ask

    // Fixed after hart_create.
    unsigned id;            // mhartid
    uint64_t time_offset;   // ticks subtracted from the clock; 0 at machine reset
    struct memory *memory;  // NULL where `flat` is not
    const struct hart_flat *flat;
    const struct hart_check *check;  // NULL: accesses are not checked
    struct hart_host host;
    const struct hart_engine *engine;
    void *engine_state;
    const struct hart_tap *tap;  // set by an engine, mostly NULL
    void *tap_state;             // its own
    bool supervisor_only;        // built-in SBI: no M-mode software
    uint8_t mmu_levels;          // of page tables at most: 3, 4, 5 for Sv39, Sv48, Sv57

    // Debugging; changed only while stopped.
    unsigned breakpoint_count;
    uint64_t breakpoints[HART_BREAKPOINTS];  // guest virtual addresses

    uint64_t breakpoint_pc;  // where hart_run last reported one, else 1

    // Timer that interrupts the running thread, see hart.c.
    timer_t timer;
    bool timer_ready;
    uint64_t timer_armed_ns;  // on the host's clock; UINT64_MAX when not armed
    uint64_t timer_pending;   // MTIP and STIP as they were when last compared

    struct hart_stats stats;  // `retired` is what resets took out of instret

    // Decoded from pmpcfg and pmpaddr, see pmp.c.
    struct {
        uint64_t first, last;  // gpa; first > last: matches nothing
    } pmp[HART_PMP_ENTRIES];
    bool pmp_open;  // S and U may do anything, M too

    // What maps hart_fetch_page's last page: how much, and whether in all address spaces.
    bool fetch_global;
    uint64_t fetch_leaf_bytes;

    // See mmu.c: where TLB entries are that a satp write drops, and what single-page flushes must
    // look for.
    uint64_t tlb_private[HART_TLB_CONTEXTS][HART_TLB_ENTRIES / 64];
    struct {
        uint64_t first, last;
    } tlb_large[2];
    struct hart_tlb_entry tlbs[HART_TLB_CONTEXTS][HART_TLB_ENTRIES];

    struct hart_calls calls;  // of a checked hart
};

#define HART_NO_RESERVATION UINT64_MAX

enum hart_fence {
    HART_FENCE_I = 1 << 0,    // as fence.i
    HART_FENCE_VMA = 1 << 1,  // as sfence.vma x0, x0
};

// Creates a parked hart. Returns 0, -ENOMEM or -EINVAL (id out of range).
BASE_NODISCARD int hart_create(struct hart **out, unsigned id, struct memory *memory,
                               const struct hart_host *host, const struct hart_engine *engine,
                               struct error *err);
// Creates a hart of a flat address space that is in U-mode with registers 0, FS Dirty and
// cycle, time, instret and cbo.zero for its use, to be run at hart->pc. `flat` stays the caller's
// and constant. `id` is any number. 0, -ENOMEM, -EINVAL (the engine has no flat harts) or what the
// engine or sigaction says. What knows of interrupts, parking, PMP, satp or state (hart_save) is
// not for a flat hart.
BASE_NODISCARD int hart_create_flat(struct hart **out, unsigned id, const struct hart_flat *flat,
                                    const struct hart_engine *engine, struct error *err);
// To be called in the child of a fork() by the thread that forked, for its hart, before that
// executes anything: after hart_run, or in a hook. The harts of other threads are to be destroyed.
// 0 or what the host said: the hart cannot run.
BASE_NODISCARD int hart_forked(struct hart *hart);
// Has the accesses of a machine's hart checked, before it first runs; `check` stays the caller's
// and constant. (A flat hart's are by hart_flat.check.) 0, -ENOTSUP: not by this engine, -EINVAL:
// it is a flat hart, or what the engine says: they are not checked then.
BASE_NODISCARD int hart_set_check(struct hart *hart, const struct hart_check *check);
// Takes away the modes of satp with more than `levels` (3 to 5) levels of page tables; all are
// there after hart_create. Not while running.
void hart_limit_mmu(struct hart *hart, unsigned levels);
void hart_destroy(struct hart *hart);  // NULL is ignored; not while a thread is in hart_run

// Power-on state: M-mode, all CSRs at their reset values, pc 0, parked. Not while running.
void hart_reset(struct hart *hart);
// After hart_reset: sets the hart up as SBI firmware leaves it for a supervisor (delegation, open
// PMP, counters, menvcfg.{STCE,ADUE,PBMTE,CBIE,CBCFE,CBZE}), and stays parked; it starts in S-mode.
void hart_set_supervisor_only(struct hart *hart);

// Runs the hart on the calling thread (always the same one between two stops) until it is asked to
// stop or a debug event. A parked hart sleeps in here. WFI sleeps in here.
enum hart_exit hart_run(struct hart *hart);

// ---- From any thread ----------------------------------------------------------------------------

// Asks hart_run to return soon; it stays asked until hart_run has returned for it.
void hart_stop(struct hart *hart);
// Drives wired interrupts (MSIP, MEIP, SEIP), as many bits as given.
void hart_set_lines(struct hart *hart, uint64_t bits, bool level);
// Sets software-pending bits (SSIP) as an inter-processor interrupt does.
void hart_raise_software(struct hart *hart, uint64_t bits);
// ACLINT's compare register, in ticks of `time`.
void hart_set_mtimecmp(struct hart *hart, uint64_t ticks);
// Unparks a parked hart at `pc` with a0 and a1, M-mode, or S-mode with satp 0 and interrupts off
// when supervisor_only. Returns 0 or -EALREADY when it was not parked.
int hart_start(struct hart *hart, uint64_t pc, uint64_t a0, uint64_t a1);
bool hart_is_parked(const struct hart *hart);
// Performs fences (enum hart_fence) on each hart in `harts` and returns when all have; `self` is
// the caller's own hart (its fences are done at once), or NULL for a thread that runs none. Must
// not be called with a lock held that a hart's thread may take.
void hart_fence_remote(struct hart *self, struct hart *const *harts, size_t count, unsigned fences);

// Has hart_flat.poked called soon, once for as many calls as were made by then; where hart_run is
// about to return, when it is called next. Async-signal-safe.
void hart_poke(struct hart *hart);

// Has `fn` called once while the hart executes no instruction: soon on the hart's thread, which may
// be in wfi, or on the calling thread when the hart is not in hart_run. False: `timeout_ns` passed
// and it was not called (the thread is busy in a device). One caller at a time; not the hart's
// thread.
bool hart_ask(struct hart *hart, void (*fn)(struct hart *hart, void *opaque), void *opaque,
              uint64_t timeout_ns);

// For the process that gives the hart away, whether or not it runs: what its engine would have
// ready in the other. Leaves hot->bytes NULL where there is nothing, and tells less, or nothing,
// where time is short. `hot` is to be freed by free(hot->bytes). 0 or -ENOMEM.
BASE_NODISCARD int hart_hot(struct hart *hart, struct hart_hot *hot, uint64_t timeout_ns);
// For the process that gets the hart: before it runs, on any thread, a hart each if wanted. `pace`
// may be NULL. `bytes` must not change meanwhile, but need not be true in anything.
void hart_warm(struct hart *hart, const void *bytes, size_t length_bytes,
               const struct hart_pace *pace);
// After hart_warm, once the hart has the state that it starts with, on any thread before it runs.
// hart_run does it where nobody did.
void hart_settle(struct hart *hart);

// ---- On the hart's own thread: for engines, the SBI, and whoever stopped the hart ---------------

// Around what may block: meanwhile no other hart's fence waits for this one. Returns whether it was
// executing, for hart_resume_executing.
bool hart_stop_executing(struct hart *hart);
void hart_resume_executing(struct hart *hart, bool executing);

// Of a checked hart: the places that the calls it is within return to, innermost first, `max` at
// most. Returns how many. At a function's first instruction the first is x[1].
unsigned hart_callers(const struct hart *hart, uint64_t *places, unsigned max);
// Of a checked hart: the number of the newest call. `within` gives a call its number, by that of
// the call that it was made within (`outermost`: none) and the place that it returns to. It is
// asked once for a call as long as that lasts, so that most often it is asked of few.
uint32_t hart_context(struct hart *hart, uint32_t outermost,
                      uint32_t (*within)(void *opaque, uint32_t outer, uint64_t place),
                      void *opaque);

// Whether the access is fine by itself.
bool hart_check_is_fine(const struct hart *hart, uint64_t pointer, uint64_t bytes);
// Whether the access is made: fine by itself, or by the hook's word. hart->pc is at the
// instruction. False: pc is where to go on.
bool hart_check_access(struct hart *hart, uint64_t pointer, uint64_t bytes, enum hart_access kind);
// hart->pc is at what is taken: has that done.
void hart_check_taken(struct hart *hart);
// What engines may try before that, see struct hart_check.
struct hart_at_once hart_check_at_once(const struct hart *hart, uint64_t pc);
// A call that returns to `place` is about to be made.
void hart_check_call(struct hart *hart, uint64_t place);
// Whether a return to x[1] is made. False: pc is where to go on.
bool hart_check_return(struct hart *hart);
// sp was loaded: functions that were left that way do not return any more.
void hart_check_unwound(struct hart *hart);
// Whether code at pc is taken.
static inline bool hart_check_takes(const struct hart *hart, uint64_t pc)
{
    return hart->check && hart->check->takes && hart->check->takes(hart->check->opaque, pc);
}
// The offset of the first instruction of `code`, which is at pc, that is taken, or `bytes`.
unsigned hart_check_first_taken(const struct hart *hart, uint64_t pc, const uint8_t *code,
                                unsigned bytes);

// Parks this hart (HSM hart_stop): it leaves its code at the end of the current instruction.
void hart_park(struct hart *hart);
// The current value of the time CSR.
uint64_t hart_time(const struct hart *hart);
// Writes stimecmp (Sstc) and re-arms the timer.
void hart_set_stimecmp(struct hart *hart, uint64_t ticks);
// mip as software sees it, timer bits included.
uint64_t hart_mip(const struct hart *hart);

// Records an exception; returns false, so that `return hart_raise(...)` reads well.
bool hart_raise(struct hart *hart, uint64_t cause, uint64_t tval);
// Takes the recorded exception at hart->pc (the faulting instruction): sets xepc, xcause, xtval,
// privilege and pc.
void hart_trap_pending(struct hart *hart);

// Slow paths of memory access: everything the TLB did not hit: page walk, A/D update, PMP, devices,
// misaligned and page-crossing accesses; fill the TLB. `width_bytes` 1, 2, 4, 8. Loads zero-extend.
// False: exception recorded, nothing was written.
bool hart_load(struct hart *hart, uint64_t gva, unsigned width_bytes, uint64_t *value);
bool hart_store(struct hart *hart, uint64_t gva, unsigned width_bytes, uint64_t value);
// Host address for LR (HART_LOAD), SC and AMO (HART_STORE) at gva, naturally aligned RAM; NULL:
// exception recorded (misaligned, page fault, access fault: devices do not take atomics). `gpa` may
// be NULL.
void *hart_atomic_hva(struct hart *hart, uint64_t gva, unsigned width_bytes,
                      enum hart_access access, uint64_t *gpa);
// Host address of the RAM page that instructions at gva are fetched from (page-aligned), and the
// page's gpa. NULL: exception recorded with tval gva. Code is fetched from RAM only. Where PMP
// allows only a part of the page, hart->fetch_halfword is set on return and the answer holds for
// the two bytes at gva alone: nothing may be cached, each halfword is asked for.
const uint8_t *hart_fetch_page(struct hart *hart, uint64_t gva, uint64_t *page_gpa);
// LR, SC and AMOs of a flat hart. False: exception recorded.
bool hart_flat_atomic(struct hart *hart, const struct isa_insn *insn);
// A flat hart's memory, at most a page of it, if the guest may read all of it. Raises nothing.
bool hart_flat_peek(const struct hart *hart, uint64_t gva, void *to, size_t bytes);
// A flat hart's code, from what hart_fetch_page gave. What has vanished meanwhile (a file that was
// cut off) reads as zeros, which are no instruction.
void hart_flat_copy_code(void *to, const uint8_t *from_hva, size_t bytes);
bool hart_flat_same_code(const uint8_t *copy, const uint8_t *hva, size_t bytes);
// Cache-block operations (Zicbom, Zicboz). `op` is ISA_CBO_*, `raw` its encoding. False: exception
// recorded.
bool hart_cache_block(struct hart *hart, enum isa_op op, uint32_t raw, uint64_t gva);

// CSR instructions. `write` false for csrrs/csrrc with rs1=x0; `read` false for csrrw with rd=x0.
// For csrrs/csrrc the caller computes nothing: `kind` is one of ISA_CSRRW, ISA_CSRRS, ISA_CSRRC and
// `operand` the register or immediate. False: illegal instruction recorded (tval `raw`). The engine
// ends its block after one that writes.
bool hart_csr(struct hart *hart, enum isa_op kind, unsigned number, bool read, bool write,
              uint64_t operand, uint32_t raw, uint64_t *old);
// Debugger's access to any CSR of the table: no privilege check, no side effects of reading.
// 0, -ENOENT, or -EACCES for writing to a read-only one.
int hart_csr_peek(struct hart *hart, unsigned number, uint64_t *value);
int hart_csr_poke(struct hart *hart, unsigned number, uint64_t value);

// The remaining SYSTEM instructions: ecall, ebreak, mret, sret, wfi, wrs.nto, wrs.sto, sfence.vma,
// sinval.vma, sfence.w.inval, sfence.inval.ir, fence.i (after which the engine ends its block).
// hart->pc is at the instruction on entry, and at the next one to execute on return. False:
// exception recorded, pc unchanged.
bool hart_system(struct hart *hart, const struct isa_insn *insn);

// Floating-point arithmetic, pure: `op` is any ISA_FP operation that is no load or store; operands
// are register contents (integer ones included), NaN-boxing is checked and applied. `rm` is
// resolved (0..4). Exception flags (fflags layout) are or-ed into *flags. Returns the result
// register's value.
uint64_t hart_fpu(enum isa_op op, unsigned rm, uint64_t a, uint64_t b, uint64_t c, unsigned *flags);

// Bit counts, orc.b, and what is in Zbc, Zbkb, Zbkx, Zkne, Zknd and Zknh, pure: `a` and `b` are
// the contents of rs1 and rs2. Returns rd's.
uint64_t hart_bits(enum isa_op op, uint64_t a, uint64_t b, unsigned immediate);

// Recomputes hart->tlb after privilege, mstatus.{MPRV,MPP,SUM} or satp changed.
void hart_mmu_update(struct hart *hart);
// The context whose TLB hart->tlb is.
static inline enum hart_tlb_context hart_mmu_context(const struct hart *hart)
{
    return (enum hart_tlb_context)((hart->tlb - hart->tlbs[0]) / HART_TLB_ENTRIES);
}
// Drops cached translations: all, or those that sfence.vma with these operands names (`asid` may be
// HART_ANY_ASID).
void hart_mmu_flush(struct hart *hart);
void hart_mmu_flush_page(struct hart *hart, uint64_t gva, uint64_t asid);

// One leaf of the current address space, or a part of it, for an engine that keeps translations of
// its own: where its pages are, all in RAM, and what may be done there without another walk.
struct hart_extent {
    uint64_t gva, gpa, bytes;
    bool writable, global;
};
// What maps gva for loads, and stores when `writable`, in U-mode or in S-mode with SUM clear. Sets
// no A or D. False: nothing that could be accessed without more ado.
bool hart_mmu_extent(const struct hart *hart, uint64_t gva, enum hart_tlb_context context,
                     struct hart_extent *extent);
// The same, with leaves behind it that go on in RAM as in the address space and say the same: as
// many as are found at little cost.
bool hart_mmu_run(const struct hart *hart, uint64_t gva, enum hart_tlb_context context,
                  struct hart_extent *extent);

// The registers and CSRs of a hart, to be compared and put back: what is in struct hart before
// mip_lines, without `attention`.
struct hart_state {
    alignas(struct hart) uint8_t bytes[offsetof(struct hart, mip_lines)];
};
void hart_state_save(const struct hart *hart, struct hart_state *state);
bool hart_state_same(const struct hart *a, const struct hart *b);
// Forgets what was derived from translation where that becomes another one.
void hart_state_restore(struct hart *hart, const struct hart_state *state);
// For reading fields before mip_lines.
static inline const struct hart *hart_state_view(const struct hart_state *state)
{
    return (const struct hart *)state->bytes;
}

// Writes the section "hart", instance `id`: registers, CSRs, the ACLINT's registers, time, counts;
// and "hart-debug" when there are breakpoints. While the hart is stopped.
void hart_save(const struct hart *hart, struct state_writer *writer);
// Takes them into a hart that is stopped, whose external interrupt wires stay as they are. Refused,
// with section and field in *err: what no hart can hold; the hart is then to be reset.
BASE_NODISCARD int hart_restore(struct hart *hart, struct state_reader *reader, struct error *err);

// Debugger's view: translates with the hart's current translation for loads, without side effects
// or permission checks. 0 or -EFAULT.
int hart_debug_translate(struct hart *hart, uint64_t gva, uint64_t *gpa);
// 0, -EEXIST, -ENOSPC; 0 or -ENOENT. Only while stopped.
int hart_breakpoint_add(struct hart *hart, uint64_t gva);
int hart_breakpoint_remove(struct hart *hart, uint64_t gva);

#endif
