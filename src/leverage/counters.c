// SPDX-License-Identifier: BSD-2-Clause
// Counters of an interceptor, and how long units took: a histogram with 16 buckets an octave, so
// that a percentile is never more than 1/16 too high. Threads count without a lock; who reads while
// they do sees each counter right, though not all of the same instant.
#include "leverage/interceptor.h"

#define SUB_BITS 4u
#define SUB (1u << SUB_BITS)
// Up to 2^SUB_BITS ns exactly; above it SUB buckets an octave; the last one has all that is longer.
#define OCTAVES (LATENCY_BUCKETS / SUB - 1)

static unsigned bucket_of(uint64_t ns)
{
    if (ns < SUB)
        return (unsigned)ns;
    unsigned octave = 63u - (unsigned)__builtin_clzll(ns) - SUB_BITS;
    if (octave >= OCTAVES)
        return LATENCY_BUCKETS - 1;
    return SUB * (octave + 1) + (unsigned)(ns >> octave) % SUB;
}

// The largest value that belongs to it.
static uint64_t bucket_upper(unsigned bucket)
{
    if (bucket < SUB)
        return bucket;
    unsigned octave = bucket / SUB - 1;
    return ((uint64_t)(SUB + bucket % SUB + 1) << octave) - 1;
}

void counters_latency(struct interceptor_counters *counters, uint64_t ns)
{
    struct latency *latency = &counters->latency;
    uint64_t max = atomic_load_explicit(&latency->max_ns, memory_order_relaxed);
    counter_add(&latency->buckets[bucket_of(ns)], 1);
    while (ns > max && !atomic_compare_exchange_weak_explicit(
                           &latency->max_ns, &max, ns, memory_order_relaxed, memory_order_relaxed))
        ;
}

static uint64_t count_of(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

// A copy whose parts agree with each other.
struct snapshot {
    uint64_t count, max_ns, buckets[LATENCY_BUCKETS];
};

static void take_snapshot(struct snapshot *copy, const struct latency *latency)
{
    copy->count = 0;
    for (unsigned i = 0; i < LATENCY_BUCKETS; i++) {
        copy->buckets[i] = count_of(&latency->buckets[i]);
        copy->count += copy->buckets[i];
    }
    copy->max_ns = count_of(&latency->max_ns);
}

// The value that `percent` of all are not above.
static uint64_t percentile(const struct snapshot *copy, unsigned percent)
{
    uint64_t rank = copy->count / 100 * percent + (copy->count % 100 * percent + 99) / 100;
    uint64_t below = 0;
    for (unsigned i = 0; i < LATENCY_BUCKETS - 1 && copy->count > 0; i++) {
        below += copy->buckets[i];
        if (below >= rank)
            return bucket_upper(i) < copy->max_ns ? bucket_upper(i) : copy->max_ns;
    }
    return copy->max_ns;
}

// Of those that are not empty, one an octave: what people and Prometheus look at.
static json_t *octaves_to_json(const struct snapshot *copy)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < LATENCY_BUCKETS; i += SUB) {
        uint64_t count = 0;
        for (unsigned j = 0; j < SUB; j++)
            count += copy->buckets[i + j];
        if (count > 0)
            json_array_append_new(
                list, json_pack("[I,I]", (json_int_t)bucket_upper(i + SUB - 1), (json_int_t)count));
    }
    return list;
}

static json_t *latency_to_json(const struct latency *latency)
{
    struct snapshot copy;
    take_snapshot(&copy, latency);
    return json_pack("{s:s,s:I,s:I,s:I,s:I,s:I,s:o}", "unit", "ns", "count", (json_int_t)copy.count,
                     "p50", (json_int_t)percentile(&copy, 50), "p90",
                     (json_int_t)percentile(&copy, 90), "p99", (json_int_t)percentile(&copy, 99),
                     "max", (json_int_t)copy.max_ns, "buckets", octaves_to_json(&copy));
}

json_t *counters_to_json(const struct interceptor_counters *counters)
{
    const struct {
        const char *name;
        const _Atomic uint64_t *counter;
    } all[] = {
        {"seen", &counters->seen},           {"returned", &counters->returned},
        {"changed", &counters->changed},     {"dropped", &counters->dropped},
        {"timed_out", &counters->timed_out}, {"bypassed", &counters->bypassed},
    };
    json_t *object = json_object();
    int rc = 0;
    for (size_t i = 0; i < BASE_COUNT_OF(all) && rc == 0; i++)
        rc = json_object_set_new(object, all[i].name,
                                 json_integer((json_int_t)count_of(all[i].counter)));
    if (rc == 0)
        rc = json_object_set_new(object, "latency", latency_to_json(&counters->latency));
    if (rc == 0)
        return object;
    json_decref(object);
    return NULL;
}
