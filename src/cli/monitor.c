// SPDX-License-Identifier: BSD-2-Clause
// strake monitor: the process of one partition, or a self-test, started by the supervisor.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "monitor/monitor.h"
#include "package/package.h"
#include "state/state.h"

// Prints one line of JSON: what the supervisor has to know of a program before it entrusts
// partitions to it.
static int run_self_test(void)
{
    struct error err;
    if (monitor_self_test(&err) < 0)
        return cli_failed(&err);
    printf("{\"version\": \"%s\", \"epoch\": %d, \"state\": {\"oldest\": %d, \"newest\": %d}}\n",
           STRAKE_VERSION, STRAKE_EPOCH, STATE_SET_OLDEST, STATE_SET_VERSION);
    return CLI_EXIT_OK;
}

static int run_monitor(const struct cli_command *command, int argc, char **argv)
{
    struct error err;
    // The argument is the partition's name, for lists of processes.
    if (argc == 2 && strcmp(argv[1], "--self-test") == 0)
        return run_self_test();
    if (fcntl(MONITOR_CONTROL_FD, F_GETFD) < 0) {
        error_set(&err, -EINVAL, "it is started by strake run and strake daemon only");
        return cli_misused(command, &err);
    }
    return monitor_main() == 0 ? CLI_EXIT_OK : CLI_EXIT_FAILED;
}

const struct cli_command cli_monitor = {.name = "monitor",
                                        .usage = "NAME",
                                        .summary = "Run a partition for a supervisor",
                                        .internal = true,
                                        .run = run_monitor};
