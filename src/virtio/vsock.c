// SPDX-License-Identifier: BSD-2-Clause
// vsock: stream sockets between the guest and the host (section 5.10). On the host each connection
// is a Unix socket, in the convention of Firecracker and Cloud Hypervisor (virtio.h). All work is
// done on the loop's thread.
//
// To the guest: what there is to send is never queued as packets. A connection that has control
// packets pending, or a socket to read and credit, stands in line (`ready`); when a receive buffer
// is there the first in line fills it, reading from its socket straight into guest memory, and goes
// to the end. Only resets, whose connection may not exist, are queued, and while too many of them
// wait the transmit queue does too (section 5.10.6.1).
//
// From the guest: data goes from guest memory to the socket, what the socket does not take into a
// buffer, which the credit that the guest is given never lets overflow.
//
// The guest may say what it likes in a packet: where it makes no sense the answer is a reset of
// that connection. A chain that is no packet breaks the device.
//
// On the host the device opens nothing by name: for a guest's request it asks for a connected
// socket and goes on when it is given one (virtio_vsock_connected).
//
// Saved: connections with their sockets, and what is on its way in buffers and counters, so that
// another monitor of this host goes on with them. From the moment they are saved for one, sockets
// are left alone. What was asked for and not answered, the other monitor asks for again. Where
// sockets are not part of the state (a snapshot) connections end; the guest is told so by an event
// (section 5.10.6.7), as it is of another CID.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "virtio/device.h"

// ---- Section 5.10.2 to 5.10.6 -------------------------------------------------------------------

enum { RECEIVE_QUEUE, TRANSMIT_QUEUE, EVENT_QUEUE, QUEUES };
#define VIRTIO_VSOCK_F_STREAM (1ull << 0)

#define CID_HOST 2u
enum { TYPE_STREAM = 1 };
enum {
    OP_REQUEST = 1,
    OP_RESPONSE = 2,
    OP_RST = 3,
    OP_SHUTDOWN = 4,
    OP_RW = 5,
    OP_CREDIT_UPDATE = 6,
    OP_CREDIT_REQUEST = 7,
};
enum { SHUTDOWN_RECEIVE = 1, SHUTDOWN_SEND = 2, SHUTDOWN_BOTH = 3 };

struct config_space {
    uint64_t guest_cid;
};

enum { EVENT_TRANSPORT_RESET = 0 };

struct packet_header {
    uint64_t src_cid, dst_cid;
    uint32_t src_port, dst_port;
    uint32_t payload_bytes;
    uint16_t type, op;
    uint32_t flags;
    uint32_t buf_alloc, fwd_cnt;
} __attribute__((packed));
_Static_assert(sizeof(struct packet_header) == 44, "section 5.10.6");

// ---- Limits -------------------------------------------------------------------------------------

#define CONNECTIONS_MAX 1024u      // of any state
#define CLIENTS_MAX 64u            // of them, host programs that the guest has not answered yet
#define PEER_WAIT_NS 30000000000u  // for a client's greeting, the guest's answer, a socket
#define TICK_MS 1000u
#define BUFFER_BYTES (256u << 10)  // for what the guest sends, a connection
#define CREDIT_STEP_BYTES (BUFFER_BYTES / 4)
#define GREETING_BYTES 64u
// Resets: at this many the transmit queue waits. Those that the host causes come on top, one a
// connection at most, since no connection begins while the transmit queue waits but by a client,
// which is owed none before its request has been sent.
#define RESETS_MAX 256u
#define BUCKETS 256u
#define HOST_PORT_BASE 0x40000000u
#define HOST_PORTS 0x80000000u
// Leaves room for the port.
#define PATH_BYTES_MAX (sizeof(((struct sockaddr_un *)NULL)->sun_path) - sizeof("_4294967295"))

// ---- State --------------------------------------------------------------------------------------

enum state {
    ABSENT,      // no connection
    GREETING,    // a client has connected and not said to which port
    REQUESTED,   // waits for the guest's answer
    CONNECTING,  // requested by the guest, waits for a socket
    CONNECTED,
    DRAINING,  // gone for the guest; the host gets the last bytes
};

struct connection {
    struct vsock *vsock;
    enum state state;
    struct list link;    // in vsock->connections
    struct list bucket;  // in vsock->buckets: REQUESTED, CONNECTING and CONNECTED
    struct list ready;   // in vsock->ready
    uint64_t handle;     // in vsock->names, as long as the connection lives
    uint32_t host_port, guest_port;

    int fd;  // -1 in CONNECTING, which has no watch either
    struct loop_watch *watch;
    unsigned watched;      // LOOP_*
    bool asked;            // CONNECTING: for a socket, and the answer is to come
    uint64_t deadline_ns;  // GREETING, REQUESTED, CONNECTING
    char greeting[GREETING_BYTES];
    unsigned greeting_bytes;

    unsigned pending;     // control packets to send, bit n: op n
    bool readable;        // the socket was, when last looked at
    bool host_ended;      // nothing more is read from it
    unsigned guest_shut;  // SHUTDOWN_*

    // Section 5.10.6.3; the counts are of bytes and wrap.
    struct ring buffer;  // on its way to the socket
    uint32_t forwarded, forwarded_told;
    uint32_t sent, peer_buffer_bytes, peer_forwarded;
    bool credit_asked;
};

struct vsock {
    struct virtio_device device;
    struct config_space config;
    struct log_limit log_limit;
    struct virtio_chain chain;

    struct list connections, ready, buckets[BUCKETS];
    unsigned connection_count, client_count;
    struct handle_table *names;  // of connections
    uint32_t next_port;          // for one that the host begins

    struct packet_header resets[RESETS_MAX + CONNECTIONS_MAX];
    unsigned reset_first, reset_count;
    bool transmit_waits;  // until there are fewer
    bool reset_owed;      // EVENT_TRANSPORT_RESET, as soon as there is a buffer

    int listen_fd;
    struct loop_watch *listener;
    bool accept_failed;  // until the next tick
    struct loop_timer *tick;
    bool ticking;
    void (*connect)(void *opaque, uint32_t port, uint64_t token);
    void *connect_opaque;
    char path[PATH_BYTES_MAX + 1];
};

// ---- Names of connections -----------------------------------------------------------------------

static struct list *bucket_of(struct vsock *vsock, uint32_t host_port, uint32_t guest_port)
{
    return &vsock->buckets[(host_port * 31 + guest_port) % BUCKETS];
}

static struct connection *connection_find(struct vsock *vsock, uint32_t host_port,
                                          uint32_t guest_port)
{
    LIST_FOR_EACH(bucket_of(vsock, host_port, guest_port), node)
    {
        struct connection *connection = BASE_CONTAINER_OF(node, struct connection, bucket);
        if (connection->host_port == host_port && connection->guest_port == guest_port)
            return connection;
    }
    return NULL;
}

static void connection_name(struct connection *connection, uint32_t host_port, uint32_t guest_port)
{
    connection->host_port = host_port;
    connection->guest_port = guest_port;
    list_append(bucket_of(connection->vsock, host_port, guest_port), &connection->bucket);
}

// The host's port of a connection that the host begins: one that was not used for the longest time,
// so that a late packet for one that has ended finds no successor.
static uint32_t host_port_take(struct vsock *vsock, uint32_t guest_port)
{
    uint32_t port;

    do
        port = HOST_PORT_BASE + vsock->next_port++ % HOST_PORTS;
    while (connection_find(vsock, port, guest_port));
    return port;
}

// ---- What the loop watches ----------------------------------------------------------------------

static void connection_watch(struct connection *connection)
{
    unsigned events = 0;

    if (connection->fd < 0)
        return;
    if (connection->state == GREETING)
        events = LOOP_READABLE;
    if (connection->state == CONNECTED && !connection->readable && !connection->host_ended)
        events = LOOP_READABLE;
    if (ring_used(&connection->buffer) > 0)
        events |= LOOP_WRITABLE;
    if (events != connection->watched)
        loop_watch_set(connection->watch, events);
    connection->watched = events;
}

static void listener_watch(struct vsock *vsock)
{
    bool room = vsock->client_count < CLIENTS_MAX && vsock->connection_count < CONNECTIONS_MAX;
    loop_watch_set(vsock->listener, room && !vsock->accept_failed ? LOOP_READABLE : 0);
}

static void tick_start(struct vsock *vsock)
{
    if (!vsock->ticking)
        loop_timer_start(vsock->tick, TICK_MS);
    vsock->ticking = true;
}

// ---- A connection's life ------------------------------------------------------------------------

static bool is_client(enum state state)
{
    return state == GREETING || state == REQUESTED;
}

// Whether it ends by itself after some time.
static bool is_waiting(enum state state)
{
    return is_client(state) || state == CONNECTING;
}

static void connection_state(struct connection *connection, enum state state)
{
    struct vsock *vsock = connection->vsock;

    vsock->client_count += is_client(state) - is_client(connection->state);
    connection->state = state;
    if (is_waiting(state)) {
        connection->deadline_ns = clock_monotonic_ns() + PEER_WAIT_NS;
        tick_start(vsock);
    }
}

static void connection_event(void *opaque, unsigned events);

// The socket becomes the connection's. On failure, -ENOMEM or what epoll says, it stays the
// caller's.
static int connection_attach(struct connection *connection, int fd)
{
    int failure = loop_watch_create(connection->vsock->device.wiring.loop, fd, 0, connection_event,
                                    connection, &connection->watch);
    if (!failure)
        connection->fd = fd;
    return failure;
}

// With a socket, or without (-1). NULL when there is no room or memory; the socket is the caller's
// then.
static struct connection *connection_create(struct vsock *vsock, int fd, enum state state)
{
    if (vsock->connection_count >= CONNECTIONS_MAX)
        return NULL;
    struct connection *connection = calloc(1, sizeof(*connection));
    if (!connection)
        return NULL;
    connection->vsock = vsock;
    connection->fd = -1;
    list_init(&connection->bucket);
    list_init(&connection->ready);
    if (handle_table_alloc(vsock->names, connection, VIRTIO_HANDLE_CONNECTION,
                           &connection->handle)) {
        free(connection);
        return NULL;
    }
    if (fd >= 0 && connection_attach(connection, fd)) {
        handle_table_release(vsock->names, connection->handle, VIRTIO_HANDLE_CONNECTION, NULL);
        free(connection);
        return NULL;
    }
    list_append(&vsock->connections, &connection->link);
    vsock->connection_count++;
    connection_state(connection, state);
    connection_watch(connection);
    return connection;
}

static void connection_destroy(struct connection *connection)
{
    struct vsock *vsock = connection->vsock;

    connection_state(connection, ABSENT);
    vsock->connection_count--;
    handle_table_release(vsock->names, connection->handle, VIRTIO_HANDLE_CONNECTION, NULL);
    list_remove(&connection->link);
    list_remove(&connection->bucket);
    list_remove(&connection->ready);
    loop_watch_close(connection->watch);
    if (connection->fd >= 0)
        close(connection->fd);
    ring_fini(&connection->buffer);
    free(connection);
    listener_watch(vsock);
}

// The guest has no part in it any more. What it has sent still reaches the host.
static void connection_end(struct connection *connection)
{
    if (ring_used(&connection->buffer) == 0) {
        connection_destroy(connection);
        return;
    }
    connection_state(connection, DRAINING);
    connection->readable = false;
    list_remove(&connection->bucket);
    list_remove(&connection->ready);
    connection_watch(connection);
}

static void reset_send(struct vsock *vsock, const struct packet_header *reset)
{
    unsigned slot = (vsock->reset_first + vsock->reset_count++) % BASE_COUNT_OF(vsock->resets);
    vsock->resets[slot] = *reset;
}

static struct packet_header connection_header(const struct connection *connection, uint16_t op)
{
    return (struct packet_header){
        .src_cid = CID_HOST,
        .dst_cid = connection->vsock->config.guest_cid,
        .src_port = connection->host_port,
        .dst_port = connection->guest_port,
        .type = TYPE_STREAM,
        .op = op,
        .buf_alloc = BUFFER_BYTES,
        .fwd_cnt = connection->forwarded,
    };
}

// The host's side has failed.
static void connection_abort(struct connection *connection)
{
    struct packet_header reset = connection_header(connection, OP_RST);
    bool known_to_guest = !(connection->pending & 1u << OP_REQUEST);

    if ((connection->state == REQUESTED && known_to_guest) || connection->state == CONNECTING ||
        connection->state == CONNECTED)
        reset_send(connection->vsock, &reset);
    connection_destroy(connection);
}

// ---- To the guest -------------------------------------------------------------------------------

static uint32_t connection_credit(const struct connection *connection)
{
    uint32_t in_flight = connection->sent - connection->peer_forwarded;
    return in_flight < connection->peer_buffer_bytes ? connection->peer_buffer_bytes - in_flight
                                                     : 0;
}

// Puts the connection in line if it has something to send. One that lacks credit asks for it, once.
static void connection_schedule(struct connection *connection)
{
    bool data = connection->readable && connection_credit(connection) > 0;

    if (connection->readable && !data && !connection->credit_asked) {
        connection->pending |= 1u << OP_CREDIT_REQUEST;
        connection->credit_asked = true;
    }
    if ((connection->pending || data) && list_empty(&connection->ready))
        list_append(&connection->vsock->ready, &connection->ready);
}

// Both return the bytes written to the buffer, none when there was nothing to send after all.

static size_t control_fill(struct connection *connection, const struct virtio_span *span)
{
    uint16_t op = __builtin_ctz(connection->pending);
    struct packet_header header = connection_header(connection, op);

    if (op == OP_SHUTDOWN)
        header.flags = SHUTDOWN_SEND;
    connection->pending &= ~(1u << op);
    connection->forwarded_told = connection->forwarded;
    connection_schedule(connection);
    return virtio_span_write(span, 0, &header, sizeof(header));
}

static size_t data_filled(struct connection *connection, const struct virtio_span *span,
                          size_t bytes, size_t bytes_max)
{
    struct packet_header header = connection_header(connection, OP_RW);

    header.payload_bytes = bytes;
    connection->sent += bytes;
    connection->forwarded_told = connection->forwarded;
    connection->readable = bytes == bytes_max;
    connection_schedule(connection);
    connection_watch(connection);
    return virtio_span_write(span, 0, &header, sizeof(header)) + bytes;
}

// The part of the span behind the header, `bytes_max` long at most, in a vector of its own.
static struct virtio_span payload_span(const struct virtio_span *span, struct iovec *iov,
                                       size_t bytes_max)
{
    struct virtio_span payload = {.iov = iov, .count = span->count, .bytes = span->bytes};

    memcpy(iov, span->iov, span->count * sizeof(*iov));
    virtio_span_drop_front(&payload, sizeof(struct packet_header));
    if (payload.bytes > bytes_max)
        virtio_span_drop_back(&payload, payload.bytes - bytes_max);
    return payload;
}

static size_t data_fill(struct connection *connection, const struct virtio_span *span)
{
    struct iovec iov[VIRTIO_CHAIN_MAX];
    struct virtio_span payload = payload_span(span, iov, connection_credit(connection));

    if (!connection->readable || payload.bytes == 0) {  // the guest has taken it back
        connection_schedule(connection);
        return 0;
    }
    ssize_t count = readv(connection->fd, payload.iov, (int)payload.count);
    if (count > 0)
        return data_filled(connection, span, count, payload.bytes);
    if (count < 0 && errno != EAGAIN && errno != EINTR) {
        connection_abort(connection);
        return 0;
    }
    connection->readable = false;
    if (count == 0) {
        connection->host_ended = true;
        connection->pending |= 1u << OP_SHUTDOWN;
    }
    connection_schedule(connection);
    connection_watch(connection);
    return 0;
}

static size_t packet_fill(struct vsock *vsock, const struct virtio_span *span)
{
    if (vsock->reset_count > 0) {
        const struct packet_header *reset = &vsock->resets[vsock->reset_first];
        vsock->reset_first = (vsock->reset_first + 1) % BASE_COUNT_OF(vsock->resets);
        vsock->reset_count--;
        return virtio_span_write(span, 0, reset, sizeof(*reset));
    }
    struct connection *connection = BASE_CONTAINER_OF(vsock->ready.next, struct connection, ready);
    list_remove(&connection->ready);
    return connection->pending ? control_fill(connection, span) : data_fill(connection, span);
}

static bool packet_waits(const struct vsock *vsock)
{
    return vsock->reset_count > 0 || !list_empty(&vsock->ready);
}

// Called after everything that may have given the guest something to receive.
static void receive(struct vsock *vsock)
{
    struct virtqueue *queue = &vsock->device.queues[RECEIVE_QUEUE];
    struct virtio_chain *chain = &vsock->chain;

    unsigned left = virtqueue_begin(queue);
    while (packet_waits(vsock) && left-- > 0 && virtqueue_pop(queue, chain)) {
        if (chain->readable.count > 0 || chain->writable.bytes <= sizeof(struct packet_header)) {
            virtio_device_break(&vsock->device, queue,
                                "a receive buffer is not writable or too small for a packet");
            break;
        }
        size_t written = packet_fill(vsock, &chain->writable);
        if (written > 0)
            virtqueue_push(queue, chain->head, written);
        else
            virtqueue_unpop(queue, 1);
    }
    virtqueue_publish(queue);
    if (packet_waits(vsock))
        virtqueue_end(queue);
    if (vsock->transmit_waits && vsock->reset_count < RESETS_MAX)
        virtio_device_kick(&vsock->device, TRANSMIT_QUEUE);
}

// Section 5.10.6.7: all connections are gone, and the CID may be another.
static void event_send(struct vsock *vsock)
{
    struct virtqueue *queue = &vsock->device.queues[EVENT_QUEUE];
    static const uint32_t event = EVENT_TRANSPORT_RESET;

    if (!vsock->reset_owed || !virtqueue_pop(queue, &vsock->chain))
        return;
    const struct virtio_span *span = &vsock->chain.writable;
    if (virtio_span_write(span, 0, &event, sizeof(event)) < sizeof(event)) {
        virtio_device_break(&vsock->device, queue, "an event buffer is too small for an event");
        return;
    }
    vsock->reset_owed = false;
    virtqueue_push(queue, vsock->chain.head, sizeof(event));
    virtqueue_publish(queue);
}

// ---- To the host --------------------------------------------------------------------------------

static void credit_tell(struct connection *connection)
{
    if (connection->forwarded - connection->forwarded_told >= CREDIT_STEP_BYTES)
        connection->pending |= 1u << OP_CREDIT_UPDATE;
    connection_schedule(connection);
}

// Returns the bytes that the socket has taken, none when it is full, or a negative errno.
static ssize_t socket_send(int fd, struct iovec *iov, size_t count)
{
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = count};
    ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (sent >= 0)
        return sent;
    return errno == EAGAIN || errno == EINTR ? 0 : -errno;
}

// Moves on what waits in the buffer. False when the connection has ended by that.
static bool connection_flush(struct connection *connection)
{
    const uint8_t *bytes;
    struct iovec iov;
    ssize_t sent;

    if (ring_used(&connection->buffer) == 0)
        return true;
    while ((iov.iov_len = ring_peek(&connection->buffer, &bytes)) > 0) {
        iov.iov_base = (void *)bytes;
        sent = socket_send(connection->fd, &iov, 1);
        if (sent < 0) {
            connection_abort(connection);
            return false;
        }
        if (sent == 0)
            break;
        ring_drop(&connection->buffer, sent);
        connection->forwarded += sent;
    }
    if (ring_used(&connection->buffer) > 0)
        return true;
    if (connection->guest_shut & SHUTDOWN_SEND)
        shutdown(connection->fd, SHUT_WR);
    if (connection->state == DRAINING) {
        connection_destroy(connection);
        return false;
    }
    return true;
}

static int buffer_put(struct connection *connection, const struct virtio_span *span)
{
    if (!connection->buffer.bytes && ring_init(&connection->buffer, BUFFER_BYTES))
        return -ENOMEM;
    for (unsigned i = 0; i < span->count; i++)
        ring_put(&connection->buffer, span->iov[i].iov_base, span->iov[i].iov_len);
    return 0;
}

// Returns 0, or a negative errno when the host's side has failed.
static int connection_forward(struct connection *connection, struct virtio_span *payload)
{
    if (ring_used(&connection->buffer) == 0 && payload->bytes > 0) {
        ssize_t sent = socket_send(connection->fd, payload->iov, payload->count);
        if (sent < 0)
            return (int)sent;
        connection->forwarded += sent;
        virtio_span_drop_front(payload, sent);
    }
    return payload->bytes > 0 ? buffer_put(connection, payload) : 0;
}

// ---- From the guest -----------------------------------------------------------------------------

// Section 5.10.6.4.2 and others: what cannot be accepted is answered with a reset, a reset is not.
static void packet_refuse(struct vsock *vsock, const struct packet_header *header)
{
    struct packet_header reset = {
        .src_cid = header->dst_cid,
        .dst_cid = header->src_cid,
        .src_port = header->dst_port,
        .dst_port = header->src_port,
        .type = header->type,
        .op = OP_RST,
    };
    if (header->op != OP_RST)
        reset_send(vsock, &reset);
}

static void credit_take(struct connection *connection, const struct packet_header *header)
{
    connection->peer_buffer_bytes = header->buf_alloc;
    connection->peer_forwarded = header->fwd_cnt;
    if (connection_credit(connection) > 0)
        connection->credit_asked = false;
    connection_schedule(connection);
}

static void socket_ask(struct connection *connection)
{
    struct vsock *vsock = connection->vsock;

    connection->asked = true;
    if (vsock->connect)
        vsock->connect(vsock->connect_opaque, connection->host_port, connection->handle);
    else
        virtio_vsock_connected(&vsock->device, connection->handle, -ECONNREFUSED);
}

static void request(struct vsock *vsock, struct connection *connection,
                    const struct packet_header *header, struct virtio_span *payload)
{
    (void)payload;
    connection = connection_create(vsock, -1, CONNECTING);
    if (!connection) {
        packet_refuse(vsock, header);
        return;
    }
    connection_name(connection, header->dst_port, header->src_port);
    credit_take(connection, header);
    socket_ask(connection);
}

// Another monitor that goes on with the guest asks itself, so what comes now is not taken.
void virtio_vsock_connected(struct virtio_device *device, uint64_t token, int fd)
{
    struct vsock *vsock = BASE_CONTAINER_OF(device, struct vsock, device);
    struct connection *connection =
        handle_table_resolve(vsock->names, token, VIRTIO_HANDLE_CONNECTION);

    if (connection && connection->state == CONNECTING && device->hands_off) {
        connection->asked = false;
        connection = NULL;
    }
    if (!connection || connection->state != CONNECTING ||
        (fd >= 0 && connection_attach(connection, fd))) {
        if (fd >= 0)
            close(fd);
        fd = -1;
    }
    if (!connection || connection->state != CONNECTING)
        return;
    if (fd < 0) {
        connection_abort(connection);
    } else {
        connection_state(connection, CONNECTED);
        connection->pending = 1u << OP_RESPONSE;
        connection_schedule(connection);
        connection_watch(connection);
    }
    virtio_device_kick(device, RECEIVE_QUEUE);
}

static void response(struct vsock *vsock, struct connection *connection,
                     const struct packet_header *header, struct virtio_span *payload)
{
    char line[32];
    struct iovec iov = {.iov_base = line};

    (void)header;
    (void)payload;
    connection_state(connection, CONNECTED);
    listener_watch(vsock);
    iov.iov_len = snprintf(line, sizeof(line), "OK %u\n", connection->host_port);
    // The first bytes in an empty socket: all or nothing.
    if (socket_send(connection->fd, &iov, 1) <= 0)
        connection_abort(connection);
    else
        connection_watch(connection);
}

static void guest_reset(struct vsock *vsock, struct connection *connection,
                        const struct packet_header *header, struct virtio_span *payload)
{
    (void)vsock;
    (void)header;
    (void)payload;
    if (connection)
        connection_end(connection);
}

// Half of it is shut down on the host's side, too; of both halves the guest wants confirmation by a
// reset (section 5.10.6.5).
static void guest_shutdown(struct vsock *vsock, struct connection *connection,
                           const struct packet_header *header, struct virtio_span *payload)
{
    (void)payload;
    connection->guest_shut |= header->flags & SHUTDOWN_BOTH;
    if (connection->guest_shut == SHUTDOWN_BOTH) {
        packet_refuse(vsock, header);
        connection_end(connection);
        return;
    }
    if (connection->guest_shut & SHUTDOWN_RECEIVE) {
        shutdown(connection->fd, SHUT_RD);
        connection->readable = false;
        connection->host_ended = true;
    }
    if ((connection->guest_shut & SHUTDOWN_SEND) && ring_used(&connection->buffer) == 0)
        shutdown(connection->fd, SHUT_WR);
    connection_watch(connection);
}

static void data(struct vsock *vsock, struct connection *connection,
                 const struct packet_header *header, struct virtio_span *payload)
{
    bool has_credit = payload->bytes <= BUFFER_BYTES - ring_used(&connection->buffer);

    if (!has_credit || (connection->guest_shut & SHUTDOWN_SEND)) {
        packet_refuse(vsock, header);
        connection_destroy(connection);
        return;
    }
    if (connection_forward(connection, payload)) {
        connection_abort(connection);
        return;
    }
    credit_tell(connection);
    connection_watch(connection);
}

static void credit_update(struct vsock *vsock, struct connection *connection,
                          const struct packet_header *header, struct virtio_span *payload)
{
    (void)vsock;
    (void)payload;
    credit_take(connection, header);
}

static void credit_request(struct vsock *vsock, struct connection *connection,
                           const struct packet_header *header, struct virtio_span *payload)
{
    (void)vsock;
    (void)header;
    (void)payload;
    connection->pending |= 1u << OP_CREDIT_UPDATE;
    connection_schedule(connection);
}

// What a packet may say, and when. The payload is the packet's and may be cut.
static const struct operation {
    unsigned states;  // bit n: enum state n
    void (*handle)(struct vsock *vsock, struct connection *connection,
                   const struct packet_header *header, struct virtio_span *payload);
} operations[] = {
    [OP_REQUEST] = {1u << ABSENT, request},
    [OP_RESPONSE] = {1u << REQUESTED, response},
    [OP_RST] = {1u << ABSENT | 1u << REQUESTED | 1u << CONNECTING | 1u << CONNECTED, guest_reset},
    [OP_SHUTDOWN] = {1u << CONNECTED, guest_shutdown},
    [OP_RW] = {1u << CONNECTED, data},
    [OP_CREDIT_UPDATE] = {1u << CONNECTED, credit_update},
    [OP_CREDIT_REQUEST] = {1u << CONNECTED, credit_request},
};

static void packet_handle(struct vsock *vsock, const struct packet_header *header,
                          struct virtio_span *payload)
{
    static const struct operation unknown;
    bool addressed = header->type == TYPE_STREAM && header->dst_cid == CID_HOST &&
                     header->src_cid == vsock->config.guest_cid;
    if (!addressed) {
        packet_refuse(vsock, header);
        return;
    }
    const struct operation *operation =
        header->op < BASE_COUNT_OF(operations) ? &operations[header->op] : &unknown;
    struct connection *connection = connection_find(vsock, header->dst_port, header->src_port);
    enum state state = connection ? connection->state : ABSENT;
    if (!(operation->states & 1u << state)) {
        packet_refuse(vsock, header);
        if (connection)
            connection_destroy(connection);
        return;
    }
    if (connection)
        credit_take(connection, header);
    operation->handle(vsock, connection, header, payload);
}

// Copies the header out, once, and cuts the span to what it says. False for what is no packet.
static bool packet_parse(struct virtio_chain *chain, struct packet_header *header)
{
    struct virtio_span *span = &chain->readable;

    if (chain->writable.count > 0 ||
        virtio_span_read(span, 0, header, sizeof(*header)) < sizeof(*header))
        return false;
    virtio_span_drop_front(span, sizeof(*header));
    if (header->payload_bytes > span->bytes)
        return false;
    virtio_span_drop_back(span, span->bytes - header->payload_bytes);
    return true;
}

static void transmit(struct vsock *vsock, struct virtqueue *queue)
{
    struct packet_header header;

    unsigned left = virtqueue_begin(queue);
    while (left-- > 0 && vsock->reset_count < RESETS_MAX && virtqueue_pop(queue, &vsock->chain)) {
        if (!packet_parse(&vsock->chain, &header)) {
            virtio_device_break(&vsock->device, queue, "a packet is cut short or writable");
            break;
        }
        packet_handle(vsock, &header, &vsock->chain.readable);
        virtqueue_push(queue, vsock->chain.head, 0);
    }
    virtqueue_publish(queue);
    vsock->transmit_waits = vsock->reset_count >= RESETS_MAX;
    if (!vsock->transmit_waits)
        virtqueue_end(queue);
    receive(vsock);
}

// ---- Host programs ------------------------------------------------------------------------------

// "CONNECT PORT", the newline taken away.
static bool greeting_parse(const char *line, size_t bytes, uint32_t *port)
{
    static const char verb[] = "CONNECT ";
    uint64_t value = 0;
    size_t i = sizeof(verb) - 1;

    if (bytes <= i || memcmp(line, verb, i) != 0)
        return false;
    for (; i < bytes && line[i] >= '0' && line[i] <= '9' && value < UINT32_MAX; i++)
        value = value * 10 + (line[i] - '0');
    *port = value;
    return i == bytes && value < UINT32_MAX;  // the last one stands for any port
}

// Takes the next piece of the line and nothing of what follows it. False when it is no greeting, or
// the client has gone.
static bool greeting_read(struct connection *connection, bool *complete)
{
    char *next = connection->greeting + connection->greeting_bytes;
    size_t room = GREETING_BYTES - connection->greeting_bytes;

    ssize_t count = recv(connection->fd, next, room, MSG_PEEK);
    if (count <= 0)
        return count < 0 && (errno == EAGAIN || errno == EINTR);
    const char *newline = memchr(next, '\n', count);
    if (newline)
        count = newline + 1 - next;
    if (recv(connection->fd, next, count, 0) != count)
        return false;
    connection->greeting_bytes += count;
    *complete = newline;
    return newline || connection->greeting_bytes < GREETING_BYTES;
}

static void client_greet(struct connection *connection)
{
    bool complete = false;
    uint32_t port;

    if (!greeting_read(connection, &complete) ||
        (complete &&
         !greeting_parse(connection->greeting, connection->greeting_bytes - 1, &port))) {
        connection_destroy(connection);
        return;
    }
    if (!complete)
        return;
    connection_state(connection, REQUESTED);
    connection_name(connection, host_port_take(connection->vsock, port), port);
    connection->pending = 1u << OP_REQUEST;
    connection_schedule(connection);
    connection_watch(connection);
}

static void connection_event(void *opaque, unsigned events)
{
    struct connection *connection = opaque;
    struct vsock *vsock = connection->vsock;

    if (vsock->device.paused) {
        loop_watch_set(connection->watch, 0);
        connection->watched = 0;
        return;
    }
    if (connection->state == GREETING) {
        client_greet(connection);
    } else if (connection_flush(connection) && connection->state == CONNECTED) {
        if ((events & LOOP_READABLE) && (connection->watched & LOOP_READABLE))
            connection->readable = true;
        credit_tell(connection);
        connection_watch(connection);
    }
    receive(vsock);
}

static void client_accept(struct vsock *vsock)
{
    int fd = accept4(vsock->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd >= 0 && (!vsock->device.driven || !connection_create(vsock, fd, GREETING)))
        close(fd);  // no driver: nobody would answer
    if (fd >= 0 || errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
        return;
    log_limited(&vsock->log_limit, LOG_ERROR, "vsock: cannot accept a client of \"%s\": %s",
                vsock->path, strerror(errno));
    vsock->accept_failed = true;
    tick_start(vsock);
}

static void listener_event(void *opaque, unsigned events)
{
    struct vsock *vsock = opaque;

    (void)events;
    if (vsock->device.paused) {
        loop_watch_set(vsock->listener, 0);
        return;
    }
    client_accept(vsock);
    listener_watch(vsock);
}

// Who has waited too long: clients for their own greeting or for the guest, the guest for a socket.
static void tick(void *opaque)
{
    struct vsock *vsock = opaque;
    uint64_t now_ns = clock_monotonic_ns();
    bool waiting = vsock->device.paused;

    vsock->ticking = false;
    LIST_FOR_EACH(&vsock->connections, node)
    {
        struct connection *connection = BASE_CONTAINER_OF(node, struct connection, link);
        if (vsock->device.paused || !is_waiting(connection->state))
            continue;
        if (now_ns >= connection->deadline_ns)
            connection_abort(connection);
        else
            waiting = true;
    }
    if (waiting)
        tick_start(vsock);
    if (vsock->device.paused)
        return;
    vsock->accept_failed = false;
    listener_watch(vsock);
    receive(vsock);
}

// ---- Saved state --------------------------------------------------------------------------------

struct connection_state {
    uint8_t state;
    uint32_t host_port, guest_port;
    int fd;
    uint64_t deadline_ns;  // CLOCK_MONOTONIC, which monitors of one host share
    struct state_blob greeting;
    bool in_line;
    uint32_t pending;
    bool readable, host_ended, credit_asked;
    uint8_t guest_shut;
    struct state_blob buffer;
    uint32_t forwarded, forwarded_told, sent, peer_buffer_bytes, peer_forwarded;
};

static const struct state_field connection_fields[] = {
    STATE_FIELD(struct connection_state, state, STATE_U8, 1, DRAINING),
    STATE_FIELD(struct connection_state, host_port, STATE_U32, 1, 0),
    STATE_FIELD(struct connection_state, guest_port, STATE_U32, 1, 0),
    STATE_FIELD(struct connection_state, fd, STATE_FD, 1, 0),
    STATE_FIELD(struct connection_state, deadline_ns, STATE_U64, 1, 0),
    STATE_FIELD(struct connection_state, greeting, STATE_BLOB, 1, GREETING_BYTES - 1),
    STATE_FIELD(struct connection_state, in_line, STATE_BOOL, 1, 0),
    STATE_FIELD(struct connection_state, pending, STATE_U32, 1, (2u << OP_CREDIT_REQUEST) - 1),
    STATE_FIELD(struct connection_state, readable, STATE_BOOL, 1, 0),
    STATE_FIELD(struct connection_state, host_ended, STATE_BOOL, 1, 0),
    STATE_FIELD(struct connection_state, credit_asked, STATE_BOOL, 1, 0),
    STATE_FIELD(struct connection_state, guest_shut, STATE_U8, 1, SHUTDOWN_BOTH),
    STATE_FIELD(struct connection_state, buffer, STATE_BLOB, 1, BUFFER_BYTES),
    STATE_FIELD(struct connection_state, forwarded, STATE_U32, 1, 0),
    STATE_FIELD(struct connection_state, forwarded_told, STATE_U32, 1, 0),
    STATE_FIELD(struct connection_state, sent, STATE_U32, 1, 0),
    STATE_FIELD(struct connection_state, peer_buffer_bytes, STATE_U32, 1, 0),
    STATE_FIELD(struct connection_state, peer_forwarded, STATE_U32, 1, 0),
    {.name = NULL},
};

static const struct state_schema connection_schema = {
    .name = "connection",
    .version = 1,
    .struct_bytes = sizeof(struct connection_state),
    .fields = connection_fields,
};

// A packet_header of which only this is not the same in all resets.
struct reset_state {
    uint64_t src_cid, dst_cid;
    uint32_t src_port, dst_port;
    uint16_t type;
    uint32_t buf_alloc, fwd_cnt;
};

static const struct state_field reset_fields[] = {
    STATE_FIELD(struct reset_state, src_cid, STATE_U64, 1, 0),
    STATE_FIELD(struct reset_state, dst_cid, STATE_U64, 1, 0),
    STATE_FIELD(struct reset_state, src_port, STATE_U32, 1, 0),
    STATE_FIELD(struct reset_state, dst_port, STATE_U32, 1, 0),
    STATE_FIELD(struct reset_state, type, STATE_U16, 1, 0),
    STATE_FIELD(struct reset_state, buf_alloc, STATE_U32, 1, 0),
    STATE_FIELD(struct reset_state, fwd_cnt, STATE_U32, 1, 0),
    {.name = NULL},
};

static const struct state_schema reset_schema = {
    .name = "reset",
    .version = 1,
    .struct_bytes = sizeof(struct reset_state),
    .fields = reset_fields,
};

struct vsock_state {
    uint64_t guest_cid;
    uint32_t next_port;
    bool reset_owed;
    struct state_list connections, resets;
};

static const struct state_field vsock_fields[] = {
    STATE_FIELD(struct vsock_state, guest_cid, STATE_U64, 1, 0),
    STATE_FIELD(struct vsock_state, next_port, STATE_U32, 1, 0),
    STATE_FIELD(struct vsock_state, reset_owed, STATE_BOOL, 1, 0),
    STATE_LIST_OF(struct vsock_state, connections, &connection_schema, 1, CONNECTIONS_MAX),
    STATE_LIST_OF(struct vsock_state, resets, &reset_schema, 1, RESETS_MAX + CONNECTIONS_MAX),
    {.name = NULL},
};

static const struct state_schema vsock_schema = {
    .name = "virtio-vsock",
    .version = 1,
    .struct_bytes = sizeof(struct vsock_state),
    .fields = vsock_fields,
};

// `buffer` has room for what is in the connection's; returns behind it.
static uint8_t *connection_save(struct connection *connection, struct connection_state *state,
                                uint8_t *buffer)
{
    struct ring copy = connection->buffer;  // taking from the copy leaves the ring as it is
    size_t bytes = ring_take(&copy, buffer, ring_used(&copy));

    *state = (struct connection_state){
        .state = connection->state,
        .host_port = connection->host_port,
        .guest_port = connection->guest_port,
        .fd = connection->fd,
        .deadline_ns = is_waiting(connection->state) ? connection->deadline_ns : 0,
        .greeting = {connection->greeting, connection->greeting_bytes},
        .in_line = !list_empty(&connection->ready),
        .pending = connection->pending,
        .readable = connection->readable,
        .host_ended = connection->host_ended,
        .credit_asked = connection->credit_asked,
        .guest_shut = connection->guest_shut,
        .buffer = {buffer, bytes},
        .forwarded = connection->forwarded,
        .forwarded_told = connection->forwarded_told,
        .sent = connection->sent,
        .peer_buffer_bytes = connection->peer_buffer_bytes,
        .peer_forwarded = connection->peer_forwarded,
    };
    return buffer + bytes;
}

// Those that stand in line come first, in their order.
static size_t connections_save(struct vsock *vsock, struct connection_state *states,
                               uint8_t *buffer)
{
    struct connection_state *state = states;

    LIST_FOR_EACH(&vsock->ready, node)
    {
        struct connection *connection = BASE_CONTAINER_OF(node, struct connection, ready);
        buffer = connection_save(connection, state++, buffer);
    }
    LIST_FOR_EACH(&vsock->connections, node)
    {
        struct connection *connection = BASE_CONTAINER_OF(node, struct connection, link);
        if (list_empty(&connection->ready))
            buffer = connection_save(connection, state++, buffer);
    }
    return state - states;
}

static size_t resets_save(const struct vsock *vsock, struct reset_state *states)
{
    for (unsigned i = 0; i < vsock->reset_count; i++) {
        const struct packet_header *reset =
            &vsock->resets[(vsock->reset_first + i) % BASE_COUNT_OF(vsock->resets)];
        states[i] = (struct reset_state){
            .src_cid = reset->src_cid,
            .dst_cid = reset->dst_cid,
            .src_port = reset->src_port,
            .dst_port = reset->dst_port,
            .type = reset->type,
            .buf_alloc = reset->buf_alloc,
            .fwd_cnt = reset->fwd_cnt,
        };
    }
    return vsock->reset_count;
}

static size_t buffered_bytes(const struct vsock *vsock)
{
    size_t bytes = 0;

    LIST_FOR_EACH(&vsock->connections, node)
    bytes += ring_used(&BASE_CONTAINER_OF(node, struct connection, link)->buffer);
    return bytes;
}

// Without memory the section is missing, and whoever loads the state refuses it.
static void save(struct virtio_device *device, struct state_writer *writer, unsigned slot)
{
    struct vsock *vsock = BASE_CONTAINER_OF(device, struct vsock, device);
    struct connection_state *connections = calloc(CONNECTIONS_MAX, sizeof(*connections));
    struct reset_state *resets = calloc(BASE_COUNT_OF(vsock->resets), sizeof(*resets));
    uint8_t *buffer = malloc(buffered_bytes(vsock) + 1);

    if (connections && resets && buffer) {
        const struct vsock_state state = {
            .guest_cid = vsock->config.guest_cid,
            .next_port = vsock->next_port,
            .reset_owed = vsock->reset_owed,
            .connections = {connections, connections_save(vsock, connections, buffer)},
            .resets = {resets, resets_save(vsock, resets)},
        };
        state_write(writer, &vsock_schema, slot, &state);
    }
    free(buffer);
    free(resets);
    free(connections);
}

static bool is_named(enum state state)
{
    return state == REQUESTED || state == CONNECTING || state == CONNECTED;
}

// Returns the rule that a connection's state breaks, or NULL.
static const char *connection_fault(struct vsock *vsock, const struct connection_state *state)
{
    if (state->state == ABSENT)
        return "a connection has no state";
    if (is_named(state->state) && connection_find(vsock, state->host_port, state->guest_port))
        return "two connections have the same ports";
    if (state->in_line && state->state != REQUESTED && state->state != CONNECTED)
        return "a connection has nothing to send and stands in line";
    if (state->readable && state->state != CONNECTED)
        return "a socket is read that is not connected";
    if (state->fd >= 0 && state->state == CONNECTING)
        return "a connection waits for a socket and has one";
    return NULL;
}

// With a descriptor of its own. 0, or a negative errno.
static int connection_load(struct vsock *vsock, const struct connection_state *state)
{
    int fd = state->fd < 0 ? -1 : fcntl(state->fd, F_DUPFD_CLOEXEC, 0);
    if (state->fd >= 0 && fd < 0)
        return -errno;
    struct connection *connection = connection_create(vsock, fd, state->state);
    if (!connection) {
        if (fd >= 0)
            close(fd);
        return -ENOMEM;
    }
    connection->deadline_ns = state->deadline_ns;
    if (state->greeting.length_bytes > 0)  // else there are no bytes to point to
        memcpy(connection->greeting, state->greeting.bytes, state->greeting.length_bytes);
    connection->greeting_bytes = state->greeting.length_bytes;
    connection->pending = state->pending;
    connection->readable = state->readable;
    connection->host_ended = state->host_ended;
    connection->credit_asked = state->credit_asked;
    connection->guest_shut = state->guest_shut;
    connection->forwarded = state->forwarded;
    connection->forwarded_told = state->forwarded_told;
    connection->sent = state->sent;
    connection->peer_buffer_bytes = state->peer_buffer_bytes;
    connection->peer_forwarded = state->peer_forwarded;
    if (is_named(state->state))
        connection_name(connection, state->host_port, state->guest_port);
    if (state->in_line)
        list_append(&vsock->ready, &connection->ready);
    if (state->buffer.length_bytes == 0)
        return 0;
    if (ring_init(&connection->buffer, BUFFER_BYTES))
        return -ENOMEM;
    ring_put(&connection->buffer, state->buffer.bytes, state->buffer.length_bytes);
    return 0;
}

static int connections_load(struct vsock *vsock, const struct state_list *list, unsigned slot,
                            struct error *err)
{
    const struct connection_state *states = list->elements;

    for (size_t i = 0; i < list->count; i++) {
        const char *fault = connection_fault(vsock, &states[i]);
        if (fault)
            return virtio_state_refuse(err, vsock_schema.name, slot, "connections", fault);
        if (states[i].fd < 0 && states[i].state != CONNECTING) {
            vsock->reset_owed = true;
            continue;
        }
        int failure = connection_load(vsock, &states[i]);
        if (failure)
            return error_set_errno(err, failure, "cannot go on with a vsock connection");
    }
    return 0;
}

static void resets_load(struct vsock *vsock, const struct state_list *list)
{
    const struct reset_state *states = list->elements;

    for (size_t i = 0; i < list->count; i++)
        reset_send(vsock, &(struct packet_header){
                              .src_cid = states[i].src_cid,
                              .dst_cid = states[i].dst_cid,
                              .src_port = states[i].src_port,
                              .dst_port = states[i].dst_port,
                              .type = states[i].type,
                              .op = OP_RST,
                              .buf_alloc = states[i].buf_alloc,
                              .fwd_cnt = states[i].fwd_cnt,
                          });
}

static int load(struct virtio_device *device, struct state_reader *reader, unsigned slot,
                struct error *err)
{
    struct vsock *vsock = BASE_CONTAINER_OF(device, struct vsock, device);
    struct vsock_state state = {0};

    int failure = state_read(reader, &vsock_schema, slot, &state, err);
    if (failure)
        return failure;
    vsock->next_port = state.next_port;
    vsock->reset_owed = state.reset_owed;
    failure = connections_load(vsock, &state.connections, slot, err);
    if (failure)
        return failure;
    resets_load(vsock, &state.resets);
    if (state.guest_cid != vsock->config.guest_cid) {
        const struct config_space config = vsock->config;
        vsock->reset_owed = true;
        virtio_device_config_set(device, 0, &config, sizeof(config));
    }
    return 0;
}

// ---- Operations ---------------------------------------------------------------------------------

static void notify(struct virtio_device *device, unsigned index)
{
    struct vsock *vsock = BASE_CONTAINER_OF(device, struct vsock, device);

    if (index == TRANSMIT_QUEUE)
        transmit(vsock, &device->queues[index]);
    else if (index == RECEIVE_QUEUE)
        receive(vsock);
    else
        event_send(vsock);
}

// Watches have gone to sleep meanwhile, one by one, as something came.
static void resume(struct virtio_device *device)
{
    struct vsock *vsock = BASE_CONTAINER_OF(device, struct vsock, device);

    LIST_FOR_EACH(&vsock->connections, node)
    {
        struct connection *connection = BASE_CONTAINER_OF(node, struct connection, link);
        connection_watch(connection);
        if (connection->state == CONNECTING && !connection->asked)
            socket_ask(connection);
    }
    listener_watch(vsock);
}

static void reset(struct virtio_device *device)
{
    struct vsock *vsock = BASE_CONTAINER_OF(device, struct vsock, device);

    LIST_FOR_EACH(&vsock->connections, node)
    connection_destroy(BASE_CONTAINER_OF(node, struct connection, link));
    vsock->reset_first = vsock->reset_count = 0;
    vsock->transmit_waits = vsock->reset_owed = false;
}

static void vsock_free(struct vsock *vsock)
{
    loop_watch_close(vsock->listener);
    loop_timer_close(vsock->tick);
    handle_table_destroy(vsock->names, NULL, NULL);
    free(vsock);
}

static void destroy(struct virtio_device *device)
{
    struct vsock *vsock = BASE_CONTAINER_OF(device, struct vsock, device);
    int listen_fd = vsock->listen_fd;

    vsock_free(vsock);
    close(listen_fd);
}

static const struct virtio_device_ops vsock_ops = {
    .name = "vsock",
    .device_id = VIRTIO_ID_VSOCK,
    .features = VIRTIO_VSOCK_F_STREAM,
    .config_bytes = sizeof(struct config_space),
    .queue_count = QUEUES,
    .queue_size = VIRTQUEUE_SIZE_MAX,
    .notify = notify,
    .resume = resume,
    .reset = reset,
    .save = save,
    .load = load,
    .destroy = destroy,
};

// ---- Constructor --------------------------------------------------------------------------------

static void lists_init(struct vsock *vsock)
{
    list_init(&vsock->connections);
    list_init(&vsock->ready);
    for (unsigned i = 0; i < BUCKETS; i++)
        list_init(&vsock->buckets[i]);
}

static int vsock_build(struct vsock *vsock, const struct virtio_wiring *wiring,
                       const struct virtio_vsock_config *config, struct error *err)
{
    if (strlen(config->path) > PATH_BYTES_MAX)
        return error_set(err, -ENAMETOOLONG,
                         "cannot use vsock path \"%s\": it is longer than %zu bytes", config->path,
                         PATH_BYTES_MAX);
    memcpy(vsock->path, config->path, strlen(config->path) + 1);
    const struct handle_options names = {.live_max = CONNECTIONS_MAX};
    int failure = handle_table_create(&vsock->names, &names);
    if (!failure)
        failure = loop_timer_create(wiring->loop, tick, vsock, &vsock->tick);
    if (!failure)
        failure = loop_watch_create(wiring->loop, config->listen_fd, LOOP_READABLE, listener_event,
                                    vsock, &vsock->listener);
    if (failure)
        return error_set_errno(err, failure, "cannot listen at vsock path \"%s\"", config->path);
    return virtio_device_init(&vsock->device, &vsock_ops, wiring, &vsock->config, err);
}

int virtio_vsock_create(struct virtio_device **out, const struct virtio_wiring *wiring,
                        const struct virtio_vsock_config *config, struct error *err)
{
    struct vsock *vsock = calloc(1, sizeof(*vsock));
    if (!vsock)
        return error_set_errno(err, -ENOMEM, "creating the virtio vsock device");
    lists_init(vsock);
    vsock->config.guest_cid = config->guest_cid;
    vsock->listen_fd = config->listen_fd;
    vsock->connect = config->connect;
    vsock->connect_opaque = config->opaque;
    vsock->log_limit = (struct log_limit)LOG_LIMIT_INIT;
    int failure = vsock_build(vsock, wiring, config, err);
    if (failure) {
        vsock_free(vsock);
        return failure;
    }
    *out = &vsock->device;
    return 0;
}
