// SPDX-License-Identifier: BSD-2-Clause
// strake daemon: the supervisor of many partitions.
#include <errno.h>
#include <limits.h>
#include <stdio.h>

#include "cli/client.h"
#include "supervisor/supervisor.h"

#define RESTART_DELAY_MS_MAX 60000u  // 60 times that is an hour

struct daemon_options {
    const char *state_dir, *run_dir, *socket;
    const char *trusted_dir;
    unsigned restart_delay_ms, keep, confirm_within_s;
    bool stop_partitions, allow_downgrade;
};

#define OPTION(name, value, member, parse, help)                                                   \
    {                                                                                              \
        name, value, help, parse, offsetof(struct daemon_options, member)                          \
    }

static const struct cli_option daemon_options[] = {
    OPTION("state-dir", "DIR", state_dir, cli_parse_string,
           "where definitions are kept (default /var/lib/strake, or "
           "strake in $XDG_STATE_HOME for an ordinary user)"),
    OPTION("run-dir", "DIR", run_dir, cli_parse_string,
           "where what runs is kept (default run in --state-dir, or /run/strake, "
           "or strake in $XDG_RUNTIME_DIR)"),
    OPTION("socket", "PATH", socket, cli_parse_string,
           "where to listen (default strake.sock in --run-dir)"),
    OPTION("restart-delay", "MS", restart_delay_ms, cli_parse_unsigned,
           "before a failed partition is started again, the first time "
           "(default 1000); doubles up to 60 times that"),
    OPTION("stop-partitions", NULL, stop_partitions, cli_parse_flag,
           "when a signal ends the supervisor, stop what runs; else it runs on"),
    OPTION("trusted", "DIR", trusted_dir, cli_parse_string,
           "public keys (*.pub) of those whose updates guests may bring "
           "(default /etc/strake/trusted.d)"),
    OPTION("keep", "N", keep, cli_parse_unsigned,
           "versions to keep besides the current and the previous one (default 1)"),
    OPTION("confirm-within", "SECONDS", confirm_within_s, cli_parse_unsigned,
           "for a new version to prove itself, 30 to 3600 (default 60)"),
    OPTION("allow-downgrade", NULL, allow_downgrade, cli_parse_flag,
           "take updates to older versions, too"),
    {"log", "LEVEL", "error, warn (default), info or debug", cli_parse_log_level, 0},
    {0},
};

// A folder of its own for what runs goes with a state folder of its own.
static int choose_paths(const struct daemon_options *options, struct client_paths *paths,
                        struct error *err)
{
    int rc = client_paths(paths, err);
    int length = 0;
    if (rc < 0 && !(options->state_dir && options->socket))
        return rc;
    if (options->state_dir) {
        snprintf(paths->state_dir, PATH_MAX, "%s", options->state_dir);
        length = snprintf(paths->run_dir, PATH_MAX, "%s/run", options->state_dir);
    }
    if (options->run_dir)
        length = snprintf(paths->run_dir, PATH_MAX, "%s", options->run_dir);
    if (length < PATH_MAX && options->socket)
        length = snprintf(paths->socket, PATH_MAX, "%s", options->socket);
    else if (length < PATH_MAX)
        length = snprintf(paths->socket, PATH_MAX, "%s/strake.sock", paths->run_dir);
    return length < PATH_MAX ? 0 : error_set(err, -ENAMETOOLONG, "the paths are too long");
}

static int run_daemon(const struct cli_command *command, int argc, char **argv)
{
    struct daemon_options options = {.restart_delay_ms = 1000,
                                     .trusted_dir = "/etc/strake/trusted.d",
                                     .keep = 1,
                                     .confirm_within_s = 60};
    struct client_paths paths = {0};
    struct error err;
    int next = cli_parse(command, argc, argv, &options, &err);
    if (next > argc)
        return CLI_EXIT_OK;
    if (next >= 0 && next < argc)
        next = error_set(&err, -EINVAL, "\"%s\" is no option", argv[next]);
    if (next >= 0 &&
        (options.restart_delay_ms < 1 || options.restart_delay_ms > RESTART_DELAY_MS_MAX))
        next = error_set(&err, -ERANGE, "--restart-delay is from 1 to %u", RESTART_DELAY_MS_MAX);
    if (next >= 0 && (options.confirm_within_s < 30 || options.confirm_within_s > 3600))
        next = error_set(&err, -ERANGE, "--confirm-within is from 30 to 3600");
    if (next < 0)
        return cli_misused(command, &err);
    int rc = choose_paths(&options, &paths, &err);
    const struct supervisor_config config = {.state_dir = paths.state_dir,
                                             .run_dir = paths.run_dir,
                                             .socket = paths.socket,
                                             .restart_delay_ms = options.restart_delay_ms,
                                             .stop_partitions = options.stop_partitions,
                                             .trusted_dir = options.trusted_dir,
                                             .keep = options.keep,
                                             .confirm_within_s = options.confirm_within_s,
                                             .allow_downgrade = options.allow_downgrade};
    if (rc == 0)
        rc = supervisor_run(&config, &err);
    return rc < 0 ? cli_failed(&err) : CLI_EXIT_OK;
}

const struct cli_command cli_daemon = {
    .name = "daemon",
    .usage = "[OPTIONS]",
    .summary = "Run partitions for other commands, as their supervisor",
    .details = "Partitions run on when it ends, and it takes them over when it is started again. "
               "With socket activation (systemd.socket(5)) it serves the socket it is given.",
    .options = daemon_options,
    .run = run_daemon,
};
