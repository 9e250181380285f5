// SPDX-License-Identifier: BSD-2-Clause
// What a confined process can still do, and what it cannot: each try is made by a child that has
// confined itself.
#include <fcntl.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "monitor/sandbox.h"
#include "unit.h"

#define FILES 64u

struct
try {
    const char *what;
    long (*fn)(int fd);  // what a system call returns; `fd` is of a file
};

static pid_t parent;

// ---- What is forbidden --------------------------------------------------------------------------

static long try_open(int fd)
{
    (void)fd;
    return open("/etc/passwd", O_RDONLY);
}

static long try_openat(int fd)
{
    return openat(fd, "x", O_RDWR | O_CREAT, 0600);
}

static long try_socket(int fd)
{
    (void)fd;
    return socket(AF_INET, SOCK_STREAM, 0);
}

static long try_unix_socket(int fd)
{
    (void)fd;
    return socket(AF_UNIX, SOCK_STREAM, 0);
}

static long try_ptrace(int fd)
{
    (void)fd;
    return ptrace(PTRACE_ATTACH, parent, NULL, NULL);
}

static long try_exec(int fd)
{
    char *const none[] = {NULL};

    (void)fd;
    return execve("/bin/true", none, none);
}

static long try_exec_fd(int fd)
{
    char *const none[] = {NULL};

    return syscall(SYS_execveat, fd, "", none, none, AT_EMPTY_PATH);
}

static long try_mount(int fd)
{
    (void)fd;
    return mount("none", "/", "tmpfs", 0, NULL);
}

static long try_fork(int fd)
{
    (void)fd;
    return syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
}

static long try_ring(int fd)
{
    struct io_uring_params params = {0};

    (void)fd;
    return syscall(SYS_io_uring_setup, 1, &params);
}

static long try_kill(int fd)
{
    (void)fd;
    return kill(parent, 0);
}

static long try_write_and_execute(int fd)
{
    (void)fd;
    void *at = mmap(NULL, 4096, PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return at == MAP_FAILED ? -1 : 0;
}

static long try_root(int fd)
{
    (void)fd;
    return setuid(0);
}

static long try_namespace(int fd)
{
    (void)fd;
    return unshare(CLONE_NEWUSER);
}

static long try_process_memory(int fd)
{
    char byte;
    struct iovec local = {&byte, 1}, remote = {(void *)&parent, 1};

    (void)fd;
    return process_vm_readv(parent, &local, 1, &remote, 1, 0);
}

static const struct try forbidden[] = {
    {"open a file", try_open},
    {"create a file", try_openat},
    {"make a socket", try_socket},
    {"make a Unix socket", try_unix_socket},
    {"ptrace its parent", try_ptrace},
    {"execute a program", try_exec},
    {"execute what a descriptor names", try_exec_fd},
    {"mount a file system", try_mount},
    {"make a process", try_fork},
    {"make an io_uring", try_ring},
    {"signal its parent", try_kill},
    {"map memory to write and execute", try_write_and_execute},
    {"become root", try_root},
    {"enter a namespace", try_namespace},
    {"read its parent's memory", try_process_memory},
};

// ---- What is allowed ----------------------------------------------------------------------------

static long try_file(int fd)
{
    char byte = 'x';

    return pwrite(fd, &byte, 1, 0) == 1 && pread(fd, &byte, 1, 0) == 1 ? fdatasync(fd) : -1;
}

static void *thread(void *opaque)
{
    *(int *)opaque = 1;
    return NULL;
}

static long try_thread(int fd)
{
    pthread_t id;
    int ran = 0;

    (void)fd;
    errno = pthread_create(&id, NULL, thread, &ran);
    if (errno || pthread_join(id, NULL))
        return -1;
    return ran ? 0 : -1;
}

static long try_code(int fd)
{
    int code = memfd_create("code", MFD_CLOEXEC);

    (void)fd;
    if (code < 0 || ftruncate(code, 4096) < 0)
        return -1;
    void *write = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, code, 0);
    void *run = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, code, 0);
    if (write == MAP_FAILED || run == MAP_FAILED)
        return -1;
    memcpy(write, (const uint8_t[]){0x31, 0xc0, 0xc3}, 3);  // xor eax, eax; ret
    int (*function)(void);
    memcpy(&function, &run, sizeof(function));
    return function();
}

static const struct try allowed[] = {
    {"use a file that it holds", try_file},
    {"make a thread", try_thread},
    {"map code twice", try_code},
};

// ---- Trying -------------------------------------------------------------------------------------

static int make_file(void)
{
    FILE *file = tmpfile();
    assert_non_null(file);
    int fd = dup(fileno(file));
    fclose(file);
    assert_true(fd >= 0);
    return fd;
}

// Runs `fn` in a child and returns its exit status.
static int in_child(int (*fn)(const struct try *, int), const struct try *try, int fd)
{
    int status = -1;
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0)
        _exit(fn(try, fd));
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int confine(void)
{
    const struct sandbox_limits limits = {.heap_bytes = 256u << 20, .files = FILES};
    struct error err;
    int parts = sandbox_leave_host(&limits, &err);

    if (parts >= 0 && sandbox_lock(&err) < 0)
        parts = -1;
    if (parts < 0)
        fprintf(stderr, "%s\n", err.message);
    return parts;
}

static int is_forbidden(const struct try *try, int fd)
{
    if (confine() < 0)
        return 2;
    errno = 0;
    return try->fn(fd) < 0 && errno == EPERM ? 0 : 1;
}

static int is_allowed(const struct try *try, int fd)
{
    if (confine() < 0)
        return 2;
    return try->fn(fd) == 0 ? 0 : 1;
}

static void test_forbidden(void **state)
{
    int fd = make_file();

    (void)state;
    if (sanitized())
        skip();
    for (size_t i = 0; i < BASE_COUNT_OF(forbidden); i++) {
        int status = in_child(is_forbidden, &forbidden[i], fd);
        printf("a confined process can not %s: %s\n", forbidden[i].what,
               status == 0 ? "right" : "WRONG");
        assert_int_equal(status, 0);
    }
    close(fd);
}

static void test_allowed(void **state)
{
    int fd = make_file();

    (void)state;
    for (size_t i = 0; i < BASE_COUNT_OF(allowed); i++) {
        int status = in_child(is_allowed, &allowed[i], fd);
        printf("a confined process can %s: %s\n", allowed[i].what, status == 0 ? "right" : "WRONG");
        assert_int_equal(status, 0);
    }
    close(fd);
}

// What the first step alone takes away, where the host lets it.
static int has_left(const struct try *try, int fd)
{
    const struct sandbox_limits limits = {.heap_bytes = 256u << 20, .files = FILES};
    struct error err;
    struct rlimit files;
    int parts = sandbox_leave_host(&limits, &err);

    (void)try;
    (void)fd;
    if (parts < 0 || getrlimit(RLIMIT_NOFILE, &files) < 0 || files.rlim_max > FILES)
        return 1;
    if ((parts & SANDBOX_USER) && getuid() != 0x70000000u + (uid_t)getpid())
        return 2;
    if ((parts & SANDBOX_NAMESPACES) && (open("/etc/passwd", O_RDONLY) >= 0 || errno != ENOENT))
        return 3;
    if ((parts & SANDBOX_NAMESPACES) && (open("/x", O_RDWR | O_CREAT, 0600) >= 0))
        return 4;
    if (setuid(0) == 0 && !(parts & SANDBOX_NAMESPACES))
        return 5;
    return 64 + parts;
}

static void test_host_left(void **state)
{
    (void)state;
    if (sanitized())
        skip();
    int status = in_child(has_left, NULL, -1);
    printf("the host allows%s%s%s\n", status & SANDBOX_USER ? " a user of its own" : "",
           status & SANDBOX_NAMESPACES ? " namespaces" : "", status == 64 ? " neither" : "");
    assert_true(status >= 64 && status < 68);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forbidden),
        cmocka_unit_test(test_allowed),
        cmocka_unit_test(test_host_left),
    };

    parent = getpid();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
