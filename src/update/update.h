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
// Threads: one at a time. One process at a time: a store is locked while it is open.

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
// size and digest are the manifest's. A whole slot with the same manifest is left as it is.
// -EINVAL: the manifest lacks one of these; -EBADMSG: this is not the program of the manifest;
// -EEXIST: another build of this version is current, previous or pending.
BASE_NODISCARD int update_store_install(struct update_store *store, int program_fd,
                                        const void *manifest, size_t manifest_bytes,
                                        const void *signature, size_t signature_bytes,
                                        struct error *err);

// Makes a version current until it is confirmed or rolled back; `session` names the session it came
// by in the state and in the audit log ("": none). -ENOENT: no whole slot; -EBUSY: another version
// is pending; -EALREADY: it is current.
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
void update_stage_close(struct update_stage *stage);  // what is there stays; NULL is ignored

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

#endif
