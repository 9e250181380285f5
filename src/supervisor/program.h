// SPDX-License-Identifier: BSD-2-Clause
// Programs that are to be monitors: copies that nobody can change. Private to this room.
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

#endif
