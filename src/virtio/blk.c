// SPDX-License-Identifier: BSD-2-Clause
// blk: the block device (section 5.2) on a raw file or block device, one queue.
//
// A request is one or more operations on the host, one after the other: a short read or write is
// continued, and zeros are written where they cannot be made by fallocate. Many requests are in
// flight at once; they end in any order.
//
// Trust: what is wrong with a request (range, alignment, type) is answered in its status byte; only
// a request that has no place for a status, or no header, breaks the device.
//
// Lifetimes: the host side knows a request by a handle, never by a pointer. A reset releases every
// handle in use, then waits until the host side is done with guest memory; the completions that
// come meanwhile resolve to nothing.
//
// Handover: what is under way in the old monitor (O) when it freezes stays there, continuations
// included, and ends in guest memory up to the status byte. In the new one (N) each such head is a
// request that is ELSEWHERE until O reports its end. N may not see the guest's memory as its own
// before: so a reset, a pause and the end of a queue in N have O see its requests through first
// (virtio_device_settle), and only what O can no longer do itself is done again in N. Doing a
// request twice is harmless as long as the driver has not got it back: reads, writes, zeroes,
// discards and flushes end the same. What would not be: O's write that lands after the driver has
// got the head back and has written the sectors anew. Hence nothing is done again while O lives.
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "virtio/device.h"
#include "virtio/disk.h"

// ---- Section 5.2.3 to 5.2.6 --------------------------------------------------------------------

#define VIRTIO_BLK_F_SIZE_MAX (1ull << 1)
#define VIRTIO_BLK_F_SEG_MAX (1ull << 2)
#define VIRTIO_BLK_F_RO (1ull << 5)
#define VIRTIO_BLK_F_BLK_SIZE (1ull << 6)
#define VIRTIO_BLK_F_FLUSH (1ull << 9)
#define VIRTIO_BLK_F_TOPOLOGY (1ull << 10)
#define VIRTIO_BLK_F_DISCARD (1ull << 13)
#define VIRTIO_BLK_F_WRITE_ZEROES (1ull << 14)

enum {
    TYPE_IN = 0,
    TYPE_OUT = 1,
    TYPE_FLUSH = 4,
    TYPE_GET_ID = 8,
    TYPE_DISCARD = 11,
    TYPE_WRITE_ZEROES = 13
};
enum { STATUS_OK = 0, STATUS_IOERR = 1, STATUS_UNSUPP = 2 };

#define SECTOR_BYTES 512u

struct config_space {
    uint64_t capacity_sectors;
    uint32_t size_max_bytes, seg_max;
    uint8_t geometry[4];
    uint32_t blk_size_bytes;
    uint8_t physical_block_exp, alignment_offset;
    uint16_t min_io_blocks;
    uint32_t opt_io_blocks;
    uint8_t writeback, unused0;
    uint16_t num_queues;
    uint32_t max_discard_sectors, max_discard_seg, discard_alignment_sectors;
    uint32_t max_write_zeroes_sectors, max_write_zeroes_seg;
    uint8_t write_zeroes_may_unmap, unused1[3];
} __attribute__((packed));
_Static_assert(sizeof(struct config_space) == 60, "section 5.2.4");

struct header {
    uint32_t type, reserved;
    uint64_t sector;
};

struct range {
    uint64_t sector;
    uint32_t sectors, flags;
};
#define RANGE_F_UNMAP 1u

// ---- Limits that the configuration tells the driver --------------------------------------------

#define QUEUE_SIZE VIRTQUEUE_SIZE_MAX
#define SEG_MAX (VIRTIO_CHAIN_MAX - 2)  // header and status take one each
#define SEG_BYTES_MAX (256u << 10)
#define DATA_BYTES_MAX ((size_t)SEG_MAX * SEG_BYTES_MAX)
#define DISCARD_SECTORS_MAX (1u << 21)
// Zeros that have to be written are one write of a vector that repeats this buffer.
static const uint8_t zeros[64 << 10];
#define ZEROES_SECTORS_MAX (VIRTIO_CHAIN_MAX * sizeof(zeros) / SECTOR_BYTES)

// ---- State -------------------------------------------------------------------------------------

enum request_state {
    FREE,
    UNDER_WAY,
    ELSEWHERE,  // a former monitor has it under way; only its head is known here
    ENDED,      // but the ring may not be touched: `written` is for the used ring, later
};

struct request {
    enum request_state state;
    uint32_t written;
    uint64_t handle;
    const struct request_type *type;
    size_t done_bytes;        // moved so far
    struct virtio_span data;  // what is left to move
    uint8_t *status;          // in guest memory
    struct disk_op op;        // the one under way
    uint16_t head;
    struct virtio_chain *chain;  // apart: looking through all requests is to touch few pages
};

struct blk {
    struct virtio_device device;
    struct config_space config;
    int fd;
    bool read_only;
    char serial[20];
    struct disk *disk;
    struct request *requests;  // QUEUE_SIZE of them
    struct virtio_chain *chains;
    struct handle_table *names;  // of those in use
    uint16_t free[QUEUE_SIZE];
    unsigned free_count;
};

// ---- The table of requests ---------------------------------------------------------------------

static struct request *request_take(struct blk *blk)
{
    if (blk->free_count == 0)
        return NULL;
    struct request *request = &blk->requests[blk->free[blk->free_count - 1]];
    if (handle_table_alloc(blk->names, request, VIRTIO_HANDLE_REQUEST, &request->handle)) {
        virtio_device_break(&blk->device, NULL, "the host has no memory for a request");
        return NULL;
    }
    blk->free_count--;
    request->state = UNDER_WAY;
    return request;
}

static void request_release(struct blk *blk, struct request *request)
{
    handle_table_release(blk->names, request->handle, VIRTIO_HANDLE_REQUEST, NULL);
    request->state = FREE;
    blk->free[blk->free_count++] = request - blk->requests;
}

// Requests live as long as the device, so what was resolved may be used beyond the read section.
static struct request *request_resolve(const struct blk *blk, uint64_t handle)
{
    handle_read_lock();
    struct request *request = handle_table_resolve(blk->names, handle, VIRTIO_HANDLE_REQUEST);
    handle_read_unlock();
    return request;
}

static unsigned requests_in(const struct blk *blk, enum request_state state)
{
    unsigned count = 0;
    for (size_t i = 0; i < QUEUE_SIZE; i++)
        count += blk->requests[i].state == state;
    return count;
}

// ---- A request's way ---------------------------------------------------------------------------

static void request_return(struct blk *blk, struct request *request)
{
    virtqueue_push(&blk->device.queues[0], request->head, request->written);
    request_release(blk, request);
}

static void request_end(struct blk *blk, struct request *request, uint32_t written)
{
    request->state = ENDED;
    request->written = written;
    if (virtio_device_may_return(&blk->device, request->head, written))
        request_return(blk, request);
}

static void request_finish(struct blk *blk, struct request *request, uint8_t status)
{
    *request->status = status;
    request_end(blk, request, request->done_bytes + 1);
}

static bool in_capacity(const struct blk *blk, uint64_t sector, uint64_t bytes)
{
    return bytes % SECTOR_BYTES == 0 && sector <= blk->config.capacity_sectors &&
           bytes / SECTOR_BYTES <= blk->config.capacity_sectors - sector;
}

static void request_submit(struct blk *blk, struct request *request)
{
    request->op.handle = request->handle;
    request->op.iov = request->data.iov;
    request->op.iov_count = request->data.count;
    disk_submit(blk->disk, &request->op);
}

static void transfer(struct blk *blk, struct request *request, uint64_t sector)
{
    size_t bytes = request->data.bytes;

    if (bytes > DATA_BYTES_MAX || !in_capacity(blk, sector, bytes)) {
        request_finish(blk, request, STATUS_IOERR);
    } else if (bytes == 0) {
        request_finish(blk, request, STATUS_OK);
    } else {
        request->op.offset_bytes = sector * SECTOR_BYTES;
        request_submit(blk, request);
    }
}

static void start_in(struct blk *blk, struct request *request, uint64_t sector)
{
    request->data = request->chain->writable;
    request->op.kind = DISK_READ;
    transfer(blk, request, sector);
}

// Section 5.2.6.2: where the driver does not know of flushing, a write that is complete is on the
// disk.
static enum disk_kind write_kind(const struct blk *blk)
{
    return virtio_device_has(&blk->device, VIRTIO_BLK_F_FLUSH) ? DISK_WRITE : DISK_WRITE_DURABLE;
}

static void start_out(struct blk *blk, struct request *request, uint64_t sector)
{
    request->data = request->chain->readable;
    request->op.kind = write_kind(blk);
    if (blk->read_only)
        request_finish(blk, request, STATUS_IOERR);
    else
        transfer(blk, request, sector);
}

static void start_flush(struct blk *blk, struct request *request, uint64_t sector)
{
    (void)sector;
    request->op.kind = DISK_FLUSH;
    request_submit(blk, request);
}

static void start_get_id(struct blk *blk, struct request *request, uint64_t sector)
{
    (void)sector;
    request->done_bytes =
        virtio_span_write(&request->chain->writable, 0, blk->serial, sizeof(blk->serial));
    request_finish(blk, request, STATUS_OK);
}

// Discard and write-zeroes carry one range (the configuration allows no more). Returns the status
// that ends the request now, or -1.
static int range_prepare(const struct blk *blk, struct request *request, uint32_t flags_known,
                         uint64_t sectors_max, struct range *range)
{
    if (blk->read_only || request->chain->readable.bytes != sizeof(*range))
        return STATUS_IOERR;
    virtio_span_read(&request->chain->readable, 0, range, sizeof(*range));
    if (range->flags & ~flags_known)
        return STATUS_UNSUPP;
    uint64_t bytes = (uint64_t)range->sectors * SECTOR_BYTES;
    if (range->sectors > sectors_max || !in_capacity(blk, range->sector, bytes))
        return STATUS_IOERR;
    request->op.offset_bytes = range->sector * SECTOR_BYTES;
    request->op.length_bytes = bytes;
    return bytes == 0 ? STATUS_OK : -1;
}

static void start_discard(struct blk *blk, struct request *request, uint64_t sector)
{
    struct range range;
    int status = range_prepare(blk, request, 0, DISCARD_SECTORS_MAX, &range);

    (void)sector;
    request->op.kind = DISK_PUNCH;
    if (status >= 0)
        request_finish(blk, request, status);
    else
        request_submit(blk, request);
}

static void start_write_zeroes(struct blk *blk, struct request *request, uint64_t sector)
{
    struct range range;
    int status = range_prepare(blk, request, RANGE_F_UNMAP, ZEROES_SECTORS_MAX, &range);

    (void)sector;
    if (status >= 0) {
        request_finish(blk, request, status);
        return;
    }
    request->op.kind = range.flags & RANGE_F_UNMAP ? DISK_PUNCH : DISK_ZERO;
    request_submit(blk, request);
}

static const struct request_type {
    uint32_t id;
    const char *name;
    void (*start)(struct blk *blk, struct request *request, uint64_t sector);
} request_types[] = {
    {TYPE_IN, "read", start_in},
    {TYPE_OUT, "write", start_out},
    {TYPE_FLUSH, "flush", start_flush},
    {TYPE_GET_ID, "get-id", start_get_id},
    {TYPE_DISCARD, "discard", start_discard},
    {TYPE_WRITE_ZEROES, "write-zeroes", start_write_zeroes},
};

static void request_start(struct blk *blk, struct request *request, const struct header *header)
{
    struct virtio_chain *chain = request->chain;

    request->done_bytes = 0;
    virtio_span_drop_front(&chain->readable, sizeof(*header));
    const struct iovec *last = &chain->writable.iov[chain->writable.count - 1];
    request->status = (uint8_t *)last->iov_base + last->iov_len - 1;
    virtio_span_drop_back(&chain->writable, 1);
    for (size_t i = 0; i < BASE_COUNT_OF(request_types); i++) {
        if (request_types[i].id == header->type) {
            request->type = &request_types[i];
            request->type->start(blk, request, header->sector);
            return;
        }
    }
    request_finish(blk, request, STATUS_UNSUPP);
}

// ---- The host side's answers -------------------------------------------------------------------

// The range goes on as a write of zeros; the vector takes the place of the chain's.
static void write_zeros_instead(struct blk *blk, struct request *request)
{
    struct virtio_span *data = &request->data;

    *data = (struct virtio_span){.iov = request->chain->iov, .bytes = request->op.length_bytes};
    for (size_t left = data->bytes; left > 0; left -= data->iov[data->count++].iov_len)
        data->iov[data->count] = (struct iovec){
            .iov_base = (void *)zeros,
            .iov_len = left < sizeof(zeros) ? left : sizeof(zeros),
        };
    request->op.kind = write_kind(blk);
    request_submit(blk, request);
}

static bool is_transfer(const struct request *request)
{
    return request->op.kind <= DISK_WRITE_DURABLE;
}

static void request_failed(struct blk *blk, struct request *request, int failure)
{
    bool no_fallocate = failure == -EOPNOTSUPP || failure == -EINVAL;

    if (failure == -EINTR) {
        request_submit(blk, request);
    } else if (no_fallocate && !is_transfer(request) && request->type->id == TYPE_WRITE_ZEROES) {
        write_zeros_instead(blk, request);
    } else if (no_fallocate && request->type->id == TYPE_DISCARD) {
        request_finish(blk, request, STATUS_OK);  // a discard is advice
    } else {
        log_limited(&blk->device.log_limit, LOG_ERROR,
                    "virtio blk (interrupt %u): %s at byte %llu of the disk: %s",
                    blk->device.wiring.irq.source, request->type->name,
                    (unsigned long long)request->op.offset_bytes, strerror(-failure));
        request_finish(blk, request, STATUS_IOERR);
    }
}

static void op_done(void *opaque, uint64_t handle, int result)
{
    struct blk *blk = opaque;
    struct request *request = request_resolve(blk, handle);

    if (!request || request->state != UNDER_WAY)
        return;
    if (result < 0) {
        request_failed(blk, request, result);
    } else if (!is_transfer(request)) {
        request_finish(blk, request, STATUS_OK);
    } else if (result == 0) {
        request_failed(blk, request, -EIO);  // the file has become shorter
    } else {
        virtio_span_drop_front(&request->data, result);
        request->done_bytes += request->type->id == TYPE_IN ? (size_t)result : 0;
        request->op.offset_bytes += result;
        if (request->data.bytes > 0)
            request_submit(blk, request);
        else
            request_finish(blk, request, STATUS_OK);
    }
}

static void settled(void *opaque)
{
    struct blk *blk = opaque;
    virtqueue_publish(&blk->device.queues[0]);
}

// ---- Requests from the ring --------------------------------------------------------------------

// Takes a request whose chain is there.
static bool request_begin(struct blk *blk, struct request *request)
{
    struct virtio_chain *chain = request->chain;
    struct header header;

    if (virtio_span_read(&chain->readable, 0, &header, sizeof(header)) < sizeof(header) ||
        chain->writable.bytes == 0) {
        request_release(blk, request);
        virtio_device_break(&blk->device, &blk->device.queues[0],
                            "a request has no header or no status byte");
        return false;
    }
    request->state = UNDER_WAY;
    request_start(blk, request, &header);
    return true;
}

static bool next_request(struct blk *blk, struct virtqueue *queue)
{
    struct request *request = request_take(blk);

    if (!request)
        return false;
    if (!virtqueue_pop(queue, request->chain)) {
        request_release(blk, request);
        return false;
    }
    request->head = request->chain->head;
    return request_begin(blk, request);
}

// ---- Requests from and to other monitors -------------------------------------------------------

// Does again what a former monitor has not done. The driver may have changed the descriptors since:
// they are looked at anew. A device that is broken, or breaks by that, forgets them.
static void do_again(struct blk *blk)
{
    for (size_t i = 0; i < QUEUE_SIZE; i++) {
        struct request *request = &blk->requests[i];
        if (request->state != ELSEWHERE)
            continue;
        if (virtqueue_again(&blk->device.queues[0], request->head, request->chain))
            request_begin(blk, request);
        else
            request_release(blk, request);
    }
    disk_kick(blk->disk);
    virtqueue_publish(&blk->device.queues[0]);
}

// Has the former monitor end what it has under way, and does here what it did not.
static void take_back(struct blk *blk)
{
    if (requests_in(blk, ELSEWHERE) > 0 && virtio_device_settle(&blk->device))
        do_again(blk);
}

static void ended(struct virtio_device *device, uint16_t head, uint32_t written)
{
    struct blk *blk = BASE_CONTAINER_OF(device, struct blk, device);

    for (size_t i = 0; i < QUEUE_SIZE; i++) {
        struct request *request = &blk->requests[i];
        if (request->state == ELSEWHERE && request->head == head) {
            request_end(blk, request, written);
            break;
        }
    }
    virtqueue_publish(&device->queues[0]);
}

static unsigned outstanding(const struct virtio_device *device)
{
    const struct blk *blk = BASE_CONTAINER_OF(device, struct blk, device);
    return requests_in(blk, device->frozen ? UNDER_WAY : ELSEWHERE);
}

// ---- Saved state -------------------------------------------------------------------------------
//
// The disk is the host's and is not in it; but the guest knows its size, and whether it may write.

struct blk_state {
    uint64_t capacity_sectors;
    bool read_only;
    struct state_list outstanding;  // of struct outstanding_state, by head
};

struct outstanding_state {
    uint16_t head;
};

static const struct state_field outstanding_fields[] = {
    STATE_FIELD(struct outstanding_state, head, STATE_U16, 1, QUEUE_SIZE - 1),
    {.name = NULL},
};

static const struct state_schema outstanding_schema = {
    .name = "request",
    .version = 1,
    .struct_bytes = sizeof(struct outstanding_state),
    .fields = outstanding_fields,
};

static const struct state_field blk_fields[] = {
    STATE_FIELD(struct blk_state, capacity_sectors, STATE_U64, 1, 0),
    STATE_FIELD(struct blk_state, read_only, STATE_BOOL, 1, 0),
    STATE_LIST_OF(struct blk_state, outstanding, &outstanding_schema, 1, QUEUE_SIZE),
    {.name = NULL},
};

static const struct state_schema blk_schema = {
    .name = "virtio-blk",
    .version = 1,
    .struct_bytes = sizeof(struct blk_state),
    .fields = blk_fields,
};

static int by_head(const void *a, const void *b)
{
    return ((const struct outstanding_state *)a)->head -
           ((const struct outstanding_state *)b)->head;
}

// By head, so that two monitors with the same requests have the same state. A hostile driver can
// have the same head with the device several times.
static void save(struct virtio_device *device, struct state_writer *writer, unsigned slot)
{
    struct blk *blk = BASE_CONTAINER_OF(device, struct blk, device);
    struct outstanding_state heads[QUEUE_SIZE];
    size_t count = 0;

    for (size_t i = 0; i < QUEUE_SIZE; i++)
        if (blk->requests[i].state != FREE)
            heads[count++].head = blk->requests[i].head;
    qsort(heads, count, sizeof(*heads), by_head);
    const struct blk_state state = {
        .capacity_sectors = blk->config.capacity_sectors,
        .read_only = blk->read_only,
        .outstanding = {.elements = heads, .count = count},
    };
    state_write(writer, &blk_schema, slot, &state);
}

// Every chain that was popped and not pushed is outstanding; a device that broke lost some.
static int blk_acceptable(const struct blk *blk, const struct blk_state *state, unsigned slot,
                          struct error *err)
{
    const struct virtqueue *queue = &blk->device.queues[0];
    uint16_t with_device = queue->avail_next - queue->used_next;
    const struct outstanding_state *heads = state->outstanding.elements;
    const char *why = NULL;

    if (state->capacity_sectors != blk->config.capacity_sectors)
        return virtio_state_refuse(err, blk_schema.name, slot, "capacity_sectors",
                                   "the disk has another size now");
    if (state->read_only != blk->read_only)
        return virtio_state_refuse(err, blk_schema.name, slot, "read_only",
                                   "it is not so that the disk may be written now as then");
    if (blk->device.broken ? state->outstanding.count > with_device
                           : state->outstanding.count != with_device)
        why = "there are not as many as the queue's indices tell";
    for (size_t i = 0; i < state->outstanding.count; i++)
        if (heads[i].head >= queue->size)
            why = "a head is beyond the queue";
    return why ? virtio_state_refuse(err, blk_schema.name, slot, "outstanding", why) : 0;
}

static int load(struct virtio_device *device, struct state_reader *reader, unsigned slot,
                struct error *err)
{
    struct blk *blk = BASE_CONTAINER_OF(device, struct blk, device);
    struct blk_state state = {0};

    int failure = state_read(reader, &blk_schema, slot, &state, err);
    if (!failure)
        failure = blk_acceptable(blk, &state, slot, err);
    if (failure)
        return failure;
    const struct outstanding_state *heads = state.outstanding.elements;
    for (size_t i = 0; i < state.outstanding.count; i++) {
        struct request *request = request_take(blk);
        if (!request)
            return error_set_errno(err, -ENOMEM, "loading the requests of a virtio blk device");
        request->state = ELSEWHERE;
        request->head = heads[i].head;
    }
    return 0;
}

// ---- Operations --------------------------------------------------------------------------------

static void notify(struct virtio_device *device, unsigned index)
{
    struct blk *blk = BASE_CONTAINER_OF(device, struct blk, device);
    struct virtqueue *queue = &device->queues[index];

    unsigned left = virtqueue_begin(queue);
    while (left-- > 0 && next_request(blk, queue))
        continue;
    disk_kick(blk->disk);
    virtqueue_publish(queue);
    virtqueue_end(queue);
}

// Between load and resume the requests elsewhere are not this monitor's business yet.
static void freeze(struct virtio_device *device)
{
    struct blk *blk = BASE_CONTAINER_OF(device, struct blk, device);

    if (!device->hands_off)
        take_back(blk);
    disk_kick(blk->disk);
}

static void pause_device(struct virtio_device *device)
{
    struct blk *blk = BASE_CONTAINER_OF(device, struct blk, device);

    if (!device->hands_off)
        take_back(blk);
    disk_drain(blk->disk);
}

static void resume(struct virtio_device *device)
{
    struct blk *blk = BASE_CONTAINER_OF(device, struct blk, device);

    for (size_t i = 0; i < QUEUE_SIZE; i++)
        if (blk->requests[i].state == ENDED)
            request_return(blk, &blk->requests[i]);
    if (!device->settle)
        do_again(blk);
    virtqueue_publish(&device->queues[0]);
}

// What a former monitor does not let go of stays known: the next reset asks again.
static void reset(struct virtio_device *device)
{
    struct blk *blk = BASE_CONTAINER_OF(device, struct blk, device);
    bool all = requests_in(blk, ELSEWHERE) == 0 || virtio_device_settle(device);

    for (size_t i = 0; i < QUEUE_SIZE; i++) {
        enum request_state state = blk->requests[i].state;
        if (state != FREE && (all || state != ELSEWHERE))
            request_release(blk, &blk->requests[i]);
    }
    disk_drain(blk->disk);
}

static void blk_free(struct blk *blk)
{
    disk_close(blk->disk);
    handle_table_destroy(blk->names, NULL, NULL);
    free(blk->chains);
    free(blk->requests);
    free(blk);
}

static void destroy(struct virtio_device *device)
{
    struct blk *blk = BASE_CONTAINER_OF(device, struct blk, device);
    close(blk->fd);
    blk_free(blk);
}

static const struct virtio_device_ops blk_ops = {
    .name = "blk",
    .device_id = VIRTIO_ID_BLK,
    .features = VIRTIO_BLK_F_SIZE_MAX | VIRTIO_BLK_F_SEG_MAX | VIRTIO_BLK_F_BLK_SIZE |
                VIRTIO_BLK_F_FLUSH | VIRTIO_BLK_F_TOPOLOGY,
    .config_bytes = sizeof(struct config_space),
    .queue_count = 1,
    .queue_size = QUEUE_SIZE,
    .notify = notify,
    .pause = pause_device,
    .resume = resume,
    .reset = reset,
    .save = save,
    .load = load,
    .freeze = freeze,
    .outstanding = outstanding,
    .ended = ended,
    .destroy = destroy,
};

// ---- Constructor -------------------------------------------------------------------------------

static int disk_size(int fd, uint64_t *bytes, struct error *err)
{
    struct stat status;

    if (fstat(fd, &status) < 0)
        return error_set_errno(err, -errno, "looking at the disk");
    *bytes = (uint64_t)status.st_size;
    if (S_ISBLK(status.st_mode)) {
        if (ioctl(fd, BLKGETSIZE64, bytes) < 0)
            return error_set_errno(err, -errno, "asking the disk for its size");
    } else if (!S_ISREG(status.st_mode)) {
        return error_set(err, -EINVAL, "the disk is neither a regular file nor a block device");
    }
    if (*bytes < SECTOR_BYTES)
        return error_set(err, -EINVAL, "the disk is smaller than a sector of %u bytes",
                         SECTOR_BYTES);
    return 0;
}

// Blocks are 512 bytes, and 4096 is what the host's page cache writes best.
static struct config_space config_space(uint64_t disk_bytes)
{
    return (struct config_space){
        .capacity_sectors = disk_bytes / SECTOR_BYTES,
        .size_max_bytes = SEG_BYTES_MAX,
        .seg_max = SEG_MAX,
        .blk_size_bytes = SECTOR_BYTES,
        .physical_block_exp = 3,
        .min_io_blocks = 8,
        .num_queues = 1,
        .max_discard_sectors = DISCARD_SECTORS_MAX,
        .max_discard_seg = 1,
        .discard_alignment_sectors = 8,
        .max_write_zeroes_sectors = ZEROES_SECTORS_MAX,
        .max_write_zeroes_seg = 1,
        .write_zeroes_may_unmap = 1,
    };
}

static int blk_build(struct blk *blk, const struct virtio_wiring *wiring,
                     const struct virtio_blk_config *config, struct error *err)
{
    struct disk_events events = {.done = op_done, .settled = settled, .opaque = blk};
    uint64_t disk_bytes;
    const struct handle_options names = {.live_max = QUEUE_SIZE};

    blk->requests = calloc(QUEUE_SIZE, sizeof(*blk->requests));
    blk->chains = calloc(QUEUE_SIZE, sizeof(*blk->chains));
    if (!blk->requests || !blk->chains || handle_table_create(&blk->names, &names))
        return error_set_errno(err, -ENOMEM, "creating the virtio blk device");
    for (unsigned i = 0; i < QUEUE_SIZE; i++) {
        blk->requests[i].chain = &blk->chains[i];
        blk->free[blk->free_count++] = i;
    }
    blk->fd = config->fd;
    blk->read_only = config->read_only;
    memcpy(blk->serial, config->serial, sizeof(blk->serial));

    int failure = disk_size(config->fd, &disk_bytes, err);
    if (failure)
        return failure;
    blk->config = config_space(disk_bytes);
    failure =
        disk_open(&blk->disk, config->fd, config->aio, QUEUE_SIZE, wiring->loop, &events, err);
    if (failure)
        return failure;
    return virtio_device_init(&blk->device, &blk_ops, wiring, &blk->config, err);
}

int virtio_blk_create(struct virtio_device **out, const struct virtio_wiring *wiring,
                      const struct virtio_blk_config *config, struct error *err)
{
    struct blk *blk = calloc(1, sizeof(*blk));
    if (!blk)
        return error_set_errno(err, -ENOMEM, "creating the virtio blk device");
    int failure = blk_build(blk, wiring, config, err);
    if (failure) {
        blk_free(blk);
        return failure;
    }
    blk->device.features |=
        config->read_only ? VIRTIO_BLK_F_RO : VIRTIO_BLK_F_DISCARD | VIRTIO_BLK_F_WRITE_ZEROES;
    *out = &blk->device;
    return 0;
}
