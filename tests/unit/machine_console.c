// SPDX-License-Identifier: BSD-2-Clause
// Where console input goes, and what happens when there is too much of it.
#include "machine_fixture.h"
#include "virtio_driver.h"

#define THR MACHINE_UART_GPA
#define RBR MACHINE_UART_GPA
#define FCR (MACHINE_UART_GPA + 2)
#define LSR (MACHINE_UART_GPA + 5)
#define RAM MACHINE_RAM_GPA

static int setup(void **state)
{
    const struct machine_config config = fixture_config(1);
    *state = fixture_create(&config);
    return 0;
}

static int teardown(void **state)
{
    fixture_destroy(*state);
    return 0;
}

static uint64_t debug_console(struct fixture *fixture, uint64_t function, uint64_t a0, uint64_t a1)
{
    struct hart *hart = machine_hart(fixture->machine, 0);

    hart->x[10] = a0;
    hart->x[11] = a1;
    hart->x[12] = 0;
    hart->x[16] = function;
    hart->x[17] = 0x4442434e;
    hart->host.sbi(hart->host.opaque, hart);
    assert_int_equal(hart->x[10], 0);
    return hart->x[11];
}

// All that the UART has for its driver, as a string.
static const char *uart_text(struct fixture *fixture)
{
    static char text[64];
    size_t count = 0;

    while (fixture_get(fixture, LSR, 1) & 1 && count < sizeof(text) - 1)
        text[count++] = (char)fixture_get(fixture, RBR, 1);
    text[count] = '\0';
    return text;
}

static const char *debug_text(struct fixture *fixture)
{
    static char text[64];
    uint64_t count = debug_console(fixture, 1, sizeof(text) - 1, RAM);

    assert_int_equal(memory_read(fixture->machine->memory, RAM, text, sizeof(text) - 1), 0);
    text[count] = '\0';
    return text;
}

static void type(struct fixture *fixture, const char *text)
{
    assert_int_equal(machine_console_input(fixture->machine, text, strlen(text)), strlen(text));
}

static void test_input_follows_output(void **state)
{
    struct fixture *fixture = *state;

    type(fixture, "one");
    assert_string_equal(uart_text(fixture), "one");  // the UART, until something was written

    debug_console(fixture, 2, 'S', 0);
    type(fixture, "two");
    assert_string_equal(uart_text(fixture), "");
    assert_string_equal(debug_text(fixture), "two");

    fixture_put(fixture, THR, 1, 'U');
    type(fixture, "three");
    assert_string_equal(debug_text(fixture), "");
    assert_string_equal(uart_text(fixture), "three");
    assert_memory_equal(fixture->output, "SU", 2);
}

// What no device has taken yet goes to the next one.
static void test_input_waits_for_its_reader(void **state)
{
    struct fixture *fixture = *state;

    debug_console(fixture, 2, 'S', 0);
    type(fixture, "typed ahead");
    fixture_put(fixture, FCR, 1, 1);
    fixture_put(fixture, THR, 1, 'U');
    assert_string_equal(uart_text(fixture), "typed ahead");
}

static void test_back_pressure(void **state)
{
    struct fixture *fixture = *state;
    static uint8_t paste[10000];
    size_t given = 0, got = 0;

    for (size_t i = 0; i < sizeof(paste); i++)
        paste[i] = (uint8_t)(i * 7 + i / 256);
    fixture_put(fixture, FCR, 1, 1);
    given = machine_console_input(fixture->machine, paste, sizeof(paste));
    assert_int_equal(given, CONSOLE_INPUT_BYTES + UART_FIFO_BYTES);
    assert_int_equal(fixture->room_calls, 0);
    assert_int_equal(machine_console_input(fixture->machine, paste + given, 1), 0);

    // The driver reads everything; whenever there is word of room, the host gives more.
    while (fixture_get(fixture, LSR, 1) & 1) {
        assert_int_equal(fixture_get(fixture, RBR, 1), paste[got++]);
        if (fixture->room_calls) {
            fixture->room_calls = 0;
            given += machine_console_input(fixture->machine, paste + given, sizeof(paste) - given);
        }
    }
    assert_int_equal(given, sizeof(paste));
    assert_int_equal(got, sizeof(paste));
    assert_int_equal(fixture->room_calls, 0);  // and none once nothing was refused
}

static void test_room_through_the_debug_console(void **state)
{
    struct fixture *fixture = *state;
    static const uint8_t paste[CONSOLE_INPUT_BYTES + 1];

    debug_console(fixture, 2, 'S', 0);
    assert_int_equal(machine_console_input(fixture->machine, paste, sizeof(paste)),
                     CONSOLE_INPUT_BYTES);
    assert_int_equal(debug_console(fixture, 1, 10, RAM), 10);
    assert_int_equal(fixture->room_calls, 1);
}

// ---- The virtio console: its input is given on the loop's thread --------------------------------

enum { RECEIVE, TRANSMIT };

struct typing {
    struct fixture *fixture;
    const void *bytes;
    size_t count, taken;
};

static void type_here(void *opaque)
{
    struct typing *typing = opaque;
    typing->taken = machine_console_input(typing->fixture->machine, typing->bytes, typing->count);
}

static size_t type_on_loop(struct fixture *fixture, const void *bytes, size_t count)
{
    struct typing typing = {.fixture = fixture, .bytes = bytes, .count = count};
    loop_call(fixture->loop, type_here, &typing);
    return typing.taken;
}

// A fixture with a virtio console in slot 0, whose driver is up and has written a byte.
static struct fixture *virtio_fixture(struct driver *driver)
{
    struct machine_config config = fixture_config(1);
    config.virtio_console = true;
    struct fixture *fixture = fixture_create(&config);

    *driver = (struct driver){.memory = fixture->machine->memory, .loop = fixture->loop};
    driver_attach(driver, fixture->machine->virtio[0]);
    driver_start(driver, 0, 2, 16);
    struct driver_buffer out = {.gpa = driver_alloc(driver, 1), .bytes = 1};
    *(char *)driver_ram(driver, out.gpa) = 'V';
    driver_wait(driver, TRANSMIT, driver_send(driver, TRANSMIT, &out, 1));
    assert_memory_equal(fixture->output, "V", 1);
    return fixture;
}

static void virtio_fixture_destroy(struct fixture *fixture, struct driver *driver)
{
    loop_stop(fixture->loop);
    pthread_join(driver->thread, NULL);
    fixture_destroy(fixture);
}

static void test_virtio_console(void **state)
{
    (void)state;
    struct driver driver;
    struct fixture *fixture = virtio_fixture(&driver);
    struct driver_buffer in = {.gpa = driver_alloc(&driver, 64), .bytes = 64, .writable = true};

    assert_int_equal(type_on_loop(fixture, "virtual", 7), 7);
    assert_int_equal(driver_wait(&driver, RECEIVE, driver_send(&driver, RECEIVE, &in, 1)), 7);
    assert_memory_equal(driver_ram(&driver, in.gpa), "virtual", 7);
    assert_string_equal(uart_text(fixture), "");

    fixture_put(fixture, THR, 1, 'U');
    assert_int_equal(type_on_loop(fixture, "serial", 6), 6);
    assert_string_equal(uart_text(fixture), "serial");
    virtio_fixture_destroy(fixture, &driver);
}

static void test_back_pressure_of_the_virtio_console(void **state)
{
    (void)state;
    struct driver driver;
    struct fixture *fixture = virtio_fixture(&driver);
    struct driver_buffer in = {.gpa = driver_alloc(&driver, 4096), .bytes = 4096, .writable = true};
    static uint8_t paste[20000];
    size_t got = 0;

    for (size_t i = 0; i < sizeof(paste); i++)
        paste[i] = (uint8_t)(i * 11 + i / 256);
    size_t given = type_on_loop(fixture, paste, sizeof(paste));
    assert_in_range(given, CONSOLE_INPUT_BYTES, sizeof(paste) - 1);
    assert_int_equal(fixture->room_calls, 0);
    while (got < sizeof(paste)) {
        unsigned head = driver_send(&driver, RECEIVE, &in, 1);
        uint32_t count = driver_wait(&driver, RECEIVE, head);
        assert_memory_equal(driver_ram(&driver, in.gpa), paste + got, count);
        got += count;
        driver_settle(&driver);
        if (fixture->room_calls) {
            fixture->room_calls = 0;
            given += type_on_loop(fixture, paste + given, sizeof(paste) - given);
        }
    }
    assert_int_equal(given, sizeof(paste));
    virtio_fixture_destroy(fixture, &driver);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
        TEST(test_input_follows_output),
        TEST(test_input_waits_for_its_reader),
        TEST(test_back_pressure),
        TEST(test_room_through_the_debug_console),
        cmocka_unit_test(test_virtio_console),
        cmocka_unit_test(test_back_pressure_of_the_virtio_console),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
