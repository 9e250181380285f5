// SPDX-License-Identifier: BSD-2-Clause
// What harts have counted, as JSON: one table for both directions.
#include "monitor/internal.h"

#define ASK_NS 200000000u  // for a hart that runs to get to an answer

#define COUNTER_BYTES 8u  // all are uint64_t
#define COUNTER(name_, member)                                                                     \
    {                                                                                              \
        .name = name_, .offset = offsetof(struct monitor_counters, member),                        \
        .count = sizeof(((struct monitor_counters *)0)->member) / COUNTER_BYTES                    \
    }

static const struct {
    const char *name;
    size_t offset;
    size_t count;  // more than 1: an array
} counters_table[] = {
    COUNTER("retired", hart.retired),
    COUNTER("misses", hart.misses),
    COUNTER("device-reads", hart.device_reads),
    COUNTER("device-writes", hart.device_writes),
    COUNTER("flushes", hart.flushes),
    COUNTER("exceptions", hart.exceptions),
    COUNTER("interrupts", hart.interrupts),
    COUNTER("sbi-calls", hart.sbi_calls),
    COUNTER("sleeps", hart.sleeps),
    COUNTER("slept-ns", hart.slept_ns),
    COUNTER("jit-translations", jit.translations),
    COUNTER("jit-faults", jit.faults),
    COUNTER("jit-links", jit.links),
    COUNTER("jit-drops", jit.drops),
    COUNTER("jit-dispatches", jit.dispatches),
    COUNTER("jit-code-bytes", jit.code_bytes),
    COUNTER("jit-code-bytes-bound", jit.code_bytes_bound),
    COUNTER("jit-fetches", jit.fetches),
    COUNTER("jit-loads", jit.loads),
    COUNTER("jit-stores", jit.stores),
    COUNTER("jit-exits", jit.exits),
    COUNTER("jit-calls", jit.calls),
    COUNTER("jit-translation-ns", jit.translation_ns),
    COUNTER("cpu-ns", cpu_ns),
    COUNTER("wall-ns", wall_ns),
};

static json_t *value_to_json(const uint64_t *values, size_t count)
{
    if (count == 1)
        return json_integer((json_int_t)*values);
    json_t *list = json_array();
    for (size_t i = 0; list && i < count; i++)
        json_array_append_new(list, json_integer((json_int_t)values[i]));
    return list;
}

json_t *monitor_counters_to_json(const struct monitor_counters *counters)
{
    json_t *object = json_object();
    for (size_t i = 0; object && i < BASE_COUNT_OF(counters_table); i++) {
        const uint64_t *values =
            (const uint64_t *)((const char *)counters + counters_table[i].offset);
        json_object_set_new(object, counters_table[i].name,
                            value_to_json(values, counters_table[i].count));
    }
    return object;
}

void monitor_counters_from_json(struct monitor_counters *counters, const json_t *object)
{
    *counters = (struct monitor_counters){0};
    for (size_t i = 0; i < BASE_COUNT_OF(counters_table); i++) {
        uint64_t *values = (uint64_t *)((char *)counters + counters_table[i].offset);
        const json_t *value = json_object_get(object, counters_table[i].name);
        for (size_t j = 0; j < counters_table[i].count; j++) {
            const json_t *one = counters_table[i].count > 1 ? json_array_get(value, j) : value;
            values[j] = (uint64_t)json_integer_value(one);
        }
    }
}

struct asked {
    struct monitor_counters counters;
    bool translator;
};

static void ask(struct hart *hart, void *opaque)
{
    struct asked *asked = opaque;
    hart_stats(hart, &asked->counters.hart);
    if (asked->translator)
        jit_stats(hart->engine_state, &asked->counters.jit);
}

// One hart's; null when it is so busy that it does not answer.
static json_t *hart_counters(struct monitor *monitor, unsigned id)
{
    struct asked asked = {.translator = monitor->definition.engine == &hart_engine_jit};
    struct hart *hart = machine_hart(partition_machine(monitor->partition), id);
    if (!hart_ask(hart, ask, &asked, ASK_NS))
        return json_null();
    asked.counters.cpu_ns = partition_hart_cpu_ns(monitor->partition, id);
    uint64_t end_ns = monitor->ended_ns ? monitor->ended_ns : clock_monotonic_ns();
    asked.counters.wall_ns = monitor->started_ns ? end_ns - monitor->started_ns : 0;
    return monitor_counters_to_json(&asked.counters);
}

json_t *monitor_stats(struct monitor *monitor)
{
    json_t *harts = json_array();
    unsigned count = machine_cpus(partition_machine(monitor->partition));
    for (unsigned i = 0; harts && i < count; i++)
        json_array_append_new(harts, hart_counters(monitor, i));
    return json_pack("{s:s,s:o}", "engine", monitor->definition.engine->name, "harts", harts);
}
