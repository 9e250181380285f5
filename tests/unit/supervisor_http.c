// SPDX-License-Identifier: BSD-2-Clause
// The HTTP layer: routes, limits, replies that come later, streams, clients that go away.
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "supervisor/http.h"
#include "unit.h"

struct fixture {
    struct loop *loop;
    struct loop_timer *timer;
    struct http_server *server;
    pthread_t thread;
    char path[64];
    // The loop's thread's:
    struct http_request *late, *stream;
    unsigned sent;
    atomic_uint ended;  // streams
    atomic_bool waiting;
};

// ---- Routes -------------------------------------------------------------------------------------

static void on_now(void *opaque, struct http_request *request)
{
    (void)opaque;
    const char *word = http_request_query(request, "word");
    http_reply_json(request, 200,
                    json_pack("{s:s,s:s?}", "id", http_request_id(request), "word", word));
}

static void on_echo(void *opaque, struct http_request *request)
{
    struct error err;
    json_t *object = http_request_object(request, "a b", &err);
    (void)opaque;
    if (object)
        http_reply_json(request, 201, object);
    else
        http_reply_error(request, &err);
}

static void on_bytes(void *opaque, struct http_request *request)
{
    size_t bytes;
    (void)opaque;
    (void)http_request_body(request, &bytes);
    http_reply_json(request, 200, json_pack("{s:i}", "bytes", (int)bytes));
}

static void on_timer(void *opaque)
{
    struct fixture *f = opaque;
    if (f->late)
        http_reply_empty(f->late);
    f->late = NULL;
    if (f->stream)
        http_stream_wake(f->stream);
}

static void on_late(void *opaque, struct http_request *request)
{
    struct fixture *f = opaque;
    f->late = request;
    loop_timer_start(f->timer, 20);
}

static void on_never(void *opaque, struct http_request *request)
{
    struct fixture *f = opaque;
    (void)request;
    atomic_store(&f->waiting, true);
}

static int stream_read(void *opaque, char *bytes, size_t space)
{
    struct fixture *f = opaque;
    assert_true(space > 8);
    if (f->sent == 3)
        return 0;
    loop_timer_start(f->timer, 5);
    return f->sent % 2 == 0 ? (memcpy(bytes, "part\n", 5), f->sent++, 5) : (f->sent++, 0);
}

static void stream_closed(void *opaque)
{
    struct fixture *f = opaque;
    f->stream = NULL;
    atomic_fetch_add(&f->ended, 1);
}

static void on_stream(void *opaque, struct http_request *request)
{
    static const struct http_stream stream = {.read = stream_read, .closed = stream_closed};
    struct fixture *f = opaque;
    f->stream = request;
    f->sent = 0;
    http_reply_header(request, "Strake-Test", "yes");
    http_reply_stream(request, HTTP_BYTES, &stream, f);
}

static const struct http_route routes[] = {
    {"GET", "/now", "word", NULL, on_now},
    {"GET", "/things/{id}", NULL, NULL, on_now},
    {"POST", "/things/{id}/echo", NULL, HTTP_JSON, on_echo},
    {"PUT", "/bytes", NULL, HTTP_BYTES, on_bytes},
    {"GET", "/late", NULL, NULL, on_late},
    {"GET", "/never", NULL, NULL, on_never},
    {"GET", "/stream", NULL, NULL, on_stream},
};

// ---- Client -------------------------------------------------------------------------------------

static int call(const struct fixture *f, const char *text, size_t bytes)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    memcpy(address.sun_path, f->path, strlen(f->path) + 1);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(fd_write_full(fd, text, bytes), bytes);
    return fd;
}

// Reads until `end` is there, or the connection ends.
static void expect(int fd, const char *end, char *reply, size_t space)
{
    size_t used = 0;
    reply[0] = 0;
    while (!strstr(reply, end)) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        assert_int_equal(poll(&ready, 1, 30000), 1);
        ssize_t n = read(fd, reply + used, space - 1 - used);
        assert_true(n > 0);
        used += (size_t)n;
        reply[used] = 0;
    }
}

static void check(const struct fixture *f, const char *request, const char *status,
                  const char *words)
{
    char reply[4096];
    int fd = call(f, request, strlen(request));
    expect(fd, words, reply, sizeof(reply));
    if (strncmp(reply + strlen("HTTP/1.1 "), status, 3) != 0)
        fail_msg("%s gave %s", request, reply);
    printf("%.*s -> %s, \"%s\"\n", (int)strcspn(request, "\r"), request, status, words);
    close(fd);
}

static void *run(void *opaque)
{
    loop_run(opaque);
    return NULL;
}

static void destroy(void *opaque)
{
    struct fixture *f = opaque;
    http_server_destroy(f->server);
    f->server = NULL;
}

static int setup(void **state)
{
    struct fixture *f = test_calloc(1, sizeof(*f));
    struct error err;
    snprintf(f->path, sizeof(f->path), "/tmp/strake-http-%d", (int)getpid());
    assert_int_equal(loop_create(&f->loop, NULL), 0);
    assert_int_equal(loop_timer_create(f->loop, on_timer, f, &f->timer), 0);
    const struct http_config config = {.loop = f->loop,
                                       .listen_fd = unix_listen(f->path, &err),
                                       .routes = routes,
                                       .route_count = BASE_COUNT_OF(routes),
                                       .opaque = f};
    assert_true(config.listen_fd >= 0);
    assert_int_equal(http_server_create(&f->server, &config, &err), 0);
    pthread_create(&f->thread, NULL, run, f->loop);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    loop_call(f->loop, destroy, f);
    loop_stop(f->loop);
    pthread_join(f->thread, NULL);
    loop_destroy(f->loop);
    unlink(f->path);
    test_free(f);
    return 0;
}

#define HOST " HTTP/1.1\r\nHost: x\r\n"
#define JSON "Content-Type: application/json\r\nContent-Length: "

static void test_routes(void **state)
{
    const struct fixture *f = *state;
    check(f, "GET /now" HOST "\r\n", "200", "\"word\": null");
    check(f, "GET /now?word=a%20b" HOST "\r\n", "200", "\"word\": \"a b\"");
    check(f, "GET /things/x.y-1" HOST "\r\n", "200", "\"id\": \"x.y-1\"");
    check(f, "HEAD /now" HOST "\r\n", "200", "\r\n\r\n");
    check(f, "GET /now?other=1" HOST "\r\n", "400", "query \\\"other\\\"");
    check(f, "GET /now?word" HOST "\r\n", "400", "has no value");
    check(f, "GET /things/" HOST "\r\n", "404", "no-route");
    check(f, "GET /things/a/b" HOST "\r\n", "404", "no-route");
    check(f, "GET /" HOST "\r\n", "404", "\"error\": \"there is no such path\"");
    check(f, "DELETE /now" HOST "\r\n", "405", "Allow: GET");
    check(f, "BREW /bytes" HOST "\r\n", "405", "Allow: PUT");
    check(f, "GET nonsense\r\n\r\n", "400", "\r\n\r\n");
}

static void test_bodies(void **state)
{
    const struct fixture *f = *state;
    const char *echo = "POST /things/1/echo" HOST;
    static const struct {
        const char *rest, *status, *words;
    } table[] = {
        {JSON "7\r\n\r\n{\"a\":1}", "201", "\"a\": 1"},
        {"\r\n", "201", "{}"},
        {"Content-Type: Application/JSON; charset=utf-8\r\nContent-Length: 2\r\n\r\n{}", "201",
         "{}"},
        {JSON "2\r\n\r\n[]", "400", "not a JSON object"},
        {JSON "2\r\n\r\n{a", "400", "not JSON"},
        {JSON "7\r\n\r\n{\"c\":1}", "400", "key \\\"c\\\" is not known"},
        {JSON "13\r\n\r\n{\"a\":1,\"a\":2}", "400", "duplicate"},
        {JSON "10\r\n\r\n{\"a\":\"\xff\"} ", "400", "not JSON"},
        {"Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}", "415", "application/json"},
        {"Content-Length: 2\r\n\r\n{}", "415", "media-type"},
        {JSON "65537\r\n\r\n", "413", "64 KiB"},
        {JSON "99999999999999999999999\r\n\r\n", "413", "\r\n\r\n"},
        {JSON "-1\r\n\r\n", "400", "\r\n\r\n"},
    };
    for (size_t i = 0; i < BASE_COUNT_OF(table); i++) {
        char request[512];
        snprintf(request, sizeof(request), "%s%s", echo, table[i].rest);
        check(f, request, table[i].status, table[i].words);
    }
    check(f, "GET /now" HOST JSON "2\r\n\r\n{}", "400", "a body is not expected");
}

// In chunks nobody knows the length before.
static void test_chunks(void **state)
{
    const struct fixture *f = *state;
    static char request[70000];
    char reply[1024];
    for (unsigned chunk = 65536; chunk <= 65537; chunk++) {
        int head = snprintf(request, sizeof(request),
                            "PUT /bytes" HOST "Content-Type: application/octet-stream\r\n"
                            "Transfer-Encoding: chunked\r\n\r\n%x\r\n",
                            chunk);
        memset(request + head, 'x', chunk);
        memcpy(request + head + chunk, "\r\n0\r\n\r\n", 7);
        int fd = call(f, request, (size_t)head + chunk + 7);
        expect(fd, chunk == 65536 ? "\"bytes\": 65536" : "64 KiB", reply, sizeof(reply));
        close(fd);
    }
    printf("65536 bytes in chunks are taken, 65537 are not\n");
}

static void test_later(void **state)
{
    const struct fixture *f = *state;
    char reply[1024];
    check(f, "GET /late" HOST "\r\n", "204", "\r\n\r\n");
    // One connection for several, after one that came late, too.
    int fd = call(f, "GET /late" HOST "\r\nGET /now" HOST "\r\n",
                  strlen("GET /late" HOST "\r\nGET /now" HOST "\r\n"));
    expect(fd, "\"word\": null", reply, sizeof(reply));
    assert_true(strstr(reply, " 204 ") && strstr(reply, " 200 "));
    close(fd);
    printf("a later reply leaves the connection usable\n");
}

static void wait_for_end(struct fixture *f, unsigned count)
{
    for (unsigned i = 0; i < 3000 && atomic_load(&f->ended) < count; i++)
        usleep(10000);
    assert_int_equal(atomic_load(&f->ended), count);
}

static void test_stream(void **state)
{
    struct fixture *f = *state;
    char reply[1024];
    int fd = call(f, "GET /stream" HOST "\r\n", strlen("GET /stream" HOST "\r\n"));
    expect(fd, "Strake-Test: yes", reply, sizeof(reply));
    if (!strstr(reply, "part\n\r\n5\r\npart"))
        expect(fd, "part", reply, sizeof(reply));
    usleep(100000);  // it has nothing more to send now
    assert_int_equal(atomic_load(&f->ended), 0);
    close(fd);
    wait_for_end(f, 1);
    printf("a client that leaves a stream at rest is noticed\n");
}

static void test_end(void **state)
{
    struct fixture *f = *state;
    char reply[1024];
    int late = call(f, "GET /never" HOST "\r\n", strlen("GET /never" HOST "\r\n"));
    int stream = call(f, "GET /stream" HOST "\r\n", strlen("GET /stream" HOST "\r\n"));
    expect(stream, "part", reply, sizeof(reply));
    for (unsigned i = 0; i < 3000 && !atomic_load(&f->waiting); i++)
        usleep(10000);
    loop_call(f->loop, destroy, f);
    expect(late, "503", reply, sizeof(reply));
    assert_int_equal(atomic_load(&f->ended), 1);
    close(late);
    close(stream);
    printf("at the end, who waits is told, and streams are closed\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_routes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bodies, setup, teardown),
        cmocka_unit_test_setup_teardown(test_chunks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_later, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stream, setup, teardown),
        cmocka_unit_test_setup_teardown(test_end, setup, teardown),
    };
    return cmocka_run_group_tests_name("supervisor: http", tests, NULL, NULL);
}
