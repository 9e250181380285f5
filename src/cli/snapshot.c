// SPDX-License-Identifier: BSD-2-Clause
// strake snapshot and strake restore.
#include <stdio.h>
#include <stdlib.h>

#include "cli/client.h"
#include "cli/keys.h"
#include "monitor/monitor.h"

// Shows the answer where that is asked for.
static int post(struct client *client, const struct client_options *options, const char *url,
                json_t *body, struct error *err)
{
    json_t *reply;
    int rc = client_call(client, "POST", url, body, &reply, err);

    if (rc == 0 && options->json)
        client_print_json(reply);
    json_decref(reply);
    return rc;
}

// ---- Snapshot -----------------------------------------------------------------------------------

static const struct cli_option snapshot_options[] = {CLIENT_OPTION_JSON, CLIENT_OPTION_SOCKET, {0}};

static int take(struct client *client, void *options, char **arguments, struct error *err)
{
    char path[128], url[160], *folder = NULL;
    int rc = client_find(client, arguments[0], path, sizeof(path), err);

    if (rc == 0)
        rc = client_absolute_path(&folder, arguments[1], err);
    if (rc < 0)
        return rc;
    snprintf(url, sizeof(url), "%s/snapshot", path);
    rc = post(client, options, url, json_pack("{s:s}", "path", folder), err);
    free(folder);
    return rc;
}

static int run_snapshot(const struct cli_command *command, int argc, char **argv)
{
    struct client_options options = {0};

    return client_run(command, argc, argv, &options, 2, 2, take);
}

const struct cli_command cli_snapshot = {
    .name = "snapshot",
    .usage = "[OPTIONS] NAME FOLDER",
    .summary = "Save a running partition's state and RAM",
    .details =
        "The folder is made, and appears when the snapshot is complete. Disks are not copied: "
        "a snapshot can be restored as long as they are what they were, or with copies.",
    .options = snapshot_options,
    .run = run_snapshot,
};

// ---- Restore ------------------------------------------------------------------------------------

struct restore_options {
    struct client_options client;
    struct definition changes;
    bool paused;
};

static int set_definition(void *target, const char *name, const char *value, struct error *err)
{
    struct restore_options *options = target;

    return definition_set(&options->changes, name, value, err);
}

static const struct cli_option restore_options[] = {
    CLI_KEY("name", "NAME", "of the new partition (default: that of the snapshot)"),
    CLI_KEY("disk", "FILE[,ro][,aio=io_uring|sync]",
            "copies of the disks, for all of them, in their order"),
    CLI_KEY("net", "user[,hostfwd=tcp:ADDR:PORT-:PORT]|tap=IF[,queues=N]",
            "where its networks lead, for all of them, in their order"),
    CLI_KEY("vsock", "CID,PATH", "another context id, and where its sockets are"),
    CLI_KEY("kernel", "FILE", "where its kernel is on this host, for its next start"),
    CLI_KEY("initrd", "FILE", "where its initial RAM disk is"),
    CLI_KEY("firmware", "FILE", "where its firmware is"),
    CLI_KEY("restart", "never|on-failure|always", "whether to start it again when it has ended"),
    CLI_KEY("autostart", NULL, "start it when the supervisor starts"),
    {.name = "paused",
     .help = "do not run yet: strake resume goes on",
     .parse = cli_parse_flag,
     .offset = offsetof(struct restore_options, paused)},
    CLIENT_OPTION_JSON,
    CLIENT_OPTION_SOCKET,
    {0},
};

// What was given; the rest is the snapshot's.
static json_t *changes_of(const struct definition *definition)
{
    static const char *const keys[] = {"name",      "disk",   "net",    "vsock",   "restart",
                                       "autostart", "kernel", "initrd", "firmware"};
    json_t *all = definition_to_json(definition), *changes = json_object();

    for (size_t i = 0; i < BASE_COUNT_OF(keys); i++)
        if (json_object_get(all, keys[i]))
            json_object_set(changes, keys[i], json_object_get(all, keys[i]));
    json_decref(all);
    return changes;
}

static int restore(struct client *client, void *opaque, char **arguments, struct error *err)
{
    struct restore_options *options = opaque;
    char *folder = NULL;
    int rc = client_make_paths_absolute(&options->changes, err);

    if (rc == 0)
        rc = client_absolute_path(&folder, arguments[0], err);
    if (rc < 0)
        return rc;
    rc = post(client, &options->client, "/v1/restore",
              json_pack("{s:s,s:b,s:o}", "path", folder, "paused", options->paused, "changes",
                        changes_of(&options->changes)),
              err);
    free(folder);
    return rc;
}

static int run_restore(const struct cli_command *command, int argc, char **argv)
{
    struct restore_options options = {0};

    definition_init(&options.changes);
    int status = client_run(command, argc, argv, &options.client, 1, 1, restore);
    definition_fini(&options.changes);
    return status;
}

const struct cli_command cli_restore = {
    .name = "restore",
    .usage = "[OPTIONS] FOLDER",
    .summary = "Make a partition that goes on from a snapshot",
    .details =
        "Several may be restored from one snapshot, under different names, with disks and sockets "
        "of their own: they share its RAM until they write to it.",
    .options = restore_options,
    .run = run_restore,
};
