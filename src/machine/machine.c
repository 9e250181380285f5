// SPDX-License-Identifier: BSD-2-Clause
// The board: its table of devices, how they are wired together, power-on.
#include <errno.h>
#include <fcntl.h>
#include <libfdt.h>
#include <stdio.h>
#include <stdlib.h>
#include <strake/guest.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "machine/board.h"

#define NS_PER_TICK (1000000000u / HART_TIME_HZ)

// ---- The board's table --------------------------------------------------------------------------

#define DEVICE(member) .offset = offsetof(struct machine, member)

// The PLIC comes last: it is reset and loaded after everybody has driven their lines.
const struct board_entry board_entries[] = {
    {
        .name = "test",
        .gpa = MACHINE_TEST_GPA,
        .length_bytes = POWER_LENGTH_BYTES,
        .width_min = 2,
        .width_max = 4,
        DEVICE(power),
        .ops = &power_ops,
        .describe = device_tree_power,
    },
    {
        .name = "rtc",
        .gpa = MACHINE_RTC_GPA,
        .length_bytes = RTC_LENGTH_BYTES,
        .width_min = 4,
        .width_max = 4,
        .irq = BOARD_IRQ_RTC,
        DEVICE(rtc),
        .ops = &rtc_ops,
        .reset = rtc_reset,
        .save = rtc_save,
        .load = rtc_load,
        .describe = device_tree_rtc,
    },
    {
        .name = "generation",
        .gpa = MACHINE_GENERATION_GPA,
        .length_bytes = GENERATION_BYTES,
        .width_min = 1,
        .width_max = 8,
        .irq = BOARD_IRQ_GENERATION,
        DEVICE(generation),
        .ops = &generation_ops,
        .reset = generation_reset,
        .save = generation_save,
        .load = generation_load,
        .describe = device_tree_generation,
    },
    {
        .name = "clint",
        .gpa = MACHINE_ACLINT_GPA,
        .length_bytes = ACLINT_LENGTH_BYTES,
        .width_min = 4,
        .width_max = 8,
        DEVICE(aclint),
        .ops = &aclint_ops,
        .reset = aclint_reset,
        .describe = device_tree_aclint,
    },
    {
        .name = "serial",
        .gpa = MACHINE_UART_GPA,
        .length_bytes = UART_LENGTH_BYTES,
        .width_min = 1,
        .width_max = 8,
        .irq = BOARD_IRQ_UART,
        DEVICE(uart),
        .ops = &uart_ops,
        .reset = uart_reset,
        .save = uart_save,
        .load = uart_load,
        .describe = device_tree_uart,
    },
    {
        .name = "plic",
        .gpa = MACHINE_PLIC_GPA,
        .length_bytes = PLIC_LENGTH_BYTES,
        .width_min = 4,
        .width_max = 4,
        DEVICE(plic),
        .ops = &plic_ops,
        .reset = plic_reset,
        .save = plic_save,
        .load = plic_load,
        .describe = device_tree_plic,
    },
};
const size_t board_entry_count = BASE_COUNT_OF(board_entries);

// ---- Wiring -------------------------------------------------------------------------------------

static void hart_external_set(void *opaque, unsigned context, bool level)
{
    struct machine *machine = opaque;

    hart_set_lines(machine->harts[context / 2], context % 2 ? HART_IRQ_SEIP : HART_IRQ_MEIP, level);
}

static uint64_t hart_clock_ns(void *opaque)
{
    const struct machine *machine = opaque;

    return machine->host.clock_ns(machine->host.opaque);
}

static void uart_output(void *opaque, uint8_t byte)
{
    struct machine *machine = opaque;

    console_switch_output(&machine->console, CONSOLE_UART, &byte, 1);
}

static size_t uart_input(void *opaque, uint8_t *bytes, size_t max)
{
    struct machine *machine = opaque;

    return console_switch_take(&machine->console, CONSOLE_UART, bytes, max);
}

static void uart_input_taken(void *opaque)
{
    struct machine *machine = opaque;

    console_switch_tell_room(&machine->console);
}

static size_t virtio_console_offer(void *opaque, const void *bytes, size_t count)
{
    return virtio_console_input(opaque, bytes, count);
}

static void virtio_console_push(struct machine *machine)
{
    console_switch_push(&machine->console, CONSOLE_VIRTIO, virtio_console_offer,
                        machine->virtio_console);
}

static void virtio_console_output(void *opaque, const void *bytes, size_t count)
{
    struct machine *machine = opaque;

    console_switch_output(&machine->console, CONSOLE_VIRTIO, bytes, count);
    virtio_console_push(machine);
    console_switch_tell_room(&machine->console);
}

static void virtio_console_room(void *opaque)
{
    struct machine *machine = opaque;

    virtio_console_push(machine);
    console_switch_tell_room(&machine->console);
}

// ---- Virtio slots -------------------------------------------------------------------------------

// What a driver finds in an empty slot: a transport with device 0 (VIRTIO 1.2, section 4.2.2).
static uint64_t empty_slot_read(void *device, uint64_t offset, unsigned width_bytes)
{
    (void)device, (void)width_bytes;
    return offset == 0 ? 0x74726976u : offset == 4 ? 2 : 0;
}

static void empty_slot_write(void *device, uint64_t offset, unsigned width_bytes, uint64_t value)
{
    (void)device, (void)offset, (void)width_bytes, (void)value;
}

static const struct memory_device_ops empty_slot_ops = {.read = empty_slot_read,
                                                        .write = empty_slot_write};

static int add_empty_slots(struct machine *machine, struct error *err)
{
    int rc = 0;

    for (unsigned slot = machine->virtio_count; slot < MACHINE_VIRTIO_SLOTS && rc == 0; slot++) {
        const struct memory_device registers = {
            .name = "virtio (empty)",
            .gpa = MACHINE_VIRTIO_GPA + (uint64_t)slot * VIRTIO_MMIO_BYTES,
            .length_bytes = VIRTIO_MMIO_BYTES,
            .width_min = 1,
            .width_max = 4,
            .ops = &empty_slot_ops,
        };
        rc = memory_add_device(machine->memory, &registers, err);
    }
    return rc;
}

// The wiring of the next free slot.
static struct virtio_wiring slot_wiring(struct machine *machine)
{
    return (struct virtio_wiring){
        .memory = machine->memory,
        .loop = machine->loop,
        .irq = plic_line(&machine->plic, BOARD_IRQ_VIRTIO + machine->virtio_count),
    };
}

// Puts a device into the next free slot; it belongs to the machine afterwards, also on failure.
static int slot_fill(struct machine *machine, struct virtio_device *device, struct error *err)
{
    struct memory_device registers;

    virtio_device_registers(device, &registers);
    registers.name = virtio_device_kind(device);
    registers.gpa = MACHINE_VIRTIO_GPA + (uint64_t)machine->virtio_count * VIRTIO_MMIO_BYTES;
    machine->virtio[machine->virtio_count++] = device;
    return memory_add_device(machine->memory, &registers, err);
}

// Of no descriptor (-1) the copy is none.
static int copy_fd(int fd, int *copy, struct error *err)
{
    *copy = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
    return fd >= 0 && *copy < 0 ? error_set_errno(err, -errno, "cannot duplicate a descriptor") : 0;
}

static int add_disk(struct machine *machine, const struct machine_disk *disk, struct error *err)
{
    struct virtio_wiring wiring = slot_wiring(machine);
    struct virtio_blk_config config = {.read_only = disk->read_only, .aio = disk->aio};
    struct virtio_device *device;
    int rc = copy_fd(disk->fd, &config.fd, err);

    if (rc < 0)
        return rc;
    snprintf(config.serial, sizeof(config.serial), "strake-%u", machine->virtio_count);
    rc = virtio_blk_create(&device, &wiring, &config, err);
    if (rc < 0) {
        close(config.fd);
        return rc;
    }
    return slot_fill(machine, device, err);
}

static int add_net(struct machine *machine, const struct virtio_net_config *net, struct error *err)
{
    struct virtio_wiring wiring = slot_wiring(machine);
    struct virtio_net_config config = *net;
    struct virtio_device *device;
    int rc = 0;

    for (config.pairs = 0; config.pairs < net->pairs && rc == 0; config.pairs += rc == 0)
        rc = copy_fd(net->fds[config.pairs], &config.fds[config.pairs], err);
    if (rc == 0)
        rc = virtio_net_create(&device, &wiring, &config, err);
    if (rc == 0)
        return slot_fill(machine, device, err);
    while (config.pairs > 0)
        close(config.fds[--config.pairs]);
    return rc;
}

static int add_vsock(struct machine *machine, const struct virtio_vsock_config *vsock,
                     struct error *err)
{
    struct virtio_wiring wiring = slot_wiring(machine);
    struct virtio_vsock_config config = *vsock;
    struct virtio_device *device;
    int rc = copy_fd(vsock->listen_fd, &config.listen_fd, err);

    if (rc < 0)
        return rc;
    rc = virtio_vsock_create(&device, &wiring, &config, err);
    if (rc < 0) {
        close(config.listen_fd);
        return rc;
    }
    machine->vsock = device;
    return slot_fill(machine, device, err);
}

static int add_rng(struct machine *machine, struct error *err)
{
    struct virtio_wiring wiring = slot_wiring(machine);
    struct virtio_device *device;
    int rc = virtio_rng_create(&device, &wiring, err);

    return rc < 0 ? rc : slot_fill(machine, device, err);
}

static int add_console(struct machine *machine, struct error *err)
{
    struct virtio_wiring wiring = slot_wiring(machine);
    const struct virtio_console_config config = {
        .output = virtio_console_output, .input_room = virtio_console_room, .opaque = machine};
    struct virtio_device *device;
    int rc = virtio_console_create(&device, &wiring, &config, err);

    if (rc < 0)
        return rc;
    machine->virtio_console = device;
    return slot_fill(machine, device, err);
}

static int add_power_button(struct machine *machine, struct error *err)
{
    struct virtio_wiring wiring = slot_wiring(machine);
    struct virtio_device *device;
    int rc = virtio_input_create(&device, &wiring, err);

    if (rc < 0)
        return rc;
    machine->power_button = device;
    return slot_fill(machine, device, err);
}

static int add_virtio(struct machine *machine, const struct machine_config *config,
                      struct error *err)
{
    size_t wanted = config->disk_count + config->net_count + (config->vsock != NULL) + config->rng +
                    config->virtio_console;
    int rc = 0;

    if (config->disk_count > MACHINE_VIRTIO_SLOTS || config->net_count > MACHINE_VIRTIO_SLOTS ||
        wanted > MACHINE_VIRTIO_SLOTS)
        return error_set(err, -ENOSPC,
                         "the machine has %u virtio slots, but %zu devices are asked for",
                         MACHINE_VIRTIO_SLOTS, wanted);
    for (size_t i = 0; i < config->disk_count && rc == 0; i++)
        rc = add_disk(machine, &config->disks[i], err);
    for (size_t i = 0; i < config->net_count && rc == 0; i++)
        rc = add_net(machine, &config->nets[i], err);
    if (rc == 0 && config->vsock)
        rc = add_vsock(machine, config->vsock, err);
    if (rc == 0 && config->rng)
        rc = add_rng(machine, err);
    if (rc == 0 && config->virtio_console)
        rc = add_console(machine, err);
    if (rc == 0 && config->power_button && machine->virtio_count < MACHINE_VIRTIO_SLOTS)
        rc = add_power_button(machine, err);
    return rc == 0 ? add_empty_slots(machine, err) : rc;
}

// ---- Construction -------------------------------------------------------------------------------

static int config_check(const struct machine_config *config, struct error *err)
{
    if (config->memory_bytes < MACHINE_MEMORY_MIN_BYTES ||
        config->memory_bytes > MACHINE_MEMORY_MAX_BYTES || config->memory_bytes % MEMORY_PAGE_BYTES)
        return error_set(err, -EINVAL,
                         "memory of %llu bytes is not possible: it is 16 MiB to 64 GiB, in pages",
                         (unsigned long long)config->memory_bytes);
    if (config->cpus < 1 || config->cpus > HART_MAX)
        return error_set(err, -EINVAL, "%u harts are not possible: there are 1 to %u", config->cpus,
                         HART_MAX);
    if (config->mmu_levels && (config->mmu_levels < 3 || config->mmu_levels > 5))
        return error_set(err, -EINVAL,
                         "%u levels of page tables are not possible: there are 3 to 5",
                         config->mmu_levels);
    return 0;
}

static const char **config_strings(struct machine_config *config, size_t index)
{
    const char **strings[] = {&config->version, &config->kernel_name, &config->initrd_name,
                              &config->firmware_name, &config->append};

    return index < BASE_COUNT_OF(strings) ? strings[index] : NULL;
}

// The machine's own copy, with own strings and images and without what devices have taken over.
// Filled so far as config_free can undo it, also on failure.
static int config_copy(struct machine_config *copy, const struct machine_config *config,
                       struct error *err)
{
    const char **string;
    int rc = 0;

    *copy = *config;
    copy->kernel_fd = copy->initrd_fd = copy->firmware_fd = copy->ram_fd = -1;
    copy->ram_base = NULL;
    copy->disks = NULL;
    copy->nets = NULL;
    copy->vsock = NULL;
    for (size_t i = 0; (string = config_strings(copy, i)); i++) {
        *string = *string ? strdup(*string) : NULL;
        if (!*string && *config_strings((struct machine_config *)config, i))
            rc = error_set_errno(err, -ENOMEM, "cannot create a machine");
    }
    if (rc == 0)
        rc = copy_fd(config->kernel_fd, &copy->kernel_fd, err);
    if (rc == 0)
        rc = copy_fd(config->initrd_fd, &copy->initrd_fd, err);
    if (rc == 0)
        rc = copy_fd(config->firmware_fd, &copy->firmware_fd, err);
    return rc;
}

static void config_free(struct machine_config *config)
{
    const int fds[] = {config->kernel_fd, config->initrd_fd, config->firmware_fd};
    const char **string;

    for (size_t i = 0; i < BASE_COUNT_OF(fds); i++) {
        if (fds[i] >= 0)
            close(fds[i]);
    }
    for (size_t i = 0; (string = config_strings(config, i)); i++)
        free((char *)*string);
}

static void close_fd(int fd)
{
    if (fd >= 0)
        close(fd);
}

// Another process's: it may not be what it says.
static int check_length(int fd, uint64_t length_bytes, struct error *err)
{
    struct stat status;

    if (fstat(fd, &status) < 0)
        return error_set_errno(err, -errno, "cannot use the RAM of another process");
    return (uint64_t)status.st_size == length_bytes
               ? 0
               : error_set(err, -EINVAL,
                           "cannot use the RAM of another process: it has %lld bytes, not %llu",
                           (long long)status.st_size, (unsigned long long)length_bytes);
}

static int add_ram(struct machine *machine, const struct machine_config *config, struct error *err)
{
    struct memory_base base = {.fd = -1, .map_fd = -1};
    int fd = -1, rc = copy_fd(config->ram_fd, &fd, err);

    if (rc == 0 && fd >= 0)
        rc = check_length(fd, config->memory_bytes, err);
    if (rc == 0 && config->ram_base)
        rc = copy_fd(config->ram_base->fd, &base.fd, err);
    if (rc == 0 && config->ram_base)
        rc = copy_fd(config->ram_base->map_fd, &base.map_fd, err);
    if (rc == 0 && config->ram_base)
        rc = memory_add_ram_shared(machine->memory, MACHINE_RAM_GPA, config->memory_bytes, fd,
                                   &base, err);
    else if (rc == 0)
        rc = memory_add_ram(machine->memory, MACHINE_RAM_GPA, config->memory_bytes, fd, err);
    if (rc < 0) {
        close_fd(fd);
        close_fd(base.fd);
        close_fd(base.map_fd);
    }
    return rc;
}

static int add_memory(struct machine *machine, const struct machine_config *config, bool boot_rom,
                      struct error *err)
{
    int rc = memory_create(&machine->memory, err);

    if (rc == 0)
        rc = add_ram(machine, config, err);
    if (rc == 0 && boot_rom)
        rc = memory_add_ram(machine->memory, BOOT_ROM_GPA, BOOT_ROM_BYTES, -1, err);
    return rc;
}

static int add_harts(struct machine *machine, bool firmware, struct error *err)
{
    const struct hart_host host = {
        .clock_ns = hart_clock_ns,
        .sbi = firmware ? NULL : sbi_call,
        .call = machine->config.guest.call ? sbi_guest_call : NULL,
        .marchid = machine->config.guest.call ? STRAKE_GUEST_MARCHID : 0,
        .opaque = machine,
    };
    int rc = 0;

    for (unsigned i = 0; i < machine->config.cpus && rc == 0; i++) {
        rc =
            hart_create(&machine->harts[i], i, machine->memory, &host, machine->config.engine, err);
        if (rc == 0)
            hart_limit_mmu(machine->harts[machine->hart_count++], machine->config.mmu_levels);
    }
    return rc;
}

static int init_devices(struct machine *machine, struct error *err)
{
    const struct uart_peer line = {.output = uart_output,
                                   .input = uart_input,
                                   .input_taken = uart_input_taken,
                                   .opaque = machine};
    int rc;

    plic_init(&machine->plic, 2 * machine->hart_count, hart_external_set, machine);
    aclint_init(&machine->aclint, machine->harts, machine->hart_count);
    uart_init(&machine->uart, &line, plic_line(&machine->plic, BOARD_IRQ_UART));
    power_init(&machine->power, &machine->host);
    rc = console_switch_init(&machine->console, &machine->host);
    if (rc == 0)
        rc = generation_init(&machine->generation, plic_line(&machine->plic, BOARD_IRQ_GENERATION));
    if (rc == 0)
        rc = rtc_init(&machine->rtc, machine->loop, &machine->host,
                      plic_line(&machine->plic, BOARD_IRQ_RTC));
    return rc < 0 ? error_set_errno(err, rc, "cannot create the machine's devices") : 0;
}

static int map_devices(struct machine *machine, struct error *err)
{
    int rc = 0;

    for (size_t i = 0; i < board_entry_count && rc == 0; i++) {
        const struct board_entry *entry = &board_entries[i];
        const struct memory_device registers = {
            .name = entry->name,
            .gpa = entry->gpa,
            .length_bytes = entry->length_bytes,
            .width_min = entry->width_min,
            .width_max = entry->width_max,
            .ops = entry->ops,
            .device = (char *)machine + entry->offset,
        };
        rc = memory_add_device(machine->memory, &registers, err);
    }
    return rc;
}

static int build(struct machine *machine, const struct machine_config *config, struct error *err)
{
    bool firmware = config->firmware_fd >= 0;
    int rc = add_memory(machine, config, firmware, err);

    if (rc == 0)
        rc = add_harts(machine, firmware, err);
    if (rc == 0)
        rc = init_devices(machine, err);
    if (rc == 0)
        rc = map_devices(machine, err);
    if (rc == 0)
        rc = add_virtio(machine, config, err);
    return rc;
}

int machine_create(struct machine **out, const struct machine_config *config, struct loop *loop,
                   const struct machine_host *host, struct error *err)
{
    int rc = config_check(config, err);

    if (rc < 0)
        return rc;
    struct machine *machine = calloc(1, sizeof(*machine));
    if (!machine)
        return error_set_errno(err, -ENOMEM, "cannot create a machine");
    machine->host = *host;
    machine->loop = loop;
    machine->device_tree = calloc(1, DEVICE_TREE_MAX_BYTES);
    rc = config_copy(&machine->config, config, err);
    if (machine->config.mmu_levels == 0)
        machine->config.mmu_levels = 3;
    if (rc == 0 && !machine->device_tree)
        rc = error_set_errno(err, -ENOMEM, "cannot create a machine");
    if (rc == 0)
        rc = build(machine, config, err);
    if (rc < 0) {
        machine_destroy(machine);
        return rc;
    }
    *out = machine;
    return 0;
}

void machine_destroy(struct machine *machine)
{
    if (!machine)
        return;
    for (unsigned i = 0; i < machine->virtio_count; i++)
        virtio_device_destroy(machine->virtio[i]);
    rtc_fini(&machine->rtc);
    generation_fini(&machine->generation);
    uart_fini(&machine->uart);
    aclint_fini(&machine->aclint);
    plic_fini(&machine->plic);
    console_switch_fini(&machine->console);
    for (unsigned i = 0; i < machine->hart_count; i++)
        hart_destroy(machine->harts[i]);
    memory_destroy(machine->memory);
    config_free(&machine->config);
    free(machine->device_tree);
    free(machine);
}

// ---- Power-on -----------------------------------------------------------------------------------

static void reset_on_loop(void *opaque)
{
    struct machine *machine = opaque;

    for (unsigned i = 0; i < machine->virtio_count; i++)
        virtio_device_reset(machine->virtio[i]);
    for (size_t i = 0; i < board_entry_count; i++) {
        if (board_entries[i].reset)
            board_entries[i].reset((char *)machine + board_entries[i].offset);
    }
}

void machine_reset_devices(struct machine *machine)
{
    loop_call(machine->loop, reset_on_loop, machine);
    atomic_store(&machine->suspended, 0);
}

void machine_reset_harts(struct machine *machine)
{
    uint64_t now_ticks = machine->host.clock_ns(machine->host.opaque) / NS_PER_TICK;

    for (unsigned i = 0; i < machine->hart_count; i++) {
        hart_reset(machine->harts[i]);
        machine->harts[i]->time_offset = now_ticks;
        if (machine->config.firmware_fd < 0)
            hart_set_supervisor_only(machine->harts[i]);
    }
}

// With firmware all harts start, in the boot ROM; else one does, in the kernel.
static void start_harts(struct machine *machine)
{
    const struct boot_layout *layout = &machine->layout;

    if (machine->config.firmware_fd < 0) {
        hart_start(machine->harts[0], layout->kernel_entry_gpa, 0, layout->device_tree.start_gpa);
        return;
    }
    for (unsigned i = 0; i < machine->hart_count; i++)
        hart_start(machine->harts[i], BOOT_ROM_GPA, 0, 0);
}

static int write_device_tree(struct machine *machine, struct error *err)
{
    int rc = device_tree_build(machine, machine->device_tree, err);

    if (rc < 0)
        return rc;
    rc = memory_write(machine->memory, machine->layout.device_tree.start_gpa, machine->device_tree,
                      fdt_totalsize(machine->device_tree));
    return rc < 0 ? error_set_errno(err, rc, "cannot write the device tree") : 0;
}

int machine_reset(struct machine *machine, struct error *err)
{
    machine_reset_devices(machine);
    memory_clear_ram(machine->memory);  // now that no request is in flight
    machine_reset_harts(machine);
    int rc = boot_load(machine, &machine->layout, err);
    if (rc == 0)
        rc = write_device_tree(machine, err);
    if (rc == 0 && machine->config.firmware_fd >= 0)
        rc = boot_write_rom(machine, err);
    if (rc == 0)
        start_harts(machine);
    return rc;
}

// ---- The rest of the interface ------------------------------------------------------------------

unsigned machine_cpus(const struct machine *machine)
{
    return machine->hart_count;
}

struct hart *machine_hart(struct machine *machine, unsigned id)
{
    return id < machine->hart_count ? machine->harts[id] : NULL;
}

struct memory *machine_memory(struct machine *machine)
{
    return machine->memory;
}

const void *machine_device_tree(const struct machine *machine, size_t *bytes)
{
    *bytes = fdt_totalsize(machine->device_tree);
    return machine->device_tree;
}

// Goes on as long as the device makes room for more. The host is owed word of room only when the
// last round put nothing.
size_t machine_console_input(struct machine *machine, const void *bytes, size_t count)
{
    size_t taken = 0, put;

    do {
        enum console_device active;
        put = console_switch_input(&machine->console, (const char *)bytes + taken, count - taken,
                                   &active);
        taken += put;
        if (put && active == CONSOLE_UART)
            uart_poll_input(&machine->uart);
        else if (put && active == CONSOLE_VIRTIO)
            virtio_console_push(machine);
    } while (put && taken < count);
    return taken;
}

void machine_console_resize(struct machine *machine, unsigned columns, unsigned rows)
{
    if (machine->virtio_console)
        virtio_console_resize(machine->virtio_console, columns, rows);
}

void machine_set_generation(struct machine *machine, const uint8_t id[MACHINE_GENERATION_BYTES])
{
    generation_set(&machine->generation, id);
}

void machine_vsock_connected(struct machine *machine, uint64_t token, int fd)
{
    virtio_vsock_connected(machine->vsock, token, fd);
}

int machine_press_power(struct machine *machine)
{
    if (!machine->power_button || !virtio_device_driver_ok(machine->power_button))
        return -ENODEV;
    virtio_input_press(machine->power_button);
    return 0;
}

void machine_for_each_virtio(struct machine *machine,
                             void (*fn)(void *opaque, const char *kind, unsigned slot,
                                        bool driver_ok),
                             void *opaque)
{
    for (unsigned i = 0; i < machine->virtio_count; i++)
        fn(opaque, virtio_device_kind(machine->virtio[i]), i,
           virtio_device_driver_ok(machine->virtio[i]));
}
