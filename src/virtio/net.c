// SPDX-License-Identifier: BSD-2-Clause
// net: the network device (section 5.1), one pair of queues or several. Frames go to and come from
// a backend a pair (net_backend.h). All work is done on the loop's thread.
//
// To the guest: packets are taken from a backend into its inbox, and one after the other written
// into the driver's buffers, over several of them where it has accepted VIRTIO_NET_F_MRG_RXBUF.
// When buffers run out the packet stays where it is, begun or not, and the backend is asked for
// nothing more until there are new ones: a tap's queue fills then, and the host's network stack
// does what it does with a slow link.
//
// The driver may use fewer pairs than there are; it begins with one (section 5.1.6.5.5). All
// backends are read nevertheless: those of pairs that it does not use feed the ones it does. So
// what the tap's queues are on the host never changes, and no packet is left in one of them.
//
// From the guest: packets go to the pair's backend a batch at a time, straight from guest memory.
// What it has no room for stays in the queue.
//
// Control requests (section 5.1.6.5): the number of pairs and the address are taken; filters are
// agreed to and not applied, which is allowed: a tap gets what the host sends to it.
//
// Saved: the inboxes, since what was taken from the host would be lost otherwise; and what the
// driver has asked for. The address it begins with is the machine's: it comes with the
// configuration.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "virtio/net_backend.h"

// Queues 2n and 2n+1 receive and transmit (section 5.1.2); behind them all is the control queue.
enum { RECEIVE_QUEUE, TRANSMIT_QUEUE, PAIR_QUEUES };
#define QUEUE_SIZE VIRTQUEUE_SIZE_MAX
#define STALE_TURNS 256u

// Section 5.1.4; what follows depends on features that are not offered.
struct config_space {
    uint8_t mac[6];
    uint16_t status;
    uint16_t max_virtqueue_pairs;
};
_Static_assert(sizeof(struct config_space) == 10, "section 5.1.4");
enum { STATUS_LINK_UP = 1 };
_Static_assert(sizeof(struct virtio_net_header) == 12, "section 5.1.6");

struct pair {
    struct net *net;
    unsigned index;

    // The host's side: packets on their way to the guest.
    int fd;
    struct net_backend *backend;
    struct net_inbox inbox;

    // The receive queue: whose first packet is being placed, if one is, and the buffers that hold
    // its first bytes.
    struct pair *source;
    unsigned turn, turn_packets;  // which of the pairs that feed the queue has its turn
    size_t placed_bytes;
    unsigned buffer_count;
    struct buffer {
        uint16_t head;
        size_t written;
    } buffers[QUEUE_SIZE];
    struct virtio_chain first;  // the buffer with the header, which is completed last
    struct virtio_chain chain;  // any other
};

struct net {
    struct virtio_device device;
    struct config_space config;
    uint8_t mac[6];         // that the machine gives
    uint8_t driver_mac[6];  // that the driver has given; zeros: none
    bool started;           // the backends, for this driver
    bool stale;             // packets may wait that an earlier driver left
    unsigned pair_count;
    unsigned active;  // pairs that the driver uses
    struct pair pairs[VIRTIO_NET_PAIRS_MAX];
    struct virtio_chain outbox[NET_BATCH];
};

// ---- The address --------------------------------------------------------------------------------

// Shows the driver's own address in the configuration, or the machine's.
static void address_show(struct net *net)
{
    static const uint8_t none[sizeof(net->driver_mac)];
    bool given = memcmp(net->driver_mac, none, sizeof(none)) != 0;

    pthread_mutex_lock(&net->device.lock);
    memcpy(net->config.mac, given ? net->driver_mac : net->mac, sizeof(net->config.mac));
    pthread_mutex_unlock(&net->device.lock);
}

// ---- To the guest -------------------------------------------------------------------------------

static struct virtqueue *receive_queue(struct pair *pair)
{
    return &pair->net->device.queues[PAIR_QUEUES * pair->index + RECEIVE_QUEUE];
}

static void inboxes_empty(struct net *net)
{
    for (unsigned i = 0; i < net->pair_count; i++)
        net->pairs[i].inbox.first = net->pairs[i].inbox.end = 0;
}

static bool packet_waits(struct pair *source)
{
    struct net_inbox *inbox = &source->inbox;

    if (inbox->first == inbox->end)
        source->backend->ops->receive(source->backend, inbox);
    return inbox->first < inbox->end;
}

// Finds the next packet for the pair's receive queue; those that feed it take turns, a batch each.
// False when no packet waits.
static bool source_find(struct pair *pair)
{
    struct net *net = pair->net;
    unsigned feeders = (net->pair_count - pair->index + net->active - 1) / net->active;

    for (unsigned i = 0; i <= feeders && !pair->source; i++) {
        struct pair *source = &net->pairs[pair->index + pair->turn % feeders * net->active];
        if (packet_waits(source) && pair->turn_packets++ < NET_BATCH) {
            pair->source = source;
        } else {
            pair->turn++;
            pair->turn_packets = 0;
        }
    }
    return pair->source;
}

static void source_leave(struct pair *pair)
{
    pair->source = NULL;
    pair->placed_bytes = pair->buffer_count = 0;
}

// The packet is dealt with.
static void packet_done(struct pair *pair)
{
    pair->source->inbox.first++;
    source_leave(pair);
}

// Gives the buffers back that were taken for the packet, if there is one.
static void packet_withdraw(struct pair *pair)
{
    virtqueue_unpop(receive_queue(pair), pair->buffer_count);
    pair->placed_bytes = pair->buffer_count = 0;
}

static void packet_complete(struct pair *pair, struct virtqueue *queue)
{
    uint16_t num_buffers = pair->buffer_count;

    virtio_span_write(&pair->first.writable, offsetof(struct virtio_net_header, num_buffers),
                      &num_buffers, sizeof(num_buffers));
    for (unsigned i = 0; i < pair->buffer_count; i++)
        virtqueue_push(queue, pair->buffers[i].head, pair->buffers[i].written);
    packet_done(pair);
}

// Writes what fits into one more buffer. False when there is none.
static bool packet_place(struct pair *pair, struct virtqueue *queue)
{
    struct virtio_chain *chain = pair->buffer_count == 0 ? &pair->first : &pair->chain;
    const struct net_inbox *inbox = &pair->source->inbox;

    if (!virtqueue_pop(queue, chain))
        return false;
    if (chain->readable.count > 0 || chain->writable.bytes < sizeof(struct virtio_net_header)) {
        virtio_device_break(&pair->net->device, queue,
                            "a receive buffer is not writable or too small for a header");
        return false;
    }
    size_t written =
        virtio_span_write(&chain->writable, 0, inbox->packets[inbox->first] + pair->placed_bytes,
                          inbox->lengths[inbox->first] - pair->placed_bytes);
    pair->placed_bytes += written;
    pair->buffers[pair->buffer_count++] = (struct buffer){chain->head, written};
    return true;
}

// False when buffers have run out and the packet waits for more. A packet that no number of buffers
// would hold (one, without mergeable ones; a queue full of them) is dropped.
static bool packet_deliver(struct pair *pair, struct virtqueue *queue)
{
    bool mergeable = virtio_device_has(&pair->net->device, VIRTIO_NET_F_MRG_RXBUF);
    unsigned buffers_max = mergeable ? queue->size : 1;
    const struct net_inbox *inbox = &pair->source->inbox;

    while (pair->placed_bytes < inbox->lengths[inbox->first]) {
        if (pair->buffer_count == buffers_max) {
            packet_withdraw(pair);
            packet_done(pair);
            return true;
        }
        if (!packet_place(pair, queue))
            return false;
    }
    packet_complete(pair, queue);
    return true;
}

static void sources_watch(struct pair *pair, bool on)
{
    const struct net *net = pair->net;

    for (unsigned i = pair->index; i < net->pair_count; i += net->active)
        net->pairs[i].backend->ops->watch(net->pairs[i].backend, on);
}

// New buffers matter only when a packet waits for them, so only then is the driver asked to notify.
static void receive(struct pair *pair)
{
    struct virtqueue *queue = receive_queue(pair);
    unsigned left = virtqueue_begin(queue);

    while (source_find(pair) && left-- > 0 && packet_deliver(pair, queue))
        continue;
    virtqueue_publish(queue);
    if (pair->source)
        virtqueue_end(queue);
    sources_watch(pair, !pair->source);
}

// While the device is paused its packets may be another process's already.
static void backend_ready(void *opaque)
{
    struct pair *source = opaque;

    if (virtio_device_running(&source->net->device))
        receive(&source->net->pairs[source->index % source->net->active]);
    else
        source->backend->ops->watch(source->backend, false);
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
static bool outbox_send(const struct pair *pair, struct virtqueue *queue, unsigned count)
{
    const struct net *net = pair->net;
    unsigned taken = pair->backend->ops->send(pair->backend, net->outbox, count);

    for (unsigned i = 0; i < taken; i++)
        virtqueue_push(queue, net->outbox[i].head, 0);
    virtqueue_unpop(queue, count - taken);
    return taken == count;
}

static void transmit(struct pair *pair)
{
    struct net *net = pair->net;
    struct virtqueue *queue = &net->device.queues[PAIR_QUEUES * pair->index + TRANSMIT_QUEUE];
    unsigned left = virtqueue_begin(queue), count;
    bool room = true;

    while (room && (count = outbox_fill(net, queue, left < NET_BATCH ? left : NET_BATCH)) > 0) {
        room = outbox_send(pair, queue, count);
        left -= count;
    }
    virtqueue_publish(queue);
    if (room)
        virtqueue_end(queue);
}

static void backend_room(void *opaque)
{
    const struct pair *pair = opaque;
    virtio_device_kick(&pair->net->device, PAIR_QUEUES * pair->index + TRANSMIT_QUEUE);
}

// ---- Control requests ---------------------------------------------------------------------------

enum { CONTROL_RX = 0, CONTROL_MAC = 1, CONTROL_MQ = 4 };
enum { RX_NO_BROADCAST = 5, MAC_TABLE_SET = 0, MAC_ADDRESS_SET = 1, MQ_PAIRS_SET = 0 };
enum { CONTROL_OK = 0, CONTROL_ERROR = 1 };

// Section 5.1.2: without VIRTIO_NET_F_MQ it is behind the one pair.
static unsigned control_queue(const struct net *net)
{
    bool several = virtio_device_has(&net->device, VIRTIO_NET_F_MQ);
    return PAIR_QUEUES * (several ? net->pair_count : 1);
}

// Packets that wait for buffers in one queue go to another now.
static void active_set(struct net *net, unsigned active)
{
    for (unsigned i = 0; i < net->pair_count; i++) {
        packet_withdraw(&net->pairs[i]);
        source_leave(&net->pairs[i]);
    }
    net->active = active;
    for (unsigned i = 0; i < active; i++)
        virtio_device_kick(&net->device, PAIR_QUEUES * i + RECEIVE_QUEUE);
}

static bool control_pairs(struct net *net, const struct virtio_span *data)
{
    uint16_t pairs;

    if (!virtio_device_has(&net->device, VIRTIO_NET_F_MQ) ||
        virtio_span_read(data, 0, &pairs, sizeof(pairs)) != sizeof(pairs) || pairs == 0 ||
        pairs > net->pair_count)
        return false;
    active_set(net, pairs);
    return true;
}

static bool control_address(struct net *net, const struct virtio_span *data)
{
    uint8_t mac[sizeof(net->driver_mac)];

    if (virtio_span_read(data, 0, mac, sizeof(mac)) != sizeof(mac))
        return false;
    memcpy(net->driver_mac, mac, sizeof(mac));
    address_show(net);
    return true;
}

static bool control_done(struct net *net, const struct virtio_span *request)
{
    struct virtio_span data = *request;
    struct {
        uint8_t class, command;
    } header;

    if (virtio_span_read(request, 0, &header, sizeof(header)) != sizeof(header))
        return false;
    virtio_span_drop_front(&data, sizeof(header));
    switch (header.class) {
    case CONTROL_RX:
        return header.command <= RX_NO_BROADCAST && data.bytes >= 1;
    case CONTROL_MAC:
        return header.command == MAC_TABLE_SET ||
               (header.command == MAC_ADDRESS_SET && control_address(net, &data));
    case CONTROL_MQ:
        return header.command == MQ_PAIRS_SET && control_pairs(net, &data);
    default:
        return false;
    }
}

static void control(struct net *net, struct virtqueue *queue)
{
    struct virtio_chain *chain = net->outbox;
    unsigned left = virtqueue_begin(queue);

    while (left-- > 0 && virtqueue_pop(queue, chain)) {
        if (chain->writable.bytes == 0) {
            virtio_device_break(&net->device, queue, "a control request has no room for an answer");
            return;
        }
        uint8_t answer = control_done(net, &chain->readable) ? CONTROL_OK : CONTROL_ERROR;
        virtio_span_write(&chain->writable, 0, &answer, sizeof(answer));
        virtqueue_push(queue, chain->head, sizeof(answer));
    }
    virtqueue_publish(queue);
    virtqueue_end(queue);
}

// ---- Saved state --------------------------------------------------------------------------------

struct packet_state {
    struct state_blob bytes;
    uint16_t pair;
};

struct net_state {
    bool stale;
    struct state_list inbox;
    uint16_t active;
    uint8_t driver_mac[6];
};

static const struct state_field packet_fields[] = {
    STATE_FIELD(struct packet_state, bytes, STATE_BLOB, 1, VIRTIO_NET_PACKET_BYTES_MAX),
    STATE_FIELD(struct packet_state, pair, STATE_U16, 2, 0),
    {.name = NULL},
};

static const struct state_schema packet_schema = {
    .name = "packet",
    .version = 2,
    .struct_bytes = sizeof(struct packet_state),
    .fields = packet_fields,
};

static const struct state_field net_fields[] = {
    STATE_FIELD(struct net_state, stale, STATE_BOOL, 1, 0),
    STATE_LIST_OF(struct net_state, inbox, &packet_schema, 1, VIRTIO_NET_PAIRS_MAX *NET_BATCH),
    STATE_FIELD(struct net_state, active, STATE_U16, 2, VIRTIO_NET_PAIRS_MAX),
    STATE_ARRAY(struct net_state, driver_mac, STATE_BYTES, 2, 0),
    {.name = NULL},
};

static const struct state_schema net_schema = {
    .name = "virtio-net",
    .version = 2,
    .struct_bytes = sizeof(struct net_state),
    .fields = net_fields,
};

static void save(struct virtio_device *device, struct state_writer *writer, unsigned slot)
{
    struct net *net = BASE_CONTAINER_OF(device, struct net, device);
    struct packet_state packets[VIRTIO_NET_PAIRS_MAX * NET_BATCH];
    unsigned count = 0;

    for (unsigned n = 0; n < net->pair_count; n++) {
        const struct net_inbox *inbox = &net->pairs[n].inbox;
        for (unsigned i = inbox->first; i < inbox->end; i++)
            packets[count++] = (struct packet_state){
                .bytes = {inbox->packets[i], inbox->lengths[i]},
                .pair = n,
            };
    }
    struct net_state state = {
        .stale = net->stale,
        .inbox = {.elements = packets, .count = count},
        .active = net->active,
    };
    memcpy(state.driver_mac, net->driver_mac, sizeof(state.driver_mac));
    state_write(writer, &net_schema, slot, &state);
}

// Returns what is wrong with it, or NULL.
static const char *packet_load(struct net *net, const struct packet_state *packet)
{
    const struct state_blob *bytes = &packet->bytes;

    if (packet->pair >= net->pair_count)
        return "a packet is of a pair of queues that there is not";
    struct net_inbox *inbox = &net->pairs[packet->pair].inbox;
    if (inbox->end == NET_BATCH)
        return "there are more packets than a pair of queues holds";
    if (bytes->length_bytes < sizeof(struct virtio_net_header))
        return "a packet is shorter than its header";
    memcpy(inbox->packets[inbox->end], bytes->bytes, bytes->length_bytes);
    inbox->lengths[inbox->end++] = bytes->length_bytes;
    return NULL;
}

static int load(struct virtio_device *device, struct state_reader *reader, unsigned slot,
                struct error *err)
{
    struct net *net = BASE_CONTAINER_OF(device, struct net, device);
    struct net_state state = {.active = 1};

    int failure = state_read(reader, &net_schema, slot, &state, err);
    if (failure)
        return failure;
    if (state.active == 0 || state.active > net->pair_count)
        return virtio_state_refuse(err, net_schema.name, slot, "active",
                                   "there are not as many pairs of queues");
    inboxes_empty(net);
    const struct packet_state *packets = state.inbox.elements;
    for (unsigned i = 0; i < state.inbox.count; i++) {
        const char *why = packet_load(net, &packets[i]);
        if (why)
            return virtio_state_refuse(err, net_schema.name, slot, "inbox", why);
    }
    net->stale = state.stale;
    net->active = state.active;
    memcpy(net->driver_mac, state.driver_mac, sizeof(net->driver_mac));
    address_show(net);
    return 0;
}

// ---- Operations ---------------------------------------------------------------------------------

// Packets that waited for an earlier driver; with a bound, since there may always be more.
static void stale_drop(struct pair *pair)
{
    for (unsigned turn = 0; turn < STALE_TURNS; turn++) {
        pair->inbox.first = pair->inbox.end;
        if (!packet_waits(pair))
            break;
    }
    pair->inbox.first = pair->inbox.end;
}

static void activate(struct virtio_device *device)
{
    struct net *net = BASE_CONTAINER_OF(device, struct net, device);

    for (unsigned i = 0; i < net->pair_count; i++) {
        struct pair *pair = &net->pairs[i];
        pair->backend->ops->start(pair->backend, device->driver_features);
        if (net->stale && !device->hands_off)
            stale_drop(pair);
    }
    net->stale = false;
    net->started = true;
}

static void notify(struct virtio_device *device, unsigned index)
{
    struct net *net = BASE_CONTAINER_OF(device, struct net, device);
    unsigned pair = index / PAIR_QUEUES;

    if (index == control_queue(net))
        control(net, &device->queues[index]);
    else if (pair < net->pair_count && index % PAIR_QUEUES == TRANSMIT_QUEUE)
        transmit(&net->pairs[pair]);
    else if (pair < net->active)
        receive(&net->pairs[pair]);
}

static void pause_device(struct virtio_device *device)
{
    struct net *net = BASE_CONTAINER_OF(device, struct net, device);

    for (unsigned i = 0; i < net->pair_count; i++) {
        struct pair *pair = &net->pairs[i];
        packet_withdraw(pair);
        pair->backend->ops->watch(pair->backend, false);
    }
}

// What waits on the host stays there, since it may be another process's by now.
static void reset(struct virtio_device *device)
{
    struct net *net = BASE_CONTAINER_OF(device, struct net, device);

    for (unsigned i = 0; i < net->pair_count; i++) {
        struct pair *pair = &net->pairs[i];
        source_leave(pair);
        pair->backend->ops->watch(pair->backend, false);
    }
    inboxes_empty(net);
    net->active = 1;
    memset(net->driver_mac, 0, sizeof(net->driver_mac));
    address_show(net);
    net->stale |= net->started;
    net->started = false;
}

static void net_free(struct net *net)
{
    for (unsigned i = 0; i < net->pair_count; i++) {
        struct pair *pair = &net->pairs[i];
        if (pair->backend)
            pair->backend->ops->destroy(pair->backend);
        free(pair->inbox.packets);
    }
    free(net);
}

static void destroy(struct virtio_device *device)
{
    struct net *net = BASE_CONTAINER_OF(device, struct net, device);

    for (unsigned i = 0; i < net->pair_count; i++)
        close(net->pairs[i].fd);
    net_free(net);
}

static const struct virtio_device_ops net_ops = {
    .name = "net",
    .device_id = VIRTIO_ID_NET,
    .features = VIRTIO_NET_F_MAC | VIRTIO_NET_F_STATUS | VIRTIO_NET_F_MRG_RXBUF,
    .config_bytes = sizeof(struct config_space),
    .queue_count = PAIR_QUEUES,
    .queue_size = QUEUE_SIZE,
    .activate = activate,
    .notify = notify,
    .pause = pause_device,
    .reset = reset,
    .save = save,
    .load = load,
    .destroy = destroy,
};

static int pair_build(struct pair *pair, struct loop *loop, struct error *err)
{
    const struct net_backend_events events = {
        .ready = backend_ready, .room = backend_room, .opaque = pair};

    pair->inbox.packets = calloc(NET_BATCH, sizeof(*pair->inbox.packets));
    if (!pair->inbox.packets)
        return error_set_errno(err, -ENOMEM, "creating the virtio net device");
    return net_packet_is_socket(pair->fd)
               ? net_packet_create(&pair->backend, pair->fd, loop, &events, err)
               : net_tap_create(&pair->backend, pair->fd, loop, &events, err);
}

// A device with one pair is as it was before there could be more, so that every monitor takes its
// state.
static void queues_offer(struct net *net)
{
    net->config.max_virtqueue_pairs = net->pair_count;
    net->device.features |= net->pairs[0].backend->features;
    if (net->pair_count == 1)
        return;
    net->device.features |=
        VIRTIO_NET_F_CTRL_VQ | VIRTIO_NET_F_CTRL_RX | VIRTIO_NET_F_CTRL_MAC_ADDR | VIRTIO_NET_F_MQ;
    net->device.queue_count = PAIR_QUEUES * net->pair_count + 1;
}

static int net_build(struct net *net, const struct virtio_wiring *wiring, struct error *err)
{
    int failure = 0;

    for (unsigned i = 0; i < net->pair_count && !failure; i++)
        failure = pair_build(&net->pairs[i], wiring->loop, err);
    if (!failure)
        failure = virtio_device_init(&net->device, &net_ops, wiring, &net->config, err);
    if (!failure)
        queues_offer(net);
    return failure;
}

int virtio_net_create(struct virtio_device **out, const struct virtio_wiring *wiring,
                      const struct virtio_net_config *config, struct error *err)
{
    struct net *net = calloc(1, sizeof(*net));
    if (!net)
        return error_set_errno(err, -ENOMEM, "creating the virtio net device");
    memcpy(net->mac, config->mac, sizeof(net->mac));
    memcpy(net->config.mac, config->mac, sizeof(net->mac));
    net->config.status = STATUS_LINK_UP;
    net->pair_count = config->pairs;
    net->active = 1;
    for (unsigned i = 0; i < config->pairs; i++) {
        net->pairs[i].net = net;
        net->pairs[i].index = i;
        net->pairs[i].fd = config->fds[i];
    }
    int failure = net_build(net, wiring, err);
    if (failure) {
        net_free(net);
        return failure;
    }
    *out = &net->device;
    return 0;
}
