// SPDX-License-Identifier: BSD-2-Clause
// Programs that test themselves: this very one, which can run guests, and bad ones: what is no
// program, and copies of this one that, by what stands behind them, fail, crash, hang, print
// rubbish or too much, or take memory without end. None of them gets further than its bounds.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "monitor/monitor.h"
#include "supervisor/program.h"
#include "unit.h"

#define WAIT_MS 300000u
#define LATE_MS 1500u

static const char good_line[] =
    "{\"version\": \"9.8.7\", \"epoch\": 3, \"state\": {\"oldest\": 1, \"newest\": 2}}\n";

struct fixture {
    struct loop *loop;
    struct program_facts facts;
    struct error why;
    bool good;
    unsigned answers;
};

static void on_tested(void *opaque, const struct program_facts *facts, const struct error *err)
{
    struct fixture *f = opaque;
    f->good = facts;
    if (facts)
        f->facts = *facts;
    else
        f->why = *err;
    f->answers++;
    loop_stop(f->loop);
}

// ---- The programs -------------------------------------------------------------------------------

static void take_memory(void)
{
    for (size_t bytes = 0;; bytes += 1 << 20) {
        char *block = malloc(1 << 20);
        if (!block) {
            fprintf(stderr, "no memory after %zu MiB\n", bytes >> 20);
            exit(1);
        }
        for (size_t at = 0; at < 1 << 20; at += 4096)
            *(volatile char *)&block[at] = 1;  // else a compiler may do without the block
    }
}

static int say(const char *text)
{
    fputs(text, stdout);
    return 0;
}

static int be_bad(const char *how)
{
    if (strcmp(how, "guests") == 0) {
        struct error err;
        int rc = monitor_self_test(&err);
        return rc < 0 ? fprintf(stderr, "%s\n", err.message), 1 : say(good_line);
    }
    if (strcmp(how, "good") == 0)
        return say(good_line);
    if (strcmp(how, "fail") == 0)
        return fprintf(stderr, "it is all wrong\nand more"), 7;
    if (strcmp(how, "crash") == 0) {
        signal(SIGSEGV, SIG_DFL);  // a sanitizer may have a handler
        raise(SIGSEGV);
    }
    if (strcmp(how, "hang") == 0)
        for (;;)
            pause();
    if (strcmp(how, "spin") == 0)
        for (;;)
            (void)getpid();
    if (strcmp(how, "rubbish") == 0)
        return say("\x1b[2Jhello");
    if (strcmp(how, "nothing") == 0)
        return 0;
    if (strcmp(how, "flood") == 0)
        for (;;)
            say("more and more ");
    if (strcmp(how, "memory") == 0)
        take_memory();
    if (strcmp(how, "child") == 0 && fork() == 0)
        for (;;)
            pause();  // and keeps the pipe open
    if (strcmp(how, "child") == 0)
        return say(good_line);
    return say(how);  // a line of its own
}

// This program, and behind it how it is to behave.
static int make_program(const char *how)
{
    struct error err;
    int own_fd = program_of(getpid(), &err);
    int fd = memfd_create("program", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    char bytes[65536];
    char tail[256] = "";
    for (ssize_t n; (n = read(own_fd, bytes, sizeof(bytes))) > 0;)
        assert_int_equal(write(fd, bytes, (size_t)n), n);
    close(own_fd);
    snprintf(tail, sizeof(tail), "%s", how);
    assert_int_equal(write(fd, tail, sizeof(tail)), sizeof(tail));
    return fd;
}

static int behave(void)
{
    char how[256] = "";
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || lseek(fd, -(off_t)sizeof(how), SEEK_END) < 0 ||
        read(fd, how, sizeof(how)) != sizeof(how))
        return 99;
    close(fd);
    return be_bad(how);
}

static void try(struct fixture *f, int fd, unsigned timeout_ms)
{
    struct program_test *test;
    unsigned before = f->answers;
    int sealed_fd = program_seal(fd, &f->why);
    assert_true(sealed_fd >= 0);
    f->good = false;
    int rc = program_test_begin(&test, f->loop, sealed_fd, timeout_ms, on_tested, f, &f->why);
    close(sealed_fd);
    close(fd);
    if (rc < 0)
        return;
    assert_int_equal(f->answers, before);
    loop_run(f->loop);
    assert_int_equal(f->answers, before + 1);
}

// ---- Tests --------------------------------------------------------------------------------------

static void test_runs_guests(void **state)
{
    struct fixture *f = *state;
    try(f, make_program("guests"), WAIT_MS);
    if (!f->good)
        fail_msg("%s", f->why.message);
    assert_string_equal(f->facts.version, "9.8.7");
    assert_int_equal(f->facts.epoch, 3);
    assert_int_equal(f->facts.state_oldest, 1);
    assert_int_equal(f->facts.state_newest, 2);
}

static void test_bad_programs(void **state)
{
    static const struct {
        const char *how, *why;  // NULL: it is good
        int code;
        unsigned timeout_ms;
    } cases[] = {
        {"good", NULL, 0, WAIT_MS},
        {"child", NULL, 0, WAIT_MS},
        {"fail", "fails in its self-test with status 7: it is all wrong", -ECHILD, WAIT_MS},
        {"crash", "crashes in its self-test: SIG", -ECHILD, WAIT_MS},
        {"hang", "does not end its self-test within 1500 ms", -ETIMEDOUT, LATE_MS},
        {"spin", "does not end its self-test within 1500 ms", -ETIMEDOUT, LATE_MS},
        {"rubbish", "prints: nothing that can be shown", -EPROTO, WAIT_MS},
        {"nothing", "prints: nothing", -EPROTO, WAIT_MS},
        {"flood", "prints too much", -EFBIG, WAIT_MS},
        {"{}", "prints: {}", -EPROTO, WAIT_MS},
        {"{\"version\": \"1\", \"epoch\": 1}", "tells nothing of itself", -EPROTO, WAIT_MS},
        {"{\"version\": \"\", \"epoch\": 1, \"state\": {\"oldest\": 1, \"newest\": 1}}",
         "tells nothing of itself", -EPROTO, WAIT_MS},
        {"{\"version\": \"1\", \"epoch\": -1, \"state\": {\"oldest\": 1, \"newest\": 1}}",
         "tells nothing of itself", -EPROTO, WAIT_MS},
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
        {"memory", "no memory after", -ECHILD, WAIT_MS},
#endif
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < BASE_COUNT_OF(cases); i++) {
        try(f, make_program(cases[i].how), cases[i].timeout_ms);
        print_message("%.40s: %s\n", cases[i].how, f->good ? "good" : f->why.message);
        assert_int_equal(f->good, !cases[i].why);
        if (f->good)
            continue;
        assert_int_equal(f->why.code, cases[i].code);
        if (!strstr(f->why.message, cases[i].why))
            fail_msg("\"%s\" has no \"%s\"", f->why.message, cases[i].why);
    }
}

static void test_no_programs(void **state)
{
    static const char *const contents[] = {"", "no program at all", "\177ELF"};
    struct fixture *f = *state;
    for (size_t i = 0; i < BASE_COUNT_OF(contents); i++) {
        f->why = (struct error){0};
        int fd = memfd_create("program", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        size_t length = strlen(contents[i]);
        assert_int_equal(write(fd, contents[i], length), length);
        try(f, fd, WAIT_MS);
        assert_false(f->good);
        print_message("%s\n", f->why.message);
        assert_non_null(strstr(f->why.message, "cannot run the program"));
    }
}

static void test_cancelled(void **state)
{
    struct fixture *f = *state;
    struct program_test *test;
    int fd = make_program("hang");
    int sealed_fd = program_seal(fd, &f->why);
    close(fd);
    assert_int_equal(program_test_begin(&test, f->loop, sealed_fd, WAIT_MS, on_tested, f, &f->why),
                     0);
    close(sealed_fd);
    program_test_cancel(test);
    program_test_cancel(NULL);
    assert_int_equal(f->answers, 0);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    *state = f;
    return loop_create(&f->loop, NULL);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    loop_destroy(f->loop);
    free(f);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "monitor") == 0 && strcmp(argv[2], "--self-test") == 0)
        return behave();
    const struct CMUnitTest tests[] = {
        TEST(test_runs_guests),
        TEST(test_bad_programs),
        TEST(test_no_programs),
        TEST(test_cancelled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
