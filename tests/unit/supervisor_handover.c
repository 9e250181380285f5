// SPDX-License-Identifier: BSD-2-Clause
// Handovers as a supervisor does them, with confined monitors (this program is their binary, too):
// one after the other, and with a fault on either side at each step. The guest writes letters in
// alphabetical order to its console; that none is missing or doubled shows that it went on where it
// was, in one process at a time.
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "supervisor/supervisor.h"
#include "unit.h"

// t1 from 'a' to 'z' to the UART, about every 100 us, for ever.
static const uint32_t letters[] = {0x100002b7, 0x06100313, 0x07a00393, 0x00628023,
                                   0x00020e37, 0xfffe0e13, 0xfe0e1ee3, 0x00130313,
                                   0xfe63d6e3, 0x06100313, 0xfe5ff06f};
#define DEADLINE_NS 60000000000u
#define TIMEOUT_MS 30000u

struct fixture {
    struct loop *loop;
    pthread_t thread;
    struct definition definition;
    struct process *process;
    atomic_bool started, ended, done;
    atomic_uint replaced;
    struct process_end end;
    int start_code, done_code;
    char why[ERROR_MESSAGE_BYTES];
    uint64_t blackout_ns;
    uint64_t position;  // in the console
    char last;          // letter
};

// ---- On the loop's thread -----------------------------------------------------------------------

static void on_console(void *opaque)
{
    (void)opaque;
}

static void on_ended(void *opaque, const struct process_end *end)
{
    struct fixture *f = opaque;
    f->end = *end;
    atomic_store(&f->ended, true);
}

static void on_replaced(void *opaque)
{
    struct fixture *f = opaque;
    atomic_fetch_add(&f->replaced, 1);
}

static void on_started(void *opaque, json_t *result, struct descriptors *fds,
                       const struct error *err)
{
    struct fixture *f = opaque;
    (void)result, (void)fds;
    f->start_code = err ? err->code : 0;
    if (err)
        memcpy(f->why, err->message, sizeof(f->why));
    atomic_store(&f->started, true);
}

static void on_done(void *opaque, json_t *result, struct descriptors *fds, const struct error *err)
{
    struct fixture *f = opaque;
    (void)fds;
    f->done_code = err ? err->code : 0;
    f->why[0] = 0;
    if (err)
        memcpy(f->why, err->message, sizeof(f->why));
    f->blackout_ns = (uint64_t)json_integer_value(json_object_get(result, "blackout_ns"));
    atomic_store(&f->done, true);
}

static void launch(void *opaque)
{
    struct fixture *f = opaque;
    const struct process_config config = {
        .loop = f->loop,
        .events = {.console = on_console, .ended = on_ended, .replaced = on_replaced, .opaque = f},
        .binary_fd = -1,
    };
    struct descriptors fds = {0};
    struct error err = {0};
    int program = memfd_create("program", MFD_CLOEXEC);
    if (write(program, letters, sizeof(letters)) != sizeof(letters) ||
        descriptors_add(&fds, "firmware", program) < 0 ||
        process_launch(&f->process, &config, &f->definition, &fds, false, on_started, f, &err) < 0)
        on_started(f, NULL, NULL, &err);
}

struct call {
    struct fixture *f;
    const char *old_fault, *new_fault;
    const char *op;
    bool held;  // what is asked for in general
};

static void hand_over(void *opaque)
{
    const struct call *call = opaque;
    struct error err = {0};
    process_handover_faults(call->f->process, call->old_fault, call->new_fault);
    if (process_handover(call->f->process, -1, TIMEOUT_MS, on_done, call->f, &err) < 0)
        on_done(call->f, NULL, NULL, &err);
}

static void request(void *opaque)
{
    const struct call *call = opaque;
    process_request(call->f->process, call->op, NULL, NULL, on_done, call->f);
}

// Reads what the guest has written meanwhile, which has to go on in the alphabet.
static void read_letters(void *opaque)
{
    struct fixture *f = opaque;
    struct console_ring *ring = process_console(f->process);
    char bytes[4096];
    size_t count;
    while ((count = console_ring_read(ring, &f->position, bytes, sizeof(bytes))) > 0)
        for (size_t i = 0; i < count; i++) {
            if (f->last && bytes[i] != (f->last == 'z' ? 'a' : f->last + 1))
                snprintf(f->why, sizeof(f->why), "after '%c' comes '%c'", f->last, bytes[i]);
            f->last = bytes[i];
        }
}

static void let_go(void *opaque)
{
    struct fixture *f = opaque;
    process_destroy(f->process, true);
}

// ---- On the test's ------------------------------------------------------------------------------

static void await(const atomic_bool *what)
{
    uint64_t start_ns = clock_monotonic_ns();
    while (!atomic_load(what)) {
        assert_true(clock_monotonic_ns() - start_ns < DEADLINE_NS);
        usleep(1000);
    }
}

static void check_letters(struct fixture *f)
{
    f->why[0] = 0;
    loop_call(f->loop, read_letters, f);
    if (f->why[0])
        fail_msg("%s", f->why);
}

// Whether the guest goes on, having missed nothing.
static bool writes(struct fixture *f)
{
    check_letters(f);
    uint64_t start_ns = clock_monotonic_ns(), start = f->position;
    while (f->position < start + 20) {
        if (clock_monotonic_ns() - start_ns > DEADLINE_NS)
            return false;
        usleep(1000);
        check_letters(f);
    }
    return true;
}

static int handover(struct fixture *f, const char *old_fault, const char *new_fault)
{
    struct call call = {.f = f, .old_fault = old_fault, .new_fault = new_fault};
    atomic_store(&f->done, false);
    loop_call(f->loop, hand_over, &call);
    await(&f->done);
    return f->done_code;
}

static void ask(struct fixture *f, const char *op)
{
    struct call call = {.f = f, .op = op};
    atomic_store(&f->done, false);
    loop_call(f->loop, request, &call);
    await(&f->done);
    assert_int_equal(f->done_code, 0);
}

static void start(struct fixture *f)
{
    f->position = 0;
    f->last = 0;
    atomic_store(&f->started, false);
    atomic_store(&f->ended, false);
    atomic_store(&f->replaced, 0);
    loop_call(f->loop, launch, f);
    await(&f->started);
    if (f->start_code < 0)
        fail_msg("%s", f->why);
    assert_true(writes(f));
}

static void stop(struct fixture *f)
{
    loop_call(f->loop, let_go, f);
    f->process = NULL;
}

// ---- Tests --------------------------------------------------------------------------------------

static void test_one_after_the_other(void **state)
{
    struct fixture *f = *state;
    uint64_t worst_ns = 0;
    start(f);
    for (unsigned i = 1; i <= 10; i++) {
        pid_t before = process_pid(f->process);
        if (handover(f, NULL, NULL) < 0)
            fail_msg("%s", f->why);
        assert_int_equal(atomic_load(&f->replaced), i);
        assert_int_not_equal(process_pid(f->process), before);
        assert_true(f->blackout_ns > 0);
        worst_ns = f->blackout_ns > worst_ns ? f->blackout_ns : worst_ns;
        assert_true(writes(f));
    }
    assert_false(atomic_load(&f->ended));
    print_message("worst blackout of 10: %.3f ms\n", (double)worst_ns / 1e6);
    stop(f);
}

static void test_paused_stays_paused(void **state)
{
    struct fixture *f = *state;
    start(f);
    ask(f, "pause");
    check_letters(f);
    uint64_t at = f->position;
    for (int i = 0; i < 2; i++) {
        if (handover(f, NULL, NULL) < 0)
            fail_msg("%s", f->why);
        usleep(50000);
        check_letters(f);
        assert_int_equal(f->position, at);
    }
    ask(f, "resume");
    assert_true(writes(f));
    stop(f);
}

static const struct fault_case {
    const char *old_fault, *new_fault;
    const char *why;  // NULL: it succeeds
    bool crashes;
} cases[] = {
    {NULL, "hello:exit", "at step \"hello\": the new monitor has ended"},
    {NULL, "hello:hang", "at step \"hello\": the new monitor does not answer"},
    {NULL, "hello:refuse", "a test wants it to fail"},
    {NULL, "hello:version", "the new monitor speaks version 2 of the protocol"},
    {NULL, "warm:kill", "at step \"warm\": the new monitor has ended"},
    {NULL, "warm:refuse", "a test wants it to fail"},
    {NULL, "state:exit", "the new monitor has ended"},
    {NULL, "adopt:kill", "the new monitor has ended"},
    {NULL, "adopt:hang", "the new monitor does not answer"},
    {NULL, "adopt:refuse", "a test wants it to fail"},
    {NULL, "adopt:corrupt", "the state is another after loading"},
    {NULL, "run:kill", "the new monitor has ended"},
    {"hello:refuse", NULL, "a test wants it to fail"},
    {"freeze:refuse", NULL, "a test wants it to fail"},
    {"freeze:version", NULL, "is not known here"},
    {"state:refuse", NULL, "a test wants it to fail"},
    {"adopt:kill", NULL, NULL},
    {"retire:kill", NULL, NULL},
    {"hello:kill", NULL, "", true},
    {"freeze:kill", NULL, "", true},
    {"state:kill", NULL, "", true},
    {NULL, "retire:kill", "", true},
};

static void check_case(struct fixture *f, const struct fault_case *c)
{
    int rc = handover(f, c->old_fault, c->new_fault);
    print_message("%s %s: %s\n", c->old_fault ? "old" : "new",
                  c->old_fault ? c->old_fault : c->new_fault, rc < 0 ? f->why : "goes on");
    if (!c->why)
        assert_int_equal(rc, 0);
    else if (rc == 0 || !strstr(f->why, c->why))
        fail_msg("\"%s\" is not \"%s\"", f->why, c->why);
    if (c->crashes) {
        await(&f->ended);
        assert_int_equal(f->end.end, MONITOR_CRASHED);
        stop(f);
        start(f);
    } else {
        assert_true(writes(f));
        assert_false(atomic_load(&f->ended));
    }
}

// One partition goes through all, until one takes it along.
static void test_faults(void **state)
{
    struct fixture *f = *state;
    start(f);
    for (size_t i = 0; i < BASE_COUNT_OF(cases); i++)
        check_case(f, &cases[i]);
    if (handover(f, NULL, NULL) < 0)
        fail_msg("%s", f->why);
    assert_true(writes(f));
    stop(f);
}

// ---- Set-up -------------------------------------------------------------------------------------

static void *run_loop(void *opaque)
{
    loop_run(opaque);
    return NULL;
}

static int setup(void **state)
{
    struct fixture *f = test_calloc(1, sizeof(*f));
    struct error err = {0};
    *state = f;
    definition_init(&f->definition);
    if (definition_set(&f->definition, "name", "test", &err) < 0 ||
        definition_set(&f->definition, "firmware", "program", &err) < 0 ||
        definition_set(&f->definition, "memory", "16M", &err) < 0 ||
        loop_create(&f->loop, &err) < 0) {
        print_error("%s\n", err.message);
        return -1;
    }
    return pthread_create(&f->thread, NULL, run_loop, f->loop);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    if (f->process)
        stop(f);
    loop_stop(f->loop);
    pthread_join(f->thread, NULL);
    loop_destroy(f->loop);
    definition_fini(&f->definition);
    test_free(f);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "monitor") == 0)
        return monitor_main();
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_one_after_the_other, setup, teardown),
        cmocka_unit_test_setup_teardown(test_paused_stays_paused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_faults, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
