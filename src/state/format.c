// SPDX-License-Identifier: BSD-2-Clause
// The container: what holds for every state, whatever is in it. Nothing of it is believed before it
// was compared with the bytes that are there.
#include <ctype.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "state/format.h"

static const struct state_kind kinds[] = {
    [STATE_BOOL] = {"bool", STATE_CODE_BOOL, 1},   [STATE_U8] = {"u8", STATE_CODE_U8, 1},
    [STATE_U16] = {"u16", STATE_CODE_U16, 2},      [STATE_U32] = {"u32", STATE_CODE_U32, 4},
    [STATE_U64] = {"u64", STATE_CODE_U64, 8},      [STATE_BYTES] = {"bytes", STATE_CODE_BYTES, 1},
    [STATE_BLOB] = {"blob", STATE_CODE_BLOB, 1},   [STATE_LIST] = {"list", STATE_CODE_LIST, 0},
    [STATE_FD] = {"descriptor", STATE_CODE_FD, 4},
};

const struct state_kind *state_kind_of_type(enum state_type type)
{
    return &kinds[type];
}

const struct state_kind *state_kind_of_code(unsigned code)
{
    for (size_t i = 0; i < BASE_COUNT_OF(kinds); i++)
        if (kinds[i].code == code)
            return &kinds[i];
    return NULL;
}

uint64_t state_get(const uint8_t *bytes, size_t width_bytes)
{
    uint64_t value = 0;

    memcpy(&value, bytes, width_bytes);
    return le64toh(value);
}

void state_put(uint8_t *bytes, uint64_t value, size_t width_bytes)
{
    value = htole64(value);
    memcpy(bytes, &value, width_bytes);
}

uint32_t state_check_sum(const uint8_t *bytes, size_t count)
{
    return (uint32_t)crc32_z(0, bytes, count);
}

const uint8_t *state_take(struct state_cursor *cursor, size_t count)
{
    const uint8_t *at = cursor->at;

    if (count > cursor->left)
        return NULL;
    cursor->at += count;
    cursor->left -= count;
    return at;
}

// ---- Fields -------------------------------------------------------------------------------------

static int cut_off(const struct state_item *item, struct error *err)
{
    return error_set(err, -EINVAL, "field \"%s\" goes beyond the section's end", item->name);
}

// Names are what C allows, so that nothing in a message or a dump surprises a terminal.
static bool name_take(struct state_cursor *cursor, char name[256])
{
    const uint8_t *length = state_take(cursor, 1);
    const uint8_t *chars = length && *length ? state_take(cursor, *length) : NULL;

    if (!chars)
        return false;
    for (unsigned i = 0; i < *length; i++)
        if (!isalnum(chars[i]) && chars[i] != '_' && chars[i] != '.')
            return false;
    memcpy(name, chars, *length);
    name[*length] = 0;
    return true;
}

int state_item_next(struct state_cursor *cursor, struct state_item *item, struct error *err)
{
    if (!name_take(cursor, item->name))
        return error_set(err, -EINVAL, "the name of a field is cut off or no name");
    const uint8_t *code = state_take(cursor, 1), *count = state_take(cursor, 4);
    if (!code || !count)
        return cut_off(item, err);
    item->kind = state_kind_of_code(*code);
    if (!item->kind)
        return error_set(err, -EINVAL, "field \"%s\" is of the unknown type %u", item->name, *code);
    item->count = (uint32_t)state_get(count, 4);
    uint64_t bytes = (uint64_t)item->count * item->kind->width_bytes;
    if (item->kind->code == STATE_CODE_LIST) {
        const uint8_t *length = state_take(cursor, 4);
        if (!length)
            return cut_off(item, err);
        bytes = state_get(length, 4);
    }
    item->values = (struct state_cursor){.at = state_take(cursor, bytes), .left = bytes};
    return item->values.at ? 0 : cut_off(item, err);
}

// ---- Sections -----------------------------------------------------------------------------------

static int head_check(const uint8_t *bytes, size_t length_bytes, struct error *err)
{
    if (length_bytes < STATE_MAGIC_BYTES || memcmp(bytes, STATE_MAGIC, STATE_MAGIC_BYTES) != 0)
        return error_set(err, -EINVAL, "this is not a saved state: it does not begin like one");
    if (length_bytes < STATE_HEAD_BYTES)
        return error_set(err, -EINVAL, "the state is cut off in its head, after %zu bytes",
                         length_bytes);
    if (state_get(bytes + 28, 4) != state_check_sum(bytes, 28))
        return error_set(err, -EINVAL, "the state's head is damaged: its check sum is wrong");
    uint64_t version = state_get(bytes + 8, 4), whole = state_get(bytes + 16, 8);
    if (version != STATE_FORMAT_VERSION)
        return error_set(err, -EINVAL,
                         "the state is in format %llu, but only format %u is known here",
                         (unsigned long long)version, STATE_FORMAT_VERSION);
    if (whole != length_bytes)
        return error_set(err, -EINVAL, "the state is of %llu bytes, but there are %zu: it is %s",
                         (unsigned long long)whole, length_bytes,
                         whole > length_bytes ? "cut off" : "followed by something else");
    if (state_get(bytes + 24, 4) != 0)
        return error_set(err, -EINVAL, "the state's head has a bit set that means nothing");
    return 0;
}

static bool section_name_good(const uint8_t *name)
{
    size_t length = strnlen((const char *)name, STATE_NAME_BYTES);

    for (size_t i = 0; i < STATE_NAME_BYTES; i++)
        if (i < length ? !isalnum(name[i]) && name[i] != '-' : name[i])
            return false;
    return length > 0 && length < STATE_NAME_BYTES;
}

static int section_next(struct state_cursor *cursor, size_t index, struct state_section *section,
                        struct error *err)
{
    const uint8_t *head = state_take(cursor, STATE_SECTION_BYTES);

    if (!head)
        return error_set(err, -EINVAL, "section %zu of the state is cut off in its head", index);
    if (!section_name_good(head + 4))
        return error_set(err, -EINVAL, "section %zu of the state has no proper name", index);
    *section = (struct state_section){
        .name = (const char *)head + 4,
        .instance = (uint32_t)state_get(head + 28, 4),
        .version = (uint16_t)state_get(head + 32, 2),
        .field_count = (uint16_t)state_get(head + 34, 2),
        .fields.left = state_get(head + 36, 4),
    };
    section->fields.at = state_take(cursor, section->fields.left);
    if (!section->fields.at)
        return error_set(err, -EINVAL, "section \"%s\" %u is cut off: it is to have %zu bytes",
                         section->name, section->instance, section->fields.left);
    size_t checked = STATE_SECTION_BYTES - 4 + section->fields.left;
    if (state_get(head, 4) != state_check_sum(head + 4, checked))
        return error_set(err, -EINVAL, "section \"%s\" %u is damaged: its check sum is wrong",
                         section->name, section->instance);
    return 0;
}

static const struct state_section *find(const struct state_section *sections, size_t count,
                                        const char *name, uint32_t instance)
{
    for (size_t i = 0; i < count; i++)
        // NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): those before are filled in
        if (sections[i].instance == instance && strcmp(sections[i].name, name) == 0)
            return &sections[i];
    return NULL;
}

static int sections_fill(struct state_cursor *cursor, struct state_section *sections, size_t count,
                         struct error *err)
{
    for (size_t i = 0; i < count; i++) {
        int rc = section_next(cursor, i, &sections[i], err);
        if (rc < 0)
            return rc;
        if (find(sections, i, sections[i].name, sections[i].instance))
            return error_set(err, -EINVAL, "section \"%s\" %u is in the state twice",
                             sections[i].name, sections[i].instance);
    }
    if (cursor->left)
        return error_set(err, -EINVAL, "the state has %zu bytes after its last section",
                         cursor->left);
    return 0;
}

int state_sections(const void *bytes, size_t length_bytes, struct state_section **out,
                   size_t *count, struct error *err)
{
    int rc = head_check(bytes, length_bytes, err);

    if (rc < 0)
        return rc;
    struct state_cursor cursor = {.at = (const uint8_t *)bytes + STATE_HEAD_BYTES,
                                  .left = length_bytes - STATE_HEAD_BYTES};
    *count = state_get((const uint8_t *)bytes + 12, 4);
    if (*count > STATE_SECTIONS_MAX || *count > cursor.left / STATE_SECTION_BYTES)
        return error_set(err, -EINVAL, "the state is to have %zu sections, more than it can hold",
                         *count);
    *out = calloc(*count + 1, sizeof(**out));
    if (!*out)
        return error_set_errno(err, -ENOMEM, "cannot read a state");
    rc = sections_fill(&cursor, *out, *count, err);
    if (rc < 0)
        free(*out);
    return rc;
}
