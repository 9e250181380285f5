// SPDX-License-Identifier: BSD-2-Clause
// Connections to ports of a guest, and requests to the agent in it.
//
// The host's end of a partition's vsock device is a Unix socket: "CONNECT PORT\n" is answered "OK
// HOSTPORT\n" once the guest has accepted, and by the end of the connection when it does not
// (virtio/virtio.h). What follows the line is the guest's; so no more is ever taken out of the
// socket than the line that is being read, and a connection can be handed on after any of them.
//
// A call is a small machine: it connects, writes what it has to while it reads lines, and ends. All
// that a guest can do about it is to let it run into its time limit.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "leverage/interceptor.h"

#define LINE_MAX_BYTES 4096u
#define LINES_A_TURN 64u
#define BUSY_WAIT_MS 20u  // the monitor has not accepted those that came before

enum step {
    CONNECTING,
    GREETING,  // the guest is to accept
    ANSWER,    // of the agent
};

struct guest_call {
    struct loop *loop;
    struct loop_timer *timer;
    struct loop_watch *watch;
    uint64_t deadline_ns;
    char *path;
    uint32_t port;
    bool too_large;  // what is to be asked

    enum step step;
    int fd;
    char *out;  // the greeting, and a request behind it that is sent after the answer to it
    size_t greeting_bytes, out_bytes, sent_bytes;
    char line[LINE_MAX_BYTES];
    size_t line_bytes;
    char **lines;
    size_t line_count, answer_bytes;

    guest_connected *connected;  // one of the two
    guest_answered *answered;
    void *opaque;
};

// ---- The end ------------------------------------------------------------------------------------

static void call_free(struct guest_call *call)
{
    loop_watch_close(call->watch);
    loop_timer_close(call->timer);
    if (call->fd >= 0)
        close(call->fd);
    for (size_t i = 0; i < call->line_count; i++)
        free(call->lines[i]);
    free(call->lines);
    if (call->out)
        explicit_bzero(call->out, call->out_bytes);  // it may have had a passphrase
    free(call->out);
    free(call->path);
    free(call);
}

void guest_cancel(struct guest_call *call)
{
    if (call)
        call_free(call);
}

// The connection is the callee's, when it wants it, without anything of ours about it.
static void finish(struct guest_call *call, const struct error *err)
{
    loop_watch_close(call->watch);
    call->watch = NULL;
    loop_timer_stop(call->timer);
    if (call->answered) {
        struct guest_answer answer = {
            .lines = call->lines, .line_count = call->line_count, .fd = err ? -1 : call->fd};
        call->answered(call->opaque, &answer, err);
        if (!err)
            call->fd = answer.fd;
    } else {
        int fd = err ? -1 : call->fd;
        if (!err)
            call->fd = -1;
        call->connected(call->opaque, fd, err);
    }
    call_free(call);
}

static void fail(struct guest_call *call, int code)
{
    struct error err;
    for (size_t i = 0; i < call->line_count; i++)
        free(call->lines[i]);
    call->line_count = 0;
    error_set_errno(&err, code, "cannot talk with port %u of the guest at \"%s\"", call->port,
                    call->path);
    finish(call, &err);
}

// ---- Lines --------------------------------------------------------------------------------------

// What a guest says is shown to people and put into JSON.
static void make_printable(char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        if (text[i] < 0x20 || text[i] > 0x7e)
            text[i] = '?';
}

// Takes the next piece of the line out of the socket, and nothing of what follows it. 1: the line
// is complete (and has no newline), 0: there is more to come, or a negative errno.
static int read_line(struct guest_call *call)
{
    char *next = call->line + call->line_bytes;
    size_t room = sizeof(call->line) - call->line_bytes;
    ssize_t n = recv(call->fd, next, room, MSG_PEEK | MSG_DONTWAIT);
    if (n <= 0)
        return n < 0 && (errno == EAGAIN || errno == EINTR) ? 0
               : call->step == GREETING                     ? -ECONNREFUSED
                                                            : -ECONNRESET;
    char *newline = memchr(next, '\n', (size_t)n);
    size_t bytes = newline ? (size_t)(newline - next) + 1 : (size_t)n;
    if (recv(call->fd, next, bytes, MSG_DONTWAIT) != (ssize_t)bytes)
        return -EIO;
    call->line_bytes += bytes;
    if (!newline)
        return call->line_bytes < sizeof(call->line) ? 0 : -EMSGSIZE;
    *newline = 0;
    return 1;
}

static int keep_line(struct guest_call *call, const char *text)
{
    if ((call->line_count & (call->line_count - 1)) == 0) {
        size_t room = call->line_count ? 2 * call->line_count : 1;
        char **lines = reallocarray(call->lines, room, sizeof(*lines));
        if (!lines)
            return -ENOMEM;
        call->lines = lines;
    }
    char *copy = strdup(text);
    if (!copy)
        return -ENOMEM;
    call->lines[call->line_count++] = copy;
    return 0;
}

// ---- Steps --------------------------------------------------------------------------------------

static void send_more(struct guest_call *call)
{
    size_t end = call->step == GREETING ? call->greeting_bytes : call->out_bytes;
    while (call->sent_bytes < end) {
        ssize_t n = send(call->fd, call->out + call->sent_bytes, end - call->sent_bytes,
                         MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        // Whoever does not listen any more may have said why: what there is to read tells.
        if (n < 0 && errno != EAGAIN)
            call->sent_bytes = end;
        if (n < 0)
            break;
        call->sent_bytes += (size_t)n;
    }
    loop_watch_set(call->watch, LOOP_READABLE | (call->sent_bytes < end ? LOOP_WRITABLE : 0));
}

// Handles a line; 0: the call goes on, 1: it has ended.
static int take_greeting(struct guest_call *call)
{
    if (strncmp(call->line, "OK ", 3) != 0) {
        fail(call, -EPROTO);
        return 1;
    }
    if (call->connected) {
        finish(call, NULL);
        return 1;
    }
    call->step = ANSWER;
    send_more(call);
    return 0;
}

static int take_answer(struct guest_call *call)
{
    struct error err;
    size_t bytes = call->line_bytes - 1;
    make_printable(call->line, bytes);
    call->answer_bytes += bytes + 1;
    if (strcmp(call->line, "ok") == 0) {
        finish(call, NULL);
        return 1;
    }
    if (strncmp(call->line, "error", 5) == 0 && (bytes == 5 || call->line[5] == ' ')) {
        error_set(&err, -EREMOTEIO, "the guest says: %s", bytes > 6 ? call->line + 6 : "error");
        finish(call, &err);
        return 1;
    }
    int rc = strncmp(call->line, "- ", 2) != 0       ? -EPROTO
             : call->answer_bytes > GUEST_ANSWER_MAX ? -EMSGSIZE
                                                     : keep_line(call, call->line + 2);
    if (rc < 0)
        fail(call, rc);
    return rc < 0;
}

// One line, or what there is of it; 0: go on, 1: enough for now, or the call has ended.
static int take_line(struct guest_call *call)
{
    size_t before = call->line_bytes;
    int rc = read_line(call);
    if (rc < 0) {
        fail(call, rc);
        return 1;
    }
    if (rc == 0)
        return call->line_bytes == before;
    rc = call->step == GREETING ? take_greeting(call) : take_answer(call);
    if (rc == 0)
        call->line_bytes = 0;
    return rc;
}

static void call_ready(void *opaque, unsigned events)
{
    struct guest_call *call = opaque;
    if (events & LOOP_WRITABLE)
        send_more(call);
    for (unsigned i = 0; events & LOOP_READABLE && i < LINES_A_TURN; i++)
        if (take_line(call) != 0)
            return;
}

static uint64_t rest_ms(const struct guest_call *call)
{
    uint64_t now_ns = clock_monotonic_ns();
    return now_ns < call->deadline_ns ? (call->deadline_ns - now_ns) / 1000000u + 1 : 0;
}

static int try_connect(struct guest_call *call)
{
    call->fd = unix_connect(call->path, SOCK_STREAM);
    if (call->fd < 0)
        return call->fd;
    call->step = GREETING;
    return loop_watch_create(call->loop, call->fd, LOOP_READABLE | LOOP_WRITABLE, call_ready, call,
                             &call->watch);
}

// The first turn, another one for a monitor that is busy, or the end of the time.
static void on_timer(void *opaque)
{
    struct guest_call *call = opaque;
    int rc = call->too_large                                  ? -EMSGSIZE
             : rest_ms(call) == 0 || call->step != CONNECTING ? -ETIMEDOUT
                                                              : try_connect(call);
    if (rc == -EAGAIN)
        loop_timer_start(call->timer, BUSY_WAIT_MS < rest_ms(call) ? BUSY_WAIT_MS : rest_ms(call));
    else if (rc < 0)
        fail(call, rc);
    else
        loop_timer_start(call->timer, rest_ms(call));
}

// ---- Calls --------------------------------------------------------------------------------------

static int set_out(struct guest_call *call, const struct guest_request *request)
{
    size_t line = request ? request->line_bytes : 0, payload = request ? request->payload_bytes : 0;
    if (line >= GUEST_LINE_MAX || payload > GUEST_PAYLOAD_MAX) {
        call->too_large = true;
        return 0;
    }
    call->out = malloc(64 + line + 1 + payload);
    if (!call->out)
        return -ENOMEM;
    call->greeting_bytes = (size_t)snprintf(call->out, 64, "CONNECT %u\n", call->port);
    char *end = call->out + call->greeting_bytes;
    if (request) {
        end = mempcpy(end, request->line, line);
        *end++ = '\n';
        if (payload)
            end = mempcpy(end, request->payload, payload);
    }
    call->out_bytes = (size_t)(end - call->out);
    return 0;
}

static struct guest_call *call_create(struct loop *loop, const char *vsock_path, uint32_t port,
                                      const struct guest_request *request, unsigned timeout_ms)
{
    struct guest_call *call = calloc(1, sizeof(*call));
    if (!call)
        return NULL;
    call->loop = loop;
    call->port = port;
    call->fd = -1;
    call->deadline_ns = clock_monotonic_ns() + timeout_ms * 1000000ull;
    call->path = strdup(vsock_path);
    if (!call->path || set_out(call, request) < 0 ||
        loop_timer_create(loop, on_timer, call, &call->timer) < 0) {
        call_free(call);
        return NULL;
    }
    loop_timer_start(call->timer, 0);
    return call;
}

struct guest_call *guest_connect(struct loop *loop, const char *vsock_path, uint32_t port,
                                 unsigned timeout_ms, guest_connected *done, void *opaque)
{
    struct guest_call *call = call_create(loop, vsock_path, port, NULL, timeout_ms);
    if (!call)
        return NULL;
    call->connected = done;
    call->opaque = opaque;
    return call;
}

struct guest_call *guest_ask(struct loop *loop, const char *vsock_path,
                             const struct guest_request *request, unsigned timeout_ms,
                             guest_answered *done, void *opaque)
{
    struct guest_call *call = call_create(loop, vsock_path, AGENT_PORT, request, timeout_ms);
    if (!call)
        return NULL;
    call->answered = done;
    call->opaque = opaque;
    return call;
}

// ---- Requests -----------------------------------------------------------------------------------

// A line that has become too long stays so, and is refused when it is to be sent.
static void put(struct guest_request *request, char c)
{
    if (request->line_bytes < GUEST_LINE_MAX)
        request->line[request->line_bytes++] = c;
}

static void put_text(struct guest_request *request, const char *text)
{
    while (*text)
        put(request, *text++);
}

static void put_encoded(struct guest_request *request, const char *text)
{
    static const char digits[] = "0123456789ABCDEF";
    for (; *text; text++) {
        uint8_t c = (uint8_t)*text;
        if (c > 0x20 && c != 0x7f && c != '%' && c != '=') {
            put(request, *text);
            continue;
        }
        put(request, '%');
        put(request, digits[c >> 4]);
        put(request, digits[c & 15]);
    }
}

void guest_request_init(struct guest_request *request, const char *verb)
{
    request->line_bytes = request->payload_bytes = 0;
    request->payload = NULL;
    put_text(request, verb);
}

void guest_request_add(struct guest_request *request, const char *key, const char *format, ...)
{
    char *value;
    va_list arguments;
    va_start(arguments, format);
    int bytes = vasprintf(&value, format, arguments);
    va_end(arguments);
    if (bytes < 0) {
        request->line_bytes = GUEST_LINE_MAX;
        return;
    }
    put(request, ' ');
    put_text(request, key);
    put(request, '=');
    put_encoded(request, value);
    free(value);
}

void guest_request_payload(struct guest_request *request, const void *payload, size_t bytes)
{
    guest_request_add(request, "length", "%zu", bytes);
    request->payload = payload;
    request->payload_bytes = bytes;
}

// ---- What answers have --------------------------------------------------------------------------

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

bool guest_line_value(const char *line, const char *key, char *value, size_t capacity)
{
    size_t key_bytes = strlen(key), used = 0;
    while (strncmp(line, key, key_bytes) != 0 || line[key_bytes] != '=') {
        const char *space = strchr(line, ' ');
        if (!space)
            return false;
        line = space + 1;
    }
    for (const char *c = line + key_bytes + 1; *c && *c != ' '; c++) {
        if (used + 1 >= capacity)
            return false;
        int high = *c == '%' ? hex_digit(c[1]) : -1, low = high >= 0 ? hex_digit(c[2]) : -1;
        value[used++] = low >= 0 ? (char)(16 * high + low) : *c;
        c += low >= 0 ? 2 : 0;
    }
    make_printable(value, used);
    value[used] = 0;
    return true;
}

// ---- Payloads -----------------------------------------------------------------------------------

int guest_payload_read(const char *path, char **bytes, size_t *count, struct error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return error_set_errno(err, -errno, "cannot open \"%s\"", path);
    char *content = malloc(GUEST_PAYLOAD_MAX + 1);
    int64_t n = content ? fd_read_full(fd, content, GUEST_PAYLOAD_MAX + 1) : -ENOMEM;
    close(fd);
    if (n > GUEST_PAYLOAD_MAX)
        n = -EFBIG;
    if (n < 0) {
        free(content);
        return error_set_errno(err, (int)n, "cannot read \"%s\"", path);
    }
    *bytes = content;
    *count = (size_t)n;
    return 0;
}
