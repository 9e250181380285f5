// SPDX-License-Identifier: BSD-2-Clause
// strake interceptor: the process of one interceptor, started by the supervisor.
#include <errno.h>
#include <fcntl.h>

#include "cli/cli.h"
#include "leverage/leverage.h"

static int run_interceptor(const struct cli_command *command, int argc, char **argv)
{
    struct error err;
    (void)argc, (void)argv;  // the argument is the interceptor's name, for lists of processes
    if (fcntl(INTERCEPTOR_CONTROL_FD, F_GETFD) < 0) {
        error_set(&err, -EINVAL, "it is started by strake daemon only");
        return cli_misused(command, &err);
    }
    return interceptor_main() == 0 ? CLI_EXIT_OK : CLI_EXIT_FAILED;
}

const struct cli_command cli_interceptor = {.name = "interceptor",
                                            .usage = "NAME",
                                            .summary = "Intercept data for a supervisor",
                                            .internal = true,
                                            .run = run_interceptor};
