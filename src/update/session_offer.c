// SPDX-License-Identifier: BSD-2-Clause
// What becomes of an OFFER: refused, a new session, one that goes on, or the outcome of one that is
// over. The order of the checks is the page's; nothing of the manifest is looked at before its
// signature is good.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "update/session.h"

static enum update_refusal refuse(struct error *err, enum update_refusal refusal, const char *fmt,
                                  ...) BASE_PRINTF(3, 4);

// Sets the message that goes with a refusal.
static enum update_refusal refuse(struct error *err, enum update_refusal refusal, const char *fmt,
                                  ...)
{
    va_list args;

    va_start(args, fmt);
    vsnprintf(err->message, sizeof(err->message), fmt, args);
    va_end(args);
    return refusal;
}

static enum update_refusal check_signature(struct session *offer, struct error *err)
{
    const struct update_service *service = offer->service;
    const struct update_work *work = &offer->work;

    if (work->signature_bytes == 0)
        return UPDATE_REFUSAL_UNSIGNED;
    return service->ops->verify(service->opaque, work->manifest, work->manifest_bytes,
                                work->signature, work->signature_bytes, offer->key, err);
}

static enum update_refusal check_form(struct session *offer, struct error *err)
{
    int rc = package_manifest_parse(&offer->package, offer->work.manifest,
                                    offer->work.manifest_bytes, err);

    if (rc < 0)
        return rc == -ENOMEM ? UPDATE_REFUSAL_HOST : UPDATE_REFUSAL_BAD_MANIFEST;
    snprintf(offer->version, sizeof(offer->version), "%s", offer->package->version);
    return UPDATE_REFUSAL_NONE;
}

static enum update_refusal check_expiry(const struct session *offer, struct error *err)
{
    const struct update_service *service = offer->service;
    char when[PACKAGE_TIME_CHARS];
    const int64_t now_s = (int64_t)(service->ops->wall_ns(service->opaque) / NS_PER_S);

    if (offer->package->expires_s > now_s)
        return UPDATE_REFUSAL_NONE;
    package_time_format(when, offer->package->expires_s);
    return refuse(err, UPDATE_REFUSAL_EXPIRED, "the package expired on %s", when);
}

static enum update_refusal check_age(const struct package_manifest *package,
                                     const struct update_host *host, struct error *err)
{
    const int newer = package_version_compare(package->version, host->version);

    if (newer == 0)
        return refuse(err, UPDATE_REFUSAL_DOWNGRADE, "version %s is what the host runs",
                      package->version);
    if (host->allow_downgrade)
        return UPDATE_REFUSAL_NONE;
    if (package->epoch < host->epoch)
        return refuse(err, UPDATE_REFUSAL_DOWNGRADE,
                      "the package has security epoch %u, the host %" PRIu64, package->epoch,
                      host->epoch);
    if (newer < 0)
        return refuse(err, UPDATE_REFUSAL_DOWNGRADE, "version %s is older than the host's %s",
                      package->version, host->version);
    return UPDATE_REFUSAL_NONE;
}

static enum update_refusal check_content(const struct session *offer,
                                         const struct update_host *host, struct error *err)
{
    const struct package_manifest *package = offer->package;
    enum update_refusal refusal;

    if (strcmp(package->product, PACKAGE_PRODUCT) != 0)
        return refuse(err, UPDATE_REFUSAL_WRONG_PRODUCT, "the package is for '%s', this is '%s'",
                      package->product, PACKAGE_PRODUCT);
    if (strcmp(package->architecture, host->architecture) != 0)
        return refuse(err, UPDATE_REFUSAL_WRONG_ARCHITECTURE,
                      "the package is for '%s', this host is '%s'", package->architecture,
                      host->architecture);
    if ((refusal = check_expiry(offer, err)) || (refusal = check_age(package, host, err)))
        return refusal;
    if (host->state < package->state_oldest || host->state > package->state_newest)
        return refuse(err, UPDATE_REFUSAL_STATE_VERSION,
                      "the new monitor loads state of versions %u to %u, the host has %u",
                      package->state_oldest, package->state_newest, host->state);
    return UPDATE_REFUSAL_NONE;
}

// All that can be said of a manifest alone.
static enum update_refusal check_manifest(struct session *offer, const struct update_host *host,
                                          struct error *err)
{
    enum update_refusal refusal;

    if ((refusal = check_signature(offer, err)) || (refusal = check_form(offer, err)))
        return refusal;
    return check_content(offer, host, err);
}

enum update_refusal offer_check_again(struct session *session, struct error *err)
{
    const struct update_service *service = session->service;
    enum update_refusal refusal = check_signature(session, err);

    return refusal ? refusal : check_content(session, service->ops->host(service->opaque), err);
}

static bool has_base(const struct update_host *host, const struct package_payload *payload)
{
    if (!payload->base_version)
        return true;
    for (size_t i = 0; i < host->program_count; i++) {
        if (strcmp(host->programs[i].sha256, payload->base_sha256) == 0)
            return true;
    }
    return false;
}

// The smallest payload that the host can use.
static enum update_refusal choose_payload(struct session *offer, const struct update_host *host,
                                          struct error *err)
{
    const struct package_manifest *package = offer->package;
    const struct package_payload *best = NULL;

    for (size_t i = 0; i < package->payload_count; i++) {
        const struct package_payload *payload = &package->payloads[i];
        if (has_base(host, payload) && (!best || payload->file.bytes < best->file.bytes))
            best = payload;
    }
    if (!best)
        return UPDATE_REFUSAL_NO_BASE;
    if (best->file.bytes > host->quota_bytes)
        return refuse(err, UPDATE_REFUSAL_TOO_LARGE,
                      "the payload has %" PRIu64 " bytes, the host allows %" PRIu64,
                      best->file.bytes, host->quota_bytes);
    if (package->program_bytes > UPDATE_PROGRAM_BYTES_MAX)
        return refuse(err, UPDATE_REFUSAL_TOO_LARGE,
                      "the program has %" PRIu64 " bytes, the host allows %u",
                      package->program_bytes, UPDATE_PROGRAM_BYTES_MAX);
    offer->work.payload = (unsigned)(best - package->payloads);
    offer->bytes = best->file.bytes;
    return UPDATE_REFUSAL_NONE;
}

static enum update_refusal open_stage(struct session *offer, struct error *err)
{
    struct update_service *service = offer->service;
    int rc = service->ops->stage_open(service->opaque, offer->digest, offer->work.payload,
                                      offer->bytes, &offer->work.stage, err);

    if (rc == -EDQUOT)
        return UPDATE_REFUSAL_TOO_LARGE;
    if (rc == -ENOSPC)
        return UPDATE_REFUSAL_NO_SPACE;
    return rc < 0 ? UPDATE_REFUSAL_HOST : UPDATE_REFUSAL_NONE;
}

static void answer(struct update_channel *channel)
{
    struct session *session = channel->session;

    channel_send_json(channel, UPDATE_FRAME_SESSION, session->handle, session_describe(session));
}

static void refuse_candidate(struct update_channel *channel, struct session *candidate,
                             enum update_refusal refusal, const struct error *err)
{
    channel_refuse(channel, 0, candidate, refusal, err->message);
    session_free(candidate);
}

// A session that the active one makes way for: of the same partition, and given up by it.
static bool makes_way(const struct session *active, const struct session *candidate)
{
    return strcmp(active->partition, candidate->partition) == 0 && !active->channel &&
           !session_working(active);
}

static void begin(struct update_channel *channel, struct session *offer,
                  const struct update_host *host)
{
    struct update_service *service = channel->service;
    struct error err = {0};
    enum update_refusal refusal = check_manifest(offer, host, &err);

    if (!refusal)
        refusal = choose_payload(offer, host, &err);
    // It may need the room that the other has in the store.
    if (!refusal && service->active)
        session_end(service->active, "abandoned", false);
    if (!refusal)
        refusal = open_stage(offer, &err);
    if (!refusal && session_issue_handle(offer) < 0)
        refusal = UPDATE_REFUSAL_HOST;
    if (refusal) {
        refuse_candidate(channel, offer, refusal, &err);
        return;
    }
    offer->phase = session_offset(offer) > 0 ? UPDATE_PHASE_RECEIVING : UPDATE_PHASE_OFFERED;
    service->active = offer;
    session_attach(offer, channel);
    audit_session(offer, "offered");
    answer(channel);
}

// The active session's manifest has come again. Time has passed and keys may have been revoked, so
// it is checked again, unless the work that is being done needs no more of the guest.
static void go_on(struct update_channel *channel, struct session *again,
                  const struct update_host *host)
{
    struct session *active = channel->service->active;
    struct error err = {0};
    enum update_refusal refusal = UPDATE_REFUSAL_NONE;

    if (!session_working(active))
        refusal = check_manifest(again, host, &err);
    if (refusal) {
        refuse_candidate(channel, again, refusal, &err);
        if (refusal != UPDATE_REFUSAL_HOST)
            session_end(active, NULL, true);
        return;
    }
    session_free(again);
    session_attach(active, channel);
    audit_session(active, "resumed");
    answer(channel);
}

// The candidate becomes what is left of a session.
static void tell_outcome(struct update_channel *channel, struct session *candidate,
                         const struct update_outcome *outcome)
{
    struct error err = {0};

    candidate->outcome = *outcome;
    candidate->phase = outcome->phase;
    snprintf(candidate->version, sizeof(candidate->version), "%s", outcome->version);
    if (session_issue_handle(candidate) < 0) {
        refuse_candidate(channel, candidate, UPDATE_REFUSAL_HOST, &err);
        return;
    }
    session_attach(candidate, channel);
    answer(channel);
}

void offer_decide(struct update_channel *channel, struct session *candidate)
{
    struct update_service *service = channel->service;
    const struct update_host *host = service->ops->host(service->opaque);
    struct session *active = service->active;
    struct update_outcome outcome = {.result = NULL};
    struct error err = {0};

    if (active && strcmp(active->digest, candidate->digest) == 0 &&
        strcmp(active->partition, candidate->partition) == 0)
        go_on(channel, candidate, host);
    else if (service->ops->recall(service->opaque, candidate->partition, candidate->digest,
                                  &outcome))
        tell_outcome(channel, candidate, &outcome);
    else if (host->committing || (active && !makes_way(active, candidate)))
        refuse_candidate(channel, candidate, UPDATE_REFUSAL_BUSY, &err);
    else
        begin(channel, candidate, host);
}
