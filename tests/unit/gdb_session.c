// SPDX-License-Identifier: BSD-2-Clause
// What a debugger asks, in packets, of a target that only notes it.
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gdb/gdb.h"
#include "unit.h"

#define THREADS 3
#define MEMORY_GVA 0x1000

struct fixture {
    struct gdb_session *session;
    struct hart *harts[THREADS];  // of threads 1, 2, ...
    int fd;                       // the debugger's
    bool stopped, gone, killed;
    uint64_t breakpoint, passed, busy;
    struct gdb_action actions[8];
    size_t action_count;
    uint8_t memory[16];
    char reply[2 * GDB_PACKET_BYTES];
};

// ---- The target ---------------------------------------------------------------------------------

static uint64_t next_thread(void *opaque, uint64_t after)
{
    (void)opaque;
    return after < THREADS ? after + 1 : 0;
}

static void describe_thread(void *opaque, uint64_t thread, char *text, size_t capacity)
{
    (void)opaque;
    snprintf(text, capacity, "number %d", (int)thread);
}

static struct hart *hart_of(void *opaque, uint64_t thread)
{
    struct fixture *f = opaque;
    return thread >= 1 && thread <= THREADS ? f->harts[thread - 1] : NULL;
}

static bool is_busy(void *opaque, uint64_t thread)
{
    struct fixture *f = opaque;
    return thread == f->busy;
}

static size_t at_memory(struct fixture *f, uint64_t gva, size_t count)
{
    if (gva < MEMORY_GVA || gva > MEMORY_GVA + sizeof(f->memory))
        return 0;
    size_t left = MEMORY_GVA + sizeof(f->memory) - gva;
    return count < left ? count : left;
}

static size_t read_memory(void *opaque, uint64_t thread, uint64_t gva, void *bytes, size_t count)
{
    struct fixture *f = opaque;
    (void)thread;
    count = at_memory(f, gva, count);
    if (count > 0)
        memcpy(bytes, f->memory + (gva - MEMORY_GVA), count);
    return count;
}

static size_t write_memory(void *opaque, uint64_t thread, uint64_t gva, const void *bytes,
                           size_t count)
{
    struct fixture *f = opaque;
    (void)thread;
    count = at_memory(f, gva, count);
    if (count > 0)
        memcpy(f->memory + (gva - MEMORY_GVA), bytes, count);
    return count;
}

static int breakpoint(void *opaque, uint64_t gva, bool add)
{
    struct fixture *f = opaque;
    if (add && f->breakpoint)
        return -ENOSPC;
    f->breakpoint = add ? gva : 0;
    return 0;
}

static void stop(void *opaque)
{
    struct fixture *f = opaque;
    f->stopped = true;
}

static bool report(void *opaque)
{
    (void)opaque;
    return false;
}

static void resume(void *opaque, const struct gdb_action *actions, size_t count)
{
    struct fixture *f = opaque;
    f->stopped = false;
    assert_true(count <= BASE_COUNT_OF(f->actions));
    memcpy(f->actions, actions, count * sizeof(*actions));
    f->action_count = count;
}

static void let_go(void *opaque)
{
    struct fixture *f = opaque;
    assert_true(f->stopped);
    f->stopped = false;
    f->gone = true;
}

static void kill_target(void *opaque)
{
    struct fixture *f = opaque;
    f->killed = true;
}

static void pass(void *opaque, uint64_t signals)
{
    struct fixture *f = opaque;
    f->passed = signals;
}

static int object(void *opaque, uint64_t thread, const char *name, const void **bytes,
                  size_t *count)
{
    (void)opaque;
    (void)thread;
    if (strcmp(name, "auxv") != 0)
        return -ENOENT;
    *bytes = "a#b$c}d*e";
    *count = 9;
    return 0;
}

static const struct gdb_target target = {
    .next_thread = next_thread,
    .describe_thread = describe_thread,
    .hart = hart_of,
    .is_busy = is_busy,
    .read = read_memory,
    .write = write_memory,
    .breakpoint = breakpoint,
    .stop = stop,
    .report = report,
    .resume = resume,
    .let_go = let_go,
    .kill = kill_target,
    .pass = pass,
    .object = object,
};

// ---- The debugger -------------------------------------------------------------------------------

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    int fds[2];

    assert_non_null(f);
    *state = f;
    f->stopped = true;
    for (unsigned i = 0; i < THREADS; i++)
        f->harts[i] = calloc(1, sizeof(*f->harts[i]));
    for (unsigned i = 0; i < sizeof(f->memory); i++)
        f->memory[i] = (uint8_t)i;
    assert_int_equal(gdb_session_create(&f->session, &target, f), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    f->fd = fds[0];
    gdb_session_open(f->session, fds[1]);
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    gdb_session_destroy(f->session);
    for (unsigned i = 0; i < THREADS; i++)
        free(f->harts[i]);
    close(f->fd);
    free(f);
    return 0;
}

static const char *received(struct fixture *f)
{
    ssize_t n = recv(f->fd, f->reply, sizeof(f->reply) - 1, MSG_DONTWAIT);
    f->reply[n > 0 ? n : 0] = 0;
    return f->reply;
}

static void send_raw(struct fixture *f, const char *text)
{
    assert_int_equal(send(f->fd, text, strlen(text), 0), strlen(text));
    assert_true(gdb_session_receive(f->session));
}

// Sends a packet; what is in the one that comes back, after the acknowledgement.
static const char *ask(struct fixture *f, const char *text)
{
    char packet[1024];
    uint8_t sum = 0;

    for (const char *c = text; *c; c++)
        sum += (uint8_t)*c;
    snprintf(packet, sizeof(packet), "$%s#%02x", text, sum);
    send_raw(f, packet);
    char *reply = f->reply;
    received(f);
    assert_int_equal(reply[0], '+');
    if (!reply[1])
        return "nothing";
    assert_int_equal(reply[1], '$');
    char *end = strrchr(reply, '#');
    assert_non_null(end);
    *end = 0;
    return reply + 2;
}

// ---- Tests --------------------------------------------------------------------------------------

static void registers(void **state)
{
    struct fixture *f = *state;

    f->harts[0]->x[10] = 0x0123456789abcdef;
    f->harts[0]->pc = 0x80;
    f->harts[1]->x[10] = 7;
    f->harts[1]->f[3] = 9;
    assert_string_equal(ask(f, "pa"), "efcdab8967452301");
    assert_string_equal(ask(f, "p20"), "8000000000000000");
    assert_string_equal(ask(f, "Hg2"), "OK");
    assert_string_equal(ask(f, "pa"), "0700000000000000");
    assert_string_equal(ask(f, "p24"), "0900000000000000");
    assert_string_equal(ask(f, "Pa=2100000000000000"), "OK");
    assert_int_equal(f->harts[1]->x[10], 0x21);
    assert_string_equal(ask(f, "P0=2100000000000000"), "OK");
    assert_int_equal(f->harts[1]->x[0], 0);
    assert_string_equal(ask(f, "Pa=21"), "E16");
    assert_int_equal(strlen(ask(f, "g")), 33 * 16);
    f->busy = 2;
    assert_string_equal(ask(f, "Pa=2200000000000000"), "E10");
    assert_int_equal(f->harts[1]->x[10], 0x21);
    assert_string_equal(ask(f, "Hg4"), "E16");
    // mstatus and the privilege are no program's.
    assert_string_equal(ask(f, "p341"), "E02");
    assert_string_equal(ask(f, "p1041"), "E02");
    assert_string_equal(ask(f, "pffffffffffffffff"), "E02");
}

static void memory(void **state)
{
    struct fixture *f = *state;

    assert_string_equal(ask(f, "m1001,3"), "010203");
    assert_string_equal(ask(f, "m100e,8"), "0e0f");  // as far as it goes
    assert_string_equal(ask(f, "m2000,1"), "E0e");
    assert_string_equal(ask(f, "m1000,ffffffffffffffff"), "000102030405060708090a0b0c0d0e0f");
    assert_string_equal(ask(f, "M1002,2:aabb"), "OK");
    assert_int_equal(f->memory[2], 0xaa);
    assert_int_equal(f->memory[3], 0xbb);
    assert_string_equal(ask(f, "M1002,2:cc"), "E0e");
    assert_int_equal(f->memory[2], 0xaa);  // nothing of what is not whole
    assert_string_equal(ask(f, "M100f,2:aabb"), "E0e");
    assert_string_equal(ask(f, "M1000,ffffffffffffffff:aa"), "E0e");
}

static void threads(void **state)
{
    struct fixture *f = *state;

    assert_string_equal(ask(f, "?"), "T05thread:1;");
    assert_string_equal(ask(f, "qfThreadInfo"), "m1,2,3");
    assert_string_equal(ask(f, "qsThreadInfo"), "l");
    assert_string_equal(ask(f, "T3"), "OK");
    assert_string_equal(ask(f, "T4"), "E16");
    assert_string_equal(ask(f, "qThreadExtraInfo,2"), "6e756d6265722032");
    assert_string_equal(ask(f, "qC"), "QC1");
}

static void going_on(void **state)
{
    struct fixture *f = *state;

    assert_true(f->stopped);
    assert_string_equal(ask(f, "vCont;s:2;C0a:3;c"), "nothing");
    assert_false(f->stopped);
    assert_true(gdb_session_is_waiting(f->session));
    assert_int_equal(f->action_count, 3);
    assert_true(f->actions[0].thread == 2 && f->actions[0].step && !f->actions[0].signal);
    assert_true(f->actions[1].thread == 3 && !f->actions[1].step);
    assert_int_equal(f->actions[1].signal, SIGBUS);  // GDB's 10
    assert_true(f->actions[2].thread == 0 && !f->actions[2].step);
    gdb_session_stopped(f->session,
                        &(struct gdb_stop){.thread = 2, .signal = SIGUSR1, .said = "Hi\n"});
    assert_string_equal(received(f), "$O48690a#bb$T1ethread:2;#09");
    assert_false(gdb_session_is_waiting(f->session));
    f->stopped = true;
    assert_string_equal(ask(f, "?"), "T1ethread:2;");
    // What makes no sense lets nothing go on.
    assert_string_equal(ask(f, "vCont;t"), "E16");
    assert_string_equal(ask(f, "vCont;c:9"), "E16");
    assert_string_equal(ask(f, "vCont"), "E16");
    assert_true(f->stopped);
    assert_string_equal(ask(f, "S0b"), "nothing");
    assert_true(f->actions[0].thread == 2 && f->actions[0].step);
    assert_int_equal(f->actions[0].signal, SIGSEGV);
    send_raw(f, "\003");
    assert_true(f->stopped);
    assert_string_equal(received(f), "$T02thread:2;#d5");
}

static void the_end(void **state)
{
    struct fixture *f = *state;

    ask(f, "c");
    gdb_session_ended(f->session, false, 99);
    assert_string_equal(received(f), "$W63#c0");
    gdb_session_ended(f->session, true, SIGUSR2);
    assert_string_equal(received(f), "$X1f#ef");
    ask(f, "k");
    assert_true(f->killed);
    close(f->fd);
    f->fd = -1;
    assert_false(gdb_session_receive(f->session));
    assert_true(f->gone);
    assert_int_equal(gdb_session_fd(f->session), -1);
}

static void breakpoints_and_detaching(void **state)
{
    struct fixture *f = *state;

    assert_string_equal(ask(f, "Z0,1234,2"), "OK");
    assert_int_equal(f->breakpoint, 0x1234);
    assert_string_equal(ask(f, "Z1,1236,2"), "E1c");
    assert_string_equal(ask(f, "z0,1234,2"), "OK");
    assert_int_equal(f->breakpoint, 0);
    assert_string_equal(ask(f, "Z2,1234,2"), "");  // no watchpoints
    assert_string_equal(ask(f, "D"), "OK");
    assert_true(f->gone);
}

static void objects(void **state)
{
    struct fixture *f = *state;

    assert_string_equal(ask(f, "qXfer:auxv:read::0,100"), "la}\003b}\004c}]d}\ne");
    assert_string_equal(ask(f, "qXfer:auxv:read::2,2"), "mb}\004");
    assert_string_equal(ask(f, "qXfer:auxv:read::9,2"), "l");
    assert_string_equal(ask(f, "qXfer:auxv:read::a,2"), "E16");
    assert_string_equal(ask(f, "qXfer:else:read::0,2"), "E02");
    assert_string_equal(ask(f, "qXfer:auxv:read"), "");
    assert_string_equal(ask(f, "qXfer:auxv:write::0,2"), "");
    const char *reply = ask(f, "qXfer:features:read:target.xml:0,4000");
    assert_int_equal(strncmp(reply, "l<?xml", 6), 0);
    assert_non_null(strstr(reply, "name=\"fcsr\""));
    assert_null(strstr(reply, "name=\"mstatus\""));
    assert_string_equal(ask(f, "QPassSignals:e;14;4d"), "OK");
    assert_int_equal(f->passed, 1ull << (SIGALRM - 1) | 1ull << (SIGCHLD - 1) | 1ull << 31);
}

// Packets in parts, with wrong sums, and what is none.
static void odd_packets(void **state)
{
    struct fixture *f = *state;

    send_raw(f, "xx++$m1000");
    assert_string_equal(received(f), "");
    send_raw(f, ",1#8");
    assert_string_equal(received(f), "");
    send_raw(f, "b$m1000,1#00");
    assert_string_equal(received(f), "+$00#60-");
    assert_string_equal(ask(f, "vMustReplyEmpty"), "");
    assert_string_equal(ask(f, "qCRC:1000,4"), "");  // begins as another one
    assert_string_equal(ask(f, ""), "");
    assert_string_equal(ask(f, "QStartNoAckMode"), "OK");
    send_raw(f, "$m1000,1#8b");
    assert_string_equal(received(f), "$00#60");
    // Larger than what is taken: the debugger is left alone.
    char *much = calloc(1, GDB_PACKET_BYTES);
    memset(much, 'm', GDB_PACKET_BYTES);
    much[0] = '$';
    assert_int_equal(send(f->fd, much, GDB_PACKET_BYTES, 0), GDB_PACKET_BYTES);
    bool there = true;
    for (int i = 0; there && i < 100; i++)
        there = gdb_session_receive(f->session);
    assert_false(there);
    assert_true(f->gone);
    free(much);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(registers), TEST(memory),  TEST(threads),     TEST(going_on),
        TEST(the_end),   TEST(objects), TEST(odd_packets), TEST(breakpoints_and_detaching),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
