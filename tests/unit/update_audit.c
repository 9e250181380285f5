// SPDX-License-Identifier: BSD-2-Clause
// The audit log: lines that are only appended, closed where they were torn, and bounded in all.
#include "update_fixture.h"

#include "update_disk.h"

static int record(struct store_fixture *f, int number, struct error *err)
{
    json_t *line = json_pack("{s:s,s:i,s:s}", "event", "offered", "number", number, "partition",
                             "line\nfeed \"quoted\" \xc3\xa4");
    int rc = update_store_audit(f->store, line, err);
    json_decref(line);
    return rc;
}

static void record_all(struct store_fixture *f, int from, int to)
{
    struct error err = {0};
    for (int i = from; i < to; i++)
        if (record(f, i, &err) < 0)
            fail_msg("%s", err.message);
}

// The newest `count` records are `from` to `to` - 1.
static void assert_records(struct store_fixture *f, size_t count, int from, int to)
{
    json_t *records = update_store_history(f->store, count, NULL);
    assert_non_null(records);
    assert_int_equal(json_array_size(records), to - from);
    for (int i = from; i < to; i++) {
        json_t *number = json_object_get(json_array_get(records, (size_t)(i - from)), "number");
        assert_int_equal(json_integer_value(number), i);
    }
    json_decref(records);
}

static void read_log(const struct store_fixture *f, const char *name, char text[4096])
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", f->folder, name);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    text[fread(text, 1, 4095, file)] = 0;
    fclose(file);
}

static void test_lines(void **state)
{
    struct store_fixture *f = *state;
    char text[4096];
    assert_records(f, 10, 0, 0);
    record_all(f, 0, 2);
    read_log(f, "history.jsonl", text);
    print_message("%s", text);
    assert_string_equal(
        text, "{\"time\":\"2026-11-23T04:30:11.123456789Z\",\"event\":\"offered\",\"number\":0,"
              "\"partition\":\"line\\nfeed \\\"quoted\\\" \xc3\xa4\"}\n"
              "{\"time\":\"2026-11-23T04:30:11.123456789Z\",\"event\":\"offered\",\"number\":1,"
              "\"partition\":\"line\\nfeed \\\"quoted\\\" \xc3\xa4\"}\n");
    reopen(f);
    record_all(f, 2, 5);
    assert_records(f, SIZE_MAX, 0, 5);
    assert_records(f, 3, 2, 5);
    assert_records(f, 0, 5, 5);
}

static void test_refused(void **state)
{
    struct store_fixture *f = *state;
    struct error err = {0};
    char *large = calloc(1, UPDATE_AUDIT_LINE_BYTES_MAX + 1);
    memset(large, 'x', UPDATE_AUDIT_LINE_BYTES_MAX);
    json_t *line = json_pack("{s:s}", "event", large);
    assert_refused(update_store_audit(f->store, line, &err), -E2BIG, &err, "history");
    json_decref(line);
    free(large);
    line = json_array();
    assert_refused(update_store_audit(f->store, line, &err), -EINVAL, &err, "history");
    json_decref(line);
    assert_false(has(f, "history.jsonl") && count_events(f, "offered"));
    meddle(f, "rm -f history.jsonl && ln -s other history.jsonl");
    assert_refused(record(f, 0, &err), -EPERM, &err, "history");
    assert_false(has(f, "other"));
}

static void test_torn(void **state)
{
    static const char *const tails[] = {"printf '{\"event\":\"off' >>", "printf '{}' >>",
                                        "head -c 100 /dev/zero >>", "printf '\\377\\n\\n\\000' >>",
                                        "truncate -s -1"};
    struct store_fixture *f = *state;
    int lines = 0;
    for (size_t i = 0; i < BASE_COUNT_OF(tails); i++) {
        char command[128];
        record_all(f, lines, lines + 2);
        lines += 2;
        snprintf(command, sizeof(command), "%s history.jsonl", tails[i]);
        print_message("%s\n", command);
        meddle(f, command);
        reopen(f);
        meddle(f, "test \"$(tail -c 1 history.jsonl | od -An -tx1)\" = ' 0a'");
    }
    record_all(f, lines, lines + 1);
    json_t *records = update_store_history(f->store, SIZE_MAX, NULL);
    size_t i, numbered = 0;
    json_t *entry;
    json_array_foreach(records, i, entry)
    {
        if (json_object_get(entry, "number"))
            assert_int_equal(json_integer_value(json_object_get(entry, "number")), numbered++);
    }
    assert_int_equal(numbered, lines + 1);
    json_decref(records);
}

static void test_rotation(void **state)
{
    struct store_fixture *f = *state;
    f->config.audit_bytes = 1000;
    reopen(f);
    record_all(f, 0, 100);
    json_t *records = update_store_history(f->store, SIZE_MAX, NULL);
    int kept = (int)json_array_size(records);
    json_decref(records);
    print_message("of 100 records, the newest %d are kept\n", kept);
    assert_true(kept >= 24 && kept < 50);
    assert_records(f, SIZE_MAX, 100 - kept, 100);
    assert_records(f, 20, 80, 100);
    assert_true(has(f, "history.1.jsonl") && has(f, "history.4.jsonl"));
    assert_false(has(f, "history.5.jsonl"));
    meddle(f, "test $(du -cb history*.jsonl | tail -1 | cut -f1) -le 5000");
    print_message("one that is missing leaves a gap, no more\n");
    meddle(f, "rm history.2.jsonl");
    record_all(f, 100, 120);
    assert_records(f, 20, 100, 120);
}

static void note(struct store_fixture *f, const char *event, const char *version)
{
    struct error err = {0};
    json_t *line = json_pack("{s:s,s:s}", "event", event, "version", version);
    if (update_store_audit(f->store, line, &err) < 0)
        fail_msg("%s", err.message);
    json_decref(line);
}

// A guest has lines written all day; those of what changed the host stay, the newest of them.
static void test_lasting(void **state)
{
    static const char *const events[] = {"installed", "pending",    "confirmed",
                                         "pruned",    "committing", "rolled-back",
                                         "committed", "repaired",   "rollback"};
    struct store_fixture *f = *state;
    char version[16];
    f->config.audit_bytes = 1000;
    reopen(f);
    for (size_t i = 0; i < BASE_COUNT_OF(events); i++) {
        note(f, events[i], "1.0");
        record_all(f, 0, 100);
    }
    for (size_t i = 0; i < BASE_COUNT_OF(events); i++)
        assert_int_equal(count_events(f, events[i]), 1);
    meddle(f, "test $(wc -l <history.kept.jsonl) = 9 && ! grep offered history.kept.jsonl");

    print_message("a log that leaves once more adds nothing that was kept\n");
    meddle(f, "cp history.kept.jsonl history.5.jsonl");
    reopen(f);
    assert_false(has(f, "history.5.jsonl"));
    meddle(f, "test $(wc -l <history.kept.jsonl) = 9");
    print_message("one that could not be kept is kept when the log is opened\n");
    meddle(f, "grep committed history.kept.jsonl | sed s/1.0/0.9/ >history.5.jsonl");
    meddle(f, "echo '{\"event\":\"off' >>history.5.jsonl");
    reopen(f);
    assert_int_equal(count_events(f, "committed"), 2);

    for (unsigned i = 0; i < 100; i++) {
        snprintf(version, sizeof(version), "2.%u", i);
        note(f, "confirmed", version);
    }
    record_all(f, 0, 100);
    size_t kept = count_events(f, "confirmed");
    print_message("of 101 that stay the newest %zu do\n", kept);
    assert_true(kept >= 9 && kept < 50);
    meddle(f, "test $(du -b history.kept.jsonl | cut -f1) -le 1000 && "
              "tail -n 1 history.kept.jsonl | grep -q 2.99");
}

static void test_full_disk(void **state)
{
    struct disk *disk = disk_new();
    const struct update_files files = disk_files(disk);
    struct store_fixture f = {.config = {.files = &files, .now_ns = fixed_clock}, .folder = "disk"};
    struct error err = {0};
    (void)state;
    reopen(&f);
    record_all(&f, 0, 3);
    disk->room_bytes = 50;
    print_message("a line for which there is no room is not there in part\n");
    assert_refused(record(&f, 3, &err), -ENOSPC, &err, "history");
    disk->room_bytes = SIZE_MAX;
    record_all(&f, 3, 5);
    assert_records(&f, SIZE_MAX, 0, 5);
    update_store_close(f.store);
    disk_free(disk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORE_TEST(test_lines),    STORE_TEST(test_refused), STORE_TEST(test_torn),
        STORE_TEST(test_rotation), STORE_TEST(test_lasting), cmocka_unit_test(test_full_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
