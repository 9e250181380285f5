// SPDX-License-Identifier: BSD-2-Clause
// strake usernet: the process of one user-mode network, started by usernet_launch.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "cli/cli.h"
#include "usernet/usernet.h"

static bool is_started_by_strake(void)
{
    int type = 0;
    socklen_t length = sizeof(type);
    return getsockopt(USERNET_FD, SOL_SOCKET, SO_TYPE, &type, &length) == 0 &&
           type == SOCK_SEQPACKET;
}

static int forwards_parse(struct usernet_forward *forwards, int count, char **texts,
                          struct error *err)
{
    int rc = is_started_by_strake()
                 ? 0
                 : error_set(err, -EINVAL, "descriptor %d is no packet socket", USERNET_FD);
    for (int i = 0; rc == 0 && i < count; i++)
        rc = usernet_forward_parse(&forwards[i], texts[i], err);
    return rc;
}

static int run_usernet(const struct cli_command *command, int argc, char **argv)
{
    struct usernet_forward *forwards = calloc(argc, sizeof(*forwards));
    struct error err = {0};

    if (!forwards) {
        error_set_errno(&err, -ENOMEM, "cannot start");
        return cli_failed(&err);
    }
    int rc = forwards_parse(forwards, argc - 1, argv + 1, &err);
    if (rc == 0)
        rc = usernet_serve(USERNET_FD, forwards, argc - 1);
    free(forwards);
    if (err.code)
        return cli_misused(command, &err);
    return rc < 0 ? CLI_EXIT_FAILED : CLI_EXIT_OK;
}

const struct cli_command cli_usernet = {
    .name = "usernet",
    .usage = "[tcp|udp:ADDR:PORT-ADDR:PORT]...",
    .summary = "Be a user-mode network (internal)",
    .details = "Started by strake itself, with a packet socket as descriptor 3.",
    .internal = true,
    .run = run_usernet,
};
