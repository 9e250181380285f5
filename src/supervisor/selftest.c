// SPDX-License-Identifier: BSD-2-Clause
// Having a program test itself.
//
// It is somebody's program, but perhaps a broken one: it may crash, hang, print rubbish, or take
// memory without end. It has a session and a process group of its own, which are killed when time
// is up. What it prints, errors too, comes through one pipe.
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "supervisor/program.h"

#define OUTPUT_BYTES_MAX 4096u
#define QUOTE_BYTES 200               // of what it printed, in a message
#define FILE_BYTES_MAX (64ull << 20)  // in memory, too: guest RAM
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HEAP_BYTES_MAX RLIM_INFINITY  // which sanitizers take most of
#else
#define HEAP_BYTES_MAX (2ull << 30)
#endif

struct program_test {
    struct loop *loop;
    pid_t pid;
    int pidfd, output_fd;
    struct loop_watch *exit_watch, *output_watch;
    struct loop_timer *timer;
    unsigned timeout_ms;
    bool late;
    char output[OUTPUT_BYTES_MAX + 1];
    size_t count;
    program_tested *done;
    void *opaque;
};

static void test_free(struct program_test *test)
{
    if (test->pid > 0) {
        kill(-test->pid, SIGKILL);
        kill(test->pid, SIGKILL);
        waitpid(test->pid, NULL, 0);
    }
    loop_watch_close(test->exit_watch);
    loop_watch_close(test->output_watch);
    loop_timer_close(test->timer);
    if (test->pidfd >= 0)
        close(test->pidfd);
    if (test->output_fd >= 0)
        close(test->output_fd);
    free(test);
}

// ---- What has come of it ------------------------------------------------------------------------

static bool take_count(const json_t *object, const char *key, unsigned *out)
{
    const json_t *value = json_object_get(object, key);
    json_int_t number = json_integer_value(value);
    *out = (unsigned)number;
    return json_is_integer(value) && number >= 0 && number <= INT32_MAX;
}

static bool parse(const struct program_test *test, struct program_facts *facts)
{
    json_t *object = json_loadb(test->output, test->count, JSON_REJECT_DUPLICATES, NULL);
    const json_t *state = json_object_get(object, "state");
    const char *version = json_string_value(json_object_get(object, "version"));
    bool good = version && *version && strlen(version) < sizeof(facts->version) &&
                take_count(object, "epoch", &facts->epoch) &&
                take_count(state, "oldest", &facts->state_oldest) &&
                take_count(state, "newest", &facts->state_newest);
    if (good)
        memcpy(facts->version, version, strlen(version) + 1);
    json_decref(object);
    return good;
}

// The first line, as far as it can be shown.
static const char *quote(struct program_test *test)
{
    size_t length = 0;
    while (length < test->count && length < QUOTE_BYTES && test->output[length] >= ' ' &&
           test->output[length] <= '~')
        length++;
    test->output[length] = 0;
    return length ? test->output : "nothing that can be shown";
}

static int judge(struct program_test *test, int status, struct program_facts *facts,
                 struct error *err)
{
    const char *name = WIFSIGNALED(status) ? sigabbrev_np(WTERMSIG(status)) : NULL;
    if (test->late)
        return error_set(err, -ETIMEDOUT, "the program does not end its self-test within %u ms",
                         test->timeout_ms);
    if (test->count > OUTPUT_BYTES_MAX)
        return error_set(err, -EFBIG, "the program prints too much in its self-test");
    if (WIFSIGNALED(status))
        return error_set(err, -ECHILD, "the program crashes in its self-test: SIG%s",
                         name ? name : "?");
    if (WEXITSTATUS(status) != 0)
        return error_set(err, -ECHILD, "the program fails in its self-test with status %d: %s",
                         WEXITSTATUS(status), quote(test));
    if (!parse(test, facts))
        return error_set(err, -EPROTO, "the program tells nothing of itself, but prints: %s",
                         quote(test));
    return 0;
}

// ---- While it runs ------------------------------------------------------------------------------

static void read_output(struct program_test *test)
{
    while (test->count <= OUTPUT_BYTES_MAX) {
        ssize_t n =
            read(test->output_fd, test->output + test->count, sizeof(test->output) - test->count);
        if (n <= 0 && !(n < 0 && errno == EINTR))
            break;
        test->count += n > 0 ? (size_t)n : 0;
    }
}

static void on_output(void *opaque, unsigned events)
{
    struct program_test *test = opaque;
    size_t before = test->count;
    (void)events;
    read_output(test);
    if (test->count == before || test->count > OUTPUT_BYTES_MAX)
        loop_watch_set(test->output_watch, 0);  // its end, or all that anybody wants to know
    if (test->count > OUTPUT_BYTES_MAX)
        kill(test->pid, SIGKILL);
}

static void on_late(void *opaque)
{
    struct program_test *test = opaque;
    test->late = true;
    kill(test->pid, SIGKILL);
}

static void on_exit_seen(void *opaque, unsigned events)
{
    struct program_test *test = opaque;
    struct program_facts facts = {0};
    struct error err;
    siginfo_t info;
    int status = -1;
    (void)events;
    // What it has started goes first, while its number is its own.
    waitid(P_PID, (id_t)test->pid, &info, WEXITED | WNOWAIT);
    kill(-test->pid, SIGKILL);
    waitpid(test->pid, &status, 0);
    test->pid = -1;
    read_output(test);
    int rc = judge(test, status, &facts, &err);
    program_tested *done = test->done;
    void *done_opaque = test->opaque;
    test_free(test);
    done(done_opaque, rc == 0 ? &facts : NULL, rc == 0 ? NULL : &err);
}

// ---- The beginning ------------------------------------------------------------------------------

static int spawn(int program_fd, int output_fd)
{
    char *const arguments[] = {"strake", "monitor", "--self-test", NULL};
    const int fds[] = {SPAWN_NULL, output_fd, output_fd};
    const struct spawn program = {.arguments = arguments,
                                  .program_fd = program_fd,
                                  .apart = true,
                                  .fds = fds,
                                  .fd_count = BASE_COUNT_OF(fds)};
    return spawn_program(&program);
}

static void limit(pid_t pid, unsigned timeout_ms)
{
    const struct {
        int resource;
        rlim_t most;
    } limits[] = {{RLIMIT_DATA, HEAP_BYTES_MAX},
                  {RLIMIT_FSIZE, FILE_BYTES_MAX},
                  {RLIMIT_CORE, 0},
                  {RLIMIT_CPU, timeout_ms / 1000 + 1}};
    for (size_t i = 0; i < BASE_COUNT_OF(limits); i++)
        prlimit(pid, limits[i].resource,
                &(struct rlimit){.rlim_cur = limits[i].most, .rlim_max = limits[i].most}, NULL);
}

static int start(struct program_test *test, int program_fd)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
        return -errno;
    test->output_fd = ends[0];
    (void)!fcntl(ends[1], F_SETFL, 0);  // as programs expect it
    int rc = spawn(program_fd, ends[1]);
    close(ends[1]);
    if (rc < 0)
        return rc;
    test->pid = rc;
    limit(test->pid, test->timeout_ms);
    test->pidfd = pidfd_open(test->pid, 0);
    rc = test->pidfd < 0 ? -errno
                         : loop_watch_create(test->loop, test->pidfd, LOOP_READABLE, on_exit_seen,
                                             test, &test->exit_watch);
    if (rc == 0)
        rc = loop_watch_create(test->loop, test->output_fd, LOOP_READABLE, on_output, test,
                               &test->output_watch);
    if (rc == 0)
        rc = loop_timer_create(test->loop, on_late, test, &test->timer);
    return rc;
}

int program_test_begin(struct program_test **out, struct loop *loop, int program_fd,
                       unsigned timeout_ms, program_tested *done, void *opaque, struct error *err)
{
    struct program_test *test = calloc(1, sizeof(*test));
    if (!test)
        return error_set_errno(err, -ENOMEM, "cannot test the program");
    *test = (struct program_test){.loop = loop,
                                  .pid = -1,
                                  .pidfd = -1,
                                  .output_fd = -1,
                                  .timeout_ms = timeout_ms,
                                  .done = done,
                                  .opaque = opaque};
    int rc = start(test, program_fd);
    if (rc < 0) {
        test_free(test);
        return error_set_errno(err, rc, "cannot run the program");
    }
    loop_timer_start(test->timer, timeout_ms);
    *out = test;
    return 0;
}

void program_test_cancel(struct program_test *test)
{
    if (test)
        test_free(test);
}
