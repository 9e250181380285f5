// SPDX-License-Identifier: BSD-2-Clause
// The real-time clock and its alarm, and the power device.
#include "machine/devices.h"
#include "unit.h"

enum {
    TIME_LOW = 0x00,
    TIME_HIGH = 0x04,
    ALARM_LOW = 0x08,
    ALARM_HIGH = 0x0c,
    IRQ_ENABLED = 0x10,
    ALARM_CLEAR = 0x14,
    ALARM_STATUS = 0x18,
    INTERRUPT_CLEAR = 0x1c,
};

#define NOW 0x17f0000012345678ull  // some day in 2024
#define MS 1000000ull

struct bench {
    struct machine_host host;
    struct rtc rtc;
    struct power power;
    struct loop *loop;
    uint64_t now;
    uint64_t started;  // when not 0, `now` runs on from there with the host's clock
    bool irq, stop_on_irq;
    int event;
    unsigned code;
};

static uint64_t wall_clock(void *opaque)
{
    struct bench *bench = opaque;
    return bench->now + (bench->started ? clock_monotonic_ns() - bench->started : 0);
}

static void irq_set(void *controller, unsigned source, bool level)
{
    struct bench *bench = controller;
    (void)source;
    bench->irq = level;
    if (level && bench->stop_on_irq)
        loop_stop(bench->loop);
}

static void event(void *opaque, enum machine_event event, unsigned code)
{
    struct bench *bench = opaque;
    bench->event = (int)event;
    bench->code = code;
}

static int setup(void **state)
{
    static struct bench bench;
    bench = (struct bench){.now = NOW, .event = -1};
    bench.host =
        (struct machine_host){.wall_clock_ns = wall_clock, .event = event, .opaque = &bench};
    assert_int_equal(loop_create(&bench.loop, NULL), 0);
    struct irq_line irq = {.set = irq_set, .controller = &bench};
    assert_int_equal(rtc_init(&bench.rtc, bench.loop, &bench.host, irq), 0);
    rtc_reset(&bench.rtc);
    power_init(&bench.power, &bench.host);
    *state = &bench;
    return 0;
}

static int teardown(void **state)
{
    struct bench *bench = *state;
    rtc_fini(&bench->rtc);
    loop_destroy(bench->loop);
    return 0;
}

static uint32_t get(struct bench *bench, uint64_t offset)
{
    return (uint32_t)rtc_ops.read(&bench->rtc, offset, 4);
}

static void put(struct bench *bench, uint64_t offset, uint32_t value)
{
    rtc_ops.write(&bench->rtc, offset, 4, value);
}

static uint64_t time_read(struct bench *bench)
{
    uint32_t low = get(bench, TIME_LOW);
    return (uint64_t)get(bench, TIME_HIGH) << 32 | low;
}

static void alarm_set(struct bench *bench, uint64_t at)
{
    put(bench, ALARM_HIGH, at >> 32);
    put(bench, ALARM_LOW, (uint32_t)at);
    put(bench, IRQ_ENABLED, 1);
}

static void test_time(void **state)
{
    struct bench *bench = *state;

    assert_int_equal(time_read(bench), NOW);
    // The high half belongs to the low half read last.
    bench->now = 0x1ffffffffull;
    assert_int_equal(get(bench, TIME_LOW), 0xffffffff);
    bench->now++;
    assert_int_equal(get(bench, TIME_HIGH), 1);
    assert_int_equal(time_read(bench), 0x200000000ull);
}

static void test_time_set_by_the_guest(void **state)
{
    struct bench *bench = *state;

    put(bench, TIME_HIGH, 0x11223344);
    put(bench, TIME_LOW, 0x55667788);
    assert_int_equal(time_read(bench), 0x1122334455667788ull);
    bench->now += 5;
    assert_int_equal(time_read(bench), 0x112233445566778dull);
}

static void test_alarm_in_the_past_is_due_at_once(void **state)
{
    struct bench *bench = *state;

    alarm_set(bench, NOW - 1);
    assert_true(bench->irq);
    assert_int_equal(get(bench, ALARM_STATUS), 0);
    put(bench, INTERRUPT_CLEAR, 1);
    assert_false(bench->irq);
}

static void test_interrupt_needs_enabling(void **state)
{
    struct bench *bench = *state;

    alarm_set(bench, NOW);
    put(bench, IRQ_ENABLED, 0);
    assert_false(bench->irq);
    put(bench, IRQ_ENABLED, 1);
    assert_true(bench->irq);
}

static void test_alarm_fires_on_time(void **state)
{
    struct bench *bench = *state;

    alarm_set(bench, NOW + 20 * MS);
    assert_false(bench->irq);
    assert_int_equal(get(bench, ALARM_STATUS), 1);
    bench->stop_on_irq = true;
    bench->started = clock_monotonic_ns();
    loop_run(bench->loop);
    assert_true(clock_monotonic_ns() - bench->started >= 20 * MS);
    assert_true(bench->irq);
    assert_int_equal(get(bench, ALARM_STATUS), 0);
}

static void test_alarm_cleared(void **state)
{
    struct bench *bench = *state;

    alarm_set(bench, NOW + 20 * MS);
    put(bench, ALARM_CLEAR, 1);
    assert_int_equal(get(bench, ALARM_STATUS), 0);
    bench->now += 40 * MS;
    put(bench, IRQ_ENABLED, 1);
    assert_false(bench->irq);
}

static void test_reset(void **state)
{
    struct bench *bench = *state;

    put(bench, TIME_LOW, 0x1000);
    uint64_t set = time_read(bench);
    alarm_set(bench, 0);
    assert_true(bench->irq);
    rtc_reset(&bench->rtc);
    assert_false(bench->irq);
    assert_int_equal(get(bench, IRQ_ENABLED), 0);
    assert_int_equal(time_read(bench), set);  // battery-backed
}

static void test_power(void **state)
{
    struct bench *bench = *state;
    const struct {
        uint64_t offset, value;
        int event;
        unsigned code;
    } cases[] = {
        {0, 0x5555, MACHINE_POWEROFF, 0},
        {0, 0x7777, MACHINE_REBOOT, 0},
        {0, 0x3333, MACHINE_FAIL, 0},
        {0, 0x00073333, MACHINE_FAIL, 7},
        {0, 0, -1, 0},
        {0, 0x1234, -1, 0},
        {4, 0x5555, -1, 0},
    };
    for (size_t i = 0; i < BASE_COUNT_OF(cases); i++) {
        bench->event = -1;
        bench->code = 0;
        power_ops.write(&bench->power, cases[i].offset, 4, cases[i].value);
        assert_int_equal(bench->event, cases[i].event);
        assert_int_equal(bench->code, cases[i].code);
    }
    assert_int_equal(power_ops.read(&bench->power, 0, 4), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
        TEST(test_time),
        TEST(test_time_set_by_the_guest),
        TEST(test_alarm_in_the_past_is_due_at_once),
        TEST(test_interrupt_needs_enabling),
        TEST(test_alarm_fires_on_time),
        TEST(test_alarm_cleared),
        TEST(test_reset),
        TEST(test_power),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
