// SPDX-License-Identifier: BSD-2-Clause
// What the files of the store need of each other.
#ifndef STRAKE_UPDATE_INTERNAL_H
#define STRAKE_UPDATE_INTERNAL_H

#include <pthread.h>

#include "package/package.h"
#include "update/update.h"

#define PATH_BYTES 256u  // the longest path in the store: staging/DIGEST/stage.json.new

struct update_store {
    struct update_files files;
    char *folder;  // for messages
    uint64_t quota_bytes, audit_bytes;
    uint64_t (*now_ns)(void);
    pthread_mutex_t audit_lock;
    struct update_state state;
    struct update_stage *stage;  // the open one, or NULL
};

// ---- files.c

// The host's table, for a folder that is made if need be, is safe, and is locked from now on.
int files_host(struct update_files *files, const char *folder, struct error *err);
// The host's read and write, for descriptors that are no store's.
extern const struct update_files files_plain;

// A new file in place of whatever has the path; on the disk when it returns, though maybe not yet
// in its folder.
int files_write(const struct update_files *files, const char *path, const void *bytes, size_t count,
                unsigned mode);
// As a whole: after a crash it is what was there or what is there now. On the disk with its folder.
int files_replace(const struct update_files *files, const char *path, const void *bytes,
                  size_t count);
// All of a file of ours, with a NUL behind it; the caller's to free(). -EFBIG: more than `max`;
// -EPERM: others may write to it; -EINVAL: no regular file.
int files_read(const struct update_files *files, const char *path, size_t max, char **bytes,
               size_t *count);
// Whether it is a folder of ours: 0, -ENOTDIR, or -EPERM where others may write to it.
int files_look_at_folder(const struct update_files *files, const char *path);
// Such a folder is there afterwards.
int files_make_folder(const struct update_files *files, const char *path);
// Whatever has the path, with all in it. Nothing having it is no error.
int files_remove(const struct update_files *files, const char *path);
int files_sync_parent(const struct update_files *files, const char *path);

// ---- slot.c

// Whether a version can be started: the installed one, or one with a whole slot. 1, 0, or what kept
// us from finding out.
int slot_is_usable(struct update_store *store, const char *version);
// Removes what making or removing a slot left halfway.
int slots_tidy(struct update_store *store);
int slot_remove(struct update_store *store, const char *version);
bool digest_is_good(const char *digest);

// ---- stage.c

// Removes what is no stage; and all of them but the open one.
int stages_tidy(struct update_store *store);
int stages_discard(struct update_store *store);

// ---- audit.c

// Closes a torn line.
int audit_open(struct update_store *store);
// Appends a record of our own, which is taken over. The log is not what a version's life hangs on:
// a failure is logged only.
void audit_note(struct update_store *store, json_t *record);

#endif
