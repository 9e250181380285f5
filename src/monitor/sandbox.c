// SPDX-License-Identifier: BSD-2-Clause
// Confining a monitor.
//
// A forbidden system call fails with EPERM and does not kill: what a newer libc tries first
// (clone3, statx, ...) and does without must not take a guest down with it. openat2 of io_uring and
// the like would go past the filter, so rings are made before the lock, restricted to what disks
// need (virtio/disk.c), and no others can be made after it.
//
// The user: monitors of root get a number of their own, 0x70000000 plus the process id, which no
// account has and which no two of them share at a time. There is no namespace for process ids:
// entering one takes a further process for each monitor, and kill and ptrace are forbidden anyway.
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/if_tun.h>

#include "monitor/sandbox.h"

#define USER_BASE 0x70000000u

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#elif defined(__has_feature)
#define SANITIZED                                                                                  \
    (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||                        \
     __has_feature(memory_sanitizer))
#else
#define SANITIZED false
#endif

// ---- Leaving the host ---------------------------------------------------------------------------

// An empty, read-only root; where the old one was mounted is not reachable any more.
static int empty_root(void)
{
    const unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;

    // Any folder that every host has will do: the mount hides it in this namespace only.
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("none", "/dev", "tmpfs", flags, "size=4k,nr_inodes=1,mode=0555") < 0 ||
        mount(NULL, "/dev", NULL, flags | MS_REMOUNT | MS_RDONLY, NULL) < 0 || chdir("/dev") < 0 ||
        syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
        return -errno;
    return 0;
}

static int leave_namespaces(void)
{
    const int spaces = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;

    // Who is not root gets there through a user namespace, where the host lets him.
    if (unshare(spaces) < 0 && unshare(spaces | CLONE_NEWUSER) < 0)
        return -errno;
    return empty_root();
}

static int leave_user(void)
{
    uid_t id = USER_BASE + (uid_t)getpid();

    if (setgroups(0, NULL) < 0 || setresgid(id, id, id) < 0 || setresuid(id, id, id) < 0)
        return -errno;
    return 0;
}

static int drop_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    const struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {0};

    for (int capability = 0; prctl(PR_CAPBSET_READ, capability) >= 0; capability++)
        prctl(PR_CAPBSET_DROP, capability);  // EPERM where there are none to begin with
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    return syscall(SYS_capset, &header, none) < 0 ? -errno : 0;
}

// Lowers a limit; one that is lower already stays.
static int limit(int resource, uint64_t value)
{
    struct rlimit now;

    if (getrlimit(resource, &now) < 0)
        return -errno;
    if (now.rlim_max > value)
        now.rlim_max = value;
    if (now.rlim_cur > now.rlim_max)
        now.rlim_cur = now.rlim_max;
    return setrlimit(resource, &now) < 0 ? -errno : 0;
}

int sandbox_leave_host(const struct sandbox_limits *limits, struct error *err)
{
    int parts = 0, rc;

    if (SANITIZED)
        return 0;
    // A core of a monitor that crashed is worth having: leaving the user would switch it off.
    int dumpable = prctl(PR_GET_DUMPABLE);
    rc = leave_namespaces();
    if (rc == 0)
        parts |= SANDBOX_NAMESPACES;
    else
        log_line(LOG_INFO, "the host allows no namespaces: %s", strerror(-rc));
    rc = leave_user();
    if (rc == 0)
        parts |= SANDBOX_USER;
    else
        log_line(LOG_INFO, "the host allows no user of our own: %s", strerror(-rc));
    prctl(PR_SET_DUMPABLE, dumpable == 1);
    rc = drop_capabilities();
    if (rc < 0)
        return error_set_errno(err, rc, "cannot give up capabilities");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return error_set_errno(err, -errno, "cannot give up new privileges");
    rc = limit(RLIMIT_NOFILE, limits->files);
    if (rc == 0 && limits->heap_bytes)
        rc = limit(RLIMIT_DATA, limits->heap_bytes);
    return rc < 0 ? error_set_errno(err, rc, "cannot set limits") : parts;
}

int sandbox_limit_heap(uint64_t bytes, struct error *err)
{
    int rc = SANITIZED ? 0 : limit(RLIMIT_DATA, bytes);

    return rc < 0 ? error_set_errno(err, rc, "cannot limit the monitor's memory") : 0;
}

// ---- System calls -------------------------------------------------------------------------------

// Allowed whatever their arguments. What takes names of files is here only where it cannot make or
// open one.
static const int calls[] = {
    // Descriptors that are there.
    SCMP_SYS(read),
    SCMP_SYS(write),
    SCMP_SYS(readv),
    SCMP_SYS(writev),
    SCMP_SYS(pread64),
    SCMP_SYS(pwrite64),
    SCMP_SYS(preadv),
    SCMP_SYS(pwritev),
    SCMP_SYS(preadv2),
    SCMP_SYS(pwritev2),
    SCMP_SYS(lseek),
    SCMP_SYS(fstat),
    SCMP_SYS(newfstatat),
    SCMP_SYS(fallocate),
    SCMP_SYS(fdatasync),
    SCMP_SYS(fsync),
    SCMP_SYS(ftruncate),
    SCMP_SYS(close),
    SCMP_SYS(dup),
    SCMP_SYS(fcntl),
    SCMP_SYS(memfd_create),
    SCMP_SYS(copy_file_range),
    // Sockets that are there.
    SCMP_SYS(recvmsg),
    SCMP_SYS(sendmsg),
    SCMP_SYS(recvfrom),
    SCMP_SYS(sendto),
    SCMP_SYS(recvmmsg),
    SCMP_SYS(sendmmsg),
    SCMP_SYS(accept4),
    SCMP_SYS(shutdown),
    SCMP_SYS(getsockopt),
    SCMP_SYS(setsockopt),
    SCMP_SYS(getsockname),
    // Waiting.
    SCMP_SYS(epoll_create1),
    SCMP_SYS(epoll_ctl),
    SCMP_SYS(epoll_wait),
    SCMP_SYS(epoll_pwait),
    SCMP_SYS(poll),
    SCMP_SYS(ppoll),
    SCMP_SYS(eventfd2),
    SCMP_SYS(pipe2),
    SCMP_SYS(io_uring_enter),
    SCMP_SYS(futex),
    SCMP_SYS(sched_yield),
    SCMP_SYS(nanosleep),
    SCMP_SYS(clock_nanosleep),
    SCMP_SYS(restart_syscall),
    // Memory.
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(madvise),
    SCMP_SYS(brk),
    SCMP_SYS(membarrier),
    SCMP_SYS(mincore),
    // Time and timers.
    SCMP_SYS(clock_gettime),
    SCMP_SYS(gettimeofday),
    SCMP_SYS(timer_create),
    SCMP_SYS(timer_settime),
    SCMP_SYS(timer_gettime),
    SCMP_SYS(timer_delete),
    // Signals and threads of its own.
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(sigaltstack),
    SCMP_SYS(set_robust_list),
    SCMP_SYS(rseq),
    SCMP_SYS(gettid),
    SCMP_SYS(getpid),
    SCMP_SYS(sched_getaffinity),
    SCMP_SYS(sched_getattr),
    SCMP_SYS(sched_setattr),  // no more than an ordinary user may
    SCMP_SYS(getcpu),
    SCMP_SYS(arch_prctl),
    SCMP_SYS(getrandom),
    SCMP_SYS(getrusage),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
};

// Of these one argument must be this, under the mask.
static const struct {
    int call;
    unsigned argument;
    uint64_t mask, value;
} calls_if[] = {
    // Threads, and no processes.
    {SCMP_SYS(clone), 0, CLONE_THREAD, CLONE_THREAD},
    // Never memory that can be written and executed through one mapping.
    {SCMP_SYS(mmap), 2, PROT_WRITE | PROT_EXEC, 0},
    {SCMP_SYS(mmap), 2, PROT_WRITE | PROT_EXEC, PROT_WRITE},
    {SCMP_SYS(mmap), 2, PROT_WRITE | PROT_EXEC, PROT_EXEC},
    {SCMP_SYS(mprotect), 2, PROT_WRITE | PROT_EXEC, 0},
    {SCMP_SYS(mprotect), 2, PROT_WRITE | PROT_EXEC, PROT_WRITE},
    {SCMP_SYS(mprotect), 2, PROT_WRITE | PROT_EXEC, PROT_EXEC},
    {SCMP_SYS(socketpair), 0, UINT64_MAX, AF_UNIX},
    {SCMP_SYS(setpriority), 0, UINT32_MAX, PRIO_PGRP},
    {SCMP_SYS(prctl), 0, UINT64_MAX, PR_SET_NAME},
    {SCMP_SYS(ioctl), 1, UINT32_MAX, TUNSETOFFLOAD},
    {SCMP_SYS(ioctl), 1, UINT32_MAX, FIONREAD},
    {SCMP_SYS(ioctl), 1, UINT32_MAX, FIONBIO},
};

static int fill_filter(scmp_filter_ctx filter)
{
    int rc = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);

    for (size_t i = 0; rc == 0 && i < BASE_COUNT_OF(calls); i++)
        rc = seccomp_rule_add(filter, SCMP_ACT_ALLOW, calls[i], 0);
    for (size_t i = 0; rc == 0 && i < BASE_COUNT_OF(calls_if); i++)
        rc = seccomp_rule_add(filter, SCMP_ACT_ALLOW, calls_if[i].call, 1,
                              SCMP_CMP(calls_if[i].argument, SCMP_CMP_MASKED_EQ, calls_if[i].mask,
                                       calls_if[i].value));
    // Signals to itself: abort, timers of another thread.
    if (rc == 0)
        rc = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
                              SCMP_CMP(0, SCMP_CMP_EQ, (scmp_datum_t)getpid()));
    // Arguments of clone3 are out of a filter's reach: libc then takes clone.
    if (rc == 0)
        rc = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    return rc == 0 ? seccomp_load(filter) : rc;
}

int sandbox_lock(struct error *err)
{
    if (SANITIZED)
        return 0;
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    int rc = filter ? fill_filter(filter) : -ENOMEM;

    if (filter)
        seccomp_release(filter);
    return rc < 0 ? error_set_errno(err, rc, "cannot forbid system calls") : 0;
}
