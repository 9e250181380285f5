// SPDX-License-Identifier: BSD-2-Clause
// Fuzz target for what interceptors read: definitions, views of partitions, the answers of a
// guest's agent, and messages of a supervisor. The input's first byte says which. What is taken
// comes back the same from JSON; what a guest says ends its call once, and arrives printable; what
// a supervisor gets are messages, and the process ends with its connection.
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "leverage/internal.h"
#include "replay.h"

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

// ---- Definitions and views ----------------------------------------------------------------------

static void fuzz_definition(const char *bytes, size_t count)
{
    struct interceptor_definition definition, again;
    struct error err = {0};
    json_t *given = json_loadb(bytes, count, 0, NULL);
    if (given && interceptor_definition_from_json(&definition, given, &err) == 0) {
        json_t *first = interceptor_definition_to_json(&definition);
        MUST(first && interceptor_definition_from_json(&again, first, NULL) == 0);
        json_t *second = interceptor_definition_to_json(&again);
        MUST(json_equal(first, second));
        MUST(definition.module_count > 0 && definition.time_limit_ms > 0);
        json_decref(first);
        json_decref(second);
        interceptor_definition_fini(&definition);
        interceptor_definition_fini(&again);
    } else {
        MUST(!given || *err.message);
    }
    json_decref(given);
}

static void fuzz_view(const char *bytes, size_t count)
{
    struct partition_view view, again;
    json_t *given = json_loadb(bytes, count, 0, NULL);
    if (given && partition_view_from_json(&view, given) == 0) {
        json_t *back = partition_view_to_json(&view);
        MUST(back && partition_view_from_json(&again, back) == 0);
        MUST(again.net_count == view.net_count && again.state == view.state);
        MUST(memcmp(again.nets, view.nets, sizeof(view.nets)) == 0);
        json_decref(back);
    }
    json_decref(given);
}

// ---- Guests -------------------------------------------------------------------------------------

struct guest {
    struct loop *loop;
    int listen_fd, fd;
    struct loop_watch *listen_watch, *watch;
    const char *bytes;
    size_t count, piece;
    unsigned ends;
};

static void speak(void *opaque, unsigned events)
{
    struct guest *guest = opaque;
    (void)events;
    size_t piece = guest->count < guest->piece ? guest->count : guest->piece;
    ssize_t n = send(guest->fd, guest->bytes, piece, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) {
        guest->bytes += n;
        guest->count -= (size_t)n;
        return;
    }
    if (n < 0 && errno == EAGAIN)
        return;
    loop_watch_close(guest->watch);
    guest->watch = NULL;
    close(guest->fd);
}

static void accept_host(void *opaque, unsigned events)
{
    struct guest *guest = opaque;
    (void)events;
    guest->fd = accept4(guest->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    MUST(guest->fd >= 0);
    MUST(loop_watch_create(guest->loop, guest->fd, LOOP_WRITABLE, speak, guest, &guest->watch) ==
         0);
}

static void on_connected(void *opaque, int fd, const struct error *err)
{
    struct guest *guest = opaque;
    MUST((fd >= 0) == !err);
    if (fd >= 0)
        close(fd);
    guest->ends++;
    loop_stop(guest->loop);
}

static void on_answered(void *opaque, struct guest_answer *answer, const struct error *err)
{
    struct guest *guest = opaque;
    char value[16];
    MUST(!err || err->code == -EREMOTEIO || answer->line_count == 0);
    for (size_t i = 0; i < answer->line_count; i++) {
        for (const char *c = answer->lines[i]; *c; c++)
            MUST(*c >= 0x20 && *c <= 0x7e);
        if (guest_line_value(answer->lines[i], "run", value, sizeof(value)))
            MUST(strlen(value) < sizeof(value));
    }
    guest->ends++;
    loop_stop(guest->loop);
}

// A socket as a partition has one.
static int listen_at(char *path, size_t capacity)
{
    struct error err;
    char folder[] = "/tmp/fuzz-leverage-XXXXXX";
    MUST(mkdtemp(folder));
    snprintf(path, capacity, "%s/vsock", folder);
    int fd = unix_listen(path, &err);
    MUST(fd >= 0);
    return fd;
}

static void fuzz_guest(const char *bytes, size_t count)
{
    char path[64];
    struct guest guest = {.listen_fd = listen_at(path, sizeof(path)),
                          .piece = count > 0 && bytes[0] % 8 ? (uint8_t)bytes[0] : 4096};
    bool ask = count < 2 || bytes[1] % 4;
    struct guest_request request;
    guest.bytes = bytes + (count < 2 ? count : 2);
    guest.count = count < 2 ? 0 : count - 2;
    MUST(loop_create(&guest.loop, NULL) == 0);
    MUST(loop_watch_create(guest.loop, guest.listen_fd, LOOP_READABLE, accept_host, &guest,
                           &guest.listen_watch) == 0);
    guest_request_init(&request, "hello");
    guest_request_payload(&request, "payload", 7);
    struct guest_call *call =
        ask ? guest_ask(guest.loop, path, &request, 60000, on_answered, &guest)
            : guest_connect(guest.loop, path, 1, 60000, on_connected, &guest);
    MUST(call);
    loop_run(guest.loop);
    MUST(guest.ends == 1);
    if (guest.watch)
        close(guest.fd);
    loop_destroy(guest.loop);
    close(guest.listen_fd);
    unlink(path);
    *strrchr(path, '/') = 0;
    rmdir(path);
}

// ---- Supervisors --------------------------------------------------------------------------------

static int kind_create(void **out, struct interceptor *it, struct error *err)
{
    (void)err;
    *out = it;
    return 0;
}

static void kind_partition(void *kind, const struct partition_view *view)
{
    MUST(interceptor_partition(kind, view->name) == view);
    if (view->state == PARTITION_UP)
        MUST(interceptor_hold(kind, view->name, 0, NULL, NULL) == 0);
}

static void kind_reload(void *kind)
{
    const struct descriptors fds = {.count = 1, .list = {{"group", 0}}};
    MUST(interceptor_keep(kind, &fds, NULL, NULL) == 0);
    interceptor_event(kind, "reloaded", NULL);
    interceptor_set_state(kind, INTERCEPTOR_ACTIVE, "%s", "it is");
}

static void kind_remove(void *kind, interceptor_done *done, void *opaque)
{
    (void)kind;
    done(opaque, NULL);
}

static json_t *kind_stats(void *kind)
{
    interceptor_ended(kind, "over");
    return NULL;
}

static void kind_destroy(void *kind)
{
    (void)kind;
}

static const struct interceptor_ops ops = {.kind = "net",
                                           .capabilities = ~0ull,
                                           .gains_rights = true,
                                           .create = kind_create,
                                           .partition = kind_partition,
                                           .reload = kind_reload,
                                           .remove = kind_remove,
                                           .stats = kind_stats,
                                           .destroy = kind_destroy};

// Each line is a message; those that no buffer takes are none.
static void send_lines(int fd, const char *bytes, size_t count)
{
    while (count > 0) {
        const char *end = memchr(bytes, '\n', count);
        size_t line = end ? (size_t)(end - bytes) : count;
        if (line > 0)
            MUST(send(fd, bytes, line, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)line ||
                 errno == EAGAIN);
        bytes += line + (end != NULL);
        count -= line + (end != NULL);
    }
}

static void check_answers(int fd)
{
    static char text[LINK_BYTES_MAX];
    ssize_t n;
    while ((n = recv(fd, text, sizeof(text), MSG_DONTWAIT)) > 0) {
        json_t *message = json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, NULL);
        MUST(json_is_object(message));
        MUST(json_object_get(message, "id") || json_object_get(message, "event"));
        json_decref(message);
    }
}

static void fuzz_messages(const char *bytes, size_t count)
{
    static const struct interceptor_ops *const kinds[INTERCEPTOR_KINDS] = {&ops, &ops, &ops};
    static const struct worker_settings settings = {.kinds = kinds, .remove_ms = 1000};
    struct error err;
    int ends[2];
    MUST(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
    send_lines(ends[0], bytes, count);
    shutdown(ends[0], SHUT_WR);
    MUST(worker_run(ends[1], &settings, &err) == 0);
    check_answers(ends[0]);
    close(ends[0]);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    static void (*const targets[])(const char *bytes, size_t count) = {fuzz_definition, fuzz_guest,
                                                                       fuzz_view, fuzz_messages};
    log_set_level(LOG_ERROR);
    if (count > 0)
        targets[bytes[0] % BASE_COUNT_OF(targets)]((const char *)bytes + 1, count - 1);
    return 0;
}
