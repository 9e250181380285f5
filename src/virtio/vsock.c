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
// Not saved: connections end with their process; the guest is told so by an event (section
// 5.10.6.7).
#include <errno.h>
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

#define CONNECTIONS_MAX 1024u  // of any state
#define CLIENTS_MAX 64u        // of them, host programs that the guest has not answered yet
#define CLIENT_WAIT_NS 30000000000u
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
// Leaves room for the port.
#define PATH_BYTES_MAX (sizeof(((struct sockaddr_un *)NULL)->sun_path) - sizeof("_4294967295"))

// ---- State --------------------------------------------------------------------------------------

enum state {
    ABSENT,     // no connection
    GREETING,   // a client has connected and not said to which port
    REQUESTED,  // waits for the guest's answer
    CONNECTED,
    DRAINING,  // gone for the guest; the host gets the last bytes
};

struct connection {
    struct vsock *vsock;
    enum state state;
    struct list link;    // in vsock->connections
    struct list bucket;  // in vsock->buckets: REQUESTED and CONNECTED
    struct list ready;   // in vsock->ready
    uint64_t handle;     // in vsock->names, as long as the connection lives
    uint32_t host_port, guest_port;

    int fd;
    struct loop_watch *watch;
    unsigned watched;      // LOOP_*
    uint64_t deadline_ns;  // GREETING, REQUESTED
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

    struct packet_header resets[RESETS_MAX + CONNECTIONS_MAX];
    unsigned reset_first, reset_count;
    bool transmit_waits;  // until there are fewer

    int listen_fd;
    struct loop_watch *listener;
    bool accept_failed;  // until the next tick
    struct loop_timer *tick;
    bool ticking;
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

// The host's port of a connection that the host began is made of its handle: the index, which no
// other connection has meanwhile, and the lowest bits of the generation, so that a late packet for
// one that has ended finds no successor.
static uint32_t host_port_of(const struct connection *connection)
{
    uint32_t generation = handle_generation(connection->handle) << HANDLE_INDEX_BITS;
    return HOST_PORT_BASE + (generation % HOST_PORT_BASE | handle_index(connection->handle));
}

// ---- What the loop watches ----------------------------------------------------------------------

static void connection_watch(struct connection *connection)
{
    unsigned events = 0;

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

static void connection_state(struct connection *connection, enum state state)
{
    struct vsock *vsock = connection->vsock;

    vsock->client_count += is_client(state) - is_client(connection->state);
    connection->state = state;
    if (is_client(state)) {
        connection->deadline_ns = clock_monotonic_ns() + CLIENT_WAIT_NS;
        tick_start(vsock);
    }
}

static void connection_event(void *opaque, unsigned events);

// NULL when there is no room or memory; the descriptor is the caller's then.
static struct connection *connection_create(struct vsock *vsock, int fd, enum state state)
{
    if (vsock->connection_count >= CONNECTIONS_MAX)
        return NULL;
    struct connection *connection = calloc(1, sizeof(*connection));
    if (!connection)
        return NULL;
    connection->vsock = vsock;
    connection->fd = fd;
    list_init(&connection->bucket);
    list_init(&connection->ready);
    if (handle_table_alloc(vsock->names, connection, VIRTIO_HANDLE_CONNECTION,
                           &connection->handle)) {
        free(connection);
        return NULL;
    }
    if (loop_watch_create(vsock->device.wiring.loop, fd, 0, connection_event, connection,
                          &connection->watch)) {
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

    if ((connection->state == REQUESTED && known_to_guest) || connection->state == CONNECTED)
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

static int host_connect(const struct vsock *vsock, uint32_t port)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    snprintf(address.sun_path, sizeof(address.sun_path), "%s_%u", vsock->path, port);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static void credit_take(struct connection *connection, const struct packet_header *header)
{
    connection->peer_buffer_bytes = header->buf_alloc;
    connection->peer_forwarded = header->fwd_cnt;
    if (connection_credit(connection) > 0)
        connection->credit_asked = false;
    connection_schedule(connection);
}

static void request(struct vsock *vsock, struct connection *connection,
                    const struct packet_header *header, struct virtio_span *payload)
{
    int fd = host_connect(vsock, header->dst_port);

    (void)payload;
    connection = fd < 0 ? NULL : connection_create(vsock, fd, CONNECTED);
    if (!connection) {
        if (fd >= 0)
            close(fd);
        packet_refuse(vsock, header);
        return;
    }
    connection_name(connection, header->dst_port, header->src_port);
    connection->pending = 1u << OP_RESPONSE;
    credit_take(connection, header);
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
    [OP_RST] = {1u << ABSENT | 1u << REQUESTED | 1u << CONNECTED, guest_reset},
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
    connection_name(connection, host_port_of(connection), port);
    connection->pending = 1u << OP_REQUEST;
    connection_schedule(connection);
    connection_watch(connection);
}

static void connection_event(void *opaque, unsigned events)
{
    struct connection *connection = opaque;
    struct vsock *vsock = connection->vsock;

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
    client_accept(vsock);
    listener_watch(vsock);
}

// Clients that have waited too long, for their own greeting or for the guest.
static void tick(void *opaque)
{
    struct vsock *vsock = opaque;
    uint64_t now_ns = clock_monotonic_ns();

    vsock->ticking = vsock->accept_failed = false;
    listener_watch(vsock);
    LIST_FOR_EACH(&vsock->connections, node)
    {
        struct connection *connection = BASE_CONTAINER_OF(node, struct connection, link);
        if (is_client(connection->state) && now_ns >= connection->deadline_ns)
            connection_abort(connection);
    }
    if (vsock->client_count > 0)
        tick_start(vsock);
    receive(vsock);
}

// ---- Operations ---------------------------------------------------------------------------------

static void notify(struct virtio_device *device, unsigned index)
{
    struct vsock *vsock = BASE_CONTAINER_OF(device, struct vsock, device);

    if (index == TRANSMIT_QUEUE)
        transmit(vsock, &device->queues[index]);
    else if (index == RECEIVE_QUEUE)
        receive(vsock);
}

static void reset(struct virtio_device *device)
{
    struct vsock *vsock = BASE_CONTAINER_OF(device, struct vsock, device);

    LIST_FOR_EACH(&vsock->connections, node)
    connection_destroy(BASE_CONTAINER_OF(node, struct connection, link));
    vsock->reset_first = vsock->reset_count = 0;
    vsock->transmit_waits = false;
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
    .reset = reset,
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
    vsock->log_limit = (struct log_limit)LOG_LIMIT_INIT;
    int failure = vsock_build(vsock, wiring, config, err);
    if (failure) {
        vsock_free(vsock);
        return failure;
    }
    *out = &vsock->device;
    return 0;
}
