// SPDX-License-Identifier: BSD-2-Clause
// Power is lost between any two operations of the update store, and the store is opened on what the
// disk has then: with nothing of what was not synced, all, or parts of it. There is one current
// version, which can be started, and the state is the one before or after the step that was
// going on; what was confirmed, recorded or staged for sure is there.
#include <sodium.h>
#include <unistd.h>

#include "update_disk.h"

#define PROGRAM_BYTES 9000u
#define PAYLOAD_BYTES 5000u
#define DIGEST "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define SESSION "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100"
#define DEADLINE_NS 123456789u
#define SEEDS 12u

// ---- A history ----------------------------------------------------------------------------------

enum step_kind { INSTALL, PENDING, CONFIRM, ROLLBACK, PRUNE, RECORD, STAGE, WRITE, KEEP, DISCARD };

struct step {
    enum step_kind kind;
    const char *version;
    unsigned epoch;
};

static const struct step steps[] = {{RECORD},
                                    {STAGE},
                                    {WRITE},
                                    {KEEP},
                                    {WRITE},
                                    {INSTALL, "1.0", 1},
                                    {PENDING, "1.0"},
                                    {RECORD},
                                    {CONFIRM},
                                    {WRITE},
                                    {KEEP},
                                    {DISCARD},
                                    {INSTALL, "1.1", 2},
                                    {PENDING, "1.1"},
                                    {ROLLBACK},
                                    {RECORD},
                                    {INSTALL, "2.0", 3},
                                    {PENDING, "2.0"},
                                    {CONFIRM},
                                    {RECORD},
                                    {ROLLBACK},
                                    {ROLLBACK},
                                    {INSTALL, "2.0.1", 3},
                                    {PRUNE},
                                    {INSTALL, "3.0", 3},
                                    {PENDING, "3.0"},
                                    {RECORD},
                                    {PRUNE},
                                    {ROLLBACK},
                                    {PENDING, "3.0"},
                                    {CONFIRM},
                                    {RECORD},
                                    {PRUNE},
                                    {PENDING, UPDATE_INSTALLED},
                                    {ROLLBACK},
                                    {PENDING, UPDATE_INSTALLED},
                                    {CONFIRM},
                                    {RECORD},
                                    {RECORD},
                                    {RECORD}};

// What is known after a step.
struct moment {
    size_t op;        // how many operations there were
    char state[512];  // update_state, as text
    unsigned records;
    uint64_t staged;     // for sure; UINT64_MAX: no stage is known
    char lasting[2048];  // records that are kept, from the first
};

struct history {
    struct disk *disk;
    struct update_stage *stage;
    unsigned records;
    uint64_t staged;
    size_t opening_calls;
    struct moment moments[BASE_COUNT_OF(steps) + 2];  // [0] before opening, [1] after it
};

static uint64_t fixed_clock(void)
{
    return UINT64_C(1795408211123456789);
}

static void fill_program(uint8_t bytes[PROGRAM_BYTES], const char *version)
{
    for (size_t i = 0; i < PROGRAM_BYTES; i++)
        bytes[i] = (uint8_t)(i * 7 + (uint8_t)version[i % strlen(version)]);
}

static int program_file(const char *version, char digest[65])
{
    uint8_t bytes[PROGRAM_BYTES], hash[32];
    FILE *file = tmpfile();
    fill_program(bytes, version);
    crypto_hash_sha256(hash, bytes, sizeof(bytes));
    sodium_bin2hex(digest, 65, hash, sizeof(hash));
    assert_int_equal(fwrite(bytes, 1, sizeof(bytes), file), sizeof(bytes));
    int fd = dup(fileno(file));
    fclose(file);
    return fd;
}

static int do_install(struct update_store *store, const struct step *step)
{
    char manifest[512], digest[65];
    int fd = program_file(step->version, digest);
    snprintf(manifest, sizeof(manifest),
             "{\"version\":\"%s\",\"epoch\":%u,\"program\":{\"bytes\":%u,\"sha256\":\"%s\"}}",
             step->version, step->epoch, PROGRAM_BYTES, digest);
    int rc = update_store_install(store, fd, manifest, strlen(manifest), "signature", 9, NULL);
    close(fd);
    return rc;
}

static int do_record(struct update_store *store, unsigned number)
{
    json_t *record = json_pack("{s:s,s:i}", "event", "test", "number", (int)number);
    int rc = update_store_audit(store, record, NULL);
    json_decref(record);
    return rc;
}

static uint8_t payload_byte(uint64_t offset)
{
    return (uint8_t)(offset * 13 + 5);
}

static int do_write(struct update_stage *stage)
{
    uint8_t bytes[1500];
    uint64_t offset = update_stage_offset(stage);
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = payload_byte(offset + i);
    return update_stage_write(stage, offset, bytes, sizeof(bytes), NULL);
}

static int do_discard(struct history *h, struct update_store *store)
{
    update_stage_close(h->stage);
    h->stage = NULL;
    h->staged = UINT64_MAX;
    return update_store_stage_discard(store, DIGEST, NULL);
}

static int do_step(struct history *h, struct update_store *store, const struct step *step)
{
    int rc;
    switch (step->kind) {
    case INSTALL:
        return do_install(store, step);
    case PENDING:
        return update_store_make_pending(store, step->version, DEADLINE_NS, SESSION, NULL);
    case CONFIRM:
        return update_store_confirm(store, NULL);
    case ROLLBACK:
        return update_store_rollback(store, "a test", NULL);
    case PRUNE:
        return update_store_prune(store, 0, NULL);
    case RECORD:
        rc = do_record(store, h->records);
        h->records += rc == 0;
        return rc;
    case STAGE:
        rc = update_store_stage_open(store, DIGEST, 1, PAYLOAD_BYTES, &h->stage, NULL);
        h->staged = rc == 0 ? 0 : UINT64_MAX;
        return rc;
    case WRITE:
        return do_write(h->stage);
    case KEEP:
        rc = update_stage_sync(h->stage, NULL);
        h->staged = rc == 0 ? update_stage_offset(h->stage) : h->staged;
        return rc;
    case DISCARD:
        return do_discard(h, store);
    }
    return -EINVAL;
}

static void describe(char text[512], const struct update_store *store)
{
    const struct update_state *state = update_store_state(store);
    const struct update_pending *pending = &state->pending;
    snprintf(text, 512, "current %s previous %s epoch %llu pending %s %llu %s before %s",
             state->current, state->previous, (unsigned long long)state->epoch, pending->version,
             (unsigned long long)pending->deadline_ns, pending->session, pending->before);
}

static struct update_store *open_with(struct disk *disk, uint64_t audit_bytes)
{
    const struct update_files files = disk_files(disk);
    const struct update_store_config config = {
        .files = &files, .now_ns = fixed_clock, .audit_bytes = audit_bytes, .quota_bytes = 1 << 20};
    struct update_store *store;
    struct error err = {0};
    if (update_store_open(&store, "disk", &config, &err) < 0)
        fail_msg("%s", err.message);
    return store;
}

static struct update_store *open_on(struct disk *disk)
{
    return open_with(disk, 600);
}

// "installed 1.0\npending 1.0\n", ...
static void describe_lasting(char *text, size_t text_bytes, struct update_store *store)
{
    size_t i, used = 0;
    json_t *record, *records = update_store_history(store, SIZE_MAX, NULL);
    assert_non_null(records);
    *text = 0;
    json_array_foreach(records, i, record)
    {
        const char *event = json_string_value(json_object_get(record, "event"));
        if (strcmp(event, "test") == 0)
            continue;
        used += (size_t)snprintf(text + used, text_bytes - used, "%s %s\n", event,
                                 json_string_value(json_object_get(record, "version")));
        assert_true(used < text_bytes);
    }
    json_decref(records);
}

static void note_moment(struct history *h, const struct update_store *store, size_t i)
{
    struct moment *moment = &h->moments[i];
    moment->op = h->disk->op_count;
    moment->records = h->records;
    moment->staged = h->staged;
    describe(moment->state, store);
}

// The same with a log that is long enough for all.
static void record_lasting(struct history *h)
{
    struct history twin = {.disk = disk_new(), .staged = UINT64_MAX};
    struct update_store *store = open_with(twin.disk, 1 << 20);
    for (size_t i = 0; i < BASE_COUNT_OF(steps); i++) {
        assert_true(do_step(&twin, store, &steps[i]) >= 0);
        describe_lasting(h->moments[i + 2].lasting, sizeof(h->moments[i + 2].lasting), store);
    }
    update_store_close(store);
    disk_free(twin.disk);
}

static void record_history(struct history *h)
{
    *h = (struct history){.disk = disk_new(), .staged = UINT64_MAX};
    struct update_store *store = open_on(h->disk);
    h->opening_calls = h->disk->calls;
    note_moment(h, store, 0);
    h->moments[0].op = 0;
    note_moment(h, store, 1);
    for (size_t i = 0; i < BASE_COUNT_OF(steps); i++) {
        int rc = do_step(h, store, &steps[i]);
        if (rc < 0)
            fail_msg("step %zu: %s", i, strerror(-rc));
        note_moment(h, store, i + 2);
    }
    update_store_close(store);
    assert_int_equal(h->disk->open_files, 0);
    assert_true(disk_node_of(h->disk, "history.kept.jsonl") >= 0);
    record_lasting(h);
}

// ---- What has to hold after a loss of power -----------------------------------------------------

static void check_program(struct update_store *store, const char *version)
{
    uint8_t expected[PROGRAM_BYTES], there[PROGRAM_BYTES + 1];
    struct error err = {0};
    int fd;
    if (!*version || strcmp(version, UPDATE_INSTALLED) == 0)
        return;
    if (update_store_open_program(store, version, &fd, &err) < 0)
        fail_msg("%s", err.message);
    fill_program(expected, version);
    assert_int_equal(fd_pread_full(fd, there, sizeof(there), 0), PROGRAM_BYTES);
    assert_memory_equal(there, expected, PROGRAM_BYTES);
    close(fd);
}

static void check_link(struct disk *disk, const char *current)
{
    char target[64] = "", expected[64];
    int64_t n = disk_read_link(disk, "current", target, sizeof(target) - 1);
    snprintf(expected, sizeof(expected), "slots/%s", current);
    if (strcmp(current, UPDATE_INSTALLED) == 0)
        assert_int_equal(n, -ENOENT);
    else
        assert_string_equal(target, expected);
}

// All that were recorded before are there but those put aside too long ago, in order; at most the
// one that was being written beside.
static void check_records(struct update_store *store, unsigned least)
{
    size_t i;
    json_t *record, *records = update_store_history(store, SIZE_MAX, NULL);
    json_int_t next = -1;
    assert_non_null(records);
    json_array_foreach(records, i, record)
    {
        assert_true(json_is_string(json_object_get(record, "time")));
        if (strcmp(json_string_value(json_object_get(record, "event")), "test") != 0)
            continue;
        json_int_t number = json_integer_value(json_object_get(record, "number"));
        assert_true(next < 0 || number == next);
        next = number + 1;
    }
    assert_true(least == 0 || next == least || next == least + 1);
    json_decref(records);
}

// Of the records that are kept those before are there, each once, up to the oldest that there is no
// room for.
static void check_lasting(struct update_store *store, const struct moment *before,
                          const struct moment *after)
{
    char found[sizeof(after->lasting)];
    describe_lasting(found, sizeof(found), store);
    size_t count = strlen(found), all = strlen(after->lasting);
    for (size_t end = strlen(before->lasting); end <= all; end++)
        if (count <= end && memcmp(after->lasting + end - count, found, count) == 0 &&
            (count > 0 || end == 0))
            return;
    fail_msg("the log has \"%s\" of \"%s\"", found, after->lasting);
}

// What is recorded now does not suffer from a line that was torn.
static void check_next_record(struct update_store *store)
{
    assert_int_equal(do_record(store, 1000), 0);
    json_t *newest = update_store_history(store, 1, NULL);
    const json_t *number = json_object_get(json_array_get(newest, 0), "number");
    assert_int_equal(json_integer_value(number), 1000);
    json_decref(newest);
}

// Every folder with a version's name is a whole slot.
static void check_slots(struct disk *disk, struct update_store *store)
{
    struct update_slot *slots;
    size_t count;
    assert_int_equal(update_store_slots(store, &slots, &count, NULL), 0);
    assert_int_equal(count, disk->nodes[disk_node_of(disk, "slots")].entry_count);
    for (size_t i = 0; i < count; i++)
        check_program(store, slots[i].version);
    free(slots);
}

// Of what a stage says it has, every byte is the payload's.
static void check_stage(struct disk *disk, struct update_store *store, uint64_t least)
{
    struct update_stage *stage;
    unsigned payload;
    uint64_t offset;
    uint8_t byte;
    if (update_store_stage_find(store, DIGEST, &payload, &offset) < 0) {
        assert_true(least == UINT64_MAX);
        return;
    }
    assert_int_equal(payload, 1);
    assert_true(least == UINT64_MAX || offset >= least);
    assert_int_equal(update_store_stage_open(store, DIGEST, payload, PAYLOAD_BYTES, &stage, NULL),
                     0);
    assert_true(update_stage_offset(stage) == offset);
    for (uint64_t i = 0; i < offset; i++) {
        assert_int_equal(disk_read(disk, update_stage_fd(stage), &byte, 1, i), 1);
        assert_int_equal(byte, payload_byte(i));
    }
    update_stage_close(stage);
}

static size_t moment_of(const struct history *h, size_t op)
{
    size_t i = 0;
    while (i + 1 < BASE_COUNT_OF(h->moments) && h->moments[i + 1].op <= op)
        i++;
    return i;
}

static void check_disk(const struct history *h, struct disk *disk, size_t op)
{
    char state[512];
    size_t i = moment_of(h, op);
    const struct moment *before = &h->moments[i];
    const struct moment *after = i + 1 < BASE_COUNT_OF(h->moments) ? before + 1 : before;
    struct update_store *store = open_on(disk);
    describe(state, store);
    if (strcmp(state, before->state) != 0 && strcmp(state, after->state) != 0)
        fail_msg("op %zu: \"%s\" is neither \"%s\" nor \"%s\"", op, state, before->state,
                 after->state);
    check_program(store, update_store_state(store)->current);
    check_program(store, update_store_state(store)->previous);
    check_program(store, update_store_state(store)->pending.before);
    check_slots(disk, store);
    check_link(disk, update_store_state(store)->current);
    check_records(store, before->records);
    check_lasting(store, before, after);
    check_stage(disk, store,
                before->staged == UINT64_MAX || after->staged == UINT64_MAX ? UINT64_MAX
                                                                            : before->staged);
    check_next_record(store);
    update_store_close(store);
    assert_int_equal(disk->open_files, 0);
}

static void check_loss(const struct history *h, size_t op, enum disk_loss loss, uint64_t seed)
{
    struct disk *disk = disk_after_loss(h->disk, op, loss, seed);
    check_disk(h, disk, op);
    disk_free(disk);
}

static void test_loss(void **state)
{
    struct history *h = *state;
    print_message("%zu steps, %zu operations, power lost after each: ", BASE_COUNT_OF(steps),
                  h->disk->op_count);
    size_t rounds = 0;
    for (size_t op = 0; op <= h->disk->op_count; op++) {
        for (enum disk_loss loss = DISK_KEEP_NONE; loss < DISK_KEEP_SOME; loss++, rounds++)
            check_loss(h, op, loss, 0);
        for (uint64_t seed = 0; seed < SEEDS; seed++, rounds++)
            check_loss(h, op, DISK_KEEP_SOME, seed * 7919 + op);
    }
    print_message("%zu disks\n", rounds);
}

// Power is lost again while the store is put in order.
static void test_second_loss(void **state)
{
    struct history *h = *state;
    size_t rounds = 0;
    for (size_t op = 0; op <= h->disk->op_count; op++) {
        struct disk *first = disk_after_loss(h->disk, op, DISK_KEEP_SOME, op);
        struct disk *synced = disk_as_found(first);
        update_store_close(open_on(synced));
        for (size_t again = synced->found; again <= synced->op_count; again++, rounds += 2) {
            for (unsigned loss = 0; loss < 2; loss++) {
                struct disk *second = disk_after_loss(
                    synced, again, loss ? DISK_KEEP_SOME : DISK_KEEP_NONE, again * 31 + op);
                check_disk(h, second, op);
                disk_free(second);
            }
        }
        disk_free(synced);
        disk_free(first);
    }
    print_message("power lost twice: %zu disks\n", rounds);
}

// A call fails, with a full disk or a broken one: the step fails or is done, and so says the store
// when it is opened again.
static void check_failure(const struct history *h, size_t call, int code)
{
    struct history other = {.disk = disk_new(), .staged = UINT64_MAX};
    char now[512], opened[512];
    size_t i = 0;
    struct update_store *store = open_on(other.disk);
    other.disk->fail_at = other.disk->calls + call;
    other.disk->fail_code = code;
    while (i < BASE_COUNT_OF(steps) && do_step(&other, store, &steps[i]) >= 0)
        i++;
    describe(now, store);
    // Failed: nothing has changed for the store.
    assert_string_equal(now, h->moments[i + 1].state);
    update_store_close(store);
    store = open_on(other.disk);
    describe(opened, store);
    // The disk may have it all the same, when a sync failed that came last.
    if (strcmp(opened, now) != 0 && i < BASE_COUNT_OF(steps))
        assert_string_equal(opened, h->moments[i + 2].state);
    check_program(store, update_store_state(store)->current);
    update_store_close(store);
    disk_free(other.disk);
}

static void test_failures(void **state)
{
    const struct history *h = *state;
    size_t calls = h->disk->calls - h->opening_calls;
    for (size_t call = 1; call <= calls; call++) {
        check_failure(h, call, -EIO);
        check_failure(h, call, -ENOSPC);
    }
    print_message("each of %zu changing calls failed\n", calls);
}

// The simulation is able to find faults: without syncs, there are disks that break a promise.
static int forgets_to_sync(void *opaque, int fd)
{
    (void)opaque;
    (void)fd;
    return 0;
}

static int forgets_folder(void *opaque, const char *path)
{
    (void)opaque;
    (void)path;
    return 0;
}

static bool is_broken(const struct disk *before, const char *version)
{
    struct disk *disk = disk_after_loss(before, before->op_count, DISK_KEEP_NONE, 0);
    struct update_store *store = open_on(disk);
    bool lost = strcmp(update_store_state(store)->current, version) != 0;
    update_store_close(store);
    disk_free(disk);
    return lost;
}

static bool loses_version(bool files_too, bool folders_too)
{
    static const struct step few[] = {{INSTALL, "1.0", 1}, {PENDING, "1.0"}, {CONFIRM}};
    struct history h = {.disk = disk_new()};
    struct update_files files = disk_files(h.disk);
    struct update_store *store;
    if (files_too)
        files.sync = forgets_to_sync;
    if (folders_too)
        files.sync_folder = forgets_folder;
    const struct update_store_config config = {.files = &files, .now_ns = fixed_clock};
    assert_int_equal(update_store_open(&store, "disk", &config, NULL), 0);
    for (size_t i = 0; i < BASE_COUNT_OF(few); i++)
        assert_int_equal(do_step(&h, store, &few[i]), 0);
    update_store_close(store);
    bool lost = is_broken(h.disk, "1.0");
    disk_free(h.disk);
    return lost;
}

static void test_simulation(void **state)
{
    (void)state;
    print_message("a store that syncs keeps a version; one that does not, loses it\n");
    assert_false(loses_version(false, false));
    assert_true(loses_version(true, false));
    assert_true(loses_version(false, true));
}

static int setup(void **state)
{
    static struct history history;
    log_set_level(LOG_ERROR);
    record_history(&history);
    *state = &history;
    return 0;
}

static int teardown(void **state)
{
    disk_free(((struct history *)*state)->disk);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_simulation),
        cmocka_unit_test(test_loss),
        cmocka_unit_test(test_second_loss),
        cmocka_unit_test(test_failures),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
