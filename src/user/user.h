// SPDX-License-Identifier: BSD-2-Clause
// user: runs a riscv64 Linux program in this process, which becomes the program's: its descriptors,
// its id, its children, its signals and its end are the program's.
#ifndef STRAKE_USER_H
#define STRAKE_USER_H

#include "hart/hart.h"

struct user_process;
struct user_thread;
struct user_watch;

struct user_options {
    const struct hart_engine *engine;
    const char *sysroot;  // folder below which absolute paths are looked for first, or NULL
    const char *program;  // path
    int program_fd;       // open for reading, taken over: `program` is its name only; or -1
    char *const *argv;    // the program's, argv[0] included, with NULL behind the last
    char *const *envp;    // the same
    const struct user_watch *watch;  // NULL: nobody watches it
    const char *gdb;                 // where GDB is waited for (gdb_listen), or NULL
};

// Runs the program. Returns only when it cannot be started: a negative errno with *err set, -ENOENT
// when there is none. Once a process, on its first thread.
BASE_NODISCARD int user_run(const struct user_options *options, struct error *err);

// ---- Watching a program -------------------------------------------------------------------------
//
// Who checks a program's memory accesses watches it. Its pointers may carry identifiers then
// (memory.h): of what it hands to system calls they are taken off, after it was looked at. The
// address space has zones: mappings are below `stacks`, stacks (the first thread's, and what is
// mapped with MAP_STACK) in [stacks, heap), each with a mapping of its own; from `heap` on there is
// what user_heap_map maps, and the program can neither map nor unmap anything.
//
// All but `begins` is called on a thread of the program, in a hook of its hart, without locks.
struct user_watch {
    void *opaque;
    const struct hart_check *check;  // of all harts
    uint64_t stacks, heap;
    uint64_t landing;            // gva of a page that is to be mapped as code, for whatever use
    const char *const *command;  // "check" and options: how this monitor is executed for what the
    size_t command_count;        // program executes; --engine, --sysroot and others are added

    // The process has its memory, and nothing in it.
    void (*begins)(void *opaque, struct user_process *process);
    // A thread of it, which user_thread_watched will say; called by who makes it. 0 or -errno.
    int (*thread_begins)(void *opaque, void **watched);
    void (*thread_ends)(void *opaque, void *watched);
    // [gva, gva + bytes) may be executed from the next fence on, which follows. `name` is the
    // program's path of the file that is mapped, `path` the host's; NULL: there is no file.
    void (*mapped)(void *opaque, uint64_t gva, uint64_t bytes, int fd, uint64_t offset,
                   const char *name, const char *path);
    // [gva, gva + bytes) is a stack from now on, which nobody has used yet.
    void (*stack_mapped)(void *opaque, uint64_t gva, uint64_t bytes);
    // The system call that the thread makes (user_thread_call) reads or writes there. False: it is
    // not to, and fails.
    bool (*buffer)(void *opaque, struct user_thread *thread, uint64_t pointer, uint64_t bytes,
                   enum hart_access access);
    // Around fork(), in the child as well; nobody pauses threads in between.
    void (*fork_begins)(void *opaque);
    void (*fork_ends)(void *opaque, struct user_thread *thread, bool child);
    // The process ends with this status. The one that it is to have.
    int (*ends)(void *opaque, struct user_thread *thread, int status);
    // It is about to die by a signal that an instruction of it has raised, for an access to `gva`
    // where it is SIGSEGV or SIGBUS; or that it sends itself, 0. A status to end with instead, or
    // -1.
    int (*dies)(void *opaque, struct user_thread *thread, int signal, uint64_t gva,
                enum hart_access access);
};

struct user_thread *user_thread_current(void);  // NULL: the caller is none of the program's
void *user_thread_watched(const struct user_thread *thread);
struct hart *user_thread_hart(const struct user_thread *thread);
// The name of the system call that it makes; NULL: none.
const char *user_thread_call(const struct user_thread *thread);
// It is the child of a vfork, in its parent's memory.
bool user_thread_borrows(const struct user_thread *thread);
// Where somebody debugs the program it stops before the instruction at the hart's pc, which is
// executed, or makes its call, once it is to go on; and the debugger's user is shown the text,
// whole lines. In a hook, which then leaves everything as it is. False: nobody does.
bool user_thread_stop(struct user_thread *thread, const char *said);
bool user_thread_stops(const struct user_thread *thread);  // it is about to
// Ends the process with this status, whoever watches it.
_Noreturn void user_thread_exit(struct user_thread *thread, int status);
// The instruction at the hart's pc faults as by such an access.
void user_thread_fault(struct user_thread *thread, uint64_t gva, enum hart_access access);

// The host's address of [gva, gva + bytes); NULL: it is not within the address space. May fault.
void *user_process_hva(struct user_process *process, uint64_t gva, uint64_t bytes);
// work(argument), which is given up where it faults in the address space: so it may hold nothing.
// 0 or -EFAULT.
int user_attempt(void (*work)(void *argument), void *argument);
// Memory from `heap` on: readable, writable, and zero; or not there any more. From
// USER_HEAP_STEP_BYTES on it may be in huge pages. 0 or -errno.
#define USER_HEAP_STEP_BYTES (4u << 20)
int user_heap_map(struct user_process *process, uint64_t gva, uint64_t bytes);
void user_heap_unmap(struct user_process *process, uint64_t gva, uint64_t bytes);
// Whether one mapping has both.
bool user_process_same_mapping(struct user_process *process, uint64_t a, uint64_t b);
// Calls for each mapping that may be read, in order, or for each other thread of the program.
// `ended_sp`: of a stack, the stack pointer of the last thread that ended on it, or 0.
void user_process_each_mapping(struct user_process *process,
                               void (*fn)(void *opaque, uint64_t gva, uint64_t bytes,
                                          uint64_t ended_sp),
                               void *opaque);
void user_process_each_thread(struct user_process *process,
                              void (*fn)(void *opaque, struct user_thread *thread), void *opaque);

// Between the two the program's other threads execute no instruction; they may be in system calls.
// One that does not stop within a second goes on. Not to be called between each other.
void user_process_pause(struct user_process *process);
void user_process_resume(struct user_process *process);
// Around what may wait for a thread that pauses the others: a lock that it holds.
void user_thread_wait_begin(struct user_thread *thread);
void user_thread_wait_end(struct user_thread *thread);

#endif
