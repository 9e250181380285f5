// SPDX-License-Identifier: BSD-2-Clause
// update: replacing the monitor at a guest's request. The store keeps verified versions on the
// host's disk and says which of them runs.
#ifndef STRAKE_UPDATE_H
#define STRAKE_UPDATE_H

#include <jansson.h>

#include "base/base.h"

// ---- Store --------------------------------------------------------------------------------------
//
// A folder (STATEDIR/update) with the versions that were verified, one slot each; which of them is
// current, and what to go back to; payloads on their way; and the audit log. docs/update-store.md
// has its layout and what a crash leaves at each step.
//
// What a function has done is on the disk when it returns 0, and a loss of power at any moment
// leaves either what was before or what it was to do. A failure changes nothing but what is said.
// -ENOSPC and -EDQUOT are told apart from other errors everywhere.
//
// Threads: one at a time. But what takes long, update_store_install and _open_program, may run in a
// second one while the first calls anything that changes neither slots nor state: not
// update_store_make_pending, _confirm, _rollback, _prune, nor _close. One process at a time: a
// store is locked while it is open.

#define UPDATE_VERSION_BYTES 32u          // "0.2.0", with its NUL
#define UPDATE_DIGEST_BYTES 65u           // SHA-256 in lower-case hexadecimal digits, with its NUL
#define UPDATE_MANIFEST_BYTES_MAX 65536u  // of a manifest
#define UPDATE_SIGNATURE_BYTES_MAX 4096u  // of its signature
#define UPDATE_PROGRAM_BYTES_MAX (1u << 30)  // of a program
// The program that was installed on the host: it is current as long as nothing else is, and has no
// slot.
#define UPDATE_INSTALLED "installed"

struct update_store;
struct update_files;

struct update_store_config {
    uint64_t quota_bytes;      // for payloads on their way; 0: UPDATE_QUOTA_BYTES
    uint64_t audit_bytes;      // an audit log of this size is put aside; 0: UPDATE_AUDIT_BYTES
    uint64_t (*now_ns)(void);  // wall clock, for the audit log; NULL: clock_realtime_ns
    const struct update_files
        *files;  // NULL: the host's. Tests bring their own; `folder` is theirs
};
#define UPDATE_QUOTA_BYTES (UINT64_C(256) << 20)
#define UPDATE_AUDIT_BYTES (UINT64_C(1) << 20)
#define UPDATE_AUDIT_FILES 4u  // that were put aside are kept, the oldest is dropped

// Opens the store in `folder`, which is made if it is not there (not the folders above it). Puts in
// order what a crash has left, and what somebody has damaged: a current version whose slot is not
// whole is replaced by the previous one, or by the installed one. So afterwards the current version
// can be started, unless update_store_open_program finds that its bytes have changed.
// NULL for `config`: all of it is as usual.
// -EBUSY: another process has it; -EPERM: others than its owner, who is the caller or root, may
// write to it.
BASE_NODISCARD int update_store_open(struct update_store **out, const char *folder,
                                     const struct update_store_config *config, struct error *err);
void update_store_close(struct update_store *store);  // NULL is ignored

// Which version is what. A version is good, or UPDATE_INSTALLED, or "" where there is none.
struct update_state {
    char current[UPDATE_VERSION_BYTES];
    char previous[UPDATE_VERSION_BYTES];  // what update_store_rollback goes to
    uint64_t epoch;  // the highest security epoch of a version that was confirmed; 0: none was
    // The current version has not been confirmed.
    struct update_pending {
        char version[UPDATE_VERSION_BYTES];  // the current one; "": nothing is pending
        uint64_t deadline_ns;                // wall clock, by when it is to be confirmed
        char session[UPDATE_DIGEST_BYTES];
        char before[UPDATE_VERSION_BYTES];  // what was previous; a rollback restores it
    } pending;
};
// Valid until the store is closed; its content changes with the store's.
const struct update_state *update_store_state(const struct update_store *store);

struct update_slot {
    char version[UPDATE_VERSION_BYTES];
    char program_sha256[UPDATE_DIGEST_BYTES];
    uint64_t program_bytes, epoch;
    bool current, previous, pending;
};
// The slots that are whole, in the order of their versions. *slots is the caller's to free().
BASE_NODISCARD int update_store_slots(struct update_store *store, struct update_slot **slots,
                                      size_t *count, struct error *err);
// One of them. -ENOENT: there is none of that version, or it is not whole.
BASE_NODISCARD int update_store_slot(struct update_store *store, const char *version,
                                     struct update_slot *slot, struct error *err);
// A slot's manifest or signature, with a NUL behind it; the caller's to free(). For who verifies
// the signature anew before a start.
enum update_slot_file { UPDATE_SLOT_PROGRAM, UPDATE_SLOT_MANIFEST, UPDATE_SLOT_SIGNATURE };
BASE_NODISCARD int update_store_read(struct update_store *store, const char *version,
                                     enum update_slot_file file, char **bytes, size_t *count,
                                     struct error *err);

// Makes a slot, which nothing refers to yet, of a manifest that the caller has verified and the
// program it describes, read from the start of `program_fd`, which stays the caller's. Version,
// size and digest are the manifest's. A slot with the same manifest is left as it is, unless its
// program has changed on the disk.
// -EINVAL: the manifest lacks one of these; -EBADMSG: this is not the program of the manifest;
// -EEXIST: another build of this version is current, previous or pending.
BASE_NODISCARD int update_store_install(struct update_store *store, int program_fd,
                                        const void *manifest, size_t manifest_bytes,
                                        const void *signature, size_t signature_bytes,
                                        struct error *err);

// Makes a version, also UPDATE_INSTALLED, current until it is confirmed or rolled back; `session`
// names the session it came by in the state and in the audit log ("": none). -ENOENT: no whole
// slot; -EBUSY: another version is pending; -EALREADY: it is current.
BASE_NODISCARD int update_store_make_pending(struct update_store *store, const char *version,
                                             uint64_t deadline_ns, const char *session,
                                             struct error *err);
// The pending version stays, and the epoch is raised to its. -EALREADY: nothing is pending.
BASE_NODISCARD int update_store_confirm(struct update_store *store, struct error *err);
// From a pending version: all is as it was before it was made pending. From a confirmed one: to the
// previous one, and that becomes previous which was current. Where the slot to go to is not whole:
// to the installed version. `why` is for the audit log. -ENOENT: there is no previous version.
BASE_NODISCARD int update_store_rollback(struct update_store *store, const char *why,
                                         struct error *err);
// Removes slots, the oldest versions first, until `keep` are left of those that are neither current
// nor previous nor what a rollback restores; these stay in any case.
BASE_NODISCARD int update_store_prune(struct update_store *store, unsigned keep, struct error *err);

// The program of a slot in a sealed memfd, which can be executed: its bytes were compared with the
// manifest's digest on their way, so those that run are those that were verified. -EBADMSG: they
// are not those of the manifest. *fd is the caller's.
BASE_NODISCARD int update_store_open_program(struct update_store *store, const char *version,
                                             int *fd, struct error *err);

// ---- Store: payloads on their way
//
// A stage is named by the digest of the manifest that was offered, and outlives connections,
// processes and losses of power: then its offset is where the guest is to go on. Stages together
// hold no more than the quota; one that needs the room of others, abandoned ones, takes it.

struct update_stage;

// Opens the stage of `digest` for the manifest's payload number `payload` of `bytes`; one that was
// begun for the same goes on at its offset, any other begins anew. -EDQUOT: larger than the quota;
// -ENOSPC: the disk has no room for it; -EBUSY: it is open.
BASE_NODISCARD int update_store_stage_open(struct update_store *store, const char *digest,
                                           unsigned payload, uint64_t bytes,
                                           struct update_stage **out, struct error *err);
// What was begun for `digest`: which payload, and how much is there. -ENOENT: nothing was.
BASE_NODISCARD int update_store_stage_find(struct update_store *store, const char *digest,
                                           unsigned *payload, uint64_t *offset);
// Removes what there is of it; it is not open.
BASE_NODISCARD int update_store_stage_discard(struct update_store *store, const char *digest,
                                              struct error *err);
// How many bytes are there. What a crash leaves is at most UPDATE_STAGE_SYNC_BYTES less.
#define UPDATE_STAGE_SYNC_BYTES (UINT64_C(1) << 20)
uint64_t update_stage_offset(const struct update_stage *stage);
// Puts `count` bytes behind those that are there. -ESPIPE: `offset` is not the stage's; -EFBIG:
// more than was announced. What a write is short of by -ENOSPC may be written again.
BASE_NODISCARD int update_stage_write(struct update_stage *stage, uint64_t offset,
                                      const void *bytes, size_t count, struct error *err);
// All that was written survives a crash. Writing does so itself with each UPDATE_STAGE_SYNC_BYTES
// and with the last byte.
BASE_NODISCARD int update_stage_sync(struct update_stage *stage, struct error *err);
// For reading the payload; the stage's.
int update_stage_fd(const struct update_stage *stage);
// What is there stays, and is synced if that can be. NULL is ignored.
void update_stage_close(struct update_stage *stage);

// ---- Store: audit log
//
// history.jsonl, one JSON object a line, only ever appended to. A line that a crash has torn is
// closed when the store is opened, and left out when it is read.

// Appends `record`, an object, which stays the caller's, with "time" (RFC 3339, UTC) put in front.
// At most UPDATE_AUDIT_LINE_BYTES_MAX as text (-E2BIG). The store's own events are "installed",
// "pending", "confirmed", "rolled-back", "pruned" and "repaired".
#define UPDATE_AUDIT_LINE_BYTES_MAX 8192u
BASE_NODISCARD int update_store_audit(struct update_store *store, const json_t *record,
                                      struct error *err);
// The newest `count` records, oldest first, as an array, the caller's; NULL with *err set.
json_t *update_store_history(struct update_store *store, size_t count, struct error *err);

// ---- Store: the files under it
//
// All that the store does to a disk goes through this table, so that tests can lose power between
// any two operations, and tear what was not synced. Paths are relative to the store's folder and
// have no symbolic link on the way; results are 0 or more, or a negative errno.

struct update_file_look {
    enum { UPDATE_FILE, UPDATE_FOLDER, UPDATE_LINK, UPDATE_OTHER } kind;
    uint64_t bytes;
    int64_t changed_ns;  // wall clock
    bool others_write;   // somebody but the caller and root owns it or may write to it
};

struct update_files {
    void *opaque;                                                           // handed to each
    int (*open)(void *opaque, const char *path, int flags, unsigned mode);  // open(2)'s flags
    int64_t (*read)(void *opaque, int fd, void *bytes, size_t count, uint64_t offset);
    int64_t (*write)(void *opaque, int fd, const void *bytes, size_t count, uint64_t offset);
    int (*truncate)(void *opaque, int fd, uint64_t bytes);
    int (*sync)(void *opaque, int fd);
    void (*close)(void *opaque, int fd);
    int (*make_folder)(void *opaque, const char *path);
    int (*sync_folder)(void *opaque, const char *path);  // "": the store's folder
    int (*rename)(void *opaque, const char *from, const char *to);
    int (*remove)(void *opaque, const char *path);  // a file, a link, or an empty folder
    int (*link)(void *opaque, const char *target, const char *path);  // symlink(2)
    int64_t (*read_link)(void *opaque, const char *path, char *target, size_t capacity);
    int (*look)(void *opaque, const char *path, struct update_file_look *look);
    // Names in a folder, in any order, without "." and ".."; a result of `visit` that is not 0 ends
    // it, and is returned.
    int (*list)(void *opaque, const char *path, int (*visit)(void *visitor, const char *name),
                void *visitor);
    int64_t (*room_bytes)(void *opaque);  // what is free on the disk
    void (*end)(void *opaque);            // the store is closed
};

// ---- Channel ------------------------------------------------------------------------------------
//
// The service that guests hand updates to. docs/guest-channel.md has the protocol, for both sides.
// Nothing here knows a socket, a loop or a clock: a channel is fed the bytes that came over one
// connection and gives those to send; a service, one a host, has the session of which there is one
// at a time, and asks the host through a table of callbacks.
//
// Threads: one, the host's loop. Callbacks must not open or close channels, nor feed them, nor
// destroy the service; validate and commit may call the update_service_* functions that end their
// work right away, any other callback may not.

#define UPDATE_PORT 5354u  // of vsock
#define UPDATE_PROTOCOL 1
#define UPDATE_FRAME_MAGIC 0x5354u
#define UPDATE_FRAME_HEADER_BYTES 16u
#define UPDATE_FRAME_PAYLOAD_MAX 65536u

// Frames: name, type, whom it is from.
#define UPDATE_FRAMES(X)                                                                           \
    X(HELLO, 0x01, "HELLO", "guest")                                                               \
    X(OFFER, 0x02, "OFFER", "guest")                                                               \
    X(WRITE, 0x03, "WRITE", "guest")                                                               \
    X(FINISH, 0x04, "FINISH", "guest")                                                             \
    X(COMMIT, 0x05, "COMMIT", "guest")                                                             \
    X(WITHDRAW, 0x06, "WITHDRAW", "guest")                                                         \
    X(STATUS, 0x07, "STATUS", "guest")                                                             \
    X(HELLO_ANSWER, 0x81, "HELLO", "host")                                                         \
    X(SESSION, 0x82, "SESSION", "host")                                                            \
    X(WRITTEN, 0x83, "WRITTEN", "host")                                                            \
    X(VALIDATED, 0x84, "VALIDATED", "host")                                                        \
    X(COMMITTED, 0x85, "COMMITTED", "host")                                                        \
    X(WITHDRAWN, 0x86, "WITHDRAWN", "host")                                                        \
    X(STATUS_ANSWER, 0x87, "STATUS", "host")                                                       \
    X(PROGRESS, 0x88, "PROGRESS", "host")                                                          \
    X(ERROR, 0xff, "ERROR", "host")

// Why something is refused: code, name, and the sentence for which there is no better one. The
// table of docs/guest-channel.md is the same.
#define UPDATE_REFUSALS(X)                                                                         \
    X(MALFORMED, 1, "malformed", "the frame is not what the protocol says")                        \
    X(PROTOCOL, 2, "protocol",                                                                     \
      "this version of the protocol is not spoken, or no HELLO came first")                        \
    X(NOT_PERMITTED, 3, "not-permitted", "the partition may not update the monitor")               \
    X(BUSY, 4, "busy", "another session is under way, or too much was asked for")                  \
    X(UNSIGNED, 5, "unsigned", "the manifest has no signature")                                    \
    X(UNKNOWN_KEY, 6, "unknown-key",                                                               \
      "the key that signed the manifest is not trusted by the host")                               \
    X(REVOKED_KEY, 7, "revoked-key", "the key that signed the manifest was revoked")               \
    X(BAD_SIGNATURE, 8, "bad-signature", "the signature is not one of this manifest")              \
    X(BAD_MANIFEST, 9, "bad-manifest", "the manifest does not follow the format")                  \
    X(WRONG_PRODUCT, 10, "wrong-product", "the package is for another product")                    \
    X(WRONG_ARCHITECTURE, 11, "wrong-architecture", "the package is for another architecture")     \
    X(EXPIRED, 12, "expired", "the package has expired")                                           \
    X(DOWNGRADE, 13, "downgrade", "the package is not newer than what the host runs")              \
    X(STATE_VERSION, 14, "state-version",                                                          \
      "the new monitor could not load the state of partitions that run now")                       \
    X(NO_SPACE, 15, "no-space", "the host has no space for it")                                    \
    X(TOO_LARGE, 16, "too-large", "it is larger than announced, or than the host allows")          \
    X(OUT_OF_ORDER, 17, "out-of-order",                                                            \
      "this is not the offset that comes next, or not all is there")                               \
    X(BAD_DIGEST, 18, "bad-digest", "what was received is not what the manifest describes")        \
    X(NO_PROGRAM, 19, "no-program", "what was received is not a program for this host")            \
    X(SELF_TEST, 20, "self-test", "the new monitor failed its test of itself")                     \
    X(NO_BASE, 21, "no-base", "the host does not have the version that the delta is based on")     \
    X(NO_SESSION, 22, "no-session", "there is no such session")                                    \
    X(NOT_VALIDATED, 23, "not-validated", "the session is not validated")                          \
    X(TOO_SLOW, 24, "too-slow", "nothing came for too long")                                       \
    X(ROLLED_BACK, 25, "rolled-back", "the new monitor did not prove itself; the old one runs on") \
    X(HOST, 26, "host", "the host failed, for reasons of its own")

#define UPDATE_PHASES(X)                                                                           \
    X(OFFERED, "offered")                                                                          \
    X(RECEIVING, "receiving")                                                                      \
    X(VALIDATING, "validating")                                                                    \
    X(VALIDATED, "validated")                                                                      \
    X(COMMITTING, "committing")                                                                    \
    X(COMMITTED, "committed")                                                                      \
    X(ROLLED_BACK, "rolled-back")

enum update_frame {
#define X(symbol, number, name, from) UPDATE_FRAME_##symbol = (number),
    UPDATE_FRAMES(X)
#undef X
};

enum update_refusal {
    UPDATE_REFUSAL_NONE,
#define X(symbol, number, name, sentence) UPDATE_REFUSAL_##symbol = (number),
    UPDATE_REFUSALS(X)
#undef X
};

enum update_phase {
#define X(symbol, name) UPDATE_PHASE_##symbol,
    UPDATE_PHASES(X)
#undef X
};

// "no-space", "the host has no space for it", "receiving"; "?" for what is none.
const char *update_refusal_name(enum update_refusal refusal);
const char *update_refusal_sentence(enum update_refusal refusal);
const char *update_phase_name(enum update_phase phase);

#define UPDATE_MALFORMED_MAX 15u       // frames a connection; the next one ends it
#define UPDATE_CONNECTIONS_MAX 4u      // of a partition
#define UPDATE_UNWELCOME_MAX 4u        // beyond them, which are told so; there are no others
#define UPDATE_OFFERS_BURST 16u        // of a partition, then
#define UPDATE_OFFER_SECONDS 4u        // one in so many
#define UPDATE_BYTES_RATE (64u << 20)  // of a partition a second, and as many at once
#define UPDATE_FRAME_COST 65536u       // bytes that a frame counts for at least
#define UPDATE_AUDIT_BURST 64u         // records of a partition that can be left out, then
#define UPDATE_AUDIT_SECONDS 10u       // one in so many
#define UPDATE_SILENCE_SECONDS 60u     // without an offer, or without a WRITE
#define UPDATE_VALIDATED_SECONDS (30u * 60)
#define UPDATE_SESSION_SECONDS (4u * 3600)
#define UPDATE_LOST_SECONDS (10u * 60)  // a session without connection

// What the host is now.
struct update_host {
    const char *version, *architecture;
    uint64_t epoch;  // packages below it are refused
    unsigned state;  // the version of the saved state that a new monitor must load
    bool allow_downgrade;
    bool committing;       // a new version has to prove itself: no other may be offered
    uint64_t quota_bytes;  // of a payload
    // What deltas may be based on, the current program first; at most 256.
    const struct update_program {
        char version[UPDATE_VERSION_BYTES];
        char sha256[UPDATE_DIGEST_BYTES];
    } * programs;
    size_t program_count;
};

// What became of a COMMIT.
struct update_outcome {
    enum update_phase phase;             // COMMITTING, COMMITTED or ROLLED_BACK
    char version[UPDATE_VERSION_BYTES];  // of the package
    char manifest[UPDATE_DIGEST_BYTES];  // the SHA-256 of its manifest
    json_t *result;                      // COMMITTED: what the guest is told; the receiver's
    char why[ERROR_MESSAGE_BYTES];       // ROLLED_BACK: a sentence
};

// A session's work, for validate and commit. All of it stays until the session has ended.
struct update_work {
    uint64_t session;       // names the session in the functions below
    const char *partition;  // that offered it
    const char *digest;     // of the manifest
    const void *manifest, *signature;
    size_t manifest_bytes, signature_bytes;
    unsigned payload;            // number of the payload in the manifest
    struct update_stage *stage;  // which holds all of it
};

// The host, as the service sees it; all are needed.
struct update_service_ops {
    uint64_t (*monotonic_ns)(void *opaque);
    uint64_t (*wall_ns)(void *opaque);                // since 1970, for expiry
    const struct update_host *(*host)(void *opaque);  // good until the next call
    // Whether a trusted key signed it: NONE, UNKNOWN_KEY, REVOKED_KEY, BAD_SIGNATURE, or HOST when
    // that cannot be said; *err set. `key_id` (17 characters) is "" until it is known.
    enum update_refusal (*verify)(void *opaque, const void *manifest, size_t manifest_bytes,
                                  const void *signature, size_t signature_bytes, char *key_id,
                                  struct error *err);
    // What the host remembers, across restarts, of the manifest with this digest: that it is being
    // committed, that it is the current version's, or that it was rolled back when this partition
    // had offered it. NULL: the last one that any of these was said of. False: nothing.
    bool (*recall)(void *opaque, const char *partition, const char *digest,
                   struct update_outcome *outcome);
    // A roll-back is not to be recalled any more.
    void (*forget)(void *opaque, const char *partition, const char *digest);

    // The store's functions of the same names.
    int (*stage_open)(void *opaque, const char *digest, unsigned payload, uint64_t bytes,
                      struct update_stage **out, struct error *err);
    uint64_t (*stage_offset)(void *opaque, const struct update_stage *stage);
    int (*stage_write)(void *opaque, struct update_stage *stage, uint64_t offset, const void *bytes,
                       size_t count, struct error *err);
    void (*stage_close)(void *opaque, struct update_stage *stage);
    int (*stage_discard)(void *opaque, const char *digest, struct error *err);

    // Begin work that ends with one of the functions below. 0, or a negative errno with *err set:
    // then it has not begun.
    // Unpacks the payload, checks digests and program, has it test itself: update_service_validated
    // or _refuse.
    int (*validate)(void *opaque, const struct update_work *work, struct error *err);
    // Makes it what runs: update_service_settled, when `recall` has the outcome, or _refuse, when
    // nothing was changed.
    int (*commit)(void *opaque, const struct update_work *work, struct error *err);
    // A session has ended: what was kept for it can be given up. Its stage is closed by now.
    void (*ended)(void *opaque, uint64_t session);

    // A record for the audit log, which stays the caller's: "event", "partition", and what is
    // known of "session" (the manifest's digest), "version", "key", "code", "refusal", "why",
    // "payload", "offset", "bytes", "session_ns", "work_ns", "agent", "suppressed" (records that
    // were left out before this one, because a guest caused too many).
    void (*audit)(void *opaque, const json_t *record);
};

struct update_service;

// `ops` outlive it. 0 or -ENOMEM.
BASE_NODISCARD int update_service_create(struct update_service **out,
                                         const struct update_service_ops *ops, void *opaque);
// Not before all channels are closed. What a session has received stays in its stage. Work that is
// under way must not be reported any more. NULL is ignored.
void update_service_destroy(struct update_service *service);
// Looks at the time-outs; to be called about once a second.
void update_service_tick(struct update_service *service);
// How work goes on. A `session` that has ended by now, or whose work is another, is ignored.
void update_service_progress(struct update_service *service, uint64_t session, const char *doing);
void update_service_validated(struct update_service *service, uint64_t session);
// The work failed: validating ends the session but for NO_SPACE, BUSY and HOST, after which it can
// be tried again; a commit can always be. `why`, a sentence, may be NULL; the guest is told it, but
// not that of HOST.
void update_service_refuse(struct update_service *service, uint64_t session,
                           enum update_refusal refusal, const char *why);
// What `recall` says of what is being committed is another now.
void update_service_settled(struct update_service *service);
// The session that is under way, as STATUS has it, with its "partition"; NULL: none is.
json_t *update_service_describe(const struct update_service *service);
// How often something was refused so, since the service was created.
uint64_t update_service_refused(const struct update_service *service, enum update_refusal refusal);

// What a partition has used of its limits. Zero-initialise; one a partition, which outlives its
// channels and, so that it is a limit, connections.
struct update_meter {
    unsigned connections;
    unsigned suppressed;                      // audit records
    uint64_t offers_ns, bytes_ns, audits_ns;  // when each will be unused again
};

struct update_channel;

struct update_channel_config {
    const char *partition;  // copied
    bool permitted;         // else all that comes is refused
    struct update_meter *meter;
    // Bytes for the guest. They are taken in any case: whoever is behind with sending them does not
    // feed the channel meanwhile.
    void (*send)(void *opaque, const void *bytes, size_t count);
    // The connection is to be closed when what was sent before is sent.
    void (*finish)(void *opaque);
    // Bytes that update_channel_receive did not take may be taken now. Not a call to feed: that is
    // done from the loop.
    void (*ready)(void *opaque);
    void *opaque;
};

// 0 or -ENOMEM; -EBUSY: the partition has so many connections that this one is not even told so.
BASE_NODISCARD int update_channel_open(struct update_channel **out, struct update_service *service,
                                       const struct update_channel_config *config);
// Takes bytes that the guest sent; returns how many. The rest is to be given again after `ready`.
BASE_NODISCARD size_t update_channel_receive(struct update_channel *channel, const void *bytes,
                                             size_t count);
// The connection has ended. NULL is ignored.
void update_channel_close(struct update_channel *channel);

#endif
