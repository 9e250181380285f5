// SPDX-License-Identifier: BSD-2-Clause
// HTTP over libmicrohttpd, which runs in our event loop: its epoll descriptor is watched, and a
// timer has the rest.
//
// A reply that comes later is a suspended connection: libmicrohttpd forgets it until it is resumed,
// then calls on_access once more, which finds the response. A stream with nothing to send is
// suspended, too; as libmicrohttpd then does not notice that the client has gone, a watch of ours
// does.
#include <errno.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "supervisor/http.h"

#define CONNECTIONS_MAX 256u
#define IDLE_SECONDS 60u  // between requests, and for a request to arrive
#define STATUS_CLASSES 6
#define HEADERS_MAX 3

struct http_server {
    struct MHD_Daemon *mhd;
    struct loop_watch *watch;
    struct loop_timer *timer;
    struct http_config config;
    struct list requests;
    uint64_t (*counts)[STATUS_CLASSES];  // of each route
    bool resumed;                        // something, since MHD_run was called
    bool closing;
};

struct http_request {
    struct list link;
    struct http_server *server;
    struct MHD_Connection *connection;
    const struct http_route *route;
    char *id;
    char *body;
    size_t body_bytes;
    struct reply_header {
        char name[24], value[48];
    } headers[HEADERS_MAX];
    unsigned header_count;
    unsigned status;
    struct MHD_Response *response;  // set by the reply, until it is sent
    bool handled, replied, suspended;

    const struct http_stream *stream;
    void *stream_opaque;
    struct loop_watch *hangup;  // of a stream
    bool hung_up;
};

// ---- Replies ------------------------------------------------------------------------------------

static void resume(struct http_request *request)
{
    if (!request->suspended)
        return;
    request->suspended = false;
    MHD_resume_connection(request->connection);
    // It is looked at in the next MHD_run only, which nothing else may give cause for.
    request->server->resumed = true;
    loop_timer_start(request->server->timer, 0);
}

static void count_reply(const struct http_request *request)
{
    const struct http_server *server = request->server;
    if (request->route)
        server->counts[request->route - server->config.routes][request->status / 100]++;
}

// Gives the request its reply; `response` is taken, NULL means that there was no memory for it.
static void reply(struct http_request *request, unsigned status, const char *type,
                  struct MHD_Response *response)
{
    static char nothing[] = "";
    if (!response) {
        status = MHD_HTTP_INTERNAL_SERVER_ERROR;
        response = MHD_create_response_from_buffer(0, nothing, MHD_RESPMEM_PERSISTENT);
    }
    if (response && type)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    for (unsigned i = 0; response && i < request->header_count; i++)
        MHD_add_response_header(response, request->headers[i].name, request->headers[i].value);
    request->status = status;
    request->response = response;
    request->replied = true;
    count_reply(request);
    resume(request);
}

void http_reply_header(struct http_request *request, const char *name, const char *value)
{
    struct reply_header *header = &request->headers[request->header_count++];
    snprintf(header->name, sizeof(header->name), "%s", name);
    snprintf(header->value, sizeof(header->value), "%s", value);
}

static void reply_buffer(struct http_request *request, unsigned status, const char *type,
                         char *body, size_t bytes)
{
    struct MHD_Response *response =
        body ? MHD_create_response_from_buffer(bytes, body, MHD_RESPMEM_MUST_FREE) : NULL;
    if (!response)
        free(body);
    reply(request, status, type, response);
}

void http_reply_json(struct http_request *request, unsigned status, json_t *body)
{
    char *text = body ? json_dumps(body, JSON_INDENT(2) | JSON_ENCODE_ANY) : NULL;
    json_decref(body);
    size_t bytes = text ? strlen(text) : 0;
    char *line = text ? realloc(text, bytes + 2) : NULL;
    if (line)
        memcpy(line + bytes, "\n", 2);
    else
        free(text);
    reply_buffer(request, status, HTTP_JSON, line, bytes + 1);
}

void http_reply_text(struct http_request *request, const char *type, char *body, size_t bytes)
{
    reply_buffer(request, MHD_HTTP_OK, type, body, bytes);
}

void http_reply_empty(struct http_request *request)
{
    static char nothing[] = "";
    reply(request, MHD_HTTP_NO_CONTENT, NULL,
          MHD_create_response_from_buffer(0, nothing, MHD_RESPMEM_PERSISTENT));
}

static void reply_problem(struct http_request *request, unsigned status, const char *code,
                          const char *message)
{
    // A message may name what was sent to us, which need not be text.
    json_t *text = json_string(message);
    if (!text)
        text = json_string("the request is not UTF-8");
    http_reply_json(request, status, json_pack("{s:o,s:s}", "error", text, "code", code));
}

void http_reply_error(struct http_request *request, const struct error *err)
{
    static const struct {
        int code;
        unsigned status;
        const char *word;
    } table[] = {
        {-EINVAL, MHD_HTTP_BAD_REQUEST, "invalid"},
        {-ERANGE, MHD_HTTP_BAD_REQUEST, "out-of-range"},
        {-EACCES, MHD_HTTP_FORBIDDEN, "forbidden"},
        {-EPERM, MHD_HTTP_FORBIDDEN, "forbidden"},
        {-ESRCH, MHD_HTTP_NOT_FOUND, "unknown"},
        {-EEXIST, MHD_HTTP_CONFLICT, "exists"},
        {-EBUSY, MHD_HTTP_CONFLICT, "busy"},
        {-EALREADY, MHD_HTTP_CONFLICT, "wrong-state"},
        {-ENODEV, MHD_HTTP_CONFLICT, "no-driver"},
        {-ESTALE, MHD_HTTP_GONE, "stale"},
        {-ENOENT, MHD_HTTP_UNPROCESSABLE_CONTENT, "missing"},
        {-ECANCELED, MHD_HTTP_SERVICE_UNAVAILABLE, "cancelled"},
        {-ETIMEDOUT, MHD_HTTP_GATEWAY_TIMEOUT, "timeout"},
        {-EOPNOTSUPP, MHD_HTTP_NOT_IMPLEMENTED, "unsupported"},
        {-ENOSPC, MHD_HTTP_INSUFFICIENT_STORAGE, "no-space"},
    };
    for (size_t i = 0; i < BASE_COUNT_OF(table); i++) {
        if (table[i].code == err->code) {
            reply_problem(request, table[i].status, table[i].word, err->message);
            return;
        }
    }
    reply_problem(request, MHD_HTTP_INTERNAL_SERVER_ERROR, "failed", err->message);
}

// ---- Streams ------------------------------------------------------------------------------------

static void on_hangup(void *opaque, unsigned events)
{
    (void)events;
    struct http_request *request = opaque;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(request->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    char byte;
    ssize_t n = recv(info->connect_fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    loop_watch_set(request->hangup, 0);  // what else the client has sent waits for the end of this
    if (n > 0 || (n < 0 && errno == EAGAIN))
        return;
    request->hung_up = true;
    resume(request);
}

static ssize_t stream_read(void *opaque, uint64_t position, char *bytes, size_t space)
{
    (void)position;
    struct http_request *request = opaque;
    int n = request->hung_up ? -1 : request->stream->read(request->stream_opaque, bytes, space);
    if (n != 0)
        return n < 0 ? MHD_CONTENT_READER_END_OF_STREAM : n;
    MHD_suspend_connection(request->connection);
    request->suspended = true;
    loop_watch_set(request->hangup, LOOP_READABLE);
    return 0;
}

void http_reply_stream(struct http_request *request, const char *type,
                       const struct http_stream *stream, void *opaque)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(request->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    request->stream = stream;
    request->stream_opaque = opaque;
    struct MHD_Response *response = NULL;
    if (loop_watch_create(request->server->config.loop, info->connect_fd, 0, on_hangup, request,
                          &request->hangup) == 0)
        response =
            MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16384, stream_read, request, NULL);
    // A reader may be as slow as it likes.
    MHD_set_connection_option(request->connection, MHD_CONNECTION_OPTION_TIMEOUT, 0u);
    if (response)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    reply(request, MHD_HTTP_OK, type, response);
}

void http_stream_wake(struct http_request *request)
{
    if (!request->suspended)
        return;
    loop_watch_set(request->hangup, 0);
    resume(request);
}

// ---- Requests -----------------------------------------------------------------------------------

const char *http_request_id(const struct http_request *request)
{
    return request->id ? request->id : "";
}

const char *http_request_query(const struct http_request *request, const char *name)
{
    return MHD_lookup_connection_value(request->connection, MHD_GET_ARGUMENT_KIND, name);
}

const void *http_request_body(const struct http_request *request, size_t *bytes)
{
    *bytes = request->body_bytes;
    return request->body ? request->body : "";
}

// Whether `word` is among those of `list`, which have spaces between them.
static bool has_word(const char *list, const char *word, size_t length)
{
    for (const char *at = list; at && *at; at += strspn(at, " ")) {
        size_t n = strcspn(at, " ");
        if (n == length && memcmp(at, word, n) == 0)
            return true;
        at += n;
    }
    return false;
}

json_t *http_request_object(const struct http_request *request, const char *keys, struct error *err)
{
    if (request->body_bytes == 0)
        return json_object();
    json_error_t wrong;
    json_t *object = json_loadb(request->body, request->body_bytes, JSON_REJECT_DUPLICATES, &wrong);
    if (!object) {
        error_set(err, -EINVAL, "the body is not JSON: %s (line %d)", wrong.text, wrong.line);
        return NULL;
    }
    if (!json_is_object(object)) {
        error_set(err, -EINVAL, "the body is not a JSON object");
        json_decref(object);
        return NULL;
    }
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
    {
        if (!keys || has_word(keys, key, strlen(key)))
            continue;
        error_set(err, -EINVAL, "key \"%s\" is not known here", key);
        json_decref(object);
        return NULL;
    }
    return object;
}

// Whether the path is the route's; *id is set to what stands for its segment in braces.
static bool path_fits(const char *pattern, const char *path, const char **id, size_t *id_length)
{
    const char *variable = strchr(pattern, '{');
    if (!variable)
        return strcmp(pattern, path) == 0;
    size_t before = (size_t)(variable - pattern);
    if (strncmp(pattern, path, before) != 0)
        return false;
    *id = path + before;
    *id_length = strcspn(*id, "/");
    return *id_length > 0 && strcmp(strchr(variable, '}') + 1, *id + *id_length) == 0;
}

// Finds the route. Without one, tells which methods the path has, if any.
static void find_route(struct http_request *request, const char *path, const char *method,
                       char *allow, size_t allow_bytes)
{
    const struct http_config *config = &request->server->config;
    for (size_t i = 0; i < config->route_count && !request->route; i++) {
        const struct http_route *route = &config->routes[i];
        const char *id = NULL;
        size_t length = 0;
        if (!path_fits(route->path, path, &id, &length))
            continue;
        if (strcmp(route->method, method) != 0) {
            size_t used = strlen(allow);
            snprintf(allow + used, allow_bytes - used, "%s%s", used ? ", " : "", route->method);
            continue;
        }
        request->route = route;
        request->id = id ? strndup(id, length) : NULL;
    }
}

static enum MHD_Result check_query(void *opaque, enum MHD_ValueKind kind, const char *name,
                                   const char *value)
{
    (void)kind;
    struct http_request *request = opaque;
    struct error err;
    if (value && has_word(request->route->query, name, strlen(name)))
        return MHD_YES;
    error_set(&err, -EINVAL, value ? "query \"%s\" is not known here" : "query \"%s\" has no value",
              name);
    http_reply_error(request, &err);
    return MHD_NO;
}

static const char *header(const struct http_request *request, const char *name)
{
    return MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, name);
}

// Media types are compared without their parameters (RFC 9110, 8.3.1).
static bool is_media_type(const char *value, const char *type)
{
    size_t length = strcspn(value, "; \t");
    return length == strlen(type) && strncasecmp(value, type, length) == 0;
}

static void check_headers(struct http_request *request)
{
    const char *length = header(request, MHD_HTTP_HEADER_CONTENT_LENGTH);
    const char *type = header(request, MHD_HTTP_HEADER_CONTENT_TYPE);
    bool has_body =
        (length && strcmp(length, "0") != 0) || header(request, MHD_HTTP_HEADER_TRANSFER_ENCODING);
    // libmicrohttpd has refused lengths that are no numbers.
    if (length && strtoull(length, NULL, 10) > HTTP_BODY_BYTES_MAX)
        reply_problem(request, MHD_HTTP_CONTENT_TOO_LARGE, "too-large",
                      "the body is larger than 64 KiB");
    else if (has_body && !request->route->body)
        reply_problem(request, MHD_HTTP_BAD_REQUEST, "invalid", "a body is not expected here");
    else if (has_body && (!type || !is_media_type(type, request->route->body)))
        reply_problem(request, MHD_HTTP_UNSUPPORTED_MEDIA_TYPE, "media-type",
                      strcmp(request->route->body, HTTP_JSON) == 0
                          ? "the body's Content-Type is not application/json"
                          : "the body's Content-Type is not application/octet-stream");
}

// What can be refused before the body is there.
static void admit(struct http_request *request, const char *path, const char *method)
{
    char allow[64] = "";
    find_route(request, path, strcmp(method, MHD_HTTP_METHOD_HEAD) == 0 ? "GET" : method, allow,
               sizeof(allow));
    if (!request->route && *allow) {
        http_reply_header(request, MHD_HTTP_HEADER_ALLOW, allow);
        reply_problem(request, MHD_HTTP_METHOD_NOT_ALLOWED, "method",
                      "this path does not have that method");
    } else if (!request->route) {
        reply_problem(request, MHD_HTTP_NOT_FOUND, "no-route", "there is no such path");
    } else {
        check_headers(request);
    }
    if (!request->replied)
        MHD_get_connection_values(request->connection, MHD_GET_ARGUMENT_KIND, check_query, request);
}

// False: there is more of it than anybody is going to read.
static bool take_body(struct http_request *request, const char *bytes, size_t count)
{
    if (request->replied) {
        request->body_bytes += count;
        return request->body_bytes <= 2 * HTTP_BODY_BYTES_MAX;
    }
    if (count > HTTP_BODY_BYTES_MAX - request->body_bytes) {
        reply_problem(request, MHD_HTTP_CONTENT_TOO_LARGE, "too-large",
                      "the body is larger than 64 KiB");
        return true;
    }
    char *body = realloc(request->body, request->body_bytes + count + 1);
    if (!body) {
        reply(request, 0, NULL, NULL);
        return true;
    }
    memcpy(body + request->body_bytes, bytes, count);
    request->body = body;
    request->body_bytes += count;
    body[request->body_bytes] = 0;
    return true;
}

static enum MHD_Result send_reply(struct http_request *request)
{
    if (!request->response)
        return MHD_NO;  // not even an empty one could be made: the connection ends
    enum MHD_Result result =
        MHD_queue_response(request->connection, request->status, request->response);
    MHD_destroy_response(request->response);
    request->response = NULL;
    return result;
}

static struct http_request *request_create(struct http_server *server,
                                           struct MHD_Connection *connection)
{
    struct http_request *request = calloc(1, sizeof(*request));
    if (!request)
        return NULL;
    request->server = server;
    request->connection = connection;
    list_append(&server->requests, &request->link);
    return request;
}

// Called once when the headers are there, then for each part of the body, then until there is a
// reply.
static enum MHD_Result on_access(void *opaque, struct MHD_Connection *connection, const char *path,
                                 const char *method, const char *version, const char *bytes,
                                 size_t *count, void **request_slot)
{
    (void)version;
    struct http_server *server = opaque;
    struct http_request *request = *request_slot;
    if (!request) {
        request = *request_slot = request_create(server, connection);
        if (!request)
            return MHD_NO;
        admit(request, path, method);
        // A refusal waits for the body, so that the client has sent it and reads; but for one that
        // is too large.
        return request->status == MHD_HTTP_CONTENT_TOO_LARGE ? send_reply(request) : MHD_YES;
    }
    if (*count > 0) {
        bool go_on = take_body(request, bytes, *count);
        *count = 0;
        return go_on ? MHD_YES : MHD_NO;
    }
    if (!request->handled && !request->replied) {
        request->handled = true;
        if (server->closing)
            reply_problem(request, MHD_HTTP_SERVICE_UNAVAILABLE, "cancelled",
                          "the supervisor is ending");
        else
            request->route->handle(server->config.opaque, request);
    }
    if (request->replied)
        return send_reply(request);
    MHD_suspend_connection(connection);
    request->suspended = true;
    return MHD_YES;
}

static void on_completed(void *opaque, struct MHD_Connection *connection, void **request_slot,
                         enum MHD_RequestTerminationCode why)
{
    (void)opaque;
    (void)connection;
    (void)why;
    struct http_request *request = *request_slot;
    if (!request)
        return;
    *request_slot = NULL;
    list_remove(&request->link);
    loop_watch_close(request->hangup);
    if (request->stream)
        request->stream->closed(request->stream_opaque);
    if (request->response)
        MHD_destroy_response(request->response);
    free(request->id);
    free(request->body);
    free(request);
}

// ---- The server ---------------------------------------------------------------------------------

static void serve(void *opaque)
{
    struct http_server *server = opaque;
    MHD_UNSIGNED_LONG_LONG wait_ms;
    server->resumed = false;
    MHD_run(server->mhd);
    loop_timer_stop(server->timer);
    if (server->resumed)
        loop_timer_start(server->timer, 0);
    else if (MHD_get_timeout(server->mhd, &wait_ms) == MHD_YES)
        loop_timer_start(server->timer, wait_ms);
}

static void on_ready(void *opaque, unsigned events)
{
    (void)events;
    serve(opaque);
}

static void on_message(void *opaque, const char *format, va_list args)
{
    (void)opaque;
    char text[256];
    vsnprintf(text, sizeof(text), format, args);
    text[strcspn(text, "\n")] = 0;
    log_line(LOG_DEBUG, "API: %s", text);
}

static int start(struct http_server *server)
{
    const struct http_config *config = &server->config;
    server->counts = calloc(config->route_count, sizeof(*server->counts));
    if (!server->counts)
        return -ENOMEM;
    server->mhd =
        MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL,
                         NULL, on_access, server, MHD_OPTION_EXTERNAL_LOGGER, on_message, NULL,
                         MHD_OPTION_LISTEN_SOCKET, config->listen_fd, MHD_OPTION_NOTIFY_COMPLETED,
                         on_completed, server, MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS_MAX,
                         MHD_OPTION_CONNECTION_TIMEOUT, IDLE_SECONDS, MHD_OPTION_END);
    if (!server->mhd)
        return errno ? -errno : -EIO;
    int rc = loop_timer_create(config->loop, serve, server, &server->timer);
    if (rc < 0)
        return rc;
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(server->mhd, MHD_DAEMON_INFO_EPOLL_FD);
    return loop_watch_create(config->loop, info->epoll_fd, LOOP_READABLE, on_ready, server,
                             &server->watch);
}

int http_server_create(struct http_server **out, const struct http_config *config,
                       struct error *err)
{
    struct http_server *server = calloc(1, sizeof(*server));
    if (!server) {
        close(config->listen_fd);
        return error_set_errno(err, -ENOMEM, "cannot serve the API");
    }
    server->config = *config;
    list_init(&server->requests);
    errno = 0;
    int rc = start(server);
    if (rc < 0) {
        if (!server->mhd)
            close(config->listen_fd);
        http_server_destroy(server);
        return error_set_errno(err, rc, "cannot serve the API");
    }
    *out = server;
    return 0;
}

static void cancel(struct http_request *request)
{
    request->hung_up = true;  // ends a stream
    if (request->replied)
        resume(request);
    else if (request->handled)
        reply_problem(request, MHD_HTTP_SERVICE_UNAVAILABLE, "cancelled",
                      "the supervisor is ending");
}

void http_server_destroy(struct http_server *server)
{
    if (!server)
        return;
    loop_watch_close(server->watch);
    server->closing = true;
    LIST_FOR_EACH(&server->requests, node)
    cancel(BASE_CONTAINER_OF(node, struct http_request, link));
    // No connection may be suspended when it stops. What the sockets take at once is sent.
    if (server->mhd) {
        MHD_run(server->mhd);
        MHD_run(server->mhd);
        MHD_stop_daemon(server->mhd);
    }
    loop_timer_close(server->timer);
    free(server->counts);
    free(server);
}

bool http_server_is_quiet(const struct http_server *server)
{
    LIST_FOR_EACH(&server->requests, node)
    if (!BASE_CONTAINER_OF(node, struct http_request, link)->stream)
        return false;
    return true;
}

uint64_t http_server_count(const struct http_server *server, size_t route, unsigned status_class)
{
    return status_class < STATUS_CLASSES ? server->counts[route][status_class] : 0;
}
