// SPDX-License-Identifier: BSD-2-Clause
// A program that never rests: threads come and go, children are forked and vforked, signals are
// sent, memory is mapped. It runs until it is killed.
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile long count;

__attribute__((noinline)) int busy(int turns)
{
    volatile int sum = 0;
    for (int i = 0; i < turns; i++)
        sum += i;
    return sum;
}

static void on_signal(int signal)
{
    (void)signal;
    count++;
}

static void *shortly(void *unused)
{
    busy(1000);
    return unused;
}

static void *begin_threads(void *unused)
{
    pthread_t thread;
    while (pthread_create(&thread, NULL, shortly, NULL) == 0)
        pthread_join(thread, NULL);
    return unused;
}

static void *work(void *unused)
{
    for (;;) {
        busy(100000);
        char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (page == MAP_FAILED)
            return unused;
        page[0] = 1;
        munmap(page, 4096);
    }
}

static void *fork_children(void *borrow)
{
    for (;;) {
        pid_t child = borrow ? vfork() : fork();
        if (child == 0)
            _exit(0);
        waitpid(child, NULL, 0);
        usleep(2000);
    }
    return NULL;
}

int main(void)
{
    void *(*const all[])(void *) = {begin_threads, work, fork_children, fork_children};
    pthread_t thread;

    signal(SIGUSR1, on_signal);
    for (unsigned i = 0; i < 4; i++)
        if (pthread_create(&thread, NULL, all[i], i == 3 ? (void *)&count : NULL) != 0)
            return 1;
    for (;;) {
        usleep(3000);
        kill(getpid(), SIGUSR1);
    }
}
