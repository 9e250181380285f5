// SPDX-License-Identifier: BSD-2-Clause
// A machine's state: saved, loaded into a fresh machine and saved again it is the same; time goes
// on, interrupts that were pending are; what does not fit the machine is refused.
#include "machine_fixture.h"

#define UART (MACHINE_UART_GPA)
#define PLIC_ENABLE_S0 (MACHINE_PLIC_GPA + 0x2080)
#define PLIC_CLAIM_S0 (MACHINE_PLIC_GPA + 0x201004)

struct saved {
    uint8_t *bytes;
    size_t count;
};

static struct saved save(struct machine *machine)
{
    struct state_writer *writer;
    struct saved saved;
    const void *bytes;
    const int *fds;
    size_t fd_count;

    machine_pause_devices(machine);
    assert_int_equal(state_writer_create(&writer, false), 0);
    machine_save(machine, writer);
    assert_int_equal(state_writer_finish(writer, &bytes, &saved.count, &fds, &fd_count), 0);
    saved.bytes = malloc(saved.count);
    memcpy(saved.bytes, bytes, saved.count);
    state_writer_destroy(writer);
    return saved;
}

static int load(struct machine *machine, const struct saved *saved, struct error *err)
{
    struct state_reader *reader;

    err->message[0] = 0;
    int rc = state_reader_create(&reader, saved->bytes, saved->count, NULL, 0, err);
    if (rc < 0)
        return rc;
    rc = machine_load(machine, reader, err);
    if (rc == 0)
        rc = state_reader_finish(reader, err);
    state_reader_destroy(reader);
    return rc;
}

static void load_or_fail(struct machine *machine, const struct saved *saved)
{
    struct error err;

    if (load(machine, saved, &err) < 0)
        fail_msg("%s", err.message);
}

// Without looking at the time when it was paused, which save would set.
static void assert_saves_the_same(struct machine *machine, const struct saved *saved)
{
    struct state_writer *writer;
    const void *bytes;
    const int *fds;
    size_t count, fd_count;
    struct error err;

    assert_int_equal(state_writer_create(&writer, false), 0);
    machine_save(machine, writer);
    assert_int_equal(state_writer_finish(writer, &bytes, &count, &fds, &fd_count), 0);
    if (state_compare(saved->bytes, saved->count, bytes, count, &err) < 0)
        fail_msg("%s", err.message);
    state_writer_destroy(writer);
}

static uint64_t random_state = 0x9e3779b97f4a7c15;

static uint64_t random_u64(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

// Gives every register of the hart a value that it can have.
static void scramble_hart(struct hart *hart)
{
    static const unsigned csrs[] = {
        ISA_CSR_FCSR,    ISA_CSR_MSTATUS,       ISA_CSR_MTVEC,      ISA_CSR_MSCRATCH,
        ISA_CSR_MEPC,    ISA_CSR_MCAUSE,        ISA_CSR_MTVAL,      ISA_CSR_MEDELEG,
        ISA_CSR_MIDELEG, ISA_CSR_MIE,           ISA_CSR_STVEC,      ISA_CSR_SSCRATCH,
        ISA_CSR_SEPC,    ISA_CSR_SCAUSE,        ISA_CSR_STVAL,      ISA_CSR_SATP,
        ISA_CSR_MENVCFG, ISA_CSR_SENVCFG,       ISA_CSR_MCOUNTEREN, ISA_CSR_SCOUNTEREN,
        ISA_CSR_MCYCLE,  ISA_CSR_MINSTRET,      ISA_CSR_PMPADDR3,   ISA_CSR_PMPADDR15,
        ISA_CSR_MIP,     ISA_CSR_MCOUNTINHIBIT,
    };

    for (unsigned i = 1; i < 32; i++)
        hart->x[i] = random_u64();
    for (unsigned i = 0; i < 32; i++)
        hart->f[i] = random_u64();
    hart->pc = random_u64() & ~1ull;
    hart->privilege = HART_S;
    hart->instret = random_u64();
    for (size_t i = 0; i < BASE_COUNT_OF(csrs); i++)
        assert_int_equal(hart_csr_poke(hart, csrs[i], random_u64()), 0);
    hart_csr_poke(hart, ISA_CSR_SATP, 8ull << 60 | (random_u64() & 0xffffull) << 44 | 0x80000);
    hart_set_stimecmp(hart, random_u64());
    hart_set_mtimecmp(hart, random_u64());
    hart->reservation_gpa = random_u64() & ~7ull;
    hart->reservation_value = random_u64();
    hart->stats.sleeps = random_u64();
}

static struct machine_config full_config(int firmware)
{
    struct machine_config config = fixture_config(2);

    config.rng = true;
    config.virtio_console = true;
    config.power_button = true;
    config.firmware_fd = firmware;
    return config;
}

static void test_there_and_again(void **state)
{
    struct machine_config config = full_config(-1);
    struct fixture *a = fixture_create(&config), *b = fixture_create(&config);
    (void)state;

    for (unsigned i = 0; i < 2; i++)
        scramble_hart(a->machine->harts[i]);
    assert_int_equal(hart_start(a->machine->harts[1], 0x80001000, 5, 6), 0);
    fixture_put(a, UART + 1, 1, 5);
    fixture_put(a, UART + 2, 1, 1);
    fixture_put(a, UART + 7, 1, 0x5a);
    machine_console_input(a->machine, "pending input, more than the FIFO holds", 39);
    fixture_put(a, MACHINE_PLIC_GPA + 4 * BOARD_IRQ_UART, 4, 3);
    fixture_put(a, PLIC_ENABLE_S0, 4, 1 << BOARD_IRQ_UART);
    fixture_put(a, MACHINE_RTC_GPA, 4, 12345);
    fixture_put(a, MACHINE_RTC_GPA + 0xc, 4, 0x7fffffff);
    fixture_put(a, MACHINE_RTC_GPA + 0x8, 4, 1);
    struct saved saved = save(a->machine);
    printf("the state of 2 harts, rng, console and button has %zu bytes\n", saved.count);
    load_or_fail(b->machine, &saved);
    assert_saves_the_same(b->machine, &saved);
    assert_false(hart_is_parked(b->machine->harts[1]));
    assert_int_equal(fixture_get(b, UART + 7, 1), 0x5a);
    // The interrupt is there, and the input behind it: 16 bytes in the FIFO, and what comes after.
    assert_true(atomic_load(&b->machine->harts[0]->mip_lines) & HART_IRQ_SEIP);
    assert_int_equal(fixture_get(b, PLIC_CLAIM_S0, 4), BOARD_IRQ_UART);
    for (unsigned i = 0; i < 39; i++)
        assert_int_equal(fixture_get(b, UART, 1), "pending input, more than the FIFO holds"[i]);
    free(saved.bytes);
    fixture_destroy(a);
    fixture_destroy(b);
    close(config.kernel_fd);
}

static void test_time_goes_on(void **state)
{
    struct machine_config config = fixture_config(1);
    struct fixture *a = fixture_create(&config), *b = fixture_create(&config);
    (void)state;

    a->clock_ns += 5000000000;
    uint64_t then = hart_time(a->machine->harts[0]);
    assert_int_equal(then, 50000000);
    struct saved saved = save(a->machine);
    // In a handover: by what the host's clock says.
    b->clock_ns = a->clock_ns + 700;
    load_or_fail(b->machine, &saved);
    assert_int_equal(hart_time(b->machine->harts[0]), then + 7);
    // Restored much later, and also on a host that started later: as when it was saved.
    b->clock_ns = 3600000000000;
    load_or_fail(b->machine, &saved);
    machine_resume_time(b->machine);
    assert_int_equal(hart_time(b->machine->harts[0]), then);
    b->clock_ns = 1000;
    load_or_fail(b->machine, &saved);
    machine_resume_time(b->machine);
    assert_int_equal(hart_time(b->machine->harts[0]), then);
    b->clock_ns += 100;
    assert_int_equal(hart_time(b->machine->harts[0]), then + 1);
    free(saved.bytes);
    fixture_destroy(a);
    fixture_destroy(b);
    close(config.kernel_fd);
}

// An interrupt that is being served when the state is saved: its gateway stays closed until the
// guest has completed it, and then lets the next one through, for the line is high.
static void test_claimed_interrupt(void **state)
{
    struct machine_config config = fixture_config(1);
    struct fixture *a = fixture_create(&config), *b = fixture_create(&config);
    (void)state;

    fixture_put(a, UART + 1, 1, 1);
    fixture_put(a, MACHINE_PLIC_GPA + 4 * BOARD_IRQ_UART, 4, 1);
    fixture_put(a, PLIC_ENABLE_S0, 4, 1 << BOARD_IRQ_UART);
    machine_console_input(a->machine, "x", 1);
    assert_int_equal(fixture_get(a, PLIC_CLAIM_S0, 4), BOARD_IRQ_UART);
    struct saved saved = save(a->machine);
    load_or_fail(b->machine, &saved);
    assert_saves_the_same(b->machine, &saved);
    assert_int_equal(fixture_get(b, PLIC_CLAIM_S0, 4), 0);
    fixture_put(b, PLIC_CLAIM_S0, 4, BOARD_IRQ_UART);
    assert_true(atomic_load(&b->machine->harts[0]->mip_lines) & HART_IRQ_SEIP);
    assert_int_equal(fixture_get(b, PLIC_CLAIM_S0, 4), BOARD_IRQ_UART);
    assert_int_equal(fixture_get(b, UART, 1), 'x');
    fixture_put(b, PLIC_CLAIM_S0, 4, BOARD_IRQ_UART);
    assert_false(atomic_load(&b->machine->harts[0]->mip_lines) & HART_IRQ_SEIP);
    free(saved.bytes);
    fixture_destroy(a);
    fixture_destroy(b);
    close(config.kernel_fd);
}

static void stop_loop(void *opaque)
{
    loop_stop(opaque);
}

static void turn_loop(struct fixture *fixture)
{
    struct loop_timer *timer;

    assert_int_equal(loop_timer_create(fixture->loop, stop_loop, fixture->loop, &timer), 0);
    loop_timer_start(timer, 0);
    loop_run(fixture->loop);
    loop_timer_close(timer);
}

// An alarm that comes due between save and load is raised once the machine goes on, not before.
static void test_alarm(void **state)
{
    struct machine_config config = fixture_config(1);
    struct fixture *a = fixture_create(&config), *b = fixture_create(&config);
    (void)state;

    a->wall_clock_ns = b->wall_clock_ns = 1000;
    fixture_put(a, MACHINE_RTC_GPA + 0x10, 4, 1);
    fixture_put(a, MACHINE_RTC_GPA + 0x8, 4, 2000);
    struct saved saved = save(a->machine);
    load_or_fail(b->machine, &saved);
    b->wall_clock_ns = 3000;
    turn_loop(b);
    assert_saves_the_same(b->machine, &saved);
    machine_resume_devices(b->machine);
    turn_loop(b);
    assert_int_equal(b->machine->plic.pending[0], 1 << BOARD_IRQ_RTC);
    free(saved.bytes);
    fixture_destroy(a);
    fixture_destroy(b);
    close(config.kernel_fd);
}

static void test_breakpoints(void **state)
{
    struct machine_config config = fixture_config(1);
    struct fixture *a = fixture_create(&config), *b = fixture_create(&config);
    (void)state;

    hart_breakpoint_add(a->machine->harts[0], 0x80200010);
    hart_breakpoint_add(a->machine->harts[0], 0x80200020);
    a->machine->harts[0]->breakpoint_pc = 0x80200020;
    struct saved saved = save(a->machine);
    load_or_fail(b->machine, &saved);
    assert_saves_the_same(b->machine, &saved);
    assert_int_equal(b->machine->harts[0]->breakpoint_count, 2);
    assert_int_equal(b->machine->harts[0]->breakpoint_pc, 0x80200020);
    free(saved.bytes);
    fixture_destroy(a);
    fixture_destroy(b);
    close(config.kernel_fd);
}

// A new generation id interrupts until it is read, also when a save comes in between.
static void test_generation(void **state)
{
    static const uint8_t id[] = "a new generation";
    struct machine_config config = fixture_config(1);
    struct fixture *a = fixture_create(&config), *b = fixture_create(&config);
    uint64_t half;
    (void)state;

    assert_true(fixture_get(a, MACHINE_GENERATION_GPA, 8) !=
                fixture_get(b, MACHINE_GENERATION_GPA, 8));
    fixture_put(a, MACHINE_PLIC_GPA + 4 * BOARD_IRQ_GENERATION, 4, 1);
    fixture_put(a, PLIC_ENABLE_S0, 4, 1 << BOARD_IRQ_GENERATION);
    machine_set_generation(a->machine, id);
    struct saved saved = save(a->machine);
    load_or_fail(b->machine, &saved);
    assert_saves_the_same(b->machine, &saved);
    assert_int_equal(fixture_get(b, PLIC_CLAIM_S0, 4), BOARD_IRQ_GENERATION);
    half = fixture_get(b, MACHINE_GENERATION_GPA, 8);
    assert_memory_equal(&half, id, 8);
    half = fixture_get(b, MACHINE_GENERATION_GPA + 8, 8);
    assert_memory_equal(&half, id + 8, 8);
    fixture_put(b, PLIC_CLAIM_S0, 4, BOARD_IRQ_GENERATION);
    assert_int_equal(fixture_get(b, PLIC_CLAIM_S0, 4), 0);
    free(saved.bytes);
    fixture_destroy(a);
    fixture_destroy(b);
    close(config.kernel_fd);
}

static void assert_refused(struct machine *machine, const struct machine_config *config,
                           const char *message)
{
    struct fixture *b = fixture_create(config);
    struct saved saved = save(machine);
    struct error err;

    assert_int_equal(load(b->machine, &saved, &err), -EINVAL);
    assert_string_equal(err.message, message);
    assert_true(hart_is_parked(b->machine->harts[0]));
    free(saved.bytes);
    fixture_destroy(b);
}

static void test_another_machine(void **state)
{
    struct machine_config config = full_config(-1), other = config;
    struct fixture *a = fixture_create(&config);
    (void)state;

#define REFUSED "cannot load section \"machine\" 0 of the state: "
    other.cpus = 3;
    assert_refused(a->machine, &other, REFUSED "field \"harts\" is 2, but this machine has 3");
    other = config;
    other.memory_bytes = 32 << 20;
    assert_refused(a->machine, &other,
                   REFUSED "field \"memory_bytes\" is 16777216, but this machine has 33554432");
    other = config;
    other.rng = false;
    assert_refused(a->machine, &other, REFUSED "field \"virtio\" is 3, but this machine has 2");
    other = config;
    other.mmu_levels = 4;
    assert_refused(a->machine, &other, REFUSED "field \"mmu_levels\" is 3, but this machine has 4");
    fixture_destroy(a);
    close(config.kernel_fd);
}

// What a hart cannot hold is found by writing it to one.
static void test_hostile_harts(void **state)
{
    struct machine_config config = fixture_config(1);
    struct fixture *a = fixture_create(&config);
    struct hart *hart = a->machine->harts[0];
    (void)state;

#undef REFUSED
#define REFUSED "cannot load section \"hart\" 0 of the state: "
#define CANNOT_HOLD ", which the register cannot hold"
    const struct {
        uint64_t *field, value;
        const char *message;
    } cases[] = {
        {&hart->satp, 11ull << 60, REFUSED "field \"satp\" is 0xb000000000000000" CANNOT_HOLD},
        {&hart->satp, 9ull << 60, REFUSED "field \"satp\" is 0x9000000000000000" CANNOT_HOLD},
        {&hart->mstatus, ~0ull, REFUSED "field \"mstatus\" is 0xffffffffffffffff" CANNOT_HOLD},
        {&hart->mtvec, 2, REFUSED "field \"mtvec\" is 0x2" CANNOT_HOLD},
        {&hart->pmpaddr[3], ~0ull, REFUSED "field \"pmpaddr3\" is 0xffffffffffffffff" CANNOT_HOLD},
        {&hart->pc, 0x80000001, REFUSED "field \"pc\" is odd"},
        {&hart->x[0], 1, REFUSED "field \"x\" has x0 other than 0"},
        {&hart->reservation_gpa, 1, REFUSED "field \"reservation_gpa\" is not aligned"},
    };
    for (size_t i = 0; i < BASE_COUNT_OF(cases); i++) {
        uint64_t good = *cases[i].field;
        *cases[i].field = cases[i].value;
        assert_refused(a->machine, &config, cases[i].message);
        *cases[i].field = good;
    }
    hart->privilege = 2;
    assert_refused(a->machine, &config, REFUSED "field \"privilege\" is none that a hart has");
    hart->privilege = 7;
    assert_refused(a->machine, &config, REFUSED "field \"privilege\" is 0x7, beyond 0x3");
    fixture_destroy(a);
    close(config.kernel_fd);
}

static void test_hostile_devices(void **state)
{
    struct machine_config config = fixture_config(1);
    struct fixture *a = fixture_create(&config);
    struct machine *machine = a->machine;
    (void)state;

    machine->uart.rx_count = 2;  // the FIFO is off
    assert_refused(machine, &config,
                   "cannot load section \"uart\" 0 of the state: field \"rx_count\" is more than "
                   "the receiver holds");
    machine->uart.rx_count = 0;
    machine->plic.claimed[3] = 2;
    assert_refused(machine, &config,
                   "cannot load section \"plic\" 0 of the state: field \"claimed\" has a source "
                   "that there is not");
    machine->plic.claimed[3] = 0;
    machine->plic.priority[5] = 8;
    assert_refused(machine, &config,
                   "cannot load section \"plic\" 0 of the state: field \"priority\"[5] is 0x8, "
                   "beyond 0x7");
    machine->plic.priority[5] = 0;
    machine->console.active = CONSOLE_VIRTIO;
    assert_refused(machine, &config,
                   "cannot load section \"console\" 0 of the state: field \"active\" is the virtio "
                   "console, which this machine has not");
    fixture_destroy(a);
    close(config.kernel_fd);
}

// RAM of another process: both see what is written.
static void test_ram_is_shared(void **state)
{
    struct machine_config config = fixture_config(1), other = config;
    struct fixture *a = fixture_create(&config);
    struct machine_host host = a->machine->host;
    struct machine *machine;
    struct error err;
    uint32_t value = 0;
    (void)state;

    other.ram_fd = memory_find_ram(a->machine->memory, MACHINE_RAM_GPA)->fd;
    assert_int_equal(machine_create(&machine, &other, a->loop, &host, &err), 0);
    assert_int_equal(memory_write(machine->memory, MACHINE_RAM_GPA + 64, "abcd", 4), 0);
    assert_int_equal(memory_read(a->machine->memory, MACHINE_RAM_GPA + 64, &value, 4), 0);
    assert_memory_equal(&value, "abcd", 4);
    machine_destroy(machine);
    other.memory_bytes *= 2;
    assert_int_equal(machine_create(&machine, &other, a->loop, &host, &err), -EINVAL);
    assert_string_equal(err.message, "cannot use the RAM of another process: it has 16777216 "
                                     "bytes, not 33554432");
    fixture_destroy(a);
    close(config.kernel_fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_again),   cmocka_unit_test(test_time_goes_on),
        cmocka_unit_test(test_claimed_interrupt), cmocka_unit_test(test_alarm),
        cmocka_unit_test(test_breakpoints),       cmocka_unit_test(test_generation),
        cmocka_unit_test(test_another_machine),   cmocka_unit_test(test_hostile_harts),
        cmocka_unit_test(test_hostile_devices),   cmocka_unit_test(test_ram_is_shared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
