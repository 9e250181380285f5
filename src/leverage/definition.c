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
    const char *run;
    unsigned time_limit_ms;
} kinds[INTERCEPTOR_KINDS] = {
    [INTERCEPTOR_NET] = {"firewall", 2000},
    [INTERCEPTOR_FILES] = {"clamav", 10000},
    [INTERCEPTOR_MOUNT] = {"mount", 30000},
};

// It is the name of files, and a part of names in nftables and of devices.
static int set_name(void *name, const char *value, struct error *err)
{
    static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    size_t length = strspn(value, good);
    if (value[length] || length > INTERCEPTOR_NAME_MAX || (*value && strchr("-_.", *value)))
        return error_set(err, -EINVAL,
                         "a name has letters, digits, and then also - _ . (at most %u)",
                         INTERCEPTOR_NAME_MAX);
    return key_set_string(name, value, err);
}

// ---- Values that are one of several words -------------------------------------------------------

#define WORD_KEY(key, member, type, first, ...)                                                    \
    static const char *const words_##key[] = {__VA_ARGS__, NULL};                                  \
    static int set_##key(void *object, const char *value, struct error *err)                       \
    {                                                                                              \
        struct interceptor_definition *definition = object;                                        \
        int number = key_find_word(words_##key, value, err);                                       \
        if (number >= 0)                                                                           \
            definition->member = (type)(number + (first));                                         \
        return number < 0 ? number : 0;                                                            \
    }

WORD_KEY(kind, kind, enum interceptor_kind, 0, "net", "files", "mount")
WORD_KEY(verdict, verdict, enum interceptor_verdict, 0, "enforce", "observe")
WORD_KEY(fail, fail, enum interceptor_fail, INTERCEPTOR_FAIL_OPEN, "open", "closed")
WORD_KEY(mode, nat, bool, 0, "inline", "nat")
WORD_KEY(infected, infected_quarantine, bool, 0, "deny", "quarantine")

const char *interceptor_kind_name(enum interceptor_kind kind)
{
    return words_kind[kind];
}

static json_t *get_kind(const void *object, size_t index)
{
    const struct interceptor_definition *definition = object;
    bool given = index == 0 && definition->kind < INTERCEPTOR_KINDS;
    return given ? json_string(words_kind[definition->kind]) : NULL;
}

static json_t *get_verdict(const void *object, size_t index)
{
    const struct interceptor_definition *definition = object;
    bool given = index == 0 && definition->verdict != INTERCEPTOR_ENFORCE;
    return given ? json_string(words_verdict[definition->verdict]) : NULL;
}

static json_t *get_fail(const void *object, size_t index)
{
    const struct interceptor_definition *definition = object;
    bool given = index == 0 && definition->fail != INTERCEPTOR_FAIL_NOT_GIVEN;
    return given ? json_string(words_fail[definition->fail - INTERCEPTOR_FAIL_OPEN]) : NULL;
}

static json_t *get_mode(const void *object, size_t index)
{
    const struct interceptor_definition *definition = object;
    return index == 0 && definition->nat ? json_string("nat") : NULL;
}

static json_t *get_infected(const void *object, size_t index)
{
    const struct interceptor_definition *definition = object;
    return index == 0 && definition->infected_quarantine ? json_string("quarantine") : NULL;
}

// ---- Modules ------------------------------------------------------------------------------------

static int parse_module_word(struct interceptor_module *module, const char *word, struct error *err)
{
    if (strncmp(word, "run=", 4) == 0)
        return key_set_string(&module->run, word + 4, err);
    if (strncmp(word, "config=", 7) == 0)
        return key_set_string(&module->config, word + 7, err);
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

static int set_module(void *object, const char *value, struct error *err)
{
    struct interceptor_definition *definition = object;
    if (definition->module_count == INTERCEPTOR_MODULES_MAX)
        return error_set(err, -ENOSPC, "more than %u modules", INTERCEPTOR_MODULES_MAX);
    struct interceptor_module *module = &definition->modules[definition->module_count];
    char *copy = strdup(value), *rest = copy, *word;
    if (!copy)
        return error_set_errno(err, -ENOMEM, "cannot keep the value");
    int rc = key_set_string(&module->partition, strsep(&rest, ","), err);
    while (rc == 0 && (word = strsep(&rest, ",")))
        rc = parse_module_word(module, word, err);
    free(copy);
    if (rc < 0)
        module_fini(module);
    definition->module_count += rc == 0;
    return rc;
}

static json_t *get_module(const void *object, size_t index)
{
    const struct interceptor_definition *definition = object;
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

static int set_forward(void *object, const char *value, struct error *err)
{
    struct interceptor_definition *definition = object;
    if (definition->forward_count == INTERCEPTOR_FORWARDS_MAX)
        return error_set(err, -ENOSPC, "more than %u port forwards", INTERCEPTOR_FORWARDS_MAX);
    if (parse_forward(&definition->forwards[definition->forward_count], value) < 0)
        return error_set(err, -EINVAL, "not tcp:PORT-ADDR:PORT or udp:PORT-ADDR:PORT");
    definition->forward_count++;
    return 0;
}

static json_t *get_forward(const void *object, size_t index)
{
    const struct interceptor_definition *definition = object;
    if (index >= definition->forward_count)
        return NULL;
    const struct interceptor_forward *forward = &definition->forwards[index];
    char address[INET_ADDRSTRLEN];
    inet_ntop(AF_INET, forward->address, address, sizeof(address));
    return json_sprintf("%s:%u-%s:%u", forward->udp ? "udp" : "tcp", forward->port, address,
                        forward->to_port);
}

// ---- Times, sizes, the rest ---------------------------------------------------------------------

static int set_time_limit(void *object, const char *value, struct error *err)
{
    struct interceptor_definition *definition = object;
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

static json_t *get_time_limit(const void *object, size_t index)
{
    const struct interceptor_definition *definition = object;
    unsigned ms = definition->time_limit_ms;
    bool usual =
        definition->kind < INTERCEPTOR_KINDS && ms == kinds[definition->kind].time_limit_ms;
    if (index > 0 || ms == 0 || usual)
        return NULL;
    return ms % 1000 ? json_sprintf("%ums", ms) : json_sprintf("%us", ms / 1000);
}

static int set_log(void *object, const char *value, struct error *err)
{
    struct interceptor_definition *definition = object;
    return log_parse_level(&definition->log_level, value, err);
}

static json_t *get_log(const void *object, size_t index)
{
    const struct interceptor_definition *definition = object;
    bool given = index == 0 && definition->log_level != LOG_WARN;
    return given ? json_string(log_level_name(definition->log_level)) : NULL;
}

static int set_size_limit(void *object, const char *value, struct error *err)
{
    struct interceptor_definition *definition = object;
    return parse_bytes(&definition->size_limit_bytes, value, err);
}

static json_t *get_size_limit(const void *object, size_t index)
{
    const struct interceptor_definition *definition = object;
    bool given = index == 0 && definition->size_limit_bytes != SIZE_LIMIT_BYTES;
    return given ? key_size_to_json(definition->size_limit_bytes) : NULL;
}

static int set_partition(void *object, const char *value, struct error *err)
{
    struct interceptor_definition *definition = object;
    struct definition partition;
    json_t *json = json_loads(value, JSON_REJECT_DUPLICATES, NULL);
    if (!json)
        return error_set(err, -EINVAL, "it is no JSON");
    int rc = definition_from_json(&partition, json, err);
    if (rc < 0) {
        json_decref(json);
        return rc;
    }
    definition_fini(&partition);
    json_decref(definition->partition);
    definition->partition = json;
    return 0;
}

static json_t *get_partition(const void *object, size_t index)
{
    const struct interceptor_definition *definition = object;
    return index == 0 && definition->partition ? json_deep_copy(definition->partition) : NULL;
}

// ---- The table ----------------------------------------------------------------------------------

enum { NET = 1 << INTERCEPTOR_NET, FILES = 1 << INTERCEPTOR_FILES, MOUNT = 1 << INTERCEPTOR_MOUNT };

static const struct key keys[] = {
    {"name", offsetof(struct interceptor_definition, name), set_name, key_get_string, KEY_TEXT,
     NET | FILES | MOUNT},
    {"kind", 0, set_kind, get_kind, KEY_TEXT, NET | FILES | MOUNT},
    {"module", 0, set_module, get_module, KEY_LIST, NET | FILES | MOUNT},
    {"verdict", 0, set_verdict, get_verdict, KEY_TEXT, NET | FILES},
    {"fail", 0, set_fail, get_fail, KEY_TEXT, NET | FILES},
    {"time-limit", 0, set_time_limit, get_time_limit, KEY_TEXT, NET | FILES | MOUNT},
    {"log", 0, set_log, get_log, KEY_TEXT, NET | FILES | MOUNT},
    {"device", KEY_STRING(struct interceptor_definition, device), NET},
    {"mode", 0, set_mode, get_mode, KEY_TEXT, NET},
    {"match", KEY_STRING(struct interceptor_definition, match), NET},
    {"match-out", KEY_STRING(struct interceptor_definition, match_out), NET},
    {"forward", 0, set_forward, get_forward, KEY_LIST, NET},
    {"lan", KEY_STRING(struct interceptor_definition, lan), NET},
    {"path", KEY_STRING(struct interceptor_definition, path), FILES},
    {"infected", 0, set_infected, get_infected, KEY_TEXT, FILES},
    {"quarantine", KEY_STRING(struct interceptor_definition, quarantine), FILES},
    {"size-limit", 0, set_size_limit, get_size_limit, KEY_TEXT, FILES},
    {"image", KEY_STRING(struct interceptor_definition, image), MOUNT},
    {"directory", KEY_STRING(struct interceptor_definition, directory), MOUNT},
    {"disk", KEY_NUMBER(struct interceptor_definition, disk), MOUNT},
    {"part", KEY_NUMBER(struct interceptor_definition, part), MOUNT},
    {"type", KEY_STRING(struct interceptor_definition, type), MOUNT},
    {"read-only", KEY_BOOL(struct interceptor_definition, read_only), MOUNT},
    {"passphrase-file", KEY_STRING(struct interceptor_definition, passphrase_file), MOUNT},
    {"partition", 0, set_partition, get_partition, KEY_OBJECT, MOUNT},
};

static const struct key_table table = {.keys = keys,
                                       .count = BASE_COUNT_OF(keys),
                                       .what = "an interceptor's definition",
                                       .bytes_max = INTERCEPTOR_BYTES_MAX};

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
    return key_table_set(&table, definition, key, value, err);
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
        json_t *value = key_get(&keys[i], definition);
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
    return rc < 0 ? rc : key_table_check_size(&table, definition, err);
}

// ---- JSON ---------------------------------------------------------------------------------------

int interceptor_definition_from_json(struct interceptor_definition *definition,
                                     const json_t *object, struct error *err)
{
    interceptor_definition_init(definition);
    int rc = key_table_from_json(&table, definition, object, err);
    if (rc == 0)
        rc = interceptor_definition_check(definition, err);
    if (rc < 0)
        interceptor_definition_fini(definition);
    return rc;
}

json_t *interceptor_definition_to_json(const struct interceptor_definition *definition)
{
    return key_table_to_json(&table, definition);
}
