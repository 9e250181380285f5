// SPDX-License-Identifier: BSD-2-Clause
// Subcommands that do something to partitions: start, stop, kill, pause, resume, restart, handover,
// remove. They differ in a table's line.
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/client.h"

#define SUPERVISOR_MS 60000u  // for it to go on as another program
#define SUPERVISOR_POLL_MS 50u

struct operate_options {
    struct client_options client;
    const struct operation *operation;
    bool all, supervisor, paused, kill, force;
    unsigned timeout_s;
    const char *binary;
};

#define OPTION(name, value, member, parse, help)                                                   \
    {                                                                                              \
        name, value, help, parse, offsetof(struct operate_options, member)                         \
    }
#define OPTION_ALL OPTION("all", NULL, all, cli_parse_flag, "all partitions instead of named ones")
#define OPTION_TIMEOUT                                                                             \
    OPTION("timeout", "SECONDS", timeout_s, cli_parse_unsigned,                                    \
           "how long the guest may take to end (default 60)")

static json_t *start_body(const struct operate_options *options)
{
    return json_pack("{s:b}", "paused", options->paused);
}

static json_t *stop_body(const struct operate_options *options)
{
    json_int_t timeout_ms = (json_int_t)options->timeout_s * 1000;
    return json_pack("{s:I}", "timeout_ms", timeout_ms);
}

static json_t *handover_body(const struct operate_options *options)
{
    char *path = options->binary ? realpath(options->binary, NULL) : NULL;
    json_t *body = options->binary ? json_pack("{s:s}", "binary", path ? path : options->binary)
                                   : json_object();
    free(path);
    return body;
}

// How long it stood, and what of the time each part took since the new monitor was ready.
static void tell_handover(const json_t *partition)
{
    const json_t *report = json_object_get(partition, "last_handover");
    json_t *marks = json_object_get(report, "marks_ns"), *mark;
    const char *name, *separator = NULL;
    double before_ns = 0;
    printf("%s: handed over, the guest stood still for %.2f ms",
           json_string_value(json_object_get(partition, "name")),
           json_number_value(json_object_get(report, "blackout_ns")) / 1e6);
    json_object_foreach(marks, name, mark)
    {
        if (separator)
            printf("%s%s %.2f", separator, name, (json_number_value(mark) - before_ns) / 1e6);
        before_ns = json_number_value(mark);
        if (separator || strcmp(name, "warmed") == 0)
            separator = separator ? ", " : " (";
    }
    puts(separator ? ")" : "");
}

static int hand_all_over(struct client *client, const struct operate_options *options,
                         struct error *err);

struct operation {
    const struct cli_command *command;
    const char *method, *action;  // path behind the partition's
    const char *states;           // that --all means
    json_t *(*body)(const struct operate_options *options);
    void (*tell)(const json_t *partition);  // says what came of it; NULL: nothing
    // What is done with --all; NULL: the same with each.
    int (*all)(struct client *client, const struct operate_options *options, struct error *err);
};

static int run_operation(const struct cli_command *command, int argc, char **argv);

// ---- Commands -----------------------------------------------------------------------------------

static const struct cli_option plain_options[] = {OPTION_ALL, CLIENT_OPTION_SOCKET, {0}};

static const struct cli_option start_options[] = {
    OPTION("paused", NULL, paused, cli_parse_flag, "do not run yet: strake resume goes on"),
    OPTION_ALL,
    CLIENT_OPTION_SOCKET,
    {0},
};

static const struct cli_option stop_options[] = {
    OPTION_TIMEOUT,
    OPTION("kill", NULL, kill, cli_parse_flag, "end it then, like a power cut"),
    OPTION_ALL,
    CLIENT_OPTION_SOCKET,
    {0},
};

static const struct cli_option restart_options[] = {
    OPTION_TIMEOUT, OPTION_ALL, CLIENT_OPTION_SOCKET, {0}};

static const struct cli_option handover_options[] = {
    OPTION("binary", "FILE", binary, cli_parse_string,
           "the program to hand over to (default: the supervisor's own)"),
    OPTION_ALL,
    OPTION("supervisor", NULL, supervisor, cli_parse_flag,
           "with --all: the supervisor goes on as that program, too"),
    CLIENT_OPTION_SOCKET,
    {0},
};

static const struct cli_option remove_options[] = {
    OPTION("force", NULL, force, cli_parse_flag, "also one that runs, which is killed first"),
    CLIENT_OPTION_SOCKET,
    {0},
};

#define COMMAND(name_, options_, usage_, summary_, details_)                                       \
    const struct cli_command cli_##name_ = {.name = #name_,                                        \
                                            .usage = usage_,                                       \
                                            .summary = summary_,                                   \
                                            .details = details_,                                   \
                                            .options = options_,                                   \
                                            .run = run_operation}

COMMAND(start, start_options, "[OPTIONS] NAME...", "Start partitions", NULL);
COMMAND(stop, stop_options, "[OPTIONS] NAME...", "Press the power button of partitions",
        "The guest is asked to switch itself off, and waited for.");
COMMAND(kill, plain_options, "[OPTIONS] NAME...", "End partitions at once, like a power cut", NULL);
COMMAND(pause, plain_options, "[OPTIONS] NAME...", "Stop the harts of partitions", NULL);
COMMAND(resume, plain_options, "[OPTIONS] NAME...", "Let paused partitions go on", NULL);
COMMAND(restart, restart_options, "[OPTIONS] NAME...", "Stop partitions and start them again",
        "Reads their definitions again. One that does not run is started.");
COMMAND(handover, handover_options, "[OPTIONS] NAME...",
        "Move running partitions to a new monitor process",
        "The guest goes on where it was, with its connections, after a pause of a millisecond or "
        "so. When anything fails it goes on in the old monitor. With --all, when one partition "
        "cannot be handed over, the others go back to the programs they ran in before.");
COMMAND(remove, remove_options, "[OPTIONS] NAME...", "Forget partitions",
        "Their disks stay what they are.");

static const struct operation operations[] = {
    {&cli_start, "POST", "start", "stopped failed crashed restarting", start_body, NULL, NULL},
    {&cli_stop, "POST", "stop", "running restarting", stop_body, NULL, NULL},
    {&cli_kill, "POST", "kill", "starting running paused stopping restarting", NULL, NULL, NULL},
    {&cli_pause, "POST", "pause", "running", NULL, NULL, NULL},
    {&cli_resume, "POST", "resume", "paused", NULL, NULL, NULL},
    {&cli_restart, "POST", "restart", "running restarting", stop_body, NULL, NULL},
    {&cli_handover, "POST", "handover", "running paused", handover_body, tell_handover,
     hand_all_over},
    {&cli_remove, "DELETE", "", "", NULL, NULL, NULL},
};

static const struct operation *operation_of(const struct cli_command *command)
{
    const struct operation *operation = operations;
    while (operation->command != command)
        operation++;
    return operation;
}

// ---- Doing it -----------------------------------------------------------------------------------

static int act(struct client *client, const char *path, const char *method, const char *action,
               json_t *body, json_t **reply, struct error *err)
{
    char url[256];
    snprintf(url, sizeof(url), "%s%s%s", path, *action ? "/" : "", action);
    return client_call(client, method, url, body, reply, err);
}

static int operate_on(struct client *client, const struct operate_options *options,
                      const char *name, struct error *err)
{
    const struct operation *operation = options->operation;
    char path[128];
    json_t *reply = NULL;
    int rc = client_find(client, name, path, sizeof(path), err);
    if (rc < 0)
        return rc;
    if (options->force)  // one that does not run has no end to come: what follows tells
        (void)act(client, path, "POST", "kill", NULL, NULL, NULL);
    rc = act(client, path, operation->method, operation->action,
             operation->body ? operation->body(options) : NULL, &reply, err);
    if (rc < 0 && options->kill)
        rc = act(client, path, "POST", "kill", NULL, &reply, err);
    if (rc == 0 && operation->tell)
        operation->tell(reply);
    json_decref(reply);
    return rc;
}

static int operate_on_names(struct client *client, const struct operate_options *options,
                            char **names, struct error *err)
{
    int status = CLI_EXIT_OK;
    for (int rc = 0; *names && rc != -ENOTCONN && rc != -EACCES; names++) {
        rc = operate_on(client, options, *names, err);
        if (rc < 0)
            status = cli_failed(err);
    }
    return status;
}

// All that are in a state in which it makes sense.
static int operate_on_all(struct client *client, const struct operate_options *options,
                          struct error *err)
{
    json_t *list;
    int status = CLI_EXIT_OK;
    int rc = client_call(client, "GET", "/v1/partitions", NULL, &list, err);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *partition = json_array_get(list, i);
        const char *name = json_string_value(json_object_get(partition, "name"));
        const char *state = json_string_value(json_object_get(partition, "state"));
        if (name && state && strstr(options->operation->states, state) &&
            operate_on(client, options, name, err) < 0)
            status = cli_failed(err);
    }
    json_decref(list);
    return status;
}

void client_print_handovers(const json_t *result)
{
    json_t *list = json_object_get(result, "partitions"), *partition;
    size_t i;
    json_array_foreach(list, i, partition)
    {
        const char *outcome = json_string_value(json_object_get(partition, "outcome"));
        const char *why = json_string_value(json_object_get(partition, "why"));
        const json_t *blackout = json_object_get(partition, "blackout_ns");
        printf("%s: %s", json_string_value(json_object_get(partition, "name")), outcome);
        if (blackout)
            printf(", the guest stood still for %.2f ms", json_number_value(blackout) / 1e6);
        if (json_object_get(partition, "return_blackout_ns"))
            printf(", on the way back for %.2f ms",
                   json_number_value(json_object_get(partition, "return_blackout_ns")) / 1e6);
        printf(why ? ": %s\n" : "\n", why);
    }
}

// The supervisor that answers now is another than `before`, what GET /v1 had said.
static bool is_another(const json_t *before, const json_t *now)
{
    return now && !json_equal(json_object_get(before, "started"), json_object_get(now, "started"));
}

int client_await_supervisor(struct client *client, const json_t *before, bool quiet,
                            struct error *err)
{
    json_t *now = NULL;
    const char *why = NULL;
    int rc = -ETIMEDOUT;
    error_set(err, rc, "the supervisor does not come back");
    for (unsigned ms = 0; ms < SUPERVISOR_MS && rc < 0 && !why; ms += SUPERVISOR_POLL_MS) {
        struct error unheard;
        nanosleep(&(struct timespec){.tv_nsec = SUPERVISOR_POLL_MS * 1000000}, NULL);
        json_decref(now);
        now = NULL;
        if (client_call(client, "GET", "/v1", NULL, &now, &unheard) < 0)
            continue;
        why = json_string_value(json_object_get(now, "reexec_failed"));
        if (is_another(before, now))
            rc = 0;
    }
    if (rc == 0 && !quiet)
        printf("supervisor: version %s goes on as version %s\n",
               json_string_value(json_object_get(before, "version")),
               json_string_value(json_object_get(now, "version")));
    else if (rc < 0 && why)
        error_set(err, -EREMOTEIO, "the supervisor stays what it is: %s", why);
    json_decref(now);
    return rc;
}

// All or none: the supervisor sees to that.
static int hand_all_over(struct client *client, const struct operate_options *options,
                         struct error *err)
{
    json_t *result;
    json_t *body = handover_body(options), *before = NULL;
    int rc = client_call(client, "GET", "/v1", NULL, &before, err);
    if (options->supervisor)
        json_object_set_new(body, "supervisor", json_true());
    if (rc == 0)
        rc = client_call(client, "POST", "/v1/handover", body, &result, err);
    else
        json_decref(body);
    if (rc < 0) {
        json_decref(before);
        return rc;
    }
    const char *outcome = json_string_value(json_object_get(result, "outcome"));
    const char *why = json_string_value(json_object_get(result, "why"));
    client_print_handovers(result);
    if (!outcome || strcmp(outcome, "done") != 0)
        rc = error_set(err, -ECANCELED, "not all partitions could be handed over: %s",
                       why ? why : "the supervisor is ending");
    else if (options->supervisor)
        rc = client_await_supervisor(client, before, false, err);
    json_decref(before);
    json_decref(result);
    return rc;
}

static int operate(struct client *client, void *opaque, char **names, struct error *err)
{
    const struct operate_options *options = opaque;
    int rc = 0;
    if (options->all && *names)
        rc = error_set(err, -EINVAL, "\"%s\" is named beside --all", *names);
    else if (!options->all && !*names)
        rc = error_set(err, -EINVAL, "no partition is named");
    else if (!options->all && options->supervisor)
        rc = error_set(err, -EINVAL, "--supervisor is for --all");
    if (rc < 0)
        return cli_misused(options->operation->command, err);
    if (!options->all)
        return operate_on_names(client, options, names, err);
    return options->operation->all ? options->operation->all(client, options, err)
                                   : operate_on_all(client, options, err);
}

static int run_operation(const struct cli_command *command, int argc, char **argv)
{
    struct operate_options options = {.operation = operation_of(command), .timeout_s = 60};
    return client_run(command, argc, argv, &options.client, 0, INT_MAX, operate);
}
