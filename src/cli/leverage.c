// SPDX-License-Identifier: BSD-2-Clause
// strake leverage: interceptors, which take data on its way to the host through modules in guests.
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cli/client.h"
#include "cli/keys.h"
#include "leverage/leverage.h"

#define ACTIVE_POLL_MS 100

struct leverage_options {
    struct client_options client;
    struct interceptor_definition definition;
    const char *from;
    unsigned wait_s;
    bool keys, quiet;  // keys: one was given as an option
};

static int set_definition(void *target, const char *name, const char *value, struct error *err)
{
    struct leverage_options *options = target;
    options->keys = true;
    return interceptor_definition_set(&options->definition, name, value, err);
}

// Why it is in the state that it is in, and what is to be done about it.
static const char *reason_of(const json_t *interceptor)
{
    const char *warning = client_text(interceptor, "warning");
    return *warning ? warning : client_text(interceptor, "why");
}

// Of the one that is called so; `what` is behind its path.
static int call_interceptor(struct client *client, const char *method, const char *name,
                            const char *what, json_t **answer, struct error *err)
{
    char path[INTERCEPTOR_NAME_MAX + 64];
    struct interceptor_definition unused = {0};
    // What is no name could be another path.
    int rc = interceptor_definition_set(&unused, "name", name, err);
    if (rc < 0) {
        error_prefix(err, "\"%s\"", name);
        return rc;
    }
    snprintf(path, sizeof(path), "/v1/interceptors/%s%s", unused.name, what);
    interceptor_definition_fini(&unused);
    return client_call(client, method, path, NULL, answer, err);
}

// ---- Adding -------------------------------------------------------------------------------------

static int read_definition(struct leverage_options *options, struct error *err)
{
    json_t *object;
    int rc = client_read_object(options->from, &object, err);
    if (rc < 0)
        return rc;
    interceptor_definition_fini(&options->definition);
    rc = interceptor_definition_from_json(&options->definition, object, err);
    json_decref(object);
    if (rc < 0)
        error_prefix(err, "\"%s\"", options->from);
    return rc;
}

static int complete_definition(struct leverage_options *options, char **arguments,
                               struct error *err)
{
    struct interceptor_definition *definition = &options->definition;
    int rc = options->from ? read_definition(options, err)
                           : interceptor_definition_set(definition, "kind", arguments[0], err);
    if (rc == -EINVAL && !options->from)
        error_prefix(err, "kind \"%s\"", arguments[0]);
    if (rc == 0 && !options->from)
        rc = interceptor_definition_set(definition, "name", arguments[1], err);
    if (rc == 0 && !options->from)
        rc = interceptor_definition_check(definition, err);
    return rc < 0 ? rc
                  : interceptor_definition_each_path(definition, client_make_path_absolute, err);
}

// Waits until it is active, with guests that may have to boot first.
static int await_active(struct client *client, const struct leverage_options *options,
                        json_t **interceptor, struct error *err)
{
    const char *name = options->definition.name;
    uint64_t end_ns = clock_monotonic_ns() + options->wait_s * UINT64_C(1000000000);
    while (strcmp(client_text(*interceptor, "state"), "active") != 0) {
        const char *why = reason_of(*interceptor);
        if (clock_monotonic_ns() >= end_ns)
            return error_set(err, -ETIMEDOUT, "interceptor \"%s\" is %s after %u s%s%s", name,
                             client_text(*interceptor, "state"), options->wait_s, *why ? ": " : "",
                             why);
        nanosleep(&(struct timespec){.tv_nsec = ACTIVE_POLL_MS * 1000000}, NULL);
        json_decref(*interceptor);
        int rc = call_interceptor(client, "GET", name, "", interceptor, err);
        if (rc < 0) {
            *interceptor = NULL;
            return rc;
        }
    }
    return 0;
}

static int add(struct client *client, struct leverage_options *options, char **arguments,
               struct error *err)
{
    json_t *interceptor = NULL;
    int rc = 0;
    if (options->from && (options->keys || arguments[0]))
        rc = error_set(err, -EINVAL, "--from has all of the definition: nothing else goes with it");
    else if (!options->from && (!arguments[0] || !arguments[1]))
        rc = error_set(err, -EINVAL, "a kind and a name are needed");
    if (rc < 0)
        return cli_misused(&cli_leverage, err);
    rc = complete_definition(options, arguments, err);
    if (rc == 0)
        rc = client_call(client, "POST", "/v1/interceptors",
                         interceptor_definition_to_json(&options->definition), &interceptor, err);
    if (rc == 0 && options->wait_s)
        rc = await_active(client, options, &interceptor, err);
    if (rc < 0) {
        json_decref(interceptor);
        return rc;
    }
    const char *why = reason_of(interceptor);
    if (options->client.json)
        client_print_json(interceptor);
    else
        printf("%s: %s%s%s\n", client_text(interceptor, "name"), client_text(interceptor, "state"),
               *why ? ": " : "", why);
    json_decref(interceptor);
    return CLI_EXIT_OK;
}

// ---- Looking ------------------------------------------------------------------------------------

// What it intercepts, and the partitions that data goes through, as columns.
static void set_columns(json_t *interceptor)
{
    static const char *const keys[] = {"device", "path", "directory"};
    const json_t *definition = json_object_get(interceptor, "definition");
    const json_t *modules = json_object_get(definition, "module");
    char chain[200] = "";
    for (size_t i = 0; i < BASE_COUNT_OF(keys); i++)
        if (json_object_get(definition, keys[i]))
            json_object_set(interceptor, "what", json_object_get(definition, keys[i]));
    for (size_t i = 0; i < json_array_size(modules); i++) {
        const char *module = json_string_value(json_array_get(modules, i));
        size_t used = strlen(chain);
        snprintf(chain + used, sizeof(chain) - used, "%s%.*s", i ? " > " : "",
                 module ? (int)strcspn(module, ",") : 0, module);
    }
    json_object_set_new(interceptor, "modules", json_string(chain));
    json_object_set(interceptor, "fail", json_object_get(definition, "fail"));
}

static int list(struct client *client, struct leverage_options *options, char **arguments,
                struct error *err)
{
    static const struct client_column columns[] = {
        {"NAME", "name", NULL}, {"KIND", "kind", NULL},       {"STATE", "state", NULL},
        {"OF", "what", NULL},   {"MODULES", "modules", NULL}, {"FAIL", "fail", NULL},
        {"PID", "pid", NULL},
    };
    json_t *list, *one;
    size_t i;
    int rc = client_call(client, "GET", "/v1/interceptors", NULL, &list, err);
    (void)arguments;
    if (rc < 0)
        return rc;
    if (options->client.json) {
        client_print_json(list);
    } else if (options->quiet) {
        json_array_foreach(list, i, one) puts(client_text(one, "name"));
    } else {
        json_array_foreach(list, i, one) set_columns(one);
        client_print_table(list, columns, BASE_COUNT_OF(columns));
    }
    json_decref(list);
    return CLI_EXIT_OK;
}

static int show(struct client *client, struct leverage_options *options, char **arguments,
                struct error *err)
{
    json_t *interceptor;
    int rc = call_interceptor(client, "GET", arguments[0], "", &interceptor, err);
    if (rc < 0)
        return rc;
    if (options->client.json)
        client_print_json(interceptor);
    else
        client_print_members(interceptor, 0);
    json_decref(interceptor);
    return CLI_EXIT_OK;
}

static void print_latency(const json_t *latency)
{
    static const char *const keys[] = {"p50", "p90", "p99", "max"};
    long long count = json_integer_value(json_object_get(latency, "count"));
    if (count == 0) {
        printf("latency: nothing was measured yet\n");
        return;
    }
    printf("latency:");
    for (size_t i = 0; i < BASE_COUNT_OF(keys); i++)
        printf("%s %s %.1f us", i ? "," : "", keys[i],
               json_number_value(json_object_get(latency, keys[i])) / 1e3);
    printf(" (of %lld)\n", count);
}

static int stats(struct client *client, struct leverage_options *options, char **arguments,
                 struct error *err)
{
    json_t *counters;
    int rc = call_interceptor(client, "GET", arguments[0], "/stats", &counters, err);
    if (rc < 0)
        return rc;
    if (options->client.json) {
        client_print_json(counters);
    } else {
        json_t *latency = json_incref(json_object_get(counters, "latency"));
        json_object_del(counters, "latency");
        client_print_members(counters, 0);
        print_latency(latency);
        json_decref(latency);
    }
    json_decref(counters);
    return CLI_EXIT_OK;
}

// ---- Changing -----------------------------------------------------------------------------------

static int reload(struct client *client, struct leverage_options *options, char **arguments,
                  struct error *err)
{
    json_t *interceptor;
    int rc = call_interceptor(client, "POST", arguments[0], "/reload", &interceptor, err);
    if (rc == 0 && options->client.json)
        client_print_json(interceptor);
    json_decref(rc == 0 ? interceptor : NULL);
    return rc;
}

static int remove_one(struct client *client, struct leverage_options *options, char **arguments,
                      struct error *err)
{
    (void)options;
    return call_interceptor(client, "DELETE", arguments[0], "", NULL, err);
}

// ---- The command --------------------------------------------------------------------------------

static const struct verb {
    const char *name;
    int least, most;  // arguments
    int (*run)(struct client *client, struct leverage_options *options, char **arguments,
               struct error *err);
} verbs[] = {
    {"add", 0, 2, add},     {"list", 0, 0, list},     {"show", 1, 1, show},
    {"stats", 1, 1, stats}, {"reload", 1, 1, reload}, {"remove", 1, 1, remove_one},
};

static const struct cli_option leverage_options[] = {
    CLI_KEY("module", "PARTITION[,run=WHAT][,config=FILE][,pair=N][,port=N]",
            "where data goes through, and what runs there; repeat for a chain"),
    CLI_KEY("fail", "open|closed",
            "what happens to data while a guest is down or slow: it passes, or it "
            "does not (net and files need it)"),
    CLI_KEY("verdict", "enforce|observe",
            "whether modules decide (default), or what they say is only counted"),
    CLI_KEY("time-limit", "TIME",
            "for an answer, such as 500ms or 10s (default 2s for net, 10s for "
            "files, 30s for mount)"),
    CLI_KEY("log", "LEVEL", "of its process: error, warn (default), info or debug"),
    CLI_KEY("device", "IF", "(net) the host's network interface"),
    CLI_KEY("mode", "inline|nat",
            "(net) inline (default): the host keeps its addresses; nat: the guest "
            "has them, and the host is behind it"),
    CLI_KEY("match", "EXPRESSION", "(net) of inbound traffic, only what nftables matches by that"),
    CLI_KEY("match-out", "EXPRESSION", "(net) likewise of outbound traffic"),
    CLI_KEY("forward", "tcp|udp:PORT-ADDR:PORT",
            "(net, nat) a port of the outside that leads to the inside; repeat "
            "for more"),
    CLI_KEY("lan", "BRIDGE", "(net, nat) a bridge of the host, for other partitions"),
    CLI_KEY("path", "DIR", "(files) below which files are looked at when they are opened"),
    CLI_KEY("infected", "deny|quarantine",
            "(files) what is infected is not opened (default), and moved away"),
    CLI_KEY("quarantine", "DIR", "(files) where to"),
    CLI_KEY("size-limit", "SIZE", "(files) larger ones go by --fail (default 25M)"),
    CLI_KEY("image", "FILE", "(mount) the disk image"),
    CLI_KEY("directory", "DIR", "(mount) where it is mounted"),
    CLI_KEY("type", "FS", "(mount) its file system, unless the guest finds out"),
    CLI_KEY("read-only", NULL, "(mount) nothing is written to it"),
    CLI_KEY("passphrase-file", "FILE", "(mount) opens an encrypted image"),
    {.name = "from",
     .value = "FILE",
     .help = "(add) a definition in JSON instead of all that, - for standard input",
     .parse = cli_parse_string,
     .offset = offsetof(struct leverage_options, from)},
    {.name = "wait",
     .value = "SECONDS",
     .help = "(add) wait so long for it to be active; else that is a failure",
     .parse = cli_parse_unsigned,
     .offset = offsetof(struct leverage_options, wait_s)},
    {.name = "quiet",
     .help = "(list) print names only",
     .parse = cli_parse_flag,
     .offset = offsetof(struct leverage_options, quiet)},
    CLIENT_OPTION_JSON,
    CLIENT_OPTION_SOCKET,
    {0},
};

static int leverage(struct client *client, void *opaque, char **arguments, struct error *err)
{
    const struct verb *verb = verbs, *end = verbs + BASE_COUNT_OF(verbs);
    struct leverage_options *options = opaque;
    int count = 0;
    while (arguments[count + 1])
        count++;
    while (verb < end && strcmp(verb->name, arguments[0]) != 0)
        verb++;
    if (verb == end)
        error_set(err, -EINVAL, "there is no \"%s\"", arguments[0]);
    else if (count < verb->least)
        error_set(err, -EINVAL, "too few arguments");
    else if (count > verb->most)
        error_set(err, -EINVAL, "\"%s\" is one argument too many", arguments[1 + verb->most]);
    else if ((options->keys || options->from || options->wait_s) && verb->run != add)
        error_set(err, -EINVAL,
                  "options of that kind are for add: what an interceptor is cannot be changed");
    else
        return verb->run(client, options, arguments + 1, err);
    return cli_misused(&cli_leverage, err);
}

static int run_leverage(const struct cli_command *command, int argc, char **argv)
{
    struct leverage_options options = {0};
    interceptor_definition_init(&options.definition);
    int status = client_run(command, argc, argv, &options.client, 1, 3, leverage);
    interceptor_definition_fini(&options.definition);
    return status;
}

const struct cli_command cli_leverage = {
    .name = "leverage",
    .usage = "add|list|show|stats|reload|remove [OPTIONS] [KIND] [INTERCEPTOR]",
    .summary = "Have guests work on data before the host sees it",
    .details =
        "add net|files|mount NAME adds an interceptor, which is kept until it is removed; it says "
        "in which state it is then. show tells its state, and why; stats what it has counted. "
        "reload gives the guests the files again that configure modules. remove leaves the host as "
        "it was before.",
    .options = leverage_options,
    .run = run_leverage,
};
