// SPDX-License-Identifier: BSD-2-Clause
// bench: the guest's part of the benchmarks.
//
//   bench time NAME PROGRAM ARGUMENT...   runs a program; says when it begins and how long it took
//   bench forkexec COUNT PROGRAM          starts a program COUNT times, one after the other
//   bench pingpong COUNT                  one byte to another process and back, COUNT times
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int fail(const char *what)
{
    fprintf(stderr, "bench: %s: %s\n", what, strerror(errno));
    return 1;
}

static double monotonic_seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

// Runs a program until it ends; returns its exit status, or 128 if it had none to give.
static int run(char **argv)
{
    int status;
    pid_t child = fork();

    if (child == 0) {
        execvp(argv[0], argv);
        _exit(fail(argv[0]) + 126);
    }
    if (child < 0 || waitpid(child, &status, 0) != child)
        return 128;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

// The host reads its own clock when these lines arrive, to compare.
static int time_program(const char *name, char **argv)
{
    printf("bench: begin %s\n", name);
    double begin = monotonic_seconds();
    int status = run(argv);
    double seconds = monotonic_seconds() - begin;
    printf("bench: end %s %.6f status %d\n", name, seconds, status);
    return status;
}

static int fork_and_exec(long count, char *program)
{
    char *argv[] = {program, NULL};

    for (long i = 0; i < count; i++) {
        if (run(argv))
            return 1;
    }
    return 0;
}

static bool pass_byte(int from, int to)
{
    char byte;

    return read(from, &byte, 1) == 1 && write(to, &byte, 1) == 1;
}

static int ping_pong(long count)
{
    int there[2], back[2];

    if (pipe(there) || pipe(back))
        return fail("pipe");
    pid_t child = fork();
    if (child < 0)
        return fail("fork");
    if (child == 0) {
        close(there[1]);
        while (pass_byte(there[0], back[1]))
            ;
        _exit(0);
    }
    if (write(there[1], "x", 1) != 1)
        return fail("write");
    for (long i = 1; i < count; i++) {
        if (!pass_byte(back[0], there[1]))
            return fail("pipe");
    }
    return 0;
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc > 3 && strcmp(argv[1], "time") == 0)
        return time_program(argv[2], argv + 3);
    if (argc == 4 && strcmp(argv[1], "forkexec") == 0)
        return fork_and_exec(strtol(argv[2], NULL, 10), argv[3]);
    if (argc == 3 && strcmp(argv[1], "pingpong") == 0)
        return ping_pong(strtol(argv[2], NULL, 10));
    fprintf(stderr, "usage: bench time|forkexec|pingpong ...\n");
    return 2;
}
