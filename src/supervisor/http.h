// SPDX-License-Identifier: BSD-2-Clause
// HTTP/1.1 on a listening socket, served by an event loop: libmicrohttpd does the protocol, this
// does routes, limits, JSON, replies that come later, and bodies that go on. Private to this room.
//
// Threads: all of it belongs to the loop's thread.
#ifndef STRAKE_SUPERVISOR_HTTP_H
#define STRAKE_SUPERVISOR_HTTP_H

#include <jansson.h>

#include "base/base.h"

#define HTTP_BODY_BYTES_MAX 65536u  // of a request
#define HTTP_JSON "application/json"
#define HTTP_BYTES "application/octet-stream"

struct http_server;
struct http_request;

struct http_route {
    const char *method;
    const char *path;   // may have one segment such as "{id}", which matches any
    const char *query;  // names of the query's values, with spaces between; NULL: none
    const char *body;   // media type of the request's body, which may be empty; NULL: has none
    // Replies, or keeps the request and replies later. It stays valid until the reply.
    void (*handle)(void *opaque, struct http_request *request);
};

struct http_config {
    struct loop *loop;
    int listen_fd;  // the server's from here, also on failure
    const struct http_route *routes;
    size_t route_count;
    void *opaque;  // of the handlers
};

BASE_NODISCARD int http_server_create(struct http_server **out, const struct http_config *config,
                                      struct error *err);
// What has not been replied to is answered 503. NULL is ignored.
void http_server_destroy(struct http_server *server);

// Whether all requests but streams have been answered, and the answers sent.
bool http_server_is_quiet(const struct http_server *server);

// Requests answered since the start, of one route and one class of status (2: 200 to 299, ...).
uint64_t http_server_count(const struct http_server *server, size_t route, unsigned status_class);

// ---- A request ----------------------------------------------------------------------------------

// What stands for the segment in braces in the path; "" where the route has none.
const char *http_request_id(const struct http_request *request);
// A value of the query, or NULL.
const char *http_request_query(const struct http_request *request, const char *name);
// The body as it came; its end is followed by a NUL that does not count.
const void *http_request_body(const struct http_request *request, size_t *bytes);
// The body as a JSON object that is the caller's; {} when there is no body. NULL with *err set when
// it is no JSON, no object, has a key twice, or one not in `keys` (spaces between; NULL: any).
json_t *http_request_object(const struct http_request *request, const char *keys,
                            struct error *err);

// ---- Replies: one for each request --------------------------------------------------------------

// A header of the reply, set before it: up to three short ones.
void http_reply_header(struct http_request *request, const char *name, const char *value);
// `body` is taken; NULL: out of memory, which is answered 500.
void http_reply_json(struct http_request *request, unsigned status, json_t *body);
// `body` comes from malloc and is taken.
void http_reply_text(struct http_request *request, const char *type, char *body, size_t bytes);
void http_reply_empty(struct http_request *request);
// {"error": message, "code": word}, with the status that goes with err->code.
void http_reply_error(struct http_request *request, const struct error *err);

// A body without known end. read: puts up to `space` bytes; returns their number, 0 when there are
// none now (it is asked again after http_stream_wake), -1 at the end. closed: called once when the
// stream has ended, or the client is gone; the request is gone after it.
struct http_stream {
    int (*read)(void *opaque, char *bytes, size_t space);
    void (*closed)(void *opaque);
};
void http_reply_stream(struct http_request *request, const char *type,
                       const struct http_stream *stream, void *opaque);
void http_stream_wake(struct http_request *request);

#endif
