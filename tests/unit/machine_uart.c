// SPDX-License-Identifier: BSD-2-Clause
// The serial port as an 8250 driver uses it: detection, FIFOs, interrupts, loopback.
#include "machine/devices.h"
#include "unit.h"

enum { RBR = 0, THR = 0, DLL = 0, IER = 1, DLM = 1, IIR = 2, FCR = 2, LCR, MCR, LSR, MSR, SCR };

struct bench {
    struct uart uart;
    bool irq;
    const char *input;  // what the line still has for the UART
    char output[64];
    size_t output_count;
    unsigned taken_calls;
};

static void irq_set(void *controller, unsigned source, bool level)
{
    struct bench *bench = controller;
    assert_int_equal(source, 10);
    bench->irq = level;
}

static void output(void *opaque, uint8_t byte)
{
    struct bench *bench = opaque;
    bench->output[bench->output_count++] = (char)byte;
}

static size_t input(void *opaque, uint8_t *bytes, size_t max)
{
    struct bench *bench = opaque;
    size_t count = strnlen(bench->input, max);
    memcpy(bytes, bench->input, count);
    bench->input += count;
    return count;
}

static void input_taken(void *opaque)
{
    struct bench *bench = opaque;
    bench->taken_calls++;
}

static int setup(void **state)
{
    static struct bench bench;
    bench = (struct bench){.input = ""};
    struct uart_peer peer = {
        .output = output, .input = input, .input_taken = input_taken, .opaque = &bench};
    struct irq_line irq = {.set = irq_set, .controller = &bench, .source = 10};
    uart_init(&bench.uart, &peer, irq);
    uart_reset(&bench.uart);
    *state = &bench;
    return 0;
}

static int teardown(void **state)
{
    struct bench *bench = *state;
    uart_fini(&bench->uart);
    return 0;
}

static unsigned get(struct bench *bench, unsigned reg)
{
    return (unsigned)uart_ops.read(&bench->uart, reg, 1);
}

static void put(struct bench *bench, unsigned reg, unsigned value)
{
    uart_ops.write(&bench->uart, reg, 1, value);
}

static void type(struct bench *bench, const char *text)
{
    bench->input = text;
    uart_poll_input(&bench->uart);
}

static void test_power_on(void **state)
{
    struct bench *bench = *state;

    assert_int_equal(get(bench, IER), 0);
    assert_int_equal(get(bench, IIR), 0x01);
    assert_int_equal(get(bench, LCR), 0);
    assert_int_equal(get(bench, LSR), 0x60);
    assert_int_equal(get(bench, MSR), 0xb0);
    assert_false(bench->irq);
}

// The steps by which Linux tells a 16550A from its relatives.
static void test_detection(void **state)
{
    struct bench *bench = *state;

    put(bench, IER, 0x0f);
    assert_int_equal(get(bench, IER), 0x0f);
    put(bench, IER, 0xf0);
    assert_int_equal(get(bench, IER), 0);
    put(bench, MCR, 0x10 | 0x0a);
    assert_int_equal(get(bench, MSR) & 0xf0, 0x90);
    put(bench, MCR, 0);
    put(bench, FCR, 0x01);
    assert_int_equal(get(bench, IIR) >> 6, 3);
    put(bench, FCR, 0x00);
    assert_int_equal(get(bench, IIR) >> 6, 0);
    put(bench, SCR, 0xa5);
    assert_int_equal(get(bench, SCR), 0xa5);
}

static void test_divisor_latch(void **state)
{
    struct bench *bench = *state;

    put(bench, LCR, 0x83);
    put(bench, DLL, 0x34);
    put(bench, DLM, 0x12);
    assert_int_equal(get(bench, DLL), 0x34);
    assert_int_equal(get(bench, DLM), 0x12);
    put(bench, LCR, 0x03);
    assert_int_equal(bench->output_count, 0);
    assert_int_equal(get(bench, IER), 0);
    put(bench, THR, 'x');
    assert_int_equal(bench->output_count, 1);
    put(bench, LCR, 0x83);
    assert_int_equal(get(bench, DLL), 0x34);
}

static void test_transmitter_interrupt(void **state)
{
    struct bench *bench = *state;

    put(bench, IER, 0x02);  // enabling it while the transmitter is empty raises it
    assert_true(bench->irq);
    assert_int_equal(get(bench, IIR), 0x02);
    assert_false(bench->irq);  // reading it took it away
    assert_int_equal(get(bench, IIR), 0x01);
    put(bench, IER, 0);
    put(bench, IER, 0x02);  // and enabling it again raises it again
    assert_int_equal(get(bench, IIR), 0x02);

    put(bench, THR, 'a');
    assert_true(bench->irq);
    assert_int_equal(get(bench, LSR), 0x60);
    assert_memory_equal(bench->output, "a", 1);
}

static void test_receiver_interrupts_and_trigger(void **state)
{
    struct bench *bench = *state;

    put(bench, FCR, 0x81);  // FIFOs, trigger at 8
    put(bench, IER, 0x01);
    type(bench, "1234567");
    assert_true(bench->irq);
    assert_int_equal(get(bench, IIR), 0xcc);  // below the trigger: timed out
    type(bench, "8");
    assert_int_equal(get(bench, IIR), 0xc4);
    for (char c = '1'; c <= '8'; c++) {
        assert_int_equal(get(bench, LSR) & 1, 1);
        assert_int_equal(get(bench, RBR), c);
    }
    assert_int_equal(get(bench, LSR) & 1, 0);
    assert_false(bench->irq);
    assert_int_equal(get(bench, IIR), 0xc1);
}

static void test_input_waits_for_room(void **state)
{
    struct bench *bench = *state;
    const char *text = "the quick brown fox jumps over the lazy dog";

    type(bench, text);
    assert_int_equal(strlen(bench->input), strlen(text) - 1);  // no FIFO: one byte
    put(bench, FCR, 0x01);                                     // empties what was there
    assert_int_equal(strlen(bench->input), strlen(text) - 17);
    for (const char *c = text + 1; *c; c++)
        assert_int_equal(get(bench, RBR), *c);
    assert_int_equal(get(bench, LSR), 0x60);  // no overrun
    assert_int_equal(get(bench, RBR), 0);
    assert_true(bench->taken_calls > 0);
}

static void test_loopback(void **state)
{
    struct bench *bench = *state;

    put(bench, FCR, 0x01);
    put(bench, MCR, 0x10);
    get(bench, MSR);
    type(bench, "z");
    for (unsigned i = 0; i < 16; i++)
        put(bench, THR, 'a' + i);
    assert_int_equal(get(bench, LSR), 0x61);
    put(bench, IER, 0x04);
    assert_false(bench->irq);
    put(bench, THR, '!');
    assert_int_equal(get(bench, IIR), 0xc6);
    assert_int_equal(get(bench, LSR), 0x63);  // overrun, once
    assert_int_equal(get(bench, LSR), 0x61);
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(get(bench, RBR), 'a' + i);
    assert_int_equal(bench->output_count, 0);

    put(bench, MCR, 0x00);  // the line again: modem inputs change, and the input comes in
    assert_int_equal(get(bench, MSR), 0xbb);
    assert_int_equal(get(bench, MSR), 0xb0);
    assert_int_equal(get(bench, RBR), 'z');
}

static void test_modem_interrupt(void **state)
{
    struct bench *bench = *state;

    put(bench, IER, 0x08);
    put(bench, MCR, 0x1f);  // all lines looped: RI rises, which sets no delta
    assert_false(bench->irq);
    put(bench, MCR, 0x1b);  // and falls, which does
    assert_true(bench->irq);
    assert_int_equal(get(bench, IIR), 0x00);
    assert_int_equal(get(bench, MSR), 0xb4);
    assert_false(bench->irq);
}

static void test_priorities(void **state)
{
    struct bench *bench = *state;

    put(bench, FCR, 0x01);
    put(bench, IER, 0x0f);
    put(bench, MCR, 0x10);  // modem delta
    for (unsigned i = 0; i < 17; i++)
        put(bench, THR, i);  // full, overrun
    assert_int_equal(get(bench, IIR), 0xc6);
    get(bench, LSR);
    assert_int_equal(get(bench, IIR), 0xc4);
    put(bench, FCR, 0x03);
    assert_int_equal(get(bench, IIR), 0xc2);
    assert_int_equal(get(bench, IIR), 0xc0);
    get(bench, MSR);
    assert_int_equal(get(bench, IIR), 0xc1);
    assert_false(bench->irq);
}

static void test_nothing_beyond_the_registers(void **state)
{
    struct bench *bench = *state;

    for (unsigned reg = 8; reg < UART_LENGTH_BYTES; reg++) {
        put(bench, reg, 0xff);
        assert_int_equal(get(bench, reg), 0);
    }
    assert_int_equal(bench->output_count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
        TEST(test_power_on),
        TEST(test_detection),
        TEST(test_divisor_latch),
        TEST(test_transmitter_interrupt),
        TEST(test_receiver_interrupts_and_trigger),
        TEST(test_input_waits_for_room),
        TEST(test_loopback),
        TEST(test_modem_interrupt),
        TEST(test_priorities),
        TEST(test_nothing_beyond_the_registers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
