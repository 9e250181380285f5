// SPDX-License-Identifier: BSD-2-Clause
// The whole board: construction and its refusals, the device tree, power-on with and without
// firmware.
#include <ctype.h>
#include <fcntl.h>
#include <libfdt.h>
#include <stdio.h>

#include "machine_fixture.h"

#define HARTS 3u
#define FIRMWARE_BYTES 0x1000u

static int null_fd(void)
{
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

static int memfd_of(uint64_t length_bytes)
{
    int fd = memfd_create("image", MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)length_bytes), 0);
    return fd;
}

static int firmware_fd(void)
{
    int fd = memfd_of(FIRMWARE_BYTES);
    const uint32_t wfi = 0x10500073;

    assert_int_equal(pwrite(fd, &wfi, sizeof(wfi), 0), sizeof(wfi));
    return fd;
}

// ---- The device tree ----------------------------------------------------------------------------

static const void *tree_of(struct fixture *fixture)
{
    size_t bytes;
    const void *tree = machine_device_tree(fixture->machine, &bytes);

    assert_int_equal(fdt_check_full(tree, bytes), 0);
    return tree;
}

static int node_at(const void *tree, const char *path)
{
    int node = fdt_path_offset(tree, path);
    if (node < 0)
        fail_msg("no node %s", path);
    return node;
}

static const char *text_of(const void *tree, const char *path, const char *property)
{
    const char *text = fdt_getprop(tree, node_at(tree, path), property, NULL);
    if (!text)
        fail_msg("no property %s in %s", property, path);
    return text;
}

static uint32_t cell_of(const void *tree, const char *path, const char *property, unsigned index)
{
    int length;
    const fdt32_t *cells = fdt_getprop(tree, node_at(tree, path), property, &length);

    if (!cells || length < (int)(4 * (index + 1)))
        fail_msg("no cell %u of %s in %s", index, property, path);
    return fdt32_ld(&cells[index]);
}

static uint64_t wide_of(const void *tree, const char *path, const char *property, unsigned index)
{
    return (uint64_t)cell_of(tree, path, property, index) << 32 |
           cell_of(tree, path, property, index + 1);
}

static bool has(const void *tree, const char *path, const char *property)
{
    return fdt_getprop(tree, node_at(tree, path), property, NULL) != NULL;
}

static void test_device_tree(void **state)
{
    (void)state;
    struct machine_config config = fixture_config(HARTS);
    config.append = "console=ttyS0 quiet";
    config.initrd_name = "initrd";
    config.initrd_fd = memfd_of(12345);
    config.rng = true;
    struct fixture *fixture = fixture_create(&config);
    const struct boot_layout *layout = &fixture->machine->layout;
    const void *tree = tree_of(fixture);

    assert_string_equal(text_of(tree, "/", "compatible"), "riscv-virtio");
    assert_string_equal(text_of(tree, "/", "strake,version"), "1.2.3");
    assert_string_equal(text_of(tree, "/chosen", "bootargs"), "console=ttyS0 quiet");
    assert_int_equal(wide_of(tree, "/chosen", "linux,initrd-start", 0), layout->initrd.start_gpa);
    assert_int_equal(wide_of(tree, "/chosen", "linux,initrd-end", 0),
                     layout->initrd.start_gpa + 12345);
    assert_string_equal(fdt_get_alias(tree, text_of(tree, "/chosen", "stdout-path")),
                        "/soc/serial@10000000");
    assert_int_equal(wide_of(tree, "/memory@80000000", "reg", 0), MACHINE_RAM_GPA);
    assert_int_equal(wide_of(tree, "/memory@80000000", "reg", 2), 16 << 20);
    assert_int_equal(cell_of(tree, "/cpus", "timebase-frequency", 0), 10000000);
    assert_string_equal(text_of(tree, "/cpus/cpu@2", "mmu-type"), "riscv,sv39");
    assert_int_equal(cell_of(tree, "/cpus/cpu@2", "reg", 0), 2);
    assert_int_equal(cell_of(tree, "/cpus/cpu@2", "riscv,cboz-block-size", 0), 64);
    assert_true(fdt_path_offset(tree, "/cpus/cpu@3") < 0);

    assert_int_equal(cell_of(tree, "/soc/serial@10000000", "interrupts", 0), 10);
    assert_int_equal(cell_of(tree, "/soc/serial@10000000", "clock-frequency", 0), 3686400);
    assert_int_equal(cell_of(tree, "/soc/rtc@101000", "interrupts", 0), 11);
    assert_int_equal(cell_of(tree, "/soc/plic@c000000", "riscv,ndev", 0), 96);
    assert_int_equal(wide_of(tree, "/soc/plic@c000000", "reg", 2), 0x600000);
    assert_int_equal(cell_of(tree, "/soc/virtio_mmio@10001000", "interrupts", 0), 1);
    assert_true(fdt_path_offset(tree, "/soc/virtio_mmio@10002000") < 0);
    assert_int_equal(cell_of(tree, "/poweroff", "value", 0), 0x5555);
    assert_int_equal(cell_of(tree, "/reboot", "value", 0), 0x7777);
    assert_int_equal(fdt_node_offset_by_phandle(tree, cell_of(tree, "/reboot", "regmap", 0)),
                     node_at(tree, "/soc/test@100000"));
    fixture_destroy(fixture);
}

// Contexts of the PLIC in the order of its registers: M and S of hart 0, of hart 1, ...
static void test_interrupt_contexts(void **state)
{
    (void)state;
    const struct machine_config config = fixture_config(HARTS);
    struct fixture *fixture = fixture_create(&config);
    const void *tree = tree_of(fixture);

    for (unsigned i = 0; i < HARTS; i++) {
        char path[64];
        snprintf(path, sizeof(path), "/cpus/cpu@%x/interrupt-controller", i);
        uint32_t intc = cell_of(tree, path, "phandle", 0);
        const uint32_t plic[] = {intc, 11, intc, 9}, clint[] = {intc, 3, intc, 7};
        for (unsigned j = 0; j < 4; j++) {
            assert_int_equal(cell_of(tree, "/soc/plic@c000000", "interrupts-extended", 4 * i + j),
                             plic[j]);
            assert_int_equal(cell_of(tree, "/soc/clint@2000000", "interrupts-extended", 4 * i + j),
                             clint[j]);
        }
    }
    fixture_destroy(fixture);
}

static bool extension_listed(const void *tree, const char *name)
{
    return fdt_stringlist_search(tree, node_at(tree, "/cpus/cpu@0"), "riscv,isa-extensions",
                                 name) >= 0;
}

// What the instruction table has is advertised. Its privileged instructions go by "S.." names.
static void test_extensions_of_the_instruction_table(void **state)
{
    (void)state;
    const struct machine_config config = fixture_config(1);
    struct fixture *fixture = fixture_create(&config);
    const void *tree = tree_of(fixture);

    for (unsigned form = 1; form < ISA_FORM_COUNT; form++) {
        char name[32] = "";
        const char *extension = isa_form_extension(form);
        for (size_t i = 0; i < sizeof(name) - 1 && extension[i]; i++)
            name[i] = (char)tolower(extension[i]);
        if (strcmp(name, "sm") != 0 && strcmp(name, "ss") != 0 && !extension_listed(tree, name))
            fail_msg("extension %s has instructions but is not in the device tree", name);
    }
    fixture_destroy(fixture);
}

static void test_page_table_updates(void **state)
{
    (void)state;
    struct machine_config config = fixture_config(1);
    struct fixture *fixture = fixture_create(&config);

    assert_true(extension_listed(tree_of(fixture), "svadu"));
    assert_false(extension_listed(tree_of(fixture), "svade"));
    assert_non_null(strstr(text_of(tree_of(fixture), "/cpus/cpu@0", "riscv,isa"), "_svadu"));
    assert_ptr_equal(
        strstr(text_of(tree_of(fixture), "/cpus/cpu@0", "riscv,isa"), "rv64imafdc_zicbom_"),
        text_of(tree_of(fixture), "/cpus/cpu@0", "riscv,isa"));
    fixture_destroy(fixture);

    config = fixture_config(1);
    config.firmware_fd = firmware_fd();
    config.firmware_name = "firmware";
    fixture = fixture_create(&config);
    assert_true(extension_listed(tree_of(fixture), "svadu"));
    assert_true(extension_listed(tree_of(fixture), "svade"));
    fixture_destroy(fixture);
}

static void test_seed_is_fresh(void **state)
{
    (void)state;
    const struct machine_config config = fixture_config(1);
    struct fixture *fixture = fixture_create(&config);
    uint8_t seed[32];

    memcpy(seed, text_of(tree_of(fixture), "/chosen", "rng-seed"), sizeof(seed));
    assert_int_equal(machine_reset(fixture->machine, NULL), 0);
    assert_memory_not_equal(seed, text_of(tree_of(fixture), "/chosen", "rng-seed"), sizeof(seed));
    assert_false(has(tree_of(fixture), "/chosen", "bootargs"));
    assert_false(has(tree_of(fixture), "/chosen", "linux,initrd-start"));
    fixture_destroy(fixture);
}

// The device tree compiler knows many rules; it is to have nothing to say.
static void test_dtc_is_content(void **state)
{
    (void)state;
    if (system("command -v dtc >/dev/null") != 0) {
        print_message("there is no dtc here\n");
        skip();
    }
    struct machine_config config = fixture_config(HART_MAX);
    config.append = "quiet";
    config.rng = true;
    struct fixture *fixture = fixture_create(&config);
    size_t bytes;
    const void *tree = machine_device_tree(fixture->machine, &bytes);
    char command[128], said[512] = "";
    int fd = memfd_create("dtb", 0);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, tree, bytes), bytes);
    snprintf(command, sizeof(command), "dtc -I dtb -O dts -o /dev/null /proc/%d/fd/%d 2>&1",
             (int)getpid(), fd);
    FILE *dtc = popen(command, "r");
    assert_non_null(dtc);
    size_t count = fread(said, 1, sizeof(said) - 1, dtc);
    print_message("%s", said);
    assert_int_equal(pclose(dtc), 0);
    assert_int_equal(count, 0);
    close(fd);
    fixture_destroy(fixture);
}

// ---- Power-on -----------------------------------------------------------------------------------

static void test_start_with_the_built_in_sbi(void **state)
{
    (void)state;
    const struct machine_config config = fixture_config(HARTS);
    struct fixture *fixture = fixture_create(&config);
    const struct boot_layout *layout = &fixture->machine->layout;
    const struct hart *hart = machine_hart(fixture->machine, 0);
    size_t bytes;
    const void *tree = machine_device_tree(fixture->machine, &bytes);

    assert_int_equal(hart->pc, 0x80200000);
    assert_int_equal(hart->x[10], 0);
    assert_int_equal(hart->x[11], layout->device_tree.start_gpa);
    assert_int_equal(hart->privilege, HART_S);
    assert_false(hart_is_parked(hart));
    assert_true(hart_is_parked(machine_hart(fixture->machine, 1)));
    assert_true(hart_is_parked(machine_hart(fixture->machine, 2)));
    assert_memory_equal(
        memory_ram_hva(machine_memory(fixture->machine), layout->device_tree.start_gpa, bytes),
        tree, bytes);
    assert_null(memory_find_ram(machine_memory(fixture->machine), BOOT_ROM_GPA));
    fixture_destroy(fixture);
}

// Runs the boot ROM's six instructions on each hart.
static void test_start_with_firmware(void **state)
{
    (void)state;
    struct machine_config config = fixture_config(HARTS);
    config.firmware_fd = firmware_fd();
    config.firmware_name = "firmware";
    struct fixture *fixture = fixture_create(&config);
    const struct boot_layout *layout = &fixture->machine->layout;

    for (unsigned i = 0; i < HARTS; i++) {
        struct hart *hart = machine_hart(fixture->machine, i);
        uint64_t dynamic[6];

        assert_false(hart_is_parked(hart));
        assert_int_equal(hart->privilege, HART_M);
        for (unsigned step = 0; step < 6; step++) {
            hart->debug_step = true;
            assert_int_equal(hart_run(hart), HART_EXIT_STEPPED);
        }
        assert_int_equal(hart->pc, MACHINE_RAM_GPA);
        assert_int_equal(hart->x[10], i);
        assert_int_equal(hart->x[11], layout->device_tree.start_gpa);
        assert_int_equal(
            memory_read(machine_memory(fixture->machine), hart->x[12], dynamic, sizeof(dynamic)),
            0);
        const uint64_t wanted[] = {0x4942534f, 2, 0x80200000, HART_S, 0, 0};
        assert_memory_equal(dynamic, wanted, sizeof(wanted));
    }
    fixture_destroy(fixture);
}

static void test_reset_clears_memory_and_devices(void **state)
{
    (void)state;
    const struct machine_config config = fixture_config(1);
    struct fixture *fixture = fixture_create(&config);
    const uint64_t dirt_gpa = MACHINE_RAM_GPA + 0x123456;
    uint64_t word = UINT64_MAX;

    assert_int_equal(memory_write(machine_memory(fixture->machine), dirt_gpa, &word, 8), 0);
    fixture_put(fixture, MACHINE_UART_GPA + 1, 1, 2);
    fixture_put(fixture, MACHINE_PLIC_GPA + 4 * 10, 4, 1);
    fixture_put(fixture, MACHINE_PLIC_GPA + 0x2080, 4, 1u << 10);
    assert_true(hart_mip(machine_hart(fixture->machine, 0)) & HART_IRQ_SEIP);
    assert_int_equal(machine_reset(fixture->machine, NULL), 0);
    assert_int_equal(memory_read(machine_memory(fixture->machine), dirt_gpa, &word, 8), 0);
    assert_int_equal(word, 0);
    assert_int_equal(fixture_get(fixture, MACHINE_UART_GPA + 1, 1), 0);
    assert_int_equal(fixture_get(fixture, MACHINE_PLIC_GPA + 0x1000, 4), 0);
    assert_false(hart_mip(machine_hart(fixture->machine, 0)) & HART_IRQ_SEIP);
    fixture_destroy(fixture);
}

static void test_reset_names_the_image_that_fails(void **state)
{
    (void)state;
    struct machine_config config = fixture_config(1);
    config.initrd_fd = memfd_of(15 << 20);
    config.initrd_name = "big.cpio";
    struct loop *loop;
    struct machine *machine;
    struct machine_host host = {.clock_ns = fixture_clock, .opaque = &(struct fixture){0}};
    struct error err = {0};

    assert_int_equal(loop_create(&loop, NULL), 0);
    assert_int_equal(machine_create(&machine, &config, loop, &host, &err), 0);
    assert_true(machine_reset(machine, &err) < 0);
    assert_string_equal(err.message,
                        "initrd \"big.cpio\" (15 MiB) does not fit into 16 MiB of memory");
    machine_destroy(machine);
    loop_destroy(loop);
}

// ---- The memory map -----------------------------------------------------------------------------

static void test_empty_slots_have_no_device(void **state)
{
    (void)state;
    struct machine_config config = fixture_config(1);
    config.rng = true;
    struct fixture *fixture = fixture_create(&config);

    for (unsigned slot = 0; slot < MACHINE_VIRTIO_SLOTS; slot++) {
        uint64_t gpa = MACHINE_VIRTIO_GPA + (uint64_t)slot * VIRTIO_MMIO_BYTES;
        assert_int_equal(fixture_get(fixture, gpa, 4), 0x74726976);
        assert_int_equal(fixture_get(fixture, gpa + 4, 4), 2);
        assert_int_equal(fixture_get(fixture, gpa + 8, 4), slot == 0 ? 4 : 0);
    }
    fixture_destroy(fixture);
}

static void count_virtio(void *opaque, const char *kind, unsigned slot, bool driver_ok)
{
    assert_string_equal(kind, "rng");
    assert_int_equal(slot, 0);
    assert_false(driver_ok);
    ++*(int *)opaque;
}

static void test_virtio_devices_are_listed(void **state)
{
    (void)state;
    struct machine_config config = fixture_config(1);
    config.rng = true;
    struct fixture *fixture = fixture_create(&config);
    int count = 0;

    machine_for_each_virtio(fixture->machine, count_virtio, &count);
    assert_int_equal(count, 1);
    assert_int_equal(machine_cpus(fixture->machine), 1);
    assert_null(machine_hart(fixture->machine, 1));
    fixture_destroy(fixture);
}

// ---- Refusals -----------------------------------------------------------------------------------

static void refuse(struct machine_config *config, int rc, const char *message)
{
    struct loop *loop;
    struct machine *machine = NULL;
    struct machine_host host = {0};
    struct error err = {0};
    int kernel_fd = config->kernel_fd;

    assert_int_equal(loop_create(&loop, NULL), 0);
    assert_int_equal(machine_create(&machine, config, loop, &host, &err), rc);
    print_message("%s\n", err.message);
    assert_string_equal(err.message, message);
    assert_true(fcntl(kernel_fd, F_GETFD) >= 0);  // still the caller's
    for (size_t i = 0; i < config->disk_count; i++)
        assert_true(fcntl(config->disks[i].fd, F_GETFD) >= 0);
    close(kernel_fd);
    loop_destroy(loop);
}

static void test_absurd_sizes(void **state)
{
    (void)state;
    struct machine_config config = fixture_config(1);
    config.memory_bytes = (16 << 20) - 4096;
    refuse(&config, -EINVAL,
           "memory of 16773120 bytes is not possible: it is 16 MiB to 64 GiB, in pages");
    config = fixture_config(1);
    config.memory_bytes = UINT64_MAX;
    refuse(
        &config, -EINVAL,
        "memory of 18446744073709551615 bytes is not possible: it is 16 MiB to 64 GiB, in pages");
    config = fixture_config(0);
    refuse(&config, -EINVAL, "0 harts are not possible: there are 1 to 16");
    config = fixture_config(17);
    refuse(&config, -EINVAL, "17 harts are not possible: there are 1 to 16");
}

static void test_more_devices_than_slots(void **state)
{
    (void)state;
    struct machine_config config = fixture_config(1);
    struct machine_disk disks[MACHINE_VIRTIO_SLOTS];

    for (size_t i = 0; i < BASE_COUNT_OF(disks); i++)
        disks[i] = (struct machine_disk){.fd = null_fd()};
    config.disks = disks;
    config.disk_count = BASE_COUNT_OF(disks);
    config.rng = true;
    refuse(&config, -ENOSPC, "the machine has 8 virtio slots, but 9 devices are asked for");
    for (size_t i = 0; i < BASE_COUNT_OF(disks); i++)
        close(disks[i].fd);
}

static void test_command_line_too_long(void **state)
{
    (void)state;
    struct machine_config config = fixture_config(1);
    static char append[100001];
    memset(append, 'a', sizeof(append) - 1);
    config.append = append;
    struct loop *loop;
    struct machine *machine;
    struct machine_host host = {.clock_ns = fixture_clock, .opaque = &(struct fixture){0}};
    struct error err = {0};

    assert_int_equal(loop_create(&loop, NULL), 0);
    assert_int_equal(machine_create(&machine, &config, loop, &host, &err), 0);
    assert_int_equal(machine_reset(machine, &err), -E2BIG);
    assert_string_equal(err.message, "the kernel command line (100000 bytes) is too long");
    machine_destroy(machine);
    loop_destroy(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_device_tree),
        cmocka_unit_test(test_interrupt_contexts),
        cmocka_unit_test(test_extensions_of_the_instruction_table),
        cmocka_unit_test(test_page_table_updates),
        cmocka_unit_test(test_seed_is_fresh),
        cmocka_unit_test(test_dtc_is_content),
        cmocka_unit_test(test_start_with_the_built_in_sbi),
        cmocka_unit_test(test_start_with_firmware),
        cmocka_unit_test(test_reset_clears_memory_and_devices),
        cmocka_unit_test(test_reset_names_the_image_that_fails),
        cmocka_unit_test(test_empty_slots_have_no_device),
        cmocka_unit_test(test_virtio_devices_are_listed),
        cmocka_unit_test(test_absurd_sizes),
        cmocka_unit_test(test_more_devices_than_slots),
        cmocka_unit_test(test_command_line_too_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
