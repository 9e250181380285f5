// SPDX-License-Identifier: BSD-2-Clause
// queue: split virtqueues (section 2.7), and spans of guest memory.
//
// Everything in a ring is the guest's and may change while it is looked at. So each field is read
// once into a local, a chain is validated from its first descriptor to its last before any of it is
// handed out, and what is handed out (struct virtio_chain) is private to the monitor.
//
// Orderings, against a driver that runs on other threads of the host at the same time (section
// 2.7.13):
// - avail.idx is read with acquire or stronger: it pairs with the driver's release (its barrier
// between filling
//   the ring entry and storing the index); without it the entry or the descriptors could be read as
//   they were before.
// - used.idx is stored with release or stronger: the driver that sees the index sees the used
//   elements and the data in the buffers.
// - Suppression is two threads that each store one thing and then load the other's (the device:
//   used.idx, then used_event or avail.flags; avail_event or used.flags, then avail.idx; the
//   driver: the mirror of it). Store and load must not be swapped, or both sides may conclude that
//   the other needs no telling, and a request hangs. So these stores are sequentially consistent
//   exchanges. A release store and a fence would do the same and cost the same; the exchange is
//   used because ThreadSanitizer understands it.
#include <string.h>

#include "virtio/device.h"

// ---- Ring layout, section 2.7.5, 2.7.6, 2.7.8 --------------------------------------------------

enum {
    DESC_BYTES = 16,
    DESC_ALIGN = 16,
    AVAIL_ALIGN = 2,
    USED_ALIGN = 4,
    RING_FLAGS = 0,  // of both rings: u16 flags, u16 index, entries, u16 event index
    RING_INDEX = 2,
    RING_ENTRIES = 4,
    AVAIL_ENTRY_BYTES = 2,
    USED_ENTRY_BYTES = 8,
    RING_OVERHEAD_BYTES = 6,
};

enum { DESC_F_NEXT = 1, DESC_F_WRITE = 2, DESC_F_INDIRECT = 4 };
enum { AVAIL_F_NO_INTERRUPT = 1, USED_F_NO_NOTIFY = 1 };

// The whole of a chain may be 2^32 bytes (section 2.7.4).
#define CHAIN_BYTES_MAX (1ull << 32)

struct descriptor {
    uint64_t gpa;
    uint32_t bytes;
    uint16_t flags, next;
};
_Static_assert(sizeof(struct descriptor) == DESC_BYTES, "as in guest memory");

struct used_element {
    uint32_t head, written;
};
_Static_assert(sizeof(struct used_element) == USED_ENTRY_BYTES, "as in guest memory");

// Both rings are aligned to 2 and more (checked by virtqueue_start).
static uint16_t *ring_field(uint8_t *ring, size_t offset)
{
    return (uint16_t *)(void *)(ring + offset);
}

static uint16_t *avail_used_event(struct virtqueue *queue)
{
    return ring_field(queue->avail, RING_ENTRIES + AVAIL_ENTRY_BYTES * queue->size);
}

static uint16_t *used_avail_event(struct virtqueue *queue)
{
    return ring_field(queue->used, RING_ENTRIES + USED_ENTRY_BYTES * queue->size);
}

static uint16_t avail_index(struct virtqueue *queue)
{
    return __atomic_load_n(ring_field(queue->avail, RING_INDEX), __ATOMIC_SEQ_CST);
}

// ---- Spans -------------------------------------------------------------------------------------

// Walks the bytes [offset, offset+count) of the span, handing each contiguous run to memcpy in the
// asked direction.
static size_t span_copy(const struct virtio_span *span, size_t offset, uint8_t *bytes, size_t count,
                        bool to_span)
{
    size_t done = 0;
    for (unsigned i = 0; i < span->count && done < count; i++) {
        const struct iovec *iov = &span->iov[i];
        if (offset >= iov->iov_len) {
            offset -= iov->iov_len;
            continue;
        }
        size_t run = iov->iov_len - offset;
        if (run > count - done)
            run = count - done;
        uint8_t *guest = (uint8_t *)iov->iov_base + offset;
        if (to_span)
            memcpy(guest, bytes + done, run);
        else
            memcpy(bytes + done, guest, run);
        done += run;
        offset = 0;
    }
    return done;
}

size_t virtio_span_read(const struct virtio_span *span, size_t offset, void *bytes, size_t count)
{
    return span_copy(span, offset, bytes, count, false);
}

size_t virtio_span_write(const struct virtio_span *span, size_t offset, const void *bytes,
                         size_t count)
{
    return span_copy(span, offset, (uint8_t *)bytes, count, true);
}

void virtio_span_drop_front(struct virtio_span *span, size_t count)
{
    while (span->count > 0 && count > 0) {
        size_t run = span->iov->iov_len < count ? span->iov->iov_len : count;
        span->iov->iov_base = (uint8_t *)span->iov->iov_base + run;
        span->iov->iov_len -= run;
        span->bytes -= run;
        count -= run;
        if (span->iov->iov_len == 0) {
            span->iov++;
            span->count--;
        }
    }
}

void virtio_span_drop_back(struct virtio_span *span, size_t count)
{
    while (span->count > 0 && count > 0) {
        struct iovec *last = &span->iov[span->count - 1];
        size_t run = last->iov_len < count ? last->iov_len : count;
        last->iov_len -= run;
        span->bytes -= run;
        count -= run;
        if (last->iov_len == 0)
            span->count--;
    }
}

// ---- Start and stop ----------------------------------------------------------------------------

static uint8_t *ring_hva(const struct virtqueue *queue, uint64_t gpa, unsigned align,
                         uint64_t length_bytes)
{
    if (gpa % align != 0)
        return NULL;
    return memory_ram_hva(queue->device->wiring.memory, gpa, length_bytes);
}

const char *virtqueue_start(struct virtqueue *queue)
{
    uint64_t size = queue->size;

    if (size == 0 || size > queue->device->ops->queue_size || (size & (size - 1)) != 0)
        return "the queue's size is not a power of two up to the most there may be";
    uint8_t *desc = ring_hva(queue, queue->desc_gpa, DESC_ALIGN, DESC_BYTES * size);
    uint8_t *avail = ring_hva(queue, queue->driver_gpa, AVAIL_ALIGN,
                              RING_OVERHEAD_BYTES + AVAIL_ENTRY_BYTES * size);
    uint8_t *used = ring_hva(queue, queue->device_gpa, USED_ALIGN,
                             RING_OVERHEAD_BYTES + USED_ENTRY_BYTES * size);
    if (!desc || !avail || !used)
        return "a part of the queue is not aligned or not in RAM";

    queue->desc = desc;
    queue->avail = avail;
    queue->used = used;
    queue->avail_next = queue->used_next = queue->used_published = 0;
    queue->event_idx = virtio_device_has(queue->device, VIRTIO_F_EVENT_IDX);
    return NULL;
}

const char *virtqueue_restart(struct virtqueue *queue, uint16_t avail_next, uint16_t used_next)
{
    if ((uint16_t)(avail_next - used_next) > queue->size)
        return "more chains are with the device than the queue has entries";
    const char *rule = virtqueue_start(queue);
    queue->avail_next = avail_next;
    queue->used_next = queue->used_published = used_next;
    return rule;
}

void virtqueue_stop(struct virtqueue *queue)
{
    queue->desc = queue->avail = queue->used = NULL;
    queue->avail_next = queue->used_next = queue->used_published = 0;
}

// Whether chains may be taken now.
static bool queue_usable(const struct virtqueue *queue)
{
    return queue->desc && virtio_device_running(queue->device);
}

// Whether used buffers may still be written: also while paused, when what was in flight ends.
static bool queue_pushable(const struct virtqueue *queue)
{
    const struct virtio_device *device = queue->device;
    return queue->desc && device->driven && !device->broken && !device->hands_off;
}

// ---- Pop: the checked way from a guest's ring to a chain ---------------------------------------

// Where descriptors come from: the queue's table, then possibly an indirect one.
struct table {
    const uint8_t *descriptors;
    uint32_t count;
};

// Reads a descriptor exactly once. The barrier keeps the compiler from going back to guest memory
// for a field it has checked already. An indirect table need not be aligned, hence the memcpy.
static struct descriptor descriptor_read(const struct table *table, uint32_t index)
{
    struct descriptor local;
    memcpy(&local, table->descriptors + (size_t)index * DESC_BYTES, sizeof(local));
    __asm__ volatile("" : "+m"(local));
    return local;
}

// Appends one buffer to the chain; returns the rule it breaks, or NULL.
//
// What may be written is made this partition's own here, where other partitions share the RAM: the
// host's system calls can not do that, and a monitor that hands the partition on must not do it
// later.
static const char *chain_append(struct memory *memory, struct virtio_chain *chain,
                                const struct descriptor *descriptor)
{
    bool writable = descriptor->flags & DESC_F_WRITE;
    unsigned count = chain->readable.count + chain->writable.count;

    if (count == VIRTIO_CHAIN_MAX)
        return "a chain is longer than a queue";
    if (!writable && chain->writable.count > 0)
        return "a readable descriptor follows a writable one";
    if (descriptor->bytes > CHAIN_BYTES_MAX - chain->readable.bytes - chain->writable.bytes)
        return "a chain holds more than 2^32 bytes";
    void *hva = memory_ram_hva(memory, descriptor->gpa, descriptor->bytes);
    if (!hva)
        return "a buffer is empty or not in RAM";
    if (writable)
        memory_own(memory, descriptor->gpa, descriptor->bytes);

    struct virtio_span *span = writable ? &chain->writable : &chain->readable;
    chain->iov[count] = (struct iovec){.iov_base = hva, .iov_len = descriptor->bytes};
    span->count++;
    span->bytes += descriptor->bytes;
    return NULL;
}

// Section 2.7.5.3: the flag must have been negotiated, may not stand in an indirect table, nor
// together with NEXT; the table is a whole number of descriptors.
static const char *table_enter_indirect(const struct virtqueue *queue, bool inside,
                                        const struct descriptor *descriptor, struct table *table)
{
    if (!virtio_device_has(queue->device, VIRTIO_F_INDIRECT_DESC))
        return "an indirect descriptor without VIRTIO_F_INDIRECT_DESC";
    if (inside)
        return "an indirect descriptor inside an indirect table";
    if (descriptor->flags & DESC_F_NEXT)
        return "an indirect descriptor with a next one";
    if (descriptor->bytes % DESC_BYTES != 0 || descriptor->bytes / DESC_BYTES > VIRTIO_CHAIN_MAX)
        return "an indirect table of a bad size";
    table->descriptors =
        memory_ram_hva(queue->device->wiring.memory, descriptor->gpa, descriptor->bytes);
    table->count = descriptor->bytes / DESC_BYTES;
    return table->descriptors ? NULL : "an indirect table is empty or not in RAM";
}

// Follows the chain from its head. The steps in each of the two tables there may be are bounded by
// the table's length, so a loop of descriptors is a chain too long.
static const char *chain_walk(const struct virtqueue *queue, struct virtio_chain *chain)
{
    struct table table = {.descriptors = queue->desc, .count = queue->size};
    uint32_t index = chain->head, steps = 0;
    bool inside = false;

    for (;;) {
        if (index >= table.count)
            return "a descriptor's index is beyond its table";
        if (steps++ == table.count)
            return "a chain is longer than its table: it loops";
        struct descriptor descriptor = descriptor_read(&table, index);
        if (descriptor.flags & DESC_F_INDIRECT) {
            const char *rule = table_enter_indirect(queue, inside, &descriptor, &table);
            if (rule)
                return rule;
            inside = true;
            index = steps = 0;
            continue;
        }
        const char *rule = chain_append(queue->device->wiring.memory, chain, &descriptor);
        if (rule || !(descriptor.flags & DESC_F_NEXT))
            return rule;
        index = descriptor.next;
    }
}

// The number of chains that wait, or -1 when the index makes no sense. A driver can have as many
// chains with the device as the ring has entries, counted from the last one given back.
static int queue_pending(struct virtqueue *queue)
{
    uint16_t index = avail_index(queue);
    uint16_t pending = index - queue->avail_next, outstanding = index - queue->used_next;

    if (pending > queue->size || outstanding > queue->size) {
        virtio_device_break(queue->device, queue,
                            "the available index has moved by more than the queue's size");
        return -1;
    }
    return pending;
}

static bool queue_has_chain(struct virtqueue *queue)
{
    return queue_usable(queue) && queue_pending(queue) > 0;
}

static bool chain_read(struct virtqueue *queue, uint16_t head, struct virtio_chain *chain)
{
    chain->head = head;
    chain->readable = chain->writable = (struct virtio_span){.iov = chain->iov};
    const char *rule = chain_walk(queue, chain);
    if (rule) {
        virtio_device_break(queue->device, queue, rule);
        return false;
    }
    chain->writable.iov += chain->readable.count;
    return true;
}

bool virtqueue_pop(struct virtqueue *queue, struct virtio_chain *chain)
{
    if (!queue_has_chain(queue))
        return false;

    size_t slot = queue->avail_next & (queue->size - 1);
    uint16_t *entry = ring_field(queue->avail, RING_ENTRIES + AVAIL_ENTRY_BYTES * slot);
    if (!chain_read(queue, __atomic_load_n(entry, __ATOMIC_RELAXED), chain))
        return false;
    queue->avail_next++;
    return true;
}

bool virtqueue_again(struct virtqueue *queue, uint16_t head, struct virtio_chain *chain)
{
    return queue_pushable(queue) && chain_read(queue, head, chain);
}

void virtqueue_unpop(struct virtqueue *queue, unsigned count)
{
    queue->avail_next -= count;
}

// ---- Push --------------------------------------------------------------------------------------

void virtqueue_push(struct virtqueue *queue, uint16_t head, size_t written)
{
    if (!queue_pushable(queue))
        return;

    struct used_element element = {
        .head = head,
        .written = written < UINT32_MAX ? written : UINT32_MAX,
    };
    size_t slot = queue->used_next & (queue->size - 1);
    memcpy(queue->used + RING_ENTRIES + USED_ENTRY_BYTES * slot, &element, sizeof(element));
    queue->used_next++;
}

// Sections 2.7.7 and 2.7.10: whether the driver wants to hear of the used entries from `old` on.
static bool interrupt_wanted(struct virtqueue *queue, uint16_t old)
{
    if (!queue->event_idx) {
        uint16_t flags = __atomic_load_n(ring_field(queue->avail, RING_FLAGS), __ATOMIC_SEQ_CST);
        return !(flags & AVAIL_F_NO_INTERRUPT);
    }
    uint16_t event = __atomic_load_n(avail_used_event(queue), __ATOMIC_SEQ_CST);
    uint16_t past_event = queue->used_published - event - 1;
    return past_event < (uint16_t)(queue->used_published - old);
}

void virtqueue_publish(struct virtqueue *queue)
{
    uint16_t old = queue->used_published;

    if (!queue_pushable(queue) || queue->used_next == old)
        return;
    __atomic_exchange_n(ring_field(queue->used, RING_INDEX), queue->used_next, __ATOMIC_SEQ_CST);
    queue->used_published = queue->used_next;
    if (interrupt_wanted(queue, old))
        virtio_device_interrupt(queue->device, VIRTIO_INTERRUPT_USED);
}

// ---- Notifications from the driver -------------------------------------------------------------

unsigned virtqueue_begin(struct virtqueue *queue)
{
    if (!queue_usable(queue))
        return 0;
    // With the event index, avail_event stays where it was left: the driver has passed it.
    if (!queue->event_idx)
        __atomic_store_n(ring_field(queue->used, RING_FLAGS), USED_F_NO_NOTIFY, __ATOMIC_RELAXED);
    int pending = queue_pending(queue);
    return pending > 0 ? pending : 0;
}

void virtqueue_end(struct virtqueue *queue)
{
    if (!queue_usable(queue))
        return;
    if (queue->event_idx)
        __atomic_exchange_n(used_avail_event(queue), queue->avail_next, __ATOMIC_SEQ_CST);
    else
        __atomic_exchange_n(ring_field(queue->used, RING_FLAGS), 0, __ATOMIC_SEQ_CST);
    if (queue_has_chain(queue))
        virtio_device_kick(queue->device, queue->index);
}
