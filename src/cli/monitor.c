// SPDX-License-Identifier: BSD-2-Clause
// strake monitor: the process of one partition, started by its supervisor.
#include <errno.h>
#include <fcntl.h>

#include "cli/cli.h"
#include "monitor/monitor.h"

static int run_monitor(const struct cli_command *command, int argc, char **argv)
{
    struct error err;
    (void)argc, (void)argv;  // the partition's name, for lists of processes
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
