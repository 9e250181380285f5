// SPDX-License-Identifier: BSD-2-Clause
// A monitor that never answers: its partition fails to start when time is up, why is told, and the
// process is ended. The monitor is this very program, started as `monitor`, and does nothing.
//
// What waits to be started again when a supervisor ends is started by the next one.
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "supervisor/registry.h"
#include "unit.h"

#define WAIT_MS 60000u
#define START_MS 300u

struct fixture {
    struct loop *loop;
    struct loop_timer *timer;
    struct registry *registry;
    char folder[64];
    struct error started;
    unsigned answers;
    bool timed_out;
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
    f->started = err ? *err : (struct error){0};
    f->answers++;
    loop_stop(f->loop);
}

static struct entry *add(struct fixture *f)
{
    char path[96];
    struct entry *entry = NULL;
    struct error err = {0};
    snprintf(path, sizeof(path), "%s/firmware", f->folder);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs("nothing that is ever run", file);
    fclose(file);
    json_t *definition = json_pack("{s:s,s:s,s:s,s:s}", "name", "silent", "firmware", path,
                                   "memory", "16M", "restart", "on-failure");
    if (registry_add(f->registry, definition, &entry, &err) < 0)
        fail_msg("%s", err.message);
    json_decref(definition);
    return entry;
}

static void test_silent_monitor(void **state)
{
    struct fixture *f = *state;
    struct entry *entry = add(f);
    uint64_t begin_ns = clock_monotonic_ns();

    entry_start(entry, false, on_started, f);
    assert_int_equal(entry->state, ENTRY_STARTING);
    pid_t pid = process_pid(entry->process);
    assert_int_equal(kill(pid, 0), 0);
    run_for(f, WAIT_MS);
    assert_false(f->timed_out);
    assert_true(clock_monotonic_ns() - begin_ns >= START_MS * UINT64_C(1000000));
    print_message("%s\n", f->started.message);
    assert_int_equal(f->started.code, -ETIMEDOUT);
    assert_string_equal(f->started.message,
                        "cannot start partition \"silent\": its monitor does not answer");
    assert_int_equal(entry->state, ENTRY_FAILED);
    assert_string_equal(json_string_value(json_object_get(entry->last_end, "why")),
                        f->started.message);
    for (unsigned ms = 0; ms < WAIT_MS && kill(pid, 0) == 0; ms += 100)
        run_for(f, 100);  // it is ended in a turn of the loop of its own
    print_message("its process is gone: kill says %s\n",
                  kill(pid, 0) ? strerror(errno) : "nothing");
    assert_int_equal(kill(pid, 0), -1);
    assert_null(entry->process);
    assert_int_equal(f->answers, 1);

    print_message("it can be started anew, and be killed while it is\n");
    entry_start(entry, false, on_started, f);
    assert_int_equal(entry->state, ENTRY_STARTING);
    entry_kill(entry, on_started, f);
    while (f->answers < 3)
        run_for(f, WAIT_MS);
    assert_null(entry->process);
}

static void open_registry(struct fixture *f)
{
    const struct registry_config config = {.loop = f->loop,
                                           .state_dir = f->folder,
                                           .run_dir = f->folder,
                                           .restart_delay_ms = 1000,
                                           .start_timeout_ms = START_MS};
    struct error err = {0};
    if (registry_create(&f->registry, &config, &err) < 0)
        fail_msg("%s", err.message);
}

static void on_settled(void *opaque)
{
    struct fixture *f = opaque;
    loop_stop(f->loop);
}

// What the next supervisor makes of a partition that this one leaves in a state.
static enum entry_state next_state(struct fixture *f, struct entry *entry, enum entry_state left)
{
    struct error err;
    entry->state = left;
    entry->wanted = left == ENTRY_RESTARTING;
    registry_record(entry);
    registry_destroy(f->registry);
    open_registry(f);
    assert_int_equal(registry_load(f->registry, on_settled, f, &err), 0);
    run_for(f, WAIT_MS);
    entry = registry_find_name(f->registry, "silent");
    assert_non_null(entry);
    return entry->state;
}

static void test_owed_start(void **state)
{
    struct fixture *f = *state;
    struct entry *entry = add(f);
    assert_int_equal(next_state(f, entry, ENTRY_FAILED), ENTRY_STOPPED);
    entry = registry_find_name(f->registry, "silent");
    assert_int_equal(next_state(f, entry, ENTRY_RESTARTING), ENTRY_STARTING);
    entry_kill(registry_find_name(f->registry, "silent"), NULL, NULL);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    snprintf(f->folder, sizeof(f->folder), "/tmp/strake-test-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    assert_int_equal(loop_create(&f->loop, NULL), 0);
    assert_int_equal(loop_timer_create(f->loop, on_timeout, f, &f->timer), 0);
    open_registry(f);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char command[96];
    registry_destroy(f->registry);
    loop_timer_close(f->timer);
    loop_destroy(f->loop);
    snprintf(command, sizeof(command), "rm -r %s", f->folder);
    assert_int_equal(system(command), 0);
    free(f);
    return 0;
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    if (argc > 1 && strcmp(argv[1], "monitor") == 0)
        for (;;)
            pause();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_silent_monitor, setup, teardown),
        cmocka_unit_test_setup_teardown(test_owed_start, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
