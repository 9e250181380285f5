// SPDX-License-Identifier: BSD-2-Clause
// vsock: a guest's wish to connect to a port of the host, which the supervisor has to fulfil:
// sockets have names, and a monitor can open nothing by name.
//
// Threads: the device asks and is answered on the partition's I/O thread, the connection to the
// supervisor is the control thread's. Asks go from one to the other through a list under a lock.
// A guest may ask for as much as it likes: only some are on the connection at a time.
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "monitor/internal.h"

#define ASKED_MAX 16u

struct vsock_ask {
    struct list link;
    struct monitor *monitor;
    uint32_t port;
    uint64_t token;
    int fd;  // the answer, or a negative errno
};

static void tell_on_loop(void *opaque)
{
    const struct vsock_ask *ask = opaque;
    machine_vsock_connected(partition_machine(ask->monitor->partition), ask->token, ask->fd);
}

static void answer(struct vsock_ask *ask, int fd)
{
    ask->fd = fd;
    loop_call(partition_loop(ask->monitor->partition), tell_on_loop, ask);
    free(ask);
}

static void answered(void *opaque, json_t *result, struct descriptors *fds, const struct error *err)
{
    struct vsock_ask *ask = opaque;
    struct vsock_asks *asks = &ask->monitor->vsock_asks;
    int fd = err ? err->code : descriptors_take(fds, "socket");

    (void)result;
    answer(ask, err || fd >= 0 ? fd : -EPROTO);
    asks->sent--;
    loop_wake_signal(asks->wake);
}

static struct vsock_ask *next_ask(struct vsock_asks *asks)
{
    struct vsock_ask *ask = NULL;

    pthread_mutex_lock(&asks->lock);
    if (!list_empty(&asks->list)) {
        ask = BASE_CONTAINER_OF(asks->list.next, struct vsock_ask, link);
        list_remove(&ask->link);
    }
    pthread_mutex_unlock(&asks->lock);
    return ask;
}

// Without a supervisor there is nobody to connect.
static void send_asks(void *opaque)
{
    struct monitor *monitor = opaque;
    struct vsock_asks *asks = &monitor->vsock_asks;
    struct vsock_ask *ask;

    while (asks->sent < ASKED_MAX && (ask = next_ask(asks))) {
        if (!monitor->link) {
            answer(ask, -ECONNREFUSED);
            continue;
        }
        asks->sent++;
        link_request(monitor->link, "vsock-connect",
                     json_pack("{s:I}", "port", (json_int_t)ask->port), NULL, answered, ask);
    }
}

void vsock_asks_connect(void *opaque, uint32_t port, uint64_t token)
{
    struct monitor *monitor = opaque;
    struct vsock_asks *asks = &monitor->vsock_asks;
    struct vsock_ask *ask = malloc(sizeof(*ask));

    if (!ask) {
        machine_vsock_connected(partition_machine(monitor->partition), token, -ENOMEM);
        return;
    }
    *ask = (struct vsock_ask){.monitor = monitor, .port = port, .token = token};
    pthread_mutex_lock(&asks->lock);
    list_append(&asks->list, &ask->link);
    pthread_mutex_unlock(&asks->lock);
    loop_wake_signal(asks->wake);
}

int vsock_asks_init(struct monitor *monitor, struct error *err)
{
    struct vsock_asks *asks = &monitor->vsock_asks;

    pthread_mutex_init(&asks->lock, NULL);
    list_init(&asks->list);
    int rc = loop_wake_create(monitor->loop, send_asks, monitor, &asks->wake);
    return rc < 0 ? error_set_errno(err, rc, "cannot give the guest vsock") : 0;
}

void vsock_asks_fini(struct monitor *monitor)
{
    struct vsock_asks *asks = &monitor->vsock_asks;
    struct vsock_ask *ask;

    if (!asks->wake)
        return;
    while ((ask = next_ask(asks)))
        free(ask);
    loop_wake_close(asks->wake);
    pthread_mutex_destroy(&asks->lock);
}
