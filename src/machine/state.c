// SPDX-License-Identifier: BSD-2-Clause
// A machine's state: a section that says what kind of machine it is, one a hart, one a device of
// the board that has any, two a virtio device. RAM is not in it.
//
// Not saved: what a stopped machine has none of (the harts in an SBI suspend, which is over once
// the hart was stopped: calls may end early) and what the definition gives (images, disks). The
// ACLINT's registers are in the harts' sections.
//
// Interrupts: harts are loaded first, with their external wires low; then the devices, which drive
// their lines; then the PLIC, which drives the harts by what it has pending. So nothing that was
// pending is lost, whatever came in between.
//
// Time: a hart's time is the host's monotonic clock less an offset. A handover keeps the offset:
// both processes have the same clock, so guest time goes on through it. After a restore
// machine_resume_time moves the offset by what has passed since the state was saved.
#include <errno.h>
#include <libfdt.h>
#include <string.h>

#include "machine/board.h"

#define NS_PER_TICK (1000000000u / HART_TIME_HZ)

// ---- What kind of machine it is -----------------------------------------------------------------

struct slot_image {
    char kind[16];
};

struct machine_image {
    uint64_t memory_bytes;
    uint32_t harts;
    uint8_t mmu_levels;
    bool firmware;
    uint64_t stopped_ns;
    struct state_list virtio;
    struct state_blob device_tree, boot_rom;
};

static const struct state_field slot_fields[] = {
    STATE_ARRAY(struct slot_image, kind, STATE_BYTES, 1, 0),
    {.name = NULL},
};

// A name that can be shown.
static int slot_check(const void *object, const char **field, const char **why)
{
    const struct slot_image *slot = object;
    size_t length = strnlen(slot->kind, sizeof(slot->kind));

    *field = "kind";
    *why = "is no kind of device";
    for (size_t i = 0; i < length; i++)
        if (slot->kind[i] < 'a' || slot->kind[i] > 'z')
            return -EINVAL;
    return length < sizeof(slot->kind) ? 0 : -EINVAL;
}

static const struct state_schema slot_schema = {
    .name = "slot",
    .version = 1,
    .struct_bytes = sizeof(struct slot_image),
    .fields = slot_fields,
    .check = slot_check,
};

static const struct state_field machine_fields[] = {
    STATE_FIELD(struct machine_image, memory_bytes, STATE_U64, 1, MACHINE_MEMORY_MAX_BYTES),
    STATE_FIELD(struct machine_image, harts, STATE_U32, 1, HART_MAX),
    STATE_FIELD(struct machine_image, mmu_levels, STATE_U8, 1, 5),
    STATE_FIELD(struct machine_image, firmware, STATE_BOOL, 1, 0),
    STATE_FIELD(struct machine_image, stopped_ns, STATE_U64, 1, 0),
    STATE_LIST_OF(struct machine_image, virtio, &slot_schema, 1, MACHINE_VIRTIO_SLOTS),
    STATE_FIELD(struct machine_image, device_tree, STATE_BLOB, 1, DEVICE_TREE_MAX_BYTES),
    STATE_FIELD(struct machine_image, boot_rom, STATE_BLOB, 1, BOOT_ROM_BYTES),
    {.name = NULL},
};

static int machine_check(const void *object, const char **field, const char **why)
{
    const struct machine_image *image = object;
    const struct state_blob *tree = &image->device_tree;

    if (tree->length_bytes && fdt_check_full(tree->bytes, tree->length_bytes) != 0) {
        *field = "device_tree";
        *why = "is no device tree";
        return -EINVAL;
    }
    if (image->boot_rom.length_bytes != (image->firmware ? BOOT_ROM_BYTES : 0)) {
        *field = "boot_rom";
        *why = "is not of the boot ROM's length";
        return -EINVAL;
    }
    return 0;
}

static const struct state_schema machine_schema = {
    .name = "machine",
    .version = 1,
    .struct_bytes = sizeof(struct machine_image),
    .fields = machine_fields,
    .check = machine_check,
};

// ---- Saving -------------------------------------------------------------------------------------

static void image_save(const struct machine *machine, struct state_writer *writer)
{
    struct slot_image slots[MACHINE_VIRTIO_SLOTS] = {0};
    struct machine_image image = {
        .memory_bytes = machine->config.memory_bytes,
        .harts = machine->hart_count,
        .mmu_levels = (uint8_t)machine->config.mmu_levels,
        .firmware = machine->config.firmware_fd >= 0,
        .stopped_ns = machine->stopped_ns,
        .virtio = {slots, machine->virtio_count},
        .device_tree = {machine->device_tree, fdt_totalsize(machine->device_tree)},
    };

    for (unsigned i = 0; i < machine->virtio_count; i++)
        strncpy(slots[i].kind, virtio_device_kind(machine->virtio[i]), sizeof(slots[i].kind) - 1);
    if (image.firmware)
        image.boot_rom = (struct state_blob){
            memory_ram_hva(machine->memory, BOOT_ROM_GPA, BOOT_ROM_BYTES), BOOT_ROM_BYTES};
    state_write(writer, &machine_schema, 0, &image);
}

void machine_save(struct machine *machine, struct state_writer *writer)
{
    image_save(machine, writer);
    for (unsigned i = 0; i < machine->hart_count; i++)
        hart_save(machine->harts[i], writer);
    console_switch_save(&machine->console, writer);
    for (size_t i = 0; i < board_entry_count; i++) {
        const struct board_entry *entry = &board_entries[i];
        if (entry->save)
            entry->save((char *)machine + entry->offset, writer);
    }
    for (unsigned i = 0; i < machine->virtio_count; i++)
        virtio_device_save(machine->virtio[i], writer, i);
}

// ---- Loading ------------------------------------------------------------------------------------

static int differs(struct error *err, const char *field, unsigned long long saved,
                   unsigned long long here)
{
    return error_set(err, -EINVAL,
                     "cannot load section \"machine\" 0 of the state: field \"%s\" is %llu, but "
                     "this machine has %llu",
                     field, saved, here);
}

static int slots_check(const struct machine *machine, const struct machine_image *image,
                       struct error *err)
{
    const struct slot_image *slots = image->virtio.elements;

    if (image->virtio.count != machine->virtio_count)
        return differs(err, "virtio", image->virtio.count, machine->virtio_count);
    for (unsigned i = 0; i < machine->virtio_count; i++) {
        const char *kind = virtio_device_kind(machine->virtio[i]);
        if (strcmp(slots[i].kind, kind) != 0)
            return error_set(err, -EINVAL,
                             "cannot load section \"machine\" 0 of the state: field \"virtio\" has "
                             "\"%s\" in slot %u, but this machine has \"%s\"",
                             slots[i].kind, i, kind);
    }
    return 0;
}

static int image_matches(const struct machine *machine, const struct machine_image *image,
                         struct error *err)
{
    const struct machine_config *config = &machine->config;

    if (image->memory_bytes != config->memory_bytes)
        return differs(err, "memory_bytes", image->memory_bytes, config->memory_bytes);
    if (image->harts != machine->hart_count)
        return differs(err, "harts", image->harts, machine->hart_count);
    if (image->mmu_levels != config->mmu_levels)
        return differs(err, "mmu_levels", image->mmu_levels, config->mmu_levels);
    if (image->firmware != (config->firmware_fd >= 0))
        return differs(err, "firmware", image->firmware, config->firmware_fd >= 0);
    return slots_check(machine, image, err);
}

static int image_load(struct machine *machine, struct state_reader *reader, struct error *err)
{
    struct machine_image image = {0};
    int rc = state_read(reader, &machine_schema, 0, &image, err);

    if (rc == 0)
        rc = image_matches(machine, &image, err);
    if (rc < 0)
        return rc;
    machine->stopped_ns = image.stopped_ns;
    memset(machine->device_tree, 0, DEVICE_TREE_MAX_BYTES);
    if (image.device_tree.length_bytes)
        memcpy(machine->device_tree, image.device_tree.bytes, image.device_tree.length_bytes);
    if (image.firmware)
        rc = memory_write(machine->memory, BOOT_ROM_GPA, image.boot_rom.bytes, BOOT_ROM_BYTES);
    return rc < 0 ? error_set_errno(err, rc, "cannot write the boot ROM") : 0;
}

static int load_parts(struct machine *machine, struct state_reader *reader, struct error *err)
{
    int rc = image_load(machine, reader, err);

    for (unsigned i = 0; i < machine->hart_count && rc == 0; i++) {
        machine->harts[i]->supervisor_only = machine->config.firmware_fd < 0;
        rc = hart_restore(machine->harts[i], reader, err);
    }
    if (rc == 0)
        rc = console_switch_load(&machine->console, machine->virtio_console != NULL, reader, err);
    for (unsigned i = 0; i < machine->virtio_count && rc == 0; i++)
        rc = virtio_device_load(machine->virtio[i], reader, i, err);
    // The PLIC, which comes last, takes lines into account that others have driven.
    for (size_t i = 0; i < board_entry_count && rc == 0; i++) {
        const struct board_entry *entry = &board_entries[i];
        if (entry->load)
            rc = entry->load((char *)machine + entry->offset, reader, err);
    }
    return rc;
}

int machine_load(struct machine *machine, struct state_reader *reader, struct error *err)
{
    machine_reset_devices(machine);
    machine_pause_devices(machine);
    memory_settle(machine->memory);
    int rc = load_parts(machine, reader, err);
    if (rc < 0) {
        machine_reset_devices(machine);
        machine_reset_harts(machine);
    }
    return rc;
}

void machine_resume_time(struct machine *machine)
{
    uint64_t now_ns = machine->host.clock_ns(machine->host.opaque);
    uint64_t passed_ticks = now_ns / NS_PER_TICK - machine->stopped_ns / NS_PER_TICK;

    for (unsigned i = 0; i < machine->hart_count; i++)
        machine->harts[i]->time_offset += passed_ticks;
    machine->stopped_ns = now_ns;
}

// ---- Stopping devices ---------------------------------------------------------------------------

static void stop_clocks(struct machine *machine)
{
    machine->stopped_ns = machine->host.clock_ns(machine->host.opaque);
    rtc_pause(&machine->rtc);
}

void machine_pause_devices(struct machine *machine)
{
    stop_clocks(machine);
    for (unsigned i = 0; i < machine->virtio_count; i++)
        virtio_device_pause(machine->virtio[i]);
}

void machine_resume_devices(struct machine *machine)
{
    rtc_resume(&machine->rtc);
    for (unsigned i = 0; i < machine->virtio_count; i++)
        virtio_device_resume(machine->virtio[i]);
}

unsigned machine_freeze_devices(struct machine *machine,
                                void (*ended)(void *opaque, unsigned slot, uint16_t head,
                                              uint32_t written_bytes),
                                void *opaque)
{
    unsigned outstanding = 0;

    stop_clocks(machine);
    for (unsigned i = 0; i < machine->virtio_count; i++)
        outstanding += virtio_device_freeze(machine->virtio[i], i, ended, opaque);
    return outstanding;
}

void machine_thaw_devices(struct machine *machine)
{
    rtc_resume(&machine->rtc);
    for (unsigned i = 0; i < machine->virtio_count; i++)
        virtio_device_thaw(machine->virtio[i]);
}

unsigned machine_requests_outstanding(const struct machine *machine)
{
    unsigned outstanding = 0;

    for (unsigned i = 0; i < machine->virtio_count; i++)
        outstanding += virtio_device_outstanding(machine->virtio[i]);
    return outstanding;
}

void machine_set_former(struct machine *machine, bool (*settle)(void *opaque), void *opaque)
{
    for (unsigned i = 0; i < machine->virtio_count; i++)
        virtio_device_set_former(machine->virtio[i], settle, opaque);
}

void machine_request_ended(struct machine *machine, unsigned slot, uint16_t head,
                           uint32_t written_bytes)
{
    if (slot < machine->virtio_count)
        virtio_device_ended(machine->virtio[slot], head, written_bytes);
}

void machine_requests_forsaken(struct machine *machine)
{
    for (unsigned i = 0; i < machine->virtio_count; i++)
        virtio_device_forsaken(machine->virtio[i]);
}
