// SPDX-License-Identifier: BSD-2-Clause
// Console end points: terminal, pseudo-terminal, file, Unix socket.
//
// Output comes from hart threads and the loop's thread, often a byte at a time. It is collected in
// a ring and written by the loop's thread; whoever finds the ring full writes, too. Where somebody
// reads for sure (terminal, pipe, file) nothing is lost and the guest waits, until the partition is
// being stopped; a pseudo-terminal or a socket that nobody reads loses what does not fit, for a
// guest must not hang on it.
//
// Threading invariant: `lock` guards the rings, the descriptors and `connected`. Watches and wakes
// belong to the loop's thread. The terminal is the process's, so its saved state is file-scope.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "monitor/monitor.h"

#define OUTPUT_BYTES 65536u
#define INPUT_BYTES 4096u
#define ESCAPE 0x01  // Ctrl-A
#define CLOSE_WAIT_MS 200
#define ACCEPT_AGAIN_MS 200

struct console {
    enum console_kind kind;
    void (*quit)(void *opaque);
    void *opaque;
    struct partition *partition;

    pthread_mutex_t lock;
    struct ring output, input;
    int in_fd, out_fd;     // -1: none
    int listen_fd;         // CONSOLE_UNIX
    int pty_client_fd;     // CONSOLE_PTY: our own open end, so that readers may come and go
    int abandon_fd;        // an eventfd, readable once nobody is to wait for output any more
    atomic_bool may_drop;  // nobody may be reading
    bool out_socket;       // standard output is one that stays blocking
    bool loss_told;        // of output that could not be written
    bool in_always;        // a regular file: always ready, and epoll does not take it
    bool escaped;          // the last input byte was the escape
    char *socket_path;

    struct loop_watch *in_watch, *out_watch, *listen_watch;
    struct loop_timer *accept_again;  // CONSOLE_UNIX
    struct loop_wake *wake;
};

// ---- The terminal of the process
// ------------------------------------------------------------------

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

// Writes what the descriptor takes. With the lock held. False when bytes are left.
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

// With the lock held, but for the wait itself: input, and with it the escape, is to get through.
static void output_wait(struct console *console)
{
    struct pollfd fds[] = {{.fd = console->out_fd, .events = POLLOUT},
                           {.fd = console->abandon_fd, .events = POLLIN}};
    pthread_mutex_unlock(&console->lock);
    poll(fds, BASE_COUNT_OF(fds), -1);
    pthread_mutex_lock(&console->lock);
}

void console_output(void *opaque, const void *bytes, size_t count)
{
    struct console *console = opaque;
    pthread_mutex_lock(&console->lock);
    bool was_empty = ring_used(&console->output) == 0;
    while (count > 0) {
        size_t put = ring_put(&console->output, bytes, count);
        bytes = (const uint8_t *)bytes + put;
        count -= put;
        if (count == 0 || output_flush(console))
            continue;
        if (atomic_load(&console->may_drop))
            break;
        output_wait(console);
    }
    pthread_mutex_unlock(&console->lock);
    if (was_empty && console->wake)
        loop_wake_signal(console->wake);
}

void console_abandon(void *opaque)
{
    struct console *console = opaque;
    const uint64_t one = 1;
    int saved = errno;
    atomic_store(&console->may_drop, true);
    (void)!write(console->abandon_fd, &one, sizeof(one));
    errno = saved;
}

// ---- Input --------------------------------------------------------------------------------------

static void show_help(struct console *console)
{
    static const char help[] = "\r\n"
                               "Ctrl-A x       end this partition\r\n"
                               "Ctrl-A h       this help\r\n"
                               "Ctrl-A Ctrl-A  send Ctrl-A to the guest\r\n";
    console_output(console, help, sizeof(help) - 1);
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
            console_output(console, "\r\n", 2);  // leaves the shell a line of its own
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

// Offers the guest what was read; false when it took less than all.
static bool input_deliver(struct console *console)
{
    const uint8_t *bytes;
    size_t count;
    while ((count = ring_peek(&console->input, &bytes)) > 0) {
        size_t taken = partition_console_input(console->partition, bytes, count);
        ring_drop(&console->input, taken);
        if (taken < count)
            return false;
    }
    return true;
}

// Moves what can be moved, then waits for just what is missing. Loop thread.
static void console_pump(void *opaque)
{
    struct console *console = opaque;
    while (input_deliver(console) && console->in_always && input_read(console))
        ;
    pthread_mutex_lock(&console->lock);
    bool flushed = output_flush(console);
    pthread_mutex_unlock(&console->lock);

    unsigned want_in = ring_space(&console->input) > 0 ? LOOP_READABLE : 0;
    unsigned want_out = flushed ? 0 : LOOP_WRITABLE;
    if (console->in_watch && console->in_fd == console->out_fd) {
        loop_watch_set(console->in_watch, want_in | want_out);
        return;
    }
    if (console->in_watch)
        loop_watch_set(console->in_watch, want_in);
    if (console->out_watch)
        loop_watch_set(console->out_watch, want_out);
}

static void console_ready(void *opaque, unsigned events)
{
    struct console *console = opaque;
    if (events & LOOP_READABLE)
        input_read(console);
    console_pump(console);
}

static void console_wake(void *opaque)
{
    struct console *console = opaque;
    struct winsize size;
    if (console->kind == CONSOLE_STDIO && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 &&
        size.ws_col > 0)
        machine_console_resize(partition_machine(console->partition), size.ws_col, size.ws_row);
    console_pump(console);
}

void console_room(void *opaque)
{
    struct console *console = opaque;
    if (console->wake)
        loop_wake_signal(console->wake);
}

// ---- Clients of a Unix socket
// -----------------------------------------------------------------------

// End of input: of a pipe or file the guest simply gets no more; a socket waits for the next
// client.
static void client_gone(struct console *console)
{
    loop_watch_close(console->in_watch);
    console->in_watch = NULL;
    pthread_mutex_lock(&console->lock);
    if (console->kind == CONSOLE_UNIX) {
        close(console->in_fd);
        console->out_fd = -1;
        loop_watch_set(console->listen_watch, LOOP_READABLE);
    }
    console->in_fd = -1;
    pthread_mutex_unlock(&console->lock);
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
    if (loop_watch_create(partition_loop(console->partition), fd, LOOP_READABLE, console_ready,
                          console, &console->in_watch) < 0) {
        close(fd);
        return;
    }
    // The next client waits in the socket's queue until this one has gone.
    loop_watch_set(console->listen_watch, 0);
    pthread_mutex_lock(&console->lock);
    console->in_fd = console->out_fd = fd;
    pthread_mutex_unlock(&console->lock);
    console_pump(console);
}

static void accept_again(void *opaque)
{
    struct console *console = opaque;
    loop_watch_set(console->listen_watch, LOOP_READABLE);
}

// ---- Opening and closing
// ----------------------------------------------------------------------------

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
    console->may_drop = true;
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
    console->may_drop = true;
    return console->socket_path ? 0 : error_set_errno(err, -ENOMEM, "cannot open the console");
}

int console_open(struct console **out, enum console_kind kind, const char *path,
                 void (*quit)(void *opaque), void *opaque, struct error *err)
{
    struct console *console = calloc(1, sizeof(*console));
    if (!console)
        return error_set_errno(err, -ENOMEM, "cannot open the console");
    *console = (struct console){.kind = kind,
                                .quit = quit,
                                .opaque = opaque,
                                .in_fd = -1,
                                .out_fd = -1,
                                .listen_fd = -1,
                                .pty_client_fd = -1,
                                .abandon_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    pthread_mutex_init(&console->lock, NULL);
    int rc = 0;
    if (console->abandon_fd < 0)
        rc = error_set_errno(err, -errno, "cannot open the console");
    else if (ring_init(&console->output, OUTPUT_BYTES) < 0 ||
             ring_init(&console->input, INPUT_BYTES) < 0)
        rc = error_set_errno(err, -ENOMEM, "cannot open the console");
    else if (kind == CONSOLE_STDIO)
        rc = open_stdio(console, err);
    else if (kind == CONSOLE_PTY)
        rc = open_pty(console, err);
    else if (kind == CONSOLE_FILE)
        rc = open_file(console, path, err);
    else
        rc = open_unix(console, path, err);
    if (rc < 0) {
        console_close(console);
        return rc;
    }
    *out = console;
    return 0;
}

// A watch, or NULL for what epoll does not take: regular files, which are always ready.
static struct loop_watch *try_watch(struct console *console, int fd)
{
    struct loop_watch *watch = NULL;
    if (fd < 0 || loop_watch_create(partition_loop(console->partition), fd, 0, console_ready,
                                    console, &watch) < 0)
        return NULL;
    return watch;
}

static void attach_on_loop(void *opaque)
{
    struct console *console = opaque;
    struct loop *loop = partition_loop(console->partition);
    if (loop_wake_create(loop, console_wake, console, &console->wake) < 0)
        return;
    console->in_watch = try_watch(console, console->in_fd);
    console->in_always = console->in_fd >= 0 && !console->in_watch;
    if (console->out_fd != console->in_fd)
        console->out_watch = try_watch(console, console->out_fd);
    if (console->listen_fd >= 0 &&
        (loop_timer_create(loop, accept_again, console, &console->accept_again) < 0 ||
         loop_watch_create(loop, console->listen_fd, LOOP_READABLE, client_came, console,
                           &console->listen_watch) < 0))
        log_line(LOG_ERROR, "cannot wait for clients at \"%s\"", console->socket_path);
    if (console->kind == CONSOLE_STDIO) {
        struct sigaction action = {.sa_handler = on_resize, .sa_flags = SA_RESTART};
        terminal.resized = console->wake;
        sigaction(SIGWINCH, &action, NULL);
    }
    console_wake(console);
}

void console_attach(struct console *console, struct partition *partition)
{
    console->partition = partition;
    loop_call(partition_loop(partition), attach_on_loop, console);
}

static void detach_on_loop(void *opaque)
{
    struct console *console = opaque;
    loop_watch_close(console->in_watch);
    loop_watch_close(console->out_watch);
    loop_watch_close(console->listen_watch);
    loop_timer_close(console->accept_again);
    loop_wake_close(console->wake);
    console->in_watch = console->out_watch = console->listen_watch = NULL;
    console->accept_again = NULL;
    console->wake = NULL;
}

static void close_if_open(int fd)
{
    if (fd > STDERR_FILENO)
        close(fd);
}

void console_close(struct console *console)
{
    if (!console)
        return;
    // On the thread that takes the signals, so that none is half-way through it.
    if (console->kind == CONSOLE_STDIO)
        terminal.resized = NULL;
    if (console->partition)
        loop_call(partition_loop(console->partition), detach_on_loop, console);
    pthread_mutex_lock(&console->lock);
    struct pollfd room = {.fd = console->out_fd, .events = POLLOUT};
    while (!output_flush(console) && poll(&room, 1, CLOSE_WAIT_MS) > 0)
        ;
    pthread_mutex_unlock(&console->lock);
    if (console->kind == CONSOLE_STDIO)
        console_restore_terminal();
    close_if_open(console->in_fd);
    if (console->out_fd != console->in_fd)
        close_if_open(console->out_fd);
    close_if_open(console->listen_fd);
    close_if_open(console->pty_client_fd);
    close_if_open(console->abandon_fd);
    if (console->socket_path)
        unlink(console->socket_path);
    free(console->socket_path);
    ring_fini(&console->output);
    ring_fini(&console->input);
    pthread_mutex_destroy(&console->lock);
    free(console);
}
