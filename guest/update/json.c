// SPDX-License-Identifier: BSD-2-Clause
// JSON (RFC 8259), as the manifest and the host's answers have it: at most JSON_VALUES_MAX values,
// JSON_DEPTH_MAX deep. Texts stay where they are; only strings that are asked for are copied.
#include <stdlib.h>
#include <string.h>

#include "update.h"

struct reader {
    struct json *json;
    unsigned at, end, depth;
};

static bool read_value(struct reader *reader);

static void skip_space(struct reader *reader)
{
    while (reader->at < reader->end && strchr(" \t\r\n", reader->json->text[reader->at]) &&
           reader->json->text[reader->at])
        reader->at++;
}

// The next character that is no space, or NUL at the end.
static char peek(struct reader *reader)
{
    skip_space(reader);
    return reader->at < reader->end ? reader->json->text[reader->at] : 0;
}

static struct json_value *add_value(struct reader *reader, enum json_kind kind)
{
    struct json *json = reader->json;

    if (json->count == JSON_VALUES_MAX)
        return NULL;
    json->values[json->count] = (struct json_value){.kind = kind, .start = reader->at};
    return &json->values[json->count++];
}

static bool read_string(struct reader *reader)
{
    reader->at++;
    struct json_value *value = add_value(reader, JSON_STRING);
    const char *text = reader->json->text;

    if (!value)
        return false;
    for (; reader->at < reader->end && text[reader->at] != '"'; reader->at++) {
        if ((unsigned char)text[reader->at] < 0x20)
            return false;
        if (text[reader->at] == '\\')
            reader->at++;
    }
    if (reader->at >= reader->end)
        return false;
    value->end = reader->at++;
    value->next = reader->json->count;
    return true;
}

// A number or one of true, false and null.
static bool read_plain(struct reader *reader)
{
    const char *text = reader->json->text;
    bool number = text[reader->at] == '-' || (text[reader->at] >= '0' && text[reader->at] <= '9');
    struct json_value *value = add_value(reader, number ? JSON_NUMBER : JSON_WORD);
    const char *allowed = number ? "0123456789+-.eE" : "truefalsn";

    if (!value)
        return false;
    while (reader->at < reader->end && text[reader->at] && strchr(allowed, text[reader->at]))
        reader->at++;
    value->end = reader->at;
    value->next = reader->json->count;
    size_t length = value->end - value->start;
    const char *word = text + value->start;
    return number || (length == 4 && (!memcmp(word, "true", 4) || !memcmp(word, "null", 4))) ||
           (length == 5 && !memcmp(word, "false", 5));
}

static bool read_member(struct reader *reader, bool named)
{
    if (!named)
        return read_value(reader);
    if (peek(reader) != '"' || !read_string(reader) || peek(reader) != ':')
        return false;
    reader->at++;
    return read_value(reader);
}

// An object (named) or an array.
static bool read_group(struct reader *reader, bool named)
{
    struct json_value *value = add_value(reader, named ? JSON_OBJECT : JSON_ARRAY);
    char end = named ? '}' : ']';

    if (!value || ++reader->depth > JSON_DEPTH_MAX)
        return false;
    reader->at++;
    if (peek(reader) != end) {
        for (;;) {
            if (!read_member(reader, named))
                return false;
            if (peek(reader) != ',')
                break;
            reader->at++;
        }
    }
    if (peek(reader) != end)
        return false;
    value->end = ++reader->at;
    value->next = reader->json->count;
    reader->depth--;
    return true;
}

static bool read_value(struct reader *reader)
{
    switch (peek(reader)) {
    case '{':
        return read_group(reader, true);
    case '[':
        return read_group(reader, false);
    case '"':
        return read_string(reader);
    case 0:
        return false;
    default:
        return read_plain(reader);
    }
}

bool json_parse(struct json *json, const char *text, size_t count)
{
    struct reader reader = {.json = json, .end = (unsigned)count};

    json->text = text;
    json->count = 0;
    if (count > UINT32_MAX / 2 || !read_value(&reader))
        return false;
    skip_space(&reader);
    return reader.at == reader.end;
}

unsigned json_member(const struct json *json, unsigned object, const char *name)
{
    const struct json_value *values = json->values;
    size_t length = strlen(name);

    if (object >= json->count || values[object].kind != JSON_OBJECT)
        return 0;
    for (unsigned i = object + 1; i < values[object].next; i = values[i + 1].next)
        if (values[i].end - values[i].start == length &&
            !memcmp(json->text + values[i].start, name, length))
            return i + 1;
    return 0;
}

unsigned json_element(const struct json *json, unsigned array, unsigned index)
{
    const struct json_value *values = json->values;

    if (array >= json->count || values[array].kind != JSON_ARRAY)
        return 0;
    for (unsigned i = array + 1; i < values[array].next; i = values[i].next)
        if (index-- == 0)
            return i;
    return 0;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int four_digits(const char *text, const char *end)
{
    int code = 0;

    if (end - text < 4)
        return -1;
    for (unsigned i = 0; i < 4; i++) {
        int digit = hex_digit(text[i]);
        if (digit < 0)
            return -1;
        code = code << 4 | digit;
    }
    return code;
}

// RFC 3629; gives the bytes written.
static unsigned put_utf8(char *to, unsigned code)
{
    if (code < 0x80) {
        to[0] = (char)code;
        return 1;
    }
    unsigned more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    static const unsigned first[] = {0, 0xc0, 0xe0, 0xf0};
    to[0] = (char)(first[more] | code >> (6 * more));
    for (unsigned i = 1; i <= more; i++)
        to[i] = (char)(0x80 | ((code >> (6 * (more - i))) & 0x3f));
    return more + 1;
}

// What stands behind a backslash, as UTF-8; gives the bytes written, 0 for what is not allowed. NUL
// is not: our strings end with it.
static unsigned unescape(const char **from, const char *end, char *to)
{
    static const char names[] = "\"\\/bfnrt", codes[] = "\"\\/\b\f\n\r\t";
    const char *name = *from < end && **from ? strchr(names, **from) : NULL;

    if (name) {
        ++*from;
        *to = codes[name - names];
        return 1;
    }
    if (*from >= end || **from != 'u')
        return 0;
    int code = four_digits(*from + 1, end);
    *from += 5;
    if (code >= 0xd800 && code < 0xdc00) {  // the first half of a pair (section 7)
        int low = end - *from >= 6 && !memcmp(*from, "\\u", 2) ? four_digits(*from + 2, end) : -1;
        if (low < 0xdc00 || low > 0xdfff)
            return 0;
        *from += 6;
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    } else if (code <= 0 || (code >= 0xdc00 && code <= 0xdfff)) {
        return 0;
    }
    return put_utf8(to, (unsigned)code);
}

bool json_string(const struct json *json, unsigned object, const char *name, char *text,
                 size_t text_bytes)
{
    unsigned member = json_member(json, object, name);
    size_t used = 0;

    if (!member || json->values[member].kind != JSON_STRING)
        return false;
    const char *from = json->text + json->values[member].start;
    const char *end = json->text + json->values[member].end;
    while (from < end) {
        char bytes[4] = {*from++};
        unsigned count = bytes[0] == '\\' ? unescape(&from, end, bytes) : 1;
        if (count == 0 || count >= text_bytes - used)
            return false;
        memcpy(text + used, bytes, count);
        used += count;
    }
    text[used] = 0;
    return true;
}

bool json_number(const struct json *json, unsigned object, const char *name, uint64_t *number)
{
    unsigned member = json_member(json, object, name);
    uint64_t value = 0;

    if (!member || json->values[member].kind != JSON_NUMBER)
        return false;
    for (unsigned i = json->values[member].start; i < json->values[member].end; i++) {
        unsigned digit = (unsigned)(json->text[i] - '0');
        if (digit > 9 || __builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, digit, &value))
            return false;
    }
    *number = value;
    return true;
}

void json_print(FILE *file, const char *text)
{
    fputc('"', file);
    for (; *text; text++) {
        if ((unsigned char)*text < 0x20)
            fprintf(file, "\\u%04x", *text);
        else
            fprintf(file, *text == '"' || *text == '\\' ? "\\%c" : "%c", *text);
    }
    fputc('"', file);
}
