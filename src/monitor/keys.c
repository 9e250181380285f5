// SPDX-License-Identifier: BSD-2-Clause
// Tables of keys: values of an object, from options and from JSON, and back.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/monitor.h"

// ---- Members ------------------------------------------------------------------------------------

int key_set_string(void *member, const char *value, struct error *err)
{
    char **target = member;
    if (!*value)
        return error_set(err, -EINVAL, "the value is empty");
    char *copy = strdup(value);
    if (!copy)
        return error_set_errno(err, -ENOMEM, "cannot keep the value");
    free(*target);
    *target = copy;
    return 0;
}

json_t *key_get_string(const void *member, size_t index)
{
    const char *text = *(char *const *)member;
    return index == 0 && text ? json_string(text) : NULL;
}

int key_set_flag(void *member, const char *value, struct error *err)
{
    (void)value, (void)err;
    *(bool *)member = true;
    return 0;
}

json_t *key_get_flag(const void *member, size_t index)
{
    return index == 0 && *(const bool *)member ? json_true() : NULL;
}

int key_set_number(void *member, const char *value, struct error *err)
{
    return parse_unsigned(member, value, err);
}

json_t *key_get_number(const void *member, size_t index)
{
    unsigned number = *(const unsigned *)member;
    return index == 0 && number ? json_integer(number) : NULL;
}

int key_find_word(const char *const *words, const char *value, struct error *err)
{
    char list[128];
    size_t used = 0;
    for (int i = 0; words[i]; i++) {
        if (strcmp(words[i], value) == 0)
            return i;
        if (used < sizeof(list))
            used +=
                (size_t)snprintf(list + used, sizeof(list) - used, "%s%s", i ? ", " : "", words[i]);
    }
    return error_set(err, -EINVAL, "it is none of %s", list);
}

json_t *key_size_to_json(uint64_t bytes)
{
    char text[24];
    format_bytes(text, sizeof(text), bytes);
    return json_string(text);
}

// ---- From text ----------------------------------------------------------------------------------

static int set(const struct key *key, void *object, const char *value, struct error *err)
{
    return key->set((char *)object + key->offset, value, err);
}

static const struct key *find(const struct key_table *table, const char *name)
{
    for (size_t i = 0; i < table->count; i++)
        if (strcmp(table->keys[i].name, name) == 0)
            return &table->keys[i];
    return NULL;
}

int key_table_set(const struct key_table *table, void *object, const char *name, const char *value,
                  struct error *err)
{
    const struct key *key = find(table, name);
    if (!key)
        return error_set(err, -ENOENT, "\"%s\" is no key of %s", name, table->what);
    json_t *text = json_string(value);
    if (!text)
        return error_set(err, -EINVAL, "it is no text in UTF-8");
    json_decref(text);
    return set(key, object, value, err);
}

// ---- From JSON ----------------------------------------------------------------------------------

static int set_list(const struct key *key, void *object, const json_t *list, struct error *err)
{
    int rc = 0;
    for (size_t i = 0; i < json_array_size(list) && rc == 0; i++) {
        const json_t *element = json_array_get(list, i);
        rc = json_is_string(element) ? set(key, object, json_string_value(element), err)
                                     : error_set(err, -EINVAL, "a list of strings is expected");
    }
    return rc;
}

// What an option takes as text.
static int set_dumped(const struct key *key, void *object, const json_t *value, struct error *err)
{
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
    int rc =
        text ? set(key, object, text, err) : error_set_errno(err, -ENOMEM, "cannot keep the value");
    free(text);
    return rc;
}

static int set_from_json(const struct key *key, void *object, const json_t *value,
                         struct error *err)
{
    bool list = key->type == KEY_LIST || key->type == KEY_LIST_OR_FLAG;
    bool flag = key->type == KEY_FLAG || key->type == KEY_LIST_OR_FLAG;
    if (flag && json_is_boolean(value))
        return json_is_true(value) ? set(key, object, "", err) : 0;
    if (key->type == KEY_FLAG)
        return error_set(err, -EINVAL, "true or false is expected");
    if (key->type == KEY_OBJECT)
        return json_is_object(value) ? set_dumped(key, object, value, err)
                                     : error_set(err, -EINVAL, "an object is expected");
    if (list && json_is_array(value))
        return set_list(key, object, value, err);
    if (key->type == KEY_TEXT && json_is_integer(value))
        return set_dumped(key, object, value, err);
    if (!json_is_string(value))
        return error_set(err, -EINVAL, "a %s is expected", list ? "list of strings" : "string");
    return set(key, object, json_string_value(value), err);
}

int key_table_from_json(const struct key_table *table, void *object, const json_t *json,
                        struct error *err)
{
    const char *name;
    json_t *value;
    if (!json_is_object(json))
        return error_set(err, -EINVAL, "%s is a JSON object", table->what);
    json_object_foreach((json_t *)json, name, value)
    {
        const struct key *key = find(table, name);
        if (!key)
            return error_set(err, -EINVAL, "\"%s\" is no key of %s", name, table->what);
        if (set_from_json(key, object, value, err) < 0) {
            error_prefix(err, "\"%s\" of %s", name, table->what);
            return -EINVAL;
        }
    }
    return 0;
}

// ---- To JSON ------------------------------------------------------------------------------------

json_t *key_get(const struct key *key, const void *object)
{
    const void *member = (const char *)object + key->offset;
    json_t *element = key->get(member, 0);
    if (!element || (key->type != KEY_LIST && key->type != KEY_LIST_OR_FLAG) ||
        json_is_true(element))
        return element;
    json_t *list = json_array();
    for (size_t i = 1; element; element = key->get(member, i++)) {
        if (json_array_append_new(list, element) < 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

json_t *key_table_to_json(const struct key_table *table, const void *object)
{
    json_t *json = json_object();
    for (size_t i = 0; json && i < table->count; i++) {
        json_t *value = key_get(&table->keys[i], object);
        if (value && json_object_set_new(json, table->keys[i].name, value) < 0) {
            json_decref(json);
            json = NULL;
        }
    }
    return json;
}

int key_table_check_size(const struct key_table *table, const void *object, struct error *err)
{
    json_t *json = key_table_to_json(table, object);
    size_t bytes = json ? json_dumpb(json, NULL, 0, JSON_COMPACT) : 0;
    json_decref(json);
    if (bytes == 0)
        return error_set_errno(err, -ENOMEM, "cannot check %s", table->what);
    if (bytes > table->bytes_max)
        return error_set(err, -ERANGE, "%s is of %zu bytes: %zu are possible", table->what, bytes,
                         table->bytes_max);
    return 0;
}
