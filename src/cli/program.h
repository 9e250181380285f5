// SPDX-License-Identifier: BSD-2-Clause
// What `strake user` and `strake check` have in common: a program of riscv64 Linux to be run.
#ifndef STRAKE_CLI_PROGRAM_H
#define STRAKE_CLI_PROGRAM_H

#include "cli/cli.h"
#include "jit/jit.h"
#include "user/user.h"

#define PROGRAM_SYSROOT "/usr/riscv64-linux-gnu"  // of Debian's cross compiler

// The first member of the command's options.
struct program_command {
    const struct hart_engine *engine;
    const char *sysroot, *argv0, *gdb;
    unsigned program_fd;
    bool has_program_fd, has_env;
};

// Rows of a table of options.
#define PROGRAM_OPTIONS                                                                            \
    {.name = "sysroot",                                                                            \
     .letter = 'L',                                                                                \
     .value = "DIR",                                                                               \
     .help = "the folder in which the program's libraries are, and files that it "                 \
             "reads are looked for first; \"\": none (default " PROGRAM_SYSROOT ", if there)",     \
     .parse = program_parse_text,                                                                  \
     .offset = offsetof(struct program_command, sysroot)},                                         \
        {.name = "engine",                                                                         \
         .value = "interp|jit",                                                                    \
         .help = "what executes it (default jit)",                                                 \
         .parse = program_parse_engine,                                                            \
         .offset = offsetof(struct program_command, engine)},                                      \
        {.name = "env",                                                                            \
         .value = "NAME=VALUE",                                                                    \
         .help = "in the program's environment, beside that of strake",                            \
         .set = program_set_environment},                                                          \
        {.name = "gdb",                                                                            \
         .value = "ADDR:PORT",                                                                     \
         .help = "wait there, or at a path with a /, for a debugger before starting",              \
         .parse = cli_parse_string,                                                                \
         .offset = offsetof(struct program_command, gdb)},                                         \
        {.name = "argv0",                                                                          \
         .value = "NAME",                                                                          \
         .help = "what the program finds as its own name (default PROGRAM)",                       \
         .parse = program_parse_text,                                                              \
         .offset = offsetof(struct program_command, argv0)},                                       \
    {                                                                                              \
        .name = "program-fd", .value = "FD",                                                       \
        .help = "the program's file, open at this descriptor, which is closed",                    \
        .set = program_set_fd                                                                      \
    }

int program_parse_text(void *target, const char *value, struct error *err);
int program_parse_engine(void *target, const char *value, struct error *err);
int program_set_environment(void *options, const char *name, const char *value, struct error *err);
int program_set_fd(void *options, const char *name, const char *value, struct error *err);

// Parses all arguments into the command's options, `given`, and says what is to be run. 0; 1: there
// is nothing to do; or a negative errno with *err.
int program_parse(const struct cli_command *command, int argc, char **argv,
                  struct program_command *given, struct user_options *to, struct error *err);

#endif
