// SPDX-License-Identifier: BSD-2-Clause
// The manifest, as far as a guest needs it. The host is the one who is strict about all of it; what
// becomes a path or an argument of a program is checked here.
#include <stdlib.h>
#include <string.h>

#include "update.h"

static bool is_plain(const char *text, const char *more)
{
    if (!*text || *text == '.' || *text == '-')
        return false;
    for (; *text; text++)
        if (!((*text >= 'a' && *text <= 'z') || (*text >= 'A' && *text <= 'Z') ||
              (*text >= '0' && *text <= '9') || strchr(more, *text)))
            return false;
    return true;
}

// "NAME" or "guest/NAME".
static bool is_file_name(const char *file)
{
    return is_plain(strncmp(file, "guest/", 6) == 0 ? file + 6 : file, "._+~-%");
}

static bool take_file(const struct json *json, unsigned object, struct manifest_file *file)
{
    return json_string(json, object, "file", file->file, sizeof(file->file)) &&
           is_file_name(file->file) && json_number(json, object, "bytes", &file->bytes) &&
           file->bytes <= FILE_BYTES_MAX &&
           json_string(json, object, "sha256", file->sha256, sizeof(file->sha256)) &&
           strlen(file->sha256) == SHA256_HEX - 1;
}

static bool take_monitor(const struct json *json, unsigned object, struct manifest_monitor *monitor)
{
    unsigned base = json_member(json, object, "base");

    return take_file(json, object, &monitor->payload) &&
           (!base || json_string(json, base, "sha256", monitor->base, sizeof(monitor->base)));
}

static bool take_guest(const struct json *json, unsigned object, struct manifest_guest *guest)
{
    return take_file(json, object, &guest->payload) &&
           json_string(json, object, "package", guest->package, sizeof(guest->package)) &&
           is_plain(guest->package, ".+-") &&
           json_string(json, object, "version", guest->version, sizeof(guest->version)) &&
           is_plain(guest->version, "._+~:-") &&
           json_string(json, object, "architecture", guest->architecture,
                       sizeof(guest->architecture)) &&
           is_plain(guest->architecture, "-");
}

static bool take_lists(struct manifest *manifest, const struct json *json)
{
    unsigned monitor = json_member(json, 0, "monitor"), guest = json_member(json, 0, "guest");
    unsigned entry;

    for (unsigned i = 0; (entry = json_element(json, monitor, i)) != 0; i++)
        if (manifest->monitor_count == MONITOR_MAX ||
            !take_monitor(json, entry, &manifest->monitor[manifest->monitor_count++]))
            return false;
    for (unsigned i = 0; (entry = json_element(json, guest, i)) != 0; i++)
        if (manifest->guest_count == GUEST_MAX ||
            !take_guest(json, entry, &manifest->guest[manifest->guest_count++]))
            return false;
    return manifest->monitor_count > 0;
}

int manifest_parse(struct manifest *manifest, const char *text, size_t count, struct fault *fault)
{
    struct json *json = malloc(sizeof(*json));
    uint64_t format = 0;

    *manifest = (struct manifest){.monitor_count = 0};
    bool whole = json && json_parse(json, text, count) && json_number(json, 0, "format", &format) &&
                 json_string(json, 0, "version", manifest->version, sizeof(manifest->version)) &&
                 is_plain(manifest->version, ".+~-") && take_lists(manifest, json);
    free(json);
    if (!whole)
        return fault_set(fault, OUTCOME_BAD_PACKAGE,
                         "'manifest.json' is not what a manifest looks like");
    if (format != 1)
        return fault_set(fault, OUTCOME_BAD_PACKAGE,
                         "the package has format %llu, and this strake-update knows format 1",
                         (unsigned long long)format);
    return 0;
}

const struct manifest_file *manifest_find(const struct manifest *manifest, const char *file)
{
    for (unsigned i = 0; i < manifest->monitor_count; i++)
        if (!strcmp(manifest->monitor[i].payload.file, file))
            return &manifest->monitor[i].payload;
    for (unsigned i = 0; i < manifest->guest_count; i++)
        if (!strcmp(manifest->guest[i].payload.file, file))
            return &manifest->guest[i].payload;
    return NULL;
}

// ---- Versions ----------------------------------------------------------------------------------

bool version_is(const char *text)
{
    for (;;) {
        size_t digits = strspn(text, "0123456789");
        if (digits == 0 || (text[digits] && text[digits] != '.'))
            return false;
        if (!text[digits])
            return true;
        text += digits + 1;
    }
}

int version_compare(const char *a, const char *b)
{
    for (;;) {
        char *a_end, *b_end;
        unsigned long a_number = strtoul(a, &a_end, 10), b_number = strtoul(b, &b_end, 10);
        if (a_number != b_number)
            return a_number < b_number ? -1 : 1;
        if (*a_end != '.' || *b_end != '.')
            return (*a_end == '.') - (*b_end == '.');
        a = a_end + 1;
        b = b_end + 1;
    }
}
