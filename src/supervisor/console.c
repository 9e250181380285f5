// SPDX-License-Identifier: BSD-2-Clause
// Console end points of strake run: terminal, pseudo-terminal, file, Unix socket.
//
// Output comes out of the console's ring. Where somebody reads for sure (terminal, pipe, file) the
// ring is throttled: nothing is lost and the guest waits, until the partition is being stopped; a
// pseudo-terminal or a socket that nobody reads loses what the ring does not hold, for a guest must
// not hang on it.
//
// Threads: all of it is the loop's. The terminal is the process's, so its saved state is
// file-scope.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "supervisor/supervisor.h"

#define OUTPUT_BYTES 65536u
#define INPUT_BYTES 4096u
#define ESCAPE 0x01  // Ctrl-A
#define CLOSE_WAIT_MS 200
#define ACCEPT_AGAIN_MS 200
#define PARTS_A_TURN 16  // so that a guest that prints for ever leaves the loop to others

struct console {
    enum console_kind kind;
    void (*quit)(void *opaque);
    void *opaque;
    struct loop *loop;
    struct process *process;  // NULL: not attached

    uint64_t position;  // in the partition's ring
    struct ring output, input;
    int in_fd, out_fd;  // -1: none
    int listen_fd;      // CONSOLE_UNIX
    int pty_client_fd;  // CONSOLE_PTY: our own open end, so that readers may come and go
    bool out_socket;    // standard output is one that stays blocking
    bool loss_told;     // of output that could not be written
    bool in_always;     // a regular file: always ready, and epoll does not take it
    bool escaped;       // the last input byte was the escape
    char *socket_path;

    struct loop_watch *in_watch, *out_watch, *listen_watch;
    struct loop_watch *guest_watch;   // the socket to the guest, when it is full
    struct loop_timer *accept_again;  // CONSOLE_UNIX
    struct loop_wake *wake;
};

// ---- The terminal of the process ----------------------------------------------------------------

static struct {
    struct termios saved;
    volatile sig_atomic_t raw;
    struct loop_wake *_Atomic resized;  // told of SIGWINCH
} terminal;

void console_restore_terminal(void)
{
    if (terminal.raw) {
        terminal.raw = 0;
        tcsetattr(STDIN_FILENO, TCSADRAIN, &terminal.saved);
    }
}

static void terminal_make_raw(void)
{
    if (!isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &terminal.saved) < 0)
        return;
    struct termios raw = terminal.saved;
    cfmakeraw(&raw);
    terminal.raw = 1;
    tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
}

static void on_resize(int signal)
{
    (void)signal;
    int saved = errno;
    struct loop_wake *wake = terminal.resized;
    if (wake)
        loop_wake_signal(wake);  // one write(2) inside: async-signal-safe
    errno = saved;
}

// ---- Output -------------------------------------------------------------------------------------

static ssize_t output_write(const struct console *console, const void *bytes, size_t count)
{
    return console->out_socket ? send(console->out_fd, bytes, count, MSG_DONTWAIT)
                               : write(console->out_fd, bytes, count);
}

// What is in the ring has nowhere to go. A reader that went away knows; who wrote to a full disk
// does not.
static void output_lose(struct console *console, int reason)
{
    ring_clear(&console->output);
    if (reason != EPIPE && !console->loss_told)
        log_line(LOG_ERROR, "cannot write the guest's console output: %s", strerror(reason));
    console->loss_told = true;
}

// Writes what the descriptor takes. False when bytes are left.
static bool output_flush(struct console *console)
{
    const uint8_t *bytes;
    size_t count;
    while ((count = ring_peek(&console->output, &bytes)) > 0) {
        if (console->out_fd < 0) {
            ring_clear(&console->output);
            break;
        }
        ssize_t n = output_write(console, bytes, count);
        if (n < 0 && errno == EAGAIN)
            return false;
        if (n < 0 && errno != EINTR)
            output_lose(console, errno);
        else if (n > 0)
            ring_drop(&console->output, (size_t)n);
    }
    return true;
}

// Takes what the guest wrote out of its ring. False when there is no more.
static bool output_fetch(struct console *console)
{
    uint8_t bytes[OUTPUT_BYTES / 4];
    size_t space = ring_space(&console->output);
    if (!console->process)
        return false;
    struct console_ring *ring = process_console(console->process);
    size_t count = console_ring_read(ring, &console->position, bytes,
                                     space < sizeof(bytes) ? space : sizeof(bytes));
    console_ring_consumed(ring, console->position);
    ring_put(&console->output, bytes, count);
    return count > 0;
}

// False when bytes are left that the descriptor does not take.
static bool output_move(struct console *console)
{
    int parts = 0;
    bool flushed;
    while ((flushed = output_flush(console)) && output_fetch(console))
        if (++parts == PARTS_A_TURN) {
            loop_wake_signal(console->wake);
            break;
        }
    return flushed;
}

// Ours, among the guest's; while nobody reads there is nobody to read it.
static void output_say(struct console *console, const char *text)
{
    ring_put(&console->output, text, strlen(text));
}

// ---- Input --------------------------------------------------------------------------------------

static void show_help(struct console *console)
{
    static const char help[] = "\r\n"
                               "Ctrl-A x       end this partition\r\n"
                               "Ctrl-A h       this help\r\n"
                               "Ctrl-A Ctrl-A  send Ctrl-A to the guest\r\n";
    output_say(console, help);
}

// Takes escapes out of terminal input, in place; returns what is left for the guest.
static size_t filter_escapes(struct console *console, uint8_t *bytes, size_t count)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        uint8_t byte = bytes[i];
        if (!console->escaped) {
            console->escaped = byte == ESCAPE;
            if (!console->escaped)
                bytes[kept++] = byte;
            continue;
        }
        console->escaped = false;
        if (byte == 'x' || byte == 'X') {
            console->quit(console->opaque);
            output_say(console, "\r\n");  // leaves the shell a line of its own
        } else if (byte == ESCAPE) {
            bytes[kept++] = byte;
        } else if (byte == 'h' || byte == 'H' || byte == '?') {
            show_help(console);
        }
    }
    return kept;
}

static void client_gone(struct console *console);

// Reads once into the input ring. False when there is nothing (more) to read now.
static bool input_read(struct console *console)
{
    uint8_t bytes[512];
    size_t room = ring_space(&console->input);
    if (console->in_fd < 0 || room == 0)
        return false;
    ssize_t n = read(console->in_fd, bytes, room < sizeof(bytes) ? room : sizeof(bytes));
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return errno == EINTR;
    if (n <= 0) {
        // In raw mode a terminal has no end of file but a hang-up, which may come without SIGHUP.
        if (console->kind == CONSOLE_STDIO && terminal.raw)
            console->quit(console->opaque);
        client_gone(console);  // ended, or failed: a terminal that was hung up is ready for ever
        return false;
    }
    size_t count = (size_t)n;
    if (console->kind == CONSOLE_STDIO && terminal.raw)
        count = filter_escapes(console, bytes, count);
    ring_put(&console->input, bytes, count);
    return true;
}

// Gives the guest what was read; false when it takes no more now.
static bool input_deliver(struct console *console)
{
    const uint8_t *bytes;
    size_t count;
    int fd = console->process ? process_console_input(console->process) : -1;
    while (fd >= 0 && (count = ring_peek(&console->input, &bytes)) > 0) {
        ssize_t n = send(fd, bytes, count, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN)
            return false;
        // A guest that has ended takes everything.
        ring_drop(&console->input, n < 0 ? count : (size_t)n);
    }
    return true;
}

static void console_ready(void *opaque, unsigned events);

// Waits for just what is missing.
static void console_await(struct console *console, bool delivered, bool flushed)
{
    unsigned want_in = ring_space(&console->input) > 0 ? LOOP_READABLE : 0;
    unsigned want_out = flushed ? 0 : LOOP_WRITABLE;
    if (console->guest_watch)
        loop_watch_set(console->guest_watch, delivered ? 0 : LOOP_WRITABLE);
    if (console->in_watch && console->in_fd == console->out_fd) {
        loop_watch_set(console->in_watch, want_in | want_out);
        return;
    }
    if (console->in_watch)
        loop_watch_set(console->in_watch, want_in);
    if (console->out_watch)
        loop_watch_set(console->out_watch, want_out);
}

void console_pump(struct console *console)
{
    bool delivered;
    while ((delivered = input_deliver(console)) && console->in_always && input_read(console))
        ;
    bool flushed = output_move(console);
    console_await(console, delivered, flushed);
}

static void console_ready(void *opaque, unsigned events)
{
    struct console *console = opaque;
    if (events & LOOP_READABLE)
        input_read(console);
    console_pump(console);
}

static void guest_ready(void *opaque, unsigned events)
{
    (void)events;
    console_pump(opaque);
}

static void console_wake(void *opaque)
{
    struct console *console = opaque;
    struct winsize size;
    if (console->kind == CONSOLE_STDIO && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 &&
        size.ws_col > 0)
        process_console_resize(console->process, size.ws_col, size.ws_row);
    console_pump(console);
}

// ---- Clients of a Unix socket -------------------------------------------------------------------

// End of input: of a pipe or file the guest simply gets no more; a socket waits for the next
// client.
static void client_gone(struct console *console)
{
    loop_watch_close(console->in_watch);
    console->in_watch = NULL;
    if (console->kind == CONSOLE_UNIX) {
        close(console->in_fd);
        console->out_fd = -1;
        loop_watch_set(console->listen_watch, LOOP_READABLE);
    }
    console->in_fd = -1;
}

static void client_came(void *opaque, unsigned events)
{
    (void)events;
    struct console *console = opaque;
    int fd = accept4(console->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        // A client that cannot be taken, as the guest's connections have used up all descriptors,
        // is there for ever: do not look all the time.
        loop_watch_set(console->listen_watch, 0);
        loop_timer_start(console->accept_again, ACCEPT_AGAIN_MS);
        return;
    }
    if (loop_watch_create(console->loop, fd, LOOP_READABLE, console_ready, console,
                          &console->in_watch) < 0) {
        close(fd);
        return;
    }
    // The next client waits in the socket's queue until this one has gone.
    loop_watch_set(console->listen_watch, 0);
    console->in_fd = console->out_fd = fd;
    console_pump(console);
}

static void accept_again(void *opaque)
{
    struct console *console = opaque;
    loop_watch_set(console->listen_watch, LOOP_READABLE);
}

// ---- Opening and closing ------------------------------------------------------------------------

// A descriptor of our own for standard output, non-blocking without making the shell's non-blocking
// too: a terminal or pipe is opened anew. What cannot be (another user's terminal) stays blocking,
// a socket is told with each write, and regular files never block.
static int reopen_output(bool *is_socket)
{
    struct stat st = {0};
    int fd = -1;
    if (fstat(STDOUT_FILENO, &st) == 0 && (S_ISCHR(st.st_mode) || S_ISFIFO(st.st_mode)))
        fd = open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    *is_socket = S_ISSOCK(st.st_mode);
    return fd >= 0 ? fd : fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
}

static int open_stdio(struct console *console, struct error *err)
{
    console->out_fd = reopen_output(&console->out_socket);
    if (console->out_fd < 0)
        return error_set_errno(err, -errno, "cannot use standard output as the console");
    console->in_fd = STDIN_FILENO;
    terminal_make_raw();
    return 0;
}

static int open_pty(struct console *console, struct error *err)
{
    char name[128];
    int fd = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    console->in_fd = console->out_fd = fd;
    if (fd < 0 || grantpt(fd) < 0 || unlockpt(fd) < 0 || ptsname_r(fd, name, sizeof(name)) != 0 ||
        (console->pty_client_fd = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC)) < 0)
        return error_set_errno(err, -errno, "cannot open a pseudo-terminal");
    struct termios raw;
    if (tcgetattr(console->pty_client_fd, &raw) == 0) {
        cfmakeraw(&raw);  // until a client sets it otherwise: no echo of the guest to itself
        tcsetattr(console->pty_client_fd, TCSANOW, &raw);
    }
    printf("console: %s\n", name);
    fflush(stdout);
    return 0;
}

// Emptied under the lock that disks are held by: a disk in use, ours too, stays what it is.
static int open_file(struct console *console, const char *path, struct error *err)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    struct stat st;
    int fd = console->out_fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (fd >= 0 && fstat(fd, &st) == 0 && !S_ISREG(st.st_mode))
        return 0;
    if (fd >= 0 && fcntl(fd, F_OFD_SETLK, &lock) < 0 && errno == EAGAIN)
        return error_set(err, -EBUSY,
                         "cannot open \"%s\" for the console: it is in use by this or another "
                         "partition",
                         path);
    if (fd < 0 || ftruncate(fd, 0) < 0)
        return error_set_errno(err, -errno, "cannot open \"%s\" for the console", path);
    return 0;
}

static int open_unix(struct console *console, const char *path, struct error *err)
{
    console->listen_fd = unix_listen(path, err);
    if (console->listen_fd < 0)
        return console->listen_fd;
    console->socket_path = strdup(path);
    return console->socket_path ? 0 : error_set_errno(err, -ENOMEM, "cannot open the console");
}

static int open_kind(struct console *console, const char *path, struct error *err)
{
    switch (console->kind) {
    case CONSOLE_STDIO:
        return open_stdio(console, err);
    case CONSOLE_PTY:
        return open_pty(console, err);
    case CONSOLE_FILE:
        return open_file(console, path, err);
    default:
        return open_unix(console, path, err);
    }
}

int console_open(struct console **out, enum console_kind kind, const char *path, struct loop *loop,
                 void (*quit)(void *opaque), void *opaque, struct error *err)
{
    struct console *console = calloc(1, sizeof(*console));
    if (!console)
        return error_set_errno(err, -ENOMEM, "cannot open the console");
    *console = (struct console){.kind = kind,
                                .quit = quit,
                                .opaque = opaque,
                                .loop = loop,
                                .in_fd = -1,
                                .out_fd = -1,
                                .listen_fd = -1,
                                .pty_client_fd = -1};
    int rc = 0;
    if (ring_init(&console->output, OUTPUT_BYTES) < 0 ||
        ring_init(&console->input, INPUT_BYTES) < 0)
        rc = error_set_errno(err, -ENOMEM, "cannot open the console");
    if (rc == 0)
        rc = open_kind(console, path, err);
    if (rc < 0) {
        console_close(console);
        return rc;
    }
    *out = console;
    return 0;
}

bool console_throttles(const struct console *console)
{
    return console->kind == CONSOLE_STDIO || console->kind == CONSOLE_FILE;
}

// A watch, or NULL for what epoll does not take: regular files, which are always ready.
static struct loop_watch *try_watch(struct console *console, int fd)
{
    struct loop_watch *watch = NULL;
    if (fd < 0 || loop_watch_create(console->loop, fd, 0, console_ready, console, &watch) < 0)
        return NULL;
    return watch;
}

static int watch_clients(struct console *console)
{
    int rc = loop_timer_create(console->loop, accept_again, console, &console->accept_again);
    if (rc == 0)
        rc = loop_watch_create(console->loop, console->listen_fd, LOOP_READABLE, client_came,
                               console, &console->listen_watch);
    return rc;
}

int console_attach(struct console *console, struct process *process, struct error *err)
{
    int rc = loop_wake_create(console->loop, console_wake, console, &console->wake);
    console->process = process;
    console->in_watch = try_watch(console, console->in_fd);
    console->in_always = console->in_fd >= 0 && !console->in_watch;
    if (console->out_fd != console->in_fd)
        console->out_watch = try_watch(console, console->out_fd);
    if (rc == 0)
        rc = loop_watch_create(console->loop, process_console_input(process), 0, guest_ready,
                               console, &console->guest_watch);
    if (rc == 0 && console->listen_fd >= 0)
        rc = watch_clients(console);
    if (rc < 0)
        return error_set_errno(err, rc, "cannot connect the console");
    if (console->kind == CONSOLE_STDIO) {
        struct sigaction action = {.sa_handler = on_resize, .sa_flags = SA_RESTART};
        terminal.resized = console->wake;
        sigaction(SIGWINCH, &action, NULL);
    }
    console_wake(console);
    return 0;
}

static void close_if_open(int fd)
{
    if (fd > STDERR_FILENO)
        close(fd);
}

static void detach(struct console *console)
{
    terminal.resized = NULL;
    loop_watch_close(console->in_watch);
    loop_watch_close(console->out_watch);
    loop_watch_close(console->guest_watch);
    loop_watch_close(console->listen_watch);
    loop_timer_close(console->accept_again);
    loop_wake_close(console->wake);
}

// What the guest wrote last, as far as the reader takes it in time.
static void write_rest(struct console *console)
{
    struct pollfd room = {.fd = console->out_fd, .events = POLLOUT};
    do {
        while (!output_flush(console))
            if (poll(&room, 1, CLOSE_WAIT_MS) <= 0)
                return;
    } while (output_fetch(console));
}

void console_close(struct console *console)
{
    if (!console)
        return;
    detach(console);
    write_rest(console);
    if (console->kind == CONSOLE_STDIO)
        console_restore_terminal();
    close_if_open(console->in_fd);
    if (console->out_fd != console->in_fd)
        close_if_open(console->out_fd);
    close_if_open(console->listen_fd);
    close_if_open(console->pty_client_fd);
    if (console->socket_path)
        unlink(console->socket_path);
    free(console->socket_path);
    ring_fini(&console->output);
    ring_fini(&console->input);
    free(console);
}
