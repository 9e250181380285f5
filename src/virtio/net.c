// SPDX-License-Identifier: BSD-2-Clause
// net: the network device (section 5.1), one pair of queues. Frames go to and come from a backend
// (net_backend.h). All work is done on the loop's thread.
//
// To the guest: packets are taken from the backend into the inbox, and one after the other written
// into the driver's buffers, over several of them where it has accepted VIRTIO_NET_F_MRG_RXBUF.
// When buffers run out the packet stays where it is, begun or not, and the backend is asked for
// nothing more until there are new ones: a tap's queue fills then, and the host's network stack
// does what it does with a slow link.
//
// From the guest: packets go to the backend a batch at a time, straight from guest memory. What it
// has no room for stays in the queue.
//
// Saved: the inbox, since what was taken from the host would be lost otherwise. The address is the
// machine's: it comes with the configuration.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "virtio/net_backend.h"

// Queues 2n and 2n+1 receive and transmit (section 5.1.2).
enum { RECEIVE_QUEUE, TRANSMIT_QUEUE, QUEUES };
#define QUEUE_SIZE VIRTQUEUE_SIZE_MAX
#define STALE_TURNS 256u

// Section 5.1.4; what follows depends on features that are not offered.
struct config_space {
    uint8_t mac[6];
    uint16_t status;
};
_Static_assert(sizeof(struct config_space) == 8, "section 5.1.4");
enum { STATUS_LINK_UP = 1 };
_Static_assert(sizeof(struct virtio_net_header) == 12, "section 5.1.6");

struct net {
    struct virtio_device device;
    struct config_space config;
    int fd;
    struct net_backend *backend;
    bool started;  // the backend, for this driver
    bool stale;    // packets may wait that an earlier driver left

    // Packets on their way to the guest; of the first, the buffers that hold its first bytes.
    struct net_inbox inbox;
    size_t placed_bytes;
    unsigned buffer_count;
    struct buffer {
        uint16_t head;
        size_t written;
    } buffers[QUEUE_SIZE];
    struct virtio_chain first;  // the buffer with the header, which is completed last
    struct virtio_chain chain;  // any other

    struct virtio_chain outbox[NET_BATCH];
};

// ---- To the guest -------------------------------------------------------------------------------

static bool packet_waits(struct net *net)
{
    if (net->inbox.first == net->inbox.end)
        net->backend->ops->receive(net->backend, &net->inbox);
    return net->inbox.first < net->inbox.end;
}

// The first packet of the inbox is dealt with.
static void packet_done(struct net *net)
{
    net->inbox.first++;
    net->placed_bytes = net->buffer_count = 0;
}

// Gives the buffers back that were taken for the packet.
static void packet_withdraw(struct net *net, struct virtqueue *queue)
{
    virtqueue_unpop(queue, net->buffer_count);
    net->placed_bytes = net->buffer_count = 0;
}

static void packet_complete(struct net *net, struct virtqueue *queue)
{
    uint16_t num_buffers = net->buffer_count;

    virtio_span_write(&net->first.writable, offsetof(struct virtio_net_header, num_buffers),
                      &num_buffers, sizeof(num_buffers));
    for (unsigned i = 0; i < net->buffer_count; i++)
        virtqueue_push(queue, net->buffers[i].head, net->buffers[i].written);
    packet_done(net);
}

// Writes what fits into one more buffer. False when there is none.
static bool packet_place(struct net *net, struct virtqueue *queue)
{
    struct virtio_chain *chain = net->buffer_count == 0 ? &net->first : &net->chain;

    if (!virtqueue_pop(queue, chain))
        return false;
    if (chain->readable.count > 0 || chain->writable.bytes < sizeof(struct virtio_net_header)) {
        virtio_device_break(&net->device, queue,
                            "a receive buffer is not writable or too small for a header");
        return false;
    }
    unsigned first = net->inbox.first;
    size_t written =
        virtio_span_write(&chain->writable, 0, net->inbox.packets[first] + net->placed_bytes,
                          net->inbox.lengths[first] - net->placed_bytes);
    net->placed_bytes += written;
    net->buffers[net->buffer_count++] = (struct buffer){chain->head, written};
    return true;
}

// False when buffers have run out and the packet waits for more. A packet that no number of buffers
// would hold (one, without mergeable ones; a queue full of them) is dropped.
static bool packet_deliver(struct net *net, struct virtqueue *queue)
{
    bool mergeable = virtio_device_has(&net->device, VIRTIO_NET_F_MRG_RXBUF);
    unsigned buffers_max = mergeable ? queue->size : 1;

    while (net->placed_bytes < net->inbox.lengths[net->inbox.first]) {
        if (net->buffer_count == buffers_max) {
            packet_withdraw(net, queue);
            packet_done(net);
            return true;
        }
        if (!packet_place(net, queue))
            return false;
    }
    packet_complete(net, queue);
    return true;
}

// New buffers matter only when a packet waits for them, so only then is the driver asked to notify.
static void receive(struct net *net, struct virtqueue *queue)
{
    unsigned left = virtqueue_begin(queue);
    while (packet_waits(net) && left-- > 0 && packet_deliver(net, queue))
        continue;
    virtqueue_publish(queue);
    bool waits = net->inbox.first < net->inbox.end;
    if (waits)
        virtqueue_end(queue);
    net->backend->ops->watch(net->backend, !waits);
}

// While the device is paused its packets may be another process's already.
static void backend_ready(void *opaque)
{
    struct net *net = opaque;

    if (virtio_device_running(&net->device))
        receive(net, &net->device.queues[RECEIVE_QUEUE]);
    else
        net->backend->ops->watch(net->backend, false);
}

// ---- From the guest -----------------------------------------------------------------------------

// Takes up to `count` packets from the queue into the outbox; returns how many.
static unsigned outbox_fill(struct net *net, struct virtqueue *queue, unsigned count)
{
    unsigned filled = 0;

    while (filled < count && virtqueue_pop(queue, &net->outbox[filled])) {
        const struct virtio_chain *packet = &net->outbox[filled];
        if (packet->writable.count > 0 ||
            packet->readable.bytes < sizeof(struct virtio_net_header) ||
            packet->readable.bytes > VIRTIO_NET_PACKET_BYTES_MAX) {
            virtio_device_break(&net->device, queue,
                                "a packet has no header, is too long, or is writable");
            break;
        }
        filled++;
    }
    return filled;
}

// False when not all of them could be sent; the queue has them back then.
static bool outbox_send(struct net *net, struct virtqueue *queue, unsigned count)
{
    unsigned taken = net->backend->ops->send(net->backend, net->outbox, count);

    for (unsigned i = 0; i < taken; i++)
        virtqueue_push(queue, net->outbox[i].head, 0);
    virtqueue_unpop(queue, count - taken);
    return taken == count;
}

static void transmit(struct net *net, struct virtqueue *queue)
{
    unsigned left = virtqueue_begin(queue), count;
    bool room = true;

    while (room && (count = outbox_fill(net, queue, left < NET_BATCH ? left : NET_BATCH)) > 0) {
        room = outbox_send(net, queue, count);
        left -= count;
    }
    virtqueue_publish(queue);
    if (room)
        virtqueue_end(queue);
}

static void backend_room(void *opaque)
{
    struct net *net = opaque;
    virtio_device_kick(&net->device, TRANSMIT_QUEUE);
}

// ---- Saved state --------------------------------------------------------------------------------

struct packet_state {
    struct state_blob bytes;
};

struct net_state {
    bool stale;
    struct state_list inbox;
};

static const struct state_field packet_fields[] = {
    STATE_FIELD(struct packet_state, bytes, STATE_BLOB, 1, VIRTIO_NET_PACKET_BYTES_MAX),
    {.name = NULL},
};

static const struct state_schema packet_schema = {
    .name = "packet",
    .version = 1,
    .struct_bytes = sizeof(struct packet_state),
    .fields = packet_fields,
};

static const struct state_field net_fields[] = {
    STATE_FIELD(struct net_state, stale, STATE_BOOL, 1, 0),
    STATE_LIST_OF(struct net_state, inbox, &packet_schema, 1, NET_BATCH),
    {.name = NULL},
};

static const struct state_schema net_schema = {
    .name = "virtio-net",
    .version = 1,
    .struct_bytes = sizeof(struct net_state),
    .fields = net_fields,
};

static void save(struct virtio_device *device, struct state_writer *writer, unsigned slot)
{
    struct net *net = BASE_CONTAINER_OF(device, struct net, device);
    struct packet_state packets[NET_BATCH];
    unsigned count = 0;

    for (unsigned i = net->inbox.first; i < net->inbox.end; i++)
        packets[count++].bytes = (struct state_blob){net->inbox.packets[i], net->inbox.lengths[i]};
    const struct net_state state = {
        .stale = net->stale,
        .inbox = {.elements = packets, .count = count},
    };
    state_write(writer, &net_schema, slot, &state);
}

static int load(struct virtio_device *device, struct state_reader *reader, unsigned slot,
                struct error *err)
{
    struct net *net = BASE_CONTAINER_OF(device, struct net, device);
    struct net_state state = {0};

    int failure = state_read(reader, &net_schema, slot, &state, err);
    if (failure)
        return failure;
    const struct packet_state *packets = state.inbox.elements;
    for (unsigned i = 0; i < state.inbox.count; i++) {
        const struct state_blob *packet = &packets[i].bytes;
        if (packet->length_bytes < sizeof(struct virtio_net_header))
            return virtio_state_refuse(err, net_schema.name, slot, "inbox",
                                       "a packet is shorter than its header");
        memcpy(net->inbox.packets[i], packet->bytes, packet->length_bytes);
        net->inbox.lengths[i] = packet->length_bytes;
    }
    net->inbox.first = 0;
    net->inbox.end = state.inbox.count;
    net->stale = state.stale;
    return 0;
}

// ---- Operations ---------------------------------------------------------------------------------

// Packets that waited for an earlier driver; with a bound, since there may always be more.
static void stale_drop(struct net *net)
{
    for (unsigned turn = 0; turn < STALE_TURNS; turn++) {
        net->inbox.first = net->inbox.end;
        if (!packet_waits(net))
            break;
    }
    net->inbox.first = net->inbox.end;
}

static void activate(struct virtio_device *device)
{
    struct net *net = BASE_CONTAINER_OF(device, struct net, device);

    net->backend->ops->start(net->backend, device->driver_features);
    if (net->stale && !device->hands_off)
        stale_drop(net);
    net->stale = false;
    net->started = true;
}

static void notify(struct virtio_device *device, unsigned index)
{
    struct net *net = BASE_CONTAINER_OF(device, struct net, device);

    if (index % 2 == TRANSMIT_QUEUE)
        transmit(net, &device->queues[index]);
    else
        receive(net, &device->queues[index]);
}

static void pause_device(struct virtio_device *device)
{
    struct net *net = BASE_CONTAINER_OF(device, struct net, device);

    packet_withdraw(net, &device->queues[RECEIVE_QUEUE]);
    net->backend->ops->watch(net->backend, false);
}

// What waits on the host stays there, since it may be another process's by now.
static void reset(struct virtio_device *device)
{
    struct net *net = BASE_CONTAINER_OF(device, struct net, device);

    net->inbox.first = net->inbox.end;
    net->placed_bytes = net->buffer_count = 0;
    net->stale |= net->started;
    net->started = false;
    net->backend->ops->watch(net->backend, false);
}

static void net_free(struct net *net)
{
    if (net->backend)
        net->backend->ops->destroy(net->backend);
    free(net->inbox.packets);
    free(net);
}

static void destroy(struct virtio_device *device)
{
    struct net *net = BASE_CONTAINER_OF(device, struct net, device);
    int fd = net->fd;

    net_free(net);
    close(fd);
}

static const struct virtio_device_ops net_ops = {
    .name = "net",
    .device_id = VIRTIO_ID_NET,
    .features = VIRTIO_NET_F_MAC | VIRTIO_NET_F_STATUS | VIRTIO_NET_F_MRG_RXBUF,
    .config_bytes = sizeof(struct config_space),
    .queue_count = QUEUES,
    .queue_size = QUEUE_SIZE,
    .activate = activate,
    .notify = notify,
    .pause = pause_device,
    .reset = reset,
    .save = save,
    .load = load,
    .destroy = destroy,
};

static int net_build(struct net *net, const struct virtio_wiring *wiring, struct error *err)
{
    struct net_backend_events events = {
        .ready = backend_ready, .room = backend_room, .opaque = net};

    net->inbox.packets = calloc(NET_BATCH, sizeof(*net->inbox.packets));
    if (!net->inbox.packets)
        return error_set_errno(err, -ENOMEM, "creating the virtio net device");
    int failure = net_packet_is_socket(net->fd)
                      ? net_packet_create(&net->backend, net->fd, wiring->loop, &events, err)
                      : net_tap_create(&net->backend, net->fd, wiring->loop, &events, err);
    if (failure)
        return failure;
    return virtio_device_init(&net->device, &net_ops, wiring, &net->config, err);
}

int virtio_net_create(struct virtio_device **out, const struct virtio_wiring *wiring,
                      const struct virtio_net_config *config, struct error *err)
{
    struct net *net = calloc(1, sizeof(*net));
    if (!net)
        return error_set_errno(err, -ENOMEM, "creating the virtio net device");
    memcpy(net->config.mac, config->mac, sizeof(net->config.mac));
    net->config.status = STATUS_LINK_UP;
    net->fd = config->fd;
    int failure = net_build(net, wiring, err);
    if (failure) {
        net_free(net);
        return failure;
    }
    // NOLINTNEXTLINE(clang-analyzer-core.NullDereference): net_build made it
    net->device.features |= net->backend->features;
    *out = &net->device;
    return 0;
}
