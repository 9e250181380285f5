// SPDX-License-Identifier: BSD-2-Clause
// checker: holds the pointers of a program to their objects: what an access that is not fine by
// itself is told to be, who called, and what is done about it. Whose program it is, a process of
// Linux (program.h) or a machine's firmware, is the business of a struct checker_target.
//
// Threads: all calls from any thread, those with a struct checker_thread from the thread of the
// host that executes the program's, in a hook of its hart (which has all registers exact, and may
// block); unless it says otherwise.
//
// Addresses of the program are pointers: they carry the identifier of their object in the top 16
// bits (memory.h), and `gva` is one without.
#ifndef STRAKE_CHECKER_H
#define STRAKE_CHECKER_H

#include "check/check.h"
#include "hart/hart.h"
#include "heap/heap.h"

// The zones of a checked program of Linux: what is below CHECKER_STACKS is code, data and mappings;
// stacks have the next one, and objects all that is left. At least 64 KiB between two are unmapped.
#define CHECKER_STACKS (160ull << 30)
#define CHECKER_HEAP (192ull << 30)
// Objects start here, so that their addresses do not look like two small numbers of 32 bits.
#define CHECKER_OBJECTS (CHECKER_HEAP + 0x62a90000ull)
#define CHECKER_OBJECTS_BYTES (HART_FLAT_BYTES - CHECKER_OBJECTS)
#define CHECKER_ZONE_GAP_BYTES 65536u
// Two pages at the end of the lowest zone: takeover.h's landing place, and the trampoline of
// signals' handlers.
#define CHECKER_LANDING (CHECKER_STACKS - CHECKER_ZONE_GAP_BYTES - 2 * MEMORY_PAGE_BYTES)

struct checker;         // one a process
struct checker_thread;  // one a hart

// ---- The program --------------------------------------------------------------------------------

struct checker_target {
    void *opaque;
    // Where objects are, and how these have memory: as in struct heap_space.
    uint64_t objects, objects_bytes;
    int (*map)(void *opaque, uint64_t gva, uint64_t bytes);
    uint64_t step_bytes;
    void (*unmap)(void *opaque, uint64_t gva, uint64_t bytes);
    // Zones, see struct hart_check; both 0: there are none.
    uint64_t stacks, heap;
    uint64_t landing;  // as in struct takeover_options

    // The host's address of [gva, gva + bytes); NULL: that is not memory of the program. To be used
    // within `attempt` only, as the memory may vanish: it calls work(argument), which holds no
    // locks, and which is given up where it faults. 0 or -EFAULT.
    void *(*hva)(void *opaque, uint64_t gva, uint64_t bytes);
    int (*attempt)(void *opaque, void (*work)(void *argument), void *argument);

    // The thread whose hart it is.
    struct checker_thread *(*thread)(void *opaque, struct hart *hart);
    // Whether both addresses, of [stacks, heap), lie on one stack. NULL: there are no stacks.
    bool (*same_stack)(void *opaque, uint64_t a, uint64_t b);
    // Between the two the program's other threads execute nothing. NULL: there are none.
    void (*pause)(void *opaque);
    void (*resume)(void *opaque);
    // The program is to fault as by an access of the instruction at hart->pc.
    void (*fault)(void *opaque, struct hart *hart, uint64_t gva, enum hart_access access);
    // Something was reported, and the program is not to go on. May return: then what was asked is
    // not to be done.
    void (*halt)(void *opaque, struct hart *hart);
    // Has a debugger show the text, and stop the program before the instruction at hart->pc, which
    // is not to have done anything and asks again when it goes on. False: nobody debugs. With NULL
    // for the text: whether that is about to be. NULL: nobody ever does.
    bool (*stop)(void *opaque, struct hart *hart, const char *said);
    // Calls checker_root and checker_root_word for all that is not the heap's. NULL: leaks are not
    // looked for. Others are paused.
    void (*roots)(void *opaque, struct checker *checker);
};

enum checker_leaks {
    CHECKER_LEAKS_NO,
    CHECKER_LEAKS_DEFINITE,
    CHECKER_LEAKS_FULL,
    CHECKER_LEAKS_OWN,  // as full, but for whom the target knows to be none of the user's own
};

struct checker_options {
    enum check_format format;
    int fd;            // reports are written to, unless there is
    const char *file;  // one they are appended to, which is open only while they are; "%p" in its
                       // name is the process' id
    const char *program;  // its path, for SARIF and HTML
    const char *sysroot;  // debug information is looked for there first, or NULL
    bool go_on;           // after a report
    bool suggest;         // say how to suppress
    enum checker_leaks leaks;
    const char *const *suppressions;  // paths of files
    size_t suppressions_count;
    const char *const *allocators;  // "alloc=NAME,free=NAME", as takeover.h has them
    size_t allocators_count;
    bool executed;  // by a program with the same options
};

// Both structs are copied, what they point to stays the caller's. 0 or a negative errno with *err.
BASE_NODISCARD int checker_create(struct checker **out, const struct checker_options *options,
                                  const struct checker_target *target, struct error *err);
// With no thread left. NULL is ignored.
void checker_destroy(struct checker *checker);
// What the program's harts are checked by, valid as long as the checker.
const struct hart_check *checker_hart_check(struct checker *checker);

// A thread of the program. `number`s count from 0. 0 or -ENOMEM.
BASE_NODISCARD int checker_thread_create(struct checker_thread **out, struct checker *checker,
                                         unsigned number);
void checker_thread_destroy(struct checker_thread *thread);  // NULL is ignored
struct checker *checker_of(struct checker_thread *thread);
struct heap_thread *checker_heap_thread(struct checker_thread *thread);
struct heap *checker_heap(struct checker *checker);

// [gva, gva + bytes) shows a file from `offset` on: `name` is what the program calls it, `path`
// where the host has it, `fd` it is open at (-1: it is not; then nothing of it is taken over).
// `name` NULL: anything else. What is executable comes to be taken over by the next fence
// (HART_FENCE_I) of all harts.
void checker_map(struct checker *checker, uint64_t gva, uint64_t bytes, bool executable, int fd,
                 const char *name, const char *path, uint64_t offset);

// [gva, gva + bytes), between the target's stacks and heap, is a stack that nobody has used yet.
void checker_map_stack(struct checker *checker, uint64_t gva, uint64_t bytes);

// Around fork(): on the thread that makes it. In the child the other threads are gone: they are to
// be destroyed behind it.
void checker_fork_begin(struct checker *checker);
void checker_fork_end(struct checker_thread *thread, bool child);

// The program ends with this status: looks for leaks if it is to and `leaks`, and ends the reports.
// The status that it is to have: CHECKER_STATUS when something was reported. Once, other threads
// may be about.
#define CHECKER_STATUS 99
int checker_end(struct checker_thread *thread, int status, bool leaks);

// ---- What a function, or a system call, does ----------------------------------------------------

// It reads or writes [pointer, pointer + bytes): exact. What is wrong is reported; false: it is not
// to be done.
bool checker_range(struct checker_thread *thread, struct hart *hart, uint64_t pointer,
                   uint64_t bytes, enum hart_access access);
// The table; and whether what granules that are partial say of their length is exact, which it is
// as long as nothing that is wrong has been let through.
const struct memory_identifiers *checker_identifiers(const struct checker *checker, bool *exact);
// How many of `bytes` from `pointer` on its object is known to have by a look into the table: at
// most CHECKER_GLANCE_BYTES, 0 is no answer.
#define CHECKER_GLANCE_BYTES 256u
uint64_t checker_glance(struct checker *checker, uint64_t pointer, uint64_t bytes);
// The same for a system call.
bool checker_call_range(struct checker_thread *thread, struct hart *hart, const char *call,
                        uint64_t pointer, uint64_t bytes, enum hart_access access);
// Copies between the program's memory and ours, without a check. 0 or -EFAULT.
BASE_NODISCARD int checker_copy_in(struct checker *checker, void *to, uint64_t pointer,
                                   uint64_t bytes);
BASE_NODISCARD int checker_copy_out(struct checker *checker, uint64_t pointer, const void *from,
                                    uint64_t bytes);
// The host's address for a pointer, see checker_target: for checker_attempt.
void *checker_hva(struct checker *checker, uint64_t pointer, uint64_t bytes);
BASE_NODISCARD int checker_attempt(struct checker *checker, void (*work)(void *argument),
                                   void *argument);
// Such an access has faulted: the program takes it as it would its own.
void checker_fault(struct checker_thread *thread, struct hart *hart, uint64_t pointer,
                   enum hart_access access);

// The function at hart->pc ends the program, by and by. What it leaves on the stack and in
// registers until then points to nothing that is looked for at the end.
void checker_exits(struct checker_thread *thread, const struct hart *hart);

// Who calls the function at `pc`, which is about to begin: a number for the heap. 0: not known.
uint32_t checker_who(struct checker_thread *thread, struct hart *hart, uint64_t pc);

// ---- Findings -----------------------------------------------------------------------------------
//
// Each reports, unless it was or is suppressed. True: go on; false: what was about to be done is
// not to be.

// What the heap has refused, or heap_diagnose says.
bool checker_found_heap(struct checker_thread *thread, struct hart *hart,
                        const struct heap_finding *finding, enum check_access access,
                        uint64_t pointer, uint64_t bytes);
// Anything else; `detail` may be NULL.
bool checker_found(struct checker_thread *thread, struct hart *hart, enum check_kind kind,
                   enum check_access access, uint64_t pointer, uint64_t bytes, const char *detail);

// ---- Roots of leaks (checker_target.roots) ------------------------------------------------------

void checker_root(struct checker *checker, uint64_t gva, uint64_t bytes);
void checker_root_word(struct checker *checker, uint64_t word);

#include "check/firmware.h"
#include "check/program.h"

#endif
