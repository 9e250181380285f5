// SPDX-License-Identifier: BSD-2-Clause
// state: a device's saved state, as far as transport and queues make it up, and what a handover to
// another monitor asks of a device. All on the loop's thread.
//
// What other fields tell is not saved: DRIVER_OK says that the device is driven, NEEDS_RESET that
// it is broken; what was pushed is published before anybody saves; and every queue is looked at
// after resume, so that no notification is pending. The configuration space is the device's own
// matter: some of it is the host's (a disk's size) or an identity (a MAC address).
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "virtio/device.h"

// ---- Tables ------------------------------------------------------------------------------------

struct queue_state {
    bool ready;
    uint32_t size;
    uint64_t desc_gpa, driver_gpa, device_gpa;
    uint16_t avail_next, used_next;
};

struct transport_state {
    uint32_t device_id;
    uint32_t status, interrupt_status, config_generation;
    uint32_t device_features_sel, driver_features_sel, queue_sel;
    uint64_t driver_features;
    struct state_list queues;
};

static const struct state_field queue_fields[] = {
    STATE_FIELD(struct queue_state, ready, STATE_BOOL, 1, 0),
    STATE_FIELD(struct queue_state, size, STATE_U32, 1, 0),
    STATE_FIELD(struct queue_state, desc_gpa, STATE_U64, 1, 0),
    STATE_FIELD(struct queue_state, driver_gpa, STATE_U64, 1, 0),
    STATE_FIELD(struct queue_state, device_gpa, STATE_U64, 1, 0),
    STATE_FIELD(struct queue_state, avail_next, STATE_U16, 1, 0),
    STATE_FIELD(struct queue_state, used_next, STATE_U16, 1, 0),
    {.name = NULL},
};

static int queue_check(const void *object, const char **field, const char **why)
{
    const struct queue_state *state = object;

    *field = state->avail_next ? "avail_next" : "used_next";
    *why = "is not 0 in a queue that is not ready";
    return state->ready || (state->avail_next == 0 && state->used_next == 0) ? 0 : -EINVAL;
}

static const struct state_schema queue_schema = {
    .name = "virtqueue",
    .version = 1,
    .struct_bytes = sizeof(struct queue_state),
    .fields = queue_fields,
    .check = queue_check,
};

#define STATUS_KNOWN (VIRTIO_STATUS_OF_DRIVER | VIRTIO_STATUS_NEEDS_RESET)

static const struct state_field transport_fields[] = {
    STATE_FIELD(struct transport_state, device_id, STATE_U32, 1, 0),
    STATE_FIELD(struct transport_state, status, STATE_U32, 1, STATUS_KNOWN),
    STATE_FIELD(struct transport_state, interrupt_status, STATE_U32, 1,
                VIRTIO_INTERRUPT_USED | VIRTIO_INTERRUPT_CONFIG),
    STATE_FIELD(struct transport_state, config_generation, STATE_U32, 1, 0),
    STATE_FIELD(struct transport_state, device_features_sel, STATE_U32, 1, 0),
    STATE_FIELD(struct transport_state, driver_features_sel, STATE_U32, 1, 0),
    STATE_FIELD(struct transport_state, queue_sel, STATE_U32, 1, 0),
    STATE_FIELD(struct transport_state, driver_features, STATE_U64, 1, 0),
    STATE_LIST_OF(struct transport_state, queues, &queue_schema, 1, VIRTIO_QUEUES_MAX),
    {.name = NULL},
};

static int transport_check(const void *object, const char **field, const char **why)
{
    const struct transport_state *state = object;

    *field = "status";
    if (state->status & ~(uint32_t)STATUS_KNOWN)
        *why = "has bits that mean nothing";
    else if ((state->status & VIRTIO_STATUS_DRIVER_OK) &&
             !(state->status & VIRTIO_STATUS_FEATURES_OK))
        *why = "has DRIVER_OK without FEATURES_OK";
    else
        return 0;
    return -EINVAL;
}

static const struct state_schema transport_schema = {
    .name = "virtio",
    .version = 1,
    .struct_bytes = sizeof(struct transport_state),
    .fields = transport_fields,
    .check = transport_check,
};

// ---- Save --------------------------------------------------------------------------------------

static struct queue_state queue_save(const struct virtqueue *queue)
{
    return (struct queue_state){
        .ready = queue->ready,
        .size = queue->size,
        .desc_gpa = queue->desc_gpa,
        .driver_gpa = queue->driver_gpa,
        .device_gpa = queue->device_gpa,
        .avail_next = queue->avail_next,
        .used_next = queue->used_next,
    };
}

void virtio_device_save(struct virtio_device *device, struct state_writer *writer, unsigned slot)
{
    struct queue_state queues[VIRTIO_QUEUES_MAX];

    pthread_mutex_lock(&device->lock);
    for (unsigned i = 0; i < device->queue_count; i++)
        queues[i] = queue_save(&device->queues[i]);
    const struct transport_state state = {
        .device_id = device->ops->device_id,
        .status = device->status,
        .interrupt_status = device->interrupt_status,
        .config_generation = device->config_generation,
        .device_features_sel = device->device_features_sel,
        .driver_features_sel = device->driver_features_sel,
        .queue_sel = device->queue_sel,
        .driver_features = device->driver_features,
        .queues = {.elements = queues, .count = device->queue_count},
    };
    pthread_mutex_unlock(&device->lock);
    state_write(writer, &transport_schema, slot, &state);
    if (device->ops->save)
        device->ops->save(device, writer, slot);
    // From here on what is under way ends for whoever loads this.
    if (device->frozen)
        device->hands_off = true;
}

// ---- Load --------------------------------------------------------------------------------------

int virtio_state_refuse(struct error *err, const char *section, unsigned slot, const char *field,
                        const char *why)
{
    return error_set(err, -EINVAL, "cannot load section \"%s\" %u of the state: field \"%s\": %s",
                     section, slot, field, why);
}

// What the table cannot know: what this device is and offers.
static int transport_acceptable(const struct virtio_device *device,
                                const struct transport_state *state, unsigned slot,
                                struct error *err)
{
    if (state->device_id != device->ops->device_id)
        return virtio_state_refuse(err, transport_schema.name, slot, "device_id",
                                   "it is of another kind of device");
    if ((state->status & VIRTIO_STATUS_FEATURES_OK) &&
        !virtio_features_acceptable(device, state->driver_features))
        return virtio_state_refuse(err, transport_schema.name, slot, "driver_features",
                                   "the driver has accepted what this device does not offer");
    if (state->queues.count != device->queue_count)
        return virtio_state_refuse(err, transport_schema.name, slot, "queues",
                                   "there are not as many as the device has");
    return 0;
}

static void transport_take(struct virtio_device *device, const struct transport_state *state)
{
    pthread_mutex_lock(&device->lock);
    device->status = state->status;
    device->interrupt_status = state->interrupt_status;
    device->config_generation = state->config_generation;
    device->device_features_sel = state->device_features_sel;
    device->driver_features_sel = state->driver_features_sel;
    device->queue_sel = state->queue_sel;
    device->driver_features = state->driver_features;
    pthread_mutex_unlock(&device->lock);
    device->driven = state->status & VIRTIO_STATUS_DRIVER_OK;
    if (state->status & VIRTIO_STATUS_NEEDS_RESET)
        device->broken = "it was broken when its state was saved";
    virtio_device_interrupt(device, 0);
}

// A queue that is not ready keeps whatever the driver wrote: making it ready checks that.
static int queue_take(struct virtqueue *queue, const struct queue_state *state, unsigned slot,
                      struct error *err)
{
    char field[16];
    const char *rule = NULL;

    pthread_mutex_lock(&queue->device->lock);
    queue->ready = state->ready;
    queue->size = state->size;
    queue->desc_gpa = state->desc_gpa;
    queue->driver_gpa = state->driver_gpa;
    queue->device_gpa = state->device_gpa;
    pthread_mutex_unlock(&queue->device->lock);
    if (state->ready)
        rule = queue->device->status & VIRTIO_STATUS_FEATURES_OK
                   ? virtqueue_restart(queue, state->avail_next, state->used_next)
                   : "it is ready before FEATURES_OK";
    if (!rule)
        return 0;
    snprintf(field, sizeof(field), "queues[%u]", queue->index);
    return virtio_state_refuse(err, transport_schema.name, slot, field, rule);
}

static int sections_load(struct virtio_device *device, struct state_reader *reader, unsigned slot,
                         struct error *err)
{
    struct transport_state state = {0};

    int failure = state_read(reader, &transport_schema, slot, &state, err);
    if (!failure)
        failure = transport_acceptable(device, &state, slot, err);
    if (failure)
        return failure;
    transport_take(device, &state);
    const struct queue_state *queues = state.queues.elements;
    for (unsigned i = 0; !failure && i < device->queue_count; i++)
        failure = queue_take(&device->queues[i], &queues[i], slot, err);
    if (failure)
        return failure;
    if (device->driven && device->ops->activate)
        device->ops->activate(device);
    return device->ops->load ? device->ops->load(device, reader, slot, err) : 0;
}

int virtio_device_load(struct virtio_device *device, struct state_reader *reader, unsigned slot,
                       struct error *err)
{
    device->paused = device->hands_off = true;
    int failure = sections_load(device, reader, slot, err);
    if (failure)
        virtio_device_reset(device);
    return failure;
}

// ---- Handover: the old monitor -----------------------------------------------------------------

unsigned virtio_device_freeze(struct virtio_device *device, unsigned slot,
                              void (*ended)(void *opaque, unsigned slot, uint16_t head,
                                            uint32_t written),
                              void *opaque)
{
    device->paused = device->frozen = true;
    device->slot = slot;
    device->ended = ended;
    device->ended_opaque = opaque;
    if (device->ops->freeze)
        device->ops->freeze(device);
    else if (device->ops->pause)
        device->ops->pause(device);
    return virtio_device_outstanding(device);
}

void virtio_device_thaw(struct virtio_device *device)
{
    device->frozen = false;
    device->ended = NULL;
    virtio_device_resume(device);
}

unsigned virtio_device_outstanding(const struct virtio_device *device)
{
    return device->ops->outstanding ? device->ops->outstanding(device) : 0;
}

bool virtio_device_may_return(struct virtio_device *device, uint16_t head, uint32_t written)
{
    if (device->hands_off && device->ended)
        device->ended(device->ended_opaque, device->slot, head, written);
    return !device->hands_off;
}

// ---- Handover: the new monitor -----------------------------------------------------------------

void virtio_device_set_former(struct virtio_device *device, bool (*settle)(void *opaque),
                              void *opaque)
{
    device->settle = settle;
    device->settle_opaque = opaque;
}

bool virtio_device_settle(struct virtio_device *device)
{
    if (device->settle && !device->settle(device->settle_opaque)) {
        virtio_device_break(device, NULL, "the former monitor does not let go of requests");
        return false;
    }
    device->settle = NULL;
    return true;
}

void virtio_device_ended(struct virtio_device *device, uint16_t head, uint32_t written)
{
    if (device->ops->ended)
        device->ops->ended(device, head, written);
}

void virtio_device_forsaken(struct virtio_device *device)
{
    device->settle = NULL;
    if (!device->hands_off && device->ops->resume)
        device->ops->resume(device);
}
