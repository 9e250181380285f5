// SPDX-License-Identifier: BSD-2-Clause
// One connection: frames in, answers out. A request whose answer needs work that takes long is
// kept as channel->waiting, and nothing more is taken meanwhile: so answers come in the order of
// requests, and no guest makes the host remember more than one.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "update/session.h"

#define WRITTEN_BYTES (UINT64_C(1) << 20)  // WRITTEN comes once in so many
#define OFFSET_BYTES 8u                    // of WRITE's offset
#define ERROR_HEAD_BYTES 4u

// ---- Answers ------------------------------------------------------------------------------------

void channel_send(struct update_channel *channel, enum update_frame type, uint64_t handle,
                  const void *payload, size_t bytes)
{
    uint8_t header[UPDATE_FRAME_HEADER_BYTES];

    frame_header(header, type, handle, (uint32_t)bytes);
    channel->config.send(channel->config.opaque, header, sizeof(header));
    if (bytes > 0)
        channel->config.send(channel->config.opaque, payload, bytes);
}

void channel_send_json(struct update_channel *channel, enum update_frame type, uint64_t handle,
                       json_t *object)
{
    char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;

    json_decref(object);
    if (text && strlen(text) <= UPDATE_FRAME_PAYLOAD_MAX)
        channel_send(channel, type, handle, text, strlen(text));
    else
        channel_refuse(channel, handle, NULL, UPDATE_REFUSAL_HOST, "the answer cannot be made");
    free(text);
}

// What a failure of the host is in detail is not the guest's business.
void channel_send_error(struct update_channel *channel, uint64_t handle,
                        enum update_refusal refusal, const char *why)
{
    uint8_t payload[ERROR_HEAD_BYTES + ERROR_MESSAGE_BYTES] = {0};
    char *text = (char *)payload + ERROR_HEAD_BYTES;
    const bool tells =
        why && *why && refusal != UPDATE_REFUSAL_HOST && refusal != UPDATE_REFUSAL_NO_SPACE;

    frame_put16(payload, (uint16_t)refusal);
    audit_clean(text, ERROR_MESSAGE_BYTES, tells ? why : update_refusal_sentence(refusal));
    channel_send(channel, UPDATE_FRAME_ERROR, handle, payload, ERROR_HEAD_BYTES + strlen(text));
}

void channel_refuse(struct update_channel *channel, uint64_t handle, const struct session *session,
                    enum update_refusal refusal, const char *why)
{
    audit_refusal(channel->service, channel, session, refusal, why);
    channel_send_error(channel, handle, refusal, why);
}

void channel_detach(struct update_channel *channel)
{
    struct session *session = channel->session;

    if (!session)
        return;
    channel->session = NULL;
    session->channel = NULL;
    session->lost_ns = service_now(channel->service);
    if (session != channel->service->active)
        session_free(session);
}

void channel_finish(struct update_channel *channel)
{
    channel_detach(channel);
    channel->waiting = 0;
    channel->finished = true;
    channel->config.finish(channel->config.opaque);
}

// ---- Requests -----------------------------------------------------------------------------------

static void malformed(struct update_channel *channel, const struct frame *frame, const char *why)
{
    channel_refuse(channel, frame->handle, NULL, UPDATE_REFUSAL_MALFORMED, why);
    if (++channel->malformed > UPDATE_MALFORMED_MAX)
        channel_finish(channel);
}

static json_t *describe_programs(const struct update_host *host)
{
    json_t *programs = json_array();

    for (size_t i = 0; i < host->program_count; i++)
        json_array_append_new(programs,
                              json_pack("{s:s, s:s}", "version", host->programs[i].version,
                                        "sha256", host->programs[i].sha256));
    return programs;
}

static void answer_hello(struct update_channel *channel)
{
    struct update_service *service = channel->service;
    const struct update_host *host = service->ops->host(service->opaque);

    channel_send_json(channel, UPDATE_FRAME_HELLO_ANSWER, 0,
                      json_pack("{s:i, s:s, s:I, s:s, s:i, s:s, s:I, s:o}", "protocol",
                                UPDATE_PROTOCOL, "version", host->version, "epoch",
                                (json_int_t)host->epoch, "architecture", host->architecture,
                                "state", (int)host->state, "partition", channel->partition,
                                "quota_bytes", (json_int_t)host->quota_bytes, "programs",
                                describe_programs(host)));
}

static void request_hello(struct update_channel *channel, const struct frame *frame)
{
    json_int_t protocol;
    const char *agent = "";
    char why[64];
    json_t *hello =
        json_loadb((const char *)frame->payload, frame->bytes, JSON_REJECT_DUPLICATES, NULL);

    if (json_unpack(hello, "{s:I, s?s}", "protocol", &protocol, "agent", &agent) < 0 ||
        strlen(agent) >= AGENT_BYTES) {
        malformed(channel, frame, "HELLO is not as the protocol says");
    } else if (protocol != UPDATE_PROTOCOL) {
        snprintf(why, sizeof(why), "the host speaks protocol %d", UPDATE_PROTOCOL);
        channel_refuse(channel, 0, NULL, UPDATE_REFUSAL_PROTOCOL, why);
        channel_finish(channel);
    } else {
        audit_clean(channel->agent, sizeof(channel->agent), agent);
        channel->greeted = true;
        answer_hello(channel);
    }
    json_decref(hello);
}

static void request_offer(struct update_channel *channel, const struct frame *frame)
{
    const uint64_t each_ns = UPDATE_OFFER_SECONDS * NS_PER_S;

    if (frame->bytes < sizeof(uint32_t)) {
        malformed(channel, frame, "OFFER has no manifest");
        return;
    }
    const uint8_t *manifest = frame->payload + sizeof(uint32_t);
    const size_t bytes = frame_get32(frame->payload), rest = frame->bytes - sizeof(uint32_t);
    if (bytes == 0 || bytes > rest || bytes > PACKAGE_MANIFEST_MAX_BYTES ||
        rest - bytes > PACKAGE_SIGNATURE_MAX_BYTES) {
        malformed(channel, frame, "OFFER's lengths are not as the protocol says");
        return;
    }
    if (!meter_take(&channel->config.meter->offers_ns, service_now(channel->service), each_ns,
                    UPDATE_OFFERS_BURST * each_ns)) {
        channel_refuse(channel, 0, NULL, UPDATE_REFUSAL_BUSY, "the partition offers too often");
        return;
    }
    struct session *candidate =
        session_create(channel, manifest, bytes, manifest + bytes, rest - bytes);
    if (candidate)
        offer_decide(channel, candidate);
    else
        channel_refuse(channel, 0, NULL, UPDATE_REFUSAL_HOST, "no memory");
}

// Whether a WRITE may go where it says, else what it is refused with.
static enum update_refusal check_write(const struct session *session, uint64_t offset, size_t bytes,
                                       char *why, size_t why_bytes)
{
    const uint64_t next = session_offset(session);

    if (offset != next) {
        snprintf(why, why_bytes, "offset %" PRIu64 " came, %" PRIu64 " is next", offset, next);
        return UPDATE_REFUSAL_OUT_OF_ORDER;
    }
    if (bytes > session->bytes - next) {
        snprintf(why, why_bytes, "the payload has %" PRIu64 " bytes", session->bytes);
        return UPDATE_REFUSAL_TOO_LARGE;
    }
    return UPDATE_REFUSAL_NONE;
}

static enum update_refusal write_stage(struct session *session, uint64_t offset,
                                       const uint8_t *bytes, size_t count, struct error *err)
{
    struct update_service *service = session->service;
    int rc =
        service->ops->stage_write(service->opaque, session->work.stage, offset, bytes, count, err);

    session->phase = UPDATE_PHASE_RECEIVING;
    session->moved_ns = service_now(service);
    if (rc == -ENOSPC || rc == -EDQUOT)
        return UPDATE_REFUSAL_NO_SPACE;
    return rc < 0 ? UPDATE_REFUSAL_HOST : UPDATE_REFUSAL_NONE;
}

static void request_write(struct update_channel *channel, const struct frame *frame)
{
    struct session *session = session_resolve(channel, frame->handle);
    struct error err = {0};
    uint8_t written[OFFSET_BYTES];

    if (frame->bytes <= OFFSET_BYTES) {
        malformed(channel, frame, "WRITE has no bytes");
        return;
    }
    if (!session || !session->work.stage) {
        channel_refuse(channel, frame->handle, NULL, UPDATE_REFUSAL_NO_SESSION, NULL);
        return;
    }
    const uint64_t offset = frame_get64(frame->payload);
    const size_t count = frame->bytes - OFFSET_BYTES;
    enum update_refusal refusal =
        check_write(session, offset, count, err.message, sizeof(err.message));
    if (!refusal)
        refusal = write_stage(session, offset, frame->payload + OFFSET_BYTES, count, &err);
    if (refusal) {
        channel_refuse(channel, frame->handle, session, refusal, err.message);
        return;
    }
    if (offset + count == session->bytes)
        audit_session(session, "received");
    else if (offset / WRITTEN_BYTES == (offset + count) / WRITTEN_BYTES)
        return;
    frame_put64(written, offset + count);
    channel_send(channel, UPDATE_FRAME_WRITTEN, frame->handle, written, sizeof(written));
}

static void request_status(struct update_channel *channel)
{
    struct update_service *service = channel->service;
    const struct update_host *host = service->ops->host(service->opaque);
    const struct session *active = service->active;
    const bool mine = active && strcmp(active->partition, channel->partition) == 0;
    const struct session *session = mine ? active : channel->session;
    struct update_outcome last = {.result = NULL};
    const bool any = service->ops->recall(service->opaque, channel->partition, NULL, &last);

    channel_send_json(channel, UPDATE_FRAME_STATUS_ANSWER, 0,
                      json_pack("{s:s, s:I, s:b, s:o?, s:o?}", "version", host->version, "epoch",
                                (json_int_t)host->epoch, "busy",
                                !mine && (active || host->committing), "session",
                                session ? session_describe(session) : NULL, "last",
                                any ? outcome_describe(&last) : NULL));
    json_decref(last.result);
}

// ---- Requests that may wait for work ------------------------------------------------------------

static void answer_validated(struct update_channel *channel)
{
    const struct session *session = channel->session;

    channel_send_json(channel, UPDATE_FRAME_VALIDATED, session->handle,
                      json_pack("{s:s, s:s, s:I, s:f}", "version", session->version, "sha256",
                                session->package->program_sha256, "bytes",
                                (json_int_t)session->package->program_bytes, "seconds",
                                (double)session->validating_ns / NS_PER_S));
}

// Begins what `phase` says; nothing of the session may be touched after it.
static void begin_work(struct session *session, enum update_phase phase, enum update_frame type)
{
    struct update_service *service = session->service;
    const uint64_t handle = session->handle;
    struct error err = {0};

    session->phase = phase;
    session->work_ns = service_now(service);
    session->channel->waiting = type;
    if (phase == UPDATE_PHASE_COMMITTING)
        audit_session(session, "committing");
    int rc = phase == UPDATE_PHASE_COMMITTING
                 ? service->ops->commit(service->opaque, &session->work, &err)
                 : service->ops->validate(service->opaque, &session->work, &err);
    if (rc < 0)
        update_service_refuse(service, handle, UPDATE_REFUSAL_HOST, err.message);
}

static void request_finish(struct update_channel *channel)
{
    struct session *session = channel->session;

    if (!session->work.stage)
        channel_refuse(channel, session->handle, session, UPDATE_REFUSAL_NO_SESSION, NULL);
    else if (session->phase >= UPDATE_PHASE_VALIDATED)
        answer_validated(channel);
    else if (session->phase == UPDATE_PHASE_VALIDATING)
        channel->waiting = UPDATE_FRAME_FINISH;
    else if (session_offset(session) < session->bytes)
        channel_refuse(channel, session->handle, session, UPDATE_REFUSAL_OUT_OF_ORDER,
                       "not all of the payload is there");
    else
        begin_work(session, UPDATE_PHASE_VALIDATING, UPDATE_FRAME_FINISH);
}

static void begin_commit(struct update_channel *channel)
{
    struct session *session = channel->session;
    struct error err = {0};
    const enum update_refusal refusal = offer_check_again(session, &err);

    if (!refusal) {
        begin_work(session, UPDATE_PHASE_COMMITTING, UPDATE_FRAME_COMMIT);
        return;
    }
    channel_refuse(channel, session->handle, session, refusal, err.message);
    if (refusal != UPDATE_REFUSAL_HOST)
        session_end(session, NULL, true);
}

static void request_commit(struct update_channel *channel)
{
    struct session *session = channel->session;

    switch (session->phase) {
    case UPDATE_PHASE_VALIDATED:
        begin_commit(channel);
        break;
    case UPDATE_PHASE_COMMITTING:
        channel->waiting = UPDATE_FRAME_COMMIT;
        break;
    case UPDATE_PHASE_COMMITTED:
        channel_send_json(channel, UPDATE_FRAME_COMMITTED, session->handle,
                          session->outcome.result ? json_incref(session->outcome.result)
                                                  : json_object());
        break;
    case UPDATE_PHASE_ROLLED_BACK:
        channel_refuse(channel, session->handle, session, UPDATE_REFUSAL_ROLLED_BACK,
                       session->outcome.why);
        break;
    default:
        channel_refuse(channel, session->handle, session, UPDATE_REFUSAL_NOT_VALIDATED, NULL);
    }
}

static void request_withdraw(struct update_channel *channel)
{
    struct update_service *service = channel->service;
    struct session *session = channel->session;
    const uint64_t handle = session->handle;

    if (session_working(session)) {
        channel->waiting = UPDATE_FRAME_WITHDRAW;
        return;
    }
    if (session->phase == UPDATE_PHASE_COMMITTED) {
        channel_refuse(channel, handle, session, UPDATE_REFUSAL_NO_SESSION,
                       "what is committed cannot be withdrawn");
        return;
    }
    if (session->phase == UPDATE_PHASE_ROLLED_BACK) {
        audit_session(session, "withdrawn");
        service->ops->forget(service->opaque, session->partition, session->digest);
        channel_detach(channel);
    } else {
        session_end(session, "withdrawn", true);
    }
    channel_send(channel, UPDATE_FRAME_WITHDRAWN, handle, NULL, 0);
}

void channel_request(struct update_channel *channel, enum update_frame type)
{
    if (type == UPDATE_FRAME_FINISH)
        request_finish(channel);
    else if (type == UPDATE_FRAME_COMMIT)
        request_commit(channel);
    else
        request_withdraw(channel);
}

static void request_of_session(struct update_channel *channel, const struct frame *frame)
{
    if (frame->bytes > 0)
        malformed(channel, frame, "the request has a payload");
    else if (!session_resolve(channel, frame->handle))
        channel_refuse(channel, frame->handle, NULL, UPDATE_REFUSAL_NO_SESSION, NULL);
    else
        channel_request(channel, frame->type);
}

// ---- Taking bytes -------------------------------------------------------------------------------

static void dispatch(struct update_channel *channel, const struct frame *frame)
{
    switch (frame->type) {
    case UPDATE_FRAME_OFFER:
        request_offer(channel, frame);
        break;
    case UPDATE_FRAME_WRITE:
        request_write(channel, frame);
        break;
    case UPDATE_FRAME_FINISH:
    case UPDATE_FRAME_COMMIT:
    case UPDATE_FRAME_WITHDRAW:
        request_of_session(channel, frame);
        break;
    case UPDATE_FRAME_STATUS:
        if (frame->bytes > 0)
            malformed(channel, frame, "the request has a payload");
        else
            request_status(channel);
        break;
    default:
        malformed(channel, frame, "there is no request of this type");
    }
}

static void take_frame(struct update_channel *channel, const struct frame *frame,
                       enum frame_found found)
{
    channel->heard_ns = service_now(channel->service);
    if (channel->unwelcome) {
        channel_refuse(channel, 0, NULL, channel->unwelcome, NULL);
        channel_finish(channel);
    } else if (found == FRAME_LOST) {
        channel_refuse(channel, 0, NULL, UPDATE_REFUSAL_MALFORMED,
                       "the magic or length of a frame is wrong");
        channel_finish(channel);
    } else if (frame->type == UPDATE_FRAME_HELLO) {
        request_hello(channel, frame);
    } else if (!channel->greeted) {
        channel_refuse(channel, frame->handle, NULL, UPDATE_REFUSAL_PROTOCOL,
                       "HELLO has to come first, with protocol 1");
        channel_finish(channel);
    } else {
        dispatch(channel, frame);
    }
}

// Whether the partition's rate allows more bytes now.
static bool may_take(struct update_channel *channel)
{
    channel->throttled =
        !meter_take(&channel->config.meter->bytes_ns, service_now(channel->service), 0, NS_PER_S);
    return !channel->throttled;
}

static void charge(struct update_channel *channel, size_t bytes)
{
    channel->config.meter->bytes_ns += bytes * NS_PER_S / UPDATE_BYTES_RATE;
}

size_t update_channel_receive(struct update_channel *channel, const void *bytes, size_t count)
{
    const uint8_t *from = bytes;
    size_t used = 0;
    struct frame frame;

    while (used < count && !channel->finished && !channel->waiting && may_take(channel)) {
        size_t part = frame_reader_take(&channel->reader, from + used, count - used);
        used += part;
        charge(channel, part);
        enum frame_found found = frame_reader_look(&channel->reader, &frame);
        if (found != FRAME_NONE) {
            // To answer a short request takes the host as long as to keep a long one.
            if (channel->reader.held < UPDATE_FRAME_COST)
                charge(channel, UPDATE_FRAME_COST - channel->reader.held);
            take_frame(channel, &frame, found);
            frame_reader_next(&channel->reader);
        }
    }
    return channel->finished ? count : used;
}

int update_channel_open(struct update_channel **out, struct update_service *service,
                        const struct update_channel_config *config)
{
    // Those that are not welcome cost as much as others while they say nothing.
    if (config->meter->connections >= UPDATE_CONNECTIONS_MAX + UPDATE_UNWELCOME_MAX)
        return -EBUSY;
    struct update_channel *channel = calloc(1, sizeof(*channel));
    if (!channel)
        return -ENOMEM;
    channel->partition = strdup(config->partition);
    if (!channel->partition) {
        free(channel);
        return -ENOMEM;
    }
    channel->service = service;
    channel->config = *config;
    channel->heard_ns = service_now(service);
    if (++config->meter->connections > UPDATE_CONNECTIONS_MAX)
        channel->unwelcome = UPDATE_REFUSAL_BUSY;
    if (!config->permitted)
        channel->unwelcome = UPDATE_REFUSAL_NOT_PERMITTED;
    list_append(&service->channels, &channel->node);
    *out = channel;
    return 0;
}

void update_channel_close(struct update_channel *channel)
{
    if (!channel)
        return;
    channel_detach(channel);
    channel->config.meter->connections--;
    list_remove(&channel->node);
    free(channel->partition);
    free(channel);
}
