// SPDX-License-Identifier: BSD-2-Clause
// The client of guests' ports and of their agent, against guests that answer as they should, in
// pieces, wrongly, too much, or not at all. A guest is a thread behind a socket as a partition's.
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "leverage/interceptor.h"
#include "unit.h"

#define PATIENCE_MS 30000u  // for what comes to an end by itself
#define SHORT_MS 100u       // for what does not

struct guest {
    const char *greeting;  // the answer to "CONNECT ...", NULL: none
    const char *answer;    // what follows what was read
    size_t answer_bytes;   // 0: of the text
    size_t read_bytes;     // of the request, before the answer
    size_t piece;          // bytes a write; 0: all
    bool stay;             // until the client goes
};

struct fixture {
    struct loop *loop;
    char folder[32], path[64];
    int listen_fd;
    const struct guest *guest;
    pthread_t thread;
    char *request;  // what the guest read: greeting and request
    size_t request_bytes;
    // What became of the call.
    unsigned calls;
    struct error err;
    int fd;
    bool take;  // the connection, out of the answer
    char lines[256];
    size_t line_count;
};

#define REQUEST_ROOM (GUEST_PAYLOAD_MAX + GUEST_LINE_MAX + 64u)

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct error err;
    strcpy(f->folder, "/tmp/guest-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    snprintf(f->path, sizeof(f->path), "%s/vsock", f->folder);
    f->listen_fd = unix_listen(f->path, &err);
    assert_true(f->listen_fd >= 0);
    f->request = calloc(1, REQUEST_ROOM);
    assert_int_equal(loop_create(&f->loop, &err), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    loop_destroy(f->loop);
    close(f->listen_fd);
    unlink(f->path);
    rmdir(f->folder);
    free(f->request);
    free(f);
    return 0;
}

// ---- The guest ----------------------------------------------------------------------------------

static void write_pieces(int fd, const char *text, size_t bytes, size_t piece)
{
    while (bytes > 0) {
        size_t n = piece && piece < bytes ? piece : bytes;
        ssize_t written = send(fd, text, n, MSG_NOSIGNAL);
        if (written <= 0)
            return;
        text += written;
        bytes -= (size_t)written;
    }
}

static void read_request(struct fixture *f, int fd, size_t bytes)
{
    ssize_t n = 1;
    while (f->request_bytes < bytes && n > 0) {
        n = recv(fd, f->request + f->request_bytes, bytes - f->request_bytes, 0);
        f->request_bytes += n > 0 ? (size_t)n : 0;
    }
}

static void *be_guest(void *opaque)
{
    struct fixture *f = opaque;
    const struct guest *guest = f->guest;
    int fd;
    while ((fd = accept(f->listen_fd, NULL, NULL)) < 0 && errno == EAGAIN)
        usleep(1000);
    while (f->request_bytes < 64 && !memchr(f->request, '\n', f->request_bytes))
        read_request(f, fd, f->request_bytes + 1);
    if (guest->greeting)
        write_pieces(fd, guest->greeting, strlen(guest->greeting), guest->piece);
    read_request(f, fd, f->request_bytes + guest->read_bytes);
    if (guest->answer)
        write_pieces(fd, guest->answer,
                     guest->answer_bytes ? guest->answer_bytes : strlen(guest->answer),
                     guest->piece);
    char byte;
    while (guest->stay && recv(fd, &byte, 1, 0) > 0)
        ;
    close(fd);
    return NULL;
}

static void start_guest(struct fixture *f, const struct guest *guest)
{
    f->guest = guest;
    f->request_bytes = 0;
    memset(f->request, 0, 64);
    f->calls = 0;
    assert_int_equal(pthread_create(&f->thread, NULL, be_guest, f), 0);
}

// ---- Calls --------------------------------------------------------------------------------------

static void on_end(struct fixture *f, const struct error *err)
{
    f->calls++;
    f->err = err ? *err : (struct error){0};
    loop_stop(f->loop);
}

static void on_connected(void *opaque, int fd, const struct error *err)
{
    struct fixture *f = opaque;
    f->fd = fd;
    on_end(f, err);
}

static void on_answered(void *opaque, struct guest_answer *answer, const struct error *err)
{
    struct fixture *f = opaque;
    size_t used = 0;
    *f->lines = 0;
    f->line_count = answer->line_count;
    for (size_t i = 0; i < answer->line_count && used < sizeof(f->lines); i++)
        used +=
            (size_t)snprintf(f->lines + used, sizeof(f->lines) - used, "[%s]", answer->lines[i]);
    assert_true(!err || answer->fd == -1);
    f->fd = -1;
    if (f->take) {
        f->fd = answer->fd;
        answer->fd = -1;
    }
    on_end(f, err);
}

static void connect_to(struct fixture *f, const char *path, unsigned timeout_ms)
{
    f->fd = -2;
    assert_non_null(guest_connect(f->loop, path, 5000, timeout_ms, on_connected, f));
    assert_int_equal(f->calls, 0);
    loop_run(f->loop);
    assert_int_equal(f->calls, 1);
    printf("%s\n", f->err.code ? f->err.message : "connected");
}

static void ask(struct fixture *f, const struct guest_request *request, unsigned timeout_ms)
{
    assert_non_null(guest_ask(f->loop, f->path, request, timeout_ms, on_answered, f));
    assert_int_equal(f->calls, 0);
    loop_run(f->loop);
    assert_int_equal(f->calls, 1);
    printf("%s %s\n", f->err.code ? f->err.message : "ok", f->lines);
}

// What there is to read from the connection that was given out, which is closed.
static void expect_rest(struct fixture *f, const char *text)
{
    char rest[64] = "";
    assert_true(f->fd >= 0);
    pthread_join(f->thread, NULL);
    ssize_t n = recv(f->fd, rest, sizeof(rest) - 1, 0);
    assert_int_equal(n, strlen(text));
    assert_string_equal(rest, text);
    close(f->fd);
}

// ---- Connections --------------------------------------------------------------------------------

static void connections_are_made(void **state)
{
    struct fixture *f = *state;
    static const struct guest guests[] = {
        {.greeting = "OK 1073741824\n", .answer = "SSH-2.0\nmore"},
        {.greeting = "OK 1\n", .answer = "SSH-2.0\nmore", .piece = 1},
        {.greeting = "OK 1\nSSH-2.0\nmore"},
    };
    for (size_t i = 0; i < BASE_COUNT_OF(guests); i++) {
        start_guest(f, &guests[i]);
        connect_to(f, f->path, PATIENCE_MS);
        assert_int_equal(f->err.code, 0);
        expect_rest(f, "SSH-2.0\nmore");
        assert_string_equal(f->request, "CONNECT 5000\n");
    }
}

static void connections_fail(void **state)
{
    struct fixture *f = *state;
    char missing[96], long_path[256];
    static const struct {
        struct guest guest;
        int code;
    } cases[] = {
        {{.greeting = NULL}, -ECONNREFUSED}, {{.greeting = "OK 1"}, -ECONNREFUSED},
        {{.greeting = "NO\n"}, -EPROTO},     {{.greeting = "\n"}, -EPROTO},
        {{.stay = true}, -ETIMEDOUT},        {{.greeting = "OK ", .stay = true}, -ETIMEDOUT},
    };
    for (size_t i = 0; i < BASE_COUNT_OF(cases); i++) {
        start_guest(f, &cases[i].guest);
        connect_to(f, f->path, cases[i].code == -ETIMEDOUT ? SHORT_MS : PATIENCE_MS);
        assert_int_equal(f->err.code, cases[i].code);
        assert_int_equal(f->fd, -1);
        pthread_join(f->thread, NULL);
    }
    snprintf(missing, sizeof(missing), "%s.not", f->path);
    memset(long_path, 'x', sizeof(long_path));
    long_path[sizeof(long_path) - 1] = 0;
    f->calls = 0;
    connect_to(f, missing, PATIENCE_MS);
    assert_int_equal(f->err.code, -ENOENT);
    f->calls = 0;
    connect_to(f, long_path, PATIENCE_MS);
    assert_int_equal(f->err.code, -ENAMETOOLONG);
}

// The monitor accepts nothing for a while: calls wait for it, and no longer than they may.
static void busy_monitors_are_waited_for(void **state)
{
    struct fixture *f = *state;
    static const struct guest guest = {.greeting = "OK 1\n", .answer = "x", .read_bytes = 0};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fds[64];
    size_t count = 0;
    strcpy(address.sun_path, f->path);
    for (int rc = 0; rc == 0 && count < BASE_COUNT_OF(fds); count += rc == 0) {
        fds[count] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
        rc = connect(fds[count], (struct sockaddr *)&address, sizeof(address));
        if (rc < 0)
            close(fds[count]);
    }
    assert_true(count < BASE_COUNT_OF(fds));
    printf("%zu connections wait to be accepted\n", count);
    connect_to(f, f->path, SHORT_MS);
    assert_int_equal(f->err.code, -ETIMEDOUT);

    f->calls = 0;
    assert_non_null(guest_connect(f->loop, f->path, 5000, PATIENCE_MS, on_connected, f));
    for (size_t i = 0; i < count; i++) {
        close(accept(f->listen_fd, NULL, NULL));
        close(fds[i]);
    }
    start_guest(f, &guest);
    loop_run(f->loop);
    assert_int_equal(f->err.code, 0);
    expect_rest(f, "x");
}

// ---- The agent ----------------------------------------------------------------------------------

static void requests_are_encoded(void **state)
{
    struct fixture *f = *state;
    static const char sent[] = "CONNECT 5355\n"
                               "configure run=fire%20wall outer=02:00:00:00:00:01 x=a%3Db%25%0A "
                               "length=11\nhello world";
    const struct guest guest = {.greeting = "OK 1\n",
                                .read_bytes = strlen(sent) - strlen("CONNECT 5355\n"),
                                .answer = "ok\n"};
    struct guest_request request;
    guest_request_init(&request, "configure");
    guest_request_add(&request, "run", "%s", "fire wall");
    guest_request_add(&request, "outer", "02:00:00:00:00:%02x", 1);
    guest_request_add(&request, "x", "a=b%%\n");
    guest_request_payload(&request, "hello world", 11);
    start_guest(f, &guest);
    ask(f, &request, PATIENCE_MS);
    pthread_join(f->thread, NULL);
    assert_int_equal(f->err.code, 0);
    f->request[f->request_bytes] = 0;
    printf("%s\n", f->request);
    assert_string_equal(f->request, sent);
}

static void answers_are_read(void **state)
{
    struct fixture *f = *state;
    static const struct {
        struct guest guest;
        int code;
        const char *lines, *message;
    } cases[] = {
        {{.answer = "ok\n"}, 0, "", NULL},
        {{.answer = "- a\n- b=1 c=2\nok\n"}, 0, "[a][b=1 c=2]", NULL},
        {{.answer = "- a\n- b=1 c=2\nok\n", .piece = 1}, 0, "[a][b=1 c=2]", NULL},
        {{.answer = "- \n- \xff\x1b[0m\nok\n"}, 0, "[][??[0m]", NULL},
        {{.answer = "- a\nerror line 1: no\x07\n"}, -EREMOTEIO, "[a]", "says: line 1: no?"},
        {{.answer = "error\n"}, -EREMOTEIO, "", "says: error"},
        {{.answer = "okay\n"}, -EPROTO, "", NULL},
        {{.answer = "errors\n"}, -EPROTO, "", NULL},
        {{.answer = "-a\n"}, -EPROTO, "", NULL},
        {{.answer = "\n"}, -EPROTO, "", NULL},
        {{.answer = "- a\n"}, -ECONNRESET, "", NULL},
        {{.answer = "- a\nok"}, -ECONNRESET, "", NULL},
        {{.answer = "- a\nok", .stay = true}, -ETIMEDOUT, "", NULL},
        {{.answer = NULL}, -ECONNRESET, "", NULL},
    };
    struct guest_request request;
    guest_request_init(&request, "hello");
    for (size_t i = 0; i < BASE_COUNT_OF(cases); i++) {
        struct guest guest = cases[i].guest;
        guest.greeting = "OK 1\n";
        guest.read_bytes = strlen("hello\n");
        start_guest(f, &guest);
        ask(f, &request, cases[i].code == -ETIMEDOUT ? SHORT_MS : PATIENCE_MS);
        pthread_join(f->thread, NULL);
        assert_int_equal(f->err.code, cases[i].code);
        assert_string_equal(f->lines, cases[i].lines);
        assert_true(!cases[i].message || strstr(f->err.message, cases[i].message));
    }
}

// Whoever wants the connection gets all that came behind the answer.
static void connections_are_handed_on(void **state)
{
    struct fixture *f = *state;
    static const struct guest guest = {
        .greeting = "OK 1\n", .answer = "- a\nok\n\0\0\0\5\2", .answer_bytes = 12};
    struct guest_request request;
    char rest[8];
    f->take = true;
    guest_request_init(&request, "sftp");
    start_guest(f, &guest);
    ask(f, &request, PATIENCE_MS);
    pthread_join(f->thread, NULL);
    assert_true(f->fd >= 0);
    assert_int_equal(recv(f->fd, rest, sizeof(rest), 0), 5);
    assert_memory_equal(rest, "\0\0\0\5\2", 5);
    close(f->fd);
}

static void answers_are_bounded(void **state)
{
    struct fixture *f = *state;
    const size_t bytes = 2 * GUEST_ANSWER_MAX;
    char *text = calloc(1, bytes + 1);
    struct guest_request request;
    guest_request_init(&request, "hello");
    struct guest guest = {.greeting = "OK 1\n", .answer = text, .answer_bytes = bytes};
    printf("a line without an end:\n");
    memset(text, 'x', bytes);
    start_guest(f, &guest);
    ask(f, &request, PATIENCE_MS);
    pthread_join(f->thread, NULL);
    assert_int_equal(f->err.code, -EMSGSIZE);
    printf("lines without an end:\n");
    for (size_t i = 0; i < bytes; i += 4)
        memcpy(text + i, "- x\n", 4);
    start_guest(f, &guest);
    ask(f, &request, PATIENCE_MS);
    pthread_join(f->thread, NULL);
    assert_int_equal(f->err.code, -EMSGSIZE);
    assert_int_equal(f->line_count, 0);
    printf("as much as there may be:\n");
    size_t most = GUEST_ANSWER_MAX / 4 - 1;
    memcpy(text + 4 * most, "ok\n", 3);
    guest.answer_bytes = 4 * most + 3;
    start_guest(f, &guest);
    ask(f, &request, PATIENCE_MS);
    pthread_join(f->thread, NULL);
    assert_int_equal(f->err.code, 0);
    assert_int_equal(f->line_count, most);
    free(text);
}

static void requests_are_bounded(void **state)
{
    struct fixture *f = *state;
    struct guest_request request;
    char *payload = calloc(1, GUEST_PAYLOAD_MAX + 1);
    char value[1000];
    memset(value, '=', sizeof(value) - 1);
    value[sizeof(value) - 1] = 0;
    guest_request_init(&request, "configure");
    for (int i = 0; i < 6; i++)
        guest_request_add(&request, "x", "%s", value);
    ask(f, &request, PATIENCE_MS);
    assert_int_equal(f->err.code, -EMSGSIZE);
    guest_request_init(&request, "configure");
    guest_request_payload(&request, payload, GUEST_PAYLOAD_MAX + 1);
    f->calls = 0;
    ask(f, &request, PATIENCE_MS);
    assert_int_equal(f->err.code, -EMSGSIZE);

    static const struct guest all = {
        .greeting = "OK 1\n", .read_bytes = GUEST_PAYLOAD_MAX + 25, .answer = "ok\n"};
    memset(payload, 'p', GUEST_PAYLOAD_MAX);
    guest_request_init(&request, "configure");
    guest_request_payload(&request, payload, GUEST_PAYLOAD_MAX);
    assert_int_equal(request.line_bytes + 1, 25);
    start_guest(f, &all);
    ask(f, &request, PATIENCE_MS);
    pthread_join(f->thread, NULL);
    assert_int_equal(f->err.code, 0);
    assert_int_equal(f->request_bytes, 13 + 25 + GUEST_PAYLOAD_MAX);
    assert_memory_equal(f->request + 13 + 25, payload, GUEST_PAYLOAD_MAX);

    // One that refuses before it has read all, and goes.
    static const struct guest early = {
        .greeting = "OK 1\n", .read_bytes = 100, .answer = "error too long\n", .stay = true};
    start_guest(f, &early);
    ask(f, &request, PATIENCE_MS);
    pthread_join(f->thread, NULL);
    assert_int_equal(f->err.code, -EREMOTEIO);
    free(payload);
}

static uint64_t own_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

// A guest that says half a line costs time, but no processor.
static void half_lines_are_slept_over(void **state)
{
    struct fixture *f = *state;
    static const struct guest guest = {
        .greeting = "OK 1\n", .read_bytes = 6, .answer = "- hal", .stay = true};
    struct guest_request request;
    guest_request_init(&request, "hello");
    start_guest(f, &guest);
    uint64_t before_ns = own_ns();
    ask(f, &request, 10 * SHORT_MS);
    uint64_t used_ns = own_ns() - before_ns;
    pthread_join(f->thread, NULL);
    assert_int_equal(f->err.code, -ETIMEDOUT);
    printf("%llu us of %u ms\n", (unsigned long long)used_ns / 1000, 10 * SHORT_MS);
    assert_true(used_ns < 10u * SHORT_MS * 1000000u / 4);
}

static void stop_loop(void *opaque)
{
    loop_stop(opaque);
}

// Before its first turn, and while the guest is silent.
static void calls_are_cancelled(void **state)
{
    struct fixture *f = *state;
    static const struct guest guest = {.greeting = "OK ", .stay = true};
    struct loop_timer *timer;
    assert_int_equal(loop_timer_create(f->loop, stop_loop, f->loop, &timer), 0);
    guest_cancel(NULL);
    guest_cancel(guest_connect(f->loop, f->path, 1, PATIENCE_MS, on_connected, f));
    start_guest(f, &guest);
    struct guest_call *call = guest_connect(f->loop, f->path, 1, PATIENCE_MS, on_connected, f);
    loop_timer_start(timer, SHORT_MS);
    loop_run(f->loop);
    guest_cancel(call);
    pthread_join(f->thread, NULL);  // the connection was closed
    loop_timer_start(timer, 1);
    loop_run(f->loop);
    assert_int_equal(f->calls, 0);
    loop_timer_close(timer);
}

// ---- What goes with it --------------------------------------------------------------------------

static void values_are_found(void **state)
{
    (void)state;
    char value[8];
    assert_true(guest_line_value("run=ips version=7%2e0", "version", value, sizeof(value)));
    assert_string_equal(value, "7.0");
    assert_true(guest_line_value("xrun=a run=b", "run", value, sizeof(value)));
    assert_string_equal(value, "b");
    assert_true(guest_line_value("run= x=1", "run", value, sizeof(value)));
    assert_string_equal(value, "");
    assert_true(guest_line_value("run=%", "run", value, sizeof(value)));
    assert_string_equal(value, "%");
    assert_true(guest_line_value("run=%0a%ff%2", "run", value, sizeof(value)));
    assert_string_equal(value, "??%2");
    assert_false(guest_line_value("runs=a", "run", value, sizeof(value)));
    assert_false(guest_line_value("", "run", value, sizeof(value)));
    assert_false(guest_line_value("run=12345678", "run", value, sizeof(value)));
    assert_true(guest_line_value("run=1234567", "run", value, sizeof(value)));
}

static void payloads_are_read(void **state)
{
    struct fixture *f = *state;
    struct error err;
    char path[96], *bytes;
    size_t count;
    snprintf(path, sizeof(path), "%s/config", f->folder);
    FILE *file = fopen(path, "w");
    fputs("table x", file);
    fclose(file);
    assert_int_equal(guest_payload_read(path, &bytes, &count, &err), 0);
    assert_int_equal(count, 7);
    assert_memory_equal(bytes, "table x", 7);
    free(bytes);
    assert_int_equal(truncate(path, GUEST_PAYLOAD_MAX + 1), 0);
    assert_int_equal(guest_payload_read(path, &bytes, &count, &err), -EFBIG);
    printf("%s\n", err.message);
    unlink(path);
    assert_int_equal(guest_payload_read(path, &bytes, &count, &err), -ENOENT);
    printf("%s\n", err.message);
    assert_int_equal(guest_payload_read(f->folder, &bytes, &count, &err), -EISDIR);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(connections_are_made), TEST(connections_fail),     TEST(busy_monitors_are_waited_for),
        TEST(requests_are_encoded), TEST(answers_are_read),     TEST(connections_are_handed_on),
        TEST(answers_are_bounded),  TEST(requests_are_bounded), TEST(half_lines_are_slept_over),
        TEST(calls_are_cancelled),  TEST(values_are_found),     TEST(payloads_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
