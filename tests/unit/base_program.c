// SPDX-License-Identifier: BSD-2-Clause
// A program in memory can be executed and sealed, also on a host where files of memory cannot be
// executed unless they say so: a pid namespace of its own is such a host.
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/base.h"
#include "unit.h"

#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

// Executes a copy of true(1); its status.
static int run_copy(void)
{
    static uint8_t bytes[1 << 20];
    char *const argv[] = {"true", NULL}, *const envp[] = {NULL};
    int from = open("/bin/true", O_RDONLY | O_CLOEXEC), fd = fd_program_create();
    int64_t count = from < 0 ? -1 : fd_read_full(from, bytes, sizeof(bytes));

    if (count < 0 || fd_write_full(fd, bytes, (size_t)count) != count ||
        fcntl(fd, F_ADD_SEALS, SEALS) < 0)
        return 1;
    // The one that is executed must be open for reading only.
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int program = open(path, O_RDONLY | O_CLOEXEC);
    fexecve(program, argv, envp);
    return 2;
}

static int status_of(pid_t child)
{
    int status = -1;

    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void test_here(void **state)
{
    (void)state;
    pid_t child = fork();
    if (child == 0)
        _exit(run_copy());
    assert_int_equal(status_of(child), 0);
}

static bool write_setting(const char *value)
{
    int fd = open("/proc/sys/vm/memfd_noexec", O_WRONLY | O_CLOEXEC);
    bool written = fd >= 0 && write(fd, value, 1) == 1;

    if (fd >= 0)
        close(fd);
    return written;
}

static void test_where_it_must_say_so(void **state)
{
    enum { CANNOT = 77 };
    (void)state;
    pid_t outer = fork();
    if (outer == 0) {
        if (unshare(CLONE_NEWPID) < 0)
            _exit(CANNOT);
        pid_t inner = fork();
        if (inner == 0)
            _exit(write_setting("1") ? run_copy() : CANNOT);
        _exit(status_of(inner));
    }
    int status = status_of(outer);
    if (status == CANNOT)
        print_message("not tried: it takes root, and Linux 6.3\n");
    else
        assert_int_equal(status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_here),
        cmocka_unit_test(test_where_it_must_say_so),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
