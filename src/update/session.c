// SPDX-License-Identifier: BSD-2-Clause
// The service and its session: how it begins and ends, what becomes of work, and time-outs.
//
// A session lives as long as the manifest's phase is the service's business. It survives its
// connections; what it has received survives it, in the store's stage. When a commit has its
// outcome the session is no longer active: it stays with its channel, if it has one, to answer
// with.
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "update/session.h"

#define HANDLE_TYPE_SESSION 1u

// ---- Sessions -----------------------------------------------------------------------------------

struct session *session_create(struct update_channel *channel, const uint8_t *manifest,
                               size_t manifest_bytes, const uint8_t *signature,
                               size_t signature_bytes)
{
    unsigned char digest[crypto_hash_sha256_BYTES];
    struct session *session = calloc(1, sizeof(*session));

    if (!session)
        return NULL;
    session->service = channel->service;
    session->partition = strdup(channel->partition);
    session->offer = malloc(manifest_bytes + signature_bytes);
    if (!session->partition || !session->offer) {
        session_free(session);
        return NULL;
    }
    memcpy(session->offer, manifest, manifest_bytes);
    memcpy(session->offer + manifest_bytes, signature, signature_bytes);
    crypto_hash_sha256(digest, manifest, manifest_bytes);
    sodium_bin2hex(session->digest, sizeof(session->digest), digest, sizeof(digest));
    session->work = (struct update_work){.partition = session->partition,
                                         .digest = session->digest,
                                         .manifest = session->offer,
                                         .manifest_bytes = manifest_bytes,
                                         .signature = session->offer + manifest_bytes,
                                         .signature_bytes = signature_bytes};
    session->offered_ns = service_now(session->service);
    return session;
}

static void close_stage(struct session *session)
{
    struct update_service *service = session->service;

    if (session->work.stage)
        service->ops->stage_close(service->opaque, session->work.stage);
    session->work.stage = NULL;
}

void session_free(struct session *session)
{
    if (session->handle)
        handle_table_release(session->service->handles, session->handle, HANDLE_TYPE_SESSION, NULL);
    close_stage(session);
    json_decref(session->outcome.result);
    package_manifest_destroy(session->package);
    free(session->offer);
    free(session->partition);
    free(session);
}

int session_issue_handle(struct session *session)
{
    int rc = handle_table_alloc(session->service->handles, session, HANDLE_TYPE_SESSION,
                                &session->handle);

    session->work.session = session->handle;
    return rc;
}

// Sessions are resolved and freed by one thread, so what is found stays without a read section.
static struct session *resolve(const struct update_service *service, uint64_t handle)
{
    handle_read_lock();
    struct session *session = handle_table_resolve(service->handles, handle, HANDLE_TYPE_SESSION);
    handle_read_unlock();
    return session;
}

struct session *session_resolve(struct update_channel *channel, uint64_t handle)
{
    struct session *session = resolve(channel->service, handle);

    return session && session == channel->session ? session : NULL;
}

void session_attach(struct session *session, struct update_channel *channel)
{
    struct update_channel *before = session->channel;

    if (before && before != channel) {
        channel_refuse(before, session->handle, NULL, UPDATE_REFUSAL_NO_SESSION,
                       "another connection has taken the session over");
        channel_finish(before);
    }
    if (channel->session != session)
        channel_detach(channel);
    session->channel = channel;
    channel->session = session;
    session->moved_ns = service_now(session->service);
}

uint64_t session_offset(const struct session *session)
{
    struct update_service *service = session->service;

    return session->work.stage ? service->ops->stage_offset(service->opaque, session->work.stage)
                               : 0;
}

// It is not active any more: what was received goes, if it is not to be kept, and so does what the
// host has for it.
static void retire(struct session *session, bool discard)
{
    struct update_service *service = session->service;
    struct error err = {0};

    service->active = NULL;
    close_stage(session);
    if (discard && service->ops->stage_discard(service->opaque, session->digest, &err) < 0)
        audit_refusal(service, NULL, session, UPDATE_REFUSAL_HOST, err.message);
    service->ops->ended(service->opaque, session->handle);
}

void session_end(struct session *session, const char *event, bool discard)
{
    if (event)
        audit_session(session, event);
    retire(session, discard);
    if (session->channel)
        session->channel->session = NULL;
    session_free(session);
}

json_t *outcome_describe(const struct update_outcome *outcome)
{
    json_t *result = NULL;

    if (outcome->phase == UPDATE_PHASE_COMMITTED)
        result = outcome->result ? json_incref(outcome->result) : json_object();
    else if (outcome->phase == UPDATE_PHASE_ROLLED_BACK)
        result = json_pack("{s:i, s:s}", "error", UPDATE_REFUSAL_ROLLED_BACK, "why", outcome->why);
    return json_pack("{s:s, s:s, s:s, s:o*}", "phase", update_phase_name(outcome->phase), "version",
                     outcome->version, "manifest", outcome->manifest, "result", result);
}

json_t *session_describe(const struct session *session)
{
    if (!session->work.stage)
        return outcome_describe(&session->outcome);
    return json_pack("{s:s, s:s, s:s, s:i, s:I, s:I}", "phase", update_phase_name(session->phase),
                     "version", session->version, "manifest", session->digest, "payload",
                     (int)session->work.payload, "offset", (json_int_t)session_offset(session),
                     "bytes", (json_int_t)session->bytes);
}

// ---- Work ---------------------------------------------------------------------------------------

// The request that waited for the session's work is answered.
static void resume(struct update_channel *channel)
{
    enum update_frame type = channel ? channel->waiting : 0;

    if (!type)
        return;
    channel->waiting = 0;
    channel_request(channel, type);
    channel->config.ready(channel->config.opaque);
}

void update_service_progress(struct update_service *service, uint64_t handle, const char *doing)
{
    struct session *session = resolve(service, handle);

    if (session && session->channel && session->channel->waiting)
        channel_send_json(session->channel, UPDATE_FRAME_PROGRESS, handle,
                          json_pack("{s:s}", "doing", doing));
}

void update_service_validated(struct update_service *service, uint64_t handle)
{
    struct session *session = resolve(service, handle);

    if (!session || session->phase != UPDATE_PHASE_VALIDATING)
        return;
    session->phase = UPDATE_PHASE_VALIDATED;
    session->validated_ns = service_now(service);
    session->validating_ns = session->validated_ns - session->work_ns;
    audit_session(session, "validated");
    session->work_ns = 0;
    resume(session->channel);
}

// Whether validating may succeed another time with the same bytes.
static bool is_transient(enum update_refusal refusal)
{
    return refusal == UPDATE_REFUSAL_NO_SPACE || refusal == UPDATE_REFUSAL_BUSY ||
           refusal == UPDATE_REFUSAL_HOST;
}

void update_service_refuse(struct update_service *service, uint64_t handle,
                           enum update_refusal refusal, const char *why)
{
    struct session *session = resolve(service, handle);

    if (!session || !session_working(session))
        return;
    struct update_channel *channel = session->channel;
    const bool ends = session->phase == UPDATE_PHASE_VALIDATING && !is_transient(refusal);
    session->phase =
        session->phase == UPDATE_PHASE_VALIDATING ? UPDATE_PHASE_RECEIVING : UPDATE_PHASE_VALIDATED;
    session->moved_ns = session->validated_ns = service_now(service);
    audit_refusal(service, NULL, session, refusal, why);
    session->work_ns = 0;
    if (channel && channel->waiting == UPDATE_FRAME_WITHDRAW) {
        resume(channel);
        return;
    }
    if (channel && channel->waiting)
        channel_send_error(channel, handle, refusal, why);
    if (ends)
        session_end(session, NULL, true);
    if (channel && channel->waiting) {
        channel->waiting = 0;
        channel->config.ready(channel->config.opaque);
    }
}

static void settle(struct session *session)
{
    struct update_service *service = session->service;
    struct update_outcome outcome = {.result = NULL};

    if (!service->ops->recall(service->opaque, session->partition, session->digest, &outcome) ||
        outcome.phase == UPDATE_PHASE_COMMITTING) {
        json_decref(outcome.result);
        return;
    }
    json_decref(session->outcome.result);
    session->outcome = outcome;
    session->phase = outcome.phase;
    if (session == service->active) {
        audit_session(session, update_phase_name(session->phase));
        retire(session, true);
    }
    session->work_ns = 0;
    if (session->channel)
        resume(session->channel);
    else
        session_free(session);
}

void update_service_settled(struct update_service *service)
{
    if (service->active && service->active->phase == UPDATE_PHASE_COMMITTING)
        settle(service->active);
    LIST_FOR_EACH(&service->channels, node)
    {
        struct update_channel *channel = BASE_CONTAINER_OF(node, struct update_channel, node);
        if (channel->session && channel->session != service->active &&
            channel->session->phase == UPDATE_PHASE_COMMITTING)
            settle(channel->session);
    }
}

// ---- Time-outs ----------------------------------------------------------------------------------

static bool is_past(uint64_t now_ns, uint64_t since_ns, uint64_t seconds)
{
    return now_ns - since_ns > seconds * NS_PER_S;
}

static void too_slow(struct update_channel *channel, const struct session *session, const char *why)
{
    channel_refuse(channel, session ? session->handle : 0, session, UPDATE_REFUSAL_TOO_SLOW, why);
    channel_finish(channel);
}

// Why a session ends by time, or NULL.
static const char *session_overdue(const struct session *session, uint64_t now_ns)
{
    if (session_working(session))
        return NULL;
    if (is_past(now_ns, session->offered_ns, UPDATE_SESSION_SECONDS))
        return "the session took too long";
    if (session->phase == UPDATE_PHASE_VALIDATED &&
        is_past(now_ns, session->validated_ns, UPDATE_VALIDATED_SECONDS))
        return "no COMMIT came for too long";
    if (!session->channel && is_past(now_ns, session->lost_ns, UPDATE_LOST_SECONDS))
        return "no connection came back for too long";
    return NULL;
}

static void session_tick(struct session *session, uint64_t now_ns)
{
    struct update_channel *channel = session->channel;
    const char *why = session_overdue(session, now_ns);

    if (why) {
        if (channel)
            too_slow(channel, session, why);
        session_end(session, "abandoned", false);
    } else if (channel && session->phase <= UPDATE_PHASE_RECEIVING &&
               is_past(now_ns, session->moved_ns, UPDATE_SILENCE_SECONDS)) {
        too_slow(channel, session, "no WRITE came for too long");
    }
}

static void channel_tick(struct update_channel *channel, uint64_t now_ns)
{
    if (channel->finished)
        return;
    if ((!channel->session || channel->session != channel->service->active) && !channel->waiting &&
        is_past(now_ns, channel->heard_ns, UPDATE_SILENCE_SECONDS)) {
        too_slow(channel, NULL, NULL);
        return;
    }
    if (channel->throttled) {
        channel->throttled = false;
        channel->config.ready(channel->config.opaque);
    }
}

void update_service_tick(struct update_service *service)
{
    const uint64_t now_ns = service_now(service);

    if (service->active)
        session_tick(service->active, now_ns);
    LIST_FOR_EACH(&service->channels, node)
    channel_tick(BASE_CONTAINER_OF(node, struct update_channel, node), now_ns);
}

// ---- Service ------------------------------------------------------------------------------------

json_t *update_service_describe(const struct update_service *service)
{
    json_t *object = service->active ? session_describe(service->active) : NULL;

    if (object)
        json_object_set_new(object, "partition", json_string(service->active->partition));
    return object;
}

uint64_t update_service_refused(const struct update_service *service, enum update_refusal refusal)
{
    return refusal < REFUSALS ? service->refused[refusal] : 0;
}

int update_service_create(struct update_service **out, const struct update_service_ops *ops,
                          void *opaque)
{
    struct update_service *service = calloc(1, sizeof(*service));

    if (!service || handle_table_create(&service->handles, NULL) < 0) {
        free(service);
        return -ENOMEM;
    }
    service->ops = ops;
    service->opaque = opaque;
    list_init(&service->channels);
    *out = service;
    return 0;
}

void update_service_destroy(struct update_service *service)
{
    if (!service)
        return;
    if (service->active)
        session_end(service->active, NULL, false);
    handle_table_destroy(service->handles, NULL, NULL);
    free(service);
}
