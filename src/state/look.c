// SPDX-License-Identifier: BSD-2-Clause
// Dumping and comparing states by what they say of themselves.
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "state/format.h"

#define SHOWN_BYTES 32u   // of bytes and blobs, for people; JSON has all
#define SHOWN_NUMBERS 8u  // in a line

// ---- Values -------------------------------------------------------------------------------------

static bool is_text(const uint8_t *bytes, size_t count)
{
    size_t length = strnlen((const char *)bytes, count);

    for (size_t i = 0; i < count; i++)
        if (i < length ? !isprint(bytes[i]) || bytes[i] == '"' || bytes[i] == '\\' : bytes[i])
            return false;
    return length > 0;
}

static void print_hex(FILE *out, const uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        fprintf(out, "%02x", bytes[i]);
}

static void print_bytes(FILE *out, const struct state_item *item)
{
    const uint8_t *bytes = item->values.at;
    size_t shown = item->count < SHOWN_BYTES ? item->count : SHOWN_BYTES;

    if (is_text(bytes, item->count)) {
        fprintf(out, "\"%.*s\"", (int)item->count, (const char *)bytes);
        return;
    }
    print_hex(out, bytes, shown);
    if (shown < item->count)
        fprintf(out, "... (%u bytes)", item->count);
    else if (shown == 0)
        fprintf(out, "(empty)");
}

static void print_number(FILE *out, const struct state_item *item, uint32_t index, bool json)
{
    size_t width_bytes = item->kind->width_bytes;
    uint64_t value = state_get(item->values.at + index * width_bytes, width_bytes);

    if (item->kind->code == STATE_CODE_BOOL)
        fprintf(out, value ? "true" : "false");
    else if (item->kind->code == STATE_CODE_FD && value == STATE_NO_FD)
        fprintf(out, json ? "null" : "none");
    else
        fprintf(out, json || value < 10 ? "%llu" : "0x%llx", (unsigned long long)value);
}

static bool is_bytes(const struct state_item *item)
{
    return item->kind->code == STATE_CODE_BYTES || item->kind->code == STATE_CODE_BLOB;
}

// ---- For people, and as JSON --------------------------------------------------------------------

struct dump {
    FILE *out;
    bool json;
};

// NOLINTBEGIN(misc-no-recursion): STATE_DEPTH_MAX bounds it
static int dump_fields(const struct dump *dump, struct state_cursor *cursor, unsigned count,
                       unsigned depth, struct error *err);

static int dump_list(const struct dump *dump, const struct state_item *item, unsigned depth,
                     struct error *err)
{
    struct state_cursor cursor = item->values;
    int rc = 0;

    if (depth >= STATE_DEPTH_MAX)
        return error_set(err, -EINVAL, "field \"%s\": lists in more than %u lists", item->name,
                         STATE_DEPTH_MAX);
    fprintf(dump->out, dump->json ? "[" : "%u elements\n", item->count);
    for (uint32_t i = 0; i < item->count && rc == 0; i++) {
        const uint8_t *head = state_take(&cursor, 2);
        if (!head)
            return error_set(err, -EINVAL, "field \"%s\" is cut off in element %u", item->name, i);
        if (dump->json)
            fprintf(dump->out, i ? ",{" : "{");
        else
            fprintf(dump->out, "%*s[%u]\n", 4 * (int)depth, "", i);
        rc = dump_fields(dump, &cursor, (unsigned)state_get(head, 2), depth + 1, err);
        if (dump->json)
            fputc('}', dump->out);
    }
    if (dump->json)
        fputc(']', dump->out);
    if (rc == 0 && cursor.left)
        rc = error_set(err, -EINVAL, "field \"%s\" is longer than its elements", item->name);
    return rc;
}

static void dump_numbers(const struct dump *dump, const struct state_item *item, unsigned depth)
{
    if (item->count == 1) {
        print_number(dump->out, item, 0, dump->json);
        return;
    }
    fputs(dump->json ? "[" : "", dump->out);
    for (uint32_t i = 0; i < item->count; i++) {
        if (!dump->json && i && i % SHOWN_NUMBERS == 0)
            fprintf(dump->out, "\n%*s", 4 * (int)depth + 4, "");
        else if (i)
            fputs(dump->json ? "," : " ", dump->out);
        print_number(dump->out, item, i, dump->json);
    }
    fputs(dump->json ? "]" : "", dump->out);
}

static int dump_value(const struct dump *dump, const struct state_item *item, unsigned depth,
                      struct error *err)
{
    int rc = 0;

    if (item->kind->code == STATE_CODE_LIST) {
        rc = dump_list(dump, item, depth, err);
        if (!dump->json)
            return rc;  // which ended its lines
    } else if (is_bytes(item) && dump->json) {
        fputc('"', dump->out);
        print_hex(dump->out, item->values.at, item->count);
        fputc('"', dump->out);
    } else if (is_bytes(item)) {
        print_bytes(dump->out, item);
    } else {
        dump_numbers(dump, item, depth);
    }
    if (!dump->json)
        fputc('\n', dump->out);
    return rc;
}

static int dump_fields(const struct dump *dump, struct state_cursor *cursor, unsigned count,
                       unsigned depth, struct error *err)
{
    struct state_item item;
    int rc = 0;

    for (unsigned i = 0; i < count && rc == 0; i++) {
        rc = state_item_next(cursor, &item, err);
        if (rc < 0)
            return rc;
        if (dump->json)
            fprintf(dump->out, "%s\"%s\":", i ? "," : "", item.name);
        else
            fprintf(dump->out, "%*s%s = ", 4 * (int)depth, "", item.name);
        rc = dump_value(dump, &item, depth, err);
    }
    return rc;
}

// NOLINTEND(misc-no-recursion)

static int dump_section(const struct dump *dump, const struct state_section *section,
                        struct error *err)
{
    struct state_cursor cursor = section->fields;

    fprintf(dump->out,
            dump->json ? "{\"name\":\"%s\",\"instance\":%u,\"version\":%u,\"fields\":{"
                       : "%s %u (version %u)\n",
            section->name, section->instance, section->version);
    int rc = dump_fields(dump, &cursor, section->field_count, 1, err);
    if (rc == 0 && cursor.left)
        rc = error_set(err, -EINVAL, "it is longer than its fields");
    if (rc < 0)
        error_prefix(err, "section \"%s\" %u", section->name, section->instance);
    else if (dump->json)
        fputs("}}", dump->out);
    return rc;
}

int state_dump(const void *bytes, size_t length_bytes, bool json, FILE *out, struct error *err)
{
    const struct dump dump = {.out = out, .json = json};
    struct state_section *sections;
    size_t count;
    int rc = state_sections(bytes, length_bytes, &sections, &count, err);

    if (rc < 0)
        return rc;
    if (json)
        fprintf(out, "{\"format\":%u,\"bytes\":%zu,\"sections\":[", STATE_FORMAT_VERSION,
                length_bytes);
    for (size_t i = 0; i < count && rc == 0; i++) {
        if (i)
            fputs(json ? ",\n" : "\n", out);
        rc = dump_section(&dump, &sections[i], err);
    }
    if (json)
        fputs("]}\n", out);
    free(sections);
    return rc;
}

// ---- Comparing ----------------------------------------------------------------------------------

static void value_text(const struct state_item *item, uint32_t index, char *text, size_t bytes)
{
    FILE *out = fmemopen(text, bytes, "w");

    text[0] = 0;
    if (!out)
        return;
    if (is_bytes(item))
        print_bytes(out, item);
    else
        print_number(out, item, index, false);
    fclose(out);
}

static int values_differ(const struct state_item *a, const struct state_item *b, uint32_t index,
                         struct error *err)
{
    char first[80], second[80], place[32] = "";

    value_text(a, index, first, sizeof(first));
    value_text(b, index, second, sizeof(second));
    if (a->count > 1 && !is_bytes(a))
        snprintf(place, sizeof(place), "[%u]", index);
    return error_set(err, -EINVAL, "field \"%s\"%s is %s and %s", a->name, place, first, second);
}

// NOLINTBEGIN(misc-no-recursion): STATE_DEPTH_MAX bounds it
static int compare_fields(struct state_cursor *a, struct state_cursor *b, unsigned count,
                          unsigned depth, struct error *err);

static int compare_lists(const struct state_item *a, const struct state_item *b, unsigned depth,
                         struct error *err)
{
    struct state_cursor from_a = a->values, from_b = b->values;

    for (uint32_t i = 0; i < a->count; i++) {
        const uint8_t *head_a = state_take(&from_a, 2), *head_b = state_take(&from_b, 2);
        if (!head_a || !head_b || memcmp(head_a, head_b, 2) != 0 || depth >= STATE_DEPTH_MAX)
            return error_set(err, -EINVAL, "field \"%s\", element %u: its fields differ", a->name,
                             i);
        int rc = compare_fields(&from_a, &from_b, (unsigned)state_get(head_a, 2), depth + 1, err);
        if (rc < 0) {
            error_prefix(err, "field \"%s\", element %u", a->name, i);
            return rc;
        }
    }
    return 0;
}

static int compare_values(const struct state_item *a, const struct state_item *b, unsigned depth,
                          struct error *err)
{
    size_t width_bytes = a->kind->width_bytes;

    if (a->count != b->count)
        return error_set(err, -EINVAL, "field \"%s\" has %u elements and %u", a->name, a->count,
                         b->count);
    if (a->kind->code == STATE_CODE_LIST)
        return compare_lists(a, b, depth, err);
    for (uint32_t i = 0; i < a->count; i++)
        if (memcmp(a->values.at + i * width_bytes, b->values.at + i * width_bytes, width_bytes) !=
            0)
            return values_differ(a, b, i, err);
    return 0;
}

static int compare_fields(struct state_cursor *a, struct state_cursor *b, unsigned count,
                          unsigned depth, struct error *err)
{
    struct state_item item_a, item_b;
    int rc = 0;

    for (unsigned i = 0; i < count && rc == 0; i++) {
        rc = state_item_next(a, &item_a, err);
        if (rc == 0)
            rc = state_item_next(b, &item_b, err);
        if (rc == 0 && (strcmp(item_a.name, item_b.name) != 0 || item_a.kind != item_b.kind))
            rc = error_set(err, -EINVAL, "the fields differ: \"%s\" (%s) and \"%s\" (%s)",
                           item_a.name, item_a.kind->name, item_b.name, item_b.kind->name);
        if (rc == 0)
            rc = compare_values(&item_a, &item_b, depth, err);
    }
    return rc;
}

// NOLINTEND(misc-no-recursion)

static int compare_sections(const struct state_section *a, const struct state_section *b,
                            struct error *err)
{
    struct state_cursor from_a = a->fields, from_b = b->fields;

    if (strcmp(a->name, b->name) != 0 || a->instance != b->instance)
        return error_set(err, -EINVAL, "the states differ: section \"%s\" %u and \"%s\" %u",
                         a->name, a->instance, b->name, b->instance);
    int rc = a->version != b->version || a->field_count != b->field_count
                 ? error_set(err, -EINVAL, "version %u with %u fields, and version %u with %u",
                             a->version, a->field_count, b->version, b->field_count)
                 : compare_fields(&from_a, &from_b, a->field_count, 1, err);
    if (rc < 0)
        error_prefix(err, "the states differ: section \"%s\" %u", a->name, a->instance);
    return rc;
}

static int compare_all(const struct state_section *a, size_t a_count, const struct state_section *b,
                       size_t b_count, struct error *err)
{
    size_t count = a_count < b_count ? a_count : b_count;
    int rc = 0;

    for (size_t i = 0; i < count && rc == 0; i++)
        rc = compare_sections(&a[i], &b[i], err);
    if (rc == 0 && a_count != b_count) {
        const struct state_section *more = a_count > b_count ? &a[count] : &b[count];
        rc = error_set(err, -EINVAL, "the states differ: only one has section \"%s\" %u",
                       more->name, more->instance);
    }
    return rc;
}

int state_compare(const void *a, size_t a_bytes, const void *b, size_t b_bytes, struct error *err)
{
    struct state_section *sections_a, *sections_b;
    size_t a_count, b_count;

    if (a_bytes == b_bytes && memcmp(a, b, a_bytes) == 0)
        return 0;
    int rc = state_sections(a, a_bytes, &sections_a, &a_count, err);
    if (rc < 0)
        return rc;
    rc = state_sections(b, b_bytes, &sections_b, &b_count, err);
    if (rc == 0) {
        rc = compare_all(sections_a, a_count, sections_b, b_count, err);
        free(sections_b);
    }
    free(sections_a);
    if (rc == 0)
        rc = error_set(err, -EINVAL, "the states differ in bytes that no field has");
    return rc;
}
