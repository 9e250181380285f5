// SPDX-License-Identifier: BSD-2-Clause
// input: an input device (section 5.8) with one key, the power button. A press is a press and a
// release at once; what a guest does on it is its own matter, mostly an orderly shutdown.
//
// Threads: a press comes on any thread and only counts what is owed to the driver; the loop's
// thread delivers it, one event a buffer. Saved: what is owed, and what the driver asks the
// configuration for.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "virtio/device.h"

enum { EVENT_QUEUE, STATUS_QUEUE, QUEUES };

// Section 5.8.4: what `select` may be.
enum {
    CONFIG_ID_NAME = 0x01,
    CONFIG_ID_DEVIDS = 0x03,
    CONFIG_EVENT_BITS = 0x11,
};

// As Linux and its evdev protocol have them, which section 5.8 refers to.
enum { EV_SYN = 0, EV_KEY = 1, KEY_POWER = 116, BUS_VIRTUAL = 6 };

struct config_space {
    uint8_t select, subsel;  // the driver's
    uint8_t size;            // of the answer
    uint8_t reserved[5];
    uint8_t answer[128];
};

struct input_event {
    uint16_t type, code;
    uint32_t value;
};

// What a press is, in order; `owed` counts from the end.
static const struct input_event press[] = {
    {EV_KEY, KEY_POWER, 1},
    {EV_SYN, 0, 0},
    {EV_KEY, KEY_POWER, 0},
    {EV_SYN, 0, 0},
};
#define PRESS_EVENTS BASE_COUNT_OF(press)

struct input {
    struct virtio_device device;
    struct config_space config;
    atomic_uint owed;
};

static struct input *input_of(struct virtio_device *device)
{
    return BASE_CONTAINER_OF(device, struct input, device);
}

// ---- Configuration -----------------------------------------------------------------------------

static void answer(struct config_space *config, const void *bytes, size_t count)
{
    memcpy(config->answer, bytes, count);
    config->size = (uint8_t)count;
}

// What cannot be answered has size 0 (section 5.8.5.2).
static void answer_select(struct config_space *config)
{
    static const char name[] = "Strake power button";
    static const uint16_t ids[] = {BUS_VIRTUAL, 0, 1, 1};
    static const uint8_t keys[] = {[KEY_POWER / 8] = 1 << KEY_POWER % 8};

    config->size = 0;
    memset(config->answer, 0, sizeof(config->answer));
    if (config->select == CONFIG_ID_NAME && config->subsel == 0)
        answer(config, name, sizeof(name) - 1);
    else if (config->select == CONFIG_ID_DEVIDS && config->subsel == 0)
        answer(config, ids, sizeof(ids));
    else if (config->select == CONFIG_EVENT_BITS && config->subsel == EV_KEY)
        answer(config, keys, sizeof(keys));
}

static void config_write(struct virtio_device *device, size_t offset, const void *bytes,
                         size_t count)
{
    struct config_space *config = &input_of(device)->config;

    if (offset + count > offsetof(struct config_space, size))
        return;
    memcpy((uint8_t *)config + offset, bytes, count);
    answer_select(config);
}

// ---- Queues ------------------------------------------------------------------------------------

static void deliver(struct input *input)
{
    struct virtqueue *queue = &input->device.queues[EVENT_QUEUE];
    struct virtio_chain chain;

    while (atomic_load(&input->owed) && virtqueue_pop(queue, &chain)) {
        const struct input_event *event = &press[PRESS_EVENTS - atomic_load(&input->owed)];
        if (chain.writable.bytes < sizeof(*event)) {
            virtio_device_break(&input->device, queue, "a buffer is too small for an event");
            return;
        }
        virtio_span_write(&chain.writable, 0, event, sizeof(*event));
        virtqueue_push(queue, chain.head, sizeof(*event));
        atomic_fetch_sub(&input->owed, 1);
    }
    virtqueue_publish(queue);
}

// The driver's status events are about lights, which there are none of.
static void ignore_status(struct input *input)
{
    struct virtqueue *queue = &input->device.queues[STATUS_QUEUE];
    struct virtio_chain chain;

    unsigned left = virtqueue_begin(queue);
    while (left-- > 0 && virtqueue_pop(queue, &chain))
        virtqueue_push(queue, chain.head, 0);
    virtqueue_publish(queue);
    virtqueue_end(queue);
}

static void notify(struct virtio_device *device, unsigned index)
{
    if (index == EVENT_QUEUE)
        deliver(input_of(device));
    else
        ignore_status(input_of(device));
}

void virtio_input_press(struct virtio_device *device)
{
    struct input *input = input_of(device);
    unsigned none = 0;

    // A press during another one is the same.
    if (atomic_compare_exchange_strong(&input->owed, &none, PRESS_EVENTS))
        virtio_device_kick(device, EVENT_QUEUE);
}

// ---- Saved state -------------------------------------------------------------------------------

struct input_state {
    uint8_t select, subsel;
    uint8_t owed;
};

static const struct state_field input_fields[] = {
    STATE_FIELD(struct input_state, select, STATE_U8, 1, 0),
    STATE_FIELD(struct input_state, subsel, STATE_U8, 1, 0),
    STATE_FIELD(struct input_state, owed, STATE_U8, 1, PRESS_EVENTS),
    {.name = NULL},
};

static const struct state_schema input_schema = {
    .name = "virtio-input",
    .version = 1,
    .struct_bytes = sizeof(struct input_state),
    .fields = input_fields,
};

static void save(struct virtio_device *device, struct state_writer *writer, unsigned slot)
{
    struct input *input = input_of(device);

    const struct input_state state = {.select = input->config.select,
                                      .subsel = input->config.subsel,
                                      .owed = (uint8_t)atomic_load(&input->owed)};
    state_write(writer, &input_schema, slot, &state);
}

static int load(struct virtio_device *device, struct state_reader *reader, unsigned slot,
                struct error *err)
{
    struct input *input = input_of(device);
    struct input_state state = {0};

    int failure = state_read(reader, &input_schema, slot, &state, err);
    if (failure)
        return failure;
    pthread_mutex_lock(&device->lock);
    input->config.select = state.select;
    input->config.subsel = state.subsel;
    answer_select(&input->config);
    pthread_mutex_unlock(&device->lock);
    atomic_store(&input->owed, state.owed);
    return 0;
}

// ---- Operations --------------------------------------------------------------------------------

static void reset(struct virtio_device *device)
{
    struct input *input = input_of(device);

    atomic_store(&input->owed, 0);
    pthread_mutex_lock(&device->lock);
    input->config.select = input->config.subsel = 0;
    answer_select(&input->config);
    pthread_mutex_unlock(&device->lock);
}

static void destroy(struct virtio_device *device)
{
    free(input_of(device));
}

static const struct virtio_device_ops input_ops = {
    .name = "input",
    .device_id = VIRTIO_ID_INPUT,
    .config_bytes = sizeof(struct config_space),
    .queue_count = QUEUES,
    .queue_size = 64,
    .config_write = config_write,
    .notify = notify,
    .save = save,
    .load = load,
    .reset = reset,
    .destroy = destroy,
};

int virtio_input_create(struct virtio_device **out, const struct virtio_wiring *wiring,
                        struct error *err)
{
    struct input *input = calloc(1, sizeof(*input));
    if (!input)
        return error_set_errno(err, -ENOMEM, "creating the virtio input device");
    int failure = virtio_device_init(&input->device, &input_ops, wiring, &input->config, err);
    if (failure) {
        free(input);
        return failure;
    }
    *out = &input->device;
    return 0;
}
