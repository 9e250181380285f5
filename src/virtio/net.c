// SPDX-License-Identifier: BSD-2-Clause
// net: the network device (section 5.1), one pair of queues. Frames go to and come from a backend
// (net_backend.h). All work is done on the loop's thread.
//
// To the guest: one packet at a time is taken from the backend and written into the driver's
// buffers, over several of them where it has accepted VIRTIO_NET_F_MRG_RXBUF. When buffers run out
// the packet stays where it is, begun or not, and the backend is asked for nothing more until
// there are new ones: a tap's queue fills then, and the host's network stack does what it does with
// a slow link.
//
// Not kept in saved state: the packet on its way. A network may lose one.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "virtio/net_backend.h"

// Queues 2n and 2n+1 receive and transmit (section 5.1.2).
enum { RECEIVE_QUEUE, TRANSMIT_QUEUE, QUEUES };
#define QUEUE_SIZE VIRTQUEUE_SIZE_MAX

// Section 5.1.4; what follows depends on features that are not offered.
struct config_space {
    uint8_t mac[6];
    uint16_t status;
};
_Static_assert(sizeof(struct config_space) == 8, "section 5.1.4");
enum { STATUS_LINK_UP = 1 };

struct net {
    struct virtio_device device;
    struct config_space config;
    struct net_backend *backend;
    int tap_fd;  // -1 when there is none

    // The packet on its way to the guest, and the buffers that hold its first bytes.
    uint8_t packet[NET_PACKET_BYTES_MAX];
    size_t packet_bytes;  // 0 when there is none
    size_t placed_bytes;
    unsigned buffer_count;
    struct buffer {
        uint16_t head;
        size_t written;
    } buffers[QUEUE_SIZE];
    struct virtio_chain first;  // the buffer with the header, which is completed last
    struct virtio_chain chain;  // any other
};

// ---- To the guest -------------------------------------------------------------------------------

static bool packet_fetch(struct net *net)
{
    if (net->packet_bytes == 0)
        net->packet_bytes =
            net->backend->ops->receive(net->backend, net->packet, sizeof(net->packet));
    return net->packet_bytes > 0;
}

static void packet_forget(struct net *net)
{
    net->packet_bytes = net->placed_bytes = net->buffer_count = 0;
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

    virtio_span_write(&net->first.writable, offsetof(struct net_header, num_buffers), &num_buffers,
                      sizeof(num_buffers));
    for (unsigned i = 0; i < net->buffer_count; i++)
        virtqueue_push(queue, net->buffers[i].head, net->buffers[i].written);
    packet_forget(net);
}

// Writes what fits into one more buffer. False when there is none.
static bool packet_place(struct net *net, struct virtqueue *queue)
{
    struct virtio_chain *chain = net->buffer_count == 0 ? &net->first : &net->chain;

    if (!virtqueue_pop(queue, chain))
        return false;
    if (chain->readable.count > 0 || chain->writable.bytes < sizeof(struct net_header)) {
        virtio_device_break(&net->device, queue,
                            "a receive buffer is not writable or too small for a header");
        return false;
    }
    size_t written = virtio_span_write(&chain->writable, 0, net->packet + net->placed_bytes,
                                       net->packet_bytes - net->placed_bytes);
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

    while (net->placed_bytes < net->packet_bytes) {
        if (net->buffer_count == buffers_max) {
            packet_withdraw(net, queue);
            packet_forget(net);
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
    while (packet_fetch(net) && left-- > 0 && packet_deliver(net, queue))
        continue;
    virtqueue_publish(queue);
    bool waits = net->packet_bytes > 0;
    if (waits)
        virtqueue_end(queue);
    net->backend->ops->watch(net->backend, !waits);
}

static void backend_ready(void *opaque)
{
    struct net *net = opaque;
    receive(net, &net->device.queues[RECEIVE_QUEUE]);
}

// ---- From the guest -----------------------------------------------------------------------------

static void transmit(struct net *net, struct virtqueue *queue)
{
    unsigned left = virtqueue_begin(queue);
    while (left-- > 0 && virtqueue_pop(queue, &net->chain)) {
        const struct virtio_span *packet = &net->chain.readable;
        if (net->chain.writable.count > 0 || packet->bytes < sizeof(struct net_header) ||
            packet->bytes > NET_PACKET_BYTES_MAX) {
            virtio_device_break(&net->device, queue,
                                "a packet has no header, is too long, or is writable");
            break;
        }
        net->backend->ops->send(net->backend, packet);
        virtqueue_push(queue, net->chain.head, 0);
    }
    virtqueue_publish(queue);
    virtqueue_end(queue);
    net->backend->ops->flush(net->backend);
}

// ---- Operations ---------------------------------------------------------------------------------

static void activate(struct virtio_device *device)
{
    struct net *net = BASE_CONTAINER_OF(device, struct net, device);
    net->backend->ops->start(net->backend, device->driver_features);
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
}

static void reset(struct virtio_device *device)
{
    struct net *net = BASE_CONTAINER_OF(device, struct net, device);
    packet_forget(net);
    net->backend->ops->stop(net->backend);
}

static void net_free(struct net *net)
{
    net->backend->ops->destroy(net->backend);
    free(net);
}

static void destroy(struct virtio_device *device)
{
    struct net *net = BASE_CONTAINER_OF(device, struct net, device);
    int tap_fd = net->tap_fd;

    net_free(net);
    if (tap_fd >= 0)
        close(tap_fd);
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
    .destroy = destroy,
};

static int backend_create(struct net *net, struct loop *loop,
                          const struct virtio_net_config *config, struct error *err)
{
    struct net_backend_events events = {.ready = backend_ready, .opaque = net};

    if (config->tap_fd >= 0)
        return net_tap_create(&net->backend, config->tap_fd, loop, &events, err);
    return net_slirp_create(&net->backend, config->forwards, config->forward_count, loop, &events,
                            err);
}

int virtio_net_create(struct virtio_device **out, const struct virtio_wiring *wiring,
                      const struct virtio_net_config *config, struct error *err)
{
    struct net *net = calloc(1, sizeof(*net));
    if (!net)
        return error_set_errno(err, -ENOMEM, "creating the virtio net device");
    memcpy(net->config.mac, config->mac, sizeof(net->config.mac));
    net->config.status = STATUS_LINK_UP;
    net->tap_fd = config->tap_fd;
    int failure = backend_create(net, wiring->loop, config, err);
    if (failure) {
        free(net);
        return failure;
    }
    failure = virtio_device_init(&net->device, &net_ops, wiring, &net->config, err);
    if (failure) {
        net_free(net);
        return failure;
    }
    net->device.features |= net->backend->features;
    *out = &net->device;
    return 0;
}
