// SPDX-License-Identifier: BSD-2-Clause
// The console device: output in order, input held back until there are buffers, size.
#include "virtio_driver.h"

enum { RECEIVE, TRANSMIT };
#define INPUT_BYTES 4096u  // what the device keeps for a driver that is not there yet

// The host's side; all of it is touched on the loop's thread.
struct bench {
    struct driver driver;
    char output[1 << 16];
    size_t output_count;
    // What is typed, and how much of it the device has taken.
    const uint8_t *typed;
    size_t typed_count, taken;
    unsigned rooms;
};

static struct bench bench;

static void output(void *opaque, const void *bytes, size_t count)
{
    assert_ptr_equal(opaque, &bench);
    assert_true(count <= sizeof(bench.output) - bench.output_count);
    memcpy(bench.output + bench.output_count, bytes, count);
    bench.output_count += count;
}

static void offer(void)
{
    bench.taken += virtio_console_input(bench.driver.device, bench.typed + bench.taken,
                                        bench.typed_count - bench.taken);
}

static void input_room(void *opaque)
{
    (void)opaque;
    bench.rooms++;
    offer();
}

static void type_on_loop(void *opaque)
{
    (void)opaque;
    offer();
}

static void type(const uint8_t *bytes, size_t count)
{
    bench.typed = bytes;
    bench.typed_count = count;
    bench.taken = 0;
    loop_call(bench.driver.loop, type_on_loop, NULL);
}

static void resize_on_loop(void *opaque)
{
    (void)opaque;
    virtio_console_resize(bench.driver.device, 132, 43);
}

static int setup(void **state)
{
    struct virtio_device *device;
    struct virtio_console_config config = {
        .output = output, .input_room = input_room, .opaque = &bench};

    (void)state;
    memset(&bench, 0, sizeof(bench));
    driver_open(&bench.driver);
    assert_int_equal(virtio_console_create(&device, &bench.driver.wiring, &config, NULL), 0);
    driver_attach(&bench.driver, device);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    driver_close(&bench.driver);
    return 0;
}

static struct driver_buffer buffer(const char *text, size_t room)
{
    size_t count = text ? strlen(text) : room;
    uint64_t gpa = driver_alloc(&bench.driver, count);
    if (text)
        memcpy(driver_ram(&bench.driver, gpa), text, count);
    return (struct driver_buffer){gpa, count, !text};
}

static void test_output(void **state)
{
    struct driver *driver = &bench.driver;

    (void)state;
    driver_start(driver, F_EVENT_IDX | F_INDIRECT, 2, 16);
    struct driver_buffer parts[] = {buffer("Hello", 0), buffer(", ", 0), buffer("world.\n", 0)};
    unsigned heads[] = {
        driver_send(driver, TRANSMIT, parts, 3),
        driver_send(driver, TRANSMIT, parts, 1),
        driver_send(driver, TRANSMIT, parts + 2, 1),
    };
    for (size_t i = 0; i < BASE_COUNT_OF(heads); i++)
        assert_int_equal(driver_wait(driver, TRANSMIT, heads[i]), 0);
    driver_settle(driver);
    assert_int_equal(bench.output_count, 26);
    assert_memory_equal(bench.output, "Hello, world.\nHelloworld.\n", 26);
}

static void test_output_too_large(void **state)
{
    struct driver *driver = &bench.driver;

    (void)state;
    driver_start(driver, 0, 2, 16);
    struct driver_buffer large = {DRIVER_RAM_GPA, (1 << 20) + 1, false};
    driver_send(driver, TRANSMIT, &large, 1);
    driver_settle(driver);
    assert_true(driver_read(driver, R_STATUS) & S_NEEDS_RESET);
    assert_int_equal(bench.output_count, 0);
}

static void test_input(void **state)
{
    struct driver *driver = &bench.driver;

    (void)state;
    driver_start(driver, F_EVENT_IDX, 2, 16);
    struct driver_buffer split[] = {buffer(NULL, 3), buffer(NULL, 20)};
    unsigned head = driver_send(driver, RECEIVE, split, 2);
    type((const uint8_t *)"ls -l\n", 6);
    assert_int_equal(driver_wait(driver, RECEIVE, head), 6);
    assert_memory_equal(driver_ram(driver, split[0].gpa), "ls ", 3);
    assert_memory_equal(driver_ram(driver, split[1].gpa), "-l\n\0", 4);

    // Typed before there is a buffer: it comes with the buffer, piece by piece.
    type((const uint8_t *)"make\n", 5);
    driver_settle(driver);
    assert_int_equal(bench.taken, 5);
    head = driver_send(driver, RECEIVE, split, 1);
    assert_int_equal(driver_wait(driver, RECEIVE, head), 3);
    assert_memory_equal(driver_ram(driver, split[0].gpa), "mak", 3);
    head = driver_send(driver, RECEIVE, split, 1);
    assert_int_equal(driver_wait(driver, RECEIVE, head), 2);
    assert_int_equal(bench.rooms, 0);
}

// More is typed than the device keeps, before the driver is there and while it is slow: nothing is
// lost, nothing is out of order, and the host is told when to go on.
static void check_back_pressure(uint64_t features)
{
    static uint8_t typed[20000];
    struct driver *driver = &bench.driver;
    struct driver_buffer room;
    size_t received = 0;

    for (size_t i = 0; i < sizeof(typed); i++)
        typed[i] = (uint8_t)(i * 7 + i / 251);
    driver_write(driver, R_STATUS, 0);
    type(typed, sizeof(typed));
    assert_int_equal(bench.taken, INPUT_BYTES);
    driver_start(driver, features, 2, 16);
    room = buffer(NULL, 300);
    while (received < sizeof(typed)) {
        unsigned head = driver_chain(driver, RECEIVE, &room, 1);
        driver_make_available(driver, RECEIVE, head);
        if (driver_kick_wanted(driver, RECEIVE))
            driver_kick(driver, RECEIVE);
        uint32_t written = driver_wait(driver, RECEIVE, head);
        assert_true(written > 0 && written <= sizeof(typed) - received);
        assert_memory_equal(driver_ram(driver, room.gpa), typed + received, written);
        received += written;
    }
    driver_settle(driver);
    assert_int_equal(bench.taken, sizeof(typed));
    assert_true(bench.rooms > 1);
}

static void test_back_pressure(void **state)
{
    (void)state;
    check_back_pressure(0);
    check_back_pressure(F_EVENT_IDX);
}

// A buffer without room for a byte is given back empty and costs no input.
static void test_input_no_room(void **state)
{
    struct driver *driver = &bench.driver;

    (void)state;
    driver_start(driver, 0, 2, 16);
    struct driver_buffer readable = buffer("x", 0), writable = buffer(NULL, 8);
    type((const uint8_t *)"abc", 3);
    assert_int_equal(driver_wait(driver, RECEIVE, driver_send(driver, RECEIVE, &readable, 1)), 0);
    assert_int_equal(driver_wait(driver, RECEIVE, driver_send(driver, RECEIVE, &writable, 1)), 3);
    assert_memory_equal(driver_ram(driver, writable.gpa), "abc", 3);
}

static void test_size(void **state)
{
    struct driver *driver = &bench.driver;

    (void)state;
    assert_int_equal(driver_offered(driver) & 0xff, 1);
    assert_int_equal(driver_config(driver, 0, 2), 80);
    assert_int_equal(driver_config(driver, 2, 2), 25);
    loop_call(driver->loop, resize_on_loop, NULL);
    assert_int_equal(driver_read(driver, R_INTERRUPT_STATUS), 0);  // nobody drives it
    driver_start(driver, 1, 2, 16);
    uint32_t generation = driver_read(driver, R_CONFIG_GENERATION);
    loop_call(driver->loop, resize_on_loop, NULL);
    assert_int_not_equal(driver_read(driver, R_CONFIG_GENERATION), generation);
    assert_int_equal(driver_read(driver, R_INTERRUPT_STATUS), 2);
    assert_int_equal(driver_config(driver, 0, 2), 132);
    assert_int_equal(driver_config(driver, 2, 2), 43);
    assert_int_equal(driver_config(driver, 0, 1), 132);
    assert_int_equal(driver_config(driver, 12, 1), 0);  // beyond its end
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_output, setup, teardown),
        cmocka_unit_test_setup_teardown(test_output_too_large, setup, teardown),
        cmocka_unit_test_setup_teardown(test_input, setup, teardown),
        cmocka_unit_test_setup_teardown(test_back_pressure, setup, teardown),
        cmocka_unit_test_setup_teardown(test_input_no_room, setup, teardown),
        cmocka_unit_test_setup_teardown(test_size, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
