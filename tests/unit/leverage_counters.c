// SPDX-License-Identifier: BSD-2-Clause
// Counters of interceptors: percentiles against sorted samples, the ends of the histogram, JSON,
// and threads that count at the same time.
#include <pthread.h>
#include <stdio.h>

#include "leverage/interceptor.h"
#include "unit.h"

#define SAMPLES 20000u
#define THREADS 4
#define COUNTS 50000u

static struct interceptor_counters *make_counters(void)
{
    struct interceptor_counters *counters = calloc(1, sizeof(*counters));
    assert_non_null(counters);
    return counters;
}

static json_t *latency_of(const struct interceptor_counters *counters, json_t **whole)
{
    *whole = counters_to_json(counters);
    assert_non_null(*whole);
    return json_object_get(*whole, "latency");
}

static uint64_t member(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    assert_true(json_is_integer(value));
    return (uint64_t)json_integer_value(value);
}

static int compare(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

// Never below the true one, at most a sixteenth above it.
static void check_percentile(const json_t *latency, const char *name, const uint64_t *sorted,
                             size_t count, unsigned percent)
{
    uint64_t truth = sorted[(count * percent + 99) / 100 - 1], told = member(latency, name);
    printf("%s of %zu samples: %llu, told %llu\n", name, count, (unsigned long long)truth,
           (unsigned long long)told);
    assert_true(told >= truth && told <= truth + truth / 16 + 1);
}

static void percentiles_are_close(void **unused)
{
    (void)unused;
    static const unsigned ranges[] = {4, 12, 30, 42};
    uint64_t *samples = calloc(SAMPLES, sizeof(*samples)), seed = 0x9e3779b97f4a7c15u;
    for (size_t range = 0; range < BASE_COUNT_OF(ranges); range++) {
        struct interceptor_counters *counters = make_counters();
        json_t *whole;
        for (size_t i = 0; i < SAMPLES; i++) {
            samples[i] = next_random(&seed) >> (64 - ranges[range]) >> (next_random(&seed) % 4);
            counters_latency(counters, samples[i]);
        }
        qsort(samples, SAMPLES, sizeof(*samples), compare);
        json_t *latency = latency_of(counters, &whole);
        check_percentile(latency, "p50", samples, SAMPLES, 50);
        check_percentile(latency, "p90", samples, SAMPLES, 90);
        check_percentile(latency, "p99", samples, SAMPLES, 99);
        assert_int_equal(member(latency, "count"), SAMPLES);
        assert_int_equal(member(latency, "max"), samples[SAMPLES - 1]);
        json_decref(whole);
        free(counters);
    }
    free(samples);
}

// Each bucket has what is above the one before it and not above its own bound.
static void check_buckets(const json_t *latency, const uint64_t *samples, size_t count)
{
    const json_t *buckets = json_object_get(latency, "buckets"), *bucket;
    size_t i, all = 0;
    uint64_t lower = 0;
    json_array_foreach(buckets, i, bucket)
    {
        uint64_t upper = (uint64_t)json_integer_value(json_array_get(bucket, 0));
        uint64_t in = (uint64_t)json_integer_value(json_array_get(bucket, 1)), truth = 0;
        for (size_t j = 0; j < count; j++)
            truth += samples[j] <= upper && (i == 0 || samples[j] > lower);
        assert_int_equal(in, truth);
        assert_true(i == 0 || upper > lower);
        all += in;
        lower = upper;
    }
    assert_int_equal(all, count);
}

static void the_ends_hold(void **unused)
{
    (void)unused;
    static const uint64_t samples[] = {0, 1, 15, 16, 17, 31, 32, 1000, 1u << 20};
    struct interceptor_counters *counters = make_counters();
    json_t *whole, *latency = latency_of(counters, &whole);
    printf("nothing counted: all zero\n");
    assert_int_equal(member(latency, "p99"), 0);
    assert_int_equal(json_array_size(json_object_get(latency, "buckets")), 0);
    json_decref(whole);

    for (size_t i = 0; i < BASE_COUNT_OF(samples); i++)
        counters_latency(counters, samples[i]);
    latency = latency_of(counters, &whole);
    check_buckets(latency, samples, BASE_COUNT_OF(samples));
    assert_int_equal(member(latency, "p50"), 17);
    json_decref(whole);

    printf("what is longer than any bucket is there, too\n");
    for (int i = 0; i < 1000; i++)
        counters_latency(counters, UINT64_MAX / 4);
    latency = latency_of(counters, &whole);
    assert_int_equal(member(latency, "p50"), UINT64_MAX / 4);
    assert_int_equal(member(latency, "count"), 1000 + BASE_COUNT_OF(samples));
    json_decref(whole);
    free(counters);
}

static void *count_much(void *opaque)
{
    struct interceptor_counters *counters = opaque;
    for (unsigned i = 0; i < COUNTS; i++) {
        counter_add(&counters->seen, 2);
        counter_add(&counters->returned, 1);
        counters_latency(counters, i);
    }
    return NULL;
}

static void threads_count_together(void **unused)
{
    (void)unused;
    struct interceptor_counters *counters = make_counters();
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count_much, counters), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    json_t *whole, *latency = latency_of(counters, &whole);
    assert_int_equal(member(whole, "seen"), 2 * THREADS * COUNTS);
    assert_int_equal(member(whole, "returned"), THREADS * COUNTS);
    assert_int_equal(member(whole, "changed"), 0);
    assert_int_equal(member(latency, "count"), THREADS * COUNTS);
    assert_int_equal(member(latency, "max"), COUNTS - 1);
    json_decref(whole);
    free(counters);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(percentiles_are_close),
        cmocka_unit_test(the_ends_hold),
        cmocka_unit_test(threads_count_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
