// SPDX-License-Identifier: BSD-2-Clause
// Programs that are to be monitors: copies that nobody can change, and whether they run guests.
// Private to this room.
#ifndef STRAKE_SUPERVISOR_PROGRAM_H
#define STRAKE_SUPERVISOR_PROGRAM_H

#include <sys/types.h>

#include "base/base.h"

// A copy of a program in sealed memory: what is executed is what was there now, whatever becomes of
// the file. One that is sealed already is not copied. A descriptor, or a negative errno with *err
// set. `fd` stays the caller's.
BASE_NODISCARD int program_seal(int fd, struct error *err);

// What a process executes, also when its file is gone; likewise.
BASE_NODISCARD int program_of(pid_t pid, struct error *err);

// ---- Self-tests ---------------------------------------------------------------------------------
//
// `strake monitor --self-test` of a program, as a process of its own: it confines itself as
// monitors do. Its time, its memory and what it prints are bounded. Threads: the loop's.

struct program_facts {
    char version[32];
    unsigned epoch;                       // security epoch
    unsigned state_oldest, state_newest;  // sets of states that it can load: state.h
};

struct program_test;

// `err` NULL: it runs guests, and *facts is what it says of itself. Else one sentence of why not.
typedef void program_tested(void *opaque, const struct program_facts *facts,
                            const struct error *err);

// `program_fd`, a sealed one, stays the caller's. `done` is called once, never before this returns;
// the test is gone then.
BASE_NODISCARD int program_test_begin(struct program_test **out, struct loop *loop, int program_fd,
                                      unsigned timeout_ms, program_tested *done, void *opaque,
                                      struct error *err);
void program_test_cancel(struct program_test *test);  // `done` is not called. NULL is ignored

#endif
