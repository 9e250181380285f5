// SPDX-License-Identifier: BSD-2-Clause
// The audit log: history.jsonl, and history.1.jsonl (newer) to history.4.jsonl (older), which were
// put aside when they had their size.
//
// A line goes out as one write at the end, and is synced. What a crash leaves of one (part of it,
// or bytes that nobody wrote) is ended by a line feed before the next, so that it spoils no other;
// nothing that was there is ever changed.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "update/internal.h"

#define LOG_NAME "history.jsonl"
#define READ_BYTES_MAX (UINT64_C(16) << 20)  // of one file; more than that is not ours

static void log_path(char path[PATH_BYTES], unsigned age)
{
    if (age == 0)
        snprintf(path, PATH_BYTES, LOG_NAME);
    else
        snprintf(path, PATH_BYTES, "history.%u.jsonl", age);
}

// ---- Writing ------------------------------------------------------------------------------------

// The oldest is replaced by the one after it, and so on. Each step is on the disk before the next:
// else a crash could keep a later one only, which overwrites what the earlier one was to save.
static int put_aside(const struct update_files *files)
{
    char from[PATH_BYTES], to[PATH_BYTES];
    for (unsigned age = UPDATE_AUDIT_FILES; age > 0; age--) {
        log_path(from, age - 1);
        log_path(to, age);
        int rc = files->rename(files->opaque, from, to);
        if (rc == 0)
            rc = files->sync_folder(files->opaque, "");
        if (rc < 0 && rc != -ENOENT)
            return rc;
    }
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
        int rc = put_aside(files);
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
    return append(store, closing + 1, 0);
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
        rc = append(store, text + 1, count + 1);
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

// Lines that are no record, those that were torn, are passed over.
static int add_records(json_t *records, const char *text, size_t count)
{
    const char *end = text + count;
    while (text < end) {
        const char *feed = memchr(text, '\n', (size_t)(end - text));
        size_t length = (size_t)((feed ? feed : end) - text);
        json_t *record = json_loadb(text, length, JSON_REJECT_DUPLICATES, NULL);
        if (json_is_object(record) && json_array_append(records, record) < 0) {
            json_decref(record);
            return -ENOMEM;
        }
        json_decref(record);
        text += length + 1;
    }
    return 0;
}

static int read_records(struct update_store *store, json_t *records, unsigned age)
{
    char path[PATH_BYTES];
    char *text;
    size_t count;
    log_path(path, age);
    int rc = files_read(&store->files, path, READ_BYTES_MAX, &text, &count);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    rc = add_records(records, text, count);
    free(text);
    return rc;
}

json_t *update_store_history(struct update_store *store, size_t count, struct error *err)
{
    json_t *records = json_array();
    int rc = records ? 0 : -ENOMEM;
    for (unsigned age = UPDATE_AUDIT_FILES + 1; rc == 0 && age-- > 0;)
        rc = read_records(store, records, age);
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
