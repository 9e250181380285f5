// SPDX-License-Identifier: BSD-2-Clause
// An update store that somebody has been at: it is opened with a version that can be started, or
// refused; and nothing outside of it is read, changed or removed.
#include "update_fixture.h"

#include "update_disk.h"

// Two confirmed versions, 0.3.0 current and 0.2.0 previous; then the command; then it is opened.
static void after(struct store_fixture *f, const char *command)
{
    adopt(f, "0.2.0", 1);
    adopt(f, "0.3.0", 2);
    update_store_close(f->store);
    f->store = NULL;
    print_message("%s\n", command);
    meddle(f, command);
}

static void test_damaged_slot(void **state)
{
    static const char *const damages[] = {
        "rm -r slots/0.3.0",
        "rm slots/0.3.0/strake",
        "rm slots/0.3.0/manifest.json",
        "rm slots/0.3.0/manifest.json.minisig",
        "truncate -s 10 slots/0.3.0/strake",
        "echo '{}' > slots/0.3.0/manifest.json",
        "cp slots/0.2.0/manifest.json slots/0.3.0",
        "truncate -s 1G slots/0.3.0/manifest.json",
        "rm slots/0.3.0/strake && ln -s /bin/sh slots/0.3.0/strake",
        "rm slots/0.3.0/manifest.json && mkfifo slots/0.3.0/manifest.json",
        "rm slots/0.3.0/manifest.json && mkdir slots/0.3.0/manifest.json",
        "mv slots/0.3.0 elsewhere && ln -s ../elsewhere slots/0.3.0",
        "rm -r slots/0.3.0 && ln -s 0.2.0 slots/0.3.0",
        "rm -r slots/0.3.0 && : > slots/0.3.0",
        "chmod go+w slots/0.3.0/strake",
        "chmod o+w slots/0.3.0",
    };
    (void)state;
    for (size_t i = 0; i < BASE_COUNT_OF(damages); i++) {
        void *fixture;
        setup_store(&fixture);
        struct store_fixture *f = fixture;
        after(f, damages[i]);
        reopen(f);
        assert_state(f, "0.2.0", UPDATE_INSTALLED, "", 2);
        assert_link(f, "slots/0.2.0");
        assert_int_equal(count_events(f, "repaired"), 1);
        reopen(f);
        assert_state(f, "0.2.0", UPDATE_INSTALLED, "", 2);
        assert_int_equal(count_events(f, "repaired"), 1);
        print_message("  and the version can be had again\n");
        adopt(f, "0.3.0", 2);
        assert_state(f, "0.3.0", "0.2.0", "", 2);
        teardown_store(&fixture);
    }
}

static void test_owner(void **state)
{
    struct store_fixture *f = *state;
    if (geteuid() != 0)
        skip();
    after(f, "chown 12345 slots/0.3.0/strake");
    reopen(f);
    assert_state(f, "0.2.0", UPDATE_INSTALLED, "", 2);
}

// A program with other bytes is not started; and it can be installed again, in place.
static void test_changed_program(void **state)
{
    struct store_fixture *f = *state;
    struct error err = {0};
    int fd;
    adopt(f, "0.2.0", 1);
    adopt(f, "0.3.0", 2);
    meddle(f, "printf X | dd of=slots/0.3.0/strake bs=1 seek=5000 conv=notrunc 2>/dev/null");
    assert_refused(update_store_open_program(f->store, "0.3.0", &fd, &err), -EBADMSG, &err,
                   "0.3.0");
    install(f, "0.3.0", 2);
    assert_int_equal(update_store_open_program(f->store, "0.3.0", &fd, &err), 0);
    close(fd);
    assert_state(f, "0.3.0", "0.2.0", "", 2);
    reopen(f);
    assert_state(f, "0.3.0", "0.2.0", "", 2);
}

static void test_all_slots_gone(void **state)
{
    struct store_fixture *f = *state;
    after(f, "rm -r slots");
    reopen(f);
    assert_state(f, UPDATE_INSTALLED, "", "", 2);
    assert_link(f, "");
}

static void test_previous_gone(void **state)
{
    struct store_fixture *f = *state;
    after(f, "rm -r slots/0.2.0");
    reopen(f);
    assert_state(f, "0.3.0", UPDATE_INSTALLED, "", 2);
    assert_int_equal(update_store_rollback(f->store, "a test", NULL), 0);
    assert_state(f, UPDATE_INSTALLED, "0.3.0", "", 2);
}

static void test_previous_goes(void **state)
{
    struct store_fixture *f = *state;
    adopt(f, "0.2.0", 1);
    adopt(f, "0.3.0", 2);
    print_message("the previous slot goes while the store is open\n");
    meddle(f, "rm -r slots/0.2.0");
    assert_int_equal(update_store_rollback(f->store, "a test", NULL), 0);
    assert_state(f, UPDATE_INSTALLED, "0.3.0", "", 2);
}

static void test_pending_gone(void **state)
{
    struct store_fixture *f = *state;
    adopt(f, "0.2.0", 1);
    install(f, "0.3.0", 2);
    make_pending(f, "0.3.0");
    meddle(f, "rm -r slots/0.3.0");
    reopen(f);
    assert_state(f, "0.2.0", UPDATE_INSTALLED, "", 1);
}

static void test_state(void **state)
{
    static const char *const damages[] = {
        "rm state.json",
        ": > state.json",
        "head -c 300 /dev/zero > state.json",
        "truncate -s 1M state.json",
        "echo '[]' > state.json",
        "sed -i s/previous/Previous/ state.json",
        "sed -i 's/\"epoch\": 2/\"epoch\": -2/' state.json",
        "sed -i 's|\"current\": \"0.3.0\"|\"current\": \"../../bin\"|' state.json",
        "sed -i 's/\"pending\": null/\"pending\": 7/' state.json",
        "rm state.json && mkfifo state.json",
        "rm state.json && mkdir -p state.json/x",
        "mv state.json other && ln -s other state.json",
        "chmod o+w state.json",
    };
    (void)state;
    for (size_t i = 0; i < BASE_COUNT_OF(damages); i++) {
        void *fixture;
        setup_store(&fixture);
        struct store_fixture *f = fixture;
        after(f, damages[i]);
        reopen(f);
        // The link still says what is current, the slots how high the epoch was.
        assert_state(f, "0.3.0", UPDATE_INSTALLED, "", 2);
        assert_int_equal(update_store_rollback(f->store, "a test", NULL), 0);
        reopen(f);
        assert_state(f, UPDATE_INSTALLED, "0.3.0", "", 2);
        assert_int_equal(count_events(f, "repaired"), 1);
        teardown_store(&fixture);
    }
}

static void test_state_and_link(void **state)
{
    static const char *const links[] = {"rm current", "ln -sfn /bin current",
                                        "ln -sfn slots/../../x current",
                                        "rm current; mkdir current", "ln -sfn slots/7.7 current"};
    (void)state;
    for (size_t i = 0; i < BASE_COUNT_OF(links); i++) {
        void *fixture;
        setup_store(&fixture);
        struct store_fixture *f = fixture;
        after(f, links[i]);
        reopen(f);
        assert_state(f, "0.3.0", "0.2.0", "", 2);
        assert_link(f, "slots/0.3.0");
        update_store_close(f->store);
        f->store = NULL;
        meddle(f, links[i]);
        meddle(f, "echo garbage > state.json");
        reopen(f);
        assert_state(f, UPDATE_INSTALLED, "", "", 2);
        assert_link(f, "");
        teardown_store(&fixture);
    }
}

static void test_litter(void **state)
{
    struct store_fixture *f = *state;
    after(f, "mkdir -p slots/.new/a/b staging/x slots/junk staging/" DIGEST " && "
             "ln -s /etc staging/link && ln -s /etc slots/.old && : > slots/0.9 && "
             "ln -s /etc/passwd state.json.new && ln -s /etc/passwd current.new");
    reopen(f);
    assert_state(f, "0.3.0", "0.2.0", "", 2);
    assert_false(has(f, "slots/.new") || has(f, "slots/.old") || has(f, "staging/x") ||
                 has(f, "staging/link") || has(f, "staging/" DIGEST));
    print_message("links in the way of new files are not followed\n");
    assert_int_equal(update_store_rollback(f->store, "a test", NULL), 0);
    assert_state(f, "0.2.0", "0.3.0", "", 2);
    assert_link(f, "slots/0.2.0");
    assert_false(has(f, "state.json.new") || has(f, "current.new"));
    assert_int_equal(access("/etc/passwd", R_OK), 0);
}

static void test_refused(void **state)
{
    static const struct {
        const char *command;
        int code;
    } cases[] = {
        {"chmod o+w .", -EPERM},
        {"chmod o+w slots", -EPERM},
        {"chmod g+w staging", -EPERM},
        {"mv slots s && ln -s s slots", -ENOTDIR},
        {"rm -r staging && : > staging", -ENOTDIR},
        {"rm lock && ln -s /etc/passwd lock", -ELOOP},
    };
    (void)state;
    for (size_t i = 0; i < BASE_COUNT_OF(cases); i++) {
        void *fixture;
        struct error err = {0};
        setup_store(&fixture);
        struct store_fixture *f = fixture;
        after(f, cases[i].command);
        assert_refused(try_reopen(f, &err), cases[i].code, &err, "update store");
        teardown_store(&fixture);
    }
}

static void test_linked_folder(void **state)
{
    struct store_fixture *f = *state;
    struct update_store *store;
    struct error err = {0};
    char path[128];
    snprintf(path, sizeof(path), "%s/link", f->folder);
    meddle(f, "mkdir real && ln -s real link");
    assert_refused(update_store_open(&store, path, &f->config, &err), -ENOTDIR, &err, "link");
    snprintf(path, sizeof(path), "%s/no/such", f->folder);
    assert_refused(update_store_open(&store, path, &f->config, &err), -ENOENT, &err, "such");
}

// ---- A full disk --------------------------------------------------------------------------------

struct full {
    struct disk *disk;
    struct update_files files;
    struct store_fixture f;
};

static void open_full(struct full *full)
{
    full->files = disk_files(full->disk);
    full->f.config = (struct update_store_config){.files = &full->files, .now_ns = fixed_clock};
    snprintf(full->f.folder, sizeof(full->f.folder), "disk");
    reopen(&full->f);
}

static void test_full_disk(void **state)
{
    struct full full = {.disk = disk_new()};
    struct store_fixture *f = &full.f;
    struct update_stage *stage;
    struct error err = {0};
    (void)state;
    open_full(&full);
    adopt(f, "0.2.0", 1);
    full.disk->room_bytes = 100000;
    print_message("no room for a slot: nothing of it is left, and the room is back\n");
    assert_refused(try_install(f, "0.3.0", 1, &err), -ENOSPC, &err, "0.3.0");
    assert_int_equal(disk_node_of(full.disk, "slots/.new"), -ENOENT);
    assert_true(full.disk->room_bytes >= 99000);
    full.disk->room_bytes = SIZE_MAX;
    install(f, "0.3.0", 1);
    make_pending(f, "0.3.0");

    print_message("a version is rolled back all the same: what was staged gives up its room\n");
    assert_int_equal(update_store_stage_open(f->store, DIGEST, 0, 4096, &stage, NULL), 0);
    assert_int_equal(update_stage_write(stage, 0, SESSION, 64, NULL), 0);
    assert_int_equal(update_stage_sync(stage, NULL), 0);
    update_stage_close(stage);
    full.disk->room_bytes = 0;
    assert_int_equal(update_store_rollback(f->store, "a test", NULL), 0);
    assert_state(f, "0.2.0", UPDATE_INSTALLED, "", 1);

    print_message("without any room it cannot be, and the store says so; and opens\n");
    full.disk->room_bytes = SIZE_MAX;
    make_pending(f, "0.3.0");
    full.disk->room_bytes = 0;
    assert_refused(update_store_rollback(f->store, "a test", &err), -ENOSPC, &err, "0.3.0");
    assert_state(f, "0.3.0", "0.2.0", "0.3.0", 1);
    reopen(f);
    assert_state(f, "0.3.0", "0.2.0", "0.3.0", 1);
    print_message("also when it is to be put in order, or is new\n");
    assert_int_equal(disk_remove(full.disk, "slots/0.3.0/manifest.json"), 0);
    full.disk->room_bytes = 0;
    reopen(f);
    assert_state(f, "0.2.0", UPDATE_INSTALLED, "", 1);
    update_store_close(f->store);
    f->store = NULL;
    disk_free(full.disk);
    full.disk = disk_new();
    full.disk->room_bytes = 2 * DISK_NODE_BYTES;  // for its folders
    open_full(&full);
    assert_state(f, UPDATE_INSTALLED, "", "", 0);
    update_store_close(f->store);
    disk_free(full.disk);
}

int main(void)
{
    log_set_level(LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_damaged_slot),   cmocka_unit_test(test_state),
        cmocka_unit_test(test_state_and_link), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_full_disk),      STORE_TEST(test_owner),
        STORE_TEST(test_changed_program),      STORE_TEST(test_all_slots_gone),
        STORE_TEST(test_previous_gone),        STORE_TEST(test_previous_goes),
        STORE_TEST(test_pending_gone),         STORE_TEST(test_litter),
        STORE_TEST(test_linked_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
