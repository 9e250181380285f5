// SPDX-License-Identifier: BSD-2-Clause
// Messages with descriptors over a SOCK_SEQPACKET connection.
//
// The kernel keeps the bounds of messages and gives descriptors along with theirs; so a message is
// one recvmsg, and nothing of an earlier one can confuse a later one. What goes wrong while sending
// only shuts the connection down: its end is then found by the loop like any other, so that no
// callback comes out of a call that sends.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "monitor/monitor.h"

#define MESSAGES_A_TURN 16  // so that a chatty peer leaves the loop to others

struct link {
    struct loop *loop;
    struct loop_watch *watch;  // NULL: closed
    struct link_events events;
    int fd;
    struct error failure;  // what broke it, if it was we that found out
    uint64_t last_id;
    struct list pending;   // of struct pending
    struct list outgoing;  // of struct outgoing
    unsigned outgoing_count;
    unsigned busy;  // callbacks under way, that may destroy it
    bool destroyed;
    pid_t peer_pid;
    char in[LINK_BYTES_MAX];
};

// A request that was not answered yet.
struct pending {
    struct list node;
    uint64_t id;
    link_done *done;
    void *opaque;
};

// A message that the peer had no room for.
struct outgoing {
    struct list node;
    struct descriptors fds;  // copies
    size_t bytes;
    char text[];
};

// ---- The end of a link --------------------------------------------------------------------------

static void pending_finish(struct pending *pending, json_t *result, struct descriptors *fds,
                           const struct error *err)
{
    list_remove(&pending->node);
    if (pending->done)
        pending->done(pending->opaque, result, fds, err);
    free(pending);
}

static void fail_pending(struct link *link, const struct error *why)
{
    struct error err;
    error_set(&err, -ECONNRESET, "%s", why->message);
    while (!list_empty(&link->pending))
        // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): what was freed has left the list
        pending_finish(BASE_CONTAINER_OF(link->pending.next, struct pending, node), NULL, NULL,
                       &err);
}

static void outgoing_free(struct link *link, struct outgoing *outgoing)
{
    list_remove(&outgoing->node);
    link->outgoing_count--;
    descriptors_close(&outgoing->fds);
    free(outgoing);
}

// The descriptor goes at once, so that the peer sees the end.
static void disconnect(struct link *link)
{
    loop_watch_close(link->watch);
    link->watch = NULL;
    if (link->fd >= 0)
        close(link->fd);
    link->fd = -1;
    while (!list_empty(&link->outgoing))
        // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): what was freed has left the list
        outgoing_free(link, BASE_CONTAINER_OF(link->outgoing.next, struct outgoing, node));
}

static void link_put(struct link *link)
{
    if (--link->busy == 0 && link->destroyed)
        free(link);
}

static void link_closed(struct link *link, const struct error *why)
{
    disconnect(link);
    fail_pending(link, why);
    if (!link->destroyed && link->events.closed)
        link->events.closed(link->events.opaque, why);
}

// What is to be said of it is said when the loop finds the end.
static void link_break(struct link *link, int code, const char *why)
{
    if (link->failure.code == 0)
        error_set(&link->failure, code, "%s", why);
    shutdown(link->fd, SHUT_RDWR);
}

void link_destroy(struct link *link)
{
    if (!link || link->destroyed)
        return;
    struct error why;
    error_set(&why, -ECONNRESET, "the connection was closed");
    link->destroyed = true;
    link->busy++;
    disconnect(link);
    fail_pending(link, &why);
    link_put(link);
}

pid_t link_peer_pid(const struct link *link)
{
    return link->peer_pid;
}

bool link_is_open(const struct link *link)
{
    return link->watch != NULL;
}

// ---- Sending ------------------------------------------------------------------------------------

static ssize_t send_message(int socket, const char *text, size_t bytes,
                            const struct descriptors *fds)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int) * DESCRIPTORS_MAX)];
    } control = {0};
    struct iovec iov = {.iov_base = (void *)text, .iov_len = bytes};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fds->count > 0) {
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * fds->count);
        control.header = (struct cmsghdr){.cmsg_level = SOL_SOCKET,
                                          .cmsg_type = SCM_RIGHTS,
                                          .cmsg_len = CMSG_LEN(sizeof(int) * fds->count)};
        for (size_t i = 0; i < fds->count; i++)
            memcpy(CMSG_DATA(&control.header) + i * sizeof(int), &fds->list[i].fd, sizeof(int));
    }
    ssize_t n;
    do
        n = sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static int queue_message(struct link *link, const char *text, size_t bytes,
                         const struct descriptors *fds)
{
    if (link->outgoing_count == LINK_QUEUE_MAX)
        return -ENOBUFS;
    struct outgoing *outgoing = calloc(1, sizeof(*outgoing) + bytes);
    if (!outgoing)
        return -ENOMEM;
    memcpy(outgoing->text, text, bytes);
    outgoing->bytes = bytes;
    list_append(&link->outgoing, &outgoing->node);
    link->outgoing_count++;
    for (size_t i = 0; i < fds->count; i++) {
        int copy = fcntl(fds->list[i].fd, F_DUPFD_CLOEXEC, 0);
        if (copy < 0 || descriptors_add(&outgoing->fds, fds->list[i].name, copy) < 0)
            return -EMFILE;
    }
    loop_watch_set(link->watch, LOOP_READABLE | LOOP_WRITABLE);
    return 0;
}

static void send_text(struct link *link, const char *text, size_t bytes,
                      const struct descriptors *fds)
{
    ssize_t rc = -EAGAIN;
    if (list_empty(&link->outgoing))
        rc = send_message(link->fd, text, bytes, fds);
    if (rc == -EAGAIN)
        rc = queue_message(link, text, bytes, fds);
    if (rc == -ENOBUFS)
        link_break(link, -EPROTO, "the peer does not read its messages");
    else if (rc < 0)
        link_break(link, (int)rc, "cannot send a message");
}

static void send_queued(struct link *link)
{
    while (!list_empty(&link->outgoing)) {
        struct outgoing *first = BASE_CONTAINER_OF(link->outgoing.next, struct outgoing, node);
        // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): what was freed has left the list
        ssize_t rc = send_message(link->fd, first->text, first->bytes, &first->fds);
        if (rc == -EAGAIN)
            return;
        if (rc < 0) {
            link_break(link, (int)rc, "cannot send a message");
            break;
        }
        outgoing_free(link, first);
    }
    loop_watch_set(link->watch, LOOP_READABLE);
}

// The names of `fds` become a part of the message.
static int add_names(json_t *message, const struct descriptors *fds)
{
    json_t *names = json_array();
    int rc = json_object_set_new(message, "fds", names);
    for (size_t i = 0; i < fds->count && rc == 0; i++)
        rc = json_array_append_new(names, json_string(fds->list[i].name));
    return rc < 0 ? -ENOMEM : 0;
}

// Takes `message` over.
static int send_json(struct link *link, json_t *message, const struct descriptors *fds)
{
    static const struct descriptors none = {0};
    int rc = message ? 0 : -ENOMEM;
    if (rc == 0 && fds && fds->count > 0)
        rc = add_names(message, fds);
    char *text = rc == 0 ? json_dumps(message, JSON_COMPACT) : NULL;
    json_decref(message);
    if (rc == 0 && !text)
        rc = -ENOMEM;
    if (rc == 0 && strlen(text) > LINK_BYTES_MAX)
        rc = -EMSGSIZE;
    if (rc == 0)
        send_text(link, text, strlen(text), fds ? fds : &none);
    free(text);
    return rc;
}

// `arguments` (taken over) with one more member.
static json_t *with_member(json_t *arguments, const char *name, json_t *value)
{
    json_t *message = arguments ? arguments : json_object();
    if (json_object_set_new(message, name, value) == 0)
        return message;
    json_decref(message);
    return NULL;
}

void link_request(struct link *link, const char *op, json_t *arguments,
                  const struct descriptors *fds, link_done *done, void *opaque)
{
    struct pending *pending = link_is_open(link) ? calloc(1, sizeof(*pending)) : NULL;
    int rc = -ENOMEM;
    if (!pending) {
        rc = link_is_open(link) ? -ENOMEM : -ECONNRESET;
        json_decref(arguments);
    } else {
        uint64_t id = ++link->last_id;
        *pending = (struct pending){.id = id, .done = done, .opaque = opaque};
        json_t *message = with_member(arguments, "op", json_string(op));
        if (message)
            message = with_member(message, "id", json_integer((json_int_t)id));
        rc = send_json(link, message, fds);
    }
    if (rc == 0) {
        list_append(&link->pending, &pending->node);
        return;
    }
    free(pending);
    struct error err;
    error_set_errno(&err, rc, "cannot ask for \"%s\"", op);
    if (done)
        done(opaque, NULL, NULL, &err);
}

void link_event(struct link *link, const char *event, json_t *arguments,
                const struct descriptors *fds)
{
    json_t *message = with_member(arguments, "event", json_string(event));
    if (!link_is_open(link))
        json_decref(message);
    else if (send_json(link, message, fds) < 0)
        link_break(link, -EMSGSIZE, "an event is too large");
}

void link_fail(struct link *link, uint64_t id, const struct error *err)
{
    if (!link_is_open(link))
        return;
    json_t *message = json_pack("{s:I,s:s%,s:i}", "id", (json_int_t)id, "error", err->message,
                                strlen(err->message), "code", err->code);
    if (!message)  // the text was not UTF-8: it may quote what a file or a user had
        message = json_pack("{s:I,s:s,s:i}", "id", (json_int_t)id, "error",
                            "a message that cannot be shown", "code", err->code);
    if (send_json(link, message, NULL) < 0)
        link_break(link, -ENOMEM, "cannot send a message");
}

void link_reply(struct link *link, uint64_t id, json_t *result, const struct descriptors *fds)
{
    json_t *message = with_member(result, "id", json_integer((json_int_t)id));
    if (!link_is_open(link)) {
        json_decref(message);
        return;
    }
    int rc = send_json(link, message, fds);
    if (rc < 0) {
        struct error err;
        error_set_errno(&err, rc, "cannot send the answer");
        link_fail(link, id, &err);
    }
}

// ---- Receiving ----------------------------------------------------------------------------------

// One message into link->in; its descriptors are named later. Returns its length, 0 at the end of
// the connection, -EAGAIN when there is none, -EPROTO when it is not one of ours.
static ssize_t receive(struct link *link, int *fds, size_t *fd_count)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int) * DESCRIPTORS_MAX) + CMSG_SPACE(sizeof(struct ucred))];
    } control;
    struct iovec iov = {.iov_base = link->in, .iov_len = sizeof(link->in)};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof(control)};
    ssize_t n;
    do
        n = recvmsg(link->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    *fd_count = 0;
    if (n < 0)
        return -errno;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
        size_t bytes = c->cmsg_len - CMSG_LEN(0);
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
            memcpy(fds + *fd_count, CMSG_DATA(c), bytes);
            *fd_count += bytes / sizeof(int);
        } else if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_CREDENTIALS) {
            struct ucred sender;
            memcpy(&sender, CMSG_DATA(c), sizeof(sender));
            link->peer_pid = sender.pid;
        }
    }
    return message.msg_flags & (MSG_TRUNC | MSG_CTRUNC) ? -EPROTO : n;
}

// Takes the descriptors over; those that come without a good name are closed.
static int name_descriptors(struct descriptors *set, json_t *message, const int *fds, size_t count)
{
    json_t *names = json_object_get(message, "fds");
    int rc = json_array_size(names) == count ? 0 : -EPROTO;
    for (size_t i = 0; i < count; i++) {
        const char *name = json_string_value(json_array_get(names, i));
        if (!name || descriptors_add(set, name, fds[i]) < 0)
            rc = -EPROTO;
        if (!name)
            close(fds[i]);
    }
    return rc;
}

static struct pending *find_pending(struct link *link, uint64_t id)
{
    LIST_FOR_EACH(&link->pending, node)
    {
        struct pending *pending = BASE_CONTAINER_OF(node, struct pending, node);
        if (pending->id == id)
            return pending;
    }
    return NULL;
}

static int take_answer(struct link *link, uint64_t id, json_t *message, struct descriptors *fds)
{
    struct pending *pending = find_pending(link, id);
    if (!pending)
        return -EPROTO;
    const char *text = json_string_value(json_object_get(message, "error"));
    json_int_t code = json_integer_value(json_object_get(message, "code"));
    struct error err;
    if (text)
        error_set(&err, code < 0 && code >= -4095 ? (int)code : -EIO, "%s", text);
    pending_finish(pending, text ? NULL : message, text ? NULL : fds, text ? &err : NULL);
    return 0;
}

static int take_request(struct link *link, uint64_t id, const char *op, json_t *message,
                        struct descriptors *fds)
{
    struct error err;
    if (link->events.request) {
        link->events.request(link->events.opaque, id, op, message, fds);
    } else {
        error_set(&err, -EOPNOTSUPP, "nothing can be asked for here");
        link_fail(link, id, &err);
    }
    return 0;
}

static int take_message(struct link *link, json_t *message, struct descriptors *fds)
{
    const char *op = json_string_value(json_object_get(message, "op"));
    const char *event = json_string_value(json_object_get(message, "event"));
    json_t *number = json_object_get(message, "id");
    uint64_t id = (uint64_t)json_integer_value(number);
    if (event) {
        if (link->events.event)
            link->events.event(link->events.opaque, event, message, fds);
        return 0;
    }
    if (!json_is_integer(number))
        return -EPROTO;
    return op ? take_request(link, id, op, message, fds) : take_answer(link, id, message, fds);
}

// Receives and handles one message. False when there is none now, or never again.
static bool link_turn(struct link *link)
{
    int numbers[DESCRIPTORS_MAX];
    size_t count;
    ssize_t n = receive(link, numbers, &count);
    if (n == -EAGAIN)
        return false;
    json_t *message = n > 0 ? json_loadb(link->in, (size_t)n, JSON_REJECT_DUPLICATES, NULL) : NULL;
    struct descriptors fds = {0};
    int rc = name_descriptors(&fds, message, numbers, count);
    if (n > 0 && (rc < 0 || !json_is_object(message)))
        n = -EPROTO;
    if (n > 0)
        n = take_message(link, message, &fds) < 0 ? -EPROTO : 1;
    descriptors_close(&fds);
    json_decref(message);
    if (n <= 0 && link_is_open(link)) {
        struct error why = link->failure;
        if (why.code == 0 && n == -EPROTO)
            error_set(&why, -EPROTO, "the peer sent what is no message");
        else if (why.code == 0)
            error_set(&why, -ECONNRESET, "the peer closed the connection");
        link_closed(link, &why);
    }
    return n > 0 && link_is_open(link);
}

static void link_ready(void *opaque, unsigned events)
{
    struct link *link = opaque;
    link->busy++;
    if (events & LOOP_WRITABLE)
        send_queued(link);
    for (int i = 0; i < MESSAGES_A_TURN && link_turn(link); i++)
        ;
    link_put(link);
}

int link_create(struct link **out, struct loop *loop, int fd, const struct link_events *events,
                struct error *err)
{
    struct link *link = calloc(1, sizeof(*link));
    if (!link)
        return error_set_errno(err, -ENOMEM, "cannot use a connection");
    *link = (struct link){.loop = loop, .fd = fd, .events = *events};
    list_init(&link->pending);
    list_init(&link->outgoing);
    const int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
    int rc = loop_watch_create(loop, fd, LOOP_READABLE, link_ready, link, &link->watch);
    if (rc < 0) {
        free(link);
        return error_set_errno(err, rc, "cannot use a connection");
    }
    *out = link;
    return 0;
}
