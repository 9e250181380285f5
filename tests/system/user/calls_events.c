// SPDX-License-Identifier: BSD-2-Clause
// Waiting: poll, select, epoll, events, timers, signals as descriptors; clocks.
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/times.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

#define MS 1000000

static volatile sig_atomic_t caught, caught_value;

static void on_signal(int signal, siginfo_t *info, void *context)
{
    (void)context;
    caught = signal;
    caught_value = info->si_value.sival_int;
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / MS;
}

static void handle(int signal, int flags)
{
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | flags};
    sigaction(signal, &action, NULL);
}

static void polling(int in, int out)
{
    struct pollfd fds[3] = {{in, POLLIN, 0}, {out, POLLOUT, 0}, {-1, POLLIN, 0}};
    int64_t start = now_ms();

    check(poll(fds, 1, 30) == 0 && now_ms() - start >= 29, "poll waits as long as it is to");
    check(poll(fds, 3, -1) == 1 && fds[0].revents == 0 && fds[1].revents == POLLOUT,
          "poll finds a pipe to be written");
    write(out, "x", 1);
    check(poll(fds, 2, -1) == 2 && fds[0].revents == POLLIN, "and one to be read");
    fds[0].fd = 999;
    check(poll(fds, 1, 0) == 1 && fds[0].revents == POLLNVAL, "and a descriptor that is none");
}

static void selecting(int in, int out)
{
    fd_set read_set, write_set;
    struct timeval none = {0, 5000};
    struct timespec some = {0, 5 * MS};
    char byte;

    FD_ZERO(&read_set);
    FD_ZERO(&write_set);
    FD_SET(in, &read_set);
    FD_SET(out, &write_set);
    check(select(out + 1, &read_set, &write_set, NULL, NULL) == 2 && FD_ISSET(in, &read_set) &&
              FD_ISSET(out, &write_set),
          "select finds both");
    read(in, &byte, 1);
    check(select(in + 1, &read_set, NULL, NULL, &none) == 0 && !FD_ISSET(in, &read_set),
          "select waits for nothing");
    sigset_t all;
    sigfillset(&all);
    check(pselect(0, NULL, NULL, NULL, &some, &all) == 0, "pselect with a mask");
}

static void interrupted(int in)
{
    // Again and again, since the first may come before the call.
    struct itimerval soon = {{0, 20000}, {0, 20000}}, never = {0};
    struct pollfd fd = {in, POLLIN, 0};
    sigset_t block, old;

    handle(SIGALRM, SA_RESTART);
    setitimer(ITIMER_REAL, &soon, NULL);
    check(poll(&fd, 1, 10000) == -1 && errno == EINTR && caught == SIGALRM,
          "a signal interrupts poll, even one that restarts calls");
    setitimer(ITIMER_REAL, &never, NULL);
    sigemptyset(&block);
    sigaddset(&block, SIGUSR1);
    sigprocmask(SIG_BLOCK, &block, &old);
    handle(SIGUSR1, 0);
    caught = 0;
    kill(getpid(), SIGUSR1);
    check(caught == 0 && ppoll(&fd, 1, NULL, &old) == -1 && errno == EINTR && caught == SIGUSR1,
          "ppoll lets a blocked signal through");
    caught = 0;
    kill(getpid(), SIGUSR1);
    check(pselect(0, NULL, NULL, NULL, NULL, &old) == -1 && errno == EINTR && caught == SIGUSR1,
          "and pselect");
    caught = 0;
    kill(getpid(), SIGUSR1);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event;
    check(epoll_pwait(epoll, &event, 1, -1, &old) == -1 && errno == EINTR && caught == SIGUSR1,
          "and epoll_pwait");
    caught = 0;
    check(sigprocmask(SIG_SETMASK, NULL, &old) == 0 && sigismember(&old, SIGUSR1) == 1,
          "which is blocked again behind it");
    close(epoll);
    int fd_of_signals = signalfd(-1, &block, SFD_NONBLOCK);
    struct signalfd_siginfo info = {0};
    check(read(fd_of_signals, &info, sizeof(info)) == -1 && errno == EAGAIN, "a signalfd");
    sigqueue(getpid(), SIGUSR1, (union sigval){.sival_int = 77});
    check(read(fd_of_signals, &info, sizeof(info)) == sizeof(info) && info.ssi_signo == SIGUSR1 &&
              info.ssi_pid == (uint32_t)getpid() && info.ssi_int == 77 && caught == 0,
          "reads a signal with its value");
    close(fd_of_signals);
    sigprocmask(SIG_UNBLOCK, &block, NULL);
}

static void epolling(int in, int out)
{
    int fd = epoll_create1(0), event_fd = eventfd(3, EFD_NONBLOCK);
    struct epoll_event event = {EPOLLIN, {.u64 = 0x123456789abcdef0}}, events[8];
    uint64_t value;

    check(epoll_ctl(fd, EPOLL_CTL_ADD, in, &event) == 0, "epoll with a pipe");
    event = (struct epoll_event){EPOLLIN | EPOLLET, {.u64 = 0xfedcba9876543210}};
    check(epoll_ctl(fd, EPOLL_CTL_ADD, event_fd, &event) == 0, "and an eventfd");
    check(epoll_ctl(fd, EPOLL_CTL_ADD, event_fd, &event) == -1 && errno == EEXIST, "only once");
    check(epoll_wait(fd, events, 8, 0) == 1 && events[0].data.u64 == 0xfedcba9876543210 &&
              events[0].events == EPOLLIN,
          "one is ready, with its 64 bits");
    check(epoll_wait(fd, events, 8, 0) == 0, "but not twice");
    write(out, "y", 1);
    value = 4;
    write(event_fd, &value, sizeof(value));
    check(epoll_wait(fd, events, 8, 1000) == 2 && (events[0].data.u64 ^ events[1].data.u64) ==
                                                      (0x123456789abcdef0 ^ 0xfedcba9876543210),
          "both are");
    check(read(event_fd, &value, sizeof(value)) == 8 && value == 7, "eventfd adds");
    event = (struct epoll_event){EPOLLOUT, {.u64 = 5}};
    check(epoll_ctl(fd, EPOLL_CTL_MOD, event_fd, &event) == 0 && epoll_wait(fd, events, 1, 0) == 1,
          "changed");
    check(epoll_ctl(fd, EPOLL_CTL_DEL, in, NULL) == 0 && epoll_wait(fd, events, 8, 0) == 1 &&
              events[0].events == EPOLLOUT && events[0].data.u64 == 5,
          "removed");
    check(epoll_wait(fd, events, 0, 0) == -1 && errno == EINVAL, "no room is an error");
    struct timespec none = {0};
    check(syscall(SYS_epoll_pwait2, fd, events, 8, &none, NULL, 0) == 1, "epoll_pwait2");
    read(in, &value, 1);
    close(event_fd);
    close(fd);
}

// As many as a program has room for are told of by one call.
static void epolling_many(void)
{
    enum { MANY = 600 };
    static struct epoll_event events[2 * MANY];
    int fd = epoll_create1(0), added = 0, right = 0, first = dup(fd), last = first;
    bool seen[MANY] = {0};

    for (; added < MANY; added++) {
        struct epoll_event event = {EPOLLIN, {.u64 = ((uint64_t)added << 32) + 7}};
        last = eventfd(1, 0);
        if (last < 0 || epoll_ctl(fd, EPOLL_CTL_ADD, last, &event) < 0)
            break;
    }
    int count = epoll_wait(fd, events, 2 * MANY, 0);
    for (int i = 0; i < count; i++) {
        uint64_t index = events[i].data.u64 >> 32;
        if (index < MANY && !seen[index] && (uint32_t)events[i].data.u64 == 7) {
            seen[index] = true;
            right += events[i].events == EPOLLIN;
        }
    }
    check(added == MANY && count == MANY && right == MANY, "hundreds are ready at once");
    check(epoll_wait(fd, events, 100, 0) == 100, "and as many as there is room for");
    close_range((unsigned)first, (unsigned)last, 0);
    close(fd);
}

static void timers(void)
{
    struct itimerspec soon = {{0, 10 * MS}, {0, 10 * MS}}, left;
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    uint64_t count = 0;
    timer_t timer;
    struct sigevent event = {
        .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 1, .sigev_value.sival_int = 4711};
    sigset_t wait;
    siginfo_t info;

    check(timerfd_settime(fd, 0, &soon, NULL) == 0 && read(fd, &count, 8) == 8 && count >= 1,
          "a timerfd");
    check(timerfd_gettime(fd, &left) == 0 && left.it_interval.tv_nsec == 10 * MS,
          "knows its interval");
    close(fd);
    sigemptyset(&wait);
    sigaddset(&wait, SIGRTMIN + 1);
    sigprocmask(SIG_BLOCK, &wait, NULL);
    soon.it_interval.tv_nsec = 0;
    check(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0 &&
              timer_settime(timer, 0, &soon, NULL) == 0,
          "a timer that signals");
    check(sigwaitinfo(&wait, &info) == SIGRTMIN + 1 && info.si_code == SI_TIMER &&
              info.si_value.sival_int == 4711,
          "with its value");
    check(timer_gettime(timer, &left) == 0 && left.it_value.tv_nsec == 0 &&
              timer_getoverrun(timer) == 0 && timer_delete(timer) == 0,
          "once");
}

static void clocks(void)
{
    struct timespec one, two, left = {0}, sleep = {0, 20 * MS}, longer = {30, 0};
    struct timeval old;
    struct tms spent;

    check(clock_gettime(CLOCK_REALTIME, &one) == 0 && gettimeofday(&old, NULL) == 0 &&
              old.tv_sec - one.tv_sec <= 10 && one.tv_sec > 1700000000,
          "the time of day");
    check(clock_getres(CLOCK_MONOTONIC, &two) == 0 && two.tv_sec == 0 && two.tv_nsec > 0,
          "a clock's resolution");
    int64_t start = now_ms();
    check(nanosleep(&sleep, &left) == 0 && now_ms() - start >= 19, "nanosleep");
    clock_gettime(CLOCK_MONOTONIC, &one);
    one.tv_sec += (one.tv_nsec + 20 * MS) / (1000 * MS);
    one.tv_nsec = (one.tv_nsec + 20 * MS) % (1000 * MS);
    start = now_ms();
    check(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &one, NULL) == 0 &&
              now_ms() - start >= 18,
          "until a time");
    struct itimerval soon = {{0, 20000}, {0, 20000}}, never = {0};
    setitimer(ITIMER_REAL, &soon, NULL);
    check(nanosleep(&longer, &left) == -1 && errno == EINTR && left.tv_sec >= 20 &&
              left.tv_sec < 30,
          "a sleep that is interrupted tells what was left");
    setitimer(ITIMER_REAL, &never, NULL);
    check(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &one) == 0 &&
              clock_gettime(CLOCK_THREAD_CPUTIME_ID, &two) == 0 && one.tv_sec >= two.tv_sec &&
              times(&spent) != (clock_t)-1 && clock() >= 0,
          "time spent");
    check(clock_gettime(99, &one) == -1 && errno == EINVAL, "a clock that there is not");
}

int main(void)
{
    int ends[2];

    pipe(ends);
    polling(ends[0], ends[1]);
    selecting(ends[0], ends[1]);
    interrupted(ends[0]);
    epolling(ends[0], ends[1]);
    epolling_many();
    timers();
    clocks();
    return check_done();
}
