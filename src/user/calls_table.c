// SPDX-License-Identifier: BSD-2-Clause
// Every system call of riscv64, by number (Linux' include/uapi/asm-generic/unistd.h). What is not
// said of an argument is that it is a number.
#include <errno.h>
#include <sys/syscall.h>

#include "user/calls.h"
#include "user/calls_describe.h"

// clang-format off
#define HOST(name, ...) {#name, NULL, SYS_##name, USER_CALL_HOST, 0, {__VA_ARGS__}}
// Newer than the host's headers may be; these numbers are the same everywhere.
#define HOST_NEW(name, number, ...) {#name, NULL, number, USER_CALL_HOST, 0, {__VA_ARGS__}}
#define FUNCTION(name) {#name, user_##name, 0, USER_CALL_FUNCTION, 0, {VALUE}}
#define REFUSED(name, error) {#name, NULL, 0, USER_CALL_REFUSED, error, {VALUE}}
#define MISSING(name) {#name, NULL, 0, USER_CALL_MISSING, 0, {VALUE}}
#define OF_PROCESS(number, name) [number] = FUNCTION(name),

#define TIME 16      // struct timespec, timeval
#define INTERVAL 32  // struct itimerspec, itimerval
#define SIGSET 8
#define SIGINFO 128
#define USAGE 144  // struct rusage
#define ID 4

static const struct user_call calls[] = {
    USER_CALLS_OF_PROCESS(OF_PROCESS)

    // Requests that name memory and are worked on later, or by other means than calls.
    [0] = REFUSED(io_setup, ENOSYS), [1] = REFUSED(io_destroy, ENOSYS),
    [2] = REFUSED(io_submit, ENOSYS), [3] = REFUSED(io_cancel, ENOSYS),
    [4] = REFUSED(io_getevents, ENOSYS), [292] = REFUSED(io_pgetevents, ENOSYS),
    [425] = REFUSED(io_uring_setup, ENOSYS), [426] = REFUSED(io_uring_enter, ENOSYS),
    [427] = REFUSED(io_uring_register, ENOSYS),
    // Ways to memory of this process or of others, which are no addresses of the program's.
    [117] = REFUSED(ptrace, EPERM), [270] = REFUSED(process_vm_readv, EPERM),
    [271] = REFUSED(process_vm_writev, EPERM), [282] = REFUSED(userfaultfd, EPERM),
    [440] = REFUSED(process_madvise, EPERM), [448] = REFUSED(process_mrelease, EPERM),
    [241] = REFUSED(perf_event_open, EACCES), [280] = REFUSED(bpf, EPERM),
    [234] = REFUSED(remap_file_pages, ENOSYS), [447] = REFUSED(memfd_secret, ENOSYS),
    // Filters would be asked about the monitor's calls, which are x86-64's.
    [277] = REFUSED(seccomp, EINVAL), [444] = REFUSED(landlock_create_ruleset, ENOSYS),
    [445] = REFUSED(landlock_add_rule, ENOSYS), [446] = REFUSED(landlock_restrict_self, ENOSYS),
    // Kernels are built without these, too.
    [293] = REFUSED(rseq, ENOSYS), [217] = REFUSED(add_key, ENOSYS),
    [218] = REFUSED(request_key, ENOSYS), [219] = REFUSED(keyctl, ENOSYS),
    [235] = REFUSED(mbind, ENOSYS), [236] = REFUSED(get_mempolicy, ENOSYS),
    [237] = REFUSED(set_mempolicy, ENOSYS), [238] = REFUSED(migrate_pages, ENOSYS),
    [239] = REFUSED(move_pages, ENOSYS), [450] = REFUSED(set_mempolicy_home_node, ENOSYS),
    [288] = REFUSED(pkey_mprotect, ENOSYS), [289] = REFUSED(pkey_alloc, ENOSYS),
    [290] = REFUSED(pkey_free, ENOSYS), [42] = REFUSED(nfsservctl, ENOSYS),
    [18] = REFUSED(lookup_dcookie, ENOSYS), [453] = REFUSED(map_shadow_stack, ENOSYS),
    // The host's kernel is not the program's.
    [104] = REFUSED(kexec_load, EPERM), [294] = REFUSED(kexec_file_load, EPERM),
    [105] = REFUSED(init_module, EPERM), [273] = REFUSED(finit_module, EPERM),
    [106] = REFUSED(delete_module, EPERM), [142] = REFUSED(reboot, EPERM),

    // Files by their paths
    [17] = HOST(getcwd, OUT_N(1, 1)),
    [33] = HOST(mknodat, VALUE, CHANGE), [34] = HOST(mkdirat, VALUE, CHANGE),
    [35] = HOST(unlinkat, VALUE, CHANGE), [36] = HOST(symlinkat, STRING, VALUE, CHANGE),
    [37] = HOST(linkat, VALUE, CHANGE, VALUE, CHANGE),
    [38] = HOST(renameat, VALUE, CHANGE, VALUE, CHANGE),
    [276] = HOST(renameat2, VALUE, CHANGE, VALUE, CHANGE),
    [43] = HOST(statfs, PATH, OUT(120)), [44] = HOST(fstatfs, VALUE, OUT(120)),
    [45] = HOST(truncate, CHANGE), [46] = HOST(ftruncate), [47] = HOST(fallocate),
    [48] = HOST(faccessat, VALUE, PATH), [439] = HOST(faccessat2, VALUE, PATH),
    [49] = HOST(chdir, PATH), [50] = HOST(fchdir), [51] = HOST(chroot, PATH),
    [52] = HOST(fchmod), [53] = HOST(fchmodat, VALUE, CHANGE),
    [452] = HOST_NEW(fchmodat2, 452, VALUE, CHANGE),
    [54] = HOST(fchownat, VALUE, CHANGE), [55] = HOST(fchown),
    [88] = HOST(utimensat, VALUE, CHANGE, IN(2 * TIME)),
    [56] = FUNCTION(openat), [437] = FUNCTION(openat2),
    [78] = FUNCTION(readlinkat), [79] = FUNCTION(newfstatat),
    [80] = FUNCTION(fstat), [291] = FUNCTION(statx),
    [5] = HOST(setxattr, CHANGE, STRING, IN_N(3, 1)),
    [6] = HOST(lsetxattr, CHANGE, STRING, IN_N(3, 1)),
    [7] = HOST(fsetxattr, VALUE, STRING, IN_N(3, 1)),
    [8] = HOST(getxattr, PATH, STRING, OUT_N(3, 1)),
    [9] = HOST(lgetxattr, LINK, STRING, OUT_N(3, 1)),
    [10] = HOST(fgetxattr, VALUE, STRING, OUT_N(3, 1)),
    [11] = HOST(listxattr, PATH, OUT_N(2, 1)), [12] = HOST(llistxattr, LINK, OUT_N(2, 1)),
    [13] = HOST(flistxattr, VALUE, OUT_N(2, 1)),
    [14] = HOST(removexattr, CHANGE, STRING), [15] = HOST(lremovexattr, CHANGE, STRING),
    [16] = HOST(fremovexattr, VALUE, STRING),
    [264] = HOST(name_to_handle_at, VALUE, PATH, IN_OUT_SELF(8), OUT(4)),
    [265] = HOST(open_by_handle_at, VALUE, IN_SELF(8)),
    [26] = HOST(inotify_init1), [27] = HOST(inotify_add_watch, VALUE, PATH),
    [28] = HOST(inotify_rm_watch),
    [262] = HOST(fanotify_init), [263] = HOST(fanotify_mark, VALUE, VALUE, VALUE, VALUE, PATH),
    [60] = MISSING(quotactl), [443] = MISSING(quotactl_fd),

    // Mounts and namespaces. What a file system is told is a page at most, less where memory ends.
    [39] = HOST(umount2, CHANGE), [40] = HOST(mount, STRING, CHANGE, STRING, VALUE, STRING),
    [41] = HOST(pivot_root, CHANGE, CHANGE), [97] = HOST(unshare), [268] = HOST(setns),
    [428] = HOST(open_tree, VALUE, PATH), [429] = HOST(move_mount, VALUE, PATH, VALUE, CHANGE),
    [430] = HOST(fsopen, STRING), [431] = FUNCTION(fsconfig), [432] = HOST(fsmount),
    [433] = HOST(fspick, VALUE, PATH), [442] = HOST(mount_setattr, VALUE, PATH, VALUE, IN_N(4, 1)),
    [457] = HOST_NEW(statmount, 457, IN_SELF(0), OUT_N(2, 1)),
    [458] = HOST_NEW(listmount, 458, IN_SELF(0), OUT_N(2, 8)),

    // Descriptors
    [23] = HOST(dup), [24] = FUNCTION(dup3), [57] = FUNCTION(close), [436] = FUNCTION(close_range),
    [25] = FUNCTION(fcntl), [29] = FUNCTION(ioctl), [32] = HOST(flock),
    [61] = HOST(getdents64, VALUE, OUT_N(2, 1)), [62] = HOST(lseek),
    [63] = HOST(read, VALUE, OUT_N(2, 1)), [64] = HOST(write, VALUE, IN_N(2, 1)),
    [67] = HOST(pread64, VALUE, OUT_N(2, 1)), [68] = HOST(pwrite64, VALUE, IN_N(2, 1)),
    [65] = FUNCTION(readv), [66] = FUNCTION(writev), [69] = FUNCTION(preadv),
    [70] = FUNCTION(pwritev), [286] = FUNCTION(preadv2), [287] = FUNCTION(pwritev2),
    [59] = HOST(pipe2, OUT(8)), [71] = HOST(sendfile, VALUE, VALUE, IN_OUT(8)),
    [75] = FUNCTION(vmsplice), [76] = HOST(splice, VALUE, IN_OUT(8), VALUE, IN_OUT(8)),
    [77] = HOST(tee), [285] = HOST(copy_file_range, VALUE, IN_OUT(8), VALUE, IN_OUT(8)),
    [81] = HOST(sync), [82] = HOST(fsync), [83] = HOST(fdatasync), [84] = HOST(sync_file_range),
    [267] = HOST(syncfs), [213] = HOST(readahead), [223] = HOST(fadvise64),
    [451] = HOST_NEW(cachestat, 451, VALUE, IN(16), OUT(40)),
    [279] = HOST(memfd_create, STRING),
    [434] = HOST(pidfd_open), [438] = HOST(pidfd_getfd), [272] = FUNCTION(kcmp),

    // Waiting for them
    [19] = HOST(eventfd2), [20] = HOST(epoll_create1), [21] = FUNCTION(epoll_ctl),
    [22] = FUNCTION(epoll_pwait), [441] = FUNCTION(epoll_pwait2), [72] = FUNCTION(pselect6),
    [73] = FUNCTION(ppoll),
    [74] = HOST(signalfd4, VALUE, IN_N(2, 1)),
    [85] = HOST(timerfd_create), [86] = HOST(timerfd_settime, VALUE, VALUE, IN(INTERVAL), OUT(INTERVAL)),
    [87] = HOST(timerfd_gettime, VALUE, OUT(INTERVAL)),

    // Sockets
    [198] = FUNCTION(socket), [199] = HOST(socketpair, VALUE, VALUE, VALUE, OUT(8)),
    [200] = HOST(bind, VALUE, IN_N(2, 1)), [201] = HOST(listen),
    [202] = HOST(accept, VALUE, OUT_AT(2), IN_OUT(4)),
    [242] = HOST(accept4, VALUE, OUT_AT(2), IN_OUT(4)),
    [203] = HOST(connect, VALUE, IN_N(2, 1)),
    [204] = HOST(getsockname, VALUE, OUT_AT(2), IN_OUT(4)),
    [205] = HOST(getpeername, VALUE, OUT_AT(2), IN_OUT(4)),
    [206] = HOST(sendto, VALUE, IN_N(2, 1), VALUE, VALUE, IN_N(5, 1)),
    [207] = HOST(recvfrom, VALUE, OUT_N(2, 1), VALUE, VALUE, OUT_AT(5), IN_OUT(4)),
    [208] = FUNCTION(setsockopt), [209] = FUNCTION(getsockopt), [210] = HOST(shutdown),
    [211] = FUNCTION(sendmsg), [212] = FUNCTION(recvmsg), [269] = FUNCTION(sendmmsg),
    [243] = FUNCTION(recvmmsg),

    // Messages, semaphores, segments of memory
    [180] = HOST(mq_open, STRING, VALUE, VALUE, IN(64)), [181] = HOST(mq_unlink, STRING),
    [182] = HOST(mq_timedsend, VALUE, IN_N(2, 1), VALUE, VALUE, IN(TIME)),
    [183] = HOST(mq_timedreceive, VALUE, OUT_N(2, 1), VALUE, OUT(4), IN(TIME)),
    [184] = FUNCTION(mq_notify), [185] = HOST(mq_getsetattr, VALUE, IN(64), OUT(64)),
    [186] = HOST(msgget), [187] = FUNCTION(msgctl),
    [188] = FUNCTION(msgrcv), [189] = FUNCTION(msgsnd),
    [190] = HOST(semget), [191] = FUNCTION(semctl), [193] = HOST(semop, VALUE, IN_N(2, 6)),
    [192] = HOST(semtimedop, VALUE, IN_N(2, 6), VALUE, IN(TIME)),
    [194] = HOST(shmget), [195] = FUNCTION(shmctl),

    // Time
    [101] = HOST(nanosleep, IN(TIME), OUT(TIME)),
    [115] = HOST(clock_nanosleep, VALUE, VALUE, IN(TIME), OUT(TIME)),
    [102] = HOST(getitimer, VALUE, OUT(INTERVAL)),
    [103] = HOST(setitimer, VALUE, IN(INTERVAL), OUT(INTERVAL)),
    [107] = HOST(timer_create, VALUE, IN(64), OUT(4)), [111] = HOST(timer_delete),
    [108] = HOST(timer_gettime, VALUE, OUT(INTERVAL)), [109] = HOST(timer_getoverrun),
    [110] = HOST(timer_settime, VALUE, VALUE, IN(INTERVAL), OUT(INTERVAL)),
    [112] = HOST(clock_settime, VALUE, IN(TIME)), [113] = HOST(clock_gettime, VALUE, OUT(TIME)),
    [114] = HOST(clock_getres, VALUE, OUT(TIME)), [266] = HOST(clock_adjtime, VALUE, IN_OUT(208)),
    [169] = HOST(gettimeofday, OUT(TIME), OUT(8)), [170] = HOST(settimeofday, IN(TIME), IN(8)),
    [171] = HOST(adjtimex, IN_OUT(208)), [153] = HOST(times, OUT(32)),

    // Processes and signals
    [260] = HOST(wait4, VALUE, OUT(4), VALUE, OUT(USAGE)),
    [95] = HOST(waitid, VALUE, VALUE, OUT(SIGINFO), VALUE, OUT(USAGE)),
    [136] = HOST(rt_sigpending, OUT_N(1, 1)),
    [137] = HOST(rt_sigtimedwait, IN(SIGSET), OUT(SIGINFO), IN(TIME)),
    [138] = HOST(rt_sigqueueinfo, VALUE, VALUE, IN(SIGINFO)),
    [240] = HOST(rt_tgsigqueueinfo, VALUE, VALUE, VALUE, IN(SIGINFO)),
    [424] = HOST(pidfd_send_signal, VALUE, VALUE, IN(SIGINFO)),
    [455] = HOST_NEW(futex_wait, 455, IN(4), VALUE, VALUE, VALUE, IN(TIME)),

    // Users, limits
    [172] = HOST(getpid), [173] = HOST(getppid), [178] = HOST(gettid),
    [174] = HOST(getuid), [175] = HOST(geteuid), [176] = HOST(getgid), [177] = HOST(getegid),
    [143] = HOST(setregid), [144] = HOST(setgid), [145] = HOST(setreuid), [146] = HOST(setuid),
    [147] = HOST(setresuid), [148] = HOST(getresuid, OUT(ID), OUT(ID), OUT(ID)),
    [149] = HOST(setresgid), [150] = HOST(getresgid, OUT(ID), OUT(ID), OUT(ID)),
    [151] = HOST(setfsuid), [152] = HOST(setfsgid),
    [158] = HOST(getgroups, VALUE, OUT_N(0, ID)), [159] = HOST(setgroups, VALUE, IN_N(0, ID)),
    [154] = HOST(setpgid), [155] = HOST(getpgid), [156] = HOST(getsid), [157] = HOST(setsid),
    [90] = HOST(capget, IN_OUT(8), OUT(24)), [91] = HOST(capset, IN_OUT(8), IN(24)),
    [92] = FUNCTION(personality), [166] = HOST(umask), [167] = FUNCTION(prctl),
    [163] = HOST(getrlimit, VALUE, OUT(16)), [164] = FUNCTION(setrlimit),
    [261] = FUNCTION(prlimit64), [165] = HOST(getrusage, VALUE, OUT(USAGE)),
    [140] = HOST(setpriority), [141] = HOST(getpriority),
    [30] = HOST(ioprio_set), [31] = HOST(ioprio_get), [89] = HOST(acct, CHANGE),

    // Processors
    [118] = HOST(sched_setparam, VALUE, IN(4)), [121] = HOST(sched_getparam, VALUE, OUT(4)),
    [119] = HOST(sched_setscheduler, VALUE, VALUE, IN(4)), [120] = HOST(sched_getscheduler),
    [122] = HOST(sched_setaffinity, VALUE, VALUE, IN_N(1, 1)),
    [123] = HOST(sched_getaffinity, VALUE, VALUE, OUT_N(1, 1)), [124] = HOST(sched_yield),
    [125] = HOST(sched_get_priority_max), [126] = HOST(sched_get_priority_min),
    [127] = HOST(sched_rr_get_interval, VALUE, OUT(TIME)),
    [274] = HOST(sched_setattr, VALUE, IN_SELF(0)),
    [275] = HOST(sched_getattr, VALUE, OUT_N(2, 1)),
    [168] = HOST(getcpu, OUT(4), OUT(4)), [283] = HOST(membarrier),
    [258] = FUNCTION(riscv_hwprobe), [259] = FUNCTION(riscv_flush_icache),

    // The machine
    [160] = FUNCTION(uname), [179] = HOST(sysinfo, OUT(112)), [278] = HOST(getrandom, OUT_N(1, 1)),
    [161] = HOST(sethostname, IN_N(1, 1)), [162] = HOST(setdomainname, IN_N(1, 1)),
    [116] = HOST(syslog, VALUE, OUT_N(2, 1)), [58] = HOST(vhangup),
    [224] = HOST(swapon, CHANGE), [225] = HOST(swapoff, CHANGE),

    // A handler's return never restarts a call by its rest: calls that wait are made again.
    [128] = REFUSED(restart_syscall, EINTR),
    [459] = MISSING(lsm_get_self_attr),
    [460] = MISSING(lsm_set_self_attr), [461] = MISSING(lsm_list_modules), [462] = MISSING(mseal),
    [463] = MISSING(setxattrat), [464] = MISSING(getxattrat), [465] = MISSING(listxattrat),
    [466] = MISSING(removexattrat), [467] = MISSING(open_tree_attr),
    [468] = MISSING(file_getattr), [469] = MISSING(file_setattr), [470] = MISSING(listns),
};
// clang-format on

const struct user_call *user_call_find(uint64_t number)
{
    return number < BASE_COUNT_OF(calls) && calls[number].how != USER_CALL_NONE ? &calls[number]
                                                                                : NULL;
}
