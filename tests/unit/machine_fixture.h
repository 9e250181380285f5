// SPDX-License-Identifier: BSD-2-Clause
// A machine with nobody around it: clocks that stand still, events and output that are recorded.
#ifndef STRAKE_TESTS_MACHINE_FIXTURE_H
#define STRAKE_TESTS_MACHINE_FIXTURE_H

#include <sys/mman.h>
#include <unistd.h>

#include "machine/board.h"
#include "unit.h"

struct fixture {
    struct loop *loop;
    struct machine *machine;
    uint64_t clock_ns, wall_clock_ns;
    int event;  // -1: none yet
    unsigned event_code;
    char output[8192];
    size_t output_count;
    unsigned room_calls;
};

static uint64_t fixture_clock(void *opaque)
{
    const struct fixture *fixture = opaque;
    return fixture->clock_ns;
}

static uint64_t fixture_wall_clock(void *opaque)
{
    const struct fixture *fixture = opaque;
    return fixture->wall_clock_ns;
}

static void fixture_event(void *opaque, enum machine_event event, unsigned code)
{
    struct fixture *fixture = opaque;
    fixture->event = (int)event;
    fixture->event_code = code;
}

static void fixture_output(void *opaque, const void *bytes, size_t count)
{
    struct fixture *fixture = opaque;
    assert_true(count <= sizeof(fixture->output) - fixture->output_count);
    memcpy(fixture->output + fixture->output_count, bytes, count);
    fixture->output_count += count;
}

static void fixture_room(void *opaque)
{
    struct fixture *fixture = opaque;
    fixture->room_calls++;
}

// The smallest thing that passes for a kernel, of which nothing is ever executed.
static inline int fixture_kernel(void)
{
    char header[0x40] = "";
    int fd = memfd_create("kernel", MFD_CLOEXEC);

    memcpy(header + 0x38, "RSC\x05", 4);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, header, sizeof(header)), sizeof(header));
    return fd;
}

static inline struct machine_config fixture_config(unsigned cpus)
{
    return (struct machine_config){
        .memory_bytes = 16u << 20,
        .cpus = cpus,
        .engine = &hart_engine_interp,
        .version = "1.2.3",
        .kernel_fd = fixture_kernel(),
        .initrd_fd = -1,
        .firmware_fd = -1,
        .ram_fd = -1,
        .kernel_name = "kernel",
    };
}

// Creates and resets.
static inline struct fixture *fixture_create(const struct machine_config *config)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    struct error err = {0};

    assert_non_null(fixture);
    fixture->event = -1;
    fixture->clock_ns = 1000000000;
    const struct machine_host host = {
        .clock_ns = fixture_clock,
        .wall_clock_ns = fixture_wall_clock,
        .event = fixture_event,
        .console_output = fixture_output,
        .console_room = fixture_room,
        .opaque = fixture,
    };
    assert_int_equal(loop_create(&fixture->loop, NULL), 0);
    if (machine_create(&fixture->machine, config, fixture->loop, &host, &err) < 0 ||
        machine_reset(fixture->machine, &err) < 0)
        fail_msg("%s", err.message);
    return fixture;
}

static inline void fixture_destroy(struct fixture *fixture)
{
    machine_destroy(fixture->machine);
    loop_destroy(fixture->loop);
    free(fixture);
}

static inline uint64_t fixture_get(struct fixture *fixture, uint64_t gpa, unsigned width_bytes)
{
    uint64_t value = 0;
    assert_int_equal(memory_device_read(fixture->machine->memory, gpa, width_bytes, &value), 0);
    return value;
}

static inline void fixture_put(struct fixture *fixture, uint64_t gpa, unsigned width_bytes,
                               uint64_t value)
{
    assert_int_equal(memory_device_write(fixture->machine->memory, gpa, width_bytes, value), 0);
}

#endif
