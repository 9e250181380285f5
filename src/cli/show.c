// SPDX-License-Identifier: BSD-2-Clause
// strake list, strake show, strake stats: what partitions there are, what is known of one, and what
// its harts have counted.
#include <limits.h>
#include <stdio.h>

#include "cli/client.h"
#include "cli/stats.h"

struct list_options {
    struct client_options client;
    bool quiet;
};

struct show_options {
    struct client_options client;
    bool stats;  // instead of what else is known
};

static int list(struct client *client, void *opaque, char **arguments, struct error *err)
{
    static const struct client_column columns[] = {
        {"NAME", "name", NULL},         {"STATE", "state", NULL},
        {"CPUS", "cpus", NULL},         {"MEMORY", "memory_bytes", client_format_bytes},
        {"PID", "pid", NULL},           {"RUNS", "runs", NULL},
        {"RESTARTS", "restarts", NULL}, {"SINCE", "since", NULL},
    };
    const struct list_options *options = opaque;
    json_t *partitions;
    int rc = client_call(client, "GET", "/v1/partitions", NULL, &partitions, err);
    (void)arguments;
    if (rc < 0)
        return rc;
    if (options->client.json)
        client_print_json(partitions);
    else if (options->quiet)
        for (size_t i = 0; i < json_array_size(partitions); i++)
            puts(json_string_value(json_object_get(json_array_get(partitions, i), "name")));
    else
        client_print_table(partitions, columns, BASE_COUNT_OF(columns));
    json_decref(partitions);
    return CLI_EXIT_OK;
}

static int run_list(const struct cli_command *command, int argc, char **argv)
{
    struct list_options options = {0};
    return client_run(command, argc, argv, &options.client, 0, 0, list);
}

// ---- One ----------------------------------------------------------------------------------------

// NOLINTBEGIN(misc-no-recursion): as deep as what the supervisor tells of a partition
static void print_value(const char *key, const json_t *value, int indent);

void client_print_members(const json_t *value, int indent)
{
    const char *key;
    json_t *member;
    json_object_foreach((json_t *)value, key, member) print_value(key, member, indent);
    for (size_t i = 0; i < json_array_size(value); i++)
        print_value(NULL, json_array_get(value, i), indent);
}

// "key: value", members below.
static void print_value(const char *key, const json_t *value, int indent)
{
    if (json_is_null(value))
        return;
    printf("%*s", indent, "");
    for (; key && *key; key++)
        putchar(*key == '_' ? ' ' : *key);
    if (key)
        fputs(":", stdout);
    if (json_is_string(value))
        printf("%s%s\n", key ? " " : "| ", json_string_value(value));
    else if (json_is_integer(value))
        printf(" %lld\n", (long long)json_integer_value(value));
    else if (json_is_real(value))
        printf(" %g\n", json_real_value(value));
    else if (json_is_boolean(value))
        printf(" %s\n", json_is_true(value) ? "yes" : "no");
    else
        putchar('\n');
    if (json_is_object(value) || json_is_array(value))
        client_print_members(value, indent + 2);
}
// NOLINTEND(misc-no-recursion)

static int get(struct client *client, const char *name, const char *what, json_t **answer,
               struct error *err)
{
    char path[128], url[256];
    int rc = client_find(client, name, path, sizeof(path), err);
    if (rc < 0)
        return rc;
    snprintf(url, sizeof(url), "%s%s", path, what);
    return client_call(client, "GET", url, NULL, answer, err);
}

static int show(struct client *client, void *opaque, char **names, struct error *err)
{
    const struct show_options *options = opaque;
    int status = CLI_EXIT_OK;
    for (; *names; names++) {
        json_t *answer;
        if (get(client, *names, options->stats ? "/stats" : "", &answer, err) < 0) {
            status = cli_failed(err);
            continue;
        }
        if (options->client.json)
            client_print_json(answer);
        else if (options->stats)
            cli_print_stats(stdout, answer);
        else
            client_print_members(answer, 0);
        if (names[1] && !options->client.json)
            putchar('\n');
        json_decref(answer);
    }
    return status;
}

static int run_show(const struct cli_command *command, int argc, char **argv)
{
    struct show_options options = {.stats = command == &cli_stats};
    return client_run(command, argc, argv, &options.client, 1, INT_MAX, show);
}

static const struct cli_option list_options[] = {
    {"quiet", NULL, "print names only", cli_parse_flag, offsetof(struct list_options, quiet)},
    CLIENT_OPTION_JSON,
    CLIENT_OPTION_SOCKET,
    {0},
};

static const struct cli_option show_options[] = {CLIENT_OPTION_JSON, CLIENT_OPTION_SOCKET, {0}};

const struct cli_command cli_list = {
    .name = "list",
    .usage = "[OPTIONS]",
    .summary = "List partitions",
    .options = list_options,
    .run = run_list,
};

const struct cli_command cli_show = {
    .name = "show",
    .usage = "[OPTIONS] NAME...",
    .summary = "Show what is known of partitions",
    .details = "Its definition, its state, and how it ended last: with the last lines of its "
               "console, and where to find a core when its monitor crashed.",
    .options = show_options,
    .run = run_show,
};

const struct cli_command cli_stats = {
    .name = "stats",
    .usage = "[OPTIONS] NAME...",
    .summary = "Show what the harts of partitions have counted",
    .details =
        "A column a hart, and their sum, since the partition was started: instructions, traps, "
        "memory, and what the translator did.",
    .options = show_options,
    .run = run_show,
};
