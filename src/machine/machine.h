// SPDX-License-Identifier: BSD-2-Clause
// machine: the `virt` board: memory map, device tree, interrupt controllers, UART, RTC, power,
// virtio slots, boot images, and the built-in SBI. A machine has no threads of its own: see
// partition/.
//
// Sources: the memory map that guests know as `qemu -M virt`; RISC-V PLIC 1.0.0; RISC-V
// ACLINT 1.0-rc4; National Semiconductor PC16550D; goldfish RTC; SBI 2.0; Devicetree Specification
// 0.4.
#ifndef STRAKE_MACHINE_H
#define STRAKE_MACHINE_H

#include "base/base.h"
#include "hart/hart.h"
#include "memory/memory.h"
#include "state/state.h"
#include "virtio/virtio.h"

#define MACHINE_TEST_GPA 0x00100000u
#define MACHINE_RTC_GPA 0x00101000u
#define MACHINE_GENERATION_GPA 0x00102000u
#define MACHINE_ACLINT_GPA 0x02000000u
#define MACHINE_PLIC_GPA 0x0c000000u
#define MACHINE_UART_GPA 0x10000000u
#define MACHINE_VIRTIO_GPA 0x10001000u
#define MACHINE_VIRTIO_SLOTS 8u
#define MACHINE_RAM_GPA 0x80000000u
#define MACHINE_MEMORY_MIN_BYTES (16ull << 20)
#define MACHINE_MEMORY_MAX_BYTES (64ull << 30)

enum machine_event { MACHINE_POWEROFF, MACHINE_REBOOT, MACHINE_FAIL };

// How a machine talks to what is around it. Called on any thread.
struct machine_host {
    uint64_t (*clock_ns)(void *opaque);       // CLOCK_MONOTONIC
    uint64_t (*wall_clock_ns)(void *opaque);  // CLOCK_REALTIME, for the RTC
    // The guest asked for this; `code` is what it gave with MACHINE_FAIL.
    void (*event)(void *opaque, enum machine_event event, unsigned code);
    // Bytes the guest wrote to its console; takes all.
    void (*console_output)(void *opaque, const void *bytes, size_t count);
    // There is room again after machine_console_input took less than offered.
    void (*console_room)(void *opaque);
    void *opaque;
};

struct machine_disk {
    int fd;
    bool read_only;
    enum virtio_blk_aio aio;
};

// Who answers what a checked program says about its memory: the functions of
// include/strake/guest.h, docs/firmware.md. On the hart's thread, all registers exact, pc at the
// ecall.
struct machine_guest {
    // 0 with *value set, or an error of the SBI (chapter 3).
    int64_t (*call)(void *opaque, struct hart *hart, uint64_t function, const uint64_t arguments[2],
                    uint64_t *value);
    void *opaque;
};

// Everything is copied, descriptors too: the caller closes its own whenever it likes afterwards.
struct machine_config {
    uint64_t memory_bytes;
    int ram_fd;  // of that many bytes, another process's guest RAM to go on with; -1: make one
    const struct memory_base *ram_base;  // what RAM is shared with others; NULL: nothing
    unsigned cpus;
    unsigned mmu_levels;  // 3, 4, 5: Sv39, Sv48, Sv57 and less; 0: 3, which translators like best
    const struct hart_engine *engine;
    const char *version;  // "0.1.0": SBI implementation version, and in the device tree
    int kernel_fd;        // Linux Image or ELF; -1: none (then firmware alone)
    int initrd_fd;        // -1: none
    int firmware_fd;      // -1: built-in SBI
    const char *kernel_name, *initrd_name, *firmware_name;  // for messages
    const char *append;                                     // kernel command line, may be NULL
    const struct machine_disk *disks;
    size_t disk_count;
    const struct virtio_net_config *nets;
    size_t net_count;
    const struct virtio_vsock_config *vsock;  // NULL: none
    bool rng;
    bool virtio_console;
    bool power_button;           // where a virtio slot is left for it
    struct machine_guest guest;  // call NULL: nobody answers, and no program sees the extension
};

struct machine;

// Builds memory, harts and devices; loads nothing yet. Errors as messages in *err:
// -EINVAL (out of range), -ENOSPC (more devices than slots), -ENOMEM, ...
BASE_NODISCARD int machine_create(struct machine **out, const struct machine_config *config,
                                  struct loop *loop, const struct machine_host *host,
                                  struct error *err);
void machine_destroy(struct machine *machine);  // NULL is ignored

// Power-on: clears RAM, resets every device and hart, loads the images, writes the device tree, and
// leaves hart 0 ready to start. While no hart runs. Fails, with the file named, when an image is
// truncated, for another architecture, or does not fit.
BASE_NODISCARD int machine_reset(struct machine *machine, struct error *err);

unsigned machine_cpus(const struct machine *machine);
struct hart *machine_hart(struct machine *machine, unsigned id);
struct memory *machine_memory(struct machine *machine);

// The flattened device tree; valid until the next reset.
const void *machine_device_tree(const struct machine *machine, size_t *bytes);

// Console input from the host, on the loop thread: goes to the console device (UART, virtio console
// or SBI debug console) that the guest wrote to last. Returns the bytes taken.
size_t machine_console_input(struct machine *machine, const void *bytes, size_t count);
void machine_console_resize(struct machine *machine, unsigned columns, unsigned rows);

// Presses the power button, which asks the guest to shut down. Any thread. -ENODEV: there is none,
// or the guest has no driver for it.
BASE_NODISCARD int machine_press_power(struct machine *machine);

// As virtio_vsock_connected, of the machine's one vsock device. On the loop thread.
void machine_vsock_connected(struct machine *machine, uint64_t token, int fd);

// ---- Stopping, saving, loading ------------------------------------------------------------------
//
// On the loop thread or while none runs; and while no hart runs, but for machine_request_ended and
// machine_requests_forsaken.

// Stop and restart device I/O, see virtio_device_pause.
void machine_pause_devices(struct machine *machine);
void machine_resume_devices(struct machine *machine);

// Handover: as the functions of struct virtio_device with these names, for all devices (a request
// is named by its device's slot and its head).
unsigned machine_freeze_devices(struct machine *machine,
                                void (*ended)(void *opaque, unsigned slot, uint16_t head,
                                              uint32_t written_bytes),
                                void *opaque);
void machine_thaw_devices(struct machine *machine);
void machine_set_former(struct machine *machine, bool (*settle)(void *opaque), void *opaque);
void machine_request_ended(struct machine *machine, unsigned slot, uint16_t head,
                           uint32_t written_bytes);
void machine_requests_forsaken(struct machine *machine);
unsigned machine_requests_outstanding(const struct machine *machine);

// Adds all of the machine's state but RAM. While devices are paused or frozen.
void machine_save(struct machine *machine, struct state_writer *writer);
// Instead of machine_reset: takes the state, which RAM is of, into a machine of the same
// configuration. Devices are paused afterwards; saving again gives the same. The guest's time goes
// on as if the machine had never stopped: right for a handover. -EINVAL: refused, section and field
// named in *err; the machine is as after power-on, without images.
BASE_NODISCARD int machine_load(struct machine *machine, struct state_reader *reader,
                                struct error *err);
// After machine_load, for a state that is older: the guest's time goes on where it stopped. The RTC
// shows the host's wall clock either way.
void machine_resume_time(struct machine *machine);
// After machine_load, for a copy of a machine: gives it another VM generation id and has the guest
// told, which then makes its random numbers anew.
#define MACHINE_GENERATION_BYTES 16u
void machine_set_generation(struct machine *machine, const uint8_t id[MACHINE_GENERATION_BYTES]);

// Calls `fn` for each virtio device: its kind, slot, and whether a driver took it.
void machine_for_each_virtio(struct machine *machine,
                             void (*fn)(void *opaque, const char *kind, unsigned slot,
                                        bool driver_ok),
                             void *opaque);

#endif
