// SPDX-License-Identifier: BSD-2-Clause
// The audit log: history.jsonl, and history.1.jsonl (newer) to history.4.jsonl (older), which were
// put aside when they had their size. Of what leaves by that, records that say how the host changed
// stay in history.kept.jsonl: a guest that offers and withdraws all day, which it may, cannot make
// them go.
//
// A line goes out as one write at the end, and is synced. What a crash leaves of one (part of it,
// or bytes that nobody wrote) is ended by a line feed before the next, so that it spoils no other;
// nothing that was there is ever changed.
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "update/internal.h"

#define LOG_NAME "history.jsonl"
#define KEPT_NAME "history.kept.jsonl"
#define LEAVING (UPDATE_AUDIT_FILES + 1)     // the age of the log that leaves
#define READ_BYTES_MAX (UINT64_C(16) << 20)  // of one file; more than that is not ours

static void log_path(char path[PATH_BYTES], unsigned age)
{
    if (age == 0)
        snprintf(path, PATH_BYTES, LOG_NAME);
    else
        snprintf(path, PATH_BYTES, "history.%u.jsonl", age);
}

// ---- Lines --------------------------------------------------------------------------------------

struct text {
    char *bytes;
    size_t count;
};

// One of the log's files; empty where there is none.
static int read_text(struct update_store *store, const char *path, struct text *text)
{
    *text = (struct text){NULL, 0};
    int rc = files_read(&store->files, path, READ_BYTES_MAX, &text->bytes, &text->count);
    return rc == -ENOENT ? 0 : rc;
}

static size_t line_length(const struct text *text, size_t at)
{
    const char *feed = memchr(text->bytes + at, '\n', text->count - at);
    return feed ? (size_t)(feed + 1 - text->bytes) - at : text->count - at;
}

// The record in a line; NULL for one that is none, as those are that were torn.
static json_t *parse_line(const char *line, size_t length)
{
    json_t *record = json_loadb(line, length, JSON_REJECT_DUPLICATES, NULL);
    if (json_is_object(record))
        return record;
    json_decref(record);
    return NULL;
}

// ---- What stays ---------------------------------------------------------------------------------

static bool lasts(const char *line, size_t length)
{
    static const char *const events[] = {"installed", "pending",    "confirmed",
                                         "pruned",    "committing", "rolled-back",
                                         "committed", "repaired",   "rollback"};
    json_t *record = parse_line(line, length);
    const char *event = json_string_value(json_object_get(record, "event"));
    bool found = false;
    for (size_t i = 0; event && i < BASE_COUNT_OF(events); i++)
        found |= strcmp(event, events[i]) == 0;
    json_decref(record);
    return found;
}

static void drop_others(struct text *text)
{
    size_t left = 0, length;
    for (size_t at = 0; at < text->count; at += length) {
        length = line_length(text, at);
        if (!lasts(text->bytes + at, length))
            continue;
        memmove(text->bytes + left, text->bytes + at, length);
        left += length;
    }
    text->count = left;
}

static bool ends_in(const struct text *text, const struct text *end)
{
    return text->count >= end->count &&
           (!end->count ||
            memcmp(text->bytes + text->count - end->count, end->bytes, end->count) == 0);
}

// As a whole, without the oldest lines when it is more than a log may have.
static int append_kept(struct update_store *store, const struct text *kept, const struct text *more)
{
    struct text all = {malloc(kept->count + more->count), kept->count + more->count};
    size_t from = 0;
    if (!all.bytes)
        return -ENOMEM;
    if (kept->count)
        memcpy(all.bytes, kept->bytes, kept->count);
    memcpy(all.bytes + kept->count, more->bytes, more->count);
    while (all.count - from > store->audit_bytes)
        from += line_length(&all, from);
    int rc = files_replace(&store->files, KEPT_NAME, all.bytes + from, all.count - from);
    free(all.bytes);
    return rc;
}

static int keep_lasting(struct update_store *store, const char *path)
{
    struct text leaving, kept = {NULL, 0};
    int rc = read_text(store, path, &leaving);
    if (rc < 0)
        return rc;
    drop_others(&leaving);
    rc = read_text(store, KEPT_NAME, &kept);
    // A crash may have come when they had been kept, and before the log was removed.
    if (rc == 0 && !ends_in(&kept, &leaving))
        rc = append_kept(store, &kept, &leaving);
    free(leaving.bytes);
    free(kept.bytes);
    return rc;
}

// What lasts of the log that leaves is kept, and it is removed.
static int let_leave(struct update_store *store)
{
    struct update_file_look look;
    char path[PATH_BYTES];
    log_path(path, LEAVING);
    if (store->files.look(store->files.opaque, path, &look) == -ENOENT)
        return 0;
    int rc = keep_lasting(store, path);
    if (rc == 0)
        rc = files_remove(&store->files, path);
    return rc == 0 ? store->files.sync_folder(store->files.opaque, "") : rc;
}

// ---- Writing ------------------------------------------------------------------------------------

// The oldest leaves, and is replaced by the one after it, and so on. Each step is on the disk
// before the next: else a crash could keep a later one only, which overwrites what the earlier one
// was to save. That what lasts could not be kept stops no record.
static int put_aside(struct update_store *store)
{
    const struct update_files *files = &store->files;
    char from[PATH_BYTES], to[PATH_BYTES];
    (void)!let_leave(store);
    for (unsigned age = LEAVING; age > 0; age--) {
        log_path(from, age - 1);
        log_path(to, age);
        int rc = files->rename(files->opaque, from, to);
        if (rc == 0)
            rc = files->sync_folder(files->opaque, "");
        if (rc < 0 && rc != -ENOENT)
            return rc;
    }
    (void)!let_leave(store);
    return 0;
}

// The log, open for appending at *end; `torn` when its last line is.
static int open_log(const struct update_files *files, uint64_t *end, bool *torn)
{
    struct update_file_look look;
    char last = '\n';
    int rc = files->look(files->opaque, LOG_NAME, &look);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    if (rc == 0 && (look.kind != UPDATE_FILE || look.others_write))
        return -EPERM;
    *end = rc == 0 ? look.bytes : 0;
    int fd = files->open(files->opaque, LOG_NAME, O_RDWR | O_CREAT, 0600);
    int64_t n = fd >= 0 && *end ? files->read(files->opaque, fd, &last, 1, *end - 1) : 0;
    if (fd >= 0 && n < 0) {
        files->close(files->opaque, fd);
        return (int)n;
    }
    *torn = last != '\n';
    return fd;
}

// What could not be written whole is taken back, if that can be.
static int append_at(const struct update_files *files, int fd, uint64_t end, const char *text,
                     size_t count)
{
    int64_t n = files->write(files->opaque, fd, text, count, end);
    if (n == (int64_t)count)
        return files->sync(files->opaque, fd);
    (void)!files->truncate(files->opaque, fd, end);
    return n < 0 ? (int)n : -ENOSPC;
}

// `text` has room for a line feed before it. "": only closes a torn line.
static int append(struct update_store *store, char *text, size_t count)
{
    const struct update_files *files = &store->files;
    uint64_t end;
    bool torn;
    int fd = open_log(files, &end, &torn);
    if (fd >= 0 && end && end + count > store->audit_bytes) {
        files->close(files->opaque, fd);
        int rc = put_aside(store);
        fd = rc < 0 ? rc : open_log(files, &end, &torn);
    }
    if (fd < 0)
        return fd;
    text[-1] = '\n';
    int rc = torn || count ? append_at(files, fd, end, text - torn, count + torn) : 0;
    files->close(files->opaque, fd);
    return rc == 0 && end == 0 ? files->sync_folder(files->opaque, "") : rc;
}

int audit_open(struct update_store *store)
{
    char closing[1];
    int rc = append(store, closing + 1, 0);
    return rc == 0 ? let_leave(store) : rc;
}

static json_t *with_time(const json_t *record, uint64_t now_ns)
{
    char text[64];
    struct tm parts;
    time_t seconds = (time_t)(now_ns / 1000000000u);
    gmtime_r(&seconds, &parts);
    size_t used = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &parts);
    snprintf(text + used, sizeof(text) - used, ".%09uZ", (unsigned)(now_ns % 1000000000u));
    json_t *line = json_pack("{s:s}", "time", text);
    if (line && json_object_update_missing(line, (json_t *)record) == 0)
        return line;
    json_decref(line);
    return NULL;
}

int update_store_audit(struct update_store *store, const json_t *record, struct error *err)
{
    char text[1 + UPDATE_AUDIT_LINE_BYTES_MAX];
    json_t *line = with_time(record, store->now_ns());
    size_t count = json_dumpb(line, text + 1, UPDATE_AUDIT_LINE_BYTES_MAX, JSON_COMPACT);
    json_decref(line);
    int rc = !count ? -EINVAL : count >= UPDATE_AUDIT_LINE_BYTES_MAX ? -E2BIG : 0;
    if (rc == 0) {
        text[1 + count] = '\n';
        pthread_mutex_lock(&store->audit_lock);
        rc = append(store, text + 1, count + 1);
        pthread_mutex_unlock(&store->audit_lock);
    }
    return rc < 0 ? error_set_errno(err, rc, "cannot write to \"%s/" LOG_NAME "\"", store->folder)
                  : 0;
}

void audit_note(struct update_store *store, json_t *record)
{
    struct error err = {0};
    if (update_store_audit(store, record, &err) < 0)
        log_line(LOG_WARN, "%s", err.message);
    json_decref(record);
}

// ---- Reading ------------------------------------------------------------------------------------

static int add_records(struct update_store *store, const char *path, json_t *records)
{
    struct text text;
    size_t length;
    int rc = read_text(store, path, &text);
    for (size_t at = 0; rc == 0 && at < text.count; at += length) {
        length = line_length(&text, at);
        json_t *record = parse_line(text.bytes + at, length);
        if (record && json_array_append_new(records, record) < 0)
            rc = -ENOMEM;
    }
    free(text.bytes);
    return rc;
}

json_t *update_store_history(struct update_store *store, size_t count, struct error *err)
{
    char path[PATH_BYTES];
    json_t *records = json_array();
    pthread_mutex_lock(&store->audit_lock);
    int rc = records ? add_records(store, KEPT_NAME, records) : -ENOMEM;
    for (unsigned age = LEAVING + 1; rc == 0 && age-- > 0;) {
        log_path(path, age);
        rc = add_records(store, path, records);
    }
    pthread_mutex_unlock(&store->audit_lock);
    if (rc < 0) {
        json_decref(records);
        error_set_errno(err, rc, "cannot read the audit log of \"%s\"", store->folder);
        return NULL;
    }
    json_t *newest = json_array();
    size_t all = json_array_size(records);
    for (size_t i = all > count ? all - count : 0; i < all; i++)
        json_array_append(newest, json_array_get(records, i));
    json_decref(records);
    return newest;
}
