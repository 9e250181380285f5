// SPDX-License-Identifier: BSD-2-Clause
// slirp: user-mode networking by libslirp, which ends the guest's connections in itself and makes
// its own on the host. Addresses are those that guests know from QEMU: the host at 10.0.2.2, names
// at 10.0.2.3, the guest at 10.0.2.15 by DHCP; fec0::/64 for IPv6. No TFTP, no SMB.
//
// Waiting: libslirp wants to say before each poll what it waits for, and to be told all at once
// what has come. That is an epoll set of its own, in the loop as one watch, and the index by which
// libslirp remembers a descriptor is the descriptor itself. The set follows descriptors that
// libslirp closes and opens again without further care of ours.
//
// Clients of forwards: libslirp goes on when it cannot accept one, which is then ready at once
// again. When there are no descriptors left, its listening sockets are not waited for, for a while.
#include <errno.h>
#include <fcntl.h>
#include <slirp/libslirp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "usernet/internal.h"

#define READY_MAX 64u  // descriptors a turn; the rest in the next
#define ACCEPT_AGAIN_MS 200

struct user_net {
    struct user_net_events events;
    struct log_limit log_limit;
    Slirp *slirp;

    struct loop *loop;
    struct loop_timer *timer;  // when libslirp wants a turn without any descriptor being ready
    int epoll_fd;
    struct loop_watch *watch;  // of epoll_fd
    struct descriptor {        // indexed by descriptor; SLIRP_POLL_* bits
        uint8_t wanted, registered, ready;
        bool listens;  // known once it is registered
    } * descriptors;
    int descriptor_count;
    bool deaf;  // to new clients, until accept_again
    struct loop_timer *accept_again;
};

// ---- Waiting ------------------------------------------------------------------------------------

static const struct {
    int slirp;
    uint32_t epoll;
} event_bits[] = {
    {SLIRP_POLL_IN, EPOLLIN},   {SLIRP_POLL_OUT, EPOLLOUT}, {SLIRP_POLL_PRI, EPOLLPRI},
    {SLIRP_POLL_ERR, EPOLLERR}, {SLIRP_POLL_HUP, EPOLLHUP},
};

static uint32_t events_to_epoll(int slirp)
{
    uint32_t epoll = 0;
    for (size_t i = 0; i < BASE_COUNT_OF(event_bits); i++)
        if (slirp & event_bits[i].slirp)
            epoll |= event_bits[i].epoll;
    return epoll;
}

static int events_from_epoll(uint32_t epoll)
{
    int slirp = 0;
    for (size_t i = 0; i < BASE_COUNT_OF(event_bits); i++)
        if (epoll & event_bits[i].epoll)
            slirp |= event_bits[i].slirp;
    return slirp;
}

static bool descriptors_reach(struct user_net *net, int fd)
{
    if (fd < net->descriptor_count)
        return true;
    int count = fd + 64;
    struct descriptor *more = realloc(net->descriptors, count * sizeof(*more));
    if (!more)
        return false;
    memset(more + net->descriptor_count, 0, (count - net->descriptor_count) * sizeof(*more));
    net->descriptors = more;
    net->descriptor_count = count;
    return true;
}

// SlirpAddPollCb
static int descriptor_want(int fd, int events, void *opaque)
{
    struct user_net *net = opaque;

    if (fd < 0 || !descriptors_reach(net, fd))
        return -1;
    if (!net->deaf || !net->descriptors[fd].listens)
        net->descriptors[fd].wanted = events;
    return fd;
}

// SlirpGetREventsCb
static int descriptor_ready(int fd, void *opaque)
{
    const struct user_net *net = opaque;
    return net->descriptors[fd].ready;
}

static bool descriptor_listens(int fd)
{
    int listens = 0;
    socklen_t length = sizeof(listens);
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) == 0 && listens;
}

static void descriptor_register(struct user_net *net, int fd)
{
    struct descriptor *descriptor = &net->descriptors[fd];
    struct epoll_event event = {.events = events_to_epoll(descriptor->wanted), .data.fd = fd};
    int operation = !descriptor->wanted      ? EPOLL_CTL_DEL
                    : descriptor->registered ? EPOLL_CTL_MOD
                                             : EPOLL_CTL_ADD;

    if (epoll_ctl(net->epoll_fd, operation, fd, &event) < 0)
        return;
    if (operation == EPOLL_CTL_ADD)
        descriptor->listens = descriptor_listens(fd);
    descriptor->registered = descriptor->wanted;
}

// Asks libslirp anew what it waits for. After everything that may have changed it.
static void wait_renew(struct user_net *net)
{
    uint32_t timeout_ms = UINT32_MAX;

    for (int fd = 0; fd < net->descriptor_count; fd++)
        net->descriptors[fd].wanted = 0;
    slirp_pollfds_fill(net->slirp, &timeout_ms, descriptor_want, net);
    for (int fd = 0; fd < net->descriptor_count; fd++)
        if (net->descriptors[fd].wanted != net->descriptors[fd].registered)
            descriptor_register(net, fd);
    if (timeout_ms == UINT32_MAX)
        loop_timer_stop(net->timer);
    else
        loop_timer_start(net->timer, timeout_ms);
}

void user_net_settle(struct user_net *net)
{
    wait_renew(net);
    net->events.settled(net->events.opaque);
}

static bool descriptors_left(const struct user_net *net)
{
    int fd = fcntl(net->epoll_fd, F_DUPFD_CLOEXEC, 0);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static void descriptors_polled(void *opaque, unsigned watched)
{
    struct user_net *net = opaque;
    struct epoll_event events[READY_MAX];
    bool client = false;

    (void)watched;
    int count = epoll_wait(net->epoll_fd, events, READY_MAX, 0);
    for (int i = 0; i < count; i++) {
        struct descriptor *descriptor = &net->descriptors[events[i].data.fd];
        descriptor->ready = events_from_epoll(events[i].events);
        client |= descriptor->listens;
    }
    slirp_pollfds_poll(net->slirp, count < 0, descriptor_ready, net);
    for (int i = 0; i < count; i++)
        net->descriptors[events[i].data.fd].ready = 0;
    if (client && !descriptors_left(net)) {
        net->deaf = true;
        loop_timer_start(net->accept_again, ACCEPT_AGAIN_MS);
    }
    user_net_settle(net);
}

static void accept_again(void *opaque)
{
    struct user_net *net = opaque;
    net->deaf = false;
    user_net_settle(net);
}

static void time_passed(void *opaque)
{
    struct user_net *net = opaque;
    slirp_pollfds_poll(net->slirp, 0, descriptor_ready, net);
    user_net_settle(net);
}

// ---- What libslirp asks of us (SlirpCb) ---------------------------------------------------------

static ssize_t frame_to_guest(const void *frame, size_t count, void *opaque)
{
    struct user_net *net = opaque;
    net->events.frame(net->events.opaque, frame, count);
    return (ssize_t)count;
}

static void guest_error(const char *message, void *opaque)
{
    struct user_net *net = opaque;
    log_limited(&net->log_limit, LOG_WARN, "user network: the guest: %s", message);
}

static int64_t clock_get_ns(void *opaque)
{
    (void)opaque;
    return (int64_t)clock_monotonic_ns();
}

struct user_timer {
    struct user_net *net;
    SlirpTimerCb fn;
    void *opaque;
    struct loop_timer *timer;
};

static void user_timer_fired(void *opaque)
{
    const struct user_timer *timer = opaque;
    timer->fn(timer->opaque);
    user_net_settle(timer->net);
}

// Called from slirp_new only. Without memory the timer never fires: there are no router
// advertisements then.
static void *timer_new(SlirpTimerCb fn, void *fn_opaque, void *opaque)
{
    struct user_net *net = opaque;
    struct user_timer *timer = calloc(1, sizeof(*timer));

    if (!timer)
        return NULL;
    *timer = (struct user_timer){.net = net, .fn = fn, .opaque = fn_opaque};
    if (loop_timer_create(net->loop, user_timer_fired, timer, &timer->timer)) {
        free(timer);
        return NULL;
    }
    return timer;
}

static void timer_free(void *opaque, void *net)
{
    struct user_timer *timer = opaque;

    (void)net;
    if (timer)
        loop_timer_close(timer->timer);
    free(timer);
}

static void timer_mod(void *opaque, int64_t expire_ms, void *net)
{
    const struct user_timer *timer = opaque;
    int64_t now_ms = clock_get_ns(net) / 1000000;

    if (timer)
        loop_timer_start(timer->timer, expire_ms > now_ms ? (uint64_t)(expire_ms - now_ms) : 0);
}

static void descriptor_opened(int fd, void *opaque)
{
    (void)fd;
    (void)opaque;
}

// It is about to be closed, and its number may mean something else the next moment.
static void descriptor_closing(int fd, void *opaque)
{
    struct user_net *net = opaque;

    // libslirp closes a socket that it could not accept, too, as number -1.
    if (fd < 0 || fd >= net->descriptor_count)
        return;
    net->descriptors[fd].wanted = 0;
    if (net->descriptors[fd].registered)
        descriptor_register(net, fd);
    net->descriptors[fd] = (struct descriptor){0};
}

// Room in a buffer of libslirp: seen by the wait_renew that follows each of our calls.
static void notify(void *opaque)
{
    (void)opaque;
}

static const SlirpCb callbacks = {
    .send_packet = frame_to_guest,
    .guest_error = guest_error,
    .clock_get_ns = clock_get_ns,
    .timer_new = timer_new,
    .timer_free = timer_free,
    .timer_mod = timer_mod,
    .register_poll_fd = descriptor_opened,
    .unregister_poll_fd = descriptor_closing,
    .notify = notify,
};

// ---- For serve.c --------------------------------------------------------------------------------

void user_net_input(struct user_net *net, const void *frame, size_t bytes)
{
    slirp_input(net->slirp, frame, (int)bytes);
}

void user_net_destroy(struct user_net *net)
{
    if (!net)
        return;
    if (net->slirp)
        slirp_cleanup(net->slirp);  // closes descriptors, with their callbacks
    loop_timer_close(net->timer);
    loop_timer_close(net->accept_again);
    loop_watch_close(net->watch);
    if (net->epoll_fd >= 0)
        close(net->epoll_fd);
    free(net->descriptors);
    free(net);
}

// ---- Constructor --------------------------------------------------------------------------------

static struct in_addr ipv4(const uint8_t bytes[4])
{
    struct in_addr address;
    memcpy(&address, bytes, sizeof(address));
    return address;
}

static int forward_add(struct user_net *net, const struct usernet_forward *forward,
                       struct error *err)
{
    const uint8_t *host = forward->host_addr;

    errno = EINVAL;  // in case that libslirp has no reason to give
    if (slirp_add_hostfwd(net->slirp, forward->udp, ipv4(host), forward->host_port,
                          ipv4(forward->guest_addr), forward->guest_port) == 0)
        return 0;
    return error_set_errno(err, -errno, "cannot forward %u.%u.%u.%u:%u to guest port %u", host[0],
                           host[1], host[2], host[3], forward->host_port, forward->guest_port);
}

static int waiting_create(struct user_net *net)
{
    net->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (net->epoll_fd < 0)
        return -errno;
    int failure = loop_timer_create(net->loop, time_passed, net, &net->timer);
    if (!failure)
        failure = loop_timer_create(net->loop, accept_again, net, &net->accept_again);
    if (!failure)
        failure = loop_watch_create(net->loop, net->epoll_fd, LOOP_READABLE, descriptors_polled,
                                    net, &net->watch);
    return failure;
}

static Slirp *slirp_create(struct user_net *net)
{
    const SlirpConfig config = {
        .version = 4,
        .in_enabled = true,
        .vnetwork = ipv4((uint8_t[]){10, 0, 2, 0}),
        .vnetmask = ipv4((uint8_t[]){255, 255, 255, 0}),
        .vhost = ipv4((uint8_t[]){10, 0, 2, 2}),
        .vnameserver = ipv4((uint8_t[]){10, 0, 2, 3}),
        .vdhcp_start = ipv4((uint8_t[]){10, 0, 2, 15}),
        .in6_enabled = true,
        .vprefix_addr6 = {.s6_addr = {0xfe, 0xc0}},
        .vprefix_len = 64,
        .vhost6 = {.s6_addr = {0xfe, 0xc0, [15] = 2}},
        .vnameserver6 = {.s6_addr = {0xfe, 0xc0, [15] = 3}},
    };
    return slirp_new(&config, &callbacks, net);
}

static int user_net_build(struct user_net *net, const struct usernet_forward *forwards,
                          size_t forward_count, struct error *err)
{
    int failure = waiting_create(net);
    if (failure)
        return error_set_errno(err, failure, "cannot set up the user network");
    net->slirp = slirp_create(net);
    if (!net->slirp)
        return error_set(err, -EINVAL, "cannot set up the user network: libslirp refuses it");
    for (size_t i = 0; i < forward_count && !failure; i++)
        failure = forward_add(net, &forwards[i], err);
    if (!failure)
        wait_renew(net);
    return failure;
}

int user_net_create(struct user_net **out, const struct usernet_forward *forwards,
                    size_t forward_count, struct loop *loop, const struct user_net_events *events,
                    struct error *err)
{
    struct user_net *net = calloc(1, sizeof(*net));
    if (!net)
        return error_set_errno(err, -ENOMEM, "cannot set up the user network");
    *net = (struct user_net){
        .events = *events,
        .log_limit = LOG_LIMIT_INIT,
        .loop = loop,
        .epoll_fd = -1,
    };
    int failure = user_net_build(net, forwards, forward_count, err);
    if (failure) {
        user_net_destroy(net);
        return failure;
    }
    *out = net;
    return 0;
}
