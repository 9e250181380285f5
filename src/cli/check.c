// SPDX-License-Identifier: BSD-2-Clause
// strake check: a riscv64 Linux program, run with each of its memory accesses checked.
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check/check.h"
#include "cli/client.h"
#include "cli/program.h"
#include "monitor/monitor.h"

#define MACHINE_MEMORY_BYTES (128ull << 20)
#define LISTED_MAX 64  // of an option that may be given several times

struct list_option {
    const char *values[LISTED_MAX];
    size_t count;
};

struct check_command {
    struct program_command program;  // the first: see PROGRAM_OPTIONS
    enum check_format format;
    unsigned report_fd;
    const char *report_file;
    bool go_on, suggest;
    enum checker_leaks leaks;
    struct list_option suppressions, allocators;
    const char *machine;  // NULL: it is a program of Linux
    uint64_t memory_bytes;
    unsigned cpus;
};

// Values that are one of some words.
static const char *const formats[] = {[CHECK_FORMAT_TEXT] = "text",
                                      [CHECK_FORMAT_JSON] = "json",
                                      [CHECK_FORMAT_SARIF] = "sarif",
                                      [CHECK_FORMAT_HTML] = "html",
                                      NULL};
static const char *const leaks[] = {[CHECKER_LEAKS_NO] = "no",
                                    [CHECKER_LEAKS_DEFINITE] = "definite",
                                    [CHECKER_LEAKS_FULL] = "full",
                                    [CHECKER_LEAKS_OWN] = "own",
                                    NULL};
static const char *const machines[] = {"virt", "virt-supervisor", NULL};

static int parse_format(void *target, const char *value, struct error *err)
{
    int rc = key_find_word(formats, value, err);
    if (rc >= 0)
        *(enum check_format *)target = (enum check_format)rc;
    return rc < 0 ? rc : 0;
}

static int parse_leaks(void *target, const char *value, struct error *err)
{
    int rc = key_find_word(leaks, value, err);
    if (rc >= 0)
        *(enum checker_leaks *)target = (enum checker_leaks)rc;
    return rc < 0 ? rc : 0;
}

static int parse_machine(void *target, const char *value, struct error *err)
{
    int rc = key_find_word(machines, value, err);
    if (rc >= 0)
        *(const char **)target = machines[rc];
    return rc < 0 ? rc : 0;
}

static int parse_listed(void *target, const char *value, struct error *err)
{
    struct list_option *list = target;
    if (list->count == LISTED_MAX)
        return error_set(err, -E2BIG, "it is given more than %d times", LISTED_MAX);
    list->values[list->count++] = value;
    return 0;
}

// Descriptors other than the streams are known to who passes them only.
static int parse_fd(void *target, const char *value, struct error *err)
{
    int rc = cli_parse_unsigned(target, value, err);
    if (rc == 0 && (*(unsigned *)target > INT_MAX || fcntl((int)*(unsigned *)target, F_GETFD) < 0))
        rc = error_set(err, -EBADF, "it is not open");
    return rc;
}

static int set_halt(void *options, const char *name, const char *value, struct error *err)
{
    struct check_command *command = options;
    (void)value;
    (void)err;
    command->go_on = strcmp(name, "no-halt") == 0;
    return 0;
}

#define OPTION(name_, value_, help_, parse_, member_)                                              \
    {                                                                                              \
        .name = name_, .value = value_, .help = help_, .parse = parse_,                            \
        .offset = offsetof(struct check_command, member_)                                          \
    }

static const struct cli_option options[] = {
    PROGRAM_OPTIONS,
    OPTION("report", "text|json|sarif|html", "the reports' format (default text)", parse_format,
           format),
    OPTION("report-fd", "FD", "the descriptor that reports are written to (default 2)", parse_fd,
           report_fd),
    OPTION("report-file", "FILE",
           "the file that reports are appended to instead; %p in its name is the "
           "process' id",
           cli_parse_string, report_file),
    {.name = "halt-on-error",
     .help = "end the program at the first report, with status 99 (the default)",
     .set = set_halt},
    {.name = "no-halt",
     .help = "go on after reports; the program's end has status 99 then",
     .set = set_halt},
    OPTION("leaks", "own|full|definite|no",
           "which leaks are reported at the end; own: those of programs that are not "
           "installed in /usr/bin, /usr/lib, /bin, /lib and the like (default own)",
           parse_leaks, leaks),
    OPTION("suppressions", "FILE",
           "what is known and not to be reported, see docs/check-reports.md; may be "
           "given several times",
           parse_listed, suppressions),
    OPTION("suggest", NULL, "say with each report how it would be suppressed", cli_parse_flag,
           suggest),
    OPTION("allocator", "alloc=NAME,free=NAME",
           "functions of the program that allocate and free; may be given several "
           "times, see docs/check.md",
           parse_listed, allocators),
    OPTION(
        "machine", "virt|virt-supervisor",
        "the program is bare-metal, an ELF file: run it on the emulated board, from machine mode "
        "on, or from supervisor mode on the built-in SBI; see docs/firmware.md",
        parse_machine, machine),
    OPTION("memory", "SIZE", "the board's RAM (default 128M)", cli_parse_bytes, memory_bytes),
    OPTION("cpus", "N", "the board's harts (default 1)", cli_parse_unsigned, cpus),
    {0},
};

// ---- For what the program executes --------------------------------------------------------------

#define TEXTS_MAX (8 + 2 * LISTED_MAX)

struct texts {
    const char *texts[TEXTS_MAX];
    size_t count;
};

static void add_option(struct texts *texts, const char *name, const char *value)
{
    char *text = NULL;
    if (asprintf(&text, value ? "--%s=%s" : "--%s", name, value) >= 0)
        texts->texts[texts->count++] = text;
}

// The same options again, but for those that every program has.
static void make_command(struct texts *texts, const struct check_command *given)
{
    char fd[12];

    texts->texts[texts->count++] = "check";
    add_option(texts, "report", formats[given->format]);
    add_option(texts, "leaks", leaks[given->leaks]);
    snprintf(fd, sizeof(fd), "%u", given->report_fd);
    if (given->report_file)
        add_option(texts, "report-file", given->report_file);
    else if (given->report_fd != STDERR_FILENO)
        add_option(texts, "report-fd", fd);
    if (given->go_on)
        add_option(texts, "no-halt", NULL);
    if (given->suggest)
        add_option(texts, "suggest", NULL);
    for (size_t i = 0; i < given->suppressions.count; i++)
        add_option(texts, "suppressions", given->suppressions.values[i]);
    for (size_t i = 0; i < given->allocators.count; i++)
        add_option(texts, "allocator", given->allocators.values[i]);
}

static int make_path_absolute(const char **path, struct error *err)
{
    char *absolute;
    int rc = client_absolute_path(&absolute, *path, err);
    if (rc == 0)
        *path = absolute;
    return rc;
}

// From everywhere: programs change their folder.
static int make_absolute(struct check_command *given, struct error *err)
{
    int rc = given->report_file ? make_path_absolute(&given->report_file, err) : 0;
    for (size_t i = 0; rc == 0 && i < given->suppressions.count; i++)
        rc = make_path_absolute(&given->suppressions.values[i], err);
    return rc;
}

// A board has neither arguments and an environment for its program nor a debugger of this kind; a
// program of Linux has no board.
static int check_machine_options(const struct check_command *given,
                                 const struct check_program_options *to, struct error *err)
{
    const struct program_command *program = &given->program;
    const char *option = program->gdb              ? "--gdb"
                         : program->argv0          ? "--argv0"
                         : program->has_program_fd ? "--program-fd"
                         : program->has_env        ? "--env"
                                                   : NULL;

    if (!given->machine && (given->memory_bytes != MACHINE_MEMORY_BYTES || given->cpus != 1))
        return error_set(err, -EINVAL, "--memory and --cpus are of a board: see --machine");
    if (given->machine && to->user.argv[1])
        return error_set(err, -EINVAL, "\"%s\": a bare-metal program has no arguments",
                         to->user.argv[1]);
    if (given->machine && option)
        return error_set(err, -EINVAL, "%s is not for bare-metal programs", option);
    return 0;
}

static int run_machine(const struct check_command *given, const struct check_program_options *to)
{
    const struct check_firmware_options board = {.path = to->user.program,
                                                 .supervisor = given->machine == machines[1],
                                                 .engine = to->user.engine,
                                                 .memory_bytes = given->memory_bytes,
                                                 .cpus = given->cpus,
                                                 .checker = to->checker};
    struct error err = {0};
    int status;

    return check_firmware_run(&board, &status, &err) < 0 ? cli_failed(&err) : status;
}

static int run(const struct cli_command *command, int argc, char **argv)
{
    struct check_command given = {.report_fd = STDERR_FILENO,
                                  .leaks = CHECKER_LEAKS_OWN,
                                  .memory_bytes = MACHINE_MEMORY_BYTES,
                                  .cpus = 1};
    struct check_program_options to = {0};
    struct texts texts = {0};
    struct error err = {0};

    int rc = program_parse(command, argc, argv, &given.program, &to.user, &err);
    if (rc != 0)
        return rc < 0 ? cli_misused(command, &err) : CLI_EXIT_OK;
    if (check_machine_options(&given, &to, &err) < 0)
        return cli_misused(command, &err);
    if (make_absolute(&given, &err) < 0)
        return cli_failed(&err);
    make_command(&texts, &given);
    to.command = texts.texts;
    to.command_count = texts.count;
    to.checker = (struct checker_options){.format = given.format,
                                          .fd = (int)given.report_fd,
                                          .file = given.report_file,
                                          .program = to.user.program,
                                          .sysroot = to.user.sysroot,
                                          .go_on = given.go_on,
                                          .suggest = given.suggest,
                                          .leaks = given.leaks,
                                          .suppressions = given.suppressions.values,
                                          .suppressions_count = given.suppressions.count,
                                          .allocators = given.allocators.values,
                                          .allocators_count = given.allocators.count,
                                          .executed = given.program.has_program_fd};
    if (given.machine)
        return run_machine(&given, &to);
    (void)!check_program_run(&to, &err);
    return cli_failed(&err);
}

const struct cli_command cli_check = {
    .name = "check",
    .usage = "[OPTIONS] PROGRAM [ARGUMENTS]",
    .summary = "Run a riscv64 Linux program and report its errors of memory",
    .details = "As 'strake user', and every access to memory is held to the object that its "
               "pointer belongs to: the first that is not is reported, and ends the program "
               "with status 99. The program needs no recompiling; with debug information "
               "reports have files and lines. See docs/check.md.",
    .options = options,
    .becomes_program = true,
    .run = run,
};
