// SPDX-License-Identifier: BSD-2-Clause
// The flattened device tree, written front to back so that nodes keep the order of the board's
// table. Sources: Devicetree Specification 0.4, and the Linux bindings riscv/cpus,
// riscv/extensions, interrupt-controller/sifive,plic, timer/sifive,clint, serial/8250,
// rtc/google,goldfish-rtc, rng/microsoft,vmgenid,
// power/reset/syscon-poweroff and -reboot, virtio/mmio.
#include <errno.h>
#include <libfdt.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "machine/board.h"

// libfdt's answers are sticky: after the first failure nothing more is written, and build tells.
struct device_tree {
    void *fdt;
    int status;
};

enum {
    PHANDLE_PLIC = 1,
    PHANDLE_POWER = 2,
    PHANDLE_CPU = 0x100,   // + hart
    PHANDLE_INTC = 0x200,  // + hart
};

// Interrupt numbers of a hart's local controller: the bit numbers of mip.
enum { INTC_M_SOFTWARE = 3, INTC_M_TIMER = 7, INTC_S_EXTERNAL = 9, INTC_M_EXTERNAL = 11 };

// ---- Writing ------------------------------------------------------------------------------------

static void begin(struct device_tree *tree, const char *fmt, ...) BASE_PRINTF(2, 3);
static void begin(struct device_tree *tree, const char *fmt, ...)
{
    char name[64];
    va_list args;

    va_start(args, fmt);
    vsnprintf(name, sizeof(name), fmt, args);
    va_end(args);
    if (!tree->status)
        tree->status = fdt_begin_node(tree->fdt, name);
}

static void end(struct device_tree *tree)
{
    if (!tree->status)
        tree->status = fdt_end_node(tree->fdt);
}

static void put_bytes(struct device_tree *tree, const char *name, const void *bytes, size_t count)
{
    if (!tree->status)
        tree->status = fdt_property(tree->fdt, name, bytes, (int)count);
}

static void put_empty(struct device_tree *tree, const char *name)
{
    put_bytes(tree, name, NULL, 0);
}

static void put_string(struct device_tree *tree, const char *name, const char *text)
{
    put_bytes(tree, name, text, strlen(text) + 1);
}

static void put_cells(struct device_tree *tree, const char *name, const uint32_t *cells,
                      size_t count)
{
    void *space = NULL;

    if (!tree->status)
        tree->status =
            fdt_property_placeholder(tree->fdt, name, (int)(count * sizeof(*cells)), &space);
    for (size_t i = 0; i < count && !tree->status; i++)
        fdt32_st((uint8_t *)space + i * sizeof(*cells), cells[i]);
}

#define PUT_CELLS(tree, name, ...)                                                                 \
    put_cells(tree, name, (const uint32_t[]){__VA_ARGS__},                                         \
              sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

// A string literal with NULs inside is a list of strings.
#define PUT_STRINGS(tree, name, list) put_bytes(tree, name, list, sizeof(list))

static void put_u64(struct device_tree *tree, const char *name, uint64_t value)
{
    PUT_CELLS(tree, name, value >> 32, (uint32_t)value);
}

static void put_reg(struct device_tree *tree, uint64_t gpa, uint64_t length_bytes)
{
    PUT_CELLS(tree, "reg", gpa >> 32, (uint32_t)gpa, length_bytes >> 32, (uint32_t)length_bytes);
}

// Two interrupts of each hart's local controller.
static void put_hart_interrupts(struct device_tree *tree, const struct machine *machine,
                                uint32_t first, uint32_t second)
{
    uint32_t cells[HART_MAX * 4], *cell = cells;

    for (unsigned i = 0; i < machine->hart_count; i++) {
        *cell++ = PHANDLE_INTC + i;
        *cell++ = first;
        *cell++ = PHANDLE_INTC + i;
        *cell++ = second;
    }
    put_cells(tree, "interrupts-extended", cells, (size_t)(cell - cells));
}

// ---- Devices ------------------------------------------------------------------------------------

void device_tree_plic(struct device_tree *tree, const struct machine *machine)
{
    PUT_STRINGS(tree, "compatible", "sifive,plic-1.0.0\0riscv,plic0");
    put_empty(tree, "interrupt-controller");
    PUT_CELLS(tree, "#interrupt-cells", 1);
    PUT_CELLS(tree, "#address-cells", 0);
    PUT_CELLS(tree, "riscv,ndev", PLIC_SOURCES);
    put_hart_interrupts(tree, machine, INTC_M_EXTERNAL, INTC_S_EXTERNAL);
    PUT_CELLS(tree, "phandle", PHANDLE_PLIC);
}

void device_tree_aclint(struct device_tree *tree, const struct machine *machine)
{
    PUT_STRINGS(tree, "compatible", "sifive,clint0\0riscv,clint0");
    put_hart_interrupts(tree, machine, INTC_M_SOFTWARE, INTC_M_TIMER);
}

void device_tree_uart(struct device_tree *tree, const struct machine *machine)
{
    (void)machine;
    put_string(tree, "compatible", "ns16550a");
    PUT_CELLS(tree, "clock-frequency", UART_CLOCK_HZ);
}

void device_tree_rtc(struct device_tree *tree, const struct machine *machine)
{
    (void)machine;
    put_string(tree, "compatible", "google,goldfish-rtc");
}

void device_tree_generation(struct device_tree *tree, const struct machine *machine)
{
    (void)machine;
    put_string(tree, "compatible", "microsoft,vmgenid");
}

void device_tree_power(struct device_tree *tree, const struct machine *machine)
{
    (void)machine;
    PUT_STRINGS(tree, "compatible", "sifive,test1\0sifive,test0\0syscon");
    PUT_CELLS(tree, "phandle", PHANDLE_POWER);
}

static void put_place(struct device_tree *tree, uint64_t gpa, uint64_t length_bytes, unsigned irq)
{
    put_reg(tree, gpa, length_bytes);
    if (irq) {
        PUT_CELLS(tree, "interrupt-parent", PHANDLE_PLIC);
        PUT_CELLS(tree, "interrupts", irq);
    }
}

static void put_soc(struct device_tree *tree, const struct machine *machine)
{
    begin(tree, "soc");
    put_string(tree, "compatible", "simple-bus");
    PUT_CELLS(tree, "#address-cells", 2);
    PUT_CELLS(tree, "#size-cells", 2);
    put_empty(tree, "ranges");
    for (size_t i = 0; i < board_entry_count; i++) {
        const struct board_entry *entry = &board_entries[i];
        begin(tree, "%s@%llx", entry->name, (unsigned long long)entry->gpa);
        put_place(tree, entry->gpa, entry->length_bytes, entry->irq);
        entry->describe(tree, machine);
        end(tree);
    }
    for (unsigned slot = 0; slot < machine->virtio_count; slot++) {
        uint64_t gpa = MACHINE_VIRTIO_GPA + (uint64_t)slot * VIRTIO_MMIO_BYTES;
        begin(tree, "virtio_mmio@%llx", (unsigned long long)gpa);
        put_string(tree, "compatible", "virtio,mmio");
        put_place(tree, gpa, VIRTIO_MMIO_BYTES, BOARD_IRQ_VIRTIO + slot);
        end(tree);
    }
    end(tree);
}

static void put_switch(struct device_tree *tree, const char *name, const char *compatible,
                       uint32_t value)
{
    begin(tree, "%s", name);
    put_string(tree, "compatible", compatible);
    PUT_CELLS(tree, "regmap", PHANDLE_POWER);
    PUT_CELLS(tree, "offset", 0);
    PUT_CELLS(tree, "value", value);
    end(tree);
}

// ---- Harts --------------------------------------------------------------------------------------

#define ISA_BASE "rv64i"
#define ISA_SINGLE_LETTERS "imafdc"

// In the canonical order of an ISA string (Unprivileged ISA, chapter "ISA Extension Naming").
static const struct hart_extension {
    const char *name;
    bool firmware_only;  // else for both kinds of boot
} extensions[] = {
    {"zicbom"},
    {"zicbop"},
    {"zicboz"},
    {"zicntr"},
    {"zicsr"},
    {"zifencei"},
    {"zihintpause"},
    {"zawrs"},
    {"zba"},
    {"zbb"},
    {"zbc"},
    {"zbkb"},
    {"zbkc"},
    {"zbkx"},
    {"zbs"},
    {"zkn"},
    {"zknd"},
    {"zkne"},
    {"zknh"},
    {"sstc"},
    // Both: page faults until firmware is asked for updates by the hart. Svadu alone: it updates.
    {"svade", .firmware_only = true},
    {"svadu"},
    {"svinval"},
    {"svnapot"},
    {"svpbmt"},
};

static bool has_extension(const struct machine *machine, const struct hart_extension *extension)
{
    return !extension->firmware_only || machine->config.firmware_fd >= 0;
}

// The same facts twice: as one string, and as the list that replaces it.
static void put_isa(struct device_tree *tree, const struct machine *machine)
{
    char text[256], *text_end = stpcpy(text, "rv64" ISA_SINGLE_LETTERS);
    char list[256], *list_end = list;

    for (const char *letter = ISA_SINGLE_LETTERS; *letter; letter++) {
        *list_end++ = *letter;
        *list_end++ = '\0';
    }
    for (size_t i = 0; i < BASE_COUNT_OF(extensions); i++) {
        if (!has_extension(machine, &extensions[i]))
            continue;
        text_end = stpcpy(stpcpy(text_end, "_"), extensions[i].name);
        list_end = stpcpy(list_end, extensions[i].name) + 1;
    }
    put_string(tree, "riscv,isa", text);
    put_string(tree, "riscv,isa-base", ISA_BASE);
    put_bytes(tree, "riscv,isa-extensions", list, (size_t)(list_end - list));
}

static void put_cpu(struct device_tree *tree, const struct machine *machine, unsigned id)
{
    static const char *const mmu_types[] = {"riscv,sv39", "riscv,sv48", "riscv,sv57"};

    begin(tree, "cpu@%x", id);
    put_string(tree, "device_type", "cpu");
    PUT_CELLS(tree, "reg", id);
    put_string(tree, "status", "okay");
    put_string(tree, "compatible", "riscv");
    put_isa(tree, machine);
    put_string(tree, "mmu-type", mmu_types[machine->config.mmu_levels - 3]);
    PUT_CELLS(tree, "riscv,cbom-block-size", HART_CACHE_BLOCK_BYTES);
    PUT_CELLS(tree, "riscv,cbop-block-size", HART_CACHE_BLOCK_BYTES);
    PUT_CELLS(tree, "riscv,cboz-block-size", HART_CACHE_BLOCK_BYTES);
    PUT_CELLS(tree, "phandle", PHANDLE_CPU + id);
    begin(tree, "interrupt-controller");
    put_string(tree, "compatible", "riscv,cpu-intc");
    put_empty(tree, "interrupt-controller");
    PUT_CELLS(tree, "#interrupt-cells", 1);
    PUT_CELLS(tree, "#address-cells", 0);
    PUT_CELLS(tree, "phandle", PHANDLE_INTC + id);
    end(tree);
    end(tree);
}

static void put_cpus(struct device_tree *tree, const struct machine *machine)
{
    begin(tree, "cpus");
    PUT_CELLS(tree, "#address-cells", 1);
    PUT_CELLS(tree, "#size-cells", 0);
    PUT_CELLS(tree, "timebase-frequency", HART_TIME_HZ);
    for (unsigned i = 0; i < machine->hart_count; i++)
        put_cpu(tree, machine, i);
    begin(tree, "cpu-map");
    begin(tree, "cluster0");
    for (unsigned i = 0; i < machine->hart_count; i++) {
        begin(tree, "core%u", i);
        PUT_CELLS(tree, "cpu", PHANDLE_CPU + i);
        end(tree);
    }
    end(tree);
    end(tree);
    end(tree);
}

// ---- The tree -----------------------------------------------------------------------------------

static void put_chosen(struct device_tree *tree, const struct machine *machine)
{
    const struct boot_range *initrd = &machine->layout.initrd;
    uint8_t seed[32];

    begin(tree, "chosen");
    if (machine->config.append)
        put_string(tree, "bootargs", machine->config.append);
    PUT_STRINGS(tree, "stdout-path", "serial0");
    if (initrd->end_gpa) {
        put_u64(tree, "linux,initrd-start", initrd->start_gpa);
        put_u64(tree, "linux,initrd-end", initrd->end_gpa);
    }
    if (getrandom(seed, sizeof(seed), 0) == sizeof(seed))
        put_bytes(tree, "rng-seed", seed, sizeof(seed));
    end(tree);
    begin(tree, "aliases");
    PUT_STRINGS(tree, "serial0", "/soc/serial@10000000");
    end(tree);
}

int device_tree_build(const struct machine *machine, void *buffer, struct error *err)
{
    struct device_tree tree = {.fdt = buffer};

    tree.status = fdt_create(buffer, DEVICE_TREE_MAX_BYTES);
    if (!tree.status)
        tree.status = fdt_finish_reservemap(buffer);
    begin(&tree, "%s", "");
    PUT_CELLS(&tree, "#address-cells", 2);
    PUT_CELLS(&tree, "#size-cells", 2);
    put_string(&tree, "compatible", "riscv-virtio");
    put_string(&tree, "model", "strake,virt");
    put_string(&tree, "strake,version", machine->config.version);
    put_chosen(&tree, machine);
    begin(&tree, "memory@%llx", (unsigned long long)MACHINE_RAM_GPA);
    put_string(&tree, "device_type", "memory");
    put_reg(&tree, MACHINE_RAM_GPA, machine->config.memory_bytes);
    end(&tree);
    put_cpus(&tree, machine);
    put_soc(&tree, machine);
    put_switch(&tree, "poweroff", "syscon-poweroff", POWER_OFF);
    put_switch(&tree, "reboot", "syscon-reboot", POWER_RESET);
    end(&tree);
    if (!tree.status)
        tree.status = fdt_finish(buffer);
    if (tree.status == -FDT_ERR_NOSPACE)
        return error_set(err, -E2BIG, "the kernel command line (%zu bytes) is too long",
                         machine->config.append ? strlen(machine->config.append) : 0);
    if (tree.status)
        return error_set(err, -EINVAL, "cannot build the device tree: %s",
                         fdt_strerror(tree.status));
    return 0;
}
