// SPDX-License-Identifier: BSD-2-Clause
// Handovers between two processes that share RAM, without supervisors: one that succeeds, and every
// way to fail, at every step, on either side. The guest counts in a register and stores the count:
// if two processes ran it, or one from an old state, the stored count would go back.
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "monitor/handover.h"
#include "unit.h"

// auipc t0,1; li t1,0; 1: addi t1,t1,1; sd t1,0(t0); j 1b: counts at 0x80001000.
static const uint32_t count[] = {0x00001297, 0x00000313, 0x00130313, 0x0062b023, 0xff9ff06f};
#define COUNTER_BYTE 0x1000u
#define MEMORY_BYTES (16u << 20)
#define PATIENCE_MS 60000u
#define SHORT_MS 4000u  // for a wait that a test has time out
#define DEADLINE_NS 120000000000u

// What the test shares with the two processes.
struct shared {
    struct status_page status;
    _Atomic int old_outcome, new_outcome;  // 1: did not say
    char old_why[ERROR_MESSAGE_BYTES], new_why[ERROR_MESSAGE_BYTES];
};

struct fixture {
    struct shared *shared;
    int ram_fd, program_fd;
    unsigned patience_ms;  // of the old one; the new one's is twice as long
    volatile uint64_t *counter;
    pid_t old, new;
};

static int create(const struct fixture *f, int ram_fd, struct partition **partition,
                  struct error *err)
{
    const struct partition_config config = {
        .name = "test",
        .machine = {.memory_bytes = MEMORY_BYTES,
                    .ram_fd = ram_fd,
                    .cpus = 1,
                    .engine = &hart_engine_interp,
                    .version = "0.0.0",
                    .kernel_fd = -1,
                    .initrd_fd = -1,
                    .firmware_fd = f->program_fd,
                    .firmware_name = "program"},
    };
    return partition_create(partition, &config, err);
}

// ---- The processes ------------------------------------------------------------------------------

static void run_old(const struct fixture *f, int peer, struct handover_fault fault)
{
    struct error err = {0};
    struct partition *partition;
    struct descriptors none = {0};
    if (create(f, f->ram_fd, &partition, &err) < 0 || partition_start(partition, false, &err) < 0)
        _exit(2);
    while (*f->counter < 1000)
        usleep(1000);
    struct handover_old old = {.peer = peer,
                               .status = &f->shared->status,
                               .partition = partition,
                               .definition = json_object(),
                               .fds = &none,
                               .patience_ms = f->patience_ms,
                               .fault = fault};
    int rc = handover_give(&old, &err);
    memcpy(f->shared->old_why, err.message, sizeof(err.message));
    atomic_store(&f->shared->old_outcome, rc);
    if (rc == 0) {
        handover_retire(&old);
        _exit(0);
    }
    close(peer);
    for (;;)
        pause();
}

static int build(void *opaque, json_t *definition, struct descriptors *fds,
                 struct partition **partition, struct status_page **status, struct error *err)
{
    const struct fixture *f = opaque;
    (void)definition;
    *status = &f->shared->status;
    return create(f, descriptors_find(fds, "ram"), partition, err);
}

static void run_new(const struct fixture *f, int peer, struct handover_fault fault)
{
    struct error err = {0};
    struct handover_new new = {.peer = peer,
                               .former = -1,
                               .build = build,
                               .opaque = (void *)f,
                               .patience_ms = 2 * f->patience_ms,
                               .fault = fault};
    int rc = handover_take(&new, &err);
    memcpy(f->shared->new_why, err.message, sizeof(err.message));
    atomic_store(&f->shared->new_outcome, rc);
    if (rc < 0)
        _exit(1);
    for (;;)
        pause();
}

// With the one end of the socket; the other is closed.
static pid_t start(const struct fixture *f, int mine, int other, struct handover_fault fault,
                   void (*run)(const struct fixture *, int, struct handover_fault))
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid > 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGXFSZ, SIG_IGN);
    close(other);
    run(f, mine, fault);
    _exit(3);
}

static void begin(struct fixture *f, struct handover_fault old, struct handover_fault new)
{
    int pair[2];
    memset(f->shared, 0, sizeof(*f->shared));
    f->shared->old_outcome = f->shared->new_outcome = 1;
    assert_int_equal(ftruncate(f->ram_fd, 0), 0);
    assert_int_equal(ftruncate(f->ram_fd, MEMORY_BYTES), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    f->old = start(f, pair[0], pair[1], old, run_old);
    f->new = start(f, pair[1], pair[0], new, run_new);
    close(pair[0]);
    close(pair[1]);
}

static void finish(struct fixture *f)
{
    kill(f->old, SIGKILL);
    kill(f->new, SIGKILL);
    waitpid(f->old, NULL, 0);
    waitpid(f->new, NULL, 0);
}

// ---- Looking on ---------------------------------------------------------------------------------

// Whether the guest counts on, never back, for a while; it may take so long to begin.
static bool counts_within(const struct fixture *f, uint64_t limit_ns)
{
    uint64_t start_ns = clock_monotonic_ns(), first = *f->counter, last = first;
    while (clock_monotonic_ns() - start_ns < 20000000u || last == first) {
        uint64_t now = *f->counter;
        if (now < last)
            fail_msg("the guest's count went back, from %lu to %lu", last, now);
        last = now;
        if (last == first && clock_monotonic_ns() - start_ns > limit_ns)
            return false;
    }
    return true;
}

static bool counts(const struct fixture *f)
{
    return counts_within(f, DEADLINE_NS);
}

static bool ended(pid_t pid)
{
    siginfo_t info = {0};
    return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid;
}

// Waits until a process has said what came of it, or has ended.
static void await(const struct fixture *f, const _Atomic int *outcome, pid_t pid)
{
    uint64_t start_ns = clock_monotonic_ns(), last = 0;
    while (atomic_load(outcome) == 1 && !ended(pid)) {
        assert_true(clock_monotonic_ns() - start_ns < DEADLINE_NS);
        assert_true(*f->counter >= last);
        last = *f->counter;
        usleep(1000);
    }
}

// ---- Tests --------------------------------------------------------------------------------------

static void test_succeeds(void **state)
{
    struct fixture *f = *state;
    f->patience_ms = PATIENCE_MS;
    begin(f, (struct handover_fault){0}, (struct handover_fault){0});
    await(f, &f->shared->old_outcome, f->old);
    await(f, &f->shared->new_outcome, f->new);
    if (f->shared->old_outcome || f->shared->new_outcome)
        fail_msg("old: %s; new: %s", f->shared->old_why, f->shared->new_why);
    assert_true(counts(f));
    assert_int_equal(f->shared->status.owner, OWNER_TAKE);
    assert_int_equal(waitpid(f->old, NULL, 0), f->old);
    assert_true(counts(f));
    const struct handover_blackout blackout = status_page_blackout(&f->shared->status);
    assert_true(blackout.blackout_ns > 0 && blackout.longest_ns >= blackout.blackout_ns);
    for (unsigned i = 1; i <= HANDOVER_RUNNING; i++) {
        uint64_t from = f->shared->status.handover.mark_ns[i - 1];
        uint64_t to = f->shared->status.handover.mark_ns[i];
        assert_true(to >= from);
        print_message("%-9s %8.3f ms\n", handover_mark_name(i), (double)(to - from) / 1e6);
    }
    print_message("blackout  %8.3f ms\n", (double)blackout.blackout_ns / 1e6);
    kill(f->new, SIGKILL);
    waitpid(f->new, NULL, 0);
}

enum side { OLD, NEW };
enum outcome {
    STAYS,  // the guest goes on in O, which says why
    GOES,   // it goes on in N
    DIES,   // its owner is dead
};
struct fault_case {
    enum side side;
    const char *fault;
    enum outcome outcome;
    const char *why;  // what the one that is left says
};

static const struct fault_case cases[] = {
    {NEW, "hello:exit", STAYS, "at step \"hello\": the new monitor has ended"},
    {NEW, "hello:kill", STAYS, "at step \"hello\": the new monitor has ended"},
    {NEW, "hello:hang", STAYS, "at step \"hello\": the new monitor does not answer"},
    {NEW, "hello:refuse", STAYS, "at step \"hello\": the new monitor refuses: a test wants"},
    {NEW, "hello:version", STAYS, "at step \"hello\": the new monitor speaks version 2"},
    {NEW, "hello:memory", STAYS, "at step \"hello\": the new monitor refuses: "},
    {NEW, "warm:exit", STAYS, "at step \"warm\": the new monitor has ended"},
    {NEW, "warm:kill", STAYS, "at step \"warm\": the new monitor has ended"},
    {NEW, "warm:hang", STAYS, "at step \"warm\": the new monitor does not answer"},
    {NEW, "warm:refuse", STAYS, "at step \"warm\": the new monitor refuses: a test wants"},
    {NEW, "warm:memory", STAYS, "at step \"warm\": the new monitor refuses: "},
    {NEW, "state:exit", STAYS, "the new monitor has ended"},
    {NEW, "state:kill", STAYS, "the new monitor has ended"},
    {NEW, "state:hang", STAYS, "at step \"adopt\": the new monitor does not answer"},
    {NEW, "state:refuse", STAYS, "the new monitor refuses: a test wants"},
    {NEW, "adopt:exit", STAYS, "at step \"adopt\": the new monitor has ended"},
    {NEW, "adopt:kill", STAYS, "at step \"adopt\": the new monitor has ended"},
    {NEW, "adopt:hang", STAYS, "at step \"adopt\": the new monitor does not answer"},
    {NEW, "adopt:refuse", STAYS, "at step \"adopt\": the new monitor refuses: a test wants"},
    {NEW, "adopt:corrupt", STAYS, "at step \"adopt\": the new monitor refuses: the state is"},
    {NEW, "run:exit", STAYS, "at step \"adopt\": the new monitor has ended"},
    {NEW, "run:kill", STAYS, "at step \"adopt\": the new monitor has ended"},
    {NEW, "run:hang", STAYS, "at step \"adopt\": the new monitor does not answer"},
    {NEW, "run:refuse", STAYS, "at step \"adopt\": the new monitor refuses: a test wants"},
    {NEW, "retire:kill", DIES, ""},
    {OLD, "hello:refuse", STAYS, "at step \"hello\": a test wants"},
    {OLD, "hello:kill", DIES, "at step \"hello\": the old monitor has ended"},
    {OLD, "hello:version", STAYS, "the old monitor speaks version 2"},
    {OLD, "warm:refuse", STAYS, "at step \"warm\": a test wants"},
    {OLD, "warm:kill", DIES, "at step \"warm\": the old monitor has ended"},
    {OLD, "warm:full", STAYS, "at step \"warm\": cannot have"},
    {OLD, "freeze:refuse", STAYS, "at step \"freeze\": a test wants"},
    {OLD, "freeze:kill", DIES, "at step \"state\": the old monitor has ended"},
    {OLD, "freeze:version", STAYS, "at step \"adopt\": the new monitor refuses: "},
    {OLD, "state:refuse", STAYS, "at step \"state\": a test wants"},
    {OLD, "state:full", STAYS, "at step \"state\": cannot write the state"},
    {OLD, "state:kill", DIES, "at step \"state\": the old monitor has ended"},
    {OLD, "adopt:kill", GOES, ""},
    {OLD, "retire:kill", GOES, ""},
};

static void check_case(struct fixture *f, const struct fault_case *c)
{
    struct handover_fault fault, none = {0};
    struct shared *shared = f->shared;
    assert_int_equal(handover_fault_parse(&fault, c->fault, NULL), 0);
    if (sanitized() && fault.kind == HANDOVER_FAULT_MEMORY) {
        print_message("%s is skipped: a sanitizer ends the process that has no memory\n", c->fault);
        return;
    }
    f->patience_ms = fault.kind == HANDOVER_FAULT_HANG ? SHORT_MS : PATIENCE_MS;
    begin(f, c->side == OLD ? fault : none, c->side == NEW ? fault : none);
    await(f, &shared->old_outcome, f->old);
    if (c->outcome != STAYS)
        await(f, &shared->new_outcome, f->new);
    const char *why = c->side == OLD && c->outcome == DIES ? shared->new_why : shared->old_why;
    print_message("%s %-14s owner %u: %s\n", c->side == OLD ? "old" : "new", c->fault,
                  shared->status.owner, why);
    if (!strstr(why, c->why))
        fail_msg("\"%s\" is not \"%s\"", why, c->why);
    if (c->outcome == STAYS) {
        assert_true(shared->old_outcome < 0);
        assert_int_equal(shared->status.owner, OWNER_KEEP);
        assert_true(counts(f));
        kill(f->new, SIGKILL);
        assert_true(counts(f));
    } else if (c->outcome == GOES) {
        assert_int_equal(shared->new_outcome, 0);
        assert_int_equal(shared->status.owner, OWNER_TAKE);
        kill(f->old, SIGKILL);
        assert_true(counts(f));
    } else {
        if (c->side == OLD)
            assert_true(shared->new_outcome < 0);
        assert_false(counts_within(f, 2000000000u));
    }
    finish(f);
}

static void test_faults(void **state)
{
    for (size_t i = 0; i < BASE_COUNT_OF(cases); i++)
        check_case(*state, &cases[i]);
}

// ---- Set-up -------------------------------------------------------------------------------------

static int setup(void **state)
{
    struct fixture *f = test_calloc(1, sizeof(*f));
    *state = f;
    f->shared =
        mmap(NULL, sizeof(*f->shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    f->ram_fd = memfd_create("ram", MFD_CLOEXEC);
    f->program_fd = memfd_create("program", MFD_CLOEXEC);
    if (f->shared == MAP_FAILED || ftruncate(f->ram_fd, MEMORY_BYTES) < 0 ||
        write(f->program_fd, count, sizeof(count)) != sizeof(count))
        return -1;
    char *ram = mmap(NULL, MEMORY_BYTES, PROT_READ, MAP_SHARED, f->ram_fd, 0);
    f->counter = (uint64_t *)(ram + COUNTER_BYTE);
    return ram == MAP_FAILED ? -1 : 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    munmap((char *)f->counter - COUNTER_BYTE, MEMORY_BYTES);
    munmap(f->shared, sizeof(*f->shared));
    close(f->ram_fd);
    close(f->program_fd);
    test_free(f);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_succeeds, setup, teardown),
        cmocka_unit_test_setup_teardown(test_faults, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
