// SPDX-License-Identifier: BSD-2-Clause
// Calls with addresses that are not the program's: each is an error, and the program goes on. Of
// structures with pointers in them, too.
#define _GNU_SOURCE
#include <fcntl.h>
#include <mqueue.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

// No pages there, below and above the program's half of memory, the kernel's, not canonical, at the
// very end.
static const uint64_t bad[] = {0x10,           0x3ffffff000,       0x4000000000,
                               0x4000001000,   0x7fff00000000,     0x7ffffffff000,
                               0x800000000000, 0xffffffff80000000, (uint64_t)-8};

static bool faults(long rc)
{
    return rc == -1 && (errno == EFAULT || errno == EINVAL || errno == ENOMEM);
}

#define ALL(what, call)                                                                            \
    do {                                                                                           \
        bool all = true;                                                                           \
        for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {                                  \
            void *at = (void *)bad[i];                                                             \
            (void)at;                                                                              \
            if (!faults(call)) {                                                                   \
                printf("at %#lx: %s\n", (unsigned long)bad[i], strerror(errno));                   \
                all = false;                                                                       \
            }                                                                                      \
        }                                                                                          \
        check(all, what);                                                                          \
    } while (0)

int main(void)
{
    int file = open("file", O_RDWR | O_CREAT, 0600), ends[2], epoll = epoll_create1(0);
    struct iovec vector;
    struct msghdr message;
    struct epoll_event event = {0};
    struct ifconf list = {.ifc_len = 400};
    char byte = 0, path[64];

    socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
    check(write(file, "some text that is there to be read", 34) == 34, "a file");
    ALL("read", syscall(SYS_pread64, file, at, 16, 0));
    ALL("write", syscall(SYS_write, file, at, 16));
    ALL("read of a large piece", syscall(SYS_pread64, file, at, 1L << 40, 0));
    ALL("open", syscall(SYS_openat, AT_FDCWD, at, O_RDONLY, 0));
    ALL("newfstatat", syscall(SYS_newfstatat, AT_FDCWD, "file", at, 0));
    ALL("its path", syscall(SYS_newfstatat, AT_FDCWD, at, path, 0));
    ALL("fstat", syscall(SYS_fstat, file, at));
    ALL("statx", syscall(SYS_statx, AT_FDCWD, "file", 0, STATX_ALL, at));
    ALL("readlinkat", syscall(SYS_readlinkat, AT_FDCWD, "/proc/self/exe", at, 100));
    ALL("getcwd", syscall(SYS_getcwd, at, 4096));
    ALL("getdents64", syscall(SYS_getdents64, open(".", O_RDONLY), at, 4096));
    ALL("readv", syscall(SYS_readv, file, at, 1));
    ALL("a vector's buffer",
        (vector = (struct iovec){at, 8}, syscall(SYS_preadv, file, &vector, 1, 0, 0)));
    ALL("of writev", (vector = (struct iovec){at, 8}, syscall(SYS_writev, file, &vector, 1)));
    ALL("sendmsg", syscall(SYS_sendmsg, ends[0], at, 0));
    vector = (struct iovec){&byte, 1};
    ALL("its vector", (message = (struct msghdr){.msg_iov = at, .msg_iovlen = 1},
                       syscall(SYS_sendmsg, ends[0], &message, 0)));
    ALL("its control",
        (message =
             (struct msghdr){
                 .msg_iov = &vector, .msg_iovlen = 1, .msg_control = at, .msg_controllen = 64},
         syscall(SYS_sendmsg, ends[0], &message, 0)));
    ALL("its name",
        (message =
             (struct msghdr){
                 .msg_iov = &vector, .msg_iovlen = 1, .msg_name = at, .msg_namelen = 16},
         syscall(SYS_sendmsg, ends[0], &message, 0)));
    ALL("recvmmsg", syscall(SYS_recvmmsg, ends[0], at, 4, MSG_DONTWAIT, NULL));
    ALL("getsockname", syscall(SYS_getsockname, ends[0], at, at));
    ALL("getsockopt", syscall(SYS_getsockopt, ends[0], SOL_SOCKET, SO_TYPE, at, at));
    ALL("socketpair", syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, at));
    ALL("pipe2", syscall(SYS_pipe2, at, 0));
    ALL("epoll_ctl", syscall(SYS_epoll_ctl, epoll, EPOLL_CTL_ADD, ends[0], at));
    event.events = EPOLLOUT;
    epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &event);
    ALL("epoll_pwait", syscall(SYS_epoll_pwait, epoll, at, 4, 0, NULL, 8));
    ALL("its mask", syscall(SYS_epoll_pwait, epoll, &event, 1, 0, at, 8));
    ALL("ppoll", syscall(SYS_ppoll, at, 1, NULL, NULL, 8));
    ALL("pselect6", syscall(SYS_pselect6, 5, at, NULL, NULL, NULL, NULL));
    ALL("its mask", syscall(SYS_pselect6, 0, NULL, NULL, NULL, NULL, at));
    ALL("clock_gettime", syscall(SYS_clock_gettime, CLOCK_MONOTONIC, at));
    ALL("nanosleep", syscall(SYS_nanosleep, at, NULL));
    ALL("uname", syscall(SYS_uname, at));
    ALL("prlimit64", syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, at));
    ALL("getrandom", syscall(SYS_getrandom, at, 8, 0));
    ALL("sysinfo", syscall(SYS_sysinfo, at));
    ALL("fcntl", syscall(SYS_fcntl, file, F_GETLK, at));
    ALL("ioctl", syscall(SYS_ioctl, ends[0], FIONREAD, at));
    ALL("of interfaces", (list.ifc_buf = at,
                          syscall(SYS_ioctl, socket(AF_INET, SOCK_DGRAM, 0), SIOCGIFCONF, &list)));
    ALL("prctl", syscall(SYS_prctl, PR_GET_NAME, at));
    ALL("semop", syscall(SYS_semop, 0, at, 1));
    ALL("rt_sigaction", syscall(SYS_rt_sigaction, SIGUSR1, at, NULL, 8));
    ALL("rt_sigprocmask", syscall(SYS_rt_sigprocmask, SIG_BLOCK, at, NULL, 8));
    ALL("execve", syscall(SYS_execve, at, NULL, NULL));
    // Up to the end of what is mapped, and beyond.
    char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(page + 4096, 4096);
    check(pread(file, page + 4090, 6, 0) == 6 && memcmp(page + 4090, "some t", 6) == 0,
          "the last bytes of a page");
    check(pread(file, page + 4090, 7, 0) != 7, "and not the first behind it");
    strcpy(page + 4091, "file");
    check(access(page + 4091, F_OK) == 0, "a path that ends with it");
    page[4095] = 'x';
    check(access(page + 4091, F_OK) == -1 && errno == EFAULT, "and one that does not");
    check(stat("file", (struct stat *)(page + 4000)) == -1 && errno == EFAULT,
          "a structure that reaches beyond");
    mprotect(page, 4096, PROT_READ);
    check(pread(file, page, 6, 0) == -1 && errno == EFAULT &&
              syscall(SYS_clock_gettime, CLOCK_REALTIME, page) == -1 && uname((void *)page) == -1 &&
              errno == EFAULT,
          "memory that is only read");
    return check_done();
}
