// SPDX-License-Identifier: BSD-2-Clause
// Payloads on their way: staging/DIGEST/{payload,stage.json}.
//
// stage.json says which payload it is, how large, and how much of it is on the disk for sure: it is
// replaced after the payload was synced. What the payload's file has beyond that after a crash may
// be anything, and is cut off.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "update/internal.h"

#define STAGE_RECORD_BYTES_MAX 4096u
#define ROOM_BYTES_LEFT (UINT64_C(1) << 20)  // for everything else that is on the disk

struct update_stage {
    struct update_store *store;
    char digest[UPDATE_DIGEST_BYTES];
    unsigned payload;
    uint64_t bytes, offset, synced;
    int fd;
};

static void stage_path(char path[PATH_BYTES], const char *digest, const char *file)
{
    snprintf(path, PATH_BYTES, "staging/%.*s%s", (int)UPDATE_DIGEST_BYTES, digest, file);
}

// ---- The record ---------------------------------------------------------------------------------

struct record {
    unsigned payload;
    uint64_t bytes, offset;
};

static int parse_record(struct record *record, const char *text, size_t count)
{
    json_int_t payload, bytes, offset;
    json_t *object = json_loadb(text, count, JSON_REJECT_DUPLICATES, NULL);
    int rc = json_unpack(object, "{s:I,s:I,s:I}", "payload", &payload, "bytes", &bytes, "offset",
                         &offset);
    json_decref(object);
    if (rc < 0 || payload < 0 || payload > INT16_MAX || bytes <= 0 || offset < 0 || offset > bytes)
        return -EINVAL;
    *record = (struct record){(unsigned)payload, (uint64_t)bytes, (uint64_t)offset};
    return 0;
}

// -EINVAL: also when the payload is not as the record says.
static int read_record(struct update_store *store, const char *digest, struct record *record)
{
    const struct update_files *files = &store->files;
    struct update_file_look look;
    char path[PATH_BYTES];
    char *text;
    size_t count;
    stage_path(path, digest, "/stage.json");
    int rc = files_read(files, path, STAGE_RECORD_BYTES_MAX, &text, &count);
    if (rc < 0)
        return rc;
    rc = parse_record(record, text, count);
    free(text);
    stage_path(path, digest, "/payload");
    if (rc == 0)
        rc = files->look(files->opaque, path, &look);
    if (rc < 0)
        return rc;
    return look.kind != UPDATE_FILE || look.others_write || look.bytes < record->offset ? -EINVAL
                                                                                        : 0;
}

static int write_record(struct update_stage *stage, uint64_t offset)
{
    char path[PATH_BYTES], text[128];
    stage_path(path, stage->digest, "/stage.json");
    int count =
        snprintf(text, sizeof(text), "{\"payload\":%u,\"bytes\":%llu,\"offset\":%llu}\n",
                 stage->payload, (unsigned long long)stage->bytes, (unsigned long long)offset);
    return files_replace(&stage->store->files, path, text, (size_t)count);
}

int update_store_stage_find(struct update_store *store, const char *digest, unsigned *payload,
                            uint64_t *offset)
{
    struct record record;
    if (!digest_is_good(digest) || read_record(store, digest, &record) < 0)
        return -ENOENT;
    *payload = record.payload;
    *offset = record.offset;
    return 0;
}

// ---- Room ---------------------------------------------------------------------------------------

struct survey {
    struct update_store *store;
    const char *but;  // the digest that is not counted
    uint64_t bytes;
    int64_t oldest_ns;
    char oldest[UPDATE_DIGEST_BYTES];
};

static int survey_stage(void *opaque, const char *name)
{
    struct survey *survey = opaque;
    const struct update_files *files = &survey->store->files;
    struct update_file_look look;
    struct record record;
    char path[PATH_BYTES];
    if (!digest_is_good(name) || strcmp(name, survey->but) == 0 ||
        read_record(survey->store, name, &record) < 0)
        return 0;
    stage_path(path, name, "/payload");
    int rc = files->look(files->opaque, path, &look);
    if (rc < 0)
        return rc;
    survey->bytes += record.bytes;
    if (!*survey->oldest || look.changed_ns < survey->oldest_ns) {
        survey->oldest_ns = look.changed_ns;
        memcpy(survey->oldest, name, sizeof(survey->oldest));
    }
    return 0;
}

static int discard(struct update_store *store, const char *digest)
{
    char path[PATH_BYTES];
    stage_path(path, digest, "");
    int rc = files_remove(&store->files, path);
    return rc == 0 ? files_sync_parent(&store->files, path) : rc;
}

// Room for `bytes`, of which `more` are still to come, at the cost of the oldest other stages.
static int make_room(struct update_store *store, const char *digest, uint64_t bytes, uint64_t more)
{
    if (bytes > store->quota_bytes)
        return -EDQUOT;
    for (;;) {
        struct survey survey = {.store = store, .but = digest};
        int rc = store->files.list(store->files.opaque, "staging", survey_stage, &survey);
        int64_t room = store->files.room_bytes(store->files.opaque);
        if (rc < 0 || room < 0)
            return rc < 0 ? rc : (int)room;
        bool fits = (uint64_t)room >= ROOM_BYTES_LEFT && (uint64_t)room - ROOM_BYTES_LEFT >= more;
        if (fits && survey.bytes <= store->quota_bytes - bytes)
            return 0;
        if (!*survey.oldest)
            return -ENOSPC;
        rc = discard(store, survey.oldest);
        if (rc < 0)
            return rc;
    }
}

// ---- Opening ------------------------------------------------------------------------

static int open_payload(struct update_stage *stage, int flags)
{
    const struct update_files *files = &stage->store->files;
    char path[PATH_BYTES];
    stage_path(path, stage->digest, "/payload");
    stage->fd = files->open(files->opaque, path, O_RDWR | flags, 0600);
    return stage->fd < 0 ? stage->fd : 0;
}

static int begin_stage(struct update_stage *stage)
{
    const struct update_files *files = &stage->store->files;
    char path[PATH_BYTES];
    stage_path(path, stage->digest, "");
    int rc = files_remove(files, path);
    if (rc == 0)
        rc = files->make_folder(files->opaque, path);
    if (rc == 0)
        rc = open_payload(stage, O_CREAT | O_EXCL);
    if (rc == 0)
        rc = write_record(stage, 0);
    return rc == 0 ? files_sync_parent(files, path) : rc;
}

static int resume_stage(struct update_stage *stage, uint64_t offset)
{
    const struct update_files *files = &stage->store->files;
    int rc = open_payload(stage, 0);
    if (rc == 0)
        rc = files->truncate(files->opaque, stage->fd, offset);
    stage->offset = stage->synced = offset;
    return rc;
}

static int open_stage(struct update_stage *stage)
{
    struct record record = {0};
    bool resumes = read_record(stage->store, stage->digest, &record) == 0 &&
                   record.payload == stage->payload && record.bytes == stage->bytes;
    int rc = make_room(stage->store, stage->digest, stage->bytes,
                       stage->bytes - (resumes ? record.offset : 0));
    if (rc == 0)
        rc = resumes ? resume_stage(stage, record.offset) : begin_stage(stage);
    if (rc < 0 && !resumes)
        (void)!discard(stage->store, stage->digest);
    return rc;
}

int update_store_stage_open(struct update_store *store, const char *digest, unsigned payload,
                            uint64_t bytes, struct update_stage **out, struct error *err)
{
    int rc = store->stage ? -EBUSY : digest_is_good(digest) && bytes ? 0 : -EINVAL;
    struct update_stage *stage = rc == 0 ? calloc(1, sizeof(*stage)) : NULL;
    if (stage) {
        *stage =
            (struct update_stage){.store = store, .payload = payload, .bytes = bytes, .fd = -1};
        memcpy(stage->digest, digest, sizeof(stage->digest));
        store->stage = stage;
        rc = open_stage(stage);
    } else if (rc == 0) {
        rc = -ENOMEM;
    }
    if (rc == 0) {
        *out = stage;
        return 0;
    }
    update_stage_close(stage);
    if (rc == -EBUSY)
        return error_set(err, rc, "cannot stage a payload: another one is being staged");
    if (rc == -EDQUOT)
        return error_set(err, rc, "cannot stage a payload of %llu bytes: the limit is %llu",
                         (unsigned long long)bytes, (unsigned long long)store->quota_bytes);
    return error_set_errno(err, rc, "cannot stage a payload of %llu bytes in \"%s\"",
                           (unsigned long long)bytes, store->folder);
}

int update_store_stage_discard(struct update_store *store, const char *digest, struct error *err)
{
    int rc = !digest_is_good(digest)                                     ? -EINVAL
             : store->stage && strcmp(store->stage->digest, digest) == 0 ? -EBUSY
                                                                         : 0;
    if (rc == 0)
        rc = discard(store, digest);
    return rc < 0
               ? error_set_errno(err, rc, "cannot remove what was staged in \"%s\"", store->folder)
               : 0;
}

// ---- Content ------------------------------------------------------------------------------------

uint64_t update_stage_offset(const struct update_stage *stage)
{
    return stage->offset;
}

int update_stage_fd(const struct update_stage *stage)
{
    return stage->fd;
}

int update_stage_sync(struct update_stage *stage, struct error *err)
{
    const struct update_files *files = &stage->store->files;
    if (stage->synced == stage->offset)
        return 0;
    int rc = files->sync(files->opaque, stage->fd);
    if (rc == 0)
        rc = write_record(stage, stage->offset);
    if (rc < 0)
        return error_set_errno(err, rc, "cannot keep what was staged in \"%s\"",
                               stage->store->folder);
    stage->synced = stage->offset;
    return 0;
}

int update_stage_write(struct update_stage *stage, uint64_t offset, const void *bytes, size_t count,
                       struct error *err)
{
    const struct update_files *files = &stage->store->files;
    if (offset != stage->offset)
        return error_set(err, -ESPIPE, "bytes at %llu are out of order: %llu is next",
                         (unsigned long long)offset, (unsigned long long)stage->offset);
    if (count > stage->bytes - offset)
        return error_set(err, -EFBIG, "the payload has more than its %llu bytes",
                         (unsigned long long)stage->bytes);
    int64_t n = files->write(files->opaque, stage->fd, bytes, count, offset);
    if (n > 0)
        stage->offset += (uint64_t)n;
    if (n < (int64_t)count)
        return error_set_errno(err, n < 0 ? (int)n : -ENOSPC, "cannot stage a payload in \"%s\"",
                               stage->store->folder);
    if (stage->offset < stage->bytes && stage->offset - stage->synced < UPDATE_STAGE_SYNC_BYTES)
        return 0;
    return update_stage_sync(stage, err);
}

void update_stage_close(struct update_stage *stage)
{
    if (!stage)
        return;
    (void)!update_stage_sync(stage, NULL);  // else some of it has to be sent again
    if (stage->fd >= 0)
        stage->store->files.close(stage->store->files.opaque, stage->fd);
    stage->store->stage = NULL;
    free(stage);
}

// ---- All of them --------------------------------------------------------------------------------

struct cleaning {
    struct update_store *store;
    bool all;
};

static int clean_entry(void *opaque, const char *name)
{
    const struct cleaning *cleaning = opaque;
    struct update_store *store = cleaning->store;
    struct record record;
    char path[PATH_BYTES];
    if (store->stage && strcmp(store->stage->digest, name) == 0)
        return 0;
    if (!cleaning->all && digest_is_good(name) && read_record(store, name, &record) == 0)
        return 0;
    if (snprintf(path, sizeof(path), "staging/%s", name) >= (int)sizeof(path))
        return -ENAMETOOLONG;
    return files_remove(&store->files, path);
}

static int clean(struct update_store *store, bool all)
{
    struct cleaning cleaning = {store, all};
    return store->files.list(store->files.opaque, "staging", clean_entry, &cleaning);
}

int stages_tidy(struct update_store *store)
{
    return clean(store, false);
}

int stages_discard(struct update_store *store)
{
    return clean(store, true);
}
