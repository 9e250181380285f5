// SPDX-License-Identifier: BSD-2-Clause
// A host and guests for tests of the guest channel. The host has a clock that is set, a disk for
// stages that survives its restarts, and remembers the audit log; a guest sends frames and takes
// answers apart, written from docs/guest-channel.md and not from the code that it tests. What may
// not happen in any test aborts.
#ifndef STRAKE_TESTS_UPDATE_CHANNEL_H
#define STRAKE_TESTS_UPDATE_CHANNEL_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "update/update.h"

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#define SECOND UINT64_C(1000000000)
#define DIGEST_OF(c) c c c c c c c c c c c c c c c c
#define BASE_DIGEST DIGEST_OF("ba5e")
#define OTHER_DIGEST DIGEST_OF("07e4")
#define STAGES_MAX 8

// ---- The host -----------------------------------------------------------------------------------

struct update_stage {
    char digest[UPDATE_DIGEST_BYTES];
    unsigned payload;
    uint64_t bytes, offset;
    uint8_t *data;
    bool open;
};

enum work_mode { WORK_SUCCEEDS, WORK_FAILS, WORK_IS_REFUSED, WORK_WAITS };

struct bench {
    struct update_service *service;
    struct update_service_ops ops;
    uint64_t monotonic_ns, wall_ns;
    struct update_host host;
    struct update_program programs[2];
    struct update_stage stages[STAGES_MAX];
    int stage_open_rc, stage_write_rc, stage_discard_rc;
    enum work_mode validating, committing;
    enum update_refusal work_refusal;
    const char *work_why;
    uint64_t working;  // the session whose work waits
    unsigned validations, commits, ended;
    struct update_outcome outcome;  // version "": none
    char outcome_partition[16];
    json_t *audit;
};

static inline uint64_t bench_monotonic(void *opaque)
{
    return ((struct bench *)opaque)->monotonic_ns;
}

static inline uint64_t bench_wall(void *opaque)
{
    return ((struct bench *)opaque)->wall_ns;
}

static inline const struct update_host *bench_host(void *opaque)
{
    return &((struct bench *)opaque)->host;
}

// The signature is a word that says how it is.
static inline enum update_refusal bench_verify(void *opaque, const void *manifest,
                                               size_t manifest_bytes, const void *signature,
                                               size_t signature_bytes, char *key_id,
                                               struct error *err)
{
    static const struct {
        const char *word;
        enum update_refusal refusal;
    } words[] = {{"good", UPDATE_REFUSAL_NONE},
                 {"unknown", UPDATE_REFUSAL_UNKNOWN_KEY},
                 {"revoked", UPDATE_REFUSAL_REVOKED_KEY},
                 {"host", UPDATE_REFUSAL_HOST}};

    (void)opaque, (void)manifest, (void)manifest_bytes;
    strcpy(key_id, "0123456789ABCDEF");
    error_set(err, -EKEYREJECTED, "the signature says '%.*s'", (int)signature_bytes,
              (const char *)signature);
    for (size_t i = 0; i < BASE_COUNT_OF(words); i++) {
        if (strlen(words[i].word) == signature_bytes &&
            memcmp(words[i].word, signature, signature_bytes) == 0)
            return words[i].refusal;
    }
    return UPDATE_REFUSAL_BAD_SIGNATURE;
}

static inline bool bench_recall(void *opaque, const char *partition, const char *digest,
                                struct update_outcome *outcome)
{
    struct bench *bench = opaque;

    if (!bench->outcome.version[0] || (digest && strcmp(digest, bench->outcome.manifest) != 0) ||
        (bench->outcome.phase == UPDATE_PHASE_ROLLED_BACK &&
         strcmp(partition, bench->outcome_partition) != 0))
        return false;
    *outcome = bench->outcome;
    json_incref(outcome->result);
    return true;
}

static inline void bench_clear_outcome(struct bench *bench)
{
    json_decref(bench->outcome.result);
    bench->outcome = (struct update_outcome){.result = NULL};
}

static inline void bench_forget(void *opaque, const char *partition, const char *digest)
{
    struct bench *bench = opaque;

    MUST(strcmp(partition, bench->outcome_partition) == 0);
    MUST(strcmp(digest, bench->outcome.manifest) == 0);
    bench_clear_outcome(bench);
}

static inline int bench_stage_open(void *opaque, const char *digest, unsigned payload,
                                   uint64_t bytes, struct update_stage **out, struct error *err)
{
    struct bench *bench = opaque;
    struct update_stage *stage = NULL;

    if (bench->stage_open_rc < 0)
        return error_set(err, bench->stage_open_rc, "the stage '/secret' cannot be opened");
    for (size_t i = 0; i < STAGES_MAX; i++) {
        if (strcmp(bench->stages[i].digest, digest) == 0 || (!bench->stages[i].data && !stage))
            stage = &bench->stages[i];
    }
    MUST(stage && !stage->open);
    if (stage->payload != payload || stage->bytes != bytes || !stage->data) {
        free(stage->data);
        *stage = (struct update_stage){.payload = payload, .bytes = bytes, .data = malloc(bytes)};
        MUST(stage->data);
        strcpy(stage->digest, digest);
    }
    stage->open = true;
    *out = stage;
    return 0;
}

static inline uint64_t bench_stage_offset(void *opaque, const struct update_stage *stage)
{
    (void)opaque;
    MUST(stage->open);
    return stage->offset;
}

static inline int bench_stage_write(void *opaque, struct update_stage *stage, uint64_t offset,
                                    const void *bytes, size_t count, struct error *err)
{
    struct bench *bench = opaque;

    if (bench->stage_write_rc < 0)
        return error_set(err, bench->stage_write_rc, "the stage '/secret' cannot be written");
    MUST(stage->open && offset == stage->offset && count > 0);
    MUST(count <= stage->bytes - offset);
    memcpy(stage->data + offset, bytes, count);
    stage->offset += count;
    return 0;
}

static inline void bench_stage_close(void *opaque, struct update_stage *stage)
{
    (void)opaque;
    MUST(stage->open);
    stage->open = false;
}

static inline int bench_stage_discard(void *opaque, const char *digest, struct error *err)
{
    struct bench *bench = opaque;

    if (bench->stage_discard_rc < 0)
        return error_set(err, bench->stage_discard_rc, "the stage cannot be removed");
    for (size_t i = 0; i < STAGES_MAX; i++) {
        if (strcmp(bench->stages[i].digest, digest) == 0) {
            MUST(!bench->stages[i].open);
            free(bench->stages[i].data);
            bench->stages[i] = (struct update_stage){.data = NULL};
        }
    }
    return 0;
}

// How much of the manifest's payload is on the disk.
static inline uint64_t bench_staged(const struct bench *bench)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < STAGES_MAX; i++)
        bytes += bench->stages[i].offset;
    return bytes;
}

static inline int bench_validate(void *opaque, const struct update_work *work, struct error *err)
{
    struct bench *bench = opaque;

    MUST(work->stage->open && work->stage->offset == work->stage->bytes);
    bench->validations++;
    bench->working = work->session;
    if (bench->validating == WORK_FAILS)
        return error_set(err, -EIO, "the sandbox '/secret' cannot be made");
    if (bench->validating == WORK_IS_REFUSED)
        update_service_refuse(bench->service, work->session, bench->work_refusal, bench->work_why);
    else if (bench->validating == WORK_SUCCEEDS)
        update_service_validated(bench->service, work->session);
    return 0;
}

static inline void bench_decide(struct bench *bench, enum update_phase phase)
{
    json_decref(bench->outcome.result);
    bench->outcome.result = NULL;
    bench->outcome.phase = phase;
    bench->host.committing = phase == UPDATE_PHASE_COMMITTING;
    if (phase == UPDATE_PHASE_COMMITTED)
        bench->outcome.result = json_pack("{s:s, s:s, s:i}", "old", "0.1.0", "new",
                                          bench->outcome.version, "partitions", 2);
    strcpy(bench->outcome.why, phase == UPDATE_PHASE_ROLLED_BACK ? "it crashed" : "");
}

// Whether the audit log has that the session, since it was offered, was validated.
static inline bool bench_was_validated(const struct bench *bench, const char *digest)
{
    for (size_t i = json_array_size(bench->audit); i-- > 0;) {
        const json_t *record = json_array_get(bench->audit, i);
        const char *session = json_string_value(json_object_get(record, "session"));
        const char *event = json_string_value(json_object_get(record, "event"));
        if (session && strcmp(session, digest) == 0 &&
            (strcmp(event, "validated") == 0 || strcmp(event, "offered") == 0))
            return strcmp(event, "validated") == 0;
    }
    return false;
}

static inline int bench_commit(void *opaque, const struct update_work *work, struct error *err)
{
    struct bench *bench = opaque;

    MUST(work->stage->open && work->stage->offset == work->stage->bytes);
    MUST(bench_was_validated(bench, work->digest));
    bench->commits++;
    bench->working = work->session;
    if (bench->committing == WORK_FAILS)
        return error_set(err, -EIO, "the slot '/secret' cannot be made");
    if (bench->committing == WORK_IS_REFUSED) {
        update_service_refuse(bench->service, work->session, bench->work_refusal, bench->work_why);
        return 0;
    }
    bench_clear_outcome(bench);
    strcpy(bench->outcome.version, "0.2.0");
    strcpy(bench->outcome.manifest, work->digest);
    snprintf(bench->outcome_partition, sizeof(bench->outcome_partition), "%s", work->partition);
    bench_decide(bench, bench->committing == WORK_WAITS ? UPDATE_PHASE_COMMITTING
                                                        : UPDATE_PHASE_COMMITTED);
    update_service_settled(bench->service);
    return 0;
}

static inline void bench_ended(void *opaque, uint64_t session)
{
    struct bench *bench = opaque;

    MUST(session != 0);
    bench->ended++;
}

static inline void bench_audit(void *opaque, const json_t *record)
{
    struct bench *bench = opaque;

    MUST(json_string_value(json_object_get(record, "event")));
    MUST(json_string_value(json_object_get(record, "partition")));
    json_array_append_new(bench->audit, json_deep_copy(record));
}

// The value of the last record, or of the one that is `back` before it.
static inline const json_t *bench_audited(const struct bench *bench, size_t back, const char *key)
{
    size_t count = json_array_size(bench->audit);

    return count > back ? json_object_get(json_array_get(bench->audit, count - 1 - back), key)
                        : NULL;
}

static inline void bench_start(struct bench *bench)
{
    MUST(update_service_create(&bench->service, &bench->ops, bench) == 0);
}

static inline void bench_init(struct bench *bench)
{
    *bench = (struct bench){
        .monotonic_ns = 1000 * SECOND,
        .wall_ns = 1800000000 * SECOND,  // in January 2027
        .host = {.version = "0.1.0",
                 .architecture = "x86_64",
                 .epoch = 3,
                 .state = 5,
                 .quota_bytes = 1 << 24,
                 .program_count = 2},
        .programs = {{"0.1.0", BASE_DIGEST}, {"0.0.9", DIGEST_OF("0123")}},
        .ops = {.monotonic_ns = bench_monotonic,
                .wall_ns = bench_wall,
                .host = bench_host,
                .verify = bench_verify,
                .recall = bench_recall,
                .forget = bench_forget,
                .stage_open = bench_stage_open,
                .stage_offset = bench_stage_offset,
                .stage_write = bench_stage_write,
                .stage_close = bench_stage_close,
                .stage_discard = bench_stage_discard,
                .validate = bench_validate,
                .commit = bench_commit,
                .ended = bench_ended,
                .audit = bench_audit},
        .audit = json_array(),
    };
    bench->host.programs = bench->programs;
    bench_start(bench);
}

static inline void bench_fini(struct bench *bench)
{
    update_service_destroy(bench->service);
    for (size_t i = 0; i < STAGES_MAX; i++) {
        MUST(!bench->stages[i].open);
        free(bench->stages[i].data);
    }
    bench_clear_outcome(bench);
    json_decref(bench->audit);
}

static inline void bench_pass(struct bench *bench, uint64_t seconds)
{
    bench->monotonic_ns += seconds * SECOND;
    bench->wall_ns += seconds * SECOND;
    update_service_tick(bench->service);
}

// ---- A manifest ---------------------------------------------------------------------------------

struct offer {
    const char *product, *version, *architecture, *expires, *base, *signature;
    unsigned epoch, state_oldest, state_newest;
    unsigned long long program_bytes, full_bytes, delta_bytes;  // delta_bytes 0: no delta
};

#define OFFER_GOOD                                                                                 \
    {                                                                                              \
        .product = "strake", .version = "0.2.0", .architecture = "x86_64",                         \
        .expires = "2027-11-22T00:00:00Z", .base = BASE_DIGEST, .signature = "good", .epoch = 3,   \
        .state_oldest = 4, .state_newest = 6, .program_bytes = 3000, .full_bytes = 700,            \
        .delta_bytes = 300                                                                         \
    }

static inline size_t offer_manifest(const struct offer *offer, char *text, size_t capacity)
{
    char delta[512] = "";

    if (offer->delta_bytes)
        snprintf(delta, sizeof(delta),
                 ",{\"file\":\"monitor-from-0.1.0.zst\",\"bytes\":%llu,\"sha256\":\"" OTHER_DIGEST
                 "\",\"base\":{\"version\":\"0.1.0\",\"sha256\":\"%s\"}}",
                 offer->delta_bytes, offer->base);
    int count = snprintf(
        text, capacity,
        "{\"format\":1,\"product\":\"%s\",\"version\":\"%s\",\"epoch\":%u,\"architecture\":\"%s\","
        "\"state\":{\"oldest\":%u,\"newest\":%u},\"program\":{\"bytes\":%llu,\"sha256\":"
        "\"" OTHER_DIGEST "\"},\"monitor\":[{\"file\":\"monitor-full.zst\",\"bytes\":%llu,"
        "\"sha256\":\"" OTHER_DIGEST "\"}%s],\"guest\":[],\"expires\":\"%s\",\"notes\":\"\"}",
        offer->product, offer->version, offer->epoch, offer->architecture, offer->state_oldest,
        offer->state_newest, offer->program_bytes, offer->full_bytes, delta, offer->expires);
    MUST(count > 0 && (size_t)count < capacity);
    return (size_t)count;
}

// ---- A guest ------------------------------------------------------------------------------------

#define GUEST_BUFFER_BYTES (1u << 18)

struct guest {
    struct bench *bench;
    struct update_channel *channel;  // NULL: not connected
    struct update_meter meter;
    const char *partition;
    uint8_t in[GUEST_BUFFER_BYTES], out[GUEST_BUFFER_BYTES];  // to the host, from the host
    size_t in_start, in_end, out_start, out_end;
    bool finished;  // the host wants the connection closed
    unsigned ready;
    uint64_t session;  // handle of the last SESSION
};

struct answer {
    unsigned type;
    uint64_t handle;
    uint8_t payload[UPDATE_FRAME_PAYLOAD_MAX + 1];  // with a NUL
    size_t bytes;
};

static inline void guest_send_out(void *opaque, const void *bytes, size_t count)
{
    struct guest *guest = opaque;

    MUST(!guest->finished);
    MUST(count <= sizeof(guest->out) - guest->out_end);
    memcpy(guest->out + guest->out_end, bytes, count);
    guest->out_end += count;
}

static inline void guest_finish(void *opaque)
{
    struct guest *guest = opaque;

    MUST(!guest->finished);
    guest->finished = true;
}

static inline void guest_ready(void *opaque)
{
    ((struct guest *)opaque)->ready++;
}

static inline void guest_connect(struct guest *guest, struct bench *bench, const char *partition,
                                 bool permitted)
{
    const struct update_channel_config config = {.partition = partition,
                                                 .permitted = permitted,
                                                 .meter = &guest->meter,
                                                 .send = guest_send_out,
                                                 .finish = guest_finish,
                                                 .ready = guest_ready,
                                                 .opaque = guest};

    MUST(!guest->channel);
    guest->bench = bench;
    guest->partition = partition;
    guest->in_start = guest->in_end = guest->out_start = guest->out_end = 0;
    guest->finished = false;
    guest->session = 0;
    MUST(update_channel_open(&guest->channel, bench->service, &config) == 0);
}

static inline void guest_disconnect(struct guest *guest)
{
    update_channel_close(guest->channel);
    guest->channel = NULL;
}

// Gives the host what it takes.
static inline void guest_pump(struct guest *guest)
{
    size_t taken = 1;

    while (taken > 0 && guest->in_start < guest->in_end) {
        taken = update_channel_receive(guest->channel, guest->in + guest->in_start,
                                       guest->in_end - guest->in_start);
        guest->in_start += taken;
    }
    if (guest->in_start == guest->in_end)
        guest->in_start = guest->in_end = 0;
}

static inline void guest_raw(struct guest *guest, const void *bytes, size_t count)
{
    MUST(count <= sizeof(guest->in) - guest->in_end);
    memcpy(guest->in + guest->in_end, bytes, count);
    guest->in_end += count;
    guest_pump(guest);
}

static inline void put_le(uint8_t *bytes, uint64_t value, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        bytes[i] = (uint8_t)(value >> 8 * i);
}

static inline uint64_t get_le(const uint8_t *bytes, unsigned count)
{
    uint64_t value = 0;

    for (unsigned i = count; i-- > 0;)
        value = value << 8 | bytes[i];
    return value;
}

// A frame as bytes; returns how many.
static inline size_t make_frame(uint8_t *frame, unsigned type, uint64_t handle, const void *payload,
                                size_t bytes)
{
    put_le(frame, 0x5354, 2);
    put_le(frame + 2, type, 2);
    put_le(frame + 4, bytes, 4);
    put_le(frame + 8, handle, 8);
    if (payload)
        memcpy(frame + 16, payload, bytes);
    return 16 + bytes;
}

static inline size_t make_offer(uint8_t *payload, size_t capacity, const struct offer *offer)
{
    size_t manifest = offer_manifest(offer, (char *)payload + 4, capacity - 4);
    size_t signature = strlen(offer->signature);

    put_le(payload, manifest, 4);
    MUST(signature <= capacity - 4 - manifest);
    memcpy(payload + 4 + manifest, offer->signature, signature);
    return 4 + manifest + signature;
}

static inline void guest_send(struct guest *guest, unsigned type, uint64_t handle,
                              const void *payload, size_t bytes)
{
    uint8_t frame[16 + UPDATE_FRAME_PAYLOAD_MAX];

    MUST(bytes <= UPDATE_FRAME_PAYLOAD_MAX);
    guest_raw(guest, frame, make_frame(frame, type, handle, payload, bytes));
}

static inline void guest_say(struct guest *guest, unsigned type)
{
    guest_send(guest, type, type == 7 ? 0 : guest->session, NULL, 0);
}

static inline void guest_hello(struct guest *guest)
{
    static const char hello[] = "{\"protocol\":1,\"agent\":\"test 1\"}";

    guest_send(guest, 1, 0, hello, sizeof(hello) - 1);
}

static inline void guest_offer(struct guest *guest, const struct offer *offer)
{
    uint8_t payload[8192];

    guest_send(guest, 2, 0, payload, make_offer(payload, sizeof(payload), offer));
}

static inline uint8_t payload_byte(uint64_t at)
{
    return (uint8_t)(at * 7 + at / 256);
}

static inline void guest_write(struct guest *guest, uint64_t offset, size_t bytes)
{
    uint8_t payload[UPDATE_FRAME_PAYLOAD_MAX];

    put_le(payload, offset, 8);
    for (size_t i = 0; i < bytes; i++)
        payload[8 + i] = payload_byte(offset + i);
    guest_send(guest, 3, guest->session, payload, 8 + bytes);
}

// The next answer; false when there is none.
static inline bool guest_take(struct guest *guest, struct answer *answer)
{
    const uint8_t *frame = guest->out + guest->out_start;

    if (guest->out_end - guest->out_start < 16)
        return false;
    answer->type = (unsigned)get_le(frame + 2, 2);
    answer->bytes = get_le(frame + 4, 4);
    answer->handle = get_le(frame + 8, 8);
    MUST(get_le(frame, 2) == 0x5354 && answer->bytes <= UPDATE_FRAME_PAYLOAD_MAX);
    if (guest->out_end - guest->out_start - 16 < answer->bytes)
        return false;
    memcpy(answer->payload, frame + 16, answer->bytes);
    answer->payload[answer->bytes] = '\0';
    guest->out_start += 16 + answer->bytes;
    if (guest->out_start == guest->out_end)
        guest->out_start = guest->out_end = 0;
    if (answer->type == 0x82)
        guest->session = answer->handle;
    return true;
}

static inline unsigned answer_code(const struct answer *answer)
{
    MUST(answer->type == 0xff && answer->bytes > 4 && answer->bytes <= 4 + 512);
    MUST(get_le(answer->payload + 2, 2) == 0);
    return (unsigned)get_le(answer->payload, 2);
}

// A value of an answer in JSON; the caller's.
static inline json_t *answer_json(const struct answer *answer)
{
    json_t *json = json_loadb((const char *)answer->payload, answer->bytes, 0, NULL);

    MUST(json_is_object(json));
    return json;
}

#endif
