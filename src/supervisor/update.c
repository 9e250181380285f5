// SPDX-License-Identifier: BSD-2-Clause
// Guests' connections to the update service, and what the service is told of the host.
//
// A connection is one end of a socket pair; the monitor has the other, and carries the guest's
// stream. What is to be sent is kept here until the socket takes it, and nothing is read meanwhile:
// so what a guest can make us keep is what one piece of its requests is answered with.
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "state/state.h"
#include "supervisor/update_internal.h"

#define IN_BYTES 65536u
#define PIECE_BYTES 1024u  // that go to the channel before its answers are sent
#define TICK_MS 1000u
#define FINISH_NS UINT64_C(5000000000)  // for a guest to read what it was told last, and to end
#define PROGRAMS_MAX 256u

struct guest {
    struct list link;
    char name[STORE_NAME_MAX + 1];
    struct update_meter meter;
};

struct connection {
    struct list link;
    struct updates *updates;
    struct update_channel *channel;
    struct loop_watch *watch;
    int fd;
    bool finishing, broken;  // nothing is said any more, or it is to be closed at once
    uint64_t finish_by_ns;
    uint8_t in[IN_BYTES];
    size_t in_count;
    uint8_t *out;
    size_t out_start, out_count;
};

// ---- Connections --------------------------------------------------------------------------------

static void connection_close(struct connection *connection)
{
    list_remove(&connection->link);
    update_channel_close(connection->channel);
    loop_watch_close(connection->watch);
    close(connection->fd);
    free(connection->out);
    free(connection);
}

static void take_turn(struct connection *connection)
{
    loop_timer_start(connection->updates->turn, 0);
}

static void on_send(void *opaque, const void *bytes, size_t count)
{
    struct connection *connection = opaque;
    uint8_t *out =
        connection->broken ? NULL : realloc(connection->out, connection->out_count + count);
    take_turn(connection);
    if (!out) {
        connection->broken = true;  // what is missing in between cannot be made up for
        return;
    }
    memcpy(out + connection->out_count, bytes, count);
    connection->out = out;
    connection->out_count += count;
}

static void on_finish(void *opaque)
{
    struct connection *connection = opaque;
    connection->finishing = true;
    connection->finish_by_ns = clock_monotonic_ns() + FINISH_NS;
    take_turn(connection);
}

static void on_ready(void *opaque)
{
    take_turn(opaque);
}

// True: all is sent.
static bool flush(struct connection *connection)
{
    while (connection->out_start < connection->out_count) {
        ssize_t n = send(connection->fd, connection->out + connection->out_start,
                         connection->out_count - connection->out_start, MSG_NOSIGNAL);
        if (n < 0) {
            connection->broken |= errno != EAGAIN && errno != EINTR;
            return false;
        }
        connection->out_start += (size_t)n;
    }
    free(connection->out);
    connection->out = NULL;
    connection->out_start = connection->out_count = 0;
    return true;
}

// What has come goes to the channel, as far as it takes it, until it has something to say: the rest
// has its turn when that is sent.
static void feed(struct connection *connection)
{
    size_t used = 0, taken = 1;
    while (taken > 0 && used < connection->in_count && connection->out_count == 0) {
        size_t left = connection->in_count - used;
        taken = update_channel_receive(connection->channel, connection->in + used,
                                       left < PIECE_BYTES ? left : PIECE_BYTES);
        used += taken;
    }
    connection->in_count -= used;
    memmove(connection->in, connection->in + used, connection->in_count);
}

// False: the peer has gone.
static bool fill(struct connection *connection)
{
    if (connection->in_count == sizeof(connection->in))
        return true;
    ssize_t n = recv(connection->fd, connection->in + connection->in_count,
                     sizeof(connection->in) - connection->in_count, 0);
    if (n > 0)
        connection->in_count += (size_t)n;
    return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

// One round: so much of one connection, then others have their turn. When all is said, it ends with
// the peer's end: were what comes until then left unread, the guest would find the connection
// reset, and perhaps not what it was told last.
static void pump(struct connection *connection, bool readable)
{
    bool sent = flush(connection);
    if (sent) {
        connection->broken |= readable && !fill(connection);
        feed(connection);
        sent = flush(connection);
    }
    if (sent && connection->finishing)
        shutdown(connection->fd, SHUT_WR);
    if (connection->broken) {
        connection_close(connection);
        return;
    }
    bool room = connection->in_count < sizeof(connection->in);
    loop_watch_set(connection->watch, !sent ? LOOP_WRITABLE : room ? LOOP_READABLE : 0);
}

static void on_socket(void *opaque, unsigned events)
{
    pump(opaque, events & LOOP_READABLE);
}

static void on_turn(void *opaque)
{
    struct updates *updates = opaque;
    LIST_FOR_EACH(&updates->connections, node)
    pump(BASE_CONTAINER_OF(node, struct connection, link), false);
}

static void close_finished(struct updates *updates)
{
    uint64_t now_ns = clock_monotonic_ns();
    LIST_FOR_EACH(&updates->connections, node)
    {
        struct connection *connection = BASE_CONTAINER_OF(node, struct connection, link);
        if (connection->finishing && now_ns >= connection->finish_by_ns)
            connection_close(connection);
    }
}

// What was used of limits is known as long as the partition is.
static void forget_guests(struct updates *updates)
{
    LIST_FOR_EACH(&updates->guests, node)
    {
        struct guest *guest = BASE_CONTAINER_OF(node, struct guest, link);
        if (guest->meter.connections > 0 ||
            registry_find_name(updates->config.registry, guest->name))
            continue;
        list_remove(node);
        free(guest);
    }
}

static void on_tick(void *opaque)
{
    struct updates *updates = opaque;
    update_service_tick(updates->service);
    close_finished(updates);
    forget_guests(updates);
    proof_step(updates);
    loop_timer_start(updates->tick, TICK_MS);
}

static struct guest *guest_of(struct updates *updates, const char *name)
{
    LIST_FOR_EACH(&updates->guests, node)
    {
        struct guest *guest = BASE_CONTAINER_OF(node, struct guest, link);
        if (strcmp(guest->name, name) == 0)
            return guest;
    }
    struct guest *guest = calloc(1, sizeof(*guest));
    if (!guest)
        return NULL;
    snprintf(guest->name, sizeof(guest->name), "%s", name);
    list_append(&updates->guests, &guest->link);
    return guest;
}

static int open_channel(struct connection *connection, struct guest *guest, bool permitted)
{
    struct updates *updates = connection->updates;
    const struct update_channel_config config = {.partition = guest->name,
                                                 .permitted = permitted,
                                                 .meter = &guest->meter,
                                                 .send = on_send,
                                                 .finish = on_finish,
                                                 .ready = on_ready,
                                                 .opaque = connection};
    int rc = update_channel_open(&connection->channel, updates->service, &config);
    return rc < 0 ? rc
                  : loop_watch_create(updates->config.loop, connection->fd, LOOP_READABLE,
                                      on_socket, connection, &connection->watch);
}

int updates_connect(struct updates *updates, const char *partition, bool permitted)
{
    int ends[2];
    struct guest *guest = guest_of(updates, partition);
    struct connection *connection = guest ? calloc(1, sizeof(*connection)) : NULL;
    if (!connection)
        return -ENOMEM;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0) {
        free(connection);
        return -errno;
    }
    connection->updates = updates;
    connection->fd = ends[0];
    list_append(&updates->connections, &connection->link);
    int rc = open_channel(connection, guest, permitted);
    if (rc == 0)
        return ends[1];
    close(ends[1]);
    connection_close(connection);
    return rc == -EBUSY ? -EAGAIN : rc;
}

// ---- What the service asks ----------------------------------------------------------------------

static uint64_t monotonic_ns(void *opaque)
{
    (void)opaque;
    return clock_monotonic_ns();
}

static uint64_t wall_ns(void *opaque)
{
    (void)opaque;
    return clock_realtime_ns();
}

static void add_program(struct updates *updates, const char *version, const char *sha256)
{
    struct update_host *host = &updates->host;
    if (host->program_count == PROGRAMS_MAX)
        return;
    for (size_t i = 0; i < host->program_count; i++)
        if (strcmp(updates->programs[i].sha256, sha256) == 0)
            return;
    struct update_program *program = &updates->programs[host->program_count++];
    snprintf(program->version, sizeof(program->version), "%s", version);
    snprintf(program->sha256, sizeof(program->sha256), "%s", sha256);
}

static void list_programs(struct updates *updates)
{
    struct update_slot *slots = NULL;
    struct error err;
    size_t count = 0;
    int rc = update_store_slots(updates->store, &slots, &count, &err);
    if (rc < 0)
        log_line(LOG_ERROR, "%s", err.message);
    free(updates->programs);
    updates->host.program_count = 0;
    updates->programs = calloc(count + 1, sizeof(*updates->programs));
    updates->listed = rc == 0 && updates->programs;
    if (updates->programs) {
        add_program(updates, STRAKE_VERSION, updates->own_sha256);
        for (size_t i = 0; i < count; i++)
            add_program(updates, slots[i].version, slots[i].program_sha256);
    }
    updates->host.programs = updates->programs;
    free(slots);
}

static const struct update_host *host(void *opaque)
{
    struct updates *updates = opaque;
    const struct update_state *state = update_store_state(updates->store);
    if (!updates->listed)
        list_programs(updates);
    updates->host.version = STRAKE_VERSION;
    updates->host.architecture = PACKAGE_ARCHITECTURE;
    updates->host.epoch = state->epoch > STRAKE_EPOCH ? state->epoch : STRAKE_EPOCH;
    updates->host.state = STATE_SET_VERSION;
    updates->host.allow_downgrade = updates->config.allow_downgrade;
    updates->host.committing = *state->pending.version || updates->going_back;
    updates->host.quota_bytes = UPDATE_QUOTA_BYTES;
    return &updates->host;
}

static enum update_refusal verify(void *opaque, const void *manifest, size_t manifest_bytes,
                                  const void *signature, size_t signature_bytes, char *key_id,
                                  struct error *err)
{
    static const enum update_refusal refusals[] = {
        [PACKAGE_SIGNATURE_GOOD] = UPDATE_REFUSAL_NONE,
        [PACKAGE_SIGNATURE_MALFORMED] = UPDATE_REFUSAL_BAD_SIGNATURE,
        [PACKAGE_SIGNATURE_UNKNOWN_KEY] = UPDATE_REFUSAL_UNKNOWN_KEY,
        [PACKAGE_SIGNATURE_REVOKED_KEY] = UPDATE_REFUSAL_REVOKED_KEY,
        [PACKAGE_SIGNATURE_BAD] = UPDATE_REFUSAL_BAD_SIGNATURE,
    };
    const struct updates *updates = opaque;
    struct package_trust *trust;
    enum package_signature verdict = PACKAGE_SIGNATURE_MALFORMED;
    *key_id = 0;
    if (package_trust_load(&trust, updates->config.trusted_dir, err) < 0)
        return UPDATE_REFUSAL_HOST;
    int rc = package_verify_signature(manifest, manifest_bytes, signature, signature_bytes, trust,
                                      key_id, &verdict, err);
    package_trust_destroy(trust);
    return rc < 0 && verdict == PACKAGE_SIGNATURE_GOOD ? UPDATE_REFUSAL_HOST : refusals[verdict];
}

static int stage_open(void *opaque, const char *digest, unsigned payload, uint64_t bytes,
                      struct update_stage **out, struct error *err)
{
    const struct updates *updates = opaque;
    return update_store_stage_open(updates->store, digest, payload, bytes, out, err);
}

static uint64_t stage_offset(void *opaque, const struct update_stage *stage)
{
    (void)opaque;
    return update_stage_offset(stage);
}

static int stage_write(void *opaque, struct update_stage *stage, uint64_t offset, const void *bytes,
                       size_t count, struct error *err)
{
    (void)opaque;
    return update_stage_write(stage, offset, bytes, count, err);
}

static void stage_close(void *opaque, struct update_stage *stage)
{
    (void)opaque;
    update_stage_close(stage);
}

static int stage_discard(void *opaque, const char *digest, struct error *err)
{
    const struct updates *updates = opaque;
    return update_store_stage_discard(updates->store, digest, err);
}

void updates_audit(struct updates *updates, const json_t *record)
{
    struct error err;
    const char *event = json_string_value(json_object_get(record, "event"));
    updates_tell_record(updates, record);
    if (update_store_audit(updates->store, record, &err) < 0)
        log_line(LOG_ERROR, "cannot keep in the audit log that an update is \"%s\": %s",
                 event ? event : "", err.message);
}

static void audit(void *opaque, const json_t *record)
{
    updates_audit(opaque, record);
}

static const struct update_service_ops service_ops = {.monotonic_ns = monotonic_ns,
                                                      .wall_ns = wall_ns,
                                                      .host = host,
                                                      .verify = verify,
                                                      .recall = last_recall,
                                                      .forget = last_forget,
                                                      .stage_open = stage_open,
                                                      .stage_offset = stage_offset,
                                                      .stage_write = stage_write,
                                                      .stage_close = stage_close,
                                                      .stage_discard = stage_discard,
                                                      .validate = work_validate,
                                                      .commit = work_commit,
                                                      .ended = work_ended,
                                                      .audit = audit};

// ---- Begin and end ------------------------------------------------------------------------------

static int measure_own(struct updates *updates, struct error *err)
{
    uint64_t bytes;
    int fd = program_of(getpid(), err);
    int rc = fd < 0 ? fd : package_measure(fd, &bytes, updates->own_sha256, err);
    if (fd >= 0)
        close(fd);
    return rc;
}

static int open_all(struct updates *updates, struct error *err)
{
    char folder[PATH_MAX];
    struct loop *loop = updates->config.loop;
    int length = snprintf(folder, sizeof(folder), "%s/update", updates->config.state_dir);
    if (length >= (int)sizeof(folder))
        return error_set_errno(err, -ENAMETOOLONG, "cannot open the store of updates");
    int rc = update_store_open(&updates->store, folder, NULL, err);
    if (rc == 0)
        rc = measure_own(updates, err);
    if (rc < 0)
        return rc;
    rc = update_service_create(&updates->service, &service_ops, updates);
    if (rc == 0)
        rc = loop_timer_create(loop, on_turn, updates, &updates->turn);
    if (rc == 0)
        rc = loop_timer_create(loop, on_tick, updates, &updates->tick);
    return rc < 0 ? error_set_errno(err, rc, "cannot serve updates") : 0;
}

int updates_create(struct updates **out, const struct updates_config *config, struct error *err)
{
    struct updates *updates = calloc(1, sizeof(*updates));
    if (!updates)
        return error_set_errno(err, -ENOMEM, "cannot serve updates");
    updates->config = *config;
    list_init(&updates->connections);
    list_init(&updates->guests);
    int rc = open_all(updates, err);
    if (rc < 0) {
        updates_destroy(updates);
        return rc;
    }
    proof_begin(updates);
    loop_timer_start(updates->tick, TICK_MS);
    *out = updates;
    return 0;
}

void updates_destroy(struct updates *updates)
{
    if (!updates)
        return;
    rollback_cancel(updates);
    work_cancel(updates);
    LIST_FOR_EACH(&updates->connections, node)
    connection_close(BASE_CONTAINER_OF(node, struct connection, link));
    update_service_destroy(updates->service);
    LIST_FOR_EACH(&updates->guests, node)
    {
        list_remove(node);
        free(BASE_CONTAINER_OF(node, struct guest, link));
    }
    loop_timer_close(updates->turn);
    loop_timer_close(updates->tick);
    update_store_close(updates->store);
    json_decref(updates->last);
    free(updates->programs);
    free(updates);
}
