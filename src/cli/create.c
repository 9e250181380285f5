// SPDX-License-Identifier: BSD-2-Clause
// strake create: a definition, made of options or a file, for the supervisor.
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/client.h"
#include "cli/keys.h"
#include "monitor/monitor.h"

struct create_options {
    struct client_options client;
    struct definition definition;
    const char *from;
    bool start, keys;  // keys: one was given as an option
};

static int set_definition(void *target, const char *name, const char *value, struct error *err)
{
    struct create_options *options = target;
    options->keys = true;
    return definition_set(&options->definition, name, value, err);
}

static const struct cli_option create_options[] = {
    CLI_DEFINITION_KEYS,
    CLI_KEY("stats", NULL, "also count what makes the guest slower: loads and stores"),
    CLI_KEY("restart", "never|on-failure|always",
            "whether to start it again when it has ended (default never)"),
    CLI_KEY("autostart", NULL, "start it when the supervisor starts"),
    CLI_KEY("updates", NULL,
            "let the guest update the monitor (strake-update in the guest); it has a "
            "vsock device then, if --vsock gives it none"),
    {.name = "from",
     .value = "FILE",
     .help = "a definition in JSON instead of options, - for standard input",
     .parse = cli_parse_string,
     .offset = offsetof(struct create_options, from)},
    {.name = "start",
     .help = "start it, too",
     .parse = cli_parse_flag,
     .offset = offsetof(struct create_options, start)},
    CLIENT_OPTION_JSON,
    CLIENT_OPTION_SOCKET,
    {0},
};

// ---- The definition -----------------------------------------------------------------------------

static int read_definition(struct create_options *options, const char *name, struct error *err)
{
    json_t *object;
    int rc = client_read_object(options->from, &object, err);
    if (rc < 0)
        return rc;
    if (name)
        json_object_set_new(object, "name", json_string(name));
    definition_fini(&options->definition);
    rc = json_object_get(object, "name")
             ? definition_from_json(&options->definition, object, err)
             : error_set(err, -EINVAL, "it has no name, and none is given");
    json_decref(object);
    if (rc < 0)
        error_prefix(err, "\"%s\"", options->from);
    return rc;
}

static int complete_definition(struct create_options *options, const char *name, struct error *err)
{
    int rc = options->from ? read_definition(options, name, err)
                           : definition_set(&options->definition, "name", name, err);
    if (rc == 0 && !options->from)
        rc = definition_check(&options->definition, err);
    return rc < 0 ? rc : client_make_paths_absolute(&options->definition, err);
}

// ---- The command --------------------------------------------------------------------------------

static int start(struct client *client, json_t **partition, struct error *err)
{
    char path[128];
    const char *id = json_string_value(json_object_get(*partition, "id"));
    snprintf(path, sizeof(path), "/v1/partitions/%s/start", id ? id : "");
    json_decref(*partition);
    return client_call(client, "POST", path, NULL, partition, err);
}

static int create(struct client *client, void *opaque, char **arguments, struct error *err)
{
    struct create_options *options = opaque;
    const char *name = arguments[0];
    json_t *partition = NULL;
    int rc = 0;
    if (options->from && options->keys)
        rc = error_set(err, -EINVAL,
                       "--from has all of the definition: no other options go with it");
    else if (!options->from && !name)
        rc = error_set(err, -EINVAL, "no name is given");
    if (rc < 0)
        return cli_misused(&cli_create, err);
    rc = complete_definition(options, name, err);
    if (rc == 0)
        rc = client_call(client, "POST", "/v1/partitions", definition_to_json(&options->definition),
                         &partition, err);
    if (rc == 0 && options->start)
        rc = start(client, &partition, err);
    if (rc == 0 && options->client.json)
        client_print_json(partition);
    json_decref(partition);
    return rc;
}

static int run_create(const struct cli_command *command, int argc, char **argv)
{
    struct create_options options = {0};
    definition_init(&options.definition);
    int status = client_run(command, argc, argv, &options.client, 0, 1, create);
    definition_fini(&options.definition);
    return status;
}

const struct cli_command cli_create = {
    .name = "create",
    .usage = "[OPTIONS] [NAME]",
    .summary = "Define a partition",
    .details =
        "Options are those of strake run; the definition is kept until strake remove. It may be "
        "edited where it is kept: it is read at each start.",
    .options = create_options,
    .run = run_create,
};
