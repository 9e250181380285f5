// SPDX-License-Identifier: BSD-2-Clause
// Inside the virtio room: what a device is to the transport (struct virtio_device and its
// operations) and what the transport gives to a device (virtqueues, chains, spans, configuration
// changes).
//
// How a device file looks: a struct with `struct virtio_device device` as its first member, static
// functions named as the operations they fill, one constant operations table, the constructor. A
// typical notify:
//
//     unsigned left = virtqueue_begin(queue);
//     while (left-- > 0 && virtqueue_pop(queue, &chain)) {
//         ... virtio_span_read(&chain.readable, ...), virtio_span_write(&chain.writable, ...)
//         virtqueue_push(queue, chain.head, written_bytes);
//     }
//     virtqueue_publish(queue);
//     virtqueue_end(queue);
//
// Threading invariant: every operation below, and every function that a device calls, runs on the
// loop's thread (or while no thread runs the loop). Hart threads only get as far as mmio.c; what
// they share with the loop's thread is marked "under lock" and devices need none of it.
#ifndef STRAKE_VIRTIO_DEVICE_H
#define STRAKE_VIRTIO_DEVICE_H

#include <pthread.h>
#include <sys/uio.h>

#include "handle/handle.h"
#include "virtio/virtio.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "virtio's fields are little-endian and are used as they are");

// Section 5: device types.
enum virtio_device_id {
    VIRTIO_ID_NET = 1,
    VIRTIO_ID_BLK = 2,
    VIRTIO_ID_CONSOLE = 3,
    VIRTIO_ID_RNG = 4,
    VIRTIO_ID_INPUT = 18,
    VIRTIO_ID_VSOCK = 19,
};

// Section 6: feature bits of the transport and the rings; offered by every device.
#define VIRTIO_F_INDIRECT_DESC (1ull << 28)
#define VIRTIO_F_EVENT_IDX (1ull << 29)
#define VIRTIO_F_VERSION_1 (1ull << 32)

#define VIRTIO_QUEUES_MAX (2 * VIRTIO_NET_PAIRS_MAX + 1)  // queues a device
// What devices name by handles (handle/handle.h); each device has a table of its own.
enum virtio_handle_type { VIRTIO_HANDLE_REQUEST = 1, VIRTIO_HANDLE_CONNECTION };

#define VIRTQUEUE_SIZE_MAX 256u              // entries a queue; a power of two
#define VIRTIO_CHAIN_MAX VIRTQUEUE_SIZE_MAX  // descriptors a chain, an indirect table's included

// ---- Spans and chains: guest buffers that have been checked ------------------------------------
//
// A span is a run of bytes scattered over guest RAM. The bytes belong to the guest and may change
// at any moment: copy once, then look.

struct virtio_span {
    struct iovec *iov;
    unsigned count;
    size_t bytes;  // sum of the lengths
};

// Copy from and to the span, starting `offset` bytes into it; return the bytes copied, fewer than
// `count` (none, even) where the span ends early.
size_t virtio_span_read(const struct virtio_span *span, size_t offset, void *bytes, size_t count);
size_t virtio_span_write(const struct virtio_span *span, size_t offset, const void *bytes,
                         size_t count);
// Make the span shorter by up to `count` bytes at its start or end.
void virtio_span_drop_front(struct virtio_span *span, size_t count);
void virtio_span_drop_back(struct virtio_span *span, size_t count);

// One request: a descriptor chain, completely validated. The spans point into `iov`: do not copy.
// The iovecs are private to the monitor; only what they point to is the guest's.
struct virtio_chain {
    uint16_t head;                // names the chain in virtqueue_push
    struct virtio_span readable;  // what the driver wrote for the device
    struct virtio_span writable;  // what the device may write
    struct iovec iov[VIRTIO_CHAIN_MAX];
};

// ---- Virtqueues (split, section 2.7) -----------------------------------------------------------

struct virtqueue {
    struct virtio_device *device;
    uint16_t index;

    // Registers, under lock; frozen while `ready`.
    bool ready;
    uint32_t size;
    uint64_t desc_gpa, driver_gpa, device_gpa;

    // Loop thread: the rings, NULL while the queue is not ready; how far the device has come.
    uint8_t *desc, *avail, *used;
    uint16_t avail_next;      // index of the next available entry to look at
    uint16_t used_next;       // index of the next used entry to write
    uint16_t used_published;  // the used index that the driver sees
    bool event_idx;
};

// Takes the next chain that the driver made available. False when there is none, when the queue is
// not ready, and when the device is paused, broken or not driven. A chain that breaks a rule breaks
// the device: nothing of it has been acted on.
bool virtqueue_pop(struct virtqueue *queue, struct virtio_chain *chain);
// Reads the chain of a head again that was popped, by this monitor or a former one, and not pushed.
// False when it breaks a rule, and when the rings are not to be touched. Also while paused.
bool virtqueue_again(struct virtqueue *queue, uint16_t head, struct virtio_chain *chain);
// Undoes the last `count` pops that have not been pushed; the next pop gives the same chains, read
// and checked anew. Only for a queue whose every popped chain is pushed in the order it was popped.
void virtqueue_unpop(struct virtqueue *queue, unsigned count);
// Gives a chain back, `written` bytes of its writable span filled from its start. The driver
// sees it after virtqueue_publish. Nothing happens when the queue was stopped or broken meanwhile.
void virtqueue_push(struct virtqueue *queue, uint16_t head, size_t written);
// Shows the driver all that was pushed, and interrupts it if it wants that.
void virtqueue_publish(struct virtqueue *queue);
// Begins a batch: asks the driver not to notify (a hint) and returns how many chains there are now.
// No more than these are worked on in one go, so that a driver that keeps adding chains cannot keep
// the loop from everything else.
unsigned virtqueue_begin(struct virtqueue *queue);
// Ends it: notifications are wanted again, and chains that have come meanwhile get a notify from
// the loop. A device that stopped early for want of something else than chains leaves this out, and
// calls virtio_device_kick when it can go on.
void virtqueue_end(struct virtqueue *queue);

// ---- Devices -----------------------------------------------------------------------------------

struct virtio_device_ops {
    const char *name;       // the kind: "blk", "net", ...
    uint32_t device_id;     // enum virtio_device_id
    uint64_t features;      // offered besides those of the transport
    uint16_t config_bytes;  // size of the configuration structure
    uint16_t queue_count;   // up to VIRTIO_QUEUES_MAX
    uint16_t queue_size;    // the most that QueueNum may be; a power of two

    // The driver writes `count` bytes into the configuration, which are inside. On a hart's thread,
    // with the lock held. NULL: the driver writes nothing.
    void (*config_write)(struct virtio_device *device, size_t offset, const void *bytes,
                         size_t count);
    // The driver has set DRIVER_OK; features are settled. A notify for each queue follows. May be
    // NULL.
    void (*activate)(struct virtio_device *device);
    // There may be new chains in the queue. Only while the device is driven, not paused, not
    // broken.
    void (*notify)(struct virtio_device *device, unsigned queue);
    // Finish what is in flight: after it returns guest memory is not touched and no queue is used
    // until resume, or reset. Both may be NULL: virtqueue_pop gives nothing while paused.
    void (*pause)(struct virtio_device *device);
    void (*resume)(struct virtio_device *device);
    // Forget every request and all that the driver set up. When it returns nothing of what was in
    // flight will touch guest memory any more. Also called before destroy. May be NULL.
    void (*reset)(struct virtio_device *device);

    // The device's own section ("virtio-KIND", instance `slot`); transport and queues are seen to.
    // `load` comes after the transport's state and, when there is a driver, after `activate`; the
    // device is paused, and no ring is touched until resume. On failure of `load` a reset follows.
    // Both may be NULL.
    void (*save)(struct virtio_device *device, struct state_writer *writer, unsigned slot);
    int (*load)(struct virtio_device *device, struct state_reader *reader, unsigned slot,
                struct error *err);

    // Requests that a handover leaves under way, see virtio.h: for devices on whose requests the
    // host works by itself. NULL elsewhere; freeze is then a pause.
    void (*freeze)(struct virtio_device *device);
    unsigned (*outstanding)(const struct virtio_device *device);
    void (*ended)(struct virtio_device *device, uint16_t head, uint32_t written);
    // Release everything, the struct itself too. The base has been taken down already.
    void (*destroy)(struct virtio_device *device);
};

struct virtio_device {
    const struct virtio_device_ops *ops;
    struct virtio_wiring wiring;
    uint64_t features;     // offered; constant once the constructor has returned
    void *config;          // configuration structure, ops->config_bytes long; under lock
    unsigned queue_count;  // constant once the constructor has returned
    struct virtqueue queues[VIRTIO_QUEUES_MAX];

    pthread_mutex_t lock;
    // Registers, under lock. The status is written by the loop's thread only, and driver_features
    // is frozen from FEATURES_OK to the next reset: the loop's thread reads these without.
    uint32_t status;
    uint32_t interrupt_status;
    uint32_t config_generation;
    uint32_t device_features_sel, driver_features_sel, queue_sel;
    uint64_t driver_features;

    // Loop thread.
    bool driven;  // DRIVER_OK
    bool paused;
    const char *broken;  // the rule that the guest broke, NULL when none

    // Loop thread: handover. `hands_off` comes with `paused`: another monitor may own the guest,
    // so that the rings are not to be touched (from save on when frozen, from load to resume).
    bool frozen, hands_off;
    unsigned slot;
    void (*ended)(void *opaque, unsigned slot, uint16_t head, uint32_t written);
    void *ended_opaque;
    bool (*settle)(void *opaque);  // NULL: no former monitor has requests under way
    void *settle_opaque;

    // Any thread: queues to notify (bit n: queue n) and what makes the loop do so.
    atomic_uint kicked;
    struct loop_wake *kick;
    struct log_limit log_limit;
};

// Sets up the base of a device that the constructor allocated zeroed; `config` lives as long as
// the device. The last step of a constructor that can fail: undoing it takes virtio_device_destroy.
// The constructor may afterwards add to device->features and device->queue_count.
BASE_NODISCARD int virtio_device_init(struct virtio_device *device,
                                      const struct virtio_device_ops *ops,
                                      const struct virtio_wiring *wiring, void *config,
                                      struct error *err);

// Whether the driver has accepted the feature. From activate on.
static inline bool virtio_device_has(const struct virtio_device *device, uint64_t feature)
{
    return (device->driver_features & feature) != 0;
}

// Whether queues may be worked on. Loop thread.
static inline bool virtio_device_running(const struct virtio_device *device)
{
    return device->driven && !device->paused && !device->broken;
}

// Refuses a state for what a table's bounds do not tell: returns -EINVAL.
int virtio_state_refuse(struct error *err, const char *section, unsigned slot, const char *field,
                        const char *why);
// For a device with ops->freeze: the chain `head` ended, may it be pushed? If not, the device keeps
// it until resume, and the monitor that goes on is told if there is one.
bool virtio_device_may_return(struct virtio_device *device, uint16_t head, uint32_t written);
// For a device with requests at a former monitor: waits until that has done with them. False when
// it does not answer: the device is broken then, and the requests stay outstanding.
bool virtio_device_settle(struct virtio_device *device);

// Changes a field of the configuration and tells the driver.
void virtio_device_config_set(struct virtio_device *device, size_t offset, const void *bytes,
                              size_t count);
// The guest broke `rule` (a static string, as in "blk: queue 0: RULE") in `queue` (NULL:
// elsewhere): DEVICE_NEEDS_RESET, and no queue is touched until the reset. Section 2.1.2.
void virtio_device_break(struct virtio_device *device, const struct virtqueue *queue,
                         const char *rule);
// Has ops->notify called for the queue from the loop, later. Any thread.
void virtio_device_kick(struct virtio_device *device, unsigned queue);

// ---- Between mmio.c, queue.c and state.c -------------------------------------------------------

// Section 2.1
enum {
    VIRTIO_STATUS_ACKNOWLEDGE = 1,
    VIRTIO_STATUS_DRIVER = 2,
    VIRTIO_STATUS_DRIVER_OK = 4,
    VIRTIO_STATUS_FEATURES_OK = 8,
    VIRTIO_STATUS_NEEDS_RESET = 64,
    VIRTIO_STATUS_FAILED = 128,
    VIRTIO_STATUS_OF_DRIVER = VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER |
                              VIRTIO_STATUS_DRIVER_OK | VIRTIO_STATUS_FEATURES_OK |
                              VIRTIO_STATUS_FAILED,
};
// Section 2.2: the driver may accept what was offered, and has to accept VIRTIO_F_VERSION_1.
bool virtio_features_acceptable(const struct virtio_device *device, uint64_t driver_features);

// Takes the rings into use, or gives them up. On failure returns the rule that was broken, and the
// queue is not in use.
const char *virtqueue_start(struct virtqueue *queue);
// As start, where the driver and another monitor had come to these indices.
const char *virtqueue_restart(struct virtqueue *queue, uint16_t avail_next, uint16_t used_next);
void virtqueue_stop(struct virtqueue *queue);
// Section 4.2.2, InterruptStatus: a used buffer, or a configuration change. 0 only drives the line
// again.
enum { VIRTIO_INTERRUPT_USED = 1, VIRTIO_INTERRUPT_CONFIG = 2 };
void virtio_device_interrupt(struct virtio_device *device, uint32_t reason);

#endif
