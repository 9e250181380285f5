// SPDX-License-Identifier: BSD-2-Clause
// strake snapshot and strake restore.
#include <stdio.h>
#include <stdlib.h>

#include "cli/client.h"
#include "cli/keys.h"
#include "monitor/monitor.h"

// ---- Snapshot -----------------------------------------------------------------------------------

struct snapshot_options {
    struct client_options client;
};

static const struct cli_option snapshot_options[] = {CLIENT_OPTION_JSON, CLIENT_OPTION_SOCKET, {0}};

static int take(struct client *client, const char *name, const char *folder, json_t **reply,
                struct error *err)
{
    char path[128], url[160], *target;
    int rc = client_find(client, name, path, sizeof(path), err);

    if (rc == 0)
        rc = client_absolute_path(&target, folder, err);
    if (rc < 0)
        return rc;
    snprintf(url, sizeof(url), "%s/snapshot", path);
    rc = client_call(client, "POST", url, json_pack("{s:s}", "path", target), reply, err);
    free(target);
    return rc;
}

static int run_snapshot(const struct cli_command *command, int argc, char **argv)
{
    struct snapshot_options options = {0};
    struct client *client;
    struct error err;
    json_t *reply = NULL;
    int status;
    int next = client_begin(command, argc, argv, &options.client, 2, 2, &client, &status);

    if (next < 0)
        return status;
    if (take(client, argv[next], argv[next + 1], &reply, &err) < 0)
        status = cli_failed(&err);
    else if (options.client.json)
        client_print_json(reply);
    json_decref(reply);
    client_close(client);
    return status;
}

const struct cli_command cli_snapshot = {
    .name = "snapshot",
    .usage = "[OPTIONS] NAME FOLDER",
    .summary = "Save a running partition's state and RAM",
    .details =
        "The folder is made, and appears when the snapshot is complete. Disks are not copied:\n"
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
    CLI_KEY("net", "user[,hostfwd=tcp:ADDR:PORT-:PORT]|tap=IF",
            "where its networks lead, for all of them, in their order"),
    CLI_KEY("vsock", "CID,PATH", "another context id, and where its sockets are"),
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
    static const char *const keys[] = {"name", "disk", "net", "vsock", "restart", "autostart"};
    json_t *all = definition_to_json(definition), *changes = json_object();

    for (size_t i = 0; i < BASE_COUNT_OF(keys); i++)
        if (json_object_get(all, keys[i]))
            json_object_set(changes, keys[i], json_object_get(all, keys[i]));
    json_decref(all);
    return changes;
}

static int restore(struct client *client, struct restore_options *options, const char *folder,
                   json_t **reply, struct error *err)
{
    char *path;
    int rc = client_make_paths_absolute(&options->changes, err);

    if (rc == 0)
        rc = client_absolute_path(&path, folder, err);
    if (rc < 0)
        return rc;
    rc = client_call(client, "POST", "/v1/restore",
                     json_pack("{s:s,s:b,s:o}", "path", path, "paused", options->paused, "changes",
                               changes_of(&options->changes)),
                     reply, err);
    free(path);
    return rc;
}

static int run_restore(const struct cli_command *command, int argc, char **argv)
{
    struct restore_options options = {0};
    struct client *client;
    struct error err;
    json_t *reply = NULL;
    int status;

    definition_init(&options.changes);
    int next = client_begin(command, argc, argv, &options.client, 1, 1, &client, &status);
    if (next >= 0) {
        if (restore(client, &options, argv[next], &reply, &err) < 0)
            status = cli_failed(&err);
        else if (options.client.json)
            client_print_json(reply);
        client_close(client);
    }
    json_decref(reply);
    definition_fini(&options.changes);
    return status;
}

const struct cli_command cli_restore = {
    .name = "restore",
    .usage = "[OPTIONS] FOLDER",
    .summary = "Make a partition that goes on from a snapshot",
    .details =
        "Several may be restored from one snapshot, under different names, with disks and sockets\n"
        "of their own: they share its RAM until they write to it.",
    .options = restore_options,
    .run = run_restore,
};
