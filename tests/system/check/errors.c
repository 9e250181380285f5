// SPDX-License-Identifier: BSD-2-Clause
// Programs for check_core.py, one for each name that argv[1] may be. Lines that reports are to name
// are marked.
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define HIDE(pointer)                                                                              \
    ({                                                                                             \
        __auto_type hidden = (pointer);                                                            \
        __asm__ volatile("" : "+r"(hidden) : : "memory");                                          \
        hidden;                                                                                    \
    })

static int *shared;
char *middle;

static void say(const char *text)
{
    (void)!write(STDOUT_FILENO, text, strlen(text));
}

static int clean(void)
{
    int *numbers = malloc(40);
    memset(HIDE(numbers), 1, 40);
    free(numbers);
    say("clean\n");
    return 7;
}

static int overflow(void)
{
    int *numbers = malloc(40);
    HIDE(numbers)[10] = 1;  // @overflow
    say("went on\n");
    free(numbers);
    return 7;
}

// The same place three times, and another one.
static int several(void)
{
    char *text = malloc(13);
    for (int i = 13; i < 16; i++)
        HIDE(text)[i] = 1;    // @several
    if (HIDE(text)[14] == 1)  // @several-read
        say("went on\n");
    free(text);
    return 7;
}

static int leak(void)
{
    (void)!HIDE(malloc(100));  // @leak
    middle = HIDE((char *)malloc(200)) + 100;
    say("leaked\n");
    return 7;
}

static void *write_behind(void *unused)
{
    shared[5] = 1;  // @thread
    return unused;
}

static int thread(void)
{
    pthread_t id;
    shared = calloc(5, sizeof(int));
    pthread_create(&id, NULL, write_behind, NULL);
    pthread_join(id, NULL);
    say("went on\n");
    return 7;
}

static void *loop(void *unused)
{
    for (;;) {
        char *text = malloc(20);
        memset(HIDE(text), 0, 20);
        free(text);
    }
    return unused;
}

// Threads that execute, wait and allocate while others report.
static int busy(void)
{
    pthread_t id;
    for (int i = 0; i < 3; i++)
        pthread_create(&id, NULL, loop, NULL);
    for (int i = 0; i < 3; i++)
        overflow();
    return 7;
}

static int child_status(pid_t pid)
{
    int status = -1;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int forks(void)
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(overflow());
    return child_status(pid) == 99 ? 7 : 1;
}

static int executes(const char *program)
{
    pid_t pid = vfork();
    if (pid == 0) {
        execl(program, program, "overflow", NULL);
        _exit(127);
    }
    return child_status(pid) == 99 ? 7 : 1;
}

static int null(void)
{
    int *nothing = NULL;
    return HIDE(nothing)[1];  // @null
}

static sigjmp_buf back;

static void leave(int signal)
{
    siglongjmp(back, signal);
}

static int handled(void)
{
    signal(SIGSEGV, leave);
    if (sigsetjmp(back, 1) == 0)
        return null();
    say("handled\n");
    return 7;
}

static int stack(int depth)
{
    char room[4096];
    memset(HIDE(&room[0]), depth, sizeof(room));
    return HIDE(depth) ? stack(depth + 1) + room[5] : 0;
}

// The handler has no stack either.
static int handled_stack(void)
{
    signal(SIGSEGV, leave);
    return stack(1);
}

static int raises(int signal)
{
    raise(signal);
    return 1;
}

static int aborts(void)
{
    overflow();
    abort();
}

// An allocator of its own.
static char pool[4096];
static size_t pool_used;

__attribute__((noinline)) static void *pool_take(int kind, size_t bytes)
{
    void *memory = pool + pool_used;
    pool_used += (bytes + 15) & ~15ul;
    return HIDE(kind) ? memory : NULL;
}

__attribute__((noinline)) static void pool_give(void *memory)
{
    memset(memory, 0, 1);
}

static int pooled(void)
{
    char *first = pool_take(1, 24), *second = pool_take(1, 24);
    HIDE(first)[24] = 1;  // @pool
    pool_give(first);
    pool_give(second);
    return 7;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(void);
    } programs[] = {{"clean", clean},   {"overflow", overflow}, {"several", several},
                    {"leak", leak},     {"thread", thread},     {"busy", busy},
                    {"forks", forks},   {"null", null},         {"handled", handled},
                    {"pooled", pooled}, {"aborts", aborts},     {"handled-stack", handled_stack}};
    const char *name = argc > 1 ? argv[1] : "";

    for (size_t i = 0; i < sizeof(programs) / sizeof(*programs); i++)
        if (strcmp(programs[i].name, name) == 0)
            return programs[i].run();
    if (strcmp(name, "executes") == 0)
        return executes(argv[0]);
    if (strcmp(name, "terminated") == 0)
        return raises(SIGTERM);
    if (strcmp(name, "stack") == 0)
        return stack(1);
    return 2;
}
