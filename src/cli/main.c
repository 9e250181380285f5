// SPDX-License-Identifier: BSD-2-Clause
// The table of subcommands.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

static const struct cli_command cli_help, cli_version;

const struct cli_command *const cli_commands[] = {
    &cli_run,     &cli_daemon,     &cli_create,   &cli_start,    &cli_stop,        &cli_kill,
    &cli_pause,   &cli_resume,     &cli_restart,  &cli_list,     &cli_show,        &cli_console,
    &cli_logs,    &cli_stats,      &cli_handover, &cli_remove,   &cli_snapshot,    &cli_restore,
    &cli_inspect, &cli_package,    &cli_update,   &cli_leverage, &cli_mount,       &cli_umount,
    &cli_user,    &cli_check,      &cli_monitor,  &cli_usernet,  &cli_interceptor, &cli_help,
    &cli_version, &cli_completion, NULL};

static const struct cli_command *find_command(const char *name)
{
    for (size_t i = 0; cli_commands[i]; i++)
        if (strcmp(cli_commands[i]->name, name) == 0)
            return cli_commands[i];
    return NULL;
}

static int unknown_command(const char *name)
{
    fprintf(stderr, "strake: there is no command \"%s\" (see: strake help)\n", name);
    return CLI_EXIT_USAGE;
}

static void print_overview(FILE *to)
{
    fprintf(to, "Usage: strake COMMAND [ARGUMENTS]\n\n"
                "A virtual machine monitor that runs RISC-V guests on any Linux host.\n\n"
                "Commands:\n");
    for (size_t i = 0; cli_commands[i]; i++)
        if (!cli_commands[i]->internal)
            fprintf(to, "  %-10s %s\n", cli_commands[i]->name, cli_commands[i]->summary);
    fprintf(to, "\nstrake help COMMAND tells more of each.\n");
}

static int run_help(const struct cli_command *command, int argc, char **argv)
{
    (void)command;
    if (argc < 2) {
        print_overview(stdout);
        return CLI_EXIT_OK;
    }
    const struct cli_command *asked = find_command(argv[1]);
    if (!asked)
        return unknown_command(argv[1]);
    cli_print_help(asked);
    return CLI_EXIT_OK;
}

static int run_version(const struct cli_command *command, int argc, char **argv)
{
    (void)command;
    (void)argc;
    (void)argv;
    printf("strake %s\n", STRAKE_VERSION);
    return CLI_EXIT_OK;
}

static const struct cli_command cli_help = {
    .name = "help", .usage = "[COMMAND]", .summary = "Show what a command does", .run = run_help};

static const struct cli_command cli_version = {
    .name = "version", .usage = "", .summary = "Show the version", .run = run_version};

// A standard stream that was closed is /dev/null: or a disk would be opened in its place, and
// written to as the guest's console.
static int open_missing_streams(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    return fd < 0 ? -1 : close(fd);
}

static const struct cli_command *command_of(const char *name)
{
    if (strcmp(name, "--version") == 0)
        return &cli_version;
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        return &cli_help;
    return find_command(name);
}

static int prepare(void)
{
    if (open_missing_streams() < 0) {
        fprintf(stderr, "strake: cannot open \"/dev/null\": %s\n", strerror(errno));
        return CLI_EXIT_FAILED;
    }
    // A reader that goes away (of a console, of a socket) shows as EPIPE where it is written to, a
    // limit on the size of files, guest RAM among them, as EFBIG.
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    return CLI_EXIT_OK;
}

int main(int argc, char **argv)
{
    const struct cli_command *command = argc < 2 ? NULL : command_of(argv[1]);
    if (!(command && command->becomes_program) && prepare() != CLI_EXIT_OK)
        return CLI_EXIT_FAILED;
    if (argc < 2) {
        print_overview(stderr);
        return CLI_EXIT_USAGE;
    }
    int status = command ? command->run(command, argc - 1, argv + 1) : unknown_command(argv[1]);
    if (fflush(stdout) != 0 && status == CLI_EXIT_OK) {
        fprintf(stderr, "strake: cannot write to standard output: %s\n", strerror(errno));
        status = CLI_EXIT_FAILED;
    }
    return status;
}
