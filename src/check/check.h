// SPDX-License-Identifier: BSD-2-Clause
// check: what was found wrong with a program's memory accesses, put into words: where it happened
// in terms of functions, files and lines, and reports in text, JSON, SARIF or HTML.
// docs/check-reports.md is what users read.
#ifndef STRAKE_CHECK_H
#define STRAKE_CHECK_H

#include "base/base.h"

// ---- Stacks -------------------------------------------------------------------------------------
//
// A stack is an array of places in code, the innermost first. A place is a guest-virtual address
// with one bit of meaning: an even one is that of the instruction at it, an odd one lies in the
// call before the address that is returned to, which is the next even one. (Instructions are at
// even addresses, and looking up what is returned to would find the statement behind the call, or
// the function behind.)

#define CHECK_STACK_MAX 64

// The address that a debugger shows for a place.
static inline uint64_t check_place_pc(uint64_t place)
{
    return place + (place & 1);
}

static inline uint64_t check_place_of_return(uint64_t gva)
{
    return gva - 1;
}

struct check_stack {
    const uint64_t *places;
    size_t count;
    unsigned thread;  // the program's number of it, from 0
};

// ---- Symbols ------------------------------------------------------------------------------------
//
// What the addresses of a program mean: the files that it has mapped, with the debug information
// that they have or that is installed for them. Any thread; around fork() the caller holds the
// lock, so that the child finds the whole of it. Nothing is open between two calls, and a file is
// first looked at when an address in it is asked for.

struct check_symbols;

// `sysroot` is the folder below which debug information is looked for before it is elsewhere, or
// NULL. 0 or -ENOMEM.
BASE_NODISCARD int check_symbols_create(struct check_symbols **out, const char *sysroot);
void check_symbols_destroy(struct check_symbols *symbols);  // NULL is ignored
void check_symbols_lock(struct check_symbols *symbols);
void check_symbols_unlock(struct check_symbols *symbols);

// [gva, gva+bytes) shows a file from `offset` on: `name` is its absolute path for the program and
// in reports, `path` where the host has it. `name` NULL: it shows no file. What is unmapped need
// not be told: places in it keep their names until something else is mapped there. 0, -EINVAL (the
// range wraps) or -ENOMEM; unchanged on failure.
BASE_NODISCARD int check_symbols_map(struct check_symbols *symbols, uint64_t gva, uint64_t bytes,
                                     const char *name, const char *path, uint64_t offset);

// Strings live as long as the symbols; NULL and 0: not known.
struct check_frame {
    uint64_t pc;           // check_place_pc
    const char *function;  // C++ names as they are in the source
    const char *file;
    unsigned line, column;
    const char *module;      // the name of the mapped file
    uint64_t module_offset;  // of pc, in the addresses that the file itself uses
    bool inlined;            // into the next frame, which is of the same place
};

// The frames of a place, the innermost first: more than one where calls were inlined, at least one
// in any case; of these the first `max` (at least 1) are stored and counted.
size_t check_symbols_resolve(struct check_symbols *symbols, uint64_t place,
                             struct check_frame *frames, size_t max);

// ---- Unwinding ----------------------------------------------------------------------------------
//
// From registers to a stack, by the call frame information (DWARF) that compilers put into all
// programs for exceptions, else by frame pointers. An unwinder remembers what it has found out, a
// row for each address, and is one thread's.

struct check_registers {
    uint64_t pc;
    uint64_t x[32];
};

struct check_memory {
    // Copies guest memory. 0, or a negative errno: none of it can be read.
    int (*read)(void *opaque, uint64_t gva, void *bytes, size_t count);
    void *opaque;
};

struct check_unwinder;

BASE_NODISCARD int check_unwinder_create(struct check_unwinder **out,
                                         struct check_symbols *symbols);
void check_unwinder_destroy(struct check_unwinder *unwinder);  // NULL is ignored

// Stores at most `max` places and returns how many, at least the one that the registers say when
// max is not 0. Ends where memory or call frame information makes no sense.
size_t check_unwind(struct check_unwinder *unwinder, const struct check_registers *registers,
                    const struct check_memory *memory, uint64_t *places, size_t max);

// ---- Tails --------------------------------------------------------------------------------------

// What the call that returns to `back` calls, as far as its instructions tell. 0: not known.
uint64_t check_callee(const struct check_memory *memory, uint64_t back);

// Copies a stack, with the functions in it that were left by a jump to what they called last, as
// far as it is certain by which: the place of the jump. Any thread. How many places it has then.
size_t check_tails(struct check_symbols *symbols, const struct check_memory *memory,
                   const struct check_stack *stack, uint64_t places[static CHECK_STACK_MAX]);

// ---- Stacks that are kept -----------------------------------------------------------------------
//
// Allocations remember who made and freed them. Their stacks are kept as a calling context tree
// (Ammons, Ball, Larus: Exploiting Hardware Performance Counters with Flow and Context Sensitive
// Profiling, 1997): each call once, within the stack that it was made in, so that a stack is a
// number. Any thread, without locks; what is kept stays.
//
// A recursion is folded: of two calls that one function makes the outer one is left out, or each
// node of a tree that is taken down by a function that calls itself would have a stack of its own.
// Where CHECK_STACK_MAX are full, so is the outer half.

struct check_stacks;

#define CHECK_STACK_NUMBER_MAX ((16u << 20) - 1)  // when they take 512 MiB

BASE_NODISCARD int check_stacks_create(struct check_stacks **out);
void check_stacks_destroy(struct check_stacks *stacks);  // NULL is ignored
// The stack of a thread that is within no call. 0: there is no room.
uint32_t check_stacks_begin(struct check_stacks *stacks, uint64_t thread);
// The stack of a call at `place`, made within the stack `outer`. 0: it was not added.
uint32_t check_stacks_find(const struct check_stacks *stacks, uint32_t outer, uint64_t place);
// The same, and adds it: `callee` is what it calls, 0: not known. 0: there is no room, or was none
// for `outer`, which is 0.
uint32_t check_stacks_add(struct check_stacks *stacks, uint32_t outer, uint64_t place,
                          uint64_t callee);
// Its places, innermost first; returns how many. Sets *thread, unless the number is 0.
size_t check_stacks_get(const struct check_stacks *stacks, uint32_t number,
                        uint64_t places[static CHECK_STACK_MAX], uint64_t *thread);

// ---- Findings -----------------------------------------------------------------------------------

enum check_kind {
    CHECK_HEAP_BUFFER_OVERFLOW,
    CHECK_HEAP_BUFFER_UNDERFLOW,
    CHECK_HEAP_USE_AFTER_FREE,
    CHECK_USE_AFTER_REALLOC,
    CHECK_DOUBLE_FREE,
    CHECK_INVALID_FREE,
    CHECK_INTERIOR_FREE,
    CHECK_MISMATCHED_FREE,
    CHECK_OVERLAPPING_COPY,
    CHECK_SYSCALL_BUFFER_OVERFLOW,
    CHECK_DEAD_STACK_USE,
    CHECK_RETURN_ADDRESS_OVERWRITTEN,
    CHECK_NULL_DEREFERENCE,
    CHECK_WILD_POINTER,
    CHECK_LEAK_DEFINITE,
    CHECK_LEAK_POSSIBLE,
    CHECK_STACK_BUFFER_OVERFLOW,
    CHECK_GLOBAL_BUFFER_OVERFLOW,
    CHECK_KIND_COUNT
};
const char *check_kind_name(enum check_kind kind);         // "heap-buffer-overflow"
const char *check_kind_description(enum check_kind kind);  // a sentence
bool check_kind_is_leak(enum check_kind kind);

enum check_access {
    CHECK_ACCESS_NONE,  // of a leak
    CHECK_ACCESS_READ,
    CHECK_ACCESS_WRITE,
    CHECK_ACCESS_EXECUTE,
    CHECK_ACCESS_FREE,
    CHECK_ACCESS_REALLOCATE,
    CHECK_ACCESS_RETURN,
    CHECK_ACCESS_COUNT
};
const char *check_access_name(enum check_access access);  // "write"

struct check_object {
    uint64_t gva, bytes;
    bool freed;
    struct check_stack allocated, freed_by;  // count 0: not known
};

// What was found. Of a leak `gva` and `bytes` are those of one object and of all `objects` that the
// same stack allocated.
struct check_finding {
    enum check_kind kind;
    enum check_access access;
    uint64_t gva, bytes;
    uint64_t objects;
    uint16_t pointer_id, memory_id;     // identifiers; both 0: it is not about them
    const char *detail;                 // a sentence without a full stop that tells more, or NULL
    struct check_stack stack;           // of the access; of a leak: none
    const struct check_object *object;  // what is there, or the nearest; NULL: nothing
};

// ---- Suppressions -------------------------------------------------------------------------------

struct check_suppressions;

BASE_NODISCARD int check_suppressions_create(struct check_suppressions **out);
void check_suppressions_destroy(struct check_suppressions *suppressions);  // NULL is ignored
// Adds those of a file's text. `name` is the file's, for messages. 0, -ENOMEM, or -EINVAL with the
// line and what is wrong with it in *err; unchanged on failure.
BASE_NODISCARD int check_suppressions_add(struct check_suppressions *suppressions, const char *name,
                                          const char *text, struct error *err);
// Whether one of them takes a finding with these frames (of a leak: of the allocation). The first
// that does counts it.
bool check_suppressions_match(struct check_suppressions *suppressions, enum check_kind kind,
                              const struct check_frame *frames, size_t count);
// How often the suppression number `index` was used and its name; false: there are not so many.
bool check_suppressions_get(const struct check_suppressions *suppressions, size_t index,
                            const char **name, uint64_t *used);

// ---- Reports ------------------------------------------------------------------------------------
//
// The caller sees to it that one thread at a time is in these, and none during a fork().

enum check_format { CHECK_FORMAT_TEXT, CHECK_FORMAT_JSON, CHECK_FORMAT_SARIF, CHECK_FORMAT_HTML };

struct check_report_options {
    enum check_format format;
    int fd;                                   // the caller's, written to
    const char *program;                      // its path, for SARIF and HTML
    struct check_suppressions *suppressions;  // the caller's, or NULL
    bool suggest;                             // text: say how each would be suppressed
};

struct check_report;

enum check_verdict {
    CHECK_REPORTED,
    CHECK_REPEATED,  // another at the same place was reported or suppressed before
    CHECK_SUPPRESSED,
};

BASE_NODISCARD int check_report_create(struct check_report **out, struct check_symbols *symbols,
                                       const struct check_report_options *options);
// Ends it: what is told of all together, and a SARIF document, is written now. 0, or what writing
// failed with at some time.
int check_report_close(struct check_report *report);
// Where it is written from now on.
void check_report_set_fd(struct check_report *report, int fd);
// In the child after a fork(): what the parent found is the parent's to tell. (Places that it has
// reported stay so.)
void check_report_forked(struct check_report *report);
// Reports a finding unless it is of a kind and place (the innermost frames) that was before, or
// suppressed.
enum check_verdict check_report_add(struct check_report *report,
                                    const struct check_finding *finding);
// The finding as in a report that is text; to be freed. NULL: no memory.
char *check_report_text(struct check_report *report, const struct check_finding *finding);
// How many findings there were of each verdict.
uint64_t check_report_count(const struct check_report *report, enum check_verdict verdict);

// ---- The other headers of this room, for those outside of it ------------------------------------

#include "check/checker.h"

#endif
