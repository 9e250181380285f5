// SPDX-License-Identifier: BSD-2-Clause
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "update.h"

#define FOLDER "/var/lib/strake-update"
#define WAIT_S 300u

static const char usage[] =
    "usage: strake-update [OPTIONS] COMMAND\n"
    "\n"
    "Hands an update of Strake down to the monitor beneath this guest.\n"
    "\n"
    "  apply FILE|FOLDER|URL  apply a package: a .strake file, a folder with its\n"
    "                         files, or an http:// URL\n"
    "  status                 tell what runs, and how far an update is\n"
    "  check VERSION          succeed if the Strake beneath is VERSION or newer\n"
    "  log                    tell what has happened\n"
    "  resume                 go on with an update that was interrupted\n"
    "  withdraw               give up an update that is not committed\n"
    "\n"
    "  --no-commit            apply: end when Strake has validated the update\n"
    "  --json                 print a JSON object a line\n"
    "  --wait SECONDS         how long a host may be silent (300)\n"
    "  --host ADDRESS         unix:PATH or tcp:HOST:PORT, not the host's vsock port\n"
    "  --root FOLDER          where guest extensions are installed (/)\n"
    "  --state FOLDER         where the state is (" FOLDER ")\n"
    "  --help, --version\n";

enum choice {
    OPTION_NO_COMMIT = 1,
    OPTION_JSON,
    OPTION_WAIT,
    OPTION_HOST,
    OPTION_ROOT,
    OPTION_STATE,
    OPTION_HELP,
    OPTION_VERSION
};

static const struct option options[] = {
    {"no-commit", no_argument, NULL, OPTION_NO_COMMIT},
    {"json", no_argument, NULL, OPTION_JSON},
    {"wait", required_argument, NULL, OPTION_WAIT},
    {"host", required_argument, NULL, OPTION_HOST},
    {"root", required_argument, NULL, OPTION_ROOT},
    {"state", required_argument, NULL, OPTION_STATE},
    {"help", no_argument, NULL, OPTION_HELP},
    {"version", no_argument, NULL, OPTION_VERSION},
    {NULL, 0, NULL, 0},
};

// The commands that change something; only one strake-update may be at it.
typedef int change(struct context *context, struct fault *fault);

static int lock_state(const struct context *context, struct fault *fault)
{
    char path[PATH_BYTES];

    if (join(path, context->folder, "lock", fault) || make_folders(path, fault))
        return -1;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return fault_system(fault, OUTCOME_FAILED, "cannot write '%s'", path);
    if (flock(fd, LOCK_EX | LOCK_NB)) {
        close(fd);
        return fault_set(fault, OUTCOME_BUSY, "another strake-update is at work");
    }
    return fd;
}

// As after a loss of power: what is on the disk says how far it is.
static void end_by_signal(int number)
{
    static const char text[] = "\nstrake-update: interrupted; the same again goes on\n";

    if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
        _exit(OUTCOME_UNFINISHED);
    signal(number, SIG_DFL);
    raise(number);
}

static void set_signals(void)
{
    static const int ends[] = {SIGHUP, SIGINT, SIGTERM};
    struct sigaction action = {.sa_handler = end_by_signal};

    for (unsigned i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
        sigaction(ends[i], &action, NULL);
}

static int run_change(struct context *context, change *function, struct fault *fault)
{
    int lock = lock_state(context, fault);

    if (lock < 0)
        return -1;
    set_signals();
    int result = state_load(&context->state, context->folder, fault) || function(context, fault);
    close(lock);
    free(context->manifest_text.bytes);
    free(context->signature.bytes);
    return result;
}

static int show_status(struct context *context, struct fault *fault)
{
    return state_load(&context->state, context->folder, fault) || status(context, fault) ? -1 : 0;
}

static int run_check(struct context *context, struct fault *fault)
{
    if (!version_is(context->wanted))
        return fault_set(fault, OUTCOME_USAGE, "'%.100s' is no version", context->wanted);
    return state_load(&context->state, context->folder, fault) || check(context, fault) ? -1 : 0;
}

static int run_command(struct context *context, char **words, int count, struct fault *fault)
{
    const char *command = count > 0 ? words[0] : "";

    if (count == 2 && !strcmp(command, "apply")) {
        context->place = words[1];
        return run_change(context, apply, fault);
    }
    if (count == 2 && !strcmp(command, "check")) {
        context->wanted = words[1];
        return run_check(context, fault);
    }
    if (count == 1 && !strcmp(command, "resume"))
        return run_change(context, resume, fault);
    if (count == 1 && !strcmp(command, "withdraw"))
        return run_change(context, withdraw, fault);
    if (count == 1 && !strcmp(command, "status"))
        return show_status(context, fault);
    if (count == 1 && !strcmp(command, "log"))
        return state_log_print(context->folder, context->report.json, fault);
    fputs(usage, stderr);
    exit(OUTCOME_USAGE);
}

static unsigned take_seconds(const char *text)
{
    char *end;
    unsigned long seconds = strtoul(text, &end, 10);

    if (*end || end == text || seconds == 0 || seconds > 86400) {
        fprintf(stderr, "strake-update: '%s' is no number of seconds\n", text);
        exit(OUTCOME_USAGE);
    }
    return (unsigned)seconds;
}

static void take_option(struct context *context, int option, bool *json)
{
    switch (option) {
    case OPTION_NO_COMMIT:
        context->no_commit = true;
        break;
    case OPTION_JSON:
        *json = true;
        break;
    case OPTION_WAIT:
        context->wait_s = take_seconds(optarg);
        break;
    case OPTION_HOST:
        context->host = optarg;
        break;
    case OPTION_ROOT:
        context->root = optarg;
        break;
    case OPTION_STATE:
        context->folder = optarg;
        break;
    case OPTION_HELP:
        fputs(usage, stdout);
        exit(OUTCOME_DONE);
    case OPTION_VERSION:
        puts("strake-update " STRAKE_VERSION);
        exit(OUTCOME_DONE);
    default:
        fputs(usage, stderr);
        exit(OUTCOME_USAGE);
    }
}

int main(int argc, char **argv)
{
    static struct context context = {.root = "/", .folder = FOLDER, .wait_s = WAIT_S};
    struct fault fault = {.outcome = OUTCOME_FAILED};
    bool json = false;
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
        take_option(&context, option, &json);
    report_init(&context.report, json);
    // dpkg sets it for the scripts of packages that it installs or removes.
    context.nested = getenv("DPKG_MAINTSCRIPT_PACKAGE") != NULL;
    signal(SIGPIPE, SIG_IGN);
    if (run_command(&context, argv + optind, argc - optind, &fault) == 0)
        return OUTCOME_DONE;
    report_fault(&context.report, &fault);
    return (int)fault.outcome;
}
