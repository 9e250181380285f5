// SPDX-License-Identifier: BSD-2-Clause
// All partitions handed over, or none: three of them, with a fault in each and none, on the way and
// on the way back. The monitors are this very program, which they leave for a copy of it in sealed
// memory; what one runs in shows in /proc/PID/exe. The guests write letters in alphabetical
// order: none is missing or doubled.
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "supervisor/program.h"
#include "supervisor/transaction.h"
#include "unit.h"

// t1 from 'a' to 'z' to the UART, about every 100 us, for ever.
static const uint32_t letters[] = {0x100002b7, 0x06100313, 0x07a00393, 0x00628023,
                                   0x00020e37, 0xfffe0e13, 0xfe0e1ee3, 0x00130313,
                                   0xfe63d6e3, 0x06100313, 0xfe5ff06f};
#define WAIT_MS 120000u
#define COUNT 3
static const char *const names[COUNT] = {"one", "three", "two"};

struct fixture {
    struct loop *loop;
    struct loop_timer *timer;
    struct registry *registry;
    struct entry *entries[COUNT];
    char folder[64];
    int program_fd;
    bool timed_out;
    enum transaction_outcome outcome;
    json_t *result;
};

static void on_timeout(void *opaque)
{
    struct fixture *f = opaque;
    f->timed_out = true;
    loop_stop(f->loop);
}

static void run_for(struct fixture *f, unsigned ms)
{
    f->timed_out = false;
    loop_timer_start(f->timer, ms);
    loop_run(f->loop);
    loop_timer_stop(f->timer);
}

static void on_started(void *opaque, struct entry *entry, const struct error *err)
{
    struct fixture *f = opaque;
    (void)entry;
    if (err)
        fail_msg("%s", err->message);
    loop_stop(f->loop);
}

static void on_killed(void *opaque, struct entry *entry, const struct error *err)
{
    struct fixture *f = opaque;
    (void)entry, (void)err;
    loop_stop(f->loop);
}

static void on_settled(void *opaque)
{
    struct fixture *f = opaque;
    loop_stop(f->loop);
}

static void open_registry(struct fixture *f)
{
    const struct registry_config config = {
        .loop = f->loop, .state_dir = f->folder, .run_dir = f->folder, .restart_delay_ms = 1000};
    struct error err;
    if (registry_create(&f->registry, &config, &err) < 0)
        fail_msg("%s", err.message);
}

static void on_done(void *opaque, enum transaction_outcome outcome, json_t *result)
{
    struct fixture *f = opaque;
    f->outcome = outcome;
    json_decref(f->result);
    f->result = json_incref(result);
    loop_stop(f->loop);
}

static void begin(struct fixture *f)
{
    struct error err;
    if (transaction_begin(f->registry, f->program_fd, on_done, f, &err) < 0)
        fail_msg("%s", err.message);
}

// Returns the result, borrowed.
static json_t *hand_over(struct fixture *f)
{
    begin(f);
    run_for(f, WAIT_MS);
    assert_false(f->timed_out);
    assert_null(registry_transaction(f->registry));
    print_message("%s\n", json_string_value(json_object_get(f->result, "why")));
    return f->result;
}

static const char *told(json_t *result, size_t i, const char *key)
{
    const json_t *list = json_object_get(result, "partitions");
    return json_string_value(json_object_get(json_array_get(list, i), key));
}

static json_int_t number_of(json_t *result, size_t i, const char *key)
{
    const json_t *list = json_object_get(result, "partitions");
    return json_integer_value(json_object_get(json_array_get(list, i), key));
}

// Whether its monitor is the copy that all are handed over to.
static bool in_copy(const struct fixture *f, const struct entry *entry)
{
    char path[64];
    struct stat monitor, copy;
    snprintf(path, sizeof(path), "/proc/%d/exe", (int)process_pid(entry->process));
    assert_int_equal(stat(path, &monitor), 0);
    assert_int_equal(fstat(f->program_fd, &copy), 0);
    return monitor.st_dev == copy.st_dev && monitor.st_ino == copy.st_ino;
}

// The guest has written all letters in order, and goes on.
static void check_letters(struct fixture *f, const struct entry *entry)
{
    uint64_t position = 0, end = console_ring_end(entry->console);
    char bytes[4096], last = 0;
    for (unsigned i = 0; console_ring_end(entry->console) < end + 20; i++) {
        assert_true(i < WAIT_MS / 10);
        run_for(f, 10);
    }
    for (size_t n; (n = console_ring_read(entry->console, &position, bytes, sizeof(bytes))) > 0;)
        for (size_t i = 0; i < n; last = bytes[i++])
            if (last && bytes[i] != (last == 'z' ? 'a' : last + 1))
                fail_msg("%s: after '%c' comes '%c'", entry->name, last, bytes[i]);
}

static void check_all(struct fixture *f, bool copy)
{
    for (size_t i = 0; i < COUNT; i++) {
        assert_int_equal(in_copy(f, f->entries[i]), copy);
        check_letters(f, f->entries[i]);
    }
}

// ---- Tests --------------------------------------------------------------------------------------

static void test_all(void **state)
{
    struct fixture *f = *state;
    json_t *result = hand_over(f);
    assert_int_equal(f->outcome, TRANSACTION_DONE);
    assert_string_equal(json_string_value(json_object_get(result, "outcome")), "done");
    assert_int_equal(json_array_size(json_object_get(result, "partitions")), COUNT);
    json_int_t longest = 0;
    for (size_t i = 0; i < COUNT; i++) {
        assert_string_equal(told(result, i, "outcome"), "handed-over");
        json_int_t blackout_ns = number_of(result, i, "blackout_ns");
        assert_true(blackout_ns > 0);
        longest = blackout_ns > longest ? blackout_ns : longest;
    }
    assert_int_equal(json_integer_value(json_object_get(result, "blackout_ns")), longest);
    check_all(f, true);
}

static void test_failure_sends_all_back(void **state)
{
    static const char *const faults[] = {"hello:exit", "warm:kill", "adopt:corrupt", "run:kill"};
    struct fixture *f = *state;
    for (size_t bad = 0; bad < COUNT; bad++) {
        process_handover_faults(f->entries[bad]->process, NULL, faults[bad]);
        json_t *result = hand_over(f);
        process_handover_faults(f->entries[bad]->process, NULL, NULL);
        assert_int_equal(f->outcome, TRANSACTION_ROLLED_BACK);
        assert_string_equal(json_string_value(json_object_get(result, "outcome")), "rolled-back");
        assert_non_null(
            strstr(json_string_value(json_object_get(result, "why")), f->entries[bad]->name));
        assert_int_equal(json_array_size(json_object_get(result, "partitions")), bad + 1);
        for (size_t i = 0; i < bad; i++) {
            assert_string_equal(told(result, i, "outcome"), "returned");
            assert_true(number_of(result, i, "return_blackout_ns") > 0);
        }
        assert_string_equal(told(result, bad, "outcome"), "failed");
        assert_non_null(told(result, bad, "why"));
        check_all(f, false);
    }
}

// One that ends while others are handed over is no failure; one that crashes is.
static void test_ends_meanwhile(void **state)
{
    struct fixture *f = *state;
    begin(f);
    entry_kill(f->entries[1], NULL, NULL);
    run_for(f, WAIT_MS);
    assert_int_equal(f->outcome, TRANSACTION_DONE);
    assert_true(in_copy(f, f->entries[0]) && in_copy(f, f->entries[2]));
    assert_null(f->entries[1]->process);

    process_handover_faults(f->entries[2]->process, "freeze:kill", NULL);
    json_t *result = hand_over(f);
    assert_int_equal(f->outcome, TRANSACTION_ROLLED_BACK);
    assert_string_equal(told(result, 0, "outcome"), "returned");
    assert_string_equal(told(result, 1, "outcome"), "failed");
    check_letters(f, f->entries[0]);
}

// There, but not back: the fault is set when the first has arrived.
static void test_cannot_go_back(void **state)
{
    struct fixture *f = *state;
    process_handover_faults(f->entries[1]->process, NULL, "run:kill");
    begin(f);
    for (unsigned i = 0; f->entries[0]->handovers == 0 && i < WAIT_MS; i++)
        run_for(f, 1);
    process_handover_faults(f->entries[0]->process, NULL, "hello:exit");
    if (registry_transaction(f->registry))
        run_for(f, WAIT_MS);
    assert_int_equal(f->outcome, TRANSACTION_INCOMPLETE);
    assert_string_equal(told(f->result, 0, "outcome"), "kept");
    assert_non_null(told(f->result, 0, "why"));
    assert_string_equal(told(f->result, 1, "outcome"), "failed");
    assert_true(in_copy(f, f->entries[0]));
    assert_false(in_copy(f, f->entries[1]));
    for (size_t i = 0; i < COUNT; i++)
        check_letters(f, f->entries[i]);
}

static void gather(struct fixture *f, enum transaction_outcome outcome)
{
    struct error err;
    assert_int_equal(transaction_gather(f->registry, on_done, f, &err), 0);
    run_for(f, WAIT_MS);
    assert_false(f->timed_out);
    assert_int_equal(f->outcome, outcome);
}

// From another program to this one, each by itself; who is here stays as it is.
static void test_gathered(void **state)
{
    struct fixture *f = *state;
    hand_over(f);
    check_all(f, true);
    process_handover_faults(f->entries[1]->process, NULL, "hello:exit");
    gather(f, TRANSACTION_INCOMPLETE);
    process_handover_faults(f->entries[1]->process, NULL, NULL);
    assert_true(in_copy(f, f->entries[1]));
    assert_false(in_copy(f, f->entries[0]) || in_copy(f, f->entries[2]));
    gather(f, TRANSACTION_DONE);
    assert_int_equal(f->entries[0]->handovers, 2);
    check_all(f, false);
}

// What somebody else hands over is waited for.
static void test_waits(void **state)
{
    struct fixture *f = *state;
    entry_handover(f->entries[1], -1, NULL, NULL);
    assert_true(process_is_handed_over(f->entries[1]->process));
    hand_over(f);
    assert_int_equal(f->outcome, TRANSACTION_DONE);
    assert_int_equal(f->entries[1]->handovers, 2);
    check_all(f, true);
}

static void test_refused(void **state)
{
    struct fixture *f = *state;
    struct error err;
    begin(f);
    assert_int_equal(transaction_begin(f->registry, -1, on_done, f, &err), -EBUSY);
    print_message("%s\n", err.message);
    run_for(f, WAIT_MS);
    assert_int_equal(f->outcome, TRANSACTION_DONE);
    assert_int_equal(transaction_begin(f->registry, 99999, on_done, f, &err), -EBADF);
    print_message("%s\n", err.message);
    assert_null(registry_transaction(f->registry));
}

// The supervisor ends amid a transaction, and the next one finds all partitions.
static void test_cancelled(void **state)
{
    struct fixture *f = *state;
    begin(f);
    run_for(f, 1);
    assert_non_null(registry_transaction(f->registry));
    registry_release(f->registry);
    assert_int_equal(f->outcome, TRANSACTION_CANCELLED);
    registry_destroy(f->registry);
    open_registry(f);
    struct error err;
    assert_int_equal(registry_load(f->registry, on_settled, f, &err), 0);
    run_for(f, WAIT_MS);
    for (size_t i = 0; i < COUNT; i++) {
        f->entries[i] = registry_find_name(f->registry, names[i]);
        assert_non_null(f->entries[i]);
        for (unsigned ms = 0; f->entries[i]->state != ENTRY_RUNNING; ms += 10) {
            assert_true(ms < WAIT_MS);
            run_for(f, 10);
        }
        check_letters(f, f->entries[i]);
    }
}

// ---- Set-up -------------------------------------------------------------------------------------

static struct entry *start(struct fixture *f, const char *name, const char *image)
{
    struct entry *entry = NULL;
    struct error err = {0};
    json_t *definition =
        json_pack("{s:s,s:s,s:s}", "name", name, "firmware", image, "memory", "16M");
    if (registry_add(f->registry, definition, &entry, &err) < 0)
        fail_msg("%s", err.message);
    json_decref(definition);
    entry_start(entry, false, on_started, f);
    run_for(f, WAIT_MS);
    assert_int_equal(entry->state, ENTRY_RUNNING);
    return entry;
}

static void write_image(const char *path)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(letters, sizeof(letters), 1, file), 1);
    fclose(file);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct error err = {0};
    char path[96];
    snprintf(f->folder, sizeof(f->folder), "/tmp/strake-test-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    snprintf(path, sizeof(path), "%s/firmware", f->folder);
    write_image(path);
    assert_int_equal(loop_create(&f->loop, NULL), 0);
    assert_int_equal(loop_timer_create(f->loop, on_timeout, f, &f->timer), 0);
    open_registry(f);
    for (size_t i = 0; i < COUNT; i++)
        f->entries[i] = start(f, names[i], path);
    int own_fd = program_of(getpid(), &err);
    f->program_fd = program_seal(own_fd, &err);
    assert_true(f->program_fd >= 0);
    close(own_fd);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char command[128];
    for (size_t i = 0; i < COUNT; i++) {
        if (!f->entries[i]->process)
            continue;
        entry_kill(f->entries[i], on_killed, f);
        run_for(f, WAIT_MS);
    }
    registry_release(f->registry);
    registry_destroy(f->registry);
    loop_timer_close(f->timer);
    loop_destroy(f->loop);
    close(f->program_fd);
    json_decref(f->result);
    snprintf(command, sizeof(command), "rm -r %s", f->folder);
    assert_int_equal(system(command), 0);
    free(f);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    if (argc > 1 && strcmp(argv[1], "monitor") == 0)
        return monitor_main();
    const struct CMUnitTest tests[] = {
        TEST(test_all),
        TEST(test_failure_sends_all_back),
        TEST(test_ends_meanwhile),
        TEST(test_cannot_go_back),
        TEST(test_gathered),
        TEST(test_waits),
        TEST(test_refused),
        TEST(test_cancelled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
