// SPDX-License-Identifier: BSD-2-Clause
// The system as the program sees it: a riscv64 machine, whose limits on memory are not those of the
// monitor's; and System V's messages, semaphores and segments of memory.
#include <errno.h>
#include <linux/kcmp.h>
#include <linux/netlink.h>
#include <mqueue.h>
#include <string.h>
#include <sys/msg.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

#include "user/calls.h"

int64_t user_uname(struct user_thread *thread, const uint64_t arguments[6])
{
    struct new_utsname {
        char sysname[65], nodename[65], release[65], version[65], machine[65], domainname[65];
    } name;
    int64_t rc = user_host_call(thread, SYS_uname, (uint64_t)(uintptr_t)&name, 0, 0, 0, 0, 0);

    if (rc)
        return rc;
    memset(name.machine, 0, sizeof(name.machine));
    memcpy(name.machine, "riscv64", sizeof("riscv64"));
    return user_copy_out(thread, arguments[0], &name, sizeof(name));
}

// Of what a program asks for, memory that may be executed wherever it may be read would be so for
// the host, too.
int64_t user_personality(struct user_thread *thread, const uint64_t arguments[6])
{
    const uint32_t ask = 0xffffffff;
    uint32_t wanted = (uint32_t)arguments[0];

    if (wanted != ask && (wanted & READ_IMPLIES_EXEC))
        return -EINVAL;
    return user_host_call(thread, SYS_personality, wanted, 0, 0, 0, 0, 0);
}

// ---- Limits

// The monitor has more in its address space than the program, and its own stack: limits on these
// are taken note of by nobody.
static bool is_limit_of_memory(uint64_t resource)
{
    return resource == RLIMIT_AS || resource == RLIMIT_DATA || resource == RLIMIT_STACK;
}

int64_t user_setrlimit(struct user_thread *thread, const uint64_t arguments[6])
{
    const uint64_t as_prlimit[6] = {0, arguments[0], arguments[1]};

    return arguments[1] ? user_prlimit64(thread, as_prlimit) : -EFAULT;
}

int64_t user_prlimit64(struct user_thread *thread, const uint64_t arguments[6])
{
    void *wanted, *old;
    int rc = user_call_buffer(thread, arguments[2], sizeof(struct rlimit), HART_LOAD, &wanted);

    if (rc == 0)
        rc = user_call_buffer(thread, arguments[3], sizeof(struct rlimit), HART_STORE, &old);
    if (rc)
        return rc;
    if (is_limit_of_memory((uint32_t)arguments[1]))
        wanted = NULL;
    return user_host_call(thread, SYS_prlimit64, arguments[0], arguments[1],
                          (uint64_t)(uintptr_t)wanted, (uint64_t)(uintptr_t)old, 0, 0);
}

// ---- Messages, semaphores, segments

// What is told by a thread of the C library comes with a pointer to the library's cookie.
int64_t user_mq_notify(struct user_thread *thread, const uint64_t arguments[6])
{
    const uint64_t cookie_bytes = 32;
    struct sigevent event;
    void *hva;
    int rc;

    if (arguments[1] == 0)
        return user_host_call(thread, SYS_mq_notify, arguments[0], 0, 0, 0, 0, 0);
    rc = user_copy_in(thread, &event, arguments[1], sizeof(event));
    if (rc == 0 && event.sigev_notify == SIGEV_THREAD) {
        rc = user_call_buffer(thread, (uint64_t)(uintptr_t)event.sigev_value.sival_ptr,
                              cookie_bytes, HART_LOAD, &hva);
        event.sigev_value.sival_ptr = hva;
    }
    return rc ? rc
              : user_host_call(thread, SYS_mq_notify, arguments[0], (uint64_t)(uintptr_t)&event, 0,
                               0, 0, 0);
}

// A message is behind a long that is its kind.
static int64_t call_with_message(struct user_thread *thread, long number, enum hart_access access,
                                 const uint64_t a[6])
{
    uint64_t bytes;
    void *hva;
    int rc;

    if (__builtin_add_overflow(a[2], sizeof(long), &bytes))
        return -EINVAL;
    rc = user_call_buffer(thread, a[1], bytes, access, &hva);
    return rc ? rc
              : user_host_call(thread, number, a[0], (uint64_t)(uintptr_t)hva, a[2], a[3], a[4], 0);
}

int64_t user_msgsnd(struct user_thread *thread, const uint64_t arguments[6])
{
    return call_with_message(thread, SYS_msgsnd, HART_LOAD, arguments);
}

int64_t user_msgrcv(struct user_thread *thread, const uint64_t arguments[6])
{
    return call_with_message(thread, SYS_msgrcv, HART_STORE, arguments);
}

// struct semid64_ds of riscv64 (asm-generic/sembuf.h): x86-64 has a word behind each time.
struct guest_semid {
    struct ipc_perm permissions;
    uint64_t operated, changed, count, unused[2];
};

static int64_t stat_semaphores(struct user_thread *thread, const uint64_t a[6])
{
    struct semid_ds host;
    int64_t rc =
        user_host_call(thread, SYS_semctl, a[0], a[1], a[2], (uint64_t)(uintptr_t)&host, 0, 0);
    struct guest_semid guest = {0};

    if (rc < 0)
        return rc;
    guest.permissions = host.sem_perm;
    guest.operated = (uint64_t)host.sem_otime;
    guest.changed = (uint64_t)host.sem_ctime;
    guest.count = host.sem_nsems;
    int copied = user_copy_out(thread, a[3], &guest, sizeof(guest));
    return copied ? copied : rc;
}

static int64_t set_semaphores(struct user_thread *thread, const uint64_t a[6])
{
    struct guest_semid guest;
    struct semid_ds host = {0};
    int rc = user_copy_in(thread, &guest, a[3], sizeof(guest));

    host.sem_perm = guest.permissions;
    return rc ? rc
              : user_host_call(thread, SYS_semctl, a[0], a[1], a[2], (uint64_t)(uintptr_t)&host, 0,
                               0);
}

// All values of a set, whose number the set itself knows.
static int64_t all_semaphores(struct user_thread *thread, const uint64_t a[6],
                              enum hart_access access)
{
    struct semid_ds host;
    void *hva;
    int64_t rc =
        user_host_call(thread, SYS_semctl, a[0], 0, IPC_STAT, (uint64_t)(uintptr_t)&host, 0, 0);

    if (rc == 0)
        rc = user_call_buffer(thread, a[3], host.sem_nsems * sizeof(uint16_t), access, &hva);
    return rc ? rc
              : user_host_call(thread, SYS_semctl, a[0], a[1], a[2], (uint64_t)(uintptr_t)hva, 0,
                               0);
}

static int64_t limits_of_semaphores(struct user_thread *thread, const uint64_t a[6])
{
    void *hva;
    int rc = user_call_buffer(thread, a[3], sizeof(struct seminfo), HART_STORE, &hva);

    return rc ? rc
              : user_host_call(thread, SYS_semctl, a[0], a[1], a[2], (uint64_t)(uintptr_t)hva, 0,
                               0);
}

int64_t user_semctl(struct user_thread *thread, const uint64_t arguments[6])
{
    switch ((uint32_t)arguments[2]) {
    case IPC_STAT:
    case SEM_STAT:
    case SEM_STAT_ANY:
        return stat_semaphores(thread, arguments);
    case IPC_SET:
        return set_semaphores(thread, arguments);
    case IPC_INFO:
    case SEM_INFO:
        return limits_of_semaphores(thread, arguments);
    case GETALL:
        return all_semaphores(thread, arguments, HART_STORE);
    case SETALL:
        return all_semaphores(thread, arguments, HART_LOAD);
    case IPC_RMID:
    case GETVAL:
    case SETVAL:
    case GETPID:
    case GETNCNT:
    case GETZCNT:
        return user_host_call(thread, SYS_semctl, arguments[0], arguments[1], arguments[2],
                              arguments[3], 0, 0);
    default:
        return -EINVAL;
    }
}

// A command of msgctl or shmctl whose argument is memory.
struct ipc_command {
    uint32_t command;
    enum hart_access access;
    size_t bytes;
};

static int64_t call_control(struct user_thread *thread, long number,
                            const struct ipc_command *commands, size_t count, const uint64_t a[6])
{
    void *hva = NULL;
    int rc = 0;

    for (size_t i = 0; i < count; i++)
        if (commands[i].command == (uint32_t)a[1])
            rc = user_call_buffer(thread, a[2], commands[i].bytes, commands[i].access, &hva);
    return rc ? rc : user_host_call(thread, number, a[0], a[1], (uint64_t)(uintptr_t)hva, 0, 0, 0);
}

int64_t user_msgctl(struct user_thread *thread, const uint64_t arguments[6])
{
    static const struct ipc_command commands[] = {
        {IPC_STAT, HART_STORE, sizeof(struct msqid_ds)},
        {MSG_STAT, HART_STORE, sizeof(struct msqid_ds)},
        {MSG_STAT_ANY, HART_STORE, sizeof(struct msqid_ds)},
        {IPC_SET, HART_LOAD, sizeof(struct msqid_ds)},
        {IPC_INFO, HART_STORE, sizeof(struct msginfo)},
        {MSG_INFO, HART_STORE, sizeof(struct msginfo)},
    };

    return call_control(thread, SYS_msgctl, commands, BASE_COUNT_OF(commands), arguments);
}

int64_t user_shmctl(struct user_thread *thread, const uint64_t arguments[6])
{
    static const struct ipc_command commands[] = {
        {IPC_STAT, HART_STORE, sizeof(struct shmid_ds)},
        {SHM_STAT, HART_STORE, sizeof(struct shmid_ds)},
        {SHM_STAT_ANY, HART_STORE, sizeof(struct shmid_ds)},
        {IPC_SET, HART_LOAD, sizeof(struct shmid_ds)},
        {IPC_INFO, HART_STORE, sizeof(struct shminfo)},
        {SHM_INFO, HART_STORE, sizeof(struct shm_info)},
    };

    return call_control(thread, SYS_shmctl, commands, BASE_COUNT_OF(commands), arguments);
}

// ---- The kernel's objects

int64_t user_kcmp(struct user_thread *thread, const uint64_t arguments[6])
{
    uint64_t second = arguments[4];
    void *slot;

    if ((uint32_t)arguments[2] == KCMP_EPOLL_TFD) {
        int rc = user_call_buffer(thread, second, sizeof(struct kcmp_epoll_slot), HART_LOAD, &slot);
        if (rc)
            return rc;
        second = (uint64_t)(uintptr_t)slot;
    }
    return user_host_call(thread, SYS_kcmp, arguments[0], arguments[1], arguments[2], arguments[3],
                          second, 0);
}

// ---- The processor

// Linux, Documentation/arch/riscv/hwprobe.rst. What the table does not have is unknown here.
#define EXTENSION(bit) (1ull << (bit))
static const struct {
    int64_t key;
    uint64_t value;
} probes[] = {
    {0, 0},  // vendor, architecture, implementation
    {1, 0},
    {2, 0},
    {3, 1},                                                                  // RV64IMA is the base
    {4, EXTENSION(0) | EXTENSION(1) |                                        // F and D, C
            EXTENSION(3) | EXTENSION(4) | EXTENSION(5) |                     // Zba, Zbb, Zbs
            EXTENSION(7) | EXTENSION(8) | EXTENSION(9) | EXTENSION(10) |     // Zbc, Zbk*
            EXTENSION(11) | EXTENSION(12) | EXTENSION(13) | EXTENSION(36)},  // Zkn*, Zihintpause
    {5, 3},                    // accesses that are not aligned are fast: by an older key
    {7, HART_FLAT_BYTES - 1},  // the highest address
    {8, HART_TIME_HZ},
    {9, 3},  // and by the newer one, for those that are not of vectors
};

static bool probe(int64_t key, uint64_t *value)
{
    for (size_t i = 0; i < BASE_COUNT_OF(probes); i++)
        if (probes[i].key == key) {
            *value = probes[i].value;
            return true;
        }
    return false;
}

int64_t user_riscv_hwprobe(struct user_thread *thread, const uint64_t arguments[6])
{
    struct {
        int64_t key;
        uint64_t value;
    } pair;
    uint64_t gva = arguments[0], count = arguments[1];

    // All processors are alike, so that it does not matter which are asked about; which of them
    // would have given values is not told (the flag).
    if (arguments[4])
        return -EINVAL;
    for (; count > 0; count--, gva += sizeof(pair)) {
        int rc = user_copy_in(thread, &pair, gva, sizeof(pair));
        if (rc)
            return rc;
        if (!probe(pair.key, &pair.value)) {
            pair.key = -1;
            pair.value = 0;
        }
        rc = user_copy_out(thread, gva, &pair, sizeof(pair));
        if (rc)
            return rc;
    }
    return 0;
}

int64_t user_riscv_flush_icache(struct user_thread *thread, const uint64_t arguments[6])
{
    const uint64_t local = 1;

    if (arguments[2] & ~local)
        return -EINVAL;
    user_process_fence(thread->process, HART_FENCE_I);
    return 0;
}
