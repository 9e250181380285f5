// SPDX-License-Identifier: BSD-2-Clause
// An interceptor's definition: one table of keys, which the options of `strake leverage add`, the
// JSON of the API, and what an interceptor's process gets have in common.
// docs/leverage-protocols.md describes them.
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "leverage/leverage.h"

#define SIZE_LIMIT_BYTES (25u << 20)

// What follows from the kind.
static const struct {
    const char *name, *run;
    unsigned time_limit_ms;
} kinds[INTERCEPTOR_KINDS] = {
    [INTERCEPTOR_NET] = {"net", "firewall", 2000},
    [INTERCEPTOR_FILES] = {"files", "clamav", 10000},
    [INTERCEPTOR_MOUNT] = {"mount", "mount", 30000},
};

const char *interceptor_kind_name(enum interceptor_kind kind)
{
    return kinds[kind].name;
}

// ---- Strings ------------------------------------------------------------------------------------

static int set_string(char **target, const char *value, struct error *err)
{
    if (!*value)
        return error_set(err, -EINVAL, "the value is empty");
    char *copy = strdup(value);
    if (!copy)
        return error_set_errno(err, -ENOMEM, "cannot keep the value");
    free(*target);
    *target = copy;
    return 0;
}

static json_t *text_or_null(const char *text)
{
    return text ? json_string(text) : NULL;
}

#define STRING_KEY(member)                                                                         \
    static int set_##member(struct interceptor_definition *definition, const char *value,          \
                            struct error *err)                                                     \
    {                                                                                              \
        return set_string(&definition->member, value, err);                                        \
    }                                                                                              \
    static json_t *get_##member(const struct interceptor_definition *definition, size_t index)     \
    {                                                                                              \
        return index == 0 ? text_or_null(definition->member) : NULL;                               \
    }

STRING_KEY(device)
STRING_KEY(match)
STRING_KEY(match_out)
STRING_KEY(lan)
STRING_KEY(path)
STRING_KEY(quarantine)
STRING_KEY(image)
STRING_KEY(directory)
STRING_KEY(type)
STRING_KEY(passphrase_file)

// It is the name of files, and a part of names in nftables and of devices.
static int set_name(struct interceptor_definition *definition, const char *value, struct error *err)
{
    static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    size_t length = strspn(value, good);
    if (value[length] || length > INTERCEPTOR_NAME_MAX || (*value && strchr("-_.", *value)))
        return error_set(err, -EINVAL,
                         "a name has letters, digits, and then also - _ . (at most %u)",
                         INTERCEPTOR_NAME_MAX);
    return set_string(&definition->name, value, err);
}

static json_t *get_name(const struct interceptor_definition *definition, size_t index)
{
    return index == 0 ? text_or_null(definition->name) : NULL;
}

// ---- Values that are one of several words -------------------------------------------------------

// The number of `value` among `words`, which end with NULL; -EINVAL with *err set.
static int find_word(const char *const *words, const char *value, struct error *err)
{
    char list[128];
    size_t used = 0;
    for (int i = 0; words[i]; i++) {
        if (strcmp(words[i], value) == 0)
            return i;
        used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s", i ? ", " : "", words[i]);
    }
    return error_set(err, -EINVAL, "it is none of %s", list);
}

#define WORD_KEY(key, member, type, first, ...)                                                    \
    static const char *const words_##key[] = {__VA_ARGS__, NULL};                                  \
    static int set_##key(struct interceptor_definition *definition, const char *value,             \
                         struct error *err)                                                        \
    {                                                                                              \
        int number = find_word(words_##key, value, err);                                           \
        if (number >= 0)                                                                           \
            definition->member = (type)(number + (first));                                         \
        return number < 0 ? number : 0;                                                            \
    }

WORD_KEY(kind, kind, enum interceptor_kind, 0, "net", "files", "mount")
WORD_KEY(verdict, verdict, enum interceptor_verdict, 0, "enforce", "observe")
WORD_KEY(fail, fail, enum interceptor_fail, INTERCEPTOR_FAIL_OPEN, "open", "closed")
WORD_KEY(mode, nat, bool, 0, "inline", "nat")
WORD_KEY(infected, infected_quarantine, bool, 0, "deny", "quarantine")

static json_t *get_kind(const struct interceptor_definition *definition, size_t index)
{
    bool given = index == 0 && definition->kind < INTERCEPTOR_KINDS;
    return given ? json_string(words_kind[definition->kind]) : NULL;
}

static json_t *get_verdict(const struct interceptor_definition *definition, size_t index)
{
    bool given = index == 0 && definition->verdict != INTERCEPTOR_ENFORCE;
    return given ? json_string(words_verdict[definition->verdict]) : NULL;
}

static json_t *get_fail(const struct interceptor_definition *definition, size_t index)
{
    bool given = index == 0 && definition->fail != INTERCEPTOR_FAIL_NOT_GIVEN;
    return given ? json_string(words_fail[definition->fail - INTERCEPTOR_FAIL_OPEN]) : NULL;
}

static json_t *get_mode(const struct interceptor_definition *definition, size_t index)
{
    return index == 0 && definition->nat ? json_string("nat") : NULL;
}

static json_t *get_infected(const struct interceptor_definition *definition, size_t index)
{
    return index == 0 && definition->infected_quarantine ? json_string("quarantine") : NULL;
}

// ---- Modules ------------------------------------------------------------------------------------

static int parse_module_word(struct interceptor_module *module, const char *word, struct error *err)
{
    if (strncmp(word, "run=", 4) == 0)
        return set_string(&module->run, word + 4, err);
    if (strncmp(word, "config=", 7) == 0)
        return set_string(&module->config, word + 7, err);
    if (strncmp(word, "pair=", 5) == 0)
        return parse_unsigned(&module->pair, word + 5, err);
    if (strncmp(word, "port=", 5) == 0)
        return parse_unsigned(&module->port, word + 5, err);
    return error_set(err, -EINVAL, "\"%s\" is not understood", word);
}

static void module_fini(struct interceptor_module *module)
{
    free(module->partition);
    free(module->run);
    free(module->config);
    *module = (struct interceptor_module){0};
}

static int set_module(struct interceptor_definition *definition, const char *value,
                      struct error *err)
{
    if (definition->module_count == INTERCEPTOR_MODULES_MAX)
        return error_set(err, -ENOSPC, "more than %u modules", INTERCEPTOR_MODULES_MAX);
    struct interceptor_module *module = &definition->modules[definition->module_count];
    char *copy = strdup(value), *rest = copy, *word;
    if (!copy)
        return error_set_errno(err, -ENOMEM, "cannot keep the value");
    int rc = set_string(&module->partition, strsep(&rest, ","), err);
    while (rc == 0 && (word = strsep(&rest, ",")))
        rc = parse_module_word(module, word, err);
    free(copy);
    if (rc < 0)
        module_fini(module);
    definition->module_count += rc == 0;
    return rc;
}

static json_t *get_module(const struct interceptor_definition *definition, size_t index)
{
    if (index >= definition->module_count)
        return NULL;
    const struct interceptor_module *module = &definition->modules[index];
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    if (!out)
        return NULL;
    fprintf(out, "%s", module->partition);
    if (module->run)
        fprintf(out, ",run=%s", module->run);
    if (module->config)
        fprintf(out, ",config=%s", module->config);
    if (module->pair)
        fprintf(out, ",pair=%u", module->pair);
    if (module->port)
        fprintf(out, ",port=%u", module->port);
    json_t *value = fclose(out) == 0 ? json_string(text) : NULL;
    free(text);
    return value;
}

// ---- Forwards -----------------------------------------------------------------------------------

// tcp|udp:PORT-ADDR:PORT
static int parse_forward(struct interceptor_forward *forward, const char *text)
{
    unsigned port;
    char *end;
    forward->udp = strncmp(text, "udp:", 4) == 0;
    if ((!forward->udp && strncmp(text, "tcp:", 4) != 0) || !isdigit((unsigned char)text[4]))
        return -EINVAL;
    unsigned long number = strtoul(text + 4, &end, 10);
    port = number <= UINT16_MAX ? (unsigned)number : 0;
    if (*end != '-' || port == 0 || end[1] == ':' ||
        inet_parse_endpoint(end + 1, forward->address, &forward->to_port, NULL) < 0)
        return -EINVAL;
    forward->port = (uint16_t)port;
    return forward->to_port ? 0 : -EINVAL;
}

static int set_forward(struct interceptor_definition *definition, const char *value,
                       struct error *err)
{
    if (definition->forward_count == INTERCEPTOR_FORWARDS_MAX)
        return error_set(err, -ENOSPC, "more than %u port forwards", INTERCEPTOR_FORWARDS_MAX);
    if (parse_forward(&definition->forwards[definition->forward_count], value) < 0)
        return error_set(err, -EINVAL, "\"%s\" is not tcp:PORT-ADDR:PORT or udp:PORT-ADDR:PORT",
                         value);
    definition->forward_count++;
    return 0;
}

static json_t *get_forward(const struct interceptor_definition *definition, size_t index)
{
    if (index >= definition->forward_count)
        return NULL;
    const struct interceptor_forward *forward = &definition->forwards[index];
    char address[INET_ADDRSTRLEN];
    inet_ntop(AF_INET, forward->address, address, sizeof(address));
    return json_sprintf("%s:%u-%s:%u", forward->udp ? "udp" : "tcp", forward->port, address,
                        forward->to_port);
}

// ---- Times, sizes, the rest ---------------------------------------------------------------------

static int set_time_limit(struct interceptor_definition *definition, const char *value,
                          struct error *err)
{
    char *end = (char *)value;
    errno = 0;
    unsigned long number = isdigit((unsigned char)*value) ? strtoul(value, &end, 10) : 0;
    if (end == value || (*end && strcmp(end, "s") != 0 && strcmp(end, "ms") != 0))
        return error_set(err, -EINVAL, "not a time such as 500ms or 10s");
    unsigned long unit_ms = strcmp(end, "ms") == 0 ? 1 : 1000;
    if (errno || number > INTERCEPTOR_TIME_LIMIT_MAX_MS / unit_ms ||
        number * unit_ms < INTERCEPTOR_TIME_LIMIT_MIN_MS)
        return error_set(err, -ERANGE, "10ms to 600s are possible");
    definition->time_limit_ms = (unsigned)(number * unit_ms);
    return 0;
}

static json_t *get_time_limit(const struct interceptor_definition *definition, size_t index)
{
    unsigned ms = definition->time_limit_ms;
    bool usual =
        definition->kind < INTERCEPTOR_KINDS && ms == kinds[definition->kind].time_limit_ms;
    if (index > 0 || ms == 0 || usual)
        return NULL;
    return ms % 1000 ? json_sprintf("%ums", ms) : json_sprintf("%us", ms / 1000);
}

static int set_log(struct interceptor_definition *definition, const char *value, struct error *err)
{
    return log_parse_level(&definition->log_level, value, err);
}

static json_t *get_log(const struct interceptor_definition *definition, size_t index)
{
    bool given = index == 0 && definition->log_level != LOG_WARN;
    return given ? json_string(log_level_name(definition->log_level)) : NULL;
}

static int set_size_limit(struct interceptor_definition *definition, const char *value,
                          struct error *err)
{
    return parse_bytes(&definition->size_limit_bytes, value, err);
}

static json_t *get_size_limit(const struct interceptor_definition *definition, size_t index)
{
    char text[24];
    if (index > 0 || definition->size_limit_bytes == SIZE_LIMIT_BYTES)
        return NULL;
    format_bytes(text, sizeof(text), definition->size_limit_bytes);
    return json_string(text);
}

static int set_read_only(struct interceptor_definition *definition, const char *value,
                         struct error *err)
{
    (void)value, (void)err;
    definition->read_only = true;
    return 0;
}

static json_t *get_read_only(const struct interceptor_definition *definition, size_t index)
{
    return index == 0 && definition->read_only ? json_true() : NULL;
}

#define NUMBER_KEY(member)                                                                         \
    static int set_##member(struct interceptor_definition *definition, const char *value,          \
                            struct error *err)                                                     \
    {                                                                                              \
        return parse_unsigned(&definition->member, value, err);                                    \
    }                                                                                              \
    static json_t *get_##member(const struct interceptor_definition *definition, size_t index)     \
    {                                                                                              \
        return index == 0 && definition->member ? json_integer(definition->member) : NULL;         \
    }

NUMBER_KEY(disk)
NUMBER_KEY(part)

static int set_partition(struct interceptor_definition *definition, const char *value,
                         struct error *err)
{
    struct definition partition;
    json_t *object = json_loads(value, JSON_REJECT_DUPLICATES, NULL);
    if (!object)
        return error_set(err, -EINVAL, "it is no JSON");
    int rc = definition_from_json(&partition, object, err);
    if (rc < 0) {
        json_decref(object);
        return rc;
    }
    definition_fini(&partition);
    json_decref(definition->partition);
    definition->partition = object;
    return 0;
}

static json_t *get_partition(const struct interceptor_definition *definition, size_t index)
{
    return index == 0 && definition->partition ? json_deep_copy(definition->partition) : NULL;
}

// ---- The table ----------------------------------------------------------------------------------

enum key_type {
    KEY_TEXT,  // in JSON a string, or a number
    KEY_FLAG,  // a boolean
    KEY_LIST,  // an array of strings, or one alone
    KEY_OBJECT,
};

enum { NET = 1 << INTERCEPTOR_NET, FILES = 1 << INTERCEPTOR_FILES, MOUNT = 1 << INTERCEPTOR_MOUNT };

static const struct definition_key {
    const char *name;
    enum key_type type;
    unsigned kinds;  // that have it
    int (*set)(struct interceptor_definition *definition, const char *value, struct error *err);
    // The value, or the element of a list; NULL: it is the default, or there are no more.
    json_t *(*get)(const struct interceptor_definition *definition, size_t index);
} keys[] = {
    {"name", KEY_TEXT, NET | FILES | MOUNT, set_name, get_name},
    {"kind", KEY_TEXT, NET | FILES | MOUNT, set_kind, get_kind},
    {"module", KEY_LIST, NET | FILES | MOUNT, set_module, get_module},
    {"verdict", KEY_TEXT, NET | FILES, set_verdict, get_verdict},
    {"fail", KEY_TEXT, NET | FILES, set_fail, get_fail},
    {"time-limit", KEY_TEXT, NET | FILES | MOUNT, set_time_limit, get_time_limit},
    {"log", KEY_TEXT, NET | FILES | MOUNT, set_log, get_log},
    {"device", KEY_TEXT, NET, set_device, get_device},
    {"mode", KEY_TEXT, NET, set_mode, get_mode},
    {"match", KEY_TEXT, NET, set_match, get_match},
    {"match-out", KEY_TEXT, NET, set_match_out, get_match_out},
    {"forward", KEY_LIST, NET, set_forward, get_forward},
    {"lan", KEY_TEXT, NET, set_lan, get_lan},
    {"path", KEY_TEXT, FILES, set_path, get_path},
    {"infected", KEY_TEXT, FILES, set_infected, get_infected},
    {"quarantine", KEY_TEXT, FILES, set_quarantine, get_quarantine},
    {"size-limit", KEY_TEXT, FILES, set_size_limit, get_size_limit},
    {"image", KEY_TEXT, MOUNT, set_image, get_image},
    {"directory", KEY_TEXT, MOUNT, set_directory, get_directory},
    {"disk", KEY_TEXT, MOUNT, set_disk, get_disk},
    {"part", KEY_TEXT, MOUNT, set_part, get_part},
    {"type", KEY_TEXT, MOUNT, set_type, get_type},
    {"read-only", KEY_FLAG, MOUNT, set_read_only, get_read_only},
    {"passphrase-file", KEY_TEXT, MOUNT, set_passphrase_file, get_passphrase_file},
    {"partition", KEY_OBJECT, MOUNT, set_partition, get_partition},
};

static const struct definition_key *find_key(const char *name)
{
    for (size_t i = 0; i < BASE_COUNT_OF(keys); i++)
        if (strcmp(keys[i].name, name) == 0)
            return &keys[i];
    return NULL;
}

void interceptor_definition_init(struct interceptor_definition *definition)
{
    *definition = (struct interceptor_definition){
        .kind = INTERCEPTOR_KINDS, .log_level = LOG_WARN, .size_limit_bytes = SIZE_LIMIT_BYTES};
}

void interceptor_definition_fini(struct interceptor_definition *definition)
{
    char *const strings[] = {definition->name,
                             definition->device,
                             definition->match,
                             definition->match_out,
                             definition->lan,
                             definition->path,
                             definition->quarantine,
                             definition->image,
                             definition->directory,
                             definition->type,
                             definition->passphrase_file};
    for (size_t i = 0; i < BASE_COUNT_OF(strings); i++)
        free(strings[i]);
    for (size_t i = 0; i < definition->module_count; i++)
        module_fini(&definition->modules[i]);
    json_decref(definition->partition);
    interceptor_definition_init(definition);
}

int interceptor_definition_set(struct interceptor_definition *definition, const char *key,
                               const char *value, struct error *err)
{
    const struct definition_key *found = find_key(key);
    if (!found)
        return error_set(err, -ENOENT, "\"%s\" is no key of an interceptor's definition", key);
    json_t *text = json_string(value);
    if (!text)
        return error_set(err, -EINVAL, "it is no text in UTF-8");
    json_decref(text);
    return found->set(definition, value, err);
}

int interceptor_definition_each_path(struct interceptor_definition *definition,
                                     definition_path_fn *fn, struct error *err)
{
    const struct {
        const char *key;
        char **path;
    } given[] = {{"path", &definition->path},
                 {"quarantine", &definition->quarantine},
                 {"image", &definition->image},
                 {"directory", &definition->directory},
                 {"passphrase-file", &definition->passphrase_file}};
    int rc = 0;
    for (size_t i = 0; i < BASE_COUNT_OF(given) && rc == 0; i++)
        if (*given[i].path)
            rc = fn(given[i].key, given[i].path, err);
    for (size_t i = 0; i < definition->module_count && rc == 0; i++)
        if (definition->modules[i].config)
            rc = fn("module", &definition->modules[i].config, err);
    return rc;
}

bool interceptor_definition_names(const struct interceptor_definition *definition,
                                  const char *partition)
{
    for (size_t i = 0; i < definition->module_count; i++)
        if (strcmp(definition->modules[i].partition, partition) == 0)
            return true;
    return false;
}

// ---- What goes together -------------------------------------------------------------------------

static int fill_in(struct interceptor_definition *definition, struct error *err)
{
    const char *run = kinds[definition->kind].run;
    if (definition->time_limit_ms == 0)
        definition->time_limit_ms = kinds[definition->kind].time_limit_ms;
    for (size_t i = 0; i < definition->module_count; i++) {
        struct interceptor_module *module = &definition->modules[i];
        if (!module->run && !(module->run = strdup(run)))
            return error_set_errno(err, -ENOMEM, "cannot keep an interceptor's definition");
    }
    return 0;
}

// Keys that its kind does not have.
static int check_kind(const struct interceptor_definition *definition, struct error *err)
{
    for (size_t i = 0; i < BASE_COUNT_OF(keys); i++) {
        if (keys[i].kinds & 1u << definition->kind)
            continue;
        json_t *value = keys[i].get(definition, 0);
        json_decref(value);
        if (value)
            return error_set(err, -EINVAL, "an interceptor of kind \"%s\" has no \"%s\"",
                             interceptor_kind_name(definition->kind), keys[i].name);
    }
    return 0;
}

static int check_modules(const struct interceptor_definition *definition, struct error *err)
{
    bool mount = definition->kind == INTERCEPTOR_MOUNT;
    if (definition->module_count == 0)
        return error_set(err, -EINVAL, "an interceptor needs a module: give --module PARTITION");
    if (mount && definition->module_count > 1)
        return error_set(err, -EINVAL, "a mount has one module");
    for (size_t i = 0; i < definition->module_count; i++) {
        const struct interceptor_module *module = &definition->modules[i];
        if (module->pair && definition->kind != INTERCEPTOR_NET)
            return error_set(err, -EINVAL, "\"pair\" is for modules of kind \"net\"");
        if (module->port && definition->kind != INTERCEPTOR_FILES)
            return error_set(err, -EINVAL, "\"port\" is for modules of kind \"files\"");
        if (module->pair > (PARTITION_VIEW_NETS - 1) / 2)
            return error_set(err, -ERANGE, "no partition has a pair %u of network devices",
                             module->pair);
        // Data would go round in a circle.
        for (size_t j = 0; j < i && definition->kind == INTERCEPTOR_NET; j++)
            if (definition->modules[j].pair == module->pair &&
                strcmp(definition->modules[j].partition, module->partition) == 0)
                return error_set(err, -EINVAL,
                                 "two modules have the same pair of network devices of \"%s\"",
                                 module->partition);
    }
    return 0;
}

static int check_net(const struct interceptor_definition *definition, struct error *err)
{
    if (!definition->device)
        return error_set(err, -EINVAL, "it is not said what to intercept: give --device");
    if (strlen(definition->device) >= IFNAMSIZ || strchr(definition->device, '/'))
        return error_set(err, -EINVAL, "\"%s\" is no name of a network device", definition->device);
    if (definition->lan && (strlen(definition->lan) >= IFNAMSIZ || strchr(definition->lan, '/')))
        return error_set(err, -EINVAL, "\"%s\" is no name of a network device", definition->lan);
    if (!definition->nat && (definition->forward_count || definition->lan))
        return error_set(err, -EINVAL, "--forward and --lan need --mode nat");
    return 0;
}

static int check_files(const struct interceptor_definition *definition, struct error *err)
{
    if (!definition->path)
        return error_set(err, -EINVAL, "it is not said what to intercept: give --path");
    if (definition->infected_quarantine != (definition->quarantine != NULL))
        return error_set(err, -EINVAL, "--infected quarantine and --quarantine FOLDER go together");
    return 0;
}

static int check_mount(const struct interceptor_definition *definition, struct error *err)
{
    if (!definition->image || !definition->directory)
        return error_set(err, -EINVAL, "a mount needs an image and a directory");
    const char *name = json_string_value(json_object_get(definition->partition, "name"));
    if (definition->partition && (!name || !interceptor_definition_names(definition, name)))
        return error_set(err, -EINVAL, "the module is not in the mount's own partition");
    return 0;
}

static int check_size(const struct interceptor_definition *definition, struct error *err)
{
    json_t *object = interceptor_definition_to_json(definition);
    size_t bytes = object ? json_dumpb(object, NULL, 0, JSON_COMPACT) : 0;
    json_decref(object);
    if (bytes == 0)
        return error_set_errno(err, -ENOMEM, "cannot check an interceptor's definition");
    if (bytes > INTERCEPTOR_BYTES_MAX)
        return error_set(err, -ERANGE,
                         "the interceptor's definition is of %zu bytes: %u are possible", bytes,
                         INTERCEPTOR_BYTES_MAX);
    return 0;
}

int interceptor_definition_check(struct interceptor_definition *definition, struct error *err)
{
    static int (*const checks[])(const struct interceptor_definition *, struct error *) = {
        [INTERCEPTOR_NET] = check_net,
        [INTERCEPTOR_FILES] = check_files,
        [INTERCEPTOR_MOUNT] = check_mount,
    };
    if (!definition->name)
        return error_set(err, -EINVAL, "an interceptor needs a name");
    if (definition->kind == INTERCEPTOR_KINDS)
        return error_set(err, -EINVAL, "an interceptor needs a kind: net, files or mount");
    int rc = fill_in(definition, err);
    if (rc == 0)
        rc = check_kind(definition, err);
    if (rc == 0)
        rc = check_modules(definition, err);
    if (rc == 0)
        rc = checks[definition->kind](definition, err);
    if (rc == 0 && definition->kind != INTERCEPTOR_MOUNT && !definition->fail)
        return error_set(err, -EINVAL,
                         "it is not said what happens when the guest is down: give --fail open or "
                         "--fail closed");
    return rc < 0 ? rc : check_size(definition, err);
}

// ---- JSON ---------------------------------------------------------------------------------------

static int set_list(struct interceptor_definition *definition, const struct definition_key *key,
                    const json_t *list, struct error *err)
{
    int rc = 0;
    for (size_t i = 0; i < json_array_size(list) && rc == 0; i++) {
        const json_t *element = json_array_get(list, i);
        rc = json_is_string(element) ? key->set(definition, json_string_value(element), err)
                                     : error_set(err, -EINVAL, "a list of strings is expected");
    }
    return rc;
}

static int set_object(struct interceptor_definition *definition, const struct definition_key *key,
                      const json_t *object, struct error *err)
{
    char *text = json_dumps(object, JSON_COMPACT);
    int rc = text ? key->set(definition, text, err)
                  : error_set_errno(err, -ENOMEM, "cannot keep the value");
    free(text);
    return rc;
}

static int set_from_json(struct interceptor_definition *definition,
                         const struct definition_key *key, const json_t *value, struct error *err)
{
    char number[24];
    if (key->type == KEY_FLAG && json_is_boolean(value))
        return json_is_true(value) ? key->set(definition, "", err) : 0;
    if (key->type == KEY_FLAG)
        return error_set(err, -EINVAL, "true or false is expected");
    if (key->type == KEY_OBJECT)
        return json_is_object(value) ? set_object(definition, key, value, err)
                                     : error_set(err, -EINVAL, "an object is expected");
    if (key->type == KEY_LIST && json_is_array(value))
        return set_list(definition, key, value, err);
    if (key->type == KEY_TEXT && json_is_integer(value)) {
        snprintf(number, sizeof(number), "%lld", (long long)json_integer_value(value));
        return key->set(definition, number, err);
    }
    if (!json_is_string(value))
        return error_set(err, -EINVAL, "a %s is expected",
                         key->type == KEY_LIST ? "list of strings" : "string");
    return key->set(definition, json_string_value(value), err);
}

static int take_members(struct interceptor_definition *definition, const json_t *object,
                        struct error *err)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)object, name, value)
    {
        const struct definition_key *key = find_key(name);
        if (!key)
            return error_set(err, -EINVAL, "\"%s\" is no key of an interceptor's definition", name);
        if (set_from_json(definition, key, value, err) < 0) {
            error_prefix(err, "\"%s\" of the interceptor's definition", name);
            return -EINVAL;
        }
    }
    return interceptor_definition_check(definition, err);
}

int interceptor_definition_from_json(struct interceptor_definition *definition,
                                     const json_t *object, struct error *err)
{
    interceptor_definition_init(definition);
    int rc = json_is_object(object)
                 ? take_members(definition, object, err)
                 : error_set(err, -EINVAL, "an interceptor's definition is a JSON object");
    if (rc < 0)
        interceptor_definition_fini(definition);
    return rc;
}

static json_t *get_value(const struct definition_key *key,
                         const struct interceptor_definition *definition)
{
    json_t *element = key->get(definition, 0);
    if (!element || key->type != KEY_LIST)
        return element;
    json_t *list = json_array();
    for (size_t i = 1; element; element = key->get(definition, i++)) {
        if (json_array_append_new(list, element) < 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

json_t *interceptor_definition_to_json(const struct interceptor_definition *definition)
{
    json_t *object = json_object();
    for (size_t i = 0; object && i < BASE_COUNT_OF(keys); i++) {
        json_t *value = get_value(&keys[i], definition);
        if (value && json_object_set_new(object, keys[i].name, value) < 0) {
            json_decref(object);
            object = NULL;
        }
    }
    return object;
}
