// SPDX-License-Identifier: BSD-2-Clause
// strake update: what the host knows of updates that guests bring, and what its administrator may
// do about them.
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cli/client.h"

#define CONFIRMED_POLL_MS 100u
#define HISTORY_RECORDS 20u

struct update_options {
    struct client_options client;
    bool quiet;
    unsigned limit;
};

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "-";
}

static long long number_of(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static bool has(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return value && !json_is_null(value) && !json_is_false(value);
}

// ---- Status -------------------------------------------------------------------------------------

#define LABEL "%-13s"

static void print_versions(const json_t *status)
{
    printf(LABEL "%s\n", "running", text_of(status, "version"));
    printf(LABEL "%s", "current", text_of(status, "current"));
    if (has(status, "pending"))
        printf(", to be confirmed before %s",
               text_of(json_object_get(status, "pending"), "deadline"));
    printf("\n" LABEL "%s\n", "previous", text_of(status, "previous"));
    printf(LABEL "%lld%s\n", "epoch", number_of(status, "epoch"),
           has(status, "allow_downgrade") ? ", older versions are taken, too" : "");
}

static void print_session(const json_t *status)
{
    const json_t *session = json_object_get(status, "session");
    const json_t *last = json_object_get(status, "last");
    if (has(status, "session"))
        printf(LABEL "version %s from %s: %s, %lld of %lld bytes\n", "session",
               text_of(session, "version"), text_of(session, "partition"),
               text_of(session, "phase"), number_of(session, "offset"),
               number_of(session, "bytes"));
    else
        printf(LABEL "none\n", "session");
    if (has(status, "last"))
        printf(LABEL "version %s from %s: %s%s%s\n", "last update", text_of(last, "version"),
               text_of(last, "partition"), text_of(last, "phase"), has(last, "why") ? ": " : "",
               has(last, "why") ? text_of(last, "why") : "");
}

static void print_keys(const json_t *status)
{
    const json_t *trusted = json_object_get(status, "trusted");
    const json_t *keys = json_object_get(trusted, "keys");
    const char *label = "trusted keys";
    if (has(trusted, "error"))
        printf(LABEL "none: %s\n", label, text_of(trusted, "error"));
    else if (json_array_size(keys) == 0)
        printf(LABEL "none in %s\n", label, text_of(trusted, "folder"));
    for (size_t i = 0; i < json_array_size(keys); i++, label = "") {
        const json_t *key = json_array_get(keys, i);
        printf(LABEL "%s  %s%s\n", label, text_of(key, "id"), text_of(key, "file"),
               has(key, "revoked") ? ", revoked" : "");
    }
}

static void print_refusals(const json_t *status)
{
    const char *name, *separator = "";
    json_t *count;
    json_object_foreach(json_object_get(status, "refusals"), name, count)
    {
        if (json_integer_value(count) == 0)
            continue;
        if (!*separator)
            printf(LABEL, "refused");
        printf("%s%s %lld", separator, name, (long long)json_integer_value(count));
        separator = ", ";
    }
    if (*separator)
        puts("");
}

static const char *role_of(const json_t *status, const char *version)
{
    return strcmp(text_of(status, "current"), version) != 0
               ? strcmp(text_of(status, "previous"), version) == 0 ? "previous" : "kept"
           : has(status, "pending") ? "pending"
                                    : "current";
}

// The installed program is a version like the others, though it has no slot.
static void print_slots(const json_t *status, bool quiet)
{
    static const struct client_column columns[] = {{"VERSION", "version", NULL},
                                                   {"STATE", "state", NULL},
                                                   {"SIZE", "bytes", client_format_bytes},
                                                   {"EPOCH", "epoch", NULL},
                                                   {"SHA-256", "sha256", NULL}};
    json_t *rows = json_deep_copy(json_object_get(status, "slots"));
    json_array_append_new(rows, json_pack("{s:s}", "version", "installed"));
    for (size_t i = 0; i < json_array_size(rows); i++) {
        json_t *row = json_array_get(rows, i);
        json_object_set_new(row, "state", json_string(role_of(status, text_of(row, "version"))));
        if (quiet)
            puts(text_of(row, "version"));
    }
    if (!quiet)
        client_print_table(rows, columns, BASE_COUNT_OF(columns));
    json_decref(rows);
}

static int get_status(struct client *client, json_t **status, struct error *err)
{
    return client_call(client, "GET", "/v1/update", NULL, status, err);
}

static int show_status(struct client *client, const struct update_options *options,
                       const char *argument, struct error *err)
{
    json_t *status;
    int rc = get_status(client, &status, err);
    (void)argument;
    if (rc < 0)
        return rc;
    if (options->client.json) {
        client_print_json(status);
    } else if (options->quiet) {
        print_slots(status, true);
    } else {
        print_versions(status);
        print_session(status);
        print_keys(status);
        print_refusals(status);
        puts("");
        print_slots(status, false);
    }
    json_decref(status);
    return CLI_EXIT_OK;
}

// ---- History ------------------------------------------------------------------------------------

// What there is to say of a record, beside its columns.
static void set_details(json_t *record)
{
    char text[200];
    const char *refusal = json_string_value(json_object_get(record, "refusal"));
    const char *from = json_string_value(json_object_get(record, "from"));
    const char *why = json_string_value(json_object_get(record, "why"));
    snprintf(text, sizeof(text), "%s%s%s%s%s%s", from ? "from " : "", from ? from : "",
             from && why ? ": " : "", refusal ? refusal : "", refusal && why ? ": " : "",
             why ? why : "");
    json_object_set_new(record, "details", json_string(text));
}

// To the second, as a column: "2026-11-22T10:30:00.123456789Z".
static void format_time(const json_t *value, char *text, size_t bytes)
{
    snprintf(text, bytes, "%.10s %.8s", json_string_value(value),
             json_string_length(value) > 19 ? json_string_value(value) + 11 : "");
}

static int show_history(struct client *client, const struct update_options *options,
                        const char *argument, struct error *err)
{
    static const struct client_column columns[] = {{"TIME (UTC)", "time", format_time},
                                                   {"EVENT", "event", NULL},
                                                   {"PARTITION", "partition", NULL},
                                                   {"VERSION", "version", NULL},
                                                   {"DETAILS", "details", NULL}};
    char path[64];
    json_t *records;
    (void)argument;
    snprintf(path, sizeof(path), "/v1/update/history?limit=%u", options->limit);
    int rc = client_call(client, "GET", path, NULL, &records, err);
    if (rc < 0)
        return rc;
    if (options->client.json) {
        client_print_json(records);
    } else {
        for (size_t i = 0; i < json_array_size(records); i++)
            set_details(json_array_get(records, i));
        client_print_table(records, columns, BASE_COUNT_OF(columns));
    }
    json_decref(records);
    return CLI_EXIT_OK;
}

// ---- Rollback and confirm -----------------------------------------------------------------------

// Waits until the version has proved itself, or was taken back, for which the supervisor has its
// own time. *status is what is known then.
static int await_confirmed(struct client *client, const char *version, json_t **status,
                           struct error *err)
{
    for (;;) {
        int rc = get_status(client, status, err);
        if (rc < 0) {
            error_prefix(err, "version \"%s\" was not confirmed", version);
            return rc;
        }
        if (strcmp(text_of(*status, "current"), version) != 0)
            return error_set(err, -ECANCELED,
                             "version \"%s\" did not prove itself: the host is at "
                             "\"%s\" again",
                             version, text_of(*status, "current"));
        if (!has(*status, "pending"))
            return 0;
        json_decref(*status);
        nanosleep(&(struct timespec){.tv_nsec = CONFIRMED_POLL_MS * 1000000}, NULL);
    }
}

// Partitions were handed over, or were not: `result`. The supervisor follows, if they were.
static int follow(struct client *client, const struct update_options *options, const json_t *before,
                  const json_t *result, struct error *err)
{
    json_t *status = NULL;
    if (!options->client.json)
        client_print_handovers(result);
    if (strcmp(text_of(result, "outcome"), "done") != 0)
        return error_set(err, -ECANCELED, "version \"%s\" stays: %s", text_of(result, "from"),
                         has(result, "why") ? text_of(result, "why") : "the supervisor is ending");
    int rc = client_await_supervisor(client, before, options->client.json, err);
    if (rc == 0)
        rc = await_confirmed(client, text_of(result, "to"), &status, err);
    if (rc == 0 && options->client.json)
        client_print_json(status);
    else if (rc == 0)
        printf("went from version %s to version %s\n", text_of(result, "from"),
               text_of(result, "to"));
    json_decref(status);
    return rc;
}

static int roll_back(struct client *client, const struct update_options *options,
                     const char *version, struct error *err)
{
    json_t *before, *result = NULL;
    int rc = client_call(client, "GET", "/v1", NULL, &before, err);
    if (rc < 0)
        return rc;
    rc = client_call(client, "POST", "/v1/update/rollback", json_pack("{s:s*}", "version", version),
                     &result, err);
    if (rc == 0)
        rc = follow(client, options, before, result, err);
    json_decref(before);
    json_decref(result);
    return rc;
}

static int confirm(struct client *client, const struct update_options *options,
                   const char *argument, struct error *err)
{
    json_t *status;
    int rc = client_call(client, "POST", "/v1/update/confirm", NULL, &status, err);
    (void)argument;
    if (rc < 0)
        return rc;
    if (options->client.json)
        client_print_json(status);
    else
        printf("version %s is confirmed\n", text_of(status, "current"));
    json_decref(status);
    return CLI_EXIT_OK;
}

// ---- The command --------------------------------------------------------------------------------

static const struct verb {
    const char *name;
    bool takes_version;
    int (*run)(struct client *client, const struct update_options *options, const char *argument,
               struct error *err);
} verbs[] = {{"status", false, show_status},
             {"history", false, show_history},
             {"rollback", true, roll_back},
             {"confirm", false, confirm}};

static const struct cli_option update_options[] = {
    {"quiet", NULL, "(status) print the names of versions only", cli_parse_flag,
     offsetof(struct update_options, quiet)},
    {"limit", "N", "(history) the newest N records only (default 20)", cli_parse_unsigned,
     offsetof(struct update_options, limit)},
    CLIENT_OPTION_JSON,
    CLIENT_OPTION_SOCKET,
    {0},
};

static int update(struct client *client, void *opaque, char **arguments, struct error *err)
{
    const struct verb *verb = verbs, *end = verbs + BASE_COUNT_OF(verbs);
    while (verb < end && strcmp(verb->name, arguments[0]) != 0)
        verb++;
    if (verb == end)
        error_set(err, -EINVAL, "there is no \"%s\"", arguments[0]);
    else if (arguments[1] && !verb->takes_version)
        error_set(err, -EINVAL, "\"%s\" is one argument too many", arguments[1]);
    else
        return verb->run(client, opaque, arguments[1], err);
    return cli_misused(&cli_update, err);
}

static int run_update(const struct cli_command *command, int argc, char **argv)
{
    struct update_options options = {.limit = HISTORY_RECORDS};
    return client_run(command, argc, argv, &options.client, 1, 2, update);
}

const struct cli_command cli_update = {
    .name = "update",
    .usage = "status|history|rollback|confirm [OPTIONS] [VERSION]",
    .summary = "Show updates that guests brought, and go back from them",
    .details =
        "status shows the versions there are, the session that is under way, what became of the "
        "last update, and the keys that are trusted. history shows the audit log. rollback goes "
        "to the previous version, or to another that is kept; \"installed\" is the one that was "
        "installed on the host. All partitions are handed over to it, or none, and the supervisor "
        "goes on as it. confirm keeps a version that has not confirmed itself.",
    .options = update_options,
    .run = run_update,
};
