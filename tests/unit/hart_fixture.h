// SPDX-License-Identifier: BSD-2-Clause
// What the hart's tests share: one hart with RAM, a device, a clock that the test sets, and an
// engine that executes nothing but what the test gives it.
#ifndef STRAKE_TESTS_HART_FIXTURE_H
#define STRAKE_TESTS_HART_FIXTURE_H

#include <pthread.h>
#include <sched.h>
#include <stdio.h>

#include "hart/hart.h"
#include "unit.h"

#define RAM_GPA 0x80000000u
#define RAM_BYTES (16u << 20)
#define DEVICE_GPA 0x10000000u
#define DEVICE_BYTES 0x1000u
#define TICK_NS (1000000000u / HART_TIME_HZ)

struct fixture {
    struct memory *memory;
    struct hart *hart;
    atomic_uint_fast64_t clock_ns;
    // One "instruction" of the fake engine; NULL: it does nothing, for ever.
    void (*work)(struct hart *hart);
    atomic_uint worked;  // how often
    unsigned flushes, instruction_fences, breakpoint_changes, sbi_calls;
    uint64_t device_offset, device_value;
    unsigned device_reads, device_writes;
    enum hart_exit why;  // of a thread that ran the hart
};

static inline struct fixture *fixture_of(const struct hart *hart)
{
    return hart->host.opaque;
}

// ---- The fake engine

static inline int fake_create(struct hart *hart, void **state)
{
    (void)hart;
    *state = NULL;
    return 0;
}

static inline void fake_destroy(struct hart *hart, void *state)
{
    (void)hart;
    (void)state;
}

static inline void fake_step(struct hart *hart, void *state)
{
    struct fixture *f = fixture_of(hart);

    (void)state;
    if (f->work)
        f->work(hart);
    atomic_fetch_add(&f->worked, 1);
}

static inline void fake_run(struct hart *hart, void *state)
{
    while (!atomic_load(&hart->attention)) {
        for (unsigned i = 0; i < hart->breakpoint_count; i++)
            if (hart->breakpoints[i] == hart->pc)
                atomic_fetch_or(&hart->attention, HART_ATTENTION_DEBUG);
        if (!atomic_load(&hart->attention))
            fake_step(hart, state);
    }
}

static inline void fake_fence_i(struct hart *hart, void *state)
{
    (void)state;
    fixture_of(hart)->instruction_fences++;
}

static inline void fake_flush_translations(struct hart *hart, void *state,
                                           const struct hart_flush *flush)
{
    (void)flush;
    (void)state;
    fixture_of(hart)->flushes++;
}

static inline void fake_breakpoints_changed(struct hart *hart, void *state)
{
    (void)state;
    fixture_of(hart)->breakpoint_changes++;
}

static const struct hart_engine fake_engine = {
    .name = "fake",
    .create = fake_create,
    .destroy = fake_destroy,
    .run = fake_run,
    .step = fake_step,
    .fence_i = fake_fence_i,
    .flush_translations = fake_flush_translations,
    .breakpoints_changed = fake_breakpoints_changed,
};

// ---- The machine around the hart

static inline uint64_t fake_clock_ns(void *opaque)
{
    return atomic_load(&((struct fixture *)opaque)->clock_ns);
}

static inline uint64_t device_read(void *device, uint64_t offset, unsigned width_bytes)
{
    struct fixture *f = device;

    (void)width_bytes;
    f->device_reads++;
    f->device_offset = offset;
    return f->device_value;
}

static inline void device_write(void *device, uint64_t offset, unsigned width_bytes, uint64_t value)
{
    struct fixture *f = device;

    (void)width_bytes;
    f->device_writes++;
    f->device_offset = offset;
    f->device_value = value;
}

static inline void fixture_init(struct fixture *f, unsigned id, const struct hart_host *host)
{
    static const struct memory_device_ops ops = {device_read, device_write};
    const struct memory_device device = {"test", DEVICE_GPA, DEVICE_BYTES, 1, 8, &ops, f};
    struct hart_host defaults = {.clock_ns = fake_clock_ns, .opaque = f};

    memset((void *)f, 0, sizeof(*f));
    if (host)
        defaults = *host;
    defaults.opaque = f;
    assert_int_equal(memory_create(&f->memory, NULL), 0);
    assert_int_equal(memory_add_ram(f->memory, RAM_GPA, RAM_BYTES, -1, NULL), 0);
    assert_int_equal(memory_add_device(f->memory, &device, NULL), 0);
    assert_int_equal(hart_create(&f->hart, id, f->memory, &defaults, &fake_engine, NULL), 0);
}

static inline void fixture_fini(struct fixture *f)
{
    hart_destroy(f->hart);
    memory_destroy(f->memory);
}

// ---- cmocka set-up: *state is a struct fixture

static inline int setup(void **state)
{
    struct fixture *f = malloc(sizeof(*f));

    fixture_init(f, 0, NULL);
    *state = f;
    return 0;
}

static inline int teardown(void **state)
{
    fixture_fini(*state);
    free(*state);
    return 0;
}

#define HART_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

// ---- Guest's side

static inline void poke64(struct fixture *f, uint64_t gpa, uint64_t value)
{
    assert_int_equal(memory_write(f->memory, gpa, &value, sizeof(value)), 0);
}

static inline uint64_t peek64(struct fixture *f, uint64_t gpa)
{
    uint64_t value = 0;

    assert_int_equal(memory_read(f->memory, gpa, &value, sizeof(value)), 0);
    return value;
}

static inline uint64_t csr(struct hart *hart, unsigned number)
{
    uint64_t value = 0;

    assert_int_equal(hart_csr_peek(hart, number, &value), 0);
    return value;
}

// As csrrw x0, number, value in the hart's current privilege.
static inline bool csr_write(struct hart *hart, unsigned number, uint64_t value)
{
    uint64_t old;

    return hart_csr(hart, ISA_CSRRW, number, false, true, value, 0xabcd, &old);
}

static inline bool csr_set(struct hart *hart, unsigned number, uint64_t bits)
{
    uint64_t old;

    return hart_csr(hart, ISA_CSRRS, number, true, true, bits, 0xabcd, &old);
}

static inline bool csr_clear(struct hart *hart, unsigned number, uint64_t bits)
{
    uint64_t old;

    return hart_csr(hart, ISA_CSRRC, number, true, true, bits, 0xabcd, &old);
}

static inline bool csr_readable(struct hart *hart, unsigned number)
{
    uint64_t old;

    return hart_csr(hart, ISA_CSRRS, number, true, false, 0, 0xabcd, &old);
}

static inline bool system_insn(struct hart *hart, enum isa_op op, unsigned rs1, unsigned rs2)
{
    const struct isa_insn insn = {
        .op = op, .rs1 = (uint8_t)rs1, .rs2 = (uint8_t)rs2, .length = 4, .raw = 0x5eed};

    return hart_system(hart, &insn);
}

static inline void become(struct hart *hart, enum hart_privilege privilege)
{
    hart->privilege = privilege;
    hart_mmu_update(hart);
}

// PMP as firmware leaves it that does not use it.
static inline void open_pmp(struct hart *hart)
{
    assert_int_equal(hart_csr_poke(hart, ISA_CSR_PMPADDR0, UINT64_MAX), 0);
    assert_int_equal(hart_csr_poke(hart, ISA_CSR_PMPCFG0, 0x1f), 0);
}

static inline void expect_trap(const struct hart *hart, uint64_t cause, uint64_t tval)
{
    assert_int_equal(hart->trap_cause, cause);
    assert_int_equal(hart->trap_tval, tval);
}

// ---- Harts that run, each on its own thread

static inline void *runner_main(void *opaque)
{
    struct hart *hart = opaque;

    fixture_of(hart)->why = hart_run(hart);
    return &fixture_of(hart)->why;
}

static inline pthread_t run_thread(struct hart *hart)
{
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, runner_main, hart), 0);
    return thread;
}

static inline enum hart_exit join_thread(pthread_t thread)
{
    void *why;

    assert_int_equal(pthread_join(thread, &why), 0);
    return *(enum hart_exit *)why;
}

// Waits until `condition` holds, which another thread is to bring about; fails after a time that
// even a busy machine does not need.
#define WAIT_UNTIL(condition)                                                                      \
    do {                                                                                           \
        uint64_t wait_until_ns = clock_monotonic_ns() + 60000000000u;                              \
        while (!(condition)) {                                                                     \
            if (clock_monotonic_ns() > wait_until_ns)                                              \
                fail_msg("never came: %s", #condition);                                            \
            sched_yield();                                                                         \
        }                                                                                          \
    } while (0)

// Asleep, or about to be with nothing to keep it awake.
static inline bool asleep(const struct hart *hart)
{
    return atomic_load(&hart->sleeping) && !atomic_load(&hart->executing) &&
           !atomic_load(&hart->attention);
}

#endif
