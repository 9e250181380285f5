// SPDX-License-Identifier: BSD-2-Clause
// States that were saved once, in tests/fixtures/state/, load for ever: into a machine of the kind
// that they are of, field by field as they were. usage: unit-state_fixtures [--write FILE] (writes
// a new one, of the machine below)
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>

#include "machine_fixture.h"

#define FIXTURES STRAKE_SOURCE_DIR "/tests/fixtures/state"
#define STATE_MAX_BYTES (1u << 20)

// All devices that need no host. Fixtures are of this machine; it never changes.
static struct fixture *machine_of_fixtures(void)
{
    struct machine_config config = fixture_config(2);

    config.rng = config.virtio_console = config.power_button = true;
    struct fixture *fixture = fixture_create(&config);
    close(config.kernel_fd);
    return fixture;
}

// Something in every register that has room for it, the same each time.
static void fill(struct machine *machine)
{
    for (unsigned id = 0; id < 2; id++) {
        struct hart *hart = machine->harts[id];
        for (unsigned i = 1; i < 32; i++)
            hart->x[i] = 0x0101010101010101 * i + id;
        for (unsigned i = 0; i < 32; i++)
            hart->f[i] = 0xffffffff00000000 | i;
        hart->pc = 0x80200000 + 4 * id;
        hart->instret = 1000000 + id;
        hart->reservation_gpa = 0x80001000;
        hart_csr_poke(hart, ISA_CSR_SATP, 8ull << 60 | 0x80123);
        hart_csr_poke(hart, ISA_CSR_STVEC, 0xffffffff80001000);
        hart_csr_poke(hart, ISA_CSR_SIE, HART_IRQ_STIP | HART_IRQ_SEIP);
        hart_csr_poke(hart, ISA_CSR_FCSR, 0x61);
        hart_set_stimecmp(hart, 123456789);
        hart_set_mtimecmp(hart, 987654321);
    }
    machine->uart.scr = 0x5a;
    machine->plic.priority[BOARD_IRQ_UART] = 3;
    machine->plic.pending[0] = 1 << 5;
    machine->plic.context[1].enable[0] = 1 << BOARD_IRQ_UART;
    machine->rtc.offset_ns = 12345;
    memcpy(machine->generation.id, "sixteen bytes ..", GENERATION_BYTES);
    machine_console_input(machine, "typed, and not yet read by anybody", 34);
}

static void check_filled(const struct machine *machine)
{
    assert_int_equal(machine->harts[1]->x[31], 0x1f1f1f1f1f1f1f1f + 1);
    assert_int_equal(machine->harts[1]->f[9], 0xffffffff00000009);
    assert_int_equal(machine->harts[1]->pc, 0x80200004);
    assert_int_equal(machine->harts[0]->satp, 8ull << 60 | 0x80123);
    assert_int_equal(machine->harts[0]->stimecmp, 123456789);
    assert_false(hart_is_parked(machine->harts[0]));
    assert_true(hart_is_parked(machine->harts[1]));
    assert_int_equal(machine->uart.scr, 0x5a);
    assert_int_equal(machine->plic.priority[BOARD_IRQ_UART], 3);
    assert_int_equal(machine->plic.pending[0] & 1 << 5, 1 << 5);
    assert_int_equal(machine->rtc.offset_ns, 12345);
    assert_memory_equal(machine->generation.id, "sixteen bytes ..", GENERATION_BYTES);
    assert_int_equal(ring_used(&machine->console.input) + machine->uart.rx_count, 34);
}

static size_t read_file(const char *path, uint8_t *bytes)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    int64_t count = fd_read_full(fd, bytes, STATE_MAX_BYTES);
    close(fd);
    assert_true(count > 0 && count < STATE_MAX_BYTES);
    return (size_t)count;
}

static void load(struct machine *machine, const uint8_t *bytes, size_t count)
{
    struct state_reader *reader;
    struct error err = {0};

    if (state_reader_create(&reader, bytes, count, NULL, 0, &err) < 0 ||
        machine_load(machine, reader, &err) < 0 || state_reader_finish(reader, &err) < 0)
        fail_msg("%s", err.message);
    state_reader_destroy(reader);
}

static void test_fixtures(void **state)
{
    uint8_t *bytes = malloc(STATE_MAX_BYTES);
    struct dirent **names;
    int count = scandir(FIXTURES, &names, NULL, alphasort);
    unsigned loaded = 0;
    (void)state;

    for (int i = 0; i < count; i++) {
        char path[512];
        snprintf(path, sizeof(path), "%s/%s", FIXTURES, names[i]->d_name);
        if (strstr(names[i]->d_name, ".state")) {
            struct fixture *fixture = machine_of_fixtures();
            load(fixture->machine, bytes, read_file(path, bytes));
            check_filled(fixture->machine);
            fixture_destroy(fixture);
            printf("loaded %s\n", names[i]->d_name);
            loaded++;
        }
        free(names[i]);
    }
    assert_true(loaded >= 1);
    free(names);
    free(bytes);
}

static int write_fixture(const char *path)
{
    struct fixture *fixture = machine_of_fixtures();
    struct state_writer *writer;
    const void *bytes;
    const int *fds;
    size_t count, fd_count;
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

    fill(fixture->machine);
    machine_pause_devices(fixture->machine);
    if (fd < 0 || state_writer_create(&writer, false) < 0)
        return 1;
    machine_save(fixture->machine, writer);
    if (state_writer_finish(writer, &bytes, &count, &fds, &fd_count) < 0 ||
        fd_write_full(fd, bytes, count) != (int64_t)count || close(fd) < 0)
        return 1;
    state_writer_destroy(writer);
    fixture_destroy(fixture);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_fixtures)};

    if (argc == 3 && strcmp(argv[1], "--write") == 0)
        return write_fixture(argv[2]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
