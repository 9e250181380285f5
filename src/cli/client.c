// SPDX-License-Identifier: BSD-2-Clause
// The supervisor's API from the command line's side, over libcurl.
#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/client.h"
#include "monitor/monitor.h"

#define REPLY_BYTES_MAX (64u << 20)  // more than any list of partitions
#define BASE_URL "http://strake"     // the host's name does not matter on a Unix socket

struct client {
    CURL *curl;
    struct curl_slist *json_header, *bytes_header;
    char *socket;
};

struct reply {
    char *bytes;
    size_t used;
};

// ---- Paths and files ----------------------------------------------------------------------------

static int put_path(char path[PATH_MAX], const char *folder, const char *rest, struct error *err)
{
    if (snprintf(path, PATH_MAX, "%s%s", folder, rest) >= PATH_MAX)
        return error_set(err, -ENAMETOOLONG, "the path \"%.40s...\" is too long", folder);
    return 0;
}

// The variable, when it is an absolute path: others are to be ignored.
static const char *folder_variable(const char *name)
{
    const char *value = getenv(name);
    return value && *value == '/' ? value : NULL;
}

static int user_paths(struct client_paths *paths, struct error *err)
{
    const char *state = folder_variable("XDG_STATE_HOME"), *home = folder_variable("HOME");
    const char *run = folder_variable("XDG_RUNTIME_DIR");
    if (!state && !home)
        return error_set(err, -ENOENT, "neither HOME nor XDG_STATE_HOME is set");
    int rc = put_path(paths->state_dir, state ? state : home,
                      state ? "/strake" : "/.local/state/strake", err);
    if (rc == 0)
        rc = put_path(paths->run_dir, run ? run : paths->state_dir, run ? "/strake" : "/run", err);
    return rc;
}

int client_paths(struct client_paths *paths, struct error *err)
{
    int rc = 0;
    if (geteuid() == 0)
        *paths = (struct client_paths){.state_dir = "/var/lib/strake", .run_dir = "/run/strake"};
    else
        rc = user_paths(paths, err);
    return rc < 0 ? rc : put_path(paths->socket, paths->run_dir, "/strake.sock", err);
}

int client_absolute_path(char **out, const char *path, struct error *err)
{
    char folder[PATH_MAX] = "";
    if (*path != '/' && !getcwd(folder, sizeof(folder)))
        return error_set_errno(err, -errno, "cannot tell which folder this is");
    if (asprintf(out, "%s%s%s", folder, *folder ? "/" : "", path) < 0)
        return error_set_errno(err, -ENOMEM, "cannot use \"%s\"", path);
    return 0;
}

int client_make_path_absolute(const char *key, char **path, struct error *err)
{
    char *absolute = NULL;
    int rc = client_absolute_path(&absolute, *path, err);
    (void)key;
    if (rc < 0)
        return rc;
    free(*path);
    *path = absolute;
    return 0;
}

int client_make_paths_absolute(struct definition *definition, struct error *err)
{
    return definition_each_path(definition, client_make_path_absolute, err);
}

const char *client_text(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

int client_read_object(const char *path, json_t **out, struct error *err)
{
    bool input = strcmp(path, "-") == 0;
    FILE *file = input ? stdin : fopen(path, "re");
    json_error_t wrong;
    if (!file)
        return error_set_errno(err, -errno, "cannot open \"%s\"", path);
    json_t *object = json_loadf(file, JSON_REJECT_DUPLICATES, &wrong);
    if (!input)
        fclose(file);
    if (json_is_object(object)) {
        *out = object;
        return 0;
    }
    json_decref(object);
    return error_set(err, -EINVAL, "\"%s\" is not a JSON object: %s (line %d)", path,
                     object ? "it is something else" : wrong.text, object ? 1 : wrong.line);
}

// ---- Calls --------------------------------------------------------------------------------------

int client_open(struct client **out, const char *socket, struct error *err)
{
    struct client_paths paths;
    struct client *client;
    int rc = 0;
    if (!socket)
        socket = getenv("STRAKE_SOCKET");
    if (!socket || !*socket) {
        rc = client_paths(&paths, err);
        socket = paths.socket;
    }
    if (rc < 0)
        return rc;
    client = calloc(1, sizeof(*client));
    if (client && curl_global_init(CURL_GLOBAL_NOTHING) == 0) {
        client->curl = curl_easy_init();
        client->socket = strdup(socket);
        client->json_header = curl_slist_append(NULL, "Content-Type: application/json");
        client->bytes_header = curl_slist_append(NULL, "Content-Type: application/octet-stream");
    }
    if (client && client->curl && client->socket && client->json_header && client->bytes_header) {
        *out = client;
        return 0;
    }
    client_close(client);
    return error_set_errno(err, -ENOMEM, "cannot call the supervisor");
}

void client_close(struct client *client)
{
    if (!client)
        return;
    curl_easy_cleanup(client->curl);
    curl_slist_free_all(client->json_header);
    curl_slist_free_all(client->bytes_header);
    free(client->socket);
    free(client);
}

static size_t take_reply(char *bytes, size_t size, size_t count, void *opaque)
{
    (void)size;  // 1
    struct reply *reply = opaque;
    char *grown =
        count < REPLY_BYTES_MAX - reply->used ? realloc(reply->bytes, reply->used + count) : NULL;
    if (!grown)
        return 0;
    memcpy(grown + reply->used, bytes, count);
    reply->bytes = grown;
    reply->used += count;
    return count;
}

static int call_failed(const struct client *client, CURL *curl, CURLcode code, struct error *err)
{
    long reason = 0;
    curl_easy_getinfo(curl, CURLINFO_OS_ERRNO, &reason);
    if (code == CURLE_COULDNT_CONNECT && (reason == EACCES || reason == EPERM))
        return error_set(err, -EACCES, "you may not talk with the supervisor at \"%s\"",
                         client->socket);
    if (code == CURLE_COULDNT_CONNECT)
        return error_set(err, -ENOTCONN,
                         "there is no supervisor at \"%s\" (start it with: strake daemon)",
                         client->socket);
    return error_set(err, -EIO, "the supervisor at \"%s\" does not answer: %s", client->socket,
                     curl_easy_strerror(code));
}

static void prepare(const struct client *client, CURL *curl, const char *path)
{
    char url[2048];
    snprintf(url, sizeof(url), BASE_URL "%s", path);
    curl_easy_reset(curl);
    curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, client->socket);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_PROXY, "");
}

// What the reply says, as a result.
static int judge(const struct client *client, long status, const struct reply *reply,
                 json_t **answer, struct error *err)
{
    json_error_t wrong;
    json_t *object =
        reply->used > 0 ? json_loadb(reply->bytes, reply->used, JSON_DECODE_ANY, &wrong) : NULL;
    if (status >= 200 && status < 300 && (object || reply->used == 0)) {
        if (answer)
            *answer = object;
        else
            json_decref(object);
        return 0;
    }
    const char *message = json_string_value(json_object_get(object, "error"));
    int rc = message ? error_set(err, -EREMOTEIO, "%s", message)
                     : error_set(err, -EPROTO, "what listens at \"%s\" is no supervisor",
                                 client->socket);
    json_decref(object);
    return rc;
}

static int call(struct client *client, const char *method, const char *path,
                const struct curl_slist *header, const void *body, size_t body_bytes,
                json_t **answer, struct error *err)
{
    CURL *curl = client->curl;
    struct reply reply = {0};
    long status = 0;
    prepare(client, curl, path);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take_reply);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &reply);
    if (body) {
        curl_easy_setopt(curl, CURLOPT_HTTPHEADER, header);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body_bytes);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
    }
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method);
    CURLcode code = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    int rc = code == CURLE_OK ? judge(client, status, &reply, answer, err)
                              : call_failed(client, curl, code, err);
    free(reply.bytes);
    return rc;
}

int client_call(struct client *client, const char *method, const char *path, json_t *body,
                json_t **reply, struct error *err)
{
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    bool lost = body && !text;
    json_decref(body);
    if (reply)
        *reply = NULL;
    if (lost)
        return error_set_errno(err, -ENOMEM, "cannot call the supervisor");
    int rc =
        call(client, method, path, client->json_header, text, text ? strlen(text) : 0, reply, err);
    free(text);
    return rc;
}

int client_send(struct client *client, const char *path, const void *bytes, size_t count,
                json_t **reply, struct error *err)
{
    *reply = NULL;
    return call(client, "POST", path, client->bytes_header, bytes, count, reply, err);
}

int client_find(struct client *client, const char *name, char *path, size_t bytes,
                struct error *err)
{
    char query[1024];
    char *quoted = curl_easy_escape(client->curl, name, 0);
    json_t *list;
    int n = snprintf(query, sizeof(query), "/v1/partitions?name=%s", quoted ? quoted : "");
    curl_free(quoted);
    if (n >= (int)sizeof(query))
        return error_set(err, -EINVAL, "there is no partition \"%.40s...\"", name);
    int rc = client_call(client, "GET", query, NULL, &list, err);
    if (rc < 0)
        return rc;
    const char *id = json_string_value(json_object_get(json_array_get(list, 0), "id"));
    if (!id)
        rc = error_set(err, -ESRCH, "there is no partition \"%s\"", name);
    else
        snprintf(path, bytes, "/v1/partitions/%s", id);
    json_decref(list);
    return rc;
}

// ---- Streams ------------------------------------------------------------------------------------

struct client_stream {
    struct client *client;
    CURLM *multi;
    CURL *curl;
    const struct client_stream_events *events;
    void *opaque;
    struct reply refusal;
};

static size_t on_header_line(char *line, size_t size, size_t count, void *opaque)
{
    (void)size;
    struct client_stream *stream = opaque;
    char name[128];
    snprintf(name, sizeof(name), "%.*s", (int)(count < 127 ? count : 127), line);
    name[strcspn(name, "\r\n")] = 0;
    char *value = strchr(name, ':');
    if (value && stream->events->on_header) {
        *value++ = 0;
        value += strspn(value, " ");
        stream->events->on_header(stream->opaque, name, value);
    }
    return count;
}

static size_t on_stream_bytes(char *bytes, size_t size, size_t count, void *opaque)
{
    struct client_stream *stream = opaque;
    long status = 0;
    curl_easy_getinfo(stream->curl, CURLINFO_RESPONSE_CODE, &status);
    if (status >= 300)
        return take_reply(bytes, size, count, &stream->refusal);
    stream->events->on_bytes(stream->opaque, bytes, count);
    return count;
}

int client_stream_open(struct client_stream **out, struct client *client, const char *path,
                       const struct client_stream_events *events, void *opaque, struct error *err)
{
    struct client_stream *stream = calloc(1, sizeof(*stream));
    if (stream) {
        *stream = (struct client_stream){.client = client,
                                         .multi = curl_multi_init(),
                                         .curl = curl_easy_init(),
                                         .events = events,
                                         .opaque = opaque};
    }
    if (!stream || !stream->multi || !stream->curl) {
        client_stream_close(stream);
        return error_set_errno(err, -ENOMEM, "cannot call the supervisor");
    }
    prepare(client, stream->curl, path);
    curl_easy_setopt(stream->curl, CURLOPT_HEADERFUNCTION, on_header_line);
    curl_easy_setopt(stream->curl, CURLOPT_HEADERDATA, stream);
    curl_easy_setopt(stream->curl, CURLOPT_WRITEFUNCTION, on_stream_bytes);
    curl_easy_setopt(stream->curl, CURLOPT_WRITEDATA, stream);
    curl_multi_add_handle(stream->multi, stream->curl);
    *out = stream;
    return 0;
}

static int stream_end(struct client_stream *stream, struct error *err)
{
    int left;
    long status = 0;
    const CURLMsg *message = curl_multi_info_read(stream->multi, &left);
    curl_easy_getinfo(stream->curl, CURLINFO_RESPONSE_CODE, &status);
    if (message && message->data.result == CURLE_COULDNT_CONNECT)
        return call_failed(stream->client, stream->curl, CURLE_COULDNT_CONNECT, err);
    if (status >= 300)
        return judge(stream->client, status, &stream->refusal, NULL, err);
    return error_set(err, -EPIPE, "the supervisor ended the stream");
}

int client_stream_wait(struct client_stream *stream, int fd, int timeout_ms, struct error *err)
{
    struct curl_waitfd input = {.fd = fd, .events = CURL_WAIT_POLLIN};
    int running = 0;
    curl_multi_perform(stream->multi, &running);
    if (running == 0)
        return stream_end(stream, err);
    curl_multi_poll(stream->multi, &input, fd < 0 ? 0 : 1, timeout_ms < 0 ? 60000 : timeout_ms,
                    NULL);
    return input.revents ? 1 : 0;
}

void client_stream_close(struct client_stream *stream)
{
    if (!stream)
        return;
    if (stream->multi && stream->curl)
        curl_multi_remove_handle(stream->multi, stream->curl);
    curl_easy_cleanup(stream->curl);
    curl_multi_cleanup(stream->multi);
    free(stream->refusal.bytes);
    free(stream);
}

// ---- Commands -----------------------------------------------------------------------------------

int client_run(const struct cli_command *command, int argc, char **argv,
               struct client_options *options, int least, int most, client_work *work)
{
    struct client *client = NULL;
    struct error err = {0};
    int next = cli_parse(command, argc, argv, options, &err);
    if (next > argc)
        return CLI_EXIT_OK;  // help
    if (next >= 0 && argc - next < least)
        next = error_set(&err, -EINVAL, "too few arguments");
    else if (next >= 0 && argc - next > most)
        next = error_set(&err, -EINVAL, "\"%s\" is one argument too many", argv[next + most]);
    if (next < 0)
        return cli_misused(command, &err);
    int rc = client_open(&client, options->socket, &err);
    if (rc == 0) {
        rc = work(client, options, argv + next, &err);
        client_close(client);
    }
    return rc < 0 ? cli_failed(&err) : rc;
}
