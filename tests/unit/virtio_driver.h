// SPDX-License-Identifier: BSD-2-Clause
// A small virtio driver for the unit tests of devices: it stands where a guest would, with RAM at
// DRIVER_RAM_GPA, registers reached as a hart does, and rings that it fills in by itself. The loop
// runs on a thread of its own, as in a partition.
//
//     driver_open(&driver);
//     virtio_rng_create(&device, &driver.wiring, NULL);
//     driver_attach(&driver, device);
//     driver_start(&driver, features, queue_count, queue_size);
//     unsigned head = driver_send(&driver, queue, buffers, count);   // adds and notifies
//     uint32_t written = driver_wait(&driver, queue, head);
//     driver_close(&driver);
#ifndef STRAKE_TESTS_VIRTIO_DRIVER_H
#define STRAKE_TESTS_VIRTIO_DRIVER_H

#include <pthread.h>
#include <sched.h>

#include "unit.h"

#include "state/state.h"
#include "virtio/virtio.h"

#define DRIVER_RAM_GPA 0x80000000u
#define DRIVER_RAM_BYTES (8u << 20)
#define DRIVER_QUEUES 5
#define DRIVER_WAIT_NS 20000000000u  // long: the machine may be busy

// Registers and bits, written down again: the tests are not to share a mistake with the device.
enum {
    R_MAGIC = 0x00,
    R_VERSION = 0x04,
    R_DEVICE_ID = 0x08,
    R_VENDOR_ID = 0x0c,
    R_DEVICE_FEATURES = 0x10,
    R_DEVICE_FEATURES_SEL = 0x14,
    R_DRIVER_FEATURES = 0x20,
    R_DRIVER_FEATURES_SEL = 0x24,
    R_QUEUE_SEL = 0x30,
    R_QUEUE_NUM_MAX = 0x34,
    R_QUEUE_NUM = 0x38,
    R_QUEUE_READY = 0x44,
    R_QUEUE_NOTIFY = 0x50,
    R_INTERRUPT_STATUS = 0x60,
    R_INTERRUPT_ACK = 0x64,
    R_STATUS = 0x70,
    R_QUEUE_DESC = 0x80,
    R_QUEUE_DRIVER = 0x90,
    R_QUEUE_DEVICE = 0xa0,
    R_CONFIG_GENERATION = 0xfc,
    R_CONFIG = 0x100,
};
enum { S_ACKNOWLEDGE = 1, S_DRIVER = 2, S_DRIVER_OK = 4, S_FEATURES_OK = 8, S_NEEDS_RESET = 64 };
enum { D_NEXT = 1, D_WRITE = 2, D_INDIRECT = 4 };
#define F_INDIRECT (1ull << 28)
#define F_EVENT_IDX (1ull << 29)
#define F_VERSION_1 (1ull << 32)

struct driver_desc {
    uint64_t gpa;
    uint32_t bytes;
    uint16_t flags, next;
};

struct driver_used {
    uint32_t head, written;
};

struct driver_queue {
    unsigned size;
    uint64_t desc_gpa, avail_gpa, used_gpa;
    struct driver_desc *desc;
    uint16_t *avail;  // flags, index, ring, used_event
    uint16_t *used;   // flags, index, ring of struct driver_used, avail_event
    uint16_t avail_index, used_seen;
    unsigned next_desc;
};

struct driver {
    struct memory *memory;
    struct loop *loop;
    pthread_t thread;
    struct virtio_wiring wiring;
    struct virtio_device *device;
    struct memory_device registers;
    atomic_bool irq;
    atomic_uint irq_rises;
    uint64_t features;
    struct driver_queue queues[DRIVER_QUEUES];
    uint64_t next_gpa;
};

// What a buffer is: `bytes` of RAM at `gpa`, for the device to read or to write.
struct driver_buffer {
    uint64_t gpa;
    uint32_t bytes;
    bool writable;
};

static inline void *driver_ram(struct driver *driver, uint64_t gpa)
{
    void *hva = memory_ram_hva(driver->memory, gpa, 1);
    assert_non_null(hva);
    return hva;
}

// RAM that nothing else uses, zeroed, aligned to 4096.
static inline uint64_t driver_alloc(struct driver *driver, size_t bytes)
{
    uint64_t gpa = driver->next_gpa;
    driver->next_gpa += (bytes + 4095) / 4096 * 4096;
    assert_true(driver->next_gpa <= DRIVER_RAM_GPA + DRIVER_RAM_BYTES);
    memset(driver_ram(driver, gpa), 0, bytes);
    return gpa;
}

// ---- The machine around the device -------------------------------------------------------------

static inline void driver_irq(void *controller, unsigned source, bool level)
{
    struct driver *driver = controller;
    (void)source;
    if (level && !atomic_exchange(&driver->irq, true))
        atomic_fetch_add(&driver->irq_rises, 1);
    else if (!level)
        atomic_store(&driver->irq, false);
}

static inline void *driver_loop_thread(void *opaque)
{
    loop_run(opaque);
    return NULL;
}

static inline void driver_nothing(void *opaque)
{
    (void)opaque;
}

// On memory with RAM that becomes the driver's.
static inline void driver_open_memory(struct driver *driver, struct memory *memory)
{
    *driver = (struct driver){.memory = memory, .next_gpa = DRIVER_RAM_GPA};
    assert_int_equal(loop_create(&driver->loop, NULL), 0);
    driver->wiring = (struct virtio_wiring){
        .memory = driver->memory,
        .loop = driver->loop,
        .irq = {.set = driver_irq, .controller = driver, .source = 7},
    };
}

// On RAM that a memfd holds, whose descriptor becomes the driver's; -1: on RAM of its own.
static inline void driver_open_on(struct driver *driver, int ram_fd)
{
    struct memory *memory;

    assert_int_equal(memory_create(&memory, NULL), 0);
    assert_int_equal(memory_add_ram(memory, DRIVER_RAM_GPA, DRIVER_RAM_BYTES, ram_fd, NULL), 0);
    driver_open_memory(driver, memory);
}

static inline void driver_open(struct driver *driver)
{
    driver_open_on(driver, -1);
}

static inline void driver_close_wake(void *wake)
{
    loop_wake_close(wake);
}

static inline void driver_set_flag(void *flag)
{
    atomic_store((atomic_bool *)flag, true);
}

// From here on the loop runs.
static inline void driver_attach(struct driver *driver, struct virtio_device *device)
{
    atomic_bool running = false;
    struct loop_wake *wake;

    driver->device = device;
    virtio_device_registers(device, &driver->registers);
    assert_int_equal(loop_wake_create(driver->loop, driver_set_flag, &running, &wake), 0);
    loop_wake_signal(wake);
    assert_int_equal(pthread_create(&driver->thread, NULL, driver_loop_thread, driver->loop), 0);
    while (!running)
        sched_yield();
    loop_call(driver->loop, driver_close_wake, wake);
}

// For a device that has not been attached, too.
static inline void driver_close(struct driver *driver)
{
    if (driver->device && !driver->registers.ops) {
        virtio_device_destroy(driver->device);
    } else if (driver->device) {
        loop_stop(driver->loop);
        pthread_join(driver->thread, NULL);
        virtio_device_destroy(driver->device);
    }
    loop_destroy(driver->loop);
    memory_destroy(driver->memory);
}

// Returns when the loop has handled all that was signalled to it before. Two calls: the first may
// be answered ahead of another wake-up of the same turn of the loop.
static inline void driver_settle(struct driver *driver)
{
    loop_call(driver->loop, driver_nothing, NULL);
    loop_call(driver->loop, driver_nothing, NULL);
}

static inline void driver_pause_on_loop(void *device)
{
    virtio_device_pause(device);
}

static inline void driver_resume_on_loop(void *device)
{
    virtio_device_resume(device);
}

static inline void driver_pause(struct driver *driver)
{
    loop_call(driver->loop, driver_pause_on_loop, driver->device);
}

static inline void driver_resume(struct driver *driver)
{
    loop_call(driver->loop, driver_resume_on_loop, driver->device);
}

// ---- Registers ---------------------------------------------------------------------------------

static inline uint32_t driver_read(struct driver *driver, uint64_t offset)
{
    return driver->registers.ops->read(driver->registers.device, offset, 4);
}

static inline void driver_write(struct driver *driver, uint64_t offset, uint32_t value)
{
    driver->registers.ops->write(driver->registers.device, offset, 4, value);
}

static inline uint64_t driver_config(struct driver *driver, uint64_t offset, unsigned width)
{
    return driver->registers.ops->read(driver->registers.device, R_CONFIG + offset, width);
}

static inline uint64_t driver_offered(struct driver *driver)
{
    driver_write(driver, R_DEVICE_FEATURES_SEL, 0);
    uint64_t features = driver_read(driver, R_DEVICE_FEATURES);
    driver_write(driver, R_DEVICE_FEATURES_SEL, 1);
    return features | (uint64_t)driver_read(driver, R_DEVICE_FEATURES) << 32;
}

// ---- Setting up, section 3.1.1 -----------------------------------------------------------------

// Returns the status that the device shows after FEATURES_OK was asked for.
static inline uint32_t driver_negotiate(struct driver *driver, uint64_t features)
{
    driver_write(driver, R_STATUS, 0);
    driver_write(driver, R_STATUS, S_ACKNOWLEDGE);
    driver_write(driver, R_STATUS, S_ACKNOWLEDGE | S_DRIVER);
    for (unsigned half = 0; half < 2; half++) {
        driver_write(driver, R_DRIVER_FEATURES_SEL, half);
        driver_write(driver, R_DRIVER_FEATURES, features >> (32 * half));
    }
    driver_write(driver, R_STATUS, S_ACKNOWLEDGE | S_DRIVER | S_FEATURES_OK);
    driver->features = features;
    return driver_read(driver, R_STATUS);
}

static inline void driver_write_gpa(struct driver *driver, uint64_t offset, uint64_t gpa)
{
    driver_write(driver, offset, gpa);
    driver_write(driver, offset + 4, gpa >> 32);
}

// Rings of `size` entries in fresh RAM; the registers are written but QueueReady.
static inline void driver_queue_place(struct driver *driver, unsigned index, unsigned size)
{
    struct driver_queue *queue = &driver->queues[index];

    *queue = (struct driver_queue){
        .size = size,
        .desc_gpa = driver_alloc(driver, 16 * size),
        .avail_gpa = driver_alloc(driver, 6 + 2 * size),
        .used_gpa = driver_alloc(driver, 6 + 8 * size),
    };
    queue->desc = driver_ram(driver, queue->desc_gpa);
    queue->avail = driver_ram(driver, queue->avail_gpa);
    queue->used = driver_ram(driver, queue->used_gpa);
    driver_write(driver, R_QUEUE_SEL, index);
    driver_write(driver, R_QUEUE_NUM, size);
    driver_write_gpa(driver, R_QUEUE_DESC, queue->desc_gpa);
    driver_write_gpa(driver, R_QUEUE_DRIVER, queue->avail_gpa);
    driver_write_gpa(driver, R_QUEUE_DEVICE, queue->used_gpa);
}

// Reset, features, queues, DRIVER_OK. RAM handed out before is handed out again.
static inline void driver_start(struct driver *driver, uint64_t features, unsigned queue_count,
                                unsigned queue_size)
{
    driver->next_gpa = DRIVER_RAM_GPA;
    uint32_t status = driver_negotiate(driver, features | F_VERSION_1);
    assert_int_equal(status, S_ACKNOWLEDGE | S_DRIVER | S_FEATURES_OK);
    for (unsigned i = 0; i < queue_count; i++) {
        driver_queue_place(driver, i, queue_size);
        driver_write(driver, R_QUEUE_READY, 1);
        assert_int_equal(driver_read(driver, R_QUEUE_READY), 1);
    }
    driver_write(driver, R_STATUS, status | S_DRIVER_OK);
    assert_int_equal(driver_read(driver, R_STATUS), status | S_DRIVER_OK);
}

// ---- Rings -------------------------------------------------------------------------------------

// Writes a chain into descriptors that follow those used last; returns its head.
static inline unsigned driver_chain(struct driver *driver, unsigned index,
                                    const struct driver_buffer *buffers, unsigned count)
{
    struct driver_queue *queue = &driver->queues[index];
    unsigned head = queue->next_desc;

    for (unsigned i = 0; i < count; i++) {
        unsigned slot = queue->next_desc;
        queue->next_desc = (slot + 1) % queue->size;
        queue->desc[slot] = (struct driver_desc){
            .gpa = buffers[i].gpa,
            .bytes = buffers[i].bytes,
            .flags = (buffers[i].writable ? D_WRITE : 0) | (i + 1 < count ? D_NEXT : 0),
            .next = queue->next_desc,
        };
    }
    return head;
}

static inline void driver_make_available(struct driver *driver, unsigned index, unsigned head)
{
    struct driver_queue *queue = &driver->queues[index];
    __atomic_store_n(&queue->avail[2 + queue->avail_index % queue->size], head, __ATOMIC_RELAXED);
    __atomic_store_n(&queue->avail[1], ++queue->avail_index, __ATOMIC_SEQ_CST);
}

// Notifies, wanted or not.
static inline void driver_kick(struct driver *driver, unsigned index)
{
    driver_write(driver, R_QUEUE_NOTIFY, index);
}

// Whether the device asks to be notified of what was just made available (sections 2.7.7, 2.7.10);
// a driver that notifies only then must never hang.
static inline bool driver_kick_wanted(struct driver *driver, unsigned index)
{
    struct driver_queue *queue = &driver->queues[index];

    if (!(driver->features & F_EVENT_IDX))
        return !(__atomic_load_n(&queue->used[0], __ATOMIC_SEQ_CST) & 1);
    uint16_t event = __atomic_load_n(&queue->used[2 + 4 * queue->size], __ATOMIC_SEQ_CST);
    return (uint16_t)(queue->avail_index - event - 1) < 1;
}

static inline unsigned driver_send(struct driver *driver, unsigned index,
                                   const struct driver_buffer *buffers, unsigned count)
{
    unsigned head = driver_chain(driver, index, buffers, count);
    driver_make_available(driver, index, head);
    driver_kick(driver, index);
    return head;
}

static inline uint16_t driver_used_index(struct driver *driver, unsigned index)
{
    return __atomic_load_n(&driver->queues[index].used[1], __ATOMIC_ACQUIRE);
}

// The next used element, if there is one.
static inline bool driver_poll(struct driver *driver, unsigned index, struct driver_used *used)
{
    struct driver_queue *queue = &driver->queues[index];

    if (driver_used_index(driver, index) == queue->used_seen)
        return false;
    size_t slot = queue->used_seen++ % queue->size;
    memcpy(used, (uint8_t *)queue->used + 4 + 8 * slot, sizeof(*used));
    return true;
}

static inline struct driver_used driver_wait_any(struct driver *driver, unsigned index)
{
    uint64_t deadline_ns = clock_monotonic_ns() + DRIVER_WAIT_NS;
    struct driver_used used = {0};

    while (!driver_poll(driver, index, &used)) {
        assert_true(clock_monotonic_ns() < deadline_ns);
        sched_yield();
    }
    return used;
}

// Waits for the next used element, which has to be `head`'s; returns the bytes written.
static inline uint32_t driver_wait(struct driver *driver, unsigned index, unsigned head)
{
    struct driver_used used = driver_wait_any(driver, index);
    assert_int_equal(used.head, head);
    return used.written;
}

// ---- Saved state -------------------------------------------------------------------------------

#define DRIVER_SLOT 3u

struct driver_state {
    uint8_t *bytes;
    size_t length_bytes;
};

// The caller sees to it that the device is paused or frozen; on its loop's thread. The bytes are
// freed by the caller.
static inline struct driver_state driver_save_here(struct virtio_device *device)
{
    struct state_writer *writer;
    struct driver_state state;
    const void *bytes;
    const int *fds;
    size_t fd_count;

    assert_int_equal(state_writer_create(&writer, false), 0);
    virtio_device_save(device, writer, DRIVER_SLOT);
    assert_int_equal(state_writer_finish(writer, &bytes, &state.length_bytes, &fds, &fd_count), 0);
    state.bytes = malloc(state.length_bytes);
    assert_non_null(state.bytes);
    memcpy(state.bytes, bytes, state.length_bytes);
    state_writer_destroy(writer);
    return state;
}

struct driver_save_call {
    struct virtio_device *device;
    struct driver_state state;
};

static inline void driver_save_on_loop(void *opaque)
{
    struct driver_save_call *call = opaque;
    call->state = driver_save_here(call->device);
}

static inline struct driver_state driver_save(struct driver *driver)
{
    struct driver_save_call call = {.device = driver->device};
    loop_call(driver->loop, driver_save_on_loop, &call);
    return call.state;
}

// Into a device that is not attached yet.
static inline int driver_load(struct virtio_device *device, const struct driver_state *state,
                              struct error *err)
{
    struct state_reader *reader;

    int failure = state_reader_create(&reader, state->bytes, state->length_bytes, NULL, 0, err);
    if (failure)
        return failure;
    failure = virtio_device_load(device, reader, DRIVER_SLOT, err);
    if (!failure)
        failure = state_reader_finish(reader, err);
    state_reader_destroy(reader);
    return failure;
}

// Whether the device's state is this one.
static inline void driver_check_state(struct virtio_device *device,
                                      const struct driver_state *state)
{
    struct driver_state own = driver_save_here(device);
    struct error err = {0};

    if (state_compare(state->bytes, state->length_bytes, own.bytes, own.length_bytes, &err))
        fail_msg("%s", err.message);
    free(own.bytes);
}

// What the guest knows of its device goes on to another monitor's, on the same RAM.
static inline void driver_move(struct driver *to, const struct driver *from)
{
    to->features = from->features;
    to->next_gpa = from->next_gpa;
    memcpy(to->queues, from->queues, sizeof(to->queues));
    for (unsigned i = 0; i < DRIVER_QUEUES; i++) {
        struct driver_queue *queue = &to->queues[i];
        if (queue->size == 0)
            continue;
        queue->desc = driver_ram(to, queue->desc_gpa);
        queue->avail = driver_ram(to, queue->avail_gpa);
        queue->used = driver_ram(to, queue->used_gpa);
    }
}

#endif
