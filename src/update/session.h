// SPDX-License-Identifier: BSD-2-Clause
// The guest channel's three objects: a service has channels and at most one active session, which
// is its own; a channel may have that session, or one of its own of which only the outcome is left.
// Private to this room.
#ifndef STRAKE_UPDATE_SESSION_H
#define STRAKE_UPDATE_SESSION_H

#include "handle/handle.h"
#include "package/package.h"
#include "update/frame.h"
#include "update/update.h"

#define NS_PER_S UINT64_C(1000000000)
#define AGENT_BYTES 65u
#define REFUSALS (UPDATE_REFUSAL_HOST + 1)

struct session {
    struct update_service *service;
    struct update_channel *channel;  // whose OFFER it answered last; NULL: the connection is lost
    uint64_t handle;                 // 0 until it is accepted
    enum update_phase phase;
    char *partition;
    char digest[UPDATE_DIGEST_BYTES];
    char key[PACKAGE_KEY_ID_CHARS];
    char version[UPDATE_VERSION_BYTES];  // "" until the manifest is parsed
    uint8_t *offer;                      // manifest, then signature
    struct package_manifest *package;    // NULL until it is parsed, or if there is only an outcome
    uint64_t bytes;                      // of the payload
    struct update_work work;
    uint64_t offered_ns, moved_ns, lost_ns, work_ns, validated_ns;
    uint64_t validating_ns;         // how long it took
    struct update_outcome outcome;  // phases COMMITTED, ROLLED_BACK
};

struct update_channel {
    struct list node;
    struct update_service *service;
    struct update_channel_config config;
    char *partition;
    struct session *session;
    enum update_refusal unwelcome;  // what all that comes is refused with; NONE: nothing is
    enum update_frame waiting;      // the request that is answered when work ends; 0: none
    bool greeted, finished, throttled;
    unsigned malformed;
    uint64_t heard_ns;
    char agent[AGENT_BYTES];
    struct frame_reader reader;
};

struct update_service {
    const struct update_service_ops *ops;
    void *opaque;
    struct handle_table *handles;
    struct list channels;
    struct session *active;
    uint64_t refused[REFUSALS];
};

static inline uint64_t service_now(const struct update_service *service)
{
    return service->ops->monotonic_ns(service->opaque);
}

// ---- session.c

// An offer that was not looked at yet: nobody's, and without a handle. NULL without memory.
struct session *session_create(struct update_channel *channel, const uint8_t *manifest,
                               size_t manifest_bytes, const uint8_t *signature,
                               size_t signature_bytes);
void session_free(struct session *session);
BASE_NODISCARD int session_issue_handle(struct session *session);
// The session that a request of the channel's means, or NULL.
struct session *session_resolve(struct update_channel *channel, uint64_t handle);
// Gives it to the channel; one that had it before ends.
void session_attach(struct session *session, struct update_channel *channel);
// The active session ends, for a reason that the audit log calls `event` (NULL: it knows).
void session_end(struct session *session, const char *event, bool discard);
static inline bool session_working(const struct session *session)
{
    return session->phase == UPDATE_PHASE_VALIDATING || session->phase == UPDATE_PHASE_COMMITTING;
}
uint64_t session_offset(const struct session *session);
// What SESSION and STATUS say of it; NULL without memory.
json_t *session_describe(const struct session *session);
json_t *outcome_describe(const struct update_outcome *outcome);

// ---- session_offer.c: what becomes of an OFFER

// Answers it, and takes the candidate.
void offer_decide(struct update_channel *channel, struct session *candidate);
// What may have changed since: keys are revoked, packages expire.
enum update_refusal offer_check_again(struct session *session, struct error *err);

// ---- session_channel.c

// Answers FINISH, COMMIT or WITHDRAW of the channel's session, or has it wait.
void channel_request(struct update_channel *channel, enum update_frame type);
void channel_send(struct update_channel *channel, enum update_frame type, uint64_t handle,
                  const void *payload, size_t bytes);
// Takes the object, which may be NULL.
void channel_send_json(struct update_channel *channel, enum update_frame type, uint64_t handle,
                       json_t *object);
// ERROR, without a record.
void channel_send_error(struct update_channel *channel, uint64_t handle,
                        enum update_refusal refusal, const char *why);
// ERROR and a record of it. `session`: what it is about, or NULL; `why`: or NULL.
void channel_refuse(struct update_channel *channel, uint64_t handle, const struct session *session,
                    enum update_refusal refusal, const char *why);
void channel_finish(struct update_channel *channel);
void channel_detach(struct update_channel *channel);

// ---- session_audit.c

void audit_session(const struct session *session, const char *event);
void audit_refusal(struct update_service *service, struct update_channel *channel,
                   const struct session *session, enum update_refusal refusal, const char *why);
// Printable ASCII of a text; the rest becomes question marks.
void audit_clean(char *out, size_t capacity, const char *text);
// Takes `cost_ns` of an allowance that fills within `burst_ns`; false when that is not there.
bool meter_take(uint64_t *unused_ns, uint64_t now_ns, uint64_t cost_ns, uint64_t burst_ns);

#endif
