// SPDX-License-Identifier: BSD-2-Clause
// The update store on the host's disk: slots, which version is current, what is kept, and a
// program that is executed from a sealed memfd.
#include <sys/wait.h>

#include "update_fixture.h"

static void test_first(void **state)
{
    struct store_fixture *f = *state;
    struct update_slot *slots;
    struct error err = {0};
    size_t count;
    print_message("a new store: the installed version is current\n");
    assert_state(f, UPDATE_INSTALLED, "", "", 0);
    assert_link(f, "");
    assert_int_equal(update_store_slots(f->store, &slots, &count, NULL), 0);
    assert_int_equal(count, 0);
    free(slots);
    assert_refused(update_store_rollback(f->store, "a test", &err), -ENOENT, &err, "go back");
    assert_refused(update_store_confirm(f->store, &err), -EALREADY, &err, "already");
    assert_refused(update_store_make_pending(f->store, "9.9", 0, "", &err), -ENOENT, &err, "9.9");
    print_message("what was made has the owner's rights only, and one process has it\n");
    struct update_store *other;
    assert_refused(update_store_open(&other, f->folder, &f->config, &err), -EBUSY, &err,
                   "another supervisor");
    update_store_close(f->store);
    assert_int_equal(update_store_open(&f->store, f->folder, NULL, NULL), 0);
    assert_state(f, UPDATE_INSTALLED, "", "", 0);
    assert_int_equal(count_events(f, "repaired"), 0);
}

static void test_install(void **state)
{
    struct store_fixture *f = *state;
    struct update_slot slot;
    struct error err = {0};
    char *text;
    size_t count;
    install(f, "0.2.0", 3);
    assert_state(f, UPDATE_INSTALLED, "", "", 0);
    assert_int_equal(update_store_slot(f->store, "0.2.0", &slot, NULL), 0);
    char *program = program_of("0.2.0");
    assert_int_equal(slot.program_bytes, strlen(program));
    assert_int_equal(slot.epoch, 3);
    assert_false(slot.current || slot.previous || slot.pending);
    free(program);
    assert_int_equal(
        update_store_read(f->store, "0.2.0", UPDATE_SLOT_SIGNATURE, &text, &count, NULL), 0);
    assert_string_equal(text, "signed\n");
    assert_int_equal(count, 7);
    free(text);
    print_message("again: nothing to do; another build of it takes its place\n");
    install(f, "0.2.0", 3);
    assert_int_equal(count_events(f, "installed"), 1);
    install(f, "0.2.0", 4);
    assert_int_equal(update_store_slot(f->store, "0.2.0", &slot, NULL), 0);
    assert_int_equal(slot.epoch, 4);
    print_message("but not while it is in use\n");
    make_pending(f, "0.2.0");
    assert_refused(try_install(f, "0.2.0", 5, &err), -EEXIST, &err, "in use");
    assert_int_equal(update_store_slot(f->store, "0.2.0", &slot, NULL), 0);
    assert_int_equal(slot.epoch, 4);
    reopen(f);
    assert_state(f, "0.2.0", UPDATE_INSTALLED, "0.2.0", 0);
}

static void refuse_manifest(struct store_fixture *f, const char *manifest, int code)
{
    struct error err = {0};
    int fd = program_file("x");
    int rc = update_store_install(f->store, fd, manifest, strlen(manifest), "", 0, &err);
    close(fd);
    assert_refused(rc, code, &err, "slot");
    assert_false(has(f, "slots/.new") || has(f, "slots/1.0"));
}

static void test_bad_install(void **state)
{
    struct store_fixture *f = *state;
    const char *const bad[] = {
        "",
        "[]",
        "{\"version\":\"1.0\",\"epoch\":1}",
        "{\"version\":\"../1\",\"epoch\":1,\"program\":{\"bytes\":1,\"sha256\":\"" DIGEST "\"}}",
        "{\"version\":\"1.0\",\"epoch\":-1,\"program\":{\"bytes\":1,\"sha256\":\"" DIGEST "\"}}",
        "{\"version\":\"1.0\",\"epoch\":1,\"program\":{\"bytes\":0,\"sha256\":\"" DIGEST "\"}}",
        "{\"version\":\"1.0\",\"epoch\":1,\"program\":{\"bytes\":1,\"sha256\":\"ABC\"}}"};
    for (size_t i = 0; i < BASE_COUNT_OF(bad); i++)
        refuse_manifest(f, bad[i], -EINVAL);
    print_message("another program than the manifest's, and a shorter one\n");
    refuse_manifest(
        f, "{\"version\":\"1.0\",\"epoch\":1,\"program\":{\"bytes\":1,\"sha256\":\"" DIGEST "\"}}",
        -EBADMSG);
    refuse_manifest(
        f, "{\"version\":\"1.0\",\"epoch\":1,\"program\":{\"bytes\":2,\"sha256\":\"" DIGEST "\"}}",
        -EBADMSG);
    assert_int_equal(count_events(f, "installed"), 0);
}

static void test_life(void **state)
{
    struct store_fixture *f = *state;
    struct error err = {0};
    install(f, "0.2.0", 3);
    make_pending(f, "0.2.0");
    assert_state(f, "0.2.0", UPDATE_INSTALLED, "0.2.0", 0);
    assert_link(f, "slots/0.2.0");
    reopen(f);
    print_message("a pending version survives reopening, with its deadline and session\n");
    assert_state(f, "0.2.0", UPDATE_INSTALLED, "0.2.0", 0);
    assert_int_equal(update_store_state(f->store)->pending.deadline_ns, 77);
    assert_string_equal(update_store_state(f->store)->pending.session, SESSION);
    install(f, "0.3.0", 4);
    assert_refused(update_store_make_pending(f->store, "0.3.0", 1, SESSION, &err), -EBUSY, &err,
                   "confirmed");
    assert_int_equal(update_store_confirm(f->store, NULL), 0);
    assert_state(f, "0.2.0", UPDATE_INSTALLED, "", 3);
    assert_refused(update_store_make_pending(f->store, "0.2.0", 1, SESSION, &err), -EALREADY, &err,
                   "current");

    print_message("a pending version that is rolled back leaves all as it was\n");
    make_pending(f, "0.3.0");
    assert_state(f, "0.3.0", "0.2.0", "0.3.0", 3);
    assert_int_equal(update_store_rollback(f->store, "it was late", NULL), 0);
    assert_state(f, "0.2.0", UPDATE_INSTALLED, "", 3);
    assert_link(f, "slots/0.2.0");

    print_message("a confirmed one that is rolled back can be had again; the epoch stays\n");
    make_pending(f, "0.3.0");
    assert_int_equal(update_store_confirm(f->store, NULL), 0);
    assert_state(f, "0.3.0", "0.2.0", "", 4);
    assert_int_equal(update_store_rollback(f->store, "asked for", NULL), 0);
    assert_state(f, "0.2.0", "0.3.0", "", 4);
    assert_int_equal(update_store_rollback(f->store, "asked for", NULL), 0);
    assert_state(f, "0.3.0", "0.2.0", "", 4);
    reopen(f);
    assert_state(f, "0.3.0", "0.2.0", "", 4);
    assert_int_equal(count_events(f, "pending"), 3);
    assert_int_equal(count_events(f, "confirmed"), 2);
    assert_int_equal(count_events(f, "rolled-back"), 3);
}

static void test_back_to_installed(void **state)
{
    struct store_fixture *f = *state;
    adopt(f, "0.2.0", 1);
    assert_int_equal(update_store_rollback(f->store, "asked for", NULL), 0);
    assert_state(f, UPDATE_INSTALLED, "0.2.0", "", 1);
    assert_link(f, "");
    reopen(f);
    assert_state(f, UPDATE_INSTALLED, "0.2.0", "", 1);
    assert_int_equal(update_store_rollback(f->store, "asked for", NULL), 0);
    assert_state(f, "0.2.0", UPDATE_INSTALLED, "", 1);

    print_message("the installed version can be pending like any other\n");
    make_pending(f, UPDATE_INSTALLED);
    assert_state(f, UPDATE_INSTALLED, "0.2.0", UPDATE_INSTALLED, 1);
    assert_link(f, "");
    reopen(f);
    assert_int_equal(update_store_rollback(f->store, "it was late", NULL), 0);
    assert_state(f, "0.2.0", UPDATE_INSTALLED, "", 1);
    make_pending(f, UPDATE_INSTALLED);
    assert_int_equal(update_store_confirm(f->store, NULL), 0);
    assert_state(f, UPDATE_INSTALLED, "0.2.0", "", 1);
}

static void assert_slots(struct store_fixture *f, const char *expected)
{
    char text[256] = "";
    struct update_slot *slots;
    size_t count, used = 0;
    assert_int_equal(update_store_slots(f->store, &slots, &count, NULL), 0);
    for (size_t i = 0; i < count; i++)
        used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%s%s%s ", slots[i].version,
                                 slots[i].current ? "*" : "", slots[i].previous ? "-" : "",
                                 slots[i].pending ? "?" : "");
    free(slots);
    print_message("  %s\n", text);
    assert_string_equal(text, expected);
}

static void test_prune(void **state)
{
    struct store_fixture *f = *state;
    adopt(f, "0.9", 1);
    adopt(f, "0.10", 1);
    adopt(f, "0.2", 1);
    install(f, "1.0", 1);
    install(f, "2.0", 1);
    make_pending(f, "1.0");
    assert_slots(f, "0.2- 0.9 0.10 1.0*? 2.0 ");
    print_message("0.10 is what a rollback makes previous\n");
    assert_int_equal(update_store_prune(f->store, 1, NULL), 0);
    assert_slots(f, "0.2- 0.10 1.0*? 2.0 ");
    assert_int_equal(update_store_prune(f->store, 0, NULL), 0);
    assert_slots(f, "0.2- 0.10 1.0*? ");
    assert_int_equal(update_store_confirm(f->store, NULL), 0);
    assert_int_equal(update_store_prune(f->store, 0, NULL), 0);
    assert_slots(f, "0.2- 1.0* ");
    assert_false(has(f, "slots/.old"));
    assert_int_equal(count_events(f, "pruned"), 3);
}

static void run_program(int fd, const char *expected)
{
    char text[64] = "";
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        char *const args[] = {"strake", NULL}, *const none[] = {NULL};
        dup2(ends[1], STDOUT_FILENO);
        fcntl(fd, F_SETFD, 0);  // a script's interpreter opens it once more
        execveat(fd, "", args, none, AT_EMPTY_PATH);
        _exit(127);
    }
    int status;
    close(ends[1]);
    assert_true(fd_read_full(ends[0], text, sizeof(text) - 1) >= 0);
    close(ends[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    print_message("  it ran, and said: %s", text);
    assert_string_equal(text, expected);
}

static void test_program(void **state)
{
    struct store_fixture *f = *state;
    struct error err = {0};
    int fd;
    adopt(f, "0.2.0", 1);
    assert_int_equal(update_store_open_program(f->store, "0.2.0", &fd, NULL), 0);
    run_program(fd, "strake 0.2.0\n");
    print_message("nobody can change it\n");
    assert_int_equal(write(fd, "x", 1), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(ftruncate(fd, 0), -1);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), -1);
    close(fd);
    print_message("one byte altered, the size kept\n");
    meddle(f, "printf X | dd of=slots/0.2.0/strake bs=1 seek=150000 conv=notrunc status=none");
    assert_refused(update_store_open_program(f->store, "0.2.0", &fd, &err), -EBADMSG, &err,
                   "not the program");
    assert_refused(update_store_open_program(f->store, UPDATE_INSTALLED, &fd, &err), -ENOENT, &err,
                   "no version");
    assert_refused(update_store_open_program(f->store, "../slots/0.2.0", &fd, &err), -ENOENT, &err,
                   "no version");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORE_TEST(test_first),       STORE_TEST(test_install), STORE_TEST(test_life),
        STORE_TEST(test_bad_install), STORE_TEST(test_prune),   STORE_TEST(test_back_to_installed),
        STORE_TEST(test_program),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
