// SPDX-License-Identifier: BSD-2-Clause
// files: the parts that an interceptor of files is made of. Private to this room; docs/leverage-
// files.md says how they belong together.
#ifndef STRAKE_LEVERAGE_FILES_H
#define STRAKE_LEVERAGE_FILES_H

#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>

#include "leverage/clamd.h"
#include "leverage/interceptor.h"

// A file or folder, whatever its name is by now; for open_by_handle_at(2).
#define FILES_HANDLE_BYTES 128u  // MAX_HANDLE_SZ

union files_handle {
    struct file_handle head;
    uint8_t room[sizeof(struct file_handle) + FILES_HANDLE_BYTES];
};
// That of `name` in the folder `at`, or of `at` itself for ""; no link is followed. `mount` is the
// number of the mount that it is in. Returns 0, or -1 with errno.
int files_handle_take(union files_handle *handle, int at, const char *name, int *mount);

// ---- files_marks.c: what the kernel holds for us ------------------------------------------------
//
// Two fanotify groups: `perm` has the opens that wait for an answer, `watch` what becomes of
// folders. Marks belong to a group, and stay for as long as anybody has its descriptor.

struct files_marks {
    char *path;  // as the kernel shows it: no links, no "." in it
    int root;    // the folder
    int mount;   // the number of the mount that it is in
    int perm, watch;
    bool whole;          // the path is a file system's root, and all of that is marked
    atomic_bool ending;  // nothing more is marked: -ECANCELED
};

// `path` is one that can be held: a folder, which does not contain what this process needs to
// start again. Makes the groups; nothing is marked yet.
BASE_NODISCARD int files_marks_open(struct files_marks *marks, const char *path, struct error *err);
// Goes on with those of a former process: `root`, `perm` and `watch` are there. On failure all are
// closed.
BASE_NODISCARD int files_marks_adopt(struct files_marks *marks, struct error *err);
void files_marks_close(struct files_marks *marks);
// Marks all folders below the path that are not.
BASE_NODISCARD int files_marks_set(struct files_marks *marks, struct error *err);
// Follows what happened to folders since.
void files_marks_follow(struct files_marks *marks);
// Whether a folder is the path, or below it.
bool files_marks_contain(const struct files_marks *marks, int folder);
// Takes all marks away; opens that wait go on waiting for their answer.
void files_marks_clear(struct files_marks *marks);

// ---- files_table.c: opens that wait, in memory that outlives the process ------------------------
//
// By the number of the event's descriptor, which is what an answer is for. Each entry is written
// by one thread at a time.

#define FILES_NUMBERS 16384u  // of descriptors, and so of opens that wait

struct files_table;
// In `fd`, a memfd that may be new. The descriptor stays the caller's.
BASE_NODISCARD int files_table_map(struct files_table **out, int fd);
void files_table_unmap(struct files_table *table);  // NULL is ignored
// `file` is open at `number`.
void files_table_put(struct files_table *table, int number, int file, pid_t pid);
void files_table_drop(struct files_table *table, int number);
// The process behind an entry, and its file, opened anew; 0: there is no such entry. *file is a
// negative errno when it cannot be opened.
pid_t files_table_get(struct files_table *table, int number, int root, int *file);
// Who answers, and the supervisor, whose opens are always allowed.
void files_table_set_owner(struct files_table *table, pid_t pid, pid_t supervisor);
pid_t files_table_owner(struct files_table *table);
pid_t files_table_supervisor(struct files_table *table);
// Whether the supervisor keeps the groups, so that there will be a successor.
void files_table_set_kept(struct files_table *table);
bool files_table_kept(struct files_table *table);

// Answers the open that waits at `number`. False: there is none.
bool files_answer(int perm, int number, bool allow);

// ---- files_guard.c: answers when the worker has died and nobody comes ---------------------------

// What a successor needs.
enum files_kept { FILES_PERM, FILES_WATCH, FILES_ROOT, FILES_TABLE, FILES_KEPT };

// A process of its own, for the one that calls this; see there. At the socket `path` (NULL: none)
// it is found when the supervisor has died as well. Returns its pidfd, or a negative errno.
BASE_NODISCARD int files_guard_start(const int kept[FILES_KEPT], const char *path, bool allow);
void files_guard_end(int pidfd);  // and closes it
// Gets what a former process's guard keeps at `path`. False: there is none.
bool files_guard_ask(const char *path, int kept[FILES_KEPT]);

// ---- files_cache.c: files that were found clean -------------------------------------------------
//
// Not locked: the caller does.

// What a file was like when it was looked at: another content has another stamp, but for writers
// that are still there (files_has_writer).
struct files_stamp {
    dev_t device;
    ino_t inode;
    off_t bytes;
    struct timespec changed, modified;
    bool steady;  // old enough that a change would show
};
// `now` is of CLOCK_REALTIME, taken before.
void files_stamp_take(struct files_stamp *stamp, const struct stat *stat,
                      const struct timespec *now);
bool files_stamp_equal(const struct files_stamp *a, const struct files_stamp *b);
// Whether anybody has the file open, or mapped, for writing; true also where that cannot be known.
bool files_has_writer(int file);

struct files_cache;
struct files_cache *files_cache_create(void);  // NULL: no memory
void files_cache_destroy(struct files_cache *cache);
void files_cache_put(struct files_cache *cache, const struct files_stamp *stamp);
bool files_cache_has(const struct files_cache *cache, const struct files_stamp *stamp);
void files_cache_drop(struct files_cache *cache, const struct files_stamp *stamp);
void files_cache_clear(struct files_cache *cache);

// ---- files_quarantine.c -------------------------------------------------------------------------

struct files_finding {
    char path[PATH_MAX];
    char signature[CLAMD_SIGNATURE_BYTES];
    char program[32];
    pid_t pid;
    uid_t uid;
    uint64_t at_ns;              // CLOCK_REALTIME
    char kept_as[NAME_MAX + 1];  // in the quarantine; empty: it was not moved
    char problem[160];           // why not
};

// What is to be said of a file and of the process that opens it.
void files_finding_init(struct files_finding *finding, int file, pid_t pid, const char *signature);
// Opens the folder, making it when there is none; not below `marks`' path.
BASE_NODISCARD int files_quarantine_open(const char *path, const struct files_marks *marks,
                                         struct error *err);
// Moves the file there, with what is known of it beside it. Sets kept_as, or problem.
void files_quarantine_move(int folder, const struct files_marks *marks, int file,
                           struct files_finding *finding);
json_t *files_finding_to_json(const struct files_finding *finding);  // NULL: no memory

// ---- files_gate.c: opens, held until there is a verdict -----------------------------------------

// What a scan came to. FILES_UNKNOWN: nobody can say; FILES_LATE: not in time.
enum files_verdict { FILES_CLEAN, FILES_INFECTED, FILES_TOO_LARGE, FILES_UNKNOWN, FILES_LATE };

struct files_gate_options {
    const struct files_marks *marks;
    struct files_table *table;
    struct interceptor_counters *counters;
    unsigned time_limit_ms, threads;
    uint64_t size_limit_bytes;
    bool fail_open, observe;
    // Called by the gate's threads. `scan` says what a file is, at the latest at the deadline;
    // `infected` is told of what was found before anybody is answered.
    enum files_verdict (*scan)(void *opaque, unsigned thread, int file, uint64_t deadline_ns,
                               char signature[CLAMD_SIGNATURE_BYTES]);
    void (*infected)(void *opaque, int file, pid_t pid, const char *signature);
    void *opaque;
};

struct files_gate_counts {
    _Atomic uint64_t scanned, cached, infected, too_large, own, again;
};

struct files_gate;
// Begins to answer; what a former process has left first. `options` is copied.
BASE_NODISCARD int files_gate_create(struct files_gate **out,
                                     const struct files_gate_options *options, struct error *err);
// Whether nobody can scan; then opens are answered at once, as `fail_open` says. At first it is not
// known, and opens wait.
void files_gate_set_down(struct files_gate *gate, bool down);
// What was found clean has to be scanned again.
void files_gate_forget(struct files_gate *gate);
const struct files_gate_counts *files_gate_counts(const struct files_gate *gate);
unsigned files_gate_waiting(struct files_gate *gate);
// Answers all that wait, and ends.
void files_gate_destroy(struct files_gate *gate);

#endif
