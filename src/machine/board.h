// SPDX-License-Identifier: BSD-2-Clause
// The machine's inside, for the files of this room and its tests.
#ifndef STRAKE_MACHINE_BOARD_H
#define STRAKE_MACHINE_BOARD_H

#include "machine/devices.h"

// ---- Console: what the host types goes to the device that the guest wrote to last ---------------

enum console_device { CONSOLE_UART, CONSOLE_SBI, CONSOLE_VIRTIO };

#define CONSOLE_INPUT_BYTES 4096u

// The UART and the debug console fetch their input on hart threads; to a virtio console it is
// pushed, on the loop's thread.
struct console_switch {
    pthread_mutex_t lock;  // of the fields below; taken after a device's own lock
    struct ring input;     // from the host, not yet taken by a device
    enum console_device active;
    atomic_bool room_owed;  // the host was refused bytes and is to hear of room
    const struct machine_host *host;
};

BASE_NODISCARD int console_switch_init(struct console_switch *console,
                                       const struct machine_host *host);
void console_switch_fini(struct console_switch *console);
void console_switch_output(struct console_switch *console, enum console_device from,
                           const void *bytes, size_t count);
// Puts what fits; returns the bytes taken and, in *active, the device to offer them to.
size_t console_switch_input(struct console_switch *console, const void *bytes, size_t count,
                            enum console_device *active);
// Input for `to`, at most `max` bytes: none unless it is the active one.
size_t console_switch_take(struct console_switch *console, enum console_device to, void *bytes,
                           size_t max);
// As take, for a device that has no room of its own: `offer` returns how much of a run it took. It
// is called with the lock held.
void console_switch_push(struct console_switch *console, enum console_device to,
                         size_t (*offer)(void *opaque, const void *bytes, size_t count),
                         void *opaque);
// Tells the host of room if that is owed. With no lock held.
void console_switch_tell_room(struct console_switch *console);
void console_switch_save(struct console_switch *console, struct state_writer *writer);
BASE_NODISCARD int console_switch_load(struct console_switch *console, bool has_virtio_console,
                                       struct state_reader *reader, struct error *err);

// ---- Boot images --------------------------------------------------------------------------------

#define BOOT_ROM_GPA 0x1000u  // with firmware only: where harts start
#define BOOT_ROM_BYTES 0x1000u

// Where things are in RAM; an end of 0 means that there is no such thing.
struct boot_range {
    uint64_t start_gpa, end_gpa;
};

struct boot_layout {
    struct boot_range firmware, kernel, initrd, device_tree;
    uint64_t firmware_entry_gpa, kernel_entry_gpa;
};

// Loads what the configuration names and decides where initrd and device tree go; the tree, whose
// size has a bound, is written later. Fails with the file named.
BASE_NODISCARD int boot_load(const struct machine *machine, struct boot_layout *layout,
                             struct error *err);
// Writes the reset vector that starts the firmware as `qemu -M virt` does.
BASE_NODISCARD int boot_write_rom(struct machine *machine, struct error *err);

// ---- Device tree --------------------------------------------------------------------------------

#define DEVICE_TREE_MAX_BYTES 0x10000u

// Builds the tree for the loaded layout into a buffer of DEVICE_TREE_MAX_BYTES.
struct device_tree;
BASE_NODISCARD int device_tree_build(const struct machine *machine, void *buffer,
                                     struct error *err);
// The properties of each kind of device beside reg and interrupts, for the board's table.
void device_tree_plic(struct device_tree *tree, const struct machine *machine);
void device_tree_aclint(struct device_tree *tree, const struct machine *machine);
void device_tree_uart(struct device_tree *tree, const struct machine *machine);
void device_tree_rtc(struct device_tree *tree, const struct machine *machine);
void device_tree_generation(struct device_tree *tree, const struct machine *machine);
void device_tree_power(struct device_tree *tree, const struct machine *machine);

// ---- SBI ----------------------------------------------------------------------------------------

// Serves an ecall from S-mode; `opaque` is the machine. See struct hart_host.
void sbi_call(void *opaque, struct hart *hart);
// Serves an ecall of machine_config.guest's extension, from whichever mode and over whichever
// firmware. See struct hart_host.
bool sbi_guest_call(void *opaque, struct hart *hart);
// "a.b.c" as SBI implementation version: a << 16 | b << 8 | c; what is missing is 0.
uint64_t sbi_version_pack(const char *version);

// ---- The machine --------------------------------------------------------------------------------

enum {
    BOARD_IRQ_VIRTIO = 1,  // slot n: 1 + n
    BOARD_IRQ_UART = 10,
    BOARD_IRQ_RTC = 11,
    BOARD_IRQ_GENERATION = 12,
};

// A device of the board. The table drives memory map, power-on and device tree.
struct board_entry {
    const char *name;  // of the node, without the address
    uint64_t gpa, length_bytes;
    size_t offset;  // of the device in struct machine
    uint8_t width_min, width_max;
    uint8_t irq;  // PLIC source, 0: none
    const struct memory_device_ops *ops;
    void (*reset)(void *device);  // NULL: nothing to do
    // Save, while the machine is paused, and load into a device as after reset. NULL: no state.
    void (*save)(void *device, struct state_writer *writer);
    int (*load)(void *device, struct state_reader *reader, struct error *err);
    // Adds the node's properties beside reg and interrupts.
    void (*describe)(struct device_tree *tree, const struct machine *machine);
};

extern const struct board_entry board_entries[];
extern const size_t board_entry_count;

struct machine {
    struct machine_config config;  // strings are copies; disks, nets and vsock are not kept
    struct machine_host host;
    struct loop *loop;
    struct memory *memory;
    struct hart *harts[HART_MAX];
    unsigned hart_count;

    struct plic plic;
    struct aclint aclint;
    struct uart uart;
    struct rtc rtc;
    struct generation generation;
    struct power power;
    struct console_switch console;
    struct virtio_device *virtio[MACHINE_VIRTIO_SLOTS];
    unsigned virtio_count;
    struct virtio_device *virtio_console;  // one of the above, or NULL
    struct virtio_device *vsock;           // likewise
    struct virtio_device *power_button;    // as well

    // Harts in an SBI suspend, a bit each.
    atomic_uint_fast32_t suspended;

    uint64_t stopped_ns;  // on the host's clock, when devices were last paused or frozen

    struct boot_layout layout;
    uint8_t *device_tree;
};

// Power-on state of every device; no images. While no hart runs.
void machine_reset_devices(struct machine *machine);
// Power-on state of every hart, parked.
void machine_reset_harts(struct machine *machine);

#endif
