// SPDX-License-Identifier: BSD-2-Clause
// VM generation id: 16 bytes that change when a partition is restored from a snapshot, so that the
// guest knows that its random numbers, MAC addresses and the like may have been used elsewhere.
// Sources: the Linux binding rng/microsoft,vmgenid; Microsoft's "Virtual Machine Generation ID".
//
// The interrupt has no register to acknowledge it: its line is high from the change until the guest
// has read the id, which is what the interrupt asks it to do.
//
// Saved: the id, and whether the guest has yet to read it. It stays over a reset.
#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "machine/devices.h"

static uint64_t generation_read(void *device, uint64_t offset, unsigned width_bytes)
{
    struct generation *generation = device;
    uint64_t value = 0;

    pthread_mutex_lock(&generation->lock);
    memcpy(&value, generation->id + offset, width_bytes);
    generation->unread = false;
    irq_line_set(&generation->irq, false);
    pthread_mutex_unlock(&generation->lock);
    return value;
}

static void generation_write(void *device, uint64_t offset, unsigned width_bytes, uint64_t value)
{
    (void)device, (void)offset, (void)width_bytes, (void)value;
}

const struct memory_device_ops generation_ops = {.read = generation_read,
                                                 .write = generation_write};

int generation_init(struct generation *generation, struct irq_line irq)
{
    *generation = (struct generation){.irq = irq};
    if (getrandom(generation->id, sizeof(generation->id), 0) != sizeof(generation->id))
        return -EIO;
    pthread_mutex_init(&generation->lock, NULL);
    return 0;
}

void generation_reset(void *device)
{
    struct generation *generation = device;

    pthread_mutex_lock(&generation->lock);
    generation->unread = false;
    irq_line_set(&generation->irq, false);
    pthread_mutex_unlock(&generation->lock);
}

void generation_set(struct generation *generation, const uint8_t id[GENERATION_BYTES])
{
    pthread_mutex_lock(&generation->lock);
    memcpy(generation->id, id, sizeof(generation->id));
    generation->unread = true;
    irq_line_set(&generation->irq, true);
    pthread_mutex_unlock(&generation->lock);
}

void generation_fini(struct generation *generation)
{
    pthread_mutex_destroy(&generation->lock);
}

// ---- State --------------------------------------------------------------------------------------

struct generation_image {
    uint8_t id[GENERATION_BYTES];
    bool unread;
};

static const struct state_field generation_fields[] = {
    STATE_ARRAY(struct generation_image, id, STATE_BYTES, 1, 0),
    STATE_FIELD(struct generation_image, unread, STATE_BOOL, 1, 0),
    {.name = NULL},
};

static const struct state_schema generation_schema = {
    .name = "generation",
    .version = 1,
    .struct_bytes = sizeof(struct generation_image),
    .fields = generation_fields,
};

void generation_save(void *device, struct state_writer *writer)
{
    struct generation *generation = device;
    struct generation_image image;

    pthread_mutex_lock(&generation->lock);
    memcpy(image.id, generation->id, sizeof(image.id));
    image.unread = generation->unread;
    pthread_mutex_unlock(&generation->lock);
    state_write(writer, &generation_schema, 0, &image);
}

int generation_load(void *device, struct state_reader *reader, struct error *err)
{
    struct generation *generation = device;
    struct generation_image image;
    int rc = state_read(reader, &generation_schema, 0, &image, err);

    if (rc < 0)
        return rc;
    pthread_mutex_lock(&generation->lock);
    memcpy(generation->id, image.id, sizeof(image.id));
    generation->unread = image.unread;
    irq_line_set(&generation->irq, generation->unread);
    pthread_mutex_unlock(&generation->lock);
    return 0;
}
