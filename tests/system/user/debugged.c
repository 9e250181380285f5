// SPDX-License-Identifier: BSD-2-Clause
// A program for a debugger: functions, threads, signals, children, and a status of its own.
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char text[32] = "hello";
static volatile int caught, go;
static volatile double half = 0.5;

__attribute__((noinline)) int inner(int a, int b)
{
    int sum = a + b;  // inner
    return sum;
}

__attribute__((noinline)) int outer(int a)
{
    return inner(a, 2 * a) + 1;
}

static void on_signal(int signal)
{
    caught = signal;  // handler
}

static pthread_barrier_t together;

__attribute__((noinline)) void *work(void *number)
{
    pthread_barrier_wait(&together);
    return number;  // working
}

__attribute__((noinline)) int twice(int value)
{
    return 2 * value;
}

__attribute__((noinline)) void forking(void)
{
    int status;
    pid_t child = fork();
    if (child == 0)
        _exit(inner(3, 4));  // a breakpoint there is the parent's alone
    waitpid(child, &status, 0);
    printf("child %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}

// This program once more, as posix_spawn has it: by vfork.
__attribute__((noinline)) void spawning(char *self)
{
    char *const arguments[] = {self, NULL};
    int status;
    pid_t child;

    if (posix_spawn(&child, self, NULL, NULL, arguments, environ) != 0)
        _exit(1);
    waitpid(child, &status, 0);
    printf("child %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}

__attribute__((noinline)) void spinning(void)
{
    while (!go)
        continue;
}

__attribute__((noinline)) void reading(void)
{
    char byte = 0;
    ssize_t got = read(0, &byte, 1);
    printf("read %d %c\n", (int)got, byte);  // read
}

static void *many_times(void *sum)
{
    for (int i = 0; i < 40; i++)
        *(int *)sum += twice(i * 4) / (i * 4 ? i * 4 : 1);
    return sum;
}

// twice() is called 160 times, with 120 by each thread once.
static void many(void)
{
    pthread_t ids[4];
    int sums[4] = {0}, sum = 0;

    for (int i = 0; i < 4; i++)
        pthread_create(&ids[i], NULL, many_times, &sums[i]);
    for (int i = 0; i < 4; i++) {
        pthread_join(ids[i], NULL);
        sum += sums[i];
    }
    printf("many %d\n", sum);
}

static void threads(void)
{
    pthread_t ids[2];

    pthread_barrier_init(&together, NULL, 3);
    for (long i = 0; i < 2; i++)
        pthread_create(&ids[i], NULL, work, (void *)i);
    pthread_barrier_wait(&together);
    for (int i = 0; i < 2; i++)
        pthread_join(ids[i], NULL);
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    signal(SIGUSR1, on_signal);
    int value = outer(5);
    printf("%s %d %g\n", text, value, half);
    if (argc > 1 && strcmp(argv[1], "threads") == 0)
        threads();
    if (argc > 1 && strcmp(argv[1], "fork") == 0)
        forking();
    if (argc > 1 && strcmp(argv[1], "spawn") == 0)
        spawning(argv[0]);
    if (argc > 1 && strcmp(argv[1], "many") == 0)
        many();
    if (argc > 1 && strcmp(argv[1], "terminated") == 0)
        raise(SIGTERM);
    if (argc > 1 && strcmp(argv[1], "spin") == 0)
        spinning();
    if (argc > 1 && strcmp(argv[1], "read") == 0)
        reading();
    if (argc > 1 && strcmp(argv[1], "signal") == 0) {
        raise(SIGUSR1);
        printf("caught %d\n", caught);
    }
    if (argc > 1 && strcmp(argv[1], "crash") == 0)
        *(volatile int *)8 = twice(1);  // crash
    return 7;
}
