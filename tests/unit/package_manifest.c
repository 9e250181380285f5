// SPDX-License-Identifier: BSD-2-Clause
// Manifests: what is taken, and that each fault is refused with its name. (That the schema refuses
// the same is tests/system/package.py's.)
#include <jansson.h>
#include <stdio.h>

#include "package/package.h"
#include "unit.h"

#define DIGEST "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static const char good[] =
    "{\"format\":1,\"product\":\"strake\",\"version\":\"0.2.0\",\"epoch\":3,"
    "\"architecture\":\"x86_64\",\"state\":{\"oldest\":1,\"newest\":2},"
    "\"program\":{\"bytes\":1000,\"sha256\":\"" DIGEST "\"},"
    "\"monitor\":[{\"file\":\"monitor-full.zst\",\"bytes\":100,\"sha256\":\"" DIGEST "\"},"
    "{\"file\":\"monitor-from-0.1.0.zst\",\"bytes\":10,\"sha256\":\"" DIGEST "\","
    "\"base\":{\"version\":\"0.1.0\",\"sha256\":\"" DIGEST "\"}}],"
    "\"guest\":[{\"file\":\"guest/strake-guest_0.2.0_riscv64.deb\",\"package\":\"strake-guest\","
    "\"version\":\"0.2.0\",\"architecture\":\"riscv64\",\"bytes\":7,\"sha256\":\"" DIGEST "\"}],"
    "\"expires\":\"2027-11-22T00:00:00Z\",\"notes\":\"Gr\xc3\xbc\xc3\x9f"
    "e\\n\\tof two lines\"}";

static struct package_manifest *parse_good(void)
{
    struct package_manifest *manifest;
    struct error err = {0};

    if (package_manifest_parse(&manifest, good, strlen(good), &err) < 0)
        fail_msg("%s", err.message);
    return manifest;
}

static void test_good(void **state)
{
    struct package_manifest *manifest = parse_good();
    (void)state;

    assert_string_equal(manifest->product, "strake");
    assert_string_equal(manifest->version, "0.2.0");
    assert_string_equal(manifest->architecture, "x86_64");
    assert_int_equal(manifest->epoch, 3);
    assert_int_equal(manifest->state_oldest, 1);
    assert_int_equal(manifest->state_newest, 2);
    assert_int_equal(manifest->program_bytes, 1000);
    assert_string_equal(manifest->program_sha256, DIGEST);
    assert_int_equal(manifest->payload_count, 2);
    assert_null(manifest->payloads[0].base_version);
    assert_string_equal(manifest->payloads[1].file.name, "monitor-from-0.1.0.zst");
    assert_string_equal(manifest->payloads[1].base_version, "0.1.0");
    assert_string_equal(manifest->payloads[1].base_sha256, DIGEST);
    assert_int_equal(manifest->extension_count, 1);
    assert_string_equal(manifest->extensions[0].package, "strake-guest");
    assert_int_equal(manifest->expires_s, 1826841600);
    package_manifest_destroy(manifest);
}

// Written, read and written again: the same text, the same values.
static void test_written(void **state)
{
    struct package_manifest *manifest = parse_good(), *again;
    char *text, *text_again;
    (void)state;

    assert_int_equal(package_manifest_write(manifest, &text, NULL), 0);
    assert_int_equal(package_manifest_parse(&again, text, strlen(text), NULL), 0);
    assert_int_equal(package_manifest_write(again, &text_again, NULL), 0);
    assert_string_equal(text, text_again);
    json_t *a = json_loads(good, 0, NULL), *b = package_manifest_to_json(again);
    assert_true(json_equal(a, b));
    json_decref(a);
    json_decref(b);

    again->version = "1..2";
    struct error err = {0};
    assert_int_equal(package_manifest_write(again, &text_again, &err), -EINVAL);
    assert_non_null(strstr(err.message, "version"));
    again->version = "\xff";
    assert_int_equal(package_manifest_write(again, &text_again, &err), -EINVAL);
    free(text);
    free(text_again);
    package_manifest_destroy(manifest);
    package_manifest_destroy(again);
}

// What is replaced by what, and a word of the message.
static const struct {
    const char *from, *to, *word;
} faults[] = {
    {"\"format\":1,", "", "format"},
    {"\"format\":1", "\"format\":2", "format"},
    {"\"format\":1", "\"format\":1.0", "integer"},
    {"\"format\":1", "\"format\":\"1\"", "integer"},
    {"\"format\":1", "\"format\":1,\"more\":1", "more"},
    {"\"format\":1", "\"format\":1,\"format\":1", "duplicate"},
    {"\"format\":1", "\"format\":18446744073709551617", "big"},
    {"{\"format\"", "[{\"format\"", "line 1"},
    {"two lines\"}", "two lines\"", "line 1"},
    {"two lines\"}", "two lines\"} x", "line 1"},
    {"\"strake\"", "null", "string"},
    {"\"strake\"", "\"\"", "product"},
    {"\"strake\"", "\"St rake\"", "product"},
    {"\"0.2.0\",\"epoch\"", "\"0.2.\",\"epoch\"", "version"},
    {"\"0.2.0\",\"epoch\"", "\"0.02.0\",\"epoch\"", "version"},
    {"\"0.2.0\",\"epoch\"", "\"../0\",\"epoch\"", "version"},
    {"\"0.2.0\",\"epoch\"", "\"0.2.0-1\",\"epoch\"", "version"},
    {"\"0.2.0\",\"epoch\"", "\"1.2.3.4.5.6.7.8.9\",\"epoch\"", "version"},
    {"\"0.2.0\",\"epoch\"", "\"1234567890\",\"epoch\"", "version"},
    {"\"0.2.0\",\"epoch\"", "\"0.2\\u0000.0\",\"epoch\"", "line 1"},
    {"\"epoch\":3", "\"epoch\":0", "epoch"},
    {"\"epoch\":3", "\"epoch\":-1", "epoch"},
    {"\"epoch\":3", "\"epoch\":4294967299", "epoch"},
    {"\"x86_64\"", "\"X86\"", "architecture"},
    {"\"oldest\":1", "\"oldest\":0", "state"},
    {"\"oldest\":1", "\"oldest\":3", "state"},
    {"\"oldest\":1,", "", "oldest"},
    {"\"newest\":2", "\"newest\":2,\"middle\":1", "middle"},
    {"\"bytes\":1000", "\"bytes\":0", "bytes"},
    {"\"bytes\":1000", "\"bytes\":-1", "bytes"},
    {"\"bytes\":1000", "\"bytes\":8589934592", "bytes"},
    {"\"bytes\":1000,", "", "bytes"},
    {"1000,\"sha256\":\"0", "1000,\"sha256\":\"A", "sha256"},
    {"1000,\"sha256\":\"0", "1000,\"sha256\":\"00", "sha256"},
    {"1000,\"sha256\":\"0", "1000,\"sha256\":\"", "sha256"},
    {"\"monitor\":[", "\"monitor\":[1,", "item 0"},
    {"\"monitor\":[", "\"monitor\":{},\"monitors\":[", "monitors"},
    {"monitor-full.zst", "monitor-.zst", "file"},
    {"monitor-full.zst", "monitor-full", "file"},
    {"monitor-full.zst", "monitor-../full.zst", "file"},
    {"monitor-full.zst", "monitor-a/b.zst", "file"},
    {"monitor-full.zst", "/monitor-full.zst", "file"},
    {"monitor-full.zst", "manifest.json", "file"},
    {"monitor-full.zst", "monitor-from-0.1.0.zst", "twice"},
    {"\"base\":{", "\"basis\":{", "basis"},
    {"\"base\":{\"version\":\"0.1.0\",", "\"base\":{", "version"},
    {"\"base\":{\"version\":\"0.1.0\"", "\"base\":{\"version\":\"one\"", "base"},
    {"\"base\":{\"version\":\"0.1.0\",\"sha256\":\"01",
     "\"base\":{\"version\":\"0.1.0\",\"sha256\":\"z1", "base"},
    {"guest/strake-guest", "guest/../strake-guest", "file"},
    {"guest/strake-guest", "guest/.strake-guest", "file"},
    {"guest/strake-guest", "strake-guest", "file"},
    {"\"package\":\"strake-guest\"", "\"package\":\"Strake\"", "package"},
    {"\"package\":\"strake-guest\"", "\"package\":\"-o\"", "package"},
    {"\"version\":\"0.2.0\",\"architecture\"", "\"version\":\"1:0\",\"architecture\"", "version"},
    {"\"riscv64\"", "\"risc v\"", "architecture"},
    {"\"bytes\":7", "\"bytes\":true", "integer"},
    {"2027-11-22T", "2027-02-30T", "2027-02-30"},
    {"2027-11-22T", "2027-11-22 ", "expires"},
    {"T00:00:00Z", "T24:00:00Z", "expires"},
    {"T00:00:00Z", "T00:00:60Z", "expires"},
    {"T00:00:00Z", "T00:00:00Zz", "expires"},
    {"T00:00:00Z", "T00:00:00+01:00", "expires"},
    {"2027-", "27-", "expires"},
    {"2027-11-22T00:00:00Z", "", "expires"},
    {"\\n\\t", "\\u001b[2J", "notes"},
    {"\\n\\t", "\\u009b2J", "notes"},
    {"\\n\\t", "\\u007f", "notes"},
    {"\\n\\t", "\\r", "notes"},
    {"\xc3\xbc", "\xc3", "line 1"},
    {"{\"format\"", "{\x1b[2J\"format\"", "line 1"},
    {"\"format\":1", "\"format\":1,\"\\u001b[2J\":1", "[2J"},
    {"2027-11-22T",
     "\xc2\x9b"
     "2J",
     "2J"},
};

static char *replace(const char *from, const char *to)
{
    const char *at = strstr(good, from);
    char *text;

    assert_non_null(at);
    assert_true(asprintf(&text, "%.*s%s%s", (int)(at - good), good, to, at + strlen(from)) > 0);
    return text;
}

static void refuses(const char *text, size_t length, const char *word)
{
    struct package_manifest *manifest = NULL;
    struct error err = {0};

    if (package_manifest_parse(&manifest, text, length, &err) == 0)
        fail_msg("taken: %s", text);
    assert_null(manifest);
    if (!strstr(err.message, word))
        fail_msg("\"%s\" is not in: %s", word, err.message);
    for (const char *c = err.message; *c; c++)  // it is shown on terminals
        if (*c < ' ' || *c > '~')
            fail_msg("a byte %02x is in: %s", (unsigned char)*c, err.message);
}

static void test_faults(void **state)
{
    (void)state;
    for (size_t i = 0; i < BASE_COUNT_OF(faults); i++) {
        char *text = replace(faults[i].from, faults[i].to);
        refuses(text, strlen(text), faults[i].word);
        free(text);
    }
    printf("refused %zu faults\n", BASE_COUNT_OF(faults));
}

// Cut anywhere, it is none; without any, too.
static void test_cut(void **state)
{
    (void)state;
    for (size_t length = 0; length < strlen(good); length++) {
        char *text = malloc(length + !length);
        memcpy(text, good, length);
        refuses(text, length, "the manifest is refused");
        free(text);
    }
}

static json_t *good_json(void)
{
    return json_loads(good, 0, NULL);
}

static void refuses_json(json_t *json, const char *word)
{
    char *text = json_dumps(json, JSON_COMPACT);

    refuses(text, strlen(text), word);
    free(text);
    json_decref(json);
}

// A list with `count` copies of its first item, each with a name of its own.
static json_t *with_items(const char *list, const char *before, const char *after, unsigned count)
{
    json_t *json = good_json(), *item = json_array_get(json_object_get(json, list), 0),
           *items = json_array();

    for (unsigned i = 0; i < count; i++) {
        json_t *copy = json_deep_copy(item);
        json_object_set_new(copy, "file", json_sprintf("%s%u%s", before, i, after));
        json_array_append_new(items, copy);
    }
    json_object_set_new(json, list, items);
    return json;
}

static void takes_json(json_t *json)
{
    struct package_manifest *manifest;
    struct error err = {0};
    char *text = json_dumps(json, JSON_COMPACT);

    if (package_manifest_parse(&manifest, text, strlen(text), &err) < 0)
        fail_msg("%s", err.message);
    package_manifest_destroy(manifest);
    free(text);
    json_decref(json);
}

static void test_limits(void **state)
{
    char notes[PACKAGE_MANIFEST_MAX_BYTES + 1];
    json_t *json = good_json();
    (void)state;

    takes_json(with_items("monitor", "monitor-", ".zst", PACKAGE_PAYLOADS_MAX));
    refuses_json(with_items("monitor", "monitor-", ".zst", PACKAGE_PAYLOADS_MAX + 1), "monitor");
    refuses_json(with_items("monitor", "monitor-", ".zst", 0), "monitor");
    takes_json(with_items("guest", "guest/", ".deb", PACKAGE_EXTENSIONS_MAX));
    takes_json(with_items("guest", "guest/", ".deb", 0));
    refuses_json(with_items("guest", "guest/", ".deb", PACKAGE_EXTENSIONS_MAX + 1), "guest");

    memset(notes, 'n', sizeof(notes));
    notes[16384] = '\0';
    json_object_set_new(json, "notes", json_string(notes));
    takes_json(json_incref(json));
    json_object_set_new(json, "notes", json_stringn(notes, 16383));
    char name[128];
    snprintf(name, sizeof(name), "monitor-%.87s.zst", notes);
    assert_int_equal(strlen(name), PACKAGE_NAME_MAX);
    json_t *item = json_array_get(json_object_get(json, "monitor"), 0);
    json_object_set_new(item, "file", json_string(name));
    takes_json(json_incref(json));
    snprintf(name, sizeof(name), "monitor-%.88s.zst", notes);
    json_object_set_new(item, "file", json_string(name));
    refuses_json(json, "file");

    json = good_json();
    notes[16384] = 'n';
    json_object_set_new(json, "notes", json_stringn(notes, 16385));
    refuses_json(json, "notes");
    memset(notes, ' ', sizeof(notes));
    refuses(notes, sizeof(notes), "longer");
    // As deep as a manifest's length allows.
    memset(notes, '[', sizeof(notes));
    refuses(notes, PACKAGE_MANIFEST_MAX_BYTES, "the manifest is refused");
}

static void test_versions(void **state)
{
    static const char *const order[] = {"0",      "0.1",   "0.1.0",       "0.1.1", "0.2.0",
                                        "0.10.0", "1.0.0", "999999999.0", NULL};
    (void)state;

    for (size_t i = 0; order[i]; i++) {
        assert_true(package_version_valid(order[i]));
        for (size_t j = 0; order[j]; j++) {
            int sign = package_version_compare(order[i], order[j]);
            assert_int_equal((sign > 0) - (sign < 0), (i > j) - (i < j));
        }
    }
    assert_true(package_version_valid(STRAKE_VERSION));
    assert_false(package_version_valid(""));
    assert_false(package_version_valid("."));
    assert_false(package_version_valid("99999999.99999999.99999999.99999999"));
}

static void test_times(void **state)
{
    char text[PACKAGE_TIME_CHARS];
    int64_t seconds;
    (void)state;

    assert_int_equal(package_time_parse(&seconds, "2024-02-29T23:59:59Z", NULL), 0);
    package_time_format(text, seconds);
    assert_string_equal(text, "2024-02-29T23:59:59Z");
    assert_int_equal(package_time_parse(&seconds, "1970-01-01T00:00:00Z", NULL), 0);
    assert_int_equal(seconds, 0);
    assert_int_equal(package_time_parse(&seconds, "2023-02-29T00:00:00Z", NULL), -EINVAL);
    package_time_format(text, INT64_MAX);  // no such year: nothing
    assert_string_equal(text, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),   cmocka_unit_test(test_written),
        cmocka_unit_test(test_faults), cmocka_unit_test(test_cut),
        cmocka_unit_test(test_limits), cmocka_unit_test(test_versions),
        cmocka_unit_test(test_times),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
