// SPDX-License-Identifier: BSD-2-Clause
// strake user: a riscv64 Linux program, run in this process.
#include "cli/program.h"

static const struct cli_option options[] = {PROGRAM_OPTIONS, {0}};

static int run(const struct cli_command *command, int argc, char **argv)
{
    struct program_command given = {0};
    struct user_options to;
    struct error err = {0};

    int rc = program_parse(command, argc, argv, &given, &to, &err);
    if (rc != 0)
        return rc < 0 ? cli_misused(command, &err) : CLI_EXIT_OK;
    (void)!user_run(&to, &err);
    return cli_failed(&err);
}

const struct cli_command cli_user = {
    .name = "user",
    .usage = "[OPTIONS] PROGRAM [ARGUMENTS]",
    .summary = "Run a riscv64 Linux program",
    .details = "The program is an ELF file, or a script whose interpreter is one, given by its "
               "path. It runs as if it had been started itself: arguments, environment, open "
               "files, signals and its exit status are its own. See docs/user.md.",
    .options = options,
    .becomes_program = true,
    .run = run,
};
