// SPDX-License-Identifier: BSD-2-Clause
// strake console, strake logs: a partition's console by way of the supervisor.
//
// Output comes as a stream, of which one knows the position: when it breaks off, as the supervisor
// is started anew, the next one starts there. So nothing is lost or shown twice.
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "cli/client.h"

#define ESCAPE 0x01  // Ctrl-A
#define INPUT_BYTES 4096u
#define RETRY_MS 50
#define SUPERVISOR_RETRIES 600  // half a minute
#define SUPERVISOR_RETRY_US 50000u

struct attach_options {
    struct client_options client;
    unsigned lines;
    bool console, all, follow;
};

struct attachment {
    struct client *client;
    const char *name;
    char path[128];  // of the partition
    bool follow, interactive;

    uint64_t run, position;          // of what comes next
    uint64_t new_run, new_position;  // as the headers of a stream tell, before its first byte
    bool placed;                     // run and position are known

    unsigned char input[INPUT_BYTES];  // not taken by the guest yet
    size_t pending;
    bool escaped, detach, input_ended;
};

// ---- The terminal, which is the process's -------------------------------------------------------

static struct {
    struct termios saved;
    volatile sig_atomic_t raw, resized;
} terminal;

static void restore_terminal(void)
{
    if (terminal.raw) {
        terminal.raw = 0;
        tcsetattr(STDIN_FILENO, TCSADRAIN, &terminal.saved);
    }
}

static void on_end_signal(int signal)
{
    restore_terminal();
    raise(signal);  // SA_RESETHAND: with its default action now
}

static void on_resize(int signal)
{
    (void)signal;
    terminal.resized = 1;
}

static bool make_raw(void)
{
    static const int ends[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGSEGV, SIGABRT};
    const struct sigaction end = {.sa_handler = on_end_signal,
                                  .sa_flags = SA_RESETHAND | SA_NODEFER};
    const struct sigaction resize = {.sa_handler = on_resize};
    struct termios raw;
    if (!isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &terminal.saved) < 0)
        return false;
    for (size_t i = 0; i < BASE_COUNT_OF(ends); i++)
        sigaction(ends[i], &end, NULL);
    sigaction(SIGWINCH, &resize, NULL);
    raw = terminal.saved;
    cfmakeraw(&raw);
    terminal.raw = 1;
    terminal.resized = 1;
    tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
    return true;
}

static void say(const struct attachment *attachment, const char *what)
{
    fprintf(stderr, "%s[%s: %s]%s\n", attachment->interactive ? "\r\n" : "", attachment->name, what,
            attachment->interactive ? "\r" : "");
}

// ---- Output -------------------------------------------------------------------------------------

static void on_header(void *opaque, const char *name, const char *value)
{
    struct attachment *attachment = opaque;
    char lost[64];
    if (strcasecmp(name, "Strake-Run") == 0)
        attachment->new_run = strtoull(value, NULL, 10);
    if (strcasecmp(name, "Strake-Position") != 0)
        return;
    attachment->new_position = strtoull(value, NULL, 10);
    bool same = attachment->placed && attachment->run == attachment->new_run;
    if (same && attachment->new_position > attachment->position) {
        snprintf(lost, sizeof(lost), "%" PRIu64 " bytes were not read in time and are lost",
                 attachment->new_position - attachment->position);
        say(attachment, lost);
    }
    attachment->run = attachment->new_run;
    attachment->position = attachment->new_position;
    attachment->placed = true;
}

static void on_bytes(void *opaque, const char *bytes, size_t count)
{
    struct attachment *attachment = opaque;
    attachment->position += count;
    if (fd_write_full(STDOUT_FILENO, bytes, count) < 0)
        attachment->detach = true;  // nobody reads
}

// ---- Input --------------------------------------------------------------------------------------

static void show_help(void)
{
    static const char help[] = "\r\n"
                               "Ctrl-A d       leave; the partition goes on\r\n"
                               "Ctrl-A h       this help\r\n"
                               "Ctrl-A Ctrl-A  send Ctrl-A to the guest\r\n";
    (void)!fd_write_full(STDERR_FILENO, help, sizeof(help) - 1);
}

// Takes escapes out of what was typed, in place; returns what is left for the guest.
static size_t filter_escapes(struct attachment *attachment, unsigned char *bytes, size_t count)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        unsigned char byte = bytes[i];
        if (!attachment->escaped) {
            attachment->escaped = byte == ESCAPE;
            if (!attachment->escaped)
                bytes[kept++] = byte;
            continue;
        }
        attachment->escaped = false;
        if (byte == 'd' || byte == 'D' || byte == 'x' || byte == 'X')
            attachment->detach = true;
        else if (byte == ESCAPE)
            bytes[kept++] = byte;
        else if (byte == 'h' || byte == 'H' || byte == '?')
            show_help();
    }
    return kept;
}

// What a guest does not take is kept as far as there is room. What is typed beyond that is dropped:
// the escape has to get through.
static void read_input(struct attachment *attachment)
{
    unsigned char bytes[512];
    size_t room = sizeof(attachment->input) - attachment->pending;
    size_t most = !attachment->interactive && room < sizeof(bytes) ? room : sizeof(bytes);
    ssize_t n = read(STDIN_FILENO, bytes, most);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n <= 0) {
        attachment->input_ended = true;
        attachment->detach |= attachment->interactive;  // the terminal was hung up
        return;
    }
    size_t count = (size_t)n;
    if (attachment->interactive)
        count = filter_escapes(attachment, bytes, count);
    if (count > room)
        count = room;
    memcpy(attachment->input + attachment->pending, bytes, count);
    attachment->pending += count;
}

static int send_input(struct attachment *attachment, struct error *err)
{
    char path[160];
    json_t *reply;
    snprintf(path, sizeof(path), "%s/console", attachment->path);
    int rc =
        client_send(attachment->client, path, attachment->input, attachment->pending, &reply, err);
    if (rc < 0)
        return rc;
    size_t taken = (size_t)json_integer_value(json_object_get(reply, "taken"));
    json_decref(reply);
    if (taken > attachment->pending)
        return error_set(err, -EPROTO, "the supervisor took more than it was given");
    attachment->pending -= taken;
    memmove(attachment->input, attachment->input + taken, attachment->pending);
    return 0;
}

static void send_size(struct attachment *attachment)
{
    char path[160];
    struct winsize size;
    terminal.resized = 0;
    snprintf(path, sizeof(path), "%s/console/size", attachment->path);
    if (ioctl(STDIN_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        (void)!client_call(
            attachment->client, "PUT", path,
            json_pack("{s:i,s:i}", "columns", (int)size.ws_col, "rows", (int)size.ws_row), NULL,
            NULL);
}

// ---- One stream ---------------------------------------------------------------------------------

// Until the stream ends (-EPIPE), or the user leaves (0).
static int attend(struct attachment *attachment, struct client_stream *stream, struct error *err)
{
    for (;;) {
        bool full = attachment->pending == sizeof(attachment->input) && !attachment->interactive;
        bool input = attachment->follow && !attachment->input_ended && !full;
        if (terminal.resized)
            send_size(attachment);
        int rc = client_stream_wait(stream, input ? STDIN_FILENO : -1,
                                    attachment->pending ? RETRY_MS : -1, err);
        if (rc == 1)
            read_input(attachment);
        if (attachment->detach)
            return 0;
        // Input that cannot be sent now is sent to the next stream, or the end is told there.
        if (rc >= 0 && attachment->pending > 0)
            (void)send_input(attachment, NULL);
        if (rc < 0)
            return rc;
    }
}

static int attach_once(struct attachment *attachment, const char *query, struct error *err)
{
    static const struct client_stream_events events = {.on_header = on_header,
                                                       .on_bytes = on_bytes};
    char path[256];
    struct client_stream *stream;
    snprintf(path, sizeof(path), "%s/console?%s", attachment->path, query);
    int rc = client_stream_open(&stream, attachment->client, path, &events, attachment, err);
    if (rc < 0)
        return rc;
    rc = attend(attachment, stream, err);
    client_stream_close(stream);
    return rc;
}

// ---- From stream to stream ----------------------------------------------------------------------

// What became of the partition: 1, there is more to come; 0, it has ended.
static int look(struct attachment *attachment, struct error *err)
{
    static const char *const going[] = {"starting", "running", "paused", "stopping", "restarting"};
    json_t *partition;
    char text[256];
    int rc = client_call(attachment->client, "GET", attachment->path, NULL, &partition, err);
    if (rc < 0)
        return rc;
    const char *state = json_string_value(json_object_get(partition, "state"));
    const json_t *end = json_object_get(partition, "last_end");
    const char *how = json_string_value(json_object_get(end, "end"));
    for (size_t i = 0; state && i < BASE_COUNT_OF(going); i++)
        rc |= strcmp(going[i], state) == 0;
    if (rc == 0) {
        snprintf(text, sizeof(text), "ended: %s", how ? how : "it has not run yet");
        say(attachment, text);
    }
    json_decref(partition);
    return rc;
}

// Waits until a supervisor is there again, and then until the partition runs or has ended for good.
static int look_again(struct attachment *attachment, struct error *err)
{
    int rc;
    for (unsigned i = 0; (rc = look(attachment, err)) == -ENOTCONN || rc == -EIO; i++) {
        if (i == 0)
            say(attachment, "waiting for the supervisor");
        if (i == SUPERVISOR_RETRIES)
            return rc;
        usleep(SUPERVISOR_RETRY_US);
    }
    return rc;
}

static int attach(struct attachment *attachment, const char *query, struct error *err)
{
    char next[96];
    int rc = attach_once(attachment, query, err);
    if (rc != 0 && !attachment->follow)
        return rc == -EPIPE ? 0 : rc;
    while (rc == -EPIPE || (rc == -EIO && attachment->placed)) {
        uint64_t run = attachment->run, position = attachment->position;
        rc = look_again(attachment, err);
        if (rc <= 0)
            return rc;
        snprintf(next, sizeof(next), "run=%" PRIu64 "&position=%" PRIu64 "&follow=1", run,
                 position);
        rc = attach_once(attachment, next, err);
        if (rc == -EPIPE && attachment->run == run && attachment->position == position)
            usleep(SUPERVISOR_RETRY_US);  // the next run has not begun
    }
    return rc;
}

// ---- Commands -----------------------------------------------------------------------------------

static int attach_named(struct client *client, void *opaque, char **arguments, struct error *err)
{
    const struct attach_options *options = opaque;
    struct attachment attachment = {.client = client,
                                    .name = arguments[0],
                                    .follow = options->follow || options->console,
                                    .input_ended = !options->console};
    char query[96];
    int length = snprintf(query, sizeof(query), "follow=%d", attachment.follow);
    if (!options->all && options->lines != UINT32_MAX)
        snprintf(query + length, sizeof(query) - (size_t)length, "&lines=%u", options->lines);
    int rc = client_find(client, attachment.name, attachment.path, sizeof(attachment.path), err);
    if (rc == 0)
        rc = options->console ? look(&attachment, err) : 1;
    if (rc > 0) {
        attachment.interactive = options->console && make_raw();
        if (attachment.interactive)
            say(&attachment, "Ctrl-A d leaves, Ctrl-A h shows what else there is");
        rc = attach(&attachment, query, err);
    }
    if (attachment.interactive && rc == 0 && attachment.detach)
        say(&attachment, "left; it goes on");
    restore_terminal();
    return rc;
}

static int run_attach(const struct cli_command *command, int argc, char **argv)
{
    bool console = command == &cli_console;
    struct attach_options options = {.console = console, .lines = console ? 20 : UINT32_MAX};
    return client_run(command, argc, argv, &options.client, 1, 1, attach_named);
}

static const struct cli_option console_options[] = {
    {"lines", "N", "show so many lines of former output first (default 20)", cli_parse_unsigned,
     offsetof(struct attach_options, lines)},
    {"all", NULL, "show all former output that is kept", cli_parse_flag,
     offsetof(struct attach_options, all)},
    CLIENT_OPTION_SOCKET,
    {0},
};

static const struct cli_option logs_options[] = {
    {"follow", NULL, "go on with what comes, until the partition ends", cli_parse_flag,
     offsetof(struct attach_options, follow)},
    {"lines", "N", "show the last lines only", cli_parse_unsigned,
     offsetof(struct attach_options, lines)},
    CLIENT_OPTION_SOCKET,
    {0},
};

const struct cli_command cli_console = {
    .name = "console",
    .usage = "[OPTIONS] NAME",
    .summary = "Attach to a partition's console",
    .details =
        "On a terminal, Ctrl-A d leaves and Ctrl-A h shows what else there is. Several may be "
        "attached at once: all see what the guest writes, and may type.",
    .options = console_options,
    .run = run_attach,
};

const struct cli_command cli_logs = {
    .name = "logs",
    .usage = "[OPTIONS] NAME",
    .summary = "Show what a partition has written to its console",
    .details = "That of its present run, or of the last one when it does not run.",
    .options = logs_options,
    .run = run_attach,
};
