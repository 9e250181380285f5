// SPDX-License-Identifier: BSD-2-Clause
// The guest-physical address space: one sorted array of regions, RAM and devices alike, searched by
// bisection. A partition has one or two RAM regions and about twenty devices, and harts reach RAM
// through their TLBs, so nothing cleverer earns its keep.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "memory/internal.h"

// A region is a device when `device.ops` is set, else RAM.
struct memory_region {
    uint64_t gpa, length_bytes;
    struct memory_ram *ram;  // allocated, so that pointers handed out survive insertions
    struct memory_device device;
};

struct memory {
    struct memory_region *regions;  // by gpa, not overlapping
    size_t count;
};

int memory_create(struct memory **out, struct error *err)
{
    *out = calloc(1, sizeof(**out));
    return *out ? 0 : error_set_errno(err, -ENOMEM, "cannot create an address space");
}

static void ram_destroy(struct memory_ram *ram)
{
    if (!ram)
        return;
    memory_share_destroy(ram->share);
    munmap(ram->hva, ram->length_bytes);
    close(ram->fd);
    free(ram);
}

void memory_destroy(struct memory *memory)
{
    if (!memory)
        return;
    for (size_t i = 0; i < memory->count; i++)
        ram_destroy(memory->regions[i].ram);
    free(memory->regions);
    free(memory);
}

// The index of the first region that ends above `gpa` (memory->count when there is none).
static size_t region_search(const struct memory *memory, uint64_t gpa)
{
    size_t low = 0, high = memory->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        const struct memory_region *region = &memory->regions[middle];
        if (gpa >= region->gpa && gpa - region->gpa >= region->length_bytes)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static const struct memory_region *region_find(const struct memory *memory, uint64_t gpa)
{
    size_t i = region_search(memory, gpa);
    return i < memory->count && gpa >= memory->regions[i].gpa ? &memory->regions[i] : NULL;
}

static const char *region_name(const struct memory_region *region)
{
    return region->ram ? "RAM" : region->device.name;
}

static int region_insert(struct memory *memory, const struct memory_region *region,
                         struct error *err)
{
    const char *name = region_name(region);
    unsigned long long gpa = region->gpa, length = region->length_bytes;
    if (length == 0 || length - 1 > UINT64_MAX - gpa)
        return error_set(err, -EINVAL, "cannot map %s of 0x%llx bytes at 0x%llx: bad range", name,
                         length, gpa);
    size_t i = region_search(memory, gpa);
    if (i < memory->count && memory->regions[i].gpa <= gpa + (length - 1))
        return error_set(err, -EEXIST, "cannot map %s at 0x%llx: it overlaps %s at 0x%llx", name,
                         gpa, region_name(&memory->regions[i]),
                         (unsigned long long)memory->regions[i].gpa);
    struct memory_region *grown =
        reallocarray(memory->regions, memory->count + 1, sizeof(*memory->regions));
    if (!grown)
        return error_set_errno(err, -ENOMEM, "cannot map %s", name);
    memory->regions = grown;
    memmove(&grown[i + 1], &grown[i], (memory->count - i) * sizeof(*grown));
    grown[i] = *region;
    memory->count++;
    return 0;
}

// ---- RAM ----------------------------------------------------------------------------------------

static int ram_open(uint64_t length_bytes)
{
    int fd = memfd_create("strake-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    if (ftruncate(fd, (off_t)length_bytes) < 0) {
        int rc = -errno;
        close(fd);
        return rc;
    }
    return fd;
}

static int ram_map(struct memory_ram *ram)
{
    ram->hva = mmap(NULL, ram->length_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                    ram->fd, 0);
    if (ram->hva == MAP_FAILED)
        return -errno;
    // Fewer host TLB misses where the host gives huge pages to shared memory; no loss where not.
    (void)madvise(ram->hva, ram->length_bytes, MADV_HUGEPAGE);
    return 0;
}

static int add_ram(struct memory *memory, uint64_t gpa, uint64_t length_bytes, int fd,
                   const struct memory_base *base, struct error *err)
{
    if (gpa % MEMORY_PAGE_BYTES || length_bytes % MEMORY_PAGE_BYTES || length_bytes > INT64_MAX)
        return error_set(err, -EINVAL, "cannot map RAM of 0x%llx bytes at 0x%llx: not whole pages",
                         (unsigned long long)length_bytes, (unsigned long long)gpa);
    struct memory_ram *ram = calloc(1, sizeof(*ram));
    if (!ram)
        return error_set_errno(err, -ENOMEM, "cannot map RAM");
    *ram = (struct memory_ram){.gpa = gpa, .length_bytes = length_bytes};
    ram->fd = fd >= 0 ? fd : ram_open(length_bytes);
    int rc = ram->fd < 0 ? ram->fd : ram_map(ram);
    if (rc < 0)
        ram->hva = NULL;
    else if (base)
        rc = memory_share_create(&ram->share, ram, base);
    if (rc < 0) {
        error_set_errno(err, rc, "cannot map %llu MiB of RAM",
                        (unsigned long long)length_bytes >> 20);
        goto fail;
    }
    struct memory_region region = {.gpa = gpa, .length_bytes = length_bytes, .ram = ram};
    rc = region_insert(memory, &region, err);
    if (rc < 0)
        goto fail;
    return 0;  // NOLINT(clang-analyzer-unix.Malloc): the map holds `ram` now

fail:
    memory_share_abandon(ram->share);
    if (ram->hva)
        munmap(ram->hva, length_bytes);
    if (fd < 0 && ram->fd >= 0)
        close(ram->fd);
    free(ram);
    return rc;
}

int memory_add_ram(struct memory *memory, uint64_t gpa, uint64_t length_bytes, int fd,
                   struct error *err)
{
    return add_ram(memory, gpa, length_bytes, fd, NULL, err);
}

int memory_add_ram_shared(struct memory *memory, uint64_t gpa, uint64_t length_bytes, int fd,
                          const struct memory_base *base, struct error *err)
{
    return add_ram(memory, gpa, length_bytes, fd, base, err);
}

const struct memory_ram *memory_find_ram(const struct memory *memory, uint64_t gpa)
{
    const struct memory_region *region = region_find(memory, gpa);
    return region ? region->ram : NULL;
}

const struct memory_ram *memory_next_ram(const struct memory *memory, uint64_t gpa)
{
    for (size_t i = region_search(memory, gpa); i < memory->count; i++)
        if (memory->regions[i].ram)
            return memory->regions[i].ram;
    return NULL;
}

void *memory_ram_hva(const struct memory *memory, uint64_t gpa, uint64_t length_bytes)
{
    const struct memory_ram *ram = memory_find_ram(memory, gpa);
    if (!ram || length_bytes == 0 || length_bytes > ram->length_bytes - (gpa - ram->gpa))
        return NULL;
    return ram->hva + (gpa - ram->gpa);
}

int memory_read(const struct memory *memory, uint64_t gpa, void *bytes, uint64_t length_bytes)
{
    const void *from = memory_ram_hva(memory, gpa, length_bytes);
    if (!from)
        return length_bytes ? -EFAULT : 0;
    memcpy(bytes, from, length_bytes);
    return 0;
}

int memory_write(struct memory *memory, uint64_t gpa, const void *bytes, uint64_t length_bytes)
{
    void *to = memory_ram_hva(memory, gpa, length_bytes);
    if (!to)
        return length_bytes ? -EFAULT : 0;
    memcpy(to, bytes, length_bytes);
    return 0;
}

// Reading brings in page-table entries that can be written through as well, since nobody keeps
// track of writes to a memfd; writing would give room to what is a hole.
void memory_populate_mapping(uint8_t *hva, uint64_t length_bytes, int fd, uint64_t fd_offset,
                             bool (*go_on)(void *opaque), void *opaque)
{
    const uint64_t step_bytes = 1u << 20;
    const uint64_t pace_ns = 250000;
    uint64_t at = fd_offset, end = fd_offset + length_bytes, asked_ns = clock_monotonic_ns();

    while (at < end) {
        off_t data = lseek(fd, (off_t)at, SEEK_DATA);
        off_t hole = data < 0 ? -1 : lseek(fd, data, SEEK_HOLE);
        if (hole < 0 || (uint64_t)data >= end)
            return;
        uint64_t data_end = (uint64_t)hole < end ? (uint64_t)hole : end;
        for (at = (uint64_t)data; at < data_end; at += step_bytes) {
            uint64_t bytes = data_end - at < step_bytes ? data_end - at : step_bytes;
            if (madvise(hva + (at - fd_offset), bytes, MADV_POPULATE_READ) < 0)
                return;
            if (clock_monotonic_ns() - asked_ns < pace_ns)
                continue;
            if (!go_on(opaque))
                return;
            asked_ns = clock_monotonic_ns();
        }
        at = data_end;
    }
}

void memory_populate(const struct memory *memory, bool (*go_on)(void *opaque), void *opaque)
{
    for (size_t i = 0; i < memory->count; i++) {
        const struct memory_ram *ram = memory->regions[i].ram;
        if (ram)
            memory_populate_mapping(ram->hva, ram->length_bytes, ram->fd, 0, go_on, opaque);
    }
}

void memory_own(struct memory *memory, uint64_t gpa, uint64_t length_bytes)
{
    const struct memory_ram *ram = memory_find_ram(memory, gpa);
    if (ram && ram->share && length_bytes)
        memory_share_end(ram->share, gpa - ram->gpa, length_bytes);
}

void memory_own_run(struct memory *memory, uint64_t gpa, uint64_t *start, uint64_t *end)
{
    const struct memory_ram *ram = memory_find_ram(memory, gpa);
    if (!ram || !ram->share)
        return;
    *start -= ram->gpa;
    *end -= ram->gpa;
    memory_share_run(ram->share, gpa - ram->gpa, start, end);
    *start += ram->gpa;
    *end += ram->gpa;
}

void memory_settle(struct memory *memory)
{
    for (size_t i = 0; i < memory->count; i++)
        if (memory->regions[i].ram && memory->regions[i].ram->share)
            memory_share_settle(memory->regions[i].ram->share);
}

int memory_copy_out(const struct memory_ram *ram, uint64_t offset, void *bytes,
                    uint64_t length_bytes)
{
    for (uint64_t done = 0, count; done < length_bytes; done += count) {
        count = length_bytes - done;
        int fd = ram->share ? memory_share_file(ram->share, offset + done, &count) : ram->fd;
        int64_t got = fd_pread_full(fd, (uint8_t *)bytes + done, count, offset + done);
        if (got < (int64_t)count)
            return got < 0 ? (int)got : -EIO;
    }
    return 0;
}

void memory_clear_ram(struct memory *memory)
{
    for (size_t i = 0; i < memory->count; i++) {
        const struct memory_ram *ram = memory->regions[i].ram;
        if (ram && ram->share)
            memory_share_drop(ram->share);
        // A memfd always takes the hole, unless it was handed in sealed; then clear by hand.
        if (ram && fallocate(ram->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                             (off_t)ram->length_bytes) < 0)
            memset(ram->hva, 0, ram->length_bytes);
    }
}

// ---- Device registers ---------------------------------------------------------------------------

int memory_add_device(struct memory *memory, const struct memory_device *device, struct error *err)
{
    struct memory_region region = {
        .gpa = device->gpa, .length_bytes = device->length_bytes, .device = *device};
    return region_insert(memory, &region, err);
}

void memory_remove_device(struct memory *memory, uint64_t gpa)
{
    size_t i = region_search(memory, gpa);
    if (i >= memory->count || memory->regions[i].gpa != gpa || memory->regions[i].ram)
        return;
    memory->count--;
    memmove(&memory->regions[i], &memory->regions[i + 1],
            (memory->count - i) * sizeof(*memory->regions));
}

// The device that takes this access, or NULL; `offset` is set with it.
static const struct memory_device *device_find(const struct memory *memory, uint64_t gpa,
                                               unsigned width_bytes, uint64_t *offset)
{
    const struct memory_region *region = region_find(memory, gpa);
    if (!region || region->ram)
        return NULL;
    const struct memory_device *device = &region->device;
    *offset = gpa - region->gpa;
    if (width_bytes < device->width_min || width_bytes > device->width_max ||
        *offset % width_bytes || width_bytes > region->length_bytes - *offset)
        return NULL;
    return device;
}

int memory_device_read(const struct memory *memory, uint64_t gpa, unsigned width_bytes,
                       uint64_t *value)
{
    uint64_t offset;
    const struct memory_device *device = device_find(memory, gpa, width_bytes, &offset);
    if (!device)
        return -EFAULT;
    *value = device->ops->read(device->device, offset, width_bytes) &
             (UINT64_MAX >> (64 - 8 * width_bytes));
    return 0;
}

int memory_device_write(const struct memory *memory, uint64_t gpa, unsigned width_bytes,
                        uint64_t value)
{
    uint64_t offset;
    const struct memory_device *device = device_find(memory, gpa, width_bytes, &offset);
    if (!device)
        return -EFAULT;
    value &= UINT64_MAX >> (64 - 8 * width_bytes);
    device->ops->write(device->device, offset, width_bytes, value);
    return 0;
}
