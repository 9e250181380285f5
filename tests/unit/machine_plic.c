// SPDX-License-Identifier: BSD-2-Clause
// The interrupt controller as a driver sees it: priorities, thresholds, claim and completion of
// level-triggered sources.
#include "machine/devices.h"
#include "unit.h"

#define M0 0u  // contexts
#define S0 1u
#define S1 3u

#define PRIORITY(source) (4u * (source))
#define PENDING(source) (0x1000u + (source) / 32 * 4)
#define ENABLE(context, source) (0x2000u + 0x80u * (context) + (source) / 32 * 4)
#define THRESHOLD(context) (0x200000u + 0x1000u * (context))
#define CLAIM(context) (THRESHOLD(context) + 4)

struct bench {
    struct plic plic;
    bool output[4];
};

static void output_set(void *opaque, unsigned context, bool level)
{
    struct bench *bench = opaque;
    assert_in_range(context, 0, 3);
    bench->output[context] = level;
}

static int setup(void **state)
{
    static struct bench bench;
    bench = (struct bench){0};
    plic_init(&bench.plic, 4, output_set, &bench);
    plic_reset(&bench.plic);
    *state = &bench;
    return 0;
}

static int teardown(void **state)
{
    struct bench *bench = *state;
    plic_fini(&bench->plic);
    return 0;
}

static uint32_t get(struct bench *bench, uint64_t offset)
{
    return (uint32_t)plic_ops.read(&bench->plic, offset, 4);
}

static void put(struct bench *bench, uint64_t offset, uint32_t value)
{
    plic_ops.write(&bench->plic, offset, 4, value);
}

static void line(struct bench *bench, unsigned source, bool level)
{
    struct irq_line irq = plic_line(&bench->plic, source);
    irq_line_set(&irq, level);
}

static void enable(struct bench *bench, unsigned context, unsigned source, uint32_t priority)
{
    put(bench, PRIORITY(source), priority);
    put(bench, ENABLE(context, source), get(bench, ENABLE(context, source)) | 1u << source % 32);
}

static void test_claim_and_complete(void **state)
{
    struct bench *bench = *state;

    enable(bench, S0, 10, 1);
    assert_false(bench->output[S0]);
    line(bench, 10, true);
    assert_true(bench->output[S0]);
    assert_false(bench->output[M0]);
    assert_false(bench->output[S1]);
    assert_int_equal(get(bench, PENDING(10)), 1u << 10);

    assert_int_equal(get(bench, CLAIM(S0)), 10);
    assert_false(bench->output[S0]);
    assert_int_equal(get(bench, PENDING(10)), 0);
    assert_int_equal(get(bench, CLAIM(S0)), 0);

    line(bench, 10, false);
    put(bench, CLAIM(S0), 10);
    assert_false(bench->output[S0]);
}

static void test_level_still_high_after_completion_interrupts_again(void **state)
{
    struct bench *bench = *state;

    enable(bench, S0, 3, 1);
    line(bench, 3, true);
    assert_int_equal(get(bench, CLAIM(S0)), 3);
    line(bench, 3, true);  // no new request while it is being served
    assert_false(bench->output[S0]);
    put(bench, CLAIM(S0), 3);
    assert_true(bench->output[S0]);
    assert_int_equal(get(bench, CLAIM(S0)), 3);

    // Dropped and raised again while being served: one more request, after the completion.
    line(bench, 3, false);
    line(bench, 3, true);
    assert_int_equal(get(bench, CLAIM(S0)), 0);
    put(bench, CLAIM(S0), 3);
    assert_int_equal(get(bench, CLAIM(S0)), 3);
}

static void test_request_stays_when_the_line_drops(void **state)
{
    struct bench *bench = *state;

    enable(bench, S0, 5, 1);
    line(bench, 5, true);
    line(bench, 5, false);
    assert_true(bench->output[S0]);
    assert_int_equal(get(bench, CLAIM(S0)), 5);
    put(bench, CLAIM(S0), 5);
    assert_false(bench->output[S0]);
}

static void test_order_of_claims(void **state)
{
    struct bench *bench = *state;

    enable(bench, S0, 4, 2);
    enable(bench, S0, 40, 7);
    enable(bench, S0, 7, 2);
    enable(bench, S0, 96, 3);
    line(bench, 7, true);
    line(bench, 4, true);
    line(bench, 96, true);
    line(bench, 40, true);
    assert_int_equal(get(bench, CLAIM(S0)), 40);
    assert_int_equal(get(bench, CLAIM(S0)), 96);
    assert_int_equal(get(bench, CLAIM(S0)), 4);
    assert_int_equal(get(bench, CLAIM(S0)), 7);
    assert_int_equal(get(bench, CLAIM(S0)), 0);
}

static void test_threshold_and_priority_zero(void **state)
{
    struct bench *bench = *state;

    enable(bench, S0, 8, 2);
    put(bench, THRESHOLD(S0), 2);
    line(bench, 8, true);
    assert_false(bench->output[S0]);
    put(bench, THRESHOLD(S0), 1);
    assert_true(bench->output[S0]);
    put(bench, THRESHOLD(S0), 7);
    assert_false(bench->output[S0]);
    assert_int_equal(get(bench, CLAIM(S0)), 8);  // a claim does not look at the threshold
    put(bench, CLAIM(S0), 8);

    put(bench, THRESHOLD(S0), 0);
    put(bench, PRIORITY(8), 0);
    assert_false(bench->output[S0]);
    assert_int_equal(get(bench, CLAIM(S0)), 0);
}

static void test_two_contexts_share_a_source(void **state)
{
    struct bench *bench = *state;

    enable(bench, S0, 10, 1);
    enable(bench, S1, 10, 1);
    line(bench, 10, true);
    assert_true(bench->output[S0]);
    assert_true(bench->output[S1]);
    assert_int_equal(get(bench, CLAIM(S1)), 10);
    assert_false(bench->output[S0]);
    assert_int_equal(get(bench, CLAIM(S0)), 0);  // lost the race
    put(bench, CLAIM(S1), 10);
    assert_true(bench->output[S0]);
}

static void test_completion_of_what_is_not_enabled_is_ignored(void **state)
{
    struct bench *bench = *state;

    enable(bench, S0, 10, 1);
    line(bench, 10, true);
    assert_int_equal(get(bench, CLAIM(S0)), 10);
    put(bench, CLAIM(S1), 10);
    put(bench, CLAIM(S0), 11);
    put(bench, CLAIM(S0), 97);
    put(bench, CLAIM(S0), UINT32_MAX);
    assert_false(bench->output[S0]);
    put(bench, CLAIM(S0), 10);
    assert_true(bench->output[S0]);
}

static void test_registers_hold_what_exists(void **state)
{
    struct bench *bench = *state;

    for (uint64_t offset = 0; offset < PLIC_LENGTH_BYTES; offset += 4) {
        if (offset < 0x4000 || offset % 0x1000 < 0x10)
            put(bench, offset, UINT32_MAX);
    }
    assert_int_equal(get(bench, PRIORITY(0)), 0);
    assert_int_equal(get(bench, PRIORITY(1)), 7);
    assert_int_equal(get(bench, PRIORITY(96)), 7);
    assert_int_equal(get(bench, PRIORITY(97)), 0);
    assert_int_equal(get(bench, PENDING(1)), 0);
    assert_int_equal(get(bench, ENABLE(S1, 0)), ~1u);
    assert_int_equal(get(bench, ENABLE(S1, 96)), 1);
    assert_int_equal(get(bench, ENABLE(S1, 128)), 0);
    assert_int_equal(get(bench, ENABLE(4, 0)), 0);  // no such context
    assert_int_equal(get(bench, THRESHOLD(S1)), 7);
    assert_int_equal(get(bench, THRESHOLD(4)), 0);
}

static void test_reset_lowers_outputs(void **state)
{
    struct bench *bench = *state;

    enable(bench, S0, 10, 1);
    line(bench, 10, true);
    assert_true(bench->output[S0]);
    plic_reset(&bench->plic);
    assert_false(bench->output[S0]);
    assert_int_equal(get(bench, ENABLE(S0, 10)), 0);
    enable(bench, S0, 10, 1);  // the wire is still high
    assert_true(bench->output[S0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
        TEST(test_claim_and_complete),
        TEST(test_level_still_high_after_completion_interrupts_again),
        TEST(test_request_stays_when_the_line_drops),
        TEST(test_order_of_claims),
        TEST(test_threshold_and_priority_zero),
        TEST(test_two_contexts_share_a_source),
        TEST(test_completion_of_what_is_not_enabled_is_ignored),
        TEST(test_registers_hold_what_exists),
        TEST(test_reset_lowers_outputs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
