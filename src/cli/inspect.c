// SPDX-License-Identifier: BSD-2-Clause
// strake inspect: shows a saved state, by what it says of itself.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "state/state.h"

// More than any state has (one with full vsock buffers is of some hundred KiB), and little enough
// to read.
#define STATE_FILE_MAX_BYTES (256ll << 20)

struct inspect_options {
    bool json;
};

static const struct cli_option inspect_option_table[] = {
    {"json", NULL, "print JSON", cli_parse_flag, offsetof(struct inspect_options, json)},
    {.name = NULL},
};

// The file itself, or what a snapshot calls so.
static int open_state(const char *path, off_t *length, struct error *err)
{
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd >= 0 && fstat(fd, &status) == 0 && S_ISDIR(status.st_mode)) {
        int inside = openat(fd, "state", O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        int why = errno;
        close(fd);
        fd = inside;
        errno = why;
    }
    if (fd < 0 || fstat(fd, &status) < 0) {
        int rc = error_set_errno(err, -errno, "cannot open \"%s\"", path);
        if (fd >= 0)
            close(fd);
        return rc;
    }
    if (S_ISREG(status.st_mode) && status.st_size <= STATE_FILE_MAX_BYTES) {
        *length = status.st_size;
        return fd;
    }
    close(fd);
    return error_set(err, -EINVAL, "cannot read \"%s\": it is %s", path,
                     S_ISREG(status.st_mode) ? "too large for a state" : "no file");
}

static int read_state(const char *path, void **bytes, size_t *count, struct error *err)
{
    off_t length = 0;
    int fd = open_state(path, &length, err);

    if (fd < 0)
        return fd;
    *bytes = malloc((size_t)length + 1);
    int64_t got = *bytes ? fd_read_full(fd, *bytes, (size_t)length) : -ENOMEM;
    close(fd);
    if (got < 0) {
        free(*bytes);
        error_set_errno(err, (int)got, "cannot read \"%s\"", path);
        return (int)got;
    }
    *count = (size_t)got;
    return 0;
}

static int inspect(const char *path, bool json, struct error *err)
{
    void *bytes = NULL;
    size_t count = 0;
    int rc = read_state(path, &bytes, &count, err);

    if (rc < 0)
        return rc;
    rc = state_dump(bytes, count, json, stdout, err);
    free(bytes);
    if (rc < 0)
        error_prefix(err, "\"%s\"", path);
    return rc;
}

static int run_inspect(const struct cli_command *command, int argc, char **argv)
{
    struct inspect_options options = {0};
    struct error err = {0};
    int next = cli_parse(command, argc, argv, &options, &err);

    if (next > argc)
        return CLI_EXIT_OK;
    if (next >= 0 && argc - next != 1)
        next = error_set(&err, -EINVAL, argc == next ? "no file is named" : "one file is enough");
    if (next < 0)
        return cli_misused(command, &err);
    return inspect(argv[next], options.json, &err) < 0 ? cli_failed(&err) : CLI_EXIT_OK;
}

const struct cli_command cli_inspect = {
    .name = "inspect",
    .usage = "[--json] FILE",
    .summary = "Show what is in a saved state",
    .details =
        "FILE is a state, or the directory of a snapshot. Nothing of a damaged state is shown.",
    .options = inspect_option_table,
    .run = run_inspect,
};
