// SPDX-License-Identifier: BSD-2-Clause
// The program's system calls: a table by riscv64's number, and the functions of those that the host
// does not make as they are.
//
// Most need nothing but that their pointers are translated: their arguments are described, so that
// every buffer goes through user_buffer with its length and direction. x86-64 and riscv64 share the
// generic values of errors, signals, flags, sockets, terminals and ioctls, and the layout of nearly
// all structures; where they differ, or where a structure holds pointers, there is a function.
#ifndef STRAKE_USER_CALLS_H
#define STRAKE_USER_CALLS_H

#include <sys/uio.h>

#include "user/internal.h"

enum user_argument_kind {
    USER_ARGUMENT_VALUE,   // a number, also one that the call has no use for
    USER_ARGUMENT_PATH,    // of a file that is looked at
    USER_ARGUMENT_LINK,    // the same, but a symbolic link at its end is meant itself
    USER_ARGUMENT_CHANGE,  // of a file that is made or changed
    USER_ARGUMENT_STRING,  // any other text, or what may be shorter than the kernel's limit
    USER_ARGUMENT_IN,      // memory that the kernel reads,
    USER_ARGUMENT_OUT,     // writes,
    USER_ARGUMENT_IN_OUT,  // or both
};

// How long it is.
enum user_argument_length {
    USER_LENGTH_FIXED,  // `bytes`
    USER_LENGTH_COUNT,  // as many `bytes` as another argument says
    USER_LENGTH_AT,     // the uint32_t that another argument points to says
    USER_LENGTH_SELF,   // `bytes`, and as many as the uint32_t at its start says
};

struct user_argument {
    uint8_t kind, length, of;  // enum user_argument_kind, enum user_argument_length; which other
    uint16_t bytes;
};

enum user_call_how {
    USER_CALL_NONE,     // there is no such number
    USER_CALL_MISSING,  // not made here: ENOSYS, which is reported
    USER_CALL_REFUSED,  // never made here, and programs know how to do without: `error`
    USER_CALL_HOST,     // the host's call `host`, with arguments as described
    USER_CALL_FUNCTION,
};

struct user_call {
    const char *name;
    int64_t (*fn)(struct user_thread *thread, const uint64_t arguments[6]);
    uint16_t host;
    uint8_t how;  // enum user_call_how
    uint8_t error;
    struct user_argument arguments[6];
};

// NULL: no such number.
const struct user_call *user_call_find(uint64_t number);
// Warns of what a program wants and does not get, once a process for each `which`: a call's number,
// or one of those for requests of ioctl.
#define USER_REPORT_IOCTL 512
#define USER_REPORT_IOCTLS (USER_REPORTS_MAX - USER_REPORT_IOCTL)
void user_call_report(struct user_thread *thread, unsigned which, const char *fmt, ...)
    BASE_PRINTF(3, 4);

// Argument `index` of a call as the host's kernel takes it. 0, -EFAULT or -ENAMETOOLONG.
int user_argument_translate(struct user_thread *thread, const struct user_argument *argument,
                            const uint64_t arguments[6], unsigned index, uint64_t *value);
// A path of the program as the host's kernel takes it: from its sysroot, and the program itself
// instead of the monitor. 0, -EFAULT or -ENAMETOOLONG; 0 and NULL for NULL.
int user_call_path(struct user_thread *thread, uint64_t gva, enum user_path_use use,
                   const char **path);
// The program's vector of `count` buffers, translated. 0, -EINVAL or -EFAULT.
int user_call_vector(struct user_thread *thread, uint64_t gva, uint64_t count,
                     enum hart_access access, struct iovec vector[static IOV_MAX]);
// As user_buffer, and NULL is NULL for the kernel.
int user_call_buffer(struct user_thread *thread, uint64_t gva, uint64_t bytes,
                     enum hart_access access, void **hva);

// ---- Descriptors (descriptors.c) ----------------------------------------------------------------

// From here on until user_descriptor_opened no call of the program's closes the descriptor, or puts
// another one into its place; what stands for it is another number where one is already being
// closed. -EMFILE, ...: there is none, `fd` is closed.
int user_descriptor_opening(struct user_thread *thread, int fd);
void user_descriptor_opened(struct user_thread *thread);

// ---- Files of /proc (calls_proc.c) --------------------------------------------------------------

// Whether a path names the file that this process executes, which is the monitor.
bool user_proc_is_exe(const char *path);
// What the program gets instead of the file that `fd` (O_PATH) stands for, where that would show
// the monitor: a descriptor open for reading, a negative errno, or -ENODATA: nothing is instead.
int user_proc_open(struct user_thread *thread, int fd);

// ---- System calls of these files ----------------------------------------------------------------

// clang-format off
#define USER_CALLS_OF_FILES(CALL)                                                                  \
    CALL(openat) CALL(openat2) CALL(readlinkat) CALL(newfstatat) CALL(fstat) CALL(statx)           \
    CALL(readv) CALL(writev) CALL(preadv) CALL(pwritev) CALL(preadv2) CALL(pwritev2) CALL(vmsplice)
#define USER_CALLS_OF_DESCRIPTORS(CALL) CALL(close) CALL(close_range) CALL(dup3)
#define USER_CALLS_OF_CONTROL(CALL) CALL(ioctl) CALL(fcntl) CALL(prctl) CALL(fsconfig)
#define USER_CALLS_OF_POLL(CALL)                                                                   \
    CALL(epoll_ctl) CALL(epoll_pwait) CALL(epoll_pwait2) CALL(pselect6) CALL(ppoll)
#define USER_CALLS_OF_SOCKET(CALL)                                                                 \
    CALL(socket) CALL(setsockopt) CALL(getsockopt)                                                 \
    CALL(sendmsg) CALL(recvmsg) CALL(sendmmsg) CALL(recvmmsg)
#define USER_CALLS_OF_SYSTEM(CALL)                                                                 \
    CALL(uname) CALL(personality) CALL(setrlimit) CALL(prlimit64) CALL(mq_notify)                  \
    CALL(semctl) CALL(msgctl) CALL(msgsnd) CALL(msgrcv) CALL(shmctl) CALL(kcmp)                    \
    CALL(riscv_hwprobe) CALL(riscv_flush_icache)
// clang-format on

#define USER_CALL_NAMED(name)                                                                      \
    int64_t user_##name(struct user_thread *thread, const uint64_t arguments[6]);
USER_CALLS_OF_FILES(USER_CALL_NAMED)
USER_CALLS_OF_DESCRIPTORS(USER_CALL_NAMED)
USER_CALLS_OF_CONTROL(USER_CALL_NAMED)
USER_CALLS_OF_POLL(USER_CALL_NAMED)
USER_CALLS_OF_SOCKET(USER_CALL_NAMED)
USER_CALLS_OF_SYSTEM(USER_CALL_NAMED)

#endif
