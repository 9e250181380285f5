// SPDX-License-Identifier: BSD-2-Clause
// Metrics in Prometheus' text format 0.0.4.
//
// What harts have counted is asked of each running monitor, all at once; one that does not answer
// in time has no such samples, and keeps nobody else from having theirs.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "supervisor/api.h"
#include "supervisor/update.h"

#define ANSWER_TIMEOUT_MS 2000u

struct gathering {
    struct registry *registry;
    const struct http_server *server;
    const struct http_route *routes;
    size_t route_count;
    struct http_request *request;
    unsigned asked;  // and not answered yet; one more while questions are put
    json_t *stats;   // by partition's name
};

static void print_head(FILE *out, const char *name, const char *type, const char *help)
{
    fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

// ---- Of harts
// -----------------------------------------------------------------------------------

// A counter, or the sum of an array of them.
static double count_of(const json_t *value)
{
    double sum = (double)json_integer_value(value);
    for (size_t i = 0; i < json_array_size(value); i++)
        sum += (double)json_integer_value(json_array_get(value, i));
    return sum;
}

static void print_harts(FILE *out, const json_t *stats)
{
    static const struct {
        const char *name, *key, *help;
        double unit;
    } metrics[] = {
        {"strake_hart_cpu_seconds_total", "cpu-ns", "Host CPU time of a hart's thread.", 1e-9},
        {"strake_hart_instructions_total", "retired", "Instructions retired.", 1},
        {"strake_hart_exits_total", "jit-exits", "Times that translated code was left.", 1},
        {"strake_hart_sleep_seconds_total", "slept-ns", "Time spent waiting for interrupts.", 1e-9},
    };
    for (size_t i = 0; i < BASE_COUNT_OF(metrics); i++) {
        const char *name;
        json_t *of_partition;
        print_head(out, metrics[i].name, "counter", metrics[i].help);
        json_object_foreach((json_t *)stats, name, of_partition)
        {
            const json_t *harts = json_object_get(of_partition, "harts");
            for (size_t hart = 0; hart < json_array_size(harts); hart++) {
                const json_t *value = json_object_get(json_array_get(harts, hart), metrics[i].key);
                if (value)
                    fprintf(out, "%s{partition=\"%s\",hart=\"%zu\"} %.10g\n", metrics[i].name, name,
                            hart, count_of(value) * metrics[i].unit);
            }
        }
    }
}

// ---- Of partitions
// ------------------------------------------------------------------------------

static void print_states(FILE *out, struct registry *registry)
{
    unsigned counts[ENTRY_STATES] = {0};
    LIST_FOR_EACH(registry_entries(registry), node)
    counts[BASE_CONTAINER_OF(node, struct entry, link)->state]++;
    print_head(out, "strake_partitions", "gauge", "Partitions by state.");
    for (unsigned i = 0; i < ENTRY_STATES; i++)
        fprintf(out, "strake_partitions{state=\"%s\"} %u\n", entry_state_name(i), counts[i]);
}

static double runs_of(const struct entry *entry)
{
    return entry->runs;
}

static double restarts_of(const struct entry *entry)
{
    return entry->restarts;
}

static double handovers_of(const struct entry *entry)
{
    return entry->handovers;
}

static double blackout_of(const struct entry *entry)
{
    const json_t *value = json_object_get(entry->last_handover, "blackout_ns");
    return value ? json_number_value(value) * 1e-9 : -1;
}

static double memory_of(const struct entry *entry)
{
    return (double)entry->definition.memory_bytes;
}

static void print_partitions(FILE *out, struct registry *registry)
{
    static const struct {
        const char *name, *type, *help;
        double (*value)(const struct entry *entry);  // less than 0: none
    } metrics[] = {
        {"strake_partition_runs_total", "counter", "Times that a partition was started.", runs_of},
        {"strake_partition_restarts_total", "counter",
         "Times that a partition was started again by its policy.", restarts_of},
        {"strake_handovers_total", "counter",
         "Times that a partition was handed over to another monitor.", handovers_of},
        {"strake_handover_blackout_seconds", "gauge",
         "How long the guest stood still in the last handover.", blackout_of},
        {"strake_partition_memory_bytes", "gauge", "RAM that a partition was given.", memory_of},
    };
    for (size_t i = 0; i < BASE_COUNT_OF(metrics); i++) {
        print_head(out, metrics[i].name, metrics[i].type, metrics[i].help);
        LIST_FOR_EACH(registry_entries(registry), node)
        {
            const struct entry *entry = BASE_CONTAINER_OF(node, struct entry, link);
            double value = metrics[i].value(entry);
            if (value >= 0)
                fprintf(out, "%s{partition=\"%s\"} %.10g\n", metrics[i].name, entry->name, value);
        }
    }
}

// ---- Of updates ---------------------------------------------------------------------------------

static void print_counts(FILE *out, const char *name, const char *label, const char *help,
                         json_t *counts)
{
    const char *key;
    json_t *value;
    print_head(out, name, "counter", help);
    json_object_foreach(counts, key, value)
    {
        fprintf(out, "%s{%s=\"%s\"} %lld\n", name, label, key,
                (long long)json_integer_value(value));
    }
}

static void print_updates(FILE *out, const struct updates *updates)
{
    json_t *counts = updates_count(updates);
    print_counts(out, "strake_updates_total", "outcome", "Updates that got to be committed.",
                 json_object_get(counts, "outcomes"));
    print_counts(out, "strake_update_refusals_total", "code",
                 "What guests were refused in updates, by code.",
                 json_object_get(counts, "refusals"));
    print_head(out, "strake_update_pending", "gauge", "Whether a version has to prove itself.");
    fprintf(out, "strake_update_pending %d\n", json_is_true(json_object_get(counts, "pending")));
    json_decref(counts);
}

// ---- Of the API
// ---------------------------------------------------------------------------------

static void print_requests(FILE *out, const struct gathering *gathering)
{
    print_head(out, "strake_api_requests_total", "counter",
               "Requests answered, by route and class of status.");
    for (size_t i = 0; i < gathering->route_count; i++) {
        for (unsigned status_class = 2; status_class < 6; status_class++) {
            uint64_t count = http_server_count(gathering->server, i, status_class);
            if (count > 0)
                fprintf(out,
                        "strake_api_requests_total{method=\"%s\",path=\"%s\",status=\"%uxx\"} "
                        "%" PRIu64 "\n",
                        gathering->routes[i].method, gathering->routes[i].path, status_class,
                        count);
        }
    }
}

// ---- Gathering
// ----------------------------------------------------------------------------------

static void reply(struct gathering *gathering)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (out) {
        print_head(out, "strake_info", "gauge", "The supervisor's version.");
        fprintf(out, "strake_info{version=\"%s\"} 1\n", STRAKE_VERSION);
        print_states(out, gathering->registry);
        print_partitions(out, gathering->registry);
        print_harts(out, gathering->stats);
        print_updates(out, registry_updates(gathering->registry));
        print_requests(out, gathering);
        fclose(out);
    }
    http_reply_text(gathering->request, "text/plain; version=0.0.4; charset=utf-8", text, bytes);
    json_decref(gathering->stats);
    free(gathering);
}

static void answered(struct gathering *gathering)
{
    if (--gathering->asked == 0)
        reply(gathering);
}

static void on_stats(void *opaque, struct entry *entry, json_t *result, const struct error *err)
{
    struct gathering *gathering = opaque;
    if (!err)
        json_object_set(gathering->stats, entry->name, result);
    answered(gathering);
}

void metrics_reply(struct registry *registry, const struct http_server *server,
                   const struct http_route *routes, size_t route_count,
                   struct http_request *request)
{
    struct gathering *gathering = malloc(sizeof(*gathering));
    if (!gathering) {
        http_reply_json(request, 0, NULL);
        return;
    }
    *gathering = (struct gathering){.registry = registry,
                                    .server = server,
                                    .routes = routes,
                                    .route_count = route_count,
                                    .request = request,
                                    .asked = 1,
                                    .stats = json_object()};
    LIST_FOR_EACH(registry_entries(registry), node)
    {
        struct entry *entry = BASE_CONTAINER_OF(node, struct entry, link);
        if (!entry->process || entry->state == ENTRY_STARTING)
            continue;
        gathering->asked++;
        entry_ask(entry, "stats", NULL, ANSWER_TIMEOUT_MS, on_stats, gathering);
    }
    answered(gathering);
}
