// SPDX-License-Identifier: BSD-2-Clause
// Who and where the program is: ids, limits, names, processors, message queues and semaphores.
#define _GNU_SOURCE
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/mount.h>
#include <mqueue.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static void identity(void)
{
    uid_t uids[3];
    gid_t gids[3], groups[64];
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];

    check(getpid() == gettid() && getppid() > 0 && getpgid(0) == getpgrp() && getsid(0) > 0, "ids");
    check(getresuid(&uids[0], &uids[1], &uids[2]) == 0 && uids[0] == getuid() &&
              uids[1] == geteuid() && getresgid(&gids[0], &gids[1], &gids[2]) == 0 &&
              gids[0] == getgid() && gids[1] == getegid(),
          "users and groups");
    int count = getgroups(64, groups);
    check(count >= 0 && getgroups(0, NULL) == count, "other groups");
    check(setuid(getuid()) == 0 && setgid(getgid()) == 0 && setresuid(-1, -1, -1) == 0, "set anew");
    check(syscall(SYS_capget, &head, data) == 0, "capabilities");
    umask(022);
    check(umask(022) == 022, "umask");
    errno = 0;
    check(getpriority(PRIO_PROCESS, 0) >= -20 && errno == 0 &&
              setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0)) == 0,
          "priority");
}

static void limits(void)
{
    struct rlimit limit, other;
    struct rusage usage;

    check(getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur > 0 &&
              limit.rlim_max >= limit.rlim_cur,
          "a limit");
    limit.rlim_cur = 20;
    check(setrlimit(RLIMIT_NOFILE, &limit) == 0 && prlimit(0, RLIMIT_NOFILE, NULL, &other) == 0 &&
              other.rlim_cur == 20,
          "is set");
    check(fcntl(0, F_DUPFD, 20) == -1 && errno == EINVAL, "and heeded");
    limit = (struct rlimit){1 << 30, RLIM_INFINITY};
    check(setrlimit(RLIMIT_AS, &limit) == 0 && malloc(1 << 20) != NULL, "a limit of memory");
    check(getrusage(RUSAGE_SELF, &usage) == 0 && usage.ru_maxrss > 0, "usage");
}

static void names(void)
{
    struct utsname name;
    struct sysinfo info;
    char text[17] = "", bytes[64] = {0};
    unsigned set = 0;

    check(uname(&name) == 0 && strcmp(name.sysname, "Linux") == 0 && name.release[0] &&
              name.nodename[0],
          "the system's name");
    check(sysinfo(&info) == 0 && info.totalram > 0 && info.mem_unit > 0 && info.uptime > 0,
          "sysinfo");
    check(prctl(PR_SET_NAME, "a name") == 0 && prctl(PR_GET_NAME, text) == 0 &&
              strcmp(text, "a name") == 0,
          "the thread's name");
    check(prctl(PR_SET_DUMPABLE, 1) == 0 && prctl(PR_GET_DUMPABLE) == 1, "dumpable");
    check(prctl(123456) == -1 && errno == EINVAL, "an option that there is not");
    check(getrandom(bytes, 64, 0) == 64, "random bytes");
    for (int i = 0; i < 64; i++)
        set += bytes[i] != 0;
    check(set > 32, "are random");
    check(personality(0xffffffff) >= 0, "personality");
}

static void processors(void)
{
    cpu_set_t set;
    struct sched_param parameter = {9};
    struct timespec quantum;
    unsigned cpu, node;

    check(sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 0 &&
              sched_setaffinity(0, sizeof(set), &set) == 0,
          "affinity");
    check(sched_getscheduler(0) >= 0 && sched_getparam(0, &parameter) == 0 &&
              parameter.sched_priority == 0 && sched_get_priority_max(SCHED_FIFO) == 99,
          "scheduling");
    struct {
        uint32_t size, policy;
        uint64_t flags, more[5];
    } attributes = {0};
    check(syscall(SYS_sched_getattr, 0, &attributes, sizeof(attributes), 0) == 0 &&
              attributes.size >= 48 && syscall(SYS_sched_setattr, 0, &attributes, 0) == 0,
          "its attributes");
    check(sched_rr_get_interval(0, &quantum) == 0 && sched_yield() == 0, "yield");
    check(getcpu(&cpu, &node) == 0 && cpu < CPU_SETSIZE, "getcpu");
    check(sysconf(_SC_NPROCESSORS_ONLN) > 0, "how many there are");
}

static void on_thread(union sigval value)
{
    *(volatile int *)value.sival_ptr = 1;
}

static void queues(void)
{
    struct mq_attr attributes = {.mq_maxmsg = 4, .mq_msgsize = 16};
    volatile int told = 0;
    struct sigevent event = {.sigev_notify = SIGEV_THREAD,
                             .sigev_notify_function = on_thread,
                             .sigev_value.sival_ptr = (void *)&told};
    unsigned priority = 0;
    char name[32], bytes[16];

    snprintf(name, sizeof(name), "/strake-test-%d", getpid());
    mqd_t queue = mq_open(name, O_RDWR | O_CREAT | O_NONBLOCK, 0600, &attributes);
    if (queue == (mqd_t)-1 && (errno == ENOSYS || errno == EACCES)) {
        check(true, "POSIX message queues (there are none)");
        return;
    }
    check(queue != (mqd_t)-1 && mq_notify(queue, &event) == 0, "a message queue");
    check(mq_send(queue, "low", 3, 1) == 0 && mq_send(queue, "high", 4, 9) == 0, "is filled");
    check(mq_receive(queue, bytes, 16, &priority) == 4 && priority == 9 &&
              memcmp(bytes, "high", 4) == 0,
          "and emptied in order");
    check(mq_getattr(queue, &attributes) == 0 && attributes.mq_curmsgs == 1, "one is left");
    for (int i = 0; i < 1000 && !told; i++)
        usleep(10000);
    check(told, "a thread is told");
    mq_close(queue);
    mq_unlink(name);
}

static void system_v(void)
{
    struct {
        long kind;
        char text[16];
    } message = {7, "system v"};
    struct msqid_ds queue;
    struct semid_ds status;
    unsigned short values[3] = {5, 6, 7}, back[3] = {0};
    struct sembuf operation = {.sem_num = 1, .sem_op = -2, .sem_flg = IPC_NOWAIT};
    union {
        int value;
        void *at;
    } argument;

    int id = msgget(IPC_PRIVATE, 0600);
    check(id >= 0 && msgsnd(id, &message, 9, 0) == 0 && msgctl(id, IPC_STAT, &queue) == 0 &&
              queue.msg_qnum == 1 && queue.msg_lspid == getpid(),
          "System V's messages");
    memset(&message, 0, sizeof(message));
    check(msgrcv(id, &message, 16, 0, 0) == 9 && message.kind == 7 &&
              strcmp(message.text, "system v") == 0 && msgctl(id, IPC_RMID, NULL) == 0,
          "received");
    id = semget(IPC_PRIVATE, 3, 0600);
    argument.at = values;
    check(id >= 0 && semctl(id, 0, SETALL, argument) == 0 && semop(id, &operation, 1) == 0,
          "and semaphores");
    argument.at = back;
    check(semctl(id, 0, GETALL, argument) == 0 && back[0] == 5 && back[1] == 4 && back[2] == 7 &&
              semctl(id, 1, GETVAL) == 4 && semctl(id, 1, GETPID) == getpid(),
          "with their values");
    argument.at = &status;
    check(semctl(id, 0, IPC_STAT, argument) == 0 && status.sem_nsems == 3 &&
              status.sem_ctime > 1700000000 && status.sem_perm.cuid == geteuid() &&
              semctl(id, 0, IPC_RMID) == 0,
          "and their state");
    struct seminfo limits = {0};
    argument.at = &limits;
    check(semctl(0, 0, IPC_INFO, argument) >= 0 && limits.semmsl >= 3, "and their limits");
}

// As root only, and then of a file system that is mounted nowhere.
static void file_systems(void)
{
    int fd = (int)syscall(SYS_fsopen, "tmpfs", 0);

    check(fd == -1 || (syscall(SYS_fsconfig, fd, FSCONFIG_SET_STRING, "size", "4k", 0) == 0 &&
                       syscall(SYS_fsconfig, fd, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0),
          "a file system is configured");
    close(fd);
    check(syscall(SYS_fsconfig, 0, FSCONFIG_SET_FLAG, "ro", NULL, 0) == -1 && errno == EINVAL,
          "none is, by what stands for another file");
}

int main(void)
{
    identity();
    limits();
    names();
    processors();
    queues();
    system_v();
    file_systems();
    check(syscall(SYS_rseq, 0, 0, 0, 0) == -1, "rseq is refused");
    check(syscall(9999) == -1 && errno == ENOSYS, "a call that there is not");
    return check_done();
}
