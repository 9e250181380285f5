// SPDX-License-Identifier: BSD-2-Clause
// memory: a partition's guest-physical address space: RAM in memfds, and device registers.
//
// Threads: regions are added and removed only while no hart runs. All other calls are safe from any
// thread; RAM is shared with running harts, so whatever is read from it is untrusted and may change
// between two reads (copy once, then look).
#ifndef STRAKE_MEMORY_H
#define STRAKE_MEMORY_H

#include "base/base.h"

#define MEMORY_PAGE_BYTES 4096u

struct memory;

BASE_NODISCARD int memory_create(struct memory **out, struct error *err);
void memory_destroy(struct memory *memory);  // NULL is ignored

// ---- RAM ----------------------------------------------------------------------------------------

// One RAM region. `hva` is the host address of its first byte, mapped MAP_SHARED from `fd`, but for
// what is still shared with other partitions.
struct memory_ram {
    uint64_t gpa;
    uint64_t length_bytes;
    uint8_t *hva;
    int fd;
    struct memory_share *share;  // the room's own; NULL: nothing is shared
};

// Adds RAM of `length_bytes` (a multiple of the page size) at `gpa` (page-aligned). `fd` is a memfd
// of that size whose ownership passes to `memory` on success, or -1 to have one made. Nothing is
// touched: the host gives a page when the guest first uses it. Transparent huge pages are asked
// for. Returns 0, -EINVAL (alignment, wrap-around), -EEXIST (overlap), -ENOMEM, or what memfd/mmap
// say.
BASE_NODISCARD int memory_add_ram(struct memory *memory, uint64_t gpa, uint64_t length_bytes,
                                  int fd, struct error *err);

// The RAM region that holds `gpa`, or NULL. The pointer stays valid as long as `memory`.
const struct memory_ram *memory_find_ram(const struct memory *memory, uint64_t gpa);

// The one checked accessor for guest-chosen addresses: the host address of [gpa, gpa+length_bytes)
// when all of it lies in one RAM region, else NULL. A zero length gives NULL.
void *memory_ram_hva(const struct memory *memory, uint64_t gpa, uint64_t length_bytes);

// What RAM starts from when it is not empty: a file of the RAM's length that is only read and never
// changes (a snapshot's RAM), shared with other partitions; and a memfd of
// memory_base_map_bytes(length) bytes, zero at first, that says what is not shared any more. A
// monitor that takes a partition over is given both, and the RAM's own memfd. -EINVAL: a file's
// length is wrong.
struct memory_base {
    int fd;
    int map_fd;
};
// As memory_add_ram; the descriptors of `base` pass with `fd`, on success. A store by the
// guest or by this process makes own what it touches, behind everybody's back, through SIGSEGV,
// which threads that touch guest RAM must not block. A system call that stores there fails with
// EFAULT instead: see memory_own.
BASE_NODISCARD int memory_add_ram_shared(struct memory *memory, uint64_t gpa, uint64_t length_bytes,
                                         int fd, const struct memory_base *base, struct error *err);
uint64_t memory_base_map_bytes(uint64_t length_bytes);

// Before [gpa, gpa+length_bytes), which memory_ram_hva has found, is given to a system call that
// stores there. Any thread.
void memory_own(struct memory *memory, uint64_t gpa, uint64_t length_bytes);
// Cuts [*start, *end), around gpa, down to where the RAM's own memfd holds what the guest sees, so
// that it can be mapped from there; the surroundings of gpa are made so. Any thread.
void memory_own_run(struct memory *memory, uint64_t gpa, uint64_t *start, uint64_t *end);
// In a monitor that takes a partition over: takes in what the other has made own. The last time
// when the other has stopped.
void memory_settle(struct memory *memory);

// Copies from and to RAM; all or nothing. Return 0 or -EFAULT.
BASE_NODISCARD int memory_read(const struct memory *memory, uint64_t gpa, void *bytes,
                               uint64_t length_bytes);
BASE_NODISCARD int memory_write(struct memory *memory, uint64_t gpa, const void *bytes,
                                uint64_t length_bytes);

// The first RAM region that ends above `gpa`, or NULL: for going through all of them.
const struct memory_ram *memory_next_ram(const struct memory *memory, uint64_t gpa);

// Fills the host's page tables for RAM that is in use, so that touching it faults no more; nothing
// comes into use by it. For a process that takes over RAM, before it matters. `go_on` is called
// about every 100 us, may sleep, and ends it by returning false.
void memory_populate(const struct memory *memory, bool (*go_on)(void *opaque), void *opaque);
// The same for another mapping of RAM: [hva, hva+length_bytes), which shows `fd` from `fd_offset`.
void memory_populate_mapping(uint8_t *hva, uint64_t length_bytes, int fd, uint64_t fd_offset,
                             bool (*go_on)(void *opaque), void *opaque);

// Copies a part of RAM that lies in it, without giving room to what has never been written (reading
// a memfd's hole through a mapping would). 0 or a negative errno. While nobody stores there.
BASE_NODISCARD int memory_copy_out(const struct memory_ram *ram, uint64_t offset, void *bytes,
                                   uint64_t length_bytes);

// Gives every page of RAM back to the host and makes it zero again, as after power-on.
void memory_clear_ram(struct memory *memory);

// ---- Device registers
// -----------------------------------------------------------------------------

// How a device answers. `offset` is from the start of the device's region, naturally aligned to
// `width_bytes`, and [offset, offset+width) is inside the region: the caller has checked. Called on
// hart threads, several at once: a device locks for itself. A register that does not exist reads as
// zero and ignores writes; nothing a guest writes may fail any louder than that.
struct memory_device_ops {
    uint64_t (*read)(void *device, uint64_t offset, unsigned width_bytes);
    void (*write)(void *device, uint64_t offset, unsigned width_bytes, uint64_t value);
};

struct memory_device {
    const char *name;  // static string, for messages and the memory map listing
    uint64_t gpa;
    uint64_t length_bytes;
    uint8_t width_min, width_max;  // accepted access widths in bytes: 1, 2, 4, 8
    const struct memory_device_ops *ops;
    void *device;
};

// The struct is copied. Returns 0, -EINVAL, -EEXIST (overlap with RAM or another device; the
// message names both), -ENOMEM.
BASE_NODISCARD int memory_add_device(struct memory *memory, const struct memory_device *device,
                                     struct error *err);
void memory_remove_device(struct memory *memory, uint64_t gpa);

// One access to device space by a hart. Returns 0, or -EFAULT when no device is there, the access
// is not naturally aligned or its width is not one the device takes: the hart raises an access
// fault. Of `value` as many bytes count as are read or written, either way: a register holds more,
// and what a device answers beyond them is cut off.
BASE_NODISCARD int memory_device_read(const struct memory *memory, uint64_t gpa,
                                      unsigned width_bytes, uint64_t *value);
BASE_NODISCARD int memory_device_write(const struct memory *memory, uint64_t gpa,
                                       unsigned width_bytes, uint64_t value);

// ---- Interrupt lines
// ------------------------------------------------------------------------------

// A device's level-triggered interrupt output, filled in by whoever wires the device (the machine
// connects it to the PLIC). Any thread.
struct irq_line {
    void (*set)(void *controller, unsigned source, bool level);
    void *controller;
    unsigned source;
};

static inline void irq_line_set(const struct irq_line *line, bool level)
{
    if (line->set)
        line->set(line->controller, line->source, level);
}

#endif
