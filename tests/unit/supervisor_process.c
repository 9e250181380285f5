// SPDX-License-Identifier: BSD-2-Clause
// A partition's process as its supervisor sees it: start, console, end, crash, a supervisor that
// goes and one that comes, handover. Monitors are this very program, started as `monitor`.
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gdb/gdb.h"
#include "supervisor/supervisor.h"
#include "unit.h"

#define WAIT_MS 60000u

// Says "r", then echoes what it reads from the UART, until a 'q': power-off.
static const uint32_t echo[] = {
    0x100002b7,                          // lui t0,0x10000
    0x07200313, 0x00628023,              // li t1,'r'; sb t1,0(t0)
    0x0052c383, 0x0013f393, 0xfe038ce3,  // 1: lbu t2,5(t0); andi t2,t2,1; beqz t2,1b
    0x0002ce03, 0x01c28023,              // lbu t3,0(t0); sb t3,0(t0)
    0x07100e93, 0xffde14e3,              // li t4,'q'; bne t3,t4,1b
    0x00100f37, 0x00005fb7, 0x555f8f93,  // lui t5,0x100; li t6,0x5555
    0x01ff2023, 0x0000006f,              // sw t6,0(t5); j .
};

struct fixture {
    struct loop *loop;
    struct loop_timer *timer;
    struct process *process;
    struct definition definition;
    char folder[64];
    int gdb_fd;           // a listening socket for debuggers, or -1
    struct error answer;  // of what was asked for; code 1: none yet
    json_t *result;
    struct process_end end;  // MONITOR_RUNNING: not ended
    unsigned replaced;
    uint64_t position;
    char said[256];
    const char *awaited;
    bool timed_out;
};

static void on_timeout(void *opaque)
{
    struct fixture *f = opaque;
    f->timed_out = true;
    loop_stop(f->loop);
}

static void on_answer(void *opaque, json_t *result, struct descriptors *fds,
                      const struct error *err)
{
    struct fixture *f = opaque;
    (void)fds;
    f->answer = err ? *err : (struct error){0};
    json_decref(f->result);
    f->result = json_incref(result);
    loop_stop(f->loop);
}

static void on_console(void *opaque)
{
    struct fixture *f = opaque;
    size_t length = strlen(f->said);
    length += console_ring_read(process_console(f->process), &f->position, f->said + length,
                                sizeof(f->said) - 1 - length);
    f->said[length] = 0;
    if (f->awaited && strstr(f->said, f->awaited))
        loop_stop(f->loop);
}

static void on_ended(void *opaque, const struct process_end *end)
{
    struct fixture *f = opaque;
    f->end = *end;
    f->end.details = NULL;
    loop_stop(f->loop);
}

static void on_replaced(void *opaque)
{
    struct fixture *f = opaque;
    f->replaced++;
}

static void run(struct fixture *f)
{
    f->timed_out = false;
    loop_timer_start(f->timer, WAIT_MS);
    loop_run(f->loop);
    loop_timer_stop(f->timer);
    if (f->timed_out)
        fail_msg("nothing happened in %u s", WAIT_MS / 1000);
}

static void answer(struct fixture *f)
{
    f->answer.code = 1;
    while (f->answer.code == 1)
        run(f);
}

static void answer_good(struct fixture *f)
{
    answer(f);
    if (f->answer.code)
        fail_msg("%s", f->answer.message);
}

static void ended(struct fixture *f)
{
    while (f->end.end == MONITOR_RUNNING)
        run(f);
    print_message("it ended: %s, code %u, \"%s\"\n", monitor_end_name(f->end.end), f->end.code,
                  f->end.why);
}

static void expect(struct fixture *f, const char *text)
{
    f->awaited = text;
    while (!strstr(f->said, text))
        run(f);
    f->awaited = NULL;
}

static void type(struct fixture *f, const char *text)
{
    assert_int_equal(write(process_console_input(f->process), text, strlen(text)), strlen(text));
    expect(f, text);
}

static struct process_config config_of(struct fixture *f, const char *run_dir)
{
    return (struct process_config){
        .loop = f->loop,
        .events = {.console = on_console, .ended = on_ended, .replaced = on_replaced, .opaque = f},
        .run_dir = run_dir,
        .binary_fd = -1};
}

static void launch_bytes(struct fixture *f, const char *run_dir, const void *program, size_t bytes)
{
    struct error err;
    struct descriptors fds = {0};
    int fd = memfd_create("firmware", MFD_CLOEXEC);
    assert_int_equal(write(fd, program, bytes), bytes);
    assert_int_equal(descriptors_add(&fds, "firmware", fd), 0);
    if (f->gdb_fd >= 0)
        assert_int_equal(descriptors_add(&fds, "gdb-listen", f->gdb_fd), 0);
    const struct process_config config = config_of(f, run_dir);
    if (process_launch(&f->process, &config, &f->definition, &fds, false, on_answer, f, &err) < 0)
        fail_msg("%s", err.message);
    assert_int_equal(fds.count, 0);
    answer(f);
}

static void launch(struct fixture *f, const char *run_dir)
{
    launch_bytes(f, run_dir, echo, sizeof(echo));
    if (f->answer.code)
        fail_msg("%s", f->answer.message);
    expect(f, "r");
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct error err;
    f->gdb_fd = -1;
    assert_int_equal(loop_create(&f->loop, &err), 0);
    assert_int_equal(loop_timer_create(f->loop, on_timeout, f, &f->timer), 0);
    definition_init(&f->definition);
    assert_int_equal(definition_set(&f->definition, "name", "test", &err), 0);
    assert_int_equal(definition_set(&f->definition, "firmware", "echo", &err), 0);
    assert_int_equal(definition_set(&f->definition, "memory", "16M", &err), 0);
    snprintf(f->folder, sizeof(f->folder), "/tmp/strake-unit-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    process_destroy(f->process, true);
    loop_destroy(f->loop);
    definition_fini(&f->definition);
    json_decref(f->result);
    assert_int_equal(rmdir(f->folder), 0);  // nothing is left in it
    free(f);
    return 0;
}

static void test_life(void **state)
{
    struct fixture *f = *state;
    print_message("a guest starts, hears, is heard, is counted, and switches itself off\n");
    launch(f, NULL);
    type(f, "hello");
    process_request(f->process, "stats", NULL, NULL, on_answer, f);
    answer_good(f);
    struct monitor_counters counters;
    const json_t *harts = json_object_get(f->result, "harts");
    assert_int_equal(json_array_size(harts), 1);
    monitor_counters_from_json(&counters, json_array_get(harts, 0));
    assert_true(counters.hart.retired > 0 && counters.wall_ns > 0);
    type(f, "q");
    ended(f);
    assert_int_equal(f->end.end, MONITOR_POWEROFF);
}

static void test_pause(void **state)
{
    struct fixture *f = *state;
    print_message("a paused guest does not hear; it does when it goes on\n");
    launch(f, NULL);
    process_request(f->process, "pause", NULL, NULL, on_answer, f);
    answer_good(f);
    assert_int_equal(write(process_console_input(f->process), "x", 1), 1);
    process_request(f->process, "pause", NULL, NULL, on_answer, f);
    answer_good(f);
    assert_null(strchr(f->said, 'x'));
    process_request(f->process, "resume", NULL, NULL, on_answer, f);
    answer_good(f);
    expect(f, "x");
    process_request(f->process, "nonsense", NULL, NULL, on_answer, f);
    answer(f);
    assert_int_equal(f->answer.code, -EOPNOTSUPP);
    process_request(f->process, "kill", NULL, NULL, NULL, NULL);
    ended(f);
    assert_int_equal(f->end.end, MONITOR_STOPPED);
}

static void test_refused(void **state)
{
    struct fixture *f = *state;
    static const char rubbish[] = "\x7f"
                                  "ELF, but no further";
    print_message("a start that fails says why, and is no end\n");
    launch_bytes(f, NULL, rubbish, sizeof(rubbish));
    print_message("%s\n", f->answer.message);
    assert_true(f->answer.code < 0);
    assert_non_null(strstr(f->answer.message, "\"echo\""));
    assert_int_equal(f->end.end, MONITOR_RUNNING);
}

static void test_crash(void **state)
{
    struct fixture *f = *state;
    static const int signals[] = {SIGSEGV, SIGKILL};
    print_message("a monitor that crashes is told with its signal\n");
    for (size_t i = 0; i < BASE_COUNT_OF(signals); i++) {
        f->end.end = MONITOR_RUNNING;
        f->position = 0;
        launch(f, i ? f->folder : NULL);
        kill(process_pid(f->process), signals[i]);
        ended(f);
        assert_int_equal(f->end.end, MONITOR_CRASHED);
        assert_int_equal(f->end.code, signals[i]);
        assert_int_equal(process_pid(f->process), -1);
        process_destroy(f->process, true);
        f->process = NULL;
    }
}

// What a later supervisor finds.
static void adopt(struct fixture *f)
{
    struct error err;
    const struct process_config config = config_of(f, f->folder);
    f->position = 0;
    f->said[0] = 0;
    if (process_adopt(&f->process, &config, on_answer, f, &err) < 0)
        fail_msg("%s", err.message);
    answer(f);
}

static void test_adopt(void **state)
{
    struct fixture *f = *state;
    print_message(
        "without its supervisor a guest goes on; the next one finds it, and all it said\n");
    launch(f, f->folder);
    type(f, "one");
    pid_t pid = process_pid(f->process);
    process_destroy(f->process, false);
    adopt(f);
    assert_int_equal(f->answer.code, 0);
    assert_string_equal(json_string_value(json_object_get(f->result, "state")), "running");
    assert_int_equal(process_pid(f->process), pid);
    expect(f, "rone");
    type(f, "two");
    process_destroy(f->process, false);

    print_message("one that crashed meanwhile is found out\n");
    kill(pid, SIGKILL);
    siginfo_t end;
    assert_int_equal(waitid(P_PID, (id_t)pid, &end, WEXITED | WNOWAIT), 0);
    f->process = NULL;
    adopt(f);
    assert_true(f->answer.code < 0);
    ended(f);
    assert_int_equal(f->end.end, MONITOR_CRASHED);
    expect(f, "ronetwo");
}

static void hand_over(struct fixture *f)
{
    struct error err;
    assert_int_equal(process_handover(f->process, -1, 30000, on_answer, f, &err), 0);
    answer_good(f);
}

static void test_handover(void **state)
{
    struct fixture *f = *state;
    struct error err;
    print_message("a guest goes from process to process, and hears and is heard in each\n");
    launch(f, f->folder);
    for (int i = 0; i < 3; i++) {
        char text[] = {(char)('a' + i), (char)('A' + i), 0};
        pid_t pid = process_pid(f->process);
        type(f, text);
        assert_int_equal(process_handover(f->process, -1, 30000, on_answer, f, &err), 0);
        assert_int_equal(process_handover(f->process, -1, 30000, on_answer, f, &err), -EBUSY);
        answer_good(f);
        print_message("blackout %lld us\n",
                      json_integer_value(json_object_get(f->result, "blackout_ns")) / 1000);
        assert_int_equal(f->replaced, i + 1);
        assert_int_not_equal(process_pid(f->process), pid);
    }
    type(f, "last");
    assert_string_equal(f->said, "raAbBcClast");

    print_message("the next supervisor finds it there\n");
    process_destroy(f->process, false);
    adopt(f);
    assert_int_equal(f->answer.code, 0);
    expect(f, "raAbBcClast");
    type(f, "q");
    ended(f);
    assert_int_equal(f->end.end, MONITOR_POWEROFF);
}

// ---- Lifelines ----------------------------------------------------------------------------------

static void hold(struct fixture *f, const char *name, int lifeline)
{
    struct descriptors fds = {0};
    if (lifeline >= 0)
        assert_int_equal(descriptors_add(&fds, "lifeline", lifeline), 0);
    process_request(f->process, "hold", json_pack("{s:s*}", "name", name), &fds, on_answer, f);
    descriptors_close(&fds);
    answer(f);
}

// A pipe's end, to be held; *seen shows whether anybody still does.
static int lifeline(int *seen)
{
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    *seen = ends[0];
    return ends[1];
}

static void held(int seen)
{
    char byte;
    assert_int_equal(read(seen, &byte, 1), -1);
    assert_int_equal(errno, EAGAIN);
}

static void let_go(int seen)
{
    struct pollfd end = {.fd = seen, .events = POLLIN};
    assert_int_equal(poll(&end, 1, (int)WAIT_MS), 1);
    close(seen);
}

static void test_hold(void **state)
{
    static const char long_name[] = "a-name-of-48-bytes-which-is-as-long-as-they-get-";
    struct fixture *f = *state;
    int first, second, other;
    print_message("a lifeline is held by whichever monitor has the partition, until it is asked to "
                  "let go\n");
    launch(f, f->folder);
    hold(f, "first", lifeline(&first));
    assert_int_equal(f->answer.code, 0);
    hold(f, long_name, lifeline(&other));
    assert_int_equal(f->answer.code, 0);
    hand_over(f);
    hand_over(f);
    type(f, "x");
    held(first);
    held(other);
    print_message("another of the same name takes its place\n");
    hold(f, "first", lifeline(&second));
    let_go(first);
    held(second);
    hold(f, "first", -1);
    let_go(second);
    hold(f, "first", -1);  // there is none any more
    assert_int_equal(f->answer.code, 0);
    print_message("what has no name, or too long a one, is refused and not held\n");
    static const char *const bad[] = {
        NULL, "", "a-name-that-is-far-too-long-for-the-name-of-a-descriptor-in-a-message"};
    for (size_t i = 0; i < BASE_COUNT_OF(bad); i++) {
        hold(f, bad[i], lifeline(&first));
        assert_int_equal(f->answer.code, -EINVAL);
        let_go(first);
    }
    print_message("it ends with the partition\n");
    held(other);
    kill(process_pid(f->process), SIGKILL);
    let_go(other);
    ended(f);
}

// ---- A debugger ---------------------------------------------------------------------------------

static void gdb_send(int fd, const char *text)
{
    char packet[128];
    uint8_t sum = 0;
    for (const char *c = text; *c; c++)
        sum += (uint8_t)*c;
    int length = snprintf(packet, sizeof(packet), "+$%s#%02x", text, sum);
    assert_int_equal(send(fd, packet, (size_t)length, 0), length);
}

// The next packet, without its frame.
static void gdb_receive(int fd, char *text, size_t bytes)
{
    size_t length = 0;
    char c = 0;
    while (c != '$')
        assert_int_equal(recv(fd, &c, 1, 0), 1);
    while (recv(fd, &c, 1, 0) == 1 && c != '#' && length < bytes - 1)
        text[length++] = c;
    text[length] = 0;
    char sum[2];
    assert_int_equal(recv(fd, sum, 2, MSG_WAITALL), 2);
}

static void gdb_ask(int fd, const char *text, const char *wanted)
{
    char answer_text[128];
    gdb_send(fd, text);
    gdb_receive(fd, answer_text, sizeof(answer_text));
    assert_string_equal(answer_text, wanted);
}

static int gdb_connect(struct fixture *f)
{
    struct error err;
    struct sockaddr_in address;
    socklen_t length = sizeof(address);
    const struct timeval patience = {.tv_sec = 60};
    f->gdb_fd = gdb_listen(":0", &err);
    assert_true(f->gdb_fd >= 0);
    assert_int_equal(getsockname(f->gdb_fd, (struct sockaddr *)&address, &length), 0);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, length), 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
    return fd;
}

static void test_debugger(void **state)
{
    struct fixture *f = *state;
    char text[128];
    print_message("a debugger's connection, its stop and its breakpoints go along\n");
    int fd = gdb_connect(f);
    launch_bytes(f, NULL, echo, sizeof(echo));
    assert_int_equal(f->answer.code, 0);
    gdb_ask(fd, "?", "T05thread:1;");
    gdb_ask(fd, "Z0,80000018,4", "OK");  // where it has heard something
    hand_over(f);                        // while the guest is stopped
    gdb_ask(fd, "?", "T05thread:1;");
    gdb_ask(fd, "p20", "0010000000000000");  // where harts start
    gdb_send(fd, "c");
    expect(f, "r");
    hand_over(f);  // while it runs
    assert_int_equal(write(process_console_input(f->process), "x", 1), 1);
    gdb_receive(fd, text, sizeof(text));
    assert_string_equal(text, "T05thread:1;");
    gdb_ask(fd, "p20", "1800008000000000");
    hand_over(f);  // at a breakpoint
    gdb_ask(fd, "z0,80000018,4", "OK");
    gdb_ask(fd, "D", "OK");
    expect(f, "x");
    close(fd);
}

static void test_handover_refused(void **state)
{
    struct fixture *f = *state;
    struct error err;
    print_message("a new process that does not come about leaves the old one at its work\n");
    launch(f, NULL);
    int fd = memfd_create("no program", MFD_CLOEXEC);
    assert_true(process_handover(f->process, fd, 30000, on_answer, f, &err) < 0);
    print_message("%s\n", err.message);
    assert_int_equal(write(fd, "#!/bin/false\n", 13), 13);
    fchmod(fd, 0700);
    pid_t pid = process_pid(f->process);
    assert_int_equal(process_handover(f->process, fd, 30000, on_answer, f, &err), 0);
    answer(f);
    print_message("%s\n", f->answer.message);
    assert_true(f->answer.code < 0);
    assert_int_equal(process_pid(f->process), pid);
    assert_int_equal(f->replaced, 0);
    close(fd);
    type(f, "still here");
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    if (argc > 1 && strcmp(argv[1], "monitor") == 0)
        return monitor_main();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_life, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pause, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_crash, setup, teardown),
        cmocka_unit_test_setup_teardown(test_adopt, setup, teardown),
        cmocka_unit_test_setup_teardown(test_handover, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hold, setup, teardown),
        cmocka_unit_test_setup_teardown(test_debugger, setup, teardown),
        cmocka_unit_test_setup_teardown(test_handover_refused, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
