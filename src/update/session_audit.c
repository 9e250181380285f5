// SPDX-License-Identifier: BSD-2-Clause
// Records for the audit log, and how many of them a partition may cause: those that it can have
// written for nothing, refusals, are counted only when there are too many.
#include <string.h>

#include "update/session.h"

void audit_clean(char *out, size_t capacity, const char *text)
{
    size_t i = 0;

    for (; i + 1 < capacity && text[i]; i++)
        out[i] = text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
    out[i] = '\0';
}

bool meter_take(uint64_t *unused_ns, uint64_t now_ns, uint64_t cost_ns, uint64_t burst_ns)
{
    if (*unused_ns < now_ns)
        *unused_ns = now_ns;
    if (*unused_ns - now_ns + cost_ns > burst_ns)
        return false;
    *unused_ns += cost_ns;
    return true;
}

// A missing text is left out, and so is what there is no memory for.
static void put_text(json_t *record, const char *key, const char *text)
{
    if (text && *text)
        json_object_set_new(record, key, json_string(text));
}

static void put_number(json_t *record, const char *key, uint64_t number)
{
    json_object_set_new(record, key, json_integer((json_int_t)number));
}

static void put_session(json_t *record, const struct session *session)
{
    char version[UPDATE_VERSION_BYTES];

    put_text(record, "session", session->digest);
    audit_clean(version, sizeof(version), session->version);
    put_text(record, "version", version);
    put_text(record, "key", session->key);
    if (!session->handle)  // was never accepted
        return;
    if (session->work.stage) {
        put_number(record, "payload", session->work.payload);
        put_number(record, "offset", session_offset(session));
        put_number(record, "bytes", session->bytes);
    }
    put_number(record, "session_ns", service_now(session->service) - session->offered_ns);
    if (session->work_ns)
        put_number(record, "work_ns", service_now(session->service) - session->work_ns);
}

static void put_channel(json_t *record, struct update_channel *channel)
{
    struct update_meter *meter = channel->config.meter;

    put_text(record, "agent", channel->agent);
    if (meter->suppressed)
        put_number(record, "suppressed", meter->suppressed);
    meter->suppressed = 0;
}

static void deliver(struct update_service *service, json_t *record)
{
    service->ops->audit(service->opaque, record);
    json_decref(record);
}

void audit_session(const struct session *session, const char *event)
{
    json_t *record = json_object();

    put_text(record, "event", event);
    put_text(record, "partition", session->partition);
    put_session(record, session);
    if (session->phase == UPDATE_PHASE_ROLLED_BACK)
        put_text(record, "why", session->outcome.why);
    if (session->channel)
        put_channel(record, session->channel);
    deliver(session->service, record);
}

static bool meter_allows_audit(struct update_service *service, struct update_meter *meter)
{
    const uint64_t each_ns = UPDATE_AUDIT_SECONDS * NS_PER_S;

    if (meter_take(&meter->audits_ns, service_now(service), each_ns, UPDATE_AUDIT_BURST * each_ns))
        return true;
    meter->suppressed++;
    return false;
}

void audit_refusal(struct update_service *service, struct update_channel *channel,
                   const struct session *session, enum update_refusal refusal, const char *why)
{
    char text[ERROR_MESSAGE_BYTES];

    service->refused[refusal]++;
    if (channel && !meter_allows_audit(service, channel->config.meter))
        return;
    json_t *record = json_object();
    put_text(record, "event", "refused");
    put_text(record, "partition", channel ? channel->partition : session->partition);
    put_number(record, "code", refusal);
    put_text(record, "refusal", update_refusal_name(refusal));
    audit_clean(text, sizeof(text), why && *why ? why : update_refusal_sentence(refusal));
    put_text(record, "why", text);
    if (session)
        put_session(record, session);
    if (channel)
        put_channel(record, channel);
    deliver(service, record);
}
