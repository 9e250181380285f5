// SPDX-License-Identifier: BSD-2-Clause
// The options of all that run a program of riscv64 Linux.
#include "cli/program.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int program_parse_engine(void *target, const char *value, struct error *err)
{
    static const struct hart_engine *const engines[] = {&hart_engine_jit, &hart_engine_interp};
    for (size_t i = 0; i < BASE_COUNT_OF(engines); i++)
        if (strcmp(engines[i]->name, value) == 0) {
            *(const struct hart_engine **)target = engines[i];
            return 0;
        }
    return error_set(err, -EINVAL, "there are the engines interp and jit");
}

// Also the empty one: the program's own may be.
int program_parse_text(void *target, const char *value, struct error *err)
{
    (void)err;
    *(const char **)target = value;
    return 0;
}

int program_set_fd(void *options, const char *name, const char *value, struct error *err)
{
    struct program_command *command = options;
    (void)name;
    command->has_program_fd = true;
    return cli_parse_unsigned(&command->program_fd, value, err);
}

int program_set_environment(void *options, const char *name, const char *value, struct error *err)
{
    struct program_command *command = options;
    (void)name;
    command->has_env = true;
    const char *equals = strchr(value, '=');
    char *key = equals ? strndup(value, (size_t)(equals - value)) : NULL;
    int rc = key && *key ? setenv(key, equals + 1, true) : -1;
    free(key);
    return rc < 0 ? error_set(err, -EINVAL, "it is to be NAME=VALUE") : 0;
}

int program_parse(const struct cli_command *command, int argc, char **argv,
                  struct program_command *given, struct user_options *to, struct error *err)
{
    if (!given->engine)
        given->engine = &hart_engine_jit;
    if (access(PROGRAM_SYSROOT, R_OK | X_OK) == 0)
        given->sysroot = PROGRAM_SYSROOT;
    int first = cli_parse(command, argc, argv, given, err);
    if (first > argc)
        return 1;
    if (first == argc)
        first = error_set(err, -EINVAL, "there is no program given");
    if (first < 0)
        return first;
    const char *program = argv[first];
    if (given->argv0)
        argv[first] = (char *)(uintptr_t)given->argv0;
    *to =
        (struct user_options){.engine = given->engine,
                              .sysroot = given->sysroot && *given->sysroot ? given->sysroot : NULL,
                              .program = program,
                              .program_fd = given->has_program_fd ? (int)given->program_fd : -1,
                              .argv = argv + first,
                              .envp = environ,
                              .gdb = given->gdb};
    return 0;
}
