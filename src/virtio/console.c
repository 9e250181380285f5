// SPDX-License-Identifier: BSD-2-Clause
// console: the console device (section 5.3), one port. All work is done on the loop's thread.
//
// Output goes to the host as it comes, in order. Input waits in a ring until the driver has buffers
// for it; when the ring is full the host keeps the rest, and is told when there is room. So it does
// from the moment the state is saved for another monitor: that one takes it.
//
// Saved: the terminal's size, and the input that waits.
#include <errno.h>
#include <stdlib.h>

#include "virtio/device.h"

// Section 5.3.3, 5.3.4
#define VIRTIO_CONSOLE_F_SIZE (1ull << 0)
enum { RECEIVE_QUEUE, TRANSMIT_QUEUE, QUEUES };

struct config_space {
    uint16_t columns, rows;
    uint32_t max_ports, emergency_write;  // of features that are not offered
};

#define INPUT_BYTES 4096u
// A batch of output ends at the chain that passes this many bytes, so that the loop gets to others;
// a single chain may not be larger. Drivers write a page or so at a time.
#define OUTPUT_BYTES_MAX (1u << 20)

struct console {
    struct virtio_device device;
    struct virtio_console_config host;
    struct config_space config;
    struct ring input;   // also keeps what is typed before there is a driver, as terminals do
    bool input_refused;  // the host waits for input_room
};

static size_t fill(struct ring *input, const struct virtio_span *span)
{
    size_t done = 0, copied;
    do {
        const uint8_t *bytes;
        size_t count = ring_peek(input, &bytes);
        copied = virtio_span_write(span, done, bytes, count);
        ring_drop(input, copied);
        done += copied;
    } while (copied > 0);
    return done;
}

// Moves waiting input into the driver's buffers. New buffers matter only when they are what input
// waits for, so only then is the driver asked to notify.
static void receive(struct console *console)
{
    struct virtqueue *queue = &console->device.queues[RECEIVE_QUEUE];
    struct virtio_chain chain;

    unsigned left = virtqueue_begin(queue);
    while (left-- > 0 && ring_used(&console->input) > 0 && virtqueue_pop(queue, &chain))
        virtqueue_push(queue, chain.head, fill(&console->input, &chain.writable));
    virtqueue_publish(queue);
    if (ring_used(&console->input) > 0)
        virtqueue_end(queue);
}

static void output(struct console *console, const struct virtio_span *span)
{
    for (unsigned i = 0; i < span->count; i++)
        console->host.output(console->host.opaque, span->iov[i].iov_base, span->iov[i].iov_len);
}

static void transmit(struct console *console)
{
    struct virtqueue *queue = &console->device.queues[TRANSMIT_QUEUE];
    struct virtio_chain chain;
    size_t bytes = 0;

    unsigned left = virtqueue_begin(queue);
    while (left-- > 0 && bytes < OUTPUT_BYTES_MAX && virtqueue_pop(queue, &chain)) {
        if (chain.readable.bytes > OUTPUT_BYTES_MAX) {
            virtio_device_break(&console->device, queue, "a write is larger than 1 MiB");
            return;
        }
        output(console, &chain.readable);
        bytes += chain.readable.bytes;
        virtqueue_push(queue, chain.head, 0);
    }
    virtqueue_publish(queue);
    virtqueue_end(queue);
}

// Called from notify alone: were it called from virtio_console_input too, the two could recurse.
static void offer_room(struct console *console)
{
    if (console->input_refused && ring_space(&console->input) > 0) {
        console->input_refused = false;
        console->host.input_room(console->host.opaque);
    }
}

static void notify(struct virtio_device *device, unsigned index)
{
    struct console *console = BASE_CONTAINER_OF(device, struct console, device);

    if (index == TRANSMIT_QUEUE) {
        transmit(console);
    } else {
        receive(console);
        offer_room(console);
    }
}

size_t virtio_console_input(struct virtio_device *device, const void *bytes, size_t count)
{
    struct console *console = BASE_CONTAINER_OF(device, struct console, device);
    size_t taken = 0, put;

    if (device->hands_off) {
        console->input_refused = count > 0;
        return 0;
    }
    do {
        put = ring_put(&console->input, (const uint8_t *)bytes + taken, count - taken);
        taken += put;
        receive(console);
    } while (put > 0 && taken < count);
    console->input_refused = taken < count;
    return taken;
}

void virtio_console_resize(struct virtio_device *device, unsigned columns, unsigned rows)
{
    uint16_t size[2] = {columns, rows};
    virtio_device_config_set(device, offsetof(struct config_space, columns), size, sizeof(size));
}

// ---- Saved state -------------------------------------------------------------------------------

struct console_state {
    uint16_t columns, rows;
    bool input_refused;
    struct state_blob input;
};

static const struct state_field console_fields[] = {
    STATE_FIELD(struct console_state, columns, STATE_U16, 1, 0),
    STATE_FIELD(struct console_state, rows, STATE_U16, 1, 0),
    STATE_FIELD(struct console_state, input_refused, STATE_BOOL, 1, 0),
    STATE_FIELD(struct console_state, input, STATE_BLOB, 1, INPUT_BYTES),
    {.name = NULL},
};

static const struct state_schema console_schema = {
    .name = "virtio-console",
    .version = 1,
    .struct_bytes = sizeof(struct console_state),
    .fields = console_fields,
};

static void save(struct virtio_device *device, struct state_writer *writer, unsigned slot)
{
    struct console *console = BASE_CONTAINER_OF(device, struct console, device);
    uint8_t input[INPUT_BYTES];
    struct ring copy = console->input;  // taking from the copy leaves the ring as it is
    const struct console_state state = {
        .columns = console->config.columns,
        .rows = console->config.rows,
        .input_refused = console->input_refused,
        .input = {.bytes = input, .length_bytes = ring_take(&copy, input, sizeof(input))},
    };
    state_write(writer, &console_schema, slot, &state);
}

static int load(struct virtio_device *device, struct state_reader *reader, unsigned slot,
                struct error *err)
{
    struct console *console = BASE_CONTAINER_OF(device, struct console, device);
    struct console_state state = {0};

    int failure = state_read(reader, &console_schema, slot, &state, err);
    if (failure)
        return failure;
    pthread_mutex_lock(&device->lock);
    console->config.columns = state.columns;
    console->config.rows = state.rows;
    pthread_mutex_unlock(&device->lock);
    console->input_refused = state.input_refused;
    ring_clear(&console->input);
    ring_put(&console->input, state.input.bytes, state.input.length_bytes);
    return 0;
}

// ---- Operations --------------------------------------------------------------------------------

// What was refused when hands were off is wanted again, whether there is a driver or not.
static void resume(struct virtio_device *device)
{
    struct console *console = BASE_CONTAINER_OF(device, struct console, device);
    offer_room(console);
}

static void destroy(struct virtio_device *device)
{
    struct console *console = BASE_CONTAINER_OF(device, struct console, device);
    ring_fini(&console->input);
    free(console);
}

static const struct virtio_device_ops console_ops = {
    .name = "console",
    .device_id = VIRTIO_ID_CONSOLE,
    .features = VIRTIO_CONSOLE_F_SIZE,
    .config_bytes = sizeof(struct config_space),
    .queue_count = QUEUES,
    .queue_size = 128,
    .notify = notify,
    .resume = resume,
    .save = save,
    .load = load,
    .destroy = destroy,
};

int virtio_console_create(struct virtio_device **out, const struct virtio_wiring *wiring,
                          const struct virtio_console_config *config, struct error *err)
{
    struct console *console = calloc(1, sizeof(*console));
    if (!console || ring_init(&console->input, INPUT_BYTES)) {
        free(console);
        return error_set_errno(err, -ENOMEM, "creating the virtio console device");
    }
    console->host = *config;
    console->config = (struct config_space){.columns = 80, .rows = 25, .max_ports = 1};
    int failure = virtio_device_init(&console->device, &console_ops, wiring, &console->config, err);
    if (failure) {
        ring_fini(&console->input);
        free(console);
        return failure;
    }
    *out = &console->device;
    return 0;
}
