// SPDX-License-Identifier: BSD-2-Clause
// A partition's definition: one table of keys, which the options of `strake run`, the JSON that
// people write, and the JSON that a monitor gets have in common. docs/partition.md describes them.
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jit/jit.h"
#include "monitor/monitor.h"
#include "verify/verify.h"

// ---- Values that are of one word ----------------------------------------------------------------

static int set_memory(void *bytes, const char *value, struct error *err)
{
    return parse_bytes(bytes, value, err);
}

static json_t *get_memory(const void *bytes, size_t index)
{
    return index == 0 ? key_size_to_json(*(const uint64_t *)bytes) : NULL;
}

// ---- Values that are one of several words -------------------------------------------------------

static const struct hart_engine *const engines[] = {&hart_engine_interp, &hart_engine_jit,
                                                    &hart_engine_verify};

static int set_engine(void *object, const char *value, struct error *err)
{
    struct definition *definition = object;
    static const char *const names[] = {"interp", "jit", "verify", NULL};
    int number = key_find_word(names, value, err);
    if (number >= 0)
        definition->engine = engines[number];
    return number < 0 ? number : 0;
}

static json_t *get_engine(const void *object, size_t index)
{
    const struct definition *definition = object;
    bool given = index == 0 && definition->engine != &hart_engine_jit;
    return given ? json_string(definition->engine->name) : NULL;
}

static const char *const mmu_modes[] = {"sv39", "sv48", "sv57", NULL};

static int set_mmu(void *object, const char *value, struct error *err)
{
    struct definition *definition = object;
    int number = key_find_word(mmu_modes, value, err);
    if (number >= 0)
        definition->mmu_levels = 3 + (unsigned)number;
    return number < 0 ? number : 0;
}

static json_t *get_mmu(const void *object, size_t index)
{
    const struct definition *definition = object;
    return index == 0 && definition->mmu_levels ? json_string(mmu_modes[definition->mmu_levels - 3])
                                                : NULL;
}

static const char *const restarts[] = {"never", "on-failure", "always", NULL};

const char *definition_restart_name(enum definition_restart restart)
{
    return restarts[restart];
}

static int set_restart(void *object, const char *value, struct error *err)
{
    struct definition *definition = object;
    int number = key_find_word(restarts, value, err);
    if (number >= 0)
        definition->restart = (enum definition_restart)number;
    return number < 0 ? number : 0;
}

static json_t *get_restart(const void *object, size_t index)
{
    const struct definition *definition = object;
    return index == 0 && definition->restart ? json_string(restarts[definition->restart]) : NULL;
}

static int set_windows(void *object, const char *value, struct error *err)
{
    struct definition *definition = object;
    definition->translator_option = "windows";
    definition->no_windows = strcmp(value, "off") == 0;
    return definition->no_windows || strcmp(value, "on") == 0
               ? 0
               : error_set(err, -EINVAL, "on or off");
}

static json_t *get_windows(const void *object, size_t index)
{
    const struct definition *definition = object;
    return index == 0 && definition->no_windows ? json_string("off") : NULL;
}

// ---- The translator and the log -----------------------------------------------------------------

static int set_jit_cache(void *object, const char *value, struct error *err)
{
    struct definition *definition = object;
    definition->translator_option = "jit-cache";
    return parse_bytes(&definition->jit_cache_bytes, value, err);
}

static json_t *get_jit_cache(const void *object, size_t index)
{
    const struct definition *definition = object;
    bool given = index == 0 && definition->jit_cache_bytes != JIT_CODE_BYTES;
    return given ? key_size_to_json(definition->jit_cache_bytes) : NULL;
}

static int set_perf_map(void *object, const char *value, struct error *err)
{
    struct definition *definition = object;
    definition->translator_option = "perf-map";
    definition->perf_map = true;
    if (!*value)
        return 0;
    if (definition->symbols_count == DEFINITION_SYMBOLS_MAX)
        return error_set(err, -ENOSPC, "more than %u files of symbols", DEFINITION_SYMBOLS_MAX);
    int rc = key_set_string(&definition->symbols[definition->symbols_count], value, err);
    definition->symbols_count += rc == 0;
    return rc;
}

static json_t *get_perf_map(const void *object, size_t index)
{
    const struct definition *definition = object;
    if (index == 0 && definition->perf_map && definition->symbols_count == 0)
        return json_true();
    return index < definition->symbols_count ? json_string(definition->symbols[index]) : NULL;
}

// Words with commas between them: a level, "jit".
static int set_log(void *object, const char *value, struct error *err)
{
    struct definition *definition = object;
    char words[32], *rest = words, *word;
    bool good = snprintf(words, sizeof(words), "%s", value) < (int)sizeof(words);
    while (good && (word = strsep(&rest, ","))) {
        bool jit = strcmp(word, "jit") == 0;
        if (jit)
            definition->translator_option = "log jit";
        definition->log_jit |= jit;
        good = jit || log_parse_level(&definition->log_level, word, NULL) == 0;
    }
    return good ? 0 : error_set(err, -EINVAL, "not one of error, warn, info, debug, and jit");
}

static json_t *get_log(const void *object, size_t index)
{
    const struct definition *definition = object;
    if (index > 0 || (definition->log_level == LOG_WARN && !definition->log_jit))
        return NULL;
    return json_sprintf("%s%s", log_level_name(definition->log_level),
                        definition->log_jit ? ",jit" : "");
}

// ---- Disks --------------------------------------------------------------------------------------

static const struct {
    const char *suffix;
    bool read_only;
    enum virtio_blk_aio aio;
} disk_suffixes[] = {
    {",ro", true, VIRTIO_BLK_AIO_AUTO},
    {",aio=io_uring", false, VIRTIO_BLK_AIO_URING},
    {",aio=sync", false, VIRTIO_BLK_AIO_SYNC},
};

static int set_disk(void *object, const char *value, struct error *err)
{
    struct definition *definition = object;
    if (definition->disk_count == BASE_COUNT_OF(definition->disks))
        return error_set(err, -ENOSPC, "more disks than the machine has slots");
    struct definition_disk *disk = &definition->disks[definition->disk_count];
    if (strlen(value) >= PATH_MAX)
        return error_set(err, -ENAMETOOLONG, "the name is too long");
    int rc = key_set_string(&disk->path, value, err);
    if (rc < 0)
        return rc;
    definition->disk_count++;
    // Words are taken off the end, so that a file name may have commas.
    for (size_t i = 0; i < BASE_COUNT_OF(disk_suffixes);) {
        size_t length = strlen(disk->path), suffix = strlen(disk_suffixes[i].suffix);
        if (length <= suffix ||
            strcmp(disk->path + length - suffix, disk_suffixes[i].suffix) != 0) {
            i++;
            continue;
        }
        disk->path[length - suffix] = 0;
        disk->read_only |= disk_suffixes[i].read_only;
        if (disk_suffixes[i].aio != VIRTIO_BLK_AIO_AUTO)
            disk->aio = disk_suffixes[i].aio;
        i = 0;
    }
    return *disk->path ? 0 : error_set(err, -EINVAL, "no file is named");
}

static json_t *get_disk(const void *object, size_t index)
{
    const struct definition *definition = object;
    if (index >= definition->disk_count)
        return NULL;
    const struct definition_disk *disk = &definition->disks[index];
    const char *aio = "";
    for (size_t i = 0; i < BASE_COUNT_OF(disk_suffixes); i++)
        if (!disk_suffixes[i].read_only && disk_suffixes[i].aio == disk->aio)
            aio = disk_suffixes[i].suffix;
    return json_sprintf("%s%s%s", disk->path, disk->read_only ? ",ro" : "", aio);
}

// ---- Networks -----------------------------------------------------------------------------------

static int parse_forward(struct definition_net *net, const char *text, struct error *err)
{
    if (net->forward_count == DEFINITION_FORWARDS_MAX)
        return error_set(err, -ENOSPC, "more than %u port forwards", DEFINITION_FORWARDS_MAX);
    return usernet_forward_parse(&net->forwards[net->forward_count++], text, err);
}

static int parse_station(struct definition_net *net, const char *text, struct error *err)
{
    if (parse_mac(net->mac, text, NULL) < 0 || (net->mac[0] & 1))
        return error_set(err, -EINVAL, "\"%s\" is not the MAC address of one station", text);
    net->mac_given = true;
    return 0;
}

static int parse_queues(struct definition_net *net, const char *text, struct error *err)
{
    int rc = parse_unsigned(&net->queues, text, err);
    if (rc == 0 && (net->queues == 0 || net->queues > VIRTIO_NET_PAIRS_MAX))
        rc = error_set(err, -ERANGE, "a device has 1 to %u queues", VIRTIO_NET_PAIRS_MAX);
    return rc;
}

static int parse_net_word(struct definition_net *net, char *word, bool first, struct error *err)
{
    if (first && strcmp(word, "user") == 0)
        return 0;
    if (first && strncmp(word, "tap=", 4) == 0 && word[4])
        return key_set_string(&net->tap, word + 4, err);
    if (!first && strncmp(word, "queues=", 7) == 0 && net->tap)
        return parse_queues(net, word + 7, err);
    if (!first && strncmp(word, "mac=", 4) == 0)
        return parse_station(net, word + 4, err);
    if (!first && strncmp(word, "hostfwd=", 8) == 0 && !net->tap)
        return parse_forward(net, word + 8, err);
    return error_set(err, -EINVAL, "\"%s\" is not understood", word);
}

static int set_net(void *object, const char *value, struct error *err)
{
    struct definition *definition = object;
    if (definition->net_count == BASE_COUNT_OF(definition->nets))
        return error_set(err, -ENOSPC, "more network devices than the machine has slots");
    struct definition_net *net = &definition->nets[definition->net_count++];
    net->queues = 1;
    char *copy = strdup(value);
    if (!copy)
        return error_set_errno(err, -ENOMEM, "cannot keep the value");
    bool first = true;
    int rc = 0;
    char *rest = copy, *word;
    while (rc == 0 && (word = strsep(&rest, ","))) {
        rc = parse_net_word(net, word, first, err);
        first = false;
    }
    free(copy);
    return rc;
}

static json_t *get_net(const void *object, size_t index)
{
    const struct definition *definition = object;
    if (index >= definition->net_count)
        return NULL;
    const struct definition_net *net = &definition->nets[index];
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    if (!out)
        return NULL;
    fprintf(out, "%s%s", net->tap ? "tap=" : "user", net->tap ? net->tap : "");
    if (net->queues > 1)
        fprintf(out, ",queues=%u", net->queues);
    for (size_t i = 0; i < net->forward_count; i++) {
        char forward[USERNET_FORWARD_BYTES];
        usernet_forward_print(&net->forwards[i], forward);
        fprintf(out, ",hostfwd=%s", forward);
    }
    if (net->mac_given) {
        char mac[MAC_TEXT_BYTES];
        format_mac(mac, net->mac);
        fprintf(out, ",mac=%s", mac);
    }
    json_t *value = fclose(out) == 0 ? json_string(text) : NULL;
    free(text);
    return value;
}

void definition_mac(const struct definition *definition, size_t net, uint8_t mac[6])
{
    const struct definition_net *given = &definition->nets[net];
    if (given->mac_given) {
        memcpy(mac, given->mac, sizeof(given->mac));
        return;
    }
    // Locally administered; the same in every run, and another for each partition on a bridge.
    uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
    for (const char *c = definition->name; *c; c++)
        hash = (hash ^ (uint8_t)*c) * 0x100000001b3u;
    hash = (hash ^ net) * 0x100000001b3u;
    mac[0] = 0x02;
    for (int i = 1; i < 6; i++)
        mac[i] = (uint8_t)(hash >> (8 * i));
}

// ---- vsock --------------------------------------------------------------------------------------

static int set_vsock(void *object, const char *value, struct error *err)
{
    struct definition *definition = object;
    char *end;
    errno = 0;
    uint64_t cid = strtoull(value, &end, 10);
    if (end == value || *end != ',' || !end[1] || errno)
        return error_set(err, -EINVAL, "not CID,PATH");
    if (cid < 3 || cid >= UINT32_MAX)
        return error_set(err, -EINVAL, "a guest's CID is from 3 to %u", UINT32_MAX - 1);
    definition->vsock_cid = cid;
    return key_set_string(&definition->vsock_path, end + 1, err);
}

static json_t *get_vsock(const void *object, size_t index)
{
    const struct definition *definition = object;
    if (index > 0 || !definition->vsock_cid)
        return NULL;
    return json_sprintf("%llu,%s", (unsigned long long)definition->vsock_cid,
                        definition->vsock_path);
}

// ---- The table ----------------------------------------------------------------------------------

static const struct key keys[] = {
    {"name", KEY_STRING(struct definition, name)},
    {"kernel", KEY_STRING(struct definition, kernel)},
    {"initrd", KEY_STRING(struct definition, initrd)},
    {"append", KEY_STRING(struct definition, append)},
    {"firmware", KEY_STRING(struct definition, firmware)},
    {"memory", offsetof(struct definition, memory_bytes), set_memory, get_memory, KEY_TEXT},
    {"cpus", KEY_NUMBER(struct definition, cpus)},
    {"disk", 0, set_disk, get_disk, KEY_LIST},
    {"net", 0, set_net, get_net, KEY_LIST},
    {"vsock", 0, set_vsock, get_vsock, KEY_TEXT},
    {"engine", 0, set_engine, get_engine, KEY_TEXT},
    {"jit-cache", 0, set_jit_cache, get_jit_cache, KEY_TEXT},
    {"windows", 0, set_windows, get_windows, KEY_TEXT},
    {"mmu", 0, set_mmu, get_mmu, KEY_TEXT},
    {"gdb", KEY_STRING(struct definition, gdb)},
    {"no-reboot", KEY_BOOL(struct definition, no_reboot)},
    {"stats", KEY_BOOL(struct definition, stats)},
    {"perf-map", 0, set_perf_map, get_perf_map, KEY_LIST_OR_FLAG},
    {"log", 0, set_log, get_log, KEY_TEXT},
    {"restart", 0, set_restart, get_restart, KEY_TEXT},
    {"autostart", KEY_BOOL(struct definition, autostart)},
    {"updates", KEY_BOOL(struct definition, updates)},
};

static const struct key_table table = {.keys = keys,
                                       .count = BASE_COUNT_OF(keys),
                                       .what = "a partition's definition",
                                       .bytes_max = DEFINITION_BYTES_MAX};

void definition_init(struct definition *definition)
{
    *definition = (struct definition){.memory_bytes = 512ull << 20,
                                      .cpus = 1,
                                      .engine = &hart_engine_jit,
                                      .jit_cache_bytes = JIT_CODE_BYTES,
                                      .log_level = LOG_WARN};
}

void definition_fini(struct definition *definition)
{
    free(definition->name);
    free(definition->kernel);
    free(definition->initrd);
    free(definition->append);
    free(definition->firmware);
    free(definition->vsock_path);
    free(definition->gdb);
    for (size_t i = 0; i < BASE_COUNT_OF(definition->disks); i++)
        free(definition->disks[i].path);
    for (size_t i = 0; i < BASE_COUNT_OF(definition->nets); i++)
        free(definition->nets[i].tap);
    for (size_t i = 0; i < BASE_COUNT_OF(definition->symbols); i++)
        free(definition->symbols[i]);
    definition_init(definition);
}

int definition_set(struct definition *definition, const char *key, const char *value,
                   struct error *err)
{
    return key_table_set(&table, definition, key, value, err);
}

int definition_each_path(struct definition *definition, definition_path_fn *fn, struct error *err)
{
    const struct {
        const char *key;
        char **path;
    } given[] = {{"kernel", &definition->kernel},
                 {"initrd", &definition->initrd},
                 {"firmware", &definition->firmware},
                 {"vsock", &definition->vsock_path}};
    int rc = 0;
    for (size_t i = 0; i < BASE_COUNT_OF(given) && rc == 0; i++)
        if (*given[i].path)
            rc = fn(given[i].key, given[i].path, err);
    for (size_t i = 0; i < definition->disk_count && rc == 0; i++)
        rc = fn("disk", &definition->disks[i].path, err);
    for (size_t i = 0; i < definition->symbols_count && rc == 0; i++)
        rc = fn("perf-map", &definition->symbols[i], err);
    return rc;
}

// ---- What goes together -------------------------------------------------------------------------

static int check_ranges(const struct definition *definition, struct error *err)
{
    if (definition->memory_bytes < MACHINE_MEMORY_MIN_BYTES ||
        definition->memory_bytes > MACHINE_MEMORY_MAX_BYTES)
        return error_set(err, -ERANGE,
                         "cannot give a guest %llu MiB of memory: 16M to 64G is possible",
                         (unsigned long long)definition->memory_bytes >> 20);
    if (definition->cpus < 1 || definition->cpus > HART_MAX)
        return error_set(err, -ERANGE, "cannot give a guest %u cpus: 1 to %d is possible",
                         definition->cpus, HART_MAX);
    if (definition->jit_cache_bytes < JIT_CODE_BYTES_MIN ||
        definition->jit_cache_bytes > JIT_CODE_BYTES_MAX)
        return error_set(err, -ERANGE,
                         "cannot keep %llu KiB of translated code: 128K to 256M is possible",
                         (unsigned long long)definition->jit_cache_bytes >> 10);
    if (definition->append && strlen(definition->append) > DEFINITION_APPEND_MAX)
        return error_set(err, -ERANGE,
                         "cannot give a kernel a command line of %zu bytes: %u are possible",
                         strlen(definition->append), DEFINITION_APPEND_MAX);
    return 0;
}

int definition_check(const struct definition *definition, struct error *err)
{
    if (!definition->name)
        return error_set(err, -EINVAL, "a partition needs a name: give --name");
    if (!definition->kernel && !definition->firmware)
        return error_set(err, -EINVAL, "nothing to run: give --kernel or --firmware");
    if (!definition->kernel && (definition->initrd || definition->append))
        return error_set(err, -EINVAL, "--initrd and --append need --kernel");
    if (definition->translator_option && definition->engine == &hart_engine_interp)
        return error_set(err, -EINVAL, "--%s needs the translator: --engine jit",
                         definition->translator_option);
    int rc = check_ranges(definition, err);
    return rc < 0 ? rc : key_table_check_size(&table, definition, err);
}

// ---- JSON ---------------------------------------------------------------------------------------

int definition_from_json(struct definition *definition, const json_t *object, struct error *err)
{
    definition_init(definition);
    int rc = key_table_from_json(&table, definition, object, err);
    if (rc == 0)
        rc = definition_check(definition, err);
    if (rc < 0)
        definition_fini(definition);
    return rc;
}

json_t *definition_to_json(const struct definition *definition)
{
    return key_table_to_json(&table, definition);
}
