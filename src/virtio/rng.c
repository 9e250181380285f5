// SPDX-License-Identifier: BSD-2-Clause
// rng: the entropy device (section 5.4): fills what the driver gives it from getrandom(2).
// No state of its own, saved or not; all work is done in notify.
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#include "virtio/device.h"

// A request gets no more than this: section 5.4.6.1 asks for at least one byte, and the loop has
// others to serve.
#define REQUEST_BYTES 4096u

struct rng {
    struct virtio_device device;
};

// The bytes filled: fewer than asked for only where getrandom fails for good, since nothing else
// may pass for entropy.
static size_t fill(uint8_t *bytes, size_t count)
{
    size_t done = 0;
    while (done < count) {
        ssize_t got = getrandom(bytes + done, count - done, 0);
        if (got < 0 && errno != EINTR)
            break;
        if (got > 0)
            done += (size_t)got;
    }
    return done;
}

static size_t answer(const struct virtio_chain *chain)
{
    uint8_t bytes[REQUEST_BYTES];
    size_t count = chain->writable.bytes < REQUEST_BYTES ? chain->writable.bytes : REQUEST_BYTES;

    return virtio_span_write(&chain->writable, 0, bytes, fill(bytes, count));
}

static void notify(struct virtio_device *device, unsigned index)
{
    struct virtqueue *queue = &device->queues[index];
    struct virtio_chain chain;

    unsigned left = virtqueue_begin(queue);
    while (left-- > 0 && virtqueue_pop(queue, &chain))
        virtqueue_push(queue, chain.head, answer(&chain));
    virtqueue_publish(queue);
    virtqueue_end(queue);
}

static void destroy(struct virtio_device *device)
{
    free(device);
}

static const struct virtio_device_ops rng_ops = {
    .name = "rng",
    .device_id = VIRTIO_ID_RNG,
    .queue_count = 1,
    .queue_size = 64,
    .notify = notify,
    .destroy = destroy,
};

int virtio_rng_create(struct virtio_device **out, const struct virtio_wiring *wiring,
                      struct error *err)
{
    struct rng *rng = calloc(1, sizeof(*rng));
    if (!rng)
        return error_set_errno(err, -ENOMEM, "creating the virtio rng device");
    int failure = virtio_device_init(&rng->device, &rng_ops, wiring, NULL, err);
    if (failure) {
        free(rng);
        return failure;
    }
    *out = &rng->device;
    return 0;
}
