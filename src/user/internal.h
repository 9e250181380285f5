// SPDX-License-Identifier: BSD-2-Clause
// user: what the files of this room share and nobody else includes.
//
// A process of the program is this process, a thread of it a thread with a hart. System calls are
// made by the calling thread in hart_flat.trap, while its hart does not count as executing: they
// may block, and fences do not wait for them.
#ifndef STRAKE_USER_INTERNAL_H
#define STRAKE_USER_INTERNAL_H

#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>

#include "user/user.h"

#define USER_PAGE_BYTES 4096u
#define USER_ECALL_BYTES 4u
#define USER_SIGNALS 64
#define USER_STRINGS 4
#define USER_REPORTS_MAX 640

// What a call returns that is to be made again once a signal's handler has returned (Linux'
// ERESTARTSYS, which programs never see).
#define USER_RESTART 512

struct user_process;
struct user_thread;

static inline uint64_t user_page_down(uint64_t bytes)
{
    return bytes & ~(uint64_t)(USER_PAGE_BYTES - 1);
}

static inline uint64_t user_page_up(uint64_t bytes)
{
    return user_page_down(bytes + USER_PAGE_BYTES - 1);
}

// ---- Address space (space.c) --------------------------------------------------------------------

// The file that a mapping shows, for /proc/self/maps. Shared by mappings.
struct user_file {
    unsigned users;
    bool segment;  // System V's memory, `inode` is its id
    uint64_t device, inode;
    char path[];
};

// Mapped pages next to each other that are alike; [start, end) in guest addresses.
struct user_mapping {
    uint64_t start, end;
    uint64_t offset;         // in the file
    struct user_file *file;  // NULL: anonymous
    const char *name;        // as "[stack]", a literal, or NULL
    uint8_t protection;      // PROT_*, as the program asked
    bool shared;
    uint64_t ended_sp;  // the stack pointer of the last thread that ended on this stack; 0: none
};

struct user_space {
    pthread_mutex_t lock;
    struct user_process *process;
    uint8_t *reservation;  // of the host, with the guards
    size_t reservation_bytes;
    uint8_t *hva;  // of guest address 0
    _Atomic uint8_t *pages;
    struct user_mapping *mappings;  // sorted
    size_t mapping_count, mappings_max;
    uint64_t brk_start, brk;
    uint64_t top;                 // mappings that may be anywhere are below
    uint64_t limit;               // from here on the program maps nothing by itself
    uint64_t stacks, stacks_top;  // zone of the stacks of a program that is watched; else 0
};

BASE_NODISCARD int user_space_init(struct user_space *space, struct user_process *process,
                                   struct error *err);
void user_space_fini(struct user_space *space);
// The address of a pointer that the program hands to a call.
uint64_t user_gva(const struct user_process *process, uint64_t pointer);
// As mmap(2), munmap(2), mprotect(2) of the program: the address or 0, or a negative errno.
int64_t user_space_map(struct user_space *space, uint64_t gva, uint64_t bytes, int protection,
                       int flags, int fd, uint64_t offset);
int user_space_unmap(struct user_space *space, uint64_t gva, uint64_t bytes);
// A thread of a program that is watched ends with this stack pointer.
void user_space_thread_ends(struct user_space *space, uint64_t sp);
int user_space_protect(struct user_space *space, uint64_t gva, uint64_t bytes, int protection);
// Whether something is mapped there, whatever may be done with it.
bool user_space_has(struct user_space *space, uint64_t gva);
// Names an anonymous mapping for /proc/self/maps; `name` is a literal, or the first thread's stack.
extern const char user_space_stack[];
void user_space_name(struct user_space *space, uint64_t gva, const char *name);
// The lines of /proc/self/maps.
void user_space_print(struct user_space *space, FILE *out);

// ---- Guest memory (memory.c) --------------------------------------------------------------------

// Guest memory for a host system call: [gva, gva+bytes) lies within the flat space, never in the
// monitor's memory. *hva may still fault: then the host's kernel says EFAULT itself. Never to be
// dereferenced here. 0 or -EFAULT.
int user_buffer(struct user_thread *thread, uint64_t gva, uint64_t bytes, enum hart_access access,
                void **hva);
// A copy of the string, valid until the thread asks for USER_STRINGS more. 0, -EFAULT or
// -ENAMETOOLONG (PATH_MAX).
int user_string(struct user_thread *thread, uint64_t gva, const char **text);
// Structures that the monitor itself reads or writes are copied. 0 or -EFAULT; on failure a part
// may have been copied.
int user_copy_in(struct user_thread *thread, void *to, uint64_t gva, size_t bytes);
int user_copy_out(struct user_thread *thread, uint64_t gva, const void *from, size_t bytes);
// The same for hosts' addresses, whose pages may vanish. 0 or -EFAULT.
int user_copy(void *to, const void *from, size_t bytes);
// The length of a string, which is copied with its end. -EFAULT or -ENAMETOOLONG (bytes_max).
int64_t user_copy_string(struct user_thread *thread, char *to, uint64_t gva, size_t bytes_max);
// Compare and swap of an aligned word. 0, -EAGAIN with what was there in *expected, or -EFAULT.
int user_swap(struct user_thread *thread, uint64_t gva, uint32_t *expected, uint32_t wanted);
// PATH_MAX bytes, valid until the thread asks for USER_STRINGS more strings.
char *user_string_buffer(struct user_thread *thread);
// Before any of these: has faults in them expected. 0 or what sigaction said.
BASE_NODISCARD int user_memory_init(void);

// ---- Paths (path.c) -----------------------------------------------------------------------------

// The path by which the calling thread, which may have descriptors of its own, opens again what one
// of them stands for.
#define USER_LINK_BYTES 40
void user_descriptor_link(int fd, char link[static USER_LINK_BYTES]);
// The length of the path of what it stands for, which ends with 0, or a negative errno.
int64_t user_descriptor_path(int fd, char path[static PATH_MAX]);

enum user_path_use {
    USER_PATH_READ,           // an existing file or folder is looked at, or executed
    USER_PATH_READ_NOFOLLOW,  // the same, but a symbolic link at its end is not followed
    USER_PATH_WRITE,          // anything is created, written to or changed
};
// The host's path for a path of the program that a system call is to take, from user_string: below
// the sysroot where it is absolute, only read, and there. Valid as user_string's is.
const char *user_path(struct user_thread *thread, const char *path, enum user_path_use use);
// Whether the sysroot (or NULL) has it: then its path of the host is in `out`.
bool user_path_below(const char *sysroot, const char *path, bool follow, char out[static PATH_MAX]);

// ---- Programs (elf.c, program.c, load.c) --------------------------------------------------------

#define USER_ELF_SEGMENTS_MAX 64

struct user_elf_segment {
    uint64_t gva, bytes;  // as linked
    uint64_t offset, file_bytes;
    int protection;  // PROT_*
};

// What an ELF program says of itself, checked.
struct user_elf {
    bool moves;          // may be loaded anywhere (ET_DYN): addresses are relative
    uint64_t entry;      // gva
    uint64_t low, high;  // of the segments, whole pages
    int stack;           // protection of the stack, PROT_*
    uint64_t headers;    // gva of the program headers, 0: in no segment
    unsigned header_count;
    unsigned segment_count;
    struct user_elf_segment segments[USER_ELF_SEGMENTS_MAX];  // ascending, of no common page
                                                              // unless files' pages are shared
    char interpreter[PATH_MAX];                               // or ""
};

// Reads the headers. 0, or -ENOEXEC, -EIO, ... with *err set.
BASE_NODISCARD int user_elf_read(struct user_elf *elf, int fd, const char *path, struct error *err);

// What is to be executed: a riscv64 program, or else something for the host's kernel.
struct user_program {
    bool hosts;
    int fd;       // open for reading; -1 where it is the host's
    char *path;   // of what was given, or a script's interpreter; the host's
    char **argv;  // with a script's interpreter before it; ends with NULL
};
// Finds what `path` is, by way of scripts' first lines, below the sysroot first. `fd`: open at it,
// and kept open, or -1. 0, or a negative errno as of execve(2), with *err set.
BASE_NODISCARD int user_program_find(struct user_program *out, const char *sysroot,
                                     const char *path, int fd, char *const *argv,
                                     struct error *err);
void user_program_fini(struct user_program *program);
size_t user_texts_count(char *const *texts);  // before the NULL
// A regular file that may be executed, open for reading; `fd`, which is taken over, or -1. The
// descriptor, or a negative errno as of execve(2), with *err set.
BASE_NODISCARD int user_program_open(const char *path, int fd, struct error *err);

// Maps the program and its interpreter and makes the stack; sets pc and sp of the thread's hart.
// 0, or a negative errno with *err set.
BASE_NODISCARD int user_load(struct user_thread *thread, const struct user_program *program,
                             const char *name, char *const *envp, struct error *err);

// ---- Processes and threads (process.c, thread.c) ------------------------------------------------

// rt_sigaction's structure of the program's kernel.
struct user_action {
    uint64_t handler, flags, mask;
};

struct user_process {
    const struct user_watch *watch;  // or NULL
    struct user_space space;
    struct hart_flat flat;
    const struct hart_engine *engine;
    char *sysroot;      // resolved, or NULL
    char *exe;          // the program's path, resolved: what /proc/self/exe is
    char **argv;        // as it was started: /proc/self/cmdline
    char *const *envp;  // and /proc/self/environ
    uint64_t auxv[2 * 24];
    size_t auxv_words;
    uint64_t trampoline;  // gva of the instructions that a handler returns to
    uint64_t stack_top;   // gva of the first thread's stack's end

    pthread_mutex_t lock;  // of what follows
    struct list threads;   // user_thread.node
    unsigned thread_count;
    unsigned harts_created;  // the next one's number
    struct user_action actions[USER_SIGNALS + 1];

    // Bit n: what user_call_report calls n has been reported.
    _Atomic uint64_t reported[USER_REPORTS_MAX / 64];

    struct user_debug *debug;  // or NULL

    // Held while harts are fenced, and by a thread that takes its hart out of `threads`.
    pthread_mutex_t fence_lock;

    // See user_process_pause: who pauses the others, or NULL.
    pthread_mutex_t pause_lock;  // of what `pause_ended` is about
    pthread_cond_t pause_ended;
    _Atomic(struct user_thread *) pauser;
};

// What a thread does once its hart has left the engine, instead of in the hook: what returns twice,
// or never, or is for a debugger.
enum user_leave { USER_STAY, USER_LEAVE_FORK, USER_LEAVE_EXIT, USER_LEAVE_STOP };

// What clone and clone3 ask for.
struct user_clone {
    uint64_t flags;                              // without the signal
    uint64_t pidfd, child_tid, parent_tid, tls;  // guest addresses, used as flags say
    uint64_t exit_signal;
    uint64_t sp;  // 0: the caller's
};

// Descriptors [first, last] that a thread is opening or closing; see descriptors.c.
enum user_claim_kind { USER_CLAIM_NONE, USER_CLAIM_OPEN, USER_CLAIM_CLOSE };
struct user_claim {
    enum user_claim_kind kind;
    unsigned first, last;
};

// What a debugger has of a thread, see debug.c.
struct user_traced {
    int id;               // as `tid` and `hart`, which a vfork's child has others of; 0, NULL: the
    struct hart *hart;    // thread has not begun
    bool waits;           // it does not execute before the debugger lets it
    bool calls;           // so it does in a call of the host's: its registers are as at the call
    bool held;            // it is not to go on though others do
    bool step, stepped;   // it is to, for one instruction; it has, with the call
    bool hit;             // it has stopped by itself, which is to be told
    bool again;           // and does so again when it is let go on
    unsigned deliver;     // a signal, 0: none
    unsigned generation;  // of the breakpoints that its hart has
    siginfo_t info;       // why it stopped
    char *said;           // for the debugger's user, or NULL
};

// What execve was given and made of it; see execute.c.
struct user_execution;

struct user_thread {
    struct list node;
    struct user_process *process;
    struct hart *hart;
    int tid;  // the host's
    // A vfork's child, in its parent's memory, in which this struct is, too; or one's child.
    unsigned borrows;

    enum user_leave leave;
    struct user_clone clone;           // of USER_LEAVE_FORK
    int status;                        // of USER_LEAVE_EXIT
    struct user_execution *execution;  // that is being tried, or NULL

    void *watched;           // the watch's own
    const char *call;        // that is being made, or NULL
    enum hart_access fault;  // of the instruction that is being handled
    atomic_bool outside;     // it does not execute, and passes user_thread_wait_end before it does

    struct user_traced traced;

    uint64_t clear_tid;  // gva, see set_tid_address(2); 0: none
    uint64_t robust_list;

    // Signals, see signal.c.
    uint64_t blocked;         // bit n - 1: signal n, as the program sees it
    uint64_t blocked_before;  // the call that was interrupted, which waited with another mask
    bool waited;              // there is such a call, and no handler's frame has that yet
    stack_t altstack;
    volatile sig_atomic_t caught;  // a signal is in `caught_info`, all others are blocked
    siginfo_t caught_info;

    struct user_claim claim;  // under the process' lock

    unsigned next_string;
    char strings[USER_STRINGS][PATH_MAX];
};

// Its locks, and no threads.
void user_process_init(struct user_process *process);
void user_thread_set_current(struct user_thread *thread);
// Has all harts do fences, see hart_fence_remote. On a thread of the program, without locks.
void user_process_fence(struct user_process *process, unsigned fences);
// A thread of the process, with a hart, in the list. NULL: *err says why.
struct user_thread *user_thread_create(struct user_process *process, struct error *err);
// False: it is the only one, and stays.
bool user_thread_destroy(struct user_thread *thread);
// A thread of the host that nobody waits for. 0 or -errno.
BASE_NODISCARD int user_host_thread_start(void *(*run)(void *opaque), void *opaque);
// All registers and pc; and what a clone asks to be other ones.
void user_registers_copy(struct hart *to, const struct hart *from);
void user_clone_set_registers(const struct user_clone *clone, struct hart *hart);
// Runs the thread until it, or the process, ends.
_Noreturn void user_thread_run(struct user_thread *thread);
// Has the call that is being made go on in user_thread_run; what it is to return.
int64_t user_thread_leave(struct user_thread *thread, enum user_leave leave);
// What is done there: a child's id, 0 in the child, or a negative errno;
int64_t user_fork(struct user_thread *thread);
// and a thread's end, first as others see it (robust futexes, set_tid_address).
_Noreturn void user_thread_end(struct user_thread *thread);
// The process is about to end, on this thread: robust futexes of all threads are given up.
void user_process_give_up(struct user_thread *thread);
// Frees what the execve of a child left that had borrowed the memory, if anything.
void user_execution_drop(struct user_thread *thread);

// ---- Signals (signal.c) -------------------------------------------------------------------------

// A system call of the host that may block: interrupted by a signal that the program handles as
// Linux would. Value or -errno; -USER_RESTART is to be returned as it is: the program makes its
// call again after the handler, unless Linux says EINTR.
int64_t user_host_call(struct user_thread *thread, long number, uint64_t a, uint64_t b, uint64_t c,
                       uint64_t d, uint64_t e, uint64_t f);
// A call waited with a mask of signals of its own. Handlers of what has interrupted it begin with
// that, and return to the thread's. `result` is the call's, and returned.
int64_t user_signal_waited(struct user_thread *thread, uint64_t mask, int64_t result);
// A signal that the program's own instruction raised; `code` is si_code. Ends the process where the
// program does not handle it.
void user_signal_force(struct user_thread *thread, int signal, int code, uint64_t address);
// Runs the program's handler of what was caught, if something was.
void user_signal_deliver(struct user_thread *thread);
// Before the program runs, and before anything else handles faults: takes over what is ignored and
// blocked.
BASE_NODISCARD int user_signal_init(struct user_thread *thread);
// Blocks all signals for the host; false: one was caught before, and is to be delivered first.
bool user_signal_hold(struct user_thread *thread);
// Has the host block what the program does (unless one was caught, until that is delivered).
void user_signal_release(struct user_thread *thread);
// In a child: all that are handled are not any more (CLONE_CLEAR_SIGHAND).
void user_signal_reset(struct user_thread *thread);
// Ends the process as the signal does that nobody handles.
_Noreturn void user_signal_die(int signal);
// Runs the program's handler of a signal, or does what else is to be done.
void user_signal_take(struct user_thread *thread, int signal);
// Whether it ends a process that leaves it alone.
bool user_signal_kills(int signal);
// Has the host do with signals as the program, and its debugger, want it.
void user_signal_set_actions(struct user_process *process);
// Ends the process as the program wants it, unless who watches has something to add.
_Noreturn void user_process_exit(struct user_thread *thread, int status);

// ---- Debugging (debug.c, debugger.c) ------------------------------------------------------------
//
// All do nothing where nobody debugs the process.

// On the first thread, before it runs: a debugger is served that connects to the address (see
// gdb_listen). No thread runs before it lets them. 0, or a negative errno with *err set.
BASE_NODISCARD int user_debug_start(struct user_thread *thread, const char *address,
                                    struct error *err);
// Before the hart runs: waits while the program is stopped.
void user_debug_pause(struct user_thread *thread);
// The hart has left the engine, and all is done that it left for; `stopped`: for user_thread_stop.
void user_debug_left(struct user_thread *thread, enum hart_exit why, bool stopped);
// The instruction at the hart's pc cannot be executed: whether a debugger has a breakpoint there,
// as where functions return to that it calls. Then it has the thread.
bool user_debug_breaks(struct user_thread *thread);
// A signal is about to be delivered. The one to be delivered instead, 0: none.
int user_debug_signal(struct user_thread *thread, const siginfo_t *info);
// Around what may take long; true: it is to be ended.
bool user_debug_call_begin(struct user_thread *thread);
void user_debug_call_end(struct user_thread *thread);
// Whether a signal that the program leaves alone is caught nevertheless.
bool user_debug_catches(const struct user_process *process, int signal);
// The process is about to end; in a fork's child. The thread, which is in the list no more, has
// ended; under the process' lock.
void user_debug_end(struct user_thread *thread, bool by_signal, int status);
void user_debug_forked(struct user_thread *thread);
void user_debug_thread_ended(struct user_process *process, const struct user_thread *thread);

// ---- System calls (calls.c) ---------------------------------------------------------------------

// Makes a call of the program: its value, a negative errno, or -USER_RESTART.
int64_t user_call_make(struct user_thread *thread, uint64_t number, const uint64_t arguments[6]);

// ---- System calls of these files, for the table in calls.c --------------------------------------

// clang-format off
#define USER_CALLS_OF_PROCESS(CALL)                                                                \
    CALL(215, munmap) CALL(222, mmap) CALL(226, mprotect) CALL(216, mremap) CALL(233, madvise)     \
    CALL(227, msync) CALL(232, mincore) CALL(228, mlock) CALL(229, munlock) CALL(230, mlockall)    \
    CALL(231, munlockall) CALL(284, mlock2) CALL(214, brk) CALL(196, shmat) CALL(197, shmdt)       \
    CALL(220, clone) CALL(435, clone3) CALL(221, execve) CALL(281, execveat) CALL(93, exit)        \
    CALL(94, exit_group) CALL(96, set_tid_address) CALL(98, futex) CALL(449, futex_waitv)          \
    CALL(454, futex_wake) CALL(456, futex_requeue) CALL(99, set_robust_list)                       \
    CALL(100, get_robust_list) CALL(129, kill) CALL(130, tkill) CALL(131, tgkill)                  \
    CALL(132, sigaltstack) CALL(133, rt_sigsuspend) CALL(134, rt_sigaction)                        \
    CALL(135, rt_sigprocmask) CALL(139, rt_sigreturn)
// clang-format on

#define USER_CALL_DECLARE(number, name)                                                            \
    int64_t user_##name(struct user_thread *thread, const uint64_t arguments[6]);
USER_CALLS_OF_PROCESS(USER_CALL_DECLARE)

#endif
