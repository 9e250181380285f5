// SPDX-License-Identifier: BSD-2-Clause
// Loading: a section's fields are in the order of its table, so one walk over both compares them.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "state/format.h"

// What a BLOB or LIST points to, freed with the reader.
struct holding {
    struct holding *next;
    max_align_t bytes[];
};

struct state_reader {
    struct state_section *sections;
    bool *taken;  // a section each
    size_t section_count;
    const int *fds;  // NULL: every descriptor reads -1
    bool *fd_taken;
    size_t fd_count;
    struct holding *holdings;
};

int state_reader_create(struct state_reader **out, const void *bytes, size_t length_bytes,
                        const int *fds, size_t fd_count, struct error *err)
{
    struct state_reader *reader = calloc(1, sizeof(*reader));

    if (!reader)
        return error_set_errno(err, -ENOMEM, "cannot read a state");
    int rc = state_sections(bytes, length_bytes, &reader->sections, &reader->section_count, err);
    if (rc < 0) {
        free(reader);
        return rc;
    }
    reader->fds = fds;
    reader->fd_count = fd_count;
    reader->taken = calloc(reader->section_count + 1, sizeof(*reader->taken));
    reader->fd_taken = calloc(fd_count + 1, sizeof(*reader->fd_taken));
    if (!reader->taken || !reader->fd_taken) {
        state_reader_destroy(reader);
        return error_set_errno(err, -ENOMEM, "cannot read a state");
    }
    *out = reader;
    return 0;
}

void state_reader_destroy(struct state_reader *reader)
{
    struct holding *next;

    if (!reader)
        return;
    for (struct holding *holding = reader->holdings; holding; holding = next) {
        next = holding->next;
        free(holding);
    }
    free(reader->sections);
    free(reader->taken);
    free(reader->fd_taken);
    free(reader);
}

static void *hold(struct state_reader *reader, size_t bytes)
{
    struct holding *holding = malloc(sizeof(*holding) + bytes);

    if (!holding)
        return NULL;
    holding->next = reader->holdings;
    reader->holdings = holding;
    return holding->bytes;
}

// ---- Values -------------------------------------------------------------------------------------

// All of these return 0 or -EINVAL with the message "field ... " in *err.

static int number_check(const struct state_field *field, uint32_t index, uint64_t value,
                        struct error *err)
{
    uint64_t max = field->type == STATE_BOOL ? 1 : field->max ? field->max : UINT64_MAX;
    char place[32] = "";

    if (value <= max)
        return 0;
    if (field->count > 1)
        snprintf(place, sizeof(place), "[%u]", index);
    return error_set(err, -EINVAL, "field \"%s\"%s is 0x%llx, beyond 0x%llx", field->name, place,
                     (unsigned long long)value, (unsigned long long)max);
}

static int get_numbers(const struct state_field *field, const struct state_item *item,
                       uint8_t *into, struct error *err)
{
    size_t width_bytes = item->kind->width_bytes;
    int rc = 0;

    for (uint32_t i = 0; i < item->count && rc == 0; i++) {
        uint64_t value = state_get(item->values.at + i * width_bytes, width_bytes);
        rc = number_check(field, i, value, err);
        if (rc == 0)
            memcpy(into + i * width_bytes, &value, width_bytes);
    }
    return rc;
}

static int get_fds(struct state_reader *reader, const struct state_field *field,
                   const struct state_item *item, int *into, struct error *err)
{
    for (uint32_t i = 0; i < item->count; i++) {
        uint32_t number = (uint32_t)state_get(item->values.at + 4 * (size_t)i, 4);
        into[i] = -1;
        if (!reader->fds || number == STATE_NO_FD)
            continue;
        if (number >= reader->fd_count || reader->fd_taken[number])
            return error_set(err, -EINVAL, "field \"%s\" names descriptor %u, which %s",
                             field->name, number,
                             number < reader->fd_count ? "another field has" : "there is not");
        reader->fd_taken[number] = true;
        into[i] = reader->fds[number];
    }
    return 0;
}

static int get_blob(struct state_reader *reader, const struct state_field *field,
                    const struct state_item *item, struct state_blob *into, struct error *err)
{
    if (field->max && item->count > field->max)
        return error_set(err, -EINVAL, "field \"%s\" has %u bytes, more than %llu", field->name,
                         item->count, (unsigned long long)field->max);
    *into = (struct state_blob){.length_bytes = item->count};
    if (item->count == 0)
        return 0;
    into->bytes = hold(reader, item->count);
    if (!into->bytes)
        return error_set_errno(err, -ENOMEM, "field \"%s\"", field->name);
    memcpy(into->bytes, item->values.at, item->count);
    return 0;
}

// NOLINTBEGIN(misc-no-recursion): as deep as tables are in tables
static int get_object(struct state_reader *reader, const struct state_schema *schema,
                      unsigned version, unsigned field_count, struct state_cursor *cursor,
                      void *object, struct error *err);

// The least bytes that an element takes in a state of this version: so a count that a state claims
// has us allocate no more than in proportion to the bytes that are there.
static size_t element_min_bytes(const struct state_schema *schema, unsigned version)
{
    size_t bytes = 2;

    for (const struct state_field *field = schema->fields; field->name; field++) {
        bool any_count = field->type == STATE_BLOB || field->type == STATE_LIST;
        if (field->since <= version)
            bytes += 1 + strlen(field->name) + 1 + 4 +
                     (any_count ? 0 : field->count * state_kind_of_type(field->type)->width_bytes);
    }
    return bytes;
}

static int get_list(struct state_reader *reader, const struct state_field *field, unsigned version,
                    const struct state_item *item, struct state_list *into, struct error *err)
{
    const struct state_schema *schema = field->element;
    struct state_cursor cursor = item->values;

    if (field->max && item->count > field->max)
        return error_set(err, -EINVAL, "field \"%s\" has %u elements, more than %llu", field->name,
                         item->count, (unsigned long long)field->max);
    if (item->count > cursor.left / element_min_bytes(schema, version))
        return error_set(err, -EINVAL, "field \"%s\" has %u elements in %zu bytes", field->name,
                         item->count, cursor.left);
    *into = (struct state_list){.count = item->count};
    if (item->count == 0)
        return cursor.left ? error_set(err, -EINVAL, "field \"%s\" is longer than its elements",
                                       field->name)
                           : 0;
    uint8_t *elements = hold(reader, (size_t)item->count * schema->struct_bytes);
    if (!elements)
        return error_set_errno(err, -ENOMEM, "field \"%s\"", field->name);
    memset(elements, 0, (size_t)item->count * schema->struct_bytes);
    into->elements = elements;
    for (uint32_t i = 0; i < item->count; i++) {
        const uint8_t *head = state_take(&cursor, 2);
        if (!head)
            return error_set(err, -EINVAL, "field \"%s\" is cut off in element %u", field->name, i);
        int rc = get_object(reader, schema, version, (unsigned)state_get(head, 2), &cursor,
                            elements + (size_t)i * schema->struct_bytes, err);
        if (rc < 0) {
            error_prefix(err, "field \"%s\", element %u", field->name, i);
            return rc;
        }
    }
    return cursor.left
               ? error_set(err, -EINVAL, "field \"%s\" is longer than its elements", field->name)
               : 0;
}

static int get_value(struct state_reader *reader, const struct state_field *field, unsigned version,
                     const struct state_item *item, uint8_t *into, struct error *err)
{
    bool any_count = field->type == STATE_BLOB || field->type == STATE_LIST;

    if (item->kind != state_kind_of_type(field->type))
        return error_set(err, -EINVAL, "field \"%s\" is of type %s, not %s", field->name,
                         item->kind->name, state_kind_of_type(field->type)->name);
    if (!any_count && item->count != field->count)
        return error_set(err, -EINVAL, "field \"%s\" has %u elements, not %u", field->name,
                         item->count, field->count);
    switch (field->type) {
    case STATE_BYTES:
        memcpy(into, item->values.at, item->count);
        return 0;
    case STATE_BLOB:
        return get_blob(reader, field, item, (struct state_blob *)into, err);
    case STATE_LIST:
        return get_list(reader, field, version, item, (struct state_list *)into, err);
    case STATE_FD:
        return get_fds(reader, field, item, (int *)into, err);
    default:
        return get_numbers(field, item, into, err);
    }
}

// ---- Sections -----------------------------------------------------------------------------------

static int check(const struct state_schema *schema, const void *object, struct error *err)
{
    const char *field = "", *why = "";

    if (!schema->check || schema->check(object, &field, &why) == 0)
        return 0;
    return error_set(err, -EINVAL, "field \"%s\" %s", field, why);
}

// Takes a section's or element's fields: those that version `version` of the table had, in order.
static int get_object(struct state_reader *reader, const struct state_schema *schema,
                      unsigned version, unsigned field_count, struct state_cursor *cursor,
                      void *object, struct error *err)
{
    const struct state_field *field = schema->fields;
    struct state_item item;

    for (unsigned i = 0; i < field_count; i++, field++) {
        int rc = state_item_next(cursor, &item, err);
        if (rc < 0)
            return rc;
        while (field->name && field->since > version)
            field++;
        if (!field->name)
            return error_set(err, -EINVAL, "field \"%s\" is not known", item.name);
        if (strcmp(item.name, field->name) != 0)
            return error_set(err, -EINVAL, "field \"%s\" is in place of \"%s\"", item.name,
                             field->name);
        rc = get_value(reader, field, version, &item, (uint8_t *)object + field->offset, err);
        if (rc < 0)
            return rc;
    }
    while (field->name && field->since > version)
        field++;
    if (field->name)
        return error_set(err, -EINVAL, "field \"%s\" is missing", field->name);
    return check(schema, object, err);
}

// NOLINTEND(misc-no-recursion)

static int get_section(struct state_reader *reader, const struct state_schema *schema,
                       const struct state_section *section, void *object, struct error *err)
{
    struct state_cursor cursor = section->fields;

    if (section->version == 0 || section->version > schema->version)
        return error_set(err, -EINVAL, "version %u is not known, only up to %u", section->version,
                         schema->version);
    int rc =
        get_object(reader, schema, section->version, section->field_count, &cursor, object, err);
    if (rc == 0 && cursor.left)
        rc = error_set(err, -EINVAL, "it is longer than its fields");
    return rc;
}

unsigned state_reader_version(const struct state_reader *reader, const char *name,
                              unsigned instance)
{
    for (size_t i = 0; i < reader->section_count; i++) {
        const struct state_section *section = &reader->sections[i];
        if (section->instance == instance && strcmp(section->name, name) == 0)
            return section->version;
    }
    return 0;
}

int state_read(struct state_reader *reader, const struct state_schema *schema, unsigned instance,
               void *object, struct error *err)
{
    for (size_t i = 0; i < reader->section_count; i++) {
        const struct state_section *section = &reader->sections[i];
        if (section->instance != instance || strcmp(section->name, schema->name) != 0)
            continue;
        reader->taken[i] = true;
        int rc = get_section(reader, schema, section, object, err);
        if (rc < 0)
            error_prefix(err, "cannot load section \"%s\" %u of the state", schema->name, instance);
        return rc;
    }
    return error_set(err, -ENOENT, "section \"%s\" %u is missing in the state", schema->name,
                     instance);
}

int state_reader_finish(struct state_reader *reader, struct error *err)
{
    for (size_t i = 0; i < reader->section_count; i++)
        if (!reader->taken[i])
            return error_set(err, -EINVAL, "section \"%s\" %u of the state is not known here",
                             reader->sections[i].name, reader->sections[i].instance);
    return 0;
}
