// SPDX-License-Identifier: BSD-2-Clause
// A checked program of Linux: room user runs it, the checker watches.
#ifndef STRAKE_CHECK_PROGRAM_H
#define STRAKE_CHECK_PROGRAM_H

#include "check/checker.h"
#include "user/user.h"

struct check_program_options {
    struct checker_options checker;
    struct user_options user;    // without a watch
    const char *const *command;  // see struct user_watch
    size_t command_count;
};

// Runs the program, as user_run: returns only when it cannot be started.
BASE_NODISCARD int check_program_run(const struct check_program_options *options,
                                     struct error *err);

#endif
