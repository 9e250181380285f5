// SPDX-License-Identifier: BSD-2-Clause
// What the subcommands that talk with the supervisor have in common: calls of its API, partitions
// by name, tables. Private to this room.
#ifndef STRAKE_CLI_CLIENT_H
#define STRAKE_CLI_CLIENT_H

#include <jansson.h>
#include <limits.h>

#include "cli/cli.h"

// The first member of such a command's options.
struct client_options {
    const char *socket;
    bool json;
};
#define CLIENT_OPTION_SOCKET                                                                       \
    {                                                                                              \
        "socket", "PATH", "where the supervisor listens", cli_parse_string,                        \
            offsetof(struct client_options, socket)                                                \
    }
#define CLIENT_OPTION_JSON                                                                         \
    {                                                                                              \
        "json", NULL, "print JSON", cli_parse_flag, offsetof(struct client_options, json)          \
    }

// Where the supervisor of this user has its files, unless told otherwise: for root below /var/lib
// and /run, else where the XDG Base Directory Specification has them.
struct client_paths {
    char state_dir[PATH_MAX], run_dir[PATH_MAX], socket[PATH_MAX];
};
BASE_NODISCARD int client_paths(struct client_paths *paths, struct error *err);

// The supervisor is in another folder than its clients. *out is `path`, which need not exist, as it
// is to be called there, the caller's.
BASE_NODISCARD int client_absolute_path(char **out, const char *path, struct error *err);
struct definition;
BASE_NODISCARD int client_make_paths_absolute(struct definition *definition, struct error *err);
// For those who go through the paths of something else.
BASE_NODISCARD int client_make_path_absolute(const char *key, char **path, struct error *err);

// The string of a JSON object's member; "" if there is none.
const char *client_text(const json_t *object, const char *key);
// Reads a JSON object from a file, "-" being standard input; *out is the caller's.
BASE_NODISCARD int client_read_object(const char *path, json_t **out, struct error *err);

struct client;

// `socket` NULL: $STRAKE_SOCKET, or where this user's supervisor listens. Connects with the first
// call.
BASE_NODISCARD int client_open(struct client **out, const char *socket, struct error *err);
void client_close(struct client *client);  // NULL is ignored

// Calls. `body` is taken and sent as JSON, unless it is NULL. *reply, when not NULL, is set to what
// was answered, the caller's, or NULL when that is nothing. Returns 0; -ENOTCONN when no supervisor
// listens, -EACCES when the caller may not talk with it; -EREMOTEIO when it refused, whose words
// are then in *err.
BASE_NODISCARD int client_call(struct client *client, const char *method, const char *path,
                               json_t *body, json_t **reply, struct error *err);

// The path of a partition, "/v1/partitions/ID", from its name.
BASE_NODISCARD int client_find(struct client *client, const char *name, char *path, size_t bytes,
                               struct error *err);

// A conversation with a stream: its bytes come by `on_bytes` while other calls are made.
struct client_stream;
struct client_stream_events {
    void (*on_header)(void *opaque, const char *name, const char *value);  // may be NULL
    void (*on_bytes)(void *opaque, const char *bytes, size_t count);
};
BASE_NODISCARD int client_stream_open(struct client_stream **out, struct client *client,
                                      const char *path, const struct client_stream_events *events,
                                      void *opaque, struct error *err);
// Waits up to `timeout_ms` (-1: for ever) for the stream or for input on `fd` (-1: none). Returns 1
// when `fd` is readable; 0; -EPIPE when the stream has ended; another error as client_call.
BASE_NODISCARD int client_stream_wait(struct client_stream *stream, int fd, int timeout_ms,
                                      struct error *err);
void client_stream_close(struct client_stream *stream);  // NULL is ignored
// Sends bytes as the body of a POST; *reply as for client_call.
BASE_NODISCARD int client_send(struct client *client, const char *path, const void *bytes,
                               size_t count, json_t **reply, struct error *err);

// ---- Another program for all partitions: operate.c ----------------------------------------------

// What became of each partition: a line for each of HandoverAll's.
void client_print_handovers(const json_t *result);
// Waits until the supervisor, which is to go on as another program, has done so. `before` is what
// GET /v1 said; says what it is now, unless that is to be `quiet`.
BASE_NODISCARD int client_await_supervisor(struct client *client, const json_t *before, bool quiet,
                                           struct error *err);

// ---- Printing -----------------------------------------------------------------------------------

#define CLIENT_COLUMNS_MAX 16

struct client_column {
    const char *heading, *key;  // of each row's object
    // NULL: strings as they are, numbers in decimal.
    void (*format)(const json_t *value, char *text, size_t bytes);
};

// A table of the rows, an array of objects.
void client_print_table(const json_t *rows, const struct client_column *columns, size_t count);
void client_print_json(const json_t *value);
// What an object has, a line each: "key: value", members below; show.c.
void client_print_members(const json_t *value, int indent);
void client_format_bytes(const json_t *value, char *text, size_t bytes);  // for `format`

// ---- A command that has a client ----------------------------------------------------------------

// What it does. `arguments` are those behind the options; NULL ends them. Returns the exit status
// of what it has told people of itself, or a negative errno with *err set.
typedef int client_work(struct client *client, void *options, char **arguments, struct error *err);

// Parses the command's options into `options`, and has `work` done with as many arguments as
// `least` and `most` allow. Returns the exit status, having told of what went wrong.
int client_run(const struct cli_command *command, int argc, char **argv,
               struct client_options *options, int least, int most, client_work *work);

#endif
