// SPDX-License-Identifier: BSD-2-Clause
// Children: fork, vfork, posix_spawn, execve of all kinds of programs, and how their ends are told.
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

extern char **environ;

static char *self;

static int status_of(pid_t child)
{
    int status = -1;
    return waitpid(child, &status, 0) == child ? status : -1;
}

static void forking(void)
{
    int value = 1, pipe_fds[2];
    char byte = 0;
    (void)!pipe(pipe_fds);
    pid_t child = fork();
    if (child == 0) {
        value = 2;
        (void)!write(pipe_fds[1], "x", 1);
        _exit(getppid() > 0 && value == 2 ? 33 : 1);
    }
    (void)!read(pipe_fds[0], &byte, 1);
    int status = status_of(child);
    check(byte == 'x' && WIFEXITED(status) && WEXITSTATUS(status) == 33 && value == 1,
          "a child has a copy of its parent, and tells its status");
    check(wait(NULL) < 0 && errno == ECHILD, "there is one of each");
    child = fork();
    if (child == 0)
        for (;;)
            pause();
    kill(child, SIGTERM);
    status = status_of(child);
    check(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM, "one that was killed was killed");
    child = fork();
    if (child == 0)
        *(volatile int *)8 = 1;
    status = status_of(child);
    check(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV && !WCOREDUMP(status),
          "one that crashed crashed");
    child = fork();
    if (child == 0)
        abort();
    status = status_of(child);
    check(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "one that gave up gave up");
    bool right = true;
    for (int i = 0; i < 20; i++) {
        child = fork();
        if (child == 0) {
            pid_t grandchild = fork();
            if (grandchild == 0)
                _exit(i);
            _exit(WEXITSTATUS(status_of(grandchild)));
        }
        right = right && WEXITSTATUS(status_of(child)) == i;
    }
    check(right, "children have children");
}

static void borrowing(void)
{
    volatile int seen = 0;
    pid_t child = vfork();
    if (child == 0) {
        seen = 7;
        signal(SIGUSR1, SIG_IGN);
        _exit(3);
    }
    check(child > 0 && seen == 7 && WEXITSTATUS(status_of(child)) == 3,
          "vfork's child has its parent's memory");
    struct sigaction action;
    sigaction(SIGUSR1, NULL, &action);
    check(action.sa_handler == SIG_DFL, "but signals of its own");
    child = vfork();
    if (child == 0)
        raise(SIGKILL);
    check(WTERMSIG(status_of(child)) == SIGKILL && getpid() > 0,
          "its parent goes on when it is killed");
}

static pid_t spawn(char *const *argv)
{
    pid_t child;
    return posix_spawn(&child, argv[0], NULL, NULL, argv, environ) == 0 ? child : -1;
}

static void spawning(void)
{
    char *again[] = {self, "status", "12", NULL};
    check(WEXITSTATUS(status_of(spawn(again))) == 12, "posix_spawn executes the program itself");
    pid_t child;
    char *none[] = {"/nonexistent/program", NULL};
    check(posix_spawn(&child, none[0], NULL, NULL, none, environ) == ENOENT,
          "and tells what there is not");
    check(WEXITSTATUS(system("exit 5")) == 5, "system() runs a command");
    FILE *out = popen("echo one two", "r");
    char line[32] = "";
    (void)!fgets(line, sizeof(line), out);
    check(pclose(out) == 0 && strcmp(line, "one two\n") == 0, "popen() reads from one");
}

static int execute(const char *path, char *const *argv, char *const *envp)
{
    pid_t child = fork();
    if (child == 0) {
        execve(path, argv, envp);
        _exit(100 + errno);
    }
    return WEXITSTATUS(status_of(child));
}

static void write_file(const char *path, const char *text, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, mode);
    (void)!write(fd, text, strlen(text));
    close(fd);
}

static void executing(void)
{
    char script[4096];
    char *argv[] = {"other name", "arguments", "x", "", "z z", NULL};
    char *envp[] = {"ONE=1", "TWO=2 2", NULL};
    check(execute(self, argv, envp) == 21, "arguments and environment are handed on");
    snprintf(script, sizeof(script), "#! %s script \nnothing\n", self);
    write_file("script", script, 0755);
    char *with_script[] = {"script", "more", NULL};
    check(execute("./script", with_script, environ) == 22, "a script's interpreter gets it");
    write_file("script2", "#!./script\n", 0755);
    check(execute("./script2", with_script, environ) == 23, "a script may be another's");
    write_file("text", "no program", 0755);
    check(execute("./text", argv, environ) == 100 + ENOEXEC, "text is no program");
    write_file("forbidden", script, 0644);
    check(execute("./forbidden", argv, environ) == 100 + EACCES, "what may not be executed is not");
    check(execute(".", argv, environ) == 100 + EACCES, "nor is a folder");
    check(execute("./none", argv, environ) == 100 + ENOENT, "nor what is not there");
    write_file("loop", "#!./loop\n", 0755);
    check(execute("./loop", argv, environ) == 100 + ELOOP, "scripts do not go round for ever");
    write_file("broken", "\177ELF", 0755);
    check(execute("./broken", argv, environ) == 100 + ENOEXEC, "a broken program is none");
    check(execute((char *)8, argv, environ) == 100 + EFAULT, "nor is nowhere");
    char *hosts[] = {"sh", "-c", "exit 44", NULL};
    check(execute("/bin/sh", hosts, environ) == 44, "programs of the host are executed");
    pid_t child = fork();
    if (child == 0) {
        int fd = open(self, O_RDONLY | O_CLOEXEC);
        char *again[] = {"x", "status", "13", NULL};
        fexecve(fd, again, environ);
        _exit(1);
    }
    check(WEXITSTATUS(status_of(child)) == 13, "an open program is executed");
}

// What a program keeps over execve: ignored and blocked signals, descriptors that are not to be
// closed.
static void keeping(void)
{
    int kept = dup(1), closed = fcntl(1, F_DUPFD_CLOEXEC, 0);
    char numbers[2][12];
    snprintf(numbers[0], sizeof(numbers[0]), "%d", kept);
    snprintf(numbers[1], sizeof(numbers[1]), "%d", closed);
    char *argv[] = {self, "kept", numbers[0], numbers[1], NULL};
    sigset_t set;
    pid_t child = fork();
    if (child == 0) {
        signal(SIGUSR1, SIG_IGN);
        signal(SIGUSR2, (void (*)(int))(void *)keeping);
        sigemptyset(&set);
        sigaddset(&set, SIGHUP);
        sigprocmask(SIG_BLOCK, &set, NULL);
        for (int fd = 3; fd < 64; fd++)
            if (fd != kept && fd != closed)
                close(fd);
        execv(self, argv);
    }
    check(WEXITSTATUS(status_of(child)) == 24,
          "what is ignored, blocked and open stays so, nothing else");
}

static int is_kept(char **argv)
{
    struct sigaction one, two;
    sigset_t set;
    sigaction(SIGUSR1, NULL, &one);
    sigaction(SIGUSR2, NULL, &two);
    sigprocmask(SIG_BLOCK, NULL, &set);
    bool right = one.sa_handler == SIG_IGN && two.sa_handler == SIG_DFL &&
                 sigismember(&set, SIGHUP) && !sigismember(&set, SIGTERM) &&
                 fcntl(atoi(argv[2]), F_GETFD) == 0 && fcntl(atoi(argv[3]), F_GETFD) < 0;
    // Nothing of the monitor's is open.
    for (int fd = 3; fd < 64; fd++)
        right = right && (fcntl(fd, F_GETFD) < 0 || fd == atoi(argv[2]));
    return right ? 24 : 1;
}

static void waiting(void)
{
    pid_t child = fork();
    if (child == 0)
        _exit(6);
    siginfo_t info = {0};
    check(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT) == 0 && info.si_pid == child &&
              info.si_code == CLD_EXITED && info.si_status == 6,
          "waitid tells of a child");
    check(WEXITSTATUS(status_of(child)) == 6, "and leaves it when it is to");
    child = fork();
    if (child == 0) {
        raise(SIGSTOP);
        _exit(0);
    }
    int status = 0;
    check(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status) &&
              WSTOPSIG(status) == SIGSTOP,
          "a child stops");
    kill(child, SIGCONT);
    check(status_of(child) == 0, "and goes on");
    int *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    child = (pid_t)syscall(SYS_clone, CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | SIGCHLD, NULL,
                           &shared[0], NULL, &shared[1]);
    if (child == 0)
        _exit(shared[1] == getpid() ? 0 : 1);
    check(status_of(child) == 0 && shared[0] == child, "clone writes the child's id");
}

int main(int argc, char **argv)
{
    self = realpath("/proc/self/exe", NULL);
    if (argc == 2 && strcmp(argv[1], "sleep") == 0) {
        puts("sleeping");
        fflush(stdout);
        for (;;)
            pause();
    }
    if (argc == 2 && strcmp(argv[1], "traced") == 0)
        return execle(self, self, "environment", NULL,
                      (char *[]){"ONE=1", "LD_TRACE_LOADED_OBJECTS=1", NULL});
    for (int i = 0; argc == 2 && strcmp(argv[1], "environment") == 0 && environ[i]; i++)
        puts(environ[i]);
    if (argc == 2)
        return 0;
    if (argc == 3 && strcmp(argv[1], "status") == 0)
        return atoi(argv[2]);
    if (argc == 5 && strcmp(argv[1], "arguments") == 0)
        return strcmp(argv[0], "other name") == 0 && strcmp(argv[2], "x") == 0 && !*argv[3] &&
                       strcmp(argv[4], "z z") == 0 && strcmp(getenv("TWO"), "2 2") == 0 &&
                       environ[2] == NULL
                   ? 21
                   : 1;
    if (argc == 4 && strcmp(argv[1], "script") == 0)
        return strcmp(argv[2], "./script") == 0 && strcmp(argv[3], "more") == 0 ? 22 : 1;
    if (argc == 5 && strcmp(argv[1], "script") == 0)
        return strcmp(argv[3], "./script2") == 0 && strcmp(argv[4], "more") == 0 ? 23 : 1;
    if (argc == 4 && strcmp(argv[1], "kept") == 0)
        return is_kept(argv);
    forking();
    borrowing();
    spawning();
    executing();
    keeping();
    waiting();
    return check_done();
}
