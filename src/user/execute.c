// SPDX-License-Identifier: BSD-2-Clause
// execve: a riscv64 program, or a script for one, is executed by this monitor, executed anew with
// the options of this one and the program's open file; anything else by the host's kernel.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "user/calls.h"

#define TEXTS_BYTES_MAX (6u << 20)  // as Linux, with the usual limit of the stack's size
#define TEXT_BYTES_MAX (128u << 10)
#define TEXTS_MAX (1u << 20)
#define OPTIONS_MAX 8  // of ours, before the program's arguments

// Strings of the program, NULL behind the last.
struct texts {
    char **texts;
    size_t count;
};

struct user_execution {
    struct texts argv, envp;
    struct user_program program;
    char **command, **environment;  // ours
    char fd[12];
};

static void texts_fini(struct texts *texts)
{
    for (size_t i = 0; i < texts->count; i++)
        free(texts->texts[i]);
    free(texts->texts);
}

static void execution_destroy(struct user_execution *execution)
{
    texts_fini(&execution->argv);
    texts_fini(&execution->envp);
    user_program_fini(&execution->program);
    free(execution->command);
    free(execution->environment);
    free(execution);
}

void user_execution_drop(struct user_thread *thread)
{
    struct user_execution *execution = thread->execution;
    if (!execution)
        return;
    thread->execution = NULL;
    execution->program.fd = -1;  // the child's
    execution_destroy(execution);
}

// ---- What it was given --------------------------------------------------------------------------

static int add_text(struct user_thread *thread, struct texts *texts, uint64_t gva, size_t *bytes)
{
    if ((texts->count & (texts->count + 1)) == 0) {  // room for as many again, and the NULL
        char **more = realloc(texts->texts, (2 * texts->count + 2) * sizeof(*more));
        if (!more)
            return -ENOMEM;
        texts->texts = more;
    }
    char *text = malloc(TEXT_BYTES_MAX);
    int64_t length = text ? user_copy_string(thread, text, gva, TEXT_BYTES_MAX) : -ENOMEM;
    if (length == -ENAMETOOLONG || (length >= 0 && *bytes + (size_t)length > TEXTS_BYTES_MAX))
        length = -E2BIG;
    if (length < 0) {
        free(text);
        return (int)length;
    }
    *bytes += (size_t)length + 1;
    char *shorter = realloc(text, (size_t)length + 1);
    texts->texts[texts->count++] = shorter ? shorter : text;
    return 0;
}

// A vector of pointers to strings; NULL is an empty one.
static int copy_texts(struct user_thread *thread, struct texts *texts, uint64_t gva, size_t *bytes)
{
    uint64_t text = 0;
    int rc = 0;

    texts->texts = calloc(1, sizeof(char *));
    if (!texts->texts)
        return -ENOMEM;
    for (; gva && texts->count < TEXTS_MAX; gva += sizeof(text)) {
        rc = user_copy_in(thread, &text, gva, sizeof(text));
        if (rc < 0 || !text)
            break;
        rc = add_text(thread, texts, text, bytes);
        if (rc < 0)
            break;
    }
    texts->texts[texts->count] = NULL;
    return texts->count == TEXTS_MAX ? -E2BIG : rc;
}

// ---- What is executed ---------------------------------------------------------------------------

// The program's open file for the monitor to come, which closes it.
static int keep_open(struct user_execution *execution)
{
    int fd = fcntl(execution->program.fd, F_DUPFD, 0);
    if (fd < 0)
        return -errno;
    close(execution->program.fd);
    execution->program.fd = fd;
    snprintf(execution->fd, sizeof(execution->fd), "%d", fd);
    return 0;
}

// What the program gets of its environment by an option: the monitor's own loader and C library
// would take it for theirs.
static bool is_loaders(const char *text)
{
    static const char *const names[] = {"LD_", "GLIBC_TUNABLES="};
    size_t i = 0;
    while (i < BASE_COUNT_OF(names) && strncmp(text, names[i], strlen(names[i])) != 0)
        i++;
    return i < BASE_COUNT_OF(names) && strchr(text, '=');
}

static size_t divide_environment(struct user_execution *execution, char **command)
{
    size_t at = 0, kept = 0;
    for (size_t i = 0; i < execution->envp.count; i++) {
        char *text = execution->envp.texts[i];
        if (is_loaders(text)) {
            command[at++] = (char *)(uintptr_t) "--env";
            command[at++] = text;
        } else {
            execution->environment[kept++] = text;
        }
    }
    return at;
}

static int make_command(const struct user_process *process, struct user_execution *execution,
                        const char *name)
{
    char **argv = execution->program.argv;
    size_t count = user_texts_count(argv), at = 0;
    static const char *const user[] = {"user"};
    const struct user_watch *watch = process->watch;
    const char *const *first = watch ? watch->command : user;
    size_t first_count = watch ? watch->command_count : 1;
    size_t command_max = 1 + first_count + OPTIONS_MAX + 2 * execution->envp.count + count + 2;
    char **command = calloc(command_max, sizeof(*command));
    execution->command = command;
    execution->environment = calloc(execution->envp.count + 1, sizeof(char *));
    if (!command || !execution->environment)
        return -ENOMEM;
    const char *const options[] = {"--engine",     process->engine->name,
                                   "--program-fd", execution->fd,
                                   "--argv0",      count ? argv[0] : "",
                                   "--sysroot",    process->sysroot ? process->sysroot : ""};
    _Static_assert(BASE_COUNT_OF(options) == OPTIONS_MAX, "room for them");
    command[at++] = (char *)(uintptr_t) "strake";  // execve(2) writes to none
    for (size_t i = 0; i < first_count; i++)
        command[at++] = (char *)(uintptr_t)first[i];
    for (size_t i = 0; i < OPTIONS_MAX; i++)
        command[at++] = (char *)(uintptr_t)options[i];
    at += divide_environment(execution, command + at);
    command[at++] = (char *)(uintptr_t)name;
    for (size_t i = 1; i < count; i++)
        command[at++] = argv[i];
    return 0;
}

static int64_t execute(struct user_thread *thread, const char *name, int fd,
                       struct user_execution *execution)
{
    struct user_program *program = &execution->program;
    int rc =
        user_program_find(program, thread->process->sysroot, name, fd, execution->argv.texts, NULL);
    if (rc < 0)
        return rc;
    if (program->hosts)
        return user_host_call(thread, SYS_execveat, (uint64_t)(fd < 0 ? AT_FDCWD : fd),
                              (uintptr_t)(fd < 0 ? name : ""), (uintptr_t)execution->argv.texts,
                              (uintptr_t)execution->envp.texts, fd < 0 ? 0 : AT_EMPTY_PATH, 0);
    rc = keep_open(execution);
    if (rc == 0)
        rc = make_command(thread->process, execution, name);
    return rc < 0 ? rc
                  : user_host_call(thread, SYS_execve, (uintptr_t) "/proc/self/exe",
                                   (uintptr_t)execution->command, (uintptr_t)execution->environment,
                                   0, 0, 0);
}

// Returns on failure only. In a child that has borrowed its memory what was allocated is left to
// its parent: the thread's `execution`.
static int64_t copy_and_execute(struct user_thread *thread, const char *name, int fd, uint64_t argv,
                                uint64_t envp)
{
    size_t bytes = 0;
    struct user_execution *execution = calloc(1, sizeof(*execution));
    if (!execution)
        return -ENOMEM;
    execution->program.fd = -1;
    thread->execution = execution;
    int64_t rc = copy_texts(thread, &execution->argv, argv, &bytes);
    if (rc == 0)
        rc = copy_texts(thread, &execution->envp, envp, &bytes);
    if (rc == 0)
        rc = execute(thread, name, fd, execution);
    thread->execution = NULL;
    execution_destroy(execution);
    return rc;
}

int64_t user_execve(struct user_thread *thread, const uint64_t arguments[6])
{
    const char *path;
    int rc = user_string(thread, arguments[0], &path);
    if (rc == 0 && user_proc_is_exe(path))
        path = thread->process->exe;
    return rc < 0 ? rc : copy_and_execute(thread, path, -1, arguments[1], arguments[2]);
}

int64_t user_execveat(struct user_thread *thread, const uint64_t arguments[6])
{
    const char *path;
    char name[PATH_MAX + 32];
    int rc = user_string(thread, arguments[1], &path), fd = (int)arguments[0];

    if (arguments[4] & ~(uint64_t)(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW))
        return -EINVAL;
    if (rc < 0)
        return rc;
    if (!*path && !(arguments[4] & AT_EMPTY_PATH))
        return -ENOENT;
    if (*path && (path[0] == '/' || fd == AT_FDCWD) && !(arguments[4] & AT_SYMLINK_NOFOLLOW))
        return copy_and_execute(thread, path, -1, arguments[2], arguments[3]);
    // As Linux names it for interpreters of scripts.
    snprintf(name, sizeof(name), *path ? "/dev/fd/%d/%s" : "/dev/fd/%d%s", fd, path);
    if (*path)
        fd = openat(fd, path,
                    O_RDONLY | O_CLOEXEC | (arguments[4] & AT_SYMLINK_NOFOLLOW ? O_NOFOLLOW : 0));
    if (fd < 0)
        return *path ? -errno : -EBADF;
    int64_t result = copy_and_execute(thread, name, fd, arguments[2], arguments[3]);
    if (*path)
        close(fd);
    return result;
}
