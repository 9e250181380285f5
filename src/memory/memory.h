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

// ---- Device registers ---------------------------------------------------------------------------

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

// ---- Interrupt lines ----------------------------------------------------------------------------

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

// ---- Identifiers --------------------------------------------------------------------------------
//
// Checked memory (docs/checked-memory.md; US 7,403,887): a pointer carries the identifier of its
// object in its top 16 bits, and a table holds one entry for each granule of 16 bytes. An access is
// allowed when both are equal. Whoever makes an access compares inline
//
//     pointer >> 48 == entries[(pointer & MEMORY_POINTER_MASK) / 16]
//
// and asks who made the objects when they differ: MEMORY_IDENTIFIER_LOOK equals no pointer's
// identifier, and means that the granule does not belong to one object as a whole. Where an object
// ends within a granule, the entry may be its identifier with MEMORY_IDENTIFIER_PARTIAL, and the
// granule's last byte says how many bytes of it are the object's: an access below that is allowed.
// (The program can write there only by an access that is not checked.)

#define MEMORY_GRANULE_BYTES 16u
#define MEMORY_POINTER_BITS 48u
#define MEMORY_POINTER_BYTES (1ull << MEMORY_POINTER_BITS)
#define MEMORY_POINTER_MASK (MEMORY_POINTER_BYTES - 1)
#define MEMORY_IDENTIFIER_NONE 0u  // memory that is no object, and pointers to it
#define MEMORY_IDENTIFIER_MAX 0x7ffeu
#define MEMORY_IDENTIFIER_PARTIAL 0x8000u
#define MEMORY_IDENTIFIER_LOOK 0xffffu  // of no pointer

// Identifiers of one place are generation counts. Those of even places are odd, those of odd places
// even: neighbours never share one, whatever their generations are, and need no look at each other.
// So many generations has a place before it would have an identifier for the second time:
#define MEMORY_GENERATIONS (MEMORY_IDENTIFIER_MAX / 2)

// That of an even (0) or odd (1) place, `steps` after the first of all.
static inline uint16_t memory_identifier_at(unsigned odd, uint32_t steps)
{
    return (uint16_t)(1 + (odd & 1) + 2 * (steps % MEMORY_GENERATIONS));
}

static inline uint16_t memory_identifier_next(uint16_t identifier)
{
    uint32_t next = identifier + 2u;
    return (uint16_t)(next <= MEMORY_IDENTIFIER_MAX ? next : next - MEMORY_IDENTIFIER_MAX);
}

// Can an object have it?
static inline bool memory_identifier_is_valid(uint16_t identifier)
{
    return identifier != MEMORY_IDENTIFIER_NONE && identifier <= MEMORY_IDENTIFIER_MAX;
}

// How many generations after `from` is `to`, of the same place? UINT32_MAX: it is not of this
// place.
static inline uint32_t memory_identifier_steps(uint16_t from, uint16_t to)
{
    if ((from ^ to) & 1 || !memory_identifier_is_valid(from) || !memory_identifier_is_valid(to))
        return UINT32_MAX;
    return (to + (to < from ? MEMORY_IDENTIFIER_MAX : 0u) - from) / 2;
}

// Whether `entry` is that of a granule that an object with `identifier` ends in.
static inline bool memory_identifier_is_partial(uint16_t entry, uint16_t identifier)
{
    return memory_identifier_is_valid(identifier) &&
           entry == (identifier | MEMORY_IDENTIFIER_PARTIAL);
}

static inline uint16_t memory_pointer_identifier(uint64_t pointer)
{
    return (uint16_t)(pointer >> MEMORY_POINTER_BITS);
}

static inline uint64_t memory_pointer_gva(uint64_t pointer)
{
    return pointer & MEMORY_POINTER_MASK;
}

static inline uint64_t memory_pointer_make(uint64_t gva, uint16_t identifier)
{
    return gva | (uint64_t)identifier << MEMORY_POINTER_BITS;
}

// The entries of [0, bytes). Memory for them comes into use as they are written.
struct memory_identifiers {
    _Atomic uint16_t *entries;
    uint64_t bytes;
    // Room for those of all pointers is reserved, so that looking up one behind `bytes` faults.
    bool reserved;
};

// Where the entries are if nothing else is there: within reach of a 32-bit displacement.
#define MEMORY_IDENTIFIERS_HVA 0x40000000u

// All entries are NONE. 0, -EINVAL: not whole pages, or more than a pointer reaches; -ENOMEM.
BASE_NODISCARD int memory_identifiers_init(struct memory_identifiers *table, uint64_t bytes,
                                           struct error *err);
void memory_identifiers_fini(struct memory_identifiers *table);

static inline uint16_t memory_identifiers_get(const struct memory_identifiers *table, uint64_t gva)
{
    return atomic_load_explicit(&table->entries[gva / MEMORY_GRANULE_BYTES], memory_order_relaxed);
}

// That of one granule. Any thread; the order in which others see it is the caller's business.
static inline void memory_identifiers_put(const struct memory_identifiers *table, uint64_t gva,
                                          uint16_t entry)
{
    atomic_store_explicit(&table->entries[gva / MEMORY_GRANULE_BYTES], entry, memory_order_relaxed);
}

// The object [gva, gva + bytes) has `identifier`; its end is LOOK when it is within a granule.
// Within the table; `gva` is a granule's. Threads as above.
void memory_identifiers_set(const struct memory_identifiers *table, uint64_t gva, uint64_t bytes,
                            uint16_t identifier);
// [gva, gva + bytes), multiples of 64 KiB, is no object, and its entries need no memory any more.
void memory_identifiers_drop(const struct memory_identifiers *table, uint64_t gva, uint64_t bytes);

#endif
