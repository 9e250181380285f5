// SPDX-License-Identifier: BSD-2-Clause
// The switch between the host's one console and the guest's three: UART, SBI debug console, virtio
// console.
#include <errno.h>

#include "machine/board.h"

int console_switch_init(struct console_switch *console, const struct machine_host *host)
{
    *console = (struct console_switch){.active = CONSOLE_UART, .host = host};
    int rc = ring_init(&console->input, CONSOLE_INPUT_BYTES);
    if (rc < 0)
        return rc;
    pthread_mutex_init(&console->lock, NULL);
    return 0;
}

void console_switch_fini(struct console_switch *console)
{
    if (!console->input.bytes)
        return;
    ring_fini(&console->input);
    pthread_mutex_destroy(&console->lock);
}

void console_switch_output(struct console_switch *console, enum console_device from,
                           const void *bytes, size_t count)
{
    pthread_mutex_lock(&console->lock);
    console->active = from;
    pthread_mutex_unlock(&console->lock);
    console->host->console_output(console->host->opaque, bytes, count);
}

size_t console_switch_input(struct console_switch *console, const void *bytes, size_t count,
                            enum console_device *active)
{
    pthread_mutex_lock(&console->lock);
    size_t taken = ring_put(&console->input, bytes, count);
    atomic_store(&console->room_owed, taken < count);
    *active = console->active;
    pthread_mutex_unlock(&console->lock);
    return taken;
}

size_t console_switch_take(struct console_switch *console, enum console_device to, void *bytes,
                           size_t max)
{
    size_t count = 0;

    pthread_mutex_lock(&console->lock);
    if (console->active == to)
        count = ring_take(&console->input, bytes, max);
    pthread_mutex_unlock(&console->lock);
    return count;
}

void console_switch_push(struct console_switch *console, enum console_device to,
                         size_t (*offer)(void *opaque, const void *bytes, size_t count),
                         void *opaque)
{
    const uint8_t *run;
    size_t count, taken;

    pthread_mutex_lock(&console->lock);
    do {
        count = console->active == to ? ring_peek(&console->input, &run) : 0;
        taken = count ? offer(opaque, run, count) : 0;
        ring_drop(&console->input, taken);
    } while (taken && taken == count);
    pthread_mutex_unlock(&console->lock);
}

void console_switch_tell_room(struct console_switch *console)
{
    if (!atomic_load_explicit(&console->room_owed, memory_order_relaxed))
        return;
    pthread_mutex_lock(&console->lock);
    bool tell = ring_space(&console->input) && atomic_exchange(&console->room_owed, false);
    pthread_mutex_unlock(&console->lock);
    if (tell)
        console->host->console_room(console->host->opaque);
}

// ---- State --------------------------------------------------------------------------------------

struct console_image {
    uint8_t active;
    bool room_owed;
    struct state_blob input;
};

static const struct state_field console_fields[] = {
    STATE_FIELD(struct console_image, active, STATE_U8, 1, CONSOLE_VIRTIO),
    STATE_FIELD(struct console_image, room_owed, STATE_BOOL, 1, 0),
    STATE_FIELD(struct console_image, input, STATE_BLOB, 1, CONSOLE_INPUT_BYTES),
    {.name = NULL},
};

static const struct state_schema console_schema = {
    .name = "console",
    .version = 1,
    .struct_bytes = sizeof(struct console_image),
    .fields = console_fields,
};

// A copy of what is in the ring, which stays.
static size_t ring_copy(const struct ring *ring, uint8_t *bytes, size_t count)
{
    struct ring reader = *ring;

    return ring_take(&reader, bytes, count);
}

void console_switch_save(struct console_switch *console, struct state_writer *writer)
{
    uint8_t input[CONSOLE_INPUT_BYTES];
    struct console_image image = {.input.bytes = input};

    pthread_mutex_lock(&console->lock);
    image.active = console->active;
    image.room_owed = atomic_load(&console->room_owed);
    image.input.length_bytes = ring_copy(&console->input, input, sizeof(input));
    pthread_mutex_unlock(&console->lock);
    state_write(writer, &console_schema, 0, &image);
}

int console_switch_load(struct console_switch *console, bool has_virtio_console,
                        struct state_reader *reader, struct error *err)
{
    struct console_image image = {0};
    int rc = state_read(reader, &console_schema, 0, &image, err);

    if (rc < 0)
        return rc;
    if (image.active == CONSOLE_VIRTIO && !has_virtio_console)
        return error_set(err, -EINVAL,
                         "cannot load section \"console\" 0 of the state: field \"active\" is the "
                         "virtio console, which this machine has not");
    pthread_mutex_lock(&console->lock);
    console->active = image.active;
    atomic_store(&console->room_owed, image.room_owed);
    ring_clear(&console->input);
    ring_put(&console->input, image.input.bytes, image.input.length_bytes);
    pthread_mutex_unlock(&console->lock);
    return 0;
}
