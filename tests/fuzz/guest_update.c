// SPDX-License-Identifier: BSD-2-Clause
// What the guest's updater parses of what comes from outside: manifests, the host's JSON, tar, ar,
// HTTP and DNS. The first byte says which of them the others are.
#include "../../guest/update/update.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../guest/update/resolve.h"
#include "replay.h"

static void require(bool holds)
{
    if (!holds)
        abort();
}

// A name stays in the folder that it is used in.
static void require_inside(const char *name)
{
    char around[PATH_BYTES + 4];

    snprintf(around, sizeof(around), "/%s/", name);
    require(*name && *name != '/' && !strstr(around, "/../") && !strstr(around, "//") &&
            !strchr(name, '\n') && strlen(name) < PATH_BYTES);
}

static void parse_tar(int fd)
{
    struct tar tar = {.fd = fd};
    struct tar_entry entry;
    struct fault fault;
    char bytes[100];
    ssize_t got = 0;

    while (tar_next(&tar, &entry, &fault) > 0) {
        require_inside(entry.name);
        require(entry.bytes <= FILE_BYTES_MAX && entry.mode <= 0777);
        uint64_t sum = 0;
        // Some are read, others passed over.
        while ((entry.mode & 1) && (got = tar_read(&tar, bytes, sizeof(bytes), &fault)) > 0)
            sum += (uint64_t)got;
        require(!(entry.mode & 1) || got < 0 || sum == entry.bytes);
        if (got < 0)
            break;
    }
}

static void parse_ar(int fd)
{
    char name[17];
    uint64_t bytes;
    struct fault fault;

    if (ar_find(fd, "data.tar", name, &bytes, &fault) == 0)
        require(bytes <= FILE_BYTES_MAX && !strncmp(name, "data.tar", 8));
}

static void parse_json(const char *text, size_t count)
{
    struct json *json = malloc(sizeof(*json));
    char value[64];
    uint64_t number;

    if (json_parse(json, text, count)) {
        for (unsigned i = 0; i < json->count; i++) {
            const struct json_value *at = &json->values[i];
            require(at->start <= at->end && at->end <= count && at->next > i &&
                    at->next <= json->count);
            json_element(json, i, 3);
            json_number(json, i, "a", &number);
            if (json_string(json, i, "a", value, sizeof(value)))
                require(strlen(value) < sizeof(value));
        }
    }
    free(json);
}

static void parse_manifest(const char *text, size_t count)
{
    struct manifest *manifest = malloc(sizeof(*manifest));
    struct fault fault = {.outcome = OUTCOME_DONE};

    if (manifest_parse(manifest, text, count, &fault) == 0) {
        require(manifest->monitor_count > 0 && manifest->monitor_count <= MONITOR_MAX &&
                manifest->guest_count <= GUEST_MAX);
        for (unsigned i = 0; i < manifest->guest_count; i++) {
            require_inside(manifest->guest[i].payload.file);
            require(!strchr(manifest->guest[i].package, '/') &&
                    *manifest->guest[i].package != '-' && !strchr(manifest->guest[i].version, '/'));
        }
    } else {
        require(fault.outcome == OUTCOME_BAD_PACKAGE && *fault.message);
    }
    free(manifest);
}

static void parse_http(const char *text, size_t count)
{
    struct http_head head;
    struct http_url url;

    if (http_head_parse(text, count, &head))
        require(head.status >= 100 && head.status <= 999);
    if (http_url_parse(text, &url))
        require(*url.host && *url.path == '/' && !strpbrk(url.path, " \r\n") &&
                !strpbrk(url.host, " \r\n"));
}

static void parse_dns(const char *text, size_t count)
{
    struct in_addr address;
    uint8_t question[RESOLVE_MESSAGE_MAX];

    resolve_answer((const uint8_t *)text, count, 0, &address);
    size_t length = resolve_question(text, 0, question);
    require(length <= sizeof(question) && !resolve_answer(question, length, 0, &address));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    if (count == 0)
        return 0;
    unsigned kind = *bytes++ % 6;
    char *text = malloc(count);  // with a NUL behind it
    memcpy(text, bytes, --count);
    text[count] = 0;
    if (kind < 2) {
        int fd = memfd_create("fuzz", MFD_CLOEXEC);
        if (fd < 0 || write_all(fd, text, count) || lseek(fd, 0, SEEK_SET))
            abort();
        (kind == 0 ? parse_tar : parse_ar)(fd);
        close(fd);
    } else {
        static void (*const parsers[])(const char *, size_t) = {parse_json, parse_manifest,
                                                                parse_http, parse_dns};
        parsers[kind - 2](text, count);
    }
    free(text);
    return 0;
}
