// SPDX-License-Identifier: BSD-2-Clause
// cli: the command line. main.c holds the one table of subcommands; each has a file of its own, and
// its options are one table from which both the parsing and the help come. Only this room exits.
#ifndef STRAKE_CLI_H
#define STRAKE_CLI_H

#include "base/base.h"

enum { CLI_EXIT_OK = 0, CLI_EXIT_FAILED = 1, CLI_EXIT_USAGE = 2 };

struct cli_option {
    const char *name;   // without the dashes
    const char *value;  // what the value is called in the help; NULL: the option takes none;
                        // "[=NAME]": it may be left out
    const char *help;   // one sentence, which is broken into lines where it is shown
    // Takes the value ("" for none) into `target`. 0, or a negative errno with *err saying what is
    // wrong with the value.
    int (*parse)(void *target, const char *value, struct error *err);
    size_t offset;  // of `target` within the command's options struct
    // Instead of `parse`, for options that are handled by name: gets the whole struct.
    int (*set)(void *options, const char *name, const char *value, struct error *err);
    char letter;  // the same with one dash; 0: none
};

struct cli_command {
    const char *name;
    const char *usage;    // what follows the name
    const char *summary;  // one line, without a full stop
    const char *details;  // further paragraphs for `strake help NAME`, may be NULL
    bool internal;        // a role that strake starts itself: not in the overview
    // This process becomes a program's that it is given: the first argument that is no option ends
    // the options, and streams and signals stay as they were.
    bool becomes_program;
    const struct cli_option *options;  // ends with a NULL name; NULL: none
    int (*run)(const struct cli_command *command, int argc,
               char **argv);  // returns the exit status
};

// One a file, or a table in a file.
extern const struct cli_command cli_run, cli_monitor, cli_usernet, cli_interceptor, cli_inspect,
    cli_daemon, cli_create, cli_start, cli_stop, cli_kill, cli_pause, cli_resume, cli_restart,
    cli_handover, cli_remove, cli_snapshot, cli_restore, cli_list, cli_show, cli_stats, cli_console,
    cli_logs, cli_package, cli_update, cli_leverage, cli_mount, cli_umount, cli_user, cli_check,
    cli_completion;
// All of them; ends with NULL.
extern const struct cli_command *const cli_commands[];

// Parses argv[1...] into the struct at `options`. Returns the index of the first argument that is
// no option, or -EINVAL with *err set. "--help" is an option of every command: it prints the help
// and returns argc + 1.
int cli_parse(const struct cli_command *command, int argc, char **argv, void *options,
              struct error *err);
void cli_print_help(const struct cli_command *command);

// Print "strake: MESSAGE" to stderr and return the exit status to use.
int cli_failed(const struct error *err);
int cli_misused(const struct cli_command *command, const struct error *err);

// Value parsers; `target` is the type named.
int cli_parse_flag(void *target, const char *value, struct error *err);      // bool: set
int cli_parse_string(void *target, const char *value, struct error *err);    // const char *
int cli_parse_unsigned(void *target, const char *value, struct error *err);  // unsigned
// uint64_t bytes from "512M", "2G", "65536K"; a plain number is MiB. UINT64_MAX stands for all that
// is larger: the range is checked, and named, where the value is used.
int cli_parse_bytes(void *target, const char *value, struct error *err);
int cli_parse_log_level(void *target, const char *value, struct error *err);  // sets it at once

#endif
