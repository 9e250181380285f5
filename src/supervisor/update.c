// SPDX-License-Identifier: BSD-2-Clause
// Guests' connections to the update service, and what the service is told of the host.
//
// A connection is one end of a socket pair; the monitor has the other, and carries the guest's
// stream. What is to be sent is kept here until the socket takes it, and nothing is read meanwhile.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "state/state.h"
#include "supervisor/update_internal.h"

#define IN_BYTES 65536u
#define TICK_MS 1000u

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
    bool finishing;
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

static void on_send(void *opaque, const void *bytes, size_t count)
{
    struct connection *connection = opaque;
    uint8_t *out = realloc(connection->out, connection->out_count + count);
    if (!out) {
        connection->finishing = true;  // what is missing in between cannot be made up for
        return;
    }
    memcpy(out + connection->out_count, bytes, count);
    connection->out = out;
    connection->out_count += count;
    loop_timer_start(connection->updates->turn, 0);
}

static void on_finish(void *opaque)
{
    struct connection *connection = opaque;
    connection->finishing = true;
    loop_timer_start(connection->updates->turn, 0);
}

static void on_ready(void *opaque)
{
    struct connection *connection = opaque;
    loop_timer_start(connection->updates->turn, 0);
}

// True: all is sent.
static bool flush(struct connection *connection)
{
    while (connection->out_start < connection->out_count) {
        ssize_t n = send(connection->fd, connection->out + connection->out_start,
                         connection->out_count - connection->out_start, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno != EAGAIN)
                connection->finishing = true;
            return errno != EAGAIN;
        }
        connection->out_start += (size_t)n;
    }
    free(connection->out);
    connection->out = NULL;
    connection->out_start = connection->out_count = 0;
    return true;
}

// What has come goes to the channel, as far as it takes it. True: it took something.
static bool feed(struct connection *connection)
{
    size_t n = connection->in_count ? update_channel_receive(connection->channel, connection->in,
                                                             connection->in_count)
                                    : 0;
    connection->in_count -= n;
    memmove(connection->in, connection->in + n, connection->in_count);
    return n > 0;
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

// One round: so much of one connection, then others have their turn.
static void pump(struct connection *connection, bool readable)
{
    bool sent = flush(connection);
    if (sent && !connection->finishing) {
        if (readable && !fill(connection)) {
            connection_close(connection);
            return;
        }
        feed(connection);
        sent = flush(connection);
    }
    if (sent && connection->finishing) {
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

static void on_tick(void *opaque)
{
    struct updates *updates = opaque;
    update_service_tick(updates->service);
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

static int open_channel(struct connection *connection, const char *partition, bool permitted)
{
    struct updates *updates = connection->updates;
    struct guest *guest = guest_of(updates, partition);
    if (!guest)
        return -ENOMEM;
    const struct update_channel_config config = {.partition = partition,
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
    struct connection *connection = calloc(1, sizeof(*connection));
    if (!connection)
        return -ENOMEM;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0) {
        free(connection);
        return -errno;
    }
    connection->updates = updates;
    connection->fd = ends[0];
    list_append(&updates->connections, &connection->link);
    int rc = open_channel(connection, partition, permitted);
    if (rc == 0)
        return ends[1];
    close(ends[1]);
    connection_close(connection);
    return rc;
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
    if (update_store_slots(updates->store, &slots, &count, &err) < 0)
        log_line(LOG_ERROR, "%s", err.message);
    free(updates->programs);
    updates->host.program_count = 0;
    updates->programs = calloc(count + 1, sizeof(*updates->programs));
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

// ---- Versions that have to prove themselves -----------------------------------------------------

static void on_back(void *opaque, enum transaction_outcome outcome, json_t *result)
{
    struct updates *updates = opaque;
    const char *why = json_string_value(json_object_get(result, "why"));
    if (outcome == TRANSACTION_CANCELLED)
        return;  // the next supervisor sees to it
    updates->going_back = false;
    (void)!last_keep(updates);
    if (outcome != TRANSACTION_DONE)
        log_line(LOG_ERROR, "not all partitions could be handed back: %s", why ? why : "");
}

// What nobody has brought was gone to by hand.
static bool was_brought(const struct updates *updates)
{
    return *update_store_state(updates->store)->pending.session;
}

static int confirm(struct updates *updates, struct error *err)
{
    const struct update_state *state = update_store_state(updates->store);
    bool brought = was_brought(updates);
    struct error why;
    int rc = update_store_confirm(updates->store, err);
    if (rc < 0)
        return rc;
    updates->proving = false;
    if (brought)
        (void)!last_set(updates, UPDATE_PHASE_COMMITTED,
                        json_incref(json_object_get(updates->last, "result")), NULL);
    else
        last_follow(updates, BY_HAND);
    updates_tell(updates, brought ? "update-committed" : "update-rolled-back", state->previous,
                 brought ? NULL : BY_HAND);
    if (update_store_prune(updates->store, updates->config.keep, &why) < 0)
        log_line(LOG_ERROR, "%s", why.message);
    update_service_settled(updates->service);
    return 0;
}

int updates_confirm(struct updates *updates, struct error *err)
{
    const struct update_state *state = update_store_state(updates->store);
    if (!*state->pending.version)
        return error_set(err, -EALREADY, "nothing is to be confirmed: version \"%s\" is",
                         state->current);
    if (!updates->proving)
        return error_set(err, -EBUSY, "version \"%s\" does not run yet", state->current);
    return confirm(updates, err);
}

void updates_settled(struct updates *updates)
{
    struct error err;
    alarm(0);
    if (updates->proving && confirm(updates, &err) < 0) {
        log_line(LOG_ERROR, "%s", err.message);
        return;
    }
    // Partitions may be in a version that was taken back.
    if (updates->going_back &&
        transaction_begin(updates->config.registry, -1, on_back, updates, &err) < 0)
        log_line(LOG_ERROR, "%s", err.message);
}

void updates_revert(struct updates *updates, const char *why)
{
    char from[UPDATE_VERSION_BYTES];
    struct error err;
    bool brought = was_brought(updates);
    memcpy(from, update_store_state(updates->store)->current, sizeof(from));
    updates->proving = false;
    // In this order: what is not taken back in the store yet is so at the next start.
    (void)!(brought ? last_set(updates, UPDATE_PHASE_ROLLED_BACK, NULL, why) : last_keep(updates));
    if (update_store_rollback(updates->store, why, &err) < 0)
        log_line(LOG_ERROR, "%s", err.message);
    updates_tell(updates, "update-rolled-back", from, why);
}

static void take_back(struct updates *updates, const char *why)
{
    updates->going_back = true;
    updates_revert(updates, why);
}

void updates_reexec_failed(struct updates *updates, const struct error *err)
{
    alarm(0);
    if (!*update_store_state(updates->store)->pending.version)
        return;
    take_back(updates, err->message);
    update_service_settled(updates->service);
    updates_settled(updates);
}

int updates_program(struct updates *updates)
{
    const char *current = update_store_state(updates->store)->current;
    struct update_slot slot;
    struct error err;
    int fd = -1;
    if (strcmp(current, UPDATE_INSTALLED) == 0)
        return -1;
    if (update_store_slot(updates->store, current, &slot, &err) < 0 ||
        (strcmp(slot.program_sha256, updates->own_sha256) != 0 &&
         update_store_open_program(updates->store, current, &fd, &err) < 0)) {
        log_line(LOG_ERROR, "the current version cannot be started: %s", err.message);
        return -1;
    }
    return fd;
}

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
    char folder[4096];
    struct loop *loop = updates->config.loop;
    const struct update_store_config usual = {0};
    int length = snprintf(folder, sizeof(folder), "%s/update", updates->config.state_dir);
    if (length >= (int)sizeof(folder))
        return error_set_errno(err, -ENAMETOOLONG, "cannot open the store of updates");
    int rc = update_store_open(&updates->store, folder, &usual, err);
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
    last_load(updates);
    if (*update_store_state(updates->store)->pending.version && !config->reexecuted)
        take_back(updates, "the supervisor ended before the new version had proved itself");
    updates->proving = *update_store_state(updates->store)->pending.version;
    if (!updates->proving)  // the last supervisor may have got no further than the store
        last_follow(updates, "the host went back to another version");
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
