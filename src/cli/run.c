// SPDX-License-Identifier: BSD-2-Clause
// strake run: one partition in the foreground, and a supervisor for it alone.
//
// Order: options are parsed and checked, host resources opened, then the monitor is started; so a
// mistake in the last option leaves nothing behind. What has to be undone is undone in run_close,
// in reverse order, whatever the way out.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/keys.h"
#include "cli/stats.h"
#include "supervisor/supervisor.h"

#define KILL_WAIT_MS 20000u  // for a monitor that was told to end its partition

struct run_options {
    struct definition definition;
    enum console_kind console;
    const char *console_path, *dump_dtb;
};

// ---- Options ------------------------------------------------------------------------------------

static int parse_console(void *target, const char *value, struct error *err)
{
    static const struct {
        const char *word;
        enum console_kind kind;
    } kinds[] = {{"stdio", CONSOLE_STDIO},
                 {"pty", CONSOLE_PTY},
                 {"file=", CONSOLE_FILE},
                 {"unix=", CONSOLE_UNIX}};
    struct run_options *options = target;
    for (size_t i = 0; i < BASE_COUNT_OF(kinds); i++) {
        size_t length = strlen(kinds[i].word);
        bool path = kinds[i].word[length - 1] == '=';
        if (strncmp(value, kinds[i].word, length) != 0 || (value[length] != 0) != path)
            continue;
        options->console = kinds[i].kind;
        options->console_path = value + length;
        return 0;
    }
    return error_set(err, -EINVAL, "not stdio, pty, file=PATH or unix=PATH");
}

static int set_definition(void *target, const char *name, const char *value, struct error *err)
{
    struct run_options *options = target;
    return definition_set(&options->definition, name, value, err);
}

static int refuse_updates(void *target, const char *name, const char *value, struct error *err)
{
    (void)target, (void)name, (void)value;
    return error_set(err, -EINVAL,
                     "an update is the daemon's to do, for all partitions: create this one with "
                     "strake create --updates");
}

static const struct cli_option run_option_table[] = {
    CLI_DEFINITION_KEYS,
    CLI_KEY("name", "NAME", "the partition's name, in messages"),
    {.name = "console",
     .value = "stdio|pty|file=PATH|unix=PATH",
     .help = "where the guest's console is (default stdio)",
     .parse = parse_console},
    {.name = "dump-dtb",
     .value = "FILE",
     .help = "write the device tree and exit",
     .parse = cli_parse_string,
     .offset = offsetof(struct run_options, dump_dtb)},
    {.name = "updates", .help = "only for strake create", .set = refuse_updates},
    CLI_KEY("stats", NULL, "when the partition ends, print what its harts have counted"),
    {0},
};

// ---- Running ------------------------------------------------------------------------------------

// What run_close undoes.
struct run {
    struct run_options options;
    struct loop *loop;
    struct loop_timer *kill_timer;
    bool opened;  // resources are to be discarded
    struct process *process;
    struct console *console;
    int status;
    struct error err;  // code 0: nothing failed
};

// For signal handlers, which get no argument.
static struct loop_wake *_Atomic signal_wake;
static volatile sig_atomic_t signal_taken;

static void on_end_signal(int signal)
{
    int saved = errno;
    struct loop_wake *wake = signal_wake;
    signal_taken = signal;
    if (wake)
        loop_wake_signal(wake);  // one write(2) inside: async-signal-safe
    errno = saved;
}

static void on_crash_signal(int signal)
{
    console_restore_terminal();
    raise(signal);  // SA_RESETHAND: with its default action now
}

static void install_signals(void)
{
    static const int ends[] = {SIGINT, SIGTERM, SIGHUP};
    static const int crashes[] = {SIGQUIT, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
    struct sigaction end = {.sa_handler = on_end_signal};
    struct sigaction crash = {.sa_handler = on_crash_signal, .sa_flags = SA_RESETHAND | SA_NODEFER};
    for (size_t i = 0; i < BASE_COUNT_OF(ends); i++)
        sigaction(ends[i], &end, NULL);
    for (size_t i = 0; i < BASE_COUNT_OF(crashes); i++)
        sigaction(crashes[i], &crash, NULL);
}

static void run_failed(struct run *run, const struct error *err)
{
    run->err = *err;
    loop_stop(run->loop);
}

// ---- The end ------------------------------------------------------------------------------------

static void warn_unused(const json_t *details)
{
    const json_t *unused = json_object_get(details, "unused");
    for (size_t i = 0; i < json_array_size(unused); i++) {
        const json_t *device = json_array_get(unused, i);
        const char *kind = json_string_value(json_object_get(device, "device"));
        log_line(LOG_WARN, "no driver in the guest took the %s device in slot %lld",
                 kind ? kind : "?", (long long)json_integer_value(json_object_get(device, "slot")));
    }
}

static void note_end(struct run *run, const struct process_end *end)
{
    const char *name = run->options.definition.name;
    switch (end->end) {
    case MONITOR_POWEROFF:
    case MONITOR_REBOOT:
        warn_unused(end->details);
        break;
    case MONITOR_STOPPED:
        run->status = signal_taken ? 128 + signal_taken : CLI_EXIT_OK;
        break;
    case MONITOR_FAILED:
        error_set(&run->err, -EIO, "partition \"%s\" reported failure with code %u", name,
                  end->code);
        break;
    case MONITOR_BROKEN:
        error_set(&run->err, -EIO, "partition \"%s\" was stopped: %s", name, end->why);
        break;
    case MONITOR_ERROR:
        error_set(&run->err, -EIO, "%s", end->why);
        break;
    default:
        error_set(&run->err, -EIO, "partition \"%s\" is lost: %s%s", name, end->why,
                  end->core_dumped ? " (core dumped)" : "");
    }
}

static void on_stats(void *opaque, json_t *result, struct descriptors *fds, const struct error *err)
{
    struct run *run = opaque;
    (void)fds, (void)err;
    if (result)
        cli_print_stats(stderr, result);
    loop_stop(run->loop);
}

static void on_ended(void *opaque, const struct process_end *end)
{
    struct run *run = opaque;
    // The guest's last words come first, and the terminal is the user's again before ours.
    console_close(run->console);
    run->console = NULL;
    if (run->options.definition.stats && end->end != MONITOR_CRASHED)
        process_request(run->process, "stats", NULL, NULL, on_stats, run);
    else
        loop_stop(run->loop);
    note_end(run, end);
}

static void on_kill_late(void *opaque)
{
    struct run *run = opaque;
    struct error err;
    error_set(&err, -ETIMEDOUT, "partition \"%s\" does not end: its monitor was killed",
              run->options.definition.name);
    run_failed(run, &err);
}

// Ends the partition, for a signal or the console's escape.
static void run_end(void *opaque)
{
    struct run *run = opaque;
    if (!run->process)
        return;
    process_request(run->process, "kill", NULL, NULL, NULL, NULL);
    loop_timer_start(run->kill_timer, KILL_WAIT_MS);
}

// ---- The start ----------------------------------------------------------------------------------

static void on_device_tree(void *opaque, json_t *result, struct descriptors *fds,
                           const struct error *err)
{
    struct run *run = opaque;
    (void)result, (void)fds;
    if (err) {
        run->err = *err;
        error_prefix(&run->err, "\"%s\"", run->options.dump_dtb);
    }
    loop_stop(run->loop);
}

static void dump_device_tree(struct run *run)
{
    const char *path = run->options.dump_dtb;
    struct descriptors fds = {0};
    struct error err;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (descriptors_add(&fds, "device-tree", fd) < 0) {
        error_set_errno(&err, -errno, "cannot write \"%s\"", path);
        run_failed(run, &err);
        return;
    }
    process_request(run->process, "device-tree", NULL, &fds, on_device_tree, run);
    descriptors_close(&fds);
}

static void on_started(void *opaque, json_t *result, struct descriptors *fds,
                       const struct error *err)
{
    struct run *run = opaque;
    (void)result, (void)fds;
    if (err)
        run_failed(run, err);
    else if (run->options.dump_dtb)
        dump_device_tree(run);
}

static void on_console(void *opaque)
{
    struct run *run = opaque;
    if (run->console)
        console_pump(run->console);
}

static int open_loop(struct run *run, struct error *err)
{
    struct loop_wake *wake;
    int rc = loop_create(&run->loop, err);
    if (rc < 0)
        return rc;
    rc = loop_wake_create(run->loop, run_end, run, &wake);
    if (rc == 0)
        rc = loop_timer_create(run->loop, on_kill_late, run, &run->kill_timer);
    if (rc < 0)
        return error_set_errno(err, rc, "cannot start");
    signal_wake = wake;
    return 0;
}

static int launch(struct run *run, struct descriptors *fds, struct error *err)
{
    const struct process_config config = {
        .loop = run->loop,
        .events = {.console = on_console, .ended = on_ended, .opaque = run},
        .throttle = console_throttles(run->console),
        .binary_fd = -1,
    };
    int rc = process_launch(&run->process, &config, &run->options.definition, fds,
                            run->options.dump_dtb, on_started, run, err);
    return rc < 0 ? rc : console_attach(run->console, run->process, err);
}

static int run_open(struct run *run, struct error *err)
{
    const struct run_options *options = &run->options;
    struct descriptors fds = {0};
    int rc = open_loop(run, err);
    if (rc == 0)
        rc = supervisor_open_resources(&options->definition, &fds, err);
    if (rc < 0)
        return rc;
    run->opened = true;
    rc = console_open(&run->console, options->console, options->console_path, run->loop, run_end,
                      run, err);
    if (rc == 0)
        rc = launch(run, &fds, err);
    supervisor_close_resources(&fds);
    return rc;
}

static void run_close(struct run *run)
{
    signal_wake = NULL;
    console_close(run->console);
    process_destroy(run->process, true);
    if (run->opened)
        supervisor_discard_resources(&run->options.definition);
    loop_destroy(run->loop);
    definition_fini(&run->options.definition);
}

// ---- The command --------------------------------------------------------------------------------

// -EINVAL: the command line is wrong.
static int parse(const struct cli_command *command, int argc, char **argv,
                 struct run_options *options, struct error *err)
{
    struct definition *definition = &options->definition;
    int next = cli_parse(command, argc, argv, options, err);
    if (next < 0 || next > argc)
        return next;
    if (next < argc)
        return error_set(err, -EINVAL, "\"%s\" is no option", argv[next]);
    int rc = definition->name ? 0 : definition_set(definition, "name", "guest", err);
    return rc < 0 ? rc : definition_check(definition, err);
}

static int run_partition(struct run *run)
{
    install_signals();
    log_set_level(run->options.definition.log_level);
    if (run_open(run, &run->err) == 0) {
        if (signal_taken)
            run_end(run);
        loop_run(run->loop);
    }
    return run->err.code;
}

static int run_command(const struct cli_command *command, int argc, char **argv)
{
    struct run *run = calloc(1, sizeof(*run));
    struct error err = {0};
    if (!run) {
        error_set_errno(&err, -ENOMEM, "cannot start");
        return cli_failed(&err);
    }
    definition_init(&run->options.definition);
    int rc = parse(command, argc, argv, &run->options, &err);
    bool wrong = rc == -EINVAL, help = rc > 0;
    if (rc == 0) {
        rc = run_partition(run);
        err = run->err;
    }
    run_close(run);
    int status = run->status;
    free(run);
    if (wrong)
        return cli_misused(command, &err);
    return rc < 0 ? cli_failed(&err) : help ? CLI_EXIT_OK : status;
}

const struct cli_command cli_run = {
    .name = "run",
    .usage = "--kernel FILE [OPTIONS]",
    .summary = "Run one partition in the foreground",
    .details = "On a terminal, Ctrl-A x ends the partition and Ctrl-A h shows what else there is. "
               "The exit status is 0 when the guest switched itself off, 1 when it could not be "
               "started or reported failure, 2 when the command line is wrong, and 128 plus the "
               "signal's number when a signal ended it.",
    .options = run_option_table,
    .run = run_command,
};
