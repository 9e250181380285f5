// SPDX-License-Identifier: BSD-2-Clause
// The manifest: JSON to struct and back. docs/manifest.schema.json says the same for other
// programs; tests/system/package.py compares the two.
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "package/package.h"

#define TEXT_MAX_BYTES 128u    // of a word: product, package, ...
#define NUMBER_MAX 1000000000  // epoch, state version; a number of a version has nine digits
#define VERSION_NUMBERS_MAX 8u

struct manifest {
    struct package_manifest public;
    json_t *json;  // holds the strings
};

// ---- Versions and times -------------------------------------------------------------------------

// Length of the decimal number at `text`, of up to nine digits and no leading zeros; 0: there is
// none.
static size_t number_length(const char *text)
{
    size_t digits = strspn(text, "0123456789");

    return digits > 9 || (digits > 1 && *text == '0') ? 0 : digits;
}

bool package_version_valid(const char *version)
{
    if (strlen(version) > PACKAGE_VERSION_MAX)
        return false;
    for (unsigned i = 0; i < VERSION_NUMBERS_MAX; i++) {
        size_t length = number_length(version);
        if (length == 0 || version[length] == '\0')
            return length > 0;
        if (version[length] != '.')
            return false;
        version += length + 1;
    }
    return false;
}

int package_version_compare(const char *a, const char *b)
{
    for (;;) {
        char *a_end, *b_end;
        unsigned long x = strtoul(a, &a_end, 10), y = strtoul(b, &b_end, 10);
        if (x != y)
            return x < y ? -1 : 1;
        if (!*a_end || !*b_end)
            return (*a_end != 0) - (*b_end != 0);
        a = a_end + 1;
        b = b_end + 1;
    }
}

void package_time_format(char text[PACKAGE_TIME_CHARS], int64_t seconds)
{
    struct tm tm;
    time_t time = seconds;

    if (!gmtime_r(&time, &tm) || strftime(text, PACKAGE_TIME_CHARS, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        *text = '\0';
}

int package_time_parse(int64_t *seconds, const char *text, struct error *err)
{
    struct tm tm = {0};
    char again[PACKAGE_TIME_CHARS] = "";
    const char *end = strptime(text, "%Y-%m-%dT%H:%M:%SZ", &tm);

    if (end && !*end && strlen(text) == PACKAGE_TIME_CHARS - 1) {
        *seconds = timegm(&tm);
        package_time_format(again, *seconds);
    }
    // What is no date (30 February), or written in another way, does not come back as it was.
    if (!*again || strcmp(text, again) != 0)
        return error_set(err, -EINVAL, "\"%.40s\" is no time such as 2027-11-22T00:00:00Z", text);
    return 0;
}

// ---- Words --------------------------------------------------------------------------------------

#define LOWER "abcdefghijklmnopqrstuvwxyz"
#define DIGITS "0123456789"
#define FILE_CHARS LOWER "ABCDEFGHIJKLMNOPQRSTUVWXYZ" DIGITS "._+~-"

// Whether `text` is 1 to `max` characters of `set`, and starts with a letter or digit.
static bool is_word(const char *text, const char *set, size_t max)
{
    size_t length = strspn(text, set);

    return length > 0 && length <= max && !text[length] && !strchr("._+~-", *text);
}

static bool is_digest(const char *text)
{
    return strspn(text, DIGITS "abcdef") == PACKAGE_DIGEST_CHARS - 1 &&
           !text[PACKAGE_DIGEST_CHARS - 1];
}

// Whether `name` is `before`, a word for a file, and `after`.
static bool is_name(const char *name, const char *before, const char *after)
{
    size_t length = strlen(name), head = strlen(before), tail = strlen(after);

    return length <= PACKAGE_NAME_MAX && length > head + tail && strncmp(name, before, head) == 0 &&
           strcmp(name + length - tail, after) == 0 &&
           is_word(name + head, FILE_CHARS, PACKAGE_NAME_MAX);
}

// Notes are shown on terminals: nothing in them may control one. In UTF-8, U+0080 to U+009F are C2
// and a byte up to 9F.
static bool is_plain(const char *text)
{
    for (const unsigned char *c = (const unsigned char *)text; *c; c++)
        if ((*c < ' ' && *c != '\n' && *c != '\t') || *c == 0x7f || (*c == 0xc2 && c[1] < 0xa0))
            return false;
    return true;
}

// ---- From JSON ----------------------------------------------------------------------------------

static int refuse(struct error *err, const char *key, const char *why)
{
    return error_set(err, -EINVAL, "\"%s\" %s", key, why);
}

// What json_unpack says of keys and types.
static int refuse_shape(struct error *err, const json_error_t *fault)
{
    return error_set(err, -EINVAL, "%s", fault->text);
}

static int take_digest(char out[PACKAGE_DIGEST_CHARS], const char *text, struct error *err)
{
    if (!is_digest(text))
        return refuse(err, "sha256", "is not 64 lower-case hexadecimal digits");
    memcpy(out, text, PACKAGE_DIGEST_CHARS);
    return 0;
}

static int take_bytes(uint64_t *out, json_int_t bytes, struct error *err)
{
    if (bytes < 1 || (uint64_t)bytes >= PACKAGE_FILE_MAX_BYTES)
        return refuse(err, "bytes", "is out of range");
    *out = (uint64_t)bytes;
    return 0;
}

static int take_file(struct package_file *file, const char *name, json_int_t bytes,
                     const char *digest, struct error *err)
{
    int rc = take_bytes(&file->bytes, bytes, err);

    file->name = name;
    return rc < 0 ? rc : take_digest(file->sha256, digest, err);
}

static int take_base(struct package_payload *payload, json_t *base, struct error *err)
{
    json_error_t fault;
    const char *digest;

    if (json_unpack_ex(base, &fault, JSON_STRICT, "{s:s,s:s}", "version", &payload->base_version,
                       "sha256", &digest) < 0)
        return refuse_shape(err, &fault);
    if (!package_version_valid(payload->base_version))
        return refuse(err, "version", "is no version such as 0.2.0");
    return take_digest(payload->base_sha256, digest, err);
}

static int take_payload(struct package_payload *payload, json_t *json, struct error *err)
{
    json_error_t fault;
    const char *name, *digest;
    json_int_t bytes;
    json_t *base = NULL;

    if (json_unpack_ex(json, &fault, JSON_STRICT, "{s:s,s:I,s:s,s?o}", "file", &name, "bytes",
                       &bytes, "sha256", &digest, "base", &base) < 0)
        return refuse_shape(err, &fault);
    if (!is_name(name, "monitor-", ".zst"))
        return refuse(err, "file", "is no name such as monitor-full.zst");
    int rc = take_file(&payload->file, name, bytes, digest, err);
    if (rc == 0 && base && (rc = take_base(payload, base, err)) < 0)
        error_prefix(err, "\"base\"");
    return rc;
}

static int take_extension(struct package_extension *extension, json_t *json, struct error *err)
{
    json_error_t fault;
    const char *name, *digest;
    json_int_t bytes;

    if (json_unpack_ex(json, &fault, JSON_STRICT, "{s:s,s:s,s:s,s:s,s:I,s:s}", "file", &name,
                       "package", &extension->package, "version", &extension->version,
                       "architecture", &extension->architecture, "bytes", &bytes, "sha256",
                       &digest) < 0)
        return refuse_shape(err, &fault);
    if (!is_name(name, "guest/", ".deb"))
        return refuse(err, "file", "is no name such as guest/NAME.deb");
    // deb-control(5); a version's epoch would not be in the file's name, so there is none.
    if (!is_word(extension->package, LOWER DIGITS "+-.", TEXT_MAX_BYTES))
        return refuse(err, "package", "is no name of a Debian package");
    if (!is_word(extension->version, FILE_CHARS, TEXT_MAX_BYTES))
        return refuse(err, "version", "is no version of a Debian package");
    if (!is_word(extension->architecture, LOWER DIGITS "-", TEXT_MAX_BYTES))
        return refuse(err, "architecture", "is no name of an architecture");
    return take_file(&extension->file, name, bytes, digest, err);
}

static int take_payloads(struct package_manifest *manifest, json_t *list, struct error *err)
{
    size_t count = json_array_size(list);

    if (!json_is_array(list) || count < 1 || count > PACKAGE_PAYLOADS_MAX)
        return refuse(err, "monitor", "is no list of 1 to 16");
    manifest->payloads = calloc(count, sizeof(*manifest->payloads));
    if (!manifest->payloads)
        return error_set_errno(err, -ENOMEM, "there is no memory");
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < count; i++, manifest->payload_count++)
        if ((rc = take_payload(&manifest->payloads[i], json_array_get(list, i), err)) < 0)
            error_prefix(err, "\"monitor\", item %zu", i);
    return rc;
}

static int take_extensions(struct package_manifest *manifest, json_t *list, struct error *err)
{
    size_t count = json_array_size(list);

    if (!json_is_array(list) || count > PACKAGE_EXTENSIONS_MAX)
        return refuse(err, "guest", "is no list of up to 64");
    manifest->extensions = calloc(count + !count, sizeof(*manifest->extensions));
    if (!manifest->extensions)
        return error_set_errno(err, -ENOMEM, "there is no memory");
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < count; i++, manifest->extension_count++)
        if ((rc = take_extension(&manifest->extensions[i], json_array_get(list, i), err)) < 0)
            error_prefix(err, "\"guest\", item %zu", i);
    return rc;
}

static int take_program(struct package_manifest *manifest, json_t *program, struct error *err)
{
    json_error_t fault;
    const char *digest;
    json_int_t bytes;

    if (json_unpack_ex(program, &fault, JSON_STRICT, "{s:I,s:s}", "bytes", &bytes, "sha256",
                       &digest) < 0)
        return refuse_shape(err, &fault);
    int rc = take_bytes(&manifest->program_bytes, bytes, err);
    return rc < 0 ? rc : take_digest(manifest->program_sha256, digest, err);
}

static int take_states(struct package_manifest *manifest, json_t *state, struct error *err)
{
    json_error_t fault;
    json_int_t oldest, newest;

    if (json_unpack_ex(state, &fault, JSON_STRICT, "{s:I,s:I}", "oldest", &oldest, "newest",
                       &newest) < 0)
        return refuse_shape(err, &fault);
    if (oldest < 1 || newest < oldest || newest > NUMBER_MAX)
        return error_set(err, -EINVAL, "the range is none");
    manifest->state_oldest = (unsigned)oldest;
    manifest->state_newest = (unsigned)newest;
    return 0;
}

// The strings and numbers at the top.
static int take_head(struct package_manifest *manifest, json_int_t format, json_int_t epoch,
                     const char *expires, struct error *err)
{
    if (format != PACKAGE_FORMAT)
        return error_set(err, -EINVAL, "\"format\" is %lld, and only 1 is understood",
                         (long long)format);
    if (!is_word(manifest->product, LOWER DIGITS "-", TEXT_MAX_BYTES))
        return refuse(err, "product", "is not lower-case letters, digits and hyphens");
    if (!is_word(manifest->architecture, LOWER DIGITS "_-", TEXT_MAX_BYTES))
        return refuse(err, "architecture", "is no name of an architecture");
    if (!package_version_valid(manifest->version))
        return refuse(err, "version", "is no version such as 0.2.0");
    if (epoch < 1 || epoch > NUMBER_MAX)
        return refuse(err, "epoch", "is out of range");
    if (strlen(manifest->notes) > PACKAGE_NOTES_MAX_BYTES || !is_plain(manifest->notes))
        return refuse(err, "notes", "is too long or has control characters");
    manifest->epoch = (unsigned)epoch;
    int rc = package_time_parse(&manifest->expires_s, expires, err);
    if (rc < 0)
        error_prefix(err, "\"expires\"");
    return rc;
}

static int take_all(struct manifest *manifest, struct error *err)
{
    struct package_manifest *public = &manifest->public;
    json_error_t fault;
    json_int_t format, epoch;
    json_t *state, *program, *monitor, *guest;
    const char *expires;

    if (json_unpack_ex(
            manifest->json, &fault, JSON_STRICT, "{s:I,s:s,s:s,s:I,s:s,s:o,s:o,s:o,s:o,s:s,s:s}",
            "format", &format, "product", &public->product, "version", &public->version, "epoch",
            &epoch, "architecture", &public->architecture, "state", &state, "program", &program,
            "monitor", &monitor, "guest", &guest, "expires", &expires, "notes", &public->notes) < 0)
        return refuse_shape(err, &fault);
    int rc = take_head(public, format, epoch, expires, err);
    if (rc == 0 && (rc = take_states(public, state, err)) < 0)
        error_prefix(err, "\"state\"");
    if (rc == 0 && (rc = take_program(public, program, err)) < 0)
        error_prefix(err, "\"program\"");
    if (rc == 0)
        rc = take_payloads(public, monitor, err);
    return rc < 0 ? rc : take_extensions(public, guest, err);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int check_names(const struct package_manifest *manifest, struct error *err)
{
    const char *names[PACKAGE_PAYLOADS_MAX + PACKAGE_EXTENSIONS_MAX];
    size_t count = 0;

    for (size_t i = 0; i < manifest->payload_count; i++)
        names[count++] = manifest->payloads[i].file.name;
    for (size_t i = 0; i < manifest->extension_count; i++)
        names[count++] = manifest->extensions[i].file.name;
    qsort(names, count, sizeof(*names), compare_names);
    for (size_t i = 1; i < count; i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            return error_set(err, -EINVAL, "\"%s\" is named twice", names[i]);
    return 0;
}

static int parse(struct manifest *manifest, const void *bytes, size_t length_bytes,
                 struct error *err)
{
    json_error_t fault;

    if (length_bytes > PACKAGE_MANIFEST_MAX_BYTES)
        return error_set(err, -E2BIG, "it is longer than %u bytes", PACKAGE_MANIFEST_MAX_BYTES);
    manifest->json = json_loadb(bytes, length_bytes, JSON_REJECT_DUPLICATES, &fault);
    if (!manifest->json)
        return error_set(err, -EINVAL, "line %d: %s", fault.line, fault.text);
    int rc = take_all(manifest, err);
    return rc < 0 ? rc : check_names(&manifest->public, err);
}

// What is wrong is told with words of the manifest's at times, and shown on terminals.
static void make_plain(struct error *err)
{
    for (char *c = err ? err->message : ""; *c; c++)
        if (*c < ' ' || *c > '~')
            *c = '?';
}

int package_manifest_parse(struct package_manifest **out, const void *bytes, size_t length_bytes,
                           struct error *err)
{
    struct manifest *manifest = calloc(1, sizeof(*manifest));

    if (!manifest)
        return error_set_errno(err, -ENOMEM, "cannot read the manifest");
    int rc = parse(manifest, bytes, length_bytes, err);
    if (rc < 0) {
        make_plain(err);
        error_prefix(err, "the manifest is refused");
        package_manifest_destroy(&manifest->public);
        return rc;
    }
    *out = &manifest->public;
    return 0;
}

void package_manifest_destroy(struct package_manifest *public)
{
    if (!public)
        return;
    struct manifest *manifest = BASE_CONTAINER_OF(public, struct manifest, public);
    json_decref(manifest->json);
    free(public->payloads);
    free(public->extensions);
    free(manifest);
}

// ---- To JSON ------------------------------------------------------------------------------------

static json_t *payload_to_json(const struct package_payload *payload)
{
    json_t *base = NULL;

    if (payload->base_version)
        base = json_pack("{s:s,s:s}", "version", payload->base_version, "sha256",
                         payload->base_sha256);
    return json_pack("{s:s,s:I,s:s,s:o*}", "file", payload->file.name, "bytes",
                     (json_int_t)payload->file.bytes, "sha256", payload->file.sha256, "base", base);
}

static json_t *extension_to_json(const struct package_extension *extension)
{
    return json_pack("{s:s,s:s,s:s,s:s,s:I,s:s}", "file", extension->file.name, "package",
                     extension->package, "version", extension->version, "architecture",
                     extension->architecture, "bytes", (json_int_t)extension->file.bytes, "sha256",
                     extension->file.sha256);
}

json_t *package_manifest_to_json(const struct package_manifest *manifest)
{
    json_t *monitor = json_array(), *guest = json_array();
    char expires[PACKAGE_TIME_CHARS];

    package_time_format(expires, manifest->expires_s);
    for (size_t i = 0; i < manifest->payload_count; i++)
        json_array_append_new(monitor, payload_to_json(&manifest->payloads[i]));
    for (size_t i = 0; i < manifest->extension_count; i++)
        json_array_append_new(guest, extension_to_json(&manifest->extensions[i]));
    return json_pack("{s:i,s:s,s:s,s:i,s:s,s:{s:i,s:i},s:{s:I,s:s},s:o,s:o,s:s,s:s}", "format",
                     PACKAGE_FORMAT, "product", manifest->product, "version", manifest->version,
                     "epoch", manifest->epoch, "architecture", manifest->architecture, "state",
                     "oldest", manifest->state_oldest, "newest", manifest->state_newest, "program",
                     "bytes", (json_int_t)manifest->program_bytes, "sha256",
                     manifest->program_sha256, "monitor", monitor, "guest", guest, "expires",
                     expires, "notes", manifest->notes);
}

int package_manifest_write(const struct package_manifest *manifest, char **text, struct error *err)
{
    struct package_manifest *again;
    json_t *json = package_manifest_to_json(manifest);
    char *bytes = json ? json_dumps(json, JSON_INDENT(2)) : NULL;
    char *line;
    int rc = bytes ? asprintf(&line, "%s\n", bytes) : -1;

    json_decref(json);
    free(bytes);
    if (rc < 0)
        return error_set(err, -EINVAL, "cannot write the manifest: a text is not UTF-8");
    rc = package_manifest_parse(&again, line, strlen(line), err);
    if (rc < 0) {
        free(line);
        return rc;
    }
    package_manifest_destroy(again);
    *text = line;
    return 0;
}
