// SPDX-License-Identifier: BSD-2-Clause
// A partition's life: ends, reboots, pauses, steps and breakpoints, with tiny bare-metal programs.
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include "partition/partition.h"
#include "unit.h"

// sw `value` to the test device, then spin.
#define STORE_TO_TEST_DEVICE(lui, addi)                                                            \
    0x001002b7, lui, addi, 0x0062a023, 0x0000006f /* lui t0,0x100; t1 = value; sw t1,0(t0); j . */
static const uint32_t power_off[] = {STORE_TO_TEST_DEVICE(0x00005337, 0x55530313)};
static const uint32_t fail_with_7[] = {STORE_TO_TEST_DEVICE(0x00073337, 0x33330313)};
// Writes 'A' to the UART, then resets: lui t0,0x10000; li t1,'A'; sb t1,0(t0).
static const uint32_t reset_for_ever[] = {0x100002b7, 0x04100313, 0x00628023,
                                          STORE_TO_TEST_DEVICE(0x00007337, 0x77730313)};
// Counts at 0x80001000: auipc t0,1; 1: ld t1,0(t0); addi t1,t1,1; sd t1,0(t0); j 1b.
static const uint32_t count[] = {0x00001297, 0x0002b303, 0x00130313, 0x0062b023, 0xff5ff06f};
#define COUNTER_GPA 0x80001000u

struct fixture {
    struct partition *partition;
    atomic_uint output_bytes;
    atomic_uint stopped_hart, stops;
};

static void output(void *opaque, const void *bytes, size_t n)
{
    struct fixture *f = opaque;
    (void)bytes;
    if (atomic_fetch_add(&f->output_bytes, (unsigned)n) + n >= 5)
        partition_stop(f->partition);
}

static void create(struct fixture *f, const uint32_t *program, size_t bytes, unsigned cpus,
                   bool no_reboot)
{
    int fd = memfd_create("program", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, program, bytes), bytes);
    const struct partition_config config = {
        .name = "test",
        .machine = {.memory_bytes = 16u << 20,
                    .cpus = cpus,
                    .engine = &hart_engine_interp,
                    .version = "0.0.0",
                    .kernel_fd = -1,
                    .initrd_fd = -1,
                    .firmware_fd = fd,
                    .ram_fd = -1,
                    .firmware_name = "program"},
        .no_reboot = no_reboot,
        .console_output = output,
        .opaque = f,
    };
    struct error err = {0};
    if (partition_create(&f->partition, &config, &err) < 0)
        fail_msg("%s", err.message);
    assert_int_equal(close(fd), 0);  // the partition has a copy
}

#define CREATE(f, program, cpus, no_reboot) create(f, program, sizeof(program), cpus, no_reboot)

static void expect_end(struct fixture *f, enum partition_end expected, unsigned expected_code)
{
    enum partition_end end;
    unsigned code = 0;
    assert_int_equal(partition_start(f->partition, false, NULL), 0);
    assert_int_equal(partition_wait(f->partition, &end, &code, NULL), 0);
    assert_int_equal(end, expected);
    assert_int_equal(code, expected_code);
}

static uint64_t counter(struct fixture *f)
{
    uint64_t value;
    assert_int_equal(memory_read(machine_memory(partition_machine(f->partition)), COUNTER_GPA,
                                 &value, sizeof(value)),
                     0);
    return value;
}

static void wait_for_counter_above(struct fixture *f, uint64_t value)
{
    uint64_t start_ns = clock_monotonic_ns();
    while (counter(f) <= value) {
        assert_true(clock_monotonic_ns() - start_ns < 30000000000u);
        sched_yield();
    }
}

static int setup(void **state)
{
    *state = test_calloc(1, sizeof(struct fixture));
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    partition_destroy(f->partition);
    test_free(f);
    return 0;
}

static void test_power_off(void **state)
{
    struct fixture *f = *state;
    CREATE(f, power_off, 2, false);
    expect_end(f, PARTITION_POWEROFF, 0);
    // It can be started again.
    expect_end(f, PARTITION_POWEROFF, 0);
}

static void test_failure_has_its_code(void **state)
{
    struct fixture *f = *state;
    CREATE(f, fail_with_7, 1, false);
    expect_end(f, PARTITION_FAILED, 7);
}

static void test_reboot_ends_when_asked_to(void **state)
{
    struct fixture *f = *state;
    CREATE(f, reset_for_ever, 1, true);
    expect_end(f, PARTITION_REBOOT, 0);
    assert_int_equal(atomic_load(&f->output_bytes), 1);
}

static void test_reboots_until_stopped(void **state)
{
    struct fixture *f = *state;
    CREATE(f, reset_for_ever, 1, false);
    expect_end(f, PARTITION_STOPPED, 0);
    assert_true(atomic_load(&f->output_bytes) >= 5);
}

static void test_pauses_are_counted(void **state)
{
    struct fixture *f = *state;
    CREATE(f, count, 2, false);
    assert_int_equal(partition_start(f->partition, true, NULL), 0);
    assert_int_equal(counter(f), 0);
    partition_resume(f->partition);
    wait_for_counter_above(f, 1000);
    partition_pause(f->partition);
    partition_pause(f->partition);
    uint64_t at = counter(f);
    partition_resume(f->partition);
    usleep(20000);
    assert_int_equal(counter(f), at);
    partition_resume(f->partition);
    wait_for_counter_above(f, at);
    // Often, with harts that are just starting or stopping.
    for (int i = 0; i < 500; i++) {
        partition_pause(f->partition);
        at = counter(f);
        sched_yield();
        assert_int_equal(counter(f), at);
        partition_resume(f->partition);
    }
}

static void test_step_runs_one_instruction_of_one_hart(void **state)
{
    struct fixture *f = *state;
    CREATE(f, count, 2, false);
    assert_int_equal(partition_start(f->partition, true, NULL), 0);
    struct hart *hart = machine_hart(partition_machine(f->partition), 1);
    while (hart->pc != 0x80000000u)  // the boot ROM leads here
        partition_step(f->partition, 1);
    for (unsigned i = 0; i < 40; i++) {
        static const uint64_t next[] = {0x80000004, 0x80000008, 0x8000000c, 0x80000010, 0x80000004};
        partition_step(f->partition, 1);
        assert_int_equal(hart->pc, next[i == 0 ? 0 : 1 + (i - 1) % 4]);
    }
    assert_int_equal(counter(f), 10);
}

static void hart_stopped(void *opaque, unsigned hart, enum hart_exit why)
{
    struct fixture *f = opaque;
    assert_int_equal(why, HART_EXIT_BREAKPOINT);
    atomic_store(&f->stopped_hart, hart);
    atomic_fetch_add(&f->stops, 1);
}

static void wait_for_stops(struct fixture *f, unsigned stops)
{
    uint64_t start_ns = clock_monotonic_ns();
    while (atomic_load(&f->stops) < stops) {
        assert_true(clock_monotonic_ns() - start_ns < 30000000000u);
        sched_yield();
    }
}

static void test_breakpoint_stops_each_time_round(void **state)
{
    struct fixture *f = *state;
    CREATE(f, count, 1, false);
    partition_set_debug(f->partition, hart_stopped, f);
    assert_int_equal(partition_start(f->partition, true, NULL), 0);
    struct hart *hart = machine_hart(partition_machine(f->partition), 0);
    assert_int_equal(hart_breakpoint_add(hart, 0x8000000c), 0);
    for (unsigned round = 1; round <= 20; round++) {
        partition_resume(f->partition);
        wait_for_stops(f, round);
        partition_pause(f->partition);
        assert_int_equal(hart->pc, 0x8000000c);
        assert_int_equal(counter(f), round - 1);
    }
    assert_int_equal(hart_breakpoint_remove(hart, 0x8000000c), 0);
    partition_resume(f->partition);
    wait_for_counter_above(f, 1000);
    assert_int_equal(atomic_load(&f->stops), 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_power_off, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failure_has_its_code, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reboot_ends_when_asked_to, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reboots_until_stopped, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pauses_are_counted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_step_runs_one_instruction_of_one_hart, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_breakpoint_stops_each_time_round, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
