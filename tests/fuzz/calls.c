// SPDX-License-Identifier: BSD-2-Clause
// Fuzz target for system calls of programs: the input is memory of the program, and calls with
// their arguments, among which addresses of the monitor's are frequent. Nothing outside the
// program's memory is written, nothing of it is found in the program's memory or in what it wrote,
// and the monitor does not crash. Each input has a process of its own, which is locked up: in an
// empty folder with /proc as nobody, without signals to others, without networks.
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <seccomp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "replay.h"
#include "user/calls.h"

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

#define PIECE_BYTES 0x10000u
#define CALLS_MAX 8
#define PATIENCE_MS 30  // of calls that wait
#define NOBODY 65534
#define PROC_BYTES 40

// The program's memory: some at its start and at its very end, and texts that are only read.
#define FIRST_GVA 0x10000u
#define TEXT_GVA 0x30000u
#define LAST_GVA (HART_FLAT_BYTES - PIECE_BYTES)

static const char texts[] =
    ".\0file\0other\0/file\0user.name\0folder/file\0../..\0/proc/self/mem\0link\0"
    "/proc/self/maps\0/proc/self/stat\0/proc/self/fd/3\0/proc/self/task";

struct world {
    struct user_process process;
    struct user_thread thread;
    uint8_t *secret;  // the monitor's, beside the program's memory
    char folder[32];
};

// ---- What is to be kept

static const uint8_t mark[] = "what only the monitor knows......";

static void hide(uint8_t *secret)
{
    for (size_t at = 0; at + sizeof(mark) <= PIECE_BYTES; at += sizeof(mark))
        memcpy(secret + at, mark, sizeof(mark));
}

static bool is_hidden(const uint8_t *secret)
{
    for (size_t at = 0; at + sizeof(mark) <= PIECE_BYTES; at += sizeof(mark))
        if (memcmp(secret + at, mark, sizeof(mark)) != 0)
            return false;
    return true;
}

static bool is_seen(const struct world *world)
{
    static const uint64_t where[] = {FIRST_GVA, LAST_GVA};
    static uint8_t bytes[PIECE_BYTES];

    for (size_t i = 0; i < BASE_COUNT_OF(where); i++) {
        memset(bytes, 0, sizeof(bytes));
        for (uint64_t at = 0; at < PIECE_BYTES; at += USER_PAGE_BYTES)  // what is still there
            (void)!user_copy(bytes + at, world->process.space.hva + where[i] + at, USER_PAGE_BYTES);
        if (memmem(bytes, sizeof(bytes), mark, sizeof(mark) / 2))
            return true;
    }
    return false;
}

static bool is_within(const struct user_space *space)
{
    uint64_t end = 0;

    for (size_t i = 0; i < space->mapping_count; i++) {
        const struct user_mapping *mapping = &space->mappings[i];
        if (mapping->start < end || mapping->start >= mapping->end)
            return false;
        end = mapping->end;
    }
    return end <= HART_FLAT_BYTES;
}

// ---- The world

static void give(struct world *world, uint64_t gva)
{
    MUST(user_space_map(&world->process.space, gva, PIECE_BYTES, PROT_READ | PROT_WRITE,
                        MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == (int64_t)gva);
}

static struct world *create(void)
{
    static char *nothing[] = {NULL};
    struct world *world = calloc(1, sizeof(*world));

    MUST(world);
    log_set_level(LOG_ERROR);
    MUST(user_memory_init() == 0 &&
         user_space_init(&world->process.space, &world->process, NULL) == 0);
    user_process_init(&world->process);
    world->process.argv = nothing;
    world->process.envp = nothing;
    world->process.exe = (char *)"/file";
    world->thread.process = &world->process;
    give(world, FIRST_GVA);
    give(world, LAST_GVA);
    give(world, TEXT_GVA);
    memcpy(world->process.space.hva + TEXT_GVA, texts, sizeof(texts));
    MUST(user_space_protect(&world->process.space, TEXT_GVA, PIECE_BYTES, PROT_READ) == 0);
    world->secret =
        mmap(NULL, PIECE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    MUST(world->secret != MAP_FAILED);
    hide(world->secret);
    return world;
}

static void name_proc(const struct world *world, char path[static PROC_BYTES])
{
    (void)snprintf(path, PROC_BYTES, "%s/proc", world->folder);
}

static void make_folder(struct world *world)
{
    char path[PROC_BYTES];

    strcpy(world->folder, "/tmp/fuzz-calls-XXXXXX");
    MUST(mkdtemp(world->folder) && chmod(world->folder, 0777) == 0);
    name_proc(world, path);
    MUST(mkdir(path, 0555) == 0);
}

// With what the input left in it.
static void remove_folder(const struct world *world)
{
    char command[128], path[PROC_BYTES];

    name_proc(world, path);
    if (rmdir(path) == 0 && rmdir(world->folder) == 0)
        return;
    (void)snprintf(command, sizeof(command), "chmod -R u+rwx '%s'; rm -rf '%s'", world->folder,
                   world->folder);
    MUST(system(command) == 0);
}

// ---- Locking up

// What reaches others, what waits for the whole machine, what outlives the process.
static void deny(scmp_filter_ctx filter)
{
    static const int denied[] = {
        SCMP_SYS(kill),
        SCMP_SYS(tkill),
        SCMP_SYS(tgkill),
        SCMP_SYS(rt_sigqueueinfo),
        SCMP_SYS(rt_tgsigqueueinfo),
        SCMP_SYS(pidfd_send_signal),
        SCMP_SYS(timer_create),
        SCMP_SYS(mq_open),
        SCMP_SYS(mq_notify),
        SCMP_SYS(msgget),
        SCMP_SYS(semget),
        SCMP_SYS(shmget),
        SCMP_SYS(msgctl),
        SCMP_SYS(semctl),
        SCMP_SYS(shmctl),
        SCMP_SYS(msgsnd),
        SCMP_SYS(msgrcv),
        SCMP_SYS(semop),
        SCMP_SYS(semtimedop),
        SCMP_SYS(sync),
        SCMP_SYS(syncfs),
        SCMP_SYS(setpriority),
        SCMP_SYS(ioprio_set),
        SCMP_SYS(sched_setattr),
        SCMP_SYS(sched_setscheduler),
        SCMP_SYS(sched_setparam),
        SCMP_SYS(sched_setaffinity),
        SCMP_SYS(pidfd_open),
        SCMP_SYS(pidfd_getfd),
        SCMP_SYS(setns),
        SCMP_SYS(unshare),
        SCMP_SYS(fork),
        SCMP_SYS(clone),
        SCMP_SYS(execve),
        SCMP_SYS(fanotify_init),
    };
    const struct scmp_arg_cmp own = SCMP_A0(SCMP_CMP_NE, 0),
                              not_local = SCMP_A0(SCMP_CMP_NE, AF_UNIX);

    for (size_t i = 0; i < BASE_COUNT_OF(denied); i++)
        MUST(seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), denied[i], 0) == 0);
    MUST(seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(prlimit64), 1, own) == 0);
    MUST(seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(socket), 1, not_local) == 0);
    MUST(seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(socketpair), 1, not_local) == 0);
    // Signals by descriptors
    for (unsigned i = 0; i < 3; i++)
        MUST(seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(fcntl), 1,
                              SCMP_A1(SCMP_CMP_MASKED_EQ, UINT32_MAX,
                                      (unsigned[]){F_SETOWN, F_SETSIG, F_SETOWN_EX}[i])) == 0);
}

static void lock_up(const struct world *world)
{
    const struct rlimit none = {0, 0}, some = {1 << 20, 1 << 20}, few = {32, 32}, second = {1, 1};
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
    int null = open("/dev/null", O_RDWR);
    char path[PROC_BYTES];

    MUST(filter && null >= 0 && prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
    MUST(unshare(CLONE_NEWNS | (geteuid() == 0 ? 0 : CLONE_NEWUSER)) == 0);
    name_proc(world, path);
    MUST(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
    MUST(mount("/proc", path, NULL, MS_BIND | MS_REC, NULL) == 0);
    MUST(chdir(world->folder) == 0 && chroot(".") == 0);
    if (geteuid() == 0) {
        MUST(setgroups(0, NULL) == 0 && setresgid(NOBODY, NOBODY, NOBODY) == 0);
        MUST(setresuid(NOBODY, NOBODY, NOBODY) == 0);
    }
    for (int fd = 0; fd < 3; fd++)
        MUST(dup2(null, fd) == fd);
    MUST(close_range(3, ~0u, 0) == 0);
    MUST(setrlimit(RLIMIT_CORE, &none) == 0 && setrlimit(RLIMIT_FSIZE, &some) == 0);
    MUST(setrlimit(RLIMIT_NOFILE, &few) == 0 && setrlimit(RLIMIT_CPU, &second) == 0);
    deny(filter);
    MUST(seccomp_load(filter) == 0);
}

// ---- Calls

struct input {
    const uint8_t *bytes;
    size_t count, at;
};

static uint64_t take(struct input *input, unsigned bytes)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < bytes; i++)
        value = value << 8 | (input->at < input->count ? input->bytes[input->at++] : 0);
    return value;
}

static uint64_t argument(struct input *input, const struct world *world)
{
    const uint8_t *hva = world->process.space.hva;
    uint64_t kind = take(input, 1);

    switch (kind % 14) {
    case 0:
        return take(input, 1);
    case 1:
        return take(input, 8);
    case 2:
    case 3:
        return FIRST_GVA + take(input, 2);
    case 4:
        return TEXT_GVA + take(input, 1) % sizeof(texts);
    case 5:  // up to the end of all memory, and a little beyond
        return HART_FLAT_BYTES - take(input, 1) + 8;
    case 6:
        return (uint64_t)(uintptr_t)world->secret + take(input, 1);
    case 7:  // also where the sum of both wraps around
        return (uint64_t)(uintptr_t)world->secret - (uint64_t)(uintptr_t)hva + take(input, 1);
    case 8:
        return (uint64_t)(int64_t)(int8_t)take(input, 1);
    case 9:
        return take(input, 1) % 8;
    case 10:
        return 1ull << take(input, 1) % 64;
    case 11:
        return (uint64_t)(int64_t)AT_FDCWD;
    case 12:
        return take(input, 2);
    default:
        return 0;
    }
}

// Those that are about threads, processes and signals need a program that runs.
static bool needs_program(uint64_t number)
{
    static const uint16_t memory[] = {96,  98,  99,  196, 197, 214, 215, 216, 222, 226, 227,
                                      228, 229, 230, 231, 232, 233, 284, 449, 454, 456};
    bool is_of_process =
#define IS(number_, name) number == (number_) ||
        USER_CALLS_OF_PROCESS(IS) false;
#undef IS

    for (size_t i = 0; i < BASE_COUNT_OF(memory); i++)
        if (memory[i] == number)
            return false;
    return is_of_process;
}

static void make_calls(struct world *world, struct input *input)
{
    uint64_t words = take(input, 1), arguments[6];

    for (uint64_t i = 0; i < words; i++) {
        uint64_t word = argument(input, world);
        memcpy(world->process.space.hva + FIRST_GVA + 8 * i, &word, sizeof(word));
    }
    for (unsigned i = 0; i < CALLS_MAX && input->at < input->count; i++) {
        uint64_t number = take(input, 2) % 480;
        for (unsigned j = 0; j < 6; j++)
            arguments[j] = argument(input, world);
        if (needs_program(number))
            continue;
        world->thread.next_string = 0;
        (void)user_call_make(&world->thread, number, arguments);
        MUST(is_hidden(world->secret) && is_within(&world->process.space));
    }
    MUST(!is_seen(world));
}

// ---- The input's process

static void wait_for(pid_t child)
{
    const int wrong[] = {SIGSEGV, SIGBUS, SIGILL, SIGABRT, SIGFPE, SIGTRAP, SIGSYS};
    struct pollfd ended = {.fd = (int)syscall(SYS_pidfd_open, child, 0), .events = POLLIN};
    int status;

    MUST(ended.fd >= 0);
    if (poll(&ended, 1, PATIENCE_MS) == 0)
        kill(child, SIGKILL);
    MUST(waitpid(child, &status, 0) == child);
    close(ended.fd);
    for (size_t i = 0; i < BASE_COUNT_OF(wrong); i++)
        MUST(!WIFSIGNALED(status) || WTERMSIG(status) != wrong[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    static struct world *world;
    struct input input = {bytes, count, 0};
    pid_t child;

    if (!world)
        world = create();
    make_folder(world);
    child = fork();
    MUST(child >= 0);
    if (child == 0) {
        lock_up(world);
        make_calls(world, &input);
        _exit(0);
    }
    wait_for(child);
    remove_folder(world);
    MUST(is_hidden(world->secret));
    return 0;
}
