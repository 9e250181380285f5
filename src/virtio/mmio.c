// SPDX-License-Identifier: BSD-2-Clause
// mmio: the virtio-mmio transport (section 4.2), version 2 of its registers, and what all devices
// have in common.
//
// Threads: hart threads read and write registers under the device's lock. Two registers do more
// than change a number, Status and QueueReady: their writes are carried out on the loop's thread
// while the hart waits (loop_call), without the lock held, since the loop's thread takes it. So
// everything that starts, stops or works a queue happens on one thread, and a reset is complete
// when the hart's store is. QueueNotify only leaves a bit and a wake-up.
//
// Interrupts are level-triggered: the line is high while InterruptStatus is not 0. It is set under
// the lock, or two threads could set it in the other order than they changed InterruptStatus.
#include <stdio.h>
#include <string.h>

#include "virtio/device.h"

// ---- Registers, section 4.2.2 ------------------------------------------------------------------

enum {
    REG_MAGIC = 0x000,
    REG_VERSION = 0x004,
    REG_DEVICE_ID = 0x008,
    REG_VENDOR_ID = 0x00c,
    REG_DEVICE_FEATURES = 0x010,
    REG_DEVICE_FEATURES_SEL = 0x014,
    REG_DRIVER_FEATURES = 0x020,
    REG_DRIVER_FEATURES_SEL = 0x024,
    REG_QUEUE_SEL = 0x030,
    REG_QUEUE_NUM_MAX = 0x034,
    REG_QUEUE_NUM = 0x038,
    REG_QUEUE_READY = 0x044,
    REG_QUEUE_NOTIFY = 0x050,
    REG_INTERRUPT_STATUS = 0x060,
    REG_INTERRUPT_ACK = 0x064,
    REG_STATUS = 0x070,
    REG_QUEUE_DESC_LOW = 0x080,
    REG_QUEUE_DESC_HIGH = 0x084,
    REG_QUEUE_DRIVER_LOW = 0x090,
    REG_QUEUE_DRIVER_HIGH = 0x094,
    REG_QUEUE_DEVICE_LOW = 0x0a0,
    REG_QUEUE_DEVICE_HIGH = 0x0a4,
    REG_SHM_LEN_LOW = 0x0b0,
    REG_SHM_BASE_HIGH = 0x0bc,
    REG_CONFIG_GENERATION = 0x0fc,
    REG_CONFIG = 0x100,
};

#define MAGIC 0x74726976u   // "virt"
#define VENDOR 0x4b525453u  // "STRK"
#define VERSION 2u

// ---- What devices ask of the transport ---------------------------------------------------------

// Under lock.
static void interrupt_change(struct virtio_device *device, uint32_t set, uint32_t clear)
{
    device->interrupt_status = (device->interrupt_status | set) & ~clear;
    irq_line_set(&device->wiring.irq, device->interrupt_status != 0);
}

// Under lock. Tells a driver, if there is one, to look at the status and the configuration.
static void interrupt_config(struct virtio_device *device)
{
    if (device->status & VIRTIO_STATUS_DRIVER_OK)
        interrupt_change(device, VIRTIO_INTERRUPT_CONFIG, 0);
}

void virtio_device_interrupt(struct virtio_device *device, uint32_t reason)
{
    pthread_mutex_lock(&device->lock);
    interrupt_change(device, reason, 0);
    pthread_mutex_unlock(&device->lock);
}

void virtio_device_config_set(struct virtio_device *device, size_t offset, const void *bytes,
                              size_t count)
{
    pthread_mutex_lock(&device->lock);
    memcpy((uint8_t *)device->config + offset, bytes, count);
    device->config_generation++;
    interrupt_config(device);
    pthread_mutex_unlock(&device->lock);
}

void virtio_device_break(struct virtio_device *device, const struct virtqueue *queue,
                         const char *rule)
{
    char where[16] = "";

    if (device->broken)
        return;
    device->broken = rule;
    pthread_mutex_lock(&device->lock);
    device->status |= VIRTIO_STATUS_NEEDS_RESET;
    interrupt_config(device);
    pthread_mutex_unlock(&device->lock);
    if (queue)
        snprintf(where, sizeof(where), "queue %u: ", queue->index);
    log_limited(&device->log_limit, LOG_WARN,
                "virtio %s (interrupt %u): %s%s; the device needs a reset", device->ops->name,
                device->wiring.irq.source, where, rule);
}

void virtio_device_kick(struct virtio_device *device, unsigned queue)
{
    atomic_fetch_or(&device->kicked, 1u << queue);
    loop_wake_signal(device->kick);
}

// ---- On the loop's thread ----------------------------------------------------------------------

static void device_notify(struct virtio_device *device, uint32_t queues)
{
    for (unsigned i = 0; i < device->queue_count; i++)
        if ((queues & (1u << i)) && device->queues[i].desc && virtio_device_running(device))
            device->ops->notify(device, i);
}

// The wake-up; however many notifications led to it.
static void kicked(void *opaque)
{
    struct virtio_device *device = opaque;
    device_notify(device, atomic_exchange(&device->kicked, 0));
}

void virtio_device_pause(struct virtio_device *device)
{
    device->paused = true;
    if (device->ops->pause)
        device->ops->pause(device);
}

void virtio_device_resume(struct virtio_device *device)
{
    device->paused = device->hands_off = false;
    if (device->ops->resume)
        device->ops->resume(device);
    device_notify(device, ~0u);
}

void virtio_device_reset(struct virtio_device *device)
{
    device->driven = device->hands_off = false;  // from here on nothing is popped or pushed
    device->broken = NULL;
    if (device->ops->reset)
        device->ops->reset(device);
    atomic_store(&device->kicked, 0);

    pthread_mutex_lock(&device->lock);
    for (unsigned i = 0; i < device->queue_count; i++)
        device->queues[i] = (struct virtqueue){.device = device, .index = i};
    // A former monitor that does not let go of requests keeps the device broken.
    device->status = device->broken ? VIRTIO_STATUS_NEEDS_RESET : 0;
    device->device_features_sel = device->driver_features_sel = device->queue_sel = 0;
    device->driver_features = 0;
    interrupt_change(device, 0, ~0u);
    pthread_mutex_unlock(&device->lock);
}

static void device_activate(struct virtio_device *device)
{
    device->driven = true;
    if (device->ops->activate)
        device->ops->activate(device);
    device_notify(device, ~0u);
}

bool virtio_features_acceptable(const struct virtio_device *device, uint64_t driver_features)
{
    return (driver_features & ~device->features) == 0 && (driver_features & VIRTIO_F_VERSION_1);
}

// Bits that the driver has set stay until a reset (section 2.1.1); those that it sets out of order
// or may not set are left out, which it can read back.
static void status_write(struct virtio_device *device, uint32_t value)
{
    if (value == 0) {
        virtio_device_reset(device);
        return;
    }
    pthread_mutex_lock(&device->lock);
    uint32_t status = device->status | (value & VIRTIO_STATUS_OF_DRIVER);
    if (!(device->status & VIRTIO_STATUS_FEATURES_OK) &&
        !virtio_features_acceptable(device, device->driver_features))
        status &= ~VIRTIO_STATUS_FEATURES_OK;
    if (!(status & VIRTIO_STATUS_FEATURES_OK))
        status &= ~VIRTIO_STATUS_DRIVER_OK;
    device->status = status;
    pthread_mutex_unlock(&device->lock);
    if ((status & VIRTIO_STATUS_DRIVER_OK) && !device->driven)
        device_activate(device);
}

static void queue_ready_set(struct virtqueue *queue, bool ready)
{
    pthread_mutex_lock(&queue->device->lock);
    queue->ready = ready;
    pthread_mutex_unlock(&queue->device->lock);
}

// Section 3.1.1: queues are set up once the features are settled. While `ready` is set the queue's
// registers do not change, so virtqueue_start reads them without the lock.
static void queue_make_ready(struct virtqueue *queue)
{
    bool settled = queue->device->status & VIRTIO_STATUS_FEATURES_OK;
    queue_ready_set(queue, true);
    const char *rule =
        settled ? virtqueue_start(queue) : "the queue is made ready before FEATURES_OK";
    if (rule) {
        queue_ready_set(queue, false);
        virtio_device_break(queue->device, queue, rule);
        return;
    }
    device_notify(queue->device, 1u << queue->index);
}

// Section 4.2.2.2: once QueueReady reads 0 the device does not touch the queue. What is in flight
// ends first.
static void queue_make_unready(struct virtqueue *queue)
{
    struct virtio_device *device = queue->device;
    bool paused = device->paused;

    if (!paused)
        virtio_device_pause(device);
    virtqueue_stop(queue);
    queue_ready_set(queue, false);
    if (!paused)
        virtio_device_resume(device);
}

static void queue_ready_write(struct virtqueue *queue, uint32_t value)
{
    bool ready = value & 1;

    if (ready == queue->ready)
        return;
    if (ready)
        queue_make_ready(queue);
    else
        queue_make_unready(queue);
}

// ---- On hart threads ---------------------------------------------------------------------------

// A register write on its way to the loop's thread.
struct errand {
    struct virtio_device *device;
    uint64_t offset;
    uint32_t queue, value;
};

static void errand_run(void *opaque)
{
    struct errand *errand = opaque;
    if (errand->offset == REG_STATUS)
        status_write(errand->device, errand->value);
    else
        queue_ready_write(&errand->device->queues[errand->queue], errand->value);
}

// The queue that QueueSel names, or NULL. Under lock.
static struct virtqueue *queue_selected(struct virtio_device *device)
{
    return device->queue_sel < device->queue_count ? &device->queues[device->queue_sel] : NULL;
}

static uint32_t queue_register_read(const struct virtio_device *device,
                                    const struct virtqueue *queue, uint64_t offset)
{
    switch (offset) {
    case REG_QUEUE_NUM_MAX:
        return queue ? device->ops->queue_size : 0;
    case REG_QUEUE_READY:
        return queue ? queue->ready : 0;
    default:
        return 0;
    }
}

// Registers that are only written read as 0. There is no shared memory: section 4.2.2.1 asks for
// lengths and addresses of all ones then.
static uint32_t register_read(struct virtio_device *device, uint64_t offset)
{
    switch (offset) {
    case REG_MAGIC:
        return MAGIC;
    case REG_VERSION:
        return VERSION;
    case REG_DEVICE_ID:
        return device->ops->device_id;
    case REG_VENDOR_ID:
        return VENDOR;
    case REG_DEVICE_FEATURES:
        return device->device_features_sel > 1
                   ? 0
                   : device->features >> (32 * device->device_features_sel);
    case REG_INTERRUPT_STATUS:
        return device->interrupt_status;
    case REG_STATUS:
        return device->status;
    case REG_SHM_LEN_LOW ... REG_SHM_BASE_HIGH:
        return UINT32_MAX;
    case REG_CONFIG_GENERATION:
        return device->config_generation;
    default:
        return queue_register_read(device, queue_selected(device), offset);
    }
}

static void set_half(uint64_t *value, unsigned half, uint32_t bits)
{
    unsigned shift = 32 * half;
    *value = (*value & ~((uint64_t)UINT32_MAX << shift)) | (uint64_t)bits << shift;
}

static void driver_features_write(struct virtio_device *device, uint32_t value)
{
    if (device->driver_features_sel <= 1 && !(device->status & VIRTIO_STATUS_FEATURES_OK))
        set_half(&device->driver_features, device->driver_features_sel, value);
}

// A queue in use keeps its size and its place.
static void queue_register_write(struct virtqueue *queue, uint64_t offset, uint32_t value)
{
    if (!queue || queue->ready)
        return;
    switch (offset) {
    case REG_QUEUE_NUM:
        queue->size = value;
        break;
    case REG_QUEUE_DESC_LOW:
    case REG_QUEUE_DESC_HIGH:
        set_half(&queue->desc_gpa, offset == REG_QUEUE_DESC_HIGH, value);
        break;
    case REG_QUEUE_DRIVER_LOW:
    case REG_QUEUE_DRIVER_HIGH:
        set_half(&queue->driver_gpa, offset == REG_QUEUE_DRIVER_HIGH, value);
        break;
    case REG_QUEUE_DEVICE_LOW:
    case REG_QUEUE_DEVICE_HIGH:
        set_half(&queue->device_gpa, offset == REG_QUEUE_DEVICE_HIGH, value);
        break;
    default:
        break;
    }
}

static void register_write(struct virtio_device *device, uint64_t offset, uint32_t value)
{
    switch (offset) {
    case REG_DEVICE_FEATURES_SEL:
        device->device_features_sel = value;
        break;
    case REG_DRIVER_FEATURES_SEL:
        device->driver_features_sel = value;
        break;
    case REG_DRIVER_FEATURES:
        driver_features_write(device, value);
        break;
    case REG_QUEUE_SEL:
        device->queue_sel = value;
        break;
    case REG_INTERRUPT_ACK:
        interrupt_change(device, 0, value);
        break;
    default:
        queue_register_write(queue_selected(device), offset, value);
    }
}

static uint64_t config_read(const struct virtio_device *device, uint64_t offset, unsigned width)
{
    uint64_t value = 0;
    if (offset < device->ops->config_bytes && width <= device->ops->config_bytes - offset)
        memcpy(&value, (const uint8_t *)device->config + offset, width);
    return value;
}

// The registers are 32 bits wide (section 4.2.2.2), the configuration is accessed field by field.
static uint64_t mmio_read(void *opaque, uint64_t offset, unsigned width_bytes)
{
    struct virtio_device *device = opaque;
    uint64_t value = 0;

    pthread_mutex_lock(&device->lock);
    if (offset >= REG_CONFIG)
        value = config_read(device, offset - REG_CONFIG, width_bytes);
    else if (width_bytes == 4)
        value = register_read(device, offset);
    pthread_mutex_unlock(&device->lock);
    return value;
}

static void mmio_write_on_loop(struct virtio_device *device, uint64_t offset, uint32_t value)
{
    struct errand errand = {.device = device, .offset = offset, .value = value};

    pthread_mutex_lock(&device->lock);
    errand.queue = device->queue_sel;
    pthread_mutex_unlock(&device->lock);
    if (offset == REG_STATUS || errand.queue < device->queue_count)
        loop_call(device->wiring.loop, errand_run, &errand);
}

static void config_write(struct virtio_device *device, uint64_t offset, unsigned width,
                         uint64_t value)
{
    if (!device->ops->config_write || offset >= device->ops->config_bytes ||
        width > device->ops->config_bytes - offset)
        return;
    pthread_mutex_lock(&device->lock);
    device->ops->config_write(device, offset, &value, width);
    pthread_mutex_unlock(&device->lock);
}

static void mmio_write(void *opaque, uint64_t offset, unsigned width_bytes, uint64_t value)
{
    struct virtio_device *device = opaque;

    if (offset >= REG_CONFIG) {
        config_write(device, offset - REG_CONFIG, width_bytes, value);
        return;
    }
    if (width_bytes != 4)
        return;
    if (offset == REG_STATUS || offset == REG_QUEUE_READY) {
        mmio_write_on_loop(device, offset, value);
    } else if (offset == REG_QUEUE_NOTIFY) {
        // A notification of a queue that is not ready, or not driven yet, is dropped by the loop.
        if ((uint32_t)value < device->queue_count)
            virtio_device_kick(device, value);
    } else {
        pthread_mutex_lock(&device->lock);
        register_write(device, offset, value);
        pthread_mutex_unlock(&device->lock);
    }
}

static const struct memory_device_ops mmio_ops = {.read = mmio_read, .write = mmio_write};

// ---- For the machine ---------------------------------------------------------------------------

void virtio_device_registers(struct virtio_device *device, struct memory_device *registers)
{
    registers->length_bytes = VIRTIO_MMIO_BYTES;
    registers->width_min = 1;
    registers->width_max = 4;
    registers->ops = &mmio_ops;
    registers->device = device;
}

int virtio_device_init(struct virtio_device *device, const struct virtio_device_ops *ops,
                       const struct virtio_wiring *wiring, void *config, struct error *err)
{
    device->ops = ops;
    device->wiring = *wiring;
    device->config = config;
    device->features =
        ops->features | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | VIRTIO_F_VERSION_1;
    device->log_limit = (struct log_limit)LOG_LIMIT_INIT;
    device->queue_count = ops->queue_count;
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++)
        device->queues[i] = (struct virtqueue){.device = device, .index = i};
    int failure = loop_wake_create(wiring->loop, kicked, device, &device->kick);
    if (failure)
        return error_set_errno(err, failure, "creating the virtio %s device", ops->name);
    pthread_mutex_init(&device->lock, NULL);
    return 0;
}

void virtio_device_destroy(struct virtio_device *device)
{
    if (!device)
        return;
    device->settle = NULL;
    virtio_device_reset(device);
    loop_wake_close(device->kick);
    pthread_mutex_destroy(&device->lock);
    device->ops->destroy(device);
}

const char *virtio_device_kind(const struct virtio_device *device)
{
    return device->ops->name;
}

bool virtio_device_driver_ok(const struct virtio_device *device)
{
    struct virtio_device *self = (struct virtio_device *)device;

    pthread_mutex_lock(&self->lock);
    bool driver_ok = self->status & VIRTIO_STATUS_DRIVER_OK;
    pthread_mutex_unlock(&self->lock);
    return driver_ok;
}
