// SPDX-License-Identifier: BSD-2-Clause
// Metrics in Prometheus' text format 0.0.4.
//
// What harts have counted is asked of each running monitor, and what interceptors have of their
// processes, all at once; one that does not answer in time has no such samples, and keeps nobody
// else from having theirs.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "supervisor/api.h"
#include "supervisor/leverage.h"
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
    json_t *counts;  // by interceptor's name
};

static void print_head(FILE *out, const char *name, const char *type, const char *help)
{
    fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

// ---- Of harts -----------------------------------------------------------------------------------

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

// ---- Of partitions ------------------------------------------------------------------------------

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

// ---- Of interceptors ----------------------------------------------------------------------------

static void print_interceptor_states(FILE *out, struct leverage *leverage)
{
    unsigned counts[INTERCEPTOR_STATES] = {0};
    LIST_FOR_EACH(leverage_list(leverage), node)
    counts[interception_state(interception_of_link(node))]++;
    print_head(out, "strake_interceptors", "gauge", "Interceptors by state.");
    for (unsigned i = 0; i < INTERCEPTOR_STATES; i++)
        fprintf(out, "strake_interceptors{state=\"%s\"} %u\n", interceptor_state_name(i),
                counts[i]);
    print_head(out, "strake_interceptor_restarts_total", "counter",
               "Times that an interceptor's process was started again.");
    LIST_FOR_EACH(leverage_list(leverage), node)
    fprintf(out, "strake_interceptor_restarts_total{interceptor=\"%s\"} %u\n",
            interception_name(interception_of_link(node)),
            interception_restarts(interception_of_link(node)));
}

static void print_interceptor_counters(FILE *out, json_t *counts)
{
    static const struct {
        const char *name, *key, *help;
    } metrics[] = {
        {"strake_interceptor_seen_total", "seen", "What came to an interceptor."},
        {"strake_interceptor_returned_total", "returned", "Of that, returned as it was."},
        {"strake_interceptor_changed_total", "changed", "Of that, returned changed."},
        {"strake_interceptor_dropped_total", "dropped", "Of that, refused."},
        {"strake_interceptor_timed_out_total", "timed_out", "Of that, not answered in time."},
        {"strake_interceptor_bypassed_total", "bypassed", "Of that, returned unseen by modules."},
    };
    const char *name;
    json_t *one;
    for (size_t i = 0; i < BASE_COUNT_OF(metrics); i++) {
        print_head(out, metrics[i].name, "counter", metrics[i].help);
        json_object_foreach(counts, name, one)
        {
            fprintf(out, "%s{interceptor=\"%s\"} %lld\n", metrics[i].name, name,
                    (long long)json_integer_value(json_object_get(one, metrics[i].key)));
        }
    }
}

static void print_interceptor_latency(FILE *out, json_t *counts)
{
    static const struct {
        const char *key, *quantile;
    } quantiles[] = {{"p50", "0.5"}, {"p90", "0.9"}, {"p99", "0.99"}};
    const char *name;
    json_t *one;
    print_head(out, "strake_interceptor_latency_seconds", "summary",
               "How long what was intercepted took through the modules.");
    json_object_foreach(counts, name, one)
    {
        const json_t *latency = json_object_get(one, "latency");
        for (size_t i = 0; i < BASE_COUNT_OF(quantiles); i++)
            fprintf(out,
                    "strake_interceptor_latency_seconds{interceptor=\"%s\",quantile=\"%s\"} "
                    "%.10g\n",
                    name, quantiles[i].quantile,
                    json_number_value(json_object_get(latency, quantiles[i].key)) * 1e-9);
        fprintf(out, "strake_interceptor_latency_seconds_count{interceptor=\"%s\"} %lld\n", name,
                (long long)json_integer_value(json_object_get(latency, "count")));
    }
}

// ---- Of the API ---------------------------------------------------------------------------------

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

// ---- Gathering ----------------------------------------------------------------------------------

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
        if (registry_leverage(gathering->registry))  // the supervisor is not ending
            print_interceptor_states(out, registry_leverage(gathering->registry));
        print_interceptor_counters(out, gathering->counts);
        print_interceptor_latency(out, gathering->counts);
        print_requests(out, gathering);
        fclose(out);
    }
    http_reply_text(gathering->request, "text/plain; version=0.0.4; charset=utf-8", text, bytes);
    json_decref(gathering->stats);
    json_decref(gathering->counts);
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

static void on_counts(void *opaque, struct interception *interception, json_t *result,
                      const struct error *err)
{
    struct gathering *gathering = opaque;
    if (!err)
        json_object_set(gathering->counts, interception_name(interception), result);
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
                                    .stats = json_object(),
                                    .counts = json_object()};
    LIST_FOR_EACH(registry_entries(registry), node)
    {
        struct entry *entry = BASE_CONTAINER_OF(node, struct entry, link);
        if (!entry->process || entry->state == ENTRY_STARTING)
            continue;
        gathering->asked++;
        entry_ask(entry, "stats", NULL, ANSWER_TIMEOUT_MS, on_stats, gathering);
    }
    LIST_FOR_EACH(leverage_list(registry_leverage(registry)), node)
    {
        gathering->asked++;
        interception_ask(interception_of_link(node), "stats", ANSWER_TIMEOUT_MS, on_counts,
                         gathering);
    }
    answered(gathering);
}
