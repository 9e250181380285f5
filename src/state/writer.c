// SPDX-License-Identifier: BSD-2-Clause
// Saving: one buffer that grows, written front to back.
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "state/format.h"

#define FIRST_BYTES 65536u

struct state_writer {
    uint8_t *bytes;
    size_t used, room;
    int *fds;
    size_t fd_count, fd_room;
    bool with_fds;
    uint32_t section_count;
    const struct state_reader *like;  // whose versions are followed; NULL: the newest
    int status;                       // the first error; nothing is added after it
};

int state_writer_create(struct state_writer **out, bool with_fds)
{
    struct state_writer *writer = calloc(1, sizeof(*writer));

    if (!writer)
        return -ENOMEM;
    *writer = (struct state_writer){.bytes = malloc(FIRST_BYTES),
                                    .used = STATE_HEAD_BYTES,
                                    .room = FIRST_BYTES,
                                    .with_fds = with_fds};
    if (!writer->bytes) {
        free(writer);
        return -ENOMEM;
    }
    *out = writer;
    return 0;
}

void state_writer_destroy(struct state_writer *writer)
{
    if (!writer)
        return;
    free(writer->bytes);
    free(writer->fds);
    free(writer);
}

void state_writer_follow(struct state_writer *writer, const struct state_reader *reader)
{
    writer->like = reader;
}

// Room for `count` bytes at the end, or NULL. Valid until the next call.
static uint8_t *extend(struct state_writer *writer, size_t count)
{
    if (count > writer->room - writer->used) {
        size_t room =
            2 * writer->room > writer->used + count ? 2 * writer->room : writer->used + count;
        uint8_t *bytes = writer->status ? NULL : realloc(writer->bytes, room);
        if (!bytes) {
            writer->status = -ENOMEM;
            return NULL;
        }
        writer->bytes = bytes;
        writer->room = room;
    }
    uint8_t *at = writer->bytes + writer->used;
    writer->used += count;
    return at;
}

static void put(struct state_writer *writer, uint64_t value, size_t width_bytes)
{
    uint8_t *at = extend(writer, width_bytes);

    if (at)
        state_put(at, value, width_bytes);
}

static void put_bytes(struct state_writer *writer, const void *bytes, size_t count)
{
    uint8_t *at = count ? extend(writer, count) : NULL;

    if (at)
        memcpy(at, bytes, count);
}

// A number that is known only later; `at` is where it was left out. Nothing when out of memory.
static void patch(struct state_writer *writer, size_t at, uint64_t value, size_t width_bytes)
{
    if (!writer->status)
        state_put(writer->bytes + at, value, width_bytes);
}

// The number that stands for a descriptor in the state.
static uint32_t fd_number(struct state_writer *writer, int fd)
{
    if (fd < 0 || !writer->with_fds)
        return STATE_NO_FD;
    if (writer->fd_count == writer->fd_room) {
        size_t room = 2 * writer->fd_room + 16;
        int *fds = reallocarray(writer->fds, room, sizeof(*fds));
        if (!fds) {
            writer->status = -ENOMEM;
            return STATE_NO_FD;
        }
        writer->fds = fds;
        writer->fd_room = room;
    }
    writer->fds[writer->fd_count] = fd;
    return (uint32_t)writer->fd_count++;
}

// NOLINTBEGIN(misc-no-recursion): as deep as tables are in tables
static uint16_t put_fields(struct state_writer *writer, const struct state_schema *schema,
                           unsigned version, const uint8_t *object);

static void put_list(struct state_writer *writer, const struct state_field *field, unsigned version,
                     const struct state_list *list)
{
    put(writer, list->count, 4);
    size_t start = writer->used;
    put(writer, 0, 4);
    for (size_t i = 0; i < list->count; i++) {
        const uint8_t *element = (const uint8_t *)list->elements + i * field->element->struct_bytes;
        size_t at = writer->used;
        put(writer, 0, 2);
        patch(writer, at, put_fields(writer, field->element, version, element), 2);
    }
    patch(writer, start, writer->used - start - 4, 4);
}

static void put_numbers(struct state_writer *writer, const struct state_field *field,
                        const uint8_t *value, size_t width_bytes)
{
    put(writer, field->count, 4);
    for (uint32_t i = 0; i < field->count; i++)
        put(writer, state_get(value + i * width_bytes, width_bytes), width_bytes);
}

static void put_value(struct state_writer *writer, const struct state_field *field,
                      unsigned version, const uint8_t *value)
{
    const struct state_blob *blob = (const struct state_blob *)value;

    switch (field->type) {
    case STATE_BYTES:
        put(writer, field->count, 4);
        put_bytes(writer, value, field->count);
        break;
    case STATE_BLOB:
        put(writer, blob->length_bytes, 4);
        put_bytes(writer, blob->bytes, blob->length_bytes);
        break;
    case STATE_LIST:
        put_list(writer, field, version, (const struct state_list *)value);
        break;
    case STATE_FD:
        put(writer, field->count, 4);
        for (uint32_t i = 0; i < field->count; i++)
            put(writer, fd_number(writer, ((const int *)value)[i]), 4);
        break;
    default:
        put_numbers(writer, field, value, state_kind_of_type(field->type)->width_bytes);
        break;
    }
}

// Those that version `version` of the table has. Returns how many.
static uint16_t put_fields(struct state_writer *writer, const struct state_schema *schema,
                           unsigned version, const uint8_t *object)
{
    uint16_t count = 0;

    for (const struct state_field *field = schema->fields; field->name; field++) {
        if (field->since > version)
            continue;
        count++;
        size_t length = strlen(field->name);
        assert(length > 0 && length < 256 && field->since >= 1);
        put(writer, length, 1);
        put_bytes(writer, field->name, length);
        put(writer, state_kind_of_type(field->type)->code, 1);
        put_value(writer, field, version, object + field->offset);
    }
    return count;
}

// NOLINTEND(misc-no-recursion)

void state_write(struct state_writer *writer, const struct state_schema *schema, unsigned instance,
                 const void *object)
{
    size_t start = writer->used, length = strlen(schema->name);
    unsigned version = schema->version;

    assert(length > 0 && length < STATE_NAME_BYTES && schema->version >= 1);
    if (writer->like)
        version = state_reader_version(writer->like, schema->name, instance);
    if (version == 0)
        return;
    uint8_t *head = extend(writer, STATE_SECTION_BYTES);
    if (!head)
        return;
    memset(head, 0, STATE_SECTION_BYTES);
    memcpy(head + 4, schema->name, length);
    state_put(head + 28, instance, 4);
    state_put(head + 32, version, 2);
    uint16_t count = put_fields(writer, schema, version, object);
    size_t bytes = writer->used - start - STATE_SECTION_BYTES;
    if (bytes > UINT32_MAX)
        writer->status = -ENOMEM;
    patch(writer, start + 34, count, 2);
    patch(writer, start + 36, bytes, 4);
    if (!writer->status)
        patch(writer, start,
              state_check_sum(writer->bytes + start + 4, STATE_SECTION_BYTES - 4 + bytes), 4);
    writer->section_count++;
}

int state_writer_finish(struct state_writer *writer, const void **bytes, size_t *length_bytes,
                        const int **fds, size_t *fd_count)
{
    if (writer->status)
        return writer->status;
    memset(writer->bytes, 0, STATE_HEAD_BYTES);
    memcpy(writer->bytes, STATE_MAGIC, STATE_MAGIC_BYTES);
    state_put(writer->bytes + 8, STATE_FORMAT_VERSION, 4);
    state_put(writer->bytes + 12, writer->section_count, 4);
    state_put(writer->bytes + 16, writer->used, 8);
    state_put(writer->bytes + 28, state_check_sum(writer->bytes, 28), 4);
    *bytes = writer->bytes;
    *length_bytes = writer->used;
    *fds = writer->fds;
    *fd_count = writer->fd_count;
    return 0;
}
